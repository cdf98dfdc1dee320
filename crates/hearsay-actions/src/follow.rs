//! Follows one conversation's log as the publisher `actions`, and puts on the list what the rules ask for.
//!
//! The watermark passes an entry only when everything it asks for is on the list, and the end only when what is due because
//! of it is. So whoever follows next, after any death, begins where nothing is missing; what it puts again is known already.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hearsay_bus::{
    Body, Bus, Claim, Error, Read, Refusal, Seen, State,
    append::{Appender, Reclaims},
    errand::FOLLOW,
    follow::{Follower, Step},
    publisher::{AfterBranch, Stretch},
};
use hearsay_conversation::{Conversation, Record, Sending, SendingState, Way};
use hearsay_protocol::{ConversationKey, Event, Offset, PublisherId, Timestamp, wire::Gap};
use hearsay_runtime::Drain;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    Actions, CALL, call,
    config::{On, server},
    ics,
    mail::Letter,
    metrics,
    payload::{Happened, Inferred, Minutes, errand},
    rules,
};

/// The lease is kept this often, and the errand of following with it.
const KEEP: Duration = Duration::from_secs(1);
/// Somebody else follows when nothing was kept for so long.
const KEPT: Duration = Duration::from_secs(4);
/// A lost last announcement is looked for every so many keeps.
const LOOK: u32 = 2;
/// Entries read at a time.
const PAGE: usize = 500;
/// What is due because of the end is put after this at the latest, whatever else is inferred.
const SETTLED: Duration = Duration::from_secs(35);
/// A conversation that does not exist may be about to open.
const OPENING: Duration = Duration::from_secs(60);
/// Mails to participants, for one rule.
const PARTICIPANTS: usize = 50;

/// How a turn ended.
enum Turn {
    /// Everything is on the list.
    Over,
    /// Somebody, here or elsewhere, goes on after this.
    Again(Duration),
}

/// Why a turn broke off.
enum Stop {
    Log(Error),
    /// The entries have become a record, or were dropped.
    Record,
    /// History is another.
    Branch,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Log(error)
    }
}

pub(crate) async fn follow(actions: &Actions, key: &ConversationKey) {
    let turn = match Box::pin(turn(actions, key)).await {
        Ok(turn) => turn,
        Err(error) => {
            tracing::debug!(%key, %error, "following waits for the log");
            Turn::Again(KEEP)
        }
    };
    let next = match turn {
        Turn::Over => None,
        Turn::Again(pause) => Some(pause),
    };
    if let Err(error) = call(actions.bus.errands().again(key, FOLLOW, next)).await {
        // It is taken up again when what was kept last is over.
        tracing::debug!(%key, %error, "where following stands could not be told");
    }
}

async fn turn(actions: &Actions, key: &ConversationKey) -> Result<Turn, Error> {
    let stopped = match call(actions.bus.claim(key, &PublisherId::Actions)).await {
        Ok(claim) => {
            let _present = metrics::following();
            match serve(actions, key, &claim).await {
                Ok(turn) => return Ok(turn),
                Err(stopped) => stopped,
            }
        }
        Err(error) => Stop::Log(error),
    };
    match stopped {
        Stop::Branch => Ok(Turn::Again(Duration::ZERO)),
        Stop::Record | Stop::Log(Error::Refused(Refusal::Ended)) => {
            // Whoever followed was gone for as long as the entries were there.
            if let Some(record) = load(&*actions.bus, key).await? {
                recorded(actions, key, &record).await?;
                conclude(actions, key, &record).await?;
            }
            Ok(Turn::Over)
        }
        Stop::Log(Error::Refused(Refusal::Gone)) => gone(actions, key).await,
        Stop::Log(Error::Refused(Refusal::Held { .. })) => Ok(Turn::Again(Duration::from_secs(2))),
        Stop::Log(Error::Refused(Refusal::Fenced { .. } | Refusal::Reclaim)) => Ok(Turn::Again(Duration::ZERO)),
        Stop::Log(error) => Err(error),
    }
}

