//! SOURCE as a virtual machine: which one is meant, its restore points, their disks.
//!
//! | module | holds |
//! |---|---|
//! | `dated` | directories of backups: which machines they are of, and in which order |
//! | `allowed` | a disk that is named on another host, in the directories that are allowed |
//! | `disks` | the file of a disk that a configuration names, and whether chain and snapshots agree |

mod allowed;
mod dated;
mod disks;

use crate::{
    datastore::{DatastoreSpec, Device, Opening},
    package,
    sets::{Hung, Seat, Siblings},
    source::{Source, SourceSpec},
};
use disk_io::{
    DiskError, ErrorKind, FileId, HostDir, Locate, Opened, Purpose, Result, error::escape,
    host_dir::Allowed,
};
use inventory::{
    Config, HostPlace, Inventory, Listing, Place, Point, PointDisk, Slot, Vm, vm::CURRENT,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// How much of a file is looked at to tell a configuration.
const HEAD: u64 = 64 << 10;

/// A machine with the place that it was found in.
#[derive(Clone, Debug)]
pub struct Machine {
    vm: Vm,
    place: Arc<dyn Place>,
    spec: SourceSpec,
}

/// SOURCE as machines.
#[derive(Clone, Debug)]
pub enum Machines {
    /// One.
    One(Box<Machine>),
    /// Backups of one, the oldest first.
    Dated(Backups),
    /// Backups of several: `web01/2026-11-01`, or `2026-11-01/web01`.
    Forest(Backups),
}

/// Dated backups, by the paths of their directories.
#[derive(Clone, Debug, Default)]
pub struct Backups {
    /// Those that are machines.
    pub all: Vec<(String, Machine)>,
    /// Directories with a date and disks whose machine cannot be read, and why.
    pub lost: Vec<(String, DiskError)>,
}

/// A place and a path in it.
pub(crate) struct Spot {
    pub(crate) place: Arc<dyn Place>,
    pub(crate) path: PathBuf,
}

impl SourceSpec {
    /// Where SOURCE lies. For a directory of the host the place is that directory, so that
    /// all of it counts as SOURCE's own.
    pub(crate) fn spot(&self) -> Result<Option<Spot>> {
        if !self.datastores.is_empty() {
            return Opening::open(self)?.spot(&self.path, &self.allowed());
        }
        let spot = |root: &Path, path: &Path| {
            Ok(Some(Spot {
                place: Arc::new(HostPlace::new(root, &self.allowed())?),
                path: path.to_path_buf(),
            }))
        };
        // SOURCE's own symbolic link is followed; one that names nothing is for the opening
        // of a disk to refuse.
        let Ok(path) = self.path.canonicalize() else {
            return Ok(None);
        };
        if path.is_dir() {
            return spot(&path, Path::new(""));
        }
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) if path.is_file() => spot(parent, Path::new(name)),
            _ => Ok(None),
        }
    }

    pub(crate) fn allowed(&self) -> Allowed {
        Allowed {
            dirs: self.allow_dirs.clone(),
            devices: self.allow_devices.clone(),
            open_files: 0,
        }
    }

    /// SOURCE as machines; `None` where it is a disk.
    ///
    /// # Errors
    /// A directory without a machine, or with several that are no backups of one.
    pub fn machines(&self) -> Result<Option<Machines>> {
        // What is said of the format is said of a disk.
        if self.format.is_some() {
            return Ok(None);
        }
        let Some(Spot { place, path }) = self.spot()? else {
            return Ok(None);
        };
        let machine = |vm| Machine {
            vm,
            place: place.clone(),
            spec: self.clone(),
        };
        if let Ok(listing) = place.list(&path) {
            return dated::directory(&*place, &path, &listing, &machine).map(Some);
        }
        let dir = path.parent().unwrap_or(Path::new(""));
        let Some(name) = path.file_name().map(Path::new) else {
            return Ok(None);
        };
        if !is_config(&*place, dir, name) {
            return Ok(None);
        }
        let listing = place.list(dir)?;
        let vm = Vm::read(&*place, dir, name, &listing)?;
        Ok(Some(Machines::One(Box::new(machine(vm)))))
    }
}

/// There are several machines, and one is meant.
pub(crate) fn one_of(
    doing: &'static str,
    place: &str,
    names: Vec<String>,
    hint: &str,
) -> DiskError {
    DiskError::new(ErrorKind::Ambiguous, doing)
        .file(place)
        .expected("one virtual machine, or dated backups of one")
        .found(names.join(", "))
        .hint(hint)
}

