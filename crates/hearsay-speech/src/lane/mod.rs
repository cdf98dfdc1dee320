//! One stream's way from chunks to finals: a state machine without I/O, clock or thread.
//!
//! **A final is a pure function of the configuration and of the audio and markers since the watermark.** At every cut the
//! front (decoder, resampler, voice activity, segmenter) is begun afresh at a place computed from the cut's stream time
//! alone, and hears the kept chunks again from there. That is what a lane on another recognizer does with the same restart
//! point, so it says the same. Partials, drafts and load never reach a final; a decode begun early is used only when its
//! range is the final's.
//!
//! The caller gives audio ([`Lane::chunk`], [`Lane::marker`]), lets it work ([`Lane::advance`]), carries out what comes of
//! it ([`Lane::effect`]) and answers every [`Effect::Decode`] once ([`Lane::decoded`]), in any order. Commits come in the
//! order of the stream.
//!
//! Kept: at most an utterance's audio, its pre-roll, a second ahead and [`MAX_DECODES`] utterances being decoded; 16 kHz
//! LINEAR16 about 400 KB of chunks and 650 KB of samples while somebody speaks without a pause.

mod front;
mod hypothesis;
mod run;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use hearsay_protocol::{
    AudioFormat, ChunkNumber, Restart, StreamTime,
    event::{SpeakerConfig, SpokenWord},
};

use self::{front::Front, hypothesis::Hypothesis, run::Run};
use crate::{
    codec::{self, Fault, Packet, Reader, Resume, Unreadable},
    engine::{ENGINE_RATE, EngineError, Kind, Transcript, streaming::Memory},
    resample::ResampleError,
    segment::{Frames, Settings, Speech, Step},
    vad::{Vad, VadError},
};

/// Utterances of one lane that may wait for the engine. With more the lane stands still, and so does its audio.
pub const MAX_DECODES: usize = 4;

/// How often an utterance is given to the engine before it is put on the log as [`INAUDIBLE`].
const ATTEMPTS: u8 = 2;

/// What stands on the log for an utterance that the engine failed on twice: something was said here, and nobody knows
/// what. It has confidence 0.
pub const INAUDIBLE: &str = "[inaudible]";

/// Where a lane begins.
#[derive(Debug, Clone)]
pub struct Start {
    pub config: Arc<SpeakerConfig>,
    /// How far the log covers the stream: nothing is said about anything before.
    pub watermark: StreamTime,
    /// None: chunk 0 at time 0, in the configuration's format.
    pub restart: Option<Restart>,
    /// A file faster than real time: no partials, no early decodes.
    pub recorded: bool,
}

/// Something that happens at a place in the audio.
#[derive(Debug, Clone, PartialEq)]
pub enum Marker {
    /// All audio before it is decoded and committed; then [`Effect::Finalized`].
    Finalize(String),
    /// From here on the audio has this configuration.
    Config(Arc<SpeakerConfig>),
    /// The stream's clock jumps forward to this time.
    Reanchor(StreamTime),
    /// All audio is decoded and committed; then [`Effect::Over`].
    End,
}

/// One decode, and the only answer to it is [`Lane::decoded`].
pub type DecodeId = u64;

/// What the caller is to do, in this order.
#[derive(Debug, Clone)]
pub enum Effect {
    Decode(Decode),
    /// Nobody needs this answer any more; it may still be given, or have been given.
    Cancel(DecodeId),
    Partial(Partial),
    Commit(Commit),
    /// Everything before the marker is committed.
    Finalized(String),
    Signal(Signal),
    /// Everything is committed; nothing follows.
    Over,
    /// The audio is not what its format says from some place on. Everything before is committed; nothing follows.
    Broken(Fault),
}

/// A request to the engine.
#[derive(Debug, Clone)]
pub struct Decode {
    pub id: DecodeId,
    pub kind: Kind,
    /// As the speaker configured it.
    pub language: Arc<str>,
    /// The utterance may yet go on: likely needed, not certain.
    pub speculative: bool,
    pub samples: Arc<[f32]>,
    pub voice: Arc<[f32]>,
    pub draft: Arc<[u32]>,
    /// The utterance's: the same with every request for it, whose samples begin alike.
    pub memory: Arc<Memory>,
    /// The stream time after the last speech in it: what a deadline is counted from.
    pub spoken: StreamTime,
}

