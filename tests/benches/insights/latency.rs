//! From a final at a subscriber to what is inferred from it, at the same subscriber.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, ensure};
use hearsay_tests::{
    Build, Server,
    client::{Client, wav},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};
use xtask::speech_set::{Item, Kind, folder, load};

use crate::figures::quantile;

const MESSAGE: Duration = Duration::from_millis(20);
/// Milliseconds within which 95 of 100 are to be told.
const WITHIN: f64 = 500.0;

pub(crate) fn run() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(spoken())
}

/// The four speakers of the set's meeting, each live on a stream of their own.
async fn spoken() -> Result<()> {
    let (set, at) = (load()?, folder()?);
    let speakers: Vec<&Item> =
        set.items.iter().filter(|it| it.kind == Kind::Meeting && !it.file.contains("mixed")).collect();
    let server = Server::start(Build::Test, &[]).await?;
    let path = "/v1/realtime/insights/insights";
    let mut listener = Client::connect(&server, "/v1/subscribe/insights").await?;
    let listening = tokio::spawn(async move { listener.drain().await.map(|()| listener) });
    let wanted = json!({
        "insightTypes": ["question", "action_item", "follow_up", "topic"],
        "detectEntities": true,
        "trackers": [
            {"name": "Money", "vocabulary": ["how much does it cost", "too expensive", "the budget", "thousand dollars"]},
            {"name": "Trouble", "vocabulary": ["it does not work", "there is a bug", "the screen freezes", "a problem"]},
            {"name": "Praise", "vocabulary": ["well done", "that is wonderful", "congratulations", "great work"]},
        ],
    });
    // All connect first, then their clocks start together.
    let mut clients = Vec::new();
    for item in &speakers {
        let (samples, rate) = wav(&item.path(&at))?;
        let mut client = Client::connect(&server, path).await?;
        client.begin(&item.file, rate, wanted.clone()).await?;
        clients.push((client, samples, rate));
    }
    let mut speaking = JoinSet::new();
    for (mut client, samples, rate) in clients {
        speaking.spawn(async move {
            client.speak(&samples, rate, MESSAGE).await?;
            client.stop().await
        });
    }
    while let Some(done) = speaking.join_next().await {
        done??;
    }
    let listener = tokio::time::timeout(Duration::from_secs(60), listening).await.context("not let go")???;
    server.stop().await?;
    report(&listener.frames)
}

/// The insights of a frame: of what kind, and the messages it refers to.
fn insights(frame: &Value) -> impl Iterator<Item = (&'static str, Vec<&str>)> {
    let (list, kind) = match frame["type"].as_str() {
        Some("insight_response") => (&frame["insights"], "questions and tasks"),
        Some("tracker_response") => (&frame["trackers"], "trackers"),
        Some("entity_response") => (&frame["entities"], "entities"),
        // A topic refers to what was said long ago.
        _ => (&Value::Null, ""),
    };
    list.as_array().into_iter().flatten().map(move |it| {
        let evidence = it["evidence"].as_array().into_iter().flatten();
        (kind, evidence.filter_map(|it| it["messageId"].as_str()).collect())
    })
}

fn report(frames: &[(Instant, Value)]) -> Result<()> {
    // When each message came, and which of the finals it was in.
    let mut finals: Vec<Instant> = Vec::new();
    let mut of_message: HashMap<&str, usize> = HashMap::new();
    for (at, frame) in frames.iter().filter(|it| it.1["type"] == "message_response") {
        for message in frame["messages"].as_array().into_iter().flatten() {
            of_message.extend(message["id"].as_str().map(|id| (id, finals.len())));
        }
        finals.push(*at);
    }
    let mut taken: Vec<(&str, f64)> = Vec::new();
    let mut first = HashMap::new();
    for (at, frame) in frames {
        for (kind, evidence) in insights(frame) {
            let Some(own) = evidence.iter().filter_map(|it| of_message.get(it)).max() else { continue };
            // What the next sentence tells of one is told after that.
            let behind = finals.get(own + 1).filter(|next| **next <= *at);
            let (kind, from) = match behind {
                Some(next) => ("by the sentence behind", *next),
                None => (kind, finals[*own]),
            };
            *first.entry(kind).or_insert(0) += 1;
            taken.push((kind, at.duration_since(from).as_secs_f64() * 1e3));
        }
    }
    println!(
        "{} finals; milliseconds from a final's bytes at a subscriber to those of what follows from it",
        finals.len()
    );
    let mut kinds: Vec<&str> = first.into_keys().collect();
    kinds.sort_unstable();
    let show = |name: &str, mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        let [half, most, last] = [0.5, 0.95, 1.0].map(|share| quantile(&values, share));
        println!("{name:<24} n={:<4} p50 {half:>6.0}  p95 {most:>6.0}  max {last:>6.0}", values.len());
        most
    };
    for kind in kinds {
        show(kind, taken.iter().filter(|it| it.0 == kind).map(|it| it.1).collect());
    }
    let most = show("all", taken.iter().map(|it| it.1).collect());
    ensure!(taken.len() >= 20, "too few insights to tell anything");
    ensure!(most <= WITHIN, "insights are late: {WITHIN} ms after their final is to be reached");
    Ok(())
}
