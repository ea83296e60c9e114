//! Damage to ext volumes that no checksum of an inode tells: descriptors of groups, directories,
//! and maps against what their inodes count.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod volume_common;

use disk_io::{Disk, MemDisk};
use guest_fs::{FileSystem, Name, NodeId, OpenOptions, ext::Ext};
use std::{
    collections::BTreeMap, fs, ops::ControlFlow, os::unix::fs::symlink, path::Path,
    process::Command, sync::Arc,
};
use volume_common::have_ext_tools;

const BLOCK: usize = 1024;

/// A volume made of a tree, and where things are in it.
struct Volume {
    bytes: Vec<u8>,
    _tmp: tempfile::TempDir,
    path: std::path::PathBuf,
}

impl Volume {
    fn new(options: &[&str], size: &str, fill: &dyn Fn(&Path)) -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let tree = tmp.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fill(&tree);
        let path = tmp.path().join("image");
        let made = Command::new("mke2fs")
            .args(["-q", "-F", "-b", "1024"])
            .args(options)
            .arg("-d")
            .args([&tree, &path])
            .arg(size)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Self {
            bytes: fs::read(&path).unwrap(),
            _tmp: tmp,
            path,
        }
    }

    fn debugfs(&self, request: &str) -> String {
        let mut debugfs = Command::new("debugfs");
        let out = debugfs.args(["-R", request]).arg(&self.path).output();
        String::from_utf8(out.unwrap().stdout).unwrap()
    }

    /// The byte offset of an inode.
    fn inode(&self, of: &str) -> usize {
        let text = self.debugfs(&format!("imap {of}"));
        let (_, rest) = text.split_once("located at block ").unwrap();
        let (block, offset) = rest.trim().split_once(", offset 0x").unwrap();
        let offset = usize::from_str_radix(offset, 16).unwrap();
        BLOCK * block.parse::<usize>().unwrap() + offset
    }

    /// The byte offsets of the blocks of a file.
    fn blocks(&self, of: &str) -> Vec<usize> {
        let text = self.debugfs(&format!("blocks {of}"));
        let blocks = text.split_whitespace();
        blocks
            .map(|b| BLOCK * b.parse::<usize>().unwrap())
            .collect()
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(*self.bytes[at..].first_chunk().unwrap())
    }

    fn with(&self, edits: &[(usize, &[u8])]) -> Ext {
        let mut bytes = self.bytes.clone();
        for (at, new) in edits {
            bytes[*at..][..new.len()].copy_from_slice(new);
        }
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(bytes));
        Ext::open(disk, &OpenOptions::default()).unwrap()
    }
}

fn find(fs: &Ext, path: &str) -> NodeId {
    path.split('/').fold(fs.root(), |dir, name| {
        fs.lookup(dir, &Name::from(name)).unwrap().unwrap()
    })
}

/// The names of a directory with what they lead to, and what could not be listed.
fn list(fs: &Ext, dir: NodeId) -> (BTreeMap<String, NodeId>, Vec<String>) {
    let (mut names, mut errors) = (BTreeMap::new(), Vec::new());
    let listed = fs.read_dir(dir, &mut |entry| {
        match entry {
            Ok(e) => drop(names.insert(e.name.to_string(), e.node)),
            Err(e) => errors.push(e.to_string()),
        }
        ControlFlow::Continue(())
    });
    errors.extend(listed.err().map(|e| e.to_string()));
    (names, errors)
}

