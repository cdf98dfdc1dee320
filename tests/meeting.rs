//! One meeting, many subscribers: everybody gets the same durable events in the same order.

use std::time::Duration;

use anyhow::{Context, Result};
use hearsay_tests::{
    Build, Server,
    client::{Client, PATIENCE, inner, wav},
    recordings,
};
use serde_json::json;

const MESSAGE: Duration = Duration::from_millis(100);

/// Offsets without a hole, all of one epoch.
fn contiguous(positions: &[(u32, u64)]) -> bool {
    positions.windows(2).all(|pair| pair[0].0 == pair[1].0 && pair[1].1 == pair[0].1 + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_speaker_three_subscribers_then_a_second_speaker() -> Result<()> {
    let recordings = recordings()?;
    let server = Server::start(Build::Test, &[]).await?;
    let (samples, rate) = wav(&recordings.endgame)?;

    // There before anybody spoke, with every durable position.
    let mut all = Client::connect(&server, "/v1/subscribe/proof?view=all&history=all").await?;
    let all = tokio::spawn(async move { all.drain().await.map(|()| all) });
    // Reads one frame, then rests.
    let mut slow = Client::connect(&server, "/v1/subscribe/proof").await?;
    let slow = tokio::spawn(async move {
        while slow.next().await?.is_some() {
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        anyhow::Ok(slow)
    });

    let mut ana = Client::connect(&server, "/v1/realtime/insights/proof").await?;
    let conversation = ana.begin("Ana", rate, json!({})).await?;
    ana.speak(&samples[..samples.len() / 2], rate, MESSAGE).await?;

    let mut late = Client::connect(&server, "/v1/subscribe/proof?history=all").await?;
    let late = tokio::spawn(async move { late.drain().await.map(|()| late) });
    // A second speaker on top of the first, by the other streaming path.
    let (beckett, other_rate) = wav(&recordings.beckett)?;
    let mut ben = Client::connect(&server, "/v1/streaming/proof").await?;
    assert_eq!(ben.begin("Ben", other_rate, json!({})).await?, conversation, "the same conversation");
    let first = async {
        ana.speak(&samples[samples.len() / 2..], rate, MESSAGE).await?;
        ana.stop().await
    };
    let second = async {
        ben.speak(&beckett, other_rate, MESSAGE).await?;
        ben.stop().await
    };
    let (first, second) = tokio::join!(first, second);
    first.context("the first speaker")?;
    second.context("the second speaker")?;

    let join = |listener: tokio::task::JoinHandle<Result<Client>>| async {
        tokio::time::timeout(PATIENCE, listener).await.context("a listener is not let go")??
    };
    let (all, slow, late) = (join(all).await?, join(slow).await?, join(late).await?);

    // Every durable position, each once, from the first on.
    let positions = all.positions();
    assert_eq!(positions.first().map(|(_, offset)| *offset), Some(1), "from the beginning");
    assert!(contiguous(&positions), "{positions:?}");
    let messages = all.messages();
    assert!(messages.len() >= 4, "two recordings hold more than {} messages", messages.len());
    assert_eq!(late.messages(), messages, "whoever joined late");
    assert_eq!(slow.messages(), messages, "whoever reads slowly");
    let finals = all.finals();
    let texts: Vec<_> = finals.iter().map(|said| (said.who.as_str(), said.text.as_str())).collect();
    assert_eq!(
        messages.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(),
        texts.iter().map(|(_, text)| *text).collect::<Vec<_>>()
    );
    assert!(texts.iter().any(|(who, _)| *who == "Ana") && texts.iter().any(|(who, _)| *who == "Ben"));
    // Speakers get the same finals as listeners, their own included, from when they joined to when they left.
    let heard: Vec<_> = ana.messages();
    assert_eq!(messages[..heard.len()], heard[..], "the first speaker");
    for listener in [&all, &slow, &late] {
        assert_eq!(listener.closed, Some(1000), "the meeting ended");
        assert!(listener.frames.iter().any(|(_, frame)| inner(frame) == Some("conversation_completed")));
    }
    let log = server.stop().await?;
    assert!(!log.contains("ERROR"), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_resumes_gets_exactly_what_it_missed() -> Result<()> {
    let recordings = recordings()?;
    let server = Server::start(Build::Test, &[]).await?;
    let (samples, rate) = wav(&recordings.two_cities)?;
    let samples = &samples[..samples.len() / 2];
    let mut whole = Client::connect(&server, "/v1/subscribe/resume?view=all&history=all").await?;
    let whole = tokio::spawn(async move { whole.drain().await.map(|()| whole) });
    let mut before = Client::connect(&server, "/v1/subscribe/resume?view=all&history=all").await?;
    let mut speaker = Client::connect(&server, "/v1/realtime/insights/resume").await?;
    speaker.begin("Ana", rate, json!({})).await?;
    let speaking = async {
        speaker.speak(samples, rate, MESSAGE).await?;
        speaker.stop().await
    };
    let resuming = async {
        before.until("a first final", |frame| frame["type"] == "message_response").await?;
        let (epoch, offset) = *before.positions().last().context("a position")?;
        before.abandon().await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        let path = format!("/v1/subscribe/resume?view=all&since={epoch:08x}:{offset}");
        let mut after = Client::connect(&server, &path).await?;
        after.drain().await?;
        anyhow::Ok(after)
    };
    let (spoken, after) = tokio::join!(speaking, resuming);
    spoken?;
    let after = after?;
    let whole = tokio::time::timeout(PATIENCE, whole).await???;
    let mut joined = before.positions();
    joined.extend(after.positions());
    assert_eq!(joined, whole.positions());
    assert!(contiguous(&joined), "{joined:?}");
    server.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_speaker_may_return_and_a_clean_end_is_final() -> Result<()> {
    let server = Server::start(Build::Test, &[]).await?;
    let mut listener = Client::connect(&server, "/v1/subscribe/return").await?;
    let mut speaker = Client::connect(&server, "/v1/realtime/insights/return").await?;
    let first = speaker.begin("Ana", 16_000, json!({})).await?;
    speaker.abandon().await;
    let mut back = Client::connect(&server, "/v1/realtime/insights/return").await?;
    assert_eq!(back.begin("Ana", 16_000, json!({})).await?, first, "the conversation waited");
    back.stop().await?;
    assert_eq!(back.closed, Some(1000));
    listener.drain().await?;
    assert_eq!(listener.closed, Some(1000));
    let mut next = Client::connect(&server, "/v1/realtime/insights/return").await?;
    assert_ne!(next.begin("Ana", 16_000, json!({})).await?, first, "a new conversation under the same name");
    next.stop().await?;
    server.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_in_mid_speech_keeps_every_word_it_heard() -> Result<()> {
    let recordings = recordings()?;
    let (samples, rate) = wav(&recordings.endgame)?;
    let said = |client: &Client| client.finals().into_iter().map(|said| said.text).collect::<Vec<_>>();
    // In the middle of a word.
    let heard = &samples[..samples.len() * 2 / 3];

    let server = Server::start(Build::Test, &[("HEARSAY__GATEWAY__DRAIN_SPREAD", "1s")]).await?;
    let mut whole = Client::connect(&server, "/v1/streaming/whole").await?;
    whole.begin("Ana", rate, json!({"hearsay": {"recorded": true}})).await?;
    whole.pour(heard, 6_400).await?;
    whole.stop().await?;
    assert!(!whole.finals().is_empty());

    let mut cut = Client::connect(&server, "/v1/streaming/cut").await?;
    cut.begin("Ana", rate, json!({"hearsay": {"recorded": true}})).await?;
    cut.pour(heard, 6_400).await?;
    let (log, drained) = tokio::join!(server.stop(), cut.drain());
    drained?;
    // Exit code 0, and nobody was told of trouble.
    let log = log?;
    assert_eq!(said(&cut), said(&whole), "the words before the end, as without it; its log:\n{log}");
    assert!(cut.frames.iter().all(|(_, frame)| inner(frame) != Some("error")), "{:?}", cut.frames.last());
    assert!(log.contains("reason=\"drained\""), "{log}");
    Ok(())
}
