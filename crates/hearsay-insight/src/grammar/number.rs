//! Numbers, written and spoken.

use std::fmt;

use super::lex::Tokens;

/// An exact decimal: `units` / 10^`scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decimal {
    units: i128,
    scale: u32,
}

/// More digits than this is a code, not an amount.
const MOST_DIGITS: usize = 24;

impl Decimal {
    #[must_use]
    pub fn new(units: i128, scale: u32) -> Self {
        let mut it = Self { units, scale };
        while it.scale > 0 && it.units % 10 == 0 {
            it.units /= 10;
            it.scale -= 1;
        }
        it
    }

    #[must_use]
    pub fn whole(units: i64) -> Self {
        Self { units: units.into(), scale: 0 }
    }

    /// Of digits with at most one point.
    pub(crate) fn parse(whole: &str, part: &str) -> Option<Self> {
        if whole.len() + part.len() > MOST_DIGITS {
            return None;
        }
        let mut units: i128 = 0;
        for it in whole.bytes().chain(part.bytes()) {
            units = units * 10 + i128::from(it.checked_sub(b'0').filter(|it| *it < 10)?);
        }
        Some(Self::new(units, u32::try_from(part.len()).ok()?))
    }

    pub(crate) fn times(self, other: Self) -> Option<Self> {
        Some(Self::new(self.units.checked_mul(other.units)?, self.scale.checked_add(other.scale)?))
    }

    pub(crate) fn plus(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let raise = |it: Self| it.units.checked_mul(10_i128.checked_pow(scale - it.scale)?);
        Some(Self::new(raise(self)?.checked_add(raise(other)?)?, scale))
    }

    #[must_use]
    pub fn negated(self) -> Self {
        Self { units: -self.units, scale: self.scale }
    }

    /// As a whole number, if it is one.
    #[must_use]
    pub fn as_whole(self) -> Option<i64> {
        if self.scale == 0 { i64::try_from(self.units).ok() } else { None }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.units < 0 { "-" } else { "" };
        let digits = self.units.unsigned_abs().to_string();
        let scale = self.scale as usize;
        if scale == 0 {
            return write!(f, "{sign}{digits}");
        }
        let digits = format!("{digits:0>width$}", width = scale + 1);
        let (whole, part) = digits.split_at(digits.len() - scale);
        write!(f, "{sign}{whole}.{part}")
    }
}

/// How far a spoken number can reach: longer ones are lists.
const REACH: usize = 24;

pub(crate) fn unit(word: &str) -> Option<i64> {
    Some(match word {
        "zero" => 0,
        "one" => 1,
        "two" => 2,
        "three" => 3,
        "four" => 4,
        "five" => 5,
        "six" => 6,
        "seven" => 7,
        "eight" => 8,
        "nine" => 9,
        _ => return None,
    })
}

pub(crate) fn teen(word: &str) -> Option<i64> {
    Some(match word {
        "ten" => 10,
        "eleven" => 11,
        "twelve" => 12,
        "thirteen" => 13,
        "fourteen" => 14,
        "fifteen" => 15,
        "sixteen" => 16,
        "seventeen" => 17,
        "eighteen" => 18,
        "nineteen" => 19,
        _ => return None,
    })
}

pub(crate) fn tens(word: &str) -> Option<i64> {
    Some(match word {
        "twenty" => 20,
        "thirty" => 30,
        "forty" | "fourty" => 40,
        "fifty" => 50,
        "sixty" => 60,
        "seventy" => 70,
        "eighty" => 80,
        "ninety" => 90,
        _ => return None,
    })
}

fn scale(word: &str) -> Option<i64> {
    Some(match word {
        "hundred" => 100,
        "thousand" | "thousands" => 1_000,
        "lakh" | "lakhs" | "lac" => 100_000,
        "million" | "millions" | "mln" | "mio" | "mil" => 1_000_000,
        "crore" | "crores" => 10_000_000,
        "billion" | "billions" | "bln" | "bn" => 1_000_000_000,
        "trillion" | "trillions" => 1_000_000_000_000,
        _ => return None,
    })
}

