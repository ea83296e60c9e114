//! monolithicSparse: header, both directories, both copies of the tables, grains.

use super::{
    Base, Bytes, Damage, Files,
    Severity::{Damage as Lost, Note, Warning},
    Spot, at, file,
    guest::{self, BEHIND, BIG, SECTORS, guest},
};
use anyhow::Result;
use vmdk::{
    hosted::Header,
    write::{
        descriptor::{Text, extent},
        hosted,
    },
};

/// What lies behind, where the directory among it cannot be read.
const GONE: &[&str] = &[BIG, "/p0/sub"];
const D: &str = "d.vmdk";
const GRAIN: u64 = 65_536;
/// A sector behind the end of every image here.
pub(super) const FAR: u32 = 0x00ff_ff80;

/// The descriptor of a disk with one extent.
pub(super) fn descriptor(create_type: &str, kind: &str, file: &str) -> String {
    Text {
        cid: 0x1234_5678,
        parent: None,
        create_type,
        extents: vec![extent(SECTORS, kind, file)],
    }
    .encode()
}

fn make(redundant: bool) -> Result<Files> {
    let options = hosted::Options {
        redundant,
        descriptor: Some(descriptor("monolithicSparse", "SPARSE", D)),
        ..hosted::Options::default()
    };
    let bytes = hosted::encode(&options, SECTORS, &guest::grains(GRAIN as usize));
    Ok(Files::one(D, Bytes::new(&bytes)))
}

const TWO: &Base = &Base {
    name: "monolithicSparse",
    programs: &[],
    make: || make(true),
};
const ONE: &Base = &Base {
    name: "monolithicSparse with one directory",
    programs: &[],
    make: || make(false),
};

fn header(b: &Bytes) -> Header {
    Header::parse(&b.get(0, 512), 0).unwrap()
}

/// Where the directory and its copy begin.
fn directories(b: &Bytes) -> [u64; 2] {
    let h = header(b);
    [h.gd_offset * 512, h.rgd_offset * 512]
}

/// Where the table of grain `n` begins, and its copy.
fn tables(b: &Bytes, n: u64) -> [u64; 2] {
    directories(b).map(|gd| u64::from(b.u32(gd + n / 512 * 4)) * 512)
}

/// Where both copies have the entry of a byte of the disk.
fn entries(b: &Bytes, byte: u64) -> [u64; 2] {
    let n = byte / GRAIN;
    tables(b, n).map(|table| table + n % 512 * 4)
}

/// Sets both entries of the grain in the middle.
fn set_mid(files: &mut Files, value: u32) -> Spot {
    let b = files.main();
    let e = entries(b, guest().mid);
    e.into_iter().for_each(|e| b.set_u32(e, value));
    file(D).touching(guest().mid)
}

