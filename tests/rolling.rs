//! A whole cluster replaced one process after the other, while people speak and listen: the topology of
//! `deploy/compose.yaml`, two gateways and two recognizers on a Redis, with the signal that a rolling deploy sends.
//!
//! Speakers and listeners are what a client of the extensions is: they return where they are asked to, speakers with their
//! resume token, listeners with the position they reached.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    Cluster, Setup,
    client::{Client, Said, inner, position, wav},
    recordings,
};

/// Audio in one message.
const MESSAGE: Duration = Duration::from_millis(100);
/// Nobody is away for longer.
const AWAY: Duration = Duration::from_secs(20);
/// What `deploy/compose.yaml` leaves a process to end.
const GRACE: Duration = Duration::from_secs(35);

/// A final's text and its words.
type Line = (String, Vec<String>);

/// How much of it.
#[derive(Debug, Clone)]
pub struct Plan {
    pub speakers: usize,
    pub listeners: usize,
    pub meetings: usize,
    /// Times that every process is replaced.
    pub rounds: usize,
    /// How long each process has been up when the next one is asked to end.
    pub between: Duration,
    /// Least seconds of speech; more is said if that is how long it takes.
    pub speech: f64,
    pub settings: Vec<(&'static str, String)>,
}

/// What happened, for people.
#[derive(Debug, Default)]
pub struct Outcome {
    pub finals: usize,
    pub replaced: usize,
    /// Times that a speaker, and a listener, came back.
    pub speakers_returned: usize,
    pub listeners_returned: usize,
    /// From the signal to the end of each process.
    pub drains: Vec<(&'static str, Duration)>,
    /// What gateways say of where they handed speakers over.
    pub handed_over: HashMap<String, f64>,
}

/// What is said: a recording again and again, so that it never ends before the last process is back.
struct Script {
    rate: u32,
    chunks: Vec<Vec<u8>>,
}

impl Script {
    fn of(samples: &[i16], rate: u32) -> Self {
        let mut whole = samples.to_vec();
        // Ends the last utterance.
        whole.resize(whole.len() + rate as usize, 0);
        let bytes: Vec<u8> = whole.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        Self { rate, chunks: bytes.chunks(rate as usize / 5).map(<[u8]>::to_vec).collect() }
    }

