//! One file: contents, holes, streams, times.

use crate::{
    digest::DigestKind,
    pipeline::{self, CopyOptions},
    place::{FileId, create_temp, default_mode, is_source, keep_access},
    restore::{
        Options, Overwrite, Source, Streams, access,
        batch::{Kept, Pending},
        host::HostDir,
        walk::{Job, Run},
    },
    target::{RawFile, write_error},
};
use disk_io::{Disk, DiskError, ErrorKind, Result};
use guest_fs::{Metadata, Name, NodeKind, Security, Timestamp, fs::attributes};
use rustix::{
    fd::AsFd,
    fs::{
        AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
        fchmod, fchown, fsetxattr, fstat, futimens, statat, unlinkat,
    },
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::unix::ffi::{OsStrExt, OsStringExt},
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

/// The permission bits to give, where the guest knows any; set-id bits only to what is
/// `owned` by the guest's owner, for they would lend the powers of somebody else.
pub(crate) fn mode(metadata: &Metadata, options: &Options, owned: bool) -> Option<Mode> {
    let kept = if owned { 0o7777 } else { 0o1777 };
    let readonly = metadata
        .attributes
        .is_some_and(|a| a & attributes::READONLY != 0);
    match metadata.mode {
        Some(mode) if options.preserve => Some(Mode::from_raw_mode(mode & kept)),
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
        let known_as = job.known_as.as_ref().map(|(dir, name)| (*dir, name));
        match metadata.kind {
            NodeKind::File => {}
            NodeKind::Symlink => {
                self.restore_link(job, &metadata)?;
                self.tell_doubts(&job.path, job.node, known_as);
                return Ok(());
            }
            NodeKind::Special => return self.restore_special(job, &metadata),
            NodeKind::Directory => {
                return Err(DiskError::corrupt("restoring")
                    .expected("a file, as its directory says")
                    .found("a directory"));
            }
        }
        let linked = metadata.links > 1 && !self.options.dry_run;
        if linked && !self.is_first_link(job) {
            self.tell_doubts(&job.path, job.node, known_as);
            return Ok(());
        }
        let result = self.restore_contents(job, &metadata, linked);
        if linked && !matches!(result, Ok(true)) {
            self.first_link_is(job.node, None);
        }
        if matches!(result, Ok(true)) {
            self.tell_doubts(&job.path, job.node, known_as);
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
        let replaced = match self.look(&job.dir, &job.name)? {
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
        let (temp, file, sha256) = self.write_temp(&job.dir, &job.name, &*disk)?;
        let security = self.security_of(job.node);
        // The contents are complete: nothing that fails from here on takes them away.
        let streams = self.streams_of(job, metadata, Some(&file));
        let (security, secured) = match security {
            Ok(security) => (security, Ok(())),
            Err(e) => (None, Err(e)),
        };
        // Before the mode, which lists of access go with, and before the times.
        let xattrs = self
            .xattrs_of(job.node)
            .and_then(|all| access::keep_xattrs(file.as_fd(), &all));
        let finished = finish_file(
            &file,
            metadata,
            replaced.as_deref(),
            security.as_ref(),
            self.options,
        );
        let all = [streams, secured, xattrs, finished];
        for e in all.into_iter().filter_map(Result::err) {
            let e = match pipeline::is_cancelled(&e) {
                true => e,
                false => e.context("restored, but not wholly"),
            };
            self.failed(&job.path, &e);
        }
        self.push(Pending {
            dir: job.dir.clone(),
            temp,
            name: job.name.clone(),
            replace: replaced.is_some(),
            path: job.path.clone(),
            bytes: disk.len(),
            node: linked.then_some(job.node),
            id: self.id_of(&file),
            file: Some(file),
            kept: self.options.records.then(|| {
                Box::new(Kept {
                    metadata: metadata.clone(),
                    sha256,
                    security,
                })
            }),
        });
        Ok(true)
    }

    /// Which file of the host it is, where that will be asked for.
    fn id_of(&self, file: &File) -> Option<FileId> {
        match self.options.overwrite {
            Overwrite::Never => None,
            _ => fstat(file).ok().map(|stat| (stat.st_dev, stat.st_ino)),
        }
    }

    /// Writes contents under a temporary name, which is removed again on failure.
    fn write_temp(
        &self,
        dir: &Arc<HostDir>,
        name: &OsStr,
        disk: &dyn Disk,
    ) -> Result<(OsString, File, Option<String>)> {
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
            digest: match self.options.records {
                true => DigestKind::Sha256,
                false => DigestKind::None,
            },
            sparse: self.options.sparse,
        };
        let copied = RawFile::new(&file, &path, disk.len())
            .and_then(|target| pipeline::copy(disk, &target, options, self.observer));
        match copied {
            Ok(copied) => Ok((temp, file, copied.digest.map(|d| d.hex()))),
            Err(e) => {
                let _ = unlinkat(fd, &temp, AtFlags::empty());
                Err(e)
            }
        }
    }

    /// Named streams of a file (whose descriptor is `file`) or of a directory.
    pub(crate) fn streams_of(
        &self,
        job: &Job<S::Node>,
        metadata: &Metadata,
        file: Option<&File>,
    ) -> Result<()> {
        // The destination itself is the user's, and nothing goes beside it.
        let nowhere = file.is_none() && job.dir.above().is_none();
        let streams = match (self.source.streams(job.node), self.options.streams) {
            (Ok(streams), how) if how == Streams::None || nowhere => {
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
                self.one_stream(job, metadata, file, &stream.name, &path)
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
        metadata: &Metadata,
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
            // Those of a directory lie beside it too.
            let dir = match file {
                Some(_) => &job.dir,
                None => job.dir.above().unwrap_or(&job.dir),
            };
            let replaced = match self.look(dir, &name)? {
                There::Nothing => None,
                There::File(_) if self.options.overwrite == super::Overwrite::Never => {
                    self.skipped(path, "it exists already");
                    return Ok(());
                }
                There::File(stat) => Some(stat),
            };
            let (temp, open, sha256) = self.write_temp(dir, &name, &*disk)?;
            let finished = match file {
                Some(_) => finish_file(&open, metadata, replaced.as_deref(), None, self.options),
                None => {
                    let _ = fchmod(&open, default_mode());
                    Ok(())
                }
            };
            self.push(Pending {
                dir: dir.clone(),
                temp,
                name,
                replace: replaced.is_some(),
                path: path.to_vec(),
                bytes: disk.len(),
                node: None,
                id: self.id_of(&open),
                file: Some(open),
                kept: self.options.records.then(|| {
                    Box::new(Kept {
                        metadata: Metadata {
                            size: disk.len(),
                            ..metadata.clone()
                        },
                        sha256,
                        security: None,
                    })
                }),
            });
            return finished;
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
}

/// Gives the guest's owner, where that is asked for and possible; whether it was.
pub(crate) fn give_owner(
    metadata: &Metadata,
    options: &Options,
    chown: impl FnOnce(Uid, Gid) -> Result<(), Errno>,
) -> Result<bool> {
    let Some((uid, gid)) = metadata.owner else {
        return Ok(false);
    };
    if !options.preserve || !rustix::process::geteuid().is_root() {
        return Ok(false);
    }
    // To the kernel this number means "as it is": nobody's file would stay root's.
    if uid == u32::MAX || gid == u32::MAX {
        return Err(DiskError::unsupported("setting the owner")
            .expected("numbers of a user and a group below 4294967295")
            .found(format!("{uid} and {gid}")));
    }
    chown(Uid::from_raw(uid), Gid::from_raw(gid))
        .map(|()| true)
        .map_err(|e| DiskError::io("setting the owner", &e.into()))
}

/// Owner, mode and times, in this order: each would disturb the one before. All are tried;
/// the first that failed is told.
fn finish_file(
    file: &File,
    metadata: &Metadata,
    replaced: Option<&Stat>,
    security: Option<&Security>,
    options: &Options,
) -> Result<()> {
    let doing = |doing: &'static str| move |e: Errno| DiskError::io(doing, &e.into());
    let old = replaced.filter(|old| FileType::from_raw_mode(old.st_mode) == FileType::RegularFile);
    let kept = match old {
        // Not for a moment more than the guest's mode, where it has one.
        Some(old) => keep_access(
            file,
            old.st_uid,
            old.st_gid,
            metadata.mode.map_or(old.st_mode, |_| 0o600),
        ),
        None => Ok(()),
    };
    let owned = give_owner(metadata, options, |uid, gid| {
        fchown(file, Some(uid), Some(gid))
    });
    let is_owned = owned.as_ref().is_ok_and(|owned| *owned);
    let moded = match mode(metadata, options, is_owned) {
        Some(mode) => fchmod(file, mode),
        None => {
            if old.is_none() {
                // A file system without modes may refuse.
                let _ = fchmod(file, default_mode());
            }
            Ok(())
        }
    };
    let kept_access = access::keep(file.as_fd(), metadata, security, options);
    let timed = futimens(file, &times(metadata));
    kept.map_err(doing("setting the mode"))?;
    owned?;
    moded.map_err(doing("setting the mode"))?;
    kept_access?;
    timed.map_err(doing("setting the times"))?;
    access::keep_times(file.as_fd(), metadata, options)
}
