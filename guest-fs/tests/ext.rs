//! ext2, ext3 and ext4 against volumes made by `mke2fs`, edited by `debugfs`, and against
//! the image collection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use disk_io::{Disk, HostDir, MemDisk, host_dir::Allowed};
use guest_fs::{FileSystem, Name, NodeId, NodeKind, OpenOptions, ext::Ext};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    os::unix::fs::{FileExt, MetadataExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

/// Whether a tool is there; a missing one is a visible skip, or a failure where required.
fn have(tool: &str) -> bool {
    let found = Command::new(tool).arg("-V").output().is_ok();
    if !found {
        let required = std::env::var("VMDKIT_REQUIRE").is_ok_and(|r| r.contains("peers"));
        assert!(!required, "{tool} is required and not installed");
        eprintln!("skipped: {tool} is not installed");
    }
    found
}

fn open(path: &Path) -> Ext {
    let disk = HostDir::open_source(path, &Allowed::default())
        .unwrap()
        .disk;
    Ext::open(disk, &OpenOptions::default()).unwrap()
}

/// Every path of a volume with its node; damage is a panic.
fn walk(fs: &Ext) -> BTreeMap<PathBuf, NodeId> {
    let mut out = BTreeMap::new();
    let mut todo = vec![(PathBuf::new(), fs.root())];
    while let Some((path, dir)) = todo.pop() {
        fs.read_dir(dir, &mut |entry| {
            let entry = entry.unwrap();
            let child = path.join(entry.name.as_os_str());
            if entry.kind == NodeKind::Directory {
                todo.push((child.clone(), entry.node));
            }
            out.insert(child, entry.node);
            ControlFlow::Continue(())
        })
        .unwrap_or_else(|e| panic!("{path:?}: {e}"));
    }
    out
}

fn read(fs: &Ext, node: NodeId) -> Vec<u8> {
    let disk = fs.open(node, None).unwrap();
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Nothing speaks against anything on a sound volume.
fn assert_sound(fs: &Ext, which: &str) {
    let root = (PathBuf::from("/"), fs.root());
    for (path, node) in walk(fs).into_iter().chain([root]) {
        assert_eq!(fs.doubts(node), [""; 0], "{path:?} of {which}");
    }
}

fn make_tree(dir: &Path) {
    fs::create_dir_all(dir.join("deep/er/still")).unwrap();
    fs::write(dir.join("empty"), b"").unwrap();
    fs::write(dir.join("tiny"), b"fits in the inode").unwrap();
    fs::write(dir.join("medium"), vec![0x5a; 100_001]).unwrap();
    let big: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(dir.join("deep/big"), &big).unwrap();
    let sparse = fs::File::create(dir.join("deep/sparse")).unwrap();
    sparse.write_all_at(b"end", 50_000_000).unwrap();
    sparse.write_all_at(b"middle", 25_000_000).unwrap();
    symlink("tiny", dir.join("short-link")).unwrap();
    symlink("x/".repeat(100), dir.join("long-link")).unwrap();
    fs::hard_link(dir.join("medium"), dir.join("deep/er/hard")).unwrap();
    fs::write(dir.join("n\u{e4}me with \u{1f4be}"), b"name").unwrap();
    let many = dir.join("many");
    fs::create_dir(&many).unwrap();
    for i in 0..1000 {
        fs::write(many.join(format!("file number {i:05}")), format!("{i}")).unwrap();
    }
}

#[test]
fn what_mke2fs_put_in_comes_out() {
    if !have("mke2fs") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let tree = tmp.path().join("tree");
    make_tree(&tree);
    for options in [
        &["-t", "ext2", "-b", "1024"][..],
        &["-t", "ext3", "-b", "2048"],
        &["-t", "ext4"],
        &["-t", "ext4", "-O", "inline_data,^has_journal", "-I", "256"],
        &["-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024"],
        &["-t", "ext4", "-O", "bigalloc", "-C", "16384"],
        &[
            "-t",
            "ext4",
            "-O",
            "^64bit,^filetype,^dir_index",
            "-I",
            "128",
        ],
    ] {
        let image = tmp.path().join("image");
        let _ = fs::remove_file(&image);
        let made = Command::new("mke2fs")
            .args(options)
            .args(["-q", "-F", "-L", "volume", "-d"])
            .args([&tree, &image])
            .arg("160M")
            .output()
            .unwrap();
        assert!(made.status.success(), "{options:?}: {made:?}");
        println!("{options:?}");
        let fs = open(&image);
        let info = fs.info();
        assert_eq!(info.label, Some(Name::from("volume")));
        assert_eq!(info.dirty, Some(false), "{options:?}");
        assert_sound(&fs, &format!("{options:?}"));
        let found = walk(&fs);
        let mut checked = 0;
        for (path, node) in &found {
            if path.starts_with("lost+found") {
                continue;
            }
            let host = tree.join(path);
            let expected = fs::symlink_metadata(&host).unwrap();
            let meta = fs.metadata(*node).unwrap();
            match meta.kind {
                NodeKind::Directory => assert!(expected.is_dir()),
                NodeKind::Symlink => assert_eq!(
                    fs.read_link(*node).unwrap().target.as_os_str(),
                    fs::read_link(&host).unwrap()
                ),
                _ => {
                    assert_eq!(meta.size, expected.len(), "{path:?}");
                    assert!(read(&fs, *node) == fs::read(&host).unwrap(), "{path:?}");
                    let links = expected.nlink() as u32;
                    assert_eq!(meta.links, links, "{path:?} {options:?}");
                }
            }
            let modified = meta.modified.unwrap().seconds;
            assert_eq!(modified, expected.mtime(), "{path:?}");
            checked += 1;
        }
        assert!(checked > 1010, "{options:?}: only {checked}");
        let sparse = found[Path::new("deep/sparse")];
        disk_io::conformance::check_rules(&fs.open(sparse, None).unwrap());
        let extents = fs.extents(sparse, None).unwrap();
        assert!(extents.iter().any(|e| e.place.is_none()), "no hole");
        let name = Name::from("file number 00999");
        let many = found[Path::new("many")];
        assert_eq!(
            fs.lookup(many, &name).unwrap(),
            Some(found[Path::new("many/file number 00999")])
        );
        assert_eq!(fs.lookup(many, &Name::from("absent")).unwrap(), None);
    }
}

#[test]
fn attributes_in_the_inode_and_in_a_block() {
    if !have("mke2fs") || !have("debugfs") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let image = tmp.path().join("image");
    let run = |tool: &str, args: &[&str]| {
        let out = Command::new(tool).args(args).arg(&image).output().unwrap();
        assert!(out.status.success(), "{out:?}");
    };
    fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    run("mke2fs", &["-q", "-F", "-t", "ext4"]);
    let long = "v".repeat(900);
    let script = tmp.path().join("script");
    fs::write(tmp.path().join("f"), b"x").unwrap();
    let commands = format!(
        "write {}/f f\nea_set f user.short hello\nea_set f user.long {long}\n",
        tmp.path().display()
    );
    fs::write(&script, commands).unwrap();
    run("debugfs", &["-w", "-f", script.to_str().unwrap()]);
    let fs = open(&image);
    assert_sound(&fs, "one with attributes");
    let node = fs.lookup(fs.root(), &Name::from("f")).unwrap().unwrap();
    let mut found = fs.xattrs(node).unwrap();
    found.sort();
    assert_eq!(
        found,
        [
            (b"user.long".to_vec(), long.into_bytes()),
            (b"user.short".to_vec(), b"hello".to_vec())
        ]
    );
}

/// A snapshot of a mounted volume: its newest metadata is only in the journal. The kernel
/// makes one here, and `e2fsck` replays the same journal in a copy.
#[test]
fn the_journal_is_replayed_as_e2fsck_does() {
    if !have("mke2fs") || !have("e2fsck") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let image = tmp.path().join("image");
    let mount = tmp.path().join("mnt");
    fs::create_dir(&mount).unwrap();
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let ok = |c: &mut Command| c.output().is_ok_and(|o| o.status.success());
    assert!(ok(Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4"])
        .arg(&image)));
    if !ok(Command::new("mount")
        .args(["-o", "loop,commit=600"])
        .args([&image, &mount]))
    {
        eprintln!("skipped: this needs root, a loop device and ext4 in the kernel");
        return;
    }
    for i in 0..300 {
        fs::write(mount.join(format!("file {i}")), format!("contents {i}")).unwrap();
    }
    for i in 0..100 {
        fs::remove_file(mount.join(format!("file {i}"))).unwrap();
    }
    // fsync commits the journal; the places themselves are written much later.
    let last = fs::File::open(mount.join("file 299")).unwrap();
    last.sync_all().unwrap();
    drop(last);
    let copy = tmp.path().join("copy");
    fs::copy(&image, &copy).unwrap();
    assert!(ok(Command::new("umount").arg(&mount)));

    let ours = open(&copy);
    assert_eq!(ours.info().dirty, Some(true), "the copy needs no replay");
    assert_sound(&ours, "the copy");
    let replayed = tmp.path().join("replayed");
    fs::copy(&copy, &replayed).unwrap();
    let _ = Command::new("e2fsck").arg("-y").arg(&replayed).output();
    let theirs = open(&replayed);
    let contents = |fs: &Ext| -> BTreeMap<PathBuf, Vec<u8>> {
        walk(fs)
            .into_iter()
            .filter(|(_, n)| fs.metadata(*n).unwrap().kind == NodeKind::File)
            .map(|(p, n)| (p, read(fs, n)))
            .collect()
    };
    let found = contents(&ours);
    assert!(found == contents(&theirs));
    assert_eq!(found.len(), 200);
}

#[test]
fn real_volumes_read_to_the_end() {
    let Some(images) = std::env::var_os("VMDKIT_IMAGES").map(PathBuf::from) else {
        eprintln!("skipped: VMDKIT_IMAGES is not set");
        return;
    };
    let mut stack = vec![images.join("ext")];
    let (mut volumes, mut files) = (0, 0);
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                stack.push(path);
                continue;
            }
            let disk = HostDir::open_source(&path, &Allowed::default())
                .unwrap()
                .disk;
            let fs = match Ext::open(disk, &OpenOptions::default()) {
                Ok(fs) => fs,
                Err(e) => {
                    println!("{}: {e}", path.display());
                    continue;
                }
            };
            volumes += 1;
            assert_sound(&fs, &path.display().to_string());
            let mut here = 0;
            for node in walk(&fs).values() {
                let meta = fs.metadata(*node).unwrap();
                if meta.kind == NodeKind::File && meta.size < 64 << 20 {
                    match meta.refusal {
                        None => drop(read(&fs, *node)),
                        Some(e) => println!("{}: {e}", path.display()),
                    }
                    here += 1;
                }
            }
            println!("{}: {here} files, {:?}", path.display(), fs.info());
            files += here;
        }
    }
    assert!(
        volumes > 5 && files > 20,
        "{volumes} volumes, {files} files"
    );
}

