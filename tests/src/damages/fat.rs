//! FAT: volumes made by mkfs.fat and mtools.

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

fn make(kind: &str, len: u64) -> Result<Files> {
    let dir = tempfile::tempdir()?;
    let (image, from) = (dir.path().join(V), dir.path().join("file"));
    std::fs::File::create(&image)?.set_len(len)?;
    let [image, from] = [image, from].map(|p| p.to_str().map(str::to_owned));
    let (image, from) = (image.context("a name")?, from.context("a name")?);
    tools::run("mkfs.fat", ["-F", kind, &image])?;
    tools::run("mmd", ["-i", &image, "::sub"])?;
    for (name, byte, len) in [
        ("::one.bin", 1, 50_000),
        ("::two.bin", 2, 50_000),
        ("::sub/last.bin", 3, 9_000),
    ] {
        std::fs::write(&from, vec![byte; len])?;
        tools::run("mcopy", ["-i", &image, &from, name])?;
    }
    Ok(Files::one(V, Bytes::new(&std::fs::read(&image)?)))
}

const PROGRAMS: &[&str] = &["mkfs.fat", "mmd", "mcopy"];
const FAT32: &Base = &Base {
    name: "FAT32",
    programs: PROGRAMS,
    make: || make("32", 40 << 20),
};
const FAT16: &Base = &Base {
    name: "FAT16",
    programs: PROGRAMS,
    make: || make("16", 20 << 20),
};
const FAT12: &Base = &Base {
    name: "FAT12",
    programs: PROGRAMS,
    make: || make("12", 1440 << 10),
};

/// The volume's structures by their places.
struct Fat<'a> {
    b: &'a mut Bytes,
    bits: u64,
}

impl Fat<'_> {
    fn table(&self, copy: u64) -> u64 {
        512 * (u64::from(self.b.u16(14)) + copy * self.table_len())
    }

    fn table_len(&self) -> u64 {
        match self.b.u16(22) {
            0 => u64::from(self.b.u32(36)),
            n => u64::from(n),
        }
    }

    fn clusters(&self) -> u64 {
        let sectors = match self.b.u16(19) {
            0 => u64::from(self.b.u32(32)),
            n => u64::from(n),
        };
        (sectors - self.data() / 512) / u64::from(self.b.u8(13))
    }

    /// Where cluster 2 begins.
    fn data(&self) -> u64 {
        self.table(2) + 32 * u64::from(self.b.u16(17))
    }

    /// Where a cluster begins.
    fn place(&self, cluster: u64) -> u64 {
        self.data() + (cluster - 2) * 512 * u64::from(self.b.u8(13))
    }

    /// Where the entry of a short name is.
    fn entry(&self, name: &[u8; 11]) -> u64 {
        self.b.find_by(name, self.table(2), 32).unwrap()
    }

    fn first(&self, name: &[u8; 11]) -> u64 {
        let at = self.entry(name);
        u64::from(self.b.u16(at + 26)) | u64::from(self.b.u16(at + 20)) << 16
    }

    /// What follows a cluster, in every copy of the table.
    fn set(&mut self, cluster: u64, next: u32) {
        for copy in 0..2 {
            self.set_in(copy, cluster, next);
        }
    }

    fn set_in(&mut self, copy: u64, cluster: u64, next: u32) {
        let table = self.table(copy);
        match self.bits {
            32 => self.b.set_u32(table + 4 * cluster, next & 0x0fff_ffff),
            16 => self.b.set_u16(table + 2 * cluster, next as u16),
            _ => {
                let at = table + cluster * 3 / 2;
                let (old, next) = (self.b.u16(at), next as u16 & 0xfff);
                let new = match cluster % 2 {
                    0 => old & 0xf000 | next,
                    _ => old & 0xf | next << 4,
                };
                self.b.set_u16(at, new);
            }
        }
    }
}

const N1: &[u8; 11] = b"ONE     BIN";
const N2: &[u8; 11] = b"TWO     BIN";
const NSUB: &[u8; 11] = b"SUB        ";

fn fat(f: &mut Files, bits: u64) -> Fat<'_> {
    Fat { b: f.of(V), bits }
}

fn share(f: &mut Files, bits: u64) -> Spot {
    let v = fat(f, bits);
    let (first, at) = (v.first(N1), v.entry(N2));
    v.b.set_u16(at + 26, first as u16);
    on_disk(v.place(first))
}

