//! What becomes of a conversation when speakers come and go: the state table, without I/O or clock.
//!
//! Every bus keeps one [`Life`] per conversation and appends the events it asks for in the same atomic step as the event
//! that caused them. All times are the bus's own.
//!
//! | state | enters it | leaves it |
//! |---|---|---|
//! | open | a speaker's stream | last speaker stopped, nobody to wait for → ended |
//! | lingering | opened and nobody spoke yet; last speaker lost, or stopped but stayed connected | a stream → open; time → ended |
//! | ended | as above, or silence | compacted by [`crate::Bus::compact`] or by age; deleted |
//!
//! A gateway that was out of reach for longer than its lease did not lose its speakers: their streams end as lost, and
//! begin again with its next renewal, unless it says itself that they ended.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hearsay_protocol::{
    Event, EventId, GatewayId, Offset, ParticipantId, PublisherId, StreamId, Timestamp,
    event::{EndReason, Ended, StreamEnd, StreamEnded, StreamStarted},
};
use uuid::Uuid;

use crate::{Limits, State};

mod stored;

pub(crate) use stored::StoredLease;

/// One conversation's life.
#[derive(Debug, Clone)]
pub struct Life {
    state: State,
    streams: BTreeMap<StreamId, Arc<StreamStarted>>,
    /// Streams that ended as lost because their gateway's lease did; the gateway may return.
    lost: BTreeMap<StreamId, Lost>,
    /// Leases of gateways, by when they end.
    leases: BTreeMap<GatewayId, Holder>,
    /// When a lingering conversation ends, and why.
    linger: Option<(Timestamp, EndReason)>,
    /// The last speaker stopped, but a live analyst has not read up to here; at the time it is not waited for any more.
    ending: Option<(Offset, Timestamp)>,
    /// Of the latest start.
    no_connection_timeout: Duration,
    /// When somebody last said something.
    heard: Timestamp,
    ended: Option<Timestamp>,
}

#[derive(Debug, Clone)]
struct Lost {
    started: Arc<StreamStarted>,
    /// Until then its speaker is waited for.
    until: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    until: Timestamp,
    listeners: u32,
}

/// What a live analyst has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnalystProgress {
    pub read: Offset,
}

impl Life {
    pub fn new(now: Timestamp, limits: &Limits) -> Self {
        Self {
            state: State::Lingering,
            streams: BTreeMap::new(),
            lost: BTreeMap::new(),
            leases: BTreeMap::new(),
            linger: Some((now + limits.rejoin_grace, EndReason::Abandoned)),
            ending: None,
            no_connection_timeout: Duration::ZERO,
            heard: now,
            ended: None,
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// When the conversation ended or was deleted.
    pub fn ended(&self) -> Option<Timestamp> {
        self.ended
    }

    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Open | State::Lingering)
    }

    /// Somebody said something.
    pub fn heard(&mut self, now: Timestamp) {
        self.heard = self.heard.max(now);
    }

    /// This gateway lives and has this many listeners here. Answers what is to be appended: its streams that were taken
    /// for lost begin again.
    #[must_use]
    pub fn renew(&mut self, gateway: GatewayId, listeners: u32, now: Timestamp, limits: &Limits) -> Vec<Event> {
        self.leases.retain(|_, holder| holder.until > now);
        self.leases.insert(gateway, Holder { until: now + limits.gateway_lease, listeners });
        let mut events = Vec::new();
        if self.is_live() {
            let lost = self.lost.values().map(|lost| &lost.started);
            let back: Vec<_> = lost.filter(|started| started.gateway == gateway).cloned().collect();
            for started in back {
                events.push(Event::StreamStarted(Arc::clone(&started)));
                events.extend(self.started(&started, now, limits));
            }
        }
        events
    }

    /// This gateway has no members here any more. Streams it still holds end as lost when its lease would have ended: a
    /// stream that began in this moment is not taken for one of a dead gateway.
    pub fn release(&mut self, gateway: GatewayId) {
        if self.streams.values().any(|started| started.gateway == gateway) {
            if let Some(holder) = self.leases.get_mut(&gateway) {
                holder.listeners = 0;
            }
        } else {
            self.leases.remove(&gateway);
        }
    }

