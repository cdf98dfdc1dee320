//! Where listeners of one meeting stand until it has a conversation: one task a meeting, none a listener.
//!
//! A listener that came before the meeting opened sees its conversation from the first event. Waiting is bounded; who
//! waited in vain is closed with 1000.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use hearsay_bus::Watch;
use hearsay_protocol::{CloseCode, ConversationKey, MeetingKey};
use hearsay_runtime::GaugeGuard;
use tokio::time::{Instant, sleep_until};

use crate::{
    frame,
    inbox::{Inbox, Joiner, Letters, Sink, Who},
    listeners::Post,
    metrics,
    registry::Inner,
};

/// A lobby that nobody stands in ends after this.
const IDLE: Duration = Duration::from_secs(30);
/// Between two questions to a log that does not answer: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

pub(crate) struct Lobby {
    hub: Arc<Inner>,
    meeting: MeetingKey,
    inbox: Arc<Inbox>,
    waiting: HashMap<Who, Waiter>,
    /// In the order they came; some have left.
    order: VecDeque<(Instant, Who)>,
    /// Of whom it is not known whether there is something to listen to.
    new: Vec<Joiner>,
    retry: Duration,
    ask_at: Option<Instant>,
}

struct Waiter {
    joiner: Joiner,
    _waiting: GaugeGuard,
}

impl Lobby {
    pub(crate) fn new(hub: Arc<Inner>, meeting: MeetingKey, inbox: Arc<Inbox>) -> Self {
        Self {
            hub,
            meeting,
            inbox,
            waiting: HashMap::new(),
            order: VecDeque::new(),
            new: Vec::new(),
            retry: RETRY.0,
            ask_at: None,
        }
    }

    pub(crate) async fn run(mut self) {
        let drain = self.hub.tasks.drain();
        let mut watch = None;
        loop {
            if watch.is_none() && self.ask_at.is_none() {
                match self.hub.bus.watch(&self.meeting).await {
                    Ok(made) => watch = Some(made),
                    Err(error) => self.later(&error),
                }
            }
            let now = Instant::now();
            let idle = (self.waiting.is_empty() && self.new.is_empty()).then_some(now + IDLE);
            let oldest = self.order.front().map(|(since, _)| *since + self.hub.config.wait_for_meeting.get());
            let wake = [idle, oldest, self.ask_at].into_iter().flatten().min().unwrap_or(now + IDLE);
            tokio::select! {
                letters = self.inbox.take() => self.letters(letters),
                opened = next(&mut watch) => match opened {
                    Some(key) => self.opened(&key),
                    None => {
                        watch = None;
                        self.later(&"the watch ended");
                    }
                },
                () = sleep_until(wake) => {
                    let now = Instant::now();
                    if idle.is_some_and(|idle| idle <= now) && self.hub.end_lobby(&self.meeting, &self.inbox) {
                        return;
                    }
                    if self.ask_at.is_some_and(|at| at <= now) {
                        self.ask_at = None;
                    }
                    self.expire(now).await;
                }
                () = drain.finished() => {
                    drop(self.inbox.close());
                    return;
                }
            }
            if !self.new.is_empty() && self.ask_at.is_none() && watch.is_some() {
                self.ask().await;
            }
        }
    }

    fn letters(&mut self, letters: Letters) {
        self.new.extend(letters.joiners);
        for (_, who) in letters.left {
            self.new.retain(|joiner| joiner.sink.who() != who);
            self.waiting.remove(&who);
        }
        // Those in front have left: what is behind them may be remembered for long.
        while self.order.front().is_some_and(|(_, who)| !self.waiting.contains_key(who)) {
            self.order.pop_front();
        }
    }

    /// One question for all who are new.
    async fn ask(&mut self) {
        match self.hub.bus.current(&self.meeting).await {
            Ok(Some(meta)) => {
                for joiner in std::mem::take(&mut self.new) {
                    enter(&self.hub, &meta.key, joiner);
                }
                self.retry = RETRY.0;
            }
            Ok(None) => {
                let now = Instant::now();
                for joiner in self.new.drain(..) {
                    let who = joiner.sink.who();
                    self.order.push_back((now, who));
                    self.waiting.insert(who, Waiter { joiner, _waiting: metrics::waiting() });
                }
                self.retry = RETRY.0;
            }
            Err(error) => self.later(&error),
        }
    }

    fn later(&mut self, error: &dyn std::fmt::Display) {
        tracing::debug!(meeting = %self.meeting, %error, "the log cannot be asked for a meeting");
        self.ask_at = Some(Instant::now() + self.retry);
        self.retry = (self.retry * 2).min(RETRY.1);
    }

    fn opened(&mut self, key: &ConversationKey) {
        self.order.clear();
        for (_, waiter) in self.waiting.drain() {
            enter(&self.hub, key, Joiner { from_start: true, ..waiter.joiner });
        }
    }

    async fn expire(&mut self, now: Instant) {
        let wait = self.hub.config.wait_for_meeting.get();
        while let Some(&(since, who)) = self.order.front()
            && since + wait <= now
        {
            self.order.pop_front();
            let Some(waiter) = self.waiting.remove(&who) else { continue };
            metrics::cut("waited");
            match waiter.joiner.sink {
                Sink::Row(row) => {
                    let last = frame::close(CloseCode::Normal, "nobody opened the meeting");
                    self.hub.cores.core(row.core as usize).post(Post::CloseRow { row, last, reason: "waited" }).await;
                }
                Sink::Outbox(_, outbox) => outbox.close(CloseCode::Normal, "nobody opened the meeting"),
            }
        }
    }
}

fn enter(hub: &Arc<Inner>, key: &ConversationKey, joiner: Joiner) {
    // Refused only when the gateway ends, which closes its sockets itself.
    let _ = hub.enter(key, joiner);
}

async fn next(watch: &mut Option<Watch>) -> Option<ConversationKey> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}
