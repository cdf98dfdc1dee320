//! What holds for any text: no panic, places that exist, and work that grows with the text and no faster.

use jiff::civil::{DateTime, datetime};
use proptest::prelude::*;

use super::lex::work;
use super::{Context, CustomEntity, Names, entities, follow_up, task};
use crate::redact::{Redaction, Redactor};

const NOW: DateTime = datetime(2026, 3, 11, 10, 0, 0, 0);

fn names() -> Names {
    let thing = |text: &str| CustomEntity { custom_type: "thing".into(), value: text.into(), text: text.into() };
    Names::new(
        ["Anna Kim", "Bob Reyes", "Will May", "Łukasz Ż", "", "…"],
        &[thing("apollo"), thing("one two"), thing("5")],
    )
}

/// Everything here on one text.
fn read(text: &str, now: DateTime) {
    let names = names();
    let context = Context { now, names: &names };
    let mut last = 0;
    for it in entities(text, &context) {
        assert!(it.start >= last && it.start < it.end && it.end <= text.len(), "{it:?} after {last}");
        assert_eq!(&text[it.start..it.end], it.text);
        assert!(!it.values.is_empty());
        let _ = it.value().to_string();
        last = it.end;
    }
    for speaker in [None, Some(0), Some(1_000)] {
        let found = task(text, speaker, &context);
        if let Some(due) = &found.due {
            assert!(due.start < due.end && text.get(due.start..due.end).is_some());
            assert!(due.date >= now.date(), "{due:?} was before");
        }
        let _ = follow_up(text, speaker, &context);
    }
    for replacement in [Some("***"), Some("a b"), Some(""), None] {
        let mut it = Redactor::new(Redaction::all(replacement.map(str::to_owned)), names.clone());
        for found in [it.partial(text), it.last(text), it.last(text)] {
            let pieces: Vec<&str> = found.pieces.iter().map(|it| &*it.text).collect();
            assert_eq!(pieces.join(" "), found.text);
            let mut last = 0;
            for it in &found.found {
                assert!(it.start >= last && it.end >= it.start, "{it:?} after {last}");
                assert!(found.text.get(it.start..it.end).is_some(), "{it:?} of {:?}", found.text);
                last = it.end;
            }
            let words = text.split_whitespace().count();
            assert!(
                found.pieces.windows(2).all(|it| it[0].words.end == it[1].words.start || it[0].words == it[1].words)
                    || replacement == Some("")
            );
            assert!(found.pieces.iter().all(|it| it.words.start < it.words.end && it.words.end <= words));
        }
        it.resume([text, text]);
    }
}

/// The words the grammar knows, so that texts of them reach into its corners.
const WORDS: &[&str] = &[
    "the",
    "next",
    "last",
    "this",
    "monday",
    "friday",
    "may",
    "march",
    "5",
    "31",
    "2026",
    "0730",
    "20260311",
    "twenty",
    "first",
    "second",
    "third",
    "thirty",
    "one",
    "oh",
    "hundred",
    "thousand",
    "million",
    "and",
    "a",
    "half",
    "quarter",
    "past",
    "to",
    "from",
    "between",
    "until",
    "by",
    "before",
    "after",
    "since",
    "in",
    "within",
    "for",
    "of",
    "on",
    "at",
    "around",
    "week",
    "weeks",
    "month",
    "months",
    "year",
    "years",
    "day",
    "days",
    "hour",
    "minutes",
    "weekend",
    "end",
    "beginning",
    "mid",
    "early",
    "late",
    "later",
    "morning",
    "tonight",
    "today",
    "tomorrow",
    "ago",
    "every",
    "other",
    "each",
    "daily",
    "noon",
    "am",
    "pm",
    "a.m.",
    "o'clock",
    ":",
    ":30",
    "-",
    "/",
    ".",
    ",",
    "$",
    "€",
    "dollars",
    "cents",
    "usd",
    "percent",
    "%",
    "+",
    "(",
    ")",
    "x",
    "ext",
    "phone",
    "card",
    "number",
    "christmas",
    "easter",
    "ramadan",
    "eve",
    "century",
    "1990s",
    "q1",
    "h2",
    "fiscal",
    "summer",
    "anna",
    "bob",
    "will",
    "i'll",
    "i",
    "can",
    "you",
    "we",
    "let's",
    "please",
    "don't",
    "not",
    "if",
    "meet",
    "again",
    "send",
    "it",
    "dot",
    "com",
    "http",
    "://",
    "www",
    "@",
    "double",
    "triple",
    "99999999999999999999",
    "decades",
    "business",
    "w/c",
    "starting",
    "now",
    "date",
    "rest",
    "é",
    "東京",
    "\u{301}",
    "’s",
];

