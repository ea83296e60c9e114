//! Datastores (`--datastore`): SOURCE and every name inside it are looked up in them.
//!
//! A datastore is a VMFS volume (over one or more devices, each of them any image or block
//! device), a package (OVA, or an OVF descriptor with its files), or a directory of the host.
//! Nothing outside is opened.

use crate::{machine::Spot, package::PackagePlace, source::SourceSpec, vmfs_place::VmfsPlace};
use disk_image::{Format, Image};
use disk_io::{
    Disk, DiskError, ErrorKind, Finding, HostDir, Locate, Opened, Purpose, Result, Severity,
    error::escape, host_dir::Allowed,
};
use guest_fs::{
    partition::{self, Scheme},
    vmfs,
};
use inventory::{HostPlace, Place};
use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};
use vmfs_reader::{Datastores, FileKind, Volume};

/// A datastore as the user named it: `[NAME=]D[,D…]`, each D with `#pN` where one of its
/// partitions is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatastoreSpec {
    /// What it is called besides its own names.
    pub name: Option<String>,
    /// Its devices, in any order.
    pub devices: Vec<Device>,
}

/// One device of a datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Image, block device, package or directory.
    pub path: PathBuf,
    /// The partition that is meant, by Linux's number.
    pub partition: Option<u32>,
}

impl FromStr for DatastoreSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A path that exists is taken as it stands, whatever signs are in it.
        if Path::new(text).exists() {
            let device = Device {
                path: text.into(),
                partition: None,
            };
            return Ok(Self {
                name: None,
                devices: vec![device],
            });
        }
        let (name, rest) = match text.split_once('=') {
            Some((name, rest)) if !name.is_empty() && !name.contains('/') => (Some(name), rest),
            _ => (None, text),
        };
        let devices: Vec<Device> = rest.split(',').map(device).collect();
        if devices.iter().any(|d| d.path.as_os_str().is_empty()) {
            return Err(format!("{text:?}: expected [NAME=]DEVICE[,DEVICE…]"));
        }
        Ok(Self {
            name: name.map(str::to_owned),
            devices,
        })
    }
}

fn device(text: &str) -> Device {
    let partition = text
        .rsplit_once("#p")
        .and_then(|(path, number)| Some((path, number.parse().ok()?)));
    match partition {
        Some((path, number)) if !Path::new(text).exists() => Device {
            path: path.into(),
            partition: Some(number),
        },
        _ => Device {
            path: text.into(),
            partition: None,
        },
    }
}

/// The datastores of a command, opened.
#[derive(Debug)]
pub(crate) enum Opening {
    /// VMFS volumes, which may name each other's files.
    Vmfs(Datastores),
    /// One directory of the host.
    Directory {
        place: Arc<dyn Locate>,
        root: PathBuf,
        name: Option<String>,
    },
    /// One package.
    Package(PackagePlace),
}

impl Opening {
    /// Opens what `spec` names.
    pub(crate) fn open(spec: &SourceSpec) -> Result<Self> {
        let [only] = spec.datastores.as_slice() else {
            let volumes = spec.datastores.iter().map(|d| volume(d, spec));
            return Ok(Self::Vmfs(Datastores::new(volumes.collect::<Result<_>>()?)));
        };
        if let [device] = only.devices.as_slice()
            && device.partition.is_none()
        {
            let allowed = spec.allowed();
            if device.path.is_dir() {
                return Ok(Self::Directory {
                    place: Arc::new(HostDir::new(&device.path, &allowed)?),
                    root: device.path.clone(),
                    name: only.name.clone(),
                });
            }
            let opened = HostDir::open_source(&device.path, &allowed)?;
            if let Some(format @ (Format::Ova | Format::Ovf)) = disk_image::probe(&*opened.disk)? {
                return Ok(Self::Package(PackagePlace::open(&opened, format)?));
            }
        }
        Ok(Self::Vmfs(Datastores::new(vec![volume(only, spec)?])))
    }