    /// Listeners at all gateways whose lease lives.
    pub fn listeners(&self, now: Timestamp) -> u32 {
        self.leases.values().filter(|holder| holder.until > now).map(|holder| holder.listeners).sum()
    }

    /// Streams began, or go on from another gateway, or ended, as these events of one batch say. `top` is the offset of
    /// the batch's last event. Answers what is to be appended behind it.
    #[must_use]
    pub fn appended(
        &mut self,
        batch: &[Event],
        top: Offset,
        analyst: Option<AnalystProgress>,
        now: Timestamp,
        limits: &Limits,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.is_live() {
            return events;
        }
        let mut last = None;
        for event in batch {
            match event {
                Event::StreamStarted(started) => events.extend(self.started(started, now, limits)),
                Event::StreamEnded(StreamEnded { stream, how }) => {
                    if self.lost.remove(stream).is_some() {
                        last = Some(*how);
                    } else if let Some(started) = self.streams.remove(stream) {
                        events.extend(self.left(&started));
                        last = Some(*how);
                    }
                }
                _ => {}
            }
        }
        if let Some(how) = last {
            self.emptied(how, top, &mut events, analyst, now, limits);
        }
        events
    }

    /// The analyst has read further. Answers `ended` when that is what the end waited for.
    #[must_use]
    pub fn analyst_read(&mut self, analyst: AnalystProgress, now: Timestamp) -> Vec<Event> {
        match self.ending {
            Some((last, _)) if analyst.read >= last => vec![self.end(EndReason::Stopped, now)],
            _ => Vec::new(),
        }
    }

    /// What time asks for by now: streams of gateways that died end as lost, waits end. `top` is the newest offset.
    #[must_use]
    pub fn tick(
        &mut self,
        top: Offset,
        analyst: Option<AnalystProgress>,
        now: Timestamp,
        limits: &Limits,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        self.leases.retain(|_, holder| holder.until > now);
        if !self.is_live() {
            return events;
        }
        let ghosts: Vec<_> =
            self.streams.values().filter(|started| !self.leases.contains_key(&started.gateway)).cloned().collect();
        if !ghosts.is_empty() {
            for started in ghosts {
                let stream = started.stream;
                events.push(Event::StreamEnded(StreamEnded { stream, how: StreamEnd::Lost }));
                self.streams.remove(&stream);
                events.extend(self.left(&started));
                let until = now + self.no_connection_timeout.max(limits.rejoin_grace);
                self.lost.insert(stream, Lost { started, until });
            }
            self.emptied(StreamEnd::Lost, top, &mut events, analyst, now, limits);
        }
        if let Some((last, until)) = self.ending {
            let read = analyst.is_none_or(|analyst| analyst.read >= last);
            if read || until <= now {
                events.push(self.end(EndReason::Stopped, now));
            }
        } else if let Some((until, reason)) = self.linger
            && until <= now
        {
            events.push(self.end(reason, now));
        } else if self.heard + limits.silence <= now {
            let mut gone = BTreeMap::new();
            for started in self.streams.values() {
                gone.insert(started.participant.id, Arc::clone(&started.participant));
            }
            events.extend(gone.into_values().map(Event::Left));
            events.push(self.end(EndReason::Silence, now));
        }
        events
    }

    /// The entries became one record, or were too old to keep.
    pub fn compacted(&mut self) {
        self.state = State::Compacted;
    }

    pub fn deleted(&mut self, now: Timestamp) {
        self.state = State::Deleted;
        self.close(now);
    }

    /// When [`Life::tick`], compaction or retention next has something to do.
    pub fn next(&self, limits: &Limits) -> Option<Timestamp> {
        match self.state {
            State::Open | State::Lingering => {
                let leases = self
                    .streams
                    .values()
                    .map(|started| self.leases.get(&started.gateway).map_or(Timestamp::ZERO, |holder| holder.until));
                let waits = self.linger.map(|(until, _)| until).into_iter().chain(self.ending.map(|(_, until)| until));
                leases.chain(waits).chain([self.heard + limits.silence]).min()
            }
            State::Ended => self.ended.map(|ended| ended + limits.compact_after),
            State::Compacted | State::Deleted => self.ended.map(|ended| ended + limits.record_retention),
        }
    }

