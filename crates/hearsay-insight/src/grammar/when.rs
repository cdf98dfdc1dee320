//! Dates and times together: "Tuesday from 7 to 7:30", "by end of this month", "every other Friday".

use jiff::civil::{Date, DateTime, Time};

use super::calendar::{Day, Days, Feast, Range, Rule, add_days, date};
use super::clock::{self, Clock, Daypart, Shape};
use super::day::{Read, Reader, longer};
use super::lex::Kind as Lexed;
use super::number;
use super::period::{Edge, Period, Stretch, edge_day, first_day};
use super::words::{self, Unit};
use super::{Kind, Value};

/// What a place of the text says of time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) kind: Kind,
    pub(crate) values: Vec<Value>,
}

impl Found {
    /// A day alone.
    pub(crate) fn day(day: Day, now: DateTime) -> Self {
        Self { kind: Kind::Date, values: known(day.candidates(now).into_iter().map(Value::Date).collect()) }
    }
}

/// A time on a day: at it, or from one to another with open ends.
#[derive(Debug, Clone, PartialEq)]
enum Bit {
    At(Clock),
    Between(Vec<(Option<Time>, Option<Time>)>),
}

/// No day is longer than this, in tokens.
const REACH: usize = 16;

/// An end of a range.
#[derive(Debug, Clone, PartialEq)]
enum Point {
    Day(Day),
    Days(Period),
    Clock(Clock),
    DayClock(Day, Clock),
    Now,
}

/// Which side of a point is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    /// Up to and with it.
    Through,
    After,
    Since,
}

