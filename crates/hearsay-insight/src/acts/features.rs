//! What of an utterance and its neighbours is weighed.

use jiff::civil::DateTime;

use super::Turn;
use crate::{
    grammar::{self, Assignee, Context, Hint, Names},
    heads::{Features, Kind, hash},
    text::words,
};

/// Words looked at, at the beginning and at the end of an utterance.
const EDGE_WORDS: usize = 100;
/// Words of a text that is long.
const LONG: usize = 4;
/// Bytes of a word that count.
const WORD_BYTES: usize = 24;

/// Words that carry the form of a sentence, not its content.
const FORM: &str = " a about after all also am an and any anybody anyone anything are aren't as at be because been before \
    but by can can't could couldn't did didn't do does doesn't don't done down else every for from get give go gonna got \
    had has have haven't he he's her here him his how how's i i'd i'll i'm i've if in into is isn't it it's its just know \
    let let's like make may maybe me mean might mind more must my need no not now of off oh ok okay on one or other our \
    out over please right say see send shall she should shouldn't so some somebody someone something sure take talk tell \
    than that that's the their them then there there's these they they're thing think this those to too try uh um under \
    up us use wanna want was wasn't we we'd we'll we're we've well were weren't what what's when where where's which who \
    who's whose why will with won't would wouldn't yeah yes yet you you'd you'll you're you've your remember check ask \
    call write read put look bring keep start stop wait really ";

/// The words, in lower case, without what a listener leaves out.
fn forms(text: &str) -> Vec<String> {
    let mut found: Vec<String> = words(text).take(EDGE_WORDS).map(|it| it.text).map(form).collect();
    if found.len() == EDGE_WORDS {
        // Longer: the last words matter as much as the first.
        let tail = text.len().saturating_sub(EDGE_WORDS * WORD_BYTES);
        let tail = (tail..=text.len()).find(|it| text.is_char_boundary(*it)).unwrap_or(text.len());
        let last: Vec<String> = words(&text[tail..]).map(|it| form(it.text)).collect();
        found.extend(last.into_iter().rev().take(EDGE_WORDS).rev());
    }
    found
}

fn form(word: &str) -> String {
    let mut out = String::with_capacity(word.len().min(WORD_BYTES));
    for it in word.chars() {
        if out.len() >= WORD_BYTES {
            break;
        }
        match it {
            '’' => out.push('\''),
            it if it.is_ascii_digit() => out.push('0'),
            it => out.extend(it.to_lowercase()),
        }
    }
    out
}

/// The word itself where it carries form, else how it ends.
fn shape(word: &str) -> &str {
    let quoted = FORM.match_indices(word).any(|(at, _)| {
        FORM.as_bytes()[at.saturating_sub(1)] == b' ' && FORM.as_bytes().get(at + word.len()) == Some(&b' ')
    });
    if quoted {
        return word;
    }
    match word {
        it if it.starts_with('0') => "0",
        it if it.ends_with("ing") => "-ing",
        it if it.ends_with("ed") => "-ed",
        it if it.ends_with("ly") => "-ly",
        it if it.ends_with('s') => "-s",
        it if it.ends_with("n't") => "-n't",
        _ => "*",
    }
}

fn length(words: usize) -> &'static str {
    match words {
        0 => "0",
        1 => "1",
        2 => "2",
        3 => "3",
        4 => "4",
        5 | 6 => "5",
        7 | 8 => "7",
        9..=12 => "9",
        13..=20 => "13",
        _ => "21",
    }
}

/// How the text is punctuated. Speech without marks says nothing by having none.
fn marks(text: &str) -> &'static str {
    let text = text.trim_end();
    match text.chars().next_back() {
        Some('?') => "?",
        Some('.' | '!') if text.contains('?') => "?.",
        Some('.' | '!') => ".",
        _ if text.contains('?') => "?-",
        _ if text.contains([',', ';', ':']) => ",",
        _ => "",
    }
}

