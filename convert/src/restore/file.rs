//! One file: contents, holes, streams, times.

use crate::{
    digest::DigestKind,
    pipeline::{self, CopyOptions},
    place::{FileId, create_temp, is_source, keep_access, rename_in, temp_name},
    restore::{
        Options, Source, Streams,
        batch::Pending,
        host::HostDir,
        walk::{Job, Run},
    },
    target::{RawFile, write_error},
};
use disk_io::{Disk, DiskError, ErrorKind, Result};
use guest_fs::{Metadata, Name, NodeKind, Timestamp, fs::attributes};
use rustix::{
    fd::AsFd,
    fs::{
        AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
        fchmod, fchown, fsetxattr, futimens, statat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
    sync::Arc,
};

/// From here on the workers share one file.
const LARGE: u64 = 32 << 20;
/// What Linux takes as one extended attribute.
const XATTR_MAX: u64 = 64 << 10;

/// What lies where a file should go.
pub(crate) enum There {
    Nothing,
    /// A file or link that can be replaced.
    File(Box<Stat>),
}

/// Looks at the place without following a link. Only a regular file or a link is ever
/// replaced, and none that is `protected` or leads to one that is.
pub(crate) fn look(dir: &HostDir, name: &OsStr, protected: &[FileId]) -> Result<There> {
    let fd = match dir.fd() {
        Ok(fd) => fd,
        // Only when nothing is to be made.
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(There::Nothing),
        Err(e) => return Err(e),
    };
    let path = || dir.shown().join(name);
    match statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            let kind = FileType::from_raw_mode(stat.st_mode);
            let found = match kind {
                FileType::RegularFile | FileType::Symlink => None,
                FileType::Directory => Some("a directory"),
                FileType::Fifo => Some("a named pipe"),
                FileType::Socket => Some("a socket"),
                FileType::CharacterDevice | FileType::BlockDevice => Some("a device"),
                _ => Some("something else"),
            };
            if let Some(found) = found {
                return Err(DiskError::refused("restoring over")
                    .file(path().display())
                    .expected("a regular file, or nothing")
                    .found(found)
                    .hint("move it away, or choose another destination"));
            }
            let target = match kind {
                FileType::Symlink => statat(fd, name, AtFlags::empty()).ok(),
                _ => None,
            };
            let is_protected = |s: &Stat| protected.contains(&(s.st_dev, s.st_ino));
            if is_protected(&stat) || target.as_ref().is_some_and(is_protected) {
                return Err(is_source(&path()));
            }
            Ok(There::File(Box::new(stat)))
        }
        Err(Errno::NOENT | Errno::INVAL | Errno::ILSEQ | Errno::NAMETOOLONG) => Ok(There::Nothing),
        Err(e) => Err(write_error("looking at", &path(), &e.into())),
    }
}

/// The guest's times for the host; a time the guest does not know stays as it is.
pub(crate) fn times(metadata: &Metadata) -> Timestamps {
    let spec = |t: Option<Timestamp>| match t {
        Some(t) => Timespec {
            tv_sec: t.seconds,
            tv_nsec: t.nanos.into(),
        },
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
    };
    Timestamps {
        last_access: spec(metadata.accessed),
        last_modification: spec(metadata.modified),
    }
}

/// The permission bits to give, where the guest knows any.
pub(crate) fn mode(metadata: &Metadata, options: &Options) -> Option<Mode> {
    let readonly = metadata
        .attributes
        .is_some_and(|a| a & attributes::READONLY != 0);
    match metadata.mode {
        Some(mode) if options.preserve => Some(Mode::from_raw_mode(mode & 0o7777)),
        Some(mode) => Some(Mode::from_raw_mode(mode & 0o777)),
        None if options.preserve && readonly && metadata.kind == NodeKind::File => {
            Some(Mode::from_raw_mode(0o444))
        }
        None => None,
    }
}

