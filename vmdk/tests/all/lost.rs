//! Grains of a stream that its tables have lost: named, never zeros, and only they.

use crate::common::MemDir;
use disk_io::{Disk, ErrorKind};
use std::collections::BTreeSet;
use vmdk::write::{
    Cell,
    descriptor::{Text, extent},
    stream::{self, Layout},
};

const GRAIN: u64 = 65_536;
/// Eight tables, the last of them cut.
const SECTORS: u64 = (7 * 512 + 100) * 128;

fn contents(grain: u64) -> Vec<u8> {
    let mut seed = grain * 77 + 1;
    let noise = (0..3000).map(|_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 56) as u8
    });
    let mut bytes: Vec<u8> = noise.collect();
    bytes.resize(GRAIN as usize, grain as u8 | 1);
    bytes
}

struct Stream(Vec<u8>);

impl Stream {
    fn new(layout: Layout, grains: &[u64]) -> Self {
        let descriptor = Text {
            cid: 7,
            parent: None,
            create_type: "streamOptimized",
            extents: vec![extent(SECTORS, "SPARSE", "d.vmdk")],
        };
        let options = stream::Options {
            layout,
            version: 3,
            grain_size: 128,
            descriptor: descriptor.encode(),
            pad_last: false,
            level: 1,
        };
        let cells: Vec<_> = grains
            .iter()
            .map(|g| (*g, Cell::Data(contents(*g))))
            .collect();
        Self(stream::encode(&options, SECTORS, &cells))
    }

    fn u32(&self, at: usize) -> usize {
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap()) as usize
    }

    /// Where the directory has the place of a table.
    fn directory(&self, table: u64) -> usize {
        let header = match self.0[56..64] == [0xff; 8] {
            true => self.0.len() - 1024,
            false => 0,
        };
        self.u32(header + 56) * 512 + table as usize * 4
    }

    fn lose(&mut self, grain: u64) {
        let table = self.u32(self.directory(grain / 512)) * 512;
        let at = table + (grain % 512) as usize * 4;
        assert_ne!(self.u32(at), 0);
        self.0[at..at + 4].fill(0);
    }

    /// Reads every grain by itself, in an order.
    fn check(self, all: &[u64], lost: &[u64], order: &[u64]) {
        let mut dir = MemDir::default();
        dir.put("d.vmdk", self.0);
        let disk = dir.image("d.vmdk").unwrap().disk();
        let (all, lost): (BTreeSet<_>, BTreeSet<_>) = (all.iter().collect(), lost.iter().collect());
        for grain in order {
            let mut buf = vec![0xa5; GRAIN as usize];
            let read = disk.read_exact_at(&mut buf, grain * GRAIN);
            if lost.contains(grain) {
                let e = read.unwrap_err();
                assert_eq!(e.kind(), ErrorKind::Corrupt, "{grain}: {e}");
                assert_eq!(e.code_text(), Some("grain-unreferenced"), "{grain}: {e}");
                continue;
            }
            read.unwrap();
            let right = match all.contains(grain) {
                true => contents(*grain),
                false => vec![0; GRAIN as usize],
            };
            assert!(buf == right, "grain {grain}");
        }
    }
}

const GRAINS: &[u64] = &[
    3, 4, 5, 9, 10, 300, 511, 512, 513, 1023, 1030, 1031, 2600, 2601, 2602, 3583, 3584, 3600, 3683,
];

fn forward() -> Vec<u64> {
    (0..SECTORS / 128).collect()
}

#[test]
fn every_lost_grain_is_named_and_nothing_else() {
    let cases: &[&[u64]] = &[
        &[],
        &[3],
        &[4],
        &[5],
        &[3, 4, 5],
        &[10, 300],
        &[511],
        &[512],
        &[511, 512],
        &[1030],
        &[2600],
        &[2602],
        &[3584],
        &[3683],
        &[3600, 3683],
        &[300, 511, 512, 513, 1023, 1030, 1031],
        // All but the last, all but the first, all.
        &GRAINS[..18],
        &GRAINS[1..],
        GRAINS,
    ];
    for layout in [Layout::Footer, Layout::Header] {
        for lost in cases {
            for backward in [false, true] {
                let mut stream = Stream::new(layout, GRAINS);
                lost.iter().for_each(|grain| stream.lose(*grain));
                let mut order = forward();
                if backward {
                    order.reverse();
                }
                stream.check(GRAINS, lost, &order);
            }
        }
    }
}

#[test]
fn a_lost_table_is_grains_that_are_lost() {
    for layout in [Layout::Footer, Layout::Header] {
        for table in [0, 1, 2, 5, 7] {
            let mut stream = Stream::new(layout, GRAINS);
            let lost: Vec<u64> = GRAINS
                .iter()
                .copied()
                .filter(|g| g / 512 == table)
                .collect();
            let at = stream.directory(table);
            stream.0[at..at + 4].fill(0);
            stream.check(GRAINS, &lost, &forward());
        }
    }
}

/// What parallel writers leave, and grains that were written twice.
#[test]
fn streams_in_another_order_are_not_blamed() {
    let mut mixed: Vec<u64> = GRAINS.to_vec();
    for round in 0..20 {
        let (a, b) = (round * 7 % mixed.len(), round * 11 % mixed.len());
        mixed.swap(a, b);
        Stream::new(Layout::Header, &mixed).check(GRAINS, &[], &forward());
    }
    mixed.reverse();
    Stream::new(Layout::Header, &mixed).check(GRAINS, &[], &forward());
    let mut twice = GRAINS.to_vec();
    twice.splice(4..4, [3, 9, 4]);
    Stream::new(Layout::Header, &twice).check(GRAINS, &[], &forward());
}
