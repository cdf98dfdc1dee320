//! The trackers of a conversation: what is looked for as long as somebody who asked for it is there, and what of it was
//! looked for already.
//!
//! Cost: a sentence is held against those trackers only that have a phrase which begins with one of its words, however many
//! there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hearsay_protocol::{StreamId, event::Tracker};

use crate::{
    meaning::{Meaning, Vector},
    trackers::{Match, Meant, Phrases, Spoken},
};

/// Trackers of a conversation, of all speakers together.
pub(crate) const TRACKERS: usize = 1_024;
/// Phrases that are looked for by their meaning, of one tracker and of all.
const MEANT_PHRASES: (usize, usize) = (32, 2_048);

/// Which tracker: in the order they were first asked for.
pub(crate) type Id = u64;

#[derive(Default)]
pub(crate) struct Watch {
    trackers: BTreeMap<Id, Watched>,
    by_name: HashMap<String, Vec<Id>>,
    /// What each stream asked for, each once.
    lists: HashMap<StreamId, Vec<Id>>,
    /// By the first word of a phrase.
    openers: HashMap<Box<str>, Vec<Id>>,
    next: Id,
    /// Phrases whose meaning is known, of all trackers.
    meant: usize,
}

pub(crate) struct Watched {
    pub(crate) name: String,
    pub(crate) phrases: Phrases,
    /// None: not known yet. Some(None): it has none.
    meant: Option<Option<Meant>>,
    /// Streams that ask for it. Of none: it was held against the first `heard` sentences, should somebody ask again.
    asked: usize,
    heard: u64,
}

/// What of a list was taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Trackers that nobody asked for before, with the first sentence that each was not held against.
    pub(crate) fresh: HashMap<Id, u64>,
    /// Those for which there is no room.
    pub(crate) refused: usize,
}

/// What a sentence has of a tracker.
pub(crate) struct Hit<'a> {
    pub(crate) tracker: &'a Watched,
    /// Where phrases were said; by their meaning alone: how near, and what phrase is the nearest.
    pub(crate) how: How,
}

pub(crate) enum How {
    Said(Vec<Match>),
    Meant { near: f32, phrase: usize },
}

