//! The gate: an image names other files, and something decides what that may mean.
//!
//! A descriptor is attacker's input. Extents, parents, backing files, data files and
//! locators are all opened through [`Locate`], which is implemented for a host directory
//! ([`crate::HostDir`]), and elsewhere for a directory of a datastore, an archive, memory.

use crate::{
    disk::Disk,
    error::{DiskError, Result},
};
use std::{
    fmt::{self, Debug},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why a file is wanted; part of every refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// A piece of the disk itself.
    Extent,
    /// The disk below a delta.
    Parent,
    /// The image below a qcow2 overlay.
    Backing,
    /// Where a qcow2 image keeps its data, if not in itself.
    Data,
    /// A file that belongs to a virtual machine or archive: configuration, manifest, member.
    Member,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Extent => "extent",
            Self::Parent => "parent disk",
            Self::Backing => "backing file",
            Self::Data => "data file",
            Self::Member => "member file",
        })
    }
}

/// Two opened files with equal ids are the same file: cycles are found by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Device, or the container's own number.
    pub container: u64,
    /// Inode, or the member's number.
    pub file: u64,
}

/// A file that passed the gate.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its bytes.
    pub disk: Arc<dyn Disk>,
    /// Its full name, for people.
    pub path: PathBuf,
    /// Its identity.
    pub id: FileId,
    /// Its own directory: where names inside it are looked up.
    pub dir: Arc<dyn Locate>,
}

impl Opened {
    /// The last component of its name.
    pub fn base_name(&self) -> &Path {
        self.path.file_name().map_or(&*self.path, Path::new)
    }
}

/// A place where names found inside an image are looked up.
pub trait Locate: Send + Sync + Debug {
    /// Opens `name` for reading. Relative names are relative to this place. A name that
    /// exists and is not allowed is [`crate::ErrorKind::Refused`] with the option that would
    /// allow it; one that does not exist is [`crate::ErrorKind::NotFound`] with the place
    /// that was searched.
    fn open(&self, name: &Path, purpose: Purpose) -> Result<Opened>;

    /// Names of the regular files directly in this place, sorted; at most `limit`.
    fn list(&self, limit: usize) -> Result<Vec<PathBuf>>;

    /// What the place is called, for messages.
    fn describe(&self) -> String;

    /// Files called `base` directly in the directories that the user allowed besides this place,
    /// each once: where a file may be that its name does not lead to on this host.
    fn in_allowed(&self, _base: &Path, _purpose: Purpose) -> Vec<Opened> {
        Vec::new()
    }
}

/// A place with nothing in it: for images that may name no other file.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFiles;

impl Locate for NoFiles {
    fn open(&self, name: &Path, purpose: Purpose) -> Result<Opened> {
        Err(
            DiskError::refused(format!("opening the {purpose} {}", name.display()))
                .found("an image that may name no other file"),
        )
    }

    fn list(&self, _limit: usize) -> Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn describe(&self) -> String {
        "nowhere".into()
    }
}
