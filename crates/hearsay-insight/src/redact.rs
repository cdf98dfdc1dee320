//! What is personal in what was said, found and hidden before anybody hears of it.
//!
//! Each final is published once, so hiding cannot wait for what comes next. A number that may go on in the next
//! utterance is hidden at once: three or more digits at the end of a text, and all that follow them at the beginning
//! of the next. What remains seen of such a number is at most its first two digits, when an utterance ends after them
//! and nothing before told that a number comes. Digits inside a text are hidden from six on, or from three on after
//! words such as "card", "account" or "code"; shorter ones are taken for what people count.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use jiff::civil::{DateTime, datetime};

use crate::grammar::{Kind, Names, find_at, lex::Tokens, number, phone, web, words};

/// What can be found and hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Personal {
    /// Somebody of the roster.
    Name,
    Phone,
    Email,
    /// A payment card, by its check digit.
    Card,
    /// A social security number or what has its shape.
    SocialSecurity,
    /// Any other long number, and what is announced as a number of somebody's.
    Account,
    /// House number and street.
    Address,
}

impl Personal {
    pub const ALL: [Self; 7] =
        [Self::Name, Self::Phone, Self::Email, Self::Card, Self::SocialSecurity, Self::Account, Self::Address];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "person",
            Self::Phone => "phonenumber",
            Self::Email => "email",
            Self::Card => "card",
            Self::SocialSecurity => "ssn",
            Self::Account => "account",
            Self::Address => "address",
        }
    }
}

/// What is looked for and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redaction {
    pub kinds: Vec<Personal>,
    /// What stands in place of what was found; None leaves the text as it is and only tells where.
    pub replacement: Option<String>,
}

impl Redaction {
    /// Everything there is.
    #[must_use]
    pub fn all(replacement: Option<String>) -> Self {
        Self { kinds: Personal::ALL.to_vec(), replacement }
    }
}

/// A text with what is personal in it hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redacted {
    /// Its pieces joined by single spaces.
    pub text: String,
    pub pieces: Vec<Piece>,
    pub found: Vec<Found>,
}

/// A word of the new text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub text: String,
    /// Which words of the old text it stands for, by index; more than one where they were hidden together.
    pub words: Range<usize>,
}

/// Something personal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub kind: Personal,
    /// Bytes of the new text: first and after the last.
    pub start: usize,
    pub end: usize,
}

/// Something personal, and its bytes of the old text.
type Span = (Personal, usize, usize);

/// What the end of the last utterance leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Carry {
    #[default]
    Nothing,
    /// It ended in something hidden: digits may go on.
    Hidden,
    /// It ended in so many digits, too few to be hidden.
    Digits(usize),
    /// It said that a number comes.
    Announced,
}

/// Hides what is personal in one stream's texts, in their order.
#[derive(Debug, Clone)]
pub struct Redactor {
    config: Redaction,
    names: Arc<Names>,
    carry: Carry,
}

impl Redactor {
    #[must_use]
    pub fn new(config: Redaction, names: impl Into<Arc<Names>>) -> Self {
        Self { config, names: names.into(), carry: Carry::default() }
    }

