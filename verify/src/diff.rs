//! What differs between two disks, in blocks and in guest files.
//!
//! Where both have a range in the same place of the same file (two snapshots of one chain),
//! or both read as zeros, nothing is read: the time goes with what changed.

use crate::owners::owners;
use disk_io::{Disk, DiskError, ErrorKind, Result, RunKind, finding::join};
use guest_fs::{Extent, Metadata, NodeKind};
use proxy::{Source, Tree, TreeOptions};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{ControlFlow, Range},
    sync::Arc,
};

/// What is compared at a time.
const CHUNK: u64 = 1 << 20;
/// Contents up to this length may lie in a file's record.
const RESIDENT: u64 = 4096;
/// Differences are told in these.
const BLOCK: usize = 4096;

/// What comparing two disks came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// Bytes that differ, in order.
    pub ranges: Vec<Range<u64>>,
    /// Lengths of the disks in bytes, if they differ: what the longer one has more is not
    /// compared.
    pub lengths: Option<(u64, u64)>,
    /// Bytes that were read of each.
    pub read: u64,
}

impl Blocks {
    /// Whether nothing differs.
    pub fn is_same(&self) -> bool {
        self.ranges.is_empty() && self.lengths.is_none()
    }

    /// Bytes that differ.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|r| r.end - r.start).sum()
    }
}

/// Compares two disks. With `first` it stops at the first difference. `step` is told how
/// far it has come.
pub fn blocks(a: &Source, b: &Source, first: bool, step: &mut dyn FnMut(u64)) -> Result<Blocks> {
    let (disk_a, disk_b) = (a.disk(), b.disk());
    let mut found = Blocks {
        lengths: (disk_a.len() != disk_b.len()).then(|| (disk_a.len(), disk_b.len())),
        ..Blocks::default()
    };
    let end = disk_a.len().min(disk_b.len());
    let mut at = 0;
    let mut bufs = [Vec::new(), Vec::new()];
    while at < end {
        let (len, same) = piece(a, b, at)?;
        let stop = at.saturating_add(len.max(1)).min(end);
        if same {
            at = stop;
            step(at);
            continue;
        }
        while at < stop {
            let n = usize::try_from(CHUNK.min(stop - at)).unwrap_or(0);
            let [left, right] = &mut bufs;
            left.resize(n, 0);
            right.resize(n, 0);
            disk_a.read_exact_at(left, at)?;
            disk_b.read_exact_at(right, at)?;
            found.read += n as u64;
            if left != right {
                let pairs = left.chunks(BLOCK).zip(right.chunks(BLOCK));
                let mut block = at;
                for (left, right) in pairs {
                    let next = block + left.len() as u64;
                    if left != right {
                        join(&mut found.ranges, block..next);
                    }
                    block = next;
                }
                if first {
                    return Ok(found);
                }
            }
            at += n as u64;
            step(at);
        }
    }
    Ok(found)
}

/// How long the beginning of both disks at `at` can be taken together, and whether it is
/// known to be the same without reading.
fn piece(a: &Source, b: &Source, at: u64) -> Result<(u64, bool)> {
    let (run_a, run_b) = (a.disk().run_at(at)?, b.disk().run_at(at)?);
    let len = run_a.len.min(run_b.len);
    let zero = |kind: RunKind| kind.reads_as_zero();
    if zero(run_a.kind) && zero(run_b.kind) {
        return Ok((len, true));
    }
    let (Some(layers_a), Some(layers_b)) = (a.layered(), b.layered()) else {
        return Ok((len, false));
    };
    let (origin_a, origin_b) = (layers_a.origin_at(at)?, layers_b.origin_at(at)?);
    let len = len.min(origin_a.len).min(origin_b.len);
    let same = origin_a.place.is_some()
        && origin_a.place == origin_b.place
        && origin_a.encoded == origin_b.encoded;
    Ok((len, same))
}

/// How a guest file differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
    /// Its contents differ.
    Content,
    /// Only what is known of it differs: times, attributes, owner, kind.
    Metadata,
    /// Whether its contents differ cannot be told.
    Unreadable,
}

impl Change {
    /// A stable word, as used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Content => "content",
            Self::Metadata => "metadata",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A guest file that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its path in the tree.
    pub path: Vec<u8>,
    /// How.
    pub change: Change,
    /// Its length in the first and in the second, in bytes.
    pub sizes: (Option<u64>, Option<u64>),
}

/// What comparing the files of two disks came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Those that differ, by path.
    pub changed: Vec<Changed>,
    /// What could not be compared, one sentence each.
    pub remarks: Vec<String>,
}

type Listed = BTreeMap<Vec<u8>, (proxy::Node, Metadata)>;

