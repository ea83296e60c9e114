//! `ntfs` 0.4.0.

use crate::walk;
use disk_io::{HostDir, host_dir::Allowed, positioned::cursor};
use guest_fs::Name;
use ntfs::{
    Ntfs, NtfsFile, NtfsReadSeek, indexes::NtfsFileNameIndex, structured_values::NtfsFileNamespace,
};
use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tests::{
    fixtures::{self, Made},
    guest::{Entry, Fill, Truth, contents, differences, sha256},
    say,
};

type Volume = positioned_io::SizeCursor<disk_io::positioned::AsReadAt>;

fn volume(image: &Path) -> Volume {
    let opened = HostDir::open_source(image, &Allowed::default()).unwrap();
    cursor(opened.disk)
}

/// Reads everything with the crate. Whatever fails is left out and told apart.
struct Theirs {
    truth: Truth,
    failed: Vec<String>,
}

fn read_all(image: &Path) -> Theirs {
    let mut fs = volume(image);
    let mut ntfs = Ntfs::new(&mut fs).unwrap();
    ntfs.read_upcase_table(&mut fs).unwrap();
    let root = ntfs.root_directory(&mut fs).unwrap();
    let mut theirs = Theirs {
        truth: Truth::new(),
        failed: Vec::new(),
    };
    read_dir(&ntfs, &mut fs, &root, "", &mut theirs);
    theirs
}

fn read_dir(ntfs: &Ntfs, fs: &mut Volume, dir: &NtfsFile<'_>, prefix: &str, out: &mut Theirs) {
    let index = match dir.directory_index(fs) {
        Ok(index) => index,
        Err(e) => return out.failed.push(format!("{prefix}: {e}")),
    };
    let mut found = Vec::new();
    let mut entries = index.entries();
    while let Some(entry) = entries.next(fs) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) => {
                out.failed.push(format!("{prefix}: {e}"));
                break;
            }
        };
        let Some(Ok(key)) = entry.key() else { continue };
        let number = entry.file_reference().file_record_number();
        if key.namespace() == NtfsFileNamespace::Dos || number < 24 {
            continue;
        }
        let name = key.name().to_string_lossy();
        found.push((format!("{prefix}{name}"), number));
    }
    for (path, number) in found {
        let file = match ntfs.file(fs, number) {
            Ok(file) => file,
            Err(e) => {
                out.failed.push(format!("{path}: {e}"));
                continue;
            }
        };
        if file.is_directory() {
            read_dir(ntfs, fs, &file, &format!("{path}/"), out);
            out.truth.insert(path, Entry::Dir);
            continue;
        }
        match read_data(fs, &file) {
            Ok(Some(bytes)) => {
                let entry = Entry::File {
                    size: bytes.len() as u64,
                    sha256: sha256(&bytes),
                };
                out.truth.insert(path, entry);
            }
            Ok(None) => {}
            Err(e) => out.failed.push(format!("{path}: {e}")),
        }
    }
}

