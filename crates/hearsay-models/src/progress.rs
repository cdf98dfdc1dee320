//! Telling whoever waits what is being done.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Hears how far a fetch is. Calls come in order: a step begins, advances, and the next one begins or all ends.
pub trait Progress {
    /// `what` begins, and is over after `total` of something; 0: nobody knows.
    fn begin(&mut self, what: &str, total: u64);

    /// `done` of `total`.
    fn advance(&mut self, done: u64);

    fn end(&mut self);

    /// Whether pip may show its own progress on standard error meanwhile.
    fn shows_pip(&self) -> bool {
        false
    }
}

/// Says nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &str, _: u64) {}

    fn advance(&mut self, _: u64) {}

    fn end(&mut self) {}
}

/// One line per step on standard error; a bar, when that is a terminal.
#[derive(Debug, Default)]
pub struct Terminal {
    bar: Option<ProgressBar>,
}

impl Progress for Terminal {
    fn begin(&mut self, what: &str, total: u64) {
        self.end();
        let bar = ProgressBar::with_draw_target((total > 0).then_some(total), ProgressDrawTarget::stderr());
        if bar.is_hidden() {
            eprintln!("{what}");
        } else {
            let template = if total > 0 { "{msg} {wide_bar} {percent}%" } else { "{msg} {spinner}" };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        self.bar = Some(bar);
    }

    fn advance(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }

    fn shows_pip(&self) -> bool {
        true
    }
}
