//! Nodes as inode numbers and back: 16 bits of volume, 48 bits of record.
//!
//! Two restore points of one disk are two volumes, so `tar` and `rsync -H` never take their
//! files for hard links of each other. The record's sequence number does not fit; it is the
//! inode's generation, and it is remembered for every node that was given out, since the
//! kernel asks by number alone.

use crate::tree::{Node, Place, Tree};
use guest_fs::NodeId;
use std::{
    collections::HashMap,
    sync::{
        RwLock,
        atomic::{AtomicU16, Ordering},
    },
};

/// Largest record number that an inode number can carry.
pub const MAX_RECORD: u64 = (1 << 48) - 1;

/// The inode number of a node. The tree's root is 1.
pub fn inode(node: Node) -> u64 {
    if node.volume == 0 {
        return node.id.record.saturating_add(1) & MAX_RECORD;
    }
    u64::from(node.volume) << 48 | node.id.record & MAX_RECORD
}

/// A number for something whose own could not be read, to be listed with. It is nobody's:
/// the kernel must not learn a wrong generation, or kind, for a number that a healthy file
/// has as well.
pub fn unread(node: Node) -> u64 {
    u64::from(u16::MAX) << 48 | node.id.record & MAX_RECORD
}

/// The node of an inode number, without sequence number.
pub fn node(inode: u64) -> Node {
    // The shift leaves 16 bits.
    let volume = (inode >> 48) as u16;
    let record = inode & MAX_RECORD;
    Node {
        volume,
        id: NodeId::plain(match volume {
            0 => record.saturating_sub(1),
            _ => record,
        }),
    }
}

impl Tree {
    /// A number that a directory has whatever path leads to it, and no other of the tree. Two
    /// restore points of a volume are two.
    pub fn directory(&self, node: Node) -> u64 {
        match self.place(node) {
            Ok(Place::Guest(volume, fs, id)) => {
                u64::from(volume) << 48 | fs.directory(id) & MAX_RECORD
            }
            _ => inode(node),
        }
    }
}

const PAGE: usize = 64;
type Page = [AtomicU16; PAGE];

/// Sequence numbers of nodes that were given out, two bytes a record.
#[derive(Debug, Default)]
pub struct Sequences {
    pages: RwLock<HashMap<u64, Box<Page>>>,
}

impl Sequences {
    /// Remembers the sequence number of `node`.
    pub fn remember(&self, node: Node) {
        if node.id.sequence == 0 {
            return;
        }
        let inode = inode(node);
        let (page, slot) = (inode / PAGE as u64, (inode % PAGE as u64) as usize);
        if let Ok(pages) = self.pages.read()
            && let Some(page) = pages.get(&page)
        {
            if let Some(slot) = page.get(slot) {
                slot.store(node.id.sequence, Ordering::Relaxed);
            }
            return;
        }
        if let Ok(mut pages) = self.pages.write() {
            let page = pages
                .entry(page)
                .or_insert_with(|| Box::new([const { AtomicU16::new(0) }; PAGE]));
            if let Some(slot) = page.get(slot) {
                slot.store(node.id.sequence, Ordering::Relaxed);
            }
        }
    }

    /// The node of an inode number, with the sequence number it was given out with.
    pub fn node(&self, inode: u64) -> Node {
        let mut node = node(inode);
        if node.volume != 0
            && let Ok(pages) = self.pages.read()
            && let Some(page) = pages.get(&(inode / PAGE as u64))
            && let Some(slot) = page.get((inode % PAGE as u64) as usize)
        {
            node.id.sequence = slot.load(Ordering::Relaxed);
        }
        node
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn there_and_back(volume in any::<u16>(), record in 0..MAX_RECORD, sequence in any::<u16>()) {
            let node = Node { volume, id: NodeId { record, sequence: if volume == 0 { 0 } else { sequence } } };
            let sequences = Sequences::default();
            sequences.remember(node);
            let number = inode(node);
            prop_assert_eq!(sequences.node(number), node);
            prop_assert!(volume != 0 || number != 0);
        }
    }

    #[test]
    fn the_root_is_one_and_restore_points_differ() {
        assert_eq!(inode(Tree0::root()), 1);
        let at = |volume| Node {
            volume,
            id: NodeId::plain(5),
        };
        assert_ne!(inode(at(1)), inode(at(2)));
    }

    struct Tree0;
    impl Tree0 {
        fn root() -> Node {
            Node {
                volume: 0,
                id: NodeId::plain(0),
            }
        }
    }
}
