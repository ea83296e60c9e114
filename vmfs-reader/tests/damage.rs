//! Disks that fail and metadata that is damaged.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

mod support;

use disk_io::{
    Disk, ErrorKind, RunKind, SparseMemDisk, conformance,
    faults::{Counting, FailAfter, FailRange},
};
use proptest::prelude::*;
use std::{
    ops::ControlFlow,
    sync::{Arc, OnceLock},
};
use support::*;
use vmfs_reader::{
    FileKind, OpenOptions, Place, Volume,
    build::{Builder, FileSpec, Provision},
};

const MIB: u64 = 1 << 20;

/// A volume, and the begin of each of its files.
type Victim = (Arc<dyn Disk>, Vec<(String, Vec<u8>)>);

/// A volume to damage: a bit of everything, as small as it gets.
fn victim(six: bool) -> &'static Victim {
    static VICTIMS: [OnceLock<Victim>; 2] = [const { OnceLock::new() }; 2];
    VICTIMS[usize::from(six)].get_or_init(|| {
        let b = if six {
            Builder::six("v")
        } else {
            Builder::five("v")
        };
        let mut b = b.without_lvm();
        let mut files = Vec::new();
        for (name, len, provision) in [
            ("tiny", 100u64, Provision::Small),
            ("dir/sub-block", 6000, Provision::Small),
            ("dir/blocks", 3 * MIB + 9, Provision::Thick),
            ("dir/thin", 400 * MIB, Provision::Thin),
        ] {
            let mut disk = SparseMemDisk::new(len);
            disk.put(0, &vec![0x77; len.min(5000) as usize]);
            if len > 100 * MIB {
                disk.put(390 * MIB, &[0x78; 5000]);
            }
            let disk: Arc<dyn Disk> = Arc::new(disk);
            let mut bytes = vec![0; len.min(4 * MIB) as usize];
            disk.read_exact_at(&mut bytes, 0).unwrap();
            files.push((name.to_owned(), bytes));
            b.file(
                name,
                disk,
                FileSpec {
                    provision,
                    ..FileSpec::default()
                },
            );
        }
        for i in 0..40 {
            b.bytes(&format!("many/{i}"), &[i; 10]);
        }
        (b.disks().remove(0), files)
    })
}

/// Where the metadata of the victim lies: descriptors, maps, directories.
fn metadata(volume: &Volume) -> Vec<(u64, u64)> {
    let mut ranges = vec![(0x20_0000, 512), (0x30_0000, 8192)];
    let fd_len = if volume.superblock().generation() == 6 {
        8192
    } else {
        2048
    };
    for (path, address) in tree(volume) {
        let stat = volume.stat(address).unwrap();
        ranges.push((stat.place, fd_len));
        if stat.kind == FileKind::Directory || path.ends_with(".sf") {
            let file = volume.open_file(address).unwrap();
            if let Place::Stored(at) = file.extent_at(0).unwrap().place {
                ranges.push((at, 80_000.min(file.len())));
            }
        }
    }
    ranges
}

