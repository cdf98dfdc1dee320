//! Drives one stream: commands in, audio to the present recognizer, acknowledgements back, and on to the next one.
//!
//! All order and bookkeeping is [`Ring`]'s and [`Anchor`]'s; this loop owns the call and its deadlines.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hearsay_bus::{
    Bus, Claim, Error, Refusal,
    append::{Appender, Reclaims},
    publisher::{AfterBranch, Stretch},
};
use hearsay_protocol::{AudioFormat, ChunkNumber, Meter, PublisherId, Restart, StreamTime, Timestamp};
use hearsay_rpc::{
    Ack, Health, Marker, MarkerKind, Open, Request, Response,
    v1::{self, recognizer_client::RecognizerClient},
};
use hearsay_runtime::Alarm;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    metadata::{Ascii, MetadataValue},
};

use crate::{
    Command, Config, Finished, OpenError, StreamSpec, UplinkError, UplinkEvent,
    anchor::Anchor,
    budget::{Budget, Share},
    metrics::{self, OpenStream},
    pool::{Pool, Worker},
    ring::{Item, Limits, Ring},
    trace::{Tracing, moment},
};

/// Commands between the socket's read loop and this one; what waits here is at most this many chunks.
const COMMANDS: usize = 8;
/// Requests between this loop and HTTP/2, which then has its own flow control.
const REQUESTS: usize = 4;
/// Events the connection has not read yet.
const EVENTS: usize = 32;
/// Waits between placements that failed: the first, doubled each time up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// A recognizer that covers nothing for this long while it owes much is left: longer than its longest utterance.
const STUCK: Duration = Duration::from_secs(15);
/// What it owes then, as a share of the unacknowledged bound.
const STUCK_FILL: f64 = 0.6;
/// How long the log has to answer a claim.
const CLAIM: Duration = Duration::from_secs(5);
/// How often a stream that nothing is published of asks whether the log still has what was, and for how long: what was
/// published before that is not kept.
const ASK: Duration = Duration::from_secs(3);
const ASKS: Duration = Duration::from_secs(60);
/// How long a stream whose handle was dropped may take to finish, without progress.
const ABANDONED: Duration = Duration::from_secs(10);
/// An end may take this many times its patience, however steadily it gets on.
const PATIENCES: u32 = 12;
/// A live stream without a chunk for this long is muted: what was said is taken for complete.
const MUTED: Duration = Duration::from_secs(2);
/// What stays in a row may have failed the stream without getting it any further; past that, it is taken for what breaks
/// them. With the waits between, more connections than this break in one utterance only where all recognizers are gone.
const FAILURES: u32 = 12;
/// A stay that lasted this long did not fail in haste: the next one is looked for at once.
const CALM: Duration = Duration::from_secs(5);
/// How a stream is, is told this often, and whenever the recognizer's ladder changes.
const HEALTH_EVERY: Duration = Duration::from_secs(5);
/// And for the first time this soon.
const HEALTH_FIRST: Duration = Duration::from_secs(1);

/// The id of utterance ends asked for by ourselves: no client can choose it.
const MUTE: &str = "";

/// The ends the handle keeps.
pub(crate) struct Opened {
    pub(crate) origin: Timestamp,
    pub(crate) first: ChunkNumber,
    pub(crate) format: AudioFormat,
    pub(crate) behind: Duration,
    pub(crate) finals: Arc<AtomicU64>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) ending: watch::Sender<Option<Duration>>,
    pub(crate) events: mpsc::Receiver<UplinkEvent>,
    pub(crate) finished: watch::Receiver<Option<Finished>>,
}

