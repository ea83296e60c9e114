//! An open directory: a window of its names, at offsets that never move.
//!
//! Images do not change, so the n-th name is always the same. A listing keeps one window
//! of names and reads the directory again from its beginning for the next one: memory stays
//! bounded for a directory of millions.

use crate::tree::{Entry, Node, Tree};
use disk_io::{DiskError, Result};
use std::{ops::ControlFlow, sync::Mutex};

/// Names kept at once.
const WINDOW: usize = 1 << 16;
/// The kernel fails the whole listing for a longer name.
const LONGEST_NAME: usize = 1024;

#[derive(Debug)]
pub(crate) struct OpenDir {
    pub(crate) node: Node,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    filled: bool,
    start: usize,
    entries: Vec<Entry>,
    /// Whether the directory ends with this window.
    last: bool,
    /// Why some names are missing.
    lost: Option<DiskError>,
}

/// What comes at a position.
pub(crate) enum Step<'a> {
    Entry(&'a Entry),
    /// The end, with the reason if names are missing.
    End(Option<DiskError>),
}

impl OpenDir {
    pub(crate) fn new(node: Node) -> Self {
        Self {
            node,
            window: Mutex::default(),
        }
    }

    /// Gives out what lies at `position` and after it until `take` says stop.
    pub(crate) fn walk(
        &self,
        tree: &Tree,
        mut position: usize,
        take: &mut dyn FnMut(usize, Step<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut window = match self.window.lock() {
            Ok(window) => window,
            Err(poisoned) => poisoned.into_inner(),
        };
        loop {
            let inside = window.filled
                && position >= window.start
                && (window.last || position < window.start + window.entries.len());
            if !inside {
                *window = fill(tree, self.node, position)?;
            }
            let from = position - window.start;
            for entry in window.entries.iter().skip(from) {
                if take(position, Step::Entry(entry)).is_break() {
                    return Ok(());
                }
                position += 1;
            }
            if window.last {
                let _ = take(position, Step::End(window.lost.clone()));
                return Ok(());
            }
        }
    }
}

fn fill(tree: &Tree, node: Node, start: usize) -> Result<Window> {
    let mut window = Window {
        filled: true,
        start,
        last: true,
        ..Window::default()
    };
    let mut at = 0;
    tree.read_dir(node, &mut |entry| {
        let entry = match entry {
            Ok(entry) if entry.name.as_bytes().len() > LONGEST_NAME => {
                let bytes = entry.name.as_bytes().len();
                Err(DiskError::unsupported("listing a name")
                    .expected(format!("at most {LONGEST_NAME} bytes"))
                    .found(format!("{bytes}")))
            }
            other => other,
        };
        match entry {
            Ok(entry) => {
                if at >= start {
                    if window.entries.len() == WINDOW {
                        window.last = false;
                        return ControlFlow::Break(());
                    }
                    window.entries.push(entry);
                }
                at += 1;
            }
            Err(e) => window.lost = window.lost.take().or(Some(e)),
        }
        ControlFlow::Continue(())
    })?;
    Ok(window)
}
