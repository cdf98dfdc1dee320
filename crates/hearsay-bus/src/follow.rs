//! Makes a contiguous run of entries out of announcements that may be lost, repeated, reordered or of another history.
//!
//! A state machine without I/O or clock, for every reader of the log. Whatever does not continue the run asks for a read
//! from where the run is; while one is owed, of announced entries only the newest position is kept: the read that is under
//! way holds it or another follows. So there is nothing to buffer.

use std::collections::VecDeque;

use hearsay_protocol::{Epoch, EventId, Offset, Position, wire};

use crate::{Delivery, Entry, Page, Read, Seen, Tail};

/// Entries remembered: to tell those that were appended again after a branch, and to find where history branched.
const REMEMBERED: usize = 512;

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Show it; `again`: its id was shown before history branched.
    Entry { entry: Entry, again: bool },
    /// The epoch is another from here on.
    Epoch(Epoch),
    /// Tell that what is between will not come.
    Gap { from: Option<Position>, to: Position, reason: wire::Gap },
}

/// A reader's place on the log.
pub struct Follower {
    at: Seen,
    behind: bool,
    /// The newest entry announced while a read was owed.
    heard: Option<Position>,
    shown: VecDeque<Remembered>,
    branched: bool,
    /// While it is asked where history branched.
    probing: Option<Probing>,
    /// Where the run was when the log's word on its end was an older one.
    ahead: Option<Position>,
}

struct Remembered {
    offset: Offset,
    check: u64,
    id: EventId,
}

/// The log knows only of differences it is shown: where ours is not the log's, an earlier entry is tried.
struct Probing {
    /// Where the run was before.
    from: Option<Position>,
    /// How far back the next try goes.
    back: u64,
}

impl Follower {
    /// Begins after `at`, with a read owed.
    pub fn new(at: Seen) -> Self {
        Self { at, behind: true, heard: None, shown: VecDeque::new(), branched: false, probing: None, ahead: None }
    }

    /// The newest entry of the run.
    pub fn at(&self) -> Seen {
        self.at
    }

    /// A read from [`Follower::at`] is owed; its answer goes to [`Follower::read`].
    pub fn is_behind(&self) -> bool {
        self.behind
    }

    /// The subscription was renewed: anything may have been missed.
    pub fn missed(&mut self) {
        self.behind = true;
    }

    /// What was announced.
    pub fn delivered(&mut self, delivery: &Delivery, steps: &mut Vec<Step>) {
        match delivery {
            Delivery::Appended { epoch, entries } => {
                if self.behind || Some(*epoch) != self.at.epoch {
                    self.behind = true;
                    if let Some(last) = entries.last() {
                        self.heard = Some(Position { epoch: *epoch, offset: last.offset });
                    }
                    return;
                }
                for entry in entries.iter() {
                    if entry.offset == self.at.offset.next() {
                        self.take(entry.clone(), steps);
                    } else if entry.offset > self.at.offset {
                        self.behind = true;
                        return;
                    } else if entry.offset == self.at.offset && self.at.check.is_some_and(|check| check != entry.check)
                    {
                        // Another history has this offset.
                        self.behind = true;
                        return;
                    }
                }
            }
            Delivery::Ephemeral { follows, .. } => self.compare(*follows),
            Delivery::Changed | Delivery::Missed => self.behind = true,
        }
    }

    /// The log's own word on its end.
    pub fn tail(&mut self, tail: &Tail) {
        let Some(meta) = &tail.meta else { return };
        let (top, at) = (meta.top, self.at);
        // A lower end is an answer that announcements have overtaken, or a log that lost its newest entries: then the next
        // answer does not hold what was known before it was asked for.
        let shown = self.shown.iter().rfind(|shown| shown.offset == top.offset);
        let overtaken = top.epoch == at.epoch
            && top.offset < at.offset
            && shown.is_some_and(|shown| top.check == Some(shown.check))
            && self.ahead.is_none_or(|ahead| Some(ahead.epoch) != top.epoch || ahead.offset <= top.offset);
        if overtaken {
            self.ahead = at.position();
            return;
        }
        self.ahead = None;
        let same = (top.epoch, top.offset) == (at.epoch, at.offset);
        if !same || at.check.is_some_and(|check| top.check.is_some_and(|top| top != check)) {
            self.behind = true;
        }
    }

    /// An old word on the end says nothing; a newer one that an announcement was lost.
    fn compare(&mut self, top: Position) {
        if Some(top.epoch) != self.at.epoch || top.offset > self.at.offset {
            self.behind = true;
        }
    }