pub(crate) struct Driver {
    /// Taken when the loop begins.
    place: Option<Place>,
    placing: Placing,
    /// Appends again what the log loses of what recognizers put there for this stream. Away with an attempt to place it.
    keeper: Option<Box<Appender>>,
    /// Asked of the log: whether it still has that.
    asking: Option<Asking>,
    asked: Instant,
    ring: Ring,
    share: Share,
    anchor: Anchor,
    /// Of the newest chunk.
    format: AudioFormat,
    meter: Meter,
    /// Zero of the stream's clock as this machine knows it: the claim, less what the log says had passed by then.
    origin_at: Origin,
    commands: mpsc::Receiver<Command>,
    ending: watch::Receiver<Option<Duration>>,
    /// Since when, and how patiently, the stream is ending: everything that waits is taken.
    ends: Option<(Instant, Duration)>,
    /// Set with the end marker: nothing more comes.
    closing: bool,
    /// When the last chunk came.
    heard: Instant,
    /// An utterance end was asked for since the last chunk.
    muted: bool,
    /// What its recognizer said last, and how far the log covers the stream.
    health: Health,
    health_due: Instant,
    /// Length of a recording so far.
    recorded: StreamTime,
    events: Outgoing,
    finished: watch::Sender<Option<Finished>>,
    /// Chunks below were sent before, to some recognizer.
    sent_once: ChunkNumber,
    /// When the log last covered more of the stream than before.
    progress: Instant,
    /// When the present stay began.
    placed: Instant,
    /// What failed the stream since it last got further, see [`Fault`].
    failures: u32,
    /// Short stays without progress, in a row.
    hasty: u32,
    /// Of all stays, and of those before the present one.
    finals: Arc<AtomicU64>,
    finals_before: u64,
    tracing: Option<Box<Tracing>>,
    /// For all that is due some time: each chunk puts most of it off.
    alarm: Alarm,
    _open: OpenStream,
}

/// A moment, and how long the stream had been going on then.
#[derive(Clone, Copy)]
struct Origin {
    at: Instant,
    gone: Duration,
}

/// What it takes to find a stream a place.
#[derive(Clone)]
struct Placing {
    config: Arc<Config>,
    bus: Arc<dyn Bus>,
    pool: Pool,
    spec: StreamSpec,
    /// For recognizers.
    traceparent: Option<MetadataValue<Ascii>>,
}

/// A stay at one recognizer.
struct Call {
    requests: mpsc::Sender<v1::RecognizeRequest>,
    responses: Streaming<v1::RecognizeResponse>,
    worker: Arc<Worker>,
    restart: Option<Restart>,
}

type Connecting = Pin<Box<dyn Future<Output = (Box<Appender>, Result<Call, OpenError>)> + Send>>;
type Asking = Pin<Box<dyn Future<Output = Result<bool, Error>> + Send>>;

/// Where the stream is.
enum Place {
    At(Box<Call>),
    /// On the way to the next recognizer, since the last one was lost; if this attempt fails, `wait` comes next.
    Moving {
        since: Instant,
        attempt: Connecting,
        wait: Duration,
    },
    /// Waiting to try again.
    Waiting {
        since: Instant,
        until: Instant,
        wait: Duration,
    },
}

impl Driver {
    pub(crate) async fn open(
        config: Arc<Config>,
        bus: Arc<dyn Bus>,
        pool: Pool,
        budget: Budget,
        spec: StreamSpec,
    ) -> Result<(Self, Opened), OpenError> {
        let tracing = spec.trace.map(|of| Box::new(Tracing::new(of, spec.stream)));
        let traceparent = tracing.as_ref().and_then(|tracing| tracing.context().traceparent().parse().ok());
        let mut placing = Placing { config: Arc::clone(&config), bus, pool, spec, traceparent };
        let begun = Instant::now();
        let claim = placing.claim().await?;
        let origin = claim.origin;
        let mut origin_at = Origin { at: Instant::now(), gone: Duration::ZERO };
        let (mut first, mut anchor) = (ChunkNumber::default(), Anchor::default());
        let mut behind = Duration::ZERO;
        if placing.spec.resumed {
            let now = placing.now().await?;
            origin_at = Origin { at: Instant::now(), gone: now.since(origin) };
            let mut clock = StreamTime::ZERO;
            if let Some(restart) = &claim.restart {
                (first, clock) = (restart.chunk, restart.at);
                placing.spec.config.format = restart.format;
            }
            anchor = Anchor::going_on(clock);
            behind = origin_at.gone.saturating_sub(Duration::from_micros(clock.micros()));
        }
        let keeper = Appender::new(
            Arc::clone(&placing.bus),
            placing.spec.key.clone(),
            PublisherId::Stream(placing.spec.stream),
            &claim,
            Reclaims::Itself,
            AfterBranch::Reappend,
        );
        let covered = StreamTime(claim.watermark);
        let is_new = claim.watermark == 0 && claim.restart.is_none();
        let call = placing.place(claim, is_new).await?;
        metrics::placed(true, begun.elapsed());
        let (commands, commands_rx) = mpsc::channel(COMMANDS);
        let (events_tx, events) = mpsc::channel(EVENTS);
        let (finished_tx, finished) = watch::channel(None);
        let (ending, ending_rx) = watch::channel(None);
        let limits = Limits {
            unsent: config.unsent.get(),
            unacknowledged: config.unacknowledged.get(),
            unacknowledged_bytes: config.unacknowledged_bytes,
            ..Limits::default()
        };
        let format = placing.spec.config.format;
        let finals = Arc::<AtomicU64>::default();
        let driver = Self {
            place: Some(Place::At(Box::new(call))),
            placing,
            keeper: Some(Box::new(keeper)),
            asking: None,
            asked: Instant::now(),
            ring: Ring::going_on(limits, format, first),
            share: budget.share(),
            anchor,
            format,
            meter: if first.0 == 0 { Meter::new(format) } else { Meter::in_the_middle(format) },
            origin_at,
            commands: commands_rx,
            ending: ending_rx,
            ends: None,
            closing: false,
            heard: Instant::now(),
            muted: true,
            health: Health { covered, ..Health::default() },
            health_due: Instant::now() + HEALTH_FIRST,
            recorded: covered,
            events: Outgoing { channel: events_tx, waiting: VecDeque::new() },
            finished: finished_tx,
            sent_once: first,
            progress: Instant::now(),
            placed: Instant::now(),
            failures: 0,
            hasty: 0,
            finals: Arc::clone(&finals),
            finals_before: 0,
            tracing,
            alarm: Alarm::default(),
            _open: OpenStream::new(),
        };
        Ok((driver, Opened { origin, first, format, behind, finals, commands, ending, events, finished }))
    }

