//! The tree without FUSE.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::{
    Tree, TreeOptions,
    mock::{MockFs, odd_volume, tree},
};
use disk_io::{Disk, ErrorKind};
use guest_fs::{FsKind, Name, NodeKind};
use std::ops::ControlFlow;

fn odd() -> Tree {
    let mut second = MockFs::new();
    second.file(0, "not shown", b"");
    second.file(0, "only here.txt", b"2");
    let users = second.dir(0, "users");
    second.file(users, "second.txt", b"22");
    tree(vec![odd_volume(), second], TreeOptions::default())
}

fn content(tree: &Tree, path: impl AsRef<[u8]>) -> String {
    let found = tree.resolve(path).unwrap();
    let disk = tree.open(found.node, found.stream.as_ref()).unwrap();
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn error(tree: &Tree, path: impl AsRef<[u8]>) -> (ErrorKind, String) {
    let e = tree.resolve(path).unwrap_err();
    (e.kind(), e.to_string())
}

fn names(tree: &Tree, path: &str) -> Vec<String> {
    let dir = tree.resolve(path).unwrap().node;
    let mut names = Vec::new();
    tree.read_dir(dir, &mut |e| {
        names.push(e.map_or_else(|e| format!("! {e}"), |e| e.name.to_string()));
        ControlFlow::Continue(())
    })
    .unwrap();
    names
}

#[test]
fn exact_before_folded_and_spelled_as_stored() {
    let tree = odd();
    assert_eq!(content(&tree, "/p1/Users/Bob/a.txt"), "hello");
    assert_eq!(content(&tree, "/p1/Users/Bob/A.TXT"), "twin");
    assert_eq!(content(&tree, "p1//Users/./Bob/../Bob/a.txt"), "hello");
    let folded = tree.resolve("/p1/USERS/bob/Empty").unwrap();
    assert_eq!(folded.path.to_string(), "/p1/Users/Bob/empty");
    // Own names do not fold.
    assert_eq!(error(&tree, "/P1/Users").0, ErrorKind::NotFound);
}

#[test]
fn two_that_differ_by_case_alone_are_never_guessed() {
    for tells_names in [true, false] {
        let mut fs = MockFs::new();
        fs.tells_names = tells_names;
        let users = fs.dir(0, "Users");
        let first = fs.file(users, "CaseFile", b"1");
        let second = fs.file(users, "casefile", b"2");
        fs.stream(first, "Stream", b"S");
        fs.stream(first, "stream", b"s");
        fs.stream(second, "only", b"o");
        let twice = fs.file(users, "Same", b"same");
        fs.put(users, "same", twice);
        let tree = tree(vec![fs], TreeOptions::default());
        assert_eq!(content(&tree, "/p1/users/CaseFile"), "1");
        assert_eq!(content(&tree, "/p1/users/casefile"), "2");
        for path in [
            "/p1/Users/CASEFILE",
            "/p1/users/CASEFILE",
            "/Users/CASEFILE",
        ] {
            let (kind, text) = error(&tree, path);
            assert_eq!(kind, ErrorKind::Ambiguous, "{text}");
            let both = "/p1/Users/CaseFile and /p1/Users/casefile";
            assert!(text.contains(both), "{text}");
        }
        assert_eq!(
            error(&tree, "/p1/Users/CASEFILE:only").0,
            ErrorKind::Ambiguous
        );
        assert_eq!(content(&tree, "/p1/Users/CaseFile:stream"), "s");
        let (kind, text) = error(&tree, "/p1/Users/CaseFile:STREAM");
        assert_eq!(kind, ErrorKind::Ambiguous, "{text}");
        // Two names of one file are one file.
        assert_eq!(content(&tree, "/p1/Users/SAME"), "same");
    }
}

#[test]
fn a_volume_that_is_not_there_is_said_to_be_missing() {
    let (kind, text) = error(&odd(), "/p7/Users");
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("there is no volume /p7"), "{text}");
    let (_, text) = error(&odd(), "/nowhere");
    assert!(text.contains("/p9 could not be searched"), "{text}");
    assert!(!text.contains("found"), "{text}");
}

#[test]
fn spelled_as_stored_where_the_file_system_cannot_tell_names() {
    let mut fs = MockFs::new();
    fs.tells_names = false;
    let dir = fs.dir(0, "Dir");
    fs.file(dir, "File.TXT", b"");
    let tree = tree(vec![fs], TreeOptions::default());
    let found = tree.resolve("/p1/dir/file.txt").unwrap();
    assert_eq!(found.path.to_string(), "/p1/Dir/File.TXT");
    assert_eq!(tree.path_of(found.node).to_string(), "/p1/(record 2)");
}

