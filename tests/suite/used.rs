//! `convert --used-only`: every file is still there, and free space is not.

use serde_json::Value;
use std::{fs, path::Path, process::Command};
use tests::{fixtures, tools};

fn vmdkit(args: &[&str]) -> (Option<i32>, Value) {
    let out = Command::new(tools::vmdkit().unwrap())
        .args(args)
        .output()
        .unwrap();
    let said = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| {
        panic!("{args:?}: {e}: {}", String::from_utf8_lossy(&out.stderr));
    });
    (out.status.code(), said)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn no_file_of_the_fixtures_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut left = 0;
    for fixture in fixtures::all() {
        let Some(made) = fixtures::get(fixture.name) else {
            continue;
        };
        let out = dir.path().join("used.raw");
        let (code, said) = vmdkit(&[
            "convert",
            "--json",
            "--force",
            "--used-only",
            "--verify",
            text(&made.image),
            text(&out),
            "--to",
            "raw",
        ]);
        assert_eq!(code, Some(0), "{}: {said}", fixture.name);
        left += said["left_out"]["bytes"].as_u64().unwrap();
        let (_, said) = vmdkit(&["diff", "--json", "--files", text(&made.image), text(&out)]);
        assert_eq!(
            said["files"],
            serde_json::json!([]),
            "{}: {said}",
            fixture.name
        );
    }
    assert!(left > 0);
}

#[test]
fn other_tools_find_nothing_wrong() {
    if !tools::have(&[
        "mkfs.ext4",
        "debugfs",
        "e2fsck",
        "mkfs.fat",
        "mcopy",
        "fsck.fat",
    ]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, used, file) = ["v.img", "used.raw", "file"]
        .map(|n| dir.path().join(n))
        .into();
    fs::write(&file, vec![7; 3 << 20]).unwrap();
    for kind in ["ext4", "fat"] {
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let (img, f) = (text(&image), text(&file));
        if kind == "ext4" {
            tools::run("mkfs.ext4", ["-q", "-F", img]).unwrap();
            for request in ["write {} keep", "write {} gone", "rm gone"] {
                let request = request.replace("{}", f);
                tools::run("debugfs", ["-w", "-R", &request, img]).unwrap();
            }
        } else {
            tools::run("mkfs.fat", ["-F", "32", img]).unwrap();
            for name in ["::keep", "::gone"] {
                tools::run("mcopy", ["-i", img, f, name]).unwrap();
            }
            tools::run("mdel", ["-i", img, "::gone"]).unwrap();
        }
        let before = "\u{7}".repeat(4096).into_bytes();
        let count = |path: &Path| {
            let bytes = fs::read(path).unwrap();
            bytes.chunks(4096).filter(|c| *c == before).count()
        };
        assert!(count(&image) > 1400, "{kind}: {}", count(&image));
        let (code, said) = vmdkit(&[
            "convert",
            "--json",
            "--force",
            "--used-only",
            img,
            text(&used),
            "--to",
            "raw",
        ]);
        assert_eq!(code, Some(0), "{said}");
        // The deleted file's blocks are gone, the other's are there.
        assert!(
            (760..=776).contains(&count(&used)),
            "{kind}: {}",
            count(&used)
        );
        match kind {
            "ext4" => tools::run("e2fsck", ["-f", "-n", text(&used)]).unwrap(),
            _ => tools::run("fsck.fat", ["-n", text(&used)]).unwrap(),
        };
    }
}

/// A volume that was not closed is taken whole, and that is said.
#[test]
fn what_cannot_be_believed_is_taken_whole() {
    if !tools::have(&["mkntfs"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, used) = (dir.path().join("v.img"), dir.path().join("used.raw"));
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    tools::run("mkntfs", ["-F", "-q", "-Q", text(&image)]).unwrap();
    let mut bytes = fs::read(&image).unwrap();
    // The dirty bit in $VOLUME_INFORMATION of record 3: behind its version, 3.1.
    let mft = u64::from_le_bytes(bytes[0x30..0x38].try_into().unwrap()) as usize;
    let cluster = 512 * usize::from(bytes[0x0d]);
    let record = mft * cluster + 3 * 1024;
    let at = (record..record + 1024)
        .find(|at| bytes[*at..].starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0]))
        .unwrap();
    bytes[at + 10] = 1;
    bytes[12 << 20] = 9;
    assert!(whole(&image, &used, &bytes).contains("dirty"));
}

