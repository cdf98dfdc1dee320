//! Takes one message from the list, tries it once, and writes down what came of it.
//!
//! Between the try and the writing a process may die: then somebody else tries it again, with the same id. Two that try at
//! once, because one was taken for dead, write one after the other, and the later finds that it is too late.

use std::time::Duration;

use bytes::Bytes;
use hearsay_bus::Error;
use hearsay_conversation::{Attempt, Sending, SendingState, Way};
use hearsay_protocol::{ConversationKey, Timestamp};
use tokio::{
    sync::SemaphorePermit,
    time::{Instant, timeout},
};
use uuid::Uuid;

use crate::{
    Actions, LATER, call,
    mail::{Left, Letter},
    metrics,
    pause::{self, Patience},
    signature::Secret,
    webhook::{Failed, Post},
};

/// What is not understood here is left to a version that does.
const NEWER: Duration = Duration::from_secs(60);

/// How long a message that is in hand waits for its rule, and then for anybody's turn.
const WAIT: Duration = Duration::from_secs(4);

/// Held while a message is sent; turns of a rule that there is no more need none.
type Turn<'a> = [Option<SemaphorePermit<'a>>; 3];

impl Actions {
    /// Waits for a turn to send by this rule; or else answers after which time to come again.
    async fn turn(&self, rule: &str) -> Result<Turn<'_>, Duration> {
        let drain = self.tasks.drain();
        let later = || {
            metrics::no_room("rule");
            LATER.mul_f64(1.0 + 4.0 * rand::random::<f64>())
        };
        let (mut in_hand, mut of_rule) = (None, None);
        if let Some(turns) = self.by_rule.get(rule) {
            in_hand = Some(turns.in_hand.try_acquire().map_err(|_| later())?);
            of_rule = tokio::select! {
                turn = timeout(WAIT, turns.sending.acquire()) => turn.map_err(|_| later())?.ok(),
                () = drain.cancelled() => return Err(Duration::ZERO),
            };
        }
        let any = tokio::select! {
            turn = timeout(WAIT, self.sending.acquire()) => turn.map_err(|_| later())?.ok(),
            () = drain.cancelled() => return Err(Duration::ZERO),
        };
        Ok([in_hand, of_rule, any])
    }
}

/// What became of a try.
struct Tried {
    outcome: &'static str,
    status: Option<u16>,
    answer: String,
    delivered: bool,
    /// It would fail again.
    hopeless: bool,
    /// What the receiver asks for.
    asked: Option<Duration>,
}

impl Tried {
    fn failed(outcome: &'static str, answer: impl ToString) -> Self {
        let answer = answer.to_string();
        Self { outcome, status: None, answer, delivered: false, hopeless: false, asked: None }
    }

    fn hopeless(answer: impl ToString) -> Self {
        Self { hopeless: true, ..Self::failed("refused", answer) }
    }
}

pub(crate) async fn send(actions: &Actions, key: &ConversationKey, id: Uuid) {
    if let Err(error) = attempt(actions, key, id).await {
        // It is due again when its lease ends.
        tracing::warn!(%key, %id, %error, "what became of a message is not written down");
    }
}