    /// The answer to the read that was owed. More is owed while [`Follower::is_behind`].
    pub fn read(&mut self, read: Read, steps: &mut Vec<Step>) {
        match read {
            Read::Gap { reason: crate::GapReason::Branch, resume } if self.differs(&resume) => self.probe(resume),
            Read::Gap { reason, resume } => {
                let from = self.probing.take().map_or(self.at.position(), |probing| probing.from);
                let to = resume.position().or(from);
                self.note_epoch(resume.epoch, steps);
                if let Some(to) = to
                    && from != Some(to)
                {
                    steps.push(Step::Gap { from, to, reason: gap_reason(reason, &resume) });
                }
                self.at = resume;
            }
            Read::Page(Page { epoch, entries, top }) => {
                self.note_epoch(Some(epoch), steps);
                self.at.epoch = Some(epoch);
                if let Some(Probing { from, .. }) = self.probing.take()
                    && let Some(to) = self.at.position()
                {
                    steps.push(Step::Gap { from, to, reason: wire::Gap::Branch });
                }
                let nothing = entries.is_empty();
                for entry in entries {
                    if entry.offset == self.at.offset.next() {
                        self.take(entry, steps);
                    }
                }
                if self.at.offset == top.offset && self.at.check.is_none() {
                    self.at.check = top.check;
                }
                // An empty page cannot bring the end nearer; the next announcement or tail asks again. What was announced
                // meanwhile is asked for once.
                let heard =
                    self.heard.take().is_some_and(|heard| heard.epoch == epoch && heard.offset > self.at.offset);
                self.behind = (self.at.offset < top.offset && !nothing) || heard;
            }
        }
    }

    /// The log goes on behind another entry than the one that was shown there.
    fn differs(&self, resume: &Seen) -> bool {
        let shown = self.shown.iter().rfind(|shown| shown.offset == resume.offset);
        shown.is_some_and(|shown| resume.check != Some(shown.check))
    }

    /// Asks about an entry that was shown earlier; where none is remembered, everything is shown again.
    fn probe(&mut self, resume: Seen) {
        let probing = self.probing.get_or_insert(Probing { from: self.at.position(), back: 1 });
        let offset = Offset(resume.offset.0.saturating_sub(probing.back));
        probing.back *= 2;
        let found = self.shown.iter().rfind(|shown| shown.offset == offset);
        let check = found.map(|shown| shown.check);
        let offset = if found.is_some() { offset } else { Offset::START };
        self.at = Seen { epoch: self.at.epoch, offset, check };
        self.behind = true;
    }

    fn note_epoch(&mut self, epoch: Option<Epoch>, steps: &mut Vec<Step>) {
        if let Some(epoch) = epoch
            && self.at.epoch != Some(epoch)
        {
            self.branched |= self.at.epoch.is_some();
            steps.push(Step::Epoch(epoch));
        }
    }

    fn take(&mut self, entry: Entry, steps: &mut Vec<Step>) {
        self.at = Seen { epoch: self.at.epoch, offset: entry.offset, check: Some(entry.check) };
        let again = self.branched && self.shown.iter().any(|shown| shown.id == entry.id);
        if self.shown.len() == REMEMBERED {
            self.shown.pop_front();
        }
        self.shown.push_back(Remembered { offset: entry.offset, check: entry.check, id: entry.id });
        steps.push(Step::Entry { entry, again });
    }
}

