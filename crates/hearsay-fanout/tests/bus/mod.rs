//! A log without rules: appends what it is told, and can lose, repeat and refuse on demand.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use hearsay_bus::{
    Batch, Body, Bus, Claim, Delivery, Entry, Error, GapReason, Lease, Meta, Opened, Page, Proposal, Published, Read,
    Refusal, State, Subscription, Tail, Ticked, Watch,
};
use hearsay_protocol::{
    AccountId, ConversationId, ConversationKey, Epoch, Event, EventId, GatewayId, Generation, MeetingId, MeetingKey,
    Offset, ParticipantId, Position, PublisherId, Seen, StreamId, StreamTime, Timestamp, UtteranceId,
    event::{EndReason, Ended, Ephemeral, Final, Partial, Participant, SpokenWord, Started},
};
use tokio::sync::mpsc;
use uuid::Uuid;

#[derive(Default)]
struct Conversation {
    epoch: u32,
    entries: Vec<Entry>,
    ended: bool,
    subscribers: Vec<mpsc::Sender<Delivery>>,
}

#[derive(Default)]
struct Log {
    conversations: HashMap<ConversationKey, Conversation>,
    open: HashMap<MeetingKey, ConversationKey>,
    watchers: Vec<(MeetingKey, mpsc::Sender<ConversationKey>)>,
    /// Announcements to swallow.
    lose: usize,
    broken: bool,
    /// Nothing is announced, and everything can be read.
    deaf: bool,
    released: Vec<ConversationKey>,
}

#[derive(Default)]
pub(crate) struct FakeBus {
    log: Mutex<Log>,
    pub(crate) reads: AtomicUsize,
    pub(crate) subscribes: AtomicUsize,
}

pub(crate) const EPOCH: u32 = 0x0bad_cafe;

pub(crate) fn meeting(name: &str) -> MeetingKey {
    MeetingKey { account: AccountId::dev(), meeting: MeetingId::new(name).unwrap() }
}

pub(crate) fn at(offset: u64) -> Position {
    Position { epoch: Epoch(EPOCH), offset: Offset(offset) }
}

pub(crate) fn ana() -> Arc<Participant> {
    Arc::new(Participant {
        id: ParticipantId(Uuid::from_u128(1)),
        user_id: Some("ana@example.org".to_owned()),
        name: Some("Ana".to_owned()),
        email: None,
    })
}

pub(crate) fn said(number: u128, text: &str) -> Event {
    let words = text.split(' ').enumerate().map(|(index, word)| SpokenWord {
        text: word.to_owned(),
        start: StreamTime(index as u64 * 200_000),
        end: StreamTime(index as u64 * 200_000 + 150_000),
        confidence: 0.9,
    });
    Event::Final(Arc::new(Final {
        sentiment: Vec::new(),
        trace: None,
        stream: StreamId(Uuid::from_u128(5)),
        utterance: UtteranceId(Uuid::from_u128(number)),
        participant: ana(),
        origin: Timestamp(1_898_845_200_000_000),
        start: StreamTime(0),
        end: StreamTime(text.split(' ').count() as u64 * 200_000),
        text: text.to_owned(),
        language: "en-US".to_owned(),
        confidence: 0.9,
        words: words.collect(),
    }))
}

pub(crate) fn saying(number: u128, revision: u32, text: &str) -> Ephemeral {
    Ephemeral::Partial(Arc::new(Partial {
        stream: StreamId(Uuid::from_u128(5)),
        utterance: UtteranceId(Uuid::from_u128(number)),
        revision,
        participant: ana(),
        origin: Timestamp(1_898_845_200_000_000),
        start: StreamTime(0),
        end: StreamTime(1_000),
        text: text.to_owned(),
        stable: 0,
        confidence: 0.5,
    }))
}

impl FakeBus {
    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    /// Opens a conversation of its own under the meeting's name.
    pub(crate) fn start(&self, name: &str) -> ConversationKey {
        let meeting = meeting(name);
        let mut log = self.log();
        let conversation = ConversationId::from_random(log.conversations.len() as u64);
        let key = ConversationKey { meeting: meeting.clone(), conversation };
        let epoch = EPOCH + log.conversations.len() as u32;
        log.conversations.insert(key.clone(), Conversation { epoch, ..Conversation::default() });
        log.open.insert(meeting.clone(), key.clone());
        log.watchers.retain(|(of, watcher)| of != &meeting || watcher.try_send(key.clone()).is_ok());
        drop(log);
        self.append(&key, Event::Started(Started { at: Timestamp(1), title: name.to_owned() }));
        key
    }

    pub(crate) fn append(&self, key: &ConversationKey, event: Event) -> Position {
        self.append_as(key, event, None)
    }

