//! The conversation log and its live delivery: trait [`Bus`], the one-process [`MemoryBus`], the suite every bus is held
//! to ([`conformance`]), and the state machines that make an exactly-once append out of calls that may fail
//! ([`publisher`], driven by [`append`]) and a contiguous run out of announcements that may be lost ([`follow`]).
//!
//! A position is assigned with the publish, in one atomic step, and refused to a publisher that was superseded, repeats
//! itself, overlaps or leaves a hole. A new epoch says that history branched. Lifecycle decisions are the log's too, by
//! its own clock, in [`Bus::tick`].

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use hearsay_protocol::{
    AccountId, ConversationId, ConversationKey, Epoch, Event, EventId, GatewayId, Generation, MeetingKey, Offset,
    Position, PublisherId, Timestamp, event::Ephemeral,
};

/// The conversation log. Every call may take until its own deadline and then fails with [`Error::Unavailable`]; a call
/// that failed so may or may not have happened, and can be repeated without harm.
pub trait Bus: Send + Sync + 'static {
    /// The log's own time, which all its decisions use.
    fn now(&self) -> BoxFuture<'_, Result<Timestamp, Error>>;

    /// Finds the meeting's open (or lingering) conversation, or opens the one proposed and appends [`Event::Started`].
    fn open<'a>(&'a self, meeting: &'a MeetingKey, proposal: Proposal) -> BoxFuture<'a, Result<Opened, Error>>;

    /// The meeting's open or lingering conversation, if any.
    fn current<'a>(&'a self, meeting: &'a MeetingKey) -> BoxFuture<'a, Result<Option<Meta>, Error>>;

    /// Follows which conversation a meeting has open. Yields the one open now, if any, then each next one.
    fn watch<'a>(&'a self, meeting: &'a MeetingKey) -> BoxFuture<'a, Result<Watch, Error>>;

    /// The conversation of this account by its id, in any state but deleted.
    fn find<'a>(
        &'a self,
        account: &'a AccountId,
        conversation: ConversationId,
    ) -> BoxFuture<'a, Result<Option<ConversationKey>, Error>>;

    /// This user of the conversation's account takes part in it, from now on. Of each user the latest [`VISITS`] are
    /// kept, for as long as records are.
    fn visit<'a>(&'a self, key: &'a ConversationKey, user: &'a str) -> BoxFuture<'a, Result<(), Error>>;

    /// The conversations that this user took part in, latest first. Some may be deleted, or forgotten.
    fn visits<'a>(
        &'a self,
        account: &'a AccountId,
        user: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ConversationKey>, Error>>;

    /// # Errors
    /// [`Refusal::Gone`] for a conversation that does not exist (any more).
    fn meta<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<Meta, Error>>;

    /// Takes the publisher's place: the generation rises by one and every earlier holder is fenced. A leased publisher
    /// ([`PublisherId::is_leased`]) is refused with [`Refusal::Held`] while the holder's lease lives.
    fn claim<'a>(&'a self, key: &'a ConversationKey, publisher: &'a PublisherId)
    -> BoxFuture<'a, Result<Claim, Error>>;

    /// Keeps the lease of a leased publisher for [`Limits::publisher_lease`] more; so does each publish.
    fn keep<'a>(
        &'a self,
        key: &'a ConversationKey,
        publisher: &'a PublisherId,
        generation: Generation,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Appends a batch, moves the publisher's watermark and announces the entries, in one atomic step.
    ///
    /// In this order: a deleted conversation answers [`Refusal::Gone`], an ended one [`Refusal::Ended`] (except to
    /// `analyst`, `actions` and `rest:` until it is compacted); a generation claimed before the last branch
    /// [`Refusal::Reclaim`]; a lower generation [`Refusal::Fenced`]; `through <= watermark` is a duplicate and answered
    /// with the old position; `from < watermark` [`Refusal::Overlap`]; `from > watermark` [`Refusal::Hole`]. An empty
    /// batch only moves the watermark. A batch with events and `from == through` is [`Refusal::Invalid`].
    ///
    /// The log adds [`Event::Joined`], [`Event::Left`] and [`Event::Ended`] where [`Event::StreamStarted`] and
    /// [`Event::StreamEnded`] call for them, in the same step.
    fn publish<'a>(&'a self, key: &'a ConversationKey, batch: Batch) -> BoxFuture<'a, Result<Published, Error>>;

    /// Announces without appending. The generation is checked as in [`Bus::publish`]; nothing else is.
    fn announce<'a>(
        &'a self,
        key: &'a ConversationKey,
        publisher: &'a PublisherId,
        generation: Generation,
        ephemerals: Vec<Ephemeral>,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// What is announced from here on. Dropping the subscription unsubscribes.
    fn subscribe<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<Subscription, Error>>;

    /// False while announcements of this conversation may not come, although calls are answered. Never waits.
    fn hears(&self, _key: &ConversationKey) -> bool {
        true
    }

    /// The entries after `after`, at most `max`, oldest first.
    fn read<'a>(&'a self, key: &'a ConversationKey, after: Seen, max: usize) -> BoxFuture<'a, Result<Read, Error>>;

    /// Says that this gateway lives and has members of these conversations, for [`Limits::gateway_lease`] more.
    /// Answers each conversation's newest entry, so that a lost last announcement is found.
    fn renew<'a>(&'a self, gateway: GatewayId, leases: &'a [Lease]) -> BoxFuture<'a, Result<Vec<Tail>, Error>>;

    /// This gateway has no members of the conversation any more.
    fn release<'a>(&'a self, gateway: GatewayId, key: &'a ConversationKey) -> BoxFuture<'a, Result<(), Error>>;

    /// Conversations with a deadline that has passed, at most `max`, in random order.
    fn due(&self, max: usize) -> BoxFuture<'_, Result<Vec<ConversationKey>, Error>>;

    /// Carries out what the conversation's deadlines ask for by now; idempotent, and safe from any number of processes.
    fn tick<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<Ticked, Error>>;

    /// Puts one record in the place of an ended conversation's entries. Refused as [`Refusal::Invalid`] unless `top` is
    /// the newest offset and the conversation is due for it.
    fn compact<'a>(&'a self, key: &'a ConversationKey, top: Offset, record: Bytes) -> BoxFuture<'a, Result<(), Error>>;

    /// The record a compacted conversation became.
    fn record<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<Option<Bytes>, Error>>;

    /// Deletes what was said. A mark remains: publishers hear [`Refusal::Gone`].
    fn delete<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<(), Error>>;

    /// What is owed to others because of conversations.
    fn errands(&self) -> &dyn errand::Errands;
}

