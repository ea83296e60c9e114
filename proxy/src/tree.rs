//! The restore tree: what it is made of, and where a node is answered.
//!
//! | module | holds |
//! |---|---|
//! | `build` | how it comes about: from a disk, a machine, dated backups, a package |
//! | `nodes` | what can be asked of a node: names, metadata, contents |

mod build;
mod nodes;

use crate::{
    inode,
    letters::{Letters, MountPoints},
    own::{Own, OwnFile, OwnId, OwnTree},
    source::Source,
    volume::{Volume, VolumeReport},
};
use disk_io::{DiskError, Result};
use guest_fs::{FileSystem, Name, NodeId, NodeKind};
use inventory::Slot;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
};

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
    /// Show the machines that SOURCE holds too, below `/guests`: of a datastore, or of a
    /// directory with many of them.
    pub guests: bool,
    /// Told what should be known of a disk that is opened later, with its path.
    pub warn: Option<Warn>,
}

/// Where warnings go.
#[derive(Clone)]
pub struct Warn(pub Arc<dyn Fn(&str) + Send + Sync>);

impl std::fmt::Debug for Warn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Warn")
    }
}

/// The restore tree.
#[derive(Debug)]
pub struct Tree {
    pub(crate) own: OwnTree,
    /// Volume number *n* is at *n* - 1.
    pub(crate) volumes: boxcar::Vec<(Arc<Volume>, OwnId)>,
    source: Option<Arc<Source>>,
    options: TreeOptions,
    /// The directory of the disks that a path without one means.
    pub(crate) current: Option<OwnId>,
    /// Files of the host that the tree is made of, where it is no single disk.
    files: Vec<PathBuf>,
    warnings: Vec<String>,
    /// Held while volumes are added.
    growing: Mutex<()>,
    /// What the registry says of volumes that lie in no restore point.
    pub(crate) letters: OnceLock<Letters>,
    /// Directories that are restore points, each with what its own registry says.
    pub(crate) points: boxcar::Vec<(OwnId, OnceLock<Letters>)>,
    pub(crate) mount_points: MountPoints,
    /// What is doubtful about directories that names were looked up in.
    pub(crate) dir_doubts: Mutex<HashMap<Node, Vec<String>>>,
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
    /// What the user should be told before anything else, one sentence each.
    pub fn warnings(&self) -> &[String] {
        match &self.source {
            Some(source) => source.warnings(),
            None => &self.warnings,
        }
    }

    /// Files of the host that the tree is made of, where it is no single disk.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    pub(crate) fn options(&self) -> &TreeOptions {
        &self.options
    }

    pub(crate) fn warn_more(&mut self, warnings: &[String]) {
        self.warnings.extend_from_slice(warnings);
    }

    /// Whether metafiles are listed.
    pub fn shows_metafiles(&self) -> bool {
        self.options.meta
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
            .map(|(_, (volume, door))| {
                VolumeReport::of(volume, self.own.path(*door), self.letter_of(*door))
            })
            .collect()
    }

    /// The volumes of a disk, where `node` is the directory that has them as its entries:
    /// the root, or a disk of a machine. Opens their file systems, as [`Self::volumes`].
    pub fn volume_level(&self, node: Node) -> Result<Option<Vec<VolumeReport>>> {
        let Some(id) = own_id(node) else {
            return Ok(None);
        };
        let is_disk = match self.own.get(id) {
            Some(Own::Disk(_)) => true,
            _ => node == self.root() && self.source.is_some(),
        };
        if !is_disk {
            return Ok(None);
        }
        self.enter(node)?;
        let below = |mut at: OwnId| {
            while at != id && at != OwnTree::ROOT {
                at = self.own.parent(at);
            }
            at == id
        };
        let all = self.volumes.iter().map(|(_, v)| v);
        let mine = all.filter(|(_, door)| below(*door));
        Ok(Some(
            mine.map(|(volume, door)| {
                VolumeReport::of(volume, self.own.path(*door), self.letter_of(*door))
            })
            .collect(),
        ))
    }

    /// The number of the volume that a node is, or lies in.
    pub fn number_of(&self, node: Node) -> Option<u16> {
        match node.volume {
            0 => match self.own.get(own_id(node)?)? {
                Own::Volume(number) => Some(*number),
                _ => None,
            },
            number => Some(number),
        }
    }

    /// The volume that a node is, or lies in.
    pub fn volume_of(&self, node: Node) -> Option<&Arc<Volume>> {
        let number = self.number_of(node)?;
        self.volume(number).map(|(volume, _)| volume)
    }

    /// Every volume with its number and its root directory.
    pub fn doors(&self) -> impl Iterator<Item = (u16, &Arc<Volume>, Node)> {
        let numbered = self.volumes.iter().zip(1u16..);
        numbered.map(|((_, (volume, door)), number)| (number, volume, own_node(*door)))
    }

    /// The node of an object of a volume, by what its file system calls it.
    pub fn guest_node(&self, volume: u16, id: NodeId) -> Result<Node> {
        match self.file_system(volume)? {
            Some(fs) => self.node(volume, fs, id),
            None => Err(DiskError::not_found("looking up a file by number")
                .found(format!("no volume {volume} in the tree"))),
        }
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

    fn is_without_files(&self, number: u16) -> bool {
        (self.volume(number)).is_some_and(|(volume, _)| volume.is_without_files())
    }

    /// Why a volume cannot be entered that is an empty directory of the tree, since no files are
    /// missed for it. Who asks for that volume by name should be told.
    pub fn without_files(&self, node: Node) -> Option<DiskError> {
        let number = self.number_of(node).filter(|_| node.volume == 0)?;
        let error = self.file_system(number).err()?;
        self.is_without_files(number).then_some(error)
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
                Own::Disk(lazy) => {
                    self.enter_disk(id, lazy)?;
                    Ok(Place::Own(id))
                }
                Own::File(file) => Ok(Place::File(file)),
                Own::Volume(number) => match self.file_system(*number) {
                    // Nothing is missed: what walks the tree goes on.
                    Err(_) if self.is_without_files(*number) => Ok(Place::Own(id)),
                    fs => {
                        let fs = fs?.ok_or_else(gone)?;
                        Ok(Place::Guest(*number, fs, fs.root()))
                    }
                },
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

    /// An entry of the tree's own. At the root the disks of the present state are found
    /// too: `/scsi0-0` is short for `/current/scsi0-0`.
    fn own_child(&self, dir: OwnId, name: &Name) -> Option<OwnId> {
        self.own.child(dir, name).or_else(|| {
            let text = std::str::from_utf8(name.as_bytes()).ok()?;
            let slot: Slot = text.parse().ok()?;
            let root = self.current.filter(|_| dir == OwnTree::ROOT);
            // Any machine's directory: that of a date, one among several guests.
            let current = root.or_else(|| self.own.child(dir, &Name::from("current")))?;
            self.own
                .child(current, &Name::from(slot.in_path().as_str()))
        })
    }

    /// The volumes that a path without one is looked for in: those of the present state.
    pub(crate) fn searched(&self) -> Vec<(Arc<Volume>, OwnId)> {
        self.volumes_at(self.default_point())
    }

    /// Disks of the machine's present state that cannot be opened, with the reason: what lies on
    /// them is not known.
    pub fn closed(&self) -> Vec<(Node, DiskError)> {
        let all = self.closed_at(self.default_point()).into_iter();
        all.map(|(id, e)| (own_node(id), e)).collect()
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
