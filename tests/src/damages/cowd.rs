//! vmfsSparse (COWD).

use super::{
    Base, Bytes, Damage, Files,
    Severity::{Damage as Lost, Note, Warning},
    Spot, at, file,
    guest::{self, BIG, SECTORS, guest},
    hosted::{FAR, descriptor},
};
use anyhow::Result;
use vmdk::write::cowd;

const X: &str = "d-delta.vmdk";

fn make() -> Result<Files> {
    let bytes = cowd::encode(SECTORS as u32, 1, &guest::grains(512));
    let text = descriptor("vmfsSparse", "VMFSSPARSE", X);
    Ok(Files::one("d.vmdk", Bytes::new(text.as_bytes())).and(X, Bytes::new(&bytes)))
}

const BASE: &Base = &Base {
    name: "vmfsSparse",
    programs: &[],
    make,
};

/// Where the directory and the table have the entry of a byte of the disk.
fn entries(b: &Bytes, byte: u64) -> (u64, u64) {
    let (gd, sector) = (u64::from(b.u32(20)) * 512, byte / 512);
    let directory = gd + sector / 4096 * 4;
    let table = u64::from(b.u32(directory)) * 512;
    (directory, table + sector % 4096 * 4)
}

fn set_grain(f: &mut Files, value: u32) -> Spot {
    let b = f.of(X);
    let e = entries(b, guest().mid).1;
    b.set_u32(e, value);
    file(X).touching(guest().mid)
}

fn set_table(f: &mut Files, value: u32) -> Spot {
    let b = f.of(X);
    let e = entries(b, guest().mid).0;
    b.set_u32(e, value);
    file(X).touching(guest().mid)
}

pub(super) const DAMAGES: &[Damage] = &[
    Damage::new(
        BASE,
        "a grain behind the end of the file",
        (Lost, "grain-outside-file"),
        &[BIG],
        |f| set_grain(f, FAR),
    ),
    Damage::new(
        BASE,
        "a grain inside the header",
        (Lost, "grain-in-metadata"),
        &[BIG],
        |f| set_grain(f, 1),
    ),
    Damage::new(
        BASE,
        "a table behind the end of the file",
        (Lost, "grain-table-outside-file"),
        &[BIG],
        |f| set_table(f, FAR),
    ),
    Damage::new(
        BASE,
        "a table inside the header",
        (Lost, "grain-table-in-metadata"),
        &[BIG],
        |f| set_table(f, 1),
    ),
    Damage::new(
        BASE,
        "two grains in one place",
        (Lost, "place-shared"),
        &[BIG],
        |f| {
            let e = entries(f.of(X), guest().other).1;
            let other = f.of(X).u32(e);
            set_grain(f, other);
            at(X, u64::from(other) * 512, 512).touching(guest().mid)
        },
    ),
    Damage::new(
        BASE,
        "space that no table leads to",
        (Note, "space-unreferenced"),
        &[],
        |f| {
            let b = f.of(X);
            let free = (b.push(&[7; 512]) / 512) as u32;
            b.set_u32(28, free + 1);
            file(X)
        },
    ),
    Damage::new(
        BASE,
        "an entry that is lost",
        (Note, "space-unreferenced"),
        &[],
        |f| {
            set_grain(f, 0);
            file(X)
        },
    ),
    Damage::new(
        BASE,
        "a table that is lost",
        (Note, "space-unreferenced"),
        &[],
        |f| {
            set_table(f, 0);
            file(X)
        },
    ),
    Damage::new(
        BASE,
        "the delta was not closed",
        (Warning, "unclean-shutdown"),
        &[],
        |f| {
            f.of(X).set_u32(1648, 1);
            file(X)
        },
    ),
    Damage::new(
        BASE,
        "the free sector lies before grains in use",
        (Warning, "free-sector-in-use"),
        guest::BEHIND,
        |f| {
            let free = f.of(X).u32(28) / 2;
            f.of(X).set_u32(28, free);
            at(X, 28, 4)
        },
    ),
    Damage::new(
        BASE,
        "the free sector lies behind the file",
        (Warning, "free-sector-outside-file"),
        &[],
        |f| {
            f.of(X).set_u32(28, FAR);
            at(X, 28, 4)
        },
    ),
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
    )
    .with(&["free-sector-outside-file"]),
    Damage::new(
        BASE,
        "the directory is behind the file",
        (Lost, "grain-directory-outside-file"),
        &[],
        |f| {
            f.of(X).set_u32(20, FAR);
            at(X, 20, 4)
        },
    ),
    Damage::new(BASE, "another magic", (Lost, "extent-unusable"), &[], |f| {
        f.of(X).put(0, b"X");
        at(X, 0, 4)
    }),
];
