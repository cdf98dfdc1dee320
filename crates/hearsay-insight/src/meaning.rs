//! What texts mean, as vectors of unit length; who makes them is not known here.

/// Numbers of a vector.
pub const DIMENSIONS: usize = 384;

/// Points where texts that mean the like point, too; of length one.
pub type Vector = [f32; DIMENSIONS];

/// Makes vectors of texts, in milliseconds.
pub trait Meaning: Send + Sync {
    /// None when it cannot be told; then what needs it is left out.
    fn of(&self, text: &str) -> Option<Vector>;
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
