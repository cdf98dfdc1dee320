//! Slows down who is refused, without slowing anybody else.
//!
//! A stock client that reconnects without pause tries 200 times a second for ever. Holding its refusal for a second or two
//! turns that into one try a second or two, for each of its connections. What is held is bounded, in all and for one
//! address; beyond that a refusal goes out at once. Addresses may be shared by many clients, so a valid token is never
//! held, whatever its address did before.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Refusals {
    held: Arc<Mutex<Held>>,
    limit: usize,
    limit_per_address: usize,
    delay: Duration,
}

#[derive(Default)]
struct Held {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One refusal that is being held.
pub(crate) struct Hold {
    refusals: Refusals,
    address: IpAddr,
    delay: Duration,
}

impl Refusals {
    /// Refusals take from `delay` to twice as long.
    pub(crate) fn new(limit: usize, limit_per_address: usize, delay: Duration) -> Self {
        Self { held: Arc::default(), limit, limit_per_address, delay }
    }

    /// None: too many are held already; refuse at once. `random` spreads what is held.
    pub(crate) fn hold(&self, address: IpAddr, random: u32) -> Option<Hold> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = held.by_address.get(&address).copied().unwrap_or(0);
        if held.total >= self.limit || of_address >= self.limit_per_address {
            return None;
        }
        held.total += 1;
        held.by_address.insert(address, of_address + 1);
        let spread = f64::from(random) / f64::from(u32::MAX);
        Some(Hold { refusals: self.clone(), address, delay: self.delay.mul_f64(1.0 + spread) })
    }
}

impl Hold {
    /// The refusal is held as long as this is, also while it is told.
    pub(crate) async fn wait(&self) {
        tokio::time::sleep(self.delay).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.refusals.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.total -= 1;
        if let Some(count) = held.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn what_is_held_is_bounded_in_all_and_for_one_address() {
        let refusals = Refusals::new(3, 2, Duration::from_secs(1));
        let first = refusals.hold(address(1), 0).unwrap();
        let _second = refusals.hold(address(1), 0).unwrap();
        assert!(refusals.hold(address(1), 0).is_none());
        let _other = refusals.hold(address(2), 0).unwrap();
        assert!(refusals.hold(address(3), 0).is_none());
        drop(first);
        assert!(refusals.hold(address(3), 0).is_some());
        assert!(refusals.hold(address(1), 0).is_some());
        drop(_second);
        drop(_other);
        assert!(refusals.held.lock().unwrap().by_address.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_held_for_one_to_two_delays() {
        let refusals = Refusals::new(3, 3, Duration::from_secs(1));
        for (random, seconds) in [(0, 1.0), (u32::MAX, 2.0)] {
            let begun = tokio::time::Instant::now();
            refusals.hold(address(1), random).unwrap().wait().await;
            assert!((begun.elapsed().as_secs_f64() - seconds).abs() < 0.01);
        }
    }
}
