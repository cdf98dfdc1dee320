//! The second knowledge source: reads a conversation's log, and appends what follows from what was said.
//!
//! There is one a conversation, by lease. Every process that hears one of its streams tries to be it, once a second while
//! another is: when that one dies, somebody else goes on from its watermark, which moves with what was appended in one
//! step, so nothing is told twice and nothing is left out. What it knows it reads from the log; nothing is kept elsewhere.
//!
//! However long it thinks, it keeps its lease: a second analyst would think as long, and neither get on.

use std::{
    collections::{HashMap, VecDeque, hash_map},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use hearsay_bus::{
    Body, Bus, Claim, Delivery, Error, Refusal, Seen,
    append::{Appender, Reclaims},
    follow::{Follower, Step},
    publisher::{AfterBranch, Stretch},
};
use hearsay_conversation::{Spoken, Talk};
use hearsay_insight::{
    analysis::{Analysis, MOST_ENTITIES, MOST_TRACKERS, Refused},
    meaning::Vector,
};
use hearsay_protocol::{
    ConversationKey, Event, Generation, Offset, ParticipantId, PublisherId, StreamId, Timestamp,
    event::{Analytics, Ephemeral, EventKind, Participant, Talked, Tracked, Warning},
};
use hearsay_runtime::{Drain, Tasks};
use tokio::{
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use uuid::Uuid;

use crate::{metrics, thought::Thought};

/// How long one call of the log may take.
const CALL: Duration = Duration::from_secs(5);
/// Between two tries to be the analyst; with the lease of 3 s, the longest a conversation is without one.
const AGAIN: Duration = Duration::from_secs(1);
/// The lease is kept this often.
const KEEP: Duration = Duration::from_secs(1);
/// A lost last announcement is looked for every so many keeps.
const LOOK: u32 = 2;
/// Who spoke how long is told every so many keeps, if anybody spoke.
const TALK: u32 = 5;
/// How long an entry waits for a processor; after that, trackers find their words only.
const THINK: Duration = Duration::from_millis(300);
/// Texts that are weighed in one turn; then others have theirs.
const SLICE: usize = 16;
/// Entries read at a time.
const PAGE: usize = 500;
/// Warnings that wait to be told.
const OWED: usize = 64;
/// A stream is on the log before its socket is a member of the feed; by then it is.
const SEATED: Duration = Duration::from_secs(1);
/// What was told of utterances that still went on, and is not told again.
const TRACKED: usize = 256;
/// Of whom it is told how long they spoke.
const SPEAKERS: usize = 64;

/// Analyses the conversations whose streams are heard here. Cheap to clone.
#[derive(Clone)]
pub struct Analysts {
    inner: Arc<Inner>,
}

struct Inner {
    bus: Arc<dyn Bus>,
    thought: Option<Thought>,
    tasks: Tasks,
    /// As many as there are conversations heard here, and those analysed here that have not ended.
    attended: Mutex<HashMap<ConversationKey, Arc<Attended>>>,
}

#[derive(Default)]
struct Attended {
    /// Of this conversation, heard here.
    streams: AtomicUsize,
}

/// One stream is heard here. Dropped when it is not any more.
pub struct Attending {
    attended: Arc<Attended>,
}

impl Drop for Attending {
    fn drop(&mut self) {
        self.attended.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How a turn as analyst ended.
enum Turn {
    /// There is nothing left to analyse, ever.
    Over,
    /// Another is the analyst.
    Held,
    /// It has to begin anew.
    Again(Duration),
}

impl Analysts {
    /// Without `thought`, trackers find their words only.
    pub fn new(bus: Arc<dyn Bus>, thought: Option<Thought>, tasks: &Tasks) -> Self {
        Self { inner: Arc::new(Inner { bus, thought, tasks: tasks.clone(), attended: Mutex::default() }) }
    }

    /// A stream of this conversation is heard here.
    pub fn attend(&self, key: &ConversationKey) -> Attending {
        let mut map = self.inner.lock();
        let attended = match map.entry(key.clone()) {
            hash_map::Entry::Occupied(known) => Arc::clone(known.get()),
            hash_map::Entry::Vacant(free) => {
                let attended = Arc::clone(free.insert(Arc::default()));
                let (inner, key) = (Arc::clone(&self.inner), key.clone());
                drop(self.inner.tasks.spawn_background("analyst", async move { inner.analyse(key).await }));
                attended
            }
        };
        attended.streams.fetch_add(1, Ordering::AcqRel);
        Attending { attended }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<ConversationKey, Arc<Attended>>> {
        self.attended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody is heard here; under the lock that a new stream takes.
    fn leave(&self, key: &ConversationKey, over: bool) -> bool {
        let mut map = self.lock();
        let idle = map.get(key).is_none_or(|attended| attended.streams.load(Ordering::Acquire) == 0);
        if idle || over {
            map.remove(key);
        }
        idle || over
    }

    async fn analyse(self: Arc<Self>, key: ConversationKey) {
        let drain = self.tasks.drain();
        loop {
            let turn = tokio::select! {
                turn = self.turn(&key, &drain) => turn,
                () = drain.finished() => return,
            };
            let pause = match turn {
                Turn::Over if self.leave(&key, true) => return,
                // Whoever hears a stream of it tries.
                Turn::Held if self.leave(&key, false) => return,
                Turn::Over | Turn::Held => AGAIN,
                Turn::Again(_) if drain.is_draining() && self.leave(&key, false) => return,
                Turn::Again(pause) => pause,
            };
            tokio::select! {
                () = sleep(pause) => (),
                () = drain.finished() => return,
            }
        }
    }

    async fn turn(&self, key: &ConversationKey, drain: &Drain) -> Turn {
        match call(self.bus.claim(key, &PublisherId::Analyst)).await {
            Ok(claim) => {
                let _present = metrics::analysing();
                match self.serve(key, &claim, drain).await {
                    Ok(turn) => turn,
                    Err(error) => after(&error),
                }
            }
            Err(error) => after(&error),
        }
    }

    async fn serve(&self, key: &ConversationKey, claim: &Claim, drain: &Drain) -> Result<Turn, Error> {
        let bus = Arc::clone(&self.bus);
        let appender =
            Appender::new(bus, key.clone(), PublisherId::Analyst, claim, Reclaims::Elsewhere, AfterBranch::Forget);
        let mut analyst = Analyst {
            bus: &*self.bus,
            key,
            appender,
            follower: Follower::new(Seen::NOTHING),
            analysis: Analysis::new(),
            thought: self.thought.as_ref(),
            done: Offset(claim.watermark),
            ended: false,
            talk: Running::default(),
            speakers: HashMap::new(),
            owed: Vec::new(),
            tracked: VecDeque::new(),
            lease: Lease { bus: &*self.bus, key, generation: claim.generation, kept: Instant::now() },
        };
        let mut subscription = call(self.bus.subscribe(key)).await?;
        let mut keeping = interval(KEEP);
        keeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut kept = 0_u32;
        loop {
            if let Some(turn) = analyst.catch_up().await? {
                return Ok(turn);
            }
            if analyst.ended {
                return Ok(Turn::Over);
            }
            // What was taken is told before anything else: only the waiting is given up for another.
            let delivery = tokio::select! {
                delivery = subscription.next() => Some(delivery),
                _ = keeping.tick() => None,
            };
            match delivery {
                Some(Some(delivery)) => {
                    if let Delivery::Ephemeral { ephemerals, .. } = &delivery {
                        analyst.so_far(ephemerals).await?;
                    }
                    let mut steps = Vec::new();
                    analyst.follower.delivered(&delivery, &mut steps);
                    if let Some(turn) = analyst.tell(&mut steps).await? {
                        return Ok(turn);
                    }
                }
                // The log shuts down.
                Some(None) => return Ok(Turn::Again(AGAIN)),
                None => {
                    // Others hear its streams by then, or nobody does.
                    if drain.is_draining() && self.leave(key, false) {
                        return Ok(Turn::Over);
                    }
                    analyst.lease.keep().await?;
                    let due = analyst.owed.iter().take_while(|it| it.0.elapsed() >= SEATED).count();
                    if due > 0 {
                        let owed = analyst.owed.drain(..due).map(|it| it.1).collect();
                        analyst.announce(owed).await?;
                    }
                    kept = kept.wrapping_add(1);
                    if kept.is_multiple_of(TALK)
                        && let Some(analytics) = analyst.talk.news()
                    {
                        analyst.announce(vec![Ephemeral::Analytics(Arc::new(analytics))]).await?;
                    }
                    if kept.is_multiple_of(LOOK) {
                        analyst.follower.missed();
                    }
                }
            }
        }
    }
}

/// What an error means for the turn.
fn after(error: &Error) -> Turn {
    match error {
        Error::Refused(Refusal::Held { .. }) => Turn::Held,
        Error::Refused(Refusal::Fenced { .. } | Refusal::Reclaim) => Turn::Again(Duration::from_millis(100)),
        Error::Refused(Refusal::Ended | Refusal::Gone) => Turn::Over,
        Error::Refused(Refusal::Overlap { .. } | Refusal::Hole { .. } | Refusal::Invalid(_) | Refusal::Full { .. }) => {
            tracing::error!(%error, "the log refuses insights");
            Turn::Again(AGAIN)
        }
        Error::Unavailable(_) => {
            tracing::debug!(%error, "the analyst waits for the log");
            Turn::Again(AGAIN)
        }
    }
}

/// One turn: a place on the log, what is known up to there, and how far it was told.
struct Analyst<'a> {
    bus: &'a dyn Bus,
    key: &'a ConversationKey,
    appender: Appender,
    follower: Follower,
    analysis: Analysis,
    thought: Option<&'a Thought>,
    /// Everything up to here is analysed, and on the log.
    done: Offset,
    ended: bool,
    talk: Running,
    /// By whose stream a configuration comes.
    speakers: HashMap<StreamId, ParticipantId>,
    /// Told once the socket that asked hears of it: when it was asked, earliest first.
    owed: Vec<(Instant, Ephemeral)>,
    /// What was told of utterances that still went on, latest last.
    tracked: VecDeque<Tracked>,
    lease: Lease<'a>,
}

/// The right to be the analyst, for as long as it is kept.
struct Lease<'a> {
    bus: &'a dyn Bus,
    key: &'a ConversationKey,
    generation: Generation,
    kept: Instant,
}

impl Lease<'_> {
    async fn keep(&mut self) -> Result<(), Error> {
        call(self.bus.keep(self.key, &PublisherId::Analyst, self.generation)).await?;
        self.kept = Instant::now();
        Ok(())
    }

    /// Keeps it if it is time.
    async fn keep_if_due(&mut self) -> Result<(), Error> {
        if self.kept.elapsed() >= KEEP { self.keep().await } else { Ok(()) }
    }

    /// Keeps it until something is done.
    async fn keep_while<T>(&mut self, doing: impl Future<Output = T>) -> Result<T, Error> {
        tokio::pin!(doing);
        loop {
            tokio::select! {
                done = &mut doing => return Ok(done),
                () = sleep_until(self.kept + KEEP) => self.keep().await?,
            }
        }
    }
}

/// Who spoke how long so far.
#[derive(Default)]
struct Running {
    started: Timestamp,
    talk: Talk,
    people: HashMap<Uuid, Arc<Participant>>,
    /// Somebody spoke since it was told.
    news: bool,
}

impl Running {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Started(started) => self.started = started.at,
            Event::Final(spoken) => {
                self.people.entry(spoken.participant.id.0).or_insert_with(|| Arc::clone(&spoken.participant));
                self.talk.hear(spoken);
                self.news = true;
            }
            _ => {}
        }
    }

    fn news(&mut self) -> Option<Analytics> {
        if !std::mem::take(&mut self.news) {
            return None;
        }
        let found = self.talk.analytics(self.started, None);
        let talked = |it: &Spoken| {
            Some(Talked {
                participant: Arc::clone(self.people.get(&it.id)?),
                talk_ms: it.talk_us / 1_000,
                ratio: it.ratio(&found) as f32,
                wpm: it.words_a_minute() as f32,
                interruptions: it.interruptions,
            })
        };
        Some(Analytics {
            speakers: found.speakers.iter().take(SPEAKERS).filter_map(talked).collect(),
            silence_ms: found.silence_us / 1_000,
            overlap_ms: found.overlap_us / 1_000,
        })
    }
}

impl Analyst<'_> {
    /// Remembers who speaks.
    fn meet(&mut self, event: &Event) {
        match event {
            Event::StreamStarted(started) => {
                self.speakers.insert(started.stream, started.participant.id);
            }
            Event::StreamEnded(ended) => drop(self.speakers.remove(&ended.stream)),
            _ => {}
        }
    }

    /// Reads what is owed.
    async fn catch_up(&mut self) -> Result<Option<Turn>, Error> {
        let mut steps = Vec::new();
        while self.follower.is_behind() {
            let read = call(self.bus.read(self.key, self.follower.at(), PAGE)).await?;
            self.follower.read(read, &mut steps);
            if let Some(turn) = self.tell(&mut steps).await? {
                return Ok(Some(turn));
            }
        }
        Ok(None)
    }

    /// Analyses an entry where that takes no time from others: what it asks for is weighed first, a slice a turn.
    async fn think(&mut self, thought: &Thought, texts: Vec<String>, event: Event) -> Result<Vec<Event>, Error> {
        let broken = |error| Error::Unavailable(format!("the analysis broke off: {error}"));
        let mut known: HashMap<String, Vector> = HashMap::new();
        let mut texts = texts.into_iter().peekable();
        while texts.peek().is_some() {
            let slice: Vec<String> = texts.by_ref().take(SLICE).collect();
            let Some(turn) = self.lease.keep_while(thought.turn(THINK)).await? else {
                return Ok(self.analysis.apply(&event, None));
            };
            let weighing = turn.weigh(|meaning| {
                let weighed = |text: String| meaning.of(&text).map(|vector| (text, vector));
                slice.into_iter().filter_map(weighed).collect::<Vec<_>>()
            });
            known.extend(self.lease.keep_while(weighing).await?.map_err(broken)?);
        }
        let mut analysis = std::mem::take(&mut self.analysis);
        let thinking = spawn_blocking(move || {
            let found = analysis.apply(&event, Some(&known));
            (analysis, found)
        });
        let (analysis, found) = self.lease.keep_while(thinking).await?.map_err(broken)?;
        self.analysis = analysis;
        Ok(found)
    }

    /// Notes that a speaker asked for more than there is room for. It is told a little later: by then the socket that asked
    /// is a member.
    fn owe(&mut self, event: &Event, refused: Refused) {
        if refused == Refused::default() {
            return;
        }
        metrics::refused_to_look_for(refused);
        tracing::warn!(key = %self.key, ?refused, "a conversation looks for all there is room for");
        let stream = match event {
            Event::StreamStarted(started) => started.stream,
            Event::ConfigChanged(changed) => changed.stream,
            _ => return,
        };
        let Some(&participant) = self.speakers.get(&stream) else { return };
        let most = [("trackers", refused.trackers, MOST_TRACKERS), ("entities", refused.entities, MOST_ENTITIES)];
        for (what, count, most) in most.into_iter().filter(|it| it.1 > 0) {
            let details = format!(
                "{what}: {count} of them are not looked for; at most {most} are, of all speakers of a conversation together"
            );
            if self.owed.len() < OWED {
                self.owed.push((Instant::now(), Ephemeral::Warning(Arc::new(Warning { participant, details }))));
            }
        }
    }

    async fn announce(&self, told: Vec<Ephemeral>) -> Result<(), Error> {
        call(self.bus.announce(self.key, &PublisherId::Analyst, self.lease.generation, told)).await
    }

    /// Tells what trackers find in utterances that still go on, each once.
    async fn so_far(&mut self, ephemerals: &[Ephemeral]) -> Result<(), Error> {
        let mut told = Vec::new();
        for ephemeral in ephemerals {
            let Ephemeral::Partial(partial) = ephemeral else { continue };
            for found in self.analysis.so_far(partial) {
                let known = &mut self.tracked;
                if known
                    .iter()
                    .any(|it| (it.utterance, &it.tracker, &it.value) == (found.utterance, &found.tracker, &found.value))
                {
                    continue;
                }
                if known.len() >= TRACKED {
                    known.pop_front();
                }
                known.push_back(found.clone());
                told.push(Ephemeral::Tracked(Arc::new(found)));
            }
        }
        if told.is_empty() { Ok(()) } else { self.announce(told).await }
    }

    /// Analyses entries, appends what follows from them.
    async fn tell(&mut self, steps: &mut Vec<Step>) -> Result<Option<Turn>, Error> {
        let (mut events, mut through, mut worth) = (Vec::new(), self.done, false);
        // When on the log is what insights follow from.
        let mut causes = Vec::new();
        for step in steps.drain(..) {
            match step {
                // Where history branched is told by a gap, or refuses what is appended.
                Step::Epoch(_) => (),
                Step::Gap { reason: hearsay_protocol::wire::Gap::Branch, .. } => {
                    return Ok(Some(Turn::Again(Duration::ZERO)));
                }
                Step::Gap { to, .. } => tracing::warn!(key = %self.key, %to, "the analyst begins in the middle"),
                Step::Entry { entry, .. } => {
                    let Body::Event(event) = &entry.body else { continue };
                    if entry.offset > self.done {
                        metrics::taken_up(wall().since(entry.at));
                    }
                    let begun = Instant::now();
                    // What was told before is only known again.
                    let found = match self.thought.filter(|_| entry.offset > self.done) {
                        Some(thought) => {
                            let texts = self.analysis.asks(event);
                            if texts.is_empty() {
                                self.analysis.apply(event, None)
                            } else {
                                self.think(thought, texts, event.clone()).await?
                            }
                        }
                        None => self.analysis.apply(event, None),
                    };
                    self.lease.keep_if_due().await?;
                    self.meet(event);
                    let refused = self.analysis.refused();
                    if entry.offset > self.done {
                        self.owe(event, refused);
                    }
                    self.talk.apply(event);
                    metrics::analysed(begun.elapsed());
                    self.ended |= event.kind() == EventKind::Ended;
                    if entry.offset > self.done {
                        causes.extend(found.iter().filter(|it| it.kind() == EventKind::Insight).map(|_| entry.at));
                        events.extend(found);
                        through = entry.offset;
                        worth |= event.kind() != EventKind::Insight;
                    }
                }
            }
        }
        if !worth {
            // Its own insights, which the next stretch covers.
            return Ok(None);
        }
        for event in &events {
            if let Event::Insight(insight) = event {
                metrics::inferred(insight.body.name());
            }
        }
        let stretch = Stretch { from: self.done.0, through: through.0, events, restart: None };
        self.appender.append(stretch, CALL).await?;
        for cause in causes {
            metrics::insight_told(wall().since(cause));
        }
        self.done = through;
        Ok(None)
    }
}

fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

async fn call<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(CALL, call).await.unwrap_or_else(|_| Err(Error::Unavailable(format!("no answer within {CALL:?}"))))
}
