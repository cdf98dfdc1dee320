//! Where streams are heard: a bounded number of slots, and the threads that decode, resample and detect voice in them.
//!
//! A stream's task holds a [`LaneHandle`]; the lane itself belongs to its listening thread, which no engine work delays and which never waits for
//! anybody: what it has to say stands in the lane's [`Output`] until the task takes it, and a lane whose output is not
//! taken stands still.
//!
//! Cost: about 0.2 ms a 32 ms frame of live audio, 0.6 % of a core a stream, nearly all of it the voice activity model.

use std::{
    collections::VecDeque,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hearsay_protocol::{ChunkNumber, StreamTime};
use hearsay_runtime::{GaugeGuard, trace};
use hearsay_speech::{
    codec::Fault,
    engine::Kind,
    lane::{Commit, Decode, DecodeId, Effect, Lane, LaneError, Marker, Outcome, Partial, Progress, Signal},
};
use tokio::sync::{Notify, mpsc};

use crate::{
    ladder::{Load, degrade},
    metrics,
    queue::{Answers, Job, Queue},
    slots::{LaneId, Slot},
};

/// Inputs of one lane between its task and its thread.
const INPUTS: usize = 8;

/// Frames of 32 ms a lane hears before the next one's turn: about a millisecond.
const TURN: usize = 6;

/// Things a lane may have said that its task has not taken: then it stands still.
const SAID: usize = 64;

/// A partial is worth nothing later than this: the next one is due.
const PARTIAL_WORTH: Duration = Duration::from_millis(600);

/// A recording's decodes let live ones go first.
const RECORDED_PATIENCE: Duration = Duration::from_secs(3);

/// What a stream's task gives its lane.
#[derive(Debug)]
pub(crate) enum Input {
    Chunk { number: ChunkNumber, data: Bytes },
    Marker { chunk: ChunkNumber, marker: Marker },
}

/// What a lane says to its stream's task, in order.
#[derive(Debug)]
pub(crate) enum Said {
    Commit {
        commit: Commit,
        /// When the utterance's last speech arrived; none for recordings and silence.
        spoken: Option<Instant>,
        /// Where utterances are traced.
        times: Option<Box<Times>>,
    },
    Finalized(String),
    Signal(Signal),
    Over,
    /// What follows is not audio of the stream's format. Everything before it was said.
    Broken(Fault),
}

/// When an utterance went through a lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Its first and last speech arrived, about.
    pub(crate) heard: Instant,
    pub(crate) spoken: Instant,
    /// Its final decode was asked for and answered; none when there was none.
    pub(crate) decoded: Option<(Instant, Instant)>,
}

/// A final decode of an utterance that may be traced.
struct Asked {
    id: DecodeId,
    at: Instant,
    /// What had been heard by then.
    heard: StreamTime,
    answered: Option<Instant>,
}

/// Why a lane says no more.
#[derive(Debug)]
pub(crate) enum Failure {
    Lane(LaneError),
    /// A fault of ours, told in the log.
    Panicked,
}

/// What a lane said and how it fares.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) said: VecDeque<Said>,
    /// Only the newest is worth anything.
    pub(crate) partial: Option<Partial>,
    pub(crate) failed: Option<Failure>,
    pub(crate) heard: StreamTime,
    pub(crate) speech: f32,
    /// Nobody speaks, and nothing is being decoded.
    pub(crate) quiet: bool,
    stalled: bool,
}

#[derive(Default)]
struct Shared {
    output: Mutex<Output>,
    /// There is output.
    said: Notify,
    /// The thread knows that there is something to do.
    poked: AtomicBool,
}

impl Shared {
    fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's task's end of its lane. The lane ends with it, and its work at once.
pub(crate) struct LaneHandle {
    inputs: mpsc::Sender<Input>,
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    slot: Slot,
}

impl LaneHandle {
    /// Gives the lane an input as soon as there is room. Dropped before, the input stays where it is.
    pub(crate) async fn give(&self, input: &mut Option<Input>) {
        let Ok(room) = self.inputs.reserve().await else {
            // Its thread is gone, and the lane with it.
            self.shared.output().failed.get_or_insert(Failure::Panicked);
            self.shared.said.notify_one();
            return std::future::pending().await;
        };
        if let Some(input) = input.take() {
            room.send(input);
        }
        self.poke();
    }

