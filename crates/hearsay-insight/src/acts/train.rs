//! Fits the heads. The same examples give the same bytes.

use std::{collections::HashMap, thread};

use super::{
    Head, Turn,
    features::{Read, features},
};
use crate::{
    heads::{self, Features, HIDDEN, Kind, Layer, Trained, sigmoid},
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

/// How an utterance is learned from.
#[derive(Clone, Copy, PartialEq)]
enum Copied {
    /// Without marks and case, all around it known.
    Answered,
    /// The same as it is judged at once.
    Live,
    /// As it was written, with none, one or all of what follows known.
    Marked,
}

/// Utterances of meetings, as recognizers may write them: with and without punctuation, before and after what follows is known.
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
    for (texts, copied) in [(&plain, Copied::Answered), (&plain, Copied::Live), (&marked, Copied::Marked)] {
        let seen = labelled::meetings(utterances, texts).into_iter().flat_map(|meeting| around(&meeting, copied));
        examples.extend(seen.zip(utterances).zip(&groups).map(|((features, it), group)| {
            let action = it.commitment || it.directive;
            let labels = [Some(it.question), Some(action), Some(it.suggestion), None];
            Example { features, labels, group: *group, scored: copied != Copied::Marked }
        }));
    }
    examples
}

fn around(meeting: &[Turn<'_>], copied: Copied) -> Vec<Features> {
    // Not everybody who asks knows when it was said.
    let times = |at: usize| if copied == Copied::Marked && at / 50 % 2 == 1 { None } else { meeting[at].times };
    let timed = meeting.iter().enumerate().map(|(at, turn)| Turn { times: times(at), ..*turn });
    let read: Vec<Read<'_>> = timed.map(Read::of).collect();
    let seen = (0..read.len()).map(|at| {
        let after = match copied {
            Copied::Answered => read.len(),
            Copied::Live => at + 1,
            Copied::Marked => [at + 1, at + 2, read.len()][at % 3].min(read.len()),
        };
        features(&read[..at], &read[at], &read[at + 1..after])
    });
    seen.collect()
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
            let features = super::features_of(&utterance);
            Example { features, labels: [None, None, None, Some(it.task)], group: *group, scored }
        }));
    }
    examples
}

/// How each head is fitted; chosen by the figures of [`fit`], which come from training parts only.
#[must_use]
pub fn recipe(head: Head) -> Recipe {
    match head {
        Head::Question => Recipe { passes: 3, step: 0.3, decay: 3e-4, layer: true },
        Head::Action | Head::Suggestion => Recipe { passes: 2, step: 0.2, decay: 1e-4, layer: false },
        Head::Task => Recipe { passes: 10, step: 0.3, decay: 1e-5, layer: false },
    }
}

/// How a head is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recipe {
    pub passes: usize,
    pub step: f32,
    /// How much a weight is drawn to zero each time its feature is seen.
    pub decay: f32,
    /// With the hidden layer.
    pub layer: bool,
}

/// Fitted, with what it did on examples that it was not fitted on.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    pub head: Trained,
    /// Nothing but zeros without one.
    pub layer: Layer,
    /// When it is judged at once, and when what follows is known.
    pub live: Figures,
    pub answered: Figures,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    pub precision: f32,
    pub recall: f32,
    pub f1: f32,
    /// Of long texts only.
    pub long_f1: f32,
}

/// All heads, as they are kept.
#[must_use]
pub fn write(vocabulary: &[u32], fitted: &[Fitted]) -> Vec<u8> {
    let heads: Vec<Trained> = fitted.iter().map(|it| it.head.clone()).collect();
    heads::write(vocabulary, &heads, &fitted[0].layer)
}

/// How often a feature is seen at least, to be known.
const OFTEN: u32 = 10;

/// Examples over the features that are known.
#[derive(Debug)]
pub struct Known<'a> {
    pub vocabulary: Vec<u32>,
    examples: &'a [Example],
    rows: Vec<Vec<(u32, f32)>>,
}

