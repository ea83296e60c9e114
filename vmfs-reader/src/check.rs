//! Whether a volume agrees with itself: every descriptor and directory is read, every
//! address followed, and what files use is compared with what the bitmaps say.
//!
//! A volume that was in use when it was saved may differ in what its hosts were just doing;
//! nothing is replayed from journals.

mod bitmaps;
mod ranges;

use crate::{
    address::{Address, FdAddress, Item},
    blocks::{BlockList, Mapping},
    core::Core,
    descriptor::FileKind,
    resource::Resource,
    superblock::LARGE_SHIFT,
    volume::Volume,
};
use disk_io::{DiskError, Result};
use ranges::Ranges;
use std::ops::ControlFlow;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Allocated, and used by nothing that was found: space is lost, no data.
    Lost,
    /// Two structures contradict each other, or one cannot be read.
    Damage,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The path of the file that it is about, where there is one.
    pub path: Option<Vec<u8>>,
    /// What was found.
    pub error: DiskError,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Files, links and device maps, those of the system counted.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Addresses of blocks and sub-blocks.
    pub addresses: u64,
    /// Clusters of resources whose bitmap was compared.
    pub clusters: u64,
}

/// What files use, by the kind of resource.
#[derive(Debug, Default)]
struct Used {
    blocks: Ranges,
    subs: Ranges,
    pointers: Ranges,
    pointers2: Ranges,
    descriptors: Ranges,
}

struct Check<'a> {
    core: &'a Core,
    used: Used,
    checked: Checked,
    /// Headers of clusters that could not be read.
    lost: u64,
    visit: &'a mut dyn FnMut(Finding),
}

/// Directories within each other at most; deeper ones are damage.
const MAX_LEVELS: usize = 256;

impl Volume {
    /// Checks everything and visits what is wrong. Reads all metadata: of large volumes
    /// gigabytes.
    pub fn check(&self, visit: &mut dyn FnMut(Finding)) -> Result<Checked> {
        let mut check = Check {
            core: &self.core,
            used: Used::default(),
            checked: Checked::default(),
            lost: 0,
            visit,
        };
        check.tree(self)?;
        // The journals of VMFS-5 hosts are file blocks that no file has.
        if let Ok((beats, damage)) = self.heartbeats() {
            for text in damage {
                let e = DiskError::corrupt("reading the heartbeats").found(text.clone());
                check.found(Severity::Damage, None, e);
            }
            for beat in beats {
                if let Ok(address) = Address::parse(beat.journal.into(), &self.core.geometry) {
                    check.add(address);
                }
            }
        }
        check.bitmaps()?;
        Ok(check.checked)
    }
}