    pub(crate) fn append_as(&self, key: &ConversationKey, event: Event, id: Option<EventId>) -> Position {
        let mut log = self.log();
        let lost = log.lose > 0;
        log.lose = log.lose.saturating_sub(1);
        let ended = matches!(event, Event::Ended(_));
        let log = log.conversations.get_mut(key).unwrap();
        log.ended |= ended;
        let offset = Offset(log.entries.len() as u64 + 1);
        let class = event.class();
        let sequence = log.entries.iter().filter(|entry| matches!(&entry.body, Body::Event(e) if e.class() == class));
        let entry = Entry {
            offset,
            check: offset.0 * 1_000 + u64::from(log.epoch),
            at: Timestamp(offset.0),
            id: id.unwrap_or(EventId(Uuid::from_u128(u128::from(offset.0) << 64 | u128::from(log.epoch)))),
            sequence: sequence.count() as u64,
            publisher: PublisherId::Clock,
            body: Body::Event(event),
        };
        log.entries.push(entry.clone());
        if !lost {
            let delivery = Delivery::Appended { epoch: Epoch(log.epoch), entries: [entry].into() };
            log.tell(&delivery);
        }
        Position { epoch: Epoch(log.epoch), offset }
    }

    pub(crate) fn end(&self, key: &ConversationKey) -> Position {
        let position = self.append(key, Event::Ended(Ended { at: Timestamp(9), reason: EndReason::Stopped }));
        self.log().open.retain(|_, open| open != key);
        position
    }

    pub(crate) fn announce_to(&self, key: &ConversationKey, ephemeral: Ephemeral) {
        let mut log = self.log();
        let log = log.conversations.get_mut(key).unwrap();
        let follows = Position { epoch: Epoch(log.epoch), offset: Offset(log.entries.len() as u64) };
        log.tell(&Delivery::Ephemeral { follows, ephemerals: [ephemeral].into() });
    }

    /// The next announcements of entries are swallowed.
    pub(crate) fn lose(&self, announcements: usize) {
        self.log().lose = announcements;
    }

    /// Nothing answers while true.
    pub(crate) fn set_broken(&self, broken: bool) {
        self.log().broken = broken;
    }

    pub(crate) fn set_deaf(&self, deaf: bool) {
        self.log().deaf = deaf;
    }

    /// Tells every entry once more, newest first.
    pub(crate) fn repeat(&self, key: &ConversationKey) {
        let mut log = self.log();
        let log = log.conversations.get_mut(key).unwrap();
        for entry in log.entries.clone().into_iter().rev() {
            log.tell(&Delivery::Appended { epoch: Epoch(log.epoch), entries: [entry].into() });
        }
    }

    /// The newest entries are lost with a failed primary; a new epoch begins.
    pub(crate) fn branch(&self, key: &ConversationKey, lost: usize) {
        let mut log = self.log();
        let log = log.conversations.get_mut(key).unwrap();
        log.entries.truncate(log.entries.len() - lost);
        log.epoch += 0x100;
        log.tell(&Delivery::Changed);
    }

    pub(crate) fn released(&self, key: &ConversationKey) -> bool {
        self.log().released.contains(key)
    }

    fn answer<T>(&self, answer: impl FnOnce(&mut Log) -> Result<T, Error>) -> Result<T, Error> {
        let mut log = self.log();
        if log.broken { Err(Error::Unavailable("on purpose".to_owned())) } else { answer(&mut log) }
    }
}

impl Conversation {
    fn tell(&mut self, delivery: &Delivery) {
        self.subscribers.retain(|subscriber| subscriber.try_send(delivery.clone()).is_ok());
    }

    fn top(&self) -> Seen {
        let newest = self.entries.last();
        Seen {
            epoch: Some(Epoch(self.epoch)),
            offset: newest.map_or(Offset::START, |entry| entry.offset),
            check: newest.map(|entry| entry.check),
        }
    }

    fn meta(&self, key: &ConversationKey) -> Meta {
        Meta {
            key: key.clone(),
            state: if self.ended { State::Ended } else { State::Open },
            title: "title".to_owned(),
            started: Timestamp(1),
            top: self.top(),
            streams: 1,
        }
    }
}

type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

fn ready<'a, T: Send + 'a>(answer: Result<T, Error>) -> Answer<'a, T> {
    std::future::ready(answer).boxed()
}

fn unused<'a, T: Send + 'a>() -> Answer<'a, T> {
    ready(Err(Error::Unavailable("no test needs it".to_owned())))
}

impl Bus for FakeBus {
    fn errands(&self) -> &dyn hearsay_bus::errand::Errands {
        panic!("no test needs them")
    }

