//! Where log lines go: to stderr, always; stdout belongs to commands.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::tasks::{panic_message, panicking_in_task};

/// The `[log]` section.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    pub format: LogFormat,
    /// Directives as in `info,hearsay_gateway=debug`.
    pub filter: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One object per line, for machines.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::default(), filter: "info".to_owned() }
    }
}

impl LogConfig {
    /// # Errors
    /// When the filter cannot be read.
    pub fn validate(&self) -> Result<(), String> {
        self.parse().map(drop)
    }

    fn parse(&self) -> Result<EnvFilter, String> {
        EnvFilter::builder().parse(&self.filter).map_err(|error| format!("log.filter {:?}: {error}", self.filter))
    }
}

/// Sends this process's log lines to stderr, panics outside tracked tasks among them. Once per process.
///
/// # Errors
/// When the filter cannot be read, or logs go somewhere else already.
pub fn install(config: &LogConfig) -> Result<(), String> {
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match config.format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(config.parse()?))
        .try_init()
        .map_err(|error| format!("logs are installed already: {error}"))?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        if !panicking_in_task(place.clone()) {
            tracing::error!(at = place, reason = panic_message(panic.payload()), "panic");
        }
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_refused_by_name() {
        let config = LogConfig { filter: "hearsay=loud".to_owned(), ..LogConfig::default() };
        let error = config.validate().unwrap_err();
        assert!(error.starts_with(r#"log.filter "hearsay=loud""#), "{error}");
        LogConfig::default().validate().unwrap();
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(serde_json::from_str::<LogConfig>(r#"{"level":"info"}"#).is_err());
        let read: LogConfig = serde_json::from_str(r#"{"format":"json"}"#).unwrap();
        assert_eq!(read.format, LogFormat::Json);
    }
}
