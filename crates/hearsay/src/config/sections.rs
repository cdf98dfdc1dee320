//! The sections that no other crate owns.

use std::{net::SocketAddr, path::PathBuf};

use hearsay_auth::Secret;
use hearsay_bus::{Limits, redis::RedisConfig};
use hearsay_runtime::HumanDuration;
use serde::{Deserialize, Serialize};

/// The `[auth]` section: who gets tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AuthConfig {
    /// The account that the app speaks for.
    pub(crate) account: String,
    /// Credentials of the one app; `dev` makes random ones per start when they are absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app_secret: Option<Secret>,
    /// Signs tokens, at least 32 bytes; random per start when absent, so that tokens end with the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signing_secret: Option<Secret>,
    pub(crate) token_lifetime: HumanDuration,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            account: "dev".to_owned(),
            app_id: None,
            app_secret: None,
            signing_secret: None,
            token_lifetime: HumanDuration::from_secs(24 * 3_600),
        }
    }
}

impl AuthConfig {
    pub(super) fn validate(&self) -> Result<(), String> {
        hearsay_protocol::AccountId::new(&self.account).map_err(|error| format!("auth.account: {error}"))?;
        match (&self.app_id, &self.app_secret) {
            (Some(id), Some(secret)) => {
                hearsay_auth::App::new(id.clone(), secret.clone()).map_err(|error| format!("auth: {error}"))?;
            }
            (None, None) => {}
            _ => return Err("auth.app_id and auth.app_secret go together".to_owned()),
        }
        if let Some(secret) = &self.signing_secret {
            hearsay_auth::Keys::new(secret.expose().as_bytes())
                .map_err(|error| format!("auth.signing_secret: {error}"))?;
        }
        // Clients renew a token 60 to 300 s before its end: a shorter life would have them do nothing else.
        if self.token_lifetime.get().as_secs() < 600 {
            return Err("auth.token_lifetime must be at least 10m: clients renew tokens 5m before their end".to_owned());
        }
        Ok(())
    }
}

/// The `[bus]` section: where the conversation log is, its times and sizes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BusConfig {
    /// Redis or Valkey that holds the log; absent: the memory of this process, which `dev` alone can do with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<RedisUrl>,
    /// How long a starting process tries to reach the log.
    pub(crate) connect: HumanDuration,
    /// Life of a gateway's lease without renewal.
    pub(crate) gateway_lease: HumanDuration,
    /// Life of the analyst's and of actions' lease without renewal.
    pub(crate) publisher_lease: HumanDuration,
    /// Shortest time a conversation waits for a lost last speaker.
    pub(crate) rejoin_grace: HumanDuration,
    /// A conversation in which nobody says anything ends after this.
    pub(crate) silence: HumanDuration,
    /// How long an end waits for a live analyst to have read everything.
    pub(crate) analyst_grace: HumanDuration,
    /// From the end to the moment the entries may become one record.
    pub(crate) compact_after: HumanDuration,
    /// From the end to the moment the entries are dropped.
    pub(crate) log_retention: HumanDuration,
    /// From the end to the moment the record is dropped.
    pub(crate) record_retention: HumanDuration,
    /// Entries of one conversation.
    pub(crate) max_entries: usize,
    /// Conversations held at once.
    pub(crate) max_conversations: usize,
    /// Deliveries that wait for one subscriber.
    pub(crate) subscription_capacity: usize,
    /// There are rules for automated actions.
    #[serde(skip)]
    pub(crate) followed: bool,
}

impl Default for BusConfig {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            url: None,
            connect: HumanDuration::from_secs(30),
            gateway_lease: limits.gateway_lease.into(),
            publisher_lease: limits.publisher_lease.into(),
            rejoin_grace: limits.rejoin_grace.into(),
            silence: limits.silence.into(),
            analyst_grace: limits.analyst_grace.into(),
            compact_after: limits.compact_after.into(),
            log_retention: limits.log_retention.into(),
            record_retention: limits.record_retention.into(),
            max_entries: limits.max_entries,
            max_conversations: limits.max_conversations,
            subscription_capacity: limits.subscription_capacity,
            followed: limits.followed,
        }
    }
}

impl BusConfig {
    pub(super) fn validate(&self) -> Result<(), String> {
        if let Some(url) = &self.url {
            url.parse().map_err(|error| format!("bus.url: {error}"))?;
        }
        let ordered = [
            ("bus.publisher_lease", self.publisher_lease, "bus.gateway_lease", self.gateway_lease),
            ("bus.gateway_lease", self.gateway_lease, "bus.rejoin_grace", self.rejoin_grace),
            ("bus.rejoin_grace", self.rejoin_grace, "bus.silence", self.silence),
            ("bus.compact_after", self.compact_after, "bus.log_retention", self.log_retention),
            ("bus.log_retention", self.log_retention, "bus.record_retention", self.record_retention),
        ];
        for (shorter, short, longer, long) in ordered {
            if short > long {
                return Err(format!("{shorter} ({short}) must not exceed {longer} ({long})"));
            }
        }
        for (name, size) in [
            ("bus.max_entries", self.max_entries),
            ("bus.max_conversations", self.max_conversations),
            ("bus.subscription_capacity", self.subscription_capacity),
        ] {
            if size == 0 {
                return Err(format!("{name} must be at least 1"));
            }
        }
        Ok(())
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            gateway_lease: self.gateway_lease.get(),
            publisher_lease: self.publisher_lease.get(),
            rejoin_grace: self.rejoin_grace.get(),
            silence: self.silence.get(),
            analyst_grace: self.analyst_grace.get(),
            compact_after: self.compact_after.get(),
            log_retention: self.log_retention.get(),
            record_retention: self.record_retention.get(),
            max_entries: self.max_entries,
            max_conversations: self.max_conversations,
            subscription_capacity: self.subscription_capacity,
            followed: self.followed,
        }
    }
}

/// Where the log is, password included; shown without it.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct RedisUrl(String);

impl RedisUrl {
    pub(crate) fn parse(&self) -> Result<RedisConfig, String> {
        RedisConfig::parse(&self.0).map_err(|error| error.to_string())
    }

    /// With stars for user and password.
    fn shown(&self) -> String {
        match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://***@{rest}"),
            _ => self.0.clone(),
        }
    }
}

impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

/// The `[admin]` section: what operators ask a gateway or recognizer. `dev` answers on its one port.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AdminConfig {
    /// Where `/healthz`, `/readyz` and `/metrics` are served. Port 0 takes a free one.
    pub(crate) listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9090)) }
    }
}

/// The `[models]` section.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ModelsConfig {
    /// Folder that models are kept in; absent: `HEARSAY_CACHE`, else `hearsay` in the user's cache folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache: Option<PathBuf>,
}

/// The `[process]` section.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ProcessConfig {
    /// How long a drain may take, from the first signal to the end. Below a pod's grace period.
    pub(crate) drain_deadline: HumanDuration,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self { drain_deadline: HumanDuration::from_secs(25) }
    }
}
