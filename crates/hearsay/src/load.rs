//! `hearsay load`.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::Context;
use hearsay_load::load::{
    Limits,
    listen::{self, Listen, Names},
};
use hearsay_models::cache_folder;
use hearsay_runtime::{LogConfig, Tasks, logs};

use crate::{cli::LoadListen, token_file};

/// Called wrongly, as clap says it.
const USAGE: u8 = 2;
/// How often progress is shown.
const SHOW: Duration = Duration::from_millis(500);

pub(crate) fn listen(arguments: LoadListen) -> anyhow::Result<ExitCode> {
    let quiet = LogConfig { filter: "warn".to_owned(), ..LogConfig::default() };
    logs::install(&quiet).map_err(anyhow::Error::msg)?;
    let first = arguments.urls.first().context("--url: at least one gateway is needed")?;
    let found = || cache_folder().ok().and_then(|cache| token_file::find(&cache, first));
    let Some(token) = arguments.token.or_else(found) else {
        eprintln!(
            "hearsay: no token. `hearsay dev` prints one on its second line: pass it as --token or HEARSAY_TOKEN"
        );
        return Ok(ExitCode::from(USAGE));
    };
    let limits = Limits {
        lost: arguments.max_lost,
        p99: arguments.max_p99.map(|time| time.get()),
        disconnected: arguments.max_disconnected,
    };
    let options = Listen {
        token,
        names: match arguments.meeting {
            Some(meeting) => Names::One(meeting),
            None => Names::Numbered { prefix: arguments.prefix, meetings: arguments.meetings },
        },
        subscribers: arguments.subscribers,
        connect_rate: arguments.connect_rate,
        duration: arguments.duration.get(),
        urls: arguments.urls,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let progress = Arc::new(listen::Progress::default());
    let tasks = Tasks::new();
    let report = runtime.block_on(async {
        let listening = listen::listen(options, Arc::clone(&progress), &tasks);
        tokio::pin!(listening);
        loop {
            tokio::select! {
                report = &mut listening => break report,
                () = tokio::time::sleep(SHOW), if io::stderr().is_terminal() => {
                    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
                    eprint!(
                        "\r{} connected, {} events, {} missing   ",
                        count(&progress.connected), count(&progress.delivered), count(&progress.missing)
                    );
                }
            }
        }
    })?;
    if io::stderr().is_terminal() {
        eprintln!();
    }
    let mut out = io::stdout();
    if arguments.json {
        writeln!(out, "{}", report.to_json())?
    } else {
        writeln!(out, "{report}")?
    }
    let broken = report.broken(&limits);
    for limit in &broken {
        eprintln!("hearsay: {limit}");
    }
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
