//! What is never written over, and messages that nobody can read.

use crate::common::{Fixture, names};
use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
    process::Stdio,
};

/// A guest file restored to a name of SOURCE would be the end of both.
#[test]
fn cp_never_replaces_what_it_reads() {
    let f = Fixture::new();
    let raw = f.raw();
    let descriptor = fs::read(f.path("disk.vmdk")).unwrap();
    fs::hard_link(f.path("disk-flat.vmdk"), f.path("twin")).unwrap();
    symlink("disk.vmdk", f.path("link")).unwrap();
    fs::create_dir(f.path("dir")).unwrap();
    // The directory has a file of the guest's name, which is the image.
    fs::hard_link(f.path("disk-flat.vmdk"), f.path("dir/a.txt")).unwrap();
    for dest in [
        "disk.vmdk",
        "disk-flat.vmdk",
        "twin",
        "link",
        "dir/../twin",
        "dir",
    ] {
        let args = [
            "cp",
            "--overwrite",
            "always",
            "disk.vmdk",
            "/p0/a.txt",
            dest,
        ];
        f.run(&args).code(1).says("does not consist of");
        let through_link = ["cp", "--overwrite", "always", "link", "/p0/a.txt", dest];
        f.run(&through_link).code(1);
        assert!(f.raw() == raw, "{dest}");
        assert_eq!(fs::read(f.path("disk.vmdk")).unwrap(), descriptor);
    }
    assert!(f.path("link").is_symlink());
    // The others go on.
    let ran = f.run(&[
        "cp",
        "--overwrite",
        "always",
        "disk.vmdk",
        "/p0/a.txt",
        "/p0/empty",
        "dir",
    ]);
    ran.code(3).says("/p0/a.txt");
    assert!(f.path("dir/empty").exists());
    assert!(f.raw() == raw);
}

#[test]
fn nothing_is_appended_to_what_is_read() {
    let f = Fixture::new();
    let raw = f.raw();
    for args in [
        &["cat", "disk.vmdk", "/p0/a.txt"][..],
        &["convert", "disk.vmdk", "-", "--to", "raw"],
    ] {
        let flat = fs::OpenOptions::new()
            .append(true)
            .open(f.path("disk-flat.vmdk"))
            .unwrap();
        let done = f.command(args).stdout(flat).output().unwrap();
        let err = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{err}");
        assert!(err.contains("does not consist of"), "{err}");
    }
    fs::create_dir(f.path("mnt")).unwrap();
    f.run(&["mount", "--log", "disk-flat.vmdk", "disk.vmdk", "mnt"])
        .code(1)
        .says("does not consist of");
    assert!(f.raw() == raw);
}

#[test]
fn devices_and_pipes_stay() {
    let f = Fixture::new();
    let made = std::process::Command::new("mkfifo")
        .arg(f.path("pipe"))
        .status()
        .unwrap();
    assert!(made.success());
    f.run(&[
        "cp",
        "--overwrite",
        "always",
        "disk.vmdk",
        "/p0/a.txt",
        "pipe",
    ])
    .code(1)
    .says("a named pipe");
    let kind = fs::symlink_metadata(f.path("pipe")).unwrap().file_type();
    assert!(kind.is_fifo());
}

#[test]
fn an_empty_path_is_a_mistake() {
    let f = Fixture::new();
    for args in [
        &["cp", "-r", "disk.vmdk", "", "out"][..],
        &["cat", "disk.vmdk", ""],
        &["ls", "disk.vmdk", ""],
        &["stat", "disk.vmdk", ""],
    ] {
        f.run(args).code(2).says("empty");
    }
    assert!(!f.path("out").exists());
    fs::write(f.path("list"), "").unwrap();
    f.run(&["cp", "--files-from", "list", "disk.vmdk", "out"])
        .code(1)
        .says("nothing to restore");
}

#[test]
fn messages_that_cannot_be_written_stop_nothing() {
    let f = Fixture::new();
    fs::create_dir(f.path("out")).unwrap();
    fs::write(f.path("out/a.txt"), "mine").unwrap();
    for (code, args) in [
        (3, &["cat", "disk.vmdk", "/p0/a.txt", "/p0/nope"][..]),
        (1, &["cat", "disk.vmdk", "/p0/nope"]),
        (1, &["ls", "disk.vmdk", "/nope"]),
        (3, &["cp", "-r", "disk.vmdk", "/p0/.", "out"]),
        (2, &["cp", "disk.vmdk"]),
        (2, &["ls"]),
        (0, &["convert", "disk.vmdk", "-", "--to", "raw", "--json"]),
    ] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        for stderr in [Stdio::from(full), Stdio::from(writer)] {
            let done = f
                .command(args)
                .stdout(Stdio::null())
                .stderr(stderr)
                .status()
                .unwrap();
            assert_eq!(done.code(), Some(code), "{args:?}: {done}");
        }
    }
}

