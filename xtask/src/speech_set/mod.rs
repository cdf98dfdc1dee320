//! The development speech set: recordings that packages ship and lines that synthetic voices say, laid out as
//! streams whose every word, speaker and end of speech is known. `cargo xtask speech-set` makes it, [`load`] reads it.
//!
//! It is made without the product's own audio code, so that a fault there cannot hide in the set.

mod assemble;
mod check;
mod fetch;
mod manifest;
mod recipe;
mod say;
mod sound;
mod synth;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub use check::{Report, check};
pub use manifest::{Encoding, Item, Kind, Manifest, Utterance, Word, load, load_from};
pub use say::say;

/// The subcommand's arguments.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Only examine the set that is there.
    #[arg(long)]
    check: bool,
    /// Where the set lies, instead of the cache folder.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// `cargo xtask speech-set`.
pub fn run(args: Args) -> Result<()> {
    let folder = match args.folder {
        Some(folder) => folder,
        None => folder()?,
    };
    if !args.check {
        if is_complete(&folder)? {
            println!("The speech set is complete: {}", folder.display());
            return Ok(());
        }
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // Absolute: the tools run in folders of their own.
        assemble::assemble(&folder.canonicalize()?)?;
    }
    let report = check(&load_from(&folder)?, &folder)?;
    println!("{report}");
    if !report.problems.is_empty() {
        bail!("the speech set has {} problems", report.problems.len());
    }
    Ok(())
}

/// The folder of the set, beside the models.
pub fn folder() -> Result<PathBuf> {
    Ok(hearsay_models::cache_folder()?.join("speech-set"))
}

/// Whether the folder holds all files of today's recipe. Looks at names and sizes only; `--check` reads them.
fn is_complete(folder: &Path) -> Result<bool> {
    let Ok(manifest) = load_from(folder) else { return Ok(false) };
    if manifest.recipe != recipe::digest() {
        return Ok(false);
    }
    Ok(manifest
        .items
        .iter()
        .all(|item| std::fs::metadata(folder.join(&item.file)).is_ok_and(|meta| meta.len() == item.bytes)))
}