impl Reader<'_> {
    /// The longest expression of time that begins there.
    pub(crate) fn when(&self, at: usize) -> Read<Found> {
        let mut best = self.sided(at);
        for it in [
            self.day_with_time(at).map(|(it, end)| (self.day_time_found(it), end)),
            self.range(at),
            self.clock_or_part(at),
            self.plain(at),
            self.moment(at),
            self.set(at),
            self.length(at),
        ] {
            best = longer(best, it);
        }
        best.filter(|it| it.0.kind == Kind::DateRange || !it.0.values.is_empty())
    }

    /// A day or a stretch alone.
    fn plain(&self, at: usize) -> Read<Found> {
        let around = usize::from(self.t.any(at, "around") && self.t.word(at + 1) == "the");
        let day = longer(self.day(at + around), self.listed_day(at)).map(|(it, end)| (self.day_found(it), end));
        let stretch = self.stretch(at).map(|(it, end)| (self.stretch_found(it), end));
        // "May 5" is a day before it is a month; the longer wins.
        longer(day, stretch)
    }

    fn day_found(&self, day: Day) -> Found {
        Found::day(day, self.now)
    }

    fn stretch_found(&self, it: Stretch) -> Found {
        match it {
            Stretch::Days(period) => Found {
                kind: Kind::DateRange,
                values: period
                    .days
                    .candidates(self.now)
                    .into_iter()
                    .map(|(from, to)| Value::Dates(Some(from), Some(to)))
                    .collect(),
            },
            Stretch::Moments(from, to) => {
                Found { kind: Kind::DateTimeRange, values: vec![Value::Moments(Some(from), Some(to))] }
            }
            Stretch::Vague(code) => Found { kind: Kind::DateRange, values: vec![Value::Unknown(code)] },
        }
    }

    fn day_time_found(&self, (day, bit): (Day, Bit)) -> Found {
        let days = day.candidates(self.now);
        if days.is_empty() {
            return Found { kind: Kind::DateTime, values: vec![Value::Unknown(String::new())] };
        }
        match bit {
            Bit::At(clock) => Found {
                kind: Kind::DateTime,
                values: clock
                    .candidates()
                    .into_iter()
                    .flat_map(|time| days.iter().map(move |day| Value::Moment(day.to_datetime(time))))
                    .collect(),
            },
            Bit::Between(times) => {
                let values = times
                    .iter()
                    .flat_map(|(from, to)| {
                        days.iter().map(move |day| {
                            let start = from.map(|it| day.to_datetime(it));
                            let mut end = to.map(|it| day.to_datetime(it));
                            if let (Some(start), Some(it)) = (start, end)
                                && it < start
                            {
                                end = add_days(*day, 1).zip(*to).map(|(day, time)| day.to_datetime(time));
                            }
                            Value::Moments(start, end)
                        })
                    })
                    .collect();
                Found { kind: Kind::DateTimeRange, values }
            }
        }
    }

    /// "now", "in 5 minutes", "end of tomorrow", "later today".
    fn moment(&self, at: usize) -> Read<Found> {
        let t = self.t;
        let found = |it: DateTime| Found { kind: Kind::DateTime, values: vec![Value::Moment(it)] };
        for words in ["now", "right now", "at the moment", "at present", "at this time"] {
            if let Some(end) = t.phrase(at, words) {
                return Some((found(self.now), end));
            }
        }
        // "later in today"
        if t.word(at) == "later" {
            let next = at + 1 + usize::from(t.word(at + 1) == "in");
            if t.word(next) == "today" {
                let noon = self.today().to_datetime(Time::constant(12, 0, 0, 0));
                let end = add_days(self.today(), 1)?.to_datetime(Time::midnight());
                let values = vec![Value::Moments(Some(noon), Some(end))];
                return Some((Found { kind: Kind::DateTimeRange, values }, next + 1));
            }
        }
        if let Some((day, end)) = self.end_of_day(at) {
            let last = Time::constant(23, 59, 59, 0);
            let values = day.candidates(self.now).into_iter().map(|it| Value::Moment(it.to_datetime(last))).collect();
            return Some((Found { kind: Kind::DateTime, values }, end));
        }
        // "in 5 minutes", "3 minutes from now", "30 minutes later", "an hour ago"
        let within = t.word(at) == "in";
        let (it, next) = self.duration_words(at + usize::from(within))?;
        if !it.clock || it.broken {
            return None;
        }
        let (sign, end) = match t.word(next) {
            "ago" | "earlier" if !within => (-1, next + 1),
            "later" | "hence" if !within => (1, next + 1),
            "from" if t.word(next + 1) == "now" => (1, next + 2),
            _ if within => (1, next),
            _ => return None,
        };
        Some((found(it.after_moment(self.now, sign)?), end))
    }

    /// "end of the day", "eod", "close of business Thursday": the day that ends.
    pub(crate) fn end_of_day(&self, at: usize) -> Read<Day> {
        let t = self.t;
        let the = usize::from(t.word(at) == "the");
        if t.any(at + the, "eod cob") {
            let next = at + the + 1;
            return Some(self.day(next).map_or((Day::On(self.today()), next), |(day, end)| (day, end)));
        }
        for words in ["close of business", "close of play", "end of business"] {
            if let Some(next) = t.phrase(at, words) {
                let next = next + usize::from(t.word(next) == "day");
                let on = next + usize::from(t.word(next) == "on");
                return Some(self.day(on).unwrap_or((Day::On(self.today()), next)));
            }
        }
        let next = t.phrase(at, "end of")?;
        for words in ["the day", "day", "the working day", "the business day", "play"] {
            if let Some(end) = t.phrase(next, words) {
                let on = end + usize::from(t.word(end) == "on");
                return Some(self.day(on).unwrap_or((Day::On(self.today()), end)));
            }
        }
        let the = next + usize::from(t.word(next) == "the");
        self.simple_day(the)
    }

    /// "3 minutes", "more than 4 days".
    fn length(&self, at: usize) -> Read<Found> {
        let t = self.t;
        let from = ["more than", "less than", "at least", "at most", "up to"]
            .iter()
            .find_map(|it| t.phrase(at, it))
            .unwrap_or(at);
        let (it, end) = self.duration_words(from).or_else(|| {
            // "the hour"
            t.phrase(at, "the hour")?;
            let (it, _) = super::span::duration_of(1, Unit::Hour)?;
            (t.word(at.wrapping_sub(1)) == "for").then_some((it, at + 2))
        })?;
        // "a second round", "one second" of a sequence.
        if t.any(from, "a") && t.word(from + 1) == "second" && from + 2 == end {
            return None;
        }
        // "all week" of a set is one; "some second" none.
        Some((Found { kind: Kind::Duration, values: vec![Value::Duration(it.length)] }, end))
    }

    /// A point of time, or one part of the day with its hours.
    fn clock_or_part(&self, at: usize) -> Read<Found> {
        let (bit, end) = self.bit(at, false)?;
        Some((
            match bit {
                Bit::At(clock) => {
                    Found { kind: Kind::Time, values: clock.candidates().into_iter().map(Value::Time).collect() }
                }
                Bit::Between(times) => Found {
                    kind: Kind::TimeRange,
                    values: times.into_iter().map(|(from, to)| Value::Times(from, to)).collect(),
                },
            },
            end,
        ))
    }

    /// A time, a range of times or a part of the day. `dated`: a day stands beside it, so a bare number will do.
    fn bit(&self, at: usize, dated: bool) -> Read<Bit> {
        let t = self.t;
        let before = at.checked_sub(1).map_or("", |it| t.word(it));
        let led = matches!(
            before,
            "at" | "around" | "by" | "until" | "till" | "before" | "after" | "from" | "circa" | "about" | "to"
        );
        let point = {
            // "at 6.45" is a time by its preposition alone.
            let decimal = matches!(t.word(at), "at")
                .then(|| {
                    let (it, end) = clock::clock(t, at + 1, true)?;
                    (it.shape == Shape::Firm && t.is(at + 2, ".")).then_some((it, end))
                })
                .flatten();
            let circa = (t.word(at) == "circa").then(|| clock::clock(t, at + 1, true)).flatten();
            let plain = clock::clock(t, at, dated || led).filter(|(it, end)| match it.shape {
                Shape::Firm => true,
                Shape::Pair => {
                    dated || matches!(before, "at" | "around" | "by" | "until" | "till" | "from") && self.ends(*end)
                }
                // "at 6" needs to be the end of what is said.
                Shape::Bare => dated || before == "at" && self.ends(*end) && self.listed_day(at).is_none(),
            });
            longer(plain, longer(decimal, circa))
                .filter(|_| !self.tail_of_number(at) || t.is(at.wrapping_sub(1), ":") || t.dash(at.wrapping_sub(1)))
                .filter(|(_, end)| !self.not_clock(at, *end))
        };
        let point = point.map(|(it, end)| (Bit::At(it), end));
        longer(longer(self.clocks(at, dated), self.daypart(at, dated)), longer(point, self.open_clock(at)))
    }

    /// "4:3" and the like: not a time after all.
    fn not_clock(&self, at: usize, end: usize) -> bool {
        let t = self.t;
        t.is(end, ":") && t.glued(end) && !t.digits(end + 1).is_empty() && t.glued(end + 1)
            || at > 0 && t.is_any(at - 1, &["$", "€", "£"])
    }

    /// Nothing that would take a number as its count follows.
    fn ends(&self, at: usize) -> bool {
        let t = self.t;
        match t.get(at) {
            None => true,
            Some(it) if it.kind == Lexed::Mark => !t.is_any(at, &["%", "$", "€", "£", "/", "-", ":"]),
            Some(_) => {
                t.any(
                    at,
                    "on in for to and or if because with so then please tomorrow today tonight but we i right \
                    okay sharp this next at when as",
                ) || words::weekday(t.word(at)).is_some()
            }
        }
    }

    /// "from 3 to 5 pm", "9.30-4.30pm", "between seven and nine thirty", "from 9 for 2.5 hrs".
    fn clocks(&self, at: usize, dated: bool) -> Read<Bit> {
        let t = self.t;
        let word = t.word(at);
        // "for 2.5 hours from 9"
        if word == "for" {
            let (it, next) = self.duration_words(at + 1)?;
            if !it.clock || t.word(next) != "from" {
                return None;
            }
            let (from, end) = clock::clock(t, next + 1, true)?;
            return Some((lasting(from, it.seconds)?, end));
        }
        let between = word == "between";
        let led = between || word == "from";
        let from = at + usize::from(led);
        if !led && self.tail_of_number(at) && !t.is(at.wrapping_sub(1), "-") {
            return None;
        }
        let (a, next) = clock::clock(t, from, true)?;
        if t.word(next) == "for" && led {
            let (it, end) = self.duration_words(next + 1)?;
            return (it.clock && it.seconds > 0).then(|| Some((lasting(a, it.seconds)?, end)))?;
        }
        let dash = t.dash(next);
        if !(dash || t.any(next, "to until till through thru") || between && t.word(next) == "and") {
            return None;
        }
        let (b, end) = clock::clock(t, next + 1, true)?;
        if self.not_clock(from, end) {
            return None;
        }
        // Two bare numbers are a range of anything.
        let firm = a.shape == Shape::Firm || b.shape == Shape::Firm;
        let pairs = a.shape == Shape::Pair && b.shape == Shape::Pair && led;
        if !(firm || pairs || dated) {
            return None;
        }
        // "5 to 5:30" reads well; "30 minutes to 5 pm" does not come here; "2019 to 5 pm" has no hour.
        Some((Bit::Between(pair(a, b)), end))
    }

    /// "in the morning", "early afternoon", "at lunch"; with a time after it, that time.
    fn daypart(&self, at: usize, dated: bool) -> Read<Bit> {
        let t = self.t;
        let mut next = at;
        let mut part = None;
        let mut led = false;
        let adjust = |word: &str| match word {
            "early" | "earlier" => Some(false),
            "late" | "later" => Some(true),
            _ => None,
        };
        if let Some(late) = adjust(t.word(next)) {
            part = Some(late);
            next += 1;
        }
        if t.any(next, "in during") && t.word(next + 1) == "the" {
            led = true;
            next += 2;
            if let Some(late) = adjust(t.word(next)) {
                part = Some(late);
                next += 1;
            }
        }
        let meal = |word: &str| match word {
            "lunch" | "lunchtime" => Some(Daypart::Lunch),
            "dinner" | "dinnertime" | "supper" => Some(Daypart::Dinner),
            "breakfast" => Some(Daypart::Breakfast),
            _ => None,
        };
        let (which, end) = if t.phrase(at, "at night").is_some() {
            (Daypart::Night, at + 2)
        } else if t.any(at, "at around before after during by")
            && let Some(it) = meal(t.word(at + 1)).filter(|_| !t.any(at + 2, "time with"))
        {
            let (from, to) = it.hours();
            let range = match t.word(at) {
                "before" | "by" => (None, Some(from)),
                "after" => (Some(to), None),
                _ => (Some(from), Some(to)),
            };
            return Some((Bit::Between(vec![range]), at + 2));
        } else if let Some(end) = t.phrase(next, "business hours") {
            (Daypart::Business, end)
        } else {
            let word = t.word(next);
            let it = clock::daypart_word(word)?;
            let many = word.ends_with('s');
            // "mornings" recur, unless "in the" makes them hours; "good morning" and "a night" tell no time.
            let before = at.checked_sub(1).map_or("", |it| t.word(it));
            let greeting = matches!(before, "good" | "per" | "a") && !dated;
            let night = it == Daypart::Night && !led && !dated && part.is_none();
            if many && !led || greeting || night {
                return None;
            }
            (it, next + 1)
        };
        // "in the morning at 7", "evening from 7 to 9"
        let comma = end + usize::from(t.is(end, ","));
        let ranged = self.clocks(comma, true).filter(|_| dated || t.any(comma, "from between"));
        if let Some((Bit::Between(times), end)) = ranged {
            return Some((Bit::Between(times_within(t_range(self, comma)?, which).unwrap_or(times)), end));
        }
        let lead = usize::from(t.any(comma, "at around about @") || t.is(comma, "@"));
        if let Some((it, end)) = clock::clock(t, comma + lead, lead > 0)
            && (lead > 0 || it.shape == Shape::Firm)
        {
            return Some((Bit::At(it.within(which)), end));
        }
        let (from, to) = which.hours();
        let half = Time::new(from.hour() + 2, 0, 0, 0).unwrap_or(from);
        let range = match part {
            Some(false) => (from, half),
            Some(true) => (half, to),
            None => (from, to),
        };
        Some((Bit::Between(vec![(Some(range.0), Some(range.1))]), end))
    }

    /// "before 5pm", "as late as 7:00 am", "3 pm or later".
    fn open_clock(&self, at: usize) -> Read<Bit> {
        let t = self.t;
        let open = |clock: Clock, side: Side| {
            Bit::Between(
                clock
                    .candidates()
                    .into_iter()
                    .map(|it| match side {
                        Side::Before | Side::Through => (None, Some(it)),
                        Side::After | Side::Since => (Some(it), None),
                    })
                    .collect(),
            )
        };
        if let Some((side, next)) = self.side(at) {
            let next = next + usize::from(t.any(next, "around about"));
            let (it, end) = clock::clock(t, next, true)?;
            // A bare number after "before" counts things.
            let ok = it.shape == Shape::Firm || it.shape == Shape::Pair && self.ends(end) && !t.word(at).is_empty();
            return ok.then(|| (open(it, side), end));
        }
        let (it, next) = clock::clock(t, at, false)?;
        let (side, end) = self.side_after(next)?;
        Some((open(it, side), end))
    }

    /// "before", "no later than", "since".
    fn side(&self, at: usize) -> Read<Side> {
        let t = self.t;
        let phrases: &[(&str, Side)] = &[
            ("no later than", Side::Before),
            ("not later than", Side::Before),
            ("as late as", Side::Before),
            ("as early as", Side::Since),
            ("any time from", Side::Since),
            ("anytime from", Side::Since),
            ("any time after", Side::After),
            ("anytime after", Side::After),
            ("any time before", Side::Before),
            ("later than", Side::After),
            ("greater than", Side::After),
            ("earlier than", Side::Before),
            ("less than", Side::Before),
            ("prior to", Side::Before),
            ("before", Side::Before),
            ("by", Side::Before),
            ("until", Side::Before),
            ("till", Side::Before),
            ("after", Side::After),
            ("since", Side::Since),
            ("starting from", Side::Since),
            ("starting on", Side::Since),
            ("beginning on", Side::Since),
            ("starting", Side::Since),
            ("beginning", Side::Since),
        ];
        if let Some((words, side)) = phrases.iter().find(|(words, _)| t.phrase(at, words).is_some()) {
            return Some((*side, t.phrase(at, words)?));
        }
        let equal = usize::from(t.is(at + 1, "="));
        match (t.is(at, "<"), t.is(at, ">"), equal) {
            (true, _, 1) => Some((Side::Through, at + 2)),
            (true, _, _) => Some((Side::Before, at + 1)),
            (_, true, 1) => Some((Side::Since, at + 2)),
            (_, true, _) => Some((Side::After, at + 1)),
            _ => None,
        }
    }

    /// "or later", "and greater", as they follow a point that ends what is said.
    fn side_after(&self, at: usize) -> Read<Side> {
        let t = self.t;
        if !t.any(at, "or and") {
            return None;
        }
        let side = match t.word(at + 1) {
            "later" | "after" | "greater" | "onwards" | "newer" => Side::Since,
            "earlier" | "before" | "older" | "less" => Side::Before,
            _ => return None,
        };
        let closed = t.get(at + 2).is_none_or(|it| it.kind == Lexed::Mark) || t.any(at + 1, "later earlier");
        closed.then_some((side, at + 2))
    }

    /// "before 2018", "since tomorrow", "after the 15th day of next month", "more than 2 weeks before today".
    fn sided(&self, at: usize) -> Read<Found> {
        let t = self.t;
        // "more than 2 weeks before today"
        for (words, more) in [("more than", true), ("less than", false)] {
            let Some(from) = t.phrase(at, words) else { continue };
            let (it, next) = self.duration_words(from)?;
            let sign = match t.word(next) {
                "before" => -1,
                "after" | "from" => 1,
                "ago" if it.in_days() => {
                    let day = it.from(self.today(), -1)?;
                    let range = if more { (None, Some(day)) } else { (Some(day), Some(self.today())) };
                    return Some((open_days(vec![range]), next + 1));
                }
                _ => return None,
            };
            let (anchor, end) = self.simple_day(next + 1)?;
            let anchor = *anchor.candidates(self.now).last()?;
            let day = it.from(anchor, sign)?;
            let range = match (more, sign) {
                (true, -1) => (None, Some(day)),
                (true, _) => (Some(day), None),
                (false, -1) => (Some(day), Some(anchor)),
                (false, _) => (Some(anchor), Some(day)),
            };
            return Some((open_days(vec![range]), end));
        }
        let past = t.any(at.wrapping_sub(1), "up year month") || !t.digits(at + 2).is_empty();
        if t.any(at, "to till") && t.word(at + 1) == "date" && !past {
            return Some((open_days(vec![(None, Some(self.today()))]), at + 2));
        }
        if let Some((side, next)) = self.side(at) {
            let next = next + usize::from(t.any(next, "around about"));
            let (point, end) = self.point_of_day(next, true)?;
            return Some((self.side_found(&point, side)?, end));
        }
        // "year greater than 2012"
        if t.word(at) == "year"
            && let Some((side, next)) = self.side(at + 1)
        {
            let (period, end) = self.period(next)?;
            return Some((self.side_found(&Point::Days(period), side)?, end));
        }
        // Seldom: looked for before what it would follow is read.
        (at + 1..at + REACH).find(|it| self.side_after(*it).is_some())?;
        let (point, next) = self.point_of_day(at, false)?;
        let (side, end) = self.side_after(next)?;
        Some((self.side_found(&point, side)?, end))
    }

    /// A day, a stretch or a time on a day, after "by" also "the 4th".
    fn point_of_day(&self, at: usize, led: bool) -> Read<Point> {
        let t = self.t;
        let the = at + usize::from(led && t.word(at) == "the");
        let timed = self.day_with_time(at).and_then(|((day, bit), end)| match bit {
            Bit::At(clock) => Some((Point::DayClock(day, clock), end)),
            Bit::Between(_) => None,
        });
        let day = self.day(at).map(|(it, end)| (Point::Day(it), end));
        let days = self.period(at).or_else(|| self.part_period(the)).map(|(it, end)| (Point::Days(it), end));
        longer(longer(day, days), timed)
    }

    fn part_period(&self, at: usize) -> Read<Period> {
        self.period(at)
    }

    fn side_found(&self, point: &Point, side: Side) -> Option<Found> {
        let open = |day: Date| match side {
            Side::Before | Side::Through => (None, Some(day)),
            Side::After | Side::Since => (Some(day), None),
        };
        Some(match point {
            Point::Day(day) => open_days(day.candidates(self.now).into_iter().map(open).collect()),
            Point::Days(period) => {
                let whole = period.edge.map_or(period.days, |it| it.1).candidates(self.now);
                let part = period.days.candidates(self.now);
                let days = part.iter().zip(&whole).filter_map(|(part, whole)| {
                    let edge = period.edge.map(|it| it.0);
                    let day = match (side, edge) {
                        (Side::Before | Side::Through, Some(edge)) => edge_day(*whole, edge)?,
                        (Side::Before, None) => part.0,
                        (Side::Through, None) => part.1,
                        (Side::After, Some(edge)) => edge_day(*whole, edge)?,
                        (Side::After, None) => part.1,
                        (Side::Since, _) => part.0,
                    };
                    Some(open(day))
                });
                open_days(days.collect())
            }
            Point::DayClock(day, clock) => {
                let days = day.candidates(self.now);
                let values = clock.candidates().into_iter().flat_map(|time| {
                    days.iter().map(move |day| {
                        let it = day.to_datetime(time);
                        match side {
                            Side::Before | Side::Through => Value::Moments(None, Some(it)),
                            Side::After | Side::Since => Value::Moments(Some(it), None),
                        }
                    })
                });
                Found { kind: Kind::DateTimeRange, values: values.collect() }
            }
            Point::Clock(_) | Point::Now => return None,
        })
    }

    /// A day that brings its part: "tonight", "this morning", "last night", "tomorrow" with no part.
    fn day_or_part(&self, at: usize) -> Read<(Day, Option<Daypart>)> {
        let t = self.t;
        let on = |days: i64, part| Some((Day::On(add_days(self.today(), days)?), Some(part)));
        if t.any(at, "tonight tonite") {
            return Some((on(0, Daypart::Night)?, at + 1));
        }
        if let Some((turn, next)) = words::turn(t, at)
            && let Some(part) = clock::daypart_word(t.word(next)).filter(|_| !t.word(next).ends_with('s'))
        {
            return Some((on(turn.steps(), part)?, next + 1));
        }
        self.day(at).map(|(day, end)| ((day, None), end))
    }

    /// A day and a time beside it, either first.
    fn day_with_time(&self, at: usize) -> Read<(Day, Bit)> {
        longer(self.day_then_time(at), self.time_then_day(at))
    }

    fn day_then_time(&self, at: usize) -> Read<(Day, Bit)> {
        let t = self.t;
        // "later this afternoon"
        let late = match t.word(at) {
            "later" | "late" => Some(true),
            "early" | "earlier" => Some(false),
            _ => None,
        };
        if let Some(late) = late {
            let ((day, part), end) = self.day_or_part(at + 1)?;
            // "early tomorrow morning"
            let (part, end) = match part.or(clock::daypart_word(t.word(end))) {
                Some(it) => (it, end + usize::from(part.is_none())),
                None => return None,
            };
            let (from, to) = part.hours();
            let half = Time::new(from.hour() + 2, 0, 0, 0).ok()?;
            let range = if late { (half, to) } else { (from, half) };
            return Some(((day, Bit::Between(vec![(Some(range.0), Some(range.1))])), end));
        }
        let ((day, part), next) = self.day_or_part(at)?;
        // A feast's hours are told apart from it.
        let turned = words::turn(t, at).map_or(at, |it| it.1);
        if words::feast(t, turned).is_some() {
            return None;
        }
        // "Wednesday evening next week"
        if let (Day::Weekly(weekday), None) = (day, part)
            && let Some(part) = clock::daypart_word(t.word(next))
            && let Some((weeks, end)) = self.week_from_here(next + 1)
        {
            let day = Day::On(super::calendar::in_week(self.today(), weeks, weekday)?);
            return Some(((day, hours(part)), end));
        }
        let sep = next + usize::from(t.is_any(next, &[",", ":"]) || t.is(next, "-") && t.is(next.wrapping_sub(1), ")"));
        let sep = sep + usize::from(t.word(sep) == "t" && t.glued(sep) && t.glued(sep + 1));
        // "today pm"
        if part.is_none() && t.any(next, "am pm") {
            let part = if t.word(next) == "pm" { Daypart::Afternoon } else { Daypart::Morning };
            return Some(((day, hours(part)), next + 1));
        }
        let lead = usize::from(t.any(sep, "at around about for") || t.is(sep, "@"));
        let bit = self.clocks(sep, true).or_else(|| self.clocks(sep + lead, true).filter(|_| lead > 0));
        let bit = longer(bit, self.open_clock(sep));
        let bit = longer(bit, if part.is_none() { self.daypart(sep, true) } else { None });
        let bit = longer(bit, {
            let loose = lead > 0 && t.word(sep) != "for";
            clock::clock(t, sep + lead, loose || t.glued(sep))
                .or_else(|| {
                    clock::clock(t, sep + lead, true).filter(|it| it.0.shape == Shape::Pair && t.word(sep) != "for")
                })
                .filter(|it| loose || it.0.shape != Shape::Bare)
                .filter(|it| !self.not_clock(sep + lead, it.1))
                .map(|(it, end)| (Bit::At(it), end))
        });
        match (part, bit) {
            (None, Some((bit, end))) => Some(((day, bit), end)),
            (Some(part), Some((Bit::At(it), end))) => Some(((day, Bit::At(it.within(part))), end)),
            (Some(part), Some((Bit::Between(times), end))) => {
                let times = t_range(self, sep)
                    .or_else(|| t_range(self, sep + lead))
                    .and_then(|it| times_within(it, part))
                    .unwrap_or(times);
                Some(((day, Bit::Between(times)), end))
            }
            (Some(part), None) => Some(((day, hours(part)), next)),
            (None, None) => None,
        }
    }

    fn time_then_day(&self, at: usize) -> Read<(Day, Bit)> {
        let t = self.t;
        let before = at.checked_sub(1).map_or("", |it| t.word(it));
        let led = matches!(before, "at" | "around" | "by" | "until" | "till" | "before" | "after");
        let (bit, next) = {
            let ranged = self.clocks(at, true).filter(|_| !self.tail_of_number(at));
            let plain = self.bit(at, false);
            let loose = clock::clock(t, at, true)
                .filter(|_| !self.tail_of_number(at))
                .filter(|it| led || it.0.shape == Shape::Pair || t.is(it.1, ",") && self.tonight(it.1 + 1))
                .map(|(it, end)| (Bit::At(it), end));
            longer(longer(plain, ranged), loose)?
        };
        // A meal is told apart from its day.
        if t.any(next - 1, "lunch lunchtime dinner dinnertime supper breakfast") {
            return None;
        }
        let sep = next + usize::from(t.is_any(next, &[","]) && matches!(bit, Bit::At(_)));
        let sep = sep + usize::from(t.any(sep, "on of for"));
        let ((day, part), end) = self.day_or_part(sep)?;
        // A bare number before a month is its day.
        if let Bit::At(it) = &bit
            && it.shape != Shape::Firm
            && !led
            && part != Some(Daypart::Night)
            && it.shape == Shape::Bare
        {
            return None;
        }
        // "yesterday afternoon"
        let (part, end) = match part {
            Some(part) => (Some(part), end),
            None => match clock::daypart_word(t.word(end)).filter(|_| !t.word(end).ends_with('s')) {
                Some(part) => (Some(part), end + 1),
                None => (None, end),
            },
        };
        let bit = match (bit, part) {
            (Bit::At(it), Some(part)) => Bit::At(it.within(part)),
            (Bit::Between(times), Some(part)) => {
                Bit::Between(t_range(self, at).and_then(|it| times_within(it, part)).unwrap_or(times))
            }
            (bit, None) => bit,
        };
        Some(((day, bit), end))
    }

    fn tonight(&self, at: usize) -> bool {
        self.t.any(at, "tonight tonite")
    }

    /// An end of a range.
    fn point(&self, at: usize) -> Read<Point> {
        let t = self.t;
        let mut best = self.point_of_day(at, true);
        if let Some((day, end)) = self.monthly_point(at) {
            best = longer(best, Some((Point::Day(day), end)));
        }
        let clock = clock::clock(t, at, false).map(|(it, end)| (Point::Clock(it), end));
        best = longer(best, clock);
        let now = t.phrase(at, "now").or_else(|| t.phrase(at, "date")).map(|end| (Point::Now, end));
        longer(best, now)
    }

    /// "the 3rd" where only a range could have it.
    fn monthly_point(&self, at: usize) -> Read<Day> {
        let t = self.t;
        if t.word(at) != "the" {
            return None;
        }
        let ((day, told), next) = self.day_number(at + 1)?;
        told.then_some((Day::Monthly(day), next))
    }

    /// "from March to May", "between 2015 and 2018", "2 july to 10 july", "april 9th through 17th", "Jan-Feb 2017".
    fn range(&self, at: usize) -> Read<Found> {
        let t = self.t;
        let between = t.word(at) == "between";
        let led = between || t.word(at) == "from";
        let from = at + usize::from(led);
        (from + 1..from + REACH).find(|it| t.dash(*it) || t.any(*it, "to until till through thru and"))?;
        let short = self.short_range(from, between);
        let long = (|| {
            let (a, next) = self.point(from)?;
            let (mut b, mut end) = self.joined(next, between, |it, at| it.point(at))?;
            // "5/1-5/7, 2020"
            if let (Point::Day(Day::Yearly(_)), Point::Day(last @ Day::Yearly(_))) = (&a, &b)
                && let Some((year, after)) = self.year_after(end)
                && let Some(day) = last.in_year(year)
            {
                b = Point::Day(day);
                end = after;
            }
            // Two times are read with all that belongs to them.
            if matches!((&a, &b), (Point::Clock(_), Point::Clock(_))) {
                return None;
            }
            Some((self.between(&a, &b)?, end))
        })();
        longer(short, long)
    }

    /// What follows "to", "and" after "between", or a dash.
    fn joined<T>(&self, at: usize, between: bool, read: impl Fn(&Self, usize) -> Read<T>) -> Read<T> {
        let t = self.t;
        let dash = t.dash(at);
        let word = t.any(at, "to until till through thru");
        if !(dash || word || between && t.word(at) == "and") {
            return None;
        }
        // "year to date" is one phrase.
        if t.phrase(at, "to date").is_some() && t.any(at.wrapping_sub(1), "year month up") {
            return None;
        }
        read(&Reader { joined: at + 1, ..*self }, at + 1)
    }

    /// Two days of one month: "9 to 12 of June", "january 5-8", "between the ninth and the seventeenth of april".
    fn short_range(&self, from: usize, between: bool) -> Read<Found> {
        let t = self.t;
        let number = |at: usize| {
            let the = at + usize::from(t.word(at) == "the");
            self.day_number(the).or_else(|| {
                let (day, next) = number::below_hundred(t, the)?;
                Some(((i8::try_from(day).ok().filter(|it| (1..=31).contains(it))?, false), next))
            })
        };
        // "april ninth through seventeenth"
        if let Some((month, next)) = self.month(from) {
            let next = next + usize::from(t.is(next, ".") && t.glued(next));
            let ((a, _), next) = number(next)?;
            let ((b, _), end) = self.joined(next, between, |_, at| number(at))?;
            // "Nov 18-19:30" and "May 5 to 7 pm" are times.
            if t.is(end, ":")
                || clock::meridiem(t, end).is_some()
                || self.month(end).is_some()
                || words::unit(t.word(end)).is_some()
            {
                return None;
            }
            return match self.year_after(end) {
                Some((year, end)) => Some((self.days_of(month, a, b, Some(year))?, end)),
                None => Some((self.days_of(month, a, b, None)?, end)),
            };
        }
        if !t.digits(from).is_empty() && self.tail_of_number(from) {
            return None;
        }
        let ((a, _), next) = number(from)?;
        let ((b, _), next) = self.joined(next, between, |_, at| number(at))?;
        let next = next + usize::from(t.word(next) == "day");
        let next = next + usize::from(t.any(next, "of in"));
        if let Some((range, end)) = self.month_from_here(next) {
            let day = |it: i8| add_days(range.0, i64::from(it) - 1).filter(|it| *it < range.1);
            return Some((open_days(vec![(Some(day(a)?), Some(day(b)?))]), end));
        }
        let (month, next) = self.month(next)?;
        match self.year_after(next) {
            Some((year, end)) => Some((self.days_of(month, a, b, Some(year))?, end)),
            None => Some((self.days_of(month, a, b, None)?, next)),
        }
    }

    fn days_of(&self, month: i8, a: i8, b: i8, year: Option<i16>) -> Option<Found> {
        if a >= b {
            return None;
        }
        let days = match year {
            Some(year) => Days::In((date(year, month, a)?, date(year, month, b)?)),
            None => Days::Yearly(Rule::Between(Feast::Fixed(month, a), Feast::Fixed(month, b))),
        };
        date(2000, month, b)?;
        Some(ranges(days.candidates(self.now)))
    }

    fn between(&self, a: &Point, b: &Point) -> Option<Found> {
        let now = self.now;
        // With a time at either end it is a range of moments.
        if matches!(a, Point::Clock(_) | Point::DayClock(..)) || matches!(b, Point::Clock(_) | Point::DayClock(..)) {
            return self.moments(a, b);
        }
        if let (Point::Now, Point::Now) = (a, b) {
            return None;
        }
        let start = self.end_of_range(a)?;
        let end = self.end_of_range(b)?;
        let found = match (start, end) {
            (Open::Day(Day::On(a)), Open::Day(Day::On(b))) => vec![(a, b)],
            // The year told at one end is the other's, as near as the order allows.
            (Open::Day(Day::On(a)), Open::Day(b)) => vec![(a, first_after(b, a)?)],
            (Open::Day(a), Open::Day(Day::On(b))) => vec![(last_before(a, b, now)?, b)],
            (Open::Day(Day::Yearly(a)), Open::Day(Day::Yearly(b))) => Days::Yearly(Rule::Between(a, b)).candidates(now),
            (Open::Day(a), Open::Day(b)) => {
                a.candidates(now).into_iter().filter_map(|a| Some((a, first_after(b, a)?))).collect()
            }
            (Open::Edge(a), Open::Edge(b)) => edges(a, b, now)?,
            (Open::Edge(a), Open::Day(Day::On(b))) => {
                let (range, edge) = (a.0.candidates(now), a.1);
                vec![(range.into_iter().filter_map(|it| edge_day(it, edge)).rfind(|it| *it < b)?, b)]
            }
            (Open::Day(Day::On(a)), Open::Edge(b)) => {
                let year = b.0.in_year(a.year()).or(b.0.in_year(a.year() + 1)).unwrap_or(b.0);
                vec![(a, edge_day(*year.candidates(now).last()?, b.1)?)]
            }
            (Open::Day(Day::Yearly(a)), Open::Edge(b)) => {
                edges((Days::Yearly(Rule::Lasting(a, 1)), Edge::Start), b, now)?
            }
            (Open::Edge(a), Open::Day(Day::Yearly(b))) => {
                edges(a, (Days::Yearly(Rule::Lasting(b, 1)), Edge::Start), now)?
            }
            _ => return None,
        };
        let found: Vec<Range> = found.into_iter().filter(|(a, b)| a < b).collect();
        (!found.is_empty()).then(|| ranges(found))
    }

    fn end_of_range(&self, it: &Point) -> Option<Open> {
        Some(match it {
            Point::Now => Open::Day(Day::On(self.today())),
            Point::Day(day) => Open::Day(*day),
            Point::Days(period) => match (period.edge, period.days) {
                (Some((edge, base)), _) => match base {
                    Days::In(range) => Open::Day(Day::On(edge_day(range, edge)?)),
                    base @ Days::Yearly(_) => Open::Edge((base, edge)),
                },
                (None, Days::In(range)) => Open::Day(Day::On(range.0)),
                (None, Days::Yearly(rule)) => match first_day(rule) {
                    Some(feast) => Open::Day(Day::Yearly(feast)),
                    None => Open::Edge((period.days, Edge::Start)),
                },
            },
            Point::Clock(_) | Point::DayClock(..) => return None,
        })
    }

    /// A range with a time of day at either end.
    fn moments(&self, a: &Point, b: &Point) -> Option<Found> {
        let today = self.today();
        let at =
            |day: Date, clock: Clock| clock.candidates().into_iter().map(|it| day.to_datetime(it)).collect::<Vec<_>>();
        let all = |it: &Point, beside: Option<Date>| -> Vec<DateTime> {
            match it {
                Point::Now => vec![self.now],
                Point::Clock(clock) => at(beside.unwrap_or(today), *clock),
                Point::DayClock(day, clock) => {
                    day.candidates(self.now).into_iter().flat_map(|day| at(day, *clock)).collect()
                }
                Point::Day(day) => {
                    day.candidates(self.now).into_iter().map(|it| it.to_datetime(Time::midnight())).collect()
                }
                Point::Days(_) => Vec::new(),
            }
        };
        let day_of = |it: &Point| match it {
            Point::DayClock(day, _) | Point::Day(day) => day.candidates(self.now).last().copied(),
            _ => None,
        };
        let starts = all(
            a,
            day_of(b).filter(|_| matches!(b, Point::DayClock(..))).map(|it| {
                if matches!(a, Point::Clock(_)) && !matches!(b, Point::DayClock(Day::On(_), _)) { it } else { today }
            }),
        );
        let ends = all(b, day_of(a));
        let (from, mut to) = (*starts.first()?, None);
        let nearest = |from: DateTime| ends.iter().copied().filter(|it| *it > from).min();
        if let Point::Clock(clock) = a
            && !clock.certain
            && matches!(b, Point::Now)
        {
            let from = starts.iter().copied().filter(|it| *it < self.now).max()?;
            return Some(moment_range(vec![(from, self.now)]));
        }
        if let Point::DayClock(_, clock) = a
            && !clock.certain
            && matches!(b, Point::Clock(_))
        {
            let found: Vec<_> = starts.iter().filter_map(|from| Some((*from, nearest(*from)?))).collect();
            return (!found.is_empty()).then(|| moment_range(found));
        }
        to = to.or_else(|| nearest(from));
        Some(moment_range(vec![(from, to?)]))
    }

    /// What comes round: "every other Friday", "daily", "Tuesdays at 9am".
    fn set(&self, at: usize) -> Read<Found> {
        let t = self.t;
        let found = |code: String| Found { kind: Kind::Recurrence, values: vec![Value::Recurrence(code)] };
        let at_time = |next: usize| -> Option<(Clock, usize)> {
            let lead = usize::from(t.any(next, "at around @"));
            let (it, end) = clock::clock(t, next + lead, lead > 0)?;
            (lead > 0 || it.shape == Shape::Firm).then_some((it, end))
        };
        let time_code = |it: Clock| {
            if it.time.minute() == 0 {
                format!("T{:02}", it.time.hour())
            } else {
                format!("T{:02}:{:02}", it.time.hour(), it.time.minute())
            }
        };
        // "3pm every day"
        if let Some((it, next)) = clock::clock(t, at, false).filter(|it| t.any(it.1, "every each daily everyday"))
            && let Some(end) = ["every day", "each day", "daily", "everyday"].iter().find_map(|it| t.phrase(next, it))
        {
            return Some((found(time_code(it)), end));
        }
        let adverb = match t.word(at) {
            "daily" => "P1D",
            "everyday" => "P1D",
            "nightly" => "P1D",
            "weekly" => "P1W",
            "biweekly" | "fortnightly" => "P2W",
            "monthly" => "P1M",
            "bimonthly" => "P2M",
            "quarterly" => "P3M",
            "yearly" | "annually" | "annual" => "P1Y",
            "biannual" | "biannually" | "semiannual" | "semiannually" => "P0.5Y",
            "hourly" => "PT1H",
            _ => "",
        };
        if !adverb.is_empty() {
            if let Some((it, end)) = at_time(at + 1).filter(|_| adverb == "P1D") {
                return Some((found(time_code(it)), end));
            }
            return Some((found(adverb.to_owned()), at + 1));
        }
        if t.any(at, "bi semi") && t.is(at + 1, "-") {
            let code = match (t.word(at), t.word(at + 2)) {
                ("bi", "weekly") => "P2W",
                ("bi", "monthly") => "P2M",
                ("bi" | "semi", "annual" | "annually" | "yearly") => "P0.5Y",
                ("semi", "monthly") => "P0.5M",
                _ => return None,
            };
            return Some((found(code.to_owned()), at + 3));
        }
        // "once a week"
        if t.any(at, "once twice") && t.any(at + 1, "a per every an") {
            let unit = words::unit(t.word(at + 2))?;
            return Some((found(format!("P{}", unit_code(1, unit)?)), at + 3));
        }
        // "Tuesdays at 9am", "Friday mornings", "weekends", "mornings"
        let plural = words::weekdays(t.word(at));
        let weekday = plural.or_else(|| words::weekday(t.word(at)));
        if let Some(weekday) = weekday {
            let code = format!("XXXX-WXX-{}", weekday.to_monday_one_offset());
            let part = clock::daypart_word(t.word(at + 1));
            if let Some(part) = part.filter(|_| plural.is_some() || t.word(at + 1).ends_with('s')) {
                return Some((found(format!("{code}T{}", part.code())), at + 2));
            }
            plural?;
            if let Some((it, end)) = at_time(at + 1) {
                return Some((found(format!("{code}{}", time_code(it))), end));
            }
            return Some((found(code), at + 1));
        }
        if t.word(at) == "weekends" {
            return Some((found("P1WE".to_owned()), at + 1));
        }
        if t.any(at, "mornings afternoons evenings nights") {
            let part = clock::daypart_word(t.word(at))?;
            let counted = at > 0 && (!t.digits(at - 1).is_empty() || number::unit(t.word(at - 1)).is_some());
            return (!counted).then(|| (found(format!("T{}", part.code())), at + 1));
        }
        if !t.any(at, "every each") && t.phrase(at, "any weekend").is_none() {
            return None;
        }
        let other = t.any(at + 1, "other second alternate");
        let next = at + 1 + usize::from(other);
        if let Some(weekday) = words::weekday(t.word(next)) {
            let code = format!("XXXX-WXX-{}", weekday.to_monday_one_offset());
            if let Some(part) = clock::daypart_word(t.word(next + 1)) {
                return Some((found(format!("{code}T{}", part.code())), next + 2));
            }
            return Some(match at_time(next + 1) {
                Some((it, end)) => (found(format!("{code}{}", time_code(it))), end),
                None => (found(code), next + 1),
            });
        }
        if let Some(part) = clock::daypart_word(t.word(next)) {
            return Some(match at_time(next + 1) {
                Some((it, end)) => (found(time_code(it.within(part))), end),
                None => (found(format!("T{}", part.code())), next + 1),
            });
        }
        if let Some((feast, end)) = words::feast(t, next) {
            let Feast::Fixed(month, day) = feast else { return Some((found("P1Y".to_owned()), end)) };
            return Some((found(format!("XXXX-{month:02}-{day:02}")), end));
        }
        if let Some((month, end)) = self.month(next).filter(|it| t.word(it.1 - 1) != "may" || self.t.len() == it.1) {
            return Some((found(format!("XXXX-{month:02}")), end));
        }
        let (count, unit_at) = number::count(t, next).unwrap_or((1, next));
        let unit = words::unit(t.word(unit_at))?;
        if unit == Unit::Second && unit_at == next {
            return None;
        }
        let count = if other { 2 } else { count };
        let code = format!("P{}", unit_code(count, unit)?);
        if let Some((it, end)) = at_time(unit_at + 1).filter(|_| count == 1) {
            match unit {
                Unit::Day => return Some((found(time_code(it)), end)),
                Unit::Workday => return Some((found(format!("{code}{}", time_code(it))), end)),
                _ => {}
            }
        }
        Some((found(code), unit_at + 1))
    }
}

