//! What is only shown when it is asked for: deleted files as a tree, raw reparse points and
//! cipher text, the change journal.

use crate::{
    support::{digest, host, sha},
    tools::{Volume, noise, set_attr},
};
use guest_fs::{FileSystem, Name, NodeId, NodeKind, OpenOptions, volume};
use std::{collections::BTreeMap, fs, ops::ControlFlow, path::Path, sync::Arc};

fn open(image: &Path, options: &OpenOptions) -> Arc<dyn FileSystem> {
    volume::open(&host(image), options).unwrap()
}

fn find(fs: &dyn FileSystem, path: &str) -> Option<NodeId> {
    path.split('/')
        .filter(|c| !c.is_empty())
        .try_fold(fs.root(), |dir, c| fs.lookup(dir, &Name::from(c)).unwrap())
}

/// Everything below a directory: path to node.
fn below(fs: &dyn FileSystem, dir: NodeId) -> BTreeMap<String, (NodeId, NodeKind)> {
    let mut all = BTreeMap::new();
    let mut rest = vec![(String::new(), dir)];
    while let Some((path, dir)) = rest.pop() {
        fs.read_dir(dir, &mut |e| {
            let e = e.unwrap();
            let path = format!("{path}/{}", e.name);
            assert_eq!(fs.lookup(dir, &e.name).unwrap(), Some(e.node), "{path}");
            assert_eq!(fs.names(e.node).unwrap(), [(dir, e.name.clone())], "{path}");
            assert_eq!(fs.metadata(e.node).unwrap().kind, e.kind, "{path}");
            if e.kind == NodeKind::Directory {
                rest.push((path.clone(), e.node));
            }
            all.insert(path, (e.node, e.kind));
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    all
}

#[test]
fn deleted_files_are_a_tree() {
    let Some(volume) = Volume::make(16 << 20, &[]) else {
        return;
    };
    let mounted = volume.mount("rw");
    let at = &mounted.at;
    fs::create_dir_all(at.join("stays/gone/deep")).unwrap();
    let bytes = noise(5, 100_000);
    fs::write(at.join("stays/a"), b"first").unwrap();
    fs::write(at.join("stays/gone/deep/b"), &bytes).unwrap();
    fs::write(at.join("stays/gone/c"), b"third").unwrap();
    fs::write(at.join("stays/living"), b"here").unwrap();
    drop(mounted);
    let mounted = volume.mount("rw");
    fs::remove_file(mounted.at.join("stays/a")).unwrap();
    fs::remove_dir_all(mounted.at.join("stays/gone")).unwrap();
    drop(mounted);

    let plain = open(&volume.image, &OpenOptions::default());
    assert_eq!(find(&*plain, "$deleted"), None);
    let options = OpenOptions {
        deleted: true,
        ..OpenOptions::default()
    };
    let ours = open(&volume.image, &options);
    assert!(
        ours.metafiles()
            .iter()
            .any(|m| m.name == Name::from("$deleted"))
    );
    let top = find(&*ours, "$deleted").unwrap();
    assert!(top.record < 1 << 48);
    let all = below(&*ours, top);
    let paths: Vec<_> = all.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "/stays",
            "/stays/a",
            "/stays/gone",
            "/stays/gone/c",
            "/stays/gone/deep",
            "/stays/gone/deep/b"
        ]
    );
    let read = |path: &str| digest(&*ours.open(all[path].0, None).unwrap()).unwrap();
    assert_eq!(read("/stays/gone/deep/b"), sha(&bytes));
    assert_eq!(read("/stays/a"), sha(b"first"));
    // Deleted files are not among the others.
    assert_eq!(below(&*ours, find(&*ours, "stays").unwrap()).len(), 1);
}

#[test]
fn raw_reparse_points_and_holes() {
    let Some(volume) = Volume::make(16 << 20, &[]) else {
        return;
    };
    let mounted = volume.mount("rw");
    let path = mounted.at.join("dedup");
    fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let mut value = 0x8000_0013u32.to_le_bytes().to_vec();
    value.extend([16, 0, 0, 0]);
    value.extend([7; 16]);
    set_attr(&path, "system.ntfs_reparse_data", &value);
    drop(mounted);
    let options = OpenOptions {
        raw_reparse: true,
        ..OpenOptions::default()
    };
    let ours = open(&volume.image, &options);
    let node = find(&*ours, "dedup").unwrap();
    assert!(ours.metadata(node).unwrap().refusal.is_none());
    assert_eq!(
        digest(&*ours.open(node, None).unwrap()).unwrap(),
        sha(&vec![0; 1 << 20])
    );
    let streams = ours.streams(node).unwrap();
    assert_eq!(streams[0].name, Name::from("$REPARSE_POINT"));
    let stream = ours.open(node, Some(&streams[0].name)).unwrap();
    disk_io::conformance::check(&*stream, &value);
    let plain = open(&volume.image, &OpenOptions::default());
    assert!(plain.open(node, None).is_err());
    assert!(plain.streams(node).unwrap().is_empty());
    assert_eq!(plain.reparse(node).unwrap(), Some(value));
}

#[test]
fn cipher_text_in_whole_sectors() {
    let Some(volume) = Volume::make(16 << 20, &[]) else {
        return;
    };
    let mounted = volume.mount("efs_raw");
    let path = mounted.at.join("secret");
    // As ntfs-3g takes it: whole sectors, then how many bytes of the last are not the file's.
    let bytes = noise(9, 20 * 512);
    let mut raw = bytes.clone();
    raw.extend(24u16.to_le_bytes());
    fs::write(&path, raw).unwrap();
    let mut keys = noise(3, 600);
    keys[..4].copy_from_slice(&600u32.to_le_bytes());
    set_attr(&path, "system.ntfs_efsinfo", &keys);
    drop(mounted);
    let plain = open(&volume.image, &OpenOptions::default());
    let node = find(&*plain, "secret").unwrap();
    assert_eq!(plain.metadata(node).unwrap().size, 20 * 512 - 24);
    let e = plain.open(node, None).unwrap_err().to_string();
    assert!(e.contains("EFS") && e.contains("--efs-raw"), "{e}");
    let options = OpenOptions {
        efs_raw: true,
        ..OpenOptions::default()
    };
    let ours = open(&volume.image, &options);
    assert_eq!(ours.metadata(node).unwrap().size, 20 * 512);
    disk_io::conformance::check(&*ours.open(node, None).unwrap(), &bytes);
    let streams = ours.streams(node).unwrap();
    assert_eq!(streams[0].name, Name::from("$EFS"));
    let stream = ours.open(node, Some(&streams[0].name)).unwrap();
    disk_io::conformance::check(&*stream, &keys);
}

/// One change record of version 2.
fn change(usn: u64, node: NodeId, parent: NodeId, name: &str, reasons: u32) -> Vec<u8> {
    let reference = |n: NodeId| n.record | u64::from(n.sequence) << 48;
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let len = (60 + name.len()).next_multiple_of(8);
    let mut out = (len as u32).to_le_bytes().to_vec();
    out.extend([2, 0, 0, 0]);
    out.extend(reference(node).to_le_bytes());
    out.extend(reference(parent).to_le_bytes());
    out.extend(usn.to_le_bytes());
    out.extend(132_223_104_000_000_000u64.to_le_bytes());
    out.extend(reasons.to_le_bytes());
    out.extend([0; 8]);
    out.extend(0x20u32.to_le_bytes());
    out.extend((name.len() as u16).to_le_bytes());
    out.extend([60, 0]);
    out.extend(name);
    out.resize(len, 0);
    out
}

/// Makes a file the volume's journal: ntfs-3g creates nothing in $Extend, so the entry of
/// `$Reparse` there is given another name of the same length, and another file.
fn as_journal(image: &Path, node: NodeId) {
    let mut bytes = fs::read(image).unwrap();
    let name: Vec<u8> = "$Reparse"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let other: Vec<u8> = "$UsnJrnl"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let reference = (node.record | u64::from(node.sequence) << 48).to_le_bytes();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(16).position(|w| w == name) {
        at += found;
        // The key lies 0x10 behind the reference, the name 0x42 in the key. Its own record
        // has the same name in an attribute, and no reference before it.
        let entry = at - 0x52;
        let length = u16::from_le_bytes([bytes[entry + 8], bytes[entry + 9]]);
        if length == 0x68 {
            bytes[at..at + 16].copy_from_slice(&other);
            bytes[entry..entry + 8].copy_from_slice(&reference);
        }
        at += 16;
    }
    fs::write(image, bytes).unwrap();
}

/// Windows alone keeps a journal; a file in its place with the same bytes serves.
#[test]
fn the_change_journal_is_listed() {
    let Some(volume) = Volume::make(16 << 20, &[]) else {
        return;
    };
    let mounted = volume.mount("streams_interface=windows");
    fs::create_dir(mounted.at.join("dir")).unwrap();
    drop(mounted);
    let ours = open(&volume.image, &OpenOptions::default());
    assert!(!ours.changes(&mut |_| panic!("a record")).unwrap());
    let dir = find(&*ours, "dir").unwrap();
    let gone = NodeId {
        record: 77,
        sequence: 9,
    };
    drop(ours);
    let at = 8 << 20;
    let mut journal = Vec::new();
    for i in 0..200u64 {
        let record = change(at + i, gone, dir, &format!("file {i}"), 0x8000_0100);
        let room = 4096 - journal.len() % 4096;
        if record.len() > room {
            journal.resize(journal.len() + room, 0);
        }
        journal.extend(record);
    }
    let mounted = volume.mount("streams_interface=windows");
    fs::write(mounted.at.join("journal"), b"").unwrap();
    let stream = fs::File::create(mounted.at.join("journal:$J")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&stream, &journal, at).unwrap();
    drop((stream, mounted));
    let node = find(&*open(&volume.image, &OpenOptions::default()), "journal").unwrap();
    as_journal(&volume.image, node);
    let ours = open(&volume.image, &OpenOptions::default());
    let mut seen = Vec::new();
    let there = ours
        .changes(&mut |c| {
            seen.push(c.unwrap());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(there);
    assert_eq!(seen.len(), 200);
    assert_eq!(
        (seen[199].name.to_string(), seen[199].usn),
        ("file 199".into(), at + 199)
    );
    assert_eq!((seen[0].node, seen[0].parent), (gone, dir));
    assert_eq!(
        seen[0].reason_names().collect::<Vec<_>>(),
        ["file-create", "close"]
    );
    assert_eq!(seen[0].time.seconds, 1_577_836_800);
}
