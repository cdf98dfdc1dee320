//! What a hand-written grammar reads in a text: dates, times, money, numbers, names, and who does what by when.
//!
//! ```
//! use hearsay_insight::grammar::{Assignee, Context, Names, Zone, entities, task};
//!
//! let zone = Zone::parse("Europe/Berlin")?;
//! let names = Names::new(["Anna Kim", "Bob Reyes"], &[]);
//! let context = Context { now: zone.civil(1_773_219_600_000_000), names: &names };
//! let text = "I'll send Bob the twenty five dollars by next Friday";
//! let found = entities(text, &context);
//! assert_eq!(found[1].text, "twenty five dollars");
//! assert_eq!(found[2].value().to_string(), "../2026-03-20");
//! let found = task(text, names.find("Anna"), &context);
//! assert_eq!(found.assignees, [Assignee::Person(0)]);
//! let due = found.due.and_then(|it| zone.rfc3339(it.moment()));
//! assert_eq!(due.as_deref(), Some("2026-03-20T00:00:00+01:00"));
//! # Ok::<(), hearsay_insight::grammar::UnknownZone>(())
//! ```
//!
//! Reads text with and without punctuation and capitals, numbers as digits and as words. Takes time linear in the
//! text: at each word a bounded number of words ahead is looked at.

mod calendar;
mod clock;
mod day;
pub(crate) mod lex;
mod money;
mod names;
pub(crate) mod number;
mod percent;
mod period;
pub(crate) mod phone;
mod span;
mod task;
pub(crate) mod web;
mod when;
pub(crate) mod words;
mod zone;

#[cfg(test)]
mod properties;

use std::fmt;

use jiff::civil::{Date, DateTime, Time};

use day::Reader;
use lex::Tokens;
pub use names::{CustomEntity, Names};
pub use number::Decimal;
pub use task::{Assignee, Due, FollowUp, Hint, Task, follow_up, task};
pub use zone::{UnknownZone, Zone};

/// What the reading of a text depends on.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// When it was said, by the clock of who said it ([`Zone::civil`]).
    pub now: DateTime,
    /// The people and the things to be found by name.
    pub names: &'a Names,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Date,
    DateRange,
    Time,
    TimeRange,
    DateTime,
    DateTimeRange,
    Duration,
    /// What comes round: "every Friday".
    Recurrence,
    Money,
    Percentage,
    Phone,
    Email,
    Url,
    Number,
    /// Somebody of the roster.
    Person,
    Custom,
}

impl Kind {
    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Date => "date",
            Self::DateRange => "daterange",
            Self::Time => "time",
            Self::TimeRange => "timerange",
            Self::DateTime => "datetime",
            Self::DateTimeRange => "datetimerange",
            Self::Duration => "duration",
            Self::Recurrence => "set",
            Self::Money => "currency",
            Self::Percentage => "percentage",
            Self::Phone => "phonenumber",
            Self::Email => "email",
            Self::Url => "url",
            Self::Number => "number",
            Self::Person => "person",
            Self::Custom => "custom",
        }
    }
}

/// What was meant. Ranges reach from their start to just before their end; `None` is an open end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    Date(Date),
    Dates(Option<Date>, Option<Date>),
    Time(Time),
    Times(Option<Time>, Option<Time>),
    Moment(DateTime),
    Moments(Option<DateTime>, Option<DateTime>),
    /// In seconds, a month taken as 30 days and a year as 365.
    Duration(Decimal),
    /// An ISO 8601 period or a pattern of one: `P2W`, `XXXX-WXX-5T09`.
    Recurrence(String),
    /// A time that has no dates of its own: `SU` (summer), `FY2027`; empty for the 30th of February.
    Unknown(String),
    Money {
        /// None where only the currency is named.
        amount: Option<Decimal>,
        /// The currency or its hundredth: "Dollar", "Canadian dollar", "Cent".
        unit: &'static str,
        /// ISO 4217, where the words tell which: a "dollar" may be of several countries.
        currency: Option<&'static str>,
    },
    /// Of a hundred.
    Percentage(Option<Decimal>),
    Number(Decimal),
    Phone {
        /// With a leading `+` where it was told.
        digits: String,
        extension: Option<String>,
    },
    /// An address, in lower case.
    Address(String),
    /// Index into the roster.
    Person(usize),
    /// Index into the custom entities.
    Custom(usize),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn range<T: fmt::Display>(f: &mut fmt::Formatter<'_>, from: Option<&T>, to: Option<&T>) -> fmt::Result {
            match from {
                Some(it) => write!(f, "{it}/")?,
                None => f.write_str("../")?,
            }
            match to {
                Some(it) => write!(f, "{it}"),
                None => f.write_str(".."),
            }
        }
        match self {
            Self::Date(it) => it.fmt(f),
            Self::Dates(from, to) => range(f, from.as_ref(), to.as_ref()),
            Self::Time(it) => it.fmt(f),
            Self::Times(from, to) => range(f, from.as_ref(), to.as_ref()),
            Self::Moment(it) => it.fmt(f),
            Self::Moments(from, to) => range(f, from.as_ref(), to.as_ref()),
            Self::Duration(it) => write!(f, "PT{it}S"),
            Self::Recurrence(it) | Self::Unknown(it) | Self::Address(it) => f.write_str(it),
            Self::Money { amount: Some(amount), unit, currency } => write!(f, "{amount} {}", currency.unwrap_or(unit)),
            Self::Money { amount: None, unit, currency } => f.write_str(currency.unwrap_or(unit)),
            Self::Percentage(Some(it)) => write!(f, "{it}%"),
            Self::Percentage(None) => f.write_str("%"),
            Self::Number(it) => it.fmt(f),
            Self::Phone { digits, extension: Some(it) } => write!(f, "{digits};ext={it}"),
            Self::Phone { digits, extension: None } => f.write_str(digits),
            Self::Person(it) | Self::Custom(it) => it.fmt(f),
        }
    }
}

