//! What is at the destination already.

use super::*;

#[test]
fn what_exists() {
    let mut guest = Guest::new();
    let f = guest.file(0, "f", b"new");
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().join("f");
    let with = |overwrite| Options {
        overwrite,
        ..Options::default()
    };
    fs::write(&there, b"old").unwrap();
    let (summary, log) = run(&guest, dir.path(), &with(Overwrite::Never));
    assert_eq!((summary.skipped, summary.files), (1, 0));
    assert_eq!(log.lines("skipped"), ["skipped /f: it exists already"]);
    // Written just now, so newer than the guest's.
    assert_eq!(
        run(&guest, dir.path(), &with(Overwrite::IfNewer)).0.skipped,
        1
    );
    assert_eq!(fs::read(&there).unwrap(), b"old");
    assert_eq!(
        run(&guest, dir.path(), &with(Overwrite::IfChanged)).0.files,
        1
    );
    assert_eq!(fs::read(&there).unwrap(), b"new");
    assert_eq!(
        run(&guest, dir.path(), &with(Overwrite::IfChanged))
            .0
            .skipped,
        1
    );
    guest.at(f).seconds += 1;
    assert_eq!(
        run(&guest, dir.path(), &with(Overwrite::IfNewer)).0.files,
        1
    );
    assert_eq!(run(&guest, dir.path(), &with(Overwrite::Always)).0.files, 1);
    fs::remove_file(&there).unwrap();
    fs::create_dir(&there).unwrap();
    assert_eq!(
        run(&guest, dir.path(), &with(Overwrite::Always)).0.failed,
        1
    );
    assert_eq!(tree(dir.path()), ["f/"]);
}

#[test]
fn what_is_being_read_and_what_is_no_file_stay() {
    let mut guest = Guest::new();
    for name in ["image", "twin", "link", "pipe", "socket", "other"] {
        guest.file(0, name, b"new");
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("image"), b"the disk").unwrap();
    fs::hard_link(at("image"), at("twin")).unwrap();
    symlink("image", at("link")).unwrap();
    fs::write(at("other"), b"old").unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), fifo, mode, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let options = Options {
        overwrite: Overwrite::Always,
        protected: crate::place::file_ids([at("image").as_path()]),
        ..Options::default()
    };
    let before = tree(dir.path());
    let (summary, log) = run(&guest, dir.path(), &options);
    assert_eq!((summary.failed, summary.files), (5, 1));
    assert_eq!(fs::read(at("image")).unwrap(), b"the disk");
    assert_eq!(fs::read(at("other")).unwrap(), b"new");
    assert_eq!(tree(dir.path()), before);
    let said = log.lines("failed").join("\n");
    for part in [
        "does not consist of",
        "a named pipe",
        "a socket",
        // The destination as the user would name it.
        &at("pipe").display().to_string(),
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

#[test]
fn a_replaced_file_keeps_who_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let mut guest = Guest::new();
    guest.file(0, "f", b"new");
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().join("f");
    fs::write(&there, b"old").unwrap();
    fs::set_permissions(&there, fs::Permissions::from_mode(0o600)).unwrap();
    let options = Options {
        overwrite: Overwrite::Always,
        ..Options::default()
    };
    assert_eq!(run(&guest, dir.path(), &options).0.files, 1);
    assert_eq!(fs::metadata(&there).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read(&there).unwrap(), b"new");
}

#[test]
fn hard_links_over_old_ones() {
    let mut guest = Guest::new();
    let f = guest.file(0, "a", b"x");
    guest.name(0, "b", f);
    guest.at(f).links = 2;
    let always = Options {
        overwrite: Overwrite::Always,
        ..Options::default()
    };
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let (summary, _) = run(&guest, dir.path(), &always);
        assert_eq!(summary.files, 2);
        assert_eq!(tree(dir.path()), ["a", "b"]);
    }
    assert_eq!(run(&guest, dir.path(), &Options::default()).0.skipped, 2);
    // The first name cannot be restored: the second is copied by itself.
    fs::remove_file(dir.path().join("a")).unwrap();
    fs::remove_file(dir.path().join("b")).unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    let (summary, _) = run(&guest, dir.path(), &always);
    assert_eq!((summary.failed, summary.files), (1, 1));
    assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"x");
}
