//! Labelled data, as text: the formats that heads are trained on and figures are taken from.

use std::{collections::HashMap, fmt};

use jiff::civil::{Date, DateTime};
use serde::{Deserialize, de::DeserializeOwned};

use crate::acts::{Neighbour, Turn, Utterance};

/// What is wrong with a line, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    pub line: usize,
    pub reason: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for BadLine {}

/// An utterance of a meeting.
#[derive(Debug, Clone, PartialEq)]
pub struct Spoken {
    pub meeting: String,
    /// Seconds from the meeting's start.
    pub start: f64,
    pub end: f64,
    pub speaker: String,
    pub question: bool,
    pub commitment: bool,
    pub directive: bool,
    pub suggestion: bool,
    pub text: String,
}

/// A sentence of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub document: String,
    pub text: String,
    pub task: bool,
}

const COLUMNS: [&str; 11] =
    ["meeting", "start", "end", "speaker", "da", "question", "commit", "directive", "suggest", "interrupted", "text"];

/// Reads utterances: tab-separated, with a first line that names the columns `meeting`, `start`, `end`, `speaker`, `da`,
/// `question`, `commit`, `directive`, `suggest`, `interrupted` and `text`.
///
/// # Errors
/// The first line that is not so.
pub fn spoken(text: &str) -> Result<Vec<Spoken>, BadLine> {
    let mut lines = text.lines().enumerate();
    let header = lines.next().map_or("", |it| it.1);
    if header.split('\t').ne(COLUMNS) {
        let reason = format!("the columns are {header:?}, where these are read: {}", COLUMNS.join(", "));
        return Err(BadLine { line: 1, reason });
    }
    lines.map(|(at, line)| spoken_line(line).map_err(|reason| BadLine { line: at + 1, reason })).collect()
}

fn spoken_line(line: &str) -> Result<Spoken, String> {
    let fields: Vec<&str> = line.split('\t').collect();
    let fields: [&str; COLUMNS.len()] =
        fields.try_into().map_err(|it: Vec<_>| format!("{} columns, where {} are read", it.len(), COLUMNS.len()))?;
    let seconds = |at: usize| -> Result<f64, String> {
        let found = fields[at].parse().ok().filter(|it: &f64| it.is_finite() && *it >= 0.0);
        found.ok_or_else(|| format!("{} is {:?}, where seconds are read", COLUMNS[at], fields[at]))
    };
    let flag = |at: usize| match fields[at] {
        "0" => Ok(false),
        "1" => Ok(true),
        other => Err(format!("{} is {other:?}, where 0 or 1 is read", COLUMNS[at])),
    };
    Ok(Spoken {
        meeting: fields[0].to_owned(),
        start: seconds(1)?,
        end: seconds(2)?,
        speaker: fields[3].to_owned(),
        question: flag(5)?,
        commitment: flag(6)?,
        directive: flag(7)?,
        suggestion: flag(8)?,
        text: fields[10].to_owned(),
    })
}

/// Reads sentences: a JSON object a line, with `doc`, `text` and `task` (0 or 1).
///
/// # Errors
/// The first line that is not so.
pub fn written(text: &str) -> Result<Vec<Written>, BadLine> {
    #[derive(Deserialize)]
    struct Line {
        doc: String,
        text: String,
        task: u8,
    }
    json_lines(text, |it: Line| match it.task {
        0 | 1 => Ok(Written { document: it.doc, text: it.text, task: it.task == 1 }),
        other => Err(format!("task is {other}, where 0 or 1 is read")),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AskedKind {
    Action,
    FollowUp,
    Question,
    None,
}

/// A sentence with who is to do what it asks, and by when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// When it was said.
    pub now: DateTime,
    pub participants: Vec<String>,
    pub speaker: String,
    pub text: String,
    pub kind: AskedKind,
    /// Participants; `*` is everybody.
    pub assignees: Vec<String>,
    /// Days that are right; none when it is not due.
    pub due_any: Vec<Date>,
}

/// Reads sentences with `ref`, `participants`, `speaker`, `text`, `kind`, `assignees` and `due_any`: a JSON object a line.
///
/// # Errors
/// The first line that is not so.
pub fn asked(text: &str) -> Result<Vec<Asked>, BadLine> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(rename = "ref")]
        now: String,
        participants: Vec<String>,
        speaker: String,
        text: String,
        kind: AskedKind,
        assignees: Vec<String>,
        due_any: Vec<String>,
    }
    json_lines(text, |it: Line| {
        let now = it.now.parse().map_err(|error| format!("ref is {:?}: {error}", it.now))?;
        let day = |day: &String| day.parse().map_err(|error| format!("due_any has {day:?}: {error}"));
        Ok(Asked {
            now,
            due_any: it.due_any.iter().map(day).collect::<Result<_, _>>()?,
            participants: it.participants,
            speaker: it.speaker,
            text: it.text,
            kind: it.kind,
            assignees: it.assignees,
        })
    })
}

