//! A speaker's side of the protocol as a state machine. Knows no socket, no clock, no task.
//!
//! ```text
//! open ──start──▶ starting ──started──▶ listening ──stop──▶ stopping ──finished──▶ ending ──1 s──▶ closed
//!   ▲                 │ refused            ▲                    │ disconnectOnStopRequest:false
//!   └─────────────────┘                    └───start── idle ◀───┘
//! ```
//!
//! A connection that breaks ends its stream, unless its client can return to it: then the stream is left as it is for a while
//! ([`Effect::Part`]), and whoever goes on with it, perhaps at another gateway, finds it uncut.
//!
//! The caller carries out the effects of one input in order before it gives the next, and does not read the socket while
//! [`Session::wants_input`] is false. So nothing overtakes: audio sent right behind a start is heard, a stop comes after
//! the audio before it. [`Effect::Start`] is answered by [`Input::Started`], [`Effect::Finish`] by [`Input::Finished`].

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hearsay_bus::Refusal;
use hearsay_protocol::{
    AudioFormat, ChunkNumber, CloseCode, ConversationId, Encoding, Position, StreamId, StreamTime, TraceId,
    client::{ClientError, ClientMessage, ErrorCode, Extension, Secret, StartRequest},
    event::{SpeakerConfig, StreamEnd, Tracker},
};
use hearsay_uplink::{Health, Signal, SignalKind, UplinkError, UplinkEvent};
use jiff::tz::TimeZone;

use crate::request::Source;

/// At most this often is audio acknowledged to the client.
const ACK_EVERY: Duration = Duration::from_millis(250);
/// What a client is told to wait when nothing says how long an overload lasts.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Most audio a returning client is taken to have kept: more than the memory of any that we know.
const MOST_BEHIND: Duration = Duration::from_secs(600);
/// What the smallest chunk counts as, in bytes: 4 ms at 16 kHz. Less is no way to send audio, and costs as much.
const LEAST_CHUNK: usize = 128;
/// Client inputs kept while a start or a stop is carried out. The socket is not read then, so there is at most one.
const MAX_KEPT: usize = 16;

/// What a session keeps to.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// A socket on which nobody starts is closed after this.
    pub(crate) open_idle: Duration,
    /// How long a client may take to close first, after the end messages.
    pub(crate) close_grace: Duration,
    /// Audio that may run ahead of real time.
    pub(crate) pace_burst: Duration,
    /// Text messages at once, and those regained in a second.
    pub(crate) requests_burst: u32,
    pub(crate) requests_per_second: u32,
    /// How long a client may take to renew a token that has expired.
    pub(crate) token_grace: Duration,
    /// Those of the account, for who asks for all.
    pub(crate) trackers: Arc<[Tracker]>,
}

impl Limits {
    /// Spells out what a client asks for by asking for all.
    fn complete(&self, config: &mut SpeakerConfig) {
        if config.enable_all_trackers {
            let fresh = |it: &&Tracker| !config.trackers.iter().any(|known| known.name == it.name);
            let fresh: Vec<_> = self.trackers.iter().filter(fresh).cloned().collect();
            config.trackers.extend(fresh);
        }
    }
}

/// What the client's token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) publish: bool,
    pub(crate) recorded: bool,
    /// When it expires.
    pub(crate) until: Instant,
}

#[derive(Debug)]
pub(crate) enum Input {
    /// A text message, parsed.
    Message(Result<ClientMessage, ClientError>),
    /// A WebSocket ping, with what its answer repeats.
    Ping(Bytes),
    /// A WebSocket pong, asked for or not.
    Pong,
    Audio(Bytes),
    Started(Result<Started, StartFailure>),
    /// `complete`: everything that was said is on the log, or nobody is left to read it there.
    Finished {
        complete: bool,
    },
    Stream(UplinkEvent),
    /// A newer token for the stream under way, for its client to return with.
    ResumeRenewed(String),
    /// The answer to [`Effect::CheckToken`].
    TokenChecked(Result<Rights, ClientError>),
    /// The conversation is over, by the log's word.
    ConversationEnded,
    /// The client closed, with this code.
    Closed(Option<u16>),
    /// The connection broke.
    Lost,
    /// This side cut the connection, and has said so.
    Cut(Reason),
    /// The client sent something that is no WebSocket message.
    Violation(CloseCode, ClientError),
    /// This process ends. Who speaks is handed over at the end of an utterance, or at this time.
    Drain {
        until: Instant,
    },
    /// Time has passed: [`Session::deadline`].
    Tick,
}

/// A stream is under way.
#[derive(Debug, Clone)]
pub(crate) struct Started {
    pub(crate) conversation: ConversationId,
    pub(crate) stream: StreamId,
    /// What its utterances are traced by.
    pub(crate) trace: TraceId,
    /// What a returning client shows to go on with this stream.
    pub(crate) resume: String,
    /// The stream is one that goes on.
    pub(crate) resumed: Option<Resumed>,
}

