//! One call is one stream's stay here: its requests go to a lane, its commits to the log, and what the log has accepted
//! is acknowledged.
//!
//! Nothing here waits without a bound or holds more than one request, [`TODO`] things said, one commit and one
//! announcement under way, and [`RESPONSES`] answers.

use std::{collections::VecDeque, future::pending, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use hearsay_bus::{
    Bus, Claim, Published,
    append::{Appender, Reclaims},
    publisher::{AfterBranch, Stretch},
};
use hearsay_insight::sentiment::sentiment;
use hearsay_protocol::{
    Event, Position, PublisherId, Seen, Sentence, StreamId, StreamTime, Timestamp, TraceContext, TraceId, UtteranceId,
    event::{Ephemeral, Final, Partial, Participant, SpeakerConfig},
    sentences,
};
use hearsay_rpc::{
    Ack, Health, Malformed, Marker, MarkerKind, Open, Request, Response, Signal, SignalKind,
    v1::{self, recognizer_server},
};
use hearsay_runtime::Tasks;
use hearsay_speech::{
    engine::{Capabilities, Engine},
    lane::{self, Commit, Lane, LaneError, Start},
    vad::VadModel,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use crate::{
    Config,
    analyst::{Analysts, Attending},
    ladder::Load,
    lanes::{self, Failure, Input, LaneHandle, Mailbox, Output, Said, Times},
    metrics,
    publish::{self, Publisher},
    room::{self, Room, Rooms},
    slots::Slots,
    thought::Thought,
    trace::{Traced, traced},
};

/// Answers that HTTP/2 has not taken yet.
const RESPONSES: usize = 16;

/// How long an uplink may leave its answers unread.
const UNREAD: Duration = Duration::from_secs(10);

/// Things said that wait for the commit under way.
const TODO: usize = 64;

/// How often it is looked at whether the ladder moved, and how many times of those the rest is told, too: the uplink tells
/// its client every five seconds, and each answer wakes a gateway.
const HEALTH: Duration = Duration::from_secs(1);
const HEALTH_TOLD: u32 = 3;

/// What every call needs.
pub(crate) struct Service {
    pub(crate) config: Config,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) vad: Arc<dyn VadModel>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) analysts: Analysts,
    pub(crate) thought: Option<Thought>,
    pub(crate) rooms: Rooms,
    pub(crate) slots: Arc<Slots>,
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
    pub(crate) load: Arc<Load>,
    pub(crate) tasks: Tasks,
    /// Streams above which no new one is taken.
    pub(crate) admitted: usize,
}

#[tonic::async_trait]
impl recognizer_server::Recognizer for Service {
    type RecognizeStream = ReceiverStream<Result<v1::RecognizeResponse, Status>>;

    async fn recognize(
        &self,
        request: tonic::Request<Streaming<v1::RecognizeRequest>>,
    ) -> Result<tonic::Response<Self::RecognizeStream>, Status> {
        let trace = traced(request.metadata());
        let mut requests = request.into_inner();
        let open = match timeout(self.config.open.get(), requests.next()).await {
            Ok(Some(Ok(open))) => Request::try_from(open).map_err(|error| malformed(&error))?,
            Ok(Some(Err(status))) => return Err(status),
            Ok(None) => return Err(refuse("malformed", Status::invalid_argument("the call ended before `open`"))),
            Err(_) => return Err(refuse("malformed", Status::deadline_exceeded("no `open` came"))),
        };
        let Request::Open(open) = open else {
            return Err(refuse("malformed", Status::invalid_argument("the first request must be `open`")));
        };
        let (responses, answers) = mpsc::channel(RESPONSES);
        let stay = self.admit(*open, trace, responses)?;
        drop(self.tasks.spawn("lane", stay.run(requests)));
        Ok(tonic::Response::new(ReceiverStream::new(answers)))
    }
}

type Responses = mpsc::Sender<Result<v1::RecognizeResponse, Status>>;