#[test]
fn results_that_cannot_be_written_are_failures() {
    let f = Fixture::new();
    fs::create_dir(f.path("out")).unwrap();
    for args in [
        &["cp", "--dry-run", "-r", "disk.vmdk", "/p0", "out"][..],
        &["cp", "-v", "-r", "disk.vmdk", "/p0", "out"],
        &["ls", "-R", "disk.vmdk"],
        &["info", "disk.vmdk"],
        &["--help"],
        &["ls", "--help"],
    ] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let done = f.command(args).stdout(full).output().unwrap();
        let err = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{args:?}: {err}");
        assert!(err.contains("standard output"), "{args:?}: {err}");
    }
    assert_eq!(names(&f.path("out/p0")).len(), 4);
}

#[test]
fn a_pipe_is_no_disk() {
    let f = Fixture::new();
    for args in [&["info", "-"][..], &["ls", "-"]] {
        f.run(args).code(1).says("save it to a file first");
    }
    // Only a conversion reads all of it anyway.
    let stdin = fs::File::open(f.path("disk-flat.vmdk")).unwrap();
    let done = f
        .command(&["-q", "convert", "-", "x.raw", "--to", "raw"])
        .stdin(stdin)
        .status()
        .unwrap();
    assert!(done.success());
    assert_eq!(fs::read(f.path("x.raw")).unwrap(), f.raw());
    let left = names(&f.path(""));
    assert!(left.iter().all(|n| !n.starts_with(".vmdkit-")), "{left:?}");
}

#[test]
fn convert_reports_beside_the_data() {
    let f = Fixture::new();
    let ran = f
        .run(&["convert", "--json", "disk.vmdk", "-", "--to", "raw"])
        .code(0);
    assert!(ran.out == f.raw());
    let json: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(json["virtual_size"], f.raw().len());
    assert_eq!(json["digest"]["kind"], "vmdkit");
}

#[test]
fn a_replaced_file_keeps_its_mode() {
    let f = Fixture::new();
    for (dest, args) in [
        ("a", &["convert", "-f", "disk.vmdk", "a", "--to", "raw"][..]),
        (
            "b",
            &["cp", "--overwrite", "always", "disk.vmdk", "/p0/a.txt", "b"],
        ),
    ] {
        fs::write(f.path(dest), "old").unwrap();
        fs::set_permissions(f.path(dest), fs::Permissions::from_mode(0o640)).unwrap();
        f.run(args).code(0);
        let mode = fs::metadata(f.path(dest)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "{dest}");
    }
}

/// What is told on standard error is in the report too.
#[test]
fn reports_carry_warnings() {
    let f = Fixture::new();
    let child = "# Disk DescriptorFile\nversion=1\nCID=00000002\nparentCID=0000beef\n\
                 createType=\"monolithicFlat\"\nparentFileNameHint=\"disk.vmdk\"\n\n\
                 RW 16384 ZERO\n";
    fs::write(f.path("child.vmdk"), child).unwrap();
    for args in [
        &["info", "--json", "child.vmdk"][..],
        &["convert", "--json", "child.vmdk", "x.raw", "--to", "raw"],
        &["cp", "--json", "--dry-run", "-r", "child.vmdk", "/", "."],
    ] {
        let json = f.run(args).json();
        let warnings = json["warnings"].as_array().unwrap();
        let told = warnings
            .iter()
            .any(|w| w.as_str().unwrap().contains("names a parent"));
        assert!(told, "{args:?}: {warnings:?}");
    }
}

#[test]
fn a_directory_with_a_dot_is_merged() {
    let f = Fixture::new();
    fs::create_dir(f.path("q")).unwrap();
    fs::write(f.path("q/mine"), "mine").unwrap();
    f.run(&["cp", "-r", "disk.vmdk", "/p0/dir/.", "q"]).code(0);
    assert_eq!(names(&f.path("q")), ["b.txt", "mine", "sub"]);
    f.run(&["cp", "-r", "disk.vmdk", "/p0/dir/.", "new"])
        .code(0);
    assert_eq!(names(&f.path("new")), ["b.txt", "sub"]);
    f.run(&["cp", "-r", "disk.vmdk", "/p0/dir/", "q"]).code(0);
    assert_eq!(names(&f.path("q/dir")), ["b.txt", "sub"]);
}

#[test]
fn errors_of_the_destination_name_it() {
    let f = Fixture::new();
    fs::create_dir_all(f.path("out/a.txt")).unwrap();
    f.run(&["cp", "disk.vmdk", "/p0/a.txt", "out"])
        .code(1)
        .says("out/a.txt");
    // Linux has no files there, whoever asks.
    f.run(&["cp", "disk.vmdk", "/p0/a.txt", "/proc/x"])
        .code(1)
        .says("/proc/x");
    f.run(&["convert", "disk.vmdk", "/proc/x", "--to", "raw"])
        .code(1)
        .says("/proc/x");
}

#[test]
fn a_full_disk_is_told_once() {
    let f = Fixture::new();
    fs::create_dir(f.path("small")).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "none"])
        .arg(f.path("small"))
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|s| s.success()) {
        eprintln!("skipped: no small file system can be mounted here");
        return;
    }
    let ran = f.run(&["cp", "disk.vmdk", "/p0/dir/sub/c.bin", "small"]);
    let left = names(&f.path("small"));
    std::process::Command::new("umount")
        .arg(f.path("small"))
        .status()
        .unwrap();
    let ran = ran.code(1);
    assert_eq!(ran.err.matches("No space left").count(), 1, "{}", ran.err);
    assert!(left.is_empty(), "{left:?}");
}
