//! Every target under its seeds, under what was found once, and under a fixed number of mutations: the same ones every time.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use hearsay_fuzz::{TARGETS, Target};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap()
}

/// Inputs that once broke a promise.
fn found(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("found").join(name);
    let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
    files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
}

fn run(target: &Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{} breaks a promise under {} bytes: {hex}", target.name, input.len());
    }
}

fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], words: &[&str], random: &mut StdRng) {
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=input.len());
        let length = random.random_range(0..=(input.len() - at).min(16));
        match random.random_range(0..8) {
            0 | 1 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            2 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
            3 => drop(input.drain(at..at + length)),
            4 => {
                let again = input[at..at + length].to_vec();
                drop(input.splice(at..at, again));
            }
            5 => drop(input.splice(at..at, words[random.random_range(0..words.len())].bytes())),
            6 => {
                let other = &others[random.random_range(0..others.len())];
                let from = random.random_range(0..=other.len());
                drop(input.splice(at.., other[from..].iter().copied()));
            }
            _ => input.truncate(at),
        }
    }
}

fn try_all(name: &str, mutations: u32) {
    let target = target(name);
    let seeds = (target.seeds)();
    for input in seeds.iter().chain(&found(name)) {
        run(target, input);
    }
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..mutations {
        let mut input = seeds[random.random_range(0..seeds.len())].clone();
        mutate(&mut input, &seeds, target.words, &mut random);
        run(target, &input);
    }
}

macro_rules! targets {
    ($($name:ident: $mutations:literal,)*) => {
        $(#[test]
        fn $name() {
            try_all(stringify!($name), $mutations);
        })*

        #[test]
        fn every_target_is_tried_here_and_fuzzed() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
            for name in names {
                let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets").join(name);
                assert!(file.with_extension("rs").exists(), "{name} has no fuzz target");
            }
        }
    };
}

targets! {
    client_message: 100_000,
    handshake: 100_000,
    frames: 50_000,
    token: 20_000,
    linear16: 10_000,
    mulaw: 10_000,
    flac: 10_000,
    opus: 5_000,
    ogg: 3_000,
    webm: 3_000,
    wav: 20_000,
    log_event: 100_000,
}
