//! Files that are written: what every writer of images puts its bytes through.
//!
//! Nothing that reads a disk knows this module.

use crate::error::{DiskError, Result};
use rustix::{
    fs::{Advice, fadvise},
    io::Errno,
};
use std::{
    fs::File,
    io,
    num::NonZeroU64,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// After so many bytes the kernel is asked to begin with writing them to the disk. It waits
/// for gigabytes otherwise, and the sync at the end waits for all of them.
const STRIDE: u64 = 32 << 20;

/// A new file that is being written, and its name for messages.
#[derive(Debug)]
pub struct OutFile<'f> {
    file: &'f File,
    name: PathBuf,
    written: AtomicU64,
}

impl<'f> OutFile<'f> {
    /// Over an empty file.
    pub fn new(file: &'f File, name: impl Into<PathBuf>) -> Self {
        Self {
            file,
            name: name.into(),
            written: AtomicU64::new(0),
        }
    }

    /// Its name.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Writes `bytes` at `offset`.
    pub fn put(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|e| write_error("writing", &self.name, &e).offset(offset))?;
        let n = bytes.len() as u64;
        let before = self.written.fetch_add(n, Ordering::Relaxed);
        if before / STRIDE != before.saturating_add(n) / STRIDE {
            // What several threads write is near by. Advice that is not taken costs nothing.
            let from = offset.saturating_add(n).saturating_sub(STRIDE * 2);
            let len = NonZeroU64::new(STRIDE * 2);
            let _ = fadvise(self.file, from, len, Advice::DontNeed);
        }
        Ok(())
    }

    /// Gives the file its length.
    pub fn set_len(&self, len: u64) -> Result<()> {
        rustix::fs::ftruncate(self.file, len).map_err(|e| {
            write_error("setting the length", &self.name, &e.into())
                .found(format!("{len} bytes wanted"))
        })
    }
}

/// A failure to write `file`, with what helps.
pub fn write_error(doing: &str, file: &Path, error: &io::Error) -> DiskError {
    let e = DiskError::io(doing, error).file(file.display());
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC) => {
            e.hint("the disk is full; make room or choose another place, then run it again")
        }
        Some(Errno::DQUOT) => e.hint("your quota is used up; choose another place"),
        Some(Errno::ROFS) => e.hint("that file system is mounted read-only"),
        Some(Errno::FBIG) => {
            e.hint("the file system there cannot hold so long a file; choose another")
        }
        _ => e,
    }
}
