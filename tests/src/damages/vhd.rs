//! VHD.

use super::{
    Base, Bytes, Damage, Files,
    Severity::{Damage as Lost, Warning},
    Spot, at, file,
    guest::{BIG, guest},
    qcow2::image,
};
use disk_image::{Format, write::WriteOptions};

const D: &str = "d";

const DYNAMIC: &Base = &Base {
    name: "VHD",
    programs: &[],
    make: || image(WriteOptions::new(Format::Vhd)),
};
const FIXED: &Base = &Base {
    name: "VHD, fixed",
    programs: &[],
    make: || {
        image(WriteOptions {
            fixed: true,
            ..WriteOptions::new(Format::Vhd)
        })
    },
};

/// Where the entry of a byte of the disk is.
fn entry(b: &Bytes, byte: u64) -> u64 {
    let (bat, block) = (b.be64(512 + 16), u64::from(b.be32(512 + 32)));
    bat + byte / block * 4
}

fn set_mid(f: &mut Files, value: u32) -> Spot {
    let b = f.main();
    let e = entry(b, guest().mid);
    b.set_be32(e, value);
    at(D, e, 4).touching(guest().mid)
}

pub(super) const DAMAGES: &[Damage] = &[
    Damage::new(
        DYNAMIC,
        "a block behind the end of the file",
        (Lost, "block-outside-file"),
        &[BIG],
        |f| set_mid(f, 0x00ff_ffff),
    ),
    Damage::new(
        DYNAMIC,
        "two blocks in one place",
        (Lost, "place-shared"),
        &[BIG],
        |f| {
            let e = entry(f.main(), guest().other);
            let other = f.main().be32(e);
            set_mid(f, other);
            at(D, u64::from(other) * 512, 3 << 20).touching(guest().mid)
        },
    ),
    Damage::new(
        DYNAMIC,
        "a byte of the footer",
        (Warning, "footer-damaged"),
        &[],
        |f| {
            let at_byte = f.main().len() - 512 + 70;
            f.main().flip(at_byte, 1);
            at(D, at_byte - 70, 512)
        },
    ),
    Damage::new(
        DYNAMIC,
        "a byte of the footer's copy",
        (Warning, "footer-copy-damaged"),
        &[],
        |f| {
            f.main().flip(70, 1);
            at(D, 0, 512)
        },
    ),
    Damage::new(
        DYNAMIC,
        "a copy of the footer with another id",
        (Warning, "footer-copy-differs"),
        &[],
        |f| {
            let b = f.main();
            let byte = b.u8(68);
            b.set_u8(68, byte + 1);
            let sum = b.be32(64).wrapping_sub(1);
            b.set_be32(64, sum);
            at(D, 0, 512)
        },
    ),
    Damage::new(
        DYNAMIC,
        "a byte of the dynamic header",
        (Lost, "image-unusable"),
        &[],
        |f| {
            f.main().flip(512 + 100, 1);
            at(D, 512, 1024)
        },
    ),
    Damage::new(
        DYNAMIC,
        "the file is cut short",
        (Warning, "footer-damaged"),
        &[],
        |f| {
            let len = f.main().len() - 512;
            f.main().set_len(len);
            file(D)
        },
    ),
    Damage::new(
        FIXED,
        "a byte of the only footer",
        (Lost, "image-unusable"),
        &[],
        |f| {
            let at_byte = f.main().len() - 512 + 70;
            f.main().flip(at_byte, 1);
            at(D, at_byte - 70, 512)
        },
    ),
    Damage::new(
        DYNAMIC,
        "a block over the block table",
        (Lost, "block-in-metadata"),
        &[BIG],
        |f| {
            let bat = f.main().be64(512 + 16) / 512;
            set_mid(f, bat as u32)
        },
    ),
];
