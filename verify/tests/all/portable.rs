//! Damage in the portable formats.

use crate::{Bench, found, guest, sound};
use disk_image::{
    Format,
    write::{Compress, WriteOptions, Writer},
};
use disk_io::Severity::{Damage, Note, Warning};
use std::fs::File;

const BIG: &str = "/p0/BIG.BIN";

fn image(options: WriteOptions) -> (Bench, usize) {
    let (disk, big) = guest::disk();
    let bench = Bench::new();
    let path = bench.path("d");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let writer = Writer::create(&file, &path, disk.len() as u64, &options).unwrap();
    let cluster = writer.cluster().unwrap_or(65_536) as usize;
    for (n, part) in disk.chunks(cluster).enumerate() {
        if part.iter().any(|b| *b != 0) {
            writer.write_at(part, (n * cluster) as u64).unwrap();
        }
    }
    writer.finish().unwrap();
    sound(&bench.check("d"), "before");
    (bench, big + (2 << 20))
}

fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(b[at..at + 4].try_into().unwrap())
}

fn be64(b: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(b[at..at + 8].try_into().unwrap())
}

fn le32(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

fn put(b: &mut [u8], at: usize, bytes: &[u8]) {
    b[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Where the L2 entry of an offset is.
fn l2(b: &[u8], at: usize) -> usize {
    let l1 = be64(b, 40) as usize;
    let table = (be64(b, l1 + at / (512 << 20) * 8) & 0x00ff_ffff_ffff_fe00) as usize;
    table + at / 65_536 * 8
}

#[test]
fn qcow2() {
    let plain = || image(WriteOptions::new(Format::Qcow2));
    type Change = fn(&mut Vec<u8>, usize);
    let on_files: [(&str, &str, Change); 3] = [
        ("outside", "block-outside-file", |b, e| {
            put(b, e, &(1 << 63 | 0x7f_ffff_0000u64).to_be_bytes());
        }),
        ("shared", "place-shared", |b, e| {
            let next = b[e + 8..e + 16].to_vec();
            put(b, e, &next);
        }),
        ("reserved", "range-unreadable", |b, e| b[e] |= 0x20),
    ];
    for (what, code, change) in on_files {
        let (bench, at) = plain();
        bench.change("d", |b| {
            let e = l2(b, at);
            change(b, e);
        });
        let files = found(&bench.check("d"), what, code, Damage);
        assert_eq!(files, [BIG], "{what}");
    }
    let refcount = |b: &[u8], cluster: u64| {
        let block = be64(b, be64(b, 48) as usize) as usize;
        block + cluster as usize * 2
    };
    let (bench, at) = plain();
    bench.change("d", |b| {
        let cluster = (be64(b, l2(b, at)) & 0x00ff_ffff_ffff_fe00) / 65_536;
        let at = refcount(b, cluster);
        put(b, at, &[0, 0]);
    });
    found(&bench.check("d"), "low", "refcount-too-low", Warning);

    let (bench, _) = plain();
    bench.change("d", |b| {
        let cluster = b.len() as u64 / 65_536;
        b.resize((cluster as usize + 1) * 65_536, 0);
        let at = refcount(b, cluster);
        put(b, at, &[0, 1]);
    });
    let report = bench.check("d");
    found(&report, "leak", "space-unreferenced", Note);
    sound(&report, "a leak loses no data");

    let (bench, _) = plain();
    bench.change("d", |b| {
        // The first entry of the first L2 table: its flag is looked at.
        let first = l2(b, 0);
        b[first] &= 0x7f;
    });
    found(&bench.check("d"), "copied", "copied-flag-wrong", Warning);

    for (bit, code) in [(1, "unclean-shutdown"), (2, "marked-corrupt")] {
        let (bench, _) = plain();
        bench.change("d", |b| b[79] |= bit);
        found(&bench.check("d"), code, code, Warning);
    }

    let (bench, _) = plain();
    bench.change("d", |b| put(b, 40, &(0x7f_ffff_0000u64).to_be_bytes()));
    found(&bench.check("d"), "l1", "image-unusable", Damage);

    let packed = WriteOptions {
        compress: Some(Compress::Zlib(1)),
        ..WriteOptions::new(Format::Qcow2)
    };
    let (bench, at) = image(packed);
    bench.change("d", |b| {
        let entry = be64(b, l2(b, at));
        assert!(entry & 1 << 62 != 0);
        let place = (entry & ((1 << 54) - 1)) as usize;
        b[place + 30] ^= 0x55;
    });
    let files = found(&bench.check("d"), "inflate", "unit-not-decoded", Damage);
    assert_eq!(files, [BIG]);
}

#[test]
fn vhd() {
    let dynamic = || image(WriteOptions::new(Format::Vhd));
    let (bench, at) = dynamic();
    bench.change("d", |b| {
        let (bat, block) = (be64(b, 512 + 16) as usize, be32(b, 512 + 32) as usize);
        let e = bat + at / block * 4;
        put(b, e, &0x00ff_ffffu32.to_be_bytes());
    });
    let report = bench.check("d");
    found(&report, "outside", "block-outside-file", Damage);

    let (bench, at) = dynamic();
    bench.change("d", |b| {
        let (bat, block) = (be64(b, 512 + 16) as usize, be32(b, 512 + 32) as usize);
        let e = bat + at / block * 4;
        let other = b[e - 4..e].to_vec();
        put(b, e, &other);
    });
    let files = found(&bench.check("d"), "shared", "place-shared", Damage);
    assert!(files.contains(&BIG.to_owned()));

    for (what, from_end, code) in [
        ("footer", true, "footer-damaged"),
        ("copy", false, "footer-copy-damaged"),
    ] {
        let (bench, _) = dynamic();
        bench.change("d", |b| {
            let at = if from_end { b.len() - 512 + 70 } else { 70 };
            b[at] ^= 1;
        });
        found(&bench.check("d"), what, code, Warning);
    }
    let (bench, _) = dynamic();
    bench.change("d", |b| {
        // Another id, with its checksum right.
        let old = b[68];
        b[68] = old ^ 1;
        // The checksum is the complement of a sum of bytes; ids are random.
        let sum = match old & 1 {
            0 => be32(b, 64).wrapping_sub(1),
            _ => be32(b, 64).wrapping_add(1),
        };
        put(b, 64, &sum.to_be_bytes());
    });
    found(&bench.check("d"), "copy", "footer-copy-differs", Warning);

    let (bench, _) = dynamic();
    bench.change("d", |b| b[512 + 100] ^= 1);
    found(&bench.check("d"), "header", "image-unusable", Damage);
}

#[test]
fn vhdx() {
    let dynamic = || image(WriteOptions::new(Format::Vhdx));
    let (bench, _) = dynamic();
    bench.change("d", |b| b[(64 << 10) + 100] ^= 1);
    found(&bench.check("d"), "header", "header-damaged", Warning);

    let (bench, _) = dynamic();
    bench.change("d", |b| b[(192 << 10) + 100] ^= 1);
    found(
        &bench.check("d"),
        "regions",
        "region-table-damaged",
        Warning,
    );

    let (bench, _) = dynamic();
    bench.change("d", |b| {
        for at in [64 << 10, 128 << 10] {
            b[at + 100] ^= 1;
        }
    });
    found(&bench.check("d"), "headers", "image-unusable", Damage);
}

#[test]
fn vdi() {
    let dynamic = || image(WriteOptions::new(Format::Vdi));
    let entry = |b: &[u8], at: usize| le32(b, 340) as usize + at / (1 << 20) * 4;
    let (bench, at) = dynamic();
    bench.change("d", |b| {
        let e = entry(b, at);
        put(b, e, &0x00ff_ffffu32.to_le_bytes());
    });
    let files = found(&bench.check("d"), "outside", "block-outside-file", Damage);
    assert_eq!(files, [BIG]);

    let (bench, at) = dynamic();
    bench.change("d", |b| {
        let e = entry(b, at);
        let next = b[e + 4..e + 8].to_vec();
        put(b, e, &next);
    });
    let files = found(&bench.check("d"), "shared", "place-shared", Damage);
    assert!(files.contains(&BIG.to_owned()));

    let (bench, _) = dynamic();
    bench.change("d", |b| b[388] ^= 1);
    found(&bench.check("d"), "count", "block-count-differs", Warning);
}
