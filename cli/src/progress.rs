//! The progress bar: on a terminal, for work over a second.

use crate::{args::Global, signals};
use convert::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::IsTerminal,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Shows how far a copy is. Dropping it takes the bar off the screen.
pub(crate) struct Bar {
    bar: ProgressBar,
    begin: Instant,
    wanted: bool,
    shown: AtomicBool,
}

impl Bar {
    /// For `total` bytes; 0 if that is found out on the way.
    pub(crate) fn new(global: &Global, total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template(
            "{bar:30} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  ETA {eta}",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self {
            bar,
            begin: Instant::now(),
            wanted: !global.quiet && std::io::stderr().is_terminal(),
            shown: AtomicBool::new(false),
        }
    }

    /// More work was found.
    pub(crate) fn grow(&self, bytes: u64) {
        self.bar.inc_length(bytes);
    }

    /// Says something above the bar, on standard error.
    pub(crate) fn above(&self, say: impl FnOnce()) {
        self.bar.suspend(say);
    }
}

impl Progress for Bar {
    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
        if self.wanted
            && !self.shown.load(Ordering::Relaxed)
            && self.begin.elapsed() > Duration::from_secs(1)
            && !self.shown.swap(true, Ordering::Relaxed)
        {
            self.bar
                .set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
        }
    }

    fn cancelled(&self) -> bool {
        signals::caught().is_some()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A bar whose length is what is done: how much there is comes out on the way.
pub(crate) struct Growing<'a>(pub(crate) &'a Bar);

impl Progress for Growing<'_> {
    fn advance(&self, bytes: u64) {
        self.0.grow(bytes);
        self.0.advance(bytes);
    }

    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}