    /// There is something to do.
    fn poke(&self) {
        if !self.shared.poked.swap(true, Ordering::AcqRel) {
            self.mailbox.post(|mail| mail.poked.push(self.slot.id));
        }
    }

    /// Returns when there may be output. Safe to drop.
    pub(crate) async fn said(&self) {
        self.shared.said.notified().await;
    }

    /// Takes everything said.
    pub(crate) fn take(&self) -> Output {
        let mut output = self.shared.output();
        let taken = Output {
            said: mem::take(&mut output.said),
            partial: output.partial.take(),
            failed: output.failed.take(),
            stalled: mem::take(&mut output.stalled),
            ..*output
        };
        drop(output);
        if taken.stalled {
            self.poke();
        }
        taken
    }
}

impl Drop for LaneHandle {
    fn drop(&mut self) {
        let id = self.slot.id;
        self.mailbox.post(|mail| mail.closed.push(id));
    }
}

/// What reaches a listening thread. Bounded by the slots: each has one tenancy, one poke and its decodes.
#[derive(Default)]
pub(crate) struct Mailbox {
    mail: Mutex<Mail>,
    arrived: Condvar,
}

#[derive(Default)]
struct Mail {
    opened: Vec<(LaneId, Box<Tenant>)>,
    closed: Vec<LaneId>,
    poked: Vec<LaneId>,
    outcomes: Vec<(LaneId, DecodeId, Outcome)>,
    ended: bool,
}

impl Answers for Mailbox {
    fn outcome(&self, lane: LaneId, id: DecodeId, outcome: Outcome) {
        self.post(|mail| mail.outcomes.push((lane, id, outcome)));
    }
}

impl Mailbox {
    /// The thread is to end.
    pub(crate) fn end(&self) {
        self.post(|mail| mail.ended = true);
    }

    fn post(&self, write: impl FnOnce(&mut Mail)) {
        let mut mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        if !mail.ended {
            write(&mut mail);
        }
        self.arrived.notify_one();
    }

    /// Everything that arrived, waiting for something if `wait`.
    fn take(&self, wait: bool) -> Mail {
        let mut mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        while wait && mail.is_empty() {
            mail = self.arrived.wait(mail).unwrap_or_else(PoisonError::into_inner);
        }
        let ended = mail.ended;
        Mail { ended, ..mem::replace(&mut *mail, Mail { ended, ..Mail::default() }) }
    }
}

impl Mail {
    fn is_empty(&self) -> bool {
        let Self { opened, closed, poked, outcomes, ended } = self;
        !ended && opened.is_empty() && closed.is_empty() && poked.is_empty() && outcomes.is_empty()
    }
}

/// What a listening thread needs.
#[derive(Clone)]
pub(crate) struct Listening {
    pub(crate) queue: Arc<Queue>,
    pub(crate) load: Arc<Load>,
    pub(crate) final_target: Duration,
}

/// Gives a stream's lane to a listening thread.
pub(crate) fn open(slot: Slot, lane: Lane, recorded: bool, mailboxes: &[Arc<Mailbox>]) -> LaneHandle {
    let (inputs, given) = mpsc::channel(INPUTS);
    let shared = Arc::new(Shared::default());
    // One slot's tenants follow each other on one thread.
    let mailbox = Arc::clone(&mailboxes[slot.id.slot % mailboxes.len()]);
    let tenant = Tenant {
        lane,
        recorded,
        inputs: given,
        shared: Arc::clone(&shared),
        jobs: Vec::new(),
        finals: VecDeque::new(),
        early: None,
        busy: false,
        failed: false,
        _open: metrics::lane_opened(recorded),
    };
    let id = slot.id;
    mailbox.post(|mail| mail.opened.push((id, Box::new(tenant))));
    LaneHandle { inputs, shared, mailbox, slot }
}

/// Hears all lanes of a mailbox until it ends.
pub(crate) fn listen(mailbox: &Arc<Mailbox>, listening: &Listening) {
    let mut tenants: Vec<(LaneId, Box<Tenant>)> = Vec::new();
    let mut busy: VecDeque<LaneId> = VecDeque::new();
    loop {
        let mail = mailbox.take(busy.is_empty());
        for id in mail.closed {
            // Its work ends with it.
            tenants.retain(|(tenant, _)| *tenant != id);
        }
        if mail.ended {
            return;
        }
        tenants.extend(mail.opened);
        for (id, decode, outcome) in mail.outcomes {
            if let Some(tenant) = of(&mut tenants, id).filter(|tenant| !tenant.failed) {
                tenant.decoded(decode, outcome);
                tenant.wake(id, &mut busy);
            }
        }
        for id in mail.poked {
            if let Some(tenant) = of(&mut tenants, id) {
                tenant.wake(id, &mut busy);
            }
        }
        if let Some(id) = busy.pop_front()
            && let Some(tenant) = of(&mut tenants, id)
        {
            tenant.busy = false;
            // One stream's fault is not another's.
            match catch_unwind(AssertUnwindSafe(|| tenant.turn(id, mailbox, listening))) {
                Ok(true) => tenant.wake(id, &mut busy),
                Ok(false) => {}
                Err(_) => tenant.give_up(Failure::Panicked),
            }
        }
    }
}

fn of(tenants: &mut [(LaneId, Box<Tenant>)], id: LaneId) -> Option<&mut Tenant> {
    tenants.iter_mut().find_map(|(tenant, it)| (*tenant == id).then_some(&mut **it))
}

/// A lane on its thread.
struct Tenant {
    lane: Lane,
    recorded: bool,
    inputs: mpsc::Receiver<Input>,
    shared: Arc<Shared>,
    /// Decodes under way, and what takes them back.
    jobs: Vec<(DecodeId, Arc<AtomicBool>)>,
    /// Final decodes, when they were asked for and answered: of utterances that are traced and not committed.
    finals: VecDeque<Asked>,
    /// The newest final begun early.
    early: Option<DecodeId>,
    /// Stands in the queue for a turn.
    busy: bool,
    failed: bool,
    _open: GaugeGuard,
}

impl Tenant {
    fn wake(&mut self, id: LaneId, busy: &mut VecDeque<LaneId>) {
        if !self.busy {
            self.busy = true;
            busy.push_back(id);
        }
    }

