//! Every name and what it leads to.

use super::{Check, Which};
use crate::{
    address::FdAddress,
    descriptor::{Descriptor, FileKind, Stat},
    dir::{self, Entry},
    superblock::Layout,
    volume::Volume,
};
use disk_io::{DiskError, ErrorKind, Finding, Result};
use std::ops::ControlFlow;

/// Directories within each other at most; deeper ones are damage.
const MAX_LEVELS: usize = 256;
/// Descriptors that are kept for names that do not fit them.
const MAX_DOUBTFUL: usize = 1 << 16;

fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    match path {
        b"" => name.to_vec(),
        path => [path, b"/", name].concat(),
    }
}

impl Check<'_> {
    /// Every file that a name leads to, its own addresses followed.
    pub(super) fn names(&mut self, volume: &Volume) {
        let root = volume.root();
        let top = Which {
            address: root,
            path: b"",
        };
        match self.core.descriptor(root) {
            Ok(descriptor) => {
                self.reach(root);
                self.file(top, &descriptor);
            }
            Err(e) => self.found(Finding::damage("vmfs-descriptor-damaged", e), &[top]),
        }
        // Descriptors that are not what a name says: if no other name leads there, what they
        // use is theirs all the same.
        let mut doubtful: Vec<(FdAddress, Vec<u8>)> = Vec::new();
        let mut dirs = vec![(root, root, Vec::new())];
        while let Some((dir, parent, path)) = dirs.pop() {
            for entry in self.directory(volume, dir, parent, &path) {
                if self.failed.is_some() {
                    return;
                }
                let name = joined(&path, &entry.name);
                let file = Which {
                    address: entry.address,
                    path: &name,
                };
                let Some(descriptor) = self.entry(&entry, file) else {
                    if doubtful.len() < MAX_DOUBTFUL {
                        doubtful.push((entry.address, name));
                    }
                    continue;
                };
                if !self.reach(entry.address) {
                    self.second_name(&descriptor.stat, file);
                    continue;
                }
                self.file(file, &descriptor);
                if descriptor.stat.kind == FileKind::Directory {
                    if name.iter().filter(|b| **b == b'/').count() > MAX_LEVELS {
                        let e = DiskError::corrupt("listing a directory").found("too many levels");
                        self.found(Finding::damage("vmfs-directory-damaged", e), &[file]);
                        continue;
                    }
                    dirs.push((entry.address, dir, name));
                }
            }
        }
        for (address, path) in doubtful {
            if let Ok(descriptor) = self.core.descriptor(address)
                && self.is_free(address) != Some(true)
                && self.reach(address)
            {
                let path = &path;
                self.file(Which { address, path }, &descriptor);
            }
        }
    }

    /// The entries of a directory.
    fn directory(
        &mut self,
        volume: &Volume,
        dir: FdAddress,
        parent: FdAddress,
        path: &[u8],
    ) -> Vec<Entry> {
        self.checked.directories = self.checked.directories.saturating_add(1);
        let this = Which { address: dir, path };
        let damaged = |e| Finding::damage("vmfs-directory-damaged", e);
        match volume.parent(dir) {
            Ok(up) if up == parent => {}
            Ok(up) => {
                let e = DiskError::corrupt("reading the entry `..`")
                    .expected(parent.to_string())
                    .found(up.to_string());
                self.found(Finding::warning("vmfs-directory-damaged", e), &[this]);
            }
            // What stands in the way of all entries is told once.
            Err(e) if e.kind() != ErrorKind::Corrupt => {}
            Err(e) => self.found(Finding::warning("vmfs-directory-damaged", e), &[this]),
        }
        let mut entries = Vec::new();
        let mut errors = Vec::new();
        let listed = volume.read_dir(dir, &mut |entry| {
            match entry {
                Ok(entry) => entries.push(entry),
                Err(e) => errors.push(e),
            }
            ControlFlow::Continue(())
        });
        errors.extend(listed.err());
        self.partly |= !errors.is_empty();
        for e in errors {
            self.found(damaged(e), &[this]);
        }
        for entry in &entries {
            let Err(e) = self.again(dir, entry, dir == volume.root()) else {
                continue;
            };
            let path = &joined(path, &entry.name);
            let address = entry.address;
            let finding = Finding::warning("vmfs-name-misplaced", e);
            self.found(finding, &[Which { address, path }]);
        }
        entries
    }

    /// VMFS-6: whether the directory's table of hashes leads to an entry. Those of the system
    /// have places of their own in the root's table.
    fn again(&self, dir: FdAddress, entry: &Entry, root: bool) -> Result<()> {
        if self.core.geometry.layout != Layout::Six || (root && entry.kind == FileKind::System) {
            return Ok(());
        }
        let list = self.core.descriptor(dir)?.blocks;
        let found = dir::quickly(self.core, &list, &entry.name, root);
        let e = DiskError::corrupt("finding a name again");
        match found {
            Some(same) if same.address == entry.address => Ok(()),
            Some(other) => Err(e
                .expected("one file of the name")
                .found(format!("{} too", other.address))),
            None => Err(e
                .expected("the directory's table to lead to it")
                .found("no way to it")),
        }
    }

    /// The descriptor that an entry leads to, if it is the one that is meant.
    fn entry(&mut self, entry: &Entry, file: Which<'_>) -> Option<Descriptor> {
        let stray = |e| Finding::damage("vmfs-entry-stray", e);
        let descriptor = match self.core.descriptor(entry.address) {
            Ok(descriptor) => descriptor,
            Err(e) if matches!(e.kind(), ErrorKind::Io | ErrorKind::Unsupported) => {
                self.reach(entry.address);
                self.found(stray(e), &[file]);
                return None;
            }
            Err(e) => {
                let nobody = self.number_of(entry.address).is_none()
                    || self.is_free(entry.address) == Some(true);
                if !nobody {
                    // It is in use, by a file of this name.
                    self.reach(entry.address);
                    self.found(Finding::damage("vmfs-descriptor-damaged", e), &[file]);
                } else {
                    self.found(stray(e), &[file]);
                }
                return None;
            }
        };
        let stat = &descriptor.stat;
        let wrong = if stat.generation != entry.generation {
            Some((
                format!("generation {}", entry.generation),
                format!("{} in descriptor {}", stat.generation, entry.address),
            ))
        } else if stat.kind != entry.kind
            && (entry.kind, stat.kind) != (FileKind::System, FileKind::Directory)
        {
            Some((format!("{:?}", entry.kind), format!("{:?}", stat.kind)))
        } else {
            None
        };
        if let Some((expected, found)) = wrong {
            let e = DiskError::corrupt("opening a file by its directory entry")
                .offset(stat.place)
                .expected(expected)
                .found(found);
            self.found(stray(e), &[file]);
            return None;
        }
        Some(descriptor)
    }

    /// A file that was reached by another name. Hosts make no such names, but the format
    /// counts them.
    fn second_name(&mut self, stat: &Stat, file: Which<'_>) {
        if stat.kind != FileKind::Directory && stat.links > 1 {
            return;
        }
        let e = DiskError::corrupt("opening a file by its directory entry")
            .offset(stat.place)
            .expected("one name for each descriptor")
            .found(format!("another name for {}", stat.address));
        self.found(Finding::damage("vmfs-entry-stray", e), &[file]);
    }

    /// Whether the bitmap of descriptors calls one free.
    fn is_free(&self, address: FdAddress) -> Option<bool> {
        let item = address.item();
        let free = self.core.free_descriptors(item.cluster).ok()??;
        Some(free.iter().any(|n| u64::from(*n) == item.item))
    }
}

/// Visits every name that can be reached, each descriptor once.
pub(super) fn walk(volume: &Volume, visit: &mut dyn FnMut(Which<'_>)) {
    let root = volume.root();
    visit(Which {
        address: root,
        path: b"",
    });
    let mut seen = std::collections::HashSet::from([root]);
    let mut dirs = vec![(root, Vec::new())];
    while let Some((dir, path)) = dirs.pop() {
        let mut entries = Vec::new();
        let _ = volume.read_dir(dir, &mut |entry| {
            entries.extend(entry);
            ControlFlow::Continue(())
        });
        for entry in entries {
            if !seen.insert(entry.address) {
                continue;
            }
            let path = joined(&path, &entry.name);
            visit(Which {
                address: entry.address,
                path: &path,
            });
            if entry.kind != FileKind::File
                && path.iter().filter(|b| **b == b'/').count() < MAX_LEVELS
            {
                dirs.push((entry.address, path));
            }
        }
    }
}
