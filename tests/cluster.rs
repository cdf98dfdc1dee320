//! Several gateways, one conversation: processes of their own that share a Redis, and may be killed.

use std::time::Duration;

use anyhow::{Context, Result};
use hearsay_tests::{
    Cluster, Server,
    client::{Client, position, wav},
    recordings,
};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::Instant};

const MESSAGE: Duration = Duration::from_millis(100);

fn listen(mut client: Client) -> JoinHandle<Result<Client>> {
    tokio::spawn(async move { client.drain().await.map(|()| client) })
}

/// Everything that has a place in the conversation.
fn durable(client: &Client) -> Vec<Value> {
    client.frames.iter().map(|(_, frame)| frame.clone()).filter(|frame| position(frame).is_some()).collect()
}

fn contiguous(positions: &[(u32, u64)]) -> bool {
    positions.windows(2).all(|pair| pair[0].0 == pair[1].0 && pair[1].1 == pair[0].1 + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_participants_on_three_gateways_see_one_sequence() -> Result<()> {
    let recordings = recordings()?;
    let cluster = Cluster::start(3).await?;
    let mut listeners = Vec::new();
    for n in 0..47 {
        let gateway = &cluster.gateways[n % 3];
        listeners.push(listen(Client::connect(gateway, "/v1/subscribe/many?view=all&history=all").await?));
    }
    let files = [&recordings.beckett, &recordings.endgame, &recordings.beckett];
    let mut speakers = Vec::new();
    for (n, (gateway, file)) in cluster.gateways.iter().zip(files).enumerate() {
        let (samples, rate) = wav(file)?;
        let mut speaker = Client::connect(gateway, "/v1/realtime/insights/many").await?;
        speaker.begin(["Ana", "Ben", "Cem"][n], rate, json!({})).await?;
        speakers.push(tokio::spawn(async move {
            speaker.speak(&samples, rate, MESSAGE).await?;
            speaker.stop().await?;
            anyhow::Ok(speaker)
        }));
    }
    for speaker in speakers {
        assert_eq!(speaker.await??.closed, Some(1000), "a speaker ends in good order");
    }
    let mut sequences = Vec::new();
    for listener in listeners {
        let listener = listener.await??;
        assert!(contiguous(&listener.positions()), "{:?}", listener.positions());
        sequences.push(durable(&listener));
    }
    let first = &sequences[0];
    let kinds: Vec<&str> = first.iter().filter_map(|frame| frame["kind"].as_str()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "joined").count(), 3, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "left").count(), 3, "{kinds:?}");
    for (n, sequence) in sequences.iter().enumerate() {
        assert_eq!(sequence, first, "participant {n} saw another sequence");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_ends_nothing() -> Result<()> {
    let recordings = recordings()?;
    let (samples, rate) = wav(&recordings.endgame)?;
    let mut cluster = Cluster::start(2).await?;
    let unbroken = transcript(&cluster.gateways[1], "unbroken", &samples, rate).await?;

    let path = "/v1/subscribe/broken?view=all&history=all";
    let beside = listen(Client::connect(&cluster.gateways[1], path).await?);
    let mut here = Client::connect(&cluster.gateways[0], path).await?;
    let mut speaker = Client::connect(&cluster.gateways[0], "/v1/realtime/insights/broken").await?;
    let conversation = speaker.begin("Ana", rate, json!({"hearsay": {"ack": true}})).await?;
    let told = speaker.until("a token", |frame| frame["type"] == "resume_token").await?;
    let middle = samples.len() / 2 / (rate as usize / 10) * (rate as usize / 10);
    speaker.speak(&samples[..middle], rate, MESSAGE).await?;

    let dead = cluster.gateways.remove(0);
    dead.kill().await?;
    let killed = Instant::now();
    here.drain().await?;
    let survivor = &cluster.gateways[0];
    // The listener goes on where it was, at another gateway.
    let (epoch, offset) = *here.positions().last().context("something was heard")?;
    let from = format!("/v1/subscribe/broken?view=all&from={epoch:08x}:{offset}");
    let resumed = listen(Client::connect(survivor, &from).await?);
    // So does the speaker, with what it said before the last acknowledgement.
    let mut again = Client::connect(survivor, "/v1/realtime/insights/broken").await?;
    let more = json!({"hearsay": {"ack": true, "resume": told["token"]}});
    assert_eq!(again.begin("Ana", rate, more).await?, conversation, "the conversation did not end");
    let at = again.until("resumed", |frame| frame["type"] == "resumed").await?;
    let chunk = at["chunk"].as_u64().context("a chunk")? as usize;
    let from = chunk * (rate as usize / 10);
    anyhow::ensure!(from <= middle, "asked for what was never sent: {from} of {middle}");
    // What is said again comes at once, as from a client that has it; the rest as it is spoken.
    again.pour(&samples[from..middle], rate as usize / 10 * 2).await?;
    again.speak(&samples[middle..], rate, MESSAGE).await?;
    again.stop().await?;

    let (beside, resumed) = (beside.await??, resumed.await??);
    assert!(contiguous(&beside.positions()), "{:?}", beside.positions());
    let mut whole = here.positions();
    whole.extend(resumed.positions());
    assert!(contiguous(&whole), "the listener's two halves are one: {whole:?}");
    assert_eq!(whole.last(), beside.positions().last());
    let said = |client: &Client| client.finals().into_iter().map(|said| said.text).collect::<Vec<_>>().join(" ");
    assert_eq!(said(&beside), unbroken, "killed {:?} ago", killed.elapsed());
    Ok(())
}

async fn transcript(gateway: &Server, meeting: &str, samples: &[i16], rate: u32) -> Result<String> {
    let path = format!("/v1/subscribe/{meeting}?history=all");
    let listener = listen(Client::connect(gateway, &path).await?);
    let mut speaker = Client::connect(gateway, &format!("/v1/realtime/insights/{meeting}")).await?;
    speaker.begin("Ana", rate, json!({})).await?;
    speaker.speak(samples, rate, MESSAGE).await?;
    speaker.stop().await?;
    let finals = listener.await??.finals();
    Ok(finals.into_iter().map(|said| said.text).collect::<Vec<_>>().join(" "))
}

#[tokio::test(flavor = "multi_thread")]
async fn ghosts_leave_and_a_meeting_without_gateways_ends() -> Result<()> {
    let recordings = recordings()?;
    let (samples, rate) = wav(&recordings.beckett)?;
    let mut cluster = Cluster::start(2).await?;
    let watching = Client::connect(&cluster.gateways[1], "/v1/subscribe/ghosts?view=all&history=all").await?;
    let mut speaker = Client::connect(&cluster.gateways[0], "/v1/realtime/insights/ghosts").await?;
    let first = speaker.begin("Ana", rate, json!({})).await?;
    speaker.speak(&samples[..rate as usize * 3], rate, MESSAGE).await?;
    cluster.gateways.remove(0).kill().await?;
    let killed = Instant::now();
    let mut watching = watching;
    watching.until("left", |frame| frame["kind"] == "left").await?;
    // Its lease is 7 s, and it is looked for every second; the rest is for a busy machine.
    assert!(killed.elapsed() < Duration::from_secs(20), "the ghost left after {:?}", killed.elapsed());
    println!("the ghost left after {:?}", killed.elapsed());

    cluster.gateways.remove(0).kill().await?;
    // Nobody is left but the recognizer and the log: the meeting ends by itself, 15 s after its last speaker was lost.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let gateway = cluster.gateway().await?;
    let mut record = Client::connect(&gateway, "/v1/realtime/insights/ghosts").await?;
    let second = record.begin("Ana", rate, json!({})).await?;
    assert_ne!(first, second, "the old conversation is over, a new one begins");
    record.stop().await?;
    Ok(())
}