    /// Goes on where another left off, given the stream's latest finals as they were published, oldest first. What
    /// is hidden from then on depends on nothing else, so whoever takes a stream over hides the same.
    pub fn resume<'a>(&mut self, published: impl IntoIterator<Item = &'a str>) {
        self.carry = Carry::default();
        for it in published {
            self.follow(it, false);
        }
    }

    /// Hides what is personal in a text that may still change.
    #[must_use]
    pub fn partial(&self, text: &str) -> Redacted {
        self.redact(text, true)
    }

    /// Hides what is personal in an utterance's last text, and remembers how it ended.
    #[must_use]
    pub fn last(&mut self, text: &str) -> Redacted {
        let it = self.redact(text, false);
        let open =
            self.config.replacement.is_none() && it.found.last().is_some_and(|found| closed(&it.text[found.end..]));
        self.follow(&it.text, open);
        it
    }

    /// `open`: what was found at its end is told apart only here, since nothing was replaced.
    fn follow(&mut self, published: &str, open: bool) {
        let lower = published.to_ascii_lowercase();
        let t = Tokens::new(&lower);
        let hidden = self.config.replacement.as_deref().is_some_and(|it| {
            let it = it.trim();
            let end = published.trim_end();
            !it.is_empty() && (end.ends_with(it) || end.trim_end_matches(['.', ',', '?', '!', ';', ':']).ends_with(it))
        });
        if hidden || open {
            self.carry = Carry::Hidden;
            return;
        }
        if (0..t.len()).all(|it| filler(&t, it)) {
            return;
        }
        let from = t.len().saturating_sub(8);
        let tail = (from..t.len()).find_map(|at| run(&t, at).filter(|it| ends(&t, it.end)));
        self.carry = match tail {
            Some(it) => Carry::Digits(it.digits.len()),
            None if (t.len().saturating_sub(6)..t.len()).any(|it| announces(t.word(it))) => Carry::Announced,
            None => Carry::Nothing,
        };
    }

    fn redact(&self, text: &str, partial: bool) -> Redacted {
        let lower = text.to_ascii_lowercase();
        let t = Tokens::new(&lower);
        let mut spans = self.spans(text, &t, partial);
        spans.retain(|it| self.config.kinds.contains(&it.0));
        build(text, &spans, self.config.replacement.as_deref())
    }

    /// What is personal, in order and apart from one another, in bytes.
    fn spans(&self, text: &str, t: &Tokens<'_>, partial: bool) -> Vec<Span> {
        let mut all: Vec<Span> = Vec::new();
        let mut at = 0;
        // Where the words that lead to a carried number end.
        let lead = (0..t.len()).find(|it| !filler(t, *it)).unwrap_or(t.len());
        while at < t.len() {
            let Some((kind, end)) = self.personal(text, t, at, at == lead, partial) else {
                // Digits that stay seen are passed over whole, else their rest would look like another number.
                at = run(t, at).map_or(at + 1, |it| it.end);
                continue;
            };
            let (start, stop) = (t.start(at), t.end(end));
            match all.last_mut() {
                // Two halves of one number.
                Some(last) if digits(last.0) && digits(kind) && joined(text, last.2, start) => {
                    last.2 = stop;
                    if last.0 != kind {
                        last.0 = Personal::Account;
                    }
                }
                _ => all.push((kind, start, stop)),
            }
            at = end.max(at + 1);
        }
        all
    }

    /// Something personal that begins there, and the token after it.
    fn personal(&self, text: &str, t: &Tokens<'_>, at: usize, lead: bool, partial: bool) -> Option<(Personal, usize)> {
        let mut best: Option<(Personal, usize)> = None;
        let mut take = |it: Option<(Personal, usize)>| {
            if let Some(it) = it
                && best.is_none_or(|best| it.1 > best.1)
            {
                best = Some(it);
            }
        };
        if let Some((Kind::Email, _, end)) = web::address(t, at) {
            take(Some((Personal::Email, end)));
        }
        if partial {
            take(unfinished_address(t, at).map(|end| (Personal::Email, end)));
        }
        take(self.names.person(text, t, at).map(|(_, end)| (Personal::Name, end)));
        take(self.names.surname(text, t, at).map(|end| (Personal::Name, end)));
        take(street(t, at).map(|end| (Personal::Address, end)));
        take(bank_account(t, at).map(|end| (Personal::Account, end)));
        let run = run(t, at);
        if let Some(it) = &run {
            take(self.number(text, t, at, it, lead).map(|kind| (kind, it.end)));
        }
        if let Some((_, end)) = phone::phone(t, at) {
            let card = run.as_ref().is_some_and(|it| it.end == end && card(&it.digits));
            take(Some((if card { Personal::Card } else { Personal::Phone }, end)));
        }
        best
    }

    /// What a run of digits is, if it is to be hidden.
    fn number(&self, text: &str, t: &Tokens<'_>, at: usize, it: &Run, lead: bool) -> Option<Personal> {
        let count = it.digits.len();
        let told = announced(t, at);
        let kind = if card(&it.digits) {
            Personal::Card
        } else if count == 9 && (it.groups == [3, 2, 4] || told == Some(Personal::SocialSecurity)) {
            Personal::SocialSecurity
        } else {
            match told {
                Some(Personal::Phone) if (6..=15).contains(&count) => Personal::Phone,
                Some(Personal::SocialSecurity) => Personal::SocialSecurity,
                Some(Personal::Card) => Personal::Card,
                _ => Personal::Account,
            }
        };
        if kind == Personal::Card && count >= 13 || kind == Personal::SocialSecurity && count == 9 {
            return Some(kind);
        }
        let follows = lead
            && match self.carry {
                Carry::Nothing => false,
                Carry::Hidden => count >= 2 || ends(t, it.end) || t.is_any(it.end, &[".", ",", ";"]),
                Carry::Digits(before) => before + count >= 3,
                Carry::Announced => count >= 2,
            };
        if follows {
            return Some(kind);
        }
        // A date, an amount of money, a share: said to be one.
        if told.is_none() && counted(text, t, at, it.end) {
            return None;
        }
        let long = count >= 6;
        let announced = told.is_some() && count >= 3;
        // One written number of three digits at the end is a count; three digits said one by one are not.
        let open = ends(t, it.end) && count >= 3 && (it.said >= 3 || count >= 4);
        (long || announced || open).then_some(kind)
    }
}

