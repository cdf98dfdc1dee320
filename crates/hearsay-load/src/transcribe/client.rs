//! One speaker's connection, and the token that opens it.

use std::{collections::VecDeque, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    SinkExt, StreamExt, TryFutureExt,
    stream::{SplitSink, SplitStream},
};
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{self, Message, client::IntoClientRequest, protocol::CloseFrame},
};

use crate::{
    escape,
    trust::{Trust, TrustError, is_secure, socket_scheme},
};

use super::{
    Credentials, Printer, TranscribeError, Wav,
    audio::{Acked, Audio},
    frames::{Frame, position},
    pace::Pace,
    progress::Bar,
};

/// To connect and be let in. The server delays refusals by up to two seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// For the next word of a server that owes one: an acknowledgement, a start, an end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// For the server's half of a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a stream whose connection broke is tried to go on with: about as long as a server keeps it.
const RETURN: Duration = Duration::from_secs(30);
/// Waits between those attempts: the first, doubled each time up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// Connections in a row that may break without any more of the audio being acknowledged.
const BREAKS: u32 = 8;
/// A token's answer is small.
const MAX_ANSWER: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("--url {url}: {reason}")]
    Address { url: String, reason: &'static str },
    #[error(
        "cannot reach {url}: {reason}. Is the server running? Start one with `hearsay dev`, or name another with --url"
    )]
    Unreachable { url: String, reason: String },
    #[error(
        "{url} is not trusted: {reason}. Name who signed its certificate with --ca; that of `hearsay dev --tls` is \
         dev/tls.pem in the cache folder"
    )]
    Untrusted { url: String, reason: String },
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("the server does not let us in ({status}): {details}. {advice}")]
    Unauthorized { status: StatusCode, details: String, advice: &'static str },
    #[error("the server answered {status}: {details}")]
    Answer { status: StatusCode, details: String },
    #[error("{speaker}: the server refused{}: {details}{}", in_brackets(code), retry(*retry_after_ms))]
    Refused { speaker: String, code: String, details: String, retry_after_ms: Option<u64> },
    #[error("{speaker}: the server closed the connection before the end ({reason}); the transcript is incomplete")]
    Closed {
        speaker: String,
        reason: String,
        /// Its stream may go on over another connection.
        returns: bool,
    },
    #[error("{speaker}: no {awaited} within {} s; the transcript is incomplete", ANSWER_TIMEOUT.as_secs())]
    Silent { speaker: String, awaited: &'static str },
}

impl ClientError {
    /// The connection is of no more use, and another one may be.
    fn is_a_break(&self) -> bool {
        matches!(self, Self::Closed { returns: true, .. } | Self::Silent { .. })
    }

    /// Another attempt may succeed.
    fn is_for_now(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { retry_after_ms, .. } => retry_after_ms.is_some(),
            Self::Answer { status, .. } => status.is_server_error(),
            other => other.is_a_break(),
        }
    }
}

fn in_brackets(code: &str) -> String {
    if code.is_empty() { String::new() } else { format!(" ({code})") }
}

fn retry(after_ms: Option<u64>) -> String {
    after_ms.map_or_else(String::new, |ms| format!("; try again in {:.1} s", ms as f64 / 1_000.0))
}

/// A server that knows us.
pub struct Server {
    /// Without a path.
    url: Uri,
    token: HeaderValue,
    trust: Trust,
}

impl Server {
    /// Gets a token for an application's credentials; a token of one's own is tried with the first connection. `ca` is a PEM
    /// file of whom to trust behind `https`; none: whom this machine trusts.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connect(url: Uri, credentials: Credentials, ca: Option<&Path>) -> Result<Self, ClientError> {
        let wrong = |reason| ClientError::Address { url: url.to_string(), reason };
        match url.scheme_str() {
            Some("http" | "https") => {}
            _ => return Err(wrong("an address such as http://127.0.0.1:8080 is needed")),
        }
        if url.authority().is_none() || url.query().is_some() {
            return Err(wrong("an address such as http://127.0.0.1:8080 is needed"));
        }
        let trust = Trust::of(std::slice::from_ref(&url), ca)?;
        let token = match credentials {
            Credentials::Token(token) => token.trim().to_owned(),
            Credentials::App { id, secret } => generate(&url, &trust, &id, &secret).await?,
        };
        let mut token = HeaderValue::try_from(token).map_err(|_| ClientError::Unauthorized {
            status: StatusCode::UNAUTHORIZED,
            details: "the token holds characters that no token has".to_owned(),
            advice: ADVICE,
        })?;
        token.set_sensitive(true);
        Ok(Self { url, token, trust })
    }

    fn unreachable(url: &Uri, reason: impl std::fmt::Display) -> ClientError {
        let (url, reason) = (url.to_string(), reason.to_string());
        if reason.contains("certificate") {
            return ClientError::Untrusted { url, reason };
        }
        ClientError::Unreachable { url, reason }
    }
}

