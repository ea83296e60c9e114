//! Further members of SOURCE's sets: disks that were given, and the other disks of its machine.

use super::Whole;
use crate::source::SourceSpec;
use disk_image::Image;
use disk_io::{DiskError, FileId, HostDir, Opened, Result, host_dir::Allowed};
use guest_fs::partition::{self, Table};
use inventory::Slot;
use std::path::{Path, PathBuf};

/// A further member of SOURCE's set: given (`--with`), or another disk of its machine.
#[derive(Debug)]
pub struct Member {
    pub(super) path: PathBuf,
    pub(super) image: Image,
    table: Table,
    id: FileId,
    hung: Option<Hung>,
    /// Its machine has it; it was not given.
    pub(super) sibling: bool,
}

/// Where a disk hangs in SOURCE's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hung {
    /// How many disks come before it.
    pub(crate) order: usize,
    /// Its place.
    pub(crate) slot: Slot,
}

/// The other disks of SOURCE's machine, at the same point.
pub(crate) trait Siblings {
    /// Where SOURCE hangs.
    fn own(&self) -> Hung;
    /// The others, with what opens each of them: nothing is opened yet.
    fn others(&self) -> Vec<(Hung, FileId)>;
    /// Finds the first file of one of them, with the options for it.
    fn open(&self, hung: &Hung) -> Result<(Opened, SourceSpec)>;
}

impl Member {
    /// Opens every `--with` of `spec` but SOURCE itself, each through a gate of its own.
    pub(crate) fn open_all(spec: &SourceSpec, own: FileId) -> Result<Vec<Self>> {
        let allowed = Allowed {
            dirs: spec.allow_dirs.clone(),
            devices: spec.allow_devices.clone(),
            open_files: 0,
        };
        let mut all: Vec<Self> = Vec::new();
        for path in &spec.with {
            let opened = HostDir::open_source(path, &allowed)?;
            if opened.id != own && !all.iter().any(|m| m.id == opened.id) {
                all.push(Self::open(path, opened, spec)?);
            }
        }
        Ok(all)
    }

    fn open(path: &Path, opened: Opened, spec: &SourceSpec) -> Result<Self> {
        let id = opened.id;
        // What is about SOURCE's own chain is not about this one's.
        let mut options = spec.image_options();
        options.snapshot = None;
        options.vmdk.parent = None;
        let image = disk_image::open(opened, &options)?;
        let table = partition::read(&image.disk).map_err(|e| e.file(path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            image,
            table,
            id,
            hung: None,
            sibling: false,
        })
    }

    /// Says of those that were given which are disks of SOURCE's machine.
    pub(crate) fn hang(members: &mut [Self], siblings: &dyn Siblings) {
        if members.is_empty() {
            return;
        }
        let others = siblings.others();
        for member in members {
            let same = others.iter().find(|(_, id)| *id == member.id);
            member.hung = same.map(|(hung, _)| *hung);
        }
    }

    /// Opens the other disks of SOURCE's machine, but those that `members` has; and why the rest
    /// could not be.
    pub(crate) fn of_machine(
        siblings: &dyn Siblings,
        own: FileId,
        members: &[Self],
    ) -> (Vec<Self>, Vec<(Slot, DiskError)>) {
        let (mut all, mut lost) = (Vec::new(), Vec::new());
        for (hung, id) in siblings.others() {
            if id == own || members.iter().any(|m| m.id == id) {
                continue;
            }
            let opened = siblings.open(&hung).and_then(|(opened, spec)| {
                let path = opened.path.clone();
                Self::open(&path, opened, &spec)
            });
            match opened {
                Ok(member) => all.push(Self {
                    hung: Some(hung),
                    sibling: true,
                    ..member
                }),
                Err(e) => lost.push((hung.slot, e)),
            }
        }
        (all, lost)
    }

    pub(super) fn whole(&self) -> Whole<'_> {
        Whole {
            disk: &self.image.disk,
            table: Some(&self.table),
            hung: self.hung.as_ref(),
            sibling: self.sibling,
        }
    }

    /// As the user named it, or where the machine has it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The image with its chain.
    pub fn image(&self) -> &Image {
        &self.image
    }
}
