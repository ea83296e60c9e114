//! `fatfs` 0.3.6.

use crate::walk;
use disk_io::{Disk, HostDir, faults::Counting, host_dir::Allowed, positioned::cursor};
use fatfs::{Dir, FileSystem, FsOptions};
use std::{
    fs,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tests::{
    fixtures::{self, Fixture, Made, Sort},
    guest::{Entry, Truth, differences, sha256},
    say,
};

/// The crate wants to write even to read. It may not.
struct ReadOnly(positioned_io::SizeCursor<disk_io::positioned::AsReadAt>);

impl Read for ReadOnly {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Seek for ReadOnly {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.0.seek(pos)
    }
}

impl Write for ReadOnly {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn disk(image: &Path) -> Arc<dyn Disk> {
    HostDir::open_source(image, &Allowed::default())
        .unwrap()
        .disk
}

fn open(disk: Arc<dyn Disk>) -> io::Result<FileSystem<ReadOnly>> {
    let options = FsOptions::new().update_accessed_date(false);
    FileSystem::new(ReadOnly(cursor(disk)), options)
}

fn read_all(image: &Path) -> Truth {
    let fs = open(disk(image)).unwrap();
    let mut truth = Truth::new();
    read_dir(&fs.root_dir(), "", &mut truth);
    truth
}

fn read_dir(dir: &Dir<'_, ReadOnly>, prefix: &str, truth: &mut Truth) {
    for entry in dir.iter() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name == "." || name == ".." {
            continue;
        }
        let path = format!("{prefix}{name}");
        if entry.is_dir() {
            read_dir(&entry.to_dir(), &format!("{path}/"), truth);
            truth.insert(path, Entry::Dir);
            continue;
        }
        let mut bytes = Vec::new();
        entry.to_file().read_to_end(&mut bytes).unwrap();
        let entry = Entry::File {
            size: bytes.len() as u64,
            sha256: sha256(&bytes),
        };
        truth.insert(path, entry);
    }
}

fn volumes() -> impl Iterator<Item = &'static Fixture> {
    fixtures::all().filter(|f| f.sort == Sort::Fat)
}

#[test]
fn what_both_can_read_agrees() {
    for fixture in volumes() {
        let Some(made) = fixtures::get(fixture.name) else {
            return;
        };
        let ours = walk::below(&walk::open(&made.image), "/p0");
        let lines = differences(&read_all(&made.image), &ours.truth);
        assert!(lines.is_empty(), "{}:\n{}", fixture.name, lines.join("\n"));
        say!(
            "fatfs 0.3.6 agrees on {}: {} objects",
            fixture.name,
            ours.truth.len()
        );
    }
}

/// A copy of a fixture with some bytes changed.
struct Patched {
    _dir: tempfile::TempDir,
    image: PathBuf,
}

fn patched(made: &Made, change: impl FnOnce(&fs::File, &Layout)) -> Patched {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("patched.img");
    fs::copy(&made.image, &image).unwrap();
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(&image)
        .unwrap();
    change(&file, &Layout::read(&file));
    Patched { _dir: dir, image }
}

/// Where things are on a FAT32 volume, from its boot sector.
struct Layout {
    sector: u64,
    cluster: u64,
    fat: u64,
    data: u64,
}

impl Layout {
    fn read(file: &fs::File) -> Self {
        let mut b = [0u8; 512];
        file.read_exact_at(&mut b, 0).unwrap();
        let u16_at = |at: usize| u64::from(u16::from_le_bytes([b[at], b[at + 1]]));
        let sector = u16_at(11);
        let fat_len = u64::from(u32::from_le_bytes(b[36..40].try_into().unwrap()));
        let fat = u16_at(14) * sector;
        Self {
            sector,
            cluster: u64::from(b[13]) * sector,
            fat,
            data: fat + u64::from(b[16]) * fat_len * sector,
        }
    }

    fn cluster_at(&self, number: u32) -> u64 {
        self.data + u64::from(number - 2) * self.cluster
    }

    /// Sets an entry in both tables.
    fn set(&self, file: &fs::File, number: u32, next: u32) {
        let copies = (self.data - self.fat) / 2;
        for start in [self.fat, self.fat + copies] {
            let at = start + u64::from(number) * 4;
            file.write_all_at(&next.to_le_bytes(), at).unwrap();
        }
    }

    fn next(&self, file: &fs::File, number: u32) -> u32 {
        let mut b = [0u8; 4];
        file.read_exact_at(&mut b, self.fat + u64::from(number) * 4)
            .unwrap();
        u32::from_le_bytes(b) & 0x0fff_ffff
    }

