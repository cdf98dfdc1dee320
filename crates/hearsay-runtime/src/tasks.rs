//! The only way to start anything: every task has a name, its failure is logged once, and its end is waited for.
//!
//! There are two kinds. **Work** ([`Tasks::spawn`]) is what a drain waits for: a connection, a stream, a call. It watches
//! [`Drain::cancelled`] and comes to its own end. **Background** ([`Tasks::spawn_background`]) is what work relies on
//! until it is done: health checks, lease renewal, the admin endpoint. It watches [`Drain::finished`], which comes when
//! the last work has ended, and is waited for after that. A background loop started as work would keep the process open
//! until the deadline, and be named for it.
//!
//! Nothing is aborted behind anybody's back: a dropped handle leaves its task running, and so does dropping [`Tasks`].
//! Whoever wants a task to end with its handle says so with `tokio_util::task::AbortOnDropHandle::new(handle)`. Tasks may
//! run on any runtime of the process, current-thread ones included.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// All tasks of a process. Cheap to clone; every clone is the same set.
#[derive(Clone, Default)]
pub struct Tasks {
    set: Arc<Set>,
}

#[derive(Default)]
struct Set {
    /// How many of each name are open.
    open: Mutex<Open>,
    /// An entry of `open` went to zero.
    emptied: Notify,
    draining: CancellationToken,
    finished: CancellationToken,
}

#[derive(Default)]
struct Open {
    work: BTreeMap<&'static str, usize>,
    background: BTreeMap<&'static str, usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Work,
    Background,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts work on the current runtime.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_on(&Handle::current(), name, future)
    }

    /// Starts work on a runtime of the caller's choice.
    pub fn spawn_on<F>(&self, runtime: &Handle, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        runtime.spawn(tracked(self.open(Kind::Work, name), future))
    }

    /// Starts work that stays on this thread, inside a `LocalSet`.
    ///
    /// # Panics
    /// Outside a `LocalSet`.
    pub fn spawn_local<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        #[expect(clippy::disallowed_methods, reason = "this is the tracked way to start one")]
        tokio::task::spawn_local(tracked(self.open(Kind::Work, name), future))
    }

    /// Starts what work relies on: a loop that ends at [`Drain::finished`].
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn spawn_background<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_background_on(&Handle::current(), name, future)
    }

    /// The same on a runtime of the caller's choice.
    pub fn spawn_background_on<F>(&self, runtime: &Handle, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        runtime.spawn(tracked(self.open(Kind::Background, name), future))
    }

    /// Starts a thread that work relies on, such as a model's: it ends when nothing feeds it any more.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn spawn_thread<T: Send + 'static>(
        &self,
        name: &'static str,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<std::thread::JoinHandle<T>> {
        let open = self.open(Kind::Background, name);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let outcome = {
                let _inside = Inside::enter();
                catch_unwind(AssertUnwindSafe(run))
            };
            open.closed(outcome)
        })
    }

    /// What tells a task that the end has begun.
    pub fn drain(&self) -> Drain {
        Drain { draining: self.set.draining.clone(), finished: self.set.finished.clone() }
    }

    /// Asks everything to come to its end. Returns at once; repeating it changes nothing.
    pub fn begin_drain(&self) {
        self.set.draining.cancel();
    }

    /// Begins the drain if nobody has, waits for all work, then for the background.
    ///
    /// # Errors
    /// After the deadline: the names of the work that is still open, each once, or of the background when all work is done.
    pub async fn finish(&self, deadline: Duration) -> Result<(), Vec<&'static str>> {
        self.begin_drain();
        let all = async {
            self.emptied(Kind::Work).await;
            self.set.finished.cancel();
            self.emptied(Kind::Background).await;
        };
        let ended = timeout(deadline, all).await;
        self.set.finished.cancel();
        ended.map_err(|_| self.names())
    }

    /// The names of the work that is open, each once, or of the background when there is no work.
    pub fn names(&self) -> Vec<&'static str> {
        let open = self.set.lock();
        let who = if open.work.is_empty() { &open.background } else { &open.work };
        who.keys().copied().collect()
    }

    /// How many tasks a drain would wait for.
    pub fn work_left(&self) -> usize {
        self.set.lock().work.values().sum()
    }

    fn open(&self, kind: Kind, name: &'static str) -> OpenTask {
        *self.set.lock().of(kind).entry(name).or_default() += 1;
        OpenTask { set: Arc::clone(&self.set), kind, name, _gauge: metrics::task_started(name) }
    }

    async fn emptied(&self, kind: Kind) {
        loop {
            let mut changed = pin!(self.set.emptied.notified());
            changed.as_mut().enable();
            if self.set.lock().of(kind).is_empty() {
                return;
            }
            changed.await;
        }
    }
}

impl Set {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn of(&mut self, kind: Kind) -> &mut BTreeMap<&'static str, usize> {
        match kind {
            Kind::Work => &mut self.work,
            Kind::Background => &mut self.background,
        }
    }
}

/// Tells when the process comes to its end. Cheap to clone.
#[derive(Clone)]
pub struct Drain {
    draining: CancellationToken,
    finished: CancellationToken,
}

impl Drain {
    /// A drain that never begins.
    pub fn never() -> Self {
        Self { draining: CancellationToken::new(), finished: CancellationToken::new() }
    }

