//! Gives each conversation one feed on this gateway, and takes it away when nobody is left.

use std::{net::TcpStream, sync::Arc, time::Duration};

use bytes::Bytes;
use hearsay_bus::Bus;
use hearsay_protocol::{ConversationKey, GatewayId, MeetingKey, Position};
use hearsay_runtime::Tasks;
use tokio::time::Instant;

use crate::{CoreSet, FanoutConfig, Opted, Outbox, View};

/// All feeds of a gateway. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    config: FanoutConfig,
}

/// What a joiner wants of what was said before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum History {
    #[default]
    None,
    /// One `snapshot` first.
    Snapshot,
    /// Every event from the first.
    All,
}

/// A speaker's place in a conversation.
pub struct Join {
    pub key: ConversationKey,
    pub view: View,
    pub opted: Opted,
    /// What follows this position is sent first; beats `history`.
    pub since: Option<Position>,
    pub history: History,
    pub sink: Outbox,
}

/// A listener whose plain socket becomes a row of a core.
pub struct Listen {
    pub meeting: MeetingKey,
    pub view: View,
    pub opted: Opted,
    pub since: Option<Position>,
    pub history: History,
    /// After the upgrade; the response is already sent.
    pub socket: TcpStream,
    /// Bytes read past the request.
    pub leftover: Bytes,
    /// The core whose thread accepted it ([`crate::Core::index`]).
    pub core: usize,
    /// Names the session in the logs.
    pub session: u64,
    /// Dropped when the socket is closed: permits, gauges.
    pub permit: Box<dyn Send>,
}

/// A listener with a task of its own, behind TLS.
pub struct ListenOutbox {
    pub meeting: MeetingKey,
    pub view: View,
    pub opted: Opted,
    pub since: Option<Position>,
    pub history: History,
    pub sink: Outbox,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum JoinError {
    #[error("the conversation does not exist or was deleted")]
    Gone,
    #[error("the gateway is shutting down")]
    ShuttingDown,
    #[error(transparent)]
    Bus(#[from] hearsay_bus::Error),
}

/// A speaker's membership; dropping it leaves.
pub struct Member {
    _sink: Outbox,
}

/// A listener's subscription of a meeting; dropping it leaves.
pub struct Listening {
    _sink: Outbox,
}

impl Hub {
    /// Starts serving; ends when the drain has finished.
    pub fn start(
        _config: FanoutConfig,
        _bus: Arc<dyn Bus>,
        _gateway: GatewayId,
        _cores: CoreSet,
        _tasks: &Tasks,
    ) -> Self {
        Self { inner: Arc::new(Inner { config: _config }) }
    }

    pub fn config(&self) -> &FanoutConfig {
        &self.inner.config
    }

    /// A speaker joins. When this returns, everything appended from here on will be delivered into its outbox.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub async fn join(&self, _join: Join) -> Result<Member, JoinError> {
        Err(JoinError::ShuttingDown)
    }

    /// A listener subscribes to a meeting, open or not. From here on the socket belongs to the core.
    pub fn listen(&self, _listen: Listen) {}

    /// The same for a socket that has a task of its own. The end of the meeting closes the outbox.
    pub fn listen_outbox(&self, listen: ListenOutbox) -> Listening {
        Listening { _sink: listen.sink }
    }

    /// Closes all listeners with the empty close frame, spread over `spread`; returns when it is done.
    pub async fn drain(&self, _spread: Duration) {}

    /// Listeners at this gateway.
    pub fn listeners(&self) -> usize {
        0
    }
}

impl Member {
    /// Waits until everything up to `position` was put into this member's outbox; false after the deadline.
    pub async fn passed(&self, _position: Position, _deadline: Instant) -> bool {
        false
    }

    /// From the next event on this member sees the conversation so.
    pub fn set_view(&self, _view: View, _opted: Opted) {}

    /// Waits until the conversation has ended and everything of it was put into this member's outbox. Safe to drop.
    pub async fn ended(&self) {
        std::future::pending().await
    }
}
