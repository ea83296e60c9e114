//! VMFS and its LVM.

use crate::{bases, oracle, patch::apply};
use std::{
    collections::{HashSet, VecDeque},
    ops::ControlFlow,
};
use vmfs_reader::{FdAddress, FileKind, OpenOptions, Volume, lvm as groups};

const NODES: usize = 200;

/// LVM: what it puts together is a disk.
pub fn lvm(input: &[u8]) {
    let disk = apply(bases::vmfs(), input);
    let Ok(Some(device)) = groups::Device::open(disk, 0) else {
        return;
    };
    let _ = device.names();
    for set in groups::group(vec![device]) {
        if let Ok(volume) = set.assemble(true) {
            oracle::disk(&volume);
        }
    }
}

/// A datastore, and everything in it.
pub fn vmfs(input: &[u8]) {
    let disk = apply(bases::vmfs(), input);
    let Ok(volume) = Volume::open(&[disk], &OpenOptions::default()) else {
        return;
    };
    let _ = volume.heartbeats();
    let mut seen: HashSet<FdAddress> = HashSet::new();
    let mut todo = VecDeque::from([volume.root()]);
    while let Some(address) = todo.pop_front() {
        if !seen.insert(address) || seen.len() > NODES {
            continue;
        }
        let Ok(stat) = volume.stat(address) else {
            continue;
        };
        let _ = volume.lock_state(address);
        match stat.kind {
            FileKind::Directory => {
                let mut n = 0;
                let _ = volume.read_dir(address, &mut |entry| {
                    if let Ok(entry) = entry {
                        todo.push_back(entry.address);
                    }
                    n += 1;
                    match n < NODES {
                        true => ControlFlow::Continue(()),
                        false => ControlFlow::Break(()),
                    }
                });
            }
            FileKind::Symlink => {
                let _ = volume.read_link(address);
            }
            _ => {
                let _ = volume.rdm_target(address);
                if let Ok(file) = volume.open_file(address) {
                    oracle::disk(&file);
                }
            }
        }
    }
    let _ = volume.check(&mut |_| {});
}
