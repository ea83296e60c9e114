//! Journals of ext4 written by `debugfs`, sound and damaged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod volume_common;

use disk_io::{Disk, MemDisk};
use guest_fs::{FileSystem, Name, OpenOptions, ext::Ext};
use std::{fs, path::Path, process::Command, sync::Arc};
use volume_common::have_ext_tools;

const BLOCK: usize = 1024;

fn run(tool: &str, args: &[&str], image: &Path) -> String {
    let out = Command::new(tool).args(args).arg(image).output().unwrap();
    assert!(out.status.success(), "{tool} {args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// A volume with a file `f` of three blocks of `o`, and transactions in its journal that make
/// them `1`, then `2`, … each.
fn image(features: &str, journal: &str, transactions: u8) -> Vec<u8> {
    let tmp = tempfile::tempdir().unwrap();
    let tree = tmp.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("f"), vec![b'o'; 3 * BLOCK]).unwrap();
    let image = tmp.path().join("image");
    fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let tree = tree.to_str().unwrap();
    let make = ["-q", "-F", "-t", "ext4", "-b", "1024", "-O", features, "-d"];
    run("mke2fs", &[&make[..], &[tree]].concat(), &image);
    let blocks = run("debugfs", &["-R", "blocks f"], &image);
    let blocks = blocks.split_whitespace().collect::<Vec<_>>().join(",");
    let mut commands = format!("jo {journal}\n");
    for n in 1..=transactions {
        let new = tmp.path().join(n.to_string());
        fs::write(&new, vec![b'0' + n; 3 * BLOCK]).unwrap();
        commands += &format!("jw -b {blocks} {}\n", new.display());
    }
    commands += "jc\n";
    let script = tmp.path().join("script");
    fs::write(&script, commands).unwrap();
    run("debugfs", &["-w", "-f", script.to_str().unwrap()], &image);
    fs::read(&image).unwrap()
}

/// The first bytes of the blocks of `f`, and what is doubtful about the volume.
fn read(bytes: &[u8]) -> (String, Vec<String>) {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(bytes.to_vec()));
    let fs = Ext::open(disk, &OpenOptions::default()).unwrap();
    let node = fs.lookup(fs.root(), &Name::from("f")).unwrap().unwrap();
    let file = fs.open(node, None).unwrap();
    let byte = |n: usize| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, (n * BLOCK) as u64).unwrap();
        char::from(byte[0])
    };
    // What is doubtful about all is told with the root, and not with each file.
    assert_eq!(fs.doubts(node), [""; 0]);
    ((0..3).map(byte).collect(), fs.doubts(fs.root()))
}

/// Where the blocks of a kind are, of descriptor (1) or commit (2).
fn blocks_of(bytes: &[u8], kind: u8) -> Vec<usize> {
    let magic = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, kind];
    let starts = (0..bytes.len()).step_by(BLOCK);
    starts
        .filter(|at| bytes[*at..].starts_with(&magic))
        .collect()
}

fn journal_superblock(bytes: &[u8]) -> usize {
    blocks_of(bytes, 4)[0]
}

const KINDS: [(&str, &str); 5] = [
    ("metadata_csum,64bit", "-c -v 3"),
    ("metadata_csum,64bit", "-c -v 2"),
    ("metadata_csum,^64bit", "-c -v 2"),
    ("^metadata_csum,^64bit", ""),
    ("^metadata_csum,64bit", ""),
];

#[test]
fn journals_with_checksums_of_each_kind_are_replayed() {
    if !have_ext_tools() {
        return;
    }
    for (features, journal) in KINDS {
        let image = image(features, journal, 2);
        let (found, doubts) = read(&image);
        assert_eq!(found, "222", "{features} {journal}");
        assert_eq!(doubts, [""; 0], "{features} {journal}");
    }
}

#[test]
fn wrong_checksums_in_the_journal_are_told() {
    if !have_ext_tools() {
        return;
    }
    for (features, journal) in &KINDS[..3] {
        let image = image(features, journal, 2);
        let told = |at: usize, expected: &str, words: &str| {
            let mut bytes = image.clone();
            bytes[at] ^= 1;
            let (found, doubts) = read(&bytes);
            assert_eq!(found, expected, "{features} {journal}: {words}");
            match words {
                "" => assert_eq!(doubts, [""; 0], "{features} {journal}"),
                words => assert!(doubts.iter().any(|d| d.contains(words)), "{doubts:?}"),
            }
        };
        let (descriptors, commits) = (blocks_of(&image, 1), blocks_of(&image, 2));
        assert_eq!((descriptors.len(), commits.len()), (2, 2));
        // A data block falls back to what was before it; one that is no longer used is no loss.
        told(descriptors[1] + BLOCK + 7, "122", "checksums of 1 blocks");
        told(descriptors[0] + BLOCK + 7, "222", "");
        // The first transaction: what is behind it was committed.
        told(descriptors[0] + 15, "ooo", "a checksum of transaction");
        told(commits[0] + 17, "ooo", "a checksum of transaction");
        // The last was being written when the guest stopped, but not behind its commit block.
        told(commits[1] + 17, "111", "");
        told(descriptors[1] + 15, "111", "a checksum of transaction");
        let superblock = journal_superblock(&image);
        told(superblock + 0x3ff, "222", "the journal's superblock");
    }
}

#[test]
fn superblocks_that_hide_the_journal_are_told() {
    if !have_ext_tools() {
        return;
    }
    for features in ["^metadata_csum", "metadata_csum"] {
        let image = image(features, "", 1);
        let told = |edits: &[(usize, u8)], words: &str| {
            let mut bytes = image.clone();
            for (at, flip) in edits {
                bytes[*at] ^= flip;
            }
            let (_, doubts) = read(&bytes);
            assert!(doubts.iter().any(|d| d.contains(words)), "{doubts:?}");
        };
        // It says that it was closed; its journal is elsewhere; its log begins elsewhere.
        told(&[(1024 + 0x60, 4)], "says that it was closed cleanly");
        told(&[(1024 + 0xe0, 8)], "on another device");
        let superblock = journal_superblock(&image);
        told(&[(superblock + 0x1b, 4)], "no complete transaction");
        if features == "metadata_csum" {
            // Its label.
            told(&[(1024 + 0x78, 1)], "the checksum of the superblock");
        }
    }
}
