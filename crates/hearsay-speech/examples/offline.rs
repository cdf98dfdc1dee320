//! What a stream of this recording would put on the log:
//! `cargo run --release -p hearsay-speech --example offline -- file.wav [more.wav ..]`.
//! 16-bit mono WAV files of 8 to 48 kHz. The models are those that `hearsay models fetch` keeps.

use std::{path::Path, process::ExitCode, time::Instant};

use bytes::Bytes;
use hearsay_models::{ModelStore, Terminal, cache_folder};
use hearsay_protocol::{AudioFormat, Encoding, event::SpeakerConfig};
use hearsay_speech::{
    engine::{
        Capabilities, Decoder, Engine, EngineError, Request, Transcript,
        moonshine::{MoonshineEngine, MoonshineOptions, MoonshinePaths},
    },
    offline,
    segment::Settings,
    vad::Silero,
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let models = ModelStore::open(cache_folder()?).fetch(&mut Terminal::default())?;
    let files = models.moonshine;
    let paths = MoonshinePaths { encoder: files.encoder, decoder: files.decoder, tokenizer: files.tokenizer };
    let engine = MoonshineEngine::load(&paths, &MoonshineOptions::default())?;
    let silero = Silero::load(&models.silero)?;
    for file in std::env::args().skip(1) {
        let (config, audio, seconds) = read(Path::new(&file))?;
        println!("{file}: {seconds:.1} s, {}", config.format);
        let begun = Instant::now();
        let commits = offline::transcribe(&Settings::default(), config.clone(), &silero, &engine, audio.clone())?;
        let all = begun.elapsed().as_secs_f64();
        for said in commits.iter().filter_map(|commit| commit.utterance.as_ref()) {
            let at = |time: hearsay_protocol::StreamTime| time.0 as f64 / 1e6;
            println!("{:8.2} {:8.2}  {:.2}  {}", at(said.start), at(said.end), said.confidence, said.text);
        }
        let begun = Instant::now();
        offline::transcribe(&Settings::default(), config, &silero, &Deaf, audio)?;
        let front = begun.elapsed().as_secs_f64();
        println!(
            "one thread: {:.1} ms an audio second, {:.1} of them decoder, resampler, voice activity and segmenter; {} cuts",
            all / seconds * 1e3,
            front / seconds * 1e3,
            commits.len()
        );
    }
    Ok(())
}

fn read(path: &Path) -> Result<(SpeakerConfig, Bytes, f64), Box<dyn std::error::Error>> {
    let mut reader = hound::WavReader::open(path)?;
    let spec = reader.spec();
    if spec.channels != 1 || spec.bits_per_sample != 16 {
        return Err(format!("{}: not 16-bit mono", path.display()).into());
    }
    let samples = reader.samples::<i16>().collect::<Result<Vec<_>, _>>()?;
    let seconds = samples.len() as f64 / f64::from(spec.sample_rate);
    let format = AudioFormat::new(Encoding::Linear16, spec.sample_rate)?;
    let bytes = samples.into_iter().flat_map(i16::to_le_bytes).collect();
    Ok((SpeakerConfig { format, ..SpeakerConfig::default() }, bytes, seconds))
}

/// Hears nothing, at no cost: what is left is the way to the engine.
struct Deaf;

impl Engine for Deaf {
    fn capabilities(&self) -> &Capabilities {
        const NONE: Capabilities =
            Capabilities { name: "deaf", languages: &[], max_samples: usize::MAX, batch_invariant: true };
        &NONE
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(Self)
    }
}

impl Decoder for Deaf {
    fn decode(&mut self, _request: &Request<'_>) -> Result<Transcript, EngineError> {
        Ok(Transcript::default())
    }
}
