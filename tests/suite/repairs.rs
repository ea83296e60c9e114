//! What `check --repair` writes is read by others: qemu-img finds nothing wrong with it, and the
//! contents that were there.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};
use tests::{fixtures, tools};

fn vmdkit(args: &[&str]) -> Output {
    Command::new(tools::vmdkit().unwrap())
        .args(args)
        .output()
        .unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn others_read_what_was_mended() {
    if !tools::have(&["qemu-img"]) {
        return;
    }
    let Some(made) = fixtures::get("ntfs-basic") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (subformat, broken) in [("monolithicSparse", "rgd"), ("streamOptimized", "cut")] {
        let (disk, out) = (at("disk.vmdk"), at("mended.vmdk"));
        let args = [
            "--to",
            "vmdk",
            "--force",
            "--subformat",
            subformat,
            "--stream-layout",
            "footer",
        ];
        let args = &args[..if subformat == "streamOptimized" { 7 } else { 5 }];
        let args = [&["convert", text(&made.image), text(&disk)], args].concat();
        let done = vmdkit(&args);
        assert!(done.status.success(), "{done:?}");
        let mut bytes = fs::read(&disk).unwrap();
        if broken == "rgd" {
            let rgd = u64::from_le_bytes(bytes[48..56].try_into().unwrap()) as usize * 512;
            bytes[rgd..rgd + 4].fill(0xff);
        } else {
            bytes.truncate(bytes.len() - 1024);
        }
        fs::write(&disk, bytes).unwrap();
        let args = [
            "check",
            text(&disk),
            "--repair",
            text(&out),
            "--force",
            "--json",
        ];
        let done = vmdkit(&args);
        assert!(done.status.success(), "{done:?}");
        tools::run("qemu-img", ["check", "-f", "vmdk", text(&out)]).unwrap();
        let compare = [
            "compare",
            "-f",
            "vmdk",
            "-F",
            "raw",
            text(&out),
            text(&made.image),
        ];
        tools::run("qemu-img", compare).unwrap();
    }
}