/// What follows the fourth cluster of the first file.
fn fourth(f: &mut Files, bits: u64, next: impl Fn(&Fat<'_>) -> u32) -> Spot {
    let mut v = fat(f, bits);
    let (cluster, next) = (v.first(N1) + 3, next(&v));
    v.set(cluster, next);
    Spot::default()
}

macro_rules! of_each {
    ($base:ident, $bits:literal) => {
        [
            Damage::new(
                $base,
                "two files in the same clusters",
                (Lost, "fat-clusters-shared"),
                &[ONE, TWO],
                |f| share(f, $bits),
            ),
            Damage::new(
                $base,
                "a free cluster in a chain",
                (Lost, "fat-chain-broken"),
                &[ONE],
                |f| fourth(f, $bits, |_| 0),
            ),
            Damage::new(
                $base,
                "a chain that ends too early",
                (Lost, "fat-chain-broken"),
                &[ONE],
                |f| fourth(f, $bits, |_| 0x0fff_ffff),
            ),
            Damage::new(
                $base,
                "a bad cluster in a chain",
                (Lost, "fat-chain-broken"),
                &[ONE],
                |f| fourth(f, $bits, |_| 0x0fff_fff7),
            ),
            Damage::new(
                $base,
                "a chain that leaves the volume",
                (Lost, "fat-chain-broken"),
                &[ONE],
                |f| fourth(f, $bits, |v| v.clusters() as u32 + 2),
            ),
            Damage::new(
                $base,
                "a chain that comes back to itself",
                (Lost, "fat-chain-broken"),
                &[ONE],
                |f| fourth(f, $bits, |v| v.first(N1) as u32 + 1),
            ),
            Damage::new(
                $base,
                "a file whose first cluster is none",
                (Lost, "fat-chain-broken"),
                &[TWO],
                |f| {
                    let v = fat(f, $bits);
                    let at = v.entry(N2);
                    v.b.set_u16(at + 26, 1);
                    v.b.set_u16(at + 20, 0);
                    Spot::default()
                },
            ),
            Damage::new(
                $base,
                "a size that is less than the chain",
                (Warning, "fat-chain-odd"),
                &[TWO],
                |f| {
                    let v = fat(f, $bits);
                    let at = v.entry(N2);
                    v.b.set_u32(at + 28, 3);
                    Spot::default()
                },
            ),
            Damage::new(
                $base,
                "a size that is more than the chain",
                (Lost, "fat-chain-broken"),
                &[TWO],
                |f| {
                    let v = fat(f, $bits);
                    let at = v.entry(N2);
                    v.b.set_u32(at + 28, 500_000);
                    Spot::default()
                },
            ),
            Damage::new(
                $base,
                "the copies of the table differ",
                (Warning, "fat-copies-differ"),
                &[ONE],
                |f| {
                    let mut v = fat(f, $bits);
                    let cluster = v.first(N1) + 3;
                    v.set_in(1, cluster, 0);
                    on_disk(v.place(cluster))
                },
            ),
            Damage::new(
                $base,
                "a cluster in use that no file has",
                (Note, "fat-clusters-lost"),
                &[],
                |f| {
                    let mut v = fat(f, $bits);
                    let cluster = v.clusters() - 3;
                    v.set(cluster, 0x0fff_ffff);
                    Spot::default()
                },
            ),
            Damage::new(
                $base,
                "a directory whose first cluster is none",
                (Lost, "fat-directory-damaged"),
                &["/p0/sub"],
                |f| {
                    let v = fat(f, $bits);
                    let at = v.entry(NSUB);
                    v.b.set_u16(at + 26, 0xffff);
                    v.b.set_u16(at + 20, 0x0fff);
                    Spot::default()
                },
            )
            .with(&["fat-chain-broken"]),
        ]
    };
}

const EACH: [[Damage; 12]; 3] = [
    of_each!(FAT32, 32),
    of_each!(FAT16, 16),
    of_each!(FAT12, 12),
];

/// Of every width of the table.
pub(super) const DAMAGES: [&[Damage]; 3] = [&EACH[0], &EACH[1], &EACH[2]];

pub(super) const OF_FAT32: &[Damage] = &[
    Damage::new(
        FAT32,
        "the boot sector and its backup differ",
        (Warning, "fat-boot-copy-differs"),
        &[],
        |f| {
            let v = fat(f, 32);
            v.b.flip(6 * 512 + 36, 1);
            Spot::default()
        },
    ),
    Damage::new(
        FAT32,
        "the boot sector is damaged; its backup is sound",
        (Warning, "fat-boot-copy-differs"),
        &[],
        |f| {
            let v = fat(f, 32);
            v.b.fill(0, 100, 0);
            Spot::default()
        },
    ),
];
