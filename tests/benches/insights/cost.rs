//! Processor time of a final: all that is inferred from it, with the vectors of its sentences and without.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use anyhow::{Context, Result, ensure};
use hearsay_embedding::MiniLm;
use hearsay_insight::{
    analysis::Analysis,
    labelled::{self, Spoken},
    meaning::{Meaning, Remembering, Vector},
    sentiment::sentiment,
};
use hearsay_protocol::{
    event::{Event, SpeakerConfig, Tracker},
    sentences,
};

use crate::Speaker;

/// Trackers of each speaker, and phrases of each tracker.
const TRACKERS: usize = 10;
const PHRASES: usize = 8;
/// Milliseconds that a final may take.
const WITH: f64 = 10.0;
const WITHOUT: f64 = 1.0;

pub(crate) fn run(data: &Path) -> Result<()> {
    let utterances = crate::utterances(data)?;
    let path = data.join("trackers_clinc.json");
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let tracked = labelled::tracked(&text).with_context(|| path.display().to_string())?;
    let trackers = tracked.trackers.into_iter().take(TRACKERS).map(|(name, mut vocabulary)| {
        vocabulary.truncate(PHRASES);
        Tracker { id: None, name, vocabulary }
    });
    let trackers: Vec<Tracker> = trackers.collect();
    let files =
        hearsay_models::ModelStore::open(hearsay_models::cache_folder()?).fetch(&mut hearsay_models::Silent)?.minilm;
    let model: Arc<dyn Meaning> = Arc::new(MiniLm::load(&files.model, &files.tokenizer)?);

    println!("milliseconds of one processor; {TRACKERS} trackers of {PHRASES} phrases, all insight types, entities");
    let with = measured("with vectors", &utterances, &trackers, Some(model))?;
    let without = measured("without", &utterances, &trackers, None)?;
    ensure!(with <= WITH && without <= WITHOUT, "at most {WITH} and {WITHOUT} ms a final are to be taken");
    Ok(())
}

/// The mean of a final, after printing it.
fn measured(name: &str, utterances: &[Spoken], trackers: &[Tracker], model: Option<Arc<dyn Meaning>>) -> Result<f64> {
    // As a recognizer has it: a sentence is weighed once, for its sentiment and for trackers.
    let meaning = model.map(|it| Remembering::new(it, 4_096));
    let (mut took, mut worst) = (0.0, 0.0_f64);
    let (mut insights, mut weighed) = (0, 0);
    for meeting in utterances.chunk_by(|a, b| a.meeting == b.meeting) {
        let mut analysis = Analysis::new();
        let mut speakers: HashMap<&str, Speaker> = HashMap::new();
        for it in meeting {
            let number = speakers.len() as u128 + 1;
            speakers.entry(&it.speaker).or_insert_with(|| {
                let speaker = Speaker::new(number, &it.speaker);
                let kinds = ["question", "action_item", "follow_up", "topic"].map(str::to_owned);
                let config = SpeakerConfig {
                    insight_types: kinds.to_vec(),
                    detect_entities: true,
                    trackers: trackers.to_vec(),
                    ..SpeakerConfig::default()
                };
                apply(&mut analysis, &speaker.joins(config), meaning.as_ref());
                speaker
            });
        }
        let finals = meeting.iter().map(|it| speakers[it.speaker.as_str()].says(it.start, it.end, &it.text));
        let finals: Vec<_> = finals.collect();
        // Linux tells a thread's time a few milliseconds late: a single final cannot be timed by it.
        let before = processor_time()?;
        for spoken in finals {
            let felt = |meaning: &Remembering| {
                let vectors = sentences(&spoken).into_iter().filter_map(|it| meaning.of(it.text));
                vectors.map(|it| sentiment(&it)).collect::<Vec<_>>().len()
            };
            weighed += meaning.as_ref().map_or(0, felt);
            insights += apply(&mut analysis, &Event::Final(spoken), meaning.as_ref());
        }
        let of_meeting = (processor_time()? - before) as f64 / 1e6;
        took += of_meeting;
        worst = worst.max(of_meeting / meeting.len() as f64);
    }
    let mean = took / utterances.len().max(1) as f64;
    println!(
        "{name:<13} {} finals, {weighed} sentences weighed, {insights} insights: {mean:.3} a final, {worst:.3} in the dearest meeting",
        utterances.len()
    );
    Ok(mean)
}

/// As the analyst does: the texts that are asked for are weighed, then the event is folded. Answers how much it told.
fn apply(analysis: &mut Analysis, event: &Event, meaning: Option<&Remembering>) -> usize {
    let Some(meaning) = meaning else { return analysis.apply(event, None).len() };
    let asked = analysis.asks(event).into_iter();
    let known: HashMap<String, Vector> =
        asked.filter_map(|text| meaning.of(&text).map(|vector| (text, vector))).collect();
    analysis.apply(event, Some(&known)).len()
}

/// Nanoseconds that this process's threads have run.
fn processor_time() -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        // First of three numbers: time on a processor.
        let times = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum +=
            times.split_whitespace().next().and_then(|it| it.parse::<u64>().ok()).context("no time on a processor")?;
    }
    Ok(sum)
}
