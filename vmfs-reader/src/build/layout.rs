//! Lays a volume out: the system's files, and those that are asked for.

use super::{
    Builder, Bytes, Node,
    allocate::{Plan, Through},
    directory, lvm,
    metadata::{self, FIRST, Inode, Shape},
    store::Store,
};
use std::collections::BTreeMap;

/// Makes the contents of a volume.
pub(super) fn volume(b: &Builder) -> Store {
    let six = b.six;
    let block = b.block_size;
    let mut p = Plan {
        b,
        six,
        block,
        next: 0,
        kept: (0, 0),
        used: BTreeMap::new(),
        subs: Vec::new(),
        pointer_blocks: Vec::new(),
        store: Store::default(),
    };
    let header = if six { 8192 } else { 1024 };
    let shape = |per_cluster: u64, clusters: u64, size: u64, wanted: u64, lock: u64| {
        let group = per_cluster * clusters;
        Shape {
            per_cluster,
            clusters,
            size,
            total: wanted.div_ceil(group).max(1) * group,
            header,
            lock,
        }
    };
    let first_user: u32 = if six { 11 } else { 8 };
    let descriptors = u64::from(first_user) + b.nodes.len() as u64;
    let fdc = match six {
        true => shape(256, 8, 8192, descriptors, 5),
        false => shape(200, 64, 2048, descriptors, 5),
    };
    let fd = |n: u64| ((n % fdc.per_cluster) << 22 | (n / fdc.per_cluster) << 6 | 4) as u32;
    let node_fd = |n: usize| match n {
        0 => 4,
        n => fd(u64::from(first_user) + n as u64 - 1),
    };
    let vh = (if six { 7u64 << 20 } else { 4 << 20 }).div_ceil(block);
    p.take(vh);
    let fdc_start = p.take(fdc.len().div_ceil(block));
    let total = b.size() / block;
    let large = total.div_ceil(512);
    let fbb_group = if six {
        8 * 8192 + 128 * 8192
    } else {
        64 * 1024
    };
    let fbb_groups = match six {
        true => large.div_ceil(128),
        false => total.div_ceil(200 * 64),
    };
    let fbb_len = FIRST + fbb_groups * fbb_group;
    let keep = (if six { 216u64 << 20 } else { 44 << 20 }) + fbb_len;
    p.kept = (p.next, p.next + keep.div_ceil(block));
    p.next = p.kept.1;
    let mut inodes: Vec<Inode> = Vec::new();
    let system = |n: u64, len: u64| Inode {
        fd: fd(n),
        kind: 5,
        len,
        links: 1,
        mode: 0o400,
        ..Inode::default()
    };
    let names: &[(&str, u64)] = &[
        (".fbb.sf", 1),
        (".fdc.sf", 2),
        (".pbc.sf", 3),
        (".sbc.sf", 4),
        (".vh.sf", 5),
        (".pb2.sf", 6),
        (".sdd.sf", 7),
        (".jbc.sf", 8),
    ];
    let names = if six { names } else { &names[..7] };

    // What the user asked for.
    for (number, node) in b.nodes.iter().enumerate() {
        let mut inode = Inode {
            fd: node_fd(number),
            parent: node_fd(b.parents[number]),
            links: 1,
            mode: 0o600,
            kind: 3,
            ..Inode::default()
        };
        match node {
            Node::Directory(members) => {
                inode.kind = 2;
                inode.mode = if number == 0 { 0o1755 } else { 0o755 };
                let up = node_fd(b.parents[number]);
                let mut entries: Vec<directory::Entry> =
                    vec![(2, inode.fd, 1, b".".to_vec()), (2, up, 1, b"..".to_vec())];
                if number == 0 {
                    let files = names
                        .iter()
                        .map(|(n, i)| (5, fd(*i), 1, n.as_bytes().to_vec()));
                    entries.extend(files);
                }
                inode.links = 2;
                for (name, member) in members {
                    let kind = match &b.nodes[*member] {
                        Node::Directory(_) => 2,
                        Node::File(..) => 3,
                        Node::Symlink(_) => 4,
                        Node::Rdm(_) => 6,
                    };
                    inode.links += u64::from(kind == 2);
                    entries.push((kind, node_fd(*member), 1, name.clone()));
                }
                let bytes = match six {
                    true => directory::hashed(&entries, number == 0),
                    false => directory::flat(&entries),
                };
                let subs = match (number, six) {
                    (0, _) => 0,
                    (_, true) => 320,
                    (_, false) => 1,
                };
                p.small(&mut inode, bytes, subs, false);
            }
            Node::File(disk, spec) => {
                p.file(&mut inode, disk, spec);
                inode.lock = spec.lock.map(|(host, mode)| {
                    let (uuid, generation) = b.heartbeats[host];
                    let place = metadata::heartbeat_place(b, host);
                    (u64::from(mode), place, generation, uuid.0)
                });
            }
            Node::Symlink(target) => {
                inode.kind = 4;
                inode.mode = 0o777;
                p.small(&mut inode, target.clone(), 1, six);
            }
            Node::Rdm(len) => {
                inode.kind = 6;
                inode.len = *len;
                inode.block_size = 512;
                inode.resident = lvm::scsi(99).0;
            }
        }
        inodes.push(inode);
    }

    // The system's own files, in an order in which each knows how large it must be.
    let second = if six { Through::Second } else { Through::Usual };
    let sbc = match six {
        true => shape(256, 8, 65536, p.subs.len() as u64 + 64, 3),
        false => shape(64, 64, 8192, p.subs.len() as u64 + 64, 3),
    };
    let place = |p: &mut Plan<'_>, n: u64, len: u64, inodes: &mut Vec<Inode>| {
        let count = len.div_ceil(block);
        let start = p.take_kept(count);
        let mut inode = system(n, len);
        p.contiguous(&mut inode, start, count, second);
        inodes.push(inode);
        start
    };
    let mut vh_inode = system(5, vh * block);
    p.contiguous(&mut vh_inode, 0, vh, second);
    inodes.push(vh_inode);
    let mut fdc_inode = system(2, fdc.len());
    p.contiguous(&mut fdc_inode, fdc_start, fdc.len().div_ceil(block), second);
    inodes.push(fdc_inode);
    let sbc_start = place(&mut p, 4, sbc.len(), &mut inodes);
    let fbb_start = place(&mut p, 1, fbb_len, &mut inodes);
    let mut sdd = system(7, 0);
    (sdd.mode, sdd.links) = (0o40700, 2);
    let entries = [(2, fd(7), 1, b".".to_vec()), (2, 4, 1, b"..".to_vec())];
    let bytes = match six {
        true => directory::hashed(&entries, false),
        false => directory::flat(&entries),
    };
    p.small(&mut sdd, bytes, 0, false);
    inodes.push(sdd);
    if six {
        let jbc = shape(8, 4, 2 << 20, 32, 7);
        let start = place(&mut p, 8, jbc.len(), &mut inodes);
        p.store.put(start * block, jbc.file_header(true, 1).0);
        p.clusters(&jbc, start, &|_| false);
        let start = place(&mut p, 3, 65536, &mut inodes);
        // Its pointer blocks are sub-blocks: the file is there, and empty.
        let mut none = Bytes::new(0x58);
        none.u32(4, 8)
            .u32(8, FIRST)
            .u32(0xC, 65536)
            .u32(0x10, 65536);
        none.u32(0x20, 0x7266_6D64)
            .u32(0x24, 1)
            .u32(0x28, 4)
            .u32(0x30, 1);
        p.store.put(start * block, none.0);
    }
    // Pointer blocks come last: no later file needs any.
    let tables = std::mem::take(&mut p.pointer_blocks);
    let count = tables.len() as u64;
    let (number, pointers) = match six {
        true => (6, shape(32, 8, 65536, count, 6)),
        false => (3, shape(16, 64, 4096, count, 4)),
    };
    let start = place(&mut p, number, pointers.len(), &mut inodes);
    assert!(
        p.pointer_blocks.is_empty(),
        "pointer blocks for pointer blocks"
    );
    p.store.put(start * block, pointers.file_header(six, 1).0);
    for (n, table) in tables.into_iter().enumerate() {
        let bytes = match six {
            true => table.iter().flat_map(|p| p.to_le_bytes()).collect(),
            false => table
                .iter()
                .flat_map(|p| (*p as u32).to_le_bytes())
                .collect(),
        };
        let at = start * block + pointers.position(n as u64);
        p.store.put(at, bytes);
    }
    p.clusters(&pointers, start, &|n| n < count);
    if !six {
        let pb2 = shape(16, 16, 4096, 1, 6);
        let pb2 = Shape {
            clusters: 64,
            ..pb2
        };
        let start = place(&mut p, 6, pb2.len(), &mut inodes);
        p.store.put(start * block, pb2.file_header(false, 0).0);
        p.clusters(&pb2, start, &|_| false);
    }

    // Sub-blocks.
    p.store.put(sbc_start * block, sbc.file_header(six, 1).0);
    let subs = std::mem::take(&mut p.subs);
    let count = subs.len() as u64;
    for (n, bytes) in subs.into_iter().enumerate() {
        if !bytes.is_empty() {
            p.store
                .put(sbc_start * block + sbc.position(n as u64), bytes);
        }
    }
    p.clusters(&sbc, sbc_start, &|n| n < count);

    // Descriptors.
    p.store.put(fdc_start * block, fdc.file_header(six, 1).0);
    let at = |fd: u32| {
        let n = u64::from(fd >> 6 & 0xFFFF) * fdc.per_cluster + u64::from(fd >> 22);
        (n, fdc_start * block + fdc.position(n))
    };
    let mut present: Vec<u64> = Vec::new();
    for inode in &inodes {
        let (n, place) = at(inode.fd);
        present.push(n);
        p.store.put(place, inode.write(six, place));
    }
    present.sort_unstable();
    p.clusters(&fdc, fdc_start, &|n| present.binary_search(&n).is_ok());

    // File blocks.
    assert!(p.next <= total, "a volume of {total} blocks for {}", p.next);
    if six {
        small_and_large(&mut p, fbb_start, total);
    } else {
        let fbb = Shape {
            per_cluster: 200,
            clusters: 64,
            size: 0,
            total,
            header,
            lock: 2,
        };
        p.store.put(fbb_start * block, fbb.file_header(false, 1).0);
        let used = p.used.clone();
        let probe = Plan {
            b: p.b,
            six,
            block,
            next: 0,
            kept: (0, 0),
            used,
            subs: Vec::new(),
            pointer_blocks: Vec::new(),
            store: Store::default(),
        };
        p.clusters(&fbb, fbb_start, &|n| probe.is_used(n));
    }

    // The begin of the volume.
    p.store.put(
        crate::superblock::OFFSET,
        metadata::superblock(b, at(fd(6)).1, at(fd(7)).1),
    );
    p.store.put(0x30_0000, metadata::heartbeats(b));
    p.store
}

