//! Which devices belong together (fact sheet, VMFS 1.5 and 1.6).

use super::{
    device::{Device, VolumeEntry},
    volume::LogicalVolume,
};
use crate::Uuid;
use disk_io::{DiskError, Result};

/// The devices of one volume, as far as they were given.
#[derive(Debug)]
pub struct VolumeSet {
    /// Identifies the volume.
    pub uuid: Uuid,
    /// Snapshot number; with the identifier it is the volume's identity.
    pub snapshot: u32,
    /// The devices with their entries of this volume, in the order of the volume.
    pub members: Vec<(Device, VolumeEntry)>,
}

/// Sorts devices, given in any order, into volumes.
pub fn group(devices: Vec<Device>) -> Vec<VolumeSet> {
    let mut sets: Vec<VolumeSet> = Vec::new();
    for device in devices {
        for entry in &device.volumes {
            let member = (device.clone(), entry.clone());
            let same = |s: &&mut VolumeSet| s.uuid == entry.uuid && s.snapshot == entry.snapshot;
            match sets.iter_mut().find(same) {
                Some(set) => set.members.push(member),
                None => sets.push(VolumeSet {
                    uuid: entry.uuid,
                    snapshot: entry.snapshot,
                    members: vec![member],
                }),
            }
        }
    }
    for set in &mut sets {
        set.members.sort_by_key(|(_, entry)| entry.first);
    }
    sets
}

impl VolumeSet {
    /// How many devices are not there; clones counted as the one they are.
    pub fn missing(&self) -> u32 {
        let wanted = self.members.iter().map(|(_, e)| e.devices).max();
        let mut uuids: Vec<Uuid> = self.members.iter().map(|(d, _)| d.header.uuid).collect();
        uuids.sort_unstable();
        uuids.dedup();
        wanted.unwrap_or(0).saturating_sub(uuids.len() as u32)
    }

    /// Puts the volume together. A device that is not there is an error unless
    /// `allow_missing`; then reads of what it holds fail. Two copies of one device are
    /// refused: their contents may differ.
    pub fn assemble(&self, allow_missing: bool) -> Result<LogicalVolume> {
        let doing = format!("putting the volume {} together", self.uuid);
        for (i, (device, _)) in self.members.iter().enumerate() {
            let mut later = self.members.iter().skip(i.saturating_add(1));
            if let Some((twin, _)) =
                later.find(|(other, _)| other.header.uuid == device.header.uuid)
            {
                return Err(DiskError::refused(doing)
                    .expected("each device once")
                    .found(format!(
                        "device {} twice (disks {} and {}): one is a clone or snapshot of the other",
                        device.header.uuid,
                        device.number.saturating_add(1),
                        twin.number.saturating_add(1),
                    ))
                    .hint("give only the disks of one copy"));
            }
        }
        let sizes: Vec<u64> = self.members.iter().map(|(_, e)| e.size).collect();
        let Some(size) = sizes.iter().max().copied() else {
            return Err(DiskError::corrupt(doing).found("no device"));
        };
        if sizes.iter().any(|s| *s != size) {
            return Err(DiskError::corrupt(doing)
                .expected("devices that agree on the size of the volume")
                .found(format!("{sizes:?}"))
                .hint("the disks were saved at different times: one is from before a growth"));
        }
        let missing = self.missing();
        if missing > 0 && !allow_missing {
            let have: Vec<String> = self
                .members
                .iter()
                .map(|(d, e)| format!("{} (units {} to {})", d.header.uuid, e.first, e.last))
                .collect();
            let wanted = self.members.iter().map(|(_, e)| e.devices).max();
            return Err(DiskError::not_found(doing)
                .expected(format!("{} devices", wanted.unwrap_or(0)))
                .found(have.join(", "))
                .hint("give the other disks too, or allow missing devices"));
        }
        let mut warnings = Vec::new();
        if missing > 0 {
            warnings.push(format!(
                "{missing} of the devices are missing: reads of what they hold fail"
            ));
        }
        for (device, entry) in &self.members {
            match entry.state {
                1 => {}
                2 => warnings.push(format!(
                    "device {}: a resignature of the volume is pending",
                    device.header.uuid
                )),
                3 => warnings.push(format!(
                    "device {}: the volume was resignatured",
                    device.header.uuid
                )),
                n => warnings.push(format!("device {}: volume state {n}", device.header.uuid)),
            }
            if !device.header.lock_host.is_nil() {
                warnings.push(format!(
                    "device {}: host {} was changing the LVM metadata",
                    device.header.uuid, device.header.lock_host
                ));
            }
            if device.disk.len() < device.header.size {
                warnings.push(format!(
                    "device {}: {} bytes long, {} expected: the image is cut off",
                    device.header.uuid,
                    device.disk.len(),
                    device.header.size
                ));
            }
        }
        if self.snapshot != 1 {
            warnings.push(format!(
                "the volume is snapshot {} of its original",
                self.snapshot
            ));
        }
        LogicalVolume::new(self, size, warnings)
    }
}
