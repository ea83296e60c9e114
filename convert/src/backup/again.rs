//! A disk that several machines share, in the backup of a further one: the same files under a
//! second name.

use super::{DiskEntry, FileEntry, shelf::Shelf};
use disk_io::{Result, output::write_error};
use inventory::Slot;
use std::{fs::File, path::Path, path::PathBuf};

/// A disk that another backup of the same moment has.
#[derive(Clone, Debug)]
pub struct Again {
    /// The directory of that backup.
    pub dir: PathBuf,
    /// What it says of the disk.
    pub entry: DiskEntry,
    /// The files of the disk.
    pub files: Vec<FileEntry>,
}

impl Again {
    /// Whether it can have its names in a backup that has the files `there` already, and whose
    /// further disks are called `others`.
    pub(super) fn fits(&self, there: &[FileEntry], others: &[String]) -> bool {
        let mut there = there.iter().map(|f| &f.name);
        if there.any(|name| self.files.iter().any(|f| f.name == *name)) {
            return false;
        }
        let stem = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let own: Vec<String> = self.files.iter().map(|f| stem(&f.name)).collect();
        // Pieces of a disk begin with its name and a dash.
        !others.iter().any(|other| {
            let other = stem(other);
            let piece = format!("{other}-");
            own.iter().any(|o| *o == other || o.starts_with(&piece))
        })
    }

    /// Puts its files onto `shelf`; what the manifest says of it at its place here.
    pub(super) fn put(&self, shelf: &Shelf<'_>, slot: Option<Slot>) -> Result<DiskEntry> {
        for file in &self.files {
            link(&self.dir.join(&file.name), &shelf.dir.join(&file.name))?;
            shelf.known(file.clone());
        }
        Ok(DiskEntry {
            place: slot.map(|s| s.to_string()),
            ..self.entry.clone()
        })
    }
}

/// A second name for a file; a copy where there is no such thing.
pub(super) fn link(from: &Path, to: &Path) -> Result<()> {
    if std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let copy = || -> std::io::Result<()> {
        let mut new = File::create_new(to)?;
        std::io::copy(&mut File::open(from)?, &mut new)?;
        new.sync_all()
    };
    copy().map_err(|e| write_error("copying", to, &e))
}
