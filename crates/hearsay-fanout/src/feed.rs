//! One task per conversation with members here: bus -> views. Owns the subscription, the members and how far they are.
//!
//! * **Order.** [`Follower`] makes a contiguous run of what is announced; holes are closed by reading the log once for all
//!   members, while nobody is disconnected.
//! * **Fan-out.** An event is rendered once per [`Audience`]; outboxes get the bytes here, each core with rows one post.
//! * **Joining.** Who wants no history is a member at once. Who asks for what followed a position that is still
//!   remembered ([`REMEMBERED`] entries) gets it with the first flush. Everybody else reads the log in a task of its own
//!   and comes back where the feed's memory begins: contiguous, without doubles, and without the feed ever waiting.
//!
//! Waits only for room in a core's queue (one pass of that core) and for single reads of the log, which end by its own
//! deadline.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use hearsay_bus::{
    Body, Bus, Delivery, Entry, Error, Read, Refusal, Seen, State, Subscription, Tail,
    follow::{Follower, Step, gap_reason},
};
use hearsay_protocol::{
    CloseCode, ConversationKey, Epoch, Event, Offset, ParticipantId, Position, StreamId, Timestamp, UtteranceId,
    client::ErrorCode,
    event::{Ephemeral, Partial, Warning},
    wire,
};
use hearsay_runtime::GaugeGuard;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::{
    Audience, Class, Outbox, Scene, frame,
    inbox::{GroupLink, History, JoinError, Joiner, Letters, MemberId, Ready, Sink, Who},
    listeners::{Flush, Part, Post},
    metrics::{self, Since},
    registry::{FeedHandle, Inner, Progress},
    snapshot::Picture,
    trace::{Passed, Passing},
    view,
};

/// Entries a feed remembers for joiners.
const REMEMBERED: usize = 256;
/// Entries of one read.
const PAGE: usize = 256;
/// A page of rendered history is written in pieces of about this size.
const PIECE: usize = 64 * 1024;
/// Deliveries taken in one pass before they are flushed.
const PASS: usize = 64;
/// Between two tries of a log that does not answer: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// The log does not answer for this long: opted-in sockets hear `degraded`.
const DEGRADED: Duration = Duration::from_secs(2);
/// A whole picture that nobody asked for is kept this long.
const PICTURE: Duration = Duration::from_secs(60);

pub(crate) struct Feed {
    hub: Arc<Inner>,
    key: ConversationKey,
    handle: Arc<FeedHandle>,
    follower: Follower,
    epoch: Epoch,
    ended: bool,
    groups: HashMap<Audience, Group>,
    /// Of rows that read history: members of nothing yet.
    antechamber: Arc<GroupLink>,
    /// Who reads history.
    catching_up: HashSet<Who>,
    /// The newest entries.
    memory: VecDeque<Entry>,
    speaking: HashMap<StreamId, Utterance>,
    picture: Option<Picture>,
    picture_asked: Option<Instant>,
    picture_coming: bool,
    /// Joiners that wait for the picture, and those that are ahead of this feed.
    posing: Vec<Ready>,
    ahead: Vec<Ready>,
    /// The last thing rendered from memory, for joiners that come together.
    recalled: Option<(Audience, Offset, Offset, Bytes)>,
    listeners_told: u32,
    /// Traced utterances of this pass.
    passing: Vec<Passing>,
    trouble: Option<Trouble>,
    retry: Duration,
    retry_at: Option<Instant>,
    /// Empty between deliveries: its room is kept.
    steps: Vec<Step>,
    /// There while the log has to be read.
    behind: Option<GaugeGuard>,
}

struct Trouble {
    since: Timestamp,
    began: Instant,
    told: bool,
}

/// What is known of the utterance a stream is in.
struct Utterance {
    id: UtteranceId,
    revision: u32,
    newest: Option<Arc<Partial>>,
}

/// Members who receive the same bytes.
struct Group {
    link: Arc<GroupLink>,
    /// Rows on each core.
    rows: Vec<u32>,
    outboxes: HashMap<MemberId, Seat>,
    /// Events not shown since the members last heard a position.
    filtered: u32,
    heard_at: Instant,
}

struct Seat {
    outbox: Outbox,
    /// Who speaks there.
    speaker: Option<ParticipantId>,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.outboxes.is_empty() && self.rows.iter().all(|&rows| rows == 0)
    }
}

/// What one pass writes to one audience.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    pieces: Vec<(usize, Class)>,
    since: Since,
    /// Durable events and ephemeral ones among the pieces.
    events: [usize; 2],
}

impl Output {
    fn piece(&mut self, class: Class) {
        if self.bytes.len() > self.pieces.last().map_or(0, |(end, _)| *end) {
            self.pieces.push((self.bytes.len(), class));
        }
    }
}

type Outputs = HashMap<Audience, Output>;