/// Conversations of a user that are remembered.
pub const VISITS: usize = 32;

/// Times and sizes every bus keeps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Life of a gateway's lease without renewal.
    pub gateway_lease: Duration,
    /// Life of the analyst's and of actions' lease without renewal.
    pub publisher_lease: Duration,
    /// Shortest time a conversation waits for a lost last speaker.
    pub rejoin_grace: Duration,
    /// A conversation in which nobody says anything ends after this.
    pub silence: Duration,
    /// How long an end waits for a live analyst to have read everything.
    pub analyst_grace: Duration,
    /// From the end to the moment the entries may become one record.
    pub compact_after: Duration,
    /// From the end to the moment the entries are dropped, compacted or not.
    pub log_retention: Duration,
    /// From the end to the moment the record is dropped, and how long a deleted conversation's mark remains.
    pub record_retention: Duration,
    /// Entries of one conversation; more are refused as [`Refusal::Full`].
    pub max_entries: usize,
    /// Conversations held at once; more are refused as [`Refusal::Full`].
    pub max_conversations: usize,
    /// Deliveries that wait for one subscriber before it is told [`Delivery::Missed`].
    pub subscription_capacity: usize,
    /// Each conversation that opens is put on the list of errands ([`errand::FOLLOW`]).
    pub followed: bool,
}

impl Default for Limits {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3_600);
        Self {
            gateway_lease: Duration::from_secs(7),
            publisher_lease: Duration::from_secs(3),
            rejoin_grace: Duration::from_secs(15),
            silence: Duration::from_secs(30 * 60),
            analyst_grace: Duration::from_millis(800),
            compact_after: Duration::from_secs(60),
            log_retention: 24 * HOUR,
            record_retention: 7 * 24 * HOUR,
            max_entries: 200_000,
            max_conversations: 100_000,
            subscription_capacity: 1_024,
            followed: false,
        }
    }
}

/// What to open when the meeting has nothing open.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Random.
    pub conversation: ConversationId,
    /// Random.
    pub epoch: Epoch,
    pub title: String,
}

#[derive(Debug, Clone)]
pub struct Opened {
    pub key: ConversationKey,
    /// The proposal was taken.
    pub created: bool,
    pub meta: Meta,
}

/// What a conversation is at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Meta {
    pub key: ConversationKey,
    pub state: State,
    pub title: String,
    pub started: Timestamp,
    /// The newest entry.
    pub top: Seen,
    /// Speakers' streams that are live.
    pub streams: usize,
}

/// A conversation's life. `waiting` has no conversation yet: see [`Bus::watch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Open,
    /// Nobody speaks; the conversation waits for somebody to return.
    Lingering,
    Ended,
    /// Ended, and its entries have become one record.
    Compacted,
    Deleted,
}

