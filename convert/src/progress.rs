//! How far a copy is, and whether it should stop.

use crate::digest::Hash;

/// Told by workers, from any thread, some times for every MiB.
pub trait Progress: Sync {
    /// `bytes` more of the virtual length are done, holes included.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }

    /// The SHA-256 of a unit of the digest that is computed on the way; `None` where it is all
    /// zeros. Each unit comes once, in any order.
    fn hashed(&self, unit: u64, hash: Option<&Hash>) {
        let _ = (unit, hash);
    }

    /// Whether the user wants it to stop: nothing that looks finished is left then.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Shows nothing, never stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {}