pub(super) const DAMAGES: &[Damage] = &[
    Damage::new(
        TWO,
        "a grain behind the end of the file",
        (Lost, "grain-outside-file"),
        &[BIG],
        |f| set_mid(f, FAR),
    ),
    Damage::new(
        TWO,
        "a grain inside the header",
        (Lost, "grain-in-metadata"),
        &[BIG],
        |f| set_mid(f, 2),
    ),
    Damage::new(
        TWO,
        "a grain inside a table",
        (Lost, "grain-in-metadata"),
        &[BIG],
        |f| {
            let table = (tables(f.main(), 0)[0] / 512) as u32;
            set_mid(f, table)
        },
    ),
    Damage::new(
        TWO,
        "a table entry of 1 where the header allows none",
        (Lost, "grain-entry-invalid"),
        &[BIG],
        |f| set_mid(f, 1),
    ),
    Damage::new(
        TWO,
        "two grains in one place",
        (Lost, "place-shared"),
        &[BIG],
        |f| {
            let e = entries(f.main(), guest().other)[0];
            let other = f.main().u32(e);
            let spot = set_mid(f, other);
            // The place that they share.
            at(D, u64::from(other) * 512, GRAIN).touching(spot.guest.unwrap())
        },
    ),
    Damage::new(
        TWO,
        "copies of a table that lead to different grains",
        (Lost, "grain-tables-differ"),
        &[BIG],
        |f| {
            let b = f.main();
            let new = b.push(&[7; GRAIN as usize]);
            let e = entries(b, guest().mid);
            b.set_u32(e[0], (new / 512) as u32);
            file(D).touching(guest().mid)
        },
    ),
    Damage::new(
        TWO,
        "an entry of the first table is destroyed",
        (Warning, "grain-tables-differ"),
        &[BIG],
        |f| {
            let b = f.main();
            let e = entries(b, guest().mid)[0];
            b.set_u32(e, FAR);
            at(D, e, 4).touching(guest().mid)
        },
    ),
    Damage::new(
        TWO,
        "an entry of the second table is destroyed",
        (Warning, "grain-tables-differ"),
        &[BIG],
        |f| {
            let b = f.main();
            let e = entries(b, guest().mid)[1];
            b.set_u32(e, FAR);
            at(D, e, 4).touching(guest().mid)
        },
    ),
    Damage::new(
        TWO,
        "a directory leads outside the file, its copy does not",
        (Warning, "grain-tables-differ"),
        BEHIND,
        |f| {
            let b = f.main();
            let e = directories(b)[0] + 4;
            b.set_u32(e, FAR);
            at(D, e, 4).touching(guest::LEN - 1)
        },
    ),
    Damage::new(
        TWO,
        "both directories lead outside the file",
        (Lost, "grain-table-outside-file"),
        GONE,
        |f| {
            let b = f.main();
            let e = directories(b).map(|gd| gd + 4);
            e.into_iter().for_each(|e| b.set_u32(e, FAR));
            at(D, e[0], 4).touching(guest::LEN - 1)
        },
    ),
    Damage::new(
        TWO,
        "both directories lead into the header",
        (Lost, "grain-table-in-metadata"),
        GONE,
        |f| {
            let b = f.main();
            let e = directories(b).map(|gd| gd + 4);
            e.into_iter().for_each(|e| b.set_u32(e, 1));
            at(D, e[0], 4).touching(guest::LEN - 1)
        },
    ),
    Damage::new(
        TWO,
        "a directory of zeros beside a sound copy",
        (Warning, "grain-directory-unusable"),
        &[],
        |f| {
            let b = f.main();
            let gd = directories(b)[0];
            b.fill(gd, 8, 0);
            at(D, gd, 512)
        },
    ),
    Damage::new(
        ONE,
        "the only directory is outside the file",
        (Lost, "grain-directory-outside-file"),
        &[],
        |f| {
            f.main().set_u64(56, FAR.into());
            at(D, 56, 8)
        },
    ),
    Damage::new(
        TWO,
        "a grain off the boundary of all others",
        (Warning, "grain-unaligned"),
        &[BIG],
        |f| {
            let b = f.main();
            let old = u64::from(b.u32(entries(b, guest().mid)[0])) * 512;
            let data = b.get(old, GRAIN as usize);
            b.push(&[0; 512]);
            let new = b.push(&data);
            set_mid(f, (new / 512) as u32)
        },
    ),
    Damage::new(
        TWO,
        "space that no table leads to",
        (Note, "space-unreferenced"),
        &[],
        |f| {
            f.main().push(&[7; GRAIN as usize]);
            file(D)
        },
    ),
    Damage::new(
        TWO,
        "the file is cut short",
        (Lost, "grain-outside-file"),
        &["/p0/sub/last.bin"],
        |f| {
            let b = f.main();
            let len = b.len() - 200_000;
            b.set_len(len);
            file(D)
        },
    ),
    Damage::new(
        TWO,
        "the image was not closed",
        (Warning, "unclean-shutdown"),
        &[],
        |f| {
            f.main().set_u8(72, 1);
            at(D, 72, 1)
        },
    ),
    Damage::new(
        TWO,
        "a transfer in text mode",
        (Lost, "link-unreadable"),
        &[],
        |f| {
            f.main().put(73, b"\n \n\n");
            at(D, 73, 4)
        },
    ),
    Damage::new(
        TWO,
        "no bytes that show a transfer in text mode",
        (Note, "newline-test-missing"),
        &[],
        |f| {
            f.main().fill(73, 4, 0);
            at(D, 73, 4)
        },
    ),
    Damage::new(
        TWO,
        "a grain of 100 sectors",
        (Lost, "link-unreadable"),
        &[],
        |f| {
            f.main().set_u64(20, 100);
            at(D, 20, 8)
        },
    ),
    Damage::new(
        TWO,
        "a capacity of 2^62 sectors",
        (Lost, "link-unreadable"),
        &[],
        |f| {
            f.main().set_u64(12, 1 << 62);
            at(D, 12, 8)
        },
    ),
    Damage::new(
        TWO,
        "a header that says less than its descriptor",
        (Lost, "extent-capacity-differs"),
        &[],
        |f| {
            f.main().set_u64(12, SECTORS / 2);
            file(D)
        },
    ),
];