/// Configurations of a directory, by name and content.
fn configs(place: &dyn Place, dir: &Path, listing: &Listing) -> Result<Vec<PathBuf>> {
    let named = listing.files.iter().filter(|(name, _)| {
        let extension = name.extension();
        extension.is_some_and(|e| e.eq_ignore_ascii_case("vmx") || e.eq_ignore_ascii_case("vmtx"))
    });
    Ok(named
        .filter(|(name, _)| is_config(place, dir, name))
        .map(|(name, _)| name.clone())
        .collect())
}

fn is_config(place: &dyn Place, dir: &Path, name: &Path) -> bool {
    let head = || -> Result<Vec<u8>> {
        let opened = place.gate(dir)?.open(name, Purpose::Member)?;
        let mut head = vec![0; usize::try_from(opened.disk.len().min(HEAD)).unwrap_or(0)];
        opened.disk.read_exact_at(&mut head, 0)?;
        Ok(head)
    };
    head().is_ok_and(|head| !head.contains(&0) && Config::is_one(&head))
}

impl Machines {
    /// The machine, where there is one; of dated backups the one that `--snapshot date:…`
    /// means, and then what is left to choose.
    pub fn only(&self, wanted: Option<&str>) -> Result<(&Machine, bool)> {
        let (backups, several) = match self {
            Self::One(machine) => return Ok((machine, false)),
            Self::Dated(backups) => (backups, false),
            Self::Forest(backups) => (backups, true),
        };
        let date = wanted.and_then(|w| w.strip_prefix("date:"));
        let exact = |name: &String| date == Some(name.as_str());
        if let Some((_, e)) = backups.lost.iter().find(|(name, _)| exact(name)) {
            return Err(e.clone());
        }
        let all = &backups.all;
        let one = all.iter().find(|(name, _)| exact(name));
        let fits = |name: &str| date.is_none_or(|d| name.contains(d));
        let found: Vec<_> = match one {
            Some(one) => vec![one],
            None => all.iter().filter(|(name, _)| fits(name)).collect(),
        };
        let lost = || backups.lost.iter().filter(|(name, _)| fits(name));
        match found.as_slice() {
            [(_, only)] if one.is_some() || lost().next().is_none() => Ok((only, date.is_some())),
            _ => {
                let lost = backups.lost.iter().map(|(name, _)| name);
                let names = all.iter().map(|(name, _)| name).chain(lost).take(32);
                let names: Vec<_> = names.cloned().collect();
                if several {
                    return Err(DiskError::new(
                        ErrorKind::Ambiguous,
                        "choosing one of the machines",
                    )
                    .expected("the directory of one, or of one's backups")
                    .found(names.join(", "))
                    .hint("name that directory"));
                }
                Err(
                    DiskError::new(ErrorKind::Ambiguous, "choosing one of the dated backups")
                        .expected("one of them")
                        .found(names.join(", "))
                        .hint("say which with --snapshot date:…, or name its directory"),
                )
            }
        }
    }
}

impl Machine {
    pub(crate) fn new(vm: Vm, place: Arc<dyn Place>, spec: SourceSpec) -> Self {
        Self { vm, place, spec }
    }

    /// What its files say.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// The state that `--snapshot` means; the present one without.
    pub fn point(&self, wanted: Option<&str>) -> Result<&Point> {
        self.vm.point(wanted.unwrap_or(CURRENT))
    }

    /// Files of the host that belong to it: those of its directory, and disks that it names
    /// elsewhere.
    pub fn files(&self) -> Vec<PathBuf> {
        if !self.spec.datastores.is_empty() {
            let devices = self.spec.datastores.iter().flat_map(|d| &d.devices);
            return devices.map(|d| d.path.clone()).collect();
        }
        let listing = self.place.list(&self.vm.dir).unwrap_or_default();
        let dir = Path::new(&self.place.describe()).join(&self.vm.dir);
        let disks = self.vm.points.iter().flat_map(|p| &p.disks);
        let elsewhere = disks.filter_map(|d| Some(self.locate(d).ok()?.path));
        let own = listing.files.iter().map(|(name, _)| dir.join(name));
        own.chain(elsewhere).collect()
    }

