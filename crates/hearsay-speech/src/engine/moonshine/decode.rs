//! The decode loop: greedy, guarded, with a draft verified in one step.

use std::sync::atomic::{AtomicBool, Ordering};

use super::backend::{ALIGNED_HEADS, Session, failed};
use crate::engine::{
    EngineError, Kind,
    guard::{Bounds, bare, too_many_copies},
    tokenizer::{FIRST_TEXT, Tokenizer},
};

const START: u32 = 1;
const END: u32 = 2;

/// Loops the model is led out of, until it is stopped instead.
const DETOURS: usize = 4;

/// What the model said.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Said {
    pub tokens: Vec<u32>,
    /// How sure it was of each.
    pub probabilities: Vec<f32>,
    /// For each aligned head, one row per token and one for the end: where in the audio it looked. Empty for partials.
    pub attention: Vec<Vec<Vec<f32>>>,
}

pub(super) struct Loop<'a, S: Session> {
    pub session: &'a mut S,
    pub heard: &'a S::Heard,
    pub tokenizer: &'a Tokenizer,
    pub bounds: Bounds,
    pub kind: Kind,
    pub cancelled: &'a AtomicBool,
}

impl<S: Session> Loop<'_, S> {
    /// A draft is fed at once, and kept as far as the model would have said the same; it changes the cost only.
    pub(super) fn run(self, draft: &[u32]) -> Result<Said, EngineError> {
        let mut said = Said { attention: self.no_attention(), ..Said::default() };
        let mut banned: Vec<(usize, u32)> = Vec::new();
        let mut past = self.session.start(self.bounds.most + 2)?;
        let mut fed = 0;
        let mut feed = vec![START];
        let known = |it: &u32| (FIRST_TEXT..self.tokenizer.len() as u32).contains(it);
        feed.extend(draft.iter().copied().take_while(known).take(self.bounds.most));
        loop {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(EngineError::Cancelled);
            }
            let step = self.session.step(self.heard, past, &feed, self.kind == Kind::Final)?;
            past = step.past;
            let columns = step.logits.len() / feed.len();
            if columns <= END as usize {
                return Err(failed("it gave no scores"));
            }
            let (mut kept, mut ended) = (0, false);
            for (row, scores) in step.logits.chunks_exact(columns).enumerate() {
                kept = row + 1;
                let (token, probability) = self.pick(scores, said.tokens.len(), &banned)?;
                look(&mut said.attention, &step.attention, row, feed.len());
                ended = token == END;
                if ended {
                    break;
                }
                said.tokens.push(token);
                said.probabilities.push(probability);
                if feed.get(row + 1) != Some(&token) {
                    break;
                }
            }
            fed += kept;
            let to = if let Some(at) = self.runaway(&said.tokens, ended) {
                banned.push((at, said.tokens[at]));
                self.forget(&mut said, at);
                if banned.len() > DETOURS {
                    self.stop(&mut said);
                    return Ok(said);
                }
                at
            } else if ended {
                return Ok(said);
            } else {
                said.tokens.len()
            };
            // What is fed next stands before place `to`.
            if fed > to || kept < feed.len() {
                past = self.session.crop(past, to)?;
                fed = to;
            }
            feed = vec![to.checked_sub(1).map_or(START, |last| said.tokens[last])];
        }
    }

    fn no_attention(&self) -> Vec<Vec<Vec<f32>>> {
        if self.kind == Kind::Final { vec![Vec::new(); ALIGNED_HEADS.len()] } else { Vec::new() }
    }

    /// The best allowed token for a place, and its probability among all.
    fn pick(&self, scores: &[f32], place: usize, banned: &[(usize, u32)]) -> Result<(u32, f32), EngineError> {
        let allowed = |token: u32| match token {
            END => place >= self.bounds.least,
            token => token >= FIRST_TEXT && place < self.bounds.most && !banned.contains(&(place, token)),
        };
        let mut best = (END, f32::NEG_INFINITY);
        for (token, score) in (0..self.tokenizer.len() as u32).zip(scores) {
            if *score > best.1 && allowed(token) {
                best = (token, *score);
            }
        }
        // Far below the best nothing adds to the sum.
        const NOTHING: f32 = 20.0;
        let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = scores.iter().filter(|it| **it > highest - NOTHING).map(|it| (it - highest).exp()).sum();
        let probability = (best.1 - highest).exp() / sum;
        if probability.is_nan() { Err(failed("its scores are not numbers")) } else { Ok((best.0, probability)) }
    }

    /// The place of the first token of a copy too many, among whole words.
    fn runaway(&self, tokens: &[u32], ended: bool) -> Option<usize> {
        if !ended && !tokens.last().is_some_and(|it| self.tokenizer.begins_word(*it)) {
            return None;
        }
        let mut pieces = self.tokenizer.words(tokens);
        if !ended {
            pieces.pop();
        }
        let words: Vec<String> = pieces.iter().map(|it| bare(&it.text)).collect();
        too_many_copies(&words, self.kind).map(|it| pieces[it.start].tokens.start)
    }

    fn forget(&self, said: &mut Said, from: usize) {
        for head in &mut said.attention {
            head.truncate(from);
        }
        said.tokens.truncate(from);
        said.probabilities.truncate(from);
    }

    /// Ends before the loop, whatever is lost.
    fn stop(&self, said: &mut Said) {
        while let Some(at) = self.runaway(&said.tokens, true) {
            self.forget(said, at);
        }
    }
}

/// Keeps where row `row` of a step looked.
fn look(kept: &mut [Vec<Vec<f32>>], attention: &[Vec<f32>], row: usize, rows: usize) {
    for (kept, rows_of_head) in kept.iter_mut().zip(attention) {
        let frames = rows_of_head.len() / rows;
        kept.push(rows_of_head[row * frames..(row + 1) * frames].to_vec());
    }
}
