//! What is owed to others because of a conversation: a list that outlives every process, and a memory of what came of it.
//!
//! An errand is put on the list once, by an id that is a function of its cause; whoever takes it up has it for a while,
//! and when nothing is heard of it by then, somebody else takes it up. So it is done at least once, and whoever it is
//! done to tells repetitions by its id. What an errand says is the business of those who put and take it.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use hearsay_protocol::{ConversationKey, Timestamp};
use uuid::Uuid;

use crate::{Error, Refusal};

/// The errand of every conversation that opens ([`crate::Limits::followed`]): to see what is to be done because of it. It
/// says when it was put, µs since the Unix epoch in decimal digits.
pub const FOLLOW: Uuid = Uuid::nil();
/// From the opening to the moment at which somebody looks.
pub(crate) const FOLLOW_AFTER: Duration = Duration::from_secs(1);

/// The list. As with all calls of the log, one that failed as [`Error::Unavailable`] may or may not have happened, and can
/// be repeated without harm.
pub trait Errands: Send + Sync {
    /// Puts an errand on the list, to be taken up after `after`. Answers false, and leaves what it says and when it is due
    /// as they are, when it is known already; one that was struck off is then taken up once more, and says that it is done.
    ///
    /// # Errors
    /// [`Refusal::Full`] when `max` of this conversation are known.
    fn put<'a>(
        &'a self,
        key: &'a ConversationKey,
        id: Uuid,
        what: Bytes,
        after: Duration,
        max: usize,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// What it says. None: it is not known, or its conversation was deleted.
    fn get<'a>(&'a self, key: &'a ConversationKey, id: Uuid) -> BoxFuture<'a, Result<Option<Bytes>, Error>>;

    /// All of a conversation, done or not, in the order of their ids.
    fn all<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<Vec<(Uuid, Bytes)>, Error>>;

    /// Replaces what it says, unless it says something else than `old` by now: then the answer is false.
    fn swap<'a>(
        &'a self,
        key: &'a ConversationKey,
        id: Uuid,
        old: &'a [u8],
        new: Bytes,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// It is to be taken up after this time, or, with none, not any more. What it says stays known.
    fn again<'a>(
        &'a self,
        key: &'a ConversationKey,
        id: Uuid,
        after: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Takes up at most `max` that are due. Each is due again after `lease`, unless [`Errands::again`] says otherwise.
    fn take(&self, max: usize, lease: Duration) -> BoxFuture<'_, Result<Taken, Error>>;

    /// Forgets all of a conversation.
    fn forget<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<(), Error>>;
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Taken {
    pub errands: Vec<(ConversationKey, Uuid)>,
    /// On the list, due or not.
    pub listed: usize,
}

/// The list in the memory of a process.
#[derive(Default)]
pub(crate) struct Book {
    known: HashMap<ConversationKey, BTreeMap<Uuid, Bytes>>,
    listed: HashMap<(ConversationKey, Uuid), Timestamp>,
}

impl Book {
    pub(crate) fn put(
        &mut self,
        key: &ConversationKey,
        id: Uuid,
        what: Bytes,
        due: Timestamp,
        max: usize,
    ) -> Result<bool, Error> {
        let known = self.known.entry(key.clone()).or_default();
        let new = !known.contains_key(&id);
        if new && known.len() >= max {
            return Err(full());
        }
        known.entry(id).or_insert(what);
        self.listed.entry((key.clone(), id)).or_insert(due);
        Ok(new)
    }

    pub(crate) fn get(&self, key: &ConversationKey, id: Uuid) -> Option<Bytes> {
        self.known.get(key)?.get(&id).cloned()
    }

    pub(crate) fn all(&self, key: &ConversationKey) -> Vec<(Uuid, Bytes)> {
        let known = self.known.get(key).into_iter().flatten();
        known.map(|(id, what)| (*id, what.clone())).collect()
    }

    pub(crate) fn swap(&mut self, key: &ConversationKey, id: Uuid, old: &[u8], new: Bytes) -> bool {
        match self.known.get_mut(key).and_then(|known| known.get_mut(&id)) {
            Some(what) if what == old => {
                *what = new;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn again(&mut self, key: &ConversationKey, id: Uuid, due: Option<Timestamp>) {
        let place = (key.clone(), id);
        match due {
            Some(due) => _ = self.listed.insert(place, due),
            None => _ = self.listed.remove(&place),
        }
    }

    pub(crate) fn take(&mut self, max: usize, now: Timestamp, lease: Duration) -> Taken {
        let mut due: Vec<_> = self.listed.iter_mut().filter(|(_, due)| **due <= now).collect();
        due.sort_unstable_by_key(|(_, due)| **due);
        let errands = due.into_iter().take(max).map(|((key, id), due)| {
            *due = now + lease;
            (key.clone(), *id)
        });
        Taken { errands: errands.collect(), listed: self.listed.len() }
    }

    pub(crate) fn forget(&mut self, key: &ConversationKey) {
        if let Some(known) = self.known.remove(key) {
            for id in known.into_keys() {
                self.listed.remove(&(key.clone(), id));
            }
        }
    }
}

pub(crate) fn full() -> Error {
    Refusal::Full { what: "as many errands of the conversation are known as may be" }.into()
}
