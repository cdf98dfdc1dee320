//! Drives one speaker's session: what the socket says goes in, what the session asks for is carried out, in order and
//! one after another. Two loops in one task, one reading and one writing, without a lock between them.
//!
//! ```text
//! socket ─▶ messages ─▶ Session ─▶ effects ─┬─▶ Uplink (audio)         Outbox ─▶ write loop ─▶ socket
//!                          ▲                ├─▶ StreamPublisher (log)     ▲
//!             Uplink events┘                ├─▶ Hub (results) ────────────┤
//!                                           └─▶ replies, close ───────────┘
//! ```
//!
//! Cost: one task; while audio waits to be handed on, the socket is not read, which is how its client is slowed.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use hearsay_auth::{Claims, Permission};
use hearsay_bus::{Error, Opened, Proposal, Refusal, append::patiently};
use hearsay_fanout::{Broken, Class, Join, JoinError, Member, Opted, Outbox, Outgoing, View, frame};
use hearsay_protocol::{
    CloseCode, ConversationId, ConversationKey, Epoch, Event, MeetingKey, ParticipantId, Position, StreamId, TraceId,
    client::{ClientError, ClientMessage, Extension, Secret, StartRequest},
    event::{ConfigChanged, Participant, SpeakerConfig, StreamEnd, StreamEnded, StreamStarted, Tracker},
};
use hearsay_runtime::{Alarm, trace};
use hearsay_uplink::{Events, OpenError, StreamSpec, StreamTrace, Uplink, UplinkError, UplinkEvent};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, MissedTickBehavior, interval, interval_at, timeout},
};
use uuid::Uuid;

use crate::{
    history, metrics,
    publisher::StreamPublisher,
    renewals::renewed,
    reply,
    request::Query,
    resume,
    session::{Effect, Handover, Input, Limits, Reason, Reply, Resumed, Rights, Session, StartFailure, Started},
    shared::{Shared, wall},
    socket::{Message, messages},
    streams::Place,
    transport::{Outward, Transport},
};

/// The log is asked this often whether it still knows of the stream.
const CHECK: Duration = Duration::from_secs(4);
/// And has this long to answer, in which the socket is not read.
const CHECK_PATIENCE: Duration = Duration::from_millis(500);
/// How often it is asked whether somebody else goes on with a stream that was left.
const PART_CHECK: Duration = Duration::from_secs(1);
/// A conversation that ends between finding it and speaking in it is looked for again this often.
const OPEN_TRIES: usize = 3;
/// How long a client may take to answer our close frame, so that it is read before the connection is torn down.
pub(crate) const GOODBYE: Duration = Duration::from_secs(2);
/// What a client is told to wait when the log is full.
const FULL_RETRY: Duration = Duration::from_secs(30);

/// Who speaks, and on what terms.
pub(crate) struct Speaker {
    pub(crate) meeting: MeetingKey,
    pub(crate) claims: Claims,
    pub(crate) query: Query,
}

/// Serves a speaker's socket to its end.
pub(crate) async fn serve(shared: Arc<Shared>, speaker: Speaker, socket: Transport, leftover: Bytes) {
    let begun = Instant::now();
    let _open = metrics::session_opened(speaker.query.source);
    let (outbox, outgoing) = Outbox::new(shared.hub.config().outbox_limits());
    let (read, write) = socket.split();
    let incoming = messages(std::io::Cursor::new(leftover).chain(read));
    let limits = Limits {
        open_idle: shared.config.open_idle.get(),
        close_grace: shared.config.close_grace.get(),
        pace_burst: shared.config.pace_burst.get(),
        requests_burst: shared.config.requests_burst,
        requests_per_second: shared.config.requests_per_second,
        token_grace: shared.config.token_grace.get(),
        trackers: shared.config.trackers.iter().map(Tracker::from).collect(),
    };
    let session = Session::new(limits, rights(&speaker.claims), speaker.query.source, begun.into_std());
    let stall = shared.config.silence.get();
    let mut connection = Connection {
        shared,
        speaker,
        session,
        outbox,
        live: None,
        member: None,
        joined: false,
        finals: 0,
        counting: None,
    };
    tokio::join!(connection.run(incoming), write_loop(outgoing, write, stall));
    connection.tell(begun);
}