/// An end of a range of days whose year may be open.
#[derive(Debug, Clone, Copy)]
enum Open {
    Day(Day),
    Edge((Days, Edge)),
}

fn edges(a: (Days, Edge), b: (Days, Edge), now: DateTime) -> Option<Vec<Range>> {
    let all = a.0.candidates(now).into_iter().filter_map(|range| {
        let from = edge_day(range, a.1)?;
        let year = from.year();
        let to = (0..2).find_map(|on| {
            let days = b.0.in_year(year.checked_add(on)?).or(Some(b.0))?;
            let Days::In(range) = days else { return None };
            edge_day(range, b.1).filter(|to| *to > from)
        })?;
        Some((from, to))
    });
    let all: Vec<Range> = all.collect();
    (!all.is_empty()).then_some(all)
}

/// The first such day after another.
fn first_after(it: Day, after: Date) -> Option<Date> {
    match it {
        Day::On(it) => Some(it),
        Day::Weekly(weekday) => super::calendar::weekday_after(after, weekday),
        Day::Monthly(_) | Day::WeeklyMonthly(..) => {
            let from = add_days(after, 1)?.to_datetime(Time::midnight());
            it.candidates(from).last().copied()
        }
        Day::Yearly(_) | Day::InWeek { .. } => (0..2).find_map(|on| match it.in_year(after.year().checked_add(on)?) {
            Some(Day::On(day)) if day > after => Some(day),
            _ => None,
        }),
        Day::Short(..) => it.candidates(after.to_datetime(Time::midnight())).last().copied(),
        Day::Never => None,
    }
}

