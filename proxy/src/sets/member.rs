//! Further members of SOURCE's sets: disks that were given, and the other disks of its machine.

use super::Whole;
use crate::source::SourceSpec;
use disk_image::Image;
use disk_io::{DiskError, FileId, HostDir, Opened, Result, host_dir::Allowed};
use guest_fs::{
    partition::{self, Scheme, Table},
    volume::recognise,
};
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
    class: Class,
}

/// How a disk came to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Source,
    /// SOURCE's machine has it.
    Machine,
    /// By `--with`.
    Given,
}

/// Where a disk hangs in SOURCE's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hung {
    /// How many disks come before it.
    pub(crate) order: usize,
    /// Its place.
    pub(crate) slot: Slot,
}

/// What SOURCE is to its machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Seat {
    /// It is no disk of a machine.
    #[default]
    Lone,
    /// It is asked for without the others: what lies on it is with it.
    Asked,
    /// One of all disks, which are looked at in turn: what lies on several is with the first.
    InTurn(Hung),
}

/// The other disks of SOURCE's machine, at the same point.
pub(crate) trait Siblings {
    /// What SOURCE is.
    fn seat(&self) -> Seat;
    /// The others, each with its first file's identity, or why that cannot be had.
    fn others(&self) -> Vec<(Hung, Result<FileId>)>;
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
        // Nothing falls through to raw: a damaged header is no disk without a table.
        if !image.believed && table.scheme == Scheme::None && recognise(&image.disk)?.is_none() {
            return Err(DiskError::unsupported("opening as a disk")
                .file(path.display())
                .expected("a disk image, a partition table or a file system")
                .found("nothing known"));
        }
        Ok(Self {
            path: path.to_owned(),
            image,
            table,
            id,
            hung: None,
            class: Class::Given,
        })
    }

    /// Says of those that were given which are disks of SOURCE's machine.
    pub(crate) fn hang(members: &mut [Self], siblings: &dyn Siblings) {
        if members.is_empty() {
            return;
        }
        let others = siblings.others();
        for member in members {
            let is_it = |id: &Result<FileId>| id.as_ref().is_ok_and(|id| *id == member.id);
            let same = others.iter().find(|(_, id)| is_it(id));
            if let Some((hung, _)) = same {
                (member.hung, member.class) = (Some(*hung), Class::Machine);
            }
        }
    }

    /// Opens the other disks of SOURCE's machine, but those that `members` has; and why the rest
    /// could not be.
    pub(crate) fn of_machine(
        siblings: &dyn Siblings,
        own: FileId,
        members: &[Self],
    ) -> (Vec<Self>, Vec<(Slot, DiskError)>) {
        let mut all: Vec<Self> = Vec::new();
        let mut lost = Vec::new();
        for (hung, id) in siblings.others() {
            let taken = || members.iter().chain(&all);
            let is_here = |id: &FileId| *id == own || taken().any(|m| m.id == *id);
            if id.as_ref().is_ok_and(is_here) {
                continue;
            }
            let opened = id.and_then(|_| siblings.open(&hung));
            let opened = opened.and_then(|(opened, spec)| {
                let path = opened.path.clone();
                Self::open(&path, opened, &spec)
            });
            match opened {
                Ok(member) => all.push(Self {
                    hung: Some(hung),
                    class: Class::Machine,
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
            class: self.class,
            path: Some(&self.path),
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