/// A turn, read once: judging it and what is around it looks at it more than once.
#[derive(Debug, Clone)]
pub(super) struct Read<'a> {
    turn: Turn<'a>,
    words: Vec<String>,
    /// Places of the words that say something.
    spoken: Vec<usize>,
}

impl<'a> Read<'a> {
    pub(super) fn of(turn: Turn<'a>) -> Self {
        let words = forms(turn.text);
        let spoken = (0..words.len()).filter(|it| !HESITATION.contains(&words[*it].as_str())).collect();
        Self { turn, words, spoken }
    }

    fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    /// Without hesitations.
    fn said(&self, at: usize) -> &str {
        self.spoken.get(at).map_or("", |it| self.words[*it].as_str())
    }

    /// The last but some, without hesitations.
    fn last(&self, but: usize) -> &str {
        self.spoken.iter().nth_back(but).map_or("", |it| self.words[*it].as_str())
    }

    fn length(&self) -> &'static str {
        length(self.words.len())
    }

    /// How it starts behind an opening such as "so" or "but", which hides it: shapes of two words.
    fn opens(&self) -> (&str, &str) {
        let hides = |it: &&String| HESITATION.contains(&it.as_str()) || OPENING.contains(&it.as_str());
        let behind = self.words.iter().take_while(hides).count();
        let at = |at: usize| self.words.get(behind + at).map_or("", |it| shape(it));
        (at(0), at(1))
    }

    fn who(&self, here: &Read<'_>) -> &'static str {
        if self.turn.by == here.turn.by { "same" } else { "other" }
    }
}

/// How many turns before and after one count.
pub(super) const AROUND: usize = 6;

