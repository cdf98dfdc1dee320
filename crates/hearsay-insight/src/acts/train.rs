//! Fits the heads. The same examples give the same bytes.

use super::{Head, Utterance, features::features};
use crate::{
    heads::{BUCKETS, Features, Trained, sigmoid},
    labelled::{self, Spoken, Written},
};

/// An utterance and what it does.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    features: Features,
    /// Of each of [`Head::ALL`]; None where its labels do not tell.
    labels: [Option<bool>; 4],
    /// Examples of one meeting or document; never on both sides of a split.
    group: usize,
    /// Counts when thresholds are chosen and figures are taken; the others are only learned from.
    scored: bool,
}

impl Example {
    #[must_use]
    pub fn new(utterance: &Utterance<'_>, labels: [Option<bool>; 4], group: usize, scored: bool) -> Self {
        Self { features: features(utterance), labels, group, scored }
    }
}

/// Utterances of meetings, as recognizers may write them: with and without punctuation, before and after the next is known.
#[must_use]
pub fn of_meetings(utterances: &[Spoken]) -> Vec<Example> {
    let groups = labelled::groups(utterances.iter().map(|it| it.meeting.as_str()));
    let plain: Vec<String> = utterances.iter().map(|it| labelled::bare(&it.text)).collect();
    // Recognizers often end a question with a full stop: that there is no question mark must not decide it alone.
    let marked = utterances.iter().enumerate().map(|(at, it)| match at % 3 {
        0 => it.text.replace('?', "."),
        _ => it.text.clone(),
    });
    let marked: Vec<String> = marked.collect();
    let mut examples = Vec::with_capacity(utterances.len() * 3);
    for (texts, ahead, scored) in [(&plain, true, true), (&plain, false, true), (&marked, true, false)] {
        let judged = labelled::in_meeting(utterances, texts, ahead).zip(utterances).zip(&groups);
        examples.extend(judged.map(|((utterance, it), group)| {
            let action = it.commitment || it.directive;
            let labels = [Some(it.question), Some(action), Some(it.suggestion), None];
            Example::new(&utterance, labels, *group, scored)
        }));
    }
    examples
}

/// Sentences of documents, as written and bare.
#[must_use]
pub fn of_documents(sentences: &[Written]) -> Vec<Example> {
    let groups = labelled::groups(sentences.iter().map(|it| it.document.as_str()));
    let written: Vec<String> = sentences.iter().map(|it| it.text.clone()).collect();
    let plain: Vec<String> = sentences.iter().map(|it| labelled::bare(&it.text)).collect();
    let mut examples = Vec::with_capacity(sentences.len() * 2);
    for (texts, scored) in [(&written, true), (&plain, false)] {
        let judged = labelled::in_document(sentences, texts).zip(sentences).zip(&groups);
        examples.extend(judged.map(|((utterance, it), group)| {
            Example::new(&utterance, [None, None, None, Some(it.task)], *group, scored)
        }));
    }
    examples
}

/// How each head is fitted; chosen by the figures of [`fit`], which come from training parts only.
#[must_use]
pub fn recipe(head: Head) -> Recipe {
    match head {
        Head::Question => Recipe { passes: 3, step: 0.3, decay: 3e-4, positive: 1.0 },
        Head::Action | Head::Suggestion => Recipe { passes: 4, step: 0.2, decay: 1e-4, positive: 1.0 },
        Head::Task => Recipe { passes: 10, step: 0.3, decay: 1e-5, positive: 1.0 },
    }
}

/// How a head is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recipe {
    pub passes: usize,
    pub step: f32,
    /// How much a weight is drawn to zero each time its feature is seen.
    pub decay: f32,
    /// How much more a positive counts.
    pub positive: f32,
}

/// Fitted, with what it did on examples that it was not fitted on.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    pub head: Trained,
    pub precision: f32,
    pub recall: f32,
    pub f1: f32,
}

const FOLDS: usize = 5;

/// Fits a head on all examples; the threshold is the best over folds of whole groups, each judged by a head that has not
/// seen them.
#[must_use]
pub fn fit(examples: &[Example], head: Head, recipe: &Recipe) -> Fitted {
    let mut judged: [Vec<(f32, bool)>; 2] = Default::default();
    for fold in 0..FOLDS {
        let trained = descend(examples, head, recipe, |it| it.group % FOLDS != fold);
        for it in examples.iter().filter(|it| it.scored && it.group % FOLDS == fold) {
            if let Some(label) = it.labels[head as usize] {
                judged[usize::from(it.features.is_long())].push((score(&trained, &it.features), label));
            }
        }
    }
    // Where texts of one length are rare, the threshold of all is the safer one.
    let both = best(judged.concat());
    let few = |it: &Vec<(f32, bool)>| it.iter().filter(|it| it.1).count() < ENOUGH;
    let thresholds = judged.each_ref().map(|it| if few(it) { both.threshold } else { best(it.clone()).threshold });
    let found =
        judged.iter().zip(thresholds).flat_map(|(it, threshold)| it.iter().map(move |it| (it.0 >= threshold, it.1)));
    let (mut said, mut right, mut positive) = (0.0, 0.0, 0.0);
    for (yes, label) in found {
        said += f32::from(u8::from(yes));
        right += f32::from(u8::from(yes && label));
        positive += f32::from(u8::from(label));
    }
    let head = Trained { thresholds, ..descend(examples, head, recipe, |_| true) };
    let ratio = |of: f32| if of > 0.0 { right / of } else { 0.0 };
    Fitted { head, precision: ratio(said), recall: ratio(positive), f1: 2.0 * right / (said + positive).max(1.0) }
}

