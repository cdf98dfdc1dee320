//! The conversation log of one process: what `hearsay dev` runs on, and the model that every other bus is held against.
//!
//! One small lock a conversation and one over the names; neither is held across an await. Cost: an entry is its event
//! plus about 100 bytes; a subscription is a bounded channel of references. A dropped subscription closes its channel, which
//! the next announcement notices. Asking what is due looks at one number a conversation.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, ready};
use hearsay_protocol::{
    AccountId, ConversationId, ConversationKey, Epoch, Event, EventId, GatewayId, Generation, MeetingKey, Offset,
    Position, PublisherId, Restart, Seen, Timestamp,
    event::{Class, Ephemeral, Started},
};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    Batch, Body, Bus, Claim, Delivery, Entry, Error, GapReason, Lease, Limits, Meta, Opened, Page, Proposal, Published,
    Read, Refusal, State, Subscription, Tail, Ticked, VISITS, Watch,
    clock::{Clock, Random, SystemClock},
    errand::{self, Book, Errands, Taken},
    lifecycle::{AnalystProgress, Life, added_id},
    metrics,
    subscription::Subscriber,
};

/// Old positions kept to answer duplicates, per publisher.
const REMEMBERED: usize = 64;
/// Conversations a watcher may lag behind; after that its watch ends.
const WATCH_CAPACITY: usize = 16;
/// Branches remembered; a position of an older epoch is [`GapReason::Lost`].
const BRANCHES: usize = 64;
/// Generations a claim may skip, and skips after a branch: above any that a lost history gave.
const SKIPPED: u64 = 1 << 16;
const SKIPPED_BY_BRANCH: u64 = 1 << 32;

/// See the module. Cheap to clone; clones are the same log.
#[derive(Clone)]
pub struct MemoryBus {
    inner: Arc<Inner>,
}

struct Inner {
    limits: Limits,
    clock: Arc<dyn Clock>,
    random: Random,
    names: Mutex<Names>,
    errands: Mutex<Book>,
}

#[derive(Default)]
struct Names {
    conversations: HashMap<ConversationKey, Arc<Conversation>>,
    by_id: HashMap<(AccountId, ConversationId), ConversationKey>,
    open: HashMap<MeetingKey, ConversationKey>,
    watchers: HashMap<MeetingKey, Vec<mpsc::Sender<ConversationKey>>>,
    /// By user, latest last. As many users as took part in what is held.
    visits: HashMap<(AccountId, String), VecDeque<ConversationKey>>,
}

struct Conversation {
    /// When it next wants a tick, µs; `u64::MAX`: never. Read without the lock.
    next: AtomicU64,
    log: Mutex<Log>,
}

/// Everything of one conversation that a failover could roll back, and who listens to it.
struct Log {
    key: ConversationKey,
    title: String,
    started: Timestamp,
    history: History,
    subscribers: Vec<Subscriber>,
}

#[derive(Clone)]
struct History {
    epoch: Epoch,
    /// How often history branched.
    branched: u64,
    /// Older epochs and the offset up to which each agrees with its successor.
    branches: VecDeque<(Epoch, Offset)>,
    /// Contiguous from offset 1.
    entries: Vec<Entry>,
    /// The entries are gone: only this much is known of them.
    dropped: Option<Seen>,
    sequences: [u64; Class::COUNT],
    publishers: BTreeMap<PublisherId, Publisher>,
    life: Life,
    record: Option<Bytes>,
}

#[derive(Clone)]
struct Publisher {
    generation: Generation,
    /// [`History::branched`] at the claim.
    branched: u64,
    watermark: u64,
    restart: Option<Restart>,
    origin: Timestamp,
    /// Of leased publishers.
    until: Timestamp,
    /// Where the last event of recent batches stands, by what they reached.
    recent: VecDeque<(u64, Position)>,
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new(Limits::default(), Arc::new(SystemClock::default()))
    }
}