/// The last such day before another.
fn last_before(it: Day, before: Date, now: DateTime) -> Option<Date> {
    match it {
        Day::On(it) => Some(it),
        Day::Yearly(_) | Day::InWeek { .. } => {
            (0..2).find_map(|back| match it.in_year(before.year().checked_sub(back)?) {
                Some(Day::On(day)) if day < before => Some(day),
                _ => None,
            })
        }
        Day::Weekly(_) | Day::Monthly(_) | Day::WeeklyMonthly(..) => {
            it.candidates(before.to_datetime(Time::midnight())).first().copied()
        }
        Day::Short(..) | Day::Never => it.candidates(now).first().copied(),
    }
}

/// A reading of nothing that exists is told as such.
fn known(values: Vec<Value>) -> Vec<Value> {
    if values.is_empty() { vec![Value::Unknown(String::new())] } else { values }
}

fn open_days(days: Vec<(Option<Date>, Option<Date>)>) -> Found {
    let values = days.into_iter().map(|(from, to)| Value::Dates(from, to)).collect();
    Found { kind: Kind::DateRange, values: known(values) }
}

fn ranges(days: Vec<Range>) -> Found {
    open_days(days.into_iter().map(|(from, to)| (Some(from), Some(to))).collect())
}

fn moment_range(all: Vec<(DateTime, DateTime)>) -> Found {
    let values = all.into_iter().map(|(from, to)| Value::Moments(Some(from), Some(to))).collect();
    Found { kind: Kind::DateTimeRange, values }
}

