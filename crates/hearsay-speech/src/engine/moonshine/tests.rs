//! The decode loop on models made up for the purpose.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::atomic::{AtomicBool, Ordering},
};

use proptest::prelude::*;

use super::{
    backend::{Session, Step},
    decode::{Loop, Said},
};
use crate::engine::{
    EngineError, Kind,
    guard::{Bounds, bare, too_many_copies},
    tokenizer::Tokenizer,
};

const END: u32 = 2;

/// A model that says what a function of the tokens so far says.
struct Made<F> {
    next: F,
    steps: usize,
    fed: usize,
    cancel: Option<(usize, &'static AtomicBool)>,
}

impl<F: Fn(&[u32]) -> u32> Made<F> {
    fn new(next: F) -> Self {
        Self { next, steps: 0, fed: 0, cancel: None }
    }
}

const COLUMNS: usize = 40;

impl<F: Fn(&[u32]) -> u32 + Send> Session for Made<F> {
    type Heard = ();
    type Past = Vec<u32>;

    fn encode(&mut self, _: &[f32]) -> Result<(), EngineError> {
        Ok(())
    }

    fn start(&mut self, _: usize) -> Result<Vec<u32>, EngineError> {
        Ok(Vec::new())
    }

    fn step(
        &mut self,
        (): &(),
        mut past: Vec<u32>,
        tokens: &[u32],
        attention: bool,
    ) -> Result<Step<Vec<u32>>, EngineError> {
        self.steps += 1;
        self.fed += tokens.len();
        if let Some((after, cancelled)) = self.cancel {
            cancelled.store(self.steps >= after, Ordering::Relaxed);
        }
        let mut logits = vec![];
        for token in tokens {
            past.push(*token);
            let best = (self.next)(&past[1..]);
            // The others fall off in a fixed order, the next token first: there is always a next best.
            logits.extend(
                (0..COLUMNS as u32).map(|it| if it == best { 9.0 } else { -(it.wrapping_sub(best) as u8 as f32) }),
            );
        }
        // Three heads of five frames that say which row they are.
        let row = |at: usize| [(past.len() - tokens.len() + at) as f32; 5];
        let head: Vec<f32> = (0..tokens.len()).flat_map(row).collect();
        let attention = if attention { vec![head; 3] } else { Vec::new() };
        Ok(Step { past, logits, attention })
    }

