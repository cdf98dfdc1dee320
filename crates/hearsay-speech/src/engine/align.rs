//! When each word was said: read from where the decoder looked in the audio, and from voice activity.
//!
//! Median error of a word's start 24 to 34 ms against a forced alignment; most of the rest of it are slow, long pauses.

use std::ops::Range;

use super::{ENGINE_RATE, VAD_FRAME, guard::VOICED};

/// How much earlier than its first frame a word begins.
const LEAD: usize = millis(20);

/// How much before the first voiced frame a word begins that was moved there.
const ONSET: usize = millis(30);

/// A pause of this many voice-activity frames within [`NEAR`] of a start: the word is behind it.
const PAUSE_FRAMES: usize = 5;
const NEAR: usize = millis(150);

/// No two words begin closer together, where there is room.
const APART: usize = millis(20);

const fn millis(count: usize) -> usize {
    count * ENGINE_RATE as usize / 1000
}

/// The first frame of each row's stretch, when rows (tokens and the end) are laid along the frames, in order, where the
/// heads looked. `heads[h][row][frame]`.
pub(in crate::engine) fn first_frames(heads: &[Vec<Vec<f32>>]) -> Vec<usize> {
    let rows = heads.iter().map(Vec::len).min().unwrap_or(0);
    let frames = heads.iter().flatten().map(Vec::len).min().unwrap_or(0);
    if rows == 0 || frames == 0 {
        return vec![0; rows];
    }
    let mut looks = vec![0f32; rows * frames];
    for head in heads {
        for frame in 0..frames {
            let column = || head[..rows].iter().map(|row| row[frame]);
            let mean = column().sum::<f32>() / rows as f32;
            let deviation = (column().map(|it| (it - mean).powi(2)).sum::<f32>() / rows as f32).sqrt();
            for (row, look) in column().enumerate() {
                looks[row * frames + frame] += (look - mean) / (deviation + 1e-9);
            }
        }
    }
    warp(&looks, rows, frames)
}

#[derive(Clone, Copy)]
enum Step {
    Both,
    Row,
    Frame,
}

/// Dynamic time warping for the highest sum.
fn warp(gain: &[f32], rows: usize, frames: usize) -> Vec<usize> {
    let mut steps = vec![Step::Both; rows * frames];
    let mut before = vec![f32::NEG_INFINITY; frames];
    for row in 0..rows {
        let mut here = vec![f32::NEG_INFINITY; frames];
        for frame in 0..frames {
            let diagonal = match (row, frame) {
                (0, 0) => 0.0,
                (0, _) | (_, 0) => f32::NEG_INFINITY,
                _ => before[frame - 1],
            };
            let up = if row > 0 { before[frame] } else { f32::NEG_INFINITY };
            let left = if frame > 0 { here[frame - 1] } else { f32::NEG_INFINITY };
            let (best, step) = if diagonal >= up && diagonal >= left {
                (diagonal, Step::Both)
            } else if up >= left {
                (up, Step::Row)
            } else {
                (left, Step::Frame)
            };
            here[frame] = best + gain[row * frames + frame];
            steps[row * frames + frame] = step;
        }
        before = here;
    }
    let mut first = vec![0; rows];
    let (mut row, mut frame) = (rows - 1, frames - 1);
    loop {
        first[row] = frame;
        if row == 0 && frame == 0 {
            return first;
        }
        match steps[row * frames + frame] {
            Step::Both => (row, frame) = (row.saturating_sub(1), frame.saturating_sub(1)),
            Step::Row => row = row.saturating_sub(1),
            Step::Frame => frame = frame.saturating_sub(1),
        }
    }
}

/// Samples of each word, in order and non-overlapping, from the encoder's frames they begin at, each of `frame_samples`.
pub(in crate::engine) fn spans(
    first_frames: &[usize],
    frame_samples: usize,
    voice: &[f32],
    samples: usize,
) -> Vec<Range<usize>> {
    let mut starts: Vec<usize> = Vec::with_capacity(first_frames.len());
    for (index, frame) in first_frames.iter().enumerate() {
        let looked = (frame * frame_samples).saturating_sub(LEAD);
        let earliest = starts.last().map_or(0, |it| it + APART);
        // Room for the words behind it.
        let latest = samples.saturating_sub((first_frames.len() - index) * APART);
        starts.push(snapped(looked, voice).max(earliest).min(latest.max(starts.last().copied().unwrap_or(0))));
    }
    let ends = starts.iter().skip(1).copied().chain([samples]);
    starts.iter().zip(ends).map(|(start, end)| *start..spoken_until(*start, end, voice)).collect()
}