fn refuse(why: &'static str, status: Status) -> Status {
    metrics::refused(why);
    status
}

fn malformed(error: &Malformed) -> Status {
    refuse("malformed", Status::invalid_argument(error.to_string()))
}

impl Service {
    fn admit(&self, open: Open, trace: Option<TraceId>, responses: Responses) -> Result<Stay, Status> {
        if self.tasks.drain().is_draining() {
            return Err(refuse("draining", Status::unavailable("this recognizer drains")));
        }
        understood(self.engine.capabilities(), &open.config)
            .map_err(|why| refuse("unsupported", Status::unimplemented(why)))?;
        // Those that another recognizer lost are taken as long as there are places.
        if open.first && self.load.step() >= 3 {
            let message = "the engine is behind with the streams it has";
            return Err(refuse("overloaded", Status::resource_exhausted(message)));
        }
        let taken = self.slots.taken();
        if open.first && taken >= self.admitted {
            let message = format!("{taken} streams are heard here, and {} can be heard well", self.admitted);
            return Err(refuse("overloaded", Status::resource_exhausted(message)));
        }
        let Some(slot) = self.slots.take() else {
            let message = format!("all {} places for streams are taken", self.config.streams);
            return Err(refuse("full", Status::resource_exhausted(message)));
        };
        let room = self.rooms.enter(&open.key, open.stream, open.seen, &open.config);
        let start = Start {
            config: Arc::new(open.config),
            watermark: open.watermark,
            restart: open.restart,
            recorded: open.recorded,
        };
        let lane =
            Lane::new(&self.config.segment.settings(), start, self.vad.voice()).map_err(|error| match error {
                // Another recognizer may be of the version that wrote them.
                LaneError::Headers(error) => refuse("malformed", Status::unavailable(error.to_string())),
                error => refuse("failed", Status::internal(error.to_string())),
            })?;
        let lane = lanes::open(slot, lane, open.recorded, &self.mailboxes);
        responses.try_send(Ok(Response::Opened.into())).map_err(|_| Status::internal("a new channel has no room"))?;
        let claim = Claim {
            generation: open.generation,
            watermark: open.watermark.0,
            restart: None,
            origin: open.origin,
            top: open.seen,
        };
        let attending = self.analysts.attend(&open.key);
        // Only the uplink claims: it knows which stay is the present one.
        let appender = Appender::new(
            Arc::clone(&self.bus),
            open.key.clone(),
            PublisherId::Stream(open.stream),
            &claim,
            Reclaims::Elsewhere,
            AfterBranch::Reappend,
        );
        Ok(Stay {
            engine: Arc::clone(&self.engine),
            thought: self.thought.clone(),
            load: Arc::clone(&self.load),
            tasks: self.tasks.clone(),
            handover: self.config.handover.get(),
            publisher: Publisher {
                bus: Arc::clone(&self.bus),
                key: open.key,
                publisher: PublisherId::Stream(open.stream),
                generation: open.generation,
            },
            appender: Some(Box::new(appender)),
            log_patience: self.config.log_patience.get(),
            stream: open.stream,
            participant: open.participant,
            origin: open.origin,
            recorded: open.recorded,
            covered: open.watermark,
            seen: open.seen,
            last: None,
            room,
            lane,
            responses,
            todo: VecDeque::new(),
            partial: None,
            speaking: Speaking::default(),
            status: Output::default(),
            health: Health::default(),
            finals: 0,
            trace,
            _attending: attending,
            _open: metrics::stream_opened(),
        })
    }
}

/// # Errors
/// Says what would be understood.
fn understood(capabilities: &Capabilities, config: &SpeakerConfig) -> Result<(), String> {
    if capabilities.understands(&config.language) {
        return Ok(());
    }
    let (got, known) = (&config.language, capabilities.languages.join(", "));
    Err(format!("language {got:?} is not understood here; {known} is"))
}

