//! What is kept beside a target: what it was brought to, and what it looked like then.

use super::journal::Head;
use crate::{
    backup::ChainLink,
    place::{Partial, TEMP_PREFIX},
};
use disk_io::{
    Disk, DiskError, Result, Slice,
    host_file::{FilePool, HostFile},
    output::write_error,
    pieces::Concat,
};
use rustix::{fs::FlockOperation, io::Errno};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long another one at the same target is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
const VERSION: u32 = 1;
/// Longest state that is read.
const MAX: u64 = 64 << 20;

/// Names beside a target.
#[derive(Clone, Debug)]
pub(super) struct Places {
    target: PathBuf,
}

impl Places {
    pub(super) fn of(target: &Path) -> Result<Self> {
        match target.file_name() {
            Some(_) => Ok(Self {
                target: target.to_path_buf(),
            }),
            None => Err(DiskError::refused("replicating")
                .file(target.display())
                .expected("the name of a file")),
        }
    }

    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// # Errors
    /// `Io` if there is no directory for it; `Refused` for what is no file.
    pub(super) fn check(&self) -> Result<()> {
        Partial::dir_of(&self.target)?;
        match fs::symlink_metadata(&self.target) {
            Ok(found) if !found.is_file() => Err(DiskError::refused("replicating")
                .file(self.target.display())
                .expected("a regular file, or none")
                .found(match found.is_dir() {
                    true => "a directory",
                    false => "a link or a device",
                })),
            _ => Ok(()),
        }
    }

    fn with(&self, end: &str) -> PathBuf {
        let mut name = self.target.file_name().unwrap_or_default().to_owned();
        name.push(end);
        self.target.with_file_name(name)
    }

    /// What is known of it.
    pub(super) fn state(&self) -> PathBuf {
        self.with(".replica")
    }

    /// The hashes of its units.
    pub(super) fn units(&self) -> PathBuf {
        self.with(".replica.units")
    }

    /// What it gets.
    pub(super) fn journal(&self) -> PathBuf {
        self.with(".replica.journal")
    }

    /// What it is called while it is neither the old disk nor the new.
    pub(super) fn applying(&self) -> PathBuf {
        self.with(".replica.applying")
    }

    fn lock(&self) -> PathBuf {
        let mut name = OsString::from(TEMP_PREFIX);
        name.push(self.target.file_name().unwrap_or_default());
        name.push(".lock");
        self.target.with_file_name(name)
    }

    /// Nobody else works on the target while this is held. The end of one that does is waited for,
    /// but not for long: in a pipe of several, one asks what another is about to change.
    pub(super) fn take_lock(&self) -> Result<File> {
        let path = self.lock();
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| write_error("opening the lock", &path, &e))?;
        let until = Instant::now() + PATIENCE;
        let taken = loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                taken => break taken,
            }
        };
        match taken {
            Err(Errno::WOULDBLOCK) => Err(DiskError::refused("replicating")
                .file(self.target.display())
                .expected("nobody else at it")
                .found("another vmdkit replicate")),
            // Some file systems have no locks.
            _ => Ok(file),
        }
    }

    /// Syncs the directory: names in it survive a power cut.
    pub(super) fn sync_dir(&self) -> Result<()> {
        let dir = Partial::dir_of(&self.target)?;
        match rustix::fs::fsync(&dir) {
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(e) => Err(write_error(
                "syncing the directory of",
                &self.target,
                &e.into(),
            )),
        }
    }
}

/// Where a file holds bytes of the target's disk. All numbers are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name, in the target's directory.
    pub file: String,
    /// First byte of the disk that it holds.
    pub start: u64,
    /// How many it holds.
    pub len: u64,
    /// Where in the file they begin.
    pub offset: u64,
    /// Its length, and its time of change (seconds and nanoseconds of the Unix epoch), when it
    /// was brought up to date.
    pub size: u64,
    /// See `size`.
    pub modified: (i64, i64),
}

/// How a target's disk is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The target is the bytes of the disk.
    Raw,
    /// The target is a VMDK descriptor with flat extents.
    Vmdk,
}

/// What a target was brought to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// Length of the disk in bytes.
    pub size: u64,
    /// Digest of its contents.
    pub digest: String,
    /// How it is stored.
    pub form: Form,
    /// What it is a replica of, as the user named it.
    pub source: String,
    /// When it was brought up to date: RFC 3339.
    pub replicated: String,
    /// Its files.
    pub parts: Vec<Part>,
    /// The chain of the source then, from the top; empty where it is not known.
    pub chain: Vec<ChainLink>,
    /// Its files may not have their names yet: a target that is made is noted before they get
    /// them, so that it is known whose they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) making: bool,
}

