//! The analyst on a log in memory: what is said is told once, by whoever is the analyst, and by the next one when it is gone.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hearsay_bus::{
    Batch, Body, Bus, Claim, Delivery, Entry, Limits, MemoryBus, Proposal, Read, Seen, Subscription, SystemClock,
};
use hearsay_insight::meaning::{DIMENSIONS, Meaning, Vector};
use hearsay_protocol::{
    AccountId, ConversationId, ConversationKey, Epoch, Event, GatewayId, MeetingId, MeetingKey, ParticipantId,
    PublisherId, StreamId, StreamTime, UtteranceId,
    event::{
        ConfigChanged, Ephemeral, Final, Insight, InsightBody, Partial, Participant, SpeakerConfig, StreamEnd,
        StreamEnded, StreamStarted, Tracker,
    },
};
use hearsay_recognizer::{Thought, analyst::Analysts};
use hearsay_runtime::Tasks;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);

/// A log with one conversation in which one person speaks.
struct Meeting {
    bus: Arc<dyn Bus>,
    memory: MemoryBus,
    key: ConversationKey,
    stream: StreamId,
    claim: Claim,
    said: u64,
}

fn anna() -> Arc<Participant> {
    let id = ParticipantId(Uuid::from_u128(1));
    Arc::new(Participant { id, user_id: None, name: Some("Anna".to_owned()), email: None })
}

impl Meeting {
    async fn open() -> Self {
        let memory = MemoryBus::new(Limits::default(), Arc::new(SystemClock::default()));
        let bus: Arc<dyn Bus> = Arc::new(memory.clone());
        let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("standup").unwrap() };
        let proposal =
            Proposal { conversation: ConversationId::from_random(7), epoch: Epoch(1), title: "Standup".to_owned() };
        let key = bus.open(&meeting, proposal).await.unwrap().key;
        let stream = StreamId(Uuid::from_u128(1));
        let claim = bus.claim(&key, &PublisherId::Stream(stream)).await.unwrap();
        let mut meeting = Self { bus, memory, key, stream, claim, said: 0 };
        let config = SpeakerConfig {
            insight_types: vec!["question".to_owned()],
            trackers: vec![Tracker { id: None, name: "Boat".to_owned(), vocabulary: vec!["boat".to_owned()] }],
            ..SpeakerConfig::default()
        };
        let gateway = GatewayId(Uuid::from_u128(9));
        meeting
            .by_gateway(Event::StreamStarted(Arc::new(StreamStarted {
                stream,
                participant: anna(),
                gateway,
                config,
                origin: meeting.claim.origin,
                recorded: false,
                no_connection_timeout: Duration::ZERO,
            })))
            .await;
        meeting
    }

    async fn by_gateway(&mut self, event: Event) {
        let publisher = PublisherId::Rest(Uuid::new_v4());
        let claim = self.bus.claim(&self.key, &publisher).await.unwrap();
        let batch = Batch {
            publisher,
            generation: claim.generation,
            from: 0,
            through: 1,
            events: vec![event],
            restart: None,
            seen: claim.top,
        };
        self.bus.publish(&self.key, batch).await.unwrap();
    }

    async fn say(&mut self, text: &str) {
        let at = self.said;
        self.said += 1_000_000;
        let spoken = Event::Final(Arc::new(Final {
            sentiment: Vec::new(),
            trace: None,
            stream: self.stream,
            utterance: UtteranceId::after_cut(self.stream, StreamTime(at)),
            participant: anna(),
            origin: self.claim.origin,
            start: StreamTime(at),
            end: StreamTime(at + 900_000),
            text: text.to_owned(),
            language: "en-US".to_owned(),
            confidence: 0.9,
            words: Vec::new(),
        }));
        let top = self.bus.meta(&self.key).await.unwrap().top;
        let batch = Batch {
            publisher: PublisherId::Stream(self.stream),
            generation: self.claim.generation,
            from: at,
            through: self.said,
            events: vec![spoken],
            restart: None,
            seen: top,
        };
        self.bus.publish(&self.key, batch).await.unwrap();
    }

    async fn entries(&self) -> Vec<Entry> {
        let Read::Page(page) = self.bus.read(&self.key, Seen::NOTHING, 10_000).await.unwrap() else { panic!("a gap") };
        page.entries
    }

    /// But for what sentences are said for.
    async fn insights(&self) -> Vec<Arc<Insight>> {
        let insight = |entry: Entry| match entry.body {
            Body::Event(Event::Insight(it)) if !matches!(it.body, InsightBody::Intent { .. }) => Some(it),
            _ => None,
        };
        self.entries().await.into_iter().filter_map(insight).collect()
    }

    /// Waits until so many insights are on the log.
    async fn told(&self, count: usize) -> Vec<Arc<Insight>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let insights = self.insights().await;
            if insights.len() >= count {
                return insights;
            }
            assert!(Instant::now() < until, "{} of {count} insights", insights.len());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn texts(insights: &[Arc<Insight>]) -> Vec<&str> {
    insights.iter().map(|insight| insight.text.as_str()).collect()
}

