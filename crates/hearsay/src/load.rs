//! `hearsay load`.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use hearsay_bus::redis::RedisBus;
use hearsay_load::load::{
    Limits, Report,
    events::{self, Publish},
    listen::{self, Listen, Measures, Names},
    meetings::{self, Meetings},
    sockets,
};
use hearsay_models::cache_folder;
use hearsay_protocol::AccountId;
use hearsay_runtime::{LogConfig, Tasks, logs};

use crate::{
    cli::{LoadEvents, LoadListen, LoadMeetings, LoadSockets, LoadStorm},
    config::{self, Flags},
    log, token_file,
};

/// Called wrongly, as clap says it.
const USAGE: u8 = 2;
/// How often progress is shown.
const SHOW: Duration = Duration::from_millis(500);
/// For connections to close behind a run.
const END: Duration = Duration::from_secs(5);

/// A run of sockets with everything the command line says about it.
struct Sockets {
    options: Listen,
    limits: Limits,
    json: bool,
}

impl Sockets {
    /// None: nobody knows a token, which was said.
    fn of(arguments: LoadListen, measures: Measures) -> anyhow::Result<Option<Self>> {
        quiet()?;
        let first = arguments.urls.first().context("--url: at least one gateway is needed")?;
        let found = || cache_folder().ok().and_then(|cache| token_file::find(&cache, first));
        let Some(token) = arguments.token.or_else(found) else {
            eprintln!(
                "hearsay: no token. `hearsay dev` prints one on its second line: pass it as --token or HEARSAY_TOKEN"
            );
            return Ok(None);
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
            measures,
        };
        Ok(Some(Self { options, limits, json: arguments.json }))
    }

    fn listen(self) -> anyhow::Result<ExitCode> {
        let progress = Arc::new(listen::Progress::default());
        let tasks = Tasks::new();
        let listening = listen::listen(self.options, Arc::clone(&progress), &tasks);
        let report = one_thread()?.block_on(shown(listening, || listened(&progress)))?;
        told(&report, &self.limits, self.json)
    }
}

fn one_thread() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn listened(progress: &listen::Progress) -> (String, u64) {
    let (connected, missing) = (count(&progress.connected), count(&progress.missing));
    (format!("{connected} connected, {missing} missing"), count(&progress.delivered))
}

pub(crate) fn listen(arguments: LoadListen) -> anyhow::Result<ExitCode> {
    Sockets::of(arguments, Measures::Events)?.map_or(Ok(ExitCode::from(USAGE)), Sockets::listen)
}

pub(crate) fn storm(arguments: LoadStorm) -> anyhow::Result<ExitCode> {
    let measures = Measures::Returns { after: arguments.after.get() };
    Sockets::of(arguments.listen, measures)?.map_or(Ok(ExitCode::from(USAGE)), Sockets::listen)
}

pub(crate) fn sockets(arguments: LoadSockets) -> anyhow::Result<ExitCode> {
    let measures = Measures::Pings { every: arguments.ping.get() };
    let Some(run) = Sockets::of(arguments.listen, measures)? else { return Ok(ExitCode::from(USAGE)) };
    let progress = Arc::new(listen::Progress::default());
    let tasks = Tasks::new();
    let keeping = sockets::sockets(run.options, arguments.pid, Arc::clone(&progress), &tasks);
    let report = one_thread()?.block_on(shown(keeping, || listened(&progress)))?;
    told(&report, &run.limits, run.json)
}

pub(crate) fn meetings(arguments: LoadMeetings) -> anyhow::Result<ExitCode> {
    let (meetings, prefix) = (arguments.listen.meetings, arguments.listen.prefix.clone());
    let Some(run) = Sockets::of(arguments.listen, Measures::Events)? else { return Ok(ExitCode::from(USAGE)) };
    let speakers = arguments.speakers as usize;
    let options = Meetings { listen: run.options, meetings, prefix, speakers, audio: arguments.audio };
    let progress = Arc::new(meetings::Progress::default());
    let tasks = Tasks::new();
    let holding = meetings::meetings(options, Arc::clone(&progress), &tasks);
    let report = one_thread()?.block_on(shown(holding, || {
        let (words, delivered) = listened(&progress.listening);
        let (speaking, finals) = (count(&progress.speaking), count(&progress.finals));
        (format!("{speaking} speak, {finals} finals, {words}"), delivered)
    }))?;
    told(&report, &run.limits, run.json)
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
        partials: arguments.partials,
        insights: arguments.insights,
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
        let report = shown(publishing, || {
            let (sent, partials) = (count(&progress.sent), count(&progress.partials));
            (format!("{sent} sent and {partials} partials"), count(&progress.accepted))
        });
        let report = report.await?;
        if let Err(open) = tasks.finish(END).await {
            tracing::warn!(open = open.join(", "), "did not end");
        }
        anyhow::Ok(report)
    })?;
    told(&report, &limits, arguments.json)
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Shows how far `run` is, on a terminal: some words, and how many events were delivered, in all and a second.
async fn shown<T>(run: impl Future<Output = T>, progress: impl Fn() -> (String, u64)) -> T {
    let mut run = std::pin::pin!(run);
    let (mut before, mut at) = (progress().1, Instant::now());
    loop {
        tokio::select! {
            done = &mut run => return done,
            () = tokio::time::sleep(SHOW), if io::stderr().is_terminal() => {
                let (words, delivered) = progress();
                let rate = delivered.saturating_sub(before) as f64 / at.elapsed().as_secs_f64();
                (before, at) = (delivered, Instant::now());
                eprint!("\r{words}, {delivered} delivered, {rate:.0} a second   ");
            }
        }
    }
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
