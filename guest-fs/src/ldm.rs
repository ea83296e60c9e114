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

use disk_io::{Disk, DiskError};
use header::Header;
use std::sync::Arc;

/// The sectors of the database are of 512 bytes, whatever the disk's are.
pub(crate) const SECTOR: u64 = 512;

/// Disk groups, and what could not be put together.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The groups, in the order in which they were met.
    pub groups: Vec<Group>,
    /// Disks and groups that are damaged: why.
    pub failed: Vec<DiskError>,
}

/// Puts together every disk group of which `disks` (whole disks) have a part. Other disks
/// are left aside, and what is damaged costs itself only.
pub fn scan(disks: &[Arc<dyn Disk>]) -> Found {
    let mut found = Found::default();
    let mut members: Vec<(Header, Arc<dyn Disk>)> = Vec::new();
    for disk in disks {
        match header::find(disk) {
            Ok(Some(header)) => members.push((header, disk.clone())),
            Ok(None) => {}
            Err(e) => found.failed.push(e),
        }
    }
    let mut groups: Vec<String> = Vec::new();
    for (header, _) in &members {
        if !groups.contains(&header.group_id) {
            groups.push(header.group_id.clone());
        }
    }
    for id in &groups {
        let of: Vec<_> = members.iter().filter(|(h, _)| h.group_id == *id).collect();
        match Group::build(&of) {
            Ok(group) => found.groups.push(group),
            Err(e) => found.failed.push(e),
        }
    }
    found
}

/// Whether a whole disk is a member of a group: its partitions are then parts of volumes,
/// and one that looks like a file system may be a stripe of one.
pub fn is_member(disk: &Arc<dyn Disk>) -> bool {
    identity_of(disk).is_some()
}

/// The identities of the group that a whole disk is a member of ([`Group::uuid`]), and of the disk.
pub fn identity_of(disk: &Arc<dyn Disk>) -> Option<(String, String)> {
    let header = header::find(disk).ok()??;
    Some((header.group_id, header.disk_id))
}
