//! Many live voices over a cluster whose recognizers die, and what a listener of each heard of it.
//!
//! A voice is clips of speech with silence between them, in one of the forms that clients send; its audio is the same in
//! every run, so what is heard can be compared word by word and time by time.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hearsay_speech::codec::encode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    Cluster, Entry,
    client::{Client, PATIENCE, Said, inner},
};

/// Audio in one message of a form that can be cut anywhere.
pub const MESSAGE: Duration = Duration::from_millis(100);

/// How far a word may move.
pub const DRIFT: f64 = 0.05;

/// A word and its start and end, in seconds.
pub type Word = (String, f64, f64);

/// The forms that [`Voice::new`] knows.
pub const FORMS: [&str; 5] = ["linear16", "flac", "ogg", "opus", "modified"];

/// A voice as a client sends it.
pub struct Voice {
    pub form: &'static str,
    config: Value,
    /// Each with the length of audio it carries.
    messages: Vec<(Vec<u8>, Duration)>,
    /// Said before this message: from here on the audio has another format.
    modify: Option<(usize, Value)>,
    /// Where each clip's speech begins and ends in the voice, in seconds.
    pub clips: Vec<(f64, f64)>,
}

fn pcm(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

fn cut_every(bytes: &[u8], size: usize) -> Vec<(Vec<u8>, Duration)> {
    bytes.chunks(size).map(|chunk| (chunk.to_vec(), MESSAGE)).collect()
}

impl Voice {
    /// Samples at 16 or 48 kHz as one of [`FORMS`].
    pub fn new(form: &'static str, samples: &[i16], rate: u32) -> Result<Self> {
        let config = |encoding: &str, rate: u32| json!({"encoding": encoding, "sampleRateHertz": rate});
        // Bytes in pieces that a message of this length has on the average.
        let cut = |bytes: &[u8]| {
            let messages = samples.len().div_ceil(rate as usize / 10);
            let size = bytes.len().div_ceil(messages);
            cut_every(bytes, size)
        };
        let packets = || {
            let wide: Vec<i16> = match rate {
                48_000 => samples.to_vec(),
                // Opus is told 48 kHz: each sample three times, and what that adds is above what is heard.
                16_000 => samples.iter().flat_map(|sample| [*sample; 3]).collect(),
                _ => bail!("{rate} Hz is no rate of a voice"),
            };
            encode::opus(&wide, &encode::Opus::default()).context("no Opus")
        };
        let mut modify = None;
        let (config, messages) = match form {
            "linear16" => (config("LINEAR16", rate), cut_every(&pcm(samples), rate as usize / 5)),
            "flac" => {
                let wide: Vec<i32> = samples.iter().map(|sample| i32::from(*sample)).collect();
                (config("FLAC", rate), cut(&encode::flac(&wide, 1, 16, rate, 4_096).context("no FLAC")?))
            }
            "ogg" => {
                let (packets, skip) = packets()?;
                (config("OPUS", 48_000), cut(&encode::ogg(&packets, skip, 5, 7).context("no Ogg")?))
            }
            "opus" => {
                let messages = packets()?.0.into_iter().map(|packet| (packet, Duration::from_millis(20))).collect();
                (config("OPUS", 48_000), messages)
            }
            "modified" => {
                // The second half comes from a telephone.
                let tenth = rate as usize / 10;
                let half = samples.len() / 2 / tenth * tenth;
                let telephone: Vec<i16> = samples[half..]
                    .chunks(rate as usize / 8_000)
                    .map(|some| (some.iter().map(|it| i32::from(*it)).sum::<i32>() / some.len() as i32) as i16)
                    .collect();
                let mut changing = cut_every(&pcm(&samples[..half]), 2 * tenth);
                modify = Some((changing.len(), config("MULAW", 8_000)));
                changing.extend(cut_every(&encode::mulaw(&telephone), 800));
                (config("LINEAR16", rate), changing)
            }
            other => bail!("no voice is {other:?}"),
        };
        Ok(Self { form, config, messages, modify, clips: Vec::new() })
    }

    /// Clips (at 16 kHz, each with where its speech begins and ends) with as much silence before each as makes speech the
    /// given part of all, until `length` seconds.
    pub fn of_clips(
        form: &'static str,
        clips: impl Iterator<Item = Clip>,
        share: f64,
        lead: f64,
        length: f64,
    ) -> Result<Self> {
        const RATE: f64 = 16_000.0;
        let mut samples = vec![0; (lead * RATE) as usize];
        let mut spoken = Vec::new();
        for clip in clips {
            if samples.len() as f64 / RATE > length {
                break;
            }
            let begins = samples.len() as f64 / RATE;
            spoken.push((begins + clip.speech.0, begins + clip.speech.1));
            let speech = clip.speech.1 - clip.speech.0;
            let around = clip.samples.len() as f64 / RATE - speech;
            samples.extend(clip.samples);
            // A pause long enough to end the utterance at least.
            let silence = (speech / share - speech - around).max(0.7);
            samples.resize(samples.len() + (silence * RATE) as usize, 0);
        }
        Ok(Self { clips: spoken, ..Self::new(form, &samples, 16_000)? })
    }

    /// Its messages, in their order.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        self.messages.iter().map(|(message, _)| message.as_slice())
    }

    /// Seconds of audio.
    pub fn seconds(&self) -> f64 {
        self.messages.iter().map(|(_, length)| length.as_secs_f64()).sum()
    }
}

