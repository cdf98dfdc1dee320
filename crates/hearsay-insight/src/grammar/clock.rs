//! Times of day.

use jiff::civil::Time;

use super::lex::Tokens;
use super::number::{below_hundred, digit, teen, tens, unit};

/// A time of day. Without "am", "pm" or the part of the day, twelve hours later is as likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock {
    pub(crate) time: Time,
    pub(crate) certain: bool,
    pub(crate) shape: Shape,
}

/// How plainly words say a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// "7:30", "7 pm", "noon".
    Firm,
    /// "seven thirty": an amount as well.
    Pair,
    /// "7": a time only beside other words.
    Bare,
}

/// Parts of a day, with their usual hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Daypart {
    Morning,
    Afternoon,
    Evening,
    Night,
    Daytime,
    Business,
    Breakfast,
    Lunch,
    Dinner,
}

impl Daypart {
    pub(crate) fn hours(self) -> (Time, Time) {
        let (from, to) = match self {
            Self::Morning | Self::Breakfast => (8, 12),
            Self::Afternoon => (12, 16),
            Self::Evening | Self::Dinner => (16, 20),
            Self::Night => return (Time::constant(20, 0, 0, 0), Time::constant(23, 59, 59, 0)),
            Self::Daytime | Self::Business => (8, 18),
            Self::Lunch => (11, 13),
        };
        (Time::constant(from, 0, 0, 0), Time::constant(to, 0, 0, 0))
    }

    /// The code for it in a recurrence.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Morning => "MO",
            Self::Afternoon => "AF",
            Self::Evening => "EV",
            Self::Night => "NI",
            Self::Daytime => "DT",
            Self::Business => "BH",
            Self::Breakfast => "MEB",
            Self::Lunch => "MEL",
            Self::Dinner => "MED",
        }
    }
}

/// "morning", "evenings".
pub(crate) fn daypart_word(word: &str) -> Option<Daypart> {
    Some(match word {
        "morning" | "mornings" => Daypart::Morning,
        "afternoon" | "afternoons" | "arvo" => Daypart::Afternoon,
        "evening" | "evenings" => Daypart::Evening,
        "night" | "nights" => Daypart::Night,
        "daytime" => Daypart::Daytime,
        _ => return None,
    })
}

impl Clock {
    fn new(hour: i64, minute: i64, second: i64, certain: bool) -> Option<Self> {
        let small = |it: i64| i8::try_from(it).ok();
        let hour = if hour == 24 && minute == 0 && second == 0 { 0 } else { hour };
        let time = Time::new(small(hour)?, small(minute)?, small(second)?, 0).ok()?;
        Some(Self { time, certain: certain || hour > 12 || hour == 0, shape: Shape::Firm })
    }

    fn with_hour(self, hour: i8) -> Self {
        let time = Time::new(hour, self.time.minute(), self.time.second(), 0).unwrap_or(self.time);
        Self { time, certain: true, shape: Shape::Firm }
    }

    pub(crate) fn am(self) -> Self {
        if self.certain { self } else { self.with_hour(self.time.hour() % 12) }
    }

    pub(crate) fn pm(self) -> Self {
        if self.certain { self } else { self.with_hour(self.time.hour() % 12 + 12) }
    }

    /// The times it may be: as said, then twelve hours from it.
    pub(crate) fn candidates(self) -> Vec<Time> {
        if self.certain {
            return vec![self.time];
        }
        let hour = self.time.hour();
        let other = if hour == 12 { 0 } else { hour + 12 };
        vec![self.time, self.with_hour(other).time]
    }

    /// Told the part of the day.
    pub(crate) fn within(self, part: Daypart) -> Self {
        match part {
            Daypart::Morning | Daypart::Breakfast => self.am(),
            Daypart::Afternoon | Daypart::Evening | Daypart::Dinner => self.pm(),
            // "One at night" is past midnight; "twelve at night" is midnight.
            Daypart::Night => match self.time.hour() {
                0..5 | 12 => self.am(),
                _ => self.pm(),
            },
            Daypart::Lunch => {
                if matches!(self.time.hour(), 11) {
                    self.am()
                } else {
                    self.pm()
                }
            }
            Daypart::Daytime | Daypart::Business => {
                if matches!(self.time.hour(), 7..12) {
                    self.am()
                } else {
                    self.pm()
                }
            }
        }
    }
}

