//! Brings a target from the old disk to the new, as the journal has it.
//!
//! Where its file system shares blocks between files, a clone is changed and takes the target's
//! name when it is complete. Elsewhere the target loses its name first and has it again when all
//! is written and synced: nobody ever finds a mix under it. Either way the journal is complete
//! before, and doing it again from any point ends well.

use super::{
    journal::Journal,
    state::{Form, Part, Places, State},
    unit::{self, ZERO},
};
use crate::{
    delta::set_cid, digest::Hash, in_order::in_order, pipeline, place::Partial, progress::Progress,
};
use disk_io::{DiskError, Result, output::write_error};
use rustix::fs::{FallocateFlags, fallocate, ioctl_ficlone};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// # Errors
/// `Io`: the journal stays, and doing it again ends it.
pub(super) fn apply(
    places: &Places,
    state: &State,
    journal: &Journal,
    cid: u32,
    work: (usize, &dyn Progress),
) -> Result<()> {
    match cloned(places, state)? {
        Some((part, clone)) => {
            patch(state, journal, &[(part, clone.file())], work)?;
            clone.finish()?;
            if state.form == Form::Vmdk {
                set_cid(places.target(), cid)?;
            }
            sync(&places.units(), &units(places, journal)?)
        }
        None => {
            let away = places.applying();
            if places.target().exists() {
                rename(places.target(), &away)?;
                places.sync_dir()?;
            }
            let mut files = Vec::new();
            for part in &state.parts {
                let path = match state.form {
                    Form::Raw => away.clone(),
                    Form::Vmdk => places.target().with_file_name(&part.file),
                };
                files.push((part, open(&path)?));
            }
            let parts: Vec<(&Part, &File)> = files.iter().map(|(p, f)| (*p, f)).collect();
            patch(state, journal, &parts, work)?;
            // Syncs that follow each other cost little more than one.
            let units = units(places, journal)?;
            for (part, file) in &parts {
                sync(Path::new(&part.file), file)?;
            }
            sync(&places.units(), &units)?;
            if state.form == Form::Vmdk {
                set_cid(&away, cid)?;
            }
            // The directory is synced with the new state in it, before the journal goes.
            rename(&away, places.target())
        }
    }
}

/// Gives a target its name again that was complete, and lost it.
pub(super) fn give_name(places: &Places) -> Result<()> {
    rename(&places.applying(), places.target())?;
    places.sync_dir()
}

fn sync(path: &Path, file: &File) -> Result<()> {
    file.sync_all()
        .map_err(|e| write_error("syncing", path, &e))
}

/// A clone of the target's only file, where the file system can make one and the target has its
/// name.
fn cloned<'a>(places: &Places, state: &'a State) -> Result<Option<(&'a Part, Partial)>> {
    let [part] = state.parts.as_slice() else {
        return Ok(None);
    };
    let path = places.target().with_file_name(&part.file);
    let plain = |path: &Path| path.symlink_metadata().is_ok_and(|m| m.is_file());
    if !plain(&path) || !plain(places.target()) {
        return Ok(None);
    }
    let old = File::open(&path).map_err(|e| write_error("opening", &path, &e))?;
    let partial = Partial::create(&path, true)?;
    Ok(ioctl_ficlone(partial.file(), &old)
        .is_ok()
        .then_some((part, partial)))
}

fn open(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).open(path);
    file.map_err(|e| write_error("opening", path, &e))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| write_error("renaming", from, &e))
}

/// Writes every unit of the journal into the files that hold it, several at once: in whatever
/// order they are written, doing all of it again from any point ends well.
fn patch(
    state: &State,
    journal: &Journal,
    parts: &[(&Part, &File)],
    (workers, progress): (usize, &dyn Progress),
) -> Result<()> {
    let units: Vec<(u64, Hash)> = journal.hashes().collect();
    in_order(
        &units,
        pipeline::workers(workers),
        &|(index, hash), _: &mut ()| {
            let range = unit::range(*index, state.size);
            if *hash == ZERO {
                each_part(parts, (range.start, range.end), &|file, at, from, to| {
                    zero(file, at, to - from)
                })?;
            } else if let Some(unit) = journal.read(*index, state.size)? {
                for (at, bytes) in unit.blocks(state.size)? {
                    let start = range.start + at as u64;
                    let end = start + bytes.len() as u64;
                    each_part(parts, (start, end), &|file, at, from, to| {
                        let part = (from - start) as usize..(to - start) as usize;
                        file.write_all_at(bytes.get(part).unwrap_or_default(), at)
                    })?;
                }
            }
            Ok(range.end - range.start)
        },
        &mut |bytes| {
            progress.advance(bytes);
            Ok(())
        },
    )
}

/// Where in a file, and from which byte of the disk to which.
type Write<'a> = &'a dyn Fn(&File, u64, u64, u64) -> std::io::Result<()>;

fn each_part(parts: &[(&Part, &File)], (start, end): (u64, u64), write: Write<'_>) -> Result<()> {
    let mut at = start;
    while at < end {
        let found = parts
            .iter()
            .find(|(p, _)| (p.start..p.start.saturating_add(p.len)).contains(&at));
        let Some((part, file)) = found else {
            return Err(DiskError::corrupt("bringing the target up to date")
                .offset(at)
                .expected("a place that one of its files holds")
                .found("none"));
        };
        let stop = end.min(part.start.saturating_add(part.len));
        write(file, part.offset + (at - part.start), at, stop)
            .map_err(|e| write_error("writing", Path::new(&part.file), &e))?;
        at = stop;
    }
    Ok(())
}

/// A hole where the file system has them; zeros elsewhere.
fn zero(file: &File, at: u64, len: u64) -> std::io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(file, flags, at, len) {
        Ok(()) => Ok(()),
        Err(_) => file.write_all_at(&vec![0; usize::try_from(len).unwrap_or(0)], at),
    }
}

/// Writes the hashes of what the target has now; the file, which is not synced.
fn units(places: &Places, journal: &Journal) -> Result<File> {
    let path: PathBuf = places.units();
    let file = open(&path)?;
    for (index, hash) in journal.hashes() {
        file.write_all_at(&hash, index.saturating_mul(32))
            .map_err(|e| write_error("writing", &path, &e))?;
    }
    Ok(file)
}