fn ordinal_word(word: &str) -> Option<i64> {
    Some(match word {
        "first" => 1,
        "second" => 2,
        "third" => 3,
        "fourth" => 4,
        "fifth" => 5,
        "sixth" => 6,
        "seventh" => 7,
        "eighth" => 8,
        "ninth" => 9,
        "tenth" => 10,
        "eleventh" => 11,
        "twelfth" => 12,
        "thirteenth" => 13,
        "fourteenth" => 14,
        "fifteenth" => 15,
        "sixteenth" => 16,
        "seventeenth" => 17,
        "eighteenth" => 18,
        "nineteenth" => 19,
        "twentieth" => 20,
        "thirtieth" => 30,
        _ => return None,
    })
}

/// Past a hyphen that joins two words of one number.
fn join(t: &Tokens<'_>, at: usize) -> usize {
    if t.is(at, "-") && t.glued(at) && t.glued(at + 1) { at + 1 } else { at }
}

/// A number below a hundred in words: "seven", "forty-two".
pub(crate) fn below_hundred(t: &Tokens<'_>, at: usize) -> Option<(i64, usize)> {
    let word = t.word(at);
    if let Some(ten) = tens(word) {
        let next = join(t, at + 1);
        return Some(match unit(t.word(next)) {
            Some(one) if one > 0 => (ten + one, next + 1),
            _ => (ten, at + 1),
        });
    }
    teen(word).or_else(|| unit(word)).map(|it| (it, at + 1))
}

/// A whole number in words: "two hundred and five thousand".
pub(crate) fn spoken(t: &Tokens<'_>, at: usize) -> Option<(i64, usize)> {
    let (mut group, mut next) = match below_hundred(t, at) {
        Some(it) => it,
        None if t.any(at, "a an") && scale(t.word(at + 1)).is_some() => (1, at + 1),
        None => return None,
    };
    let mut total: i64 = 0;
    let mut least = i64::MAX;
    while next < at + REACH {
        let after = join(t, next);
        let word = t.word(after);
        if word == "hundred" && group > 0 && group < 100 {
            group *= 100;
            next = after + 1;
        } else if let Some(scale) = scale(word).filter(|it| *it > 100 && *it < least) {
            if group == 0 {
                break;
            }
            total = total.checked_add(group.checked_mul(scale)?)?;
            least = scale;
            group = 0;
            next = after + 1;
        } else {
            // "two hundred five", "two hundred and five", "two thousand fifteen".
            let from = if word == "and" { after + 1 } else { after };
            let open = if group == 0 { least < i64::MAX } else { group % 100 == 0 };
            match below_hundred(t, from).filter(|_| open) {
                Some((small, end)) if small > 0 => {
                    // "one thousand and two hundred": the small number starts a group of hundreds.
                    group += small;
                    next = end;
                }
                _ => break,
            }
        }
    }
    Some((total.checked_add(group)?, next))
}

/// A written number with its decimals: "1,250.50", "12".
pub(crate) fn written(t: &Tokens<'_>, at: usize) -> Option<(Decimal, usize)> {
    let first = t.digits(at);
    if first.is_empty() {
        return None;
    }
    let mut whole = first.to_owned();
    let mut next = at + 1;
    if first.len() <= 3 {
        while t.is(next, ",")
            && t.glued(next)
            && t.glued(next + 1)
            && t.digits(next + 1).len() == 3
            && next < at + REACH
        {
            whole.push_str(t.digits(next + 1));
            next += 2;
        }
    }
    let mut part = "";
    if t.is(next, ".") && t.glued(next) && t.glued(next + 1) && !t.digits(next + 1).is_empty() {
        part = t.digits(next + 1);
        next += 2;
    }
    Some((Decimal::parse(&whole, part)?, next))
}

/// A part of one: "half", "a quarter", "three quarters", "one third" is not exact and is not read.
pub(crate) fn fraction(t: &Tokens<'_>, at: usize) -> Option<(Decimal, usize)> {
    let (count, next) = match t.word(at) {
        "a" | "one" => (1, at + 1),
        "three" => (3, at + 1),
        _ => (1, at),
    };
    match t.word(next) {
        "half" if count == 1 => Some((Decimal::new(5, 1), next + 1)),
        "quarter" if count == 1 && next > at => Some((Decimal::new(25, 2), next + 1)),
        "quarters" if count == 3 => Some((Decimal::new(75, 2), next + 1)),
        _ => None,
    }
}