/// Reads everything that a volume gives; returns what of the known files it gave.
fn use_all(volume: &Volume) -> Vec<(String, Vec<u8>)> {
    let mut got = Vec::new();
    let mut dirs = vec![(volume.root(), String::new())];
    let mut seen = 0;
    let _ = volume.heartbeats();
    let _ = volume.usage();
    while let Some((dir, path)) = dirs.pop() {
        let mut found = Vec::new();
        let _ = volume.read_dir(dir, &mut |e| {
            seen += 1;
            found.extend(e);
            if seen < 2000 {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        for entry in found {
            let name = format!("{path}{}", String::from_utf8_lossy(&entry.name));
            let Ok(stat) = volume.check_entry(&entry) else {
                continue;
            };
            let _ = volume.lookup(dir, &entry.name);
            let _ = volume.lock_state(entry.address);
            let _ = volume.parent(entry.address);
            if stat.kind == FileKind::Directory && path.len() < 40 {
                dirs.push((entry.address, format!("{name}/")));
                continue;
            }
            let Ok(file) = volume.open_file(entry.address) else {
                continue;
            };
            let mut at = 0;
            for _ in 0..50 {
                let Ok(run) = file.run_at(at) else { break };
                assert!(run.len > 0 && at + run.len <= file.len());
                at += run.len;
                if at >= file.len() {
                    break;
                }
            }
            let mut bytes = vec![0; file.len().min(4 * MIB) as usize];
            if file.read_exact_at(&mut bytes, 0).is_ok() {
                got.push((name, bytes));
            }
        }
    }
    let mut findings = 0;
    let _ = volume.check(&mut |_| findings += 1);
    let mut deleted = 0;
    let _ = volume.deleted(&mut |_| {
        deleted += 1;
        if deleted < 1000 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    got
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Damage never panics or hangs. Damage to structures that carry a check of their own
    /// (descriptors' addresses, entries' places and hashes) never gives another file.
    #[test]
    fn random_damage(
        six: bool,
        spots in prop::collection::vec((any::<u64>(), any::<u64>(), any::<[u8; 8]>(), 1usize..8), 1..12),
    ) {
        let (disk, _) = victim(six);
        let ranges = metadata(&open(std::slice::from_ref(disk)));
        let patches = spots
            .into_iter()
            .map(|(which, inside, bytes, n)| {
                let (start, len) = ranges[(which % ranges.len() as u64) as usize];
                (start + inside % len, bytes[..n].to_vec())
            })
            .collect();
        let damaged: Arc<dyn Disk> = Arc::new(Patched(disk.clone(), patches));
        if let Ok(volume) = Volume::open(&[damaged], &OpenOptions::default()) {
            use_all(&volume);
        }
    }
}

/// Every descriptor, directory and resource header overwritten with zeros, each in turn: the
/// files that are still given are the right ones.
#[test]
fn lost_metadata_is_never_zeros() {
    for six in [false, true] {
        let (disk, files) = victim(six);
        for (start, len) in metadata(&open(std::slice::from_ref(disk))) {
            let damaged = patch(disk, start, &vec![0; len as usize]);
            let Ok(volume) = Volume::open(&[damaged], &OpenOptions::default()) else {
                continue;
            };
            for (name, bytes) in use_all(&volume) {
                if let Some((_, right)) = files.iter().find(|(n, _)| *n == name) {
                    assert!(bytes == *right, "{name} after {len} zeros at {start:#x}");
                }
            }
        }
    }
}

#[test]
fn failing_disks() {
    for six in [false, true] {
        let (disk, files) = victim(six);
        for n in (0..60).chain((60..600).step_by(13)) {
            let failing: Arc<dyn Disk> = Arc::new(FailAfter::new(disk.clone(), n));
            let Ok(volume) = Volume::open(&[failing], &OpenOptions::default()) else {
                continue;
            };
            for (name, bytes) in use_all(&volume) {
                if let Some((_, right)) = files.iter().find(|(f, _)| *f == name) {
                    assert!(bytes == *right, "{name} after {n} operations");
                }
            }
        }
        // A bad sector in the data is an error there, and nowhere else.
        let volume = open(std::slice::from_ref(disk));
        let address = find(&volume, "dir/blocks");
        let file = volume.open_file(address).unwrap();
        let Place::Stored(at) = file.extent_at(MIB).unwrap().place else {
            panic!()
        };
        let bad: Arc<dyn Disk> = Arc::new(FailRange::new(disk.clone(), at..at + 512));
        let file = open(&[bad]).open_file(address).unwrap();
        assert_eq!(
            file.read_exact_at(&mut [0; 512], MIB).unwrap_err().kind(),
            ErrorKind::Io
        );
        file.read_exact_at(&mut [0; 512], MIB + 512).unwrap();
        file.read_exact_at(&mut [0; 512], 0).unwrap();
    }
}

/// Addresses of kinds and lengths that cannot be are errors with their place.
#[test]
fn wrong_pointers() {
    for (six, pointer, cases) in [
        (false, 4usize, vec![6u64, 7, 0xFFFF_FFC1, 4, 0x1003, 9]),
        (
            true,
            8,
            vec![
                8,
                6,
                4,
                1 | 1 << 46,
                1 | 0x0F << 7,
                1 | 0x7FFF_FFFF << 15,
                7 | 3 << 7,
            ],
        ),
    ] {
        let (disk, _) = victim(six);
        let volume = open(std::slice::from_ref(disk));
        for name in ["dir/blocks", "dir/thin"] {
            let address = find(&volume, name);
            let place = volume.stat(address).unwrap().place + if six { 0x1600 } else { 0x400 };
            for case in &cases {
                let bytes = case.to_le_bytes();
                let damaged = open(&[patch(disk, place, &bytes[..pointer])]);
                let file = damaged.open_file(address).unwrap();
                let e = file.read_exact_at(&mut [0; 512], 0).unwrap_err();
                assert!(
                    matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported),
                    "{name} {case:#x}: {e}"
                );
                assert!(e.file_name().is_some() && e.at().is_some(), "{e}");
                assert_eq!(file.run_at(0).unwrap().kind, RunKind::Data);
            }
        }
    }
}

/// The descriptor counts the blocks that a file has, and those that are to be zeroed.
#[test]
fn pointers_that_its_counters_deny() {
    for six in [false, true] {
        let (disk, _) = victim(six);
        let volume = open(std::slice::from_ref(disk));
        let (width, zeroing) = if six { (8, 1 << 7) } else { (4, 1 << 5) };
        for (name, hole_is_told) in [("dir/blocks", true), ("dir/thin", false)] {
            let address = find(&volume, name);
            let descriptor = volume.stat(address).unwrap().place;
            let place = descriptor + if six { 0x1600 } else { 0x400 };
            let mut pointer = [0; 8];
            disk.read_exact_at(&mut pointer[..width], place).unwrap();
            let pointer = u64::from_le_bytes(pointer);
            // The other file's pointers lead to pointer blocks.
            let zeroed = hole_is_told.then_some((pointer | zeroing, true));
            for (bytes, told) in [(0, hole_is_told)].into_iter().chain(zeroed) {
                let bytes: u64 = bytes;
                let damaged = patch(disk, place, &bytes.to_le_bytes()[..width]);
                let file = open(&[damaged]).open_file(address).unwrap();
                let read = file.read_exact_at(&mut [0; 512], 0);
                assert_eq!(read.is_err(), told, "{name} {bytes:#x}: {read:?}");
                if let Err(e) = read {
                    assert!(e.to_string().contains("as the descriptor counts"), "{e}");
                }
            }
        }
    }
}

/// A directory that says that it has no name has those that are there.
#[test]
fn directories_whose_count_is_wrong() {
    let (disk, _) = victim(true);
    let volume = open(std::slice::from_ref(disk));
    let whole = tree(&volume);
    let many = find(&volume, "many");
    let Place::Stored(at) = volume.open_file(many).unwrap().extent_at(0).unwrap().place else {
        panic!("a directory without a place");
    };
    for count in [0u8, 2, 3, 200] {
        let damaged = open(&[patch(disk, at + 4, &[count])]);
        let (mut names, mut errors) = (0, 0);
        let result = damaged.read_dir(many, &mut |entry| {
            match entry {
                Ok(_) => names += 1,
                Err(_) => errors += 1,
            }
            ControlFlow::Continue(())
        });
        result.unwrap();
        assert_eq!((names, errors), (40, 1), "{count}");
    }
    assert!(whole.len() > 40);
}

/// No volume with large blocks is known. What the two readings of the format agree on is
/// read, and the rest is an error.
#[test]
fn large_blocks() {
    let mut b = Builder::six("large").devices(&[16]).without_lvm();
    b.file("f", filled(3 * MIB, 1), thick());
    let disk = b.disks().remove(0);
    let volume = open(std::slice::from_ref(&disk));
    let address = find(&volume, "f");
    let place = volume.stat(address).unwrap().place + 0x1600;
    let large = |n: u64, zero: u64| (7 | n << 15 | zero << 7).to_le_bytes();
    let same = [large(3, 0), large(3, 0), large(3, 0)].concat();
    let file = open(&[patch(&disk, place, &same)])
        .open_file(address)
        .unwrap();
    match file.extent_at(0).unwrap() {
        vmfs_reader::Extent {
            len,
            place: Place::Stored(at),
        } => {
            assert_eq!((len, at), (3 * MIB, 3 * 512 * MIB));
        }
        other => panic!("{other:?}"),
    }
    let zero = [large(3, 0xFF), large(3, 0xFF), large(3, 0xFF)].concat();
    let zeroing = patch(&patch(&disk, place, &zero), place - 0x1600 + 0x1048, &[3]);
    let file = open(&[zeroing]).open_file(address).unwrap();
    assert_eq!(file.run_at(0).unwrap().kind, RunKind::Zero);
    let other = [large(3, 0), large(4, 0), large(5, 0)].concat();
    let file = open(&[patch(&disk, place, &other)])
        .open_file(address)
        .unwrap();
    assert!(file.read_exact_at(&mut [0; 512], 0).is_ok());
    let e = file.read_exact_at(&mut [0; 512], MIB).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
}

#[test]
fn holes_cost_nothing() {
    let mut b = Builder::six("holes");
    let thin = FileSpec {
        provision: Provision::Thin,
        ..FileSpec::default()
    };
    b.file("hole", Arc::new(SparseMemDisk::new(42 << 40)), thin);
    let counting = Arc::new(Counting::new(b.disks().remove(0)));
    let disk: Arc<dyn Disk> = counting.clone();
    let volume = open(&[disk]);
    let file = volume.open_file(find(&volume, "hole")).unwrap();
    let (reads, _) = counting.so_far();
    assert_eq!(data_runs(&file), []);
    assert_eq!(file.run_at(5).unwrap().kind, RunKind::Unallocated);
    assert_eq!(counting.so_far().0, reads, "walking a hole reads nothing");
    conformance::check_rules(&file);
}
