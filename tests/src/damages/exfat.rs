//! exFAT: a volume formatted by mkfs.exfat, its files put in here; fsck.exfat finds it sound.

use super::{
    Base, Bytes, Damage, Files,
    Severity::{Damage as Lost, Note, Warning},
    Spot, on_disk,
};
use crate::tools;
use anyhow::{Context, Result};

const V: &str = "v.img";
const ONE: &str = "/p0/one.bin";
const TWO: &str = "/p0/two.bin";
const END: u32 = 0xffff_ffff;

const PLAIN: &Base = &Base {
    name: "exFAT",
    programs: &["mkfs.exfat", "fsck.exfat"],
    make,
};

fn make() -> Result<Files> {
    let dir = tempfile::tempdir()?;
    let image = dir.path().join(V);
    std::fs::File::create(&image)?.set_len(16 << 20)?;
    tools::run(
        "mkfs.exfat",
        ["-c", "4K", image.to_str().context("a name")?],
    )?;
    let mut bytes = Bytes::new(&std::fs::read(&image)?);
    ExFat(&mut bytes).fill();
    bytes.write(&image)?;
    tools::run("fsck.exfat", ["-n", image.to_str().context("a name")?])?;
    Ok(Files::one(V, bytes))
}

/// The volume's structures by their places.
struct ExFat<'a>(&'a mut Bytes);

fn sum(set: &[u8]) -> u16 {
    let kept = set.iter().enumerate().filter(|(n, _)| !matches!(n, 2 | 3));
    kept.fold(0u16, |sum, (_, b)| {
        sum.rotate_right(1).wrapping_add(u16::from(*b))
    })
}