/// The block bitmaps of VMFS-6, where every large block is split into small ones.
fn small_and_large(p: &mut Plan<'_>, start: u64, total: u64) {
    let base = start * p.block;
    let large = total.div_ceil(512);
    let mut h = Bytes::new(0x1000 + 0x58);
    for (at, per, all, flags, bits, lock_groups) in [
        (0usize, 16u64, large, 0x35u64, 3u64, large.div_ceil(128)),
        (0x1000, 512, total, 0x2A, 2, large.div_ceil(8)),
    ] {
        h.u32(at, per).u32(at + 4, 8).u32(at + 8, FIRST);
        h.u32(at + 0x10, if at == 0 { 1_114_112 } else { 65536 });
        h.u32(at + 0x14, all & 0xFFFF_FFFF)
            .u32(at + 0x18, lock_groups);
        h.u32(at + 0x1C, all >> 32)
            .u32(at + 0x20, 0x7266_6D64)
            .u32(at + 0x24, 1);
        h.u32(at + 0x28, flags)
            .u16(at + 0x2C, 216)
            .u16(at + 0x2E, 1)
            .u32(at + 0x30, bits);
    }
    h.u32(0x34, 0x1000);
    h.u32(0x1038, 16)
        .u32(0x103C, 8)
        .u32(0x1040, 1_114_112)
        .u32(0x1054, large);
    p.store.put(base, h.0);
    for cluster in 0..large.div_ceil(16) {
        let place = base + FIRST + cluster / 8 * 1_114_112 + cluster % 8 * 8192;
        let count = (large - cluster * 16).min(16);
        let mut c = Bytes::new(8192);
        c.u32(0, 0x10C0_0008).u64(4, place);
        super::metadata::cluster_counts(&mut c, true, 4096, cluster, count, 0, 0);
        for i in 0..count as usize {
            let bit = i * 3 + 2;
            c.0[4096 + 0x80 + bit / 8] |= 1 << (bit % 8);
        }
        p.store.put(place, c.0);
    }
    for cluster in 0..large {
        let range = cluster * 512..((cluster + 1) * 512).min(total);
        if large > 4096 && !range.clone().any(|n| p.is_used(n)) {
            continue;
        }
        let place = base + FIRST + cluster / 128 * 1_114_112 + 65536 + cluster % 128 * 8192;
        let mut c = Bytes::new(8192);
        c.u32(0, 0x10C0_0002).u64(4, place);
        let free: Vec<u64> = range.clone().filter(|n| !p.is_used(*n)).collect();
        let next = free.first().map_or(0, |n| n % 512);
        let count = range.end - range.start;
        super::metadata::cluster_counts(
            &mut c,
            true,
            4096,
            cluster,
            count,
            free.len() as u64,
            next,
        );
        for n in free {
            let item = (n % 512) as usize;
            let at = 4096 + if item < 256 { 0x80 } else { 0x180 } + item % 256 / 4;
            c.0[at] |= 1 << (item % 4 * 2);
        }
        p.store.put(place, c.0);
    }
}
