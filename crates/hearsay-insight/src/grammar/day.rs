//! Single days: "the twenty fifth of March", "22/04", "next Tuesday", "two weeks from tomorrow".

use jiff::civil::{Date, DateTime, Weekday};

use super::calendar::{
    self, Day, Days, Feast, Nth, Part, add_days, add_months, date, in_week, month_range, nth_weekday,
};
use super::lex::Tokens;
use super::number;
use super::words::{self, Turn, Unit};

/// Reads what stands at one place of the text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) t: &'a Tokens<'a>,
    pub(crate) now: DateTime,
    /// The token after the dash of a range, whose digits are no rest of a longer number; 0 where there is none.
    pub(crate) joined: usize,
}

pub(crate) type Read<T> = Option<(T, usize)>;

/// The longer of two readings, the first when they are as long.
pub(crate) fn longer<T>(a: Read<T>, b: Read<T>) -> Read<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.1 > a.1 { b } else { a }),
        (a, b) => a.or(b),
    }
}

const PREPOSITIONS: &[&str] = &[
    "in",
    "of",
    "by",
    "since",
    "until",
    "till",
    "before",
    "after",
    "during",
    "for",
    "from",
    "between",
    "this",
    "next",
    "last",
    "early",
    "mid",
    "late",
    "through",
    "every",
    "each",
    "and",
    "or",
    "to",
    "around",
    "past",
    "following",
    "about",
    "previous",
    "coming",
    "upcoming",
    "starting",
    "beginning",
    "on",
    "the",
    "throughout",
    "within",
];

impl<'a> Reader<'a> {
    pub(crate) fn today(&self) -> Date {
        self.now.date()
    }

    /// The name of a month, when it is not an auxiliary or a verb there.
    pub(crate) fn month(&self, at: usize) -> Read<i8> {
        let t = self.t;
        let word = t.word(at);
        let month = words::month(word)?;
        if at > 0 && t.is(at - 1, "$") {
            return None;
        }
        Some((month, at + 1))
    }

    /// A month's name that stands alone.
    pub(crate) fn lone_month(&self, at: usize) -> Read<i8> {
        let (month, next) = self.month(at)?;
        let t = self.t;
        let word = t.word(at);
        let before = at.checked_sub(1).map_or("", |it| t.word(it));
        let led = PREPOSITIONS.contains(&before) || (at > 0 && t.dash(at - 1));
        let ranged =
            (t.any(next, "to through until till and") || t.dash(next)) && words::month(t.word(next + 1)).is_some();
        let joins = at >= 2 && (matches!(before, "to" | "through" | "until" | "till" | "and") || t.dash(at - 1));
        let ranged = ranged || joins && words::month(t.word(at - 2)).is_some();
        let ok = match word {
            _ if ranged => true,
            "may" => {
                led && !self.modal(at) && !matches!(before, "the" | "this" | "and" | "or" | "about")
                    || before == "this" && (next == t.len() || !self.modal(at))
            }
            "march" => led && before != "to" && before != "the" || t.word(at + 1) == "to" || before.is_empty(),
            "mar" | "sep" | "jan" | "dec" | "jun" | "jul" | "apr" | "feb" | "nov" | "oct" | "aug" | "sept" => {
                led || t.dash(at + 1)
            }
            _ => true,
        };
        ok.then_some((month, next))
    }

    /// "may" the verb.
    fn modal(&self, at: usize) -> bool {
        self.t.any(
            at + 1,
            "not be have i we you he she they it well also need want email result contain differ \
            update attempt take get go come help make happen still never only just or",
        )
    }

    /// The number of a day in a month; whether it is an ordinal.
    pub(crate) fn day_number(&self, at: usize) -> Read<(i8, bool)> {
        let t = self.t;
        if let Some((day, next)) = number::ordinal(t, at) {
            return Some(((i8::try_from(day).ok().filter(|it| (1..=31).contains(it))?, true), next));
        }
        let digits = t.digits(at);
        if digits.is_empty() || digits.len() > 2 {
            return None;
        }
        let day = digits.parse().ok().filter(|it| (1..=31).contains(it))?;
        let next = at + 1;
        let part = t.is_any(next, &[":", "."]) && t.glued(next) && t.glued(next + 1) && !t.digits(next + 1).is_empty();
        if part || t.is(next, "%") || super::clock::meridiem(t, next).is_some() {
            return None;
        }
        Some(((day, false), next))
    }

