//! A VMFS volume as a place where machines are looked for.

use disk_io::{DiskError, Locate, Result};
use inventory::{Listing, Place};
use std::{
    ffi::OsStr,
    ops::ControlFlow,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use vmfs_reader::{Datastores, FileKind, Volume};

/// One of several volumes, whose files may name those of the others.
#[derive(Debug)]
pub(crate) struct VmfsPlace {
    pub(crate) stores: Datastores,
    pub(crate) store: usize,
}

impl VmfsPlace {
    fn volume(&self) -> Result<&Volume> {
        let volume = self.stores.volumes().nth(self.store);
        volume.ok_or_else(|| DiskError::not_found("finding the datastore"))
    }
}

impl Place for VmfsPlace {
    fn list(&self, dir: &Path) -> Result<Listing> {
        let found = self
            .stores
            .resolve(self.store, dir.as_os_str().as_bytes())?;
        if found.stat.kind != FileKind::Directory {
            return Err(DiskError::not_found("listing a directory")
                .file(dir.display())
                .found("a file"));
        }
        let volume = self.volume()?;
        let mut listing = Listing::default();
        let mut entries = Vec::new();
        volume.read_dir(found.address, &mut |entry| {
            entries.extend(entry.ok());
            ControlFlow::Continue(())
        })?;
        for entry in entries {
            let name = PathBuf::from(OsStr::from_bytes(&entry.name));
            match entry.kind {
                FileKind::Directory => listing.directories.push(name),
                FileKind::File => {
                    let size = volume.stat(entry.address).map_or(0, |s| s.size);
                    listing.files.push((name, size));
                }
                _ => {}
            }
        }
        listing.directories.sort();
        listing.files.sort();
        Ok(listing)
    }

    fn gate(&self, dir: &Path) -> Result<Arc<dyn Locate>> {
        self.stores
            .directory(self.store, dir.as_os_str().as_bytes())
    }

    fn describe(&self) -> String {
        let label = self.volume().map(|v| v.superblock().label.clone());
        format!("[{}]", label.unwrap_or_default())
    }
}