/// Where a stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resumed {
    /// The first chunk that is missing.
    pub(crate) chunk: ChunkNumber,
    /// What its bytes are.
    pub(crate) format: AudioFormat,
    /// Audio that the client may have kept, and sends at once.
    pub(crate) behind: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StartFailure {
    Overloaded {
        retry_after: Duration,
    },
    Unsupported(String),
    Unavailable(String),
    /// There is no such stream to go on with; a new one may begin.
    NoResume(ClientError),
}

#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// Finds or opens the meeting's conversation and begins a stream in it.
    Start(Box<StartRequest>),
    /// Results flow to this socket from here on.
    Join,
    /// What is asked beside the configuration holds from here on.
    Opt(Box<StartRequest>),
    /// For the stream; dropped when there is none.
    Audio(Bytes),
    /// The stream, and what this socket is shown, are as `config` says from here on. `told` is sent once the recognizer has
    /// taken that, and never when it refuses.
    Configure {
        config: Box<SpeakerConfig>,
        told: Vec<Reply>,
    },
    Finalize(String),
    /// No more audio. Done when the stream's last final has passed the feed and its end is on the log.
    Finish(StreamEnd),
    /// The connection is gone, its client may return. Answered like [`Effect::Finish`], when somebody else goes on with the
    /// stream, or nobody did in time and it was finished.
    Part,
    CheckToken(Secret),
    Send(Reply),
    /// The WebSocket answer to a WebSocket ping.
    Pong(Bytes),
    /// Behind everything sent.
    Close(CloseCode),
    /// The client is gone or said goodbye: nothing more is for it.
    Hangup,
}

/// What the client is told, apart from what happens in its meeting.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    StartedListening,
    ConversationCreated(ConversationId),
    RecognitionStarted(ConversationId),
    RecognitionStopped,
    ConversationCompleted(ConversationId),
    SessionModified(AudioFormat),
    Pong,
    Error { error: ClientError, retry_after: Option<Duration> },
    AudioAck(Ack),
    ResumeToken { token: String, stream: StreamId },
    Resumed { chunk: ChunkNumber },
    Finalized { id: String, position: Position },
    Health { health: Health, trace: TraceId },
    Signal(Signal),
}

/// How far the log covers a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    /// All chunks before it.
    pub(crate) chunk: ChunkNumber,
    /// A client that returns is asked for none before this.
    pub(crate) restart: ChunkNumber,
    pub(crate) through: StreamTime,
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// It is not.
    Running,
    Stopped,
    ConversationEnded,
    ClosedByClient,
    Lost,
    SlowReader,
    Idle,
    Drained,
    TooFast,
    TooLarge,
    Violation,
    TokenExpired,
    Overloaded,
    Fenced,
    Unavailable,
    /// Stopped, but the last words were not recognized in time.
    Unfinished,
    Internal,
}

/// Where in a stream its client was asked to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handover {
    Silence,
    UtteranceEnd,
    Pause,
    /// Time was up.
    Word,
}

impl Handover {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::UtteranceEnd => "utterance_end",
            Self::Pause => "pause",
            Self::Word => "word",
        }
    }
}

/// Whose fault an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Blame {
    Nobody,
    Client,
    Recognizer,
    Us,
}

impl Reason {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::ConversationEnded => "conversation_ended",
            Self::ClosedByClient => "closed_by_client",
            Self::Lost => "lost",
            Self::SlowReader => "slow_reader",
            Self::Idle => "idle",
            Self::Drained => "drained",
            Self::TooFast => "too_fast",
            Self::TooLarge => "too_large",
            Self::Violation => "violation",
            Self::TokenExpired => "token_expired",
            Self::Overloaded => "overloaded",
            Self::Fenced => "fenced",
            Self::Unavailable => "unavailable",
            Self::Unfinished => "unfinished",
            Self::Internal => "internal",
        }
    }

    /// The client may go on with its stream over another connection: it did nothing wrong, or can do better.
    fn may_return(self) -> bool {
        matches!(self, Self::Lost | Self::ClosedByClient | Self::SlowReader | Self::Drained | Self::TokenExpired)
    }

    pub(crate) fn blame(self) -> Blame {
        match self {
            Self::Running | Self::Stopped | Self::ConversationEnded | Self::ClosedByClient | Self::Idle => {
                Blame::Nobody
            }
            Self::Drained => Blame::Nobody,
            Self::Lost | Self::SlowReader | Self::TooFast | Self::TooLarge | Self::Violation => Blame::Client,
            Self::TokenExpired | Self::Fenced => Blame::Client,
            Self::Overloaded | Self::Unavailable | Self::Unfinished => Blame::Recognizer,
            Self::Internal => Blame::Us,
        }
    }
}

impl Blame {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Client => "client",
            Self::Recognizer => "recognizer",
            Self::Us => "us",
        }
    }
}

/// What became of a session, for its line in the log.
#[derive(Debug, Clone)]
pub(crate) struct Story {
    pub(crate) starts: u32,
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
    /// Chunks that came when nothing listened.
    pub(crate) dropped: u64,
    pub(crate) refused: u32,
    pub(crate) conversation: Option<ConversationId>,
    pub(crate) stream: Option<StreamId>,
    pub(crate) reason: Reason,
    /// Where a drain found the stream under way.
    pub(crate) handover: Option<Handover>,
}

