//! What texts mean, as vectors of unit length; who makes them is not known here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Numbers of a vector.
pub const DIMENSIONS: usize = 384;

/// Points where texts that mean the like point, too; of length one.
pub type Vector = [f32; DIMENSIONS];

/// Makes vectors of texts, in milliseconds.
pub trait Meaning: Send + Sync {
    /// None when it cannot be told; then what needs it is left out.
    fn of(&self, text: &str) -> Option<Vector>;
}

/// What was told before is told again without asking: a text is weighed once, whoever wants to know.
///
/// Cost: at most twice `most` vectors of 1.5 KB with their texts.
pub struct Remembering {
    from: Arc<dyn Meaning>,
    most: usize,
    known: Mutex<Known>,
}

/// When as many came as are remembered, those that were not asked for since the last time are forgotten.
#[derive(Default)]
struct Known {
    young: HashMap<Box<str>, Arc<Vector>>,
    old: HashMap<Box<str>, Arc<Vector>>,
}

impl Remembering {
    /// Of at least the `most` latest texts.
    pub fn new(from: Arc<dyn Meaning>, most: usize) -> Self {
        Self { from, most, known: Mutex::default() }
    }

    fn remembered(&self, text: &str) -> Option<Vector> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(vector) = known.young.get(text) {
            return Some(**vector);
        }
        let (text, vector) = known.old.remove_entry(text)?;
        let told = *vector;
        known.keep(text, vector, self.most);
        Some(told)
    }
}

impl Known {
    fn keep(&mut self, text: Box<str>, vector: Arc<Vector>, most: usize) {
        if self.young.len() >= most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(text, vector);
    }
}

impl Meaning for Remembering {
    fn of(&self, text: &str) -> Option<Vector> {
        if let Some(vector) = self.remembered(text) {
            return Some(vector);
        }
        let vector = self.from.of(text)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.keep(text.into(), Arc::new(vector), self.most);
        Some(vector)
    }
}

/// Of a few texts, told in advance.
impl Meaning for HashMap<String, Vector> {
    fn of(&self, text: &str) -> Option<Vector> {
        self.get(text).copied()
    }
}

/// 1: they mean the same; 0: they have nothing to do with each other.
#[must_use]
pub fn likeness(one: &Vector, other: &Vector) -> f32 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// In the same direction, of length one; zero has none, and stays.
#[must_use]
pub fn unit(mut vector: Vector) -> Vector {
    let length = likeness(&vector, &vector).sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|it| *it /= length);
    }
    vector
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Meaning for Counting {
        fn of(&self, text: &str) -> Option<Vector> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let mut vector = [0.0; DIMENSIONS];
            vector[text.len() % DIMENSIONS] = 1.0;
            (!text.is_empty()).then_some(vector)
        }
    }

    #[test]
    fn a_text_is_weighed_once_as_long_as_it_is_remembered() {
        let asked = Arc::<Counting>::default();
        let meaning = Remembering::new(asked.clone(), 2);
        let count = |texts: &[&str]| {
            let before = asked.0.load(Ordering::Relaxed);
            for text in texts {
                assert_eq!(meaning.of(text), Counting::default().of(text));
            }
            asked.0.load(Ordering::Relaxed) - before
        };
        assert_eq!(count(&["one", "three", "one", "three"]), 2);
        assert_eq!(count(&["seventeen", "one", "seventeen"]), 1, "the one before last is not forgotten");
        assert_eq!(count(&["four", "twenty", "a hundred"]), 3);
        assert_eq!(count(&["three"]), 1);
        assert_eq!(count(&["", ""]), 2, "what has none is asked again");
        let known = meaning.known.lock().unwrap();
        assert!(known.young.len() <= 2 && known.old.len() <= 2);
    }
}
