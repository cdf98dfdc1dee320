//! The rules, and how they are carried out. Defaults live here and nowhere else.

use std::{collections::HashSet, num::NonZeroUsize, path::PathBuf};

use hearsay_runtime::HumanDuration;
use http::Uri;
use ipnet::IpNet;
use lettre::{Address, message::Mailbox};
use serde::{Deserialize, Serialize};

/// Rules, each kind of them.
const MAX_RULES: usize = 64;
/// Receivers that one rule names.
const MAX_RECEIVERS: usize = 50;

/// What is to be done, and how it is tried. Off without rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Sendings at once, half of them for one rule.
    pub in_flight: NonZeroUsize,
    /// Conversations that one process follows at once.
    pub conversations: NonZeroUsize,
    /// Errands on the list of all processes, one a live conversation and one a message not delivered; with more, nothing new is put until some are done, and the log waits.
    pub listed: usize,
    /// Sendings of one conversation; what more its insights ask for is left out, and counted.
    pub per_conversation: usize,
    /// From the end of a conversation, or its last insight after that, to what is sent because of the end.
    pub settle: HumanDuration,
    /// For one attempt, all of it.
    pub timeout: HumanDuration,
    /// The pause after the first attempt that failed; doubles up to the longest.
    pub retry_first: HumanDuration,
    pub retry_longest: HumanDuration,
    /// After this nothing more is tried.
    pub give_up: HumanDuration,
    /// Networks that webhooks may be sent to although they are not public, for instance `10.1.0.0/16`.
    pub allow: Vec<IpNet>,
    /// PEM file of whom to trust behind https URLs; whom this machine trusts when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// How mails leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp: Option<Smtp>,
    pub webhooks: Vec<Webhook>,
    pub mails: Vec<Mail>,
}

impl Default for Config {
    fn default() -> Self {
        const HOUR: u64 = 3_600;
        Self {
            in_flight: const { NonZeroUsize::new(16).expect("not zero") },
            conversations: const { NonZeroUsize::new(2_000).expect("not zero") },
            listed: 200_000,
            per_conversation: 2_000,
            settle: HumanDuration::from_secs(5),
            timeout: HumanDuration::from_secs(15),
            retry_first: HumanDuration::from_secs(5),
            retry_longest: HumanDuration::from_secs(HOUR),
            give_up: HumanDuration::from_secs(3 * 24 * HOUR),
            allow: Vec::new(),
            ca: None,
            smtp: None,
            webhooks: Vec::new(),
            mails: Vec::new(),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    Question,
    ActionItem,
    FollowUp,
    Topic,
    Tracker,
    Entity,
    /// The conversation is over.
    Ended,
}

impl On {
    /// By the name of an insight's kind.
    pub(crate) fn insight(name: &str) -> Option<Self> {
        Some(match name {
            "question" => Self::Question,
            "action_item" => Self::ActionItem,
            "follow_up" => Self::FollowUp,
            "topic" => Self::Topic,
            "tracker" => Self::Tracker,
            "entity" => Self::Entity,
            _ => return None,
        })
    }
}

/// A request to somebody's server for each thing that happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// What histories call it: letters, digits, `-` and `_`.
    pub name: String,
    /// `https` or `http`. May be a secret by itself.
    #[serde(serialize_with = "server_only")]
    pub url: String,
    /// One `whsec_…` a line; a request carries a signature by each.
    pub secret_file: PathBuf,
    pub on: Vec<On>,
    /// Insights below are left out, 0 to 1.
    #[serde(default)]
    pub min_confidence: f32,
    /// All accounts when empty.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// Meetings by their ids, a `*` at the end standing for anything; all when empty.
    #[serde(default)]
    pub meetings: Vec<String>,
}

/// A mail when a conversation is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    pub name: String,
    /// Addresses.
    #[serde(default)]
    pub to: Vec<String>,
    /// Participants too, as far as they gave an address of one of these domains.
    #[serde(default)]
    pub participants_of: Vec<String>,
    #[serde(default)]
    pub accounts: Vec<String>,
    #[serde(default)]
    pub meetings: Vec<String>,
}

/// The server that takes mails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    pub host: String,
    /// 587, 465 or 25 by kind of TLS, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default)]
    pub tls: SmtpTls,
    /// `hearsay@example.com` or `Minutes <hearsay@example.com>`.
    pub from: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// PEM file of whom to trust; whom this machine trusts when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SmtpTls {
    /// Asked for in the open, and required.
    #[default]
    Starttls,
    /// From the first byte.
    Implicit,
    /// For a relay on the same machine.
    None,
}

