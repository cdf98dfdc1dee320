//! What all uplinks of the process may hold together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::metrics;

#[derive(Debug, Clone)]
pub(crate) struct Budget {
    limit: usize,
    used: Arc<AtomicUsize>,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        metrics::ring_limit(limit);
        Self { limit, used: Arc::default() }
    }

    /// No new stream should be taken: the ones there are may need what is left.
    pub(crate) fn is_tight(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.limit / 10 * 9
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.limit
    }

    /// One stream's share of the budget.
    pub(crate) fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }
}

/// Follows the bytes one ring holds; gives them back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    bytes: usize,
}

impl Share {
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.budget.used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.budget.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        metrics::ring_bytes(self.budget.used.load(Ordering::Relaxed));
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.budget.is_spent()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_back_when_dropped() {
        let budget = Budget::new(1_000);
        let mut one = budget.share();
        let mut other = budget.share();
        one.set(600);
        other.set(300);
        assert!(budget.is_tight() && !budget.is_spent());
        one.set(700);
        assert!(budget.is_spent());
        drop(one);
        assert!(!budget.is_tight());
    }
}
