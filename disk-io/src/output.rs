//! Files that are written: what every writer of images puts its bytes through.
//!
//! Nothing that reads a disk knows this module.

use crate::{
    disk::HostRange,
    error::{DiskError, Result},
};
use rustix::{
    fs::{Advice, copy_file_range, fadvise},
    io::Errno,
};
use std::{
    fs::File,
    io,
    num::NonZeroU64,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
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
    /// Whether the file system shares blocks between files.
    shares: OnceLock<bool>,
}

/// File systems that share blocks between files: XFS, Btrfs, bcachefs, OCFS2.
const SHARING: [u64; 4] = [0x5846_5342, 0x9123_683e, 0xca45_1a4e, 0x7461_636f];
/// Their blocks, as a rule.
const SHARED_BLOCK: u64 = 4096;

impl<'f> OutFile<'f> {
    /// Over an empty file.
    pub fn new(file: &'f File, name: impl Into<PathBuf>) -> Self {
        Self {
            file,
            name: name.into(),
            written: AtomicU64::new(0),
            shares: OnceLock::new(),
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

    /// Takes bytes of another file by sharing its blocks, where the file system can; whether it
    /// did. `offset` is where they go.
    pub fn share(&self, from: &HostRange, offset: u64) -> Result<bool> {
        let shares = *self.shares.get_or_init(|| {
            // Elsewhere the call only copies, which is no better than writing what was read.
            let kind = rustix::fs::fstatfs(self.file).map(|s| s.f_type as u64);
            kind.is_ok_and(|kind| SHARING.contains(&kind))
        });
        let aligned = |n: u64| n.is_multiple_of(SHARED_BLOCK);
        if !shares || !aligned(offset) || !aligned(from.offset) || !aligned(from.len) {
            return Ok(false);
        }
        let (mut source, mut target) = (from.offset, offset);
        let end = from.offset.saturating_add(from.len);
        while source < end {
            let left = usize::try_from(end.saturating_sub(source)).unwrap_or(usize::MAX);
            let done = copy_file_range(
                &*from.file,
                Some(&mut source),
                self.file,
                Some(&mut target),
                left,
            );
            match done {
                Ok(1..) | Err(Errno::INTR) => {}
                // Another file system, a limit, a file that ends early: whoever asks writes.
                Ok(0)
                | Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) =>
                {
                    return Ok(false);
                }
                Err(e) => {
                    return Err(write_error("writing", &self.name, &e.into()).offset(target));
                }
            }
        }
        Ok(true)
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
