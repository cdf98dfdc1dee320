//! How a recognizer is set up. Defaults live here and nowhere else.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use hearsay_runtime::{HumanBytes, HumanDuration};
use hearsay_speech::segment::Settings;

use crate::grpc::GrpcTls;

/// How streams are recognized.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where gateways reach this recognizer, when it is a process of its own. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Gateways' connections at once; more are closed. Each gateway needs one, and one for each of its processors that streams
    /// come in on; the same again while it is replaced.
    pub connections: NonZeroUsize,
    /// TLS to gateways, when it is a process of its own; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<GrpcTls>,
    /// Streams heard at once; more are refused.
    pub streams: NonZeroUsize,
    /// Streams heard well: above it no new one is taken, only those that another recognizer lost. 0: as many as are measured
    /// at start.
    pub rated: usize,
    pub engine: EngineConfig,
    /// Threads that run the speech model. 0: one for each core.
    pub engine_threads: usize,
    /// Threads that run decoders, resamplers and voice activity: one for some 60 streams.
    pub listening_threads: NonZeroUsize,
    /// How soon after the end of speech a final should be decoded: what decodes are ordered by.
    pub final_target: HumanDuration,
    /// Partials that may wait for the engine; with more, new ones are left out.
    pub partials_waiting: usize,
    /// Largest message an uplink may send.
    pub message_bytes: HumanBytes,
    /// How long an uplink may take to say what it opens.
    pub open: HumanDuration,
    /// How long the log may be out of reach before a stream is given back to its uplink.
    pub log_patience: HumanDuration,
    /// How long a draining recognizer waits for a stream's utterance to end before it gives the stream back.
    pub handover: HumanDuration,
    pub segment: SegmentConfig,
    pub ladder: LadderConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
            connections: const { NonZeroUsize::new(1_024).expect("not zero") },
            tls: None,
            streams: NonZeroUsize::MIN.saturating_add(63),
            rated: 0,
            engine: EngineConfig::default(),
            engine_threads: 0,
            listening_threads: NonZeroUsize::MIN,
            final_target: HumanDuration::from_millis(400),
            partials_waiting: 32,
            message_bytes: HumanBytes::new(2 << 20),
            open: HumanDuration::from_secs(5),
            log_patience: HumanDuration::from_secs(10),
            handover: HumanDuration::from_secs(8),
            segment: SegmentConfig::default(),
            ladder: LadderConfig::default(),
        }
    }
}

/// What runs the speech model.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Models, by name. Each stream is heard by the first that understands its `languageCode`.
    pub models: Vec<ModelName>,
    /// What runs the speech models. The voice activity model is too small to gain by it: it runs in the program.
    pub runtime: RuntimeName,
    /// The shared library of ONNX Runtime. Absent: the one for processors, fetched like the models; a library for GPUs comes
    /// with the machine that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub library: Option<PathBuf>,
    /// Execution providers of ONNX Runtime, the preferred one first. The processor comes last by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<String>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        let models = vec![ModelName::MoonshineBaseEn];
        Self { models, runtime: RuntimeName::default(), library: None, providers: Vec::new() }
    }
}

/// A speech model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelName {
    /// English.
    MoonshineBaseEn,
    /// 99 languages, at some six times the cost.
    WhisperBase,
}

/// A run time of the speech model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeName {
    /// In the program.
    #[default]
    Rten,
    /// A shared library; only in a build with the feature `onnxruntime`.
    OnnxRuntime,
}

/// What a library may have; the other ones of ONNX Runtime have not been tried.
const PROVIDERS: [&str; 5] = ["cpu", "cuda", "tensorrt", "openvino", "rocm"];

impl EngineConfig {
    fn validate(&self) -> Result<(), String> {
        if self.models.is_empty() {
            return Err("recognizer.engine.models must name at least one: moonshine-base-en, whisper-base".to_owned());
        }
        if self.runtime == RuntimeName::Rten && (self.library.is_some() || !self.providers.is_empty()) {
            return Err("recognizer.engine.library and .providers are for runtime = \"onnxruntime\"".to_owned());
        }
        match self.providers.iter().find(|name| !PROVIDERS.contains(&name.as_str())) {
            Some(name) => {
                let known = PROVIDERS.join(", ");
                Err(format!("recognizer.engine.providers has {name:?}; known are {known}"))
            }
            None => Ok(()),
        }
    }
}

