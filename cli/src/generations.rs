//! `export --keep N`: generations of backups side by side, the oldest removed when the newest
//! is proven.

use crate::{
    exit::Failure,
    output::{say, warn},
};
use convert::{
    NoProgress,
    backup::{Manifest, manifest},
    place::TEMP_PREFIX,
};
use disk_io::{DiskError, Result, output::write_error};
use proxy::SourceSpec;
use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
};
use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
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
        Self::with(dest, FlockOperation::NonBlockingLockExclusive)
    }

    /// Nobody removes generations meanwhile; others may make some.
    pub(crate) fn share(dest: &Path) -> Result<Self> {
        Self::with(dest, FlockOperation::NonBlockingLockShared)
    }

    fn with(dest: &Path, how: FlockOperation) -> Result<Self> {
        let path = dest.with_file_name(LOCK);
        // A link that somebody put there is not followed.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o644))
            .map_err(|e| write_error("opening the lock", &path, &e.into()))?;
        let file = File::from(file);
        match rustix::fs::flock(&file, how) {
            Err(Errno::WOULDBLOCK) => Err(DiskError::refused("keeping generations of backups")
                .file(path.display())
                .expected("nobody else at it")
                .found("another export")),
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
            guests: false,
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
    if verified.is_partial() {
        warn("not all of the new backup could be proven: no older one is removed");
        return Ok(Vec::new());
    }
    let Some(new) = Manifest::read(dest)? else {
        return Ok(Vec::new());
    };
    let done = dest.join(DONE);
    fs::write(&done, format!("{}\n", new.created))
        .map_err(|e| write_error("writing", &done, &e))?;
    let Some(siblings) = siblings(dest)? else {
        return Ok(Vec::new());
    };
    let (mut going, spared) = superfluous(dest, &new, keep, &siblings);
    if spared > 0 {
        warn(format!(
            "--keep {keep}: {spared} older backups stay, since newer ones build on them; they go when \
             the newest are whole backups"
        ));
    }
    let mut removed = Vec::new();
    // Those that others build on go after these, and stay if one of these does.
    while let Some(next) = going.iter().position(|n| {
        let is_base = |other: &usize| siblings.get(*other).and_then(Generation::base);
        let name = siblings.get(*n).map(|g| g.name.as_os_str());
        !going.iter().any(|other| is_base(other) == name)
    }) {
        let next = going.remove(next);
        let Some(old) = siblings.get(next) else {
            continue;
        };
        match remove(&old.path) {
            Ok(true) => removed.push(old.path.display().to_string()),
            Ok(false) => spare(&mut going, &siblings, old),
            // The new backup is good, whatever becomes of an old one.
            Err(e) => {
                warn(e.to_string());
                spare(&mut going, &siblings, old);
            }
        }
    }
    Ok(removed)
}

struct Generation {
    path: PathBuf,
    name: OsString,
    manifest: Manifest,
    /// Whether it was proven when it was made.
    done: bool,
}

impl Generation {
    /// The name of what it builds on.
    fn base(&self) -> Option<&OsStr> {
        let since = self.manifest.since.as_ref();
        since.map(|s| OsStr::new(s.directory.as_str()))
    }
}

/// Every backup beside the new one, and itself; none if one of them cannot be read: what that
/// builds on is not known then.
fn siblings(dest: &Path) -> Result<Option<Vec<Generation>>> {
    let parent = match dest.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let fail = |e: &std::io::Error| DiskError::io("listing generations", e).file(parent.display());
    let entries = fs::read_dir(parent).map_err(|e| fail(&e))?;
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| fail(&e))?;
        let name = entry.file_name();
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        if !is_dir || name.as_encoded_bytes().starts_with(TEMP_PREFIX.as_bytes()) {
            continue;
        }
        match Manifest::read(&entry.path()) {
            Ok(None) => {}
            Ok(Some(manifest)) => all.push(Generation {
                done: entry.path().join(DONE).is_file(),
                path: entry.path(),
                name,
                manifest,
            }),
            Err(e) => {
                warn(format!(
                    "{e}: what it builds on is not known, and no older backup is removed"
                ));
                return Ok(None);
            }
        }
    }
    Ok(Some(all))
}

/// Generations that can go, by their place in the list: proven ones of the same machine or disk,
/// but for the newest and those that any other backup there builds on; and how many those are.
fn superfluous(
    dest: &Path,
    new: &Manifest,
    keep: usize,
    all: &[Generation],
) -> (Vec<usize>, usize) {
    let made = dest.file_name();
    let mut going: Vec<usize> = (0..all.len())
        .filter(|n| {
            let fits = |g: &Generation| g.done && same(&g.manifest, new) && holds(new, &g.manifest);
            all.get(*n).is_some_and(fits)
        })
        .collect();
    // RFC 3339 in UTC sorts as text. The one just made and proven is the newest whatever the
    // clock says: it may have been put back, or two may share a second.
    going.sort_by_key(|n| {
        let one = all.get(*n);
        let is_made = one.map(|g| g.name.as_os_str()) == made;
        std::cmp::Reverse((is_made, one.map(|g| g.manifest.created.clone())))
    });
    going.drain(..keep.max(1).min(going.len()));
    let most = going.len();
    // What anything else builds on stays, and what that builds on, in whatever order they were
    // made.
    let others: Vec<usize> = (0..all.len()).filter(|n| !going.contains(n)).collect();
    for other in others {
        if let Some(other) = all.get(other) {
            spare(&mut going, all, other);
        }
    }
    let spared = most.saturating_sub(going.len());
    (going, spared)
}

/// Takes what a backup builds on out of those that go.
fn spare(going: &mut Vec<usize>, all: &[Generation], one: &Generation) {
    let mut base = one.base();
    // A loop ends: each step takes one out.
    while let Some(name) = base {
        let Some(at) = going
            .iter()
            .position(|n| all.get(*n).is_some_and(|g| g.name == name))
        else {
            return;
        };
        let n = going.remove(at);
        base = all.get(n).and_then(Generation::base);
    }
}

/// Whether two backups are of the same machine or disk.
fn same(a: &Manifest, b: &Manifest) -> bool {
    let place = a.identity.is_some() && a.identity == b.identity;
    match (&a.vm, &b.vm) {
        (Some(a), Some(b)) => match (&a.uuid, &b.uuid) {
            (Some(a), Some(b)) => a == b,
            (None, None) => a.name == b.name && place,
            _ => false,
        },
        (None, None) => place,
        _ => false,
    }
}

/// Whether the new backup has every disk that the old one has.
fn holds(new: &Manifest, old: &Manifest) -> bool {
    let places: HashSet<_> = new.disks.iter().map(|d| &d.place).collect();
    old.disks.iter().all(|d| places.contains(&d.place))
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
    let gone = path.with_file_name(format!("{TEMP_PREFIX}{name}-{}.tmp", std::process::id()));
    fs::rename(path, &gone).map_err(fail)?;
    fs::remove_dir_all(&gone).map_err(fail)?;
    Ok(true)
}
