//! FAT volumes made by `mkfs.fat` and filled by mtools, whose listing and bytes are the truth.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod volume_common;

use disk_io::{Disk, MemDisk, RunKind, faults::FailRange};
use guest_fs::{ErrorKind, FileSystem, FsKind, Name, NodeId, NodeKind, OpenOptions, fat::Fat};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::Path,
    process::Command,
    sync::{Arc, OnceLock},
};
use volume_common::{disk, have, read, run, walk};

/// Contents that tell their place: every eight bytes say where they are.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len.div_ceil(8) as u64)
        .flat_map(|n| (n << 16 | seed & 0xffff).to_le_bytes())
        .take(len)
        .collect()
}

struct Made {
    dir: tempfile::TempDir,
    files: BTreeMap<String, Vec<u8>>,
}

impl Made {
    fn image(&self) -> std::path::PathBuf {
        self.dir.path().join("fat.img")
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.image()).unwrap()
    }
}

/// A volume with long names, short names, lower-case 8.3 names, deep directories, many
/// files, deleted files and a fragmented one.
fn make(bits: &str, sector: &str, per_cluster: &str, kib: &str) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("fat.img");
    run(Command::new("mkfs.fat")
        .args([
            "-F",
            bits,
            "-S",
            sector,
            "-s",
            per_cluster,
            "-n",
            "LABEL",
            "-i",
            "1234abcd",
            "-C",
        ])
        .arg(&image)
        .arg(kib));
    let mut files = BTreeMap::new();
    let m = |tool: &str, args: &[&str]| {
        run(Command::new(tool)
            .env("MTOOLS_SKIP_CHECK", "1")
            .args(["-i"])
            .arg(&image)
            .args(args));
    };
    let put = |name: &str, bytes: Vec<u8>, files: &mut BTreeMap<String, Vec<u8>>| {
        let host = dir.path().join("one");
        std::fs::write(&host, &bytes).unwrap();
        m(
            "mcopy",
            &["-o", host.to_str().unwrap(), &format!("::/{name}")],
        );
        files.insert(format!("/{name}"), bytes);
    };
    m(
        "mmd",
        &["::/deep", "::/deep/er", "::/Many files with long names"],
    );
    put("EMPTY", vec![], &mut files);
    put("SHORT.TXT", pattern(1, 13), &mut files);
    put("lower.txt", pattern(2, 513), &mut files);
    put(
        "A rather long name, with ümläuts and more than 26 letters.text",
        pattern(3, 5000),
        &mut files,
    );
    put("deep/er/down.bin", pattern(4, 40_000), &mut files);
    for n in 0..60u64 {
        put(
            &format!("Many files with long names/file number {n:03}.data"),
            pattern(100 + n, 700 + n as usize),
            &mut files,
        );
    }
    // Every other one goes, so that what comes next lies in pieces.
    for n in (0..60u64).step_by(2) {
        let name = format!("Many files with long names/file number {n:03}.data");
        m("mdel", &[&format!("::/{name}")]);
        files.remove(&format!("/{name}"));
    }
    put("fragmented.bin", pattern(5, 120_000), &mut files);
    put("gone.txt", pattern(6, 2000), &mut files);
    m("mdel", &["::/gone.txt"]);
    files.remove("/gone.txt");
    Made { dir, files }
}

fn ready() -> bool {
    have("mkfs.fat") && have("mcopy")
}

fn open(disk: Arc<dyn Disk>) -> Fat {
    Fat::open(disk, &OpenOptions::default()).unwrap()
}

