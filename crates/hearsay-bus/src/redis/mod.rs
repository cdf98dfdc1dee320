//! The conversation log of a cluster: in Redis or Valkey, 7.0 or newer, one server, with Sentinels, or a Redis Cluster.
//!
//! A conversation is three keys under its meeting's hash tag, and every call on it is one script: one atomic step, one
//! round trip, pipelined with all others of this process on one connection a node. What was appended is announced by
//! sharded publish in the same step. Finals and insights take the short way; what changes a conversation's life is
//! decided here, by the same [`crate::lifecycle`] as in one process, and written on condition that nothing came between.
//!
//! The server process that holds a conversation is remembered with it: when another one answers (a failover, a restart,
//! a slot that moved), the epoch branches there, whatever was lost. What a client saw but the log does not have branches
//! it, too, as with every bus.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ::redis::{RedisError, Value};
use bytes::{BufMut as _, Bytes};
use futures::{StreamExt as _, future::BoxFuture};
use hearsay_protocol::{
    AccountId, ConversationId, ConversationKey, Event, EventId, GatewayId, Generation, MeetingKey, Offset, PublisherId,
    Restart, Seen, Timestamp,
    event::{Ephemeral, Started},
};
use hearsay_rpc::v1;
use hearsay_runtime::Tasks;
use prost::Message as _;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    Batch, Bus, Claim, Entry, Error, Lease, Limits, Meta, Opened, Page, Proposal, Published, Read, Refusal, State,
    Subscription, Tail, Ticked, VISITS, Watch, errand,
    lifecycle::{AnalystProgress, Life, added_id},
    metrics as log_metrics,
    subscription::Subscriber,
};

mod calls;
mod codec;
mod config;
mod errands;
mod keys;
mod lives;
mod metrics;
mod nodes;
mod scripts;
mod subscribers;

pub use config::{RedisConfig, RedisTls, RedisTopology, RedisUrlError};
pub use nodes::ConnectError;

use codec::{Answer, Code, Entries, Head, Nonsense};
use keys::Keys;
use nodes::{Link, Nodes};
use scripts::Script;
use subscribers::{Subscribers, Watcher};

/// Generations a claim may skip, and skips after a branch: above any that a lost history gave.
const SKIPPED: u64 = 1 << 16;
const SKIPPED_BY_BRANCH: u64 = 1 << 32;
/// How often a change of a conversation's life is tried when others keep coming first.
const TRIES: usize = 64;
/// Events of one batch.
const MAX_BATCH: usize = 2_000;
/// Bytes of a record in one place: memory is given in steps, and this fills one.
const RECORD_PART: usize = 16_000;
/// Events of a batch that takes the short way.
const PLAIN: usize = 256;
/// Conversations of one renewal that are asked for at once.
const AT_ONCE: usize = 256;
/// Live conversations are visited at least this often, so that no lost deadline matters for longer.
const VISIT: Duration = Duration::from_secs(10);
/// A live conversation nobody visits for so long is forgotten: only a lost deadline or a stopped cluster leaves one.
const LIVE: Duration = Duration::from_secs(8 * 24 * 3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Conversations a watcher may lag behind; after that its watch ends.
const WATCH_CAPACITY: usize = 16;
/// Meetings whose watchers wait to be told again.
const REOPENED: usize = 1_024;
/// Memory in use, percent of the limit, from which on nothing new begins, and from which on only what is durable is taken.
const NEARLY_FULL: u8 = 75;
const FULL: u8 = 90;

/// See the module. Cheap to clone; clones are the same log.
#[derive(Clone)]
pub struct RedisBus {
    inner: Arc<Inner>,
}

struct Inner {
    nodes: Arc<Nodes>,
    subscribers: Arc<Subscribers>,
    limits: Limits,
}

/// Everything that decides about a conversation's life.
struct Loaded {
    head: Head,
    life: Life,
    top: Offset,
    now: Timestamp,
    analyst: Option<AnalystProgress>,
}

/// What follows from it.
struct Change<'a> {
    loaded: &'a Loaded,
    life: &'a Life,
    /// Behind the batch's own.
    added: Vec<Event>,
}

impl RedisBus {
    /// Connects to all primaries, checks that they can hold the log, and begins to look after them (as background tasks
    /// of `tasks`).
    ///
    /// # Errors
    /// When one cannot be reached, is too old, or would drop what was said when it is full.
    pub async fn connect(config: RedisConfig, limits: Limits, tasks: &Tasks) -> Result<Self, ConnectError> {
        log_metrics::describe();
        metrics::describe();
        let nodes = Nodes::new(config)?;
        let subscribers = Subscribers::new();
        nodes.heard_by(Arc::clone(&subscribers) as _);
        nodes.look().await?;
        let bus = Self {
            inner: Arc::new(Inner { nodes: Arc::clone(&nodes), subscribers: Arc::clone(&subscribers), limits }),
        };
        tasks.spawn_background("log connections", Arc::clone(&nodes).tend(tasks.drain()));
        let (reopened, meetings) = mpsc::channel(REOPENED);
        tasks.spawn_background("log subscriptions", subscribers.tend(nodes, reopened, tasks.drain()));
        tasks.spawn_background("log watches", Arc::clone(&bus.inner).tell_again(meetings, tasks.drain()));
        Ok(bus)
    }