/// Of a turn among those before and after it; the nearest is last of the former and first of the latter.
pub(super) fn features(before: &[Read<'_>], here: &Read<'_>, after: &[Read<'_>]) -> Features {
    let mut found = Vec::with_capacity(here.words.len() * 9 + 40);
    own(&mut |parts| found.push(hash(parts)), here);
    let mut around = Vec::with_capacity(80);
    let add = &mut |parts: &[&str]| around.push(hash(parts));
    let before: Vec<&Read<'_>> = before.iter().rev().take(AROUND).collect();
    let after: Vec<&Read<'_>> = after.iter().take(AROUND).collect();
    neighbour(add, "p", here, before.first().copied());
    neighbour(add, "x", here, after.first().copied());
    pauses(add, here, before.first().copied(), after.first().copied());
    others(add, here, &before, &after);
    pattern(add, here, &before, &after);
    Features::of(found, around, Kind { long: here.words.len() >= LONG, answered: !after.is_empty() })
}

/// Whether something is due counts here, not when.
const NOW: DateTime = DateTime::constant(2020, 1, 1, 9, 0, 0, 0);

type Add<'a> = dyn FnMut(&[&str]) + 'a;

fn own(add: &mut Add<'_>, here: &Read<'_>) {
    let words = &here.words;
    let count = here.length();
    let edged: Vec<&str> =
        std::iter::once("<s>").chain(words.iter().map(String::as_str)).chain(std::iter::once("</s>")).collect();
    for width in 1..=3 {
        for gram in edged.windows(width) {
            let mut parts = [width_name(width), "", "", ""];
            parts[1..=width].copy_from_slice(gram);
            add(&parts[..=width]);
        }
    }
    for gram in edged.windows(3) {
        add(&["skip", gram[0], gram[2]]);
    }
    let shapes: Vec<&str> = edged.iter().map(|it| if it.starts_with('<') { *it } else { shape(it) }).collect();
    for width in 3..=4 {
        for gram in shapes.windows(width) {
            let mut parts = ["s", "", "", "", ""];
            parts[1..=width].copy_from_slice(gram);
            add(&parts[..=width]);
        }
    }
    let (first, last) = (here.said(0), here.last(0));
    add(&["first", first]);
    add(&["first2", first, here.said(1)]);
    add(&["first3", first, here.said(1), here.said(2)]);
    add(&["last", last]);
    add(&["last2", here.last(1), last]);
    add(&["ends", shape(first), shape(last), count]);
    add(&["n", count]);
    // An opening such as "so" or "but" hides what the sentence starts with.
    let opening = (0..here.spoken.len()).take_while(|it| OPENING.contains(&here.said(*it))).count();
    let open = |at: usize| here.said(opening + at);
    add(&["open", open(0)]);
    add(&["open2", open(0), open(1)]);
    add(&["open3", open(0), open(1), open(2)]);
    add(&["open-n", shape(open(0)), shape(open(1)), count]);
    if words.len() <= 4 {
        add(&["whole", &words.join(" ")]);
    }
    let marks = marks(here.turn.text);
    add(&["marks", marks]);
    add(&["marks-n", marks, count]);
    // What the rules read: tasks are rare, and their labels few.
    let names = Names::default();
    let read = grammar::task(here.turn.text, Some(0), &Context { now: NOW, names: &names });
    let hint = match read.hint {
        Hint::Action => "action",
        Hint::FollowUp => "follow-up",
        Hint::Question => "question",
        Hint::None => "none",
    };
    let who = match read.assignees.first() {
        Some(Assignee::Person(_)) => "speaker",
        Some(Assignee::Everyone) => "all",
        None => "none",
    };
    let due = if read.due.is_some() { "due" } else { "" };
    add(&["rule", hint]);
    add(&["rule-who", hint, who]);
    add(&["rule-due", hint, due]);
    add(&["rule-who-due", who, due]);
    add(&["rule-n", hint, who, count]);
}

fn neighbour(add: &mut Add<'_>, side: &str, here: &Read<'_>, it: Option<&Read<'_>>) {
    let Some(it) = it else { return add(&[side, "none"]) };
    let (who, count) = (it.who(here), here.length());
    add(&[side, who]);
    add(&[side, "n", who, it.length()]);
    add(&[side, "nn", who, it.length(), count]);
    add(&[side, "first", who, it.word(0)]);
    add(&[side, "first-n", who, it.word(0), count]);
    add(&[side, "first2", who, it.word(0), it.word(1)]);
    add(&[side, "last", who, it.words.last().map_or("", String::as_str)]);
    add(&[side, "last-here", who, it.word(0), here.last(0)]);
}

/// How long it was silent before and after, or how long two spoke at once.
fn pauses(add: &mut Add<'_>, here: &Read<'_>, previous: Option<&Read<'_>>, next: Option<&Read<'_>>) {
    let (count, (open, _)) = (here.length(), here.opens());
    if let Some(it) = next
        && let Some(pause) = pause(here, it)
    {
        let who = it.who(here);
        add(&["xg", who, pause]);
        add(&["xg-n", who, pause, count]);
        add(&["xg-nn", who, pause, count, it.length()]);
        add(&["xg-f", who, pause, it.word(0)]);
        add(&["xg-l", who, pause, here.last(0)]);
        add(&["xg-o", who, pause, open]);
    }
    if let Some(it) = previous
        && let Some(pause) = pause(it, here)
    {
        let who = it.who(here);
        add(&["pg", who, pause]);
        add(&["pg-n", who, pause, count]);
        add(&["pg-o", who, pause, open]);
    }
}

/// From the end of one to the start of another, where both are known.
fn pause(one: &Read<'_>, other: &Read<'_>) -> Option<&'static str> {
    let seconds = other.turn.times?.0 - one.turn.times?.1;
    Some(match seconds {
        it if it < -1.0 => "-1",
        it if it < -0.3 => "-.3",
        it if it < 0.0 => "-0",
        it if it < 0.1 => "0",
        it if it < 0.3 => ".1",
        it if it < 0.7 => ".3",
        it if it < 1.5 => ".7",
        it if it < 3.0 => "1.5",
        _ => "3",
    })
}

/// What the first other speaker says after it, who may be answering, and what the last one said before.
fn others(add: &mut Add<'_>, here: &Read<'_>, before: &[&Read<'_>], after: &[&Read<'_>]) {
    let (count, last) = (here.length(), here.last(0));
    let (open, second) = here.opens();
    let other = |it: &&&Read<'_>| it.turn.by != here.turn.by && !it.words.is_empty();
    if let Some(at) = after.iter().position(|it| other(&it)) {
        let it = after[at];
        let still = digit(after[..at].iter().filter(|it| it.turn.by == here.turn.by).count());
        let (first, then, length) = (it.said(0), it.said(1), it.length());
        let pause = pause(here, it).unwrap_or("");
        add(&["xo", still]);
        add(&["xo-g", still, pause]);
        add(&["xo-n", length, pause]);
        add(&["xo-f", first]);
        add(&["xo-fn", first, length]);
        add(&["xo-f2", first, then]);
        add(&["xo-fo", still, first, then]);
        add(&["xo-fg", first, pause]);
        add(&["xo-fl", first, last]);
        add(&["xo-fs", first, open, second]);
        add(&["xo-fc", first, length, count]);
        add(&["xo-os", open, length, still]);
        if it.words.len() <= 3 {
            let whole = it.words.join(" ");
            add(&["xo-w", &whole]);
            add(&["xo-wo", &whole, open]);
        }
    } else {
        add(&["xo", "none"]);
    }
    if let Some(at) = before.iter().position(|it| other(&it)) {
        let it = before[at];
        let (back, first, length) = (digit(at + 1), it.word(0), it.length());
        add(&["po", back]);
        add(&["po-n", back, length]);
        add(&["po-f", back, first]);
        add(&["po-l", back, it.last(0)]);
        add(&["po-os", open, length]);
        add(&["po-fn", first, length, count]);
    } else {
        add(&["po", "none"]);
    }
}

/// The turns behind the next one and before the previous one, and who takes turns.
fn pattern(add: &mut Add<'_>, here: &Read<'_>, before: &[&Read<'_>], after: &[&Read<'_>]) {
    let (count, (open, _)) = (here.length(), here.opens());
    for (at, side) in [(1, "x2"), (2, "x3")] {
        let Some(it) = after.get(at) else {
            add(&[side, "none"]);
            continue;
        };
        let (who, first) = (it.who(here), it.word(0));
        add(&[side, who, it.length()]);
        add(&[side, "f", who, first]);
        add(&[side, "f2", who, first, it.word(1)]);
        add(&[side, "fn", who, first, count]);
        add(&[side, "fo", who, first, open]);
    }
    if let Some(it) = before.get(1) {
        let who = it.who(here);
        add(&["p2", who, it.length()]);
        add(&["p2", "f", who, it.word(0)]);
        add(&["p2", "l", who, it.last(0)]);
    }
    let turns = |near: &[&Read<'_>]| -> String {
        let letter = |it: &&Read<'_>| match it.turn.by == here.turn.by {
            true => 's',
            false if it.words.len() <= 2 => 'b',
            false => 'o',
        };
        near.iter().take(3).map(letter).collect()
    };
    let (turns_before, turns_after) = (turns(before), turns(after));
    add(&["pat", &turns_after]);
    add(&["pat-p", &turns_before, &turns_after]);
    add(&["pat-n", &turns_after, count]);
    add(&["pat-o", &turns_after, open]);
    add(&["pat-l", &turns_after, here.last(0)]);
}

/// Of what is at most [`AROUND`].
fn digit(number: usize) -> &'static str {
    ["0", "1", "2", "3", "4", "5", "6"].get(number).copied().unwrap_or("+")
}

const HESITATION: [&str; 8] = ["uh", "um", "uhm", "er", "hmm", "mm", "ah", "eh"];
const OPENING: [&str; 14] =
    ["so", "and", "but", "well", "okay", "ok", "yeah", "oh", "now", "then", "right", "or", "yes", "no"];

fn width_name(width: usize) -> &'static str {
    match width {
        1 => "1",
        2 => "2",
        _ => "3",
    }
}
