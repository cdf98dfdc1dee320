//! Linear heads over hashed features: what they weigh, and the file they are kept in.

use std::fmt;

/// Buckets that features are hashed into.
pub const BUCKETS: usize = 1 << 18;

const MAGIC: &[u8; 8] = b"HSHEADS2";
const HEADER: usize = MAGIC.len() + 4;
const HEAD: usize = 4 * 4;

/// The features of a text: buckets, each once, in rising order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    buckets: Vec<u32>,
    long: bool,
}

impl Features {
    /// `long` texts are judged by a threshold of their own: short ones are harder to tell apart.
    #[must_use]
    pub fn of(mut buckets: Vec<u32>, long: bool) -> Self {
        buckets.sort_unstable();
        buckets.dedup();
        Self { buckets, long }
    }

    #[must_use]
    pub fn buckets(&self) -> &[u32] {
        &self.buckets
    }

    #[must_use]
    pub fn is_long(&self) -> bool {
        self.long
    }

    /// What each counts: together they are of length one, so that long texts weigh no more than short ones.
    #[must_use]
    pub fn value(&self) -> f32 {
        1.0 / (self.buckets.len().max(1) as f32).sqrt()
    }
}

/// FNV-1a of the parts with a mark between them, folded into [`BUCKETS`].
#[must_use]
pub fn bucket(parts: &[&str]) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    // The low bits of FNV depend on few of the input's: fold the high ones in.
    hash ^= hash >> 32;
    hash ^= hash >> 16;
    (hash % BUCKETS as u64) as u32
}

/// A head that was trained, with what its score must be above.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    pub bias: f32,
    /// Of short texts, and of long ones.
    pub thresholds: [f32; 2],
    /// One for each of [`BUCKETS`].
    pub weights: Vec<f32>,
}

/// Heads as they are used: the weights of a bucket lie together.
#[derive(Debug, Clone, PartialEq)]
pub struct Heads<const N: usize> {
    bias: [f32; N],
    thresholds: [[f32; N]; 2],
    scale: [f32; N],
    weights: Vec<[i8; N]>,
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

/// Writes heads: a magic, their number, then bias, thresholds and scale of each, then 8-bit weights; numbers are little-endian.
#[must_use]
pub fn write(heads: &[Trained]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend((heads.len() as u32).to_le_bytes());
    let scales: Vec<f32> = heads
        .iter()
        .map(|it| it.weights.iter().fold(f32::MIN_POSITIVE, |most, weight| most.max(weight.abs())) / f32::from(i8::MAX))
        .collect();
    for (head, scale) in heads.iter().zip(&scales) {
        for number in [head.bias, head.thresholds[0], head.thresholds[1], *scale] {
            bytes.extend(number.to_le_bytes());
        }
    }
    for bucket in 0..BUCKETS {
        for (head, scale) in heads.iter().zip(&scales) {
            bytes.extend(((head.weights[bucket] / scale).round() as i8).to_le_bytes());
        }
    }
    bytes
}

impl<const N: usize> Heads<N> {
    /// # Errors
    /// When the bytes are not exactly `N` heads as [`write()`] makes them.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let expected = HEADER + N * HEAD + BUCKETS * N;
        if bytes.len() != expected {
            return Err(Malformed(format!("{} bytes, where {N} heads have {expected}", bytes.len())));
        }
        if &bytes[..MAGIC.len()] != MAGIC || bytes[MAGIC.len()..HEADER] != (N as u32).to_le_bytes() {
            return Err(Malformed(format!("not a file of {N} heads")));
        }
        let number = |at: usize| f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let field = |field: usize| std::array::from_fn(|head| number(HEADER + head * HEAD + field * 4));
        let weights = bytes[HEADER + N * HEAD..]
            .chunks_exact(N)
            .map(|it| std::array::from_fn(|head| it[head].cast_signed()))
            .collect();
        Ok(Self { bias: field(0), thresholds: [field(1), field(2)], scale: field(3), weights })
    }

    /// How sure each head is, 0 to 1; at least 0.5 when its score reaches its threshold.
    #[must_use]
    pub fn judge(&self, features: &Features) -> [f32; N] {
        let scores = self.scores(features);
        let thresholds = &self.thresholds[usize::from(features.long)];
        std::array::from_fn(|head| sigmoid(scores[head] - thresholds[head]))
    }

    fn scores(&self, features: &Features) -> [f32; N] {
        let mut sums = [0.0_f32; N];
        for &bucket in features.buckets() {
            for (sum, weight) in sums.iter_mut().zip(self.weights[bucket as usize]) {
                *sum += f32::from(weight);
            }
        }
        let value = features.value();
        std::array::from_fn(|head| self.bias[head] + sums[head] * self.scale[head] * value)
    }
}

pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_are_written_and_read_judge_as_they_were_trained() {
        let mut weights = vec![0.0; BUCKETS];
        weights[7] = 2.0;
        weights[9] = -1.0;
        let bytes = write(&[Trained { bias: 0.5, thresholds: [1.0, 2.0], weights }]);
        let heads = Heads::<1>::read(&bytes).unwrap();
        let judged = |buckets: &[u32]| heads.judge(&Features::of(buckets.to_vec(), false))[0];
        assert!((judged(&[]) - sigmoid(-0.5)).abs() < 0.001);
        assert!((judged(&[7, 7]) - sigmoid(1.5)).abs() < 0.001);
        assert!((judged(&[7, 9]) - sigmoid(0.5 + 0.5_f32.sqrt() - 1.0)).abs() < 0.01);
        let long = heads.judge(&Features::of(vec![7], true))[0];
        assert!((long - sigmoid(0.5)).abs() < 0.001, "{long}");
    }

    #[test]
    fn bytes_that_are_not_these_heads_are_told() {
        let bytes = write(&[Trained { bias: 0.0, thresholds: [0.0; 2], weights: vec![0.0; BUCKETS] }]);
        let error = |bytes: &[u8]| Heads::<1>::read(bytes).unwrap_err().to_string();
        assert_eq!(error(&bytes[1..]), "262171 bytes, where 1 heads have 262172");
        assert_eq!(error(&[&b"X"[..], &bytes[1..]].concat()), "not a file of 1 heads");
        assert!(Heads::<2>::read(&bytes).is_err());
    }
}