    /// True while every node is connected and echoes its canary.
    pub fn health(&self) -> watch::Receiver<bool> {
        self.inner.nodes.health()
    }

    /// For tests: moves the clock by which the log decides.
    #[doc(hidden)]
    pub fn advance(&self, by: Duration) {
        self.inner.nodes.shift.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// For tests: the names of a conversation's keys.
    #[doc(hidden)]
    pub fn key_names(&self, key: &ConversationKey) -> Vec<String> {
        Keys::of(key).names.into()
    }
}

fn bytes_of(value: Value) -> Result<Vec<u8>, Nonsense> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Nil => Ok(Vec::new()),
        _ => Err(Nonsense("not a string where one belongs")),
    }
}

fn list_of(value: Value) -> Result<Vec<Vec<u8>>, Nonsense> {
    match value {
        Value::Array(values) => values.into_iter().map(bytes_of).collect(),
        _ => Err(Nonsense("not a list where one belongs")),
    }
}

/// Refusals that need nothing but the answer.
fn refusal(answer: &Answer, publisher: &PublisherId) -> Option<Refusal> {
    Some(match answer.code {
        Code::Done | Code::Duplicate | Code::Again | Code::Life => return None,
        Code::Gone => Refusal::Gone,
        Code::Ended => Refusal::Ended,
        Code::Reclaim => Refusal::Reclaim,
        Code::Fenced => Refusal::Fenced { current: Generation(answer.aux) },
        Code::Overlap => Refusal::Overlap { watermark: answer.aux },
        Code::Hole => Refusal::Hole { watermark: answer.aux },
        Code::Unclaimed => Refusal::Invalid(format!("{publisher} has not claimed its place")),
        Code::Held => Refusal::Held { until: Timestamp(answer.aux) },
        Code::Full => Refusal::Full { what: "the conversation has as many events as one may have" },
        Code::Invalid => Refusal::Invalid("events take a range of their own".to_owned()),
    })
}

