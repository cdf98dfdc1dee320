//! The speech figures of BENCHMARKS.md, taken on the development speech set through a running `hearsay dev`.
//!
//! `cargo bench -p hearsay-tests --bench speech -- words` streams every file as a recording and compares its words with
//! those of the same engine and segmenter fed the whole file, and with what was said; `-- latency [FILES]` speaks the read
//! part live, one stream, and measures from the last sample of speech to the final's bytes at a subscriber.

#![expect(clippy::disallowed_methods, reason = "a client's task ends with the measurement")]

use std::{path::Path, sync::atomic::AtomicBool, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use hearsay_protocol::{AudioFormat, Encoding, event::SpeakerConfig};
use hearsay_speech::{
    engine::{
        Engine, Kind as Decode, Request, VAD_FRAME,
        moonshine::{MoonshineEngine, MoonshineOptions, MoonshinePaths},
    },
    offline,
    segment::Settings,
    vad::{Silero, VadModel},
};
use hearsay_tests::{
    Build, Server,
    client::{Client, Said, wav},
    words::{Errors, errors, normalize},
};
use serde_json::json;
use xtask::speech_set::{Item, Kind, folder, load};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    match arguments.next().as_deref() {
        Some("words") => words().await,
        Some("latency") => latency(arguments.next().map_or(Ok(usize::MAX), |count| count.parse())?).await,
        Some(other) => bail!("say `words` or `latency`, not {other:?}"),
        // As `cargo test --all-targets` calls it.
        None => {
            println!("nothing measured: say `words` or `latency`");
            Ok(())
        }
    }
}

/// The engine and the voice activity model, without a server around them.
fn load_engine() -> Result<(MoonshineEngine, Silero)> {
    let models = hearsay_models::ModelStore::open(hearsay_models::cache_folder()?.join("models"))
        .fetch(&mut hearsay_models::Silent)?;
    let files = models.moonshine;
    let paths = MoonshinePaths { encoder: files.encoder, decoder: files.decoder, tokenizer: files.tokenizer };
    Ok((MoonshineEngine::load(&paths, &MoonshineOptions::default())?, Silero::load(&models.silero)?))
}

/// Each utterance by itself, cut where the set's marks say, with 100 ms around it.
fn hand_cut(item: &Item, samples: &[i16], engine: &MoonshineEngine, vad: &Silero) -> Result<Errors> {
    const AROUND: usize = 1_600;
    let mut decoder = engine.decoder();
    let mut wrong = Errors::default();
    for utterance in &item.utterances {
        let sample = |us: u64| us as usize * 16 / 1_000;
        let start = sample(utterance.start_us).saturating_sub(AROUND);
        let end = (sample(utterance.end_us) + AROUND).min(samples.len());
        let samples: Vec<f32> = samples[start..end].iter().map(|sample| f32::from(*sample) / 32_768.0).collect();
        let mut voice = vad.voice();
        let voice = samples.chunks(VAD_FRAME).map(|frame| voice.probability(frame)).collect::<Result<Vec<_>, _>>()?;
        let never = AtomicBool::new(false);
        let request = Request {
            samples: &samples,
            voice: &voice,
            kind: Decode::Final,
            language: "en",
            draft: &[],
            memory: None,
            cancelled: &never,
        };
        let heard = decoder.decode(&request)?.text;
        wrong += errors(&normalize(&utterance.text), &normalize(&heard));
    }
    Ok(wrong)
}