impl ExFat<'_> {
    fn cluster(&self) -> u64 {
        1 << (self.0.u8(108) + self.0.u8(109))
    }

    fn count(&self) -> u64 {
        u64::from(self.0.u32(92))
    }

    /// Where a cluster begins.
    fn place(&self, cluster: u64) -> u64 {
        (u64::from(self.0.u32(88)) << self.0.u8(108)) + (cluster - 2) * self.cluster()
    }

    fn set_next(&mut self, cluster: u64, next: u32) {
        let table = u64::from(self.0.u32(80)) << self.0.u8(108);
        self.0.set_u32(table + 4 * cluster, next);
    }

    fn root(&self) -> u64 {
        self.place(u64::from(self.0.u32(96)))
    }

    /// Where an entry of this kind is in the root directory, the `nth` of them.
    fn entry(&self, kind: u8, nth: usize) -> u64 {
        let all = (self.root()..).step_by(32).take(100);
        all.filter(|at| self.0.u8(*at) == kind).nth(nth).unwrap()
    }

    /// The byte of the bitmap that holds a cluster's bit.
    fn bit(&self, cluster: u64) -> (u64, u8) {
        let map = self.place(u64::from(self.0.u32(self.entry(0x81, 0) + 20)));
        (map + (cluster - 2) / 8, 1 << ((cluster - 2) % 8))
    }

    fn take(&mut self, cluster: u64) {
        let (at, bit) = self.bit(cluster);
        let old = self.0.u8(at);
        assert_eq!(old & bit, 0, "cluster {cluster} is in use");
        self.0.set_u8(at, old | bit);
    }

    /// Adds a file or directory to a directory that ends at `end`.
    fn add(&mut self, end: u64, name: &str, dir: bool, first: u64, len: u64, chained: bool) {
        let units: Vec<u16> = name.encode_utf16().collect();
        let names = units.len().div_ceil(15);
        let mut set = vec![0u8; 64 + 32 * names];
        set[0] = 0x85;
        set[1] = 1 + names as u8;
        set[4] = if dir { 0x10 } else { 0x20 };
        for stamp in [8, 12, 16] {
            // The first of January 2020.
            set[stamp..stamp + 4].copy_from_slice(&(40u32 << 25 | 1 << 21 | 1 << 16).to_le_bytes());
        }
        set[32] = 0xc0;
        set[33] = if chained { 1 } else { 3 };
        set[35] = units.len() as u8;
        let upper = name.to_ascii_uppercase();
        let hash = upper.encode_utf16().flat_map(u16::to_le_bytes);
        let hash = hash.fold(0u16, |h, b| h.rotate_right(1).wrapping_add(u16::from(b)));
        set[36..38].copy_from_slice(&hash.to_le_bytes());
        set[40..48].copy_from_slice(&len.to_le_bytes());
        set[52..56].copy_from_slice(&(first as u32).to_le_bytes());
        set[56..64].copy_from_slice(&len.to_le_bytes());
        for (n, unit) in units.iter().enumerate() {
            let at = 64 + n / 15 * 32;
            set[at] = 0xc1;
            set[at + 2 + n % 15 * 2..][..2].copy_from_slice(&unit.to_le_bytes());
        }
        let sum = sum(&set).to_le_bytes();
        set[2..4].copy_from_slice(&sum);
        self.0.put(end, &set);
    }

    /// Two files, one of them in pieces, and a directory with one.
    fn fill(&mut self) {
        let end = self.entry(0, 0);
        let len = 5 * 4096 - 100;
        assert_eq!(self.cluster(), 4096);
        let first = (2..).find(|c| {
            let (at, bit) = self.bit(*c);
            self.0.u8(at) & bit == 0
        });
        // Behind the gap, so that what follows it is free.
        let first = first.unwrap() + 10;
        let one: Vec<u64> = (first..first + 5).collect();
        let two: Vec<u64> = [6, 8, 7, 12, 13].iter().map(|n| first + n).collect();
        for (clusters, byte) in [(&one, 1), (&two, 2)] {
            for cluster in clusters {
                self.take(*cluster);
                self.0.fill(self.place(*cluster), 4096, byte);
            }
        }
        for pair in two.windows(2) {
            self.set_next(pair[0], pair[1] as u32);
        }
        self.set_next(two[4], END);
        let (sub, last) = (first + 20, first + 21);
        self.take(sub);
        self.take(last);
        self.0.fill(self.place(last), 4096, 3);
        self.add(end, "one.bin", false, one[0], len, false);
        self.add(end + 96, "two.bin", false, two[0], len, true);
        self.add(end + 192, "sub", true, sub, 4096, false);
        let inside = self.place(sub);
        self.add(inside, "last.bin", false, last, 3000, false);
    }

    /// The entry set of a file in the root directory, changed, its sum made right again.
    fn change(&mut self, nth: usize, what: impl Fn(&mut Bytes, u64)) {
        let at = self.entry(0x85, nth);
        what(self.0, at);
        let len = 32 * (usize::from(self.0.u8(at + 1)) + 1);
        let sum = sum(&self.0.get(at, len));
        self.0.set_u16(at + 2, sum);
    }

    fn first(&self, nth: usize) -> u64 {
        u64::from(self.0.u32(self.entry(0x85, nth) + 52))
    }
}

fn volume(f: &mut Files) -> ExFat<'_> {
    ExFat(f.of(V))
}