/// One stream at this recognizer.
struct Stay {
    thought: Option<Thought>,
    engine: Arc<dyn Engine>,
    load: Arc<Load>,
    tasks: Tasks,
    handover: Duration,
    publisher: Publisher,
    /// Out while a commit is under way.
    appender: Option<Box<Appender>>,
    log_patience: Duration,
    stream: StreamId,
    participant: Arc<Participant>,
    origin: Timestamp,
    recorded: bool,
    /// How far the log covers the stream.
    covered: StreamTime,
    seen: Seen,
    /// Where the stream's last event of this stay stands.
    last: Option<Position>,
    /// Says what may be published.
    room: Room,
    lane: LaneHandle,
    responses: Responses,
    todo: VecDeque<Said>,
    partial: Option<lane::Partial>,
    speaking: Speaking,
    status: Output,
    health: Health,
    finals: u64,
    /// Of utterances that are traced.
    trace: Option<TraceId>,
    _attending: Attending,
    _open: hearsay_runtime::GaugeGuard,
}

/// Whether the participant speaks, as it is and as it was announced.
#[derive(Default)]
struct Speaking {
    now: bool,
    announced: bool,
}

/// How a stay ended well.
enum Ended {
    Complete,
    /// The uplink went away.
    Gone,
}

/// Something under way, or nothing.
type Pending<T> = Option<BoxFuture<'static, T>>;

async fn outcome<T>(pending_one: &mut Pending<T>) -> T {
    match pending_one {
        Some(future) => {
            let outcome = future.await;
            *pending_one = None;
            outcome
        }
        None => pending().await,
    }
}

/// How long a final waits to have its sentiment weighed.
const WEIGH: Duration = Duration::from_millis(50);

/// Finals with the sentiment of each sentence, unless nobody has time for it.
async fn felt(mut events: Vec<Event>, thought: Option<Thought>) -> Vec<Event> {
    for event in &mut events {
        let (Some(thought), Event::Final(spoken)) = (&thought, &mut *event) else { continue };
        let Some(turn) = thought.turn(WEIGH).await else { continue };
        let asked = Arc::clone(spoken);
        let weighing = turn.weigh(move |meaning| {
            let of = |sentence: &Sentence<'_>| meaning.of(sentence.text).map(|it| sentiment(&it));
            sentences(&asked).iter().map(of).collect::<Option<Vec<f32>>>()
        });
        match weighing.await {
            Ok(found) => Arc::make_mut(spoken).sentiment = found.unwrap_or_default(),
            Err(error) => tracing::error!(%error, "sentiment was not weighed"),
        }
    }
    events
}

/// A commit, what it puts on the log, and when the last of it was spoken.
struct Outgoing {
    commit: Commit,
    events: Vec<Event>,
    spoken: Option<std::time::Instant>,
    traced: Option<Traced>,
}

/// The commit under way.
type Publishing = Pending<(Outgoing, (Box<Appender>, Result<Published, Status>))>;

impl Stay {
    async fn run(mut self, requests: Streaming<v1::RecognizeRequest>) {
        let begun = Instant::now();
        let outcome = self.stay(requests).await;
        let how = match &outcome {
            Ok(Ended::Complete) => "complete",
            Ok(Ended::Gone) => "gone",
            Err(status) => match status.code() {
                tonic::Code::Aborted => "fenced",
                tonic::Code::FailedPrecondition | tonic::Code::NotFound | tonic::Code::OutOfRange => "refused",
                tonic::Code::Unimplemented | tonic::Code::InvalidArgument => "unsupported",
                tonic::Code::Unavailable | tonic::Code::DataLoss => "moved",
                _ => "failed",
            },
        };
        metrics::ended(how);
        tracing::info!(
            key = %self.publisher.key, stream = %self.stream, how, why = outcome.as_ref().err().map(Status::message),
            covered = %self.covered, finals = self.finals, stayed = ?begun.elapsed(), "a stream's stay ended"
        );
        if let Err(status) = outcome {
            // An uplink that does not read is gone.
            let _ = timeout(UNREAD, self.responses.send(Err(status))).await;
        }
    }

