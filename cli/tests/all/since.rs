//! `export --since`: only what changed, and every point restores like a full backup.

use crate::{common::Fixture, machine::machine};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt};

fn size(f: &Fixture, dir: &str) -> u64 {
    let names = crate::common::names(&f.path(dir));
    let disks = names.iter().filter(|n| n.ends_with(".vmdk"));
    disks
        .map(|n| fs::metadata(f.path(dir).join(n)).unwrap().len())
        .sum()
}

fn export(f: &Fixture, args: &[&str]) -> Value {
    let args = [&["export", "--json"], args].concat();
    f.run(&args).code(0).json()
}

fn raw_of(f: &Fixture, source: &str) -> Vec<u8> {
    f.run(&["convert", "--force", source, "now.raw", "--to", "raw"])
        .code(0);
    fs::read(f.path("now.raw")).unwrap()
}

/// A snapshot and the present state share a base: nothing but the delta is read.
#[test]
fn by_the_deltas_of_a_machine() {
    let f = Fixture::new();
    f.noise();
    machine(&f, "web");
    // The newest delta has some of what the guest wrote since.
    let mut bytes = f.raw();
    bytes[6_000_000..6_100_000].fill(9);
    bytes[5 << 20..(5 << 20) + 200_000].fill(0);
    fs::write(f.path("disk-flat.vmdk"), bytes).unwrap();
    let delta = "web/disk-000002.vmdk";
    let onto = "web/disk-000001.vmdk";
    f.run(&["rebase", "--force", "disk.vmdk", delta, "--onto", onto])
        .code(0);
    export(&f, &["web", "--snapshot", "id:1", "b1"]);
    let said = export(&f, &["web", "b2", "--since", "b1"]);
    assert_eq!(said["found_by"], serde_json::json!(["chain"]));
    assert_eq!(said["manifest"]["since"]["directory"], "b1");
    assert!(said["read"].as_u64().unwrap() < 4 << 20, "{said}");
    assert!(size(&f, "b2") < 1 << 20, "{}", size(&f, "b2"));
    f.run(&["verify", "b2"]).code(0);
    f.run(&["check", "b2"]).code(0);
    let cat = f.run(&["cat", "b2", "/dir/b.txt"]).code(0);
    assert_eq!(cat.text(), "there\n");
    assert_eq!(raw_of(&f, "b2"), f.raw());
    assert_eq!(raw_of(&f, "b2/web.vmdk"), f.raw());
    let text = f.run(&["restore", "b2", "back"]).code(0);
    assert!(text.text().contains("as the manifest says"));
    assert_eq!(raw_of(&f, "back"), f.raw());
    // The digest is that of a whole backup.
    let whole = export(&f, &["web", "whole"]);
    assert_eq!(
        said["manifest"]["disks"][0]["digest"],
        whole["manifest"]["disks"][0]["digest"]
    );
}

