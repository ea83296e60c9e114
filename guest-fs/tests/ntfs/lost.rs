//! Directories whose index is damaged: what it has lost is found by the records.

use crate::{
    support::walk,
    tools::{Volume, set_attr},
};
use disk_io::{Disk, DiskError, ErrorKind, MemDisk, faults::FailRange};
use guest_fs::{DirEntry, FileSystem, Name, NodeId, NodeKind, OpenOptions, ntfs::Ntfs};
use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    sync::{Arc, OnceLock},
};

/// Files in the large directory.
const MANY: usize = 120;
const MOUNT_POINT: u32 = 0xa000_0003;

/// A directory with names of every sort.
fn fixture() -> Option<&'static [u8]> {
    static ONE: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    ONE.get_or_init(|| {
        let volume = Volume::make(4 << 20, &["-c", "512"])?;
        let mounted = volume.mount("rw");
        let many = mounted.at.join("many");
        fs::create_dir(&many).unwrap();
        for i in 0..MANY {
            let path = many.join(format!("file {i:04} with a name of some length"));
            fs::write(path, format!("I am {i}")).unwrap();
        }
        for (one, other) in [
            ("file 0001 again", "many/file 0050 again"),
            ("twin", "TWIN"),
        ] {
            fs::write(many.join(one), one).unwrap();
            let other = match other.contains('/') {
                true => mounted.at.join(other),
                false => many.join(other),
            };
            fs::hard_link(many.join(one), other).unwrap();
        }
        fs::create_dir_all(many.join("file 0020 is a directory/deep")).unwrap();
        fs::write(many.join("file 0020 is a directory/deep/one"), b"one").unwrap();
        std::os::unix::fs::symlink("x", many.join("file 0030 is a link")).unwrap();
        let junction = many.join("file 0031 is a junction");
        fs::create_dir(&junction).unwrap();
        set_attr(&junction, "system.ntfs_reparse_data", &to_drive_c());
        for i in [3, 33] {
            let path = many.join(format!("file {i:04} with a name of some length"));
            let short = format!("FILE{i:04}.~1");
            set_attr(&path, "system.ntfs_dos_name", short.as_bytes());
        }
        let gone = many.join("file 0040 is gone");
        fs::write(&gone, b"gone").unwrap();
        fs::remove_file(gone).unwrap();
        drop(mounted);
        Some(fs::read(&volume.image).unwrap())
    })
    .as_deref()
}

/// A mount point that leads to `\??\C:\`.
fn to_drive_c() -> Vec<u8> {
    let path: Vec<u8> = r"\??\C:\"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let len = path.len() as u16;
    let mut value = MOUNT_POINT.to_le_bytes().to_vec();
    for word in [8 + len + 4, 0, 0, len, len + 2, 0] {
        value.extend(word.to_le_bytes());
    }
    value.extend(path);
    value.extend([0; 4]);
    value
}

fn open(bytes: &[u8]) -> Ntfs {
    let disk = MemDisk::new(bytes.to_vec());
    Ntfs::open(Arc::new(disk), &OpenOptions::default()).unwrap()
}

fn many_of(fs: &Ntfs) -> NodeId {
    fs.lookup(fs.root(), &"many".into()).unwrap().unwrap()
}

type Listed = BTreeMap<Name, DirEntry>;