    /// A file of its directory, through the gate.
    pub fn file(&self, name: &Path) -> Result<Opened> {
        self.place.gate(&self.vm.dir)?.open(name, Purpose::Member)
    }

    /// The machine alone as SOURCE, wherever it was found among others.
    pub fn as_source(&self) -> SourceSpec {
        let config = self.vm.dir.join(&self.vm.config_file);
        let mut spec = self.spec.clone();
        if spec.datastores.is_empty() {
            spec.path = Path::new(&self.place.describe()).join(config);
            // What lay in SOURCE may still be named.
            spec.allow_dirs.push(self.place.describe().into());
        } else {
            spec.path = config;
        }
        spec
    }

    /// The directory of the host that it lies in; `None` in a datastore.
    pub fn host_dir(&self) -> Option<PathBuf> {
        let is_host = self.spec.datastores.is_empty();
        is_host.then(|| Path::new(&self.place.describe()).join(&self.vm.dir))
    }

    /// A disk of a restore point, with its chain and volumes; `newer` asks for a warning
    /// where disks were made on top of it. Volumes that lie on several disks of the point are
    /// with the first of them.
    pub fn open(&self, point: &Point, disk: &PointDisk, newer: bool) -> Result<Source> {
        self.open_as(point, disk, newer, false)
    }

    /// The same; a disk that is `alone` has all volumes that lie on it.
    fn open_as(&self, point: &Point, disk: &PointDisk, newer: bool, alone: bool) -> Result<Source> {
        let spec = self.spec_of(disk);
        let (opened, told) = self.find(disk)?;
        let beside = Beside {
            machine: self,
            point,
            disk,
            alone,
        };
        let mut source = Source::open_at(opened, &spec, newer, Some(&beside))?;
        source.warn(told);
        source.warn(self.contradictions(disk, source.image()));
        Ok(source)
    }

    fn spec_of(&self, disk: &PointDisk) -> SourceSpec {
        SourceSpec {
            snapshot: None,
            disk: None,
            format: self.spec.format_of(Path::new(&disk.file)),
            ..self.spec.clone()
        }
    }

    /// The one disk that SOURCE and its options mean.
    pub(crate) fn open_only(&self, spec: &SourceSpec, date_used: bool) -> Result<Source> {
        let wanted = spec.snapshot.as_deref().filter(|_| !date_used);
        let point = self.point(wanted)?;
        let slot = spec.disk.as_deref().map(str::parse::<Slot>).transpose()?;
        let disk = point.disk(slot)?;
        let mut source = self.open_as(point, disk, point.is_current(), !spec.in_turn)?;
        // What is said of other disks is of no matter here.
        let others: Vec<Slot> = self.vm.slots().filter(|slot| *slot != disk.slot).collect();
        let of_others = |w: &&String| others.iter().any(|o| w.starts_with(&format!("{o}: ")));
        let told = self.vm.warnings.iter().filter(|w| !of_others(w)).cloned();
        source.warn(told);
        Ok(source)
    }
}

/// The other disks of a point.
struct Beside<'a> {
    machine: &'a Machine,
    point: &'a Point,
    disk: &'a PointDisk,
    alone: bool,
}

impl Beside<'_> {
    fn hung(&self, disk: &PointDisk) -> Hung {
        let mut disks = self.point.disks.iter();
        Hung {
            order: disks
                .position(|d| d.slot == disk.slot)
                .unwrap_or(usize::MAX),
            slot: disk.slot,
        }
    }
}

impl Siblings for Beside<'_> {
    fn seat(&self) -> Seat {
        match self.alone {
            true => Seat::Asked,
            false => Seat::InTurn(self.hung(self.disk)),
        }
    }

    fn others(&self) -> Vec<(Hung, Result<FileId>)> {
        let others = self.point.disks.iter();
        let others = others.filter(|d| d.slot != self.disk.slot);
        let id = |d: &PointDisk| self.machine.locate(d).map(|opened| opened.id);
        others.map(|d| (self.hung(d), id(d))).collect()
    }

    fn open(&self, hung: &Hung) -> Result<(Opened, SourceSpec)> {
        let disk = self.point.disk(Some(hung.slot))?;
        if let Some(kind) = self.machine.raw_device(disk) {
            return Err(DiskError::unsupported("opening a disk of the machine")
                .file(escape(&disk.file))
                .found(format!("a {kind} raw device map")));
        }
        Ok((self.machine.locate(disk)?, self.machine.spec_of(disk)))
    }
}

