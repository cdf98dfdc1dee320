//! `hearsay eval insights` on the real binary: each task on a small file of its own, and what is said of files and options
//! that do not fit.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use hearsay_models::{ModelStore, Silent};
use serde_json::Value;

const SPOKEN: &str = "meeting\tstart\tend\tspeaker\tda\tquestion\tcommit\tdirective\tsuggest\tinterrupted\ttext\n\
    m\t0.0\t1.5\ta\tqy\t1\t0\t0\t0\t0\tdo you know when they are coming?\n\
    m\t1.7\t2.0\tb\ts\t0\t0\t0\t0\t0\tno.\n\
    m\t2.5\t4.0\ta\ts\t0\t0\t1\t0\t0\tplease send me the report by friday.\n\
    m\t4.1\t5.0\tb\ts^cc\t0\t1\t0\t0\t0\ti will send it tomorrow.\n";
const WRITTEN: &str = "{\"doc\":\"d\",\"text\":\"Please send me the report by Friday.\",\"task\":1}\n\
    {\"doc\":\"d\",\"text\":\"The report was sent on Friday.\",\"task\":0}\n";
const FELT: &str = "{\"text\":\"I love it, that is wonderful news!\",\"sentiment\":\"positive\"}\n\
    {\"text\":\"I hate this, it is terrible and I am angry.\",\"sentiment\":\"negative\"}\n\
    {\"text\":\"The meeting is in the other room.\",\"sentiment\":\"neutral\"}\n";
const SUMMED_UP: &str = "{\"turns\":[[\"A\",\"The remote control needs a rubber case.\"],\
    [\"B\",\"A rubber case costs more than a plastic case, but the remote control feels better.\"],\
    [\"A\",\"Then the remote control gets a rubber case.\"],[\"B\",\"And the rubber case is yellow.\"]],\
    \"summary\":[\"The remote control gets a yellow rubber case.\"],\"topics\":[{\"topic\":\"Rubber case of the remote control\"}]}\n";
const TRACKED: &str = "{\"trackers\":[{\"name\":\"price\",\"vocabulary\":[\"how much does it cost\",\"what is the price\"]}],\
    \"utterances\":[{\"text\":\"tell me what is the price of that\",\"tracker\":\"price\"},\
    {\"text\":\"the dog sleeps under the table\",\"tracker\":null}]}";
const ENTITIES: &str = "{\"kind\":\"datetime\",\"text\":\"I'll go back 03rd Jan 2019.\",\"ref\":\"2016-11-07T00:00:00\",\"results\":\
    [{\"text\":\"03rd jan 2019\",\"type\":\"datetimeV2.date\",\"start\":13,\"end\":26,\"values\":\
    [{\"timex\":\"2019-01-03\",\"type\":\"date\",\"value\":\"2019-01-03\"}]}]}\n";
const DUE: &str = "{\"ref\":\"2026-03-11T10:00:00\",\"participants\":[\"Anna Kim\",\"Bob Reyes\"],\"speaker\":\"Anna Kim\",\
    \"text\":\"I will send it to Bob by Friday\",\"kind\":\"action\",\"assignees\":[\"Anna Kim\"],\"due_any\":[\"2026-03-13\"]}\n";

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn eval(&self, task: &str, text: &str, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearsay"));
        command.args(["eval", "insights", "--task", task]).arg(self.write("data", text)).args(more);
        command.stdin(Stdio::null()).output().unwrap()
    }

    #[track_caller]
    fn figures(&self, task: &str, text: &str, more: &[&str]) -> Value {
        let output = self.eval(task, text, &[&["--json"], more].concat());
        assert!(output.status.success(), "{task}: {}", String::from_utf8_lossy(&output.stderr));
        let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(figures["task"], task);
        figures
    }

    #[track_caller]
    fn refused(&self, task: &str, text: &str, more: &[&str], why: &str) {
        let output = self.eval(task, text, more);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{task}: {output:?}");
        assert!(said.contains(why), "{task}: {said}");
    }
}