impl MemoryBus {
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        metrics::describe();
        let seed = RandomState::new().hash_one(clock.now());
        Self {
            inner: Arc::new(Inner {
                limits,
                clock,
                random: Random::new(seed),
                names: Mutex::default(),
                errands: Mutex::default(),
            }),
        }
    }

    /// For tests: remembers a conversation as it is, as a replica would that lags from here on.
    pub fn replica(&self, key: &ConversationKey) -> Option<Replica> {
        let conversation = self.inner.conversation(key)?;
        let log = conversation.lock();
        Some(Replica { key: key.clone(), history: log.history.clone() })
    }

    /// For tests: the conversation's primary is lost and the replica takes its place. Nobody is told.
    pub fn fail_over(&self, replica: Replica) {
        if let Some(conversation) = self.inner.conversation(&replica.key) {
            let mut log = conversation.lock();
            log.history = replica.history;
            conversation.schedule(&log, &self.inner.limits);
        }
    }

    /// For tests: the same by a server that knows that it is another one, as on Redis: history branches at once, whether or
    /// not something was lost.
    pub fn move_to(&self, replica: Replica) {
        if let Some(conversation) = self.inner.conversation(&replica.key) {
            let mut log = conversation.lock();
            log.history = replica.history;
            let top = log.history.top().offset;
            log.history.branch(top, &self.inner.random);
            conversation.schedule(&log, &self.inner.limits);
        }
    }

    /// For tests: ends every subscription of the conversation, as a lost connection would.
    pub fn cut_subscriptions(&self, key: &ConversationKey) {
        if let Some(conversation) = self.inner.conversation(key) {
            conversation.lock().subscribers.clear();
        }
    }
}

impl Names {
    /// The meeting's open or lingering conversation.
    fn live(&self, meeting: &MeetingKey) -> Option<Meta> {
        let log = self.conversations.get(self.open.get(meeting)?)?.lock();
        log.history.life.is_live().then(|| log.meta())
    }
}

impl Names {
    /// Records of long ago make room for what is said now: one in a hundred of those that only wait for their retention.
    fn forget_oldest(&mut self, book: &mut Book) {
        let mut over: Vec<(Timestamp, ConversationKey)> = self
            .conversations
            .iter()
            .filter_map(|(key, found)| {
                let log = found.lock();
                let kept = log.history.dropped.is_some();
                log.history.life.ended().filter(|_| kept).map(|ended| (ended, key.clone()))
            })
            .collect();
        over.sort_unstable_by_key(|(ended, _)| *ended);
        for (_, key) in over.iter().take(over.len().div_ceil(100)) {
            self.conversations.remove(key);
            self.by_id.remove(&(key.meeting.account.clone(), key.conversation));
            book.forget(key);
        }
        self.forget_visits();
        tracing::warn!(forgotten = over.len().div_ceil(100), "the log is full: the oldest records are forgotten");
    }

    /// Of conversations that are not held any more.
    fn forget_visits(&mut self) {
        let held = &self.conversations;
        self.visits.retain(|_, visits| {
            visits.retain(|key| held.contains_key(key));
            !visits.is_empty()
        });
    }
}

/// Forgets a watcher that went: strangers choose the names of meetings, so none may remain.
struct Unwatch {
    inner: Weak<Inner>,
    meeting: MeetingKey,
}

impl Drop for Unwatch {
    fn drop(&mut self) {
        let Some(inner) = self.inner.upgrade() else { return };
        let mut names = inner.names();
        if let Some(watchers) = names.watchers.get_mut(&self.meeting) {
            watchers.retain(|watcher| !watcher.is_closed());
            if watchers.is_empty() {
                names.watchers.remove(&self.meeting);
            }
        }
    }
}

/// A lagging copy of one conversation.
pub struct Replica {
    key: ConversationKey,
    history: History,
}

impl Inner {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.errands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn conversation(&self, key: &ConversationKey) -> Option<Arc<Conversation>> {
        self.names().conversations.get(key).cloned()
    }

    /// The conversation and the time, or [`Refusal::Gone`].
    fn with<T>(
        &self,
        key: &ConversationKey,
        then: impl FnOnce(&Conversation, &mut Log, Timestamp) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let conversation = self.conversation(key).ok_or(Refusal::Gone)?;
        let mut log = conversation.lock();
        let now = self.clock.now();
        let result = then(&conversation, &mut log, now);
        conversation.schedule(&log, &self.limits);
        let closed = !log.history.life.is_live();
        drop(log);
        if closed {
            let mut names = self.names();
            if names.open.get(&key.meeting) == Some(key) {
                names.open.remove(&key.meeting);
            }
        }
        result
    }
}

impl Conversation {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn schedule(&self, log: &Log, limits: &Limits) {
        let next = log.history.life.next(limits).map_or(u64::MAX, Timestamp::micros);
        self.next.store(next, Ordering::Relaxed);
    }
}

impl History {
    fn top(&self) -> Seen {
        if let Some(dropped) = self.dropped {
            return Seen { epoch: Some(self.epoch), ..dropped };
        }
        let last = self.entries.last();
        Seen {
            epoch: Some(self.epoch),
            offset: last.map_or(Offset::START, |entry| entry.offset),
            check: last.map(|entry| entry.check),
        }
    }

