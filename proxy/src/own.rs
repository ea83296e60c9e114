//! The tree's own directories: everything above the guests' volumes.
//!
//! A disk needs one level (`/p1`), logical volumes three (`/lvm/VG/LV`), a virtual machine
//! with snapshots more. All of them are built from the same four calls.

use crate::{names, source::Source};
use disk_io::{Disk, Result};
use guest_fs::Name;
use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

/// Number of an own entry; the root is 0.
pub type OwnId = u32;

/// What an own entry is.
#[derive(Clone, Debug)]
pub enum Own {
    /// A directory of the tree itself.
    Directory,
    /// The root directory of a volume, by volume number.
    Volume(u16),
    /// A file that is a whole disk or part of one.
    File(OwnFile),
    /// A directory with the volumes of a disk, which is opened when it is first entered.
    Disk(Arc<LazyDisk>),
}

/// A disk that is opened when it is needed.
pub struct LazyDisk {
    pub(crate) open: Box<dyn Fn() -> Result<Source> + Send + Sync>,
    pub(crate) opened: OnceLock<Result<()>>,
}

impl std::fmt::Debug for LazyDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let opened = self.opened.get();
        f.debug_struct("LazyDisk")
            .field("opened", &opened)
            .finish_non_exhaustive()
    }
}

/// A disk as a file.
#[derive(Clone, Debug)]
pub struct OwnFile {
    pub(crate) disk: Arc<dyn Disk>,
    allocated: OnceLock<u64>,
}

/// Runs that are looked at to tell how much of a disk is stored.
const RUNS: usize = 4096;
/// And the time for it: finding the runs of a long chain costs reads in every layer.
const TIME: Duration = Duration::from_millis(50);

impl OwnFile {
    /// Bytes that are stored, at most: `cp` looks for holes only where this is less than
    /// the length. Counted on first use, over a bounded number of runs and a bounded time.
    pub(crate) fn allocated(&self) -> u64 {
        *self.allocated.get_or_init(|| {
            let len = self.disk.len();
            let (mut at, mut holes) = (0u64, 0u64);
            let begin = Instant::now();
            for _ in 0..RUNS {
                if begin.elapsed() > TIME {
                    break;
                }
                match self.disk.run_at(at) {
                    Ok(run) if at < len => {
                        if run.kind.reads_as_zero() {
                            holes = holes.saturating_add(run.len);
                        }
                        at = at.saturating_add(run.len);
                    }
                    _ => break,
                }
            }
            len.saturating_sub(holes)
        })
    }
}

impl Own {
    /// A file that is `disk`.
    pub fn file(disk: Arc<dyn Disk>) -> Self {
        Self::File(OwnFile {
            disk,
            allocated: OnceLock::new(),
        })
    }
}

#[derive(Clone, Debug)]
struct Item {
    name: Name,
    parent: OwnId,
    own: Own,
    children: boxcar::Vec<OwnId>,
}

/// The own entries of one tree.
///
/// Entries are only ever added, also while others are read.
#[derive(Clone, Debug)]
pub struct OwnTree {
    items: boxcar::Vec<Item>,
}

impl Default for OwnTree {
    fn default() -> Self {
        let items = boxcar::Vec::new();
        items.push(Item {
            name: Name::default(),
            parent: 0,
            own: Own::Directory,
            children: boxcar::Vec::new(),
        });
        Self { items }
    }
}

impl OwnTree {
    /// The root directory.
    pub const ROOT: OwnId = 0;

    /// Adds an entry below `parent` and gives its number. A name that the directory has
    /// already gets ` (2)`, ` (3)` …; `/` and control characters are escaped as `%XX`.
    pub fn add(&self, parent: OwnId, name: &Name, own: Own) -> OwnId {
        let plain = names::own_name(name);
        let mut name = plain.clone();
        let mut copy = 2u32;
        while self.child(parent, &name).is_some() {
            let mut bytes = plain.as_bytes().to_vec();
            bytes.extend_from_slice(format!(" ({copy})").as_bytes());
            name = Name::from_bytes(bytes);
            copy += 1;
        }
        let index = self.items.push(Item {
            name,
            parent,
            own,
            children: boxcar::Vec::new(),
        });
        let id = OwnId::try_from(index).unwrap_or(OwnId::MAX);
        if let Some(parent) = self.items.get(parent as usize) {
            parent.children.push(id);
        }
        id
    }

