//! SOURCE: what the user named on the command line, opened.

use crate::{
    shim::{self, Table},
    volume::Volume,
};
use disk_io::{Disk, DiskError, HostDir, Layered, Memory, Result, Slice, host_dir::Allowed};
use guest_fs::Name;
use std::{path::PathBuf, sync::Arc};

/// What to open and how.
#[derive(Clone, Debug, Default)]
pub struct SourceSpec {
    /// The file or device.
    pub path: PathBuf,
    /// Take it as a raw disk, whatever it looks like.
    pub force_raw: bool,
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
    /// How guest file systems are read.
    pub guest: guest_fs::OpenOptions,
    /// The memory budget; one is shared by the process if `None`.
    pub memory: Option<Arc<Memory>>,
}

/// An opened SOURCE: the disk, its partition table, its volumes.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    layered: Option<Arc<Layered>>,
    table: Table,
    volumes: Vec<Arc<Volume>>,
    warnings: Vec<String>,
}

impl Source {
    /// Opens SOURCE: image, chain, partition table; recognises what the volumes hold.
    /// Fails only where there is no disk to show; a volume that cannot be read is kept
    /// with its reason.
    pub fn open(spec: &SourceSpec) -> Result<Self> {
        let allowed = Allowed {
            dirs: spec.allow_dirs.clone(),
            devices: spec.allow_devices.clone(),
            open_files: 0,
        };
        let opened = HostDir::open_source(&spec.path, &allowed)?;
        Self::of_disk(spec, opened.disk, None, Vec::new())
    }

    fn of_disk(
        spec: &SourceSpec,
        disk: Arc<dyn Disk>,
        layered: Option<Arc<Layered>>,
        mut warnings: Vec<String>,
    ) -> Result<Self> {
        let table = shim::read_table(&disk)?;
        warnings.extend(table.remarks.iter().cloned());
        let mut volumes = Vec::new();
        for partition in &table.partitions {
            let name = Name::from(format!("p{}", partition.number).as_str());
            volumes.push(Arc::new(
                match Slice::new(disk.clone(), partition.start, partition.len) {
                    Ok(slice) => Volume::new(
                        name,
                        Arc::new(slice),
                        Some(partition.clone()),
                        spec.guest.clone(),
                    ),
                    Err(_) => {
                        let error = DiskError::corrupt(format!("entering /{name}"))
                            .expected(format!("a partition inside {} bytes", disk.len()))
                            .found(format!(
                                "{} bytes at {}: the disk is cut short",
                                partition.len, partition.start
                            ));
                        let start = partition.start.min(disk.len());
                        let rest = Slice::new(disk.clone(), start, disk.len() - start)?;
                        Volume::unreadable(name, Arc::new(rest), Some(partition.clone()), error)
                    }
                },
            ));
        }
        if table.partitions.is_empty() {
            volumes.push(Arc::new(Volume::new(
                Name::from("p0"),
                disk.clone(),
                None,
                spec.guest.clone(),
            )));
        }
        Ok(Self {
            path: spec.path.clone(),
            disk,
            layered,
            table,
            volumes,
            warnings,
        })
    }

    /// As the user named it.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// The virtual disk.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The virtual disk as layers, where the format has them: for `map` and `info`.
    pub fn layered(&self) -> Option<&Arc<Layered>> {
        self.layered.as_ref()
    }

    /// The partition table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The volumes, in the order of their partition numbers.
    pub fn volumes(&self) -> &[Arc<Volume>] {
        &self.volumes
    }

    /// What the user should be told before anything else, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
