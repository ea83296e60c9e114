//! Errors are told once, with the guest's path.

use crate::tree::{Node, Tree};
use disk_io::DiskError;
use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{Mutex, PoisonError},
};

/// More different errors than this, and the oldest are forgotten and told again.
const REMEMBERED: usize = 16_384;

#[derive(Debug, Default)]
pub(crate) struct Reporter {
    told: Mutex<HashSet<u64>>,
}

impl Reporter {
    /// Logs an error of `doing` on `node`, the first time.
    pub(crate) fn error(&self, tree: &Tree, node: Node, doing: &str, error: &DiskError) {
        let text = error.to_string();
        if self.is_new(&(node, doing, &text)) {
            tracing::error!(path = %tree.path_of(node), kind = error.kind().as_str(), "{doing}: {text}");
        }
    }

    /// Logs a panic that was caught.
    pub(crate) fn panic(&self, tree: &Tree, node: Node, doing: &str) {
        if self.is_new(&(node, doing)) {
            let path = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                tree.path_of(node).to_string()
            }))
            .unwrap_or_default();
            tracing::error!(%path, "{doing}: a fault of this program was caught; please report it");
        }
    }

    fn is_new(&self, what: &impl Hash) -> bool {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= REMEMBERED {
            told.clear();
        }
        told.insert(hasher.finish())
    }
}
