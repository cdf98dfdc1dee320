//! Gateways that live, fall silent for a while and die, and what becomes of who spoke through them, simulated from a seed:
//! lost calls, answers, renewals and visits, failovers that roll the log back, and slots that move. By the log's own time,
//! what a dead gateway leaves behind is gone within ten seconds, nobody else is sent away, and a conversation that nobody is
//! left in ends.
//!
//! `HEARSAY_SEEDS=100000 cargo test -p hearsay-bus --test lifecycle` runs more of them; a failure names its seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use hearsay_bus::{
    Body, Bus, Error, Lease, Limits, ManualClock, MemoryBus, Proposal, Read, Refusal, Replica, Seen, State,
    publisher::{AfterBranch, Backlog, Publisher, Step, Stretch},
};
use hearsay_protocol::{
    AccountId, ConversationId, ConversationKey, Epoch, Event, GatewayId, MeetingId, MeetingKey, ParticipantId,
    PublisherId, StreamId, Timestamp,
    event::{Participant, SpeakerConfig, StreamEnd, StreamEnded, StreamStarted},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use uuid::Uuid;

/// Who spoke through a gateway that died is gone after this.
const GHOSTS: Duration = Duration::from_secs(10);
/// Gateways renew, and everybody visits, this often.
const RENEW: Duration = Duration::from_secs(2);
const VISIT: Duration = Duration::from_secs(1);

/// What is left out, to see that the checker misses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    /// A dead gateway's lease does not end.
    Lease,
    /// A living one does not renew its own.
    Renewal,
    /// Nobody looks at the deadlines.
    Visits,
    /// What a failover lost of comings and goings is not said again.
    Reappend,
}

/// A call of the memory bus is ready at once.
fn now<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("the memory bus never waits")
}

struct Gateway {
    id: GatewayId,
    publisher: Publisher,
    said: u64,
    /// Streams that were begun here and have not stopped, and who speaks.
    speaking: BTreeMap<StreamId, ParticipantId>,
    killed: Option<Timestamp>,
    renewed: Timestamp,
    /// Renewals in a row that were lost.
    unheard: u32,
}

