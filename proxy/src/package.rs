//! An OVF or OVA package as a place with machines: each `VirtualSystem` is shown as a
//! configuration (`.vmx`) beside the package's files, so that everything that reads machines
//! reads it.

mod config;
mod disks;

use crate::{
    datastore::{DatastoreSpec, Device, Opening},
    machine::{Machine, Machines, one_of},
    source::SourceSpec,
};
use disk_image::{
    Format,
    ova::{Archive, Package, UNPACK_LIMIT},
};
use disk_io::{DiskError, FileId, HostDir, Locate, MemDisk, Opened, Purpose, Result};
use disks::{Disks, Stand, plain};
use inventory::{Inventory, Listing, Place};
use std::{
    collections::{BTreeMap, HashSet},
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// A package, opened.
#[derive(Clone, Debug)]
pub(crate) struct PackagePlace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    id: FileId,
    /// Where its files are.
    files: Arc<dyn Locate>,
    /// The package; or why its descriptor cannot be read, which need not keep anybody from its
    /// disks.
    package: Result<Package>,
    /// Texts of the configurations that stand for its machines, by name.
    configs: BTreeMap<PathBuf, String>,
    /// What stands for disks that have no file.
    stands: BTreeMap<PathBuf, Stand>,
    /// Which disk of the descriptor a file holds.
    disks: BTreeMap<PathBuf, usize>,
    /// Disks that were opened: unpacking one takes time and room.
    opened: Mutex<BTreeMap<PathBuf, Opened>>,
}

impl PackagePlace {
    /// Opens a package (`Ova`, or the descriptor of one that is a directory: `Ovf`).
    pub(crate) fn open(source: &Opened, format: Format) -> Result<Self> {
        let files: Arc<dyn Locate> = match format {
            Format::Ova => Arc::new(Archive::open(source)?),
            _ => source.dir.clone(),
        };
        let package = Package::open(source, format);
        let Stands {
            configs,
            stands,
            disks,
        } = match &package {
            Ok(package) => Stands::of(package),
            Err(_) => Stands::default(),
        };
        Ok(Self(Arc::new(Inner {
            path: source.path.clone(),
            id: source.id,
            files,
            package,
            configs,
            stands,
            disks,
            opened: Mutex::default(),
        })))
    }
}

impl Inner {
    /// A disk of the package as its descriptor says: joined, unpacked.
    fn disk(&self, name: &Path) -> Option<Result<Opened>> {
        let package = self.package.as_ref().ok()?;
        let disk = package.descriptor.disks.get(*self.disks.get(name)?)?;
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = opened.get(name) {
            return Some(Ok(opened.clone()));
        }
        let found = package.open_disk(disk, UNPACK_LIMIT);
        if let Ok(found) = &found {
            opened.insert(name.to_path_buf(), found.clone());
        }
        Some(found)
    }
}

impl Locate for PackagePlace {
    fn open(&self, name: &Path, purpose: Purpose) -> Result<Opened> {
        let text = match (self.0.configs.get(name), self.0.stands.get(name)) {
            (Some(text), _) | (None, Some(Stand::Text(text))) => text,
            (None, Some(Stand::Missing(why))) => {
                return Err(DiskError::not_found("opening a disk of the package")
                    .file(self.0.path.display())
                    .expected("a disk that the machine has")
                    .found(why.as_str()));
            }
            (None, None) => {
                return match (self.0.disk(name), &self.0.package) {
                    (Some(opened), _) => opened,
                    (None, Ok(package)) => {
                        let name = package.beside(&name.to_string_lossy());
                        self.0.files.open(&name, purpose)
                    }
                    (None, Err(_)) => self.0.files.open(name, purpose),
                };
            }
        };
        let names = self.0.configs.keys().chain(self.0.stands.keys());
        let number = names.take_while(|n| *n != name).count();
        Ok(Opened {
            disk: Arc::new(MemDisk::new(text.as_str())),
            path: self.0.path.join(name),
            // Those of two packages differ, and so do those of one.
            id: FileId {
                container: self.0.id.container.rotate_left(32) ^ self.0.id.file,
                file: u64::MAX.wrapping_sub(number as u64),
            },
            dir: Arc::new(self.clone()),
        })
    }

    fn list(&self, limit: usize) -> Result<Vec<PathBuf>> {
        self.0.files.list(limit)
    }

    fn describe(&self) -> String {
        self.0.path.display().to_string()
    }
}

impl Place for PackagePlace {
    fn list(&self, dir: &Path) -> Result<Listing> {
        if dir.components().any(|part| part != Component::CurDir) {
            return Err(DiskError::not_found("listing a directory of the package")
                .file(self.0.path.join(dir).display())
                .found("no directory"));
        }
        let package = self.0.package.as_ref().map_err(Clone::clone)?;
        let configs = self.0.configs.iter();
        let configs = configs.map(|(name, text)| (name.clone(), text.len() as u64));
        // Its disks are told by its machines.
        let descriptor = &package.descriptor;
        let disks = descriptor.disks.iter();
        let disks: HashSet<&str> = disks.filter_map(|d| d.file.as_deref()).collect();
        let files = descriptor.files.iter();
        let files = files.filter(|f| !disks.contains(f.id.as_str()));
        let files = files.map(|f| (PathBuf::from(&f.href), f.size.unwrap_or(0)));
        let mut listing = Listing {
            directories: Vec::new(),
            files: configs.chain(files).collect(),
        };
        listing.files.sort();
        listing.files.dedup();
        Ok(listing)
    }

