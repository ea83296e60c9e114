//! A logical volume as one disk.

use super::{
    UNIT,
    device::{Device, VolumeEntry},
    set::VolumeSet,
    table::Tables,
};
use crate::Uuid;
use disk_io::{
    Disk, DiskError, Result, Run, RunKind,
    disk::{check_range, check_run_offset},
};

/// A device's part of the volume.
#[derive(Debug)]
struct Member {
    start: u64,
    end: u64,
    device: Device,
    tables: Tables,
}

/// The volume that VMFS lies on, over all its devices. Reads are split where devices and
/// physical extents end; what lies on a missing device is data whose read fails.
#[derive(Debug)]
pub struct LogicalVolume {
    uuid: Uuid,
    snapshot: u32,
    size: u64,
    members: Vec<Member>,
    entries: Vec<VolumeEntry>,
    warnings: Vec<String>,
}

impl LogicalVolume {
    pub(super) fn new(set: &VolumeSet, size: u64, mut warnings: Vec<String>) -> Result<Self> {
        let mut members: Vec<Member> = Vec::new();
        for (device, entry) in &set.members {
            let tables = Tables::new(device, entry.index, entry.first)?;
            let mut start = entry.first.saturating_mul(UNIT);
            let mut end = entry.last.saturating_add(1).saturating_mul(UNIT);
            if tables.is_small() {
                // Here the table tells what the device holds.
                let all = tables.all()?;
                let gap = |from: u64, to: u64| {
                    format!(
                        "device {}: nothing holds bytes {from} to {to} of the volume",
                        device.header.uuid
                    )
                };
                for pair in all.windows(2) {
                    if let [a, b] = pair
                        && a.logical.saturating_add(a.len) != b.logical
                    {
                        warnings.push(gap(a.logical.saturating_add(a.len), b.logical));
                    }
                }
                match (all.first(), all.last()) {
                    (Some(first), Some(last)) => {
                        start = first.logical;
                        end = last.logical.saturating_add(last.len);
                    }
                    _ => warnings.push(gap(start, end)),
                }
            }
            if members.last().is_some_and(|before| before.end > start) {
                return Err(DiskError::corrupt(format!(
                    "putting the volume {} together",
                    set.uuid
                ))
                .expected("devices that do not overlap")
                .found(format!("two that hold byte {start} of the volume")));
            }
            if set.missing() == 0 {
                let before = members.last().map_or(0, |before: &Member| before.end);
                if before != start {
                    warnings.push(format!(
                        "no device holds bytes {before} to {start} of the volume"
                    ));
                }
            }
            members.push(Member {
                start,
                end,
                device: device.clone(),
                tables,
            });
        }
        let end = members.last().map_or(0, |last| last.end);
        if set.missing() == 0 && end < size {
            warnings.push(format!(
                "no device holds bytes {end} to {size} of the volume"
            ));
        }
        Ok(Self {
            uuid: set.uuid,
            snapshot: set.snapshot,
            size,
            members,
            entries: set.members.iter().map(|(_, e)| e.clone()).collect(),
            warnings,
        })
    }

    /// Identifies the volume.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Snapshot number, 1 on originals.
    pub fn snapshot(&self) -> u32 {
        self.snapshot
    }

    /// The devices, in the order of the volume.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.members.iter().map(|m| &m.device)
    }

    /// What the devices say of the volume, in the same order.
    pub fn entries(&self) -> &[VolumeEntry] {
        &self.entries
    }

    /// What a user should know, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where the byte at `offset` lies: (index of the device, offset on it, how many bytes
    /// from there on belong together).
    pub fn place(&self, offset: u64) -> Result<(usize, u64, u64)> {
        check_run_offset(self.size, offset)?;
        let left = self.size.saturating_sub(offset);
        let after = self.members.partition_point(|m| m.start <= offset);
        let here = after
            .checked_sub(1)
            .and_then(|i| Some((i, self.members.get(i)?)))
            .filter(|(_, m)| offset < m.end);
        let Some((index, member)) = here else {
            return Err(DiskError::not_found("reading the volume")
                .offset(offset)
                .expected("the device that holds this part of the volume")
                .hint("give all devices of the volume"));
        };
        let Some(extent) = member.tables.find(offset)? else {
            return Err(DiskError::corrupt("reading the volume")
                .offset(offset)
                .found("a part that the extent table does not map"));
        };
        let inside = offset.saturating_sub(extent.logical);
        let physical = extent.physical.saturating_add(inside);
        let len = extent.len.saturating_sub(inside).min(left);
        let there = member.device.disk.len().saturating_sub(physical);
        if there == 0 {
            return Err(DiskError::corrupt("reading the volume")
                .offset(offset)
                .expected(format!(
                    "byte {physical} of device {}",
                    member.device.header.uuid
                ))
                .found(format!("a disk of {} bytes", member.device.disk.len()))
                .hint("the image is cut off"));
        }
        Ok((index, physical, len.min(there)))
    }

    fn disk(&self, index: usize) -> Result<&dyn Disk> {
        self.members
            .get(index)
            .map(|m| &*m.device.disk as &dyn Disk)
            .ok_or_else(|| DiskError::corrupt("finding a device"))
    }
}

impl Disk for LogicalVolume {
    fn len(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.members
            .first()
            .map_or(512, |m| m.device.disk.sector_size())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.size, offset, buf.len())?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let (index, physical, len) = self.place(at)?;
            let n = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(n);
            self.disk(index)?.read_exact_at(now, physical)?;
            rest = later;
            at = at.saturating_add(n as u64);
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.size, offset)?;
        // A missing device is data that cannot be read.
        let Ok((index, physical, len)) = self.place(offset) else {
            let next = self.members.iter().map(|m| m.start).find(|s| *s > offset);
            let inside = self
                .members
                .iter()
                .any(|m| (m.start..m.end).contains(&offset));
            let end = match next {
                _ if inside => (offset / UNIT).saturating_add(1).saturating_mul(UNIT),
                Some(next) => next,
                None => self.size,
            };
            return Ok(Run {
                len: end.min(self.size).saturating_sub(offset).max(1),
                kind: RunKind::Data,
            });
        };
        let run = self.disk(index)?.run_at(physical)?;
        Ok(Run {
            len: run.len.min(len),
            kind: run.kind,
        })
    }

    fn will_read(&self, offset: u64, len: u64) {
        let mut at = offset;
        let end = offset.saturating_add(len).min(self.size);
        while at < end {
            let Ok((index, physical, n)) = self.place(at) else {
                return;
            };
            let n = n.min(end.saturating_sub(at));
            if let Ok(disk) = self.disk(index) {
                disk.will_read(physical, n);
            }
            at = at.saturating_add(n);
        }
    }
}
