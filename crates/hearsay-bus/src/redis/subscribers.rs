//! Who in this process listens to which channel, and keeping the nodes' subscriptions as they should be.
//!
//! Messages come in on the connections' own tasks ([`Hears::hears`]) and are offered without waiting. One task
//! ([`Subscribers::tend`]) subscribes and unsubscribes, all that has gathered in one pipeline a node, and after a
//! connection broke or a slot moved tells every subscriber that it missed something.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use hearsay_protocol::{ConversationId, ConversationKey, MeetingKey};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};

use super::{
    codec, metrics,
    nodes::{Hears, Link, Nodes},
};
use crate::{Delivery, subscription::Subscriber};

/// Subscribing may take this long, for all channels of a node together.
const PATIENCE: Duration = Duration::from_secs(2);
/// Channels of one pipeline.
const PIPELINE: usize = 512;
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Subscribers {
    channels: Mutex<Channels>,
    /// Something is to be done.
    work: Notify,
}

#[derive(Default)]
struct Channels {
    all: HashMap<String, Channel>,
    /// Those to look at.
    pending: HashSet<String>,
}

struct Channel {
    slot: u16,
    /// The link that is subscribed to it.
    placed: Option<u64>,
    /// It was, once: whatever came since may have been missed.
    ever: bool,
    audience: Audience,
    /// Who waits for the subscription to stand.
    waiting: Vec<oneshot::Sender<()>>,
}

enum Audience {
    Conversation(Vec<Subscriber>),
    Meeting(MeetingKey, Vec<Watcher>),
}

/// Follows which conversation a meeting has open.
pub(super) struct Watcher {
    opened: mpsc::Sender<ConversationKey>,
    /// The last it was told.
    last: Option<ConversationId>,
}

impl Watcher {
    pub(super) fn new(opened: mpsc::Sender<ConversationKey>, last: Option<ConversationId>) -> Self {
        Self { opened, last }
    }

    /// False when nobody is there, or lags so far behind that it asks anew.
    fn offer(&mut self, key: &ConversationKey) -> bool {
        if self.opened.is_closed() {
            return false;
        }
        self.last == Some(key.conversation) || {
            self.last = Some(key.conversation);
            self.opened.try_send(key.clone()).is_ok()
        }
    }
}

impl Audience {
    /// Forgets those who went; false when nobody is left.
    fn any(&mut self) -> bool {
        match self {
            Self::Conversation(subscribers) => {
                subscribers.retain(|subscriber| !subscriber.is_gone());
                !subscribers.is_empty()
            }
            Self::Meeting(_, watchers) => {
                watchers.retain(|watcher| !watcher.opened.is_closed());
                !watchers.is_empty()
            }
        }
    }
}

/// Dropped with a subscription: its channel may have to be given up.
pub(super) struct Leave {
    subscribers: Arc<Subscribers>,
    channel: String,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.subscribers.lock().pending.insert(std::mem::take(&mut self.channel));
        self.subscribers.work.notify_one();
    }
}

impl Subscribers {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { channels: Mutex::default(), work: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscriber of a conversation's channel. What it waits on is done when announcements reach it.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        channel: &str,
        slot: u16,
        subscriber: Subscriber,
    ) -> (Leave, Option<oneshot::Receiver<()>>) {
        self.add(
            channel,
            slot,
            || Audience::Conversation(Vec::new()),
            |audience| {
                if let Audience::Conversation(subscribers) = audience {
                    subscribers.push(subscriber);
                }
            },
        )
    }

    /// The same for a meeting's channel.
    pub(super) fn watch(
        self: &Arc<Self>,
        channel: &str,
        slot: u16,
        meeting: &MeetingKey,
        watcher: Watcher,
    ) -> (Leave, Option<oneshot::Receiver<()>>) {
        self.add(
            channel,
            slot,
            || Audience::Meeting(meeting.clone(), Vec::new()),
            |audience| {
                if let Audience::Meeting(_, watchers) = audience {
                    watchers.push(watcher);
                }
            },
        )
    }