/// A position nothing of which is on the log is of another conversation: each begins with an epoch of its own.
pub fn gap_reason(reason: crate::GapReason, resume: &Seen) -> wire::Gap {
    use crate::GapReason;
    match reason {
        GapReason::Branch | GapReason::Lost if resume.offset == Offset::START => wire::Gap::Conversation,
        GapReason::Branch => wire::Gap::Branch,
        GapReason::Retention => wire::Gap::Retention,
        GapReason::Lost => wire::Gap::Lost,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{Body, GapReason};
    use hearsay_protocol::{PublisherId, Timestamp};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn entry(epoch: u32, offset: u64) -> Entry {
        Entry {
            offset: Offset(offset),
            check: u64::from(epoch) << 32 | offset,
            at: Timestamp(offset),
            id: EventId(Uuid::from_u128(u128::from(offset))),
            sequence: 0,
            publisher: PublisherId::Clock,
            body: Body::Tombstone,
        }
    }

    fn seen(entry: &Entry, epoch: u32) -> Seen {
        Seen { epoch: Some(Epoch(epoch)), offset: entry.offset, check: Some(entry.check) }
    }

    /// What the log says of its end after `entry`.
    fn tail(entry: &Entry, epoch: u32) -> Tail {
        let account = hearsay_protocol::AccountId::new("dev").expect("valid");
        let meeting = hearsay_protocol::MeetingId::new("m").expect("valid");
        let key = hearsay_protocol::ConversationKey {
            meeting: hearsay_protocol::MeetingKey { account, meeting },
            conversation: hearsay_protocol::ConversationId::from_random(1),
        };
        let meta = crate::Meta {
            key: key.clone(),
            state: crate::State::Open,
            title: String::new(),
            started: Timestamp(0),
            top: seen(entry, epoch),
            streams: 1,
        };
        Tail { key, meta: Some(meta), listeners: 0 }
    }

    #[test]
    fn a_word_on_the_end_that_announcements_overtook_costs_no_read_and_a_shorter_log_does() {
        let ahead = |count: u64| {
            let mut follower = Follower::new(Seen::NOTHING);
            let mut log = Log { epoch: 1, ..Log::default() };
            log.entries.extend((1..=count).map(|offset| entry(1, offset)));
            while follower.is_behind() {
                follower.read(log.read(follower.at(), 10), &mut Vec::new());
            }
            follower
        };
        let mut follower = ahead(3);
        follower.tail(&tail(&entry(1, 3), 1));
        assert!(!follower.is_behind(), "it is the end");
        follower.tail(&tail(&entry(1, 2), 1));
        assert!(!follower.is_behind(), "asked before the last was appended");
        follower.tail(&tail(&entry(1, 2), 1));
        assert!(follower.is_behind(), "asked when the last was shown already: the log has lost it");

        let mut follower = ahead(3);
        follower.tail(&tail(&entry(1, 2), 1));
        let entries = Arc::from([entry(1, 4)]);
        follower.delivered(&Delivery::Appended { epoch: Epoch(1), entries }, &mut Vec::new());
        follower.tail(&tail(&entry(1, 3), 1));
        assert!(!follower.is_behind(), "overtaken again, by another");

        let mut follower = ahead(3);
        follower.tail(&tail(&Entry { check: 7, ..entry(1, 2) }, 1));
        assert!(follower.is_behind(), "another history");
        let mut follower = ahead(3);
        follower.tail(&tail(&entry(1, 4), 1));
        assert!(follower.is_behind(), "an announcement is missing");
    }

    /// A log that can lose its newest entries, and its announcements.
    #[derive(Default)]
    struct Log {
        epoch: u32,
        entries: Vec<Entry>,
        /// Each epoch but the first, and how many entries it kept.
        branches: Vec<(u32, usize)>,
    }

    impl Log {
        fn read(&self, after: Seen, max: usize) -> Read {
            let top = self
                .entries
                .last()
                .map_or(Seen { epoch: Some(Epoch(self.epoch)), offset: Offset::START, check: None }, |entry| {
                    seen(entry, self.epoch)
                });
            let index = after.offset.0 as usize;
            let known = after.epoch.map_or(self.epoch, |epoch| epoch.0);
            let later = self.branches.iter().filter(|(epoch, _)| *epoch > known);
            let kept = later.map(|(_, kept)| *kept).min().unwrap_or(index);
            if index > kept {
                let resume = Seen { epoch: Some(Epoch(self.epoch)), offset: Offset(kept as u64), check: None };
                return Read::Gap { reason: GapReason::Branch, resume };
            }
            let entries = self.entries[index..].iter().take(max).cloned().collect();
            Read::Page(Page { epoch: Epoch(self.epoch), entries, top })
        }
    }

    #[derive(Debug, Clone)]
    enum Act {
        /// Appends; announced this many times.
        Append(usize),
        /// Announces an old entry again.
        Repeat(prop::sample::Index),
        /// A later one first.
        Swap,
        Missed,
        Tail,
        /// The newest entries are lost and the epoch is another.
        Branch(usize),
        Read(usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            6 => (0..3_usize).prop_map(Act::Append),
            2 => any::<prop::sample::Index>().prop_map(Act::Repeat),
            1 => Just(Act::Swap),
            1 => Just(Act::Missed),
            2 => Just(Act::Tail),
            1 => (0..4_usize).prop_map(Act::Branch),
            3 => (1..5_usize).prop_map(Act::Read),
        ]
    }

    #[derive(Debug, Clone, Copy)]
    enum Turn {
        Append,
        /// The log takes the read that is owed.
        Ask,
        /// Its answer arrives.
        Answer,
    }

    proptest! {
        /// As long as no announcement is lost, everything is shown without waiting for another sign of the end, however
        /// long answers are under way.
        #[test]
        fn nothing_announced_during_a_read_waits(
            turns in prop::collection::vec(prop_oneof![Just(Turn::Append), Just(Turn::Ask), Just(Turn::Answer)], 0..60),
            max in 1..4_usize,
        ) {
            let mut log = Log { epoch: 1, ..Log::default() };
            let mut follower = Follower::new(Seen::NOTHING);
            let (mut steps, mut answer) = (Vec::new(), None);
            for turn in turns {
                match turn {
                    Turn::Append => {
                        let entry = entry(1, log.entries.len() as u64 + 1);
                        log.entries.push(entry.clone());
                        let entries = Arc::from([entry]);
                        follower.delivered(&Delivery::Appended { epoch: Epoch(1), entries }, &mut steps);
                    }
                    Turn::Ask if answer.is_none() && follower.is_behind() => answer = Some(log.read(follower.at(), max)),
                    Turn::Ask => (),
                    Turn::Answer => {
                        if let Some(answer) = answer.take() {
                            follower.read(answer, &mut steps);
                        }
                    }
                }
            }
            while follower.is_behind() {
                follower.read(answer.take().unwrap_or_else(|| log.read(follower.at(), max)), &mut steps);
            }
            prop_assert_eq!(follower.at().offset.0, log.entries.len() as u64);
        }

        /// Whatever is lost, repeated, reordered or rolled back: shown entries are contiguous or a gap is told, and in the
        /// end everything that is on the log was shown.
        #[test]
        fn shown_is_contiguous_or_a_gap_is_told(acts in prop::collection::vec(act(), 0..120)) {
            let mut log = Log { epoch: 1, ..Log::default() };
            let mut follower = Follower::new(Seen::NOTHING);
            let mut steps = Vec::new();
            let announce = |entry: &Entry, epoch| Delivery::Appended { epoch: Epoch(epoch), entries: Arc::from([entry.clone()]) };
            for act in acts {
                match act {
                    Act::Append(times) => {
                        let entry = entry(log.epoch, log.entries.len() as u64 + 1);
                        for _ in 0..times {
                            follower.delivered(&announce(&entry, log.epoch), &mut steps);
                        }
                        log.entries.push(entry);
                    }
                    Act::Repeat(index) if !log.entries.is_empty() => {
                        let entry = &log.entries[index.index(log.entries.len())];
                        follower.delivered(&announce(entry, log.epoch), &mut steps);
                    }
                    Act::Repeat(_) => (),
                    Act::Swap => {
                        let first = log.entries.len() as u64 + 1;
                        let (one, two) = (entry(log.epoch, first), entry(log.epoch, first + 1));
                        follower.delivered(&announce(&two, log.epoch), &mut steps);
                        follower.delivered(&announce(&one, log.epoch), &mut steps);
                        log.entries.extend([one, two]);
                    }
                    Act::Missed => follower.delivered(&Delivery::Missed, &mut steps),
                    Act::Tail => {
                        if let Some(top) = log.entries.last() {
                            let at = Position { epoch: Epoch(log.epoch), offset: top.offset };
                            follower.delivered(&Delivery::Ephemeral { follows: at, ephemerals: Arc::from([]) }, &mut steps);
                        }
                    }
                    Act::Branch(lost) => {
                        log.entries.truncate(log.entries.len().saturating_sub(lost));
                        log.epoch += 1;
                        log.branches.push((log.epoch, log.entries.len()));
                        follower.delivered(&Delivery::Changed, &mut steps);
                    }
                    Act::Read(max) => {
                        if follower.is_behind() {
                            let read = log.read(follower.at(), max);
                            follower.read(read, &mut steps);
                        }
                    }
                }
            }
            follower.missed();
            for _ in 0..1_000 {
                if !follower.is_behind() {
                    break;
                }
                let read = log.read(follower.at(), 3);
                follower.read(read, &mut steps);
            }
            prop_assert_eq!(follower.at().offset.0, log.entries.len() as u64);
            let mut at = 0;
            let mut shown: Vec<Entry> = Vec::new();
            for step in steps {
                match step {
                    Step::Entry { entry, .. } => {
                        prop_assert_eq!(entry.offset.0, at + 1);
                        at += 1;
                        shown.push(entry);
                    }
                    Step::Gap { from, to, .. } => {
                        prop_assert_eq!(from.map_or(0, |from| from.offset.0), at);
                        at = to.offset.0;
                        shown.truncate(to.offset.0 as usize);
                    }
                    Step::Epoch(_) => (),
                }
            }
            prop_assert_eq!(shown, log.entries);
        }
    }
}
