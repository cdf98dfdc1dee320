//! Where speakers and listeners come in: each conversation has one feed on this gateway, and each meeting that is waited for
//! one lobby, for as long as somebody is there.

use std::{net::TcpStream, sync::Arc, time::Duration};

use bytes::Bytes;
use hearsay_bus::Bus;
use hearsay_protocol::{CloseCode, ConversationKey, GatewayId, MeetingKey, ParticipantId, Position};
use hearsay_runtime::Tasks;
use rustix::net::SendFlags;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, timeout_at},
};

use crate::{
    Audience, Core, CoreSet, FanoutConfig, Opted, Outbox, View,
    feed::Feed,
    frame,
    inbox::{GroupLink, History, JoinError, Joiner, MemberId, Sink, Who},
    listeners::{Attach, Post, Renewals},
    lobby::Lobby,
    metrics,
    registry::{FeedHandle, Inner, Progress, Starts},
};

/// All feeds of a gateway. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

/// A speaker's place in a conversation.
pub struct Join {
    pub key: ConversationKey,
    pub speaker: ParticipantId,
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
    /// The core whose thread accepted it ([`Core::index`]).
    pub core: usize,
    /// Names the session in the logs.
    pub session: u32,
    /// How long it may stay, unless it sends a new token; none: for ever.
    pub good_for: Option<Duration>,
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

/// A speaker's membership; dropping it leaves.
pub struct Member {
    id: MemberId,
    sink: Outbox,
    feed: Arc<FeedHandle>,
    progress: watch::Receiver<Progress>,
}

/// A listener's subscription of a meeting; dropping it leaves.
#[must_use = "dropping it leaves"]
pub struct Listening {
    sink: Outbox,
}

impl Hub {
    /// Starts serving; ends when the drain has finished.
    pub fn start(config: FanoutConfig, bus: Arc<dyn Bus>, gateway: GatewayId, cores: CoreSet, tasks: &Tasks) -> Self {
        let starts = Starts {
            feed: |inner, key, handle| Box::pin(Feed::new(inner, key, handle).run()),
            lobby: |inner, meeting, inbox| Box::pin(Lobby::new(inner, meeting, inbox).run()),
        };
        let inner = Inner::start(config, bus, gateway, cores, tasks, starts);
        Self { inner }
    }

    pub fn config(&self) -> &FanoutConfig {
        &self.inner.config
    }

    /// A speaker joins. When this returns, everything appended from here on will be delivered into its outbox.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub async fn join(&self, join: Join) -> Result<Member, JoinError> {
        let id = self.inner.member();
        let (reply, joined) = oneshot::channel();
        let feed = self.inner.enter(
            &join.key,
            Joiner {
                sink: Sink::Outbox(id, join.sink.clone()),
                audience: Audience { view: join.view, opted: opted(join.opted, join.since), listens: false },
                speaker: Some(join.speaker),
                since: join.since,
                history: join.history,
                from_start: false,
                reply: Some(reply),
            },
        )?;
        let progress = feed.progress.subscribe();
        let member = Member { id, sink: join.sink, feed, progress };
        joined.await.unwrap_or(Err(JoinError::ShuttingDown))?;
        Ok(member)
    }

    /// From here on listeners may renew their tokens.
    pub fn renew_with(&self, renewals: &Arc<dyn Renewals>) {
        for core in self.inner.cores.iter() {
            // Given back only by a core that has ended.
            let _ = core.try_post(Post::Renewals(Arc::clone(renewals)));
        }
    }

    /// A listener subscribes to a meeting, open or not. From here on the socket belongs to the core.
    pub fn listen(&self, listen: Listen) {
        let Listen { meeting, view, opted: wants, since, history, socket, leftover, core, session, good_for, permit } =
            listen;
        let audience = Audience { view, opted: opted(wants, since), listens: true };
        let owner = self.inner.lobby(&meeting);
        let link = Arc::new(GroupLink { id: self.inner.group(), owner });
        let joiner = move |row| Joiner {
            sink: Sink::Row(row),
            audience,
            speaker: None,
            since,
            history,
            from_start: false,
            reply: None,
        };
        let attach = Attach { socket, leftover, session, good_for, permit, link, joiner: Box::new(joiner) };
        if let Err(Post::Attach(attach)) = self.inner.cores.core(core).try_post(Post::Attach(Box::new(attach))) {
            // A burst larger than the queue: refused early and honestly.
            metrics::cut("overloaded");
            let last = frame::close(CloseCode::Overloaded, "overloaded");
            let _ = rustix::net::send(&attach.socket, &last, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }

    /// The same for a socket that has a task of its own. The end of the meeting closes the outbox.
    pub fn listen_outbox(&self, listen: ListenOutbox) -> Listening {
        let ListenOutbox { meeting, view, opted: wants, since, history, sink } = listen;
        let owner = self.inner.lobby(&meeting);
        let id = self.inner.member();
        let lobby = Arc::clone(&owner);
        sink.when_broken(Box::new(move || lobby.left(None, Who::Outbox(id))));
        let joiner = Joiner {
            sink: Sink::Outbox(id, sink.clone()),
            audience: Audience { view, opted: opted(wants, since), listens: true },
            speaker: None,
            since,
            history,
            from_start: false,
            reply: None,
        };
        if owner.join(joiner).is_err() {
            sink.close(CloseCode::Return, "");
        }
        Listening { sink }
    }

    /// Closes all listeners' rows with the empty close frame, spread over `spread`; returns when the last one was asked.
    /// Outboxes are closed by whoever writes them.
    pub async fn drain(&self, spread: Duration) {
        let mut cores = Vec::new();
        for core in self.inner.cores.iter() {
            let (done, finished) = oneshot::channel();
            core.post(Post::Drain { spread, done }).await;
            cores.push(finished);
        }
        for finished in cores {
            let _ = finished.await;
        }
    }

    /// Listeners' rows at this gateway.
    pub fn listeners(&self) -> usize {
        self.inner.cores.iter().map(Core::rows).sum()
    }

    /// Conversations with members at this gateway.
    pub fn feeds(&self) -> usize {
        self.inner.feeds()
    }
}

/// Who resumes hears positions too.
fn opted(opted: Opted, since: Option<Position>) -> Opted {
    Opted { positions: opted.positions || since.is_some(), ..opted }
}

impl Member {
    /// Waits until everything up to `position` was put into this member's outbox; false after the deadline. A position
    /// of an epoch that history has left behind is never passed.
    pub async fn passed(&self, position: Position, deadline: Instant) -> bool {
        let mut progress = self.progress.clone();
        let there = progress.wait_for(|progress| {
            progress.over
                || progress.position.is_some_and(|at| at.epoch == position.epoch && at.offset >= position.offset)
        });
        matches!(timeout_at(deadline, there).await, Ok(Ok(progress)) if !progress.over)
    }

    /// How far the feed has got.
    pub fn position(&self) -> Option<Position> {
        self.progress.borrow().position
    }

    /// From the next event on this member sees the conversation so, and is this speaker: one socket may have several, one
    /// after the other.
    pub fn set_view(&self, view: View, opted: Opted, speaker: ParticipantId) {
        self.feed.inbox.view(self.id, Audience { view, opted, listens: false }, speaker);
    }

    /// Waits until the conversation has ended and everything of it was put into this member's outbox. Safe to drop.
    pub async fn ended(&self) {
        let mut progress = self.progress.clone();
        if progress.wait_for(|progress| progress.ended || progress.over).await.is_err() {
            // The feed failed; its members were closed with a reason.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(left) = self.sink.leave() {
            left();
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(left) = self.sink.leave() {
            left();
        }
    }
}