impl<'a> Known<'a> {
    #[must_use]
    pub fn of(examples: &'a [Example]) -> Self {
        let mut seen: HashMap<u32, u32> = HashMap::new();
        for hash in examples.iter().flat_map(|it| it.features.hashes()) {
            *seen.entry(hash).or_default() += 1;
        }
        let mut vocabulary: Vec<u32> = seen.into_iter().filter(|it| it.1 >= OFTEN).map(|it| it.0).collect();
        vocabulary.sort_unstable();
        let rows = examples.iter().map(|it| it.features.known(&vocabulary).collect()).collect();
        Self { vocabulary, examples, rows }
    }
}

const FOLDS: usize = 5;

/// Fits a head on all examples; the thresholds are the best over folds of whole groups, each judged by a head that has not
/// seen them.
#[must_use]
pub fn fit(known: &Known<'_>, head: Head, recipe: &Recipe) -> Fitted {
    let mut judged: [Vec<(f32, bool)>; Kind::COUNT] = Default::default();
    let (network, folds) = thread::scope(|scope| {
        let fold = |fold| scope.spawn(move || judge_fold(known, head, recipe, fold));
        let folds: Vec<_> = (0..FOLDS).map(fold).collect();
        let network = Network::descend(known, head, recipe, |_| true);
        let done = folds.into_iter().map(|it| it.join().expect("a fold is fitted as all of them are"));
        (network, done.collect::<Vec<_>>())
    });
    for (kind, score, label) in folds.into_iter().flatten() {
        judged[kind.index()].push((score, label));
    }
    // Where texts of one kind are rare, the threshold of all is the safer one.
    let all = best(judged.concat());
    let few = |it: &Vec<(f32, bool)>| it.iter().filter(|it| it.1).count() < ENOUGH;
    let thresholds = judged.each_ref().map(|it| if few(it) { all.threshold } else { best(it.clone()).threshold });
    let figures = |answered: bool| {
        let kind = |long: bool| Kind { long, answered }.index();
        let of = |kinds: &[usize]| {
            let verdicts = |it: usize| judged[it].iter().map(move |(score, label)| (*score >= thresholds[it], *label));
            scores(kinds.iter().flat_map(|it| verdicts(*it)))
        };
        let (precision, recall, f1) = of(&[kind(false), kind(true)]);
        Figures { precision, recall, f1, long_f1: of(&[kind(true)]).2 }
    };
    let (live, answered) = (figures(false), figures(true));
    let head = Trained { bias: network.bias, thresholds, weights: network.weights };
    Fitted { head, layer: network.layer, live, answered }
}

/// What a head that has not seen a fold says of it.
fn judge_fold(known: &Known<'_>, head: Head, recipe: &Recipe, fold: usize) -> Vec<(Kind, f32, bool)> {
    let network = Network::descend(known, head, recipe, |it| it.group % FOLDS != fold);
    let scored = known.examples.iter().zip(&known.rows).filter(|it| it.0.scored && it.0.group % FOLDS == fold);
    let judged = scored.filter_map(|(it, row)| {
        let label = it.labels[head as usize]?;
        Some((it.features.kind(), network.score(row), label))
    });
    judged.collect()
}

/// Precision, recall and F1.
fn scores(verdicts: impl Iterator<Item = (bool, bool)>) -> (f32, f32, f32) {
    let (mut said, mut right, mut positive) = (0.0, 0.0, 0.0);
    for (yes, label) in verdicts {
        said += f32::from(u8::from(yes));
        right += f32::from(u8::from(yes && label));
        positive += f32::from(u8::from(label));
    }
    let ratio = |of: f32| if of > 0.0 { right / of } else { 0.0 };
    (ratio(said), ratio(positive), 2.0 * right / (said + positive).max(1.0))
}

/// Positives that a threshold of its own takes.
const ENOUGH: usize = 200;

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

/// A head while it is fitted.
struct Network {
    bias: f32,
    weights: Vec<f32>,
    layer: Layer,
}

/// How far the layer's weights are moved, how much they are drawn to zero, and how many in 2 units rest at a time: those
/// that work learn not to rely on the others.
const LAYER_STEP: f32 = 0.1;
const LAYER_DECAY: f32 = 1e-3;
const OUTPUT_DECAY: f32 = 1e-5;
/// Squares that AdaGrad begins with.
const BEGIN: f32 = 1e-2;

