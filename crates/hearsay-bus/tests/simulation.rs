//! Speakers, a log, gateways and what may happen to them, simulated from a seed: lost, repeated and swapped announcements,
//! the last one lost before silence, lost calls and lost answers, superseded publishers that wake, publishers that repeat
//! or skip what is not theirs to, killed gateways, broken subscriptions, failovers that roll the log back, and slots that
//! move. One checker joins every view. Gateways that die, and what they leave behind, are simulated on their own.
//!
//! In half of the worlds the log knows when another server answers, as on Redis: there a subscriber may return to any
//! gateway at any time, and is owed a contiguous run or a gap. In the others it knows of lost history only what somebody
//! shows it who saw more, as in one process, and a subscriber that only the dead gateway could vouch for begins anew.
//!
//! `HEARSAY_SEEDS=100000 cargo test -p hearsay-bus --test simulation` runs more of them; a failure names its seed.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use hearsay_bus::{
    Batch, Body, Bus, Claim, Delivery, Entry, Error, Lease, Limits, ManualClock, MemoryBus, Page, Proposal, Published,
    Read, Refusal, Replica, Seen, Subscription,
    follow::{Follower, Step as Shown},
    publisher::{AfterBranch, Backlog, Publisher, Step, Stretch},
};
use hearsay_protocol::{
    AccountId, ConversationId, ConversationKey, Epoch, Event, EventId, GatewayId, Generation, MeetingId, MeetingKey,
    Offset, ParticipantId, Position, PublisherId, StreamId, StreamTime, Timestamp, UtteranceId,
    event::{Ephemeral, Final, Participant, SpeakerConfig, StreamStarted},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use uuid::Uuid;

/// What is left out of the log or its users, to see that the checker misses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    /// The end of a quiet conversation is not compared.
    Tail,
    /// Holes in the announcements are skipped.
    Repair,
    /// A superseded publisher may go on.
    Fence,
    /// A repeated call is a new one.
    Idempotence,
    /// Nobody says what it has seen, so lost history is not noticed.
    Check,
    /// What a failover lost is not appended again.
    Reappend,
    /// A generation of before a branch may go on.
    Reclaim,
    /// What was appended again is shown as new.
    Again,
    /// Part of a batch may be on the log already.
    Overlap,
    /// A batch may begin behind what the log has.
    Hole,
    /// A new subscription is taken for the old one.
    Missed,
    /// What a partial follows is not compared.
    Follows,
}

const MUTANTS: [Mutant; 12] = [
    Mutant::Tail,
    Mutant::Repair,
    Mutant::Fence,
    Mutant::Idempotence,
    Mutant::Check,
    Mutant::Reappend,
    Mutant::Reclaim,
    Mutant::Again,
    Mutant::Overlap,
    Mutant::Hole,
    Mutant::Missed,
    Mutant::Follows,
];

/// What is wrong with a world.
#[derive(Debug)]
enum Wrong {
    /// A reader saw something it should not have, or not what it should.
    Seen(String),
    /// A part of it cannot go on.
    Stuck(String),
}

impl From<String> for Wrong {
    fn from(seen: String) -> Self {
        Self::Seen(seen)
    }
}

const GATEWAY: GatewayId = GatewayId(Uuid::from_u128(0xA));

/// A call of the memory bus is ready at once.
fn now<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("the memory bus never waits")
}

struct World {
    random: StdRng,
    mutant: Option<Mutant>,
    bus: MemoryBus,
    clock: Arc<ManualClock>,
    key: ConversationKey,
    speakers: Vec<Speaker>,
    gateways: Vec<Gateway>,
    replica: Option<Replica>,
    /// Nobody says anything new.
    silent: bool,
    /// Nothing goes wrong any more.
    calm: bool,
    streams: u128,
    /// What each stream's log reached, for mutants that forge ranges.
    watermarks: BTreeMap<StreamId, u64>,
    /// Streams that lost words because log and publisher were lost together: said so, and begun anew.
    broken: HashSet<StreamId>,
    /// The log knows when another server answers.
    marks: bool,
    /// Generations by which mutants go on.
    forged: BTreeMap<StreamId, Generation>,
}

