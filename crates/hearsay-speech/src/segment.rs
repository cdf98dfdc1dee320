//! Where an utterance begins and where it is cut: a state machine over voice-activity frames.
//!
//! One segmenter makes one cut, and is done. Whatever follows is a fresh one's, begun at the cut: nothing but the audio
//! since the cut before decides about the next one.

use std::{ops::Range, time::Duration};

use crate::engine::{ENGINE_RATE, VAD_FRAME};

/// One frame, in µs.
pub(crate) const FRAME_US: u64 = VAD_FRAME as u64 * 1_000_000 / ENGINE_RATE as u64;

/// How speech is divided. Durations are kept to the nearest frame (32 ms).
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Voice activity that begins speech, 0 to 1.
    pub on: f32,
    /// Voice activity below which a pause begins.
    pub off: f32,
    /// The pause that ends an utterance.
    pub pause: Duration,
    /// The pause after which the final is decoded on the chance that the utterance is over.
    pub speculate: Duration,
    /// Audio before the first speech that belongs to the utterance.
    pub onset_pad: Duration,
    /// Audio after the last speech that belongs to the utterance.
    pub end_pad: Duration,
    /// Longest utterance: then it is cut where voice activity is lowest in its second half.
    pub longest: Duration,
    /// Speech shorter than this is taken for a noise.
    pub shortest: Duration,
    /// Silence after which the log is told that nothing was said.
    pub silence: Duration,
    /// Audio before a cut that a fresh decoder hears first, to know what it is in the middle of.
    pub preroll: Duration,
    /// Speech before the first partial, which is revised every `partial`.
    pub first_partial: Duration,
    pub partial: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        const MS: fn(u64) -> Duration = Duration::from_millis;
        Self {
            on: 0.5,
            off: 0.35,
            pause: MS(300),
            speculate: MS(130),
            onset_pad: MS(160),
            end_pad: MS(128),
            longest: MS(10_000),
            shortest: MS(96),
            silence: MS(2_000),
            preroll: MS(256),
            first_partial: MS(400),
            partial: MS(500),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    #[error("{smaller} must not be above {larger}")]
    Order { smaller: &'static str, larger: &'static str },
    #[error("{what} must be within 0 to 1")]
    Fraction { what: &'static str },
    #[error("{what} must be {low:?} to {high:?}")]
    Range { what: &'static str, low: Duration, high: Duration },
}

impl Settings {
    /// # Errors
    /// When the values contradict each other.
    pub fn validate(&self) -> Result<(), InvalidSettings> {
        for (what, value) in [("on", self.on), ("off", self.off)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(InvalidSettings::Fraction { what });
            }
        }
        let frame = Duration::from_micros(FRAME_US);
        let second = Duration::from_secs(1);
        for (what, value, low, high) in [
            ("pause", self.pause, frame, 5 * second),
            ("longest", self.longest, second, 30 * second),
            ("preroll", self.preroll, Duration::ZERO, second),
            ("silence", self.silence, 16 * frame, 30 * second),
            ("partial", self.partial, 3 * frame, 10 * second),
        ] {
            if !(low..=high).contains(&value) {
                return Err(InvalidSettings::Range { what, low, high });
            }
        }
        for (smaller, larger, fine) in [
            ("off", "on", self.off <= self.on),
            ("end_pad", "pause", self.end_pad <= self.pause),
            ("speculate", "pause", self.speculate <= self.pause),
            ("pause", "half of longest", self.pause <= self.longest / 2),
            ("onset_pad", "half of silence", self.onset_pad <= self.silence / 2),
            ("shortest", "half of longest", self.shortest <= self.longest / 2),
        ] {
            if !fine {
                return Err(InvalidSettings::Order { smaller, larger });
            }
        }
        Ok(())
    }

    pub(crate) fn frames(&self) -> Frames {
        let pause = frames(self.pause).max(1);
        let end_pad = frames(self.end_pad).min(pause);
        Frames {
            on: self.on,
            off: self.off,
            pause,
            end_pad,
            // The final's range must be known by then.
            speculate: frames(self.speculate).max(end_pad).max(1),
            onset_pad: frames(self.onset_pad),
            longest: frames(self.longest).max(4),
            shortest: frames(self.shortest),
            silence: frames(self.silence).max(2),
            preroll: frames(self.preroll),
            first_partial: frames(self.first_partial).max(1),
            partial: frames(self.partial).max(1),
        }
    }
}

fn frames(duration: Duration) -> usize {
    let frames = (duration.as_micros() + u128::from(FRAME_US) / 2) / u128::from(FRAME_US);
    usize::try_from(frames).unwrap_or(usize::MAX / 2)
}

/// [`Settings`] in frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frames {
    pub(crate) on: f32,
    pub(crate) off: f32,
    pub(crate) pause: usize,
    pub(crate) speculate: usize,
    pub(crate) onset_pad: usize,
    pub(crate) end_pad: usize,
    pub(crate) longest: usize,
    pub(crate) shortest: usize,
    pub(crate) silence: usize,
    pub(crate) preroll: usize,
    pub(crate) first_partial: usize,
    pub(crate) partial: usize,
}