/// Something a text names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    pub kind: Kind,
    /// Bytes of the text: first and after the last.
    pub start: usize,
    pub end: usize,
    /// As written.
    pub text: String,
    /// What it may mean, never empty. A date without a year is the last before now, then the next from now on; a time
    /// without "am" or "pm" is as said, then twelve hours later.
    pub values: Vec<Value>,
}

impl Entity {
    /// What it most likely means: of several, the next to come; after "since", the last that was.
    #[must_use]
    pub fn value(&self) -> &Value {
        let ahead = matches!(self.kind, Kind::Date | Kind::DateRange | Kind::DateTime | Kind::DateTimeRange);
        let ahead = ahead && !self.text.get(..5).is_some_and(|it| it.eq_ignore_ascii_case("since"));
        // Times vary slowest: the second is the next day for the time as said.
        let at = if ahead && self.values.len() > 1 { 1 } else { 0 };
        &self.values[at]
    }
}

/// What a text names, in order and without overlap.
#[must_use]
pub fn entities(text: &str, context: &Context<'_>) -> Vec<Entity> {
    let lower = text.to_ascii_lowercase();
    let tokens = Tokens::new(&lower);
    let reader = Reader { t: &tokens, now: context.now, joined: 0 };
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let Some((kind, values, end)) = reader.entity(text, at, context.names) else {
            at += 1;
            continue;
        };
        let span = tokens.start(at)..tokens.end(end);
        if let Some(written) = text.get(span.clone()).filter(|it| !it.is_empty() && !values.is_empty()) {
            found.push(Entity { kind, start: span.start, end: span.end, text: written.to_owned(), values });
        }
        at = end.max(at + 1);
    }
    found
}

/// What begins at a token of the text, but for names: its kind and the token after it.
pub(crate) fn find_at(text: &str, tokens: &Tokens<'_>, at: usize, now: DateTime) -> Option<(Kind, usize)> {
    let nobody = Names::default();
    Reader { t: tokens, now, joined: 0 }.entity(text, at, &nobody).map(|(kind, _, end)| (kind, end))
}

impl Reader<'_> {
    /// The longest entity that begins there; of those as long, the first of this order.
    fn entity(&self, text: &str, at: usize, names: &Names) -> Option<(Kind, Vec<Value>, usize)> {
        let mut best: Option<(Kind, Vec<Value>, usize)> = None;
        let mut take = |it: Option<(Kind, Vec<Value>, usize)>| {
            if let Some(it) = it
                && best.as_ref().is_none_or(|best| it.2 > best.2)
            {
                best = Some(it);
            }
        };
        take(names.custom(self.t, at).map(|(it, end)| (Kind::Custom, vec![Value::Custom(it)], end)));
        take(names.person(text, self.t, at).map(|(it, end)| (Kind::Person, vec![Value::Person(it)], end)));
        take(web::address(self.t, at).map(|(kind, it, end)| (kind, vec![Value::Address(it)], end)));
        take(phone::phone(self.t, at).map(|(it, end)| (Kind::Phone, vec![it], end)));
        take(money::money(self.t, at).map(|(it, end)| (Kind::Money, vec![it], end)));
        take(percent::percent(self.t, at).map(|(it, end)| (Kind::Percentage, vec![it], end)));
        take(self.when(at).map(|(it, end)| (it.kind, it.values, end)));
        take(self.number(at).map(|(it, end)| (Kind::Number, vec![Value::Number(it)], end)));
        best
    }

    /// A number that counts: written, or spoken and above ten, since "one" is mostly a pronoun.
    fn number(&self, at: usize) -> day::Read<Decimal> {
        let t = self.t;
        if !t.digits(at).is_empty()
            && (t.glued(at) && self.tail_of_number(at) || t.glued(at + 1) && !t.word(at + 1).is_empty())
        {
            return None;
        }
        let (it, end) = number::amount(t, at)?;
        let told = !t.digits(at).is_empty() || end > at + 1 || it.as_whole().is_some_and(|it| it >= 10);
        told.then_some((it, end))
    }
}
