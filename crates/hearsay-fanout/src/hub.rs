//! Gives each conversation one feed on this gateway, and each meeting that is waited for one lobby; takes them away when
//! nobody is left. The last leave and the next join may race: `Hub` alone decides, under its lock. It never touches
//! events.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::TcpStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use hearsay_bus::{Bus, Lease};
use hearsay_protocol::{CloseCode, ConversationKey, GatewayId, MeetingKey, Position, Timestamp};
use hearsay_runtime::Tasks;
use rustix::net::SendFlags;
use tokio::{
    sync::{Notify, Semaphore, oneshot, watch},
    time::{Instant, timeout_at},
};

use crate::{
    Audience, Core, CoreSet, FanoutConfig, Opted, Outbox, View,
    feed::Feed,
    frame,
    inbox::{GroupId, GroupLink, Inbox, Joiner, MemberId, Sink, Who},
    listeners::{Attach, Post},
    lobby::Lobby,
    metrics,
};

/// Conversations in one renewal.
const LEASES: usize = 1_024;

/// All feeds of a gateway. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: FanoutConfig,
    pub(crate) bus: Arc<dyn Bus>,
    gateway: GatewayId,
    pub(crate) cores: CoreSet,
    pub(crate) tasks: Tasks,
    ids: AtomicU64,
    map: Mutex<Map>,
    /// A conversation got its first members: its lease must not wait.
    renew: Notify,
    /// Joiners that may read history at the same time.
    pub(crate) catchups: Arc<Semaphore>,
    spread: RandomState,
}

#[derive(Default)]
struct Map {
    feeds: HashMap<ConversationKey, Arc<FeedHandle>>,
    lobbies: HashMap<MeetingKey, Arc<Inbox>>,
}

/// What others know of a feed.
pub(crate) struct FeedHandle {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) listeners: AtomicU32,
}

/// How far a feed has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    pub(crate) position: Option<Position>,
    pub(crate) ended: bool,
    /// Nothing more will come.
    pub(crate) over: bool,
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
    /// The core whose thread accepted it ([`Core::index`]).
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
        let inner = Arc::new(Inner {
            catchups: Arc::new(Semaphore::new(config.catchups.get())),
            config,
            bus,
            gateway,
            cores,
            tasks: tasks.clone(),
            ids: AtomicU64::new(1),
            map: Mutex::default(),
            renew: Notify::new(),
            spread: RandomState::new(),
        });
        drop(tasks.spawn_background("leases", renew_leases(Arc::clone(&inner))));
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

    /// A listener subscribes to a meeting, open or not. From here on the socket belongs to the core.
    pub fn listen(&self, listen: Listen) {
        let Listen { meeting, view, opted: wants, since, history, socket, leftover, core, session, permit } = listen;
        let audience = Audience { view, opted: opted(wants, since), listens: true };
        let owner = self.inner.lobby(&meeting);
        let link = Arc::new(GroupLink { id: self.inner.group(), owner });
        let joiner =
            move |row| Joiner { sink: Sink::Row(row), audience, since, history, from_start: false, reply: None };
        let attach = Attach { socket, leftover, session, permit, link, joiner: Box::new(joiner) };
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
        self.inner.lock().feeds.len()
    }
}