    pub(crate) async fn run(mut self) {
        let Some(mut place) = self.place.take() else { return };
        let finished = loop {
            match self.step(place).await {
                Ok(next) => place = next,
                Err(finished) => break finished,
            }
        };
        metrics::ended(match &finished.error {
            None => "complete",
            Some(UplinkError::Stalled(_)) => "stalled",
            Some(UplinkError::Fenced) => "fenced",
            Some(UplinkError::Refused(_)) => "refused",
            Some(UplinkError::Unsupported(_)) => "unsupported",
            Some(_) => "broken",
        });
        if let Some(error) = &finished.error {
            self.events.push(UplinkEvent::Failed(error.clone()));
        }
        // A receiver that is gone has nothing to learn.
        self.finished.send_replace(Some(finished));
        self.events.flush().await;
    }

    /// Waits for one thing and does it.
    async fn step(&mut self, place: Place) -> Result<Place, Finished> {
        // What waits when the end is asked for is bounded by the channel.
        let room = self.ends.is_some() || (self.ring.has_room() && !self.share.is_spent());
        let takes = !self.closing && room;
        let begins = self.ends.is_none();
        match place {
            Place::At(mut call) => {
                let stuck = (self.ring.fill() > STUCK_FILL).then(|| self.progress.max(self.placed) + STUCK);
                let unsent = self.ring.unsent().is_some() && !call.requests.is_closed();
                let ask = (self.progress.elapsed() < ASKS && self.asking.is_none())
                    .then(|| self.progress.max(self.asked) + ASK);
                let times = self.times([(ask, Due::Ask), (stuck, Due::Stuck)]);
                let response = tokio::select! {
                    command = self.commands.recv(), if takes => {
                        self.take(command);
                        None
                    }
                    // Closed: the call is over, and its status, which says why, is the next response.
                    permit = call.requests.reserve(), if unsent => {
                        if let Ok(permit) = permit {
                            self.send(permit);
                        }
                        None
                    }
                    response = call.responses.message() => Some(response),
                    () = self.events.ready() => None,
                    answer = answer(&mut self.asking) => {
                        self.asking = None;
                        // Every other answer is given to what the recognizer publishes, too.
                        matches!(answer, Ok(true)).then(|| Err(Status::data_loss("history branched in a silence")))
                    }
                    due = due(&mut self.ending, begins, &mut self.alarm, times) => {
                        if let Due::Stuck = due {
                            let recognizer = &call.worker.address;
                            tracing::warn!(recognizer, "recognizer covers nothing: moving its stream");
                            call.worker.failed();
                            return self.elsewhere(Fault::Own);
                        }
                        self.due(due)?;
                        None
                    }
                };
                match response {
                    Some(response) => self.answered(call, response),
                    None => {
                        self.pour(&call);
                        Ok(Place::At(call))
                    }
                }
            }
            Place::Moving { since, mut attempt, wait } => {
                let times = self.times([(None, Due::Again); 2]);
                tokio::select! {
                    command = self.commands.recv(), if takes => self.take(command),
                    (keeper, result) = &mut attempt => {
                        self.keeper = Some(keeper);
                        return self.placed(since, wait, result);
                    }
                    () = self.events.ready() => {}
                    due = due(&mut self.ending, begins, &mut self.alarm, times) => self.due(due)?,
                }
                Ok(Place::Moving { since, attempt, wait })
            }
            Place::Waiting { since, until: again, wait } => {
                let times = self.times([(Some(again), Due::Again), (None, Due::Again)]);
                tokio::select! {
                    command = self.commands.recv(), if takes => self.take(command),
                    () = self.events.ready() => {}
                    due = due(&mut self.ending, begins, &mut self.alarm, times) => {
                        if let Due::Again = due {
                            return self.moving(since, wait);
                        }
                        self.due(due)?;
                    }
                }
                Ok(Place::Waiting { since, until: again, wait })
            }
        }
    }