#[test]
fn dots_and_slashes() {
    let tree = odd();
    for root in ["", "/", "//", ".", "/..", "/../..", "/p1/.."] {
        assert_eq!(tree.resolve(root).unwrap().node, tree.root(), "{root:?}");
    }
    let bob = tree.resolve("/p1/Users/Bob").unwrap();
    assert_eq!(tree.resolve("/p1/Users/Bob/").unwrap(), bob);
    assert_eq!(tree.resolve("/../p1/Users/../Users/Bob/.").unwrap(), bob);
    let (kind, text) = error(&tree, "/p1/Users/Bob/a.txt/");
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("/p1/Users/Bob/a.txt is a file"), "{text}");
}

#[test]
fn errors_name_the_component_that_is_missing() {
    let tree = odd();
    let (kind, text) = error(&tree, "/p1/Users/Rob/a.txt");
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(
        text.contains("/p1/Users exists, 'Rob' in it does not"),
        "{text}"
    );
    assert!(text.contains("did you mean 'Bob'?"), "{text}");
    let (_, text) = error(&tree, "/p1/Users/Bob/a.txt/deeper");
    assert!(text.contains("a.txt is a file, not a directory"), "{text}");
    let (_, text) = error(&tree, "/p1/Users/All Users/x");
    assert!(
        text.contains("a symbolic link to C:/ProgramData, which is not followed"),
        "{text}"
    );
    let (kind, text) = error(&tree, "/p9/anything");
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(text.contains("BitLocker"), "{text}");
    // The volume itself is there.
    let door = tree.resolve("/p9").unwrap().node;
    let metadata = tree.metadata(door).unwrap();
    assert_eq!(metadata.kind, NodeKind::Directory);
    assert!(metadata.refusal.is_some());
    assert_eq!(error(&tree, "/p9/").0, ErrorKind::Unsupported);
    // A control character does not reach the terminal.
    let (_, text) = error(&tree, "/p1/Users/a\u{1b}[31m");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn paths_without_a_volume() {
    let tree = odd();
    let found = tree.resolve("/Users/Bob/a.txt").unwrap();
    assert_eq!(found.path.to_string(), "/p1/Users/Bob/a.txt");
    assert!(found.remarks.iter().any(|r| r.contains("/p9")), "{found:?}");
    assert_eq!(content(&tree, "/only here.txt"), "2");
    let (kind, text) = error(&tree, "/Users");
    assert_eq!(kind, ErrorKind::Ambiguous);
    assert!(text.contains("/p1/Users and /p2/users"), "{text}");
    let (kind, text) = error(&tree, "/nowhere/at/all");
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(
        text.contains("/p1") && text.contains("/p2") && text.contains("/p9"),
        "{text}"
    );
}

#[test]
fn drive_letters_are_explained() {
    let tree = odd();
    for path in ["C:/Users/a.txt", "c:\\Users\\a.txt"] {
        let (kind, text) = error(&tree, path);
        assert_eq!(kind, ErrorKind::NotFound);
        assert!(
            text.contains("letter C") && text.contains("registry"),
            "{text}"
        );
        assert!(text.contains("/p1 (ntfs, 'Mock')"), "{text}");
    }
    // Elsewhere a backslash is a character like any other.
    let (_, text) = error(&tree, "/p1/Users\\Bob");
    assert!(text.contains("'Users\\Bob' in it does not"), "{text}");
}

#[test]
fn streams_after_the_whole_name_has_failed() {
    let tree = odd();
    let stream = "/p1/Users/Bob/a.txt:Zone.Identifier";
    assert_eq!(content(&tree, stream), "[ZoneTransfer]");
    assert_eq!(content(&tree, format!("{stream}:$DATA")), "[ZoneTransfer]");
    assert_eq!(
        content(&tree, "/p1/users/bob/a.txt:zone.identifier"),
        "[ZoneTransfer]"
    );
    assert_eq!(content(&tree, "/p1/Users/Bob/a.txt::$DATA"), "hello");
    assert_eq!(content(&tree, "/p1/Users/Bob/colon:name"), "literal");
    let (kind, text) = error(&tree, "/p1/Users/Bob/a.txt:nope");
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("its stream 'nope' does not"), "{text}");
    assert!(text.contains("Zone.Identifier"), "{text}");
    let mut fat = MockFs::new();
    fat.kind = FsKind::Fat32;
    fat.file(0, "a", b"");
    let tree = crate::mock::tree(vec![fat], TreeOptions::default());
    let (_, text) = error(&tree, "/p1/a:b");
    assert!(text.contains("'a:b' in it does not"), "{text}");
}

