//! What a user should know of a volume, gathered while it is read.

use std::sync::Mutex;

/// A damaged volume could fill memory with complaints.
const MOST: usize = 100;

/// Remarks, each once, in the order they were met.
#[derive(Debug, Default)]
pub struct Notes(Mutex<Vec<String>>);

impl Notes {
    /// Begins with these.
    pub fn new(first: Vec<String>) -> Self {
        Self(Mutex::new(first))
    }

    /// Adds one, unless it is known or there are many already.
    pub fn add(&self, note: String) {
        let Ok(mut notes) = self.0.lock() else {
            return;
        };
        if notes.len() < MOST && !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// All so far.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().map(|n| n.clone()).unwrap_or_default()
    }
}
