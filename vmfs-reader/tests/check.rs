//! What the check finds when something is wrong: one thing at a time, and only that.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

mod support;

use disk_io::{Disk, MemDisk, Severity};
use std::sync::Arc;
use support::*;
use vmfs_reader::{CheckFound, Place, Volume, build::Builder};

const MIB: u64 = 1 << 20;

fn volume(six: bool) -> Arc<dyn Disk> {
    let b = if six {
        Builder::six("c")
    } else {
        Builder::five("c")
    };
    let mut b = b.without_lvm();
    b.file("a", Arc::new(MemDisk::new(vec![1; 3 << 20])), thick());
    b.file("b", Arc::new(MemDisk::new(vec![2; 3 << 20])), thick());
    for i in 0..30 {
        b.bytes(&format!("d/{i}"), &[i; 7000]);
    }
    b.disks().remove(0)
}

fn check(disk: Arc<dyn Disk>) -> Vec<CheckFound> {
    let mut findings = Vec::new();
    open(&[disk]).check(&mut |f| findings.push(f)).unwrap();
    findings
}

fn codes(findings: &[CheckFound]) -> Vec<&str> {
    findings.iter().map(|f| f.finding.code).collect()
}

/// Where a byte of a file lies on the volume.
fn place(volume: &Volume, path: &str, offset: u64) -> u64 {
    let file = volume.open_file(find(volume, path)).unwrap();
    match file.extent_at(offset).unwrap().place {
        Place::Stored(place) => place,
        other => panic!("{other:?}"),
    }
}

/// Changes bytes at a place by a function.
fn change(disk: &Arc<dyn Disk>, at: u64, with: impl Fn(u8) -> u8) -> Arc<dyn Disk> {
    let mut byte = [0];
    disk.read_exact_at(&mut byte, at).unwrap();
    patch(disk, at, &[with(byte[0])])
}

#[test]
fn a_clean_volume_has_no_findings() {
    for six in [false, true] {
        let findings = check(volume(six));
        assert!(findings.is_empty(), "{findings:#?}");
    }
}

#[test]
fn a_bit_in_each_bitmap() {
    for six in [false, true] {
        let disk = volume(six);
        let v = open(std::slice::from_ref(&disk));
        // The first bit of the first cluster of each: what it stands for is in use.
        let (meta, map) = if six { (0x1000, 0x80) } else { (0x200, 0x10) };
        for name in [".fbb.sf", ".fdc.sf", ".sbc.sf"] {
            let header = if six && name == ".fbb.sf" {
                0x2_0000
            } else {
                0x1_0000
            };
            let at = place(&v, name, header + meta + map);
            let findings = check(change(&disk, at, |b| b ^ 1));
            let words = format!("{findings:#?}");
            assert_eq!(findings.len(), 2, "{name} {words}");
            let free = match name {
                ".fdc.sf" => "vmfs-descriptor-called-free",
                _ => "vmfs-bitmap-free",
            };
            assert_eq!(codes(&findings), ["vmfs-free-count-wrong", free], "{words}");
            // One that is free is lost.
            let free = match (six, name) {
                (true, ".fbb.sf") => 63,
                (false, ".fbb.sf") => 20,
                _ => 7,
            };
            let last = place(&v, name, header + meta + map + free);
            let findings = check(change(&disk, last, |b| b & !1));
            let lost = findings
                .iter()
                .filter(|f| f.finding.severity == Severity::Note)
                .count();
            let words = format!("{findings:#?}");
            assert_eq!((lost, findings.len()), (1, 2), "{name} {words}");
        }
    }
}