#[tokio::test]
async fn what_is_said_is_told_once_however_many_listen_to_it() {
    let mut meeting = Meeting::open().await;
    let tasks = Tasks::new();
    let analysts: Vec<_> = (0..3).map(|_| Analysts::new(Arc::clone(&meeting.bus), None, &tasks)).collect();
    let attending: Vec<_> = analysts.iter().chain(&analysts).map(|it| it.attend(&meeting.key)).collect();
    meeting.say("Shall we buy a boat?").await;
    let found = meeting.told(2).await;
    assert_eq!(texts(&found), ["Shall we buy a boat?", "boat"]);
    meeting.say("Why not?").await;
    meeting.told(3).await;
    // Whoever else might tell it would have.
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(texts(&meeting.insights().await), ["Shall we buy a boat?", "boat", "Why not?"]);
    drop(attending);
    tasks.finish(PATIENCE).await.unwrap();
}

/// Knows of vessels only, and counts what it was asked.
#[derive(Default)]
struct Vessels(AtomicUsize);

impl Meaning for Vessels {
    fn of(&self, text: &str) -> Option<Vector> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let mut vector = [0.0; DIMENSIONS];
        vector[usize::from(["boat", "ship", "sail"].iter().any(|it| text.contains(it)))] = 1.0;
        Some(vector)
    }
}

#[tokio::test]
async fn what_means_the_like_is_told_and_not_weighed_again_by_the_next_analyst() {
    let mut meeting = Meeting::open().await;
    let first = Tasks::new();
    let attending = Analysts::new(Arc::clone(&meeting.bus), Some(Thought::new(Arc::<Vessels>::default())), &first)
        .attend(&meeting.key);
    meeting.say("I would like to sail with you.").await;
    meeting.say("We have a lot of time.").await;
    let found = meeting.told(1).await;
    assert_eq!((texts(&found), found[0].evidence[0].end), (vec!["I would like to sail with you."], 0));
    drop(attending);
    first.finish(PATIENCE).await.unwrap();

    let (second, asked) = (Tasks::new(), Arc::<Vessels>::default());
    let attending =
        Analysts::new(Arc::clone(&meeting.bus), Some(Thought::new(asked.clone())), &second).attend(&meeting.key);
    meeting.say("Then take the old ship again.").await;
    let found = meeting.told(2).await;
    assert_eq!(texts(&found)[1..], ["Then take the old ship again."]);
    assert!(asked.0.load(Ordering::Relaxed) <= 3, "the phrase and what was not told yet");
    drop(attending);
    second.finish(PATIENCE).await.unwrap();
}

/// Takes a while for every text.
struct Slow(Vessels);

impl Meaning for Slow {
    fn of(&self, text: &str) -> Option<Vector> {
        std::thread::sleep(Duration::from_millis(5));
        self.0.of(text)
    }
}

