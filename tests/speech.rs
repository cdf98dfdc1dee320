//! Real recordings through the whole system: the words are those of the file, however it is cut.

use std::time::Duration;

use anyhow::Result;
use hearsay_tests::{
    Build, Server,
    client::{Client, wav},
    recordings,
    words::{errors, normalize},
};
use serde_json::json;

const TWO_CITIES: &str = include_str!("data/two_cities.txt");

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_becomes_its_words() -> Result<()> {
    let recordings = recordings()?;
    let server = Server::start(Build::Test, &[]).await?;
    let (samples, rate) = wav(&recordings.two_cities)?;
    let recorded = json!({"hearsay": {"recorded": true, "ack": true}});
    let mut texts = Vec::new();
    // Whole milliseconds, a prime number of bytes, and large pieces: the byte stream is what counts.
    for (name, bytes) in [("even", 3_200), ("odd", 2_047), ("large", 32_000)] {
        let mut speaker = Client::connect(&server, &format!("/v1/realtime/insights/words-{name}")).await?;
        speaker.begin("Ana", rate, recorded.clone()).await?;
        let pouring = speaker.pour(&samples, bytes);
        pouring.await?;
        speaker.stop().await?;
        let finals = speaker.finals();
        let text: Vec<_> = finals.iter().map(|said| said.text.clone()).collect();
        assert!(finals.iter().all(|said| said.words.windows(2).all(|pair| pair[0].1 <= pair[1].1)), "words in order");
        assert!(
            finals
                .windows(2)
                .all(|pair| pair[0].words.last().map(|w| w.2) <= pair[1].words.first().map(|w| w.1 + 0.001))
        );
        texts.push(text);
    }
    assert_eq!(texts[0], texts[1], "odd messages");
    assert_eq!(texts[0], texts[2], "large messages");
    let wrong = errors(&normalize(TWO_CITIES), &normalize(&texts[0].join(" ")));
    assert!(wrong.rate() < 0.10, "{:.1} % of the words are wrong: {wrong:?}\n{:?}", 100.0 * wrong.rate(), texts[0]);
    server.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn live_speech_shows_partials_that_their_finals_replace() -> Result<()> {
    let recordings = recordings()?;
    let server = Server::start(Build::Test, &[]).await?;
    let (samples, rate) = wav(&recordings.beckett)?;
    let mut speaker = Client::connect(&server, "/v1/realtime/insights/live").await?;
    speaker.begin("Ana", rate, json!({})).await?;
    speaker.speak(&samples, rate, Duration::from_millis(100)).await?;
    speaker.stop().await?;
    let said: Vec<_> =
        speaker.frames.iter().filter_map(|(at, frame)| hearsay_tests::client::Said::of(*at, frame)).collect();
    assert!(said.iter().any(|said| !said.is_final), "no partial came");
    assert!(said.iter().all(|said| !said.text.trim().is_empty()), "an empty caption");
    assert!(said.last().is_some_and(|said| said.is_final), "a partial came after the last final");
    server.stop().await?;
    Ok(())
}
