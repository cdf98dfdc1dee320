//! What a pool of recognizers carries, and what becomes of words when its recognizers die: the figures of BENCHMARKS.md.
//!
//! `cargo bench -p hearsay-tests --bench pool -- COMMAND`:
//! * `faults [STREAMS] [SECONDS] [FAULT]`: live streams over two recognizers, unbroken and with two faults of each kind.
//! * `kills [KILLS]`: the first five minutes of the talk, as recorded, with its recognizer killed again and again.
//! * `overload [TIMES]`: more streams than the recognizer is rated at.
//! * `streams COUNT [SHARE] [PARTIALS] [SECONDS] [half]`: live streams on one processor, all else on the other; `half` when
//!   that is half of what it hears well.
//! * `relay [STREAMS] [SECONDS] [PARTIALS]`: what a gateway's processor time is to a plain TCP relay's; `none` for finals only.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hearsay_tests::{
    Cluster, Setup,
    client::wav,
    cpu_seconds, memory,
    soak::{Clip, FORMS, Fault, Heard, Pace, Voice, befall, quantile, say, say_all, say_through_kills},
    words::{errors, normalize},
};
use tokio::time::Instant;
use xtask::speech_set::{Kind, folder, load};

/// The part of a meeting during which one participant speaks.
const SHARE: f64 = 0.35;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize, default: f64| arguments.get(at).map_or(Ok(default), |text| text.parse::<f64>());
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match arguments.first().map(String::as_str) {
        Some("faults") => {
            let only = arguments.get(3).map(String::as_str);
            runtime()?.block_on(faults(number(1, 20.0)? as usize, number(2, 60.0)?, only))
        }
        Some("kills") => runtime()?.block_on(kills(number(1, 10.0)? as usize)),
        Some("overload") => {
            pin(1)?;
            runtime()?.block_on(overload(number(1, 2.0)?))
        }
        Some("streams") => {
            // Before there is a second thread: all of it, and what it starts, runs on the second processor.
            pin(1)?;
            let partial = arguments.get(3).map_or("1s", String::as_str);
            let half = arguments.get(5).is_some_and(|argument| argument == "half");
            runtime()?.block_on(streams(number(1, 10.0)? as usize, number(2, SHARE)?, partial, number(4, 60.0)?, half))
        }
        Some("relay") => {
            let partial = arguments.get(3).map_or("1s", String::as_str);
            runtime()?.block_on(relay::measure(number(1, 40.0)? as usize, number(2, 30.0)?, partial))
        }
        Some("relay-process") => relay::run(arguments.get(1).context("where to")?),
        Some(other) => bail!("say `faults`, `kills`, `overload`, `streams` or `relay`, not {other:?}"),
        // As `cargo test --all-targets` calls it.
        None => {
            println!("nothing measured: say `faults`, `kills`, `overload`, `streams` or `relay`");
            Ok(())
        }
    }
}

fn pin(processor: usize) -> Result<()> {
    let (processor, own) = (processor.to_string(), std::process::id().to_string());
    let mut taskset = std::process::Command::new("taskset");
    let status = taskset.args(["-cp", &processor, &own]).stdout(std::process::Stdio::null()).status()?;
    ensure!(status.success(), "taskset does not work");
    Ok(())
}

/// The utterances of the read part, voice by voice.
fn clips() -> Result<Vec<Clip>> {
    const RATE: f64 = 16_000.0;
    const AROUND: f64 = 0.1;
    let (set, at) = (load().context("cargo xtask speech-set assembles the set")?, folder()?);
    let mut clips = Vec::new();
    for item in set.items.iter().filter(|item| item.kind == Kind::Read) {
        let (samples, rate) = wav(&item.path(&at))?;
        ensure!(f64::from(rate) == RATE, "{} has another rate", item.file);
        for utterance in &item.utterances {
            let (begins, ends) = (utterance.start_us as f64 / 1e6, utterance.end_us as f64 / 1e6);
            let from = (begins - AROUND).max(0.0);
            let until = ((ends + AROUND) * RATE) as usize;
            let samples = samples[(from * RATE) as usize..until.min(samples.len())].to_vec();
            clips.push(Clip { samples, speech: (begins - from, ends - from) });
        }
    }
    Ok(clips)
}

