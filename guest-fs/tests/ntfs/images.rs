//! Volumes written by Windows and others, read whole and held against The Sleuth Kit.

use crate::{
    support::{Walk, images, open_at, sha, walk},
    tools::have,
};
use guest_fs::{FileSystem, NodeKind};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

/// Image, first sector, files and directories. The recorded counts of TSK are higher: they
/// include the root, $Extend and what is below it, and orphans.
const VOLUMES: &[(&str, u64, usize, usize)] = &[
    ("ntfs/crate-ntfs/testfs1", 0, 4, 513),
    ("ntfs/dfir_ntfs/file_4k.bin", 0, 4, 3),
    ("ntfs/dfir_ntfs/ntfs_index.raw", 128, 30, 4),
    ("ntfs/dfvfs/ntfs.raw", 0, 4, 1),
    ("ntfs/dissect/ntfs.bin", 0, 8, 2053),
    ("ntfs/util-linux/ntfs.img", 0, 0, 0),
    ("ntfs/dfir_ntfs/ntfs3.raw", 0, 2, 1),
    ("ntfs/dfir_ntfs/vss_1_vol/vss_1_vol.raw", 67_584, 3, 3),
    ("ntfs/dfir_ntfs/vss_2003/vss_2003.raw", 63, 41, 1),
    ("ntfs/dfvfs/vss.raw", 0, 10, 2),
    ("vmdk/vmdk-rs/monolithicFlat-flat.vmdk", 128, 3, 2),
    ("partition/libldm/ldm-2003r2-mirrored-1.img", 63, 2, 1),
    ("partition/libldm/ldm-2003r2-mirrored-2.img", 63, 2, 1),
    ("partition/libldm/ldm-2003r2-simple-1.img", 63, 2, 1),
];

/// Reads contents up to this length.
const LIMIT: u64 = 256 << 20;

/// What `fls` lists below the root, metafiles and orphans left out: path → inode.
fn fls(image: &Path, sector: u64) -> BTreeMap<String, String> {
    let out = Command::new("fls")
        .args(["-r", "-p", "-u", "-o", &sector.to_string()])
        .arg(image)
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(|line| {
            let (head, path) = line.split_once('\t')?;
            let inode = head.split_whitespace().last()?.trim_end_matches(':');
            let record: u64 = inode.split('-').next()?.parse().ok()?;
            let meta = record < 16 || path.starts_with("$Extend/") || path.starts_with("$Orphan");
            // Names that are left in the slack of an index, such as test/1.txt in ntfs3.raw:
            // the record is still in use, but no directory has the name (ntfs-3g agrees).
            let slack = line.starts_with("-/");
            (!meta && !slack).then(|| (path.to_string(), inode.to_string()))
        })
        .collect()
}

/// Our paths in TSK's manner: streams behind a colon.
fn flat(walk: &Walk) -> BTreeMap<String, Option<String>> {
    let mut out = BTreeMap::new();
    for (path, seen) in &walk.seen {
        let path = String::from_utf8_lossy(&path[1..]).into_owned();
        for (name, hash) in &seen.streams {
            let hash = hash.as_ref().ok().cloned();
            out.insert(format!("{path}:{}", name.as_str().unwrap()), hash);
        }
        let file = seen.metadata.kind != NodeKind::Directory;
        let hash = seen.contents.as_ref().ok().filter(|_| file).cloned();
        out.insert(path, hash);
    }
    out
}

#[test]
fn every_volume_reads_whole_and_as_the_sleuth_kit_reads_it() {
    let Some(dir) = images() else { return };
    let tsk = have(&["fls", "icat"]);
    for &(name, sector, files, dirs) in VOLUMES {
        let image = dir.join(name);
        let fs = open_at(&image, sector * 512, None).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(fs.info().remarks, Vec::<String>::new(), "{name}");
        let walk = walk(&fs, LIMIT);
        assert!(walk.errors.is_empty(), "{name}: {:?}", walk.errors);
        for (path, seen) in &walk.seen {
            let path = String::from_utf8_lossy(path);
            assert!(seen.contents.is_ok(), "{name}{path}: {:?}", seen.contents);
            assert!(
                seen.metadata.remarks.is_empty(),
                "{name}{path}: {:?}",
                seen.metadata.remarks
            );
            for (stream, contents) in &seen.streams {
                assert!(contents.is_ok(), "{name}{path}:{stream}: {contents:?}");
            }
        }
        let folders = |s: &&crate::support::Seen| s.metadata.kind == NodeKind::Directory;
        let found = walk.seen.values().filter(folders).count();
        assert_eq!((walk.seen.len() - found, found), (files, dirs), "{name}");
        if !tsk {
            continue;
        }
        let theirs = fls(&image, sector);
        let ours = flat(&walk);
        assert_eq!(
            ours.keys().collect::<BTreeSet<_>>(),
            theirs.keys().collect::<BTreeSet<_>>(),
            "{name}: names"
        );
        for (path, hash) in &ours {
            let Some(hash) = hash.as_ref().filter(|h| h.len() == 64) else {
                continue;
            };
            let out = Command::new("icat")
                .args(["-o", &sector.to_string()])
                .arg(&image)
                .arg(&theirs[path])
                .output()
                .unwrap();
            assert_eq!(*hash, sha(&out.stdout), "{name}/{path}");
        }
    }
}

#[test]
fn what_is_no_readable_volume_is_named() {
    let Some(dir) = images() else { return };
    let locked = open_at(&dir.join("ntfs/util-linux/bitlocker-win7.img"), 0, None).unwrap_err();
    assert!(locked.to_string().contains("BitLocker"), "{locked}");
    // The boot sector only: clusters of 2 MiB.
    let cut = open_at(&dir.join("ntfs/dissect/boot_2m.bin"), 0, None).unwrap_err();
    assert!(cut.to_string().contains("$MFT"), "{cut}");
    // Half of a spanned volume: said, and what is there is read.
    let half = open_at(
        &dir.join("partition/libldm/ldm-2003r2-spanned-2.img"),
        63 * 512,
        None,
    )
    .unwrap();
    let info = half.info();
    assert!(
        info.remarks[0].contains("cannot be read"),
        "{:?}",
        info.remarks
    );
    assert!(!walk(&half, LIMIT).errors.is_empty());
}