    /// A day's number in plain words: "twenty nine".
    fn day_words(&self, at: usize) -> Read<i8> {
        let (day, next) = number::below_hundred(self.t, at)?;
        Some((i8::try_from(day).ok().filter(|it| (1..=31).contains(it))?, next))
    }

    /// A year of four digits, or as it is spoken: "nineteen ninety six", "two thousand and fifteen".
    pub(crate) fn year(&self, at: usize) -> Read<i16> {
        let t = self.t;
        let digits = t.digits(at);
        if digits.len() == 4 {
            let part = t.is_any(at + 1, &[":", ".", ","])
                && t.glued(at + 1)
                && t.glued(at + 2)
                && !t.digits(at + 2).is_empty();
            let unit = t.glued(at + 1) && !t.word(at + 1).is_empty();
            let year: i16 = digits.parse().ok().filter(|it| (1000..=2999).contains(it))?;
            return (!part && !unit).then_some((year, at + 1));
        }
        if !digits.is_empty() {
            return None;
        }
        let word = t.word(at);
        let century = match word {
            "twenty" => Some(20),
            _ => number::teen(word).filter(|it| *it > 10),
        };
        if let Some(century) = century {
            let next = at + 1 + usize::from(t.is(at + 1, "-"));
            let of = |rest: i64| i16::try_from(century * 100 + rest).ok();
            if t.any(next, "oh o") {
                let one = number::unit(t.word(next + 1)).filter(|it| *it > 0)?;
                return Some((of(one)?, next + 2));
            }
            if t.word(next) == "hundred" {
                let from = next + 1 + usize::from(t.word(next + 1) == "and");
                return Some(match number::below_hundred(t, from) {
                    Some((rest, end)) if rest > 0 => (of(rest)?, end),
                    _ => (of(0)?, next + 1),
                });
            }
            return match number::below_hundred(t, next) {
                Some((rest, end)) if rest >= 10 => Some((of(rest)?, end)),
                _ => None,
            };
        }
        if t.word(at + 1) == "thousand" {
            let (year, next) = number::spoken(t, at)?;
            return Some((i16::try_from(year).ok().filter(|it| (1000..=2999).contains(it))?, next));
        }
        None
    }

    /// ", 2019", "of 1992", "in 2016", "'87" as they follow a month or a day of it.
    pub(crate) fn year_after(&self, at: usize) -> Read<i16> {
        let t = self.t;
        let mut next = at;
        if t.is_any(next, &[",", "-", "/", "."]) {
            next += 1;
        }
        let of = t.any(next, "of in");
        next += usize::from(of);
        next += usize::from(of && t.phrase(next, "the year").is_some()) * 2;
        let short = (of && t.digits(next).len() == 2) || (t.apostrophe(next) && t.digits(next + 1).len() == 2);
        if short {
            let from = next + usize::from(t.apostrophe(next));
            let year: i16 = t.digits(from).parse().ok()?;
            return Some((if year < 40 { 2000 + year } else { 1900 + year }, from + 1));
        }
        let (year, end) = self.year(next)?;
        // What is a time of day is no year: "March 5 1130 am".
        let time = t.is(end, ":") || super::clock::meridiem(t, end).is_some();
        // "2015-2018" beside it is a range of years.
        let ranged =
            t.is(next.wrapping_sub(1), "-") && t.is(end, "-") && t.glued(end + 1) && t.digits(end + 1).len() == 4;
        (!time && !ranged && year >= 1500).then_some((year, end))
    }

    fn of_year(&self, month: i8, day: i8, year: Option<i16>) -> Day {
        match year {
            Some(year) => date(year, month, day).map_or(Day::Never, Day::On),
            // A leap day counts: it is in some year.
            None if date(2000, month, day).is_some() => Day::Yearly(Feast::Fixed(month, day)),
            None => Day::Never,
        }
    }