const ADVICE: &str = "`hearsay dev` prints a token on its second line: pass it as --token or HEARSAY_TOKEN";

async fn generate(url: &Uri, trust: &Trust, id: &str, secret: &str) -> Result<String, ClientError> {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let body = json!({"type": "application", "appId": id, "appSecret": secret}).to_string();
    let request = Request::post(format!("{}/oauth2/token:generate", url.path().trim_end_matches('/')))
        .header(header::HOST, authority)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)));
    let request = request.map_err(|error| Server::unreachable(url, error))?;
    let answer = timeout(CONNECT_TIMEOUT, async {
        let stream = dial(url, trust).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Server::unreachable(url, root_cause(&error)))?;
        let answered = async {
            let answer = sender.send_request(request).await;
            let response = answer.map_err(|error| Server::unreachable(url, root_cause(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            Ok((status, body.map_err(|error| Server::unreachable(url, error))?.to_bytes()))
        };
        // Whatever ends the connection is told by the answer, or by its absence.
        let driving = async {
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = answered => answer,
            () = driving => Err(Server::unreachable(url, "the connection ended")),
        }
    });
    let (status, body) = answer.await.map_err(|_| Server::unreachable(url, "no answer in time"))??;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    match body["accessToken"].as_str() {
        Some(token) if status.is_success() => Ok(token.to_owned()),
        _ => Err(refusal(status, body["message"].as_str().unwrap_or("no access token in the answer"))),
    }
}

/// A connection, plain or behind TLS.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

async fn dial(url: &Uri, trust: &Trust) -> Result<Box<dyn Connection>, ClientError> {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_u16().unwrap_or(if is_secure(url) { 443 } else { 80 });
    let unreachable = |error: std::io::Error| Server::unreachable(url, root_cause(&error));
    let stream = TcpStream::connect((host, port)).await.map_err(unreachable)?;
    match trust.tls().filter(|_| is_secure(url)) {
        Some(tls) => {
            let name = ServerName::try_from(host.to_owned()).map_err(|error| Server::unreachable(url, error))?;
            let secured = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
            Ok(Box::new(secured.map_err(unreachable)?))
        }
        None => Ok(Box::new(stream)),
    }
}

fn refusal(status: StatusCode, details: &str) -> ClientError {
    let details = details.trim().trim_end_matches('.').to_owned();
    match status {
        StatusCode::UNAUTHORIZED => ClientError::Unauthorized { status, details, advice: ADVICE },
        StatusCode::FORBIDDEN => {
            ClientError::Unauthorized { status, details, advice: "Ask for a token that carries this permission" }
        }
        _ => ClientError::Answer { status, details },
    }
}

/// The innermost reason, which is what a person can act upon.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A path below the server's address, which may have one itself.
fn below(url: &Uri, scheme: &str, path: &str) -> String {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    format!("{scheme}://{authority}{}{path}", url.path().trim_end_matches('/'))
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A connection that may be spoken into.
struct Line {
    sink: SplitSink<Socket, Message>,
    frames: SplitStream<Socket>,
    /// What the server said while we were let in, to be printed in its order.
    heard: Vec<String>,
    /// What the server asks for of a stream that goes on.
    from: Option<u64>,
}

/// What it takes to go on with a stream over another connection.
#[derive(Default)]
struct Thread {
    /// None: the server keeps no streams.
    token: Option<String>,
    /// The newest event heard.
    position: Option<String>,
    acked: Acked,
}

/// What the listening half tells the speaking one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Told {
    acked: Acked,
    /// The server keeps the stream for who returns.
    keeps: bool,
}

impl Thread {
    fn note(&mut self, text: &str) {
        if let Some(position) = position(text) {
            self.position = Some(position);
        }
        match Frame::parse(text) {
            Frame::Token(token) => self.token = Some(token),
            Frame::Acknowledged(acked) => self.acked.or_later(acked),
            _ => {}
        }
    }

    fn told(&self) -> Told {
        Told { acked: self.acked, keeps: self.token.is_some() }
    }
}

/// A speaker who is in the meeting and may speak.
pub(super) struct Speaker<'a> {
    server: &'a Server,
    meeting: &'a str,
    name: String,
    audio: Audio,
    fast: bool,
    bar: Bar,
    line: Line,
    thread: Thread,
}

