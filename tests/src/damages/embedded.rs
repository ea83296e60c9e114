//! Descriptors that are embedded in sparse extents: what is left of them says whether the header is
//! enough.

use super::{
    Base, Bytes, Damage, Files,
    Severity::{Damage as Lost, Warning},
    Spot, at, file,
    guest::{self, SECTORS, guest},
    hosted::descriptor,
};
use anyhow::Result;
use vmdk::write::{
    Cell,
    descriptor::{Text, extent},
    hosted,
    stream::{self, Layout},
};

const D: &str = "d.vmdk";
/// Where the text begins.
const TEXT: u64 = 512;

fn sparse(text: String, cells: &[(u64, Cell)]) -> Bytes {
    let options = hosted::Options {
        descriptor: Some(text),
        ..hosted::Options::default()
    };
    Bytes::new(&hosted::encode(&options, SECTORS, cells))
}

fn whole() -> Result<Files> {
    let text = descriptor("monolithicSparse", "SPARSE", D);
    Ok(Files::one(D, sparse(text, &guest::grains(65_536))))
}

fn streamed() -> Result<Files> {
    let options = stream::Options {
        layout: Layout::Footer,
        version: 3,
        grain_size: 128,
        descriptor: descriptor("streamOptimized", "SPARSE", D),
        pad_last: false,
        level: 1,
    };
    let bytes = stream::encode(&options, SECTORS, &guest::grains(65_536));
    Ok(Files::one(D, Bytes::new(&bytes)))
}

/// A delta with one grain, on a whole disk.
fn on_top() -> Result<Files> {
    let text = Text {
        cid: 2,
        parent: Some((0x1234_5678, "b.vmdk")),
        create_type: "monolithicSparse",
        extents: vec![extent(SECTORS, "SPARSE", D)],
    };
    let cells = [(guest().mid / 65_536, Cell::Data(vec![1; 65_536]))];
    let below = descriptor("monolithicSparse", "SPARSE", "b.vmdk");
    Ok(Files::one(D, sparse(text.encode(), &cells))
        .and("b.vmdk", sparse(below, &guest::grains(65_536))))
}

const WHOLE: &Base = &Base {
    name: "monolithicSparse with its descriptor",
    programs: &[],
    make: whole,
};
const STREAM: &Base = &Base {
    name: "streamOptimized with its descriptor",
    programs: &[],
    make: streamed,
};
const DELTA: &Base = &Base {
    name: "a monolithicSparse delta",
    programs: &[],
    make: on_top,
};

/// Overwrites `what` in the text of the opened file.
#[track_caller]
fn put(f: &mut Files, what: &str, new: &[u8]) -> Spot {
    let b = f.main();
    let found = b.find(what.as_bytes(), TEXT).unwrap();
    b.put(found, new);
    at(D, TEXT, 1)
}

pub(super) const DAMAGES: &[Damage] = &[
    Damage::new(
        WHOLE,
        "zeros in a comment before the extents",
        (Warning, "descriptor-damaged"),
        &[],
        |f| put(f, "# Extent", &[0; 3]),
    ),
    Damage::new(
        WHOLE,
        "a byte of the extent's type",
        (Warning, "descriptor-damaged"),
        &[],
        |f| put(f, "SPARSE", b"SPAQSE"),
    ),
    Damage::new(
        WHOLE,
        "the text ends before its extents",
        (Warning, "descriptor-damaged"),
        &[],
        |f| put(f, "# Extent", &[0; 200]),
    ),
    Damage::new(
        WHOLE,
        "ones up to the content id",
        (Warning, "descriptor-damaged"),
        &[],
        |f| {
            put(f, "RW", b"\x01\x02");
            put(f, "version", &[0xff; 30])
        },
    ),
    Damage::new(
        STREAM,
        "zeros in the text of a stream",
        (Warning, "descriptor-damaged"),
        &[],
        |f| put(f, "version", &[0; 7]),
    ),
    Damage::new(
        WHOLE,
        "the whole text is zeros",
        (Lost, "extent-unusable"),
        &[],
        |f| {
            put(f, "# Disk", &[0; 600]);
            file(D)
        },
    ),
    Damage::new(
        WHOLE,
        "ones over what is said of a parent",
        (Lost, "parent-unknown"),
        &[],
        |f| {
            put(f, "parentCID", &[0xff; 18]);
            file(D)
        },
    ),
    Damage::new(
        WHOLE,
        "zeros before an extent that is another file, and in what kind it is",
        (Lost, "extent-unusable"),
        &[],
        |f| {
            put(f, "# Extent", &[0]);
            put(f, "createType", &[0; 10]);
            put(f, "\"d.vmdk", b"\"e.vmdk");
            file(D)
        },
    ),
    Damage::new(
        DELTA,
        "zeros in the text of a delta",
        (Lost, "extent-unusable"),
        &[],
        |f| {
            put(f, "# Extent", &[0; 3]);
            file(D)
        },
    ),
    Damage::new(
        DELTA,
        "ones over what a delta says of its parent",
        (Lost, "parent-unknown"),
        &[],
        |f| {
            put(f, "CID=", &[0xff; 100]);
            file(D)
        },
    ),
];
