//! `cargo xtask bench`: the figures of BENCHMARKS.md, on this machine, from real processes.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use xtask::speech_set::{self, Kind};

use crate::shell::{cargo, root, step};

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// `hearsay transcribe --fast` on a recording: audio per processor second of all processes, and memory over time.
    Transcribe {
        /// A WAV file; the ten-minute talk of the speech set when absent.
        file: Option<PathBuf>,
        /// Seconds of audio per processor second to reach.
        #[arg(long, default_value_t = 12.0)]
        at_least: f64,
        /// How much larger the memory of a process may be at the end than at a quarter of the way, in percent.
        #[arg(long, default_value_t = 10.0)]
        growth: f64,
    },
}

pub(crate) fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Transcribe { file, at_least, growth } => transcribe(file, at_least, growth),
    }
}

/// Linux counts processor time in hundredths of a second, whatever the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// First use may fetch and convert models.
const READY_WITHIN: Duration = Duration::from_secs(600);

fn transcribe(file: Option<PathBuf>, at_least: f64, growth: f64) -> Result<()> {
    let file = file.map_or_else(talk, Ok)?;
    let reader = hound::WavReader::open(&file).with_context(|| file.display().to_string())?;
    let audio = f64::from(reader.duration()) / f64::from(reader.spec().sample_rate);

    step("build", cargo(&["build", "--release", "--package", "hearsay"]))?;
    let mut server = Server::start()?;
    let mut client = Command::new(binary());
    client.arg("transcribe").arg("--fast").args(["--url", &server.url]).arg(&file);
    client.env("HEARSAY_TOKEN", &server.token).stdout(Stdio::piped()).stderr(Stdio::piped());
    let before = usage(server.process.id())?;
    let begun = Instant::now();
    let mut client = Guard(client.spawn().context("transcribe cannot be started")?);
    let mut out = BufReader::new(client.0.stdout.take().context("no stdout")?);
    // Read beside, so that a full pipe does not stop the client.
    let lines = std::thread::spawn(move || {
        let mut lines = 0;
        let mut line = String::new();
        while out.read_line(&mut line).is_ok_and(|read| read > 0) {
            lines += 1;
            line.clear();
        }
        lines
    });
    let (mut of_client, mut of_server) = (vec![usage(client.0.id())?], vec![before]);
    let status = loop {
        if let Some(status) = client.0.try_wait()? {
            break status;
        }
        // Between the two calls it may have ended.
        of_client.extend(usage(client.0.id()));
        of_server.push(usage(server.process.id())?);
        sleep(SAMPLE_EVERY);
    };
    let wall = begun.elapsed().as_secs_f64();
    of_server.push(usage(server.process.id())?);
    let finals = lines.join().unwrap_or_default();
    if !status.success() {
        let mut told = String::new();
        if let Some(mut stderr) = client.0.stderr.take() {
            let _ = std::io::Read::read_to_string(&mut stderr, &mut told);
        }
        bail!("transcribe ended with {status}: {told}");
    }
    server.stop()?;

    let server_cpu = of_server[of_server.len() - 1].cpu - before.cpu;
    let client_cpu = of_client.last().map_or(0.0, |usage| usage.cpu);
    let speed = audio / (server_cpu + client_cpu);
    println!("audio                      {audio:.1} s, {finals} finals");
    println!("wall time                  {wall:.1} s ({:.1} x real time)", audio / wall);
    println!("processor time             {server_cpu:.1} s server, {client_cpu:.1} s client");
    println!("audio per processor second {speed:.1} (to reach: {at_least})");
    let mut grown = Vec::new();
    for (name, samples) in [("server", &of_server), ("client", &of_client)] {
        let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize].resident;
        let (early, late) = (at(0.25), samples[samples.len() * 3 / 4..].iter().map(|usage| usage.resident).max());
        let late = late.unwrap_or(early);
        let percent = (late as f64 / early as f64 - 1.0) * 100.0;
        println!(
            "memory of the {name}       {} MB at 25 %, {} MB at 50 %, {} MB at most in the last quarter ({percent:+.1} %)",
            early / 1_000_000,
            at(0.5) / 1_000_000,
            late / 1_000_000
        );
        if percent > growth {
            grown.push(name);
        }
    }
    ensure!(finals > 0, "there is no final");
    ensure!(grown.is_empty(), "the memory of {} grew by more than {growth} %", grown.join(" and "));
    ensure!(speed >= at_least, "{speed:.1} seconds of audio per processor second; {at_least} are to be reached");
    Ok(())
}

fn talk() -> Result<PathBuf> {
    let folder = speech_set::folder()?;
    let set = speech_set::load_from(&folder).context("no speech set: make it with `cargo xtask speech-set`")?;
    let talk = set.items.iter().find(|item| item.kind == Kind::Talk && item.derived_from.is_none());
    Ok(folder.join(&talk.context("the speech set has no talk")?.file))
}

fn binary() -> PathBuf {
    root().join("target/release/hearsay")
}

/// A process that ends with us.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `hearsay dev` on a free port.
struct Server {
    process: Child,
    url: String,
    token: String,
}

impl Server {
    fn start() -> Result<Self> {
        let mut command = Command::new(binary());
        command.args(["dev", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("{} cannot be started", binary().display()))?;
        let out = process.stdout.take().context("no stdout")?;
        let mut server = Self { process, url: String::new(), token: String::new() };
        let (tell, told) = std::sync::mpsc::sync_channel(2);
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)))
        });
        for (word, value) in [("ready ", &mut server.url), ("token ", &mut server.token)] {
            let line = told.recv_timeout(READY_WITHIN).context("hearsay dev did not become ready")?;
            *value =
                line.strip_prefix(word).with_context(|| format!("{line:?} does not begin with {word:?}"))?.to_owned();
        }
        Ok(server)
    }

    /// Asks it to end in order, and waits.
    fn stop(&mut self) -> Result<()> {
        let id = self.process.id().to_string();
        ensure!(Command::new("kill").args(["-TERM", &id]).status()?.success(), "the server was gone");
        let status = self.process.wait()?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the system counts for a process.
#[derive(Debug, Clone, Copy)]
struct Usage {
    /// In seconds, user and system.
    cpu: f64,
    /// In bytes.
    resident: u64,
}

fn usage(process: u32) -> Result<Usage> {
    let folder = Path::new("/proc").join(process.to_string());
    let stat = fs::read_to_string(folder.join("stat")).context("this figure needs Linux's /proc")?;
    // Fields are counted behind the command's name, which may hold spaces.
    let fields: Vec<_> = stat.rsplit_once(')').map_or(&*stat, |(_, fields)| fields).split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    let status = fs::read_to_string(folder.join("status"))?;
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    Ok(Usage { cpu: (number(11) + number(12)) / TICKS_PER_SECOND, resident: resident.unwrap_or_default() * 1_024 })
}
