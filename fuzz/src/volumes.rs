//! Partition tables, volume groups, file systems.

use crate::{bases, oracle, patch::apply};
use disk_io::Disk;
use guest_fs::{
    FileSystem, NodeId, NodeKind, OpenOptions, ldm as ldm_groups, lvm2 as lvm2_groups, partition,
    volume,
};
use std::{
    collections::{HashSet, VecDeque},
    ops::ControlFlow,
    sync::Arc,
};

/// Objects of a volume that are looked at.
const NODES: usize = 300;
/// Volumes up to so many bytes are checked each time.
const SMALL: u64 = 16 << 20;
/// Names of a directory that are.
const NAMES: usize = 300;
/// Findings and ranges that are asked for.
const RANGES: usize = 10_000;

/// MBR and GPT: partitions open inside the disk.
pub fn partitions(input: &[u8]) {
    let disk = apply(bases::partitions(), input);
    if let Ok(table) = partition::read(&disk) {
        for p in &table.partitions {
            assert!(p.available <= p.len);
            if let Ok(part) = p.open(&disk) {
                assert!(part.len() <= disk.len());
            }
        }
    }
}

/// LVM2: volumes read, or fail.
pub fn lvm2(input: &[u8]) {
    let disk = apply(bases::lvm2(), input);
    if let Ok(found) = lvm2_groups::scan(&[disk]) {
        for volume in found.groups.iter().flat_map(|g| &g.volumes) {
            if let Ok(open) = volume.open() {
                oracle::disk(&*open);
            }
        }
    }
}

/// LDM: volumes read, or fail.
pub fn ldm(input: &[u8]) {
    let disk = apply(bases::ldm(), input);
    let groups = ldm_groups::scan(&[disk]).groups;
    for volume in groups.iter().flat_map(|g| &g.volumes) {
        if let Ok(open) = volume.open() {
            oracle::disk(&*open);
        }
    }
}

/// NTFS.
pub fn ntfs(input: &[u8]) {
    look(apply(bases::ntfs(), input), input);
}

/// FAT.
pub fn fat(input: &[u8]) {
    look(apply(bases::fat(), input), input);
}

/// exFAT.
pub fn exfat(input: &[u8]) {
    look(apply(bases::exfat(), input), input);
}

/// ext.
pub fn ext(input: &[u8]) {
    look(apply(bases::ext(), input), input);
}

/// Opens a volume and looks at everything in it.
fn look(disk: Arc<dyn Disk>, input: &[u8]) {
    let options = OpenOptions::default();
    let Ok(fs) = volume::open(&disk, &options) else {
        return;
    };
    let _ = fs.info();
    walk(&*fs);
    let mut n = 0;
    let mut enough = |more: bool| {
        n += 1;
        match more && n < RANGES {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    };
    let _ = fs.scan(&mut |found| enough(found.is_ok()));
    let _ = fs.deleted(&mut |_| ControlFlow::Break(()));
    let mut end = 0;
    let _ = fs.free(&mut |range| {
        assert!(range.start >= end && range.start <= range.end, "{range:?}");
        end = range.end;
    });
    assert!(
        end <= disk.len().max(fs.info().size),
        "free space behind the end"
    );
    // Where every cluster of many is asked about, once in a while is enough.
    if disk.len() > SMALL && input.last().is_some_and(|b| b % 16 != 0) {
        return;
    }
    let _ = fs.check(&mut |finding| {
        assert!(
            finding.ranges.iter().all(|r| r.start <= r.end),
            "{finding:?}"
        );
    });
}

fn walk(fs: &dyn FileSystem) {
    let mut seen: HashSet<NodeId> = HashSet::new();
    let mut todo = VecDeque::from([fs.root()]);
    let mut looked = 0;
    while let Some(node) = todo.pop_front() {
        if !seen.insert(node) {
            continue;
        }
        looked += 1;
        if looked > NODES {
            return;
        }
        let Ok(metadata) = fs.metadata(node) else {
            continue;
        };
        let _ = (
            fs.security(node),
            fs.xattrs(node),
            fs.names(node),
            fs.reparse(node),
        );
        match metadata.kind {
            NodeKind::Directory => {
                let mut names = 0;
                let mut some = Vec::new();
                let _ = fs.read_dir(node, &mut |entry| {
                    if let Ok(entry) = entry {
                        todo.push_back(entry.node);
                        if some.len() < 3 {
                            some.push(entry.name);
                        }
                    }
                    names += 1;
                    match names < NAMES {
                        true => ControlFlow::Continue(()),
                        false => ControlFlow::Break(()),
                    }
                });
                for name in some {
                    let _ = fs.lookup(node, &name);
                }
            }
            NodeKind::Symlink => {
                let _ = fs.read_link(node);
            }
            NodeKind::File => {
                let _ = fs.extents(node, None);
                if let Ok(file) = fs.open(node, None) {
                    oracle::disk(&*file);
                }
                for stream in fs.streams(node).unwrap_or_default().iter().take(4) {
                    if let Ok(file) = fs.open(node, Some(&stream.name)) {
                        oracle::disk(&*file);
                    }
                }
            }
            NodeKind::Special => {}
        }
    }
}
