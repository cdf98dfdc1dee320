//! Telephone numbers, written and spoken digit by digit.

use super::Value;
use super::calendar::date;
use super::day::Read;
use super::lex::{Kind, Tokens};
use super::number::{digit, teen, tens};

/// Longer in tokens is no number.
const LONGEST: usize = 32;

pub(crate) fn phone(t: &Tokens<'_>, at: usize) -> Read<Value> {
    written(t, at).or_else(|| spoken(t, at))
}

/// What was said just before: that a phone number comes, or another number.
fn announced(t: &Tokens<'_>, at: usize) -> Option<bool> {
    for back in 1..=8 {
        let it = at.checked_sub(back)?;
        match t.word(it) {
            "phone" | "telephone" | "tel" | "mobile" | "cell" | "cellphone" | "call" | "dial" | "reach" | "fax"
            | "text" | "landline" | "whatsapp" | "ring" | "hotline" => return Some(true),
            "account" | "card" | "visa" | "mastercard" | "amex" | "discover" | "ssn" | "social" | "omb" | "isbn"
            | "order" | "invoice" | "ticket" | "policy" | "serial" | "passport" | "routing" | "iban" | "pin"
            | "zip" | "case" => return Some(false),
            _ => {}
        }
    }
    None
}

#[derive(Debug, Clone, Copy)]
struct Group<'a> {
    digits: &'a str,
    /// In parentheses.
    enclosed: bool,
    /// What stands before it: a mark, or a space for a gap, or nothing for the first.
    before: char,
    /// The token after it, its parenthesis included.
    end: usize,
}

fn written(t: &Tokens<'_>, at: usize) -> Read<Value> {
    let first = t.get(at)?;
    let opens = first.kind == Kind::Digits || t.is(at, "+") || t.is(at, "(");
    if !opens || !free_before(t, at) {
        return None;
    }
    let (plus, groups) = groups(t, at)?;
    let told = announced(t, at);
    // The longest run that makes a number; cut only where there is a gap.
    for count in (1..=groups.len()).rev() {
        let Some(last) = groups.get(count - 1) else { continue };
        if groups.get(count).is_some_and(|it| it.before != ' ') {
            continue;
        }
        let part = &groups[..count];
        let end = last.end;
        if !free_after(t, end, count == groups.len()) || !sound(part, plus, told) {
            continue;
        }
        let mut digits: String = part.iter().map(|it| it.digits).collect();
        if plus {
            digits.insert(0, '+');
        }
        if let Some((extension, end)) = extension(t, end) {
            return Some((Value::Phone { digits, extension: Some(extension.to_owned()) }, end));
        }
        if t.glued(end) && !t.word(end).is_empty() {
            continue;
        }
        return Some((Value::Phone { digits, extension: None }, end));
    }
    None
}

/// The number is not the rest of a longer one or of a code.
fn free_before(t: &Tokens<'_>, at: usize) -> bool {
    if at == 0 || !t.glued(at) {
        // "45 + 31" and "# 123"
        return !(at > 0 && t.is(at - 1, "+") && !t.is(at, "("));
    }
    let code = |it: usize| {
        !t.digits(it).is_empty() || (!t.word(it).is_empty() && t.glued(it) && !t.digits(it.wrapping_sub(1)).is_empty())
    };
    match t.get(at - 1).map(|it| it.kind) {
        Some(Kind::Digits) => false,
        Some(Kind::Word) => t.is(at, "(") || t.is(at, "+"),
        _ if t.is_any(at - 1, &["#", "$", "€", "£", "+", "*", "="]) => {
            // "#Name#-(123)": a mark before the dash is another's.
            false
        }
        _ if t.is_any(at - 1, &["-", ".", "/", ",", ":", ")", "("]) => {
            let before = at.wrapping_sub(2);
            let joined = at >= 2 && t.glued(at - 1) && (code(before) || t.is_any(before, &[")", "+"]));
            !joined || t.is(at - 1, ":") && t.digits(before).is_empty()
        }
        _ => true,
    }
}

/// Nothing goes on after it.
fn free_after(t: &Tokens<'_>, at: usize, whole: bool) -> bool {
    if !whole || !t.glued(at) {
        return true;
    }
    if t.is_any(at, &["=", "*", "%", "+", "$", "€", "£"]) {
        return false;
    }
    // ",923", ":30"
    !(t.is_any(at, &[",", ":", "-", "/", "."]) && t.glued(at + 1) && !t.digits(at + 1).is_empty())
}

