//! Which disks beside this one are newer: they name it as their parent.

use crate::{
    chain::disk_names,
    descriptor::Descriptor,
    extent::{
        head::Head,
        redo::{Bare, is_redo_name},
    },
    names,
};
use disk_io::{FileId, Opened, Purpose, Result};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

/// A disk that is newer than another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its file, as the directory names it.
    pub path: PathBuf,
    /// 1 for a child, 2 for a child's child.
    pub depth: usize,
    /// Whether the content ids agree: if not, its parent was changed since.
    pub cid_matches: bool,
    /// Whether nothing is newer than it.
    pub newest: bool,
}

/// A disk of the directory that has a parent.
struct Delta {
    path: PathBuf,
    id: FileId,
    parent: String,
    parent_cid: Option<u32>,
    cid: Option<u32>,
    /// A redo log of ESX 2 has no content ids.
    redo: bool,
}

/// Looks through the directory of `source` for disks that have it as an ancestor, the
/// newest first. Files that are no disks, or cannot be read, are passed over: this is advice.
///
/// # Errors
/// Only if the directory cannot be listed or holds too many disks to look at, or `source`
/// itself is no VMDK link.
pub fn newer_children(source: &Opened) -> Result<Vec<Child>> {
    // Only redo logs lie on what is no link.
    let is_link = crate::probe(&*source.disk)?.is_some();
    // A flat file below redo logs has nothing that could be read.
    let cid = match is_link {
        true => Head::read_source(source)?
            .descriptor
            .as_ref()
            .and_then(Descriptor::cid),
        false => None,
    };
    let mut deltas = Vec::new();
    let names = disk_names(&*source.dir)?;
    for name in names.into_iter().filter(|n| is_link || is_redo_name(n)) {
        let Ok(opened) = source.dir.open(&name, Purpose::Parent) else {
            continue;
        };
        let Ok(head) = Head::read(&opened) else {
            continue;
        };
        if let Some(Bare::Redo(redo)) = &head.bare
            && let Some(parent) = names::base_name(&redo.parent)
        {
            deltas.push(Delta {
                parent: parent.to_owned(),
                parent_cid: None,
                cid: None,
                redo: true,
                id: opened.id,
                path: name,
            });
            continue;
        }
        let Some(d) = &head.descriptor else {
            continue;
        };
        if let Some(parent) = d.parent_hint().and_then(names::base_name) {
            deltas.push(Delta {
                parent: parent.to_owned(),
                parent_cid: d.parent_cid().ok().flatten(),
                cid: d.cid(),
                redo: false,
                id: opened.id,
                path: name,
            });
        }
    }
    let mut seen = HashSet::from([source.id]);
    let mut found: Vec<Child> = Vec::new();
    let mut level = vec![(source.base_name().to_path_buf(), cid)];
    let mut depth = 0usize;
    while !level.is_empty() {
        depth = depth.saturating_add(1);
        let mut next = Vec::new();
        for (parent, cid) in &level {
            for delta in &deltas {
                if names_file(&delta.parent, parent) && seen.insert(delta.id) {
                    found.push(Child {
                        path: delta.path.clone(),
                        depth,
                        cid_matches: delta.redo || (cid.is_some() && delta.parent_cid == *cid),
                        newest: !deltas
                            .iter()
                            .any(|d| d.id != delta.id && names_file(&d.parent, &delta.path)),
                    });
                    next.push((delta.path.clone(), delta.cid));
                }
            }
        }
        level = next;
    }
    // Snapshots are numbered, so the later name is the newer of two at the same depth.
    found.sort_by(|a, b| (b.depth, &b.path).cmp(&(a.depth, &a.path)));
    Ok(found)
}

/// Hints may come from a system that does not tell cases apart.
fn names_file(hint: &str, file: &Path) -> bool {
    file.to_str()
        .map_or(Path::new(hint) == file, |f| f.eq_ignore_ascii_case(hint))
}