/// A stream, the publisher that works on it, and those that did.
struct Speaker {
    stream: StreamId,
    publisher: Publisher,
    /// Where the present publisher began.
    began: u64,
    /// The next input to hand over.
    next: u64,
    /// The log covers the input up to here, as the uplink knows: what is before it is not kept for replay.
    covered: u64,
    zombies: Vec<Publisher>,
}

/// A gateway with one subscriber that sees everything.
struct Gateway {
    subscription: Subscription,
    follower: Follower,
    under_way: VecDeque<Delivery>,
    answer: Option<Read>,
    /// What the subscriber was shown and still holds for true, oldest first.
    view: Vec<(Offset, EventId)>,
    /// What is before was shown by another gateway.
    vouches_from: Offset,
    /// Shown for the first time, as far as this gateway knows.
    fresh: HashSet<EventId>,
    mutant: Option<Mutant>,
}

fn spoken(stream: StreamId, n: u64) -> Event {
    Event::Final(Arc::new(Final {
        sentiment: Vec::new(),
        trace: None,
        stream,
        utterance: UtteranceId::after_cut(stream, StreamTime(n)),
        participant: person(),
        origin: Timestamp::ZERO,
        start: StreamTime(n),
        end: StreamTime(n + 1),
        text: n.to_string(),
        language: "en-US".to_owned(),
        confidence: 1.0,
        words: Vec::new(),
    }))
}

fn person() -> Arc<Participant> {
    Arc::new(Participant { id: ParticipantId(Uuid::from_u128(1)), user_id: None, name: None, email: None })
}

impl Gateway {
    fn new(
        bus: &MemoryBus,
        key: &ConversationKey,
        at: Seen,
        view: Vec<(Offset, EventId)>,
        mutant: Option<Mutant>,
    ) -> Self {
        let subscription = now(bus.subscribe(key)).expect("there");
        Self {
            subscription,
            follower: Follower::new(at),
            under_way: VecDeque::new(),
            answer: None,
            view,
            vouches_from: at.offset,
            fresh: HashSet::new(),
            mutant,
        }
    }

