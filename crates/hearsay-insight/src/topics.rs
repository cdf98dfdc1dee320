//! What a conversation is about, as it goes: the phrases it keeps coming back to.
//!
//! Runs of words that carry content are counted by their stems. A phrase weighs what its words weigh, as often as it holds
//! together; what was chosen already makes what shares its words weigh less.

use std::{
    collections::{BTreeSet, HashMap},
    sync::LazyLock,
};

use crate::text::words;

/// In how many of how many stretches of general text a word stands, for those that stand in some.
static GENERAL: LazyLock<General> = LazyLock::new(|| General::read(include_str!("../weights/words.txt")));

/// Stems, and phrases, that are counted at once; when there are more, the rarest are forgotten.
const STEMS: usize = 4_096;
const PHRASES: usize = 8_192;
/// Bytes of a word that is counted.
const WORD: usize = 32;
/// Words of a phrase.
const LONGEST: usize = 3;
/// A word that is in more than half of general text carries no content.
const COMMON: f32 = 0.7;
/// How often a phrase, and a word alone, must have been said.
const TWICE: u32 = 2;
const THRICE: u32 = 3;
/// Chosen on meetings with titles and summaries: how much a word alone weighs against a phrase, how much is left of one whose
/// words were chosen, how much saying it again weighs, how much its rarity.
const ALONE: f32 = 0.3;
const LEFT: f32 = 0.3;
const OFTEN: f32 = 1.2;
const RARE: f32 = 0.5;
/// Phrases that are weighed against each other.
const CANDIDATES: usize = 256;

/// Words that are said rather than meant, where general text has few of them.
const NOISE: &str = " hmm mmm mhm uhuh huh gonna wanna gotta kinda sorta dunno lemme gimme yep nope yup okay alright whatever \
    thanks thank bye hello guys somebody everybody anybody each next own same other another first second third last one \
    two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand million half \
    monday tuesday wednesday thursday friday saturday sunday today tomorrow yesterday morning afternoon inaudible \
    vocalsound disfmarker laughter ";

struct General {
    stretches: f32,
    words: HashMap<&'static str, f32>,
}

impl General {
    /// The first line is how many stretches there are.
    fn read(text: &'static str) -> Self {
        let mut lines = text.lines();
        let stretches = lines.next().and_then(|it| it.parse().ok()).unwrap_or(1.0);
        let word =
            |line: &'static str| line.split_once(' ').and_then(|(word, count)| Some((word, count.parse().ok()?)));
        Self { stretches, words: lines.filter_map(word).collect() }
    }

    fn rarity(&self, word: &str) -> f32 {
        ((self.stretches + 1.0) / (self.words.get(word).copied().unwrap_or(0.0) + 1.0)).ln()
    }
}

/// Words of one meaning end differently: what they have in common.
#[must_use]
pub fn stem(word: &str) -> &str {
    const ENDINGS: [&str; 15] =
        ["ations", "ation", "ings", "ing", "ers", "ies", "ied", "ed", "es", "er", "ly", "'s", "s", "y", "e"];
    let cut = |ending: &&str| word.strip_suffix(*ending).filter(|rest| rest.chars().count() >= 3);
    ENDINGS.iter().find_map(cut).unwrap_or(word)
}

/// The word in lower case, if it carries content.
fn content(word: &str) -> Option<String> {
    let word = word.to_lowercase().replace('’', "'");
    let bare = word.strip_suffix("'s").unwrap_or(&word);
    let short = bare.len() > WORD || bare.chars().count() < 3;
    let odd = bare.contains('\'') || bare.chars().all(|it| it.is_numeric()) || !bare.starts_with(char::is_alphabetic);
    let noise = short || odd || NOISE.contains(&format!(" {bare} ")) || GENERAL.rarity(bare) <= COMMON;
    (!noise).then(|| bare.to_owned())
}

/// A phrase, with how much it weighs.
#[derive(Debug, Clone, PartialEq)]
pub struct Topic {
    /// As it was said most often.
    pub phrase: String,
    /// The stems of its words.
    pub stems: Vec<String>,
    /// 0 to 1; the first is 1.
    pub score: f32,
}

