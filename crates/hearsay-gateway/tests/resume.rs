//! Speakers whose connection breaks and who go on with their stream, at the same gateway or another one of the cluster.
//! Real sockets, the log of one process, a scripted recognizer whose finals tell every byte they heard.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::{Duration, Instant};

use futures::SinkExt;
use hearsay_bus::Limits;
use hearsay_runtime::HumanDuration;
use serde_json::{Value, json};
use support::{Client, Got, House, config};
use tokio_tungstenite::tungstenite::Message;

const PATH: &str = "/v1/streaming/m";
/// Bytes of a chunk, of which ten and a bit make a final.
const CHUNK: usize = 3_000;

fn start(resume: Option<&str>) -> String {
    let mut hearsay = json!({ "ack": true });
    if let Some(token) = resume {
        hearsay["resume"] = token.into();
    }
    let speaker = json!({ "userId": "ana@example.org", "name": "Ana" });
    json!({ "type": "start_request", "speaker": speaker, "hearsay": hearsay }).to_string()
}

fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}

fn chunk(number: u64) -> Vec<u8> {
    vec![(number % 251) as u8; CHUNK]
}

/// A speaker that keeps to the reference: counts its binary messages, and sends again what it is asked for.
struct Speaker {
    client: Client,
    token: String,
    stream: String,
    next: u64,
    /// As the acknowledgements say: nothing before is ever asked for.
    restart: u64,
}

impl Speaker {
    async fn begin(house: &House) -> Self {
        let mut client = house.socket(PATH).await;
        client.text(&start(None)).await;
        let told = client.until("resume_token").await;
        let text = |key: &str| told[key].as_str().unwrap().to_owned();
        Self { client, token: text("token"), stream: text("stream"), next: 0, restart: 0 }
    }

    async fn say(&mut self, chunks: u64) {
        for _ in 0..chunks {
            self.client.socket.send(Message::binary(chunk(self.next))).await.unwrap();
            self.next += 1;
        }
    }

    /// Answers the chunk it was asked for.
    async fn come_back(&mut self, house: &House) -> u64 {
        self.client = house.socket(PATH).await;
        self.client.text(&start(Some(&self.token))).await;
        let token = self.client.until("resume_token").await;
        assert_eq!(token["stream"], *self.stream, "the stream is the same");
        self.token = token["token"].as_str().unwrap().to_owned();
        let asked = self.client.until("resumed").await["chunk"].as_u64().unwrap();
        assert!((self.restart..=self.next).contains(&asked), "{asked} of {}, kept from {}", self.next, self.restart);
        for number in asked..self.next {
            self.client.socket.send(Message::binary(chunk(number))).await.unwrap();
        }
        asked
    }

    /// Waits for an acknowledgement.
    async fn acked(&mut self) -> u64 {
        let ack = self.client.until("audio_ack").await;
        self.restart = ack["restart"].as_u64().unwrap();
        assert!(self.restart <= ack["chunk"].as_u64().unwrap(), "{ack}");
        ack["chunk"].as_u64().unwrap()
    }