    fn entry(&self, offset: Offset) -> Option<&Entry> {
        let index = usize::try_from(offset.0.checked_sub(1)?).ok()?;
        self.entries.get(index)
    }

    /// What a live analyst has read; none when none lives.
    fn analyst(&self, now: Timestamp) -> Option<AnalystProgress> {
        let analyst = self.publishers.get(&PublisherId::Analyst)?;
        (analyst.until > now).then_some(AnalystProgress { read: Offset(analyst.watermark) })
    }

    /// Up to where the epoch agrees with the present one; none for an epoch that is not known.
    fn agrees(&self, epoch: Epoch) -> Option<Offset> {
        if epoch == self.epoch {
            return Some(Offset(u64::MAX));
        }
        let at = self.branches.iter().position(|&(old, _)| old == epoch)?;
        // A later branch may have cut deeper.
        self.branches.range(at..).map(|&(_, offset)| offset).min()
    }

    /// The entry that was seen stands there.
    fn holds(&self, offset: Offset, check: u64) -> bool {
        self.entry(offset).is_some_and(|entry| entry.check == check)
    }

    fn branch(&mut self, agreed: Offset, random: &Random) {
        if self.branches.len() == BRANCHES {
            self.branches.pop_front();
        }
        self.branches.push_back((self.epoch, agreed));
        self.branched += 1;
        self.epoch = loop {
            let epoch = Epoch(random.next() as u32);
            if self.agrees(epoch).is_none() {
                break epoch;
            }
        };
    }
}

impl Log {
    fn announce(&mut self, delivery: &Delivery) {
        self.subscribers.retain_mut(|subscriber| subscriber.offer(delivery));
    }

    /// Branches when `seen` shows that history was lost. Only who knows an entry's check can show it: a client's position
    /// says nothing about the log.
    fn notice(&mut self, seen: Seen, random: &Random) {
        let history = &mut self.history;
        let (Some(epoch), Some(check)) = (seen.epoch, seen.check) else { return };
        if history.dropped.is_some() || seen.offset == Offset::START {
            return;
        }
        let top = history.top().offset;
        let below = Offset(seen.offset.0 - 1).min(top);
        match history.agrees(epoch) {
            Some(agreed) if seen.offset > agreed || history.holds(seen.offset, check) => return,
            // The histories parted earlier than was known.
            Some(_) if epoch != history.epoch => {
                if let Some((_, agreed)) = history.branches.iter_mut().find(|(old, _)| *old == epoch) {
                    *agreed = below;
                }
                return;
            }
            // Another entry stands where `seen` was, or none: the histories agree below it at most.
            Some(_) => history.branch(below, random),
            // The epoch itself was lost.
            None => history.branch(top, random),
        }
        tracing::warn!(conversation = %self.key, seen = seen.offset.0, top = top.0, "history was lost: a new epoch begins");
        metrics::branched();
        self.announce(&Delivery::Changed);
    }

    fn append(
        &mut self,
        publisher: &PublisherId,
        through: u64,
        by: By,
        events: Vec<Event>,
        now: Timestamp,
        random: &Random,
    ) -> Vec<Entry> {
        let history = &mut self.history;
        let mut appended = Vec::with_capacity(events.len());
        for (index, event) in events.into_iter().enumerate() {
            let sequence = &mut history.sequences[event.class().index()];
            let id = match (&event, by) {
                (Event::Insight(insight), _) => EventId::of_revision(insight.id, insight.revision),
                (event, By::Log) => added_id(publisher, through, event),
                (_, By::Publisher) => EventId::of_input(publisher, through, index),
            };
            let offset = Offset(history.entries.len() as u64 + 1);
            let entry = Entry {
                offset,
                check: random.next(),
                at: now,
                id,
                sequence: *sequence,
                publisher: publisher.clone(),
                body: Body::Event(event),
            };
            if let Body::Event(event) = &entry.body {
                metrics::appended(event);
            }
            *sequence += 1;
            history.entries.push(entry.clone());
            appended.push(entry);
        }
        appended
    }

    fn announce_entries(&mut self, entries: Vec<Entry>) {
        if !entries.is_empty() {
            let epoch = self.history.epoch;
            self.announce(&Delivery::Appended { epoch, entries: entries.into() });
        }
    }

    fn meta(&self) -> Meta {
        Meta {
            key: self.key.clone(),
            state: self.history.life.state(),
            title: self.title.clone(),
            started: self.started,
            top: self.history.top(),
            streams: self.history.life.streams(),
        }
    }

