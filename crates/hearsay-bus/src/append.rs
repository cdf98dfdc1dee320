//! Drives a [`Publisher`] against a log: calls, waits and claims, and nothing it decides itself.

use std::{sync::Arc, time::Duration};

use hearsay_protocol::{ConversationKey, Event, Generation, PublisherId, Seen, Timestamp};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    Bus, Claim, Error, Published, Refusal, metrics,
    publisher::{AfterBranch, Backlog, Publisher, Step, Stretch},
};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);
/// Stretches that may wait: those whose append was given up, and what follows them.
const WAITING: usize = 16;

/// Who claims the place again when history branched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reclaims {
    /// We do: the place is ours alone.
    Itself,
    /// Somebody else does, who has to be told: appending ends with [`Refusal::Reclaim`].
    Elsewhere,
}

/// One publisher's way to the log: each stretch exactly once, in order, through calls that may fail.
pub struct Appender {
    bus: Arc<dyn Bus>,
    key: ConversationKey,
    id: PublisherId,
    reclaims: Reclaims,
    publisher: Publisher,
    /// As the log answered the last one.
    claim: Claim,
    /// What nobody can append again is given up.
    goes_on: bool,
    /// The publisher's clock: only differences matter to it.
    began: Instant,
    /// How far the input reaches that was handed over.
    through: u64,
}

impl Appender {
    pub fn new(
        bus: Arc<dyn Bus>,
        key: ConversationKey,
        id: PublisherId,
        claim: &Claim,
        reclaims: Reclaims,
        after_branch: AfterBranch,
    ) -> Self {
        let publisher = Publisher::new(id.clone(), claim, after_branch, Backlog { batches: WAITING });
        let (claim, through) = (claim.clone(), claim.watermark);
        Self { bus, key, id, reclaims, publisher, claim, goes_on: false, began: Instant::now(), through }
    }

    /// Claims the place and appends from it.
    ///
    /// # Errors
    /// What the log says, after `patience` when it says nothing.
    pub async fn claim(
        bus: Arc<dyn Bus>,
        key: ConversationKey,
        id: PublisherId,
        after_branch: AfterBranch,
        patience: Duration,
    ) -> Result<(Self, Claim), Error> {
        let claim = patiently(patience, || bus.claim(&key, &id)).await?;
        Ok((Self::new(bus, key, id, &claim, Reclaims::Itself, after_branch), claim))
    }

    pub fn generation(&self) -> Generation {
        self.publisher.generation()
    }

    /// The newest entry this publisher knows of.
    pub fn seen(&self) -> Seen {
        self.publisher.seen()
    }

    /// Appends a stretch, and before it whatever waits or was lost of the last minute's. After [`Error::Unavailable`], or
    /// when dropped before its end, it waits: the next append takes it along, and so does its own repetition.
    ///
    /// # Errors
    /// The log's refusal, or that it was out of reach for `patience`.
    pub async fn append(&mut self, stretch: Stretch, patience: Duration) -> Result<Published, Error> {
        let through = stretch.through;
        self.through = self.through.max(through);
        if self.publisher.waits_through() != Some(through) && self.publisher.push(stretch).is_err() {
            return Err(Error::Unavailable(format!("{WAITING} batches wait for the log already")));
        }
        self.drive(Some(through), patience).await?.ok_or_else(|| Refusal::Reclaim.into())
    }

    /// Appends one event of a publisher whose input is the count of its events.
    ///
    /// # Errors
    /// As [`Appender::append`]; the event then waits for the next one.
    pub async fn append_event(&mut self, event: Event, patience: Duration) -> Result<Published, Error> {
        let from = self.through;
        let stretch = Stretch { from, through: from + 1, events: vec![event], restart: None };
        self.append(stretch, patience).await
    }

    /// Another has appended this stretch by our claim, and the log was `top` then. It is kept for another history.
    pub fn accepted(&mut self, stretch: Stretch, top: Seen) {
        self.through = self.through.max(stretch.through);
        let now = self.now();
        self.publisher.accepted(stretch, top, now);
    }

