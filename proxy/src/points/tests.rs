//! Letters and mount points of several restore points, without a disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::{
    Tree, TreeOptions, Volume,
    letters::Letters,
    mock::MockFs,
    own::{OwnId, OwnTree},
};
use disk_io::{Disk, ErrorKind, SparseMemDisk};
use guest_fs::{FsKind, Name};
use std::sync::{Arc, OnceLock};

/// Says where it is in `name.txt`.
fn fs(text: &str) -> MockFs {
    let mut fs = MockFs::new();
    // A metafile's number.
    fs.file(0, "first", b"");
    fs.file(0, "name.txt", text.as_bytes());
    fs
}

fn add(tree: &Tree, dir: OwnId, name: &str, fs: MockFs) -> OwnId {
    let disk: Arc<dyn Disk> = Arc::new(SparseMemDisk::new(1 << 20));
    let volume = Volume::with_file_system(Name::from(name), disk, Arc::new(fs));
    let number = tree.add_volume(dir, Arc::new(volume)).unwrap();
    tree.volumes.get(usize::from(number) - 1).unwrap().1
}

/// A point below `dir` with the volumes p1 and p2 in a directory, called by these letters and
/// `volume{1}`, `volume{2}`.
fn point(tree: &Tree, dir: OwnId, name: &str, letters: [u8; 2], volumes: [MockFs; 2]) -> OwnId {
    let point = tree.add_directory(dir, &Name::from(name));
    let [a, b] = volumes;
    let doors = [add(tree, point, "p1", a), add(tree, point, "p2", b)];
    let [first, second] = doors;
    let known = Letters {
        letters: vec![(letters[0], first), (letters[1], second)],
        mounts: vec![("volume{1}".into(), first), ("volume{2}".into(), second)],
        ..Letters::default()
    };
    tree.points.push((point, OnceLock::from(known)));
    point
}

/// Present state with C: and D:, a snapshot in which they were E: and C:.
fn machine() -> Tree {
    let mut tree = Tree::empty(TreeOptions::default());
    let (mut one, mut two) = (fs("current 1"), fs("current 2"));
    let deep = one.dir(0, "deep");
    one.link(deep, "data", "Volume{2}/");
    one.link(deep, "below", "Volume{2}/sub");
    one.link(deep, "gone", "Volume{9}/");
    one.link(deep, "again", "Volume{1}/deep/again/");
    one.sort = "mount point";
    two.link(0, "back", "VOLUME{1}/");
    two.sort = "mount point";
    let sub = two.dir(0, "sub");
    two.file(sub, "inner.txt", b"inner");
    let current = point(&tree, OwnTree::ROOT, "current", *b"CD", [one, two]);
    let snapshots = tree.add_directory(OwnTree::ROOT, &Name::from("snapshots"));
    let old = [fs("old 1"), fs("old 2")];
    point(&tree, snapshots, "before", *b"EC", old);
    tree.current = Some(current);
    tree
}

