//! Bitmaps against what is used (fact sheet, VMFS 6.3).

use super::{Check, Severity, ranges::Ranges};
use crate::{
    blocks::{BlockList, Place},
    resource::Resource,
    superblock::Layout,
    usage::small_header,
};
use disk_io::{DiskError, Fields, Result};

/// Begin of a cluster's lock block; the last byte says of which resource.
const LOCK: u32 = 0x10C0_0000;
const SIGNATURE: u32 = 0x7263_6D64;

/// Headers that cannot be read, after which no more are looked at.
const MOST_LOST: u64 = 10_000;

/// One cluster of a resource.
struct Cluster<'a> {
    name: &'a str,
    blocks: &'a BlockList,
    /// Offset in the resource file.
    at: u64,
    number: u64,
    first: u64,
    count: u64,
    lock: u32,
    /// Two bits for each resource.
    wide: bool,
}

impl Check<'_> {
    pub(super) fn bitmaps(&mut self) -> Result<()> {
        let core = self.core;
        let used = std::mem::take(&mut self.used);
        match core.small_blocks() {
            Ok(None) => self.resource(core.fbb().as_ref().map(|r| *r), 2, &used.blocks),
            Ok(Some(small)) => self.small(&small, &used.blocks),
            Err(e) => self.found(Severity::Damage, None, e),
        }
        for (resource, lock, used) in [
            (core.sbc(), 3, &used.subs),
            (core.pbc(), 4, &used.pointers),
            (core.fdc(), 5, &used.descriptors),
            (core.pb2(), 6, &used.pointers2),
        ] {
            // VMFS-3 has no second kind of pointer blocks.
            if lock != 6 || core.superblock.generation() > 3 {
                self.resource(resource.as_ref().copied(), lock, used);
            }
        }
        Ok(())
    }

    fn resource(&mut self, resource: Result<&Resource, &DiskError>, lock: u32, used: &Ranges) {
        let resource = match resource {
            Ok(resource) => resource,
            Err(e) => return self.found(Severity::Damage, None, e.clone()),
        };
        for number in 0..resource.clusters() {
            let Some(at) = resource.cluster_header(number) else {
                return;
            };
            if at.saturating_add(resource.header) > resource.blocks.len {
                // The file may end before the clusters that it counts.
                return;
            }
            if self.lost > MOST_LOST {
                return;
            }
            let first = number.saturating_mul(resource.per_cluster);
            self.cluster(
                &Cluster {
                    name: resource.name,
                    blocks: &resource.blocks,
                    at,
                    number,
                    first,
                    count: resource
                        .total
                        .saturating_sub(first)
                        .min(resource.per_cluster),
                    lock,
                    wide: false,
                },
                used,
            );
        }
    }

    fn small(&mut self, small: &Resource, used: &Ranges) {
        let Ok(fbb) = self.core.fbb() else {
            return;
        };
        for number in 0..small.clusters() {
            let Some(at) = small_header(fbb, number) else {
                return;
            };
            // As above; and in a file that claims holes without end, headers that are not there end
            // it, since each costs a finding.
            let header = self.core.geometry.cluster_header;
            if at.saturating_add(header) > fbb.blocks.len || self.lost > MOST_LOST {
                return;
            }
            let first = number.saturating_mul(small.per_cluster);
            self.cluster(
                &Cluster {
                    name: ".fbb.sf",
                    blocks: &fbb.blocks,
                    at,
                    number,
                    first,
                    count: small.total.saturating_sub(first).min(small.per_cluster),
                    lock: 2,
                    wide: true,
                },
                used,
            );
        }
    }

    fn cluster(&mut self, c: &Cluster<'_>, used: &Ranges) {
        self.checked.clusters = self.checked.clusters.saturating_add(1);
        if let Err(e) = self.cluster_or_fail(c, used) {
            let mut e = e.context(format!("checking cluster {} of {}", c.number, c.name));
            self.lost = self.lost.saturating_add(1);
            if self.lost > MOST_LOST {
                e = e.hint("the rest of the headers is not looked at");
            }
            self.found(Severity::Damage, None, e);
        }
    }

    fn cluster_or_fail(&mut self, c: &Cluster<'_>, used: &Ranges) -> Result<()> {
        let g = &self.core.geometry;
        let place = match self.core.extent(c.blocks, c.at, g.cluster_header).place {
            Place::Stored(place) => place,
            Place::Bad(e) => return Err(e),
            _ => return Err(DiskError::corrupt("reading a header").found("a hole")),
        };
        let mut bytes = vec![0; g.cluster_header as usize];
        self.core.read_list(c.blocks, &mut bytes, c.at, 0)?;
        let f = Fields::new(&bytes, place, "cluster header");
        let lock = f.u32_le(0)?;
        if lock != LOCK | c.lock || f.u64_le(4)? != place {
            return Err(f
                .corrupt(0, "the lock block")
                .expected(format!("{:#x} of {place}", LOCK | c.lock))
                .found(format!("{lock:#x} of {}", f.u64_le(4)?)));
        }
        let m = f.sub(g.align, g.align, "cluster header")?;
        let (number, total, free, map) = match g.layout {
            Layout::Five => (
                m.u32_le(0)?.into(),
                m.u32_le(4)?.into(),
                m.u32_le(8)?.into(),
                0x10,
            ),
            Layout::Six => {
                let found = m.u32_le(0x10)?;
                if found != SIGNATURE {
                    return Err(m
                        .corrupt(0x10, "the signature")
                        .found(format!("{found:#x}")));
                }
                (
                    m.u64_le(0x18)?,
                    u64::from(m.u16_le(0x20)?),
                    u64::from(m.u16_le(0x22)?),
                    0x80,
                )
            }
        };
        if number != c.number || total != c.count {
            return Err(m
                .corrupt(0, "the counts")
                .expected(format!("cluster {} of {}", c.number, c.count))
                .found(format!("cluster {number} of {total}")));
        }
        let mut counted = 0u64;
        let mut lost: Option<(u64, u64)> = None;
        for item in 0..c.count {
            let is_free = if c.wide {
                // Two bits each, 256 of them 256 bytes apart; 1 is free.
                let half = (item / 256).saturating_mul(0x100);
                let byte = (item % 256 / 4).saturating_add(half) as usize;
                m.u8(byte.saturating_add(map))? >> (item % 4).saturating_mul(2) & 3 == 1
            } else {
                let byte = (item / 8) as usize;
                m.u8(byte.saturating_add(map))? >> (item % 8) & 1 == 1
            };
            let number = c.first.saturating_add(item);
            let is_used = used.contains(number);
            counted = counted.saturating_add(u64::from(is_free));
            if is_free && is_used {
                let e = DiskError::corrupt(format!("comparing {} with the files", c.name))
                    .offset(place)
                    .expected(format!("number {number} allocated: a file uses it"))
                    .found("it free");
                self.found(Severity::Damage, None, e);
            }
            if !is_free && !is_used {
                match &mut lost {
                    Some((_, count)) => *count = count.saturating_add(1),
                    None => lost = Some((number, 1)),
                }
            }
        }
        if let Some((first, count)) = lost {
            let e = DiskError::corrupt(format!("comparing {} with the files", c.name))
                .offset(place)
                .expected("a file that uses what is allocated")
                .found(format!("{count} without one, the first is number {first}"));
            self.found(Severity::Lost, None, e);
        }
        if counted != free {
            return Err(m
                .corrupt(8, "the free count")
                .expected(counted.to_string())
                .found(free.to_string()));
        }
        Ok(())
    }
}
