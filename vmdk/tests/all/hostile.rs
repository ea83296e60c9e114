//! Images made by an attacker: refused at once, with a sentence that says why.

use crate::{
    build::{Chain, Kind},
    common::MemDir,
};
use disk_io::{Disk, ErrorKind, HostDir, SparseMemDisk, host_dir::Allowed};
use proptest::prelude::*;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use vmdk::{
    Image, OpenOptions,
    write::{Cell, descriptor::Text, hosted},
};

fn text(extents: &[&str]) -> String {
    Text {
        cid: 1,
        parent: None,
        create_type: "custom",
        extents: extents.iter().map(|e| (*e).to_owned()).collect(),
    }
    .encode()
}

fn quickly<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = f();
    let took = start.elapsed();
    assert!(took < Duration::from_millis(500), "{what} took {took:?}");
    result
}

#[test]
fn descriptors() {
    let cases: &[(&[&str], ErrorKind, &str)] = &[
        (
            &["RW 8 FLAT \"/etc/passwd\" 0"],
            ErrorKind::Refused,
            "/etc/passwd",
        ),
        (
            &["RW 8 FLAT \"../../etc/passwd\" 0"],
            ErrorKind::Refused,
            "etc/passwd",
        ),
        (
            &["RW 8 FLAT \"/dev/sda\" 0"],
            ErrorKind::Refused,
            "--allow-device",
        ),
        (
            &["RW 8 VMFSRAW \"/vmfs/devices/disks/naa.1\""],
            ErrorKind::Refused,
            "--allow-device",
        ),
        (
            &["RW 8 VMFSRDM \"x-rdm.vmdk\""],
            ErrorKind::Unsupported,
            "raw device mapping",
        ),
        (
            &["RW 8 VSANSPARSE \"x\""],
            ErrorKind::Unsupported,
            "vsanSparse",
        ),
        (
            &["RW 8 VMFS \"vsan://1234\""],
            ErrorKind::Unsupported,
            "vsan://",
        ),
        (&["RW 8 HOLOGRAM \"x\""], ErrorKind::Unsupported, "HOLOGRAM"),
        (&["RW 9223372036854775808 ZERO"], ErrorKind::Corrupt, "2^63"),
        (&["RW 18014398509481984 ZERO"], ErrorKind::Corrupt, "2^63"),
        (&["RW 18014398509481983 ZERO"], ErrorKind::Refused, "1 PiB"),
        (
            &["RW 1099511627776 ZERO", "RW 1099511627777 ZERO"],
            ErrorKind::Refused,
            "1 PiB",
        ),
        (
            &["RW 8 FLAT \"small\" 36028797018963968"],
            ErrorKind::Corrupt,
            "2^63",
        ),
        (
            &["RW 8 SPARSE \"small\""],
            ErrorKind::Corrupt,
            "something else",
        ),
        (
            &["RW 8 SPARSE \"a.vmdk\""],
            ErrorKind::Corrupt,
            "a VMDK descriptor",
        ),
        (&[], ErrorKind::Corrupt, "at least one extent"),
        (&["RW 8 FLAT \"missing\" 0"], ErrorKind::NotFound, "missing"),
    ];
    for (extents, kind, word) in cases {
        let mut dir = MemDir::default();
        dir.put("a.vmdk", text(extents)).put("small", vec![1; 512]);
        let e = quickly("a descriptor", || dir.image("a.vmdk")).unwrap_err();
        println!("{e}");
        assert_eq!(e.kind(), *kind, "{extents:?}: {e}");
        assert!(e.to_string().contains(word), "{extents:?}: {e}");
    }
}

