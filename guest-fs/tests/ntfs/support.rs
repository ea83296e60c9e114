//! Opening, walking and comparing volumes.

use disk_io::{
    Disk, DiskError, Slice,
    host_file::{FilePool, HostFile},
};
use guest_fs::{FileSystem, Metadata, Name, NodeId, NodeKind, OpenOptions, ntfs::Ntfs};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Tells that a test is skipped; fails where `VMDKIT_REQUIRE` asks for its kind.
pub(crate) fn skip(kind: &str, why: &str) {
    let required = std::env::var("VMDKIT_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|k| k.trim() == kind),
        "required but missing: {why}"
    );
    eprintln!("skipped: {why}");
}

/// Where the images are, if they are anywhere.
pub(crate) fn images() -> Option<PathBuf> {
    let dir = std::env::var_os("VMDKIT_IMAGES").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images");
    let found = dir.or(Some(beside)).filter(|d| d.join("ntfs").is_dir());
    if found.is_none() {
        skip("images", "no unpacked images (VMDKIT_IMAGES)");
    }
    found
}

/// A file of the host as a disk.
pub(crate) fn host(path: &Path) -> Arc<dyn Disk> {
    HostFile::open_named(path, &FilePool::new(16)).unwrap()
}

/// The volume in a file from byte `start` on.
pub(crate) fn open_at(path: &Path, start: u64, len: Option<u64>) -> Result<Ntfs, DiskError> {
    let disk = host(path);
    let len = len.unwrap_or(disk.len() - start).min(disk.len() - start);
    let slice = Slice::new(disk, start, len)?;
    Ntfs::open(Arc::new(slice), &OpenOptions::default())
}

/// One name of a tree.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) metadata: Metadata,
    pub(crate) short_name: Option<Name>,
    /// SHA-256 of the contents, target of a link, or why they cannot be read.
    pub(crate) contents: Result<String, DiskError>,
    pub(crate) streams: Vec<(Name, Result<String, DiskError>)>,
}

/// A whole tree, by path.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    pub(crate) seen: BTreeMap<Vec<u8>, Seen>,
    pub(crate) errors: Vec<(Vec<u8>, DiskError)>,
}

/// Reads a disk to its end, holes too.
pub(crate) fn digest(disk: &dyn Disk) -> Result<String, DiskError> {
    let mut hash = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < disk.len() {
        let n = (disk.len() - at).min(buf.len() as u64) as usize;
        disk.read_exact_at(&mut buf[..n], at)?;
        hash.update(&buf[..n]);
        at += n as u64;
    }
    Ok(hex(&hash.finalize()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn sha(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Walks everything below the root. `limit` bounds the contents that are read of one file.
pub(crate) fn walk(fs: &dyn FileSystem, limit: u64) -> Walk {
    let mut walk = Walk::default();
    let mut todo: Vec<(Vec<u8>, NodeId)> = vec![(Vec::new(), fs.root())];
    while let Some((path, dir)) = todo.pop() {
        let mut entries = Vec::new();
        let listed = fs.read_dir(dir, &mut |e| {
            match e {
                Ok(e) => entries.push(e),
                Err(e) => walk.errors.push((path.clone(), e)),
            }
            ControlFlow::Continue(())
        });
        if let Err(e) = listed {
            walk.errors.push((path.clone(), e));
        }
        for entry in entries {
            let mut full = path.clone();
            full.push(b'/');
            full.extend_from_slice(entry.name.as_bytes());
            let metadata = match fs.metadata(entry.node) {
                Ok(m) => m,
                Err(e) => {
                    walk.errors.push((full, e));
                    continue;
                }
            };
            let read = |stream: Option<&Name>| {
                let disk = fs.open(entry.node, stream)?;
                if disk.len() > limit {
                    return Ok(format!("{} bytes", disk.len()));
                }
                digest(&*disk)
            };
            let contents = match metadata.kind {
                NodeKind::Symlink => fs.read_link(entry.node).map(|l| format!("{l:?}")),
                NodeKind::Directory => {
                    if walk.seen.len() < 1_000_000 && full.len() < 4096 {
                        todo.push((full.clone(), entry.node));
                    }
                    Ok(String::new())
                }
                _ => read(None),
            };
            let streams = match fs.streams(entry.node) {
                Ok(streams) => streams
                    .into_iter()
                    .map(|s| (s.name.clone(), read(Some(&s.name))))
                    .collect(),
                Err(e) => {
                    walk.errors.push((full.clone(), e));
                    Vec::new()
                }
            };
            walk.seen.insert(
                full,
                Seen {
                    metadata,
                    short_name: entry.short_name,
                    contents,
                    streams,
                },
            );
        }
    }
    walk
}
