//! Tasks around the code that Cargo has no word for; a library too, so that tests and benches can read what they made.

pub mod speech_set;
