//! What a feed, or a meeting's lobby, is told: who joins, who left, and what members ask for. Anybody may put, one task
//! takes. Bounded by the sockets there are: each stands in it at most once for each thing it can say.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hearsay_bus::{Seen, Tail};
use hearsay_protocol::{MeetingKey, ParticipantId, Position};
use tokio::sync::{Notify, oneshot};

use crate::{Audience, Outbox, snapshot::Picture};

/// A row of a core. A key outlives its row: the generation tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RowKey {
    pub(crate) core: u32,
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl RowKey {
    /// Both numbers in one, as `epoll` hands them back.
    pub(crate) fn data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }
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

#[derive(Debug, Clone, thiserror::Error)]
pub enum JoinError {
    #[error("the conversation does not exist or was deleted")]
    Gone,
    #[error("the gateway is shutting down")]
    ShuttingDown,
}

/// Readers on one core (or with outboxes) that receive the same bytes; unique in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct GroupId(pub(crate) u64);

/// A group, and who is told when one of it leaves.
pub(crate) struct GroupLink {
    pub(crate) id: GroupId,
    pub(crate) owner: Arc<Inbox>,
}

/// Names an outbox in its feed; unique in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct MemberId(pub(crate) u64);

/// Where a member's bytes go.
#[derive(Clone)]
pub(crate) enum Sink {
    Row(RowKey),
    Outbox(MemberId, Outbox),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Row(RowKey),
    Outbox(MemberId),
}

impl Sink {
    pub(crate) fn who(&self) -> Who {
        match self {
            Self::Row(row) => Who::Row(*row),
            Self::Outbox(member, _) => Who::Outbox(*member),
        }
    }
}

/// Somebody who wants to become a member.
pub(crate) struct Joiner {
    pub(crate) sink: Sink,
    pub(crate) audience: Audience,
    /// Who speaks there; none: it only listens.
    pub(crate) speaker: Option<ParticipantId>,
    pub(crate) since: Option<Position>,
    pub(crate) history: History,
    /// Waited when the conversation opened: sees it from its first event.
    pub(crate) from_start: bool,
    /// Told when it is a member, or why not.
    pub(crate) reply: Option<oneshot::Sender<Result<(), JoinError>>>,
}

/// A joiner that has read history.
pub(crate) struct Ready {
    pub(crate) joiner: Joiner,
    pub(crate) at: Seen,
    /// Frames that belong before the first live one and are not written yet.
    pub(crate) prelude: Vec<u8>,
    /// Given back when it must read on: what it missed is not remembered.
    pub(crate) behind: oneshot::Sender<Box<Ready>>,
}

#[derive(Default)]
pub(crate) struct Letters {
    pub(crate) joiners: Vec<Joiner>,
    pub(crate) left: Vec<(Option<GroupId>, Who)>,
    pub(crate) views: Vec<(MemberId, Audience, ParticipantId)>,
    /// Joiners that have read history up to a position.
    pub(crate) ready: Vec<Ready>,
    pub(crate) pictures: Vec<Picture>,
    /// The newest word on the log's end; none inside: the log could not be asked.
    pub(crate) tail: Option<Option<Tail>>,
}

#[derive(Default)]
struct State {
    letters: Letters,
    closed: bool,
}

pub(crate) struct Inbox {
    /// Whose members write here.
    pub(crate) meeting: MeetingKey,
    state: Mutex<State>,
    filled: Notify,
}

impl Inbox {
    pub(crate) fn new(meeting: MeetingKey) -> Self {
        Self { meeting, state: Mutex::default(), filled: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, write: impl FnOnce(&mut Letters)) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        write(&mut state.letters);
        drop(state);
        self.filled.notify_one();
        true
    }

    /// Gives the joiner back when nobody reads this any more.
    pub(crate) fn join(&self, joiner: Joiner) -> Result<(), Joiner> {
        let mut state = self.lock();
        if state.closed {
            return Err(joiner);
        }
        state.letters.joiners.push(joiner);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    pub(crate) fn left(&self, group: Option<GroupId>, who: Who) {
        self.put(|letters| letters.left.push((group, who)));
    }

    pub(crate) fn view(&self, member: MemberId, audience: Audience, speaker: ParticipantId) {
        self.put(|letters| {
            letters.views.retain(|(who, ..)| *who != member);
            letters.views.push((member, audience, speaker));
        });
    }

    pub(crate) fn ready(&self, ready: Ready) {
        self.put(|letters| letters.ready.push(ready));
    }

    pub(crate) fn picture(&self, picture: Picture) {
        self.put(|letters| letters.pictures.push(picture));
    }

    pub(crate) fn tail(&self, tail: Option<Tail>) {
        self.put(|letters| letters.tail = Some(tail));
    }

    /// Everything there is, oldest first; waits until there is something. Safe to drop.
    pub(crate) async fn take(&self) -> Letters {
        loop {
            if let Some(letters) = self.take_now() {
                return letters;
            }
            self.filled.notified().await;
        }
    }

    pub(crate) fn take_now(&self) -> Option<Letters> {
        let mut state = self.lock();
        let letters = &state.letters;
        let something = !letters.joiners.is_empty()
            || !letters.left.is_empty()
            || !letters.views.is_empty()
            || !letters.ready.is_empty()
            || !letters.pictures.is_empty()
            || letters.tail.is_some();
        something.then(|| std::mem::take(&mut state.letters))
    }

    /// Closes unless somebody wants to join: then there is more to do.
    pub(crate) fn close_if_idle(&self) -> bool {
        let mut state = self.lock();
        if state.letters.joiners.is_empty() {
            state.closed = true;
        }
        state.closed
    }

    /// Closes, and gives back who wanted to join.
    pub(crate) fn close(&self) -> Vec<Joiner> {
        let mut state = self.lock();
        state.closed = true;
        std::mem::take(&mut state.letters).joiners
    }
}