/// The groups of digits from there, with what joins them.
fn groups<'a>(t: &Tokens<'a>, at: usize) -> Option<(bool, Vec<Group<'a>>)> {
    let mut all: Vec<Group<'a>> = Vec::new();
    let mut next = at;
    let mut plus = false;
    if t.is(next, "+") {
        plus = true;
        next += 1;
        if !t.glued(next) {
            return None;
        }
    }
    let mut before = '\0';
    let mut length = 0;
    while next < at + LONGEST {
        let enclosed = t.is(next, "(");
        let mut from = next + usize::from(enclosed);
        if enclosed && t.is(from, "+") {
            if plus || !all.is_empty() {
                break;
            }
            plus = true;
            from += 1;
        }
        let digits = t.digits(from);
        if digits.is_empty() || length + digits.len() > 17 {
            break;
        }
        if !all.is_empty() && !t.glued(next) && before == '\0' {
            before = ' ';
        }
        let mut end = from + 1;
        if enclosed {
            if !t.is(end, ")") {
                break;
            }
            end += 1;
        } else if t.is(end, ")") && t.glued(end) && all.is_empty() {
            // "123)456-7890"
            end += 1;
        }
        length += digits.len();
        all.push(Group { digits, enclosed, before, end });
        // One mark at most between groups, with a space on either side of it.
        next = end;
        before = '\0';
        if t.is_any(next, &["-", ".", "/"]) {
            let digits_after = !t.digits(next + 1).is_empty() || t.is(next + 1, "(");
            let near = t.glued(next) || t.glued(next + 1);
            if !digits_after || !near || t.is(next, ".") && !t.glued(next + 1) {
                break;
            }
            before = t.get(next)?.text.chars().next()?;
            next += 1;
        } else if t.glued(next) && !t.is(next, "(") && t.digits(next).is_empty() {
            break;
        }
    }
    (!all.is_empty()).then_some((plus, all))
}

/// "x123", "ext. 123".
fn extension<'a>(t: &Tokens<'a>, at: usize) -> Option<(&'a str, usize)> {
    if !t.any(at, "x ext extension") {
        return None;
    }
    let next = at + 1 + usize::from(t.is(at + 1, "."));
    let digits = t.digits(next);
    ((1..=6).contains(&digits.len())).then_some((digits, next + 1))
}

