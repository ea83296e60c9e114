//! Descriptors, flat extents, and what stands between the links of a chain.

use super::{
    Base, Bytes, Damage, Files,
    Severity::{Damage as Lost, Note, Warning},
    Spot, file,
    guest::{self, BIG, SECTORS, guest},
    hosted::{FAR, descriptor},
};
use anyhow::Result;
use vmdk::write::{
    Cell, cowd,
    descriptor::{Text, extent},
};

fn flat() -> Result<Files> {
    let text = descriptor("monolithicFlat", "FLAT", "b-flat.vmdk");
    Ok(Files::one("b.vmdk", Bytes::new(text.as_bytes())).and("b-flat.vmdk", guest::raw()))
}

fn delta(name: &str, cid: u32, parent: (u32, &str)) -> Bytes {
    let text = Text {
        cid,
        parent: Some(parent),
        create_type: "vmfsSparse",
        extents: vec![extent(SECTORS, "VMFSSPARSE", name)],
    };
    Bytes::new(text.encode().as_bytes())
}

/// A flat base, and two deltas on it: the first has two sectors, the second covers one of them.
fn chain() -> Result<Files> {
    let sector = guest().mid / 512;
    let cells = |all: &[u64], byte: u8| {
        let all = all.iter().map(|n| (*n, Cell::Data(vec![byte; 512])));
        Bytes::new(&cowd::encode(SECTORS as u32, 1, &all.collect::<Vec<_>>()))
    };
    Ok(flat()?
        .and("d1-delta.vmdk", cells(&[sector, sector + 8], 1))
        .and("d2-delta.vmdk", cells(&[sector + 8, sector + 16], 2))
        .and(
            "d1.vmdk",
            delta("d1-delta.vmdk", 2, (0x1234_5678, "b.vmdk")),
        )
        .and("d2.vmdk", delta("d2-delta.vmdk", 3, (2, "d1.vmdk")))
        .opening("d2.vmdk"))
}

const FLAT: &Base = &Base {
    name: "monolithicFlat",
    programs: &[],
    make: flat,
};
const CHAIN: &Base = &Base {
    name: "a chain of three",
    programs: &[],
    make: chain,
};
const BELOW: &Base = &Base {
    name: "the middle of a chain of three",
    programs: &[],
    make: || Ok(chain()?.opening("d1.vmdk")),
};

/// The entry of a sector in a delta is destroyed.
fn lose(f: &mut Files, name: &'static str, byte: u64) -> Spot {
    let b = f.of(name);
    let (gd, sector) = (u64::from(b.u32(20)) * 512, byte / 512);
    let table = u64::from(b.u32(gd + sector / 4096 * 4)) * 512;
    let e = table + sector % 4096 * 4;
    b.set_u32(e, FAR);
    file(name).touching(byte)
}

pub(super) const DAMAGES: &[Damage] = &[
    Damage::new(
        FLAT,
        "a flat extent that is cut short",
        (Lost, "extent-cut-short"),
        &[BIG, "/p0/sub"],
        |f| {
            f.of("b-flat.vmdk").set_len(guest().mid);
            file("b-flat.vmdk").touching(guest::LEN - 1)
        },
    ),
    Damage::new(
        FLAT,
        "an extent that is not there",
        (Lost, "extent-unusable"),
        &[],
        |f| {
            f.files.remove("b-flat.vmdk");
            file("b-flat.vmdk")
        },
    ),
    Damage::new(
        FLAT,
        "a descriptor without extents",
        (Lost, "link-unreadable"),
        &[],
        |f| {
            f.edit("b.vmdk", "RW", "XX");
            file("b.vmdk")
        },
    ),
    Damage::new(
        FLAT,
        "a line of the descriptor that says nothing",
        (Note, "descriptor-odd"),
        &[],
        |f| {
            f.edit("b.vmdk", "CID=12345678", "CID=12345678\nhello");
            file("b.vmdk")
        },
    ),
    Damage::new(
        FLAT,
        "an extent of more sectors than its file has",
        (Lost, "extent-cut-short"),
        &[],
        |f| {
            let text = format!("RW {SECTORS} FLAT");
            let more = format!("RW {} FLAT", SECTORS + 2048);
            f.edit("b.vmdk", &text, &more);
            file("b-flat.vmdk").touching(guest::LEN)
        },
    ),
    Damage::new(
        CHAIN,
        "a parent that was changed",
        (Lost, "parent-cid-differs"),
        &[],
        |f| {
            f.edit("d1.vmdk", "CID=00000002", "CID=00000009");
            file("d2.vmdk")
        },
    ),
    Damage::new(
        BELOW,
        "a child that was made from another state",
        (Warning, "child-stale"),
        &[],
        |f| {
            f.edit("d1.vmdk", "CID=00000002", "CID=00000009");
            file("d1.vmdk")
        },
    ),
    Damage::new(
        CHAIN,
        "a parent that is not there",
        (Lost, "parent-missing"),
        &[],
        |f| {
            f.files.remove("b.vmdk");
            file("d1.vmdk")
        },
    ),
    Damage::new(
        CHAIN,
        "a parent with another name",
        (Warning, "parent-misnamed"),
        &[],
        |f| {
            let base = f.files.remove("b.vmdk").unwrap();
            f.files.insert("other.vmdk".to_owned(), base);
            file("d1.vmdk")
        },
    ),
    Damage::new(
        CHAIN,
        "a chain that leads into itself",
        (Lost, "chain-endless"),
        &[],
        |f| {
            f.files.insert(
                "b.vmdk".to_owned(),
                delta("d1-delta.vmdk", 0x1234_5678, (2, "d1.vmdk")),
            );
            file("b.vmdk")
        },
    ),
    Damage::new(
        CHAIN,
        "a delta that names a parent and no content id",
        (Lost, "parent-cid-missing"),
        &[],
        |f| {
            f.edit("d1.vmdk", "parentCID=12345678", "parentCID=ffffffff");
            file("d1.vmdk")
        },
    ),
    Damage::new(
        CHAIN,
        "a parent of another length",
        (Lost, "parent-length-differs"),
        &[],
        |f| {
            f.edit(
                "b.vmdk",
                &format!("RW {SECTORS} FLAT"),
                &format!("RW {} FLAT", SECTORS / 2),
            );
            file("b.vmdk")
        },
    ),
    Damage::new(
        CHAIN,
        "a parent that is no disk",
        (Lost, "parent-unusable"),
        &[],
        |f| {
            f.files.insert("d1.vmdk".to_owned(), Bytes::new(b"hello"));
            file("d1.vmdk")
        },
    ),
    Damage::new(
        CHAIN,
        "a lost grain in the middle of the chain",
        (Lost, "grain-outside-file"),
        &[BIG],
        |f| lose(f, "d1-delta.vmdk", guest().mid),
    ),
    Damage::new(
        CHAIN,
        "a lost grain that a newer link hides",
        (Lost, "grain-outside-file"),
        &[],
        |f| lose(f, "d1-delta.vmdk", guest().mid + 4096),
    ),
    Damage::new(
        CHAIN,
        "a lost grain of the newest link",
        (Lost, "grain-outside-file"),
        &[BIG],
        |f| lose(f, "d2-delta.vmdk", guest().mid + 4096),
    ),
];