    /// What is due next, and when: of every place, and of the present one.
    fn times(&self, more: [(Option<Instant>, Due); 2]) -> (Instant, Due) {
        let mut next = (self.health_due, Due::Health);
        for (at, due) in [(self.deadline(), Due::Over), (self.muted_at(), Due::Muted)].into_iter().chain(more) {
            if let Some(at) = at.filter(|at| *at < next.0) {
                next = (at, due);
            }
        }
        next
    }

    /// Asks the log whether it still has what was published last.
    fn ask(&mut self) {
        self.asked = Instant::now();
        self.asking = self.keeper.as_ref().map(|keeper| -> Asking { Box::pin(keeper.has_branched(CLAIM)) });
    }

    /// When an end that gets no further is given up.
    fn deadline(&self) -> Option<Instant> {
        let (since, patience) = self.ends?;
        Some((self.progress.max(since) + patience).min(since + patience * PATIENCES))
    }

    /// When a live stream that sends nothing is taken for muted.
    fn muted_at(&self) -> Option<Instant> {
        let speaks = !self.muted && !self.placing.spec.recorded && self.ends.is_none();
        (speaks && self.ring.covered() < self.ring.next_chunk()).then(|| self.heard + MUTED)
    }

    fn due(&mut self, due: Due) -> Result<(), Finished> {
        match due {
            Due::Ending => {
                let patience = *self.ending.borrow_and_update();
                self.ends = Some((Instant::now(), patience.unwrap_or(ABANDONED)));
            }
            Due::Muted => {
                self.muted = true;
                // Refused only when so many wait that an utterance end is near anyway.
                self.ring.mark(MarkerKind::Finalize(MUTE.to_owned()));
            }
            Due::Health => self.tell_health(),
            Due::Ask => self.ask(),
            // Said by the place itself.
            Due::Stuck | Due::Again => {}
            Due::Over => {
                let (_, patience) = self.ends.unwrap_or((Instant::now(), ABANDONED));
                return Err(finished(UplinkError::Stalled(patience)));
            }
        }
        Ok(())
    }

