//! Whole-system behaviour: the built binary, its real models, real sockets on loopback.

mod meeting;
mod protocol;
mod speech;