/// Different people, who do not speak in step.
fn voices(count: usize, seconds: f64, share: f64, forms: &[&'static str]) -> Result<Vec<Voice>> {
    let clips = clips()?;
    (0..count)
        .map(|n| {
            let mine = clips.iter().cycle().skip(n * 17 % clips.len()).cloned();
            let lead = (n as f64 * 0.77) % 4.0;
            Voice::of_clips(forms[n % forms.len()], mine, share, lead, seconds)
        })
        .collect()
}

/// How often what is said is shown before it is final; `none`: longer than any utterance.
fn partials(every: &str) -> [(&'static str, String); 2] {
    let (first, every) = if every == "none" { ("10s", "10s") } else { ("500ms", every) };
    [
        ("HEARSAY__RECOGNIZER__SEGMENT__PARTIAL", every.to_owned()),
        ("HEARSAY__RECOGNIZER__SEGMENT__FIRST_PARTIAL", first.to_owned()),
    ]
}

fn rated(streams: usize) -> (&'static str, String) {
    ("HEARSAY__RECOGNIZER__RATED", streams.to_string())
}

async fn faults(streams: usize, seconds: f64, only: Option<&str>) -> Result<()> {
    let voices = voices(streams, seconds, SHARE, &FORMS)?;
    let settings = vec![rated(streams), ("HEARSAY__RECOGNIZER__ENGINE_THREADS", "1".to_owned())];
    let mut cluster = Cluster::with(Setup { recognizers: 2, gateways: 1, settings, ..Setup::default() }).await?;
    let gateway = cluster.gateways[0].entry();
    let unbroken = say_all(&gateway, "unbroken", &voices).await?;
    let words: usize = unbroken.iter().map(|heard| heard.words().len()).sum();
    // Of those whose messages carry what their times say; compressed streams are cut by bytes.
    let exact = unbroken.iter().filter(|heard| !matches!(heard.form, "flac" | "ogg"));
    let mut late: Vec<f64> = exact.flat_map(Heard::latencies).map(|it| it.1.as_secs_f64() * 1e3).collect();
    late.sort_by(f64::total_cmp);
    println!(
        "{streams} streams of {seconds} s, {words} words; unbroken: final after its last word p50 {:.0} p95 {:.0} max {:.0} ms",
        quantile(&late, 0.5),
        quantile(&late, 0.95),
        quantile(&late, 1.0)
    );
    let mut failures = Vec::new();
    for fault in [Fault::Killed, Fault::Silenced, Fault::Frozen] {
        let name = format!("{fault:?}").to_lowercase();
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let moved = "hearsay_uplink_placements_total{why=\"moved\"}";
        let before = cluster.gateways[0].metric(moved).await?;
        let first = Duration::from_secs_f64(seconds / 3.0);
        let (broken, at) = tokio::join!(say_all(&gateway, &name, &voices), befall(&mut cluster, fault, first));
        let (broken, at) = (broken?, at?);
        let moves = cluster.gateways[0].metric(moved).await? - before;
        let (mut extra, mut stalled, mut changed) = (Vec::new(), Vec::new(), 0);
        for (unbroken, broken) in unbroken.iter().zip(&broken) {
            if let Err(error) = unbroken.is_same(broken, false) {
                changed += 1;
                println!("{name}: {error}");
                continue;
            }
            let pairs = unbroken.latencies().into_iter().zip(broken.latencies()).zip(&broken.finals);
            for (((_, usual), (_, now)), said) in pairs {
                let more = now.as_secs_f64() - usual.as_secs_f64();
                extra.push(more);
                // Said around a fault: its audio, or its final, met it.
                if at.iter().any(|at| said.at > *at && said.at.duration_since(*at) < Duration::from_secs(4)) {
                    stalled.push(more);
                }
            }
        }
        extra.sort_by(f64::total_cmp);
        stalled.sort_by(f64::total_cmp);
        println!(
            "{name}: {moves} moves, {changed} of {streams} streams with other words; extra stall of all {} finals p50 {:.2} \
             p99 {:.2} max {:.2} s; of the {} within 4 s of a fault p50 {:.2} p95 {:.2} p99 {:.2} s",
            extra.len(),
            quantile(&extra, 0.5),
            quantile(&extra, 0.99),
            quantile(&extra, 1.0),
            stalled.len(),
            quantile(&stalled, 0.5),
            quantile(&stalled, 0.95),
            quantile(&stalled, 0.99),
        );
        if changed > 0 {
            failures.push(format!("{name}: {changed} streams have other words"));
        }
        if quantile(&extra, 0.99) > 1.5 {
            failures.push(format!("{name}: p99 of the extra stall is {:.2} s", quantile(&extra, 0.99)));
        }
        ensure!(moves >= 2.0, "{name}: nobody was moved");
        if fault == Fault::Killed {
            // The other was drained.
            let gone = cluster.recognizers.len() - 1;
            for n in 0..=gone {
                if cluster.recognizers[n].metric("hearsay_recognizer_streams").await.is_err() {
                    cluster.restart(n).await?;
                }
            }
            cluster.until_up(2).await?;
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

async fn kills(kills: usize) -> Result<()> {
    let (set, at) = (load()?, folder()?);
    let talk = set.items.iter().find(|item| item.kind == Kind::Talk).context("the set has a talk")?;
    let (samples, rate) = wav(&talk.path(&at))?;
    let voice = Voice::new("linear16", &samples[..300 * rate as usize], rate)?;
    let said: Vec<_> = talk.utterances.iter().filter(|it| it.end_us < 300_000_000).map(|it| it.text.clone()).collect();
    let said = normalize(&said.join(" "));
    let mut cluster =
        Cluster::with(Setup { recognizers: 2, gateways: 1, settings: vec![rated(20)], ..Setup::default() }).await?;
    let unbroken = say(&cluster.gateways[0].entry(), "unbroken", &voice, Pace::Poured).await?;
    let (began, moved) = (Instant::now(), r#"hearsay_uplink_placements_total{why="moved"}"#);
    let broken = say_through_kills(&mut cluster, "killed", &voice, 4.0, kills).await?;
    let moves = cluster.gateways[0].metric(moved).await?;
    ensure!(moves >= kills as f64, "{kills} kills moved the stream {moves} times");
    let rate = |heard: &Heard| 100.0 * errors(&said, &normalize(&heard.text())).rate();
    println!(
        "{kills} kills in 300 s of a recording ({:.0} s of time), {} words: word error rate {:.2} %, unbroken {:.2} %",
        began.elapsed().as_secs_f64(),
        broken.words().len(),
        rate(&broken),
        rate(&unbroken)
    );
    unbroken.is_same(&broken, false)
}

/// How late finals were, in ms, by the length of what was said.
#[derive(Default)]
struct Lateness {
    /// Up to 6 s.
    short: Vec<f64>,
    long: Vec<f64>,
    /// Clips without a final.
    missing: usize,
}

impl Lateness {
    /// Of streams that were not refused.
    fn of<'a>(heard: impl Iterator<Item = (&'a Heard, &'a Voice)>) -> Self {
        let mut all = Self::default();
        for (heard, voice) in heard.filter(|(heard, _)| heard.refused.is_none()) {
            for (length, late) in heard.clip_latencies(voice) {
                match late {
                    Some(late) if length <= 6.0 => all.short.push(late.as_secs_f64() * 1e3),
                    Some(late) => all.long.push(late.as_secs_f64() * 1e3),
                    None => all.missing += 1,
                }
            }
        }
        all.short.sort_by(f64::total_cmp);
        all.long.sort_by(f64::total_cmp);
        all
    }
}

/// The processor's name, as the kernel knows it.
fn processor() -> String {
    let known = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = known.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    named.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned())
}

async fn overload(times: f64) -> Result<()> {
    let settings = vec![("HEARSAY__RECOGNIZER__ENGINE_THREADS", "1".to_owned())];
    let cluster = Cluster::with(Setup { recognizers: 1, gateways: 1, settings, recognizers_on: Some(0) }).await?;
    let rated = cluster.recognizers[0].metric("hearsay_recognizer_streams_rated").await?;
    let offered = (rated * times).ceil() as usize;
    let voices = voices(offered, 45.0, SHARE, &["linear16"])?;
    let pids = [cluster.recognizers[0].pid(), cluster.gateways[0].pid()];
    let before = (memory(pids[0])?, memory(pids[1])?);
    let most = std::sync::Mutex::new(before);
    let talking = say_all_timed(&cluster, &voices);
    let watching = async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            if let (Ok(recognizer), Ok(gateway)) = (memory(pids[0]), memory(pids[1])) {
                let mut most = most.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                *most = (most.0.max(recognizer), most.1.max(gateway));
            }
        }
    };
    let heard = tokio::select! {
        heard = talking => heard?,
        () = watching => unreachable!("it never ends"),
    };
    let refused: Vec<_> = heard.iter().filter_map(|(heard, after)| Some((heard.refused.as_ref()?, *after))).collect();
    let admitted = heard.len() - refused.len();
    let Lateness { short, long, missing } = Lateness::of(heard.iter().map(|it| &it.0).zip(&voices));
    let most = *most.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "rated at {rated} streams, {offered} offered: {admitted} admitted, {} refused within {:.2} s ({}); finals up to 6 s \
         n={} p50 {:.0} p95 {:.0} ms, 6 to 10 s n={} p95 {:.0} ms, {missing} clips without one; recognizer {:.0} -> {:.0} MiB, \
         gateway {:.0} -> {:.0} MiB",
        refused.len(),
        refused.iter().map(|it| it.1.as_secs_f64()).fold(0.0, f64::max),
        refused.first().map_or("", |it| it.0.as_str()),
        short.len(),
        quantile(&short, 0.5),
        quantile(&short, 0.95),
        long.len(),
        quantile(&long, 0.95),
        mib(before.0),
        mib(most.0),
        mib(before.1),
        mib(most.1),
    );
    ensure!(admitted > 0 && !refused.is_empty(), "{admitted} admitted of {offered}: nothing was overloaded");
    ensure!(refused.iter().all(|(why, _)| why.contains("overloaded")), "{refused:?}");
    ensure!(missing == 0, "{missing} clips of admitted streams have no final");
    ensure!(quantile(&short, 0.95) <= 700.0, "admitted streams' finals of up to 6 s are late");
    ensure!(long.is_empty() || quantile(&long, 0.95) <= 1_000.0, "admitted streams' finals of 6 to 10 s are late");
    let growth = (most.0 - before.0) + (most.1 - before.1);
    // Audio held, a lane, a socket: what ARCHITECTURE.md states for one stream, in both processes together.
    ensure!(growth <= admitted as u64 * (8 << 20) + (64 << 20), "memory grew by {:.0} MiB", mib(growth));
    Ok(())
}

async fn say_all_timed(cluster: &Cluster, voices: &[Voice]) -> Result<Vec<(Heard, Duration)>> {
    let gateway = cluster.gateways[0].entry();
    let talks = voices.iter().enumerate().map(|(n, voice)| {
        let gateway = gateway.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(100 * n as u64)).await;
            let began = Instant::now();
            let heard = say(&gateway, &format!("overload-{n}"), voice, Pace::Live).await?;
            anyhow::Ok((heard, began.elapsed()))
        }
    });
    futures::future::try_join_all(talks).await
}

