//! Carries streams of audio to recognizers, and again to the next one when a recognizer dies.
//!
//! An [`Uplink`] owns one stream's audio until the log covers it. It claims the stream's place on the log before each
//! placement, so a recognizer it left behind is fenced, and replays from the restart point the claim gives. It never
//! touches client sockets, and it decodes nothing.
//!
//! Cost: one task, at most 30 s or 3 MB of audio (16 kHz LINEAR16: 32 KB a second, usually 1 to 10 s held) a stream.

mod anchor;
mod budget;
mod discovery;
mod driver;
pub mod metrics;
mod placement;
pub mod pool;
pub mod ring;
mod tls;
mod trace;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hearsay_bus::{Bus, Refusal};
use hearsay_protocol::{
    AudioFormat, ChunkNumber, ConversationKey, Position, StreamId, StreamTime, Timestamp,
    event::{Participant, SpeakerConfig},
};
use hearsay_rpc::MarkerKind;
pub use hearsay_rpc::{Health, Signal, SignalKind};
use hearsay_runtime::{HumanDuration, Tasks};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};

use crate::{budget::Budget, driver::Driver, pool::Pool};
pub use crate::{
    tls::{TlsError, UplinkTls},
    trace::StreamTrace,
};

/// How streams are carried.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The recognizers, as `http://HOST:PORT`, or `https://` where they speak TLS. A name stands for every address it has, and
    /// is looked up every 5 s.
    pub recognizers: Vec<String>,
    /// What `https://` recognizers are known by, and what this gateway shows them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<UplinkTls>,
    /// Audio of one stream that may wait to be sent; then its socket is not read.
    pub unsent: HumanDuration,
    /// Audio of one stream that the log need not cover yet; then its socket is not read.
    pub unacknowledged: HumanDuration,
    /// The same in bytes.
    pub unacknowledged_bytes: usize,
    /// Audio of all streams together that the log does not cover, in bytes; then no socket is read.
    pub budget_bytes: usize,
    /// How long a socket may stay unread before its client is told `overloaded`. Below the 30 s after which clients give
    /// up waiting for a pong.
    pub stall: HumanDuration,
    /// How long a recognizer has to accept a stream.
    pub open: HumanDuration,
    /// HTTP/2 pings to recognizers: how often, and how long an answer may take. Together they bound how long a frozen
    /// recognizer or a silent link goes unnoticed.
    pub ping_every: HumanDuration,
    pub ping_timeout: HumanDuration,
}

impl Default for Config {
    fn default() -> Self {
        let ms = |ms| HumanDuration::from(Duration::from_millis(ms));
        Self {
            recognizers: Vec::new(),
            tls: None,
            unsent: ms(2_000),
            unacknowledged: ms(30_000),
            unacknowledged_bytes: 3_000_000,
            budget_bytes: 256 << 20,
            stall: ms(10_000),
            open: ms(3_000),
            ping_every: ms(250),
            ping_timeout: ms(700),
        }
    }
}

impl Config {
    /// # Errors
    /// Says which value contradicts which.
    pub fn validate(&self) -> Result<(), String> {
        self.addresses()?;
        let least = [
            ("unsent", self.unsent, 100),
            ("unacknowledged", self.unacknowledged, 12_000),
            ("stall", self.stall, 1_000),
            ("open", self.open, 100),
            ("ping_every", self.ping_every, 50),
            ("ping_timeout", self.ping_timeout, 50),
        ];
        for (name, found, ms) in least {
            let least = Duration::from_millis(ms);
            if found.get() < least {
                return Err(format!("uplink.{name} is {found}; {} and more work", HumanDuration::from(least)));
            }
        }
        // An utterance of ten seconds at 48 kHz, and a message of the largest size beside it.
        if self.unacknowledged_bytes < 1_100_000 {
            return Err(format!(
                "uplink.unacknowledged_bytes is {}; 1100000 and more hold the longest utterance",
                self.unacknowledged_bytes
            ));
        }
        if self.unsent.get() >= self.unacknowledged.get() {
            return Err("uplink.unsent must be below uplink.unacknowledged".to_owned());
        }
        if self.stall.get() >= Duration::from_secs(30) {
            return Err("uplink.stall must be below 30s, when clients give up on the socket".to_owned());
        }
        if self.budget_bytes < self.unacknowledged_bytes {
            return Err("uplink.budget_bytes must hold at least one stream's unacknowledged_bytes".to_owned());
        }
        Ok(())
    }