    /// The chunk to say at this time.
    fn chunk(&self, number: usize) -> &[u8] {
        &self.chunks[number % self.chunks.len()]
    }
}

/// Gateways as a balancer shows them: the next one when one refuses.
struct Doors {
    entries: Vec<crate::Entry>,
}

impl Doors {
    async fn enter(&self, first: usize, path: &str) -> Result<Client> {
        let until = Instant::now() + AWAY;
        for door in first.. {
            match Client::enter(&self.entries[door % self.entries.len()], path).await {
                Ok(client) => return Ok(client),
                Err(error) if Instant::now() > until => return Err(error.context("nobody lets us in")),
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
        bail!("no door")
    }
}

/// Everything a client was told, over all its sockets.
#[derive(Debug, Default)]
struct Told {
    conversation: Option<String>,
    finals: Vec<Said>,
    positions: Vec<(u32, u64)>,
    returned: usize,
    gaps: usize,
}

impl Told {
    fn take(&mut self, client: &mut Client) -> Result<()> {
        let mut said = Vec::new();
        for (at, frame) in client.frames.drain(..) {
            if frame["type"] == "gap" {
                self.gaps += 1;
            }
            if inner(&frame) == Some("conversation_created") {
                let id = frame["message"]["data"]["conversationId"].as_str().context("an id")?.to_owned();
                let known = self.conversation.get_or_insert_with(|| id.clone());
                ensure!(*known == id, "conversation {known} became {id}");
            }
            // Its position is on the last frame of an event.
            said.extend(Said::of(at, &frame).filter(|said| said.is_final));
            let Some(position) = position(&frame) else { continue };
            // A mark says again how far it is.
            if self.positions.last().is_none_or(|last| *last < position) {
                self.positions.push(position);
                self.finals.append(&mut said);
            }
            said.clear();
        }
        Ok(())
    }

    fn since(&self) -> String {
        self.positions.last().map(|(epoch, offset)| format!("&since={epoch:08x}:{offset}")).unwrap_or_default()
    }
}

/// Speaks until `enough`, then to the end of the script, and stops.
async fn speak(
    doors: Arc<Doors>,
    n: usize,
    meeting: String,
    script: Arc<Script>,
    enough: Arc<AtomicBool>,
) -> Result<(Told, usize)> {
    let name = format!("speaker-{n}");
    let (mut told, mut next, mut begun) = (Told::default(), 0, None);
    let mut token: Option<Value> = None;
    let mut stream: Option<Value> = None;
    loop {
        let path = format!("/v1/realtime/insights/{meeting}?view=all{}", told.since());
        let mut client = doors.enter(n + told.returned, &path).await?;
        let mut extension = json!({ "ack": true });
        if let Some(token) = &token {
            extension["resume"] = token.clone();
        }
        let entered = async {
            client.begin(&name, script.rate, json!({ "hearsay": extension })).await?;
            let answer = client.until("a token", |frame| frame["type"] == "resume_token").await?;
            if stream.is_some() {
                let resumed = client.until("resumed", |frame| frame["type"] == "resumed").await?;
                next = resumed["chunk"].as_u64().context("a chunk")? as usize;
            }
            anyhow::Ok(answer)
        };
        match entered.await {
            Ok(answer) => {
                let known = stream.get_or_insert_with(|| answer["stream"].clone());
                ensure!(*known == answer["stream"], "{name} became another stream");
                token = Some(answer["token"].clone());
            }
            // It began to drain in this moment.
            Err(_) if client.closed.is_some_and(|code| code != 1000) => {
                told.take(&mut client)?;
                told.returned += 1;
                continue;
            }
            Err(error) => return Err(error.context(name)),
        }
        let begun = *begun.get_or_insert_with(Instant::now);
        let asked_back = loop {
            let over = enough.load(Ordering::Relaxed) && next > 0 && next.is_multiple_of(script.chunks.len());
            if over {
                break false;
            }
            let due = begun + MESSAGE * (next as u32 + 1);
            if !client.read_until(due).await? {
                break true;
            }
            if client.send(Message::binary(script.chunk(next).to_vec())).await.is_err() {
                break true;
            }
            next += 1;
        };
        if let Some(newest) = client.frames.iter().rev().find(|(_, frame)| frame["type"] == "resume_token") {
            token = Some(newest.1["token"].clone());
        }
        if !asked_back {
            client.stop().await?;
            told.take(&mut client)?;
            return Ok((told, next));
        }
        ensure!(client.closed != Some(1000), "{name} was told that it is over");
        told.take(&mut client)?;
        told.returned += 1;
    }
}

/// Listens until the meeting is over.
async fn listen(doors: Arc<Doors>, n: usize, meeting: String) -> Result<Told> {
    let mut told = Told::default();
    loop {
        let from = if told.positions.is_empty() { "&history=all".to_owned() } else { told.since() };
        let mut client = doors.enter(n + told.returned, &format!("/v1/subscribe/{meeting}?view=all{from}")).await?;
        client.drain().await?;
        told.take(&mut client)?;
        if client.closed == Some(1000) {
            return Ok(told);
        }
        told.returned += 1;
    }
}

/// What is heard of a script that nothing interrupts: its texts, each with its words.
async fn unbroken(doors: &Doors, script: &Script, n: usize, turns: usize) -> Result<Vec<Line>> {
    let mut client = doors.enter(n, &format!("/v1/streaming/unbroken-{n}")).await?;
    client.begin("whole", script.rate, json!({ "hearsay": { "recorded": true } })).await?;
    let all: Vec<Message> =
        (0..turns * script.chunks.len()).map(|at| Message::binary(script.chunk(at).to_vec())).collect();
    client.send_all(all.into_iter().map(|message| (None, message))).await?;
    client.stop().await?;
    Ok(client.finals().iter().map(said).collect())
}

fn said(said: &Said) -> Line {
    (said.text.clone(), said.words.iter().map(|word| word.0.clone()).collect())
}

/// Replaces every process while people speak and listen, and compares what they were told with what an unbroken run tells.
///
/// # Errors
/// Says what was lost, doubled or changed.
#[expect(clippy::disallowed_methods, reason = "clients end with their meeting")]
pub async fn roll(plan: &Plan) -> Result<Outcome> {
    let recordings = recordings()?;
    let setup = Setup { recognizers: 2, gateways: 2, settings: plan.settings.clone(), ..Setup::default() };
    let mut cluster = Cluster::with(setup).await?;
    let doors = Arc::new(Doors { entries: cluster.gateways.iter().map(crate::Server::entry).collect() });
    let scripts = [&recordings.endgame, &recordings.beckett, &recordings.two_cities].map(|path| {
        let (samples, rate) = wav(path)?;
        anyhow::Ok(Arc::new(Script::of(&samples[..samples.len().min((plan.speech * f64::from(rate)) as usize)], rate)))
    });
    let scripts: Vec<Arc<Script>> = scripts.into_iter().collect::<Result<_>>()?;
    let meeting = |n: usize| format!("rolling-{}", n % plan.meetings);
    let enough = Arc::new(AtomicBool::new(false));
    let listeners: Vec<_> =
        (0..plan.listeners).map(|n| tokio::spawn(listen(Arc::clone(&doors), n, meeting(n)))).collect();
    let speakers: Vec<_> = (0..plan.speakers)
        .map(|n| {
            let script = Arc::clone(&scripts[n % scripts.len()]);
            tokio::spawn(speak(Arc::clone(&doors), n, meeting(n), script, Arc::clone(&enough)))
        })
        .collect();
    let mut outcome = Outcome::default();
    // Everybody is there, and words flow.
    sleep(plan.between).await;
    for _ in 0..plan.rounds {
        for n in 0..cluster.recognizers.len() {
            outcome.drains.push(("recognizer", cluster.roll_recognizer(n, GRACE).await?));
            sleep(plan.between).await;
        }
        for n in 0..cluster.gateways.len() {
            let (took, log) = cluster.roll_gateway(n, GRACE).await?;
            for at in log.split("handover=\"").skip(1) {
                *outcome.handed_over.entry(at.split('"').next().unwrap_or_default().to_owned()).or_default() += 1.0;
            }
            outcome.drains.push(("gateway", took));
            sleep(plan.between).await;
        }
    }
    outcome.replaced = outcome.drains.len();
    enough.store(true, Ordering::Relaxed);
    let mut spoken = Vec::new();
    for speaker in speakers {
        spoken.push(speaker.await??);
    }
    let mut heard = Vec::new();
    for listener in listeners {
        heard.push(listener.await??);
    }
    check(&doors, &scripts, plan, &spoken, &heard).await?;
    outcome.speakers_returned = spoken.iter().map(|(told, _)| told.returned).sum();
    outcome.listeners_returned = heard.iter().map(|told| told.returned).sum();
    outcome.finals = spoken.iter().enumerate().map(|(n, (told, _))| own(told, n).len()).sum();
    Ok(outcome)
}

fn own(told: &Told, speaker: usize) -> Vec<Line> {
    let name = format!("speaker-{speaker}");
    told.finals.iter().filter(|said| said.who == name).map(said).collect()
}

async fn check(
    doors: &Doors,
    scripts: &[Arc<Script>],
    plan: &Plan,
    spoken: &[(Told, usize)],
    heard: &[Told],
) -> Result<()> {
    for (n, told) in heard.iter().enumerate() {
        ensure!(told.gaps == 0, "listener {n} was told of {} gaps", told.gaps);
        let positions = &told.positions;
        ensure!(positions.first().is_some_and(|first| first.1 == 1), "listener {n} begins at {:?}", positions.first());
        for pair in positions.windows(2) {
            ensure!(pair[0].0 == pair[1].0 && pair[0].1 + 1 == pair[1].1, "listener {n}: {pair:?}");
        }
        let first = &heard[n % plan.meetings];
        ensure!(told.positions == first.positions, "listener {n} and {} were told different runs", n % plan.meetings);
        ensure!(told.conversation == first.conversation, "listener {n} was in another conversation");
    }
    let mut whole: HashMap<(usize, usize), Vec<Line>> = HashMap::new();
    for (n, (told, chunks)) in spoken.iter().enumerate() {
        let (script, turns) = (n % scripts.len(), chunks / scripts[n % scripts.len()].chunks.len());
        let expected = match whole.entry((script, turns)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(unbroken(doors, &scripts[script], n, turns).await?),
        };
        ensure!(!expected.is_empty(), "nothing is heard of script {script}");
        ensure!(told.conversation == heard[n % plan.meetings].conversation, "speaker {n} is in another conversation");
        let mine = own(told, n);
        ensure!(mine == *expected, "speaker {n} was told {mine:#?}, not {expected:#?}");
        for (at, told) in heard.iter().enumerate().filter(|(at, _)| at % plan.meetings == n % plan.meetings) {
            ensure!(own(told, n) == *expected, "listener {at} heard {:#?} of speaker {n}", own(told, n));
        }
    }
    Ok(())
}
