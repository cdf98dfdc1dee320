//! Recognizers that freeze, drain, die and are cut off while somebody speaks: processes of their own, with a Redis between.
//! Who listens reads what it would have read without.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hearsay_tests::{
    Cluster, Setup,
    client::{Client, PATIENCE, wav},
    recordings,
    soak::{DRIFT, FORMS, Fault, Heard, MESSAGE, Pace, Voice, Word, befall, say, say_all, say_through_kills},
};
use serde_json::json;
use tokio::{task::JoinHandle, time::timeout};

/// Ana, and one who listens to her.
struct Talk {
    speaker: Client,
    listener: JoinHandle<Result<Client>>,
    rate: u32,
}

impl Talk {
    async fn begin(cluster: &Cluster, meeting: &str, rate: u32) -> Result<Self> {
        let path = format!("/v1/subscribe/{meeting}?view=all&history=all");
        let mut listener = Client::connect(&cluster.gateways[0], &path).await?;
        let listener = tokio::spawn(async move { listener.drain().await.map(|()| listener) });
        let mut speaker = Client::connect(&cluster.gateways[0], &format!("/v1/realtime/insights/{meeting}")).await?;
        speaker.begin("Ana", rate, json!({})).await?;
        Ok(Self { speaker, listener, rate })
    }

    async fn say(&mut self, samples: &[i16]) -> Result<()> {
        self.speaker.speak(samples, self.rate, MESSAGE).await.map(drop)
    }

    /// What was heard: the text, and each word with its times.
    async fn end(mut self) -> Result<(String, Vec<Word>)> {
        self.speaker.stop().await?;
        ensure!(self.speaker.closed == Some(1000), "closed {:?}", self.speaker.closed);
        let listener = self.listener.await??;
        let positions = listener.positions();
        ensure!(
            positions.windows(2).all(|pair| pair[0].0 == pair[1].0 && pair[1].1 == pair[0].1 + 1),
            "positions have a hole or a double: {positions:?}"
        );
        let finals = listener.finals();
        let text = finals.iter().map(|said| said.text.as_str()).collect::<Vec<_>>().join(" ");
        Ok((text, finals.into_iter().flat_map(|said| said.words).collect()))
    }
}

