//! Heads over hashed features: what they weigh, and the file they are kept in.
//!
//! A head is linear; the first one has a small hidden layer beside that. Only features that were seen often enough are known,
//! each by its whole hash, so that a rare one never counts as another.

use std::fmt;

/// Units of the hidden layer.
pub const HIDDEN: usize = 8;
/// What the features around an utterance count, where its own count one.
const NEAR: f32 = 0.5;

const MAGIC: &[u8; 8] = b"HSHEADS3";
const HEADER: usize = MAGIC.len() + 4 + 4;
const HEAD: usize = 6 * 4;
const LAYER: usize = 3 * HIDDEN * 4;

/// The features of an utterance: hashes, each once, in rising order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    own: Vec<u32>,
    near: Vec<u32>,
    kind: Kind,
}

/// Each kind is judged by thresholds of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kind {
    /// Short ones are harder to tell apart.
    pub long: bool,
    /// What was said after it is known.
    pub answered: bool,
}

impl Kind {
    pub const COUNT: usize = 4;

    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.answered) * 2 + usize::from(self.long)
    }
}

impl Features {
    /// Of the utterance's own words, and of what is around it.
    #[must_use]
    pub fn of(mut own: Vec<u32>, mut near: Vec<u32>, kind: Kind) -> Self {
        for it in [&mut own, &mut near] {
            it.sort_unstable();
            it.dedup();
        }
        Self { own, near, kind }
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn hashes(&self) -> impl Iterator<Item = u32> {
        self.own.iter().chain(&self.near).copied()
    }

    /// Those of a vocabulary, by their place there, with what each counts: both parts are of one length each, so that long
    /// texts weigh no more than short ones.
    pub fn known<'a>(&'a self, vocabulary: &'a [u32]) -> impl Iterator<Item = (u32, f32)> + 'a {
        let part = move |of: &'a [u32], counts: f32| {
            let value = counts / (of.len().max(1) as f32).sqrt();
            of.iter().filter_map(move |it| Some((vocabulary.binary_search(it).ok()? as u32, value)))
        };
        part(&self.own, 1.0).chain(part(&self.near, NEAR))
    }
}

/// FNV-1a of the parts with a mark between them.
#[must_use]
pub fn hash(parts: &[&str]) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    // The low bits of FNV depend on few of the input's: fold the high ones in.
    hash ^= hash >> 32;
    hash ^= hash >> 16;
    hash as u32
}

/// A head that was trained, with what its score must be above.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    pub bias: f32,
    /// Of each [`Kind`].
    pub thresholds: [f32; Kind::COUNT],
    /// One for each feature of the vocabulary.
    pub weights: Vec<f32>,
}

/// The hidden layer of the first head: rectified units between the features and the score.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// For each feature of the vocabulary, one a unit.
    pub inputs: Vec<[f32; HIDDEN]>,
    pub bias: [f32; HIDDEN],
    pub outputs: [f32; HIDDEN],
}

/// Heads as they are used: the weights of a feature lie together.
#[derive(Debug, Clone, PartialEq)]
pub struct Heads<const N: usize> {
    bias: [f32; N],
    thresholds: [[f32; Kind::COUNT]; N],
    scale: [f32; N],
    layer_scale: [f32; HIDDEN],
    layer_bias: [f32; HIDDEN],
    outputs: [f32; HIDDEN],
    vocabulary: Vec<u32>,
    weights: Vec<[i8; N]>,
    inputs: Vec<[i8; HIDDEN]>,
}

/// Why bytes are not heads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

/// What the largest of some numbers is divided by to fit into 8 bits.
fn scale(of: impl Iterator<Item = f32>) -> f32 {
    of.fold(f32::MIN_POSITIVE, |most, it| most.max(it.abs())) / f32::from(i8::MAX)
}

