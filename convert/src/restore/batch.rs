//! Complete files waiting for one sync and their names.
//!
//! Syncing every small file on its own costs a journal commit each; so finished files keep
//! their temporary names until some hundreds have gathered, are synced together, and then
//! take their names.

use crate::{
    place::{FileId, rename_in},
    restore::{host::HostDir, names::strict_name},
    target::write_error,
};
use disk_io::{DiskError, Result};
use guest_fs::{Metadata, Security};
use rustix::{
    fs::{AtFlags, fsync, syncfs, unlinkat},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
    sync::{Arc, Mutex},
};

/// So many files, or bytes, are synced at once.
const FILES: usize = 256;
const BYTES: u64 = 512 << 20;
/// Up to here each file is synced by itself, which spares the rest of the file system.
const SINGLY: usize = 4;

/// A complete file under a temporary name.
#[derive(Debug)]
pub(crate) struct Pending<N> {
    pub(crate) dir: Arc<HostDir>,
    pub(crate) temp: OsString,
    pub(crate) name: OsString,
    pub(crate) replace: bool,
    pub(crate) path: Vec<u8>,
    pub(crate) bytes: u64,
    /// Set where further hard links may want to know what became of it.
    pub(crate) node: Option<N>,
    /// Itself, while there are few: it may have a mode with which it cannot be opened again.
    pub(crate) file: Option<File>,
    /// Which file of the host it is, where files are replaced.
    pub(crate) id: Option<FileId>,
    /// To be told once it has its name.
    pub(crate) kept: Option<Box<Kept>>,
}

/// What is told of a file that is restored.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) metadata: Metadata,
    pub(crate) sha256: Option<String>,
    pub(crate) security: Option<Security>,
}

/// Gathers finished files.
#[derive(Debug)]
pub(crate) struct Batch<N> {
    waiting: Mutex<(Vec<Pending<N>>, u64)>,
}

impl<N> Default for Batch<N> {
    fn default() -> Self {
        Self {
            waiting: Mutex::new((Vec::new(), 0)),
        }
    }
}

impl<N> Batch<N> {
    /// Takes one more; gives back all of them when it is time to place them.
    pub(crate) fn push(&self, mut pending: Pending<N>) -> Option<Vec<Pending<N>>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(|e| e.into_inner());
        waiting.1 += pending.bytes;
        if waiting.0.len() >= SINGLY {
            // They will be synced all together.
            pending.file = None;
            waiting.0.iter_mut().for_each(|p| p.file = None);
        }
        waiting.0.push(pending);
        (waiting.0.len() >= FILES || waiting.1 >= BYTES).then(|| std::mem::take(&mut *waiting).0)
    }

    /// The rest.
    pub(crate) fn take(&self) -> Vec<Pending<N>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(|e| e.into_inner());
        std::mem::take(&mut *waiting).0
    }
}

/// Syncs files, all together where there are many.
pub(crate) fn sync<N>(files: &[Pending<N>]) -> Result<()> {
    if files.iter().any(|file| file.file.is_none()) {
        if let Some(first) = files.first() {
            let doing = "syncing the destination's file system";
            syncfs(first.dir.fd()?)
                .map_err(|e| write_error(doing, first.dir.shown(), &e.into()))?;
        }
        return Ok(());
    }
    for file in files {
        let Some(open) = &file.file else { continue };
        fsync(open)
            .map_err(|e| write_error("syncing", &place(file.dir.shown(), &file.name), &e.into()))?;
    }
    Ok(())
}

fn place(dir: &Path, name: &OsStr) -> std::path::PathBuf {
    dir.join(name)
}

/// Gives a synced file its name. `Some` is the name it got instead, where the file system
/// does not take its own.
pub(crate) fn give_name<N>(file: &Pending<N>) -> Result<Option<OsString>> {
    let dir = file.dir.fd()?;
    let rename = |name: &OsStr| rename_in(dir, &file.temp, name, file.replace);
    match rename(&file.name) {
        Ok(()) => Ok(None),
        Err(e @ (Errno::INVAL | Errno::ILSEQ | Errno::NAMETOOLONG)) => {
            let other = OsString::from_vec(strict_name(file.name.as_bytes()));
            if other == file.name {
                return Err(naming_error(file, e));
            }
            rename(&other)
                .map(|()| Some(other))
                .map_err(|e| naming_error(file, e))
        }
        Err(e) => Err(naming_error(file, e)),
    }
}

fn naming_error<N>(file: &Pending<N>, e: Errno) -> DiskError {
    let there = place(file.dir.shown(), &file.name);
    match e {
        Errno::EXIST => DiskError::refused("giving the restored file its name")
            .file(there.display())
            .expected("no file of that name")
            .found("one that appeared meanwhile"),
        Errno::ISDIR => DiskError::refused("replacing")
            .file(there.display())
            .expected("a file")
            .found("a directory")
            .hint("move it away, or choose another destination"),
        e => write_error("giving the restored file its name", &there, &e.into()),
    }
}

/// Removes files that will not be placed.
pub(crate) fn discard<N>(files: &[Pending<N>]) {
    for file in files {
        if let Ok(dir) = file.dir.fd() {
            let _ = unlinkat(dir, &file.temp, AtFlags::empty());
        }
    }
}