/// A place with what it holds.
#[derive(Debug)]
pub struct Scanned {
    /// The place.
    pub place: Arc<dyn Place>,
    /// Its machines.
    pub inventory: Inventory,
    /// The datastores, where a disk was taken for one.
    datastores: Option<Vec<DatastoreSpec>>,
    /// Disks of packages in it (paths relative to the place).
    pub packaged: Vec<PathBuf>,
}

impl Scanned {
    /// The datastores that paths of the place are in; `None` for a place that SOURCE itself is.
    pub fn datastores(&self) -> Option<&[DatastoreSpec]> {
        self.datastores.as_deref()
    }
}

/// Looks for machines in SOURCE: a directory, a configuration, a package, a datastore; of
/// several datastores in each of them, where SOURCE is empty.
pub fn scan(spec: &SourceSpec) -> Result<Vec<Scanned>> {
    if spec.path.as_os_str().is_empty() {
        let places = Opening::open(spec)?.places(&spec.allowed())?;
        return places
            .into_iter()
            .map(|place| {
                let inventory = Inventory::scan(&*place)?;
                Ok(Scanned {
                    place,
                    inventory,
                    datastores: Some(spec.datastores.clone()),
                    packaged: Vec::new(),
                })
            })
            .collect();
    }
    let Some(Spot { place, path }) = spec.spot()? else {
        if spec.datastores.is_empty() {
            // One that is not there says so itself.
            host_file(spec)?;
        }
        return Err(DiskError::not_found("looking for virtual machines")
            .file(spec.path.display())
            .expected("a directory, a datastore (-D) or a configuration (.vmx)"));
    };
    if place.list(&path).is_ok() {
        let place: Arc<dyn Place> = Arc::new(Below { place, path });
        let inventory = Inventory::scan(&*place)?;
        let scanned = Scanned {
            place,
            inventory,
            datastores: None,
            packaged: Vec::new(),
        };
        return Ok(match spec.datastores.is_empty() {
            true => with_packages(scanned, spec),
            false => vec![scanned],
        });
    }
    // A configuration: it alone.
    let dir = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let name = path.file_name().map(Path::new).unwrap_or(Path::new(""));
    if is_config(&*place, &dir, name) {
        let listing = place.list(&dir)?;
        let vm = Vm::read(&*place, &dir, name, &listing)?;
        let inventory = Inventory {
            vms: vec![vm],
            ..Inventory::default()
        };
        return Ok(vec![Scanned {
            place,
            inventory,
            datastores: None,
            packaged: Vec::new(),
        }]);
    }
    if !spec.datastores.is_empty() {
        return Err(DiskError::unsupported("looking for virtual machines")
            .file(spec.path.display())
            .expected("a directory or a configuration (.vmx)")
            .found("another file"));
    }
    // A disk may be a datastore.
    let device = Device {
        path: spec.path.clone(),
        partition: None,
    };
    let as_datastore = SourceSpec {
        path: PathBuf::new(),
        datastores: vec![DatastoreSpec {
            name: None,
            devices: std::iter::once(device)
                .chain(spec.with.iter().map(|path| Device {
                    path: path.clone(),
                    partition: None,
                }))
                .collect(),
        }],
        with: Vec::new(),
        ..spec.clone()
    };
    scan(&as_datastore)
}

/// A directory of the host, and the packages in it as places of their own.
fn with_packages(mut own: Scanned, spec: &SourceSpec) -> Vec<Scanned> {
    let root = PathBuf::from(own.place.describe());
    let is_named = |name: &Path| {
        let extension = name.extension();
        extension.is_some_and(|e| e.eq_ignore_ascii_case("ova") || e.eq_ignore_ascii_case("ovf"))
    };
    let directories = own.inventory.directories.iter();
    let names = directories.flat_map(|(dir, listing)| {
        let named = listing.files.iter().filter(|(n, _)| is_named(n));
        named.map(move |(name, _)| dir.join(name))
    });
    let names: Vec<PathBuf> = names.collect();
    let mut packages = Vec::new();
    for name in names {
        match package::find(&root.join(&name), spec) {
            Ok(None) => {}
            Ok(Some(found)) => {
                let dir = name.parent().unwrap_or(Path::new(""));
                own.packaged.extend(found.files.iter().map(|f| dir.join(f)));
                packages.push(Scanned {
                    place: found.place,
                    inventory: found.inventory,
                    datastores: Some(found.inside.datastores),
                    packaged: Vec::new(),
                });
            }
            Err(e) => own.inventory.warnings.push(e.to_string()),
        }
    }
    std::iter::once(own).chain(packages).collect()
}

