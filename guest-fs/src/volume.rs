//! Which file system, or other thing, a volume holds: by its contents, never by a type byte.
//!
//! | module | holds |
//! |---|---|
//! | [`mapped`] | logical volumes: ranges of disks put together |
//! | [`probe`] | a look at a few places of a volume |
//! | [`windows`] | NTFS, FAT, exFAT, ReFS, BitLocker, LDM, Storage Spaces |
//! | [`linux`] | ext, XFS, Btrfs, F2FS, SquashFS, swap, LUKS, LVM2, RAID |
//! | [`others`] | VMFS, HFS+, APFS, ISO 9660, ZFS, UFS |

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

pub mod backward;
mod linux;
pub mod mapped;
mod others;
pub mod probe;
mod windows;

use crate::{
    FileSystem, FsKind, Name, OpenOptions, deleted::WithDeleted, exfat::ExFat, ext::Ext, fat::Fat,
    ntfs::Ntfs, vmfs::Vmfs,
};
use disk_io::{Disk, DiskError, Result};
use probe::Probe;
use std::sync::Arc;

/// What a volume holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// Which kind.
    pub kind: FsKind,
    /// Label, where the kind has one and it is cheap to find.
    pub label: Option<Name>,
    /// UUID or serial number as `blkid` prints it.
    pub uuid: Option<String>,
    /// Size in bytes that it says it has.
    pub size: Option<u64>,
    /// Whether [`open`] reads it.
    pub readable: bool,
}

impl Recognised {
    fn new(kind: FsKind) -> Self {
        Self {
            kind,
            label: None,
            uuid: None,
            size: None,
            readable: matches!(
                kind,
                FsKind::Ntfs
                    | FsKind::Fat12
                    | FsKind::Fat16
                    | FsKind::Fat32
                    | FsKind::ExFat
                    | FsKind::Ext2
                    | FsKind::Ext3
                    | FsKind::Ext4
                    | FsKind::Vmfs
            ),
        }
    }

    fn label(mut self, label: Option<Name>) -> Self {
        self.label = label.filter(|l| !l.as_bytes().is_empty());
        self
    }

    fn uuid(mut self, uuid: Option<String>) -> Self {
        self.uuid = uuid;
        self
    }

    fn size(mut self, size: Option<u64>) -> Self {
        self.size = size;
        self
    }
}

/// Recognises what `disk` holds, from a few reads. `None`: nothing known. An error: the
/// places that would tell cannot be read.
pub fn recognise(disk: &Arc<dyn Disk>) -> Result<Option<Recognised>> {
    let probe = Probe::new(disk.clone());
    // Containers first: what they contain may begin at their own first byte. Then boot
    // sectors, which are checked field by field; then signatures far into the volume, which
    // may be left over from an earlier life.
    let found = windows::bitlocker(&probe)
        .or_else(|| linux::luks(&probe))
        .or_else(|| linux::lvm2(&probe))
        .or_else(|| windows::storage_spaces(&probe))
        .or_else(|| others::vmfs(&probe))
        .or_else(|| linux::raid_in_front(&probe))
        .or_else(|| windows::boot_sector(&probe))
        .or_else(|| linux::file_system(&probe))
        .or_else(|| others::file_system(&probe))
        .or_else(|| linux::raid(&probe))
        .or_else(|| windows::ldm(&probe))
        .or_else(|| windows::backup_boot_sector(&probe));
    let found = found.map(|found| linux::part_of_raid(&probe, &found).unwrap_or(found));
    match (found, probe.failure()) {
        (Some(found), _) => Ok(Some(found)),
        (None, Some(e)) => Err(e.context("recognising a volume")),
        (None, None) => Ok(None),
    }
}

/// Why what a volume was recognised as may be left over from an earlier life, one sentence each:
/// what else is on it.
pub fn doubts(disk: &Arc<dyn Disk>, found: &Recognised) -> Vec<String> {
    let probe = Probe::new(disk.clone());
    let mut doubts: Vec<String> = linux::doubt_of_raid(&probe).into_iter().collect();
    let left_over = |kind: FsKind| {
        format!(
            "it is {}, and begins like {kind}: one of them is left over from before",
            found.kind
        )
    };
    if found.kind == FsKind::Ntfs && !probe.is(3, b"NTFS    ") {
        doubts.push(
            "its first sector is not NTFS's, and the backup in its last one is used: it may hold \
             something else now"
                .into(),
        );
    }
    match found.kind {
        // Each leaves the other's place alone.
        FsKind::Vmfs => doubts.extend(windows::boot_sector(&probe).map(|k| left_over(k.kind))),
        FsKind::Ntfs | FsKind::ExFat | FsKind::Fat32 | FsKind::Fat16 | FsKind::Fat12 => {
            let other = others::file_system(&probe).filter(|o| o.kind == FsKind::Zfs);
            doubts.extend(other.map(|o| {
                format!(
                    "it begins like {}, and has labels of {}: one of them is left over from before",
                    found.kind, o.kind
                )
            }));
        }
        _ => {}
    }
    doubts
}