    async fn stop(mut self) -> String {
        self.client.text(r#"{"type":"stop_request"}"#).await;
        let completed = self.client.until("conversation_completed").await;
        completed["message"]["data"]["conversationId"].as_str().unwrap_or_default().to_owned()
    }
}

/// What everybody in the meeting is told, up to its end: each message, with the ms from the first one to it.
async fn told(listener: &mut Client) -> Vec<(i64, String)> {
    let mut told = Vec::new();
    let mut begun = None;
    loop {
        match listener.next().await {
            Got::Closed(_) => return told,
            Got::Json(value) if value["type"] == "message_response" => {
                for message in value["messages"].as_array().unwrap() {
                    let time = |key: &str| message["duration"][key].as_str().unwrap().to_owned();
                    let start = ms_of_day(&time("startTime"));
                    let offset = start - *begun.get_or_insert(start);
                    let from = message["from"]["name"].as_str().unwrap_or_default();
                    let text = message["payload"]["content"].as_str().unwrap();
                    told.push((offset, format!("{from}: {text}")));
                }
            }
            Got::Json(_) | Got::Bare(_) => {}
        }
    }
}

fn ms_of_day(iso: &str) -> i64 {
    let time = iso.split('T').nth(1).unwrap().trim_end_matches('Z');
    let parts: Vec<f64> = time.split(':').map(|part| part.parse().unwrap()).collect();
    ((parts[0] * 3_600.0 + parts[1] * 60.0 + parts[2]) * 1_000.0).round() as i64
}

/// Speaks `chunks`, breaking the connection after each of `cuts`, and returning to one gateway and the other in turn.
async fn run(cuts: &[u64], chunks: u64) -> Vec<(i64, String)> {
    let house = House::open().await;
    let other = house.beside().await;
    let mut listener = house.socket("/v1/subscribe/m").await;
    let mut speaker = Speaker::begin(&house).await;
    for (index, cut) in cuts.iter().enumerate() {
        let ahead = cut - speaker.next;
        speaker.say(ahead).await;
        // Sometimes all of it was heard by then, and sometimes nothing.
        tokio::time::sleep(Duration::from_millis(random() % 60)).await;
        let next = if index % 2 == 0 { &other } else { &house };
        speaker.come_back(next).await;
    }
    speaker.say(chunks - speaker.next).await;
    let telling = told(&mut listener);
    let (told, _) = tokio::join!(telling, speaker.stop());
    other.close().await;
    house.close().await;
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn words_are_those_of_an_unbroken_run_wherever_the_connection_breaks() {
    let unbroken = run(&[], 100).await;
    assert_eq!(unbroken.len(), 10, "{unbroken:?}");
    for _ in 0..4 {
        let mut cuts: Vec<u64> = (0..8).map(|_| random() % 100).collect();
        cuts.sort_unstable();
        let broken = run(&cuts, 100).await;
        let words = |told: &[(i64, String)]| told.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>();
        assert_eq!(words(&broken), words(&unbroken), "{cuts:?}");
        // Times on the wire are cut to ms.
        assert!(broken.iter().zip(&unbroken).all(|((one, _), (other, _))| (one - other).abs() <= 1), "{cuts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_that_was_left_is_told_and_closed() {
    let house = House::open().await;
    let mut speaker = Speaker::begin(&house).await;
    speaker.say(5).await;
    // It did not break: its client believes so.
    let mut left = std::mem::replace(&mut speaker.client, house.socket(PATH).await);
    speaker.come_back(&house).await;
    let last = left.rest().await;
    assert_eq!(last[last.len() - 2..], ["error fenced", "closed 1008"], "{last:?}");
    // The same at another gateway, which has no word with the first.
    let other = house.beside().await;
    let mut left = std::mem::replace(&mut speaker.client, house.socket(PATH).await);
    speaker.come_back(&other).await;
    let last = left.rest().await;
    assert_eq!(last[last.len() - 2..], ["error fenced", "closed 1008"], "{last:?}");
    speaker.say(20).await;
    speaker.acked().await;
    speaker.stop().await;
    other.close().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_returns_late_goes_on_behind_what_was_heard() {
    let config = hearsay_gateway::Config { resume_hold: HumanDuration::from_millis(100), ..config() };
    let house = House::with(config, Limits::default()).await;
    let mut listener = house.socket("/v1/subscribe/m").await;
    let mut speaker = Speaker::begin(&house).await;
    speaker.say(5).await;
    speaker.client.text("__PING__").await;
    assert_eq!(speaker.client.next().await, Got::Bare("__PONG__".to_owned()));
    // A socket that is dropped is a connection that breaks.
    speaker.client = house.socket(PATH).await;
    let said = listener.until("message_response").await;
    assert_eq!(said["messages"][0]["payload"]["content"], "Heard 15000 bytes of 30000.");
    assert_eq!(speaker.come_back(&house).await, 3, "with the two chunks before the log's end");
    speaker.say(5).await;
    let (told, _) = tokio::join!(told(&mut listener), speaker.stop());
    assert_eq!(told, [(0, "Ana: Heard 15000 bytes of 105000.".to_owned())]);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_goes_on_with_what_is_not_theirs() {
    let limits = Limits { rejoin_grace: Duration::from_millis(500), ..Limits::default() };
    let quick = hearsay_gateway::Config { resume_hold: HumanDuration::from_millis(100), ..config() };
    let house = House::with(quick, limits).await;
    let mut speaker = Speaker::begin(&house).await;
    let good = speaker.token.clone();
    let refused = async |path: &str, access: &str, token: &str| -> (Client, String, String) {
        let url = house.url(&format!("{path}?access_token={access}"));
        let (mut client, _) = house.handshake(&url, &[]).await.unwrap();
        client.text(&start(Some(token))).await;
        let Got::Json(error) = client.next().await else { panic!("no error") };
        let text = |key: &str| error["message"][key].as_str().unwrap_or_default().to_owned();
        assert_eq!(error["message"]["type"], "error", "{error}");
        assert!(text("details").starts_with("hearsay.resume "), "{error}");
        (client, text("code"), text("details"))
    };
    let mine = house.token();
    let mut forged = good.clone();
    forged.replace_range(good.len() - 3.., if good.ends_with("AAA") { "BBB" } else { "AAA" });
    for (path, access, token, code) in [
        (PATH, &mine, "nonsense", "invalid_request"),
        (PATH, &mine, &*mine, "invalid_request"),
        (PATH, &mine, &*forged, "forbidden"),
        ("/v1/streaming/other", &mine, &*good, "forbidden"),
        (PATH, &house.foreign_token(), &*good, "forbidden"),
    ] {
        assert_eq!(refused(path, access, token).await.1, code, "{token}");
    }
    // Nor does a token of a stream let anybody in.
    assert!(house.handshake(&house.url(&format!("{PATH}?access_token={good}")), &[]).await.is_err());
    // The stream itself is untouched.
    speaker.say(11).await;
    assert_eq!(speaker.acked().await, 11);
    // Its conversation ends while its client is away: there is nothing to go on with, and a new one begins.
    let ended = Instant::now() + support::PATIENCE;
    drop(speaker);
    let (mut client, details) = loop {
        let url = house.url(&format!("{PATH}?access_token={mine}"));
        let (mut client, _) = house.handshake(&url, &[]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        client.text(&start(Some(&good))).await;
        match client.next().await {
            Got::Json(value) if value["message"]["type"] == "error" => {
                break (client, value["message"]["details"].as_str().unwrap().to_owned());
            }
            other => assert!(Instant::now() < ended, "{other:?}"),
        }
    };
    assert!(details.contains("has ended"), "{details}");
    client.start(&json!({ "type": "start_request" }).to_string()).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_token_to_return_with_comes_before_the_old_one_expires() {
    let config = hearsay_gateway::Config {
        resume_renewal: HumanDuration::from_secs(1),
        resume_hold: HumanDuration::from_millis(100),
        ..config()
    };
    let house = House::with(config, Limits::default()).await;
    let mut speaker = Speaker::begin(&house).await;
    let first = speaker.token.clone();
    let mut newest = first.clone();
    for _ in 0..3 {
        let Value::String(token) = speaker.client.until("resume_token").await["token"].clone() else { panic!() };
        newest = token;
    }
    // The first was good for two seconds, and three have passed.
    speaker.client = house.socket(PATH).await;
    speaker.client.text(&start(Some(&first))).await;
    let error = speaker.client.until("error").await;
    assert!(error["message"]["details"].as_str().unwrap().contains("has expired"), "{error}");
    speaker.token = newest;
    speaker.come_back(&house).await;
    house.close().await;
}
