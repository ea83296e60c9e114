//! Files and directories in memory.

use super::op::Op;
use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

/// Number of a file or directory. It stays with it through every crash.
pub type Ino = u64;

/// The top directory.
pub const ROOT: Ino = 1;

/// An error as the kernel numbers it.
pub type Code = i32;

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file with its bytes.
    File(Arc<Vec<u8>>),
    /// A directory with its names.
    Dir(BTreeMap<OsString, Ino>),
    /// A symbolic link.
    Link(PathBuf),
}

/// A file, directory or link.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// When its bytes changed last.
    pub modified: SystemTime,
    /// When anything of it changed last.
    pub changed: SystemTime,
}

/// All files at one moment.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: HashMap<Ino, Node>,
}

impl Default for Tree {
    fn default() -> Self {
        let now = SystemTime::now();
        let root = Node {
            kind: Kind::Dir(BTreeMap::new()),
            mode: 0o755,
            owner: (0, 0),
            modified: now,
            changed: now,
        };
        Self {
            nodes: HashMap::from([(ROOT, root)]),
        }
    }
}

impl Tree {
    /// What has a number.
    pub fn node(&self, ino: Ino) -> Result<&Node, Code> {
        self.nodes.get(&ino).ok_or(libc::ESTALE)
    }

    pub(super) fn node_mut(&mut self, ino: Ino) -> Result<&mut Node, Code> {
        self.nodes.get_mut(&ino).ok_or(libc::ESTALE)
    }

    /// The names of a directory.
    pub fn names(&self, dir: Ino) -> Result<&BTreeMap<OsString, Ino>, Code> {
        match &self.node(dir)?.kind {
            Kind::Dir(names) => Ok(names),
            _ => Err(libc::ENOTDIR),
        }
    }

    fn names_mut(&mut self, dir: Ino) -> Result<&mut BTreeMap<OsString, Ino>, Code> {
        match &mut self.node_mut(dir)?.kind {
            Kind::Dir(names) => Ok(names),
            _ => Err(libc::ENOTDIR),
        }
    }

    /// What a name in a directory leads to.
    pub fn lookup(&self, dir: Ino, name: &OsStr) -> Result<Ino, Code> {
        self.names(dir)?.get(name).copied().ok_or(libc::ENOENT)
    }

    /// How many names it has.
    pub fn links(&self, ino: Ino) -> u32 {
        let dirs = self.nodes.values().filter_map(|node| match &node.kind {
            Kind::Dir(names) => Some(names),
            _ => None,
        });
        let names = dirs.flat_map(|names| names.values());
        u32::try_from(names.filter(|n| **n == ino).count()).unwrap_or(u32::MAX)
    }

    /// Everything that has a name, by its path.
    pub fn files(&self) -> BTreeMap<String, Kind> {
        let mut all = BTreeMap::new();
        let mut todo = vec![(String::new(), ROOT)];
        while let Some((path, dir)) = todo.pop() {
            for (name, ino) in self.names(dir).into_iter().flatten() {
                let path = format!("{path}{}", name.to_string_lossy());
                let Ok(node) = self.node(*ino) else { continue };
                let kind = match &node.kind {
                    Kind::Dir(_) => {
                        todo.push((format!("{path}/"), *ino));
                        Kind::Dir(BTreeMap::new())
                    }
                    other => other.clone(),
                };
                all.insert(path, kind);
            }
        }
        all
    }

    /// A path of what has a number, for people.
    pub fn path_of(&self, ino: Ino) -> String {
        for (dir, node) in &self.nodes {
            let Kind::Dir(names) = &node.kind else {
                continue;
            };
            if let Some((name, _)) = names.iter().find(|(_, n)| **n == ino) {
                let name = name.to_string_lossy();
                return match *dir {
                    ROOT => name.into_owned(),
                    dir => format!("{}/{name}", self.path_of(dir)),
                };
            }
        }
        match ino {
            ROOT => "/".to_owned(),
            _ => format!("#{ino}"),
        }
    }

