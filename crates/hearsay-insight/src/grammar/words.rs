//! The words of the calendar.

use jiff::civil::Weekday;

use super::calendar::{Feast, Nth};
use super::lex::Tokens;

pub(crate) fn weekday(word: &str) -> Option<Weekday> {
    Some(match word {
        "monday" | "mon" => Weekday::Monday,
        "tuesday" | "tue" | "tues" => Weekday::Tuesday,
        "wednesday" | "wed" | "weds" | "wednes" => Weekday::Wednesday,
        "thursday" | "thu" | "thur" | "thurs" => Weekday::Thursday,
        "friday" | "fri" => Weekday::Friday,
        "saturday" | "sat" => Weekday::Saturday,
        "sunday" | "sun" => Weekday::Sunday,
        _ => return None,
    })
}

/// "mondays".
pub(crate) fn weekdays(word: &str) -> Option<Weekday> {
    word.strip_suffix('s').filter(|it| it.ends_with("day")).and_then(weekday)
}

pub(crate) fn month(word: &str) -> Option<i8> {
    Some(match word {
        "january" | "jan" => 1,
        "february" | "feb" => 2,
        "march" | "mar" => 3,
        "april" | "apr" => 4,
        "may" => 5,
        "june" | "jun" => 6,
        "july" | "jul" => 7,
        "august" | "aug" => 8,
        "september" | "sep" | "sept" => 9,
        "october" | "oct" => 10,
        "november" | "nov" => 11,
        "december" | "dec" => 12,
        _ => return None,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Workday,
    Night,
    Weekend,
    Week,
    Fortnight,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
}

pub(crate) fn unit(word: &str) -> Option<Unit> {
    Some(match word {
        "second" | "seconds" | "sec" | "secs" => Unit::Second,
        "minute" | "minutes" | "min" | "mins" => Unit::Minute,
        "hour" | "hours" | "hr" | "hrs" => Unit::Hour,
        "day" | "days" => Unit::Day,
        "weekday" | "weekdays" | "workday" | "workdays" => Unit::Workday,
        "night" | "nights" => Unit::Night,
        "weekend" | "weekends" => Unit::Weekend,
        "week" | "weeks" | "wk" | "wks" => Unit::Week,
        "fortnight" | "fortnights" => Unit::Fortnight,
        "month" | "months" => Unit::Month,
        "quarter" | "quarters" => Unit::Quarter,
        "year" | "years" | "yr" | "yrs" => Unit::Year,
        "decade" | "decades" => Unit::Decade,
        "century" | "centuries" => Unit::Century,
        _ => return None,
    })
}

/// Which of a row of periods, seen from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Last,
    /// "this past": the nearest that was.
    Past,
    This,
    /// "coming", "upcoming": the nearest to come.
    Coming,
    Next,
}

impl Turn {
    pub(crate) fn steps(self) -> i64 {
        match self {
            Self::Last | Self::Past => -1,
            Self::This => 0,
            Self::Coming | Self::Next => 1,
        }
    }
}

/// "next", "this past", "last".
pub(crate) fn turn(t: &Tokens<'_>, at: usize) -> Option<(Turn, usize)> {
    let it = match t.word(at) {
        "next" | "following" => Turn::Next,
        "this" => match t.word(at + 1) {
            "past" => return Some((Turn::Past, at + 2)),
            "coming" | "upcoming" => return Some((Turn::Coming, at + 2)),
            _ => Turn::This,
        },
        "current" | "same" => Turn::This,
        "last" | "previous" => Turn::Last,
        "past" => Turn::Past,
        "coming" | "upcoming" => Turn::Coming,
        _ => return None,
    };
    Some((it, at + 1))
}

/// The longest name of a feast from there.
pub(crate) fn feast(t: &Tokens<'_>, at: usize) -> Option<(Feast, usize)> {
    let plain = |words: &[&str]| -> Option<usize> {
        let mut next = at;
        for it in words {
            if t.word(next) != *it {
                return None;
            }
            next = t.possessive(next + 1).unwrap_or(next + 1);
            next += usize::from(t.is(next, ".") && *it == "st");
            next += usize::from(t.is(next, "-"));
        }
        // A name is not cut at its hyphen.
        Some(if t.is(next.wrapping_sub(1), "-") { next - 1 } else { next })
    };
    let mut best: Option<(Feast, usize)> = None;
    for (words, feast) in FEASTS {
        if words.first() != Some(&t.word(at)) {
            continue;
        }
        if let Some(end) = plain(words)
            && best.is_none_or(|it| end > it.1)
        {
            best = Some((*feast, end));
        }
    }
    best
}

const FEASTS: &[(&[&str], Feast)] = &[
    (&["christmas"], Feast::Fixed(12, 25)),
    (&["christmas", "day"], Feast::Fixed(12, 25)),
    (&["xmas"], Feast::Fixed(12, 25)),
    (&["xmas", "day"], Feast::Fixed(12, 25)),
    (&["christmas", "eve"], Feast::Fixed(12, 24)),
    (&["xmas", "eve"], Feast::Fixed(12, 24)),
    (&["boxing", "day"], Feast::Fixed(12, 26)),
    (&["new", "year"], Feast::Fixed(1, 1)),
    (&["new", "years"], Feast::Fixed(1, 1)),
    (&["new", "year", "day"], Feast::Fixed(1, 1)),
    (&["new", "years", "day"], Feast::Fixed(1, 1)),
    (&["new", "year", "eve"], Feast::Fixed(12, 31)),
    (&["new", "years", "eve"], Feast::Fixed(12, 31)),
    (&["valentine"], Feast::Fixed(2, 14)),
    (&["valentines"], Feast::Fixed(2, 14)),
    (&["valentine", "day"], Feast::Fixed(2, 14)),
    (&["valentines", "day"], Feast::Fixed(2, 14)),
    (&["groundhog", "day"], Feast::Fixed(2, 2)),
    (&["saint", "patrick"], Feast::Fixed(3, 17)),
    (&["saint", "patrick", "day"], Feast::Fixed(3, 17)),
    (&["saint", "patricks", "day"], Feast::Fixed(3, 17)),
    (&["st", "patrick"], Feast::Fixed(3, 17)),
    (&["st", "patrick", "day"], Feast::Fixed(3, 17)),
    (&["st", "patricks", "day"], Feast::Fixed(3, 17)),
    (&["april", "fools"], Feast::Fixed(4, 1)),
    (&["april", "fool", "day"], Feast::Fixed(4, 1)),
    (&["april", "fools", "day"], Feast::Fixed(4, 1)),
    (&["earth", "day"], Feast::Fixed(4, 22)),
    (&["may", "day"], Feast::Fixed(5, 1)),
    (&["cinco", "de", "mayo"], Feast::Fixed(5, 5)),
    (&["juneteenth"], Feast::Fixed(6, 19)),
    (&["freedom", "day"], Feast::Fixed(6, 19)),
    (&["jubilee", "day"], Feast::Fixed(6, 19)),
    (&["independence", "day"], Feast::Fixed(7, 4)),
    (&["guy", "fawkes", "day"], Feast::Fixed(11, 5)),
    (&["veterans", "day"], Feast::Fixed(11, 11)),
    (&["veteran", "day"], Feast::Fixed(11, 11)),
    (&["armistice", "day"], Feast::Fixed(11, 11)),
    (&["halloween"], Feast::Fixed(10, 31)),
    (&["halloween", "day"], Feast::Fixed(10, 31)),
    (&["all", "saints", "day"], Feast::Fixed(11, 1)),
    (&["all", "souls", "day"], Feast::Fixed(11, 2)),
    (&["epiphany"], Feast::Fixed(1, 6)),
    (&["singles", "day"], Feast::Fixed(11, 11)),
    (&["women", "day"], Feast::Fixed(3, 8)),
    (&["thanksgiving"], Feast::Nth(11, Nth::At(4), Weekday::Thursday)),
    (&["thanksgiving", "day"], Feast::Nth(11, Nth::At(4), Weekday::Thursday)),
    (&["black", "friday"], Feast::After(11, Nth::At(4), Weekday::Thursday, 1)),
    (&["cyber", "monday"], Feast::After(11, Nth::At(4), Weekday::Thursday, 4)),
    (&["labor", "day"], Feast::Nth(9, Nth::At(1), Weekday::Monday)),
    (&["labour", "day"], Feast::Nth(9, Nth::At(1), Weekday::Monday)),
    (&["memorial", "day"], Feast::Nth(5, Nth::Last, Weekday::Monday)),
    (&["mother", "day"], Feast::Nth(5, Nth::At(2), Weekday::Sunday)),
    (&["mothers", "day"], Feast::Nth(5, Nth::At(2), Weekday::Sunday)),
    (&["father", "day"], Feast::Nth(6, Nth::At(3), Weekday::Sunday)),
    (&["fathers", "day"], Feast::Nth(6, Nth::At(3), Weekday::Sunday)),
    (&["martin", "luther", "king", "day"], Feast::Nth(1, Nth::At(3), Weekday::Monday)),
    (&["mlk", "day"], Feast::Nth(1, Nth::At(3), Weekday::Monday)),
    (&["president", "day"], Feast::Nth(2, Nth::At(3), Weekday::Monday)),
    (&["presidents", "day"], Feast::Nth(2, Nth::At(3), Weekday::Monday)),
    (&["columbus", "day"], Feast::Nth(10, Nth::At(2), Weekday::Monday)),
    (&["canberra", "day"], Feast::Nth(3, Nth::At(2), Weekday::Monday)),
    (&["easter"], Feast::Easter(0)),
    (&["easter", "sunday"], Feast::Easter(0)),
    (&["easter", "day"], Feast::Easter(0)),
    (&["easter", "monday"], Feast::Easter(1)),
    (&["good", "friday"], Feast::Easter(-2)),
    (&["maundy", "thursday"], Feast::Easter(-3)),
    (&["palm", "sunday"], Feast::Easter(-7)),
    (&["ash", "wednesday"], Feast::Easter(-46)),
    (&["mardi", "gras"], Feast::Easter(-47)),
    (&["pentecost"], Feast::Easter(49)),
    (&["ramadan"], Feast::Islamic(9, 1)),
    (&["eid", "al", "fitr"], Feast::Islamic(10, 1)),
    (&["eid", "al", "adha"], Feast::Islamic(12, 10)),
    (&["islamic", "new", "year"], Feast::Islamic(1, 1)),
];