#[test]
fn millions_of_extents() {
    let ten_million = "RW 1 ZERO\n".repeat(10_000_000);
    let mut dir = MemDir::default();
    dir.put("a.vmdk", format!("{}{ten_million}", text(&[])));
    let e = quickly("ten million extents", || dir.image("a.vmdk")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
    let million = &ten_million[..10_000_000];
    dir.put("a.vmdk", format!("{}{million}", text(&[])));
    let e = quickly("a million extents", || dir.image("a.vmdk")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
}

#[test]
fn as_many_extents_as_are_allowed() {
    let lines = "RW 1 FLAT \"f\" 3\nRW 1 ZERO\n".repeat(32_768);
    let mut dir = MemDir::default();
    dir.put("a.vmdk", format!("{}{lines}", text(&[])));
    let file: Vec<u8> = (0..4 * 512).map(|i| (i / 512 + 1) as u8).collect();
    dir.put("f", file);
    let image = dir.image("a.vmdk").unwrap();
    let disk = image.disk();
    assert_eq!(disk.len(), 65_536 * 512);
    let mut buf = vec![0; 1024];
    for at in [0, 1024, disk.len() - 1024] {
        disk.read_exact_at(&mut buf, at).unwrap();
        assert!(buf[..512] == [4; 512] && buf[512..] == [0; 512], "{at}");
    }
}

#[test]
fn extents_in_their_places() {
    let mut dir = MemDir::default();
    dir.put(
        "a.vmdk",
        text(&[
            "RW 2 FLAT \"f\" 1",
            "RW 3 ZERO",
            "NOACCESS 1 FLAT \"gone\" 0",
            "RDONLY 1 FLAT \"f\" 0",
            "NOACCESS 0 ZERO",
            r#"RW 1 VMFS "C:\gone\f" 2"#,
        ]),
    );
    let file: Vec<u8> = (0..3 * 512).map(|i| (i / 512 + 1) as u8).collect();
    dir.put("f", file);
    let image = dir.image("a.vmdk").unwrap();
    // A file that lies elsewhere, and a sector that is in two extents.
    assert_eq!(image.warnings().len(), 2);
    let disk = image.disk();
    assert_eq!(disk.len(), 8 * 512);
    let sector = |n: u64| {
        let mut buf = [9; 512];
        disk.read_exact_at(&mut buf, n * 512).map(|()| buf[511])
    };
    let read: Vec<_> = (0..8).map(|n| sector(n).map_err(|e| e.kind())).collect();
    let no = Err(ErrorKind::Refused);
    assert_eq!(read, [Ok(2), Ok(3), Ok(0), Ok(0), Ok(0), no, Ok(1), Ok(3)]);
}

/// A digit that is wrong in a line cuts the disk short and moves what follows; a lost line too.
#[test]
fn a_text_that_its_files_contradict_is_told() {
    let open = |lines: &[&str]| {
        let mut dir = MemDir::default();
        dir.put("a.vmdk", text(lines));
        dir.put("f", vec![1; 8 * 512]);
        dir.put("g", vec![2; 8 * 512]);
        dir.image("a.vmdk")
    };
    let sound = open(&["RW 8 FLAT \"f\" 0", "RW 8 FLAT \"g\" 0"]).unwrap();
    assert!(sound.warnings().is_empty() && sound.doubts().is_empty());
    let cut = open(&["RW 4 FLAT \"f\" 0", "RW 8 FLAT \"g\" 0"]).unwrap();
    assert_eq!(cut.doubts().len(), 1, "{:?}", cut.doubts());
    assert!(cut.doubts()[0].contains("only the first 2048"));
    let geometry = [
        "ddb.geometry.cylinders = \"4\"",
        "ddb.geometry.heads = \"2\"",
        "ddb.geometry.sectors = \"2\"",
    ];
    let lost = open(&[&["RW 8 FLAT \"f\" 0"][..], &geometry].concat()).unwrap();
    assert!(
        lost.warnings()[0].contains("longer disk"),
        "{:?}",
        lost.warnings()
    );
    // The one that is written for any disk tells nothing, but of a split disk a line may be lost.
    let geometry_of_any = [
        "ddb.geometry.cylinders = \"16383\"",
        "ddb.geometry.heads = \"16\"",
        "ddb.geometry.sectors = \"63\"",
    ];
    for (kind, warnings, notes) in [("monolithicFlat", 0, 1), ("twoGbMaxExtentFlat", 1, 0)] {
        let lines = [&["RW 8 FLAT \"f\" 0"][..], &geometry_of_any].concat();
        let mut dir = MemDir::default();
        dir.put("a.vmdk", text(&lines).replace("custom", kind));
        dir.put("f", vec![1; 8 * 512]);
        let image = dir.image("a.vmdk").unwrap();
        assert_eq!(image.warnings().len(), warnings, "{:?}", image.warnings());
        let mut found = Vec::new();
        let link = &image.links()[0];
        link.check(&mut |f| found.push(f.code)).unwrap();
        assert_eq!(
            found.iter().filter(|c| **c == "geometry-of-any").count(),
            notes
        );
    }
    let whole = ["RW 8 FLAT \"f\" 0", "RW 8 FLAT \"g\" 0"];
    let whole = open(&[&whole[..], &geometry].concat()).unwrap();
    assert!(whole.warnings().is_empty(), "{:?}", whole.warnings());
    // An extent behind another, in a comment, behind a NUL.
    for line in [
        "RW 8 FLAT \"f\" 0\u{b}RW 8 FLAT \"g\" 0",
        "RW 8 FLAT \"f\" 0\n# Extent descriptionRW 8 FLAT \"g\" 0",
        "RW 8 FLAT \"f\" 0\n\0RW 8 FLAT \"g\" 0",
    ] {
        let e = open(&[line]).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    }
}

#[test]
fn symbolic_links_do_not_lead_out() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("a.vmdk");
    std::fs::write(&source, text(&["RW 1 FLAT \"link\" 0"])).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
    let opened = HostDir::open_source(&source, &Allowed::default()).unwrap();
    let e = quickly("a link", || Image::open(opened, &OpenOptions::default())).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
}

#[test]
fn headers() {
    let options = hosted::Options {
        descriptor: Some(text(&["RW 512 SPARSE \"a.vmdk\""])),
        ..Default::default()
    };
    let good = hosted::encode(&options, 512, &[(0, Cell::Data(vec![1]))]);
    let u64s = [
        0u64,
        1,
        1 << 31,
        1 << 32,
        1 << 54,
        1 << 62,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];
    for field in [12, 20, 28, 36, 48, 56, 64] {
        for value in u64s {
            let mut bytes = good.clone();
            bytes[field..field + 8].copy_from_slice(&value.to_le_bytes());
            let mut dir = MemDir::default();
            dir.put("a.vmdk", bytes);
            quickly("a header", || {
                if let Ok(image) = dir.image("a.vmdk") {
                    let disk = image.disk();
                    let mut at = 0;
                    for _ in 0..100 {
                        if at >= disk.len() {
                            break;
                        }
                        let _ = disk.read_exact_at(&mut [0; 16], at.min(disk.len() - 16));
                        at += disk.run_at(at).unwrap().len;
                    }
                }
            });
        }
    }
}

/// 2^62 bytes of nothing, with a directory that would be as large.
#[test]
fn huge_files() {
    for (len, capacity) in [
        (1u64 << 62, 1u64 << 53),
        (1 << 50, 1 << 50),
        (1 << 40, 1 << 32),
    ] {
        let options = hosted::Options {
            descriptor: None,
            ..Default::default()
        };
        let mut header = hosted::encode(&options, 128, &[]);
        header[12..20].copy_from_slice(&capacity.to_le_bytes());
        let mut disk = SparseMemDisk::new(len);
        disk.put(0, &header);
        let mut dir = MemDir::default();
        dir.put_disk("a.vmdk", Arc::new(disk));
        quickly("a huge file", || {
            if let Ok(image) = dir.image("a.vmdk") {
                let disk = image.disk();
                let _ = disk.read_exact_at(&mut [0; 512], disk.len() / 2);
                let _ = disk.run_at(disk.len() - 1).unwrap();
            }
        });
    }
}

#[test]
fn encrypted_disks_are_named() {
    for line in [
        "encryption.keySafe = \"vmware:key/list/()\"\nencryption.data = \"abc\"",
        "keyID=\"1234\"\nRW 8 VMFS \"x\"",
        "RW 8 VMFS \"x\"\nddb.iofilters = \"vmwarevmcrypt\"",
    ] {
        let mut dir = MemDir::default();
        dir.put(
            "a.vmdk",
            format!("# Disk DescriptorFile\nversion=1\n{line}\n"),
        );
        let e = dir.image("a.vmdk").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
        assert!(e.to_string().contains("encrypted"), "{e}");
    }
}

fn damaged() -> impl Strategy<Value = (usize, Vec<(usize, u8)>, Option<usize>)> {
    (
        0..crate::build::ALL.len(),
        prop::collection::vec((0usize..20_000, any::<u8>()), 1..8),
        prop::option::of(0usize..100_000),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Flipped and cut: an answer of some kind, no panic, and soon.
    #[test]
    fn damage((kind, flips, cut) in damaged()) {
        let kind = crate::build::ALL[kind];
        let mut chain = Chain::new(300);
        chain.add_regular(kind, 2);
        chain.add_regular(Kind::SparseV2, 3);
        let mut dir = chain.dir.clone();
        let (name, bytes) = &chain.files[0];
        let mut bytes = bytes.clone();
        let len = bytes.len();
        for (at, value) in flips {
            bytes[at % len] ^= value;
        }
        if let Some(cut) = cut {
            bytes.truncate(len.saturating_sub(cut));
        }
        dir.put(name, bytes);
        quickly("damage", || {
            if let Ok(image) = dir.image(chain.name()) {
                let disk = image.disk();
                prop_assert!(disk.len() == chain.bytes.len() as u64);
                let mut buf = [0; 4096];
                for at in (0..disk.len()).step_by(4096) {
                    let n = buf.len().min((disk.len() - at) as usize);
                    let _ = disk.read_exact_at(&mut buf[..n], at);
                }
                let _ = image.links()[0].count();
            }
            Ok(())
        })?;
    }

    #[test]
    fn any_text_parses_or_fails(text in "(RW|CID|=|\"|[ 0-9a-zA-Z#\n\t.\\\\/-]){0,200}") {
        let _ = vmdk::Descriptor::parse(text.as_bytes(), "t");
    }
}