/// What was said, counted.
#[derive(Debug, Clone, Default)]
pub struct Topics {
    /// By stem: how often, and its forms.
    stems: HashMap<String, Counted>,
    /// By stems with spaces between them.
    phrases: HashMap<String, Counted>,
}

#[derive(Debug, Clone, Default)]
struct Counted {
    times: u32,
    /// A few of the forms it was said in, and how often.
    forms: Vec<(String, u32)>,
}

/// Forms that are told apart.
const FORMS: usize = 4;

impl Counted {
    fn say(&mut self, form: &str) {
        self.times = self.times.saturating_add(1);
        if let Some(known) = self.forms.iter_mut().find(|it| it.0 == form) {
            known.1 += 1;
        } else if self.forms.len() < FORMS {
            self.forms.push((form.to_owned(), 1));
        }
    }

    fn form(&self) -> &str {
        // The first of those that are as frequent.
        self.forms.iter().rev().max_by_key(|it| it.1).map_or("", |it| &it.0)
    }
}

/// Forgets what was said least often, so that there is room again.
fn forget(counted: &mut HashMap<String, Counted>, most: usize) {
    if counted.len() <= most {
        return;
    }
    let mut times: Vec<u32> = counted.values().map(|it| it.times).collect();
    let middle = times.len() / 2;
    let rare = *times.select_nth_unstable(middle).1;
    counted.retain(|_, it| it.times > rare);
}

impl Topics {
    /// Counts a sentence; says whether there was anything in it.
    pub fn hear(&mut self, sentence: &str) -> bool {
        let mut any = false;
        let mut run: Vec<(String, String)> = Vec::new();
        let mut end = 0;
        for word in words(sentence) {
            // Marks part phrases as empty words do.
            let parted = sentence.get(end..word.start).is_some_and(|gap| gap.trim() != "");
            end = word.end;
            if parted {
                any |= self.count(&run);
                run.clear();
            }
            match content(word.text) {
                Some(form) => run.push((stem(&form).to_owned(), form)),
                None => {
                    any |= self.count(&run);
                    run.clear();
                }
            }
        }
        any |= self.count(&run);
        forget(&mut self.stems, STEMS);
        forget(&mut self.phrases, PHRASES);
        any
    }

    fn count(&mut self, run: &[(String, String)]) -> bool {
        for (at, (stem, form)) in run.iter().enumerate() {
            self.stems.entry(stem.clone()).or_default().say(form);
            for width in 2..=LONGEST {
                let Some(part) = run.get(at..at + width) else { break };
                let stems: BTreeSet<&str> = part.iter().map(|it| it.0.as_str()).collect();
                if stems.len() == width {
                    let joined = |of: fn(&(String, String)) -> &str| part.iter().map(of).collect::<Vec<_>>().join(" ");
                    self.phrases.entry(joined(|it| &it.0)).or_default().say(&joined(|it| &it.1));
                }
            }
        }
        !run.is_empty()
    }

    /// How much a word weighs by itself.
    fn weight(&self, stem: &str) -> f32 {
        self.stems.get(stem).map_or(0.0, |it| (it.times as f32).powf(OFTEN) * GENERAL.rarity(it.form()).powf(RARE))
    }

    /// The first `most`, the heaviest first. The same words give the same topics, whatever the order of the tables.
    #[must_use]
    pub fn best(&self, most: usize) -> Vec<Topic> {
        let alone = self.stems.iter().filter(|it| it.1.times >= THRICE).map(|(stem, counted)| {
            let weight = self.weight(stem) * ALONE;
            (weight, vec![stem.as_str()], counted)
        });
        let phrases = self.phrases.iter().filter(|it| it.1.times >= TWICE).map(|(stems, counted)| {
            let stems: Vec<&str> = stems.split(' ').collect();
            let said = |stem: &&str| self.stems.get(*stem).map_or(counted.times, |it| it.times);
            let together = counted.times as f32 / stems.iter().map(said).min().unwrap_or(1).max(1) as f32;
            let weight = stems.iter().map(|it| self.weight(it)).sum::<f32>() / stems.len() as f32;
            (weight * together.min(1.0), stems, counted)
        });
        let mut candidates: Vec<_> = alone.chain(phrases).collect();
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        candidates.truncate(CANDIDATES);
        let mut chosen: Vec<Topic> = Vec::new();
        let mut covered: HashMap<&str, u32> = HashMap::new();
        let mut first = 0.0;
        while chosen.len() < most {
            let left = |stems: &[&str]| {
                let again: u32 = stems.iter().filter_map(|it| covered.get(it)).sum();
                LEFT.powf(again as f32 / stems.len() as f32)
            };
            let heaviest = candidates
                .iter()
                .enumerate()
                .map(|(at, it)| (at, it.0 * left(&it.1)))
                .reduce(|best, next| if next.1 > best.1 { next } else { best });
            let Some((at, weight)) = heaviest else { break };
            let (_, stems, counted) = candidates.remove(at);
            if chosen.is_empty() {
                first = weight;
            }
            for stem in &stems {
                *covered.entry(stem).or_default() += 1;
            }
            chosen.push(Topic {
                phrase: counted.form().to_owned(),
                stems: stems.into_iter().map(str::to_owned).collect(),
                score: if first > 0.0 { weight / first } else { 0.0 },
            });
        }
        chosen
    }
}