impl<'a> Speaker<'a> {
    /// Connects and starts.
    pub(super) async fn join(
        server: &'a Server,
        meeting: &'a str,
        name: String,
        wav: Wav,
        fast: bool,
        bar: Bar,
    ) -> Result<Self, ClientError> {
        let (audio, mut thread) = (Audio::new(wav), Thread::default());
        let line = begin(server, meeting, &name, audio.rate(), fast, &thread).await?;
        line.heard.iter().for_each(|text| thread.note(text));
        Ok(Self { server, meeting, name, audio, fast, bar, line, thread })
    }

    /// Speaks to the end of the file, and listens to the end of the stream, over as many connections as that takes.
    pub(super) async fn stream(mut self, printer: &Printer<'_>) -> Result<(), TranscribeError> {
        let begun = Instant::now();
        let (mut breaks, mut restart) = (0, 0);
        while let Err(error) = self.talk(begun, printer).await {
            let TranscribeError::Client(broken) = error else { return Err(error) };
            if !broken.is_a_break() || self.thread.token.is_none() {
                return Err(broken.into());
            }
            if self.thread.acked.restart > restart {
                (breaks, restart) = (0, self.thread.acked.restart);
            }
            breaks += 1;
            if breaks > BREAKS {
                return Err(broken.into());
            }
            tracing::info!(speaker = self.name, error = %broken, "going on over another connection");
            self.come_back(broken).await?;
        }
        // All is said: whether the goodbye is answered makes no difference.
        let Line { mut sink, mut frames, .. } = self.line;
        let goodbye = async {
            let _ = sink.close().await;
            while let Some(Ok(_)) = frames.next().await {}
        };
        let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
        self.audio.into_short().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Speaks and listens over the present connection.
    async fn talk(&mut self, begun: Instant, printer: &Printer<'_>) -> Result<(), TranscribeError> {
        let Self { name, audio, fast, bar, line, thread, .. } = self;
        let (tell, told) = watch::channel(thread.told());
        let listening = listen(name, line.heard.drain(..), &mut line.frames, bar, thread, tell, printer);
        let speaking = speak(name, audio, *fast, begun, bar, &mut line.sink, told);
        tokio::pin!(listening, speaking);
        let spoken = tokio::select! {
            heard = &mut listening => return heard,
            spoken = &mut speaking => spoken,
        };
        // A connection that breaks under the writer has its reason, an error frame or a close code, in the reader.
        let rest = timeout(ANSWER_TIMEOUT, &mut listening).await;
        match (spoken, rest) {
            (_, Ok(heard)) => heard,
            (Err(error), Err(_)) => Err(error),
            (Ok(()), Err(_)) => {
                Err(ClientError::Silent { speaker: name.clone(), awaited: "end of the transcript" }.into())
            }
        }
    }

    /// Goes on with the stream over another connection.
    async fn come_back(&mut self, broken: ClientError) -> Result<(), ClientError> {
        let until = Instant::now() + RETURN;
        let mut wait = RETRY_FIRST;
        loop {
            sleep(wait).await;
            wait = (2 * wait).min(RETRY_LAST);
            let begun = begin(self.server, self.meeting, &self.name, self.audio.rate(), self.fast, &self.thread).await;
            let why = match begun {
                Ok(line) if line.from.is_some_and(|chunk| self.audio.go_back(chunk)) => {
                    self.line = line;
                    return Ok(());
                }
                Ok(_) => "the server asks for audio that is not kept".to_owned(),
                Err(error) if error.is_for_now() && Instant::now() < until => continue,
                Err(error) => error.to_string(),
            };
            let ClientError::Closed { speaker, reason, .. } = broken else { return Err(broken) };
            let reason = format!("{reason}; it could not be taken up again: {why}");
            return Err(ClientError::Closed { speaker, reason, returns: false });
        }
    }
}

/// Connects, and starts a stream or goes on with one.
async fn begin(
    server: &Server,
    meeting: &str,
    name: &str,
    rate: u32,
    fast: bool,
    thread: &Thread,
) -> Result<Line, ClientError> {
    // Who comes back has missed what was said meanwhile; who has heard nothing yet, all of it.
    let missed = match (&thread.token, &thread.position) {
        (None, _) => String::new(),
        (Some(_), None) => "&history=all".to_owned(),
        (Some(_), Some(position)) => format!("&since={}", escape(position)),
    };
    let socket = timeout(CONNECT_TIMEOUT, connect(server, meeting, &missed)).await;
    let socket = socket.map_err(|_| Server::unreachable(&server.url, "no answer in time"))??;
    let (mut sink, mut frames) = socket.split();
    let mut start = json!({
        "type": "start_request",
        "insightTypes": ["question", "action_item", "follow_up", "topic"],
        "config": {
            "meetingTitle": meeting,
            "speechRecognition": {"encoding": "LINEAR16", "sampleRateHertz": rate},
        },
        "speaker": {"userId": name, "name": name},
        "disconnectOnStopRequest": true,
        "hearsay": {"ack": true, "recorded": fast},
    });
    if let Some(token) = &thread.token {
        start["hearsay"]["resume"] = token.as_str().into();
    }
    let sent = sink.send(Message::text(start.to_string())).await;
    sent.map_err(|error| closed(name, error))?;
    let (mut heard, mut from) = (Vec::new(), None);
    let started = async {
        let mut started = false;
        while !started || (thread.token.is_some() && from.is_none()) {
            let text = next(&mut frames, name).await?;
            match Frame::parse(&text) {
                Frame::Started => started = true,
                Frame::Resumed { chunk } => from = Some(chunk),
                Frame::Error { code, details, retry_after_ms } => {
                    return Err(ClientError::Refused { speaker: name.to_owned(), code, details, retry_after_ms });
                }
                _ => {}
            }
            heard.push(text);
        }
        Ok(())
    };
    let started = timeout(ANSWER_TIMEOUT, started).await;
    started.map_err(|_| ClientError::Silent { speaker: name.to_owned(), awaited: "start" })??;
    Ok(Line { sink, frames, heard, from })
}

async fn connect(server: &Server, meeting: &str, missed: &str) -> Result<Socket, ClientError> {
    let url = below(
        &server.url,
        socket_scheme(&server.url),
        &format!("/v1/realtime/insights/{}?source=hearsay{missed}", escape(meeting)),
    );
    let mut request = url.into_client_request().map_err(|error| Server::unreachable(&server.url, error))?;
    request.headers_mut().insert(HeaderName::from_static("x-api-key"), server.token.clone());
    match connect_async_tls_with_config(request, None, true, Some(server.trust.connector(&server.url))).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => {
            let status = response.status();
            let body: Value =
                response.body().as_deref().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
            Err(refusal(status, body["message"].as_str().unwrap_or("no reason given")))
        }
        Err(error) => Err(Server::unreachable(&server.url, root_cause(&error))),
    }
}