impl Feed {
    pub(crate) fn new(hub: Arc<Inner>, key: ConversationKey, handle: Arc<FeedHandle>) -> Self {
        let antechamber = Arc::new(GroupLink { id: hub.group(), owner: Arc::clone(&handle.inbox) });
        Self {
            hub,
            key,
            handle,
            follower: Follower::new(Seen::NOTHING),
            epoch: Epoch(0),
            ended: false,
            groups: HashMap::new(),
            antechamber,
            catching_up: HashSet::new(),
            memory: VecDeque::new(),
            speaking: HashMap::new(),
            picture: None,
            picture_asked: None,
            picture_coming: false,
            posing: Vec::new(),
            ahead: Vec::new(),
            recalled: None,
            listeners_told: 0,
            passing: Vec::new(),
            trouble: None,
            retry: RETRY.0,
            retry_at: None,
            steps: Vec::new(),
            behind: None,
        }
    }

    pub(crate) async fn run(mut self) {
        let _open = metrics::feed_opened();
        let drain = self.hub.tasks.drain();
        let outcome = tokio::select! {
            outcome = self.serve() => outcome,
            () = drain.finished() => Err(JoinError::ShuttingDown),
        };
        self.handle.progress.send_modify(|progress| progress.over = true);
        if let Err(error) = outcome {
            self.fail(&error).await;
        }
        self.hub.release(&self.key).await;
    }

    /// Ends when nobody is left.
    async fn serve(&mut self) -> Result<(), JoinError> {
        let bus = Arc::clone(&self.hub.bus);
        let mut subscription = self.begin(&bus).await?;
        let mut outputs = Outputs::new();
        // Set anew only when it is due at another time: most passes change nothing about that.
        let mut alarm = pin!(sleep(Duration::ZERO));
        let mut set = None;
        let inbox = Arc::clone(&self.handle.inbox);
        loop {
            if self.follower.is_behind() {
                self.behind.get_or_insert_with(metrics::feed_behind);
            }
            while self.follower.is_behind() && self.retry_at.is_none() {
                self.repair(&bus, &mut outputs).await?;
            }
            if !self.follower.is_behind() {
                self.behind = None;
            }
            self.flush(&mut outputs).await;
            self.settle().await;
            if self.is_deserted() && self.hub.end_feed(&self.key, &self.handle) {
                return Ok(());
            }
            let wake = self.wake_at();
            if wake != set {
                set = wake;
                if let Some(at) = wake {
                    alarm.as_mut().reset(at);
                }
            }
            tokio::select! {
                letters = inbox.take() => self.letters(letters, &mut outputs).await,
                delivery = next(&mut subscription) => match delivery {
                    Some(delivery) => {
                        self.deliver(&delivery, &mut outputs);
                        for _ in 0..PASS {
                            let Some(Some(delivery)) = next(&mut subscription).now_or_never() else { break };
                            self.deliver(&delivery, &mut outputs);
                        }
                    }
                    None => {
                        subscription = None;
                        self.follower.missed();
                        self.later();
                    }
                },
                () = &mut alarm, if set.is_some() => {
                    set = None;
                    self.tick(&mut outputs);
                }
            }
            if subscription.is_none() && self.retry_at.is_none() {
                match bus.subscribe(&self.key).await {
                    Ok(made) => {
                        subscription = Some(made);
                        self.follower.missed();
                    }
                    Err(error) => self.troubled(error)?,
                }
            }
        }
    }

    /// Subscribes, then finds out where the conversation is: nothing that is announced later is missed.
    async fn begin(&mut self, bus: &Arc<dyn Bus>) -> Result<Option<Subscription>, JoinError> {
        let mut retry = RETRY.0;
        loop {
            let begun = async { Ok::<_, Error>((bus.subscribe(&self.key).await?, bus.meta(&self.key).await?)) }.await;
            match begun {
                Ok((subscription, meta)) => {
                    if meta.state == State::Deleted {
                        return Err(JoinError::Gone);
                    }
                    let Seen { epoch, offset, .. } = meta.top;
                    self.epoch = epoch.unwrap_or(Epoch(0));
                    // Begins a little before the end, so that early joiners need not read for themselves.
                    let start = Offset(offset.0.saturating_sub(REMEMBERED as u64));
                    self.follower = Follower::new(Seen { epoch, offset: start, check: None });
                    self.ended = matches!(meta.state, State::Ended | State::Compacted);
                    return Ok(Some(subscription));
                }
                Err(Error::Refused(_)) => return Err(JoinError::Gone),
                Err(error) => {
                    tracing::warn!(key = %self.key, %error, "a conversation cannot be followed yet");
                    sleep(retry).await;
                    retry = (retry * 2).min(RETRY.1);
                }
            }
        }
    }

    fn is_deserted(&self) -> bool {
        self.catching_up.is_empty()
            && self.posing.is_empty()
            && self.ahead.is_empty()
            && self.groups.values().all(Group::is_empty)
    }

    fn scene(&self) -> Scene {
        Scene { conversation: self.key.conversation, epoch: self.epoch }
    }

    fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.follower.at().offset }
    }

    // What is announced, and what has to be read.

    fn deliver(&mut self, delivery: &Delivery, outputs: &mut Outputs) {
        let mut steps = std::mem::take(&mut self.steps);
        self.follower.delivered(delivery, &mut steps);
        self.take(&mut steps, outputs);
        self.steps = steps;
        if let Delivery::Ephemeral { ephemerals, .. } = delivery
            && !self.follower.is_behind()
        {
            for ephemeral in ephemerals.iter() {
                self.announce(ephemeral, outputs);
            }
        }
    }

    /// One read for all members; their sockets stay.
    async fn repair(&mut self, bus: &Arc<dyn Bus>, outputs: &mut Outputs) -> Result<(), JoinError> {
        if self.handle.progress.borrow().position.is_some() {
            metrics::repaired();
        }
        match bus.read(&self.key, self.follower.at(), PAGE).await {
            Ok(read) => {
                self.recovered(outputs);
                let mut steps = Vec::new();
                self.follower.read(read, &mut steps);
                self.take(&mut steps, outputs);
                // A long way is shown piece by piece.
                self.flush(outputs).await;
                Ok(())
            }
            Err(error) => self.troubled(error),
        }
    }

    fn troubled(&mut self, error: Error) -> Result<(), JoinError> {
        match error {
            Error::Refused(Refusal::Gone) => Err(JoinError::Gone),
            error => {
                tracing::warn!(key = %self.key, %error, "the log cannot be read");
                self.later();
                Ok(())
            }
        }
    }

    fn later(&mut self) {
        self.trouble.get_or_insert_with(|| Trouble { since: Inner::wall(), began: Instant::now(), told: false });
        self.retry_at = Some(Instant::now() + self.retry);
        self.retry = (self.retry * 2).min(RETRY.1);
    }

    fn recovered(&mut self, outputs: &mut Outputs) {
        self.retry = RETRY.0;
        if !self.hub.bus.hears(&self.key) {
            // It can be read, but what is said comes late, if at all.
            return;
        }
        if let Some(Trouble { told: true, since, .. }) = self.trouble.take() {
            self.tell_opted(&wire::recovered(since, "log"), |audience| audience.opted.positions, outputs);
        }
    }

    /// One frame to every audience that opted into it.
    fn tell_opted(&self, text: &str, wants: impl Fn(&Audience) -> bool, outputs: &mut Outputs) {
        for audience in self.groups.keys().filter(|audience| wants(audience)) {
            let output = outputs.entry(*audience).or_default();
            frame::put_text(text, &mut output.bytes);
            output.piece(Class::Control);
        }
    }

    fn take(&mut self, steps: &mut Vec<Step>, outputs: &mut Outputs) {
        for step in steps.drain(..) {
            match step {
                Step::Entry { entry, again } => self.show(entry, again, outputs),
                Step::Epoch(epoch) => {
                    self.epoch = epoch;
                    self.memory.clear();
                    self.picture = None;
                    self.recalled = None;
                }
                Step::Gap { from, to, reason } => {
                    metrics::gap_told(reason.name());
                    self.memory.clear();
                    self.picture = None;
                    let from = from.unwrap_or(Position { epoch: to.epoch, offset: Offset::START });
                    let text = wire::gap(from, to, reason);
                    let wants = |audience: &Audience| audience.opted.positions || audience.view.unfiltered;
                    self.tell_opted(&text, wants, outputs);
                }
            }
        }
    }

    fn show(&mut self, entry: Entry, again: bool, outputs: &mut Outputs) {
        let scene = self.scene();
        let position = scene.position(entry.offset);
        let spoken = match &entry.body {
            Body::Event(Event::Final(spoken)) => Some(spoken.origin + Duration::from_micros(spoken.end.micros())),
            _ => None,
        };
        let since = Since { appended: Some(entry.at), spoken };
        self.passing.extend(Passing::of(&entry));
        for (audience, group) in &mut self.groups {
            if group.is_empty() {
                continue;
            }
            let output = outputs.entry(*audience).or_default();
            let shown = match again {
                true => view::put_reappended(entry.offset, &scene, audience, &mut output.bytes),
                false => view::put(&entry, &scene, audience, &mut output.bytes),
            };
            if shown {
                output.since = output.since.older(since);
                output.events[0] += 1;
                (group.filtered, group.heard_at) = (0, Instant::now());
            } else {
                group.filtered += 1;
                let enough = group.filtered >= self.hub.config.position_every_events;
                if audience.opted.positions && enough {
                    frame::put_text(&wire::position(position), &mut output.bytes);
                    (group.filtered, group.heard_at) = (0, Instant::now());
                }
            }
            output.piece(Class::Durable { reaches: position });
        }
        match &entry.body {
            Body::Event(Event::Final(spoken)) => {
                let closed = Utterance { id: spoken.utterance, revision: u32::MAX, newest: None };
                self.speaking.insert(spoken.stream, closed);
            }
            Body::Event(Event::StreamEnded(ended)) => {
                self.speaking.remove(&ended.stream);
            }
            Body::Event(Event::Ended(_)) => self.ended = true,
            _ => (),
        }
        if let Some(picture) = &mut self.picture {
            picture.apply(&entry, Seen { epoch: Some(self.epoch), offset: entry.offset, check: Some(entry.check) });
        }
        if self.memory.len() == REMEMBERED {
            self.memory.pop_front();
        }
        self.memory.push_back(entry);
    }

    fn announce(&mut self, ephemeral: &Ephemeral, outputs: &mut Outputs) {
        let class = match ephemeral {
            Ephemeral::Partial(partial) => {
                if !self.is_news(partial) {
                    return;
                }
                Class::Partial { stream: partial.stream, utterance: partial.utterance }
            }
            Ephemeral::Speaking { .. } | Ephemeral::Analytics(_) | Ephemeral::History(_) | Ephemeral::Tracked(_) => {
                Class::Fleeting
            }
            Ephemeral::Warning(warning) => return self.warn(warning),
            Ephemeral::Listeners { .. } => return,
        };
        let follows = self.position();
        for (audience, group) in &self.groups {
            if !group.is_empty()
                && let Some(bytes) = view::render_ephemeral(ephemeral, follows, audience)
            {
                let output = outputs.entry(*audience).or_default();
                output.bytes.extend_from_slice(&bytes);
                output.events[1] += 1;
                output.piece(class);
            }
        }
    }

    /// Tells one speaker only, wherever that one has a socket here.
    fn warn(&self, warning: &Warning) {
        let seats = self.groups.values().flat_map(|group| group.outboxes.values());
        let concerned = seats.filter(|seat| seat.speaker == Some(warning.participant));
        let bytes = view::render_warning(warning);
        for seat in concerned {
            seat.outbox.offer(bytes.clone(), Class::Control);
        }
    }

    /// Neither passed by a later revision nor of an utterance that is closed.
    fn is_news(&mut self, partial: &Arc<Partial>) -> bool {
        let fresh = Utterance { id: partial.utterance, revision: partial.revision, newest: Some(Arc::clone(partial)) };
        match self.speaking.entry(partial.stream) {
            hash_map::Entry::Vacant(stream) => {
                stream.insert(fresh);
                true
            }
            hash_map::Entry::Occupied(mut stream) => {
                let known = stream.get();
                let news = known.id != partial.utterance || known.revision < partial.revision;
                if news {
                    stream.insert(fresh);
                }
                news
            }
        }
    }

    // The one way out.

    /// Writes what this pass made: to outboxes here, to rows by one post per core.
    async fn flush(&mut self, outputs: &mut Outputs) {
        let mut flushes = Vec::new();
        let mut durable = false;
        let passing = std::mem::take(&mut self.passing);
        let passed: Passed = (!passing.is_empty()).then(|| passing.into());
        for (audience, output) in outputs.drain() {
            let Some(group) = self.groups.get(&audience) else { continue };
            if output.pieces.is_empty() {
                continue;
            }
            let bytes = Bytes::from(output.bytes);
            let [durable_events, ephemerals] = output.events;
            metrics::events_to_outboxes(durable_events * group.outboxes.len(), ephemerals * group.outboxes.len());
            let mut start = 0;
            for &(end, class) in &output.pieces {
                for Seat { outbox, .. } in group.outboxes.values() {
                    outbox.offer_since(bytes.slice(start..end), class, output.since);
                    metrics::delivered_to_outbox(end - start);
                }
                start = end;
            }
            durable |= output.pieces.iter().any(|(_, class)| matches!(class, Class::Durable { .. } | Class::Control));
            if group.rows.iter().any(|&rows| rows > 0) {
                let parts = output.pieces.iter().map(|&(end, class)| Part {
                    end: end as u32,
                    durable: matches!(class, Class::Durable { .. } | Class::Control),
                    reaches: match class {
                        Class::Durable { reaches } => Some(reaches),
                        _ => None,
                    },
                });
                let (since, events) = (output.since, output.events);
                flushes.push(Flush {
                    group: group.link.id,
                    bytes,
                    parts: parts.collect(),
                    since,
                    events,
                    passed: passed.clone(),
                });
            }
        }
        if !flushes.is_empty() {
            let flushes: Arc<[Flush]> = flushes.into();
            for core in self.hub.cores.iter() {
                let index = core.index();
                if self.groups.values().all(|group| group.rows.get(index).is_none_or(|&rows| rows == 0)) {
                    continue;
                }
                if durable {
                    core.post(Post::Flush(Arc::clone(&flushes))).await;
                } else if !core.is_easy() || core.try_post(Post::Flush(Arc::clone(&flushes))).is_err() {
                    metrics::conflated(1);
                }
            }
        }
        for passing in passed.iter().flat_map(|passed| passed.iter()) {
            passing.delivered();
        }
        self.progressed();
        if self.ended && !self.follower.is_behind() {
            self.close_listeners().await;
        }
    }

    fn progressed(&self) {
        // Before the first read is done nothing is known to be behind anybody.
        let position = (!self.follower.is_behind()).then(|| self.position());
        let ended = self.ended && !self.follower.is_behind();
        self.handle.progress.send_if_modified(|progress| {
            let newer =
                Progress { position: position.or(progress.position), ended: ended || progress.ended, ..*progress };
            let changed = *progress != newer;
            *progress = newer;
            changed
        });
    }

    /// The conversation has ended: listeners were subscribed to it, and heard that it is complete.
    async fn close_listeners(&mut self) {
        for (audience, group) in &self.groups {
            if !audience.listens || group.is_empty() {
                continue;
            }
            for Seat { outbox, .. } in group.outboxes.values() {
                outbox.close(CloseCode::Normal, "the meeting ended");
            }
            for core in self.hub.cores.iter() {
                if group.rows.get(core.index()).is_some_and(|&rows| rows > 0) {
                    let last = frame::close(CloseCode::Normal, "the meeting ended");
                    core.post(Post::CloseGroup { group: group.link.id, last, reason: "ended" }).await;
                }
            }
        }
    }

    // Time.

    /// When [`Feed::tick`] has something to do, if ever.
    fn wake_at(&self) -> Option<Instant> {
        let positions = self
            .groups
            .iter()
            .filter(|(audience, group)| audience.opted.positions && group.filtered > 0)
            .map(|(_, group)| group.heard_at + self.hub.config.position_every.get());
        let degraded = self.trouble.as_ref().filter(|trouble| !trouble.told).map(|trouble| trouble.began + DEGRADED);
        let picture = self.picture_asked.map(|asked| asked + PICTURE);
        positions.chain(self.retry_at).chain(degraded).chain(picture).min()
    }

    fn tick(&mut self, outputs: &mut Outputs) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
        if self.picture_asked.is_some_and(|asked| asked + PICTURE <= now) {
            (self.picture, self.picture_asked) = (None, None);
        }
        if let Some(trouble) = &mut self.trouble
            && !trouble.told
            && trouble.began + DEGRADED <= now
        {
            trouble.told = true;
            let text = wire::degraded(trouble.since, "log");
            self.tell_opted(&text, |audience| audience.opted.positions, outputs);
        }
        let position = self.position();
        for (audience, group) in &mut self.groups {
            let due = group.heard_at + self.hub.config.position_every.get() <= now;
            if audience.opted.positions && group.filtered > 0 && due {
                let output = outputs.entry(*audience).or_default();
                frame::put_text(&wire::position(position), &mut output.bytes);
                output.piece(Class::Durable { reaches: position });
                (group.filtered, group.heard_at) = (0, now);
            }
        }
    }

    // Members.

    async fn letters(&mut self, letters: Letters, outputs: &mut Outputs) {
        for (group, who) in letters.left {
            self.left(group, who);
        }
        for (member, audience, speaker) in letters.views {
            self.see(member, audience, speaker);
        }
        if let Some(tail) = letters.tail {
            self.tail(tail, outputs);
        }
        for mut picture in letters.pictures {
            self.picture_coming = false;
            if self.remember(&mut picture) {
                self.picture = Some(picture);
            }
        }
        // Who joins hears first what comes after it joined: what this pass made belongs to the others.
        self.flush(outputs).await;
        for joiner in letters.joiners {
            self.admit(joiner).await;
        }
        for ready in letters.ready {
            self.admit_ready(ready).await;
        }
        self.count();
    }

    fn count(&self) {
        let rows = |group: &Group| group.rows.iter().sum::<u32>() + group.outboxes.len() as u32;
        let listening = self.groups.iter().filter(|(audience, _)| audience.listens);
        let listeners = listening.map(|(_, group)| rows(group)).sum();
        self.handle.listeners.store(listeners, Ordering::Relaxed);
    }

    fn left(&mut self, group: Option<crate::inbox::GroupId>, who: Who) {
        if group.is_none_or(|group| group == self.antechamber.id) {
            self.catching_up.remove(&who);
        }
        match who {
            Who::Row(row) => {
                for group in self.groups.values_mut().filter(|candidate| Some(candidate.link.id) == group) {
                    group.rows[row.core as usize] -= 1;
                }
                // Still in the antechamber, waiting for a picture: the core tells again when it is to enter.
                self.posing.retain(|ready| ready.joiner.sink.who() != who);
                self.ahead.retain(|ready| ready.joiner.sink.who() != who);
            }
            Who::Outbox(member) => {
                for group in self.groups.values_mut() {
                    group.outboxes.remove(&member);
                }
                self.posing.retain(|ready| ready.joiner.sink.who() != who);
                self.ahead.retain(|ready| ready.joiner.sink.who() != who);
            }
        }
        self.groups.retain(|_, group| !group.is_empty());
    }

    fn see(&mut self, member: MemberId, audience: Audience, speaker: ParticipantId) {
        let found = self.groups.values_mut().find_map(|group| group.outboxes.remove(&member));
        if let Some(seat) = found {
            self.group(audience).outboxes.insert(member, Seat { speaker: Some(speaker), ..seat });
            self.groups.retain(|_, group| !group.is_empty());
        }
    }

    fn tail(&mut self, tail: Option<Tail>, outputs: &mut Outputs) {
        let Some(tail) = tail else {
            self.trouble.get_or_insert_with(|| Trouble { since: Inner::wall(), began: Instant::now(), told: false });
            return;
        };
        if !self.hub.bus.hears(&self.key) {
            // It was waited for before it was called deaf.
            let began = Instant::now().checked_sub(DEGRADED).unwrap_or_else(Instant::now);
            self.trouble.get_or_insert_with(|| Trouble { since: Inner::wall(), began, told: false });
        } else if !self.follower.is_behind() {
            self.recovered(outputs);
        }
        self.follower.tail(&tail);
        if tail.listeners != self.listeners_told {
            self.listeners_told = tail.listeners;
            self.tell_opted(&wire::listeners(tail.listeners), |audience| audience.opted.presence, outputs);
        }
    }

    fn group(&mut self, audience: Audience) -> &mut Group {
        let (hub, inbox) = (&self.hub, &self.handle.inbox);
        self.groups.entry(audience).or_insert_with(|| Group {
            link: Arc::new(GroupLink { id: hub.group(), owner: Arc::clone(inbox) }),
            rows: vec![0; hub.cores.len()],
            outboxes: HashMap::new(),
            filtered: 0,
            heard_at: Instant::now(),
        })
    }

    /// Where this feed's memory begins: entries after it are remembered.
    fn memory_from(&self) -> Offset {
        Offset(self.follower.at().offset.0 - self.memory.len() as u64)
    }

    async fn admit(&mut self, joiner: Joiner) {
        let at = self.follower.at();
        let mut prelude = Vec::new();
        if joiner.audience.listens {
            frame::put_text(&wire::conversation_created(self.key.conversation), &mut prelude);
        }
        let from = match (joiner.since, joiner.history) {
            (Some(since), _) if joiner.from_start => {
                let to = Position { epoch: self.epoch, offset: Offset::START };
                metrics::gap_told(wire::Gap::Conversation.name());
                frame::put_text(&wire::gap(since, to, wire::Gap::Conversation), &mut prelude);
                Seen { epoch: Some(self.epoch), offset: Offset::START, check: None }
            }
            (Some(since), _) => since.into(),
            (None, History::All) => Seen { epoch: Some(self.epoch), offset: Offset::START, check: None },
            (None, _) if joiner.from_start => Seen { epoch: Some(self.epoch), offset: Offset::START, check: None },
            (None, History::Snapshot) => {
                let (behind, _) = oneshot::channel();
                self.posing.push(Ready { joiner, at, prelude, behind });
                return;
            }
            (None, History::None) => at,
        };
        let remembered =
            from.epoch == Some(self.epoch) && from.offset >= self.memory_from() && from.offset <= at.offset;
        if remembered {
            self.recall(&joiner.audience, from.offset, &mut prelude);
            self.enter(joiner, prelude, from.position()).await;
        } else {
            self.read_history(joiner, from, prelude).await;
        }
    }

    /// A task of its own reads the log for this joiner.
    async fn read_history(&mut self, joiner: Joiner, from: Seen, prelude: Vec<u8>) {
        self.catching_up.insert(joiner.sink.who());
        if let Sink::Row(row) = joiner.sink {
            let post = Post::Enter {
                row,
                link: Arc::clone(&self.antechamber),
                bytes: Bytes::new(),
                from: from.position(),
                reaches: None,
            };
            self.hub.cores.core(row.core as usize).post(post).await;
        } else {
            self.seat(&joiner.sink);
        }
        let run = CatchUp {
            hub: Arc::clone(&self.hub),
            key: self.key.clone(),
            handle: Arc::clone(&self.handle),
            scene: self.scene(),
        };
        let drain = self.hub.tasks.drain();
        drop(self.hub.tasks.spawn_background("history", async move {
            tokio::select! {
                () = run.run(joiner, from, prelude) => (),
                () = drain.finished() => (),
            }
        }));
    }

    /// This feed hears when the outbox takes no more.
    fn seat(&self, sink: &Sink) {
        if let Sink::Outbox(member, outbox) = sink {
            let (inbox, member) = (Arc::clone(&self.handle.inbox), *member);
            outbox.when_broken(Box::new(move || inbox.left(None, Who::Outbox(member))));
        }
    }

    /// Appends what is remembered after `from`, as the audience sees it.
    fn recall(&mut self, audience: &Audience, from: Offset, out: &mut Vec<u8>) {
        let at = self.follower.at().offset;
        if from == at {
            return;
        }
        if let Some((of, since, until, bytes)) = &self.recalled
            && (*of, *since, *until) == (*audience, from, at)
        {
            out.extend_from_slice(bytes);
            return;
        }
        let scene = self.scene();
        let mut bytes = Vec::new();
        for entry in self.memory.iter().filter(|entry| entry.offset > from) {
            view::put(entry, &scene, audience, &mut bytes);
        }
        out.extend_from_slice(&bytes);
        self.recalled = Some((*audience, from, at, bytes.into()));
    }

    /// Back from reading history: a member, ahead of this feed, or sent back to read what it missed.
    async fn admit_ready(&mut self, mut ready: Ready) {
        let at = self.follower.at();
        if ready.at.epoch != Some(self.epoch) || ready.at.offset < self.memory_from() {
            let behind = std::mem::replace(&mut ready.behind, oneshot::channel().0);
            let _ = behind.send(Box::new(ready));
        } else if ready.at.offset > at.offset {
            self.follower.missed();
            self.ahead.push(ready);
        } else if ready.joiner.history == History::Snapshot && ready.joiner.since.is_some() {
            // It was told of a gap and gets the whole picture.
            self.posing.push(ready);
        } else {
            let Ready { joiner, at, mut prelude, .. } = ready;
            self.recall(&joiner.audience, at.offset, &mut prelude);
            self.enter(joiner, prelude, at.position()).await;
        }
    }

    /// From here on the joiner is a member: everything up to this feed's position is in `prelude` or was written before.
    async fn enter(&mut self, joiner: Joiner, prelude: Vec<u8>, from: Option<Position>) {
        let position = self.position();
        let bytes = Bytes::from(prelude);
        let Joiner { sink, audience, speaker, reply, .. } = joiner;
        let ended = self.ended && audience.listens;
        self.seat(&sink);
        let group = self.group(audience);
        match sink {
            Sink::Row(row) => {
                group.rows[row.core as usize] += 1;
                let link = Arc::clone(&group.link);
                let core = self.hub.cores.core(row.core as usize);
                core.post(Post::Enter { row, link, bytes, from, reaches: Some(position) }).await;
            }
            Sink::Outbox(member, outbox) => {
                group.outboxes.insert(member, Seat { outbox: outbox.clone(), speaker });
                self.catching_up.remove(&Who::Outbox(member));
                outbox.offer(bytes, Class::Durable { reaches: position });
            }
        }
        if let Some(reply) = reply {
            let _ = reply.send(Ok(()));
        }
        if ended {
            self.close_listeners().await;
        }
    }

    /// Joiners that waited for something that is here.
    async fn settle(&mut self) {
        if self.follower.is_behind() {
            return;
        }
        for ready in std::mem::take(&mut self.ahead) {
            self.admit_ready(ready).await;
        }
        if self.posing.is_empty() {
            return;
        }
        self.picture_asked = Some(Instant::now());
        let Some(picture) = &self.picture else {
            if !self.picture_coming {
                self.picture_coming = true;
                let run = paint(Arc::clone(&self.hub), self.key.clone(), Arc::clone(&self.handle));
                let drain = self.hub.tasks.drain();
                drop(self.hub.tasks.spawn_background("snapshot", async move {
                    tokio::select! {
                        () = run => (),
                        () = drain.finished() => (),
                    }
                }));
            }
            return;
        };
        let position = self.position();
        let mut rendered: HashMap<Audience, Bytes> = HashMap::new();
        let mut posed = Vec::new();
        for mut ready in std::mem::take(&mut self.posing) {
            let frame = rendered.entry(ready.joiner.audience).or_insert_with_key(|audience| {
                let partials = self.speaking.values().filter_map(|utterance| utterance.newest.as_ref());
                let limit = self.hub.config.snapshot_messages.get();
                picture.render(self.key.conversation, position, audience, partials, limit)
            });
            ready.prelude.extend_from_slice(frame);
            posed.push(ready);
        }
        for Ready { joiner, prelude, .. } in posed {
            self.enter(joiner, prelude, None).await;
        }
    }

    /// Brings a picture to this feed's position out of memory; false when it is too old for that.
    fn remember(&self, picture: &mut Picture) -> bool {
        let at = self.follower.at();
        let Some(seen) = picture.at else { return false };
        if seen.epoch != Some(self.epoch) || seen.offset < self.memory_from() || seen.offset > at.offset {
            return false;
        }
        for entry in self.memory.iter().filter(|entry| entry.offset > seen.offset) {
            picture.apply(entry, Seen { epoch: Some(self.epoch), offset: entry.offset, check: Some(entry.check) });
        }
        true
    }

    /// This feed cannot go on.
    async fn fail(&mut self, error: &JoinError) {
        let shutting_down = matches!(error, JoinError::ShuttingDown);
        let (code, reason) =
            if shutting_down { (CloseCode::Return, "") } else { (CloseCode::Normal, "the conversation was deleted") };
        let mut last = Vec::new();
        if !shutting_down {
            frame::put_text(&wire::error(ErrorCode::InvalidRequest, &error.to_string(), None), &mut last);
        }
        let error_frame = Bytes::from(last);
        let close = Bytes::from([&error_frame[..], &frame::close(code, reason)].concat());
        let waiting = std::mem::take(&mut self.posing).into_iter().chain(std::mem::take(&mut self.ahead));
        let waiting: Vec<_> = waiting.map(|ready| ready.joiner).collect();
        for joiner in self.hub.fail_feed(&self.key, &self.handle).into_iter().chain(waiting) {
            match joiner.sink {
                Sink::Row(row) => {
                    let post = Post::CloseRow { row, last: close.clone(), reason: "failed" };
                    self.hub.cores.core(row.core as usize).post(post).await;
                }
                Sink::Outbox(_, outbox) => match joiner.reply {
                    Some(reply) => drop(reply.send(Err(error.clone()))),
                    None => outbox.close_with(error_frame.clone(), code, reason),
                },
            }
        }
        for group in self.groups.values() {
            for Seat { outbox, .. } in group.outboxes.values() {
                outbox.close_with(error_frame.clone(), code, reason);
            }
            for core in self.hub.cores.iter() {
                let post = Post::CloseGroup { group: group.link.id, last: close.clone(), reason: "failed" };
                core.post(post).await;
            }
        }
    }
}