    fn started(&mut self, started: &Arc<StreamStarted>, now: Timestamp, limits: &Limits) -> Option<Event> {
        let known = self.has(started.participant.id);
        // Who speaks again by another stream has let go of the lost one.
        self.lost.retain(|_, lost| lost.started.participant.id != started.participant.id);
        self.streams.insert(started.stream, Arc::clone(started));
        // A gateway that just spoke is alive, whether or not it renewed for this conversation yet.
        let until = now + limits.gateway_lease;
        let holder = self.leases.entry(started.gateway).or_insert(Holder { until, listeners: 0 });
        holder.until = holder.until.max(until);
        self.no_connection_timeout = started.no_connection_timeout;
        self.state = State::Open;
        self.linger = None;
        self.ending = None;
        self.heard(now);
        (!known).then(|| Event::Joined(Arc::clone(&started.participant)))
    }

    /// What the end of this stream, which is not live any more, means for its participant.
    fn left(&self, started: &StreamStarted) -> Option<Event> {
        (!self.has(started.participant.id)).then(|| Event::Left(Arc::clone(&started.participant)))
    }

    /// A stream ended, the last of its batch, `how`. Decides what follows when no other is live; `events` follow `top`.
    fn emptied(
        &mut self,
        how: StreamEnd,
        top: Offset,
        events: &mut Vec<Event>,
        analyst: Option<AnalystProgress>,
        now: Timestamp,
        limits: &Limits,
    ) {
        if !self.streams.is_empty() {
            return;
        }
        // Somebody whose gateway is out of reach may still be speaking.
        let how = if self.lost.values().any(|lost| lost.until > now) { StreamEnd::Lost } else { how };
        match how {
            StreamEnd::Stopped { linger } if linger.is_zero() => {
                // The analyst is to have read the last event before `ended`.
                let last = Offset(top.0 + events.len() as u64);
                if analyst.is_some_and(|analyst| analyst.read < last) {
                    self.ending = Some((last, now + limits.analyst_grace));
                } else {
                    events.push(self.end(EndReason::Stopped, now));
                }
            }
            StreamEnd::Stopped { linger } => self.linger(now + linger, EndReason::Stopped),
            StreamEnd::Lost => {
                let wait = self.no_connection_timeout.max(limits.rejoin_grace);
                self.linger(now + wait, EndReason::Abandoned);
            }
        }
    }

    fn has(&self, participant: ParticipantId) -> bool {
        self.streams.values().any(|started| started.participant.id == participant)
    }

    fn linger(&mut self, until: Timestamp, reason: EndReason) {
        self.state = State::Lingering;
        self.linger = Some((until, reason));
    }

    fn end(&mut self, reason: EndReason, now: Timestamp) -> Event {
        self.state = State::Ended;
        self.close(now);
        Event::Ended(Ended { at: now, reason })
    }

    fn close(&mut self, now: Timestamp) {
        self.ended = Some(now);
        self.streams.clear();
        self.lost.clear();
        self.linger = None;
        self.ending = None;
    }
}

/// The id of an event that the log itself adds: of its kind and whom it is about, so that the same batch, appended again
/// in another history, gives the same event the same id, and another one another.
pub(crate) fn added_id(publisher: &PublisherId, through: u64, event: &Event) -> EventId {
    let about = match event {
        Event::Joined(who) | Event::Left(who) => who.id.0,
        event => event.stream().map_or(Uuid::nil(), |stream| stream.0),
    };
    match event {
        // A conversation ends once, whoever brings it about.
        Event::Ended(_) => EventId::of_added(&PublisherId::Clock, 0, event.kind(), about),
        event => EventId::of_added(publisher, through, event.kind(), about),
    }
}