    fn show(&mut self, steps: Vec<Shown>) -> Result<(), String> {
        for step in steps {
            match step {
                Shown::Entry { entry, again } => {
                    let last = self.view.last().map_or(0, |(offset, _)| offset.0);
                    if entry.offset.0 != last + 1 {
                        return Err(format!("{} was shown after {last}", entry.offset.0));
                    }
                    let again = again && self.mutant != Some(Mutant::Again);
                    if !again && !self.fresh.insert(entry.id) {
                        return Err(format!("{} was shown twice as new", entry.offset.0));
                    }
                    self.view.push((entry.offset, entry.id));
                }
                Shown::Gap { to, .. } => {
                    let last = self.view.last().map_or(0, |(offset, _)| offset.0);
                    if to.offset.0 > last {
                        return Err(format!("a gap from {last} to {} of a log that keeps everything", to.offset.0));
                    }
                    self.view.truncate(to.offset.0 as usize);
                }
                Shown::Epoch(_) => {}
            }
        }
        Ok(())
    }
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let clock = Arc::new(ManualClock::at(Timestamp(1_000_000_000)));
        let hour = Duration::from_secs(3_600);
        let limits = Limits {
            subscription_capacity: 16,
            gateway_lease: hour,
            silence: hour,
            rejoin_grace: hour,
            ..Limits::default()
        };
        let bus = MemoryBus::new(limits, Arc::clone(&clock) as _);
        let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("simulated").expect("valid") };
        let proposal =
            Proposal { conversation: ConversationId::from_random(seed), epoch: Epoch(1), title: String::new() };
        let key = now(bus.open(&meeting, proposal)).expect("room").key;
        // Somebody speaks, so that it stays open whatever is rolled back.
        let id = PublisherId::Gateway(GATEWAY);
        let claim = now(bus.claim(&key, &id)).expect("free");
        let started = Event::StreamStarted(Arc::new(StreamStarted {
            stream: StreamId(Uuid::from_u128(0)),
            participant: person(),
            gateway: GATEWAY,
            config: SpeakerConfig::default(),
            origin: Timestamp::ZERO,
            recorded: false,
            no_connection_timeout: Duration::ZERO,
        }));
        let batch = Batch {
            publisher: id,
            generation: claim.generation,
            from: 0,
            through: 1,
            events: vec![started],
            restart: None,
            seen: claim.top,
        };
        now(bus.publish(&key, batch)).expect("accepted");
        let gateways =
            (0..random.random_range(1..4)).map(|_| Gateway::new(&bus, &key, Seen::NOTHING, Vec::new(), mutant));
        let gateways = gateways.collect();
        let mut world = Self {
            mutant,
            bus,
            clock,
            key,
            speakers: Vec::new(),
            gateways,
            replica: None,
            silent: false,
            calm: false,
            streams: 0,
            watermarks: BTreeMap::new(),
            broken: HashSet::new(),
            marks: random.random_bool(0.5),
            forged: BTreeMap::new(),
            random,
        };
        for _ in 0..world.random.random_range(1..4) {
            let speaker = world.begin();
            world.speakers.push(speaker);
        }
        world
    }

    fn chance(&mut self, of: f64) -> bool {
        !self.calm && self.random.random_bool(of)
    }

    /// A new stream.
    fn begin(&mut self) -> Speaker {
        self.streams += 1;
        let stream = StreamId(Uuid::from_u128(self.streams));
        let claim = self.claim(stream).expect("nobody else claims it");
        let publisher = self.publisher(stream, &claim);
        Speaker { stream, publisher, began: 0, next: 0, covered: 0, zombies: Vec::new() }
    }

    fn claim(&mut self, stream: StreamId) -> Result<Claim, Error> {
        now(self.bus.claim(&self.key, &PublisherId::Stream(stream)))
    }

    fn publisher(&self, stream: StreamId, claim: &Claim) -> Publisher {
        let after = if self.mutant == Some(Mutant::Reappend) { AfterBranch::Forget } else { AfterBranch::Reappend };
        Publisher::new(PublisherId::Stream(stream), claim, after, Backlog { batches: 8 })
    }

    fn time(&self) -> Timestamp {
        now(self.bus.now()).expect("a clock")
    }

    /// One call of the log, with what may happen to it.
    fn publish(&mut self, stream: StreamId, mut batch: Batch, zombie: bool) -> Result<Published, Error> {
        if self.chance(0.1) {
            return Err(Error::Unavailable("the call was lost".to_owned()));
        }
        if self.mutant == Some(Mutant::Check) {
            batch.seen = Seen::NOTHING;
        }
        let forged = match self.mutant {
            Some(Mutant::Fence) => zombie,
            Some(Mutant::Idempotence) => true,
            _ => false,
        };
        if forged {
            let length = batch.through - batch.from;
            batch.from = self.watermarks.get(&stream).copied().unwrap_or(0);
            batch.through = batch.from + length;
            let current = self.speakers.iter().find(|speaker| speaker.stream == stream);
            batch.generation = current.map_or(batch.generation, |speaker| speaker.publisher.generation());
        }
        if let Some(generation) = self.forged.get(&stream) {
            batch.generation = batch.generation.max(*generation);
        }
        let mut answer = now(self.bus.publish(&self.key, batch.clone()));
        if self.mutant == Some(Mutant::Reclaim) && matches!(answer, Err(Error::Refused(Refusal::Reclaim))) {
            // As if nobody had noticed: the log takes it wherever it is by now.
            let claim = self.claim(stream)?;
            self.forged.insert(stream, claim.generation);
            (batch.generation, batch.seen) = (claim.generation, claim.top);
            if claim.watermark < batch.from {
                let missing = Batch { from: claim.watermark, through: batch.from, events: Vec::new(), ..batch.clone() };
                now(self.bus.publish(&self.key, missing))?;
            }
            answer = now(self.bus.publish(&self.key, batch));
        }
        if let Ok(published) = &answer {
            self.watermarks.insert(stream, published.watermark);
        }
        if self.chance(0.1) { Err(Error::Unavailable("the answer was lost".to_owned())) } else { answer }
    }

    /// Lets a speaker's publisher do one thing.
    fn speak(&mut self, index: usize) -> Result<(), Wrong> {
        let speaker = &mut self.speakers[index];
        let stream = speaker.stream;
        let (next, time) = (speaker.next, self.time());
        let speaker = &mut self.speakers[index];
        if !self.silent {
            let stretch = Stretch { from: next, through: next + 1, events: vec![spoken(stream, next)], restart: None };
            if speaker.publisher.push(stretch).is_ok() {
                speaker.next += 1;
            }
        }
        match speaker.publisher.next(time) {
            Step::Publish(batch) => {
                let answer = self.publish(stream, *batch, false);
                let speaker = &mut self.speakers[index];
                if let Some((stretch, _)) = speaker.publisher.answered(answer, time, 0.5) {
                    speaker.covered = speaker.covered.max(stretch.through);
                }
            }
            Step::Claim => {
                let answer = self.claim(stream);
                let watermark = answer.as_ref().ok().map(|claim| claim.watermark);
                let speaker = &mut self.speakers[index];
                speaker.publisher.claimed(answer, time, 0.5);
                // What it said itself it says again; what one before it said, nobody has any more.
                if watermark.is_some_and(|watermark| watermark < speaker.began.min(speaker.covered)) {
                    self.say_broken(index);
                }
            }
            Step::Over(Refusal::Hole { watermark }) if watermark < self.speakers[index].began => self.say_broken(index),
            Step::Over(Refusal::Fenced { .. }) => self.take_over(index),
            Step::Over(refusal) => return Err(Wrong::Stuck(format!("a publisher gives up: {refusal}"))),
            Step::Wait(_) => {}
            Step::Idle => {
                // A speaker who is silent asks now and then whether the log still knows what was said.
                let publisher = &self.speakers[index].publisher;
                let (id, generation) = (PublisherId::Stream(stream), publisher.generation());
                if self.mutant != Some(Mutant::Check) {
                    now(self.bus.read(&self.key, publisher.seen(), 1)).expect("readable");
                }
                match now(self.bus.keep(&self.key, &id, generation)) {
                    Err(Error::Refused(Refusal::Reclaim)) if self.mutant == Some(Mutant::Reclaim) => {}
                    Err(Error::Refused(Refusal::Fenced { .. })) if self.forged.contains_key(&stream) => {}
                    Err(Error::Refused(Refusal::Reclaim)) => self.speakers[index].publisher.branched(),
                    Err(Error::Refused(Refusal::Fenced { .. })) => self.take_over(index),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Somebody repeats a part of what is on the log, or leaves something out, by a claim that stands: the log's word is
    /// that this never happened.
    fn stray(&mut self, index: usize) {
        let speaker = &self.speakers[index];
        let (stream, generation) = (speaker.stream, speaker.publisher.generation());
        let Some(&watermark) = self.watermarks.get(&stream).filter(|watermark| **watermark > 0) else { return };
        let overlaps = self.random.random_bool(0.5);
        let inputs = if overlaps { watermark - 1..watermark + 1 } else { watermark + 1..watermark + 2 };
        let mut batch = Batch {
            publisher: PublisherId::Stream(stream),
            generation,
            from: inputs.start,
            through: inputs.end,
            events: inputs.map(|input| spoken(stream, input)).collect(),
            restart: None,
            seen: Seen::NOTHING,
        };
        match self.mutant {
            Some(Mutant::Overlap) if overlaps => batch.from = watermark,
            Some(Mutant::Hole) if !overlaps => {
                let missing = Batch { from: watermark, through: batch.from, events: Vec::new(), ..batch.clone() };
                // Refused like the rest when it comes from before a branch.
                let _ = now(self.bus.publish(&self.key, missing));
            }
            _ => {}
        }
        let _ = now(self.bus.publish(&self.key, batch));
    }

    /// The stream's audio goes to another recognizer, from where the log says; the old one may wake later.
    fn take_over(&mut self, index: usize) {
        let stream = self.speakers[index].stream;
        let Ok(claim) = self.claim(stream) else { return };
        if claim.watermark < self.speakers[index].covered {
            return self.say_broken(index);
        }
        let publisher = self.publisher(stream, &claim);
        let speaker = &mut self.speakers[index];
        let old = std::mem::replace(&mut speaker.publisher, publisher);
        speaker.zombies.push(old);
        // What it had heard is heard again.
        (speaker.began, speaker.next) = (claim.watermark, claim.watermark);
    }

    /// Log and recognizer lost it together, and the uplink keeps no audio that was acknowledged: the stream ends, said so.
    fn say_broken(&mut self, index: usize) {
        self.broken.insert(self.speakers[index].stream);
        let anew = self.begin();
        self.speakers[index] = anew;
    }

    /// A superseded publisher wakes. It never claims: only the uplink does.
    fn wake(&mut self, index: usize) {
        let (stream, time) = (self.speakers[index].stream, self.time());
        let Some(mut zombie) = self.speakers[index].zombies.pop() else { return };
        if let Step::Publish(batch) = zombie.next(time) {
            let answer = self.publish(stream, *batch, true);
            zombie.answered(answer, time, 0.5);
            self.speakers[index].zombies.push(zombie);
        }
    }

    /// Lets a gateway do everything it can, as far as nothing goes wrong.
    fn serve(&mut self, index: usize) -> Result<(), Wrong> {
        loop {
            match self.gateways[index].subscription.next().now_or_never() {
                Some(Some(delivery)) => {
                    let (lost, twice, swapped) = (self.chance(0.15), self.chance(0.1), self.chance(0.1));
                    let lost = lost || self.mutant == Some(Mutant::Follows) && is_fleeting(&delivery);
                    let gateway = &mut self.gateways[index];
                    if !lost {
                        gateway.under_way.push_back(delivery.clone());
                    }
                    if twice {
                        gateway.under_way.push_back(delivery);
                    }
                    let count = gateway.under_way.len();
                    if swapped && count >= 2 {
                        gateway.under_way.swap(count - 1, count - 2);
                    }
                }
                Some(None) => {
                    let gateway = &mut self.gateways[index];
                    gateway.subscription = now(self.bus.subscribe(&self.key)).expect("there");
                    if self.mutant != Some(Mutant::Missed) {
                        gateway.follower.missed();
                    }
                }
                None => break,
            }
        }
        let mut steps = Vec::new();
        for _ in 0..self.random.random_range(0..4) {
            let gateway = &mut self.gateways[index];
            if let Some(delivery) = gateway.under_way.pop_front() {
                gateway.follower.delivered(&delivery, &mut steps);
            }
        }
        if self.chance(0.3) || self.calm {
            if let Some(answer) = self.gateways[index].answer.take() {
                self.gateways[index].follower.read(answer, &mut steps);
            } else if self.gateways[index].follower.is_behind() {
                let mut at = self.gateways[index].follower.at();
                if self.mutant == Some(Mutant::Check) {
                    at.check = None;
                }
                let mut read = now(self.bus.read(&self.key, at, self.random.random_range(1..5))).expect("readable");
                if self.mutant == Some(Mutant::Repair)
                    && let Read::Page(Page { entries, top, .. }) = &mut read
                {
                    // As if it went on with what comes next.
                    let offset = top.offset;
                    entries.clear();
                    let check = top.check;
                    read = Read::Gap {
                        reason: hearsay_bus::GapReason::Lost,
                        resume: Seen { epoch: top.epoch, offset, check },
                    };
                }
                self.gateways[index].answer = Some(read);
            }
        }
        Ok(self.gateways[index].show(steps)?)
    }

    /// The newest entry, every two seconds.
    fn tails(&mut self) {
        if self.mutant == Some(Mutant::Tail) {
            return;
        }
        let lease = Lease { key: self.key.clone(), listeners: 1 };
        let tails = now(self.bus.renew(GATEWAY, &[lease])).expect("reachable");
        for gateway in &mut self.gateways {
            gateway.follower.tail(&tails[0]);
        }
    }

    fn step(&mut self) -> Result<(), Wrong> {
        self.clock.advance(Duration::from_millis(self.random.random_range(1..100)));
        match self.random.random_range(0..100) {
            0..45 => {
                let index = self.random.random_range(0..self.speakers.len());
                self.speak(index)?;
            }
            45..80 => {
                let index = self.random.random_range(0..self.gateways.len());
                self.serve(index)?;
            }
            80..85 => self.tails(),
            85..89 => {
                let index = self.random.random_range(0..self.speakers.len());
                self.take_over(index);
            }
            89..92 => {
                let index = self.random.random_range(0..self.speakers.len());
                self.wake(index);
            }
            92 => {
                let index = self.random.random_range(0..self.speakers.len());
                self.stray(index);
            }
            93..95 => self.bus.cut_subscriptions(&self.key),
            95..97 => {
                // A gateway dies; its subscriber returns to another with the position it has.
                let index = self.random.random_range(0..self.gateways.len());
                let epoch = self.gateways[index].follower.at().epoch;
                let view = std::mem::take(&mut self.gateways[index].view);
                // A client's position names an entry without its check: where the log has lost what the client saw, only
                // this gateway could have shown it, and how much was lost. A log that marks its own failovers knows.
                let log = self.log();
                let stands = self.marks
                    || view
                        .last()
                        .is_none_or(|(offset, id)| log.get(offset.0 as usize - 1).is_some_and(|entry| entry.id == *id));
                let view = if stands { view } else { Vec::new() };
                let at = match (view.last(), epoch) {
                    (Some((offset, _)), Some(epoch)) => Position { epoch, offset: *offset }.into(),
                    _ => Seen::NOTHING,
                };
                let view = if at == Seen::NOTHING { Vec::new() } else { view };
                self.gateways[index] = Gateway::new(&self.bus, &self.key, at, view, self.mutant);
            }
            97 if self.marks => {
                // The slot moves: nothing is lost, and another server answers.
                let replica = self.bus.replica(&self.key).expect("there");
                self.bus.move_to(replica);
                self.bus.cut_subscriptions(&self.key);
            }
            97..99 => self.replica = self.bus.replica(&self.key),
            _ => {
                // The replica may lag by seconds, not by minutes: publishers keep what they said for one.
                if let Some(replica) = self.replica.take() {
                    self.watermarks.clear();
                    if self.marks {
                        self.bus.move_to(replica);
                        return Ok(());
                    }
                    self.bus.fail_over(replica);
                    // What a subscriber saw at another gateway, this one cannot vouch for, as above: where history
                    // branches below what it has seen itself, the subscriber begins anew.
                    let top = now(self.bus.meta(&self.key)).expect("there").top.offset;
                    for gateway in &mut self.gateways {
                        let at = gateway.follower.at();
                        if gateway.vouches_from > top || (at.offset > Offset::START && at.check.is_none()) {
                            *gateway = Gateway::new(&self.bus, &self.key, Seen::NOTHING, Vec::new(), self.mutant);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn rounds(&mut self, count: usize, tails: bool) -> Result<(), Wrong> {
        for round in 0..count {
            self.clock.advance(Duration::from_millis(30));
            if tails && round % 20 == 0 {
                self.tails();
            }
            self.all_speak()?;
            for index in 0..self.gateways.len() {
                self.serve(index)?;
            }
        }
        Ok(())
    }

    fn all_speak(&mut self) -> Result<(), Wrong> {
        (0..self.speakers.len()).try_for_each(|index| self.speak(index))
    }

    /// One more word of everybody, while nothing goes wrong.
    fn one_word(&mut self) -> Result<(), Wrong> {
        self.silent = false;
        self.all_speak()?;
        self.silent = true;
        Ok(())
    }

    /// Each sign that something was missed is enough by itself, long before the next look at the end of the log.
    fn signs(&mut self) -> Result<(), Wrong> {
        // Said between two subscriptions.
        self.bus.cut_subscriptions(&self.key);
        self.one_word()?;
        self.rounds(60, false)?;
        self.check().map_err(|wrong| format!("after a new subscription {wrong}"))?;
        // The announcement was lost, and what is fleeting comes after it.
        self.one_word()?;
        for gateway in &mut self.gateways {
            while gateway.subscription.next().now_or_never().flatten().is_some() {}
        }
        let speaker = &self.speakers[0];
        let (id, generation) = (PublisherId::Stream(speaker.stream), speaker.publisher.generation());
        let speaking = Ephemeral::Speaking { participant: person(), stream: speaker.stream, speaking: true };
        match now(self.bus.announce(&self.key, &id, generation, vec![speaking])) {
            Ok(()) => self.rounds(60, false)?,
            Err(error) => return Err(Wrong::Stuck(format!("a partial is refused: {error}"))),
        }
        Ok(self.check().map_err(|wrong| format!("after a partial {wrong}"))?)
    }

    /// Everybody gets to the end: first what was said, then one more word whose announcement may be lost, then silence.
    fn settle(&mut self) -> Result<(), Wrong> {
        (self.silent, self.calm) = (true, true);
        self.rounds(300, true)?;
        self.check()?;
        self.signs()?;
        (self.silent, self.calm) = (false, false);
        self.all_speak()?;
        self.silent = true;
        self.rounds(30, false)?;
        self.calm = true;
        self.rounds(400, true)
    }

    fn log(&self) -> Vec<Entry> {
        match now(self.bus.read(&self.key, Seen::NOTHING, usize::MAX)).expect("readable") {
            Read::Page(page) => page.entries,
            Read::Gap { .. } => panic!("nothing is dropped"),
        }
    }

    fn check(&self) -> Result<(), String> {
        let log = self.log();
        let whole: Vec<_> = log.iter().map(|entry| (entry.offset, entry.id)).collect();
        for (index, gateway) in self.gateways.iter().enumerate() {
            if gateway.view != whole {
                let same = gateway.view.iter().zip(&whole).take_while(|(shown, there)| shown == there).count();
                return Err(format!(
                    "gateway {index} shows {} of {} entries, the first {same} of them as the log has them",
                    gateway.view.len(),
                    whole.len()
                ));
            }
        }
        let mut said: BTreeMap<StreamId, Vec<u64>> = BTreeMap::new();
        for entry in &log {
            if let Body::Event(Event::Final(spoken)) = &entry.body {
                said.entry(spoken.stream).or_default().push(spoken.start.micros());
            }
        }
        for (stream, inputs) in &said {
            if inputs.iter().enumerate().any(|(index, input)| *input != index as u64) {
                return Err(format!("stream {} is on the log as {inputs:?}", stream.0.as_u128()));
            }
        }
        for speaker in &self.speakers {
            let heard = said.get(&speaker.stream).map_or(0, Vec::len) as u64;
            if heard != speaker.next && !self.broken.contains(&speaker.stream) {
                let stream = speaker.stream.0.as_u128();
                return Err(format!("stream {stream}: {heard} of {} said are on the log", speaker.next));
            }
        }
        Ok(())
    }
}

fn is_fleeting(delivery: &Delivery) -> bool {
    matches!(delivery, Delivery::Ephemeral { .. })
}

fn run(seed: u64, mutant: Option<Mutant>) -> Result<(), Wrong> {
    let mut world = World::new(seed, mutant);
    for _ in 0..400 {
        world.step()?;
    }
    world.settle()?;
    Ok(world.check()?)
}

fn seeds() -> u64 {
    std::env::var_os("HEARSAY_SEEDS").and_then(|seeds| seeds.to_str()?.parse().ok()).unwrap_or(200)
}

#[test]
fn whatever_fails_everybody_sees_the_same_and_nothing_is_lost_or_doubled() {
    for seed in 0..seeds() {
        if let Err(wrong) = run(seed, None) {
            panic!("seed {seed}: {wrong:?}");
        }
    }
}

#[test]
fn the_checker_finds_every_repair_that_is_missing() {
    for mutant in MUTANTS {
        // Found by what readers see: a part that only gives up would be noticed without them.
        let mut stuck = None;
        let found = (0..seeds().max(2_000)).find_map(|seed| match run(seed, Some(mutant)) {
            Err(Wrong::Seen(what)) => Some((seed, what)),
            Err(Wrong::Stuck(why)) => {
                stuck = Some(why);
                None
            }
            Ok(()) => None,
        });
        let (seed, what) = found.unwrap_or_else(|| panic!("nobody misses {mutant:?}; some were stuck: {stuck:?}"));
        println!("{mutant:?}: missed by seed {seed}: {what}");
    }
}