/// May still publish into a conversation that ended.
fn is_late(publisher: &PublisherId) -> bool {
    matches!(publisher, PublisherId::Analyst | PublisherId::Actions | PublisherId::Rest(_))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What the scripts have to know of a batch: may it come late (1), does somebody speak (2), does it only end streams (4),
/// is it the analyst's (8).
fn how(batch: &Batch) -> u8 {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    flag(is_late(&batch.publisher), 1)
        | flag(!batch.events.is_empty() && matches!(batch.publisher, PublisherId::Stream(_)), 2)
        | flag(batch.events.iter().all(|event| matches!(event, Event::StreamEnded(_))), 4)
        | flag(batch.publisher == PublisherId::Analyst, 8)
}

fn stored(restart: Option<&Restart>) -> Vec<u8> {
    restart.map(|restart| v1::Restart::from(restart.clone()).encode_to_vec()).unwrap_or_default()
}

/// A publisher's own events and what the log adds to them.
fn encoded(publisher: &PublisherId, through: u64, own: &[Event], added: &[Event]) -> Entries {
    let mut entries = Entries::default();
    for (index, event) in own.iter().enumerate() {
        let id = match event {
            Event::Insight(insight) => EventId::of_revision(insight.id, insight.revision),
            _ => EventId::of_input(publisher, through, index),
        };
        entries.push(publisher, id, event);
    }
    for event in added {
        entries.push(publisher, added_id(publisher, through, event), event);
    }
    entries
}

impl Inner {
    /// Counts and logs what an answer shows.
    fn noted(&self, raw: &[u8], key: &ConversationKey) -> Result<Answer, Error> {
        let answer = Answer::decode(raw)?;
        if answer.branched {
            tracing::warn!(conversation = %key, top = answer.top.offset.0, "history may have been lost: a new epoch begins");
            log_metrics::branched();
        }
        Ok(answer)
    }

    fn meta(&self, key: &ConversationKey, answer: &Answer, head: &Head, title: &[u8], started: &[u8]) -> Meta {
        Meta {
            key: key.clone(),
            state: head.state,
            title: String::from_utf8_lossy(title).into_owned(),
            started: Timestamp(std::str::from_utf8(started).ok().and_then(|text| text.parse().ok()).unwrap_or(0)),
            top: answer.top,
            streams: head.streams,
        }
    }

    /// The conversation as it is, or [`Refusal::Gone`].
    async fn look(&self, key: &ConversationKey) -> Result<Meta, Error> {
        let values = list_of(self.run(Script::Look, &Keys::of(key), &[b"0"]).await?)?;
        match values.as_slice() {
            [answer, head, title, started] => {
                let answer = self.noted(answer, key)?;
                Ok(self.meta(key, &answer, &Head::decode(head)?, title, started))
            }
            [_] => Err(Refusal::Gone.into()),
            _ => Err(Nonsense("a look of another shape").into()),
        }
    }

    /// With its life.
    async fn load(&self, key: &ConversationKey) -> Result<Loaded, Error> {
        let values = list_of(self.run(Script::Look, &Keys::of(key), &[b"1"]).await?)?;
        let [answer, head, _, _, life, leases, analyst] = values.as_slice() else {
            return match values.as_slice() {
                [_] => Err(Refusal::Gone.into()),
                _ => Err(Nonsense("a look of another shape").into()),
            };
        };
        let answer = self.noted(answer, key)?;
        let head = Head::decode(head)?;
        let life = Life::decode(life, codec::leases(leases), head.heard)
            .map_err(|error| Error::Unavailable(format!("the life of {key} cannot be read: {error}")))?;
        let analyst = codec::holder(analyst)
            .filter(|(_, until)| *until > answer.now)
            .map(|(watermark, _)| AnalystProgress { read: Offset(watermark) });
        Ok(Loaded { head, life, top: answer.top.offset, now: answer.now, analyst })
    }

    /// The short way of appending. None: something about it is not plain, and the long way tells what.
    async fn append_fast(&self, key: &ConversationKey, keys: &Keys, batch: &Batch) -> Result<Option<Answer>, Error> {
        let Seen { epoch: Some(epoch), offset, check: Some(check) } = batch.seen else { return Ok(None) };
        let mut packed = Vec::with_capacity(96);
        packed.put_u64(batch.generation.0);
        packed.put_u64(batch.from);
        packed.put_u64(batch.through);
        packed.put_u32(epoch.0);
        packed.put_u64(offset.0);
        packed.put_u64(check);
        packed.put_u64(self.limits.max_entries as u64);
        packed.put_u8(how(batch));
        packed.put_u64(micros(self.limits.publisher_lease));
        let entries = encoded(&batch.publisher, batch.through, &batch.events, &[]);
        packed.put_u16(entries.count);
        entries.put_classes(&mut packed);
        entries.put_check(&mut packed);
        let restart = stored(batch.restart.as_ref());
        let name = batch.publisher.to_string();
        let args: [&[u8]; 4] = [name.as_bytes(), &packed, &restart, &entries.bytes];
        let raw = bytes_of(self.run(Script::AppendFast, keys, &args).await?)?;
        if raw.is_empty() {
            return Ok(None);
        }
        batch.events.iter().for_each(log_metrics::appended);
        Ok(Some(self.noted(&raw, key)?))
    }

    /// Appends; with a change of life only when nothing came between.
    async fn append(
        &self,
        key: &ConversationKey,
        batch: Option<&Batch>,
        change: Option<&Change<'_>>,
    ) -> Result<Answer, Error> {
        let keys = Keys::of(key);
        let empty = Vec::new();
        let own = batch.map_or(&empty, |batch| &batch.events);
        let added: &[Event] = change.map_or(&[], |change| &change.added);
        let publisher = batch.map_or(PublisherId::Clock, |batch| batch.publisher.clone());
        // What the clock appends is named by where it stands.
        let through = batch.map_or_else(|| change.map_or(0, |change| change.loaded.top.0 + 1), |batch| batch.through);
        let entries = encoded(&publisher, through, own, added);
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let mut packed = Vec::with_capacity(128);
        packed.put_u64(batch.map_or(0, |batch| batch.generation.0));
        packed.put_u64(batch.map_or(0, |batch| batch.from));
        packed.put_u64(batch.map_or(0, |batch| batch.through));
        codec::put_seen(&mut packed, batch.map_or(Seen::NOTHING, |batch| batch.seen));
        packed.put_u64(self.limits.max_entries as u64);
        packed.put_u8(batch.map_or(0, how));
        packed.put_u64(micros(self.limits.publisher_lease));
        packed.put_u16(own.len() as u16);
        packed.put_u16(entries.count);
        entries.put_classes(&mut packed);
        entries.put_check(&mut packed);
        let mut life = Vec::new();
        let mut leases = Vec::new();
        match change {
            None => {
                packed.put_u8(0);
                packed.put_bytes(0, 4 + 8 + 1 + 1 + 2 + 8 + 8);
            }
            Some(Change { loaded, life: next, .. }) => {
                packed.put_u8(1);
                packed.put_u32(loaded.head.life);
                packed.put_u64(loaded.top.0);
                packed.put_u8(codec::state_byte(next.state()));
                packed.put_u8(flag(next.is_ending(), codec::ENDING) | flag(next.misses_streams(), codec::LOST));
                packed.put_u16(u16::try_from(next.streams()).unwrap_or(u16::MAX));
                packed.put_u64(next.last_heard().micros());
                packed.put_u64(self.kept(next.state()));
                life = next.encode();
                for lease in next.leases() {
                    codec::put_lease(&mut leases, lease);
                }
            }
        }
        let name = batch.map(|batch| batch.publisher.to_string()).unwrap_or_default();
        let restart = stored(batch.and_then(|batch| batch.restart.as_ref()));
        let args: [&[u8]; 7] =
            [name.as_bytes(), &packed, &restart, &entries.bytes, &life, &leases, keys.conversation.as_bytes()];
        let answer = self.noted(&bytes_of(self.run(Script::Append, &keys, &args).await?)?, key)?;
        if answer.code == Code::Done {
            for event in own.iter().chain(added) {
                log_metrics::appended(event);
            }
        }
        Ok(answer)
    }

    /// Changes a conversation's life, by what `decide` makes of it, and appends a batch with it. `decide` answers none
    /// when there is nothing to do. Tried again while something comes between.
    async fn change(
        &self,
        key: &ConversationKey,
        batch: Option<&Batch>,
        mut decide: impl FnMut(&Loaded, &mut Life) -> Option<Vec<Event>>,
    ) -> Result<Option<(Answer, Life)>, Error> {
        for attempt in 0..TRIES {
            let loaded = self.load(key).await?;
            let mut life = loaded.life.clone();
            let Some(added) = decide(&loaded, &mut life) else { return Ok(None) };
            let next = self.next(&life, loaded.now);
            if let Some(next) = next {
                self.due_by(key, next).await?;
            }
            let answer = self.append(key, batch, Some(&Change { loaded: &loaded, life: &life, added })).await?;
            if answer.code == Code::Again {
                metrics::contended();
                let wait = rand::random_range(0..=500 * (1 + attempt as u64).min(20));
                sleep(Duration::from_micros(wait)).await;
                continue;
            }
            if let Some(next) = next {
                self.due_by(key, next).await?;
            }
            return Ok(Some((answer, life)));
        }
        metrics::failed();
        Err(Error::Unavailable(format!("{TRIES} changes of this conversation came first")))
    }

    async fn publish(&self, key: &ConversationKey, batch: Batch) -> Result<Published, Error> {
        let invalid = |what: String| Err(Error::Refused(Refusal::Invalid(what)));
        if batch.publisher == PublisherId::Clock {
            return invalid("only the log itself publishes as clock".to_owned());
        }
        if batch.restart.as_ref().is_some_and(|restart| restart.headers.len() > Restart::MAX_HEADERS) {
            return invalid(format!("codec headers are over {} bytes", Restart::MAX_HEADERS));
        }
        if batch.events.len() > MAX_BATCH {
            return invalid(format!("{} events in one batch; at most {MAX_BATCH} are accepted", batch.events.len()));
        }
        let of_streams = |event: &&Event| matches!(event, Event::StreamStarted(_) | Event::StreamEnded(_));
        let streams: Vec<Event> = batch.events.iter().filter(of_streams).cloned().collect();
        let mut answer = None;
        if streams.is_empty() {
            let keys = Keys::of(key);
            if batch.events.len() <= PLAIN {
                answer = self.append_fast(key, &keys, &batch).await?;
            }
            if answer.is_none() {
                answer = Some(self.append(key, Some(&batch), None).await?).filter(|answer| answer.code != Code::Life);
            }
        }
        let answer = match answer {
            Some(answer) => answer,
            None => {
                let limits = &self.limits;
                let changed = self
                    .change(key, Some(&batch), |loaded, life| {
                        let last = Offset(loaded.top.0 + batch.events.len() as u64);
                        let now = loaded.now;
                        if !batch.events.is_empty() && matches!(batch.publisher, PublisherId::Stream(_)) {
                            life.heard(now);
                        }
                        let mut added = life.appended(&streams, last, loaded.analyst, now, limits);
                        if batch.publisher == PublisherId::Analyst {
                            added.extend(life.analyst_read(AnalystProgress { read: Offset(batch.through) }, now));
                        }
                        Some(added)
                    })
                    .await?;
                changed.ok_or(Nonsense("nothing was decided"))?.0
            }
        };
        if let Some(refusal) = refusal(&answer, &batch.publisher) {
            log_metrics::refused(&refusal);
            return Err(refusal.into());
        }
        let duplicate = answer.code == Code::Duplicate;
        if duplicate {
            log_metrics::duplicate();
        }
        Ok(Published { duplicate, position: answer.position, watermark: answer.aux, top: answer.top })
    }

    async fn claim(&self, key: &ConversationKey, publisher: &PublisherId) -> Result<Claim, Error> {
        if *publisher == PublisherId::Clock {
            return Err(Refusal::Invalid("clock is not claimed".to_owned()).into());
        }
        let mut packed = Vec::with_capacity(25);
        // Random, so that claims in a history that was lost and in the one that is left do not meet.
        packed.put_u64(rand::random_range(0..SKIPPED));
        packed.put_u64(SKIPPED_BY_BRANCH);
        packed.put_u8(u8::from(is_late(publisher)) | u8::from(publisher.is_leased()) << 1);
        packed.put_u64(micros(self.limits.publisher_lease));
        let name = publisher.to_string();
        let values = list_of(self.run(Script::Claim, &Keys::of(key), &[name.as_bytes(), &packed]).await?)?;
        let [answer, claimed, restart] = values.as_slice() else {
            return Err(Nonsense("a claim of another shape").into());
        };
        let answer = self.noted(answer, key)?;
        if let Some(refusal) = refusal(&answer, publisher) {
            return Err(refusal.into());
        }
        let (generation, watermark, origin) = codec::claimed(claimed)?;
        let restart = match restart.as_slice() {
            [] => None,
            stored => Some(
                v1::Restart::decode(stored)
                    .map_err(|error| error.to_string())
                    .and_then(|restart| Restart::try_from(restart).map_err(|error| error.to_string()))
                    .map_err(|error| Error::Unavailable(format!("the restart point of {publisher}: {error}")))?,
            ),
        };
        Ok(Claim { generation, watermark, restart, origin, top: answer.top })
    }

    async fn keep(&self, key: &ConversationKey, publisher: &PublisherId, generation: Generation) -> Result<(), Error> {
        let mut packed = Vec::with_capacity(17);
        packed.put_u64(generation.0);
        packed.put_u8(u8::from(is_late(publisher)));
        packed.put_u64(micros(self.limits.publisher_lease));
        let name = publisher.to_string();
        let raw = bytes_of(self.run(Script::Keep, &Keys::of(key), &[name.as_bytes(), &packed]).await?)?;
        refusal(&self.noted(&raw, key)?, publisher).map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    async fn announce(
        &self,
        key: &ConversationKey,
        publisher: &PublisherId,
        generation: Generation,
        ephemerals: &[Ephemeral],
    ) -> Result<(), Error> {
        let mut packed = Vec::with_capacity(9);
        packed.put_u64(generation.0);
        packed.put_u8(u8::from(is_late(publisher)) | u8::from(matches!(publisher, PublisherId::Stream(_))) << 1);
        let encoded = if self.nodes.fullness() >= FULL { Vec::new() } else { codec::ephemerals(ephemerals) };
        let name = publisher.to_string();
        let raw = bytes_of(self.run(Script::Announce, &Keys::of(key), &[name.as_bytes(), &packed, &encoded]).await?)?;
        refusal(&self.noted(&raw, key)?, publisher).map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    async fn current(&self, meeting: &MeetingKey) -> Result<Current, Error> {
        let (name, slot) = keys::open(meeting);
        let mut command = ::redis::cmd("GET");
        command.arg(name);
        let Some(text) = self.plain::<Option<String>>(slot, command).await? else {
            return Ok(Current { live: None, stale: None });
        };
        let Ok(conversation) = text.parse::<ConversationId>() else {
            return Ok(Current { live: None, stale: Some(text) });
        };
        let key = ConversationKey { meeting: meeting.clone(), conversation };
        match self.look(&key).await {
            Ok(meta) if matches!(meta.state, State::Open | State::Lingering) => {
                Ok(Current { live: Some(meta), stale: None })
            }
            Ok(_) | Err(Error::Refused(_)) => Ok(Current { live: None, stale: Some(text) }),
            Err(error) => Err(error),
        }
    }

    async fn open(&self, meeting: &MeetingKey, proposal: Proposal) -> Result<Opened, Error> {
        let key = ConversationKey { meeting: meeting.clone(), conversation: proposal.conversation };
        for _ in 0..TRIES {
            let current = self.current(meeting).await?;
            if let Some(meta) = current.live {
                return Ok(Opened { key: meta.key.clone(), created: false, meta });
            }
            if self.nodes.fullness() >= NEARLY_FULL {
                return Err(Refusal::Full { what: "Redis is nearly full: no new conversation begins" }.into());
            }
            let (index, slot) = keys::index(proposal.conversation);
            let member = keys::to_member(&key);
            let mut set = ::redis::cmd("SET");
            set.arg(&index).arg(&member).arg("NX").arg("GET").arg("PX").arg(self.kept(State::Open));
            let before: Option<String> = self.plain(slot, set).await?;
            if before.is_some_and(|before| before != member) {
                let taken = format!("conversation {} exists already", proposal.conversation);
                return Err(Refusal::Invalid(taken).into());
            }
            let now = self.now().await?;
            let life = Life::new(now, &self.limits);
            if let Some(next) = self.next(&life, now) {
                self.due_by(&key, next).await?;
            }
            if self.limits.followed {
                // Before it opens: of one that never does, the errand comes to nothing.
                let what = now.micros().to_string();
                self.put_errand(&key, errand::FOLLOW, what.as_bytes(), errand::FOLLOW_AFTER, usize::MAX).await?;
            }
            let started = Event::Started(Started { at: now, title: proposal.title.clone() });
            let first = encoded(&PublisherId::Clock, 1, &[], std::slice::from_ref(&started));
            let mut packed = Vec::with_capacity(32);
            packed.put_u32(proposal.epoch.0);
            first.put_classes(&mut packed);
            first.put_check(&mut packed);
            packed.put_u64(self.kept(State::Open));
            let keys = Keys::of(&key);
            let stale = current.stale.unwrap_or_default();
            let args: [&[u8]; 7] = [
                keys.conversation.as_bytes(),
                proposal.title.as_bytes(),
                &life.encode(),
                &first.bytes,
                &packed,
                keys.names[3].as_bytes(),
                stale.as_bytes(),
            ];
            let values = list_of(self.run(Script::Open, &keys, &args).await?)?;
            let answer = values.first().ok_or(Nonsense("no answer to an open"))?;
            let answer = self.noted(answer, &key)?;
            match (answer.code, values.as_slice()) {
                (Code::Done, [_, head, title, begun]) => {
                    log_metrics::appended(&started);
                    let meta = self.meta(&key, &answer, &Head::decode(head)?, title, begun);
                    return Ok(Opened { key, created: true, meta });
                }
                (Code::Again, _) => metrics::contended(),
                _ => {
                    let taken = format!("conversation {} exists already", proposal.conversation);
                    return Err(Refusal::Invalid(taken).into());
                }
            }
        }
        Err(Error::Unavailable("others keep opening this meeting".to_owned()))
    }

    async fn now(&self) -> Result<Timestamp, Error> {
        let (seconds, micros): (u64, u64) = self.plain(0, ::redis::cmd("TIME")).await?;
        let shift = self.nodes.shift.load(Ordering::Relaxed);
        Ok(Timestamp((seconds * 1_000_000 + micros).saturating_add_signed(shift)))
    }

    async fn watch(self: Arc<Self>, meeting: &MeetingKey) -> Result<Watch, Error> {
        let (name, slot) = keys::open(meeting);
        let (opened, receiver) = mpsc::channel(WATCH_CAPACITY);
        let (leave, stands) = self.subscribers.watch(&name, slot, meeting, Watcher::new(opened, None));
        self.stands(stands).await?;
        if let Some(meta) = self.current(meeting).await?.live {
            self.subscribers.opened(&name, &meta.key);
        }
        Ok(Watch::new(receiver, Box::new(leave)))
    }

    async fn stands(&self, stands: Option<tokio::sync::oneshot::Receiver<()>>) -> Result<(), Error> {
        let Some(stands) = stands else { return Ok(()) };
        let deadline = Instant::now() + self.nodes.config().call_deadline;
        match timeout_at(deadline, stands).await {
            Ok(Ok(())) => Ok(()),
            _ => {
                metrics::failed();
                Err(Error::Unavailable("the subscription does not stand yet".to_owned()))
            }
        }
    }

    /// Tells watchers again what is open, of meetings where they may have missed it.
    async fn tell_again(
        self: Arc<Self>,
        mut meetings: mpsc::Receiver<(String, MeetingKey)>,
        drain: hearsay_runtime::Drain,
    ) {
        loop {
            let (name, meeting) = tokio::select! {
                () = drain.finished() => return,
                next = meetings.recv() => match next {
                    Some(next) => next,
                    None => return,
                },
            };
            loop {
                match self.current(&meeting).await {
                    Ok(current) => {
                        if let Some(meta) = current.live {
                            self.subscribers.opened(&name, &meta.key);
                        }
                        break;
                    }
                    Err(error) if drain.is_finished() => {
                        tracing::debug!(%meeting, %error, "watchers are not told any more");
                        return;
                    }
                    Err(_) => sleep(Duration::from_millis(200)).await,
                }
            }
        }
    }

    async fn subscribe(&self, key: &ConversationKey) -> Result<Subscription, Error> {
        self.look(key).await?;
        let keys = Keys::of(key);
        let (deliveries, receiver) = mpsc::channel(self.limits.subscription_capacity.max(2));
        let (leave, stands) = self.subscribers.subscribe(&keys.channel, keys.slot, Subscriber::new(deliveries));
        self.stands(stands).await?;
        Ok(Subscription::new(receiver, Box::new(leave)))
    }

    async fn read(&self, key: &ConversationKey, after: Seen, max: usize) -> Result<Read, Error> {
        let mut packed = Vec::with_capacity(25);
        codec::put_seen(&mut packed, after);
        packed.put_u32(u32::try_from(max.clamp(1, 10_000)).unwrap_or(10_000));
        let values = list_of(self.run(Script::Read, &Keys::of(key), &[&packed]).await?)?;
        let [answer, what, batches @ ..] = values.as_slice() else {
            return Err(Nonsense("a read of another shape").into());
        };
        let answer = self.noted(answer, key)?;
        if answer.code == Code::Gone {
            return Err(Refusal::Gone.into());
        }
        let epoch = answer.top.epoch;
        let (gap, at) = codec::read(what, epoch)?;
        if let Some(reason) = gap {
            return Ok(Read::Gap { reason, resume: at });
        }
        let mut entries: Vec<Entry> = Vec::new();
        for batch in batches.chunks_exact(2) {
            let first = std::str::from_utf8(&batch[0]).ok().and_then(|first| first.parse().ok());
            let first = Offset(first.ok_or(Nonsense("a batch that stands nowhere"))?);
            let read = codec::batch(first, Bytes::from(batch[1].clone())).ok_or(Nonsense("a batch cut short"))?;
            entries.extend(read.into_iter().filter(|entry| entry.offset > at.offset));
        }
        entries.truncate(max.max(1));
        Ok(Read::Page(Page { epoch: answer.position.epoch, entries, top: answer.top }))
    }

    async fn renew_one(&self, gateway: GatewayId, lease: &Lease) -> Result<Tail, Error> {
        let mut packed = Vec::with_capacity(28);
        packed.put_slice(gateway.0.as_bytes());
        packed.put_u64(micros(self.limits.gateway_lease));
        packed.put_u32(lease.listeners);
        for _ in 0..TRIES {
            let values = list_of(self.run(Script::Renew, &Keys::of(&lease.key), &[&packed]).await?)?;
            let answer = values.first().ok_or(Nonsense("no answer to a renewal"))?;
            let answer = self.noted(answer, &lease.key)?;
            match (answer.code, values.as_slice()) {
                (Code::Done, [_, head, title, started]) => {
                    let meta = self.meta(&lease.key, &answer, &Head::decode(head)?, title, started);
                    let listeners = u32::try_from(answer.aux).unwrap_or(u32::MAX);
                    return Ok(Tail { key: lease.key.clone(), meta: Some(meta), listeners });
                }
                (Code::Gone, _) => return Ok(Tail { key: lease.key.clone(), meta: None, listeners: 0 }),
                // Streams are missed: some may be this gateway's.
                _ => {
                    let changed = self
                        .change(&lease.key, None, |loaded, life| {
                            let events = life.renew(gateway, lease.listeners, loaded.now, &self.limits);
                            // Looked at, whether or not any was: the lease is taken with it.
                            Some(events)
                        })
                        .await;
                    let (answer, life) = match changed {
                        Ok(Some(changed)) => changed,
                        Ok(None) => continue,
                        Err(Error::Refused(Refusal::Gone)) => {
                            return Ok(Tail { key: lease.key.clone(), meta: None, listeners: 0 });
                        }
                        Err(error) => return Err(error),
                    };
                    let listeners = life.listeners(answer.now);
                    let meta = self.look(&lease.key).await?;
                    return Ok(Tail { key: lease.key.clone(), meta: Some(meta), listeners });
                }
            }
        }
        Err(Error::Unavailable("the lease could not be renewed".to_owned()))
    }

    async fn renew(&self, gateway: GatewayId, leases: &[Lease]) -> Result<Vec<Tail>, Error> {
        let mut tails = Vec::with_capacity(leases.len());
        let mut failed = None;
        let renewals: Vec<_> = leases.iter().map(|lease| self.renew_one(gateway, lease)).collect();
        let mut renewals = futures::stream::iter(renewals).buffered(AT_ONCE);
        while let Some(renewed) = renewals.next().await {
            match renewed {
                Ok(tail) => tails.push(tail),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            // Of those on a node that does not answer nothing is said.
            Some(error) if tails.is_empty() => Err(error),
            _ => Ok(tails),
        }
    }

    async fn release(&self, gateway: GatewayId, key: &ConversationKey) -> Result<(), Error> {
        for _ in 0..TRIES {
            let loaded = self.load(key).await?;
            let mut packed = Vec::with_capacity(21);
            packed.put_slice(gateway.0.as_bytes());
            packed.put_u32(loaded.head.life);
            packed.put_u8(u8::from(loaded.life.has_streams_of(gateway)));
            let raw = bytes_of(self.run(Script::Release, &Keys::of(key), &[&packed]).await?)?;
            match self.noted(&raw, key)?.code {
                Code::Again => metrics::contended(),
                Code::Gone => return Err(Refusal::Gone.into()),
                _ => return Ok(()),
            }
        }
        Err(Error::Unavailable("the lease could not be released".to_owned()))
    }

    async fn record(&self, key: &ConversationKey) -> Result<Option<Bytes>, Error> {
        self.look(key).await?;
        let keys = Keys::of(key);
        let mut record = Vec::new();
        for part in 0.. {
            let mut command = ::redis::cmd("HGET");
            command.arg(&keys.names[1]).arg(format!("record:{part}"));
            match self.plain::<Option<Vec<u8>>>(keys.slot, command).await? {
                Some(part) => record.extend(part),
                None => break,
            }
        }
        Ok((!record.is_empty()).then(|| record.into()))
    }

    async fn delete(&self, key: &ConversationKey) -> Result<(), Error> {
        for _ in 0..TRIES {
            let loaded = self.load(key).await?;
            let mut life = loaded.life.clone();
            life.deleted(loaded.now);
            // First: who deletes again because this was not done finds that it is not deleted.
            self.forget_errands(key).await?;
            if self.close(key, &loaded, &life, &[]).await? {
                return Ok(());
            }
        }
        Err(Error::Unavailable("others keep changing this conversation".to_owned()))
    }

    async fn find(&self, account: &AccountId, conversation: ConversationId) -> Result<Option<ConversationKey>, Error> {
        let (name, slot) = keys::index(conversation);
        let mut command = ::redis::cmd("GET");
        command.arg(name);
        let member: Option<Vec<u8>> = self.plain(slot, command).await?;
        let key = member.and_then(|member| keys::from_member(&member));
        let Some(key) = key.filter(|key| key.meeting.account == *account) else { return Ok(None) };
        match self.look(&key).await {
            Ok(_) => Ok(Some(key)),
            Err(Error::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn visit(&self, key: &ConversationKey, user: &str) -> Result<(), Error> {
        let (name, slot) = keys::visits(&key.meeting.account, user);
        let mut add = ::redis::cmd("ZADD");
        add.arg(&name).arg(self.now().await?.micros()).arg(keys::to_member(key));
        self.plain::<i64>(slot, add).await?;
        let mut trim = ::redis::cmd("ZREMRANGEBYRANK");
        trim.arg(&name).arg(0).arg(-1 - VISITS as i64);
        let mut expire = ::redis::cmd("PEXPIRE");
        expire.arg(&name).arg(self.kept(State::Compacted));
        futures::try_join!(self.plain::<i64>(slot, trim), self.plain::<i64>(slot, expire)).map(|_| ())
    }

    async fn visits(&self, account: &AccountId, user: &str) -> Result<Vec<ConversationKey>, Error> {
        let (name, slot) = keys::visits(account, user);
        let mut command = ::redis::cmd("ZREVRANGE");
        command.arg(name).arg(0).arg(VISITS - 1);
        let members: Vec<Vec<u8>> = self.plain(slot, command).await?;
        Ok(members.iter().filter_map(|member| keys::from_member(member)).collect())
    }
}

/// What a meeting has open, or what its key still names although it is not live.
struct Current {
    live: Option<Meta>,
    stale: Option<String>,
}

impl Bus for RedisBus {
    fn now(&self) -> BoxFuture<'_, Result<Timestamp, Error>> {
        Box::pin(self.inner.now())
    }

    fn open<'a>(&'a self, meeting: &'a MeetingKey, proposal: Proposal) -> BoxFuture<'a, Result<Opened, Error>> {
        Box::pin(self.inner.open(meeting, proposal))
    }

    fn current<'a>(&'a self, meeting: &'a MeetingKey) -> BoxFuture<'a, Result<Option<Meta>, Error>> {
        Box::pin(async move { Ok(self.inner.current(meeting).await?.live) })
    }

    fn watch<'a>(&'a self, meeting: &'a MeetingKey) -> BoxFuture<'a, Result<Watch, Error>> {
        Box::pin(Arc::clone(&self.inner).watch(meeting))
    }

    fn find<'a>(
        &'a self,
        account: &'a AccountId,
        conversation: ConversationId,
    ) -> BoxFuture<'a, Result<Option<ConversationKey>, Error>> {
        Box::pin(self.inner.find(account, conversation))
    }

    fn visit<'a>(&'a self, key: &'a ConversationKey, user: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.inner.visit(key, user))
    }

    fn visits<'a>(
        &'a self,
        account: &'a AccountId,
        user: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ConversationKey>, Error>> {
        Box::pin(self.inner.visits(account, user))
    }

    fn meta<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<Meta, Error>> {
        Box::pin(self.inner.look(key))
    }

    fn claim<'a>(
        &'a self,
        key: &'a ConversationKey,
        publisher: &'a PublisherId,
    ) -> BoxFuture<'a, Result<Claim, Error>> {
        Box::pin(self.inner.claim(key, publisher))
    }

    fn keep<'a>(
        &'a self,
        key: &'a ConversationKey,
        publisher: &'a PublisherId,
        generation: Generation,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.inner.keep(key, publisher, generation))
    }

    fn publish<'a>(&'a self, key: &'a ConversationKey, batch: Batch) -> BoxFuture<'a, Result<Published, Error>> {
        Box::pin(self.inner.publish(key, batch))
    }

    fn announce<'a>(
        &'a self,
        key: &'a ConversationKey,
        publisher: &'a PublisherId,
        generation: Generation,
        ephemerals: Vec<Ephemeral>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.inner.announce(key, publisher, generation, &ephemerals).await })
    }

    fn subscribe<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<Subscription, Error>> {
        Box::pin(self.inner.subscribe(key))
    }

    fn hears(&self, key: &ConversationKey) -> bool {
        self.inner.nodes.hears_of(keys::open(&key.meeting).1)
    }

    fn read<'a>(&'a self, key: &'a ConversationKey, after: Seen, max: usize) -> BoxFuture<'a, Result<Read, Error>> {
        Box::pin(self.inner.read(key, after, max))
    }

    fn renew<'a>(&'a self, gateway: GatewayId, leases: &'a [Lease]) -> BoxFuture<'a, Result<Vec<Tail>, Error>> {
        Box::pin(self.inner.renew(gateway, leases))
    }

    fn release<'a>(&'a self, gateway: GatewayId, key: &'a ConversationKey) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.inner.release(gateway, key))
    }

    fn due(&self, max: usize) -> BoxFuture<'_, Result<Vec<ConversationKey>, Error>> {
        Box::pin(self.inner.due(max))
    }

    fn tick<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<Ticked, Error>> {
        Box::pin(self.inner.tick(key))
    }

    fn compact<'a>(&'a self, key: &'a ConversationKey, top: Offset, record: Bytes) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.inner.compact(key, top, &record).await })
    }

    fn record<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<Option<Bytes>, Error>> {
        Box::pin(self.inner.record(key))
    }

    fn errands(&self) -> &dyn errand::Errands {
        self
    }

    fn delete<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.inner.delete(key))
    }
}
