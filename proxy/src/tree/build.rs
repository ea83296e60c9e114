//! How the tree comes about: from a disk, a machine, dated backups, a package.

use super::{Tree, TreeOptions, Warn};
use crate::{
    letters::MountPoints,
    machine::{self, Machine, Machines},
    own::{LazyDisk, Own, OwnId, OwnTree},
    source::{Source, SourceSpec},
    volume::Volume,
};
use disk_io::{DiskError, ErrorKind, Result};
use guest_fs::Name;
use inventory::Point;
use std::sync::{Arc, Mutex, OnceLock};

impl Tree {
    /// The tree of a disk: `/p1`, `/p2` …, or `/p0`; `/lvm/GROUP/VOLUME` and
    /// `/ldm/GROUP/VOLUME` for logical volumes.
    pub fn new(source: Arc<Source>, options: TreeOptions) -> Result<Self> {
        let mut tree = Self::empty(options);
        tree.add_source(OwnTree::ROOT, &source)?;
        tree.source = Some(source);
        Ok(tree)
    }

    /// The tree of whatever SOURCE is: a disk, a machine with its restore points, dated
    /// backups of one. Disks of machines are opened when they are entered.
    pub fn of(spec: &SourceSpec, options: TreeOptions) -> Result<Self> {
        if !options.guests {
            return Self::of_source(spec, options);
        }
        let mut tree = match Self::of_source(spec, options.clone()) {
            Ok(tree) => tree,
            // A directory of many machines is none of them.
            Err(e) if spec.path.is_dir() && e.kind() != ErrorKind::Io => Self::empty(options),
            Err(e) => return Err(e),
        };
        let guests = tree.own.directory(OwnTree::ROOT, &Name::from("guests"));
        for scanned in machine::scan(spec)? {
            tree.warnings.extend_from_slice(&scanned.inventory.warnings);
            for vm in &scanned.inventory.vms {
                let name = Name::from(vm.name().as_str());
                let dir = tree.own.add(guests, &name, Own::Directory);
                tree.add_machine(dir, &scanned.machine(vm, spec));
            }
        }
        Ok(tree)
    }

    fn of_source(spec: &SourceSpec, options: TreeOptions) -> Result<Self> {
        let Some(machines) = spec.machines()? else {
            return match Self::of_package(spec, &options)? {
                Some(tree) => Ok(tree),
                None => Self::new(Arc::new(Source::open_disk(spec)?), options),
            };
        };
        if spec.disk.is_some() {
            return Self::new(Arc::new(Source::open(spec)?), options);
        }
        let mut tree = Self::empty(options);
        match &machines {
            Machines::Dated(backups) | Machines::Forest(backups) if spec.snapshot.is_none() => {
                let (all, lost) = (&backups.all, &backups.lost);
                for (name, machine) in all {
                    let dir = tree.directory_of(name);
                    tree.add_machine(dir, machine);
                    let told = machine.vm().warnings.iter();
                    tree.warnings.extend(told.map(|w| format!("{name}: {w}")));
                }
                for (name, e) in lost {
                    tree.warnings.push(format!("{name} is left out: {e}"));
                    tree.add_lost(name, e);
                }
            }
            _ => {
                let (machine, date_used) = machines.only(spec.snapshot.as_deref())?;
                tree.warnings.extend_from_slice(&machine.vm().warnings);
                match spec.snapshot.as_deref().filter(|_| !date_used) {
                    Some(wanted) => {
                        let point = machine.point(Some(wanted))?.clone();
                        tree.add_point(OwnTree::ROOT, machine, &point);
                        tree.current = Some(OwnTree::ROOT);
                        tree.files.extend(machine.files());
                    }
                    None => tree.current = Some(tree.add_machine(OwnTree::ROOT, machine)),
                }
            }
        }
        Ok(tree)
    }

    /// The tree of a package with several disks: that of its machine, or one directory for each.
    /// One that has a single disk is that disk.
    fn of_package(spec: &SourceSpec, options: &TreeOptions) -> Result<Option<Self>> {
        if spec.disk.is_some() {
            return Ok(None);
        }
        let machines = spec.package_machines()?;
        let disks = machines.iter().flat_map(|m| &m.vm().points);
        if disks.map(|p| p.disks.len()).sum::<usize>() < 2 {
            return Ok(None);
        }
        let mut tree = Self::empty(options.clone());
        if let [only] = machines.as_slice() {
            tree.warnings.extend_from_slice(&only.vm().warnings);
            tree.current = Some(tree.add_machine(OwnTree::ROOT, only));
            return Ok(Some(tree));
        }
        for machine in &machines {
            let name = Name::from(machine.vm().name().as_str());
            let dir = tree.own.add(OwnTree::ROOT, &name, Own::Directory);
            tree.add_machine(dir, machine);
        }
        Ok(Some(tree))
    }

    /// The directory of a backup, by its path.
    fn directory_of(&self, path: &str) -> OwnId {
        let parts = path.split('/').map(Name::from);
        parts.fold(OwnTree::ROOT, |at, part| self.own.directory(at, &part))
    }

    /// A backup that cannot be entered, and says why.
    fn add_lost(&self, path: &str, why: &DiskError) {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let above = match above.is_empty() {
            true => OwnTree::ROOT,
            false => self.directory_of(above),
        };
        let why = why.clone();
        let lazy = LazyDisk {
            open: Box::new(move || Err(why.clone())),
            opened: OnceLock::new(),
        };
        self.own
            .add(above, &Name::from(name), Own::Disk(Arc::new(lazy)));
    }