    fn now(&self) -> Answer<'_, Timestamp> {
        unused()
    }

    fn open<'a>(&'a self, _: &'a MeetingKey, _: Proposal) -> Answer<'a, Opened> {
        unused()
    }

    fn current<'a>(&'a self, meeting: &'a MeetingKey) -> Answer<'a, Option<Meta>> {
        ready(self.answer(|log| Ok(log.open.get(meeting).map(|key| log.conversations[key].meta(key)))))
    }

    fn watch<'a>(&'a self, meeting: &'a MeetingKey) -> Answer<'a, Watch> {
        ready(self.answer(|log| {
            let (told, opened) = mpsc::channel(16);
            if let Some(key) = log.open.get(meeting) {
                told.try_send(key.clone()).unwrap();
            }
            log.watchers.push((meeting.clone(), told));
            Ok(Watch::new(opened, Box::new(())))
        }))
    }

    fn find<'a>(&'a self, _: &'a AccountId, _: ConversationId) -> Answer<'a, Option<ConversationKey>> {
        unused()
    }

    fn visit<'a>(&'a self, _: &'a ConversationKey, _: &'a str) -> Answer<'a, ()> {
        unused()
    }

    fn visits<'a>(&'a self, _: &'a AccountId, _: &'a str) -> Answer<'a, Vec<ConversationKey>> {
        unused()
    }

    fn meta<'a>(&'a self, key: &'a ConversationKey) -> Answer<'a, Meta> {
        ready(self.answer(|log| match log.conversations.get(key) {
            Some(conversation) => Ok(conversation.meta(key)),
            None => Err(Refusal::Gone.into()),
        }))
    }

    fn claim<'a>(&'a self, _: &'a ConversationKey, _: &'a PublisherId) -> Answer<'a, Claim> {
        unused()
    }

    fn keep<'a>(&'a self, _: &'a ConversationKey, _: &'a PublisherId, _: Generation) -> Answer<'a, ()> {
        unused()
    }

    fn publish<'a>(&'a self, _: &'a ConversationKey, _: Batch) -> Answer<'a, Published> {
        unused()
    }

    fn announce<'a>(
        &'a self,
        _: &'a ConversationKey,
        _: &'a PublisherId,
        _: Generation,
        _: Vec<Ephemeral>,
    ) -> Answer<'a, ()> {
        unused()
    }

    fn subscribe<'a>(&'a self, key: &'a ConversationKey) -> Answer<'a, Subscription> {
        self.subscribes.fetch_add(1, Ordering::Relaxed);
        ready(self.answer(|log| {
            let (told, deliveries) = mpsc::channel(1_024);
            match log.conversations.get_mut(key) {
                Some(conversation) => conversation.subscribers.push(told),
                None => return Err(Refusal::Gone.into()),
            }
            Ok(Subscription::new(deliveries, Box::new(())))
        }))
    }

    fn hears(&self, _: &ConversationKey) -> bool {
        !self.log().deaf
    }

    fn read<'a>(&'a self, key: &'a ConversationKey, after: Seen, max: usize) -> Answer<'a, Read> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        ready(self.answer(|log| {
            let Some(conversation) = log.conversations.get(key) else { return Err(Refusal::Gone.into()) };
            let known = |epoch: Epoch| epoch.0 & 0xff == conversation.epoch & 0xff;
            let start = Seen { epoch: Some(Epoch(conversation.epoch)), offset: Offset::START, check: None };
            if after.epoch.is_some_and(|epoch| !known(epoch)) {
                return Ok(Read::Gap { reason: GapReason::Lost, resume: start });
            }
            let newest = conversation.top();
            if after.offset > newest.offset && after.epoch != newest.epoch {
                return Ok(Read::Gap { reason: GapReason::Branch, resume: newest });
            }
            let from = (after.offset.0 as usize).min(conversation.entries.len());
            let entries = conversation.entries[from..].iter().take(max).cloned().collect();
            Ok(Read::Page(Page { epoch: Epoch(conversation.epoch), entries, top: newest }))
        }))
    }

    fn renew<'a>(&'a self, _: GatewayId, leases: &'a [Lease]) -> Answer<'a, Vec<Tail>> {
        ready(self.answer(|log| {
            let tail = |lease: &Lease| Tail {
                key: lease.key.clone(),
                meta: log.conversations.get(&lease.key).map(|conversation| conversation.meta(&lease.key)),
                listeners: lease.listeners,
            };
            Ok(leases.iter().map(tail).collect())
        }))
    }

    fn release<'a>(&'a self, _: GatewayId, key: &'a ConversationKey) -> Answer<'a, ()> {
        self.log().released.push(key.clone());
        ready(Ok(()))
    }

    fn due(&self, _: usize) -> Answer<'_, Vec<ConversationKey>> {
        unused()
    }

    fn tick<'a>(&'a self, _: &'a ConversationKey) -> Answer<'a, Ticked> {
        unused()
    }

    fn compact<'a>(&'a self, _: &'a ConversationKey, _: Offset, _: Bytes) -> Answer<'a, ()> {
        unused()
    }

    fn record<'a>(&'a self, _: &'a ConversationKey) -> Answer<'a, Option<Bytes>> {
        unused()
    }

    fn delete<'a>(&'a self, _: &'a ConversationKey) -> Answer<'a, ()> {
        unused()
    }
}

/// The log's time, as far as tests care.
pub(crate) fn now() -> Timestamp {
    Timestamp(1)
}
