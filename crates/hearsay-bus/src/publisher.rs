//! Appends batches exactly once through calls that may fail: the retry logic as a state machine without I/O or clock.
//!
//! Batches go out in order, one call in flight. A call that may or may not have happened is repeated as it was; the log
//! answers the repetition as a duplicate. What was accepted in the last minute is kept: when history branches and the
//! driver claimed anew, whatever the log rolled back is appended again.

use std::{collections::VecDeque, time::Duration};

use hearsay_protocol::{Generation, PublisherId, Restart, Seen, Timestamp};

use crate::{Batch, Claim, Error, Published, Refusal};

/// First wait after a failed call; doubles up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_LAST: Duration = Duration::from_secs(1);
/// How long an accepted batch is kept for another history.
const KEEP: Duration = Duration::from_secs(60);
/// Accepted batches kept at most.
const KEPT: usize = 1_024;

/// What a publisher may owe the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// Batches that wait; one more is refused and handed back.
    pub batches: usize,
}

/// Whether what the log rolled back is appended again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterBranch {
    /// Streams: what was said stays said.
    Reappend,
    /// Analyst and actions: their input was rolled back too, so they read it again.
    Forget,
}

/// One stretch of input and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    pub from: u64,
    pub through: u64,
    pub events: Vec<hearsay_protocol::Event>,
    pub restart: Option<Restart>,
}

/// What the driver does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Call [`crate::Bus::publish`] with this and hand the answer to [`Publisher::answered`].
    Publish(Box<Batch>),
    /// Nothing before this time.
    Wait(Timestamp),
    /// Claim the publisher's place and hand the claim to [`Publisher::claimed`].
    Claim,
    /// Nothing to do until something is pushed.
    Idle,
    /// Nothing will ever be accepted again.
    Over(Refusal),
}

/// See the module.
#[derive(Debug)]
pub struct Publisher {
    publisher: PublisherId,
    generation: Generation,
    seen: Seen,
    after_branch: AfterBranch,
    backlog: Backlog,
    waiting: VecDeque<Stretch>,
    /// Accepted, with when; oldest first.
    kept: VecDeque<(Timestamp, Stretch)>,
    /// The front of `waiting` is being published.
    in_flight: bool,
    retry_at: Option<Timestamp>,
    retries: u32,
    reclaim: bool,
    over: Option<Refusal>,
}

impl Publisher {
    pub fn new(publisher: PublisherId, claim: &Claim, after_branch: AfterBranch, backlog: Backlog) -> Self {
        Self {
            publisher,
            generation: claim.generation,
            seen: claim.top,
            after_branch,
            backlog,
            waiting: VecDeque::new(),
            kept: VecDeque::new(),
            in_flight: false,
            retry_at: None,
            retries: 0,
            reclaim: false,
            over: None,
        }
    }

    /// Takes a stretch to publish behind all others; hands it back when too much waits.
    pub fn push(&mut self, stretch: Stretch) -> Result<(), Stretch> {
        if self.waiting.len() >= self.backlog.batches {
            return Err(stretch);
        }
        self.waiting.push_back(stretch);
        Ok(())
    }

    /// Stretches that the log has not accepted.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The call under way was given up without an answer: it is repeated as it was.
    pub fn interrupted(&mut self) {
        self.in_flight = false;
    }

    /// The newest entry this publisher knows of: who shows it to the log finds out whether history was lost.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// After a claim: what the log has lost and is not kept here any more is given up, because it takes the rest only behind
    /// that. Answers the part of the input whose events are gone.
    pub fn give_up(&mut self, watermark: u64) -> Option<(u64, u64)> {
        let from = self.waits_from().filter(|from| *from > watermark)?;
        self.waiting.push_front(Stretch { from: watermark, through: from, events: Vec::new(), restart: None });
        Some((watermark, from))
    }

    /// Where the oldest stretch begins that the log has not accepted: above the watermark after a claim, something was lost
    /// that is not kept any more.
    pub fn waits_from(&self) -> Option<u64> {
        self.waiting.front().map(|stretch| stretch.from)
    }

    /// How far the newest stretch reaches that the log has not accepted.
    pub fn waits_through(&self) -> Option<u64> {
        self.waiting.back().map(|stretch| stretch.through)
    }

    /// The log says that history branched: the place is claimed anew before anything else.
    pub fn branched(&mut self) {
        self.reclaim = true;
    }

