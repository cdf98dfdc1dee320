//! A recognizer that cannot keep up, seen from its clients' sockets.

use std::{sync::Arc, time::Duration};

use futures::SinkExt;
use hearsay_bus::{Bus, Limits, MemoryBus, SystemClock};
use hearsay_recognizer::{Config, LadderConfig, Recognizer};
use hearsay_runtime::{HumanDuration, Tasks};
use hearsay_speech::{engine::scripted::ScriptedEngine, vad::Energy};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{self, House, config};

const START: &str =
    r#"{"type":"start_request","config":{"speechRecognition":{"sampleRateHertz":16000}},"hearsay":{"health":true}}"#;
/// A tenth of a second.
const MESSAGE: usize = 3_200;

/// Seconds of speech, each with most of a second of silence behind it.
fn talk(seconds: usize) -> Vec<u8> {
    let speech = (0..16_000i32).map(|n| (n * 7_919 % 16_384 - 8_192) as i16);
    let one: Vec<u8> = speech.chain(std::iter::repeat_n(0, 11_200)).flat_map(i16::to_le_bytes).collect();
    one.repeat(seconds)
}

/// Live decodes wait for one slow engine thread, and each client that asked is told how far the ladder was climbed. Who comes
/// then is refused, by name.
#[tokio::test(flavor = "multi_thread")]
async fn clients_are_told_each_step_of_the_ladder() {
    let ms = HumanDuration::from_millis;
    let ladder = LadderConfig { slow_partials: ms(20), no_partials: ms(40), refuse: ms(60) };
    let slow = Config { engine_threads: 1, rated: 64, ladder, ..Config::default() };
    let (bus, tasks) = (MemoryBus::new(Limits::default(), Arc::new(SystemClock::default())), Tasks::new());
    let bus: Arc<dyn Bus> = Arc::new(bus);
    let engine = Arc::new(ScriptedEngine::with_delay(Duration::from_millis(200)));
    let vad = Arc::new(Energy::default());
    let recognizer = Recognizer::start(slow, engine, vad, None, Arc::clone(&bus), &tasks).await.unwrap();
    let fast = support::Config { pace_burst: HumanDuration::from_secs(60), ..config() };
    let house = House::heard_by(recognizer.routes(), bus, fast, tasks).await;
    let mut clients = Vec::new();
    for name in ["ana", "ben", "cem", "dia"] {
        let mut client = house.socket(&format!("/v1/realtime/insights/{name}")).await;
        client.start(START).await;
        for message in talk(5).chunks(MESSAGE) {
            client.socket.send(Message::binary(message.to_vec())).await.unwrap();
        }
        clients.push(client);
    }
    let mut told: Vec<Value> = Vec::new();
    while told.last().is_none_or(|step| step != "refusing") {
        let health = clients[0].until("stream_health").await;
        if told.last() != Some(&health["ladder"]) {
            told.push(health["ladder"].clone());
        }
    }
    // Between what is told more than one step may be climbed, and none is climbed twice.
    let steps = ["full", "slower_partials", "no_partials", "refusing"];
    let climbed: Vec<_> = told.iter().map(|told| steps.iter().position(|step| told == step).unwrap()).collect();
    assert!(climbed.is_sorted(), "{told:?}");
    let mut late = house.socket("/v1/realtime/insights/eva").await;
    late.text(START).await;
    let refused = late.until("error").await;
    assert_eq!(refused["message"]["code"], "overloaded", "{refused}");
    drop((clients, late));
    house.close().await;
}
