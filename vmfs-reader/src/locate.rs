//! Names of files as virtual machines spell them, inside datastores.

use crate::{
    Uuid,
    address::FdAddress,
    descriptor::{FileKind, Stat},
    volume::Volume,
};
use disk_io::{Disk, DiskError, FileId, Locate, Opened, Purpose, Result};
use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Links that are followed in one name at most.
const MAX_LINKS: u32 = 16;

/// The datastores whose files may name each other's: one, or those of a virtual machine
/// that is spread over several.
#[derive(Clone, Debug)]
pub struct Datastores(Arc<[Datastore]>);

#[derive(Debug)]
struct Datastore {
    /// What the user calls it besides its own names.
    name: Option<String>,
    volume: Volume,
}

/// A directory of a datastore as a place where names inside images are looked up.
#[derive(Clone, Debug)]
struct Directory {
    stores: Datastores,
    store: usize,
    address: FdAddress,
    /// Below the root, with neither a leading nor a trailing slash.
    path: Vec<u8>,
}

/// Where a path leads.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which of the datastores, by the order in which they were given.
    pub store: usize,
    /// The descriptor.
    pub address: FdAddress,
    /// What it says.
    pub stat: Stat,
    /// The path below the datastore's root, links followed.
    pub path: Vec<u8>,
}

impl Datastores {
    /// One datastore by its own names.
    pub fn one(volume: Volume) -> Self {
        Self::new(vec![(None, volume)])
    }

    /// Several, each with the name that the user gave it or none.
    pub fn new(volumes: Vec<(Option<String>, Volume)>) -> Self {
        let stores = volumes
            .into_iter()
            .map(|(name, volume)| Datastore { name, volume });
        Self(stores.collect())
    }

    /// The volumes, in the order in which they were given.
    pub fn volumes(&self) -> impl Iterator<Item = &Volume> {
        self.0.iter().map(|s| &s.volume)
    }

    fn store(&self, index: usize) -> Result<&Datastore> {
        self.0
            .get(index)
            .ok_or_else(|| DiskError::not_found("finding a datastore").found(index.to_string()))
    }

    fn by_name(&self, name: &[u8]) -> Option<usize> {
        let name = std::str::from_utf8(name).ok()?;
        self.0
            .iter()
            .position(|s| s.name.as_deref() == Some(name))
            .or_else(|| self.0.iter().position(|s| s.volume.is_named(name)))
    }

    /// Follows a path in datastore `store`: below its root, or by `/vmfs/volumes/NAME/…` or
    /// `[NAME] …` in any of them. Links are followed.
    pub fn resolve(&self, store: usize, path: &[u8]) -> Result<Found> {
        let root = self.store(store)?.volume.root();
        self.walk(store, vec![(root, Vec::new())], path, 0)
    }

    /// A directory as a place where names inside images are looked up.
    pub fn directory(&self, store: usize, path: &[u8]) -> Result<Arc<dyn Locate>> {
        let found = self.resolve(store, path)?;
        if found.stat.kind != FileKind::Directory {
            return Err(DiskError::not_found("opening a directory")
                .file(self.full_name(found.store, &found.path))
                .expected("a directory"));
        }
        Ok(Arc::new(Directory {
            stores: self.clone(),
            store: found.store,
            address: found.address,
            path: found.path,
        }))
    }

    /// Opens a file by its path, with its own directory.
    pub fn open(&self, store: usize, path: &[u8]) -> Result<Opened> {
        let found = self.resolve(store, path)?;
        self.opened(found)
    }

    fn full_name(&self, store: usize, path: &[u8]) -> String {
        let label = self
            .0
            .get(store)
            .map_or("", |s| s.volume.superblock().label.as_str());
        format!("[{label}] {}", String::from_utf8_lossy(path))
    }

