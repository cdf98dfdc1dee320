//! Lengths of time: "two and a half hours", "a couple of weeks", "3 hours 30 minutes".

use jiff::Span;
use jiff::civil::{Date, DateTime};

use super::day::Read;
use super::lex::Tokens;
use super::number::{self, Decimal};
use super::words::{self, Unit};

/// A length of time, kept apart by what calendars count differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Duration {
    pub(crate) months: i64,
    pub(crate) days: i64,
    pub(crate) seconds: i64,
    pub(crate) workdays: i64,
    /// Its length in seconds, a month taken as 30 days and a year as 365.
    pub(crate) length: Decimal,
    /// Counted in hours or less.
    pub(crate) clock: bool,
    /// "some", "several".
    pub(crate) vague: bool,
    /// A part of a unit, which no calendar can add.
    pub(crate) broken: bool,
}

impl Duration {
    /// Nothing of it is shorter than a day.
    pub(crate) fn in_days(&self) -> bool {
        !self.clock && !self.broken
    }

    pub(crate) fn from(&self, day: Date, sign: i64) -> Option<Date> {
        let mut it =
            day.checked_add(Span::new().try_months(self.months * sign).ok()?.try_days(self.days * sign).ok()?).ok()?;
        for _ in 0..self.workdays.min(400) {
            it = super::calendar::add_days(it, sign)?;
            while it.weekday().to_monday_zero_offset() > 4 {
                it = super::calendar::add_days(it, sign)?;
            }
        }
        Some(it)
    }

    pub(crate) fn after_moment(&self, moment: DateTime, sign: i64) -> Option<DateTime> {
        let day = self.from(moment.date(), sign)?;
        super::calendar::add_seconds(day.to_datetime(moment.time()), self.seconds * sign)
    }
}

/// How long one of them is, in seconds.
fn length(unit: Unit) -> i64 {
    const DAY: i64 = 86_400;
    match unit {
        Unit::Second => 1,
        Unit::Minute => 60,
        Unit::Hour => 3_600,
        Unit::Day | Unit::Workday | Unit::Night => DAY,
        Unit::Weekend => 2 * DAY,
        Unit::Week => 7 * DAY,
        Unit::Fortnight => 14 * DAY,
        Unit::Month => 30 * DAY,
        Unit::Quarter => 90 * DAY,
        Unit::Year => 365 * DAY,
        Unit::Decade => 3_650 * DAY,
        Unit::Century => 36_500 * DAY,
    }
}

/// Most of one unit that is still a length of time.
const MOST: i64 = 100_000;

pub(crate) fn duration(t: &Tokens<'_>, at: usize) -> Read<Duration> {
    let (mut all, mut next) = one(t, at)?;
    for _ in 0..4 {
        let joined = usize::from(t.any(next, "and") || t.is(next, ","));
        let Some((more, end)) = one(t, next + joined) else { break };
        // Each further part is smaller: "3 days 2 days" are two.
        if more.length.as_whole() >= all.length.as_whole() || more.vague || all.broken {
            break;
        }
        all = Duration {
            months: all.months + more.months,
            days: all.days + more.days,
            seconds: all.seconds + more.seconds,
            workdays: all.workdays + more.workdays,
            length: all.length.plus(more.length)?,
            clock: all.clock || more.clock,
            vague: all.vague,
            broken: all.broken || more.broken,
        };
        next = end;
    }
    Some((all, next))
}

/// A number and a unit.
pub(crate) fn one(t: &Tokens<'_>, at: usize) -> Read<Duration> {
    let (mut count, mut next, vague) = how_many(t, at)?;
    next += usize::from(t.is(next, "-") && t.glued(next) && t.glued(next + 1));
    let short = t.glued(next) && !t.digits(next.wrapping_sub(1)).is_empty();
    let mut work = false;
    if t.any(next, "business working work") && t.any(next + 1, "day days") {
        work = true;
        next += 1;
    } else if t.any(next, "calendar full whole more short long solid") {
        next += 1;
    }
    let unit = match words::unit(t.word(next)) {
        Some(unit) => unit,
        None => match t.word(next) {
            "h" if short || !t.digits(next - 1).is_empty() => Unit::Hour,
            "d" if short => Unit::Day,
            "w" if short => Unit::Week,
            "y" if short => Unit::Year,
            _ => return None,
        },
    };
    // "A quarter" is a part of something.
    if unit == Unit::Quarter && !t.word(next).ends_with('s') {
        return None;
    }
    let unit = if work { Unit::Workday } else { unit };
    next += 1;
    // "an hour and a half", "one hour and half", "a year and a quarter"
    if t.word(next) == "and" {
        let from = next + 1;
        let half =
            if t.word(from) == "half" { Some((Decimal::new(5, 1), from + 1)) } else { number::fraction(t, from) };
        if let Some((part, end)) = half.filter(|it| words::unit(t.word(it.1)).is_none()) {
            count = count.plus(part)?;
            next = end;
        }
    }
    Some((measure(count, unit, vague)?, next))
}

