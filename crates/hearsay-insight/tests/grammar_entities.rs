//! What the grammar reads in sentences, with and without capitals and punctuation.

use hearsay_insight::grammar::{Context, CustomEntity, Names, entities};
use jiff::civil::datetime;

/// Said on Wednesday, the 11th of March 2026, at ten. Each entity is `text = kind value | other value`.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let thing = |text: &str| CustomEntity { custom_type: "project".into(), value: "apollo".into(), text: text.into() };
    let names = Names::new(["Anna Kim", "Bob Reyes"], &[thing("project apollo"), thing("apollo")]);
    let context = Context { now: datetime(2026, 3, 11, 10, 0, 0, 0), names: &names };
    let read = |text: &str| -> Vec<String> {
        entities(text, &context)
            .iter()
            .map(|it| {
                assert_eq!(&text[it.start..it.end], it.text);
                let values: Vec<String> = it.values.iter().map(ToString::to_string).collect();
                format!("{} = {} {}", it.text, it.kind.name(), values.join(" | "))
            })
            .collect()
    };
    assert_eq!(read(text), expected, "{text}");
    let lower: Vec<String> = read(&text.to_lowercase()).iter().map(|it| it.to_lowercase()).collect();
    let expected: Vec<String> = expected.iter().map(|it| it.to_lowercase()).collect();
    assert_eq!(lower, expected, "{text}, in lower case");
}

#[test]
fn days() {
    check("the twenty fifth of March", &["the twenty fifth of March = date 2025-03-25 | 2026-03-25"]);
    check("March twenty fifth twenty twenty seven", &["March twenty fifth twenty twenty seven = date 2027-03-25"]);
    check("on 3 April, please", &["3 April = date 2025-04-03 | 2026-04-03"]);
    check("it was Dec. 31, 2024.", &["Dec. 31, 2024 = date 2024-12-31"]);
    check(
        "2026-04-05 or 4/6/2026 or 23.04.2026",
        &["2026-04-05 = date 2026-04-05", "4/6/2026 = date 2026-04-06", "23.04.2026 = date 2026-04-23"],
    );
    check("the day after tomorrow", &["the day after tomorrow = date 2026-03-13"]);
    check("next Tuesday", &["next Tuesday = date 2026-03-17"]);
    check("Wednesday next week", &["Wednesday next week = date 2026-03-18"]);
    check("the Monday after next", &["Monday after next = date 2026-03-23"]);
    check("on the seventeenth", &["the seventeenth = date 2026-02-17 | 2026-03-17"]);
    check("two weeks from tomorrow", &["two weeks from tomorrow = date 2026-03-26"]);
    check("three business days from now", &["three business days from now = date 2026-03-16"]);
    check("the last Friday of April", &["the last Friday of April = date 2025-04-25 | 2026-04-24"]);
    check("the day before Christmas", &["the day before Christmas = date 2026-12-24"]);
    check("Thanksgiving 2026", &["Thanksgiving 2026 = date 2026-11-26"]);
    check("Feb 29", &["Feb 29 = date 2024-02-29 | 2028-02-29"]);
}

#[test]
fn stretches_of_days() {
    check("sometime next week", &["next week = daterange 2026-03-16/2026-03-23"]);
    check("in the next couple of weeks", &["next couple of weeks = daterange 2026-03-12/2026-03-26"]);
    check("by the end of June", &["by the end of June = daterange ../2025-07-01 | ../2026-07-01"]);
    check("the third quarter of this year", &["the third quarter of this year = daterange 2026-07-01/2026-10-01"]);
    check("Q3 2026", &["Q3 2026 = daterange 2026-07-01/2026-10-01"]);
    check(
        "from March 2nd to the 5th of April",
        &["from March 2nd to the 5th of April = daterange 2026-03-02/2026-04-05"],
    );
    check("since January", &["since January = daterange 2026-01-01/.. | 2027-01-01/.."]);
    check("back in nineteen ninety six", &["nineteen ninety six = daterange 1996-01-01/1997-01-01"]);
    check("this may be fine", &[]);
}

#[test]
fn times() {
    check("at half past seven", &["half past seven = time 07:30:00 | 19:30:00"]);
    check("let's say 4:45 pm", &["4:45 pm = time 16:45:00"]);
    check(
        "tomorrow at three thirty",
        &["tomorrow at three thirty = datetime 2026-03-12T03:30:00 | 2026-03-12T15:30:00"],
    );
    check(
        "Friday from one to two pm",
        &["Friday from one to two pm = datetimerange 2026-03-06T13:00:00/2026-03-06T14:00:00 | \
         2026-03-13T13:00:00/2026-03-13T14:00:00"],
    );
    check("9am on Monday", &["9am on Monday = datetime 2026-03-09T09:00:00 | 2026-03-16T09:00:00"]);
    check("in fifteen minutes", &["in fifteen minutes = datetime 2026-03-11T10:15:00"]);
    check("tomorrow morning", &["tomorrow morning = datetimerange 2026-03-12T08:00:00/2026-03-12T12:00:00"]);
    check("an hour and a half", &["an hour and a half = duration PT5400S"]);
    check("every other Friday", &["every other Friday = set XXXX-WXX-5"]);
    check("Tuesdays at 9am", &["Tuesdays at 9am = set XXXX-WXX-2T09"]);
}

#[test]
fn amounts() {
    check("three thousand dollars", &["three thousand dollars = currency 3000 Dollar"]);
    check("about $48.2 million.", &["$48.2 million = currency 48200000 Dollar"]);
    check("twenty five euros and ten cents", &["twenty five euros and ten cents = currency 25.1 EUR"]);
    check("5 to 7 percent", &["5 = number 5", "7 percent = percentage 7%"]);
    check("one point two percent", &["one point two percent = percentage 1.2%"]);
    check("two hundred and fifty units", &["two hundred and fifty = number 250"]);
    check("one of them", &[]);
}

#[test]
fn addresses_and_numbers() {
    check("call five five five one two three four", &["five five five one two three four = phonenumber 5551234"]);
    check("call (541) 754-3010 ext. 12", &["(541) 754-3010 ext. 12 = phonenumber 5417543010;ext=12"]);
    check("anna dot kim at example dot com", &["anna dot kim at example dot com = email anna.kim@example.com"]);
    check("see https://example.com/x, please", &["https://example.com/x = url https://example.com/x"]);
}

#[test]
fn people_and_things() {
    check(
        "Project Apollo is with Anna Kim and Bob",
        &["Project Apollo = custom 0", "Anna Kim = person 0", "Bob = person 1"],
    );
    check("Apollo on Monday", &["Apollo = custom 1", "Monday = date 2026-03-09 | 2026-03-16"]);
}

#[test]
fn a_whole_utterance() {
    check(
        "okay so I think we should send the revised budget of twenty five thousand dollars to Anna by next Friday at three pm",
        &[
            "twenty five thousand dollars = currency 25000 Dollar",
            "Anna = person 0",
            "by next Friday at three pm = datetimerange ../2026-03-20T15:00:00",
        ],
    );
}

#[test]
fn of_several_the_next_is_meant_but_since_looks_back() {
    let names = Names::default();
    let context = Context { now: datetime(2026, 3, 11, 10, 0, 0, 0), names: &names };
    let value = |text: &str| entities(text, &context)[0].value().to_string();
    assert_eq!(value("on the 9th of March"), "2027-03-09");
    assert_eq!(value("since January"), "2026-01-01/..");
    assert_eq!(value("Friday at 5"), "2026-03-13T05:00:00");
}
