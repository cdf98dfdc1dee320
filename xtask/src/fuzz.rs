//! `cargo xtask fuzz`: the targets of `fuzz/`, each for a while, by a fuzzer that sees which code an input reaches.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::shell::{cargo, exists, root, step};

#[derive(Args)]
pub(crate) struct Fuzz {
    /// How long each target is run, in seconds.
    #[arg(long, default_value_t = 120)]
    seconds: u32,
    /// One of fuzz/fuzz_targets; without, all of them in turn.
    target: Option<String>,
}

/// Longest input, in bytes: a few messages.
const LONGEST: u32 = 4_096;
/// What one input may take: seconds, and MiB of memory for the whole run.
const SLOWEST_S: u32 = 5;
const MEMORY_MIB: u32 = 1_024;

pub(crate) fn run(fuzz: &Fuzz) -> Result<()> {
    let folder = root().join("fuzz");
    let targets = targets(&folder)?;
    let chosen: Vec<&String> = match &fuzz.target {
        Some(target) => targets.iter().filter(|name| *name == target).collect(),
        None => targets.iter().collect(),
    };
    ensure!(!chosen.is_empty(), "there is no such target; {} are", targets.join(", "));
    prerequisites()?;

    let mut seeds = cargo(&["run", "--quiet", "--package", "hearsay-fuzz", "--"]);
    seeds.arg(folder.join("corpus"));
    step("seeds", seeds)?;
    step("build", nightly(&["build"]))?;
    let mut broken = Vec::new();
    for target in chosen {
        let mut run = nightly(&["run", target.as_str(), "--"]);
        run.args([
            format!("-max_total_time={}", fuzz.seconds),
            format!("-max_len={LONGEST}"),
            format!("-timeout={SLOWEST_S}"),
            format!("-rss_limit_mb={MEMORY_MIB}"),
            "-print_final_stats=1".to_owned(),
        ]);
        if step(target, run).is_err() {
            broken.push(target.as_str());
        }
    }
    ensure!(
        broken.is_empty(),
        "{} broke a promise; the input is in fuzz/artifacts: copy it to crates/hearsay-fuzz/found/TARGET, where tests run it",
        broken.join(", ")
    );
    Ok(())
}

fn targets(folder: &Path) -> Result<Vec<String>> {
    let files = fs::read_dir(folder.join("fuzz_targets")).context("fuzz/fuzz_targets")?;
    let mut names: Vec<String> =
        files.filter_map(|file| Some(file.ok()?.path().file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// cargo-fuzz with the nightly compiler, which alone instruments code for a fuzzer.
fn nightly(arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "fuzz"]).arg(arguments[0]).args(["--fuzz-dir", "fuzz"]);
    command.args(&arguments[1..]).current_dir(root());
    // Those of the compiler that builds this task.
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
}

fn prerequisites() -> Result<()> {
    if !exists("rustup", &["run", "nightly", "rustc", "--version"]) {
        bail!("fuzzing needs the nightly compiler: rustup toolchain install nightly --profile minimal");
    }
    if !exists("cargo", &["fuzz", "--version"]) {
        step("cargo-fuzz", cargo(&["install", "--locked", "cargo-fuzz"]))?;
    }
    Ok(())
}
