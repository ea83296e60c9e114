//! Volumes as large as they get: what opening them reads, and where their holes lie.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

mod support;

use disk_io::{Disk, MemDisk, SparseMemDisk, faults::Counting};
use std::{io::BufRead, sync::Arc};
use support::*;
use vmfs_reader::{
    Datastores, Place,
    build::{Builder, FileSpec, Provision},
    lvm,
};

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => b - b'0',
        _ => b - b'a' + 10,
    };
    hex.as_bytes()
        .chunks(2)
        .map(|p| digit(p[0]) << 4 | digit(p[1]))
        .collect()
}

/// The recorded metadata of a 64 TiB device of LVM 5, with its holes of 16 MiB and its
/// extended headers.
#[test]
fn a_recorded_device_of_64_tib() {
    let Some((base, _)) = images() else { return };
    let file = std::fs::File::open(image(&base, "lvm5.csv")).unwrap();
    let mut disk = SparseMemDisk::new(0);
    let mut data = Vec::new();
    for line in std::io::BufReader::new(file).lines() {
        let line = line.unwrap();
        let (offset, hex) = line.trim_end().split_once(',').unwrap();
        let (offset, bytes) = (offset.parse::<u64>().unwrap(), bytes_of(hex));
        if bytes.len() == 8192 {
            data.push((offset, bytes.clone()));
        }
        disk.put(offset, &bytes);
    }
    let size = 0x3fff_ffe0_0200;
    disk.put(size - 512, &[0; 512]);
    let counting = Arc::new(Counting::new(Arc::new(disk)));
    let device = lvm::Device::open(counting.clone(), 0).unwrap().unwrap();
    let sets = lvm::group(vec![device]);
    let volume = sets[0].assemble(false).unwrap();
    assert_eq!(volume.warnings(), &[] as &[String]);
    let opened = counting.so_far().1;
    assert!(opened < MIB, "opening read {opened}");
    // The contents say at which logical offset they are.
    for (i, (physical, bytes)) in data.iter().enumerate() {
        let logical = i as u64 * 16 * TIB;
        let (_, at, len) = volume.place(logical).unwrap();
        assert_eq!(at, *physical);
        assert!(len >= lvm::UNIT);
        let mut buf = vec![0; bytes.len()];
        volume.read_exact_at(&mut buf, logical).unwrap();
        assert!(buf == *bytes, "at {logical}");
        let text = String::from_utf8_lossy(&buf[..40]).into_owned();
        assert!(text.starts_with("Logical offset 0"), "{text}");
        if i > 0 {
            // Just before, on the other side of the hole.
            let (_, before, _) = volume.place(logical - 1).unwrap();
            assert_eq!(before + 1 + 16 * MIB, at);
        }
    }
    // Everywhere: where the arithmetic says that it is.
    let mut at = 0;
    while at < volume.len() {
        let (_, physical, _) = volume.place(at).unwrap();
        assert_eq!(physical, at + 17 * MIB + at / (16 * TIB) * 16 * MIB, "{at}");
        at += 16 * 1024 * MIB;
    }
    let last = volume.len() - 1;
    let (_, physical, len) = volume.place(last).unwrap();
    assert_eq!((physical, len), (last + 17 * MIB + 3 * 16 * MIB, 1));
}

