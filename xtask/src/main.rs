//! `cargo xtask TASK`: what the project's people run, in Rust, so that it works wherever the project builds.

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Assemble the development speech set, or examine it.
    SpeechSet(xtask::speech_set::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::SpeechSet(args) => xtask::speech_set::run(args),
    }
}