    fn add(
        self: &Arc<Self>,
        channel: &str,
        slot: u16,
        audience: impl FnOnce() -> Audience,
        add: impl FnOnce(&mut Audience),
    ) -> (Leave, Option<oneshot::Receiver<()>>) {
        let leave = Leave { subscribers: Arc::clone(self), channel: channel.to_owned() };
        let mut channels = self.lock();
        let found = channels.all.entry(channel.to_owned()).or_insert_with(|| Channel {
            slot,
            placed: None,
            ever: false,
            audience: audience(),
            waiting: Vec::new(),
        });
        add(&mut found.audience);
        if found.placed.is_some() {
            return (leave, None);
        }
        let (stands, waits) = oneshot::channel();
        found.waiting.push(stands);
        channels.pending.insert(channel.to_owned());
        drop(channels);
        self.work.notify_one();
        (leave, Some(waits))
    }

    /// Tells the watchers of a meeting what is open now.
    pub(super) fn opened(&self, channel: &str, key: &ConversationKey) {
        if let Some(Channel { audience: Audience::Meeting(_, watchers), .. }) = self.lock().all.get_mut(channel) {
            watchers.retain_mut(|watcher| watcher.offer(key));
        }
    }

    /// Keeps the subscriptions as they should be until told to stop. Answers, through `reopened`, meetings whose watchers
    /// may have missed something.
    pub(super) async fn tend(
        self: Arc<Self>,
        nodes: Arc<Nodes>,
        reopened: mpsc::Sender<(String, MeetingKey)>,
        drain: hearsay_runtime::Drain,
    ) {
        let mut changes = nodes.changes();
        loop {
            tokio::select! {
                () = drain.finished() => return,
                () = self.work.notified() => {}
                _ = changes.changed() => self.doubt_all(&nodes),
            }
            if !self.settle(&nodes, &reopened).await {
                // Some node is not there: its return is a change, and a moved slot is found by looking.
                nodes.doubt();
                tokio::select! {
                    () = drain.finished() => return,
                    () = tokio::time::sleep(PAUSE) => self.work.notify_one(),
                }
            }
        }
    }

    /// Everything whose link is not the one it should be is to be looked at.
    fn doubt_all(&self, nodes: &Nodes) {
        let mut channels = self.lock();
        let Channels { all, pending } = &mut *channels;
        let wrong = all.iter().filter(|(_, channel)| {
            let link = nodes.link(channel.slot).map(|link| link.serial);
            link.is_none() || channel.placed != link
        });
        pending.extend(wrong.map(|(name, _)| name.clone()));
    }

    /// Does what is pending. False when some of it could not be done.
    async fn settle(&self, nodes: &Nodes, reopened: &mpsc::Sender<(String, MeetingKey)>) -> bool {
        let (work, mut complete) = self.plan(nodes);
        let done = futures::future::join_all(work.into_values().map(|(link, work)| async move {
            let mut results = Vec::with_capacity(work.len());
            for part in work.chunks(PIPELINE) {
                results.extend(place(&link, part).await);
            }
            (link, work, results)
        }));
        for (link, work, results) in done.await {
            let mut again = Vec::new();
            let mut repaired = 0;
            {
                let mut channels = self.lock();
                for ((name, wanted), done) in work.into_iter().zip(results) {
                    if !wanted {
                        continue;
                    }
                    if !done {
                        complete = false;
                        channels.pending.insert(name);
                        continue;
                    }
                    let Some(channel) = channels.all.get_mut(&name) else { continue };
                    channel.placed = Some(link.serial);
                    for waiting in channel.waiting.drain(..) {
                        // Who does not wait any more has no need of it.
                        let _ = waiting.send(());
                    }
                    if std::mem::replace(&mut channel.ever, true) {
                        repaired += 1;
                        match &mut channel.audience {
                            Audience::Conversation(subscribers) => {
                                subscribers.retain_mut(|subscriber| subscriber.offer(&Delivery::Missed));
                            }
                            Audience::Meeting(meeting, _) => again.push((name, meeting.clone())),
                        }
                    }
                }
                metrics::subscriptions(channels.all.len());
            }
            metrics::repaired(repaired);
            for missed in again {
                // Full: the next tail check of waiting listeners finds it.
                let _ = reopened.try_send(missed);
            }
        }
        complete
    }