    fn gate(&self, _dir: &Path) -> Result<Arc<dyn Locate>> {
        Ok(Arc::new(self.clone()))
    }

    fn describe(&self) -> String {
        self.0.path.display().to_string()
    }
}

/// What a package has besides its files.
#[derive(Default)]
struct Stands {
    configs: BTreeMap<PathBuf, String>,
    stands: BTreeMap<PathBuf, Stand>,
    disks: BTreeMap<PathBuf, usize>,
}

impl Stands {
    /// The machines as configurations, each under a name of its own.
    fn of(package: &Package) -> Self {
        let descriptor = &package.descriptor;
        let mut all = Disks::of(descriptor);
        let mut found = Self::default();
        for (number, disk) in descriptor.disks.iter().enumerate() {
            if let Some(file) = all.file(disk) {
                let name = PathBuf::from(&file.href);
                found.disks.entry(name).or_insert(number);
            }
        }
        for (number, system) in (1..).zip(&descriptor.systems) {
            let base = plain(&system.id, &format!("machine-{number}"));
            let name = all.unused(&base, "vmx");
            let text = config::text(&mut all, system);
            found.configs.insert(name.into(), text);
        }
        let stands = all.stands.into_iter();
        found.stands = stands.map(|(name, s)| (name.into(), s)).collect();
        found
    }
}

impl SourceSpec {
    /// SOURCE as what is looked up in a package, where it is one.
    pub(crate) fn in_package(&self) -> Option<Self> {
        if !self.datastores.is_empty() || self.format.is_some() {
            return None;
        }
        self.is_package(&self.path).then_some(())?;
        let device = Device {
            path: self.path.clone(),
            partition: None,
        };
        Some(Self {
            path: PathBuf::new(),
            datastores: vec![DatastoreSpec {
                name: None,
                devices: vec![device],
            }],
            ..self.clone()
        })
    }

    fn is_package(&self, path: &Path) -> bool {
        let format = || {
            let opened = HostDir::open_source(path, &self.allowed()).ok()?;
            disk_image::probe(&*opened.disk).ok()?
        };
        path.is_file() && matches!(format(), Some(Format::Ova | Format::Ovf))
    }

    /// The package that SOURCE is, or that it is looked up in.
    pub fn package_file(&self) -> Option<&Path> {
        let path = match self.datastores.as_slice() {
            [] => &self.path,
            [only] => match only.devices.as_slice() {
                [device] => &device.path,
                _ => return None,
            },
            _ => return None,
        };
        self.is_package(path).then_some(path)
    }

    /// The machines of SOURCE, where that is a package; none for anything else.
    pub(crate) fn package_machines(&self) -> Result<Vec<Machine>> {
        let Some(inside) = self.in_package() else {
            return Ok(Vec::new());
        };
        let Opening::Package(place) = Opening::open(&inside)? else {
            return Ok(Vec::new());
        };
        let place: Arc<dyn Place> = Arc::new(place);
        let vms = Inventory::scan(&*place)?.vms.into_iter();
        Ok(vms
            .map(|vm| Machine::new(vm, place.clone(), inside.clone()))
            .collect())
    }

    /// The machine of SOURCE, where that is a package with one; `None` for anything else.
    ///
    /// Besides [`Self::machines`], because a package is also a disk: to whoever reads files, the
    /// only one in it, or the one that `--disk` names.
    ///
    /// # Errors
    /// A package that cannot be read, or with several machines.
    pub fn packaged(&self) -> Result<Option<Machines>> {
        let mut all = self.package_machines()?;
        if all.len() > 1 {
            let names = all.iter().map(|m| m.vm().config_file.display().to_string());
            let package = self.path.display();
            return Err(one_of(
                "opening the package as a machine",
                &package.to_string(),
                names.collect(),
                &format!("name one: --datastore '{package}' and its name"),
            ));
        }
        Ok(all.pop().map(|one| Machines::One(Box::new(one))))
    }
}

/// A package that lies in a directory: its machines, and the files of that directory that belong
/// to it.
pub(crate) struct Found {
    pub(crate) place: Arc<dyn Place>,
    pub(crate) inside: SourceSpec,
    pub(crate) inventory: Inventory,
    pub(crate) files: Vec<PathBuf>,
}

/// The package in the file `path` of the host; `None` if it is none.
pub(crate) fn find(path: &Path, spec: &SourceSpec) -> Result<Option<Found>> {
    let spec = SourceSpec {
        path: path.to_path_buf(),
        ..spec.clone()
    };
    let Some(inside) = spec.in_package() else {
        return Ok(None);
    };
    let Opening::Package(place) = Opening::open(&inside)? else {
        return Ok(None);
    };
    let package = place.0.package.as_ref().map_err(Clone::clone)?;
    let files = package.descriptor.files.iter();
    let files = files.map(|f| PathBuf::from(&f.href)).collect();
    let place: Arc<dyn Place> = Arc::new(place);
    Ok(Some(Found {
        inventory: Inventory::scan(&*place)?,
        place,
        inside,
        files,
    }))
}