fn hours(part: Daypart) -> Bit {
    let (from, to) = part.hours();
    Bit::Between(vec![(Some(from), Some(to))])
}

/// From a time on, for so long.
fn lasting(from: Clock, seconds: i64) -> Option<Bit> {
    let day = Date::constant(2000, 1, 1).to_datetime(from.time);
    let end = super::calendar::add_seconds(day, seconds)?;
    Some(Bit::Between(vec![(Some(from.time), Some(end.time()))]))
}

/// The two clocks of a range, as they were said.
fn t_range(reader: &Reader<'_>, at: usize) -> Option<(Clock, Clock)> {
    let t = reader.t;
    let from = at + usize::from(t.any(at, "from between at"));
    let (a, next) = clock::clock(t, from, true)?;
    let (b, _) = clock::clock(t, next + 1, true)?;
    Some((a, b))
}

/// A range of times in a part of the day that was told.
fn times_within((a, b): (Clock, Clock), part: Daypart) -> Option<Vec<(Option<Time>, Option<Time>)>> {
    if a.certain || b.certain {
        return None;
    }
    let start = a.within(part).time;
    let same = b.within(part).time;
    let end = if same > start { same } else { b.candidates().into_iter().find(|it| *it > start).unwrap_or(same) };
    Some(vec![(Some(start), Some(end))])
}

