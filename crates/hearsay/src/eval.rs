//! `hearsay eval insights`: labelled data in, figures out.

mod entities;
mod rouge;
mod topics;
mod trackers;

use std::{fs, path::Path, process::ExitCode};

use anyhow::Context;
use hearsay_insight::{
    acts,
    grammar::{self, Assignee, Hint, Names},
    labelled::{self, Asked, AskedKind},
    meaning::Meaning,
    sentiment::{NEUTRAL, sentiment},
    text::words,
};
use serde::Serialize;

use crate::cli::{EvalInsights, EvalTask, EvalText};
#[cfg(feature = "recognizer")]
use crate::{cli::Sources, config, models};

/// Samples that an interval comes from.
const SAMPLES: usize = 1000;

/// What came of it; figures that do not apply are left out.
#[derive(Debug, Default, Serialize)]
struct Figures {
    task: &'static str,
    n: usize,
    #[serde(flatten)]
    scores: Option<Scores>,
    #[serde(skip_serializing_if = "Option::is_none")]
    macro_f1: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assignee_accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    false_alarm_rate: Option<f64>,
    #[serde(flatten)]
    rouge: Option<rouge::Figures>,
    #[serde(flatten)]
    topics: Option<topics::Figures>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Scores {
    precision: f64,
    recall: f64,
    f1: f64,
}

/// Said and true, of one item.
type Verdict = (bool, bool);

pub(crate) fn insights(arguments: &EvalInsights) -> anyhow::Result<ExitCode> {
    let text = read(&arguments.file)?;
    let named = |error: labelled::BadLine| anyhow::anyhow!("{}: {error}", arguments.file.display());
    let mut figures = Figures { task: arguments.task.name(), ..Figures::default() };
    let mut verdicts = Vec::new();
    let mut felt_interval = None;
    match arguments.task {
        EvalTask::Sentiment => {
            let felt = labelled::felt(&text).map_err(named)?;
            let meaning = meaning()?;
            let kinds: Vec<(usize, usize)> = felt
                .iter()
                .filter_map(|it| {
                    Some((kind(sentiment(&meaning.of(&as_asked(&it.text, arguments.text))?)), kind(it.mean)))
                })
                .collect();
            figures.n = kinds.len();
            figures.accuracy = Some(share(kinds.iter().filter(|it| it.0 == it.1).count(), kinds.len()));
            figures.macro_f1 = Some(macro_f1(kinds.iter().copied()));
            felt_interval = Some(resampled(&kinds, |sample| macro_f1(sample.copied().collect::<Vec<_>>().into_iter())));
        }
        EvalTask::Questions => {
            let spoken = labelled::spoken(&text).map_err(named)?;
            verdicts = judged(&spoken, arguments.text, |it| it.question)
                .zip(&spoken)
                .map(|it| (it.0, it.1.question))
                .collect();
        }
        EvalTask::Actions if is_table(&text) => {
            let spoken = labelled::spoken(&text).map_err(named)?;
            let truth = spoken.iter().map(|it| it.commitment || it.directive);
            verdicts = judged(&spoken, arguments.text, |it| it.action).zip(truth).collect();
        }
        EvalTask::Actions => {
            let written = labelled::written(&text).map_err(named)?;
            let texts: Vec<String> = written.iter().map(|it| as_asked(&it.text, arguments.text)).collect();
            let said = labelled::in_document(&written, &texts).map(|it| acts::judge(&it).task >= 0.5);
            verdicts = said.zip(&written).map(|it| (it.0, it.1.task)).collect();
        }
        EvalTask::Topics => {
            let meetings = labelled::summed_up(&text).map_err(named)?;
            figures.n = meetings.len();
            figures.topics = Some(topics::of(&meetings, arguments.text));
        }
        EvalTask::Trackers => {
            let tracked = labelled::tracked(&text).map_err(named)?;
            let meaning = meaning()?;
            let mut meeting = trackers::Meeting::new(&tracked, Some(&*meaning));
            let counts = trackers::of(&tracked, &mut meeting, |text| as_asked(text, arguments.text));
            figures.n = tracked.utterances.len();
            figures.scores = Some(of_counts(counts));
            if let Some(path) = &arguments.negatives {
                let spoken = negatives(path)?;
                // Shorter ones mean too little to be mistaken.
                let texts = spoken.iter().map(|it| as_asked(&it.text, arguments.text));
                let texts: Vec<String> = texts.filter(|it| words(it).nth(3).is_some()).collect();
                let alarms = texts.iter().filter(|it| !meeting.say(it).is_empty()).count();
                figures.false_alarm_rate = Some(share(alarms, texts.len()));
            }
        }
        EvalTask::Entities => {
            let (lines, counts) =
                entities::of(&text).with_context(|| format!("{} cannot be read", arguments.file.display()))?;
            figures.n = lines;
            figures.scores = Some(of_counts(counts));
        }
        EvalTask::Due => {
            let asked = labelled::asked(&text).map_err(named)?;
            due(&asked, arguments.text, &mut figures);
        }
        EvalTask::Summary => {
            let meetings = labelled::summed_up(&text).map_err(named)?;
            figures.n = meetings.len();
            figures.rouge = Some(rouge::of(&meetings, arguments.text));
        }
    }
    if !verdicts.is_empty() {
        figures.n = verdicts.len();
        figures.scores = Some(scores(&verdicts));
    }
    if let Some(path) = arguments.negatives.as_ref().filter(|_| arguments.task != EvalTask::Trackers) {
        let spoken = negatives(path)?;
        let said: Vec<bool> = match arguments.task {
            EvalTask::Questions => judged(&spoken, arguments.text, |it| it.question).collect(),
            EvalTask::Actions => judged(&spoken, arguments.text, |it| it.action).collect(),
            other => {
                let name = other.name();
                anyhow::bail!("--negatives: the task {name} has no use for it; questions, actions and trackers have")
            }
        };
        figures.false_alarm_rate = Some(share(said.iter().filter(|it| **it).count(), said.len()));
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&figures)?);
    } else {
        tell(&figures, &verdicts);
        if let Some((low, high)) = felt_interval {
            println!("95 % of samples: macro F1 {low:.3} to {high:.3}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn negatives(path: &Path) -> anyhow::Result<Vec<labelled::Spoken>> {
    labelled::spoken(&read(path)?).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

/// The model of sentences, fetched if need be.
#[cfg(feature = "recognizer")]
fn meaning() -> anyhow::Result<Box<dyn Meaning>> {
    let config = config::load(&Sources::default(), config::Flags::default())?;
    let files = models::store(&config)?.fetch(&mut hearsay_models::Terminal::default())?.minilm;
    Ok(Box::new(hearsay_embedding::MiniLm::load(&files.model, &files.tokenizer)?))
}

#[cfg(not(feature = "recognizer"))]
fn meaning() -> anyhow::Result<Box<dyn Meaning>> {
    anyhow::bail!(
        "this task needs the model of sentences, which this program was built without: build it with `--features recognizer`"
    )
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

fn is_table(text: &str) -> bool {
    text.lines().next().is_some_and(|it| it.contains('\t'))
}

fn as_asked(text: &str, how: EvalText) -> String {
    match how {
        EvalText::AsIs => text.to_owned(),
        EvalText::Bare => labelled::bare(text),
    }
}

/// Whether each is judged to be so, once the utterance after it is known.
fn judged(spoken: &[labelled::Spoken], how: EvalText, of: impl Fn(&acts::Acts) -> f32) -> impl Iterator<Item = bool> {
    let texts: Vec<String> = spoken.iter().map(|it| as_asked(&it.text, how)).collect();
    let said: Vec<bool> = labelled::in_meeting(spoken, &texts, true).map(|it| of(&acts::judge(&it)) >= 0.5).collect();
    said.into_iter()
}

/// Kind, people and day: of tasks, whether exactly the people that do it and a day that is right were read.
fn due(asked: &[Asked], how: EvalText, figures: &mut Figures) {
    let (mut kinds, mut people, mut days, mut tasks) = (0, 0, 0, 0);
    for it in asked {
        let names = Names::new(it.participants.iter(), &[]);
        let speaker = it.participants.iter().position(|name| *name == it.speaker);
        let context = grammar::Context { now: it.now, names: &names };
        let found = grammar::task(&as_asked(&it.text, how), speaker, &context);
        let kind = match found.hint {
            Hint::Action => AskedKind::Action,
            Hint::FollowUp => AskedKind::FollowUp,
            Hint::Question => AskedKind::Question,
            Hint::None => AskedKind::None,
        };
        kinds += usize::from(kind == it.kind);
        if matches!(it.kind, AskedKind::Action | AskedKind::FollowUp) {
            tasks += 1;
            let mut assignees: Vec<&str> = found
                .assignees
                .iter()
                .map(|it| match it {
                    Assignee::Person(at) => names.people()[*at].as_str(),
                    Assignee::Everyone => "*",
                })
                .collect();
            assignees.sort_unstable();
            let mut expected: Vec<&str> = it.assignees.iter().map(String::as_str).collect();
            expected.sort_unstable();
            people += usize::from(assignees == expected);
            let day = found.due.map(|it| it.date);
            days += usize::from(match day {
                None => it.due_any.is_empty(),
                Some(day) => it.due_any.contains(&day),
            });
        }
    }
    figures.n = asked.len();
    figures.accuracy = Some(share(kinds, asked.len()));
    figures.assignee_accuracy = Some(share(people, tasks));
    figures.due_accuracy = Some(share(days, tasks));
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Negative, neutral or positive.
fn kind(score: f32) -> usize {
    usize::from(score > -NEUTRAL) + usize::from(score >= NEUTRAL)
}

/// The mean F1 of the three kinds, of what was said and what is true.
fn macro_f1(kinds: impl Iterator<Item = (usize, usize)> + Clone) -> f64 {
    let of = |kind: usize| score(kinds.clone().map(|(said, truth)| (said == kind, truth == kind))).f1;
    (of(0) + of(1) + of(2)) / 3.0
}

/// Of found, right and labelled ones.
fn of_counts((found, right, labelled): (usize, usize, usize)) -> Scores {
    Scores { precision: share(right, found), recall: share(right, labelled), f1: share(2 * right, found + labelled) }
}

fn scores(verdicts: &[Verdict]) -> Scores {
    score(verdicts.iter().copied())
}

fn score(verdicts: impl Iterator<Item = Verdict>) -> Scores {
    let (mut said, mut right, mut positive) = (0, 0, 0);
    for (yes, truth) in verdicts {
        said += usize::from(yes);
        positive += usize::from(truth);
        right += usize::from(yes && truth);
    }
    Scores { precision: share(right, said), recall: share(right, positive), f1: share(2 * right, said + positive) }
}

/// The middle 95 of 100 F1 of samples drawn with replacement.
fn interval(verdicts: &[Verdict]) -> (f64, f64) {
    resampled(verdicts, |sample| score(sample.copied()).f1)
}

/// The middle 95 of 100 figures of samples drawn with replacement.
fn resampled<T>(items: &[T], figure: impl Fn(&mut dyn Iterator<Item = &T>) -> f64) -> (f64, f64) {
    let mut state = 1_u64;
    let mut drawn = || {
        // Knuth's linear congruence, its high bits: a figure must not change from run to run.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        &items[(state >> 33) as usize % items.len()]
    };
    let mut found: Vec<f64> = (0..SAMPLES).map(|_| figure(&mut (0..items.len()).map(|_| drawn()))).collect();
    found.sort_by(f64::total_cmp);
    (found[SAMPLES / 40], found[SAMPLES - 1 - SAMPLES / 40])
}

fn tell(figures: &Figures, verdicts: &[Verdict]) {
    println!("{}: {} items", figures.task, figures.n);
    if let Some(it) = figures.scores {
        println!("precision {:.3}  recall {:.3}", it.precision, it.recall);
        if verdicts.is_empty() {
            println!("F1 {:.3}", it.f1);
        } else {
            let (low, high) = interval(verdicts);
            println!("F1 {:.3}  (95 % of samples: {low:.3} to {high:.3})", it.f1);
        }
    }
    if let Some(it) = &figures.topics {
        println!("{it}");
    }
    if let Some(it) = &figures.rouge {
        println!("{it}");
    }
    let rest = [
        ("macro F1", figures.macro_f1),
        ("accuracy", figures.accuracy),
        ("assignee accuracy", figures.assignee_accuracy),
        ("due accuracy", figures.due_accuracy),
        ("false alarms", figures.false_alarm_rate),
    ];
    for (name, figure) in rest {
        if let Some(figure) = figure {
            println!("{name} {figure:.3}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_count_what_was_said_and_what_is_true() {
        let verdicts = [(true, true), (true, false), (false, true), (false, false), (true, true)];
        let it = scores(&verdicts);
        assert!((it.precision - 2.0 / 3.0).abs() < 1e-9 && (it.recall - 2.0 / 3.0).abs() < 1e-9);
        let (low, high) = interval(&verdicts);
        assert!(low < it.f1 && it.f1 < high, "{low} {high}");
        assert_eq!(scores(&[]), Scores { precision: 0.0, recall: 0.0, f1: 0.0 });
    }

    #[test]
    fn people_and_days_are_counted_of_tasks_only() {
        let line = |text: &str, kind: &str, who: &str, due: &str| {
            format!(
                r#"{{"ref":"2026-03-11T10:00:00","participants":["Anna Kim","Bob Reyes"],"speaker":"Anna Kim","text":"{text}","kind":"{kind}","assignees":[{who}],"due_any":[{due}]}}"#
            )
        };
        let lines = [
            line("I will send it to Bob by Friday", "action", r#""Anna Kim""#, r#""2026-03-13""#),
            line("I will send it to Bob by Friday", "action", r#""Bob Reyes""#, r#""2026-03-14""#),
            line("The sky is blue", "none", "", ""),
        ];
        let asked = labelled::asked(&lines.join("\n")).unwrap();
        let mut figures = Figures::default();
        due(&asked, EvalText::AsIs, &mut figures);
        assert_eq!((figures.assignee_accuracy, figures.due_accuracy), (Some(0.5), Some(0.5)));
        assert_eq!((figures.n, figures.accuracy), (3, Some(1.0)));
    }
}
