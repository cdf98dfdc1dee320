//! Meetings as people hold them: speakers who send real audio at the pace of speech, and listeners who check that nothing
//! they should hear is missing.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hearsay_runtime::Tasks;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::{self, Message};

use super::{
    door::{Door, Socket},
    listen::{self, Listen, ListenError, Measures, Names},
    report::Report,
};
use crate::{
    escape,
    transcribe::{Wav, WavError},
};

/// Audio of one message.
const CHUNK: Duration = Duration::from_millis(100);
/// To connect, to be let in, and to hear the last words after the stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// Listeners are there before the first word.
const BEFORE: Duration = Duration::from_secs(1);

/// What to do.
#[derive(Debug, Clone)]
pub struct Meetings {
    /// Who listens, and for how long people speak. The names are numbered.
    pub listen: Listen,
    pub meetings: usize,
    pub prefix: String,
    /// In each meeting.
    pub speakers: usize,
    /// Said over and over, each speaker from another place.
    pub audio: PathBuf,
}

/// How far a run is, for whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    pub listening: Arc<listen::Progress>,
    pub speaking: AtomicU64,
    pub finals: AtomicU64,
}

#[derive(Debug, thiserror::Error)]
pub enum MeetingsError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Audio(#[from] WavError),
    #[error("no speaker was let in; the last was told: {reason}")]
    Refused { reason: String },
}

/// Speaks and listens, and tells how it went. Latencies are those of finals: from the end of their last word, as the speaker
/// sent it, until the speaker's own socket brings them.
///
/// # Errors
/// [`MeetingsError`]; a single socket's trouble is a count of the report.
pub async fn meetings(options: Meetings, progress: Arc<Progress>, tasks: &Tasks) -> Result<Report, MeetingsError> {
    let (rate, chunks) = audio(&options.audio)?;
    let door = Arc::new(Door::of(&options.listen.urls, options.listen.ca.as_deref(), &options.listen.token).await?);
    let names = Names::Numbered { prefix: options.prefix.clone(), meetings: options.meetings };
    // The listeners outlast the last words, and go when the meetings end.
    let listening = Listen {
        names: names.clone(),
        duration: BEFORE + options.listen.duration + PATIENCE,
        measures: Measures::Events,
        ..options.listen.clone()
    };
    let connecting = Duration::from_secs_f64(listening.subscribers as f64 / f64::from(listening.connect_rate.max(1)));
    let (done, mut reports) = mpsc::channel(1_024);
    let begun = Instant::now();
    for index in 0..options.meetings * options.speakers {
        let (door, chunks, done) = (Arc::clone(&door), Arc::clone(&chunks), done.clone());
        let (progress, duration) = (Arc::clone(&progress), options.listen.duration);
        let (name, at) = (names.of(index), names.spread(index));
        let speakers = options.meetings * options.speakers;
        tasks.spawn("speaker", async move {
            // Not all at the same moment.
            let first = begun + connecting + BEFORE + CHUNK.mul_f64(index as f64 / speakers as f64);
            let speaker = Speaker { index, at, name, rate, chunks, first, duration };
            // Nobody waits for it when the run was given up.
            let _ = done.send(speaker.speak(&door, &progress).await).await;
        });
    }
    drop(done);
    let speaking = async {
        let (mut report, mut reason) = (Report::default(), None);
        while let Some(spoken) = reports.recv().await {
            match spoken {
                Ok(one) => report.add(&one),
                Err(why) => {
                    report.failed += 1;
                    reason = Some(why);
                }
            }
        }
        (report, reason)
    };
    let listened = listen::listen(listening, Arc::clone(&progress.listening), tasks);
    let (listened, (spoken, reason)) = tokio::join!(listened, speaking);
    if let Some(reason) = reason.filter(|_| spoken.members == 0) {
        return Err(MeetingsError::Refused { reason });
    }
    let mut report = listened?;
    // What listeners measured are not finals' latencies.
    let (finals, speakers) = (spoken.delivered, spoken.members);
    report.failed += spoken.failed;
    report.micros = spoken.micros;
    report.more.extend([("finals", finals as f64), ("speakers", speakers as f64)]);
    Ok(report)
}

