//! What a target gets, written down and synced before the target is touched.
//!
//! It is a stream of [`frames`](super::frames). One that was cut off is gone on with: a head
//! begins each attempt, and a unit that comes again counts instead of the one before.

use super::{
    frames::{Frames, Kind, MAGIC, encode},
    unit::{self, Unit, ZERO},
};
use crate::{backup::ChainLink, digest::Hash, digest::UNIT};
use disk_io::{
    Disk, DiskError, Result, Run, RunKind,
    disk::{check_range, check_run_offset},
    output::write_error,
};
use rustix::fs::{Advice, OFlags, fadvise};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{BufReader, Seek, SeekFrom, Write},
    num::NonZeroU64,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// After so many bytes the kernel is asked to begin with writing them to the disk.
const STRIDE: u64 = 4 << 20;

/// What a stream is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Of this form.
    pub version: u32,
    /// Length of the disk in bytes.
    pub size: u64,
    /// Digest of what it builds on; nothing for a target that there is not yet.
    pub base: Option<String>,
    /// What was read, as the user named it.
    pub source: String,
    /// When it was begun: RFC 3339.
    pub created: String,
    /// The chain of what was read, from the top; empty where it is not known.
    pub chain: Vec<ChainLink>,
}

/// What a stream came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    /// Digest of the disk.
    pub(super) digest: String,
    /// Units that changed.
    pub(super) units: u64,
}

/// A unit in the journal.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u64,
    len: u32,
    hash: Hash,
}

/// The journal of a target.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    head: Option<Head>,
    end: Option<End>,
    units: BTreeMap<u64, Entry>,
    /// Where the next frame goes.
    position: u64,
}

impl Journal {
    /// What there is, if anything. What was cut off ends before the frame that is not whole.
    pub(super) fn open(path: &Path) -> Result<Option<Self>> {
        let file = match options().open(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| write_error("opening", path, &e))?,
        };
        let mut journal = Self::over(file, path);
        let name = path.display().to_string();
        let Ok(mut frames) = Frames::new(BufReader::new(&journal.file), &name) else {
            return Ok(Some(journal));
        };
        let (mut head, mut end, mut units) = (None, None, BTreeMap::new());
        let mut position = frames.position();
        while let Ok(Some(frame)) = frames.next() {
            position = frames.position();
            match frame.kind {
                Kind::Head => (head, end) = (serde_json::from_slice(&frame.body).ok(), None),
                Kind::End => end = serde_json::from_slice(&frame.body).ok(),
                kind => note(&mut units, kind, &frame.body, frame.at),
            }
        }
        drop(frames);
        (journal.head, journal.end, journal.units) = (head, end, units);
        journal.position = position;
        Ok(Some(journal))
    }

    fn over(file: File, path: &Path) -> Self {
        Self {
            file,
            path: path.to_path_buf(),
            head: None,
            end: None,
            units: BTreeMap::new(),
            position: 0,
        }
    }

    /// A new one for `head`; or one that goes on with what came before on the same base.
    pub(super) fn begin(path: &Path, head: &Head) -> Result<Self> {
        let fail = |e: &std::io::Error| write_error("writing", path, e);
        let kept = Self::open(path)?.filter(|j| {
            let before = j.head.as_ref();
            before.is_some_and(|b| (b.size, &b.base) == (head.size, &head.base))
        });
        let mut journal = match kept {
            Some(journal) => {
                journal
                    .file
                    .set_len(journal.position)
                    .map_err(|e| fail(&e))?;
                journal
            }
            None => {
                let file = options().create(true).truncate(true).mode(0o600).open(path);
                let file = file.map_err(|e| fail(&e))?;
                let mut journal = Self::over(file, path);
                journal.append(MAGIC)?;
                journal
            }
        };
        journal.end = None;
        let body = serde_json::to_vec(head).map_err(|e| fail(&e.into()))?;
        journal.append(&encode(Kind::Head, &body))?;
        journal.head = Some(head.clone());
        Ok(journal)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let fail = |e: std::io::Error| {
            write_error("writing", &self.path, &e)
                .hint("the target is as it was; with room for what changed it goes on where it was")
        };
        self.file
            .seek(SeekFrom::Start(self.position))
            .map_err(fail)?;
        self.file.write_all(bytes).map_err(fail)?;
        let before = self.position;
        self.position += bytes.len() as u64;
        if before / STRIDE != self.position / STRIDE {
            // The kernel begins to write: the sync has less to wait for. What it has not written
            // yet stays in memory, where it is read from soon.
            let from = self.position.saturating_sub(2 * STRIDE);
            let _ = fadvise(
                &self.file,
                from,
                NonZeroU64::new(2 * STRIDE),
                Advice::DontNeed,
            );
        }
        Ok(())
    }

    /// Takes a unit, or that one does not count any more.
    pub(super) fn put(&mut self, kind: Kind, body: &[u8]) -> Result<()> {
        let frame = encode(kind, body);
        let at = self.position + (frame.len() - body.len()) as u64;
        self.append(&frame)?;
        note(&mut self.units, kind, body, at);
        Ok(())
    }

    /// All of it is here: from now on it will be applied, whatever happens.
    pub(super) fn complete(&mut self, end: End) -> Result<()> {
        let fail = |e: &std::io::Error| write_error("writing", &self.path, e);
        // One sync for all: if of what it ends something is not there after a loss of power, that
        // frame's CRC-32 is wrong, and nothing behind it is read; and whoever goes on proves by the
        // digest that all units are there.
        let body = serde_json::to_vec(&end).map_err(|e| fail(&e.into()))?;
        self.append(&encode(Kind::End, &body))?;
        self.file
            .sync_all()
            .map_err(|e| write_error("syncing", &self.path, &e))?;
        self.end = Some(end);
        Ok(())
    }

    /// What it is for and came to, if it is complete.
    pub(super) fn is_complete(&self) -> Option<(&Head, &End)> {
        self.head.as_ref().zip(self.end.as_ref())
    }

    pub(super) fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Units that count, with their hashes.
    pub(super) fn hashes(&self) -> impl Iterator<Item = (u64, Hash)> {
        self.units.iter().map(|(unit, entry)| (*unit, entry.hash))
    }

    pub(super) fn hash_of(&self, unit: u64) -> Option<Hash> {
        self.units.get(&unit).map(|e| e.hash)
    }

    /// Length of the file so far.
    pub(super) fn len(&self) -> u64 {
        self.position
    }

    pub(super) fn read(&self, unit: u64, len: u64) -> Result<Option<Unit>> {
        let Some(entry) = self.units.get(&unit) else {
            return Ok(None);
        };
        let mut body = vec![0; entry.len as usize];
        self.file
            .read_exact_at(&mut body, entry.at)
            .map_err(|e| DiskError::io("reading the journal", &e).file(self.path.display()))?;
        match Unit::decode(&body, len) {
            Some(unit) => Ok(Some(unit)),
            None => Err(DiskError::corrupt("reading the journal")
                .file(self.path.display())
                .offset(entry.at)
                .expected("a unit of the disk")
                .found("something else")),
        }
    }

    /// It is applied, or worth nothing.
    pub(super) fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|e| write_error("removing", &self.path, &e))
    }
}