    async fn stay(&mut self, mut requests: Streaming<v1::RecognizeRequest>) -> Result<Ended, Status> {
        let mut input: Option<Input> = None;
        let (mut reading, mut ended) = (true, false);
        let mut publishing: Publishing = None;
        let mut announcing: Pending<Result<(), Status>> = None;
        let mut health = interval(HEALTH);
        health.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = (0..HEALTH_TOLD).cycle();
        let drain = self.tasks.drain();
        let mut handover: Option<Instant> = None;
        // Nothing is said before it is known what has to be hidden.
        let mut known = self.room.is_known();
        let patience = sleep(self.log_patience);
        tokio::pin!(patience);
        loop {
            if self.todo.len() < TODO {
                self.collect()?;
            }
            while known
                && publishing.is_none()
                && let Some(said) = self.todo.pop_front()
            {
                match said {
                    Said::Commit { commit, spoken, times } => publishing = self.publish(commit, spoken, times),
                    Said::Signal(signal) => self.signal(signal).await?,
                    Said::Finalized(id) => {
                        let position = self.position().await?;
                        self.respond(Response::Finalized { id, position }).await?;
                    }
                    Said::Over => {
                        let position = self.position().await?;
                        self.respond(Response::Ended { position }).await?;
                        return Ok(Ended::Complete);
                    }
                    // Elsewhere it would be no other: the client is told.
                    Said::Broken(fault) => return Err(Status::invalid_argument(fault.to_string())),
                }
            }
            if known && announcing.is_none() {
                announcing = self.announce();
            }
            if let Some(deadline) = handover {
                let quiet = publishing.is_none() && self.todo.is_empty() && self.status.quiet;
                if quiet || deadline <= Instant::now() {
                    return Err(Status::unavailable("this recognizer drains"));
                }
            }
            tokio::select! {
                request = requests.next(), if reading && input.is_none() => match request {
                    Some(Ok(request)) => {
                        let given = self.input(request)?;
                        ended |= matches!(given, Input::Marker { marker: lane::Marker::End, .. });
                        input = Some(given);
                    }
                    // All was said.
                    None if ended => reading = false,
                    // What the log does not cover is replayed elsewhere.
                    None | Some(Err(_)) => return Ok(Ended::Gone),
                },
                () = self.lane.give(&mut input), if input.is_some() => {}
                () = self.lane.said(), if self.todo.len() < TODO => {}
                (outgoing, (appender, published)) = outcome(&mut publishing) => {
                    self.appender = Some(appender);
                    self.published(outgoing, published?).await?;
                }
                announced = outcome(&mut announcing) => announced?,
                () = self.room.known(), if !known => known = true,
                () = &mut patience, if !known => {
                    metrics::log_out_of_reach();
                    let message = format!("the conversation's log could not be read for {:?}", self.log_patience);
                    return Err(Status::unavailable(message));
                }
                _ = health.tick() => self.tell_health(looks.next() == Some(0)).await?,
                () = self.responses.closed() => return Ok(Ended::Gone),
                () = drain.cancelled(), if handover.is_none() => handover = Some(Instant::now() + self.handover),
                () = until(handover) => {}
            }
        }
    }

    fn input(&mut self, request: v1::RecognizeRequest) -> Result<Input, Status> {
        let request = Request::try_from(request).map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(match request {
            Request::Open(_) => return Err(Status::invalid_argument("`open` came twice")),
            Request::Chunk { number, data } => Input::Chunk { number, data },
            Request::Marker(Marker { chunk, kind }) => {
                let marker = match kind {
                    MarkerKind::Finalize(id) => lane::Marker::Finalize(id),
                    MarkerKind::Config(config) => {
                        understood(self.engine.capabilities(), &config).map_err(Status::unimplemented)?;
                        self.room.configure(&config);
                        lane::Marker::Config(Arc::new(*config))
                    }
                    MarkerKind::Reanchor(at) => lane::Marker::Reanchor(at),
                    MarkerKind::End => lane::Marker::End,
                };
                Input::Marker { chunk, marker }
            }
        })
    }