/// A meeting, and what people wrote to sum it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SummedUp {
    /// Who spoke, and what.
    pub turns: Vec<(String, String)>,
    pub summary: String,
    /// Titles of what was spoken about.
    pub topics: Vec<String>,
}

/// Reads meetings with `turns` (pairs of speaker and text) and `summary` (a list of texts): a JSON object a line.
///
/// # Errors
/// The first line that is not so.
pub fn summed_up(text: &str) -> Result<Vec<SummedUp>, BadLine> {
    #[derive(Deserialize)]
    struct Line {
        turns: Vec<(String, String)>,
        summary: Vec<String>,
        #[serde(default)]
        topics: Vec<Titled>,
    }
    #[derive(Deserialize)]
    struct Titled {
        topic: String,
    }
    json_lines(text, |it: Line| {
        let summary = it.summary.join(" ");
        if summary.trim().is_empty() {
            Err("summary is empty".to_owned())
        } else {
            Ok(SummedUp { turns: it.turns, summary, topics: it.topics.into_iter().map(|it| it.topic).collect() })
        }
    })
}

/// A text, and how people felt it, from -4 to 4.
#[derive(Debug, Clone, PartialEq)]
pub struct Rated {
    pub text: String,
    pub mean: f32,
}

/// Reads texts with their `mean` rating: a JSON object a line.
///
/// # Errors
/// The first line that is not so.
pub fn rated(text: &str) -> Result<Vec<Rated>, BadLine> {
    #[derive(Deserialize)]
    struct Line {
        text: String,
        mean: f32,
    }
    json_lines(text, |it: Line| {
        let within = it.mean.abs() <= 4.0;
        within.then_some(Rated { text: it.text, mean: it.mean }).ok_or_else(|| format!("mean is {}, beyond 4", it.mean))
    })
}

/// Reads texts with their `sentiment`, `positive`, `neutral` or `negative`: a JSON object a line. Rated 1, 0 and -1.
///
/// # Errors
/// The first line that is not so.
pub fn felt(text: &str) -> Result<Vec<Rated>, BadLine> {
    #[derive(Deserialize)]
    struct Line {
        text: String,
        sentiment: String,
    }
    json_lines(text, |it: Line| {
        let mean = match it.sentiment.as_str() {
            "positive" => 1.0,
            "neutral" => 0.0,
            "negative" => -1.0,
            other => return Err(format!("sentiment is {other:?}, where positive, neutral or negative is read")),
        };
        Ok(Rated { text: it.text, mean })
    })
}

/// Trackers, and what people said that means what one of them looks for, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// Names with vocabularies.
    pub trackers: Vec<(String, Vec<String>)>,
    /// Texts with the name of the tracker that should find them.
    pub utterances: Vec<(String, Option<String>)>,
}

/// Reads one JSON object with `trackers` (each with `name` and `vocabulary`) and `utterances` (each with `text` and
/// `tracker`, the name of one or another text for none).
///
/// # Errors
/// The first line that is not so.
pub fn tracked(text: &str) -> Result<Tracked, BadLine> {
    #[derive(Deserialize)]
    struct Tracker {
        name: String,
        vocabulary: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Utterance {
        text: String,
        tracker: Option<String>,
    }
    #[derive(Deserialize)]
    struct File {
        trackers: Vec<Tracker>,
        utterances: Vec<Utterance>,
    }
    let file: File =
        serde_json::from_str(text).map_err(|error| BadLine { line: error.line(), reason: error.to_string() })?;
    let trackers: Vec<_> = file.trackers.into_iter().map(|it| (it.name, it.vocabulary)).collect();
    let known = |name: &String| trackers.iter().any(|it| it.0 == *name);
    let utterances = file.utterances.into_iter().map(|it| (it.text, it.tracker.filter(known))).collect();
    Ok(Tracked { trackers, utterances })
}

fn json_lines<L: DeserializeOwned, T>(text: &str, read: impl Fn(L) -> Result<T, String>) -> Result<Vec<T>, BadLine> {
    let lines = text.lines().enumerate().filter(|it| !it.1.trim().is_empty());
    lines
        .map(|(at, line)| {
            let read = serde_json::from_str(line).map_err(|error| error.to_string()).and_then(&read);
            read.map_err(|reason| BadLine { line: at + 1, reason })
        })
        .collect()
}

/// A text as a recognizer without punctuation writes it: lower case, and only letters, digits, `_` and apostrophes.
#[must_use]
pub fn bare(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for it in text.chars() {
        match it {
            '’' => out.push('\''),
            it if it.is_alphanumeric() || matches!(it, '\'' | '_') => out.extend(it.to_lowercase()),
            it if it.is_whitespace() => out.push(' '),
            _ => {}
        }
    }
    out.trim().to_owned()
}

/// The utterances as turns, with their words as they are to be read: a list for each meeting, in their order.
#[must_use]
pub fn meetings<'a>(utterances: &[Spoken], texts: &'a [String]) -> Vec<Vec<Turn<'a>>> {
    let speakers = groups(utterances.iter().map(|it| it.speaker.as_str()));
    let turns = utterances.iter().zip(texts).zip(speakers);
    let turns: Vec<Turn<'_>> =
        turns.map(|((it, text), by)| Turn { text, by, times: Some((it.start, it.end)) }).collect();
    let mut rest = turns.as_slice();
    let same = |meeting: &[Spoken]| {
        let (part, after) = rest.split_at(meeting.len());
        rest = after;
        part.to_vec()
    };
    utterances.chunk_by(|a, b| a.meeting == b.meeting).map(same).collect()
}

