//! exFAT volumes made by `mkfs.exfat` and filled through exfat-fuse over a loop device; what
//! that driver cannot make (valid data length, TexFAT, damage) is made by changing bytes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod volume_common;

use disk_io::{Disk, MemDisk, RunKind};
use guest_fs::{ErrorKind, FileSystem, FsKind, Name, NodeId, NodeKind, OpenOptions, exfat::ExFat};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    process::Command,
    sync::{Arc, Mutex, OnceLock},
};
use volume_common::{disk, have, read, run, skip, walk};

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len.div_ceil(8) as u64)
        .flat_map(|n| (n << 16 | seed & 0xffff).to_le_bytes())
        .take(len)
        .collect()
}

struct Made {
    bytes: Vec<u8>,
    files: BTreeMap<String, Vec<u8>>,
}

/// Unmounts and detaches whatever happens.
struct Loop(String, Option<std::path::PathBuf>);

impl Drop for Loop {
    fn drop(&mut self) {
        if let Some(dir) = &self.1 {
            let _ = Command::new("umount").arg(dir).status();
        }
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

fn make(sector: &str, cluster: &str) -> Option<Made> {
    if !have("mkfs.exfat") || !have("mount.exfat-fuse") {
        return None;
    }
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("exfat.img");
    fs::File::create(&image).unwrap().set_len(48 << 20).unwrap();
    let out = Command::new("losetup")
        .args(["-f", "--show", "-b", sector])
        .arg(&image)
        .output()
        .unwrap();
    if !out.status.success() {
        skip("fuse", "no loop device can be made here");
        return None;
    }
    let name = String::from_utf8(out.stdout).unwrap().trim().to_owned();
    let mut device = Loop(name, None);
    run(Command::new("mkfs.exfat").args(["-L", "Bänd", "-c", cluster, &device.0]));
    let mnt = dir.path().join("mnt");
    fs::create_dir(&mnt).unwrap();
    let mounted = Command::new("mount.exfat-fuse")
        .arg(&device.0)
        .arg(&mnt)
        .output();
    if !mounted.is_ok_and(|o| o.status.success()) {
        skip("fuse", "exfat-fuse cannot mount here");
        return None;
    }
    device.1 = Some(mnt.clone());
    let mut files = BTreeMap::new();
    let mut put = |name: &str, bytes: Vec<u8>| {
        fs::write(mnt.join(name), &bytes).unwrap();
        files.insert(format!("/{name}"), bytes);
    };
    fs::create_dir_all(mnt.join("deep/Er")).unwrap();
    fs::create_dir(mnt.join("many")).unwrap();
    put("empty", vec![]);
    put("small.txt", pattern(1, 13));
    put("deep/Er/down", pattern(2, 100_000));
    put("Ünïcode \u{1f4be} name", pattern(3, 5000));
    put(&"long ".repeat(50), pattern(4, 10));
    for n in 0..300u64 {
        put(
            &format!("many/file number {n} with a name of some length"),
            pattern(n, n as usize),
        );
    }
    // Two files that grow in turns lie in pieces.
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let mut open = ["a.bin", "b.bin"].map(|n| fs::File::create(mnt.join(n)).unwrap());
    for n in 0..12u64 {
        let (x, y) = (pattern(1000 + n, 40_000), pattern(2000 + n, 40_000));
        open[0].write_all(&x).unwrap();
        open[0].sync_all().unwrap();
        open[1].write_all(&y).unwrap();
        open[1].sync_all().unwrap();
        a.extend(x);
        b.extend(y);
    }
    drop(open);
    files.insert("/a.bin".into(), a);
    files.insert("/b.bin".into(), b);
    run(Command::new("umount").arg(&mnt));
    device.1 = None;
    // The driver goes on for a moment after umount returns.
    let mut bytes = Vec::new();
    for _ in 0..50 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        run(Command::new("sync").arg(&image));
        bytes = fs::read(&image).unwrap();
        if bytes[106] & 2 == 0 {
            break;
        }
    }
    drop(device);
    Some(Made { bytes, files })
}

fn small() -> Option<&'static Made> {
    static MADE: OnceLock<Option<Made>> = OnceLock::new();
    MADE.get_or_init(|| make("512", "4K")).as_ref()
}