#[track_caller]
fn is(figures: &Value, n: u64, expected: &[(&str, f64)]) {
    assert_eq!(figures["n"], n, "{figures}");
    for (name, figure) in expected {
        let found = figures[*name].as_f64().unwrap_or(f64::NAN);
        assert!((found - figure).abs() < 1e-9, "{name} is {found}, where {figure} is right: {figures}");
        let interval = &figures[format!("{name}_interval")];
        assert!(interval.is_null() || interval[0].as_f64() <= interval[1].as_f64(), "{name}: {figures}");
    }
}

#[test]
fn every_task_has_its_figures() {
    // Two of them need the model of sentences.
    ModelStore::open(hearsay_models::cache_folder().unwrap()).fetch(&mut Silent).unwrap();
    let files = Files::new();
    for context in ["live", "full", "analyst"] {
        let questions = files.figures("questions", SPOKEN, &["--context", context]);
        is(&questions, 4, &[("precision", 1.0), ("recall", 1.0), ("f1", 1.0)]);
    }
    let long = files.figures("questions", SPOKEN, &["--text", "bare", "--min-words", "4"]);
    is(&long, 3, &[("f1", 1.0)]);
    is(&files.figures("actions", SPOKEN, &[]), 4, &[("f1", 1.0)]);
    is(&files.figures("actions", WRITTEN, &[]), 2, &[("precision", 1.0), ("recall", 1.0)]);
    is(&files.figures("sentiment", FELT, &[]), 3, &[("macro_f1", 1.0), ("accuracy", 1.0)]);
    let negatives = files.write("negatives", SPOKEN);
    let trackers = files.figures("trackers", TRACKED, &["--negatives", negatives.to_str().unwrap()]);
    // Of the negatives those of four words and more count.
    is(&trackers, 2, &[("precision", 1.0), ("recall", 1.0), ("false_alarm_rate", 0.0)]);
    is(&files.figures("entities", ENTITIES, &[]), 1, &[("f1", 1.0)]);
    is(&files.figures("due", DUE, &[]), 1, &[("accuracy", 1.0), ("assignee_accuracy", 1.0), ("due_accuracy", 1.0)]);
    let topics = files.figures("topics", SUMMED_UP, &[]);
    is(&topics, 1, &[("coverage", 1.0)]);
    let summary = files.figures("summary", SUMMED_UP, &[]);
    assert!(summary["rouge1"].as_f64() > Some(0.2) && summary["n"] == 1, "{summary}");

    let told = files.eval("questions", SPOKEN, &[]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.starts_with("questions: 4 items\nprecision 1.000  recall 1.000\nF1 1.000"), "{told}");
}

#[test]
fn files_and_options_that_do_not_fit_are_named() {
    let files = Files::new();
    files.refused("questions", WRITTEN, &[], "line 1: the columns are");
    files.refused(
        "questions",
        &SPOKEN.replace("\t1\t0\t0\t0\t0\tdo", "\t2\t0\t0\t0\t0\tdo"),
        &[],
        "line 2: question is",
    );
    files.refused("actions", "{\"doc\":\"d\"}", &[], "line 1: missing field `text`");
    files.refused("sentiment", &FELT.replace("neutral", "calm"), &[], "line 3: sentiment is \"calm\"");
    files.refused("topics", SPOKEN, &[], "line 1: ");
    files.refused("summary", "{\"turns\":[],\"summary\":[]}", &[], "line 1: summary is empty");
    files.refused("trackers", SPOKEN, &[], "line 1: ");
    files.refused("entities", WRITTEN, &[], "line 1: neither a text with its `results`");
    files.refused("due", &DUE.replace("2026-03-13", "soon"), &[], "line 1: due_any has \"soon\"");
    files.refused("due", DUE, &["--min-words", "4"], "the task due has no use for it");
    let negatives = files.write("negatives", SPOKEN);
    files.refused("due", DUE, &["--negatives", negatives.to_str().unwrap()], "the task due has no use for it");
    let nowhere = Command::new(env!("CARGO_BIN_EXE_hearsay"))
        .args(["eval", "insights", "--task", "due", "/nowhere/at/all"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("/nowhere/at/all cannot be read"), "{nowhere:?}");
}