/// Sends what is left of the file, then asks for the end.
async fn speak(
    name: &str,
    audio: &mut Audio,
    fast: bool,
    begun: Instant,
    bar: &Bar,
    sink: &mut SplitSink<Socket, Message>,
    mut told: watch::Receiver<Told>,
) -> Result<(), TranscribeError> {
    let silent = |awaited| ClientError::Silent { speaker: name.to_owned(), awaited };
    while let Some(chunk) = audio.next() {
        let pace = Pace::after(chunk.start_ms);
        let ms = chunk.end_ms - chunk.start_ms;
        let room = told
            .wait_for(|it| (!it.keeps || audio.has_room(it.acked)) && (!fast || pace.fits(ms, it.acked.ms)))
            .map_ok(|it| *it);
        match timeout(ANSWER_TIMEOUT, room).await {
            // A server that keeps no streams never asks for anything again.
            Ok(Ok(Told { acked, .. })) if !audio.has_room(acked) => {
                audio.forget(Acked { restart: u64::MAX, ..acked });
            }
            Ok(Ok(Told { acked, .. })) => audio.forget(acked),
            // The reader is done: it knows why.
            Ok(Err(_)) => break,
            Err(_) => return Err(silent("acknowledgement of the audio").into()),
        }
        if !fast {
            // Whoever was away sends at once what it has kept.
            sleep_until(begun + pace.due(ms)).await;
        }
        let sent = timeout(ANSWER_TIMEOUT, sink.send(Message::binary(chunk.data.clone()))).await;
        sent.map_err(|_| silent("room for the audio"))?.map_err(|error| closed(name, error))?;
        bar.sent(audio.sent(&chunk));
    }
    let stop = json!({"type": "stop_request"}).to_string();
    sink.send(Message::text(stop)).await.map_err(|error| closed(name, error))?;
    Ok(())
}