/// What became of a decode.
#[derive(Debug)]
pub enum Outcome {
    Done(Transcript),
    Failed(EngineError),
    /// It was not tried: only for partials.
    Dropped,
}

/// An utterance so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Partial {
    /// The cut the utterance follows, which names it.
    pub from: StreamTime,
    /// From 1.
    pub revision: u32,
    pub start: StreamTime,
    pub end: StreamTime,
    pub text: String,
    /// Bytes of `text` that will not change before the final.
    pub stable: usize,
    pub confidence: f32,
}

/// A stretch of the stream is settled.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    pub from: StreamTime,
    pub through: StreamTime,
    /// None: nothing was said.
    pub utterance: Option<Utterance>,
    /// What found that out; none: voice activity did.
    pub decode: Option<DecodeId>,
    /// All chunks before this one are covered.
    pub through_chunk: ChunkNumber,
    /// Where a fresh lane begins after this.
    pub restart: Restart,
}

/// What was said in one utterance.
#[derive(Debug, Clone, PartialEq)]
pub struct Utterance {
    pub start: StreamTime,
    pub end: StreamTime,
    /// Never empty.
    pub text: String,
    pub language: String,
    pub confidence: f32,
    pub words: Vec<SpokenWord>,
    /// The engine failed on it: `text` is [`INAUDIBLE`].
    pub lost: bool,
}

/// A turn in an utterance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    pub kind: SignalKind,
    pub at: StreamTime,
    /// The cut the utterance follows, which names it.
    pub from: StreamTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignalKind {
    SpeechStart,
    /// The text so far will not change.
    Stable,
    /// A short pause.
    Pause,
    /// Speech is over: a pause, the longest utterance, or a marker.
    UtteranceEnd,
}

/// How far [`Lane::advance`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All audio given was heard.
    Idle,
    /// There is more to hear.
    More,
    /// Too many utterances wait for the engine.
    Blocked,
}

/// How much a lane leaves out under load. Finals are never left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Degrade {
    #[default]
    None,
    /// Partials half as often.
    SlowPartials,
    NoPartials,
}