/// Counts in how many of the texts each word stands: what `weights/words.txt` is made of.
#[cfg(feature = "labelled")]
#[must_use]
pub fn general(texts: &[String]) -> String {
    /// Rarer words are as rare as any.
    const FEW: u32 = 4;
    let mut found: std::collections::BTreeMap<String, u32> = std::collections::BTreeMap::new();
    for text in texts {
        let lower = text.to_lowercase().replace('’', "'");
        let each: BTreeSet<&str> = words(&lower).map(|it| it.text).filter(|it| it.len() <= WORD).collect();
        for word in each {
            *found.entry(word.to_owned()).or_default() += 1;
        }
    }
    let lines = found.iter().filter(|it| *it.1 >= FEW).map(|(word, count)| format!("{word} {count}\n"));
    format!("{}\n{}", texts.len(), lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heard(sentences: &[&str]) -> Topics {
        let mut topics = Topics::default();
        for it in sentences {
            topics.hear(it);
        }
        topics
    }

    #[test]
    fn what_is_said_again_is_a_topic() {
        let topics = heard(&[
            "So the marketing budget is what we have to talk about.",
            "I think the marketing budgets are too small for television adverts.",
            "Yeah, um, hmm, hmm, hmm. Television adverts, you know, they cost a lot.",
            "The marketing budget, okay.",
        ]);
        let best = topics.best(3);
        let phrases: Vec<&str> = best.iter().map(|it| it.phrase.as_str()).collect();
        assert_eq!(phrases[..2], ["marketing budget", "television adverts"]);
        assert_eq!(best[0].stems, ["market", "budget"]);
        assert!((best[0].score - 1.0).abs() < 1e-6 && best[1].score < 1.0);
    }

    #[test]
    fn what_everybody_says_is_none() {
        assert_eq!(heard(&["Okay, yeah, I think so, you know."; 50]).best(9), []);
        assert!(!Topics::default().hear("Yeah, um. 3 4 5 don't that's"));
        assert_eq!(Topics::default().best(9), []);
    }

    #[test]
    fn marks_part_phrases() {
        let best = heard(&["parsnip, turnip", "parsnip, turnip", "parsnip; turnip"]).best(9);
        assert!(best.iter().all(|it| !it.phrase.contains(' ')), "{best:?}");
    }

    #[test]
    fn any_number_of_words_takes_bounded_room() {
        let mut topics = Topics::default();
        for at in 0..20_000_u32 {
            topics.hear(&format!("zq{at:x}k vb{at:x}x turnip soup"));
            assert!(topics.stems.len() <= STEMS && topics.phrases.len() <= PHRASES);
        }
        assert_eq!(topics.best(1)[0].phrase, "turnip soup");
    }

    proptest! {
        #[test]
        fn anything_is_counted(texts in prop::collection::vec("\\PC{0,80}|(turnip |soup |the |, |ß’s ){0,12}", 0..20)) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let best = heard(&texts).best(10);
            prop_assert_eq!(&best, &heard(&texts).best(10));
            prop_assert!(best.len() <= 10);
            for it in &best {
                prop_assert!((0.0..=1.0).contains(&it.score) && !it.phrase.is_empty() && !it.stems.is_empty());
            }
        }
    }
}
