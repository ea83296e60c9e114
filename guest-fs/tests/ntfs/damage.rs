//! Damaged and hostile volumes: what can be told is told, the rest works, nothing hangs.

use crate::{
    support::{Walk, digest, sha, walk},
    tools::{Volume, noise, set_attr, text},
};
use disk_io::{Disk, DiskError, ErrorKind, MemDisk, faults::FailRange};
use guest_fs::{FileSystem, Name, NodeId, NodeKind, OpenOptions, ntfs::Ntfs};
use proptest::prelude::*;
use std::{
    ops::ControlFlow,
    os::unix::fs::FileExt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

/// Files in the large directory.
const MANY: usize = 120;

/// A small volume with one of everything.
fn fixture() -> Option<&'static [u8]> {
    static ONE: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    ONE.get_or_init(|| {
        let volume = Volume::make(4 << 20, &["-c", "512"])?;
        let mounted = volume.mount("compression");
        let at = &mounted.at;
        std::fs::create_dir(at.join("many")).unwrap();
        for i in 0..MANY {
            let name = format!("many/file {i:04} with a name of some length");
            std::fs::write(at.join(name), format!("I am {i}")).unwrap();
        }
        std::fs::write(at.join("plain"), noise(1, 50_000)).unwrap();
        std::fs::write(at.join("streams"), noise(2, 500)).unwrap();
        set_attr(&at.join("streams"), "user.other", &noise(3, 9000));
        std::fs::create_dir(at.join("packed")).unwrap();
        set_attr(
            &at.join("packed"),
            "system.ntfs_attrib_be",
            &0x800u32.to_be_bytes(),
        );
        std::fs::write(at.join("packed/text"), text(4, 40_000)).unwrap();
        let holes = std::fs::File::create(at.join("holes")).unwrap();
        for i in 0..400u64 {
            holes.write_at(&noise(i, 512), i * 1024).unwrap();
        }
        // What has an open file cannot be unmounted.
        drop(holes);
        std::os::unix::fs::symlink("plain", at.join("link")).unwrap();
        drop(mounted);
        Some(std::fs::read(&volume.image).unwrap())
    })
    .as_deref()
}

fn open(bytes: Vec<u8>) -> Result<Ntfs, DiskError> {
    Ntfs::open(Arc::new(MemDisk::new(bytes)), &OpenOptions::default())
}

fn child(fs: &Ntfs, dir: NodeId, name: &str) -> NodeId {
    fs.lookup(dir, &name.into())
        .unwrap()
        .unwrap_or_else(|| panic!("no {name}"))
}

/// Where a file record lies in the volume.
fn place_of(fs: &Ntfs, record: u64) -> usize {
    let at = record * 1024;
    let extents = fs.extents(NodeId::plain(0), None).unwrap();
    let e = extents
        .iter()
        .find(|e| (e.offset..e.offset + e.len).contains(&at))
        .unwrap();
    (e.place.unwrap() + at - e.offset) as usize
}

fn names(walk: &Walk) -> usize {
    walk.seen
        .keys()
        .filter(|p| p.starts_with(b"/many/"))
        .count()
}

#[test]
fn boot_sector_and_first_record_have_their_copies() {
    let Some(good) = fixture() else { return };
    let whole = walk(&open(good.to_vec()).unwrap(), 1 << 20);
    let mft = place_of(&open(good.to_vec()).unwrap(), 0);
    for (damage, remark) in [(0..512, "boot sector"), (mft..mft + 1024, "MFTMirr")] {
        let mut bytes = good.to_vec();
        bytes[damage].fill(0x41);
        let fs = open(bytes).unwrap();
        let info = fs.info();
        assert!(
            info.remarks.iter().any(|r| r.contains(remark)),
            "{:?}",
            info.remarks
        );
        let again = walk(&fs, 1 << 20);
        assert!(again.errors.is_empty(), "{:?}", again.errors);
        assert!(again.seen.keys().eq(whole.seen.keys()));
    }
    let mut bytes = good.to_vec();
    let end = bytes.len();
    bytes[..512].fill(0);
    bytes[end - 512..].fill(0);
    let e = open(bytes).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
}

