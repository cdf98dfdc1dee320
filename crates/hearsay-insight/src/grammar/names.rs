//! People and things by name.

use std::collections::HashMap;

pub use hearsay_protocol::event::CustomEntity;

use super::lex::{Kind, Tokens};

/// No name is longer than this, in words.
const LONGEST: usize = 16;

/// In a larger roster some name is always a letter away, and looking for it would cost.
const MOST_ALIKE: usize = 256;

/// Names by their words, one node a word.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trie {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    next: HashMap<Box<str>, usize>,
    ends: Option<usize>,
}

impl Trie {
    /// The first to take a name keeps it. Names without a letter or digit, and overlong ones, are left out.
    pub(crate) fn insert(&mut self, name: &str, index: usize) {
        let lower = name.to_ascii_lowercase();
        let tokens = Tokens::new(&lower);
        let words: Vec<String> = (0..tokens.len())
            .filter_map(|it| tokens.get(it))
            .filter(|it| counts(it.kind, it.text))
            .map(|it| folded(it.text).into_owned())
            .collect();
        if words.is_empty() || words.len() > LONGEST {
            return;
        }
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut node = 0;
        for it in words {
            let fresh = self.nodes.len();
            let next = *self.nodes[node].next.entry(it.into_boxed_str()).or_insert(fresh);
            if next == fresh {
                self.nodes.push(Node::default());
            }
            node = next;
        }
        self.nodes[node].ends.get_or_insert(index);
    }

    /// The longest name that begins there.
    pub(crate) fn longest(&self, t: &Tokens<'_>, at: usize) -> Option<(usize, usize)> {
        let mut node = self.nodes.first()?;
        let mut best = None;
        let mut next = at;
        for _ in 0..2 * LONGEST {
            let Some(token) = t.get(next) else { break };
            if !counts(token.kind, token.text) {
                // A mark inside a name is passed over only where it joins: "o'neill", "at&t", "Marks & Spencer", "jean-luc", "u.s.".
                let initial = t.is(next, ".") && t.word(next.wrapping_sub(1)).len() == 1;
                let joins = next > at && (token.glued || t.dash(next) || t.is(next, "&") || initial);
                if !joins {
                    break;
                }
                next += 1;
                continue;
            }
            let Some(found) = node.next.get(&*folded(token.text)) else { break };
            node = &self.nodes[*found];
            next += 1;
            if let Some(index) = node.ends {
                best = Some((index, next));
            }
        }
        best
    }
}

fn counts(kind: Kind, text: &str) -> bool {
    kind != Kind::Mark
        || matches!(
            text,
            "$" | "€"
                | "£"
                | "¥"
                | "₹"
                | "₽"
                | "₩"
                | "₾"
                | "₺"
                | "₴"
                | "₫"
                | "₪"
                | "฿"
                | "₱"
                | "₿"
                | "¢"
                | "#"
                | "+"
        )
}

/// In lower case, also where that is more than ASCII.
fn folded(text: &str) -> std::borrow::Cow<'_, str> {
    if text.is_ascii() { text.into() } else { text.to_lowercase().into() }
}

/// The people of a conversation and the things its owner wants found.
#[derive(Debug, Clone, Default)]
pub struct Names {
    people: Vec<String>,
    full: Trie,
    first: Trie,
    last: Trie,
    things: Trie,
}

impl Names {
    /// `people` by their display names, `custom` by their texts. Both are looked for without regard to case.
    #[must_use]
    pub fn new<P: AsRef<str>>(people: impl IntoIterator<Item = P>, custom: &[CustomEntity]) -> Self {
        let mut it = Self::default();
        for (index, name) in people.into_iter().enumerate() {
            let name = name.as_ref().trim();
            it.full.insert(name, index);
            if let Some(first) = name.split_whitespace().next() {
                it.first.insert(first, index);
            }
            if let Some(last) = name.split_whitespace().skip(1).last() {
                it.last.insert(last, index);
            }
            it.people.push(name.to_owned());
        }
        for (index, thing) in custom.iter().enumerate() {
            it.things.insert(&thing.text, index);
        }
        it
    }

    /// The roster, in its order.
    #[must_use]
    pub fn people(&self) -> &[String] {
        &self.people
    }