pub(crate) fn rights(claims: &Claims) -> Rights {
    Rights {
        publish: claims.permissions.contains(Permission::Publish),
        recorded: claims.permissions.contains(Permission::PublishRecorded),
        until: std::time::Instant::now() + claims.remaining(wall()),
    }
}

/// Writes until the outbox is closed. A socket that takes nothing for `stall` is given up.
pub(crate) async fn write_loop(mut outgoing: Outgoing, mut socket: Outward, stall: Duration) {
    while let Some(bytes) = outgoing.next().await {
        // TLS keeps what it could not write yet, until it is flushed.
        let written = async {
            socket.write_all(&bytes).await?;
            socket.flush().await
        };
        match timeout(stall, written).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
    // The last thing written was the close frame.
    let _ = timeout(GOODBYE, socket.shutdown()).await;
}

struct Connection {
    shared: Arc<Shared>,
    speaker: Speaker,
    session: Session,
    outbox: Outbox,
    live: Option<Live>,
    member: Option<(ConversationKey, Member)>,
    /// History is for the first join of a socket.
    joined: bool,
    /// What its streams said, and the present one's count.
    finals: u64,
    counting: Option<Arc<AtomicU64>>,
}

/// A stream under way.
struct Live {
    key: ConversationKey,
    stream: StreamId,
    uplink: Uplink,
    events: Events,
    publisher: StreamPublisher,
    /// As the log has it.
    started: Arc<StreamStarted>,
    config: SpeakerConfig,
    opted: Opted,
    place: Place,
    /// Changes the recognizer has not taken yet, in their order. Bounded by what a client may ask within the stall limit.
    unconfirmed: VecDeque<Unconfirmed>,
    /// Another connection has the stream.
    fenced: bool,
    /// Where the log says that this connection has the stream.
    began: Position,
    no_connection_timeout: Duration,
}

/// A change of configuration, and what the client is told when it holds. An utterance end asked for right behind the change
/// is answered only by a recognizer that took it.
struct Unconfirmed {
    /// Of that utterance end. Random, so no client's is the same.
    id: String,
    /// False: it was refused, because too many waited.
    asked: bool,
    told: Vec<Reply>,
}

/// Tells what holds by now. Gives the event back when it is the client's.
async fn confirm(
    unconfirmed: &mut VecDeque<Unconfirmed>,
    uplink: Option<&Uplink>,
    outbox: &Outbox,
    event: UplinkEvent,
) -> Option<UplinkEvent> {
    let id = match &event {
        UplinkEvent::Finalized { id, .. } | UplinkEvent::FinalizeRefused { id, .. } => id,
        _ => return Some(event),
    };
    let index = unconfirmed.iter().position(|change| change.id == *id);
    if let (Some(index), UplinkEvent::FinalizeRefused { .. }) = (index, &event) {
        unconfirmed[index].asked = false;
        return None;
    }
    if let Some(index) = index {
        for reply in unconfirmed.drain(..=index).flat_map(|change| change.told) {
            outbox.offer(frame::text(&reply::text(&reply)), Class::Control);
        }
    }
    // One that waited is answered: there is room for another.
    if let Some(change) = unconfirmed.iter_mut().find(|change| !change.asked)
        && let Some(uplink) = uplink
    {
        // A stream that is over says so itself.
        change.asked = uplink.finalize(change.id.clone()).await.is_ok();
    }
    index.is_none().then_some(event)
}

impl Live {
    fn resume_token(&self, shared: &Shared) -> String {
        let good_for = 2 * shared.config.resume_renewal.get() + self.no_connection_timeout;
        resume::token(&shared.auth, &self.key, self.stream, self.began, wall() + good_for)
    }
}

impl Connection {
    async fn run(&mut self, incoming: impl Stream<Item = Message>) {
        let mut incoming = pin!(incoming);
        let mut effects = VecDeque::new();
        let drain = self.shared.tasks.drain();
        let shared = Arc::clone(&self.shared);
        // Asked in the first half, a speaker has the second one to come to the end of a sentence.
        let mut draining = pin!(async move {
            drain.cancelled().await;
            let (asked, over) = (Instant::now(), Instant::now() + shared.spread());
            tokio::time::sleep_until(asked + shared.spread().mul_f64(random_fraction() / 2.0)).await;
            over
        });
        let (mut drained, mut ended, mut cut) = (false, false, false);
        let mut heard = Instant::now();
        let mut pinged = false;
        let mut peers_code = None;
        let mut checks = interval(CHECK);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let renewal = self.shared.config.resume_renewal.get();
        let mut renewals = interval_at(Instant::now() + renewal, renewal);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Each message puts the silence off.
        let mut alarm = Alarm::default();
        while !self.session.is_closed() {
            let silence = if pinged { self.shared.config.silence } else { self.shared.config.ping_every };
            let silent_at = heard + silence.get();
            let wants_input = self.session.wants_input();
            let tick_at = self.session.deadline().map(Instant::from_std);
            let silent_at = Some(silent_at).filter(|at| wants_input && tick_at.is_none_or(|tick| *at < tick));
            let input = tokio::select! {
                message = incoming.next(), if wants_input => {
                    (heard, pinged) = (Instant::now(), false);
                    match message.unwrap_or(Message::Lost) {
                        Message::Text(text) => Input::Message(ClientMessage::parse(&text)),
                        Message::Binary(chunk) => Input::Audio(chunk),
                        Message::Ping(payload) => Input::Ping(payload),
                        Message::Pong => Input::Pong,
                        Message::Close(code) => {
                            peers_code = code;
                            Input::Closed(code)
                        }
                        Message::Violation(code, error) => Input::Violation(code, error),
                        Message::Lost => Input::Lost,
                    }
                }
                news = news(&mut self.live) => match news {
                    News::Event(UplinkEvent::Failed(UplinkError::Fenced)) | News::Taken => self.fenced(),
                    News::Event(event) => match self.confirmed(event).await {
                        Some(event) => Input::Stream(event),
                        None => continue,
                    },
                },
                () = conversation_ended(&self.member), if !ended => {
                    ended = true;
                    Input::ConversationEnded
                }
                broken = self.outbox.broken(), if !cut => {
                    cut = true;
                    match broken {
                        Broken::Evicted { .. } => Input::Cut(Reason::SlowReader),
                        Broken::Closed(_) => Input::Cut(Reason::Internal),
                        Broken::PeerGone => Input::Lost,
                    }
                }
                _ = checks.tick(), if self.live.is_some() => match self.check().await {
                    Some(input) => input,
                    None => continue,
                },
                _ = renewals.tick() => match &self.live {
                    Some(live) => Input::ResumeRenewed(live.resume_token(&self.shared)),
                    None => continue,
                },
                until = &mut draining, if !drained => {
                    drained = true;
                    Input::Drain { until: until.into_std() }
                }
                () = alarm.rings(silent_at.or(tick_at).unwrap_or_else(far)) => {
                    if silent_at.is_none() {
                        Input::Tick
                    } else if pinged {
                        Input::Lost
                    } else {
                        pinged = true;
                        self.outbox.offer(frame::ping(), Class::Control);
                        continue;
                    }
                }
            };
            self.session.handle(input, Instant::now().into_std(), &mut effects);
            while let Some(effect) = effects.pop_front() {
                if let Effect::Start(_) = effect {
                    ended = false;
                }
                if let Some(answer) = self.carry_out(effect, peers_code).await {
                    self.session.handle(answer, Instant::now().into_std(), &mut effects);
                }
            }
        }
        // Whatever is still to come is read, so that our close frame is not lost to a reset; the client closes behind it.
        let goodbye = async { while incoming.next().await.is_some() {} };
        let _ = timeout(GOODBYE, goodbye).await;
    }

    /// Whether the log still knows of the stream, and of this connection as the one that has it. A log out of reach, and
    /// every other refusal, are told by what the stream itself publishes.
    async fn check(&mut self) -> Option<Input> {
        let live = self.live.as_mut()?;
        match timeout(CHECK_PATIENCE, live.publisher.check()).await {
            Ok(Ok(())) => None,
            Ok(Err(Error::Refused(Refusal::Fenced { .. }))) => Some(self.fenced()),
            Ok(Err(_)) | Err(_) => {
                tracing::debug!(key = %live.key, stream = %live.stream.0, "the log could not be asked for a stream");
                None
            }
        }
    }

    /// Another connection goes on with the stream: nothing of it is this one's to end.
    fn fenced(&mut self) -> Input {
        if let Some(live) = &mut self.live {
            live.fenced = true;
        }
        failed(UplinkError::Fenced)
    }

    /// Carries one effect out, and gives the session's answer to it.
    async fn carry_out(&mut self, effect: Effect, peers_code: Option<u16>) -> Option<Input> {
        match effect {
            Effect::Start(request) => {
                let begun = Instant::now();
                let answer = self.start(*request).await;
                metrics::start_answered(outcome(&answer), begun.elapsed());
                Some(Input::Started(answer))
            }
            Effect::Join => self.join().await,
            Effect::Opt(request) => self.opt(&request).await,
            Effect::Audio(chunk) => {
                let live = self.live.as_ref()?;
                live.uplink.chunk(chunk).await.err().map(failed)
            }
            Effect::Configure { config, told } => self.configure(*config, told).await,
            Effect::Finalize(id) => {
                let live = self.live.as_ref()?;
                let refused = live.uplink.finalize(id.clone()).await.err()?;
                Some(match refused {
                    UplinkError::TooManyFinalizes { .. } => {
                        Input::Stream(UplinkEvent::FinalizeRefused { id, error: refused })
                    }
                    error => failed(error),
                })
            }
            Effect::Finish(how) => {
                let begun = Instant::now();
                let complete = self.finish(how).await;
                metrics::flushed(begun.elapsed());
                Some(Input::Finished { complete })
            }
            Effect::Part => Some(Input::Finished { complete: self.part().await }),
            Effect::CheckToken(token) => Some(Input::TokenChecked(self.check_token(&token))),
            Effect::Send(reply) => {
                if let Reply::Error { error, .. } = &reply {
                    metrics::message_refused(error.code);
                }
                self.outbox.offer(frame::text(&reply::text(&reply)), Class::Control);
                None
            }
            Effect::Pong(payload) => {
                self.outbox.offer(frame::pong(&payload), Class::Control);
                None
            }
            Effect::Close(code) => {
                self.outbox.close(code, "");
                None
            }
            Effect::Hangup => {
                self.outbox.close(peers_code.map_or(CloseCode::Return, CloseCode::Other), "");
                None
            }
        }
    }

    /// Finds or opens the conversation, finds the stream a recognizer, and says on the log that it began.
    async fn start(&mut self, request: StartRequest) -> Result<Started, StartFailure> {
        if let Some(token) = &request.extension.resume {
            return self.resume(&request, token).await;
        }
        for _ in 0..OPEN_TRIES {
            match self.try_start(&request).await {
                Ok(started) => return Ok(started),
                Err(Setback::Ended) => {}
                Err(Setback::Failed(failure)) => return Err(failure),
            }
        }
        Err(StartFailure::Unavailable("the meeting's conversations end as they begin; try again".to_owned()))
    }

    async fn try_start(&mut self, request: &StartRequest) -> Result<Started, Setback> {
        let patience = self.shared.config.log_patience.get();
        let bus = &self.shared.bus;
        let meeting = &self.speaker.meeting;
        let title = request.title.clone().unwrap_or_else(|| meeting.meeting.to_string());
        let Opened { key, .. } = patiently(patience, || bus.open(meeting, proposal(&title))).await?;
        let stream = StreamId(Uuid::new_v4());
        let speaker = &request.speaker;
        let participant = Arc::new(Participant {
            id: match &speaker.user_id {
                Some(user_id) => ParticipantId::of_user(key.conversation, user_id),
                None => ParticipantId::of_stream(key.conversation, stream),
            },
            user_id: speaker.user_id.clone(),
            name: speaker.name.clone().or_else(|| self.speaker.claims.name.clone()),
            email: speaker.email.clone(),
        });
        let spec = StreamSpec {
            key,
            stream,
            participant,
            config: request.config.clone(),
            recorded: request.extension.recorded,
            resumed: false,
            trace: self.trace(stream),
        };
        self.begin(spec, request).await
    }

    /// Goes on with a stream that began at another connection, here or at another gateway: the same stream of the same
    /// participant, from what the log knows of it.
    async fn resume(&mut self, request: &StartRequest, token: &Secret) -> Result<Started, StartFailure> {
        let Shared { config, auth, bus, .. } = &*self.shared;
        let patience = config.log_patience.get();
        let (key, was) = resume::find(auth, bus, &self.speaker.meeting, token, wall(), patience).await?;
        let spec = StreamSpec {
            key,
            stream: was.stream,
            participant: Arc::clone(&was.participant),
            config: request.config.clone(),
            recorded: was.recorded,
            resumed: true,
            trace: self.trace(was.stream),
        };
        metrics::resumed();
        self.begin(spec, request).await.map_err(|setback| match setback {
            Setback::Ended => resume::ended(),
            Setback::Failed(failure) => failure,
        })
    }

    async fn begin(&mut self, spec: StreamSpec, request: &StartRequest) -> Result<Started, Setback> {
        let StreamSpec { key, stream, participant, mut config, recorded, resumed, .. } = spec.clone();
        // From here on a failure drops the uplink, which ends the stream at the recognizer.
        let (uplink, events) = self.shared.uplinks.open(spec).await?;
        // The claim has fenced whoever had the stream; in this process they need not find out by themselves.
        let place = self.shared.streams.take(stream);
        config.format = uplink.format();
        let patience = self.shared.config.log_patience.get();
        let mut publisher = StreamPublisher::claim(&self.shared.bus, &key, stream, patience).await?;
        let started = Arc::new(StreamStarted {
            stream,
            participant,
            gateway: self.shared.gateway,
            config: config.clone(),
            origin: uplink.origin(),
            recorded,
            no_connection_timeout: request.no_connection_timeout,
        });
        let began = publisher.publish(Event::StreamStarted(Arc::clone(&started))).await?.position;
        let opted = opted(&request.extension, &self.speaker.claims);
        let conversation = key.conversation;
        let resumed =
            resumed.then(|| Resumed { chunk: uplink.first(), format: uplink.format(), behind: uplink.behind() });
        let live = Live {
            key,
            stream,
            uplink,
            events,
            publisher,
            started,
            config,
            opted,
            place,
            unconfirmed: VecDeque::new(),
            fenced: false,
            began,
            no_connection_timeout: request.no_connection_timeout,
        };
        let resume = live.resume_token(&self.shared);
        self.finals = self.finals();
        self.counting = Some(live.uplink.finals());
        self.live = Some(live);
        let trace = self.trace_id(stream);
        Ok(Started { conversation, stream, trace, resume, resumed })
    }

    /// That of the client's `traceparent`, if it had one.
    fn trace_id(&self, stream: StreamId) -> TraceId {
        self.speaker.query.trace.map_or(TraceId::of_stream(stream), |(context, _)| context.trace)
    }

    /// None where nothing is traced here, or the client does not want to be.
    fn trace(&self, stream: StreamId) -> Option<StreamTrace> {
        let told = self.speaker.query.trace;
        if !trace::is_on() || told.is_some_and(|(_, sampled)| !sampled) {
            return None;
        }
        Some(StreamTrace { trace: self.trace_id(stream), parent: told.map(|(context, _)| context.span) })
    }

    /// A client that starts again asks for other things beside its configuration.
    async fn opt(&mut self, request: &StartRequest) -> Option<Input> {
        let opted = opted(&request.extension, &self.speaker.claims);
        let live = self.live.as_mut()?;
        live.opted = opted;
        let timeout = request.no_connection_timeout;
        // The log waits for lost speakers as the latest start says.
        let asked = (timeout != live.no_connection_timeout).then(|| {
            Arc::new(StreamStarted {
                config: live.config.clone(),
                no_connection_timeout: timeout,
                ..(*live.started).clone()
            })
        });
        live.no_connection_timeout = timeout;
        let told = match asked {
            Some(started) => {
                live.started = Arc::clone(&started);
                live.publisher.publish(Event::StreamStarted(started)).await.err()
            }
            None => None,
        };
        let live = self.live.as_ref()?;
        let view = self.view(&live.config);
        if let Some((_, member)) = &self.member {
            member.set_view(view, opted, live.started.participant.id);
        }
        told.map(unpublished)
    }

    fn view(&self, config: &SpeakerConfig) -> View {
        View::speaker(config).unfiltered(self.speaker.query.view_all)
    }

    async fn join(&mut self) -> Option<Input> {
        let live = self.live.as_ref()?;
        let (view, opted) = (self.view(&live.config), live.opted);
        if let Some((key, member)) = &self.member
            && *key == live.key
        {
            member.set_view(view, opted, live.started.participant.id);
            return None;
        }
        self.member = None;
        let first = !std::mem::replace(&mut self.joined, true);
        let query = &self.speaker.query;
        let join = Join {
            key: live.key.clone(),
            speaker: live.started.participant.id,
            view,
            opted,
            since: query.since.filter(|_| first),
            history: if first { query.history } else { Default::default() },
            sink: self.outbox.clone(),
        };
        let key = live.key.clone();
        match timeout(self.shared.config.log_patience.get(), self.shared.hub.join(join)).await {
            Ok(Ok(member)) => {
                if first {
                    let (publisher, generation) = live.publisher.place();
                    history::tell(&self.shared, &key, &live.started.participant, publisher, generation);
                }
                self.member = Some((key, member));
                None
            }
            Ok(Err(JoinError::Gone)) => Some(Input::ConversationEnded),
            Ok(Err(JoinError::ShuttingDown)) => Some(Input::Drain { until: Instant::now().into_std() }),
            Err(_) => Some(failed(UplinkError::Broken("the feed did not take the speaker in".to_owned()))),
        }
    }

    /// See [`confirm`].
    async fn confirmed(&mut self, event: UplinkEvent) -> Option<UplinkEvent> {
        let Some(live) = &mut self.live else { return Some(event) };
        confirm(&mut live.unconfirmed, Some(&live.uplink), &self.outbox, event).await
    }

    /// The recognizer hears of what concerns it, the log of everything, and this socket's view changes at once. The client is
    /// told when the recognizer has taken it, which it may refuse.
    async fn configure(&mut self, config: SpeakerConfig, told: Vec<Reply>) -> Option<Input> {
        let view = self.view(&config);
        let live = self.live.as_mut()?;
        let old = std::mem::replace(&mut live.config, config.clone());
        let asks = concerns_recognition(&old, &config);
        if asks {
            let id = Uuid::new_v4().to_string();
            let asked = async {
                live.uplink.modify(config.clone()).await?;
                live.uplink.finalize(id.clone()).await
            };
            if let Err(error) = asked.await {
                return Some(failed(error));
            }
            live.unconfirmed.push_back(Unconfirmed { id, asked: true, told: Vec::new() });
        }
        if let Some((_, member)) = &self.member {
            member.set_view(view, live.opted, live.started.participant.id);
        }
        let changed = Event::ConfigChanged(Arc::new(ConfigChanged { stream: live.stream, config }));
        match live.publisher.publish(changed).await {
            Ok(_) => {
                match live.unconfirmed.back_mut() {
                    Some(change) => change.told.extend(told),
                    None => {
                        for reply in told {
                            self.outbox.offer(frame::text(&reply::text(&reply)), Class::Control);
                        }
                    }
                }
                None
            }
            Err(error) => Some(unpublished(error)),
        }
    }

    /// Leaves the stream as it is for a while: its client may go on with it, here or at another gateway. False when nobody
    /// did, and its last words are missing.
    async fn part(&mut self) -> bool {
        let Some(live) = &mut self.live else { return true };
        let gone_on = async {
            live.uplink.hold().await;
            let mut checks = interval(PART_CHECK);
            loop {
                tokio::select! {
                    () = live.place.taken() => return true,
                    event = live.events.next() => match event {
                        Some(UplinkEvent::Failed(error)) => return error == UplinkError::Fenced,
                        Some(_) => {}
                        None => return false,
                    },
                    _ = checks.tick() => {
                        let answer = timeout(CHECK_PATIENCE, live.publisher.check()).await;
                        if let Ok(Err(Error::Refused(Refusal::Fenced { .. }))) = answer {
                            return true;
                        }
                    }
                }
            }
        };
        live.fenced |= timeout(self.shared.config.resume_hold.get(), gone_on).await.unwrap_or(false);
        self.finish(StreamEnd::Lost).await
    }

    /// The last words first, then the word that they were the last, then whoever waits for either.
    /// False when the last words are missing.
    async fn finish(&mut self, how: StreamEnd) -> bool {
        let Some(live) = self.live.take() else { return true };
        let Live { key, stream, uplink, mut events, mut publisher, mut unconfirmed, fenced, .. } = live;
        if fenced {
            // Whatever the uplink still has, the log refuses; and whoever has the stream ends it.
            return true;
        }
        // What was asked for before the end is still answered.
        let answers = async {
            while let Some(event) = events.next().await {
                let event = confirm(&mut unconfirmed, None, &self.outbox, event).await;
                if let Some(UplinkEvent::Finalized { id, position }) = event {
                    let reply = Reply::Finalized { id, position };
                    self.outbox.offer(frame::text(&reply::text(&reply)), Class::Control);
                }
            }
        };
        let (finished, ()) = tokio::join!(uplink.finish(self.shared.config.flush.get()), answers);
        // Where the conversation is over or the stream is another's, nobody waits for more.
        let released =
            matches!(finished.error, Some(UplinkError::Fenced | UplinkError::Refused(Refusal::Ended | Refusal::Gone)));
        if !finished.complete && !released {
            tracing::warn!(%key, stream = %stream.0, error = ?finished.error, "a stream's last words may be missing");
        }
        if let Some(last) = finished.last
            && let Some((_, member)) = &self.member
        {
            member.passed(last, Instant::now() + self.shared.config.pass.get()).await;
        }
        if let Some(UplinkError::Fenced) = finished.error {
            return true;
        }
        let ended = Event::StreamEnded(StreamEnded { stream, how });
        match publisher.publish(ended).await {
            Ok(_) | Err(Error::Refused(Refusal::Ended | Refusal::Gone | Refusal::Fenced { .. })) => {}
            // This gateway's lease runs out for the stream, or the log's silence limit ends it.
            Err(error) => tracing::warn!(%key, stream = %stream.0, %error, "a stream's end could not be logged"),
        }
        finished.complete || released
    }

    fn check_token(&self, token: &Secret) -> Result<Rights, ClientError> {
        let claims = renewed(&self.shared.auth, &self.speaker.meeting, token, Permission::Publish)?;
        Ok(rights(&claims))
    }

    fn finals(&self) -> u64 {
        self.finals + self.counting.as_ref().map_or(0, |counting| counting.load(Ordering::Relaxed))
    }

    /// One line with the whole story.
    fn tell(&self, begun: Instant) {
        let story = self.session.story();
        let lasted = begun.elapsed();
        metrics::session_ended(story, lasted);
        tracing::info!(
            account = %self.speaker.meeting.account,
            meeting = %self.speaker.meeting.meeting,
            conversation = story.conversation.map(tracing::field::display),
            stream = story.stream.map(|stream| tracing::field::display(stream.0)),
            source = self.speaker.query.source.name(),
            seconds = lasted.as_secs_f64(),
            starts = story.starts,
            chunks = story.chunks,
            bytes = story.bytes,
            dropped = story.dropped,
            refused = story.refused,
            finals = self.finals(),
            reached = self.outbox.reached().map(tracing::field::display),
            reason = story.reason.name(),
            handover = story.handover.map(Handover::name),
            blame = story.reason.blame().name(),
            "session ended"
        );
    }
}

/// Why a start did not get through.
enum Setback {
    /// The conversation ended meanwhile: the meeting may have another.
    Ended,
    Failed(StartFailure),
}

impl From<Error> for Setback {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => refusal.into(),
            error @ Error::Unavailable(_) => Self::Failed(StartFailure::Unavailable(error.to_string())),
        }
    }
}