impl Network {
    fn new(features: usize, layer: bool, random: &mut u64) -> Self {
        let mut about = |spread: f32| (next(random) >> 40) as f32 / (1_u32 << 24) as f32 * spread - spread / 2.0;
        let rows = if layer { features } else { 0 };
        let inputs = (0..rows).map(|_| std::array::from_fn(|_| about(0.3))).collect();
        let outputs = std::array::from_fn(|_| about(1.0));
        Self { bias: 0.0, weights: vec![0.0; features], layer: Layer { inputs, bias: [0.0; HIDDEN], outputs } }
    }

    fn flat(features: usize, layer: bool, value: f32) -> Self {
        let rows = if layer { features } else { 0 };
        let layer = Layer { inputs: vec![[value; HIDDEN]; rows], bias: [value; HIDDEN], outputs: [value; HIDDEN] };
        Self { bias: value, weights: vec![value; features], layer }
    }

    fn linear(&self, row: &[(u32, f32)]) -> f32 {
        self.bias + row.iter().map(|(at, value)| self.weights[*at as usize] * value).sum::<f32>()
    }

    /// What reaches the hidden units; nothing without them.
    fn units(&self, row: &[(u32, f32)]) -> [f32; HIDDEN] {
        let mut units = self.layer.bias;
        for (at, value) in row {
            let input = &self.layer.inputs[*at as usize];
            units.iter_mut().zip(input).for_each(|(unit, weight)| *unit += weight * value);
        }
        units
    }

    fn score(&self, row: &[(u32, f32)]) -> f32 {
        if self.layer.inputs.is_empty() {
            return self.linear(row);
        }
        let lit = self.units(row).into_iter().zip(self.layer.outputs);
        self.linear(row) + lit.map(|(unit, output)| unit.max(0.0) * output).sum::<f32>()
    }

    /// Logistic regression by AdaGrad, its weights averaged over the second half of the way.
    fn descend(known: &Known<'_>, head: Head, recipe: &Recipe, with: impl Fn(&Example) -> bool) -> Network {
        let labels = known.examples.iter().map(|it| it.labels[head as usize].filter(|_| with(it)));
        let mut order: Vec<(usize, bool)> = labels.enumerate().filter_map(|(at, it)| Some((at, it?))).collect();
        let features = known.vocabulary.len();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut network = Network::new(features, recipe.layer, &mut random);
        let mut squares = Network::flat(features, recipe.layer, BEGIN);
        let mut sum = Network::flat(features, recipe.layer, 0.0);
        let mut taken = 0.0_f32;
        for pass in 0..recipe.passes {
            shuffle(&mut order, &mut random);
            for &(at, label) in &order {
                network.learn(&mut squares, &known.rows[at], label, recipe, &mut random);
            }
            if pass >= recipe.passes / 2 {
                sum.add(&network);
                taken += 1.0;
            }
        }
        sum.divide(taken);
        if !recipe.layer {
            sum.layer = Layer { inputs: vec![[0.0; HIDDEN]; features], bias: [0.0; HIDDEN], outputs: [0.0; HIDDEN] };
        }
        sum
    }

    fn learn(&mut self, squares: &mut Self, row: &[(u32, f32)], label: bool, recipe: &Recipe, random: &mut u64) {
        let mut score = self.linear(row);
        let mut units = [0.0; HIDDEN];
        let resting = next(random);
        // Twice as bright, as half of them rest.
        let works = |unit: usize| if resting >> unit & 1 == 1 { 2.0_f32 } else { 0.0 };
        if recipe.layer {
            units = self.units(row);
            let lit = (0..HIDDEN).map(|unit| units[unit].max(0.0) * works(unit) * self.layer.outputs[unit]);
            score += lit.sum::<f32>();
        }
        let error = sigmoid(score) - f32::from(u8::from(label));
        for &(at, value) in row {
            let at = at as usize;
            let slope = error * value + recipe.decay * self.weights[at];
            step(&mut self.weights[at], &mut squares.weights[at], slope, recipe.step);
        }
        step(&mut self.bias, &mut squares.bias, error, recipe.step);
        if !recipe.layer {
            return;
        }
        let (layer, squares) = (&mut self.layer, &mut squares.layer);
        let mut slopes = [0.0; HIDDEN];
        for unit in 0..HIDDEN {
            let lit = units[unit].max(0.0) * works(unit);
            if units[unit] > 0.0 {
                slopes[unit] = error * layer.outputs[unit] * works(unit);
            }
            let slope = error * lit + OUTPUT_DECAY * layer.outputs[unit];
            step(&mut layer.outputs[unit], &mut squares.outputs[unit], slope, LAYER_STEP);
            step(&mut layer.bias[unit], &mut squares.bias[unit], slopes[unit], LAYER_STEP);
        }
        for &(at, value) in row {
            let (weights, squares) = (&mut layer.inputs[at as usize], &mut squares.inputs[at as usize]);
            for unit in (0..HIDDEN).filter(|it| slopes[*it] != 0.0) {
                let slope = slopes[unit] * value + LAYER_DECAY * weights[unit];
                step(&mut weights[unit], &mut squares[unit], slope, LAYER_STEP);
            }
        }
    }