/// Deleted, and with it all that is known of its errands; or not opened yet.
async fn gone(actions: &Actions, key: &ConversationKey) -> Result<Turn, Error> {
    let errands = actions.bus.errands();
    let put = call(errands.get(key, FOLLOW)).await?;
    let put = put.and_then(|what| std::str::from_utf8(&what).ok()?.parse().ok()).map(Timestamp);
    if put.is_some_and(|put| put.micros() > 0) {
        let now = call(actions.bus.now()).await?;
        if put.is_some_and(|put| now < put + OPENING) {
            return Ok(Turn::Again(KEEP));
        }
    }
    call(errands.forget(key)).await?;
    Ok(Turn::Over)
}

async fn serve(actions: &Actions, key: &ConversationKey, claim: &Claim) -> Result<Turn, Stop> {
    let bus = &actions.bus;
    let drain: Drain = actions.tasks.drain();
    let appender = Appender::new(
        Arc::clone(bus),
        key.clone(),
        PublisherId::Actions,
        claim,
        Reclaims::Elsewhere,
        AfterBranch::Forget,
    );
    let from = match claim.watermark {
        0 => Seen::NOTHING,
        watermark => Seen { epoch: claim.top.epoch, offset: Offset(watermark), check: None },
    };
    let mut following = Following {
        actions,
        key,
        appender,
        follower: Follower::new(from),
        done: claim.watermark,
        through: claim.watermark,
        put: false,
        ended: None,
        moved: Instant::now(),
    };
    let mut subscription = call(bus.subscribe(key)).await?;
    let mut keeping = interval(KEEP);
    keeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut kept, mut begun) = (0_u32, false);
    loop {
        if actions.is_full() {
            metrics::held_back();
        } else {
            following.catch_up().await?;
            if !begun {
                let meta = call(bus.meta(key)).await?;
                if meta.top.offset > following.follower.at().offset {
                    following.follower.missed();
                    continue;
                }
                if meta.state == State::Ended && following.ended.is_none() {
                    // What is due because of the end was put before the watermark passed it.
                    return Ok(Turn::Over);
                }
                begun = true;
            }
        }
        loop {
            let delivery = tokio::select! {
                delivery = subscription.next() => Some(delivery),
                _ = keeping.tick() => None,
                () = drain.cancelled() => return Ok(Turn::Again(Duration::ZERO)),
            };
            match delivery {
                // Read when there is room for what it asks for.
                Some(Some(_)) if actions.is_full() => following.follower.missed(),
                Some(Some(delivery)) => {
                    let mut steps = Vec::new();
                    following.follower.delivered(&delivery, &mut steps);
                    following.take(steps).await?;
                    if following.follower.is_behind() {
                        break;
                    }
                }
                // The log shuts down.
                Some(None) => return Ok(Turn::Again(KEEP)),
                None => {
                    call(bus.keep(key, &PublisherId::Actions, claim.generation)).await?;
                    call(bus.errands().again(key, FOLLOW, Some(KEPT))).await?;
                    kept = kept.wrapping_add(1);
                    if following.is_settled() {
                        return following.conclude().await;
                    }
                    if kept.is_multiple_of(LOOK) {
                        following.follower.missed();
                    }
                    if following.follower.is_behind() {
                        break;
                    }
                }
            }
        }
    }
}

/// One turn: a place on the log.
struct Following<'a> {
    actions: &'a Actions,
    key: &'a ConversationKey,
    appender: Appender,
    follower: Follower,
    /// The watermark.
    done: u64,
    /// What everything up to here asks for is on the list.
    through: u64,
    /// Something was put since the watermark moved.
    put: bool,
    ended: Option<Instant>,
    /// When the last entry came.
    moved: Instant,
}