/// Somebody says something: samples at 16 kHz, and the second in them at which speech begins and ends.
#[derive(Debug, Clone)]
pub struct Clip {
    pub samples: Vec<i16>,
    pub speech: (f64, f64),
}

/// What a listener heard of a voice.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    pub form: &'static str,
    pub finals: Vec<Said>,
    pub partials: usize,
    /// When the audio before each second of the voice had been sent.
    sent: Vec<(f64, Instant)>,
    /// Why the stream was refused, if it was.
    pub refused: Option<String>,
}

impl Heard {
    /// What a client has received.
    pub fn of(form: &'static str, client: &Client) -> Self {
        let said = client.frames.iter().filter_map(|(at, frame)| Said::of(*at, frame));
        Self { form, finals: client.finals(), partials: said.filter(|it| !it.is_final).count(), ..Self::default() }
    }

    pub fn text(&self) -> String {
        self.finals.iter().map(|said| said.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// All words, with their times.
    pub fn words(&self) -> Vec<Word> {
        self.finals.iter().flat_map(|said| said.words.clone()).collect()
    }

    /// The same, with times from the first word on: live streams' clocks begin when their audio does.
    pub fn words_from_first(&self) -> Vec<Word> {
        let words = self.words();
        let begun = words.first().map_or(0.0, |word| word.1);
        words.into_iter().map(|(word, from, to)| (word, from - begun, to - begun)).collect()
    }

    /// When the audio at a second of the voice was sent.
    fn sent_at(&self, second: f64) -> Option<Instant> {
        let index = self.sent.partition_point(|(until, _)| *until < second);
        self.sent.get(index.min(self.sent.len().checked_sub(1)?)).map(|(_, at)| *at)
    }

    /// For each final: the second its last word ends, and how much later than the audio there it came.
    pub fn latencies(&self) -> Vec<(f64, Duration)> {
        let late = |said: &Said| {
            let ends = said.words.last()?.2;
            Some((ends, said.at.saturating_duration_since(self.sent_at(ends)?)))
        };
        self.finals.iter().filter_map(late).collect()
    }

    /// For each clip: how long its speech is, and how long after the last of it its final came; none without one.
    pub fn clip_latencies(&self, voice: &Voice) -> Vec<(f64, Option<Duration>)> {
        let of = |&(begins, ends): &(f64, f64)| {
            let last =
                self.finals.iter().find(|said| said.words.last().is_some_and(|word| (word.2 - ends).abs() < 0.5));
            let late = last.and_then(|said| Some(said.at.saturating_duration_since(self.sent_at(ends)?)));
            (ends - begins, late)
        };
        voice.clips.iter().map(of).collect()
    }

    /// # Errors
    /// Says which word of `other` differs from this one's, or is elsewhere by more than [`DRIFT`].
    pub fn is_same(&self, other: &Self, from_first: bool) -> Result<()> {
        ensure!(other.text() == self.text(), "{}: {:?} became {:?}", self.form, self.text(), other.text());
        let words = |heard: &Self| if from_first { heard.words_from_first() } else { heard.words() };
        let (one, other) = (words(self), words(other));
        ensure!(one.len() == other.len(), "{}: {} words became {}", self.form, one.len(), other.len());
        for (one, other) in one.iter().zip(&other) {
            let moved = (one.1 - other.1).abs().max((one.2 - other.2).abs());
            ensure!(one.0 == other.0 && moved < DRIFT, "{}: {one:?} became {other:?}", self.form);
        }
        Ok(())
    }
}

/// How fast a voice is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    Live,
    /// A recording, as fast as it is taken.
    Poured,
    /// A recording, this many times as fast as it was said.
    Faster(f64),
}

/// Says all of a voice, and answers what a listener heard.
///
/// # Errors
/// When anything but refusal ends it, and when a listener's positions have a hole or a double.
pub async fn say(gateway: &Entry, meeting: &str, voice: &Voice, pace: Pace) -> Result<Heard> {
    let path = format!("/v1/subscribe/{meeting}?view=all&history=all");
    let mut speaker = Client::enter(gateway, &format!("/v1/realtime/insights/{meeting}")).await?;
    let more = json!({"config": {"speechRecognition": voice.config}, "hearsay": {"recorded": pace != Pace::Live}});
    let mut heard = Heard { form: voice.form, ..Heard::default() };
    if let Err(error) = speaker.begin("Ana", 0, more).await {
        let refused = speaker.frames.iter().find(|(_, frame)| inner(frame) == Some("error"));
        let Some((_, refused)) = refused else { return Err(error) };
        heard.refused = Some(refused["message"].to_string());
        return Ok(heard);
    }
    let mut listener = Client::enter(gateway, &path).await?;
    let began = Instant::now();
    let mut said = Duration::ZERO;
    let mut ends = Vec::new();
    let mut messages = Vec::new();
    for (n, (message, length)) in voice.messages.iter().enumerate() {
        if let Some((_, config)) = voice.modify.as_ref().filter(|(at, _)| *at == n) {
            ends.push(said.as_secs_f64());
            messages.push((
                None,
                Message::text(json!({"type": "modify_request", "speechRecognition": config}).to_string()),
            ));
        }
        said += *length;
        ends.push(said.as_secs_f64());
        let due = match pace {
            Pace::Live => Some(began + said),
            Pace::Poured => None,
            Pace::Faster(times) => Some(began + said.div_f64(times)),
        };
        messages.push((due, Message::binary(message.clone())));
    }
    let saying = async {
        let sent = speaker.send_all(messages.into_iter()).await?;
        heard.sent = ends.into_iter().zip(sent).collect();
        speaker.stop().await
    };
    let told = async {
        let (said, told) = tokio::join!(saying, listener.drain());
        said?;
        told
    };
    // Its parts have deadlines, and so has all of it.
    timeout(Duration::from_secs_f64(voice.seconds()) + 2 * PATIENCE, told)
        .await
        .with_context(|| format!("{}: it does not end", voice.form))??;
    ensure!(speaker.closed == Some(1000), "{}: closed {:?}: {:?}", voice.form, speaker.closed, speaker.frames.last());
    let positions = listener.positions();
    ensure!(
        positions.windows(2).all(|pair| pair[0].0 == pair[1].0 && pair[1].1 == pair[0].1 + 1),
        "{}: positions have a hole or a double: {positions:?}",
        voice.form
    );
    Ok(Heard { sent: heard.sent, ..Heard::of(voice.form, &listener) })
}

/// Says voices at once, each in a meeting of its own.
pub async fn say_all(gateway: &Entry, name: &str, voices: &[Voice]) -> Result<Vec<Heard>> {
    let talks = voices.iter().enumerate().map(|(n, voice)| async move {
        // People do not begin in the same moment.
        sleep(Duration::from_millis(37 * n as u64)).await;
        let meeting = format!("{name}-{n}");
        say(gateway, &meeting, voice, Pace::Live).await.with_context(|| meeting.clone())
    });
    futures::future::try_join_all(talks).await
}

/// What happens to recognizers while voices talk over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, then another is drained once the first has been replaced.
    Killed,
    /// The link carries nothing any more, opens again, and later another's does the same.
    Silenced,
    /// SIGSTOP, and SIGCONT once its streams are elsewhere; later another.
    Frozen,
}

