//! Has voices of the set say what others want to hear: whole texts, without marks.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    fetch::{run, sha256},
    recipe::{Engine, Voice},
    sound,
    synth::RATE,
};

/// Lines of one run of Festival: its start takes longer than a line.
const AT_ONCE: usize = 64;
/// Loudest sample.
const PEAK: f32 = 0.5;

/// Has a voice of the set say each text, as 16-bit WAV files at 16 kHz in `folder`; those that are there are kept. Of the
/// texts only letters, digits and marks of punctuation are said, and each has a letter.
///
/// # Errors
/// When there is no such voice, its program is not installed or fails, or a file cannot be written.
pub fn say(voice: &str, texts: &[&str], folder: &Path) -> Result<Vec<PathBuf>> {
    let voice = Voice::named(voice)?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let plain: Vec<String> = texts.iter().map(|text| plain(text)).collect();
    let file = |text: &String| {
        let key = sha256(format!("{voice:?}\0{text}").as_bytes());
        folder.join(format!("{}-{}.wav", voice.name, &key[..24]))
    };
    let files: Vec<PathBuf> = plain.iter().map(file).collect();
    // Each once, however often it is said.
    let missing: BTreeMap<&Path, &str> = files
        .iter()
        .zip(&plain)
        .filter(|it| !it.0.exists())
        .map(|(file, text)| (file.as_path(), text.as_str()))
        .collect();
    for lines in missing.into_iter().collect::<Vec<_>>().chunks(AT_ONCE) {
        let raw = |file: &Path| file.with_extension("raw.wav");
        match voice.engine {
            Engine::Flite => {
                for (file, text) in lines {
                    run(Command::new("flite").args(["-voice", voice.id, "-t", text, "-o"]).arg(raw(file)))?;
                }
            }
            Engine::Festival => {
                let script = folder.join("say.scm");
                let said = lines
                    .iter()
                    .map(|(file, text)| format!("(utt.save.wave (SynthText \"{text}\") {:?})\n", raw(file)));
                std::fs::write(&script, format!("(voice_{})\n{}", voice.id, said.collect::<String>()))?;
                run(Command::new("festival").arg("-b").arg(&script))?;
            }
            Engine::Kokoro | Engine::Piper => bail!("{} takes seconds a line: say Flite's or Festival's", voice.name),
        }
        for (file, text) in lines {
            finish(&raw(file), file).with_context(|| format!("{} cannot say: {text}", voice.name))?;
        }
    }
    Ok(files)
}

/// What both programs read as nothing but words and pauses.
fn plain(text: &str) -> String {
    let kept = |it: char| it.is_ascii_alphanumeric() || matches!(it, '\'' | ',' | '.' | '?' | '!' | '-');
    let kept: String = text.chars().map(|it| if kept(it) { it } else { ' ' }).collect();
    kept.split_whitespace()
        .filter(|it| it.contains(|it: char| it.is_ascii_alphanumeric()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// As loud and as fast as the others; its name last, so that a file that is there is whole.
fn finish(raw: &Path, file: &Path) -> Result<()> {
    let (samples, rate) = sound::read_wav(raw)?;
    let mut samples = sound::resample(&samples, rate, RATE);
    ensure!(sound::peak(&samples) > 0.0, "silence");
    sound::scale(&mut samples, PEAK);
    let samples: Vec<i16> = samples.iter().map(|it| (it * 32_767.0).round() as i16).collect();
    sound::write_wav(raw, &samples, RATE)?;
    std::fs::rename(raw, file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_said_is() {
        assert_eq!(plain("uh | \"yeah\\\" - p_d_a's?"), "uh yeah p d a's?");
    }
}
