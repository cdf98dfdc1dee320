//! The bounded way to one socket that has a task of its own: speakers, and listeners behind TLS.
//!
//! Replies, events, pongs and the close share one queue, so they leave in one order. Whoever offers never waits. What
//! happens when there is little room:
//! * a **partial** replaces the queued one of the same utterance, and is skipped when less than [`OutboxLimits::reserved`]
//!   bytes are left: the next one, or the final, will say the same and more;
//! * a **durable** event and a **control** message are never dropped: when they do not fit, the socket is cut. What was
//!   queued is given up, so that the *resume point* (the last position handed to the socket) tells the truth, and the client
//!   hears an error `slow_reader` and a close frame.
//!
//! The close code of a cut is 1008. An empty close frame would bring every stock client back at once, into the same
//! congestion and without what it missed; after 1008 browsers stay away, Node clients return, and clients that know
//! positions read the resume point. A socket that takes no bytes at all never sees the frame: it is dropped, and that
//! brings all of them back, as a broken network should.
//!
//! Cost: one allocation per socket, one small lock per offer (speakers are few; listeners are rows, without either).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use hearsay_protocol::{CloseCode, Position, StreamId, UtteranceId, client::ErrorCode, wire};
use tokio::sync::Notify;

use crate::{
    frame,
    metrics::{self, Since},
    registry::Inner,
};

/// Largest buffer [`Outgoing::next`] makes of several frames.
const MERGE: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Bytes queued before the socket is cut.
    pub bytes: usize,
    /// Kept free of partials.
    pub reserved: usize,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        // Several minutes of a lively meeting's finals.
        Self { bytes: 512 * 1024, reserved: 384 * 1024 }
    }
}

/// What frames are, and so what becomes of them when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A reply to this socket: never dropped.
    Control,
    /// Durable events: never dropped. `reaches`: the socket is at this position once they are written.
    Durable { reaches: Position },
    /// An utterance so far: the newest of each utterance is enough.
    Partial { stream: StreamId, utterance: UtteranceId },
    /// Worth hearing now or not at all.
    Fleeting,
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    Queued,
    /// In the place of an older partial of the same utterance.
    Conflated,
    /// No room for anything that is not durable.
    Skipped,
    /// The socket was too slow and is being cut.
    Evicted,
    /// The socket is being closed, or gone.
    Closed,
}

/// Why no more will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// Too slow. The socket is complete up to `resume`.
    Evicted { resume: Option<Position> },
    /// [`Outbox::close`] was called.
    Closed(CloseCode),
    /// The writing half is gone.
    PeerGone,
}

struct Item {
    bytes: Bytes,
    class: Class,
    since: Since,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    /// The position the socket has reached with everything handed to it.
    reached: Option<Position>,
    /// The last word, in a slot of its own: there is always room for it.
    farewell: Option<Bytes>,
    broken: Option<Broken>,
    /// Called once when the socket takes no more: tells a feed that a member left.
    on_broken: Option<Box<dyn FnOnce() + Send>>,
}

struct Shared {
    limits: OutboxLimits,
    queue: Mutex<Queue>,
    /// Something to write.
    filled: Notify,
    /// Something was written, or nothing will be.
    drained: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the queue; only the first reason counts.
    fn end(&self, mut queue: MutexGuard<'_, Queue>, broken: Broken) {
        if queue.broken.is_none() {
            queue.broken = Some(broken);
        }
        let left = queue.on_broken.take();
        drop(queue);
        self.filled.notify_one();
        self.drained.notify_waiters();
        if let Some(left) = left {
            left();
        }
    }
}

/// Where frames for one socket are put. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

/// What the socket's writer takes from. Dropping it tells everybody that the socket is gone.
pub struct Outgoing {
    shared: Arc<Shared>,
    /// Of what was taken and is being written.
    under_way: Option<Since>,
}

impl Outbox {
    pub fn new(limits: OutboxLimits) -> (Self, Outgoing) {
        let shared =
            Arc::new(Shared { limits, queue: Mutex::default(), filled: Notify::new(), drained: Notify::new() });
        (Self { shared: Arc::clone(&shared) }, Outgoing { shared, under_way: None })
    }

    /// Puts finished frames (see [`frame`]) behind what is queued. Never waits.
    pub fn offer(&self, bytes: Bytes, class: Class) -> Offer {
        self.offer_since(bytes, class, Since::default())
    }

