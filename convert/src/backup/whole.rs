//! A backup of changes, made whole: what it builds on is not needed any more.
//!
//! The whole one has the same contents, names and content ids, so that backups which build on it
//! go on doing so. It takes the place of the old one in one step: at every moment one of the two
//! has the name.

use super::{
    DigestKind, FileEntry, ImageOptions, Manifest, again::link, compare, manifest, new_dir::NewDir,
    shelf::Shelf,
};
use crate::{
    pipeline::cancelled,
    progress::Progress,
    to_image::{Destination, ImageFormat, to_image},
};
use disk_io::{Disk, DiskError, Result, output::write_error};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use std::{
    collections::HashSet,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use vmdk::writer;

/// A disk of the backup that is a child of another backup's.
#[derive(Clone, Debug)]
pub struct Child {
    /// The file to open.
    pub file: String,
    /// All files that it consists of, in its own directory.
    pub files: Vec<String>,
    /// Its contents, through all that it builds on.
    pub disk: Arc<dyn Disk>,
    /// How it is written; with the content id that it has.
    pub options: writer::Options,
}

/// A whole backup beside the one that it is made of, under a temporary name. Dropped, it goes.
pub struct Whole {
    new: NewDir,
    /// Its manifest.
    pub manifest: Manifest,
}

impl Whole {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.new.temp
    }

    /// Writes it. Files that stay as they are have a second name for it, or are copied where the
    /// file system has no such thing.
    ///
    /// # Errors
    /// `Corrupt` if a disk does not have the contents that `old` says.
    pub fn write(
        dir: &Path,
        old: &Manifest,
        children: &[Child],
        workers: usize,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let own = Manifest::read_hashed(dir)?.map(|(_, own)| own);
        let own =
            own.ok_or_else(|| DiskError::not_found("reading the manifest").file(dir.display()))?;
        let new = NewDir::beside(dir)?;
        let shelf = Shelf {
            dir: new.temp.clone(),
            manifest: true,
            workers,
            progress,
            stream: None,
            entries: Mutex::default(),
            unsynced: Mutex::default(),
        };
        for child in children {
            write_disk(&shelf, old, child, workers, progress)?;
        }
        let gone: HashSet<&str> = children
            .iter()
            .flat_map(|c| &c.files)
            .map(String::as_str)
            .collect();
        let kept = old.files.iter().filter(|f| !gone.contains(f.name.as_str()));
        let kept: Vec<FileEntry> = kept.cloned().collect();
        for file in &kept {
            if progress.cancelled() {
                return Err(cancelled());
            }
            link(&dir.join(&file.name), &new.temp.join(&file.name))?;
        }
        let mut manifest = old.clone();
        manifest.since = None;
        manifest.stands_for.push(own);
        for disk in &mut manifest.disks {
            disk.parent = None;
        }
        manifest.files = shelf.entries();
        manifest.files.extend(kept);
        let path = new.temp.join(manifest::NAME);
        let fail = |e| write_error("writing", &path, &e);
        let mut file = File::create_new(&path).map_err(fail)?;
        file.write_all(manifest.to_text()?.as_bytes())
            .map_err(fail)?;
        file.sync_all().map_err(fail)?;
        Ok(Self { new, manifest })
    }

    /// Takes the place of the backup that it was made of, which goes.
    ///
    /// # Errors
    /// `Unsupported` where the file system cannot exchange two names: nothing changed then.
    pub fn replace(mut self) -> Result<()> {
        let (temp, dest) = (self.new.temp.clone(), self.new.dest.clone());
        let doing = "putting the whole backup in place";
        let fail = |e: &std::io::Error| DiskError::io(doing, e).file(dest.display());
        let sync = |path: &Path| File::open(path).and_then(|dir| dir.sync_all());
        self.new.settle().map_err(|e| fail(&e))?;
        match renameat_with(CWD, &temp, CWD, &dest, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS) => {
                return Err(DiskError::unsupported(doing)
                    .file(dest.display())
                    .expected("a file system that can exchange the names of two directories")
                    .found("one that cannot"));
            }
            Err(e) => return Err(fail(&e.into())),
        }
        // From here on the temporary name is that of the old one.
        self.new.done = true;
        if let Some(parent) = temp.parent() {
            sync(parent).map_err(|e| fail(&e))?;
        }
        fs::remove_dir_all(&temp)
            .map_err(|e| DiskError::io("removing what was made whole", &e).file(temp.display()))
    }
}

fn write_disk(
    shelf: &Shelf<'_>,
    old: &Manifest,
    child: &Child,
    workers: usize,
    progress: &dyn Progress,
) -> Result<()> {
    let entry = old.disks.iter().find(|d| d.file == child.file);
    let Some(entry) = entry else {
        return Err(DiskError::not_found("making a backup whole").file(&child.file));
    };
    let image = ImageOptions {
        format: ImageFormat::Vmdk(child.options.clone()),
        workers,
        digest: entry.digest.kind().unwrap_or(DigestKind::Vmdkit),
        ..ImageOptions::default()
    };
    let path: PathBuf = shelf.dir.join(&child.file);
    let report = to_image(&child.disk, Destination::File(&path), &image, progress)?;
    let digest = report.digest;
    let digest = digest.ok_or_else(|| DiskError::unsupported("computing a digest"))?;
    compare(&digest, &entry.digest, &child.file)?;
    for file in &report.files {
        let name = file.file_name().unwrap_or_default();
        shelf.finished(&name.to_string_lossy(), None)?;
    }
    Ok(())
}