pub(crate) struct Session {
    limits: Limits,
    rights: Rights,
    /// The client was told that its token has expired.
    expired: bool,
    source: Source,
    phase: Phase,
    requests: Bucket,
    /// Client inputs that came while a start or a stop was carried out.
    kept: VecDeque<Input>,
    story: Story,
}

/// Everything a stream under way is known by.
#[derive(Debug)]
struct Live {
    start: Box<StartRequest>,
    started: Started,
    pace: Pace,
    acks: Acks,
    /// In the middle of an utterance, by what the recognizer said last.
    speaking: bool,
    leaving: Option<Leaving>,
}

/// A drain waits for the end of an utterance.
#[derive(Debug, Clone, Copy)]
struct Leaving {
    /// From here on a pause is as good.
    soon: Instant,
    until: Instant,
}

impl Live {
    /// What was asked to change, which is answered when it has.
    fn modified(&self) -> Effect {
        let config = &self.start.config;
        Effect::Configure { config: Box::new(config.clone()), told: vec![Reply::SessionModified(config.format)] }
    }
}

#[derive(Debug)]
enum Phase {
    Open {
        since: Instant,
    },
    Starting {
        start: Box<StartRequest>,
        back: Back,
    },
    Listening(Box<Live>),
    Stopping {
        then: Then,
        conversation: ConversationId,
    },
    /// Stopped, and may start again.
    Idle {
        until: Instant,
    },
    /// All is said; the client may close first.
    Ending {
        until: Instant,
    },
    Closed,
}

/// Where a refused start leads.
#[derive(Debug, Clone, Copy)]
enum Back {
    Open { since: Instant },
    Idle { until: Instant },
}

/// What follows a finished stream.
#[derive(Debug, Clone, Copy)]
enum Then {
    EndAndClose,
    EndAndIdle {
        timeout: Duration,
    },
    Idle {
        timeout: Duration,
    },
    Close(CloseCode),
    Hangup,
    /// All is said.
    Nothing,
}

impl Session {
    pub(crate) fn new(limits: Limits, rights: Rights, source: Source, now: Instant) -> Self {
        let requests = Bucket::new(f64::from(limits.requests_burst), f64::from(limits.requests_per_second), now);
        Self {
            limits,
            rights,
            expired: false,
            source,
            phase: Phase::Open { since: now },
            requests,
            kept: VecDeque::new(),
            story: Story {
                starts: 0,
                chunks: 0,
                bytes: 0,
                dropped: 0,
                refused: 0,
                conversation: None,
                stream: None,
                reason: Reason::Running,
                handover: None,
            },
        }
    }

    /// Whether the socket may be read.
    pub(crate) fn wants_input(&self) -> bool {
        !matches!(self.phase, Phase::Starting { .. } | Phase::Stopping { .. })
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    pub(crate) fn story(&self) -> &Story {
        &self.story
    }

    /// When to give [`Input::Tick`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let phase = self.phase_deadline();
        if matches!(self.phase, Phase::Starting { .. } | Phase::Stopping { .. } | Phase::Closed) {
            return None;
        }
        phase.into_iter().chain([self.token_deadline()]).min()
    }

