//! Disks that several of the machines share which are exported together: each is written once,
//! and the other backups have it under a second name.

use crate::backup::Taken;
use convert::backup::{Again, Written};
use disk_io::FileId;
use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What some machines share.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Held while one of them is exported: the next finds what it wrote.
    turn: Mutex<()>,
    /// What was written so far, by the file that each disk begins with.
    written: Mutex<HashMap<FileId, Again>>,
}

impl Shared {
    /// Waits until no other of them is exported.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.0.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives every disk that is in another backup already its files there.
    pub(super) fn find(&self, taken: &mut Taken) {
        let written = self.0.written.lock();
        let written = written.unwrap_or_else(PoisonError::into_inner);
        for (part, id) in taken.parts.disks.iter_mut().zip(&taken.ids) {
            part.again = written.get(id).cloned();
        }
    }

    /// Notes the disks of a backup that is complete, but for those that build on an earlier one: that
    /// lies beside it, and not beside the others.
    pub(super) fn note(&self, taken: &Taken, dir: &Path, written: &Written) {
        let noted = self.0.written.lock();
        let mut noted = noted.unwrap_or_else(PoisonError::into_inner);
        let disks = written.manifest.disks.iter().zip(&written.files);
        let whole = taken.ids.iter().zip(disks);
        for (id, (entry, files)) in whole.filter(|(_, (entry, _))| entry.parent.is_none()) {
            noted.entry(*id).or_insert_with(|| Again {
                dir: dir.to_path_buf(),
                entry: entry.clone(),
                files: files.clone(),
            });
        }
    }
}