    /// What is to be subscribed to (true) and given up (false), by link.
    #[expect(clippy::type_complexity, reason = "taken apart where it is used")]
    fn plan(&self, nodes: &Nodes) -> (HashMap<u64, (Arc<Link>, Vec<(String, bool)>)>, bool) {
        let mut work: HashMap<u64, (Arc<Link>, Vec<(String, bool)>)> = HashMap::new();
        let mut complete = true;
        let mut channels = self.lock();
        let Channels { all, pending } = &mut *channels;
        for name in std::mem::take(pending) {
            let Some(channel) = all.get_mut(&name) else { continue };
            let link = nodes.link(channel.slot);
            if !channel.audience.any() {
                let placed = channel.placed;
                all.remove(&name);
                if let Some(link) = link.filter(|link| placed == Some(link.serial)) {
                    work.entry(link.serial).or_insert_with(|| (link, Vec::new())).1.push((name, false));
                }
                continue;
            }
            match link {
                Some(link) if channel.placed == Some(link.serial) => {}
                Some(link) => {
                    channel.placed = None;
                    work.entry(link.serial).or_insert_with(|| (link, Vec::new())).1.push((name, true));
                }
                None => {
                    complete = false;
                    channel.placed = None;
                    pending.insert(name);
                }
            }
        }
        (work, complete)
    }
}

/// Subscribes and unsubscribes; says of each whether it was done.
async fn place(link: &Link, work: &[(String, bool)]) -> Vec<bool> {
    let mut pipe = redis::pipe();
    pipe.ignore_errors();
    for (name, wanted) in work {
        pipe.cmd(if *wanted { "SSUBSCRIBE" } else { "SUNSUBSCRIBE" }).arg(name);
    }
    let mut connection = link.subscriptions.clone();
    match timeout(PATIENCE, pipe.query_async::<Vec<Result<redis::Value, redis::RedisError>>>(&mut connection)).await {
        Ok(Ok(answers)) if answers.len() == work.len() => answers.into_iter().map(|answer| answer.is_ok()).collect(),
        _ => vec![false; work.len()],
    }
}

impl Hears for Subscribers {
    fn hears(&self, _link: u64, channel: &[u8], message: Vec<u8>) {
        let Ok(channel) = std::str::from_utf8(channel) else { return };
        // Read before the lock is taken: joiners wait for it.
        let opened = std::str::from_utf8(&message).ok().and_then(|id| id.parse::<ConversationId>().ok());
        let delivery = match opened {
            Some(_) => Delivery::Missed,
            None => codec::delivery(Bytes::from(message)).unwrap_or(Delivery::Missed),
        };
        let mut channels = self.lock();
        match channels.all.get_mut(channel).map(|channel| &mut channel.audience) {
            Some(Audience::Conversation(subscribers)) => {
                subscribers.retain_mut(|subscriber| subscriber.offer(&delivery));
            }
            Some(Audience::Meeting(meeting, watchers)) => {
                if let Some(conversation) = opened {
                    let key = ConversationKey { meeting: meeting.clone(), conversation };
                    watchers.retain_mut(|watcher| watcher.offer(&key));
                }
            }
            None => {}
        }
    }

    fn lost(&self, link: u64, channel: &[u8]) -> bool {
        let Ok(channel) = std::str::from_utf8(channel) else { return false };
        self.lock().all.get(channel).is_some_and(|channel| channel.placed == Some(link))
    }
}