async fn words() -> Result<()> {
    let (set, at) = (load()?, folder()?);
    let (engine, vad) = load_engine()?;
    let server = Server::start(Build::Release, &[]).await?;
    let mut pooled: Vec<(&str, Errors, Errors)> = Vec::new();
    let (mut files, mut same) = (0, 0);
    println!("{:<28} {:>6} {:>9} {:>9}  same words as the whole file at once", "file", "words", "streamed", "hand-cut");
    for (index, item) in set.items.iter().enumerate() {
        let (samples, rate) = wav(&item.path(&at))?;
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let config = SpeakerConfig { format: AudioFormat::new(Encoding::Linear16, rate)?, ..SpeakerConfig::default() };
        let commits = offline::transcribe(&Settings::default(), config, &vad, &engine, bytes.into())?;
        let whole: Vec<String> = commits.into_iter().filter_map(|commit| Some(commit.utterance?.text)).collect();

        let mut speaker = Client::connect(&server, &format!("/v1/realtime/insights/words-{index}")).await?;
        speaker.begin("Voice", rate, json!({"hearsay": {"recorded": true}})).await?;
        speaker.pour(&samples, 3_200).await?;
        speaker.stop().await?;
        let streamed: Vec<String> = speaker.finals().into_iter().map(|said| said.text).collect();

        let said = normalize(&item.transcript);
        let wrong = errors(&said, &normalize(&streamed.join(" ")));
        let cut = if rate == 16_000 { hand_cut(item, &samples, &engine, &vad)? } else { Errors::default() };
        files += 1;
        same += usize::from(whole == streamed);
        println!(
            "{:<28} {:>6} {:>8.2}% {:>9}  {}",
            item.file,
            wrong.words,
            100.0 * wrong.rate(),
            if cut.words > 0 { format!("{:.2}%", 100.0 * cut.rate()) } else { "-".to_owned() },
            if whole == streamed { "yes" } else { "NO" }
        );
        let pool = match (item.kind, Path::new(&item.file).file_stem().is_some_and(|stem| stem == "mixed")) {
            (_, true) => "meeting, mixed",
            (Kind::Read, _) => "read",
            (Kind::Recording, _) => "recordings",
            (Kind::Talk, _) => "talk",
            (Kind::Meeting, _) => "meeting, a stream each",
            (Kind::Narrowband, _) => "8 kHz",
        };
        if let Some(found) = pooled.iter_mut().find(|(name, ..)| *name == pool) {
            found.1 += wrong;
            found.2 += cut;
        } else {
            pooled.push((pool, wrong, cut));
        }
    }
    println!("\npooled");
    for (name, wrong, cut) in &pooled {
        let rate =
            |errors: Errors| if errors.words > 0 { format!("{:.2}%", 100.0 * errors.rate()) } else { "-".into() };
        println!("{name:<28} {:>6} {:>9} {:>9}", wrong.words, rate(*wrong), rate(*cut));
    }
    println!("{same} of {files} files: streamed words identical to the whole file at once");
    server.stop().await?;
    ensure!(same == files, "streaming changed words");
    let read = pooled.iter().find(|(name, ..)| *name == "read").context("the set has a read part")?;
    let lost = 100.0 * (read.1.rate() - read.2.rate());
    ensure!(lost <= 1.5, "cutting by ourselves costs {lost:.2} points on the read part; 1.5 are accepted");
    Ok(())
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let index = ((sorted.len() as f64 - 1.0) * share).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// Prints a figure's quantiles and gives its median and 95th percentile.
fn show(name: &str, mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let (half, most) = (quantile(&values, 0.5), quantile(&values, 0.95));
    println!(
        "{name:<52} n={:<5} p50 {:>6.0}  p95 {:>6.0}  max {:>6.0}",
        values.len(),
        half,
        most,
        values.last().copied().unwrap_or(f64::NAN)
    );
    (half, most)
}

/// Three copies of the same words in a row.
fn loops(text: &str) -> bool {
    let words = normalize(text);
    (1..=words.len() / 3).any(|length| {
        words
            .windows(3 * length)
            .any(|run| run[..length] == run[length..2 * length] && run[..length] == run[2 * length..])
    })
}

async fn latency(most: usize) -> Result<()> {
    const MESSAGE: Duration = Duration::from_millis(20);
    let (set, at) = (load()?, folder()?);
    let server = Server::start(Build::Release, &[]).await?;
    let (mut finals, mut firsts, mut starts, mut lengths) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut partials, mut empty, mut looping, mut unmatched) = (0, 0, 0, 0);
    for (index, item) in set.items.iter().filter(|item| item.kind == Kind::Read).take(most).enumerate() {
        let (samples, rate) = wav(&item.path(&at))?;
        let meeting = format!("latency-{index}");
        let mut listener = Client::connect(&server, &format!("/v1/subscribe/{meeting}")).await?;
        let listening = tokio::spawn(async move { listener.drain().await.map(|()| listener) });
        let mut speaker = Client::connect(&server, &format!("/v1/realtime/insights/{meeting}")).await?;
        speaker.begin("Voice", rate, json!({})).await?;
        let sent = speaker.speak(&samples, rate, MESSAGE).await?;
        speaker.stop().await?;
        let listener = tokio::time::timeout(Duration::from_secs(60), listening).await.context("not let go")???;
        // The message that carried a moment of the stream.
        let sent_at = |us: u64| sent[(us as usize / 20_000).min(sent.len() - 1)];
        let said: Vec<_> = listener.frames.iter().filter_map(|(at, frame)| Said::of(*at, frame)).collect();
        partials += said.iter().filter(|said| !said.is_final).count();
        empty += said.iter().filter(|said| said.text.trim().is_empty()).count();
        looping += said.iter().filter(|said| !said.is_final && loops(&said.text)).count();
        for utterance in &item.utterances {
            let (start, end) = (utterance.start_us as f64 / 1e6, utterance.end_us as f64 / 1e6);
            // The final that ends this utterance: its last word ends where the speech does.
            let last = said
                .iter()
                .filter(|said| said.is_final)
                .find(|said| said.words.last().is_some_and(|(_, _, over)| (over - end).abs() < 0.5));
            match last {
                Some(last) => {
                    finals.push(last.at.duration_since(sent_at(utterance.end_us)).as_secs_f64() * 1e3);
                    let first_word = last.words.first().map_or(start, |word| word.1);
                    lengths.push((end - first_word) * 1e3);
                }
                None => unmatched += 1,
            }
            let begun = sent_at(utterance.start_us);
            if end - start > 1.0
                && let Some(first) = said.iter().find(|said| said.at > begun)
            {
                firsts.push(first.at.duration_since(begun).as_secs_f64() * 1e3);
            }
            // Words in order, matched by what they are.
            let heard: Vec<_> = said
                .iter()
                .filter(|said| said.is_final)
                .flat_map(|said| &said.words)
                .filter(|(_, from, _)| *from > start - 0.3 && *from < end)
                .collect();
            for word in &utterance.words {
                let at = word.start_us as f64 / 1e6;
                let same = |text: &str| normalize(text) == normalize(&word.text);
                let nearest = heard
                    .iter()
                    .filter(|(text, ..)| same(text))
                    .map(|(_, from, _)| (from - at).abs() * 1e3)
                    .min_by(f64::total_cmp);
                starts.extend(nearest.filter(|error| *error < 1_000.0));
            }
        }
    }
    println!("milliseconds; pause {:?}, messages of {MESSAGE:?}", Settings::default().pause);
    let finals = show("last sample of speech sent -> final at a subscriber", finals);
    show("length of those utterances", lengths);
    let firsts = show("speech starts -> first caption", firsts);
    let starts = show("word starts against the voices' marks", starts);
    println!(
        "{partials} partials, {empty} empty, {looping} with three copies of a block; {unmatched} utterances without a final at their end"
    );
    server.stop().await?;
    ensure!(empty + looping + unmatched == 0, "no partial may be empty or loop, and every utterance has its final");
    ensure!(finals.0 <= 450.0 && finals.1 <= 800.0, "finals are late: 450 ms and 800 ms are to be reached");
    ensure!(firsts.1 <= 1_000.0, "first captions are late: 1,000 ms is to be reached");
    ensure!(starts.0 <= 50.0, "word starts are off: 50 ms is to be reached");
    Ok(())
}
