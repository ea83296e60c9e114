//! What is kept beside the contents: streams, owners, and their loss.

use super::*;

#[test]
fn streams_kept_or_counted() {
    let mut guest = Guest::new();
    let f = guest.file(0, "f", b"main");
    let streams = &mut guest.at(f).streams;
    streams.insert(Name::from("Zone.Identifier"), b"[ZoneTransfer]".to_vec());
    streams.insert(Name::from("big"), vec![7; 70_000]);
    let with = |streams| Options {
        streams,
        ..Options::default()
    };
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        run(&guest, dir.path(), &with(Streams::None)).0.streams_left,
        2
    );
    let dir = tempfile::tempdir().unwrap();
    run(&guest, dir.path(), &with(Streams::Files));
    assert_eq!(tree(dir.path()), ["f", "f:Zone.Identifier", "f:big"]);
    assert_eq!(fs::read(dir.path().join("f:big")).unwrap(), [7; 70_000]);
    let dir = tempfile::tempdir().unwrap();
    let (summary, log) = run(&guest, dir.path(), &with(Streams::Xattr));
    assert!(log.lines("failed /f:big")[0].contains("--streams files"));
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"main");
    let mut value = [0; 100];
    match rustix::fs::getxattr(dir.path().join("f"), "user.Zone.Identifier", &mut value) {
        Ok(n) => assert_eq!((&value[..n], summary.failed), (&b"[ZoneTransfer]"[..], 1)),
        Err(e) => eprintln!("skipped: no extended attributes in the temporary directory: {e}"),
    }
}

#[test]
fn owners_are_kept_and_set_id_bits_only_with_them() {
    let mut guest = Guest::new();
    let names = ["theirs", "nobodys", "minus"];
    let owners = [Some((1234, 1235)), None, Some((u32::MAX, 0))];
    for (name, owner) in names.into_iter().zip(owners) {
        let file = guest.file(0, name, b"x");
        guest.at(file).mode = Some(0o6755);
        guest.at(file).owner = owner;
    }
    let dir = guest.dir(0, "dir");
    guest.at(dir).mode = Some(0o3770);
    guest.at(dir).owner = owners[0];
    let mut link = Object::new(NodeKind::Symlink);
    link.target = Name::from("theirs");
    link.owner = owners[0];
    guest.add(0, "link", link);
    let place = tempfile::tempdir().unwrap();
    let preserve = Options {
        preserve: true,
        ..Options::default()
    };
    let (summary, log) = run(&guest, place.path(), &preserve);
    let found = |name: &str| {
        let m = fs::symlink_metadata(place.path().join(name)).unwrap();
        (m.mode() & 0o7777, (m.uid(), m.gid()))
    };
    assert_eq!(found("nobodys").0, 0o755);
    assert_eq!(found("minus").0, 0o755);
    if !rustix::process::geteuid().is_root() {
        assert_eq!(found("theirs").0, 0o755);
        assert_eq!(found("dir").0, 0o1770);
        eprintln!("skipped: only root can give files away");
        return;
    }
    assert_eq!(found("theirs"), (0o6755, (1234, 1235)));
    assert_eq!(found("dir"), (0o3770, (1234, 1235)));
    assert_eq!(found("link").1, (1234, 1235));
    // It is there, and what it lacks is said.
    assert_eq!((summary.files, summary.failed), (3, 1));
    assert!(log.lines("failed /minus")[0].contains("not wholly"));
}

#[test]
fn what_cannot_be_kept_beside_the_contents_does_not_cost_them() {
    let mut guest = Guest::new();
    let file = guest.file(0, "f", b"contents");
    guest.at(file).loses_streams = true;
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        streams: Streams::Files,
        ..Options::default()
    };
    let (summary, log) = run(&guest, dir.path(), &options);
    assert_eq!((summary.files, summary.failed), (1, 1));
    assert!(log.lines("failed /f")[0].contains("not wholly"));
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"contents");
}

#[test]
fn streams_of_directories_lie_beside_them() {
    let mut guest = Guest::new();
    let dir = guest.dir(0, "d");
    guest.file(dir, "f", b"x");
    for node in [0, dir] {
        let streams = &mut guest.at(node).streams;
        streams.insert(Name::from("s"), b"stream".to_vec());
    }
    for (streams, left) in [(Streams::None, 2), (Streams::Files, 1), (Streams::Xattr, 1)] {
        let place = tempfile::tempdir().unwrap();
        let options = Options {
            streams,
            ..Options::default()
        };
        let (summary, _) = run(&guest, place.path(), &options);
        assert_eq!(summary.streams_left, left, "{streams:?}");
        let mut expected = vec!["d/", "d/f"];
        if streams == Streams::Files {
            expected.push("d:s");
        }
        assert_eq!(tree(place.path()), expected);
        let mut value = [0; 100];
        assert!(rustix::fs::getxattr(place.path(), "user.s", &mut value).is_err());
    }
}