    /// "March 20th", "Dec. 31 , 1994", "january first 2000", "Nov/2", "Sep-23-2020".
    fn month_day(&self, at: usize) -> Read<Day> {
        let t = self.t;
        let (month, mut next) = self.month(at)?;
        if t.is_any(next, &["-", "/", ".", ","]) {
            // "September-2020-23"
            if t.is(next, "-") && t.digits(next + 1).len() == 4 && t.is(next + 2, "-") {
                let year = t.digits(next + 1).parse().ok();
                let ((day, _), end) = self.day_number(next + 3)?;
                return Some((self.of_year(month, day, year), end));
            }
            next += 1;
        }
        next += usize::from(t.word(next) == "the");
        let (day, end) = match self.day_number(next) {
            Some(((day, _), end)) => (day, end),
            None => self.day_words(next)?,
        };
        // "march two thousand": the year.
        if t.any(end, "thousand hundred percent million") {
            return None;
        }
        if self.year(next).is_some_and(|it| it.1 > end) {
            return None;
        }
        match self.year_after(end) {
            Some((year, end)) => Some((self.of_year(month, day, Some(year)), end)),
            None => Some((self.of_year(month, day, None), end)),
        }
    }

    /// "22 april", "the 09th of May", "15 April of 87", "twenty third day of September", "23/Sep/2020".
    fn day_month(&self, at: usize) -> Read<Day> {
        let t = self.t;
        let the = t.word(at) == "the";
        let from = at + usize::from(the);
        let (day, told, mut next) = match self.day_number(from) {
            Some(((day, told), next)) => (day, told, next),
            None => {
                let (day, next) = self.day_words(from)?;
                (day, false, next)
            }
        };
        next += usize::from(t.word(next) == "day");
        if t.is_any(next, &["-", "/"]) && t.glued(next) {
            next += 1;
        }
        let of = t.word(next) == "of";
        next += usize::from(of);
        if told {
            // "the 15th day of next month", "the first of the month"
            if let Some((range, end)) = self.month_from_here(next) {
                let day = add_days(range.0, i64::from(day) - 1).filter(|it| *it < range.1)?;
                return Some((Day::On(day), end));
            }
        }
        let (month, next) = self.month(next)?;
        if matches!(t.word(next - 1), "may" | "march" | "mar")
            && !told
            && !of
            && (self.modal(next - 1) || !t.digits(from).is_empty() && the)
        {
            return None;
        }
        match self.year_after(next).or_else(|| self.year_after_dot(next)) {
            Some((year, end)) => Some((self.of_year(month, day, Some(year)), end)),
            None => Some((self.of_year(month, day, None), next)),
        }
    }

    fn year_after_dot(&self, at: usize) -> Read<i16> {
        let t = self.t;
        (t.is(at, ".") && t.glued(at)).then(|| self.year(at + 1))?.filter(|it| it.0 >= 1500)
    }

    /// "the month", "next month", "this month".
    pub(crate) fn month_from_here(&self, at: usize) -> Read<calendar::Range> {
        let t = self.t;
        let (steps, next) = if t.word(at) == "the" && words::turn(t, at + 1).is_none() {
            (0, at + 1)
        } else {
            let at = at + usize::from(t.word(at) == "the");
            let (turn, next) = words::turn(t, at)?;
            (turn.steps(), next)
        };
        if t.word(next) != "month" {
            return None;
        }
        let first = add_months(self.today().first_of_month(), steps)?;
        Some((month_range(first.year(), first.month())?, next + 1))
    }

