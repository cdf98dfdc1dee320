//! Percentages.

use super::Value;
use super::day::Read;
use super::lex::Tokens;
use super::number::{self, Decimal};

pub(crate) fn percent(t: &Tokens<'_>, at: usize) -> Read<Value> {
    // "percent of 10"
    if let Some(next) = sign(t, at) {
        let of = (t.word(next) == "of").then(|| number::amount(t, next + 1)).flatten();
        return Some(match of {
            Some((it, end)) => (Value::Percentage(Some(it)), end),
            None => (Value::Percentage(None), next),
        });
    }
    let minus = t.any(at, "minus negative") || t.is(at, "-") && t.glued(at + 1) && !(t.glued(at));
    let from = at + usize::from(minus);
    if t.glued(from) && !minus && !t.digits(from).is_empty() && t.is_any(from - 1, &[".", ",", "%"]) {
        return None;
    }
    let half = t.phrase(from, "half a").or_else(|| t.phrase(from, "half of a"));
    let (it, next) = match half {
        Some(next) => (Decimal::new(5, 1), next),
        None => number::amount(t, from)?,
    };
    let next = next + usize::from(t.is(next, "-") && t.glued(next) && t.glued(next + 1));
    let end = sign(t, next)?;
    let end = end + usize::from(t.any(end, "points point"));
    Some((Value::Percentage(Some(if minus { it.negated() } else { it })), end))
}

/// "%", "percent", "per cent", "percentage".
fn sign(t: &Tokens<'_>, at: usize) -> Option<usize> {
    if t.is(at, "%") || t.any(at, "percent percents percentage percentages pct") {
        return Some(at + 1);
    }
    t.phrase(at, "per cent").or_else(|| t.phrase(at, "per cents"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let found = percent(&Tokens::new(text), 0).map(|it| it.0.to_string());
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    #[test]
    fn percentages() {
        check("240 percent", Some("240%"));
        check("one hundred percents", Some("100%"));
        check("twelve point five per cent", Some("12.5%"));
        check("minus five percent", Some("-5%"));
        check("half a percent", Some("0.5%"));
        check("27 %", Some("27%"));
        check("per cent of 210", Some("210%"));
        check("%", Some("%"));
        check("five", None);
    }
}