/// Two faults, each in the middle of what is said: after `first`, and as long after the first is mended.
pub async fn befall(cluster: &mut Cluster, fault: Fault, first: Duration) -> Result<Vec<Instant>> {
    sleep(first).await;
    let one = cluster.busiest(None).await?;
    let mut at = vec![Instant::now()];
    let away = Duration::from_secs(4);
    match fault {
        Fault::Killed => {
            cluster.recognizers[one].kill().await?;
            cluster.replace(one).await?;
        }
        Fault::Silenced => {
            cluster.recognizers[one].link.silence(true);
            sleep(away).await;
            cluster.recognizers[one].link.silence(false);
        }
        Fault::Frozen => {
            cluster.recognizers[one].signal("-STOP")?;
            sleep(away).await;
            // It wakes with half sentences in hand, and is too late.
            cluster.recognizers[one].signal("-CONT")?;
        }
    }
    // It is trusted again, so what the other has can go there.
    cluster.until_up(cluster.recognizers.len()).await?;
    sleep(first).await;
    let other = cluster.busiest(Some(one)).await?;
    at.push(Instant::now());
    match fault {
        Fault::Killed => cluster.recognizers[other].signal("-TERM")?,
        Fault::Silenced => {
            cluster.recognizers[other].link.silence(true);
            sleep(away).await;
            cluster.recognizers[other].link.silence(false);
        }
        Fault::Frozen => {
            cluster.recognizers[other].signal("-STOP")?;
            sleep(away).await;
            cluster.recognizers[other].signal("-CONT")?;
        }
    }
    Ok(at)
}

/// A recording through a cluster whose recognizers are killed one after the other, each in the middle of it, `kills` times.
pub async fn say_through_kills(
    cluster: &mut Cluster,
    meeting: &str,
    voice: &Voice,
    times: f64,
    kills: usize,
) -> Result<Heard> {
    let gateway = cluster.gateways[0].entry();
    let each = Duration::from_secs_f64(voice.seconds() / times / (kills + 1) as f64);
    let began = Instant::now();
    let killing = async {
        for kill in 1..=kills {
            sleep_until(began + each * kill as u32).await;
            let one = cluster.holder(None).await?;
            cluster.recognizers[one].kill().await?;
            cluster.replace(one).await?;
            cluster.until_up(cluster.recognizers.len()).await?;
        }
        anyhow::Ok(())
    };
    let (heard, killed) = tokio::join!(say(&gateway, meeting, voice, Pace::Faster(times)), killing);
    let heard = heard?;
    killed.map(|()| heard)
}

/// The value below which this part of the sorted values lies.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let index = ((sorted.len() as f64 - 1.0) * share).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
