//! `cargo xtask check` and `cargo xtask test`: the same for people and for CI.

use std::{num::NonZeroUsize, path::PathBuf, time::Instant};

use anyhow::{Context, Result, bail};
use hearsay_models::{ModelStore, Terminal};

use crate::clients;
use crate::node::Node;
use crate::redis::Servers;
use crate::shell::{cargo, exists, is_ci, root, step};

/// A proof that takes too long for every change.
struct Proof {
    what: &'static str,
    /// Of `cargo`.
    arguments: &'static [&'static str],
}

const LONG: &[Proof] = &[
    Proof {
        what: "the development speech set assembles, and its marks agree with its sound",
        arguments: &["xtask", "speech-set"],
    },
    Proof {
        what: "every panel and rule has data from a Prometheus that scrapes a small cluster under load",
        arguments: &["xtask", "deploy-check", "--live"],
    },
    Proof {
        what: "every alert fires when what it watches is broken, and is resolved, through an Alertmanager",
        arguments: &["xtask", "deploy-check", "--alerts"],
    },
    Proof {
        what: "the images are built, and a meeting is heard through the manifests' pods, in clear and with certificates",
        arguments: &["xtask", "image-check"],
    },
    Proof {
        what: "a ten-minute recording is transcribed at twelve times real time per processor, in flat memory",
        arguments: &["xtask", "bench", "transcribe"],
    },
    Proof {
        what: "the words of every file of the speech set, streamed, are those of the whole file, and their error rate",
        arguments: &["bench", "--package", "hearsay-tests", "--bench", "speech", "--", "words"],
    },
    Proof {
        what: "twenty live streams over recognizers that are killed, drained, cut off and frozen have the same words",
        arguments: &["bench", "--package", "hearsay-tests", "--bench", "pool", "--", "faults", "20", "60"],
    },
    Proof {
        what: "five minutes of a recording whose recognizer is killed ten times have the same words",
        arguments: &["bench", "--package", "hearsay-tests", "--bench", "pool", "--", "kills", "10"],
    },
    Proof {
        what: "of twice the streams a recognizer is rated at, those admitted keep their target and the rest are told",
        arguments: &["bench", "--package", "hearsay-tests", "--bench", "pool", "--", "overload", "2"],
    },
    Proof {
        what: "fourteen live streams a core without partials, each with the words it has alone",
        arguments: &["bench", "--package", "hearsay-tests", "--bench", "pool", "--", "streams", "14", "0.35", "none"],
    },
    Proof {
        what: "ten live streams a core with partials each second, each with the words it has alone",
        arguments: &["bench", "--package", "hearsay-tests", "--bench", "pool", "--", "streams", "10", "0.35", "1s"],
    },
    Proof {
        what: "a gateway takes at most three times the processor time of a plain relay",
        arguments: &["bench", "--package", "hearsay-tests", "--bench", "pool", "--", "relay", "40", "20", "none"],
    },
    Proof {
        what: "the speech models on ONNX Runtime hear what they hear in the program",
        arguments: &["test", "--package", "hearsay-speech", "--features", "onnxruntime", "--", "onnx_runtime"],
    },
    Proof {
        what: "how soon a final reaches a subscriber after the last sample of speech, over the read part, live",
        arguments: &["bench", "--package", "hearsay-tests", "--bench", "speech", "--", "latency"],
    },
    Proof {
        what: "analysts that are killed have successors within 5 s, and insights come once, the same at two gateways",
        arguments: &["bench", "--package", "hearsay-tests", "--bench", "analyst", "--", "3"],
    },
    Proof {
        what: "the weights that ship are what their data makes, byte for byte",
        arguments: &["xtask", "train", "--check"],
    },
    Proof {
        what: "questions in what the recognizer makes of two synthetic voices are told better than by question marks",
        arguments: &["bench", "--package", "hearsay-tests", "--bench", "insights", "--", "spoken"],
    },
    Proof {
        what: "all that is inferred from a final takes at most 10 ms of processor time, and 1 ms without vectors",
        arguments: &["bench", "--package", "hearsay-tests", "--bench", "insights", "--", "cost"],
    },
    Proof {
        what: "how soon insights of a live meeting reach a subscriber after their final",
        arguments: &["bench", "--package", "hearsay-tests", "--bench", "insights", "--", "latency"],
    },
    Proof {
        what: "two rolling deploys at the settings that operators have, while five speak and fifty listen, lose no word",
        arguments: &["bench", "--package", "hearsay-tests", "--bench", "rolling", "--", "2"],
    },
];