    fn take(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Chunk { data, arrived, waited }) => {
                (self.heard, self.muted) = (Instant::now(), false);
                metrics::received(data.len());
                if self.placing.spec.recorded {
                    self.recorded = self.recorded + self.meter.chunk(&data).unwrap_or_default();
                } else {
                    if waited {
                        self.anchor.paused();
                    }
                    let Origin { at, gone } = self.origin_at;
                    let since_origin = gone + arrived.saturating_duration_since(at);
                    let to = match self.meter.chunk(&data) {
                        Some(length) => self.anchor.chunk(since_origin, length),
                        None => self.anchor.unmeasured(since_origin),
                    };
                    if let Some(to) = to {
                        metrics::reanchored();
                        self.ring.mark(MarkerKind::Reanchor(to));
                    }
                }
                let number = self.ring.push(data);
                if let Some(tracing) = &mut self.tracing {
                    tracing.arrived(number, arrived);
                }
                self.share.set(self.ring.bytes());
            }
            Some(Command::Mark(marker)) => {
                if let MarkerKind::Config(config) = &marker
                    && config.format != self.format
                {
                    self.format = config.format;
                    self.meter = Meter::new(config.format);
                }
                let finalize = if let MarkerKind::Finalize(id) = &marker { Some(id.clone()) } else { None };
                if !self.ring.mark(marker)
                    && let Some(id) = finalize
                {
                    let error = UplinkError::TooManyFinalizes { limit: Limits::default().finalizes };
                    self.events.push(UplinkEvent::FinalizeRefused { id, error });
                }
            }
            Some(Command::Hold) => self.muted = true,
            None => {
                self.closing = true;
                self.ring.mark(MarkerKind::End);
            }
        }
    }

    /// Hands over what there is room for.
    fn pour(&mut self, call: &Call) {
        while self.ring.unsent().is_some()
            && let Ok(permit) = call.requests.try_reserve()
        {
            self.send(permit);
        }
    }

    fn send(&mut self, permit: mpsc::Permit<'_, v1::RecognizeRequest>) {
        let Some(item) = self.ring.unsent() else { return };
        let request = match item {
            Item::Chunk { number, data } => {
                if *number < self.sent_once {
                    metrics::replayed(data.len());
                } else {
                    self.sent_once = number.next();
                    if let Some(tracing) = &mut self.tracing {
                        tracing.sent(*number);
                    }
                }
                Request::Chunk { number: *number, data: data.clone() }
            }
            Item::Marker { chunk, marker } => Request::Marker(Marker { chunk: *chunk, kind: marker.clone() }),
        };
        permit.send(request.into());
        self.ring.sent();
    }

    fn answered(
        &mut self,
        call: Box<Call>,
        response: Result<Option<v1::RecognizeResponse>, Status>,
    ) -> Result<Place, Finished> {
        let response = match response {
            Ok(Some(response)) => response,
            Ok(None) => return self.lost(&call, &Status::internal("the recognizer ended the call")),
            Err(status) => return self.lost(&call, &status),
        };
        match Response::try_from(response) {
            Ok(Response::Opened) => {}
            Ok(Response::Ack(ack)) => self.acknowledged(&ack),
            Ok(Response::Finalized { id, position }) => {
                if self.ring.finalized(&id) && id != MUTE {
                    self.events.push(UplinkEvent::Finalized { id, position });
                }
            }
            Ok(Response::Ended { position }) => {
                return Err(Finished { last: Some(position), complete: true, error: None });
            }
            Ok(Response::Health(health)) => {
                let changed = health.ladder != self.health.ladder;
                self.health = Health { covered: self.health.covered.max(health.covered), ..health };
                if changed {
                    self.tell_health();
                }
            }
            Ok(Response::Signal(signal)) => self.events.push(UplinkEvent::Signal(signal)),
            // A newer recognizer may say things this version does not know; it must not end the stream.
            Err(malformed) => {
                tracing::warn!(%malformed, recognizer = call.worker.address, "an answer was not understood")
            }
        }
        Ok(Place::At(call))
    }

    fn acknowledged(&mut self, ack: &Ack) {
        self.finals.store(self.finals_before + ack.finals, Ordering::Relaxed);
        self.keep(ack);
        if let Some(tracing) = &mut self.tracing {
            let (Origin { at, gone }, recorded) = (self.origin_at, self.placing.spec.recorded);
            let clock = |time| if recorded { None } else { moment(at, gone, time) };
            tracing.acknowledged(ack.through_chunk, &ack.events, clock);
        }
        let covered = self.ring.covered();
        let settled = self.ring.acknowledge(ack.through_chunk, ack.restart.chunk);
        if self.ring.covered() > covered {
            (self.progress, self.failures, self.hasty) = (Instant::now(), 0, 0);
        }
        metrics::acknowledged(settled.bytes);
        self.share.set(self.ring.bytes());
        if let Some(config) = settled.config {
            self.placing.spec.config = *config;
        }
        if let Some(position) = ack.top.position() {
            for id in settled.finalized.into_iter().filter(|id| id != MUTE) {
                self.events.push(UplinkEvent::Finalized { id, position });
            }
        }
        self.health.covered = self.health.covered.max(ack.through);
        let (chunk, restart) = (self.ring.covered(), ack.restart.chunk);
        self.events.push(UplinkEvent::Acked { chunk, restart, through: ack.through });
    }

    /// Said by what this end has taken and the log has covered, whatever has become of the recognizer.
    fn tell_health(&mut self) {
        self.health_due = Instant::now() + HEALTH_EVERY;
        let taken = if self.placing.spec.recorded { self.recorded } else { self.anchor.clock() };
        let heard = taken.max(self.health.heard).max(self.health.covered);
        self.events.push(UplinkEvent::Health(Health { heard, ..self.health }));
    }

    /// What was put on the log may have to be put there again.
    fn keep(&mut self, ack: &Ack) {
        // An older recognizer does not say what it was: it is as lost as the log loses it.
        let Some(from) = ack.from else { return };
        let stretch = Stretch {
            from: from.0,
            through: ack.through.0,
            events: ack.events.clone(),
            restart: Some(ack.restart.clone()),
        };
        if let Some(keeper) = &mut self.keeper {
            keeper.accepted(stretch, ack.top);
        }
    }

    /// The call is over before the stream is.
    fn lost(&mut self, call: &Call, status: &Status) -> Result<Place, Finished> {
        tracing::info!(recognizer = call.worker.address, %status, stream = %self.placing.spec.stream, "stream left its recognizer");
        match verdict(status) {
            Verdict::Final(error) => Err(Finished { last: None, complete: false, error: Some(error) }),
            Verdict::Elsewhere { unwell, fault } => {
                if unwell {
                    call.worker.failed();
                }
                self.elsewhere(fault)
            }
        }
    }

    /// On to the next recognizer: at once, unless the last stays were short and got the stream no further.
    fn elsewhere(&mut self, fault: Fault) -> Result<Place, Finished> {
        let since = Instant::now();
        // Nobody works on it meanwhile.
        (self.health.speech, self.health.realtime_factor) = (0.0, 0.0);
        self.tell_health();
        // A stream of which nothing is owed has failed nobody, and was failed by nobody.
        if self.ring.covered() < self.ring.next_chunk() {
            self.failures += fault as u32;
        }
        if self.failures > FAILURES {
            let hasty = self.hasty;
            return Err(broken(format!("{hasty} recognizers in a row failed, and got no further with the stream")));
        }
        self.hasty = if self.placed.elapsed() >= CALM { 1 } else { self.hasty + 1 };
        if self.hasty == 1 {
            return self.moving(since, RETRY_FIRST);
        }
        let wait = RETRY_FIRST.saturating_mul(1 << (self.hasty - 1).min(16)).min(RETRY_LAST);
        Ok(Place::Waiting { since, until: since + wait, wait })
    }

    /// Claims anew, which fences whoever still works on the stream, and asks for the next place.
    fn moving(&mut self, since: Instant, wait: Duration) -> Result<Place, Finished> {
        self.asking = None;
        let placing = self.placing.clone();
        let Some(mut keeper) = self.keeper.take() else {
            return Err(broken("two attempts to place a stream".to_owned()));
        };
        let attempt: Connecting = Box::pin(async move {
            let call = match claimed(keeper.claim_again(CLAIM)).await {
                Ok(claim) => placing.place(claim, false).await,
                Err(error) => Err(error),
            };
            (keeper, call)
        });
        Ok(Place::Moving { since, attempt, wait })
    }

    fn placed(&mut self, since: Instant, wait: Duration, result: Result<Call, OpenError>) -> Result<Place, Finished> {
        match result {
            Ok(call) => {
                if let Err(forgotten) = self.ring.rewind(call.restart.as_ref()) {
                    return Err(broken(forgotten.to_string()));
                }
                metrics::placed(false, since.elapsed());
                self.placed = Instant::now();
                self.finals_before = self.finals.load(Ordering::Relaxed);
                let chunk = call.restart.as_ref().map_or(ChunkNumber::default(), |restart| restart.chunk);
                self.events.push(UplinkEvent::Moved { chunk });
                Ok(Place::At(Box::new(call)))
            }
            Err(OpenError::Refused(refusal)) => Err(finished(UplinkError::Refused(refusal))),
            Err(OpenError::Unsupported(what)) => Err(finished(UplinkError::Unsupported(what))),
            Err(error @ (OpenError::Overloaded { .. } | OpenError::Unavailable(_))) => {
                tracing::warn!(%error, stream = %self.placing.spec.stream, "no place for the stream yet");
                Ok(Place::Waiting { since, until: Instant::now() + wait, wait: (2 * wait).min(RETRY_LAST) })
            }
        }
    }
}