/// A disk that was written in place: by hashes, and by a list of changed blocks.
#[test]
fn by_hashes_and_by_a_list() {
    let f = Fixture::new();
    f.noise();
    export(&f, &["disk.vmdk", "s1"]);
    let change = |ranges: &[(usize, usize)]| {
        let mut bytes = f.raw();
        for (at, n) in ranges {
            for byte in &mut bytes[*at..at + n] {
                *byte = byte.wrapping_add(1);
            }
        }
        fs::write(f.path("disk-flat.vmdk"), bytes).unwrap();
    };
    change(&[(6_000_000, 1), (7_000_000, 70_000)]);
    let said = export(&f, &["disk.vmdk", "s2", "--since", "s1"]);
    assert_eq!(said["found_by"], serde_json::json!(["hashes"]));
    // Four blocks of 64 KiB at most.
    assert!(said["written"].as_u64().unwrap() <= 4 << 16, "{said}");
    let second = f.raw();
    // What is zeros now hides what the base has.
    let mut bytes = f.raw();
    bytes[5 << 20..6 << 20].fill(0);
    fs::write(f.path("disk-flat.vmdk"), bytes).unwrap();
    // One change lies across the end of a MiB: both have to be hashed anew.
    change(&[(7_500_000, 10), ((3 << 20) - 10, 20)]);
    let list = r#"{"startOffset": 0, "length": 8388608, "changedArea": [
        {"start": 7500000, "length": 10}, {"start": 5242880, "length": 1048576},
        {"start": 0, "length": 512}, {"start": 3145718, "length": 20}]}"#;
    fs::write(f.path("list.json"), list).unwrap();
    let args = ["disk.vmdk", "s3", "--since", "s2"];
    let said = export(
        &f,
        &[&args[..], &["--changed-blocks", "list.json"]].concat(),
    );
    assert_eq!(said["found_by"], serde_json::json!(["list"]));
    assert!(said["read"].as_u64().unwrap() <= 5 << 20, "{said}");
    f.run(&["verify", "s1"]).code(0);
    f.run(&["verify", "s2"]).code(0);
    f.run(&["verify", "s3"]).code(0);
    assert_eq!(raw_of(&f, "s2/disk.vmdk"), second);
    assert_eq!(raw_of(&f, "s3/disk.vmdk"), f.raw());
    f.run(&["restore", "s3", "back"]).code(0);
    assert_eq!(raw_of(&f, "back/disk.vmdk"), f.raw());
    // Nothing changed: the child is empty.
    let said = export(&f, &["disk.vmdk", "s4", "--since", "s3"]);
    assert_eq!(said["found_by"], serde_json::json!(["chain"]));
    assert_eq!((&said["read"], &said["written"]), (&0.into(), &0.into()));
    f.run(&["verify", "s4"]).code(0);
    // A list that misses a change makes a backup that is not the disk.
    change(&[(6_500_000, 1)]);
    fs::write(f.path("list.json"), "[]").unwrap();
    let args = ["disk.vmdk", "s5", "--since", "s4"];
    export(
        &f,
        &[&args[..], &["--changed-blocks", "list.json"]].concat(),
    );
    f.run(&["verify", "s5"]).code(0);
    f.run(&["verify", "s5", "--against", "disk.vmdk"]).code(4);
}

#[test]
fn what_it_builds_on_must_be_there_and_the_same() {
    let f = Fixture::new();
    export(&f, &["disk.vmdk", "s1"]);
    export(&f, &["disk.vmdk", "s2", "--since", "s1"]);
    let manifest = f.path("s1/vmdkit-manifest.json");
    let text = fs::read(&manifest).unwrap();
    fs::write(&manifest, [&text[..], b"\n"].concat()).unwrap();
    f.run(&["info", "s2/disk.vmdk"])
        .code(1)
        .says("another manifest");
    fs::write(&manifest, text).unwrap();
    f.run(&["info", "s2/disk.vmdk"]).code(0);
    fs::rename(f.path("s1"), f.path("gone")).unwrap();
    f.run(&["cat", "s2/disk.vmdk", "/a.txt"])
        .code(1)
        .says("put it back");
    fs::create_dir(f.path("sub")).unwrap();
    f.run(&["export", "disk.vmdk", "sub/s3", "--since", "gone"])
        .code(2)
        .says("side by side");
    f.run(&["export", "disk.vmdk", "s3", "--since", "sub"])
        .code(1)
        .says("a backup with a manifest");
    let args = ["export", "disk.vmdk", "s3", "--since", "gone"];
    f.run(&[&args[..], &["--to", "qcow2"]].concat()).code(2);
    for bad in ["{}", "[1]", r#"[{"start": 8388607, "length": 2}]"#] {
        fs::write(f.path("list.json"), bad).unwrap();
        f.run(&[&args[..], &["--changed-blocks", "list.json"]].concat())
            .code(1)
            .says("changed blocks");
    }
    let raw = ["export", "disk.vmdk", "r1", "--to", "raw"];
    f.run(&raw).code(0);
    f.run(&["export", "disk.vmdk", "r2", "--since", "r1"])
        .code(1)
        .says("which can have children");
}

