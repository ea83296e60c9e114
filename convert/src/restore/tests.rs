//! What is restored, from a guest in memory onto the host.

mod beside;
mod existing;
mod guest;
mod hostile;

use super::*;
use crate::progress::Progress;
use disk_io::{Disk, DiskError, MemDisk, Result, SparseMemDisk};
use guest::{Guest, Log, Object, Peeks};
use guest_fs::{Link, Metadata, Name, NodeId, NodeKind, Stream, Timestamp};
use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

fn run(guest: &Guest, dest: &Path, options: &Options) -> (Summary, Log) {
    let log = Log::default();
    let options = Options {
        recursive: true,
        ..options.clone()
    };
    let (summary, result) = restore(guest, dest, &[whole()], &options, &log);
    result.unwrap();
    (summary, log)
}

fn whole() -> Item<u64> {
    Item {
        path: b"/".to_vec(),
        node: 0,
        to: Vec::new(),
    }
}

/// Every name below `dir`, with what it is.
fn tree(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, top: &Path, out: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(top).unwrap().display().to_string();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_symlink() {
                out.push(format!("{name} -> {}", path.read_link().unwrap().display()));
            } else if meta.is_dir() {
                out.push(format!("{name}/"));
                walk(&path, top, out);
            } else {
                out.push(name);
            }
        }
    }
    let mut out = Vec::new();
    walk(dir, dir, &mut out);
    out.sort();
    out
}

#[test]
fn a_tree_with_times_links_and_holes() {
    let mut guest = Guest::new();
    let a = guest.dir(0, "a");
    guest.dir(a, "empty");
    let x = guest.file(a, "x", b"contents of x");
    guest.at(x).links = 2;
    let deep = guest.dir(a, "deep");
    guest.name(deep, "twin of x", x);
    let mut link = Object::new(NodeKind::Symlink);
    link.target = Name::from("../../outside");
    guest.add(deep, "link", link);
    let mut holes = SparseMemDisk::new(10 << 20);
    holes.put(5 << 20, b"middle");
    let mut object = Object::new(NodeKind::File);
    object.contents = Arc::new(holes);
    guest.add(0, "holes", object);
    guest.at(deep).seconds = 1_111_111_111;

    let dir = tempfile::tempdir().unwrap();
    let (summary, log) = run(&guest, dir.path(), &Options::default());
    assert_eq!(log.lines("failed"), [""; 0]);
    assert_eq!(
        tree(dir.path()),
        [
            "a/",
            "a/deep/",
            "a/deep/link -> ../../outside",
            "a/deep/twin of x",
            "a/empty/",
            "a/x",
            "holes"
        ]
    );
    assert_eq!(fs::read(dir.path().join("a/x")).unwrap(), b"contents of x");
    let stat = |p: &str| dir.path().join(p).symlink_metadata().unwrap();
    assert_eq!(stat("a/x").ino(), stat("a/deep/twin of x").ino());
    for (path, seconds) in [
        ("a", 1_000_000_000),
        ("a/x", 1_000_000_000),
        ("a/deep", 1_111_111_111),
        ("a/deep/link", 1_000_000_000),
    ] {
        let m = stat(path);
        assert_eq!(
            (m.mtime(), m.mtime_nsec()),
            (seconds, 123_456_700),
            "{path}"
        );
    }
    let m = stat("holes");
    assert_eq!(m.len(), 10 << 20);
    assert!(m.blocks() * 512 <= 1 << 20, "{} blocks", m.blocks());
    assert_eq!(
        (summary.files, summary.directories, summary.symlinks),
        (3, 3, 1)
    );
    assert_eq!(summary.bytes, 13 + (10 << 20));
}