/// "am", "p.m.", "a m", "p . m .": whether it is after noon, and where it ends.
pub(crate) fn meridiem(t: &Tokens<'_>, at: usize) -> Option<(bool, usize)> {
    match t.word(at) {
        "am" | "pm" => Some((t.word(at) == "pm", at + 1)),
        it @ ("a" | "p") => {
            let pm = it == "p";
            let dot = t.is(at + 1, ".");
            let next = at + 1 + usize::from(dot);
            if t.word(next) == "m" {
                let end = next + 1;
                let after_dot = dot && t.is(end, ".") && (t.glued(end) || !t.glued(at + 1));
                return Some((pm, end + usize::from(after_dot)));
            }
            // "9a"
            (t.glued(at) && !t.digits(at.wrapping_sub(1)).is_empty()).then_some((pm, at + 1))
        }
        _ => None,
    }
}

/// "o'clock".
pub(crate) fn oclock(t: &Tokens<'_>, at: usize) -> Option<usize> {
    if t.word(at) == "oclock" {
        return Some(at + 1);
    }
    if t.word(at) != "o" {
        return None;
    }
    let next = at + 1 + usize::from(t.apostrophe(at + 1));
    (t.word(next) == "clock").then_some(next + 1)
}

/// An hour from 1 to 12 in words, or 0 to 24 in digits.
fn hour(t: &Tokens<'_>, at: usize) -> Option<(i64, usize)> {
    let digits = t.digits(at);
    if !digits.is_empty() {
        let value = (digits.len() <= 2).then(|| digits.parse().ok())??;
        return (value <= 24).then_some((value, at + 1));
    }
    let word = t.word(at);
    let value = unit(word).filter(|it| *it > 0).or_else(|| teen(word).filter(|it| *it <= 12))?;
    Some((value, at + 1))
}

/// Minutes after an hour in words: "thirty", "forty-five", "oh five".
fn minutes(t: &Tokens<'_>, at: usize) -> Option<(i64, usize)> {
    let at = if t.is(at, "-") && t.glued(at) && t.glued(at + 1) { at + 1 } else { at };
    if t.any(at, "oh o") {
        let one = digit(t.word(at + 1)).filter(|it| *it > b'0')?;
        return Some((i64::from(one - b'0'), at + 2));
    }
    let word = t.word(at);
    if tens(word).is_some() || teen(word).is_some() {
        return below_hundred(t, at).filter(|it| it.0 < 60);
    }
    None
}

/// A time of day. `loose` also takes a bare number, and the caller answers for what stands around it.
pub(crate) fn clock(t: &Tokens<'_>, at: usize, loose: bool) -> Option<(Clock, usize)> {
    let (it, next) = plain(t, at, loose)?;
    // "in the morning", "at night", "early morning" after it.
    if let Some((part, end)) = daypart_after(t, next) {
        return Some((Clock { shape: Shape::Firm, ..it.within(part) }, end));
    }
    if it.shape != Shape::Firm && !loose {
        return None;
    }
    Some((it, next))
}

/// "in the morning", "at night", "early morning", "in the early evening", as they follow a time.
pub(crate) fn daypart_after(t: &Tokens<'_>, at: usize) -> Option<(Daypart, usize)> {
    let mut next = at;
    if t.any(next, "in during") && t.word(next + 1) == "the" {
        next += 2;
    } else if t.word(next) == "at" && t.word(next + 1) == "night" {
        return Some((Daypart::Night, next + 2));
    } else if !t.any(next, "early late") {
        return None;
    }
    if t.any(next, "early late") {
        next += 1;
    }
    let part = daypart_word(t.word(next)).filter(|_| !t.word(next).ends_with('s'))?;
    Some((part, next + 1))
}

