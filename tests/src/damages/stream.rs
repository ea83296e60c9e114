//! streamOptimized: markers, compressed grains, tables, footer.

use super::{
    Base, Bytes, Damage, Files,
    Severity::{Damage as Lost, Warning},
    Spot, at, file,
    guest::{self, BIG, SECTORS, guest},
    hosted::{FAR, descriptor},
};
use anyhow::Result;
use vmdk::write::stream::{self, Layout};

const D: &str = "d.vmdk";

fn make(layout: Layout) -> Result<Files> {
    let options = stream::Options {
        layout,
        version: 3,
        grain_size: 128,
        descriptor: descriptor("streamOptimized", "SPARSE", D),
        pad_last: false,
        level: 1,
    };
    let bytes = stream::encode(&options, SECTORS, &guest::grains(65_536));
    Ok(Files::one(D, Bytes::new(&bytes)))
}

const FOOTER: &Base = &Base {
    name: "streamOptimized",
    programs: &[],
    make: || make(Layout::Footer),
};
const HEADER: &Base = &Base {
    name: "streamOptimized, directory in the header",
    programs: &[],
    make: || make(Layout::Header),
};

/// The marker of the grain in the middle.
fn marker(b: &Bytes) -> u64 {
    let lba = guest().mid / 65_536 * 128;
    b.find_by(&lba.to_le_bytes(), 65_536, 512).unwrap()
}

/// The table entry that leads there.
fn entry(b: &Bytes, marker: u64) -> u64 {
    let sector = (marker / 512) as u32;
    b.find_by(&sector.to_le_bytes(), 512, 4).unwrap()
}

fn grain(b: &Bytes) -> Spot {
    at(D, marker(b), 512).touching(guest().mid)
}

pub(super) const DAMAGES: &[Damage] = &[
    Damage::new(
        FOOTER,
        "the marker of a grain says another place",
        (Lost, "grain-marker-wrong"),
        &[BIG],
        |f| {
            let b = f.main();
            let spot = grain(b);
            b.flip(spot.at.clone().unwrap().start, 1);
            spot
        },
    )
    .with(&["grain-unreferenced"]),
    Damage::new(
        HEADER,
        "the marker of a grain says another place, directory in the header",
        (Lost, "grain-marker-wrong"),
        &[BIG],
        |f| {
            let b = f.main();
            let spot = grain(b);
            b.flip(spot.at.clone().unwrap().start, 1);
            spot
        },
    )
    .with(&["grain-unreferenced"]),
    Damage::new(
        FOOTER,
        "a grain of an impossible length",
        (Lost, "grain-size-invalid"),
        &[BIG],
        |f| {
            let b = f.main();
            let spot = grain(b);
            b.set_u32(spot.at.clone().unwrap().start + 8, FAR);
            spot
        },
    )
    .with(&["stream-unterminated"]),
    Damage::new(
        FOOTER,
        "a byte of a compressed grain",
        (Lost, "grain-not-inflated"),
        &[BIG],
        |f| {
            let b = f.main();
            let spot = grain(b);
            b.flip(spot.at.clone().unwrap().start + 40, 0x55);
            spot
        },
    ),
    Damage::new(
        HEADER,
        "a byte of a compressed grain, directory in the header",
        (Lost, "grain-not-inflated"),
        &[BIG],
        |f| {
            let b = f.main();
            let spot = grain(b);
            b.flip(spot.at.clone().unwrap().start + 40, 0x55);
            spot
        },
    ),
    Damage::new(
        FOOTER,
        "a table entry is lost",
        (Lost, "grain-unreferenced"),
        &[BIG],
        |f| {
            let b = f.main();
            let spot = grain(b);
            let e = entry(b, spot.at.clone().unwrap().start);
            b.set_u32(e, 0);
            spot
        },
    ),
    Damage::new(
        FOOTER,
        "a table entry leads outside the file",
        (Lost, "grain-outside-file"),
        &[BIG],
        |f| {
            let b = f.main();
            let e = entry(b, marker(b));
            b.set_u32(e, FAR);
            file(D).touching(guest().mid)
        },
    ),
    Damage::new(
        FOOTER,
        "the stream ends before its footer",
        (Lost, "footer-missing"),
        &[],
        |f| {
            let b = f.main();
            let len = b.len() - 1536;
            b.set_len(len);
            file(D)
        },
    ),
    Damage::new(
        FOOTER,
        "the footer contradicts the header",
        (Lost, "footer-differs"),
        &[],
        |f| {
            let b = f.main();
            let footer = b.len() - 1024;
            b.set_u64(footer + 12, 7);
            at(D, footer, 512)
        },
    ),
    Damage::new(
        FOOTER,
        "something behind the end",
        (Warning, "footer-misplaced"),
        &[],
        |f| {
            f.main().push(&[0; 4096]);
            file(D)
        },
    ),
    Damage::new(
        FOOTER,
        "a marker of no known kind",
        (Warning, "marker-unknown"),
        &[],
        |f| {
            let b = f.main();
            let spot = grain(b);
            let marker = spot.at.clone().unwrap().start;
            b.fill(marker, 12, 0);
            b.set_u32(marker + 12, 9);
            Spot {
                guest: None,
                ..spot
            }
        },
    )
    .with(&["grain-marker-wrong"]),
    Damage::new(
        FOOTER,
        "no end marker",
        (Warning, "stream-unterminated"),
        &[],
        |f| {
            let b = f.main();
            let len = b.len() - 512;
            b.set_len(len);
            file(D)
        },
    )
    .with(&["footer-misplaced"]),
];
