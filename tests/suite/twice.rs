//! What a hostile volume shows twice: two things of one name, and one directory under several
//! names.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
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

/// So many directories, each with two names for the next: 2^24 paths lead to the last.
const LEVELS: usize = 25;

/// An ext4 volume of 8 MiB: the directory `d0` in its root has `file`, and as `x` and as `y` the
/// next one, and so on.
fn two_names(dir: &Path) {
    let image = dir.join("e.img");
    fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    fs::write(dir.join("file"), "contents").unwrap();
    let img = image.to_str().unwrap();
    tools::run("mke2fs", ["-q", "-t", "ext4", img]).unwrap();
    let mut requests = String::new();
    for n in 0..LEVELS {
        requests += &format!(
            "mkdir d{n}\nwrite {} d{n}/file\n",
            dir.join("file").display()
        );
    }
    for n in 1..LEVELS {
        let above = n - 1;
        requests += &format!("ln d{n} d{above}/x\nln d{n} d{above}/y\n");
    }
    for n in 1..LEVELS {
        requests += &format!("unlink d{n}\n");
    }
    fs::write(dir.join("requests"), requests).unwrap();
    let requests = dir.join("requests");
    tools::run("debugfs", ["-w", "-f", requests.to_str().unwrap(), img]).unwrap();
}

/// Every directory is entered by one of its names, and the other one is told.
#[test]
fn a_directory_under_two_names() {
    if !tools::have(&["mke2fs", "debugfs", "tar"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    two_names(dir.path());
    let begun = Instant::now();
    let walk = |words: &str| {
        let out = vmdkit(&words.split(' ').collect::<Vec<_>>(), dir.path());
        assert_eq!(out.status.code(), Some(3), "{words}: {}", said(&out));
        let told = said(&out).matches("a directory that has one name").count();
        assert_eq!(told, LEVELS - 1, "{words}: {}", said(&out));
        assert!(said(&out).contains("/p0/d0/x,"), "{words}: {}", said(&out));
        out
    };
    for words in [
        "ls -R e.img /p0",
        "ls -R --json e.img",
        "find e.img",
        "find e.img /p0/d0",
    ] {
        let out = String::from_utf8(walk(words).stdout).unwrap();
        let files = out.lines().filter(|l| l.contains("/file")).count();
        assert_eq!(files, LEVELS, "{words}: {out}");
    }
    fs::create_dir(dir.path().join("out")).unwrap();
    walk("cp -r e.img /p0/d0 out");
    let restored = tests::guest::read_dir(&dir.path().join("out")).unwrap();
    let of = |name: &str| {
        restored
            .keys()
            .filter(|p| p.rsplit('/').next() == Some(name))
            .count()
    };
    assert_eq!((of("file"), of("x"), of("y")), (LEVELS, LEVELS - 1, 0));
    for form in ["tar", "zip"] {
        let out = walk(&format!("tar --as {form} e.img /p0/d0"));
        assert!(
            said(&out).contains(&format!("archived {LEVELS} files")),
            "{}",
            said(&out)
        );
    }
    // Debug builds on a busy machine; 2^24 paths take hours.
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
}