    /// Takes what the lane said.
    fn collect(&mut self) -> Result<(), Status> {
        let mut output = self.lane.take();
        self.todo.append(&mut output.said);
        if let Some(partial) = output.partial.take()
            && self.partial.replace(partial).is_some()
        {
            metrics::partial("replaced");
        }
        let failed = output.failed.take();
        self.status = output;
        failed.map_or(Ok(()), |error| {
            Err(match error {
                Failure::Lane(error @ (LaneError::OutOfOrder { .. } | LaneError::AfterEnd)) => {
                    Status::invalid_argument(error.to_string())
                }
                Failure::Lane(error @ (LaneError::Vad(_) | LaneError::Resample(_) | LaneError::Headers(_))) => {
                    tracing::error!(stream = %self.stream, %error, "a lane failed");
                    Status::internal(error.to_string())
                }
                Failure::Panicked => {
                    metrics::panicked();
                    tracing::error!(stream = %self.stream, "a lane panicked");
                    Status::internal("a fault of the recognizer")
                }
            })
        })
    }

    /// Begins to publish a commit; the one before is done.
    fn publish(&mut self, commit: Commit, spoken: Option<std::time::Instant>, times: Option<Box<Times>>) -> Publishing {
        let appender = self.appender.take()?;
        // Its final makes a partial worthless.
        self.partial.take_if(|partial| partial.from <= commit.from);
        let utterance = UtteranceId::after_cut(self.stream, commit.from);
        let traced = self.trace.zip(times).and_then(|(trace, times)| Traced::of(trace, utterance, *times));
        let trace = traced.as_ref().map(|traced| traced.context);
        let events: Vec<Event> = self.final_of(&commit, utterance, trace).into_iter().collect();
        let (thought, patience) = (self.thought.clone().filter(|_| self.room.feels()), self.log_patience);
        let publishing = async move {
            let events = felt(events, thought).await;
            let stretch = Stretch {
                from: commit.from.0,
                through: commit.through.0,
                events: events.clone(),
                restart: Some(commit.restart.clone()),
            };
            let answer = publish::append(appender, stretch, patience).await;
            (Outgoing { commit, events, spoken, traced }, answer)
        };
        Some(publishing.boxed())
    }

    fn final_of(&self, commit: &Commit, utterance: UtteranceId, trace: Option<TraceContext>) -> Option<Event> {
        let said = commit.utterance.as_ref()?;
        if said.lost {
            metrics::inaudible();
            tracing::error!(
                stream = %self.stream, from = %commit.from, through = %commit.through,
                "the engine failed on an utterance twice: it is on the log as inaudible"
            );
        }
        let (text, words) = match self.room.last(&said.text) {
            None => (said.text.clone(), said.words.clone()),
            Some(hidden) => (hidden.text.clone(), room::words(&hidden, &said.words)),
        };
        Some(Event::Final(Arc::new(Final {
            stream: self.stream,
            utterance,
            participant: Arc::clone(&self.participant),
            origin: self.origin,
            start: said.start,
            end: said.end,
            text,
            language: said.language.clone(),
            confidence: said.confidence,
            words,
            sentiment: Vec::new(),
            trace,
        })))
    }