/// Whether groups of digits make a telephone number.
fn sound(groups: &[Group<'_>], plus: bool, told: Option<bool>) -> bool {
    let lengths: Vec<usize> = groups.iter().map(|it| it.digits.len()).collect();
    let total: usize = lengths.iter().sum();
    let enclosed = groups.iter().any(|it| it.enclosed);
    let spaced = groups.iter().skip(1).all(|it| it.before == ' ');
    let dashed = groups.len() > 1 && groups.iter().skip(1).all(|it| it.before == '-');
    let dotted = groups.len() > 1 && groups.iter().skip(1).all(|it| it.before == '.');
    if !plus && told == Some(false) || total > 17 || total > 15 && !plus {
        return false;
    }
    if plus && total > 15 && told != Some(true) {
        return false;
    }
    // Dates, social security numbers.
    match (&lengths[..], dashed || groups.iter().skip(1).all(|it| matches!(it.before, '/' | '.'))) {
        ([1 | 2, 1 | 2, 2 | 4] | [4, 1 | 2, 1 | 2], true) if groups.len() == 3 && !plus => return false,
        ([3, 2, 4], _) if dashed && !plus => return false,
        _ => {}
    }
    if !plus && groups.len() == 1 && total == 8 && told != Some(true) {
        let it = groups[0].digits;
        let number = |from: usize, to: usize| it.get(from..to).and_then(|it| it.parse::<i16>().ok()).unwrap_or(0);
        let small = |it: i16| i8::try_from(it).unwrap_or(0);
        if (1900..2100).contains(&number(0, 4))
            && date(number(0, 4), small(number(4, 6)), small(number(6, 8))).is_some()
        {
            return false;
        }
    }
    let grouped = groups.len() >= 4 || groups.len() == 3 && lengths[0] == 3;
    if dotted && !plus && !grouped && !enclosed {
        return false;
    }
    // Two years, or a range of them.
    let year = |it: &Group<'_>| it.digits.len() == 4 && (it.digits.starts_with("19") || it.digits.starts_with("20"));
    if groups.len() == 2 && groups.iter().all(year) && told != Some(true) {
        return false;
    }
    // "+45-12-34-56-78": pairs after a dash are no number; a single digit stands only first, after "+", or enclosed.
    if plus && dashed && lengths.len() >= 4 && lengths.iter().all(|it| *it == 2) && !enclosed {
        return false;
    }
    let single = |i: usize| groups[i].digits.len() == 1 && !groups[i].enclosed;
    if (2..groups.len()).any(|i| single(i) && !groups[i - 1].enclosed)
        || lengths.iter().filter(|it| **it == 1).count() > 2
    {
        return false;
    }
    if groups.len() > 1 && groups.iter().skip(1).any(|it| it.digits.len() == 1 && !it.enclosed) && !plus {
        return false;
    }
    let zero = groups[0].digits.starts_with('0');
    if plus || enclosed {
        return (7..=17).contains(&total) || enclosed && plus && total >= 7;
    }
    match told {
        Some(true) => total >= 7 || total == 6 && zero && groups.len() == 1,
        _ if groups.len() == 1 => total >= 9 || total == 8 && zero,
        _ if spaced => total >= 9 && lengths.iter().all(|it| *it <= 5 || zero) && lengths.iter().any(|it| *it >= 3),
        _ => total >= 7 && lengths.last().is_some_and(|it| *it >= 3) && lengths.iter().any(|it| *it >= 3),
    }
}

/// "five five five one two three four", "oh", "double seven", "eight hundred".
fn spoken(t: &Tokens<'_>, at: usize) -> Read<Value> {
    if t.digits(at).is_empty() && !starts_spoken(t.word(at)) {
        return None;
    }
    let (digits, words, end) = run(t, at)?;
    // At least one digit is a word, else it was read as written.
    if words == 0 || !(7..=15).contains(&digits.len()) || announced(t, at) == Some(false) {
        return None;
    }
    Some((Value::Phone { digits, extension: None }, end))
}

fn starts_spoken(word: &str) -> bool {
    digit(word).is_some() || matches!(word, "double" | "triple" | "plus")
}

/// Digits said one by one, or in pairs once it is clear that they are digits: what they are, how many words said
/// them, and where they end.
pub(crate) fn run(t: &Tokens<'_>, at: usize) -> Option<(String, usize, usize)> {
    let mut all = String::new();
    let mut words = 0;
    let mut next = at;
    let mut end = at;
    if t.word(next) == "plus" {
        all.push('+');
        next += 1;
    }
    while next < at + 2 * LONGEST && all.len() < 40 {
        let joined = usize::from(t.is_any(next, &["-", ",", "."]) && next > at);
        let from = next + joined;
        let word = t.word(from);
        if let Some(it) = digit(word) {
            all.push(char::from(it));
            words += 1;
            next = from + 1;
        } else if let (Some(times), Some(it)) = (repeats(word), digit(t.word(from + 1))) {
            (0..times).for_each(|_| all.push(char::from(it)));
            words += 2;
            next = from + 2;
        } else if !t.digits(from).is_empty() && t.digits(from).len() <= 19 && !(t.glued(from) && joined == 0) {
            all.push_str(t.digits(from));
            next = from + 1;
        } else if word == "hundred" && next > at && digit(t.word(next - 1)).is_some() && all.len() <= 12 && joined == 0
        {
            all.push_str("00");
            next = from + 1;
        } else if let Some(it) = tens(word).or_else(|| teen(word)).filter(|_| all.len() >= 3) {
            let after = from + 1 + usize::from(t.is(from + 1, "-") && t.glued(from + 1));
            match digit(t.word(after)).filter(|one| it >= 20 && *one > b'0' && t.word(after) != "o") {
                Some(one) => {
                    all.push_str(&(it / 10).to_string());
                    all.push(char::from(one));
                    next = after + 1;
                }
                None => {
                    all.push_str(&it.to_string());
                    next = from + 1;
                }
            }
            words += 1;
        } else {
            break;
        }
        end = next;
    }
    // "Oh oh oh" is no number.
    if (at..end).all(|it| t.digits(it).is_empty() && matches!(t.word(it), "oh" | "o" | "")) {
        return None;
    }
    let count = all.len() - usize::from(all.starts_with('+'));
    (count >= 1 && end > at).then_some((all, words, end))
}

fn repeats(word: &str) -> Option<usize> {
    match word {
        "double" => Some(2),
        "triple" | "treble" => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let lower = text.to_ascii_lowercase();
        let t = Tokens::new(&lower);
        let mut found = Vec::new();
        let mut at = 0;
        while at < t.len() {
            at = match phone(&t, at) {
                Some((it, end)) => {
                    found.push(it.to_string());
                    end
                }
                None => at + 1,
            };
        }
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn written_numbers() {
        check("call +1 541-754-3010 now", &["+15417543010"]);
        check("it is (16)99202-4635.", &["16992024635"]);
        check("+44 (0) 161 1234567 ext 123", &["+4401611234567;ext=123"]);
        check("837.824.1482x6388", &["8378241482;ext=6388"]);
        check("123)456-7890", &["1234567890"]);
        check("my phone number is 223-4567", &["2234567"]);
        check("+49 176/ 12345678", &["+4917612345678"]);
    }

    #[test]
    fn what_looks_like_one() {
        check("16/04/2010 and 16-04-2010 and 2019-03-03", &[]);
        check("the ssn is 123-12-1234", &[]);
        check("card number 12345678", &[]);
        check("6011-0000-0000-0004", &[]);
        check("s666666666s and 0.000000012", &[]);
        check("200.38294427", &[]);
        check("from 2015 to 2018, 2019 2020", &[]);
        check("3333*2=6666", &[]);
    }

    #[test]
    fn spoken_numbers() {
        check("five five five one two three four", &["5551234"]);
        check("oh two oh seven nine four six oh nine five eight", &["02079460958"]);
        check("double seven five triple oh one", &["7750001"]);
        check("one eight hundred five five five twelve thirty four", &["18005551234"]);
        check("one two three", &[]);
        check("account number one two three four five six seven eight", &[]);
    }
}
