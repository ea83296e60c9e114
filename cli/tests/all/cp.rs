//! `cp`: DEST as in `cp`, what exists, what fails.

use crate::common::{Fixture, contents_of_c, names};
use std::{fs, io::Write, os::unix::fs::symlink, process::Stdio};

#[test]
fn one_file_to_a_directory_or_a_name() {
    let f = Fixture::new();
    fs::create_dir(f.path("out")).unwrap();
    f.run(&["cp", "disk.vmdk", "/p0/a.txt", "out"]).code(0);
    f.run(&["cp", "disk.vmdk", "/p0/a.txt", "out/renamed"])
        .code(0);
    assert_eq!(names(&f.path("out")), ["a.txt", "renamed"]);
    assert_eq!(fs::read(f.path("out/renamed")).unwrap(), b"hello\n");
    f.run(&["cp", "disk.vmdk", "/p0/a.txt", "no/such"])
        .code(2)
        .says("mkdir -p no");
    f.run(&["cp", "disk.vmdk", "/p0/a.txt", "new/"]).code(2);
    f.run(&["cp", "disk.vmdk", "/p0/a.txt", "/dir/b.txt", "new"])
        .code(2);
    f.run(&["cp", "disk.vmdk", "/p0/a.txt"]).code(2);
    f.run(&["cp", "disk.vmdk", "/p0/nope", "out"]).code(1);
    f.run(&["cp", "disk.vmdk", "/p0/nope", "/p0/empty", "out"])
        .code(3)
        .says("/p0/nope");
    assert!(f.path("out/empty").exists());
}

#[test]
fn a_tree() {
    let f = Fixture::new();
    f.run(&["cp", "disk.vmdk", "/p0/dir", "new"])
        .code(1)
        .says("-r");
    assert!(!f.path("new").exists());
    f.run(&["cp", "-r", "disk.vmdk", "/p0/dir", "new"]).code(0);
    assert_eq!(names(&f.path("new")), ["b.txt", "sub"]);
    assert!(fs::read(f.path("new/sub/c.bin")).unwrap() == contents_of_c());
    f.run(&["cp", "-a", "disk.vmdk", "/p0/dir", "new"]).code(0);
    assert_eq!(names(&f.path("new/dir/sub")), ["c.bin"]);
    fs::create_dir(f.path("all")).unwrap();
    f.run(&["cp", "-r", "disk.vmdk", "/", "all"]).code(0);
    assert_eq!(names(&f.path("all/p0")).len(), 4);
    fs::create_dir(f.path("with")).unwrap();
    f.run(&["cp", "--parents", "disk.vmdk", "/dir/sub/c.bin", "with"])
        .code(0);
    assert!(f.path("with/p0/dir/sub/c.bin").exists());
    fs::create_dir(f.path("some")).unwrap();
    f.run(&[
        "cp",
        "-r",
        "--include",
        "*.txt",
        "--exclude",
        "dir",
        "disk.vmdk",
        "/p0",
        "some",
    ])
    .code(0);
    assert_eq!(names(&f.path("some/p0")), ["a.txt"]);
}

#[test]
fn what_exists_is_kept_and_listed() {
    let f = Fixture::new();
    fs::write(f.path("a.txt"), "mine").unwrap();
    let copy = |more: &[&str]| {
        let mut args = vec!["cp"];
        args.extend(more);
        args.extend(["disk.vmdk", "/p0/a.txt", "."]);
        f.run(&args)
    };
    copy(&[])
        .code(3)
        .says("skipped /p0/a.txt")
        .says("--overwrite");
    copy(&["-n"]).code(0);
    copy(&["--overwrite", "never"]).code(0).says("skipped");
    copy(&["--dry-run", "--overwrite", "always"]).code(0);
    assert_eq!(fs::read(f.path("a.txt")).unwrap(), b"mine");
    copy(&["--overwrite", "always"]).code(0);
    assert_eq!(fs::read(f.path("a.txt")).unwrap(), b"hello\n");
    copy(&["--overwrite", "if-changed"]).code(0).says("skipped");
    copy(&["--overwrite", "sometimes"]).code(2);
}

#[test]
fn a_link_at_the_destination_is_not_followed() {
    let f = Fixture::new();
    fs::create_dir(f.path("out")).unwrap();
    fs::create_dir(f.path("victim")).unwrap();
    symlink(f.path("victim"), f.path("out/dir")).unwrap();
    let ran = f.run(&[
        "cp",
        "-r",
        "--overwrite",
        "always",
        "disk.vmdk",
        "/p0/dir",
        "out",
    ]);
    ran.code(1).says("not followed");
    assert!(names(&f.path("victim")).is_empty());
}

#[test]
fn paths_from_a_list() {
    let f = Fixture::new();
    fs::create_dir(f.path("out")).unwrap();
    let mut child = f
        .command(&["cp", "--files-from", "-", "disk.vmdk", "out"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let list = b"/p0/a.txt\n/p0/Long name of a file.dat\n";
    child.stdin.take().unwrap().write_all(list).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(names(&f.path("out")), ["Long name of a file.dat", "a.txt"]);
    fs::write(f.path("list"), b"/p0/empty\0").unwrap();
    f.run(&["cp", "-0", "--files-from", "list", "disk.vmdk", "out"])
        .code(0);
    assert_eq!(names(&f.path("out")).len(), 3);
    f.run(&["cp", "-0", "disk.vmdk", "/p0/empty", "out"])
        .code(2);
}

/// A chain of logical partitions that breaks off: what comes behind is not there, and not told to be
/// complete.
#[test]
fn partitions_that_may_be_missing_are_told() {
    let f = Fixture::new();
    // The first partition is the fixture's volume, the second is extended, and empty.
    let volume = f.raw();
    let (first, second) = (64u32, 64 + (volume.len() / 512) as u32);
    let mut raw = vec![0; second as usize * 512 + (64 << 10)];
    raw[64 * 512..64 * 512 + volume.len()].copy_from_slice(&volume);
    for (slot, kind, start, len) in [(0, 0x0e, first, second - first), (1, 5, second, 64)] {
        let at = 446 + 16 * slot;
        raw[at + 4] = kind;
        raw[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        raw[at + 12..at + 16].copy_from_slice(&len.to_le_bytes());
    }
    raw[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(f.path("cut.img"), raw).unwrap();
    f.run(&["cp", "-r", "cut.img", "/", "out"])
        .code(3)
        .says("breaks off");
    assert!(f.path("out").exists());
    f.run(&["ls", "-R", "cut.img", "/"]).says("breaks off");
}
