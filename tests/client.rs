//! Clients as a stranger would write them: tokio-tungstenite and JSON, nothing of the server's code.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest, handshake::client::Request},
};

use crate::{Entry, Server};

/// Nothing a test waits for takes longer, however busy the machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A socket and everything it received, with when.
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub frames: Vec<(Instant, Value)>,
    /// The close frame's code, once there was one: 1005 for an empty frame, 1006 for none at all.
    pub closed: Option<u16>,
}

impl Client {
    /// Connects to `path` (`/v1/...`, perhaps with a query).
    pub async fn connect(server: &Server, path: &str) -> Result<Self> {
        Self::enter(&server.entry(), path).await
    }

    /// The same, without holding the server.
    pub async fn enter(entry: &Entry, path: &str) -> Result<Self> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let url = format!("{}{path}{separator}access_token={}", entry.url.replacen("http", "ws", 1), entry.token);
        Self::by(url.into_client_request()?).await
    }

    /// The same, in a trace.
    pub async fn traced(entry: &Entry, path: &str, traceparent: &str) -> Result<Self> {
        let url = format!("{}{path}?access_token={}", entry.url.replacen("http", "ws", 1), entry.token);
        let mut request = url.into_client_request()?;
        request.headers_mut().insert("traceparent", traceparent.parse()?);
        Self::by(request).await
    }

    async fn by(request: Request) -> Result<Self> {
        let (socket, _) = timeout(PATIENCE, connect_async(request)).await.context("no handshake")??;
        Ok(Self { socket, frames: Vec::new(), closed: None })
    }

    pub async fn send(&mut self, message: Message) -> Result<()> {
        timeout(PATIENCE, self.socket.send(message)).await.context("the server does not read")??;
        Ok(())
    }

    pub async fn send_json(&mut self, message: Value) -> Result<()> {
        self.send(Message::text(message.to_string())).await
    }

    /// The next frame; none when the socket is closed.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.context("no frame")? {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?;
                    self.frames.push((Instant::now(), frame.clone()));
                    return Ok(Some(frame));
                }
                Some(Ok(Message::Close(frame))) => self.closed = Some(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    self.closed.get_or_insert(1006);
                    return Ok(None);
                }
            }
        }
    }

    /// Reads until a frame for which `found` holds.
    pub async fn until(&mut self, what: &str, found: impl Fn(&Value) -> bool) -> Result<Value> {
        while let Some(frame) = self.next().await.with_context(|| format!("waiting for {what}"))? {
            if found(&frame) {
                return Ok(frame);
            }
        }
        bail!("the socket closed ({:?}) before {what}", self.closed)
    }

    /// Reads to the end.
    pub async fn drain(&mut self) -> Result<()> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    /// Sends the start request and waits for all three answers; answers the conversation id.
    pub async fn begin(&mut self, name: &str, rate: u32, more: Value) -> Result<String> {
        let mut start = json!({
            "type": "start_request",
            "insightTypes": [],
            "config": {"speechRecognition": {"encoding": "LINEAR16", "sampleRateHertz": rate}},
            "speaker": {"userId": format!("{name}@example.org"), "name": name},
        });
        if let (Some(start), Value::Object(more)) = (start.as_object_mut(), more) {
            start.extend(more);
        }
        self.send_json(start).await?;
        let started = self.until("recognition_started", |frame| inner(frame) == Some("recognition_started")).await?;
        Ok(started["message"]["data"]["conversationId"].as_str().context("a conversation id")?.to_owned())
    }

    /// Sends samples at the pace of speech in messages of `each`, reading what comes meanwhile. Answers when each message
    /// was sent.
    pub async fn speak(&mut self, samples: &[i16], rate: u32, each: Duration) -> Result<Vec<Instant>> {
        let length = (each.as_secs_f64() * f64::from(rate)) as usize;
        let began = Instant::now();
        let mut sent = Vec::new();
        for (index, chunk) in samples.chunks(length).enumerate() {
            // A microphone hands a buffer over when it is full.
            let due = began + each * (index as u32 + 1);
            while Instant::now() < due {
                tokio::select! {
                    () = sleep_until(due) => {}
                    frame = self.socket.next() => match frame {
                        Some(Ok(Message::Text(text))) => {
                            self.frames.push((Instant::now(), serde_json::from_str(&text)?));
                        }
                        Some(Ok(Message::Close(frame))) => bail!("closed while speaking: {frame:?}"),
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return Err(error.into()),
                        None => bail!("the socket ended while speaking"),
                    },
                }
            }
            let bytes: Vec<u8> = chunk.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            self.send(Message::binary(bytes)).await?;
            sent.push(Instant::now());
        }
        Ok(sent)
    }

    /// Reads what comes until `due`. False when the socket is closed, or broken, before.
    pub async fn read_until(&mut self, due: Instant) -> Result<bool> {
        loop {
            tokio::select! {
                () = sleep_until(due) => return Ok(true),
                frame = self.socket.next() => match frame {
                    Some(Ok(Message::Text(text))) => {
                        self.frames.push((Instant::now(), serde_json::from_str(&text)?));
                    }
                    Some(Ok(Message::Close(frame))) => {
                        self.closed = Some(frame.map_or(1005, |frame| frame.code.into()));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => {
                        self.closed.get_or_insert(1006);
                        return Ok(false);
                    }
                },
            }
        }
    }

    /// Sends samples as fast as the socket takes them, reading what comes meanwhile.
    pub async fn pour(&mut self, samples: &[i16], bytes: usize) -> Result<()> {
        let all: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        self.send_all(all.chunks(bytes).map(|chunk| (None, Message::binary(chunk.to_vec())))).await.map(drop)
    }

    /// Sends messages, each not before its time, reading what comes meanwhile. Answers when each was sent.
    pub async fn send_all(
        &mut self,
        messages: impl Iterator<Item = (Option<Instant>, Message)>,
    ) -> Result<Vec<Instant>> {
        let (mut sink, mut stream) = (&mut self.socket).split();
        let mut sending = std::pin::pin!(async {
            let mut sent = Vec::new();
            for (due, message) in messages {
                if let Some(due) = due {
                    sleep_until(due).await;
                }
                timeout(PATIENCE, sink.send(message)).await.context("not read")??;
                sent.push(Instant::now());
            }
            anyhow::Ok(sent)
        });
        loop {
            tokio::select! {
                sent = &mut sending => return sent,
                frame = stream.next() => match frame {
                    Some(Ok(Message::Text(text))) => self.frames.push((Instant::now(), serde_json::from_str(&text)?)),
                    Some(Ok(Message::Close(frame))) => bail!("closed while sending: {frame:?}"),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => bail!("the socket ended while sending"),
                },
            }
        }
    }

    /// Goes away without a close frame.
    pub async fn abandon(&mut self) {
        use tokio::io::AsyncWriteExt;
        // An error means that it is gone already.
        let _ = self.socket.get_mut().shutdown().await;
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    /// Stops and reads to the end.
    pub async fn stop(&mut self) -> Result<()> {
        self.send_json(json!({"type": "stop_request"})).await?;
        self.drain().await
    }

    /// The finals received, in order.
    pub fn finals(&self) -> Vec<Said> {
        self.frames.iter().filter_map(|(at, frame)| Said::of(*at, frame)).filter(|said| said.is_final).collect()
    }

    /// The positions received, in order: one for each durable event that was shown.
    pub fn positions(&self) -> Vec<(u32, u64)> {
        self.frames.iter().filter_map(|(_, frame)| position(frame)).collect()
    }

    /// Finished messages with where they stand: what must be the same for everybody.
    pub fn messages(&self) -> Vec<(String, String)> {
        self.frames
            .iter()
            .filter(|(_, frame)| frame["type"] == "message_response")
            .map(|(_, frame)| {
                let texts: Vec<_> = frame["messages"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|message| message["payload"]["content"].as_str())
                    .collect();
                (frame["position"].as_str().unwrap_or("none").to_owned(), texts.join(" "))
            })
            .collect()
    }
}

/// A caption.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    pub at: Instant,
    pub who: String,
    pub text: String,
    pub is_final: bool,
    /// Word and its start and end, in seconds of the stream.
    pub words: Vec<(String, f64, f64)>,
}