/// Rate, and messages of [`CHUNK`], linear 16 bit.
fn audio(path: &Path) -> Result<(u32, Arc<[Bytes]>), WavError> {
    let mut wav = Wav::open(path)?;
    let rate = wav.rate();
    let mut chunks = Vec::new();
    while let Some(chunk) = wav.next(rate as usize / 10)? {
        chunks.push(chunk);
    }
    Ok((rate, chunks.into()))
}

struct Speaker {
    index: usize,
    at: usize,
    name: String,
    rate: u32,
    chunks: Arc<[Bytes]>,
    first: Instant,
    duration: Duration,
}

impl Speaker {
    async fn speak(&self, door: &Door, progress: &Progress) -> Result<Report, String> {
        sleep_until(self.first).await;
        let path = format!("/v1/realtime/insights/{}?source=hearsay", escape(&self.name));
        let entering = timeout(PATIENCE, door.enter(self.index, self.at, &path)).await;
        let mut socket = entering.map_err(|_| "nothing".to_owned())?.map_err(|error| error.to_string())?;
        let mut report = Report { members: 1, ..Report::default() };
        progress.speaking.fetch_add(1, Ordering::Relaxed);
        let spoken = self.converse(&mut socket, progress, &mut report).await;
        progress.speaking.fetch_sub(1, Ordering::Relaxed);
        if let Err(error) = spoken {
            tracing::debug!(meeting = self.name, %error, "a speaker was cut off");
            report.disconnected += 1;
        }
        Ok(report)
    }

    async fn converse(
        &self,
        socket: &mut Socket,
        progress: &Progress,
        report: &mut Report,
    ) -> Result<(), tungstenite::Error> {
        let user = &format!("speaker-{}", self.index);
        let start = json!({
            "type": "start_request",
            "insightTypes": ["question", "action_item"],
            "config": {"speechRecognition": {"encoding": "LINEAR16", "sampleRateHertz": self.rate}},
            "speaker": {"userId": user, "name": user},
        });
        socket.send(Message::text(start.to_string())).await?;
        let begun = Instant::now();
        let mut sent = 0_u32;
        // People do not say the same at the same time.
        let from = self.index * self.chunks.len() / 7;
        while begun.elapsed() < self.duration {
            let due = begun + CHUNK * (sent + 1);
            tokio::select! {
                () = sleep_until(due) => {
                    let chunk = self.chunks[(from + sent as usize) % self.chunks.len()].clone();
                    socket.send(Message::Binary(chunk)).await?;
                    sent += 1;
                }
                message = socket.next() => match message {
                    Some(message) => hear(&message?, user, begun, progress, report),
                    None => return Err(tungstenite::Error::ConnectionClosed),
                },
            }
        }
        socket.send(Message::text(json!({"type": "stop_request"}).to_string())).await?;
        let last = async {
            while let Some(Ok(message)) = socket.next().await {
                hear(&message, user, begun, progress, report);
            }
        };
        tokio::select! {
            () = last => Ok(()),
            () = sleep(PATIENCE) => Err(tungstenite::Error::ConnectionClosed),
        }
    }
}

/// Counts a final of this speaker's: its words lie on the clock that began with the stream.
fn hear(message: &Message, user: &str, begun: Instant, progress: &Progress, report: &mut Report) {
    let Message::Text(text) = message else { return };
    let Ok(frame) = serde_json::from_str::<Value>(text) else { return };
    let caption = &frame["message"];
    if caption["type"] != "recognition_result" || caption["isFinal"] != true || caption["user"]["name"] != user {
        return;
    }
    report.delivered += 1;
    progress.finals.fetch_add(1, Ordering::Relaxed);
    let words = caption["payload"]["raw"]["alternatives"][0]["words"].as_array();
    let Some(end) = words.and_then(|words| words.last()).map(|word| &word["endTime"]) else { return };
    let part = |name: &str| end[name].as_str().and_then(|part| part.parse::<f64>().ok()).unwrap_or(0.0);
    let late = begun.elapsed().as_secs_f64() - part("seconds") - part("nanos") / 1e9;
    report.latency((late.max(0.0) * 1e9) as u64);
}