fn server_only<S: serde::Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&server(url))
}

/// A URL's scheme and authority: what may be shown of it.
pub(crate) fn server(url: &str) -> String {
    let Ok(uri) = url.parse::<Uri>() else { return "***".to_owned() };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let authority = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
    format!("{}://{authority}", uri.scheme_str().unwrap_or_default())
}

impl Config {
    /// There is something to do.
    pub fn is_configured(&self) -> bool {
        !(self.webhooks.is_empty() && self.mails.is_empty())
    }

    /// # Errors
    /// Says which key is wrong, and what would be right.
    pub fn validate(&self) -> Result<(), String> {
        let mut names = HashSet::new();
        for (list, rules) in [
            ("webhooks", self.webhooks.iter().map(|rule| &rule.name).collect::<Vec<_>>()),
            ("mails", self.mails.iter().map(|rule| &rule.name).collect()),
        ] {
            if rules.len() > MAX_RULES {
                return Err(format!("actions.{list} has {} rules; at most {MAX_RULES} are accepted", rules.len()));
            }
            for name in rules {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
                if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
                    return Err(format!(
                        "actions.{list}: name is {name:?}; 1 to 64 letters, digits, - and _ are accepted"
                    ));
                }
                if !names.insert(name) {
                    return Err(format!("actions: two rules have the name {name:?}; each needs its own"));
                }
            }
        }
        self.webhooks.iter().try_for_each(|rule| {
            rule.validate().map_err(|error| format!("actions.webhooks, {:?}: {error}", rule.name))
        })?;
        self.mails
            .iter()
            .try_for_each(|rule| rule.validate().map_err(|error| format!("actions.mails, {:?}: {error}", rule.name)))?;
        match &self.smtp {
            Some(smtp) => smtp.validate().map_err(|error| format!("actions.smtp.{error}"))?,
            None if !self.mails.is_empty() => {
                return Err("actions.mails need actions.smtp, with at least host and from".to_owned());
            }
            None => {}
        }
        for (name, time) in [
            ("timeout", self.timeout),
            ("retry_first", self.retry_first),
            ("retry_longest", self.retry_longest),
            ("give_up", self.give_up),
        ] {
            if time.get().is_zero() {
                return Err(format!("actions.{name} must be longer than nothing"));
            }
        }
        if self.retry_first > self.retry_longest {
            return Err(format!(
                "actions.retry_first ({}) must not exceed actions.retry_longest ({})",
                self.retry_first, self.retry_longest
            ));
        }
        // The entries become a record a minute after the end, and the end is seen at once.
        let longest = HumanDuration::from_secs(30);
        if self.settle > longest {
            return Err(format!("actions.settle ({}) must not exceed {longest}", self.settle));
        }
        for (name, count) in [("listed", self.listed), ("per_conversation", self.per_conversation)] {
            if count == 0 {
                return Err(format!("actions.{name} must be at least 1"));
            }
        }
        Ok(())
    }
}

impl Webhook {
    fn validate(&self) -> Result<(), String> {
        let invalid = || "url is not one; https://HOST[:PORT]/PATH is accepted".to_owned();
        let uri: Uri = self.url.parse().map_err(|_| invalid())?;
        if !matches!(uri.scheme_str(), Some("https" | "http")) || uri.host().is_none_or(str::is_empty) {
            return Err(invalid());
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("url has a user name; receivers know us by our signature".to_owned());
        }
        if self.on.is_empty() {
            return Err("on is empty; question, action_item, follow_up, topic, tracker, entity and ended are accepted"
                .to_owned());
        }
        if !(0.0..=1.0).contains(&self.min_confidence) {
            return Err(format!("min_confidence is {}; 0 to 1 are accepted", self.min_confidence));
        }
        Ok(())
    }
}

impl Mail {
    fn validate(&self) -> Result<(), String> {
        if self.to.is_empty() && self.participants_of.is_empty() {
            return Err("neither to nor participants_of names anybody".to_owned());
        }
        if self.to.len() > MAX_RECEIVERS {
            return Err(format!("to has {} addresses; at most {MAX_RECEIVERS} are accepted", self.to.len()));
        }
        for address in &self.to {
            address.parse::<Address>().map_err(|error| format!("to has {address:?}: {error}"))?;
        }
        for domain in &self.participants_of {
            if format!("x@{domain}").parse::<Address>().is_err() {
                return Err(format!("participants_of has {domain:?}; domains such as example.com are accepted"));
            }
        }
        Ok(())
    }
}

