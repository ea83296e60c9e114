//! The restore tree: names, metadata and contents by node.

use crate::{
    inode, names,
    own::{Own, OwnFile, OwnId, OwnTree},
    source::Source,
    volume::{Volume, VolumeReport},
};
use disk_io::{Disk, DiskError, Result};
use guest_fs::{DirEntry, FileSystem, Link, Metadata, Name, NodeId, NodeKind, Stream};
use std::{ops::ControlFlow, sync::Arc};

/// One object of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// Which volume; 0 for the tree's own entries. The root directory of a volume is an
    /// own entry, so that listing what is above the volumes opens none of them.
    pub volume: u16,
    /// Which object of it.
    pub id: NodeId,
}

/// One name in a directory of the tree.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name, safe for a host directory (see [`crate::names`]).
    pub name: Name,
    /// What it names.
    pub node: Node,
    /// What kind of object, as the directory knows it.
    pub kind: NodeKind,
    /// The 8.3 name beside a long one.
    pub short_name: Option<Name>,
}

/// What the tree shows.
#[derive(Clone, Debug, Default)]
pub struct TreeOptions {
    /// List the metafiles of file systems (`--meta`). They are found by name without it.
    pub meta: bool,
}

/// The restore tree.
#[derive(Debug)]
pub struct Tree {
    pub(crate) own: OwnTree,
    /// Volume number *n* is at *n* - 1.
    pub(crate) volumes: Vec<(Arc<Volume>, OwnId)>,
    source: Option<Arc<Source>>,
    options: TreeOptions,
}

/// Room on a volume, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub size: u64,
    /// In use, if known.
    pub used: Option<u64>,
    /// Allocation unit.
    pub block: u32,
}

