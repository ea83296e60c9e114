//! Structures whose bytes nothing vouches for: no checksum, no copy, nothing else that says the
//! same. A reader cannot tell another sound value in them from the right one. Found here in the
//! sound image, by the published layouts and with none of the readers' own code.
//!
//! As little as has shown to be needed: what is in no region here and goes wrong without a word is
//! a finding, in NTFS, exFAT and ext4 whatever it is.

use std::ops::Range;

/// A part of a file, and what it is.
pub type Region = (Range<usize>, &'static str);

/// Numbers of a file; 0 outside of it.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn le(&self, at: usize, len: usize) -> usize {
        let bytes = self.0.get(at..at + len).unwrap_or_default();
        bytes.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b))
    }

    fn be(&self, at: usize, len: usize) -> usize {
        let bytes = self.0.get(at..at + len).unwrap_or_default();
        bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b))
    }
}

/// Those of the sound `file` of an image or volume of this `kind`.
pub fn unguarded(kind: &str, file: &[u8]) -> Vec<Region> {
    let bytes = Bytes(file);
    if file.starts_with(b"# Disk DescriptorFile") {
        return vec![(0..file.len(), "a line of the descriptor")];
    }
    match kind {
        "monolithicSparse" | "twoGbMaxExtentSparse" => hosted(&bytes),
        "vmfsSparse" => cowd(&bytes),
        "seSparse" => sesparse(&bytes),
        "qcow2" => qcow2(&bytes),
        "VDI" => {
            let (at, entries) = (bytes.le(340, 4), bytes.le(384, 4));
            vec![
                (at..at + entries * 4, "an entry of the block map"),
                (344..348, "where the header says that the blocks are"),
                (368..376, "the length of the disk"),
            ]
        }
        "VHDX" => vhdx(&bytes),
        "VHD" => {
            let (at, entries) = (bytes.be(512 + 16, 8), bytes.be(512 + 28, 4));
            vec![(
                at..at + entries * 4,
                "an entry of the block allocation table",
            )]
        }
        "ext-2" => ext2(&bytes),
        "fat16" => fat16(&bytes),
        _ => Vec::new(),
    }
}

/// Both copies of a table: where both were changed, or one and the way to the other, nothing is
/// left that would tell (fact sheet, VMDK 5.3).
fn hosted(b: &Bytes<'_>) -> Vec<Region> {
    let what = "both copies of a grain table, or a table and the way to its copy";
    let entries = b.le(12, 8).div_ceil(b.le(20, 8).max(1));
    let tables = entries.div_ceil(b.le(44, 4).max(1));
    let mut regions = vec![(48..64, what)];
    for at in [48, 56] {
        let gd = b.le(at, 8) * 512;
        regions.push((gd..gd + tables * 4, what));
        for n in 0..tables {
            let gt = b.le(gd + n * 4, 4) * 512;
            regions.push((gt..gt + b.le(44, 4) * 4, what));
        }
    }
    regions
}

/// Fact sheet, VMDK 7.
fn cowd(b: &Bytes<'_>) -> Vec<Region> {
    let (gd, entries) = (b.le(20, 4) * 512, b.le(24, 4));
    let mut regions = vec![(gd..gd + entries * 4, "an entry of the grain directory")];
    for n in 0..entries {
        let gt = b.le(gd + n * 4, 4) * 512;
        if gt > 0 {
            regions.push((gt..gt + 4096 * 4, "an entry of a grain table"));
        }
    }
    regions
}

/// Fact sheet, VMDK 8.
fn sesparse(b: &Bytes<'_>) -> Vec<Region> {
    let part = |at: usize| b.le(at, 8) * 512..(b.le(at, 8) + b.le(at + 8, 8)) * 512;
    vec![
        (128..208, "where the header says that tables and grains are"),
        (part(128), "an entry of the grain directory"),
        (part(144), "an entry of a grain table"),
    ]
}

fn qcow2(b: &Bytes<'_>) -> Vec<Region> {
    let (entries, l1) = (b.be(36, 4), b.be(40, 8));
    let mut regions = vec![(l1..l1 + entries * 8, "an entry of the L1 table")];
    for n in 0..entries {
        let l2 = b.be(l1 + n * 8, 8) & 0x00ff_ffff_ffff_fe00;
        if l2 > 0 {
            regions.push((l2..l2 + (1 << b.be(20, 4)), "an entry of an L2 table"));
        }
    }
    regions
}

fn vhdx(b: &Bytes<'_>) -> Vec<Region> {
    const BAT: [u8; 16] = [
        0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a,
        0x08,
    ];
    let table = 192 << 10;
    let entries = (0..b.le(table + 8, 4)).map(|n| table + 16 + n * 32);
    let mut bats = entries.filter(|at| b.0.get(*at..at + 16) == Some(&BAT));
    let bat = bats.next().map(|at| {
        let start = b.le(at + 16, 8);
        (
            start..start + b.le(at + 24, 4),
            "an entry of the block allocation table",
        )
    });
    bat.into_iter().collect()
}

/// Nothing of ext2 has a checksum; but what a directory or a map says another structure often
/// says too.
fn ext2(b: &Bytes<'_>) -> Vec<Region> {
    let block = 1024usize << b.le(1024 + 24, 4);
    let per_group = b.le(1024 + 40, 4);
    let size = b.le(1024 + 88, 2);
    let groups = b.le(1024 + 4, 4).div_ceil(b.le(1024 + 32, 4).max(1));
    let descriptors = (1024 / block + 1) * block;
    let mut regions = Vec::new();
    for n in 0..groups {
        let table = b.le(descriptors + n * 32 + 8, 4) * block;
        regions.push((table..table + per_group * size, "an inode"));
        for inode in (0..per_group).map(|i| table + i * size) {
            let at = b.le(inode + 40 + 12 * 4, 4) * block;
            if at > 0 {
                regions.push((at..at + block, "a block of pointers"));
            }
        }
        // The directories that every volume has: inodes 2 and 11.
        for inode in [2, 11].into_iter().filter(|_| n == 0) {
            let inode = table + (inode - 1) * size;
            for pointer in 0..12 {
                let at = b.le(inode + 40 + pointer * 4, 4) * block;
                if at > 0 {
                    regions.push((at..at + block, "an entry of a directory"));
                }
            }
        }
    }
    regions
}

fn fat16(b: &Bytes<'_>) -> Vec<Region> {
    let sector = b.le(11, 2);
    let tables = b.le(14, 2) * sector;
    let root = tables + b.le(16, 1) * b.le(22, 2) * sector;
    let data = root + b.le(17, 2) * 32;
    let mut regions = vec![(root..data, "an entry of the root directory")];
    // Below it directories begin with themselves.
    let cluster = b.le(13, 1) * sector;
    let mut at = data;
    while let Some(first) = b.0.get(at..at + 11) {
        if first == b".          " {
            regions.push((at..at + cluster, "an entry of a directory"));
        }
        at += cluster;
    }
    regions
}

/// What a change of `len` bytes at `at` lies in.
pub fn region(regions: &[Region], at: usize, len: usize) -> Option<&'static str> {
    let touched = |(r, _): &&Region| r.start < at + len.max(1) && at < r.end;
    regions.iter().find(touched).map(|(_, what)| *what)
}
