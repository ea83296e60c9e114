//! SOURCE: what the user named on the command line, opened.

use crate::{
    datastore::{DatastoreSpec, Opening},
    machine,
    sets::{self, Logical, Member, Seat, Sets, Siblings},
    volume::Volume,
};
use disk_image::{Format, Image};
use disk_io::{Disk, DiskError, Layered, Memory, Opened, Result, error::escape};
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
    /// Files that are raw disks whatever they look like: a guest may have written anything to its
    /// first sector, and the manifest of a backup says which format its disks have.
    pub raw_disks: Vec<String>,
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
    /// Which disk, where SOURCE has several: a place such as `scsi0:0`, or what a package
    /// calls it.
    pub disk: Option<String>,
    /// Datastores in which SOURCE, and every name inside it, is looked up; where there is
    /// none, that is the host.
    pub datastores: Vec<DatastoreSpec>,
    /// Further members of the set that SOURCE belongs to: disks of an LVM2 or LDM group,
    /// devices of a VMFS volume. Order does not matter.
    pub with: Vec<PathBuf>,
    /// Open volumes of which a member is missing: what lies on it fails to read.
    pub allow_missing: bool,
    /// Where `disk` is one of all disks of a machine that are looked at in turn: a volume that lies
    /// on several is with the first of them, and else with whichever is asked for.
    pub in_turn: bool,
    /// How guest file systems are read.
    pub guest: guest_fs::OpenOptions,
    /// The memory budget; one is shared by the process if `None`.
    pub memory: Option<Arc<Memory>>,
}

impl SourceSpec {
    /// Opens SOURCE's file and nothing that it names.
    pub fn locate(&self) -> Result<Located> {
        if let Some(machines) = self.machines()? {
            let (machine, date_used) = machines.only(self.snapshot.as_deref())?;
            let wanted = self.snapshot.as_deref().filter(|_| !date_used);
            let slot = self.disk.as_deref().map(str::parse).transpose()?;
            let disk = machine.point(wanted)?.disk(slot)?;
            return Ok(Located {
                opened: machine.locate(disk)?,
                warnings: Vec::new(),
            });
        }
        if self.datastores.is_empty() {
            return Ok(Located {
                opened: machine::host_file(self)?,
                warnings: Vec::new(),
            });
        }
        let stores = Opening::open(self)?;
        Ok(Located {
            opened: stores.source(&self.path)?,
            warnings: stores.own_warnings(),
        })
    }

    /// Files and directories of the host beneath which SOURCE may lead while it is used: its own
    /// directory and those of whatever else was named. A device is itself alone.
    pub fn places(&self) -> Vec<PathBuf> {
        let devices = self.datastores.iter().flat_map(|d| &d.devices);
        let own =
            Some(&self.path).filter(|p| self.datastores.is_empty() && !p.as_os_str().is_empty());
        let named = own
            .into_iter()
            .chain(devices.map(|d| &d.path))
            .chain(&self.with)
            .chain(&self.parent);
        let mut all: Vec<PathBuf> = Vec::new();
        for path in named {
            let Ok(real) = path.canonicalize() else {
                continue;
            };
            let is_file = real.is_file();
            for spelling in [path, &real] {
                match spelling.parent().filter(|_| is_file) {
                    Some(dir) if dir.as_os_str().is_empty() => all.push(".".into()),
                    Some(dir) => all.push(dir.to_path_buf()),
                    None => all.push(spelling.clone()),
                }
            }
        }
        all.extend(self.allow_dirs.iter().cloned());
        all.extend(self.allow_devices.iter().cloned());
        let mut real: Vec<PathBuf> = all.iter().filter_map(|p| p.canonicalize().ok()).collect();
        real.sort();
        real.dedup();
        real
    }

    /// The format of a disk that is known without looking.
    pub fn format_of(&self, file: &Path) -> Option<Format> {
        let name = file.file_name()?;
        let raw = self.raw_disks.iter().any(|r| name == r.as_str());
        raw.then_some(Format::Raw)
    }

    /// How images are opened.
    pub fn image_options(&self) -> disk_image::OpenOptions {
        disk_image::OpenOptions {
            format: self.format,
            memory: self.memory.clone(),
            snapshot: self.snapshot.clone(),
            disk: self.disk.clone(),
            vmdk: vmdk::OpenOptions {
                ignore_cid: self.ignore_cid,
                ignore_dirty_journal: self.ignore_dirty_journal,
                parent: self.parent.clone(),
                memory: self.memory.clone(),
            },
            ..disk_image::OpenOptions::default()
        }
    }
}

/// SOURCE's file, found.
#[derive(Clone, Debug)]
pub struct Located {
    /// The file, with the place where what it names is looked up.
    pub opened: Opened,
    /// What the user should be told of the datastores.
    pub warnings: Vec<String>,
}

/// An opened SOURCE: the disk, its partition table, its volumes.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    image: Image,
    table: Table,
    volumes: Vec<Arc<Volume>>,
    logical: Vec<Logical>,
    members: Vec<Member>,
    warnings: Vec<String>,
    devices: Vec<PathBuf>,
}

impl Source {
    /// Opens SOURCE: image, chain, partition table. What the volumes hold is looked at when
    /// it is asked for; one that cannot be read stays in the list with its reason.
    ///
    /// Fails where there is no disk to show, and ([`disk_io::ErrorKind::Unsupported`]) where
    /// nothing known is found in a file that no format claims.
    ///
    /// Of a machine it is the one disk that is meant: its only one, or the one that
    /// [`SourceSpec::disk`] names, as of [`SourceSpec::snapshot`].
    pub fn open(spec: &SourceSpec) -> Result<Self> {
        if let Some(machines) = spec.machines()? {
            let (machine, date_used) = machines.only(spec.snapshot.as_deref())?;
            return machine.open_only(spec, date_used);
        }
        Self::open_disk(spec)
    }