/// Where a node is answered.
pub(crate) enum Place<'a> {
    Own(OwnId),
    File(&'a OwnFile),
    Guest(u16, &'a Arc<dyn FileSystem>, NodeId),
}

impl Tree {
    /// The tree of a disk: `/p1`, `/p2` …, or `/p0`; `/lvm/GROUP/VOLUME` and
    /// `/ldm/GROUP/VOLUME` for logical volumes.
    pub fn new(source: Arc<Source>, options: TreeOptions) -> Result<Self> {
        let mut tree = Self::empty(options);
        for volume in source.volumes() {
            tree.add_volume(OwnTree::ROOT, volume.clone())?;
        }
        for logical in source.logical() {
            let root = OwnTree::ROOT;
            let directories = logical.directories.iter();
            let parent = directories.fold(root, |at, name| tree.add_directory(at, name));
            tree.add_volume(parent, logical.volume.clone())?;
        }
        tree.source = Some(source);
        Ok(tree)
    }

    /// The raw layout: `disk.img`, and `p1.img` … for the partitions.
    pub fn raw(source: Arc<Source>) -> Self {
        let mut tree = Self::empty(TreeOptions::default());
        let root = OwnTree::ROOT;
        let disk = Own::file(source.disk().clone());
        tree.own.add(root, &Name::from("disk.img"), disk);
        for volume in source.volumes() {
            if volume.partition().is_some() {
                let mut name = volume.name().as_bytes().to_vec();
                name.extend_from_slice(b".img");
                let part = Own::file(volume.disk().clone());
                tree.own.add(root, &Name::from_bytes(name), part);
            }
        }
        tree.source = Some(source);
        tree
    }

    /// A tree with nothing in it, to be filled with [`Self::add_directory`] and
    /// [`Self::add_volume`].
    pub fn empty(options: TreeOptions) -> Self {
        Self {
            own: OwnTree::default(),
            volumes: Vec::new(),
            source: None,
            options,
        }
    }

    /// The directory `name` of the tree's own below `parent`, made if it is not there.
    pub fn add_directory(&mut self, parent: OwnId, name: &Name) -> OwnId {
        self.own.directory(parent, name)
    }

    /// Puts a volume below `parent`, under its own name.
    pub fn add_volume(&mut self, parent: OwnId, volume: Arc<Volume>) -> Result<u16> {
        let number = u16::try_from(self.volumes.len() + 1).map_err(|_| {
            DiskError::refused("building the tree")
                .expected("at most 65535 volumes")
                .found("more")
        })?;
        let door = self.own.add(parent, volume.name(), Own::Volume(number));
        self.volumes.push((volume, door));
        Ok(number)
    }

    /// What the tree was made of, where it is one disk.
    pub fn source(&self) -> Option<&Arc<Source>> {
        self.source.as_ref()
    }

    /// The root directory.
    pub fn root(&self) -> Node {
        own_node(OwnTree::ROOT)
    }

    /// The inode number of a node: 16 bits of volume, 48 bits of record.
    pub fn inode(&self, node: Node) -> u64 {
        inode::inode(node)
    }

    /// What is known of every volume. Opens their file systems; one that cannot be read
    /// is listed with the reason.
    pub fn volumes(&self) -> Vec<VolumeReport> {
        self.volumes
            .iter()
            .map(|(volume, door)| VolumeReport::of(volume, self.own.path(*door), None))
            .collect()
    }

    /// The volume that a node is, or lies in.
    pub fn volume_of(&self, node: Node) -> Option<&Arc<Volume>> {
        let number = match node.volume {
            0 => match self.own.get(own_id(node)?)? {
                Own::Volume(number) => *number,
                _ => return None,
            },
            number => number,
        };
        self.volume(number).map(|(volume, _)| volume)
    }

    /// The root directory of the volume that carries a drive letter. Letters come from a
    /// guest's registry; this is the one place where they are looked up.
    pub fn letter(&self, _letter: u8) -> Option<Node> {
        None
    }

    fn volume(&self, number: u16) -> Option<&(Arc<Volume>, OwnId)> {
        self.volumes.get(usize::from(number).checked_sub(1)?)
    }

    /// The file system of volume `number`; `None` if there is no such volume. The error
    /// names the volume by its path, besides the host's file if that is at fault.
    fn file_system(&self, number: u16) -> Result<Option<&Arc<dyn FileSystem>>> {
        let Some((volume, door)) = self.volume(number) else {
            return Ok(None);
        };
        volume.file_system().map(Some).map_err(|e| {
            let path = self.own.path(*door);
            match e.file_name() {
                None => e.file(path),
                Some(_) => e.context(path),
            }
        })
    }

    pub(crate) fn place(&self, node: Node) -> Result<Place<'_>> {
        let gone = || {
            DiskError::not_found("looking up a file by number")
                .found(format!("no file {:#x} in the tree", inode::inode(node)))
        };
        if node.volume == 0 {
            let id = own_id(node).ok_or_else(gone)?;
            return match self.own.get(id).ok_or_else(gone)? {
                Own::Directory => Ok(Place::Own(id)),
                Own::File(file) => Ok(Place::File(file)),
                Own::Volume(number) => {
                    let fs = self.file_system(*number)?.ok_or_else(gone)?;
                    Ok(Place::Guest(*number, fs, fs.root()))
                }
            };
        }
        let fs = self.file_system(node.volume)?.ok_or_else(gone)?;
        Ok(Place::Guest(node.volume, fs, node.id))
    }

    /// The file system that answers for a node, and the node's name in it; `None` for the
    /// tree's own entries. A volume's root directory is the file system's.
    pub fn guest(&self, node: Node) -> Result<Option<(&Arc<dyn FileSystem>, NodeId)>> {
        Ok(match self.place(node)? {
            Place::Guest(_, fs, id) => Some((fs, id)),
            _ => None,
        })
    }

    /// The node of an object of volume `number`: its root directory is the tree's own.
    fn node(&self, number: u16, fs: &Arc<dyn FileSystem>, id: NodeId) -> Result<Node> {
        if id == fs.root()
            && let Some((_, door)) = self.volume(number)
        {
            return Ok(own_node(*door));
        }
        if id.record > inode::MAX_RECORD {
            return Err(DiskError::corrupt("looking up a file")
                .expected("a record number of at most 48 bits")
                .found(format!("{:#x}", id.record)));
        }
        Ok(Node { volume: number, id })
    }

    /// Finds a name in a directory: exactly first, then, where the guest's file system
    /// folds case, folded. Metafiles are found too. `Ok(None)` if there is no such name.
    pub fn lookup(&self, dir: Node, name: &Name) -> Result<Option<Node>> {
        match self.place(dir)? {
            Place::Own(id) => Ok(self.own.child(id, name).map(own_node)),
            Place::File(_) => Ok(None),
            Place::Guest(number, fs, id) => {
                if matches!(name.as_bytes(), b"" | b"." | b"..") {
                    return Ok(None);
                }
                let mut found = fs.lookup(id, name)?;
                if found.is_none()
                    && let Some(stored) = names::stored(name)
                {
                    found = fs.lookup(id, &stored)?;
                }
                if found.is_none() && id == fs.root() {
                    found = fs
                        .metafiles()
                        .into_iter()
                        .find(|m| m.name == *name)
                        .map(|m| m.node);
                }
                found.map(|id| self.node(number, fs, id)).transpose()
            }
        }
    }

    /// Visits every entry of a directory. An unreadable part is visited as an error and
    /// the rest goes on; the call itself fails only if nothing can be listed at all.
    pub fn read_dir(
        &self,
        dir: Node,
        visit: &mut dyn FnMut(Result<Entry>) -> ControlFlow<()>,
    ) -> Result<()> {
        match self.place(dir)? {
            Place::Own(id) => {
                for (child, name) in self.own.children(id) {
                    let kind = match self.own.get(child) {
                        Some(Own::File(_)) => NodeKind::File,
                        _ => NodeKind::Directory,
                    };
                    let entry = Entry {
                        name: name.clone(),
                        node: own_node(child),
                        kind,
                        short_name: None,
                    };
                    if visit(Ok(entry)).is_break() {
                        break;
                    }
                }
                Ok(())
            }
            Place::File(_) => Err(not_a_directory()),
            Place::Guest(number, fs, id) => {
                let mut pass = |entry: Result<DirEntry>| {
                    visit(entry.and_then(|e| {
                        Ok(Entry {
                            node: self.node(number, fs, e.node)?,
                            name: names::shown(e.name),
                            kind: e.kind,
                            short_name: e.short_name,
                        })
                    }))
                };
                if self.options.meta && id == fs.root() {
                    for meta in fs.metafiles() {
                        if pass(Ok(meta)).is_break() {
                            return Ok(());
                        }
                    }
                }
                fs.read_dir(id, &mut pass)
            }
        }
    }

    /// What is known of a node. A volume that cannot be entered still is a directory, with
    /// the reason as its refusal.
    pub fn metadata(&self, node: Node) -> Result<Metadata> {
        match self.place(node) {
            Ok(Place::Own(_)) => Ok(own_metadata(node, NodeKind::Directory, 0, 0)),
            Ok(Place::File(file)) => {
                let (size, allocated) = (file.disk.len(), file.allocated());
                Ok(own_metadata(node, NodeKind::File, size, allocated))
            }
            Ok(Place::Guest(_, fs, id)) => fs.metadata(id),
            Err(e)
                if node.volume == 0 && own_id(node).is_some_and(|i| self.own.get(i).is_some()) =>
            {
                let mut metadata = own_metadata(node, NodeKind::Directory, 0, 0);
                metadata.refusal = Some(e);
                Ok(metadata)
            }
            Err(e) => Err(e),
        }
    }

    /// The contents: of the unnamed stream, or of a named one.
    pub fn open(&self, node: Node, stream: Option<&Name>) -> Result<Arc<dyn Disk>> {
        match (self.place(node)?, stream) {
            (Place::File(file), None) => Ok(file.disk.clone()),
            (Place::Guest(_, fs, id), stream) => fs.open(id, stream),
            (Place::Own(_), None) => Err(DiskError::unsupported("reading").found("a directory")),
            (_, Some(stream)) => Err(DiskError::not_found(format!(
                "opening the stream '{stream}'"
            ))),
        }
    }

    /// Where a link leads.
    pub fn read_link(&self, node: Node) -> Result<Link> {
        match self.place(node)? {
            Place::Guest(_, fs, id) => fs.read_link(id),
            _ => Err(DiskError::unsupported("reading a link").found("no link")),
        }
    }

    /// Named streams of a node.
    pub fn streams(&self, node: Node) -> Result<Vec<Stream>> {
        match self.place(node)? {
            Place::Guest(_, fs, id) => fs.streams(id),
            _ => Ok(Vec::new()),
        }
    }

    /// Every name of a node as (directory, name); empty where the file system cannot tell.
    pub fn names(&self, node: Node) -> Result<Vec<(Node, Name)>> {
        match self.place(node)? {
            Place::Guest(number, fs, id) if node.volume != 0 => fs
                .names(id)?
                .into_iter()
                .map(|(dir, name)| Ok((self.node(number, fs, dir)?, names::shown(name))))
                .collect(),
            _ => Ok(Vec::new()),
        }
    }

    /// A directory that holds the node; the root's is the root. `None` where the file
    /// system cannot tell.
    pub fn parent(&self, node: Node) -> Option<Node> {
        match own_id(node) {
            Some(id) => Some(own_node(self.own.parent(id))),
            None => Some(self.names(node).ok()?.first()?.0),
        }
    }

    /// Checks that a directory can be listed: its volume can be read.
    pub fn enter(&self, dir: Node) -> Result<()> {
        self.place(dir).map(|_| ())
    }

    /// Size and use of the volume that a node lies in; above the volumes, of the disk.
    pub fn space(&self, node: Node) -> Space {
        let of_disk = |len| Space {
            size: len,
            used: None,
            block: 4096,
        };
        match (self.place(node), self.volume_of(node)) {
            (Ok(Place::Guest(_, fs, _)), _) => {
                let info = fs.info();
                Space {
                    size: info.size,
                    used: info.used,
                    block: info.cluster_size,
                }
            }
            (_, Some(volume)) => of_disk(volume.disk().len()),
            _ => of_disk(self.source.as_ref().map_or(0, |s| s.disk().len())),
        }
    }

    /// A path that leads to the node, for messages. Where the file system cannot tell
    /// names, the record is named instead.
    pub fn path_of(&self, node: Node) -> Name {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut at = node;
        // A damaged volume may have a loop of parents.
        while at.volume != 0 && parts.len() < 512 {
            match self.names(at).ok().and_then(|n| n.into_iter().next()) {
                Some((dir, name)) => {
                    parts.push(name.as_bytes().to_vec());
                    at = dir;
                }
                None => {
                    parts.push(format!("(record {})", at.id.record).into_bytes());
                    at = self
                        .volume(at.volume)
                        .map_or_else(|| self.root(), |(_, door)| own_node(*door));
                }
            }
        }
        let mut path = own_id(at)
            .map_or_else(|| Name::from("/"), |id| self.own.path(id))
            .as_bytes()
            .to_vec();
        for part in parts.iter().rev() {
            if path.last() != Some(&b'/') {
                path.push(b'/');
            }
            path.extend_from_slice(part);
        }
        Name::from_bytes(path)
    }
}

pub(crate) fn own_node(id: OwnId) -> Node {
    Node {
        volume: 0,
        id: NodeId::plain(u64::from(id)),
    }
}

pub(crate) fn own_id(node: Node) -> Option<OwnId> {
    (node.volume == 0)
        .then(|| OwnId::try_from(node.id.record).ok())
        .flatten()
}

fn own_metadata(node: Node, kind: NodeKind, size: u64, allocated: u64) -> Metadata {
    Metadata {
        node: node.id,
        kind,
        size,
        allocated,
        links: 1,
        created: None,
        modified: None,
        accessed: None,
        changed: None,
        attributes: None,
        mode: None,
        owner: None,
        reparse_tag: None,
        refusal: None,
        remarks: Vec::new(),
    }
}

pub(crate) fn not_a_directory() -> DiskError {
    DiskError::new(disk_io::ErrorKind::NotFound, "listing").found("no directory")
}
