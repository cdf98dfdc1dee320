//! The places a recognizer has for streams. A slot's generation rises with each tenant, so nothing meant for one reaches the
//! next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One tenancy of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaneId {
    pub(crate) slot: usize,
    generation: u64,
}

impl LaneId {
    /// No stream's: of a decode that proves that the engine works.
    pub(crate) const PROBE: Self = Self { slot: usize::MAX, generation: 0 };
    #[cfg(test)]
    pub(crate) const TEST: Self = Self { slot: 0, generation: 0 };
}

/// The slots of a recognizer.
pub(crate) struct Slots {
    table: Mutex<Table>,
}

struct Table {
    generations: Vec<u64>,
    free: Vec<usize>,
}

/// A tenant's hold on a slot. Freed on drop.
pub(crate) struct Slot {
    pub(crate) id: LaneId,
    slots: Arc<Slots>,
}

impl Slots {
    pub(crate) fn new(slots: usize) -> Arc<Self> {
        let table = Table { generations: vec![0; slots], free: (0..slots).rev().collect() };
        Arc::new(Self { table: Mutex::new(table) })
    }

    /// None: all are taken.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Slot> {
        let mut table = self.lock();
        let slot = table.free.pop()?;
        let id = LaneId { slot, generation: table.generations[slot] };
        Some(Slot { id, slots: Arc::clone(self) })
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        let table = self.lock();
        table.generations.len() - table.free.len()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.slots.lock();
        table.generations[self.id.slot] += 1;
        table.free.push(self.id.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_bounded_and_tenants_told_apart() {
        let slots = Slots::new(2);
        let (first, second) = (slots.take().unwrap(), slots.take().unwrap());
        assert!(slots.take().is_none());
        assert_eq!(slots.taken(), 2);
        let id = first.id;
        drop(first);
        assert_eq!(slots.taken(), 1);
        let third = slots.take().unwrap();
        assert_eq!(third.id.slot, id.slot);
        assert_ne!(third.id, id, "what was meant for the first tenant does not reach the next");
        assert_ne!(third.id, second.id);
    }
}
