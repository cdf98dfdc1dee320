//! What an utterance is thought to be so far.

use std::sync::Arc;

use crate::engine::{Transcript, agree::Agreement};

/// Successive partials of one utterance.
#[derive(Debug, Default)]
pub(super) struct Hypothesis {
    tokens: Arc<[u32]>,
    agreement: Agreement,
    shown: (String, usize),
    revision: u32,
}

impl Hypothesis {
    /// What the next decode is to verify.
    pub(super) fn tokens(&self) -> Arc<[u32]> {
        Arc::clone(&self.tokens)
    }

    pub(super) fn revision(&self) -> u32 {
        self.revision
    }

    /// Nothing was shown yet.
    pub(super) fn is_empty(&self) -> bool {
        self.revision == 0
    }

    /// Takes the next hypothesis; answers what to show and how many of its bytes will stay. None: nothing new to show.
    pub(super) fn revise(&mut self, transcript: Transcript) -> Option<(String, usize)> {
        if transcript.text.is_empty() {
            return None;
        }
        self.tokens = transcript.tokens.into();
        let shown = self.agreement.revise(&transcript.text);
        let shown = (shown.text.to_owned(), shown.stable);
        if shown == self.shown {
            return None;
        }
        self.shown.clone_from(&shown);
        self.revision += 1;
        Some(shown)
    }
}
