//! Who runs the analyst is killed, again and again, while two gateways listen: what they are told.
//!
//! `cargo bench -p hearsay-tests --bench analyst -- KILLS`: one person speaks to a cluster of three recognizers and two
//! gateways on Redis, and each time the recognizer that hears it, which is the analyst too, ends by SIGKILL in mid-speech.
//! Ends well when both gateways told the same insights, with the same ids, in the same order; when every message with the
//! word that is looked for was told of, once; and when each analyst had a successor within 5 s.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hearsay_tests::{
    Cluster,
    client::{Client, wav},
    recordings,
};
use serde_json::{Value, json};
use tokio::time::sleep;

/// How long a conversation may be without an analyst.
const WITHOUT: Duration = Duration::from_secs(5);
/// Speech before each kill, and behind the last.
const SPEECH: Duration = Duration::from_secs(8);
/// How long the last insights may take.
const SETTLE: Duration = Duration::from_secs(6);
const EACH: Duration = Duration::from_millis(100);
/// In nearly every sentence of the recording.
const WORD: &str = "it";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    // As `cargo test --all-targets` calls it.
    let Some(kills) = arguments.first() else {
        println!("nothing measured: say how many kills, for instance `-- 4`");
        return Ok(());
    };
    let kills = kills.parse().context("the first argument is a number of kills")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(killed(kills))
}

/// Type, id, revision and position of an insight, as a frame tells it.
fn insight(frame: &Value) -> Option<(String, String, u64, String)> {
    let kind = frame["type"].as_str()?;
    let list = ["insights", "topics", "trackers", "entities", "intents"].iter().find_map(|key| frame[key].get(0))?;
    let id = list["id"].as_str().or(list["insightId"].as_str())?;
    let position = frame["position"].as_str()?;
    Some((kind.to_owned(), id.to_owned(), list["revision"].as_u64()?, position.to_owned()))
}

fn insights(client: &Client) -> Vec<(String, String, u64, String)> {
    client.frames.iter().filter_map(|(_, frame)| insight(frame)).collect()
}

/// Ids of messages that have the word, and of those that were told to have it.
fn looked_for(client: &Client) -> (Vec<String>, Vec<String>) {
    let (mut said, mut told) = (Vec::new(), Vec::new());
    for (_, frame) in &client.frames {
        for message in frame["messages"].as_array().into_iter().flatten() {
            let text = message["payload"]["content"].as_str().unwrap_or_default().to_lowercase();
            if text.split(|c: char| !c.is_alphanumeric() && c != '\'').any(|word| word.trim_end_matches("'s") == WORD) {
                said.push(message["id"].as_str().unwrap_or_default().to_owned());
            }
        }
        let found = &frame["trackers"][0]["matches"][0]["messageRefs"][0];
        told.extend(found["id"].as_str().map(str::to_owned));
    }
    (said, told)
}

/// Waits until a recognizer other than this one is the analyst.
async fn successor(cluster: &Cluster, not: usize) -> Result<Duration> {
    let began = Instant::now();
    while began.elapsed() < 4 * WITHOUT {
        for (n, one) in cluster.recognizers.iter().enumerate() {
            if n != not && one.metric("hearsay_recognizer_analysts").await.unwrap_or(0.0) > 0.0 {
                return Ok(began.elapsed());
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("nobody is the analyst {:?} after the last one was killed", began.elapsed())
}

async fn killed(kills: usize) -> Result<()> {
    let recordings = recordings()?;
    let (samples, rate) = wav(&recordings.two_cities)?;
    let mut voice = samples.iter().copied().cycle();
    let mut clip = || -> Vec<i16> { voice.by_ref().take((SPEECH.as_secs_f64() * f64::from(rate)) as usize).collect() };
    let mut cluster = Cluster::of(3, 2).await?;
    cluster.until_up(3).await?;
    let mut listeners = Vec::new();
    for gateway in &cluster.gateways {
        listeners.push(Client::connect(gateway, "/v1/subscribe/analyst").await?);
    }
    let [one, other] = &mut listeners[..] else { unreachable!("two gateways") };
    let mut speaker = Client::connect(&cluster.gateways[0], "/v1/realtime/insights/analyst").await?;
    let asks = json!({
        "insightTypes": ["question", "action_item", "follow_up"],
        "trackers": [{"name": "It", "vocabulary": [WORD]}],
    });
    speaker.begin("Ana", rate, asks).await?;
    let mut replaced = Vec::new();
    for kill in 0..=kills {
        let spoken = clip();
        let until = tokio::time::Instant::now() + SPEECH;
        // Behind a kill: it goes on while nobody is the analyst.
        tokio::try_join!(speaker.speak(&spoken, rate, EACH), one.read_until(until), other.read_until(until))?;
        if kill < kills {
            let victim = cluster.busiest(None).await?;
            cluster.recognizers[victim].kill().await?;
            let until = tokio::time::Instant::now() + SPEECH;
            let spoken = clip();
            let (_, _, _, without) = tokio::try_join!(
                speaker.speak(&spoken, rate, EACH),
                one.read_until(until),
                other.read_until(until),
                successor(&cluster, victim),
            )?;
            replaced.push(without);
            cluster.replace(victim).await?;
        }
    }
    let until = tokio::time::Instant::now() + SETTLE;
    speaker.send_json(json!({"type": "finalize", "id": "last"})).await?;
    tokio::try_join!(speaker.read_until(until), one.read_until(until), other.read_until(until))?;
    speaker.stop().await?;
    one.drain().await?;
    other.drain().await?;

    let (here, there) = (insights(one), insights(other));
    ensure!(here == there, "the gateways told different insights:\n{here:#?}\n{there:#?}");
    let once: HashSet<_> = here.iter().map(|it| (&it.0, &it.1, it.2)).collect();
    ensure!(once.len() == here.len(), "an insight was told twice: {here:#?}");
    let (mut said, mut told) = looked_for(one);
    said.sort();
    told.sort();
    ensure!(!said.is_empty() && said == told, "said: {said:#?}\ntold: {told:#?}");
    let latest = replaced.iter().max().copied().unwrap_or_default();
    ensure!(latest <= WITHOUT, "nobody was the analyst for {latest:?}");
    println!(
        "{kills} analysts killed: {} insights, the same ids in the same order at both gateways, each once; all {} messages with \
         the word were told of, once; a successor after {:?} at most",
        here.len(),
        said.len(),
        latest
    );
    cluster.stop(Duration::from_secs(40)).await
}