    /// Opens SOURCE. A name that several datastores have is `Ambiguous`.
    pub(crate) fn source(&self, path: &Path) -> Result<Opened> {
        let stores = match self {
            Self::Directory { place, name, .. } => {
                let path = in_directory(path, name.as_deref())?;
                return place.open(&path, Purpose::Member);
            }
            Self::Package(place) => return place.open(path, Purpose::Member),
            Self::Vmfs(stores) => stores,
        };
        let name = path.as_os_str().as_bytes();
        if name.starts_with(b"[") || name.starts_with(b"/vmfs/volumes/") {
            return stores.open(0, name);
        }
        let mut found = Vec::new();
        let mut missing = None;
        for number in 0..stores.volumes().count() {
            match stores.open(number, name) {
                Ok(opened) => found.push(opened),
                Err(e) if e.kind() == ErrorKind::NotFound => missing = missing.or(Some(e)),
                Err(e) => return Err(e),
            }
        }
        if found.len() > 1 {
            let names: Vec<_> = found.iter().map(|o| o.path.display().to_string()).collect();
            return Err(
                DiskError::new(ErrorKind::Ambiguous, "opening a file of a datastore")
                    .file(path.display())
                    .expected("one datastore that has it")
                    .found(names.join(", "))
                    .hint("name the datastore: '[label] path'"),
            );
        }
        found.pop().ok_or_else(|| {
            missing.unwrap_or_else(|| DiskError::not_found("opening a file of a datastore"))
        })
    }

    /// Every datastore as a place where machines are looked for.
    pub(crate) fn places(self, allowed: &Allowed) -> Result<Vec<Arc<dyn Place>>> {
        match self {
            Self::Package(place) => Ok(vec![Arc::new(place)]),
            Self::Directory { root, .. } => Ok(vec![Arc::new(HostPlace::new(&root, allowed)?)]),
            Self::Vmfs(stores) => {
                let count = stores.volumes().count();
                let place = |store| -> Arc<dyn Place> {
                    Arc::new(VmfsPlace {
                        stores: stores.clone(),
                        store,
                    })
                };
                Ok((0..count).map(place).collect())
            }
        }
    }

    /// SOURCE as a path of one of the datastores. A path that several have, or none, is for
    /// [`Self::source`] to refuse.
    pub(crate) fn spot(self, path: &Path, allowed: &Allowed) -> Result<Option<Spot>> {
        match self {
            Self::Package(place) => Ok(Some(Spot {
                path: path.to_path_buf(),
                place: Arc::new(place),
            })),
            Self::Directory { root, name, .. } => Ok(Some(Spot {
                path: in_directory(path, name.as_deref())?,
                place: Arc::new(HostPlace::new(&root, allowed)?),
            })),
            Self::Vmfs(stores) => {
                let bytes = path.as_os_str().as_bytes();
                let count = stores.volumes().count();
                let found = (0..count).find_map(|n| stores.resolve(n, bytes).ok());
                Ok(found.map(|found| Spot {
                    path: PathBuf::from(OsStr::from_bytes(&found.path)),
                    place: Arc::new(VmfsPlace {
                        store: found.store,
                        stores,
                    }),
                }))
            }
        }
    }

    /// What the user should be told of the datastores themselves.
    pub(crate) fn own_warnings(&self) -> Vec<String> {
        let Self::Vmfs(stores) = self else {
            return Vec::new();
        };
        let mut told = Vec::new();
        for volume in stores.volumes() {
            let label = escape(&volume.superblock().label);
            told.extend(volume.warnings().iter().map(|w| format!("[{label}]: {w}")));
        }
        told
    }