impl Check<'_> {
    fn found(&mut self, severity: Severity, path: Option<&[u8]>, error: DiskError) {
        (self.visit)(Finding {
            severity,
            path: path.map(<[u8]>::to_vec),
            error,
        });
    }

    fn tree(&mut self, volume: &Volume) -> Result<()> {
        let root = volume.root();
        self.file(root, b"");
        let mut dirs = vec![(root, root, Vec::new())];
        while let Some((dir, parent, path)) = dirs.pop() {
            self.checked.directories = self.checked.directories.saturating_add(1);
            match volume.parent(dir) {
                Ok(up) if up == parent => {}
                Ok(up) => {
                    let e = DiskError::corrupt("reading the entry `..`")
                        .expected(parent.to_string())
                        .found(up.to_string());
                    self.found(Severity::Damage, Some(&path), e);
                }
                Err(e) => self.found(Severity::Damage, Some(&path), e),
            }
            let mut entries = Vec::new();
            let listed = volume.read_dir(dir, &mut |entry| {
                match entry {
                    Ok(entry) => entries.push(entry),
                    Err(e) => self.found(Severity::Damage, Some(&path), e),
                }
                ControlFlow::Continue(())
            });
            if let Err(e) = listed {
                self.found(Severity::Damage, Some(&path), e);
            }
            for entry in entries {
                let mut name = path.clone();
                if !name.is_empty() {
                    name.push(b'/');
                }
                name.extend_from_slice(&entry.name);
                match volume.lookup(dir, &entry.name) {
                    Ok(Some(same)) if same.address == entry.address => {}
                    Ok(_) => {
                        let e = DiskError::corrupt("finding a name again").found("another file");
                        self.found(Severity::Damage, Some(&name), e);
                    }
                    Err(e) => self.found(Severity::Damage, Some(&name), e),
                }
                let stat = match volume.check_entry(&entry) {
                    Ok(stat) => stat,
                    Err(e) => {
                        self.found(Severity::Damage, Some(&name), e);
                        continue;
                    }
                };
                // A descriptor with several names is looked at once.
                if !self.file(entry.address, &name) {
                    continue;
                }
                if stat.kind == FileKind::Directory {
                    if name.iter().filter(|b| **b == b'/').count() > MAX_LEVELS {
                        let e = DiskError::corrupt("listing a directory").found("too many levels");
                        self.found(Severity::Damage, Some(&name), e);
                        continue;
                    }
                    dirs.push((entry.address, dir, name));
                }
            }
        }
        Ok(())
    }

    /// Follows the addresses of a file. Whether this is the first name of it.
    fn file(&mut self, address: FdAddress, path: &[u8]) -> bool {
        if let Some(number) = number(self.core.fdc(), address.item())
            && !self.used.descriptors.insert(number, 1)
        {
            return false;
        }
        self.checked.files = self.checked.files.saturating_add(1);
        match self.core.descriptor(address) {
            Ok(descriptor) => self.blocks(&descriptor.blocks, path),
            Err(e) => self.found(Severity::Damage, Some(path), e),
        }
        true
    }

    fn blocks(&mut self, list: &BlockList, path: &[u8]) {
        let Mapping::Blocks { depth } = list.mapping else {
            return;
        };
        let mut large = 0;
        self.pointers(&list.pointers, depth, &mut large, path);
    }

    fn pointers(&mut self, table: &[u64], depth: u32, large: &mut u64, path: &[u8]) {
        for raw in table.iter().filter(|raw| **raw != 0) {
            let address = match Address::parse(*raw, &self.core.geometry) {
                Ok(address) => address,
                Err(e) => {
                    self.found(Severity::Damage, Some(path), e);
                    continue;
                }
            };
            if let Address::Large { block, .. } = address {
                // One large block may take many pointers.
                if std::mem::replace(large, block.saturating_add(1)) == block.saturating_add(1) {
                    continue;
                }
            }
            let cow = matches!(
                address,
                Address::File { cow: true, .. }
                    | Address::Large { cow: true, .. }
                    | Address::Sub { cow: true, .. }
            );
            if !self.add(address) && !cow {
                let e = DiskError::corrupt("following the addresses of a file")
                    .expected("blocks that no other file uses, of the volume")
                    .found(format!("{raw:#x}"));
                self.found(Severity::Damage, Some(path), e);
            }
            if let Some(below) = depth.checked_sub(1) {
                match self.core.pointer_block(*raw, 0) {
                    Ok(table) => self.pointers(&table, below, large, path),
                    Err(e) => self.found(Severity::Damage, Some(path), e),
                }
            }
        }
    }

    /// Notes that an address is used; false if it was, or cannot be.
    fn add(&mut self, address: Address) -> bool {
        self.checked.addresses = self.checked.addresses.saturating_add(1);
        let core = self.core;
        let used = &mut self.used;
        let (ranges, number, count) = match address {
            Address::File { block, .. } => (&mut used.blocks, Some(block), 1),
            Address::Large { block, .. } => {
                let count = 1u64 << LARGE_SHIFT;
                (&mut used.blocks, block.checked_mul(count), count)
            }
            Address::Sub { item, .. } => (&mut used.subs, number(core.sbc(), item), 1),
            Address::Pointer(item) => (&mut used.pointers, number(core.pbc(), item), 1),
            Address::Pointer2(item) => (&mut used.pointers2, number(core.pb2(), item), 1),
            Address::Null | Address::Descriptor(_) | Address::Journal(_) => return true,
        };
        number.is_some_and(|n| ranges.insert(n, count))
    }
}

fn number(resource: Result<&Resource>, item: Item) -> Option<u64> {
    let resource = resource.ok()?;
    resource.position(item).ok()?;
    item.cluster
        .checked_mul(resource.per_cluster)?
        .checked_add(item.item)
}
