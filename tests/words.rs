//! Compares what was recognised with what was said.

/// Words without case and punctuation; digits and common contractions as they are.
pub fn normalize(text: &str) -> Vec<String> {
    let text = text.to_lowercase().replace(['’', '‘'], "'").replace(['-', '—', '–'], " ");
    let word = |word: &str| word.chars().filter(|c| c.is_alphanumeric() || *c == '\'').collect::<String>();
    text.split_whitespace()
        .map(word)
        .map(|word| word.trim_matches('\'').to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

/// How two word sequences differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Errors {
    pub substituted: usize,
    pub deleted: usize,
    pub inserted: usize,
    /// Words of the reference.
    pub words: usize,
}

impl Errors {
    pub fn rate(self) -> f64 {
        (self.substituted + self.deleted + self.inserted) as f64 / self.words.max(1) as f64
    }
}

impl std::ops::AddAssign for Errors {
    fn add_assign(&mut self, other: Self) {
        self.substituted += other.substituted;
        self.deleted += other.deleted;
        self.inserted += other.inserted;
        self.words += other.words;
    }
}

/// The fewest changes that make `heard` of `said`.
pub fn errors(said: &[String], heard: &[String]) -> Errors {
    // One row of (cost, substituted, deleted, inserted) at a time.
    type Cell = (usize, usize, usize, usize);
    let mut row: Vec<Cell> = (0..=heard.len()).map(|n| (n, 0, 0, n)).collect();
    for (index, word) in said.iter().enumerate() {
        let mut next: Vec<Cell> = vec![(index + 1, 0, index + 1, 0)];
        for (place, other) in heard.iter().enumerate() {
            let (diagonal, above, left) = (row[place], row[place + 1], next[place]);
            let matched =
                if word == other { diagonal } else { (diagonal.0 + 1, diagonal.1 + 1, diagonal.2, diagonal.3) };
            let deleted = (above.0 + 1, above.1, above.2 + 1, above.3);
            let inserted = (left.0 + 1, left.1, left.2, left.3 + 1);
            next.push(matched.min(deleted).min(inserted));
        }
        row = next;
    }
    let (_, substituted, deleted, inserted) = row[heard.len()];
    Errors { substituted, deleted, inserted, words: said.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_kind() {
        let said = normalize("It was the best of times, it was the worst of times.");
        assert_eq!(errors(&said, &said), Errors { words: 12, ..Errors::default() });
        let heard = normalize("it was a best of times it was the very worst of");
        assert_eq!(errors(&said, &heard), Errors { substituted: 1, deleted: 1, inserted: 1, words: 12 });
        assert_eq!(errors(&said, &[]).rate(), 1.0);
    }
}