    /// Where the recognizers are.
    ///
    /// # Errors
    /// Names the one that is no address, or that speaks TLS which nothing is known of.
    pub fn addresses(&self) -> Result<Vec<http::Uri>, String> {
        let address = |text: &String| {
            let uri: Option<http::Uri> = text.parse().ok();
            let uri = uri.filter(|uri| uri.authority().is_some() && matches!(uri.path(), "" | "/"));
            match uri.as_ref().and_then(http::Uri::scheme_str) {
                Some("http") => {}
                Some("https") if self.tls.is_some() => {}
                Some("https") => {
                    return Err(format!("uplink.recognizers: {text:?} takes uplink.tls.ca, to know the recognizer by"));
                }
                _ => {
                    return Err(format!(
                        "uplink.recognizers: {text:?} is no recognizer; http://HOST:PORT and https://HOST:PORT are accepted"
                    ));
                }
            }
            uri.ok_or_else(String::new)
        };
        self.recognizers.iter().map(address).collect()
    }
}

/// All uplinks of a gateway and the recognizers they use. Cheap to clone.
#[derive(Clone)]
pub struct Uplinks {
    config: Arc<Config>,
    bus: Arc<dyn Bus>,
    pool: Pool,
    budget: Budget,
    tasks: Tasks,
}

/// Who speaks.
#[derive(Debug, Clone)]
pub struct StreamSpec {
    pub key: ConversationKey,
    pub stream: StreamId,
    pub participant: Arc<Participant>,
    pub config: SpeakerConfig,
    /// A file sent faster than real time: no pace, no re-anchoring.
    pub recorded: bool,
    /// The stream began at another connection, and goes on here from the log's restart point: see [`Uplink::first`]. The
    /// format is the one the log knows from there on.
    pub resumed: bool,
    /// None: nothing of it is traced.
    pub trace: Option<StreamTrace>,
}

impl Uplinks {
    /// Connects to each recognizer in the background.
    ///
    /// # Errors
    /// When the files of [`Config::tls`] cannot be used.
    pub fn start(
        config: Config,
        recognizers: Vec<http::Uri>,
        bus: Arc<dyn Bus>,
        tasks: &Tasks,
    ) -> Result<Self, TlsError> {
        metrics::describe();
        let pool = Pool::start(&config, recognizers, tasks)?;
        let budget = Budget::new(config.budget_bytes);
        Ok(Self { config: Arc::new(config), bus, pool, budget, tasks: tasks.clone() })
    }

    /// Claims the stream and finds it a recognizer. Returns when one has accepted it.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing of the stream remains.
    pub async fn open(&self, stream: StreamSpec) -> Result<(Uplink, Events), OpenError> {
        if self.budget.is_tight() {
            return Err(OpenError::Overloaded { retry_after: Duration::from_secs(5) });
        }
        let (driver, opened) = Driver::open(
            Arc::clone(&self.config),
            Arc::clone(&self.bus),
            self.pool.clone(),
            self.budget.clone(),
            stream,
        )
        .await?;
        drop(self.tasks.spawn("uplink", driver.run()));
        let uplink = Uplink {
            origin: opened.origin,
            first: opened.first,
            format: opened.format,
            behind: opened.behind,
            finals: opened.finals,
            commands: opened.commands,
            ending: opened.ending,
            finished: opened.finished,
            next: AtomicU64::new(opened.first.0),
            stall: self.config.stall.get(),
        };
        Ok((uplink, Events { events: opened.events }))
    }

    /// At least one recognizer answers.
    pub fn is_ready(&self) -> bool {
        self.pool.is_ready()
    }
}

/// Why a stream was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("no recognizer has room for another stream; try again in {retry_after:?}")]
    Overloaded { retry_after: Duration },
    /// No recognizer hears this format or language; says which it hears.
    #[error("{0}")]
    Unsupported(String),
    #[error(transparent)]
    Refused(Refusal),
    #[error("no recognizer or no log answers: {0}")]
    Unavailable(String),
}

/// Why a stream that was open is not any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UplinkError {
    /// Audio could not be handed on for too long.
    #[error("recognition is overloaded: no audio could be handed on for {0:?}")]
    Stalled(Duration),
    /// The stream was claimed by another connection.
    #[error("the stream goes on from another connection")]
    Fenced,
    /// The conversation ended or was deleted.
    #[error(transparent)]
    Refused(Refusal),
    /// The recognizer cannot hear what the stream became.
    #[error("{0}")]
    Unsupported(String),
    /// A fault of ours: said in the log.
    #[error("{0}")]
    Broken(String),
    #[error("{limit} finalize requests wait already")]
    TooManyFinalizes { limit: usize },
    #[error("the stream is finished")]
    Finished,
}

/// One stream on its way. Dropping it without [`Uplink::finish`] ends the stream as if it had been called.
pub struct Uplink {
    origin: Timestamp,
    first: ChunkNumber,
    format: AudioFormat,
    behind: Duration,
    finals: Arc<AtomicU64>,
    commands: mpsc::Sender<Command>,
    /// Set when no more audio comes: how long the rest may take without progress.
    ending: watch::Sender<Option<Duration>>,
    finished: watch::Receiver<Option<Finished>>,
    next: AtomicU64,
    stall: Duration,
}