/// Where the speech of an utterance is, in samples since the segmenter's first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Speech {
    /// What is decoded: speech and pads. Begins with a frame.
    pub(crate) audio: Range<usize>,
    /// Where voice activity was, within `audio`.
    pub(crate) voiced: Range<usize>,
}

/// What one frame decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Speech begins at this sample.
    Onset(usize),
    /// Somebody speaks; nothing else to say.
    Speaking,
    /// A short pause: if it lasts, this will be the final's range.
    Pause(Speech),
    /// Speech goes on after a short pause.
    Resumed,
    /// Everything before the sample `through` is settled. The segmenter is done.
    Cut { through: usize, speech: Option<Speech> },
}

/// Finds the first cut after its watermark.
#[derive(Debug)]
pub(crate) struct Segmenter {
    frames: Frames,
    /// Frames before this one only warm the voice activity model up.
    watermark: usize,
    /// Voice activity of each frame so far.
    voice: Vec<f32>,
    speaking: Option<Speaking>,
}

#[derive(Debug, Clone, Copy)]
struct Speaking {
    /// First frame of the utterance's audio, and of its speech.
    start: usize,
    onset: usize,
    /// Frames at or above `on`.
    voiced: usize,
    /// First frame of the pause, while there is one.
    pause: Option<usize>,
}

impl Segmenter {
    pub(crate) fn new(frames: Frames, watermark: usize) -> Self {
        Self { frames, watermark, voice: Vec::new(), speaking: None }
    }

    /// Takes the next frame's voice activity.
    pub(crate) fn push(&mut self, probability: f32) -> Option<Step> {
        let Frames { on, off, .. } = self.frames;
        let now = self.voice.len();
        self.voice.push(probability);
        if now < self.watermark {
            return None;
        }
        let Some(mut speaking) = self.speaking else {
            if probability >= on {
                let start = now.saturating_sub(self.frames.onset_pad).max(self.watermark);
                self.speaking = Some(Speaking { start, onset: now, voiced: 1, pause: None });
                return Some(Step::Onset(now * VAD_FRAME));
            }
            return (now + 1 - self.watermark >= self.frames.silence).then(|| {
                // Speech that begins with the next frame reaches back this far.
                let through = (now + 1).saturating_sub(self.frames.onset_pad).max(self.watermark + 1);
                Step::Cut { through: through * VAD_FRAME, speech: None }
            });
        };
        let mut step = Step::Speaking;
        if probability >= on {
            speaking.voiced += 1;
            if let Some(pause) = speaking.pause.take()
                && now - pause >= self.frames.speculate
            {
                step = Step::Resumed;
            }
        } else if probability < off || speaking.pause.is_some() {
            let pause = *speaking.pause.get_or_insert(now);
            let paused = now + 1 - pause;
            if paused >= self.frames.pause {
                self.speaking = Some(speaking);
                let through = (pause + self.frames.end_pad) * VAD_FRAME;
                return Some(Step::Cut { through, speech: self.speech(through) });
            }
            if paused == self.frames.speculate {
                self.speaking = Some(speaking);
                let speech = self.speech((pause + self.frames.end_pad) * VAD_FRAME);
                step = speech.map_or(Step::Speaking, Step::Pause);
            }
        }
        self.speaking = Some(speaking);
        if now + 1 - speaking.start >= self.frames.longest {
            let through = self.quietest(speaking.start, now + 1) * VAD_FRAME;
            return Some(Step::Cut { through, speech: self.speech(through) });
        }
        Some(step)
    }

    /// Audio ends here for now, after `total` samples; `tail` is the voice activity of what fills no frame. What was said?
    pub(crate) fn finish(&mut self, total: usize, tail: Option<f32>) -> Option<Speech> {
        self.voice.extend(tail);
        let padded = match self.speaking?.pause {
            Some(pause) => (pause + self.frames.end_pad) * VAD_FRAME,
            None => total,
        };
        self.speech(padded.min(total))
    }

