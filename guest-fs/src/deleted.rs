//! Deleted files as a tree of their own: `$deleted` in the root directory, with the
//! directories that they were in.
//!
//! [`WithDeleted`] wraps a file system that can tell what was deleted
//! ([`FileSystem::deleted`]). The tree is made when it is first looked at, from one pass.
//! What was in a directory that is gone lies below that directory's name, and where not
//! even that is known below `$orphans`. Names that come twice get ` (2)`, ` (3)` …

use crate::{
    Change, DirEntry, Extent, FileSystem, Found, Link, Metadata, Name, NodeId, NodeKind, Security,
    Stream, Visit, VolumeInfo, fs::DELETED,
};
use disk_io::{Disk, DiskError, Result};
use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    sync::{Arc, OnceLock},
};

/// Name of the directory.
pub const NAME: &str = "$deleted";
const ORPHANS: &str = "$orphans";
/// Set in the number of a node that is a directory of this tree. File systems use the bit
/// above it for deleted files, and never this one.
const OURS: u64 = 0b11 << 46;
/// Deleted files that are shown; memory must not grow with what a volume went through.
const MOST: usize = 2_000_000;
/// Directories in each other that are followed up.
const DEEPEST: usize = 512;

/// A file system with its deleted files beside the others.
#[derive(Debug)]
pub struct WithDeleted {
    inner: Arc<dyn FileSystem>,
    tree: OnceLock<Result<Tree>>,
}

#[derive(Debug, Default)]
struct Tree {
    directories: Vec<Directory>,
    /// Where a deleted file is: directory and name.
    places: HashMap<NodeId, (usize, Name)>,
    /// Why some are not shown.
    lost: Option<DiskError>,
}

#[derive(Debug)]
struct Directory {
    above: usize,
    name: Name,
    /// The directory of the file system that it stands for, deleted or not.
    like: Option<NodeId>,
    entries: Vec<DirEntry>,
    names: HashMap<Name, u32>,
}

impl Tree {
    fn directory(&mut self, above: usize, name: Name, like: Option<NodeId>) -> usize {
        let index = self.directories.len();
        let name = match index {
            0 => name,
            _ => self.entry(above, name, ours(index), NodeKind::Directory),
        };
        self.directories.push(Directory {
            above,
            name,
            like,
            entries: Vec::new(),
            names: HashMap::new(),
        });
        index
    }

    /// Adds an entry; the name it got.
    fn entry(&mut self, dir: usize, name: Name, node: NodeId, kind: NodeKind) -> Name {
        let Some(directory) = self.directories.get_mut(dir) else {
            return name;
        };
        let mut given = name.clone();
        while directory.names.contains_key(&given) {
            let n = directory.names.entry(name.clone()).or_insert(1);
            *n = n.saturating_add(1);
            let mut bytes = name.as_bytes().to_vec();
            bytes.extend_from_slice(format!(" ({n})").as_bytes());
            given = Name::from_bytes(bytes);
        }
        directory.names.insert(given.clone(), 1);
        directory.entries.push(DirEntry {
            name: given.clone(),
            node,
            kind,
            short_name: None,
        });
        given
    }
}

fn ours(index: usize) -> NodeId {
    NodeId::plain(OURS | index as u64)
}

fn index(node: NodeId) -> Option<usize> {
    (node.record & OURS == OURS)
        .then(|| usize::try_from(node.record & !OURS).ok())
        .flatten()
}

/// Puts the tree together.
struct Builder<'a> {
    fs: &'a dyn FileSystem,
    tree: Tree,
    /// Deleted directories by record: their sequence number, and what is known of them.
    gone: HashMap<u64, (u16, NodeId, NodeId, Name)>,
    /// Directories of the tree by what they stand for.
    made: HashMap<NodeId, usize>,
    /// Parents and names of living directories, where the file system cannot tell them.
    walked: Option<HashMap<NodeId, (NodeId, Name)>>,
    orphans: Option<usize>,
}