/// Dated backups that build on each other are one tree, and a file has its versions.
#[test]
fn dated_increments_have_a_history() {
    let f = Fixture::new();
    machine(&f, "web");
    fs::create_dir(f.path("bk")).unwrap();
    export(&f, &["web", "--snapshot", "id:1", "bk/2026-01-01"]);
    // The configuration comes with the present state, whose disk is a full one here.
    let mut bytes = f.raw();
    let at = bytes.windows(6).position(|w| w == b"there\n").unwrap();
    bytes[at..at + 5].copy_from_slice(b"other");
    fs::write(f.path("disk-flat.vmdk"), bytes).unwrap();
    let (delta, onto) = ("web/disk-000002.vmdk", "web/disk-000001.vmdk");
    f.run(&["rebase", "--force", "disk.vmdk", delta, "--onto", onto])
        .code(0);
    let args = ["web", "bk/2026-01-02", "--since", "bk/2026-01-01"];
    export(&f, &args);
    let history = f.run(&["history", "--json", "bk", "/dir/b.txt"]).code(0);
    let versions = history.json()["versions"].clone();
    assert_eq!(versions[0]["exists"], true, "{versions}");
    assert_eq!(versions[1]["exists"], true, "{versions}");
    assert_ne!(versions[0]["sha256"], versions[1]["sha256"]);
    for (date, text) in [("2026-01-01", "there\n"), ("2026-01-02", "other\n")] {
        let path = format!("/{date}/current/scsi0-0/p0/dir/b.txt");
        assert_eq!(f.run(&["cat", "bk", &path]).code(0).text(), text);
    }
    // What cannot be opened is not absent.
    fs::rename(f.path("bk/2026-01-01"), f.path("gone")).unwrap();
    f.run(&["history", "bk", "/dir/b.txt"])
        .code(3)
        .says("put it back");
}

