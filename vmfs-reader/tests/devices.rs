//! Devices that are missing, cloned, of another version, or inside something else.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

mod support;

use disk_io::{Disk, ErrorKind, Result, Run, RunKind, Slice, SparseMemDisk};
use std::sync::Arc;
use support::*;
use vmfs_reader::{FdAddress, OpenOptions, Volume, build::Builder, probe};

const MIB: u64 = 1 << 20;

fn allow_missing() -> OpenOptions {
    OpenOptions {
        allow_missing: true,
        ..OpenOptions::default()
    }
}

/// A volume of three devices whose file lies on all of them.
fn spread(six: bool) -> Vec<Arc<dyn Disk>> {
    let b = if six {
        Builder::six("spread")
    } else {
        Builder::five("spread")
    };
    let mut b = b.devices(&[2, 1, 1]);
    let mut disk = SparseMemDisk::new(700 * MIB);
    for i in 0..350 {
        disk.put(i * 2 * MIB, &[(i % 255) as u8 + 1; 4096]);
    }
    b.file("over-all", Arc::new(disk), thick());
    b.bytes("small", b"on the head");
    b.disks()
}

#[test]
fn a_missing_device_is_an_error_and_never_zeros() {
    for six in [false, true] {
        let disks = spread(six);
        for missing in [1, 2] {
            let mut have = disks.clone();
            have.remove(missing);
            let e = Volume::open(&have, &OpenOptions::default()).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
            let volume = Volume::open(&have, &allow_missing()).unwrap();
            assert_eq!(volume.warnings().len(), 1, "{:?}", volume.warnings());
            assert_eq!(
                all(&volume.open_file(find(&volume, "small")).unwrap()).unwrap(),
                b"on the head"
            );
            let whole = open(&disks);
            let there = whole.open_file(find(&whole, "over-all")).unwrap();
            let file = volume.open_file(find(&volume, "over-all")).unwrap();
            let (mut good, mut bad) = (0, 0);
            for i in 0..700 {
                let (mut a, mut b) = (vec![0; MIB as usize], vec![1; MIB as usize]);
                there.read_exact_at(&mut b, i * MIB).unwrap();
                match file.read_exact_at(&mut a, i * MIB) {
                    Ok(()) => {
                        good += 1;
                        assert!(a == b, "MiB {i}");
                    }
                    Err(e) => {
                        bad += 1;
                        assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
                        let run = file.run_at(i * MIB).unwrap();
                        assert_eq!(run.kind, RunKind::Data, "never a hole");
                    }
                }
            }
            assert!(bad >= 8 && good > 300, "{good} {bad}");
        }
        let head_missing = Volume::open(&disks[1..], &allow_missing());
        assert!(head_missing.is_err());
    }
}

#[test]
fn clones_and_other_volumes_are_refused() {
    let disks = spread(true);
    let mut twice = disks.clone();
    twice.push(disks[1].clone());
    for options in [OpenOptions::default(), allow_missing()] {
        let e = Volume::open(&twice, &options).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
        assert!(e.to_string().contains("clone"), "{e}");
    }
    let mut other = Builder::six("other").seed(9);
    other.bytes("a", b"b");
    let mut mixed = disks.clone();
    mixed.extend(other.disks());
    let e = Volume::open(&mixed, &OpenOptions::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
    for name in ["other", "spread"] {
        let options = OpenOptions {
            volume: Some(name.into()),
            ..OpenOptions::default()
        };
        let volume = Volume::open(&mixed, &options).unwrap();
        assert_eq!(volume.superblock().label, name);
    }
    let e = Volume::open(&[filled(64 * MIB, 0)], &OpenOptions::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
}

fn error(disk: Arc<dyn Disk>) -> disk_io::DiskError {
    Volume::open(&[disk], &OpenOptions::default()).unwrap_err()
}

#[test]
fn versions_and_states() {
    let mut b = Builder::five("v");
    b.bytes("a", b"b");
    let disk = &b.disks()[0];
    let superblock = 0x110_0000 + 0x20_0000;
    for (at, value, words) in [
        (superblock + 4, 2u8, "VMFS-1 or VMFS-2"),
        (superblock + 4, 99, "major version 99"),
        (0x10_0004, 2, "VMFS-1 or VMFS-2"),
        (0x10_0004, 7, "LVM 7"),
    ] {
        let e = error(patch(disk, at, &[value]));
        assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
        assert!(e.to_string().contains(words), "{e}");
    }
    // Pending resignature, another snapshot number.
    let volume = open(&[patch(disk, 0x10_0200 + 0x10, &[2])]);
    assert!(
        volume.warnings()[0].contains("resignature"),
        "{:?}",
        volume.warnings()
    );
    let volume = open(&[patch(disk, 0x10_0200 + 0x64, &[5])]);
    assert_eq!(volume.warnings().len(), 2, "{:?}", volume.warnings());
    // LVM 3 and 4 differ in nothing that is read here.
    for version in [3, 4] {
        assert_eq!(
            all(&open(&[patch(disk, 0x10_0004, &[version])])
                .open_file(FdAddress(8 << 22 | 4))
                .unwrap())
            .unwrap(),
            b"b"
        );
    }
    // VMFS-L.
    assert!(open(&[patch(disk, superblock, &[0x5F])]).superblock().local);
}

#[test]
fn probes() {
    let mut b = Builder::six("probed").devices(&[1, 1]);
    b.bytes("a", b"b");
    let disks = b.disks();
    let head = probe::probe(&disks[0]).unwrap().unwrap();
    assert_eq!(head.label(), Some("probed"));
    let member = head.member.clone().unwrap();
    assert_eq!((member.first, member.devices, member.version), (0, 2, 6));
    let tail = probe::probe(&disks[1]).unwrap().unwrap();
    assert_eq!(tail.label(), None);
    assert_eq!(tail.member.unwrap().volume, member.volume);
    let bare = Builder::five("bare").without_lvm().disks();
    let bare = probe::probe(&bare[0]).unwrap().unwrap();
    assert!(bare.member.is_none() && bare.label() == Some("bare"));
    for other in [
        filled(4 * MIB, 0),
        filled(4 * MIB, 0xFF),
        filled(0, 0),
        filled(1000, 7),
    ] {
        assert!(probe::probe(&other).unwrap().is_none());
    }
}

#[test]
fn a_partition_of_a_whole_disk() {
    let mut b = Builder::five("cut");
    b.bytes("a", b"inside a partition");
    let device = b.disks().remove(0);
    // A caller cuts the partition; other readers do not know GPT at all.
    #[derive(Debug)]
    struct Behind(Arc<dyn Disk>);
    impl Disk for Behind {
        fn len(&self) -> u64 {
            self.0.len() + MIB
        }
        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            self.0.read_exact_at(buf, offset - MIB)
        }
        fn run_at(&self, offset: u64) -> Result<Run> {
            self.0.run_at(offset - MIB)
        }
    }
    let len = device.len();
    let whole: Arc<dyn Disk> = Arc::new(Behind(device));
    let volume = open(&[Arc::new(Slice::new(whole, MIB, len).unwrap())]);
    assert_eq!(
        all(&volume.open_file(find(&volume, "a")).unwrap()).unwrap(),
        b"inside a partition"
    );
}