fn made_of_words() -> impl Strategy<Value = String> {
    prop::collection::vec((prop::sample::select(WORDS), prop::bool::weighted(0.85)), 0..40)
        .prop_map(|all| all.iter().map(|(word, gap)| format!("{word}{}", if *gap { " " } else { "" })).collect())
}

fn any_time() -> impl Strategy<Value = DateTime> {
    (-9999_i16..=9999, 1_i8..=12, 1_i8..=28, 0_i8..24, 0_i8..60)
        .prop_map(|(year, month, day, hour, minute)| datetime(year, month, day, hour, minute, 0, 0))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read(text in "\\PC{0,200}", now in any_time()) {
        read(&text, now);
    }

    #[test]
    fn any_characters_are_read(text in prop::collection::vec(any::<char>(), 0..100).prop_map(String::from_iter)) {
        read(&text, NOW);
    }

    #[test]
    fn any_words_are_read(text in made_of_words(), now in any_time()) {
        read(&text, now);
    }
}

#[test]
fn the_ends_of_time_are_no_ends_of_us() {
    for now in [DateTime::MIN, DateTime::MAX] {
        for text in [
            "next week",
            "in 9999 years",
            "last month",
            "yesterday",
            "the 30th",
            "next christmas",
            "every friday",
            "tomorrow at 5",
            "a century ago",
            "by the end of next decade",
            "I'll do it next weekend",
            "friday the 13th",
            "ramadan",
            "week 53",
            "past 3 quarters",
            "rest of the week",
        ] {
            read(text, now);
        }
    }
}

#[test]
fn a_name_that_is_a_word_may_stand_first() {
    for text in ["Will", "will may", "will can you", "Will May can you send it to Will"] {
        read(text, NOW);
    }
}

/// Twice the text is at most little more than twice the work, and no token costs much.
#[test]
fn work_grows_with_the_text_and_no_faster() {
    let names = names();
    let context = Context { now: NOW, names: &names };
    let looks = |text: &str| {
        let redactor = Redactor::new(Redaction::all(Some("***".to_owned())), names.clone());
        [
            work::of(|| entities(text, &context)),
            work::of(|| task(text, Some(0), &context)),
            work::of(|| redactor.partial(text)),
        ]
    };
    for pattern in [
        "one two three four five six seven eight nine ",
        "one hundred ",
        "twenty ",
        "1",
        "1 ",
        "1-",
        "1.",
        "1,",
        "1/",
        "1:",
        "(1) ",
        "+1 ",
        "12/12/2026 ",
        "may 5 2026 to ",
        "march ",
        "monday ",
        "from may to june ",
        "between one and two ",
        "next ",
        "the last week of ",
        "end of the ",
        "in two weeks and ",
        "a ",
        "half past ",
        "5 pm ",
        "$ 5 ",
        "dollars ",
        "percent of ",
        "a dot ",
        "a@",
        "a.a",
        "http://",
        "anna ",
        "anna and bob ",
        "my ",
        "apollo ",
        "i'll send it by friday ",
        "can you send it ",
        "we need to meet again ",
        "every ",
        "card ",
        "'",
        "é",
        "東京",
        "\u{301}",
        "- ",
        "x ",
    ] {
        let text = |bytes: usize| pattern.repeat(bytes / pattern.len());
        let (short, long) = (text(10_000), text(20_000));
        for (what, (half, whole)) in
            ["entities", "task", "redact"].iter().zip(looks(&short).into_iter().zip(looks(&long)))
        {
            assert!(whole <= half * 9 / 4 + 10_000, "{what} of {pattern:?}: {half} looks, then {whole}");
            assert!(
                whole <= 3_000 * (long.len() as u64),
                "{what} of {pattern:?}: {whole} looks for {} bytes",
                long.len()
            );
        }
    }
}
