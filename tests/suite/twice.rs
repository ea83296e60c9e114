//! What a hostile volume shows twice: two things of one name, and one directory under several
//! names.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tests::tools;

fn vmdkit(args: &[&str], dir: &Path) -> Output {
    let mut vmdkit = Command::new(tools::vmdkit().unwrap());
    vmdkit.args(args).current_dir(dir).output().unwrap()
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn replace(bytes: &mut [u8], from: &[u8; 5], to: &[u8; 5]) {
    let found: Vec<usize> = (0..bytes.len() - 5)
        .filter(|at| bytes[*at..*at + 5] == *from)
        .collect();
    assert!(!found.is_empty());
    for at in found {
        bytes[at..at + 5].copy_from_slice(to);
    }
}

/// An ext4 volume in whose root a link to `victim` and a directory, and a link and a file, have
/// one name each.
fn namesakes(dir: &Path) -> PathBuf {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("dir_2")).unwrap();
    fs::create_dir(dir.join("victim")).unwrap();
    symlink(dir.join("victim"), tree.join("dir_1")).unwrap();
    symlink(dir.join("victim/file"), tree.join("lnk_1")).unwrap();
    fs::write(tree.join("dir_2/planted"), "planted").unwrap();
    fs::write(tree.join("lnk_2"), "planted").unwrap();
    let image = dir.join("e.img");
    fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let (tree, img) = (tree.to_str().unwrap(), image.to_str().unwrap());
    let plain = "^metadata_csum,^dir_index";
    let args = ["-q", "-t", "ext4", "-O", plain, "-d", tree, img];
    tools::run("mke2fs", args).unwrap();
    let mut bytes = fs::read(&image).unwrap();
    replace(&mut bytes, b"dir_2", b"dir_1");
    replace(&mut bytes, b"lnk_2", b"lnk_1");
    fs::write(&image, bytes).unwrap();
    image
}

/// An archive has each name once, so nobody who unpacks it can be led outside.
#[test]
fn members_of_one_name() {
    if !tools::have(&["mke2fs", "tar", "unzip"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    namesakes(dir.path());
    for (form, list) in [("tar", ["tar", "-tf"]), ("zip", ["unzip", "-Z1"])] {
        let out = vmdkit(&["tar", "--as", form, "e.img", "/p0"], dir.path());
        assert_eq!(out.status.code(), Some(3), "{form}: {}", said(&out));
        assert_eq!(said(&out).matches("second member of that name").count(), 2);
        fs::write(dir.path().join("a"), &out.stdout).unwrap();
        let mut command = Command::new(list[0]);
        let listed = command
            .args([list[1], "a"])
            .current_dir(dir.path())
            .output();
        let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
        let names: Vec<&str> = listed.lines().map(|l| l.trim_end_matches('/')).collect();
        let unique: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(unique.len(), names.len(), "{form}: {listed}");
        assert!(
            unique.contains("p0/dir_1") && unique.contains("p0/lnk_1"),
            "{listed}"
        );
        assert!(unique.contains("vmdkit-failures.txt"), "{listed}");
    }
    // `cp` tells the same.
    let out = vmdkit(&["cp", "-r", "e.img", "/p0", "out"], dir.path());
    assert_eq!(out.status.code(), Some(3), "{}", said(&out));
    assert!(!dir.path().join("victim/planted").exists());
    assert!(!dir.path().join("victim/file").exists());
}