fn content(tree: &Tree, path: &str) -> String {
    let found = tree.resolve(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let disk = tree.open(found.node, found.stream.as_ref()).unwrap();
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn path(tree: &Tree, path: &str) -> String {
    tree.resolve(path).unwrap().path.to_string()
}

fn error(tree: &Tree, path: &str) -> (ErrorKind, String) {
    let e = tree.resolve(path).unwrap_err();
    (e.kind(), e.to_string())
}

#[test]
fn letters_are_those_of_the_point_that_is_named() {
    let tree = machine();
    for (path, expected) in [
        ("C:/name.txt", "current 1"),
        ("/C:/name.txt", "current 1"),
        ("/c:/NAME.TXT", "current 1"),
        ("/current/C:/name.txt", "current 1"),
        ("/current/d:/name.txt", "current 2"),
        ("/snapshots/before/C:/name.txt", "old 2"),
        ("/snapshots/before/E:/name.txt", "old 1"),
        ("/current/C:/../../snapshots/before/C:/name.txt", "old 2"),
    ] {
        assert_eq!(content(&tree, path), expected, "{path}");
    }
    assert_eq!(path(&tree, "/current/C:"), "/current/p1");
    assert_eq!(path(&tree, "/snapshots/before/C:/"), "/snapshots/before/p2");
    assert_eq!(path(&tree, "C:"), "/current/p1");
    let (kind, text) = error(&tree, "/snapshots/before/D:/name.txt");
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("no volume has the letter D"), "{text}");
    assert!(text.contains("C: (/snapshots/before/p2)"), "{text}");
    // A letter means nothing where there is no point, nor inside a volume.
    for wrong in ["/snapshots/C:/name.txt", "/current/p1/C:/name.txt"] {
        let (_, text) = error(&tree, wrong);
        assert!(text.contains("'C:' in it does not"), "{text}");
    }
}

#[test]
fn a_file_of_that_name_wins() {
    let mut tree = Tree::empty(TreeOptions::default());
    let mut one = fs("1");
    one.kind = FsKind::Ext4;
    let c = one.dir(0, "C:");
    one.file(c, "name.txt", b"a directory called C:");
    let mut two = fs("2");
    two.file(0, "X", b"file X");
    let current = point(&tree, OwnTree::ROOT, "current", *b"CD", [one, two]);
    tree.current = Some(current);
    assert_eq!(content(&tree, "/C:/name.txt"), "a directory called C:");
    assert_eq!(
        content(&tree, "/current/p1/C:/name.txt"),
        "a directory called C:"
    );
    assert_eq!(content(&tree, "C:/name.txt"), "1");
    assert_eq!(content(&tree, "/D:/name.txt"), "2");
    // No drive: the unnamed stream of X.
    assert_eq!(content(&tree, "/X:"), "file X");
}

#[test]
fn where_letters_come_from_is_said() {
    let mut tree = Tree::empty(TreeOptions::default());
    let point = point(&tree, OwnTree::ROOT, "current", *b"CD", [fs("1"), fs("2")]);
    tree.points = boxcar::Vec::new();
    tree.points
        .push((point, OnceLock::from(Letters::default())));
    tree.current = Some(point);
    for path in ["/current/C:/name.txt", "/C:/name.txt", "C:/name.txt"] {
        let (kind, text) = error(&tree, path);
        assert_eq!(kind, ErrorKind::NotFound);
        assert!(text.contains("come from the registry"), "{text}");
        assert!(text.contains("on /current"), "{text}");
        assert!(
            text.contains("/current/p1 (ntfs, 'Mock'), /current/p2"),
            "{text}"
        );
    }
}

#[test]
fn a_disputed_letter_is_no_registry_that_cannot_be_read() {
    let mut tree = Tree::empty(TreeOptions::default());
    let point = point(&tree, OwnTree::ROOT, "current", *b"XY", [fs("1"), fs("2")]);
    let doors: Vec<_> = tree.volumes.iter().map(|(_, v)| v.1).collect();
    let known = Letters {
        disputed: vec![(b'C', doors)],
        remarks: vec!["C: may be either".into()],
        ..Letters::default()
    };
    tree.points = boxcar::Vec::new();
    tree.points.push((point, OnceLock::from(known)));
    tree.current = Some(point);
    let (kind, text) = error(&tree, "C:/name.txt");
    assert_eq!(kind, ErrorKind::Ambiguous);
    assert!(
        text.contains("may have the letter C: found /current/p1 and"),
        "{text}"
    );
    let (kind, text) = error(&tree, "D:/name.txt");
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("no registry here names it"), "{text}");
    assert!(!text.contains("cannot be read"), "{text}");
}

