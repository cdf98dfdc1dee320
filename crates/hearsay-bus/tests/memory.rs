//! `MemoryBus` keeps the contract.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::{BoxFuture, ready};
use hearsay_bus::{
    Bus, Error, Limits, ManualClock, MemoryBus, Proposal, Refusal, Replica,
    conformance::{CASES, Subject},
};
use hearsay_protocol::{AccountId, ConversationId, ConversationKey, Epoch, MeetingId, MeetingKey, Timestamp};

struct Memory {
    bus: MemoryBus,
    clock: Arc<ManualClock>,
    limits: Limits,
    replicas: Mutex<HashMap<ConversationKey, Replica>>,
}

impl Memory {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp(1_900_000_000_000_000)));
        let limits = Limits { subscription_capacity: 16, followed: true, ..Limits::default() };
        let bus = MemoryBus::new(limits.clone(), Arc::clone(&clock) as _);
        Self { bus, clock, limits, replicas: Mutex::default() }
    }
}

impl Subject for Memory {
    fn bus(&self) -> Arc<dyn Bus> {
        Arc::new(self.bus.clone())
    }

    fn limits(&self) -> Limits {
        self.limits.clone()
    }

    fn advance(&self, by: Duration) -> BoxFuture<'_, ()> {
        self.clock.advance(by);
        Box::pin(ready(()))
    }

    fn checkpoint<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, ()> {
        let replica = self.bus.replica(key).expect("the conversation exists");
        self.replicas.lock().expect("no test panicked").insert(key.clone(), replica);
        Box::pin(ready(()))
    }

    fn fail_over<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, ()> {
        let replica = self.replicas.lock().expect("no test panicked").remove(key).expect("a checkpoint was taken");
        self.bus.fail_over(replica);
        Box::pin(ready(()))
    }
}

#[tokio::test]
async fn memory_bus_conforms() {
    let mut failed = Vec::new();
    for (name, case) in CASES {
        let run = tokio::task::LocalSet::new();
        let outcome = run
            .run_until(async move {
                let subject = Memory::new();
                futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(case(&subject))).await
            })
            .await;
        println!("{name}: {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        if outcome.is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "{} of {} cases failed: {failed:?}", failed.len(), CASES.len());
}

#[tokio::test]
async fn records_of_long_ago_make_room() {
    let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
    let limits = Limits { max_conversations: 3, ..Limits::default() };
    let bus = MemoryBus::new(limits.clone(), Arc::clone(&clock) as _);
    let open = |n: u64| {
        let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new(&format!("m{n}")).unwrap() };
        let proposal = Proposal { conversation: ConversationId::from_random(n), epoch: Epoch(1), title: String::new() };
        let bus = bus.clone();
        async move { bus.open(&meeting, proposal).await.map(|opened| opened.key) }
    };
    let first = open(1).await.unwrap();
    for n in 2..4 {
        open(n).await.unwrap();
    }
    let full = open(4).await;
    assert!(matches!(full, Err(Error::Refused(Refusal::Full { .. }))), "all of them are live: {full:?}");
    // Nobody spoke in the first: it ends and becomes a record.
    clock.advance(limits.rejoin_grace);
    bus.tick(&first).await.unwrap();
    clock.advance(limits.compact_after);
    let top = bus.meta(&first).await.unwrap().top.offset;
    bus.compact(&first, top, "record".into()).await.unwrap();
    open(4).await.unwrap();
    assert!(matches!(bus.meta(&first).await, Err(Error::Refused(Refusal::Gone))));
}
