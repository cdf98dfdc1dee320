//! What recognizers have to know of a conversation before they publish a word of it: whether anybody asked that what is
//! personal be hidden, whose names are personal, what was said last, since numbers go on across utterances, and whether
//! anybody wants to know how it feels.
//!
//! Taken from the log alone, so whoever takes a stream over hides the same. One task a conversation heard here; it ends
//! with the last stream.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hearsay_bus::{
    Body, Bus, Error, Refusal,
    follow::{Follower, Step},
};
use hearsay_insight::{
    grammar::Names,
    redact::{Redacted, Redaction, Redactor},
};
use hearsay_protocol::{
    ConversationKey, Event, Position, Seen, StreamId,
    event::{Participant, SpeakerConfig, SpokenWord},
};
use hearsay_runtime::Tasks;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

/// How long one call of the log may take.
const CALL: Duration = Duration::from_secs(5);
/// Between two tries when the log is out of reach.
const AGAIN: Duration = Duration::from_millis(500);
/// A lost announcement is looked for this often; the next one tells of it earlier.
const LOOK: Duration = Duration::from_secs(10);
/// Entries read at a time.
const PAGE: usize = 500;
/// Texts of a stream that a number may go on from: of more than this, only fillers are in between.
const LAST: usize = 4;
/// People whose names are hidden; of who comes later, they are not.
const ROSTER: usize = 256;

/// The conversations heard here. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rooms {
    inner: Arc<Inner>,
}

struct Inner {
    bus: Arc<dyn Bus>,
    tasks: Tasks,
    /// As many as there are conversations heard here.
    open: Mutex<HashMap<ConversationKey, watch::Sender<Known>>>,
}

/// One stream's view of its conversation.
pub(crate) struct Room {
    known: watch::Receiver<Known>,
    stream: StreamId,
    /// What the log held when the stream came here.
    since: Option<Position>,
    /// Asked for by the stream itself.
    own: Option<Arc<str>>,
    feels: bool,
    /// What was published in this stay, latest last.
    said: VecDeque<Arc<str>>,
}

#[derive(Default)]
struct Known {
    /// Read at least once to its end, then.
    read: bool,
    /// Nothing more is learnt.
    over: bool,
    at: Option<Position>,
    /// What stands in place of what is personal, as the first who asked wants it. Nobody can take it back for others.
    hide: Option<Arc<str>>,
    /// Somebody asked for sentiment: it is weighed for all, also when who asked has left.
    feels: bool,
    people: Vec<Arc<Participant>>,
    names: Arc<Names>,
    said: HashMap<StreamId, VecDeque<Arc<str>>>,
}

impl Rooms {
    pub(crate) fn new(bus: Arc<dyn Bus>, tasks: &Tasks) -> Self {
        Self { inner: Arc::new(Inner { bus, tasks: tasks.clone(), open: Mutex::default() }) }
    }

    /// A stream of this conversation is heard here, from when the log's newest entry was `seen`.
    pub(crate) fn enter(&self, key: &ConversationKey, stream: StreamId, seen: Seen, config: &SpeakerConfig) -> Room {
        let mut open = self.inner.lock();
        let known = open.get(key).map(watch::Sender::subscribe).unwrap_or_else(|| {
            let (known, watched) = watch::channel(Known::default());
            open.insert(key.clone(), known.clone());
            let (inner, key) = (Arc::clone(&self.inner), key.clone());
            drop(self.inner.tasks.spawn_background("room", async move { inner.watch(&key, &known).await }));
            watched
        });
        drop(open);
        Room {
            known,
            stream,
            since: seen.position(),
            own: wish(config),
            feels: config.sentiment,
            said: VecDeque::new(),
        }
    }
}

impl Room {
    /// Whether what the log held when the stream came here is known.
    pub(crate) fn is_known(&self) -> bool {
        self.known.borrow().covers(self.since)
    }

    /// Returns when it is. Safe to drop.
    pub(crate) async fn known(&mut self) {
        let since = self.since;
        // Its task ends with the last room, or with the process.
        let _ = self.known.wait_for(|known| known.covers(since)).await;
    }

    /// The stream asks for something else from here on. What it asked to be hidden stays hidden: earlier words may not
    /// be published yet.
    pub(crate) fn configure(&mut self, config: &SpeakerConfig) {
        if let Some(wish) = wish(config) {
            self.own = Some(wish);
        }
        self.feels |= config.sentiment;
    }

    /// Somebody wants to know the sentiment of what is said.
    pub(crate) fn feels(&self) -> bool {
        self.feels || self.known.borrow().feels
    }

    fn redactor(&self) -> Option<Redactor> {
        let known = self.known.borrow();
        let replacement = self.own.as_ref().or(known.hide.as_ref())?;
        let mut redactor = Redactor::new(Redaction::all(Some(replacement.to_string())), Arc::clone(&known.names));
        let before = known.said.get(&self.stream).filter(|_| self.said.is_empty());
        redactor.resume(before.unwrap_or(&self.said).iter().map(|text| &**text));
        Some(redactor)
    }

