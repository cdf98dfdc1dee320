//! Speakers whose connections break at any moment: who listens hears what an unbroken speaker would have said.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use hearsay_tests::{
    Build, Link, Server, binary,
    client::{self, Client, Said, wav},
    recordings,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::Message;

/// A listener with every durable position, in a task of its own.
fn listen(mut client: Client) -> tokio::task::JoinHandle<Result<Client>> {
    tokio::spawn(async move { client.drain().await.map(|()| client) })
}

/// A speaker that numbers its messages and returns to its stream, as the reference says.
struct Speaker<'a> {
    server: &'a Server,
    path: String,
    extension: Value,
    rate: u32,
    chunks: Vec<Vec<u8>>,
    /// None while it is away.
    client: Option<Client>,
    token: Value,
    stream: Value,
    next: usize,
    conversation: String,
}

impl<'a> Speaker<'a> {
    async fn begin(
        server: &'a Server,
        meeting: &str,
        extension: Value,
        (samples, rate): (Vec<i16>, u32),
        bytes: usize,
    ) -> Result<Self> {
        let audio: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let chunks = audio.chunks(bytes).map(<[u8]>::to_vec).collect();
        let path = format!("/v1/realtime/insights/{meeting}");
        let mut client = Client::connect(server, &path).await?;
        let conversation = client.begin("Ana", rate, json!({ "hearsay": extension })).await?;
        let told = client.until("a token", |frame| frame["type"] == "resume_token").await?;
        let (token, stream) = (told["token"].clone(), told["stream"].clone());
        Ok(Self { server, path, extension, rate, chunks, client: Some(client), token, stream, next: 0, conversation })
    }

    fn client(&mut self) -> Result<&mut Client> {
        self.client.as_mut().context("away")
    }

    /// Sends up to this chunk, as fast as the socket takes it.
    async fn send(&mut self, until: usize) -> Result<()> {
        while self.next < until {
            let chunk = self.chunks[self.next].clone();
            self.client()?.send(Message::binary(chunk)).await?;
            self.next += 1;
        }
        Ok(())
    }

    /// Breaks the connection, stays away for a while, and goes on where the server says.
    async fn break_off(&mut self, away: Duration) -> Result<()> {
        // No close frame, and no word to either side.
        self.client = None;
        sleep(away).await;
        self.client = Some(Client::connect(self.server, &self.path).await?);
        let mut extension = self.extension.clone();
        extension["resume"] = self.token.clone();
        let rate = self.rate;
        let conversation = self.client()?.begin("Ana", rate, json!({ "hearsay": extension })).await?;
        anyhow::ensure!(conversation == self.conversation, "another conversation");
        let told = self.client()?.until("a token", |frame| frame["type"] == "resume_token").await?;
        anyhow::ensure!(told["stream"] == self.stream, "another stream");
        self.token = told["token"].clone();
        let resumed = self.client()?.until("resumed", |frame| frame["type"] == "resumed").await?;
        let from = resumed["chunk"].as_u64().context("a chunk")? as usize;
        anyhow::ensure!(from <= self.next, "asked for {from}, sent {}", self.next);
        let until = std::mem::replace(&mut self.next, from);
        self.send(until).await
    }
}

/// A small generator, so that a failure can be run again: the seed is in its message.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A final's text, and its words with their times in ms from the first word of all.
type Told = (String, Vec<(String, i64, i64)>);

fn told(listener: &Client) -> Vec<Told> {
    let ms = |seconds: f64| (seconds * 1_000.0).round() as i64;
    let words = |said: &Said| said.words.iter().map(|word| (word.0.clone(), ms(word.1), ms(word.2))).collect();
    let finals = listener.finals();
    let mut told: Vec<Told> = finals.iter().map(|said| (said.text.clone(), words(said))).collect();
    // The stream's clock begins at another moment in each run.
    let begun = told.first().and_then(|(_, words)| words.first()).map_or(0, |word| word.1);
    told.iter_mut().flat_map(|(_, words)| words).for_each(|word| (word.1, word.2) = (word.1 - begun, word.2 - begun));
    told
}

