//! How far each file is, on stderr, for people.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Characters of the words being spoken that are shown.
const TAIL: usize = 60;

pub(super) struct Progress {
    bars: MultiProgress,
}

impl Progress {
    /// Hidden unless `show` and stderr is a terminal.
    pub(super) fn new(show: bool) -> Self {
        let target = if show { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target) }
    }

    pub(super) fn file(&self, name: &str, total_ms: u64) -> Bar {
        let bar = self.bars.add(ProgressBar::new(total_ms));
        let style = ProgressStyle::with_template("{prefix} {bar:20} {percent:>3}%  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(name.to_owned());
        Bar { bar }
    }

    /// Writes to a terminal that the bars may be on, too.
    pub(super) fn beside<T>(&self, write: impl FnOnce() -> T) -> T {
        if self.bars.is_hidden() { write() } else { self.bars.suspend(write) }
    }

    pub(super) fn clear(&self) {
        // A terminal that is gone has nothing to clear.
        let _ = self.bars.clear();
    }
}

pub(super) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    pub(super) fn sent(&self, ms: u64) {
        self.bar.inc(ms);
    }

    /// The newest words of somebody who is still speaking.
    pub(super) fn heard(&self, speaker: &str, text: &str) {
        let count = text.chars().count();
        let tail: String = text.chars().skip(count.saturating_sub(TAIL)).collect();
        self.bar.set_message(format!("{speaker}: {tail}"));
    }

    pub(super) fn quiet(&self) {
        self.bar.set_message("");
    }
}