    /// The utterance so far.
    pub(crate) fn so_far(&self) -> Option<Speech> {
        let total = self.voice.len() * VAD_FRAME;
        self.speech(total)
    }

    /// Frames since speech began; none while nobody speaks or a pause lasts.
    pub(crate) fn speaking_for(&self) -> Option<usize> {
        let speaking = self.speaking.filter(|it| it.pause.is_none())?;
        Some(self.voice.len() - speaking.onset)
    }

    /// Voice activity of the frames that `audio` covers, the last one perhaps in part.
    pub(crate) fn voice(&self, audio: &Range<usize>) -> &[f32] {
        let frames = audio.start / VAD_FRAME..audio.end.div_ceil(VAD_FRAME);
        self.voice.get(frames).unwrap_or_default()
    }

    pub(crate) fn last(&self) -> Option<f32> {
        self.voice.last().copied()
    }

    /// The utterance if it ends at sample `end`; none when it is too short to be one.
    fn speech(&self, end: usize) -> Option<Speech> {
        let speaking = self.speaking.filter(|it| it.voiced >= self.frames.shortest)?;
        let audio = speaking.start * VAD_FRAME..end;
        let silent = speaking.pause.map_or(end, |pause| (pause * VAD_FRAME).min(end));
        let onset = (speaking.onset * VAD_FRAME).min(silent);
        (!audio.is_empty()).then_some(Speech { audio, voiced: onset..silent })
    }