fn same(one: &[Told], other: &[Told], what: &str) {
    let texts = |told: &[Told]| told.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>();
    assert_eq!(texts(one), texts(other), "{what}");
    for ((_, one), (_, other)) in one.iter().zip(other) {
        for (one, other) in one.iter().zip(other) {
            let near = (one.1 - other.1).abs() <= 50 && (one.2 - other.2).abs() <= 50;
            assert!(one.0 == other.0 && near, "{what}: {one:?} {other:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn words_are_those_of_an_unbroken_stream_wherever_it_breaks() -> Result<()> {
    let recordings = recordings()?;
    let server = Server::start(Build::Test, &[]).await?;
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed()?.subsec_nanos().into();
    let mut random = Random(seed);
    let recorded = json!({ "recorded": true, "ack": true });
    let mut unbroken = None;
    for run in 0..4 {
        let meeting = format!("broken-{run}");
        let listener =
            listen(Client::connect(&server, &format!("/v1/subscribe/{meeting}?view=all&history=all")).await?);
        let bytes = [3_200, 2_047][run % 2];
        let audio = wav(&recordings.two_cities)?;
        let mut speaker = Speaker::begin(&server, &meeting, recorded.clone(), audio, bytes).await?;
        let all = speaker.chunks.len();
        let mut cuts: Vec<usize> = match run {
            0 => Vec::new(),
            _ => (0..6).map(|_| random.below(all as u64) as usize).collect(),
        };
        cuts.sort_unstable();
        for &cut in &cuts {
            speaker.send(cut).await?;
            speaker.break_off(Duration::from_millis(random.below(800))).await?;
        }
        speaker.send(all).await?;
        speaker.client()?.stop().await?;
        let listener = listener.await??;
        let positions = listener.positions();
        let contiguous = positions.windows(2).all(|pair| pair[1].1 == pair[0].1 + 1);
        assert!(contiguous, "{positions:?}");
        let told = told(&listener);
        match &unbroken {
            None => unbroken = Some(told),
            Some(unbroken) => same(&told, unbroken, &format!("seed {seed}, cuts {cuts:?} of {all}")),
        }
    }
    server.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_speaker_that_loses_its_network_is_heard_to_the_end() -> Result<()> {
    let recordings = recordings()?;
    let server = Server::start(Build::Test, &[]).await?;
    let live = json!({ "ack": true });
    let mut runs = Vec::new();
    // The second breaks off twice, the second time for longer than a muted speaker's utterance is left open.
    for outages in [&[][..], &[(17, 900), (41, 3_000)]] {
        let meeting = format!("live-{}", outages.len());
        let listener = listen(Client::connect(&server, &format!("/v1/subscribe/{meeting}?history=all")).await?);
        let audio = wav(&recordings.beckett)?;
        let bytes = audio.1 as usize / 5;
        let mut speaker = Speaker::begin(&server, &meeting, live.clone(), audio, bytes).await?;
        let began = Instant::now();
        let all = speaker.chunks.len();
        for chunk in 0..all {
            // Ten chunks a second; whoever was away sends at once what it has kept.
            sleep_until(began + Duration::from_millis(100) * (chunk as u32 + 1)).await;
            speaker.send(chunk + 1).await?;
            if let Some((_, away)) = outages.iter().find(|(at, _)| *at == chunk) {
                speaker.break_off(Duration::from_millis(*away)).await?;
            }
        }
        speaker.client()?.stop().await?;
        runs.push(told(&listener.await??));
    }
    same(&runs[1], &runs[0], "live");
    server.stop().await?;
    Ok(())
}

/// What `hearsay transcribe` prints: each line's time in ms, and what was said. The link is cut behind these lines.
async fn transcribed(
    server: &Server,
    link: &Link,
    fast: bool,
    file: &Path,
    cuts: &[usize],
) -> Result<Vec<(u64, String)>> {
    let url = format!("http://{}", link.address);
    let mut command = Command::new(binary(Build::Test)?);
    command.args(["transcribe", "--url", &url, "--token", &server.token]).arg(file);
    if fast {
        command.arg("--fast");
    }
    let mut running = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(running.stdout.take().context("stdout is piped")?).lines();
    let mut said = Vec::new();
    while let Some(line) = timeout(client::PATIENCE, lines.next_line()).await.context("no line")?? {
        let (time, text) = line.split_once("] ").context("a time")?;
        let of = |part: Option<&str>| part.and_then(|part| part.parse::<f64>().ok()).unwrap_or(f64::NAN);
        let mut parts = time.trim_start_matches('[').split(':');
        let (hours, minutes, seconds) = (of(parts.next()), of(parts.next()), of(parts.next()));
        said.push((((hours * 60.0 + minutes) * 60_000.0 + seconds * 1_000.0).round() as u64, text.to_owned()));
        if cuts.contains(&said.len()) {
            link.cut();
        }
    }
    ensure!(running.wait().await?.success(), "transcribe failed behind {said:?}");
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_whose_connection_is_cut_is_transcribed_as_if_it_had_not_been() -> Result<()> {
    let recordings = recordings()?;
    let server = Server::start(Build::Test, &[]).await?;
    let at = server.url.trim_start_matches("http://").to_owned();
    let (one, other) = (Link::to(at.clone()).await?, Link::to(at).await?);
    let fast = async {
        let whole = transcribed(&server, &one, true, &recordings.two_cities, &[]).await?;
        let cut = transcribed(&server, &one, true, &recordings.two_cities, &[1, 3, 6]).await?;
        ensure!(whole.len() > 8 && cut == whole, "{whole:?} became {cut:?}");
        anyhow::Ok(())
    };
    let live = async {
        let whole = transcribed(&server, &other, true, &recordings.endgame, &[]).await?;
        let cut = transcribed(&server, &other, false, &recordings.endgame, &[1, 2]).await?;
        let same = whole.iter().zip(&cut).all(|(one, other)| one.1 == other.1 && one.0.abs_diff(other.0) <= 50);
        ensure!(whole.len() > 2 && cut.len() == whole.len() && same, "{whole:?} became {cut:?}");
        anyhow::Ok(())
    };
    tokio::try_join!(fast, live)?;
    let connections = (one.connections(), other.connections());
    ensure!(connections.0 >= 5 && connections.1 >= 4, "{connections:?} connections are too few for these cuts");
    server.stop().await?;
    Ok(())
}
