//! What every image of the collection holds, against `blkid`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod volume_common;

use guest_fs::{FsKind, volume};
use std::{collections::HashMap, path::Path, process::Command};
use volume_common::{disk, have, images};

fn blkid(path: &Path, offset: u64) -> HashMap<String, String> {
    let out = Command::new("blkid")
        .args(["-p", "-o", "udev", "-O", &offset.to_string()])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(|l| l.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

fn kind(of: &HashMap<String, String>) -> Option<FsKind> {
    Some(match of.get("ID_FS_TYPE")?.as_str() {
        "ntfs" => FsKind::Ntfs,
        "exfat" => FsKind::ExFat,
        "ext2" => FsKind::Ext2,
        "ext3" => FsKind::Ext3,
        "ext4" => FsKind::Ext4,
        "xfs" => FsKind::Xfs,
        "btrfs" => FsKind::Btrfs,
        "BitLocker" => FsKind::BitLocker,
        "LVM2_member" => FsKind::Lvm2,
        "swap" => FsKind::Swap,
        "VMFS" | "VMFS_volume_member" => FsKind::Vmfs,
        "vfat" => match of.get("ID_FS_VERSION").map(String::as_str) {
            Some("FAT12") => FsKind::Fat12,
            Some("FAT16") => FsKind::Fat16,
            _ => FsKind::Fat32,
        },
        // Recognised by blkid as parts of other file systems.
        "jbd" | "xfs_external_log" => return None,
        other => panic!("unknown to this test: {other}"),
    })
}

/// udev's escaping of what blkid found.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&b, more)) = rest.split_first() {
        if b == b'\\' && more.len() >= 3 && more[0] == b'x' {
            let hex = std::str::from_utf8(&more[1..3]).unwrap();
            out.push(u8::from_str_radix(hex, 16).unwrap());
            rest = &more[3..];
        } else {
            out.push(b);
            rest = more;
        }
    }
    out
}

/// What blkid does not see, and why.
const EXPLAINED: &[(&str, FsKind, &str)] = &[
    (
        "vmfs/dissect/vmfs/vmfs5ld.bin",
        FsKind::Vmfs,
        "blkid does not know VMFS-L",
    ),
    (
        "vmfs/dissect/vmfs/vmfs6ld.bin",
        FsKind::Vmfs,
        "blkid does not know VMFS-L",
    ),
    (
        "ntfs/dissect/boot_2m.bin",
        FsKind::Ntfs,
        "blkid does not know clusters over 64 KiB",
    ),
    (
        "fat/dfir_ntfs/fat12_bs.bin",
        FsKind::Fat12,
        "a boot sector alone is too short for blkid",
    ),
    (
        "fat/dfir_ntfs/fat16_edge.bin",
        FsKind::Fat16,
        "a boot sector alone is too short for blkid",
    ),
    (
        "fat/dfir_ntfs/fat32_bs.bin",
        FsKind::Fat32,
        "a boot sector alone is too short for blkid",
    ),
    (
        "fat/dfir_ntfs/fat32_bs_dirty.bin",
        FsKind::Fat32,
        "a boot sector alone is too short for blkid",
    ),
    (
        "fat/dfir_ntfs/fat64.raw",
        FsKind::Fat32,
        "blkid does not know the 64-bit sector count",
    ),
    (
        "partition/libldm/",
        FsKind::Ldm,
        "blkid does not know dynamic disks",
    ),
    (
        "partition/libldm/",
        FsKind::Ntfs,
        "blkid wants the whole volume to be there; this is a part of one",
    ),
];

#[test]
fn every_volume_of_the_collection_is_what_blkid_says() {
    let Some((dir, index)) = images() else { return };
    if !have("blkid") {
        return;
    }
    let mut compared = 0;
    let mut wrong = Vec::new();
    for image in &index {
        let path = image["path"].as_str().unwrap();
        let full = dir.join(path);
        if image["format"] != "raw" || !full.is_file() {
            continue;
        }
        let whole = disk(&full);
        let table = guest_fs::partition::read(&whole);
        let mut places = vec![(0, whole.clone())];
        if let Ok(table) = table {
            for p in table.partitions.iter().filter(|p| !p.extended) {
                places.push((p.start, p.open(&whole).unwrap()));
            }
        }
        for (offset, part) in places {
            if part.is_empty() {
                continue;
            }
            let of = blkid(&full, offset);
            let found = volume::recognise(&part).unwrap();
            let expected = kind(&of);
            let explained = found.as_ref().is_some_and(|f| {
                let this = |(p, k, _): &&(&str, FsKind, &str)| path.starts_with(p) && *k == f.kind;
                EXPLAINED.iter().any(|e| this(&e))
            });
            if expected.is_none() && explained {
                continue;
            }
            if found.as_ref().map(|f| f.kind) != expected {
                wrong.push(format!("{path}@{offset}: {found:?}, blkid {of:?}"));
                continue;
            }
            let Some(found) = found else { continue };
            compared += 1;
            let uuid = of.get("ID_FS_UUID").cloned();
            let sub = of.get("ID_FS_UUID_SUB").cloned();
            if found.uuid != uuid && found.uuid != sub {
                wrong.push(format!("{path}@{offset}: {:?}, blkid {uuid:?}", found.uuid));
            }
            let label = of.get("ID_FS_LABEL_ENC").map(|l| unescape(l));
            if found.label.as_ref().map(|l| l.as_bytes().to_vec()) != label {
                wrong.push(format!(
                    "{path}@{offset}: label {:?}, blkid {:?}",
                    found.label,
                    of.get("ID_FS_LABEL_ENC")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared >= 150, "only {compared} volumes compared");
}