/// Who resumes hears positions too.
fn opted(opted: Opted, since: Option<Position>) -> Opted {
    Opted { positions: opted.positions || since.is_some(), ..opted }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn group(&self) -> GroupId {
        GroupId(self.ids.fetch_add(1, Ordering::Relaxed))
    }

    fn member(&self) -> MemberId {
        MemberId(self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Hands the joiner to the conversation's feed, which is started when there is none.
    pub(crate) fn enter(
        self: &Arc<Self>,
        key: &ConversationKey,
        mut joiner: Joiner,
    ) -> Result<Arc<FeedHandle>, JoinError> {
        if self.tasks.drain().is_finished() {
            return Err(JoinError::ShuttingDown);
        }
        let mut map = self.lock();
        if let Some(feed) = map.feeds.get(key) {
            match feed.inbox.join(joiner) {
                Ok(()) => return Ok(Arc::clone(feed)),
                // It ended in this moment.
                Err(refused) => joiner = refused,
            }
        }
        let feed = Arc::new(FeedHandle {
            inbox: Arc::new(Inbox::default()),
            progress: watch::Sender::new(Progress::default()),
            listeners: AtomicU32::new(0),
        });
        // Nobody else knows the inbox yet.
        let _ = feed.inbox.join(joiner);
        map.feeds.insert(key.clone(), Arc::clone(&feed));
        drop(map);
        let core = self.cores.core(self.spread.hash_one(key) as usize);
        let run = Feed::new(Arc::clone(self), key.clone(), Arc::clone(&feed)).run();
        drop(self.tasks.spawn_background_on(core.handle(), "feed", run));
        self.renew.notify_one();
        Ok(feed)
    }

    /// The feed has no members; true when it may end, because nobody wants to join it.
    pub(crate) fn end_feed(&self, key: &ConversationKey, feed: &Arc<FeedHandle>) -> bool {
        let mut map = self.lock();
        if !feed.inbox.close_if_idle() {
            return false;
        }
        forget(&mut map.feeds, key, feed);
        true
    }

    /// The feed cannot go on; who wanted to join is given back.
    pub(crate) fn fail_feed(&self, key: &ConversationKey, feed: &Arc<FeedHandle>) -> Vec<Joiner> {
        let mut map = self.lock();
        forget(&mut map.feeds, key, feed);
        feed.inbox.close()
    }

    /// Gives the conversation's lease up, unless it got new members meanwhile.
    pub(crate) async fn release(&self, key: &ConversationKey) {
        if self.lock().feeds.contains_key(key) {
            return;
        }
        if let Err(error) = self.bus.release(self.gateway, key).await {
            tracing::debug!(%key, %error, "the lease runs out by itself");
        }
        if self.lock().feeds.contains_key(key) {
            self.renew.notify_one();
        }
    }

    fn lobby(self: &Arc<Self>, meeting: &MeetingKey) -> Arc<Inbox> {
        let mut map = self.lock();
        if let Some(lobby) = map.lobbies.get(meeting) {
            return Arc::clone(lobby);
        }
        let inbox = Arc::new(Inbox::default());
        map.lobbies.insert(meeting.clone(), Arc::clone(&inbox));
        drop(map);
        let core = self.cores.core(self.spread.hash_one(meeting) as usize);
        let run = Lobby::new(Arc::clone(self), meeting.clone(), Arc::clone(&inbox)).run();
        drop(self.tasks.spawn_background_on(core.handle(), "lobby", run));
        inbox
    }

    /// Nobody waits any more; true when the lobby may end. A row on its way to the lobby holds its inbox.
    pub(crate) fn end_lobby(&self, meeting: &MeetingKey, inbox: &Arc<Inbox>) -> bool {
        let mut map = self.lock();
        // One in the map, one of the lobby itself; more are rows on their way, or waiting.
        if Arc::strong_count(inbox) > 2 || !inbox.close_if_idle() {
            return false;
        }
        map.lobbies.remove(meeting);
        true
    }

    /// Wall time where the log's cannot be asked.
    pub(crate) fn wall() -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

fn forget(feeds: &mut HashMap<ConversationKey, Arc<FeedHandle>>, key: &ConversationKey, feed: &Arc<FeedHandle>) {
    if feeds.get(key).is_some_and(|found| Arc::ptr_eq(found, feed)) {
        feeds.remove(key);
    }
}

/// One call for all conversations: says that this gateway lives, and finds announcements that were lost.
async fn renew_leases(hub: Arc<Inner>) {
    let drain = hub.tasks.drain();
    loop {
        tokio::select! {
            () = tokio::time::sleep(hub.config.tail_check.get()) => (),
            () = hub.renew.notified() => (),
            () = drain.finished() => return,
        }
        let feeds: Vec<_> = hub.lock().feeds.iter().map(|(key, feed)| (key.clone(), Arc::clone(feed))).collect();
        for feeds in feeds.chunks(LEASES) {
            let leases: Vec<_> = feeds
                .iter()
                .map(|(key, feed)| Lease { key: key.clone(), listeners: feed.listeners.load(Ordering::Relaxed) })
                .collect();
            let answer = tokio::select! {
                answer = hub.bus.renew(hub.gateway, &leases) => answer,
                () = drain.finished() => return,
            };
            match answer {
                Ok(tails) => {
                    let by_key: HashMap<_, _> = feeds.iter().map(|(key, feed)| (key, feed)).collect();
                    for tail in tails {
                        if let Some(feed) = by_key.get(&tail.key) {
                            feed.inbox.tail(Some(tail));
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(conversations = feeds.len(), %error, "leases could not be renewed");
                    for (_, feed) in feeds {
                        feed.inbox.tail(None);
                    }
                }
            }
        }
    }
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

    /// From the next event on this member sees the conversation so.
    pub fn set_view(&self, view: View, opted: Opted) {
        self.feed.inbox.view(self.id, Audience { view, opted, listens: false });
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