/// The readings of two times as a range: "am" or "pm" told at one end goes for the other where the order allows.
fn pair(a: Clock, b: Clock) -> Vec<(Option<Time>, Option<Time>)> {
    let noon = Time::constant(12, 0, 0, 0);
    let one = |from: Time, to: Time| vec![(Some(from), Some(to))];
    match (a.certain, b.certain) {
        (true, true) => {
            // "10am-12am": who says so means noon.
            let to =
                if b.time == Time::midnight() && a.time < noon && a.time > Time::midnight() { noon } else { b.time };
            one(a.time, to)
        }
        (false, true) => {
            let (am, pm) = (a.am().time, a.pm().time);
            let from = if b.time >= noon {
                if pm < b.time { pm } else { am }
            } else if am < b.time {
                am
            } else {
                pm
            };
            one(from, b.time)
        }
        (true, false) => {
            let to = b.candidates().into_iter().filter(|it| *it > a.time).min().unwrap_or_else(|| b.am().time);
            one(a.time, to)
        }
        (false, false) => {
            let (am, pm) = (a.am().time, a.pm().time);
            let first = if b.am().time > am { b.am().time } else { b.pm().time };
            let second = if b.pm().time > pm { b.pm().time } else { b.am().time };
            vec![(Some(am), Some(first)), (Some(pm), Some(second))]
        }
    }
}