    /// First cluster of a short name in the directory that begins at `dir`.
    fn find(&self, file: &fs::File, dir: u32, name: &[u8; 11]) -> u32 {
        let mut cluster = dir;
        loop {
            let mut bytes = vec![0; self.cluster as usize];
            file.read_exact_at(&mut bytes, self.cluster_at(cluster))
                .unwrap();
            for e in bytes.chunks(32) {
                if &e[..11] == name && e[11] & 0x08 == 0 {
                    let high = u32::from(u16::from_le_bytes([e[20], e[21]]));
                    return high << 16 | u32::from(u16::from_le_bytes([e[26], e[27]]));
                }
            }
            cluster = self.next(file, cluster);
            assert!(cluster < 0x0fff_fff0, "no entry {name:?}");
        }
    }
}

#[test]
fn fault_1_a_broken_chain_shortens_the_file_without_an_error() {
    let Some(made) = fixtures::get("fat32") else {
        return;
    };
    let bad = patched(&made, |file, l| {
        let sizes = l.find(file, 2, b"SIZES      ");
        let first = l.find(file, sizes, b"4097       ");
        let second = l.next(file, first);
        l.set(file, second, 0x0fff_ffff);
    });
    let fs = open(disk(&bad.image)).unwrap();
    let mut theirs = Vec::new();
    let mut file = fs.root_dir().open_file("SIZES/4097").unwrap();
    let n = file.read_to_end(&mut theirs).unwrap();
    say!("fatfs 0.3.6 gives {n} of 4097 bytes and no error");
    assert!(n < 4097, "the crate got better");
    let tree = walk::open(&bad.image);
    let node = tree.resolve("/p0/SIZES/4097").unwrap().node;
    let e = walk::read(&tree, node, None).unwrap_err();
    assert_eq!(e.kind(), disk_io::ErrorKind::Corrupt, "{e}");
}

#[test]
fn fault_2_a_directory_that_loops_never_ends() {
    let Some(made) = fixtures::get("fat32") else {
        return;
    };
    let bad = patched(&made, |file, l| {
        let many = l.find(file, 2, b"SIZES      ");
        l.set(file, many, many);
        // No end mark in the cluster that repeats.
        let at = l.cluster_at(many);
        let mut bytes = vec![0; l.cluster as usize];
        file.read_exact_at(&mut bytes, at).unwrap();
        for e in bytes.chunks_mut(32).filter(|e| e[0] == 0) {
            e[0] = 0xe5;
        }
        file.write_all_at(&bytes, at).unwrap();
    });
    let fs = open(disk(&bad.image)).unwrap();
    let dir = fs.root_dir().open_dir("SIZES").unwrap();
    assert_eq!(
        dir.iter().take(100_000).count(),
        100_000,
        "the crate got better"
    );
    let walked = walk::below(&walk::open(&bad.image), "/p0");
    let said = walked.refused.keys().any(|path| path.starts_with("SIZES"));
    assert!(
        said,
        "the loop was not noticed: {:?}",
        walked.refused.keys()
    );
    let many = "many/a file with number 0007.txt";
    assert_eq!(walked.truth[many], made.truth[many]);
}

#[test]
fn fault_3_every_seek_walks_the_chain_from_its_beginning() {
    let Some(made) = fixtures::get("fat32") else {
        return;
    };
    let counting = Arc::new(Counting::new(disk(&made.image)));
    let fs = open(counting.clone()).unwrap();
    let mut file = fs.root_dir().open_file("large.bin").unwrap();
    let mut byte = [0; 1];
    let before = counting.so_far().0;
    for i in 0..10 {
        file.seek(SeekFrom::Start(2_900_000 - i * 8192)).unwrap();
        file.read_exact(&mut byte).unwrap();
    }
    let theirs = counting.so_far().0 - before;
    say!("fatfs 0.3.6 takes {theirs} reads for ten seeks in a 3 MB file");
    assert!(theirs > 10_000, "the crate got better");
}

#[test]
fn fault_4_a_damaged_fsinfo_closes_the_volume() {
    let Some(made) = fixtures::get("fat32") else {
        return;
    };
    let bad = patched(&made, |file, l| {
        file.write_all_at(&[0x55; 512], l.sector).unwrap();
    });
    assert!(open(disk(&bad.image)).is_err(), "the crate got better");
    let walked = walk::below(&walk::open(&bad.image), "/p0");
    assert!(differences(&made.truth, &walked.truth).is_empty());
}

#[test]
fn fault_5_the_backup_boot_sector_is_not_tried() {
    let Some(made) = fixtures::get("fat32") else {
        return;
    };
    let bad = patched(&made, |file, _| {
        file.write_all_at(&[0; 512], 0).unwrap();
    });
    assert!(open(disk(&bad.image)).is_err(), "the crate got better");
    let disk = disk(&bad.image);
    let fs = guest_fs::fat::Fat::open(disk, &guest_fs::OpenOptions::default());
    let fs = fs.unwrap_or_else(|e| panic!("{e}"));
    let remarks = guest_fs::FileSystem::info(&fs).remarks;
    assert!(remarks.iter().any(|r| r.contains("backup")), "{remarks:?}");
}
