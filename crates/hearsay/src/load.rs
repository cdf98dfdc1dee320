//! `hearsay load`.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::Context;
use hearsay_bus::redis::RedisBus;
use hearsay_load::load::{
    Limits, Report,
    events::{self, Publish},
    listen::{self, Listen, Names},
};
use hearsay_models::cache_folder;
use hearsay_protocol::AccountId;
use hearsay_runtime::{LogConfig, Tasks, logs};

use crate::{
    cli::{LoadEvents, LoadListen},
    config::{self, Flags},
    log, token_file,
};

/// Called wrongly, as clap says it.
const USAGE: u8 = 2;
/// How often progress is shown.
const SHOW: Duration = Duration::from_millis(500);
/// For connections to close behind a run.
const END: Duration = Duration::from_secs(5);

pub(crate) fn listen(arguments: LoadListen) -> anyhow::Result<ExitCode> {
    quiet()?;
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
        ca: arguments.ca,
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
    told(&report, &limits, arguments.json)
}

pub(crate) fn events(arguments: LoadEvents) -> anyhow::Result<ExitCode> {
    quiet()?;
    let config = config::load(&arguments.sources, Flags::default().with("--redis", "bus", "url", arguments.redis))?;
    let redis = log::shared(&config.bus, "load events")?;
    let limits = Limits { lost: arguments.max_lost, p99: arguments.max_p99.map(|time| time.get()), disconnected: None };
    let options = Publish {
        account: AccountId::new(&config.auth.account)?,
        prefix: arguments.prefix,
        meetings: arguments.meetings as usize,
        rate: f64::from(arguments.rate),
        size: arguments.size as usize,
        batch: arguments.batch as usize,
        duration: arguments.duration.get(),
        wait: arguments.wait.get(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads((crate::process::processors() / 2).max(1))
        .enable_all()
        .build()?;
    let progress = Arc::new(events::Progress::default());
    let tasks = Tasks::new();
    let report = runtime.block_on(async {
        let bus = RedisBus::connect(redis, config.bus.limits(), &tasks).await.context("the log in Redis")?;
        let publishing = events::publish(Arc::new(bus), options, Arc::clone(&progress), &tasks);
        tokio::pin!(publishing);
        let report = loop {
            tokio::select! {
                report = &mut publishing => break report?,
                () = tokio::time::sleep(SHOW), if io::stderr().is_terminal() => {
                    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
                    eprint!("\r{} sent, {} accepted   ", count(&progress.sent), count(&progress.accepted));
                }
            }
        };
        if let Err(open) = tasks.finish(END).await {
            tracing::warn!(open = open.join(", "), "did not end");
        }
        anyhow::Ok(report)
    })?;
    told(&report, &limits, arguments.json)
}

fn quiet() -> anyhow::Result<()> {
    let quiet = LogConfig { filter: "warn".to_owned(), ..LogConfig::default() };
    logs::install(&quiet).map_err(anyhow::Error::msg)
}

/// Prints the report, and which limits it breaks.
fn told(report: &Report, limits: &Limits, json: bool) -> anyhow::Result<ExitCode> {
    if io::stderr().is_terminal() {
        eprintln!();
    }
    let mut out = io::stdout();
    if json {
        writeln!(out, "{}", report.to_json())?
    } else {
        writeln!(out, "{report}")?
    }
    let broken = report.broken(limits);
    for limit in &broken {
        eprintln!("hearsay: {limit}");
    }
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
