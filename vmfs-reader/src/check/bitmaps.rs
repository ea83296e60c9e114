//! Bitmaps against what is used (fact sheet, VMFS 6.3).

use super::{Check, Kind, Numbers, Which};
use crate::{
    address::FdAddress,
    blocks::{BlockList, Place},
    resource::Resource,
    superblock::Layout,
    usage::small_header,
};
use disk_io::{DiskError, Fields, Finding, Result};

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
    per_cluster: u64,
    kind: Kind,
    /// Two bits for each resource.
    wide: bool,
}

impl Kind {
    /// Last byte of the magic of the clusters' lock blocks.
    fn lock(self) -> u32 {
        match self {
            Self::Block => 2,
            Self::Sub => 3,
            Self::Pointer => 4,
            Self::Descriptor => 5,
            Self::Pointer2 => 6,
        }
    }
}

impl Check<'_> {
    pub(super) fn bitmaps(&mut self) {
        let core = self.core;
        // Descriptors first: what a file without a name uses is not lost.
        self.resource(core.fdc(), Kind::Descriptor);
        match core.small_blocks() {
            Ok(None) => self.resource(core.fbb(), Kind::Block),
            Ok(Some(small)) => self.small(&small),
            Err(e) => self.found(Finding::damage("vmfs-resource-damaged", e), &[]),
        }
        self.resource(core.sbc(), Kind::Sub);
        self.resource(core.pbc(), Kind::Pointer);
        // VMFS-3 has no second kind of pointer blocks.
        if core.superblock.generation() > 3 {
            self.resource(core.pb2(), Kind::Pointer2);
        }
    }

    fn resource(&mut self, resource: Result<&Resource>, kind: Kind) {
        let resource = match resource {
            Ok(resource) => resource,
            Err(e) => return self.found(Finding::damage("vmfs-resource-damaged", e), &[]),
        };
        let used = std::mem::take(self.used.of(kind));
        for number in 0..resource.clusters() {
            let Some(at) = resource.cluster_header(number) else {
                return;
            };
            // The file may end before the clusters that it counts.
            if at.saturating_add(resource.header) > resource.blocks.len || self.is_enough() {
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
                    per_cluster: resource.per_cluster,
                    kind,
                    wide: false,
                },
                &used,
            );
        }
    }

    /// Headers that are not there end a file that claims holes without end, since each costs a
    /// finding.
    fn is_enough(&self) -> bool {
        self.lost > MOST_LOST || self.failed.is_some()
    }

    fn small(&mut self, small: &Resource) {
        let Ok(fbb) = self.core.fbb() else {
            return;
        };
        let used = std::mem::take(self.used.of(Kind::Block));
        for number in 0..small.clusters() {
            let Some(at) = small_header(fbb, number) else {
                return;
            };
            let header = self.core.geometry.cluster_header;
            if at.saturating_add(header) > fbb.blocks.len || self.is_enough() {
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
                    per_cluster: small.per_cluster,
                    kind: Kind::Block,
                    wide: true,
                },
                &used,
            );
        }
    }

    fn cluster(&mut self, c: &Cluster<'_>, used: &Numbers) {
        self.checked.clusters = self.checked.clusters.saturating_add(1);
        if let Err(e) = self.cluster_or_fail(c, used) {
            let mut e = e.context(format!("checking cluster {} of {}", c.number, c.name));
            self.lost = self.lost.saturating_add(1);
            if self.lost > MOST_LOST {
                e = e.hint("the rest of the headers is not looked at");
            }
            self.found(Finding::warning("vmfs-bitmap-damaged", e), &[]);
        }
    }

    /// A descriptor in use that no name leads to; false if it describes no file.
    fn nameless(&mut self, number: u64, per_cluster: u64) -> bool {
        let place = |n: u64| Some((n.checked_div(per_cluster)?, n.checked_rem(per_cluster)?));
        let address = place(number).and_then(|(cluster, item)| {
            FdAddress::new(u32::try_from(cluster).ok()?, u32::try_from(item).ok()?)
        });
        let Some((address, descriptor)) =
            address.and_then(|a| Some((a, self.core.descriptor(a).ok()?)))
        else {
            return false;
        };
        if descriptor.stat.links == 0 {
            return false;
        }
        let e = DiskError::corrupt("holding descriptors against directories")
            .offset(descriptor.stat.place)
            .expected(format!(
                "a name of the file of {} bytes",
                descriptor.stat.size
            ))
            .found(match self.partly {
                true => "none in what can be read",
                false => "none",
            });
        let path = format!("(descriptor {address})").into_bytes();
        let file = Which {
            address,
            path: &path,
        };
        self.found(Finding::warning("vmfs-name-lost", e), &[file]);
        self.file(file, &descriptor);
        true
    }

    fn cluster_or_fail(&mut self, c: &Cluster<'_>, used: &Numbers) -> Result<()> {
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
        if lock != LOCK | c.kind.lock() || f.u64_le(4)? != place {
            return Err(f
                .corrupt(0, "the lock block")
                .expected(format!("{:#x} of {place}", LOCK | c.kind.lock()))
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
                self.suspects.free(c.kind, number, place);
            }
            if !is_free
                && !is_used
                && c.kind == Kind::Descriptor
                && self.nameless(number, c.per_cluster)
            {
                continue;
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
            self.found(Finding::note("vmfs-space-lost", e), &[]);
        }
        if counted != free {
            let e = m
                .corrupt(8, "the free count")
                .expected(counted.to_string())
                .found(free.to_string())
                .context(format!("checking cluster {} of {}", c.number, c.name));
            self.found(Finding::warning("vmfs-free-count-wrong", e), &[]);
        }
        Ok(())
    }
}