    /// "2018-7-6", "01/22/2016", "22/04", "2019/aug/01", "23.04.2022", "20170302".
    fn numeric(&self, at: usize) -> Read<Day> {
        let t = self.t;
        let first = t.digits(at);
        if first.is_empty() || self.tail_of_number(at) {
            return None;
        }
        if first.len() == 8 {
            let year = first[..4].parse().ok().filter(|it| (1900..2100).contains(it))?;
            let day = date(year, first[4..6].parse().ok()?, first[6..].parse().ok()?)?;
            return (!self.number_goes_on(at + 1)).then_some((Day::On(day), at + 1));
        }
        let mark = at + 1;
        if !(t.is_any(mark, &["/", "-", "."]) && t.glued(mark) && t.glued(mark + 1)) {
            return None;
        }
        let sign = t.get(mark)?.text;
        let second = t.get(mark + 1)?.text;
        let third_at = mark + 3;
        let third = if t.is(mark + 2, sign) && t.glued(mark + 2) && t.glued(third_at) {
            t.get(third_at).map(|it| it.text).filter(|it| !it.is_empty())
        } else {
            None
        };
        let number = |it: &str| -> Option<i16> { (it.len() <= 4).then(|| it.parse().ok())? };
        let small = |it: i16| i8::try_from(it).ok();
        if let Some(third) = third {
            let end = third_at + 1;
            if self.number_goes_on(end) {
                return None;
            }
            let day = if first.len() == 4 {
                let year = number(first).filter(|it| *it >= 1000)?;
                if let Some(month) = words::month(second) {
                    date(year, month, small(number(third)?)?)?
                } else if let Some(month) = words::month(third) {
                    date(year, month, small(number(second)?)?)?
                } else {
                    let (a, b) = (small(number(second)?)?, small(number(third)?)?);
                    date(year, a, b).or_else(|| date(year, b, a))?
                }
            } else {
                let year = number(third)?;
                if first.len() > 2 || !matches!(third.len(), 2 | 4) {
                    return None;
                }
                let (month, day) = if let Some(month) = words::month(second) {
                    (month, small(number(first)?)?)
                } else {
                    if second.len() > 2 {
                        return None;
                    }
                    let (a, b) = (small(number(first)?)?, small(number(second)?)?);
                    if a > 12 { (b, a) } else { (a, b) }
                };
                if third.len() == 2 {
                    date(2000, month, day)?;
                    return Some((Day::Short(year, month, day), end));
                }
                date(year, month, day).filter(|_| year >= 1000)?
            };
            return Some((Day::On(day), end));
        }
        let end = mark + 2;
        if first.len() > 2 || second.len() > 2 || sign == "-" || self.number_goes_on(end) {
            return None;
        }
        let (a, b) = (small(number(first)?)?, small(number(second)?)?);
        let (month, day) = if a > 12 { (b, a) } else { (a, b) };
        let led = at > 0 && (t.word(at - 1) == "on" || words::weekday(t.word(at - 1)).is_some());
        let unit = t.is(end, "%") || words::unit(t.word(end)).is_some() || t.any(end, "of percent million billion");
        if (sign == "." && (!led || second.len() > 2)) || unit || (t.glued(end) && !t.word(end).is_empty()) {
            return None;
        }
        date(2000, month, day)?;
        Some((Day::Yearly(Feast::Fixed(month, day)), end))
    }

    /// Digits that belong to a longer number or code before them.
    pub(crate) fn tail_of_number(&self, at: usize) -> bool {
        let t = self.t;
        if at == 0 || !t.glued(at) || at == self.joined {
            return false;
        }
        if t.is_any(at - 1, &["-", ".", "/", ":", ","]) {
            return at >= 2 && t.glued(at - 1) && !t.digits(at - 2).is_empty();
        }
        !t.word(at - 1).is_empty() || t.is_any(at - 1, &["$", "#"])
    }

    fn number_goes_on(&self, at: usize) -> bool {
        let t = self.t;
        // "2019-03-04T15:30"
        let time = t.word(at) == "t" && t.glued(at + 1) && t.is(at + 2, ":");
        let word = t.glued(at) && !t.word(at).is_empty() && !time;
        word || (t.is_any(at, &["-", "/", "."]) && t.glued(at) && t.glued(at + 1) && {
            // "5/1-5/7" is a range; a third part would have been read.
            let digits = t.digits(at + 1);
            let ranged = t.is(at, "-") && t.is(at + 2, "/");
            !digits.is_empty() && !ranged
        })
    }

