//! The change journal of a volume, for `ls --journal`.

use crate::{
    args::Global,
    exit::{Exit, Failure, tell_path_error},
    names::{hex_if_needed, shown},
    output::Out,
    times::Zone,
    verb::ls::join,
};
use disk_io::DiskError;
use guest_fs::{Change, NodeId};
use proxy::{Node, Tree};
use serde::Serialize;
use std::{collections::HashMap, ops::ControlFlow};

#[derive(Serialize)]
struct Json {
    usn: u64,
    time: String,
    reasons: Vec<&'static str>,
    /// Where the name was: the directory as it is called now, if it still is there.
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    record: u64,
    sequence: u16,
    parent_record: u64,
    parent_sequence: u16,
    attributes: u32,
}

/// Prints what the journal of the volume that `node` lies in holds.
pub(crate) fn list(tree: &Tree, node: Node, json: bool, global: &Global) -> Result<Exit, Failure> {
    let path = tree.path_of(node);
    let none = || {
        DiskError::not_found("listing the change journal")
            .file(&path)
            .expected("an NTFS volume with a journal ($UsnJrnl), or a path on one")
    };
    let Some((fs, _)) = tree.guest(node)? else {
        return Err(none().found("a directory above the volumes").into());
    };
    let zone = global.zone();
    let mut out = Out::new();
    let mut directories = Directories {
        tree,
        at: node,
        known: HashMap::new(),
    };
    let (mut missing, mut failed) = (false, None);
    let there = fs.changes(&mut |change| {
        let done = match change {
            Ok(change) => print(&mut out, &change, &mut directories, json, &zone),
            Err(e) => {
                missing = true;
                tell_path_error(path.as_bytes(), &e);
                Ok(())
            }
        };
        match done {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                failed = Some(e);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(e) = failed {
        return Err(e);
    }
    if !there {
        return Err(none().found("none").into());
    }
    out.finish()?;
    Ok(Exit::partial_if(missing))
}

fn print(
    out: &mut Out,
    change: &Change,
    directories: &mut Directories<'_>,
    json: bool,
    zone: &Zone,
) -> Result<(), Failure> {
    let above = directories.path(change.parent);
    let path = join(&above, change.name.as_bytes());
    let reasons: Vec<_> = change.reason_names().collect();
    if !json {
        let before = format!("{}  {:<40} ", zone.rfc3339(change.time), reasons.join(","));
        return out.name(&before, &path, "");
    }
    out.object(&Json {
        usn: change.usn,
        time: zone.rfc3339(change.time),
        reasons,
        path: shown(&path),
        path_hex: hex_if_needed(&path),
        record: change.node.record,
        sequence: change.node.sequence,
        parent_record: change.parent.record,
        parent_sequence: change.parent.sequence,
        attributes: change.attributes,
    })
}

/// Paths of directories by record.
struct Directories<'a> {
    tree: &'a Tree,
    /// A node of the volume.
    at: Node,
    known: HashMap<NodeId, Vec<u8>>,
}

impl Directories<'_> {
    /// Of one that is gone only the record is known.
    fn path(&mut self, id: NodeId) -> Vec<u8> {
        if let Some(path) = self.known.get(&id) {
            return path.clone();
        }
        let path = self.find(id).unwrap_or_else(|| {
            format!("(directory record {}, sequence {})", id.record, id.sequence).into_bytes()
        });
        // Bounded: a journal is of some 32 MiB, and memory must not grow with it.
        if self.known.len() < 100_000 {
            self.known.insert(id, path.clone());
        }
        path
    }

    fn find(&self, id: NodeId) -> Option<Vec<u8>> {
        let (fs, _) = self.tree.guest(self.at).ok()??;
        fs.metadata(id).ok()?;
        let number = self.tree.number_of(self.at)?;
        let node = self.tree.guest_node(number, id).ok()?;
        Some(self.tree.path_of(node).as_bytes().to_vec())
    }
}
