//! `export --keep N`: generations of backups side by side, the oldest removed when the newest
//! is proven.

mod lock;
mod merge;

pub(crate) use lock::Lock;

use crate::{
    args::Global,
    exit::Failure,
    output::{say, warn},
    progress::{Bar, Growing},
};
use convert::{
    backup::{Manifest, VmEntry, discard, is_of_host, manifest, remove_leftovers},
    place::TEMP_PREFIX,
};
use disk_io::{DiskError, ErrorKind, Result, error::escape, output::write_error};
use proxy::SourceSpec;
use std::{
    collections::HashSet,
    ffi::OsString,
    fs::{self, FileType},
    path::{Path, PathBuf},
};
use verify::backup::Options;

/// What says to scripts that a generation is complete and proven.
pub(crate) const DONE: &str = ".done";

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
    how: (usize, &Global),
    lock: &mut Lock,
) -> Result<Expired, Failure> {
    let mut expired = Expired::default();
    let proven = prove(dest, how).inspect_err(|e| {
        if matches!(e, Failure::Disk(e) if e.kind() == ErrorKind::Corrupt) {
            doubt_bases(dest, how);
        }
    })?;
    if !proven {
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
    prove_unfinished(&new, &mut siblings, how, lock);
    if let Some(orphan) = orphan(&new, &siblings) {
        let since = orphan.manifest.since.as_ref();
        warn(format!(
            "{} builds on {}, which is not beside it: no older backup is removed, since that may \
             build on one of them; put it back, or remove the one that cannot be restored",
            escape(&orphan.path.display().to_string()),
            escape(since.map_or("another", |s| &s.directory))
        ));
        return Ok(expired);
    }
    tell_copies(&siblings, new.vm.as_ref(), new.identity.as_ref());
    if merge {
        for n in merge::to_merge(dest, &new, keep, &siblings) {
            let Some(one) = siblings.get_mut(n) else {
                continue;
            };
            match merge::whole(&one.path, &one.manifest, how) {
                Ok(None) => {}
                Ok(Some(manifest)) => {
                    expired.merged.push(one.path.display().to_string());
                    one.manifest = manifest;
                }
                // It goes on building on what it did.
                Err(e) => {
                    e.tell();
                    expired.failed = true;
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
    // Those that others build on go after these, and stay if one of these does.
    while let Some(next) = going.iter().position(|n| {
        let base = |other: &usize| siblings.get(*other).map(|g| g.base(&siblings));
        !going.iter().any(|other| base(other) == Some(Base::At(*n)))
    }) {
        let next = going.remove(next);
        let Some(old) = siblings.get(next) else {
            continue;
        };
        match remove(&old.path) {
            Ok(true) => expired.removed.push(old.path.display().to_string()),
            Ok(false) => spare(&mut going, &siblings, old),
            // The new backup is good, whatever becomes of an old one.
            Err(e) => {
                warn(e.to_string());
                expired.failed = true;
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
fn prove(dest: &Path, (jobs, global): (usize, &Global)) -> Result<bool, Failure> {
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

/// Looks at what a backup that turned out to be bad builds on: what is bad of that is not called
/// proven any more, so that the next one does not build on it.
fn doubt_bases(dest: &Path, how: (usize, &Global)) {
    let Ok(Some(mut manifest)) = Manifest::read(dest) else {
        return;
    };
    let mut met = HashSet::new();
    while let Some(since) = manifest.since {
        let base = parent(dest).join(&since.directory);
        let Ok(Some(next)) = Manifest::read(&base) else {
            return;
        };
        // One that could not be read, or not to its end, is not damaged for that.
        let is_bad = |found: &Result<bool, Failure>| match found {
            Err(Failure::Disk(e)) => e.kind() == ErrorKind::Corrupt,
            _ => false,
        };
        if !met.insert(since.directory) || !is_bad(&prove(&base, how)) {
            return;
        }
        let done = base.join(DONE);
        match fs::remove_file(&done) {
            Ok(()) => warn(format!(
                "{}, which it builds on, is damaged: its {DONE} is removed, and the next backup with \
                 --keep does not build on it",
                escape(&base.display().to_string())
            )),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => warn(write_error("removing", &done, &e).to_string()),
        }
        manifest = next;
    }
}

/// Says to scripts that a backup is complete and proven.
fn mark(dir: &Path, manifest: &Manifest) -> Result<()> {
    let done = dir.join(DONE);
    fs::write(&done, format!("{}\n", manifest.created))
        .map_err(|e| write_error("writing", &done, &e))
}

/// What became of older backups.
#[derive(Debug, Default)]
pub(crate) struct Expired {
    /// Those that were removed.
    pub(crate) removed: Vec<String>,
    /// Those that were made whole.
    pub(crate) merged: Vec<String>,
    /// Whether one could not be made whole or removed.
    pub(crate) failed: bool,
}

/// Removes what killed exports left beside `dest`, and says so.
pub(crate) fn clean(dest: &Path, _alone: &Lock) {
    for gone in remove_leftovers(parent(dest)) {
        let gone = escape(&gone.display().to_string());
        say(format_args!(
            "removed {gone}, which an interrupted run left"
        ));
    }
}

/// Proves older generations of which `--keep` was killed before they were, so that they count.
fn prove_unfinished(
    new: &Manifest,
    all: &mut [Generation],
    how: (usize, &Global),
    lock: &mut Lock,
) {
    if let Some(one) = all.first() {
        lock.forget_gone(parent(&one.path));
    }
    for one in all.iter_mut() {
        if one.done || !same(&one.manifest, new) || !lock.is_unfinished(&one.name) {
            continue;
        }
        say(format_args!(
            "proving {}, whose export was interrupted",
            one.path.display()
        ));
        match prove(&one.path, how) {
            Ok(true) => match mark(&one.path, &one.manifest) {
                Ok(()) => {
                    one.done = true;
                    lock.settled(&one.name);
                }
                Err(e) => warn(e.to_string()),
            },
            Ok(false) => warn(format!("not all of {} could be proven", one.path.display())),
            // The new one is good, whatever is wrong with that.
            Err(e) => {
                e.tell();
            }
        }
    }
}

fn parent(dest: &Path) -> &Path {
    match dest.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

struct Generation {
    path: PathBuf,
    name: OsString,
    manifest: Manifest,
    /// What backups that build on it call it by.
    hash: String,
    /// Whether it was proven when it was made.
    done: bool,
}

impl Generation {
    /// Whether it is a proven one of the same machine or disk, with no disk that the new one lacks.
    fn is_of(&self, new: &Manifest) -> bool {
        self.done && same(&self.manifest, new) && holds(new, &self.manifest)
    }

    /// Which of `all` it builds on, whatever that is called now.
    fn base(&self, all: &[Generation]) -> Base {
        let Some(since) = &self.manifest.since else {
            return Base::None;
        };
        let meant = |g: &Generation| g.manifest.is_meant(&g.hash, &since.manifest);
        all.iter().position(meant).map_or(Base::Lost, Base::At)
    }
}

/// What a backup builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    None,
    /// A place in the list.
    At(usize),
    /// Nothing that is beside it.
    Lost,
}

/// Every backup beside the new one, and itself; none if one of them cannot be read: what that
/// builds on is not known then.
fn siblings(dest: &Path) -> Result<Option<Vec<Generation>>> {
    let parent = parent(dest);
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
        match Manifest::read_hashed(&entry.path()) {
            Ok(None) => {}
            Ok(Some((manifest, hash))) => all.push(Generation {
                hash,
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
    let mut base = one.base(all);
    // A loop ends: each step takes one out.
    while let Base::At(n) = base {
        let Some(at) = going.iter().position(|other| *other == n) else {
            return;
        };
        going.remove(at);
        base = all.get(n).map_or(Base::None, |g| g.base(all));
    }
}

/// A backup of the same machine or disk that builds on one which is nowhere beside it: what that
/// builds on is not known.
fn orphan<'a>(new: &Manifest, all: &'a [Generation]) -> Option<&'a Generation> {
    all.iter()
        .find(|g| same(&g.manifest, new) && g.base(all) == Base::Lost)
}

/// The newest backup beside `dest` of the same machine or disk; `None` if there is none.
///
/// # Errors
/// `Refused` where one beside cannot be read: it may be the newest.
/// `proven`: only those that say that they were proven when they were made.
pub(crate) fn newest(
    dest: &Path,
    vm: Option<&VmEntry>,
    identity: Option<&String>,
    proven: bool,
) -> Result<Option<PathBuf>> {
    let Some(siblings) = siblings(dest)? else {
        return Err(DiskError::refused("looking for the newest backup")
            .file(dest.display())
            .expected("backups that can be read beside it")
            .found("one that cannot")
            .hint("name the backup to build on: --since DIR"));
    };
    tell_copies(&siblings, vm, identity);
    let of_it = siblings
        .into_iter()
        .filter(|g| is_of(&g.manifest, vm, identity) && (g.done || !proven));
    // RFC 3339 in UTC sorts as text.
    let newest = of_it.max_by(|a, b| a.manifest.created.cmp(&b.manifest.created));
    Ok(newest.map(|g| g.path))
}

/// Whether two backups are of the same machine or disk.
fn same(a: &Manifest, b: &Manifest) -> bool {
    is_of(a, b.vm.as_ref(), b.identity.as_ref())
}

/// Whether a backup is of the machine or disk of which this is known. A machine that was copied
/// may have the uuid of the other one: name or place must be the same too.
fn is_of(a: &Manifest, vm: Option<&VmEntry>, identity: Option<&String>) -> bool {
    let place = a.identity.is_some() && a.identity.as_ref() == identity;
    match (&a.vm, vm) {
        (Some(a), Some(b)) => match (&a.uuid, &b.uuid) {
            (Some(_), Some(_)) => a.uuid == b.uuid && (a.name == b.name || place),
            (None, None) => a.name == b.name && place,
            _ => false,
        },
        (None, None) => place,
        _ => false,
    }
}

/// Says that a backup has the machine's uuid, and is taken for that of another one.
fn tell_copies(all: &[Generation], vm: Option<&VmEntry>, identity: Option<&String>) {
    let uuid = |vm: &VmEntry| vm.uuid.clone();
    let Some(own) = vm.and_then(uuid) else {
        return;
    };
    let copies = all.iter().filter(|g| {
        let its = g.manifest.vm.as_ref().and_then(uuid);
        its.as_ref() == Some(&own) && !is_of(&g.manifest, vm, identity)
    });
    for copy in copies {
        warn(format!(
            "{} is of a machine with the same uuid, under another name and in another place: it is \
             taken for another machine's, neither built on nor removed",
            escape(&copy.path.display().to_string())
        ));
    }
}

/// Whether the new backup has every disk that the old one has.
fn holds(new: &Manifest, old: &Manifest) -> bool {
    let places: HashSet<_> = new.disks.iter().map(|d| &d.place).collect();
    old.disks.iter().all(|d| places.contains(&d.place))
}

/// Removes a generation: the files of its manifest, if it has no others but those of the host's own
/// system, which are left.
fn remove(path: &Path) -> Result<bool> {
    let Some(old) = Manifest::read(path)? else {
        return Ok(false);
    };
    if holds_more(path, &old, &is_of_host)? {
        return Ok(false);
    }
    if !discard(path, &own(&old))? {
        say(format_args!(
            "{}: the backup is removed; its directory stays, with what the host's system put there",
            escape(&path.display().to_string())
        ));
    }
    Ok(true)
}

/// Names of a backup's own files.
fn own(backup: &Manifest) -> Vec<&str> {
    let files = backup.files.iter().map(|f| f.name.as_str());
    files.chain([manifest::NAME, DONE]).collect()
}

/// Whether the directory of a backup holds what is no part of it, but for what may be left there;
/// says so.
fn holds_more(
    path: &Path,
    old: &Manifest,
    may_be: &dyn Fn(&str, FileType) -> bool,
) -> Result<bool> {
    let fail =
        |e: std::io::Error| DiskError::io("looking at an old generation", &e).file(path.display());
    let known: HashSet<&str> = own(old).into_iter().collect();
    for entry in fs::read_dir(path).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let (name, kind) = (entry.file_name(), entry.file_type().map_err(fail)?);
        let text = name.to_str();
        let is_own = kind.is_file() && text.is_some_and(|n| known.contains(n));
        if !is_own && !text.is_some_and(|n| may_be(n, kind)) {
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