fn small() -> Option<&'static Made> {
    static MADE: OnceLock<Option<Made>> = OnceLock::new();
    MADE.get_or_init(|| ready().then(|| make("12", "512", "1", "1440")))
        .as_ref()
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
fn every_width_and_size_gives_the_bytes_that_went_in() {
    if !ready() {
        return;
    }
    for (bits, kind, sector, per, kib) in [
        ("12", FsKind::Fat12, "512", "1", "1440"),
        ("12", FsKind::Fat12, "4096", "1", "8000"),
        ("16", FsKind::Fat16, "512", "4", "20000"),
        ("16", FsKind::Fat16, "2048", "2", "40000"),
        ("32", FsKind::Fat32, "512", "1", "40000"),
        ("32", FsKind::Fat32, "512", "64", "2200000"),
        ("32", FsKind::Fat32, "4096", "1", "300000"),
    ] {
        let made = make(bits, sector, per, kib);
        let fs = open(disk(&made.image()));
        let info = fs.info();
        assert_eq!(info.kind, kind);
        assert_eq!(info.label, Some(Name::from("LABEL")));
        assert_eq!(info.uuid.as_deref(), Some("1234-ABCD"));
        assert_eq!(info.dirty, Some(false));
        assert_eq!(info.remarks, Vec::<String>::new());
        let (found, errors) = walk(&fs);
        assert_eq!(errors, Vec::<String>::new());
        let files: BTreeMap<_, _> = found
            .iter()
            .filter(|f| f.kind == NodeKind::File)
            .map(|f| (f.path.clone(), f.bytes.clone().unwrap()))
            .collect();
        assert_eq!(
            files.keys().collect::<Vec<_>>(),
            made.files.keys().collect::<Vec<_>>(),
            "FAT{bits}"
        );
        assert!(
            files == made.files,
            "FAT{bits} {sector} {per}: bytes differ"
        );
        let used: u64 = found
            .iter()
            .map(|f| fs.metadata(f.node).unwrap().allocated)
            .sum();
        assert!(info.used.unwrap() >= used, "{:?} {used}", info.used);
        for (path, bytes) in &made.files {
            let file = fs.open(node(&fs, path), None).unwrap();
            disk_io::conformance::check(&file, bytes);
        }
    }
}

#[test]
fn agrees_with_the_sleuth_kit_on_every_entry() {
    let Some(made) = small() else { return };
    if !have("fls") {
        return;
    }
    let fs = open(disk(&made.image()));
    let (found, _) = walk(&fs);
    let out = run(Command::new("fls")
        .args(["-r", "-u", "-p", "-F"])
        .arg(made.image()));
    let mut theirs: Vec<String> = String::from_utf8(out)
        .unwrap()
        .lines()
        .filter(|l| l.starts_with("r/r") && !l.contains("(Volume Label Entry)"))
        .map(|l| format!("/{}", l.split_once('\t').unwrap().1))
        .collect();
    let mut ours: Vec<String> = found
        .iter()
        .filter(|f| f.kind == NodeKind::File)
        .map(|f| f.path.clone())
        .collect();
    theirs.sort_by_key(|n| n.to_lowercase());
    ours.sort_by_key(|n| n.to_lowercase());
    let lower = |names: &[String]| names.iter().map(|n| n.to_lowercase()).collect::<Vec<_>>();
    assert_eq!(lower(&ours), lower(&theirs));
}