/// Longer than the lease lasts: who thinks keeps it, and is not thinking in vain.
#[tokio::test]
async fn who_thinks_long_stays_the_analyst() {
    let mut meeting = Meeting::open().await;
    let (asked, others) = (Arc::new(Slow(Vessels::default())), Arc::new(Slow(Vessels::default())));
    let tasks = Tasks::new();
    let (bus, key) = (Arc::clone(&meeting.bus), meeting.key.clone());
    let attend =
        |meaning: &Arc<Slow>| Analysts::new(Arc::clone(&bus), Some(Thought::new(meaning.clone())), &tasks).attend(&key);
    let _hears = attend(&asked);
    let tracker =
        |it: u32| Tracker { id: None, name: format!("Tracker {it}"), vocabulary: vec![format!("phrase {it}")] };
    let config = SpeakerConfig { trackers: (0..1_000).map(tracker).collect(), ..SpeakerConfig::default() };
    let stream = meeting.stream;
    meeting.by_gateway(Event::ConfigChanged(Arc::new(ConfigChanged { stream, config }))).await;
    let _hears_too = attend(&others);
    meeting.say("This is phrase 7.").await;
    assert!(texts(&meeting.told(1).await).contains(&"phrase 7"));
    let count = |of: &Slow| of.0.0.load(Ordering::Relaxed);
    assert!(count(&asked).min(count(&others)) == 0, "{} and {} texts weighed", count(&asked), count(&others));
    assert!(count(&asked).max(count(&others)) <= 1_002, "each text once");
    tasks.finish(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn when_an_analyst_dies_another_goes_on_where_it_was() {
    let mut meeting = Meeting::open().await;
    let (first, second) = (Tasks::new(), Tasks::new());
    let _hears = Analysts::new(Arc::clone(&meeting.bus), None, &first).attend(&meeting.key);
    meeting.say("Is anybody there?").await;
    meeting.told(1).await;
    let _hears_too = Analysts::new(Arc::clone(&meeting.bus), None, &second).attend(&meeting.key);
    // Its tasks are gone without a word: the lease is not given back.
    first.finish(Duration::ZERO).await.ok();
    let gone = Instant::now();
    meeting.say("And now?").await;
    let found = meeting.told(2).await;
    assert!(gone.elapsed() <= Duration::from_secs(5), "{:?}", gone.elapsed());
    assert_eq!(texts(&found), ["Is anybody there?", "And now?"]);
    second.finish(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_conversation_ends_its_analyst() {
    let mut meeting = Meeting::open().await;
    let tasks = Tasks::new();
    let attending = Analysts::new(Arc::clone(&meeting.bus), None, &tasks).attend(&meeting.key);
    meeting.say("Are we done?").await;
    // It is there.
    meeting.told(1).await;
    meeting.say("Are we really?").await;
    let stream = meeting.stream;
    meeting
        .by_gateway(Event::StreamEnded(StreamEnded { stream, how: StreamEnd::Stopped { linger: Duration::ZERO } }))
        .await;
    drop(attending);
    let until = Instant::now() + PATIENCE;
    while !meeting.entries().await.iter().any(|it| matches!(it.body, Body::Event(Event::Ended(_)))) {
        assert!(Instant::now() < until, "it never ended");
        meeting.bus.tick(&meeting.key).await.unwrap();
        sleep(Duration::from_millis(10)).await;
    }
    let entries = meeting.entries().await;
    let ended = entries.iter().position(|it| matches!(it.body, Body::Event(Event::Ended(_)))).unwrap();
    let told = entries[..ended].iter().filter(|it| {
        let Body::Event(Event::Insight(insight)) = &it.body else { return false };
        insight.body == InsightBody::Question
    });
    assert_eq!(told.count(), 2, "what was asked last is told before the end");
    tasks.finish(PATIENCE).await.unwrap();
}

/// What history lost is told again, of what is left.
#[tokio::test]
async fn a_failover_that_loses_insights_has_them_told_again() {
    let mut meeting = Meeting::open().await;
    let tasks = Tasks::new();
    let _hears = Analysts::new(Arc::clone(&meeting.bus), None, &tasks).attend(&meeting.key);
    meeting.say("Shall we start?").await;
    meeting.told(1).await;
    let replica = meeting.memory.replica(&meeting.key).unwrap();
    // The log as it was before anything was told of the next question.
    meeting.say("A boat").await;
    meeting.told(2).await;
    meeting.memory.fail_over(replica);
    let claim = meeting.bus.claim(&meeting.key, &PublisherId::Stream(meeting.stream)).await.unwrap();
    (meeting.said, meeting.claim) = (claim.watermark, claim);
    meeting.say("A boat").await;
    let until = Instant::now() + PATIENCE;
    loop {
        let found = meeting.insights().await;
        if texts(&found) == ["Shall we start?", "boat"] {
            break;
        }
        assert!(Instant::now() < until, "{:?}", texts(&found));
        sleep(Duration::from_millis(20)).await;
    }
    tasks.finish(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn who_spoke_how_long_is_told_while_people_talk() {
    let mut meeting = Meeting::open().await;
    let mut heard = meeting.bus.subscribe(&meeting.key).await.unwrap();
    let tasks = Tasks::new();
    let _attending = Analysts::new(Arc::clone(&meeting.bus), None, &tasks).attend(&meeting.key);
    meeting.say("Three small words.").await;
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(Delivery::Ephemeral { ephemerals, .. }) = heard.next().await
                && let [Ephemeral::Analytics(found)] = &ephemerals[..]
            {
                return Arc::clone(found);
            }
        }
    });
    let found = found.await.unwrap();
    let [one] = &found.speakers[..] else { panic!("{found:?}") };
    assert_eq!((one.participant.id, one.talk_ms, one.interruptions), (anna().id, 900, 0));
    assert_eq!((one.ratio, one.wpm.round(), found.overlap_ms), (1.0, 200.0, 0));
}

/// The next announcement of a kind.
async fn announced<T>(heard: &mut Subscription, of: impl Fn(&Ephemeral) -> Option<T>) -> T {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(Delivery::Ephemeral { ephemerals, .. }) = heard.next().await
                && let Some(found) = ephemerals.iter().find_map(&of)
            {
                return found;
            }
        }
    });
    found.await.unwrap()
}

