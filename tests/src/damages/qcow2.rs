//! qcow2.

use super::{
    Base, Bytes, Damage, Files,
    Severity::{Damage as Lost, Note, Warning},
    Spot, at, file,
    guest::{BIG, LEN, guest},
};
use anyhow::Result;
use disk_image::{
    Format,
    write::{Compress, WriteOptions, Writer},
};

const D: &str = "d";
const PLACE: u64 = 0x00ff_ffff_ffff_fe00;

/// The disk as an image of a portable format.
pub(super) fn image(options: WriteOptions) -> Result<Files> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join(D);
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    let writer = Writer::create(&file, &path, LEN, &options)?;
    let cluster = writer.cluster().unwrap_or(65_536) as usize;
    for (n, part) in guest().bytes.chunks(cluster).enumerate() {
        if part.iter().any(|b| *b != 0) {
            writer.write_at(part, (n * cluster) as u64)?;
        }
    }
    writer.finish()?;
    let bytes = std::fs::read(&path)?;
    Ok(Files::one(D, Bytes::new(&bytes)))
}

const PLAIN: &Base = &Base {
    name: "qcow2",
    programs: &[],
    make: || image(WriteOptions::new(Format::Qcow2)),
};
const PACKED: &Base = &Base {
    name: "qcow2, compressed",
    programs: &[],
    make: || {
        image(WriteOptions {
            compress: Some(Compress::Zlib(1)),
            ..WriteOptions::new(Format::Qcow2)
        })
    },
};
const ZSTD: &Base = &Base {
    name: "qcow2, compressed with Zstandard",
    programs: &[],
    make: || {
        image(WriteOptions {
            compress: Some(Compress::Zstd(1)),
            ..WriteOptions::new(Format::Qcow2)
        })
    },
};

/// Where the L2 entry of a byte of the disk is.
fn l2(b: &Bytes, byte: u64) -> u64 {
    let table = b.be64(b.be64(40) + byte / (512 << 20) * 8) & PLACE;
    table + byte / 65_536 * 8
}

/// Where the reference count of a cluster is.
fn refcount(b: &Bytes, cluster: u64) -> u64 {
    b.be64(b.be64(48)) + cluster * 2
}

fn set_mid(f: &mut Files, value: u64) -> Spot {
    let b = f.main();
    let e = l2(b, guest().mid);
    b.set_be64(e, value);
    at(D, e, 8).touching(guest().mid)
}

fn inflate(f: &mut Files) -> Spot {
    let b = f.main();
    let entry = b.be64(l2(b, guest().mid));
    assert!(entry & 1 << 62 != 0);
    let place = entry & ((1 << 54) - 1);
    // The first bits are those of the kind of block; a frame begins with a magic.
    b.put(place, &[7, 0, 0, 0]);
    at(D, place, 65_536).touching(guest().mid)
}

pub(super) const DAMAGES: &[Damage] = &[
    Damage::new(
        PLAIN,
        "a cluster behind the end of the file",
        (Lost, "block-outside-file"),
        &[BIG],
        |f| {
            set_mid(f, 1 << 63 | 0x7f_ffff_0000);
            file(D).touching(guest().mid)
        },
    ),
    Damage::new(
        PLAIN,
        "two places of the disk in one cluster",
        (Lost, "place-shared"),
        &[BIG],
        |f| {
            let e = l2(f.main(), guest().other);
            let other = f.main().be64(e);
            set_mid(f, other);
            at(D, other & PLACE, 65_536).touching(guest().mid)
        },
    )
    .with(&["refcount-too-low"]),
    Damage::new(
        PLAIN,
        "reserved bits in an entry",
        (Lost, "range-unreadable"),
        &[BIG],
        |f| {
            let b = f.main();
            let e = l2(b, guest().mid);
            b.flip(e, 0x20);
            at(D, e, 8).touching(guest().mid)
        },
    ),
    Damage::new(
        PLAIN,
        "a cluster off its boundary",
        (Lost, "range-unreadable"),
        &[BIG],
        |f| {
            let b = f.main();
            let old = b.be64(l2(b, guest().mid));
            set_mid(f, old + 512)
        },
    )
    .with(&["refcount-too-low"]),
    Damage::new(
        PLAIN,
        "a cluster in use that is counted as free",
        (Warning, "refcount-too-low"),
        &[],
        |f| {
            let b = f.main();
            let cluster = (b.be64(l2(b, guest().mid)) & PLACE) / 65_536;
            let at_count = refcount(b, cluster);
            b.set_be16(at_count, 0);
            at(D, cluster * 65_536, 65_536)
        },
    ),
    Damage::new(
        PLAIN,
        "a cluster that nothing refers to",
        (Note, "space-unreferenced"),
        &[],
        |f| {
            let b = f.main();
            let cluster = b.len().div_ceil(65_536);
            b.set_len((cluster + 1) * 65_536);
            let count = refcount(b, cluster);
            b.set_be16(count, 1);
            file(D)
        },
    ),
    Damage::new(
        PLAIN,
        "an entry that wrongly says that its cluster is shared",
        (Warning, "copied-flag-wrong"),
        &[],
        |f| {
            let b = f.main();
            let e = l2(b, 0);
            b.flip(e, 0x80);
            file(D)
        },
    ),
    Damage::new(
        PLAIN,
        "the image was not closed",
        (Warning, "unclean-shutdown"),
        &[],
        |f| {
            f.main().flip(79, 1);
            at(D, 72, 8)
        },
    ),
    Damage::new(
        PLAIN,
        "the image is marked as corrupt",
        (Warning, "marked-corrupt"),
        &[],
        |f| {
            f.main().flip(79, 2);
            at(D, 72, 8)
        },
    ),
    Damage::new(
        PLAIN,
        "the first table is behind the file",
        (Lost, "image-unusable"),
        &[],
        |f| {
            f.main().set_be64(40, 0x7f_ffff_0000);
            file(D)
        },
    ),
    Damage::new(
        PLAIN,
        "an L2 table behind the file",
        (Lost, "range-unreadable"),
        &[],
        |f| {
            let b = f.main();
            let l1 = b.be64(40);
            b.set_be64(l1, 1 << 63 | 0x7f_ffff_0000);
            file(D).touching(guest().mid)
        },
    ),
    Damage::new(
        PLAIN,
        "a table of reference counts behind the file",
        (Lost, "image-unusable"),
        &[],
        |f| {
            f.main().set_be64(48, 0x7f_ffff_0000);
            file(D)
        },
    ),
    Damage::new(
        PACKED,
        "a byte of a compressed cluster",
        (Lost, "unit-not-decoded"),
        &[BIG],
        inflate,
    ),
    Damage::new(
        ZSTD,
        "a byte of a cluster compressed with Zstandard",
        (Lost, "unit-not-decoded"),
        &[BIG],
        inflate,
    ),
];
