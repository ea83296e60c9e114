//! Where the files of a backup go: a directory, and from there, one by one as they are
//! complete, into a stream for tape and pipes.

use super::{FileEntry, PLAIN, Quiet, sums_of};
use crate::{digest::DigestKind, progress::Progress};
use disk_io::{DiskError, HostDir, Result, host_dir::Allowed, output::write_error};
use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};
use tar::{Builder, EntryType, Header};

/// A stream that takes files as a tar archive.
pub struct TarStream {
    tar: Mutex<Builder<Box<dyn Write + Send>>>,
    name: String,
    modified: u64,
}

impl TarStream {
    /// Over `out`; `name` is for messages.
    pub fn new(out: Box<dyn Write + Send>, name: impl Into<String>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            tar: Mutex::new(Builder::new(out)),
            name: name.into(),
            modified: now.map_or(0, |n| n.as_secs()),
        }
    }

    fn put(&self, name: &str, path: &Path) -> Result<()> {
        let append = || -> io::Result<()> {
            let file = File::open(path)?;
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o600);
            header.set_mtime(self.modified);
            header.set_size(file.metadata()?.len());
            let mut tar = self.tar.lock().unwrap_or_else(PoisonError::into_inner);
            tar.append_data(&mut header, name, file)
        };
        append().map_err(|e| self.fail(&e))
    }

    fn fail(&self, e: &io::Error) -> DiskError {
        DiskError::io("writing the backup", e).file(&self.name)
    }

    /// Ends the archive.
    pub(super) fn finish(self) -> Result<()> {
        let name = self.name.clone();
        let tar = self
            .tar
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        tar.into_inner()
            .and_then(|mut out| out.flush())
            .map_err(|e| DiskError::io("writing the backup", &e).file(name))
    }
}

/// The files of one backup.
pub(super) struct Shelf<'a> {
    pub(super) dir: PathBuf,
    /// Whether they are hashed, for a manifest.
    pub(super) manifest: bool,
    pub(super) workers: usize,
    pub(super) progress: &'a dyn Progress,
    pub(super) stream: Option<&'a TarStream>,
    pub(super) entries: Mutex<Vec<FileEntry>>,
    /// Files whose writers left it to [`Self::sync`].
    pub(super) unsynced: Mutex<Vec<String>>,
}

impl Shelf<'_> {
    /// Takes a file of the directory that is complete. `digest` is the kind that it gets; a
    /// fitting one if that is not said.
    pub(super) fn finished(&self, name: &str, digest: Option<DigestKind>) -> Result<()> {
        let path = self.dir.join(name);
        if self.manifest {
            let opened = HostDir::open_source(&path, &Allowed::default())?;
            let kind = digest.unwrap_or(match opened.disk.len() > PLAIN {
                true => DigestKind::Vmdkit,
                false => DigestKind::Sha256,
            });
            // It is not the copy that progress is shown of.
            let quiet = Quiet(self.progress);
            let (digest, crc) = sums_of(&opened.disk, kind, self.workers, &quiet)?;
            let entry = FileEntry {
                name: name.to_owned(),
                size: opened.disk.len(),
                digest: digest.into(),
                crc32: Some(format!("{crc:08x}")),
            };
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.push(entry);
        }
        self.drain(name)
    }

    /// Takes a file of the directory whose digest is known.
    pub(super) fn known(&self, entry: FileEntry) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push(entry);
    }

    /// Whoever wrote this file did not sync it.
    pub(super) fn sync_later(&self, name: &str) {
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        unsynced.push(name.to_owned());
    }

    /// Syncs what was left to the end. On most file systems the first file takes the others along:
    /// each on its way would have waited for the disk by itself.
    pub(super) fn sync(&self) -> Result<()> {
        let unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        // What goes into a stream stays nowhere here.
        for name in unsynced.iter().filter(|_| self.stream.is_none()) {
            let path = self.dir.join(name);
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(|e| write_error("syncing", &path, &e))?;
        }
        Ok(())
    }

    /// Puts a file into the stream, if there is one, and makes room for the next.
    pub(super) fn drain(&self, name: &str) -> Result<()> {
        let Some(stream) = self.stream else {
            return Ok(());
        };
        let path = self.dir.join(name);
        stream.put(name, &path)?;
        std::fs::remove_file(&path).map_err(|e| write_error("removing", &path, &e))
    }

    pub(super) fn entries(&self) -> Vec<FileEntry> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.clone()
    }
}
