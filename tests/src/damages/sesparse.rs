//! seSparse.

use super::{
    Base, Bytes, Damage, Files,
    Severity::Damage as Lost,
    Spot, at, file,
    guest::{self, BIG, SECTORS, guest},
    hosted::descriptor,
};
use anyhow::Result;
use vmdk::write::sesparse;

const X: &str = "d-delta.vmdk";

fn make() -> Result<Files> {
    let bytes = sesparse::encode(SECTORS, &guest::grains(4096), false);
    let text = descriptor("seSparse", "SESPARSE", X);
    Ok(Files::one("d.vmdk", Bytes::new(text.as_bytes())).and(X, Bytes::new(&bytes)))
}

const BASE: &Base = &Base {
    name: "seSparse",
    programs: &[],
    make,
};

/// Where the directory and the table have the entry of a byte of the disk.
fn entries(b: &Bytes, byte: u64) -> (u64, u64) {
    let (gd, tables, grain) = (b.u64(128) * 512, b.u64(144) * 512, byte / 4096);
    let directory = gd + grain / 4096 * 8;
    let table = u64::from(b.u32(directory)) * 32_768 + tables;
    (directory, table + grain % 4096 * 8)
}

fn set_grain(f: &mut Files, value: u64) -> Spot {
    let b = f.of(X);
    let e = entries(b, guest().mid).1;
    b.set_u64(e, value);
    file(X).touching(guest().mid)
}

fn set_table(f: &mut Files, value: u64) -> Spot {
    let b = f.of(X);
    let e = entries(b, guest().mid).0;
    b.set_u64(e, value);
    at(X, e, 8).touching(guest().mid)
}

pub(super) const DAMAGES: &[Damage] = &[
    Damage::new(
        BASE,
        "a grain behind the end of the file",
        (Lost, "grain-outside-file"),
        &[BIG],
        |f| set_grain(f, 3 << 60 | 0xffff_ffff),
    ),
    Damage::new(
        BASE,
        "a grain entry of no known kind",
        (Lost, "grain-entry-invalid"),
        &[BIG],
        |f| set_grain(f, 7 << 60),
    ),
    Damage::new(
        BASE,
        "a directory entry of no known kind",
        (Lost, "grain-directory-entry-invalid"),
        &[BIG],
        |f| {
            let e = entries(f.of(X), guest().mid).0;
            let old = f.of(X).u64(e);
            set_table(f, old & 0xffff_ffff | 7 << 60)
        },
    ),
    Damage::new(
        BASE,
        "a table behind the end of the file",
        (Lost, "grain-table-outside-file"),
        &[BIG],
        |f| set_table(f, 1 << 60 | 0x00ff_ffff),
    ),
    Damage::new(
        BASE,
        "two grains in one place",
        (Lost, "place-shared"),
        &[BIG],
        |f| {
            let e = entries(f.of(X), guest().other).1;
            let other = f.of(X).u64(e);
            set_grain(f, other);
            file(X).touching(guest().mid)
        },
    ),
    Damage::new(
        BASE,
        "a journal that was not replayed",
        (Lost, "journal-dirty"),
        &[],
        |f| {
            let b = f.of(X);
            let volatile = b.u64(80) * 512;
            b.set_u8(volatile + 24, 1);
            at(X, volatile, 512)
        },
    ),
    Damage::new(
        BASE,
        "the directory is behind the file",
        (Lost, "grain-directory-outside-file"),
        &[],
        |f| {
            f.of(X).set_u64(128, 0x00ff_ffff);
            at(X, 128, 8)
        },
    ),
    Damage::new(BASE, "another magic", (Lost, "extent-unusable"), &[], |f| {
        f.of(X).flip(0, 1);
        at(X, 0, 8)
    }),
    Damage::new(
        BASE,
        "the delta is cut short",
        (Lost, "grain-outside-file"),
        &["/p0/sub/last.bin"],
        |f| {
            let len = f.of(X).len() - 100_000;
            f.of(X).set_len(len);
            file(X)
        },
    ),
];
