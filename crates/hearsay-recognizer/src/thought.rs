//! What sentences mean, asked on threads that may wait, of as many at once as there are processors.

use std::{sync::Arc, time::Duration};

use hearsay_insight::meaning::{Meaning, Remembering};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, spawn_blocking},
    time::timeout,
};

use crate::metrics;

/// Texts whose meaning is remembered, at least: more than one conversation's trackers have phrases. 1.5 KB each, and as many
/// again that are about to be forgotten.
const REMEMBERED: usize = 4_096;

/// The model of sentences, shared by a process: who weighs a sentence for its sentiment has weighed it for trackers, too.
/// Cheap to clone.
#[derive(Clone)]
pub struct Thought {
    meaning: Arc<dyn Meaning>,
    turns: Arc<Semaphore>,
}

/// A processor's time for one question.
pub(crate) struct Turn {
    meaning: Arc<dyn Meaning>,
    turn: OwnedSemaphorePermit,
}

impl Thought {
    pub fn new(meaning: Arc<dyn Meaning>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let meaning = Arc::new(Remembering::new(meaning, REMEMBERED));
        Self { meaning, turns: Arc::new(Semaphore::new(processors)) }
    }

    /// None when all are busy for so long: then the question is left out.
    pub(crate) async fn turn(&self, wait: Duration) -> Option<Turn> {
        match timeout(wait, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(turn)) => Some(Turn { meaning: Arc::clone(&self.meaning), turn }),
            _ => {
                metrics::unweighed();
                None
            }
        }
    }
}

impl Turn {
    /// # Errors
    /// When the question panicked.
    pub(crate) async fn weigh<T: Send + 'static>(
        self,
        question: impl FnOnce(&dyn Meaning) -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        spawn_blocking(move || {
            let answer = question(&*self.meaning);
            drop(self.turn);
            answer
        })
        .await
    }
}