    fn crop(&mut self, mut past: Vec<u32>, tokens: usize) -> Result<Vec<u32>, EngineError> {
        past.truncate(tokens);
        Ok(past)
    }
}

/// Words "a" to "z" as tokens 3 to 28, then "," and "x" without a space.
fn tokenizer() -> Tokenizer {
    let mut file = vec![];
    let mut add = |token: &str| {
        file.push(token.len() as u8);
        file.extend(token.bytes());
    };
    ["<unk>", "<s>", "</s>"].iter().for_each(|it| add(it));
    ('a'..='z').for_each(|it| add(&format!("\u{2581}{it}")));
    [",", "x"].iter().for_each(|it| add(it));
    Tokenizer::parse(&file).unwrap()
}

fn run<F: Fn(&[u32]) -> u32 + Send>(
    model: &mut Made<F>,
    kind: Kind,
    bounds: Bounds,
    draft: &[u32],
) -> Result<Said, EngineError> {
    let cancelled = AtomicBool::new(false);
    let cancelled = model.cancel.map_or(&cancelled, |it| it.1);
    Loop { session: model, heard: &(), tokenizer: &tokenizer(), bounds, kind, cancelled }.run(draft)
}

const WIDE: Bounds = Bounds { least: 0, most: 30 };

/// Says `words` and ends.
fn says(words: &'static [u32]) -> impl Fn(&[u32]) -> u32 {
    move |so_far| words.get(so_far.len()).copied().unwrap_or(END)
}

#[test]
fn plain_decoding_feeds_one_token_at_a_time() {
    let mut model = Made::new(says(&[5, 6, 29, 7]));
    let said = run(&mut model, Kind::Final, WIDE, &[]).unwrap();
    assert_eq!(said.tokens, [5, 6, 29, 7]);
    assert_eq!((model.steps, model.fed), (5, 5));
    assert!(said.probabilities.iter().all(|it| *it > 0.9));
    // One row for each token and the end, in order.
    assert_eq!(said.attention.len(), 3);
    assert_eq!(said.attention[2].iter().map(|it| it[0]).collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn a_right_draft_takes_one_step_and_a_wrong_one_is_dropped() {
    let mut model = Made::new(says(&[5, 6, 7, 8]));
    assert_eq!(run(&mut model, Kind::Partial, WIDE, &[5, 6, 7, 8]).unwrap().tokens, [5, 6, 7, 8]);
    assert_eq!(model.steps, 1);
    let mut model = Made::new(says(&[5, 6, 7, 8]));
    assert_eq!(run(&mut model, Kind::Partial, WIDE, &[5, 6, 9, 9]).unwrap().tokens, [5, 6, 7, 8]);
    assert_eq!(model.steps, 3);
}

#[test]
fn the_bounds_hold() {
    let forever = |so_far: &[u32]| 3 + (so_far.len() as u32 * 7) % 26;
    let said = run(&mut Made::new(forever), Kind::Final, Bounds { least: 0, most: 6 }, &[]).unwrap();
    assert_eq!(said.tokens.len(), 6);
    let silent = |_: &[u32]| END;
    let said = run(&mut Made::new(silent), Kind::Final, Bounds { least: 2, most: 6 }, &[]).unwrap();
    assert_eq!(said.tokens.len(), 2);
    let said = run(&mut Made::new(silent), Kind::Partial, WIDE, &[4, 5, 6]).unwrap();
    assert!(said.tokens.is_empty());
}

#[test]
fn what_is_no_text_is_never_said() {
    let said = run(&mut Made::new(|_| 0), Kind::Final, Bounds { least: 1, most: 3 }, &[]).unwrap();
    assert!(said.tokens.iter().all(|it| *it > END), "{:?}", said.tokens);
    // Columns without a token, and drafts of such.
    let said = run(&mut Made::new(|_| 39), Kind::Partial, Bounds { least: 1, most: 3 }, &[39, 70_000]).unwrap();
    assert!(said.tokens.iter().all(|it| (*it as usize) < tokenizer().len()), "{:?}", said.tokens);
}

#[test]
fn a_loop_is_left_and_speech_behind_it_is_heard() {
    // Says "a b c" for ever, unless the seventh word is another: then "z" follows, and the end.
    let looping = |so_far: &[u32]| match so_far.get(6) {
        Some(other) if *other != 3 => [28, END][usize::from(so_far.len() > 7)],
        _ => 3 + so_far.len() as u32 % 3,
    };
    let said = run(&mut Made::new(looping), Kind::Final, WIDE, &[]).unwrap();
    let words: Vec<String> = tokenizer().words(&said.tokens).into_iter().map(|it| it.text).collect();
    assert_eq!(words[..6], ["a", "b", "c", "a", "b", "c"]);
    assert_eq!(words.last().unwrap(), "z");
    assert_eq!(words.len(), 8, "{words:?}");
    assert_eq!(said.attention[0].len(), said.tokens.len() + 1);
    assert_eq!(said.probabilities.len(), said.tokens.len());
}

#[test]
fn cancelled_is_looked_at_between_steps() {
    static CANCELLED: AtomicBool = AtomicBool::new(false);
    let mut model = Made::new(|so_far: &[u32]| 3 + (so_far.len() as u32 * 7) % 26);
    model.cancel = Some((3, &CANCELLED));
    assert!(matches!(run(&mut model, Kind::Final, WIDE, &[]), Err(EngineError::Cancelled)));
    assert_eq!(model.steps, 3);
}

/// What comes next depends on the last few tokens only: loops are common.
fn forgetful(so_far: &[u32], remembers: usize, alphabet: u32, seed: u64) -> u32 {
    let mut hasher = DefaultHasher::new();
    (seed, &so_far[so_far.len().saturating_sub(remembers)..]).hash(&mut hasher);
    let drawn = hasher.finish();
    if drawn.is_multiple_of(23) { END } else { 3 + (drawn >> 8) as u32 % alphabet }
}

proptest! {
    #[test]
    fn a_draft_never_changes_what_is_said(
        seed: u64, remembers in 1usize..4, alphabet in 2u32..28,
        kept in 0usize..40, rest in prop::collection::vec(0u32..45, 0..20),
    ) {
        let next = move |so_far: &[u32]| forgetful(so_far, remembers, alphabet, seed);
        let plain = run(&mut Made::new(next), Kind::Partial, WIDE, &[]).unwrap();
        let mut draft = plain.tokens.clone();
        draft.truncate(kept);
        draft.extend(rest);
        let drafted = run(&mut Made::new(next), Kind::Partial, WIDE, &draft).unwrap();
        prop_assert_eq!(plain.tokens, drafted.tokens);
        prop_assert_eq!(plain.probabilities, drafted.probabilities);
    }

    #[test]
    fn nothing_is_said_too_often(seed: u64, remembers in 1usize..4, alphabet in 2u32..28, last: bool) {
        let kind = if last { Kind::Final } else { Kind::Partial };
        let next = move |so_far: &[u32]| forgetful(so_far, remembers, alphabet, seed);
        let said = run(&mut Made::new(next), kind, Bounds { least: 9, most: 30 }, &[]).unwrap();
        let words: Vec<String> = tokenizer().words(&said.tokens).iter().map(|it| bare(&it.text)).collect();
        prop_assert_eq!(too_many_copies(&words, kind), None, "{:?}", words);
        prop_assert!(said.tokens.len() <= 30);
    }
}