    /// The directory `name` below `parent`, made if it is not there yet.
    pub fn directory(&self, parent: OwnId, name: &Name) -> OwnId {
        match self.child(parent, &names::own_name(name)) {
            Some(id) if matches!(self.get(id), Some(Own::Directory)) => id,
            _ => self.add(parent, name, Own::Directory),
        }
    }

    /// What entry `id` is.
    pub fn get(&self, id: OwnId) -> Option<&Own> {
        self.items.get(id as usize).map(|i| &i.own)
    }

    /// The entry `name` of directory `dir`. Own names are matched exactly.
    pub fn child(&self, dir: OwnId, name: &Name) -> Option<OwnId> {
        self.children(dir)
            .find(|(_, n)| *n == name)
            .map(|(id, _)| id)
    }

    /// Entries of directory `dir`, in the order in which they were added.
    pub fn children(&self, dir: OwnId) -> impl Iterator<Item = (OwnId, &Name)> {
        let item = self.items.get(dir as usize);
        let ids = item.into_iter().flat_map(|i| i.children.iter());
        ids.filter_map(|(_, id)| Some((*id, &self.items.get(*id as usize)?.name)))
    }

    /// The directory that holds `id`; the root holds itself.
    pub fn parent(&self, id: OwnId) -> OwnId {
        self.items.get(id as usize).map_or(Self::ROOT, |i| i.parent)
    }

    /// The path of `id`, beginning with `/`.
    pub fn path(&self, id: OwnId) -> Name {
        let mut parts = Vec::new();
        let mut at = id;
        while at != Self::ROOT
            && let Some(item) = self.items.get(at as usize)
        {
            parts.push(item.name.as_bytes());
            at = item.parent;
        }
        parts.push(b"");
        parts.reverse();
        match parts.len() {
            1 => Name::from("/"),
            _ => Name::from_bytes(parts.join(&b'/')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_is_not_asked_for_long() {
        let (disk, asked) = crate::mock::Shreds::disk(1 << 40, Duration::from_millis(10));
        let Own::File(file) = Own::file(disk) else {
            panic!("no file")
        };
        assert!(file.allocated() < 1 << 40);
        let asked = asked.load(std::sync::atomic::Ordering::Relaxed);
        assert!((1..10).contains(&asked), "{asked} runs");
    }

    #[test]
    fn levels_twins_and_escapes() {
        let own = OwnTree::default();
        let snapshots = own.directory(OwnTree::ROOT, &Name::from("snapshots"));
        assert_eq!(
            own.directory(OwnTree::ROOT, &Name::from("snapshots")),
            snapshots
        );
        let a = own.add(snapshots, &Name::from("before a/b"), Own::Directory);
        let b = own.add(snapshots, &Name::from("before a/b"), Own::Directory);
        let disk = own.add(b, &Name::from("scsi0-0"), Own::Directory);
        let p1 = own.add(disk, &Name::from("p1"), Own::Volume(1));
        assert_eq!(own.path(a).to_string(), "/snapshots/before a%2Fb");
        assert_eq!(
            own.path(p1).to_string(),
            "/snapshots/before a%2Fb (2)/scsi0-0/p1"
        );
        assert_eq!(own.path(OwnTree::ROOT).to_string(), "/");
        assert_eq!(own.parent(p1), disk);
        assert_eq!(own.child(disk, &Name::from("P1")), None);
        assert!(own.get(99).is_none());
        assert_eq!(own.children(99).count(), 0);
    }
}