#[test]
fn names_are_found_however_they_are_spelt() {
    let Some(made) = small() else { return };
    let fs = open(disk(&made.image()));
    let long = node(
        &fs,
        "A rather long name, with ümläuts and more than 26 letters.text",
    );
    assert_eq!(
        long,
        node(
            &fs,
            "a RATHER long name, with ÜMLÄUTS and more than 26 letters.TEXT"
        )
    );
    let mut short = None;
    fs.read_dir(fs.root(), &mut |e| {
        let e = e.unwrap();
        if e.node == long {
            short = e.short_name;
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let short = short.unwrap();
    assert_eq!(fs.lookup(fs.root(), &short).unwrap(), Some(long), "{short}");
    assert_eq!(node(&fs, "short.txt"), node(&fs, "SHORT.TXT"));
    assert_eq!(fs.lookup(fs.root(), &Name::from("absent")).unwrap(), None);
    assert_eq!(fs.lookup(fs.root(), &Name::from("LABEL")).unwrap(), None);
    let e = fs.read_dir(node(&fs, "SHORT.TXT"), &mut |_| ControlFlow::Continue(()));
    assert_eq!(e.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(fs.open(node(&fs, "deep"), None).is_err());
    assert!(fs.metadata(NodeId::plain(1)).is_err());
    assert!(fs.metadata(NodeId::plain(u64::MAX)).is_err());
}

#[test]
fn deleted_files_are_named_and_read_while_nobody_has_their_clusters() {
    let Some(made) = small() else { return };
    let fs = open(disk(&made.image()));
    let gone = fs.deleted_in(fs.root()).unwrap();
    let gone = gone.iter().find(|d| d.size == 2000).unwrap();
    assert!(gone.name.to_string().ends_with("one.txt"), "{}", gone.name);
    let file = fs.open_deleted(gone.node).unwrap();
    let mut bytes = vec![0; 2000];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, pattern(6, 2000));
    assert_eq!(
        fs.open(gone.node, None).unwrap_err().kind(),
        ErrorKind::Refused
    );
    let many = fs
        .deleted_in(node(&fs, "Many files with long names"))
        .unwrap();
    assert!(
        many.iter()
            .any(|d| d.name.to_string().starts_with("file number 0"))
    );
    let refused = many
        .iter()
        .filter(|d| d.kind == NodeKind::File && d.size > 0)
        .filter(|d| {
            fs.open_deleted(d.node)
                .is_err_and(|e| e.kind() == ErrorKind::Refused)
        });
    assert!(refused.count() > 0, "some clusters were used again");
}

/// Sets the FAT12 entry of a cluster in one copy.
fn set12(image: &mut [u8], copy: usize, cluster: usize, value: u16) {
    let at = 512 + copy * 9 * 512 + cluster * 3 / 2;
    let old = u16::from_le_bytes([image[at], image[at + 1]]);
    let new = if cluster % 2 == 1 {
        old & 0x000f | value << 4
    } else {
        old & 0xf000 | value
    };
    image[at..at + 2].copy_from_slice(&new.to_le_bytes());
}

fn clusters_of(fs: &Fat, node: NodeId) -> Vec<usize> {
    let data = fs.geometry().data_start;
    let size = u64::from(fs.geometry().cluster);
    fs.extents(node, None)
        .unwrap()
        .iter()
        .flat_map(|e| {
            let first = (e.place.unwrap() - data) / size + 2;
            (first..first + e.len.div_ceil(size)).map(|c| c as usize)
        })
        .collect()
}

#[test]
fn a_broken_chain_is_read_up_to_the_break_and_no_further() {
    let Some(made) = small() else { return };
    let fs = open(disk(&made.image()));
    let path = "fragmented.bin";
    let whole = &made.files["/fragmented.bin"];
    let clusters = clusters_of(&fs, node(&fs, path));
    assert!(
        fs.extents(node(&fs, path), None).unwrap().len() > 1,
        "it is in pieces"
    );
    for (what, value) in [
        ("free", 0),
        ("bad", 0xff7),
        ("outside", 0xff0),
        ("an early end", 0xfff),
        ("a loop", clusters[20] as u16),
    ] {
        let mut image = made.bytes();
        for copy in 0..2 {
            set12(&mut image, copy, clusters[99], value);
        }
        let fs = open(Arc::new(MemDisk::new(image)));
        let node = node(&fs, path);
        let meta = fs.metadata(node).unwrap();
        assert_eq!(meta.size, whole.len() as u64, "{what}");
        let file = fs.open(node, None).unwrap();
        assert_eq!(file.len(), whole.len() as u64);
        let mut bytes = vec![0; 100 * 512];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == whole[..100 * 512], "{what}");
        let e = file.read_exact_at(&mut [0], 100 * 512).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{what}: {e}");
        assert_eq!(
            file.run_at(100 * 512).unwrap().kind,
            RunKind::Data,
            "{what}"
        );
        assert!(!fs.metadata(node).unwrap().remarks.is_empty(), "{what}");
        // The rest of the volume is untouched.
        let (found, errors) = walk(&fs);
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(
            found.iter().filter(|f| f.bytes.is_err()).count(),
            1,
            "{what}"
        );
    }
}

#[test]
fn the_second_table_serves_where_the_first_is_broken() {
    let Some(made) = small() else { return };
    let fs = open(disk(&made.image()));
    let clusters = clusters_of(&fs, node(&fs, "fragmented.bin"));
    let mut image = made.bytes();
    set12(&mut image, 0, clusters[50], 0);
    let fs = open(Arc::new(MemDisk::new(image)));
    let node = node(&fs, "fragmented.bin");
    assert!(read(&fs, node).unwrap() == made.files["/fragmented.bin"]);
    let remarks = fs.metadata(node).unwrap().remarks.join("\n");
    assert!(remarks.contains("table 1 is used"), "{remarks}");

    // A table that cannot be read at all.
    let image = Arc::new(MemDisk::new(made.bytes()));
    let fs = open(Arc::new(FailRange::new(image, 512..512 + 9 * 512)));
    let (found, errors) = walk(&fs);
    assert_eq!(errors, Vec::<String>::new());
    assert!(found.iter().all(|f| f.bytes.is_ok()));
    assert!(fs.info().remarks.join(" ").contains("table 1 is used"));
}

#[test]
fn the_backup_boot_sector_serves_where_the_first_is_bad() {
    if !ready() {
        return;
    }
    let made = make("32", "512", "1", "40000");
    let mut image = made.bytes();
    image[..512].fill(0);
    let bad: Arc<dyn Disk> = Arc::new(MemDisk::new(image.clone()));
    let seen = guest_fs::volume::recognise(&bad).unwrap().unwrap();
    assert_eq!(
        (seen.kind, seen.uuid.as_deref()),
        (FsKind::Fat32, Some("1234-ABCD"))
    );
    let fs = guest_fs::volume::open(&bad, &OpenOptions::default()).unwrap();
    assert!(fs.info().remarks.join(" ").contains("its backup is used"));
    let (found, errors) = walk(&*fs);
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(
        found.iter().filter(|f| f.kind == NodeKind::File).count(),
        made.files.len()
    );
    // With the FSInfo sector gone too, nothing changes.
    image[512..1024].fill(0xff);
    assert!(Fat::open(Arc::new(MemDisk::new(image)), &OpenOptions::default()).is_ok());

    // Sizes in both fields, no 0x55AA: tolerated.
    let mut image = made.bytes();
    let sectors = u32::from_le_bytes(image[32..36].try_into().unwrap());
    if let Ok(small) = u16::try_from(sectors) {
        image[19..21].copy_from_slice(&small.to_le_bytes());
    }
    image[510..512].fill(0);
    let fs = open(Arc::new(MemDisk::new(image)));
    assert!(fs.info().remarks.join(" ").contains("0x55AA"));
    assert_eq!(walk(&fs).0.len(), found.len());
}

#[test]
fn times_are_local_unless_a_zone_is_given() {
    let Some(made) = small() else { return };
    let local = open(disk(&made.image()));
    let at = node(&local, "SHORT.TXT");
    let local = local.metadata(at).unwrap().modified.unwrap();
    assert!(!local.zoned);
    let options = OpenOptions {
        zone_offset: Some(7200),
        ..OpenOptions::default()
    };
    let zoned = Fat::open(disk(&made.image()), &options).unwrap();
    let zoned = zoned.metadata(at).unwrap().modified.unwrap();
    assert!(zoned.zoned);
    assert_eq!(zoned.seconds, local.seconds - 7200);
}

/// An entry of the root directory of a floppy, after those that are there.
fn add_root(image: &mut [u8], entries: &[[u8; 32]]) {
    let root = 19 * 512;
    let free = (0..224).find(|n| image[root + n * 32] == 0).unwrap();
    for (n, e) in entries.iter().enumerate() {
        let at = root + (free + n) * 32;
        image[at..at + 32].copy_from_slice(e);
    }
}

fn entry(name: &[u8; 11], case: u8) -> [u8; 32] {
    let mut e = [0; 32];
    e[..11].copy_from_slice(name);
    e[11] = 0x20;
    e[12] = case;
    e
}

fn long_part(order: u8, checksum: u8, text: &str) -> [u8; 32] {
    let mut e = [0xff; 32];
    (e[0], e[11], e[12], e[13]) = (order, 0x0f, 0, checksum);
    e[26..28].fill(0);
    let at = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
    for (at, unit) in at.iter().zip(text.encode_utf16().chain([0])) {
        e[*at..at + 2].copy_from_slice(&unit.to_le_bytes());
    }
    e
}

#[test]
fn code_pages_case_flags_and_orphans() {
    let Some(made) = small() else { return };
    let mut image = made.bytes();
    add_root(
        &mut image,
        &[
            entry(b"\x83e\x83X\x83g  TXT", 0),
            entry(b"\x05\x41      \x81  ", 0),
            entry(b"MIXED   CAS", 0x08),
            long_part(0x41, 0x55, "not mine"),
            entry(b"ORPHAN  LFN", 0x10),
            entry(b"../ESC  APE", 0),
        ],
    );
    let list = |page| {
        let options = OpenOptions {
            oem_code_page: page,
            ..OpenOptions::default()
        };
        let fs = Fat::open(Arc::new(MemDisk::new(image.clone())), &options).unwrap();
        let mut names = Vec::new();
        fs.read_dir(fs.root(), &mut |e| {
            names.push(e.unwrap().name.to_string());
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(fs.info().remarks.iter().any(|r| r.contains("long name")));
        names
    };
    let japanese = list(Some(932));
    for name in ["テスト.TXT", "mixed.CAS", "ORPHAN.lfn", "..\u{f02f}ESC.APE"] {
        assert!(japanese.iter().any(|n| n == name), "{name} in {japanese:?}");
    }
    let german = list(Some(850));
    assert!(german.iter().any(|n| n == "ÕA.ü"), "{german:?}");
    assert!(list(Some(1)).iter().any(|n| n == "σA.ü"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Flipped bytes and cut ends: nothing panics, hangs or grows; what is read of an
    /// undamaged file is right.
    #[test]
    fn damage_is_survived(
        flips in prop::collection::vec((0usize..60_000, any::<u8>()), 1..40),
        keep in 1_000usize..1_474_560,
    ) {
        if let Some(made) = small() {
            let mut image = made.bytes();
            for (at, byte) in flips {
                image[at] = byte;
            }
            image.truncate(keep);
            let image: Arc<dyn Disk> = Arc::new(MemDisk::new(image));
            let _ = guest_fs::partition::read(&image);
            let _ = guest_fs::volume::recognise(&image);
            if let Ok(fs) = Fat::open(image, &OpenOptions::default()) {
                let (found, _) = walk(&fs);
                prop_assert!(found.len() < 100_000);
                let _ = fs.info();
                let _ = fs.deleted_in(fs.root());
            }
        }
    }
}

#[test]
fn mtools_and_we_list_the_same_directory() {
    let Some(made) = small() else { return };
    let out = run(Command::new("mdir")
        .args(["-b", "-/", "-i"])
        .arg(made.image())
        .arg("::"));
    let theirs: std::collections::BTreeSet<String> = String::from_utf8(out)
        .unwrap()
        .lines()
        .map(|l| l.trim_start_matches("::").to_owned())
        .filter(|l| !l.ends_with('/'))
        .collect();
    let fs = open(disk(Path::new(&made.image())));
    let ours = walk(&fs).0;
    let ours = ours.iter().filter(|f| f.kind == NodeKind::File);
    assert_eq!(theirs, ours.map(|f| f.path.clone()).collect());
}

fn doubts(image: &[u8], path: &str) -> String {
    let fs = open(Arc::new(MemDisk::new(image.to_vec())));
    fs.doubts(node(&fs, path)).join("\n")
}

/// Everything that is said of any node, and what cannot be listed.
fn said(image: &[u8]) -> String {
    let fs = open(Arc::new(MemDisk::new(image.to_vec())));
    let (found, mut said) = walk(&fs);
    said.extend(fs.doubts(fs.root()));
    for f in found {
        said.extend(fs.doubts(f.node));
    }
    said.join("\n")
}

/// Where the short entry with this name lies.
fn at(image: &[u8], name: &[u8; 11]) -> usize {
    (0..image.len())
        .step_by(32)
        .find(|at| image[*at..].starts_with(name) && image[at + 11] & 0x0f != 0x0f)
        .unwrap()
}

fn patched(image: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    image
}

#[test]
fn one_wrong_bit_of_the_boot_sector_is_told_or_made_good() {
    if !ready() {
        return;
    }
    for (bits, per, kib) in [
        ("12", "1", "1440"),
        ("16", "4", "20000"),
        ("32", "1", "40000"),
    ] {
        let made = make(bits, "512", per, kib);
        let sound = made.bytes();
        assert_eq!(said(&sound), "", "FAT{bits}");
        let mut wrong = vec![
            (13, 1),
            (13, 2),
            (13, 4),
            (14, 1),
            (14, 2),
            (14, 4),
            (16, 1),
            (16, 3),
        ];
        match bits {
            "32" => wrong.extend([(36, 1), (36, 2), (44, 1)]),
            _ => wrong.extend([(17, 0x10), (18, 1), (18, 2), (22, 1), (22, 2)]),
        }
        for (place, bit) in wrong {
            let bad = patched(&sound, place, &[sound[place] ^ bit]);
            let Ok(fs) = Fat::open(Arc::new(MemDisk::new(bad)), &OpenOptions::default()) else {
                continue;
            };
            if fs.doubts(fs.root()).is_empty() {
                assert_eq!(bits, "32", "FAT{bits} {place} {bit} is not told");
                let remarks = fs.info().remarks.join("\n");
                assert!(remarks.contains("its backup is used"), "{place}: {remarks}");
                let (found, errors) = walk(&fs);
                assert_eq!(errors, Vec::<String>::new());
                let same = found.iter().filter(|f| f.kind == NodeKind::File);
                let same: BTreeMap<_, _> = same
                    .map(|f| (f.path.clone(), f.bytes.clone().unwrap()))
                    .collect();
                assert!(same == made.files, "{place} {bit}");
            }
        }
        // A volume without its backup, too.
        if bits == "32" {
            let mut bad = patched(&sound, 14, &[sound[14] ^ 1]);
            bad[6 * 512..7 * 512].fill(0);
            let fs = open(Arc::new(MemDisk::new(bad)));
            let doubts = fs.doubts(fs.root()).join("\n");
            assert!(doubts.contains("allocation table 0"), "{doubts}");
        }
    }
}

#[test]
fn what_places_nothing_may_differ() {
    if !ready() {
        return;
    }
    for (bits, per, kib) in [
        ("12", "1", "1440"),
        ("16", "4", "20000"),
        ("32", "1", "40000"),
    ] {
        let sound = make(bits, "512", per, kib).bytes();
        // Geometry and the sectors before the partition, which its backup has not.
        let other = patched(&sound, 24, &[63, 0, 255, 0, 0, 8, 0, 0]);
        // The media byte, which the allocation table has too.
        let media = patched(&sound, 21, &[sound[21] ^ 8]);
        for (image, want) in [(other, None), (media, Some("fat-media-differs"))] {
            assert_eq!(said(&image), "", "FAT{bits}");
            let fs = open(Arc::new(MemDisk::new(image)));
            assert!(fs.info().remarks.is_empty(), "{:?}", fs.info().remarks);
            let mut found = Vec::new();
            fs.check(&mut |finding| found.push((finding.code, finding.severity)))
                .unwrap();
            let want = want.map(|code| (code, disk_io::Severity::Note));
            assert_eq!(found, Vec::from_iter(want), "FAT{bits}");
        }
    }
}

#[test]
fn a_directory_that_does_not_begin_with_dot_is_told() {
    let Some(made) = small() else { return };
    let image = made.bytes();
    let fs = open(Arc::new(MemDisk::new(image.clone())));
    let deep = at(&image, b"DEEP       ");
    let other = at(&image, b"MANYFI~1   ");
    // Another directory's first cluster.
    let bad = patched(&image, deep + 26, &image[other + 26..other + 28]);
    let found = said(&bad);
    assert!(found.contains("the same first cluster"), "{found}");
    // A file's.
    let file = at(&image, b"SHORT   TXT");
    let bad = patched(&image, deep + 26, &image[file + 26..file + 28]);
    let found = said(&bad);
    assert!(found.contains("`.` with its cluster"), "{found}");
    let dot = fs.structure(node(&fs, "deep")).unwrap()[0].place.unwrap() as usize;
    for (place, byte) in [
        (dot, b'/'),
        (dot + 26, 0x7f),
        (dot + 32, b'X'),
        (dot + 11, 0),
    ] {
        let bad = patched(&image, place, &[byte]);
        let (found, errors) = walk(&open(Arc::new(MemDisk::new(bad))));
        assert_eq!(errors.len(), 1, "{place} {errors:?}");
        assert!(found.iter().any(|f| f.path == "/deep/er/down.bin"));
    }
}

#[test]
fn what_is_called_a_label_and_is_none_is_shown_and_told() {
    let Some(made) = small() else { return };
    let image = made.bytes();
    for (short, path) in [
        (b"SHORT   TXT", "SHORT.TXT"),
        (b"DOWN    BIN", "deep/er/down.bin"),
        (b"ER         ", "deep/er"),
        (b"EMPTY      ", "EMPTY"),
    ] {
        let place = at(&image, short) + 11;
        let bad = patched(&image, place, &[image[place] | 8]);
        let told = doubts(&bad, path);
        assert!(told.contains("volume label"), "{path}: {told}");
        let fs = open(Arc::new(MemDisk::new(bad)));
        assert_eq!(fs.info().label, Some(Name::from("LABEL")));
        let (found, errors) = walk(&fs);
        assert_eq!(errors, Vec::<String>::new());
        let files = found.iter().filter(|f| f.kind == NodeKind::File);
        assert_eq!(files.count(), made.files.len());
    }
}

#[test]
fn entries_behind_a_wrong_end_are_listed_and_told() {
    let Some(made) = small() else { return };
    let image = made.bytes();
    let dir = "Many files with long names";
    let fs = open(Arc::new(MemDisk::new(image.clone())));
    let many = fs.structure(node(&fs, dir)).unwrap();
    let many = many[0].place.unwrap() as usize;
    // The second part of the first long name that is left, in two entries before the short one.
    let first = (many..)
        .step_by(32)
        .skip(2)
        .find(|at| image[*at] == 0x42)
        .unwrap();
    assert_eq!(image[first + 32], 1);
    let bad = patched(&image, first + 32, &[0]);
    let (found, errors) = walk(&open(Arc::new(MemDisk::new(bad))));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("behind the end"), "{errors:?}");
    let files = found.iter().filter(|f| f.kind == NodeKind::File);
    assert_eq!(files.count(), made.files.len());
    assert!(
        found
            .iter()
            .any(|f| f.path == format!("/{dir}/file number 059.data"))
    );

    // What drivers leave there is no damage: no name, no date, no cluster in use.
    let left: Vec<u8> = (0..64u32).map(|n| (n * 37 % 251) as u8).collect();
    let mut bad = image.clone();
    let deep = fs.structure(node(&fs, "deep")).unwrap()[0].place.unwrap() as usize;
    bad[deep + 4 * 32..deep + 6 * 32].copy_from_slice(&left);
    let mut gone = entry(b"GONE    TXT", 0);
    (gone[24], gone[26], gone[27], gone[28]) = (0x21, 0xf0, 0x0a, 9);
    bad[deep + 7 * 32..deep + 8 * 32].copy_from_slice(&gone);
    assert_eq!(said(&bad), "");
    // With a cluster in use, it is one.
    let used = at(&image, b"SHORT   TXT");
    bad[deep + 7 * 32 + 26..deep + 7 * 32 + 28].copy_from_slice(&image[used + 26..used + 28]);
    assert!(said(&bad).contains("behind the end"));
}

#[test]
fn a_long_name_that_is_lost_is_told_of_its_directory() {
    let Some(made) = small() else { return };
    let image = made.bytes();
    let dir = "Many files with long names";
    let fs = open(Arc::new(MemDisk::new(image.clone())));
    let many = fs.structure(node(&fs, dir)).unwrap()[0].place.unwrap() as usize;
    let last = (many..)
        .step_by(32)
        .skip(2)
        .find(|at| image[*at] == 0x42)
        .unwrap();
    let part = last + 32;
    for (what, place, byte) in [
        ("ordinal", part, 3),
        ("ordinal of the last", last, 0x02),
        ("checksum", part + 13, image[part + 13] ^ 4),
        ("attribute", part + 11, 0x0b),
        ("attribute", part + 11, 0x2f),
        ("attribute", last + 11, 0x07),
        ("deleted part", part, 0xe5),
        ("deleted entry", part + 32, 0xe5),
    ] {
        let bad = patched(&image, place, &[byte]);
        let told = doubts(&bad, dir);
        assert!(told.contains("long name"), "{what}: {told}");
        let (found, errors) = walk(&open(Arc::new(MemDisk::new(bad))));
        assert_eq!(errors, Vec::<String>::new(), "{what}");
        let files = found.iter().filter(|f| f.kind == NodeKind::File).count();
        let gone = usize::from(what == "deleted entry");
        assert_eq!(files, made.files.len() - gone, "{what}");
    }
}

#[test]
fn a_chain_that_is_odd_for_its_size_is_told_unless_the_volume_was_in_use() {
    let Some(made) = small() else { return };
    let image = made.bytes();
    let big = at(&image, b"DOWN    BIN");
    for size in [0u32, 1, 20_000] {
        let bad = patched(&image, big + 28, &size.to_le_bytes());
        let told = doubts(&bad, "deep/er/down.bin");
        let odd = told.contains("goes on") || told.contains("an empty file has");
        assert!(odd, "{size}: {told}");
        // A boot sector that says so.
        let dirty = patched(&bad, 37, &[bad[37] | 1]);
        assert_eq!(doubts(&dirty, "deep/er/down.bin"), "", "{size}");
    }
    // Two files that begin in the same cluster are told always.
    let (a, b) = (at(&image, b"SHORT   TXT"), at(&image, b"FRAGME~1BIN"));
    let mut bad = patched(&image, a + 26, &image[b + 26..b + 28]);
    bad[37] |= 1;
    assert!(doubts(&bad, "").contains("the same first cluster"));
}