async fn next(subscription: &mut Option<Subscription>) -> Option<Delivery> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => std::future::pending().await,
    }
}

/// Reads history for one joiner, at the pace of its socket.
struct CatchUp {
    hub: Arc<Inner>,
    key: ConversationKey,
    handle: Arc<FeedHandle>,
    scene: Scene,
}

impl CatchUp {
    async fn run(mut self, mut joiner: Joiner, mut at: Seen, mut prelude: Vec<u8>) {
        let Ok(_turn) = Arc::clone(&self.hub.catchups).acquire_owned().await else { return };
        let _reading = metrics::catching_up();
        let mut retry = RETRY.0;
        loop {
            match self.hub.bus.read(&self.key, at, PAGE).await {
                // A position nothing has reached: whatever it was, it is not on this log.
                Ok(Read::Page(page)) if page.top.offset < at.offset => {
                    metrics::gap_told(wire::Gap::Lost.name());
                    self.scene.epoch = page.epoch;
                    let to = self.scene.position(page.top.offset);
                    let from = at.position().unwrap_or(to);
                    frame::put_text(&wire::gap(from, to, wire::Gap::Lost), &mut prelude);
                    at = Seen { epoch: Some(page.epoch), ..page.top };
                }
                Ok(Read::Gap { reason, resume }) => {
                    let reason = gap_reason(reason, &resume);
                    let to = resume.position().unwrap_or(self.scene.position(resume.offset));
                    let from = at.position().unwrap_or(to);
                    metrics::gap_told(reason.name());
                    frame::put_text(&wire::gap(from, to, reason), &mut prelude);
                    // Behind a branch, or in another conversation, all that follows is there to be read. What is too old
                    // is shown as a picture.
                    if matches!(reason, wire::Gap::Retention | wire::Gap::Lost) {
                        joiner.history = History::Snapshot;
                    }
                    joiner.since = joiner.since.or(Some(from));
                    at = resume;
                    self.scene.epoch = resume.epoch.unwrap_or(self.scene.epoch);
                }
                Ok(Read::Page(page)) => {
                    retry = RETRY.0;
                    self.scene.epoch = page.epoch;
                    at.epoch = Some(page.epoch);
                    let nothing = page.entries.is_empty();
                    for entry in &page.entries {
                        let from = at.position();
                        view::put(entry, &self.scene, &joiner.audience, &mut prelude);
                        at = Seen { epoch: Some(page.epoch), offset: entry.offset, check: Some(entry.check) };
                        if prelude.len() >= PIECE && !self.write(&joiner.sink, &mut prelude, from, at).await {
                            return;
                        }
                    }
                    if nothing || at.offset >= page.top.offset {
                        let (behind, back) = oneshot::channel();
                        self.handle.inbox.ready(Ready { joiner, at, prelude, behind });
                        // Admitted when the way back is gone.
                        let Ok(ready) = back.await else { return };
                        let Ready { joiner: again, prelude: unwritten, .. } = *ready;
                        (joiner, prelude) = (again, unwritten);
                        if nothing {
                            sleep(retry).await;
                            retry = (retry * 2).min(RETRY.1);
                        }
                    }
                }
                Err(error) if error.is_transient() => {
                    tracing::debug!(key = %self.key, %error, "history cannot be read yet");
                    sleep(retry).await;
                    retry = (retry * 2).min(RETRY.1);
                }
                Err(_) => return self.refuse(joiner).await,
            }
        }
    }