    /// Returns when the drain begins: work comes to its end. Safe to drop and to await again.
    pub async fn cancelled(&self) {
        self.draining.cancelled().await;
    }

    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Returns when all work has ended, or the deadline for it: the background comes to its end.
    pub async fn finished(&self) {
        self.finished.cancelled().await;
    }

    pub fn is_finished(&self) -> bool {
        self.finished.is_cancelled()
    }
}

/// One open task's entry in the set; taken out when dropped.
struct OpenTask {
    set: Arc<Set>,
    kind: Kind,
    name: &'static str,
    _gauge: metrics::GaugeGuard,
}

impl OpenTask {
    fn closed<T>(self, outcome: std::thread::Result<T>) -> T {
        match outcome {
            Ok(value) => value,
            Err(panic) => {
                metrics::task_failed(self.name);
                let place = PANICKED_AT.take();
                tracing::error!(task = self.name, at = place, reason = panic_message(&*panic), "task failed");
                // Whoever holds the handle hears of it too. Does not call the panic hook again.
                resume_unwind(panic)
            }
        }
    }
}

impl Drop for OpenTask {
    fn drop(&mut self) {
        let mut open = self.set.lock();
        let names = open.of(self.kind);
        if let Some(count) = names.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                names.remove(self.name);
                self.set.emptied.notify_waiters();
            }
        }
    }
}

async fn tracked<F: Future>(open: OpenTask, future: F) -> F::Output {
    let outcome = {
        let mut future = pin!(future);
        poll_fn(|context| {
            let _inside = Inside::enter();
            match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
                Ok(poll) => poll.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            }
        })
        .await
    };
    open.closed(outcome)
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// While it lives, a panic of this thread is logged by the task it ends and not by the panic hook.
struct Inside {
    outer: bool,
}

impl Inside {
    fn enter() -> Self {
        Self { outer: INSIDE.replace(true) }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(self.outer);
    }
}

/// For the panic hook: true when a tracked task will log this panic, with the place told here.
pub(crate) fn panicking_in_task(place: Option<String>) -> bool {
    let inside = INSIDE.get();
    if inside {
        PANICKED_AT.replace(place);
    }
    inside
}

pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    if let Some(message) = panic.downcast_ref::<&str>() {
        message
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message
    } else {
        "a panic without a message"
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn finish_waits_for_work_then_for_the_background() {
        let tasks = Tasks::new();
        let order = Arc::new(Mutex::new(Vec::new()));
        let (drain, log) = (tasks.drain(), Arc::clone(&order));
        tasks.spawn("connection", async move {
            drain.cancelled().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            log.lock().unwrap().push("work");
        });
        let (drain, log) = (tasks.drain(), Arc::clone(&order));
        tasks.spawn_background("health", async move {
            drain.finished().await;
            log.lock().unwrap().push("background");
        });
        tasks.finish(LONG).await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["work", "background"]);
        assert!(tasks.names().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_missed_deadline_names_who_kept_it_open() {
        let tasks = Tasks::new();
        for _ in 0..3 {
            tasks.spawn("stuck", std::future::pending::<()>());
        }
        tasks.spawn_background("health", std::future::pending::<()>());
        tasks.spawn("quick", async {});
        assert_eq!(tasks.finish(Duration::from_secs(5)).await, Err(vec!["stuck"]));
        let tasks = Tasks::new();
        tasks.spawn_background("health", std::future::pending::<()>());
        tasks.spawn("quick", async {});
        assert_eq!(tasks.finish(Duration::from_secs(5)).await, Err(vec!["health"]));
    }

    #[tokio::test]
    async fn a_panic_is_told_to_the_holder_and_does_not_keep_the_drain_open() {
        let tasks = Tasks::new();
        let failed = tasks.spawn("unlucky", async { panic!("on purpose") }).await;
        let _: () = match failed {
            Err(error) if error.is_panic() => (),
            other => panic!("{other:?}"),
        };
        tasks.finish(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn an_aborted_task_and_a_dropped_future_are_taken_out() {
        let tasks = Tasks::new();
        tasks.spawn("aborted", std::future::pending::<()>()).abort();
        tasks.finish(LONG).await.unwrap();
    }

    #[test]
    fn tasks_of_other_runtimes_and_threads_count() {
        let tasks = Tasks::new();
        let worker = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        let (drain, count) = (tasks.drain(), Arc::clone(&done));
        tasks.spawn_on(worker.handle(), "elsewhere", async move {
            drain.cancelled().await;
            count.fetch_add(1, Ordering::SeqCst);
        });
        let (feed, fed) = std::sync::mpsc::sync_channel::<()>(1);
        let count = Arc::clone(&done);
        tasks
            .spawn_thread("model", move || {
                while fed.recv().is_ok() {}
                count.fetch_add(1, Ordering::SeqCst);
            })
            .unwrap();
        drop(feed);
        let here = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        here.block_on(tasks.finish(LONG)).unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_drain_can_be_awaited_late_and_again() {
        let tasks = Tasks::new();
        let drain = tasks.drain();
        assert!(!drain.is_draining());
        tasks.begin_drain();
        tasks.begin_drain();
        drain.cancelled().await;
        drain.cancelled().await;
        assert!(drain.is_draining() && !drain.is_finished());
    }
}
