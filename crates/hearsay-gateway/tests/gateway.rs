//! The gateway with its neighbours: real sockets, the log of one process, a scripted recognizer. Numbers in names are those
//! of the protocol reference's conformance checklist.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "gateway/ladder.rs"]
mod ladder;
mod support;

use std::time::{Duration, Instant};

use futures::future::join_all;
use hearsay_auth::Permission;
use hearsay_bus::Limits;
use hearsay_runtime::HumanDuration;
use serde_json::{Value, json};
use support::{Got, House, config};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpStream};
use tokio_tungstenite::tungstenite::{self, Message};

const START: &str = r#"{"type":"start_request","insightTypes":[],"config":{"speechRecognition":{"sampleRateHertz":16000}},"speaker":{"userId":"ana@example.org","name":"Ana"}}"#;
const STOP: &str = r#"{"type":"stop_request"}"#;
const STAY: &str = r#"{"type":"start_request","disconnectOnStopRequest":false,"disconnectOnStopRequestTimeout":30}"#;

fn refused(error: tungstenite::Error) -> (u16, Value) {
    let tungstenite::Error::Http(response) = error else { panic!("{error}") };
    let body = response.body().as_deref().unwrap_or_default();
    (response.status().as_u16(), serde_json::from_slice(body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn c01_a_token_is_accepted_from_each_place() {
    let house = House::open().await;
    let token = house.token();
    let plain = house.url("/v1/realtime/insights/m");
    for (url, headers) in [
        (house.url(&format!("/v1/realtime/insights/m?access_token={token}")), vec![]),
        (plain.clone(), vec![("X-API-KEY", token.as_str())]),
        (plain.clone(), vec![("x-api-key", token.as_str())]),
        (plain.clone(), vec![("authorization", &*format!("Bearer {token}"))]),
        (plain.clone(), vec![("sec-websocket-protocol", token.as_str())]),
    ] {
        let (mut client, _) = house.handshake(&url, &headers).await.unwrap();
        client.text("__PING__").await;
        assert_eq!(client.next().await, Got::Bare("__PONG__".to_owned()));
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c02_an_offered_subprotocol_is_echoed_and_none_is_invented() {
    let house = House::open().await;
    let token = house.token();
    let offered = [("sec-websocket-protocol", token.as_str())];
    let (_client, response) = house.handshake(&house.url("/v1/subscribe/m"), &offered).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], token);
    let key = [("x-api-key", token.as_str())];
    let (_client, response) = house.handshake(&house.url("/v1/subscribe/m"), &key).await.unwrap();
    assert!(response.headers().get("sec-websocket-protocol").is_none());
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c03_both_streaming_paths_and_both_spellings_are_one_meeting() {
    let house = House::open().await;
    let mut ids = Vec::new();
    let mut clients = Vec::new();
    for path in [
        "/v1/realtime/insights/dXNlckBleGFtcGxlLmNvbQ==",
        "/v1/streaming/dXNlckBleGFtcGxlLmNvbQ==",
        "/v1/streaming/dXNlckBleGFtcGxlLmNvbQ%3D%3D",
    ] {
        let mut client = house.socket(path).await;
        ids.push(client.start(START).await);
        clients.push(client);
    }
    assert!(ids.iter().all(|id| *id == ids[0]) && ids[0].len() == 16, "{ids:?}");
    for path in ["/v1/streaming/-wAmKVF9z8gEKXuVl28dOQ", "/v1/streaming/8d41b6a9-6b4c-4e0e-9d7b-0a5d0f2b7c11"] {
        let other = house.socket(path).await.start(START).await;
        assert_ne!(other, ids[0]);
    }
    drop(clients);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c04_bad_tokens_are_refused_late_and_slow_nobody_else() {
    let house = House::open().await;
    for (path, code) in [
        ("/v1/streaming/m".to_owned(), 401),
        ("/v1/streaming/m?access_token=nonsense".to_owned(), 401),
        (format!("/v1/streaming/m?access_token={}", house.expired_token()), 401),
        (format!("/v1/streaming/m?access_token={}", house.token_for(&[Permission::Subscribe], None)), 403),
        (format!("/v1/subscribe/m?access_token={}", house.token_for(&[Permission::Subscribe], Some("x"))), 403),
    ] {
        let begun = Instant::now();
        let (status, body) = refused(house.handshake(&house.url(&path), &[]).await.err().unwrap());
        assert_eq!(status, code);
        if code == 401 {
            assert_eq!(body["message"], "Token validation failed for provided token.");
        }
        assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    }
    let url = house.url("/v1/streaming/m?access_token=nonsense");
    let tries = join_all((0..500).map(|_| house.handshake(&url, &[])));
    let other = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begun = Instant::now();
        let mut client = house.socket("/v1/streaming/other").await;
        client.start(START).await;
        begun.elapsed()
    };
    let (tries, took) = tokio::join!(tries, other);
    assert!(tries.into_iter().all(|answer| refused(answer.err().unwrap()).0 == 401));
    assert!(took < Duration::from_secs(1), "{took:?}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c05_credentials_become_a_token_with_an_end() {
    let house = House::open().await;
    let (id, secret) = (house.app.id(), house.app.secret().expose());
    let body = format!(r#"{{"type":"application","appId":"{id}","appSecret":"{secret}"}}"#);
    let answer = house.http("POST /oauth2/token:generate HTTP/1.1\r\ncontent-type: application/json", &body).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(answer["expiresIn"], 86_400);
    let token = answer["accessToken"].as_str().unwrap();
    let (mut client, _) = house.handshake(&house.url("/v1/streaming/m"), &[("x-api-key", token)]).await.unwrap();
    client.start(START).await;
    let renewed = house.http(&format!("POST /oauth2/token:refresh HTTP/1.1\r\nx-api-key: {token}"), "{}").await;
    assert!(renewed.starts_with("HTTP/1.1 200") && renewed.contains("accessToken"), "{renewed}");
    for (body, status) in [
        (r#"{"type":"application","appId":"x","appSecret":"y"}"#, "401"),
        (r#"{"type":"password","username":"x","password":"y"}"#, "400"),
        (r#"{"appId":1}"#, "400"),
        ("garbage", "400"),
        (&*"x".repeat(20_000), "413"),
    ] {
        let answer = house.http("POST /oauth2/token:generate HTTP/1.1", body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains(r#"{"message":"#) && answer.contains("access-control-allow-origin: *"), "{answer}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_gives_guests_tokens_for_one_meeting() {
    let house = House::open().await;
    let ask = async |token: &str, body: &str| {
        let head = format!("POST /oauth2/token:generate HTTP/1.1\r\nauthorization: Bearer {token}");
        let answer = house.http(&head, body).await;
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        (answer[9..12].to_owned(), serde_json::from_str::<Value>(body).unwrap())
    };
    let enter = async |path: &str, token: &Value| {
        let url = house.url(&format!("{path}?access_token={}", token.as_str().unwrap()));
        house.handshake(&url, &[]).await.map(|(client, _)| client).map_err(|error| refused(error).0)
    };
    let host = house.token();
    let invited =
        r#"{"type":"meeting","meeting":"m","permissions":["listen","publish"],"name":"Guest","expiresIn":600}"#;
    let (status, guest) = ask(&host, invited).await;
    assert_eq!((status.as_str(), guest["expiresIn"].as_u64()), ("200", Some(600)), "{guest}");
    let guest = &guest["accessToken"];
    let mut client = enter("/v1/streaming/m", guest).await.unwrap();
    client.start(r#"{"type":"start_request"}"#).await;
    client.audio(100).await;
    client.text(r#"{"type":"finalize","id":"x"}"#).await;
    let said = client.until("message_response").await;
    assert_eq!(said["messages"][0]["from"]["name"], "Guest", "{said}");
    assert_eq!(enter("/v1/streaming/n", guest).await.err(), Some(403));
    assert!(enter("/v1/subscribe/m", guest).await.is_ok());
    let (_, listener) = ask(&host, r#"{"type":"meeting","meeting":"m","permissions":["listen"]}"#).await;
    assert_eq!(enter("/v1/streaming/m", &listener["accessToken"]).await.err(), Some(403));
    // A guest invites guests, to the same meeting and for no longer, and renews nothing.
    let guest = guest.as_str().unwrap();
    assert_eq!(ask(guest, r#"{"type":"meeting","meeting":"n"}"#).await.0, "403");
    let (_, friend) = ask(guest, r#"{"type":"meeting","meeting":"m","expiresIn":86400}"#).await;
    assert!((1..=600).contains(&friend["expiresIn"].as_u64().unwrap()), "{friend}");
    let head = format!("POST /oauth2/token:refresh HTTP/1.1\r\nauthorization: Bearer {guest}");
    let renewed = house.http(&head, "{}").await;
    let renewed: Value = serde_json::from_str(renewed.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert!((1..=600).contains(&renewed["expiresIn"].as_u64().unwrap()), "{renewed}");
    for (token, body, status, named) in [
        (&*host, r#"{"type":"meeting"}"#, "400", "meeting"),
        (&*host, r#"{"type":"meeting","meeting":""}"#, "400", "meeting"),
        (&*host, r#"{"type":"meeting","meeting":"m","permissions":["fly"]}"#, "400", "permissions"),
        (&*host, r#"{"type":"meeting","meeting":"m","permissions":[]}"#, "400", "permissions"),
        (&*host, r#"{"type":"meeting","meeting":"m","permissions":["admin"]}"#, "403", "admin"),
        (&*host, r#"{"type":"meeting","meeting":"m","permissions":["conversations"]}"#, "403", "conversations"),
        (&*host, r#"{"type":"meeting","meeting":"m","expiresIn":1}"#, "400", "expiresIn"),
        (&*host, r#"{"type":"meeting","meeting":"m","expiresIn":"soon"}"#, "400", "body"),
        (&*host, &format!(r#"{{"type":"meeting","meeting":"m","name":"{}"}}"#, "x".repeat(65)), "400", "name"),
        (&*host, r#"{"type":"session","meeting":"m"}"#, "400", "type"),
        ("nonsense", r#"{"type":"meeting","meeting":"m"}"#, "401", "Token"),
    ] {
        let (got, answer) = ask(token, body).await;
        assert_eq!(got, status, "{body}");
        assert!(answer["message"].as_str().unwrap().contains(named), "{body}: {answer}");
    }
    let revoked = house.http(&format!("DELETE /oauth2/token:revoke HTTP/1.1\r\nx-api-key: {host}"), "").await;
    assert!(revoked.starts_with("HTTP/1.1 501") && revoked.contains("expiresIn"), "{revoked}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_speaker_whose_token_expires_renews_it_or_is_closed() {
    let config = hearsay_gateway::Config { token_grace: HumanDuration::from_secs(1), ..config() };
    let house = House::with(config, Limits::default()).await;
    let enter = async |token: &str| {
        let url = house.url(&format!("/v1/streaming/m?access_token={token}"));
        house.handshake(&url, &[]).await.unwrap().0
    };
    let mut lapsed = enter(&house.short_token(3)).await;
    let mut renewed = enter(&house.short_token(3)).await;
    lapsed.start(START).await;
    renewed.start(START).await;
    let error = renewed.until("error").await;
    assert_eq!(error["message"]["code"], "token_expired", "{error}");
    for (token, answer) in [("nonsense", "error forbidden"), (&*house.foreign_token(), "error forbidden")] {
        renewed.text(&format!(r#"{{"type":"token","access_token":"{token}"}}"#)).await;
        assert_eq!(renewed.short().await, answer);
    }
    renewed.text(&format!(r#"{{"type":"token","access_token":"{}"}}"#, house.token())).await;
    assert_eq!(lapsed.rest().await, ["error token_expired", "closed 1008"]);
    renewed.audio(700).await;
    renewed.text(STOP).await;
    assert!(renewed.rest().await.contains(&"message Heard 700 bytes.".to_owned()));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c06_preflights_pass_from_any_origin() {
    let house = House::open().await;
    for path in ["/oauth2/token:generate", "/v1/conversations/x/messages"] {
        let head = format!(
            "OPTIONS {path} HTTP/1.1\r\norigin: https://elsewhere.example\r\naccess-control-request-method: POST"
        );
        let answer = house.http(&head, "").await.to_lowercase();
        assert!(answer.starts_with("http/1.1 204"), "{answer}");
        assert!(answer.contains("access-control-allow-origin: *"), "{answer}");
        for word in ["get", "post", "put", "patch", "delete", "content-type", "x-api-key", "authorization", "accept"] {
            assert!(answer.contains(word), "{word}: {answer}");
        }
    }
    let missing = house.http("GET /nonsense HTTP/1.1", "").await;
    assert!(missing.starts_with("HTTP/1.1 404") && missing.contains(r#"{"message":"#), "{missing}");
    let wrong = house.http("GET /oauth2/token:generate HTTP/1.1", "").await;
    assert!(wrong.starts_with("HTTP/1.1 405") && wrong.to_lowercase().contains("allow: post"), "{wrong}");
    let plain = house.http(&format!("GET /v1/streaming/m HTTP/1.1\r\nx-api-key: {}", house.token()), "").await;
    assert!(plain.starts_with("HTTP/1.1 426"), "{plain}");
    let bad = house.http(&format!("GET /v1/streaming/m?history=x HTTP/1.1\r\nx-api-key: {}", house.token()), "").await;
    assert!(bad.starts_with("HTTP/1.1 400") && bad.contains("history"), "{bad}");
    for path in ["/healthz", "/readyz"] {
        assert!(house.http(&format!("GET {path} HTTP/1.1"), "").await.starts_with("HTTP/1.1 200"));
    }
    let metrics = house.http("GET /metrics HTTP/1.1", "").await;
    assert!(metrics.contains("hearsay_gateway_requests_total"), "{metrics}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c08_starts_are_answered_in_order_with_one_conversation() {
    let house = House::open().await;
    let (mut first, mut second) = (house.socket("/v1/streaming/m").await, house.socket("/v1/streaming/m").await);
    let begun = Instant::now();
    let conversation = first.start(START).await;
    assert_eq!(second.start(r#"{"type":"start_request","speaker":null,"trackers":null}"#).await, conversation);
    assert!(begun.elapsed() < Duration::from_millis(1_000), "{:?}", begun.elapsed());
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_audio_counts_from_the_start_request_on_in_any_chunking() {
    let house = House::open().await;
    let mut client = house.socket("/v1/streaming/m").await;
    client.audio(4_000).await;
    client.text(START).await;
    for bytes in [1, 3, 2_047, 8_192, 65_535] {
        client.audio(bytes).await;
    }
    client.text(STOP).await;
    let sum = 1 + 3 + 2_047 + 8_192 + 65_535;
    let expected = format!("message Heard {sum} bytes.");
    let all = client.rest().await;
    assert_eq!(all[..3], ["started_listening", "conversation_created", "recognition_started"]);
    assert!(all.contains(&expected), "{all:?}");
    let end = &all[all.len() - 3..];
    assert_eq!(end, ["conversation_completed", "recognition_stopped", "closed 1000"]);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c14_what_cannot_be_heard_is_refused_and_the_socket_stays() {
    let house = House::open().await;
    let mut client = house.socket("/v1/streaming/m").await;
    for (request, error) in [
        (r#"{"type":"start_request","config":{"speechRecognition":{"encoding":"MP3"}}}"#, "error unsupported_encoding"),
        (
            r#"{"type":"start_request","config":{"speechRecognition":{"sampleRateHertz":7}}}"#,
            "error invalid_sample_rate",
        ),
        (
            r#"{"type":"start_request","config":{"speechRecognition":{"encoding":"FLAC"}}}"#,
            "error unsupported_encoding",
        ),
        (r#"{"type":"start_request","hearsay":{"recorded":true}}"#, "error forbidden"),
        ("garbage", "error invalid_request"),
        ("[1,2", "error invalid_request"),
        (STOP, "error not_started"),
    ] {
        client.text(request).await;
        assert_eq!(client.short().await, error, "{request}");
    }
    client.start(START).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c15_a_second_start_is_answered_by_the_same_conversation() {
    let house = House::open().await;
    let mut client = house.socket("/v1/streaming/m").await;
    let conversation = client.start(START).await;
    let other = r#"{"type":"start_request","config":{"sentiment":true,"speechRecognition":{"sampleRateHertz":8000}}}"#;
    assert_eq!(client.start(other).await, conversation);
    client.audio(1_000).await;
    client.text(STOP).await;
    assert!(client.rest().await.contains(&"message Heard 1000 bytes.".to_owned()));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c15_a_second_start_opts_in_as_the_first_does() {
    let house = House::open().await;
    let mut client = house.socket("/v1/streaming/m").await;
    client.start(START).await;
    let other = r#"{"type":"start_request","noConnectionTimeout":30,"hearsay":{"presence":true}}"#;
    client.start(other).await;
    let mut ben = house.socket("/v1/streaming/m").await;
    ben.start(r#"{"type":"start_request","speaker":{"userId":"ben@example.org","name":"Ben"}}"#).await;
    loop {
        let told = client.until("presence").await;
        if told["user"]["name"] == "Ben" {
            break;
        }
    }
    // The conversation waits for who is lost as long as was asked last.
    let mut log = house.socket("/v1/subscribe/m?view=all&history=all").await;
    let mut starts = 0;
    while starts < 3 {
        let event = log.until("event").await;
        starts += u32::from(event["kind"] == "stream_started");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c22_a_modified_stream_goes_on_and_says_so() {
    let house = House::open().await;
    let mut client = house.socket("/v1/streaming/m").await;
    client.start(START).await;
    client.text(r#"{"type":"modify_request","speechRecognition":{"sampleRateHertz":8000}}"#).await;
    assert_eq!(client.short().await, "session_modified");
    client.audio(500).await;
    client.text(r#"{"type":"finalize","id":"here"}"#).await;
    let mut seen = client.take(3).await;
    seen.sort();
    assert_eq!(seen, ["caption Heard 500 bytes.", "finalized", "message Heard 500 bytes."]);
    house.close().await;
}

/// The error alone: a change is confirmed by the recognizer that took it.
#[tokio::test(flavor = "multi_thread")]
async fn c22_a_change_that_is_refused_is_not_confirmed_first() {
    let house = House::open().await;
    let mut client = house.socket("/v1/streaming/m").await;
    let conversation = client.start(START).await;
    let modify = r#"{"type":"modify_request","speechRecognition":{"encoding":"FLAC"}}"#;
    let update = r#"{"type":"update_request","insightTypes":["question"]}"#;
    let start = r#"{"type":"start_request","config":{"speechRecognition":{"encoding":"FLAC"}}}"#;
    for wrong in [modify, start] {
        client.text(wrong).await;
        assert_eq!(client.short().await, "error unsupported_encoding", "{wrong}");
        // The stream is over, its socket and its conversation are not.
        assert_eq!(client.start(START).await, conversation);
        client.text(update).await;
        assert_eq!(client.short().await, "session_modified");
    }
    // Wrong by itself: the stream goes on.
    client.text(r#"{"type":"modify_request","speechRecognition":{"encoding":"MP3"}}"#).await;
    assert_eq!(client.short().await, "error unsupported_encoding");
    // Answers keep the order of what was asked.
    client.audio(500).await;
    client.text(r#"{"type":"modify_request","speechRecognition":{"sampleRateHertz":8000}}"#).await;
    client.text(update).await;
    client.text(STOP).await;
    let answers: Vec<_> = client.rest().await.into_iter().filter(|short| !short.contains("Heard")).collect();
    let ends = ["conversation_completed", "recognition_stopped", "closed 1000"];
    assert_eq!(answers, [&["session_modified", "session_modified"][..], &ends].concat());
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c28_the_python_stop_is_understood_and_the_server_closes() {
    let house = House::open().await;
    let mut client = house.socket("/v1/realtime/insights/m?source=python_sdk").await;
    client.start(START).await;
    client.audio(100).await;
    let begun = Instant::now();
    client.text("{'type': 'stop_request'}").await;
    let all = client.rest().await;
    assert_eq!(
        all,
        [
            "caption Heard 100 bytes.",
            "message Heard 100 bytes.",
            "conversation_completed",
            "recognition_stopped",
            "closed 1000"
        ]
    );
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c29_web_sdk_hears_recognition_stopped_first() {
    let house = House::open().await;
    let mut client = house.socket("/v1/realtime/insights/m?source=web_sdk").await;
    client.start(START).await;
    client.text(STOP).await;
    assert_eq!(client.rest().await, ["recognition_stopped", "conversation_completed", "closed 1000"]);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c30_a_socket_that_stays_starts_again_in_the_same_conversation() {
    let house = House::open().await;
    let mut client = house.socket("/v1/streaming/m").await;
    let conversation = client.start(STAY).await;
    for _ in 0..2 {
        client.text(STOP).await;
        assert_eq!(client.take(2).await, ["recognition_stopped", "conversation_completed"]);
        client.audio(100).await;
        assert_eq!(client.start(STAY).await, conversation);
        client.audio(200).await;
        client.text(r#"{"type":"finalize","id":"x"}"#).await;
        let seen = client.take(3).await;
        assert!(seen.contains(&"message Heard 200 bytes.".to_owned()), "{seen:?}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c31_an_idle_socket_is_closed() {
    let house = House::open().await;
    let mut client = house.socket("/v1/streaming/m").await;
    client
        .start(r#"{"type":"start_request","disconnectOnStopRequest":false,"disconnectOnStopRequestTimeout":1}"#)
        .await;
    let begun = Instant::now();
    client.text(STOP).await;
    assert_eq!(client.rest().await, ["recognition_stopped", "conversation_completed", "closed 1000"]);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c33_keep_alives_are_answered_everywhere() {
    let house = House::open().await;
    for path in ["/v1/streaming/m", "/v1/subscribe/m", "/session/subscribe/m"] {
        let mut client = house.socket(path).await;
        client.text("__PING__").await;
        assert_eq!(client.next().await, Got::Bare("__PONG__".to_owned()), "{path}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c35_a_lost_speaker_returns_into_the_conversation_and_a_clean_end_begins_a_new_one() {
    let house = House::open().await;
    let mut client = house.socket("/v1/streaming/m").await;
    let conversation = client.start(START).await;
    drop(client);
    let mut client = house.socket("/v1/streaming/m").await;
    assert_eq!(client.start(START).await, conversation);
    client.close(3006).await;
    let mut client = house.socket("/v1/streaming/m").await;
    assert_eq!(client.start(START).await, conversation);
    client.text(STOP).await;
    client.rest().await;
    let mut client = house.socket("/v1/streaming/m").await;
    assert_ne!(client.start(START).await, conversation);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c36_the_end_of_a_meeting_reaches_its_listeners() {
    let limits = Limits { rejoin_grace: Duration::from_millis(500), ..Limits::default() };
    let house = House::with(config(), limits).await;
    let mut listener = house.socket("/v1/subscribe/m").await;
    let mut client = house.socket("/v1/streaming/m").await;
    client.start(START).await;
    assert_eq!(listener.short().await, "conversation_created");
    client.audio(300).await;
    drop(client);
    assert_eq!(
        listener.rest().await,
        ["caption Heard 300 bytes.", "message Heard 300 bytes.", "conversation_completed", "closed 1000"]
    );
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c38_silence_ends_the_meeting_for_its_speakers_too() {
    let limits = Limits { silence: Duration::from_secs(1), ..Limits::default() };
    let house = House::with(config(), limits).await;
    let mut client = house.socket("/v1/streaming/m").await;
    client.start(START).await;
    assert_eq!(client.rest().await, ["conversation_completed", "recognition_stopped", "closed 1000"]);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c39_speakers_and_listeners_receive_the_same_results() {
    let house = House::open().await;
    let mut listener = house.socket("/v1/subscribe/m").await;
    let mut ana = house.socket("/v1/streaming/m").await;
    let mut ben = house.socket("/v1/streaming/m").await;
    ana.start(START).await;
    ben.start(r#"{"type":"start_request","speaker":{"userId":"ben"}}"#).await;
    assert_eq!(listener.short().await, "conversation_created");
    let mut late = house.socket("/v1/subscribe/m").await;
    assert_eq!(late.short().await, "conversation_created");
    for round in 1..=3 {
        ana.audio(round * 100).await;
        ana.text(r#"{"type":"finalize","id":"x"}"#).await;
        let frames = async |client: &mut support::Client| {
            let mut frames = Vec::new();
            while frames.len() < 2 {
                match client.next().await {
                    Got::Json(value) if value["type"] == "finalized" => {}
                    got => frames.push(got),
                }
            }
            frames
        };
        let seen = frames(&mut listener).await;
        for client in [&mut late, &mut ana, &mut ben] {
            assert_eq!(frames(client).await, seen);
        }
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c44_a_conversation_is_read_over_rest_by_its_account_only() {
    let house = House::open().await;
    let mut client = house.socket("/v1/streaming/m").await;
    let request = r#"{"type":"start_request","meetingTitle":"Weekly","config":{"sentiment":true},"speaker":{"userId":"ana@example.org","name":"Ana"}}"#;
    let id = client.start(request).await;
    client.audio(100).await;
    let reader = house.token_for(&[Permission::Conversations], None);
    let get = async |path: String, token: String| {
        let answer = house.http(&format!("GET {path} HTTP/1.1\r\nx-api-key: {token}"), "").await;
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        (answer[9..12].to_owned(), serde_json::from_str::<Value>(body).unwrap())
    };
    client.text(r#"{"type":"finalize","id":"x"}"#).await;
    // The answer comes from the recognizer and the message from the log: neither waits for the other.
    let (mut heard, mut finalized) = (Value::Null, false);
    while heard.is_null() || !finalized {
        let Got::Json(value) = client.next().await else { panic!("no message, or no answer") };
        finalized |= value["type"] == "finalized";
        if value["type"] == "message_response" {
            heard = value;
        }
    }
    assert_eq!(heard["messages"][0]["sentiment"]["suggested"], "negative", "{heard}");
    let (_, live) = get(format!("/v1/conversations/{id}/summary"), reader.clone()).await;
    assert_eq!(live["summary"][0]["text"], "Heard 100 bytes.", "while it goes on, too");
    client.text(STOP).await;
    client.rest().await;
    let (status, whole) = get(format!("/v1/conversations/{id}"), reader.clone()).await;
    assert_eq!((status.as_str(), whole["name"].as_str(), whole["id"].as_str()), ("200", Some("Weekly"), Some(&*id)));
    assert!(whole["endTime"].is_string() && whole["members"][0]["name"] == "Ana", "{whole}");
    let (status, said) = get(format!("/v1/conversations/{id}/messages?verbose=true"), reader.clone()).await;
    let said = &said["messages"][0];
    assert_eq!((status.as_str(), said["text"].as_str()), ("200", Some("Heard 100 bytes.")));
    assert!(said["words"].is_array() && said["from"]["userId"] == "ana@example.org", "{said}");
    // Item 45: each adds exactly what it says.
    let plain = get(format!("/v1/conversations/{id}/messages"), reader.clone()).await.1["messages"][0].clone();
    let felt =
        get(format!("/v1/conversations/{id}/messages?sentiment=true"), reader.clone()).await.1["messages"][0].clone();
    assert!(plain.get("sentiment").is_none() && plain.get("words").is_none() && felt.get("words").is_none());
    assert_eq!(felt["sentiment"], json!({ "polarity": { "score": -0.5 }, "suggested": "negative" }));
    let (status, summed) = get(format!("/v1/conversations/{id}/summary"), reader.clone()).await;
    let expected = json!([{ "id": said["id"], "text": "Heard 100 bytes.", "messageRefs": [{ "id": said["id"] }] }]);
    assert_eq!((status.as_str(), &summed["summary"], &summed["origin"]), ("200", &expected, &"local".into()));
    for unknown in ["1234567890123456", "nonsense"] {
        let (status, error) = get(format!("/v1/conversations/{unknown}/messages"), reader.clone()).await;
        let expected = "The conversationId is either invalid or does not exist.";
        assert_eq!((status.as_str(), error["message"].as_str()), ("404", Some(expected)));
    }
    let other_meeting = house.token_for(&[Permission::Conversations], Some("x"));
    assert_eq!(get(format!("/v1/conversations/{id}"), other_meeting).await.0, "403");
    assert_eq!(get(format!("/v1/conversations/{id}"), house.token()).await.0, "403");
    assert_eq!(get(format!("/v1/conversations/{id}"), "nonsense".to_owned()).await.0, "401");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_count_messages() {
    let house = House::open().await;
    let mut client = house.socket("/v1/streaming/m").await;
    client.text(r#"{"type":"start_request","hearsay":{"ack":true,"health":true}}"#).await;
    let told = client.take(4).await;
    assert_eq!(told[3], "resume_token");
    client.audio(16_000).await;
    client.audio(16_000).await;
    loop {
        if let Got::Json(value) = client.next().await
            && value["type"] == "audio_ack"
        {
            assert_eq!((value["chunk"].as_u64(), value["ms"].as_u64()), (Some(2), Some(1_000)), "{value}");
            break;
        }
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oversize_and_malformed_frames_close_with_their_code() {
    let house = House::open().await;
    let mut client = house.socket("/v1/streaming/m").await;
    client.start(START).await;
    client.socket.send_oversize().await;
    assert_eq!(client.rest().await, ["error too_large", "closed 1009"]);
    let mut raw = raw_socket(&house).await;
    // A text frame of one byte that is no UTF-8.
    raw.write_all(&[0x81, 0x81, 0, 0, 0, 0, 0xff]).await.unwrap();
    assert_eq!(close_code(&mut raw).await, 1007);
    let mut raw = raw_socket(&house).await;
    // A reserved bit.
    raw.write_all(&[0xc1, 0x81, 0, 0, 0, 0, 0x61]).await.unwrap();
    assert_eq!(close_code(&mut raw).await, 1002);
    // A close, a ping and a pong of 126 bytes.
    for opcode in [0x88, 0x89, 0x8a] {
        let mut raw = raw_socket(&house).await;
        raw.write_all(&[opcode, 0xfe, 0, 126, 0, 0, 0, 0, 0x03, 0xe8]).await.unwrap();
        raw.write_all(&[0x61; 124]).await.unwrap();
        assert_eq!(close_code(&mut raw).await, 1002, "{opcode:#x}");
    }
    // A message in pieces is one message.
    let mut raw = raw_socket(&house).await;
    raw.write_all(&[0x01, 0x84, 0, 0, 0, 0]).await.unwrap();
    raw.write_all(b"__PI").await.unwrap();
    raw.write_all(&[0x80, 0x84, 0, 0, 0, 0]).await.unwrap();
    raw.write_all(b"NG__").await.unwrap();
    let mut pong = [0; 10];
    raw.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong[2..], b"__PONG__");
    house.close().await;
}

trait SendOversize {
    async fn send_oversize(&mut self);
}

impl<S: futures::Sink<Message> + Unpin> SendOversize for S {
    async fn send_oversize(&mut self) {
        // The peer may close while it is being sent.
        let _ = futures::SinkExt::send(self, Message::binary(vec![0; 65_537])).await;
    }
}

async fn raw_socket(house: &House) -> TcpStream {
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let request = format!(
        "GET /v1/streaming/raw?access_token={} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        house.token()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// Reads frames up to the close.
async fn close_code(stream: &mut TcpStream) -> u16 {
    loop {
        let opcode = stream.read_u8().await.unwrap() & 0x0f;
        let length = match stream.read_u8().await.unwrap() {
            126 => usize::from(stream.read_u16().await.unwrap()),
            length => length.into(),
        };
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        if opcode == 8 {
            return u16::from_be_bytes([payload[0], payload[1]]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn audio_behind_the_handshake_in_one_packet_is_not_lost() {
    let house = House::open().await;
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let mut bytes = format!(
        "GET /v1/streaming/raw?access_token={} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        house.token()
    )
    .into_bytes();
    bytes.extend([0x81, 0x88, 0, 0, 0, 0]);
    bytes.extend(b"__PING__");
    stream.write_all(&bytes).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"__PONG__") {
        seen.push(stream.read_u8().await.unwrap());
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audio_ahead_of_real_time_is_refused() {
    let config = hearsay_gateway::Config { pace_burst: HumanDuration::from_secs(2), ..config() };
    let house = House::with(config, Limits::default()).await;
    let mut client = house.socket("/v1/streaming/m").await;
    client.start(START).await;
    for _ in 0..5 {
        client.audio(16_000).await;
    }
    let all = client.rest().await;
    assert!(all.contains(&"error too_fast".to_owned()) && all.last().unwrap() == "closed 1008", "{all:?}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_messages_and_of_pings_end_their_sender_only() {
    let house = House::open().await;
    let mut other = house.socket("/v1/streaming/m").await;
    other.start(START).await;
    let mut client = house.socket("/v1/streaming/m").await;
    for _ in 0..60 {
        let _ = futures::SinkExt::send(&mut client.socket, Message::text("garbage")).await;
    }
    let all = client.rest().await;
    assert!(all.contains(&"error too_fast".to_owned()) && all.last().unwrap() == "closed 1008", "{all:?}");
    // So is a client that pings without end and reads nothing.
    let mut raw = raw_socket(&house).await;
    let ping: Vec<u8> = [vec![0x89, 0xfd, 0, 0, 0, 0], vec![0; 125]].concat().repeat(64);
    let flooded = async { while raw.write_all(&ping).await.is_ok() {} };
    assert!(tokio::time::timeout(support::PATIENCE, flooded).await.is_ok());
    other.text("__PING__").await;
    assert_eq!(other.short().await, "__PONG__");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_permits_are_told_to_come_back() {
    let config = hearsay_gateway::Config { connections: 3.try_into().unwrap(), ..config() };
    let house = House::with(config, Limits::default()).await;
    // One permit is the recognizer's.
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(house.socket("/v1/streaming/m").await);
    }
    let begun = Instant::now();
    let answer = house.http("GET /healthz HTTP/1.1", "").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.to_lowercase().contains("retry-after: "), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    drop(held.pop());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(house.http("GET /healthz HTTP/1.1", "").await.starts_with("HTTP/1.1 200"));
    drop(held);
    house.close().await;
}

/// Whoever is told that there is no room takes a place among those who are told, until they have been.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_is_not_asked_for_holds_its_place() {
    let config = hearsay_gateway::Config {
        connections: 2.try_into().unwrap(),
        refusals_per_address: 1.try_into().unwrap(),
        refusal_delay: HumanDuration::from_millis(50),
        handshake: HumanDuration::from_secs(15),
        ..config()
    };
    let house = House::with(config, Limits::default()).await;
    let _held = house.socket("/v1/streaming/m").await;
    // It is waited for its request, which never comes.
    let silent = TcpStream::connect(house.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut other = TcpStream::connect(house.address).await.unwrap();
    let _ = other.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut told = Vec::new();
    let _ = other.read_to_end(&mut told).await;
    assert!(told.is_empty(), "{}", String::from_utf8_lossy(&told));
    drop(silent);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(house.http("GET /healthz HTTP/1.1", "").await.starts_with("HTTP/1.1 503"), "one who is gone holds none");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_streams_and_closes_with_the_empty_frame() {
    let house = House::open().await;
    let mut listener = house.socket("/v1/subscribe/m").await;
    let mut client = house.socket("/v1/streaming/m").await;
    client.start(START).await;
    assert_eq!(listener.short().await, "conversation_created");
    client.audio(700).await;
    // The audio is on its way before the drain begins.
    client.text("__PING__").await;
    assert_eq!(client.short().await, "__PONG__");
    house.tasks.begin_drain();
    let last = ["caption Heard 700 bytes.", "message Heard 700 bytes.", "closed empty"];
    assert_eq!(client.rest().await, last);
    let heard = listener.rest().await;
    assert_eq!(heard.last().unwrap(), "closed empty", "{heard:?}");
    assert!(!house.readiness.is_ready());
    let bus = std::sync::Arc::clone(&house.bus);
    let address = house.address;
    house.close().await;
    assert!(TcpStream::connect(address).await.is_err());
    let meeting = hearsay_protocol::MeetingKey {
        account: hearsay_protocol::AccountId::dev(),
        meeting: hearsay_protocol::MeetingId::new("m").unwrap(),
    };
    let meta = bus.current(&meeting).await.unwrap().unwrap();
    assert_eq!(meta.state, hearsay_bus::State::Lingering);
}

/// Whoever asks whether to send traffic here gets an answer for as long as the process has work.
#[tokio::test(flavor = "multi_thread")]
async fn during_a_drain_new_connections_are_told_to_go_elsewhere() {
    let drain_spread = HumanDuration::from_secs(20);
    let house = House::with(support::Config { drain_spread, ..config() }, Limits::default()).await;
    // Listeners are asked to return one by one, over the spread; by these it lasts for as long as they stay.
    let listeners = join_all((0..200).map(|_| house.socket("/v1/subscribe/m"))).await;
    assert!(house.http("GET /readyz HTTP/1.1", "").await.starts_with("HTTP/1.1 200"));
    house.tasks.begin_drain();
    while house.readiness.is_ready() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let readyz = house.http("GET /readyz HTTP/1.1", "").await;
    assert!(readyz.starts_with("HTTP/1.1 503") && readyz.contains("not ready: accepting"), "{readyz}");
    assert!(house.http("GET /healthz HTTP/1.1", "").await.starts_with("HTTP/1.1 200"));
    let page = house.http("GET / HTTP/1.1", "").await;
    assert!(page.starts_with("HTTP/1.1 503") && page.to_lowercase().contains("retry-after: 1"), "{page}");
    let url = house.url(&format!("/v1/streaming/m?access_token={}", house.token()));
    let (status, body) = refused(house.handshake(&url, &[]).await.err().unwrap());
    assert_eq!((status, body["message"].as_str()), (503, Some("this gateway is going away")));
    // One that says nothing holds nothing up.
    let _silent = TcpStream::connect(house.address).await.unwrap();
    drop(listeners);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_handshakes_and_silent_connections_are_cut() {
    let house = House::open().await;
    let mut silent = TcpStream::connect(house.address).await.unwrap();
    let mut slow = TcpStream::connect(house.address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
    let mut text = String::new();
    let begun = Instant::now();
    let _ = silent.read_to_string(&mut text).await;
    let _ = slow.read_to_string(&mut text).await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_echo_is_there_only_where_it_is_wanted_and_keeps_to_the_limits() {
    let house = House::open().await;
    assert_eq!(refused(house.handshake(&house.url("/echo"), &[]).await.err().unwrap()).0, 404);
    house.close().await;
    let house = House::with(hearsay_gateway::Config { echo: true, ..config() }, Limits::default()).await;
    let (mut client, _) = house.handshake(&house.url("/echo"), &[]).await.unwrap();
    // More than the outbox holds, and more messages than a session may send at once.
    for message in (0..40).map(|n| vec![n; 65_536]) {
        futures::SinkExt::send(&mut client.socket, Message::binary(message.clone())).await.unwrap();
        let answer = futures::StreamExt::next(&mut client.socket).await.unwrap().unwrap();
        assert_eq!(answer, Message::binary(message));
    }
    for text in ["", "__PING__", &"é".repeat(30_000)] {
        client.text(text).await;
        assert_eq!(futures::StreamExt::next(&mut client.socket).await.unwrap().unwrap(), Message::text(text));
    }
    client.close(3_000).await;
    assert_eq!(client.next().await, Got::Closed(Some(3_000)));
    let (mut client, _) = house.handshake(&house.url("/echo"), &[]).await.unwrap();
    client.socket.send_oversize().await;
    assert_eq!(client.rest().await, ["closed 1009"]);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_in_countless_pieces_and_pongs_without_end_are_cut() {
    let house = House::open().await;
    let piece = |opcode: u8, payload: &[u8]| [&[opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat();
    let mut raw = raw_socket(&house).await;
    // As many as may be, all but the first and the last of them empty.
    let pieces = [piece(0x01, b"__PING"), piece(0x00, b"").repeat(1_022), piece(0x80, b"__")].concat();
    raw.write_all(&pieces).await.unwrap();
    let mut pong = [0; 10];
    raw.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong[2..], b"__PONG__");
    raw.write_all(&[piece(0x02, b"x"), piece(0x00, b"").repeat(1_023)].concat()).await.unwrap();
    assert_eq!(close_code(&mut raw).await, 1008);
    for flood in [piece(0x8a, b""), piece(0x82, b"")] {
        let mut raw = raw_socket(&house).await;
        let start = [&[0x81, 0xfe, 0, START.len() as u8, 0, 0, 0, 0], START.as_bytes()].concat();
        raw.write_all(&start).await.unwrap();
        raw.write_all(&flood.repeat(100)).await.unwrap();
        assert_eq!(close_code(&mut raw).await, 1008);
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_any_origin_are_served_unless_a_list_says_otherwise() {
    let listed = vec!["https://app.example.org".to_owned()];
    let open = House::open().await;
    let narrow = House::with(hearsay_gateway::Config { origins: listed, ..config() }, Limits::default()).await;
    for (house, origin, status) in [
        (&open, Some("https://elsewhere.example"), 101),
        (&narrow, Some("https://elsewhere.example"), 403),
        (&narrow, Some("https://app.example.org"), 101),
        (&narrow, None, 101),
    ] {
        let token = house.token();
        for path in ["/v1/streaming/m", "/v1/subscribe/m"] {
            let mut headers = vec![("x-api-key", token.as_str())];
            headers.extend(origin.map(|origin| ("origin", origin)));
            let got = match house.handshake(&house.url(path), &headers).await {
                Ok((_, response)) => response.status().as_u16(),
                Err(error) => {
                    let (status, body) = refused(error);
                    assert!(body["message"].as_str().unwrap().contains("origin"), "{body}");
                    status
                }
            };
            assert_eq!(got, status, "{origin:?} {path}");
        }
    }
    let ask = async |origin: &str, method: &str| {
        let head = format!("{method} /oauth2/token:generate HTTP/1.1\r\norigin: {origin}");
        narrow.http(&head, "{}").await.to_lowercase()
    };
    let mine = ask("https://app.example.org", "OPTIONS").await;
    assert!(mine.starts_with("http/1.1 204"), "{mine}");
    assert!(mine.contains("access-control-allow-origin: https://app.example.org\r\n"), "{mine}");
    assert!(mine.contains("vary: origin"), "{mine}");
    for method in ["OPTIONS", "POST"] {
        let theirs = ask("https://elsewhere.example", method).await;
        assert!(theirs.starts_with("http/1.1 403") && !theirs.contains("access-control"), "{theirs}");
    }
    // The page is read by nobody else, whatever the list says.
    for house in [&open, &narrow] {
        let page = house.http("GET / HTTP/1.1\r\norigin: https://app.example.org", "").await.to_lowercase();
        assert!(page.starts_with("http/1.1 200") && !page.contains("access-control"), "{page}");
        assert!(page.contains("cross-origin-resource-policy: same-origin"), "{page}");
    }
    open.close().await;
    narrow.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_asks_in_its_url_who_comes_and_speaks() {
    let house = House::open().await;
    let mut told = house.socket("/v1/subscribe/m?presence=true").await;
    let mut plain = house.socket("/v1/subscribe/m").await;
    let mut client = house.socket("/v1/streaming/m").await;
    client.start(START).await;
    let mut joined = told.until("presence").await;
    if joined["kind"] == "listeners" {
        // How many listen is told on a clock of its own, so it may come first.
        joined = told.until("presence").await;
    }
    assert_eq!((&joined["kind"], &joined["user"]["name"]), (&"joined".into(), &"Ana".into()), "{joined}");
    client.audio(300).await;
    client.text(STOP).await;
    let all = plain.rest().await;
    assert!(!all.contains(&"presence".to_owned()) && all.contains(&"message Heard 300 bytes.".to_owned()), "{all:?}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_renews_its_token_for_its_own_meeting_only() {
    let house = House::open().await;
    let mut listener = house.socket("/v1/subscribe/m").await;
    let elsewhere = house.token_for(&[Permission::Subscribe], Some("n"));
    let speaks = house.token_for(&[Permission::Publish], None);
    for token in ["nonsense", &elsewhere, &speaks, &house.foreign_token()] {
        listener.text(&format!(r#"{{"type":"token","access_token":"{token}"}}"#)).await;
        assert_eq!(listener.short().await, "error forbidden", "{token}");
    }
    listener.text(&format!(r#"{{"type":"token","access_token":"{}"}}"#, house.expired_token())).await;
    assert_eq!(listener.short().await, "error token_expired");
    listener.text(&format!(r#"{{"type":"token","access_token":"{}"}}"#, house.token())).await;
    listener.text("__PING__").await;
    assert_eq!(listener.short().await, "__PONG__");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_told_what_is_known_of_who_returns() {
    const ANA: &str = r#"{"type":"start_request","speaker":{"userId":"ana@example.org","name":"Ana"}}"#;
    let house = House::open().await;
    let before = {
        let mut ana = house.socket("/v1/streaming/first").await;
        let id = ana.start(ANA).await;
        ana.audio(100).await;
        ana.text(STOP).await;
        ana.rest().await;
        id
    };
    let rights = [Permission::Subscribe, Permission::Conversations];
    let (host, guest) = (house.token_for(&rights, None), house.token_for(&rights, Some("second")));
    let listen = async |token: &str| {
        let url = house.url(&format!("/v1/subscribe/second?presence=true&access_token={token}"));
        house.handshake(&url, &[]).await.unwrap().0
    };
    let (mut host_hears, mut guest_hears) = (listen(&host).await, listen(&guest).await);
    let mut ana = house.socket("/v1/streaming/second").await;
    let id = ana.start(ANA).await;
    let told = host_hears.until("history").await;
    assert_eq!(told["participant"]["userId"], "ana@example.org");
    let [earlier] = &told["conversations"].as_array().unwrap()[..] else { panic!("{told}") };
    assert_eq!((&earlier["id"], &earlier["name"]), (&before.into(), &"first".into()));
    assert_eq!(earlier["summary"], json!(["Heard 100 bytes."]));
    ana.audio(100).await;
    ana.text(STOP).await;
    ana.rest().await;
    let heard = guest_hears.rest().await;
    assert!(heard.contains(&"message Heard 100 bytes.".to_owned()), "{heard:?}");
    assert!(!heard.iter().any(|it| it.starts_with("history")), "{heard:?}");

    let get = async |path: String, token: &str| {
        let answer = house.http(&format!("GET {path} HTTP/1.1\r\nx-api-key: {token}"), "").await;
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        (answer[9..12].to_owned(), serde_json::from_str::<Value>(body).unwrap())
    };
    let (_, members) = get(format!("/v1/conversations/{id}/members"), &host).await;
    let member = members["members"][0]["id"].as_str().unwrap();
    let (status, known) = get(format!("/v1/conversations/{id}/members/{member}/history"), &host).await;
    assert_eq!((status.as_str(), &known["conversations"]), ("200", &told["conversations"]));
    let (status, _) = get(format!("/v1/conversations/{id}/members/{member}/history"), &guest).await;
    assert_eq!(status, "403");
    let nobody = "00000000-0000-4000-8000-000000000000";
    assert_eq!(get(format!("/v1/conversations/{id}/members/{nobody}/history"), &host).await.0, "404");
    house.close().await;
}