    /// "today", "the day after tomorrow", "the day before".
    fn relative(&self, at: usize) -> Read<Day> {
        let t = self.t;
        let on = |days| Some(Day::On(add_days(self.today(), days)?));
        let from = at + usize::from(t.word(at) == "the");
        if t.word(from) == "day" {
            for (words, days) in [("day after tomorrow", 2), ("day before yesterday", -2)] {
                if let Some(end) = t.phrase(from, words) {
                    return Some((on(days)?, end));
                }
            }
            if from > at {
                // "the day before Christmas"
                let sign = match t.word(from + 1) {
                    "after" => 1,
                    "before" => -1,
                    _ => 0,
                };
                if sign != 0
                    && let Some((day, end)) = self.anchor(from + 2)
                {
                    return Some((Day::On(add_days(day, sign)?), end));
                }
                // Alone they are seen from today; "day after day" is not.
                for (word, days) in [("after", 1), ("before", -1)] {
                    let ends = t.get(from + 2).is_none_or(|it| it.kind == super::lex::Kind::Mark);
                    if t.word(from + 1) == word && ends {
                        return Some((on(days)?, from + 2));
                    }
                }
                let plain = !t.any(from + 1, "after before of that when i we you he she they");
                let of = at > 0 && t.any(at - 1, "of for during");
                return (plain && of).then_some((on(0)?, from + 1));
            }
        }
        let days = match t.word(at) {
            "today" | "otd" => 0,
            "tomorrow" | "tmr" | "tmrw" | "tomorow" | "tommorow" | "tommorrow" | "tmrow" | "2moro" => 1,
            "yesterday" | "ystd" => -1,
            _ => {
                let (turn, next) = words::turn(t, from)?;
                // "the next day"
                return (t.word(next) == "day" && turn != Turn::This).then(|| Some((on(turn.steps())?, next + 1)))?;
            }
        };
        Some((on(days)?, at + 1))
    }

    pub(crate) fn turned(&self, turn: Turn, weekday: Weekday) -> Option<Date> {
        let today = self.today();
        match turn {
            Turn::Last => in_week(today, -1, weekday),
            Turn::This => in_week(today, 0, weekday),
            Turn::Next => in_week(today, 1, weekday),
            Turn::Coming => calendar::weekday_after(today, weekday),
            Turn::Past => add_days(calendar::weekday_after(add_days(today, -1)?, weekday)?, -7),
        }
    }

    /// A weekday by name where it cannot be another word.
    pub(crate) fn weekday(&self, at: usize) -> Read<Weekday> {
        let t = self.t;
        let weekday = words::weekday(t.word(at))?;
        if matches!(t.word(at), "sun" | "sat" | "mon" | "wed") {
            let before = at.checked_sub(1).map_or("", |it| t.word(it));
            let led = matches!(
                before,
                "on" | "by"
                    | "next"
                    | "this"
                    | "last"
                    | "every"
                    | "until"
                    | "till"
                    | "or"
                    | "week"
                    | "before"
                    | "after"
                    | "to"
                    | "from"
                    | "and"
                    | "for"
            ) || (at > 0 && t.dash(at - 1));
            let listed = (t.dash(at + 1) || t.any(at + 1, "or and to")) && words::weekday(t.word(at + 2)).is_some();
            let followed =
                listed || !t.digits(at + 1).is_empty() || t.is(at + 1, ",") || words::month(t.word(at + 1)).is_some();
            if !led && !followed {
                return None;
            }
        }
        Some((weekday, at + 1))
    }

    /// "this week", "next week", "the following week": how many weeks from here.
    pub(crate) fn week_from_here(&self, at: usize) -> Read<i64> {
        let t = self.t;
        let at = at + usize::from(t.word(at) == "the");
        let (turn, next) = words::turn(t, at)?;
        (t.word(next) == "week").then_some((turn.steps(), next + 1))
    }