impl Following<'_> {
    async fn catch_up(&mut self) -> Result<(), Stop> {
        while self.follower.is_behind() {
            let read = call(self.actions.bus.read(self.key, self.follower.at(), PAGE)).await?;
            let mut steps = Vec::new();
            self.follower.read(read, &mut steps);
            self.take(steps).await?;
        }
        Ok(())
    }

    async fn take(&mut self, steps: Vec<Step>) -> Result<(), Stop> {
        for step in steps {
            match step {
                Step::Epoch(_) => {}
                Step::Gap { reason: Gap::Branch, .. } => return Err(Stop::Branch),
                Step::Gap { .. } => return Err(Stop::Record),
                Step::Entry { entry, .. } => {
                    self.moved = Instant::now();
                    let Body::Event(event) = &entry.body else { continue };
                    match event {
                        Event::Insight(insight) => {
                            let told = Inferred::of(insight);
                            self.put |= put_insight(self.actions, self.key, &told, entry.at).await?;
                        }
                        Event::Ended(_) => self.ended = Some(Instant::now()),
                        _ => {}
                    }
                    if self.ended.is_none() {
                        self.through = entry.offset.0;
                    }
                }
            }
        }
        if std::mem::take(&mut self.put) {
            self.move_to(self.through).await?;
            self.actions.put.notify_one();
        }
        Ok(())
    }

    async fn move_to(&mut self, through: u64) -> Result<(), Error> {
        if through > self.done {
            let stretch = Stretch { from: self.done, through, events: Vec::new(), restart: None };
            self.appender.append(stretch, CALL).await?;
            self.done = through;
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        let settle = self.actions.config.settle.get();
        self.ended.is_some_and(|ended| self.moved.elapsed() >= settle || ended.elapsed() >= SETTLED)
            && !self.actions.is_full()
            && !self.follower.is_behind()
    }

    async fn conclude(mut self) -> Result<Turn, Stop> {
        let Some(record) = load(&*self.actions.bus, self.key).await? else { return Ok(Turn::Over) };
        conclude(self.actions, self.key, &record).await?;
        let through = self.follower.at().offset.0;
        self.move_to(through).await?;
        Ok(Turn::Over)
    }
}

/// What was said and inferred; none when it was deleted.
async fn load(bus: &dyn Bus, key: &ConversationKey) -> Result<Option<Record>, Error> {
    match read(bus, key).await {
        Err(Error::Refused(Refusal::Gone)) => Ok(None),
        answer => answer.map(Some),
    }
}

async fn read(bus: &dyn Bus, key: &ConversationKey) -> Result<Record, Error> {
    if let Some(bytes) = call(bus.record(key)).await? {
        return Record::parse(&bytes).map_err(|error| Error::Unavailable(error.to_string()));
    }
    let mut conversation = Conversation::default();
    let mut after = Seen::NOTHING;
    loop {
        match call(bus.read(key, after, PAGE)).await? {
            Read::Page(page) => {
                for entry in &page.entries {
                    conversation.apply(entry);
                    after = Seen { epoch: Some(page.epoch), offset: entry.offset, check: Some(entry.check) };
                }
                if page.entries.is_empty() || after.offset >= page.top.offset {
                    return Ok(Record::of(&conversation));
                }
            }
            // Became a record just now, or was dropped.
            Read::Gap { .. } => {
                let bytes = call(bus.record(key)).await?;
                let record = bytes.and_then(|bytes| Record::parse(&bytes).ok());
                return Ok(record.unwrap_or_else(|| Record::of(&conversation)));
            }
        }
    }
}

/// What the insights of a record ask for: all that was put is known.
async fn recorded(actions: &Actions, key: &ConversationKey, record: &Record) -> Result<(), Error> {
    let at = Timestamp(record.ended_us.unwrap_or(record.started_us));
    for it in &record.insights {
        put_insight(actions, key, &Inferred::recorded(record, it), at).await?;
    }
    Ok(())
}