impl From<Refusal> for Setback {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Ended | Refusal::Gone => Self::Ended,
            Refusal::Full { .. } => Self::Failed(StartFailure::Overloaded { retry_after: FULL_RETRY }),
            other => {
                tracing::error!(refusal = %other, "the log refused a start");
                Self::Failed(StartFailure::Unavailable("the start failed by a fault of the service".to_owned()))
            }
        }
    }
}

impl From<OpenError> for Setback {
    fn from(error: OpenError) -> Self {
        Self::Failed(match error {
            OpenError::Refused(refusal) => return refusal.into(),
            OpenError::Overloaded { retry_after } => StartFailure::Overloaded { retry_after },
            OpenError::Unsupported(what) => StartFailure::Unsupported(what),
            error @ OpenError::Unavailable(_) => {
                tracing::warn!(%error, "a stream found no place");
                StartFailure::Unavailable("no recognizer or no log answers; try again".to_owned())
            }
        })
    }
}

fn outcome(answer: &Result<Started, StartFailure>) -> &'static str {
    match answer {
        Ok(_) => "started",
        Err(StartFailure::Overloaded { .. }) => "overloaded",
        Err(StartFailure::Unsupported(_)) => "unsupported",
        Err(StartFailure::Unavailable(_)) => "unavailable",
        Err(StartFailure::NoResume(_)) => "no_resume",
    }
}

