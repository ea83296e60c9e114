//! The PATHs of one command, each an object of the tree.

use crate::{exit::Failure, output::warn};
use convert::restore::SOCKET;
use disk_io::{DiskError, ErrorKind};
use guest_fs::{Name, SpecialKind};
use proxy::{Node, Resolved, Tree};
use std::{collections::HashSet, ffi::OsString, os::unix::ffi::OsStrExt};

/// What a PATH names.
pub(crate) struct Named {
    /// Its path in the tree, from a volume on.
    pub(crate) path: Vec<u8>,
    pub(crate) node: Node,
    /// `.` or `DIR/.`: the entries of a directory and not the directory.
    pub(crate) contents: bool,
    /// Why it may not be what PATH names: which part of it, and the reason. What several PATHs
    /// lead through is with the first of them only.
    pub(crate) doubts: Vec<(Name, String)>,
}

/// Looks each PATH up. One that names nothing, or a stream where `doing` wants files, ends the
/// command if there is no other; else it goes to `lost` and the others are done.
pub(crate) fn resolve(
    tree: &Tree,
    paths: &[OsString],
    doing: &str,
    lost: &mut dyn FnMut(&[u8], &DiskError),
) -> Result<Vec<Named>, Failure> {
    let mut all = Vec::new();
    let mut told = HashSet::new();
    for path in paths {
        let path = path.as_bytes();
        let found = tree.resolve(path).and_then(|found| match &found.stream {
            None => match tree.without_files(found.node) {
                None => socket(tree, &found, doing).map_or(Ok(found), Err),
                Some(e) => Err(e),
            },
            Some(stream) => Err(DiskError::refused(format!("{doing} a stream by itself"))
                .file(&found.path)
                .found(format!("the stream '{stream}'"))
                .hint("cat writes a stream; --streams files takes all of a file's")),
        });
        let found = match found {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::Ambiguous || paths.len() == 1 => {
                return Err(e.into());
            }
            Err(e) => {
                lost(path, &e);
                continue;
            }
        };
        for remark in &found.remarks {
            warn(remark);
        }
        all.push(Named {
            path: found.path.as_bytes().to_vec(),
            node: found.node,
            contents: path == b"." || path.ends_with(b"/."),
            doubts: found
                .doubts
                .into_iter()
                .filter(|doubt| told.insert(doubt.clone()))
                .collect(),
        });
    }
    Ok(all)
}

/// A socket is left out of what lies around it, and told where it is what is asked for.
fn socket(tree: &Tree, found: &Resolved, doing: &str) -> Option<DiskError> {
    let metadata = tree.metadata(found.node).ok()?;
    (metadata.special() == Some(SpecialKind::Socket)).then(|| {
        DiskError::unsupported(doing)
            .file(&found.path)
            .found(SOCKET)
    })
}
