//! A recognizer that hears bytes: each second of 16 kHz audio is a final that says how many bytes came (and their sum, when
//! they are not silence), and so is what is left at a finalize or at the end. A fresh one needs the two chunks before the
//! watermark, as a decoder needs its pre-roll.

use std::{collections::VecDeque, pin::Pin, sync::Arc};

use hearsay_bus::{Batch, Bus};
use hearsay_protocol::{
    AudioFormat, ChunkNumber, Encoding, Event, Offset, Position, PublisherId, Restart, Seen, StreamTime, UtteranceId,
    event::Final,
};
use hearsay_rpc::{
    Ack, MarkerKind, Open, Request, Response,
    v1::{self, recognizer_server::Recognizer},
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

/// Bytes of a second.
const SECOND: u64 = 32_000;

#[derive(Clone)]
pub(crate) struct Scripted {
    pub(crate) bus: Arc<dyn Bus>,
}

type Responses = Pin<Box<dyn Stream<Item = Result<v1::RecognizeResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Recognizer for Scripted {
    type RecognizeStream = Responses;

    async fn recognize(
        &self,
        request: tonic::Request<Streaming<v1::RecognizeRequest>>,
    ) -> Result<tonic::Response<Responses>, Status> {
        let mut requests = request.into_inner();
        let first = requests.next().await.ok_or_else(|| Status::invalid_argument("empty"))??;
        let Request::Open(open) = Request::try_from(first).unwrap() else { panic!("open comes first") };
        heard(open.config.format)?;
        let (answers, responses) = mpsc::channel(16);
        let mut lane = Lane {
            bus: Arc::clone(&self.bus),
            chunk: open.restart.as_ref().map_or(0, |restart| restart.chunk.0),
            heard: open.restart.as_ref().map_or(0, |restart| restart.bytes_before),
            published: open.watermark.0 * SECOND / 1_000_000,
            open: *open,
            finals: 0,
            sum: 0,
            latest: VecDeque::new(),
            answers,
        };
        #[expect(clippy::disallowed_methods, reason = "ends with its call")]
        tokio::spawn(async move {
            lane.answer(Response::Opened).await;
            while let Some(Ok(request)) = requests.next().await {
                if !lane.take(Request::try_from(request).unwrap()).await {
                    return;
                }
            }
        });
        Ok(tonic::Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

fn heard(format: AudioFormat) -> Result<(), Status> {
    match format.encoding {
        Encoding::Flac => Err(Status::unimplemented("encoding FLAC is not heard here; LINEAR16 is accepted")),
        _ => Ok(()),
    }
}

struct Lane {
    bus: Arc<dyn Bus>,
    open: Open,
    chunk: u64,
    heard: u64,
    published: u64,
    finals: u64,
    /// Of the bytes that are not published.
    sum: u64,
    /// The latest chunks' numbers, and the bytes before them.
    latest: VecDeque<(u64, u64)>,
    answers: mpsc::Sender<Result<v1::RecognizeResponse, Status>>,
}

impl Lane {
    async fn answer(&self, response: Response) {
        let _ = self.answers.send(Ok(response.into())).await;
    }

    async fn take(&mut self, request: Request) -> bool {
        match request {
            Request::Open(_) => panic!("opened twice"),
            Request::Chunk { number, data } => {
                assert_eq!(number.0, self.chunk, "chunks are numbered through");
                self.chunk = number.0 + 1;
                self.latest.push_back((number.0, self.heard));
                if self.latest.len() > 2 {
                    self.latest.pop_front();
                }
                self.heard += data.len() as u64;
                if self.heard > self.published {
                    self.sum += data.iter().map(|&byte| u64::from(byte)).sum::<u64>();
                }
                if self.heard.saturating_sub(self.published) >= SECOND {
                    self.publish().await;
                }
            }
            Request::Marker(marker) => match marker.kind {
                MarkerKind::Finalize(id) => {
                    let position = self.publish().await;
                    self.answer(Response::Finalized { id, position }).await;
                }
                MarkerKind::End => {
                    let position = self.publish().await;
                    self.answer(Response::Ended { position }).await;
                    return false;
                }
                MarkerKind::Config(config) => {
                    if let Err(status) = heard(config.format) {
                        let _ = self.answers.send(Err(status)).await;
                        return false;
                    }
                    self.open.config = *config;
                }
                MarkerKind::Reanchor(_) => {}
            },
        }
        true
    }

    /// What was heard since the last time, if anything.
    async fn publish(&mut self) -> Position {
        let time = |bytes: u64| StreamTime(bytes * 1_000_000 / SECOND);
        self.heard = self.heard.max(self.published);
        let (from, through) = (time(self.published), time(self.heard));
        let Open { key, stream, participant, generation, origin, .. } = self.open.clone();
        let spoken = Final {
            sentiment: vec![-0.5],
            trace: None,
            stream,
            utterance: UtteranceId::after_cut(stream, from),
            participant,
            origin,
            start: from,
            end: through,
            text: match self.sum {
                0 => format!("Heard {} bytes.", self.heard - self.published),
                sum => format!("Heard {} bytes of {sum}.", self.heard - self.published),
            },
            language: "en-US".to_owned(),
            confidence: 0.9,
            words: Vec::new(),
        };
        let (first, before) = self.latest.front().copied().unwrap_or((self.chunk, self.heard));
        let restart = Restart {
            chunk: ChunkNumber(first),
            at: time(before),
            bytes_before: before,
            format: AudioFormat::default(),
            headers: Default::default(),
        };
        let events = if self.heard > self.published { vec![Event::Final(Arc::new(spoken))] } else { Vec::new() };
        let finals = events.len() as u64;
        let batch = Batch {
            publisher: PublisherId::Stream(stream),
            generation,
            from: from.0,
            through: through.0,
            events,
            restart: Some(restart.clone()),
            seen: Seen::NOTHING,
        };
        let Ok(published) = self.bus.publish(&key, batch).await else {
            return Position { epoch: hearsay_protocol::Epoch(0), offset: Offset::START };
        };
        self.finals += finals;
        (self.published, self.sum) = (self.heard, 0);
        let top = published.top;
        self.answer(Response::Ack(Ack {
            through_chunk: ChunkNumber(self.chunk),
            through,
            restart,
            top,
            finals: self.finals,
            from: None,
            events: Vec::new(),
        }))
        .await;
        published.position
    }
}