impl Smtp {
    fn validate(&self) -> Result<(), String> {
        if self.host.is_empty() {
            return Err("host is empty".to_owned());
        }
        self.mailbox()?;
        match (&self.username, &self.password_file) {
            (Some(_), None) | (None, Some(_)) => Err("username and password_file go together".to_owned()),
            (Some(_), Some(_)) if self.tls == SmtpTls::None => {
                Err("tls is none, and a password is not sent in the open; starttls and implicit are accepted"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn mailbox(&self) -> Result<Mailbox, String> {
        self.from.parse().map_err(|error| format!("from is {:?}: {error}", self.from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Webhook {
        Webhook {
            name: "crm".to_owned(),
            url: "https://example.com/hook?key=1".to_owned(),
            secret_file: "secret".into(),
            on: vec![On::Ended],
            min_confidence: 0.5,
            accounts: Vec::new(),
            meetings: Vec::new(),
        }
    }

    fn with(change: impl FnOnce(&mut Config)) -> Result<(), String> {
        let mut config = Config { webhooks: vec![rule()], ..Config::default() };
        config.mails.push(Mail {
            name: "minutes".to_owned(),
            to: vec!["a@example.com".to_owned()],
            participants_of: vec!["example.com".to_owned()],
            accounts: Vec::new(),
            meetings: Vec::new(),
        });
        config.smtp = Some(Smtp {
            host: "mail.example.com".to_owned(),
            port: None,
            tls: SmtpTls::Starttls,
            from: "Minutes <hearsay@example.com>".to_owned(),
            username: None,
            password_file: None,
            ca: None,
        });
        change(&mut config);
        config.validate()
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(Config::default().validate(), Ok(()));
        assert!(!Config::default().is_configured());
        let wrong = |change: fn(&mut Config), named: &str| {
            let error = with(change).unwrap_err();
            assert!(error.contains(named), "{error}");
        };
        wrong(|it| it.webhooks[0].url = "ftp://example.com".to_owned(), "\"crm\": url is not one");
        wrong(|it| it.webhooks[0].url = "https:///x".to_owned(), "url is not one");
        wrong(|it| it.webhooks[0].url = "https://a:b@example.com/".to_owned(), "url has a user name");
        wrong(|it| it.webhooks[0].on.clear(), "on is empty; question");
        wrong(|it| it.webhooks[0].min_confidence = f32::NAN, "min_confidence is NaN");
        wrong(|it| it.webhooks[0].name = "a b".to_owned(), "name is \"a b\"");
        wrong(|it| it.webhooks[0].name = "minutes".to_owned(), "two rules have the name \"minutes\"");
        wrong(|it| it.webhooks = vec![rule(); 65], "has 65 rules");
        wrong(|it| it.mails[0].to.push("nobody".to_owned()), "to has \"nobody\"");
        wrong(|it| it.mails[0].participants_of.push("a b".to_owned()), "participants_of has \"a b\"");
        wrong(|it| it.smtp = None, "actions.mails need actions.smtp");
        let smtp = |it: &mut Config, change: fn(&mut Smtp)| it.smtp.as_mut().map(change).unwrap();
        let error = with(|it| smtp(it, |smtp| smtp.from = "nobody".to_owned())).unwrap_err();
        assert!(error.starts_with("actions.smtp.from is \"nobody\""), "{error}");
        let error = with(|it| {
            smtp(it, |smtp| {
                (smtp.username, smtp.password_file) = (Some("a".to_owned()), Some("b".into()));
                smtp.tls = SmtpTls::None;
            });
        });
        assert!(error.unwrap_err().contains("in the open"));
        wrong(|it| it.settle = HumanDuration::from_secs(31), "actions.settle (31s)");
        wrong(|it| it.retry_first = HumanDuration::from_secs(3_601), "actions.retry_first");
        wrong(|it| it.timeout = HumanDuration::from_secs(0), "actions.timeout");
        wrong(|it| it.listed = 0, "actions.listed");
    }

    #[test]
    fn of_a_url_only_the_server_is_shown() {
        assert_eq!(server("https://hooks.example.com:8443/T0/secret?key=1"), "https://hooks.example.com:8443");
        assert_eq!(server("https://a:b@hooks.example.com/"), "https://hooks.example.com");
        assert_eq!(server("not a url"), "***");
        assert!(!serde_json::to_string(&rule()).unwrap().contains("key=1"));
    }
}