#[test]
fn names_that_no_directory_can_hold_are_reached_as_shown() {
    let tree = odd();
    let listed = names(&tree, "/p1/Users/Bob");
    for name in ["a%2Fb", "%2E%2E", "%"] {
        assert!(listed.iter().any(|n| n == name), "{name} in {listed:?}");
    }
    assert_eq!(content(&tree, "/p1/Users/Bob/a%2Fb"), "slash");
    assert_eq!(content(&tree, "/p1/Users/Bob/%2E%2E"), "dots");
    assert_eq!(content(&tree, "/p1/Users/Bob/%"), "no name");
    assert_eq!(content(&tree, b"/p1/Users/Bob/a\xed\xa0\x80"), "surrogate");
    assert_eq!(content(&tree, b"/p1/Users/Bob/\xe9\xff"), "latin");
}

#[test]
fn damage_is_visited_and_the_rest_goes_on() {
    let tree = odd();
    let torn = names(&tree, "/p1/torn");
    assert_eq!(torn.len(), 11);
    assert_eq!(torn.iter().filter(|n| n.starts_with('!')).count(), 1);
    assert_eq!(names(&tree, "/p1/damaged"), ["bad record", "good"]);
    let bad = tree.resolve("/p1/damaged/bad record").unwrap().node;
    assert_eq!(tree.metadata(bad).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn metafiles_are_listed_when_asked_for() {
    assert!(!names(&odd(), "/p1").contains(&"$MFT".to_string()));
    assert!(odd().resolve("/p1/$MFT").is_ok());
    let shown = tree(
        vec![odd_volume()],
        TreeOptions {
            meta: true,
            ..TreeOptions::default()
        },
    );
    assert!(names(&shown, "/p1").contains(&"$MFT".to_string()));
    assert!(!names(&shown, "/p1/Users").contains(&"$MFT".to_string()));
}

#[test]
fn every_node_knows_its_path_and_its_number() {
    let tree = odd();
    let mut seen = std::collections::HashMap::new();
    let mut todo = vec![(tree.root(), String::new())];
    while let Some((dir, path)) = todo.pop() {
        let listed = tree.read_dir(dir, &mut |entry| {
            if let Ok(e) = entry {
                let path = format!("{path}/{}", e.name);
                if let Some(other) = seen.insert(tree.inode(e.node), e.node) {
                    assert_eq!(other, e.node, "two nodes with one number: {path}");
                } else if e.kind == NodeKind::Directory {
                    assert_eq!(tree.path_of(e.node).to_string(), path);
                    todo.push((e.node, path));
                }
            }
            ControlFlow::Continue(())
        });
        assert_eq!(listed.is_err(), path == "/p9");
    }
    assert!(seen.len() > 30);
    assert_eq!(tree.inode(tree.root()), 1);
    // A reference to the root of a volume is the tree's own directory again.
    let users = tree.resolve("/p1/Users").unwrap().node;
    assert_eq!(tree.parent(users), Some(tree.resolve("/p1").unwrap().node));
    assert_eq!(tree.parent(tree.root()), Some(tree.root()));
    assert_eq!(
        tree.metadata(tree.resolve("/p1").unwrap().node)
            .unwrap()
            .node,
        MockFs::id(0)
    );
}

#[test]
fn volumes_say_why_not() {
    let volumes = odd().volumes();
    assert_eq!(volumes.len(), 3);
    assert_eq!(volumes[0].path, Name::from("/p1"));
    assert_eq!(volumes[0].kind, Some(FsKind::Ntfs));
    assert_eq!(volumes[0].used, Some(1 << 29));
    assert!(volumes[0].why_not.is_none());
    let why = volumes[2].why_not.as_ref().unwrap().to_string();
    assert!(why.contains("BitLocker"), "{why}");
}

#[test]
fn volumes_lie_below_any_number_of_own_directories() {
    let tree = Tree::empty(TreeOptions::default());
    let lvm = tree.add_directory(0, &Name::from("lvm"));
    let group = tree.add_directory(lvm, &Name::from("VG"));
    let fs = odd_volume();
    let disk = std::sync::Arc::new(disk_io::MemDisk::new(Vec::new()));
    let volume = crate::Volume::with_file_system(Name::from("root"), disk, std::sync::Arc::new(fs));
    tree.add_volume(group, std::sync::Arc::new(volume)).unwrap();
    assert_eq!(content(&tree, "/lvm/VG/root/Users/Bob/a.txt"), "hello");
    assert_eq!(content(&tree, "/Users/Bob/a.txt"), "hello");
    let found = tree.resolve("/lvm/VG/root/users/bob").unwrap();
    assert_eq!(tree.path_of(found.node), found.path);
    assert_eq!(tree.volumes()[0].path, Name::from("/lvm/VG/root"));
    let (_, text) = error(&tree, "/lvm/vg");
    assert!(text.contains("/lvm exists, 'vg' in it does not"), "{text}");
    assert!(text.contains("did you mean 'VG'?"), "{text}");
}
