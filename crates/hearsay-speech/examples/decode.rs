//! Says what is said in a recording, when, and what that costs:
//! `cargo run --release -p hearsay-speech --example decode -- file.wav [--partials MS] [--no-prepack] [--onnxruntime]`.
//! Without a file: the recordings that tests use.

#[path = "../tests/moonshine/heard.rs"]
mod heard;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

#[cfg(feature = "onnxruntime")]
use hearsay_speech::engine::onnxruntime::OnnxRuntime;
use hearsay_speech::{
    engine::{
        ENGINE_RATE, Engine, Kind, VAD_FRAME,
        agree::Agreement,
        moonshine::{MoonshineEngine, MoonshineOptions, Runtime},
    },
    vad::Silero,
};

use self::heard::{Recording, models, paths, store};

fn main() {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut options = MoonshineOptions::default();
    let mut partials = None;
    let mut drafted = true;
    let mut arguments = std::env::args().skip(1);
    while let Some(it) = arguments.next() {
        match it.as_str() {
            "--partials" => partials = arguments.next().and_then(|it| it.parse::<usize>().ok()),
            "--no-draft" => drafted = false,
            "--no-prepack" => options.runtime = Runtime::Pure { prepack: false },
            #[cfg(feature = "onnxruntime")]
            "--onnxruntime" => {
                let library = store().onnxruntime(&mut hearsay_models::Terminal::default()).expect("ONNX Runtime");
                let with = OnnxRuntime { library, providers: Vec::new(), threads: 1 };
                options.runtime = Runtime::OnnxRuntime(with);
            }
            file => files.push(file.into()),
        }
    }
    let models = models();
    if files.is_empty() {
        let recordings = store().recordings(&mut hearsay_models::Silent).expect("the recordings");
        files = vec![recordings.beckett, recordings.two_cities, recordings.endgame];
    }
    let silero = Silero::load(&models.silero).expect("the voice activity model");
    let (start, before) = (Instant::now(), processor_time());
    let engine = MoonshineEngine::load(&paths(&models), &options).expect("the speech model");
    println!(
        "loaded in {:?} ({:?} of a processor), {} MB resident",
        start.elapsed(),
        processor_time() - before,
        resident()
    );
    let mut decoder = engine.decoder();
    for file in files {
        let recording = Recording::open(&file, &silero);
        println!("\n{}", file.display());
        let (mut spent, mut spent_on_partials, mut count) = (Duration::ZERO, Duration::ZERO, 0u32);
        for frames in recording.utterances() {
            if let Some(every) = partials {
                let every = (every * ENGINE_RATE as usize / 1000).div_ceil(VAD_FRAME);
                let mut tokens = Vec::new();
                let mut agreement = Agreement::default();
                for end in (frames.start + every..frames.end).step_by(every) {
                    let before = processor_time();
                    let draft = if drafted { &tokens[..] } else { &[] };
                    let heard = recording.decode(&mut *decoder, frames.start..end, Kind::Partial, draft);
                    spent_on_partials += processor_time() - before;
                    count += 1;
                    tokens = heard.tokens;
                    let shown = agreement.revise(&heard.text);
                    println!("    {}|{}", &shown.text[..shown.stable], &shown.text[shown.stable..]);
                }
            }
            let before = processor_time();
            let said = recording.decode(&mut *decoder, frames.clone(), Kind::Final, &[]);
            spent += processor_time() - before;
            let seconds = |samples: usize| (frames.start * VAD_FRAME + samples) as f32 / ENGINE_RATE as f32;
            println!("{:7.2} {} ({:.2})", seconds(0), said.text, said.confidence);
            for word in said.words {
                println!(
                    "{:>16.2} {:6.2} {:.2} {}",
                    seconds(word.start),
                    seconds(word.end),
                    word.confidence,
                    word.text
                );
            }
        }
        let audio = recording.samples.len() as f32 / ENGINE_RATE as f32;
        println!(
            "{audio:.1} s, finals {:.2} s of a processor: {:.4}, {} MB resident",
            spent.as_secs_f32(),
            spent.as_secs_f32() / audio,
            resident()
        );
        if count > 0 {
            println!(
                "{count} partials, {:?} each: {:.4}",
                spent_on_partials / count,
                spent_on_partials.as_secs_f32() / audio
            );
        }
    }
}

/// Of this process, in all its threads.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|it| fields.get(*it)?.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Megabytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|it| it.parse::<u64>().ok()).unwrap_or_default() * 4096 / 1_000_000
}
