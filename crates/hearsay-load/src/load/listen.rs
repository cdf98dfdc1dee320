//! Many subscribers over real sockets, each checking that positions are contiguous.

use std::{
    net::{Ipv4Addr, SocketAddr},
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
use http::{HeaderName, HeaderValue, Uri};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{self, Message, client::IntoClientRequest, protocol::WebSocketConfig},
};

use super::{nanos, report::Report, run::Run, stamped};
use crate::{
    escape,
    trust::{Trust, TrustError, is_secure, socket_scheme},
};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Subscribers from one source address; loopback has 28,000 ports a source.
const PER_SOURCE: usize = 20_000;
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
    fn of(&self, subscriber: usize) -> String {
        match self {
            Self::One(meeting) => meeting.clone(),
            Self::Numbered { prefix, meetings } => format!("{prefix}-{}", subscriber % meetings.max(&1)),
        }
    }

    /// Neighbours in a meeting get neighbouring numbers, and so do first subscribers of neighbouring meetings.
    fn spread(&self, subscriber: usize) -> usize {
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
    token: HeaderValue,
    trust: Trust,
    targets: Vec<(Uri, SocketAddr)>,
    over: AtomicBool,
    progress: Arc<Progress>,
}

/// Runs the subscribers and adds up what they found.
///
/// # Errors
/// [`ListenError`]; a single subscriber's trouble is a count of the report.
pub async fn listen(options: Listen, progress: Arc<Progress>, tasks: &Tasks) -> Result<Report, ListenError> {
    let mut targets = Vec::new();
    for url in &options.urls {
        let wrong = || ListenError::Address { url: url.to_string() };
        let known = matches!(url.scheme_str(), Some("http" | "https"));
        let authority = url.authority().filter(|_| known).ok_or_else(wrong)?;
        let port = authority.port_u16().unwrap_or(if is_secure(url) { 443 } else { 80 });
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let address = lookup_host((host, port)).await.ok().and_then(|mut found| found.next()).ok_or_else(wrong)?;
        targets.push((url.clone(), address));
    }
    if targets.is_empty() {
        return Err(ListenError::Address { url: String::new() });
    }
    let trust = Trust::of(&options.urls, options.ca.as_deref())?;
    let mut token = HeaderValue::try_from(options.token.trim()).map_err(|_| ListenError::Token)?;
    token.set_sensitive(true);
    let (subscribers, duration) = (options.subscribers, options.duration);
    let connect_rate = options.connect_rate.max(1);
    let shared = Arc::new(Shared { options, token, trust, targets, over: AtomicBool::new(false), progress });

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
    sleep(duration).await;
    shared.over.store(true, Ordering::Relaxed);
    let (mut report, mut reason) = (Report::default(), None);
    while let Some((one, why)) = reports.recv().await {
        report.add(&one);
        reason = why.or(reason);
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
    while !shared.over.load(Ordering::Relaxed) {
        match timeout(CONNECT, connect(shared, index, run.at())).await {
            Ok(Ok(socket)) => {
                report.members = 1;
                wait = RETURN.0;
                shared.progress.connected.fetch_add(1, Ordering::Relaxed);
                let ended = read(shared, socket, &mut run, &mut report).await;
                shared.progress.connected.fetch_sub(1, Ordering::Relaxed);
                match ended {
                    // The meeting is over, or we are.
                    End::Meeting | End::Over => break,
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
    let options = &shared.options;
    // One meeting's subscribers are spread over the gateways too, however many meetings there are.
    let (url, address) = &shared.targets[options.names.spread(index) % shared.targets.len()];
    let socket = match address {
        SocketAddr::V4(v4) if v4.ip().is_loopback() => {
            let socket = TcpSocket::new_v4()?;
            let source = u8::try_from(index / PER_SOURCE + 1).unwrap_or(u8::MAX);
            socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, source), 0)))?;
            socket
        }
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    let stream = socket.connect(*address).await?;
    stream.set_nodelay(true)?;
    let since = since.map_or_else(String::new, |position| format!("&since={position}"));
    let authority = url.authority().map_or("", |found| found.as_str());
    let meeting = escape(&options.names.of(index));
    let scheme = socket_scheme(url);
    let target = format!("{scheme}://{authority}/v1/subscribe/{meeting}?view=all&source=hearsay{since}");
    let mut request = target.into_client_request()?;
    request.headers_mut().insert(HeaderName::from_static("x-api-key"), shared.token.clone());
    // Thousands of these: small buffers.
    let config = WebSocketConfig::default().read_buffer_size(4 << 10).write_buffer_size(0);
    let connector = shared.trust.connector(url);
    Ok(client_async_tls_with_config(request, stream, Some(config), Some(connector)).await?.0)
}

enum End {
    Over,
    Meeting,
    Broken(String),
}

async fn read(shared: &Shared, mut socket: Socket, run: &mut Run, report: &mut Report) -> End {
    const LOOK: Duration = Duration::from_millis(250);
    let mut heard = Instant::now();
    loop {
        if shared.over.load(Ordering::Relaxed) {
            // The server may be gone first.
            let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
            return End::Over;
        }
        let message = match timeout_at(Instant::now() + LOOK, socket.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => return End::Broken(error.to_string()),
            Ok(None) => return End::Broken("the connection ended".to_owned()),
            Err(_) if heard.elapsed() > SILENCE => return End::Broken("the server is silent".to_owned()),
            Err(_) => continue,
        };
        heard = Instant::now();
        match message {
            Message::Text(text) => {
                let (lost, delivered) = (report.lost, report.delivered);
                frame(text.as_bytes(), run, report);
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
            _ => (),
        }
    }
}

/// Counts one text frame. Only what is needed is looked for: a full parse would measure ourselves.
fn frame(text: &[u8], run: &mut Run, report: &mut Report) {
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
    if let Some(sent) = stamped(text) {
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
            frame(text.as_bytes(), &mut run, &mut report);
        }
        assert_eq!((report.delivered, report.lost, report.told, report.duplicated), (3, 0, 3, 0));
    }
}
