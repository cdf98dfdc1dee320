//! Days and periods, some of which wait for a year or a month to be known.

use jiff::Span;
use jiff::civil::{Date, DateTime, ISOWeekDate, Time, Weekday};

/// From the first day to the one after the last.
pub(crate) type Range = (Date, Date);

pub(crate) fn date(year: i16, month: i8, day: i8) -> Option<Date> {
    Date::new(year, month, day).ok()
}

pub(crate) fn add_days(it: Date, days: i64) -> Option<Date> {
    it.checked_add(Span::new().try_days(days).ok()?).ok()
}

pub(crate) fn add_months(it: Date, months: i64) -> Option<Date> {
    it.checked_add(Span::new().try_months(months).ok()?).ok()
}

pub(crate) fn add_seconds(it: DateTime, seconds: i64) -> Option<DateTime> {
    it.checked_add(Span::new().try_seconds(seconds).ok()?).ok()
}

pub(crate) fn monday(it: Date) -> Option<Date> {
    add_days(it, -i64::from(it.weekday().to_monday_zero_offset()))
}

/// The day of the week that holds `it`, weeks running Monday to Sunday, `weeks` from there.
pub(crate) fn in_week(it: Date, weeks: i64, weekday: Weekday) -> Option<Date> {
    add_days(monday(it)?, weeks * 7 + i64::from(weekday.to_monday_zero_offset()))
}

/// The first such weekday after a day.
pub(crate) fn weekday_after(it: Date, weekday: Weekday) -> Option<Date> {
    let days = i64::from(weekday.to_monday_zero_offset()) - i64::from(it.weekday().to_monday_zero_offset());
    add_days(it, if days > 0 { days } else { days + 7 })
}

pub(crate) fn month_range(year: i16, month: i8) -> Option<Range> {
    let first = date(year, month, 1)?;
    Some((first, add_months(first, 1)?))
}

pub(crate) fn year_range(year: i16) -> Option<Range> {
    Some((date(year, 1, 1)?, date(year.checked_add(1)?, 1, 1)?))
}

pub(crate) fn week_range(it: Date, weeks: i64) -> Option<Range> {
    let from = add_days(monday(it)?, weeks * 7)?;
    Some((from, add_days(from, 7)?))
}

/// The week with that number, the first being the one with the year's first Thursday.
pub(crate) fn iso_week(year: i16, week: i8) -> Option<Range> {
    week_range(ISOWeekDate::new(year, week, Weekday::Monday).ok()?.date(), 0)
}

pub(crate) fn quarter_range(year: i16, quarter: i8) -> Option<Range> {
    let from = date(year, (quarter - 1) * 3 + 1, 1)?;
    Some((from, add_months(from, 3)?))
}

/// Which week of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nth {
    /// From 1.
    At(i8),
    Last,
}

/// The week of a month or year; a week belongs to the one that has its Thursday.
pub(crate) fn nth_week((from, to): Range, nth: Nth) -> Option<Range> {
    let thursday = match nth {
        Nth::At(nth) => {
            let first = weekday_after(add_days(from, -1)?, Weekday::Thursday)?;
            add_days(first, (i64::from(nth) - 1) * 7)?
        }
        Nth::Last => {
            let after = weekday_after(add_days(to, -1)?, Weekday::Thursday)?;
            add_days(after, -7)?
        }
    };
    week_range(thursday, 0)
}

pub(crate) fn nth_weekday(year: i16, month: i8, nth: Nth, weekday: Weekday) -> Option<Date> {
    let nth = match nth {
        Nth::At(nth) => nth,
        Nth::Last => -1,
    };
    date(year, month, 1)?.nth_weekday_of_month(nth, weekday).ok()
}

/// Which part of a period is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Early,
    Mid,
    Late,
}

/// Part of a month: its first half, the ten days in the middle, its second half.
pub(crate) fn month_part((from, to): Range, part: Part) -> Option<Range> {
    Some(match part {
        Part::Early => (from, add_days(from, 15)?),
        Part::Mid => (add_days(from, 9)?, add_days(from, 20)?),
        Part::Late => (add_days(from, 15)?, to),
    })
}

/// Part of a week: to Wednesday, Tuesday to Friday, from Thursday.
pub(crate) fn week_part((from, to): Range, part: Part) -> Option<Range> {
    Some(match part {
        Part::Early => (from, add_days(from, 3)?),
        Part::Mid => (add_days(from, 1)?, add_days(from, 5)?),
        Part::Late => (add_days(from, 3)?, to),
    })
}

/// Part of a year named from here ("this year"): its halves; of a year named by number: its thirds.
pub(crate) fn year_part((from, to): Range, part: Part, by_number: bool) -> Option<Range> {
    Some(match (part, by_number) {
        (Part::Early, false) => (from, add_months(from, 6)?),
        (Part::Mid, false) => (add_months(from, 3)?, add_months(from, 9)?),
        (Part::Late, false) => (add_months(from, 6)?, to),
        (Part::Early, true) => (from, add_months(from, 4)?),
        (Part::Mid, true) => (add_months(from, 4)?, add_months(from, 8)?),
        (Part::Late, true) => (add_months(from, 8)?, to),
    })
}

