//! Streams recordings into a meeting and prints what the server makes of them.
//!
//! Each file is one speaker with a connection of its own, in 100 ms messages of LINEAR16 at the file's own rate: at the
//! pace of speech, or with `fast` as quickly as the server acknowledges. Files are read as they are sent, so memory does
//! not grow with them. A connection that breaks is replaced by another one, over which the stream goes on: what the server
//! has not acknowledged is kept, and sent again as far as it asks. Every connection hears every final of the meeting; each final is printed once, when the first
//! connection hears it.

mod audio;
mod client;
mod format;
mod frames;
mod pace;
mod progress;
mod wav;

use std::{
    collections::{HashSet, VecDeque},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::future::{join_all, try_join_all};
use http::Uri;

pub use client::{ClientError, Server};
pub use format::Output;
pub use frames::Final;
pub use wav::{Wav, WavError};

use client::Speaker;
use format::Transcript;
use progress::Progress;

/// Finals remembered so that none is printed twice: more than any two connections can be apart.
const REMEMBERED: usize = 4_096;

/// What to stream, and where to.
#[derive(Debug, Clone)]
pub struct Options {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub url: Uri,
    /// PEM: whom to trust behind `https`; none: whom this machine trusts.
    pub ca: Option<PathBuf>,
    pub credentials: Credentials,
    /// None: a meeting of its own.
    pub meeting: Option<String>,
    /// As fast as the server takes it, and marked as recorded.
    pub fast: bool,
    pub output: Output,
    /// Shows on stderr how far each file is.
    pub progress: bool,
    pub files: Vec<PathBuf>,
}

#[derive(Clone)]
pub enum Credentials {
    Token(String),
    App { id: String, secret: String },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(***)",
            Self::App { .. } => "App(***)",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TranscribeError {
    #[error(transparent)]
    Wav(#[from] WavError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("writing the transcript: {0}")]
    Output(#[from] io::Error),
}

impl TranscribeError {
    /// For the shell: 2 a file cannot be used, 3 the server cannot be reached, 4 it does not let us in, 5 it refused or
    /// broke off, 1 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Wav(_) => 2,
            Self::Client(ClientError::Address { .. } | ClientError::Trust(_)) => 2,
            Self::Client(ClientError::Unreachable { .. } | ClientError::Untrusted { .. }) => 3,
            Self::Client(ClientError::Unauthorized { .. }) => 4,
            Self::Client(_) => 5,
            Self::Output(_) => 1,
        }
    }

    /// Whoever read the output has had enough.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    pub finals: usize,
    pub audio: Duration,
    pub took: Duration,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (audio, took) = (self.audio.as_secs_f64(), self.took.as_secs_f64());
        let finals = if self.finals == 1 { "final" } else { "finals" };
        write!(f, "{} {finals} from {audio:.1} s of audio in {took:.1} s", self.finals)?;
        if took > 0.0 {
            write!(f, " ({:.1} x real time)", audio / took)?;
        }
        Ok(())
    }
}

/// Streams the files and writes the transcript to `out` as it comes.
///
/// # Errors
/// Nothing is sent unless every file can be read. When one speaker fails, the others are heard to their end.
pub async fn transcribe(options: Options, out: &mut (dyn Write + Send)) -> Result<Summary, TranscribeError> {
    let wavs = options.files.iter().map(|path| Wav::open(path)).collect::<Result<Vec<_>, _>>()?;
    let audio = Duration::from_millis(wavs.iter().map(Wav::duration_ms).sum());
    let server = Server::connect(options.url, options.credentials, options.ca.as_deref()).await?;
    let meeting = options.meeting.unwrap_or_else(|| format!("transcribe-{}", uuid::Uuid::new_v4()));
    let names = names(&options.files);
    tracing::debug!(meeting, speakers = names.len(), "streaming");

    // All speakers are in before the first one speaks, so that their recordings stay aligned.
    let progress = Progress::new(options.progress);
    let joined = names.into_iter().zip(wavs).map(|(name, wav)| {
        let bar = progress.file(&name, wav.duration_ms());
        Speaker::join(&server, &meeting, name, wav, options.fast, bar)
    });
    let speakers = try_join_all(joined).await?;

    let started = Instant::now();
    let printer = Printer::new(Transcript::begin(options.output, speakers.len(), out)?, &progress);
    let ended = join_all(speakers.into_iter().map(|speaker| speaker.stream(&printer))).await;
    progress.clear();
    let finals = printer.end()?;
    ended.into_iter().collect::<Result<Vec<()>, _>>()?;
    Ok(Summary { finals, audio, took: started.elapsed() })
}

/// Speakers are named after their files; those of one name are numbered.
fn names(files: &[PathBuf]) -> Vec<String> {
    let mut taken = HashSet::new();
    let mut name = |path: &Path| {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        // Longer and stranger names than a file may have are not the server's to refuse.
        let stem: String = stem.chars().filter(|c| !c.is_control()).take(200).collect();
        let stem = if stem.is_empty() { "Speaker".to_owned() } else { stem };
        let numbered = std::iter::once(stem.clone()).chain((2..).map(|number| format!("{stem} {number}")));
        let free = numbered.into_iter().find(|name| taken.insert(name.clone()));
        free.unwrap_or(stem)
    };
    files.iter().map(|path| name(path)).collect()
}

/// What all connections print to. Its lock is held for one line.
struct Printer<'a> {
    state: Mutex<Printed<'a>>,
    progress: &'a Progress,
}

struct Printed<'a> {
    transcript: Transcript<'a>,
    seen: HashSet<Final>,
    order: VecDeque<Final>,
}

impl<'a> Printer<'a> {
    fn new(transcript: Transcript<'a>, progress: &'a Progress) -> Self {
        let state = Printed { transcript, seen: HashSet::new(), order: VecDeque::new() };
        Self { state: Mutex::new(state), progress }
    }

    fn frame(&self, text: &str) -> io::Result<()> {
        self.progress.beside(|| self.lock().transcript.frame(text))
    }

    fn add(&self, said: Final) -> io::Result<()> {
        let mut state = self.lock();
        if said.text.is_empty() || !state.seen.insert(said.clone()) {
            return Ok(());
        }
        if state.order.len() == REMEMBERED
            && let Some(oldest) = state.order.pop_front()
        {
            state.seen.remove(&oldest);
        }
        let written = self.progress.beside(|| state.transcript.add(&said));
        state.order.push_back(said);
        written
    }

    fn end(&self) -> io::Result<usize> {
        let mut state = self.lock();
        state.transcript.end()?;
        Ok(state.transcript.finals())
    }

    fn lock(&self) -> MutexGuard<'_, Printed<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