    /// Refuses what this state takes from this publisher no more.
    fn admits(&self, publisher: &PublisherId) -> Result<(), Refusal> {
        let late = matches!(publisher, PublisherId::Analyst | PublisherId::Actions | PublisherId::Rest(_));
        match self.history.life.state() {
            State::Open | State::Lingering => Ok(()),
            State::Ended if late => Ok(()),
            State::Ended | State::Compacted => Err(Refusal::Ended),
            State::Deleted => Err(Refusal::Gone),
        }
    }

    /// Refuses a publisher that is not the present holder of its place.
    fn check_generation(&self, publisher: &PublisherId, generation: Generation) -> Result<(), Refusal> {
        let Some(holder) = self.history.publishers.get(publisher) else {
            // Claimed in a history that was lost, or never.
            return Err(if self.history.branched == 0 && generation == Generation(0) {
                Refusal::Invalid(format!("{publisher} has not claimed its place"))
            } else {
                Refusal::Reclaim
            });
        };
        if generation < holder.generation {
            // Whatever was lost, the history that is left knows of a successor.
            return Err(Refusal::Fenced { current: holder.generation });
        }
        if generation > holder.generation || holder.branched < self.history.branched {
            return Err(Refusal::Reclaim);
        }
        Ok(())
    }

    fn publish(
        &mut self,
        batch: Batch,
        now: Timestamp,
        limits: &Limits,
        random: &Random,
    ) -> Result<Published, Refusal> {
        self.admits(&batch.publisher)?;
        self.notice(batch.seen, random);
        self.check_generation(&batch.publisher, batch.generation)?;
        if batch.publisher == PublisherId::Clock {
            return Err(Refusal::Invalid("only the log itself publishes as clock".to_owned()));
        }
        if batch.from > batch.through || (batch.from == batch.through && !batch.events.is_empty()) {
            return Err(Refusal::Invalid(format!(
                "range {}..{} with {} events; events take a range of their own",
                batch.from,
                batch.through,
                batch.events.len()
            )));
        }
        if batch.restart.as_ref().is_some_and(|restart| restart.headers.len() > Restart::MAX_HEADERS) {
            return Err(Refusal::Invalid(format!("codec headers are over {} bytes", Restart::MAX_HEADERS)));
        }
        let top = self.history.top();
        let position = |offset| Position { epoch: self.history.epoch, offset };
        let holder = &self.history.publishers[&batch.publisher];
        let watermark = holder.watermark;
        if batch.through <= watermark {
            metrics::duplicate();
            let old = holder.recent.iter().find(|(through, _)| *through >= batch.through);
            return Ok(Published {
                duplicate: true,
                position: old.map_or(position(top.offset), |&(_, position)| position),
                watermark,
                top,
            });
        }
        if batch.from < watermark {
            return Err(Refusal::Overlap { watermark });
        }
        if batch.from > watermark {
            return Err(Refusal::Hole { watermark });
        }
        // What lets a full conversation end is still accepted: there are few of these.
        let closing = batch.events.iter().all(|event| matches!(event, Event::StreamEnded(_)));
        if !closing && self.history.entries.len() + batch.events.len() > limits.max_entries {
            return Err(Refusal::Full { what: "the conversation has as many events as one may have" });
        }
        Ok(self.take(batch, now, limits, random))
    }

    /// Appends a batch that was checked, and what the lifecycle adds to it.
    fn take(&mut self, batch: Batch, now: Timestamp, limits: &Limits, random: &Random) -> Published {
        let Batch { publisher, through, events, restart, .. } = batch;
        if !events.is_empty() && matches!(publisher, PublisherId::Stream(_)) {
            self.history.life.heard(now);
        }
        let streams: Vec<Event> = events
            .iter()
            .filter(|event| matches!(event, Event::StreamStarted(_) | Event::StreamEnded(_)))
            .cloned()
            .collect();
        let mut entries = self.append(&publisher, through, By::Publisher, events, now, random);
        let last = self.history.top().offset;
        let analyst = self.history.analyst(now);
        let added = self.history.life.appended(&streams, last, analyst, now, limits);
        entries.extend(self.append(&publisher, through, By::Log, added, now, random));
        let position = Position { epoch: self.history.epoch, offset: last };
        if let Some(holder) = self.history.publishers.get_mut(&publisher) {
            holder.watermark = through;
            holder.restart = restart.or(holder.restart.take());
            holder.until = now + limits.publisher_lease;
            holder.recent.push_back((through, position));
            if holder.recent.len() > REMEMBERED {
                holder.recent.pop_front();
            }
        }
        if publisher == PublisherId::Analyst {
            let added = self.history.life.analyst_read(AnalystProgress { read: Offset(through) }, now);
            entries.extend(self.append(&publisher, through, By::Log, added, now, random));
        }
        self.announce_entries(entries);
        Published { duplicate: false, position, watermark: through, top: self.history.top() }
    }