async fn streams(count: usize, share: f64, partial: &str, seconds: f64, half: bool) -> Result<()> {
    // More than are ever measured, so that nothing is refused.
    let settings = partials(partial).into_iter().chain([rated(64)]).collect();
    let setup = Setup { recognizers: 1, gateways: 1, settings, recognizers_on: Some(0) };
    let cluster = Cluster::with(setup).await?;
    let voices = voices(count, seconds, share, &["linear16"])?;
    let gateway = cluster.gateways[0].entry();
    let mut alone = Vec::new();
    for (n, voice) in voices.iter().enumerate() {
        alone.push(say(&gateway, &format!("alone-{n}"), voice, Pace::Poured).await?);
    }
    let recognizer = &cluster.recognizers[0];
    let of = async |name: &str| recognizer.metric(name).await.unwrap_or(0.0);
    let names = [
        "hearsay_recognizer_early_decodes_total",
        "hearsay_recognizer_early_decodes_wasted_total",
        r#"hearsay_recognizer_decode_seconds_count{kind="final"}"#,
        r#"hearsay_recognizer_partials_total{became="announced"}"#,
    ];
    let mut before = [0.0; 4];
    for (value, name) in before.iter_mut().zip(names) {
        *value = of(name).await;
    }
    let (cpu, began) = (cpu_seconds(recognizer.pid())?, Instant::now());
    let (most, busy) = (std::cell::Cell::new(0.0f64), "hearsay_recognizer_ladder_step");
    let watching = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            most.set(most.get().max(of(busy).await));
        }
    };
    let heard = tokio::select! {
        heard = say_all(&gateway, "many", &voices) => heard?,
        () = watching => unreachable!("it never ends"),
    };
    let took = began.elapsed().as_secs_f64();
    let cpu = cpu_seconds(recognizer.pid())? - cpu;
    let refused = heard.iter().filter(|heard| heard.refused.is_some()).count();
    let Lateness { short, long, missing } = Lateness::of(heard.iter().zip(&voices));
    let mut done = [0.0; 4];
    for ((value, name), before) in done.iter_mut().zip(names).zip(before) {
        *value = of(name).await - before;
    }
    let [early, wasted, finals, partials] = done;
    #[expect(clippy::disallowed_methods, reason = "says what the processes under test take from the environment")]
    let runtime = std::env::var("HEARSAY__RECOGNIZER__ENGINE__RUNTIME").unwrap_or_else(|_| "rten".to_owned());
    println!(
        "{runtime}, {}: {count} streams at {share} speech, partials {partial}: finals up to 6 s n={} p50 {:.0} p95 {:.0} max {:.0} \
         ms; 6 to 10 s n={} p95 {:.0} ms; {missing} clips without one; {refused} refused; ladder {}; engine core {:.0} %; early \
         decodes {early}, wasted {wasted}: {:.0} % of them, {:.0} % of all {finals} decodes of finals; partials {partials}",
        processor(),
        short.len(),
        quantile(&short, 0.5),
        quantile(&short, 0.95),
        quantile(&short, 1.0),
        long.len(),
        quantile(&long, 0.95),
        most.get(),
        100.0 * cpu / took,
        100.0 * wasted / early.max(1.0),
        100.0 * wasted / finals.max(1.0),
    );
    for (alone, heard) in alone.iter().zip(&heard) {
        alone.is_same(heard, true).context("one stream of many has other words than alone")?;
    }
    ensure!(refused == 0 && missing == 0, "{refused} streams were refused, {missing} clips have no final");
    ensure!(quantile(&short, 0.95) <= 700.0, "finals of up to 6 s are late");
    ensure!(long.is_empty() || quantile(&long, 0.95) <= 1_000.0, "finals of 6 to 10 s are late");
    ensure!(!half || quantile(&short, 0.5) <= 400.0, "half of the finals are later than 400 ms at half load");
    ensure!(most.get() == 0.0, "the ladder was climbed");
    Ok(())
}

