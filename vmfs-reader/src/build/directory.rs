//! Contents of directories (fact sheet, VMFS 10).

use super::Bytes;
use crate::dir::{
    BLOCK_HEADER, ENTRIES_AT, HASH_AT, SLOT,
    hash::{hash, slot},
};
use std::collections::BTreeMap;

/// (type, descriptor, generation, name), `.` and `..` first.
pub(super) type Entry = (u64, u32, u64, Vec<u8>);

/// A directory of VMFS-5.
pub(super) fn flat(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, fd, generation, name) in entries {
        let mut e = Bytes::new(140);
        e.u32(0, *kind)
            .u32(4, (*fd).into())
            .u32(8, *generation)
            .put(12, name);
        out.extend(e.0);
    }
    out
}

const ALIGN: usize = 4096;
const PER_BLOCK: usize = 14;
const PER_MAP: usize = 8064;
const GROUPS: usize = 48;
const LINKS: usize = 12;

fn place(block: usize, slot: usize) -> u64 {
    (0x1_0000 + block * ALIGN + BLOCK_HEADER + slot * SLOT) as u64
}

fn put_entry(bytes: &mut Bytes, at: usize, own: u64, (kind, fd, generation, name): &Entry) {
    let h = hash(name);
    bytes
        .u32(at, *kind)
        .u32(at + 4, (*fd).into())
        .u32(at + 8, *generation);
    bytes
        .u16(at + 0xC, h & 0xFFFF)
        .u16(at + 0xE, h >> 16 & 0xFFFF);
    bytes.u64(at + 0x10, own).put(at + 0x18, name);
}

/// A directory of VMFS-6. Block `i * 8064` is the map of the 8064 blocks from there on.
pub(super) fn hashed(entries: &[Entry], root: bool) -> Vec<u8> {
    let names = &entries[2..];
    let mut next = 0;
    let mut kinds: Vec<u8> = Vec::new();
    let mut take = |kind: u8| {
        if next % PER_MAP == 0 {
            kinds.push(3);
            next += 1;
        }
        kinds.push(kind);
        next += 1;
        next - 1
    };
    // Where each entry goes, then the chains of slots with several.
    let blocks: Vec<usize> = (0..names.len().div_ceil(PER_BLOCK))
        .map(|_| take(1))
        .collect();
    let location = |i: usize| ((i % PER_BLOCK) << 24 | blocks[i / PER_BLOCK] << 2 | 1) as u64;
    let mut slots: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (i, (.., name)) in names.iter().enumerate() {
        slots.entry(slot(hash(name), root)).or_default().push(i);
    }
    let groups: usize = slots
        .values()
        .filter(|s| s.len() > 1)
        .map(|s| s.len().div_ceil(LINKS))
        .sum();
    let links: Vec<usize> = (0..groups.div_ceil(GROUPS)).map(|_| take(2)).collect();
    if kinds.is_empty() {
        kinds.push(3);
    }
    let mut out = Bytes::new(0x1_0000 + kinds.len() * ALIGN);
    out.u32(0, 0x00F5_0001).u32(4, entries.len() as u64);
    out.u32(8, (kinds.len() * PER_BLOCK) as u64);
    let maps = kinds.len().div_ceil(PER_MAP);
    out.u32(0xC, maps as u64);
    for map in 0..maps {
        out.u32(0x10 + map * 4, (map * PER_MAP) as u64);
    }
    for (at, entry) in ENTRIES_AT.iter().zip(entries) {
        put_entry(&mut out, *at, *at as u64, entry);
    }
    // Block headers.
    for (block, kind) in kinds.iter().enumerate() {
        let at = 0x1_0000 + block * ALIGN;
        let count = [0, PER_BLOCK, GROUPS, 0][usize::from(*kind)];
        out.u16(at, u64::from(*kind != 3))
            .u16(at + 2, u64::from(*kind));
        out.u16(at + 4, count as u64).u16(at + 6, count as u64);
        for i in 0..count {
            out.0[at + 8 + i / 8] |= 1 << (i % 8);
        }
        let map = 0x1_0000 + (block / PER_MAP * PER_MAP) * ALIGN + BLOCK_HEADER;
        let nibble = if block % 2 == 0 { kind << 4 } else { *kind };
        out.0[map + block % PER_MAP / 2] |= nibble;
    }
    let used = |out: &mut Bytes, block: usize, slot: usize| {
        let at = 0x1_0000 + block * ALIGN;
        out.0[at + 8 + slot / 8] &= !(1 << (slot % 8));
        let free = u64::from(out.0[at + 6]) - 1;
        out.u16(at + 6, free);
    };
    for (i, entry) in names.iter().enumerate() {
        let (block, slot) = (blocks[i / PER_BLOCK], i % PER_BLOCK);
        let own = place(block, slot);
        put_entry(&mut out, own as usize, own, entry);
        used(&mut out, block, slot);
    }
    let mut group = 0;
    for (number, members) in slots {
        let at = HASH_AT as usize + number as usize * 4;
        if let [one] = members[..] {
            out.u32(at, location(one));
            continue;
        }
        let count = members.len().div_ceil(LINKS);
        let group_location = |g: usize| ((g % GROUPS) << 24 | links[g / GROUPS] << 2 | 2) as u64;
        out.u32(at, group_location(group));
        for (i, chunk) in members.chunks(LINKS).enumerate() {
            let (block, slot) = (links[group / GROUPS], group % GROUPS);
            let at = 0x1_0000 + block * ALIGN + BLOCK_HEADER + slot * 84;
            out.u16(at, number);
            out.0[at + 2] = LINKS as u8;
            out.0[at + 3] = (LINKS - chunk.len()) as u8;
            out.0[at + 4] = chunk.len() as u8;
            for (j, member) in chunk.iter().enumerate() {
                let h = hash(&names[*member].3);
                out.u32(at + 6 + j * 6, location(*member));
                out.u16(at + 10 + j * 6, h >> 16 & 0xFFFF);
            }
            if i + 1 < count {
                out.u32(at + 78, group_location(group + 1));
            }
            used(&mut out, block, slot);
            group += 1;
        }
    }
    out.0
}