/// 64 TiB in five devices, with a file of nearly as much.
#[test]
fn opening_64_tib_reads_little() {
    for six in [false, true] {
        let b = if six {
            Builder::six("huge")
        } else {
            Builder::five("huge")
        };
        // 262,144 units in all.
        let mut b = b.devices(&[52_428, 52_429, 52_429, 52_429, 52_429]);
        let len = 62 * TIB;
        let mut contents = SparseMemDisk::new(len);
        for i in 0..62 {
            contents.put(i * TIB + i * 5 * MIB, format!("terabyte {i}").as_bytes());
        }
        let contents: Arc<dyn Disk> = Arc::new(contents);
        let thin = FileSpec {
            provision: Provision::Thin,
            gap: 1,
            ..FileSpec::default()
        };
        b.file("vm/huge-flat.vmdk", contents.clone(), thin);
        b.file(
            "vm/far",
            Arc::new(MemDisk::new(vec![7; MIB as usize])),
            FileSpec {
                provision: Provision::Thick,
                ..FileSpec::default()
            },
        );
        let counters: Vec<Arc<Counting>> = b
            .disks()
            .into_iter()
            .map(|d| Arc::new(Counting::new(d)))
            .collect();
        let mut disks: Vec<Arc<dyn Disk>> = counters
            .iter()
            .map(|c| c.clone() as Arc<dyn Disk>)
            .collect();
        disks.swap(0, 3);
        let volume = open(&disks);
        let read = || counters.iter().map(|c| c.so_far().1).sum::<u64>();
        assert!(read() < MIB, "opening read {}", read());
        let stores = Datastores::one(volume.clone());
        let found = stores.resolve(0, b"vm/huge-flat.vmdk").unwrap();
        let file = volume.open_file(found.address).unwrap();
        assert!(read() < 2 * MIB, "finding read {}", read());
        assert_eq!(data_runs(&file).len(), 62);
        for i in 0..62 {
            let mut text = vec![0; 11];
            file.read_exact_at(&mut text, i * TIB + i * 5 * MIB)
                .unwrap();
            assert!(text.starts_with(format!("terabyte {i}").as_bytes()));
        }
        assert!(read() < 16 * MIB, "walking read {}", read());
        volume.heartbeats().unwrap();
        assert!(read() < 16 * MIB, "all read {}", read());
        assert!(matches!(file.extent_at(0).unwrap().place, Place::Stored(_)));
    }
}

/// LVM 6 says where its holes of 16 MiB are in few long entries (fact sheet, VMFS 1.4).
#[test]
fn long_entries() {
    let mut b = Builder::six("long").devices(&[4]);
    b.bytes("a", b"b");
    let disk = b.disks().remove(0);
    let mut entries = Vec::new();
    for (i, (physical, logical, len)) in [
        (0x110_0000, 0, 16 * TIB),
        (16 * TIB + 0x210_0000, 16 * TIB, 16 * TIB),
        (32 * TIB + 0x310_0000, 32 * TIB, TIB),
    ]
    .into_iter()
    .enumerate()
    {
        let mut e = vec![0; 128];
        e[0] = 1;
        e[1] = i as u8;
        e[9..17].copy_from_slice(&u64::to_le_bytes(physical));
        e[0x11..0x19].copy_from_slice(&u64::to_le_bytes(logical));
        e[0x19..0x21].copy_from_slice(&u64::to_le_bytes(len));
        entries.extend(e);
    }
    let size = 33 * TIB;
    #[derive(Debug)]
    struct Longer(Arc<dyn Disk>, u64);
    impl Disk for Longer {
        fn len(&self) -> u64 {
            self.1
        }
        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> disk_io::Result<()> {
            if offset >= self.0.len() {
                buf.fill((offset >> 40) as u8);
                return Ok(());
            }
            self.0.read_exact_at(buf, offset)
        }
        fn run_at(&self, offset: u64) -> disk_io::Result<disk_io::Run> {
            Ok(disk_io::Run {
                len: self.1 - offset,
                kind: disk_io::RunKind::Data,
            })
        }
    }
    let disk = patch(&disk, 0x18_2000, &entries);
    let disk = patch(&disk, 0x10_006A, &[3, 0, 0, 0, 2]);
    let disk = patch(&disk, 0x10_1000, &size.to_le_bytes());
    let disk: Arc<dyn Disk> = Arc::new(Longer(disk, size + 64 * MIB));
    let volume = open(&[disk]);
    assert_eq!(volume.size(), size);
    assert_eq!(volume.warnings(), &[] as &[String]);
    let lvm = volume.lvm().unwrap();
    for (logical, physical) in [
        (16 * TIB - 1, 16 * TIB - 1 + 17 * MIB),
        (16 * TIB, 16 * TIB + 33 * MIB),
        (33 * TIB - 1, 33 * TIB - 1 + 49 * MIB),
    ] {
        assert_eq!(lvm.place(logical).unwrap().1, physical);
    }
    // A read over the hole is split.
    let mut buf = [0; 1024];
    volume
        .disk()
        .read_exact_at(&mut buf, 16 * TIB - 512)
        .unwrap();
    assert!(buf[..512].iter().all(|b| *b == 16) && buf[512..].iter().all(|b| *b == 16));
}
