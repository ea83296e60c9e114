//! Restores out of NTFS directories whose index is damaged: every file comes, with its bytes, and
//! the damage is told.

use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tests::{mount::Mount, tools};

/// The volume that fuzzing begins with: its root directory has two index blocks.
fn sound() -> Vec<u8> {
    let base = tools::project().join("fuzz/bases/ntfs-files.zst");
    zstd::decode_all(fs::read(base).unwrap().as_slice()).unwrap()
}

fn run(words: &[&str]) -> Output {
    let out = Command::new(tools::vmdkit().unwrap()).args(words).output();
    out.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a directory of the host holds.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    all.map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap()))
        .collect()
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// An entry in the middle of an index block, with its head in one sector.
fn middle(bytes: &[u8], block: usize) -> usize {
    let mut at = block + 24 + word(bytes, block + 24);
    let mut all = Vec::new();
    while word(bytes, at + 12) & 2 == 0 {
        all.push(at);
        at += word(bytes, at + 8);
    }
    let mut from = all[all.len() / 2..].iter();
    *from.find(|at| **at % 512 < 490).unwrap()
}

/// A damage, and a word of what is said of it.
type Damage = (fn(&mut [u8], usize), &'static str);

const DAMAGES: [Damage; 4] = [
    (|bytes, block| bytes[block + 3] = b'Y', "\"INDX\""),
    (|bytes, block| bytes[block + 1023] ^= 0x40, "torn write"),
    (
        |bytes, block| {
            let at = middle(bytes, block) + 8;
            bytes[at..at + 2].fill(0);
        },
        "index entry",
    ),
    // The root of the index: its type.
    (
        |bytes, _| {
            let mft = word(bytes, 0x30) * 512 * usize::from(bytes[0x0d]);
            let mut at = mft + 5 * 1024;
            at += word(bytes, at + 20);
            while bytes[at] != 0x90 {
                at += word(bytes, at + 4);
            }
            bytes[at + 1] ^= 1;
        },
        "index root",
    ),
];

#[test]
fn every_file_is_restored_whatever_of_the_index_is_lost() {
    let good = sound();
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("n.img");
    let img = image.to_str().unwrap();
    let restore = |to: &str| {
        let to = dir.path().join(to);
        let out = run(&["cp", "-r", "--json", img, "/p0/.", to.to_str().unwrap()]);
        let restored = tree(&to);
        fs::remove_dir_all(&to).unwrap();
        (out, restored)
    };
    fs::write(&image, &good).unwrap();
    let listed = run(&["ls", img, "/p0"]);
    assert!(listed.status.success() && listed.stderr.is_empty());
    let (out, whole) = restore("sound");
    assert!(out.status.success());
    assert_eq!(whole.len(), 32);
    let blocks: Vec<usize> = (0..good.len())
        .step_by(512)
        .filter(|at| good[*at..].starts_with(b"INDX"))
        .collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        for (damage, said) in DAMAGES {
            let mut bytes = good.clone();
            damage(&mut bytes, block);
            fs::write(&image, &bytes).unwrap();
            let (out, restored) = restore("damaged");
            assert_eq!(out.status.code(), Some(3), "{said}: {}", text(&out.stderr));
            assert!(restored == whole, "{said}: {:?}", restored.keys());
            let json: Value = serde_json::from_slice(&out.stdout).unwrap();
            let failed = json["failed"].as_array().unwrap();
            assert_eq!(failed.len(), 1, "{json}");
            assert!(
                failed[0]
                    .to_string()
                    .contains(&said.replace('"', "\\\"")[..6])
            );
            assert_eq!(json["doubtful"].as_array().unwrap().len(), 0, "{json}");

            let again = run(&["ls", img, "/p0"]);
            assert_eq!(text(&again.stdout), text(&listed.stdout));
            assert_eq!(again.status.code(), Some(3));
            assert!(
                text(&again.stderr).contains(said),
                "{}",
                text(&again.stderr)
            );
            for name in ["a longer name 3", "A Longer Name 28", "b.txt"] {
                let out = run(&["cat", img, &format!("/p0/{name}")]);
                assert!(out.status.success(), "{name}: {}", text(&out.stderr));
                assert_eq!(out.stdout, whole[Path::new(&name.to_lowercase())]);
            }
            let out = run(&["tar", img, "/p0/."]);
            assert_eq!(out.status.code(), Some(3));
            for name in whole.keys() {
                let name = name.to_str().unwrap().as_bytes();
                assert!(out.stdout.windows(name.len()).any(|w| w == name));
            }
        }
    }
}

#[test]
fn the_mount_has_what_the_index_has_lost() {
    if !tools::can_fuse() {
        return;
    }
    let mut bytes = sound();
    let block = bytes.windows(4).rposition(|w| w == b"INDX").unwrap();
    bytes[block] = b'X';
    let dir = tempfile::tempdir().unwrap();
    let (image, at) = (dir.path().join("n.img"), dir.path().join("at"));
    fs::write(&image, &bytes).unwrap();
    fs::create_dir(&at).unwrap();
    let mut command = Command::new(tools::vmdkit().unwrap());
    command.args(["mount", "-f"]).args([&image, &at]);
    let mount = Mount::start(command, &at).unwrap();
    let root = at.join("p0");
    // By name, before and after the directory is listed; a listing ends with the damage.
    let name = "a longer name 20";
    assert_eq!(fs::read(root.join(name)).unwrap(), b"hello");
    let mut names = Vec::new();
    let mut failed = None;
    for entry in fs::read_dir(&root).unwrap() {
        match entry {
            Ok(entry) => names.push(entry.file_name()),
            Err(e) => failed = Some(e),
        }
    }
    assert!(failed.is_some());
    assert_eq!(names.len(), 32, "{names:?}");
    for name in names {
        fs::read(root.join(name)).unwrap();
    }
    mount.unmount().unwrap();
}
