//! What stock clients rely on, over raw sockets; numbers are those of the conformance checklist.

use std::time::{Duration, Instant};

use anyhow::Result;
use hearsay_tests::{
    Build, Server,
    client::{Client, inner},
};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

fn kinds(client: &Client) -> Vec<String> {
    client.frames.iter().map(|(_, frame)| inner(frame).or(frame["type"].as_str()).unwrap_or("?").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn start_and_stop_in_the_order_each_client_needs() -> Result<()> {
    let server = Server::start(Build::Test, &[]).await?;
    // 8: the three start messages, in order, with one conversation id.
    let mut plain = Client::connect(&server, "/v1/realtime/insights/order").await?;
    plain.begin("Ana", 16_000, json!({})).await?;
    assert_eq!(kinds(&plain), ["started_listening", "conversation_created", "recognition_started"]);
    // 25, 26, 27: closing ends with `conversation_completed` first.
    plain.stop().await?;
    assert_eq!(kinds(&plain)[3..], ["conversation_completed", "recognition_stopped"]);
    assert_eq!(plain.closed, Some(1000));
    // 29: the browser SDK hears `recognition_stopped` first.
    let mut browser = Client::connect(&server, "/v1/realtime/insights/order?source=web_sdk").await?;
    browser.begin("Ana", 48_000, json!({})).await?;
    browser.stop().await?;
    assert_eq!(kinds(&browser)[3..], ["recognition_stopped", "conversation_completed"]);
    // 30: start, stop, start on one socket is one conversation.
    let mut staying = Client::connect(&server, "/v1/realtime/insights/staying").await?;
    let keep = json!({"disconnectOnStopRequest": false, "disconnectOnStopRequestTimeout": 60});
    let first = staying.begin("Ana", 16_000, keep.clone()).await?;
    staying.send_json(json!({"type": "stop_request"})).await?;
    staying.until("the second end message", |frame| inner(frame) == Some("conversation_completed")).await?;
    assert_eq!(kinds(&staying)[3..], ["recognition_stopped", "conversation_completed"]);
    assert_eq!(staying.begin("Ana", 16_000, keep).await?, first);
    // 28: Python's stop is understood and the server closes.
    let began = Instant::now();
    let mut python = Client::connect(&server, "/v1/realtime/insights/python?source=python_sdk").await?;
    python.begin("Ana", 44_100, json!({"trackers": null, "customVocabulary": null})).await?;
    python.send(Message::text("{'type': 'stop_request'}")).await?;
    python.drain().await?;
    assert_eq!(python.closed, Some(1000));
    assert!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
    server.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_and_harms_nobody() -> Result<()> {
    let server = Server::start(Build::Test, &[]).await?;
    let mut client = Client::connect(&server, "/v1/realtime/insights/wrong").await?;
    client.send(Message::text("{ not json")).await?;
    client.until("an error", |frame| frame["message"]["code"] == "invalid_request").await?;
    let bad = json!({"type": "start_request", "config": {"speechRecognition": {"encoding": "LINEAR16", "sampleRateHertz": 7}}});
    client.send_json(bad).await?;
    let error = client.until("an error", |frame| frame["message"]["code"] == "invalid_sample_rate").await?;
    assert_eq!(inner(&error), Some("error"), "always the wrapped form");
    assert!(error["message"]["details"].as_str().is_some_and(|details| details.contains('7')), "{error}");
    // 13: binary before a start is dropped; 33: the keep-alive is answered; odd bytes harm nothing.
    client.send(Message::binary(vec![1, 2, 3])).await?;
    client.begin("Ana", 16_000, json!({})).await?;
    for size in [1, 3, 5, 2_047, 8_191] {
        client.send(Message::binary(vec![0; size])).await?;
    }
    client.stop().await?;
    assert_eq!(client.closed, Some(1000));
    let mut large = Client::connect(&server, "/v1/realtime/insights/large").await?;
    large.begin("Ana", 16_000, json!({})).await?;
    // The server may close while the rest is still on its way.
    let _ = large.send(Message::binary(vec![0; 70_000])).await;
    large.drain().await?;
    assert_eq!(large.closed, Some(1009));
    server.stop().await?;
    Ok(())
}