    /// What may be shown of a text that may still change; none where all of it may.
    pub(crate) fn partial(&self, text: &str) -> Option<Redacted> {
        self.redactor().map(|redactor| redactor.partial(text))
    }

    /// What may be published of an utterance; none where all of it may.
    pub(crate) fn last(&self, text: &str) -> Option<Redacted> {
        self.redactor().map(|mut redactor| redactor.last(text))
    }

    /// An utterance was published.
    pub(crate) fn said(&mut self, text: &str) {
        remember(&mut self.said, text);
    }
}

/// The words of a text of which something was hidden: what was hidden together is one.
pub(crate) fn words(hidden: &Redacted, words: &[SpokenWord]) -> Vec<SpokenWord> {
    let word = |piece: &hearsay_insight::redact::Piece| {
        let of = words.get(piece.words.clone())?;
        let (first, last) = (of.first()?, of.last()?);
        let confidence = of.iter().map(|it| it.confidence).fold(1.0, f32::min);
        Some(SpokenWord { text: piece.text.clone(), start: first.start, end: last.end, confidence })
    };
    hidden.pieces.iter().filter_map(word).collect()
}

fn wish(config: &SpeakerConfig) -> Option<Arc<str>> {
    let wish = config.redaction.as_ref().filter(|it| it.redact)?;
    // Texts are cut into words at spaces.
    let one: String = wish.replacement.trim().replace(char::is_whitespace, "\u{a0}");
    Some(if one.is_empty() { "****".into() } else { one.into() })
}

fn remember(said: &mut VecDeque<Arc<str>>, text: &str) {
    if said.len() >= LAST {
        said.pop_front();
    }
    said.push_back(text.into());
}

impl Known {
    fn covers(&self, since: Option<Position>) -> bool {
        let there = match (self.at, since) {
            (_, None) => true,
            (Some(at), Some(since)) => at.epoch == since.epoch && at.offset >= since.offset,
            (None, Some(_)) => false,
        };
        self.over || self.read && there
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::StreamStarted(started) => {
                self.meet(&started.participant);
                self.wish(&started.config);
            }
            Event::Joined(who) => self.meet(who),
            Event::ConfigChanged(changed) => self.wish(&changed.config),
            Event::Final(spoken) => remember(self.said.entry(spoken.stream).or_default(), &spoken.text),
            Event::StreamEnded(ended) => drop(self.said.remove(&ended.stream)),
            Event::Started(_) | Event::Left(_) | Event::Insight(_) | Event::Ended(_) => {}
        }
    }

    fn wish(&mut self, config: &SpeakerConfig) {
        self.feels |= config.sentiment;
        if self.hide.is_none() {
            self.hide = wish(config);
        }
    }

    fn meet(&mut self, who: &Arc<Participant>) {
        let many = self.people.len() >= ROSTER;
        match self.people.iter_mut().find(|known| known.id == who.id) {
            Some(known) if known == who => return,
            Some(known) => *known = Arc::clone(who),
            None if many => return,
            None => self.people.push(Arc::clone(who)),
        }
        self.names = Arc::new(Names::new(self.people.iter().filter_map(|it| it.name.as_deref()), &[]));
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<ConversationKey, watch::Sender<Known>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody is heard; under the lock that a new stream takes.
    fn leave(&self, key: &ConversationKey, known: &watch::Sender<Known>) -> bool {
        let mut open = self.lock();
        let empty = known.receiver_count() == 0;
        if empty {
            open.remove(key);
        }
        empty
    }

    async fn watch(&self, key: &ConversationKey, known: &watch::Sender<Known>) {
        let drain = self.tasks.drain();
        let mut follower = Follower::new(Seen::NOTHING);
        loop {
            // It may have been without a subscription.
            follower.missed();
            let error = tokio::select! {
                error = self.follow(key, known, &mut follower) => error,
                () = known.closed() => None,
                () = drain.finished() => return,
            };
            match error {
                // What is published there is refused.
                Some(Error::Refused(Refusal::Ended | Refusal::Gone)) => {
                    known.send_modify(|known| known.over = true);
                    known.closed().await;
                }
                Some(error) => {
                    tracing::debug!(%key, %error, "a room waits for the log");
                    sleep(AGAIN).await;
                }
                None => {}
            }
            if self.leave(key, known) {
                return;
            }
        }
    }

    /// Keeps what is known up to date. Ends with an error, or with the log.
    async fn follow(
        &self,
        key: &ConversationKey,
        known: &watch::Sender<Known>,
        follower: &mut Follower,
    ) -> Option<Error> {
        let mut subscription = match call(self.bus.subscribe(key)).await {
            Ok(subscription) => subscription,
            Err(error) => return Some(error),
        };
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut steps = Vec::new();
            while follower.is_behind() {
                match call(self.bus.read(key, follower.at(), PAGE)).await {
                    Ok(read) => follower.read(read, &mut steps),
                    Err(error) => return Some(error),
                }
            }
            learn(known, &mut steps, follower.at());
            tokio::select! {
                delivery = subscription.next() => match delivery {
                    Some(delivery) => {
                        follower.delivered(&delivery, &mut steps);
                        learn(known, &mut steps, follower.at());
                    }
                    // The log shuts down.
                    None => return Some(Error::Unavailable("the subscription ended".to_owned())),
                },
                _ = look.tick() => follower.missed(),
            }
        }
    }
}