    /// The same, and of the files of `image` that a running host held.
    pub(crate) fn warnings(&self, image: &Image) -> Vec<String> {
        let mut told = self.own_warnings();
        let Self::Vmfs(stores) = self else {
            return told;
        };
        let links = image.vmdk.iter().flat_map(|v| v.links());
        let files = links.flat_map(|link| {
            let extents = link.extents.iter().filter_map(|e| e.file.clone());
            std::iter::once(link.path.clone()).chain(extents)
        });
        let mut files: Vec<PathBuf> = files.collect();
        files.sort();
        files.dedup();
        for file in files {
            let Ok(found) = stores.resolve(0, file.as_os_str().as_bytes()) else {
                continue;
            };
            let volume = stores.volumes().nth(found.store);
            let Some(Ok(state)) = volume.map(|v| v.lock_state(found.address)) else {
                continue;
            };
            told.extend(state.alive.first().map(|holder| {
                format!(
                    "{}: in use by host {} ({}) when the datastore was saved: the disk is as \
                     a power failure would have left it",
                    escape(&file.display().to_string()),
                    holder.host,
                    escape(&holder.address),
                )
            }));
        }
        told
    }
}

/// Checks the VMFS volumes that SOURCE is looked up in. Visited is what is wrong with the volumes
/// themselves, and with what lies beside SOURCE and `files`; how much is wrong with the files
/// of others is returned.
///
/// # Errors
/// Where a device fails.
pub fn check(spec: &SourceSpec, files: &[PathBuf], visit: &mut dyn FnMut(Finding)) -> Result<u64> {
    let Opening::Vmfs(stores) = Opening::open(spec)? else {
        return Ok(0);
    };
    let parent = |path: &[u8]| match path.iter().rposition(|b| *b == b'/') {
        Some(end) => path.get(..end).unwrap_or_default().to_vec(),
        None => Vec::new(),
    };
    let mut ours: Vec<(usize, Vec<u8>)> = Vec::new();
    let own = (!spec.path.as_os_str().is_empty()).then_some(&spec.path);
    for file in files.iter().chain(own) {
        let name = file.as_os_str().as_bytes();
        for store in 0..stores.volumes().count() {
            if let Ok(found) = stores.resolve(store, name) {
                ours.push(match found.stat.kind {
                    FileKind::Directory => (found.store, found.path),
                    _ => (found.store, parent(&found.path)),
                });
            }
        }
    }
    let mut others = 0u64;
    for (number, volume) in stores.volumes().enumerate() {
        let label = format!("[{}]", volume.superblock().label);
        let dirs: Vec<_> = ours.iter().filter(|(n, _)| *n == number).collect();
        volume.check(&mut |found| {
            // A file beside ours, or a directory on the way to it.
            let near = |path: &Vec<u8>| {
                let above =
                    |dir: &[u8]| dir == path || dir.starts_with(&[path, &b"/"[..]].concat());
                dirs.iter()
                    .any(|(_, dir)| path.is_empty() || parent(path) == *dir || above(dir))
            };
            let whole = found.paths.is_empty();
            if found.finding.severity == Severity::Note || !(whole || found.paths.iter().any(near))
            {
                others = others.saturating_add(u64::from(!whole));
                return;
            }
            let mut finding = found.finding;
            finding.ranges.clear();
            finding.nodes.clear();
            finding.error = finding.error.file(&label);
            visit(finding);
        })?;
    }
    Ok(others)
}

/// A name as hosts spell it, `[name] path` or `/vmfs/volumes/name/path`, as a path of a
/// directory that stands for a datastore: any name, unless the user gave it one.
fn in_directory(path: &Path, name: Option<&str>) -> Result<PathBuf> {
    let bytes = path.as_os_str().as_bytes();
    let parts = if let Some(rest) = bytes.strip_prefix(b"/vmfs/volumes/") {
        let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
        rest.split_at_checked(end)
    } else if let Some(rest) = bytes.strip_prefix(b"[") {
        let end = rest.iter().position(|b| *b == b']');
        end.and_then(|end| Some((rest.get(..end)?, rest.get(end + 1..)?)))
    } else {
        None
    };
    let Some((found, below)) = parts else {
        return Ok(path.to_path_buf());
    };
    if name.is_some_and(|name| name.as_bytes() != found) {
        return Err(DiskError::not_found("finding a datastore")
            .file(path.display())
            .expected(name.unwrap_or_default())
            .found(String::from_utf8_lossy(found).into_owned()));
    }
    let below = below.trim_ascii_start();
    let below = below.strip_prefix(b"/").unwrap_or(below);
    Ok(PathBuf::from(OsStr::from_bytes(below)))
}