    fn phase_deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Open { since } => Some(*since + self.limits.open_idle),
            Phase::Idle { until } | Phase::Ending { until } => Some(*until),
            Phase::Listening(live) => {
                live.acks.due().into_iter().chain(live.leaving.map(|leaving| leaving.until)).min()
            }
            Phase::Starting { .. } | Phase::Stopping { .. } | Phase::Closed => None,
        }
    }

    /// When the token expires, or its client has had its time to renew it.
    fn token_deadline(&self) -> Instant {
        self.rights.until + if self.expired { self.limits.token_grace } else { Duration::ZERO }
    }

    /// Takes one input and appends what is to be done about it.
    pub(crate) fn handle(&mut self, input: Input, now: Instant, effects: &mut VecDeque<Effect>) {
        self.take(input, now, effects);
        while self.wants_input()
            && let Some(kept) = self.kept.pop_front()
        {
            self.take(kept, now, effects);
        }
    }

    fn take(&mut self, input: Input, now: Instant, effects: &mut VecDeque<Effect>) {
        if self.is_closed() {
            return;
        }
        match input {
            Input::Message(_) | Input::Audio(_) | Input::Closed(_) | Input::Violation(..) if !self.wants_input() => {
                if self.kept.len() < MAX_KEPT {
                    self.kept.push_back(input);
                } else if let Input::Audio(_) = input {
                    self.story.dropped += 1;
                }
            }
            Input::Message(message) => self.message(message, now, effects),
            // The connection is given up, and its stream waits for another.
            Input::Ping(_) | Input::Pong if matches!(self.phase, Phase::Stopping { then: Then::Nothing, .. }) => {}
            Input::Ping(payload) => {
                if self.admitted(now, effects) {
                    effects.push_back(Effect::Pong(payload));
                }
            }
            Input::Pong => {
                self.admitted(now, effects);
            }
            Input::Audio(chunk) => self.audio(chunk, now, effects),
            Input::Started(answer) => self.started(answer, now, effects),
            Input::Finished { complete } => self.finished(complete, now, effects),
            Input::Stream(event) => self.stream_event(event, now, effects),
            Input::ResumeRenewed(token) => {
                if let Phase::Listening(live) = &self.phase
                    && live.start.extension.ack
                {
                    effects.push_back(Effect::Send(Reply::ResumeToken { token, stream: live.started.stream }));
                }
            }
            Input::TokenChecked(Ok(rights)) => (self.rights, self.expired) = (rights, false),
            Input::TokenChecked(Err(error)) => self.refuse(error, effects),
            Input::ConversationEnded => self.conversation_ended(effects),
            Input::Closed(code) => {
                let clean = code == Some(1000);
                let how = if clean { StreamEnd::Stopped { linger: Duration::ZERO } } else { StreamEnd::Lost };
                self.end(Reason::ClosedByClient, how, Then::Hangup, effects);
            }
            Input::Lost => self.end(Reason::Lost, StreamEnd::Lost, Then::Hangup, effects),
            Input::Cut(reason) => self.end(reason, StreamEnd::Lost, Then::Hangup, effects),
            Input::Violation(code, error) => {
                let reason = if error.code == ErrorCode::TooLarge { Reason::TooLarge } else { Reason::Violation };
                self.refuse(error, effects);
                self.end(reason, StreamEnd::Lost, Then::Close(code), effects);
            }
            Input::Drain { until } => self.drain(until, now, effects),
            Input::Tick => self.tick(now, effects),
        }
    }

    /// Whether the client may send one more message or ping by now; if not, it is done with.
    fn admitted(&mut self, now: Instant, effects: &mut VecDeque<Effect>) -> bool {
        let admitted = self.requests.take(1.0, now);
        if !admitted {
            let details = format!(
                "more than {} messages at once; {} a second are accepted",
                self.limits.requests_burst, self.limits.requests_per_second
            );
            self.refuse(ClientError::new(ErrorCode::TooFast, details), effects);
            self.end(Reason::TooFast, StreamEnd::Lost, Then::Close(CloseCode::Policy), effects);
        }
        admitted
    }

    fn message(&mut self, message: Result<ClientMessage, ClientError>, now: Instant, effects: &mut VecDeque<Effect>) {
        if !self.admitted(now, effects) {
            return;
        }
        let message = match message {
            Ok(message) => message,
            Err(error) => return self.refuse(error, effects),
        };
        // After the end messages nothing is begun any more; symbl-js may still ping.
        if let Phase::Ending { .. } = self.phase {
            if message == ClientMessage::Ping {
                effects.push_back(Effect::Send(Reply::Pong));
            }
            return;
        }
        match message {
            ClientMessage::Ping => effects.push_back(Effect::Send(Reply::Pong)),
            ClientMessage::Token { token } => effects.push_back(Effect::CheckToken(token)),
            ClientMessage::Start(start) => self.start(start, effects),
            other => match &mut self.phase {
                Phase::Listening(live) => match other {
                    ClientMessage::Stop => self.stop(effects),
                    ClientMessage::Modify(modify) => match modify.applied_to(live.start.config.format) {
                        Ok(format) => {
                            live.start.config.format = format;
                            live.pace.set_format(&live.start.config);
                            effects.push_back(live.modified());
                        }
                        Err(error) => self.refuse(error, effects),
                    },
                    ClientMessage::Update(update) => {
                        update.apply_to(&mut live.start.config);
                        self.limits.complete(&mut live.start.config);
                        effects.push_back(live.modified());
                    }
                    ClientMessage::Finalize { id } => effects.push_back(Effect::Finalize(id)),
                    ClientMessage::Ping | ClientMessage::Token { .. } | ClientMessage::Start(_) => {}
                },
                _ => {
                    let name = match other {
                        ClientMessage::Stop => "stop_request",
                        ClientMessage::Modify(_) => "modify_request",
                        ClientMessage::Update(_) => "update_request",
                        _ => "finalize",
                    };
                    let details = format!("type {name:?} came before a start_request; start_request is accepted");
                    self.refuse(ClientError::new(ErrorCode::NotStarted, details), effects);
                }
            },
        }
    }

    fn start(&mut self, mut start: Box<StartRequest>, effects: &mut VecDeque<Effect>) {
        self.limits.complete(&mut start.config);
        let missing = if !self.rights.publish {
            Some("the token does not allow speaking (publish)")
        } else if start.extension.recorded && !self.rights.recorded {
            Some("hearsay.recorded is true; the token does not allow it (publish:recorded), false is accepted")
        } else {
            None
        };
        if let Some(details) = missing {
            return self.refuse(ClientError::new(ErrorCode::Forbidden, details), effects);
        }
        if let Some(name) = start.config.time_zone.as_deref().filter(|name| TimeZone::get(name).is_err()) {
            let details = format!(
                "hearsay.timeZone {name:?} is not known; the IANA name of a time zone, for instance Europe/Berlin, is \
                 accepted"
            );
            return self.refuse(ClientError::new(ErrorCode::InvalidRequest, details), effects);
        }
        let back = match &mut self.phase {
            Phase::Open { since } => Back::Open { since: *since },
            Phase::Idle { until } => Back::Idle { until: *until },
            Phase::Listening(_) if start.extension.resume.is_some() => {
                let details =
                    "hearsay.resume came while a stream is under way; it is accepted before, or on another connection";
                return self.refuse(ClientError::new(ErrorCode::InvalidRequest, details), effects);
            }
            Phase::Listening(live) => {
                // A reconnect race of a client: the stream goes on, with what is asked now. Who speaks stays.
                let recorded = live.start.extension.recorded;
                let changed = live.start.config != start.config;
                let opts = beside(&live.start) != beside(&start);
                live.start = start;
                live.start.extension.recorded = recorded;
                if opts {
                    effects.push_back(Effect::Opt(live.start.clone()));
                }
                let told = welcome(&live.started, &live.start.extension);
                if changed {
                    live.pace.set_format(&live.start.config);
                    effects.push_back(Effect::Configure { config: Box::new(live.start.config.clone()), told });
                } else {
                    effects.extend(told.into_iter().map(Effect::Send));
                }
                return;
            }
            Phase::Starting { .. } | Phase::Stopping { .. } | Phase::Ending { .. } | Phase::Closed => return,
        };
        effects.push_back(Effect::Start(start.clone()));
        self.phase = Phase::Starting { start, back };
    }

    fn started(&mut self, answer: Result<Started, StartFailure>, now: Instant, effects: &mut VecDeque<Effect>) {
        let Phase::Starting { mut start, back } = std::mem::replace(&mut self.phase, Phase::Closed) else {
            unreachable!("the answer to a start comes while starting")
        };
        let failure = match answer {
            Ok(started) => {
                self.story.starts += 1;
                self.story.conversation = Some(started.conversation);
                self.story.stream = Some(started.stream);
                effects.extend(welcome(&started, &start.extension).into_iter().map(Effect::Send));
                effects.push_back(Effect::Join);
                let behind = started.resumed.map_or(Duration::ZERO, |resumed| resumed.behind.min(MOST_BEHIND));
                if let Some(Resumed { chunk, format, .. }) = started.resumed {
                    start.config.format = format;
                    effects.push_back(Effect::Send(Reply::Resumed { chunk }));
                }
                let pace = Pace::new(&start, self.limits.pace_burst, behind, now);
                let acks = Acks::default();
                let live = Live { start, started, pace, acks, speaking: false, leaving: None };
                self.phase = Phase::Listening(Box::new(live));
                return;
            }
            Err(failure) => failure,
        };
        self.phase = match back {
            Back::Open { since } => Phase::Open { since },
            Back::Idle { until } => Phase::Idle { until },
        };
        match failure {
            StartFailure::Unsupported(what) => self.refuse(unsupported(what), effects),
            StartFailure::NoResume(error) => self.refuse(error, effects),
            StartFailure::Overloaded { retry_after } => {
                let details = "no recognizer has room for another stream";
                self.refuse_for(ClientError::new(ErrorCode::Overloaded, details), retry_after, effects);
                self.end(Reason::Overloaded, StreamEnd::Lost, Then::Close(CloseCode::Overloaded), effects);
            }
            StartFailure::Unavailable(what) => {
                self.refuse_for(ClientError::new(ErrorCode::Internal, what), RETRY_AFTER, effects);
                self.end(Reason::Unavailable, StreamEnd::Lost, Then::Close(CloseCode::Overloaded), effects);
            }
        }
    }

    fn audio(&mut self, chunk: Bytes, now: Instant, effects: &mut VecDeque<Effect>) {
        let Phase::Listening(live) = &mut self.phase else {
            self.story.dropped += 1;
            return;
        };
        if chunk.is_empty() {
            self.admitted(now, effects);
            return;
        }
        if !live.start.extension.recorded && !live.pace.admit(chunk.len(), now) {
            let details = format!(
                "audio runs ahead of real time by more than {:?}; live audio at the speed it is spoken is accepted, \
                 or a recording with hearsay.recorded",
                self.limits.pace_burst
            );
            self.refuse(ClientError::new(ErrorCode::TooFast, details), effects);
            return self.end(Reason::TooFast, StreamEnd::Lost, Then::Close(CloseCode::Policy), effects);
        }
        self.story.chunks += 1;
        self.story.bytes += chunk.len() as u64;
        effects.push_back(Effect::Audio(chunk));
    }

    fn stop(&mut self, effects: &mut VecDeque<Effect>) {
        let Phase::Listening(live) = &self.phase else { return };
        let timeout = live.start.idle_timeout;
        let then = if live.start.disconnect_on_stop || timeout.is_zero() {
            Then::EndAndClose
        } else {
            Then::EndAndIdle { timeout }
        };
        let linger = if let Then::EndAndIdle { timeout } = then { timeout } else { Duration::ZERO };
        self.end(Reason::Stopped, StreamEnd::Stopped { linger }, then, effects);
    }

    /// Asks the client to return: at once, unless somebody is speaking, whose words are not to be split between two streams.
    fn drain(&mut self, until: Instant, now: Instant, effects: &mut VecDeque<Effect>) {
        match &mut self.phase {
            Phase::Listening(live) if live.speaking && now < until => {
                let soon = now + until.saturating_duration_since(now) / 2;
                live.leaving = Some(Leaving { soon, until });
            }
            Phase::Listening(_) => self.hand_over(Handover::Silence, effects),
            // The answer comes first, and then this again.
            Phase::Starting { .. } => self.kept.push_back(Input::Drain { until }),
            _ => self.leave(effects),
        }
    }

    fn hand_over(&mut self, at: Handover, effects: &mut VecDeque<Effect>) {
        self.story.handover = Some(at);
        self.leave(effects);
    }

    fn leave(&mut self, effects: &mut VecDeque<Effect>) {
        self.end(Reason::Drained, StreamEnd::Lost, Then::Close(CloseCode::Return), effects);
    }

    /// Ends the stream, if there is one, and does what `then` says; at once when there is none.
    fn end(&mut self, reason: Reason, how: StreamEnd, mut then: Then, effects: &mut VecDeque<Effect>) {
        if let Phase::Listening(live) = &self.phase {
            // Nothing begins here any more.
            if live.leaving.is_some() && matches!(then, Then::EndAndIdle { .. } | Then::Idle { .. }) {
                then = Then::Close(CloseCode::Return);
            }
            let conversation = live.started.conversation;
            let returns = live.start.extension.ack && how == StreamEnd::Lost && reason.may_return();
            self.story.reason = reason;
            match then {
                Then::Hangup if returns => effects.push_back(Effect::Hangup),
                Then::Close(code) if returns => effects.push_back(Effect::Close(code)),
                _ => {
                    self.phase = Phase::Stopping { then, conversation };
                    effects.push_back(Effect::Finish(how));
                    return;
                }
            }
            // The client has heard all it will hear here, so it returns while the stream waits for it.
            self.phase = Phase::Stopping { then: Then::Nothing, conversation };
            effects.push_back(Effect::Part);
            return;
        }
        match &mut self.phase {
            // A stop is carried out; this is said while it is, and is what follows it unless the client is owed less.
            Phase::Stopping { then: planned, .. } => match then {
                Then::Hangup if !matches!(planned, Then::Nothing) => {
                    self.story.reason = reason;
                    *planned = Then::Hangup;
                }
                Then::Close(_) if matches!(planned, Then::EndAndIdle { .. } | Then::Idle { .. }) => *planned = then,
                _ => {}
            },
            // The answer comes first, and then this again.
            Phase::Starting { .. } => {
                if let Then::Hangup = then {
                    self.kept.push_back(Input::Lost);
                }
            }
            _ => match then {
                Then::Hangup => self.close(reason, Effect::Hangup, effects),
                Then::Close(code) => self.close(reason, Effect::Close(code), effects),
                Then::EndAndClose | Then::EndAndIdle { .. } | Then::Idle { .. } | Then::Nothing => {}
            },
        }
    }

    fn close(&mut self, reason: Reason, last: Effect, effects: &mut VecDeque<Effect>) {
        // Who stopped and then closed, or let us close, has stopped.
        if !matches!(self.phase, Phase::Ending { .. }) {
            self.story.reason = reason;
        }
        self.phase = Phase::Closed;
        self.kept.clear();
        effects.push_back(last);
    }

    fn finished(&mut self, complete: bool, now: Instant, effects: &mut VecDeque<Effect>) {
        let Phase::Stopping { then, conversation } = std::mem::replace(&mut self.phase, Phase::Closed) else {
            unreachable!("a stream is finished while stopping")
        };
        if !complete && matches!(then, Then::EndAndClose | Then::EndAndIdle { .. }) {
            self.story.reason = Reason::Unfinished;
            let details = "recognition did not keep up: the last words of this stream are missing";
            self.refuse(ClientError::new(ErrorCode::Overloaded, details), effects);
        }
        match then {
            Then::EndAndClose => {
                // Clients close on the first of the two, and drop the other.
                let mut last = [Reply::ConversationCompleted(conversation), Reply::RecognitionStopped];
                if self.source == Source::Web {
                    last.reverse();
                }
                effects.extend(last.map(Effect::Send));
                self.phase = Phase::Ending { until: now + self.limits.close_grace };
            }
            Then::EndAndIdle { timeout } => {
                effects.push_back(Effect::Send(Reply::RecognitionStopped));
                effects.push_back(Effect::Send(Reply::ConversationCompleted(conversation)));
                self.phase = Phase::Idle { until: now + timeout };
            }
            Then::Idle { timeout } => self.phase = Phase::Idle { until: now + timeout },
            Then::Close(code) => {
                self.kept.clear();
                effects.push_back(Effect::Close(code));
            }
            Then::Hangup => {
                self.kept.clear();
                effects.push_back(Effect::Hangup);
            }
            Then::Nothing => self.kept.clear(),
        }
    }

    fn stream_event(&mut self, event: UplinkEvent, now: Instant, effects: &mut VecDeque<Effect>) {
        let Phase::Listening(live) = &mut self.phase else { return };
        let asked = &live.start.extension;
        match event {
            UplinkEvent::Acked { chunk, restart, through } => {
                if asked.ack
                    && let Some(ack) = live.acks.learn(Ack { chunk, restart, through }, now)
                {
                    effects.push_back(Effect::Send(ack));
                }
            }
            UplinkEvent::Finalized { id, position } => {
                effects.push_back(Effect::Send(Reply::Finalized { id, position }));
            }
            UplinkEvent::FinalizeRefused { error, .. } => {
                self.refuse(ClientError::new(ErrorCode::TooFast, error.to_string()), effects);
            }
            UplinkEvent::Health(health) => {
                if asked.health {
                    effects.push_back(Effect::Send(Reply::Health { health, trace: live.started.trace }));
                }
            }
            UplinkEvent::Signal(signal) => {
                // That somebody speaks is told as presence, and to everybody.
                if asked.health && signal.kind != SignalKind::SpeechStart {
                    effects.push_back(Effect::Send(Reply::Signal(signal)));
                }
                match signal.kind {
                    SignalKind::SpeechStart => live.speaking = true,
                    SignalKind::UtteranceEnd => live.speaking = false,
                    SignalKind::Stable | SignalKind::Pause => {}
                }
                let pauses = signal.kind == SignalKind::Pause;
                match live.leaving {
                    Some(_) if !live.speaking => self.hand_over(Handover::UtteranceEnd, effects),
                    Some(leaving) if pauses && leaving.soon <= now => self.hand_over(Handover::Pause, effects),
                    _ => {}
                }
            }
            UplinkEvent::Moved { .. } => {}
            UplinkEvent::Failed(error) => self.stream_failed(error, effects),
        }
    }

    fn stream_failed(&mut self, error: UplinkError, effects: &mut VecDeque<Effect>) {
        let Phase::Listening(live) = &self.phase else { return };
        let timeout = live.start.idle_timeout;
        let (reason, told, then) = match error {
            UplinkError::Refused(Refusal::Full { what }) => {
                (Reason::TooLarge, ClientError::new(ErrorCode::TooLarge, what), Then::Close(CloseCode::Policy))
            }
            UplinkError::Refused(Refusal::Ended | Refusal::Gone) => return self.conversation_ended(effects),
            UplinkError::Unsupported(what) => (Reason::Violation, unsupported(what), Then::Idle { timeout }),
            UplinkError::Fenced => {
                let error = ClientError::new(ErrorCode::Fenced, error.to_string());
                (Reason::Fenced, error, Then::Close(CloseCode::Policy))
            }
            UplinkError::Stalled(_) => {
                let error = ClientError::new(ErrorCode::Overloaded, error.to_string());
                self.refuse_for(error, RETRY_AFTER, effects);
                return self.end(Reason::Overloaded, StreamEnd::Lost, Then::Close(CloseCode::Overloaded), effects);
            }
            UplinkError::TooManyFinalizes { .. } => {
                return self.refuse(ClientError::new(ErrorCode::TooFast, error.to_string()), effects);
            }
            UplinkError::Refused(_) | UplinkError::Broken(_) | UplinkError::Finished => {
                let error = ClientError::new(ErrorCode::Internal, "the stream broke by a fault of the service");
                (Reason::Internal, error, Then::Close(CloseCode::Internal))
            }
        };
        self.refuse(told, effects);
        self.end(reason, StreamEnd::Lost, then, effects);
    }

    fn conversation_ended(&mut self, effects: &mut VecDeque<Effect>) {
        match &self.phase {
            Phase::Listening(_) => {
                let how = StreamEnd::Stopped { linger: Duration::ZERO };
                self.end(Reason::ConversationEnded, how, Then::EndAndClose, effects);
            }
            Phase::Idle { .. } => {
                self.close(Reason::ConversationEnded, Effect::Close(CloseCode::Normal), effects);
            }
            _ => {}
        }
    }

    fn tick(&mut self, now: Instant, effects: &mut VecDeque<Effect>) {
        if self.token_deadline() <= now {
            if self.expired {
                let (reason, then) = (Reason::TokenExpired, Then::Close(CloseCode::Policy));
                return self.end(reason, StreamEnd::Lost, then, effects);
            }
            self.expired = true;
            let details = format!(
                "access_token has expired; a good one in {{\"type\":\"token\",\"access_token\":…}} is accepted for {:?} more",
                self.limits.token_grace
            );
            self.refuse(ClientError::new(ErrorCode::TokenExpired, details), effects);
        }
        if let Phase::Listening(live) = &mut self.phase {
            if let Some(ack) = live.acks.flush(now) {
                effects.push_back(Effect::Send(ack));
            }
            if live.leaving.is_some_and(|leaving| leaving.until <= now) {
                self.hand_over(Handover::Word, effects);
            }
            return;
        }
        if self.phase_deadline().is_some_and(|deadline| deadline <= now) {
            self.close(Reason::Idle, Effect::Close(CloseCode::Normal), effects);
        }
    }

    fn refuse(&mut self, error: ClientError, effects: &mut VecDeque<Effect>) {
        self.story.refused += 1;
        effects.push_back(Effect::Send(Reply::Error { error, retry_after: None }));
    }

    fn refuse_for(&mut self, error: ClientError, retry_after: Duration, effects: &mut VecDeque<Effect>) {
        self.story.refused += 1;
        effects.push_back(Effect::Send(Reply::Error { error, retry_after: Some(retry_after) }));
    }
}

