//! What can be typed.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use hearsay_load::transcribe::Output;
use hearsay_runtime::HumanDuration;

/// Live transcripts and conversation intelligence, on machines of your own.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs everything in one process, for development.
    ///
    /// Prints `ready http://ADDR` and `token JWT` on stdout once clients can connect. WebSockets, REST, /healthz, /readyz
    /// and /metrics share the one port. Fetches the models on first use.
    #[cfg(feature = "recognizer")]
    Dev(Dev),
    /// Runs one gateway of a cluster: WebSockets and REST on one port, /healthz, /readyz and /metrics on another.
    ///
    /// Prints `ready http://ADDR` once clients can connect and speak. Takes the log (bus.url), recognizers
    /// (uplink.recognizers), and the secret that all gateways sign tokens with (auth.signing_secret).
    Gateway(Gateway),
    /// Runs one recognizer of a cluster: gRPC on one port, /healthz, /readyz and /metrics on another.
    ///
    /// Prints `ready grpc://ADDR` once gateways can send streams. Takes the log (bus.url). Fetches the models on first use.
    #[cfg(feature = "recognizer")]
    Recognizer(Recognizer),
    /// Carries out the rules for automated actions (actions.webhooks, actions.mails) of a cluster; /healthz, /readyz and
    /// /metrics on one port.
    ///
    /// Prints `ready http://ADDR`, the operators' address, once it follows conversations. Takes the log (bus.url). Any number
    /// may run. `dev` carries the rules out itself.
    Actions(Actions),
    /// Streams recordings into a meeting and prints the transcript.
    ///
    /// Each FILE is one speaker, named after the file. Exit codes: 0 done, 1 the transcript could not be written, 2 a FILE
    /// or argument cannot be used, 3 the server cannot be reached, 4 it does not let us in, 5 it refused the stream or
    /// broke it off.
    Transcribe(Transcribe),
    /// Load on a running server, and what came of it.
    #[command(subcommand)]
    Load(Load),
    /// The speech models this machine has.
    #[command(subcommand)]
    Models(Models),
    /// How well what is understood of talk agrees with labelled data.
    #[command(subcommand)]
    Eval(Eval),
    /// The configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Eval {
    /// Judges labelled data and prints precision, recall and what else applies to the task.
    Insights(EvalInsights),
}