#[test]
fn a_block_of_two_files() {
    for six in [false, true] {
        let disk = volume(six);
        let v = open(std::slice::from_ref(&disk));
        let (pointers, size) = if six { (0x1600, 8) } else { (0x400, 4) };
        let of = |name: &str| v.stat(find(&v, name)).unwrap().place + pointers;
        let mut pointer = vec![0; size];
        disk.read_exact_at(&mut pointer, of("a")).unwrap();
        let findings = check(patch(&disk, of("b"), &pointer));
        let words = format!("{findings:#?}");
        // Used twice, and what was there is lost.
        assert_eq!(findings.len(), 2, "{words}");
        assert_eq!(
            codes(&findings),
            ["vmfs-space-lost", "vmfs-blocks-shared"],
            "{words}"
        );
        assert_eq!(findings[1].paths, [b"a", b"b"], "{words}");
    }
}

#[test]
fn a_damaged_descriptor_and_entry() {
    for six in [false, true] {
        let disk = volume(six);
        let v = open(std::slice::from_ref(&disk));
        let stat = v.stat(find(&v, "a")).unwrap();
        // Its generation: the directory no longer means this file.
        let meta = if six { 0x1000 } else { 0x200 };
        let findings = check(patch(&disk, stat.place + meta + 4, &[9]));
        let words = format!("{findings:#?}");
        assert!(words.contains("generation 1"), "{words}");
        // Nobody else's: its blocks are not lost.
        assert_eq!(codes(&findings), ["vmfs-entry-stray"], "{words}");
        let findings = check(patch(&disk, stat.place, &[0; 16]));
        assert!(format!("{findings:#?}").contains("lock block"));
        if six {
            // A letter of a name in a hashed directory.
            let dir = v.open_file(find(&v, "d")).unwrap();
            let bytes = all(&dir).unwrap();
            let at = bytes.windows(3).rposition(|w| w == b"17\0").unwrap() as u64;
            let Place::Stored(at) = dir.extent_at(at).unwrap().place else {
                panic!()
            };
            let findings = check(patch(&disk, at, b"2"));
            assert!(
                format!("{findings:#?}").contains("hash of the name"),
                "{findings:#?}"
            );
        }
    }
}

#[test]
fn checks_what_is_large() {
    let mut b = Builder::six("large").devices(&[8]);
    b.file(
        "a",
        Arc::new(MemDisk::new(vec![1; (400 * MIB) as usize])),
        thick(),
    );
    let findings = check(b.disks().remove(0));
    assert!(findings.is_empty(), "{findings:#?}");
}

/// What real hosts wrote, with one thing wrong.
#[test]
fn real_volumes_with_damage() {
    let Some((base, _)) = images() else { return };
    let mut looked = 0;
    for (name, six) in [
        ("vmfs5-no-dense-sbpc.bin", false),
        ("vmfs5l.bin", false),
        ("zero5.bin", false),
        ("vmfs6.bin", true),
        ("vmfs6l.bin", true),
        ("zero6.bin", true),
    ] {
        let path = image(&base, name);
        let disk = host(&path);
        let v = open(std::slice::from_ref(&disk));
        let align = if six { 0x1000 } else { 0x200 };
        let found = tree(&v);
        let files = found.iter().filter(|(name, address)| {
            let stat = v.stat(**address).unwrap();
            !name.ends_with(".sf") && stat.kind == vmfs_reader::FileKind::File
        });
        for (name, address) in files.take(4) {
            let stat = v.stat(*address).unwrap();
            // Offsets on LVM are those of the device.
            let (at, _) = v.place_on(&disk, stat.place).unwrap();
            for (what, patched, code) in [
                (
                    "generation",
                    patch(&disk, at + align + 4, &[0xEE, 0xEE]),
                    "vmfs-entry-stray",
                ),
                ("lock", patch(&disk, at, &[0; 4]), "vmfs-descriptor-damaged"),
            ] {
                let findings = check(patched);
                let hit = findings.iter().find(|f| f.finding.code == code);
                let hit = hit.unwrap_or_else(|| panic!("{name} {what}: {findings:#?}"));
                assert_eq!(hit.paths, [name.trim_start_matches('/').as_bytes()]);
                looked += 1;
            }
        }
    }
    assert!(looked >= 16, "{looked}");
}
