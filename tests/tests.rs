//! Whole-system behaviour: the built binary, its real models, real sockets on loopback.

#![expect(clippy::disallowed_methods, reason = "a client's task ends with its test")]

mod cluster;
mod meeting;
mod pool;
mod protocol;
mod replaced;
mod resume;
mod speech;
mod traced;