impl Placing {
    async fn claim(&self) -> Result<Claim, OpenError> {
        let publisher = PublisherId::Stream(self.spec.stream);
        claimed(self.bus.claim(&self.spec.key, &publisher)).await
    }

    async fn now(&self) -> Result<Timestamp, OpenError> {
        match timeout(CLAIM, self.bus.now()).await {
            Ok(Ok(now)) => Ok(now),
            Ok(Err(error)) => Err(OpenError::Unavailable(error.to_string())),
            Err(_) => Err(OpenError::Unavailable(format!("no time within {CLAIM:?}"))),
        }
    }

    /// Offers the stream to one recognizer after the other.
    async fn place(&self, claim: Claim, first: bool) -> Result<Call, OpenError> {
        let (mut full, mut tried) = (false, 0);
        let mut unsupported = Vec::new();
        let mut last = "none is configured".to_owned();
        for worker in self.pool.candidates(&self.spec.key.meeting) {
            let attempt = timeout(self.config.open.get(), self.offer(&worker, &claim, first)).await;
            let status = match attempt {
                Ok(Ok(call)) => {
                    worker.took_one();
                    return Ok(call);
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer within {:?}", self.config.open.get())),
            };
            tracing::info!(recognizer = worker.address, %status, stream = %self.spec.stream, "recognizer did not take the stream");
            match status.code() {
                Code::ResourceExhausted => full = true,
                Code::InvalidArgument => return Err(OpenError::Unsupported(status.message().to_owned())),
                // Another one may run another engine.
                Code::Unimplemented => unsupported.push(status.message().to_owned()),
                _ => worker.failed(),
            }
            tried += 1;
            last = format!("{}: {}", worker.address, status.message());
        }
        if !unsupported.is_empty() && unsupported.len() == tried {
            unsupported.sort_unstable();
            unsupported.dedup();
            return Err(OpenError::Unsupported(unsupported.join("; ")));
        }
        if full {
            Err(OpenError::Overloaded { retry_after: Duration::from_secs(5) })
        } else {
            Err(OpenError::Unavailable(last))
        }
    }

    async fn offer(&self, worker: &Arc<Worker>, claim: &Claim, first: bool) -> Result<Call, Status> {
        let (requests, outgoing) = mpsc::channel(REQUESTS);
        let open = Open {
            key: self.spec.key.clone(),
            stream: self.spec.stream,
            participant: Arc::clone(&self.spec.participant),
            config: self.spec.config.clone(),
            generation: claim.generation,
            watermark: StreamTime(claim.watermark),
            restart: claim.restart.clone(),
            origin: claim.origin,
            recorded: self.spec.recorded,
            first,
            seen: claim.top,
        };
        let first = Request::Open(Box::new(open)).into();
        // There is room: the channel is new.
        requests.try_send(first).map_err(|_| Status::internal("a new channel has no room"))?;
        let mut client = RecognizerClient::new(worker.streams());
        let mut call = tonic::Request::new(ReceiverStream::new(outgoing));
        if let Some(traceparent) = &self.traceparent {
            call.metadata_mut().insert("traceparent", traceparent.clone());
        }
        let mut responses = client.recognize(call).await?.into_inner();
        match responses.message().await?.map(Response::try_from) {
            Some(Ok(Response::Opened)) => {}
            other => return Err(Status::internal(format!("expected `opened`, got {other:?}"))),
        }
        Ok(Call { requests, responses, worker: Arc::clone(worker), restart: claim.restart.clone() })
    }
}

async fn claimed(claim: impl Future<Output = Result<Claim, Error>>) -> Result<Claim, OpenError> {
    match timeout(CLAIM, claim).await {
        Ok(Ok(claim)) => Ok(claim),
        Ok(Err(Error::Refused(refusal))) => Err(OpenError::Refused(refusal)),
        Ok(Err(error @ Error::Unavailable(_))) => Err(OpenError::Unavailable(error.to_string())),
        Err(_) => Err(OpenError::Unavailable(format!("no claim within {CLAIM:?}"))),
    }
}

async fn answer(asking: &mut Option<Asking>) -> Result<bool, Error> {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

/// What time, or the handle, asks for.
#[derive(Clone, Copy)]
enum Due {
    /// No more audio comes.
    Ending,
    /// The live stream sends nothing.
    Muted,
    /// It is time to tell how the stream is.
    Health,
    /// The end has taken too long.
    Over,
    /// The log is to be asked.
    Ask,
    /// The recognizer covers nothing.
    Stuck,
    /// The next recognizer is to be tried.
    Again,
}

/// `begins`: the end was not asked for yet.
async fn due(
    ending: &mut watch::Receiver<Option<Duration>>,
    begins: bool,
    alarm: &mut Alarm,
    (at, next): (Instant, Due),
) -> Due {
    tokio::select! {
        // An error says that the handle was dropped, which is an end too.
        _ = ending.changed(), if begins => Due::Ending,
        () = alarm.rings(at) => next,
    }
}

/// What the log said to the recognizer, in our words.
const FULL: &str = "the conversation has as many events as one may have";

enum Verdict {
    Final(UplinkError),
    Elsewhere { unwell: bool, fault: Fault },
}

/// What the end of a stay says about its stream.
#[derive(Clone, Copy)]
enum Fault {
    /// Nothing: the recognizer drains, or the log failed it.
    None = 0,
    /// Little: the connection broke, as it does for all streams of a recognizer that dies.
    Shared = 1,
    /// Much: the recognizer failed at this stream, and says so itself or has nothing to say.
    Own = 2,
}

/// What the end of a call means for its stream (`recognizer.proto` lists the codes).
fn verdict(status: &Status) -> Verdict {
    // What a recognizer says of itself came over the wire, and has no cause here.
    let told = std::error::Error::source(status).is_none();
    match status.code() {
        _ if !told => Verdict::Elsewhere { unwell: true, fault: Fault::Shared },
        Code::Aborted => Verdict::Final(UplinkError::Fenced),
        Code::FailedPrecondition => Verdict::Final(UplinkError::Refused(Refusal::Ended)),
        Code::NotFound => Verdict::Final(UplinkError::Refused(Refusal::Gone)),
        Code::Unimplemented | Code::InvalidArgument => {
            Verdict::Final(UplinkError::Unsupported(status.message().to_owned()))
        }
        Code::OutOfRange => Verdict::Final(UplinkError::Refused(Refusal::Full { what: FULL })),
        // It is the log that failed.
        Code::ResourceExhausted | Code::DataLoss => Verdict::Elsewhere { unwell: false, fault: Fault::None },
        Code::Unavailable => Verdict::Elsewhere { unwell: true, fault: Fault::None },
        _ => Verdict::Elsewhere { unwell: true, fault: Fault::Own },
    }
}

/// Events on their way to the connection. Nothing is dropped but what a newer one replaces; what cannot be replaced is
/// bounded by what was asked for (finalizes) or happens at most once a stay.
struct Outgoing {
    channel: mpsc::Sender<UplinkEvent>,
    waiting: VecDeque<UplinkEvent>,
}

impl Outgoing {
    /// Signals that nobody read in time are worth nothing later.
    const MOST: usize = 256;

    fn push(&mut self, event: UplinkEvent) {
        use std::mem::discriminant;
        if matches!(event, UplinkEvent::Acked { .. } | UplinkEvent::Health(_)) {
            self.waiting.retain(|waiting| discriminant(waiting) != discriminant(&event));
        }
        if matches!(event, UplinkEvent::Signal(_)) && self.waiting.len() >= Self::MOST {
            return;
        }
        self.waiting.push_back(event);
    }

    /// Hands one event over, or never ends when there is none or nobody listens.
    async fn ready(&mut self) {
        if self.waiting.is_empty() {
            std::future::pending::<()>().await;
        }
        match self.channel.reserve().await {
            Ok(permit) => {
                if let Some(event) = self.waiting.pop_front() {
                    permit.send(event);
                }
            }
            Err(_) => {
                self.waiting.clear();
                std::future::pending::<()>().await;
            }
        }
    }

    /// Hands over what is left to a connection that still reads.
    async fn flush(&mut self) {
        for event in self.waiting.drain(..) {
            if !matches!(timeout(Duration::from_secs(1), self.channel.send(event)).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}

fn finished(error: UplinkError) -> Finished {
    Finished { last: None, complete: false, error: Some(error) }
}

fn broken(what: String) -> Finished {
    tracing::error!(what, "a stream cannot go on");
    finished(UplinkError::Broken(what))
}
