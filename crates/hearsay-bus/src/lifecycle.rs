//! What becomes of a conversation when speakers come and go: the state table, without I/O or clock.
//!
//! Every bus keeps one [`Life`] per conversation and appends the events it asks for in the same atomic step as the event
//! that caused them. All times are the bus's own.
//!
//! | state | enters it | leaves it |
//! |---|---|---|
//! | open | opened; a speaker's stream | last speaker stopped, nobody to wait for → ended |
//! | lingering | opened and nobody spoke yet; last speaker lost, or stopped but stayed connected | a stream → open; time → ended |
//! | ended | as above, or silence | compacted by [`crate::Bus::compact`], deleted |

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hearsay_protocol::{
    Event, GatewayId, Offset, ParticipantId, StreamId, Timestamp,
    event::{EndReason, Ended, Participant, StreamEnd, StreamEnded, StreamStarted},
};

use crate::{Limits, State};

/// One conversation's life.
#[derive(Debug, Clone)]
pub struct Life {
    state: State,
    streams: BTreeMap<StreamId, Live>,
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
struct Live {
    participant: Arc<Participant>,
    gateway: GatewayId,
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

    /// This gateway lives and has this many listeners here.
    pub fn renew(&mut self, gateway: GatewayId, listeners: u32, now: Timestamp, limits: &Limits) {
        self.leases.insert(gateway, Holder { until: now + limits.gateway_lease, listeners });
    }

    /// This gateway has no members here any more; streams it still holds end as lost at the next tick.
    pub fn release(&mut self, gateway: GatewayId) {
        self.leases.remove(&gateway);
    }

    /// Listeners at all gateways whose lease lives.
    pub fn listeners(&self, now: Timestamp) -> u32 {
        self.leases.values().filter(|holder| holder.until > now).map(|holder| holder.listeners).sum()
    }

    /// A stream began or goes on from another gateway. Answers what is to be appended behind it.
    pub fn started(&mut self, started: &StreamStarted, now: Timestamp, limits: &Limits) -> Vec<Event> {
        let participant = started.participant.id;
        let known = self.has(participant);
        self.streams
            .insert(started.stream, Live { participant: Arc::clone(&started.participant), gateway: started.gateway });
        // A gateway that just spoke is alive, whether or not it renewed for this conversation yet.
        self.leases.entry(started.gateway).or_insert(Holder { until: now + limits.gateway_lease, listeners: 0 });
        self.no_connection_timeout = started.no_connection_timeout;
        self.state = State::Open;
        self.linger = None;
        self.ending = None;
        self.heard(now);
        if known { Vec::new() } else { vec![Event::Joined(Arc::clone(&started.participant))] }
    }

    /// A stream ended; `next` is the offset of the first event answered here. Answers what is to be appended behind it.
    pub fn stream_ended(
        &mut self,
        ended: &StreamEnded,
        next: Offset,
        analyst: Option<AnalystProgress>,
        now: Timestamp,
        limits: &Limits,
    ) -> Vec<Event> {
        let Some(live) = self.streams.remove(&ended.stream) else { return Vec::new() };
        let mut events = Vec::new();
        if !self.has(live.participant.id) {
            events.push(Event::Left(live.participant));
        }
        if self.streams.is_empty() {
            match ended.how {
                StreamEnd::Stopped { linger } if linger.is_zero() => {
                    // The analyst is to have read the last event before `ended`.
                    let last = Offset(next.0 + events.len() as u64 - 1);
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
        events
    }

    /// The analyst has read further. Answers `ended` when that is what the end waited for.
    pub fn analyst_read(&mut self, analyst: AnalystProgress, now: Timestamp) -> Vec<Event> {
        match self.ending {
            Some((last, _)) if analyst.read >= last => vec![self.end(EndReason::Stopped, now)],
            _ => Vec::new(),
        }
    }

    /// What time asks for by now: streams of gateways that died end as lost, waits end. `top` is the newest offset.
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
        let ghosts: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, live)| !self.leases.contains_key(&live.gateway))
            .map(|(stream, _)| *stream)
            .collect();
        for stream in ghosts {
            let lost = StreamEnded { stream, how: StreamEnd::Lost };
            events.push(Event::StreamEnded(lost.clone()));
            let next = Offset(top.0 + events.len() as u64 + 1);
            events.extend(self.stream_ended(&lost, next, analyst, now, limits));
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
            for live in self.streams.values() {
                gone.insert(live.participant.id, Arc::clone(&live.participant));
            }
            events.extend(gone.into_values().map(Event::Left));
            events.push(self.end(EndReason::Silence, now));
        }
        events
    }

    /// The entries became one record.
    pub fn compacted(&mut self) {
        self.state = State::Compacted;
    }

    pub fn deleted(&mut self, now: Timestamp) {
        self.state = State::Deleted;
        self.ended = Some(now);
        self.streams.clear();
        self.linger = None;
        self.ending = None;
    }

    /// When [`Life::tick`], compaction or retention next has something to do.
    pub fn next(&self, limits: &Limits) -> Option<Timestamp> {
        match self.state {
            State::Open | State::Lingering => {
                let leases = self
                    .streams
                    .values()
                    .map(|live| self.leases.get(&live.gateway).map_or(Timestamp::ZERO, |holder| holder.until));
                let waits = self.linger.map(|(until, _)| until).into_iter().chain(self.ending.map(|(_, until)| until));
                leases.chain(waits).chain([self.heard + limits.silence]).min()
            }
            State::Ended => self.ended.map(|ended| ended + limits.compact_after),
            State::Compacted | State::Deleted => self.ended.map(|ended| ended + limits.record_retention),
        }
    }

    fn has(&self, participant: ParticipantId) -> bool {
        self.streams.values().any(|live| live.participant.id == participant)
    }

    fn linger(&mut self, until: Timestamp, reason: EndReason) {
        self.state = State::Lingering;
        self.linger = Some((until, reason));
    }

    fn end(&mut self, reason: EndReason, now: Timestamp) -> Event {
        self.state = State::Ended;
        self.ended = Some(now);
        self.streams.clear();
        self.linger = None;
        self.ending = None;
        Event::Ended(Ended { at: now, reason })
    }
}