    /// What an operation is, for people.
    pub fn say(&self, op: &Op) -> String {
        let at = |dir: &Ino, name: &OsString| match *dir {
            ROOT => name.to_string_lossy().into_owned(),
            dir => format!("{}/{}", self.path_of(dir), name.to_string_lossy()),
        };
        match op {
            Op::Make { dir, name, .. } => format!("make {}", at(dir, name)),
            Op::Link { dir, name, .. } => format!("link {}", at(dir, name)),
            Op::Remove { dir, name } => format!("remove {}", at(dir, name)),
            Op::Rename { from, to } => {
                format!("rename {} to {}", at(&from.0, &from.1), at(&to.0, &to.1))
            }
            Op::Exchange { one, other } => {
                let (one, other) = (at(&one.0, &one.1), at(&other.0, &other.1));
                format!("exchange {one} and {other}")
            }
            Op::Write { ino, at, bytes } => {
                format!("write {} at {at}, {}", self.path_of(*ino), bytes.len())
            }
            Op::Truncate { ino, len } => format!("truncate {} to {len}", self.path_of(*ino)),
            Op::Attributes { ino, .. } => format!("attributes {}", self.path_of(*ino)),
            Op::Sync { ino, .. } => format!("sync {}", self.path_of(*ino)),
            Op::SyncDir { dir } => format!("sync directory {}", self.path_of(*dir)),
        }
    }

    /// Does it.
    pub fn apply(&mut self, op: &Op, now: SystemTime) -> Result<(), Code> {
        match op {
            Op::Make { dir, name, ino, .. } => {
                if self.names(*dir)?.contains_key(name) {
                    return Err(libc::EEXIST);
                }
                self.appear(op, now);
                self.names_mut(*dir)?.insert(name.clone(), *ino);
            }
            Op::Link { dir, name, ino } => {
                if self.names(*dir)?.contains_key(name) {
                    return Err(libc::EEXIST);
                }
                self.names_mut(*dir)?.insert(name.clone(), *ino);
                self.node_mut(*ino)?.changed = now;
            }
            Op::Remove { dir, name } => {
                let ino = self.lookup(*dir, name)?;
                if self.names(ino).is_ok_and(|names| !names.is_empty()) {
                    return Err(libc::ENOTEMPTY);
                }
                self.names_mut(*dir)?.remove(name);
            }
            Op::Rename { from, to } => {
                let ino = self.lookup(from.0, &from.1)?;
                if let Ok(there) = self.lookup(to.0, &to.1) {
                    if there == ino {
                        return Ok(());
                    }
                    if self.names(there).is_ok_and(|names| !names.is_empty()) {
                        return Err(libc::ENOTEMPTY);
                    }
                }
                self.names_mut(from.0)?.remove(&from.1);
                self.names_mut(to.0)?.insert(to.1.clone(), ino);
                self.node_mut(ino)?.changed = now;
            }
            Op::Exchange { one, other } => {
                let (first, second) =
                    (self.lookup(one.0, &one.1)?, self.lookup(other.0, &other.1)?);
                self.names_mut(one.0)?.insert(one.1.clone(), second);
                self.names_mut(other.0)?.insert(other.1.clone(), first);
            }
            Op::Write { ino, at, bytes } => self.put(*ino, *at, bytes, now)?,
            Op::Truncate { ino, len } => {
                let len = usize::try_from(*len).map_err(|_| libc::EFBIG)?;
                self.change(*ino, now, |file| file.resize(len, 0))?;
            }
            Op::Attributes {
                ino,
                mode,
                uid,
                gid,
                modified,
            } => {
                let node = self.node_mut(*ino)?;
                node.mode = mode.unwrap_or(node.mode);
                node.owner = (uid.unwrap_or(node.owner.0), gid.unwrap_or(node.owner.1));
                node.modified = modified.unwrap_or(node.modified);
                node.changed = now;
            }
            Op::Sync { .. } | Op::SyncDir { .. } => {}
        }
        Ok(())
    }

    /// What is made is there, with no name yet.
    pub(super) fn appear(&mut self, op: &Op, now: SystemTime) {
        if let Op::Make {
            ino,
            kind,
            mode,
            owner,
            ..
        } = op
        {
            let node = Node {
                kind: kind.clone(),
                mode: *mode,
                owner: *owner,
                modified: now,
                changed: now,
            };
            self.nodes.insert(*ino, node);
        }
    }

    /// Bytes into a file, which grows where they end behind it.
    pub(super) fn put(
        &mut self,
        ino: Ino,
        at: u64,
        bytes: &[u8],
        now: SystemTime,
    ) -> Result<(), Code> {
        let at = usize::try_from(at).map_err(|_| libc::EFBIG)?;
        self.change(ino, now, |file| {
            let end = at + bytes.len();
            if file.len() < end {
                file.resize(end, 0);
            }
            file[at..end].copy_from_slice(bytes);
        })
    }

    fn change(
        &mut self,
        ino: Ino,
        now: SystemTime,
        how: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Code> {
        let node = self.node_mut(ino)?;
        let Kind::File(bytes) = &mut node.kind else {
            return Err(libc::EISDIR);
        };
        how(Arc::make_mut(bytes));
        (node.modified, node.changed) = (now, now);
        Ok(())
    }
}
