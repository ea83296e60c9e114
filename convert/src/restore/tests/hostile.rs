//! Names and links that lead elsewhere, and who else looks.

use super::*;

#[test]
fn hostile_names_stay_inside() {
    let mut guest = Guest::new();
    for name in ["..", ".", "", "../../escape", "/etc/x", "a\0b"] {
        guest.file(0, name, name.as_bytes());
    }
    guest.file(0, "%2E%2E", b"really called so");
    let up = guest.dir(0, "dir/../..");
    guest.file(up, "f", b"");
    let outer = tempfile::tempdir().unwrap();
    let dest = outer.path().join("dest");
    fs::create_dir(&dest).unwrap();
    let (summary, log) = run(&guest, &dest, &Options::default());
    assert_eq!(
        tree(outer.path())
            .iter()
            .filter(|n| !n.starts_with("dest/"))
            .count(),
        0
    );
    assert_eq!(
        tree(&dest),
        [
            "%",
            "%2E",
            "%2E%2E",
            "%2E%2E~2",
            "%2Fetc%2Fx",
            "..%2F..%2Fescape",
            "a%00b",
            "dir%2F..%2F../",
            "dir%2F..%2F../f"
        ]
    );
    assert_eq!(fs::read(dest.join("%2E%2E")).unwrap(), b"really called so");
    assert_eq!(summary.renamed, 7, "{:?}", log.lines("renamed"));
}

#[test]
fn never_through_a_link_at_the_destination() {
    let mut guest = Guest::new();
    let d = guest.dir(0, "d");
    guest.file(d, "f", b"guest");
    guest.file(0, "g", b"guest");
    let outer = tempfile::tempdir().unwrap();
    let (dest, victim) = (outer.path().join("dest"), outer.path().join("victim"));
    fs::create_dir_all(&victim).unwrap();
    fs::create_dir(&dest).unwrap();
    fs::write(victim.join("g"), b"host").unwrap();
    symlink(&victim, dest.join("d")).unwrap();
    symlink(victim.join("g"), dest.join("g")).unwrap();
    let always = Options {
        overwrite: Overwrite::Always,
        ..Options::default()
    };
    let (summary, log) = run(&guest, &dest, &always);
    assert_eq!(summary.failed, 1, "{:?}", log.lines("failed"));
    assert!(log.lines("failed")[0].contains("not followed"));
    assert_eq!(fs::read(victim.join("g")).unwrap(), b"host");
    assert!(!victim.join("f").exists());
    assert!(!dest.join("g").is_symlink());
    assert_eq!(fs::read(dest.join("g")).unwrap(), b"guest");
    // And a link that the guest itself brings is not entered by its next file.
    let mut guest = Guest::new();
    let mut link = Object::new(NodeKind::Symlink);
    link.target = Name::from("../victim");
    guest.add(0, "e", link);
    let e = guest.dir(0, "e");
    guest.file(e, "planted", b"bad");
    let _ = run(&guest, &dest, &always);
    assert!(!victim.join("planted").exists());
}

#[test]
fn nobody_else_reads_what_is_unfinished() {
    let dir = tempfile::tempdir().unwrap();
    let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
    let mut guest = Guest::new();
    let file = guest.file(0, "f", b"");
    guest.at(file).contents = Arc::new(Peeks(dir.path().to_path_buf(), seen.clone()));
    assert_eq!(run(&guest, dir.path(), &Options::default()).0.failed, 0);
    assert_eq!(*seen.lock().unwrap(), [0o600]);
    fs::write(dir.path().join("usual"), b"").unwrap();
    let mode = |name| fs::metadata(dir.path().join(name)).unwrap().mode();
    assert_eq!(mode("f"), mode("usual"));
}

#[test]
fn two_names_for_one_place() {
    let mut guest = Guest::new();
    guest.file(0, "twin", b"1");
    guest.file(0, "twin", b"2");
    let (a, b) = (guest.dir(0, "a"), guest.dir(0, "b"));
    for (dir, bytes) in [(a, b"a"), (b, b"b")] {
        guest.file(dir, "f", bytes);
        let mut link = Object::new(NodeKind::Symlink);
        link.target = Name::from_bytes(bytes);
        guest.add(dir, "link", link);
    }
    let options = Options {
        overwrite: Overwrite::Always,
        recursive: true,
        workers: 1,
        ..Options::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let (summary, log) = run(&guest, dir.path(), &options);
    assert_eq!(summary.failed, 1);
    assert!(log.lines("failed /twin")[0].contains("second"));
    assert_eq!(fs::read(dir.path().join("twin")).unwrap(), b"1");
    // The contents of two directories into one, over what a run before has left.
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let log = Log::default();
        let item = |path: &str, node| Item {
            path: path.as_bytes().to_vec(),
            node,
            to: Vec::new(),
        };
        let items = [item("/a", a), item("/b", b)];
        let (summary, result) = restore(&guest, dir.path(), &items, &options, &log);
        result.unwrap();
        assert_eq!((summary.files, summary.failed), (1, 2));
        assert_eq!(log.lines("failed /b").len(), 2, "{:?}", log.lines(""));
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"a");
        assert_eq!(
            fs::read_link(dir.path().join("link")).unwrap(),
            Path::new("a")
        );
    }
}

/// Forty directories with two names each for the next: 2^40 paths, and forty directories.
#[test]
fn a_directory_under_two_names_is_restored_once() {
    let mut guest = Guest::new();
    let mut at = 0;
    for n in 0..40 {
        guest.file(at, "file", format!("{n}"));
        let next = guest.dir(at, "x");
        guest.name(at, "y", next);
        at = next;
    }
    let dir = tempfile::tempdir().unwrap();
    let (summary, log) = run(&guest, dir.path(), &Options::default());
    assert_eq!((summary.files, summary.directories), (40, 40));
    assert_eq!(summary.failed, 40);
    let failed = log.lines("failed");
    assert!(
        failed
            .iter()
            .any(|l| l.contains("/x/y") && l.contains("/x/x,")),
        "{failed:?}"
    );
    assert!(!dir.path().join("y").exists());
}