/// What a start asks beside its configuration, and another may ask otherwise.
fn beside(start: &StartRequest) -> (bool, bool, bool, Duration) {
    let Extension { presence, health, ack, .. } = start.extension;
    (presence, health, ack, start.no_connection_timeout)
}

/// The three messages every start is answered with, in the order clients use them.
fn welcome(started: &Started, asked: &Extension) -> Vec<Reply> {
    let Started { conversation, resume, stream, .. } = started;
    let mut told = vec![
        Reply::StartedListening,
        Reply::ConversationCreated(*conversation),
        Reply::RecognitionStarted(*conversation),
    ];
    if asked.ack {
        told.push(Reply::ResumeToken { token: resume.clone(), stream: *stream });
    }
    told
}

/// The recognizer says what it does not hear, and begins with the field's name, or with `audio` when that is not what was
/// announced.
fn unsupported(what: String) -> ClientError {
    let code = match what.split(' ').next() {
        Some("language") => ErrorCode::UnsupportedLanguage,
        Some("audio") => ErrorCode::InvalidRequest,
        _ => ErrorCode::UnsupportedEncoding,
    };
    ClientError::new(code, what)
}

/// Acknowledgements, at most one in [`ACK_EVERY`]; the newest waits for its turn.
#[derive(Debug, Default)]
struct Acks {
    sent: Option<Instant>,
    waiting: Option<Ack>,
}