/// Each sentence after the one before it in its document.
pub fn in_document<'a>(sentences: &'a [Written], texts: &'a [String]) -> impl Iterator<Item = Utterance<'a>> {
    (0..sentences.len()).map(move |at| {
        let before = at.checked_sub(1).filter(|it| sentences[*it].document == sentences[at].document);
        let previous = before.map(|it| Neighbour { text: &texts[it], same_speaker: true });
        Utterance { text: &texts[at], previous, next: None }
    })
}

/// A number for each name, in the order they come.
pub fn groups<'a>(names: impl Iterator<Item = &'a str>) -> Vec<usize> {
    let mut known: HashMap<&str, usize> = HashMap::new();
    names
        .map(|name| {
            let next = known.len();
            *known.entry(name).or_insert(next)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "m\t0.5\t1\ts\tqy\t1\t0\t0\t0\t0\tIs it so?";

    #[test]
    fn an_utterance_is_read() {
        let read = spoken(&format!("{}\n{LINE}\n", COLUMNS.join("\t"))).unwrap();
        assert_eq!((read[0].start, read[0].question, read[0].text.as_str()), (0.5, true, "Is it so?"));
        assert!(!read[0].commitment);
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(spoken(text).unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        let header = COLUMNS.join("\t");
        refused(&format!("{header}\n{LINE}\na\tb"), "line 3: 2 columns, where 11 are read");
        refused(
            &format!("{header}\n{}", LINE.replace("0.5", "NaN")),
            "line 2: start is \"NaN\", where seconds are read",
        );
        refused(
            &format!("{header}\n{}", LINE.replace("\t1\t0\t", "\t2\t0\t")),
            "line 2: question is \"2\", where 0 or 1 is read",
        );
        assert!(spoken("").unwrap_err().reason.starts_with("the columns are \"\""));
        let json = r#"{"doc":"d","text":"t","task":3}"#;
        assert_eq!(written(json).unwrap_err().to_string(), "line 1: task is 3, where 0 or 1 is read");
        assert!(written("\n{}").unwrap_err().to_string().starts_with("line 2: missing field `doc`"));
    }

    #[test]
    fn a_meeting_is_read_with_its_summary() {
        let read = summed_up(
            r#"{"turns":[["A","Hello."]],"summary":["One.","Two."],"topics":[{"topic":"Greetings","spans":[]}]}"#,
        )
        .unwrap();
        assert_eq!(
            read,
            [SummedUp {
                turns: vec![("A".to_owned(), "Hello.".to_owned())],
                summary: "One. Two.".to_owned(),
                topics: vec!["Greetings".to_owned()]
            }]
        );
        let error = summed_up(r#"{"turns":[],"summary":[]}"#).unwrap_err();
        assert_eq!(error.to_string(), "line 1: summary is empty");
    }

    #[test]
    fn trackers_are_read_with_what_they_should_find() {
        let text = r#"{"trackers":[{"name":"a","vocabulary":["x y"]}],"utterances":[{"text":"t","tracker":"a"},{"text":"u","tracker":"oos"},{"text":"v","tracker":null}]}"#;
        let read = tracked(text).unwrap();
        assert_eq!(read.trackers, [("a".to_owned(), vec!["x y".to_owned()])]);
        let named: Vec<_> = read.utterances.iter().map(|it| it.1.as_deref()).collect();
        assert_eq!(named, [Some("a"), None, None]);
        assert!(tracked("{\n\"trackers\":3}").unwrap_err().to_string().starts_with("line 2: "));
    }

    #[test]
    fn bare_text_has_no_case_and_no_marks() {
        assert_eq!(bare("Well, it’s 3.5%; isn't it?"), "well it's 35 isn't it");
    }

    #[test]
    fn meetings_are_kept_apart() {
        let lines = ["m\t0\t1\ta", "m\t1\t2\tb", "n\t0\t1\tb"].map(|it| format!("{it}\ts\t0\t0\t0\t0\t0\tx"));
        let read = spoken(&format!("{}\n{}", COLUMNS.join("\t"), lines.join("\n"))).unwrap();
        let texts = ["one", "two", "three"].map(str::to_owned);
        let turn = |text, by, start| Turn { text, by, times: Some((start, start + 1.0)) };
        let expected = vec![vec![turn("one", 0, 0.0), turn("two", 1, 1.0)], vec![turn("three", 1, 0.0)]];
        assert_eq!(meetings(&read, &texts), expected);
    }
}