/// Digits said or written one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    digits: String,
    /// How many words said digits.
    said: usize,
    /// The lengths of the written groups.
    groups: Vec<usize>,
    end: usize,
}

/// The digits from there. A number with thousands or decimals is one of things, not a run.
fn run(t: &Tokens<'_>, at: usize) -> Option<Run> {
    let written = !t.digits(at).is_empty();
    if written {
        let amount = number::written(t, at);
        if amount.is_some_and(|it| it.1 > at + 1) || t.glued(at) && at > 0 && !t.word(at - 1).is_empty() {
            return None;
        }
    }
    let (digits, said, end) = phone::run(t, at)?;
    let digits = digits.trim_start_matches('+').to_owned();
    let groups = (at..end).map(|it| t.digits(it).len()).filter(|it| *it > 0).collect();
    (!digits.is_empty()).then_some(Run { digits, said, groups, end })
}

/// A date, a time, money or a share covers it.
fn counted(text: &str, t: &Tokens<'_>, at: usize, end: usize) -> bool {
    // What it would mean today does not matter.
    const NOW: DateTime = datetime(2026, 1, 1, 0, 0, 0, 0);
    // Also one that began a word or two before: "on the", "$".
    (at.saturating_sub(3)..=at).any(|from| {
        find_at(text, t, from, NOW).is_some_and(|(kind, stop)| {
            stop >= end
                && !matches!(kind, Kind::Phone | Kind::Number | Kind::Email | Kind::Url | Kind::Person | Kind::Custom)
        })
    })
}