#[test]
fn many_small_files_in_batches() {
    let mut guest = Guest::new();
    for d in 0..20 {
        let dir = guest.dir(0, format!("d{d}"));
        for f in 0..60 {
            guest.file(dir, format!("f{f}"), format!("{d}/{f}"));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (summary, _) = run(&guest, dir.path(), &Options::default());
    assert_eq!(summary.files, 1200);
    assert_eq!(tree(dir.path()).len(), 1220);
    assert_eq!(fs::read(dir.path().join("d7/f33")).unwrap(), b"7/33");
}

#[test]
fn goes_on_after_what_cannot_be_restored() {
    let mut guest = Guest::new();
    guest.file(0, "good", b"1");
    let bad = guest.file(0, "encrypted", b"ciphertext");
    guest.at(bad).refusal = Some(DiskError::unsupported("opening").found("an encrypted file"));
    let torn = guest.file(0, "torn", vec![1; 100_000]);
    let disk = guest.at(torn).contents.clone();
    guest.at(torn).contents = Arc::new(disk_io::faults::FailRange::new(disk, 70_000..70_001));
    guest.add(0, "socket", Object::new(NodeKind::Special));
    let looped = guest.dir(0, "loop");
    guest.name(looped, "again", looped);
    guest.file(looped, "inside", b"2");
    let dir = tempfile::tempdir().unwrap();
    let (summary, log) = run(&guest, dir.path(), &Options::default());
    assert_eq!(summary.failed, 4, "{:?}", log.lines("failed"));
    assert!(
        log.lines("failed /torn")[0].contains("70000"),
        "{:?}",
        log.lines("failed")
    );
    assert_eq!(tree(dir.path()), ["good", "loop/", "loop/inside"]);
}

#[test]
fn pipes_are_made_and_devices_are_not() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let mut guest = Guest::new();
    for (name, mode) in [
        ("pipe", 0o010_640),
        ("null", 0o020_666),
        ("disk", 0o060_660),
        ("socket", 0o140_777),
    ] {
        let node = guest.add(0, name, Object::new(NodeKind::Special));
        guest.at(node).mode = Some(mode);
    }
    let dir = tempfile::tempdir().unwrap();
    let (summary, log) = run(&guest, dir.path(), &Options::default());
    assert_eq!((summary.files, summary.failed, summary.skipped), (1, 2, 0));
    assert!(log.lines("left /socket")[0].contains("only its program"));
    assert!(log.lines("failed /null")[0].contains("character device"));
    let made = fs::symlink_metadata(dir.path().join("pipe")).unwrap();
    assert!(made.file_type().is_fifo());
    assert_eq!(made.permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    // A second time it is there; a file in its place stays too, unless it may be replaced.
    let (summary, _) = run(&guest, dir.path(), &Options::default());
    assert_eq!((summary.files, summary.skipped), (0, 1));
    fs::remove_file(dir.path().join("pipe")).unwrap();
    fs::write(dir.path().join("pipe"), "").unwrap();
    let (summary, _) = run(&guest, dir.path(), &Options::default());
    assert_eq!((summary.files, summary.skipped), (0, 1));
    let always = Options {
        overwrite: Overwrite::Always,
        ..Options::default()
    };
    run(&guest, dir.path(), &always);
    let made = fs::symlink_metadata(dir.path().join("pipe")).unwrap();
    assert!(made.file_type().is_fifo());
}

#[test]
fn only_what_is_wanted() {
    let mut guest = Guest::new();
    let a = guest.dir(0, "a");
    guest.file(a, "1.txt", b"1");
    guest.file(a, "2.doc", b"2");
    let b = guest.dir(0, "b");
    guest.file(b, "3.doc", b"3");
    let docs = guest.dir(b, "Documents");
    guest.file(docs, "4.doc", b"4");
    let filter = |include: &[&str], exclude: &[&str]| Options {
        filter: Filter::new(
            &include.iter().map(|s| (*s).into()).collect::<Vec<_>>(),
            &exclude.iter().map(|s| (*s).into()).collect::<Vec<_>>(),
            false,
        )
        .unwrap(),
        ..Options::default()
    };
    let result = |options| {
        let dir = tempfile::tempdir().unwrap();
        run(&guest, dir.path(), &options);
        tree(dir.path())
    };
    assert_eq!(result(filter(&["*.txt"], &[])), ["a/", "a/1.txt"]);
    assert_eq!(
        result(filter(&["Documents"], &[])),
        ["b/", "b/Documents/", "b/Documents/4.doc"]
    );
    assert_eq!(result(filter(&[], &["/b", "*.txt"])), ["a/", "a/2.doc"]);
}

#[test]
fn a_dry_run_does_nothing() {
    let mut guest = Guest::new();
    let a = guest.dir(0, "a");
    guest.file(a, "f", b"12345");
    guest.file(0, "g", b"1");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("g"), b"there").unwrap();
    let dry = Options {
        dry_run: true,
        ..Options::default()
    };
    let (summary, log) = run(&guest, dir.path(), &dry);
    assert_eq!(tree(dir.path()), ["g"]);
    assert_eq!((summary.files, summary.bytes, summary.skipped), (1, 5, 1));
    assert_eq!(log.lines("restored"), ["restored /a/f 5"]);
}

#[test]
fn stopped_leaves_no_temporary_names() {
    let mut guest = Guest::new();
    for f in 0..50 {
        guest.file(0, format!("f{f}"), vec![1; 10_000]);
    }
    let dir = tempfile::tempdir().unwrap();
    let log = Log {
        stop_after: Some(20),
        ..Log::default()
    };
    let options = Options {
        recursive: true,
        ..Options::default()
    };
    let (summary, result) = restore(&guest, dir.path(), &[whole()], &options, &log);
    assert_eq!(summary.failed, 0);
    assert!(result.is_ok() || crate::pipeline::is_cancelled(&result.unwrap_err()));
    assert_eq!(tree(dir.path()), [""; 0]);
}

#[test]
fn directories_need_recursion() {
    let mut guest = Guest::new();
    let a = guest.dir(0, "a");
    let item = Item {
        path: b"/a".to_vec(),
        node: a,
        to: vec!["a".into()],
    };
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let (summary, _) = restore(&guest, dir.path(), &[item], &Options::default(), &log);
    assert_eq!(summary.failed, 1);
    assert!(
        log.lines("failed")[0].contains("-r"),
        "{:?}",
        log.lines("failed")
    );
}

#[test]
fn a_file_that_cannot_be_opened_again_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let host = host::HostDir::root(dir.path(), false).unwrap();
    let pending = || {
        let (temp, file) = crate::place::create_temp(host.fd().unwrap()).unwrap();
        fs::remove_file(dir.path().join(&temp)).unwrap();
        batch::Pending::<u64> {
            kept: None,
            dir: host.clone(),
            temp,
            name: "f".into(),
            replace: false,
            path: Vec::new(),
            bytes: 0,
            node: None,
            file: Some(file),
            id: None,
        }
    };
    for count in [1, 4, 5, 9] {
        let batch = batch::Batch::default();
        for _ in 0..count {
            assert!(batch.push(pending()).is_none());
        }
        let all = batch.take();
        assert_eq!(all.iter().any(|p| p.file.is_some()), count <= 4);
        batch::sync(&all).unwrap();
    }
}

#[test]
fn a_panic_costs_one_file() {
    let (done, came) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut guest = Guest::new();
        for i in 0..200 {
            let file = guest.file(0, format!("{i}"), b"x");
            guest.at(file).panics = i % 2 == 0;
        }
        let bad = guest.dir(0, "bad");
        guest.at(bad).panics = true;
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            workers: 2,
            ..Options::default()
        };
        let (summary, log) = run(&guest, dir.path(), &options);
        let left = tree(dir.path()).iter().any(|n| n.contains("vmdkit"));
        let _ = done.send((summary, log.lines("failed"), left));
    });
    let (summary, failed, left) = came
        .recv_timeout(std::time::Duration::from_secs(60))
        .expect("it hangs");
    assert_eq!((summary.files, summary.failed), (100, 101));
    assert!(failed[0].contains("panicked") && !left);
}
