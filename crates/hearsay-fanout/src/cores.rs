//! The threads: one single-threaded runtime per core, and on each the loop that owns the core's listeners.
//!
//! The gateway runs its accept loops and connections on the same runtimes ([`Core::handle`]). A core is told of events
//! by one bounded queue; its loop never waits for anything but that queue, its sockets and its clock, so whoever waits for
//! room in the queue waits for one pass over rooms and no longer.

use std::{
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hearsay_runtime::{Drain, Tasks};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::{self, Handle},
    sync::mpsc,
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
    rows: Arc<AtomicUsize>,
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
        let rows = Arc::new(AtomicUsize::new(0));
        let listeners = Listeners::new(index, config)?;
        let core = Core { index, runtime, posts, rows: Arc::clone(&rows) };
        Ok((core, Run { listeners, incoming, rows }))
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
        self.rows.load(Ordering::Relaxed)
    }

    /// Waits for room, which is bounded by one pass of the core. Lost only when the core has ended.
    pub(crate) async fn post(&self, post: Post) {
        let _ = self.posts.send(post).await;
    }

    /// Gives the post back when the core is far behind or has ended.
    pub(crate) fn try_post(&self, post: Post) -> Result<(), Post> {
        self.posts.try_send(post).map_err(|error| error.into_inner())
    }

    /// More than half of the queue is free: there is room for what may be skipped.
    pub(crate) fn is_easy(&self) -> bool {
        self.posts.capacity() > POSTS / 2
    }
}

struct Run {
    listeners: Listeners,
    incoming: mpsc::Receiver<Post>,
    rows: Arc<AtomicUsize>,
}

impl Run {
    async fn until(mut self, drain: Drain) {
        #[expect(
            deprecated,
            reason = "its successor is `unsafe` because an object could answer another descriptor each time; an `OwnedFd` \
                      that is shared answers one, and keeps it open"
        )]
        let registered = AsyncFd::with_interest(self.listeners.epoll(), Interest::READABLE);
        let ready = match registered {
            Ok(ready) => ready,
            Err(error) => {
                tracing::error!(%error, "a core cannot watch its listeners' sockets");
                return;
            }
        };
        let mut batch = Vec::with_capacity(PASS);
        let mut finished = std::pin::pin!(drain.finished());
        let mut told = true;
        loop {
            let next = self.listeners.next_tick();
            tokio::select! {
                () = &mut finished => return,
                taken = self.incoming.recv_many(&mut batch, PASS), if told => {
                    let now = Instant::now();
                    for post in batch.drain(..) {
                        self.listeners.handle(post, now);
                    }
                    // Nobody can post any more: rows live on until the drain.
                    told = taken > 0;
                }
                guard = ready.readable() => {
                    let polled = guard.and_then(|mut guard| {
                        if !self.listeners.poll(Instant::now())? {
                            guard.clear_ready();
                        }
                        Ok(())
                    });
                    if let Err(error) = polled {
                        tracing::error!(%error, "a core lost sight of its listeners' sockets");
                        return;
                    }
                }
                () = sleep_until(next) => self.listeners.tick(Instant::now()),
            }
            self.listeners.flush_dirty(Instant::now());
            self.rows.store(self.listeners.rows(), Ordering::Relaxed);
        }
    }
}