impl State {
    pub(super) fn new(size: u64, digest: String, form: Form, parts: Vec<Part>) -> Self {
        Self {
            version: VERSION,
            size,
            digest,
            form,
            source: String::new(),
            replicated: String::new(),
            parts,
            chain: Vec::new(),
            making: false,
        }
    }

    /// Notes of what it is a copy.
    pub(super) fn is_of(&mut self, head: &Head) {
        self.source.clone_from(&head.source);
        self.replicated.clone_from(&head.created);
        self.chain.clone_from(&head.chain);
    }

    /// # Errors
    /// `Corrupt` for what is none.
    pub(super) fn load(places: &Places) -> Result<Option<Self>> {
        let path = places.state();
        let doing = "reading what is known of a replica";
        let fail = |e: &io::Error| DiskError::io(doing, e).file(path.display());
        let size = match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| fail(&e))?.len(),
        };
        let bad = |found: String| {
            DiskError::corrupt(doing)
                .file(path.display())
                .expected("what vmdkit replicate wrote")
                .found(found)
                .hint(format!(
                    "without {} TARGET is compared with SOURCE as a whole, with --force",
                    path.display()
                ))
        };
        if size > MAX {
            return Err(bad(format!("{size} bytes")));
        }
        let text = fs::read(&path).map_err(|e| fail(&e))?;
        let state: Self = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        if state.version != VERSION {
            return Err(bad(format!("version {}", state.version)));
        }
        let plain = |part: &Part| Path::new(&part.file).file_name() == Some(part.file.as_ref());
        if !state.parts.iter().all(plain) {
            return Err(bad("a file in another directory".into()));
        }
        Ok(Some(state))
    }

    /// The target's contents.
    ///
    /// # Errors
    /// Those of opening its files; `Corrupt` if they are not one after the other.
    pub(super) fn disk(&self, places: &Places) -> Result<Arc<dyn Disk>> {
        let pool = FilePool::new(self.parts.len().clamp(1, 64));
        let mut disks: Vec<Arc<dyn Disk>> = Vec::new();
        let mut next = 0;
        for part in &self.parts {
            let path = places.target().with_file_name(&part.file);
            let file = HostFile::open_named(&path, &pool)?;
            if part.start != next {
                break;
            }
            next = part.start.saturating_add(part.len);
            disks.push(Arc::new(Slice::new(file, part.offset, part.len)?));
        }
        if next != self.size {
            return Err(DiskError::corrupt("reading the target")
                .file(places.target().display())
                .offset(next)
                .expected(format!("files that hold all of its {} bytes", self.size))
                .found("some of them"));
        }
        Ok(Arc::new(Concat::new(disks)))
    }

    pub(super) fn save(&self, places: &Places) -> Result<()> {
        let path = places.state();
        let fail = |e: &io::Error| write_error("writing", &path, e);
        let mut text = serde_json::to_vec_pretty(self).map_err(|e| fail(&e.into()))?;
        text.push(b'\n');
        let partial = Partial::create(&path, true)?;
        partial.file().write_all(&text).map_err(|e| fail(&e))?;
        partial.finish()
    }

    /// Notes what the files look like now.
    pub(super) fn look(&mut self, places: &Places) -> Result<()> {
        for part in &mut self.parts {
            let path = places.target().with_file_name(&part.file);
            let found = fs::metadata(&path)
                .map_err(|e| DiskError::io("looking at", &e).file(path.display()))?;
            part.size = found.len();
            part.modified = modified(&found);
        }
        Ok(())
    }

    /// The first file that is not as it was, and how.
    pub(super) fn touched(&self, places: &Places) -> Option<(PathBuf, String)> {
        self.parts.iter().find_map(|part| {
            let path = places.target().with_file_name(&part.file);
            match fs::metadata(&path) {
                Err(e) => Some((path, e.to_string())),
                Ok(found) if found.len() != part.size => {
                    Some((path, format!("{} bytes, not {}", found.len(), part.size)))
                }
                Ok(found) if modified(&found) != part.modified => {
                    Some((path, "a later time of change".into()))
                }
                Ok(_) => None,
            }
        })
    }
}

fn modified(found: &Metadata) -> (i64, i64) {
    (found.mtime(), found.mtime_nsec())
}
