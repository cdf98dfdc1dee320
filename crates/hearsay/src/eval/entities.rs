//! Entities against those that a text is labelled with: the same bytes and the same value.

use std::collections::BTreeSet;

use anyhow::Context as _;
use hearsay_insight::grammar::{self, Context, Entity, Kind, Names, Value};
use jiff::civil::DateTime;
use serde::Deserialize;

use super::Counts;

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

/// Tokens with tags such as `B-person`, `I-person` and `O`.
#[derive(Debug, Deserialize)]
struct Tagged {
    tok: Vec<String>,
    tag: Vec<String>,
}

/// Either form: each says by its names which it is.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Labelled {
    Tagged(Tagged),
    Line(Line),
}

/// What was found in each line.
pub(super) fn of(text: &str) -> anyhow::Result<Vec<Counts>> {
    let lines = text.lines().enumerate().filter(|it| !it.1.trim().is_empty());
    let counted = lines.map(|(at, line)| {
        let read = serde_json::from_str(line).with_context(|| {
            format!("line {}: neither a text with its `results` and `kind` nor `tok` with their `tag`", at + 1)
        })?;
        Ok(match read {
            Labelled::Tagged(it) => persons(&it).with_context(|| format!("line {}", at + 1))?,
            Labelled::Line(line) => {
                let now = match &line.now {
                    Some(now) => now.parse().with_context(|| format!("line {}: ref", at + 1))?,
                    None => DateTime::constant(2016, 11, 7, 0, 0, 0, 0),
                };
                judge(&line, now)
            }
        })
    });
    counted.collect()
}

/// Persons in a text of which no roster is known.
fn persons(tagged: &Tagged) -> anyhow::Result<Counts> {
    let (tokens, tags) = (tagged.tok.len(), tagged.tag.len());
    anyhow::ensure!(tokens == tags, "{tokens} tokens with {tags} tags");
    let (mut text, mut expected) = (String::new(), Vec::<(usize, usize)>::new());
    for (token, tag) in tagged.tok.iter().zip(&tagged.tag) {
        if !text.is_empty() {
            text.push(' ');
        }
        let start = text.len();
        text.push_str(token);
        match (tag.as_str(), expected.last_mut()) {
            ("I-person", Some(last)) if last.1 + 1 == start => last.1 = text.len(),
            ("B-person" | "I-person", _) => expected.push((start, text.len())),
            _ => {}
        }
    }
    let names = Names::default();
    let found = grammar::entities(&text, &Context { now: DateTime::constant(2016, 11, 7, 0, 0, 0, 0), names: &names });
    let found: Vec<_> = found.iter().filter(|it| it.kind == Kind::Person).map(|it| (it.start, it.end)).collect();
    Ok((found.len(), expected.iter().filter(|it| found.contains(it)).count(), expected.len()))
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
        assert_eq!(line("on Dec. 31, 2026", day).unwrap(), [(1, 1, 1)]);
        assert_eq!(line("On Dec. 31, 2027", day).unwrap(), [(1, 0, 1)]);
        assert_eq!(line("on it", day).unwrap(), [(0, 0, 1)]);
        let money = r#"{"kind":"currency","text":"ü: $5","results":[{"type":"currency","text":"$5","start":3,"end":5,"resolution":{"value":"5","unit":"Dollar"}}]}"#;
        assert_eq!(of(money).unwrap(), [(1, 1, 1)]);
        assert!(of("{}").unwrap_err().to_string().starts_with("line 1"));
    }

    #[test]
    fn persons_are_read_from_tags() {
        let line = |tags: &str| of(&format!(r#"{{"tok":["Anna","Kim","came"],"tag":[{tags}]}}"#));
        assert_eq!(line(r#""B-person","I-person","O""#).unwrap()[0].2, 1);
        assert_eq!(line(r#""B-person","B-person","O""#).unwrap()[0].2, 2);
        assert_eq!(line(r#""O","O","B-location""#).unwrap()[0].2, 0);
        assert_eq!(format!("{:#}", line(r#""O""#).unwrap_err()), "line 1: 3 tokens with 1 tags");
    }
}
