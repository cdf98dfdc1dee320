//! Real recordings through the whole system: the words are those of the file, however it is cut.

use std::time::Duration;

use anyhow::{Context, Result};
use hearsay_tests::{
    Build, Server,
    client::{Client, inner, wav},
    recordings,
    soak::{Pace, Voice, say},
    words::{errors, normalize},
};
use serde_json::json;

const BECKETT: &str = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better.";
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
    let asks = json!({"config": {
        "speechRecognition": {"encoding": "LINEAR16", "sampleRateHertz": rate},
        "timezoneOffset": 60,
        "entities": [{"customType": "Motto", "value": "Beckett", "text": "fail better"}],
    }});
    speaker.begin("Ana", rate, asks).await?;
    speaker.speak(&samples, rate, Duration::from_millis(100)).await?;
    speaker.send_json(json!({"type": "finalize", "id": "all"})).await?;
    speaker.until("all of it on the log", |frame| frame["type"] == "finalized").await?;
    // What is asked for by now is looked for in what was said.
    let trackers = json!([{"name": "Failure", "vocabulary": ["ever failed"]}]);
    speaker.send_json(json!({"type": "update_request", "trackers": trackers})).await?;
    let tracked = speaker.until("what a tracker finds", |frame| frame["type"] == "tracker_response").await?;
    speaker.stop().await?;
    let of = |kind: &str| speaker.frames.iter().map(|it| &it.1).find(|frame| frame["type"] == kind).cloned();
    let message = of("message_response").context("a message")?;
    assert_eq!(message["messages"][0]["metadata"]["timezoneOffset"], 60);
    let found = &tracked["trackers"][0]["matches"][0];
    assert_eq!((&tracked["trackers"][0]["name"], &found["value"]), (&json!("Failure"), &json!("ever failed")));
    let entity = of("entity_response").context("an entity")?["entities"][0].clone();
    assert_eq!((&entity["type"], &entity["subType"]), (&json!("custom"), &json!("Motto")), "{entity}");
    assert_eq!(entity["matches"][0]["detectedValue"], "Beckett");
    let said: Vec<_> =
        speaker.frames.iter().filter_map(|(at, frame)| hearsay_tests::client::Said::of(*at, frame)).collect();
    assert!(said.iter().any(|said| !said.is_final), "no partial came");
    assert!(said.iter().all(|said| !said.text.trim().is_empty()), "an empty caption");
    assert!(said.last().is_some_and(|said| said.is_final), "a partial came after the last final");
    server.stop().await?;
    Ok(())
}

/// Text that will not change, a pause, and the end of an utterance are told apart.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_voice_does_is_signalled() -> Result<()> {
    let (samples, rate) = wav(&recordings()?.two_cities)?;
    let server = Server::start(Build::Test, &[("HEARSAY__RECOGNIZER__RATED", "10")]).await?;
    let mut stable = false;
    // Text settles when two looks at it agree; a machine that is busy with others may leave one out.
    for attempt in 0..3 {
        let mut speaker = Client::connect(&server, &format!("/v1/realtime/insights/signals-{attempt}")).await?;
        speaker.begin("Ana", rate, json!({"hearsay": {"health": true}})).await?;
        speaker.speak(&samples[..14 * rate as usize], rate, Duration::from_millis(100)).await?;
        speaker.stop().await?;
        let signals: Vec<(&str, u64, &str)> = speaker
            .frames
            .iter()
            .map(|(_, frame)| frame)
            .filter(|frame| frame["type"] == "speech_signal")
            .map(|signal| Some((signal["kind"].as_str()?, signal["ms"].as_u64()?, signal["utterance"].as_str()?)))
            .collect::<Option<_>>()
            .context("a signal has a kind, a time and an utterance")?;
        let count = |kind: &str| signals.iter().filter(|signal| signal.0 == kind).count();
        // The last one is ended by the stop, behind which nothing is signalled.
        assert!(count("utterance_end") + 1 >= speaker.finals().len(), "{signals:?}");
        assert!(count("pause") > 0 && count("utterance_end") > 0, "{signals:?}");
        // What is said of an utterance is said before its end.
        for (at, (kind, ms, utterance)) in signals.iter().enumerate() {
            let end = signals.iter().position(|other| other.0 == "utterance_end" && other.2 == *utterance);
            assert!(end.is_none_or(|end| end >= at), "{kind} at {ms} ms: {signals:?}");
        }
        stable = count("stable") > 0;
        if stable {
            break;
        }
    }
    assert!(stable, "no text was ever said to be settled");
    server.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_language_chooses_the_engine_that_hears_a_stream() -> Result<()> {
    let (samples, rate) = wav(&recordings()?.two_cities)?;
    let samples = &samples[..5 * rate as usize];
    let models = [
        ("HEARSAY__RECOGNIZER__ENGINE__MODELS", r#"["moonshine-base-en", "whisper-base"]"#),
        ("HEARSAY__RECOGNIZER__RATED", "10"),
    ];
    let server = Server::start(Build::Test, &models).await?;
    let mut said = Vec::new();
    for language in ["en-US", "de-DE"] {
        let mut speaker = Client::connect(&server, &format!("/v1/realtime/insights/in-{language}")).await?;
        let config =
            json!({"languageCode": language, "speechRecognition": {"encoding": "LINEAR16", "sampleRateHertz": rate}});
        speaker.begin("Ana", rate, json!({"config": config, "hearsay": {"recorded": true}})).await?;
        speaker.pour(samples, 3_200).await?;
        speaker.stop().await?;
        let text: Vec<_> = speaker.finals().into_iter().map(|said| said.text).collect();
        said.push(text.join(" "));
    }
    assert!(said[0].to_lowercase().contains("best of times"), "{said:?}");
    // It writes what it hears in the language it is told.
    assert!(!said[1].is_empty() && said[1] != said[0], "{said:?}");
    let mut speaker = Client::connect(&server, "/v1/realtime/insights/unknown").await?;
    let config = json!({"languageCode": "tlh", "speechRecognition": {"encoding": "LINEAR16", "sampleRateHertz": rate}});
    let start = json!({"type": "start_request", "config": config, "speaker": {"userId": "ana@example.org"}});
    speaker.send_json(start).await?;
    let refused = speaker.until("a refusal", |frame| inner(frame) == Some("error")).await?;
    assert_eq!(refused["message"]["code"], "unsupported_language");
    let details = refused["message"]["details"].as_str().unwrap_or_default();
    assert!(details.contains("\"tlh\"") && details.contains("de"), "{details}");
    server.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_an_ogg_stream_of_opus_becomes_its_words() -> Result<()> {
    let recordings = recordings()?;
    let server = Server::start(Build::Test, &[]).await?;
    let (samples, rate) = wav(&recordings.beckett)?;
    let voice = Voice::new("ogg", &samples, rate)?;
    let heard = say(&server.entry(), "ogg", &voice, Pace::Poured).await?;
    let wrong = errors(&normalize(BECKETT), &normalize(&heard.text()));
    assert!(heard.refused.is_none() && wrong.rate() < 0.2, "{:?} {:?}", heard.refused, heard.text());
    server.stop().await?;
    Ok(())
}