    fn decoded(&mut self, id: DecodeId, outcome: Outcome) {
        self.jobs.retain(|(job, _)| *job != id);
        if let Some(asked) = self.finals.iter_mut().find(|asked| asked.id == id) {
            asked.answered = Some(Instant::now());
        }
        self.lane.decoded(id, outcome);
    }

    /// Hears a little. Answers whether there is more to hear.
    fn turn(&mut self, id: LaneId, mailbox: &Arc<Mailbox>, listening: &Listening) -> bool {
        self.shared.poked.store(false, Ordering::Release);
        if self.failed {
            return false;
        }
        let mut output = self.shared.output();
        if output.said.len() >= SAID {
            output.stalled = true;
            return false;
        }
        drop(output);
        self.lane.degrade(degrade(listening.load.step()));
        let heard = self.hear();
        while let Some(effect) = self.lane.effect() {
            self.carry_out(effect, id, mailbox, listening);
        }
        let mut output = self.shared.output();
        output.heard = self.lane.heard();
        output.speech = self.lane.speech();
        output.quiet = self.lane.is_quiet();
        match heard {
            Ok(more) => more,
            Err(error) => {
                drop(output);
                self.give_up(Failure::Lane(error));
                false
            }
        }
    }

    /// Nothing more is heard here.
    fn give_up(&mut self, failure: Failure) {
        self.failed = true;
        for (_, cancelled) in self.jobs.drain(..) {
            cancelled.store(true, Ordering::Relaxed);
        }
        self.shared.output().failed = Some(failure);
        self.shared.said.notify_one();
    }

    fn hear(&mut self) -> Result<bool, LaneError> {
        while self.lane.wants_input()
            && let Ok(input) = self.inputs.try_recv()
        {
            match input {
                Input::Chunk { number, data } => metrics::heard(self.lane.chunk(number, data)?),
                Input::Marker { chunk, marker } => self.lane.marker(chunk, marker)?,
            }
        }
        let progress = self.lane.advance(TURN)?;
        metrics::lost(self.lane.take_lost());
        Ok(progress == Progress::More || (progress == Progress::Idle && !self.inputs.is_empty()))
    }

