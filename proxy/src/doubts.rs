//! Why what the tree gives out may not be what it should be.
//!
//! Damage that stops nothing is no error: bytes come, names lead somewhere. What speaks against
//! them is asked for here, by whoever gives them to a user.

use crate::{
    names,
    tree::{Node, Tree},
};
use disk_io::DiskError;
#[cfg(doc)]
use guest_fs::FileSystem;
use guest_fs::Name;

/// The code of an error that makes names doubtful: damage beside it is told of by itself.
pub const DOUBTFUL: &str = "names-doubtful";

/// More directories than these, and all are looked at anew.
const DIRS_KNOWN: usize = 1 << 16;

impl Tree {
    /// What is doubtful about a node, one sentence each ([`FileSystem::doubts`]).
    pub fn doubts(&self, node: Node) -> Vec<String> {
        match self.guest(node) {
            Ok(Some((fs, id))) => {
                let mut doubts = fs.doubts(id);
                // Of all of a volume, told where it is entered.
                if let Some(volume) = self.volume_of(node).filter(|_| node.volume == 0) {
                    doubts.extend(volume.doubts());
                }
                doubts
            }
            // Of a disk: partitions may be missing.
            Ok(None) if node == self.root() => match self.source().map(|s| s.table()) {
                Some(table) => [table.losses.as_slice(), &table.rivals].concat(),
                None => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    /// The same of a directory that names are looked up in, kept: it takes reading all of it.
    pub(crate) fn doubts_of_dir(&self, dir: Node) -> Vec<String> {
        let lock = || self.dir_doubts.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(known) = lock().get(&dir) {
            return known.clone();
        }
        let doubts = self.doubts(dir);
        let mut known = lock();
        if known.len() >= DIRS_KNOWN {
            known.clear();
        }
        known.insert(dir, doubts.clone());
        doubts
    }

    /// The same as an error of listing it: what is not listed need not be missing. Its code is
    /// [`DOUBTFUL`], but where a partition table is damaged.
    pub fn doubts_of_listing(&self, dir: Node) -> Option<DiskError> {
        let doubts = self.doubts(dir);
        if doubts.is_empty() {
            return None;
        }
        let error = match self.source().filter(|_| dir == self.root()) {
            Some(disk) => {
                let error = DiskError::corrupt("listing the disk")
                    .hint("partitions may be missing here: info shows the table that is believed");
                match disk.table().losses.is_empty() {
                    true => error.code(DOUBTFUL),
                    false => error,
                }
            }
            None => DiskError::corrupt("listing the directory")
                .hint("names may be missing here: check --guests tells what is damaged")
                .code(DOUBTFUL),
        };
        Some(error.found(doubts.join("; ")))
    }

    /// What to say where a node's own record does not have the name that leads to it
    /// ([`FileSystem::misnamed`]).
    pub fn misnamed(&self, node: Node, dir: Node, name: &Name) -> Option<String> {
        if node.volume == 0 {
            return None;
        }
        let (fs, id) = self.guest(node).ok()??;
        let (_, dir) = self.guest(dir).ok()??;
        let why = fs.misnamed(id, dir, name)?;
        // `%2F` may be what is stored, or how a slash is shown.
        match names::stored(name) {
            Some(stored) => fs.misnamed(id, dir, &stored),
            None => Some(why),
        }
    }

    /// The same for a name as somebody typed it: in any case of letters, or an 8.3 name.
    pub(crate) fn misnamed_as_typed(&self, node: Node, dir: Node, name: &Name) -> Option<String> {
        let why = self.misnamed(node, dir, name)?;
        let lower = |n: &Name| n.to_string().to_lowercase();
        let same = |(d, n): (Node, Name)| self.same_directory(d, dir) && lower(&n) == lower(name);
        let names = self.names(node).unwrap_or_default();
        if names.into_iter().any(same) {
            return None;
        }
        let upper = Name::from(name.to_string().to_uppercase().as_str());
        self.misnamed(node, dir, &upper).and(Some(why))
    }
}