/// Positives that a threshold of its own takes.
const ENOUGH: usize = 500;

fn score(head: &Trained, features: &Features) -> f32 {
    head.bias + features.buckets().iter().map(|it| head.weights[*it as usize]).sum::<f32>() * features.value()
}

/// A threshold, and what it does.
struct Best {
    threshold: f32,
    f1: f32,
}

/// The threshold with the highest F1.
fn best(mut judged: Vec<(f32, bool)>) -> Best {
    judged.sort_by(|a, b| b.0.total_cmp(&a.0));
    let positive = judged.iter().filter(|it| it.1).count() as f32;
    let (mut found, mut best) = (0.0_f32, Best { threshold: 0.0, f1: 0.0 });
    for (at, (score, label)) in judged.iter().enumerate() {
        found += f32::from(u8::from(*label));
        let f1 = 2.0 * found / ((at + 1) as f32 + positive);
        if f1 > best.f1 {
            let next = judged.get(at + 1).map_or(*score, |it| it.0);
            best = Best { threshold: f32::midpoint(*score, next), f1 };
        }
    }
    best
}

/// Logistic regression by AdaGrad, its weights averaged over the second half of the way.
fn descend(examples: &[Example], head: Head, recipe: &Recipe, with: impl Fn(&Example) -> bool) -> Trained {
    let mut order: Vec<(usize, bool)> = examples
        .iter()
        .enumerate()
        .filter(|it| with(it.1))
        .filter_map(|(at, it)| Some((at, it.labels[head as usize]?)))
        .collect();
    let mut weights = vec![0.0_f32; BUCKETS];
    let mut squares = vec![1e-2_f32; BUCKETS];
    let mut bias = (0.0_f32, 1e-2_f32);
    let (mut sums, mut sum_bias, mut taken) = (vec![0.0_f32; BUCKETS], 0.0_f32, 0.0_f32);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for pass in 0..recipe.passes {
        shuffle(&mut order, &mut random);
        for &(at, label) in &order {
            let (buckets, value) = (examples[at].features.buckets(), examples[at].features.value());
            let sum: f32 = bias.0 + buckets.iter().map(|it| weights[*it as usize]).sum::<f32>() * value;
            let error = (sigmoid(sum) - f32::from(u8::from(label))) * if label { recipe.positive } else { 1.0 };
            for &it in buckets {
                let it = it as usize;
                let slope = error * value + recipe.decay * weights[it];
                squares[it] += slope * slope;
                weights[it] -= recipe.step * slope / squares[it].sqrt();
            }
            bias.1 += error * error;
            bias.0 -= recipe.step * error / bias.1.sqrt();
        }
        if pass >= recipe.passes / 2 {
            sums.iter_mut().zip(&weights).for_each(|(sum, weight)| *sum += weight);
            sum_bias += bias.0;
            taken += 1.0;
        }
    }
    sums.iter_mut().for_each(|it| *it /= taken);
    Trained { bias: sum_bias / taken, thresholds: [0.0; 2], weights: sums }
}

/// Fisher and Yates with splitmix64.
fn shuffle<T>(items: &mut [T], state: &mut u64) {
    for end in (1..items.len()).rev() {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        items.swap(end, (mixed % (end as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heads::{self, Heads};

    /// Six small meetings in which questions start with "do you".
    fn sample() -> Vec<Spoken> {
        let header = "meeting\tstart\tend\tspeaker\tda\tquestion\tcommit\tdirective\tsuggest\tinterrupted\ttext\n";
        let mut text = header.to_owned();
        for meeting in 0..6 {
            for at in 0..20 {
                let (asks, said) = match at % 2 {
                    0 => (1, format!("do you have the item {at}?")),
                    _ => (0, format!("i have the item {at}.")),
                };
                text += &format!("m{meeting}\t{at}\t{at}.5\ts{}\tx\t{asks}\t0\t0\t0\t0\t{said}\n", at % 2);
            }
        }
        labelled::spoken(&text).unwrap()
    }

    #[test]
    fn the_same_examples_give_the_same_bytes_and_heads_that_work() {
        let trained = || {
            let fitted = fit(&of_meetings(&sample()), Head::Question, &recipe(Head::Question));
            assert!(fitted.f1 > 0.99, "{}", fitted.f1);
            heads::write(&[fitted.head])
        };
        let bytes = trained();
        assert_eq!(bytes, trained());
        let head = Heads::<1>::read(&bytes).unwrap();
        let asks = |text| head.judge(&features(&Utterance { text, previous: None, next: None }))[0] >= 0.5;
        assert!(asks("do you have the other item"));
        assert!(!asks("i have the other item"));
    }

    #[test]
    fn the_best_threshold_parts_what_can_be_parted() {
        let found = best(vec![(0.2, false), (0.9, true), (0.6, true), (0.4, false)]);
        assert!((found.threshold - 0.5).abs() < 1e-6 && (found.f1 - 1.0).abs() < 1e-6);
        assert!(best(vec![(0.2, false)]).f1 < 1e-6);
    }
}
