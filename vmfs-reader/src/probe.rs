//! What a disk is, from few small reads.

use crate::{Uuid, lvm, superblock::Superblock};
use disk_io::{Disk, Result, Slice};
use std::sync::Arc;

/// A disk or partition that is VMFS or a part of one.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The volume that the device belongs to: LVM UUID, first unit of 256 MiB on this device,
    /// number of devices. `None` if the file system lies on the disk without LVM.
    pub member: Option<Member>,
    /// The file system. `None` on devices that do not hold the begin of their volume, and on
    /// LVM volumes without a file system.
    pub superblock: Option<Superblock>,
    /// Size of the whole volume in bytes.
    pub size: u64,
}

/// A device's place in its volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// LVM version, 3 to 6.
    pub version: u32,
    /// The volume.
    pub volume: Uuid,
    /// Its snapshot number.
    pub snapshot: u32,
    /// The device.
    pub device: Uuid,
    /// First unit of 256 MiB of the volume on this device; 0 is the head.
    pub first: u64,
    /// Number of devices of the volume.
    pub devices: u32,
}

/// Recognises VMFS and LVM devices at their known offsets; `None` for anything else. A disk
/// with a partition table is the caller's to cut. VMFS-1 and 2 are refused by name.
pub fn probe(disk: &Arc<dyn Disk>) -> Result<Option<Probe>> {
    if let Some(device) = lvm::Device::open(disk.clone(), 0)?
        && let Some(entry) = device.volumes.first()
    {
        let header = &device.header;
        let superblock = if entry.first == 0 {
            let len = disk.len().saturating_sub(header.data_offset);
            match Slice::new(disk.clone(), header.data_offset, len) {
                Ok(volume) => Superblock::read(&volume)?,
                Err(_) => None,
            }
        } else {
            None
        };
        return Ok(Some(Probe {
            member: Some(Member {
                version: header.major,
                volume: entry.uuid,
                snapshot: entry.snapshot,
                device: header.uuid,
                first: entry.first,
                devices: entry.devices,
            }),
            superblock,
            size: entry.size,
        }));
    }
    Ok(Superblock::read(&**disk)?.map(|superblock| Probe {
        member: None,
        superblock: Some(superblock),
        size: disk.len(),
    }))
}

impl Probe {
    /// The label, where it is known.
    pub fn label(&self) -> Option<&str> {
        self.superblock.as_ref().map(|s| s.label.as_str())
    }
}