/// A publisher's place.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    pub generation: Generation,
    /// How far into its input the publisher's output on the log reaches.
    pub watermark: u64,
    /// Where a fresh decoder begins, as of the watermark; set by the newest batch that carried one.
    pub restart: Option<Restart>,
    /// When this publisher was first claimed: the origin of a stream's audio clock.
    pub origin: Timestamp,
    /// The newest entry.
    pub top: Seen,
}

/// What a publisher made of the stretch `from..through` of its input.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    pub publisher: PublisherId,
    pub generation: Generation,
    pub from: u64,
    pub through: u64,
    pub events: Vec<Event>,
    /// Replaces the stored restart point.
    pub restart: Option<Restart>,
    /// The newest entry this publisher knows of.
    pub seen: Seen,
}

/// The answer to a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The range was already on the log, and nothing was appended.
    pub duplicate: bool,
    /// Where the batch's last event stands; of an empty batch, the newest entry. Of a duplicate: where the last event of
    /// the batch that covered `through` stands, or a later position of the log when that is no longer known.
    pub position: Position,
    /// The publisher's watermark.
    pub watermark: u64,
    /// The newest entry.
    pub top: Seen,
}

/// One durable event in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub offset: Offset,
    /// Random; tells this entry from another that took its offset in another history.
    pub check: u64,
    /// When it was appended.
    pub at: Timestamp,
    /// A function of the publisher's input: a repeated append after a branch has the same id.
    pub id: EventId,
    /// This event's number in its class (`Event::class`), from 0.
    pub sequence: u64,
    pub publisher: PublisherId,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    Event(Event),
    /// An entry that this version cannot read. It keeps its place; nothing is rendered for it.
    Tombstone,
}

/// What a subscriber hears.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// Entries were appended: contiguous, in order, all of one epoch.
    Appended { epoch: Epoch, entries: Arc<[Entry]> },
    /// Announced only. `follows` is the newest entry when it was announced.
    Ephemeral { follows: Position, ephemerals: Arc<[Ephemeral]> },
    /// History branched, entries were compacted, or the conversation was deleted: read again.
    Changed,
    /// Deliveries were lost here: read what was missed.
    Missed,
}

/// The answer to a read.
#[derive(Debug, Clone, PartialEq)]
pub enum Read {
    Page(Page),
    /// The log cannot give what follows `after`; it can give what follows `resume`.
    Gap {
        reason: GapReason,
        resume: Seen,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    pub epoch: Epoch,
    /// Contiguous from `after`. May be shorter than asked for.
    pub entries: Vec<Entry>,
    /// The newest entry: `entries` reaches it or there is more to read.
    pub top: Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// Dropped by age, or compacted.
    Retention,
    /// History branched before `after`.
    Branch,
    /// The log lost it.
    Lost,
}

/// A gateway's word on one conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub key: ConversationKey,
    pub listeners: u32,
}

/// The end of a conversation's log, as of a renewal. None: the conversation is gone.
#[derive(Debug, Clone, PartialEq)]
pub struct Tail {
    pub key: ConversationKey,
    pub meta: Option<Meta>,
    /// Listeners at all live gateways together.
    pub listeners: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticked {
    pub state: State,
    /// When to come again.
    pub next: Option<Timestamp>,
    /// The conversation's entries should become one record: read, fold, [`Bus::compact`].
    pub compact: bool,
}

/// Why a call was refused. Repeating it gives the same answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("superseded: generation {current} publishes now")]
    Fenced { current: Generation },
    #[error("the range overlaps what is on the log up to {watermark}")]
    Overlap { watermark: u64 },
    #[error("the range leaves a hole after {watermark}")]
    Hole { watermark: u64 },
    #[error("history branched since the claim: claim again")]
    Reclaim,
    #[error("held by another until {until}")]
    Held { until: Timestamp },
    #[error("the conversation has ended")]
    Ended,
    #[error("the conversation does not exist or was deleted")]
    Gone,
    #[error("the log is full: {what}")]
    Full { what: &'static str },
    #[error("invalid: {0}")]
    Invalid(String),
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Not reached, or no answer in time. May be repeated.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
}

impl Error {
    /// Repeating the call may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

pub mod append;
mod clock;
pub mod conformance;
pub mod drive;
pub mod errand;
pub mod follow;
pub mod lifecycle;
mod memory;
pub mod metrics;
pub mod publisher;
pub mod redis;
mod subscription;

pub use clock::{Clock, ManualClock, SystemClock};
pub use hearsay_protocol::{Restart, Seen};
pub use memory::{MemoryBus, Replica};
pub use subscription::{Subscription, Watch};
