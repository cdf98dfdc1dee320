//! How a sentence feels, from its meaning: negative, neutral or positive.

use std::sync::LazyLock;

use crate::meaning::{DIMENSIONS, Vector, likeness};

/// A weight for each number of a vector, and a bias.
pub type Weights = [(Vector, f32); 3];

static WEIGHTS: LazyLock<Weights> = LazyLock::new(|| {
    read(include_bytes!("../weights/sentiment.bin")).expect("the file in the program is the one it was tested with")
});

/// From -1, negative, to 1, positive; what is nearest to neutral is within [`NEUTRAL`] of zero, and nothing else is.
#[must_use]
pub fn sentiment(meaning: &Vector) -> f32 {
    judge(&WEIGHTS, meaning)
}

/// What is closer to zero than this is neutral.
pub const NEUTRAL: f32 = 0.3;

fn judge(weights: &Weights, meaning: &Vector) -> f32 {
    let [negative, neutral, positive] = odds(weights, meaning);
    let score = positive - negative;
    if positive > neutral && positive > negative {
        score.max(NEUTRAL)
    } else if negative > neutral {
        score.min(-NEUTRAL)
    } else {
        // Neutral is the likeliest.
        score.clamp(-NEUTRAL, NEUTRAL) * 0.99
    }
}

/// How likely each is.
fn odds(weights: &Weights, meaning: &Vector) -> [f32; 3] {
    let scores = weights.each_ref().map(|(weight, bias)| likeness(weight, meaning) + bias);
    let most = scores.into_iter().fold(f32::MIN, f32::max);
    let powers = scores.map(|it| (it - most).exp());
    let sum: f32 = powers.iter().sum();
    powers.map(|it| it / sum)
}

/// 32-bit floats, little-endian: of each kind its weights, then its bias. None for another number of bytes.
fn read(bytes: &[u8]) -> Option<Weights> {
    let (numbers, rest) = bytes.as_chunks();
    let numbers: Vec<f32> = numbers.iter().map(|it| f32::from_le_bytes(*it)).collect();
    if !rest.is_empty() || numbers.len() != 3 * (DIMENSIONS + 1) {
        return None;
    }
    let kind = |at: usize| {
        let of = &numbers[at * (DIMENSIONS + 1)..(at + 1) * (DIMENSIONS + 1)];
        (std::array::from_fn(|number| of[number]), of[DIMENSIONS])
    };
    Some([kind(0), kind(1), kind(2)])
}

/// Writes weights as they are kept.
#[cfg(feature = "labelled")]
#[must_use]
pub fn write(weights: &Weights) -> Vec<u8> {
    weights.iter().flat_map(|(weight, bias)| weight.iter().chain([bias])).flat_map(|it| it.to_le_bytes()).collect()
}

/// Logistic regression on meanings with what they feel like (0 negative, 1 neutral, 2 positive), by steepest descent with
/// momentum. The same examples give the same weights.
#[cfg(feature = "labelled")]
#[must_use]
pub fn fit(examples: &[(Vector, usize)]) -> Weights {
    const STEPS: usize = 400;
    const STEP: f32 = 1.0;
    const MOMENTUM: f32 = 0.9;
    let decay = 1.0 / examples.len().max(1) as f32;
    let mut weights: Weights = [([0.0; DIMENSIONS], 0.0); 3];
    let mut speed = weights;
    for _ in 0..STEPS {
        let mut slope: Weights = [([0.0; DIMENSIONS], 0.0); 3];
        for (meaning, label) in examples {
            let odds = odds(&weights, meaning);
            for (kind, (slopes, bias)) in slope.iter_mut().enumerate() {
                let error = (odds[kind] - f32::from(u8::from(kind == *label))) * decay;
                slopes.iter_mut().zip(meaning).for_each(|(slope, value)| *slope += error * value);
                *bias += error;
            }
        }
        for ((weight, speed), slope) in weights.iter_mut().zip(&mut speed).zip(&slope) {
            for ((weight, speed), slope) in weight.0.iter_mut().zip(&mut speed.0).zip(&slope.0) {
                *speed = MOMENTUM * *speed - STEP * (slope + decay * *weight);
                *weight += *speed;
            }
            speed.1 = MOMENTUM * speed.1 - STEP * slope.1;
            weight.1 += speed.1;
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(at: usize) -> Vector {
        let mut vector = [0.0; DIMENSIONS];
        vector[at] = 1.0;
        vector
    }

    #[cfg(feature = "labelled")]
    #[test]
    fn what_is_fitted_and_kept_judges() {
        let examples: Vec<_> = (0..60).map(|it| (meaning(it % 3), it % 3)).collect();
        let weights = fit(&examples);
        let read = read(&write(&weights)).unwrap();
        assert!(judge(&read, &meaning(0)) <= -NEUTRAL && judge(&read, &meaning(2)) >= NEUTRAL);
        assert!(judge(&read, &meaning(1)).abs() < NEUTRAL);
        assert_eq!(fit(&examples), weights);
    }

    #[test]
    fn any_vector_has_a_sentiment() {
        for at in 0..DIMENSIONS {
            assert!((-1.0..=1.0).contains(&sentiment(&meaning(at))));
        }
        assert!((-1.0..=1.0).contains(&sentiment(&[0.0; DIMENSIONS])));
        assert_eq!(read(&[0; 7]), None);
    }
}