    /// Who has that name, whole or first.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        let lower = name.to_ascii_lowercase();
        let tokens = Tokens::new(&lower);
        let whole = |it: Option<(usize, usize)>| it.filter(|it| it.1 == tokens.len()).map(|it| it.0);
        whole(self.full.longest(&tokens, 0)).or_else(|| whole(self.first.longest(&tokens, 0)))
    }

    pub(crate) fn custom(&self, t: &Tokens<'_>, at: usize) -> Option<(usize, usize)> {
        self.things.longest(t, at)
    }

    /// Somebody of the roster by whole or first name. A first name that is also a plain word must be written as a name.
    pub(crate) fn person(&self, text: &str, t: &Tokens<'_>, at: usize) -> Option<(usize, usize)> {
        if let Some(it) = self.full.longest(t, at).filter(|it| it.1 > at + 1) {
            return Some(it);
        }
        let (who, end) = self.first.longest(t, at).or_else(|| self.full.longest(t, at))?;
        if is_word(t.word(at)) {
            let start = t.start(at);
            let capital = text.get(start..).and_then(|it| it.chars().next()).is_some_and(char::is_uppercase);
            if !capital || at == 0 {
                return None;
            }
        }
        Some((who, end))
    }

    /// Somebody by last name, where it is written as a name or follows a title.
    pub(crate) fn surname(&self, text: &str, t: &Tokens<'_>, at: usize) -> Option<usize> {
        let (_, end) = self.last.longest(t, at)?;
        let before = at.checked_sub(1)?;
        let titled = t.any(before, "mr mrs ms miss mister dr doctor professor prof")
            || t.is(before, ".") && t.any(before.wrapping_sub(1), "mr mrs ms dr prof");
        let capital = text.get(t.start(at)..).and_then(|it| it.chars().next()).is_some_and(char::is_uppercase);
        let opens = t.is_any(before, &[".", "?", "!"]);
        (titled || capital && !opens).then_some(end)
    }

    /// Somebody by first name, also one that is a plain word or was heard a letter wrong; for places where only a
    /// name can stand.
    pub(crate) fn heard(&self, t: &Tokens<'_>, at: usize) -> Option<(usize, usize)> {
        if let Some(it) = self.full.longest(t, at).or_else(|| self.first.longest(t, at)) {
            return Some(it);
        }
        let word = t.word(at);
        if word.len() < 4 || word.len() > 24 || self.people.len() > MOST_ALIKE {
            return None;
        }
        let mut near = self.people.iter().enumerate().filter(|(_, name)| {
            let first = name.split_whitespace().next().unwrap_or_default().to_lowercase();
            first.len() >= 4 && first.len() <= 24 && one_letter_off(&first, word)
        });
        let found = near.next()?;
        near.next().is_none().then_some((found.0, at + 1))
    }
}

/// First names that are words of their own.
pub(crate) fn is_word(name: &str) -> bool {
    matches!(
        name,
        "will"
            | "may"
            | "mark"
            | "art"
            | "bill"
            | "grace"
            | "hope"
            | "faith"
            | "joy"
            | "rob"
            | "drew"
            | "june"
            | "april"
            | "august"
            | "dawn"
            | "summer"
            | "rose"
            | "pat"
            | "sue"
            | "rich"
            | "frank"
            | "guy"
            | "chase"
            | "grant"
            | "lance"
            | "miles"
            | "pierce"
            | "dean"
            | "an"
            | "so"
            | "long"
            | "young"
            | "song"
            | "gene"
            | "jack"
            | "jay"
            | "king"
            | "max"
            | "nick"
            | "penny"
            | "ray"
            | "ruby"
            | "rusty"
            | "sky"
            | "violet"
            | "ivy"
            | "lily"
            | "iris"
            | "ginger"
            | "amber"
            | "angel"
            | "buddy"
            | "carol"
            | "charity"
            | "cliff"
            | "dale"
            | "daisy"
            | "earnest"
            | "ernest"
            | "glen"
            | "hazel"
            | "heather"
            | "holly"
            | "honor"
            | "jade"
            | "josh"
            | "melody"
            | "misty"
            | "olive"
            | "pearl"
            | "reed"
            | "robin"
            | "sandy"
            | "stew"
            | "wade"
            | "do"
            | "in"
            | "van"
            | "can"
            | "see"
            | "my"
            | "yes"
            | "you"
            | "me"
            | "he"
    )
}

/// One letter changed, added or left out.
fn one_letter_off(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let (short, long) = if a.len() <= b.len() { (&a, &b) } else { (&b, &a) };
    let same = short.iter().zip(long).take_while(|(a, b)| a == b).count();
    match long.len() - short.len() {
        0 => short.get(same + 1..) == long.get(same + 1..) && same < short.len(),
        1 => short.get(same..) == long.get(same + 1..),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let thing = |text: &str| CustomEntity { custom_type: "thing".into(), value: text.into(), text: text.into() };
        Names::new(
            ["Anna Kim", "Will Reyes", "Łukasz Żak", "Priya Nair"],
            &[
                thing("apollo"),
                thing("Apollo Guidance Computer"),
                thing("at&t"),
                thing("東京"),
                thing("…"),
                thing("Marks & Spencer"),
            ],
        )
    }

    #[track_caller]
    fn check(text: &str, expected: &[(usize, usize)]) {
        let names = names();
        let lower = text.to_ascii_lowercase();
        let t = Tokens::new(&lower);
        let found: Vec<_> =
            (0..t.len()).filter_map(|at| names.person(text, &t, at).or_else(|| names.custom(&t, at))).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn names_are_found_longest_first() {
        check("the apollo guidance computer", &[(1, 4)]);
        check("APOLLO guidance", &[(0, 1)]);
        check("ask anna kim", &[(0, 3)]);
        check("AT&T", &[(2, 3)]);
        check("at Marks & Spencer now", &[(5, 4)]);
        check("in 東京", &[(3, 2)]);
        check("ask łukasz", &[(2, 2)]);
        check("ŁUKASZ", &[(2, 1)]);
    }

    #[test]
    fn a_name_that_is_a_word_must_be_written_as_one() {
        check("that will do", &[]);
        check("so Will said", &[(1, 2)]);
        check("will reyes", &[(1, 2)]);
    }

    #[test]
    fn a_letter_may_be_heard_wrong() {
        let names = names();
        let heard = |it: &str| names.heard(&Tokens::new(it), 0).map(|it| it.0);
        assert_eq!(heard("pria"), Some(3));
        assert_eq!(heard("priyah"), Some(3));
        assert_eq!(heard("prima"), Some(3));
        assert_eq!(heard("private"), None);
        assert_eq!(heard("anne"), Some(0));
        assert_eq!(heard("tom"), None);
    }
}