    fn read(&mut self, after: Seen, max: usize, random: &Random) -> Read {
        self.notice(after, random);
        let history = &self.history;
        let top = history.top();
        if let Some(epoch) = after.epoch
            && epoch != history.epoch
        {
            let Some(agreed) = history.agrees(epoch) else {
                let resume = Seen { epoch: Some(history.epoch), offset: Offset::START, check: None };
                return Read::Gap { reason: GapReason::Lost, resume };
            };
            if after.offset > agreed {
                let check = history.entry(agreed).map(|entry| entry.check);
                let resume = Seen { epoch: Some(history.epoch), offset: agreed, check };
                return Read::Gap { reason: GapReason::Branch, resume };
            }
        } else if after.offset > top.offset {
            return Read::Gap { reason: GapReason::Lost, resume: top };
        }
        if history.dropped.is_some() && after.offset < top.offset {
            return Read::Gap { reason: GapReason::Retention, resume: top };
        }
        let from = after.offset.min(top.offset);
        let entries = if history.dropped.is_some() {
            Vec::new()
        } else {
            let start = usize::try_from(from.0).unwrap_or(usize::MAX).min(history.entries.len());
            history.entries[start..].iter().take(max.max(1)).cloned().collect()
        };
        Read::Page(Page { epoch: history.epoch, entries, top })
    }

    fn tick(&mut self, now: Timestamp, limits: &Limits, random: &Random) {
        let analyst = self.history.analyst(now);
        let top = self.history.top().offset;
        let events = self.history.life.tick(top, analyst, now, limits);
        if !events.is_empty() {
            self.append_by_clock(events, now, random);
        }
        let ended = self.history.life.ended();
        if !self.history.life.is_live()
            && self.history.dropped.is_none()
            && ended.is_some_and(|ended| ended + limits.log_retention <= now)
        {
            self.history.life.compacted();
            self.drop_entries();
        }
    }

    /// Named by where they stand: two ticks never append the same.
    fn append_by_clock(&mut self, events: Vec<Event>, now: Timestamp, random: &Random) {
        let through = self.history.top().offset.0 + 1;
        let entries = self.append(&PublisherId::Clock, through, By::Log, events, now, random);
        self.announce_entries(entries);
    }

    fn drop_entries(&mut self) {
        self.history.dropped = Some(self.history.top());
        self.history.entries = Vec::new();
        // Nobody publishes any more.
        self.history.publishers = BTreeMap::new();
        self.announce(&Delivery::Changed);
    }
}

/// Who asks for an event, which decides its id.
#[derive(Clone, Copy)]
enum By {
    Publisher,
    Log,
}

/// The calls of one process need no waiting: each future is ready.
fn done<'a, T: Send + 'a>(result: Result<T, Error>) -> BoxFuture<'a, Result<T, Error>> {
    Box::pin(ready(result))
}