fn plain(t: &Tokens<'_>, at: usize, loose: bool) -> Option<(Clock, usize)> {
    match t.word(at) {
        "noon" | "midday" | "noonish" => return Some((Clock::new(12, 0, 0, true)?, at + 1)),
        "midnight" => return Some((Clock::new(0, 0, 0, true)?, at + 1)),
        "mid" => {
            let next = at + 1 + usize::from(t.is(at + 1, "-"));
            return match t.word(next) {
                "day" => Some((Clock::new(12, 0, 0, true)?, next + 1)),
                "night" => Some((Clock::new(0, 0, 0, true)?, next + 1)),
                _ => None,
            };
        }
        "half" | "quarter" | "a" => {
            let from = at + usize::from(t.word(at) == "a");
            let minutes = match t.word(from) {
                "half" => 30,
                "quarter" => 15,
                _ => return None,
            };
            return counted(t, from + 1, minutes);
        }
        _ => {}
    }
    if let Some((12, next)) = hour(t, at) {
        let next = oclock(t, next).unwrap_or(next);
        match t.word(next) {
            "noon" | "midday" => return Some((Clock::new(12, 0, 0, true)?, next + 1)),
            "midnight" => return Some((Clock::new(0, 0, 0, true)?, next + 1)),
            _ => {}
        }
    }
    // "fifteen hundred hours"
    if let Some((hours, next)) = below_hundred(t, at).filter(|it| t.phrase(it.1, "hundred hours").is_some()) {
        return Some((Clock::new(hours, 0, 0, true)?, next + 2));
    }
    // "ten past nine", "twenty minutes to five"
    let counts = if t.digits(at).len() <= 2 && !t.digits(at).is_empty() {
        t.digits(at).parse().ok().map(|it| (it, at + 1))
    } else {
        below_hundred(t, at)
    };
    if let Some((minutes, next)) = counts.filter(|it: &(i64, usize)| it.0 < 60) {
        let next = next + usize::from(t.any(next, "minutes minute mins min"));
        // "five to nine" is more often a range: the minutes must be said, or be what is said so.
        let told = t.any(next - 1, "minutes minute mins min");
        let past = t.any(next, "past after") && (t.word(next) == "past" || told || minutes % 5 == 0);
        let to = t.any(next, "to till before") && told;
        if (past || to)
            && let Some(found) = counted(t, next, minutes)
        {
            return Some(found);
        }
    }
    // "0730", "1140 a.m."
    let digits = t.digits(at);
    if digits.len() == 4 || digits.len() == 3 {
        let (hours, rest) = digits.split_at(digits.len() - 2);
        let (hours, rest) = (hours.parse().ok()?, rest.parse().ok()?);
        let told = meridiem(t, at + 1);
        let told_hours = t.any(at + 1, "hours hrs") && digits.len() == 4;
        if told.is_some() || told_hours || (loose && digits.len() == 4 && digits.starts_with('0')) {
            let it = Clock::new(hours, rest, 0, told_hours)?;
            return Some(finish(it, at + 1, told));
        }
        return None;
    }
    let (hours, mut next) = hour(t, at)?;
    let written = !digits.is_empty();
    if written && t.is(next, ":") && t.digits(next + 1).len() == 2 && t.glued(next) && t.glued(next + 1) {
        let minute = t.digits(next + 1).parse().ok()?;
        next += 2;
        let mut second = 0;
        if t.is(next, ":") && t.digits(next + 1).len() == 2 && t.glued(next) && t.glued(next + 1) {
            second = t.digits(next + 1).parse().ok()?;
            next += 2;
        }
        let it = Clock::new(hours, minute, second, false)?;
        let told = meridiem(t, next);
        return Some(finish(it, next, told));
    }
    if written && t.is(next, ".") && t.digits(next + 1).len() == 2 && t.glued(next) && t.glued(next + 1) {
        let minute = t.digits(next + 1).parse().ok()?;
        let told = meridiem(t, next + 2);
        if told.is_some() || loose {
            let it = Clock::new(hours, minute, 0, false)?;
            return Some(finish(it, next + 2, told));
        }
        return None;
    }
    if !written && let Some((minute, end)) = minutes(t, next) {
        let it = Clock::new(hours, minute, 0, false)?;
        let told = meridiem(t, end);
        let end_of_minutes = if t.any(end, "minutes minute") { end + 1 } else { end };
        // "Seven thirty" is a time; "two twenty" alone may be an amount.
        let (mut it, next) = finish(it, end_of_minutes, told);
        if told.is_none() {
            it.shape = Shape::Pair;
        }
        return Some((it, next));
    }
    if let Some(told) = meridiem(t, next) {
        return Some(finish(Clock::new(hours, 0, 0, false)?, next, Some(told)));
    }
    if let Some(end) = oclock(t, next) {
        let told = meridiem(t, end);
        return Some(finish(Clock::new(hours, 0, 0, false)?, end, told));
    }
    if t.word(next) == "ish" && t.glued(next) {
        return Some((Clock::new(hours, 0, 0, true)?, next + 1));
    }
    // A bare number, unless it goes on as another.
    let goes_on =
        t.is_any(next, &[".", ",", ":", "/"]) && t.glued(next) && t.glued(next + 1) && !t.digits(next + 1).is_empty();
    if goes_on || t.is(next, "%") || (t.glued(next) && !t.word(next).is_empty()) {
        return None;
    }
    let mut it = Clock::new(hours, 0, 0, false)?;
    it.shape = Shape::Bare;
    Some((it, next))
}