impl Scanned {
    /// A machine of the inventory, to open its disks.
    pub fn machine(&self, vm: &Vm, spec: &SourceSpec) -> Machine {
        Machine {
            vm: vm.clone(),
            place: self.place.clone(),
            spec: SourceSpec {
                datastores: match &self.datastores {
                    Some(datastores) => datastores.clone(),
                    None => spec.datastores.clone(),
                },
                ..spec.clone()
            },
        }
    }

    /// A full name as gates give it, as a path of the place.
    pub fn relative(&self, full: &Path) -> PathBuf {
        let text = full.display().to_string();
        let place = self.place.describe();
        let below = text.strip_prefix(&place).unwrap_or(&text);
        let mut path = PathBuf::new();
        for part in Path::new(below.trim_start_matches([' ', '/'])).components() {
            match part {
                std::path::Component::ParentDir => {
                    path.pop();
                }
                std::path::Component::Normal(name) => path.push(name),
                _ => {}
            }
        }
        path
    }
}

/// What is known of a disk of a machine when it is opened.
#[derive(Clone, Debug)]
pub struct DiskFacts {
    /// Its format.
    pub format: disk_image::Format,
    /// `createType` of a VMDK.
    pub create_type: Option<String>,
    /// Length in bytes.
    pub len: u64,
    /// Its links, the newest first.
    pub chain: Vec<PathBuf>,
    /// Every file of it.
    pub files: Vec<PathBuf>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Machine {
    /// Opens a disk's chain, and none of its volumes.
    pub fn describe(&self, disk: &PointDisk) -> Result<DiskFacts> {
        let (opened, told) = self.find(disk)?;
        let image = disk_image::open(opened, &self.spec_of(disk).image_options())?;
        let mut warnings = image.warnings.clone();
        warnings.extend(told);
        warnings.extend(self.contradictions(disk, &image));
        let links = image.vmdk.iter().flat_map(|v| v.links());
        let extents = links.flat_map(|l| l.extents.iter().filter_map(|e| e.file.clone()));
        let chain: Vec<PathBuf> = image.links.iter().map(|l| l.path.clone()).collect();
        let first = image.vmdk.as_ref().and_then(|v| v.links().first());
        Ok(DiskFacts {
            format: image.format,
            create_type: first.and_then(|l| l.create_type.clone()),
            len: image.disk.len(),
            files: chain.iter().cloned().chain(extents).collect(),
            chain,
            warnings,
        })
    }

    /// What kind of raw device a disk stands for, if it does: `physical` or `virtual`. Its
    /// data is on a LUN and not here.
    pub fn raw_device(&self, disk: &PointDisk) -> Option<&'static str> {
        let opened = self.locate(disk).ok()?;
        let name = opened.path.display().to_string();
        let descriptor = vmdk::Descriptor::read(&*opened.disk, &name).ok()?;
        let kind = descriptor.create_type()?.to_ascii_lowercase();
        if !kind.contains("rawdevicemap") {
            return None;
        }
        Some(match kind.contains("passthrough") {
            true => "physical",
            false => "virtual",
        })
    }
}

/// A directory of a place as a place of its own; what lies above it can still be named.
#[derive(Debug)]
struct Below {
    place: Arc<dyn Place>,
    path: PathBuf,
}

impl Below {
    fn full(&self, dir: &Path) -> PathBuf {
        match dir.as_os_str().is_empty() {
            true => self.path.clone(),
            false => self.path.join(dir),
        }
    }
}

impl Place for Below {
    fn list(&self, dir: &Path) -> Result<Listing> {
        self.place.list(&self.full(dir))
    }

    fn gate(&self, dir: &Path) -> Result<Arc<dyn Locate>> {
        self.place.gate(&self.full(dir))
    }

    fn describe(&self) -> String {
        match self.path.as_os_str().is_empty() {
            true => self.place.describe(),
            false => format!("{}/{}", self.place.describe(), self.path.display()),
        }
    }
}

/// A file of the host, for what is no machine.
pub(crate) fn host_file(spec: &SourceSpec) -> Result<Opened> {
    HostDir::open_source(&spec.path, &spec.allowed())
}