impl Builder<'_> {
    fn build(mut self) -> Result<Tree> {
        self.tree.directory(0, Name::from(NAME), None);
        self.made.insert(self.fs.root(), 0);
        let mut found: Vec<Found> = Vec::new();
        let lost = &mut self.tree.lost;
        self.fs.deleted(&mut |one| {
            match one {
                Ok(one) if found.len() < MOST => found.push(one),
                Ok(_) => {
                    let e = DiskError::refused("listing deleted files")
                        .expected(format!("at most {MOST}"))
                        .found("more");
                    lost.get_or_insert(e);
                    return ControlFlow::Break(());
                }
                Err(e) => {
                    lost.get_or_insert(e);
                }
            }
            ControlFlow::Continue(())
        })?;
        for one in &found {
            let node = one.metadata.node;
            if one.metadata.kind == NodeKind::Directory
                && let Some((parent, name)) = one.names.first()
            {
                let record = node.record & !DELETED;
                let known = (node.sequence, node, *parent, name.clone());
                self.gone.insert(record, known);
            }
        }
        for one in found {
            if one.metadata.kind == NodeKind::Directory && !one.names.is_empty() {
                self.deleted_directory(one.metadata.node, 0);
                continue;
            }
            let node = one.metadata.node;
            if one.names.is_empty() {
                let dir = self.orphans();
                let name = Name::from(format!("record {}", node.record & !DELETED).as_str());
                self.place(dir, name, node, one.metadata.kind);
            }
            for (parent, name) in one.names {
                let dir = self.parent(parent, 0);
                self.place(dir, name, node, one.metadata.kind);
            }
        }
        Ok(self.tree)
    }

    fn place(&mut self, dir: usize, name: Name, node: NodeId, kind: NodeKind) {
        let name = self.tree.entry(dir, name, node, kind);
        self.tree.places.insert(node, (dir, name));
    }

    fn orphans(&mut self) -> usize {
        match self.orphans {
            Some(index) => index,
            None => {
                let index = self.tree.directory(0, Name::from(ORPHANS), None);
                *self.orphans.insert(index)
            }
        }
    }

    /// Where what was in directory `id` belongs.
    fn parent(&mut self, id: NodeId, depth: usize) -> usize {
        if let Some(index) = self.made.get(&id) {
            return *index;
        }
        if depth > DEEPEST {
            return self.orphans();
        }
        // NTFS counts the sequence number up when it gives a record free.
        if let Some((sequence, node, ..)) = self.gone.get(&id.record)
            && (*sequence == id.sequence || *sequence == id.sequence.wrapping_add(1))
        {
            let node = *node;
            return self.deleted_directory(node, depth);
        }
        match self.living(id) {
            Some((above, name)) => {
                let above = self.parent(above, depth.saturating_add(1));
                let index = self.tree.directory(above, name, Some(id));
                self.made.insert(id, index);
                index
            }
            None => self.orphans(),
        }
    }

    fn deleted_directory(&mut self, node: NodeId, depth: usize) -> usize {
        if let Some(index) = self.made.get(&node) {
            return *index;
        }
        let known = self.gone.get(&(node.record & !DELETED)).cloned();
        let Some((_, _, parent, name)) = known.filter(|_| depth < DEEPEST) else {
            return self.orphans();
        };
        // Against directories that were in each other: what is asked for meanwhile is on top.
        self.made.insert(node, 0);
        let above = self.parent(parent, depth.saturating_add(1));
        let index = self.tree.directory(above, name, Some(node));
        self.made.insert(node, index);
        index
    }

    /// Directory and name of a directory that is still there.
    fn living(&mut self, id: NodeId) -> Option<(NodeId, Name)> {
        let metadata = self.fs.metadata(id).ok()?;
        if metadata.kind != NodeKind::Directory {
            return None;
        }
        if let Some(first) = self.fs.names(id).ok()?.into_iter().next() {
            return Some(first);
        }
        let fs = self.fs;
        self.walked
            .get_or_insert_with(|| walk(fs))
            .get(&id)
            .cloned()
    }
}

/// Every directory that can be reached: where it is.
fn walk(fs: &dyn FileSystem) -> HashMap<NodeId, (NodeId, Name)> {
    let mut all = HashMap::new();
    let mut seen = HashSet::new();
    let mut rest = vec![fs.root()];
    while let Some(dir) = rest.pop() {
        if !seen.insert(dir) {
            continue;
        }
        let _ = fs.read_dir(dir, &mut |entry| {
            if let Ok(entry) = entry
                && entry.kind == NodeKind::Directory
            {
                all.entry(entry.node).or_insert((dir, entry.name));
                rest.push(entry.node);
            }
            ControlFlow::Continue(())
        });
    }
    all
}

impl WithDeleted {
    /// Around `inner`. Nothing is read yet.
    pub fn new(inner: Arc<dyn FileSystem>) -> Self {
        Self {
            inner,
            tree: OnceLock::new(),
        }
    }

    fn tree(&self) -> Result<&Tree> {
        let build = || {
            let builder = Builder {
                fs: &*self.inner,
                tree: Tree::default(),
                gone: HashMap::new(),
                made: HashMap::new(),
                walked: None,
                orphans: None,
            };
            builder.build()
        };
        self.tree.get_or_init(build).as_ref().map_err(Clone::clone)
    }

    fn directory(&self, at: usize) -> Result<&Directory> {
        self.tree()?.directories.get(at).ok_or_else(|| {
            DiskError::not_found("looking up a directory of deleted files")
                .found(format!("no number {at}"))
        })
    }
}

impl FileSystem for WithDeleted {
    fn info(&self) -> VolumeInfo {
        self.inner.info()
    }