/// What follows the second cluster of the file in pieces.
fn second(f: &mut Files, next: impl Fn(&ExFat<'_>) -> u32) -> Spot {
    let mut v = volume(f);
    let next = next(&v);
    let cluster = v.first(1) + 2;
    v.set_next(cluster, next);
    Spot::default()
}

pub(super) const DAMAGES: &[Damage] = &[
    Damage::new(
        PLAIN,
        "a byte of the boot region",
        (Warning, "exfat-boot-copy-differs"),
        &[],
        |f| {
            volume(f).0.flip(200, 1);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a byte of the boot region's backup",
        (Warning, "exfat-boot-copy-differs"),
        &[],
        |f| {
            volume(f).0.flip(12 * 512 + 200, 1);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a byte of a file's entry set",
        (Lost, "exfat-entry-damaged"),
        &[ONE],
        |f| {
            let v = volume(f);
            let at = v.entry(0x85, 0);
            v.0.flip(at + 53, 4);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "more bytes that are valid than the file has",
        (Lost, "exfat-entry-damaged"),
        &[ONE],
        |f| {
            volume(f).change(0, |b, at| b.set_u64(at + 40, 1 << 40));
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a name longer than its entries",
        (Lost, "exfat-entry-damaged"),
        &["/p0/one.bin\u{f000}\u{f000}\u{f000}\u{f000}\u{f000}\u{f000}\u{f000}\u{f000}"],
        |f| {
            volume(f).change(0, |b, at| b.set_u8(at + 35, 40));
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a letter of a name, under a right sum",
        (Warning, "exfat-name-hash-wrong"),
        &["/p0/xne.bin"],
        |f| {
            volume(f).change(0, |b, at| b.set_u8(at + 66, b'x'));
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a set without its stream entry",
        (Lost, "exfat-directory-damaged"),
        &["/p0"],
        |f| {
            let v = volume(f);
            let at = v.entry(0x85, 0);
            v.0.set_u8(at + 32, 0xc1);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a file's cluster that the bitmap calls free",
        (Warning, "exfat-bitmap-free"),
        &[ONE],
        |f| {
            let v = volume(f);
            let cluster = v.first(0) + 2;
            let (at, bit) = v.bit(cluster);
            v.0.flip(at, bit);
            on_disk(v.place(cluster))
        },
    ),
    Damage::new(
        PLAIN,
        "two files in the same clusters",
        (Lost, "exfat-clusters-shared"),
        &[ONE, TWO],
        |f| {
            let mut v = volume(f);
            let place = v.place(v.first(1));
            let other = v.first(1) as u32;
            // One cluster of it, so that all of it is the other's.
            v.change(0, |b, at| {
                b.set_u32(at + 52, other);
                b.set_u64(at + 40, 100);
                b.set_u64(at + 56, 100);
            });
            on_disk(place)
        },
    ),
    Damage::new(
        PLAIN,
        "an empty file that says to have a cluster",
        (Note, "exfat-chain-odd"),
        &[],
        |f| {
            let mut v = volume(f);
            v.change(0, |b, at| {
                b.set_u64(at + 40, 0);
                b.set_u64(at + 56, 0);
            });
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a cluster in use that no file has",
        (Note, "exfat-clusters-lost"),
        &[],
        |f| {
            let mut v = volume(f);
            let cluster = v.first(0) + 5;
            v.take(cluster);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a chain that ends too early",
        (Lost, "exfat-chain-broken"),
        &[TWO],
        |f| second(f, |_| END),
    ),
    Damage::new(
        PLAIN,
        "a free cluster in a chain",
        (Lost, "exfat-chain-broken"),
        &[TWO],
        |f| second(f, |_| 0),
    ),
    Damage::new(
        PLAIN,
        "a bad cluster in a chain",
        (Lost, "exfat-chain-broken"),
        &[TWO],
        |f| second(f, |_| 0xffff_fff7),
    ),
    Damage::new(
        PLAIN,
        "a chain that leaves the volume",
        (Lost, "exfat-chain-broken"),
        &[TWO],
        |f| second(f, |v| v.count() as u32 + 2),
    ),
    Damage::new(
        PLAIN,
        "a chain that comes back to itself",
        (Lost, "exfat-chain-broken"),
        &[TWO],
        |f| second(f, |v| v.first(1) as u32),
    ),
    Damage::new(
        PLAIN,
        "clusters in a row that leave the volume",
        (Lost, "exfat-chain-broken"),
        &[ONE],
        |f| {
            let mut v = volume(f);
            let last = v.count() as u32;
            v.change(0, |b, at| b.set_u32(at + 52, last));
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a byte of the up-case table",
        (Warning, "exfat-upcase-damaged"),
        &[],
        |f| {
            let v = volume(f);
            let table = v.place(u64::from(v.0.u32(v.entry(0x82, 0) + 20)));
            v.0.flip(table + 700, 1);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a bitmap that is too short",
        (Warning, "exfat-bitmap-damaged"),
        &[],
        |f| {
            let v = volume(f);
            let at = v.entry(0x81, 0);
            v.0.set_u64(at + 24, 5);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a directory outside the volume",
        (Lost, "exfat-directory-damaged"),
        &["/p0/sub"],
        |f| {
            let mut v = volume(f);
            let last = v.count() as u32 + 9;
            v.change(2, |b, at| b.set_u32(at + 52, last));
            Spot::default()
        },
    )
    .with(&["exfat-chain-broken"]),
];
