//! Many subscribers over real sockets, each checking that positions are contiguous.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use hearsay_protocol::Position;
use hearsay_runtime::Tasks;
use http::Uri;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::{self, Message};

use super::{
    door::{Door, Socket},
    nanos,
    report::Report,
    run::Run,
    stamped,
};
use crate::{escape, trust::TrustError};

/// To connect and be let in.
const CONNECT: Duration = Duration::from_secs(15);
/// Between a broken connection and the next, at first and at most.
const RETURN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// A server that is silent for longer than this is gone: it pings.
const SILENCE: Duration = Duration::from_secs(90);

/// What to do.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Gateways, without paths; subscribers are spread over them.
    pub urls: Vec<Uri>,
    /// PEM: whom to trust behind `https`; none: whom this machine trusts.
    pub ca: Option<PathBuf>,
    pub token: String,
    pub names: Names,
    /// Of all meetings together.
    pub subscribers: usize,
    /// New connections a second.
    pub connect_rate: u32,
    /// After everybody is connected.
    pub duration: Duration,
    /// What the latencies of the report are.
    pub measures: Measures,
}

/// What is done to the sockets, and what is measured of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measures {
    /// Nothing is done: how long events take that say when they were sent.
    Events,
    /// Everybody sends a ping so often: how long its answer takes.
    Pings { every: Duration },
    /// So long after everybody is connected all are cut off at once and return: how long until each is back.
    Returns { after: Duration },
}

/// Which meetings are subscribed to.
#[derive(Debug, Clone)]
pub enum Names {
    One(String),
    /// `<prefix>-0`, `<prefix>-1` and so on.
    Numbered {
        prefix: String,
        meetings: usize,
    },
}

impl Names {
    pub(super) fn of(&self, subscriber: usize) -> String {
        match self {
            Self::One(meeting) => meeting.clone(),
            Self::Numbered { prefix, meetings } => format!("{prefix}-{}", subscriber % meetings.max(&1)),
        }
    }

    /// Neighbours in a meeting get neighbouring numbers, and so do first subscribers of neighbouring meetings.
    pub(super) fn spread(&self, subscriber: usize) -> usize {
        match self {
            Self::One(_) => subscriber,
            Self::Numbered { meetings, .. } => subscriber % meetings.max(&1) + subscriber / meetings.max(&1),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("--url {url}: an address such as http://127.0.0.1:8080 is needed")]
    Address { url: String },
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("--token: a token holds only visible characters")]
    Token,
    #[error("none of {subscribers} subscribers got in; the last was told: {reason}")]
    Refused { subscribers: usize, reason: String },
}

/// How far a run is, for whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    pub connected: AtomicU64,
    pub delivered: AtomicU64,
    pub missing: AtomicU64,
}

struct Shared {
    options: Listen,
    door: Door,
    over: AtomicBool,
    /// When all were cut off.
    cut: watch::Sender<Option<Instant>>,
    progress: Arc<Progress>,
}

