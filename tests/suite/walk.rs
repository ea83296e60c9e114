//! Walking our own tree: everything in it, read to the last byte.

use disk_image::Format;
use disk_io::{Disk, DiskError, RunKind};
use guest_fs::{Name, NodeKind};
use proxy::{Node, Source, SourceSpec, Tree, TreeOptions};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, ops::ControlFlow, path::Path, sync::Arc};
use tests::guest::{Entry, Truth, hex, name_text};

/// What a walk met.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Directories and files that were read.
    pub(crate) truth: Truth,
    /// Files that are refused by name, and whatever else could not be read.
    pub(crate) refused: BTreeMap<String, DiskError>,
    /// Links, as path and target.
    pub(crate) links: BTreeMap<String, String>,
}

pub(crate) fn open(image: &Path) -> Tree {
    try_open(image).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn try_open(image: &Path) -> Result<Tree, DiskError> {
    try_open_as(image, None)
}

pub(crate) fn try_open_as(image: &Path, format: Option<Format>) -> Result<Tree, DiskError> {
    let spec = SourceSpec {
        path: image.to_path_buf(),
        format,
        ..SourceSpec::default()
    };
    Tree::new(Arc::new(Source::open(&spec)?), TreeOptions::default())
}

/// Walks everything below `path` of a tree.
pub(crate) fn below(tree: &Tree, path: &str) -> Walked {
    let start = tree.resolve(path).unwrap_or_else(|e| panic!("{e}"));
    let mut walked = Walked::default();
    walk(tree, start.node, "", &mut walked);
    walked
}

fn walk(tree: &Tree, dir: Node, prefix: &str, out: &mut Walked) {
    let mut entries = Vec::new();
    let listed = tree.read_dir(dir, &mut |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    });
    if let Err(e) = listed {
        out.refused.insert(prefix.to_owned(), e);
    }
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) => {
                out.refused.insert(format!("{prefix}(an entry)"), e);
                continue;
            }
        };
        let path = format!("{prefix}{}", name_text(entry.name.as_bytes()));
        let metadata = match tree.metadata(entry.node) {
            Ok(metadata) => metadata,
            Err(e) => {
                out.refused.insert(path, e);
                continue;
            }
        };
        match metadata.kind {
            NodeKind::Directory => {
                walk(tree, entry.node, &format!("{path}/"), out);
                out.truth.insert(path, Entry::Dir);
            }
            NodeKind::File => match read(tree, entry.node, None) {
                Ok(file) => {
                    if let Entry::File { size, .. } = &file {
                        assert_eq!(*size, metadata.size, "{path}: its length and its metadata");
                    }
                    assert!(
                        metadata.refusal.is_none(),
                        "{path} was read although refused"
                    );
                    out.truth.insert(path, file);
                }
                Err(e) => {
                    out.refused.insert(path, e);
                }
            },
            NodeKind::Symlink => {
                let target = match tree.read_link(entry.node) {
                    Ok(link) => name_text(link.target.as_bytes()),
                    Err(e) => format!("({e})"),
                };
                out.links.insert(path, target);
            }
            NodeKind::Special => {}
        }
    }
}

/// Reads a file or a stream to its end.
pub(crate) fn read(tree: &Tree, node: Node, stream: Option<&Name>) -> Result<Entry, DiskError> {
    let disk = tree.open(node, stream)?;
    Ok(Entry::File {
        size: disk.len(),
        sha256: hash(&*disk)?,
    })
}

/// SHA-256 of all of a disk. Runs of zeros are not read.
pub(crate) fn hash(disk: &dyn Disk) -> Result<String, DiskError> {
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    while at < disk.len() {
        let run = disk.run_at(at)?;
        let n = run.len.min(buffer.len() as u64) as usize;
        if run.kind == RunKind::Data {
            disk.read_exact_at(&mut buffer[..n], at)?;
            sha.update(&buffer[..n]);
        } else {
            sha.update(&zeros[..n]);
        }
        at += n as u64;
    }
    Ok(hex(&sha.finalize()))
}
