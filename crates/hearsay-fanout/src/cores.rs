//! The threads: one single-threaded runtime per core, and on each the loop that owns the core's listeners.
//!
//! The gateway runs its accept loops and connections on the same runtimes ([`Core::handle`]). A core is told of events
//! by one bounded queue; its loop never waits for anything but that queue, its sockets and its clock, so whoever waits for
//! room in the queue waits for one pass over rooms and no longer. What concerns few rows of a core that is idle is done by
//! who brings it: to wake the core's thread for a handful of writes costs more than the writes.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicUsize, Ordering},
    },
};

use hearsay_runtime::{Drain, Tasks};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::{self, Handle},
    sync::{Notify, mpsc},
    time::{Instant, sleep_until},
};

use crate::{
    FanoutConfig,
    listeners::{Listeners, Post},
};

/// Posts that wait for one core: far more than a core lets pile up, and enough for a burst of new listeners.
const POSTS: usize = 8_192;
/// Posts taken in one pass before sockets have their turn.
const PASS: usize = 256;
/// Rows that are written to by who brings the event, at most: a millisecond of writing.
const FEW: usize = 32;

/// All cores of this gateway. Cheap to clone.
#[derive(Clone)]
pub struct CoreSet {
    cores: Arc<[Core]>,
}

/// One thread, its runtime and its listeners. Cheap to clone.
#[derive(Clone)]
pub struct Core {
    index: usize,
    runtime: Handle,
    posts: mpsc::Sender<Post>,
    own: Arc<Own>,
}

/// What a core's thread and those who bring it events share.
struct Own {
    listeners: Mutex<Listeners>,
    rows: AtomicUsize,
    /// Posts sent that are not carried out: nothing may overtake them.
    waiting: AtomicUsize,
    /// The next tick came closer without the core's thread.
    sooner: Notify,
}

impl Own {
    /// A panic under the lock has ended the process' work on this row or that, not the table.
    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries a post out at once if it is little work and nobody is at it; otherwise gives it back.
    fn at_once(&self, post: Post) -> Result<(), Post> {
        let mut listeners = match self.listeners.try_lock() {
            Ok(listeners) => listeners,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(post),
        };
        if self.waiting.load(Ordering::Acquire) > 0 || listeners.reach(&post) > FEW {
            return Err(post);
        }
        let (now, before) = (Instant::now(), listeners.next_tick());
        listeners.handle(post, now);
        listeners.flush_dirty(now);
        self.rows.store(listeners.rows(), Ordering::Relaxed);
        let sooner = listeners.next_tick() < before;
        drop(listeners);
        if sooner {
            self.sooner.notify_one();
        }
        Ok(())
    }
}

impl CoreSet {
    /// Starts `count` threads. They end when the drain has finished.
    ///
    /// # Errors
    /// When the system has no more threads or file descriptors.
    pub fn start(count: NonZeroUsize, config: &FanoutConfig, tasks: &Tasks) -> io::Result<Self> {
        let mut cores = Vec::with_capacity(count.get());
        for index in 0..count.get() {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let (core, run) = Self::core_on(index, runtime.handle().clone(), config)?;
            cores.push(core);
            let drain = tasks.drain();
            tasks.spawn_thread("core", move || runtime.block_on(run.until(drain)))?;
        }
        Ok(Self { cores: cores.into() })
    }

    /// One core on the runtime of the caller: for tests with simulated time, and for tools.
    ///
    /// # Errors
    /// When the system has no more file descriptors.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn on_current_runtime(config: &FanoutConfig, tasks: &Tasks) -> io::Result<Self> {
        let (core, run) = Self::core_on(0, Handle::current(), config)?;
        drop(tasks.spawn_background("core", run.until(tasks.drain())));
        Ok(Self { cores: Arc::new([core]) })
    }

    fn core_on(index: usize, runtime: Handle, config: &FanoutConfig) -> io::Result<(Core, Run)> {
        let (posts, incoming) = mpsc::channel(POSTS);
        let listeners = Listeners::new(index, config)?;
        let epoll = listeners.epoll();
        let own = Own {
            listeners: Mutex::new(listeners),
            rows: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            sooner: Notify::new(),
        };
        let own = Arc::new(own);
        let core = Core { index, runtime, posts, own: Arc::clone(&own) };
        Ok((core, Run { own, epoll, incoming }))
    }

    /// How many there are; never none.
    #[expect(clippy::len_without_is_empty, reason = "there is always a core")]
    pub fn len(&self) -> usize {
        self.cores.len()
    }

    /// The core `index`, counted round.
    pub fn core(&self, index: usize) -> &Core {
        &self.cores[index % self.cores.len()]
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Core> {
        self.cores.iter()
    }
}