/// Runs the subscribers and adds up what they found.
///
/// # Errors
/// [`ListenError`]; a single subscriber's trouble is a count of the report.
pub async fn listen(options: Listen, progress: Arc<Progress>, tasks: &Tasks) -> Result<Report, ListenError> {
    let door = Door::of(&options.urls, options.ca.as_deref(), &options.token).await?;
    let (subscribers, duration, measures) = (options.subscribers, options.duration, options.measures);
    let connect_rate = options.connect_rate.max(1);
    let shared =
        Arc::new(Shared { options, door, over: AtomicBool::new(false), cut: watch::Sender::new(None), progress });

    let (done, mut reports) = mpsc::channel(1_024);
    let mut pace = interval(Duration::from_secs(1) / connect_rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begun = Instant::now();
    for index in 0..subscribers {
        pace.tick().await;
        let (shared, done) = (Arc::clone(&shared), done.clone());
        tasks.spawn("subscriber", async move {
            let outcome = subscribe(&shared, index, begun).await;
            // Nobody waits for it when the run was given up.
            let _ = done.send(outcome).await;
        });
    }
    drop(done);
    let everybody = begun.elapsed();
    let mut end = std::pin::pin!(sleep(duration));
    let cut_after = match measures {
        Measures::Returns { after } => after,
        Measures::Events | Measures::Pings { .. } => Duration::MAX,
    };
    let mut cut = std::pin::pin!(sleep(cut_after));
    let (mut report, mut reason) = (Report::default(), None);
    loop {
        tokio::select! {
            one = reports.recv() => match one {
                Some((one, why)) => {
                    report.add(&one);
                    reason = why.or(reason);
                }
                None => break,
            },
            () = &mut cut, if shared.cut.borrow().is_none() => drop(shared.cut.send_replace(Some(Instant::now()))),
            () = &mut end, if !shared.over.load(Ordering::Relaxed) => shared.over.store(true, Ordering::Relaxed),
        }
    }
    report.took = begun.elapsed().saturating_sub(everybody);
    match reason {
        Some(reason) if report.members == 0 => Err(ListenError::Refused { subscribers, reason }),
        _ => Ok(report),
    }
}

/// One subscriber: connects, reads until the run is over, and returns from where it was when it is cut off.
async fn subscribe(shared: &Shared, index: usize, begun: Instant) -> (Report, Option<String>) {
    let (mut report, mut run) = (Report::default(), Run::default());
    let mut reason = None;
    let mut wait = RETURN.0;
    let mut cut = shared.cut.subscribe();
    // Since when it is away because of that.
    let mut away: Option<Instant> = None;
    while !shared.over.load(Ordering::Relaxed) {
        match timeout(CONNECT, connect(shared, index, run.at())).await {
            Ok(Ok(socket)) => {
                report.members = 1;
                wait = RETURN.0;
                if let Some(since) = away.take() {
                    report.latency(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX));
                }
                shared.progress.connected.fetch_add(1, Ordering::Relaxed);
                let ended = read(shared, socket, &mut cut, &mut run, &mut report).await;
                shared.progress.connected.fetch_sub(1, Ordering::Relaxed);
                match ended {
                    // The meeting is over, or we are.
                    End::Meeting | End::Over => break,
                    End::Cut => {
                        away = *cut.borrow();
                        continue;
                    }
                    End::Broken(why) => {
                        report.disconnected += 1;
                        reason = Some(why);
                    }
                }
            }
            Ok(Err(error)) => {
                report.failed += 1;
                reason = Some(refusal(&error));
            }
            Err(_) => report.failed += 1,
        }
        // Spread, so that thousands that were cut together do not return together.
        let spread = nanos().wrapping_mul(index as u64 | 1) % 1_000;
        sleep(wait.mul_f64(0.5 + spread as f64 / 1_000.0)).await;
        wait = (wait * 2).min(RETURN.1);
    }
    report.took = begun.elapsed();
    // Who is not back by the end was not let in.
    report.missing += u64::from(away.is_some());
    (report, reason)
}

fn refusal(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Http(response) => {
            let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            format!("{} {body}", response.status())
        }
        other => other.to_string(),
    }
}

async fn connect(shared: &Shared, index: usize, since: Option<Position>) -> Result<Socket, tungstenite::Error> {
    let names = &shared.options.names;
    let since = since.map_or_else(String::new, |position| format!("&since={position}"));
    let path = format!("/v1/subscribe/{}?view=all&source=hearsay{since}", escape(&names.of(index)));
    // One meeting's subscribers are spread over the gateways too, however many meetings there are.
    shared.door.enter(index, names.spread(index), &path).await
}

enum End {
    Over,
    Meeting,
    Cut,
    Broken(String),
}