    pub fn next(&mut self, now: Timestamp) -> Step {
        if let Some(refusal) = &self.over {
            return Step::Over(refusal.clone());
        }
        if self.in_flight {
            return Step::Idle;
        }
        if let Some(at) = self.retry_at.filter(|at| *at > now) {
            return Step::Wait(at);
        }
        self.retry_at = None;
        if self.reclaim {
            self.in_flight = true;
            return Step::Claim;
        }
        let Some(stretch) = self.waiting.front() else { return Step::Idle };
        self.in_flight = true;
        Step::Publish(Box::new(Batch {
            publisher: self.publisher.clone(),
            generation: self.generation,
            from: stretch.from,
            through: stretch.through,
            events: stretch.events.clone(),
            restart: stretch.restart.clone(),
            seen: self.seen,
        }))
    }

    /// The log's answer to the batch under way. `jitter` (0 to 1) spreads retries. Answers the stretch that is now on the
    /// log, and where.
    pub fn answered(
        &mut self,
        answer: Result<Published, Error>,
        now: Timestamp,
        jitter: f64,
    ) -> Option<(Stretch, Published)> {
        self.in_flight = false;
        match answer {
            Ok(published) => {
                self.retries = 0;
                self.seen = published.top;
                let stretch = self.waiting.pop_front()?;
                self.keep(stretch.clone(), now);
                return Some((stretch, published));
            }
            Err(Error::Unavailable(_)) => self.wait(now, jitter),
            Err(Error::Refused(Refusal::Reclaim)) => self.reclaim = true,
            Err(Error::Refused(refusal)) => self.over = Some(refusal),
        }
        None
    }

    /// Another put this stretch on the log by the claim that is held here: it is kept as if it had been published here.
    pub fn accepted(&mut self, stretch: Stretch, top: Seen, now: Timestamp) {
        self.seen = top;
        // What a stretch is missing behind could not be appended again.
        if self.newest().is_some_and(|newest| newest.through != stretch.from) {
            self.kept.clear();
        }
        self.keep(stretch, now);
    }

    /// The newest stretch that the log has accepted.
    pub fn newest(&self) -> Option<&Stretch> {
        self.kept.back().map(|(_, stretch)| stretch)
    }

    fn keep(&mut self, mut stretch: Stretch, now: Timestamp) {
        // Headers are the same for a whole stream, and the largest part of a stretch.
        if let Some(restart) = &mut stretch.restart
            && let Some(before) = self.newest().and_then(|newest| newest.restart.as_ref())
            && before.headers == restart.headers
        {
            restart.headers = before.headers.clone();
        }
        while self.kept.len() >= KEPT || self.kept.front().is_some_and(|(at, _)| now.since(*at) > KEEP) {
            self.kept.pop_front();
        }
        self.kept.push_back((now, stretch));
    }

    /// The answer to [`Step::Claim`].
    pub fn claimed(&mut self, answer: Result<Claim, Error>, now: Timestamp, jitter: f64) {
        self.in_flight = false;
        match answer {
            Ok(claim) => {
                self.reclaim = false;
                self.retries = 0;
                self.generation = claim.generation;
                self.seen = claim.top;
                match self.after_branch {
                    AfterBranch::Reappend => {
                        // What the log still has is kept on: another failover may lose it yet.
                        while let Some((at, stretch)) = self.kept.pop_back() {
                            if stretch.through <= claim.watermark {
                                self.kept.push_back((at, stretch));
                                break;
                            }
                            self.waiting.push_front(stretch);
                        }
                    }
                    AfterBranch::Forget => {
                        self.kept.clear();
                        self.waiting.clear();
                    }
                }
            }
            Err(Error::Unavailable(_)) => self.wait(now, jitter),
            Err(Error::Refused(refusal)) => self.over = Some(refusal),
        }
    }