#[tokio::test]
async fn who_asks_for_more_than_there_is_room_for_is_told() {
    let mut meeting = Meeting::open().await;
    let mut heard = meeting.bus.subscribe(&meeting.key).await.unwrap();
    let tasks = Tasks::new();
    let _attending = Analysts::new(Arc::clone(&meeting.bus), None, &tasks).attend(&meeting.key);
    let tracker = |it: u32| Tracker { id: None, name: format!("Tracker {it}"), vocabulary: vec![format!("word {it}")] };
    let config = SpeakerConfig { trackers: (0..1_100).map(tracker).collect(), ..SpeakerConfig::default() };
    let stream = meeting.stream;
    meeting.by_gateway(Event::ConfigChanged(Arc::new(ConfigChanged { stream, config }))).await;
    let warning = |it: &Ephemeral| match it {
        Ephemeral::Warning(warning) => Some(Arc::clone(warning)),
        _ => None,
    };
    let warning = announced(&mut heard, warning).await;
    assert_eq!(warning.participant, anna().id);
    let all = "trackers: 76 of them are not looked for; at most 1024 are, of all speakers of a conversation together";
    assert_eq!(warning.details, all);
}

#[tokio::test]
async fn what_trackers_find_in_an_utterance_that_goes_on_is_told_once() {
    let mut meeting = Meeting::open().await;
    let mut heard = meeting.bus.subscribe(&meeting.key).await.unwrap();
    let tasks = Tasks::new();
    let _attending = Analysts::new(Arc::clone(&meeting.bus), None, &tasks).attend(&meeting.key);
    let tracker = |name: &str| Tracker { id: None, name: name.to_owned(), vocabulary: vec![name.to_owned()] };
    let trackers = vec![tracker("boat"), tracker("river")];
    let config = SpeakerConfig { trackers, tracker_interim_results: true, ..SpeakerConfig::default() };
    let stream = meeting.stream;
    meeting.by_gateway(Event::ConfigChanged(Arc::new(ConfigChanged { stream, config }))).await;
    // By this it is known that the analyst has read it.
    meeting.say("A river.").await;
    meeting.told(1).await;
    for (revision, text) in [(1, "So the boat"), (2, "So the boat is on"), (3, "So the boat is on the river")] {
        let partial = Partial {
            stream,
            utterance: UtteranceId::after_cut(stream, StreamTime(meeting.said)),
            revision,
            participant: anna(),
            origin: meeting.claim.origin,
            start: StreamTime(meeting.said),
            end: StreamTime(meeting.said + 1),
            text: text.to_owned(),
            stable: 0,
            confidence: 0.5,
        };
        let (publisher, generation) = (PublisherId::Stream(stream), meeting.claim.generation);
        let told = vec![Ephemeral::Partial(Arc::new(partial))];
        meeting.bus.announce(&meeting.key, &publisher, generation, told).await.unwrap();
    }
    let tracked = |it: &Ephemeral| match it {
        Ephemeral::Tracked(found) => Some((found.tracker.clone(), found.text.clone(), found.start, found.end)),
        _ => None,
    };
    let of = |tracker: &str, text: &str, start, end| (tracker.to_owned(), text.to_owned(), start, end);
    assert_eq!(announced(&mut heard, tracked).await, of("boat", "So the boat", 7, 11));
    assert_eq!(announced(&mut heard, tracked).await, of("river", "So the boat is on the river", 22, 27));
}
