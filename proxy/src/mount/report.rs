//! Errors are told once, with the guest's path, and not without end.

use crate::tree::{Node, Tree};
use disk_io::DiskError;
use guest_fs::Name;
use std::{
    cmp::Ordering::{Equal, Greater, Less},
    collections::{HashMap, HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// More different errors than this, and the oldest are forgotten and told again.
const REMEMBERED: usize = 16_384;
/// So many different errors of one thing are told; a large file on a disk that fails has
/// millions, which would fill the disk that the log is on.
const OF_ONE: u32 = 100;

#[derive(Debug, Default)]
pub(crate) struct Reporter {
    told: Mutex<HashSet<u64>>,
    /// How many were told of what could not be done with a node.
    counts: Mutex<HashMap<(Node, String), u32>>,
    trail: Mutex<Trail>,
}

/// How nodes were reached, where the file system itself cannot tell (FAT): only for
/// messages, and bounded.
#[derive(Debug, Default)]
struct Trail {
    reached: HashMap<Node, (Node, Name)>,
    /// By volume, whether its file system can tell.
    can_tell: HashMap<u16, bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reporter {
    /// Notes that `node` was found as `name` in `dir`.
    pub(crate) fn reached(&self, tree: &Tree, dir: Node, name: &Name, node: Node) {
        if node.volume == 0 {
            return;
        }
        let mut trail = lock(&self.trail);
        let can_tell = match trail.can_tell.get(&node.volume) {
            Some(can_tell) => *can_tell,
            None => {
                let Ok(names) = tree.names(node) else {
                    return;
                };
                trail.can_tell.insert(node.volume, !names.is_empty());
                !names.is_empty()
            }
        };
        if !can_tell {
            if trail.reached.len() >= REMEMBERED {
                trail.reached.clear();
            }
            trail.reached.insert(node, (dir, name.clone()));
        }
    }

    /// How a node is called, for messages.
    pub(crate) fn path(&self, tree: &Tree, node: Node) -> Name {
        let trail = lock(&self.trail);
        let mut parts = Vec::new();
        let mut at = node;
        while let Some((dir, name)) = trail.reached.get(&at)
            && parts.len() < 512
        {
            parts.push(name.as_bytes());
            at = *dir;
        }
        let mut path = tree.path_of(at).as_bytes().to_vec();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        Name::from_bytes(path)
    }

    /// Logs an error of `doing` on `node`, the first time, and of many the first ones.
    pub(crate) fn error(&self, tree: &Tree, node: Node, doing: &str, error: &DiskError) {
        let text = error.to_string();
        if self.is_new(&(node, doing, &text)) {
            let before = self.count(node, doing);
            let path = self.path(tree, node);
            match before.cmp(&OF_ONE) {
                Less => tracing::error!(%path, kind = error.kind().as_str(), "{doing}: {text}"),
                Equal => tracing::error!(%path, "{doing}: there are more errors, not told here"),
                Greater => {}
            }
        }
    }

    /// Logs why something may not be what it should be, the first time.
    pub(crate) fn doubt(&self, tree: &Tree, node: Node, why: &str) {
        if self.is_new(&(node, why)) && self.count(node, "doubt") < OF_ONE {
            let path = self.path(tree, node);
            tracing::warn!(%path, "doubtful: {why}");
        }
    }

    /// Counts an error of a node, and says how many there were before.
    fn count(&self, node: Node, doing: &str) -> u32 {
        let mut counts = lock(&self.counts);
        if counts.len() >= REMEMBERED {
            counts.clear();
        }
        let count = counts.entry((node, doing.to_owned())).or_default();
        *count = count.saturating_add(1);
        *count - 1
    }

    /// Logs a panic that was caught.
    pub(crate) fn panic(&self, tree: &Tree, node: Node, doing: &str) {
        if self.is_new(&(node, doing)) {
            let path = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.path(tree, node).to_string()
            }))
            .unwrap_or_default();
            tracing::error!(%path, "{doing}: a fault of this program was caught; please report it");
        }
    }

    fn is_new(&self, what: &impl Hash) -> bool {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        let mut told = lock(&self.told);
        if told.len() >= REMEMBERED {
            told.clear();
        }
        told.insert(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        TreeOptions,
        mock::{MockFs, tree},
    };

    #[test]
    fn paths_are_known_where_the_file_system_cannot_tell() {
        for tells_names in [true, false] {
            let mut fs = MockFs::new();
            fs.tells_names = tells_names;
            let dir = fs.dir(0, "dir");
            fs.file(dir, "file", b"");
            let tree = tree(vec![fs], TreeOptions::default());
            let reporter = Reporter::default();
            let mut at = tree.root();
            for name in ["p1", "dir", "file"] {
                let name = Name::from(name);
                let node = tree.lookup(at, &name).unwrap().unwrap();
                reporter.reached(&tree, at, &name, node);
                at = node;
            }
            assert_eq!(reporter.path(&tree, at).to_string(), "/p1/dir/file");
            let kept = lock(&reporter.trail).reached.len();
            assert_eq!(kept, if tells_names { 0 } else { 2 });
        }
    }

    #[test]
    fn the_many_errors_of_one_thing_are_counted() {
        let reporter = Reporter::default();
        let tree = tree(vec![MockFs::new()], TreeOptions::default());
        let node = tree.root();
        for n in 0..OF_ONE {
            assert_eq!(reporter.count(node, "reading"), n);
        }
        assert_eq!(reporter.count(node, "listing"), 0);
        assert_eq!(reporter.count(node, "reading"), OF_ONE);
    }

    #[test]
    fn an_error_is_new_once() {
        let reporter = Reporter::default();
        assert!(reporter.is_new(&"a"));
        assert!(!reporter.is_new(&"a"));
        assert!(reporter.is_new(&"b"));
    }
}
