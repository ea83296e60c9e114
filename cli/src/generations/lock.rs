//! The lock of a directory with generations. In it are the names of those that `--keep` is at:
//! one that a killed process (or a loss of power) left there was not proven, and the next proves
//! it. Else it, and all that it builds on, would stay for ever.

use disk_io::{DiskError, Result, output::write_error};
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock},
    io::Errno,
};
use std::{
    fs::File,
    io,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::Path,
};

const LOCK: &str = ".vmdkit-keep.lock";
/// Longest list of names that is read.
const MOST: usize = 1 << 16;

/// Nobody else makes or removes generations while this is held.
pub(crate) struct Lock {
    file: File,
    /// Names of generations that were being made when a process was killed.
    unfinished: Vec<Vec<u8>>,
    /// Whether the list is ours to write.
    alone: bool,
}

impl Lock {
    /// Of the directory that `dest` is made in; notes that it is being made.
    pub(crate) fn take(dest: &Path) -> Result<Self> {
        let mut lock = Self::with(dest, FlockOperation::NonBlockingLockExclusive)?;
        let fail = |e: &io::Error| write_error("writing the lock", &dest.with_file_name(LOCK), e);
        lock.unfinished = lock.read().map_err(|e| fail(&e))?;
        lock.alone = true;
        let name = dest.file_name().unwrap_or_default().as_bytes();
        let own = std::iter::once(name);
        let all = lock.unfinished.iter().map(Vec::as_slice).chain(own);
        lock.write(all).map_err(|e| fail(&e))?;
        Ok(lock)
    }

    /// Nobody removes generations meanwhile; others may make some.
    pub(crate) fn share(dest: &Path) -> Result<Self> {
        Self::with(dest, FlockOperation::NonBlockingLockShared)
    }

    fn with(dest: &Path, how: FlockOperation) -> Result<Self> {
        let path = dest.with_file_name(LOCK);
        // A link that somebody put there is not followed.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o644)).map_err(|e| {
            let error = write_error("opening the lock", &path, &e.into());
            match e {
                Errno::NOENT => error.hint("make the directory that holds the backups first"),
                _ => error,
            }
        })?;
        match flock(&file, how) {
            Err(Errno::WOULDBLOCK) => Err(DiskError::refused("keeping generations of backups")
                .file(path.display())
                .expected("nobody else at it")
                .found("another export")),
            // Some file systems have no locks.
            _ => Ok(Self {
                file: File::from(file),
                unfinished: Vec::new(),
                alone: false,
            }),
        }
    }

    /// Whether a generation was being made when a process was killed.
    pub(super) fn is_unfinished(&self, name: &std::ffi::OsStr) -> bool {
        self.unfinished.iter().any(|n| n == name.as_bytes())
    }

    /// It is proven, or gone.
    pub(super) fn settled(&mut self, name: &std::ffi::OsStr) {
        self.unfinished.retain(|n| n != name.as_bytes());
    }

    /// Names that are not in `dir` any more need not be kept.
    pub(super) fn forget_gone(&mut self, dir: &Path) {
        let there = |n: &Vec<u8>| dir.join(std::ffi::OsStr::from_bytes(n)).exists();
        self.unfinished.retain(there);
    }

    fn read(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut text = vec![0; MOST];
        let n = self.file.read_at(&mut text, 0)?;
        text.truncate(n);
        let names = text.split(|b| *b == 0);
        Ok(names
            .filter(|n| !n.is_empty())
            .map(<[u8]>::to_vec)
            .collect())
    }

    fn write<'a>(&self, names: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        let mut text = Vec::new();
        for name in names.filter(|n| !n.is_empty()) {
            text.extend_from_slice(name);
            text.push(0);
        }
        self.file.write_all_at(&text, 0)?;
        self.file.set_len(text.len() as u64)?;
        self.file.sync_all()
    }
}

impl Drop for Lock {
    /// However it ended, it was not killed.
    fn drop(&mut self) {
        if self.alone {
            let _ = self.write(self.unfinished.iter().map(Vec::as_slice));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn what_was_being_made_is_known_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let dest = |n: &str| dir.path().join(n);
        drop(Lock::take(&dest("1")).unwrap());
        let killed = Lock::take(&dest("2")).unwrap();
        assert!(!killed.is_unfinished(OsStr::new("1")));
        assert!(Lock::take(&dest("3")).is_err());
        // As a process that is killed leaves it.
        let text = std::fs::read(dest(LOCK)).unwrap();
        drop(killed);
        std::fs::write(dest(LOCK), text).unwrap();
        let mut next = Lock::take(&dest("3")).unwrap();
        assert!(next.is_unfinished(OsStr::new("2")));
        next.forget_gone(dir.path());
        assert!(!next.is_unfinished(OsStr::new("2")));
        drop(next);
        assert_eq!(std::fs::read(dest(LOCK)).unwrap(), b"");
    }
}