fn open(bytes: Vec<u8>) -> ExFat {
    ExFat::open(Arc::new(MemDisk::new(bytes)), &OpenOptions::default()).unwrap()
}

fn node(fs: &dyn FileSystem, path: &str) -> NodeId {
    path.split('/')
        .filter(|p| !p.is_empty())
        .fold(fs.root(), |dir, part| {
            let found = fs.lookup(dir, &Name::from(part)).unwrap();
            found.unwrap_or_else(|| panic!("no {part} of {path}"))
        })
}

#[test]
fn what_went_in_comes_out() {
    for (sector, cluster) in [
        ("512", "4K"),
        ("512", "512"),
        ("512", "128K"),
        ("4096", "4K"),
        ("4096", "32K"),
    ] {
        let Some(made) = make(sector, cluster) else {
            return;
        };
        let fs = open(made.bytes.clone());
        let info = fs.info();
        assert_eq!(info.kind, FsKind::ExFat);
        assert_eq!(info.label, Some(Name::from("Bänd")));
        assert_eq!(info.dirty, Some(false));
        assert_eq!(info.remarks, Vec::<String>::new());
        let (found, errors) = walk(&fs);
        assert_eq!(errors, Vec::<String>::new());
        let ours: BTreeMap<_, _> = found
            .iter()
            .filter(|f| f.kind == NodeKind::File)
            .map(|f| (f.path.clone(), f.bytes.clone().unwrap()))
            .collect();
        assert_eq!(
            ours.keys().collect::<Vec<_>>(),
            made.files.keys().collect::<Vec<_>>()
        );
        assert!(ours == made.files, "{sector} {cluster}: bytes differ");
        let taken: u64 = found
            .iter()
            .map(|f| fs.metadata(f.node).unwrap().allocated)
            .sum();
        assert!(info.used.unwrap() >= taken, "{:?} {taken}", info.used);
        assert!(fs.extents(node(&fs, "a.bin"), None).unwrap().len() > 1);
        for path in ["/small.txt", "/b.bin", "/empty"] {
            let file = fs.open(node(&fs, path), None).unwrap();
            disk_io::conformance::check(&file, &made.files[path]);
        }
        // A node is good without its directory having been listed, even where its entries
        // lie in two clusters.
        let fresh = open(made.bytes.clone());
        for f in &found {
            assert_eq!(fresh.metadata(f.node).unwrap().size, f.size, "{}", f.path);
            assert!(fresh.metadata(f.node).unwrap().remarks.is_empty());
        }
        assert_eq!(
            node(&fs, "ÜNÏCODE \u{1f4be} NAME"),
            node(&fs, "Ünïcode \u{1f4be} name")
        );
        assert!(fs.metadata(NodeId::plain(1)).is_err());
        assert!(
            fs.metadata(NodeId::plain(node(&fs, "a.bin").record + 1))
                .is_err()
        );
    }
}

#[test]
fn agrees_with_the_sleuth_kit() {
    let Some(made) = small() else { return };
    if !have("icat") {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &made.bytes).unwrap();
    let fs = ExFat::open(disk(file.path()), &OpenOptions::default()).unwrap();
    let out = run(Command::new("fls")
        .args(["-f", "exfat", "-r", "-u", "-p", "-F"])
        .arg(file.path()));
    let theirs: BTreeMap<String, String> = String::from_utf8(out)
        .unwrap()
        .lines()
        .filter(|l| l.starts_with("r/r") && !l.contains("\t$") && !l.contains("(Volume Label"))
        .filter_map(|l| l.strip_prefix("r/r ")?.split_once(":\t"))
        .map(|(inode, name)| (format!("/{name}"), inode.to_owned()))
        .collect();
    let (found, _) = walk(&fs);
    let ours: Vec<_> = found.iter().filter(|f| f.kind == NodeKind::File).collect();
    assert_eq!(
        ours.iter()
            .map(|f| f.path.trim_end().to_owned())
            .collect::<Vec<_>>(),
        theirs
            .keys()
            .map(|n| n.trim_end().to_owned())
            .collect::<Vec<_>>()
    );
    for path in ["/a.bin", "/deep/Er/down"] {
        let bytes = run(Command::new("icat")
            .args(["-f", "exfat"])
            .arg(file.path())
            .arg(&theirs[path]));
        assert!(bytes == read(&fs, node(&fs, path)).unwrap(), "{path}");
    }
}

