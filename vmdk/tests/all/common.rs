//! A directory in memory, and other things that tests need.
#![allow(dead_code)]

use disk_io::{Disk, DiskError, FileId, Locate, MemDisk, Opened, Purpose, Result};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use vmdk::{Image, OpenOptions};

/// Files in memory by name; nothing else can be reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemDir {
    files: BTreeMap<PathBuf, Arc<dyn Disk>>,
}

impl MemDir {
    pub(crate) fn put(&mut self, name: &str, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.put_disk(name, Arc::new(MemDisk::new(bytes)))
    }

    pub(crate) fn put_disk(&mut self, name: &str, disk: Arc<dyn Disk>) -> &mut Self {
        self.files.insert(name.into(), disk);
        self
    }

    pub(crate) fn source(&self, name: &str) -> Opened {
        self.open(Path::new(name), Purpose::Member).unwrap()
    }

    pub(crate) fn image(&self, name: &str) -> Result<Image> {
        self.image_with(name, &OpenOptions::default())
    }

    pub(crate) fn image_with(&self, name: &str, options: &OpenOptions) -> Result<Image> {
        Image::open(self.source(name), options)
    }
}

impl Locate for MemDir {
    fn open(&self, name: &Path, purpose: Purpose) -> Result<Opened> {
        if name.is_absolute() || name.starts_with("..") {
            return Err(DiskError::refused(format!("opening the {purpose}")).file(name.display()));
        }
        let Some((number, (path, disk))) =
            self.files.iter().enumerate().find(|(_, (n, _))| *n == name)
        else {
            return Err(DiskError::not_found(format!("opening the {purpose}")).file(name.display()));
        };
        Ok(Opened {
            disk: disk.clone(),
            path: path.clone(),
            id: FileId {
                container: 7,
                file: number as u64,
            },
            dir: Arc::new(self.clone()),
        })
    }

    fn list(&self, limit: usize) -> Result<Vec<PathBuf>> {
        Ok(self.files.keys().take(limit).cloned().collect())
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}

/// All bytes of a disk.
pub(crate) fn read_all(disk: &dyn Disk) -> Result<Vec<u8>> {
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Says that a test did not run, or fails if it had to.
pub(crate) fn skip(kind: &str, why: &str) {
    let required = std::env::var("VMDKIT_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|r| r.trim() == kind),
        "{kind} are required: {why}"
    );
    eprintln!("skipped: {why}");
}
