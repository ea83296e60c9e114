//! The table, and what is lost, on a volume that fuzzing begins with.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{FileSystem, OpenOptions};
use disk_io::MemDisk;
use std::sync::Arc;

fn units(name: &str) -> Vec<u16> {
    name.encode_utf16().collect()
}

/// The volume, and where an index block of its root lies.
fn volume() -> (Vec<u8>, usize) {
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/bases/ntfs-files.zst");
    let bytes = zstd::decode_all(std::fs::File::open(base).unwrap()).unwrap();
    let block = bytes.windows(4).rposition(|w| w == b"INDX").unwrap();
    (bytes, block)
}

fn open(bytes: Vec<u8>) -> Ntfs {
    Ntfs::open(Arc::new(MemDisk::new(bytes)), &OpenOptions::default()).unwrap()
}

fn key(entry: &DirEntry) -> (&Name, crate::NodeId, NodeKind, Option<&Name>) {
    (
        &entry.name,
        entry.node,
        entry.kind,
        entry.short_name.as_ref(),
    )
}

fn list(fs: &Ntfs) -> (Vec<DirEntry>, Vec<DiskError>) {
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    fs.read_dir(fs.root(), &mut |entry| {
        match entry {
            Ok(entry) => all.push(entry),
            Err(e) => errors.push(e),
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    (all, errors)
}

#[test]
fn the_table_leads_from_directories_to_names() {
    let fs = open(volume().0);
    let table = ByParent::read(&fs.volume, MOST);
    assert!(table.told.is_empty());
    let (all, _) = list(&fs);
    assert_eq!(all.len(), 32);
    let children = table.children(ROOT);
    assert!(children.is_sorted());
    for entry in &all {
        assert!(children.contains(&entry.node.record));
        let name = entry.name.to_utf16().unwrap();
        let number = folded(fs.volume.upcase(), &name);
        let mut perhaps = table.perhaps(ROOT, number);
        assert!(perhaps.any(|n| n == entry.node.record));
    }
    assert_eq!(table.perhaps(ROOT, 1).count(), 0);
    assert_eq!(table.children(64), []);
    assert_eq!(table.children(1 << 40), []);
    let number = |name| folded(fs.volume.upcase(), &units(name));
    assert_eq!(number("a Name"), number("A nAME"));
    assert_ne!(number("a Name"), number("a Nam"));
}

#[test]
fn more_names_than_are_held_are_told() {
    let fs = open(volume().0);
    let table = ByParent::read(&fs.volume, 20);
    assert_eq!(table.rows.len(), 20);
    let told: Vec<_> = table.told.iter().map(ToString::to_string).collect();
    assert!(
        told.len() == 1 && told[0].contains("at most 20 names"),
        "{told:?}"
    );

    let (mut bytes, block) = volume();
    bytes[block] = b'X';
    let fs = open(bytes);
    fs.volume.by_parent.set(table).unwrap();
    let (listed, errors) = list(&fs);
    assert!(listed.len() < 32);
    assert_eq!(errors.len(), 2, "{errors:?}");
}

#[test]
fn the_table_is_made_after_damage_only() {
    let (mut bytes, block) = volume();
    let fs = open(bytes.clone());
    assert!(fs.lookup(fs.root(), &"nothing".into()).unwrap().is_none());
    let (sound, errors) = list(&fs);
    assert!(errors.is_empty());
    assert!(!fs.metafiles().is_empty());
    assert!(fs.volume.by_parent.get().is_none());

    bytes[block] = b'X';
    let fs = open(bytes);
    assert!(fs.lookup(fs.root(), &"nothing".into()).is_err());
    assert!(fs.volume.by_parent.get().is_some());
    let (mut listed, errors) = list(&fs);
    assert_eq!(errors.len(), 1);
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(listed.iter().map(key).eq(sound.iter().map(key)));
}

#[test]
fn names_that_the_index_has_are_not_lost() {
    let own = Reference {
        record: 70,
        sequence: 3,
    };
    let name = |units: &[u16]| FileName {
        parent: own,
        namespace: 0,
        units: units.into(),
        attributes: 0,
        tag: 0,
        size: 0,
    };
    let lost = |seen: &[(u64, u16, &str)], names: &[&str]| {
        let seen = seen.iter().map(|s| (s.0, s.1, spelt(&units(s.2))));
        let mut seen: Vec<_> = seen.collect();
        seen.sort_unstable();
        let names = names.iter().map(|n| name(&units(n))).collect();
        let seen = Seen(seen);
        let lost = seen.lost(own, names);
        lost.map(|n| String::from_utf16_lossy(&n.units))
            .collect::<Vec<_>>()
    };
    let others = [(69, 3, "a"), (71, 3, "b")];
    assert_eq!(lost(&others, &["a"]), ["a"]);
    assert_eq!(lost(&[(70, 3, "a")], &["a"]), [""; 0]);
    assert_eq!(lost(&[(70, 0, "a")], &["a"]), [""; 0]);
    // Names of one file that differ by case alone.
    assert_eq!(lost(&[(70, 3, "A")], &["a", "A"]), ["a"]);
    // The index spells its only name otherwise.
    assert_eq!(lost(&[(70, 3, "c")], &["a"]), [""; 0]);
    // The entry is of the file that had the record before.
    assert_eq!(lost(&[(70, 2, "a")], &["a"]), ["a"]);
}
