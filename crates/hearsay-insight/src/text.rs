//! Words, as everything here counts them.

/// A word of a text, with where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<'a> {
    /// As written, without the punctuation around it.
    pub text: &'a str,
    /// Bytes of the text: first and after the last.
    pub start: usize,
    pub end: usize,
}

/// The words of a text: runs of letters and digits, with single apostrophes and hyphens inside them.
pub fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let mut rest = text.char_indices().peekable();
    std::iter::from_fn(move || {
        let (start, first) = rest.find(|(_, it)| it.is_alphanumeric())?;
        let mut end = start + first.len_utf8();
        while let Some(&(at, it)) = rest.peek() {
            if it.is_alphanumeric() {
                end = at + it.len_utf8();
            } else if !(matches!(it, '\'' | '’' | '-') && at == end) {
                break;
            }
            rest.next();
        }
        Some(Word { text: &text[start..end], start, end })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let found: Vec<Word<'_>> = words(text).collect();
        assert_eq!(found.iter().map(|it| it.text).collect::<Vec<_>>(), expected);
        for word in found {
            assert_eq!(&text[word.start..word.end], word.text);
        }
    }

    #[test]
    fn words_are_letters_and_digits_with_what_joins_them() {
        check(
            "Don't stop, it's a state-of-the-art 3.5 x!",
            &["Don't", "stop", "it's", "a", "state-of-the-art", "3", "5", "x"],
        );
        check("'quoted' -- dashed- twice--joined", &["quoted", "dashed", "twice", "joined"]);
        check("Größe 東京 e\u{301}", &["Größe", "東京", "e"]);
        check("", &[]);
        check("…?!", &[]);
    }
}
