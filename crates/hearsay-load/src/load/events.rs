//! Events as recognizers publish them, straight to the log and at a steady rate: finals with their words, each announced by
//! partials before it, and now and then what an analyst finds in them, from its own place.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hearsay_bus::{Batch, Bus, Claim, Error, Lease, Proposal, Refusal};
use hearsay_protocol::{
    AccountId, ConversationId, ConversationKey, Epoch, Event, EventId, GatewayId, MeetingId, MeetingKey, ParticipantId,
    PublisherId, StreamId, StreamTime, UtteranceId,
    event::{
        Ephemeral, Final, Insight, InsightBody, Partial, Participant, SpeakerConfig, SpokenWord, StreamEnd,
        StreamEnded, StreamStarted,
    },
};
use hearsay_runtime::Tasks;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use uuid::Uuid;

use super::{nanos, report::Report, stamp};

/// For one call of the log.
const CALL: Duration = Duration::from_secs(10);
/// Between a failed call and its repetition.
const RETRY: Duration = Duration::from_millis(50);
/// A meeting's lease is renewed this often, as a gateway would.
const RENEW: Duration = Duration::from_secs(2);
/// Words of an event that carry times.
const WORDS: usize = 12;
/// What a speaker has said with each final, µs.
const SECOND: u64 = 1_000_000;

/// What to do.
#[derive(Debug, Clone)]
pub struct Publish {
    pub account: AccountId,
    /// Meetings are `<prefix>-0`, `<prefix>-1`, …; one speaker each.
    pub prefix: String,
    pub meetings: usize,
    /// Finals and insights a second, of all meetings together.
    pub rate: f64,
    /// Partials before each final, on top of that.
    pub partials: u32,
    /// Finals between two insights; 0: none at all.
    pub insights: u32,
    /// Bytes of an event's text.
    pub size: usize,
    /// Events in one call.
    pub batch: usize,
    pub duration: Duration,
    /// Before the first event, for listeners to come.
    pub wait: Duration,
}

/// How far a run is, for whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    pub sent: AtomicU64,
    pub accepted: AtomicU64,
    pub partials: AtomicU64,
}

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("meeting {meeting}: {error}")]
    Log { meeting: String, error: Error },
    #[error("--prefix: {0}")]
    Prefix(#[from] hearsay_protocol::ids::InvalidId),
}

/// Publishes, and tells how it went. Latencies are those of the log's calls; what was handed over and never accepted is
/// lost.
///
/// # Errors
/// When a meeting cannot be opened, or the log refuses what it should take.
pub async fn publish(
    bus: Arc<dyn Bus>,
    options: Publish,
    progress: Arc<Progress>,
    tasks: &Tasks,
) -> Result<Report, PublishError> {
    let gateway = GatewayId(Uuid::new_v4());
    let mut speakers = Vec::with_capacity(options.meetings);
    for index in 0..options.meetings.max(1) {
        let meeting = format!("{}-{index}", options.prefix);
        let key = MeetingKey { account: options.account.clone(), meeting: MeetingId::new(&meeting)? };
        let speaker = Speaker::open(Arc::clone(&bus), key, gateway, options.insights > 0).await;
        speakers.push(speaker.map_err(|error| PublishError::Log { meeting, error })?);
    }
    let leases: Vec<Lease> = speakers.iter().map(|speaker| Lease { key: speaker.key.clone(), listeners: 0 }).collect();
    let over = tasks.drain();
    let renewing = {
        let bus = Arc::clone(&bus);
        tasks.spawn_background("leases", async move {
            loop {
                if !matches!(timeout(CALL, bus.renew(gateway, &leases)).await, Ok(Ok(_))) {
                    tracing::warn!("leases could not be renewed; the next try is in {RENEW:?}");
                }
                tokio::select! {
                    () = sleep(RENEW) => {}
                    () = over.finished() => return,
                }
            }
        })
    };
    sleep(options.wait).await;

    let (done, mut reports) = mpsc::channel(1_024);
    let begun = Instant::now();
    let every = Duration::from_secs_f64((speakers.len() * options.batch.max(1)) as f64 / options.rate.max(1e-3));
    let count = speakers.len();
    for (index, speaker) in speakers.into_iter().enumerate() {
        let (options, done, progress) = (options.clone(), done.clone(), Arc::clone(&progress));
        let first = begun + every.mul_f64(index as f64 / count as f64);
        tasks.spawn("speaker", async move {
            let outcome = speaker.speak(&options, first, begun + options.duration, every, &progress).await;
            // Nobody waits for it when the run was given up.
            let _ = done.send(outcome).await;
        });
    }
    drop(done);
    let mut report = Report::default();
    let mut failed = None;
    while let Some(outcome) = reports.recv().await {
        match outcome {
            Ok(one) => report.add(&one),
            Err(error) => failed = Some(error),
        }
    }
    report.took = begun.elapsed();
    renewing.abort();
    failed.map_or(Ok(report), Err)
}