    fn root(&self) -> NodeId {
        self.inner.root()
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<Option<NodeId>> {
        let Some(at) = index(dir) else {
            if dir == self.root() && name.as_bytes() == NAME.as_bytes() {
                return Ok(Some(ours(0)));
            }
            return self.inner.lookup(dir, name);
        };
        let entries = &self.directory(at)?.entries;
        let exact = entries.iter().find(|e| e.name == *name);
        let folded = || {
            let mut all = entries.iter();
            all.find(|e| e.name.as_bytes().eq_ignore_ascii_case(name.as_bytes()))
        };
        Ok(exact.or_else(folded).map(|e| e.node))
    }

    fn read_dir(&self, dir: NodeId, visit: Visit<'_>) -> Result<()> {
        let Some(at) = index(dir) else {
            return self.inner.read_dir(dir, visit);
        };
        for entry in &self.directory(at)?.entries {
            if visit(Ok(entry.clone())).is_break() {
                return Ok(());
            }
        }
        if at == 0
            && let Some(e) = &self.tree()?.lost
        {
            let _ = visit(Err(e.clone()));
        }
        Ok(())
    }

    fn directory(&self, node: NodeId) -> u64 {
        match index(node) {
            Some(_) => node.record,
            None => self.inner.directory(node),
        }
    }

    fn doubts(&self, node: NodeId) -> Vec<String> {
        match index(node) {
            Some(_) => Vec::new(),
            None => self.inner.doubts(node),
        }
    }

    fn misnamed(&self, node: NodeId, dir: NodeId, name: &Name) -> Option<String> {
        // The names in this tree are its own.
        match (index(node), index(dir)) {
            (None, None) => self.inner.misnamed(node, dir, name),
            _ => None,
        }
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let Some(at) = index(node) else {
            return self.inner.metadata(node);
        };
        // Nothing is read to say that there is a directory.
        let like = match at {
            0 => None,
            at => self.directory(at)?.like,
        };
        let mut metadata = self.inner.metadata(like.unwrap_or(self.root()))?;
        if like.is_none() {
            (metadata.created, metadata.modified) = (None, None);
            (metadata.accessed, metadata.changed) = (None, None);
        }
        metadata.node = node;
        metadata.kind = NodeKind::Directory;
        metadata.links = 1;
        metadata.refusal = None;
        Ok(metadata)
    }

    fn open(&self, node: NodeId, stream: Option<&Name>) -> Result<Arc<dyn Disk>> {
        match index(node) {
            None => self.inner.open(node, stream),
            Some(_) => Err(DiskError::unsupported("reading").found("a directory")),
        }
    }

    fn streams(&self, node: NodeId) -> Result<Vec<Stream>> {
        index(node).map_or_else(|| self.inner.streams(node), |_| Ok(Vec::new()))
    }

    fn read_link(&self, node: NodeId) -> Result<Link> {
        self.inner.read_link(node)
    }

    fn names(&self, node: NodeId) -> Result<Vec<(NodeId, Name)>> {
        if let Some(at) = index(node) {
            let directory = self.directory(at)?;
            let above = match at {
                0 => self.root(),
                _ => ours(directory.above),
            };
            return Ok(vec![(above, directory.name.clone())]);
        }
        // Only nodes of deleted files can be in the tree, and only once it was made.
        if node.record & DELETED != 0
            && let Some((dir, name)) = self.tree()?.places.get(&node)
        {
            return Ok(vec![(ours(*dir), name.clone())]);
        }
        self.inner.names(node)
    }

    fn metafiles(&self) -> Vec<DirEntry> {
        let mut all = self.inner.metafiles();
        all.push(DirEntry {
            name: Name::from(NAME),
            node: ours(0),
            kind: NodeKind::Directory,
            short_name: None,
        });
        all
    }

    fn extents(&self, node: NodeId, stream: Option<&Name>) -> Result<Vec<Extent>> {
        index(node).map_or_else(|| self.inner.extents(node, stream), |_| Ok(Vec::new()))
    }

    fn security(&self, node: NodeId) -> Result<Option<Security>> {
        index(node).map_or_else(|| self.inner.security(node), |_| Ok(None))
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<(Name, Vec<u8>)>> {
        index(node).map_or_else(|| self.inner.xattrs(node), |_| Ok(Vec::new()))
    }

    fn object_id(&self, node: NodeId) -> Result<Option<[u8; 16]>> {
        index(node).map_or_else(|| self.inner.object_id(node), |_| Ok(None))
    }

    fn reparse(&self, node: NodeId) -> Result<Option<Vec<u8>>> {
        index(node).map_or_else(|| self.inner.reparse(node), |_| Ok(None))
    }

    fn changes(&self, visit: &mut dyn FnMut(Result<Change>) -> ControlFlow<()>) -> Result<bool> {
        self.inner.changes(visit)
    }

    fn scan(&self, visit: &mut dyn FnMut(Result<Found>) -> ControlFlow<()>) -> Result<bool> {
        self.inner.scan(visit)
    }

    fn free(&self, visit: crate::free::Visit<'_>) -> Result<bool> {
        self.inner.free(visit)
    }

    fn structure(&self, node: NodeId) -> Result<Vec<Extent>> {
        index(node).map_or_else(|| self.inner.structure(node), |_| Ok(Vec::new()))
    }

    fn check(&self, visit: disk_io::finding::Visit<'_>) -> Result<bool> {
        self.inner.check(visit)
    }

    fn deleted(&self, visit: &mut dyn FnMut(Result<Found>) -> ControlFlow<()>) -> Result<bool> {
        self.inner.deleted(visit)
    }
}