/// Prints what comes until both end messages have.
async fn listen(
    name: &str,
    heard: impl Iterator<Item = String>,
    frames: &mut SplitStream<Socket>,
    bar: &Bar,
    thread: &mut Thread,
    tell: watch::Sender<Told>,
    printer: &Printer<'_>,
) -> Result<(), TranscribeError> {
    let mut heard: VecDeque<String> = heard.collect();
    let (mut stopped, mut completed) = (false, false);
    while !(stopped && completed) {
        let text = match heard.pop_front() {
            Some(text) => text,
            None => next(frames, name).await?,
        };
        printer.frame(&text)?;
        thread.note(&text);
        tell.send_if_modified(|told| std::mem::replace(told, thread.told()) != *told);
        match Frame::parse(&text) {
            Frame::Final(said) => {
                bar.quiet();
                printer.add(said)?;
            }
            Frame::Partial { speaker, text } => bar.heard(&speaker, &text),
            Frame::Stopped => stopped = true,
            Frame::Completed => completed = true,
            Frame::Error { code, details, retry_after_ms } => {
                return Err(ClientError::Refused { speaker: name.to_owned(), code, details, retry_after_ms }.into());
            }
            Frame::Started | Frame::Acknowledged(_) | Frame::Token(_) | Frame::Resumed { .. } | Frame::Other => {}
        }
    }
    Ok(())
}

/// The next text frame.
async fn next(frames: &mut SplitStream<Socket>, name: &str) -> Result<String, ClientError> {
    loop {
        match frames.next().await {
            Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
            Some(Ok(Message::Close(frame))) => {
                // A server that goes away says so without a code, one that is full with 1013; all else is meant for good.
                let returns = frame.as_ref().is_none_or(|frame| matches!(u16::from(frame.code), 1001 | 1012 | 1013));
                let reason = match frame {
                    Some(CloseFrame { code, reason }) if reason.is_empty() => format!("code {}", u16::from(code)),
                    Some(CloseFrame { code, reason }) => format!("code {}, {reason}", u16::from(code)),
                    None => "no code: the server is going away".to_owned(),
                };
                return Err(ClientError::Closed { speaker: name.to_owned(), reason, returns });
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(closed(name, error)),
            None => {
                let reason = "connection lost".to_owned();
                return Err(ClientError::Closed { speaker: name.to_owned(), reason, returns: true });
            }
        }
    }
}

fn closed(name: &str, error: tungstenite::Error) -> ClientError {
    ClientError::Closed { speaker: name.to_owned(), reason: root_cause(&error), returns: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_meeting_name_is_one_segment() {
        assert_eq!(escape("team/stand-up ü?"), "team%2Fstand-up%20%C3%BC%3F");
        let url: Uri = "http://127.0.0.1:8080".parse().unwrap();
        assert_eq!(below(&url, "ws", "/v1/x"), "ws://127.0.0.1:8080/v1/x");
        let url: Uri = "http://host/behind/".parse().unwrap();
        assert_eq!(below(&url, "http", "/v1/x"), "http://host/behind/v1/x");
    }

    #[test]
    fn errors_name_what_to_do() {
        let error = refusal(StatusCode::UNAUTHORIZED, "Token validation failed for provided token.");
        assert_eq!(
            error.to_string(),
            "the server does not let us in (401 Unauthorized): Token validation failed for provided token. \
             `hearsay dev` prints a token on its second line: pass it as --token or HEARSAY_TOKEN"
        );
        let error = ClientError::Refused {
            speaker: "talk".to_owned(),
            code: "overloaded".to_owned(),
            details: "no recognizer has room".to_owned(),
            retry_after_ms: Some(1_500),
        };
        let text = "talk: the server refused (overloaded): no recognizer has room; try again in 1.5 s";
        assert_eq!(error.to_string(), text);
    }
}
