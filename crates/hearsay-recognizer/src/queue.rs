//! What the engine threads do next. Finals that somebody waits for come first, by deadline; then partials, only while they
//! are fresh; then recordings, which go before partials once they are late.
//!
//! Finals are never refused: lanes bound them ([`hearsay_speech::lane::MAX_DECODES`] and one early decode each). Partials
//! are bounded here.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::AtomicBool, atomic::Ordering},
    time::Instant,
};

use hearsay_speech::{
    engine::{Kind, streaming::Memory},
    lane::{DecodeId, Outcome},
};

use crate::slots::LaneId;

/// Where outcomes go.
pub(crate) trait Answers: Send + Sync {
    /// The engine's answer to a lane's decode.
    fn outcome(&self, lane: LaneId, id: DecodeId, outcome: Outcome);
}

/// One decode on its way to an engine thread.
pub(crate) struct Job {
    pub(crate) lane: LaneId,
    pub(crate) id: DecodeId,
    pub(crate) kind: Kind,
    pub(crate) language: Arc<str>,
    pub(crate) samples: Arc<[f32]>,
    pub(crate) voice: Arc<[f32]>,
    pub(crate) draft: Arc<[u32]>,
    pub(crate) memory: Arc<Memory>,
    /// A final should be there by then; a partial is worth nothing after it.
    pub(crate) deadline: Instant,
    /// Somebody waits for it now: not a recording.
    pub(crate) live: bool,
    pub(crate) asked: Instant,
    pub(crate) cancelled: Arc<AtomicBool>,
    /// Where the outcome goes.
    pub(crate) reply: Arc<dyn Answers>,
}

impl Job {
    pub(crate) fn kind(&self) -> &'static str {
        if self.kind == Kind::Final { "final" } else { "partial" }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// Shared by lanes and engine threads.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// In the order of their deadlines; the number tells equals apart.
type Ordered = BTreeMap<(Instant, u64), Job>;

struct Waiting {
    finals: Ordered,
    partials: Ordered,
    /// Finals of recordings: nobody waits for them now.
    recorded: Ordered,
    next: u64,
    /// Bounds of waiting partials, and of threads that may decode one at once.
    most_partials: usize,
    partial_threads: usize,
    partials_running: usize,
    closed: bool,
}

/// A job taken. Told back when it is done.
pub(crate) struct Taken {
    pub(crate) job: Job,
    /// A partial whose time is over: not worth decoding.
    pub(crate) late: bool,
}

impl Queue {
    pub(crate) fn new(threads: usize, most_partials: usize) -> Self {
        let waiting = Waiting {
            finals: BTreeMap::new(),
            partials: BTreeMap::new(),
            recorded: BTreeMap::new(),
            next: 0,
            most_partials,
            // One thread is always free of partials, if there is more than one: a final waits for no partial.
            partial_threads: (threads - 1).max(1),
            partials_running: 0,
            closed: false,
        };
        Self { waiting: Mutex::new(waiting), changed: Condvar::new() }
    }