fn same(unbroken: &(String, Vec<Word>), heard: &(String, Vec<Word>)) {
    assert_eq!(heard.0, unbroken.0);
    assert_eq!(heard.1.len(), unbroken.1.len());
    for (one, other) in unbroken.1.iter().zip(&heard.1) {
        let moved = (one.1 - other.1).abs().max((one.2 - other.2).abs());
        assert!(one.0 == other.0 && moved < DRIFT, "{one:?} became {other:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recognizers_that_freeze_drain_fall_silent_or_die_lose_no_word() -> Result<()> {
    let (samples, rate) = wav(&recordings()?.endgame)?;
    // Between the parts somebody is in the middle of a sentence.
    let part = |from: f64, to: f64| {
        // Whole messages: the audio is cut as that of the unbroken talk is.
        let message = rate as usize / 10;
        let at = |share: f64| (share * samples.len() as f64) as usize / message * message;
        &samples[at(from)..if to < 1.0 { at(to) } else { samples.len() }]
    };
    let mut cluster = Cluster::of(2, 1).await?;
    let mut talk = Talk::begin(&cluster, "unbroken", rate).await?;
    talk.say(&samples).await?;
    let unbroken = talk.end().await?;
    ensure!(unbroken.1.len() > 10, "too little was said to prove anything: {unbroken:?}");

    let mut talk = Talk::begin(&cluster, "frozen", rate).await?;
    talk.say(part(0.0, 0.3)).await?;
    let frozen = cluster.holder(None).await?;
    cluster.recognizers[frozen].signal("-STOP")?;
    talk.say(part(0.3, 0.6)).await?;
    let next = cluster.holder(Some(frozen)).await?;
    // It wakes with half a sentence in hand, and is too late.
    cluster.recognizers[frozen].signal("-CONT")?;
    talk.say(part(0.6, 0.75)).await?;
    cluster.recognizers[next].signal("-TERM")?;
    talk.say(part(0.75, 1.0)).await?;
    same(&unbroken, &talk.end().await?);
    assert_ne!(frozen, next);
    cluster.restart(next).await?;

    // A link that falls silent, comes back, and then its recognizer's successor is killed.
    let mut talk = Talk::begin(&cluster, "silent", rate).await?;
    talk.say(part(0.0, 0.3)).await?;
    let silent = cluster.holder(None).await?;
    cluster.recognizers[silent].link.silence(true);
    talk.say(part(0.3, 0.6)).await?;
    let next = cluster.holder(Some(silent)).await?;
    cluster.recognizers[silent].link.silence(false);
    talk.say(part(0.6, 0.8)).await?;
    cluster.recognizers[next].kill().await?;
    talk.say(part(0.8, 1.0)).await?;
    same(&unbroken, &talk.end().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_every_encoding_outlive_a_killed_and_a_drained_recognizer() -> Result<()> {
    let (samples, rate) = wav(&recordings()?.two_cities)?;
    // Enough for two moves.
    let voices = FORMS
        .map(|form| Voice::new(form, &samples[..20 * rate as usize], rate))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let mut cluster = Cluster::of(2, 1).await?;
    let gateway = cluster.gateways[0].entry();
    let mut unbroken = Vec::new();
    for voice in &voices {
        let whole = say(&gateway, &format!("unbroken-{}", voice.form), voice, Pace::Poured).await?;
        ensure!(whole.words().len() > 20, "{}: too little was said to prove anything: {whole:?}", voice.form);
        unbroken.push(whole);
    }
    // A live stream of each, as the same cluster hears them at once.
    let replayed = "hearsay_uplink_audio_replayed_bytes_total";
    let before = cluster.gateways[0].metric(replayed).await?;
    let talks = say_all(&gateway, "broken", &voices);
    let (broken, befallen) = tokio::join!(talks, befall(&mut cluster, Fault::Killed, Duration::from_secs(5)));
    befallen?;
    for (unbroken, broken) in unbroken.iter().zip(&broken?) {
        unbroken.is_same(broken, true)?;
    }
    ensure!(cluster.gateways[0].metric(replayed).await? > before, "nobody was in the middle of anything");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_whose_recognizer_is_killed_again_and_again_has_the_same_words() -> Result<()> {
    let (samples, rate) = wav(&recordings()?.two_cities)?;
    let voice = Voice::new("linear16", &samples, rate)?;
    // Not measured at each start, which takes a second.
    let settings = vec![("HEARSAY__RECOGNIZER__RATED", "20".to_owned())];
    let mut cluster = Cluster::with(Setup { recognizers: 2, gateways: 1, settings, ..Setup::default() }).await?;
    let unbroken = say(&cluster.gateways[0].entry(), "unbroken", &voice, Pace::Poured).await?;
    ensure!(unbroken.words().len() > 80, "too little was said to prove anything: {unbroken:?}");
    let broken = say_through_kills(&mut cluster, "killed", &voice, 2.0, 5).await?;
    let moved = cluster.gateways[0].metric(r#"hearsay_uplink_placements_total{why="moved"}"#).await?;
    ensure!(moved >= 5.0, "{moved} moves are less than five");
    unbroken.is_same(&broken, false)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_forgets_its_last_seconds_is_told_them_again() -> Result<()> {
    let (samples, rate) = wav(&recordings()?.endgame)?;
    let at = |seconds: usize| (seconds * rate as usize).min(samples.len());
    let mut cluster = Cluster::of(1, 1).await?;
    let voice = Voice::new("linear16", &samples, rate)?;
    let unbroken = say(&cluster.gateways[0].entry(), "unbroken", &voice, Pace::Poured).await?;

    let mut talk = Talk::begin(&cluster, "forgotten", rate).await?;
    talk.say(&samples[..at(6)]).await?;
    cluster.save_redis().await?;
    let known = talk.speaker.finals().len();
    talk.say(&samples[at(6)..at(16)]).await?;
    let said = talk.speaker.finals().len();
    ensure!(said > known, "nothing was put on the log that it could forget");
    cluster.lose_redis().await?;
    talk.say(&samples[at(16)..]).await?;
    // Who joins now is shown what the log has, and nothing that somebody else remembers.
    let mut late = Client::connect(&cluster.gateways[0], "/v1/subscribe/forgotten?history=all").await?;
    let reading = tokio::spawn(async move { late.drain().await.map(|()| late) });
    talk.speaker.stop().await?;
    let late = timeout(PATIENCE, reading).await.context("the reader was not let go")???;
    let beside = timeout(PATIENCE, talk.listener).await.context("the listener was not let go")???;
    println!("{said} finals before, {} after; {} kept", late.finals().len(), known);
    let told = |client: &Client| Heard::of("linear16", client);
    unbroken.is_same(&told(&late), true)?;
    assert_eq!(told(&beside).text(), unbroken.text(), "who was there heard nothing twice");
    Ok(())
}
