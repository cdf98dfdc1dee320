//! A life as a log in Redis stores it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hearsay_protocol::{
    GatewayId, Offset, Timestamp,
    event::{EndReason, StreamStarted},
};
use hearsay_rpc::{Malformed, v1};
use prost::Message as _;

use super::{Holder, Life, Lost};
use crate::State;

/// A gateway's lease: until when, and how many listen there.
pub(crate) type StoredLease = (GatewayId, Timestamp, u32);

impl Life {
    /// All but leases and the time at which somebody was last heard, which are stored beside it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        v1::Life {
            state: match self.state {
                State::Open => v1::life::State::Open,
                State::Lingering => v1::life::State::Lingering,
                State::Ended => v1::life::State::Ended,
                State::Compacted => v1::life::State::Compacted,
                State::Deleted => v1::life::State::Deleted,
            }
            .into(),
            streams: self.streams.values().map(|started| (&**started).into()).collect(),
            lost: self
                .lost
                .values()
                .map(|lost| v1::LostStream { started: Some((&*lost.started).into()), until_us: lost.until.micros() })
                .collect(),
            linger: self.linger.map(|(until, reason)| v1::Linger {
                until_us: until.micros(),
                reason: match reason {
                    EndReason::Stopped => v1::ended::Reason::Stopped,
                    EndReason::Abandoned => v1::ended::Reason::Abandoned,
                    EndReason::Silence => v1::ended::Reason::Silence,
                }
                .into(),
            }),
            ending: self.ending.map(|(offset, until)| v1::Ending { offset: offset.0, until_us: until.micros() }),
            no_connection_timeout_us: micros(self.no_connection_timeout),
            ended_us: self.ended.map(Timestamp::micros),
        }
        .encode_to_vec()
    }

    /// # Errors
    /// For bytes that are not a life, or one of a state that this version does not know.
    pub(crate) fn decode(
        stored: &[u8],
        leases: impl IntoIterator<Item = StoredLease>,
        heard: Timestamp,
    ) -> Result<Self, Malformed> {
        let malformed = |field, reason: String| Malformed { field, reason };
        let life = v1::Life::decode(stored).map_err(|error| malformed("Life", format!("does not decode: {error}")))?;
        let state = match life.state() {
            v1::life::State::Open => State::Open,
            v1::life::State::Lingering => State::Lingering,
            v1::life::State::Ended => State::Ended,
            v1::life::State::Compacted => State::Compacted,
            v1::life::State::Deleted => State::Deleted,
            v1::life::State::Unspecified => {
                return Err(malformed("Life.state", format!("is {}, which is not known", life.state)));
            }
        };
        let streams = life.streams.into_iter().map(|started| {
            let started = StreamStarted::try_from(started)?;
            Ok((started.stream, Arc::new(started)))
        });
        let lost = life.lost.into_iter().map(|lost| {
            let started = lost.started.ok_or_else(|| malformed("LostStream.started", "is missing".to_owned()))?;
            let started = StreamStarted::try_from(started)?;
            Ok((started.stream, Lost { started: Arc::new(started), until: Timestamp(lost.until_us) }))
        });
        let linger = life.linger.map(|linger| {
            let reason = match linger.reason() {
                v1::ended::Reason::Stopped => EndReason::Stopped,
                v1::ended::Reason::Silence => EndReason::Silence,
                v1::ended::Reason::Abandoned | v1::ended::Reason::Unspecified => EndReason::Abandoned,
            };
            (Timestamp(linger.until_us), reason)
        });
        Ok(Self {
            state,
            streams: streams.collect::<Result<BTreeMap<_, _>, Malformed>>()?,
            lost: lost.collect::<Result<BTreeMap<_, _>, Malformed>>()?,
            leases: leases
                .into_iter()
                .map(|(gateway, until, listeners)| (gateway, Holder { until, listeners }))
                .collect(),
            linger,
            ending: life.ending.map(|ending| (Offset(ending.offset), Timestamp(ending.until_us))),
            no_connection_timeout: Duration::from_micros(life.no_connection_timeout_us),
            heard,
            ended: life.ended_us.map(Timestamp),
        })
    }

    /// Leases that still hold.
    pub(crate) fn leases(&self) -> impl Iterator<Item = StoredLease> {
        self.leases.iter().map(|(gateway, holder)| (*gateway, holder.until, holder.listeners))
    }

    /// The last speaker stopped, and the end waits for the analyst.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Streams are taken for lost whose gateway may return.
    pub(crate) fn misses_streams(&self) -> bool {
        !self.lost.is_empty()
    }

    /// This gateway has live streams here.
    pub(crate) fn has_streams_of(&self, gateway: GatewayId) -> bool {
        self.streams.values().any(|started| started.gateway == gateway)
    }

    pub(crate) fn last_heard(&self) -> Timestamp {
        self.heard
    }
}