    /// A weekday and what tells which: "next Friday", "Wednesday next week", "Tue 13th", "Friday, Jan 15".
    fn by_weekday(&self, at: usize) -> Read<Day> {
        let t = self.t;
        // "next week on Tuesday", "previous week - Monday"
        if let Some((weeks, next)) = self.week_from_here(at) {
            let from = next + usize::from(t.word(next) == "on" || t.dash(next) || t.is(next, ","));
            let (weekday, end) = self.weekday(from).or_else(|| Some((words::weekday(t.word(from))?, from + 1)))?;
            return Some((Day::On(in_week(self.today(), weeks, weekday)?), end));
        }
        let on = t.word(at) == "on";
        let from = at + usize::from(on);
        let turn = words::turn(t, from);
        let start = turn.map_or(from, |it| it.1);
        let (weekday, next) = match turn {
            Some(_) => (words::weekday(t.word(start))?, start + 1),
            None => self.weekday(start)?,
        };
        // "Tuesday of next week", "Wednesday next week"
        let of = t.any(next, "of in");
        if turn.is_none()
            && let Some((weeks, end)) = self.week_from_here(next + usize::from(of))
        {
            // The preposition is of the phrase only where "of" makes one phrase of it.
            if on && !of {
                return None;
            }
            return Some((Day::On(in_week(self.today(), weeks, weekday)?), end));
        }
        if on {
            return None;
        }
        // "the monday after next"
        for (words, weeks) in [("after next", 2), ("before last", -2)] {
            if let Some(end) = t.phrase(next, words).filter(|_| turn.is_none()) {
                return Some((Day::On(in_week(self.today(), weeks, weekday)?), end));
            }
        }
        // A date after it tells which.
        let sep = next + usize::from(t.is_any(next, &[",", "-", "("]));
        let sep = sep + usize::from(t.word(sep) == "the" && sep == next);
        let the = t.word(sep.wrapping_sub(1)) == "the";
        let dated = longer(self.numeric(sep), longer(self.month_day(sep), self.day_month(sep)));
        if let Some((day, end)) = dated {
            let day = match (turn, day) {
                (Some((Turn::This | Turn::Coming | Turn::Next, _)), day) => day.in_year(self.now.year()).unwrap_or(day),
                (_, day) => day,
            };
            return Some((day, end));
        }
        if turn.is_none()
            && let Some(((day, months), end)) = self.duration_from(sep).filter(|_| !the)
        {
            return Some((Day::On(near(day, weekday, months)?), end));
        }
        if let Some((turn, _)) = turn {
            return Some((Day::On(self.turned(turn, weekday)?), next));
        }
        // "Sunday 31", "friday the 26th"
        if let Some(((day, ordinal), end)) = self.day_number(sep) {
            let ranged = t.dash(end) || t.any(end, "to minutes hours people");
            let near = sep == next + usize::from(the) || t.is(next, "(");
            if near && (ordinal || (day > 12 && !ranged)) {
                let today = self.today();
                let this = date(today.year(), today.month(), day).filter(|it| the && it.weekday() == weekday);
                let end = end + usize::from(t.is(next, "(") && t.is(end, ")"));
                return Some((this.map_or(Day::WeeklyMonthly(weekday, day), Day::On), end));
            }
        }
        Some((Day::Weekly(weekday), next))
    }

    /// "the 4th", "on the seventeenth".
    fn monthly(&self, at: usize) -> Read<Day> {
        let t = self.t;
        let the = t.word(at) == "the";
        let from = at + usize::from(the);
        let before = at.checked_sub(1).map_or("", |it| t.word(it));
        let led = matches!(
            before,
            "on" | "by" | "before" | "after" | "until" | "till" | "since" | "for" | "from" | "than" | "due" | "around"
        );
        let ((day, ordinal), next) = self.day_number(from)?;
        if t.word(next) == "month" || t.word(next) == "day" {
            return None;
        }
        // "around the 21st this month"
        if the
            && ordinal
            && let Some((range, end)) = self.month_from_here(next + usize::from(t.any(next, "of in")))
        {
            let day = add_days(range.0, i64::from(day) - 1).filter(|it| *it < range.1)?;
            return Some((Day::On(day), end));
        }
        let plain = the && (t.word(next).is_empty() || t.any(next, "from at between"));
        let alone = ordinal && matches!(before, "on" | "by");
        if !led || !(ordinal || plain) || !(the || alone) {
            return None;
        }
        // An ordinal of something else: "on the second floor".
        let thing = !t.word(next).is_empty()
            && !t.any(
                next,
                "at from between around in for to and or if because with so then that we i please about \
                before after through until as right okay ok but he she they you will would",
            );
        (!thing).then_some((Day::Monthly(day), next))
    }

    /// A number of units of time.
    pub(crate) fn duration_words(&self, at: usize) -> Read<super::span::Duration> {
        super::span::duration(self.t, at)
    }

