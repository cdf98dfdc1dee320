//! `cargo xtask TASK`: what the project's people run, in Rust, so that it works wherever the project builds.

mod bench;
mod check;
mod clients;
mod deploy;
mod deploy_alerts;
mod deploy_cluster;
mod deploy_images;
mod deploy_k8s;
mod deploy_live;
mod deploy_metrics;
mod deploy_oci;
mod deploy_pods;
mod deploy_sink;
mod fuzz;
mod node;
mod redis;
mod shell;
mod train;

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
    /// What is in deploy/, k8s/ and docs/metrics.md: schemas, consistency, rules and dashboards.
    DeployCheck {
        /// Write the pages that are made from the code and from each other, in the place of checking them.
        #[arg(long)]
        write: bool,
        /// Also every query of dashboards and rules against a Prometheus that scrapes a small cluster under load.
        #[arg(long)]
        live: bool,
        /// The same, and a picture of each dashboard with what was answered.
        #[arg(long)]
        charts: bool,
        /// Also break what each alert watches, and hear from an Alertmanager that it fires and is resolved: all of them, or
        /// those whose names have NAME in them.
        #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
        alerts: Option<String>,
    },
    /// Build the images and run the pods of the manifests: a meeting through them, as it is and with certificates.
    ImageCheck(deploy_images::ImageCheck),
    /// Look for inputs that break what the tests promise of them; `test` tries some of the same.
    Fuzz(fuzz::Fuzz),
    /// Clients that others wrote, unchanged: Symbl's packages, and a conformance suite of the WebSocket protocol.
    Clients,
    /// Assemble the development speech set, or examine it.
    SpeechSet(xtask::speech_set::Args),
    /// Fit the heads that judge what utterances do anew, from a folder of labelled data.
    Train(train::Train),
    /// Take a figure of BENCHMARKS.md anew.
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Check => check::check(),
        Task::Test { all } => check::test(all),
        Task::Browser { module } => check::browser(module),
        Task::DeployCheck { write: true, .. } => deploy::write(),
        Task::DeployCheck { live, charts, alerts, .. } => {
            deploy::check(&deploy::Live { queries: live, charts, alerts })
        }
        Task::ImageCheck(arguments) => deploy_images::run(&arguments),
        Task::Fuzz(fuzz) => fuzz::run(&fuzz),
        Task::Clients => check::clients(),
        Task::SpeechSet(args) => xtask::speech_set::run(args),
        Task::Train(train) => train::run(&train),
        Task::Bench(bench) => bench::run(bench),
    }
}
