//! The read-only FUSE mount: a thin adaptor over [`Tree`].

use crate::tree::Tree;
use disk_io::{DiskError, Result};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// What the mount shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// The tree.
    #[default]
    Tree,
    /// The disk and its partitions as files: `disk.img`, `p1.img` …
    Raw,
}

/// How a tree is mounted.
#[derive(Clone, Debug, Default)]
pub struct MountOptions {
    /// What the mount shows.
    pub layout: Layout,
    /// Let other users in.
    pub allow_other: bool,
    /// Owner of everything; the guest's own or the mounting user if `None`.
    pub uid: Option<u32>,
    /// Group of everything; the guest's own or the mounting user's if `None`.
    pub gid: Option<u32>,
    /// Permission bits to take away.
    pub umask: u32,
    /// Past the page cache: for bulk copies.
    pub direct_io: bool,
    /// Event loops; the number of processors if `None`.
    pub threads: Option<usize>,
    /// Name of the source in the mount table; SOURCE's path if `None`.
    pub fs_name: Option<String>,
}

/// A mounted tree. Dropping it unmounts.
#[derive(Debug)]
pub struct Mounted {
    dir: PathBuf,
}

impl Mounted {
    /// Where.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// Waits until somebody unmounts it.
    pub fn wait(self) -> Result<()> {
        Ok(())
    }
    /// Unmounts now; open files keep it alive until they are closed.
    pub fn unmount(self) -> Result<()> {
        Ok(())
    }
}

/// Mounts the tree; returns when it is ready.
pub fn mount(_tree: Arc<Tree>, dir: &Path, _options: &MountOptions) -> Result<Mounted> {
    Err(DiskError::unsupported("mounting").file(dir.display()))
}

/// Unmounts what is mounted at `dir`, even if its process died.
pub fn umount(dir: &Path) -> Result<()> {
    Err(DiskError::unsupported("unmounting").file(dir.display()))
}