/// What the handle asks of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    Chunk { data: Bytes, arrived: Instant, waited: bool },
    Mark(MarkerKind),
    Hold,
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Where its last event stands; none when that was never learned.
    pub last: Option<Position>,
    /// Everything that was sent is on the log.
    pub complete: bool,
    pub error: Option<UplinkError>,
}

impl Uplink {
    /// The wall time of the stream's audio clock at zero.
    pub fn origin(&self) -> Timestamp {
        self.origin
    }

    /// The first chunk this takes: 0, or where a stream goes on.
    pub fn first(&self) -> ChunkNumber {
        self.first
    }

    /// What that chunk's bytes are.
    pub fn format(&self) -> AudioFormat {
        self.format
    }

    /// How far the stream's audio clock was behind the wall when it was opened: audio that its client may have kept.
    pub fn behind(&self) -> Duration {
        self.behind
    }

    /// Counts the finals of what went through here.
    pub fn finals(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.finals)
    }

    /// The connection is gone and its client may return, perhaps to another gateway: that no audio comes says nothing about
    /// the speaker, so no utterance is ended for it.
    pub async fn hold(&self) {
        // Past the stall limit nothing is ended for want of audio either.
        let _ = self.send(Command::Hold).await;
    }

    /// Takes the next chunk. Waits while the stream has too much audio under way: the caller's socket is not read then.
    ///
    /// # Errors
    /// [`UplinkError::Stalled`] past the stall limit; otherwise the reason the stream ended.
    pub async fn chunk(&self, data: Bytes) -> Result<ChunkNumber, UplinkError> {
        let arrived = Instant::now();
        match self.commands.try_send(Command::Chunk { data, arrived, waited: false }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(self.why_ended()),
            Err(mpsc::error::TrySendError::Full(mut command)) => {
                if let Command::Chunk { waited, .. } = &mut command {
                    *waited = true;
                }
                self.send(command).await?;
            }
        }
        Ok(ChunkNumber(self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Asks for everything so far to be decoded and on the log; answered by [`UplinkEvent::Finalized`].
    ///
    /// # Errors
    /// As [`Uplink::chunk`].
    pub async fn finalize(&self, id: String) -> Result<(), UplinkError> {
        self.send(Command::Mark(MarkerKind::Finalize(id))).await
    }

    /// The audio that follows has this configuration.
    ///
    /// # Errors
    /// As [`Uplink::chunk`].
    pub async fn modify(&self, config: SpeakerConfig) -> Result<(), UplinkError> {
        self.send(Command::Mark(MarkerKind::Config(Box::new(config)))).await
    }

    /// No more audio: waits for what was said last to be on the log, for `patience` at most without any more of it getting
    /// there. Nothing of the stream remains then.
    pub async fn finish(self, patience: Duration) -> Finished {
        let Self { commands, ending, mut finished, .. } = self;
        ending.send_replace(Some(patience));
        // The driver takes what waits, and then this for the end.
        drop(commands);
        let over = finished.wait_for(Option::is_some).await.ok().and_then(|finished| finished.clone());
        over.unwrap_or(Finished { last: None, complete: false, error: Some(UplinkError::Finished) })
    }

    async fn send(&self, command: Command) -> Result<(), UplinkError> {
        match timeout(self.stall, self.commands.send(command)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.why_ended()),
            Err(_) => Err(UplinkError::Stalled(self.stall)),
        }
    }

    fn why_ended(&self) -> UplinkError {
        let finished = self.finished.borrow();
        finished.as_ref().and_then(|finished| finished.error.clone()).unwrap_or(UplinkError::Finished)
    }
}

/// What a stream's uplink learns. The newest of [`UplinkEvent::Acked`] and [`UplinkEvent::Health`] replaces an unread one.
pub struct Events {
    events: mpsc::Receiver<UplinkEvent>,
}

impl Events {
    /// The next event; none when the stream is over. Safe to drop between events.
    pub async fn next(&mut self) -> Option<UplinkEvent> {
        self.events.recv().await
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum UplinkEvent {
    /// The log covers all chunks before `chunk`, and the stream up to `through`. Who goes on with the stream needs it from
    /// `restart` on.
    Acked {
        chunk: ChunkNumber,
        restart: ChunkNumber,
        through: StreamTime,
    },
    /// Everything before the request `id` is on the log, up to `position`.
    Finalized {
        id: String,
        position: Position,
    },
    /// A finalize was refused: too many wait.
    FinalizeRefused {
        id: String,
        error: UplinkError,
    },
    /// Every 5 s and on change: `heard` is what this end has taken, `covered` what the log has; the rest is the recognizer's.
    Health(Health),
    Signal(Signal),
    /// The stream goes on at another recognizer, from this chunk.
    Moved {
        chunk: ChunkNumber,
    },
    /// The stream is over by a fault; nothing follows.
    Failed(UplinkError),
}