struct World {
    random: StdRng,
    mutant: Option<Mutant>,
    bus: MemoryBus,
    clock: Arc<ManualClock>,
    key: ConversationKey,
    gateways: Vec<Gateway>,
    replica: Option<(Timestamp, Replica)>,
    visited: Timestamp,
    /// The last visit was lost.
    unvisited: bool,
    /// The log was rolled back: what it says now is not what stands.
    unsettled: Option<Timestamp>,
    people: u128,
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp(1_000_000_000)));
        let bus = MemoryBus::new(Limits::default(), Arc::clone(&clock) as _);
        let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("simulated").expect("valid") };
        let proposal =
            Proposal { conversation: ConversationId::from_random(seed), epoch: Epoch(1), title: String::new() };
        let key = now(bus.open(&meeting, proposal)).expect("room").key;
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            mutant,
            bus,
            clock,
            key,
            gateways: Vec::new(),
            replica: None,
            visited: Timestamp::ZERO,
            unvisited: false,
            unsettled: None,
            people: 0,
        };
        for _ in 0..2 {
            world.start();
            world.speak(world.gateways.len() - 1);
        }
        world
    }

    fn time(&self) -> Timestamp {
        now(self.bus.now()).expect("a clock")
    }

    fn start(&mut self) {
        let id = GatewayId(Uuid::from_u128(0xA0 + self.gateways.len() as u128));
        let claim = now(self.bus.claim(&self.key, &PublisherId::Gateway(id))).expect("free");
        let after = if self.mutant == Some(Mutant::Reappend) { AfterBranch::Forget } else { AfterBranch::Reappend };
        let publisher = Publisher::new(PublisherId::Gateway(id), &claim, after, Backlog { batches: 64 });
        let speaking = BTreeMap::new();
        let renewed = self.time();
        self.gateways.push(Gateway { id, publisher, said: 0, speaking, killed: None, renewed, unheard: 0 });
    }

    fn say(&mut self, index: usize, event: Event) {
        let gateway = &mut self.gateways[index];
        let stretch = Stretch { from: gateway.said, through: gateway.said + 1, events: vec![event], restart: None };
        gateway.publisher.push(stretch).expect("room");
        gateway.said += 1;
    }

    /// Somebody begins to speak here.
    fn speak(&mut self, index: usize) {
        self.people += 1;
        let (stream, id) = (StreamId(Uuid::from_u128(self.people)), ParticipantId(Uuid::from_u128(self.people)));
        let started = StreamStarted {
            stream,
            participant: Arc::new(Participant { id, user_id: None, name: None, email: None }),
            gateway: self.gateways[index].id,
            config: SpeakerConfig::default(),
            origin: Timestamp::ZERO,
            recorded: false,
            no_connection_timeout: Duration::ZERO,
        };
        self.gateways[index].speaking.insert(stream, id);
        self.say(index, Event::StreamStarted(Arc::new(started)));
        self.drive(index);
    }

    /// Carries out what a gateway has to say, as far as calls get through.
    fn drive(&mut self, index: usize) {
        for _ in 0..8 {
            let (lost, unanswered) = (self.random.random_bool(0.1), self.random.random_bool(0.1));
            let time = self.time();
            let gateway = &mut self.gateways[index];
            let fate = |done: bool| if done { Some(Error::Unavailable("lost".to_owned())) } else { None };
            match gateway.publisher.next(time) {
                Step::Publish(batch) => {
                    let answer = match fate(lost) {
                        Some(error) => Err(error),
                        None => now(self.bus.publish(&self.key, *batch))
                            .and_then(|done| fate(unanswered).map_or(Ok(done), Err)),
                    };
                    gateway.publisher.answered(answer, time, 0.5);
                }
                Step::Claim => {
                    let answer = match fate(lost) {
                        Some(error) => Err(error),
                        None => now(self.bus.claim(&self.key, &PublisherId::Gateway(gateway.id))),
                    };
                    gateway.publisher.claimed(answer, time, 0.5);
                }
                Step::Wait(_) | Step::Over(_) => return,
                Step::Idle => {
                    let (id, generation) = (PublisherId::Gateway(gateway.id), gateway.publisher.generation());
                    // Shows the log what it has seen, and asks whether its generation still stands.
                    let _ = now(self.bus.read(&self.key, gateway.publisher.seen(), 1));
                    match now(self.bus.keep(&self.key, &id, generation)) {
                        Err(Error::Refused(Refusal::Reclaim)) => gateway.publisher.branched(),
                        _ => return,
                    }
                }
            }
        }
    }

    /// What everybody does by the clock.
    fn beat(&mut self) {
        let time = self.time();
        for index in 0..self.gateways.len() {
            let dead = self.gateways[index].killed.is_some();
            let renews = match self.mutant {
                Some(Mutant::Lease) => true,
                Some(Mutant::Renewal) => false,
                _ => !dead,
            };
            if !dead {
                self.drive(index);
            }
            if renews && time.since(self.gateways[index].renewed) >= RENEW {
                let lost = self.random.random_bool(0.2) && self.gateways[index].unheard < 1;
                let gateway = &mut self.gateways[index];
                gateway.renewed = time;
                gateway.unheard = if lost { gateway.unheard + 1 } else { 0 };
                if !lost {
                    let lease = Lease { key: self.key.clone(), listeners: 1 };
                    now(self.bus.renew(gateway.id, &[lease])).expect("reachable");
                }
            }
        }
        if time.since(self.visited) >= VISIT && self.mutant != Some(Mutant::Visits) {
            self.visited = time;
            self.unvisited = !self.unvisited && self.random.random_bool(0.2);
            if !self.unvisited && now(self.bus.due(10)).expect("reachable").contains(&self.key) {
                now(self.bus.tick(&self.key)).expect("there");
            }
        }
    }

    fn step(&mut self) {
        self.clock.advance(Duration::from_millis(self.random.random_range(20..400)));
        let alive: Vec<usize> =
            (0..self.gateways.len()).filter(|index| self.gateways[*index].killed.is_none()).collect();
        let one = alive.get(self.random.random_range(0..alive.len().max(1))).copied();
        match (self.random.random_range(0..100), one) {
            (0..6, _) if alive.len() < 4 => self.start(),
            (6..16, Some(index)) => self.speak(index),
            (16..20, Some(index)) => {
                let live: usize = alive.iter().map(|index| self.gateways[*index].speaking.len()).sum();
                // The last one that stops ends the conversation, which is for the end of this run.
                if live > 1
                    && let Some((stream, _)) = self.gateways[index].speaking.pop_first()
                {
                    let how = StreamEnd::Stopped { linger: Duration::from_secs(3_600) };
                    self.say(index, Event::StreamEnded(StreamEnded { stream, how }));
                }
            }
            (20..23, Some(index)) if alive.len() > 1 => self.gateways[index].killed = Some(self.time()),
            (23..26, _) => self.replica = self.bus.replica(&self.key).map(|replica| (self.time(), replica)),
            (26..28, _) => {
                // A replica lags by a moment.
                let time = self.time();
                let fresh = self.replica.take().filter(|(at, _)| time.since(*at) <= Duration::from_secs(1));
                if let Some((_, replica)) = fresh {
                    self.bus.move_to(replica);
                    self.unsettled = Some(time);
                }
            }
            (28, _) => {
                let replica = self.bus.replica(&self.key).expect("there");
                self.bus.move_to(replica);
            }
            _ => {}
        }
        self.beat();
    }

    fn log(&self) -> Vec<Event> {
        let Read::Page(page) = now(self.bus.read(&self.key, Seen::NOTHING, usize::MAX)).expect("readable") else {
            panic!("nothing is dropped");
        };
        let events = page.entries.into_iter().filter_map(|entry| match entry.body {
            Body::Event(event) => Some(event),
            Body::Tombstone => None,
        });
        events.collect()
    }

    /// Who is there as the log tells it, which is to make sense by itself.
    fn present(&self) -> Result<BTreeSet<ParticipantId>, String> {
        let mut present = BTreeSet::new();
        let mut ended = false;
        for event in self.log() {
            if ended {
                return Err(format!("after the end comes {event:?}"));
            }
            match event {
                Event::Joined(who) if !present.insert(who.id) => return Err(format!("{:?} joins twice", who.id)),
                Event::Left(who) if !present.remove(&who.id) => return Err(format!("{:?} leaves twice", who.id)),
                Event::Ended(_) => ended = true,
                _ => {}
            }
        }
        if ended && !present.is_empty() {
            return Err(format!("it is over, and {present:?} are there"));
        }
        Ok(present)
    }

    fn check(&self) -> Result<(), String> {
        let present = self.present()?;
        let time = self.time();
        // Who was rolled back is back when their gateway has spoken to the log again.
        let settled = self.unsettled.is_none_or(|since| time.since(since) >= GHOSTS);
        for gateway in &self.gateways {
            for who in gateway.speaking.values() {
                match gateway.killed {
                    Some(killed) if time.since(killed) > GHOSTS && present.contains(who) => {
                        return Err(format!("{who:?} is there {:?} after its gateway died", time.since(killed)));
                    }
                    None if settled && gateway.publisher.waiting() == 0 && !present.contains(who) => {
                        return Err(format!("{who:?} speaks and is not there"));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn run(seed: u64, mutant: Option<Mutant>) -> Result<(), String> {
    let mut world = World::new(seed, mutant);
    for step in 0..400 {
        world.step();
        world.check().map_err(|wrong| format!("step {step}: {wrong}"))?;
        if now(world.bus.meta(&world.key)).expect("there").state == State::Ended {
            // Nobody was left for long enough.
            return Ok(());
        }
    }
    // Everybody is gone.
    let time = world.time();
    world.gateways.iter_mut().for_each(|gateway| gateway.killed = gateway.killed.or(Some(time)));
    let over = GHOSTS + Limits::default().rejoin_grace + 2 * VISIT;
    while world.time().since(time) <= over {
        world.clock.advance(Duration::from_millis(200));
        world.beat();
        world.check()?;
    }
    match now(world.bus.meta(&world.key)).expect("there").state {
        State::Ended => Ok(()),
        state => Err(format!("{over:?} after everybody died it is {state:?}")),
    }
}

fn seeds() -> u64 {
    std::env::var_os("HEARSAY_SEEDS").and_then(|seeds| seeds.to_str()?.parse().ok()).unwrap_or(200)
}

#[test]
fn ghosts_leave_in_time_and_nobody_else_does() {
    for seed in 0..seeds() {
        if let Err(wrong) = run(seed, None) {
            panic!("seed {seed}: {wrong}");
        }
    }
}

#[test]
fn the_checker_misses_every_part() {
    for mutant in [Mutant::Lease, Mutant::Renewal, Mutant::Visits, Mutant::Reappend] {
        let found = (0..seeds()).find_map(|seed| run(seed, Some(mutant)).err().map(|wrong| (seed, wrong)));
        let (seed, wrong) = found.unwrap_or_else(|| panic!("nobody misses {mutant:?}"));
        println!("{mutant:?}: missed by seed {seed}: {wrong}");
    }
}