impl Acks {
    fn learn(&mut self, ack: Ack, now: Instant) -> Option<Reply> {
        self.waiting = Some(ack);
        self.flush(now)
    }

    fn flush(&mut self, now: Instant) -> Option<Reply> {
        if self.sent.is_some_and(|sent| now < sent + ACK_EVERY) {
            return None;
        }
        let ack = self.waiting.take()?;
        self.sent = Some(now);
        Some(Reply::AudioAck(ack))
    }

    fn due(&self) -> Option<Instant> {
        self.waiting?;
        Some(self.sent? + ACK_EVERY)
    }
}

/// Lets audio come at the speed it is spoken, with a bounded burst. Compressed audio counts as if it were samples, which
/// is generous; what decoding it costs is bounded by the recognizer's own flow control.
#[derive(Debug)]
struct Pace {
    /// In bytes.
    bucket: Bucket,
    burst: Duration,
}

impl Pace {
    /// `behind`: audio beyond the burst that is owed already.
    fn new(start: &StartRequest, burst: Duration, behind: Duration, now: Instant) -> Self {
        let rate = bytes_per_second(&start.config);
        let mut bucket = Bucket::new(rate * burst.as_secs_f64(), rate, now);
        let owed = rate * behind.as_secs_f64();
        // Once: what is not sent in a burst is not owed for ever.
        bucket.spare = owed;
        Self { bucket, burst }
    }

