//! The configuration: typed, checked as a whole before any port is bound. Sections belong to the crates they configure,
//! and so do their defaults. A file, then the environment, then flags: the later wins, and each is checked by itself, so
//! that an error names where it comes from.

mod sections;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::cli::Sources;

pub(crate) use sections::{AdminConfig, AuthConfig, BusConfig, ModelsConfig, ProcessConfig};

/// Environment variables that configure: `HEARSAY__SECTION__KEY`.
const PREFIX: &str = "HEARSAY__";

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) log: hearsay_runtime::LogConfig,
    pub(crate) trace: hearsay_runtime::TraceConfig,
    pub(crate) admin: AdminConfig,
    pub(crate) auth: AuthConfig,
    pub(crate) bus: BusConfig,
    pub(crate) models: ModelsConfig,
    pub(crate) process: ProcessConfig,
    pub(crate) gateway: hearsay_gateway::Config,
    pub(crate) fanout: hearsay_fanout::FanoutConfig,
    pub(crate) uplink: hearsay_uplink::Config,
    pub(crate) actions: hearsay_actions::Config,
    #[cfg(feature = "recognizer")]
    pub(crate) recognizer: hearsay_recognizer::Config,
    /// Of other processes: one file may configure all of them.
    #[cfg(not(feature = "recognizer"))]
    pub(crate) recognizer: Table,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("configuration file {}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{origin}: {}", error.trim_end())]
    Invalid { origin: String, error: String },
    #[error("configuration: {0}")]
    Contradiction(String),
}

/// What flags say, as configuration.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    layers: Vec<(String, Table)>,
}

impl Flags {
    /// `flag` stands for `section.key`, when it was given.
    pub(crate) fn with(mut self, flag: &str, section: &str, key: &str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            self.layers.push((flag.to_owned(), nested(&[section, key], value.into())));
        }
        self
    }
}

/// # Errors
/// [`ConfigError`], naming the file, variable or flag at fault.
pub(crate) fn load(sources: &Sources, flags: Flags) -> Result<Config, ConfigError> {
    // What is not text cannot be one of ours, names and values both.
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    load_from(sources.config.as_deref(), environment, flags)
}

fn load_from(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    flags: Flags,
) -> Result<Config, ConfigError> {
    let mut merged = Table::new();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        let origin = path.display().to_string();
        // Read twice: this error shows the line.
        let invalid =
            |error: toml::de::Error| ConfigError::Invalid { origin: origin.clone(), error: error.to_string() };
        toml::from_str::<Config>(&text).map_err(invalid)?;
        merge(&mut merged, toml::from_str(&text).map_err(invalid)?);
    }
    let defaults = defaults()?;
    let mut variables: Vec<_> = environment.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort_unstable();
    let variables = variables.into_iter().map(|(name, text)| {
        let path = name[PREFIX.len()..].to_lowercase();
        let path: Vec<_> = path.split("__").collect();
        let value = value(text, lookup(&defaults, &path));
        let layer = nested(&path, value);
        (name, layer)
    });
    let mut incomplete = None;
    for (origin, layer) in variables.chain(flags.layers) {
        match check(&origin, &layer) {
            // Others may bring what one of them leaves out.
            Err(ConfigError::Invalid { error, .. }) if error.starts_with("missing field") => {
                incomplete.get_or_insert(ConfigError::Invalid { origin, error });
            }
            checked => drop(checked?),
        }
        merge(&mut merged, layer);
    }
    let mut config = check("configuration", &merged).map_err(|error| incomplete.unwrap_or(error))?;
    config.validate().map_err(ConfigError::Contradiction)?;
    config.bus.followed = config.actions.is_configured();
    config.gateway.drain_budget = Some(config.drain_budget());
    Ok(config)
}

impl Config {
    /// Checks what one section cannot check alone, after each has checked itself.
    fn validate(&self) -> Result<(), String> {
        self.log.validate()?;
        self.trace.validate()?;
        self.auth.validate()?;
        self.bus.validate()?;
        self.gateway.validate()?;
        self.fanout.validate().map_err(|error| error.to_string())?;
        self.uplink.validate()?;
        self.actions.validate()?;
        if self.actions.is_configured() && self.actions.give_up.get() >= self.bus.record_retention.get() {
            return Err(format!(
                "actions.give_up ({}) must be below bus.record_retention ({}), or what is to be sent is forgotten before",
                self.actions.give_up, self.bus.record_retention
            ));
        }
        #[cfg(feature = "recognizer")]
        self.validate_recognizer()?;
        let (spread, deadline) = (self.gateway.drain_spread, self.process.drain_deadline);
        let hold = self.gateway.resume_hold;
        if spread.get() + hold.get() + self.gateway.flush.get() > deadline.get() {
            return Err(format!(
                "process.drain_deadline ({deadline}) must leave time for gateway.drain_spread ({spread}), \
                 gateway.resume_hold ({hold}) and gateway.flush ({})",
                self.gateway.flush
            ));
        }
        if hold.get() >= self.bus.rejoin_grace.get() {
            return Err(format!(
                "gateway.resume_hold ({hold}) must be below bus.rejoin_grace ({}), or what was heard is lost with its \
                 conversation",
                self.bus.rejoin_grace
            ));
        }
        if self.gateway.resume_renewal.get() < self.bus.rejoin_grace.get() {
            return Err(format!(
                "gateway.resume_renewal ({}) must be at least bus.rejoin_grace ({}), or tokens expire before the wait \
                 for their client does",
                self.gateway.resume_renewal, self.bus.rejoin_grace
            ));
        }
        Ok(())
    }

