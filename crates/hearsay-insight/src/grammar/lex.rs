//! A text as the grammar reads it: runs of letters, runs of digits, and single marks.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Word,
    Digits,
    Mark,
}

/// One token of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    /// In ASCII lower case.
    pub(crate) text: &'a str,
    /// Bytes of the text: first and after the last.
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Nothing stands between it and the token before it.
    pub(crate) glued: bool,
}

/// The tokens of a text, asked for by index; past the end everything is empty.
#[derive(Debug)]
pub(crate) struct Tokens<'a> {
    all: Vec<Token<'a>>,
}

impl<'a> Tokens<'a> {
    /// `lower` is the text in ASCII lower case, which keeps every byte's place.
    pub(crate) fn new(lower: &'a str) -> Self {
        let mut all = Vec::with_capacity(lower.len() / 4);
        let mut rest = lower.char_indices().peekable();
        let mut previous = 0;
        while let Some((start, first)) = rest.next() {
            if first.is_whitespace() {
                continue;
            }
            let kind = kind(first);
            let mut end = start + first.len_utf8();
            if kind != Kind::Mark {
                while let Some(&(at, next)) = rest.peek() {
                    if self::kind(next) != kind || next.is_whitespace() {
                        break;
                    }
                    end = at + next.len_utf8();
                    rest.next();
                }
            }
            all.push(Token { kind, text: &lower[start..end], start, end, glued: start == previous && start > 0 });
            previous = end;
        }
        Self { all }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, at: usize) -> Option<&Token<'a>> {
        #[cfg(test)]
        work::count();
        self.all.get(at)
    }

    /// The word there, or nothing.
    pub(crate) fn word(&self, at: usize) -> &'a str {
        match self.get(at) {
            Some(it) if it.kind == Kind::Word => it.text,
            _ => "",
        }
    }

    /// The digits there, or nothing.
    pub(crate) fn digits(&self, at: usize) -> &'a str {
        match self.get(at) {
            Some(it) if it.kind == Kind::Digits => it.text,
            _ => "",
        }
    }

    pub(crate) fn is(&self, at: usize, mark: &str) -> bool {
        self.get(at).is_some_and(|it| it.kind == Kind::Mark && it.text == mark)
    }

    pub(crate) fn is_any(&self, at: usize, marks: &[&str]) -> bool {
        marks.iter().any(|it| self.is(at, it))
    }

    /// One of these words, with spaces between them.
    pub(crate) fn any(&self, at: usize, words: &str) -> bool {
        let word = self.word(at);
        !word.is_empty() && words.split(' ').any(|it| it == word)
    }

    /// These words one after another, with spaces between them: where they end.
    pub(crate) fn phrase(&self, at: usize, words: &str) -> Option<usize> {
        let mut next = at;
        for it in words.split(' ') {
            if self.word(next) != it {
                return None;
            }
            next += 1;
        }
        Some(next)
    }

    /// Nothing stands before the token.
    pub(crate) fn glued(&self, at: usize) -> bool {
        self.get(at).is_some_and(|it| it.glued)
    }

    /// The word's possessive ending, `'s` or `’s`.
    pub(crate) fn possessive(&self, at: usize) -> Option<usize> {
        (self.apostrophe(at) && self.word(at + 1) == "s").then_some(at + 2)
    }

    pub(crate) fn apostrophe(&self, at: usize) -> bool {
        self.is_any(at, &["'", "’", "`"])
    }

    pub(crate) fn dash(&self, at: usize) -> bool {
        self.is_any(at, &["-", "–", "—", "~"])
    }

    pub(crate) fn start(&self, at: usize) -> usize {
        self.get(at).map_or(0, |it| it.start)
    }

    /// Where the tokens before `at` end.
    pub(crate) fn end(&self, at: usize) -> usize {
        at.checked_sub(1).and_then(|it| self.get(it)).map_or(0, |it| it.end)
    }
}

/// How many tokens were looked at, so that tests can tell the work of a text without a clock.
#[cfg(test)]
pub(crate) mod work {
    use std::cell::Cell;

    thread_local! {
        static LOOKS: Cell<u64> = const { Cell::new(0) };
    }

    pub(crate) fn count() {
        LOOKS.with(|it| it.set(it.get() + 1));
    }

    /// The looks that `f` takes.
    pub(crate) fn of<T>(f: impl FnOnce() -> T) -> u64 {
        let before = LOOKS.with(Cell::get);
        let _ = f();
        LOOKS.with(Cell::get) - before
    }
}

fn kind(it: char) -> Kind {
    if it.is_ascii_digit() {
        Kind::Digits
    } else if it.is_alphanumeric() || matches!(it, '\u{300}'..='\u{36f}') {
        Kind::Word
    } else {
        Kind::Mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let tokens = Tokens::new(text);
        assert_eq!(tokens.all.iter().map(|it| it.text).collect::<Vec<_>>(), expected);
        for it in &tokens.all {
            assert_eq!(&text[it.start..it.end], it.text);
        }
    }

    #[test]
    fn letters_digits_and_marks_are_told_apart() {
        check("mar4 at 10:30am", &["mar", "4", "at", "10", ":", "30", "am"]);
        check("o’clock  twenty-fifth", &["o", "’", "clock", "twenty", "-", "fifth"]);
        check("東京 größe e\u{301}!", &["東京", "größe", "e\u{301}", "!"]);
        check(" \u{a0}\n", &[]);
    }

    #[test]
    fn a_token_knows_whether_it_touches_the_one_before() {
        let tokens = Tokens::new("$ 10.5");
        assert_eq!((0..4).map(|it| tokens.glued(it)).collect::<Vec<_>>(), [false, false, true, true]);
    }
}