#[derive(Debug, Args)]
pub(crate) struct EvalInsights {
    /// Labelled data: utterances of meetings (tab-separated, with `question`, `commit` and `directive`) for questions and
    /// actions, sentences of documents (a JSON object a line, with `doc`, `text` and `task`) for actions, sentences with
    /// `assignees` and `due_any` for due, meetings with `turns` and `summary` for summary, texts with `results` or tokens with
    /// tags (`tok` and `tag`, of which the persons count) for entities.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[arg(long, value_enum)]
    pub(crate) task: EvalTask,
    /// Judge the text as it is, or without punctuation and case.
    #[arg(long, value_enum, default_value_t = EvalText::AsIs)]
    pub(crate) text: EvalText,
    /// What of a meeting is known when an utterance is judged.
    #[arg(long, value_enum, default_value_t = EvalContext::Full)]
    pub(crate) context: EvalContext,
    /// Count only utterances of at least so many words; all are judged, and heard around others.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) min_words: usize,
    /// Utterances of meetings, tab-separated: the share that is taken for what is looked for.
    #[arg(long, value_name = "FILE")]
    pub(crate) negatives: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EvalTask {
    Questions,
    Actions,
    Sentiment,
    Topics,
    Trackers,
    Entities,
    Due,
    Summary,
}

impl EvalTask {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Questions => "questions",
            Self::Actions => "actions",
            Self::Sentiment => "sentiment",
            Self::Topics => "topics",
            Self::Trackers => "trackers",
            Self::Entities => "entities",
            Self::Due => "due",
            Self::Summary => "summary",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EvalText {
    AsIs,
    Bare,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EvalContext {
    /// As soon as it is said.
    Live,
    /// Six utterances either side and when they were said.
    Full,
    /// As a conversation's subscribers are told in the end: what was said before, one utterance behind, no times.
    Analyst,
}

/// Where configuration comes from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Sources {
    /// Configuration file (TOML). HEARSAY__SECTION__KEY in the environment wins over it, flags win over both.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[cfg(feature = "recognizer")]
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Address to listen on [default: 127.0.0.1:8080]; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// App id that clients get tokens with; random per start when absent.
    #[arg(long, requires = "app_secret")]
    pub(crate) app_id: Option<String>,
    /// App secret of the app id.
    #[arg(long, requires = "app_id")]
    pub(crate) app_secret: Option<String>,
    /// Keep the conversation log in this Redis or Valkey, and not in memory: `redis://HOST[:PORT]`,
    /// `redis+sentinel://HOST[,HOST]/SERVICE` or `redis+cluster://HOST[,HOST]`; `rediss` for TLS.
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// Serve TLS: with a self-signed certificate, made once and kept in the cache folder, or with CERT and KEY (PEM files).
    #[arg(long, num_args = 0..=2, value_names = ["CERT", "KEY"])]
    pub(crate) tls: Option<Vec<PathBuf>>,
    #[command(flatten)]
    pub(crate) sources: Sources,
}

#[derive(Debug, Args)]
pub(crate) struct Actions {
    /// Address for operators [default: 127.0.0.1:9090]; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
    /// Redis or Valkey that holds the log; see `dev`. A password is better kept in HEARSAY__BUS__URL.
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
    #[command(flatten)]
    pub(crate) sources: Sources,
}

#[derive(Debug, Args)]
pub(crate) struct Gateway {
    /// Address for clients [default: 127.0.0.1:8080]; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Address for operators [default: 127.0.0.1:9090]; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
    /// Redis or Valkey that holds the log; see `dev`. A password is better kept in HEARSAY__BUS__URL.
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// A recognizer, for instance http://127.0.0.1:50051; once for each.
    #[arg(long = "recognizer", value_name = "URL")]
    pub(crate) recognizers: Vec<String>,
    /// Serve TLS with these PEM files.
    #[arg(long, num_args = 2, value_names = ["CERT", "KEY"])]
    pub(crate) tls: Option<Vec<PathBuf>>,
    #[command(flatten)]
    pub(crate) sources: Sources,
}

#[cfg(feature = "recognizer")]
#[derive(Debug, Args)]
pub(crate) struct Recognizer {
    /// Measure what this machine can hear, print it and exit: engine time for finals and partials, and how many streams.
    #[arg(long)]
    pub(crate) benchmark: bool,
    /// Address for gateways [default: 127.0.0.1:50051]; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Address for operators [default: 127.0.0.1:9090]; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
    /// Redis or Valkey that holds the log; see `dev`. A password is better kept in HEARSAY__BUS__URL.
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
    #[command(flatten)]
    pub(crate) sources: Sources,
}

#[derive(Debug, Args)]
pub(crate) struct Transcribe {
    /// WAV files: 8 to 48 kHz, 8- to 32-bit integers or 32-bit floats, any number of channels (mixed down).
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The server.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) url: http::Uri,
    /// PEM file of whom to trust behind an https URL; whom this machine trusts when absent.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Token to enter with; that of a `hearsay dev` of this user on this machine when absent.
    #[arg(long, env = "HEARSAY_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Get a token with this app id and --app-secret; wins over a token in the environment.
    #[arg(long, requires = "app_secret")]
    pub(crate) app_id: Option<String>,
    /// App secret of the app id.
    #[arg(long, requires = "app_id")]
    pub(crate) app_secret: Option<String>,
    /// Meeting to speak in; a new one when absent.
    #[arg(long, value_name = "NAME")]
    pub(crate) meeting: Option<String>,
    /// Send as fast as the server takes it, as a recording, and not at the pace of speech.
    #[arg(long)]
    pub(crate) fast: bool,
    /// What to print: a line per final, every received text frame unchanged, or subtitles.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    Text,
    Json,
    Srt,
    Vtt,
}

impl From<OutputFormat> for Output {
    fn from(format: OutputFormat) -> Self {
        match format {
            OutputFormat::Text => Self::Text,
            OutputFormat::Json => Self::Json,
            OutputFormat::Srt => Self::Srt,
            OutputFormat::Vtt => Self::Vtt,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Load {
    /// Subscribes many times, and checks that every event comes once and in order.
    ///
    /// Latency is measured for events that say when they were sent, on the same machine. Exit code 1 when a stated limit
    /// is broken.
    Listen(LoadListen),
    /// Holds live meetings: speakers with real audio at the pace of speech, and listeners who check that every event comes.
    ///
    /// Latency is a final's: from the end of its last word, as it was sent, until its speaker's socket brings it.
    Meetings(LoadMeetings),
    /// Keeps many idle sockets, and says what each costs the server (--pid) and how soon it answers a ping.
    Sockets(LoadSockets),
    /// Cuts all subscribers off at once, without goodbye, and says how long it is until each is back and has missed nothing.
    Storm(LoadStorm),
    /// Publishes finals, partials and insights as recognizers do, straight to the log in Redis and at a steady rate.
    ///
    /// Each says when it was sent: `load listen` on the same machine measures the whole way. Latencies told here are those of
    /// the log's calls. Exit code 1 when a stated limit is broken.
    Events(LoadEvents),
}

#[derive(Debug, Args)]
pub(crate) struct LoadEvents {
    /// Redis or Valkey that holds the log; HEARSAY__BUS__URL when absent.
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// Meetings to speak in, one speaker each, named PREFIX-0, PREFIX-1 and so on.
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) meetings: u32,
    #[arg(long, default_value = "load")]
    pub(crate) prefix: String,
    /// Finals and insights a second, of all meetings together.
    #[arg(long, default_value_t = 10, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: u32,
    /// Partials before each final, on top of the rate.
    #[arg(long, default_value_t = 2, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) partials: u32,
    /// Calls with finals between two insights; 0: no insights.
    #[arg(long, default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) insights: u32,
    /// Bytes of an event's text.
    #[arg(long, default_value_t = 120, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) size: u32,
    /// Events in one call of the log.
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) batch: u32,
    /// How long to publish, for instance 30s.
    #[arg(long, default_value = "30s", value_name = "TIME")]
    pub(crate) duration: HumanDuration,
    /// How long to wait, with the meetings open, for listeners to come.
    #[arg(long, default_value = "0s", value_name = "TIME")]
    pub(crate) wait: HumanDuration,
    /// Most events that the log may not have taken.
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_lost: Option<u64>,
    /// Highest 99th percentile of a call's time.
    #[arg(long, value_name = "TIME")]
    pub(crate) max_p99: Option<HumanDuration>,
    /// Prints one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) sources: Sources,
}

#[derive(Debug, Args)]
pub(crate) struct LoadMeetings {
    /// What is said, over and over: a WAV file.
    #[arg(long, value_name = "FILE")]
    pub(crate) audio: PathBuf,
    /// Speakers in each meeting.
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) speakers: u32,
    #[command(flatten)]
    pub(crate) listen: LoadListen,
}

#[derive(Debug, Args)]
pub(crate) struct LoadSockets {
    /// Between two pings of a socket.
    #[arg(long, default_value = "5s", value_name = "TIME")]
    pub(crate) ping: HumanDuration,
    /// The server's process on this machine, whose memory is looked at.
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
    #[command(flatten)]
    pub(crate) listen: LoadListen,
}

#[derive(Debug, Args)]
pub(crate) struct LoadStorm {
    /// How long all are connected before they are cut off.
    #[arg(long, default_value = "5s", value_name = "TIME")]
    pub(crate) after: HumanDuration,
    #[command(flatten)]
    pub(crate) listen: LoadListen,
}

#[derive(Debug, Args)]
pub(crate) struct LoadListen {
    /// The gateways; subscribers are spread over them.
    #[arg(long = "url", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub(crate) urls: Vec<http::Uri>,
    /// PEM file of whom to trust behind https URLs; whom this machine trusts when absent.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Token to enter with; that of a `hearsay dev` of this user on this machine when absent.
    #[arg(long, env = "HEARSAY_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// One meeting to subscribe to.
    #[arg(long, value_name = "NAME", conflicts_with = "meetings")]
    pub(crate) meeting: Option<String>,
    /// This many meetings, named PREFIX-0, PREFIX-1 and so on.
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    pub(crate) meetings: usize,
    #[arg(long, default_value = "load")]
    pub(crate) prefix: String,
    /// Subscribers of all meetings together.
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    pub(crate) subscribers: usize,
    /// New connections a second.
    #[arg(long, default_value_t = 500, value_name = "RATE")]
    pub(crate) connect_rate: u32,
    /// How long to listen once everybody is connected, for instance 30s.
    #[arg(long, default_value = "30s", value_name = "TIME")]
    pub(crate) duration: HumanDuration,
    /// Most events that may be lost, doubled or out of order.
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_lost: Option<u64>,
    /// Most sockets that may be disconnected.
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_disconnected: Option<u64>,
    /// Highest 99th percentile of latency.
    #[arg(long, value_name = "TIME")]
    pub(crate) max_p99: Option<HumanDuration>,
    /// Prints one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Models {
    /// Fetches and prepares what is missing; exits 0 when everything is there.
    Fetch {
        #[command(flatten)]
        sources: Sources,
    },
    /// Shows name, version, size and state of each.
    List {
        #[command(flatten)]
        sources: Sources,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Checks the configuration and prints the effective one, secrets hidden.
    Check {
        #[command(flatten)]
        sources: Sources,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn credentials_come_in_pairs() {
        let parse = |arguments: &str| Cli::try_parse_from(arguments.split(' '));
        assert!(parse("hearsay dev --app-id x").is_err());
        assert!(parse("hearsay dev --app-id x --app-secret y").is_ok());
        assert!(parse("hearsay transcribe a.wav b.wav --output srt --fast --meeting m").is_ok());
        assert!(parse("hearsay transcribe").is_err());
        assert!(parse("hearsay transcribe a.wav --output doc").is_err());
        assert!(parse("hearsay dev --tls").is_ok());
        assert!(parse("hearsay load listen --meeting m --subscribers 5 --duration 2s --max-p99 50ms").is_ok());
        assert!(parse("hearsay load listen --meeting m --meetings 2").is_err());
        assert!(parse("hearsay load events --redis redis://x --meetings 3 --rate 100 --batch 10").is_ok());
        assert!(parse("hearsay load events --rate 0").is_err());
    }
}