    #[cfg(feature = "recognizer")]
    fn validate_recognizer(&self) -> Result<(), String> {
        self.recognizer.validate()?;
        let (handover, whole) = (self.recognizer.handover, self.process.drain_deadline);
        if handover.get() >= whole.get() {
            return Err(format!(
                "process.drain_deadline ({whole}) must be above recognizer.handover ({handover}), or streams are cut \
                 before they are handed over"
            ));
        }
        Ok(())
    }

    /// What a drain leaves for closing sockets.
    fn drain_budget(&self) -> Duration {
        let after = self.gateway.resume_hold.get() + self.gateway.flush.get();
        self.process.drain_deadline.get().saturating_sub(after)
    }

    /// As a file would say it; secrets are hidden.
    pub(crate) fn to_toml(&self) -> anyhow::Result<String> {
        Ok(toml::to_string(self)?)
    }
}

fn defaults() -> Result<Table, ConfigError> {
    Table::try_from(Config::default())
        .map_err(|error| ConfigError::Invalid { origin: "defaults".to_owned(), error: error.to_string() })
}

fn check(origin: &str, layer: &Table) -> Result<Config, ConfigError> {
    let invalid =
        |error: toml::de::Error| ConfigError::Invalid { origin: origin.to_owned(), error: error.message().to_owned() };
    Config::deserialize(Value::Table(layer.clone())).map_err(invalid)
}

fn nested(path: &[&str], value: Value) -> Table {
    let innermost = path.iter().rev().fold(value, |value, key| {
        let mut table = Table::new();
        table.insert((*key).to_owned(), value);
        Value::Table(table)
    });
    match innermost {
        Value::Table(table) => table,
        _ => Table::new(),
    }
}

fn lookup<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let value = table.get(*first)?;
    if rest.is_empty() { Some(value) } else { lookup(value.as_table()?, rest) }
}

/// The environment has only text. Where the default is text, or has none, it stays text; elsewhere it is read as in a file.
fn value(text: String, default: Option<&Value>) -> Value {
    match default {
        None | Some(Value::String(_)) => Value::String(text),
        Some(_) => {
            let read =
                toml::from_str::<Table>(&format!("value = {text}")).ok().and_then(|mut table| table.remove("value"));
            read.unwrap_or(Value::String(text))
        }
    }
}