/// Whether a disk has a superblock of a Linux software RAID in front: no partition table, and no
/// file system, is made around it.
pub fn begins_as_array(disk: &Arc<dyn Disk>) -> bool {
    linux::raid_in_front(&Probe::new(disk.clone())).is_some()
}

/// Why a disk may be part of an array, or older than the rest of one ([`doubts`]).
pub fn doubt_of_array(disk: &Arc<dyn Disk>) -> Option<String> {
    linux::doubt_of_raid(&Probe::new(disk.clone()))
}

/// Whether a volume has, or may have, a superblock of a Linux software RAID: what its file system
/// calls free need not be.
pub fn is_in_array(disk: &Arc<dyn Disk>) -> bool {
    linux::raid(&Probe::new(disk.clone())).is_some()
}

/// The kind of file system whose boot sector is sector 0, in the place of a partition table.
pub fn boot_sector(disk: &Arc<dyn Disk>) -> Result<Option<FsKind>> {
    let probe = Probe::new(disk.clone());
    let found = windows::bitlocker(&probe).or_else(|| windows::boot_sector(&probe));
    match (found, probe.failure()) {
        (Some(found), _) => Ok(Some(found.kind)),
        (None, Some(e)) => Err(e),
        (None, None) => Ok(None),
    }
}

/// Opens the file system of a volume. What is recognised and not read here is
/// [`disk_io::ErrorKind::Unsupported`], and the error names it.
pub fn open(disk: &Arc<dyn Disk>, options: &OpenOptions) -> Result<Arc<dyn FileSystem>> {
    let Some(found) = recognise(disk)? else {
        return Err(DiskError::unsupported("opening the volume").found("no file system recognised"));
    };
    match found.kind {
        FsKind::Fat12 | FsKind::Fat16 | FsKind::Fat32 => {
            with_deleted(Arc::new(Fat::open(disk.clone(), options)?), options)
        }
        FsKind::ExFat => Ok(Arc::new(ExFat::open(disk.clone(), options)?)),
        FsKind::Ntfs => with_deleted(Arc::new(Ntfs::open(disk.clone(), options)?), options),
        FsKind::Ext2 | FsKind::Ext3 | FsKind::Ext4 => {
            Ok(Arc::new(Ext::open(disk.clone(), options)?))
        }
        FsKind::Vmfs => Ok(Arc::new(Vmfs::open(disk.clone(), options)?)),
        kind => {
            let (what, hint) = unreadable(kind);
            let e = DiskError::unsupported("opening the volume").found(what);
            Err(match hint {
                Some(hint) => e.hint(hint),
                None => e,
            })
        }
    }
}

/// Deleted files beside the others, where they are asked for.
fn with_deleted(fs: Arc<dyn FileSystem>, options: &OpenOptions) -> Result<Arc<dyn FileSystem>> {
    Ok(match options.deleted {
        true => Arc::new(WithDeleted::new(fs)),
        false => fs,
    })
}

/// How a kind that is not read is named, and what helps.
fn unreadable(kind: FsKind) -> (String, Option<&'static str>) {
    match kind {
        FsKind::BitLocker => (
            "a BitLocker volume: its contents are encrypted".into(),
            Some("unlock it elsewhere, for example with dislocker, over --layout raw"),
        ),
        FsKind::Luks => (
            "a LUKS volume: its contents are encrypted".into(),
            Some("unlock it with cryptsetup over --layout raw"),
        ),
        FsKind::Lvm2 => ("a physical volume of LVM2, not a file system".into(), None),
        FsKind::Ldm => (
            "a member of a Windows dynamic disk group, not a file system".into(),
            None,
        ),
        FsKind::StorageSpaces => ("a member of a Windows Storage Spaces pool".into(), None),
        FsKind::LinuxRaid => (
            "a member of a Linux software RAID".into(),
            Some(
                "if its superblock is left over from before, remove it in a copy \
                 (mdadm --zero-superblock)",
            ),
        ),
        FsKind::Swap => ("swap space, not a file system".into(), None),
        kind => (format!("{kind}, which is not read here"), None),
    }
}
