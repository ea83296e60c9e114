//! SOURCE: what the user named on the command line, opened.

use crate::volume::Volume;
use disk_image::{Format, Image};
use disk_io::{
    Disk, DiskError, HostDir, Layered, Memory, Opened, Result, error::escape, host_dir::Allowed,
};
use guest_fs::{
    Name,
    partition::{self, Scheme, Table},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// What to open and how.
#[derive(Clone, Debug, Default)]
pub struct SourceSpec {
    /// The file or device.
    pub path: PathBuf,
    /// Take it for this format instead of looking (`--format`).
    pub format: Option<Format>,
    /// Directories, besides SOURCE's own, beneath which extents and parents may lie.
    pub allow_dirs: Vec<PathBuf>,
    /// Block devices that extents may name.
    pub allow_devices: Vec<PathBuf>,
    /// Go on where a parent's CID does not match.
    pub ignore_cid: bool,
    /// Read a seSparse extent whose journal was not replayed.
    pub ignore_dirty_journal: bool,
    /// The parent of the lowest link whose own is missing or does not match.
    pub parent: Option<PathBuf>,
    /// An internal snapshot of the image (qcow2).
    pub snapshot: Option<String>,
    /// How guest file systems are read.
    pub guest: guest_fs::OpenOptions,
    /// The memory budget; one is shared by the process if `None`.
    pub memory: Option<Arc<Memory>>,
}

/// An opened SOURCE: the disk, its partition table, its volumes.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    image: Image,
    table: Table,
    volumes: Vec<Arc<Volume>>,
    warnings: Vec<String>,
}

impl Source {
    /// Opens SOURCE: image, chain, partition table. What the volumes hold is looked at when
    /// it is asked for; one that cannot be read stays in the list with its reason.
    ///
    /// Fails where there is no disk to show, and ([`disk_io::ErrorKind::Unsupported`]) where
    /// nothing known is found in a file that no format claims.
    pub fn open(spec: &SourceSpec) -> Result<Self> {
        let allowed = Allowed {
            dirs: spec.allow_dirs.clone(),
            devices: spec.allow_devices.clone(),
            open_files: 0,
        };
        Self::open_in(HostDir::open_source(&spec.path, &allowed)?, spec)
    }

    /// The same for a file that passed the gate already: a member of a datastore or archive.
    pub fn open_in(opened: Opened, spec: &SourceSpec) -> Result<Self> {
        let options = disk_image::OpenOptions {
            format: spec.format,
            memory: spec.memory.clone(),
            snapshot: spec.snapshot.clone(),
            vmdk: vmdk::OpenOptions {
                ignore_cid: spec.ignore_cid,
                ignore_dirty_journal: spec.ignore_dirty_journal,
                parent: spec.parent.clone(),
                memory: spec.memory.clone(),
            },
            ..disk_image::OpenOptions::default()
        };
        let image = disk_image::open(opened.clone(), &options)?;
        let mut warnings = image.warnings.clone();
        if image.vmdk.is_some() {
            warnings.extend(newer_data(&opened));
        }
        let (table, volumes) = match partition::read(&image.disk) {
            Ok(table) => {
                let volumes = volumes_of(&image.disk, &table, spec)?;
                (table, volumes)
            }
            // The chain is still worth showing.
            Err(e) if image.believed => {
                let none = Table {
                    scheme: Scheme::None,
                    sector_size: image.disk.sector_size(),
                    uuid: None,
                    partitions: Vec::new(),
                    remarks: vec![format!("the partition table cannot be read: {e}")],
                };
                let name = Name::from("p0");
                let volume = Volume::unreadable(name, image.disk.clone(), None, e);
                (none, vec![Arc::new(volume)])
            }
            Err(e) => return Err(e.file(spec.path.display())),
        };
        warnings.extend(table.remarks.iter().cloned());
        if !image.believed && table.scheme == Scheme::None {
            let known = match volumes.first() {
                Some(volume) => volume.recognised().clone()?.is_some(),
                None => false,
            };
            if !known {
                return Err(DiskError::unsupported("opening as a disk")
                    .file(spec.path.display())
                    .expected("a disk image, a partition table or a file system")
                    .found("nothing known")
                    .hint("if it is a raw disk, say so with --format raw"));
            }
        }
        Ok(Self {
            path: spec.path.clone(),
            image,
            table,
            volumes,
            warnings,
        })
    }

    /// As the user named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The image with its chain.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The virtual disk.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.image.disk
    }

    /// The virtual disk as layers, where the format has them: for `map` and `info`.
    pub fn layered(&self) -> Option<&Arc<Layered>> {
        self.image.layered.as_ref()
    }

    /// The partition table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The volumes, in the order of their partition numbers. Extended partitions, which
    /// only hold others, are not among them.
    pub fn volumes(&self) -> &[Arc<Volume>] {
        &self.volumes
    }

    /// What the user should be told before anything else, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn volumes_of(disk: &Arc<dyn Disk>, table: &Table, spec: &SourceSpec) -> Result<Vec<Arc<Volume>>> {
    let volume = |name: &str, disk, partition| {
        Arc::new(Volume::new(
            Name::from(name),
            disk,
            partition,
            spec.guest.clone(),
        ))
    };
    if table.scheme == Scheme::None {
        return Ok(vec![volume("p0", disk.clone(), None)]);
    }
    table
        .partitions
        .iter()
        .filter(|p| !p.extended)
        .map(|p| {
            let name = format!("p{}", p.number);
            Ok(volume(&name, p.open(disk)?, Some(p.clone())))
        })
        .collect()
}

/// A warning where other disks beside SOURCE were made on top of it. It is advice: a
/// directory that cannot be listed gives none.
fn newer_data(opened: &Opened) -> Option<String> {
    let children = vmdk::newer_children(opened).ok()?;
    let names: Vec<String> = children
        .iter()
        .filter(|c| c.newest)
        .take(8)
        .map(|c| {
            let name = escape(&c.path.display().to_string());
            match c.cid_matches {
                true => name,
                false => format!("{name} (made from another state of its parent)"),
            }
        })
        .collect();
    if names.is_empty() {
        return None;
    }
    Some(format!(
        "newer data exists in {}: {} is opened as it stood before that",
        names.join(", "),
        escape(&opened.base_name().display().to_string()),
    ))
}