fn merge(into: &mut Table, layer: Table) {
    for (key, value) in layer {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_with(file: Option<&str>, environment: &[(&str, &str)], flags: Flags) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hearsay.toml");
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
        }
        let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        load_from(file.map(|_| path.as_path()), environment, flags).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let file = "[log]\nfilter = \"file\"\nformat = \"json\"\n[bus]\nmax_entries = 1000\nrejoin_grace = \"20s\"";
        let environment =
            [("HEARSAY__LOG__FILTER", "environment"), ("HEARSAY__BUS__MAX_ENTRIES", "2000"), ("PATH", "/")];
        let flags = Flags::default().with("--filter", "log", "filter", Some("debug"));
        let config = load_with(Some(file), &environment, flags).unwrap();
        assert_eq!(config.log.filter, "debug");
        assert_eq!(config.log.format, hearsay_runtime::LogFormat::Json);
        assert_eq!(config.bus.max_entries, 2_000);
        assert_eq!(config.bus.rejoin_grace, hearsay_runtime::HumanDuration::from_secs(20));
    }

    #[test]
    fn unknown_keys_name_where_they_come_from() {
        let error = load_with(Some("[log]\nlevel = \"info\""), &[], Flags::default()).unwrap_err();
        assert!(error.contains("hearsay.toml") && error.contains("line 2") && error.contains("`level`"), "{error}");
        let error = load_with(None, &[("HEARSAY__LOG__LEVEL", "x")], Flags::default()).unwrap_err();
        assert!(error.starts_with("HEARSAY__LOG__LEVEL: unknown field `level`"), "{error}");
        let error = load_with(None, &[("HEARSAY__LGO__FILTER", "x")], Flags::default()).unwrap_err();
        assert!(error.starts_with("HEARSAY__LGO__FILTER: unknown field `lgo`"), "{error}");
    }

    #[test]
    fn wrong_values_say_what_would_be_right() {
        let error = load_with(None, &[("HEARSAY__BUS__REJOIN_GRACE", "twenty")], Flags::default()).unwrap_err();
        assert_eq!(
            error,
            r#"HEARSAY__BUS__REJOIN_GRACE: "twenty" is not a duration such as "20s", "250ms" or "1m 30s""#
        );
        let error = load_with(None, &[("HEARSAY__LOG__FORMAT", "xml")], Flags::default()).unwrap_err();
        assert!(error.contains("`human` or `json`"), "{error}");
        let error = load_with(None, &[("HEARSAY__BUS__MAX_ENTRIES", "many")], Flags::default()).unwrap_err();
        assert!(error.starts_with("HEARSAY__BUS__MAX_ENTRIES: invalid type: string \"many\""), "{error}");
    }

    #[test]
    fn variables_may_make_up_a_section_together() {
        let certificate = ("HEARSAY__RECOGNIZER__TLS__CERTIFICATE", "a.pem");
        let both = [certificate, ("HEARSAY__RECOGNIZER__TLS__KEY", "b.pem")];
        let tls = load_with(None, &both, Flags::default()).unwrap().recognizer.tls.unwrap();
        assert_eq!((tls.certificate, tls.key), (PathBuf::from("a.pem"), PathBuf::from("b.pem")));
        let error = load_with(None, &[certificate], Flags::default()).unwrap_err();
        assert_eq!(error, "HEARSAY__RECOGNIZER__TLS__CERTIFICATE: missing field `key`");
    }

    #[test]
    fn relations_are_checked() {
        let error = load_with(Some("[bus]\nlog_retention = \"30d\""), &[], Flags::default()).unwrap_err();
        assert!(error.starts_with("configuration: bus.log_retention"), "{error}");
    }

    #[test]
    fn rules_are_read_from_files_and_variables() {
        let rule = r#"[{ name = "crm", url = "https://example.com/h?k=1", secret_file = "s", on = ["ended"] }]"#;
        let config = load_with(None, &[("HEARSAY__ACTIONS__WEBHOOKS", rule)], Flags::default()).unwrap();
        assert!(config.bus.followed && config.actions.webhooks[0].url.ends_with("k=1"));
        assert!(!config.to_toml().unwrap().contains("k=1"));
        assert!(!load_with(None, &[], Flags::default()).unwrap().bus.followed);
        let wrong = "[[actions.webhooks]]\nname = \"a\"\nurl = \"https://x\"\nsecret_file = \"s\"\non = [\"end\"]";
        let error = load_with(Some(wrong), &[], Flags::default()).unwrap_err();
        assert!(
            error.contains("line 5") && error.contains("unknown variant `end`") && error.contains("`ended`"),
            "{error}"
        );
        let long = [("HEARSAY__ACTIONS__WEBHOOKS", rule), ("HEARSAY__ACTIONS__GIVE_UP", "7d")];
        let error = load_with(None, &long, Flags::default()).unwrap_err();
        assert!(
            error.starts_with("configuration: actions.give_up (7days) must be below bus.record_retention"),
            "{error}"
        );
    }

    #[test]
    fn the_effective_configuration_can_be_read_again_and_keeps_secrets() {
        let secret = "s".repeat(40);
        let environment = [
            ("HEARSAY__AUTH__APP_ID", "123"),
            ("HEARSAY__AUTH__APP_SECRET", "hidden"),
            ("HEARSAY__AUTH__SIGNING_SECRET", secret.as_str()),
        ];
        let config = load_with(None, &environment, Flags::default()).unwrap();
        assert_eq!(config.auth.app_id.as_deref(), Some("123"), "digits stay text");
        let text = config.to_toml().unwrap();
        assert!(!text.contains("hidden") && !text.contains(&secret), "{text}");
        toml::from_str::<Config>(&text).unwrap();
    }

    #[test]
    fn the_password_of_the_log_is_not_shown() {
        let url = [("HEARSAY__BUS__URL", "rediss://ops:p%40ss@redis.example:6380/2")];
        let config = load_with(None, &url, Flags::default()).unwrap();
        let text = config.to_toml().unwrap();
        assert!(text.contains("rediss://***@redis.example:6380/2") && !format!("{text}{config:?}").contains("p%40ss"));
        assert_eq!(config.bus.url.unwrap().parse().unwrap().password.as_deref(), Some("p@ss"));
        let error = load_with(None, &[("HEARSAY__BUS__URL", "http://:secret@x")], Flags::default()).unwrap_err();
        assert!(error.starts_with("configuration: bus.url: Redis URL: scheme") && !error.contains("secret"), "{error}");
    }
}
