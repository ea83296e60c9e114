//! Hard links inside one restore, and what directories get when everything is in them.

use crate::{
    place::{rename_in, temp_name},
    restore::{
        Record, Source, access,
        file::{There, give_owner, mode, times},
        host::open_dir_beneath,
        walk::{Job, Run, guarded},
    },
    target::write_error,
};
use disk_io::{DiskError, Result};
use guest_fs::{Metadata, Name, Security};
use rustix::{
    fd::AsFd,
    fs::{AtFlags, fchmod, fchown, futimens, linkat, unlinkat},
    io::Errno,
};
use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

/// What became of the first name of a file that has several.
#[derive(Clone, Debug)]
pub(crate) enum First {
    /// Being copied, by the job for this tree path.
    Underway,
    /// Restored here, relative to the destination.
    At(PathBuf),
    /// Not restored.
    Nowhere,
}

/// A directory of the guest, to be finished last.
#[derive(Debug)]
pub(crate) struct DirRecord {
    pub(crate) path: PathBuf,
    pub(crate) guest_path: Vec<u8>,
    pub(crate) metadata: Metadata,
    pub(crate) made: Arc<AtomicBool>,
    pub(crate) security: Option<Security>,
    pub(crate) xattrs: Vec<(Name, Vec<u8>)>,
}

impl<S: Source> Run<'_, S> {
    /// Whether this job is the one that copies a file of several names; the others wait.
    pub(crate) fn is_first_link(&self, job: &Job<S::Node>) -> bool {
        let mut links = self.links.lock().unwrap_or_else(|e| e.into_inner());
        if links.contains_key(&job.node) {
            drop(links);
            let mut later = self.later.lock().unwrap_or_else(|e| e.into_inner());
            later.push(LaterLink {
                path: job.path.clone(),
                node: job.node,
                dir: job.dir.path().to_path_buf(),
                name: job.name.clone(),
            });
            // The directory must be there when its turn comes.
            drop(later);
            let _ = job.dir.fd();
            return false;
        }
        links.insert(job.node, First::Underway);
        true
    }

    pub(crate) fn first_link_is(&self, node: S::Node, place: Option<PathBuf>) {
        let mut links = self.links.lock().unwrap_or_else(|e| e.into_inner());
        links.insert(node, place.map_or(First::Nowhere, First::At));
    }

    /// Makes the further names, when all first ones have theirs.
    pub(crate) fn make_links(&self) {
        let later = std::mem::take(&mut *self.later.lock().unwrap_or_else(|e| e.into_inner()));
        for link in later {
            if self.stopped() {
                return;
            }
            if let Err(e) = guarded(|| self.make_link(&link)) {
                self.failed(&link.path, &e);
            }
        }
    }

    fn make_link(&self, link: &LaterLink<S::Node>) -> Result<()> {
        let first = {
            let links = self.links.lock().unwrap_or_else(|e| e.into_inner());
            links.get(&link.node).cloned()
        };
        let metadata = self.source.metadata(link.node)?;
        let job = self.job_at(link)?;
        if let Some(First::At(at)) = first {
            let replace = match self.look(&job.dir, &job.name)? {
                There::Nothing => false,
                There::File(stat) => match self.options.overwrite.keeps(&metadata, &stat) {
                    Some(reason) => {
                        self.skipped(&link.path, reason);
                        return Ok(());
                    }
                    None => true,
                },
            };
            match self.link(&at, &job, replace) {
                Ok(()) => {
                    self.wrote_in(&link.dir);
                    if self.options.records {
                        self.observer.kept(&Record {
                            path: &link.path,
                            place: &link.dir.join(&link.name),
                            metadata: &metadata,
                            sha256: None,
                            target: None,
                            first: Some(&at),
                            security: None,
                        });
                    }
                    self.restored(&link.path, 0);
                    return Ok(());
                }
                // No hard links there, or too many: a copy serves.
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK | Errno::XDEV) => {}
                Err(e) => {
                    let place = job.dir.shown().join(&link.name);
                    return Err(write_error("making the hard link", &place, &e.into()));
                }
            }
        }
        self.restore_contents(&job, &metadata, false).map(|_| ())
    }

    fn job_at(&self, link: &LaterLink<S::Node>) -> Result<Job<S::Node>> {
        let mut dir = self.root.clone();
        for part in link.dir.components() {
            dir = dir.child(part.as_os_str());
        }
        dir.fd()?;
        Ok(Job {
            known_as: None,
            path: link.path.clone(),
            node: link.node,
            dir,
            name: link.name.clone(),
        })
    }

    fn link(&self, at: &std::path::Path, job: &Job<S::Node>, replace: bool) -> Result<(), Errno> {
        let root = self.root.fd().map_err(|_| Errno::IO)?;
        let parent = at.parent().unwrap_or(std::path::Path::new(""));
        let from = open_dir_beneath(root, parent)?;
        let first = at.file_name().ok_or(Errno::NOENT)?;
        let to = job.dir.fd().map_err(|_| Errno::IO)?;
        if !replace {
            return linkat(&from, first, to, &job.name, AtFlags::empty());
        }
        let temp = temp_name();
        linkat(&from, first, to, &temp, AtFlags::empty())?;
        rename_in(to, &temp, &job.name, true).inspect_err(|_| {
            let _ = unlinkat(to, &temp, AtFlags::empty());
        })
    }

    /// Gives the directories that were made their owners, modes and times, the last made first:
    /// until now files went into them.
    pub(crate) fn finish_directories(&self) {
        let records =
            std::mem::take(&mut *self.directories.lock().unwrap_or_else(|e| e.into_inner()));
        for record in records.iter().rev() {
            if self.options.records {
                self.observer.kept(&Record {
                    path: &record.guest_path,
                    place: &record.path,
                    metadata: &record.metadata,
                    sha256: None,
                    target: None,
                    first: None,
                    security: record.security.as_ref(),
                });
            }
            if !record.made.load(std::sync::atomic::Ordering::Relaxed) {
                continue;
            }
            let finish = || -> Result<()> {
                let fail = |e: Errno| {
                    DiskError::io("setting mode and times of the directory", &e.into())
                        .file(record.path.display())
                };
                let dir = open_dir_beneath(self.root.fd()?, &record.path).map_err(fail)?;
                let owned = give_owner(&record.metadata, self.options, |uid, gid| {
                    fchown(&dir, Some(uid), Some(gid))
                });
                let is_owned = owned.as_ref().is_ok_and(|owned| *owned);
                if let Some(mode) = mode(&record.metadata, self.options, is_owned) {
                    fchmod(&dir, mode).map_err(fail)?;
                }
                let security = record.security.as_ref();
                let xattrs = access::keep_xattrs(dir.as_fd(), &record.xattrs);
                let kept = access::keep(dir.as_fd(), &record.metadata, security, self.options);
                futimens(&dir, &times(&record.metadata)).map_err(fail)?;
                access::keep_times(dir.as_fd(), &record.metadata, self.options)?;
                kept?;
                xattrs.map_err(|e| e.file(record.path.display()))?;
                owned.map(|_| ()).map_err(|e| e.file(record.path.display()))
            };
            if let Err(e) = finish() {
                self.failed(&record.guest_path, &e);
            }
        }
    }
}

/// A further name of a file.
#[derive(Debug)]
pub(crate) struct LaterLink<N> {
    path: Vec<u8>,
    node: N,
    dir: PathBuf,
    name: std::ffi::OsString,
}