struct Speaker {
    bus: Arc<dyn Bus>,
    key: ConversationKey,
    place: Place,
    /// Where insights come from; none where another analyst holds it.
    analyst: Option<Place>,
    stream: StreamId,
    participant: Arc<Participant>,
}

/// A publisher's place on the log, and how far its input is.
struct Place {
    id: PublisherId,
    claim: Claim,
    at: u64,
}

impl Place {
    async fn take(bus: &dyn Bus, key: &ConversationKey, id: PublisherId) -> Result<Self, Error> {
        let claim = call(bus.claim(key, &id)).await?;
        Ok(Self { id, at: claim.watermark, claim })
    }

    /// Repeats what may not have happened until the log takes it or refuses it. How often it was repeated.
    async fn publish(&mut self, bus: &dyn Bus, key: &ConversationKey, events: Vec<Event>) -> Result<u64, Error> {
        let through = self.at + events.len().max(1) as u64;
        let mut repeated = 0;
        loop {
            let batch = Batch {
                publisher: self.id.clone(),
                generation: self.claim.generation,
                from: self.at,
                through,
                events: events.clone(),
                restart: None,
                seen: self.claim.top,
            };
            match call(bus.publish(key, batch)).await {
                Ok(published) => {
                    self.claim.top = published.top;
                    self.at = through;
                    return Ok(repeated);
                }
                Err(Error::Refused(Refusal::Reclaim)) => {
                    let claim = call(bus.claim(key, &self.id)).await;
                    if let Ok(claim) = claim {
                        // What was rolled back of ours is gone: a recognizer would append it again.
                        self.at = self.at.min(claim.watermark);
                        self.claim = claim;
                        if self.at + (events.len().max(1) as u64) != through {
                            return Box::pin(self.publish(bus, key, events)).await.map(|more| more + repeated + 1);
                        }
                    }
                }
                Err(Error::Unavailable(_)) => sleep(RETRY).await,
                Err(error) => return Err(error),
            }
            repeated += 1;
        }
    }

    /// Says that nothing is left to be found in what was said. Best effort: the log waits for this word for a moment only.
    async fn has_read_everything(&self, bus: &dyn Bus, key: &ConversationKey) {
        let Ok(meta) = call(bus.meta(key)).await else { return };
        let batch = Batch {
            publisher: self.id.clone(),
            generation: self.claim.generation,
            from: self.at,
            through: meta.top.offset.0.max(self.at + 1),
            events: Vec::new(),
            restart: None,
            seen: self.claim.top,
        };
        if let Err(error) = call(bus.publish(key, batch)).await {
            tracing::debug!(%key, %error, "the end waits for its time");
        }
    }
}

async fn call<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(CALL, call).await.unwrap_or_else(|_| Err(Error::Unavailable(format!("no answer within {CALL:?}"))))
}

impl Speaker {
    async fn open(bus: Arc<dyn Bus>, meeting: MeetingKey, gateway: GatewayId, insights: bool) -> Result<Self, Error> {
        let random = Uuid::new_v4().as_u64_pair();
        let proposal = Proposal {
            conversation: ConversationId::from_random(random.0),
            epoch: Epoch(random.1 as u32),
            title: meeting.meeting.to_string(),
        };
        let key = call(bus.open(&meeting, proposal)).await?.key;
        let stream = StreamId(Uuid::new_v4());
        let participant = Arc::new(Participant {
            id: ParticipantId(stream.0),
            user_id: None,
            name: Some("Load".to_owned()),
            email: None,
        });
        let place = Place::take(&*bus, &key, PublisherId::Stream(stream)).await?;
        let analyst = match insights {
            true => match Place::take(&*bus, &key, PublisherId::Analyst).await {
                Err(Error::Refused(Refusal::Held { .. })) => None,
                taken => Some(taken?),
            },
            false => None,
        };
        let mut speaker = Self { bus, key, place, analyst, stream, participant };
        let started = Event::StreamStarted(Arc::new(StreamStarted {
            stream,
            participant: Arc::clone(&speaker.participant),
            gateway,
            config: SpeakerConfig::default(),
            origin: speaker.place.claim.origin,
            recorded: false,
            no_connection_timeout: Duration::ZERO,
        }));
        speaker.by_gateway(started).await?;
        Ok(speaker)
    }

