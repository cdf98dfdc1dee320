//! Several gateways, one conversation: processes of their own that share a Redis, and may be killed.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use hearsay_bus::{
    Body, Bus, Entry, Lease, Limits, Proposal, Read, Seen, State,
    append::{Appender, patiently},
    publisher::{AfterBranch, Stretch},
    redis::{RedisBus, RedisConfig},
};
use hearsay_protocol::{
    AccountId, ConversationId, ConversationKey, Epoch, Event, GatewayId, MeetingId, MeetingKey, ParticipantId,
    PublisherId, StreamId, StreamTime, UtteranceId,
    event::{EventKind, Final, Participant, SpeakerConfig, StreamStarted},
};
use hearsay_runtime::Tasks;
use hearsay_tests::{
    Cluster, Server,
    client::{Client, PATIENCE, position, wav},
    recordings,
};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use uuid::Uuid;

const MESSAGE: Duration = Duration::from_millis(100);

fn listen(mut client: Client) -> JoinHandle<Result<Client>> {
    tokio::spawn(async move { client.drain().await.map(|()| client) })
}

/// Everything that has a place in the conversation.
fn durable(client: &Client) -> Vec<Value> {
    let frames = client.frames.iter().map(|(_, frame)| frame.clone());
    // A word on how far the reader is has no place of its own, nor has a picture of everything before one.
    let words = |frame: &Value| frame["kind"] == "position" || frame["type"] == "snapshot";
    frames.filter(|frame| position(frame).is_some() && !words(frame)).collect()
}

fn positions(client: &Client) -> Vec<(u32, u64)> {
    durable(client).iter().filter_map(position).collect()
}

