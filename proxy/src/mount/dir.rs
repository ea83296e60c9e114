//! An open directory: its names, at offsets that never move.
//!
//! Images do not change, so the n-th name is always the same. What is kept of a listing is a
//! window of names ([`Listings`]); the directory is read again from its beginning for the next
//! one, or where the window had to go: memory stays bounded for a directory of millions, and for
//! any number of them.

use super::listings::{Listed, Listings, Window};
use crate::tree::{Node, Tree};
use disk_io::{DiskError, Result};
use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

/// The kernel fails the whole listing for a longer name.
const LONGEST_NAME: usize = 1024;

#[derive(Debug)]
pub(crate) struct OpenDir {
    pub(crate) node: Node,
    pub(crate) listings: Arc<Listings>,
    reading: Arc<Mutex<()>>,
}

/// What comes at a position.
pub(crate) enum Step<'a> {
    Entry(Listed<'a>),
    /// The end, with the reason if names are missing.
    End(Option<DiskError>),
}

impl OpenDir {
    pub(crate) fn new(node: Node, listings: Arc<Listings>) -> Self {
        let reading = listings.opened(node);
        Self {
            node,
            listings,
            reading,
        }
    }

    /// Gives out what lies at `position` and after it until `take` says stop.
    pub(crate) fn walk(
        &self,
        tree: &Tree,
        mut position: usize,
        take: &mut dyn FnMut(usize, Step<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        loop {
            let window = self.window(tree, position)?;
            for listed in window.from(position) {
                if take(position, Step::Entry(listed)).is_break() {
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

    fn window(&self, tree: &Tree, position: usize) -> Result<Arc<Window>> {
        if let Some(window) = self.listings.get(self.node, position) {
            return Ok(window);
        }
        let _alone = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = self.listings.get(self.node, position) {
            return Ok(window);
        }
        let window = Arc::new(read(tree, self.node, position)?);
        self.listings.keep(self.node, &window);
        Ok(window)
    }
}

impl Drop for OpenDir {
    fn drop(&mut self) {
        self.listings.closed(self.node);
    }
}

fn read(tree: &Tree, node: Node, start: usize) -> Result<Window> {
    let mut window = Window::new(start);
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
                if at >= start && !window.push(&entry) {
                    return ControlFlow::Break(());
                }
                at += 1;
            }
            Err(e) => window.lost = window.lost.take().or(Some(e)),
        }
        ControlFlow::Continue(())
    })?;
    Ok(window.finish())
}
