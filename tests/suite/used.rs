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
    assert_eq!(code, Some(0));
    assert_eq!(said["left_out"]["bytes"], 0);
    let why = said["left_out"]["whole"][0]["reason"].as_str().unwrap();
    assert!(why.contains("dirty"), "{why}");
    assert_eq!(fs::read(&used).unwrap(), bytes);
}