impl Bus for MemoryBus {
    fn now(&self) -> BoxFuture<'_, Result<Timestamp, Error>> {
        done(Ok(self.inner.clock.now()))
    }

    fn open<'a>(&'a self, meeting: &'a MeetingKey, proposal: Proposal) -> BoxFuture<'a, Result<Opened, Error>> {
        let inner = &self.inner;
        let mut names = inner.names();
        if let Some(meta) = names.live(meeting) {
            return done(Ok(Opened { key: meta.key.clone(), created: false, meta }));
        }
        if names.conversations.len() >= inner.limits.max_conversations {
            names.forget_oldest(&mut inner.book());
        }
        if names.conversations.len() >= inner.limits.max_conversations {
            return done(Err(Refusal::Full { what: "as many conversations are held as may be" }.into()));
        }
        let key = ConversationKey { meeting: meeting.clone(), conversation: proposal.conversation };
        if names.by_id.contains_key(&(meeting.account.clone(), proposal.conversation)) {
            return done(
                Err(Refusal::Invalid(format!("conversation {} exists already", proposal.conversation)).into()),
            );
        }
        let now = inner.clock.now();
        let mut log = Log {
            key: key.clone(),
            title: proposal.title.clone(),
            started: now,
            history: History {
                epoch: proposal.epoch,
                branched: 0,
                branches: VecDeque::new(),
                entries: Vec::new(),
                dropped: None,
                sequences: [0; Class::COUNT],
                publishers: BTreeMap::new(),
                life: Life::new(now, &inner.limits),
                record: None,
            },
            subscribers: Vec::new(),
        };
        let started = Event::Started(Started { at: now, title: proposal.title });
        log.append(&PublisherId::Clock, 1, By::Log, vec![started], now, &inner.random);
        let meta = log.meta();
        let conversation = Conversation { next: AtomicU64::new(u64::MAX), log: Mutex::new(log) };
        conversation.schedule(&conversation.lock(), &inner.limits);
        names.conversations.insert(key.clone(), Arc::new(conversation));
        metrics::conversations(names.conversations.len());
        names.by_id.insert((meeting.account.clone(), proposal.conversation), key.clone());
        names.open.insert(meeting.clone(), key.clone());
        if inner.limits.followed {
            let what = now.micros().to_string().into();
            // Nothing else is known of it yet, so there is room.
            let _ = inner.book().put(&key, errand::FOLLOW, what, now + errand::FOLLOW_AFTER, usize::MAX);
        }
        if let Some(watchers) = names.watchers.get_mut(meeting) {
            // Who lags behind hears that the watch ended, and asks anew.
            watchers.retain(|watcher| watcher.try_send(key.clone()).is_ok());
            if watchers.is_empty() {
                names.watchers.remove(meeting);
            }
        }
        done(Ok(Opened { key, created: true, meta }))
    }

    fn current<'a>(&'a self, meeting: &'a MeetingKey) -> BoxFuture<'a, Result<Option<Meta>, Error>> {
        let names = self.inner.names();
        done(Ok(names.live(meeting)))
    }

    fn watch<'a>(&'a self, meeting: &'a MeetingKey) -> BoxFuture<'a, Result<Watch, Error>> {
        let (opened, receiver) = mpsc::channel(WATCH_CAPACITY);
        let mut names = self.inner.names();
        if let Some(meta) = names.live(meeting) {
            // There is room: the channel is new.
            let _ = opened.try_send(meta.key);
        }
        names.watchers.entry(meeting.clone()).or_default().push(opened);
        let guard = Unwatch { inner: Arc::downgrade(&self.inner), meeting: meeting.clone() };
        done(Ok(Watch::new(receiver, Box::new(guard))))
    }

    fn find<'a>(
        &'a self,
        account: &'a AccountId,
        conversation: ConversationId,
    ) -> BoxFuture<'a, Result<Option<ConversationKey>, Error>> {
        let names = self.inner.names();
        let key = names.by_id.get(&(account.clone(), conversation));
        let live = key.filter(|key| {
            names.conversations.get(key).is_some_and(|found| found.lock().history.life.state() != State::Deleted)
        });
        done(Ok(live.cloned()))
    }

    fn visit<'a>(&'a self, key: &'a ConversationKey, user: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        let mut names = self.inner.names();
        let visits = names.visits.entry((key.meeting.account.clone(), user.to_owned())).or_default();
        visits.retain(|known| known != key);
        if visits.len() >= VISITS {
            visits.pop_front();
        }
        visits.push_back(key.clone());
        done(Ok(()))
    }

    fn visits<'a>(
        &'a self,
        account: &'a AccountId,
        user: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ConversationKey>, Error>> {
        let names = self.inner.names();
        let visits = names.visits.get(&(account.clone(), user.to_owned()));
        done(Ok(visits.map(|visits| visits.iter().rev().cloned().collect()).unwrap_or_default()))
    }

    fn meta<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<Meta, Error>> {
        done(self.inner.with(key, |_, log, _| match log.history.life.state() {
            State::Deleted => Err(Refusal::Gone.into()),
            _ => Ok(log.meta()),
        }))
    }

    fn claim<'a>(
        &'a self,
        key: &'a ConversationKey,
        publisher: &'a PublisherId,
    ) -> BoxFuture<'a, Result<Claim, Error>> {
        let inner = &self.inner;
        let limits = &inner.limits;
        done(self.inner.with(key, |_, log, now| {
            if *publisher == PublisherId::Clock {
                return Err(Refusal::Invalid("clock is not claimed".to_owned()).into());
            }
            log.admits(publisher)?;
            let branched = log.history.branched;
            // Before a branch everybody has to claim anew, so no lease of then keeps anybody out.
            let held = log.history.publishers.get(publisher).filter(|holder| holder.branched == branched);
            if let Some(until) = held.map(|holder| holder.until).filter(|until| publisher.is_leased() && *until > now) {
                return Err(Refusal::Held { until }.into());
            }
            let holder = log.history.publishers.entry(publisher.clone()).or_insert_with(|| Publisher {
                generation: Generation(0),
                branched,
                watermark: 0,
                restart: None,
                origin: now,
                until: now,
                recent: VecDeque::new(),
            });
            // Random, so that claims in a history that was lost and in the one that is left do not meet.
            let skipped = inner.random.next() % SKIPPED + u64::from(branched > 0) * SKIPPED_BY_BRANCH;
            holder.generation = Generation(holder.generation.0 + 1 + skipped);
            holder.branched = branched;
            holder.until = now + limits.publisher_lease;
            let (generation, watermark, restart, origin) =
                (holder.generation, holder.watermark, holder.restart.clone(), holder.origin);
            Ok(Claim { generation, watermark, restart, origin, top: log.history.top() })
        }))
    }

    fn keep<'a>(
        &'a self,
        key: &'a ConversationKey,
        publisher: &'a PublisherId,
        generation: Generation,
    ) -> BoxFuture<'a, Result<(), Error>> {
        let limits = &self.inner.limits;
        done(self.inner.with(key, |_, log, now| {
            log.admits(publisher)?;
            log.check_generation(publisher, generation)?;
            if let Some(holder) = log.history.publishers.get_mut(publisher) {
                holder.until = now + limits.publisher_lease;
            }
            Ok(())
        }))
    }

    fn publish<'a>(&'a self, key: &'a ConversationKey, batch: Batch) -> BoxFuture<'a, Result<Published, Error>> {
        let inner = &self.inner;
        let published = inner.with(key, |_, log, now| Ok(log.publish(batch, now, &inner.limits, &inner.random)?));
        if let Err(Error::Refused(refusal)) = &published {
            metrics::refused(refusal);
        }
        done(published)
    }

    fn announce<'a>(
        &'a self,
        key: &'a ConversationKey,
        publisher: &'a PublisherId,
        generation: Generation,
        ephemerals: Vec<Ephemeral>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        done(self.inner.with(key, |_, log, now| {
            log.admits(publisher)?;
            log.check_generation(publisher, generation)?;
            if matches!(publisher, PublisherId::Stream(_)) && !ephemerals.is_empty() {
                log.history.life.heard(now);
            }
            let follows = Position { epoch: log.history.epoch, offset: log.history.top().offset };
            if !ephemerals.is_empty() {
                log.announce(&Delivery::Ephemeral { follows, ephemerals: ephemerals.into() });
            }
            Ok(())
        }))
    }

    fn subscribe<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<Subscription, Error>> {
        let capacity = self.inner.limits.subscription_capacity.max(2);
        done(self.inner.with(key, |_, log, _| {
            if log.history.life.state() == State::Deleted {
                return Err(Refusal::Gone.into());
            }
            let (deliveries, receiver) = mpsc::channel(capacity);
            log.subscribers.retain(|subscriber| !subscriber.is_gone());
            log.subscribers.push(Subscriber::new(deliveries));
            Ok(Subscription::new(receiver, Box::new(())))
        }))
    }

    fn read<'a>(&'a self, key: &'a ConversationKey, after: Seen, max: usize) -> BoxFuture<'a, Result<Read, Error>> {
        done(self.inner.with(key, |_, log, _| match log.history.life.state() {
            State::Deleted => Err(Refusal::Gone.into()),
            _ => Ok(log.read(after, max, &self.inner.random)),
        }))
    }

    fn renew<'a>(&'a self, gateway: GatewayId, leases: &'a [Lease]) -> BoxFuture<'a, Result<Vec<Tail>, Error>> {
        let tails = leases
            .iter()
            .map(|lease| {
                let renewed = self.inner.with(&lease.key, |_, log, now| {
                    if log.history.life.state() == State::Deleted {
                        return Err(Refusal::Gone.into());
                    }
                    let back = log.history.life.renew(gateway, lease.listeners, now, &self.inner.limits);
                    log.append_by_clock(back, now, &self.inner.random);
                    Ok((log.meta(), log.history.life.listeners(now)))
                });
                let (meta, listeners) = renewed.map_or((None, 0), |(meta, listeners)| (Some(meta), listeners));
                Tail { key: lease.key.clone(), meta, listeners }
            })
            .collect();
        done(Ok(tails))
    }

    fn release<'a>(&'a self, gateway: GatewayId, key: &'a ConversationKey) -> BoxFuture<'a, Result<(), Error>> {
        done(self.inner.with(key, |_, log, _| {
            log.history.life.release(gateway);
            Ok(())
        }))
    }

    fn due(&self, max: usize) -> BoxFuture<'_, Result<Vec<ConversationKey>, Error>> {
        let now = self.inner.clock.now().micros();
        let names = self.inner.names();
        let due = names.conversations.iter().filter(|(_, found)| found.next.load(Ordering::Relaxed) <= now);
        // Any `max` of them, in any order: several visitors do not queue behind one another, and one that cannot be dealt
        // with does not keep the others waiting.
        let mut chosen: Vec<&ConversationKey> = Vec::new();
        for (seen, (key, _)) in due.enumerate() {
            let place = (self.inner.random.next() % (seen as u64 + 1)) as usize;
            if chosen.len() < max {
                chosen.push(key);
                chosen.swap(place, seen);
            } else if place < max {
                chosen[place] = key;
            }
        }
        done(Ok(chosen.into_iter().cloned().collect()))
    }

    fn tick<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<Ticked, Error>> {
        let inner = &self.inner;
        let ticked = inner.with(key, |_, log, now| {
            log.tick(now, &inner.limits, &inner.random);
            let life = &log.history.life;
            let ended = life.ended();
            let compact = life.state() == State::Ended
                && log.history.dropped.is_none()
                && ended.is_some_and(|ended| ended + inner.limits.compact_after <= now);
            let forget = !life.is_live() && ended.is_some_and(|ended| ended + inner.limits.record_retention <= now);
            Ok((Ticked { state: life.state(), next: life.next(&inner.limits), compact }, forget))
        });
        done(ticked.map(|(ticked, forget)| {
            if forget {
                let mut names = inner.names();
                names.conversations.remove(key);
                metrics::conversations(names.conversations.len());
                names.by_id.remove(&(key.meeting.account.clone(), key.conversation));
                names.forget_visits();
                drop(names);
                inner.book().forget(key);
            }
            ticked
        }))
    }

    fn compact<'a>(&'a self, key: &'a ConversationKey, top: Offset, record: Bytes) -> BoxFuture<'a, Result<(), Error>> {
        let limits = &self.inner.limits;
        done(self.inner.with(key, |_, log, now| {
            let ended = log.history.life.ended().filter(|_| log.history.life.state() == State::Ended);
            let due = ended.is_some_and(|ended| ended + limits.compact_after <= now);
            if !due || top != log.history.top().offset {
                return Err(Refusal::Invalid(format!(
                    "a record of {top} entries for a conversation in state {:?} with {} entries",
                    log.history.life.state(),
                    log.history.top().offset
                ))
                .into());
            }
            log.history.record = Some(record);
            log.history.life.compacted();
            log.drop_entries();
            Ok(())
        }))
    }

    fn record<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<Option<Bytes>, Error>> {
        done(self.inner.with(key, |_, log, _| match log.history.life.state() {
            State::Deleted => Err(Refusal::Gone.into()),
            _ => Ok(log.history.record.clone()),
        }))
    }

    fn errands(&self) -> &dyn Errands {
        self
    }

    fn delete<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<(), Error>> {
        done(self.inner.with(key, |_, log, now| {
            if log.history.life.state() == State::Deleted {
                return Err(Refusal::Gone.into());
            }
            log.history.life.deleted(now);
            log.history.record = None;
            log.title = String::new();
            log.drop_entries();
            self.inner.book().forget(key);
            Ok(())
        }))
    }
}