async fn attempt(actions: &Actions, key: &ConversationKey, id: Uuid) -> Result<(), Error> {
    let errands = actions.bus.errands();
    let Some(old) = call(errands.get(key, id)).await? else {
        // Its conversation was deleted.
        return call(errands.again(key, id, None)).await;
    };
    let Some(mut sending) = Sending::parse(&old) else {
        return call(errands.again(key, id, Some(NEWER))).await;
    };
    if sending.state != SendingState::Waiting {
        return call(errands.again(key, id, None)).await;
    }
    let _turn = match actions.turn(&sending.rule).await {
        Ok(turn) => turn,
        Err(pause) => return call(errands.again(key, id, Some(pause))).await,
    };
    let now = call(actions.bus.now()).await?;
    let begun = Instant::now();
    let tried = {
        let _present = metrics::sending(sending.way);
        match sending.way {
            Way::Webhook => webhook(actions, &sending, now).await,
            Way::Mail => mail(actions, id, &sending).await,
        }
    };
    let took = begun.elapsed();
    metrics::tried(sending.way, tried.outcome, took);
    let now = now + took;
    let config = &actions.config;
    let patience = Patience {
        first: config.retry_first.get(),
        longest: config.retry_longest.get(),
        give_up: config.give_up.get(),
    };
    let put = Timestamp(sending.put_us);
    let next = match (tried.delivered, tried.hopeless) {
        (false, false) => patience.after(sending.attempts + 1, tried.asked, put, now, rand::random()),
        _ => None,
    };
    let state = match (tried.delivered, next) {
        (true, _) => SendingState::Delivered,
        (false, Some(_)) => SendingState::Waiting,
        (false, None) => SendingState::GivenUp,
    };
    let attempt = Attempt {
        at_us: (now.micros()).saturating_sub(u64::try_from(took.as_micros()).unwrap_or(0)),
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        status: tried.status,
        answer: tried.answer,
    };
    if state != SendingState::Delivered {
        tracing::info!(
            %key, event = %sending.event, rule = sending.rule, status = ?attempt.status, answer = attempt.answer,
            again = ?next, "a message was not delivered"
        );
    }
    sending.tried(attempt, state, next.map(|pause| (now + pause).micros()));
    if !call(errands.swap(key, id, &old, Bytes::from(sending.to_bytes()))).await? {
        tracing::info!(%key, event = %sending.event, "another has tried this message meanwhile");
        return Ok(());
    }
    match state {
        SendingState::Waiting => {}
        SendingState::Delivered => {
            metrics::delivered(sending.way, Duration::from_micros(now.micros().saturating_sub(sending.put_us)));
        }
        SendingState::GivenUp => {
            metrics::given_up(sending.way);
            tracing::warn!(%key, event = %sending.event, rule = sending.rule, "nothing more is tried of a message");
        }
    }
    call(errands.again(key, id, next)).await
}

async fn webhook(actions: &Actions, sending: &Sending, now: Timestamp) -> Tried {
    let Some(rule) = actions.config.webhooks.iter().find(|rule| rule.name == sending.rule) else {
        return Tried::hopeless("no rule has this name any more");
    };
    let Some(body) = &sending.body else { return Tried::hopeless("there is nothing to send") };
    // Each time anew: secrets are changed while messages wait.
    let secret = match Secret::read(&rule.secret_file).await {
        Ok(secret) => secret,
        Err(error) => {
            tracing::error!(rule = rule.name, %error, "messages wait for their secret");
            return Tried::failed("refused", "the secret cannot be read");
        }
    };
    let (id, at) = (sending.event.to_string(), now.micros() / 1_000_000);
    let signature = secret.sign(&id, at, body.as_bytes());
    let post = Post { id: &id, at, signature: &signature, body: Bytes::from(body.clone()) };
    let answer = match actions.webhooks.post(&rule.url, post).await {
        Ok(answer) => answer,
        Err(error @ Failed::Refused(_)) => return Tried::failed("refused", error),
        Err(error) => return Tried::failed("unreachable", error),
    };
    let delivered = (200..300).contains(&answer.status);
    let asked = answer.retry_after.as_deref().and_then(|header| pause::asked(header, now));
    Tried {
        outcome: if delivered { "delivered" } else { "answered" },
        status: Some(answer.status),
        answer: if (300..400).contains(&answer.status) { "redirects are not followed".to_owned() } else { answer.text },
        delivered,
        // Gone says that nothing is ever wanted here again.
        hopeless: answer.status == 410,
        asked,
    }
}

async fn mail(actions: &Actions, id: Uuid, sending: &Sending) -> Tried {
    let Some(mailer) = &actions.mails else { return Tried::hopeless("no server for mails is configured any more") };
    let letter = sending.body.as_deref().and_then(|body| serde_json::from_str::<Letter>(body).ok());
    let Some(letter) = letter else { return Tried::hopeless("there is nothing to send") };
    match mailer.send(id, &sending.to, &letter, Timestamp(sending.put_us)).await {
        Left::Taken(status, answer) => {
            Tried { outcome: "delivered", status: Some(status), answer, delivered: true, hopeless: false, asked: None }
        }
        Left::Answered { status, answer, permanent } => Tried {
            outcome: if status.is_some() { "answered" } else { "unreachable" },
            status,
            answer,
            delivered: false,
            hopeless: permanent,
            asked: None,
        },
    }
}