pub(crate) fn check() -> Result<()> {
    step("format", cargo(&["fmt", "--all", "--check"]))?;
    step("lints", cargo(&locked(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])))?;
    let mut docs = cargo(&locked(&["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]));
    docs.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
    step("documentation", docs)
}

pub(crate) fn test(all: bool) -> Result<()> {
    let begun = Instant::now();
    prerequisites()?;
    check()?;
    let cache = models()?;

    // Examples in documentation first: the last closing line is that of the real tests.
    let mut examples = cargo(&locked(&["test", "--workspace", "--doc", "--quiet"]));
    examples.env("HEARSAY_CACHE", &cache);
    step("examples in documentation", examples)?;
    let nextest = exists("cargo", &["nextest", "--version"]);
    let arguments: &[&str] = if nextest {
        &["nextest", "run", "--workspace", "--no-fail-fast"]
    } else {
        &["test", "--workspace", "--lib", "--bins", "--tests"]
    };
    let mut tests = cargo(&locked(arguments));
    if nextest {
        // Speech lasts as long as it lasts: the tests that take longest wait for most of their time.
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        tests.env("NEXTEST_TEST_THREADS", (cores + cores.div_ceil(2)).to_string());
    }
    tests.env("HEARSAY_CACHE", &cache);
    Servers::find(&target())?.tell(&mut tests);
    // Built with the tests; by itself it would be built again, with other features of its dependencies.
    let binary = target().join("debug/hearsay");
    tests.env("HEARSAY_BIN", &binary);
    // The shorter one first: the last closing line is that of most tests.
    let node = Node::find(&target())?;
    node.client_module()?;
    let mut build: Vec<_> = arguments.iter().copied().filter(|argument| *argument != "--no-fail-fast").collect();
    build.push("--no-run");
    step("tests: build", cargo(&locked(&build)))?;
    clients::run(&target(), &node, &binary, &cache)?;
    step("tests", tests)?;
    crate::deploy::with(&binary)?;

    if all {
        node.browser(&target(), &binary, &cache)?;
    } else {
        if !node.smoke(&binary, &cache)? {
            println!("left out, for want of a Chromium: two people in one meeting");
        }
        println!("left out (cargo xtask test --all): all of the page, in real browsers: cargo xtask browser");
    }

    for proof in LONG {
        if all {
            let mut command = cargo(proof.arguments);
            command.env("HEARSAY_CACHE", &cache);
            step(proof.what, command)?;
        } else {
            println!("left out (cargo xtask test --all): {}: cargo {}", proof.what, proof.arguments.join(" "));
        }
    }
    println!("== everything holds: {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

pub(crate) fn browser(module: bool) -> Result<()> {
    let node = Node::find(&target())?;
    node.client_module()?;
    if module {
        return Ok(());
    }
    let cache = models()?;
    step("build", cargo(&locked(&["build", "--package", "hearsay"])))?;
    node.browser(&target(), &target().join("debug/hearsay"), &cache)
}

pub(crate) fn clients() -> Result<()> {
    let node = Node::find(&target())?;
    let cache = models()?;
    step("build", cargo(&locked(&["build", "--package", "hearsay"])))?;
    clients::run(&target(), &node, &target().join("debug/hearsay"), &cache)
}

/// A change of `Cargo.lock` belongs to the change that causes it; where nobody watches, its absence is an error.
fn locked<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = arguments.to_vec();
    if is_ci() {
        let at = if arguments[0] == "nextest" { 2 } else { 1 };
        arguments.insert(at, "--locked");
    }
    arguments
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn prerequisites() -> Result<()> {
    if !["cc", "gcc", "clang"].into_iter().any(|compiler| exists(compiler, &["--version"])) {
        bail!("a C compiler is needed to link: install one, for instance with `apt-get install gcc libc6-dev`");
    }
    Ok(())
}

/// Fetches what tests need, once, where they will look for it. The folder is returned.
pub(crate) fn models() -> Result<PathBuf> {
    println!("== models");
    // Without a home, a folder that every build has.
    let cache = hearsay_models::cache_folder().unwrap_or_else(|_| root().join("target/hearsay-cache"));
    let store = ModelStore::open(cache.clone());
    let fetched = store.fetch(&mut Terminal::default()).and_then(|_| store.recordings(&mut Terminal::default()));
    fetched.context("the tests run the real models")?;
    println!("== models: in {}", cache.display());
    Ok(cache)
}
