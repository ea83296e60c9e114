//! Going on with a conversion that was cut off.
//!
//! While an image is written, a file beside it says now and then how far it has come: what
//! the writer knows and its files do not say, the digest so far, and by what the source and
//! the unfinished files are known again. After `kill -9`, a crash or (where that was asked
//! for) an error, both are there, and [`Resume`] finds them by the output's name.

use crate::{
    digest::{Hash, UNIT, sha256},
    pipeline::{Checkpoints, Position, Store},
    place::{Partial, TEMP_PREFIX},
    target::write_error,
};
use disk_io::{Disk, DiskError, Result};
use rustix::{
    fs::{AtFlags, FlockOperation, Mode, OFlags, fdatasync, flock, openat, renameat, unlinkat},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::{OsStr, OsString},
    fs::{File, Metadata},
    io::{ErrorKind, Read, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How a conversion can be gone on with.
#[derive(Clone, Debug)]
pub struct Checkpointing {
    /// How often its state is kept, at most: it is less often where that would take more than
    /// a fiftieth of the time.
    pub every: Duration,
    /// Go on with one that was cut off; if there is none, begin anew. What is unfinished is
    /// left for the next time after an error too.
    pub resume: bool,
    /// What else the output depends on: it must be the same when the conversion is gone on
    /// with.
    pub context: String,
}

/// First bytes of the file; the number changes with anything in [`Kept`].
const MAGIC: &[u8] = b"vmdkit checkpoint 1\n";
const HASH: usize = 32;
/// Longest such file: the largest disks have states of tens of MiB.
const MAX: u64 = 1 << 30;
/// Units of the source that are looked at again.
const SAMPLES: usize = 32;

/// What is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Version of the program and everything that was asked for.
    context: String,
    len: u64,
    sources: Vec<Known>,
    /// The unfinished files, in the writer's order.
    outputs: Vec<Unfinished>,
    /// Units of the source and their hashes.
    samples: Vec<(u64, Hash)>,
    pub(crate) position: Position,
    pub(crate) saved: Saved,
}

/// What the writers keep.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Saved {
    Raw,
    Vmdk(vmdk::writer::Saved),
    Portable(disk_image::write::Saved),
}

/// By what a file of the source is known again. Of a device only the number counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    path: Vec<u8>,
    id: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Unfinished {
    temp: Vec<u8>,
    id: (u64, u64),
}

impl Known {
    fn of(path: &Path) -> Result<Self> {
        let mut known = Self {
            path: path.as_os_str().as_bytes().to_vec(),
            ..Self::default()
        };
        match std::fs::metadata(path) {
            Ok(found) if found.is_file() => {
                known.id = (found.dev(), found.ino());
                known.size = found.size();
                known.modified = (found.mtime(), found.mtime_nsec());
                known.changed = (found.ctime(), found.ctime_nsec());
            }
            Ok(found) => known.id = (found.rdev(), 0),
            // A member of a package or a file in a datastore: what holds it is in the list too.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(e) => return Err(DiskError::io("looking at", &e).file(path.display())),
        }
        Ok(known)
    }
}

/// Where the checkpoint of an output is: a hidden file beside it.
fn name_of(dest: &Path) -> OsString {
    const LONGEST: usize = 200;
    let name = dest.file_name().unwrap_or_default();
    let mut all = OsString::from(TEMP_PREFIX);
    if name.len() <= LONGEST {
        all.push(name);
    } else {
        let hash = sha256(name.as_bytes());
        all.push(hash.iter().map(|b| format!("{b:02x}")).collect::<String>());
    }
    all.push(".resume");
    all
}

/// The same while it is written.
fn new_name(dest: &Path) -> OsString {
    let mut name = name_of(dest);
    name.push(".new");
    name
}

/// Where the state of a conversion to `dest` is kept.
pub fn path_of(dest: &Path) -> PathBuf {
    dest.with_file_name(name_of(dest))
}

/// Whether a conversion to `dest` was cut off and can be gone on with, and how many bytes of
/// the disk it had come to.
pub fn interrupted(dest: &Path) -> Option<u64> {
    let kept = read(dest).ok().flatten()?;
    Some(kept.position.bytes(kept.len))
}

/// Removes what is left of a conversion to `dest` that was cut off, unless a process is at it.
pub(crate) fn discard(dest: &Path) -> Result<()> {
    // What cannot be read is somebody else's, or of another version: it is left alone.
    let Ok(Some(kept)) = read(dest) else {
        return Ok(());
    };
    let dir = Partial::dir_of(dest)?;
    for output in &kept.outputs {
        match output.open(&dir, dest) {
            Ok(Some(file)) => {
                lock(&file, dest)?;
                let _ = unlinkat(&dir, output.name(), AtFlags::empty());
            }
            Ok(None) => {}
            Err(e) => return Err(e),
        }
    }
    remove(dest);
    Ok(())
}

