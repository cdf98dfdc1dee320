//! `hearsay models`.

use std::{io::Write, process::ExitCode};

use hearsay_models::{ModelStore, State, Terminal};
use hearsay_runtime::HumanBytes;

use crate::config::Config;

/// Fetches what is missing of what the configuration needs. A damaged file is made anew.
pub(crate) fn fetch(config: &Config) -> anyhow::Result<ExitCode> {
    let store = store(config)?;
    store.repair(&mut Terminal::default())?;
    #[cfg(feature = "recognizer")]
    crate::recognizer::fetch_configured(&config.recognizer.engine, &store)?;
    Ok(ExitCode::SUCCESS)
}

/// Name, version, size and state, separated by tabs.
pub(crate) fn list(config: &Config) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for model in store(config)?.list() {
        let needed = match model.state {
            State::Missing if !model.item.required() => "not fetched (optional)".to_owned(),
            state => state.to_string(),
        };
        writeln!(out, "{}\t{}\t{}\t{needed}", model.name, model.version, size(model.size))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The store in the configured cache folder.
pub(crate) fn store(config: &Config) -> anyhow::Result<ModelStore> {
    let folder = match &config.models.cache {
        Some(folder) => folder.clone(),
        None => hearsay_models::cache_folder()?,
    };
    Ok(ModelStore::open(folder))
}

fn size(bytes: u64) -> String {
    match bytes {
        0 => "-".to_owned(),
        // Whole megabytes are as exact as a list needs.
        bytes if bytes >= 1_000_000 => HumanBytes::new(bytes / 1_000_000 * 1_000_000).to_string(),
        bytes => HumanBytes::new(bytes).to_string(),
    }
}
