//! Precision, recall, F1, and where 95 of 100 samples drawn with replacement have them.

use std::fmt;

/// Found, right, labelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) found: usize,
    pub(crate) right: usize,
    pub(crate) labelled: usize,
}

impl Counts {
    pub(crate) fn of(said: bool, truth: bool) -> Self {
        Self { found: usize::from(said), right: usize::from(said && truth), labelled: usize::from(truth) }
    }

    pub(crate) fn f1(self) -> f64 {
        share(2 * self.right, self.found + self.labelled)
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, it| Self {
            found: sum.found + it.found,
            right: sum.right + it.right,
            labelled: sum.labelled + it.labelled,
        })
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (precision, recall) = (share(self.right, self.found), share(self.right, self.labelled));
        write!(f, "F1 {:.3}  precision {precision:.3}  recall {recall:.3}", self.f1())
    }
}

pub(crate) fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Splitmix64: the same numbers in each run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((mixed ^ (mixed >> 31)) >> 16) % end.max(1) as u64) as usize
    }
}

/// The middle 95 of 100 figures of samples drawn with replacement.
pub(crate) fn interval<T>(items: &[T], figure: impl Fn(&[&T]) -> f64) -> (f64, f64) {
    const SAMPLES: usize = 1_000;
    let mut random = Random(1);
    let mut sample = || (0..items.len()).map(|_| &items[random.below(items.len())]).collect::<Vec<_>>();
    let mut found: Vec<f64> = (0..SAMPLES).map(|_| figure(&sample())).collect();
    found.sort_by(f64::total_cmp);
    (found[SAMPLES / 40], found[SAMPLES - 1 - SAMPLES / 40])
}

/// The value at this share of sorted ones.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 - 1.0) * share).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