/// The lane cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The uplink's mistake.
    #[error("chunk {} was given where {} follows", .got.0, .expected.0)]
    OutOfOrder { got: ChunkNumber, expected: ChunkNumber },
    #[error("audio after the end of the stream")]
    AfterEnd,
    #[error(transparent)]
    Headers(#[from] Unreadable),
    #[error(transparent)]
    Vad(#[from] VadError),
    #[error(transparent)]
    Resample(#[from] ResampleError),
}

/// One stream's audio on its way to finals.
pub struct Lane {
    frames: Frames,
    recorded: bool,
    config: Arc<SpeakerConfig>,
    watermark: StreamTime,
    front: Front,
    /// The run that `front` hears.
    run: Run,
    /// Packets from the restart point on, and markers that have not been passed.
    items: VecDeque<Item>,
    /// The chunks that anything from the restart point on may lie in.
    chunks: VecDeque<Chunk>,
    /// What `front` hears next: the item, and how many of its samples it heard.
    cursor: (usize, u64),
    /// Samples from the cursor on.
    ahead: u64,
    /// Samples that could not be decoded, µs.
    lost: u64,
    /// The end of what was given: the next chunk, its run and what finds packets there.
    next: ChunkNumber,
    tail: Run,
    reader: Reader,
    ended: bool,
    /// The audio is not what it should be: nothing more is taken.
    broken: bool,
    over: bool,
    /// Cuts whose utterances are being decoded, and what waits behind them.
    due: VecDeque<Due>,
    early: Option<Early>,
    hypothesis: Hypothesis,
    /// What the engine keeps of the utterance so far.
    memory: Arc<Memory>,
    partial: PartialState,
    degrade: Degrade,
    next_id: DecodeId,
    effects: VecDeque<Effect>,
}

enum Item {
    Packet(Packet),
    Marker {
        chunk: ChunkNumber,
        marker: Marker,
        /// Where its run is.
        edge: Edge,
        /// The run that follows, and where that begins.
        change: Option<(Run, Edge)>,
    },
    /// What follows is not audio.
    Broken {
        fault: Fault,
        edge: Edge,
    },
}

/// Between two chunks.
#[derive(Clone, Copy)]
struct Edge {
    /// Samples of the run before it.
    samples: u64,
    /// Bytes of the format before it.
    bytes: u64,
    /// From where a fresh reader finds the packet after those before it.
    resume: Resume,
}

impl Edge {
    fn of(reader: &Reader) -> Self {
        Self { samples: reader.samples(), bytes: reader.taken(), resume: reader.here() }
    }
}

/// Where a chunk lies in the bytes of its format.
struct Chunk {
    number: ChunkNumber,
    era: u32,
    before: u64,
    length: u64,
}

enum Due {
    Commit { commit: Commit, speech: Option<Box<Waiting>> },
    Finalized(String),
    Over,
    Broken(Fault),
}

/// An utterance at the engine.
struct Waiting {
    decode: Decode,
    attempts: u8,
    outcome: Option<Outcome>,
    /// The stream time of the audio's first sample, µs.
    at: i128,
    /// Where voice activity was.
    start: StreamTime,
    end: StreamTime,
    language: String,
}

/// A final begun at a short pause.
struct Early {
    speech: Speech,
    decode: Decode,
    outcome: Option<Outcome>,
}

#[derive(Default)]
struct PartialState {
    /// The one at the engine, and the range it covers.
    waiting: Option<(DecodeId, StreamTime, StreamTime)>,
    /// Frames of speech after which the next one is due; none: the first.
    due: Option<usize>,
}

impl Lane {
    /// # Errors
    /// When the restart point is not one this version writes, or a model fails.
    pub fn new(settings: &Settings, start: Start, vad: Box<dyn Vad>) -> Result<Self, LaneError> {
        let frames = settings.frames();
        let Start { config, watermark, restart, recorded } = start;
        let (next, run, reader) = match restart {
            Some(restart) => {
                let (reader, first) = Reader::resume(&restart)?;
                let rate = reader.rate().unwrap_or(restart.format.rate.get());
                let mut run = Run::new(restart.format, 0, rate, reader.samples(), restart.at);
                run.first = first;
                (restart.chunk, run, reader)
            }
            None => {
                let reader = Reader::new(config.format);
                let rate = reader.rate().unwrap_or(config.format.rate.get());
                (ChunkNumber(0), Run::new(config.format, 0, rate, 0, StreamTime::ZERO), reader)
            }
        };
        let begin = run.begin(watermark, reader.samples(), frames.preroll);
        Ok(Self {
            frames,
            recorded,
            config,
            watermark,
            front: Front::new(&run, begin, frames, vad)?,
            tail: run.clone(),
            run,
            items: VecDeque::new(),
            chunks: VecDeque::new(),
            cursor: (0, 0),
            ahead: 0,
            lost: 0,
            next,
            reader,
            ended: false,
            broken: false,
            over: false,
            due: VecDeque::new(),
            early: None,
            hypothesis: Hypothesis::default(),
            memory: Arc::default(),
            partial: PartialState::default(),
            degrade: Degrade::None,
            next_id: 0,
            effects: VecDeque::new(),
        })
    }

    /// The next chunk of the stream. Answers how much audio it completed.
    ///
    /// # Errors
    /// When it is not the next one.
    pub fn chunk(&mut self, number: ChunkNumber, data: Bytes) -> Result<Duration, LaneError> {
        self.expect(number)?;
        self.next = number.next();
        if self.broken {
            return Ok(Duration::ZERO);
        }
        let (era, before, length) = (self.tail.era, self.reader.taken(), data.len() as u64);
        self.chunks.push_back(Chunk { number, era, before, length });
        let begun = self.reader.samples();
        let taken = self.reader.push(data);
        while let Some(packet) = self.reader.packet() {
            self.tail.set_rate(packet.rate);
            self.ahead += packet.samples;
            self.items.push_back(Item::Packet(packet));
        }
        let lost = self.reader.take_lost();
        self.lost += self.micros(lost);
        if let Err(fault) = taken {
            self.broken = true;
            self.items.push_back(Item::Broken { fault, edge: Edge::of(&self.reader) });
        }
        Ok(Duration::from_micros(self.micros(self.reader.samples() - begun)))
    }

    fn micros(&self, samples: u64) -> u64 {
        samples.saturating_mul(1_000_000) / u64::from(self.tail.rate())
    }

    /// Something happens before chunk `chunk`, which is the next one.
    ///
    /// # Errors
    /// When it is not the next one.
    pub fn marker(&mut self, chunk: ChunkNumber, marker: Marker) -> Result<(), LaneError> {
        self.expect(chunk)?;
        if self.broken {
            return Ok(());
        }
        let edge = Edge::of(&self.reader);
        let now = self.tail.time(edge.samples);
        let run = match &marker {
            Marker::Config(config) if config.format != self.tail.format => {
                // What was begun in the old format is complete nowhere.
                self.reader = Reader::new(config.format);
                let rate = self.reader.rate().unwrap_or(config.format.rate.get());
                Some(Run::new(config.format, self.tail.era + 1, rate, 0, now))
            }
            Marker::Reanchor(at) if *at > now => Some(match self.reader.realigned() {
                // A sample that the marker divides is nobody's; what follows stays aligned.
                Some(realigned) => {
                    self.reader = realigned;
                    Run::new(self.tail.format, self.tail.era + 1, self.tail.rate(), self.reader.samples(), *at)
                }
                None => self.tail.jump(edge.samples, *at),
            }),
            // The clock is there already: the marker was passed before the restart point.
            Marker::Reanchor(_) => return Ok(()),
            Marker::Config(_) | Marker::Finalize(_) => None,
            Marker::End => {
                self.ended = true;
                None
            }
        };
        let change = run.map(|run| {
            self.tail = run.clone();
            (run, Edge::of(&self.reader))
        });
        self.items.push_back(Item::Marker { chunk, marker, edge, change });
        Ok(())
    }

    fn expect(&self, got: ChunkNumber) -> Result<(), LaneError> {
        if self.ended {
            Err(LaneError::AfterEnd)
        } else if got != self.next {
            Err(LaneError::OutOfOrder { got, expected: self.next })
        } else {
            Ok(())
        }
    }

    /// The lane has less than a second of audio to hear.
    pub fn wants_input(&self) -> bool {
        self.ahead < u64::from(self.tail.rate())
    }

    /// Audio that was lost or could not be decoded, and is silence, since this was last asked.
    pub fn take_lost(&mut self) -> Duration {
        Duration::from_micros(std::mem::take(&mut self.lost))
    }

    /// Leaves out what `degrade` says from here on.
    pub fn degrade(&mut self, degrade: Degrade) {
        self.degrade = degrade;
    }

    /// The format of the audio heard last.
    pub fn format(&self) -> AudioFormat {
        self.run.format
    }

    /// The end of the audio given.
    pub fn heard(&self) -> StreamTime {
        self.tail.time(self.reader.samples())
    }

    /// Speech probability of the last frame.
    pub fn speech(&self) -> f32 {
        self.front.segmenter.last().unwrap_or(0.0)
    }

    /// Nobody is in the middle of an utterance, and none is being decoded.
    pub fn is_quiet(&self) -> bool {
        self.front.segmenter.so_far().is_none() && self.due.is_empty()
    }

    /// The next thing to do.
    pub fn effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Hears at most `frames` frames of 32 ms.
    ///
    /// # Errors
    /// When a model or the resampler failed: the lane is of no further use.
    pub fn advance(&mut self, frames: usize) -> Result<Progress, LaneError> {
        let mut left = frames;
        while !self.over {
            if self.due.iter().filter(|due| due.is_waiting()).count() >= MAX_DECODES {
                return Ok(Progress::Blocked);
            }
            if left == 0 {
                return Ok(Progress::More);
            }
            if let Some(step) = self.front.frame()? {
                left -= 1;
                if let Some(step) = step {
                    self.step(step)?;
                }
                continue;
            }
            match self.items.get(self.cursor.0) {
                None => return Ok(Progress::Idle),
                Some(Item::Packet(_)) => self.feed()?,
                Some(Item::Marker { .. } | Item::Broken { .. }) => self.pass()?,
            }
        }
        Ok(Progress::Idle)
    }

    /// Gives the front the packet at the cursor, or about a frame more of it.
    fn feed(&mut self) -> Result<(), LaneError> {
        let (index, offset) = self.cursor;
        let Some(Item::Packet(packet)) = self.items.get(index) else { return Ok(()) };
        let (mut end, mut failed) = (packet.samples, 0);
        self.run.set_rate(packet.rate);
        if !self.front.skips(packet) {
            (end, failed) = self.front.feed(packet, offset)?;
        }
        let done = end >= packet.samples;
        self.ahead -= end - offset;
        self.lost += self.micros(failed);
        self.cursor = if done { (index + 1, 0) } else { (index, end) };
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), LaneError> {
        match step {
            Step::Onset(sample) => self.signal(SignalKind::SpeechStart, self.front.time(sample)),
            Step::Speaking => self.look(),
            Step::Pause(speech) => {
                self.signal(SignalKind::Pause, self.front.time(speech.voiced.end));
                if !self.recorded {
                    let decode = self.decode(Kind::Final, true, &speech);
                    self.early = Some(Early { speech, decode: decode.clone(), outcome: None });
                    self.effects.push_back(Effect::Decode(decode));
                }
            }
            Step::Resumed => self.take_back(),
            Step::Cut { through, speech } => {
                let through = self.front.time(through);
                self.cut(through, speech, None)?;
            }
        }
        Ok(())
    }

    /// The marker at the cursor: everything before it is heard.
    fn pass(&mut self) -> Result<(), LaneError> {
        let index = self.cursor.0;
        let through = match self.items.get(index) {
            Some(Item::Marker { marker: Marker::Reanchor(at), .. }) => *at,
            Some(Item::Marker { edge, .. } | Item::Broken { edge, .. }) => self.run.time(edge.samples),
            Some(Item::Packet(_)) | None => return Ok(()),
        };
        let cuts = through > self.watermark;
        if cuts && self.front.flush()? {
            return Ok(());
        }
        let speech = if cuts { self.front.finish()? } else { None };
        let (marker, change) = match self.items.remove(index) {
            Some(Item::Marker { chunk, marker, change, .. }) => {
                (Ok(marker), change.map(|(run, edge)| (run, edge, chunk)))
            }
            Some(Item::Broken { fault, .. }) => (Err(fault), None),
            Some(Item::Packet(_)) | None => return Ok(()),
        };
        if change.is_some() {
            // Nothing before it can be needed again.
            self.items.drain(..index);
        }
        if cuts {
            self.cut(through, speech, change)?;
        } else if change.is_some() {
            self.go_on(change)?;
        }
        match marker {
            Ok(Marker::Config(config)) => self.config = config,
            Ok(Marker::Finalize(id)) => self.due.push_back(Due::Finalized(id)),
            Ok(Marker::End) => {
                self.due.push_back(Due::Over);
                self.over = true;
            }
            Ok(Marker::Reanchor(_)) => {}
            Err(fault) => {
                self.due.push_back(Due::Broken(fault));
                self.over = true;
            }
        }
        self.settle();
        Ok(())
    }

    /// Everything before `through` is settled, `speech` was said in it; goes on with a fresh front.
    fn cut(
        &mut self,
        through: StreamTime,
        speech: Option<Speech>,
        change: Option<(Run, Edge, ChunkNumber)>,
    ) -> Result<(), LaneError> {
        if let Some((id, ..)) = self.partial.waiting.take() {
            self.effects.push_back(Effect::Cancel(id));
        }
        let speech = speech.map(|speech| {
            let (decode, outcome) = match self.early.take_if(|early| early.speech == speech) {
                Some(Early { mut decode, outcome, .. }) => {
                    decode.speculative = false;
                    (decode, outcome)
                }
                None => {
                    let decode = self.decode(Kind::Final, false, &speech);
                    self.effects.push_back(Effect::Decode(decode.clone()));
                    (decode, None)
                }
            };
            self.signal(SignalKind::UtteranceEnd, self.front.time(speech.voiced.end));
            Box::new(Waiting {
                at: self.front.micros(speech.audio.start),
                start: self.front.time(speech.voiced.start),
                end: self.front.time(speech.voiced.end),
                language: self.config.language.clone(),
                attempts: 1,
                decode,
                outcome,
            })
        });
        self.take_back();
        let from = std::mem::replace(&mut self.watermark, through);
        let (through_chunk, restart) = self.go_on(change)?;
        self.hypothesis = Hypothesis::default();
        self.memory = Arc::default();
        self.partial = PartialState::default();
        self.due.push_back(Due::Commit {
            commit: Commit { from, through, utterance: None, decode: None, through_chunk, restart },
            speech,
        });
        // An early decode may have failed already.
        self.retry();
        self.settle();
        Ok(())
    }

    /// Begins a fresh front after the watermark, in another run when that changed before the chunk given. Answers the first
    /// chunk that is not covered and the restart point, and forgets what lies before that.
    fn go_on(&mut self, change: Option<(Run, Edge, ChunkNumber)>) -> Result<(ChunkNumber, Restart), LaneError> {
        let changed = change.as_ref().is_some_and(|(run, ..)| run.format != self.run.format);
        let (begin, through_chunk, (chunk, bytes), resume) = match change {
            Some((run, Edge { bytes, resume, .. }, chunk)) => {
                // The same audio on another clock may go on in the middle of what came before the marker.
                let found = if run.era == self.run.era { self.chunk_of(resume.byte) } else { (chunk, bytes) };
                self.run = run;
                let begin = self.run.begin(self.watermark, resume.sample, self.frames.preroll);
                // What lies behind the marker in chunks before it is not covered.
                let from = if found.0 < chunk { found } else { (chunk, bytes) };
                (begin, from.0, from, resume)
            }
            None => {
                let first = self.packets().next().map_or_else(|| self.edge().1.samples, |packet| packet.start);
                let begin = self.run.begin(self.watermark, first, self.frames.preroll);
                let covered = self.packet_at(i128::from(self.run.sample(self.watermark)));
                let (through_chunk, _) = self.chunk_of(covered.byte);
                let preroll = codec::preroll(self.run.format.encoding);
                let resume = self.packet_at(i128::from(begin.sample) - i128::from(preroll));
                (begin, through_chunk, self.chunk_of(resume.byte), resume)
            }
        };
        let restart = self.restart(chunk, bytes, resume);
        // A lane elsewhere has these packets and no others.
        let first = if codec::width(self.run.format.encoding).is_some() { bytes } else { resume.byte };
        while self
            .items
            .pop_front_if(|item| matches!(item, Item::Packet(packet) if packet.resume.byte < first))
            .is_some()
        {}
        self.chunks.retain(|it| it.number >= chunk);
        self.ahead = self.items.iter().map(Item::samples).sum();
        self.cursor = (0, 0);
        self.front.restart(&self.run, begin, self.frames, changed)?;
        Ok((through_chunk, restart))
    }

    /// The restart point at a chunk before which its format has `bytes` bytes.
    fn restart(&self, chunk: ChunkNumber, bytes: u64, resume: Resume) -> Restart {
        let format = self.run.format;
        let sample = codec::width(format.encoding).map_or(resume.sample, |width| bytes.div_ceil(width));
        let at = self.run.time(sample);
        Restart { chunk, at, bytes_before: bytes, format, headers: resume.write(self.run.first) }
    }

    /// The packets of the front's run.
    fn packets(&self) -> impl Iterator<Item = &Packet> {
        let of_this_run = |item: &&Item| !matches!(item, Item::Marker { change: Some(_), .. });
        let first = self.run.first;
        self.items.iter().take_while(of_this_run).filter_map(move |item| match item {
            Item::Packet(packet) if packet.start >= first => Some(packet),
            _ => None,
        })
    }

    /// From where the packet that holds `sample` is found, or, past all packets of the run, the next one.
    fn packet_at(&self, sample: i128) -> Resume {
        let packet = self.packets().find(|packet| i128::from(packet.end()) > sample);
        packet.map_or_else(|| self.edge().1.resume, |packet| packet.resume)
    }

    /// Where the front's run ends so far, and the chunk that follows.
    fn edge(&self) -> (ChunkNumber, Edge) {
        let changes = self.items.iter().find_map(|item| match item {
            Item::Marker { chunk, edge, change: Some(_), .. } => Some((*chunk, *edge)),
            _ => None,
        });
        changes.unwrap_or_else(|| (self.next, Edge::of(&self.reader)))
    }

    /// The chunk that holds byte `byte` of the front's format, and how many bytes were before it; otherwise the one that
    /// follows the run so far.
    fn chunk_of(&self, byte: u64) -> (ChunkNumber, u64) {
        let holds = |chunk: &&Chunk| chunk.era == self.run.era && chunk.before + chunk.length > byte;
        let found = self.chunks.iter().find(holds).map(|chunk| (chunk.number, chunk.before));
        found.unwrap_or_else(|| {
            let (chunk, edge) = self.edge();
            (chunk, edge.bytes)
        })
    }

    /// Asks for a partial when one is due.
    fn look(&mut self) {
        if self.recorded || self.degrade == Degrade::NoPartials || self.partial.waiting.is_some() {
            return;
        }
        let Some(spoken) = self.front.segmenter.speaking_for() else { return };
        if spoken < self.partial.due.unwrap_or(self.frames.first_partial) {
            return;
        }
        let Some(speech) = self.front.segmenter.so_far() else { return };
        let every = if self.degrade == Degrade::None { self.frames.partial } else { 2 * self.frames.partial };
        self.partial.due = Some(spoken + every);
        let decode = self.decode(Kind::Partial, false, &speech);
        let start = self.front.time(speech.voiced.start);
        self.partial.waiting = Some((decode.id, start, self.front.time(speech.audio.end)));
        self.effects.push_back(Effect::Decode(decode));
    }

    fn decode(&mut self, kind: Kind, speculative: bool, speech: &Speech) -> Decode {
        let (samples, voice) = self.front.audio(&speech.audio);
        let draft = if kind == Kind::Partial { self.hypothesis.tokens() } else { Arc::default() };
        let id = self.id();
        let (language, spoken) = (self.config.language.as_str().into(), self.front.time(speech.voiced.end));
        let memory = Arc::clone(&self.memory);
        Decode { id, kind, language, speculative, samples, voice, draft, memory, spoken }
    }

    fn id(&mut self) -> DecodeId {
        self.next_id += 1;
        self.next_id
    }

    fn signal(&mut self, kind: SignalKind, at: StreamTime) {
        self.effects.push_back(Effect::Signal(Signal { kind, at, from: self.watermark }));
    }

    /// The utterance goes on, or ends elsewhere: what was begun early is of no use.
    fn take_back(&mut self) {
        if let Some(early) = self.early.take() {
            self.effects.push_back(Effect::Cancel(early.decode.id));
        }
    }

    /// The engine's answer to a decode. One that nobody waits for any more is dropped.
    pub fn decoded(&mut self, id: DecodeId, outcome: Outcome) {
        if let Some((_, start, end)) = self.partial.waiting.take_if(|(waiting, ..)| *waiting == id) {
            self.show(start, end, outcome);
        } else if let Some(early) = self.early.as_mut().filter(|early| early.decode.id == id) {
            early.outcome = Some(outcome);
        } else if let Some(waiting) = self.due.iter_mut().find_map(|due| due.waiting(id)) {
            waiting.outcome = Some(outcome);
            self.retry();
            self.settle();
        }
    }

    fn show(&mut self, start: StreamTime, end: StreamTime, outcome: Outcome) {
        let transcript = match outcome {
            Outcome::Done(transcript) => transcript,
            Outcome::Failed(_) | Outcome::Dropped => return,
        };
        let confidence = transcript.confidence;
        let Some((text, stable)) = self.hypothesis.revise(transcript) else {
            if self.hypothesis.is_empty() {
                // Nothing is shown yet: look again sooner than usual.
                self.partial.due = self.partial.due.map(|due| due.saturating_sub(self.frames.partial / 2));
            }
            return;
        };
        let (from, revision) = (self.watermark, self.hypothesis.revision());
        let settled = stable == text.len();
        self.effects.push_back(Effect::Partial(Partial { from, revision, start, end, text, stable, confidence }));
        if settled {
            self.signal(SignalKind::Stable, end);
        }
    }

    /// Gives utterances that the engine failed on to it again.
    fn retry(&mut self) {
        let mut next_id = self.next_id;
        for due in &mut self.due {
            if let Due::Commit { speech: Some(waiting), .. } = due
                && matches!(waiting.outcome, Some(Outcome::Failed(_) | Outcome::Dropped))
                && waiting.attempts < ATTEMPTS
            {
                next_id += 1;
                waiting.attempts += 1;
                waiting.outcome = None;
                waiting.decode.id = next_id;
                self.effects.push_back(Effect::Decode(waiting.decode.clone()));
            }
        }
        self.next_id = next_id;
    }

    /// Lets go of what stands in front and is done.
    fn settle(&mut self) {
        while let Some(due) = self.due.pop_front_if(|due| !due.is_waiting()) {
            self.effects.push_back(match due {
                Due::Commit { mut commit, speech } => {
                    commit.decode = speech.as_ref().map(|waiting| waiting.decode.id);
                    commit.utterance = speech.and_then(|waiting| waiting.utterance(&commit));
                    Effect::Commit(commit)
                }
                Due::Finalized(id) => Effect::Finalized(id),
                Due::Over => Effect::Over,
                Due::Broken(fault) => Effect::Broken(fault),
            });
        }
    }
}

impl Item {
    fn samples(&self) -> u64 {
        match self {
            Self::Packet(packet) => packet.samples,
            Self::Marker { .. } | Self::Broken { .. } => 0,
        }
    }
}

impl Due {
    fn is_waiting(&self) -> bool {
        matches!(self, Self::Commit { speech: Some(waiting), .. } if waiting.outcome.is_none())
    }

    fn waiting(&mut self, id: DecodeId) -> Option<&mut Waiting> {
        match self {
            Self::Commit { speech: Some(waiting), .. } if waiting.decode.id == id && waiting.outcome.is_none() => {
                Some(waiting)
            }
            _ => None,
        }
    }
}

impl Waiting {
    fn utterance(self, commit: &Commit) -> Option<Utterance> {
        let transcript = match self.outcome {
            Some(Outcome::Done(transcript)) => transcript,
            _ => return Some(Self::inaudible(self.start, self.end, self.language)),
        };
        if transcript.text.is_empty() {
            return None;
        }
        let mut after = commit.from;
        let words: Vec<SpokenWord> = transcript
            .words
            .into_iter()
            .map(|word| {
                let start = micros(self.at, word.start).clamp(after, commit.through);
                let end = micros(self.at, word.end).clamp(start, commit.through);
                after = end;
                SpokenWord { text: word.text, start, end, confidence: fraction(word.confidence) }
            })
            .collect();
        Some(Utterance {
            start: words.first().map_or(self.start, |word| word.start.min(self.start)),
            end: words.last().map_or(self.end, |word| word.end.max(self.end)),
            text: transcript.text,
            language: self.language,
            confidence: fraction(transcript.confidence),
            words,
            lost: false,
        })
    }

    fn inaudible(start: StreamTime, end: StreamTime, language: String) -> Utterance {
        let word = SpokenWord { text: INAUDIBLE.to_owned(), start, end, confidence: 0.0 };
        Utterance { start, end, text: INAUDIBLE.to_owned(), language, confidence: 0.0, words: vec![word], lost: true }
    }
}

fn micros(at: i128, sample: usize) -> StreamTime {
    let time = at + sample as i128 * 1_000_000 / i128::from(ENGINE_RATE);
    StreamTime(u64::try_from(time.max(0)).unwrap_or(u64::MAX))
}

/// Whatever an engine says, a fraction is one.
fn fraction(value: f32) -> f32 {
    if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests;
