//! What was sent to others because of a conversation, or is to be: one errand's word on itself, and the history that REST
//! shows of it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Attempts that are remembered, the latest.
const ATTEMPTS: usize = 10;
/// Characters of an attempt's answer that are remembered.
const ANSWER: usize = 300;

/// One message to one receiver. Times are µs since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sending {
    /// What happened: the key by which receivers tell repetitions.
    pub event: Uuid,
    /// What kind of thing happened, for instance `insight.created`.
    pub kind: String,
    pub way: Way,
    /// The rule, by its name.
    pub rule: String,
    /// Of a webhook its server, of a mail its receiver's address.
    pub to: String,
    pub put_us: u64,
    pub state: SendingState,
    /// The earliest next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_us: Option<u64>,
    /// All that were made.
    #[serde(default)]
    pub attempts: u32,
    /// The latest of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latest: Vec<Attempt>,
    /// What is sent; dropped when that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    Webhook,
    Mail,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Mail => "mail",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendingState {
    Waiting,
    Delivered,
    /// Nothing more is tried.
    GivenUp,
}

impl SendingState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::GivenUp => "given_up",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub at_us: u64,
    pub took_ms: u64,
    /// What the receiver answered, as a code of its protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Its words, or why there was no answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
}

impl Sending {
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings and numbers: nothing here can fail to be JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// None: it is something else, or of a later version.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// It was tried once more, and stands like this now.
    pub fn tried(&mut self, mut attempt: Attempt, state: SendingState, next_us: Option<u64>) {
        let answer: String =
            attempt.answer.chars().take(ANSWER).map(|c| if c.is_control() { ' ' } else { c }).collect();
        attempt.answer = answer.trim().to_owned();
        self.attempts = self.attempts.saturating_add(1);
        if self.latest.len() >= ATTEMPTS {
            self.latest.remove(0);
        }
        self.latest.push(attempt);
        self.state = state;
        self.next_us = next_us.filter(|_| state == SendingState::Waiting);
        if state != SendingState::Waiting {
            self.body = None;
        }
    }

    /// The receiver as it is shown to those who may read the conversation: of an address only who gave it knows all.
    pub fn shown_to(&self) -> String {
        match (self.way, self.to.rsplit_once('@')) {
            (Way::Mail, Some((name, domain))) => {
                let first: String = name.chars().take(1).collect();
                format!("{first}***@{domain}")
            }
            (Way::Mail, None) => "***".to_owned(),
            (Way::Webhook, _) => self.to.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sending() -> Sending {
        Sending {
            event: Uuid::from_u128(1),
            kind: "insight.created".to_owned(),
            way: Way::Mail,
            rule: "minutes".to_owned(),
            to: "anna@example.com".to_owned(),
            put_us: 1,
            state: SendingState::Waiting,
            next_us: None,
            attempts: 0,
            latest: Vec::new(),
            body: Some("body".to_owned()),
        }
    }

    #[test]
    fn the_latest_attempts_are_remembered_and_no_more() {
        let mut it = sending();
        for n in 0..25 {
            let answer = format!("{}\r\n{n}", "é".repeat(500));
            let attempt = Attempt { at_us: n, took_ms: 1, status: Some(500), answer };
            it.tried(attempt, SendingState::Waiting, Some(n + 1));
        }
        assert_eq!((it.attempts, it.latest.len(), it.latest[0].at_us, it.next_us), (25, 10, 15, Some(25)));
        assert_eq!(it.latest[0].answer.chars().count(), 300);
        assert!(it.body.is_some());
        let attempt = Attempt { at_us: 99, took_ms: 1, status: Some(200), answer: "a\u{7}b\n".to_owned() };
        it.tried(attempt, SendingState::Delivered, Some(100));
        assert_eq!((it.body.as_ref(), it.next_us, it.latest[9].answer.as_str()), (None, None, "a b"));
        assert_eq!(Sending::parse(&it.to_bytes()), Some(it));
        assert_eq!(Sending::parse(b"123"), None);
    }

    #[test]
    fn addresses_are_not_shown_whole() {
        let mut it = sending();
        assert_eq!(it.shown_to(), "a***@example.com");
        it.to = "nobody".to_owned();
        assert_eq!(it.shown_to(), "***");
        (it.way, it.to) = (Way::Webhook, "https://example.com".to_owned());
        assert_eq!(it.shown_to(), "https://example.com");
    }
}
