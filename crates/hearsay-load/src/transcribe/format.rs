//! A transcript as people read it, and as players do.

use std::io::{self, Write};

use super::frames::Final;

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// `[hh:mm:ss.mmm] Name: text`, a line per final.
    Text,
    /// Every received text frame unchanged, one per line.
    Json,
    /// SubRip subtitles.
    Srt,
    /// WebVTT subtitles.
    Vtt,
}

/// Writes finals in the order of their arrival; subtitles of several speakers in the order of their times, at the end.
pub(super) struct Transcript<'a> {
    output: Output,
    out: &'a mut (dyn Write + Send),
    /// Hold subtitles back to put them in order. Bounded by what was said, not by the audio.
    held: Option<Vec<Final>>,
    cues: usize,
    finals: usize,
}

impl<'a> Transcript<'a> {
    pub(super) fn begin(output: Output, speakers: usize, out: &'a mut (dyn Write + Send)) -> io::Result<Self> {
        if output == Output::Vtt {
            out.write_all(b"WEBVTT\n\n")?;
        }
        let held = (speakers > 1 && matches!(output, Output::Srt | Output::Vtt)).then(Vec::new);
        let transcript = Self { output, out, held, cues: 0, finals: 0 };
        transcript.out.flush()?;
        Ok(transcript)
    }

    pub(super) fn finals(&self) -> usize {
        self.finals
    }

    /// A text frame as it came.
    pub(super) fn frame(&mut self, text: &str) -> io::Result<()> {
        if self.output == Output::Json {
            // A line break inside JSON is white space between its parts: strings hold it escaped.
            let line = text.replace(['\r', '\n'], " ");
            writeln!(self.out, "{line}")?;
            self.out.flush()?;
        }
        Ok(())
    }

    pub(super) fn add(&mut self, said: &Final) -> io::Result<()> {
        self.finals += 1;
        match &mut self.held {
            Some(held) => held.push(said.clone()),
            None => self.write(said)?,
        }
        Ok(())
    }

    pub(super) fn end(&mut self) -> io::Result<()> {
        let mut held = self.held.take().unwrap_or_default();
        held.sort_by_key(|said| (said.start_ms, said.end_ms));
        for said in &held {
            self.write(said)?;
        }
        self.out.flush()
    }

    fn write(&mut self, said: &Final) -> io::Result<()> {
        let Final { speaker, text, start_ms, end_ms } = said;
        // Players skip cues without length.
        let end_ms = (*end_ms).max(start_ms + 1);
        match self.output {
            Output::Text => writeln!(self.out, "[{}] {speaker}: {text}", time(*start_ms, '.'))?,
            Output::Json => {}
            Output::Srt => {
                self.cues += 1;
                let (start, end) = (time(*start_ms, ','), time(end_ms, ','));
                write!(self.out, "{}\n{start} --> {end}\n{speaker}: {text}\n\n", self.cues)?;
            }
            Output::Vtt => {
                let (start, end) = (time(*start_ms, '.'), time(end_ms, '.'));
                write!(self.out, "{start} --> {end}\n<v {}>{}\n\n", escape(speaker), escape(text))?;
            }
        }
        self.out.flush()
    }
}

fn time(ms: u64, point: char) -> String {
    let (s, ms) = (ms / 1_000, ms % 1_000);
    format!("{:02}:{:02}:{:02}{point}{ms:03}", s / 3_600, s / 60 % 60, s % 60)
}

/// WebVTT reads `&`, `<` and `>` as markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(speaker: &str, text: &str, start_ms: u64, end_ms: u64) -> Final {
        Final { speaker: speaker.to_owned(), text: text.to_owned(), start_ms, end_ms }
    }

    fn written(output: Output, speakers: usize, finals: &[Final]) -> String {
        let mut out = Vec::new();
        let mut transcript = Transcript::begin(output, speakers, &mut out).unwrap();
        for said in finals {
            transcript.add(said).unwrap();
        }
        transcript.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_a_line_per_final() {
        let finals = [said("Ana", "Shall we start?", 12_400, 14_150), said("Ben", "Yes.", 3_723_004, 3_723_400)];
        let expected = "[00:00:12.400] Ana: Shall we start?\n[01:02:03.004] Ben: Yes.\n";
        assert_eq!(written(Output::Text, 2, &finals), expected);
    }

    #[test]
    fn srt_counts_its_cues() {
        let finals = [said("Ana", "One.", 0, 900), said("Ana", "Two.", 1_000, 1_000)];
        let expected = "1\n00:00:00,000 --> 00:00:00,900\nAna: One.\n\n2\n00:00:01,000 --> 00:00:01,001\nAna: Two.\n\n";
        assert_eq!(written(Output::Srt, 1, &finals), expected);
    }

    #[test]
    fn vtt_names_the_voice_and_escapes_markup() {
        let expected = "WEBVTT\n\n00:00:01.000 --> 00:00:02.500\n<v R&amp;D>1 &lt; 2\n\n";
        assert_eq!(written(Output::Vtt, 1, &[said("R&D", "1 < 2", 1_000, 2_500)]), expected);
        assert_eq!(written(Output::Vtt, 1, &[]), "WEBVTT\n\n");
    }

    #[test]
    fn subtitles_of_several_speakers_are_put_in_order() {
        let finals = [said("Ana", "Later.", 5_000, 6_000), said("Ben", "Earlier.", 1_000, 2_000)];
        let text = written(Output::Srt, 2, &finals);
        assert!(text.starts_with("1\n00:00:01,000 --> 00:00:02,000\nBen: Earlier.\n\n2\n"), "{text}");
    }

    #[test]
    fn json_is_the_frames_and_nothing_else() {
        let mut out = Vec::new();
        let mut transcript = Transcript::begin(Output::Json, 2, &mut out).unwrap();
        transcript.frame(r#"{"type":"audio_ack"}"#).unwrap();
        transcript.frame("{\n}").unwrap();
        transcript.add(&said("Ana", "One.", 0, 1)).unwrap();
        transcript.end().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "{\"type\":\"audio_ack\"}\n{ }\n");
    }
}
