//! Topics against the titles and summaries that people gave to meetings.

use std::{collections::HashSet, fmt};

use hearsay_insight::{
    labelled::SummedUp,
    text::words,
    topics::{Topics, stem},
};
use serde::Serialize;

use super::{as_asked, resampled, rouge::cut, share, within};
use crate::cli::EvalText;

/// Topics of a meeting.
const MOST: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Figures {
    /// Topics of which at least half of the words are in a title or in the summary.
    precision: f64,
    precision_interval: (f64, f64),
    /// Titles that share a word with a topic.
    coverage: f64,
    coverage_interval: (f64, f64),
    /// Topics of two words and more.
    phrases: f64,
    phrases_interval: (f64, f64),
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", within("precision", self.precision, self.precision_interval))?;
        writeln!(f, "{}", within("coverage", self.coverage, self.coverage_interval))?;
        f.write_str(&within("of two words and more", self.phrases, self.phrases_interval))
    }
}

/// Words of titles that carry no content.
const EMPTY: &str = " a an and the of to in on for with by from is are was were be been it its this that these those as at \
    or not no we our they their he his she her you your i my us me them which who what how about into than so such also can \
    will would should could may might do does did has have had more most other some any all each between out up over under \
    again there here when where why because while after before during both few own same too very ";

/// The stems of words that carry content.
fn stems(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let content = words(&lower).map(|it| it.text).filter(|it| it.len() > 1 && !EMPTY.contains(&format!(" {it} ")));
    content.map(|it| stem(it).to_owned()).collect()
}

/// What is counted of a meeting.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    found: usize,
    right: usize,
    wide: usize,
    titles: usize,
    covered: usize,
}

pub(super) fn of(meetings: &[SummedUp], how: EvalText) -> Figures {
    let counts: Vec<Count> = meetings.iter().map(|it| count(it, how)).collect();
    let figure = |part: fn(&Count) -> usize, whole: fn(&Count) -> usize| {
        let of = |counts: &mut dyn Iterator<Item = &Count>| {
            let (parts, wholes) = counts.fold((0, 0), |sum, it| (sum.0 + part(it), sum.1 + whole(it)));
            share(parts, wholes)
        };
        (of(&mut counts.iter()), resampled(&counts, of))
    };
    let (precision, precision_interval) = figure(|it| it.right, |it| it.found);
    let (coverage, coverage_interval) = figure(|it| it.covered, |it| it.titles);
    let (phrases, phrases_interval) = figure(|it| it.wide, |it| it.found);
    Figures { precision, precision_interval, coverage, coverage_interval, phrases, phrases_interval }
}

fn count(meeting: &SummedUp, how: EvalText) -> Count {
    let mut topics = Topics::default();
    for sentence in meeting.turns.iter().flat_map(|(_, text)| cut(text)) {
        topics.hear(&as_asked(&sentence, how));
    }
    let said: Vec<String> = topics.best(MOST).into_iter().map(|it| it.phrase).collect();
    let mut gold: HashSet<String> = stems(&meeting.summary).into_iter().collect();
    gold.extend(meeting.topics.iter().flat_map(|it| stems(it)));
    let mut count = Count { found: said.len(), ..Count::default() };
    let mut all = HashSet::new();
    for phrase in &said {
        let of = stems(phrase);
        let known = of.iter().filter(|it| gold.contains(*it)).count();
        count.right += usize::from(!of.is_empty() && 2 * known >= of.len());
        count.wide += usize::from(phrase.contains(' '));
        all.extend(of);
    }
    for title in meeting.topics.iter().map(|it| stems(it)).filter(|it| !it.is_empty()) {
        count.titles += 1;
        count.covered += usize::from(title.iter().any(|it| all.contains(it)));
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_held_against_titles_and_summary() {
        let turns = vec![("A".to_owned(), "The turnip soup. Turnip soup! Parsnip pie; parsnip pie.".to_owned()); 4];
        let topics = vec!["Soups and starters".to_owned(), "Seating".to_owned()];
        let meeting = SummedUp { turns, summary: "Soup was spoken about.".to_owned(), topics };
        let found = of(&[meeting], EvalText::AsIs);
        assert!((found.coverage - 0.5).abs() < 1e-9, "{found:?}");
        assert!(found.precision > 0.2 && found.precision < 0.9 && found.phrases > 0.2, "{found:?}");
    }
}
