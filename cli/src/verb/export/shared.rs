//! Disks that several of the machines share which are exported together: each is written once,
//! and the other backups have it under a second name.

use crate::{backup::Taken, exit::Failure, since::allow, source::names_of};
use convert::backup::{Again, Manifest};
use disk_io::FileId;
use proxy::{Source, SourceSpec};
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
    pub(super) fn note(
        &self,
        taken: &Taken,
        dir: &Path,
        manifest: &Manifest,
    ) -> Result<(), Failure> {
        let whole = taken.ids.iter().zip(&manifest.disks);
        for (id, entry) in whole.filter(|(_, entry)| entry.parent.is_none()) {
            let mut spec = SourceSpec {
                path: dir.join(&entry.file),
                ..SourceSpec::default()
            };
            allow(&mut spec)?;
            let mut names = names_of(&Source::open(&spec)?);
            names.extend(entry.units.clone());
            let files = manifest.files.iter().filter(|f| names.contains(&f.name));
            let again = Again {
                dir: dir.to_path_buf(),
                entry: entry.clone(),
                files: files.cloned().collect(),
            };
            let written = self.0.written.lock();
            let mut written = written.unwrap_or_else(PoisonError::into_inner);
            written.entry(*id).or_insert(again);
        }
        Ok(())
    }
}
