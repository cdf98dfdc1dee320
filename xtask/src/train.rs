//! `cargo xtask train`: fits the heads of hearsay-insight anew, and writes their card.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use hearsay_embedding::MiniLm;
use hearsay_insight::{
    acts::{Head, train},
    labelled, sentiment, topics,
};
use hearsay_models::{ModelStore, Terminal, cache_folder};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::shell::root;

#[derive(Debug, Args)]
pub(crate) struct Train {
    /// Folder with mrda_train.tsv, tasks_email.jsonl and sentiment_hutto.jsonl.
    #[arg(default_value = "../shared/data/insights")]
    data: PathBuf,
    /// Write nothing: say whether what is made is what is kept, byte for byte.
    #[arg(long)]
    check: bool,
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
    licence: "MIT, as its repository says; no text or word of it ships",
};

/// Utterances, and sentences of e-mails, that make a stretch of general text.
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
    stretches.extend(of(written.iter().map(|it| it.text.as_str()).collect(), STRETCH.1));
    let words = topics::general(&stretches).into_bytes();
    let feelings = sentiment::write(&feelings(&rated)?);

    let mut examples = train::of_meetings(&spoken);
    examples.extend(train::of_documents(&written));
    let known = train::Known::of(&examples);
    let (mut fitted, mut cards) = (Vec::new(), Vec::new());
    for head in Head::ALL {
        let recipe = train::recipe(head);
        let found = train::fit(&known, head, &recipe);
        eprintln!("{}: F1 {:.3} at once on unseen training groups", head.name(), found.live.f1);
        cards.push(card(head, &recipe, &found));
        fitted.push(found);
    }
    let acts = train::write(&known.vocabulary, &fitted);
    let card = json!({
        "made_by": "cargo xtask train DATA",
        "acts.bin": {
            "sha256": hex(&acts),
            "what": "what an utterance does: logistic regression over hashed words, word shapes, what the rules read and what \
                is said around it, beside it for questions a hidden layer; 8-bit weights of features seen often",
            "features": known.vocabulary.len(),
            "data": [&meetings, &emails],
            "heads": cards,
        },
        "sentiment.bin": {
            "sha256": hex(&feelings),
            "what": "logistic regression on all-MiniLM-L6-v2 (Apache-2.0): negative, neutral, positive; within 0.5 of 0 is neutral",
            "threshold": "the likeliest of the three",
            "data": [ratings],
            "figures": "on television dialogue it was never trained on: BENCHMARKS.md",
        },
        "words.txt": {
            "sha256": hex(&words),
            "what": "in how many stretches of general text a word stands, of those in four and more",
            "data": [meetings, emails],
            "figures": "of the topics weighed by it: BENCHMARKS.md",
        },
    });
    let card = format!("{card:#}\n").into_bytes();
    let made = [("acts.bin", acts), ("sentiment.bin", feelings), ("words.txt", words), ("acts.json", card)];
    keep(arguments.check, &made)
}

/// Writes the files, or holds them against those that are there.
fn keep(check: bool, made: &[(&str, Vec<u8>)]) -> Result<()> {
    let folder = root().join("crates/hearsay-insight/weights");
    let mut others = Vec::new();
    for (name, bytes) in made {
        let path = folder.join(name);
        if !check {
            fs::write(&path, bytes).with_context(|| format!("{} cannot be written", path.display()))?;
        } else if fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))? != *bytes {
            others.push(*name);
        }
    }
    ensure!(others.is_empty(), "these are not what this data makes: {}", others.join(", "));
    Ok(())
}

/// A head's part of the card.
fn card(head: Head, recipe: &train::Recipe, found: &train::Fitted) -> serde_json::Value {
    let figures = |it: train::Figures| {
        json!({
            "precision": rounded(it.precision), "recall": rounded(it.recall), "f1": rounded(it.f1),
            "f1_of_four_words_and_more": rounded(it.long_f1),
        })
    };
    let [live_short, live_long, short, long] = found.head.thresholds;
    let mut card = json!({
        "head": head.name(),
        "thresholds": { "at_once": [live_short, live_long], "answered": [short, long] },
        "recipe": { "passes": recipe.passes, "step": recipe.step, "decay": recipe.decay, "hidden_layer": recipe.layer },
        "five_folds_of_training_groups": { "at_once": figures(found.live) },
    });
    // Sentences in writing have no answer.
    if head != Head::Task {
        card["five_folds_of_training_groups"]["answered"] = figures(found.answered);
    }
    card
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