impl<S: Source> Run<'_, S> {
    /// Restores what is not a directory.
    pub(crate) fn restore_file(&self, job: &Job<S::Node>) -> Result<()> {
        let metadata = self.source.metadata(job.node)?;
        if let Some(refusal) = &metadata.refusal {
            return Err(refusal.clone());
        }
        match metadata.kind {
            NodeKind::File => {}
            NodeKind::Symlink => return self.restore_link(job, &metadata),
            NodeKind::Special => {
                return Err(DiskError::unsupported("restoring")
                    .found("a device node, socket or pipe, which is not made here"));
            }
            NodeKind::Directory => {
                return Err(DiskError::corrupt("restoring")
                    .expected("a file, as its directory says")
                    .found("a directory"));
            }
        }
        let linked = metadata.links > 1 && !self.options.dry_run;
        if linked && !self.is_first_link(job) {
            return Ok(());
        }
        let result = self.restore_contents(job, &metadata, linked);
        if linked && !matches!(result, Ok(true)) {
            self.first_link_is(job.node, None);
        }
        result.map(|_| ())
    }

    /// Restores contents; `false` if the file that exists stayed.
    pub(crate) fn restore_contents(
        &self,
        job: &Job<S::Node>,
        metadata: &Metadata,
        linked: bool,
    ) -> Result<bool> {
        let replaced = match look(&job.dir, &job.name, &self.options.protected)? {
            There::Nothing => None,
            There::File(stat) => match self.options.overwrite.keeps(metadata, &stat) {
                Some(reason) => {
                    self.skipped(&job.path, reason);
                    return Ok(false);
                }
                None => Some(stat),
            },
        };
        // Opened even if nothing is to be written: a dry run tells what will fail.
        let disk = self.source.open(job.node, None)?;
        self.observer.found(disk.len());
        if self.options.dry_run {
            self.restored(&job.path, disk.len());
            return Ok(true);
        }
        let (temp, file) = self.write_temp(&job.dir, &job.name, &*disk)?;
        let done = self
            .streams_of(job, Some(&file))
            .and_then(|()| finish_file(&file, metadata, replaced.as_deref(), self.options));
        let pending = Pending {
            dir: job.dir.clone(),
            temp,
            name: job.name.clone(),
            replace: replaced.is_some(),
            path: job.path.clone(),
            bytes: disk.len(),
            node: linked.then_some(job.node),
        };
        if let Err(e) = done {
            crate::restore::batch::discard(&[pending]);
            return Err(e);
        }
        self.push(pending);
        Ok(true)
    }

    /// Writes contents under a temporary name, which is removed again on failure.
    fn write_temp(
        &self,
        dir: &Arc<HostDir>,
        name: &OsStr,
        disk: &dyn Disk,
    ) -> Result<(OsString, File)> {
        let path = dir.shown().join(name);
        let fd = dir.fd()?;
        let (temp, file) =
            create_temp(fd).map_err(|e| write_error("creating", &path, &e.into()))?;
        let options = CopyOptions {
            workers: if disk.len() >= LARGE {
                self.options.workers
            } else {
                1
            },
            digest: DigestKind::None,
            sparse: self.options.sparse,
        };
        let copied = RawFile::new(&file, &path, disk.len())
            .and_then(|target| pipeline::copy(disk, &target, options, self.observer));
        match copied {
            Ok(_) => Ok((temp, file)),
            Err(e) => {
                let _ = unlinkat(fd, &temp, AtFlags::empty());
                Err(e)
            }
        }
    }

    /// Named streams of a file (whose descriptor is `file`) or of a directory.
    pub(crate) fn streams_of(&self, job: &Job<S::Node>, file: Option<&File>) -> Result<()> {
        let streams = match (self.source.streams(job.node), self.options.streams) {
            (Ok(streams), Streams::None) => {
                self.left_streams(streams.len() as u64);
                return Ok(());
            }
            (Err(_), Streams::None) => return Ok(()),
            (streams, _) => streams?,
        };
        for stream in streams {
            let mut path = job.path.clone();
            path.push(b':');
            path.extend_from_slice(stream.name.as_bytes());
            let result = if self.options.dry_run {
                Ok(())
            } else {
                self.one_stream(job, file, &stream.name, &path)
            };
            if let Err(e) = result {
                if crate::restore::walk::is_fatal(&e) {
                    return Err(e);
                }
                self.failed(&path, &e);
            }
        }
        Ok(())
    }

    fn one_stream(
        &self,
        job: &Job<S::Node>,
        file: Option<&File>,
        stream: &Name,
        path: &[u8],
    ) -> Result<()> {
        let disk = self.source.open(job.node, Some(stream))?;
        if self.options.streams == Streams::Files {
            let mut name = job.name.as_bytes().to_vec();
            name.push(b':');
            name.extend_from_slice(stream.as_bytes());
            let name = crate::restore::names::host_name(&name).unwrap_or(name);
            let name = OsString::from_vec(name);
            let replace = match look(&job.dir, &name, &self.options.protected)? {
                There::Nothing => false,
                There::File(_) if self.options.overwrite == super::Overwrite::Never => {
                    self.skipped(path, "it exists already");
                    return Ok(());
                }
                There::File(_) => true,
            };
            let (temp, _) = self.write_temp(&job.dir, &name, &*disk)?;
            self.push(Pending {
                dir: job.dir.clone(),
                temp,
                name,
                replace,
                path: path.to_vec(),
                bytes: disk.len(),
                node: None,
            });
            return Ok(());
        }
        if disk.len() > XATTR_MAX {
            return Err(
                DiskError::unsupported("keeping a stream as an extended attribute")
                    .expected("at most 65536 bytes")
                    .found(format!("{} bytes", disk.len()))
                    .hint("--streams files has no such limit"),
            );
        }
        let mut value = vec![0; usize::try_from(disk.len()).unwrap_or(0)];
        disk.read_exact_at(&mut value, 0)?;
        let mut key = b"user.".to_vec();
        key.extend_from_slice(stream.as_bytes());
        let set = |fd: rustix::fd::BorrowedFd<'_>| {
            fsetxattr(fd, OsStr::from_bytes(&key), &value, XattrFlags::empty())
        };
        match file {
            Some(file) => set(file.as_fd()),
            None => set(job.dir.fd()?),
        }
        .map_err(|e| {
            let doing = "keeping a stream as an extended attribute of";
            let place = match file {
                Some(_) => job.dir.shown().join(&job.name),
                None => job.dir.shown().to_path_buf(),
            };
            match e {
                // Not a full disk: most file systems give a file a block for all of them.
                Errno::TOOBIG | Errno::NOSPC | Errno::RANGE | Errno::DQUOT => {
                    DiskError::unsupported(doing)
                        .file(place.display())
                        .expected("no more than the destination's file system takes")
                        .found(format!("{} bytes", disk.len()))
                        .hint("--streams files has no such limit")
                }
                e => write_error(doing, &place, &e.into())
                    .hint("--streams files keeps streams on every file system"),
            }
        })
    }

    fn restore_link(&self, job: &Job<S::Node>, metadata: &Metadata) -> Result<()> {
        let link = self.source.read_link(job.node)?;
        let replace = match look(&job.dir, &job.name, &self.options.protected)? {
            There::Nothing => false,
            There::File(stat) => match self.options.overwrite.keeps(metadata, &stat) {
                Some(reason) => {
                    self.skipped(&job.path, reason);
                    return Ok(());
                }
                None => true,
            },
        };
        if !self.options.dry_run {
            let dir = job.dir.fd()?;
            let path = job.dir.shown().join(&job.name);
            let fail = |e: Errno| make_link_error(&path, e);
            let temp = loop {
                let temp = temp_name();
                match symlinkat(link.target.as_os_str(), dir, &temp) {
                    Ok(()) => break temp,
                    Err(Errno::EXIST) => {}
                    Err(e) => return Err(fail(e)),
                }
            };
            let _ = utimensat(dir, &temp, &times(metadata), AtFlags::SYMLINK_NOFOLLOW);
            if let Err(e) = rename_in(dir, &temp, &job.name, replace) {
                let _ = unlinkat(dir, &temp, AtFlags::empty());
                return Err(fail(e));
            }
        }
        self.made_symlink(&job.path);
        Ok(())
    }
}

fn make_link_error(path: &Path, e: Errno) -> DiskError {
    let error = write_error("making the symbolic link", path, &e.into());
    match e {
        Errno::PERM | Errno::OPNOTSUPP => error.hint("that file system has no symbolic links"),
        _ => error,
    }
}

/// Owner, mode and times, in this order: each would disturb the one before.
fn finish_file(
    file: &File,
    metadata: &Metadata,
    replaced: Option<&Stat>,
    options: &Options,
) -> Result<()> {
    if let Some(old) = replaced
        && FileType::from_raw_mode(old.st_mode) == FileType::RegularFile
    {
        keep_access(file, old.st_uid, old.st_gid, old.st_mode)
            .map_err(|e| DiskError::io("setting the mode", &e.into()))?;
    }
    if options.preserve
        && let Some((uid, gid)) = metadata.owner
        && rustix::process::geteuid().is_root()
    {
        fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|e| DiskError::io("setting the owner", &e.into()))?;
    }
    if let Some(mode) = mode(metadata, options) {
        fchmod(file, mode).map_err(|e| DiskError::io("setting the mode", &e.into()))?;
    }
    futimens(file, &times(metadata)).map_err(|e| DiskError::io("setting the times", &e.into()))
}
