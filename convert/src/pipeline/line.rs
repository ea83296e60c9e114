//! Pieces in order: what workers hand over to the one thread that needs them so.

use super::lock;
use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex},
};

/// A piece that was read and, where order does not matter, written.
pub(super) struct Done {
    pub(super) index: u64,
    pub(super) len: u64,
    /// A buffer that begins with its bytes, unless all are zero or nobody needs them.
    pub(super) bytes: Option<Vec<u8>>,
    /// What the target made of them.
    pub(super) encoded: Option<Vec<u8>>,
}

impl Done {
    pub(super) fn data(&self) -> Option<&[u8]> {
        self.bytes.as_ref()?.get(..self.len as usize)
    }
}

/// Where workers hand over pieces to the one thread that needs them in order.
pub(super) struct Line {
    state: Mutex<LineState>,
    moved: Condvar,
    arrived: Condvar,
    window: u64,
}

#[derive(Default)]
struct LineState {
    next: u64,
    ready: BTreeMap<u64, Done>,
    spare: Vec<Vec<u8>>,
    stopped: bool,
}

impl Line {
    /// Begins with piece `next`.
    pub(super) fn new(next: u64, window: u64) -> Self {
        Self {
            state: Mutex::new(LineState {
                next,
                ..LineState::default()
            }),
            moved: Condvar::new(),
            arrived: Condvar::new(),
            window,
        }
    }

    /// Waits until `index` is near enough to the front, then puts it there.
    pub(super) fn put(&self, done: Done) {
        let index = done.index;
        let mut state = lock(&self.state);
        while index >= state.next + self.window && !state.stopped {
            state = self.moved.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        state.ready.insert(index, done);
        if index == state.next {
            self.arrived.notify_one();
        }
    }

    /// Waits for `index`; `None` if it will never come.
    pub(super) fn take(&self, index: u64) -> Option<Done> {
        let mut state = lock(&self.state);
        loop {
            if state.stopped {
                return None;
            }
            if let Some(piece) = state.ready.remove(&index) {
                state.next = index + 1;
                self.moved.notify_all();
                return Some(piece);
            }
            state = self.arrived.wait(state).unwrap_or_else(|e| e.into_inner());
        }
    }

    pub(super) fn spare(&self) -> Option<Vec<u8>> {
        lock(&self.state).spare.pop()
    }

    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        lock(&self.state).spare.push(buffer);
    }

    pub(super) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.moved.notify_all();
        self.arrived.notify_all();
    }
}