    /// # Errors
    /// Gives a partial back that there is no room for, and anything after the end.
    #[expect(clippy::result_large_err, reason = "the job is handed back to be told off")]
    pub(crate) fn submit(&self, job: Job) -> Result<(), Job> {
        let mut waiting = self.lock();
        waiting.sweep();
        if waiting.closed || (job.kind == Kind::Partial && waiting.partials.len() >= waiting.most_partials) {
            return Err(job);
        }
        let key = (job.deadline, waiting.next);
        waiting.next += 1;
        match job.kind {
            Kind::Final if job.live => waiting.finals.insert(key, job),
            Kind::Final => waiting.recorded.insert(key, job),
            Kind::Partial => waiting.partials.insert(key, job),
        };
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for the next job. None: the recognizer ends.
    pub(crate) fn take(&self) -> Option<Taken> {
        let mut waiting = self.lock();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(taken) = waiting.pop() {
                return Some(taken);
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A job taken is over.
    pub(crate) fn done(&self, kind: Kind) {
        if kind == Kind::Partial {
            self.lock().partials_running -= 1;
            self.changed.notify_one();
        }
    }

    /// Jobs waiting: finals, partials.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let waiting = self.lock();
        (waiting.finals.len() + waiting.recorded.len(), waiting.partials.len())
    }

    /// Nothing is taken any more.
    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.finals.clear();
        waiting.recorded.clear();
        waiting.partials.clear();
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Drops what nobody waits for.
    fn sweep(&mut self) {
        self.finals.retain(|_, job| !job.is_cancelled());
        self.recorded.retain(|_, job| !job.is_cancelled());
        self.partials.retain(|_, job| !job.is_cancelled());
    }

    fn pop(&mut self) -> Option<Taken> {
        let now = Instant::now();
        first(&mut self.finals)
            .or_else(|| {
                let late = self.recorded.first_key_value().is_some_and(|((deadline, _), _)| *deadline < now);
                late.then(|| first(&mut self.recorded)).flatten()
            })
            .map(|job| Taken { job, late: false })
            .or_else(|| {
                let free = self.partials_running < self.partial_threads;
                let job = free.then(|| first(&mut self.partials)).flatten()?;
                self.partials_running += 1;
                Some(Taken { late: job.deadline < now, job })
            })
            .or_else(|| first(&mut self.recorded).map(|job| Taken { job, late: false }))
    }
}

/// The first of them that somebody still wants.
fn first(jobs: &mut Ordered) -> Option<Job> {
    while let Some((_, job)) = jobs.pop_first() {
        if !job.is_cancelled() {
            return Some(job);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Nobody;

    impl Answers for Nobody {
        fn outcome(&self, _: LaneId, _: DecodeId, _: Outcome) {}
    }

    fn job(id: DecodeId, kind: Kind, deadline: Instant) -> Job {
        Job {
            lane: LaneId::TEST,
            id,
            kind,
            language: "en".into(),
            samples: Arc::default(),
            voice: Arc::default(),
            draft: Arc::default(),
            memory: Arc::default(),
            deadline,
            live: true,
            asked: deadline,
            cancelled: Arc::default(),
            reply: Arc::new(Nobody),
        }
    }

    #[test]
    fn finals_come_first_by_deadline_and_cancelled_work_never() {
        let queue = Queue::new(2, 2);
        let at = Instant::now() + Duration::from_secs(60);
        let after = |ms| at + Duration::from_millis(ms);
        let cancelled = job(9, Kind::Final, at);
        cancelled.cancelled.store(true, Ordering::Relaxed);
        for job in [job(1, Kind::Partial, at), job(2, Kind::Final, after(5)), cancelled, job(3, Kind::Final, after(1))]
        {
            assert!(queue.submit(job).is_ok());
        }
        assert!(queue.submit(job(4, Kind::Partial, at)).is_ok());
        assert!(queue.submit(job(5, Kind::Partial, at)).is_err(), "two partials wait already");
        let order: Vec<_> = (0..3).filter_map(|_| queue.take()).map(|taken| taken.job.id).collect();
        assert_eq!(order, [3, 2, 1]);
        assert!(queue.submit(job(6, Kind::Final, at)).is_ok());
        assert_eq!(queue.take().unwrap().job.id, 6, "the other thread stays free of partials");
        queue.done(Kind::Partial);
        assert_eq!(queue.take().unwrap().job.id, 4);
        queue.close();
        assert!(queue.take().is_none());
    }

    #[test]
    fn recordings_hold_up_nobody_who_waits() {
        let queue = Queue::new(2, 2);
        let (late, soon) = (Instant::now() - Duration::from_secs(9), Instant::now() + Duration::from_secs(60));
        let recorded = |id, deadline| Job { live: false, ..job(id, Kind::Final, deadline) };
        for job in [
            recorded(1, late),
            recorded(2, soon),
            job(3, Kind::Partial, soon),
            job(4, Kind::Final, soon + Duration::from_secs(1)),
        ] {
            assert!(queue.submit(job).is_ok());
        }
        assert_eq!(queue.depth(), (3, 1));
        let order: Vec<_> = (0..4).filter_map(|_| queue.take()).map(|taken| taken.job.id).collect();
        assert_eq!(order, [4, 1, 3, 2]);
    }

    #[test]
    fn a_late_partial_is_not_worth_decoding() {
        let queue = Queue::new(1, 2);
        assert!(queue.submit(job(1, Kind::Partial, Instant::now() - Duration::from_secs(1))).is_ok());
        assert!(queue.take().unwrap().late);
    }
}