impl Core {
    /// Its number, for [`crate::Listen::core`].
    pub fn index(&self) -> usize {
        self.index
    }

    /// The runtime of its thread: for accept loops and connections.
    pub fn handle(&self) -> &Handle {
        &self.runtime
    }

    /// Listeners' sockets that are rows of this core.
    pub fn rows(&self) -> usize {
        self.own.rows.load(Ordering::Relaxed)
    }

    /// Waits for room, which is bounded by one pass of the core. Lost only when the core has ended.
    pub(crate) async fn post(&self, post: Post) {
        let Err(post) = self.own.at_once(post) else { return };
        // Lost when the caller is given up, or the core has ended; counted as waiting only when it is sent.
        if let Ok(room) = self.posts.reserve().await {
            self.own.waiting.fetch_add(1, Ordering::AcqRel);
            room.send(post);
        }
    }

    /// Gives the post back when the core is far behind or has ended.
    pub(crate) fn try_post(&self, post: Post) -> Result<(), Post> {
        let Err(post) = self.own.at_once(post) else { return Ok(()) };
        let Ok(room) = self.posts.try_reserve() else { return Err(post) };
        self.own.waiting.fetch_add(1, Ordering::AcqRel);
        room.send(post);
        Ok(())
    }

    /// More than half of the queue is free: there is room for what may be skipped.
    pub(crate) fn is_easy(&self) -> bool {
        self.posts.capacity() > POSTS / 2
    }
}

struct Run {
    own: Arc<Own>,
    epoll: Arc<OwnedFd>,
    incoming: mpsc::Receiver<Post>,
}

impl Run {
    async fn until(mut self, drain: Drain) {
        #[expect(
            deprecated,
            reason = "its successor is `unsafe` because an object could answer another descriptor each time; an `OwnedFd` \
                      that is shared answers one, and keeps it open"
        )]
        let registered = AsyncFd::with_interest(self.epoll, Interest::READABLE);
        let ready = match registered {
            Ok(ready) => ready,
            Err(error) => {
                tracing::error!(%error, "a core cannot watch its listeners' sockets");
                return;
            }
        };
        let own = self.own;
        let mut batch = Vec::with_capacity(PASS);
        let mut finished = std::pin::pin!(drain.finished());
        let mut told = true;
        loop {
            let next = own.lock().next_tick();
            tokio::select! {
                () = &mut finished => return,
                taken = self.incoming.recv_many(&mut batch, PASS), if told => {
                    let mut listeners = own.lock();
                    let now = Instant::now();
                    for post in batch.drain(..) {
                        listeners.handle(post, now);
                    }
                    own.waiting.fetch_sub(taken, Ordering::AcqRel);
                    // Nobody can post any more: rows live on until the drain.
                    told = taken > 0;
                }
                guard = ready.readable() => {
                    let polled = guard.and_then(|mut guard| {
                        if !own.lock().poll(Instant::now())? {
                            guard.clear_ready();
                        }
                        Ok(())
                    });
                    if let Err(error) = polled {
                        tracing::error!(%error, "a core lost sight of its listeners' sockets");
                        return;
                    }
                }
                () = own.sooner.notified() => {}
                () = sleep_until(next) => own.lock().tick(Instant::now()),
            }
            let mut listeners = own.lock();
            listeners.flush_dirty(Instant::now());
            own.rows.store(listeners.rows(), Ordering::Relaxed);
        }
    }
}