/// What a client opted into.
fn opted(asked: &Extension, claims: &Claims) -> Opted {
    let Extension { presence, health, ack, .. } = *asked;
    Opted { presence, positions: ack, analytics: presence || health, history: presence && history::allowed(claims) }
}

/// The log did not take what was said of a stream.
fn unpublished(error: Error) -> Input {
    failed(match error {
        Error::Refused(refusal) => UplinkError::Refused(refusal),
        error @ Error::Unavailable(_) => UplinkError::Broken(error.to_string()),
    })
}

fn failed(error: UplinkError) -> Input {
    Input::Stream(UplinkEvent::Failed(error))
}

/// What the recognizer works by; the rest is the analyst's and this socket's.
fn concerns_recognition(old: &SpeakerConfig, new: &SpeakerConfig) -> bool {
    (old.format, &old.language, &old.vocabulary, &old.redaction)
        != (new.format, &new.language, &new.vocabulary, &new.redaction)
}

fn proposal(title: &str) -> Proposal {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // Some bits of either half are fixed; of both together, none.
    let conversation = ConversationId::from_random(high ^ low.rotate_left(32));
    Proposal { conversation, epoch: Epoch(low as u32), title: title.to_owned() }
}

/// From 0 to 1.
pub(crate) fn random_fraction() -> f64 {
    f64::from(Uuid::new_v4().as_u64_pair().1 as u32) / f64::from(u32::MAX)
}

/// What a stream under way brings.
enum News {
    Event(UplinkEvent),
    /// Another connection of this gateway has it.
    Taken,
}

async fn news(live: &mut Option<Live>) -> News {
    let Some(live) = live else { return std::future::pending().await };
    tokio::select! {
        event = live.events.next() => News::Event(event.unwrap_or(UplinkEvent::Failed(UplinkError::Finished))),
        () = live.place.taken() => News::Taken,
    }
}

async fn conversation_ended(member: &Option<(ConversationKey, Member)>) {
    match member {
        Some((_, member)) => member.ended().await,
        None => std::future::pending().await,
    }
}

/// No deadline: later than any connection lives.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(86_400 * 30)
}