/// Generations: the oldest go when the newest is proven, but never one that is built on.
#[test]
fn generations_expire() {
    let f = Fixture::new();
    machine(&f, "web");
    fs::create_dir(f.path("bk")).unwrap();
    let export = |name: &str, more: &[&str]| {
        let dest = format!("bk/{name}");
        let args = [&["web", &dest, "--keep", "2"], more].concat();
        export(&f, &args)["expired"].clone()
    };
    let names = || {
        let mut names = crate::common::names(&f.path("bk"));
        names.retain(|n| !n.starts_with('.'));
        names
    };
    assert!(export("1", &[]).is_null());
    assert!(f.path("bk/1/.done").exists());
    assert!(export("2", &["--since", "bk/1"]).is_null());
    assert!(export("3", &["--since", "bk/2"]).is_null(), "3 needs both");
    assert_eq!(names(), ["1", "2", "3"]);
    // Another machine's backup is not a generation of this one.
    f.run(&["export", "disk.vmdk", "bk/disk"]).code(0);
    // 4 builds on nothing: 3 is kept by number, and 1 and 2 because of it.
    assert!(export("4", &[]).is_null());
    fs::write(f.path("bk/2/notes.txt"), "mine").unwrap();
    let gone = export("5", &[]);
    // 2 holds what is not of the backup, so that it stays, and what it builds on.
    assert_eq!(gone.to_string(), r#"["bk/3"]"#);
    assert_eq!(names(), ["1", "2", "4", "5", "disk"]);
    fs::remove_file(f.path("bk/2/notes.txt")).unwrap();
    let gone = export("6", &[]);
    assert_eq!(gone.to_string(), r#"["bk/4","bk/2","bk/1"]"#);
    assert_eq!(names(), ["5", "6", "disk"]);
    f.run(&["verify", "bk/5"]).code(0);
    // Somebody else is at it.
    let lock = fs::File::create(f.path("bk/.vmdkit-keep.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    f.run(&["export", "web", "bk/7", "--keep", "2"])
        .code(1)
        .says("another export");
}

/// With --merge the oldest that stays is made whole, and what it was built on goes.
#[test]
fn a_chain_of_increments_expires() {
    for subformat in ["monolithicSparse", "twoGbMaxExtentSparse", "vmfsSparse"] {
        let f = Fixture::new();
        machine(&f, "web");
        fs::create_dir(f.path("bk")).unwrap();
        let mut raw = f.raw();
        let mut was = Vec::new();
        for n in 1..=5usize {
            // A place of its own each day, and one that changes every day.
            for at in [n << 20, 6 << 20] {
                raw[at..at + 5000].fill(n as u8);
            }
            fs::write(f.path("web/disk-flat.vmdk"), &raw).unwrap();
            was.push(raw.clone());
            let (dest, before) = (format!("bk/{n}"), format!("bk/{}", n - 1));
            let mut args = vec!["web", &dest, "--keep", "3", "--merge"];
            args.extend(["--subformat", subformat]);
            if n > 1 {
                args.extend(["--since", &before]);
            }
            let json = export(&f, &args);
            if n == 3 {
                fs::set_permissions(f.path(&dest), fs::Permissions::from_mode(0o700)).unwrap();
            }
            let said = |key: &str| json[key].to_string();
            if n < 4 {
                assert_eq!(
                    (said("expired"), said("merged")),
                    ("null".into(), "null".into())
                );
            } else {
                assert_eq!(said("merged"), format!("[\"bk/{}\"]", n - 2));
                assert_eq!(said("expired"), format!("[\"bk/{}\"]", n - 3));
            }
        }
        let mut names = crate::common::names(&f.path("bk"));
        names.retain(|n| n != ".vmdkit-keep.lock");
        assert_eq!(names, ["3", "4", "5"], "{subformat}");
        for n in 3..=5usize {
            let dir = format!("bk/{n}");
            assert!(f.path(&format!("{dir}/.done")).exists());
            f.run(&["check", &dir]).code(0);
            let verify = f.run(&["verify", "--json", &dir, "--sample", "100"]);
            assert_ne!(verify.code, Some(4), "{}", verify.err);
            let back = format!("{n}.raw");
            f.run(&["-q", "convert", &dir, &back, "--to", "raw"])
                .code(0);
            assert_eq!(
                fs::read(f.path(&back)).unwrap(),
                was[n - 1],
                "{subformat} {n}"
            );
        }
        // Whoever could not read the old one cannot read what was made of it.
        let mode = fs::metadata(f.path("bk/3")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        // The next builds on what was made whole as well.
        let manifest = fs::read_to_string(f.path("bk/3/vmdkit-manifest.json")).unwrap();
        assert!(manifest.contains("stands_for") && !manifest.contains("\"since\""));
        // What is not of the backup is not lost, and keeps it as it is.
        fs::write(f.path("bk/4/notes.txt"), "mine").unwrap();
        let args = ["web", "bk/6", "--since", "bk/5", "--keep", "3", "--merge"];
        let args = [&args[..], &["--subformat", subformat]].concat();
        let json = export(&f, &args);
        assert!(
            json["merged"].is_null() && json["expired"].is_null(),
            "{json}"
        );
        assert!(f.path("bk/4/notes.txt").exists() && f.path("bk/3").exists());
    }
}

/// What a killed export left: a backup that was not proven is, by the next, so that it does not
/// keep for ever what it builds on; and half of one goes.
#[test]
fn a_killed_export_keeps_nothing_for_ever() {
    let f = Fixture::new();
    machine(&f, "web");
    fs::create_dir(f.path("bk")).unwrap();
    let mut raw = f.raw();
    let mut next = |n: usize| {
        raw[n << 20..][..5000].fill(n as u8);
        fs::write(f.path("web/disk-flat.vmdk"), &raw).unwrap();
        let (dest, before) = (format!("bk/{n}"), format!("bk/{}", n - 1));
        let mut args = vec!["web", &dest, "--keep", "2", "--merge"];
        if n > 1 {
            args.extend(["--since", &before]);
        }
        export(&f, &args)
    };
    next(1);
    next(2);
    // Killed before the second was proven, and before.
    fs::remove_file(f.path("bk/2/.done")).unwrap();
    fs::write(f.path("bk/.vmdkit-keep.lock"), "2\0").unwrap();
    let left = f.path("bk/.vmdkit-1-0.tmp");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("web.vmdk"), "half").unwrap();
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    let times = fs::FileTimes::new().set_modified(then);
    fs::File::open(&left).unwrap().set_times(times).unwrap();
    let json = next(3);
    assert_eq!(json["merged"].to_string(), "[\"bk/2\"]", "{json}");
    assert_eq!(json["expired"].to_string(), "[\"bk/1\"]", "{json}");
    assert!(!left.exists() && f.path("bk/2/.done").exists());
    // One that was made without --keep is nobody's to remove.
    f.run(&["export", "web", "bk/own"]).code(0);
    next(4);
    assert!(f.path("bk/own").exists() && !f.path("bk/own/.done").exists());
    let lock = fs::read(f.path("bk/.vmdkit-keep.lock")).unwrap();
    assert_eq!(lock, b"");
}

/// Without room to merge the new backup is there, and scripts are told that something is not.
#[test]
fn a_merge_that_fails_is_an_exit_code() {
    let f = Fixture::new();
    machine(&f, "web");
    fs::create_dir(f.path("bk")).unwrap();
    f.run(&["export", "web", "bk/1", "--keep", "2"]).code(0);
    for n in 2..=3 {
        let (dest, before) = (format!("bk/{n}"), format!("bk/{}", n - 1));
        let args = ["export", "web", &dest, "--since", &before, "--keep", "9"];
        f.run(&args).code(0);
    }
    // The second cannot be read any more.
    fs::write(f.path("bk/2/web.vmdk"), "").unwrap();
    f.run(&["export", "web", "bk/4", "--keep", "3", "--merge"])
        .code(3);
    assert!(f.path("bk/1").exists() && f.path("bk/4/.done").exists());
}

#[test]
fn hooks_run_around_an_export() {
    let f = Fixture::new();
    let log = |phase: &str| format!("echo {phase} $VMDKIT_PHASE $VMDKIT_DEST $VMDKIT_EXIT >> log");
    let (pre, post, error) = (log("a"), log("b"), log("c"));
    let hooks = ["--pre", &pre, "--post", &post, "--on-error", &error];
    let run = |args: &[&str], code| {
        let _ = fs::remove_file(f.path("log"));
        f.run(&[args, &hooks].concat()).code(code);
        fs::read_to_string(f.path("log")).unwrap()
    };
    let good = run(&["export", "disk.vmdk", "out"], 0);
    assert_eq!(good, "a pre out\nb post out 0\n");
    let bad = run(&["export", "disk.vmdk", "out"], 1);
    assert_eq!(bad, "a pre out\nc error out 1\n");
    let usage = run(&["export", "disk.vmdk", "x", "--force"], 2);
    assert_eq!(usage, "a pre x\nc error x 2\n");
    f.run(&["export", "disk.vmdk", "no", "--pre", "exit 7"])
        .code(1)
        .says("exit status: 7");
    assert!(!f.path("no").exists());
    // What a command prints is not the result.
    let said = f.run(&["export", "--json", "disk.vmdk", "o2", "--pre", "echo x"]);
    said.code(0).json();
}

/// What no file uses is zeros in the backup, in one that builds on it, and in what is restored.
#[test]
fn only_what_files_use() {
    let f = Fixture::new();
    f.noise();
    let whole = export(&f, &["disk.vmdk", "w"]);
    let said = export(&f, &["disk.vmdk", "u1", "--used-only"]);
    let written = |v: &Value| v["written"].as_u64().unwrap();
    assert!(written(&said) + (2 << 20) < written(&whole), "{said}");
    f.run(&["verify", "u1"]).code(0);
    let mut bytes = f.raw();
    let at = bytes.windows(6).position(|w| w == b"hello\n").unwrap();
    bytes[at..at + 5].copy_from_slice(b"HELLO");
    // Free space changes too, and that is nobody's business.
    bytes[7 << 20..].fill(3);
    fs::write(f.path("disk-flat.vmdk"), bytes).unwrap();
    let said = export(&f, &["disk.vmdk", "u2", "--used-only", "--since", "u1"]);
    assert_eq!(said["found_by"], serde_json::json!(["hashes"]));
    // The file, and what lies behind the last cluster.
    assert_eq!(written(&said), 2 << 16, "{said}");
    f.run(&["verify", "u2"]).code(0);
    f.run(&["restore", "u2", "back"]).code(0);
    let cat = f.run(&["cat", "back/disk.vmdk", "/a.txt"]).code(0);
    assert_eq!(cat.text(), "HELLO\n");
}

/// What is not an older generation of the same disk, or is built on by anything, stays.
#[test]
fn only_generations_of_the_same_disk_go() {
    let f = Fixture::new();
    f.noise();
    for dir in ["a", "b", "bk"] {
        fs::create_dir(f.path(dir)).unwrap();
    }
    for dir in ["a", "b"] {
        for name in ["disk.vmdk", "disk-flat.vmdk"] {
            fs::copy(f.path(name), f.path(dir).join(name)).unwrap();
        }
    }
    let run = |dir: &str, args: &[&str], code: i32| {
        let mut command = f.command(&[&["export"], args].concat());
        let out = command.current_dir(f.path(dir)).output().unwrap();
        assert_eq!(out.status.code(), Some(code), "{out:?}");
        String::from_utf8(out.stderr).unwrap()
    };
    let there = || -> Vec<String> {
        let names = crate::common::names(&f.path("bk"));
        names.into_iter().filter(|n| !n.starts_with('.')).collect()
    };
    // Two disks that are called the same.
    run("a", &["disk.vmdk", "../bk/a1", "--keep", "1"], 0);
    run("b", &["disk.vmdk", "../bk/b1", "--keep", "1"], 0);
    assert_eq!(there(), ["a1", "b1"]);
    // One of a's, spelled otherwise: the older one goes.
    run(".", &["a/disk.vmdk", "bk/a2", "--keep", "1"], 0);
    assert_eq!(there(), ["a2", "b1"]);
    // Another disk builds on a2, as strange as that is; one that was not proven does not count.
    run("b", &["disk.vmdk", "../bk/b2", "--since", "../bk/a2"], 0);
    run("a", &["disk.vmdk", "../bk/a3"], 0);
    run("a", &["disk.vmdk", "../bk/a4", "--keep", "1"], 0);
    assert_eq!(there(), ["a2", "a3", "a4", "b1", "b2"]);
    f.run(&["verify", "bk/b2"]).code(0);
    // A manifest that cannot be read: who knows what it builds on.
    let manifest = f.path("bk/b2/vmdkit-manifest.json");
    let kept = fs::read(&manifest).unwrap();
    fs::write(&manifest, "{").unwrap();
    let err = run("a", &["disk.vmdk", "../bk/a5", "--keep", "1"], 0);
    assert!(err.contains("no older backup is removed"), "{err}");
    assert!(there().contains(&"a4".to_owned()));
    fs::write(&manifest, kept).unwrap();
    // A chain whose clock ran ahead: dates say nothing.
    run("b", &["disk.vmdk", "../bk/c1", "--keep", "9"], 0);
    run(
        "b",
        &[
            "disk.vmdk",
            "../bk/c2",
            "--since",
            "../bk/c1",
            "--keep",
            "9",
        ],
        0,
    );
    run(
        "b",
        &[
            "disk.vmdk",
            "../bk/c3",
            "--since",
            "../bk/c2",
            "--keep",
            "1",
        ],
        0,
    );
    let left = there();
    for name in ["c1", "c2", "c3"] {
        assert!(left.contains(&name.to_owned()), "{left:?}");
    }
    assert!(!left.contains(&"b1".to_owned()), "{left:?}");
    f.run(&["verify", "bk/c3"]).code(0);
    run(
        "b",
        &["disk.vmdk", "../bk/x", "--keep", "1", "--disk", "scsi0:0"],
        2,
    );
}

/// An answer for a part of the disk is not a list of what changed.
#[test]
fn lists_that_are_not_whole() {
    let f = Fixture::new();
    f.noise();
    export(&f, &["disk.vmdk", "s1"]);
    let mut bytes = f.raw();
    bytes[7_500_000] ^= 1;
    fs::write(f.path("disk-flat.vmdk"), &bytes).unwrap();
    let args = [
        "export",
        "disk.vmdk",
        "s2",
        "--since",
        "s1",
        "--changed-blocks",
        "l.json",
    ];
    let half = r#"{"startOffset": 0, "length": 4194304, "changedArea": []}"#;
    let rest = r#"{"startOffset": 4194304, "length": 4194304, "changedArea": [{"start": 7500000, "length": 1}]}"#;
    fs::write(f.path("l.json"), half).unwrap();
    let err = f.run(&args).code(1).err;
    assert!(
        err.contains("answers for all") && err.contains("4194304"),
        "{err}"
    );
    fs::write(f.path("l.json"), format!("[{rest}, {half}]")).unwrap();
    f.run(&args).code(0);
    f.run(&["verify", "s2"]).code(0);
    f.run(&["verify", "s2", "--against", "disk.vmdk"]).code(0);
    let args = [&args[..], &["--used-only"]].concat();
    f.run(&args).code(2);
    // Hashes that are not those of the earlier backup are not believed.
    let units = f.path("s2/disk.vmdk.units");
    let len = fs::metadata(&units).unwrap().len();
    fs::write(&units, vec![0; len as usize]).unwrap();
    bytes[7_400_000] ^= 1;
    fs::write(f.path("disk-flat.vmdk"), &bytes).unwrap();
    let said = export(&f, &["disk.vmdk", "s3", "--since", "s2"]);
    assert_eq!(said["found_by"], serde_json::json!(["hashes"]));
    f.run(&["verify", "s3", "--against", "disk.vmdk"]).code(0);
    f.run(&[
        "export",
        "disk.vmdk",
        "p.ova",
        "--to",
        "ova",
        "--split",
        "1M",
    ])
    .code(2);
}

/// A disk that was made larger is written whole once, and what comes then builds on that.
#[test]
fn a_disk_that_grew() {
    let f = Fixture::new();
    f.noise();
    export(&f, &["disk.vmdk", "g1"]);
    let text = fs::read_to_string(f.path("disk.vmdk")).unwrap();
    let mut bytes = f.raw();
    bytes.resize(bytes.len() + (3 << 20), 7);
    let sectors = |len: usize| format!("RW {} FLAT", len / 512);
    let text = text.replace(&sectors(f.raw().len()), &sectors(bytes.len()));
    fs::write(f.path("disk.vmdk"), text).unwrap();
    fs::write(f.path("disk-flat.vmdk"), &bytes).unwrap();
    let list = r#"{"changedArea": [{"start": 0, "length": 1}]}"#;
    fs::write(f.path("list.json"), list).unwrap();
    let ran = f.run(&[
        "export",
        "--json",
        "disk.vmdk",
        "g2",
        "--since",
        "g1",
        "--changed-blocks",
        "list.json",
    ]);
    let ran = ran.code(0).says("all of it is written");
    assert_eq!(ran.json()["found_by"], serde_json::json!(["whole"]));
    bytes[9 << 20] ^= 1;
    fs::write(f.path("disk-flat.vmdk"), &bytes).unwrap();
    let said = export(&f, &["disk.vmdk", "g3", "--since", "g2"]);
    assert_eq!(said["found_by"], serde_json::json!(["hashes"]));
    assert!(size(&f, "g3") < 1 << 20, "{}", size(&f, "g3"));
    for dir in ["g2", "g3"] {
        f.run(&["verify", dir]).code(0);
    }
    assert_eq!(raw_of(&f, "g3/disk.vmdk"), bytes);
}