    /// The same, of events that are as old as this.
    pub(crate) fn offer_since(&self, bytes: Bytes, class: Class, since: Since) -> Offer {
        let Shared { limits, .. } = *self.shared;
        let mut queue = self.shared.lock();
        if queue.broken.is_some() {
            return Offer::Closed;
        }
        let room = limits.bytes.saturating_sub(queue.bytes);
        match class {
            Class::Partial { .. } => {
                if let Some(index) = queue.items.iter().rposition(|item| item.class == class) {
                    let old = queue.items[index].bytes.len();
                    metrics::conflated(1);
                    if bytes.len() > old + room {
                        return Offer::Skipped;
                    }
                    // At the back: in the order of what the frames follow.
                    queue.items.remove(index);
                    queue.bytes = queue.bytes - old + bytes.len();
                    queue.items.push_back(Item { bytes, class, since });
                    return Offer::Conflated;
                }
                if room < limits.reserved + bytes.len() {
                    metrics::conflated(1);
                    return Offer::Skipped;
                }
            }
            Class::Fleeting if room < limits.reserved + bytes.len() => return Offer::Skipped,
            Class::Control | Class::Durable { .. } if room < bytes.len() => {
                metrics::cut("slow");
                self.evict(queue);
                return Offer::Evicted;
            }
            _ => (),
        }
        queue.bytes += bytes.len();
        queue.items.push_back(Item { bytes, class, since });
        drop(queue);
        self.shared.filled.notify_one();
        Offer::Queued
    }

    fn evict(&self, mut queue: MutexGuard<'_, Queue>) {
        queue.items.clear();
        queue.bytes = 0;
        let resume = queue.reached;
        queue.farewell = Some(slow_reader(resume));
        self.shared.end(queue, Broken::Evicted { resume });
    }

    /// Ends the socket behind everything queued. Only the first close counts.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.close_with(Bytes::new(), code, reason);
    }

    /// The same, with last frames of the caller's, for which there is always room.
    pub fn close_with(&self, last: Bytes, code: CloseCode, reason: &str) {
        let mut queue = self.shared.lock();
        if queue.broken.is_some() {
            return;
        }
        queue.farewell = Some([last, frame::close(code, reason)].concat().into());
        self.shared.end(queue, Broken::Closed(code));
    }

    /// Why nothing more will be written, once that is so. Safe to drop.
    pub async fn broken(&self) -> Broken {
        loop {
            let mut changed = std::pin::pin!(self.shared.drained.notified());
            changed.as_mut().enable();
            if let Some(broken) = self.shared.lock().broken.clone() {
                return broken;
            }
            changed.await;
        }
    }

    pub fn is_broken(&self) -> bool {
        self.shared.lock().broken.is_some()
    }

    /// Bytes that wait for the socket.
    pub fn queued_bytes(&self) -> usize {
        self.shared.lock().bytes
    }

    /// The position the socket has reached with everything handed to it.
    pub fn reached(&self) -> Option<Position> {
        self.shared.lock().reached
    }

    /// Waits until at most `bytes` are queued; false when nothing will be written any more. Safe to drop.
    pub async fn room(&self, bytes: usize) -> bool {
        loop {
            let mut changed = std::pin::pin!(self.shared.drained.notified());
            changed.as_mut().enable();
            {
                let queue = self.shared.lock();
                if queue.broken.is_some() {
                    return false;
                }
                if queue.bytes <= bytes {
                    return true;
                }
            }
            changed.await;
        }
    }

    /// `left` is called once, when the socket takes no more (perhaps at once, by this caller); a later call replaces it.
    pub(crate) fn when_broken(&self, left: Box<dyn FnOnce() + Send>) {
        let mut queue = self.shared.lock();
        if queue.broken.is_some() {
            drop(queue);
            left();
        } else {
            queue.on_broken = Some(left);
        }
    }

    /// Forgets [`Outbox::when_broken`].
    pub(crate) fn leave(&self) -> Option<Box<dyn FnOnce() + Send>> {
        self.shared.lock().on_broken.take()
    }
}

/// The last words to a reader that was too slow.
pub(crate) fn slow_reader(resume: Option<Position>) -> Bytes {
    let (details, reason) = match resume {
        Some(resume) => (
            format!(
                "this connection reads too slowly; everything up to {resume} was sent, continue with since={resume}"
            ),
            format!("slow_reader since={resume}"),
        ),
        None => ("this connection reads too slowly".to_owned(), "slow_reader".to_owned()),
    };
    let mut out = Vec::new();
    frame::put_text(&wire::error(ErrorCode::SlowReader, &details, None), &mut out);
    out.extend_from_slice(&frame::close(CloseCode::Policy, &reason));
    out.into()
}