    /// Splits `/vmfs/volumes/NAME/rest` and `[NAME] rest`.
    fn absolute<'a>(&self, path: &'a [u8]) -> Result<Option<(usize, &'a [u8])>> {
        let (name, rest) = if let Some(rest) = path.strip_prefix(b"/vmfs/volumes/") {
            let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
            let (name, rest) = rest.split_at_checked(end).unwrap_or((rest, b""));
            (name, rest)
        } else if let Some(rest) = path.strip_prefix(b"[")
            && let Some(end) = rest.iter().position(|b| *b == b']')
        {
            let (name, rest) = rest.split_at_checked(end).unwrap_or((rest, b""));
            let rest = rest.strip_prefix(b"]").unwrap_or(rest);
            (name, rest.trim_ascii_start())
        } else {
            return Ok(None);
        };
        match self.by_name(name) {
            Some(store) => Ok(Some((store, rest))),
            None => {
                let have: Vec<&str> = self
                    .volumes()
                    .map(|v| v.superblock().label.as_str())
                    .collect();
                Err(DiskError::not_found("finding a datastore")
                    .file(String::from_utf8_lossy(path))
                    .expected(format!("one of: {}", have.join(", ")))
                    .found(String::from_utf8_lossy(name).into_owned())
                    .hint("give that datastore too"))
            }
        }
    }

    /// Follows `path` from the directory that is last in `trail` (directories from the root
    /// on, each with its path).
    fn walk(
        &self,
        mut store: usize,
        mut trail: Vec<(FdAddress, Vec<u8>)>,
        path: &[u8],
        links: u32,
    ) -> Result<Found> {
        if links > MAX_LINKS {
            return Err(DiskError::refused("following a symbolic link")
                .file(self.full_name(store, path))
                .expected(format!("at most {MAX_LINKS} links")));
        }
        let mut rest = path;
        if let Some((other, below)) = self.absolute(path)? {
            store = other;
            rest = below;
            trail = vec![(self.store(store)?.volume.root(), Vec::new())];
        } else if path.starts_with(b"/") {
            trail.truncate(1);
        }
        let volume = &self.store(store)?.volume;
        let mut parts = rest
            .split(|b| *b == b'/')
            .filter(|p| !p.is_empty() && *p != b".");
        while let Some(part) = parts.next() {
            if part == b".." {
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let Some((dir, base)) = trail.last().cloned() else {
                break;
            };
            let mut full = base;
            if !full.is_empty() {
                full.push(b'/');
            }
            full.extend_from_slice(part);
            let name = self.full_name(store, &full);
            let Some(entry) = volume.lookup(dir, part).map_err(|e| e.file(&name))? else {
                return Err(DiskError::not_found("opening a file of a datastore").file(name));
            };
            let stat = volume.check_entry(&entry).map_err(|e| e.file(&name))?;
            match stat.kind {
                FileKind::Directory => trail.push((entry.address, full)),
                FileKind::Symlink => {
                    let mut target = volume.read_link(entry.address)?;
                    for part in parts {
                        target.push(b'/');
                        target.extend_from_slice(part);
                    }
                    return self.walk(store, trail, &target, links.saturating_add(1));
                }
                _ => {
                    if parts.next().is_some() {
                        return Err(DiskError::not_found("opening a file of a datastore")
                            .file(name)
                            .expected("a directory"));
                    }
                    return Ok(Found {
                        store,
                        address: entry.address,
                        stat,
                        path: full,
                    });
                }
            }
        }
        let (address, path) = trail
            .pop()
            .ok_or_else(|| DiskError::not_found("opening a file of a datastore"))?;
        Ok(Found {
            store,
            address,
            stat: volume.stat(address)?,
            path,
        })
    }

    fn opened(&self, found: Found) -> Result<Opened> {
        let volume = &self.store(found.store)?.volume;
        let name = self.full_name(found.store, &found.path);
        if found.stat.kind == FileKind::Directory {
            return Err(DiskError::refused("opening as a file")
                .file(name)
                .found("a directory"));
        }
        let end = found.path.iter().rposition(|b| *b == b'/').unwrap_or(0);
        let parent = found.path.get(..end).unwrap_or_default();
        let file = volume.open_named(found.address, name.clone())?;
        Ok(Opened {
            disk: Arc::new(file) as Arc<dyn Disk>,
            path: PathBuf::from(OsStr::from_bytes(
                &[
                    format!("[{}] ", volume.superblock().label).as_bytes(),
                    &found.path,
                ]
                .concat(),
            )),
            id: FileId {
                container: volume.core.number(),
                file: found.address.0.into(),
            },
            dir: self.directory(found.store, parent)?,
        })
    }

    /// UUIDs of the volumes, for messages.
    pub fn uuids(&self) -> Vec<Uuid> {
        self.volumes().map(|v| v.superblock().uuid).collect()
    }
}

impl Directory {
    /// The directories from the root to this one.
    fn trail(&self) -> Result<Vec<(FdAddress, Vec<u8>)>> {
        let volume = &self.stores.store(self.store)?.volume;
        let mut trail = vec![(volume.root(), Vec::new())];
        let mut path: Vec<u8> = Vec::new();
        for part in self.path.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
            let Some((dir, _)) = trail.last() else { break };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(part);
            if path == self.path {
                trail.push((self.address, path.clone()));
                break;
            }
            match volume.lookup(*dir, part)? {
                Some(entry) => trail.push((entry.address, path.clone())),
                None => break,
            }
        }
        Ok(trail)
    }
}

impl Locate for Directory {
    fn open(&self, name: &Path, purpose: Purpose) -> Result<Opened> {
        let name = name.as_os_str().as_bytes();
        self.stores
            .walk(self.store, self.trail()?, name, 0)
            .and_then(|found| self.stores.opened(found))
            .map_err(|e| e.context(format!("opening the {purpose}")))
    }

    fn list(&self, limit: usize) -> Result<Vec<PathBuf>> {
        let volume = &self.stores.store(self.store)?.volume;
        let mut names = Vec::new();
        volume.read_dir(self.address, &mut |entry| {
            if let Ok(entry) = entry
                && entry.kind == FileKind::File
            {
                names.push(PathBuf::from(OsStr::from_bytes(&entry.name)));
            }
            std::ops::ControlFlow::Continue(())
        })?;
        names.sort();
        names.truncate(limit);
        Ok(names)
    }

    fn describe(&self) -> String {
        self.stores.full_name(self.store, &self.path)
    }
}