impl Errands for MemoryBus {
    fn put<'a>(
        &'a self,
        key: &'a ConversationKey,
        id: Uuid,
        what: Bytes,
        after: Duration,
        max: usize,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        let due = self.inner.clock.now() + after;
        done(self.inner.book().put(key, id, what, due, max))
    }

    fn get<'a>(&'a self, key: &'a ConversationKey, id: Uuid) -> BoxFuture<'a, Result<Option<Bytes>, Error>> {
        done(Ok(self.inner.book().get(key, id)))
    }

    fn all<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<Vec<(Uuid, Bytes)>, Error>> {
        done(Ok(self.inner.book().all(key)))
    }

    fn swap<'a>(
        &'a self,
        key: &'a ConversationKey,
        id: Uuid,
        old: &'a [u8],
        new: Bytes,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        done(Ok(self.inner.book().swap(key, id, old, new)))
    }

    fn again<'a>(
        &'a self,
        key: &'a ConversationKey,
        id: Uuid,
        after: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        let due = after.map(|after| self.inner.clock.now() + after);
        self.inner.book().again(key, id, due);
        done(Ok(()))
    }

    fn take(&self, max: usize, lease: Duration) -> BoxFuture<'_, Result<Taken, Error>> {
        let now = self.inner.clock.now();
        done(Ok(self.inner.book().take(max, now, lease)))
    }

    fn forget<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<(), Error>> {
        self.inner.book().forget(key);
        done(Ok(()))
    }
}