/// The check digit of payment cards.
fn card(digits: &str) -> bool {
    if !(13..=19).contains(&digits.len()) {
        return false;
    }
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(i, it)| {
            let it = u32::from(it.saturating_sub(b'0'));
            match (i % 2, it * 2) {
                (0, _) => it,
                (_, twice) if twice > 9 => twice - 9,
                (_, twice) => twice,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Words after which a number is somebody's.
fn announces(word: &str) -> bool {
    announced_by(word).is_some()
}

fn announced_by(word: &str) -> Option<Personal> {
    Some(match word {
        "phone" | "telephone" | "mobile" | "cell" | "cellphone" | "fax" | "landline" => Personal::Phone,
        "card" | "visa" | "mastercard" | "amex" | "cvv" | "cvc" | "debit" => Personal::Card,
        "ssn" | "social" => Personal::SocialSecurity,
        "account" | "routing" | "iban" | "pin" | "passcode" | "password" | "passport" | "license" | "licence"
        | "policy" | "membership" | "customer" | "zip" | "code" | "number" | "digits" | "ending" => Personal::Account,
        _ => return None,
    })
}

/// What was said to come, in the eight words before.
fn announced(t: &Tokens<'_>, at: usize) -> Option<Personal> {
    let mut found = None;
    for back in 1..=8 {
        let Some(it) = at.checked_sub(back) else { break };
        match announced_by(t.word(it)) {
            // "number" and "code" say less than what stands before them: "social security number".
            Some(Personal::Account) => found = found.or(Some(Personal::Account)),
            Some(it) => return Some(it),
            None => {}
        }
    }
    found
}

/// Nothing but marks follows.
fn ends(t: &Tokens<'_>, at: usize) -> bool {
    (at..t.len()).all(|it| t.word(it).is_empty() && t.digits(it).is_empty())
}

fn closed(rest: &str) -> bool {
    !rest.chars().any(char::is_alphanumeric)
}

/// Words between two parts of a number, and marks.
fn filler(t: &Tokens<'_>, at: usize) -> bool {
    let word = t.word(at);
    if word.is_empty() {
        return t.digits(at).is_empty();
    }
    matches!(
        word,
        "um" | "uh"
            | "er"
            | "erm"
            | "ah"
            | "and"
            | "then"
            | "okay"
            | "ok"
            | "yes"
            | "yeah"
            | "yep"
            | "right"
            | "so"
            | "mhm"
            | "hmm"
            | "sorry"
            | "wait"
            | "it's"
            | "it"
            | "s"
            | "is"
            | "that"
            | "dash"
            | "hyphen"
            | "space"
    )
}

fn digits(kind: Personal) -> bool {
    matches!(kind, Personal::Phone | Personal::Card | Personal::SocialSecurity | Personal::Account)
}

/// Only spaces and joining marks lie between two places.
fn joined(text: &str, from: usize, to: usize) -> bool {
    text.get(from..to).is_some_and(|it| it.chars().all(|it| it.is_whitespace() || matches!(it, '-' | ',' | '.' | '/')))
}

/// "anna dot kim" at the end of a text that goes on: an address as likely as not.
fn unfinished_address(t: &Tokens<'_>, at: usize) -> Option<usize> {
    if t.word(at).is_empty() || t.len() - at > 16 {
        return None;
    }
    let dotted = (at + 1..t.len().min(at + 3)).any(|it| t.word(it) == "dot");
    let words = (at..t.len())
        .all(|it| !t.word(it).is_empty() || !t.digits(it).is_empty() || t.is_any(it, &[".", "-", "_", "@"]));
    let first = t.any(at + 1, "dot underscore at");
    (dotted && words && first).then_some(t.len())
}

/// "12 Oak Street", "two twenty one baker street apartment 4".
fn street(t: &Tokens<'_>, at: usize) -> Option<usize> {
    let digits = t.digits(at);
    let mut next = at;
    let mut big = false;
    if digits.is_empty() {
        for _ in 0..4 {
            let Some((it, end)) = number::spoken(t, next) else { break };
            big |= it >= 10 || next > at;
            next = end;
        }
        if next == at || t.any(at, "a an") {
            return None;
        }
    } else {
        if digits.len() > 5 || t.glued(at) && at > 0 && !t.is_any(at - 1, &[",", "(", "\"", ":", "#"]) {
            return None;
        }
        next += 1;
        big = true;
        next += usize::from(t.glued(next) && t.word(next).len() == 1);
    }
    for length in 1..=3 {
        let suffix = next + length;
        let name = (next..suffix).all(|it| {
            let word = t.word(it);
            !word.is_empty()
                && !matches!(
                    word,
                    "of" | "in"
                        | "to"
                        | "and"
                        | "or"
                        | "for"
                        | "is"
                        | "are"
                        | "per"
                        | "on"
                        | "at"
                        | "way"
                        | "more"
                        | "other"
                        | "was"
                        | "i"
                        | "we"
                        | "you"
                        | "people"
                        | "percent"
                        | "will"
                        | "can"
                        | "from"
                        | "a"
                )
                && words::unit(word).is_none()
        }) || length > 1 && number::ordinal(t, next).is_some_and(|it| it.1 == suffix);
        if !name {
            continue;
        }
        let plain = matches!(
            t.word(suffix),
            "street"
                | "avenue"
                | "ave"
                | "road"
                | "rd"
                | "boulevard"
                | "blvd"
                | "terrace"
                | "highway"
                | "parkway"
                | "lane"
        );
        let other = matches!(
            t.word(suffix),
            "drive" | "dr" | "way" | "place" | "court" | "ct" | "square" | "circle" | "st" | "crescent" | "close"
        );
        if plain || other && big {
            let mut end = suffix + 1;
            end += usize::from(t.is(end, ".") && t.any(suffix, "ave rd blvd dr ct st") && !t.word(end + 1).is_empty());
            let from = end + usize::from(t.is(end, ","));
            if t.any(from, "apartment apt suite unit floor flat")
                && let Some((_, stop)) = number::count(t, from + 1 + usize::from(t.is(from + 1, ".")))
            {
                end = stop;
            }
            return Some(end);
        }
    }
    None
}

/// An IBAN: two letters, two digits, groups of letters and digits.
fn bank_account(t: &Tokens<'_>, at: usize) -> Option<usize> {
    if t.word(at).len() != 2 || !t.word(at).is_ascii() || !t.glued(at + 1) || t.digits(at + 1).len() < 2 {
        return None;
    }
    let mut count = 0;
    let mut end = at + 1;
    while end < at + 16
        && (!t.digits(end).is_empty()
            || t.word(end).len() == 4 && t.get(end).is_some_and(|it| it.text.is_ascii()) && end == at + 2)
    {
        count += t.get(end)?.text.len();
        end += 1;
    }
    (13..=32).contains(&count).then_some(end)
}

/// Puts the replacement in place of each span's words. What stands around a span in its first and last word stays
/// when it is no more than marks or a possessive.
fn build(text: &str, spans: &[Span], replacement: Option<&str>) -> Redacted {
    let mut words: Vec<(usize, usize)> = Vec::new();
    let mut from = None;
    for (at, it) in text.char_indices() {
        match (it.is_whitespace(), from) {
            (false, None) => from = Some(at),
            (true, Some(start)) => {
                words.push((start, at));
                from = None;
            }
            _ => {}
        }
    }
    words.extend(from.map(|start| (start, text.len())));

    let mut out = Redacted { text: String::with_capacity(text.len()), pieces: Vec::new(), found: Vec::new() };
    // First word of a group to what it becomes.
    let mut groups: BTreeMap<usize, (usize, Vec<Span>)> = BTreeMap::new();
    let mut word = 0;
    for span in spans {
        while words.get(word).is_some_and(|it| it.1 <= span.1) {
            word += 1;
        }
        let first = word;
        let mut last = first;
        while words.get(last + 1).is_some_and(|it| it.0 < span.2) {
            last += 1;
        }
        match groups.last_entry() {
            // Two spans in one word are one.
            Some(mut it) if it.get().0 >= first => {
                it.get_mut().0 = last;
                it.get_mut().1.push(*span);
            }
            _ => {
                groups.insert(first, (last, vec![*span]));
            }
        }
    }
    let mut next = 0;
    while let Some(&(start, end)) = words.get(next) {
        if !out.text.is_empty() {
            out.text.push(' ');
        }
        let Some((last, hidden)) = groups.get(&next) else {
            out.pieces.push(Piece { text: text[start..end].to_owned(), words: next..next + 1 });
            out.text.push_str(&text[start..end]);
            next += 1;
            continue;
        };
        let stop = words.get(*last).map_or(end, |it| it.1);
        let (kind, begin) = hidden.first().map_or((Personal::Account, start), |it| (it.0, it.1.max(start)));
        let finish = hidden.last().map_or(stop, |it| it.2.min(stop));
        let base = out.text.len();
        match replacement {
            None => {
                for (at, it) in words[next..=*last].iter().enumerate() {
                    if at > 0 {
                        out.text.push(' ');
                    }
                    out.text.push_str(&text[it.0..it.1]);
                    out.pieces.push(Piece { text: text[it.0..it.1].to_owned(), words: next + at..next + at + 1 });
                }
                for it in hidden {
                    // Inner runs of spaces were made one.
                    let shift = |at: usize| {
                        let inside = words[next..=*last].iter().take_while(|word| word.1 < at).count();
                        let gone: usize =
                            words[next..=*last].windows(2).take(inside).map(|it| it[1].0 - it[0].1 - 1).sum();
                        base + at - start - gone
                    };
                    out.found.push(Found { kind: it.0, start: shift(it.1), end: shift(it.2) });
                }
            }
            Some(replacement) => {
                let before = text.get(start..begin).filter(|it| plain(it)).unwrap_or_default();
                let after = text.get(finish..stop).filter(|it| plain(it)).unwrap_or_default();
                let new = format!("{before}{replacement}{after}");
                let from = base + before.len();
                out.found.push(Found { kind, start: from, end: from + replacement.len() });
                // A replacement of several words is as many of them.
                let mut some = false;
                for it in new.split(' ').filter(|it| !it.is_empty()) {
                    out.pieces.push(Piece { text: it.to_owned(), words: next..*last + 1 });
                    some = true;
                }
                if !some {
                    out.text.truncate(base.saturating_sub(usize::from(base > 0)));
                    out.found.pop();
                } else {
                    out.text.push_str(&new);
                }
            }
        }
        next = *last + 1;
    }
    out
}

/// Marks, or the ending of a possessive.
fn plain(it: &str) -> bool {
    let it = it.strip_prefix(['\'', '’']).and_then(|it| it.strip_prefix('s')).unwrap_or(it);
    !it.chars().any(char::is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor() -> Redactor {
        Redactor::new(Redaction::all(Some("***".to_owned())), Names::new(["Anna Kim", "Will Reyes"], &[]))
    }

    /// One stream's finals, one after another.
    #[track_caller]
    fn check(texts: &[&str], expected: &[&str]) {
        let mut it = redactor();
        let found: Vec<Redacted> = texts.iter().map(|text| it.last(text)).collect();
        assert_eq!(found.iter().map(|it| &*it.text).collect::<Vec<_>>(), expected);
        for (text, found) in texts.iter().zip(&found) {
            let pieces: Vec<&str> = found.pieces.iter().map(|it| &*it.text).collect();
            assert_eq!(pieces.join(" "), found.text);
            assert_eq!(found.pieces.first().map_or(0, |it| it.words.start), 0);
            assert_eq!(found.pieces.last().map_or(0, |it| it.words.end), text.split_whitespace().count());
            for it in &found.found {
                assert_eq!(&found.text[it.start..it.end], "***");
            }
        }
    }

    #[test]
    fn names_and_addresses_are_hidden() {
        check(&["I asked Anna Kim, then Will."], &["I asked ***, then ***."]);
        check(&["ask Ms. Kim or dr reyes about kim"], &["ask Ms. *** or dr *** about kim"]);
        check(&["that will do for anna's team"], &["that will do for ***'s team"]);
        check(&["mail (anna.kim@example.com) now"], &["mail (***) now"]);
        check(&["write to anna dot k at example dot com please"], &["write to *** please"]);
        check(&["I live at 12 Oak Street, Springfield"], &["I live at ***, Springfield"]);
        check(&["it is two twenty one baker street apartment four"], &["it is ***"]);
        check(&["it is a two way street and a 5 minute drive"], &["it is a two way street and a 5 minute drive"]);
    }

    #[test]
    fn numbers_of_people_are_hidden() {
        check(&["call +1 541-754-3010, thanks"], &["call ***, thanks"]);
        check(&["my card is 4111 1111 1111 1111 okay"], &["my card is *** okay"]);
        check(&["the ssn is 123-12-1234 okay"], &["the ssn is *** okay"]);
        check(&["account number four five six seven then"], &["account number *** then"]);
        check(&["five five five one two three four is mine"], &["*** is mine"]);
        check(&["it was four two four two four two then"], &["it was *** then"]);
        check(&["iban DE89 3704 0044 0532 0130 00 please"], &["iban *** please"]);
    }

    #[test]
    fn numbers_of_things_stay() {
        check(&["we sold 1,500,000 units for $2,000,000 in 2026"], &["we sold 1,500,000 units for $2,000,000 in 2026"]);
        check(&["on 16/04/2010 at 10:30 or 2019-03-03."], &["on 16/04/2010 at 10:30 or 2019-03-03."]);
        check(&["twenty five percent of three thousand dollars"], &["twenty five percent of three thousand dollars"]);
        check(&["I have 300"], &["I have 300"]);
        check(&["from two thousand fifteen to 2018"], &["from two thousand fifteen to 2018"]);
        check(&["we are three"], &["we are three"]);
        check(&["oh oh oh oh oh oh oh"], &["oh oh oh oh oh oh oh"]);
    }

    #[test]
    fn a_number_goes_on_in_the_next_utterance() {
        check(
            &["it is four one one one", "one one one one", "um", "and two three.", "Thanks"],
            &["it is ***", "***", "um", "and ***.", "Thanks"],
        );
        check(&["it is four one one one", "two two and done"], &["it is ***", "*** and done"]);
        check(&["my number is", "five five and that is all"], &["my number is", "*** and that is all"]);
        // What is seen of it: two digits, since nothing told of a number yet.
        check(&["well four one", "one one two"], &["well four one", "***"]);
        check(&["well four one", "one two is it"], &["well four one", "*** is it"]);
        check(&["it is four one one one", "Two things now"], &["it is ***", "Two things now"]);
        check(&["hello there", "two three things"], &["hello there", "two three things"]);
    }

    #[test]
    fn a_partial_hides_what_a_final_would_and_changes_nothing() {
        let mut it = redactor();
        assert_eq!(it.partial("it is four one").text, "it is four one");
        assert_eq!(it.partial("it is four one one").text, "it is ***");
        assert_eq!(it.partial("write to anna dot").text, "write to ***");
        assert_eq!(it.partial("write to anna dot kim at exam").text, "write to ***");
        let _ = it.last("the code is four one one one");
        assert_eq!(it.partial("two three").text, "***");
        assert_eq!(it.partial("two three").text, "***");
    }

    #[test]
    fn who_takes_over_hides_the_same() {
        let finals = ["it is four one one one", "uh", "two three"];
        let mut first = redactor();
        let published: Vec<Redacted> = finals.iter().map(|it| first.last(it)).collect();
        for cut in 0..finals.len() {
            let mut second = redactor();
            second.resume(published[..cut].iter().map(|it| &*it.text));
            for (text, before) in finals[cut..].iter().zip(&published[cut..]) {
                assert_eq!(second.last(text), *before);
            }
        }
    }

    #[test]
    fn without_a_replacement_only_the_places_are_told() {
        let names = Names::new(["Anna Kim"], &[]);
        let mut it = Redactor::new(Redaction::all(None), names);
        let found = it.last("ask  Anna   Kim at four one one one");
        assert_eq!(found.text, "ask Anna Kim at four one one one");
        let told: Vec<_> = found.found.iter().map(|it| (it.kind, &found.text[it.start..it.end])).collect();
        assert_eq!(told, [(Personal::Name, "Anna Kim"), (Personal::Account, "four one one one")]);
        assert_eq!(it.last("two three").found.len(), 1);
    }

    #[test]
    fn only_what_was_asked_for_is_hidden() {
        let config = Redaction { kinds: vec![Personal::Email], replacement: Some("[e mail]".to_owned()) };
        let mut it = Redactor::new(config, Names::new(["Anna Kim"], &[]));
        let found = it.last("Anna is a@b.com.");
        assert_eq!(found.text, "Anna is [e mail].");
        assert_eq!(found.pieces.iter().map(|it| it.words.clone()).collect::<Vec<_>>(), [0..1, 1..2, 2..3, 2..3]);
    }

    #[test]
    fn card_numbers_have_a_check_digit() {
        assert!(card("4111111111111111"));
        assert!(!card("4111111111111112"));
        assert!(!card("0000"));
    }
}
