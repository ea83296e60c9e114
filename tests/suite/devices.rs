//! `convert --device` onto a loop device, checked by cmp and sfdisk.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tests::tools;

/// A loop device over a file; it goes when it is dropped.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &Path) -> Option<Self> {
        if !tools::have(&["losetup", "sfdisk"]) {
            return None;
        }
        let args = ["-f", "--show", file.to_str().unwrap()];
        match tools::run("losetup", args) {
            Ok(out) => Some(Self(String::from_utf8(out.stdout).unwrap().trim().into())),
            Err(e) => {
                // Root alone may, and containers often may not.
                tests::say!("skipped: no loop device: {e:#}");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = tools::run("losetup", ["-d".as_ref(), self.0.as_os_str()]);
    }
}

fn vmdkit(args: &[&str]) -> Output {
    let out = Command::new(tools::vmdkit().unwrap()).args(args).output();
    out.unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_disk_onto_a_larger_device() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, under) = (dir.path().join("disk.raw"), dir.path().join("under"));
    fs::File::create(&disk).unwrap().set_len(16 << 20).unwrap();
    fs::write(&under, vec![0xee; 24 << 20]).unwrap();
    let Some(device) = Loop::new(&under) else {
        return;
    };
    let script = dir.path().join("script");
    fs::write(&script, "label: gpt\nstart=2048, size=4096\n").unwrap();
    let make = format!("sfdisk -q {} < {}", text(&disk), text(&script));
    tools::run("sh", ["-c", &format!("PATH=$PATH:/sbin:/usr/sbin; {make}")]).unwrap();
    let at = text(&device.0);

    // One name is not enough, and another device is no second name.
    for args in [
        &["convert", text(&disk), at, "--to", "raw"][..],
        &[
            "convert",
            text(&disk),
            at,
            "--to",
            "raw",
            "--device",
            "/dev/null",
        ],
        &["convert", text(&disk), at, "--to", "vmdk", "--device", at],
    ] {
        assert_eq!(vmdkit(args).status.code(), Some(2), "{args:?}");
    }
    assert!(fs::read(&device.0).unwrap().iter().all(|b| *b == 0xee));

    let out = vmdkit(&[
        "convert",
        "--json",
        "--verify",
        text(&disk),
        at,
        "--to",
        "raw",
        "--device",
        at,
    ]);
    let said: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(0), "{said}");
    assert_eq!(said["moved_gpt"], true);
    let checked = tools::run("sfdisk", ["--verify", at]).unwrap();
    let checked = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(checked.contains("No errors detected"), "{checked}");
    // From behind the table to its old backup all is the disk's.
    let (written, disk_bytes) = (fs::read(&device.0).unwrap(), fs::read(&disk).unwrap());
    assert!(written[1 << 20..15 << 20] == disk_bytes[1 << 20..15 << 20]);

    // A device that is too small is left as it is.
    let large = dir.path().join("large.raw");
    fs::File::create(&large).unwrap().set_len(30 << 20).unwrap();
    let out = vmdkit(&[
        "convert",
        text(&large),
        at,
        "--to",
        "raw",
        "--format",
        "raw",
        "--device",
        at,
    ]);
    assert_eq!(out.status.code(), Some(1));
    assert!(fs::read(&device.0).unwrap() == written);
}
