//! The disk that is written, and where.

use super::engine::{command, said};
use std::{
    fs,
    io::{Cursor, Write},
    path::PathBuf,
};
use tempfile::TempDir;
use tests::{
    crash_fs::{CrashFs, states::Noise, tree::Tree},
    tools,
};

const LEN: usize = 4 << 20;

/// A place for the sources, and the file system.
pub(super) struct Place {
    pub(super) fs: CrashFs,
    pub(super) dir: TempDir,
    /// Its disk, and another that differs from it in two places.
    pub(super) disk: PathBuf,
    pub(super) later: PathBuf,
}

/// Files of the guest.
pub(super) fn contents(n: u64, len: usize) -> Vec<u8> {
    let mut noise = Noise(n);
    (0..len).map(|_| noise.below(256) as u8).collect()
}

pub(super) const GUEST: [(&str, usize); 3] = [("a.txt", 5000), ("b.bin", 90_001), ("empty", 0)];

fn disk() -> Vec<u8> {
    let mut bytes = Cursor::new(vec![0; LEN]);
    fatfs::format_volume(&mut bytes, fatfs::FormatVolumeOptions::new()).unwrap();
    let fs = fatfs::FileSystem::new(&mut bytes, fatfs::FsOptions::new()).unwrap();
    for (n, (name, len)) in GUEST.iter().enumerate() {
        let mut file = fs.root_dir().create_file(name).unwrap();
        file.write_all(&contents(n as u64, *len)).unwrap();
    }
    fs.root_dir().create_dir("sub").unwrap();
    drop(fs);
    let mut bytes = bytes.into_inner();
    bytes[1_500_000..1_560_000].copy_from_slice(&contents(7, 60_000));
    bytes[2_500_000..2_530_000].copy_from_slice(&contents(8, 30_000));
    bytes[LEN - (300 << 10)..LEN - 512].copy_from_slice(&contents(9, (300 << 10) - 512));
    bytes
}

impl Place {
    pub(super) fn new() -> Option<Self> {
        if !tools::have_fuse() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (disk_at, later) = (dir.path().join("disk.raw"), dir.path().join("later.raw"));
        let mut bytes = disk();
        fs::write(&disk_at, &bytes).unwrap();
        let at = LEN - (200 << 10);
        bytes[at..at + 20_000].copy_from_slice(&contents(20, 20_000));
        bytes[at + 60_000..at + 130_000].fill(0);
        bytes[700_000..705_000].copy_from_slice(&contents(21, 5000));
        fs::write(&later, &bytes).unwrap();
        let fs = CrashFs::mount(&dir.path().join("mnt")).unwrap();
        fs::write(fs.path().join("other.txt"), "not yours").unwrap();
        Some(Self {
            fs,
            dir,
            disk: disk_at,
            later,
        })
    }

    /// Runs something that succeeds.
    pub(super) fn make(&self, args: &[&str]) {
        let out = command(&self.fs, &strings(args)).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", said(&out));
    }

    pub(super) fn base(&self) -> Tree {
        self.fs.tree()
    }
}

pub(super) fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}