/// Writes the volume, converts it, and says why nothing was left out.
fn whole(image: &Path, used: &Path, bytes: &[u8]) -> String {
    fs::write(image, bytes).unwrap();
    let (code, said) = vmdkit(&[
        "convert",
        "--json",
        "--force",
        "--used-only",
        text(image),
        text(used),
        "--to",
        "raw",
    ]);
    assert_eq!(code, Some(0));
    assert_eq!(said["left_out"]["bytes"], 0, "{said}");
    assert!(fs::read(used).unwrap() == bytes);
    let why = said["left_out"]["whole"][0]["reason"].as_str();
    why.expect("a reason").to_owned()
}

/// A map of a closed volume that calls a file's clusters free is not believed either.
#[test]
fn a_wrong_bitmap_loses_nothing() {
    if !tools::have(&["mkntfs"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, used) = (dir.path().join("v.img"), dir.path().join("used.raw"));
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    tools::run("mkntfs", ["-F", "-q", "-Q", text(&image)]).unwrap();
    let mut bytes = fs::read(&image).unwrap();
    let cluster = 512 * usize::from(bytes[0x0d]);
    let number = |b: &[u8]| b.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b));
    let mft = number(&bytes[0x30..0x38]);
    // $DATA of record 6: an attribute of type 0x80 with one run.
    let record = &bytes[mft * cluster + 6 * 1024..][..1024];
    let mut at = number(&record[20..22]);
    while record[at] != 0x80 {
        at += number(&record[at + 4..at + 8]);
    }
    let runs = &record[at + number(&record[at + 32..at + 34])..];
    let (len, place) = (usize::from(runs[0] & 15), usize::from(runs[0] >> 4));
    let map = cluster * number(&runs[1 + len..][..place]);
    bytes[map + mft / 8] &= !(1 << (mft % 8));
    let why = whole(&image, &used, &bytes);
    assert!(why.contains("record 0") && why.contains("$Bitmap"), "{why}");
}

#[test]
fn an_ext_volume_that_was_not_closed_is_taken_whole() {
    const STATE: usize = 1024 + 0x3a;
    if !tools::have(&["mkfs.ext2"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, used) = (dir.path().join("v.img"), dir.path().join("used.raw"));
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    tools::run("mkfs.ext2", ["-q", "-F", text(&image)]).unwrap();
    let mut bytes = fs::read(&image).unwrap();
    assert_eq!(bytes[STATE], 1);
    for (state, reason) in [(0, "not unmounted"), (3, "errors")] {
        bytes[STATE] = state;
        let why = whole(&image, &used, &bytes);
        assert!(why.contains(reason), "{why}");
    }
}

/// Where the copies of a FAT differ, a cluster is free only if all say so.
#[test]
fn clusters_that_one_fat_has_stay() {
    if !tools::have(&["mkfs.fat", "mcopy"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, used) = (dir.path().join("v.img"), dir.path().join("used.raw"));
    let file = dir.path().join("file");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    tools::run("mkfs.fat", ["-F", "32", text(&image)]).unwrap();
    fs::write(&file, vec![7; 1 << 20]).unwrap();
    tools::run("mcopy", ["-i", text(&image), text(&file), "::file"]).unwrap();
    let mut bytes = fs::read(&image).unwrap();
    let table = 512 * usize::from(u16::from_le_bytes([bytes[14], bytes[15]]));
    // Entries 0 to 2 are the volume's own and the root's.
    bytes[table + 12..table + 12 + 4 * 3000].fill(0);
    fs::write(&image, &bytes).unwrap();
    let (code, said) = vmdkit(&[
        "convert",
        "--json",
        "--used-only",
        text(&image),
        text(&used),
        "--to",
        "raw",
    ]);
    assert_eq!(code, Some(0), "{said}");
    let sevens = |bytes: &[u8]| bytes.chunks(512).filter(|c| *c == [7; 512]).count();
    assert_eq!(sevens(&fs::read(&used).unwrap()), 2048);
}