    /// The frame before which to cut: beside the middle of the three frames with the lowest mean in the second half of
    /// `start..end`, on its quieter side; the latest of equals.
    fn quietest(&self, start: usize, end: usize) -> usize {
        let middle = start + (end - start) / 2;
        let mut best = (f32::INFINITY, end);
        for first in middle..end.saturating_sub(2) {
            let [a, b, c] = [self.voice[first], self.voice[first + 1], self.voice[first + 2]];
            let mean = a + b + c;
            if mean <= best.0 {
                best = (mean, if a < c { first + 1 } else { first + 2 });
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds one segmenter; answers the frame after which it cut, and the cut in frames.
    fn cut(
        settings: &Settings,
        watermark: usize,
        voice: impl IntoIterator<Item = f32>,
    ) -> (usize, usize, Option<Speech>) {
        let mut segmenter = Segmenter::new(settings.frames(), watermark);
        for (frame, probability) in voice.into_iter().enumerate() {
            if let Some(Step::Cut { through, speech }) = segmenter.push(probability) {
                assert_eq!(through % VAD_FRAME, 0);
                return (frame, through / VAD_FRAME, speech);
            }
        }
        panic!("no cut");
    }

    fn in_frames(speech: &Speech) -> (Range<usize>, Range<usize>) {
        let frames = |range: &Range<usize>| range.start / VAD_FRAME..range.end / VAD_FRAME;
        (frames(&speech.audio), frames(&speech.voiced))
    }

    fn talk(parts: &[(usize, f32)]) -> Vec<f32> {
        parts.iter().flat_map(|(frames, probability)| std::iter::repeat_n(*probability, *frames)).collect()
    }

    #[test]
    fn a_pause_ends_an_utterance_and_its_pads_belong_to_it() {
        let settings = Settings::default();
        let (at, through, speech) = cut(&settings, 0, talk(&[(20, 0.1), (30, 0.9), (40, 0.1)]));
        assert_eq!(at, 20 + 30 + 9 - 1, "the ninth silent frame: 288 ms");
        assert_eq!(through, 54);
        assert_eq!(in_frames(&speech.unwrap()), (15..54, 20..50));
    }

    #[test]
    fn between_the_thresholds_speech_goes_on_but_does_not_begin() {
        let settings = Settings::default();
        let (_, _, speech) = cut(&settings, 0, talk(&[(20, 0.4), (5, 0.9), (40, 0.4), (20, 0.2)]));
        assert_eq!(in_frames(&speech.unwrap()).1, 20..65);
    }

    #[test]
    fn the_onset_pad_stops_at_the_watermark() {
        let settings = Settings::default();
        let (_, _, speech) = cut(&settings, 8, talk(&[(8, 0.9), (2, 0.1), (30, 0.9), (40, 0.1)]));
        assert_eq!(in_frames(&speech.unwrap()).0.start, 8);
    }

    #[test]
    fn a_click_is_not_an_utterance() {
        let settings = Settings::default();
        let (_, through, speech) = cut(&settings, 0, talk(&[(10, 0.1), (2, 0.9), (40, 0.1)]));
        assert_eq!((through, speech), (16, None));
    }

    #[test]
    fn silence_is_cut_less_the_onset_pad() {
        let settings = Settings::default();
        let (at, through, speech) = cut(&settings, 8, talk(&[(100, 0.0)]));
        assert_eq!((at, through, speech), (8 + 63 - 1, 8 + 63 - 5, None));
    }

    #[test]
    fn endless_speech_is_cut_at_the_quietest_place_of_its_second_half() {
        let settings = Settings::default();
        let mut voice = vec![0.95; 400];
        voice[100] = 0.36;
        voice[250] = 0.5;
        voice[251] = 0.4;
        voice[252] = 0.7;
        let (at, through, speech) = cut(&settings, 0, voice);
        assert_eq!(at, 312);
        assert_eq!(through, 251, "between 0.5 and 0.4, which is the quieter side of the middle frame");
        assert_eq!(in_frames(&speech.unwrap()), (0..251, 0..251));
    }

    #[test]
    fn a_short_pause_announces_the_range_a_long_one_confirms() {
        let settings = Settings::default();
        let mut segmenter = Segmenter::new(settings.frames(), 0);
        let mut announced = None;
        let mut resumed = 0;
        let mut confirmed = None;
        for probability in talk(&[(10, 0.9), (6, 0.1), (10, 0.9), (2, 0.1), (5, 0.9), (40, 0.1)]) {
            match segmenter.push(probability) {
                Some(Step::Pause(speech)) => announced = Some(speech),
                Some(Step::Resumed) => resumed += 1,
                Some(Step::Cut { speech, .. }) => {
                    confirmed = Some(speech);
                    break;
                }
                _ => {}
            }
        }
        assert_eq!(resumed, 1, "the two-frame pause was never announced");
        assert_eq!(confirmed.unwrap(), announced);
    }

    proptest! {
        /// Whatever the voice activity does: every segmenter cuts in bounded time, moves forward, keeps the utterance
        /// between watermark and cut, and announces nothing that it does not confirm or take back.
        #[test]
        fn any_voice_activity_is_cut_forward(
            voice in prop::collection::vec(prop_oneof![Just(0.0_f32), Just(1.0), 0.0..=1.0_f32], 700),
            watermark in 0..9_usize,
            pause in 32..600_u64,
            longest in 1_200..9_000_u64,
        ) {
            let settings = Settings {
                pause: Duration::from_millis(pause),
                end_pad: Duration::from_millis(pause.min(128)),
                speculate: Duration::from_millis(pause.min(130)),
                longest: Duration::from_millis(longest),
                ..Settings::default()
            };
            settings.validate().unwrap();
            let mut segmenter = Segmenter::new(settings.frames(), watermark);
            let mut announced: Option<Speech> = None;
            for (frame, probability) in voice.into_iter().enumerate() {
                match segmenter.push(probability) {
                    Some(Step::Pause(speech)) => {
                        prop_assert!(announced.is_none());
                        prop_assert!(speech.audio.end <= (frame + 1) * VAD_FRAME);
                        announced = Some(speech);
                    }
                    Some(Step::Resumed) => announced = None,
                    Some(Step::Cut { through, speech }) => {
                        prop_assert!(through > watermark * VAD_FRAME && through <= (frame + 1) * VAD_FRAME);
                        if let Some(speech) = speech {
                            prop_assert!(speech.audio.start >= watermark * VAD_FRAME);
                            prop_assert_eq!(speech.audio.end, through);
                            prop_assert!(speech.audio.start <= speech.voiced.start);
                            prop_assert!(speech.voiced.start <= speech.voiced.end);
                            prop_assert!(speech.voiced.end <= speech.audio.end);
                            prop_assert!(speech.audio.len() <= settings.frames().longest * VAD_FRAME);
                            prop_assert_eq!(segmenter.voice(&speech.audio).len(), speech.audio.len() / VAD_FRAME);
                        }
                        return Ok(());
                    }
                    _ => {}
                }
            }
            prop_assert!(false, "no cut in 22 s");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        Settings::default().validate().unwrap();
        let wrong = Settings { end_pad: Duration::from_millis(400), ..Settings::default() };
        assert_eq!(wrong.validate().unwrap_err().to_string(), "end_pad must not be above pause");
    }
}