    fn wait(&mut self, now: Timestamp, jitter: f64) {
        let wait = RETRY_FIRST.saturating_mul(1 << self.retries.min(16)).min(RETRY_LAST);
        self.retries += 1;
        self.retry_at = Some(now + wait.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hearsay_protocol::{
        AccountId, ConversationId, ConversationKey, Epoch, Event, MeetingId, MeetingKey, Seen, StreamId,
        event::{EndReason, Ended},
    };
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::{Bus, Limits, ManualClock, MemoryBus, Proposal, Read};

    fn stretch(n: u64) -> Stretch {
        // Any event will do that a reader can tell from the others.
        let event = Event::Ended(Ended { at: Timestamp(n), reason: EndReason::Silence });
        Stretch { from: n, through: n + 1, events: vec![event], restart: None }
    }

    struct Pair {
        bus: MemoryBus,
        clock: Arc<ManualClock>,
        key: ConversationKey,
        publisher: Publisher,
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        futures::executor::block_on(future)
    }

    impl Pair {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
            let bus = MemoryBus::new(Limits::default(), Arc::clone(&clock) as _);
            let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("m").unwrap() };
            let proposal =
                Proposal { conversation: ConversationId::from_random(1), epoch: Epoch(1), title: String::new() };
            let key = run(bus.open(&meeting, proposal)).unwrap().key;
            let id = PublisherId::Stream(StreamId(Uuid::from_u128(1)));
            let claim = run(bus.claim(&key, &id)).unwrap();
            let publisher = Publisher::new(id, &claim, AfterBranch::Reappend, Backlog { batches: 64 });
            Self { bus, clock, key, publisher }
        }

        /// Carries out steps until there is nothing to do. `fate` of each call: 0 answered, 1 lost on the way there, 2 lost
        /// on the way back.
        fn drive(&mut self, fates: &mut impl Iterator<Item = u8>) -> Vec<u64> {
            let mut accepted = Vec::new();
            loop {
                let now = run(self.bus.now()).unwrap();
                match self.publisher.next(now) {
                    Step::Idle => return accepted,
                    Step::Wait(until) => self.clock.advance(until.since(now)),
                    Step::Publish(batch) => {
                        let fate = fates.next().unwrap_or(0);
                        let answer = if fate == 1 { None } else { Some(run(self.bus.publish(&self.key, *batch))) };
                        let answer =
                            answer.filter(|_| fate != 2).unwrap_or_else(|| Err(Error::Unavailable("lost".to_owned())));
                        if let Some((stretch, _)) = self.publisher.answered(answer, now, 0.5) {
                            accepted.push(stretch.from);
                        }
                    }
                    Step::Claim => {
                        let id = self.publisher.publisher.clone();
                        let claim = run(self.bus.claim(&self.key, &id));
                        self.publisher.claimed(claim, now, 0.5);
                    }
                    Step::Over(refusal) => panic!("over: {refusal}"),
                }
            }
        }

        fn published(&self) -> Vec<u64> {
            let Read::Page(page) = run(self.bus.read(&self.key, Seen::NOTHING, 10_000)).unwrap() else { panic!() };
            page.entries
                .iter()
                .filter_map(|entry| match &entry.body {
                    crate::Body::Event(Event::Ended(ended)) => Some(ended.at.0),
                    _ => None,
                })
                .collect()
        }
    }

    proptest! {
        /// Whatever is lost on the way, each stretch is on the log once, in order, and acknowledged once.
        #[test]
        fn every_stretch_is_appended_once(
            pushes in prop::collection::vec(1usize..6, 1..12),
            fates in prop::collection::vec(0u8..3, 0..60),
        ) {
            let mut pair = Pair::new();
            let mut fates = fates.into_iter();
            let mut n = 0;
            let mut acknowledged = Vec::new();
            for burst in pushes {
                for _ in 0..burst {
                    prop_assert!(pair.publisher.push(stretch(n)).is_ok());
                    n += 1;
                }
                acknowledged.extend(pair.drive(&mut fates));
            }
            let expected: Vec<u64> = (0..n).collect();
            prop_assert_eq!(pair.published(), expected.clone());
            prop_assert_eq!(acknowledged, expected);
        }

        /// A failover loses the newest entries; the publisher puts them back, in order, none twice.
        #[test]
        fn what_a_failover_lost_is_appended_again(kept in 0u64..8, lost in 0u64..8, after in 1u64..4) {
            let mut pair = Pair::new();
            let mut calm = std::iter::empty();
            for n in 0..kept { pair.publisher.push(stretch(n)).unwrap(); }
            pair.drive(&mut calm);
            let replica = pair.bus.replica(&pair.key).unwrap();
            for n in kept..kept + lost { pair.publisher.push(stretch(n)).unwrap(); }
            pair.drive(&mut calm);
            pair.bus.fail_over(replica);
            for n in kept + lost..kept + lost + after { pair.publisher.push(stretch(n)).unwrap(); }
            pair.drive(&mut calm);
            prop_assert_eq!(pair.published(), (0..kept + lost + after).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_full_backlog_hands_the_stretch_back() {
        let mut pair = Pair::new();
        for n in 0..64 {
            pair.publisher.push(stretch(n)).unwrap();
        }
        assert_eq!(pair.publisher.push(stretch(64)), Err(stretch(64)));
    }
}