/// After "half" or "ten": "past seven o'clock", "to eight".
fn counted(t: &Tokens<'_>, at: usize, minutes: i64) -> Option<(Clock, usize)> {
    let to = match t.word(at) {
        "past" | "after" => false,
        "to" | "till" | "before" | "of" => true,
        _ => return None,
    };
    let (mut hours, next) = hour(t, at + 1).or_else(|| match t.word(at + 1) {
        "noon" => Some((12, at + 2)),
        "midnight" => Some((0, at + 2)),
        _ => None,
    })?;
    let mut minute = minutes;
    if to {
        minute = 60 - minutes;
        hours = if hours == 0 {
            23
        } else if hours == 1 {
            12
        } else {
            hours - 1
        };
    }
    let it = Clock::new(hours, minute, 0, false)?;
    let next = oclock(t, next).unwrap_or(next);
    let told = meridiem(t, next);
    Some(finish(it, next, told))
}

/// With "am" or "pm" applied, if they were told.
fn finish(it: Clock, next: usize, told: Option<(bool, usize)>) -> (Clock, usize) {
    match told {
        Some((pm, end)) => (if pm { it.pm() } else { it.am() }.told(), end),
        None => (it, next),
    }
}

impl Clock {
    fn told(self) -> Self {
        Self { certain: true, shape: Shape::Firm, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let found = clock(&Tokens::new(text), 0, false).map_or_else(Vec::new, |it| it.0.candidates());
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn times() {
        check("7:56:30 am", &["07:56:30"]);
        check("1140 a.m.", &["11:40:00"]);
        check("17:20", &["17:20:00"]);
        check("4:00", &["04:00:00", "16:00:00"]);
        check("half past seven o'clock", &["07:30:00", "19:30:00"]);
        check("a quarter to one", &["12:45:00", "00:45:00"]);
        check("ten past 9 in the evening", &["21:10:00"]);
        check("seven p . m .", &["19:00:00"]);
        check("nine a m", &["09:00:00"]);
        check("seven thirty pm", &["19:30:00"]);
        check("noonish", &["12:00:00"]);
        check("11ish", &["11:00:00"]);
        check("4 oclock", &["04:00:00", "16:00:00"]);
        check("12 am", &["00:00:00"]);
        check("fifteen hundred hours", &["15:00:00"]);
        check("12 noon", &["12:00:00"]);
        check("8:00 early morning", &["08:00:00"]);
        check("25:00", &[]);
        check("7", &[]);
    }
}
