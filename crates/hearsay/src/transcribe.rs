//! `hearsay transcribe`.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use hearsay_load::transcribe::{Credentials, Options, transcribe};
use hearsay_models::cache_folder;
use hearsay_runtime::{LogConfig, logs};

use crate::{cli::Transcribe, token_file};

/// Called wrongly, as clap says it.
const USAGE: u8 = 2;

pub(crate) fn run(arguments: Transcribe) -> anyhow::Result<ExitCode> {
    let quiet = LogConfig { filter: "warn".to_owned(), ..LogConfig::default() };
    logs::install(&quiet).map_err(anyhow::Error::msg)?;
    let credentials = match (arguments.app_id, arguments.app_secret, arguments.token) {
        (Some(id), Some(secret), _) => Credentials::App { id, secret },
        (_, _, Some(token)) => Credentials::Token(token),
        _ => match cache_folder().ok().and_then(|cache| token_file::find(&cache, &arguments.url)) {
            Some(token) => Credentials::Token(token),
            None => {
                eprintln!(
                    "hearsay: no token. `hearsay dev` prints one on its second line: pass it as --token or in \
                     HEARSAY_TOKEN, or give --app-id and --app-secret"
                );
                return Ok(ExitCode::from(USAGE));
            }
        },
    };
    let options = Options {
        url: arguments.url,
        ca: arguments.ca,
        credentials,
        meeting: arguments.meeting,
        fast: arguments.fast,
        output: arguments.output.into(),
        progress: io::stderr().is_terminal(),
        files: arguments.files,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(transcribe(options, &mut io::stdout())) {
        Ok(summary) => {
            eprintln!("{summary}");
            Ok(ExitCode::SUCCESS)
        }
        // As `head` does to any program: nothing is wrong.
        Err(error) if error.is_closed_pipe() => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("hearsay: {error}");
            Ok(ExitCode::from(error.exit_code()))
        }
    }
}