/// No link is followed: what it names is not ours to write.
fn options() -> OpenOptions {
    let mut options = File::options();
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    options.read(true).write(true).custom_flags(flags);
    options
}

fn note(units: &mut BTreeMap<u64, Entry>, kind: Kind, body: &[u8], at: u64) {
    let index = body.first_chunk().map(|b| u64::from_le_bytes(*b));
    let hash = body.get(8..40).and_then(|h| h.try_into().ok());
    match (kind, index, hash) {
        (Kind::Unit, Some(index), Some(hash)) => {
            let entry = Entry {
                at,
                len: u32::try_from(body.len()).unwrap_or(0),
                hash,
            };
            units.insert(index, entry);
        }
        (Kind::Drop, Some(index), _) => {
            units.remove(&index);
        }
        _ => {}
    }
}

/// A journal of whole units as the disk that it makes out of zeros.
#[derive(Debug)]
pub(super) struct JournalDisk {
    pub(super) journal: Arc<Journal>,
    pub(super) len: u64,
    /// The unit that was read last.
    last: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
}

impl JournalDisk {
    pub(super) fn new(journal: Arc<Journal>, len: u64) -> Self {
        Self {
            journal,
            len,
            last: Mutex::new(None),
        }
    }

    fn unit(&self, index: u64) -> Result<Option<Arc<Vec<u8>>>> {
        if let Some((last, bytes)) = &*self.last.lock().unwrap_or_else(PoisonError::into_inner)
            && *last == index
        {
            return Ok(Some(bytes.clone()));
        }
        let Some(unit) = self.journal.read(index, self.len)? else {
            return Ok(None);
        };
        let bytes = unit.whole(self.len)?.ok_or_else(|| {
            DiskError::corrupt("making a replica")
                .offset(unit::range(index, self.len).start)
                .expected("all of a MiB")
                .found("some blocks of it")
        })?;
        let bytes = Arc::new(bytes);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((index, bytes.clone()));
        Ok(Some(bytes))
    }
}

impl Disk for JournalDisk {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len, offset, buf.len())?;
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let range = unit::range(at / UNIT, self.len);
            let n = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at_mut(n.min(rest.len()));
            let from = usize::try_from(at - range.start).unwrap_or(0);
            match self.unit(at / UNIT)? {
                Some(bytes) => {
                    let bytes = bytes.get(from..from + now.len()).unwrap_or_default();
                    now.copy_from_slice(bytes);
                }
                None => now.fill(0),
            }
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len, offset)?;
        let unit = offset / UNIT;
        let mut held = self
            .journal
            .units
            .range(unit..)
            .filter(|u| u.1.hash != ZERO);
        let (kind, end) = match held.next() {
            Some((next, _)) if *next == unit => (RunKind::Data, unit::range(unit, self.len).end),
            Some((next, _)) => (RunKind::Unallocated, unit::range(*next, self.len).start),
            None => (RunKind::Unallocated, self.len),
        };
        Ok(Run {
            kind,
            len: end - offset,
        })
    }
}