/// Compares the guest files of two disks whose differing blocks are `blocks`: names and
/// metadata of all, contents only where blocks or metadata differ.
pub fn files(a: &Arc<Source>, b: &Arc<Source>, blocks: &Blocks) -> Result<Files> {
    let trees = [
        Tree::new(a.clone(), TreeOptions::default())?,
        Tree::new(b.clone(), TreeOptions::default())?,
    ];
    let mut found = Files::default();
    let mut touched: BTreeSet<Vec<u8>> = BTreeSet::new();
    for tree in &trees {
        let owners = owners(tree, &blocks.ranges);
        for owner in owners.files {
            // A stream is part of its file.
            touched.insert(owner.path.clone());
            let colon = owner.path.iter().rposition(|b| *b == b':');
            touched.extend(colon.map(|at| owner.path[..at].to_vec()));
        }
        found.remarks.extend(owners.remarks);
    }
    // NTFS keeps the contents of small files in their records.
    let records = touched.iter().any(|path| path.ends_with(b"/$MFT"));
    let lists = [list(&trees[0], &mut found), list(&trees[1], &mut found)];
    let [first, second] = &lists;
    for (path, (_, metadata)) in first {
        if !second.contains_key(path) {
            found.changed.push(Changed {
                path: path.clone(),
                change: Change::Removed,
                sizes: (Some(metadata.size), None),
            });
        }
    }
    for (path, (node_b, b)) in second {
        let Some((node_a, a)) = first.get(path) else {
            found.changed.push(Changed {
                path: path.clone(),
                change: Change::Added,
                sizes: (None, Some(b.size)),
            });
            continue;
        };
        let metadata = !same_metadata(a, b);
        let in_record = records && b.kind == NodeKind::File && b.size <= RESIDENT;
        let looked_at = metadata || in_record || touched.contains(path);
        if !looked_at
            && (blocks.is_same() || !moved((&trees[0], *node_a, a), (&trees[1], *node_b, b)))
        {
            continue;
        }
        let contents = match (a.kind, b.kind) {
            (NodeKind::Symlink, NodeKind::Symlink) => {
                let target = |tree: &Tree, node| tree.read_link(node).map(|l| l.target);
                target(&trees[0], *node_a)
                    .and_then(|target_a| Ok(target_a == target(&trees[1], *node_b)?))
            }
            (NodeKind::File, NodeKind::File) if a.size == b.size => {
                same_contents((&trees[0], *node_a), (&trees[1], *node_b), a.size)
            }
            (NodeKind::File, _) | (_, NodeKind::File) => Ok(false),
            _ => Ok(true),
        };
        let change = match contents {
            Ok(true) if metadata => Change::Metadata,
            Ok(true) => continue,
            Ok(false) => Change::Content,
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => {
                let shown = guest_fs::Name::from_bytes(path.clone());
                found.remarks.push(format!("{shown}: {e}"));
                Change::Unreadable
            }
        };
        found.changed.push(Changed {
            path: path.clone(),
            change,
            sizes: (Some(a.size), Some(b.size)),
        });
    }
    found.changed.sort_by(|x, y| x.path.cmp(&y.path));
    found.remarks.sort();
    found.remarks.dedup();
    Ok(found)
}

fn list(tree: &Tree, found: &mut Files) -> Listed {
    let mut listed = Listed::new();
    let mut lost = Vec::new();
    let _ = tree.find(tree.root(), b"", &|_, _| true, &mut |below| {
        match below {
            Ok(below) => {
                listed.insert(below.path, (below.node, below.metadata));
            }
            Err(e) => lost.push(e.to_string()),
        }
        ControlFlow::Continue(())
    });
    found.remarks.extend(lost);
    listed
}

/// Whether contents may be others although nothing of the file's own blocks differs: they lie
/// elsewhere, as where two files change names, or in the file's record.
fn moved(a: (&Tree, proxy::Node, &Metadata), b: (&Tree, proxy::Node, &Metadata)) -> bool {
    if a.2.kind != NodeKind::File {
        return a.2.kind == NodeKind::Symlink;
    }
    let extents = |tree: &Tree, node| match tree.guest(node) {
        Ok(Some((fs, id))) => fs.extents(id, None).ok(),
        _ => None,
    };
    let (at_a, at_b) = (extents(a.0, a.1), extents(b.0, b.1));
    let in_place = |all: &Option<Vec<Extent>>| {
        let mut all = all.iter().flatten();
        all.any(|e| e.place.is_some())
    };
    at_a != at_b || b.2.size > 0 && b.2.size <= RESIDENT && !in_place(&at_b)
}

fn same_metadata(a: &Metadata, b: &Metadata) -> bool {
    let facts = |m: &Metadata| {
        (
            m.kind,
            // Sizes of directories are how much they have grown.
            if m.kind == NodeKind::File { m.size } else { 0 },
            m.modified,
            m.attributes,
            m.mode,
            m.owner,
            m.reparse_tag,
        )
    };
    facts(a) == facts(b)
}

fn same_contents(a: (&Tree, proxy::Node), b: (&Tree, proxy::Node), len: u64) -> Result<bool> {
    let (a, b) = (a.0.open(a.1, None)?, b.0.open(b.1, None)?);
    let mut bufs = [vec![0; CHUNK as usize], vec![0; CHUNK as usize]];
    let mut at = 0;
    while at < len {
        let n = usize::try_from(CHUNK.min(len - at)).unwrap_or(0);
        let [left, right] = &mut bufs;
        let (left, right) = (&mut left[..n], &mut right[..n]);
        a.read_exact_at(left, at)?;
        b.read_exact_at(right, at)?;
        if left != right {
            return Ok(false);
        }
        at += n as u64;
    }
    Ok(true)
}

/// Why two disks are not the same, if they are not: their lengths, or the first place where
/// they differ.
pub fn problem(a: &Source, b: &Source, found: &Blocks) -> Option<DiskError> {
    let fail = || DiskError::corrupt("comparing two disks").file(a.path().display());
    if let Some((a, b)) = found.lengths {
        return Some(
            fail()
                .expected(format!("{b} bytes"))
                .found(format!("{a} bytes")),
        );
    }
    let first = found.ranges.first()?;
    let other = match found.ranges.len() {
        1 => "other bytes".to_owned(),
        n => format!("other bytes, there and in {} more places", n - 1),
    };
    Some(
        fail()
            .offset(first.start)
            .expected(format!("what {} has", b.path().display()))
            .found(other),
    )
}
