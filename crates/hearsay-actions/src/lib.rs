//! Automated actions: rules that turn an insight, or the end of a conversation, into signed webhooks and into mails with
//! calendar entries.
//!
//! Two halves that share a list on the bus ([`hearsay_bus::errand`]), so that either may die at any moment. *Following*
//! (`follow`) reads a conversation's log as the publisher `actions`, one process a conversation, and puts on the list what
//! the rules ask for, before its watermark passes the cause. *Sending* (`send`) takes from the list what is due, tries it
//! once, and writes down what came of it. What is put has an id that is a function of its cause, and what is sent carries
//! it: so everything is sent at least once, and whoever gets it twice can tell.

mod address;
mod config;
mod follow;
mod ics;
mod mail;
mod metrics;
mod pause;
mod payload;
mod rules;
mod send;
mod signature;
mod webhook;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hearsay_bus::{
    Bus, Error,
    errand::{FOLLOW, Taken},
};
use hearsay_runtime::Tasks;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

pub use config::{Config, Mail, On, Smtp, SmtpTls, Webhook};
pub use mail::MailError;
pub use signature::{Secret, SecretError};
pub use webhook::TrustError;

/// How long one call of the log may take.
const CALL: Duration = Duration::from_secs(5);
/// How often the list is looked at when nobody says that there is something on it.
const LOOK: Duration = Duration::from_millis(500);
/// What there is no room for is taken up again, here or elsewhere, after this.
const LATER: Duration = Duration::from_secs(1);
/// Beyond an attempt's own deadline, until it counts as lost.
const SLACK: Duration = Duration::from_secs(10);
/// Errands taken up in one go.
const BATCH: usize = 64;
/// Messages in hand: being sent, or waiting for their turn; and of one rule, so that one that hangs leaves room for others.
const IN_HAND: usize = 256;
const IN_HAND_OF_ONE: usize = 32;

/// Carries out the rules, for all conversations whose log is on this bus.
struct Actions {
    config: Config,
    bus: Arc<dyn Bus>,
    tasks: Tasks,
    webhooks: webhook::Client,
    mails: Option<mail::Mailer>,
    /// Something was put on the list.
    put: Notify,
    /// Errands on the list when it was last looked at.
    listed: AtomicUsize,
    following: Arc<Semaphore>,
    in_hand: Arc<Semaphore>,
    sending: Semaphore,
    by_rule: HashMap<String, Turns>,
}

/// What one rule may take up.
struct Turns {
    in_hand: Semaphore,
    sending: Semaphore,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(String),
    #[error("actions.webhooks, {name:?}: secret_file: {error}")]
    Secret { name: String, error: SecretError },
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("actions.smtp: {0}")]
    Mail(#[from] MailError),
}

/// Begins to carry out the rules; ends with the drain of `tasks`. Does nothing without rules.
///
/// # Errors
/// For a configuration that contradicts itself, and for files it names that cannot be used.
pub async fn start(config: Config, bus: Arc<dyn Bus>, tasks: &Tasks) -> Result<(), StartError> {
    if !config.is_configured() {
        return Ok(());
    }
    config.validate().map_err(StartError::Config)?;
    metrics::describe();
    for rule in &config.webhooks {
        let read = Secret::read(&rule.secret_file).await;
        drop(read.map_err(|error| StartError::Secret { name: rule.name.clone(), error })?);
    }
    let webhooks = webhook::Client::new(&config)?;
    let mails = match &config.smtp {
        Some(smtp) => Some(mail::Mailer::new(smtp, config.timeout.get()).await?),
        None => None,
    };
    let of_one = config.in_flight.get().div_ceil(2);
    let turns = || Turns { in_hand: Semaphore::new(IN_HAND_OF_ONE), sending: Semaphore::new(of_one) };
    let names = config.webhooks.iter().map(|rule| &rule.name).chain(config.mails.iter().map(|rule| &rule.name));
    let actions = Arc::new(Actions {
        by_rule: names.map(|name| (name.clone(), turns())).collect(),
        bus,
        tasks: tasks.clone(),
        webhooks,
        mails,
        put: Notify::new(),
        listed: AtomicUsize::new(0),
        following: Arc::new(Semaphore::new(config.conversations.get())),
        in_hand: Arc::new(Semaphore::new(IN_HAND)),
        sending: Semaphore::new(config.in_flight.get()),
        config,
    });
    tracing::info!(
        webhooks = actions.config.webhooks.len(),
        mails = actions.config.mails.len(),
        "conversations are followed for automated actions"
    );
    tasks.spawn_background("actions", actions.run());
    Ok(())
}

impl Actions {
    async fn run(self: Arc<Self>) {
        let drain = self.tasks.drain();
        loop {
            let pause = match self.take().await {
                Ok(true) => Duration::ZERO,
                Ok(false) => LOOK,
                Err(error) => {
                    tracing::warn!(%error, "actions wait for the log");
                    LATER
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.put.notified(), if pause <= LOOK => {}
                () = drain.cancelled() => return,
            }
        }
    }

    /// Takes up what there is room for. Answers whether there may be more.
    async fn take(self: &Arc<Self>) -> Result<bool, Error> {
        let room = self.in_hand.available_permits() + self.following.available_permits();
        let lease = self.config.timeout.get() + SLACK;
        let Taken { errands, listed } = call(self.bus.errands().take(room.min(BATCH), lease)).await?;
        self.listed.store(listed, Ordering::Relaxed);
        metrics::listed(listed);
        let full = errands.len() == BATCH;
        for (key, id) in errands {
            let room = if id == FOLLOW { &self.following } else { &self.in_hand };
            match Arc::clone(room).try_acquire_owned() {
                Ok(permit) => self.begin(permit, key, id),
                Err(_) => {
                    metrics::no_room(if id == FOLLOW { "following" } else { "sending" });
                    call(self.bus.errands().again(&key, id, Some(LATER))).await?;
                }
            }
        }
        Ok(full)
    }

    fn begin(self: &Arc<Self>, permit: OwnedSemaphorePermit, key: hearsay_protocol::ConversationKey, id: uuid::Uuid) {
        let actions = Arc::clone(self);
        if id == FOLLOW {
            drop(self.tasks.spawn("following", async move {
                follow::follow(&actions, &key).await;
                drop(permit);
            }));
        } else {
            drop(self.tasks.spawn("sending", async move {
                send::send(&actions, &key, id).await;
                drop(permit);
            }));
        }
    }

    /// As much is on the list as may be: the log keeps what is to follow.
    fn is_full(&self) -> bool {
        self.listed.load(Ordering::Relaxed) >= self.config.listed
    }
}

async fn call<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(CALL, call).await.unwrap_or_else(|_| Err(Error::Unavailable(format!("no answer within {CALL:?}"))))
}
