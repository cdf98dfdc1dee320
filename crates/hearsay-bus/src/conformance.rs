//! What every bus must do: run against each of them.
//!
//! Each case is a function that panics with a sentence when the bus breaks its word. They need a bus of their own, its
//! clock in their hands, and a way to lose history as a failover does.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use hearsay_protocol::{
    AccountId, AudioFormat, ChunkNumber, ConversationId, ConversationKey, Epoch, Event, GatewayId, Generation,
    MeetingId, MeetingKey, Offset, ParticipantId, PublisherId, Restart, Seen, StreamId, StreamTime, Timestamp,
    UtteranceId,
    event::{
        EndReason, Ended, Ephemeral, EventKind, Final, Participant, SpeakerConfig, StreamEnd, StreamEnded,
        StreamStarted,
    },
};
use uuid::Uuid;

use crate::{
    Batch, Body, Bus, Claim, Delivery, Entry, Error, GapReason, Lease, Limits, Proposal, Published, Read, Refusal,
    State, Subscription, VISITS, errand::FOLLOW,
};

/// A bus to be held to its contract, and what the cases need beside it.
pub trait Subject: Send + Sync {
    fn bus(&self) -> Arc<dyn Bus>;
    fn limits(&self) -> Limits;
    /// Moves the bus's clock.
    fn advance(&self, by: Duration) -> BoxFuture<'_, ()>;
    /// Remembers the conversation; [`Subject::fail_over`] goes back to there, without telling anybody.
    fn checkpoint<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, ()>;
    fn fail_over<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, ()>;
}

/// A case by its name.
pub type Case = (&'static str, fn(&dyn Subject) -> BoxFuture<'_, ()>);

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// All cases.
        pub const CASES: &[Case] = &[$((stringify!($name), |subject| Box::pin($name(Stage::new(subject))))),*];
    };
}
cases!(
    opening_is_joining,
    events_are_numbered_without_holes,
    a_superseded_publisher_is_fenced,
    a_repeated_range_is_a_duplicate,
    overlaps_holes_and_empty_ranges_are_refused,
    a_straddling_replay_is_refused,
    an_empty_batch_moves_only_the_watermark,
    concurrent_claims_get_different_generations,
    a_leased_place_is_held_until_its_lease_ends,
    ephemerals_take_no_offset,
    a_late_joiner_misses_nothing,
    reads_are_paged,
    an_overfull_subscription_says_so,
    a_branch_is_noticed_and_reclaimed,
    resuming_around_a_branch,
    an_unknown_epoch_is_a_gap,
    the_last_speaker_stopping_ends_it,
    the_end_waits_for_a_live_analyst,
    a_lost_speaker_is_waited_for,
    a_stopped_speaker_may_stay_connected,
    a_conversation_nobody_speaks_in_is_abandoned,
    silence_ends_it,
    ghosts_of_a_dead_gateway_leave,
    a_participant_with_two_streams_joins_once,
    a_stream_moves_between_gateways,
    a_batch_is_judged_by_its_end,
    a_gateway_out_of_reach_keeps_its_speakers,
    a_speaker_who_returned_is_not_waited_for,
    a_released_gateway_may_still_hold_a_stream,
    a_lease_of_a_lost_history_keeps_nobody_out,
    a_position_above_the_top_is_a_gap,
    a_watch_yields_each_conversation,
    who_took_part_is_remembered,
    an_errand_is_put_once_and_taken_until_it_is_struck_off,
    errands_say_what_was_last_written,
    conversations_are_followed_where_that_is_asked,
    an_ended_conversation_takes_only_late_insights,
    an_ended_conversation_becomes_a_record,
    entries_nobody_folded_are_dropped_in_their_time,
    a_deleted_conversation_is_gone,
    the_mark_of_a_deleted_conversation_outlives_every_record,
    ticks_repeat_nothing,
);

/// A subject with shorthand.
struct Stage<'a> {
    subject: &'a dyn Subject,
    bus: Arc<dyn Bus>,
    limits: Limits,
}

const GATEWAY: GatewayId = GatewayId(Uuid::from_u128(0xA));
const OTHER_GATEWAY: GatewayId = GatewayId(Uuid::from_u128(0xB));

fn meeting() -> MeetingKey {
    MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("conformance").expect("a valid id") }
}

fn person(n: u128) -> Arc<Participant> {
    Arc::new(Participant { id: ParticipantId(Uuid::from_u128(n)), user_id: None, name: None, email: None })
}

fn stream(n: u128) -> StreamId {
    StreamId(Uuid::from_u128(0x5000 + n))
}

fn spoken(n: u64) -> Event {
    Event::Final(Arc::new(Final {
        sentiment: Vec::new(),
        trace: None,
        stream: stream(1),
        utterance: UtteranceId::after_cut(stream(1), StreamTime(n)),
        participant: person(1),
        origin: Timestamp::ZERO,
        start: StreamTime(n),
        end: StreamTime(n + 1),
        text: format!("number {n}"),
        language: "en-US".to_owned(),
        confidence: 1.0,
        words: Vec::new(),
    }))
}

fn starting(stream: StreamId, participant: Arc<Participant>, gateway: GatewayId) -> Event {
    Event::StreamStarted(Arc::new(StreamStarted {
        stream,
        participant,
        gateway,
        config: SpeakerConfig::default(),
        origin: Timestamp::ZERO,
        recorded: false,
        no_connection_timeout: Duration::ZERO,
    }))
}

fn ending(stream: StreamId, how: StreamEnd) -> Event {
    Event::StreamEnded(StreamEnded { stream, how })
}

const STOPPED: StreamEnd = StreamEnd::Stopped { linger: Duration::ZERO };

/// A publisher's place, with its own place in its input.
struct Place {
    publisher: PublisherId,
    claim: Claim,
    at: u64,
}