    /// The burst that is left stays the same in seconds.
    fn set_format(&mut self, config: &SpeakerConfig) {
        let rate = bytes_per_second(config);
        self.bucket.level *= rate / self.bucket.per_second;
        self.bucket.spare *= rate / self.bucket.per_second;
        self.bucket.per_second = rate;
        self.bucket.capacity = rate * self.burst.as_secs_f64();
    }

    fn admit(&mut self, bytes: usize, now: Instant) -> bool {
        self.bucket.take(bytes.max(LEAST_CHUNK) as f64, now)
    }
}

fn bytes_per_second(config: &SpeakerConfig) -> f64 {
    let rate = f64::from(config.format.rate.get());
    match config.format.encoding {
        Encoding::Linear16 => 2.0 * rate,
        Encoding::Mulaw => rate,
        // The most there can be, whatever was announced: two channels of 24 bits at 48 kHz, and 510 kbit/s.
        Encoding::Flac => 288_000.0,
        Encoding::Opus => 64_000.0,
    }
}

/// A token bucket. Starts full.
#[derive(Debug)]
struct Bucket {
    level: f64,
    /// What may be taken beside, once.
    spare: f64,
    capacity: f64,
    per_second: f64,
    at: Instant,
}

impl Bucket {
    fn new(capacity: f64, per_second: f64, now: Instant) -> Self {
        Self { level: capacity, spare: 0.0, capacity, per_second, at: now }
    }

    fn take(&mut self, cost: f64, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.level = (self.level + gained).min(self.capacity);
        self.at = self.at.max(now);
        if self.spare >= cost {
            self.spare -= cost;
        } else if self.level >= cost {
            self.level -= cost;
        } else {
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests;