/// Changes the entry set of a node and sets its checksum right.
fn change(bytes: &mut [u8], node: NodeId, change: impl FnOnce(&mut [u8])) {
    let at = node.record as usize * 32;
    let len = (usize::from(bytes[at + 1]) + 1) * 32;
    let set = &mut bytes[at..at + len];
    change(set);
    let sum = set
        .iter()
        .enumerate()
        .filter(|(n, _)| !matches!(n, 2 | 3))
        .fold(0u16, |s, (_, b)| {
            s.rotate_right(1).wrapping_add(u16::from(*b))
        });
    set[2..4].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn what_was_never_written_reads_as_zeros() {
    let Some(made) = small() else { return };
    let fs = open(made.bytes.clone());
    let a = node(&fs, "a.bin");
    let whole = &made.files["/a.bin"];
    for valid in [0usize, 1, 4096, 100_001, whole.len() - 1] {
        let mut bytes = made.bytes.clone();
        change(&mut bytes, a, |set| {
            set[40..48].copy_from_slice(&(valid as u64).to_le_bytes());
        });
        let fs = open(bytes);
        let file = fs.open(a, None).unwrap();
        let mut expected = whole.clone();
        expected[valid..].fill(0);
        disk_io::conformance::check(&file, &expected);
        assert_eq!(file.run_at(valid as u64).unwrap().kind, RunKind::Zero);
        assert_eq!(
            file.run_at(valid as u64).unwrap().len,
            (whole.len() - valid) as u64
        );
        assert_eq!(fs.metadata(a).unwrap().size, whole.len() as u64);
    }
    let mut bytes = made.bytes.clone();
    change(&mut bytes, a, |set| set[40..48].fill(0x7f));
    let e = open(bytes).open(a, None).unwrap_err();
    assert!(e.to_string().contains("ValidDataLength"), "{e}");
}

#[test]
fn a_bad_checksum_refuses_the_file_and_nothing_else() {
    let Some(made) = small() else { return };
    let fs = open(made.bytes.clone());
    let a = node(&fs, "a.bin");
    let count = walk(&fs).0.len();
    let mut bytes = made.bytes.clone();
    bytes[a.record as usize * 32 + 32 + 20] ^= 1;
    let fs = open(bytes);
    let e = fs.open(a, None).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert!(e.to_string().contains("SetChecksum"), "{e}");
    assert!(fs.metadata(a).unwrap().refusal.is_some());
    let (found, errors) = walk(&fs);
    assert_eq!((found.len(), errors.len()), (count, 0));
    assert_eq!(found.iter().filter(|f| f.bytes.is_err()).count(), 1);

    // A directory is listed all the same, with a warning.
    let mut bytes = made.bytes.clone();
    let many = node(&open(bytes.clone()), "many");
    bytes[many.record as usize * 32 + 9] ^= 1;
    let (found, errors) = walk(&open(bytes));
    assert_eq!((found.len(), errors.len()), (count, 1), "{errors:?}");
}

fn boot_checksum(bytes: &mut [u8], at: usize) {
    let sum = (0..11 * 512)
        .filter(|n| !matches!(n, 106 | 107 | 112))
        .fold(0u32, |s, n| {
            s.rotate_right(1).wrapping_add(u32::from(bytes[at + n]))
        });
    for word in bytes[at + 11 * 512..at + 12 * 512].chunks_exact_mut(4) {
        word.copy_from_slice(&sum.to_le_bytes());
    }
}

#[test]
fn the_backup_boot_region_serves_where_the_first_is_bad() {
    let Some(made) = small() else { return };
    let count = walk(&open(made.bytes.clone())).0.len();
    for damage in [0usize, 3, 96, 510] {
        let mut bytes = made.bytes.clone();
        bytes[damage] ^= 0x11;
        let volume: Arc<dyn Disk> = Arc::new(MemDisk::new(bytes));
        let seen = guest_fs::volume::recognise(&volume).unwrap().unwrap();
        assert_eq!(seen.kind, FsKind::ExFat);
        let fs = guest_fs::volume::open(&volume, &OpenOptions::default()).unwrap();
        let remarks = fs.info().remarks.join("\n");
        assert!(
            remarks.contains("its backup is used"),
            "{damage}: {remarks}"
        );
        assert_eq!(walk(&*fs).0.len(), count);
    }
    let mut bytes = made.bytes.clone();
    bytes[..24 * 512].fill(0);
    let e = ExFat::open(Arc::new(MemDisk::new(bytes)), &OpenOptions::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt);
}

#[test]
fn texfat_uses_the_active_table() {
    let Some(made) = small() else { return };
    let mut bytes = made.bytes.clone();
    let word = |b: &[u8], at: usize| u32::from_le_bytes(b[at..at + 4].try_into().unwrap()) as usize;
    let (fat, len, heap) = (
        word(&bytes, 80) * 512,
        word(&bytes, 84) * 512,
        word(&bytes, 88) * 512,
    );
    assert!(fat + 2 * len <= heap, "there is room for a second table");
    bytes.copy_within(fat..fat + len, fat + len);
    bytes[fat..fat + len].fill(0);
    bytes[110] = 2;
    bytes[106] |= 1;
    boot_checksum(&mut bytes, 0);
    let fs = open(bytes.clone());
    assert!(fs.info().remarks.join(" ").contains("TexFAT"));
    assert!(read(&fs, node(&fs, "a.bin")).unwrap() == made.files["/a.bin"]);
    // With the other table in use, the file is broken, and says so.
    bytes[106] &= !1;
    let fs = open(bytes);
    let (_, errors) = walk(&fs);
    let broken = fs
        .lookup(fs.root(), &Name::from("a.bin"))
        .map(|n| n.map(|n| read(&fs, n)));
    assert!(!errors.is_empty() || matches!(broken, Ok(Some(Err(_)))));
}

#[test]
fn the_up_case_table_is_checked() {
    let Some(made) = small() else { return };
    let mut bytes = made.bytes.clone();
    // The root's up-case entry, by its type.
    let fs = open(bytes.clone());
    let a = node(&fs, "a.bin").record as usize * 32;
    let root = a & !4095;
    let at = (root..a).step_by(32).find(|at| bytes[*at] == 0x82).unwrap();
    bytes[at + 4] ^= 1;
    let fs = open(bytes);
    assert_eq!(node(&fs, "SMALL.TXT"), node(&fs, "small.txt"));
    assert!(fs.info().remarks.join(" ").contains("up-case table"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_survived(
        meta in prop::collection::vec((0usize..40_000, any::<u8>()), 0..20),
        heap in prop::collection::vec((0usize..200_000, any::<u8>()), 0..40),
    ) {
        if let Some(made) = small() {
            let mut bytes = made.bytes[..16 << 20].to_vec();
            let start = u32::from_le_bytes(bytes[88..92].try_into().unwrap()) as usize * 512;
            let fat = u32::from_le_bytes(bytes[80..84].try_into().unwrap()) as usize * 512;
            for (at, byte) in meta {
                bytes[fat + at % 4096] = byte;
                bytes[at % 600] = byte;
            }
            for (at, byte) in heap {
                bytes[start + at] = byte;
            }
            if let Ok(fs) = ExFat::open(Arc::new(MemDisk::new(bytes)), &OpenOptions::default()) {
                let (found, _) = walk(&fs);
                prop_assert!(found.len() < 100_000);
                let _ = fs.info();
            }
        }
    }
}

#[test]
fn a_boot_region_alone_is_damage_and_no_panic() {
    let Some(made) = small() else { return };
    let fs = open(made.bytes[..12288].to_vec());
    let (found, errors) = walk(&fs);
    assert!(found.is_empty() && !errors.is_empty());
}

/// Everything that is said of any node, what cannot be listed, and how much was found.
fn said(bytes: &[u8]) -> (usize, String) {
    let fs = open(bytes.to_vec());
    let (found, mut said) = walk(&fs);
    said.extend(fs.doubts(fs.root()));
    for f in &found {
        said.extend(fs.doubts(f.node));
    }
    (found.len(), said.join("\n"))
}

#[test]
fn entries_without_their_first_one_are_told() {
    let Some(made) = small() else { return };
    let (count, sound) = said(&made.bytes);
    assert_eq!(sound, "");
    let fs = open(made.bytes.clone());
    for (path, below) in [("small.txt", 0), ("deep/Er", 1), ("many", 300)] {
        let at = node(&fs, path).record as usize * 32;
        assert_eq!(made.bytes[at], 0x85);
        for kind in [0x05, 0x81, 0x83, 0x84, 0x87, 0x8d, 0x95, 0xa5, 0xc5] {
            let mut bytes = made.bytes.clone();
            bytes[at] = kind;
            let (found, told) = said(&bytes);
            assert_eq!(found, count - 1 - below, "{path} {kind:#x}");
            let name = path.rsplit('/').next().unwrap();
            assert!(
                told.contains(&format!("of \"{name}\"")),
                "{kind:#x}: {told}"
            );
            assert_eq!(open(bytes).info().label, Some(Name::from("Bänd")));
        }
    }
}

#[test]
fn sets_behind_a_wrong_end_are_listed_and_told() {
    let Some(made) = small() else { return };
    let (count, _) = said(&made.bytes);
    let fs = open(made.bytes.clone());
    let at = |path: &str| node(&fs, path).record as usize * 32;
    // A deleted file amid others, one of whose entries is taken for the end.
    let set = at("many/file number 100 with a name of some length");
    let entries = usize::from(made.bytes[set + 1]) + 1;
    for wrong in 0..entries {
        let mut bytes = made.bytes.clone();
        for n in 0..entries {
            bytes[set + n * 32] &= 0x7f;
        }
        bytes[set + wrong * 32] = 0;
        let (found, told) = said(&bytes);
        assert_eq!(found, count - 1, "{wrong}");
        assert!(told.contains("behind the end"), "{wrong}: {told}");
        let fs = open(bytes);
        let last = "many/file number 299 with a name of some length";
        assert!(read(&fs, node(&fs, last)).unwrap() == made.files[&format!("/{last}")]);
    }
    // Behind an end there may be what is no set.
    let mut bytes = made.bytes.clone();
    let deep = fs.structure(node(&fs, "deep")).unwrap()[0].place.unwrap() as usize;
    let small = at("small.txt");
    bytes.copy_within(small..small + 96, deep + 512);
    bytes[deep + 512 + 80] ^= 1;
    assert_eq!(said(&bytes), (count, String::new()));
}

#[test]
fn a_chain_that_is_odd_or_free_is_told() {
    let Some(made) = small() else { return };
    let word = |b: &[u8], at: usize| u32::from_le_bytes(b[at..at + 4].try_into().unwrap()) as usize;
    let fat = word(&made.bytes, 80) * 512;
    let heap = word(&made.bytes, 88) * 512;
    let fs = open(made.bytes.clone());
    let a = node(&fs, "a.bin");
    let chain: Vec<usize> = fs
        .extents(a, None)
        .unwrap()
        .iter()
        .flat_map(|e| {
            let first = (e.place.unwrap() as usize - heap) / 4096 + 2;
            first..first + e.len.div_ceil(4096) as usize
        })
        .collect();
    let set = |cluster: usize, to: usize| {
        let mut bytes = made.bytes.clone();
        bytes[fat + cluster * 4..fat + cluster * 4 + 4].copy_from_slice(&(to as u32).to_le_bytes());
        open(bytes).doubts(a).join("\n")
    };
    let last = chain[chain.len() - 1];
    assert!(set(last, chain[0]).contains("goes on"));
    assert!(set(last, 0).contains("marked as free"));
    let free = word(&made.bytes, 92);
    assert!(set(chain[chain.len() - 2], free).contains("bitmap calls free"));
    // The size of a file that was growing is written last.
    let mut bytes = made.bytes.clone();
    bytes[106] |= 2;
    bytes[fat + last * 4..fat + last * 4 + 4].copy_from_slice(&(chain[0] as u32).to_le_bytes());
    assert_eq!(open(bytes).doubts(a), Vec::<String>::new());
}
