//! What of an utterance and its neighbours is weighed.

use super::{Neighbour, Utterance};
use crate::{
    heads::{Features, bucket},
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

pub(super) fn features(utterance: &Utterance<'_>) -> Features {
    let words = forms(utterance.text);
    let count = length(words.len());
    let mut found = Vec::with_capacity(words.len() * 9 + 40);
    let mut add = |parts: &[&str]| found.push(bucket(parts));

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
    let spoken: Vec<&str> = words.iter().map(String::as_str).filter(|it| !HESITATION.contains(it)).collect();
    let last = spoken.last().copied().unwrap_or("");
    let first = spoken.first().copied().unwrap_or("");
    let second = spoken.get(1).copied().unwrap_or("");
    add(&["first", first]);
    add(&["first2", first, second]);
    add(&["first3", first, second, spoken.get(2).copied().unwrap_or("")]);
    add(&["last", last]);
    add(&["last2", spoken.len().checked_sub(2).map_or("", |it| spoken[it]), last]);
    add(&["ends", shape(first), shape(last), count]);
    add(&["n", count]);
    // An opening such as "so" or "but" hides what the sentence starts with.
    let opening = spoken.iter().take_while(|it| OPENING.contains(it)).count();
    let open = |at: usize| spoken.get(opening + at).copied().unwrap_or("");
    add(&["open", open(0)]);
    add(&["open2", open(0), open(1)]);
    add(&["open3", open(0), open(1), open(2)]);
    add(&["open-n", shape(open(0)), shape(open(1)), count]);
    if words.len() <= 4 {
        add(&["whole", &words.join(" ")]);
    }

    let marks = marks(utterance.text);
    add(&["marks", marks]);
    add(&["marks-n", marks, count]);
    neighbour(&mut add, "p", utterance.previous.as_ref(), count, last);
    neighbour(&mut add, "x", utterance.next.as_ref(), count, last);
    Features::of(found, words.len() >= LONG)
}

fn neighbour(add: &mut impl FnMut(&[&str]), side: &str, it: Option<&Neighbour<'_>>, count: &str, last: &str) {
    let Some(it) = it else { return add(&[side, "none"]) };
    let who = if it.same_speaker { "same" } else { "other" };
    let words = forms(it.text);
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    let end = words.last().map_or("", String::as_str);
    add(&[side, who]);
    add(&[side, "n", who, length(words.len())]);
    add(&[side, "nn", who, length(words.len()), count]);
    add(&[side, "first", who, word(0)]);
    add(&[side, "first-n", who, word(0), count]);
    add(&[side, "first2", who, word(0), word(1)]);
    add(&[side, "last", who, end]);
    add(&[side, "last-here", who, word(0), last]);
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
