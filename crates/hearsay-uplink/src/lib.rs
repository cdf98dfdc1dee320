mod anchor;
pub mod ring;
