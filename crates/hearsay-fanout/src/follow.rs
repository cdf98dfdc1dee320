//! Makes a contiguous run of entries out of announcements that may be lost, repeated, reordered or of another history.
//!
//! A state machine without I/O or clock. Whatever does not continue the run asks for a read from where the run is; while
//! one is owed, announced entries are ignored, since the read will hold them. So there is nothing to buffer.

use std::collections::VecDeque;

use hearsay_bus::{Delivery, Entry, Page, Read, Seen, Tail};
use hearsay_protocol::{Epoch, EventId, Position, wire};

/// Ids remembered to tell entries that were appended again after a branch.
const REMEMBERED: usize = 512;

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Show it; `again`: its id was shown before history branched.
    Entry { entry: Entry, again: bool },
    /// The epoch is another from here on.
    Epoch(Epoch),
    /// Tell that what is between will not come.
    Gap { from: Option<Position>, to: Position, reason: wire::Gap },
}

pub(crate) struct Follower {
    at: Seen,
    behind: bool,
    shown: VecDeque<EventId>,
    branched: bool,
}

impl Follower {
    pub(crate) fn new(at: Seen) -> Self {
        Self { at, behind: true, shown: VecDeque::new(), branched: false }
    }

    /// The newest entry of the run.
    pub(crate) fn at(&self) -> Seen {
        self.at
    }

    /// A read from [`Follower::at`] is owed.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind
    }

    /// The subscription was renewed: anything may have been missed.
    pub(crate) fn missed(&mut self) {
        self.behind = true;
    }

    pub(crate) fn delivered(&mut self, delivery: &Delivery, steps: &mut Vec<Step>) {
        match delivery {
            Delivery::Appended { epoch, entries } => {
                if self.behind || Some(*epoch) != self.at.epoch {
                    self.behind = true;
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
    pub(crate) fn tail(&mut self, tail: &Tail) {
        let Some(meta) = &tail.meta else { return };
        if let Some(position) = meta.top.position() {
            self.compare(position);
            let other = |check: u64| meta.top.check.is_some_and(|top| top != check);
            if meta.top.offset == self.at.offset && self.at.check.is_some_and(other) {
                self.behind = true;
            }
        }
    }

    /// An old word on the end says nothing; a newer one that an announcement was lost.
    fn compare(&mut self, top: Position) {
        if Some(top.epoch) != self.at.epoch || top.offset > self.at.offset {
            self.behind = true;
        }
    }

    /// The answer to the read that was owed. More is owed while [`Follower::is_behind`].
    pub(crate) fn read(&mut self, read: Read, steps: &mut Vec<Step>) {
        match read {
            Read::Gap { reason, resume } => {
                let from = self.at.position();
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
                let nothing = entries.is_empty();
                for entry in entries {
                    if entry.offset == self.at.offset.next() {
                        self.take(entry, steps);
                    }
                }
                if self.at.offset == top.offset && self.at.check.is_none() {
                    self.at.check = top.check;
                }
                // An empty page cannot bring the end nearer; the next announcement or tail asks again.
                self.behind = self.at.offset < top.offset && !nothing;
            }
        }
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
        let again = self.branched && self.shown.contains(&entry.id);
        if self.shown.len() == REMEMBERED {
            self.shown.pop_front();
        }
        self.shown.push_back(entry.id);
        steps.push(Step::Entry { entry, again });
    }
}

/// A position nothing of which is on the log is of another conversation: each begins with an epoch of its own.
pub(crate) fn gap_reason(reason: hearsay_bus::GapReason, resume: &Seen) -> wire::Gap {
    use hearsay_bus::GapReason;
    use hearsay_protocol::Offset;
    match reason {
        GapReason::Branch if resume.offset == Offset::START => wire::Gap::Conversation,
        GapReason::Branch => wire::Gap::Branch,
        GapReason::Retention => wire::Gap::Retention,
        GapReason::Lost => wire::Gap::Lost,
    }
}