/// Any number an amount may have, written or spoken, with "million" and the like: "48.2 million", "two and a half",
/// "a quarter million", "three point five".
pub(crate) fn amount(t: &Tokens<'_>, at: usize) -> Option<(Decimal, usize)> {
    if let Some((part, next)) = fraction(t, at) {
        let next = if t.any(next, "a of") { next + 1 + usize::from(t.word(next + 1) == "a") } else { next };
        let scale = scale(t.word(next)).filter(|it| *it >= 1000)?;
        return Some((part.times(Decimal::whole(scale))?, next + 1));
    }
    let (mut number, mut next) = match written(t, at) {
        Some(it) => it,
        None => {
            let (number, next) = spoken(t, at)?;
            (Decimal::whole(number), next)
        }
    };
    if t.word(next) == "point" {
        let mut digits = String::new();
        let mut end = next + 1;
        while digits.len() < 8 {
            match digit(t.word(end)) {
                Some(it) => digits.push(char::from(it)),
                None if digits.is_empty() && !t.digits(end).is_empty() && t.digits(end).len() <= 8 => {
                    digits.push_str(t.digits(end));
                }
                None => break,
            }
            end += 1;
        }
        if !digits.is_empty() {
            number = number.plus(Decimal::parse("0", &digits)?)?;
            next = end;
        }
    }
    if let Some(end) =
        t.phrase(next, "and").and_then(|it| fraction(t, it)).filter(|it| scale(t.word(it.1)) != Some(100))
    {
        let whole_half = t.word(next + 1) == "a" || t.word(next + 1) == "three" || t.word(next + 1) == "one";
        if whole_half {
            number = number.plus(end.0)?;
            next = end.1;
        }
    }
    for _ in 0..2 {
        let word = t.word(next);
        let factor = match word {
            "k" if t.glued(next) => Some(1_000),
            "m" | "mm" if t.glued(next) => Some(1_000_000),
            "b" if t.glued(next) => Some(1_000_000_000),
            _ => scale(word),
        };
        let Some(factor) = factor else { break };
        number = number.times(Decimal::whole(factor))?;
        next += 1;
    }
    Some((number, next))
}

/// A small whole number, written or spoken, for counts of things.
pub(crate) fn count(t: &Tokens<'_>, at: usize) -> Option<(i64, usize)> {
    let digits = t.digits(at);
    if !digits.is_empty() {
        return (digits.len() <= 6).then(|| Some((digits.parse().ok()?, at + 1)))?;
    }
    spoken(t, at)
}

/// "first", "twenty-fifth", "3rd", "21 st".
pub(crate) fn ordinal(t: &Tokens<'_>, at: usize) -> Option<(i64, usize)> {
    let digits = t.digits(at);
    if !digits.is_empty() {
        let suffix = t.any(at + 1, "st nd rd th") && t.glued(at + 1);
        return (suffix && digits.len() <= 4).then(|| Some((digits.parse().ok()?, at + 2)))?;
    }
    if let Some(ten) = tens(t.word(at)) {
        let next = join(t, at + 1);
        return ordinal_word(t.word(next)).filter(|it| *it < 10).map(|it| (ten + it, next + 1));
    }
    ordinal_word(t.word(at)).map(|it| (it, at + 1))
}

/// One spoken digit.
pub(crate) fn digit(word: &str) -> Option<u8> {
    match word {
        "oh" | "o" => Some(b'0'),
        _ => unit(word).and_then(|it| u8::try_from(it).ok()).map(|it| b'0' + it),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let found = amount(&Tokens::new(text), 0).map(|(number, _)| number.to_string());
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    #[test]
    fn amounts() {
        check("1,250.50", Some("1250.5"));
        check("48.2 million", Some("48200000"));
        check("three thousand", Some("3000"));
        check("two hundred and five thousand and six", Some("205006"));
        check("twenty-five", Some("25"));
        check("one two three", Some("1"));
        check("a hundred", Some("100"));
        check("a quarter million", Some("250000"));
        check("three quarters billion", Some("750000000"));
        check("half a million", Some("500000"));
        check("three point five million", Some("3500000"));
        check("two and a half million", Some("2500000"));
        check("35 lakh", Some("3500000"));
        check("10k", Some("10000"));
        check("99999999999999999999999999", None);
        check("hello", None);
    }

    #[test]
    fn ordinals() {
        let found = |text| ordinal(&Tokens::new(text), 0).map(|it| it.0);
        assert_eq!(found("twenty-fifth"), Some(25));
        assert_eq!(found("twenty second"), Some(22));
        assert_eq!(found("31st"), Some(31));
        assert_eq!(found("seventeenth"), Some(17));
        assert_eq!(found("seventeen"), None);
    }
}
