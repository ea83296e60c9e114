//! Makes VMFS-5 and VMFS-6 volumes, for tests: nothing but ESX does otherwise.
//!
//! The volumes follow what ESXi 8 writes (fact sheet, VMFS) closely enough for vmfs-tools,
//! vmfs6-tools and dissect.vmfs to read them. Contents that are disks are not copied: a
//! built device reads through to them, so huge volumes cost what they hold.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic
)]

mod allocate;
mod directory;
mod layout;
mod lvm;
mod metadata;
mod store;

use crate::{Uuid, lvm::UNIT};
use disk_io::{Disk, MemDisk};
use std::{collections::BTreeMap, sync::Arc};

pub use store::Device;

/// How the blocks of a file are allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Provision {
    /// Inside the descriptor or a sub-block if it fits, else [`Self::Thin`]: what ESX does.
    #[default]
    Small,
    /// Only blocks with data.
    Thin,
    /// All blocks.
    Thick,
    /// All blocks; those without data are marked as to be zeroed, and hold other bytes.
    LazyZeroed,
}

/// A file to be made.
#[derive(Clone, Debug, Default)]
pub struct FileSpec {
    /// How it is allocated.
    pub provision: Provision,
    /// Blocks left free after each block, so that the file lies in pieces.
    pub gap: u64,
    /// Which heartbeat's host holds it (see [`Builder::heartbeat`]), and in which mode.
    pub lock: Option<(usize, u32)>,
}

#[derive(Debug)]
enum Node {
    Directory(BTreeMap<Vec<u8>, usize>),
    File(Arc<dyn Disk>, FileSpec),
    Symlink(Vec<u8>),
    Rdm(u64),
}

/// A volume to be made.
#[derive(Debug)]
pub struct Builder {
    six: bool,
    label: String,
    units: Vec<u64>,
    with_lvm: bool,
    block_size: u64,
    nodes: Vec<Node>,
    parents: Vec<usize>,
    heartbeats: Vec<(Uuid, u64)>,
    seed: u32,
}

impl Builder {
    fn new(six: bool, label: &str) -> Self {
        Self {
            six,
            label: label.to_owned(),
            units: vec![4],
            with_lvm: true,
            block_size: 1 << 20,
            nodes: vec![Node::Directory(BTreeMap::new())],
            parents: vec![0],
            heartbeats: Vec::new(),
            seed: 1,
        }
    }

    /// A VMFS-5 volume of 1 GiB on one LVM 5 device.
    pub fn five(label: &str) -> Self {
        Self::new(false, label)
    }

    /// A VMFS-6 volume of 1 GiB on one LVM 6 device.
    pub fn six(label: &str) -> Self {
        Self::new(true, label)
    }

    /// The devices of the volume, each with its size in units of 256 MiB.
    pub fn devices(mut self, units: &[u64]) -> Self {
        self.units = units.to_vec();
        self
    }

    /// No LVM: the file system lies on the bare device.
    pub fn without_lvm(mut self) -> Self {
        self.with_lvm = false;
        self
    }

    /// File block size in bytes, for VMFS-5.
    pub fn block_size(mut self, size: u64) -> Self {
        self.block_size = size;
        self
    }

    /// What all identifiers of the volume are made from: volumes with the same seed and
    /// shape have the same.
    pub fn seed(mut self, seed: u32) -> Self {
        self.seed = seed;
        self
    }

    /// A host that has the volume mounted; gives its number for [`FileSpec::lock`].
    pub fn heartbeat(&mut self, host: Uuid, generation: u64) -> usize {
        self.heartbeats.push((host, generation));
        self.heartbeats.len() - 1
    }

    fn add(&mut self, path: &str, node: Node) -> usize {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.directory(dir);
        let number = self.nodes.len();
        self.nodes.push(node);
        self.parents.push(parent);
        let Node::Directory(names) = &mut self.nodes[parent] else {
            panic!("{dir} is no directory");
        };
        let old = names.insert(name.as_bytes().to_vec(), number);
        assert!(
            old.is_none() && !name.is_empty() && name.len() <= 127,
            "{path}"
        );
        number
    }

    /// Makes a directory and those above it, where they are not there; gives its number.
    pub fn directory(&mut self, path: &str) -> usize {
        let mut at = 0;
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let part = path[..end].rsplit('/').next().unwrap_or("");
            if part.is_empty() {
                continue;
            }
            let Node::Directory(names) = &self.nodes[at] else {
                panic!("{path}: not a directory");
            };
            at = match names.get(part.as_bytes()) {
                Some(n) => *n,
                None => {
                    let whole = path[..end].trim_start_matches('/').to_owned();
                    self.add(&whole, Node::Directory(BTreeMap::new()))
                }
            };
        }
        at
    }

    /// Adds a file with contents from memory, allocated as ESX would.
    pub fn bytes(&mut self, path: &str, contents: &[u8]) -> &mut Self {
        self.file(path, Arc::new(MemDisk::new(contents)), FileSpec::default())
    }

    /// Adds a file with the contents of a disk.
    pub fn file(&mut self, path: &str, contents: Arc<dyn Disk>, spec: FileSpec) -> &mut Self {
        self.add(path, Node::File(contents, spec));
        self
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.add(path, Node::Symlink(target.as_bytes().to_vec()));
        self
    }

    /// Adds a raw device map to a device of `len` bytes.
    pub fn rdm(&mut self, path: &str, len: u64) -> &mut Self {
        self.add(path, Node::Rdm(len));
        self
    }

    /// Makes the devices.
    ///
    /// # Panics
    /// If the volume is too small for what it shall hold.
    pub fn build(&self) -> Vec<Device> {
        let store = Arc::new(layout::volume(self));
        if self.with_lvm {
            lvm::devices(self, &store)
        } else {
            vec![Device::bare(store, self.size())]
        }
    }

    /// The devices as disks.
    pub fn disks(&self) -> Vec<Arc<dyn Disk>> {
        let devices = self.build().into_iter();
        devices.map(|d| Arc::new(d) as Arc<dyn Disk>).collect()
    }

    fn size(&self) -> u64 {
        self.units.iter().sum::<u64>() * UNIT
    }

    /// An identifier of this volume.
    fn uuid(&self, what: u32) -> Uuid {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&(0x6862_0000 + self.seed).to_le_bytes());
        bytes[4..8].copy_from_slice(&what.to_le_bytes());
        bytes[8..].copy_from_slice(&[0x5a, 0xa5, 0, 0x50, 0x56, 1, 2, 3]);
        Uuid(bytes)
    }
}

/// A structure being written.
#[derive(Debug)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    fn new(len: usize) -> Self {
        Self(vec![0; len])
    }
    fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }
    fn u16(&mut self, at: usize, v: u64) -> &mut Self {
        self.put(at, &(v as u16).to_le_bytes())
    }
    fn u32(&mut self, at: usize, v: u64) -> &mut Self {
        assert!(u32::try_from(v).is_ok(), "{v:#x}");
        self.put(at, &(v as u32).to_le_bytes())
    }
    fn u64(&mut self, at: usize, v: u64) -> &mut Self {
        self.put(at, &v.to_le_bytes())
    }
}