    fn numbers(&mut self) -> impl Iterator<Item = &mut f32> {
        let layer = &mut self.layer;
        let around = layer.bias.iter_mut().chain(&mut layer.outputs).chain([&mut self.bias]);
        self.weights.iter_mut().chain(layer.inputs.iter_mut().flatten()).chain(around)
    }

    fn add(&mut self, other: &Self) {
        let layer = &other.layer;
        let around = layer.bias.iter().chain(&layer.outputs).chain([&other.bias]);
        let others = other.weights.iter().chain(layer.inputs.iter().flatten()).chain(around);
        self.numbers().zip(others).for_each(|(sum, it)| *sum += it);
    }

    fn divide(&mut self, by: f32) {
        self.numbers().for_each(|it| *it /= by);
    }
}

/// One of AdaGrad's: what moved much already moves less.
fn step(weight: &mut f32, squares: &mut f32, slope: f32, by: f32) {
    *squares += slope * slope;
    *weight -= by * slope / squares.sqrt();
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T], state: &mut u64) {
    for end in (1..items.len()).rev() {
        items.swap(end, (next(state) % (end as u64 + 1)) as usize);
    }
}

/// Of splitmix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{acts::Utterance, heads::Heads};

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
        let examples = of_meetings(&sample());
        let trained = |head| {
            let known = Known::of(&examples);
            let fitted = fit(&known, head, &recipe(head));
            (write(&known.vocabulary, std::slice::from_ref(&fitted)), fitted)
        };
        let (bytes, fitted) = trained(Head::Question);
        assert!(fitted.answered.f1 > 0.99 && fitted.live.f1 > 0.99, "{:?} {:?}", fitted.answered, fitted.live);
        assert_eq!(bytes, trained(Head::Question).0);
        let head = Heads::<1>::read(&bytes).unwrap();
        let asks = |text| {
            let features = super::super::features_of(&Utterance { text, previous: None, next: None });
            head.judge(&features)[0] >= 0.5
        };
        assert!(asks("do you have the other item"));
        assert!(!asks("i have the other item"));
    }

    #[test]
    fn units_tell_what_no_sum_of_weights_can() {
        // Neither of a pair tells anything by itself: no line parts these.
        let of = |own: &[u32]| Features::of(own.to_vec(), vec![], Kind::default());
        let kinds = [(vec![1, 3], true), (vec![2, 4], true), (vec![1, 4], false), (vec![2, 3], false)];
        let examples: Vec<Example> = (0..2_000)
            .map(|at| {
                let (own, label) = &kinds[at % 4];
                Example { features: of(own), labels: [Some(*label), None, None, None], group: at / 4, scored: true }
            })
            .collect();
        let known = Known::of(&examples);
        let fitted = |layer| fit(&known, Head::Question, &Recipe { passes: 40, step: 0.3, decay: 1e-5, layer });
        let (with, without) = (fitted(true).live.f1, fitted(false).live.f1);
        assert!(with > 0.99 && with > without, "{with} {without}");
    }

    #[test]
    fn the_best_threshold_parts_what_can_be_parted() {
        let found = best(vec![(0.2, false), (0.9, true), (0.6, true), (0.4, false)]);
        assert!((found.threshold - 0.5).abs() < 1e-6 && (found.f1 - 1.0).abs() < 1e-6);
        assert!(best(vec![(0.2, false)]).f1 < 1e-6);
    }
}
