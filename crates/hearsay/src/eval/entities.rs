//! Entities against those that a text is labelled with: the same bytes and the same value.

use std::collections::BTreeSet;

use anyhow::Context as _;
use hearsay_insight::grammar::{self, Context, Entity, Kind, Names, Value};
use jiff::civil::DateTime;
use serde::Deserialize;

/// A text with its entities, of one kind.
#[derive(Debug, Deserialize)]
struct Line {
    kind: String,
    text: String,
    #[serde(rename = "ref")]
    now: Option<String>,
    results: Vec<Expected>,
}

#[derive(Debug, Deserialize)]
struct Expected {
    r#type: String,
    text: String,
    /// Characters: first and after the last. Some are labelled by their text alone.
    start: Option<usize>,
    end: Option<usize>,
    #[serde(default)]
    values: Vec<Resolved>,
    resolution: Option<Resolution>,
}

#[derive(Debug, Deserialize)]
struct Resolved {
    timex: Option<String>,
    value: Option<String>,
    start: Option<String>,
    end: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Resolution {
    value: Option<String>,
    unit: Option<String>,
}

/// Found, right, labelled.
pub(super) type Counts = (usize, usize, usize);

pub(super) fn of(text: &str) -> anyhow::Result<(usize, Counts)> {
    let (mut lines, mut counts) = (0, (0, 0, 0));
    for (at, line) in text.lines().enumerate().filter(|it| !it.1.trim().is_empty()) {
        let line: Line = serde_json::from_str(line).with_context(|| format!("line {}", at + 1))?;
        let now = match &line.now {
            Some(now) => now.parse().with_context(|| format!("line {}: ref", at + 1))?,
            None => DateTime::constant(2016, 11, 7, 0, 0, 0, 0),
        };
        lines += 1;
        let (found, right, labelled) = judge(&line, now);
        counts = (counts.0 + found, counts.1 + right, counts.2 + labelled);
    }
    Ok((lines, counts))
}

fn judge(line: &Line, now: DateTime) -> Counts {
    let names = Names::default();
    let found = grammar::entities(&line.text, &Context { now, names: &names });
    let found: Vec<&Entity> = found.iter().filter(|it| of_kind(it.kind, &line.kind)).collect();
    let byte = |character: usize| line.text.char_indices().nth(character).map_or(line.text.len(), |it| it.0);
    let same = |expected: &Expected, it: &Entity| {
        let placed = match (expected.start, expected.end) {
            (Some(start), Some(end)) => (it.start, it.end) == (byte(start), byte(end)),
            _ => it.text.eq_ignore_ascii_case(&expected.text),
        };
        placed && agrees(expected, it)
    };
    let right = line.results.iter().filter(|expected| found.iter().any(|it| same(expected, it))).count();
    (found.len(), right, line.results.len())
}

fn of_kind(kind: Kind, label: &str) -> bool {
    match label {
        "currency" => kind == Kind::Money,
        "phone" => kind == Kind::Phone,
        "percent" => kind == Kind::Percentage,
        _ => matches!(
            kind,
            Kind::Date
                | Kind::DateRange
                | Kind::Time
                | Kind::TimeRange
                | Kind::DateTime
                | Kind::DateTimeRange
                | Kind::Duration
                | Kind::Recurrence
        ),
    }
}

fn agrees(expected: &Expected, found: &Entity) -> bool {
    if let Some(resolution) = &expected.resolution {
        let value = resolution.value.as_deref().unwrap_or_default();
        return match found.value() {
            Value::Money { amount, unit, .. } => {
                let amount = amount.as_ref().map(ToString::to_string).unwrap_or_default();
                amount == value && resolution.unit.as_deref() == Some(*unit)
            }
            Value::Phone { .. } => {
                let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
                digits(value) == digits(&found.value().to_string())
            }
            other => other.to_string() == value,
        };
    }
    let said: BTreeSet<String> = found.values.iter().map(ToString::to_string).collect();
    let meant: BTreeSet<String> = expected.values.iter().map(|it| written(&expected.r#type, it)).collect();
    said == meant
}

/// A value as the grammar writes it.
fn written(kind: &str, it: &Resolved) -> String {
    let moment = |text: &str| text.replace(' ', "T");
    let timex = || it.timex.clone().unwrap_or_default();
    match (it.value.as_deref(), &it.start, &it.end) {
        (Some("not resolved"), ..) => timex(),
        (Some(seconds), ..) if kind.ends_with("duration") => format!("PT{seconds}S"),
        (Some(value), ..) => moment(value),
        (None, None, None) => timex(),
        (None, start, end) => {
            let side = |it: &Option<String>| it.as_deref().map_or_else(|| "..".to_owned(), moment);
            format!("{}/{}", side(start), side(end))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_and_the_same_value_are_right() {
        let line = |text: &str, results: &str| {
            of(&format!(r#"{{"kind":"datetime","ref":"2026-03-11T10:00:00","text":"{text}","results":[{results}]}}"#))
        };
        let day = r#"{"type":"datetimeV2.date","text":"dec. 31, 2026","start":3,"end":16,"values":[{"timex":"2026-12-31","value":"2026-12-31"}]}"#;
        assert_eq!(line("on Dec. 31, 2026", day).unwrap(), (1, (1, 1, 1)));
        assert_eq!(line("On Dec. 31, 2027", day).unwrap(), (1, (1, 0, 1)));
        assert_eq!(line("on it", day).unwrap(), (1, (0, 0, 1)));
        let money = r#"{"kind":"currency","text":"ü: $5","results":[{"type":"currency","text":"$5","start":3,"end":5,"resolution":{"value":"5","unit":"Dollar"}}]}"#;
        assert_eq!(of(money).unwrap(), (1, (1, 1, 1)));
        assert!(of("{}").unwrap_err().to_string().starts_with("line 1"));
    }
}
