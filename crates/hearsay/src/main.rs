//! The binary: subcommands, configuration, composition. What it composes lives in the other crates.
//!
//! stdout belongs to each command's contract; logs, progress and errors go to stderr. Exit codes: 0 done, 1 failed, 2
//! called or configured wrongly; `transcribe` has more (see its help).

mod actions;
mod auth;
mod cli;
mod compose;
mod config;
#[cfg(feature = "recognizer")]
mod dev;
mod eval;
mod gateway;
mod load;
mod log;
mod models;
mod process;
#[cfg(feature = "recognizer")]
mod recognizer;
mod tls;
mod token_file;
mod transcribe;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, ConfigCommand, Eval, Load, Models};

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hearsay: {error:#}");
            let misconfigured = error.is::<config::ConfigError>();
            ExitCode::from(if misconfigured { 2 } else { 1 })
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        #[cfg(feature = "recognizer")]
        Command::Dev(arguments) => dev::run(arguments),
        Command::Gateway(arguments) => gateway::run(arguments),
        #[cfg(feature = "recognizer")]
        Command::Recognizer(arguments) => recognizer::run(arguments),
        Command::Actions(arguments) => actions::run(arguments),
        Command::Models(Models::Fetch { sources }) => models::fetch(&config::load(&sources, config::Flags::default())?),
        Command::Models(Models::List { sources }) => models::list(&config::load(&sources, config::Flags::default())?),
        Command::Load(Load::Listen(arguments)) => load::listen(arguments),
        Command::Load(Load::Meetings(arguments)) => load::meetings(arguments),
        Command::Load(Load::Sockets(arguments)) => load::sockets(arguments),
        Command::Load(Load::Storm(arguments)) => load::storm(arguments),
        Command::Load(Load::Events(arguments)) => load::events(arguments),
        Command::Eval(Eval::Insights(arguments)) => eval::insights(&arguments),
        Command::Transcribe(arguments) => transcribe::run(arguments),
        Command::Config(ConfigCommand::Check { sources }) => {
            let config = config::load(&sources, config::Flags::default())?;
            print!("{}", config.to_toml()?);
            Ok(ExitCode::SUCCESS)
        }
    }
}
