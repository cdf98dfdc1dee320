//! Which conversations have a feed on this gateway, and which meetings a lobby. The last leave and the next join may race:
//! this alone decides, under its lock. It never touches events.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use futures::future::BoxFuture;
use hearsay_bus::{Bus, Lease};
use hearsay_protocol::{ConversationKey, GatewayId, MeetingKey, Position, Timestamp};
use hearsay_runtime::Tasks;
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, watch},
};

use crate::{
    CoreSet, FanoutConfig,
    inbox::{GroupId, Inbox, JoinError, Joiner, MemberId},
};

/// Conversations in one renewal.
const LEASES: usize = 1_024;

/// What runs a feed and a lobby.
pub(crate) struct Starts {
    pub(crate) feed: fn(Arc<Inner>, ConversationKey, Arc<FeedHandle>) -> BoxFuture<'static, ()>,
    pub(crate) lobby: fn(Arc<Inner>, MeetingKey, Arc<Inbox>) -> BoxFuture<'static, ()>,
}

/// What the feeds, lobbies and the hub of one gateway share.
pub(crate) struct Inner {
    pub(crate) config: FanoutConfig,
    pub(crate) bus: Arc<dyn Bus>,
    gateway: GatewayId,
    pub(crate) cores: CoreSet,
    pub(crate) tasks: Tasks,
    starts: Starts,
    ids: AtomicU64,
    map: Mutex<Map>,
    /// A conversation got its first members: its lease must not wait.
    renew: Notify,
    /// Joiners that may read history at the same time.
    pub(crate) catchups: Arc<Semaphore>,
    spread: RandomState,
    /// Where the log's messages come in: an event's way from there into its feed wakes no other thread.
    home: Handle,
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

impl Inner {
    /// With leases renewed until the drain has finished. Feeds run on the runtime this is called on.
    pub(crate) fn start(
        config: FanoutConfig,
        bus: Arc<dyn Bus>,
        gateway: GatewayId,
        cores: CoreSet,
        tasks: &Tasks,
        starts: Starts,
    ) -> Arc<Self> {
        let inner = Arc::new(Self {
            catchups: Arc::new(Semaphore::new(config.catchups.get())),
            config,
            bus,
            gateway,
            cores,
            tasks: tasks.clone(),
            starts,
            ids: AtomicU64::new(1),
            map: Mutex::default(),
            renew: Notify::new(),
            spread: RandomState::new(),
            home: Handle::current(),
        });
        drop(tasks.spawn_background("leases", renew_leases(Arc::clone(&inner))));
        inner
    }

    /// Conversations with members.
    pub(crate) fn feeds(&self) -> usize {
        self.lock().feeds.len()
    }

    fn lock(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn group(&self) -> GroupId {
        GroupId(self.ids.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn member(&self) -> MemberId {
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
            inbox: Arc::new(Inbox::new(key.meeting.clone())),
            progress: watch::Sender::new(Progress::default()),
            listeners: AtomicU32::new(0),
        });
        // Nobody else knows the inbox yet.
        let _ = feed.inbox.join(joiner);
        map.feeds.insert(key.clone(), Arc::clone(&feed));
        drop(map);
        let run = (self.starts.feed)(Arc::clone(self), key.clone(), Arc::clone(&feed));
        drop(self.tasks.spawn_background_on(&self.home, "feed", run));
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

    pub(crate) fn lobby(self: &Arc<Self>, meeting: &MeetingKey) -> Arc<Inbox> {
        let mut map = self.lock();
        if let Some(lobby) = map.lobbies.get(meeting) {
            return Arc::clone(lobby);
        }
        let inbox = Arc::new(Inbox::new(meeting.clone()));
        map.lobbies.insert(meeting.clone(), Arc::clone(&inbox));
        drop(map);
        let core = self.cores.core(self.spread.hash_one(meeting) as usize);
        let run = (self.starts.lobby)(Arc::clone(self), meeting.clone(), Arc::clone(&inbox));
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
    for round in 0_u64.. {
        // A little sooner now and then: gateways that were started together do not ask together for long.
        let share = hub.spread.hash_one(round) % 200;
        let pause = hub.config.tail_check.get().mul_f64(1.0 - share as f64 / 1_000.0);
        tokio::select! {
            () = tokio::time::sleep(pause) => (),
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
