//! One speaker's connection, and the token that opens it.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    SinkExt, StreamExt,
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
    time::{Instant, sleep_until, timeout},
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
    Credentials, Printer, TranscribeError, Wav, WavError,
    frames::Frame,
    pace::{CHUNK_MS, Pace},
    progress::Bar,
};

/// To connect and be let in. The server delays refusals by up to two seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// For the next word of a server that owes one: an acknowledgement, a start, an end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// For the server's half of a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
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
    Closed { speaker: String, reason: String },
    #[error("{speaker}: no {awaited} within {} s; the transcript is incomplete", ANSWER_TIMEOUT.as_secs())]
    Silent { speaker: String, awaited: &'static str },
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

/// A speaker who is in the meeting and may speak.
pub(super) struct Speaker {
    name: String,
    wav: Wav,
    fast: bool,
    bar: Bar,
    sink: SplitSink<Socket, Message>,
    frames: SplitStream<Socket>,
    /// What the server said while we were let in, to be printed in its order.
    heard: Vec<String>,
}

impl Speaker {
    /// Connects and starts.
    pub(super) async fn join(
        server: &Server,
        meeting: &str,
        name: String,
        wav: Wav,
        fast: bool,
        bar: Bar,
    ) -> Result<Self, ClientError> {
        let socket = timeout(CONNECT_TIMEOUT, connect(server, meeting)).await;
        let socket = socket.map_err(|_| Server::unreachable(&server.url, "no answer in time"))??;
        let (sink, frames) = socket.split();
        let mut speaker = Self { name, wav, fast, bar, sink, frames, heard: Vec::new() };
        let start = json!({
            "type": "start_request",
            "insightTypes": ["question", "action_item", "follow_up", "topic"],
            "config": {
                "meetingTitle": meeting,
                "speechRecognition": {"encoding": "LINEAR16", "sampleRateHertz": speaker.wav.rate()},
            },
            "speaker": {"userId": speaker.name, "name": speaker.name},
            "disconnectOnStopRequest": true,
            "hearsay": {"ack": true, "recorded": fast},
        });
        let sent = speaker.sink.send(Message::text(start.to_string())).await;
        sent.map_err(|error| closed(&speaker.name, error))?;
        let started = async {
            loop {
                let text = next(&mut speaker.frames, &speaker.name).await?;
                let frame = Frame::parse(&text);
                speaker.heard.push(text);
                match frame {
                    Frame::Started => return Ok(()),
                    Frame::Error { code, details, retry_after_ms } => {
                        return Err(ClientError::Refused {
                            speaker: speaker.name.clone(),
                            code,
                            details,
                            retry_after_ms,
                        });
                    }
                    _ => {}
                }
            }
        };
        let started = timeout(ANSWER_TIMEOUT, started).await;
        started.map_err(|_| ClientError::Silent { speaker: speaker.name.clone(), awaited: "start" })??;
        Ok(speaker)
    }

    /// Speaks to the end of the file, and listens to the end of the stream.
    pub(super) async fn stream(self, printer: &Printer<'_>) -> Result<(), TranscribeError> {
        let Self { name, wav, fast, bar, sink, frames, heard } = self;
        let (acknowledged, acknowledgements) = watch::channel(0);
        let listening = listen(&name, frames, heard, &bar, acknowledged, printer);
        let speaking = speak(&name, wav, fast, &bar, sink, acknowledgements);
        tokio::pin!(listening, speaking);
        let spoken = tokio::select! {
            heard = &mut listening => return heard.map(drop),
            spoken = &mut speaking => spoken,
        };
        // A connection that breaks under the writer has its reason, an error frame or a close code, in the reader.
        let rest = timeout(ANSWER_TIMEOUT, &mut listening).await;
        let (mut sink, short, mut frames) = match (spoken, rest) {
            (Ok((sink, short)), Ok(heard)) => (sink, short, heard?),
            (Err(_), Ok(heard)) => return heard.map(drop),
            (Err(error), Err(_)) => return Err(error),
            (Ok(_), Err(_)) => {
                return Err(ClientError::Silent { speaker: name.clone(), awaited: "end of the transcript" }.into());
            }
        };
        // All is said: whether the goodbye is answered makes no difference.
        let goodbye = async {
            let _ = sink.close().await;
            while let Some(Ok(_)) = frames.next().await {}
        };
        let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
        short.map_or(Ok(()), |error| Err(error.into()))
    }
}

async fn connect(server: &Server, meeting: &str) -> Result<Socket, ClientError> {
    let url = below(
        &server.url,
        socket_scheme(&server.url),
        &format!("/v1/realtime/insights/{}?source=hearsay", escape(meeting)),
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

/// Sends the file, then asks for the end. Returns the sink, which keeps the connection open, and what was wrong with the
/// rest of the file.
async fn speak(
    name: &str,
    mut wav: Wav,
    fast: bool,
    bar: &Bar,
    mut sink: SplitSink<Socket, Message>,
    mut acknowledgements: watch::Receiver<u64>,
) -> Result<(SplitSink<Socket, Message>, Option<WavError>), TranscribeError> {
    let rate = u64::from(wav.rate());
    let (begun, mut pace, mut sent_samples) = (Instant::now(), Pace::default(), 0);
    let short = loop {
        let chunk = match wav.next((rate * CHUNK_MS / 1_000) as usize) {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        // Milliseconds of the whole, so that rates which do not divide evenly do not drift.
        let before = sent_samples * 1_000 / rate;
        sent_samples += chunk.len() as u64 / 2;
        let ms = sent_samples * 1_000 / rate - before;
        if fast {
            let room = acknowledgements.wait_for(|&acknowledged| pace.fits(ms, acknowledged));
            match timeout(ANSWER_TIMEOUT, room).await {
                Ok(Ok(_)) => {}
                // The reader is done: it knows why.
                Ok(Err(_)) => break None,
                Err(_) => {
                    let error =
                        ClientError::Silent { speaker: name.to_owned(), awaited: "acknowledgement of the audio" };
                    return Err(error.into());
                }
            }
        } else {
            sleep_until(begun + pace.due(ms)).await;
        }
        sink.send(Message::binary(chunk)).await.map_err(|error| closed(name, error))?;
        pace.sent(ms);
        bar.sent(ms);
    };
    let stop = json!({"type": "stop_request"}).to_string();
    sink.send(Message::text(stop)).await.map_err(|error| closed(name, error))?;
    Ok((sink, short))
}

/// Prints what comes until both end messages have.
async fn listen(
    name: &str,
    mut frames: SplitStream<Socket>,
    heard: Vec<String>,
    bar: &Bar,
    acknowledged: watch::Sender<u64>,
    printer: &Printer<'_>,
) -> Result<SplitStream<Socket>, TranscribeError> {
    for text in heard {
        printer.frame(&text)?;
    }
    let (mut stopped, mut completed) = (false, false);
    while !(stopped && completed) {
        let text = next(&mut frames, name).await?;
        printer.frame(&text)?;
        match Frame::parse(&text) {
            Frame::Final(said) => {
                bar.quiet();
                printer.add(said)?;
            }
            Frame::Partial { speaker, text } => bar.heard(&speaker, &text),
            Frame::Acknowledged { ms } => acknowledged.send_modify(|newest| *newest = ms.max(*newest)),
            Frame::Stopped => stopped = true,
            Frame::Completed => completed = true,
            Frame::Error { code, details, retry_after_ms } => {
                return Err(ClientError::Refused { speaker: name.to_owned(), code, details, retry_after_ms }.into());
            }
            Frame::Started | Frame::Other => {}
        }
    }
    Ok(frames)
}

/// The next text frame.
async fn next(frames: &mut SplitStream<Socket>, name: &str) -> Result<String, ClientError> {
    loop {
        match frames.next().await {
            Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
            Some(Ok(Message::Close(frame))) => {
                let reason = match frame {
                    Some(CloseFrame { code, reason }) if reason.is_empty() => format!("code {}", u16::from(code)),
                    Some(CloseFrame { code, reason }) => format!("code {}, {reason}", u16::from(code)),
                    None => "no code: the server is going away".to_owned(),
                };
                return Err(ClientError::Closed { speaker: name.to_owned(), reason });
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(closed(name, error)),
            None => return Err(ClientError::Closed { speaker: name.to_owned(), reason: "connection lost".to_owned() }),
        }
    }
}

fn closed(name: &str, error: tungstenite::Error) -> ClientError {
    ClientError::Closed { speaker: name.to_owned(), reason: root_cause(&error) }
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