    async fn by_gateway(&mut self, event: Event) -> Result<(), Error> {
        // Of this stream alone: no other operation of it is under way.
        let id = PublisherId::Rest(Uuid::new_v4());
        let mut place = Place::take(&*self.bus, &self.key, id).await?;
        place.publish(&*self.bus, &self.key, vec![event]).await.map(drop)
    }

    async fn speak(
        mut self,
        options: &Publish,
        first: Instant,
        until: Instant,
        every: Duration,
        progress: &Progress,
    ) -> Result<Report, PublishError> {
        let mut report = Report { members: 1, ..Report::default() };
        let mut due = first;
        let mut calls = 0_u32;
        let outcome = loop {
            if due >= until {
                break Ok(());
            }
            calls = calls.wrapping_add(1);
            let found = options.insights > 0 && calls.is_multiple_of(options.insights + 1) && self.analyst.is_some();
            if !found {
                report.failed += self.announce(options, due, every, progress).await;
            }
            sleep_until(due).await;
            // A log that is behind is not spared: the schedule stands, and what is late goes out at once.
            due += every;
            let count = if found { 1 } else { options.batch.max(1) as u64 };
            let sent = nanos();
            report.sent += count;
            progress.sent.fetch_add(count, Ordering::Relaxed);
            let events = match found {
                true => vec![self.insight(calls, sent, options.size)],
                false => (0..count).map(|n| self.event(n, sent, options.size)).collect(),
            };
            let place = if found { self.analyst.as_mut().unwrap_or(&mut self.place) } else { &mut self.place };
            match place.publish(&*self.bus, &self.key, events).await {
                Ok(repeated) => {
                    report.failed += repeated;
                    report.delivered += count;
                    report.latency(nanos().saturating_sub(sent));
                    progress.accepted.fetch_add(count, Ordering::Relaxed);
                }
                Err(error) => break Err(error),
            }
        };
        report.lost = report.sent - report.delivered;
        let ended = StreamEnded { stream: self.stream, how: StreamEnd::Stopped { linger: Duration::ZERO } };
        let closed = self.by_gateway(Event::StreamEnded(ended)).await;
        if let Some(analyst) = &self.analyst {
            analyst.has_read_everything(&*self.bus, &self.key).await;
        }
        let meeting = self.key.meeting.meeting.to_string();
        outcome.and(closed).map(|()| report).map_err(|error| PublishError::Log { meeting, error })
    }

    /// What is said so far, until it is said. How many of these the log did not take: nobody waits for them.
    async fn announce(&self, options: &Publish, due: Instant, every: Duration, progress: &Progress) -> u64 {
        let mut failed = 0;
        let start = self.start_of(0);
        for revision in 1..=options.partials {
            let left = options.partials + 1 - revision;
            // The first is due when the run begins.
            sleep_until(due.checked_sub(every * left / (options.partials + 1)).unwrap_or(due)).await;
            let text = stamp(nanos(), options.size * revision as usize / (options.partials as usize + 1));
            let partial = Ephemeral::Partial(Arc::new(Partial {
                stream: self.stream,
                utterance: UtteranceId::after_cut(self.stream, start),
                revision,
                participant: Arc::clone(&self.participant),
                origin: self.place.claim.origin,
                start,
                end: StreamTime(start.0 + SECOND * u64::from(revision) / u64::from(options.partials + 1)),
                text,
                stable: 0,
                confidence: 0.5,
            }));
            let (id, generation) = (&self.place.id, self.place.claim.generation);
            match call(self.bus.announce(&self.key, id, generation, vec![partial])).await {
                Ok(()) => drop(progress.partials.fetch_add(1, Ordering::Relaxed)),
                // Of a branch the next final finds out.
                Err(_) => failed += 1,
            }
        }
        failed
    }

    fn start_of(&self, n: u64) -> StreamTime {
        StreamTime((self.place.at + n) * SECOND)
    }

