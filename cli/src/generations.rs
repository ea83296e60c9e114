//! `export --keep N`: generations of backups side by side, the oldest removed when the newest
//! is proven.

use crate::{exit::Failure, output::say};
use convert::{
    NoProgress,
    backup::{Manifest, manifest},
    place::TEMP_PREFIX,
};
use disk_io::{DiskError, Result, output::write_error};
use proxy::SourceSpec;
use rustix::{fs::FlockOperation, io::Errno};
use std::{
    collections::HashSet,
    fs::{self, File},
    path::{Path, PathBuf},
};
use verify::backup::Options;

/// What says to scripts that a generation is complete and proven.
pub(crate) const DONE: &str = ".done";
const LOCK: &str = ".vmdkit-keep.lock";

/// Nobody else makes or removes generations while this is held.
pub(crate) struct Lock(#[expect(dead_code, reason = "it is locked until it is closed")] File);

impl Lock {
    /// Of the directory that `dest` is made in.
    pub(crate) fn take(dest: &Path) -> Result<Self> {
        let path = dest.with_file_name(LOCK);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| write_error("opening the lock", &path, &e))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Err(DiskError::refused("keeping generations of backups")
                .file(path.display())
                .expected("nobody else at it")
                .found("another export --keep")),
            // Some file systems have no locks.
            _ => Ok(Self(file)),
        }
    }
}

/// Proves the new backup; then marks it as done and removes the oldest generations of the same
/// machine or disk, but for `keep` and those that they build on. Gives the names of what was
/// removed.
///
/// # Errors
/// `Corrupt` if the new one is not proven: nothing is removed then.
pub(crate) fn expire(dest: &Path, keep: usize, jobs: usize) -> Result<Vec<String>, Failure> {
    let mut spec = SourceSpec {
        path: dest.to_path_buf(),
        ..SourceSpec::default()
    };
    crate::since::allow(&mut spec)?;
    let options = Options {
        check: verify::check::Options {
            decode: true,
            files: false,
            jobs,
        },
        // What the guest's file system makes of it is not for this to say.
        guest_files: false,
        ..Options::default()
    };
    let verified = verify::backup::verify(&spec, &options, &mut |_| {}, &NoProgress)?;
    if verified.is_bad() {
        return Err(DiskError::corrupt("proving the new backup")
            .code("new-backup-bad")
            .file(dest.display())
            .expected("what was written")
            .found("something else")
            .hint(format!(
                "nothing was removed; look at it with vmdkit verify {}",
                dest.display()
            ))
            .into());
    }
    let Some(new) = Manifest::read(dest)? else {
        return Ok(Vec::new());
    };
    let done = dest.join(DONE);
    fs::write(&done, format!("{}\n", new.created))
        .map_err(|e| write_error("writing", &done, &e))?;
    // Those that others build on are older: they go last, and stay if one of the others does.
    let mut removed = Vec::new();
    let mut stays: HashSet<String> = HashSet::new();
    for old in superfluous(dest, &new, keep)? {
        if stays.contains(&old.name) || !remove(&old.path)? {
            stays.extend(old.manifest.since.map(|s| s.directory));
        } else {
            removed.push(old.path.display().to_string());
        }
    }
    Ok(removed)
}

struct Generation {
    path: PathBuf,
    name: String,
    manifest: Manifest,
}

/// Generations that can go, the newest first.
fn superfluous(dest: &Path, new: &Manifest, keep: usize) -> Result<Vec<Generation>> {
    let parent = match dest.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let entries = fs::read_dir(parent)
        .map_err(|e| DiskError::io("listing generations", &e).file(parent.display()))?;
    let mut all: Vec<Generation> = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        if !is_dir || name.starts_with(TEMP_PREFIX) {
            continue;
        }
        // What cannot be read is not ours to remove.
        if let Ok(Some(manifest)) = Manifest::read(&entry.path())
            && same(&manifest, new)
        {
            all.push(Generation {
                path: entry.path(),
                name,
                manifest,
            });
        }
    }
    // RFC 3339 in UTC sorts as text. The one just made and proven is the newest whatever the
    // clock says: it may have been put back, or two may share a second.
    let made = dest.file_name().map(|n| n.to_string_lossy().into_owned());
    all.sort_by_key(|g| {
        let is_made = made.as_deref() == Some(&g.name);
        std::cmp::Reverse((is_made, g.manifest.created.clone()))
    });
    let mut needed: HashSet<String> = all
        .iter()
        .take(keep.max(1))
        .map(|g| g.name.clone())
        .collect();
    // Newer ones come first, and build on older ones.
    for generation in &all {
        if needed.contains(&generation.name)
            && let Some(since) = &generation.manifest.since
        {
            needed.insert(since.directory.clone());
        }
    }
    all.retain(|g| !needed.contains(&g.name));
    Ok(all)
}

/// Whether two backups are of the same machine or disk.
fn same(a: &Manifest, b: &Manifest) -> bool {
    match (&a.vm, &b.vm) {
        (Some(a), Some(b)) => match (&a.uuid, &b.uuid) {
            (Some(a), Some(b)) => a == b,
            _ => a.name == b.name,
        },
        (None, None) => {
            let source = |m: &Manifest| m.source.clone();
            source(a) == source(b)
        }
        _ => false,
    }
}

/// Removes a generation: the files of its manifest, if it has no others. It loses its name
/// first, so that half of it is never taken for a backup.
fn remove(path: &Path) -> Result<bool> {
    let fail =
        |e: std::io::Error| DiskError::io("removing an old generation", &e).file(path.display());
    let Some(old) = Manifest::read(path)? else {
        return Ok(false);
    };
    let known: HashSet<&str> = old
        .files
        .iter()
        .map(|f| f.name.as_str())
        .chain([manifest::NAME, DONE])
        .collect();
    for entry in fs::read_dir(path).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        let plain = entry.file_type().is_ok_and(|t| t.is_file());
        if !plain || !name.to_str().is_some_and(|n| known.contains(n)) {
            say(format_args!(
                "{} is kept: it holds {}, which is no part of the backup",
                path.display(),
                name.display()
            ));
            return Ok(false);
        }
    }
    let name = path.file_name().unwrap_or_default().display().to_string();
    let gone = path.with_file_name(format!("{TEMP_PREFIX}{name}.tmp"));
    fs::rename(path, &gone).map_err(fail)?;
    fs::remove_dir_all(&gone).map_err(fail)?;
    Ok(true)
}