fn learn(known: &watch::Sender<Known>, steps: &mut Vec<Step>, at: Seen) {
    known.send_if_modified(|known| {
        for step in steps.drain(..) {
            if let Step::Entry { entry, .. } = step
                && let Body::Event(event) = &entry.body
            {
                known.apply(event);
            }
        }
        let before = (known.read, known.at);
        known.read = true;
        known.at = at.position().or(known.at);
        before != (known.read, known.at)
    });
}

async fn call<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(CALL, call).await.unwrap_or_else(|_| Err(Error::Unavailable(format!("no answer within {CALL:?}"))))
}

#[cfg(test)]
mod tests {
    use hearsay_protocol::{
        ParticipantId, StreamTime, Timestamp, UtteranceId,
        event::{ConfigChanged, Final, Redaction as Wish},
    };
    use uuid::Uuid;

    use super::*;

    fn anna() -> Arc<Participant> {
        let id = ParticipantId(Uuid::from_u128(1));
        Arc::new(Participant { id, user_id: None, name: Some("Anna Kim".to_owned()), email: None })
    }

    fn stream() -> StreamId {
        StreamId(Uuid::from_u128(2))
    }

    fn says(text: &str) -> Event {
        Event::Final(Arc::new(Final {
            sentiment: Vec::new(),
            trace: None,
            stream: stream(),
            utterance: UtteranceId::after_cut(stream(), StreamTime(0)),
            participant: anna(),
            origin: Timestamp(0),
            start: StreamTime(0),
            end: StreamTime(1),
            text: text.to_owned(),
            language: "en-US".to_owned(),
            confidence: 1.0,
            words: Vec::new(),
        }))
    }

    fn asks(replacement: &str, redact: bool) -> SpeakerConfig {
        let redaction = Some(Wish { identify: true, redact, replacement: replacement.to_owned() });
        SpeakerConfig { redaction, ..SpeakerConfig::default() }
    }

    fn room(known: &watch::Sender<Known>) -> Room {
        Room { known: known.subscribe(), stream: stream(), since: None, own: None, feels: false, said: VecDeque::new() }
    }

    #[test]
    fn a_number_goes_on_where_another_recognizer_heard_its_beginning() {
        let (known, _watched) = watch::channel(Known::default());
        let mut room = room(&known);
        assert_eq!(room.last("5 5 5."), None, "nobody asked");
        let changed = ConfigChanged { stream: StreamId(Uuid::from_u128(3)), config: asks("#", true) };
        known.send_modify(|known| {
            known.apply(&says("My card is 4 1 1 1"));
            known.apply(&Event::ConfigChanged(Arc::new(changed)));
            known.apply(&Event::Joined(anna()));
        });
        assert_eq!(room.last("5 5, says Anna.").unwrap().text, "#, says #.");
        assert_eq!(room.partial("5 5, says Anna.").unwrap().text, "#, says #.");
        // What was said here is newer.
        room.said("Nothing of the kind.");
        assert_eq!(room.last("5 5, says Anna.").unwrap().text, "5 5, says #.");
    }

    #[test]
    fn what_was_asked_stays_asked() {
        let (known, _watched) = watch::channel(Known::default());
        let mut room = room(&known);
        room.configure(&asks("", false));
        assert_eq!(room.last("anna@example.org"), None, "only to be told of");
        room.configure(&asks(" not  told ", true));
        room.configure(&SpeakerConfig::default());
        assert_eq!(room.last("anna@example.org").unwrap().text, "not\u{a0}\u{a0}told");
        room.configure(&asks("  ", true));
        assert_eq!(room.last("anna@example.org").unwrap().text, "****");
    }

    #[test]
    fn sentiment_is_weighed_when_anybody_asks() {
        let (known, _watched) = watch::channel(Known::default());
        let mut here = room(&known);
        assert!(!here.feels());
        let config = SpeakerConfig { sentiment: true, ..SpeakerConfig::default() };
        here.configure(&config);
        assert!(here.feels() && !room(&known).feels());
        let changed = ConfigChanged { stream: StreamId(Uuid::from_u128(3)), config };
        known.send_modify(|known| known.apply(&Event::ConfigChanged(Arc::new(changed))));
        assert!(room(&known).feels());
    }

    #[test]
    fn what_is_not_read_yet_is_waited_for() {
        let at = |epoch, offset| {
            Some(Position { epoch: hearsay_protocol::Epoch(epoch), offset: hearsay_protocol::Offset(offset) })
        };
        let mut known = Known::default();
        assert!(!known.covers(None));
        known.read = true;
        assert!(known.covers(None) && !known.covers(at(1, 1)));
        known.at = at(1, 4);
        assert!(known.covers(at(1, 4)) && !known.covers(at(1, 5)) && !known.covers(at(2, 1)));
        known.over = true;
        assert!(known.covers(at(2, 1)));
    }
}