impl Outgoing {
    /// What to write next, in one write; waits until there is something. None: nothing more, close the socket. The last
    /// buffer of a closed outbox ends in its close frame. Safe to drop.
    pub async fn next(&mut self) -> Option<Bytes> {
        // Who asks for more has written what it took.
        if let Some(since) = self.under_way.take() {
            metrics::reached_outbox(since, Inner::wall());
        }
        loop {
            {
                let mut queue = self.shared.lock();
                if let Some((bytes, since)) = take(&mut queue) {
                    drop(queue);
                    self.under_way = (since != Since::default()).then_some(since);
                    self.shared.drained.notify_waiters();
                    return Some(bytes);
                }
                if queue.broken.is_some() {
                    return None;
                }
            }
            self.shared.filled.notified().await;
        }
    }
}

fn take(queue: &mut Queue) -> Option<(Bytes, Since)> {
    let Some(first) = queue.items.pop_front() else {
        return queue.farewell.take().map(|farewell| (farewell, Since::default()));
    };
    let mut end = first.bytes.len();
    let mut count = 0;
    for item in &queue.items {
        if end + item.bytes.len() > MERGE {
            break;
        }
        end += item.bytes.len();
        count += 1;
    }
    let mut reached = queue.reached;
    let mut note = |class| {
        if let Class::Durable { reaches } = class {
            reached = Some(reaches);
        }
    };
    note(first.class);
    let mut since = first.since;
    let bytes = if count == 0 {
        first.bytes
    } else {
        let mut merged = BytesMut::with_capacity(end);
        merged.extend_from_slice(&first.bytes);
        for item in queue.items.drain(..count) {
            note(item.class);
            since = since.older(item.since);
            merged.extend_from_slice(&item.bytes);
        }
        merged.freeze()
    };
    queue.bytes -= bytes.len();
    queue.reached = reached;
    Some((bytes, since))
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.items.clear();
        queue.bytes = 0;
        queue.farewell = None;
        self.shared.end(queue, Broken::PeerGone);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use hearsay_protocol::{Epoch, Offset};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn at(offset: u64) -> Position {
        Position { epoch: Epoch(1), offset: Offset(offset) }
    }

    fn partial(utterance: u128) -> Class {
        Class::Partial { stream: StreamId(Uuid::from_u128(1)), utterance: UtteranceId(Uuid::from_u128(utterance)) }
    }

    fn durable(offset: u64) -> Class {
        Class::Durable { reaches: at(offset) }
    }

    const LIMITS: OutboxLimits = OutboxLimits { bytes: 100, reserved: 40 };

    fn drain(outgoing: &mut Outgoing) -> String {
        let mut all = Vec::new();
        while let Some(Some(bytes)) = outgoing.next().now_or_never() {
            all.extend_from_slice(&bytes);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Offers `text` (`d` durable, `c` control, `f` fleeting, other letters partials of that utterance), each letter with
    /// as many bytes as the digit behind it times ten, one after the other.
    fn offered(text: &str) -> (Vec<Offer>, String) {
        let (outbox, mut outgoing) = Outbox::new(LIMITS);
        let mut offset = 0;
        let answers = text.split(' ').map(|word| {
            let (letter, size) = word.split_at(1);
            let class = match letter {
                "d" => {
                    offset += 1;
                    durable(offset)
                }
                "c" => Class::Control,
                "f" => Class::Fleeting,
                letter => partial(letter.as_bytes()[0].into()),
            };
            let bytes = letter.repeat(size.parse::<usize>().unwrap() * 10);
            outbox.offer(bytes.into(), class)
        });
        let answers = answers.collect();
        (answers, drain(&mut outgoing))
    }

    #[test]
    fn full_is_a_decision() {
        use Offer::{Conflated, Evicted, Queued, Skipped};
        let cases: [(&str, &[Offer], &str); 6] = [
            ("d1 x1 d1", &[Queued, Queued, Queued], "ddddddddddxxxxxxxxxxdddddddddd"),
            ("x1 d1 x2", &[Queued, Queued, Conflated], "ddddddddddxxxxxxxxxxxxxxxxxxxx"),
            ("x1 y1 x1", &[Queued, Queued, Conflated], "yyyyyyyyyyxxxxxxxxxx"),
            ("d5 x2 f2 f1", &[Queued, Skipped, Skipped, Queued], &["d".repeat(50), "f".repeat(10)].concat()),
            ("x1 d9 x2", &[Queued, Queued, Skipped], &["x".repeat(10), "d".repeat(90)].concat()),
            ("d5 c5 x1", &[Queued, Queued, Skipped], &["d".repeat(50), "c".repeat(50)].concat()),
        ];
        for (text, answers, written) in cases {
            assert_eq!(offered(text), (answers.to_vec(), written.to_owned()), "{text}");
        }
        let (answers, written) = offered("d5 d5 c1 d1");
        assert_eq!(answers, [Queued, Queued, Evicted, Offer::Closed]);
        assert!(written.contains("slow_reader") && !written.contains("ddd"), "{written}");
    }

    #[test]
    fn a_cut_tells_the_position_that_was_reached() {
        let (outbox, mut outgoing) = Outbox::new(LIMITS);
        outbox.offer("a".repeat(60).into(), durable(1));
        outbox.offer("b".repeat(30).into(), durable(2));
        assert_eq!(outgoing.next().now_or_never().flatten().unwrap().len(), 90);
        outbox.offer("c".repeat(90).into(), durable(3));
        assert_eq!(outbox.offer("d".repeat(90).into(), durable(4)), Offer::Evicted);
        let last = drain(&mut outgoing);
        assert!(last.contains("since=00000001:2") && last.contains("\"code\":\"slow_reader\""), "{last}");
        assert_eq!(outbox.broken().now_or_never(), Some(Broken::Evicted { resume: Some(at(2)) }));
        assert_eq!(outgoing.next().now_or_never(), Some(None));
    }

    #[test]
    fn a_close_waits_its_turn_and_the_first_one_counts() {
        let (outbox, mut outgoing) = Outbox::new(LIMITS);
        outbox.offer("a".repeat(100).into(), Class::Control);
        outbox.close_with("last".into(), CloseCode::Normal, "ok");
        outbox.close(CloseCode::Internal, "late");
        assert_eq!(outbox.offer("b".into(), Class::Control), Offer::Closed);
        assert_eq!(drain(&mut outgoing), format!("{}last\u{fffd}\u{4}\u{3}\u{fffd}ok", "a".repeat(100)));
    }

    #[tokio::test]
    async fn who_waits_for_room_or_the_end_is_woken() {
        let (outbox, mut outgoing) = Outbox::new(LIMITS);
        outbox.offer("a".repeat(100).into(), Class::Control);
        let (room, _) = tokio::join!(outbox.room(10), outgoing.next());
        assert!(room);
        let (broken, ()) = tokio::join!(outbox.broken(), async { drop(outgoing) });
        assert_eq!(broken, Broken::PeerGone);
        assert!(!outbox.room(10).await);
        let left = Arc::new(Mutex::new(0));
        let count = Arc::clone(&left);
        outbox.when_broken(Box::new(move || *count.lock().unwrap() += 1));
        assert_eq!(*left.lock().unwrap(), 1);
    }

    #[derive(Debug, Clone)]
    enum Act {
        Offer(u8, usize),
        Write,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let offer = (0..6_u8, 1..40_usize).prop_map(|(kind, size)| Act::Offer(kind, size));
        prop::collection::vec(prop_oneof![3 => offer, 1 => Just(Act::Write)], 0..80)
    }

    proptest! {
        /// Durable and control frames come out in the order they went in, none missing, until the cut; and of each
        /// utterance a partial is never followed by an older one.
        #[test]
        fn nothing_durable_is_lost_and_order_is_kept(acts in acts()) {
            let (outbox, mut outgoing) = Outbox::new(LIMITS);
            let (mut number, mut accepted, mut written) = (0_u64, Vec::new(), Vec::new());
            let mut evicted = false;
            for act in acts {
                match act {
                    Act::Offer(kind, size) => {
                        number += 1;
                        let class = match kind { 0 => durable(number), 1 => Class::Control, kind => partial(kind.into()) };
                        // Eight hexadecimal digits of the number, the kind, padding, the end.
                        let text = format!("{number:08x}{kind}{};", ".".repeat(size));
                        match outbox.offer(text.into(), class) {
                            Offer::Queued if kind < 2 => accepted.push(number),
                            Offer::Evicted => evicted = true,
                            _ => (),
                        }
                        prop_assert!(outbox.queued_bytes() <= LIMITS.bytes);
                    }
                    Act::Write if !evicted => if let Some(Some(bytes)) = outgoing.next().now_or_never() {
                        written.extend_from_slice(&bytes);
                    }
                    Act::Write => (),
                }
            }
            if !evicted {
                while let Some(Some(bytes)) = outgoing.next().now_or_never() {
                    written.extend_from_slice(&bytes);
                }
            }
            let text = String::from_utf8(written).unwrap();
            let (mut kept, mut newest) = (Vec::new(), std::collections::HashMap::new());
            for frame in text.split_terminator(';') {
                let (number, kind) = (u64::from_str_radix(&frame[..8], 16).unwrap(), &frame[8..9]);
                if kind < "2" {
                    kept.push(number);
                } else {
                    let before = newest.insert(kind, number);
                    prop_assert!(before.is_none_or(|before| before < number));
                }
            }
            if evicted {
                prop_assert!(accepted.starts_with(&kept));
            } else {
                prop_assert_eq!(kept, accepted);
            }
        }
    }
}
