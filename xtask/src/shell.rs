//! Running commands, seen and named.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, ensure};

/// The repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Whether this is a run that nobody watches.
pub(crate) fn is_ci() -> bool {
    variable("CI").is_some()
}

pub(crate) fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "a development tool; it has no configuration file")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Cargo, in the repository.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(variable("CARGO").unwrap_or_else(|| "cargo".to_owned()));
    command.args(arguments).current_dir(root());
    if is_ci() {
        // Nothing is built twice there, and what would be kept for it is large.
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

/// Runs one step with its output shown, and says how long it took.
pub(crate) fn step(name: &str, mut command: Command) -> Result<()> {
    println!("== {name}");
    let begun = Instant::now();
    let status = command.status().with_context(|| format!("{name}: {command:?} cannot be started"))?;
    println!("== {name}: {:.0} s", begun.elapsed().as_secs_f64());
    ensure!(status.success(), "{name} failed ({status})");
    Ok(())
}

/// Whether a program can be started at all.
pub(crate) fn exists(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}
