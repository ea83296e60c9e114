//! VHDX.

use super::{
    Base, Bytes, Damage, Files,
    Severity::{Damage as Lost, Warning},
    Spot, at, file,
    guest::{BIG, guest},
    qcow2::image,
};
use disk_image::{Format, write::WriteOptions};

const D: &str = "d";
const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const REGIONS: [u64; 2] = [192 << 10, 256 << 10];
/// Where our writer puts them.
const METADATA: u64 = 2 << 20;
const BAT: u64 = 3 << 20;
const BLOCK: u64 = 2 << 20;

const BASE: &Base = &Base {
    name: "VHDX",
    programs: &[],
    make: || image(WriteOptions::new(Format::Vhdx)),
};

fn entry(byte: u64) -> u64 {
    BAT + byte / BLOCK * 8
}

fn set_mid(f: &mut Files, change: impl Fn(&Bytes, u64) -> u64) -> Spot {
    let b = f.main();
    let e = entry(guest().mid);
    let value = change(b, b.u64(e));
    b.set_u64(e, value);
    at(D, e, 8).touching(guest().mid)
}

pub(super) const DAMAGES: &[Damage] = &[
    Damage::new(
        BASE,
        "a byte of the first header",
        (Warning, "header-damaged"),
        &[],
        |f| {
            f.main().flip(HEADERS[0] + 100, 1);
            at(D, HEADERS[0], 4096)
        },
    ),
    Damage::new(
        BASE,
        "a byte of the second header",
        (Warning, "header-damaged"),
        &[],
        |f| {
            f.main().flip(HEADERS[1] + 100, 1);
            at(D, HEADERS[1], 4096)
        },
    ),
    Damage::new(
        BASE,
        "a byte of both headers",
        (Lost, "image-unusable"),
        &[],
        |f| {
            HEADERS.iter().for_each(|at| f.main().flip(at + 100, 1));
            at(D, HEADERS[0], 4096)
        },
    )
    .with(&["header-damaged"]),
    Damage::new(
        BASE,
        "a byte of the first region table",
        (Warning, "region-table-damaged"),
        &[],
        |f| {
            f.main().flip(REGIONS[0] + 100, 1);
            at(D, REGIONS[0], 65_536)
        },
    ),
    Damage::new(
        BASE,
        "a byte of the second region table",
        (Warning, "region-table-damaged"),
        &[],
        |f| {
            f.main().flip(REGIONS[1] + 100, 1);
            at(D, REGIONS[1], 65_536)
        },
    ),
    Damage::new(
        BASE,
        "a byte of both region tables",
        (Lost, "image-unusable"),
        &[],
        |f| {
            REGIONS.iter().for_each(|at| f.main().flip(at + 100, 1));
            at(D, REGIONS[0], 65_536)
        },
    )
    .with(&["region-table-damaged"]),
    Damage::new(
        BASE,
        "the metadata table is gone",
        (Lost, "image-unusable"),
        &[],
        |f| {
            f.main().fill(METADATA, 8, 0);
            at(D, METADATA, 65_536)
        },
    ),
    Damage::new(
        BASE,
        "a block behind the end of the file",
        (Lost, "block-outside-file"),
        &[BIG],
        |f| {
            set_mid(f, |_, _| (1 << 44) | 6);
            file(D).touching(guest().mid)
        },
    ),
    Damage::new(
        BASE,
        "two blocks in one place",
        (Lost, "place-shared"),
        &[BIG],
        |f| {
            let other = f.main().u64(entry(guest().other));
            set_mid(f, |_, _| other);
            at(D, other & !0xf_ffff, BLOCK).touching(guest().mid)
        },
    ),
    Damage::new(
        BASE,
        "a block of no known state",
        (Lost, "range-unreadable"),
        &[BIG],
        |f| set_mid(f, |_, old| old & !7 | 5),
    ),
    Damage::new(
        BASE,
        "a block over the metadata",
        (Lost, "block-in-metadata"),
        &[BIG],
        |f| set_mid(f, |_, _| METADATA | 6),
    ),
    Damage::new(
        BASE,
        "a block over the log",
        (Lost, "block-in-metadata"),
        &[BIG],
        |f| set_mid(f, |_, _| (1 << 20) | 6),
    ),
];
