//! Directories of the host, entered one component at a time without following any link.

use crate::target::write_error;
use disk_io::{DiskError, Result};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{Mode, OFlags, ResolveFlags, mkdirat, openat, openat2},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

pub(crate) const ENTER: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A directory beneath the destination, made when something first goes into it.
#[derive(Debug)]
pub struct HostDir {
    parent: Option<Arc<HostDir>>,
    name: OsString,
    /// Relative to the destination; empty for itself.
    path: PathBuf,
    /// The same as the user would name it, for messages.
    shown: PathBuf,
    /// Only looked into, never made.
    dry: bool,
    made: Arc<AtomicBool>,
    fd: OnceLock<Result<OwnedFd>>,
}

impl HostDir {
    /// The destination, whose own links are followed: the user named it.
    /// With `dry` no directory is ever made below it.
    pub fn root(dir: &Path, dry: bool) -> Result<Arc<Self>> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(dir, flags, Mode::empty())
            .map_err(|e| write_error("opening the destination", dir, &e.into()))?;
        Ok(Arc::new(Self {
            parent: None,
            name: dir.as_os_str().to_owned(),
            path: PathBuf::new(),
            shown: dir.to_path_buf(),
            dry,
            made: Arc::default(),
            fd: OnceLock::from(Ok(fd)),
        }))
    }

    /// A directory in this one, not made yet.
    pub fn child(self: &Arc<Self>, name: &OsStr) -> Arc<Self> {
        Arc::new(Self {
            parent: Some(self.clone()),
            name: name.to_owned(),
            path: self.path.join(name),
            shown: self.shown.join(name),
            dry: self.dry,
            made: Arc::default(),
            fd: OnceLock::new(),
        })
    }

    /// Relative to the destination.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that holds it; none holds the destination.
    pub fn above(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    /// As the user would name it, for messages.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// Its descriptor; makes it, and those above it, if they are not there.
    pub fn fd(&self) -> Result<BorrowedFd<'_>> {
        match self.fd.get_or_init(|| self.enter()) {
            Ok(fd) => Ok(fd.as_fd()),
            Err(e) => Err(e.clone()),
        }
    }

    /// Becomes true when [`Self::fd`] makes it, rather than finds it.
    pub fn made(&self) -> Arc<AtomicBool> {
        self.made.clone()
    }

    fn enter(&self) -> Result<OwnedFd> {
        let Some(parent) = &self.parent else {
            return Err(DiskError::refused("entering a directory without a parent"));
        };
        let dir = parent.fd()?;
        if !self.dry {
            match mkdirat(dir, &self.name, Mode::from_raw_mode(0o777)) {
                Ok(()) => self.made.store(true, Ordering::Relaxed),
                Err(Errno::EXIST) => {}
                Err(e) => {
                    return Err(write_error("making the directory", &self.shown, &e.into()));
                }
            }
        }
        openat(dir, &self.name, ENTER, Mode::empty()).map_err(|e| match e {
            Errno::LOOP | Errno::NOTDIR => DiskError::refused("entering the directory")
                .file(self.shown.display())
                .expected("a directory in the destination")
                .found("a link or a file of that name, which is not followed or replaced")
                .hint("move it away, or choose another destination"),
            e => write_error("entering the directory", &self.shown, &e.into()),
        })
    }
}

/// Opens a directory by its path beneath `root`, following nothing.
pub fn open_dir_beneath(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    if path.as_os_str().is_empty() {
        return openat(root, ".", ENTER, Mode::empty());
    }
    // One call takes at most PATH_MAX bytes.
    if path.as_os_str().as_bytes().len() < 4000 {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match openat2(root, path, ENTER, Mode::empty(), resolve) {
            // An old kernel, or a container that hides the call.
            Err(Errno::NOSYS | Errno::PERM) => {}
            other => return other,
        }
    }
    let mut dir: Option<OwnedFd> = None;
    for part in path.components() {
        let Component::Normal(name) = part else {
            return Err(Errno::XDEV);
        };
        let here = dir.as_ref().map_or(root, AsFd::as_fd);
        dir = Some(openat(here, name, ENTER, Mode::empty())?);
    }
    dir.ok_or(Errno::NOENT)
}
