//! Images and tools for the tests of tables and volumes.
#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::panic)]

use disk_io::{Disk, HostDir, host_dir::Allowed};
use guest_fs::{FileSystem, NodeId, NodeKind};
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

/// A skip that is seen, or a failure where that kind is required.
pub fn skip(kind: &str, why: &str) {
    let required = std::env::var("VMDKIT_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|k| k == kind),
        "required and missing: {why}"
    );
    eprintln!("skipped: {why}");
}

/// The unpacked image collection, and its index.
pub fn images() -> Option<(PathBuf, Vec<serde_json::Value>)> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/images");
    let index = std::fs::read(beside.join("index.json")).ok();
    let unpacked = std::env::var_os("VMDKIT_IMAGES")
        .map(PathBuf::from)
        .or_else(|| {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images");
            dir.is_dir().then_some(dir)
        });
    let (Some(dir), Some(index)) = (unpacked, index) else {
        skip(
            "images",
            "the image collection is not here, or not unpacked",
        );
        return None;
    };
    Some((dir, serde_json::from_slice(&index).unwrap()))
}

/// Whether a tool is installed.
pub fn have(tool: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {tool}")])
        .output()
        .is_ok_and(|o| o.status.success());
    if !found {
        skip("peers", &format!("{tool} is not installed"));
    }
    found
}

/// Whether ext volumes can be made and taken apart.
pub fn have_ext_tools() -> bool {
    ["mke2fs", "debugfs"].into_iter().all(have)
}

/// Runs a tool and gives its output; a failure is a panic with what it said.
pub fn run(command: &mut Command) -> Vec<u8> {
    let out = command.output().unwrap();
    assert!(
        out.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    out.stdout
}

/// A file as a disk.
pub fn disk(path: &Path) -> Arc<dyn Disk> {
    HostDir::open_source(path, &Allowed::default())
        .unwrap()
        .disk
}

/// One thing found in a volume.
#[derive(Debug)]
pub struct Found {
    pub path: String,
    pub node: NodeId,
    pub kind: NodeKind,
    pub size: u64,
    /// The contents, or why they cannot be read to the end.
    pub bytes: Result<Vec<u8>, String>,
}

/// Everything in a volume, read to its end, and what could not be listed.
pub fn walk(fs: &dyn FileSystem) -> (Vec<Found>, Vec<String>) {
    let mut found = Vec::new();
    let mut errors = Vec::new();
    let mut seen = std::collections::HashSet::from([fs.root()]);
    let mut todo = vec![(String::new(), fs.root())];
    while let Some((path, dir)) = todo.pop() {
        let mut entries = Vec::new();
        let listed = fs.read_dir(dir, &mut |entry| {
            match entry {
                Ok(entry) => entries.push(entry),
                Err(e) => errors.push(format!("{path}: {e}")),
            }
            ControlFlow::Continue(())
        });
        if let Err(e) = listed {
            errors.push(format!("{path}: {e}"));
        }
        for entry in entries {
            let path = format!("{path}/{}", entry.name);
            let meta = match fs.metadata(entry.node) {
                Ok(meta) => meta,
                Err(e) => {
                    errors.push(format!("{path}: {e}"));
                    continue;
                }
            };
            assert_eq!(meta.kind, entry.kind, "{path}");
            let mut bytes = Ok(Vec::new());
            if entry.kind == NodeKind::Directory {
                if seen.insert(entry.node) && path.len() < 4000 {
                    todo.push((path.clone(), entry.node));
                }
            } else {
                bytes = read(fs, entry.node);
            }
            found.push(Found {
                path,
                node: entry.node,
                kind: entry.kind,
                size: meta.size,
                bytes,
            });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    (found, errors)
}

/// A file's contents to the end, or the first error. Huge files are read in part.
pub fn read(fs: &dyn FileSystem, node: NodeId) -> Result<Vec<u8>, String> {
    let text = |e: guest_fs::DiskError| e.to_string();
    let file = fs.open(node, None).map_err(text)?;
    let len = file.len().min(64 << 20);
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0).map_err(text)?;
    Ok(bytes)
}
