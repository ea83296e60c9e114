//! Windows dynamic disks (LDM): simple, spanned, striped and mirrored volumes.
//!
//! | module | holds |
//! |---|---|
//! | [`header`] | a disk's private header: which disk of which group it is |
//! | [`database`] | the group's database, of which every disk has a copy |
//! | [`group`] | its volumes, put together from the disks that are there |

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

pub mod database;
pub mod group;
pub mod header;

pub use group::{Group, Volume};

use disk_io::{Disk, Result};
use header::Header;
use std::sync::Arc;

/// The sectors of the database are of 512 bytes, whatever the disk's are.
pub(crate) const SECTOR: u64 = 512;

/// Puts together every disk group of which `disks` (whole disks) have a part. Other disks
/// are left aside.
pub fn scan(disks: &[Arc<dyn Disk>]) -> Result<Vec<Group>> {
    let mut members: Vec<(Header, Arc<dyn Disk>)> = Vec::new();
    for disk in disks {
        if let Some(header) = header::find(disk)? {
            members.push((header, disk.clone()));
        }
    }
    let mut groups: Vec<String> = Vec::new();
    for (header, _) in &members {
        if !groups.contains(&header.group_id) {
            groups.push(header.group_id.clone());
        }
    }
    groups
        .iter()
        .map(|id| {
            let of: Vec<_> = members.iter().filter(|(h, _)| h.group_id == *id).collect();
            Group::build(&of)
        })
        .collect()
}

/// Whether a whole disk is a member of a group: its partitions are then parts of volumes,
/// and one that looks like a file system may be a stripe of one.
pub fn is_member(disk: &Arc<dyn Disk>) -> bool {
    group_of(disk).is_some()
}

/// The identity of the group that a whole disk is a member of ([`Group::uuid`]).
pub fn group_of(disk: &Arc<dyn Disk>) -> Option<String> {
    header::find(disk).ok()?.map(|header| header.group_id)
}