    fn insight(&self, number: u32, sent: u64, size: usize) -> Event {
        Event::Insight(Arc::new(Insight {
            id: EventId(Uuid::from_u128(self.stream.0.as_u128().wrapping_add(u128::from(number)))),
            revision: 0,
            retracted: false,
            confidence: 0.9,
            text: stamp(sent, size),
            from: Some(Arc::clone(&self.participant)),
            evidence: Vec::new(),
            body: InsightBody::Question,
        }))
    }

    fn event(&self, n: u64, sent: u64, size: usize) -> Event {
        let start = self.start_of(n);
        let text = stamp(sent, size);
        let words = text.split(' ').take(WORDS).enumerate();
        let words = words
            .map(|(index, word)| SpokenWord {
                text: word.to_owned(),
                start: StreamTime(start.0 + index as u64 * SECOND / WORDS as u64),
                end: StreamTime(start.0 + (index as u64 + 1) * SECOND / WORDS as u64),
                confidence: 0.9,
            })
            .collect();
        Event::Final(Arc::new(Final {
            sentiment: Vec::new(),
            trace: None,
            stream: self.stream,
            utterance: UtteranceId::after_cut(self.stream, start),
            participant: Arc::clone(&self.participant),
            origin: self.place.claim.origin,
            start,
            end: StreamTime(start.0 + SECOND),
            text,
            language: "en-US".to_owned(),
            confidence: 0.9,
            words,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use hearsay_bus::{Body, Delivery, MemoryBus, Read, Seen, State};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_run_leaves_contiguous_events_and_ended_conversations() {
        let bus: Arc<dyn Bus> = Arc::new(MemoryBus::default());
        let options = Publish {
            account: AccountId::dev(),
            prefix: "load".to_owned(),
            meetings: 3,
            rate: 30.0,
            partials: 2,
            insights: 4,
            size: 100,
            batch: 2,
            duration: Duration::from_secs(4),
            wait: Duration::ZERO,
        };
        let mut watch = bus
            .watch(&MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("load-1").unwrap() })
            .await
            .unwrap();
        let key = async {
            let key = watch.next().await.unwrap();
            let mut subscription = bus.subscribe(&key).await.unwrap();
            let mut partials = Vec::new();
            while let Some(delivery) = subscription.next().await {
                match delivery {
                    Delivery::Ephemeral { ephemerals, .. } => partials.extend(ephemerals.iter().cloned()),
                    Delivery::Appended { entries, .. } if entries.iter().any(|entry| ends(&entry.body)) => break,
                    _ => {}
                }
            }
            (key, partials)
        };
        let progress = Arc::new(Progress::default());
        let tasks = Tasks::new();
        let publishing = publish(Arc::clone(&bus), options, Arc::clone(&progress), &tasks);
        let (report, (key, partials)) = tokio::join!(publishing, key);
        let report = report.unwrap();
        // Each meeting calls 20 times in 4 s, every fifth time with an insight, otherwise with two finals.
        assert_eq!((report.sent, report.delivered, report.lost), (3 * (16 * 2 + 4), 3 * (16 * 2 + 4), 0));
        let utterances: HashSet<UtteranceId> = partials.iter().filter_map(of_utterance).collect();
        assert_eq!((partials.len(), utterances.len()), (32, 16), "two before each call with finals");
        assert_eq!(progress.partials.load(Ordering::Relaxed), 96);
        assert_eq!(bus.meta(&key).await.unwrap().state, State::Ended);
        let Read::Page(page) = bus.read(&key, Seen::NOTHING, 1_000).await.unwrap() else { panic!() };
        let finals = page.entries.iter().filter_map(|entry| match &entry.body {
            Body::Event(Event::Final(spoken)) => Some(spoken.utterance),
            _ => None,
        });
        let finals: Vec<UtteranceId> = finals.collect();
        assert_eq!(finals.len(), 32);
        assert!(utterances.iter().all(|utterance| finals.contains(utterance)), "each is said in the end");
        let insights = page.entries.iter().filter(|entry| {
            entry.publisher == PublisherId::Analyst && matches!(&entry.body, Body::Event(Event::Insight(_)))
        });
        assert_eq!(insights.count(), 4);
    }

    fn ends(body: &Body) -> bool {
        matches!(body, Body::Event(Event::Ended(_)))
    }

    fn of_utterance(ephemeral: &Ephemeral) -> Option<UtteranceId> {
        match ephemeral {
            Ephemeral::Partial(partial) => Some(partial.utterance),
            _ => None,
        }
    }
}
