//! Superblock, heartbeats, descriptors and clusters (fact sheet, VMFS 3 to 8).

use super::{Builder, Bytes};

/// The geometry of a resource file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) per_cluster: u64,
    pub(super) clusters: u64,
    pub(super) size: u64,
    pub(super) total: u64,
    pub(super) header: u64,
    /// Last byte of the magic of the clusters' lock blocks.
    pub(super) lock: u64,
}

pub(super) const FIRST: u64 = 0x1_0000;

impl Shape {
    pub(super) fn group(&self) -> u64 {
        self.clusters * (self.header + self.per_cluster * self.size)
    }

    pub(super) fn groups(&self) -> u64 {
        self.total.div_ceil(self.per_cluster * self.clusters).max(1)
    }

    /// Length of the file.
    pub(super) fn len(&self) -> u64 {
        FIRST + self.groups() * self.group()
    }

    pub(super) fn position(&self, number: u64) -> u64 {
        let (cluster, item) = (number / self.per_cluster, number % self.per_cluster);
        FIRST
            + cluster / self.clusters * self.group()
            + self.clusters * self.header
            + (cluster % self.clusters * self.per_cluster + item) * self.size
    }

    pub(super) fn cluster(&self, cluster: u64) -> u64 {
        FIRST + cluster / self.clusters * self.group() + cluster % self.clusters * self.header
    }

    pub(super) fn file_header(&self, six: bool, bits: u64) -> Bytes {
        let mut h = Bytes::new(if six { 0x58 } else { 0x20 });
        h.u32(0, self.per_cluster)
            .u32(4, self.clusters)
            .u32(8, FIRST);
        h.u32(0xC, self.size).u32(0x10, self.group());
        h.u32(0x14, self.total & 0xFFFF_FFFF)
            .u32(0x18, self.groups())
            .u32(0x1C, self.total >> 32);
        if six {
            h.u32(0x20, 0x7266_6D64)
                .u32(0x24, 1)
                .u32(0x28, 4)
                .u32(0x30, bits);
        }
        h
    }

    /// The header of a cluster whose first `used` resources are allocated.
    pub(super) fn cluster_header(
        &self,
        six: bool,
        cluster: u64,
        place: u64,
        used: impl Fn(u64) -> bool,
    ) -> Bytes {
        let total = (self.total - cluster * self.per_cluster).min(self.per_cluster);
        let mut h = Bytes::new(self.header as usize);
        h.u32(0, 0x10C0_0000 + self.lock).u64(4, place);
        let meta = self.header as usize / 2;
        let at = meta + if six { 0x80 } else { 0x10 };
        let mut free = 0;
        for i in 0..total {
            if !used(cluster * self.per_cluster + i) {
                free += 1;
                h.0[at + i as usize / 8] |= 1 << (i % 8);
            }
        }
        let next = (0..total).find(|i| !used(cluster * self.per_cluster + i));
        cluster_counts(&mut h, six, meta, cluster, total, free, next.unwrap_or(0));
        h
    }
}

pub(super) fn cluster_counts(
    h: &mut Bytes,
    six: bool,
    meta: usize,
    cluster: u64,
    total: u64,
    free: u64,
    next: u64,
) {
    if six {
        h.u32(meta + 0x10, 0x7263_6D64).u64(meta + 0x18, cluster);
        h.u16(meta + 0x20, total)
            .u16(meta + 0x22, free)
            .u32(meta + 0x7C, next);
    } else {
        h.u32(meta, cluster)
            .u32(meta + 4, total)
            .u32(meta + 8, free)
            .u32(meta + 12, next);
    }
}

/// A descriptor to be written.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) fd: u32,
    pub(super) kind: u64,
    pub(super) len: u64,
    pub(super) block_size: u64,
    pub(super) blocks: u64,
    pub(super) zeroing: u64,
    pub(super) addressing: u64,
    pub(super) pointer_blocks: u64,
    pub(super) links: u64,
    pub(super) mode: u64,
    pub(super) parent: u32,
    pub(super) pointers: Vec<u64>,
    pub(super) resident: Vec<u8>,
    pub(super) lock: Option<(u64, u64, u64, [u8; 16])>,
}

const TIME: u64 = 1_751_281_466;