impl Stage<'_> {
    fn new(subject: &dyn Subject) -> Stage<'_> {
        Stage { bus: subject.bus(), limits: subject.limits(), subject }
    }

    async fn open(&self) -> ConversationKey {
        self.propose(1).await.key
    }

    async fn propose(&self, bits: u64) -> crate::Opened {
        let proposal = Proposal {
            conversation: ConversationId::from_random(bits),
            epoch: Epoch(0x1000_0000 + bits as u32),
            title: "a meeting".to_owned(),
        };
        self.bus.open(&meeting(), proposal).await.expect("a conversation opens")
    }

    async fn claim(&self, key: &ConversationKey, publisher: PublisherId) -> Place {
        let claim = self.bus.claim(key, &publisher).await.expect("a free place is claimed");
        Place { publisher, at: claim.watermark, claim }
    }

    /// Publishes the next `length` of the place's input.
    async fn publish(
        &self,
        key: &ConversationKey,
        place: &mut Place,
        length: u64,
        events: Vec<Event>,
    ) -> Result<Published, Error> {
        let batch = Batch {
            publisher: place.publisher.clone(),
            generation: place.claim.generation,
            from: place.at,
            through: place.at + length,
            events,
            restart: None,
            seen: place.claim.top,
        };
        let published = self.bus.publish(key, batch).await?;
        place.at += length;
        place.claim.top = published.top;
        Ok(published)
    }

    async fn say(&self, key: &ConversationKey, place: &mut Place, n: u64) -> Published {
        self.publish(key, place, 1, vec![spoken(n)]).await.expect("a final is accepted")
    }

    async fn log(&self, key: &ConversationKey) -> Vec<Entry> {
        match self.bus.read(key, Seen::NOTHING, 10_000).await.expect("the log can be read") {
            Read::Page(page) => page.entries,
            Read::Gap { reason, .. } => panic!("the log begins with a gap: {reason:?}"),
        }
    }

    async fn kinds(&self, key: &ConversationKey) -> Vec<EventKind> {
        self.log(key)
            .await
            .iter()
            .map(|entry| match &entry.body {
                Body::Event(event) => event.kind(),
                Body::Tombstone => panic!("a tombstone at {}", entry.offset),
            })
            .collect()
    }

    async fn state(&self, key: &ConversationKey) -> State {
        self.bus.meta(key).await.expect("the conversation exists").state
    }

    /// Moves time in steps, keeping the gateway's lease, ticking as the runtime does.
    async fn pass(&self, key: &ConversationKey, time: Duration, lease: Option<GatewayId>) {
        let step = Duration::from_millis(500);
        let mut left = time;
        while !left.is_zero() {
            let by = left.min(step);
            left -= by;
            self.subject.advance(by).await;
            if let Some(gateway) = lease {
                let lease = Lease { key: key.clone(), listeners: 0 };
                self.bus.renew(gateway, &[lease]).await.expect("a lease is renewed");
            }
            self.round().await;
        }
    }

    async fn round(&self) {
        for key in self.bus.due(100).await.expect("deadlines can be asked for") {
            self.bus.tick(&key).await.expect("a due conversation ticks");
        }
    }

    /// A conversation with one speaker.
    async fn spoken_in(&self) -> (ConversationKey, Place) {
        let key = self.open().await;
        let mut gateway = self.claim(&key, PublisherId::Gateway(GATEWAY)).await;
        self.publish(&key, &mut gateway, 1, vec![starting(stream(1), person(1), GATEWAY)])
            .await
            .expect("a stream starts");
        (key, gateway)
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> Refusal {
    match result {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

async fn opening_is_joining(stage: Stage<'_>) {
    let first = stage.propose(1).await;
    let second = stage.propose(2).await;
    assert!(first.created && !second.created);
    assert_eq!(first.key, second.key);
    assert_eq!(stage.kinds(&first.key).await, [EventKind::Started]);
    let current = stage.bus.current(&meeting()).await.expect("reachable").expect("open");
    assert_eq!(current.key, first.key);
    let found = stage.bus.find(&AccountId::dev(), first.key.conversation).await.expect("reachable");
    assert_eq!(found, Some(first.key));
    let stranger = AccountId::new("stranger").expect("valid");
    assert_eq!(stage.bus.find(&stranger, second.key.conversation).await.expect("reachable"), None);
}

async fn events_are_numbered_without_holes(stage: Stage<'_>) {
    let key = stage.open().await;
    let mut one = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    let mut two = stage.claim(&key, PublisherId::Stream(stream(2))).await;
    stage.publish(&key, &mut one, 5, vec![spoken(1), spoken(2)]).await.expect("accepted");
    stage.say(&key, &mut two, 3).await;
    stage.say(&key, &mut one, 4).await;
    let log = stage.log(&key).await;
    assert_eq!(log.iter().map(|entry| entry.offset.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let sequences: Vec<_> = log.iter().skip(1).map(|entry| entry.sequence).collect();
    assert_eq!(sequences, [0, 1, 2, 3], "messages are counted from 0, whoever spoke");
    let mut ids: Vec<_> = log.iter().map(|entry| entry.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

async fn a_superseded_publisher_is_fenced(stage: Stage<'_>) {
    let key = stage.open().await;
    let mut old = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    stage.say(&key, &mut old, 1).await;
    let mut new = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    assert!(new.claim.generation > old.claim.generation);
    assert_eq!(new.at, old.at, "the new holder goes on where the log stands");
    assert_eq!(new.claim.origin, old.claim.origin);
    let refusal = refused(stage.publish(&key, &mut old, 1, vec![spoken(2)]).await);
    assert_eq!(refusal, Refusal::Fenced { current: new.claim.generation });
    stage.say(&key, &mut new, 2).await;
    assert_eq!(stage.log(&key).await.len(), 3);
}

async fn a_repeated_range_is_a_duplicate(stage: Stage<'_>) {
    let key = stage.open().await;
    let mut place = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    let first = stage.say(&key, &mut place, 1).await;
    stage.say(&key, &mut place, 2).await;
    place.at = 0;
    let again = stage.say(&key, &mut place, 1).await;
    assert!(!first.duplicate && again.duplicate);
    assert_eq!(again.position, first.position);
    assert_eq!(again.watermark, 2);
    assert_eq!(stage.log(&key).await.len(), 3);
}

async fn overlaps_holes_and_empty_ranges_are_refused(stage: Stage<'_>) {
    let key = stage.open().await;
    let mut place = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    stage.publish(&key, &mut place, 10, vec![spoken(1)]).await.expect("accepted");
    place.at = 5;
    assert_eq!(refused(stage.publish(&key, &mut place, 10, vec![spoken(2)]).await), Refusal::Overlap { watermark: 10 });
    place.at = 11;
    assert_eq!(refused(stage.publish(&key, &mut place, 10, vec![spoken(2)]).await), Refusal::Hole { watermark: 10 });
    place.at = 10;
    let nothing = refused(stage.publish(&key, &mut place, 0, vec![spoken(2)]).await);
    assert!(matches!(nothing, Refusal::Invalid(_)), "events need a range of their own: {nothing}");
    let empty = stage.publish(&key, &mut place, 0, Vec::new()).await.expect("nothing is asked for");
    assert!(empty.duplicate);
    assert_eq!(stage.log(&key).await.len(), 2);
}

async fn a_straddling_replay_is_refused(stage: Stage<'_>) {
    let key = stage.open().await;
    let mut old = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    stage.publish(&key, &mut old, 10, vec![spoken(1)]).await.expect("accepted");
    // A replay that cut elsewhere than the first run: part of its range is on the log.
    let mut new = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    new.at = 8;
    assert_eq!(refused(stage.publish(&key, &mut new, 7, vec![spoken(2)]).await), Refusal::Overlap { watermark: 10 });
    assert_eq!(stage.log(&key).await.len(), 2);
}

async fn an_empty_batch_moves_only_the_watermark(stage: Stage<'_>) {
    let key = stage.open().await;
    let place = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    let restart = Restart {
        chunk: ChunkNumber(7),
        at: StreamTime(1_900_000),
        bytes_before: 60_800,
        format: AudioFormat::default(),
        headers: Bytes::from_static(b"codec"),
    };
    let batch = Batch {
        publisher: place.publisher.clone(),
        generation: place.claim.generation,
        from: 0,
        through: 2_000_000,
        events: Vec::new(),
        restart: Some(restart.clone()),
        seen: place.claim.top,
    };
    stage.bus.publish(&key, batch).await.expect("accepted");
    assert_eq!(stage.log(&key).await.len(), 1);
    let next = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    assert_eq!(next.claim.watermark, 2_000_000);
    assert_eq!(next.claim.restart, Some(restart));
}

async fn concurrent_claims_get_different_generations(stage: Stage<'_>) {
    let key = stage.open().await;
    let publisher = PublisherId::Stream(stream(1));
    let claims = (0..16).map(|_| stage.bus.claim(&key, &publisher));
    let claims = futures::future::join_all(claims).await;
    let mut generations: Vec<Generation> = claims.into_iter().map(|claim| claim.expect("granted").generation).collect();
    generations.sort_unstable();
    generations.dedup();
    assert_eq!(generations.len(), 16);
}

async fn a_leased_place_is_held_until_its_lease_ends(stage: Stage<'_>) {
    let key = stage.open().await;
    let mut holder = stage.claim(&key, PublisherId::Analyst).await;
    assert!(matches!(refused(stage.bus.claim(&key, &PublisherId::Analyst).await), Refusal::Held { .. }));
    stage.subject.advance(stage.limits.publisher_lease / 2).await;
    stage.bus.keep(&key, &PublisherId::Analyst, holder.claim.generation).await.expect("the holder keeps it");
    stage.subject.advance(stage.limits.publisher_lease / 2 + Duration::from_millis(1)).await;
    assert!(matches!(refused(stage.bus.claim(&key, &PublisherId::Analyst).await), Refusal::Held { .. }));
    stage.subject.advance(stage.limits.publisher_lease).await;
    let next = stage.claim(&key, PublisherId::Analyst).await;
    let refusal = refused(stage.publish(&key, &mut holder, 1, Vec::new()).await);
    assert_eq!(refusal, Refusal::Fenced { current: next.claim.generation });
    let refusal = refused(stage.bus.keep(&key, &PublisherId::Analyst, holder.claim.generation).await);
    assert!(matches!(refusal, Refusal::Fenced { .. }));
}

async fn ephemerals_take_no_offset(stage: Stage<'_>) {
    let key = stage.open().await;
    let mut subscription = stage.bus.subscribe(&key).await.expect("subscribed");
    let old = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    let place = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    let speaking = Ephemeral::Speaking { participant: person(1), stream: stream(1), speaking: true };
    let fenced = stage.bus.announce(&key, &old.publisher, old.claim.generation, vec![speaking.clone()]).await;
    assert!(matches!(refused(fenced), Refusal::Fenced { .. }));
    stage
        .bus
        .announce(&key, &place.publisher, place.claim.generation, vec![speaking.clone()])
        .await
        .expect("announced");
    match next(&mut subscription).await {
        Delivery::Ephemeral { follows, ephemerals } => {
            assert_eq!(follows.offset, Offset(1));
            assert_eq!(ephemerals[..], [speaking]);
        }
        other => panic!("expected the announcement, got {other:?}"),
    }
    assert_eq!(stage.log(&key).await.len(), 1);
}

async fn next(subscription: &mut Subscription) -> Delivery {
    let delivery = tokio::time::timeout(Duration::from_secs(5), subscription.next()).await;
    delivery.expect("a delivery within 5 s").expect("the bus is there")
}

async fn a_late_joiner_misses_nothing(stage: Stage<'_>) {
    let key = stage.open().await;
    let mut place = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    for n in 0..10 {
        stage.say(&key, &mut place, n).await;
    }
    let mut subscription = stage.bus.subscribe(&key).await.expect("subscribed");
    let mut seen: Vec<u64> = Vec::new();
    for n in 10..20 {
        stage.say(&key, &mut place, n).await;
        if n == 14 {
            seen.extend(stage.log(&key).await.iter().map(|entry| entry.offset.0));
        }
    }
    while seen.last() != Some(&21) {
        if let Delivery::Appended { entries, .. } = next(&mut subscription).await {
            let last = seen.last().copied().unwrap_or(0);
            seen.extend(entries.iter().map(|entry| entry.offset.0).filter(|offset| *offset > last));
        }
    }
    assert_eq!(seen, (1..=21).collect::<Vec<_>>());
}

async fn reads_are_paged(stage: Stage<'_>) {
    let key = stage.open().await;
    let mut place = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    for n in 0..9 {
        stage.say(&key, &mut place, n).await;
    }
    let mut after = Seen::NOTHING;
    let mut pages = Vec::new();
    loop {
        let Read::Page(page) = stage.bus.read(&key, after, 4).await.expect("readable") else { panic!("a gap") };
        let Some(last) = page.entries.last() else { break };
        after = Seen { epoch: Some(page.epoch), offset: last.offset, check: Some(last.check) };
        pages.push(page.entries.len());
        assert_eq!(page.top.offset, Offset(10));
    }
    assert_eq!(pages, [4, 4, 2]);
}

async fn an_overfull_subscription_says_so(stage: Stage<'_>) {
    let key = stage.open().await;
    let mut subscription = stage.bus.subscribe(&key).await.expect("subscribed");
    let mut place = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    let count = 2 * stage.limits.subscription_capacity as u64;
    for n in 0..count {
        stage.say(&key, &mut place, n).await;
    }
    let mut offset = 1;
    loop {
        match next(&mut subscription).await {
            Delivery::Appended { entries, .. } => {
                for entry in entries.iter() {
                    offset += 1;
                    assert_eq!(entry.offset.0, offset, "what comes before the loss is contiguous");
                }
            }
            Delivery::Missed => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(offset < count);
    // What is announced after the loss was heard arrives again.
    stage.say(&key, &mut place, count).await;
    assert!(matches!(next(&mut subscription).await, Delivery::Appended { .. }));
}

async fn a_branch_is_noticed_and_reclaimed(stage: Stage<'_>) {
    let key = stage.open().await;
    let mut place = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    stage.say(&key, &mut place, 1).await;
    stage.subject.checkpoint(&key).await;
    stage.say(&key, &mut place, 2).await;
    let before = stage.bus.meta(&key).await.expect("there").top;
    stage.subject.fail_over(&key).await;
    assert_eq!(refused(stage.publish(&key, &mut place, 1, vec![spoken(3)]).await), Refusal::Reclaim);
    let mut again = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    assert_eq!(again.at, 1, "the watermark was rolled back with the entry");
    assert!(again.claim.generation > place.claim.generation);
    assert_ne!(again.claim.top.epoch, before.epoch);
    stage.say(&key, &mut again, 2).await;
    stage.say(&key, &mut again, 3).await;
    assert_eq!(stage.log(&key).await.len(), 4);
    let refusal = refused(stage.publish(&key, &mut place, 1, vec![spoken(4)]).await);
    assert!(matches!(refusal, Refusal::Fenced { .. }), "{refusal}");
}

async fn resuming_around_a_branch(stage: Stage<'_>) {
    let key = stage.open().await;
    let mut place = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    stage.say(&key, &mut place, 1).await;
    let shared = stage.log(&key).await;
    stage.subject.checkpoint(&key).await;
    stage.say(&key, &mut place, 2).await;
    let lost = stage.bus.meta(&key).await.expect("there").top;
    stage.subject.fail_over(&key).await;
    // The other history takes the same offset with another entry before anybody notices.
    let mut other = stage.claim(&key, PublisherId::Stream(stream(2))).await;
    stage.say(&key, &mut other, 7).await;
    match stage.bus.read(&key, lost, 10).await.expect("readable") {
        Read::Gap { reason: GapReason::Branch, resume } => assert!(resume.offset <= lost.offset),
        other => panic!("a lost position resumed: {other:?}"),
    }
    // At and below the branch point nothing is missing.
    let epoch = lost.epoch;
    for entry in &shared {
        let seen = Seen { epoch, offset: entry.offset, check: None };
        match stage.bus.read(&key, seen, 10).await.expect("readable") {
            Read::Page(page) => {
                assert_ne!(Some(page.epoch), epoch, "a new epoch");
                assert_eq!(page.entries.first().map(|first| first.offset), Some(entry.offset.next()));
            }
            Read::Gap { reason, .. } => panic!("position {} needs no gap: {reason:?}", entry.offset),
        }
    }
}

async fn an_unknown_epoch_is_a_gap(stage: Stage<'_>) {
    let key = stage.open().await;
    let seen = Seen { epoch: Some(Epoch(0xDEAD)), offset: Offset(1), check: None };
    match stage.bus.read(&key, seen, 10).await.expect("readable") {
        Read::Gap { reason: GapReason::Lost, .. } => {}
        other => panic!("expected a gap, got {other:?}"),
    }
}

async fn the_last_speaker_stopping_ends_it(stage: Stage<'_>) {
    let (key, mut gateway) = stage.spoken_in().await;
    stage.publish(&key, &mut gateway, 1, vec![starting(stream(2), person(2), GATEWAY)]).await.expect("started");
    stage.publish(&key, &mut gateway, 1, vec![ending(stream(1), STOPPED)]).await.expect("ended");
    assert_eq!(stage.state(&key).await, State::Open, "somebody still speaks");
    stage.publish(&key, &mut gateway, 1, vec![ending(stream(2), STOPPED)]).await.expect("ended");
    assert_eq!(stage.state(&key).await, State::Ended);
    use EventKind::{Ended, Joined, Left, Started, StreamEnded, StreamStarted};
    assert_eq!(
        stage.kinds(&key).await,
        [Started, StreamStarted, Joined, StreamStarted, Joined, StreamEnded, Left, StreamEnded, Left, Ended]
    );
    let next = stage.propose(9).await;
    assert!(next.created, "a new start under the name opens a new conversation");
    assert_ne!(next.key, key);
}

async fn the_end_waits_for_a_live_analyst(stage: Stage<'_>) {
    let (key, mut gateway) = stage.spoken_in().await;
    let mut analyst = stage.claim(&key, PublisherId::Analyst).await;
    stage.publish(&key, &mut gateway, 1, vec![ending(stream(1), STOPPED)]).await.expect("ended");
    assert_eq!(stage.state(&key).await, State::Open);
    let top = stage.bus.meta(&key).await.expect("there").top.offset.0;
    stage.publish(&key, &mut analyst, top, Vec::new()).await.expect("it has read everything");
    assert_eq!(stage.state(&key).await, State::Ended);
    // Another conversation, whose analyst never gets there.
    let (key, mut gateway) = stage.spoken_in_new(2).await;
    stage.claim(&key, PublisherId::Analyst).await;
    stage.publish(&key, &mut gateway, 1, vec![ending(stream(1), STOPPED)]).await.expect("ended");
    stage.pass(&key, stage.limits.analyst_grace + Duration::from_millis(300), Some(GATEWAY)).await;
    assert_eq!(stage.state(&key).await, State::Ended);
}

impl Stage<'_> {
    async fn spoken_in_new(&self, bits: u64) -> (ConversationKey, Place) {
        let key = self.propose(bits).await.key;
        let mut gateway = self.claim(&key, PublisherId::Gateway(GATEWAY)).await;
        self.publish(&key, &mut gateway, 1, vec![starting(stream(1), person(1), GATEWAY)]).await.expect("started");
        (key, gateway)
    }

    async fn end_reason(&self, key: &ConversationKey) -> Option<EndReason> {
        match self.log(key).await.last().map(|entry| entry.body.clone()) {
            Some(Body::Event(Event::Ended(Ended { reason, .. }))) => Some(reason),
            _ => None,
        }
    }
}

async fn a_lost_speaker_is_waited_for(stage: Stage<'_>) {
    let (key, mut gateway) = stage.spoken_in().await;
    stage.publish(&key, &mut gateway, 1, vec![ending(stream(1), StreamEnd::Lost)]).await.expect("ended");
    assert_eq!(stage.state(&key).await, State::Lingering);
    stage.pass(&key, stage.limits.rejoin_grace / 2, Some(GATEWAY)).await;
    stage.publish(&key, &mut gateway, 1, vec![starting(stream(1), person(1), GATEWAY)]).await.expect("returned");
    assert_eq!(stage.state(&key).await, State::Open, "it goes on under the same id");
    stage.pass(&key, stage.limits.rejoin_grace, Some(GATEWAY)).await;
    assert_eq!(stage.state(&key).await, State::Open);
    stage.publish(&key, &mut gateway, 1, vec![ending(stream(1), StreamEnd::Lost)]).await.expect("ended");
    stage.pass(&key, stage.limits.rejoin_grace + Duration::from_secs(1), Some(GATEWAY)).await;
    assert_eq!(stage.end_reason(&key).await, Some(EndReason::Abandoned));
}

async fn a_stopped_speaker_may_stay_connected(stage: Stage<'_>) {
    let (key, mut gateway) = stage.spoken_in().await;
    let linger = Duration::from_secs(60);
    let stopped = ending(stream(1), StreamEnd::Stopped { linger });
    stage.publish(&key, &mut gateway, 1, vec![stopped]).await.expect("stopped");
    stage.pass(&key, Duration::from_secs(50), Some(GATEWAY)).await;
    assert_eq!(stage.state(&key).await, State::Lingering);
    stage.pass(&key, Duration::from_secs(11), Some(GATEWAY)).await;
    assert_eq!(stage.end_reason(&key).await, Some(EndReason::Stopped));
}

async fn a_conversation_nobody_speaks_in_is_abandoned(stage: Stage<'_>) {
    let key = stage.open().await;
    stage.pass(&key, stage.limits.rejoin_grace + Duration::from_secs(1), None).await;
    assert_eq!(stage.end_reason(&key).await, Some(EndReason::Abandoned));
}

async fn silence_ends_it(stage: Stage<'_>) {
    let (key, _gateway) = stage.spoken_in().await;
    let mut place = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    let half = stage.limits.silence / 2;
    stage.pass(&key, half, Some(GATEWAY)).await;
    stage.say(&key, &mut place, 1).await;
    stage.pass(&key, half + Duration::from_secs(1), Some(GATEWAY)).await;
    assert_eq!(stage.state(&key).await, State::Open, "somebody spoke meanwhile");
    stage.pass(&key, half + Duration::from_secs(1), Some(GATEWAY)).await;
    assert_eq!(stage.end_reason(&key).await, Some(EndReason::Silence));
}

async fn ghosts_of_a_dead_gateway_leave(stage: Stage<'_>) {
    let (key, mut gateway) = stage.spoken_in().await;
    stage.publish(&key, &mut gateway, 1, vec![starting(stream(2), person(2), OTHER_GATEWAY)]).await.expect("started");
    stage.pass(&key, Duration::from_secs(10), Some(OTHER_GATEWAY)).await;
    assert_eq!(stage.bus.meta(&key).await.expect("there").streams, 1, "the dead gateway's speaker left");
    assert_eq!(stage.state(&key).await, State::Open);
    stage.pass(&key, Duration::from_secs(10), None).await;
    assert_eq!(stage.state(&key).await, State::Lingering, "all gateways died");
    stage.pass(&key, stage.limits.rejoin_grace, None).await;
    assert_eq!(stage.end_reason(&key).await, Some(EndReason::Abandoned));
    let left = stage.kinds(&key).await.into_iter().filter(|kind| *kind == EventKind::Left).count();
    assert_eq!(left, 2);
}

async fn a_participant_with_two_streams_joins_once(stage: Stage<'_>) {
    let (key, mut gateway) = stage.spoken_in().await;
    stage.publish(&key, &mut gateway, 1, vec![starting(stream(2), person(1), GATEWAY)]).await.expect("started");
    stage.publish(&key, &mut gateway, 1, vec![ending(stream(1), STOPPED)]).await.expect("ended");
    let kinds = stage.kinds(&key).await;
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::Joined).count(), 1);
    assert!(!kinds.contains(&EventKind::Left));
}

async fn a_stream_moves_between_gateways(stage: Stage<'_>) {
    let (key, _gateway) = stage.spoken_in().await;
    let mut other = stage.claim(&key, PublisherId::Gateway(OTHER_GATEWAY)).await;
    stage.publish(&key, &mut other, 1, vec![starting(stream(1), person(1), OTHER_GATEWAY)]).await.expect("moved");
    stage.pass(&key, Duration::from_secs(10), Some(OTHER_GATEWAY)).await;
    let meta = stage.bus.meta(&key).await.expect("there");
    assert_eq!((meta.state, meta.streams), (State::Open, 1));
    let kinds = stage.kinds(&key).await;
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::Joined).count(), 1);
}

async fn a_batch_is_judged_by_its_end(stage: Stage<'_>) {
    let (key, mut gateway) = stage.spoken_in().await;
    let handed_over = vec![ending(stream(1), STOPPED), starting(stream(2), person(2), GATEWAY)];
    stage.publish(&key, &mut gateway, 1, handed_over).await.expect("handed over");
    let meta = stage.bus.meta(&key).await.expect("there");
    assert_eq!((meta.state, meta.streams), (State::Open, 1), "one speaker follows the other");
    let both = vec![starting(stream(3), person(2), GATEWAY), ending(stream(2), STOPPED), ending(stream(3), STOPPED)];
    stage.publish(&key, &mut gateway, 1, both).await.expect("ended");
    assert_eq!(stage.end_reason(&key).await, Some(EndReason::Stopped));
    let kinds = stage.kinds(&key).await;
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::Joined).count(), 2, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::Left).count(), 2, "{kinds:?}");
}

async fn a_gateway_out_of_reach_keeps_its_speakers(stage: Stage<'_>) {
    let (key, mut gateway) = stage.spoken_in().await;
    stage.pass(&key, stage.limits.gateway_lease + Duration::from_secs(1), None).await;
    let meta = stage.bus.meta(&key).await.expect("there");
    assert_eq!((meta.state, meta.streams), (State::Lingering, 0), "its speaker is taken for lost");
    stage.pass(&key, Duration::from_secs(2), Some(GATEWAY)).await;
    let meta = stage.bus.meta(&key).await.expect("there");
    assert_eq!((meta.state, meta.streams), (State::Open, 1), "its speaker is back");
    use EventKind::{Joined, Left, Started, StreamEnded, StreamStarted};
    let there = [StreamStarted, Joined];
    assert_eq!(
        stage.kinds(&key).await,
        [&[Started][..], &there, &[StreamEnded, Left], &there].concat(),
        "and everybody hears so"
    );
    stage.publish(&key, &mut gateway, 1, vec![ending(stream(1), STOPPED)]).await.expect("ended");
    assert_eq!(stage.end_reason(&key).await, Some(EndReason::Stopped));
}

async fn a_speaker_who_returned_is_not_waited_for(stage: Stage<'_>) {
    let (key, _gateway) = stage.spoken_in().await;
    let mut other = stage.claim(&key, PublisherId::Gateway(OTHER_GATEWAY)).await;
    stage.publish(&key, &mut other, 1, vec![starting(stream(2), person(2), OTHER_GATEWAY)]).await.expect("started");
    stage.pass(&key, stage.limits.gateway_lease + Duration::from_secs(1), Some(OTHER_GATEWAY)).await;
    stage.publish(&key, &mut other, 1, vec![ending(stream(2), STOPPED)]).await.expect("ended");
    assert_eq!(stage.state(&key).await, State::Lingering, "the lost speaker may return");
    stage.publish(&key, &mut other, 1, vec![starting(stream(3), person(1), OTHER_GATEWAY)]).await.expect("returned");
    stage.publish(&key, &mut other, 1, vec![ending(stream(3), STOPPED)]).await.expect("ended");
    assert_eq!(stage.end_reason(&key).await, Some(EndReason::Stopped));
}

async fn a_released_gateway_may_still_hold_a_stream(stage: Stage<'_>) {
    // Its last listener left in the moment in which somebody began to speak.
    let (key, _gateway) = stage.spoken_in().await;
    stage.bus.release(GATEWAY, &key).await.expect("released");
    stage.bus.tick(&key).await.expect("there");
    assert_eq!(stage.bus.meta(&key).await.expect("there").streams, 1);
    stage.pass(&key, stage.limits.gateway_lease + Duration::from_secs(1), None).await;
    assert_eq!(stage.bus.meta(&key).await.expect("there").streams, 0);
}

async fn a_lease_of_a_lost_history_keeps_nobody_out(stage: Stage<'_>) {
    let key = stage.open().await;
    let mut place = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    let analyst = stage.claim(&key, PublisherId::Analyst).await;
    stage.subject.checkpoint(&key).await;
    stage.say(&key, &mut place, 1).await;
    stage.subject.fail_over(&key).await;
    assert_eq!(refused(stage.publish(&key, &mut place, 1, vec![spoken(2)]).await), Refusal::Reclaim);
    let again = stage.claim(&key, PublisherId::Analyst).await;
    assert!(again.claim.generation > analyst.claim.generation);
}

async fn a_position_above_the_top_is_a_gap(stage: Stage<'_>) {
    let key = stage.open().await;
    let top = stage.bus.meta(&key).await.expect("there").top;
    let above = Seen { offset: Offset(top.offset.0 + 5), check: None, ..top };
    match stage.bus.read(&key, above, 10).await.expect("readable") {
        Read::Gap { reason: GapReason::Lost, resume } => assert_eq!(resume.offset, top.offset),
        other => panic!("nothing stands there: {other:?}"),
    }
}

async fn who_took_part_is_remembered(stage: Stage<'_>) {
    let visits = async |account: &AccountId, user: &str| stage.bus.visits(account, user).await.expect("reachable");
    let account = AccountId::dev();
    assert_eq!(visits(&account, "ana").await, []);
    let first = stage.open().await;
    let second = ConversationKey { conversation: ConversationId::from_random(9), ..first.clone() };
    for key in [&first, &second, &first] {
        stage.subject.advance(Duration::from_millis(5)).await;
        stage.bus.visit(key, "ana").await.expect("reachable");
    }
    assert_eq!(visits(&account, "ana").await, [first.clone(), second], "each once, latest first");
    assert_eq!(visits(&account, "ben").await, []);
    assert_eq!(visits(&AccountId::new("other").expect("valid"), "ana").await, [], "of this account only");
    for number in 0..VISITS {
        stage.subject.advance(Duration::from_millis(5)).await;
        let key = ConversationKey { conversation: ConversationId::from_random(100 + number as u64), ..first.clone() };
        stage.bus.visit(&key, "ana").await.expect("reachable");
    }
    let kept = visits(&account, "ana").await;
    assert!(kept.len() == VISITS && !kept.contains(&first), "{} are kept", kept.len());
}

async fn an_errand_is_put_once_and_taken_until_it_is_struck_off(stage: Stage<'_>) {
    let key = stage.open().await;
    let errands = stage.bus.errands();
    let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let lease = Duration::from_secs(10);
    let take = async |max: usize| {
        let mut taken = errands.take(max, lease).await.expect("reachable").errands;
        taken.retain(|(_, id)| *id != FOLLOW);
        taken.sort_unstable_by_key(|(_, id)| *id);
        taken
    };
    let put = |id: Uuid, after: u64| errands.put(&key, id, "what".into(), Duration::from_secs(after), 3);
    assert!(put(first, 0).await.expect("put"));
    assert!(put(second, 60).await.expect("put"));
    assert!(!put(first, 0).await.expect("known"), "once");
    assert_eq!(take(8).await, [(key.clone(), first)], "the other is not due yet");
    assert_eq!(take(8).await, [], "somebody has it");
    assert!(errands.take(0, lease).await.expect("reachable").listed >= 2);
    stage.subject.advance(lease).await;
    assert_eq!(take(8).await, [(key.clone(), first)], "nothing was heard of it");
    errands.again(&key, first, Some(Duration::from_secs(30))).await.expect("reachable");
    stage.subject.advance(Duration::from_secs(29)).await;
    assert_eq!(take(8).await, []);
    stage.subject.advance(Duration::from_secs(31)).await;
    let one = errands.take(1, lease).await.expect("reachable").errands;
    assert_eq!(one.len(), 1, "no more than asked for");
    let mut taken = take(8).await;
    taken.extend(one.into_iter().filter(|(_, id)| *id != FOLLOW));
    taken.sort_unstable_by_key(|(_, id)| *id);
    assert_eq!(taken, [(key.clone(), first), (key.clone(), second)]);
    errands.again(&key, first, None).await.expect("reachable");
    stage.subject.advance(lease).await;
    assert_eq!(take(8).await, [(key.clone(), second)], "struck off");
    assert!(!put(first, 0).await.expect("known"));
    assert_eq!(take(8).await, [(key.clone(), first)], "and listed again by who did not know");
}

async fn errands_say_what_was_last_written(stage: Stage<'_>) {
    let key = stage.open().await;
    let errands = stage.bus.errands();
    let id = |n: u128| Uuid::from_u128(n);
    let known = async || {
        let mut known = errands.all(&key).await.expect("reachable");
        known.retain(|(id, _)| *id != FOLLOW);
        known
    };
    for n in [2, 1] {
        assert!(errands.put(&key, id(n), format!("{n}").into(), Duration::ZERO, 3).await.expect("put"));
    }
    assert_eq!(known().await, [(id(1), "1".into()), (id(2), "2".into())]);
    assert!(errands.swap(&key, id(1), b"1", "\0 new".into()).await.expect("reachable"));
    assert!(!errands.swap(&key, id(1), b"1", "late".into()).await.expect("reachable"), "it says something else now");
    assert!(!errands.swap(&key, id(9), b"", "new".into()).await.expect("reachable"), "there is none");
    assert_eq!(errands.get(&key, id(1)).await.expect("reachable"), Some("\0 new".into()));
    assert_eq!(errands.get(&key, id(9)).await.expect("reachable"), None);
    let max = errands.all(&key).await.expect("reachable").len();
    assert!(!errands.put(&key, id(2), "again".into(), Duration::ZERO, max).await.expect("known"));
    let over = refused(errands.put(&key, id(3), "3".into(), Duration::ZERO, max).await);
    assert!(matches!(over, Refusal::Full { .. }), "{over:?}");
    stage.bus.delete(&key).await.expect("deleted");
    assert_eq!(known().await, [], "with the conversation");
}

async fn conversations_are_followed_where_that_is_asked(stage: Stage<'_>) {
    let key = stage.open().await;
    let follow = stage.bus.errands().get(&key, FOLLOW).await.expect("reachable");
    assert_eq!(follow.is_some(), stage.limits.followed);
    stage.subject.advance(Duration::from_secs(2)).await;
    let taken = stage.bus.errands().take(8, Duration::from_secs(9)).await.expect("reachable").errands;
    assert_eq!(taken.contains(&(key, FOLLOW)), stage.limits.followed);
}

async fn a_watch_yields_each_conversation(stage: Stage<'_>) {
    let mut watch = stage.bus.watch(&meeting()).await.expect("watching");
    let (key, mut gateway) = stage.spoken_in().await;
    assert_eq!(opened(&mut watch).await, key);
    let mut late = stage.bus.watch(&meeting()).await.expect("watching");
    assert_eq!(opened(&mut late).await, key, "what is open now comes first");
    stage.publish(&key, &mut gateway, 1, vec![ending(stream(1), STOPPED)]).await.expect("ended");
    let next = stage.propose(2).await.key;
    assert_eq!(opened(&mut watch).await, next);
    assert_eq!(opened(&mut late).await, next);
}

async fn opened(watch: &mut crate::Watch) -> ConversationKey {
    let opened = tokio::time::timeout(Duration::from_secs(5), watch.next()).await;
    opened.expect("within 5 s").expect("the bus is there")
}

async fn an_ended_conversation_takes_only_late_insights(stage: Stage<'_>) {
    let (key, mut gateway) = stage.spoken_in().await;
    let mut place = stage.claim(&key, PublisherId::Stream(stream(1))).await;
    stage.publish(&key, &mut gateway, 1, vec![ending(stream(1), STOPPED)]).await.expect("ended");
    assert_eq!(refused(stage.publish(&key, &mut place, 1, vec![spoken(1)]).await), Refusal::Ended);
    let mut analyst = stage.claim(&key, PublisherId::Analyst).await;
    stage.publish(&key, &mut analyst, 1, Vec::new()).await.expect("insights may still come");
}

async fn an_ended_conversation_becomes_a_record(stage: Stage<'_>) {
    let (key, mut gateway) = stage.spoken_in().await;
    stage.publish(&key, &mut gateway, 1, vec![ending(stream(1), STOPPED)]).await.expect("ended");
    let top = stage.bus.meta(&key).await.expect("there").top;
    let record = Bytes::from_static(b"record");
    let early = refused(stage.bus.compact(&key, top.offset, record.clone()).await);
    assert!(matches!(early, Refusal::Invalid(_)));
    stage.subject.advance(stage.limits.compact_after).await;
    assert!(stage.bus.due(10).await.expect("reachable").contains(&key));
    assert!(stage.bus.tick(&key).await.expect("there").compact);
    let wrong = refused(stage.bus.compact(&key, Offset(top.offset.0 - 1), record.clone()).await);
    assert!(matches!(wrong, Refusal::Invalid(_)), "the newest entry must be in it");
    stage.bus.compact(&key, top.offset, record.clone()).await.expect("compacted");
    assert_eq!(stage.state(&key).await, State::Compacted);
    assert_eq!(stage.bus.record(&key).await.expect("there"), Some(record));
    match stage.bus.read(&key, Seen::NOTHING, 10).await.expect("readable") {
        Read::Gap { reason: GapReason::Retention, resume } => assert_eq!(resume.offset, top.offset),
        other => panic!("the entries are gone: {other:?}"),
    }
    stage.subject.advance(stage.limits.record_retention).await;
    stage.round().await;
    assert_eq!(refused(stage.bus.meta(&key).await), Refusal::Gone);
}

async fn entries_nobody_folded_are_dropped_in_their_time(stage: Stage<'_>) {
    let (key, mut gateway) = stage.spoken_in().await;
    stage.publish(&key, &mut gateway, 1, vec![ending(stream(1), STOPPED)]).await.expect("ended");
    let top = stage.bus.meta(&key).await.expect("there").top;
    stage.subject.advance(stage.limits.log_retention - Duration::from_secs(60)).await;
    assert!(stage.bus.tick(&key).await.expect("there").compact, "it waits for its record");
    assert_eq!(stage.state(&key).await, State::Ended);
    assert!(matches!(stage.bus.read(&key, Seen::NOTHING, 10).await, Ok(Read::Page(page)) if !page.entries.is_empty()));
    stage.subject.advance(Duration::from_secs(61)).await;
    assert!(!stage.bus.tick(&key).await.expect("there").compact, "nothing is left to fold");
    assert_eq!(stage.state(&key).await, State::Compacted);
    assert_eq!(stage.bus.record(&key).await.expect("there"), None);
    match stage.bus.read(&key, Seen::NOTHING, 10).await.expect("readable") {
        Read::Gap { reason: GapReason::Retention, resume } => assert_eq!(resume.offset, top.offset),
        other => panic!("the entries are gone: {other:?}"),
    }
    stage.subject.advance(stage.limits.record_retention - stage.limits.log_retention).await;
    stage.round().await;
    assert_eq!(refused(stage.bus.meta(&key).await), Refusal::Gone);
}

async fn a_deleted_conversation_is_gone(stage: Stage<'_>) {
    let (key, mut gateway) = stage.spoken_in().await;
    stage.bus.delete(&key).await.expect("deleted");
    assert_eq!(refused(stage.publish(&key, &mut gateway, 1, vec![spoken(1)]).await), Refusal::Gone);
    assert_eq!(refused(stage.bus.claim(&key, &PublisherId::Stream(stream(1))).await), Refusal::Gone);
    assert_eq!(refused(stage.bus.read(&key, Seen::NOTHING, 1).await), Refusal::Gone);
    assert!(stage.propose(2).await.created);
}

async fn the_mark_of_a_deleted_conversation_outlives_every_record(stage: Stage<'_>) {
    let (key, _) = stage.spoken_in().await;
    stage.bus.delete(&key).await.expect("deleted");
    let deleted = stage.bus.now().await.expect("a clock");
    let ticked = stage.bus.tick(&key).await.expect("a mark is left");
    assert_eq!(ticked.state, State::Deleted);
    let until = ticked.next.expect("the mark ends some day");
    // What was said of it before may be kept as long as a record is, and is not to be taken for news after that.
    let (least, most) = (stage.limits.record_retention, stage.limits.record_retention + Duration::from_secs(86_460));
    let kept = until.since(deleted);
    assert!(kept + Duration::from_secs(5) >= least && kept <= most, "the mark is kept for {kept:?}");
    // Nobody takes its name meanwhile.
    let proposal = Proposal { conversation: key.conversation, epoch: Epoch(9), title: String::new() };
    let other = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("other").expect("valid") };
    let taken = refused(stage.bus.open(&other, proposal).await);
    assert!(matches!(taken, Refusal::Invalid(_)), "{taken:?}");
}

async fn ticks_repeat_nothing(stage: Stage<'_>) {
    let (key, _gateway) = stage.spoken_in().await;
    stage.subject.advance(Duration::from_secs(60)).await;
    let ticks = futures::future::join_all((0..8).map(|_| stage.bus.tick(&key))).await;
    assert!(ticks.into_iter().all(|tick| tick.is_ok()));
    let kinds = stage.kinds(&key).await;
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::StreamEnded).count(), 1);
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::Left).count(), 1);
}
