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

use crate::cli::{EvalContext, EvalInsights, EvalTask, EvalText};
#[cfg(feature = "recognizer")]
use crate::{cli::Sources, config, models};

/// Utterances before one that the analyst judges it by, once the next is said.
const ANALYST_BEFORE: usize = 5;
/// Samples that an interval comes from.
const SAMPLES: usize = 1000;

/// What came of it; figures that do not apply are left out. Intervals are the middle 95 of 100 figures of samples drawn with
/// replacement.
#[derive(Debug, Default, Serialize)]
struct Figures {
    task: &'static str,
    n: usize,
    #[serde(flatten)]
    scores: Option<Scores>,
    #[serde(flatten)]
    felt: Option<Felt>,
    #[serde(flatten)]
    due: Option<Due>,
    #[serde(flatten)]
    false_alarms: Option<FalseAlarms>,
    #[serde(flatten)]
    rouge: Option<rouge::Figures>,
    #[serde(flatten)]
    topics: Option<topics::Figures>,
}

type Interval = (f64, f64);

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Scores {
    precision: f64,
    recall: f64,
    f1: f64,
    f1_interval: Interval,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Felt {
    macro_f1: f64,
    macro_f1_interval: Interval,
    accuracy: f64,
    accuracy_interval: Interval,
}

/// Kinds of all sentences, and people and days of those that are tasks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Due {
    accuracy: f64,
    accuracy_interval: Interval,
    assignee_accuracy: f64,
    assignee_accuracy_interval: Interval,
    due_accuracy: f64,
    due_accuracy_interval: Interval,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct FalseAlarms {
    false_alarm_rate: f64,
    false_alarm_rate_interval: Interval,
}

/// Found, right, labelled: of one item.
type Counts = (usize, usize, usize);

pub(crate) fn insights(arguments: &EvalInsights) -> anyhow::Result<ExitCode> {
    let text = read(&arguments.file)?;
    let named = |error: labelled::BadLine| anyhow::anyhow!("{}: {error}", arguments.file.display());
    let task = arguments.task.name();
    let tells_acts = matches!(arguments.task, EvalTask::Questions | EvalTask::Actions);
    if arguments.min_words > 0 && !tells_acts {
        anyhow::bail!("--min-words: the task {task} has no use for it; questions and actions have");
    }
    let mut figures = Figures { task, ..Figures::default() };
    let mut counts: Option<Vec<Counts>> = None;
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
            figures.felt = Some(felt_as(&kinds));
        }
        EvalTask::Questions => {
            let spoken = labelled::spoken(&text).map_err(named)?;
            let said = judged(&spoken, arguments, |it| it.question);
            counts = Some(said.into_iter().map(|(at, yes)| verdict(yes, spoken[at].question)).collect());
        }
        EvalTask::Actions if is_table(&text) => {
            let spoken = labelled::spoken(&text).map_err(named)?;
            let truth = |at: usize| spoken[at].commitment || spoken[at].directive;
            let said = judged(&spoken, arguments, |it| it.action);
            counts = Some(said.into_iter().map(|(at, yes)| verdict(yes, truth(at))).collect());
        }
        EvalTask::Actions => {
            let written = labelled::written(&text).map_err(named)?;
            let texts: Vec<String> = written.iter().map(|it| as_asked(&it.text, arguments.text)).collect();
            let said = labelled::in_document(&written, &texts).zip(&written);
            let said = said.filter(|it| long_enough(it.0.text, arguments));
            counts = Some(said.map(|(it, truth)| verdict(acts::judge(&it).task >= 0.5, truth.task)).collect());
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
            counts = Some(trackers::of(&tracked, &mut meeting, |text| as_asked(text, arguments.text)));
            if let Some(path) = &arguments.negatives {
                let spoken = negatives(path)?;
                // Shorter ones mean too little to be mistaken.
                let texts = spoken.iter().map(|it| as_asked(&it.text, arguments.text));
                let texts = texts.filter(|it| words(it).nth(3).is_some());
                let alarms: Vec<bool> = texts.map(|it| !meeting.say(&it).is_empty()).collect();
                figures.false_alarms = Some(false_alarms(&alarms));
            }
        }
        EvalTask::Entities => {
            let found = entities::of(&text);
            counts = Some(found.with_context(|| format!("{} cannot be read", arguments.file.display()))?);
        }
        EvalTask::Due => {
            let asked = labelled::asked(&text).map_err(named)?;
            figures.n = asked.len();
            figures.due = Some(due(&asked, arguments.text));
        }
        EvalTask::Summary => {
            let meetings = labelled::summed_up(&text).map_err(named)?;
            figures.n = meetings.len();
            figures.rouge = Some(rouge::of(&meetings, arguments.text));
        }
    }
    if let Some(counts) = counts {
        figures.n = counts.len();
        figures.scores = Some(scores(&counts));
    }
    if let Some(path) = arguments.negatives.as_ref().filter(|_| arguments.task != EvalTask::Trackers) {
        let spoken = negatives(path)?;
        let said = match arguments.task {
            EvalTask::Questions => judged(&spoken, arguments, |it| it.question),
            EvalTask::Actions => judged(&spoken, arguments, |it| it.action),
            _ => {
                anyhow::bail!("--negatives: the task {task} has no use for it; questions, actions and trackers have")
            }
        };
        figures.false_alarms = Some(false_alarms(&said.into_iter().map(|it| it.1).collect::<Vec<_>>()));
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&figures)?);
    } else {
        tell(&figures);
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

fn long_enough(text: &str, arguments: &EvalInsights) -> bool {
    words(text).take(arguments.min_words).count() == arguments.min_words
}

/// Whether each is judged to be so, with its place among the utterances; those that are too short are left out.
fn judged(
    spoken: &[labelled::Spoken],
    arguments: &EvalInsights,
    of: impl Fn(&acts::Acts) -> f32,
) -> Vec<(usize, bool)> {
    let texts: Vec<String> = spoken.iter().map(|it| as_asked(&it.text, arguments.text)).collect();
    let mut said = Vec::with_capacity(spoken.len());
    for mut meeting in labelled::meetings(spoken, &texts) {
        if arguments.context == EvalContext::Analyst {
            meeting.iter_mut().for_each(|it| it.times = None);
        }
        said.extend((0..meeting.len()).map(|at| {
            let (from, to) = match arguments.context {
                EvalContext::Live => (0, at + 1),
                EvalContext::Full => (0, meeting.len()),
                EvalContext::Analyst => (at.saturating_sub(ANALYST_BEFORE), (at + 2).min(meeting.len())),
            };
            of(&acts::judge_in(&meeting[from..to], at - from)) >= 0.5
        }));
    }
    said.into_iter().enumerate().filter(|it| long_enough(&texts[it.0], arguments)).collect()
}

/// Kind, people and day: of tasks, whether exactly the people that do it and a day that is right were read.
fn due(asked: &[Asked], how: EvalText) -> Due {
    let (mut kinds, mut people, mut days) = (Vec::new(), Vec::new(), Vec::new());
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
        kinds.push(kind == it.kind);
        if matches!(it.kind, AskedKind::Action | AskedKind::FollowUp) {
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
            people.push(assignees == expected);
            let day = found.due.map(|it| it.date);
            days.push(match day {
                None => it.due_any.is_empty(),
                Some(day) => it.due_any.contains(&day),
            });
        }
    }
    let (accuracy, accuracy_interval) = part(&kinds);
    let (assignee_accuracy, assignee_accuracy_interval) = part(&people);
    let (due_accuracy, due_accuracy_interval) = part(&days);
    Due {
        accuracy,
        accuracy_interval,
        assignee_accuracy,
        assignee_accuracy_interval,
        due_accuracy,
        due_accuracy_interval,
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Negative, neutral or positive.
fn kind(score: f32) -> usize {
    usize::from(score > -NEUTRAL) + usize::from(score >= NEUTRAL)
}

fn felt_as(kinds: &[(usize, usize)]) -> Felt {
    let (accuracy, accuracy_interval) = part(&kinds.iter().map(|it| it.0 == it.1).collect::<Vec<_>>());
    Felt {
        macro_f1: macro_f1(&mut kinds.iter()),
        macro_f1_interval: resampled(kinds, |sample| macro_f1(sample)),
        accuracy,
        accuracy_interval,
    }
}

/// The mean F1 of the three kinds, of what was said and what is true.
fn macro_f1(kinds: &mut dyn Iterator<Item = &(usize, usize)>) -> f64 {
    let mut counts = [(0, 0, 0); 3];
    for (said, truth) in kinds {
        counts[*said].0 += 1;
        counts[*truth].2 += 1;
        counts[*said].1 += usize::from(said == truth);
    }
    counts.into_iter().map(f1).sum::<f64>() / 3.0
}

fn verdict(yes: bool, truth: bool) -> Counts {
    (usize::from(yes), usize::from(yes && truth), usize::from(truth))
}

fn sum<'a>(counts: impl Iterator<Item = &'a Counts>) -> Counts {
    counts.fold((0, 0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1, sum.2 + it.2))
}

fn f1((found, right, labelled): Counts) -> f64 {
    share(2 * right, found + labelled)
}

fn scores(counts: &[Counts]) -> Scores {
    let all = sum(counts.iter());
    let (found, right, labelled) = all;
    Scores {
        precision: share(right, found),
        recall: share(right, labelled),
        f1: f1(all),
        f1_interval: resampled(counts, |sample| f1(sum(sample))),
    }
}

/// The share that is so.
fn part(items: &[bool]) -> (f64, Interval) {
    let of = |items: &mut dyn Iterator<Item = &bool>| {
        let (mut yes, mut all) = (0, 0);
        for it in items {
            yes += usize::from(*it);
            all += 1;
        }
        share(yes, all)
    };
    (of(&mut items.iter()), resampled(items, of))
}

fn false_alarms(alarms: &[bool]) -> FalseAlarms {
    let (false_alarm_rate, false_alarm_rate_interval) = part(alarms);
    FalseAlarms { false_alarm_rate, false_alarm_rate_interval }
}

/// The middle 95 of 100 figures of samples drawn with replacement.
fn resampled<T>(items: &[T], figure: impl Fn(&mut dyn Iterator<Item = &T>) -> f64) -> Interval {
    if items.is_empty() {
        return (0.0, 0.0);
    }
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

/// A figure and where 95 of 100 samples have it.
fn within(name: &str, figure: f64, (low, high): Interval) -> String {
    format!("{name} {figure:.3}  (95 % of samples: {low:.3} to {high:.3})")
}

fn tell(figures: &Figures) {
    println!("{}: {} items", figures.task, figures.n);
    if let Some(it) = figures.scores {
        println!("precision {:.3}  recall {:.3}", it.precision, it.recall);
        println!("{}", within("F1", it.f1, it.f1_interval));
    }
    if let Some(it) = &figures.topics {
        println!("{it}");
    }
    if let Some(it) = &figures.rouge {
        println!("{it}");
    }
    if let Some(it) = figures.felt {
        println!("{}", within("macro F1", it.macro_f1, it.macro_f1_interval));
        println!("{}", within("accuracy", it.accuracy, it.accuracy_interval));
    }
    if let Some(it) = figures.due {
        println!("{}", within("accuracy", it.accuracy, it.accuracy_interval));
        println!("{}", within("assignee accuracy", it.assignee_accuracy, it.assignee_accuracy_interval));
        println!("{}", within("due accuracy", it.due_accuracy, it.due_accuracy_interval));
    }
    if let Some(it) = figures.false_alarms {
        println!("{}", within("false alarms", it.false_alarm_rate, it.false_alarm_rate_interval));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_count_what_was_said_and_what_is_true() {
        let verdicts = [(true, true), (true, false), (false, true), (false, false), (true, true)];
        let it = scores(&verdicts.map(|(yes, truth)| verdict(yes, truth)));
        assert!((it.precision - 2.0 / 3.0).abs() < 1e-9 && (it.recall - 2.0 / 3.0).abs() < 1e-9);
        assert!(it.f1_interval.0 < it.f1 && it.f1 < it.f1_interval.1, "{it:?}");
        assert_eq!(scores(&[]), Scores { precision: 0.0, recall: 0.0, f1: 0.0, f1_interval: (0.0, 0.0) });
    }

    #[test]
    fn each_kind_of_feeling_counts_alike() {
        // Neutral is right in two of two; negative once and missed once; positive never.
        let it = felt_as(&[(1, 1), (1, 1), (0, 0), (1, 0), (0, 2)]);
        let (negative, neutral) = (2.0 / 4.0, 4.0 / 5.0);
        assert!((it.macro_f1 - (negative + neutral) / 3.0).abs() < 1e-9 && (it.accuracy - 0.6).abs() < 1e-9, "{it:?}");
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
        let found = due(&asked, EvalText::AsIs);
        let close = |one: f64, other: f64| (one - other).abs() < 1e-9;
        assert!(close(found.assignee_accuracy, 0.5) && close(found.due_accuracy, 0.5) && close(found.accuracy, 1.0));
    }
}
