//! Stretches of days: "next week", "mid November", "the first two weeks of 2021", "Q3".

use jiff::civil::{Date, DateTime};

use super::calendar::Day;
use super::calendar::{
    self, Days, Feast, Nth, Part, Range, Rule, add_days, add_months, date, iso_week, month_range, nth_week,
    quarter_range, week_range, year_range,
};
use super::day::{Read, Reader, longer, part_of};
use super::number;
use super::span;
use super::words::{self, Turn, Unit};

/// A stretch of time as the words tell it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stretch {
    Days(Period),
    Moments(DateTime, DateTime),
    /// A stretch whose days depend on who says it: a season, a fiscal year.
    Vague(String),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Period {
    pub(crate) days: Days,
    /// "the end of", "the middle of": what of the whole is meant when something reaches to there.
    pub(crate) edge: Option<(Edge, Days)>,
    /// Told by the number of its year.
    pub(crate) by_number: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    Start,
    Middle,
    End,
}

impl Period {
    fn of(days: Days) -> Self {
        Self { days, edge: None, by_number: false }
    }

    fn range(range: Range) -> Self {
        Self::of(Days::In(range))
    }
}

impl Reader<'_> {
    /// Any stretch of days.
    pub(crate) fn stretch(&self, at: usize) -> Read<Stretch> {
        let days = self.period(at).map(|(it, end)| (Stretch::Days(it), end));
        longer(days, longer(self.vague(at), self.coming_moments(at)))
    }

    pub(crate) fn period(&self, at: usize) -> Read<Period> {
        let mut best = self.named_period(at).map(|(it, _, end)| (it, end));
        for it in
            [self.part(at), self.counted(at), self.nth_of(at), self.week_of(at), self.lasting(at), self.until_today(at)]
        {
            best = longer(best, it);
        }
        best
    }

    /// A whole period by name, with its unit: a year, a month, "this quarter", "week 31".
    fn named_period(&self, at: usize) -> Option<(Period, Unit, usize)> {
        let t = self.t;
        let mut best: Option<(Period, Unit, usize)> = None;
        let mut take = |it: Option<(Period, Unit, usize)>| {
            if let Some(it) = it
                && best.is_none_or(|best| it.2 > best.2)
            {
                best = Some(it);
            }
        };
        take(self.lone_year(at));
        take(self.month_period(at));
        take(self.turned_unit(at));
        take(self.quarter(at));
        take(self.decade(at));
        // "week 31"
        if t.word(at) == "week" {
            let from = at + 1 + usize::from(t.any(at + 1, "number no"));
            let week = if t.digits(from).is_empty() { None } else { number::count(t, from) };
            if let Some((week, next)) = week.filter(|it| (1..=53).contains(&it.0) && !t.is(it.1, ":")) {
                let (year, end) = self.year_after(next).unwrap_or((self.now.year(), next));
                take(
                    i8::try_from(week)
                        .ok()
                        .and_then(|it| iso_week(year, it))
                        .map(|it| (Period::range(it), Unit::Week, end)),
                );
            }
        }
        best
    }

    /// A year that stands alone.
    fn lone_year(&self, at: usize) -> Option<(Period, Unit, usize)> {
        let t = self.t;
        let called = t.word(at) == "year" || t.word(at) == "cy";
        let from = at + usize::from(called);
        let digits = t.digits(from);
        if called && digits.len() == 2 && t.glued(from) {
            let year: i16 = digits.parse().ok()?;
            return Some((Period { by_number: true, ..Period::range(year_range(2000 + year)?) }, Unit::Year, from + 1));
        }
        let (year, next) = self.year(from)?;
        if !(1500..=2199).contains(&year) {
            return None;
        }
        if digits.is_empty() {
            let before = from.checked_sub(1).map_or("", |it| t.word(it));
            let led = matches!(
                before,
                "in" | "since"
                    | "of"
                    | "year"
                    | "by"
                    | "before"
                    | "after"
                    | "until"
                    | "till"
                    | "from"
                    | "between"
                    | "during"
                    | "for"
                    | "to"
                    | "and"
                    | "than"
                    | "late"
                    | "early"
                    | "mid"
                    | "through"
                    | "back"
                    | "on"
            );
            let thing = words::unit(t.word(next)).is_some()
                || t.any(next, "percent dollars euros pounds people million hundred thousand");
            if !led
                || thing
                || t.word(from) == "twenty" && t.word(from + 1) == "twenty" && next == from + 2 && before == "the"
            {
                return None;
            }
        } else {
            let goes_on = t.is_any(next, &["-", "/", ".", ":", ","]) && t.glued(next) && t.glued(next + 1) && {
                let digits = t.digits(next + 1);
                let ranged = t.is(next, "-") && digits.len() == 4 && self.year(next + 1).is_some();
                !digits.is_empty() && !ranged
            };
            let money = from > 0
                && t.is_any(from - 1, &["$", "€", "£", "¥", "#", "+", "="])
                && !t.is(from.wrapping_sub(2), "<");
            let unit = t.is(next, "%")
                || t.any(
                    next,
                    "percent dollars euros pounds people million hours days minutes yen units sales miles feet",
                ) && t.word(next) != "sales";
            if goes_on || unit || self.tail_of_number(from) || money && !t.is(from - 1, "=") {
                return None;
            }
        }
        Some((Period { by_number: true, ..Period::range(year_range(year)?) }, Unit::Year, next))
    }

    /// "May 2019", "april in 2016", "2017 april", "2015-3", "this September", "the month of May".
    fn month_period(&self, at: usize) -> Option<(Period, Unit, usize)> {
        let t = self.t;
        let in_year =
            |year: i16, month: i8, end: usize| Some((Period::range(month_range(year, month)?), Unit::Month, end));
        let digits = t.digits(at);
        if digits.len() == 4 && !self.tail_of_number(at) {
            let (year, next) = self.year(at)?;
            let sep = t.is_any(next, &["-", "/", ","]);
            let from = next + usize::from(sep);
            if let Some((month, end)) = self.month(from) {
                return in_year(year, month, end);
            }
            let month: i8 = (sep && t.glued(next) && t.glued(from) && t.digits(from).len() <= 2)
                .then(|| t.digits(from).parse().ok())??;
            let goes_on = t.is_any(from + 1, &["-", "/", "."]) && t.glued(from + 1) && !t.digits(from + 2).is_empty();
            return (!goes_on && (1..=12).contains(&month)).then(|| in_year(year, month, from + 1))?;
        }
        // "09/2018"
        if matches!(digits.len(), 1 | 2)
            && !self.tail_of_number(at)
            && t.is_any(at + 1, &["/", "-"])
            && t.glued(at + 1)
            && t.glued(at + 2)
        {
            let month = digits.parse().ok().filter(|it| (1..=12).contains(it))?;
            let (year, end) =
                Reader { joined: at + 2, ..*self }.year(at + 2).filter(|it| (1900..2200).contains(&it.0))?;
            let goes_on = t.is_any(end, &["-", "/", "."]) && t.glued(end) && !t.digits(end + 1).is_empty();
            return (!goes_on && !t.digits(at + 2).is_empty()).then(|| in_year(year, month, end))?;
        }
        if let Some((turn, next)) = words::turn(t, at)
            && let Some((month, end)) = self.month(next)
        {
            // "this may be": the verb.
            let ends = end == t.len() || t.is_any(end, &[".", ",", "?"]) || t.any(end, "to through until and or");
            if t.word(next) == "may" && t.word(at) == "this" && !ends {
                return None;
            }
            if self.day_number(end).is_some_and(|it| it.0.1) {
                return None;
            }
            let year = self.now.year();
            let now = self.now.month();
            let year = match turn {
                Turn::Coming => year + i16::from(month <= now),
                Turn::Past => year - i16::from(month >= now),
                _ => year.checked_add(i16::try_from(turn.steps()).ok()?)?,
            };
            return in_year(year, month, end);
        }
        let (month, next) = match t.phrase(at, "month of") {
            Some(from) => self.month(from)?,
            None => self.month(at)?,
        };
        if let Some((year, end)) = self.year_after(next).or_else(|| {
            let dotted = t.is(next, ".") && t.glued(next);
            self.year(next + 1).filter(|_| dotted)
        }) {
            return in_year(year, month, end);
        }
        // "june of next year"
        let of = next + usize::from(t.any(next, "of in"));
        for (words, steps) in [("next year", 1), ("this year", 0), ("last year", -1)] {
            if let Some(end) = t.phrase(of, words) {
                return in_year(self.now.year().checked_add(steps)?, month, end);
            }
        }
        if t.phrase(at, "month of").is_none() {
            self.lone_month(at)?;
        }
        Some((Period::of(Days::Yearly(Rule::Month(month))), Unit::Month, next))
    }

    /// "this week", "the last quarter", "next weekend", "the month", "the past fortnight".
    fn turned_unit(&self, at: usize) -> Option<(Period, Unit, usize)> {
        let t = self.t;
        let the = t.word(at) == "the";
        // "the week after next"
        let from = at + usize::from(the);
        if let Some(unit) =
            words::unit(t.word(from)).filter(|it| matches!(it, Unit::Week | Unit::Weekend | Unit::Month | Unit::Year))
        {
            for (words, steps) in [("after next", 2), ("before last", -2)] {
                if let Some(end) = t.phrase(from + 1, words) {
                    return Some((Period::range(self.unit_from_here(unit, steps)?), unit, end));
                }
            }
        }
        // The article is part of a decade's name only.
        if the
            && let Some((turn, next)) = words::turn(t, at + 1)
            && t.any(next, "decade century")
        {
            let unit = words::unit(t.word(next))?;
            return Some((Period::range(self.unit_from_here(unit, turn.steps())?), unit, next + 1));
        }
        let (turn, next) = match words::turn(t, at) {
            Some(it) => it,
            None if the => (Turn::This, at + 1),
            None => return None,
        };
        let work = t.any(next, "working work business") && t.word(next + 1) == "week" || t.word(next) == "workweek";
        let calendar = t.word(next) == "calendar";
        let unit_at = next + usize::from(work && t.word(next) != "workweek") + usize::from(calendar);
        let unit = if t.word(next) == "workweek" { Unit::Week } else { words::unit(t.word(unit_at))? };
        let end = unit_at + 1;
        if t.word(unit_at).ends_with('s') && t.word(unit_at) != "s" {
            return None;
        }
        if the {
            // Seldom said of now: "the second", "the quarter of", "the week of May 5th".
            let known =
                matches!(unit, Unit::Week | Unit::Month | Unit::Year | Unit::Quarter | Unit::Weekend | Unit::Fortnight);
            let of = t.any(end, "of starting commencing beginning that when i we he she they you");
            let numbered = !t.digits(end).is_empty();
            if !known || of || numbered || t.phrase(end, "to date").is_some() {
                return None;
            }
        }
        // The coming weekend is this week's until it has begun.
        let ahead = turn == Turn::Coming && unit == Unit::Weekend && self.today().weekday().to_monday_zero_offset() < 5;
        let range = self.unit_from_here(unit, if ahead { 0 } else { turn.steps() })?;
        let range = if work { (range.0, add_days(range.0, 5)?) } else { range };
        Some((Period::range(range), unit, end))
    }

    /// The period of that unit, `steps` from the one that holds now.
    pub(crate) fn unit_from_here(&self, unit: Unit, steps: i64) -> Option<Range> {
        let today = self.today();
        match unit {
            Unit::Week => week_range(today, steps),
            Unit::Weekend => {
                let (from, _) = week_range(today, steps)?;
                Some((add_days(from, 5)?, add_days(from, 7)?))
            }
            Unit::Fortnight => {
                let (from, _) = week_range(today, steps * 2)?;
                Some((from, add_days(from, 14)?))
            }
            Unit::Month => {
                let first = add_months(today.first_of_month(), steps)?;
                Some((first, add_months(first, 1)?))
            }
            Unit::Quarter => {
                let (from, _) = quarter_range(today.year(), (today.month() - 1) / 3 + 1)?;
                let from = add_months(from, steps * 3)?;
                Some((from, add_months(from, 3)?))
            }
            Unit::Year => year_range(today.year().checked_add(i16::try_from(steps).ok()?)?),
            Unit::Decade | Unit::Century => {
                let years: i16 = if unit == Unit::Decade { 10 } else { 100 };
                let from = (today.year() / years).checked_add(i16::try_from(steps).ok()?)?.checked_mul(years)?;
                Some((date(from, 1, 1)?, date(from.checked_add(years)?, 1, 1)?))
            }
            _ => None,
        }
    }

    /// "q1 of 2017", "2019 H2", "Q3", "first quarter of next year".
    fn quarter(&self, at: usize) -> Option<(Period, Unit, usize)> {
        let t = self.t;
        let code = |at: usize| -> Option<(Rule, usize)> {
            let number: i8 =
                t.digits(at + 1).parse().ok().filter(|_| t.glued(at + 1) && t.digits(at + 1).len() == 1)?;
            match t.word(at) {
                "q" if (1..=4).contains(&number) => Some((Rule::Quarter(number), at + 2)),
                "h" if (1..=2).contains(&number) => Some((Rule::Half(number), at + 2)),
                _ => None,
            }
        };
        let code = |at: usize| {
            code(at).or_else(|| {
                let (number, end) = number::count(t, at + 1).filter(|_| t.word(at) == "quarter")?;
                Some((Rule::Quarter(i8::try_from(number).ok().filter(|it| (1..=4).contains(it))?), end))
            })
        };
        let spoken = |at: usize| -> Option<(Rule, usize)> {
            let at = at + usize::from(t.word(at) == "the");
            let (nth, next) = self.nth(at)?;
            let number = |most: i8| match nth {
                Nth::At(it) if it <= most => Some(it),
                Nth::At(_) => None,
                Nth::Last => Some(most),
            };
            match t.word(next) {
                "quarter" if nth != Nth::Last || t.word(next + 1) == "of" => {
                    Some((Rule::Quarter(number(4)?), next + 1))
                }
                "half" if t.word(next + 1) == "of" => Some((Rule::Half(number(2)?), next + 1)),
                _ => None,
            }
        };
        if let Some((year, next)) = self.year(at) {
            let next = next + usize::from(t.is_any(next, &["-", "/", ","]));
            let (rule, end) = code(next).or_else(|| spoken(next))?;
            return Some((Period::range(rule.in_year(year)?), Unit::Quarter, end));
        }
        let called = code(at);
        let (rule, next) = called.or_else(|| spoken(at))?;
        if let Some((year, end)) = self.year_after(next) {
            return Some((Period::range(rule.in_year(year)?), Unit::Quarter, end));
        }
        let of = next + usize::from(t.any(next, "of in"));
        if let Some(end) = t.phrase(of, "the year") {
            return Some((Period::of(Days::Yearly(rule)), Unit::Quarter, end));
        }
        if let Some((turn, unit)) = words::turn(t, of)
            && t.word(unit) == "year"
        {
            let year = self.now.year().checked_add(i16::try_from(turn.steps()).ok()?)?;
            return Some((Period::range(rule.in_year(year)?), Unit::Quarter, unit + 1));
        }
        let spoken_turn = called.is_none() && t.any(at, "last final");
        (!spoken_turn && (called.is_some() || matches!(rule, Rule::Quarter(_)))).then_some((
            Period::of(Days::Yearly(rule)),
            Unit::Quarter,
            next,
        ))
    }

    /// "1990s", "the nineties", "15th century".
    fn decade(&self, at: usize) -> Option<(Period, Unit, usize)> {
        let t = self.t;
        let years = |from: i16, count: i16| Some(Period::range((date(from, 1, 1)?, date(from + count, 1, 1)?)));
        let digits = t.digits(at);
        if digits.len() == 4 {
            let next = at + 1 + usize::from(t.apostrophe(at + 1));
            let year: i16 = digits.parse().ok().filter(|it| it % 10 == 0 && (1000..2200).contains(it))?;
            return (t.word(next) == "s").then(|| Some((years(year, 10)?, Unit::Decade, next + 1)))?;
        }
        let next = at + 1 + usize::from(t.apostrophe(at + 1));
        if digits.len() == 2 && digits.ends_with('0') && t.glued(next) && t.word(next) == "s" {
            let year: i16 = digits.parse().ok()?;
            return Some((years(if year < 30 { 2000 } else { 1900 } + year, 10)?, Unit::Decade, next + 1));
        }
        let century = number::teen(t.word(at)).filter(|it| *it >= 15).unwrap_or(0);
        let tens_at = at + usize::from(century > 0) + usize::from(century > 0 && t.is(at + 1, "-"));
        let century = i16::try_from(if century > 0 { century } else { 19 }).ok()?;
        let decade = match t.word(tens_at) {
            "twenties" => 20,
            "thirties" => 30,
            "forties" => 40,
            "fifties" => 50,
            "sixties" => 60,
            "seventies" => 70,
            "eighties" => 80,
            "nineties" => 90,
            _ => 0,
        };
        if decade > 0 {
            return Some((years(century * 100 + decade, 10)?, Unit::Decade, tens_at + 1));
        }
        let (nth, next) = number::ordinal(t, at)?;
        if t.word(next) == "century" && (1..=22).contains(&nth) {
            let from = i16::try_from(nth - 1).ok()? * 100;
            let from_date = date(from.max(1), 1, 1)?;
            let it = if from == 0 { Period::range((from_date, date(100, 1, 1)?)) } else { years(from, 100)? };
            return Some((it, Unit::Century, next + 1));
        }
        None
    }

    /// "mid-November", "end of the month", "later this week", "early 2000", "the beginning of next year".
    fn part(&self, at: usize) -> Read<Period> {
        let t = self.t;
        let word = t.word(at);
        let (part, edge, mut next) = match word {
            "early" | "earlier" => (Part::Early, None, at + 1),
            "mid" => (Part::Mid, None, at + 1 + usize::from(t.is(at + 1, "-"))),
            "late" | "later" => (Part::Late, None, at + 1),
            "end" | "close" => (Part::Late, Some(Edge::End), at + 1),
            "middle" => (Part::Mid, Some(Edge::Middle), at + 1),
            "beginning" | "start" => (Part::Early, Some(Edge::Start), at + 1),
            "eom" | "eoy" | "eow" | "eoq" => {
                let unit = match word {
                    "eom" => Unit::Month,
                    "eow" => Unit::Week,
                    "eoq" => Unit::Quarter,
                    _ => Unit::Year,
                };
                let base = Days::In(self.unit_from_here(unit, 0)?);
                let days = part_of(base, Part::Late, unit, false).unwrap_or(base);
                return Some((Period { days, edge: Some((Edge::End, base)), by_number: false }, at + 1));
            }
            _ => return None,
        };
        if edge.is_some() {
            if t.word(next) != "of" {
                return None;
            }
            next += 1;
        } else if t.any(next, "in on") || t.is(next, "-") && t.glued(next) {
            next += 1;
        }
        let plain = || {
            // "end of month"
            let unit = words::unit(t.word(next))?;
            let known = matches!(unit, Unit::Week | Unit::Month | Unit::Year | Unit::Quarter);
            let short = edge.is_some() && !t.word(next).ends_with('s');
            (known && short).then(|| Some((Period::range(self.unit_from_here(unit, 0)?), unit, next + 1)))?
        };
        let next_the = next + usize::from(t.word(next) == "the" && self.named_period(next).is_none());
        let (base, unit, end) = self.named_period(next).or_else(plain).or_else(|| self.named_period(next_the))?;
        let days = part_of(base.days, part, unit, base.by_number);
        let days = match days {
            Some(it) => it,
            None if edge.is_some() => match base.days {
                Days::In(range) => Days::In(third(range, part)?),
                Days::Yearly(_) => return None,
            },
            None => return None,
        };
        Some((Period { days, edge: edge.map(|it| (it, base.days)), by_number: base.by_number }, end))
    }

    /// "next 3 days", "past two quarters", "5 upcoming years", "within 9 months", "the last 2 weeks".
    fn counted(&self, at: usize) -> Read<Period> {
        let t = self.t;
        let within = t.word(at) == "within";
        let from = at + usize::from(within);
        let the =
            t.word(from) == "the" && (within || self.turned_count(from + 1).is_some_and(|it| it.2 == Unit::Decade));
        let from = from + usize::from(the);
        let (turn, it, unit, count, end) = self.turned_count(from).or_else(|| {
            let (it, end) = self.duration_words(from).filter(|_| within)?;
            Some((Turn::Next, it, Unit::Day, 1, end))
        })?;
        if !it.in_days() {
            return None;
        }
        let today = self.today();
        if !within && matches!(unit, Unit::Quarter | Unit::Decade | Unit::Century | Unit::Fortnight) {
            // Those are counted whole.
            let range = if turn.steps() > 0 {
                let first = self.unit_from_here(unit, i64::from(unit != Unit::Decade || count == 1))?;
                let last = self.unit_from_here(unit, count)?;
                (if unit == Unit::Decade { self.unit_from_here(unit, 1)?.0 } else { first.0 }, last.1)
            } else {
                (self.unit_from_here(unit, -count)?.0, self.unit_from_here(unit, 0)?.0)
            };
            return Some((Period::range(range), end));
        }
        let range = if turn.steps() > 0 {
            let from = if within { today } else { add_days(today, 1)? };
            (from, it.from(from, 1)?)
        } else {
            (it.from(today, -1)?, today)
        };
        Some((Period::range(range), end))
    }

    /// "next 3 days", "3 next days".
    fn turned_count(&self, at: usize) -> Option<(Turn, span::Duration, Unit, i64, usize)> {
        let t = self.t;
        let last_unit = |end: usize| words::unit(t.word(end - 1));
        if let Some((turn, next)) = words::turn(t, at) {
            if turn == Turn::This {
                return None;
            }
            if t.any(next, "hour minute") {
                let unit = words::unit(t.word(next))?;
                return Some((turn, span::duration_of(1, unit)?.0, unit, 1, next + 1));
            }
            let (it, end) = self.duration_words(next)?;
            // "past a week" is no stretch.
            if t.any(next, "a an") && !t.any(next + 1, "few couple") {
                return None;
            }
            let count = number::count(t, next).map_or(if t.any(next, "couple a") { 2 } else { 3 }, |it| it.0);
            let end = self.ends_before_ago(next, end);
            let it = if self.t.any(end, "and") { span::one(t, next).map_or(it, |it| it.0) } else { it };
            return Some((turn, it, last_unit(end)?, count, end));
        }
        let (count, next) = number::count(t, at)?;
        let (turn, unit_at) = words::turn(t, next).filter(|it| it.0 != Turn::This)?;
        let unit = words::unit(t.word(unit_at)).filter(|_| count > 1 && t.word(unit_at).ends_with('s'))?;
        let (mut it, _) = span::duration_of(count, unit)?;
        it.vague = false;
        Some((turn, it, unit, count, unit_at + 1))
    }

    /// "the last 3 months and 2 days ago": the second number belongs to "ago".
    fn ends_before_ago(&self, from: usize, end: usize) -> usize {
        if !self.t.any(end, "ago later earlier") {
            return end;
        }
        let joint = (from..end).find(|it| self.t.word(*it) == "and");
        joint.unwrap_or(end)
    }

    /// "5 coming minutes", "the last 13 minutes", "within 2h".
    fn coming_moments(&self, at: usize) -> Read<Stretch> {
        let t = self.t;
        let within = t.word(at) == "within";
        let from = at + usize::from(within);
        let from = from + usize::from(within && t.word(from) == "the");
        let turned = self.turned_count(from).map(|(turn, it, _, _, end)| (turn, it, end));
        let (turn, it, end) = turned.or_else(|| {
            let (it, end) = self.duration_words(from).filter(|_| within)?;
            Some((Turn::Next, it, end))
        })?;
        if !it.clock || it.broken {
            return None;
        }
        let (from, to) = if turn.steps() > 0 {
            (self.now, it.after_moment(self.now, 1)?)
        } else {
            (it.after_moment(self.now, -1)?, self.now)
        };
        Some((Stretch::Moments(from, to), end))
    }

    /// "first week of Jan 2015", "third month of 2021", "the last 3 weeks of this year", "first ten days of last year".
    fn nth_of(&self, at: usize) -> Read<Period> {
        let t = self.t;
        let from = at + usize::from(t.word(at) == "the");
        let last = t.any(from, "last final");
        let (nth, next) = if last { (1, from + 1) } else { number::ordinal(t, from)? };
        let (count, unit_at) = match number::count(t, next) {
            Some((count, next)) if nth == 1 => (Some(count), next),
            _ => (None, next),
        };
        let unit = words::unit(t.word(unit_at))?;
        if !t.any(unit_at + 1, "of in") {
            return None;
        }
        let of = unit_at + 2;
        let (base, base_unit, end) = self.named_period(of)?;
        if let Some(count) = count.filter(|it| (1..=60).contains(it)) {
            let Days::In(range) = base.days else { return None };
            let range = match unit {
                Unit::Week if last => {
                    let last = nth_week(range, Nth::Last)?;
                    (add_days(last.0, -(count - 1) * 7)?, last.1)
                }
                Unit::Week => {
                    let first = nth_week(range, Nth::At(1))?;
                    (first.0, add_days(first.0, count * 7)?)
                }
                Unit::Day | Unit::Month => {
                    let (days, months) = if unit == Unit::Day { (count, 0) } else { (0, count) };
                    if last {
                        (add_days(add_months(range.1, -months)?, -days)?, range.1)
                    } else {
                        (range.0, add_days(add_months(range.0, months)?, days)?)
                    }
                }
                _ => return None,
            };
            return Some((Period::range(range), end));
        }
        let small = i8::try_from(nth).ok().filter(|it| (1..=53).contains(it))?;
        let nth = if last { Nth::Last } else { Nth::At(small) };
        let days = match (unit, base.days) {
            (Unit::Week, Days::In(range)) => Days::In(nth_week(range, nth)?),
            (Unit::Week, Days::Yearly(Rule::Month(month))) => Days::Yearly(Rule::WeekOfMonth(month, nth)),
            (Unit::Month, Days::In(range)) if base_unit == Unit::Year => {
                let month = if last { 12 } else { small };
                Days::In(month_range(range.0.year(), month).filter(|_| month <= 12)?)
            }
            (Unit::Weekend, Days::In(range)) => {
                let (monday, _) = nth_week(range, nth)?;
                Days::In((add_days(monday, 5)?, add_days(monday, 7)?))
            }
            _ => return None,
        };
        Some((Period::of(days), end))
    }

    /// "the week of April 10th", "w/c Feb 4", "the week starting on February 4", "weekend of halloween".
    fn week_of(&self, at: usize) -> Read<Period> {
        let t = self.t;
        let from = at + usize::from(t.word(at) == "the");
        let short = t.word(from) == "w" && t.is(from + 1, "/") && t.word(from + 2) == "c";
        let (weekend, next) = match t.word(from) {
            "week" => (false, from + 1),
            "weekend" => (true, from + 1),
            _ if short => (false, from + 3),
            _ => return None,
        };
        let next = if short {
            next
        } else {
            match t.word(next) {
                "of" => next + 1,
                "starting" | "commencing" | "beginning" => next + 1 + usize::from(t.word(next + 1) == "on"),
                _ => return None,
            }
        };
        let (day, end) = self.simple_day(next).or_else(|| {
            // "the week of the 12th"
            let the = next + usize::from(t.word(next) == "the");
            let ((day, told), end) = self.day_number(the)?;
            told.then_some((Day::Monthly(day), end))
        })?;
        let days = match day {
            Day::Yearly(feast) if weekend => Days::Yearly(Rule::WeekendOf(feast)),
            Day::Yearly(feast) => Days::Yearly(Rule::WeekOf(feast)),
            day => {
                let day = *day.candidates(self.now).last()?;
                Days::In(if weekend { calendar::weekend(day)? } else { week_range(day, 0)? })
            }
        };
        Some((Period::of(days), end))
    }

    /// "a week starting tomorrow", "2 weeks starting May 20th", "for 3 days, from today".
    fn lasting(&self, at: usize) -> Read<Period> {
        let t = self.t;
        let led = t.word(at) == "for";
        let (it, next) = self.duration_words(at + usize::from(led))?;
        if !it.in_days() || it.vague {
            return None;
        }
        let comma = usize::from(t.is(next, ","));
        let word = t.word(next + comma);
        let starts = matches!(word, "starting" | "beginning" | "commencing") && !led || (led && word == "from");
        if !starts {
            return None;
        }
        let from = next + comma + 1;
        let from = from + usize::from(t.any(from, "on from"));
        let (day, end) = self.simple_day(from)?;
        let day = match day {
            // What starts is of this year.
            Day::Yearly(feast) => feast.in_year(self.now.year())?,
            day => *day.candidates(self.now).last()?,
        };
        Some((Period::range((day, it.from(day, 1)?)), end))
    }

    /// "year to date", "rest of the week".
    fn until_today(&self, at: usize) -> Read<Period> {
        let t = self.t;
        let today = self.today();
        if let Some(end) = t.phrase(at, "year to date").or_else(|| t.phrase(at, "ytd")) {
            return Some((Period::range((today.first_of_year(), today)), end));
        }
        if let Some(end) = t.phrase(at, "month to date").or_else(|| t.phrase(at, "mtd")) {
            return Some((Period::range((today.first_of_month(), today)), end));
        }
        if !t.any(at, "rest remaining remainder") {
            return None;
        }
        let next = at + 1 + usize::from(t.word(at + 1) == "of");
        let (base, _, end) = self.named_period(next).or_else(|| {
            let unit = words::unit(t.word(next)).filter(|it| matches!(it, Unit::Week | Unit::Month | Unit::Year))?;
            Some((Period::range(self.unit_from_here(unit, 0)?), unit, next + 1))
        })?;
        match base.days {
            Days::In((from, to)) if to > today && from <= today => Some((Period::range((today, to)), end)),
            _ => None,
        }
    }

    /// Seasons, fiscal and school years: named, but their days are for others to say.
    fn vague(&self, at: usize) -> Read<Stretch> {
        let t = self.t;
        let turn = words::turn(t, at);
        let from = turn.map_or(at, |it| it.1);
        let year_of = |turn: Option<(Turn, usize)>| {
            let steps = turn.map_or(0, |it| it.0.steps());
            i64::from(self.now.year()) + steps
        };
        let season = match t.word(from) {
            "summer" => "SU",
            "winter" => "WI",
            "spring" => "SP",
            "autumn" => "FA",
            "fall" => "FA",
            _ => "",
        };
        if !season.is_empty() {
            let before = at.checked_sub(1).map_or("", |it| t.word(it));
            let plain = matches!(t.word(from), "summer" | "winter" | "autumn");
            let in_the = before == "the" && t.word(at.wrapping_sub(2)) == "in";
            if let Some((year, end)) = self.year_after(from + 1) {
                return Some((Stretch::Vague(format!("{year:04}-{season}")), end));
            }
            if turn.is_some() {
                return Some((Stretch::Vague(format!("{:04}-{season}", year_of(turn))), from + 1));
            }
            return (plain || in_the).then(|| (Stretch::Vague(season.to_owned()), from + 1));
        }
        let (code, next) = match t.word(from) {
            "fiscal" if t.word(from + 1) == "year" => ("FY", from + 2),
            "school" if t.word(from + 1) == "year" => ("SY", from + 2),
            "fy" => ("FY", from + 1),
            "sy" => ("SY", from + 1),
            _ => return None,
        };
        let glued = t.glued(next) && t.digits(next).len() == 2;
        if glued {
            return Some((Stretch::Vague(format!("{code}20{}", t.digits(next))), next + 1));
        }
        if let Some((year, end)) = self.year_after(next) {
            return Some((Stretch::Vague(format!("{code}{year:04}")), end));
        }
        if turn.is_some() {
            return Some((Stretch::Vague(format!("{code}{:04}", year_of(turn))), next));
        }
        (t.word(from) != "fy" && t.word(from) != "sy").then(|| (Stretch::Vague(format!("{code}XXXX")), next))
    }
}

/// A third of a period no calendar divides.
fn third((from, to): Range, part: Part) -> Option<Range> {
    let days = from.duration_until(to).as_hours() / 24;
    let (one, two) = (add_days(from, days / 3)?, add_days(from, days * 2 / 3)?);
    Some(match part {
        Part::Early => (from, one),
        Part::Mid => (one, two),
        Part::Late => (two, to),
    })
}

/// Where a period counts when something reaches from or to it.
pub(crate) fn edge_day(range: Range, edge: Edge) -> Option<Date> {
    match edge {
        Edge::Start => Some(range.0),
        Edge::Middle => calendar::middle(range),
        Edge::End => Some(range.1),
    }
}

/// The day a feast's period starts, for those told by month and day.
pub(crate) fn first_day(rule: Rule) -> Option<Feast> {
    match rule {
        Rule::Month(month) => Some(Feast::Fixed(month, 1)),
        _ => None,
    }
}