impl Watch {
    /// Nobody asks for anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.lists.values().all(Vec::is_empty)
    }

    /// From here on a stream asks for these and no others. So many sentences were said so far.
    pub(crate) fn ask(&mut self, stream: StreamId, list: &[Tracker], said: u64) -> Taken {
        let before = self.lists.remove(&stream).unwrap_or_default();
        let mut taken = Taken::default();
        let mut asked: Vec<Id> = Vec::new();
        let mut unknown = Vec::new();
        for tracker in list {
            match self.find(tracker) {
                Some(id) if asked.contains(&id) => {}
                Some(id) => asked.push(id),
                None => unknown.push(tracker),
            }
        }
        for id in &asked {
            let Some(tracker) = self.trackers.get_mut(id) else { continue };
            if tracker.asked == 0 {
                taken.fresh.insert(*id, tracker.heard);
            }
            tracker.asked += 1;
        }
        for id in &before {
            let Some(tracker) = self.trackers.get_mut(id) else { continue };
            tracker.asked -= 1;
            tracker.heard = said;
        }
        for tracker in unknown {
            // Two of one list may be alike.
            if self.find(tracker).is_some_and(|id| asked.contains(&id)) {
                continue;
            }
            if self.trackers.len() >= TRACKERS && !self.forget_one() {
                taken.refused += 1;
                continue;
            }
            let id = self.insert(tracker);
            asked.push(id);
            taken.fresh.insert(id, 0);
        }
        if !asked.is_empty() {
            self.lists.insert(stream, asked);
        }
        taken
    }

    fn find(&self, tracker: &Tracker) -> Option<Id> {
        let named = self.by_name.get(&tracker.name)?;
        named.iter().copied().find(|id| self.trackers.get(id).is_some_and(|it| it.phrases.are(&tracker.vocabulary)))
    }

    fn insert(&mut self, tracker: &Tracker) -> Id {
        let id = self.next;
        self.next += 1;
        let phrases = Phrases::new(&tracker.vocabulary);
        for word in phrases.openers() {
            self.openers.entry(word.into()).or_default().push(id);
        }
        self.by_name.entry(tracker.name.clone()).or_default().push(id);
        self.trackers.insert(id, Watched { name: tracker.name.clone(), phrases, meant: None, asked: 1, heard: 0 });
        id
    }

    /// The oldest that nobody asks for gives its place away.
    fn forget_one(&mut self) -> bool {
        let Some(id) = self.trackers.iter().find(|it| it.1.asked == 0).map(|it| *it.0) else { return false };
        let Some(tracker) = self.trackers.remove(&id) else { return false };
        self.meant -= tracker.meant.flatten().map_or(0, |it| it.phrases());
        for word in tracker.phrases.openers() {
            if let Some(ids) = self.openers.get_mut(word) {
                ids.retain(|it| *it != id);
                if ids.is_empty() {
                    self.openers.remove(word);
                }
            }
        }
        if let Some(named) = self.by_name.get_mut(&tracker.name) {
            named.retain(|it| *it != id);
            if named.is_empty() {
                self.by_name.remove(&tracker.name);
            }
        }
        true
    }

    /// Phrases whose meaning is asked for next: of trackers that are asked for, and of a list to come.
    pub(crate) fn asks(&self, list: &[Tracker]) -> Vec<String> {
        let mut left = MEANT_PHRASES.1.saturating_sub(self.meant);
        let mut texts = Vec::new();
        let mut take = |phrases: &Phrases| {
            let most = MEANT_PHRASES.0.min(left);
            let before = texts.len();
            texts.extend(phrases.meaningful(most).map(|it| it.1.to_owned()));
            left -= texts.len() - before;
        };
        for tracker in self.trackers.values().filter(|it| it.asked > 0 && it.meant.is_none()) {
            take(&tracker.phrases);
        }
        for tracker in list {
            match self.find(tracker).and_then(|id| self.trackers.get(&id)) {
                Some(known) if known.asked > 0 || known.meant.is_some() => {}
                _ => take(&Phrases::new(&tracker.vocabulary)),
            }
        }
        texts
    }

    /// Weighs the phrases of trackers that were not yet.
    pub(crate) fn understand(&mut self, meaning: &dyn Meaning) {
        for tracker in self.trackers.values_mut().filter(|it| it.asked > 0 && it.meant.is_none()) {
            let most = MEANT_PHRASES.0.min(MEANT_PHRASES.1.saturating_sub(self.meant));
            let meant = Meant::new(&tracker.phrases, most, meaning);
            self.meant += meant.as_ref().map_or(0, Meant::phrases);
            tracker.meant = Some(meant);
        }
    }

    /// What a sentence has of those that are asked for; with a vector also what means the like: of those at least `least`
    /// near, and but for `as_near` as near as the nearest. `of`: of those only that were not held against this sentence.
    pub(crate) fn find_all(
        &self,
        text: &str,
        vector: Option<&Vector>,
        least: f32,
        as_near: f32,
        of: Option<(&HashMap<Id, u64>, u64)>,
    ) -> Vec<Hit<'_>> {
        let spoken = Spoken::new(text);
        let among = |id: Id| of.is_none_or(|(fresh, sentence)| fresh.get(&id).is_some_and(|since| *since <= sentence));
        let opened: BTreeSet<Id> =
            spoken.words().filter_map(|word| self.openers.get(word)).flatten().copied().collect();
        let mut said = Vec::new();
        let mut silent: BTreeSet<Id> = BTreeSet::new();
        for id in opened {
            let Some(tracker) = self.trackers.get(&id).filter(|it| it.asked > 0 && among(id)) else { continue };
            let found = tracker.phrases.find(&spoken);
            if !found.is_empty() {
                silent.insert(id);
                said.push(Hit { tracker, how: How::Said(found) });
            }
        }
        let Some(vector) = vector else { return said };
        let near = |tracker: &Watched| tracker.meant.as_ref()?.as_ref().map(|it| it.likeness(vector));
        let others = self.trackers.iter().filter(|it| it.1.asked > 0 && !silent.contains(it.0) && among(*it.0));
        let weighed: Vec<_> = others.filter_map(|it| Some((it.1, near(it.1)?))).collect();
        let nearest = weighed.iter().map(|it| it.1).fold(least + as_near, f32::max);
        for (tracker, near) in weighed.into_iter().filter(|it| it.1 >= nearest - as_near) {
            if let Some(Some(meant)) = &tracker.meant {
                said.push(Hit { tracker, how: How::Meant { near, phrase: meant.nearest(vector) } });
            }
        }
        said
    }

    /// Phrases whose meaning is known.
    #[cfg(test)]
    pub(crate) fn meant(&self) -> usize {
        self.meant
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn stream(number: u128) -> StreamId {
        StreamId(Uuid::from_u128(number))
    }

    fn list(names: &[&str]) -> Vec<Tracker> {
        let one = |name: &&str| Tracker { id: None, name: (*name).to_owned(), vocabulary: vec![(*name).to_owned()] };
        names.iter().map(one).collect()
    }

    fn found(watch: &Watch, text: &str) -> Vec<String> {
        watch.find_all(text, None, 1.0, 0.0, None).iter().map(|it| it.tracker.name.clone()).collect()
    }

    #[test]
    fn what_nobody_asks_for_is_not_looked_for() {
        let mut watch = Watch::default();
        assert_eq!(watch.ask(stream(1), &list(&["boat", "ship", "boat"]), 0).fresh.len(), 2);
        assert!(watch.ask(stream(2), &list(&["ship"]), 3).fresh.is_empty());
        assert_eq!(found(&watch, "The boat and the ship."), ["boat", "ship"]);
        assert_eq!(watch.ask(stream(1), &list(&["raft"]), 5).fresh.len(), 1);
        assert_eq!(found(&watch, "The boat, the raft and the ship."), ["ship", "raft"]);
        watch.ask(stream(2), &[], 6);
        assert_eq!(found(&watch, "The boat, the raft and the ship."), ["raft"]);
        // Who asks again is told of what was said meanwhile.
        let again = watch.ask(stream(3), &list(&["boat", "raft"]), 9);
        assert_eq!(again.fresh.into_values().collect::<Vec<_>>(), [5]);
        watch.ask(stream(1), &[], 10);
        watch.ask(stream(3), &[], 10);
        assert!(watch.is_empty());
    }

    #[test]
    fn there_is_room_for_so_many_and_the_rest_is_told() {
        let mut watch = Watch::default();
        let names: Vec<String> = (0..TRACKERS + 5).map(|it| format!("tracker {it}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(watch.ask(stream(1), &list(&names), 0).refused, 5);
        assert_eq!(watch.ask(stream(2), &list(&["late"]), 0).refused, 1);
        // Those that nobody asks for make room.
        assert_eq!(watch.ask(stream(1), &list(&names[..TRACKERS - 1]), 7).refused, 0);
        assert_eq!(watch.ask(stream(2), &list(&["late"]), 7).refused, 0);
        assert_eq!((watch.trackers.len(), found(&watch, "it was late")), (TRACKERS, vec!["late".to_owned()]));
        watch.ask(stream(1), &list(&names[..3]), 9);
        watch.ask(stream(2), &list(&names[5..]), 9);
        assert_eq!(watch.trackers.len(), TRACKERS);
        let openers: usize = watch.openers.values().map(Vec::len).sum();
        let named: usize = watch.by_name.values().map(Vec::len).sum();
        assert_eq!((openers, named), (TRACKERS, TRACKERS));
    }
}