    fn carry_out(&mut self, effect: Effect, id: LaneId, mailbox: &Arc<Mailbox>, listening: &Listening) {
        match effect {
            Effect::Decode(decode) => self.decode(decode, id, mailbox, listening),
            Effect::Cancel(decode) => {
                if self.early.take_if(|early| *early == decode).is_some() {
                    metrics::begun_in_vain();
                }
                if let Some((_, cancelled)) = self.jobs.iter().find(|(job, _)| *job == decode) {
                    cancelled.store(true, Ordering::Relaxed);
                }
                self.jobs.retain(|(job, _)| *job != decode);
                self.finals.retain(|asked| asked.id != decode);
            }
            Effect::Partial(partial) => {
                if self.shared.output().partial.replace(partial).is_some() {
                    metrics::partial("replaced");
                }
                self.shared.said.notify_one();
            }
            Effect::Commit(commit) => {
                let utterance = commit.utterance.as_ref();
                let spoken = utterance.filter(|_| !self.recorded).map(|utterance| self.arrived(utterance.end));
                let mut output = self.shared.output();
                // Its final makes a partial worthless.
                output.partial.take_if(|partial| partial.from == commit.from);
                drop(output);
                let times = self.times(&commit);
                self.say(Said::Commit { commit, spoken, times });
            }
            Effect::Finalized(marker) => self.say(Said::Finalized(marker)),
            Effect::Signal(signal) => self.say(Said::Signal(signal)),
            Effect::Over => self.say(Said::Over),
            Effect::Broken(fault) => self.say(Said::Broken(fault)),
        }
    }

    fn say(&self, said: Said) {
        self.shared.output().said.push_back(said);
        self.shared.said.notify_one();
    }

    fn decode(&mut self, decode: Decode, lane: LaneId, mailbox: &Arc<Mailbox>, listening: &Listening) {
        let now = Instant::now();
        let deadline = match decode.kind {
            Kind::Partial => now + PARTIAL_WORTH,
            Kind::Final if self.recorded => now + RECORDED_PATIENCE,
            Kind::Final => self.arrived(decode.spoken) + listening.final_target,
        };
        if decode.speculative {
            metrics::begun_early();
            self.early = Some(decode.id);
        }
        if decode.kind == Kind::Final && trace::is_on() {
            let heard = self.lane.heard();
            self.finals.push_back(Asked { id: decode.id, at: now, heard, answered: None });
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        let job = Job {
            lane,
            id: decode.id,
            kind: decode.kind,
            language: decode.language,
            samples: decode.samples,
            voice: decode.voice,
            draft: decode.draft,
            memory: decode.memory,
            deadline,
            live: !self.recorded,
            asked: now,
            cancelled: Arc::clone(&cancelled),
            reply: Arc::clone(mailbox) as Arc<dyn Answers>,
        };
        match listening.queue.submit(job) {
            Ok(()) => self.jobs.push((decode.id, cancelled)),
            Err(job) => {
                if job.kind == Kind::Partial {
                    metrics::partial("full");
                }
                self.lane.decoded(job.id, Outcome::Dropped);
            }
        }
    }

    /// What a commit's utterance took. Commits come in the order of their decodes.
    fn times(&mut self, commit: &Commit) -> Option<Box<Times>> {
        let mut asked = None;
        if let Some(decode) = commit.decode {
            // Those before it were of no use.
            while let Some(one) = self.finals.pop_front_if(|asked| asked.id <= decode) {
                asked = Some(one).filter(|asked| asked.id == decode);
            }
        }
        let said = commit.utterance.as_ref().filter(|_| trace::is_on())?;
        let (at, heard) = asked.as_ref().map_or((Instant::now(), self.lane.heard()), |asked| (asked.at, asked.heard));
        let arrived = |time| at.checked_sub(heard.since(time)).unwrap_or(at);
        let decoded = asked.and_then(|asked| Some((asked.at, asked.answered?)));
        Some(Box::new(Times { heard: arrived(said.start), spoken: arrived(said.end), decoded }))
    }

    /// About when the audio at `time` arrived: the newest has just done so.
    fn arrived(&self, time: StreamTime) -> Instant {
        let now = Instant::now();
        now.checked_sub(self.lane.heard().since(time)).unwrap_or(now)
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        for (_, cancelled) in &self.jobs {
            cancelled.store(true, Ordering::Relaxed);
        }
    }
}
