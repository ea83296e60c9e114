//! Whether a volume agrees with itself: every descriptor and directory is read, every
//! address followed, and what files use is compared with what the bitmaps say.
//!
//! A volume that was in use when it was saved may differ in what its hosts were just doing;
//! nothing is replayed from journals.

mod bitmaps;
mod files;
mod names;
mod numbers;
mod suspects;

use crate::{
    address::{Address, FdAddress},
    core::Core,
    resource::Resource,
    volume::Volume,
};
use disk_io::{DiskError, ErrorKind, Finding, Result};
use numbers::Numbers;
use suspects::Suspects;

/// One thing that is not as it should be. Its ranges are bytes of the volume, its nodes the
/// addresses of descriptors.
#[derive(Clone, Debug)]
pub struct Found {
    /// What was found.
    pub finding: Finding,
    /// The paths of the files that it is about, where they have any.
    pub paths: Vec<Vec<u8>>,
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

/// What is given out to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Block,
    Sub,
    Pointer,
    Pointer2,
    Descriptor,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Sub => "sub-block",
            Self::Pointer => "pointer block",
            Self::Pointer2 => "pointer block of the second kind",
            Self::Descriptor => "descriptor",
        }
    }
}

/// What files use, by the kind of resource.
#[derive(Debug, Default)]
struct Used([Numbers; 5]);

impl Used {
    fn of(&mut self, kind: Kind) -> &mut Numbers {
        let [blocks, subs, pointers, pointers2, descriptors] = &mut self.0;
        match kind {
            Kind::Block => blocks,
            Kind::Sub => subs,
            Kind::Pointer => pointers,
            Kind::Pointer2 => pointers2,
            Kind::Descriptor => descriptors,
        }
    }
}

/// A file as it is told of.
#[derive(Clone, Copy)]
struct Which<'a> {
    address: FdAddress,
    path: &'a [u8],
}

struct Check<'a> {
    core: &'a Core,
    used: Used,
    suspects: Suspects,
    checked: Checked,
    /// Headers of clusters that could not be read.
    lost: u64,
    /// The device failed: nothing more is looked at.
    failed: Option<DiskError>,
    /// Directories could not be read whole.
    partly: bool,
    visit: &'a mut dyn FnMut(Found),
}

impl Volume {
    /// Checks everything and visits what is wrong. Reads all metadata: of large volumes
    /// gigabytes.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn check(&self, visit: &mut dyn FnMut(Found)) -> Result<Checked> {
        let mut check = Check {
            core: &self.core,
            used: Used::default(),
            suspects: Suspects::default(),
            checked: Checked::default(),
            lost: 0,
            failed: None,
            partly: false,
            visit,
        };
        check.names(self);
        check.heartbeats(self);
        check.bitmaps();
        check.suspects(self);
        match check.failed {
            Some(e) => Err(e),
            None => Ok(check.checked),
        }
    }
}

impl Check<'_> {
    /// Tells of a finding, unless it is that the device failed, or of something that is not
    /// read here: of that nothing can be said.
    fn found(&mut self, finding: Finding, files: &[Which<'_>]) {
        let finding = match finding.error.kind() {
            ErrorKind::Io => {
                self.failed.get_or_insert(finding.error);
                return;
            }
            ErrorKind::Unsupported => Finding::note("volume-not-read", finding.error),
            _ => finding,
        };
        let mut paths = Vec::new();
        let mut finding = finding;
        for file in files {
            finding = finding.about(file.address.0.into());
            paths.push(file.path.to_vec());
        }
        if let [path] = paths.as_slice() {
            let path = match path.as_slice() {
                b"" => "/".into(),
                path => String::from_utf8_lossy(path),
            };
            finding.error = finding.error.context(path);
        }
        (self.visit)(Found { finding, paths });
    }

    fn heartbeats(&mut self, volume: &Volume) {
        let warning = |e| Finding::warning("vmfs-heartbeat-damaged", e);
        let (beats, damage) = match volume.heartbeats() {
            Ok(found) => found,
            Err(e) => return self.found(warning(e), &[]),
        };
        for slot in damage {
            let e = DiskError::corrupt("reading the heartbeats")
                .offset(slot.place)
                .found(slot.text.clone());
            self.found(warning(e), &[]);
        }
        // The journals of VMFS-5 hosts are file blocks that no file has.
        for beat in beats {
            if let Ok(address) = Address::parse(beat.journal.into(), &self.core.geometry)
                && let Some((kind, number, count)) = self.place_of(address)
            {
                for n in number..number.saturating_add(count) {
                    self.used.of(kind).insert(n);
                }
            }
        }
    }
}

/// The number of a resource, if there is such a one.
fn number(resource: Result<&Resource>, item: crate::address::Item) -> Option<u64> {
    let resource = resource.ok()?;
    resource.position(item).ok()?;
    item.cluster
        .checked_mul(resource.per_cluster)?
        .checked_add(item.item)
}
