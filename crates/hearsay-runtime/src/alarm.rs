//! One timer for all that a loop is to do some time.
//!
//! A loop that makes a `sleep` each time around enters it into the timers and takes it out again, once for each thing it
//! waits for and each time anything comes. An alarm stays: it is set anew only for what comes sooner, or when it went off
//! too soon, because what it was set for has been put off.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is waited for again and again, for times that mostly come later and later.
pub struct Alarm {
    sleep: Pin<Box<Sleep>>,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { sleep: Box::pin(sleep_until(Instant::now())) }
    }
}

impl Alarm {
    /// Ends at `at`. May be dropped and asked again, for another time.
    pub async fn rings(&mut self, at: Instant) {
        if at < self.sleep.deadline() {
            self.sleep.as_mut().reset(at);
        }
        loop {
            self.sleep.as_mut().await;
            if self.sleep.deadline() >= at {
                return;
            }
            self.sleep.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_when_asked_however_often_that_is_put_off_or_brought_forward() {
        let (begun, mut alarm) = (Instant::now(), Alarm::default());
        let after = |ms| begun + Duration::from_millis(ms);
        // Put off again and again, as by chunks that come meanwhile.
        for ms in [100, 200, 300] {
            assert!(timeout(Duration::from_millis(60), alarm.rings(after(ms))).await.is_err());
        }
        alarm.rings(after(300)).await;
        assert_eq!(begun.elapsed(), Duration::from_millis(300));
        // What is over rings at once, and sooner is sooner.
        alarm.rings(after(250)).await;
        assert!(timeout(Duration::from_millis(10), alarm.rings(after(900))).await.is_err());
        alarm.rings(after(400)).await;
        assert_eq!(begun.elapsed(), Duration::from_millis(400));
    }
}