    /// Hands a page to the socket and waits until it is on its way; false when the socket is gone.
    async fn write(&self, sink: &Sink, bytes: &mut Vec<u8>, from: Option<Position>, at: Seen) -> bool {
        let bytes = Bytes::from(std::mem::take(bytes));
        match sink {
            Sink::Row(row) => {
                let (written, gone) = oneshot::channel();
                let post = Post::Page { row: *row, bytes, from, reaches: at.position(), written };
                self.hub.cores.core(row.core as usize).post(post).await;
                gone.await.is_ok()
            }
            Sink::Outbox(_, outbox) => {
                let reaches = at.position().unwrap_or(self.scene.position(at.offset));
                outbox.offer(bytes, Class::Durable { reaches });
                outbox.room(PIECE).await
            }
        }
    }

    async fn refuse(&self, joiner: Joiner) {
        let gone = "the conversation was deleted";
        match joiner.sink {
            Sink::Row(row) => {
                let post = Post::CloseRow { row, last: frame::close(CloseCode::Normal, gone), reason: "failed" };
                self.hub.cores.core(row.core as usize).post(post).await;
            }
            Sink::Outbox(_, outbox) => outbox.close(CloseCode::Normal, gone),
        }
    }
}

/// Folds the whole log into a picture for the feed.
async fn paint(hub: Arc<Inner>, key: ConversationKey, handle: Arc<FeedHandle>) {
    let mut picture = Picture::default();
    let mut at = Seen::NOTHING;
    let mut retry = RETRY.0;
    loop {
        match hub.bus.read(&key, at, PAGE).await {
            Ok(Read::Gap { resume, .. }) if resume != at => at = resume,
            Ok(Read::Page(page)) => {
                at.epoch = Some(page.epoch);
                for entry in &page.entries {
                    at = Seen { epoch: Some(page.epoch), offset: entry.offset, check: Some(entry.check) };
                    picture.apply(entry, at);
                }
                if page.entries.is_empty() || at.offset >= page.top.offset {
                    picture.at = Some(at);
                    handle.inbox.picture(picture);
                    return;
                }
            }
            Err(error) if error.is_transient() => {
                sleep(retry).await;
                retry = (retry * 2).min(RETRY.1);
            }
            Ok(Read::Gap { .. }) | Err(_) => {
                handle.inbox.picture(picture);
                return;
            }
        }
    }
}
