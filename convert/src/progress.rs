//! How far a copy is, and whether it should stop.

/// Told by workers, from any thread, some times for every MiB.
pub trait Progress: Sync {
    /// `bytes` more of the virtual length are done, holes included.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
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
