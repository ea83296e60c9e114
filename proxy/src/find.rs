//! Everything below a directory, with its path and what is known of it.
//!
//! From a volume's root, where the file system can, its tables are read once from front to
//! back instead of walking the tree: a million files are then one sequential read. Paths
//! are put together from the directories that were met on the way.

use crate::{
    names,
    tree::{Node, Place, Tree},
};
use disk_io::{DiskError, Result};
use guest_fs::{Entered, FileSystem, Metadata, Name, NodeId, NodeKind, entered::DEEPEST};
use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

/// Objects that are kept until the paths are known. Where more are wanted the tables are
/// read twice: memory must not grow with the volume.
const KEPT: usize = 100_000;
/// Records of NTFS below this are the file system's own.
const METAFILES: u64 = 16;

/// An object of the tree.
#[derive(Clone, Debug)]
pub struct Below {
    /// Its full path, as `cp` takes it.
    pub path: Vec<u8>,
    /// The object.
    pub node: Node,
    /// From its own record.
    pub metadata: Metadata,
}

/// Which objects are wanted, by name and record.
pub type Wanted<'a> = &'a dyn Fn(&Name, &Metadata) -> bool;

/// Called with each object that is wanted, or with the reason why some are lost and where.
pub type VisitBelow<'a> = &'a mut dyn FnMut(Result<Below>) -> ControlFlow<()>;

impl Tree {
    /// Visits what is wanted of everything below the directory `start`, whose path is
    /// `path`, in no particular order. Directories that cannot be listed are visited as
    /// errors, and the rest goes on.
    pub fn find(
        &self,
        start: Node,
        path: &[u8],
        wanted: Wanted<'_>,
        visit: VisitBelow<'_>,
    ) -> ControlFlow<()> {
        let mut finder = Finder {
            tree: self,
            wanted,
            visit,
            entered: Entered::default(),
        };
        finder.below(start, path)
    }
}

struct Finder<'a, 'v> {
    tree: &'a Tree,
    wanted: Wanted<'a>,
    visit: VisitBelow<'v>,
    entered: Entered,
}

impl Finder<'_, '_> {
    fn below(&mut self, dir: Node, path: &[u8]) -> ControlFlow<()> {
        match self.tree.place(dir) {
            Ok(Place::Guest(number, fs, id)) if id == fs.root() => {
                let mut scan = Scan {
                    number,
                    fs,
                    path,
                    wanted: self.wanted,
                    directories: HashMap::new(),
                    paths: HashMap::new(),
                };
                match scan.run(self.visit) {
                    Some(flow) => {
                        flow?;
                        self.metafiles(number, fs, path)
                    }
                    None => self.walk(dir, path),
                }
            }
            Ok(_) => self.walk(dir, path),
            Err(e) => (self.visit)(Err(at(e, path))),
        }
    }

    /// What a scan leaves out and a walk meets, where it is asked for.
    fn metafiles(&mut self, number: u16, fs: &Arc<dyn FileSystem>, path: &[u8]) -> ControlFlow<()> {
        if !self.tree.shows_metafiles() {
            return ControlFlow::Continue(());
        }
        for entry in fs.metafiles() {
            let node = Node {
                volume: number,
                id: entry.node,
            };
            self.one(
                join(path, &names::shown(entry.name.clone())),
                &entry.name,
                node,
                entry.kind,
            )?;
        }
        ControlFlow::Continue(())
    }

    fn one(&mut self, path: Vec<u8>, name: &Name, node: Node, kind: NodeKind) -> ControlFlow<()> {
        match self.tree.metadata(node) {
            Ok(metadata) => {
                if (self.wanted)(name, &metadata) {
                    (self.visit)(Ok(Below {
                        path: path.clone(),
                        node,
                        metadata,
                    }))?;
                }
            }
            Err(e) => (self.visit)(Err(at(e, &path)))?,
        }
        if kind == NodeKind::Directory {
            // A volume's own root is scanned where that is possible.
            self.below(node, &path)?;
        }
        ControlFlow::Continue(())
    }

    fn walk(&mut self, dir: Node, path: &[u8]) -> ControlFlow<()> {
        if let Err(e) = self.entered.enter(self.tree.directory(dir), path) {
            return (self.visit)(Err(at(e, path)));
        }
        let mut entries = Vec::new();
        let mut lost = Vec::new();
        let listed = self.tree.read_dir(dir, &mut |entry| {
            match entry {
                Ok(entry) => entries.push(entry),
                Err(e) => lost.push(e),
            }
            ControlFlow::Continue(())
        });
        let unlisted = listed.is_err() && entries.is_empty();
        let doubts = self.tree.doubts_of_listing(dir);
        for e in lost.into_iter().chain(listed.err()).chain(doubts) {
            (self.visit)(Err(at(e, path)))?;
        }
        for entry in entries {
            let path = join(path, &entry.name);
            self.one(path, &entry.name, entry.node, entry.kind)?;
        }
        match unlisted {
            true => self.entered.leave_unlisted(),
            false => self.entered.leave(),
        }
        ControlFlow::Continue(())
    }
}

/// One volume, by reading its tables.
struct Scan<'a> {
    number: u16,
    fs: &'a Arc<dyn FileSystem>,
    /// Path of the volume's root.
    path: &'a [u8],
    wanted: Wanted<'a>,
    directories: HashMap<u64, Directory>,
    /// Of the directories that have been asked for; `None` where no path leads to the root.
    paths: HashMap<u64, Option<Arc<[u8]>>>,
}

struct Directory {
    sequence: u16,
    parent: NodeId,
    name: Name,
}