/// Opens the volume of a datastore from its devices.
fn volume(datastore: &DatastoreSpec, spec: &SourceSpec) -> Result<(Option<String>, Volume)> {
    let mut parts: Vec<Arc<dyn Disk>> = Vec::new();
    for device in &datastore.devices {
        parts.extend(members(device, spec)?);
    }
    let options = vmfs_reader::OpenOptions {
        allow_missing: spec.allow_missing,
        volume: None,
    };
    let volume = Volume::open(&parts, &options).map_err(|e| {
        let first = datastore.devices.first();
        match first.filter(|_| e.file_name().is_none()) {
            Some(device) => e.file(device.path.display()),
            None => e,
        }
    })?;
    Ok((datastore.name.clone(), volume))
}

/// The parts of a device that belong to VMFS volumes: the disk itself, or partitions.
fn members(device: &Device, spec: &SourceSpec) -> Result<Vec<Arc<dyn Disk>>> {
    let place = device.path.display();
    let opening = || DiskError::unsupported("opening as a datastore").file(&place);
    if device.path.is_dir() {
        return Err(opening()
            .expected("a VMFS volume")
            .found("a directory, which can only be the one datastore that is given"));
    }
    // A datastore is not SOURCE: what is said of SOURCE's format and chain is not of it.
    let mut options = spec.image_options();
    (options.format, options.snapshot, options.vmdk.parent) = (None, None, None);
    let opened = HostDir::open_source(&device.path, &spec.allowed())?;
    let disk = disk_image::open(opened, &options)?.disk;
    let table = partition::read(&disk).map_err(|e| e.file(&place))?;
    if let Some(number) = device.partition {
        let partition = table.partitions.iter().find(|p| p.number == number);
        return match partition {
            Some(partition) => Ok(vec![partition.open(&disk)?]),
            None => Err(DiskError::not_found("opening a partition of a datastore")
                .file(&place)
                .expected(format!("a partition p{number}"))
                .found(format!("{} partitions", table.partitions.len()))),
        };
    }
    if table.scheme == Scheme::None {
        return Ok(vec![disk]);
    }
    // Partitions first: the header of a volume in one can lie where that of a whole disk would.
    let mut parts = Vec::new();
    for partition in &table.partitions {
        let part = partition.open(&disk)?;
        if vmfs::is_member(&part)? {
            parts.push(part);
        }
    }
    if parts.is_empty() && vmfs::is_member(&disk)? {
        parts.push(disk);
    }
    if parts.is_empty() {
        return Err(opening().expected("a VMFS volume").found(format!(
            "{} partitions, none of them VMFS",
            table.partitions.len()
        )));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_users_type_them() {
        let spec = |text: &str| text.parse::<DatastoreSpec>().unwrap();
        let device = |path: &str, partition| Device {
            path: path.into(),
            partition,
        };
        assert_eq!(spec("lun.img").devices, [device("lun.img", None)]);
        let span = spec("big=a.img#p2,b.img");
        assert_eq!(span.name.as_deref(), Some("big"));
        assert_eq!(
            span.devices,
            [device("a.img", Some(2)), device("b.img", None)]
        );
        let below = |path: &str, name| in_directory(Path::new(path), name).ok();
        assert_eq!(below("[ds1] web/web.vmx", None), Some("web/web.vmx".into()));
        assert_eq!(below("/vmfs/volumes/x/a", Some("x")), Some("a".into()));
        assert_eq!(below("/vmfs/volumes/x/a", Some("y")), None);
        assert_eq!(below("web/a", Some("y")), Some("web/a".into()));
        // An equals sign in a path names nothing.
        assert_eq!(spec("/x/a=b.img").devices, [device("/x/a=b.img", None)]);
        assert!("a,,b".parse::<DatastoreSpec>().is_err());
        assert!("x=".parse::<DatastoreSpec>().is_err());
    }
}
