//! What a gateway can be told. Defaults live here and nowhere else.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use hearsay_protocol::{
    client::{MAX_TRACKER_PHRASES, MAX_TRACKERS},
    event::Tracker,
};
use hearsay_runtime::HumanDuration;

use crate::{origin, summarizer::SummaryConfig, tls::TlsFiles};

/// How clients are served.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where clients connect. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificate and key: the port then speaks TLS, to everybody. Absent: it does not, and a proxy in front may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    /// Origins whose web pages may use this gateway; `"*"` is every one, and safe, because tokens are not ambient. Pages of
    /// this host, and what is no browser, always may.
    pub origins: Vec<String>,
    /// Connections at once, sockets and requests together. More are refused with 503. Each takes a file descriptor and,
    /// for a speaker, up to 3 MB of audio that the log does not cover yet.
    pub connections: NonZeroUsize,
    /// How long a connection may take to send a complete request, the first and each next one: slow handshakes and idle
    /// connections are cut here.
    pub handshake: HumanDuration,
    /// How long a refusal (401, 403, 503) is held at least; twice that at most. A stock client that reconnects without
    /// pause is slowed to this. Zero refuses at once.
    pub refusal_delay: HumanDuration,
    /// Refusals held at once, in all and for one address. Each holds a connection; more are refused at once.
    pub refusals: NonZeroUsize,
    pub refusals_per_address: NonZeroUsize,
    /// A socket on which nobody starts is closed after this, and a listener of a meeting that nobody opens.
    pub open_idle: HumanDuration,
    /// A ping is sent after this much silence from the client.
    pub ping_every: HumanDuration,
    /// A client that says nothing at all, pongs neither, for this long is gone.
    pub silence: HumanDuration,
    /// How long a client may take to close first, after the end messages.
    pub close_grace: HumanDuration,
    /// Audio that may run ahead of real time, unless it is a recording: what a client may have kept while its network
    /// stalled.
    pub pace_burst: HumanDuration,
    /// Text messages of one client at once, and those regained in a second.
    pub requests_burst: u32,
    pub requests_per_second: u32,
    /// How long a stream is left as it is when the connection of a client that may return to it (`hearsay.ack`) is lost.
    /// Who returns within it, to any gateway, goes on in the middle of a word; after it, what was said is put on the log as
    /// far as it was heard, and who returns goes on behind it. Below the log's `rejoin_grace`.
    pub resume_hold: HumanDuration,
    /// How often a client that may return is given a newer token to return with. Each is good for twice as long, and the
    /// client's own `noConnectionTimeout` more.
    pub resume_renewal: HumanDuration,
    /// How long a socket whose token has expired may stay without a new one.
    pub token_grace: HumanDuration,
    /// How long a stop waits for the last words to be on the log.
    pub flush: HumanDuration,
    /// How long end messages wait for the last words to pass this gateway's feed.
    pub pass: HumanDuration,
    /// How long the log may be out of reach before a start is refused.
    pub log_patience: HumanDuration,
    /// Over how long a draining gateway spreads its closes, at least. Clients come back at once, all of them. A speaker is
    /// handed over where an utterance of theirs ends, or at the end of this.
    pub drain_spread: HumanDuration,
    /// Closes of a drain in a second, for which more time is taken where there are many sockets, as far as
    /// `process.drain_deadline` leaves it.
    pub drain_rate: NonZeroU32,
    /// That time, by the sections that know it. None: it does not end.
    #[serde(skip)]
    pub drain_budget: Option<Duration>,
    /// Whether participants who give a `userId` are remembered, and hosts told of their earlier conversations when they
    /// return. Hosts are who may read those conversations over REST, too.
    pub caller_history: bool,
    /// The trackers of the account: what a client asks for with `enableAllTrackers`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trackers: Vec<AccountTracker>,
    /// Who writes summaries; absent: the sentences of a conversation that say most of it are its summary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<SummaryConfig>,
    /// Serves `/echo`, a WebSocket that sends every message back, to anybody and without a token: for conformance suites,
    /// which then test the very code that clients meet. Never on a gateway that others reach.
    pub echo: bool,
}

/// A tracker that clients need not spell out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountTracker {
    pub name: String,
    pub vocabulary: Vec<String>,
}

