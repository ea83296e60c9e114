//! `export --keep N`: generations of backups side by side, the oldest removed when the newest
//! is proven.

use crate::{
    args::Global,
    exit::Failure,
    image_format::subformat_like,
    output::{say, warn},
    progress::{Bar, Growing},
    source::names_of,
};
use convert::{
    backup::{Child, Manifest, VmEntry, Whole, manifest, remove_stale},
    place::TEMP_PREFIX,
};
use disk_io::{DiskError, Result, output::write_error};
use proxy::{Source, SourceSpec};
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
use vmdk::writer::{self, Identity};

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
/// machine or disk, but for `keep` and those that they build on; with `merge` those that they build
/// on too, once they are whole themselves.
///
/// # Errors
/// `Corrupt` if the new one is not proven: nothing is removed then.
pub(crate) fn expire(
    dest: &Path,
    keep: usize,
    merge: bool,
    jobs: usize,
    global: &Global,
) -> Result<Expired, Failure> {
    let mut expired = Expired::default();
    let stale = remove_stale(parent_of(dest));
    if stale > 0 {
        say(format_args!(
            "removed what {stale} earlier runs left that were cut off"
        ));
    }
    if !prove(dest, jobs, global)? {
        warn("not all of the new backup could be proven: no older one is removed");
        return Ok(expired);
    }
    let Some(new) = Manifest::read(dest)? else {
        return Ok(expired);
    };
    mark(dest, &new)?;
    let Some(mut siblings) = siblings(dest)? else {
        return Ok(expired);
    };
    for one in siblings.iter_mut().filter(|g| g.was_cut_off(&new)) {
        match prove(&one.path, jobs, global) {
            Ok(true) => {
                mark(&one.path, &one.manifest)?;
                one.done = true;
            }
            Ok(false) => {}
            // It stays, with what it builds on, for somebody to look at.
            Err(e) => {
                e.tell();
            }
        }
    }
    if merge {
        for n in to_merge(dest, &new, keep, &siblings) {
            let Some(one) = siblings.get_mut(n) else {
                continue;
            };
            match whole(&one.path, &one.manifest, jobs, global) {
                Ok(None) => {}
                Ok(Some(manifest)) => {
                    expired.merged.push(one.path.display().to_string());
                    one.manifest = manifest;
                }
                // It goes on building on what it did.
                Err(e) => {
                    e.tell();
                }
            }
        }
    }
    let (mut going, spared) = superfluous(dest, &new, keep, &siblings);
    if spared > 0 {
        let how = match merge {
            true => "",
            false => ", or are merged into them (--merge)",
        };
        warn(format!(
            "--keep {keep}: {spared} older backups stay, since newer ones build on them; they go when \
             the newest are whole backups{how}"
        ));
    }
    let removed = &mut expired.removed;
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
    Ok(expired)
}

/// Proves a backup that was just written; whether all of it could be.
///
/// # Errors
/// `Corrupt` where it is not what was written.
fn prove(dest: &Path, jobs: usize, global: &Global) -> Result<bool, Failure> {
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
    let bar = Bar::new(global, 0);
    let verified = verify::backup::verify(&spec, &options, &mut |_| {}, &Growing(&bar))?;
    drop(bar);
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
    Ok(!verified.is_partial())
}

/// Says to scripts that a backup is complete and proven.
fn mark(dir: &Path, manifest: &Manifest) -> Result<()> {
    let done = dir.join(DONE);
    fs::write(&done, format!("{}\n", manifest.created))
        .map_err(|e| write_error("writing", &done, &e))
}

/// Makes the backup `dir`, which builds on another, a whole one of the same name: with the same
/// contents and content ids, so that others go on building on it. `None` if it is left, since it
/// holds what is no part of the backup.
fn whole(
    dir: &Path,
    old: &Manifest,
    jobs: usize,
    global: &Global,
) -> Result<Option<Manifest>, Failure> {
    if holds_more(dir, old)? {
        return Ok(None);
    }
    let mut children = Vec::new();
    for disk in old.disks.iter().filter(|d| d.parent.is_some()) {
        let mut spec = SourceSpec {
            path: dir.join(&disk.file),
            ..SourceSpec::default()
        };
        crate::since::allow(&mut spec)?;
        children.push(child(disk.file.clone(), &Source::open(&spec)?)?);
    }
    say(format_args!(
        "making {} whole, so that what it builds on can go",
        dir.display()
    ));
    let bar = Bar::new(global, children.iter().map(|c| c.disk.len()).sum());
    let whole = Whole::write(dir, old, &children, jobs, &bar)?;
    drop((bar, children));
    if !prove(whole.path(), jobs, global)? {
        return Err(DiskError::corrupt("making a backup whole")
            .file(dir.display())
            .expected("one that can be proven")
            .found("one that cannot, in part")
            .into());
    }
    let manifest = whole.manifest.clone();
    mark(whole.path(), &manifest)?;
    whole.replace()?;
    Ok(Some(manifest))
}

/// A disk that is a child of an earlier backup's, to be written whole: in the subformat that the
/// chain begins with, with the content id that it has.
fn child(file: String, source: &Source) -> Result<Child> {
    let unfit = || {
        DiskError::unsupported("making a backup whole")
            .file(&file)
            .expected("a VMDK with a content id")
            .found("something else")
    };
    let links = source.image().vmdk.as_ref().map(|v| v.links());
    let links = links.ok_or_else(unfit)?;
    let (first, last) = links.first().zip(links.last()).ok_or_else(unfit)?;
    let subformat = subformat_like(last.create_type.as_deref(), false);
    let identity = Identity::new(first.cid.ok_or_else(unfit)?);
    Ok(Child {
        file,
        files: names_of(source),
        disk: source.disk().clone(),
        options: writer::Options::new(subformat, identity),
    })
}

