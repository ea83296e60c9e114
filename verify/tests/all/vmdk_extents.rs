//! Damage inside one extent, of every kind of extent.

use crate::{Bench, found, guest, sound};
use disk_io::Severity::{Damage, Note, Warning};
use vmdk::{
    hosted::Header,
    write::{
        cowd,
        descriptor::{Text, extent},
        hosted, sesparse, stream,
    },
};

const SECTORS: u64 = guest::LEN as u64 / 512;
const BIG: &str = "/p0/BIG.BIN";

fn text(create_type: &str, kind: &str, file: &str) -> String {
    Text {
        cid: 0x1234_5678,
        parent: None,
        create_type,
        extents: vec![extent(SECTORS, kind, file)],
    }
    .encode()
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

fn set(b: &mut [u8], at: usize, value: u32) {
    b[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn set64(b: &mut [u8], at: usize, value: u64) {
    b[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Where both copies have the entry of grain `n`.
fn entries(b: &[u8], n: usize) -> [usize; 2] {
    let h = Header::parse(&b[..512], 0).unwrap();
    [h.gd_offset, h.rgd_offset].map(|gd| {
        let table = u32_at(b, gd as usize * 512 + n / 512 * 4) as usize * 512;
        table + n % 512 * 4
    })
}

struct Sparse {
    bench: Bench,
    /// Grain of the middle of the big file.
    grain: usize,
}

fn sparse(redundant: bool) -> Sparse {
    let (disk, big) = guest::disk();
    let options = hosted::Options {
        redundant,
        descriptor: Some(text("monolithicSparse", "SPARSE", "d.vmdk")),
        ..hosted::Options::default()
    };
    let bench = Bench::new();
    let cells = guest::grains(&disk, 65_536);
    bench.put("d.vmdk", hosted::encode(&options, SECTORS, &cells));
    sound(&bench.check("d.vmdk"), "before");
    Sparse {
        bench,
        grain: (big + (2 << 20)) / 65_536,
    }
}

#[test]
fn hosted_grains() {
    type Change = fn(&mut Vec<u8>, [usize; 2]);
    let cases: [(&str, &str, Change); 5] = [
        ("outside", "grain-outside-file", |b, at| {
            at.into_iter().for_each(|at| set(b, at, 0x00ff_ff80));
        }),
        ("in the header", "grain-in-metadata", |b, at| {
            at.into_iter().for_each(|at| set(b, at, 2));
        }),
        ("entry 1", "grain-entry-invalid", |b, at| {
            at.into_iter().for_each(|at| set(b, at, 1));
        }),
        ("copies differ", "grain-tables-differ", |b, at| {
            let end = (b.len() / 512 - 128) as u32;
            b.resize(b.len() + 65_536, 7);
            set(b, at[0], end + 128);
        }),
        ("shared", "place-shared", |b, at| {
            let next = u32_at(b, at[0] + 4);
            at.into_iter().for_each(|at| set(b, at, next));
        }),
    ];
    for (what, code, change) in cases {
        let s = sparse(true);
        s.bench.change("d.vmdk", |b| change(b, entries(b, s.grain)));
        let files = found(&s.bench.check("d.vmdk"), what, code, Damage);
        assert_eq!(files, [BIG], "{what}");
    }
}

#[test]
fn hosted_tables() {
    // One copy is gone, the other one is right: a warning, and the bytes are there.
    let s = sparse(true);
    s.bench.change("d.vmdk", |b| {
        let h = Header::parse(&b[..512], 0).unwrap();
        set(b, h.gd_offset as usize * 512, 0x00ff_ffff);
    });
    found(
        &s.bench.check("d.vmdk"),
        "gd",
        "grain-tables-differ",
        Warning,
    );

    let s = sparse(true);
    s.bench.change("d.vmdk", |b| {
        let at = entries(b, s.grain)[1];
        set(b, at, 0x00ff_ffff);
    });
    found(
        &s.bench.check("d.vmdk"),
        "rgt",
        "grain-tables-differ",
        Warning,
    );

    // Both are gone.
    let s = sparse(true);
    s.bench.change("d.vmdk", |b| {
        let h = Header::parse(&b[..512], 0).unwrap();
        for gd in [h.gd_offset, h.rgd_offset] {
            set(b, gd as usize * 512, 0x00ff_ffff);
        }
    });
    let files = found(
        &s.bench.check("d.vmdk"),
        "both",
        "grain-table-outside-file",
        Damage,
    );
    assert!(files.is_empty(), "its FAT is gone too: {files:?}");

    // The only directory is outside.
    let s = sparse(false);
    s.bench.change("d.vmdk", |b| set64(b, 56, 0x00ff_ffff));
    found(
        &s.bench.check("d.vmdk"),
        "gd",
        "grain-directory-outside-file",
        Damage,
    );

    // The directory is zeros, its copy is not.
    let s = sparse(true);
    s.bench.change("d.vmdk", |b| {
        let h = Header::parse(&b[..512], 0).unwrap();
        let at = h.gd_offset as usize * 512;
        b[at..at + 4].fill(0);
    });
    found(
        &s.bench.check("d.vmdk"),
        "zeros",
        "grain-directory-unusable",
        Warning,
    );
}

#[test]
fn hosted_places() {
    // Off the boundary: the grain is moved with its contents, so the bytes are right.
    let s = sparse(true);
    s.bench.change("d.vmdk", |b| {
        let at = entries(b, s.grain);
        let old = u32_at(b, at[0]) as usize * 512;
        let data = b[old..old + 65_536].to_vec();
        b.extend([0; 512]);
        let new = (b.len() / 512) as u32;
        b.extend(data);
        // One copy only: the other would be possible too.
        at.into_iter().for_each(|at| set(b, at, new));
    });
    let report = s.bench.check("d.vmdk");
    let files = found(&report, "unaligned", "grain-unaligned", Warning);
    assert_eq!(files, [BIG]);
    found(&report, "the old place", "space-unreferenced", Note);

    // Cut short inside the last grains.
    let s = sparse(true);
    s.bench.change("d.vmdk", |b| b.truncate(b.len() - 200_000));
    let files = found(
        &s.bench.check("d.vmdk"),
        "cut",
        "grain-outside-file",
        Damage,
    );
    assert_eq!(files, ["/p0/sub/last.bin"]);

    let s = sparse(true);
    s.bench.change("d.vmdk", |b| b[72] = 1);
    found(
        &s.bench.check("d.vmdk"),
        "open",
        "unclean-shutdown",
        Warning,
    );

    let s = sparse(true);
    s.bench
        .change("d.vmdk", |b| b[73..77].copy_from_slice(b"\n \n\n"));
    found(
        &s.bench.check("d.vmdk"),
        "text mode",
        "link-unreadable",
        Damage,
    );

    let s = sparse(true);
    s.bench.change("d.vmdk", |b| b[73..77].fill(0));
    let report = s.bench.check("d.vmdk");
    found(&report, "no test", "newline-test-missing", Note);
    sound(&report, "no test");

    for (what, at, value) in [("grain", 20, 100u64), ("capacity", 12, 1 << 62)] {
        let s = sparse(true);
        s.bench.change("d.vmdk", |b| set64(b, at, value));
        found(&s.bench.check("d.vmdk"), what, "link-unreadable", Damage);
    }

    // The header says more than the descriptor, and less.
    let s = sparse(true);
    s.bench.change("d.vmdk", |b| set64(b, 12, SECTORS / 2));
    found(
        &s.bench.check("d.vmdk"),
        "less",
        "extent-capacity-differs",
        Damage,
    );
}

fn streamed(layout: stream::Layout) -> (Bench, usize) {
    let (disk, big) = guest::disk();
    let options = stream::Options {
        layout,
        version: 3,
        grain_size: 128,
        descriptor: text("streamOptimized", "SPARSE", "d.vmdk"),
        pad_last: false,
        level: 1,
    };
    let bench = Bench::new();
    let cells = guest::grains(&disk, 65_536);
    bench.put("d.vmdk", stream::encode(&options, SECTORS, &cells));
    sound(&bench.check("d.vmdk"), "before");
    // The marker of the grain in the middle of the big file.
    let lba = (big as u64 + (2 << 20)) / 65_536 * 128;
    let bytes = bench.get("d.vmdk");
    let at = (128..bytes.len() / 512)
        .map(|s| s * 512)
        .find(|at| bytes[*at..*at + 8] == lba.to_le_bytes())
        .unwrap();
    (bench, at)
}

#[test]
fn streams() {
    use stream::Layout::{Footer, Header};
    for layout in [Footer, Header] {
        type Change = fn(&mut Vec<u8>, usize);
        let cases: [(&str, &str, Change); 3] = [
            ("marker", "grain-marker-wrong", |b, at| b[at] ^= 1),
            ("size", "grain-size-invalid", |b, at| {
                set(b, at + 8, 0x00ff_ffff);
            }),
            ("data", "grain-not-inflated", |b, at| b[at + 40] ^= 0x55),
        ];
        for (what, code, change) in cases {
            let (bench, at) = streamed(layout);
            bench.change("d.vmdk", |b| change(b, at));
            let files = found(&bench.check("d.vmdk"), what, code, Damage);
            assert_eq!(files, [BIG], "{what}");
        }
    }
    // A grain that the table has lost.
    let (bench, at) = streamed(Footer);
    bench.change("d.vmdk", |b| {
        let sector = ((at / 512) as u32).to_le_bytes();
        let entry = (at..b.len()).step_by(4).find(|e| b[*e..*e + 4] == sector);
        set(b, entry.unwrap(), 0);
    });
    let files = found(&bench.check("d.vmdk"), "lost", "grain-unreferenced", Damage);
    assert_eq!(files, [BIG]);

    let (bench, _) = streamed(Footer);
    bench.change("d.vmdk", |b| b.truncate(b.len() - 1536));
    found(
        &bench.check("d.vmdk"),
        "no footer",
        "footer-missing",
        Damage,
    );

    let (bench, _) = streamed(Footer);
    bench.change("d.vmdk", |b| {
        let at = b.len() - 1024;
        set64(b, at + 12, 7);
    });
    found(&bench.check("d.vmdk"), "footer", "footer-differs", Damage);

    let (bench, _) = streamed(Footer);
    bench.change("d.vmdk", |b| b.extend([0; 4096]));
    found(
        &bench.check("d.vmdk"),
        "padding",
        "footer-misplaced",
        Warning,
    );

    let (bench, at) = streamed(Footer);
    bench.change("d.vmdk", |b| {
        // A whole marker of no known kind instead of the grain.
        b[at..at + 12].fill(0);
        set(b, at + 12, 9);
    });
    let report = bench.check("d.vmdk");
    found(&report, "unknown", "marker-unknown", Warning);
    assert_eq!(
        found(&report, "unknown", "grain-marker-wrong", Damage),
        [BIG]
    );

    let (bench, _) = streamed(Footer);
    bench.change("d.vmdk", |b| {
        let at = b.len() - 512;
        b.truncate(at);
    });
    let report = bench.check("d.vmdk");
    found(&report, "no end", "footer-misplaced", Warning);
    found(&report, "no end", "stream-unterminated", Warning);
}

/// Kind, extent name, file: with its descriptor in `d.vmdk`.
fn delta(kind: &str) -> (Bench, usize) {
    let (disk, big) = guest::disk();
    let bench = Bench::new();
    let (create_type, line, bytes) = match kind {
        "cowd" => (
            "vmfsSparse",
            "VMFSSPARSE",
            cowd::encode(SECTORS as u32, 1, &guest::grains(&disk, 512)),
        ),
        _ => (
            "seSparse",
            "SESPARSE",
            sesparse::encode(SECTORS, &guest::grains(&disk, 4096), false),
        ),
    };
    bench.put("d-delta.vmdk", bytes);
    bench.put("d.vmdk", text(create_type, line, "d-delta.vmdk"));
    sound(&bench.check("d.vmdk"), kind);
    (bench, big + (2 << 20))
}

#[test]
fn cowd_extents() {
    // Table entry of a sector in the big file.
    let entry = |b: &[u8], at: usize| {
        let (gd, sector) = (u32_at(b, 20) as usize * 512, at / 512);
        let table = u32_at(b, gd + sector / 4096 * 4) as usize * 512;
        (gd + sector / 4096 * 4, table + sector % 4096 * 4)
    };
    type Change = fn(&mut Vec<u8>, (usize, usize));
    let cases: [(&str, &str, Change); 5] = [
        ("grain outside", "grain-outside-file", |b, (_, e)| {
            set(b, e, 0x00ff_ffff)
        }),
        ("grain inside", "grain-in-metadata", |b, (_, e)| {
            set(b, e, 1)
        }),
        ("table outside", "grain-table-outside-file", |b, (d, _)| {
            set(b, d, 0x00ff_ffff)
        }),
        ("table inside", "grain-table-in-metadata", |b, (d, _)| {
            set(b, d, 1)
        }),
        ("shared", "place-shared", |b, (_, e)| {
            let next = u32_at(b, e + 4);
            set(b, e, next);
        }),
    ];
    for (what, code, change) in cases {
        let (bench, at) = delta("cowd");
        bench.change("d-delta.vmdk", |b| change(b, entry(b, at)));
        let files = found(&bench.check("d.vmdk"), what, code, Damage);
        assert!(files.contains(&BIG.to_owned()), "{what}: {files:?}");
    }
    let (bench, _) = delta("cowd");
    bench.change("d-delta.vmdk", |b| set(b, 1648, 1));
    found(&bench.check("d.vmdk"), "open", "unclean-shutdown", Warning);

    let (bench, _) = delta("cowd");
    bench.change("d-delta.vmdk", |b| {
        let free = u32_at(b, 28) / 2;
        set(b, 28, free);
    });
    found(
        &bench.check("d.vmdk"),
        "free",
        "free-sector-in-use",
        Warning,
    );

    let (bench, _) = delta("cowd");
    bench.change("d-delta.vmdk", |b| set(b, 28, 0x00ff_ffff));
    found(
        &bench.check("d.vmdk"),
        "free",
        "free-sector-outside-file",
        Warning,
    );

    let (bench, _) = delta("cowd");
    bench.change("d-delta.vmdk", |b| b.truncate(b.len() - 100_000));
    let files = found(&bench.check("d.vmdk"), "cut", "grain-outside-file", Damage);
    assert_eq!(files, ["/p0/sub/last.bin"]);

    let (bench, _) = delta("cowd");
    bench.change("d-delta.vmdk", |b| set(b, 20, 0x00ff_ffff));
    found(
        &bench.check("d.vmdk"),
        "gd",
        "grain-directory-outside-file",
        Damage,
    );

    let (bench, _) = delta("cowd");
    bench.change("d-delta.vmdk", |b| b[0] = b'X');
    found(&bench.check("d.vmdk"), "magic", "extent-unusable", Damage);
}

#[test]
fn sesparse_extents() {
    let entry = |b: &[u8], at: usize| {
        let u64_at = |at: usize| u64::from_le_bytes(b[at..at + 8].try_into().unwrap()) as usize;
        let (gd, gts, grain) = (u64_at(128) * 512, u64_at(144) * 512, at / 4096);
        let table = u32_at(b, gd + grain / 4096 * 8) as usize * 32_768 + gts;
        (gd + grain / 4096 * 8, table + grain % 4096 * 8)
    };
    type Change = fn(&mut Vec<u8>, (usize, usize));
    let cases: [(&str, &str, Change); 5] = [
        ("grain outside", "grain-outside-file", |b, (_, e)| {
            set64(b, e, 3 << 60 | 0xffff_ffff);
        }),
        ("entry", "grain-entry-invalid", |b, (_, e)| {
            set64(b, e, 7 << 60)
        }),
        ("directory", "grain-directory-entry-invalid", |b, (d, _)| {
            set(b, d + 4, 0x7000_0000);
        }),
        ("table outside", "grain-table-outside-file", |b, (d, _)| {
            set(b, d, 0x00ff_ffff);
        }),
        ("shared", "place-shared", |b, (_, e)| {
            let next = u64::from_le_bytes(b[e + 8..e + 16].try_into().unwrap());
            set64(b, e, next);
        }),
    ];
    for (what, code, change) in cases {
        let (bench, at) = delta("sesparse");
        bench.change("d-delta.vmdk", |b| change(b, entry(b, at)));
        let files = found(&bench.check("d.vmdk"), what, code, Damage);
        // Where a whole table is gone, the FAT is gone with it.
        assert!(
            files.contains(&BIG.to_owned()) || what.contains("table") || what == "directory",
            "{what}: {files:?}"
        );
    }
    let (bench, _) = delta("sesparse");
    bench.change("d-delta.vmdk", |b| {
        let at = u64::from_le_bytes(b[80..88].try_into().unwrap()) as usize * 512;
        b[at + 24] = 1;
    });
    found(&bench.check("d.vmdk"), "journal", "journal-dirty", Damage);
}

#[test]
fn flat_extents() {
    let (disk, _) = guest::disk();
    let bench = Bench::new();
    bench.put("d-flat.vmdk", &disk);
    bench.put("d.vmdk", text("monolithicFlat", "FLAT", "d-flat.vmdk"));
    sound(&bench.check("d.vmdk"), "flat");
    bench.change("d-flat.vmdk", |b| b.truncate(6 << 20));
    let report = bench.check("d.vmdk");
    found(&report, "cut", "extent-cut-short", Damage);
    std::fs::remove_file(bench.path("d-flat.vmdk")).unwrap();
    found(&bench.check("d.vmdk"), "gone", "extent-unusable", Damage);
}
