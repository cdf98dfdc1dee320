//! `cargo xtask TASK`: what the project's people run, in Rust, so that it works wherever the project builds.

mod bench;
mod check;
mod node;
mod redis;
mod shell;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Format, lints and documentation: what can be said without running anything.
    Check,
    /// Everything that must hold before a change is merged: `check`, models, then all tests.
    Test {
        /// Also the long proofs, which the short form lists.
        #[arg(long)]
        all: bool,
    },
    /// The page and the client module: types, unit tests, and everything in a real browser.
    Browser {
        /// Only what needs neither a browser nor a server.
        #[arg(long)]
        module: bool,
    },
    /// Assemble the development speech set, or examine it.
    SpeechSet(xtask::speech_set::Args),
    /// Take a figure of BENCHMARKS.md anew.
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Check => check::check(),
        Task::Test { all } => check::test(all),
        Task::Browser { module } => check::browser(module),
        Task::SpeechSet(args) => xtask::speech_set::run(args),
        Task::Bench(bench) => bench::run(bench),
    }
}