fn contiguous(positions: &[(u32, u64)]) -> bool {
    positions.windows(2).all(|pair| pair[0].0 == pair[1].0 && pair[1].1 == pair[0].1 + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_participants_on_three_gateways_see_one_sequence() -> Result<()> {
    let recordings = recordings()?;
    let cluster = Cluster::start(3).await?;
    let mut listeners = Vec::new();
    for n in 0..47 {
        let gateway = &cluster.gateways[n % 3];
        listeners.push(listen(Client::connect(gateway, "/v1/subscribe/many?view=all&history=all").await?));
    }
    let files = [&recordings.beckett, &recordings.endgame, &recordings.beckett];
    let mut speakers = Vec::new();
    for (n, (gateway, file)) in cluster.gateways.iter().zip(files).enumerate() {
        let (samples, rate) = wav(file)?;
        let mut speaker = Client::connect(gateway, "/v1/realtime/insights/many").await?;
        speaker.begin(["Ana", "Ben", "Cem"][n], rate, json!({})).await?;
        speakers.push(tokio::spawn(async move {
            speaker.speak(&samples, rate, MESSAGE).await?;
            speaker.stop().await?;
            anyhow::Ok(speaker)
        }));
    }
    for speaker in speakers {
        assert_eq!(speaker.await??.closed, Some(1000), "a speaker ends in good order");
    }
    let mut sequences = Vec::new();
    for listener in listeners {
        let listener = listener.await??;
        assert!(contiguous(&listener.positions()), "{:?}", listener.positions());
        sequences.push(durable(&listener));
    }
    let first = &sequences[0];
    let kinds: Vec<&str> = first.iter().filter_map(|frame| frame["kind"].as_str()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "joined").count(), 3, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "left").count(), 3, "{kinds:?}");
    for (n, sequence) in sequences.iter().enumerate() {
        assert_eq!(sequence, first, "participant {n} saw another sequence");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_ends_nothing() -> Result<()> {
    let recordings = recordings()?;
    let (samples, rate) = wav(&recordings.endgame)?;
    let mut cluster = Cluster::start(2).await?;
    let unbroken = transcript(&cluster.gateways[1], "unbroken", &samples, rate).await?;

    let path = "/v1/subscribe/broken?view=all&history=all";
    let beside = listen(Client::connect(&cluster.gateways[1], path).await?);
    let mut here = Client::connect(&cluster.gateways[0], path).await?;
    let mut speaker = Client::connect(&cluster.gateways[0], "/v1/realtime/insights/broken").await?;
    let conversation = speaker.begin("Ana", rate, json!({"hearsay": {"ack": true}})).await?;
    let told = speaker.until("a token", |frame| frame["type"] == "resume_token").await?;
    let middle = samples.len() / 2 / (rate as usize / 10) * (rate as usize / 10);
    speaker.speak(&samples[..middle], rate, MESSAGE).await?;

    let dead = cluster.gateways.remove(0);
    dead.kill().await?;
    let killed = Instant::now();
    here.drain().await?;
    let survivor = &cluster.gateways[0];
    // The listener goes on where it was, at another gateway.
    let since = since(&here)?;
    let resumed = listen(Client::connect(survivor, &format!("/v1/subscribe/broken?view=all&since={since}")).await?);
    // So does the speaker, with what it said before the last acknowledgement.
    let mut again = Client::connect(survivor, "/v1/realtime/insights/broken").await?;
    let more = json!({"hearsay": {"ack": true, "resume": told["token"]}});
    assert_eq!(again.begin("Ana", rate, more).await?, conversation, "the conversation did not end");
    let at = again.until("resumed", |frame| frame["type"] == "resumed").await?;
    let chunk = at["chunk"].as_u64().context("a chunk")? as usize;
    let from = chunk * (rate as usize / 10);
    anyhow::ensure!(from <= middle, "asked for what was never sent: {from} of {middle}");
    // What is said again comes at once, as from a client that has it; the rest as it is spoken.
    again.pour(&samples[from..middle], rate as usize / 10 * 2).await?;
    again.speak(&samples[middle..], rate, MESSAGE).await?;
    again.stop().await?;

    let (beside, resumed) = (beside.await??, resumed.await??);
    assert!(contiguous(&beside.positions()), "{:?}", beside.positions());
    let mut whole = positions(&here);
    whole.extend(positions(&resumed));
    assert!(contiguous(&whole), "the listener's two halves are one: {whole:?}");
    assert_eq!(whole, positions(&beside));
    let said = |client: &Client| client.finals().into_iter().map(|said| said.text).collect::<Vec<_>>().join(" ");
    assert_eq!(said(&beside), unbroken, "killed {:?} ago", killed.elapsed());
    Ok(())
}

async fn transcript(gateway: &Server, meeting: &str, samples: &[i16], rate: u32) -> Result<String> {
    let path = format!("/v1/subscribe/{meeting}?history=all");
    let listener = listen(Client::connect(gateway, &path).await?);
    let mut speaker = Client::connect(gateway, &format!("/v1/realtime/insights/{meeting}")).await?;
    speaker.begin("Ana", rate, json!({})).await?;
    speaker.speak(samples, rate, MESSAGE).await?;
    speaker.stop().await?;
    let finals = listener.await??.finals();
    Ok(finals.into_iter().map(|said| said.text).collect::<Vec<_>>().join(" "))
}

/// Where a client was.
fn since(client: &Client) -> Result<String> {
    let (epoch, offset) = *positions(client).last().context("something was heard")?;
    Ok(format!("{epoch:08x}:{offset}"))
}

/// The log that a cluster shares.
async fn log_of(cluster: &Cluster, tasks: &Tasks) -> Result<Arc<dyn Bus>> {
    let config = RedisConfig::parse(&format!("redis://127.0.0.1:{}", cluster.redis_port()))?;
    Ok(Arc::new(RedisBus::connect(config, Limits::default(), tasks).await?))
}

/// Says things without a sound, straight to the log, as a recognizer does.
struct Voice {
    bus: Arc<dyn Bus>,
    key: ConversationKey,
    gateway: GatewayId,
    stream: StreamId,
    participant: Arc<Participant>,
    appender: Appender,
    said: u64,
}

impl Voice {
    async fn begin(bus: &Arc<dyn Bus>, meeting: &str) -> Result<Self> {
        let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new(meeting)? };
        let random = Uuid::new_v4().as_u64_pair();
        let conversation = ConversationId::from_random(random.0);
        let proposal = Proposal { conversation, epoch: Epoch(random.1 as u32), title: String::new() };
        let key = bus.open(&meeting, proposal).await?.key;
        let (gateway, stream) = (GatewayId(Uuid::new_v4()), StreamId(Uuid::new_v4()));
        let participant = Arc::new(Participant { id: ParticipantId(stream.0), user_id: None, name: None, email: None });
        let claim = |id| Appender::claim(Arc::clone(bus), key.clone(), id, AfterBranch::Reappend, PATIENCE);
        let (mut presence, _) = claim(PublisherId::Gateway(gateway)).await?;
        let (appender, claimed) = claim(PublisherId::Stream(stream)).await?;
        let started = StreamStarted {
            stream,
            participant: Arc::clone(&participant),
            gateway,
            config: SpeakerConfig::default(),
            origin: claimed.origin,
            recorded: false,
            no_connection_timeout: Duration::from_secs(600),
        };
        presence.append_event(Event::StreamStarted(Arc::new(started)), PATIENCE).await?;
        Ok(Self { bus: Arc::clone(bus), key, gateway, stream, participant, appender, said: 0 })
    }

    async fn say(&mut self, times: u64) -> Result<()> {
        for _ in 0..times {
            let start = StreamTime(self.said * 1_000_000);
            let spoken = Final {
                sentiment: Vec::new(),
                trace: None,
                stream: self.stream,
                utterance: UtteranceId::after_cut(self.stream, start),
                participant: Arc::clone(&self.participant),
                origin: hearsay_protocol::Timestamp::ZERO,
                start,
                end: StreamTime(start.0 + 1_000_000),
                text: format!("Number {}.", self.said),
                language: "en-US".to_owned(),
                confidence: 0.9,
                words: Vec::new(),
            };
            let events = vec![Event::Final(Arc::new(spoken))];
            let stretch = Stretch { from: self.said, through: self.said + 1, events, restart: None };
            self.appender.append(stretch, PATIENCE).await?;
            self.said += 1;
        }
        let lease = Lease { key: self.key.clone(), listeners: 0 };
        self.bus.renew(self.gateway, &[lease]).await?;
        Ok(())
    }

    /// Reads until this client has everything there is.
    async fn heard_by(&self, client: &mut Client) -> Result<()> {
        let top = self.bus.meta(&self.key).await?.top.offset.0;
        let there = |frame: &Value| position(frame).is_some_and(|(_, offset)| offset >= top);
        if !client.frames.iter().any(|(_, frame)| there(frame)) {
            client.until("what was said last", there).await?;
        }
        Ok(())
    }
}

/// All entries of a conversation.
async fn entries(bus: &dyn Bus, key: &ConversationKey) -> Result<Vec<Entry>> {
    match patiently(PATIENCE, || bus.read(key, Seen::NOTHING, 10_000)).await? {
        Read::Page(page) => Ok(page.entries),
        Read::Gap { reason, .. } => bail!("a gap in a log that keeps everything: {reason:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_returns_at_another_gateway_misses_nothing_and_is_told_what_cannot_come() -> Result<()> {
    let mut cluster = Cluster::start(2).await?;
    let tasks = Tasks::new();
    let bus = log_of(&cluster, &tasks).await?;
    let (mut lively, mut quiet) = (Voice::begin(&bus, "lively").await?, Voice::begin(&bus, "quiet").await?);
    lively.say(5).await?;
    quiet.say(2).await?;
    let first = &cluster.gateways[0];
    let mut in_lively = Client::connect(first, "/v1/subscribe/lively?view=all&history=all").await?;
    let mut in_quiet = Client::connect(first, "/v1/subscribe/quiet?view=all&history=all").await?;
    lively.heard_by(&mut in_lively).await?;
    quiet.heard_by(&mut in_quiet).await?;

    cluster.gateways.remove(0).kill().await?;
    in_lively.drain().await?;
    in_quiet.drain().await?;
    // Said while the client is nowhere.
    lively.say(300).await?;
    let other = &cluster.gateways[0];
    let path = |meeting: &str, since: &str| format!("/v1/subscribe/{meeting}?view=all&since={since}");
    let mut lively_again = Client::connect(other, &path("lively", &since(&in_lively)?)).await?;
    let mut quiet_again = Client::connect(other, &path("quiet", &since(&in_quiet)?)).await?;
    lively.say(3).await?;
    lively.heard_by(&mut lively_again).await?;
    // Nothing was said meanwhile, so nothing comes until something is.
    quiet.say(1).await?;
    quiet.heard_by(&mut quiet_again).await?;
    for (voice, before, after) in [(&lively, &in_lively, &lively_again), (&quiet, &in_quiet, &quiet_again)] {
        let there = entries(&*bus, &voice.key).await?.len() as u64;
        let seen: Vec<u64> = positions(before).into_iter().chain(positions(after)).map(|(_, at)| at).collect();
        assert_eq!(seen, (1..=there).collect::<Vec<_>>(), "{}", voice.key.meeting.meeting);
        assert!(after.frames.iter().all(|(_, frame)| frame["type"] != "gap"), "nothing is missing");
    }

    // A position that the log has lost: said so, and the whole picture instead.
    let (epoch, top) = *positions(&lively_again).last().context("a position")?;
    let mut lost = Client::connect(other, &path("lively", &format!("{epoch:08x}:{}", top + 1_000))).await?;
    let told = lost.until("a gap", |frame| frame["type"] == "gap").await?;
    assert_eq!((&told["reason"], &told["to"]), (&json!("lost"), &json!(format!("{epoch:08x}:{top}"))));
    let picture = lost.until("a picture", |frame| frame["type"] == "snapshot").await?;
    assert_eq!(position(&picture), Some((epoch, top)));
    lively.say(1).await?;
    lively.heard_by(&mut lost).await?;
    assert_eq!(positions(&lost), [(epoch, top + 1)]);

    // A position of a conversation that is over: said so, and the one that is open from its beginning.
    let mut stranger = Client::connect(other, &path("quiet", "00c0ffee:7")).await?;
    quiet.heard_by(&mut stranger).await?;
    let told = stranger.frames.iter().find(|(_, frame)| frame["type"] == "gap").context("a gap")?;
    assert_eq!(told.1["reason"], "conversation");
    let seen: Vec<u64> = positions(&stranger).into_iter().map(|(_, at)| at).collect();
    assert_eq!(seen, (1..=positions(&in_quiet).len() as u64 + 1).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ghosts_leave_and_a_meeting_without_gateways_ends() -> Result<()> {
    /// What is left of a killed gateway is gone after this, by the log's own time.
    const GHOSTS: Duration = Duration::from_secs(10);
    let recordings = recordings()?;
    let (samples, rate) = wav(&recordings.beckett)?;
    let mut cluster = Cluster::start(2).await?;
    let tasks = Tasks::new();
    let bus = log_of(&cluster, &tasks).await?;
    let mut watching = Client::connect(&cluster.gateways[1], "/v1/subscribe/ghosts?view=all&history=all").await?;
    let mut speaker = Client::connect(&cluster.gateways[0], "/v1/realtime/insights/ghosts").await?;
    let first = speaker.begin("Ana", rate, json!({})).await?;
    speaker.speak(&samples[..rate as usize * 3], rate, MESSAGE).await?;
    let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("ghosts")? };
    let key = bus.current(&meeting).await?.context("it is open")?.key;
    cluster.gateways.remove(0).kill().await?;
    let killed = bus.now().await?;
    watching.until("left", |frame| frame["kind"] == "left").await?;
    let kinds = async || -> Result<Vec<(EventKind, hearsay_protocol::Timestamp)>> {
        let found = entries(&*bus, &key).await?.into_iter();
        let kind = |entry: Entry| match entry.body {
            Body::Event(event) => Some((event.kind(), entry.at)),
            Body::Tombstone => None,
        };
        Ok(found.filter_map(kind).collect())
    };
    let at = |kinds: &[(EventKind, hearsay_protocol::Timestamp)], kind| {
        kinds.iter().position(|(found, _)| *found == kind).with_context(|| format!("no {kind:?} in {kinds:?}"))
    };
    let there = kinds().await?;
    let left = there[at(&there, EventKind::Left)?].1;
    assert!(left.since(killed) <= GHOSTS, "the ghost left after {:?}", left.since(killed));
    println!("the ghost left after {:?}", left.since(killed));

    // The watcher's gateway goes, too: nobody is left but the recognizer and the log, and the meeting ends by itself, in
    // order, 15 s after its last speaker was lost.
    cluster.gateways.remove(0).kill().await?;
    let began = Instant::now();
    while bus.meta(&key).await?.state != State::Ended {
        ensure!(began.elapsed() < PATIENCE, "it does not end: {:?}", kinds().await?);
        sleep(MESSAGE).await;
    }
    let there = kinds().await?;
    let order = [EventKind::Started, EventKind::StreamStarted, EventKind::Joined, EventKind::StreamEnded];
    let mut order: Vec<usize> = order.into_iter().map(|kind| at(&there, kind)).collect::<Result<_>>()?;
    order.extend([at(&there, EventKind::Left)?, at(&there, EventKind::Ended)?]);
    assert!(order.is_sorted(), "{there:?}");
    assert_eq!(order.last(), Some(&(there.len() - 1)), "nothing comes after the end: {there:?}");
    let waited = there[there.len() - 1].1.since(left);
    assert!(waited >= Duration::from_secs(15), "its speaker was waited for: {waited:?}");
    let gateway = cluster.gateway().await?;
    let mut record = Client::connect(&gateway, "/v1/realtime/insights/ghosts").await?;
    let second = record.begin("Ana", rate, json!({})).await?;
    assert_ne!(first, second, "the old conversation is over, a new one begins");
    record.stop().await?;
    Ok(())
}