    /// "two weeks from tomorrow", "3 days ago", "in two months": the day, and whether it was counted in months.
    pub(crate) fn duration_from(&self, at: usize) -> Read<(Date, bool)> {
        let t = self.t;
        let within = t.word(at) == "in";
        let from = at + usize::from(within);
        let (it, next) = self.duration_words(from)?;
        if !it.in_days() {
            return None;
        }
        let whole = it.months != 0;
        match t.word(next) {
            "ago" | "earlier" if !within => return Some(((it.from(self.today(), -1)?, whole), next + 1)),
            "later" | "hence" if !within => return Some(((it.from(self.today(), 1)?, whole), next + 1)),
            "back" if !within && t.word(at.wrapping_sub(1)) != "be" => {
                return Some(((it.from(self.today(), -1)?, whole), next + 1));
            }
            "from" | "after" | "since" | "before" => {
                let sign = if t.word(next) == "before" { -1 } else { 1 };
                if t.word(next) == "from"
                    && let Some(end) = t.phrase(next + 1, "now")
                {
                    return Some(((it.from(self.today(), 1)?, whole), end));
                }
                if let Some((day, end)) = self.anchor(next + 1) {
                    return Some(((it.from(day, sign)?, whole), end));
                }
            }
            _ => {}
        }
        (within && !t.any(from, "all whole entire some")).then(|| Some(((it.from(self.today(), 1)?, whole), next)))?
    }

    /// The day something is counted from.
    fn anchor(&self, at: usize) -> Read<Date> {
        let t = self.t;
        // "since the year 2011"
        let from = t.phrase(at, "the year").unwrap_or(at);
        if let Some((year, end)) = self.year(from) {
            return Some((date(year, 1, 1)?, end));
        }
        let (day, end) = self.simple_day(at)?;
        let all = day.candidates(self.now);
        Some((*all.last()?, end))
    }

    /// A day that is named without counting from another.
    pub(crate) fn simple_day(&self, at: usize) -> Read<Day> {
        let mut best = self.relative(at);
        for it in [
            self.month_day(at),
            self.day_month(at),
            self.numeric(at),
            self.by_weekday(at),
            self.feast(at),
            self.nth_weekday(at),
            self.monthly(at),
            self.turned_date(at),
        ] {
            best = longer(best, it);
        }
        best
    }

    /// "this 5/12", "next 5/12".
    fn turned_date(&self, at: usize) -> Read<Day> {
        let (turn, next) = words::turn(self.t, at)?;
        let (day, end) = longer(self.numeric(next), longer(self.month_day(next), None))?;
        let year = self.now.year().checked_add(i16::try_from(turn.steps()).ok()?)?;
        Some((day.in_year(year)?, end))
    }

    fn feast(&self, at: usize) -> Read<Day> {
        let t = self.t;
        let turn = words::turn(t, at);
        let from = turn.map_or(at, |it| it.1);
        let (feast, next) = words::feast(t, from)?;
        if t.word(next - 1) == "year"
            && t.word(from) == "new"
            && !(t.word(next).is_empty() || t.word(next) == "at")
            && turn.is_none()
        {
            return None;
        }
        if t.word(from) == "valentine" && next == from + 1 {
            return None;
        }
        if let Some((turn, _)) = turn {
            let all = Day::Yearly(feast).candidates(self.now);
            let day = match turn {
                Turn::Last | Turn::Past => all.first().copied(),
                Turn::This => feast.in_year(self.now.year()),
                Turn::Coming | Turn::Next => all.last().copied(),
            };
            return Some((Day::On(day?), next));
        }
        if let Some((year, end)) = self.year_after(next) {
            return Some((Day::On(feast.in_year(year)?), end));
        }
        for (words, steps) in [("this year", 0), ("next year", 1), ("last year", -1)] {
            if let Some(end) = t.phrase(next, words) {
                return Some((Day::On(feast.in_year(self.now.year().checked_add(steps)?)?), end));
            }
        }
        Some((Day::Yearly(feast), next))
    }