/// How a recurrence counts that many of a unit.
fn unit_code(count: i64, unit: Unit) -> Option<String> {
    Some(match unit {
        Unit::Second => format!("T{count}S"),
        Unit::Minute => format!("T{count}M"),
        Unit::Hour => format!("T{count}H"),
        Unit::Day | Unit::Night => format!("{count}D"),
        Unit::Workday => format!("{count}WD"),
        Unit::Weekend => format!("{count}WE"),
        Unit::Week => format!("{count}W"),
        Unit::Fortnight => format!("{}W", count.checked_mul(2)?),
        Unit::Month => format!("{count}M"),
        Unit::Quarter => format!("{}M", count.checked_mul(3)?),
        Unit::Year => format!("{count}Y"),
        Unit::Decade => format!("{}Y", count.checked_mul(10)?),
        Unit::Century => format!("{}Y", count.checked_mul(100)?),
    })
}

/// The stretch of days something is due in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretched {
    pub(crate) range: Range,
    /// Which of its days is meant, where the words tell: "the end of", "early".
    pub(crate) edge: Option<Edge>,
    /// Before it, not in it.
    pub(crate) before: bool,
}

impl Stretched {
    pub(crate) fn week(&self) -> bool {
        self.range.0.duration_until(self.range.1).as_hours() / 24 <= 7
    }
}