impl From<&AccountTracker> for Tracker {
    fn from(it: &AccountTracker) -> Self {
        Self { id: None, name: it.name.clone(), vocabulary: it.vocabulary.clone() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tls: None,
            origins: vec!["*".to_owned()],
            connections: const { NonZeroUsize::new(60_000).expect("not zero") },
            handshake: HumanDuration::from_secs(10),
            refusal_delay: HumanDuration::from_secs(1),
            refusals: const { NonZeroUsize::new(1_024).expect("not zero") },
            refusals_per_address: const { NonZeroUsize::new(256).expect("not zero") },
            open_idle: HumanDuration::from_secs(30 * 60),
            ping_every: HumanDuration::from_secs(25),
            silence: HumanDuration::from_secs(60),
            close_grace: HumanDuration::from_secs(1),
            pace_burst: HumanDuration::from_secs(30),
            requests_burst: 50,
            requests_per_second: 5,
            resume_hold: HumanDuration::from_secs(5),
            resume_renewal: HumanDuration::from_secs(60),
            token_grace: HumanDuration::from_secs(30),
            flush: HumanDuration::from_secs(10),
            pass: HumanDuration::from_secs(2),
            log_patience: HumanDuration::from_secs(10),
            drain_spread: HumanDuration::from_secs(8),
            drain_rate: const { NonZeroU32::new(1_000).expect("not zero") },
            drain_budget: None,
            caller_history: true,
            trackers: Vec::new(),
            summary: None,
            echo: false,
        }
    }
}

impl Config {
    /// Over how long this many sockets are closed.
    pub(crate) fn spread(&self, sockets: usize) -> Duration {
        let paced = Duration::from_secs_f64(sockets as f64 / f64::from(self.drain_rate.get()));
        let least = self.drain_spread.get();
        self.drain_budget.map_or(paced, |budget| paced.min(budget)).max(least)
    }

    /// # Errors
    /// Says which value contradicts which.
    pub fn validate(&self) -> Result<(), String> {
        if self.ping_every.get() * 2 > self.silence.get() {
            return Err(
                "gateway.silence must be at least twice gateway.ping_every, or living clients are cut".to_owned()
            );
        }
        if self.refusal_delay.get() * 2 > self.handshake.get() + Duration::from_secs(30) {
            return Err("gateway.refusal_delay must leave clients their 30s handshake limit".to_owned());
        }
        if self.pace_burst.get() < Duration::from_secs(1) {
            return Err("gateway.pace_burst must be at least 1s: clients send in bursts".to_owned());
        }
        if self.requests_burst < 4 || self.requests_per_second == 0 {
            return Err("gateway.requests_burst must be at least 4 and requests_per_second at least 1".to_owned());
        }
        if self.resume_renewal.get() < Duration::from_secs(1) {
            return Err("gateway.resume_renewal must be at least 1s: each renewal is a message".to_owned());
        }
        let too_large = self.trackers.iter().any(|it| it.name.is_empty() || it.vocabulary.len() > MAX_TRACKER_PHRASES);
        if self.trackers.len() > MAX_TRACKERS || too_large {
            return Err(format!(
                "gateway.trackers are too many, have too many phrases or no name; {MAX_TRACKERS} trackers of \
                 {MAX_TRACKER_PHRASES} phrases are accepted"
            ));
        }
        if let Some(summary) = &self.summary {
            summary.validate()?;
        }
        self.origins.iter().try_for_each(|origin| origin::check(origin))?;
        if self.flush.get().is_zero() {
            return Err("gateway.flush must be above zero, or last words are lost".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_do_not_contradict_each_other() {
        Config::default().validate().unwrap();
        let hasty = Config { silence: HumanDuration::from_secs(30), ..Config::default() };
        assert!(hasty.validate().unwrap_err().contains("gateway.silence"));
    }

    #[test]
    fn many_sockets_are_closed_over_more_time_as_far_as_there_is() {
        let mut config = Config::default();
        let spread = |config: &Config, sockets| config.spread(sockets).as_secs();
        assert_eq!((spread(&config, 0), spread(&config, 8_000), spread(&config, 20_000)), (8, 8, 20));
        config.drain_budget = Some(Duration::from_secs(12));
        assert_eq!((spread(&config, 100), spread(&config, 11_000), spread(&config, 20_000)), (8, 11, 12));
    }

    #[test]
    fn unknown_keys_are_errors() {
        assert!(serde_json::from_str::<Config>(r#"{"listn":"x"}"#).is_err());
        let config: Config = serde_json::from_str(r#"{"listen":"[::]:80","flush":"3s"}"#).unwrap();
        assert_eq!(config.flush, HumanDuration::from_secs(3));
    }
}