/// What a directory has, each name once, and what was told.
fn list(fs: &Ntfs, dir: NodeId) -> (Listed, Vec<DiskError>) {
    let (mut all, mut errors) = (Listed::new(), Vec::new());
    fs.read_dir(dir, &mut |e| {
        match e {
            Ok(e) => {
                let before = all.insert(e.name.clone(), e);
                assert!(before.is_none(), "twice: {before:?}");
            }
            Err(e) => errors.push(e),
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    (all, errors)
}

fn utf16(name: &str) -> Vec<u8> {
    name.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn finds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|w| w == what)
}

/// Index blocks that hold names of the large directory.
fn blocks(bytes: &[u8]) -> Vec<usize> {
    let mark = utf16("file 00");
    (0..bytes.len() - 4096)
        .step_by(512)
        .filter(|at| &bytes[*at..at + 4] == b"INDX" && finds(&bytes[*at..at + 4096], &mark))
        .collect()
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// An entry in the middle of a block whose head is in one sector.
fn entry_in(bytes: &[u8], block: usize) -> usize {
    let mut at = block + 24 + word(bytes, block + 24);
    let mut all = Vec::new();
    while word(bytes, at + 12) & 2 == 0 {
        all.push(at);
        at += word(bytes, at + 8);
    }
    let middle = all.len() / 2;
    let plain = |at: &&usize| **at % 512 < 490;
    *all[middle..].iter().chain(&all).find(plain).unwrap()
}

/// Where the record of a file lies.
fn record(fs: &Ntfs, number: u64) -> usize {
    let at = number * 1024;
    let extents = fs.extents(NodeId::plain(0), None).unwrap();
    let mut extents = extents.iter();
    let e = extents.find(|e| (e.offset..e.offset + e.len).contains(&at));
    e.map(|e| e.place.unwrap() + at - e.offset).unwrap() as usize
}

/// Where an attribute of a record lies.
fn attribute(bytes: &[u8], record: usize, kind: u8) -> Option<usize> {
    let mut at = record + word(bytes, record + 20);
    while bytes[at] != 0xff {
        if bytes[at] == kind {
            return Some(at);
        }
        at += word(bytes, at + 4);
    }
    None
}

/// Where the first name in a record lies.
fn name_in(bytes: &[u8], record: usize) -> usize {
    let at = attribute(bytes, record, 0x30).unwrap();
    at + word(bytes, at + 20)
}

/// Where the root of the large directory's index lies, which may have a record of its own.
fn index_root(bytes: &[u8], sound: &Ntfs) -> usize {
    let many = many_of(sound);
    let mut roots = (many.record..=many.record + MANY as u64).filter_map(|number| {
        let at = record(sound, number);
        let base = u64::from_le_bytes(bytes[at + 32..at + 40].try_into().unwrap());
        let its = number == many.record || base & 0xffff_ffff == many.record;
        its.then(|| attribute(bytes, at, 0x90)).flatten()
    });
    roots.next().unwrap()
}

/// How an index block can be damaged.
const DAMAGES: [fn(&mut [u8], usize); 6] = [
    |bytes, block| bytes[block] = b'X',
    |bytes, block| bytes[block + 1023] ^= 1,
    |bytes, block| {
        let at = entry_in(bytes, block) + 8;
        bytes[at..at + 2].fill(0);
    },
    |bytes, block| bytes[block + 16] ^= 1,
    // The bits that an entry is the last, and that it has a block below it.
    |bytes, block| bytes[entry_in(bytes, block) + 12] ^= 2,
    |bytes, block| bytes[entry_in(bytes, block) + 12] ^= 1,
];

#[test]
fn everything_is_listed_and_found_whatever_block_is_lost() {
    let Some(good) = fixture() else { return };
    let sound = open(good);
    let (whole, errors) = list(&sound, many_of(&sound));
    assert!(errors.is_empty() && whole.len() == MANY + 7, "{whole:?}");
    let tree = walk(&sound, 1 << 20);
    let blocks = blocks(good);
    assert!(blocks.len() > 2);
    let mut without_short = 0;
    for block in blocks {
        for damage in DAMAGES {
            let mut bytes = good.to_vec();
            damage(&mut bytes, block);
            let fs = open(&bytes);
            let many = many_of(&fs);
            // Before anything was listed, and afterwards.
            for _ in 0..2 {
                for (name, entry) in &whole {
                    assert_eq!(fs.lookup(many, name).unwrap(), Some(entry.node), "{name}");
                }
                for i in [3u8, 33] {
                    let upper = format!("FILE {i:04} WITH A NAME of some length");
                    for name in [upper, format!("file{i:04}.~1")] {
                        assert!(fs.lookup(many, &name.as_str().into()).unwrap().is_some());
                    }
                }
                let gone = fs.lookup(many, &"file 0040 is gone".into());
                assert!(!matches!(gone, Ok(Some(_))));
                let (listed, errors) = list(&fs, many);
                assert!(!errors.is_empty());
                assert!(listed.keys().eq(whole.keys()), "{listed:?}");
                for (one, other) in listed.values().zip(whole.values()) {
                    assert_eq!((one.node, one.kind), (other.node, other.kind));
                    without_short += usize::from(one.short_name != other.short_name);
                    assert!(one.short_name.is_none() || one.short_name == other.short_name);
                }
            }
            let again = walk(&fs, 1 << 20);
            assert!(again.seen.keys().eq(tree.seen.keys()));
            for (one, other) in again.seen.values().zip(tree.seen.values()) {
                assert_eq!(
                    one.contents.as_ref().unwrap(),
                    other.contents.as_ref().unwrap()
                );
            }
        }
    }
    // Only where the index has the long name still and has lost the short one.
    assert!(without_short < 20, "{without_short}");
}

/// Every entry of the root of the index says that there is no block below it, or every entry of
/// a block does.
#[test]
fn blocks_that_nothing_leads_to_are_told() {
    let Some(good) = fixture() else { return };
    let sound = open(good);
    let (whole, _) = list(&sound, many_of(&sound));
    let root = index_root(good, &sound);
    let node = root + word(good, root + 20) + 16;
    let has_children = |at: &usize| good[at + 36] & 1 != 0;
    let above = blocks(good).into_iter().find(has_children).unwrap() + 24;
    for (node, found_at_once) in [(node, true), (above, false)] {
        let mut bytes = good.to_vec();
        let mut at = node + word(good, node);
        loop {
            assert!(bytes[at + 12] & 1 != 0);
            bytes[at + 12] &= !1;
            if bytes[at + 12] & 2 != 0 {
                break;
            }
            at += word(&bytes, at + 8);
        }
        let fs = open(&bytes);
        let many = many_of(&fs);
        let find = |name, entry: &DirEntry| {
            assert_eq!(fs.lookup(many, name).unwrap(), Some(entry.node), "{name}");
        };
        if found_at_once {
            whole.iter().for_each(|(name, entry)| find(name, entry));
        }
        let (listed, errors) = list(&fs, many);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].to_string().contains("in use"), "{}", errors[0]);
        assert!(listed.keys().eq(whole.keys()));
        whole.iter().for_each(|(name, entry)| find(name, entry));
    }
}

/// A block is sound, but not the one that was meant.
fn astray(good: &[u8]) -> Vec<u8> {
    // The node above the leaves: its first entry gets the child of its second.
    let has_children = |at: &usize| good[at + 36] & 1 != 0;
    let block = blocks(good).into_iter().find(has_children).unwrap();
    let first = block + 24 + word(good, block + 24);
    let second = first + word(good, first + 8);
    let child = |entry: usize| entry + word(good, entry + 8) - 8;
    assert!([first, second].iter().all(|e| child(*e) % 512 < 504));
    let mut bytes = good.to_vec();
    bytes.copy_within(child(second)..child(second) + 8, child(first));
    bytes
}

#[test]
fn names_are_found_where_the_index_leads_astray() {
    let Some(good) = fixture() else { return };
    let sound = open(good);
    let (whole, _) = list(&sound, many_of(&sound));
    let bytes = astray(good);
    for listed_before in [false, true] {
        let fs = open(&bytes);
        let many = many_of(&fs);
        if listed_before {
            let (listed, errors) = list(&fs, many);
            assert!(!errors.is_empty() && listed.keys().eq(whole.keys()));
        }
        for (name, entry) in &whole {
            assert_eq!(fs.lookup(many, name).unwrap(), Some(entry.node), "{name}");
        }
    }
}

/// Where two files say to have a name, the index says which of them has it.
#[test]
fn a_name_that_two_records_have() {
    let Some(good) = fixture() else { return };
    let sound = open(good);
    let (whole, _) = list(&sound, many_of(&sound));
    let called = |i: usize| Name::from(format!("file {i:04} with a name of some length").as_str());
    let (other, node) = (whole[&called(1)].node, whole[&called(5)].node);
    assert!(other.record < node.record);
    let mut bytes = astray(good);
    let name = name_in(&bytes, record(&sound, other.record));
    let digit = name + 66 + 2 * "file 000".len();
    assert_eq!(bytes[digit], b'1');
    bytes[digit] = b'5';
    for listed_before in [false, true] {
        let fs = open(&bytes);
        let many = many_of(&fs);
        if listed_before {
            assert!(!list(&fs, many).1.is_empty());
        }
        assert_eq!(fs.lookup(many, &called(5)).unwrap(), Some(node));
        assert_eq!(fs.lookup(many, &called(1)).unwrap(), Some(other));
    }
}

#[test]
fn a_directory_without_the_root_of_its_index() {
    let Some(good) = fixture() else { return };
    let sound = open(good);
    let many = many_of(&sound);
    let (whole, _) = list(&sound, many);
    let mut bytes = good.to_vec();
    let at = index_root(good, &sound);
    bytes[at + 1] = 1;
    let fs = open(&bytes);
    let (listed, errors) = list(&fs, many);
    assert_eq!(errors.len(), 1);
    let entries = listed.values().zip(whole.values());
    assert_eq!(listed.len(), whole.len());
    for (one, other) in entries {
        assert_eq!((one.node, one.kind), (other.node, other.kind));
        assert_eq!(one.short_name, other.short_name);
        assert_eq!(fs.lookup(many, &one.name).unwrap(), Some(one.node));
    }
    let e = fs.lookup(many, &"nothing".into()).unwrap_err();
    assert_eq!(e.to_string(), errors[0].to_string());
    // What is no directory does not become one.
    let file = whole.values().find(|e| e.kind == NodeKind::File).unwrap();
    assert!(fs.lookup(file.node, &"nothing".into()).is_err());
    let visit = &mut |_| panic!("visited");
    assert!(fs.read_dir(file.node, visit).is_err());
}

/// Makes the name of a record say something else, and lists its damaged directory.
fn with_name(good: &[u8], number: u64, change: fn(&mut [u8], u64)) -> (Listed, usize) {
    let sound = open(good);
    let mut bytes = good.to_vec();
    let name = name_in(good, record(&sound, number));
    change(&mut bytes[name..], number);
    for block in blocks(good) {
        bytes[block] = b'X';
    }
    let fs = open(&bytes);
    let many = many_of(&fs);
    let (listed, errors) = list(&fs, many);
    assert!(!errors.is_empty());
    // No loop anywhere.
    let seen = walk(&fs, 1 << 20).seen;
    let deepest = seen.keys().map(|p| p.split(|b| *b == b'/').count());
    assert!(deepest.max().unwrap() <= 5);
    (listed, usize::from(number == many.record))
}

#[test]
fn only_what_says_to_be_in_it_is_listed() {
    let Some(good) = fixture() else { return };
    let sound = open(good);
    let many = many_of(&sound);
    let (whole, _) = list(&sound, many);
    let one = &whole[&"file 0010 with a name of some length".into()];
    let (listed, _) = with_name(good, one.node.record, |_, _| ());
    assert!(listed.keys().eq(whole.keys()));
    // Another use of the directory's record, another directory, an 8.3 name alone.
    let changes: [fn(&mut [u8], u64); 3] = [
        |name, _| name[6] ^= 2,
        |name, _| name[0] ^= 1,
        |name, _| name[65] = 2,
    ];
    for change in changes {
        let (listed, _) = with_name(good, one.node.record, change);
        assert_eq!(listed.len(), whole.len() - 1);
        assert!(!listed.contains_key(&one.name));
    }
    // A directory that says to be in itself.
    let own = |name: &mut [u8], number: u64| name[..6].copy_from_slice(&number.to_le_bytes()[..6]);
    let (listed, itself) = with_name(good, many.record, own);
    assert!(itself == 1 && listed.keys().eq(whole.keys()));
}

#[test]
fn records_that_cannot_be_read_are_told() {
    let Some(good) = fixture() else { return };
    let sound = open(good);
    let many = many_of(&sound);
    let (whole, _) = list(&sound, many);
    let node = whole[&"file 0010 with a name of some length".into()].node;
    let mut bytes = good.to_vec();
    for block in blocks(good) {
        bytes[block] = b'X';
    }
    let at = record(&sound, node.record) as u64;
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(bytes));
    let disk = Arc::new(FailRange::new(disk, at..at + 512));
    let fs = Ntfs::open(disk, &OpenOptions::default()).unwrap();
    for _ in 0..2 {
        let (listed, errors) = list(&fs, many);
        assert_eq!(listed.len(), whole.len() - 1);
        let io: Vec<_> = errors
            .iter()
            .filter(|e| e.kind() == ErrorKind::Io)
            .collect();
        assert_eq!(io.len(), 1, "{errors:?}");
    }
}