    /// The log accepted a commit: its audio is acknowledged.
    async fn published(&mut self, outgoing: Outgoing, published: Published) -> Result<(), Status> {
        let Outgoing { commit, events, spoken, traced } = outgoing;
        if let Some(traced) = traced {
            traced.tell(published.position);
        }
        self.covered = commit.through;
        self.seen = published.top;
        for event in &events {
            if let Event::Final(spoken) = event {
                self.room.said(&spoken.text);
            }
        }
        if commit.utterance.is_some() {
            self.last = Some(published.position);
            self.finals += 1;
            metrics::final_published(spoken.map(|spoken| spoken.elapsed()));
        }
        self.respond(Response::Ack(Ack {
            through_chunk: commit.through_chunk,
            through: commit.through,
            events,
            from: Some(commit.from),
            restart: commit.restart,
            top: published.top,
            finals: self.finals,
        }))
        .await?;
        if self.health.ladder != self.load.step() {
            self.tell_health(false).await?;
        }
        Ok(())
    }

    /// Where the stream's last event stands; the newest entry of the log when this stay published none.
    async fn position(&mut self) -> Result<Position, Status> {
        if let Some(position) = self.last.or_else(|| self.seen.position()) {
            return Ok(position);
        }
        self.seen = self.publisher.top().await?;
        self.seen.position().ok_or_else(|| Status::internal("the log has no epoch"))
    }

    async fn signal(&mut self, signal: lane::Signal) -> Result<(), Status> {
        let kind = match signal.kind {
            lane::SignalKind::SpeechStart => SignalKind::SpeechStart,
            lane::SignalKind::Stable => SignalKind::Stable,
            lane::SignalKind::Pause => SignalKind::Pause,
            lane::SignalKind::UtteranceEnd => SignalKind::UtteranceEnd,
        };
        match kind {
            SignalKind::SpeechStart => self.speaking.now = true,
            SignalKind::UtteranceEnd => self.speaking.now = false,
            SignalKind::Stable | SignalKind::Pause => {}
        }
        let utterance = UtteranceId::after_cut(self.stream, signal.from);
        self.respond(Response::Signal(Signal { kind, at: signal.at, utterance })).await
    }

    /// The next announcement, if there is something to announce.
    fn announce(&mut self) -> Pending<Result<(), Status>> {
        if self.recorded {
            return None;
        }
        let mut ephemerals = Vec::new();
        if self.speaking.now != self.speaking.announced {
            self.speaking.announced = self.speaking.now;
            ephemerals.push(Ephemeral::Speaking {
                participant: Arc::clone(&self.participant),
                stream: self.stream,
                speaking: self.speaking.now,
            });
        }
        if let Some(partial) = self.partial.take() {
            metrics::partial("announced");
            // What stands may turn out to be the beginning of something personal.
            let (text, stable) = match self.room.partial(&partial.text) {
                Some(hidden) => (hidden.text, 0),
                None => (partial.text, partial.stable),
            };
            ephemerals.push(Ephemeral::Partial(Arc::new(Partial {
                stream: self.stream,
                utterance: UtteranceId::after_cut(self.stream, partial.from),
                revision: partial.revision,
                participant: Arc::clone(&self.participant),
                origin: self.origin,
                start: partial.start,
                end: partial.end,
                text,
                stable,
                confidence: partial.confidence.clamp(0.0, 1.0),
            })));
        }
        (!ephemerals.is_empty()).then(|| self.publisher.announce(ephemerals).boxed())
    }

    async fn tell_health(&mut self, due: bool) -> Result<(), Status> {
        let health = Health {
            heard: self.status.heard.max(self.covered),
            covered: self.covered,
            speech: self.status.speech.clamp(0.0, 1.0),
            ladder: self.load.step(),
            realtime_factor: self.load.factor(),
        };
        if due || health.ladder != self.health.ladder {
            self.health = health;
            self.respond(Response::Health(health)).await?;
        }
        Ok(())
    }

    async fn respond(&self, response: Response) -> Result<(), Status> {
        match timeout(UNREAD, self.responses.send(Ok(response.into()))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::cancelled("the uplink went away")),
            Err(_) => Err(Status::deadline_exceeded(format!("the uplink read nothing for {UNREAD:?}"))),
        }
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}
