//! Which guest files lie in given ranges of a disk.
//!
//! Damage is told in bytes of a disk, and people ask about files. Every file's extents are
//! looked at, so this costs a walk over the volumes that the ranges touch; it is only done
//! where there is something to tell.

use disk_io::Result;
use guest_fs::{Extent, FileSystem, Name, NodeId, NodeKind};
use proxy::{Node, Tree};
use std::{
    ops::{ControlFlow, Range},
    sync::Arc,
};

/// Owners that are listed.
const MOST: usize = 10_000;
/// Levels of directories that are followed.
const DEEPEST: usize = 512;

/// A guest file that has bytes in the ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its path in the tree, with `:stream` where it is a named stream.
    pub path: Vec<u8>,
    /// How many bytes of it.
    pub bytes: u64,
    /// Which ranges of those asked for, by their index.
    pub ranges: Vec<usize>,
}

/// What was found, and what was not looked at.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    /// The files, in the order of the volumes' tables.
    pub files: Vec<Owner>,
    /// Volumes that could not be searched, lists that were cut: one sentence each.
    pub remarks: Vec<String>,
}

/// Finds the files that have bytes in `ranges` of the disk that `tree` was made of.
pub fn owners(tree: &Tree, ranges: &[Range<u64>]) -> Owners {
    let mut found = Owners::default();
    for (number, volume, door) in tree.doors() {
        // Logical volumes lie on several ranges of several disks.
        let start = match volume.partition() {
            Some(partition) => partition.start,
            None if volume.name().as_bytes() == b"p0" => 0,
            None => continue,
        };
        let wanted = cut(ranges, start, volume.disk().len());
        if wanted.is_empty() {
            continue;
        }
        let path = tree.path_of(door);
        let fs = match volume.file_system() {
            Ok(fs) => fs,
            Err(e) => {
                found
                    .remarks
                    .push(format!("{path}: what lies there cannot be told: {e}"));
                continue;
            }
        };
        let mut search = Search {
            tree,
            number,
            fs,
            wanted,
            found: &mut found,
            lost: 0,
        };
        search.run();
        let lost = search.lost;
        if lost > 0 {
            found.remarks.push(format!(
                "{path}: {lost} records or directories could not be read; more files may be \
                 touched"
            ));
        }
    }
    if found.files.len() >= MOST {
        found
            .remarks
            .push(format!("only the first {MOST} files are listed"));
    }
    found
}

/// The parts of `ranges` inside a volume, in bytes of the volume, each with its index.
fn cut(ranges: &[Range<u64>], start: u64, len: u64) -> Vec<(Range<u64>, usize)> {
    let end = start.saturating_add(len);
    let inside = ranges.iter().enumerate().filter_map(|(index, r)| {
        let (from, to) = (r.start.max(start), r.end.min(end));
        (from < to).then(|| (from - start..to - start, index))
    });
    let mut inside: Vec<_> = inside.collect();
    inside.sort_by_key(|(r, _)| (r.start, r.end));
    inside
}

struct Search<'a> {
    tree: &'a Tree,
    number: u16,
    fs: &'a Arc<dyn FileSystem>,
    wanted: Vec<(Range<u64>, usize)>,
    found: &'a mut Owners,
    lost: u64,
}

impl Search<'_> {
    fn run(&mut self) {
        for meta in self.fs.metafiles() {
            if let Ok(extents) = self.fs.extents(meta.node, None) {
                self.take(meta.node, None, None, &extents);
            }
        }
        let mut nodes = Vec::new();
        let mut lost = 0u64;
        let scanned = self.fs.scan(&mut |found| {
            match found {
                Ok(found) => nodes.push((found.metadata.node, found.metadata.kind)),
                Err(_) => lost += 1,
            }
            ControlFlow::Continue(())
        });
        self.lost += lost;
        if matches!(scanned, Ok(true)) {
            for (node, kind) in nodes {
                self.object(node, kind, None);
            }
            return;
        }
        let root = self.fs.root();
        // Not every file system can tell the names of a record, so they are kept on the way.
        let door = match self.node(root) {
            Ok(node) => self.tree.path_of(node).as_bytes().to_vec(),
            Err(_) => Vec::new(),
        };
        self.object(root, NodeKind::Directory, Some(&door));
        let mut dirs = vec![(root, 0usize, door)];
        let mut seen = std::collections::HashSet::from([root]);
        while let Some((dir, level, path)) = dirs.pop() {
            let mut below = Vec::new();
            let listed = self.fs.read_dir(dir, &mut |entry| {
                match entry {
                    Ok(entry) => below.push((entry.node, entry.kind, entry.name)),
                    Err(_) => self.lost += 1,
                }
                ControlFlow::Continue(())
            });
            self.lost += u64::from(listed.is_err());
            for (node, kind, name) in below {
                if !seen.insert(node) {
                    continue;
                }
                let mut path = path.clone();
                path.push(b'/');
                path.extend_from_slice(proxy::names::shown(name).as_bytes());
                self.object(node, kind, Some(&path));
                if kind == NodeKind::Directory && level < DEEPEST {
                    dirs.push((node, level + 1, path));
                }
            }
        }
    }

    fn object(&mut self, node: NodeId, kind: NodeKind, path: Option<&[u8]>) {
        if kind == NodeKind::Special {
            return;
        }
        match self.fs.extents(node, None) {
            Ok(extents) => self.take(node, path, None, &extents),
            // A directory of NTFS has no contents of its own.
            Err(_) if kind != NodeKind::File => {}
            Err(_) => self.lost += 1,
        }
        let streams = self.fs.streams(node);
        self.lost += u64::from(streams.is_err());
        for stream in streams.unwrap_or_default() {
            if let Ok(extents) = self.fs.extents(node, Some(&stream.name)) {
                self.take(node, path, Some(&stream.name), &extents);
            }
        }
    }

    /// Notes an object if it has bytes in the ranges; without its path, the path is asked
    /// for.
    fn take(
        &mut self,
        node: NodeId,
        path: Option<&[u8]>,
        stream: Option<&Name>,
        extents: &[Extent],
    ) {
        if self.found.files.len() >= MOST {
            return;
        }
        let mut bytes = 0;
        let mut ranges = Vec::new();
        for extent in extents {
            let Some(place) = extent.place else { continue };
            let end = place.saturating_add(extent.len);
            // Ranges may overlap each other, so all that begin before the end are looked at.
            let upto = self.wanted.partition_point(|(r, _)| r.start < end);
            for (range, index) in self.wanted.iter().take(upto) {
                let (from, to) = (range.start.max(place), range.end.min(end));
                if from < to {
                    bytes += to - from;
                    ranges.push(*index);
                }
            }
        }
        if ranges.is_empty() {
            return;
        }
        ranges.sort_unstable();
        ranges.dedup();
        let mut path = match (path, self.node(node)) {
            (Some(path), _) => path.to_vec(),
            (None, Ok(node)) => self.tree.path_of(node).as_bytes().to_vec(),
            (None, Err(_)) => format!("(record {})", node.record).into_bytes(),
        };
        if let Some(stream) = stream {
            path.push(b':');
            path.extend_from_slice(stream.as_bytes());
        }
        self.found.files.push(Owner {
            path,
            bytes,
            ranges,
        });
    }

    fn node(&self, id: NodeId) -> Result<Node> {
        self.tree.guest_node(self.number, id)
    }
}