/// The state that is kept for `dest`, if there is one. Only a file of our own counts.
fn read(dest: &Path) -> Result<Option<Kept>> {
    let path = path_of(dest);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let doing = "reading the state of an interrupted conversion";
    let file = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(DiskError::io(doing, &e.into()).file(path.display())),
    };
    let broken = |found: &str| {
        DiskError::refused(doing)
            .file(path.display())
            .expected("a checkpoint of this version of vmdkit, written by the same user")
            .found(found)
            .hint(format!("remove it and begin anew: rm {}", path.display()))
    };
    let io = |e| DiskError::io(doing, &e).file(path.display());
    let found = file.metadata().map_err(io)?;
    if !ours(&found) || found.len() > MAX {
        return Err(broken("a file of someone else's, or no plain file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX).read_to_end(&mut bytes).map_err(io)?;
    let body = bytes
        .strip_prefix(MAGIC)
        .and_then(|rest| rest.split_at_checked(HASH))
        .filter(|(hash, body)| *hash == sha256(body))
        .map(|(_, body)| body)
        .ok_or_else(|| broken("something else"))?;
    let kept = postcard::from_bytes(body).map_err(|e| broken(&e.to_string()))?;
    Ok(Some(kept))
}

/// Whether a file is a plain one that this user alone can have written.
fn ours(found: &Metadata) -> bool {
    found.is_file()
        && found.nlink() == 1
        && found.uid() == rustix::process::geteuid().as_raw()
        && found.mode() & 0o022 == 0
}

/// How often, and after how long, a lock that somebody has is asked for again.
const LOCK_TRIES: usize = 20;
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// Takes the lock that says that a process writes the file.
pub(crate) fn lock(file: &File, dest: &Path) -> Result<()> {
    let take = || flock(file, FlockOperation::NonBlockingLockExclusive);
    let mut taken = take();
    // A program that this process starts has its locks for a moment, also one that was given up.
    for _ in 0..LOCK_TRIES {
        if taken != Err(Errno::WOULDBLOCK) {
            break;
        }
        std::thread::sleep(LOCK_WAIT);
        taken = take();
    }
    match taken {
        Err(Errno::WOULDBLOCK) => Err(DiskError::refused("creating the output")
            .file(dest.display())
            .expected("nobody else who writes it")
            .found("another process that is converting to it")),
        // Some file systems have no locks.
        _ => Ok(()),
    }
}

impl Unfinished {
    fn name(&self) -> OsString {
        OsString::from_vec(self.temp.clone())
    }

    /// The file, if it is there and the one that was written.
    fn open(&self, dir: &impl rustix::fd::AsFd, dest: &Path) -> Result<Option<File>> {
        let name = self.name();
        let text = name.as_bytes();
        if !text.starts_with(TEMP_PREFIX.as_bytes())
            || !text.ends_with(b".tmp")
            || text.contains(&b'/')
        {
            return Ok(None);
        }
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(dir, &name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
            Err(e) => return Err(write_error("opening the unfinished", dest, &e.into())),
        };
        let found = file
            .metadata()
            .map_err(|e| write_error("looking at the unfinished", dest, &e))?;
        Ok((ours(&found) && (found.dev(), found.ino()) == self.id).then_some(file))
    }
}

/// An interrupted conversion that is gone on with.
pub(crate) struct Resume {
    pub(crate) kept: Kept,
    pub(crate) files: Vec<(OsString, File)>,
}

impl Resume {
    /// Finds it, and makes sure that source and output are still what they were. `None` if
    /// there is nothing to go on from.
    pub(crate) fn find(
        dest: &Path,
        disk: &dyn Disk,
        sources: &[PathBuf],
        how: &Checkpointing,
    ) -> Result<Option<Self>> {
        let Some(kept) = read(dest)? else {
            return Ok(None);
        };
        let anew = format!(
            "run it without --resume to begin anew, or remove {}",
            path_of(dest).display()
        );
        let refused = |expected: &str, found: String| {
            DiskError::refused("going on with the conversion")
                .code("resume")
                .file(dest.display())
                .expected(expected)
                .found(found)
                .hint(&anew)
        };
        if kept.context != context(how) {
            return Err(refused(
                "the command that was interrupted, of the same version of vmdkit",
                "other options".into(),
            ));
        }
        let now = known(sources)?;
        if kept.len != disk.len() || kept.sources.len() != now.len() {
            return Err(refused("the same source", "another disk".into()));
        }
        for (then, now) in kept.sources.iter().zip(&now) {
            if then != now {
                let path = Path::new(OsStr::from_bytes(&now.path)).display();
                return Err(refused(
                    "the source as it was then",
                    format!("{path}, which was changed or replaced since"),
                ));
            }
        }
        for (unit, hash) in &kept.samples {
            if hash_of(disk, *unit)? != *hash {
                let at = unit.saturating_mul(UNIT);
                return Err(refused(
                    "the source as it was then",
                    format!("other bytes in the MiB at {at}"),
                ));
            }
        }
        let dir = Partial::dir_of(dest)?;
        let mut files = Vec::new();
        for output in &kept.outputs {
            let Some(file) = output.open(&dir, dest)? else {
                return Err(refused(
                    "the unfinished output as it was left",
                    format!("none, or another file, as {}", output.name().display()),
                ));
            };
            lock(&file, dest)?;
            files.push((output.name(), file));
        }
        Ok(Some(Self { kept, files }))
    }
}

fn context(how: &Checkpointing) -> String {
    format!("{} {}", env!("CARGO_PKG_VERSION"), how.context)
}

fn known(sources: &[PathBuf]) -> Result<Vec<Known>> {
    sources.iter().map(|path| Known::of(path)).collect()
}

fn hash_of(disk: &dyn Disk, unit: u64) -> Result<Hash> {
    let at = unit.saturating_mul(UNIT);
    let n = disk.len().saturating_sub(at).min(UNIT);
    let mut bytes = vec![0; usize::try_from(n).unwrap_or(0)];
    disk.read_exact_at(&mut bytes, at)?;
    Ok(sha256(&bytes))
}

/// Keeps the state of one conversion.
pub(crate) struct Keeper<'a> {
    dest: &'a Path,
    disk: &'a dyn Disk,
    partials: &'a [Partial],
    save: &'a (dyn Fn() -> Result<Saved> + Sync),
    every: Duration,
    /// All but what changes.
    frame: (String, Vec<Known>, Vec<Unfinished>),
    state: Mutex<State>,
}

struct State {
    /// When the next is due.
    next: Instant,
    busy: bool,
    samples: Vec<(u64, Hash)>,
}

impl<'a> Keeper<'a> {
    pub(crate) fn new(
        dest: &'a Path,
        disk: &'a dyn Disk,
        sources: &[PathBuf],
        partials: &'a [Partial],
        how: &Checkpointing,
        save: &'a (dyn Fn() -> Result<Saved> + Sync),
    ) -> Result<Self> {
        let mut outputs = Vec::new();
        for partial in partials {
            let found = partial.file().metadata();
            let found = found.map_err(|e| write_error("looking at the unfinished", dest, &e))?;
            outputs.push(Unfinished {
                temp: partial.temp_name().as_bytes().to_vec(),
                id: (found.dev(), found.ino()),
            });
        }
        Ok(Self {
            dest,
            disk,
            partials,
            save,
            every: how.every,
            frame: (context(how), known(sources)?, outputs),
            state: Mutex::new(State {
                next: Instant::now() + how.every,
                busy: false,
                samples: Vec::new(),
            }),
        })
    }

    /// With the samples of what is gone on with.
    pub(crate) fn after(self, before: Option<&Kept>) -> Self {
        if let Some(kept) = before {
            self.state().samples.clone_from(&kept.samples);
        }
        self
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, position: Position, saved: Saved) -> Result<()> {
        let begin = Instant::now();
        for partial in self.partials {
            fdatasync(partial.file()).map_err(|e| write_error("syncing", self.dest, &e.into()))?;
        }
        let mut samples = std::mem::take(&mut self.state().samples);
        if let Some(last) = position.units.checked_sub(1) {
            if samples.len() >= SAMPLES {
                let mut n = 0;
                samples.retain(|_| {
                    n += 1;
                    n % 2 == 0
                });
            }
            samples.push((last, hash_of(self.disk, last)?));
        }
        let (context, sources, outputs) = self.frame.clone();
        let kept = Kept {
            context,
            len: self.disk.len(),
            sources,
            outputs,
            samples,
            position,
            saved,
        };
        self.write(&kept)?;
        let mut state = self.state();
        state.samples = kept.samples;
        state.next = Instant::now() + self.every.max(begin.elapsed() * 50);
        if self.every.is_zero() {
            state.next = Instant::now();
        }
        state.busy = false;
        Ok(())
    }

    /// In the place of the one before, at once.
    fn write(&self, kept: &Kept) -> Result<()> {
        let fail = |e: std::io::Error| write_error("writing the checkpoint of", self.dest, &e);
        let body = postcard::to_stdvec(kept)
            .map_err(|e| DiskError::corrupt("writing the checkpoint").found(e.to_string()))?;
        let dir = Partial::dir_of(self.dest)?;
        // Always the same name: a killed process leaves no more than one.
        let (name, new) = (name_of(self.dest), new_name(self.dest));
        let _ = unlinkat(&dir, &new, AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let file = openat(&dir, &new, flags, mode).map_err(|e| fail(e.into()))?;
        let mut file = File::from(file);
        file.write_all(MAGIC)
            .and_then(|()| file.write_all(&sha256(&body)))
            .and_then(|()| file.write_all(&body))
            .and_then(|()| file.sync_data())
            .and_then(|()| Ok(renameat(&dir, &new, &dir, &name)?))
            .map_err(fail)
    }
}

/// Removes the checkpoint of an output that is complete, or given up.
pub(crate) fn remove(dest: &Path) {
    for name in [name_of(dest), new_name(dest)] {
        let _ = std::fs::remove_file(dest.with_file_name(name));
    }
}

impl Checkpoints for Keeper<'_> {
    fn due(&self) -> bool {
        let state = self.state();
        !state.busy && Instant::now() >= state.next
    }

    fn take(&self, position: Position) -> Result<Store<'_>> {
        self.state().busy = true;
        let saved = (self.save)()?;
        Ok(Box::new(move || self.store(position, saved)))
    }
}

#[cfg(test)]
mod tests;