    /// The same where SOURCE is known to be a disk.
    pub(crate) fn open_disk(spec: &SourceSpec) -> Result<Self> {
        if !spec.datastores.is_empty() {
            let stores = Opening::open(spec)?;
            let opened = stores.source(&spec.path)?;
            let mut source = Self::open_in(opened.clone(), spec)?;
            source.path = opened.path;
            source.warnings.extend(stores.warnings(&source.image));
            let devices = spec.datastores.iter().flat_map(|d| &d.devices);
            source.devices = devices.map(|d| d.path.clone()).collect();
            source.warn(source.one_of_one(spec));
            return Ok(source);
        }
        let mut source = Self::open_in(machine::host_file(spec)?, spec)?;
        source.warn(source.one_of_one(spec));
        Ok(source)
    }

    /// What to say where a disk was named, and SOURCE is one that has no place.
    fn one_of_one(&self, spec: &SourceSpec) -> Option<String> {
        let named = spec.disk.as_deref()?;
        let package = matches!(self.image.format, Format::Ova | Format::Ovf);
        (!package).then(|| format!("--disk {}: SOURCE is one disk, and is meant", escape(named)))
    }

    /// The same for a file that passed the gate already: a member of a datastore or archive.
    pub fn open_in(opened: Opened, spec: &SourceSpec) -> Result<Self> {
        Self::open_at(opened, spec, true, None)
    }

    /// The same; `newer` asks for a warning where disks were made on top of it. `siblings` are the
    /// other disks of its machine: they are opened where it is a member of a set.
    pub(crate) fn open_at(
        opened: Opened,
        spec: &SourceSpec,
        newer: bool,
        siblings: Option<&dyn Siblings>,
    ) -> Result<Self> {
        let (path, id) = (opened.path.clone(), opened.id);
        let image = disk_image::open(opened.clone(), &spec.image_options())?;
        let mut warnings = image.warnings.clone();
        // Also on a flat disk of ESX 2, which has no descriptor.
        if newer && (image.vmdk.is_some() || image.format == Format::Raw) {
            warnings.extend(newer_data(&opened));
        }
        let mut members = Member::open_all(spec, id)?;
        if let Some(siblings) = siblings {
            Member::hang(&mut members, siblings);
        }
        for member in &members {
            let name = escape(&member.path().display().to_string());
            let told = member.image().warnings.iter();
            warnings.extend(told.map(|w| format!("{name}: {w}")));
        }
        let seat = siblings.map_or(Seat::Lone, Siblings::seat);
        let mut assemble = |table: Option<&Table>| -> Result<Sets> {
            let all = |members: &[Member]| sets::assemble(&image.disk, table, seat, members, spec);
            let sets = all(&members)?;
            // Also where nothing lacks: another disk may know of a later state of the set.
            let Some(siblings) = siblings.filter(|_| sets.member) else {
                return Ok(sets);
            };
            let (more, lost) = Member::of_machine(siblings, id, &members);
            members.extend(more);
            let mut sets = all(&members)?;
            // In turn each fails by itself.
            if sets.lacking || seat == Seat::Asked {
                let lost = lost.into_iter();
                (sets.warnings).extend(lost.map(|(slot, e)| format!("{slot}: {e}")));
            }
            Ok(sets)
        };
        let (table, sets) = match partition::read(&image.disk) {
            Ok(table) => {
                let sets = assemble(Some(&table))?;
                (table, sets)
            }
            // The chain is still worth showing.
            Err(e) if image.believed => {
                let none = Table {
                    scheme: Scheme::None,
                    sector_size: image.disk.sector_size(),
                    uuid: None,
                    partitions: Vec::new(),
                    dynamic: false,
                    remarks: vec![format!("the partition table cannot be read: {e}")],
                    losses: Vec::new(),
                    rivals: Vec::new(),
                };
                let mut sets = assemble(None)?;
                let name = Name::from("p0");
                let volume = Volume::unreadable(name, image.disk.clone(), None, e);
                sets.volumes.push(Arc::new(volume));
                (none, sets)
            }
            Err(e) => return Err(e.file(path.display())),
        };
        let Sets {
            volumes,
            logical,
            warnings: told,
            ..
        } = sets;
        warnings.extend(table.remarks.iter().cloned());
        warnings.extend(told);
        if !image.believed && table.scheme == Scheme::None {
            let known = match volumes.first() {
                Some(volume) => volume.recognised().clone()?.is_some(),
                None => false,
            };
            if !known {
                return Err(DiskError::unsupported("opening as a disk")
                    .file(path.display())
                    .expected("a disk image, a partition table or a file system")
                    .found("nothing known")
                    .hint("if it is a raw disk, say so with --format raw"));
            }
        }
        Ok(Self {
            path,
            image,
            table,
            volumes,
            logical,
            members,
            warnings,
            devices: Vec::new(),
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

    /// Volumes over one or more disks: of LVM2 and LDM groups.
    pub fn logical(&self) -> &[Logical] {
        &self.logical
    }

    /// The further members that were given, in the order given.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The devices of the datastores that SOURCE was looked up in. If there are any, names
    /// in SOURCE's chain are names in them, not the host's.
    pub fn devices(&self) -> &[PathBuf] {
        &self.devices
    }

    /// More to tell.
    pub(crate) fn warn(&mut self, told: impl IntoIterator<Item = String>) {
        for warning in told {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }

    /// What the user should be told before anything else, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
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