/// Writes heads over a sorted vocabulary. Numbers are little-endian: a magic, how many heads and features; bias, thresholds
/// and scale of each head; scales, biases and outputs of the layer; the vocabulary; 8-bit weights, then 8-bit inputs of the
/// layer, by feature.
#[must_use]
pub fn write(vocabulary: &[u32], heads: &[Trained], layer: &Layer) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for count in [heads.len(), vocabulary.len()] {
        bytes.extend((count as u32).to_le_bytes());
    }
    let scales: Vec<f32> = heads.iter().map(|it| scale(it.weights.iter().copied())).collect();
    for (head, scale) in heads.iter().zip(&scales) {
        for number in [head.bias].iter().chain(&head.thresholds).chain([scale]) {
            bytes.extend(number.to_le_bytes());
        }
    }
    let of_layer: [f32; HIDDEN] = std::array::from_fn(|unit| scale(layer.inputs.iter().map(|it| it[unit])));
    for number in of_layer.iter().chain(&layer.bias).chain(&layer.outputs) {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(vocabulary.iter().flat_map(|it| it.to_le_bytes()));
    let eighth = |weight: f32, scale: f32| ((weight / scale).round() as i8).cast_unsigned();
    for at in 0..vocabulary.len() {
        bytes.extend(heads.iter().zip(&scales).map(|(head, scale)| eighth(head.weights[at], *scale)));
    }
    for input in &layer.inputs {
        bytes.extend(input.iter().zip(of_layer).map(|(weight, scale)| eighth(*weight, scale)));
    }
    bytes
}

impl<const N: usize> Heads<N> {
    /// # Errors
    /// When the bytes are not exactly `N` heads as [`write()`] makes them.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let word = |at: usize| bytes.get(at..at + 4).map(|it| [it[0], it[1], it[2], it[3]]);
        let heads = word(MAGIC.len()).map(u32::from_le_bytes);
        if !bytes.starts_with(MAGIC) || heads != Some(N as u32) {
            return Err(Malformed(format!("not a file of {N} heads")));
        }
        let count = word(MAGIC.len() + 4).map_or(0, u32::from_le_bytes) as usize;
        let known = HEADER + N * HEAD + LAYER;
        let expected = known + count * (4 + N + HIDDEN);
        if bytes.len() != expected {
            let had = bytes.len();
            return Err(Malformed(format!("{had} bytes, where {N} heads over {count} features have {expected}")));
        }
        let number = |at: usize| f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let field = |head: usize, field: usize| number(HEADER + head * HEAD + field * 4);
        let row = |row: usize| std::array::from_fn(|unit| number(HEADER + N * HEAD + (row * HIDDEN + unit) * 4));
        let (vocabulary, rest) = bytes[known..].split_at(count * 4);
        let vocabulary: Vec<u32> = vocabulary.as_chunks().0.iter().map(|it| u32::from_le_bytes(*it)).collect();
        if !vocabulary.is_sorted() {
            return Err(Malformed("the features are not in order".to_owned()));
        }
        let (weights, inputs) = rest.split_at(count * N);
        Ok(Self {
            bias: std::array::from_fn(|head| field(head, 0)),
            thresholds: std::array::from_fn(|head| std::array::from_fn(|kind| field(head, 1 + kind))),
            scale: std::array::from_fn(|head| field(head, 1 + Kind::COUNT)),
            layer_scale: row(0),
            layer_bias: row(1),
            outputs: row(2),
            vocabulary,
            weights: weights.as_chunks().0.iter().map(|it| it.map(u8::cast_signed)).collect(),
            inputs: inputs.as_chunks().0.iter().map(|it| it.map(u8::cast_signed)).collect(),
        })
    }

    /// How sure each head is, 0 to 1; at least 0.5 when its score reaches its threshold.
    #[must_use]
    pub fn judge(&self, features: &Features) -> [f32; N] {
        let scores = self.scores(features);
        std::array::from_fn(|head| sigmoid(scores[head] - self.thresholds[head][features.kind.index()]))
    }

    fn scores(&self, features: &Features) -> [f32; N] {
        let mut sums = [0.0_f32; N];
        let mut units = [0.0_f32; HIDDEN];
        for (at, value) in features.known(&self.vocabulary) {
            let at = at as usize;
            for (sum, weight) in sums.iter_mut().zip(self.weights[at]) {
                *sum += f32::from(weight) * value;
            }
            for (unit, weight) in units.iter_mut().zip(self.inputs[at]) {
                *unit += f32::from(weight) * value;
            }
        }
        let mut scores: [f32; N] = std::array::from_fn(|head| self.bias[head] + sums[head] * self.scale[head]);
        if let Some(first) = scores.first_mut() {
            let lit = units.iter().zip(self.layer_scale).zip(self.layer_bias);
            let lit = lit.map(|((unit, scale), bias)| (unit * scale + bias).max(0.0));
            *first += lit.zip(self.outputs).map(|(lit, output)| lit * output).sum::<f32>();
        }
        scores
    }
}

pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_layer(features: usize) -> Layer {
        Layer { inputs: vec![[0.0; HIDDEN]; features], bias: [0.0; HIDDEN], outputs: [0.0; HIDDEN] }
    }

    fn of(own: &[u32], near: &[u32]) -> Features {
        Features::of(own.to_vec(), near.to_vec(), Kind::default())
    }

    #[test]
    fn heads_that_are_written_and_read_judge_as_they_were_trained() {
        let trained = Trained { bias: 0.5, thresholds: [1.0, 2.0, 3.0, 4.0], weights: vec![2.0, -1.0] };
        let heads = Heads::<1>::read(&write(&[7, 9], &[trained], &no_layer(2))).unwrap();
        let judged = |features: &Features| heads.judge(features)[0];
        assert!((judged(&of(&[], &[])) - sigmoid(-0.5)).abs() < 0.001);
        assert!((judged(&of(&[7, 7], &[])) - sigmoid(1.5)).abs() < 0.001);
        assert!((judged(&of(&[7, 9], &[])) - sigmoid(0.5 + 0.5_f32.sqrt() - 1.0)).abs() < 0.01);
        assert!((judged(&of(&[7, 8], &[])) - sigmoid(0.5 + 2.0_f32.sqrt() - 1.0)).abs() < 0.01, "8 is unknown");
        assert!((judged(&of(&[], &[7])) - sigmoid(0.5 + 1.0 - 1.0)).abs() < 0.01, "what is near counts half");
        for (kind, threshold) in [((true, false), 2.0), ((false, true), 3.0), ((true, true), 4.0)] {
            let kind = Kind { long: kind.0, answered: kind.1 };
            let judged = judged(&Features::of(vec![7], vec![], kind));
            assert!((judged - sigmoid(2.5 - threshold)).abs() < 0.001, "{kind:?}: {judged}");
        }
    }

    #[test]
    fn the_first_head_has_units_that_tell_one_of_two_from_both() {
        let head = || Trained { bias: -0.5, thresholds: [0.0; Kind::COUNT], weights: vec![1.0, 1.0] };
        let mut layer = no_layer(2);
        (layer.inputs[0][0], layer.inputs[1][0]) = (1.0, 1.0);
        (layer.bias[0], layer.outputs[0]) = (-1.0, -10.0);
        let heads = Heads::<2>::read(&write(&[7, 9], &[head(), head()], &layer)).unwrap();
        assert!(heads.judge(&of(&[7], &[]))[0] > 0.5 && heads.judge(&of(&[9], &[]))[0] > 0.5);
        let both = heads.judge(&of(&[7, 9], &[]));
        assert!(both[0] < 0.5 && both[1] > 0.5, "{both:?}");
    }

    #[test]
    fn bytes_that_are_not_these_heads_are_told() {
        let head = Trained { bias: 0.0, thresholds: [0.0; Kind::COUNT], weights: vec![0.0; 2] };
        let bytes = write(&[1, 2], std::slice::from_ref(&head), &no_layer(2));
        let error = |bytes: &[u8]| Heads::<1>::read(bytes).unwrap_err().to_string();
        assert_eq!(error(&bytes[..bytes.len() - 1]), "161 bytes, where 1 heads over 2 features have 162");
        assert_eq!(error(&[&b"X"[..], &bytes[1..]].concat()), "not a file of 1 heads");
        assert_eq!(error(&[]), "not a file of 1 heads");
        assert_eq!(error(&write(&[2, 1], &[head], &no_layer(2))), "the features are not in order");
        assert!(Heads::<2>::read(&bytes).is_err());
    }
}