fn small_image() -> Option<Vec<u8>> {
    if !have("mke2fs") {
        return None;
    }
    let tmp = tempfile::tempdir().unwrap();
    let tree = tmp.path().join("tree");
    fs::create_dir_all(tree.join("d/e")).unwrap();
    for i in 0..20 {
        fs::write(tree.join(format!("d/f{i}")), vec![i as u8; i * 700]).unwrap();
    }
    symlink("y".repeat(80), tree.join("link")).unwrap();
    let image = tmp.path().join("image");
    let made = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-b", "1024", "-N", "64", "-d"])
        .args([&tree, &image])
        .arg("2M")
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    Some(fs::read(&image).unwrap())
}

/// Flipped, cut and spliced volumes: any answer but a panic, a hang or unbounded memory.
#[test]
fn damage_never_panics() {
    let Some(image) = small_image() else { return };
    let mut runner = proptest::test_runner::TestRunner::default();
    let edits = prop::collection::vec((0..image.len(), any::<u8>()), 1..30);
    runner
        .run(&(edits, 0..image.len()), |(edits, keep)| {
            let mut bytes = image.clone();
            for (at, byte) in edits {
                // Most of the image is contents; aim at the metadata.
                let at = if at % 4 == 0 { at } else { at % 40_960 };
                bytes[at] = byte;
            }
            if keep % 3 == 0 {
                bytes.truncate(keep);
            }
            let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(bytes));
            let Ok(fs) = Ext::open(disk, &OpenOptions::default()) else {
                return Ok(());
            };
            let mut todo = vec![(fs.root(), 0)];
            let mut seen = 0;
            while let Some((dir, depth)) = todo.pop() {
                let _ = fs.read_dir(dir, &mut |entry| {
                    seen += 1;
                    if let Ok(entry) = entry {
                        let _ = fs.metadata(entry.node);
                        let _ = fs.read_link(entry.node);
                        let _ = fs.xattrs(entry.node);
                        if let Ok(file) = fs.open(entry.node, None) {
                            let n = file.len().min(1 << 16) as usize;
                            let _ = file.read_exact_at(&mut vec![0; n], 0);
                        }
                        if entry.kind == NodeKind::Directory && depth < 5 {
                            todo.push((entry.node, depth + 1));
                        }
                    }
                    if seen > 5000 {
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                });
                if seen > 5000 {
                    break;
                }
            }
            Ok(())
        })
        .unwrap();
}