/// How speech is divided into utterances. Durations are kept to the nearest 32 ms.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SegmentConfig {
    /// Voice activity, 0 to 1, that begins speech.
    pub on: f32,
    /// Voice activity, 0 to 1, below which a pause begins.
    pub off: f32,
    /// The pause that ends an utterance.
    pub pause: HumanDuration,
    /// The pause after which its final is decoded on the chance that it is over.
    pub speculate: HumanDuration,
    /// Audio before the first and after the last speech that belongs to the utterance.
    pub onset_pad: HumanDuration,
    pub end_pad: HumanDuration,
    /// Longest utterance.
    pub longest: HumanDuration,
    /// Shorter speech is taken for a noise.
    pub shortest: HumanDuration,
    /// Silence after which the log is told that nothing was said.
    pub silence: HumanDuration,
    /// Audio a fresh decoder hears before it may say anything.
    pub preroll: HumanDuration,
    /// Speech before the first partial, and between revisions.
    pub first_partial: HumanDuration,
    pub partial: HumanDuration,
}

impl Default for SegmentConfig {
    fn default() -> Self {
        let settings = Settings::default();
        let human = HumanDuration::new;
        Self {
            on: settings.on,
            off: settings.off,
            pause: human(settings.pause),
            speculate: human(settings.speculate),
            onset_pad: human(settings.onset_pad),
            end_pad: human(settings.end_pad),
            longest: human(settings.longest),
            shortest: human(settings.shortest),
            silence: human(settings.silence),
            preroll: human(settings.preroll),
            first_partial: human(settings.first_partial),
            partial: human(settings.partial),
        }
    }
}

impl SegmentConfig {
    pub fn settings(&self) -> Settings {
        Settings {
            on: self.on,
            off: self.off,
            pause: self.pause.get(),
            speculate: self.speculate.get(),
            onset_pad: self.onset_pad.get(),
            end_pad: self.end_pad.get(),
            longest: self.longest.get(),
            shortest: self.shortest.get(),
            silence: self.silence.get(),
            preroll: self.preroll.get(),
            first_partial: self.first_partial.get(),
            partial: self.partial.get(),
        }
    }
}

/// When less is done. Each is a smoothed wait of live decodes for an engine thread; a step is left at half of it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LadderConfig {
    /// Partials half as often.
    pub slow_partials: HumanDuration,
    /// No partials.
    pub no_partials: HumanDuration,
    /// No new streams.
    pub refuse: HumanDuration,
}

impl Default for LadderConfig {
    fn default() -> Self {
        Self {
            slow_partials: HumanDuration::from_millis(150),
            no_partials: HumanDuration::from_millis(300),
            refuse: HumanDuration::from_millis(500),
        }
    }
}

impl Config {
    /// # Errors
    /// Says which value contradicts which.
    pub fn validate(&self) -> Result<(), String> {
        let ladder = &self.ladder;
        if ladder.slow_partials > ladder.no_partials || ladder.no_partials > ladder.refuse {
            return Err("recognizer.ladder: slow_partials, no_partials and refuse must rise in this order".to_owned());
        }
        if self.message_bytes.as_usize() < 64 * 1024 {
            return Err("recognizer.message_bytes must be at least 64KiB".to_owned());
        }
        if self.final_target.get() > Duration::from_secs(10) {
            return Err("recognizer.final_target must be at most 10s".to_owned());
        }
        self.engine.validate()?;
        self.segment.settings().validate().map_err(|error| format!("recognizer.segment: {error}"))
    }

    pub fn engine_threads(&self) -> usize {
        match self.engine_threads {
            0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            threads => threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_the_engine_is_known_or_named() {
        let check = |engine: EngineConfig, expected: Option<&str>| {
            let found = Config { engine, ..Config::default() }.validate();
            assert_eq!(found.err().as_deref(), expected);
        };
        let providers = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let onnx = EngineConfig { runtime: RuntimeName::OnnxRuntime, ..EngineConfig::default() };
        check(EngineConfig::default(), None);
        check(EngineConfig { providers: providers(&["tensorrt", "cuda"]), ..onnx.clone() }, None);
        check(
            EngineConfig { providers: providers(&["cuda", "gpu"]), ..onnx },
            Some("recognizer.engine.providers has \"gpu\"; known are cpu, cuda, tensorrt, openvino, rocm"),
        );
        check(
            EngineConfig { providers: providers(&["cuda"]), ..EngineConfig::default() },
            Some("recognizer.engine.library and .providers are for runtime = \"onnxruntime\""),
        );
    }
}