    /// "the first monday of may", "last friday of the month", "1st week of Oct. on Friday".
    fn nth_weekday(&self, at: usize) -> Read<Day> {
        let t = self.t;
        let from = at + usize::from(t.word(at) == "the");
        let (nth, next) = self.nth(from)?;
        if t.word(next) == "week" {
            let next = next + 1 + usize::from(t.any(next + 1, "of in"));
            let (month, next) = self.month(next)?;
            let next = next + usize::from(t.is_any(next, &[".", ","]));
            let next = next + usize::from(t.word(next) == "on");
            let (weekday, end) = self.weekday(next)?;
            return Some((Day::InWeek { month, nth, weekday }, end));
        }
        // "the last day of the month"
        if t.phrase(next, "day of").is_some() {
            let (period, end) = self.period(next + 2)?;
            let day = match (period.days, nth) {
                (Days::In(range), Nth::At(nth)) => Day::On(add_days(range.0, i64::from(nth) - 1)?),
                (Days::In(range), Nth::Last) => Day::On(add_days(range.1, -1)?),
                (days @ Days::Yearly(_), nth) => {
                    let range = *days.candidates(self.now).last()?;
                    Day::On(if nth == Nth::Last { add_days(range.1, -1)? } else { range.0 })
                }
            };
            return Some((day, end));
        }
        let weekday = words::weekday(t.word(next))?;
        let of = t.any(next + 1, "of in");
        if !of {
            return None;
        }
        let after = next + 2;
        if let Some((range, end)) = self.month_from_here(after) {
            let day = nth_weekday(range.0.year(), range.0.month(), nth, weekday)?;
            return Some((Day::On(day), end));
        }
        let (month, end) = self.month(after)?;
        if let Some((year, end)) = self.year_after(end) {
            return Some((Day::On(nth_weekday(year, month, nth, weekday)?), end));
        }
        Some((Day::Yearly(Feast::Nth(month, nth, weekday)), end))
    }

    /// "first", "3rd", "last" up to the fifth.
    pub(crate) fn nth(&self, at: usize) -> Read<Nth> {
        if self.t.any(at, "last final") {
            return Some((Nth::Last, at + 1));
        }
        let (nth, next) = number::ordinal(self.t, at)?;
        Some((Nth::At(i8::try_from(nth).ok().filter(|it| (1..=5).contains(it))?), next))
    }

    /// Any single day.
    pub(crate) fn day(&self, at: usize) -> Read<Day> {
        let t = self.t;
        let counted = self.duration_from(at).and_then(|((day, months), end)| {
            // "in 3 days on Friday"
            if t.word(end) == "on"
                && let Some((weekday, end)) = self.weekday(end + 1)
            {
                return Some((Day::On(near(day, weekday, months)?), end));
            }
            Some((Day::On(day), end))
        });
        let (day, end) = longer(self.simple_day(at), counted)?;
        // "May/22(Tue)"
        if t.is(end, "(") && words::weekday(t.word(end + 1)).is_some() && t.is(end + 2, ")") {
            return Some((day, end + 3));
        }
        // "5/1-5/7" and "the 18th and 19th of June" are read by who reads ranges.
        Some((day, end))
    }

    /// The first of "18 and 19 June", which the month is told to after the second.
    pub(crate) fn listed_day(&self, at: usize) -> Read<Day> {
        let t = self.t;
        let ((first, _), next) = self.day_number(at)?;
        if !t.any(next, "and or") {
            return None;
        }
        match self.day_month(next + 1)?.0 {
            Day::Yearly(Feast::Fixed(month, _)) => Some((self.of_year(month, first, None), next)),
            Day::On(it) => Some((self.of_year(it.month(), first, Some(it.year())), next)),
            _ => None,
        }
    }
}

/// The weekday meant by "two weeks from now on Tuesday": of that day's week, which begins on Sunday here; counted in
/// months, the first from then on.
fn near(day: Date, weekday: Weekday, months: bool) -> Option<Date> {
    if months {
        return calendar::weekday_after(add_days(day, -1)?, weekday);
    }
    let sunday = add_days(day, -i64::from(day.weekday().to_sunday_zero_offset()))?;
    add_days(sunday, i64::from(weekday.to_sunday_zero_offset()))
}

/// A period of the year, or part of it, that the words of `unit` name.
pub(crate) fn part_of(days: Days, part: Part, unit: Unit, by_number: bool) -> Option<Days> {
    Some(match days {
        Days::In(range) => Days::In(match unit {
            Unit::Week => calendar::week_part(range, part)?,
            Unit::Month => calendar::month_part(range, part)?,
            Unit::Year => calendar::year_part(range, part, by_number)?,
            _ => return None,
        }),
        Days::Yearly(calendar::Rule::Month(month)) => Days::Yearly(calendar::Rule::MonthPart(month, part)),
        Days::Yearly(_) => return None,
    })
}
