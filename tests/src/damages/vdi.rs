//! VDI.

use super::{
    Base, Bytes, Damage, Files,
    Severity::{Damage as Lost, Warning},
    Spot, at, file,
    guest::{BIG, guest},
    qcow2::image,
};
use disk_image::{Format, write::WriteOptions};

const D: &str = "d";
const BLOCK: u64 = 1 << 20;

const BASE: &Base = &Base {
    name: "VDI",
    programs: &[],
    make: || image(WriteOptions::new(Format::Vdi)),
};

fn entry(b: &Bytes, byte: u64) -> u64 {
    u64::from(b.u32(340)) + byte / BLOCK * 4
}

fn set_mid(f: &mut Files, value: u32) -> Spot {
    let b = f.main();
    let e = entry(b, guest().mid);
    b.set_u32(e, value);
    at(D, e, 4).touching(guest().mid)
}

pub(super) const DAMAGES: &[Damage] = &[
    Damage::new(
        BASE,
        "a block behind the end of the file",
        (Lost, "block-outside-file"),
        &[BIG],
        |f| set_mid(f, 0x00ff_ffff),
    ),
    Damage::new(
        BASE,
        "two blocks in one place",
        (Lost, "place-shared"),
        &[BIG],
        |f| {
            let b = f.main();
            let other = b.u32(entry(b, guest().other));
            let place = u64::from(b.u32(344)) + u64::from(other) * BLOCK;
            set_mid(f, other);
            at(D, place, BLOCK).touching(guest().mid)
        },
    ),
    Damage::new(
        BASE,
        "the header counts other blocks",
        (Warning, "block-count-differs"),
        &[],
        |f| {
            f.main().flip(388, 1);
            file(D)
        },
    ),
    Damage::new(BASE, "another magic", (Lost, "image-unusable"), &[], |f| {
        f.main().flip(64, 1);
        at(D, 64, 4)
    }),
    Damage::new(
        BASE,
        "the block map is behind the file",
        (Lost, "image-unusable"),
        &[],
        |f| {
            f.main().set_u32(340, 0x7fff_fe00);
            at(D, 340, 4)
        },
    ),
];