/// Moves a start that lies in or just before a pause to where speech goes on.
fn snapped(start: usize, voice: &[f32]) -> usize {
    let speech = |frame: usize| voice.get(frame).is_some_and(|it| *it >= VOICED);
    let resumed = |from: usize| {
        let onset = (from..voice.len()).find(|it| speech(*it));
        onset.map_or(start, |frame| (frame * VAD_FRAME).saturating_sub(ONSET).max(start))
    };
    let here = start / VAD_FRAME;
    if !speech(here) {
        return resumed(here);
    }
    let pause = (here + 1..voice.len())
        .take_while(|frame| frame * VAD_FRAME <= start + NEAR)
        .find(|frame| (*frame..frame + PAUSE_FRAMES).all(|it| it < voice.len() && !speech(it)));
    pause.map_or(start, resumed)
}

/// The end of the last speech before `end`.
fn spoken_until(start: usize, end: usize, voice: &[f32]) -> usize {
    let frames = start / VAD_FRAME..end.div_ceil(VAD_FRAME).min(voice.len());
    let last = frames.rev().find(|it| voice[*it] >= VOICED);
    last.map_or(end, |frame| ((frame + 1) * VAD_FRAME).clamp(start, end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows that look at the frames given.
    fn looking(at: &[usize], frames: usize) -> Vec<Vec<f32>> {
        at.iter()
            .map(|it| (0..frames).map(|frame| if frame.abs_diff(*it) <= 1 { 0.4 } else { 0.01 }).collect())
            .collect()
    }

    #[test]
    fn rows_are_laid_where_the_heads_looked() {
        let found = first_frames(&[looking(&[2, 10, 20, 29], 30), looking(&[3, 11, 20, 29], 30)]);
        assert_eq!(found[0], 0);
        for (found, expected) in found.iter().zip([0, 10, 20, 28]).skip(1) {
            assert!(found.abs_diff(expected) <= 2, "{found} is not about {expected}");
        }
    }

    #[test]
    fn a_start_in_a_pause_moves_to_where_speech_goes_on() {
        let voice: Vec<f32> = (0..40).map(|it| if (10..20).contains(&it) { 0.1 } else { 0.9 }).collect();
        let onset = 20 * VAD_FRAME - ONSET;
        assert_eq!(snapped(12 * VAD_FRAME, &voice), onset);
        assert_eq!(snapped(9 * VAD_FRAME, &voice), onset, "a pause begins right behind it");
        assert_eq!(snapped(4 * VAD_FRAME, &voice), 4 * VAD_FRAME);
        assert_eq!(snapped(35 * VAD_FRAME, &voice), 35 * VAD_FRAME);
    }

    #[test]
    fn a_word_ends_with_its_last_speech() {
        let voice: Vec<f32> = (0..40).map(|it| if (10..20).contains(&it) { 0.1 } else { 0.9 }).collect();
        let spans = spans(&[2, 24], 384, &voice, 40 * VAD_FRAME);
        assert_eq!(spans[0].end, 10 * VAD_FRAME);
        assert_eq!(spans[1], 20 * VAD_FRAME - ONSET..40 * VAD_FRAME);
    }

    proptest! {
        #[test]
        fn words_are_in_order_within_the_audio(
            mut frames in prop::collection::vec(0usize..60, 0..30),
            voice in prop::collection::vec(0f32..1.0, 0..50),
            samples in 0usize..24_000,
        ) {
            frames.sort_unstable();
            let spans = spans(&frames, 384, &voice, samples);
            prop_assert_eq!(spans.len(), frames.len());
            let mut before = 0;
            for it in spans {
                prop_assert!(before <= it.start && it.start <= it.end && it.end <= samples, "{:?} after {}", it, before);
                before = it.end;
            }
        }
    }
}