/// The day in the middle of a period.
pub(crate) fn middle((from, to): Range) -> Option<Date> {
    let days = from.duration_until(to).as_hours() / 24;
    add_days(from, days / 2)
}

/// A day that comes round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feast {
    Fixed(i8, i8),
    Nth(i8, Nth, Weekday),
    /// Days after Easter Sunday.
    Easter(i64),
    /// The day after the nth weekday.
    After(i8, Nth, Weekday, i64),
    /// Month and day of the tabular Islamic calendar.
    Islamic(i64, i64),
}

impl Feast {
    pub(crate) fn in_year(self, year: i16) -> Option<Date> {
        match self {
            Self::Fixed(month, day) => date(year, month, day),
            Self::Nth(month, nth, weekday) => nth_weekday(year, month, nth, weekday),
            Self::Easter(days) => add_days(easter(year)?, days),
            Self::After(month, nth, weekday, days) => add_days(nth_weekday(year, month, nth, weekday)?, days),
            Self::Islamic(month, day) => {
                // The Islamic year is eleven days shorter: at most two begin in one of ours.
                let about = (i64::from(year) - 622) * 33 / 32;
                (about - 1..=about + 2).find_map(|it| islamic(it, month, day).filter(|it| it.year() == year))
            }
        }
    }
}

/// Easter Sunday by the Gregorian computus.
fn easter(year: i16) -> Option<Date> {
    let year_ = i32::from(year);
    let (a, b, c) = (year_ % 19, year_ / 100, year_ % 100);
    let (d, e) = (b / 4, b % 4);
    let f = (b + 8) / 25;
    let g = (b - f + 1) / 3;
    let h = (19 * a + b - d - g + 15) % 30;
    let (i, k) = (c / 4, c % 4);
    let l = (32 + 2 * e + 2 * i - h - k) % 7;
    let m = (a + 11 * h + 22 * l) / 451;
    let month = (h + l - 7 * m + 114) / 31;
    let day = (h + l - 7 * m + 114) % 31 + 1;
    date(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?)
}

/// A day of the tabular Islamic calendar (eleven leap years in thirty), its epoch the 15th of July 622.
fn islamic(year: i64, month: i64, day: i64) -> Option<Date> {
    let days = (year - 1) * 354 + (3 + 11 * year) / 30 + (month - 1) * 29 + month / 2 + day - 1;
    add_days(date(622, 7, 18)?, days)
}

/// A day, as far as the words tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Day {
    On(Date),
    /// Month and day, or a feast, of a year not told.
    Yearly(Feast),
    /// Year of the century, month, day.
    Short(i16, i8, i8),
    Weekly(Weekday),
    /// Day of a month not told.
    Monthly(i8),
    WeeklyMonthly(Weekday, i8),
    /// A weekday of a certain week of a month.
    InWeek {
        month: i8,
        nth: Nth,
        weekday: Weekday,
    },
    /// The 30th of February.
    Never,
}

/// What it may have been before `now` and what it may be from then on.
pub(crate) type Candidates<T> = Vec<T>;

/// The nearest occurrences before and from `now` on, of what comes round once a year.
fn around_years<T>(
    now: DateTime,
    found: impl Fn(i16) -> Option<T>,
    passed: impl Fn(&T) -> bool,
) -> (Option<T>, Option<T>) {
    let year = now.year();
    // Leap days are at most eight years apart.
    let mut past = None;
    let mut future = None;
    for back in -1..=8 {
        if let Some(it) = found(year.saturating_sub(back)).filter(&passed) {
            past = Some(it);
            break;
        }
    }
    for on in -1..=8 {
        if let Some(it) = found(year.saturating_add(on)).filter(|it| !passed(it)) {
            future = Some(it);
            break;
        }
    }
    (past, future)
}

fn both<T: PartialEq>((past, future): (Option<T>, Option<T>)) -> Candidates<T> {
    let mut all: Vec<T> = past.into_iter().collect();
    if let Some(future) = future
        && !all.contains(&future)
    {
        all.push(future);
    }
    all
}