#[test]
fn a_torn_record_costs_its_own_file_only() {
    let Some(good) = fixture() else { return };
    let fs = open(good.to_vec()).unwrap();
    let many = child(&fs, fs.root(), "many");
    let node = child(&fs, many, "file 0033 with a name of some length");
    let at = place_of(&fs, node.record);
    let mut torn = good.to_vec();
    torn[at + 510] ^= 0xff;
    let fs = open(torn).unwrap();
    let seen = walk(&fs, 1 << 20);
    assert_eq!(seen.errors.len(), 1);
    assert!(
        seen.errors[0].1.to_string().contains("torn"),
        "{}",
        seen.errors[0].1
    );
    assert_eq!(names(&seen), MANY - 1);
    let mut told = Vec::new();
    fs.scan(&mut |f| {
        told.extend(f.err());
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(told.len(), 1);

    // The same by a bad sector.
    let disk = Arc::new(MemDisk::new(good.to_vec()));
    let range = at as u64..at as u64 + 512;
    let fs = Ntfs::open(
        Arc::new(FailRange::new(disk, range)),
        &OpenOptions::default(),
    )
    .unwrap();
    let seen = walk(&fs, 1 << 20);
    assert_eq!(seen.errors.len(), 1);
    assert_eq!(seen.errors[0].1.kind(), ErrorKind::Io);
    assert_eq!(names(&seen), MANY - 1);
}

/// Offsets of all index blocks that hold names of the large directory.
fn index_blocks(bytes: &[u8]) -> Vec<usize> {
    let mark: Vec<u8> = "with a name of"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    (0..bytes.len() - 4096)
        .step_by(512)
        .filter(|at| {
            &bytes[*at..at + 4] == b"INDX"
                && bytes[*at..at + 4096].windows(mark.len()).any(|w| w == mark)
        })
        .collect()
}

#[test]
fn a_bad_index_block_is_told_and_the_rest_is_listed() {
    let Some(good) = fixture() else { return };
    let blocks = index_blocks(good);
    assert!(blocks.len() > 3);
    for at in blocks {
        let mut bytes = good.to_vec();
        bytes[at] = b'X';
        let fs = open(bytes).unwrap();
        let many = child(&fs, fs.root(), "many");
        let (mut listed, mut errors) = (0, 0);
        fs.read_dir(many, &mut |e| {
            match e {
                Ok(_) => listed += 1,
                Err(_) => errors += 1,
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        // What the index has lost is found by the records; see `lost`.
        assert!(errors > 0 && listed == MANY, "{listed} {errors}");
        for i in 0..MANY {
            let name = format!("FILE {i:04} with a name of some length");
            let found = fs.lookup(many, &Name::from(name.as_str())).unwrap();
            assert!(found.is_some(), "{name} has vanished");
        }
        // What is not there may have been: never "there is no such file" where the way to it is
        // damaged.
        let nothing = (0..MANY).map(|i| format!("file {i:04} with another name"));
        let lost = nothing.filter(|n| fs.lookup(many, &n.as_str().into()).is_err());
        assert!(lost.count() > 0);
    }
}

#[test]
fn a_node_that_names_itself_ends() {
    let Some(good) = fixture() else { return };
    let fs = open(good.to_vec()).unwrap();
    let many = child(&fs, fs.root(), "many");
    // A node above the leaves: the child of its first entry becomes the node itself.
    let block = index_blocks(good)
        .into_iter()
        .find(|at| good[at + 36] & 1 != 0)
        .unwrap();
    let mut bytes = good.to_vec();
    let entry = block + 24 + good[block + 24] as usize;
    let child = entry + usize::from(good[entry + 8]) - 8;
    assert!(child % 512 < 504 && good[entry + 12] & 1 != 0);
    bytes.copy_within(block + 16..block + 24, child);
    let fs = open(bytes).unwrap();
    let started = Instant::now();
    let seen = walk(&fs, 1 << 20);
    assert!(
        seen.errors.iter().any(|e| e.1.to_string().contains("loop")),
        "{:?}",
        seen.errors
    );
    assert_eq!(
        names(&seen),
        MANY,
        "the blocks that are not reached are swept"
    );
    let _ = fs.lookup(many, &"nothing".into());
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn stale_index_copies_and_references() {
    let Some(good) = fixture() else { return };
    let mut fs = open(good.to_vec()).unwrap();
    let node = child(&fs, fs.root(), "plain");
    let name: Vec<u8> = "plain".encode_utf16().flat_map(u16::to_le_bytes).collect();
    // The index entry of /plain: its name in an index block, 66 + 16 bytes behind its start.
    let entry = good
        .windows(name.len())
        .enumerate()
        .filter(|(_, w)| *w == name)
        .map(|(at, _)| at)
        .filter(|at| *at > 82)
        .map(|at| at - 82)
        .find(|at| {
            good[*at..at + 8] == (node.record | u64::from(node.sequence) << 48).to_le_bytes()
        })
        .unwrap();
    let mut bytes = good.to_vec();
    // Times, allocated size, size: all stale.
    bytes[entry + 24..entry + 72].fill(0x11);
    fs = open(bytes).unwrap();
    let before = walk(&open(good.to_vec()).unwrap(), 1 << 20);
    let after = walk(&fs, 1 << 20);
    let show = |w: &Walk| format!("{:?}", w.seen.get(&b"/plain"[..]));
    assert_eq!(show(&before), show(&after));
    assert_eq!(
        after.seen[&b"/plain"[..]].contents.as_ref().unwrap(),
        &sha(&noise(1, 50_000))
    );

    // The record has gone to another file since.
    let mut bytes = good.to_vec();
    bytes[entry + 6] ^= 2;
    let fs = open(bytes).unwrap();
    let stale = child(&fs, fs.root(), "plain");
    for e in [
        fs.metadata(stale).unwrap_err(),
        fs.open(stale, None).unwrap_err(),
    ] {
        assert!(e.to_string().contains("stale reference"), "{e}");
    }
}

#[test]
fn an_attribute_that_leaves_its_record_is_an_error() {
    let Some(good) = fixture() else { return };
    let fs = open(good.to_vec()).unwrap();
    let node = child(&fs, fs.root(), "plain");
    let record = place_of(&fs, node.record);
    let mut at = record + 56;
    while good[at] != 0x80 {
        at += good[at + 4] as usize;
    }
    for (field, value) in [
        (4, 0xffu8),
        (5, 0xff),
        (10, 0xff),
        (32, 0xff),
        (33, 0x7f),
        (16, 0xff),
        (34, 9),
    ] {
        let mut bytes = good.to_vec();
        bytes[at + field] = value;
        let fs = open(bytes).unwrap();
        match fs.open(node, None).and_then(|d| digest(&*d)) {
            Ok(hash) => assert_eq!(hash, sha(&noise(1, 50_000)), "field {field}"),
            Err(e) => assert_ne!(e.kind(), ErrorKind::OutOfRange, "field {field}: {e}"),
        }
        let others = walk(&fs, 1 << 20);
        assert_eq!(names(&others), MANY);
    }
}

/// Does everything a user could; must end soon, without a panic.
fn exercise(bytes: Vec<u8>) {
    let started = Instant::now();
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(bytes));
    let Ok(fs) = Ntfs::open(disk, &OpenOptions::default()) else {
        return;
    };
    let _ = fs.info();
    let _ = fs.metafiles();
    let _ = fs.free(&mut |_| {});
    let _ = fs.changes(&mut |_| ControlFlow::Continue(()));
    let seen = walk(&fs, 4 << 20);
    for s in seen.seen.values() {
        let node = s.metadata.node;
        let _ = fs.names(node);
        let _ = fs.extents(node, None);
        let _ = fs.security(node);
        let _ = fs.xattrs(node);
        if let Ok(disk) = fs.open(node, None) {
            let mut at = 0;
            for _ in 0..1000 {
                let Ok(run) = disk.run_at(at) else { break };
                assert!(run.len > 0 && run.len <= disk.len() - at);
                at += run.len;
            }
        }
    }
    for deleted in [false, true] {
        let mut visit = |f: Result<guest_fs::Found, DiskError>| {
            if let Ok(f) = f
                && f.metadata.size < 1 << 20
                && let Ok(disk) = fs.open(f.metadata.node, None)
            {
                let _ = digest(&*disk);
            }
            ControlFlow::Continue(())
        };
        if deleted {
            let _ = fs.deleted(&mut visit);
        } else {
            let _ = fs.scan(&mut visit);
        }
    }
    let with_deleted = guest_fs::deleted::WithDeleted::new(Arc::new(fs));
    if let Ok(Some(top)) = with_deleted.lookup(with_deleted.root(), &"$deleted".into()) {
        let mut rest = vec![top];
        while let Some(dir) = rest.pop() {
            let _ = with_deleted.read_dir(dir, &mut |entry| {
                if let Ok(entry) = entry
                    && entry.kind == NodeKind::Directory
                {
                    rest.push(entry.node);
                }
                ControlFlow::Continue(())
            });
        }
    }
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "took {:?}",
        started.elapsed()
    );
}

/// Where damage matters: the $MFT, the boot sectors, index blocks.
fn interesting(good: &[u8]) -> Vec<usize> {
    let mut sectors: Vec<usize> = (0..good.len())
        .step_by(512)
        .filter(|at| matches!(&good[*at..at + 4], b"FILE" | b"INDX"))
        .flat_map(|at| [at, at + 512])
        .collect();
    sectors.extend([0, 0]);
    sectors
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_never_panic_or_hang(flips in prop::collection::vec((any::<prop::sample::Index>(), 0usize..510, any::<u8>()), 1..12)) {
        let Some(good) = fixture() else { return Ok(()) };
        static PLACES: OnceLock<Vec<usize>> = OnceLock::new();
        let places = PLACES.get_or_init(|| interesting(good));
        let mut bytes = good.to_vec();
        for (place, inside, value) in flips {
            let at = places[place.index(places.len())] + inside;
            bytes[at] = value;
        }
        exercise(bytes);
    }

    #[test]
    fn cut_and_spliced_volumes_never_panic_or_hang(from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), keep in any::<prop::sample::Index>()) {
        let Some(good) = fixture() else { return Ok(()) };
        let places = interesting(good);
        let mut bytes = good.to_vec();
        let (from, to) = (places[from.index(places.len())], places[to.index(places.len())]);
        bytes.copy_within(from..from + 512, to);
        exercise(bytes.clone());
        bytes.truncate(keep.index(bytes.len()));
        exercise(bytes);
    }
}

/// Where the first attribute of a kind lies in a record; those of the file's contents come before
/// its streams.
fn attribute(bytes: &[u8], record: usize, kind: u8) -> usize {
    let word = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let mut at = record + word(record + 20);
    while bytes[at] != kind {
        assert_ne!(bytes[at], 0xff);
        at += word(at + 4);
    }
    at
}

/// One wrong bit or field in the head of a file's contents: nothing else is given out as them
/// without a word.
#[test]
fn heads_of_contents_that_are_damaged_are_told() {
    let Some(good) = fixture() else { return };
    let sound = open(good.to_vec()).unwrap();
    let packed = child(&sound, sound.root(), "packed");
    let (plain, small) = (
        child(&sound, sound.root(), "plain"),
        child(&sound, sound.root(), "streams"),
    );
    let text = child(&sound, packed, "text");
    for node in [plain, small, text] {
        assert!(sound.doubts(node).is_empty(), "{:?}", sound.doubts(node));
    }
    type Change = fn(&mut [u8]);
    let cases: [(NodeId, Change); 10] = [
        // The type of the attribute; its name.
        (plain, |a| a[0] ^= 1),
        (small, |a| a[0] = 0x90),
        (plain, |a| a[9] ^= 1),
        // The length of a value in the record, and where it begins.
        (small, |a| a[17] ^= 1),
        (small, |a| a[20] ^= 4),
        // Bytes that were written, of which there are fewer.
        (plain, |a| a[49] ^= 0x80),
        // Compression: the flag and the unit.
        (text, |a| a[12] ^= 1),
        (text, |a| a[34] = 0),
        (plain, |a| a[34] = 4),
        // A run that has no place: a hole, in a stream that is not sparse.
        (plain, |a| {
            let runs = usize::from(a[32]);
            a[runs] &= 0x0f;
            // What was the place ends the list.
            let len = usize::from(a[runs] & 0xf);
            a[runs + 1 + len] = 0;
        }),
    ];
    for (number, (node, change)) in cases.into_iter().enumerate() {
        let mut bytes = good.to_vec();
        let at = attribute(good, place_of(&sound, node.record), 0x80);
        change(&mut bytes[at..at + 256]);
        assert_ne!(bytes, good);
        let fs = open(bytes).unwrap();
        let read = |fs: &Ntfs| {
            let disk = fs.open(node, None)?;
            let mut bytes = vec![0; disk.len() as usize];
            disk.read_exact_at(&mut bytes, 0)?;
            Ok::<_, DiskError>(bytes)
        };
        let told = match (read(&fs), fs.metadata(node)) {
            (Ok(_), Ok(m)) => m.refusal.is_some() || !fs.doubts(node).is_empty(),
            _ => true,
        };
        assert!(told, "case {number} of record {}", node.record);
    }
}
