//! A VMDK with all its parents, as one disk.

use crate::{chain, link::Link};
use disk_io::{BlockMap, Layered, Memory, Opened, Result};
use std::{path::PathBuf, sync::Arc};

/// What the user decides.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Go on where a parent's content id does not match. Loud.
    pub ignore_cid: bool,
    /// Go on where the journal of an seSparse extent was not replayed. Loud.
    pub ignore_dirty_journal: bool,
    /// The parent of the lowest link whose parent is missing or does not match.
    pub parent: Option<PathBuf>,
    /// The memory to share with other disks; [`Memory::standard`] if `None`.
    pub memory: Option<Arc<Memory>>,
}

/// An opened disk.
#[derive(Debug)]
pub struct Image {
    links: Vec<Link>,
    disk: Arc<Layered>,
    warnings: Vec<String>,
}

impl Image {
    /// Opens `source`, all its extents and all its parents, and checks that they belong
    /// together. Names inside it are looked up through `source.dir`.
    ///
    /// # Errors
    /// `NotFound` if an extent or parent is missing, `Refused` if the gate does not let it
    /// be opened, `Corrupt` if something contradicts itself or a parent was changed after
    /// its child was made, `Unsupported` for what is recognised and not read.
    pub fn open(source: Opened, options: &OpenOptions) -> Result<Self> {
        let (links, warnings) = chain::open(source, options)?;
        links.iter().for_each(|l| l.map.remarks.log());
        let maps = links
            .iter()
            .map(|l| l.map.clone() as Arc<dyn BlockMap>)
            .collect();
        let memory = options.memory.clone().unwrap_or_else(Memory::standard);
        Ok(Self {
            disk: Arc::new(Layered::new(maps, memory)?),
            links,
            warnings,
        })
    }

    /// The guest's disk.
    pub fn disk(&self) -> Arc<Layered> {
        self.disk.clone()
    }

    /// The links, the newest first.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// What the user should know, found while opening.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Those of the warnings after which the disk's contents are not to be relied on.
    pub fn doubts(&self) -> Vec<String> {
        self.links.iter().flat_map(Link::doubts).collect()
    }

    /// What was noticed while tables were read, up to now; see [`Link::remarks`].
    pub fn remarks(&self) -> Vec<String> {
        self.links.iter().flat_map(Link::remarks).collect()
    }
}