impl Scan<'_> {
    /// `None`: the file system cannot be scanned, and nothing was visited.
    fn run(&mut self, visit: VisitBelow<'_>) -> Option<ControlFlow<()>> {
        let mut kept = Some(Vec::new());
        let mut flow = ControlFlow::Continue(());
        let (fs, wanted) = (self.fs, self.wanted);
        let scanned = fs.scan(&mut |found| {
            match found {
                Ok(found) => {
                    let m = found.metadata;
                    if m.kind == NodeKind::Directory
                        && let Some((parent, name)) = found.names.first()
                    {
                        let directory = Directory {
                            sequence: m.node.sequence,
                            parent: *parent,
                            name: names::shown(name.clone()),
                        };
                        self.directories.insert(m.node.record, directory);
                    }
                    for (parent, name) in found.names {
                        if let Some(list) = &mut kept
                            && m.node != fs.root()
                            && wanted(&names::shown(name.clone()), &m)
                        {
                            list.push((parent, name, m.clone()));
                            if list.len() > KEPT {
                                kept = None;
                            }
                        }
                    }
                }
                Err(e) => flow = visit(Err(at(e, self.path))),
            }
            flow
        });
        match scanned {
            Ok(false) => return None,
            Ok(true) => {}
            Err(e) => return Some(visit(Err(at(e, self.path)))),
        }
        if flow.is_break() {
            return Some(flow);
        }
        let mut strays = 0u64;
        match kept {
            Some(list) => {
                for (parent, name, metadata) in list {
                    flow = self.give(parent, name, metadata, &mut strays, visit);
                    if flow.is_break() {
                        return Some(flow);
                    }
                }
            }
            None => {
                // Errors were told the first time.
                let again = fs.scan(&mut |found| {
                    let Ok(found) = found else {
                        return ControlFlow::Continue(());
                    };
                    for (parent, name) in found.names {
                        let metadata = found.metadata.clone();
                        if metadata.node != fs.root()
                            && wanted(&names::shown(name.clone()), &metadata)
                        {
                            flow = self.give(parent, name, metadata, &mut strays, visit);
                            flow?;
                        }
                    }
                    ControlFlow::Continue(())
                });
                if let Err(e) = again {
                    return Some(visit(Err(at(e, self.path))));
                }
            }
        }
        if strays > 0 && flow.is_continue() {
            let e = DiskError::corrupt("finding the directory of every file").found(format!(
                "{strays} files that no directory lists: no path leads to them"
            ));
            flow = visit(Err(at(e, self.path)));
        }
        Some(flow)
    }

    /// Visits an object, if a path leads to it: its record says so, and so does the
    /// directory, which on a volume that was not closed cleanly may not list it.
    fn give(
        &mut self,
        parent: NodeId,
        name: Name,
        metadata: Metadata,
        strays: &mut u64,
        visit: VisitBelow<'_>,
    ) -> ControlFlow<()> {
        let Some(above) = self.directory(parent, 0) else {
            // What lies in the file system's own directories is not part of the tree.
            if !self.is_internal(parent) {
                *strays += 1;
            }
            return ControlFlow::Continue(());
        };
        let path = join(&above, &names::shown(name.clone()));
        match self.fs.lookup(parent, &name) {
            Ok(Some(id)) if id.record == metadata.node.record => {}
            Ok(_) => {
                *strays += 1;
                return ControlFlow::Continue(());
            }
            Err(e) => return visit(Err(at(e, &path))),
        }
        let node = Node {
            volume: self.number,
            id: metadata.node,
        };
        visit(Ok(Below {
            path,
            node,
            metadata,
        }))
    }

    /// The path of a directory; a reference whose sequence number is another's is stale.
    fn directory(&mut self, id: NodeId, depth: usize) -> Option<Arc<[u8]>> {
        if id.record == self.fs.root().record {
            return Some(self.path.into());
        }
        if let Some(known) = self.paths.get(&id.record) {
            return known.clone();
        }
        let directory = self.directories.get(&id.record);
        let path = directory
            .filter(|d| d.sequence == id.sequence && depth < DEEPEST)
            .map(|d| (d.parent, d.name.clone()))
            .and_then(|(parent, name)| {
                let above = self.directory(parent, depth + 1)?;
                Some(Arc::from(join(&above, &name)))
            });
        self.paths.insert(id.record, path.clone());
        path
    }

    fn is_internal(&self, id: NodeId) -> bool {
        let mut at = id;
        for _ in 0..DEEPEST {
            if at.record < METAFILES && at.record != self.fs.root().record {
                return true;
            }
            match self.directories.get(&at.record) {
                Some(d) if d.sequence == at.sequence => at = d.parent,
                _ => return false,
            }
        }
        false
    }
}

fn join(path: &[u8], name: &Name) -> Vec<u8> {
    let mut out = path.to_vec();
    if out.last() != Some(&b'/') {
        out.push(b'/');
    }
    out.extend_from_slice(name.as_bytes());
    out
}

/// The error with its path, where it names no file of its own, or that one already.
fn at(e: DiskError, path: &[u8]) -> DiskError {
    let path = match path {
        b"" => Name::from("/"),
        path => Name::from_bytes(path.to_vec()),
    };
    match e.file_name() {
        None => e.file(path),
        Some(file) if file == path.to_string() => e,
        Some(_) => e.context(path.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_said_once() {
        let e = DiskError::corrupt("entering");
        let own = at(e.clone(), b"/p1");
        assert_eq!(own.to_string(), "/p1: entering");
        assert_eq!(at(own.clone(), b"/p1").to_string(), "/p1: entering");
        assert_eq!(at(own, b"/p2").to_string(), "/p1: /p2: entering");
        assert_eq!(at(e, b"").to_string(), "/: entering");
    }
}