/// A gateway against a relay that knows nothing, both with the same frames at the same time.
mod relay {
    use std::process::Stdio;

    use hearsay_tests::client::Client;
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        time::sleep_until,
    };
    use tokio_tungstenite::tungstenite::Message;

    use super::*;

    /// A tenth of a second of 16 kHz LINEAR16.
    const FRAME: usize = 3_200;
    /// As in a large meeting, few speak at once: the recognizer has to keep up for its acknowledgements to be carried.
    const SPEECH: f64 = 0.12;
    /// How long the last acknowledgements may take.
    const REST: Duration = Duration::from_secs(20);

    /// Reads from each connection and writes to one of its own to `address`, on one thread as each of the gateway's cores is.
    /// For each frame it waits once, reads once and writes once: no relay does less.
    pub(super) fn run(address: &str) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            println!("{}", listener.local_addr()?);
            let mut relayed = tokio::task::JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await?;
                let address = address.to_owned();
                relayed.spawn(async move {
                    let mut far = TcpStream::connect(address).await?;
                    far.set_nodelay(true)?;
                    let mut frames = vec![0; 1 << 16];
                    while let Ok(read @ 1..) = near.read(&mut frames).await {
                        far.write_all(&frames[..read]).await?;
                    }
                    anyhow::Ok(())
                });
            }
        })
    }

    pub(super) async fn measure(streams: usize, seconds: f64, partial: &str) -> Result<()> {
        let many = [rated(1_000), ("HEARSAY__RECOGNIZER__STREAMS", "1000".to_owned())];
        let settings = partials(partial).into_iter().chain(many).collect();
        let cluster = Cluster::with(Setup { recognizers: 1, gateways: 1, settings, ..Setup::default() }).await?;
        let sink = TcpListener::bind("127.0.0.1:0").await?;
        let mut sinking = tokio::task::JoinSet::new();
        let at = sink.local_addr()?;
        sinking.spawn(async move {
            let mut each = tokio::task::JoinSet::new();
            while let Ok((mut from, _)) = sink.accept().await {
                each.spawn(async move {
                    let mut buffer = vec![0; 1 << 16];
                    while from.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                });
            }
        });
        let mut relay = tokio::process::Command::new(std::env::current_exe()?);
        relay.args(["relay-process", &at.to_string()]).stdout(Stdio::piped()).kill_on_drop(true);
        let mut relay = relay.spawn()?;
        let mut lines =
            tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(relay.stdout.take().context("stdout")?));
        let relay_at = lines.next_line().await?.context("the relay's address")?;
        let (gateway, relay_pid) = (cluster.gateways[0].pid(), relay.id().context("the relay runs")?);
        let entry = cluster.gateways[0].entry();
        let spoken = voices(streams, seconds, SPEECH, &["linear16"])?;
        let mut talkers = Vec::new();
        for (n, voice) in spoken.iter().enumerate() {
            let mut client = Client::enter(&entry, &format!("/v1/realtime/insights/relay-{n}")).await?;
            client.begin("Ana", 16_000, json!({"hearsay": {"ack": true}})).await?;
            talkers.push((client, TcpStream::connect(&relay_at).await?, voice));
        }
        let acknowledged = "hearsay_uplink_audio_acknowledged_bytes_total";
        let before = (cpu_seconds(gateway)?, cpu_seconds(relay_pid)?, cluster.gateways[0].metric(acknowledged).await?);
        let frames = (seconds * 10.0) as u32;
        let began = Instant::now();
        let talks = talkers.into_iter().enumerate().map(|(n, (mut client, mut plain, voice))| async move {
            let first = began + Duration::from_millis(100).mul_f64(n as f64 / streams as f64);
            let due = move |frame: u32| first + Duration::from_millis(100) * frame;
            let said = || (0..frames).zip(voice.messages().filter(|message| message.len() == FRAME));
            let to_gateway =
                client.send_all(said().map(|(frame, audio)| (Some(due(frame)), Message::binary(audio.to_vec()))));
            let to_relay = async {
                for (frame, audio) in said() {
                    sleep_until(due(frame)).await;
                    plain.write_all(audio).await?;
                }
                anyhow::Ok(())
            };
            let (one, other) = tokio::join!(to_gateway, to_relay);
            one?;
            other?;
            anyhow::Ok((client, plain))
        });
        let talkers = futures::future::try_join_all(talks).await?;
        let sent = streams as f64 * f64::from(frames) * FRAME as f64 / 1e6;
        // What is relayed is to be acknowledged, and that is part of what is paid for.
        let (ended, mut covered) = (Instant::now(), 0.0);
        while covered < 0.9 && ended.elapsed() < REST {
            tokio::time::sleep(Duration::from_millis(100)).await;
            covered = (cluster.gateways[0].metric(acknowledged).await? - before.2) / 1e6 / sent;
        }
        let after = (cpu_seconds(gateway)?, cpu_seconds(relay_pid)?, cluster.gateways[0].metric(acknowledged).await?);
        let (own, plain) = ((after.0 - before.0) * 1e3 / sent, (after.1 - before.1) * 1e3 / sent);
        println!(
            "{streams} streams, partials {partial}, {sent:.0} MB in {seconds} s, {:.0} MB acknowledged: gateway {own:.2} ms of CPU \
             a MB, plain TCP relay {plain:.2} ms: {:.2} times",
            (after.2 - before.2) / 1e6,
            own / plain
        );
        drop(talkers);
        ensure!(covered >= 0.9, "only {:.0} % was acknowledged", 100.0 * covered);
        ensure!(own <= 3.0 * plain, "the gateway takes more than three times what a relay does");
        Ok(())
    }
}
