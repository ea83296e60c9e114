//! What the tests share: finding the images, and reading everything of a volume.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic
)]

use disk_io::{Disk, MemDisk, Result, Run, RunKind, host_dir::Allowed};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};
use vmfs_reader::{
    Datastores, FdAddress, FileKind, OpenOptions, Volume,
    build::{FileSpec, Provision},
};

/// Says that a test does nothing, or fails if what it needs is required.
pub fn skip(kind: &str, why: &str) {
    let required = std::env::var("VMDKIT_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|r| r == kind),
        "{kind} required: {why}"
    );
    eprintln!("skipped: {why}");
}

/// The directory of the unpacked images, and the truth about them.
pub fn images() -> Option<(PathBuf, serde_json::Value)> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/images");
    let base = std::env::var_os("VMDKIT_IMAGES").map(PathBuf::from);
    let mut places = base.iter().chain([&beside]);
    let truth = places.find_map(|p| std::fs::read(p.join("vmfs-truth.json")).ok());
    let Some(truth) = truth else {
        skip(
            "images",
            "no vmfs-truth.json in VMDKIT_IMAGES or beside the project",
        );
        return None;
    };
    let truth = serde_json::from_slice(&truth).unwrap();
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images");
    let found = base
        .clone()
        .into_iter()
        .chain([target])
        .map(|b| b.join("vmfs"))
        .find(|b| b.join("dissect").is_dir());
    if found.is_none() {
        skip("images", "VMDKIT_IMAGES does not hold the VMFS images");
    }
    Some((found?, truth))
}

pub fn host(path: &Path) -> Arc<dyn Disk> {
    disk_io::HostDir::open_source(path, &Allowed::default())
        .unwrap_or_else(|e| panic!("{e}"))
        .disk
}

/// Finds an image by its name, anywhere below.
pub fn image(base: &Path, name: &str) -> PathBuf {
    let mut dirs = vec![base.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.file_name().is_some_and(|n| n == name) {
                return path;
            }
        }
    }
    panic!("no image {name}");
}

pub fn open(disks: &[Arc<dyn Disk>]) -> Volume {
    Volume::open(disks, &OpenOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn sha256(disk: &dyn Disk, from: u64, len: u64) -> String {
    let mut hash = Sha256::new();
    let mut buf = vec![0; 4 << 20];
    let mut at = from;
    while at < from + len {
        let n = (from + len - at).min(buf.len() as u64) as usize;
        disk.read_exact_at(&mut buf[..n], at)
            .unwrap_or_else(|e| panic!("{e}"));
        hash.update(&buf[..n]);
        at += n as u64;
    }
    hex(&hash.finalize())
}

/// Every path of a volume with its descriptor, `.` and `..` left out.
pub fn tree(volume: &Volume) -> BTreeMap<String, FdAddress> {
    let mut found = BTreeMap::from([("/".to_owned(), volume.root())]);
    let mut dirs = vec![(volume.root(), String::new())];
    while let Some((dir, path)) = dirs.pop() {
        volume
            .read_dir(dir, &mut |entry| {
                let entry = entry.unwrap_or_else(|e| panic!("in {path:?}: {e}"));
                let name = format!("{path}/{}", String::from_utf8(entry.name.clone()).unwrap());
                let stat = volume.check_entry(&entry).unwrap();
                if stat.kind == FileKind::Directory {
                    dirs.push((entry.address, name.clone()));
                }
                let again = volume.lookup(dir, &entry.name).unwrap();
                assert_eq!(again.as_ref(), Some(&entry), "looking {name} up");
                found.insert(name, entry.address);
                ControlFlow::Continue(())
            })
            .unwrap_or_else(|e| panic!("{path}: {e}"));
    }
    found
}

/// The data runs of a disk, joined.
pub fn data_runs(disk: &dyn Disk) -> Vec<(u64, u64)> {
    let mut at = 0;
    let mut out: Vec<(u64, u64)> = Vec::new();
    while at < disk.len() {
        let run = disk.run_at(at).unwrap();
        if run.kind == RunKind::Data {
            match out.last_mut() {
                Some(last) if last.0 + last.1 == at => last.1 += run.len,
                _ => out.push((at, run.len)),
            }
        }
        at += run.len;
    }
    out
}

pub fn filled(len: u64, byte: u8) -> Arc<dyn Disk> {
    Arc::new(MemDisk::new(vec![byte; len as usize]))
}

pub fn thick() -> FileSpec {
    FileSpec {
        provision: Provision::Thick,
        ..FileSpec::default()
    }
}

/// Finds a file by its path.
pub fn find(volume: &Volume, path: &str) -> FdAddress {
    let stores = Datastores::one(volume.clone());
    stores.resolve(0, path.as_bytes()).unwrap().address
}

pub fn all(disk: &dyn Disk) -> Result<Vec<u8>> {
    let mut buf = vec![0xA5; disk.len() as usize];
    disk.read_exact_at(&mut buf, 0)?;
    Ok(buf)
}

/// A disk with some bytes changed.
#[derive(Debug)]
pub struct Patched(pub Arc<dyn Disk>, pub Vec<(u64, Vec<u8>)>);

impl Disk for Patched {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_exact_at(buf, offset)?;
        let end = offset + buf.len() as u64;
        for (at, bytes) in &self.1 {
            let (from, to) = (offset.max(*at), end.min(at + bytes.len() as u64));
            if from < to {
                buf[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
            }
        }
        Ok(())
    }
    fn run_at(&self, offset: u64) -> Result<Run> {
        self.0.run_at(offset)
    }
}

pub fn patch(disk: &Arc<dyn Disk>, at: u64, bytes: &[u8]) -> Arc<dyn Disk> {
    Arc::new(Patched(disk.clone(), vec![(at, bytes.to_vec())]))
}