async fn read(
    shared: &Shared,
    mut socket: Socket,
    cut: &mut watch::Receiver<Option<Instant>>,
    run: &mut Run,
    report: &mut Report,
) -> End {
    const LOOK: Duration = Duration::from_millis(250);
    let mut heard = Instant::now();
    let every = match shared.options.measures {
        Measures::Pings { every } => Some(every),
        Measures::Events | Measures::Returns { .. } => None,
    };
    let mut ping_at = every.map(|every| heard + every);
    loop {
        if shared.over.load(Ordering::Relaxed) {
            // The server may be gone first.
            let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
            return End::Over;
        }
        let look = Instant::now() + LOOK;
        let message = tokio::select! {
            message = socket.next() => match message {
                Some(Ok(message)) => message,
                Some(Err(error)) => return End::Broken(error.to_string()),
                None => return End::Broken("the connection ended".to_owned()),
            },
            // Nobody says goodbye.
            _ = cut.changed() => return End::Cut,
            () = sleep_until(ping_at.map_or(look, |at| at.min(look))) => {
                if heard.elapsed() > SILENCE {
                    return End::Broken("the server is silent".to_owned());
                }
                if let (Some(at), Some(every)) = (ping_at, every)
                    && at <= Instant::now()
                {
                    ping_at = Some(at + every);
                    report.sent += 1;
                    if let Err(error) = socket.send(Message::Ping(nanos().to_be_bytes().to_vec().into())).await {
                        return End::Broken(error.to_string());
                    }
                }
                continue;
            }
        };
        heard = Instant::now();
        match message {
            Message::Text(text) => {
                let (lost, delivered) = (report.lost, report.delivered);
                frame(text.as_bytes(), run, report, shared.options.measures == Measures::Events);
                shared.progress.delivered.fetch_add(report.delivered - delivered, Ordering::Relaxed);
                shared.progress.missing.fetch_add(report.lost.saturating_sub(lost), Ordering::Relaxed);
            }
            Message::Close(Some(close)) if u16::from(close.code) == 1000 => return End::Meeting,
            Message::Close(close) => {
                let why = close.map_or_else(|| "closed to be returned to".to_owned(), |close| close.to_string());
                return End::Broken(why);
            }
            Message::Ping(_) => {
                // tungstenite has queued the pong; it goes out with a flush.
                if let Err(error) = socket.flush().await {
                    return End::Broken(error.to_string());
                }
            }
            Message::Pong(payload) => {
                if let Ok(sent) = <[u8; 8]>::try_from(payload.as_ref()) {
                    report.delivered += 1;
                    report.latency(nanos().saturating_sub(u64::from_be_bytes(sent)));
                    shared.progress.delivered.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => (),
        }
    }
}

/// Counts one text frame. Only what is needed is looked for: a full parse would measure ourselves.
fn frame(text: &[u8], run: &mut Run, report: &mut Report, measured: bool) {
    let position = |key: &[u8]| -> Option<Position> {
        // A quote inside a string is escaped, so this is a key wherever it stands.
        let from = memchr::memmem::find(text, key)? + key.len();
        let length = memchr::memchr(b'"', &text[from..])?;
        std::str::from_utf8(&text[from..from + length]).ok()?.parse().ok()
    };
    if memchr::memmem::find(&text[..text.len().min(64)], br#""type":"gap""#).is_some() {
        if let Some(to) = position(br#""to":""#) {
            run.gap(to, report);
        }
        return;
    }
    let Some(at) = position(br#""position":""#) else { return };
    if memchr::memmem::find(text, br#""kind":"position""#).is_some() {
        return run.mark(at, report);
    }
    run.event(at, report);
    if measured && let Some(sent) = stamped(text) {
        report.latency(nanos().saturating_sub(sent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_meeting_is_listened_to_at_every_gateway() {
        for (names, count) in [
            (Names::One("one".to_owned()), 1),
            (Names::Numbered { prefix: "m".to_owned(), meetings: 10 }, 10),
            (Names::Numbered { prefix: "m".to_owned(), meetings: 3 }, 3),
        ] {
            let mut at: Vec<(String, usize)> = (0..count * 4).map(|it| (names.of(it), names.spread(it) % 2)).collect();
            at.sort();
            assert!(at.chunks(2).all(|pair| pair[0] == pair[1]), "{at:?}");
            at.dedup();
            assert_eq!(at.len(), count * 2, "{at:?}");
        }
    }

    #[test]
    fn only_the_frame_that_carries_the_position_counts() {
        let (mut run, mut report) = (Run::default(), Report::default());
        let frames = [
            r#"{"type":"message","message":{"type":"conversation_created","data":{"conversationId":"1"}}}"#,
            r#"{"type":"event","kind":"started","position":"00000001:1"}"#,
            r#"{"type":"message","message":{"type":"recognition_result"},"follows":"00000001:1"}"#,
            r#"{"type":"message_response","messages":[{"payload":{"content":"a \"position\":\"00000001:9\""}}],"position":"00000001:2"}"#,
            r#"{"type":"event","kind":"position","position":"00000001:2"}"#,
            r#"{"type":"gap","from":"00000001:2","to":"00000001:5","reason":"lost"}"#,
            r#"{"type":"event","kind":"ended","position":"00000001:6"}"#,
        ];
        for text in frames {
            frame(text.as_bytes(), &mut run, &mut report, true);
        }
        assert_eq!((report.delivered, report.lost, report.told, report.duplicated), (3, 0, 3, 0));
    }
}
