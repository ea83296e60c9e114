//! Damage between the links of a chain.

use crate::{Bench, found, guest, sound};
use disk_io::Severity::{Damage, Warning};
use vmdk::write::{
    Cell, cowd,
    descriptor::{Text, extent},
};

const SECTORS: u64 = guest::LEN as u64 / 512;

/// A flat base, and two deltas on it.
fn chain() -> Bench {
    let (disk, big) = guest::disk();
    let bench = Bench::new();
    bench.put("b-flat.vmdk", &disk);
    link(&bench, "b.vmdk", 1, None, SECTORS, "FLAT", "b-flat.vmdk");
    for (n, name) in [(1u8, "d1"), (2, "d2")] {
        let grain = (big as u64 / 512) + u64::from(n) * 64;
        let cells = [(grain, Cell::Data(vec![n; 512]))];
        bench.put(
            &format!("{name}-delta.vmdk"),
            cowd::encode(SECTORS as u32, 1, &cells),
        );
    }
    link(
        &bench,
        "d1.vmdk",
        2,
        Some((1, "b.vmdk")),
        SECTORS,
        "VMFSSPARSE",
        "d1-delta.vmdk",
    );
    link(
        &bench,
        "d2.vmdk",
        3,
        Some((2, "d1.vmdk")),
        SECTORS,
        "VMFSSPARSE",
        "d2-delta.vmdk",
    );
    sound(&bench.check("d2.vmdk"), "before");
    sound(&bench.check("d1.vmdk"), "before");
    bench
}

fn link(
    bench: &Bench,
    name: &str,
    cid: u32,
    parent: Option<(u32, &str)>,
    sectors: u64,
    kind: &str,
    file: &str,
) {
    let text = Text {
        cid,
        parent,
        create_type: if kind == "FLAT" {
            "monolithicFlat"
        } else {
            "vmfsSparse"
        },
        extents: vec![extent(sectors, kind, file)],
    };
    bench.put(name, text.encode());
}

#[test]
fn what_stands_between_links() {
    let bench = chain();
    link(
        &bench,
        "d1.vmdk",
        9,
        Some((1, "b.vmdk")),
        SECTORS,
        "VMFSSPARSE",
        "d1-delta.vmdk",
    );
    found(&bench.check("d2.vmdk"), "cid", "parent-cid-differs", Damage);
    // The same, seen from below.
    found(&bench.check("d1.vmdk"), "cid", "child-stale", Warning);
    // All links were looked at in spite of it.
    assert_eq!(bench.check("d2.vmdk").layers.len(), 3);

    let bench = chain();
    std::fs::remove_file(bench.path("b.vmdk")).unwrap();
    found(&bench.check("d2.vmdk"), "gone", "parent-missing", Damage);

    let bench = chain();
    std::fs::rename(bench.path("b.vmdk"), bench.path("other.vmdk")).unwrap();
    found(
        &bench.check("d2.vmdk"),
        "renamed",
        "parent-misnamed",
        Warning,
    );

    let bench = chain();
    link(
        &bench,
        "b.vmdk",
        1,
        Some((2, "d1.vmdk")),
        SECTORS,
        "VMFSSPARSE",
        "d1-delta.vmdk",
    );
    found(&bench.check("d2.vmdk"), "loop", "chain-endless", Damage);

    let bench = chain();
    bench.change("d1.vmdk", |b| {
        let text = String::from_utf8(b.clone()).unwrap();
        *b = text
            .replace("parentCID=00000001", "parentCID=ffffffff")
            .into_bytes();
    });
    found(
        &bench.check("d2.vmdk"),
        "no cid",
        "parent-cid-missing",
        Damage,
    );

    let bench = chain();
    link(
        &bench,
        "b.vmdk",
        1,
        None,
        SECTORS / 2,
        "FLAT",
        "b-flat.vmdk",
    );
    found(
        &bench.check("d2.vmdk"),
        "length",
        "parent-length-differs",
        Damage,
    );

    let bench = chain();
    bench.put("d1.vmdk", "hello");
    found(
        &bench.check("d2.vmdk"),
        "no disk",
        "parent-unusable",
        Damage,
    );
    let e = crate::try_check(&bench.path("d1.vmdk")).unwrap_err();
    assert!(e.to_string().contains("nothing known"), "{e}");
}

/// What a newer link hides is no damage of the guest's files; what it does not hide is.
#[test]
fn only_what_the_guest_sees_is_mapped_to_files() {
    let bench = chain();
    let set = |b: &mut Vec<u8>, sector: usize| {
        let gd = u32::from_le_bytes(b[20..24].try_into().unwrap()) as usize * 512;
        let table = u32::from_le_bytes(b[gd..][sector / 4096 * 4..][..4].try_into().unwrap());
        let at = table as usize * 512 + sector % 4096 * 4;
        b[at..at + 4].copy_from_slice(&0x00ff_ffffu32.to_le_bytes());
    };
    let (_, big) = guest::disk();
    bench.change("d1-delta.vmdk", |b| set(b, big / 512 + 64));
    let files = found(
        &bench.check("d2.vmdk"),
        "seen",
        "grain-outside-file",
        Damage,
    );
    assert_eq!(files, ["/p0/BIG.BIN"]);
    // d2 has its own sector there.
    let bench = chain();
    bench.change("d1-delta.vmdk", |b| set(b, big / 512 + 128));
    let files = found(
        &bench.check("d2.vmdk"),
        "hidden",
        "grain-outside-file",
        Damage,
    );
    assert!(files.is_empty(), "{files:?}");
}
