//! `cargo xtask train`: fits the heads of hearsay-insight anew, and writes their card.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;
use hearsay_embedding::MiniLm;
use hearsay_insight::{
    acts::{Head, train},
    heads, labelled, sentiment, topics,
};
use hearsay_models::{ModelStore, Terminal, cache_folder};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::shell::root;

#[derive(Debug, Args)]
pub(crate) struct Train {
    /// Folder with mrda_train.tsv, tasks_email.jsonl and sentiment_hutto.jsonl.
    data: PathBuf,
}

struct Source {
    name: &'static str,
    what: &'static str,
    licence: &'static str,
}

const MEETINGS: Source = Source {
    name: "mrda_train.tsv",
    what: "ICSI Meeting Recorder Dialogue Act corpus (Shriberg et al. 2004), standard training meetings",
    licence: "CC BY 4.0, as stated by its present distributor",
};
const EMAILS: Source = Source {
    name: "tasks_email.jsonl",
    what: "Lin: sentences of e-mails that contain tasks (Diwanji et al. 2020); text of the public Enron release",
    licence: "MIT",
};

const RATED: Source = Source {
    name: "sentiment_hutto.jsonl",
    what: "Tweets, reviews and editorials rated by twenty people each (Hutto and Gilbert 2014)",
    licence: "MIT; no text of it ships",
};

/// Utterances, and texts of the other kinds, that make a stretch of general text.
const STRETCH: (usize, usize) = (250, 100);

pub(crate) fn run(arguments: &Train) -> Result<()> {
    let (spoken, meetings) = read(&arguments.data, &MEETINGS)?;
    let (written, emails) = read(&arguments.data, &EMAILS)?;
    let spoken = labelled::spoken(&spoken).with_context(|| MEETINGS.name)?;
    let written = labelled::written(&written).with_context(|| EMAILS.name)?;
    let (rated, ratings) = read(&arguments.data, &RATED)?;
    let rated = labelled::rated(&rated).with_context(|| RATED.name)?;
    let of = |texts: Vec<&str>, size: usize| texts.chunks(size).map(|it| it.join("\n")).collect::<Vec<_>>();
    let mut stretches = of(spoken.iter().map(|it| it.text.as_str()).collect(), STRETCH.0);
    stretches.extend(of(rated.iter().map(|it| it.text.as_str()).collect(), STRETCH.1));
    stretches.extend(of(written.iter().map(|it| it.text.as_str()).collect(), STRETCH.1));
    let folder = root().join("crates/hearsay-insight/weights");
    fs::write(folder.join("words.txt"), topics::general(&stretches))?;

    fs::write(folder.join("sentiment.bin"), sentiment::write(&feelings(&rated)?))?;

    let mut examples = train::of_meetings(&spoken);
    examples.extend(train::of_documents(&written));

    let (mut fitted, mut cards) = (Vec::new(), Vec::new());
    for head in Head::ALL {
        let recipe = train::recipe(head);
        let found = train::fit(&examples, head, &recipe);
        eprintln!("{}: F1 {:.3} on unseen training groups", head.name(), found.f1);
        cards.push(json!({
            "head": head.name(),
            "thresholds": found.head.thresholds,
            "recipe": { "passes": recipe.passes, "step": recipe.step, "decay": recipe.decay },
            "five_folds_of_training_groups": {
                "precision": rounded(found.precision), "recall": rounded(found.recall), "f1": rounded(found.f1),
            },
        }));
        fitted.push(found.head);
    }
    let weights = heads::write(&fitted);
    let card = json!({
        "model": "acts.bin",
        "sha256": hex(&weights),
        "kind": "logistic regression over hashed words, word shapes and neighbours; 8-bit weights",
        "made_by": "cargo xtask train DATA",
        "data": [meetings, emails],
        "sentiment.bin": {
            "what": "logistic regression on all-MiniLM-L6-v2 (Apache-2.0): negative, neutral, positive; within 0.5 of 0 is neutral",
            "data": [ratings],
        },
        "words.txt": { "what": "in how many stretches of general text a word stands", "data": [meetings, ratings, emails] },
        "heads": cards,
    });
    fs::write(folder.join("acts.bin"), weights)?;
    fs::write(folder.join("acts.json"), format!("{card:#}\n"))?;
    Ok(())
}

/// Fits how sentences feel to how people rated them: within half a point of zero is neutral.
fn feelings(rated: &[labelled::Rated]) -> Result<sentiment::Weights> {
    let files = ModelStore::open(cache_folder()?).fetch(&mut Terminal::default())?.minilm;
    let model = MiniLm::load(&files.model, &files.tokenizer)?;
    let kind = |mean: f32| usize::from(mean >= -0.5) + usize::from(mean > 0.5);
    let weigh = |it: &labelled::Rated| Ok((model.embed(&it.text)?, kind(it.mean)));
    Ok(sentiment::fit(&rated.iter().map(weigh).collect::<Result<Vec<_>>>()?))
}

fn read(folder: &Path, source: &Source) -> Result<(String, serde_json::Value)> {
    let path = folder.join(source.name);
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let card = json!({
        "file": source.name, "sha256": hex(text.as_bytes()), "what": source.what, "licence": source.licence,
    });
    Ok((text, card))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|it| format!("{it:02x}")).collect()
}

fn rounded(figure: f32) -> f64 {
    (f64::from(figure) * 1000.0).round() / 1000.0
}