/// Answers whether anything was put.
async fn put_insight(actions: &Actions, key: &ConversationKey, told: &Inferred, at: Timestamp) -> Result<bool, Error> {
    let Some(on) = On::insight(&told.kind) else { return Ok(false) };
    let mut happened = None;
    for rule in rules::webhooks(&actions.config, key, on, told.confidence) {
        let happened = happened.get_or_insert_with(|| told.happened(key, at));
        let sending = sending(happened, Way::Webhook, &rule.name, server(&rule.url), at);
        put(actions, key, "", sending, actions.config.per_conversation).await?;
    }
    Ok(happened.is_some())
}

/// What is due because of the end.
async fn conclude(actions: &Actions, key: &ConversationKey, record: &Record) -> Result<(), Error> {
    let config = &actions.config;
    let minutes = Minutes::of(key, record);
    let happened = minutes.happened(key);
    let at = call(actions.bus.now()).await?;
    // There is always room for these.
    let max = usize::MAX;
    for rule in rules::webhooks(config, key, On::Ended, 1.0) {
        let sending = sending(&happened, Way::Webhook, &rule.name, server(&rule.url), at);
        put(actions, key, "", sending, max).await?;
    }
    if let Some(mailer) = &actions.mails {
        for rule in rules::mails(config, key) {
            for (name, address) in receivers(&rule.to, &rule.participants_of, record) {
                let to = ics::Person { name: &name, email: &address };
                let letter = Letter::of(key, &minutes, &mailer.from, &to);
                let mut sending = sending(&happened, Way::Mail, &rule.name, address.clone(), at);
                sending.body = serde_json::to_string(&letter).ok();
                put(actions, key, &address, sending, max).await?;
            }
        }
    }
    relist(actions, key).await?;
    actions.put.notify_one();
    Ok(())
}

/// What a failover took off the list, although it is known, is listed again.
async fn relist(actions: &Actions, key: &ConversationKey) -> Result<(), Error> {
    let errands = actions.bus.errands();
    for (id, what) in call(errands.all(key)).await? {
        if Sending::parse(&what).is_some_and(|it| it.state == SendingState::Waiting) {
            call(errands.put(key, id, what, Duration::ZERO, usize::MAX)).await?;
        }
    }
    Ok(())
}

fn sending(happened: &Happened, way: Way, rule: &str, to: String, at: Timestamp) -> Sending {
    Sending {
        event: happened.id,
        kind: happened.kind.to_owned(),
        way,
        rule: rule.to_owned(),
        to,
        put_us: at.micros(),
        state: SendingState::Waiting,
        next_us: None,
        attempts: 0,
        latest: Vec::new(),
        body: Some(happened.body.clone()),
    }
}

async fn put(
    actions: &Actions,
    key: &ConversationKey,
    receiver: &str,
    sending: Sending,
    max: usize,
) -> Result<(), Error> {
    let id = errand(sending.event, &sending.rule, receiver);
    let what = Bytes::from(sending.to_bytes());
    match call(actions.bus.errands().put(key, id, what, Duration::ZERO, max)).await {
        Ok(true) => metrics::put(sending.way),
        Ok(false) => {}
        Err(Error::Refused(Refusal::Full { .. })) if max < usize::MAX => {
            tracing::warn!(%key, rule = sending.rule, "a message is left out: the conversation has as many as it may have");
            metrics::dropped();
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Names and addresses, each address once.
fn receivers(to: &[String], domains: &[String], record: &Record) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = to.iter().map(|address| (address.clone(), address.clone())).collect();
    let mut participants = 0;
    for member in &record.members {
        let Some(address) = member.email.as_deref().map(str::trim) else { continue };
        let Ok(parsed) = address.parse::<lettre::Address>() else { continue };
        let ours = domains.iter().any(|domain| domain.eq_ignore_ascii_case(parsed.domain()));
        let known = found.iter().any(|(_, known)| known.eq_ignore_ascii_case(address));
        if ours && !known && participants < PARTICIPANTS {
            participants += 1;
            found.push((member.name.clone().unwrap_or_else(|| address.to_owned()), address.to_owned()));
        }
    }
    found
}