#[test]
fn dated_backups_say_which_of_them_have_a_path() {
    let tree = Tree::empty(TreeOptions::default());
    for (date, name) in [("2026-01-01", "old.txt"), ("2026-01-02", "new.txt")] {
        let dir = tree.add_directory(OwnTree::ROOT, &Name::from(date));
        let mut one = fs(date);
        one.file(0, name, b"");
        point(&tree, dir, "current", *b"CD", [one, fs("2")]);
    }
    for path in ["/2026-01-02/C:/name.txt", "/2026-01-02/current/C:/name.txt"] {
        assert_eq!(content(&tree, path), "2026-01-02", "{path}");
    }
    for (path, points) in [
        ("/C:/name.txt", "/2026-01-02, /2026-01-01"),
        ("C:\\name.txt", "/2026-01-02, /2026-01-01"),
        ("C:/old.txt", "/2026-01-01"),
        ("/old.txt", "/2026-01-01"),
    ] {
        let (kind, text) = error(&tree, path);
        assert_eq!(kind, ErrorKind::Ambiguous, "{path}: {text}");
        assert!(text.contains(&format!("it is in {points}")), "{text}");
    }
    let (_, text) = error(&tree, "C:/old.txt");
    assert!(
        text.contains("with one of them: /2026-01-01/C:/old.txt"),
        "{text}"
    );
    let (kind, text) = error(&tree, "/Q:/name.txt");
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("no restore point has this path"), "{text}");
    assert!(
        text.contains("/2026-01-02: the registry knows C:"),
        "{text}"
    );
    let (kind, text) = error(&tree, "/nowhere.txt");
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("/2026-01-02/nowhere.txt"), "{text}");
}

#[test]
fn volumes_mounted_in_directories_are_walked_through() {
    let tree = machine();
    for (path, expected) in [
        ("C:/deep/data/name.txt", "current 2"),
        ("/current/p1/deep/data/name.txt", "current 2"),
        ("/deep/data/name.txt", "current 2"),
        ("C:/deep/below/inner.txt", "inner"),
        ("C:/deep/data/back/name.txt", "current 1"),
        // Back to where it is mounted, as in Windows.
        ("C:/deep/data/../../name.txt", "current 1"),
        ("C:/deep/data/sub/../name.txt", "current 2"),
    ] {
        assert_eq!(content(&tree, path), expected, "{path}");
    }
    assert_eq!(path(&tree, "C:/deep/data/name.txt"), "/current/p2/name.txt");
    // At the end of a path it is itself, with / what is mounted there.
    assert_eq!(path(&tree, "C:/deep/data"), "/current/p1/deep/data");
    assert_eq!(path(&tree, "C:/deep/data/"), "/current/p2");
    assert_eq!(path(&tree, "C:/deep/below/."), "/current/p2/sub");
    let remark = tree.mount_point_remark(tree.resolve("C:/deep/data").unwrap().node);
    assert!(remark.unwrap().ends_with("mounted there is /current/p2"));
    let (kind, text) = error(&tree, "C:/deep/data/none");
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(
        text.contains("/current/p2 exists, 'none' in it does not"),
        "{text}"
    );
    let (kind, text) = error(&tree, "C:/deep/gone/x.txt");
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(
        text.contains("mount point of Volume{9}, which is not here"),
        "{text}"
    );
    assert!(text.contains("/current/p2"), "{text}");
}

#[test]
fn mount_points_that_lead_into_themselves_end() {
    let tree = machine();
    let (kind, text) = error(&tree, "C:/deep/again/x");
    assert_eq!(kind, ErrorKind::Refused, "{text}");
    assert!(text.contains("at most 63"), "{text}");
    // A long path may go to and fro.
    let far = format!("C:/{}name.txt", "deep/data/back/".repeat(20));
    assert_eq!(content(&tree, &far), "current 1");
    let too_far = format!("C:/{}name.txt", "deep/data/back/".repeat(40));
    assert_eq!(error(&tree, &too_far).0, ErrorKind::Refused);
}