    /// The restore points of a machine below `dir`: the directory of the present one.
    fn add_machine(&mut self, dir: OwnId, machine: &Machine) -> OwnId {
        self.files.extend(machine.files());
        let mut current = dir;
        let points = &machine.vm().points;
        for point in points {
            let below = match point.is_current() {
                true => {
                    current = self.own.directory(dir, &Name::from("current"));
                    current
                }
                false => {
                    let twins = points
                        .iter()
                        .filter(|p| p.name == point.name && !p.is_current());
                    let name = match (twins.count(), point.uid) {
                        (2.., Some(uid)) => format!("{} (id {uid})", point.name),
                        _ => point.name.clone(),
                    };
                    let snapshots = self.own.directory(dir, &Name::from("snapshots"));
                    self.own
                        .add(snapshots, &Name::from(name.as_str()), Own::Directory)
                }
            };
            self.add_point(below, machine, point);
        }
        current
    }

    fn add_point(&self, dir: OwnId, machine: &Machine, point: &Point) {
        self.points.push((dir, OnceLock::new()));
        let point = Arc::new(point.clone());
        for disk in &point.disks {
            let (machine, point, wanted) = (machine.clone(), point.clone(), disk.clone());
            let lazy = LazyDisk {
                open: Box::new(move || machine.open(&point, &wanted, point.is_current())),
                opened: OnceLock::new(),
            };
            let name = Name::from(disk.slot.in_path().as_str());
            self.own.add(dir, &name, Own::Disk(Arc::new(lazy)));
        }
    }

    /// The volumes of a disk below `parent`.
    fn add_source(&self, parent: OwnId, source: &Source) -> Result<()> {
        for volume in source.volumes() {
            self.add_volume(parent, volume.clone())?;
        }
        for logical in source.logical() {
            let directories = logical.directories.iter();
            let parent = directories.fold(parent, |at, name| self.own.directory(at, name));
            self.add_volume(parent, logical.volume.clone())?;
        }
        Ok(())
    }

    /// Opens the disk of an own entry, once.
    pub(super) fn enter_disk(&self, id: OwnId, lazy: &LazyDisk) -> Result<()> {
        if let Some(done) = lazy.opened.get() {
            return done.clone();
        }
        let _turn = self.growing.lock();
        if let Some(done) = lazy.opened.get() {
            return done.clone();
        }
        let done = match (lazy.open)() {
            // A mount lives long, and what failed to be read once may be read later.
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            // The name is there: what is missing is a file of the host.
            Err(e) => Err(match e.kind() {
                ErrorKind::NotFound => e.of_kind(ErrorKind::Corrupt),
                _ => e,
            }),
            Ok(source) => {
                let path = self.own.path(id);
                for warning in source.warnings() {
                    if let Some(Warn(warn)) = &self.options.warn {
                        warn(&format!("{path}: {warning}"));
                    }
                }
                self.add_source(id, &source)
            }
        };
        lazy.opened.get_or_init(|| done).clone()
    }

    /// The raw layout: `disk.img`, and `p1.img` … for the partitions.
    pub fn raw(source: Arc<Source>) -> Self {
        let mut tree = Self::empty(TreeOptions::default());
        let root = OwnTree::ROOT;
        let disk = Own::file(source.disk().clone());
        tree.own.add(root, &Name::from("disk.img"), disk);
        for volume in source.volumes() {
            if volume.partition().is_some() {
                let mut name = volume.name().as_bytes().to_vec();
                name.extend_from_slice(b".img");
                let part = Own::file(volume.disk().clone());
                tree.own.add(root, &Name::from_bytes(name), part);
            }
        }
        tree.source = Some(source);
        tree
    }

    /// A tree with nothing in it, to be filled with [`Self::add_directory`] and
    /// [`Self::add_volume`].
    pub fn empty(options: TreeOptions) -> Self {
        Self {
            own: OwnTree::default(),
            volumes: boxcar::Vec::new(),
            source: None,
            options,
            current: None,
            files: Vec::new(),
            warnings: Vec::new(),
            growing: Mutex::new(()),
            letters: OnceLock::new(),
            points: boxcar::Vec::new(),
            mount_points: MountPoints::default(),
            dir_doubts: Mutex::default(),
        }
    }

    /// The directory `name` of the tree's own below `parent`, made if it is not there.
    pub fn add_directory(&self, parent: OwnId, name: &Name) -> OwnId {
        self.own.directory(parent, name)
    }

    /// Puts a volume below `parent`, under its own name.
    ///
    /// Only one thread at a time may add volumes.
    pub fn add_volume(&self, parent: OwnId, volume: Arc<Volume>) -> Result<u16> {
        let name = volume.name().clone();
        self.add_volume_as(parent, &name, volume)
    }

    /// The same under another name than the volume's own.
    pub(crate) fn add_volume_as(
        &self,
        parent: OwnId,
        name: &Name,
        volume: Arc<Volume>,
    ) -> Result<u16> {
        let number = u16::try_from(self.volumes.count() + 1).map_err(|_| {
            DiskError::refused("building the tree")
                .expected("at most 65535 volumes")
                .found("more")
        })?;
        let door = self.own.add(parent, name, Own::Volume(number));
        self.volumes.push((volume, door));
        Ok(number)
    }
}