fn contents(fs: &Ext, node: NodeId) -> Vec<u8> {
    let disk = fs.open(node, None).unwrap();
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn many(tree: &Path) {
    for n in 0..700 {
        fs::write(tree.join(format!("f{n:03}")), format!("contents {n}")).unwrap();
    }
}

/// Whether every file has its own contents.
fn many_are_right(fs: &Ext) -> bool {
    let (names, errors) = list(fs, fs.root());
    assert_eq!(errors, [""; 0]);
    assert_eq!(names.len(), 701);
    names.into_iter().all(|(name, node)| {
        let Some(n) = name.strip_prefix('f') else {
            return true;
        };
        let n: u32 = n.parse().unwrap();
        contents(fs, node) == format!("contents {n}").into_bytes()
    })
}

#[test]
fn a_wrong_group_descriptor_is_replaced_by_its_copy() {
    if !have_ext_tools() {
        return;
    }
    for features in [
        "^metadata_csum,uninit_bg",
        "^metadata_csum,uninit_bg,^64bit,^flex_bg",
        "metadata_csum",
        "metadata_csum,meta_bg,^resize_inode",
        "metadata_csum,sparse_super2",
    ] {
        let options = ["-t", "ext4", "-N", "768", "-O", features];
        let volume = Volume::new(&options, "24M", &many);
        let size = if features.contains("^64bit") { 32 } else { 64 };
        // Of group 1, in the block behind the superblock.
        let descriptor = 2 * BLOCK + size;
        let table = volume.u32(descriptor + 8);
        let wrong = (table ^ 1).to_le_bytes();
        let fs = volume.with(&[(descriptor + 8, &wrong)]);
        assert!(many_are_right(&fs), "{features}");
        let doubts = fs.doubts(find(&fs, "f400"));
        assert_eq!(doubts, [""; 0], "{features}");
        // With all copies gone the names lead elsewhere, and that is told.
        let own = volume.bytes[descriptor..][..size].to_vec();
        let starts = (0..volume.bytes.len()).step_by(BLOCK);
        let copies = starts.map(|at| at + size);
        let copies = copies.filter(|at| volume.bytes.get(at + 4..at + 12) == Some(&own[4..12]));
        let edits: Vec<_> = copies.map(|at| (at + 8, &wrong[..])).collect();
        assert!(edits.len() > 1, "{features}: {edits:?}");
        let fs = volume.with(&edits);
        let (names, _) = list(&fs, fs.root());
        let doubtful = names.values().filter(|n| {
            let doubts = fs.doubts(**n);
            doubts.iter().any(|d| d.contains("has no good copy"))
        });
        assert!(doubtful.count() > 200, "{features}");
    }
}

fn directory(tree: &Path) {
    fs::create_dir(tree.join("d")).unwrap();
    for n in 0..40 {
        let name = format!("{n:02}{}", "n".repeat(80));
        fs::write(tree.join("d").join(name), b"x").unwrap();
    }
}

#[test]
fn directories_that_lost_something_are_told() {
    if !have_ext_tools() {
        return;
    }
    for options in [
        &["-t", "ext3"][..],
        &["-t", "ext4", "-O", "^metadata_csum"],
        &["-t", "ext4"],
    ] {
        let volume = Volume::new(options, "8M", &directory);
        let (inode, blocks) = (volume.inode("/d"), volume.blocks("/d"));
        assert!(blocks.len() > 3, "{blocks:?}");
        let told = |edits: &[(usize, &[u8])], lost: usize, words: &str| {
            let fs = volume.with(edits);
            let (names, errors) = list(&fs, find(&fs, "d"));
            assert_eq!(names.len(), 40 - lost, "{options:?}: {words}");
            match words {
                "" => assert_eq!(errors, [""; 0]),
                words => assert!(errors.iter().any(|e| e.contains(words)), "{errors:?}"),
            }
        };
        told(&[], 0, "");
        // The first entry of the second block loses the length of its name.
        told(&[(blocks[1] + 6, &[0])], 1, "without one");
        told(&[(inode + 4, &[0; 4])], 40, "a size of 0");
        told(&[(blocks[0], &[9])], 0, "the beginning of a directory");
        told(
            &[(blocks[0] + 12, &[0; 4])],
            0,
            "the beginning of a directory",
        );
        if options[1] == "ext3" {
            // The pointer to its second block.
            let fs = volume.with(&[(inode + 0x2c, &[0; 4])]);
            let (names, errors) = list(&fs, find(&fs, "d"));
            assert!(names.len() < 40);
            assert!(errors[0].contains("a hole of 1024 bytes"), "{errors:?}");
            assert!(fs.lookup(find(&fs, "d"), &Name::from("absent")).is_err());
        }
    }
}

#[test]
fn an_inline_directory_without_its_rest_is_told() {
    if !have_ext_tools() {
        return;
    }
    let options = ["-t", "ext4", "-I", "256", "-O", "inline_data"];
    let volume = Volume::new(&options, "8M", &|tree| {
        fs::create_dir(tree.join("d")).unwrap();
        for n in 0..3 {
            fs::write(tree.join(format!("d/f{n}")), b"x").unwrap();
        }
    });
    let fs = volume.with(&[]);
    let (names, errors) = list(&fs, find(&fs, "d"));
    assert_eq!((names.len(), errors.len()), (3, 0), "{errors:?}");
    // It counts more than it has: what is missing is an attribute.
    let fs = volume.with(&[(volume.inode("/d") + 4, &[128])]);
    let (names, errors) = list(&fs, find(&fs, "d"));
    assert_eq!(names.len(), 3);
    assert!(errors[0].contains("128 bytes"), "{errors:?}");
}

fn files(tree: &Path) {
    let bytes: Vec<u8> = (0..60_000u32).map(|n| (n % 251) as u8).collect();
    fs::write(tree.join("f"), bytes).unwrap();
}

#[test]
fn maps_that_contradict_their_inode_are_told() {
    if !have_ext_tools() {
        return;
    }
    for options in [&["-t", "ext3"][..], &["-t", "ext4", "-O", "^metadata_csum"]] {
        let volume = Volume::new(options, "8M", &files);
        let inode = volume.inode("/f");
        let told = |at: usize, new: &[u8], words: &str| {
            let fs = volume.with(&[(inode + at, new)]);
            let doubts = fs.doubts(find(&fs, "f"));
            match words {
                "" => assert_eq!(doubts, [""; 0]),
                words => assert!(doubts.iter().any(|d| d.contains(words)), "{doubts:?}"),
            }
        };
        told(0, &[], "");
        told(
            4,
            &32_768u32.to_le_bytes(),
            "behind its size of 32768 bytes",
        );
        match options[1] {
            // A block, and the block that has pointers to most of them.
            "ext3" => {
                told(0x28, &[0; 4], "parts of it may be missing");
                told(0x28 + 48, &[0; 4], "parts of it may be missing");
            }
            // The number of extents, and the length of the first.
            _ => {
                told(0x2a, &[0, 0], "parts of it may be missing");
                told(0x28 + 12 + 4, &[2, 0], "parts of it may be missing");
            }
        }
    }
}

#[test]
fn a_link_with_a_nul_has_no_target() {
    if !have_ext_tools() {
        return;
    }
    let long = "d/".repeat(60);
    let volume = Volume::new(&["-t", "ext4", "-O", "^metadata_csum"], "4M", &|tree| {
        symlink("d/a", tree.join("short")).unwrap();
        symlink(&long, tree.join("long")).unwrap();
    });
    let target = |name: &str, edits: &[(usize, &[u8])]| {
        let fs = volume.with(edits);
        fs.read_link(find(&fs, name)).map(|link| link.target)
    };
    let (short, block) = (volume.inode("/short"), volume.blocks("/long")[0]);
    assert_eq!(target("short", &[]).unwrap().to_string(), "d/a");
    assert_eq!(target("long", &[]).unwrap().to_string(), long);
    for (name, edit) in [
        ("short", (short + 4, &[7][..])),
        ("short", (short + 0x28 + 1, &[0])),
        ("long", (block + 99, &[0])),
    ] {
        let e = target(name, &[edit]).unwrap_err();
        assert!(e.to_string().contains("a NUL behind"), "{e}");
    }
}
