//! What has no contents: symbolic links and named pipes.

use crate::{
    place::{default_mode, rename_in, temp_name},
    restore::{
        Event, Overwrite, Record, SOCKET, Source,
        file::{There, give_owner, mode, times},
        walk::{Job, Run},
    },
    target::write_error,
};
use disk_io::{DiskError, Result};
use guest_fs::{Metadata, Name, SpecialKind};
use rustix::{
    fd::{BorrowedFd, OwnedFd},
    fs::{
        AtFlags, FileType, Mode, OFlags, chownat, fchmod, fchown, fstat, futimens, mknodat, openat,
        statat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};
use std::{ffi::OsStr, path::Path};

/// What is made.
#[derive(Clone, Copy, Debug)]
enum Made<'a> {
    /// A link that leads here.
    Link(&'a Name),
    Fifo,
}

impl<S: Source> Run<'_, S> {
    pub(crate) fn restore_link(&self, job: &Job<S::Node>, metadata: &Metadata) -> Result<()> {
        let link = self.source.read_link(job.node)?;
        let Some(replace) = self.replaces(job, metadata)? else {
            return Ok(());
        };
        if !self.options.dry_run {
            self.make(job, metadata, replace, Made::Link(&link.target))?;
        }
        self.made_symlink(&job.path);
        Ok(())
    }

    /// A pipe is made. A device node would give whoever may open it a device of this host, by a
    /// number that a guest chose; a socket is nothing without its program.
    pub(crate) fn restore_special(&self, job: &Job<S::Node>, metadata: &Metadata) -> Result<()> {
        let device = |found: &'static str| {
            Err(DiskError::unsupported("restoring")
                .found(found)
                .hint("vmdkit tar stores it"))
        };
        match metadata.special() {
            Some(SpecialKind::Fifo) => self.restore_fifo(job, metadata),
            Some(SpecialKind::Socket) => {
                let (path, why) = (&job.path, SOCKET);
                self.observer.event(Event::Left { path, why });
                Ok(())
            }
            Some(SpecialKind::CharDevice) => device("a character device, which is not made here"),
            Some(SpecialKind::BlockDevice) => device("a block device, which is not made here"),
            None => Err(DiskError::unsupported("restoring")
                .found("a device node, socket or pipe, which is not made here")),
        }
    }

    fn restore_fifo(&self, job: &Job<S::Node>, metadata: &Metadata) -> Result<()> {
        let replace = match self.is_fifo(job) {
            true if self.options.overwrite != Overwrite::Always => {
                self.skipped(&job.path, "it exists already");
                return Ok(());
            }
            true => true,
            false => match self.replaces(job, metadata)? {
                Some(replace) => replace,
                None => return Ok(()),
            },
        };
        if !self.options.dry_run {
            self.make(job, metadata, replace, Made::Fifo)?;
        }
        self.restored(&job.path, 0);
        let known_as = job.known_as.as_ref().map(|(dir, name)| (*dir, name));
        self.tell_doubts(&job.path, job.node, known_as);
        Ok(())
    }

    /// Whether something is there that is replaced; `None` where what is there is kept, which is told.
    fn replaces(&self, job: &Job<S::Node>, metadata: &Metadata) -> Result<Option<bool>> {
        let There::File(stat) = self.look(&job.dir, &job.name)? else {
            return Ok(Some(false));
        };
        match self.options.overwrite.keeps(metadata, &stat) {
            Some(reason) => {
                self.skipped(&job.path, reason);
                Ok(None)
            }
            None => Ok(Some(true)),
        }
    }

    /// Whether a pipe is there already: one is as good as another.
    fn is_fifo(&self, job: &Job<S::Node>) -> bool {
        let stat = job
            .dir
            .fd()
            .and_then(|dir| {
                statat(dir, &job.name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| DiskError::io("looking", &e.into()))
            })
            .ok();
        stat.is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Fifo)
    }

    /// Gives a pipe its owner, mode and times.
    fn settle(&self, fifo: &OwnedFd, metadata: &Metadata) -> Result<bool> {
        let owned = give_owner(metadata, self.options, |uid, gid| {
            fchown(fifo, Some(uid), Some(gid))
        });
        let is_owned = owned.as_ref().is_ok_and(|owned| *owned);
        let mode = mode(metadata, self.options, is_owned).unwrap_or_else(default_mode);
        // A file system without modes may refuse.
        let _ = fchmod(fifo, mode);
        let _ = futimens(fifo, &times(metadata));
        owned
    }

    /// Makes it under a temporary name, with owner, mode and times, and gives it its own.
    fn make(
        &self,
        job: &Job<S::Node>,
        metadata: &Metadata,
        replace: bool,
        made: Made<'_>,
    ) -> Result<()> {
        let dir = job.dir.fd()?;
        let path = job.dir.shown().join(&job.name);
        let fail = |e: Errno| make_error(&path, made, e);
        let temp = loop {
            let temp = temp_name();
            let done = match made {
                Made::Link(target) => symlinkat(target.as_os_str(), dir, &temp),
                Made::Fifo => mknodat(dir, &temp, FileType::Fifo, Mode::from_raw_mode(0o600), 0),
            };
            match done {
                Ok(()) => break temp,
                Err(Errno::EXIST) => {}
                Err(e) => return Err(fail(e)),
            }
        };
        let owned = match made {
            Made::Link(_) => {
                let owned = give_owner(metadata, self.options, |uid, gid| {
                    chownat(dir, &temp, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                });
                let _ = utimensat(dir, &temp, &times(metadata), AtFlags::SYMLINK_NOFOLLOW);
                owned
            }
            Made::Fifo => match open_fifo(dir, &temp) {
                Ok(fifo) => self.settle(&fifo, metadata),
                Err(e) => {
                    let _ = unlinkat(dir, &temp, AtFlags::empty());
                    return Err(fail(e));
                }
            },
        };
        let id = match self.options.overwrite {
            Overwrite::Never => None,
            _ => statat(dir, &temp, AtFlags::SYMLINK_NOFOLLOW).ok(),
        };
        let id = id.map(|stat| (stat.st_dev, stat.st_ino));
        let named = self.once(&job.dir, &job.name, id, replace, || {
            rename_in(dir, &temp, &job.name, replace).map_err(fail)
        });
        if let Err(e) = named {
            let _ = unlinkat(dir, &temp, AtFlags::empty());
            return Err(e);
        }
        self.wrote_in(job.dir.path());
        if let Err(e) = owned {
            self.failed(&job.path, &e.context("restored, but not wholly"));
        }
        if self.options.records {
            self.observer.kept(&Record {
                path: &job.path,
                place: &job.dir.path().join(&job.name),
                metadata,
                sha256: None,
                target: match made {
                    Made::Link(target) => Some(target),
                    Made::Fifo => None,
                },
                first: None,
                security: None,
            });
        }
        Ok(())
    }
}

/// Opens a pipe that was just made: what somebody put in its place meanwhile is none, and is not
/// followed.
fn open_fifo(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fifo = openat(dir, name, flags, Mode::empty())?;
    match FileType::from_raw_mode(fstat(&fifo)?.st_mode) {
        FileType::Fifo => Ok(fifo),
        _ => Err(Errno::EXIST),
    }
}

fn make_error(path: &Path, made: Made<'_>, e: Errno) -> DiskError {
    let (doing, hint) = match made {
        Made::Link(_) => (
            "making the symbolic link",
            "that file system has no symbolic links",
        ),
        Made::Fifo => (
            "making the named pipe",
            "that file system has no named pipes",
        ),
    };
    let error = write_error(doing, path, &e.into());
    match e {
        Errno::PERM | Errno::OPNOTSUPP => error.hint(hint),
        _ => error,
    }
}
