//! Recognizers that freeze, drain, die and are cut off while somebody speaks: processes of their own, with a Redis between.
//! Who listens reads what it would have read without.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hearsay_speech::codec::encode;
use hearsay_tests::{
    Cluster, Server,
    client::{Client, PATIENCE, wav},
    recordings,
};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::Message;

const MESSAGE: Duration = Duration::from_millis(100);

/// How far a word may move.
const DRIFT: f64 = 0.05;

/// Ana, and one who listens to her.
struct Talk {
    speaker: Client,
    listener: JoinHandle<Result<Client>>,
    rate: u32,
}

type Word = (String, f64, f64);

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

/// A voice as a client sends it.
struct Voice {
    name: &'static str,
    config: Value,
    /// Each with the length of audio it carries.
    messages: Vec<(Vec<u8>, Duration)>,
    /// Said before this message: from here on the audio has another format.
    modify: Option<(usize, Value)>,
}

fn pcm(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// The same speech in every form that clients send.
fn voices(samples: &[i16], rate: u32) -> Result<Vec<Voice>> {
    ensure!(rate == 48_000, "the recording has another rate");
    let config = |encoding: &str, rate: u32| json!({"encoding": encoding, "sampleRateHertz": rate});
    // Bytes in pieces that a message of this length has on the average.
    let cut = |bytes: &[u8]| {
        let messages = samples.len().div_ceil(rate as usize / 10);
        let size = bytes.len().div_ceil(messages);
        bytes.chunks(size).map(|chunk| (chunk.to_vec(), MESSAGE)).collect::<Vec<_>>()
    };
    let wide: Vec<i32> = samples.iter().map(|sample| i32::from(*sample)).collect();
    let flac = encode::flac(&wide, 1, 16, rate, 4_096).context("no FLAC")?;
    let (packets, skip) = encode::opus(samples, &encode::Opus::default()).context("no Opus")?;
    let ogg = encode::ogg(&packets, skip, 5, 7).context("no Ogg")?;
    let raw = packets.into_iter().map(|packet| (packet, Duration::from_millis(20))).collect();
    // The second half comes from a telephone.
    let half = samples.len() / 2 / 4_800 * 4_800;
    let telephone: Vec<i16> = samples[half..]
        .chunks(6)
        .map(|six| (six.iter().map(|it| i32::from(*it)).sum::<i32>() / six.len() as i32) as i16)
        .collect();
    let mut changing = cut_every(&pcm(&samples[..half]), 9_600);
    let at = changing.len();
    changing.extend(cut_every(&encode::mulaw(&telephone), 800));
    Ok(vec![
        Voice { name: "linear16", config: config("LINEAR16", rate), messages: cut(&pcm(samples)), modify: None },
        Voice { name: "flac", config: config("FLAC", rate), messages: cut(&flac), modify: None },
        Voice { name: "ogg", config: config("OPUS", rate), messages: cut(&ogg), modify: None },
        Voice { name: "opus", config: config("OPUS", rate), messages: raw, modify: None },
        Voice {
            name: "modified",
            config: config("LINEAR16", rate),
            messages: changing,
            modify: Some((at, config("MULAW", 8_000))),
        },
    ])
}

fn cut_every(bytes: &[u8], size: usize) -> Vec<(Vec<u8>, Duration)> {
    bytes.chunks(size).map(|chunk| (chunk.to_vec(), MESSAGE)).collect()
}

/// Says all of a voice, at its pace or as fast as it is taken, and answers what a listener heard.
async fn heard(cluster: &Cluster, meeting: &str, voice: &Voice, live: bool) -> Result<(String, Vec<Word>)> {
    let gateway: &Server = &cluster.gateways[0];
    let path = format!("/v1/subscribe/{meeting}?view=all&history=all");
    let mut listener = Client::connect(gateway, &path).await?;
    let listening = tokio::spawn(async move { listener.drain().await.map(|()| listener) });
    let mut speaker = Client::connect(gateway, &format!("/v1/realtime/insights/{meeting}")).await?;
    let more = json!({"config": {"speechRecognition": voice.config}, "hearsay": {"recorded": !live}});
    speaker.begin("Ana", 0, more).await?;
    let began = Instant::now();
    let mut said = Duration::ZERO;
    for (n, (message, length)) in voice.messages.iter().enumerate() {
        if let Some((_, config)) = voice.modify.as_ref().filter(|(at, _)| *at == n) {
            speaker.send_json(json!({"type": "modify_request", "speechRecognition": config})).await?;
        }
        said += *length;
        if live {
            sleep_until(began + said).await;
        }
        speaker.send(Message::binary(message.clone())).await?;
    }
    speaker.stop().await?;
    ensure!(speaker.closed == Some(1000), "{}: closed {:?}: {:?}", voice.name, speaker.closed, speaker.frames.last());
    let listener = timeout(PATIENCE, listening).await.context("the listener was not let go")???;
    let positions = listener.positions();
    ensure!(
        positions.windows(2).all(|pair| pair[0].0 == pair[1].0 && pair[1].1 == pair[0].1 + 1),
        "{}: positions have a hole or a double: {positions:?}",
        voice.name
    );
    Ok(told(&listener))
}

/// The text, and each word with its times from the first on: live streams' clocks begin when their audio does.
fn told(listener: &Client) -> (String, Vec<Word>) {
    let finals = listener.finals();
    let text = finals.iter().map(|said| said.text.as_str()).collect::<Vec<_>>().join(" ");
    let words: Vec<Word> = finals.into_iter().flat_map(|said| said.words).collect();
    let begun = words.first().map_or(0.0, |word| word.1);
    (text, words.into_iter().map(|(word, from, to)| (word, from - begun, to - begun)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_every_encoding_outlive_a_killed_and_a_drained_recognizer() -> Result<()> {
    let (samples, rate) = wav(&recordings()?.two_cities)?;
    // Enough for two moves.
    let voices = voices(&samples[..20 * rate as usize], rate)?;
    let mut cluster = Cluster::of(3, 1).await?;
    let mut unbroken = Vec::new();
    for voice in &voices {
        let whole = heard(&cluster, &format!("unbroken-{}", voice.name), voice, false).await?;
        ensure!(whole.1.len() > 20, "{}: too little was said to prove anything: {whole:?}", voice.name);
        unbroken.push(whole);
    }
    // A live stream of each, as the same cluster hears them at once.
    let moved_before = cluster.gateways[0].metric("hearsay_uplink_audio_replayed_bytes_total").await?;
    let broken = {
        let cluster = &cluster;
        let talks = voices
            .iter()
            .map(|voice| async move { heard(cluster, &format!("broken-{}", voice.name), voice, true).await });
        let worst = async {
            sleep(Duration::from_secs(5)).await;
            let killed = busiest(cluster, None).await?;
            cluster.recognizers[killed].signal("-KILL")?;
            sleep(Duration::from_secs(5)).await;
            let drained = busiest(cluster, Some(killed)).await?;
            cluster.recognizers[drained].signal("-TERM")?;
            anyhow::Ok((killed, drained))
        };
        let (broken, worst) = tokio::join!(futures::future::try_join_all(talks), worst);
        worst?;
        broken?
    };
    for (voice, (unbroken, broken)) in voices.iter().zip(unbroken.iter().zip(&broken)) {
        println!("{}: {} words", voice.name, broken.1.len());
        same(unbroken, broken);
    }
    let replayed = cluster.gateways[0].metric("hearsay_uplink_audio_replayed_bytes_total").await? - moved_before;
    ensure!(replayed > 0.0, "nobody was in the middle of anything");
    cluster.recognizers.clear();
    Ok(())
}

/// The recognizer with the most streams.
async fn busiest(cluster: &Cluster, not: Option<usize>) -> Result<usize> {
    let mut most = None;
    for (n, one) in cluster.recognizers.iter().enumerate().filter(|(n, _)| Some(*n) != not) {
        let streams = one.metric("hearsay_recognizer_streams").await?;
        if most.is_none_or(|(_, most)| streams > most) {
            most = Some((n, streams));
        }
    }
    let (n, streams) = most.context("a recognizer")?;
    ensure!(streams > 0.0, "nobody is heard");
    Ok(n)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_forgets_its_last_seconds_is_told_them_again() -> Result<()> {
    let (samples, rate) = wav(&recordings()?.endgame)?;
    let at = |seconds: usize| (seconds * rate as usize).min(samples.len());
    let mut cluster = Cluster::of(1, 1).await?;
    let voice = Voice {
        name: "linear16",
        config: json!({"encoding": "LINEAR16", "sampleRateHertz": rate}),
        messages: cut_every(&pcm(&samples), rate as usize / 5),
        modify: None,
    };
    let unbroken = heard(&cluster, "unbroken", &voice, false).await?;

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
    same(&unbroken, &told(&late));
    assert_eq!(told(&beside).0, unbroken.0, "who was there heard nothing twice");
    Ok(())
}