impl Reader<'_> {
    /// "next week", "by the end of the month", "before June", "early next week": the first one that is not over.
    pub(crate) fn due_stretch(&self, at: usize) -> Read<Stretched> {
        let t = self.t;
        if t.word(at) == "within" {
            return None;
        }
        let of = t.phrase(at, "beginning of").is_some();
        let (side, next) = self.side(at).filter(|_| !of).map_or((None, at), |(side, next)| (Some(side), next));
        if matches!(side, Some(Side::After | Side::Since)) {
            return None;
        }
        let before = side.is_some() && t.any(next - 1, "before to");
        let the = next + usize::from(side.is_some() && t.word(next) == "the" && self.period(next).is_none());
        let (period, end) = self.period(the)?;
        // A day there is longer: "Wednesday next week".
        if self.day(the).is_some_and(|it| it.1 >= end) {
            return None;
        }
        let month = matches!(period.days, Days::Yearly(Rule::Month(_))) && side.is_some();
        let edge = period.edge.map(|it| it.0).or(month.then_some(Edge::Start)).or_else(|| match t.word(the) {
            "early" | "earlier" => Some(Edge::Start),
            "mid" => Some(Edge::Middle),
            _ => None,
        });
        let days = period.edge.map_or(period.days, |it| it.1);
        let range = days.candidates(self.now).into_iter().find(|it| it.1 > self.today())?;
        Some((Stretched { range, edge, before: before && edge != Some(Edge::End) }, end))
    }

    /// What only the search for a due date takes for one: "end of the quarter", "due the fifteenth".
    pub(crate) fn loose_when(&self, at: usize) -> Read<Found> {
        let t = self.t;
        let led = at > 0 && (t.any(at - 1, "due by before until on for"));
        if !led {
            return None;
        }
        let the = at + usize::from(t.word(at) == "the");
        let ((day, told), end) = self.day_number(the)?;
        let plain = self.ends(end) || words::unit(t.word(end)).is_none() && t.get(end).is_none();
        (told && plain).then(|| (self.day_found(Day::Monthly(day)), end))
    }
}