/// Contents of the unnamed stream, as far as the crate gives them.
fn read_data(fs: &mut Volume, file: &NtfsFile<'_>) -> ntfs::Result<Option<Vec<u8>>> {
    let Some(item) = file.data(fs, "") else {
        return Ok(None);
    };
    let item = item?;
    let mut value = item.to_attribute()?.value(fs)?;
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 65_536];
    loop {
        match value.read(fs, &mut buffer)? {
            0 => return Ok(Some(bytes)),
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}

/// The record number of a path, from our own reader.
fn record(made: &Made, path: &str) -> u64 {
    let tree = walk::open(&made.image);
    let found = tree
        .resolve(format!("/p0/{path}"))
        .unwrap_or_else(|e| panic!("{e}"));
    found.node.id.record
}

fn their_bytes(made: &Made, path: &str) -> ntfs::Result<Vec<u8>> {
    let number = record(made, path);
    let mut fs = volume(&made.image);
    let ntfs = Ntfs::new(&mut fs)?;
    let file = ntfs.file(&mut fs, number)?;
    Ok(read_data(&mut fs, &file)?.unwrap_or_default())
}

fn our_bytes(made: &Made, path: &str) -> Vec<u8> {
    let tree = walk::open(&made.image);
    let found = tree
        .resolve(format!("/p0/{path}"))
        .unwrap_or_else(|e| panic!("{e}"));
    let disk = tree
        .open(found.node, None)
        .unwrap_or_else(|e| panic!("{e}"));
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_exact_at(&mut bytes, 0)
        .unwrap_or_else(|e| panic!("{e}"));
    bytes
}

/// Ours is what was written; [`crate::guests`] shows that ntfs-3g says so too.
fn we_are_right(made: &Made, path: &str) -> Vec<u8> {
    let bytes = our_bytes(made, path);
    let entry = Entry::File {
        size: bytes.len() as u64,
        sha256: sha256(&bytes),
    };
    assert_eq!(made.truth[path], entry, "{path}");
    bytes
}

#[test]
fn what_both_can_read_agrees() {
    for name in ["ntfs-basic", "ntfs-512", "ntfs-4kn"] {
        let Some(made) = fixtures::get(name) else {
            return;
        };
        let theirs = read_all(&made.image);
        assert!(theirs.failed.is_empty(), "{name}: {:?}", theirs.failed);
        let mut ours = walk::below(&walk::open(&made.image), "/p0");
        for link in ours.links.keys() {
            // The crate gives a link's own contents as a file.
            ours.truth.extend(
                theirs
                    .truth
                    .get_key_value(link)
                    .map(|(k, v)| (k.clone(), v.clone())),
            );
        }
        let lines = differences(&theirs.truth, &ours.truth);
        assert!(lines.is_empty(), "{name}:\n{}", lines.join("\n"));
        say!("ntfs 0.4.0 agrees on {name}: {} objects", ours.truth.len());
    }
}

#[test]
fn fault_1_initialized_size_is_ignored() {
    let Some(made) = fixtures::get("ntfs-initialized") else {
        return;
    };
    let ours = we_are_right(&made, "start.bin");
    let theirs = their_bytes(&made, "start.bin").unwrap();
    assert_eq!(ours.len(), theirs.len());
    assert!(ours[5000..].iter().all(|b| *b == 0));
    let stale = theirs[5000..].iter().filter(|b| **b != 0).count();
    say!("ntfs 0.4.0 gives {stale} stale bytes behind the initialized size");
    assert!(stale > 100_000, "the crate got better: {stale} stale bytes");
}

#[test]
fn fault_2_compressed_bytes_as_data() {
    let Some(made) = fixtures::get("ntfs-lznt1") else {
        return;
    };
    let path = "compressed/text-65537";
    let ours = we_are_right(&made, path);
    let theirs = their_bytes(&made, path).unwrap();
    assert_eq!(ours.len(), theirs.len());
    assert_ne!(ours, theirs, "the crate got better");
    assert!(ours.starts_with(b"[compressed/text-65537 block 0]"));
}

#[test]
fn fault_3_a_stream_in_several_records_is_cut_short() {
    let Some(made) = fixtures::get("ntfs-fragmented") else {
        return;
    };
    let ours = we_are_right(&made, "large.bin");
    let theirs = their_bytes(&made, "large.bin").unwrap();
    say!("ntfs 0.4.0 gives {} of {} bytes", theirs.len(), ours.len());
    assert!(theirs.len() < ours.len(), "the crate got better");
}

#[test]
fn fault_4_a_directory_in_several_records_fails() {
    let Some(made) = fixtures::get("ntfs-fragmented") else {
        return;
    };
    let theirs = read_all(&made.image);
    let ours = walk::below(&walk::open(&made.image), "/p0");
    let names = |truth: &Truth| truth.keys().filter(|p| p.starts_with("grown/")).count();
    assert_eq!(names(&ours.truth), names(&made.truth));
    assert!(
        theirs.failed.iter().any(|f| f.starts_with("grown/")),
        "the crate got better: {:?}",
        theirs.failed
    );
}

#[test]
fn fault_5_clusters_larger_than_index_records_fail() {
    let Some(made) = fixtures::get("ntfs-64k") else {
        return;
    };
    let theirs = read_all(&made.image);
    let ours = walk::below(&walk::open(&made.image), "/p0");
    let names = |truth: &Truth| truth.keys().filter(|p| p.starts_with("names/")).count();
    assert_eq!(names(&ours.truth), 2000);
    assert!(names(&theirs.truth) < 2000, "the crate got better");
}

#[test]
fn fault_6_names_that_differ_by_case_are_one() {
    let Some(made) = fixtures::get("ntfs-basic") else {
        return;
    };
    let mut fs = volume(&made.image);
    let mut ntfs = Ntfs::new(&mut fs).unwrap();
    ntfs.read_upcase_table(&mut fs).unwrap();
    let names = ntfs.file(&mut fs, record(&made, "names")).unwrap();
    let index = names.directory_index(&mut fs).unwrap();
    let find = |fs: &mut Volume, name: &str| {
        let mut finder = index.finder();
        let entry = NtfsFileNameIndex::find(&mut finder, &ntfs, fs, name);
        entry
            .unwrap()
            .unwrap()
            .file_reference()
            .file_record_number()
    };
    assert_eq!(
        find(&mut fs, "UPPER.TXT"),
        find(&mut fs, "upper.txt"),
        "the crate got better"
    );
    assert_ne!(
        record(&made, "names/UPPER.TXT"),
        record(&made, "names/upper.txt")
    );
}

#[test]
fn fault_7_an_extent_at_cluster_0_reads_as_zeros() {
    let Some(made) = fixtures::get("ntfs-basic") else {
        return;
    };
    let mut fs = volume(&made.image);
    let ntfs = Ntfs::new(&mut fs).unwrap();
    let boot = ntfs.file(&mut fs, 7).unwrap();
    let theirs = read_data(&mut fs, &boot).unwrap().unwrap();
    let mut sector = [0; 512];
    let file = fs::File::open(&made.image).unwrap();
    file.read_exact_at(&mut sector, 0).unwrap();
    assert!(theirs.iter().all(|b| *b == 0), "the crate got better");
    let tree = walk::open(&made.image);
    let node = tree.resolve("/p0/$Boot").unwrap().node;
    let mut ours = [0; 512];
    tree.open(node, None)
        .unwrap()
        .read_exact_at(&mut ours, 0)
        .unwrap();
    assert_eq!(ours, sector);
}

/// A copy of a fixture with one file record changed.
struct Patched {
    _dir: tempfile::TempDir,
    image: PathBuf,
}

/// Where the records of a freshly made volume begin, and their length. Holds for those in
/// the first run of the MFT, which these fixtures' are.
fn mft(image: &Path) -> (u64, u64) {
    let mut boot = [0u8; 512];
    let file = fs::File::open(image).unwrap();
    file.read_exact_at(&mut boot, 0).unwrap();
    let sector = u64::from(u16::from_le_bytes([boot[11], boot[12]]));
    let cluster = sector * u64::from(boot[13]);
    let start = u64::from_le_bytes(boot[48..56].try_into().unwrap()) * cluster;
    let size = boot[64].cast_signed();
    let len = if size < 0 {
        1 << -size
    } else {
        u64::from(boot[64]) * cluster
    };
    (start, len)
}

fn patched(made: &Made, number: u64, change: impl FnOnce(&mut [u8])) -> Patched {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("patched.img");
    fs::copy(&made.image, &image).unwrap();
    let (start, len) = mft(&image);
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(&image)
        .unwrap();
    let mut record = vec![0; len as usize];
    file.read_exact_at(&mut record, start + number * len)
        .unwrap();
    assert_eq!(&record[..4], b"FILE", "record {number}");
    change(&mut record);
    file.write_all_at(&record, start + number * len).unwrap();
    Patched { _dir: dir, image }
}

#[test]
fn fault_8_a_header_that_runs_past_its_record_panics() {
    let Some(made) = fixtures::get("ntfs-basic") else {
        return;
    };
    let path = "names/linked.txt";
    let number = record(&made, path);
    let bad = patched(&made, number, |r| {
        // The first attribute now reaches up to byte 1000, and there a non-resident
        // attribute begins of which only the first 24 bytes lie inside the record.
        let first = usize::from(u16::from_le_bytes([r[20], r[21]]));
        let len = (1000 - first) as u32;
        r[first + 4..first + 8].copy_from_slice(&len.to_le_bytes());
        r[1000..1004].copy_from_slice(&0x80u32.to_le_bytes());
        r[1004..1008].copy_from_slice(&24u32.to_le_bytes());
        r[1008..1016].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
        r[24..28].copy_from_slice(&1024u32.to_le_bytes());
    });
    let theirs = std::panic::catch_unwind(|| {
        let mut fs = volume(&bad.image);
        let ntfs = Ntfs::new(&mut fs).unwrap();
        let file = ntfs.file(&mut fs, number).unwrap();
        read_data(&mut fs, &file).map(|b| b.map(|b| b.len()))
    });
    assert!(theirs.is_err(), "the crate got better: {theirs:?}");
    // For us one file is damaged, and the rest of the volume works.
    let tree = walk::open(&bad.image);
    let walked = walk::below(&tree, "/p0");
    assert!(!walked.truth.contains_key(path), "damage was read as data");
    let other = "names/ leading blank";
    assert_eq!(walked.truth[other], made.truth[other]);
    let e = tree
        .resolve(format!("/p0/{path}"))
        .and_then(|found| tree.open(found.node, None).map(|_| ()))
        .unwrap_err();
    assert_eq!(e.kind(), disk_io::ErrorKind::Corrupt, "{e}");
}

/// A directory whose index root says that its only child is an index block, and that block
/// says the same of itself.
fn looping(made: &Made) -> Patched {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("looping.img");
    fs::copy(&made.image, &image).unwrap();
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(&image)
        .unwrap();
    // Every INDX block of the volume: its first entry gets itself as a child.
    let len = file.metadata().unwrap().len();
    let mut changed = 0;
    let mut block = vec![0u8; 4096];
    for at in (0..len - 4095).step_by(4096) {
        file.read_exact_at(&mut block, at).unwrap();
        if &block[..4] != b"INDX" || block[24] == 0 {
            continue;
        }
        let vcn: [u8; 8] = block[16..24].try_into().unwrap();
        let first = 24 + u32::from_le_bytes(block[24..28].try_into().unwrap()) as usize;
        let entry_len = usize::from(u16::from_le_bytes([block[first + 8], block[first + 9]]));
        let key_len = usize::from(u16::from_le_bytes([block[first + 10], block[first + 11]]));
        // There is room for the child's number in entries that have padding, or by
        // swallowing the entry behind.
        let next = first + entry_len;
        let next_len = usize::from(u16::from_le_bytes([block[next + 8], block[next + 9]]));
        if 16 + key_len == 0 || entry_len + next_len > 1000 || entry_len < 24 || next_len < 16 {
            continue;
        }
        let whole = entry_len + next_len;
        // Entries that would cross the end of a sector meet its check bytes; leave those.
        if (first / 512) != ((first + whole - 1) / 512) || (first + whole).is_multiple_of(512) {
            continue;
        }
        block[first + 8..first + 10].copy_from_slice(&(whole as u16).to_le_bytes());
        block[first + 12] |= 1;
        block[first + whole - 8..first + whole].copy_from_slice(&vcn);
        block[36] |= 1;
        file.write_all_at(&block, at).unwrap();
        changed += 1;
    }
    assert!(changed > 0, "no index block was changed");
    Patched { _dir: dir, image }
}

/// Run in a process of its own by the test below.
#[test]
fn child_lists_a_looping_index() {
    if let Some(image) = std::env::var_os("VMDKIT_TEST_LOOPING") {
        read_all(Path::new(&image));
    }
}

#[test]
fn fault_9_an_index_block_that_is_its_own_child_eats_all_memory() {
    let Some(made) = fixtures::get("ntfs-basic") else {
        return;
    };
    let bad = looping(&made);
    // Ours ends, and says what is wrong.
    let walked = walk::below(&walk::open(&bad.image), "/p0");
    assert!(!walked.refused.is_empty(), "the damage was not noticed");
    // Theirs is given 1 GiB and 20 seconds of one processor.
    let me = std::env::current_exe().unwrap();
    let limits = "ulimit -v 1048576; ulimit -t 20; exec \"$0\" --exact \
                  oracles::ntfs::child_lists_a_looping_index --test-threads=1";
    let status = Command::new("sh")
        .arg("-c")
        .arg(limits)
        .arg(me)
        .env("VMDKIT_TEST_LOOPING", &bad.image)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success(), "the crate got better");
}

#[test]
fn streams_agree() {
    let Some(made) = fixtures::get("ntfs-basic") else {
        return;
    };
    let mut fs = volume(&made.image);
    let mut ntfs = Ntfs::new(&mut fs).unwrap();
    ntfs.read_upcase_table(&mut fs).unwrap();
    let file = ntfs.file(&mut fs, record(&made, "streams.txt")).unwrap();
    for (name, len) in [("small", 40), ("large", 30_000)] {
        let item = file.data(&mut fs, name).unwrap().unwrap();
        let mut value = item.to_attribute().unwrap().value(&mut fs).unwrap();
        let mut theirs = vec![0; len];
        value.read_exact(&mut fs, &mut theirs).unwrap();
        assert_eq!(
            theirs,
            contents(&format!("streams.txt:{name}"), len, Fill::Text)
        );
        let tree = walk::open(&made.image);
        let node = tree.resolve("/p0/streams.txt").unwrap().node;
        let mut ours = vec![0; len];
        let disk = tree.open(node, Some(&Name::from(name))).unwrap();
        disk.read_exact_at(&mut ours, 0).unwrap();
        assert_eq!(ours, theirs);
    }
}