impl Inode {
    pub(super) fn write(&self, six: bool, place: u64) -> Vec<u8> {
        let (len, meta, resident, pointers) = if six {
            (8192, 0x1000, 0x1200, 0x1600)
        } else {
            (2048, 0x200, 0x400, 0x400)
        };
        let mut d = Bytes::new(len);
        d.u32(0, 0x10C0_0001).u64(4, place);
        if let Some((mode, heartbeat, generation, owner)) = &self.lock {
            d.u64(0xC, *heartbeat)
                .u64(0x14, *generation)
                .u32(0x24, *mode)
                .put(0x28, owner);
        }
        d.u32(meta, self.fd.into())
            .u32(meta + 4, 1)
            .u32(meta + 8, self.links);
        d.u32(meta + 0xC, self.kind).u64(meta + 0x14, self.len);
        d.u64(meta + 0x1C, self.block_size)
            .u64(meta + 0x24, self.blocks);
        for at in [0x2C, 0x30, 0x34] {
            d.u32(meta + at, TIME);
        }
        d.u32(meta + 0x40, self.mode)
            .u32(meta + 0x44, self.addressing);
        d.u32(meta + 0x48, self.zeroing)
            .u32(meta + 0x5C, self.pointer_blocks);
        d.u32(meta + 0x6C, 20);
        d.0[meta + 0x89] = self.block_size.trailing_zeros() as u8;
        if six {
            d.u32(meta + 0x64, 0x6664_6D64)
                .u32(meta + 0x70, self.parent.into());
        }
        d.put(resident, &self.resident);
        for (i, p) in self.pointers.iter().enumerate() {
            if six {
                d.u64(pointers + i * 8, *p);
            } else if *p != 0 {
                d.u32(pointers + i * 4, *p);
            }
        }
        d.0
    }
}

/// The superblock; the places are those of the descriptors of `.pb2.sf` and `.sdd.sf`.
pub(super) fn superblock(b: &Builder, pb2: u64, sdd: u64) -> Vec<u8> {
    let mut s = Bytes::new(if b.six { 4096 } else { 512 });
    let (major, minor) = if b.six { (24, 82) } else { (14, 81) };
    s.u32(0, 0x2FAB_F15E).u32(4, major);
    s.0[8] = minor;
    s.put(9, &b.uuid(0x22).0)
        .u32(0x19, if b.six { 0x4006 } else { 6 });
    s.put(0x1D, b.label.as_bytes())
        .u32(0x9D, 512)
        .u64(0xA1, b.block_size);
    s.u32(0xA9, TIME).u32(0xAD, 1);
    if b.with_lvm {
        s.put(0xB1, &b.uuid(0x11).0).u32(0xC1, 1);
    }
    s.u32(0xD1, FIRST).u32(0xD5, if b.six { 8 } else { 64 });
    s.u32(0xD9, if b.six { 65536 } else { 8192 })
        .u32(0xDD, if b.six { 64 } else { 8 });
    s.u64(0xE1, pb2)
        .u32(0xE9, 0x180_0004)
        .put(0xED, &b.uuid(0x33).0)
        .u64(0xFD, 1);
    s.u64(0x105, sdd).u32(0x10D, 0x1C0_0004);
    if b.six {
        s.u32(0x130, 512)
            .u32(0x134, 4096)
            .u16(0x138, 9)
            .u16(0x13E, 16)
            .u16(0x140, 44);
        s.u32(0x144, 1 << 20)
            .u32(0x148, 2 << 20)
            .u32(0x14C, 16000)
            .u32(0x150, 4000);
    }
    s.0
}

/// The slot of a heartbeat.
pub(super) fn heartbeat_place(b: &Builder, number: usize) -> u64 {
    if b.six {
        0x30_0000 + (64 + number as u64) * 4096
    } else {
        0x30_0000 + (528 + number as u64) * 512
    }
}

pub(super) fn heartbeats(b: &Builder) -> Vec<u8> {
    let (count, size) = if b.six { (1024, 4096) } else { (2048, 512) };
    let mut all = Bytes::new(count * size);
    for i in 0..count {
        all.u32(i * size, 0xABCD_EF01)
            .u64(i * size + 4, 0x30_0000 + (i * size) as u64);
    }
    for (number, (host, generation)) in b.heartbeats.iter().enumerate() {
        let at = (heartbeat_place(b, number) - 0x30_0000) as usize;
        all.u32(at, 0xABCD_EF02)
            .u64(at + 0xC, *generation)
            .u64(at + 0x14, 1_000_000);
        all.put(at + 0x1C, &host.0)
            .u32(at + 0x30, if b.six { 24 } else { 14 });
        all.0[at + 0x34] = if b.six { 82 } else { 81 };
        all.0[at + 0x35] = 3;
        all.put(at + 0x36, b"192.0.2.7");
    }
    all.0
}