/// What became of older backups.
#[derive(Debug, Default)]
pub(crate) struct Expired {
    /// Those that were removed.
    pub(crate) removed: Vec<String>,
    /// Those that were made whole.
    pub(crate) merged: Vec<String>,
}

struct Generation {
    path: PathBuf,
    name: OsString,
    manifest: Manifest,
    /// Whether it was proven when it was made.
    done: bool,
}

impl Generation {
    /// Whether it is a proven one of the same machine or disk, with no disk that the new one lacks.
    fn is_of(&self, new: &Manifest) -> bool {
        self.done && same(&self.manifest, new) && holds(new, &self.manifest)
    }

    /// Whether it was cut off before it was proven.
    fn was_cut_off(&self, new: &Manifest) -> bool {
        !self.done && self.manifest.generation && same(&self.manifest, new)
    }

    /// The name of what it builds on.
    fn base(&self) -> Option<&OsStr> {
        let since = self.manifest.since.as_ref();
        since.map(|s| OsStr::new(s.directory.as_str()))
    }
}

fn parent_of(dest: &Path) -> &Path {
    match dest.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Every backup beside the new one, and itself; none if one of them cannot be read: what that
/// builds on is not known then.
fn siblings(dest: &Path) -> Result<Option<Vec<Generation>>> {
    let parent = parent_of(dest);
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

/// Proven generations of the same machine or disk but for the newest, by their place in the list.
fn older(dest: &Path, new: &Manifest, keep: usize, all: &[Generation]) -> Vec<usize> {
    let made = dest.file_name();
    let mut going: Vec<usize> = (0..all.len())
        .filter(|n| all.get(*n).is_some_and(|g| g.is_of(new)))
        .collect();
    // RFC 3339 in UTC sorts as text. The one just made and proven is the newest whatever the
    // clock says: it may have been put back, or two may share a second.
    going.sort_by_key(|n| {
        let one = all.get(*n);
        let is_made = one.map(|g| g.name.as_os_str()) == made;
        std::cmp::Reverse((is_made, one.map(|g| g.manifest.created.clone())))
    });
    going.drain(..keep.max(1).min(going.len()));
    going
}

/// Those that stay and build on one that would go: if they did not, it could.
fn to_merge(dest: &Path, new: &Manifest, keep: usize, all: &[Generation]) -> Vec<usize> {
    let going = older(dest, new, keep, all);
    let goes = |name: &OsStr| {
        let mut names = going.iter().filter_map(|n| all.get(*n));
        names.any(|g| g.name == name)
    };
    (0..all.len())
        .filter(|n| !going.contains(n))
        .filter(|n| {
            let one = all.get(*n).filter(|g| g.is_of(new));
            one.and_then(Generation::base).is_some_and(goes)
        })
        .collect()
}

/// Generations that can go: older ones, but for those that any other backup there builds on; and
/// how many those are.
fn superfluous(
    dest: &Path,
    new: &Manifest,
    keep: usize,
    all: &[Generation],
) -> (Vec<usize>, usize) {
    let mut going = older(dest, new, keep, all);
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

/// The newest backup beside `dest` of the same machine or disk; `None` if there is none.
///
/// # Errors
/// `Refused` where one beside cannot be read: it may be the newest.
pub(crate) fn newest(
    dest: &Path,
    vm: Option<&VmEntry>,
    identity: Option<&String>,
) -> Result<Option<PathBuf>> {
    let Some(siblings) = siblings(dest)? else {
        return Err(DiskError::refused("looking for the newest backup")
            .file(dest.display())
            .expected("backups that can be read beside it")
            .found("one that cannot")
            .hint("name the backup to build on: --since DIR"));
    };
    let of_it = siblings
        .into_iter()
        .filter(|g| is_of(&g.manifest, vm, identity));
    // RFC 3339 in UTC sorts as text.
    let newest = of_it.max_by(|a, b| a.manifest.created.cmp(&b.manifest.created));
    Ok(newest.map(|g| g.path))
}

/// Whether two backups are of the same machine or disk.
fn same(a: &Manifest, b: &Manifest) -> bool {
    is_of(a, b.vm.as_ref(), b.identity.as_ref())
}

/// Whether a backup is of the machine or disk of which this is known.
fn is_of(a: &Manifest, vm: Option<&VmEntry>, identity: Option<&String>) -> bool {
    let place = a.identity.is_some() && a.identity.as_ref() == identity;
    match (&a.vm, vm) {
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
    if holds_more(path, &old)? {
        return Ok(false);
    }
    let name = path.file_name().unwrap_or_default().display().to_string();
    let gone = path.with_file_name(format!("{TEMP_PREFIX}{name}-{}.tmp", std::process::id()));
    fs::rename(path, &gone).map_err(fail)?;
    fs::remove_dir_all(&gone).map_err(fail)?;
    Ok(true)
}

/// Whether the directory of a backup holds what is no part of it; says so.
fn holds_more(path: &Path, old: &Manifest) -> Result<bool> {
    let fail =
        |e: std::io::Error| DiskError::io("looking at an old generation", &e).file(path.display());
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
            return Ok(true);
        }
    }
    Ok(false)
}