    /// Takes the place anew, which fences whoever appends by our last claim, and appends again what the log has lost of the
    /// last minute's; what is older and lost is given up. The claim answered is that of the place after it.
    ///
    /// # Errors
    /// As [`Appender::append`]; another attempt goes on where this one ended.
    pub async fn claim_again(&mut self, patience: Duration) -> Result<Claim, Error> {
        if self.publisher.newest().is_some() {
            // Nobody else may have seen what was lost.
            patiently(patience, || self.bus.read(&self.key, self.publisher.seen(), 1)).await?;
        }
        self.goes_on = true;
        self.publisher.branched();
        self.drive(None, patience).await?;
        let mut claim = self.claim.clone();
        claim.top = self.publisher.seen();
        if let Some(newest) = self.publisher.newest().filter(|newest| newest.through > claim.watermark) {
            claim.watermark = newest.through;
            claim.restart = newest.restart.clone().or(claim.restart);
        }
        Ok(claim)
    }

    /// Asks the log whether it still has what was appended by our claim. The question goes its own way, whatever is appended
    /// meanwhile.
    ///
    /// # Errors
    /// What the log says, after `patience` when it says nothing.
    pub fn has_branched(&self, patience: Duration) -> impl Future<Output = Result<bool, Error>> + Send + 'static {
        let (bus, key, id) = (Arc::clone(&self.bus), self.key.clone(), self.id.clone());
        let (seen, generation) = (self.publisher.seen(), self.publisher.generation());
        async move {
            // Nobody else may have seen what was lost.
            patiently(patience, || bus.read(&key, seen, 1)).await?;
            match patiently(patience, || bus.keep(&key, &id, generation)).await {
                Err(Error::Refused(Refusal::Reclaim)) => Ok(true),
                answer => answer.map(|()| false),
            }
        }
    }

    /// Asks whether history branched, and appends again what that lost. For publishers that seldom append.
    ///
    /// # Errors
    /// As [`Appender::append`].
    pub async fn check(&mut self, patience: Duration) -> Result<(), Error> {
        if self.has_branched(patience).await? {
            self.publisher.branched();
            self.drive(None, patience).await?;
        }
        Ok(())
    }

    /// Until the stretch up to `through` is on the log, or there is nothing left to do.
    async fn drive(&mut self, through: Option<u64>, patience: Duration) -> Result<Option<Published>, Error> {
        let give_up = Instant::now() + patience;
        let mut last = String::from("no answer");
        self.publisher.interrupted();
        loop {
            match self.publisher.next(self.now()) {
                Step::Idle => return Ok(None),
                Step::Over(refusal) => return Err(refusal.into()),
                Step::Wait(until) => {
                    let at = self.began + Duration::from_micros(until.micros());
                    if at >= give_up {
                        return Err(Error::Unavailable(last));
                    }
                    sleep_until(at).await;
                }
                Step::Publish(batch) => {
                    let answer = bounded(self.bus.publish(&self.key, *batch)).await;
                    if let Err(Error::Unavailable(why)) = &answer {
                        metrics::retried();
                        last.clone_from(why);
                    }
                    let (now, jitter) = (self.now(), rand::random());
                    if let Some((stretch, published)) = self.publisher.answered(answer, now, jitter)
                        && Some(stretch.through) == through
                    {
                        return Ok(Some(published));
                    }
                }
                Step::Claim if self.reclaims == Reclaims::Elsewhere => return Err(Refusal::Reclaim.into()),
                Step::Claim => {
                    let answer = bounded(self.bus.claim(&self.key, &self.id)).await;
                    if let Err(Error::Unavailable(why)) = &answer {
                        last.clone_from(why);
                    }
                    let (now, jitter) = (self.now(), rand::random());
                    let before = self.publisher.waiting();
                    if let Ok(claim) = &answer {
                        self.claim = claim.clone();
                    }
                    self.publisher.claimed(answer, now, jitter);
                    if self.goes_on
                        && let Some((from, through)) = self.publisher.give_up(self.claim.watermark)
                    {
                        metrics::unrecoverable();
                        tracing::error!(
                            key = %self.key, publisher = ?self.id, from, through,
                            "the log has lost what nobody keeps any more: the input goes on behind it"
                        );
                    }
                    metrics::reappended(self.publisher.waiting().saturating_sub(before));
                }
            }
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// Repeats a call until the log answers, at most for `patience`.
///
/// # Errors
/// The log's refusal, or why it did not answer.
pub async fn patiently<T, F>(patience: Duration, mut call: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    const FIRST: Duration = Duration::from_millis(50);
    const LAST: Duration = Duration::from_secs(1);
    let give_up = Instant::now() + patience;
    let mut pause = FIRST;
    loop {
        match bounded(call()).await {
            Err(error) if error.is_transient() && Instant::now() + pause < give_up => {
                sleep_until(Instant::now() + pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                pause = (pause * 2).min(LAST);
            }
            answer => return answer,
        }
    }
}

async fn bounded<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(CALL, call).await.unwrap_or_else(|_| Err(Error::Unavailable(format!("no answer within {CALL:?}"))))
}

#[cfg(test)]
mod tests {
    use hearsay_protocol::{
        AccountId, ConversationId, Epoch, MeetingId, MeetingKey,
        event::{EndReason, Ended},
    };

    use super::*;
    use crate::{Body, MemoryBus, Proposal, Read};

    fn stretch(n: u64) -> Stretch {
        let event = Event::Ended(Ended { at: Timestamp(n), reason: EndReason::Silence });
        Stretch { from: n, through: n + 1, events: vec![event], restart: None }
    }

    async fn opened() -> (MemoryBus, ConversationKey) {
        let bus = MemoryBus::default();
        let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("m").unwrap() };
        let proposal = Proposal { conversation: ConversationId::from_random(1), epoch: Epoch(1), title: String::new() };
        let key = bus.open(&meeting, proposal).await.unwrap().key;
        (bus, key)
    }

    async fn on_the_log(bus: &MemoryBus, key: &ConversationKey) -> Vec<u64> {
        let Read::Page(page) = bus.read(key, Seen::NOTHING, 100).await.unwrap() else { panic!("a gap") };
        let ours = page.entries.iter().filter_map(|entry| match &entry.body {
            Body::Event(Event::Ended(ended)) => Some(ended.at.0),
            _ => None,
        });
        ours.collect()
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn what_a_failover_lost_is_appended_again() {
        let (bus, key) = opened().await;
        let id = PublisherId::Rest(uuid::Uuid::from_u128(1));
        let log: Arc<dyn Bus> = Arc::new(bus.clone());
        let (mut appender, _) = Appender::claim(log, key.clone(), id, AfterBranch::Reappend, PATIENCE).await.unwrap();
        for n in 0..3 {
            appender.append(stretch(n), PATIENCE).await.unwrap();
        }
        let replica = bus.replica(&key).unwrap();
        for n in 3..5 {
            appender.append(stretch(n), PATIENCE).await.unwrap();
        }
        bus.fail_over(replica);
        appender.append(stretch(5), PATIENCE).await.unwrap();
        assert_eq!(on_the_log(&bus, &key).await, [0, 1, 2, 3, 4, 5]);
        // And without anything to append.
        let replica = bus.replica(&key).unwrap();
        appender.append(stretch(6), PATIENCE).await.unwrap();
        bus.fail_over(replica);
        appender.check(PATIENCE).await.unwrap();
        assert_eq!(on_the_log(&bus, &key).await, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_append_that_was_dropped_goes_out_with_the_next() {
        let (bus, key) = opened().await;
        let id = PublisherId::Rest(uuid::Uuid::from_u128(1));
        let log: Arc<dyn Bus> = Arc::new(bus.clone());
        let (mut appender, _) = Appender::claim(log, key.clone(), id, AfterBranch::Reappend, PATIENCE).await.unwrap();
        let event = |n| Event::Ended(Ended { at: Timestamp(n), reason: EndReason::Silence });
        appender.append_event(event(0), PATIENCE).await.unwrap();
        drop(appender.append_event(event(1), PATIENCE));
        let dropped = futures::FutureExt::now_or_never(appender.append_event(event(2), Duration::ZERO));
        assert!(dropped.is_none_or(|outcome| outcome.is_ok()));
        appender.append_event(event(3), PATIENCE).await.unwrap();
        // The first was never polled, so it was never handed over.
        assert_eq!(on_the_log(&bus, &key).await, [0, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_not_claim_says_so() {
        let (bus, key) = opened().await;
        let id = PublisherId::Rest(uuid::Uuid::from_u128(1));
        let claim = bus.claim(&key, &id).await.unwrap();
        let log: Arc<dyn Bus> = Arc::new(bus.clone());
        let mut appender = Appender::new(log, key.clone(), id, &claim, Reclaims::Elsewhere, AfterBranch::Reappend);
        let replica = bus.replica(&key).unwrap();
        appender.append(stretch(0), PATIENCE).await.unwrap();
        bus.fail_over(replica);
        let refused = appender.append(stretch(1), PATIENCE).await;
        assert!(matches!(refused, Err(Error::Refused(Refusal::Reclaim))), "{refused:?}");
    }
}