/// So many of a unit.
pub(crate) fn duration_of(count: i64, unit: Unit) -> Option<(Duration, Unit)> {
    Some((measure(Decimal::whole(count), unit, false)?, unit))
}

fn measure(count: Decimal, unit: Unit, vague: bool) -> Option<Duration> {
    let seconds = count.times(Decimal::whole(length(unit)))?;
    let whole = count.as_whole();
    if whole.is_some_and(|it| it > MOST) {
        return None;
    }
    let mut it = Duration {
        months: 0,
        days: 0,
        seconds: 0,
        workdays: 0,
        length: seconds,
        clock: matches!(unit, Unit::Second | Unit::Minute | Unit::Hour),
        vague,
        broken: whole.is_none(),
    };
    match (unit, whole) {
        (Unit::Month, Some(it_)) => it.months = it_,
        (Unit::Quarter, Some(it_)) => it.months = it_ * 3,
        (Unit::Year, Some(it_)) => it.months = it_ * 12,
        (Unit::Decade, Some(it_)) => it.months = it_ * 120,
        (Unit::Century, Some(it_)) => it.months = it_ * 1200,
        (Unit::Workday, Some(it_)) => it.workdays = it_,
        // Two weekends ago is two weeks ago.
        (Unit::Weekend, Some(it_)) => it.days = it_ * 7,
        (Unit::Year, None) => {
            // Half a year is six months.
            if let Some(months) = count.times(Decimal::whole(12)).and_then(Decimal::as_whole) {
                it.months = months;
                it.broken = false;
            }
        }
        _ => match seconds.as_whole() {
            Some(seconds) if it.clock => {
                it.seconds = seconds;
                it.broken = false;
            }
            Some(seconds) if seconds % 86_400 == 0 => {
                it.days = seconds / 86_400;
                it.broken = false;
            }
            Some(seconds) => {
                it.seconds = seconds;
                it.clock = true;
                it.broken = false;
            }
            None => {}
        },
    }
    Some(it)
}

/// "three", "2.5", "a", "a few", "half a", "one and a half".
fn how_many(t: &Tokens<'_>, at: usize) -> Option<(Decimal, usize, bool)> {
    let whole = |it| Decimal::whole(it);
    match t.word(at) {
        "a" | "an" | "one" if t.any(at + 1, "few couple") => {
            let (count, _) = if t.word(at + 1) == "few" { (3, ()) } else { (2, ()) };
            let next = at + 2 + usize::from(t.word(at + 2) == "of");
            return Some((whole(count), next, count == 3));
        }
        "few" | "some" | "several" => return Some((whole(3), at + 1, true)),
        "couple" => return Some((whole(2), at + 1 + usize::from(t.word(at + 1) == "of"), false)),
        "half" => {
            let next = at + 1 + usize::from(t.any(at + 1, "a an"));
            return Some((Decimal::new(5, 1), next, false));
        }
        "a" if t.word(at + 1) == "half" => return Some((Decimal::new(5, 1), at + 2, false)),
        "a" if t.word(at + 1) == "quarter" && t.any(at + 2, "of") => {
            let next = at + 3 + usize::from(t.any(at + 3, "a an"));
            return Some((Decimal::new(25, 2), next, false));
        }
        "three" if t.phrase(at + 1, "quarters of").is_some() => {
            let next = at + 3 + usize::from(t.any(at + 3, "a an"));
            return Some((Decimal::new(75, 2), next, false));
        }
        "a" | "an" => return Some((whole(1), at + 1, false)),
        "all" | "whole" | "entire" if t.any(at + 1, "day week month year night weekend") => {
            return Some((whole(1), at + 1, true));
        }
        _ => {}
    }
    let (number, next) = match number::written(t, at) {
        Some(it) => it,
        None => {
            let (number, next) = number::spoken(t, at)?;
            (whole(number), next)
        }
    };
    if t.word(next) == "point"
        && let Some((number, next)) = number::amount(t, at)
    {
        return Some((number, next, false));
    }
    if t.word(next) == "and"
        && t.any(next + 1, "a one three")
        && let Some((part, end)) = number::fraction(t, next + 1)
    {
        return Some((number.plus(part)?, end, false));
    }
    Some((number, next, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, seconds: Option<&str>, end: usize) {
        let found = duration(&Tokens::new(text), 0);
        assert_eq!(found.map(|it| it.0.length.to_string()).as_deref(), seconds, "{text}");
        assert_eq!(found.map_or(0, |it| it.1), end, "{text}");
    }

    #[test]
    fn lengths() {
        check("3 hours 30 minutes", Some("12600"), 4);
        check("an hour and a half", Some("5400"), 5);
        check("one and a quarter year", Some("39420000"), 5);
        check("half an hour", Some("1800"), 3);
        check("123.45 sec", Some("123.45"), 4);
        check("a couple of weeks", Some("1209600"), 4);
        check("2h", Some("7200"), 2);
        check("three weekends", Some("518400"), 2);
        check("two business days", Some("172800"), 3);
        check("3 days and 2 weeks", Some("259200"), 2);
        check("99999999 years", None, 0);
        check("hours", None, 0);
    }
}