impl Said {
    pub fn of(at: Instant, frame: &Value) -> Option<Self> {
        if inner(frame) != Some("recognition_result") {
            return None;
        }
        let message = &frame["message"];
        let time = |value: &Value| {
            let part = |key: &str| value[key].as_str().and_then(|part| part.parse::<f64>().ok()).unwrap_or(0.0);
            part("seconds") + part("nanos") / 1e9
        };
        let words = message["payload"]["raw"]["alternatives"][0]["words"].as_array().cloned().unwrap_or_default();
        Some(Self {
            at,
            who: message["user"]["name"].as_str().unwrap_or_default().to_owned(),
            text: message["punctuated"]["transcript"].as_str().unwrap_or_default().to_owned(),
            is_final: message["isFinal"] == true,
            words: words
                .iter()
                .map(|word| {
                    let text = word["word"].as_str().unwrap_or_default().to_owned();
                    (text, time(&word["startTime"]), time(&word["endTime"]))
                })
                .collect(),
        })
    }
}

/// The type of a wrapped message.
pub fn inner(frame: &Value) -> Option<&str> {
    (frame["type"] == "message").then(|| frame["message"]["type"].as_str()).flatten()
}

/// The position a frame carries.
pub fn position(frame: &Value) -> Option<(u32, u64)> {
    let (epoch, offset) = frame["position"].as_str()?.split_once(':')?;
    Some((u32::from_str_radix(epoch, 16).ok()?, offset.parse().ok()?))
}

/// Samples of a mono 16-bit WAV file, and its rate.
pub fn wav(path: &Path) -> Result<(Vec<i16>, u32)> {
    let mut reader = hound::WavReader::open(path).with_context(|| path.display().to_string())?;
    let spec = reader.spec();
    anyhow::ensure!(spec.channels == 1 && spec.bits_per_sample == 16, "{} is no mono 16-bit file", path.display());
    Ok((reader.samples::<i16>().collect::<Result<_, _>>()?, spec.sample_rate))
}