impl Day {
    /// The dates it may be, those past first; none when there is no such day.
    pub(crate) fn candidates(self, now: DateTime) -> Candidates<Date> {
        let passed = |it: &Date| it.to_datetime(Time::midnight()) < now;
        match self {
            Self::On(it) => vec![it],
            Self::Never => Vec::new(),
            Self::Yearly(feast) => both(around_years(now, |year| feast.in_year(year), passed)),
            Self::InWeek { month, nth, weekday } => {
                both(around_years(now, |year| in_week(nth_week(month_range(year, month)?, nth)?.0, 0, weekday), passed))
            }
            Self::Short(year, month, day) => {
                let of = |century: i16| date(century + year, month, day);
                // What people write of the future seldom lies further than a generation ahead.
                match year {
                    0..30 => of(2000).into_iter().collect(),
                    30..40 => both((of(1900), of(2000))),
                    _ => of(1900).into_iter().collect(),
                }
            }
            Self::Weekly(weekday) => {
                let Some(this) = in_week(now.date(), 0, weekday) else { return Vec::new() };
                let past = if passed(&this) { Some(this) } else { add_days(this, -7) };
                let future = if passed(&this) { add_days(this, 7) } else { Some(this) };
                both((past, future))
            }
            Self::Monthly(day) => both(around_months(now, |first| date(first.year(), first.month(), day), passed)),
            Self::WeeklyMonthly(weekday, day) => both(around_months(
                now,
                |first| date(first.year(), first.month(), day).filter(|it| it.weekday() == weekday),
                passed,
            )),
        }
    }

    /// The date in a year, when the year is what is missing.
    pub(crate) fn in_year(self, year: i16) -> Option<Self> {
        match self {
            Self::Yearly(feast) => feast.in_year(year).map(Self::On),
            Self::InWeek { month, nth, weekday } => {
                in_week(nth_week(month_range(year, month)?, nth)?.0, 0, weekday).map(Self::On)
            }
            _ => None,
        }
    }
}

fn around_months(
    now: DateTime,
    found: impl Fn(Date) -> Option<Date>,
    passed: impl Fn(&Date) -> bool,
) -> (Option<Date>, Option<Date>) {
    let first = now.date().first_of_month();
    // Some weekday and day meet at least once in fourteen months, the 31st and leap years included.
    let month = |step: i64| add_months(first, step).and_then(&found);
    let past = (0..=60).find_map(|back| month(-back).filter(&passed));
    let future = (0..=60).find_map(|on| month(on).filter(|it| !passed(it)));
    (past, future)
}

/// A period, as far as the words tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Days {
    In(Range),
    /// Of a year not told.
    Yearly(Rule),
}

/// A period of each year.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    Month(i8),
    MonthPart(i8, Part),
    WeekOfMonth(i8, Nth),
    WeekOf(Feast),
    WeekendOf(Feast),
    /// A day to a later day; where the second comes first it is of the next year.
    Between(Feast, Feast),
    /// The day the period starts, and a number of days.
    Lasting(Feast, i64),
    Quarter(i8),
    Half(i8),
}

impl Rule {
    pub(crate) fn in_year(self, year: i16) -> Option<Range> {
        match self {
            Self::Month(month) => month_range(year, month),
            Self::MonthPart(month, part) => month_part(month_range(year, month)?, part),
            Self::WeekOfMonth(month, nth) => nth_week(month_range(year, month)?, nth),
            Self::WeekOf(feast) => week_range(feast.in_year(year)?, 0),
            Self::WeekendOf(feast) => weekend(feast.in_year(year)?),
            Self::Between(from, to) => {
                let from = from.in_year(year)?;
                let until = to.in_year(year)?;
                Some((from, if until < from { to.in_year(year.checked_add(1)?)? } else { until }))
            }
            Self::Lasting(from, days) => {
                let from = from.in_year(year)?;
                Some((from, add_days(from, days)?))
            }
            Self::Quarter(quarter) => quarter_range(year, quarter),
            Self::Half(half) => {
                let from = date(year, (half - 1) * 6 + 1, 1)?;
                Some((from, add_months(from, 6)?))
            }
        }
    }
}

/// The weekend a day belongs to, made longer by that day if it is next to it.
pub(crate) fn weekend(it: Date) -> Option<Range> {
    if it.weekday() == Weekday::Monday {
        return Some((add_days(it, -2)?, add_days(it, 1)?));
    }
    let saturday = in_week(it, 0, Weekday::Saturday)?;
    let from = if matches!(it.weekday(), Weekday::Thursday | Weekday::Friday) { it } else { saturday };
    Some((from, add_days(saturday, 2)?))
}

impl Days {
    pub(crate) fn candidates(self, now: DateTime) -> Candidates<Range> {
        match self {
            Self::In(range) => vec![range],
            Self::Yearly(rule) => {
                let today = now.date();
                let start = |it: &Range| it.0.to_datetime(Time::midnight()) < now;
                let passed = |it: &Range| match rule {
                    // A month is told from its neighbours, not from its first day.
                    Rule::Month(_) | Rule::MonthPart(..) => (it.0.year(), it.0.month()) < (today.year(), today.month()),
                    _ => start(it),
                };
                let (past, future) = around_years(now, |year| rule.in_year(year), passed);
                if let (Rule::Between(..), Some(past)) = (rule, past)
                    && past.1.to_datetime(Time::midnight()) > now
                {
                    // It has begun and is not over.
                    return vec![past];
                }
                both((past, future))
            }
        }
    }

    pub(crate) fn in_year(self, year: i16) -> Option<Self> {
        match self {
            Self::In(_) => None,
            Self::Yearly(rule) => rule.in_year(year).map(Self::In),
        }
    }
}
