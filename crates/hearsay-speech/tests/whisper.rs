//! The engine of many languages on real recordings: words, times, and languages it does not know.

use std::{
    error::Error,
    sync::{LazyLock, atomic::AtomicBool},
};

use hearsay_models::{ModelStore, Silent};
use hearsay_speech::{
    engine::{
        ENGINE_RATE, Engine, EngineError, Kind, Request, Transcript, VAD_FRAME,
        moonshine::Runtime,
        whisper::{WhisperEngine, WhisperPaths},
    },
    vad::{Silero, VadModel as _},
};

struct Set {
    engine: WhisperEngine,
    samples: Vec<f32>,
    voice: Vec<f32>,
}

static SET: LazyLock<Set> = LazyLock::new(|| load().expect("the model and a recording, fetched when missing"));

fn load() -> Result<Set, Box<dyn Error>> {
    let store = ModelStore::open(hearsay_models::cache_folder()?);
    let files = store.whisper(&mut Silent)?;
    let paths = WhisperPaths { encoder: files.encoder, decoder: files.decoder, vocabulary: files.vocabulary };
    let mut reader = hound::WavReader::open(store.recordings(&mut Silent)?.two_cities)?;
    assert_eq!(reader.spec().sample_rate, 48_000);
    let wide =
        reader.samples::<i16>().map(|it| it.map(|it| f32::from(it) / 32_768.0)).collect::<Result<Vec<_>, _>>()?;
    let samples: Vec<f32> = wide.chunks_exact(3).map(|three| three.iter().sum::<f32>() / 3.0).collect();
    let silero = Silero::load(&store.fetch(&mut Silent)?.silero)?;
    let mut voice = silero.voice();
    let voice = samples.chunks(VAD_FRAME).map(|frame| voice.probability(frame)).collect::<Result<Vec<_>, _>>()?;
    Ok(Set { engine: WhisperEngine::load(&paths, &Runtime::Pure { prepack: true })?, samples, voice })
}

fn decode(seconds: std::ops::Range<usize>, language: &str, kind: Kind) -> Result<Transcript, EngineError> {
    decode_with(&SET.engine, seconds, language, kind)
}

fn decode_with(
    engine: &WhisperEngine,
    seconds: std::ops::Range<usize>,
    language: &str,
    kind: Kind,
) -> Result<Transcript, EngineError> {
    let frame = |second: usize| second * ENGINE_RATE as usize / VAD_FRAME;
    let frames = frame(seconds.start)..frame(seconds.end);
    let never = AtomicBool::new(false);
    let request = Request {
        samples: &SET.samples[frames.start * VAD_FRAME..frames.end * VAD_FRAME],
        voice: &SET.voice[frames],
        kind,
        language,
        draft: &[],
        memory: None,
        cancelled: &never,
    };
    engine.decoder().decode(&request)
}

#[test]
fn a_recording_becomes_its_words_with_times() {
    let heard = decode(0..6, "en-GB", Kind::Final).unwrap();
    let plain = heard.text.to_lowercase().replace(|c: char| !c.is_alphanumeric() && c != ' ', "");
    assert!(plain.starts_with("it was the best of times it was the worst of times"), "{heard:?}");
    assert_eq!(heard.words.len(), heard.text.split(' ').count());
    assert!(heard.words.windows(2).all(|pair| pair[0].end <= pair[1].start), "{heard:?}");
    assert!(heard.confidence > 0.5);
    assert_eq!(decode(0..6, "en", Kind::Final).unwrap(), heard, "the same audio is the same words");
    assert_eq!(decode(0..6, "en", Kind::Partial).unwrap().text, heard.text);
}

#[test]
fn the_language_is_what_it_writes_in() {
    assert!(SET.engine.capabilities().languages.len() >= 99);
    let german = decode(0..6, "de-DE", Kind::Final).unwrap().text;
    let english = decode(0..6, "en-US", Kind::Final).unwrap().text;
    assert_ne!(german, english);
    let error = decode(0..6, "tlh", Kind::Final).unwrap_err().to_string();
    assert_eq!(error, "the model failed: the language \"tlh\" is not understood");
}

#[cfg(feature = "onnxruntime")]
#[test]
fn onnx_runtime_understands_the_same() {
    use hearsay_speech::engine::onnxruntime::OnnxRuntime;

    let store = ModelStore::open(hearsay_models::cache_folder().unwrap());
    let files = store.whisper(&mut Silent).unwrap();
    let paths = WhisperPaths { encoder: files.encoder, decoder: files.decoder, vocabulary: files.vocabulary };
    let with =
        OnnxRuntime { library: store.onnxruntime(&mut Silent).unwrap(), providers: vec!["cpu".into()], threads: 2 };
    let engine = WhisperEngine::load(&paths, &Runtime::OnnxRuntime(with)).unwrap();
    let heard = decode_with(&engine, 0..6, "en-GB", Kind::Final).unwrap();
    let plain = heard.text.to_lowercase().replace(|c: char| !c.is_alphanumeric() && c != ' ', "");
    assert!(plain.starts_with("it was the best of times it was the worst of times"), "{heard:?}");
    assert_eq!(heard.words.len(), heard.text.split(' ').count());
}
