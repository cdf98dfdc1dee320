//! The fan-out on the log it runs on in one process.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[allow(dead_code, reason = "shared with another test")]
mod bus;

use std::{sync::Arc, time::Duration};

use bus::{meeting, said};
use hearsay_bus::{Batch, Bus, Limits, ManualClock, MemoryBus, Proposal, Seen, State};
use hearsay_fanout::{CoreSet, FanoutConfig, History, Hub, ListenOutbox, Listening, Opted, Outbox, Outgoing, View};
use hearsay_protocol::{
    ConversationId, ConversationKey, Epoch, Event, GatewayId, Generation, Position, PublisherId, Timestamp,
};
use hearsay_runtime::Tasks;
use tokio::time::timeout;
use uuid::Uuid;

struct Speaker {
    bus: Arc<MemoryBus>,
    key: ConversationKey,
    publisher: PublisherId,
    generation: Generation,
    through: u64,
}

impl Speaker {
    async fn claim(bus: &Arc<MemoryBus>, key: &ConversationKey) -> Self {
        let publisher = PublisherId::Rest(Uuid::from_u128(4));
        let claim = bus.claim(key, &publisher).await.unwrap();
        let (bus, key, through) = (Arc::clone(bus), key.clone(), claim.watermark);
        Self { bus, key, publisher, generation: claim.generation, through }
    }

    async fn say(&mut self, event: Event) -> Position {
        let batch = Batch {
            publisher: self.publisher.clone(),
            generation: self.generation,
            from: self.through,
            through: self.through + 1,
            events: vec![event],
            restart: None,
            seen: Seen::NOTHING,
        };
        self.through += 1;
        self.bus.publish(&self.key, batch).await.unwrap().position
    }
}

struct Reader {
    outgoing: Outgoing,
    _listening: Listening,
}

impl Reader {
    /// Everything up to the text, which is awaited.
    async fn until(&mut self, text: &str) -> String {
        let mut all = String::new();
        while !all.contains(text) {
            let next = timeout(Duration::from_secs(600), self.outgoing.next()).await;
            let bytes = next.unwrap_or_else(|_| panic!("no {text:?} in {all}")).expect("closed");
            all.push_str(&String::from_utf8_lossy(&bytes));
        }
        all
    }
}

#[tokio::test(start_paused = true)]
async fn listeners_of_the_memory_bus_hear_everything_once_even_after_a_failover() {
    let (config, tasks) = (FanoutConfig::default(), Tasks::new());
    let bus = Arc::new(MemoryBus::new(Limits::default(), Arc::new(ManualClock::at(Timestamp(1_000_000)))));
    let cores = CoreSet::on_current_runtime(&config, &tasks).unwrap();
    let log: Arc<dyn Bus> = Arc::clone(&bus) as _;
    let hub = Hub::start(config, log, GatewayId(Uuid::from_u128(9)), cores, &tasks);
    let listen = |history, since| {
        let (sink, outgoing) = Outbox::new(hub.config().outbox_limits());
        let view = View::listener().unfiltered(true);
        let opted = Opted::default();
        let listening =
            hub.listen_outbox(ListenOutbox { meeting: meeting("memory"), view, opted, since, history, sink });
        Reader { outgoing, _listening: listening }
    };

    let mut early = listen(History::None, None);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let proposal =
        Proposal { conversation: ConversationId::from_random(3), epoch: Epoch(0xfeed), title: "t".to_owned() };
    let opened = bus.open(&meeting("memory"), proposal).await.unwrap();
    assert_eq!(opened.meta.state, State::Lingering);
    let mut speaker = Speaker::claim(&bus, &opened.key).await;
    let first = speaker.say(said(1, "First.")).await;
    let story = early.until(&format!("\"position\":\"{first}\"")).await;
    assert!(story.contains("conversation_created") && story.contains("\"kind\":\"started\""), "{story}");

    // Announcements are lost, and found.
    bus.cut_subscriptions(&opened.key);
    let second = speaker.say(said(2, "Second.")).await;
    early.until(&format!("\"position\":\"{second}\"")).await;

    // The primary is lost, and what only it knew.
    let replica = bus.replica(&opened.key).unwrap();
    let third = speaker.say(said(3, "Third.")).await;
    early.until(&format!("\"position\":\"{third}\"")).await;
    bus.fail_over(replica);
    let mut back = listen(History::None, Some(third));
    let told = early.until("\"type\":\"gap\"").await;
    assert!(told.contains(&format!("\"from\":\"{third}\"")) && told.contains("\"reason\":\"branch\""), "{told}");
    let told = back.until("\"type\":\"gap\"").await;
    assert!(told.contains("\"reason\":\"branch\"") && !told.contains("Third."), "{told}");
    let mut speaker = Speaker::claim(&bus, &opened.key).await;
    let again = speaker.say(said(4, "Fourth.")).await;
    assert_ne!(again.epoch, third.epoch);
    for reader in [&mut early, &mut back] {
        reader.until(&format!("\"position\":\"{again}\"")).await;
    }

    let mut foreign = listen(History::None, Some("00000001:7".parse().unwrap()));
    let told = foreign.until(&format!("\"position\":\"{again}\"")).await;
    assert!(told.contains("\"reason\":\"conversation\"") && told.contains("First."), "{told}");
    let mut late = listen(History::None, Some(third));
    let told = late.until(&format!("\"position\":\"{again}\"")).await;
    assert!(told.contains("\"reason\":\"branch\"") && !told.contains("Second."), "{told}");
    let mut pictured = listen(History::Snapshot, None);
    let told = pictured.until("\"type\":\"snapshot\"").await;
    assert!(told.contains("Fourth.") && !told.contains("Third."), "{told}");
}
