//! Which guest files lie in given ranges of a disk.
//!
//! Damage is told in bytes of a disk, and people ask about files. Every file's extents are
//! looked at, so this costs a walk over the volumes that the ranges touch; it is only done
//! where there is something to tell.

use disk_io::Result;
use guest_fs::{Extent, FileSystem, FsKind, Name, NodeId, NodeKind};
use proxy::{Logical, Node, Tree, Volume};
use std::{
    collections::{BTreeMap, BTreeSet},
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

/// What owners are looked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The volume that ranges and objects are of; `None`: ranges of the disk.
    pub volume: Option<Arc<Volume>>,
    /// Ranges of bytes.
    pub ranges: Vec<Range<u64>>,
    /// Objects of the volume, by their records.
    pub nodes: Vec<u64>,
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
    let one = |range: &Range<u64>| Wanted {
        ranges: vec![range.clone()],
        ..Wanted::default()
    };
    owners_of(tree, &ranges.iter().map(one).collect::<Vec<_>>())
}

/// The same for ranges and objects of volumes; [`Owner::ranges`] are places in `wanted`.
pub fn owners_of(tree: &Tree, wanted: &[Wanted]) -> Owners {
    let mut found = Owners::default();
    for (number, volume, door) in tree.doors() {
        let over = tree.source().and_then(|source| {
            let mut logical = source.logical().iter();
            logical.find(|l| Arc::ptr_eq(&l.volume, volume))
        });
        let (ranges, nodes) = of_volume(volume, over, wanted);
        if ranges.is_empty() && nodes.is_empty() {
            continue;
        }
        let path = tree.path_of(door);
        let fs = match volume.file_system() {
            Ok(fs) => fs,
            // What lies on a member of a set is told of the volumes over it.
            Err(_) if is_told_above(tree, volume) => continue,
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
            door: &path,
            fs,
            wanted: ranges,
            unseen: nodes.keys().copied().collect(),
            nodes,
            nameless: BTreeMap::new(),
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

type Parts = (Vec<(Range<u64>, usize)>, BTreeMap<u64, Vec<usize>>);

/// What of `wanted` lies in a volume: ranges in bytes of it, in order, and objects, each with
/// its index.
fn of_volume(volume: &Arc<Volume>, over: Option<&Logical>, wanted: &[Wanted]) -> Parts {
    let start = match volume.partition() {
        Some(partition) => Some(partition.start),
        None if volume.name().as_bytes() == b"p0" => Some(0),
        None => None,
    };
    let len = volume.disk().len();
    let (mut ranges, mut nodes) = (Vec::new(), BTreeMap::<u64, Vec<usize>>::new());
    for (index, one) in wanted.iter().enumerate() {
        let start = match (&one.volume, over) {
            (Some(of), _) if !Arc::ptr_eq(of, volume) => continue,
            (Some(_), _) => 0,
            // It lies on several ranges, perhaps of several disks.
            (None, Some(over)) => {
                let inside = one.ranges.iter().flat_map(|r| over.ranges_in(r));
                ranges.extend(inside.map(|r| (r, index)));
                continue;
            }
            (None, None) => match start {
                Some(start) => start,
                None => continue,
            },
        };
        let end = start.saturating_add(len);
        ranges.extend(one.ranges.iter().filter_map(|r| {
            let (from, to) = (r.start.max(start), r.end.min(end));
            (from < to).then(|| (from - start..to - start, index))
        }));
        if one.volume.is_some() {
            for node in &one.nodes {
                nodes.entry(*node).or_default().push(index);
            }
        }
    }
    ranges.sort_by_key(|(r, _): &(Range<u64>, usize)| (r.start, r.end));
    (ranges, nodes)
}

/// Whether a volume is a member of a set whose volumes the tree has: not where they are with another
/// disk of its machine.
fn is_told_above(tree: &Tree, volume: &Volume) -> bool {
    let kind = volume.recognised().as_ref().ok().and_then(Option::as_ref);
    let member = kind.is_some_and(|k| matches!(k.kind, FsKind::Lvm2 | FsKind::Ldm));
    let above = tree.source().is_some_and(|s| !s.logical().is_empty());
    member && above && volume.is_without_files()
}

struct Search<'a> {
    tree: &'a Tree,
    number: u16,
    door: &'a Name,
    fs: &'a Arc<dyn FileSystem>,
    wanted: Vec<(Range<u64>, usize)>,
    /// Objects that are asked for, and those of them that were not met yet.
    nodes: BTreeMap<u64, Vec<usize>>,
    unseen: BTreeSet<u64>,
    /// Owners whose records have no name that can be read, by record: places in `found`.
    nameless: BTreeMap<u64, Vec<(usize, Option<Name>)>>,
    found: &'a mut Owners,
    lost: u64,
}

impl Search<'_> {
    fn run(&mut self) {
        for meta in self.fs.metafiles() {
            if let Ok(extents) = self.fs.extents(meta.node, None) {
                // Not every file system can tell the names of a record.
                let named = self
                    .fs
                    .names(meta.node)
                    .is_ok_and(|names| !names.is_empty());
                let shown = proxy::names::shown(meta.name);
                let path = [self.door.as_bytes(), b"/", shown.as_bytes()].concat();
                let path = Some(path.as_slice()).filter(|_| !named);
                self.take(meta.node, path, None, &extents);
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
            let root = self.fs.root();
            if self.unseen.contains(&root.record) {
                self.object(root, NodeKind::Directory, None);
            }
            // A record that cannot be read, or has lost its name, still has one in its directory.
            if !self.unseen.is_empty() || !self.nameless.is_empty() {
                self.walk(true);
            }
        } else {
            self.walk(false);
        }
        // What no directory has.
        for node in std::mem::take(&mut self.unseen) {
            let path = format!("/(record {node})");
            let path = [self.door.as_bytes(), path.as_bytes()].concat();
            self.take(NodeId::plain(node), Some(&path), None, &[]);
        }
    }

    /// Follows every directory; `names`: only for the objects that are asked for and were not
    /// met yet.
    fn walk(&mut self, names: bool) {
        let root = self.fs.root();
        // Not every file system can tell the names of a record, so they are kept on the way.
        let door = self.door.as_bytes().to_vec();
        if !names {
            self.object(root, NodeKind::Directory, Some(&door));
        }
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
                if !names {
                    self.object(node, kind, Some(&path));
                } else if self.unseen.contains(&node.record) {
                    self.take(node, Some(&path), None, &[]);
                }
                if names {
                    self.name(node, &path);
                }
                if names && self.unseen.is_empty() && self.nameless.is_empty() {
                    return;
                }
                if kind == NodeKind::Directory && level < DEEPEST {
                    dirs.push((node, level + 1, path));
                }
            }
        }
    }

    /// Gives owners the name that their record has lost, where it is found in a directory.
    fn name(&mut self, node: NodeId, path: &[u8]) {
        for (index, stream) in self.nameless.remove(&node.record).into_iter().flatten() {
            if let Some(owner) = self.found.files.get_mut(index) {
                owner.path = called(path.to_vec(), stream.as_ref());
            }
        }
    }

    fn object(&mut self, node: NodeId, kind: NodeKind, path: Option<&[u8]>) {
        if kind == NodeKind::Special {
            return;
        }
        let extents = self.fs.extents(node, None);
        // A directory of NTFS has no contents of its own.
        self.lost += u64::from(extents.is_err() && kind == NodeKind::File);
        let mut extents = extents.unwrap_or_default();
        if kind == NodeKind::Directory {
            let own = self.fs.structure(node);
            self.lost += u64::from(own.is_err());
            extents.extend(own.unwrap_or_default());
        }
        self.take(node, path, None, &extents);
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
        if stream.is_none() {
            self.unseen.remove(&node.record);
            ranges.extend(self.nodes.get(&node.record).into_iter().flatten());
        }
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
        let has_name = || {
            node == self.fs.root()
                || self.fs.names(node).is_ok_and(|names| !names.is_empty())
                || self.fs.metafiles().iter().any(|m| m.node == node)
        };
        let path = match (path, self.node(node)) {
            (Some(path), _) => path.to_vec(),
            (None, Ok(node)) if has_name() => self.tree.path_of(node).as_bytes().to_vec(),
            (None, _) => {
                let index = self.found.files.len();
                self.nameless
                    .entry(node.record)
                    .or_default()
                    .push((index, stream.cloned()));
                [
                    self.door.as_bytes(),
                    format!("/(record {})", node.record).as_bytes(),
                ]
                .concat()
            }
        };
        self.found.files.push(Owner {
            path: called(path, stream),
            bytes,
            ranges,
        });
    }

    fn node(&self, id: NodeId) -> Result<Node> {
        self.tree.guest_node(self.number, id)
    }
}

/// The path of a stream.
fn called(mut path: Vec<u8>, stream: Option<&Name>) -> Vec<u8> {
    if let Some(stream) = stream {
        path.push(b':');
        path.extend_from_slice(stream.as_bytes());
    }
    path
}
