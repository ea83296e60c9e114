//! One reader of runs, workers on every core.
//!
//! Workers claim batches of pieces in order. A piece is read, looked through for zeros and
//! written while it is in its core's cache; the pieces of a batch are hashed side by side,
//! which is many times faster than one after another. Only a target or a digest that needs
//! order makes workers hand pieces on.
//!
//! | module | holds |
//! |---|---|
//! | `piece` | one piece: read, looked through for zeros, written |
//! | `line` | pieces in order, for the one thread that needs them so |

mod line;
mod piece;

use crate::{
    digest::{
        Digest, DigestKind, LANES, UNIT, UnitFold, hasher_from, hasher_state, sha256_each,
        zero_hash, zeros,
    },
    progress::Progress,
    target::Target,
};
use disk_io::{Disk, DiskError, ErrorKind, Result};
use line::{Done, Line};
use piece::Scratch;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Pieces claimed at once where nothing is hashed: reads of one worker stay sequential.
const BATCH: u64 = 4;

/// Pieces that wait in batches to be hashed, of all workers together.
const WAITING: u64 = 64;

/// How far, in pieces, a worker may be ahead of the slowest: each such piece has a hash
/// that waits for its turn.
const AHEAD: u64 = 1 << 16;

/// What becomes of zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sparse {
    /// What the source knows to be zero is left out.
    Auto,
    /// Zeros found inside data are left out too.
    #[default]
    Always,
    /// Every zero is written.
    Never,
}

/// How to copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct CopyOptions {
    /// Threads; 0 means one for every core.
    pub workers: usize,
    /// Digest to compute on the way.
    pub digest: DigestKind,
    /// What becomes of zeros.
    pub sparse: Sparse,
}

/// What a copy did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Bytes handed to the target as data.
    pub written: u64,
    /// Bytes left out as zeros.
    pub zeros: u64,
    /// The digest, unless none was wanted.
    pub digest: Option<Digest>,
}

/// How far a copy has come: everything before it is with the target, nothing behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Units of [`UNIT`] bytes.
    pub units: u64,
    /// Bytes handed to the target as data.
    pub written: u64,
    /// What the digest has come to.
    digest: Vec<u8>,
}

impl Position {
    /// How many bytes of a disk of `len` bytes that is.
    pub fn bytes(&self, len: u64) -> u64 {
        self.units.saturating_mul(UNIT).min(len)
    }
}

/// Keeps positions, so that a copy that is cut off can be gone on with.
pub trait Checkpoints: Sync {
    /// Whether it is time. It is asked between batches.
    fn due(&self) -> bool;

    /// Takes a position while nothing is read or written. What takes long goes into the
    /// function that is returned: it is called while the copy goes on.
    fn take(&self, position: Position) -> Result<Store<'_>>;
}

/// See [`Checkpoints::take`].
pub type Store<'a> = Box<dyn FnOnce() -> Result<()> + 'a>;

/// Where a copy begins, and who keeps how far it comes.
#[derive(Clone, Copy, Default)]
pub struct Course<'a> {
    /// `None`: at the beginning.
    pub start: Option<&'a Position>,
    /// Who keeps positions.
    pub checkpoints: Option<&'a dyn Checkpoints>,
}

/// Threads for `wanted` workers, where 0 means one for every core.
pub fn workers(wanted: usize) -> usize {
    match wanted {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

/// Pieces that each of so many workers hashes side by side: at its best [`LANES`], fewer where
/// all together would hold more than [`WAITING`].
pub(crate) fn side_by_side(workers: usize) -> u64 {
    (WAITING / workers.max(1) as u64).clamp(1, LANES)
}

/// Copies all of `disk` into `target` and finishes it. On an error, or when `progress` says
/// that it is cancelled, the target is left as it is.
pub fn copy(
    disk: &dyn Disk,
    target: &dyn Target,
    options: CopyOptions,
    progress: &dyn Progress,
) -> Result<Copied> {
    copy_along(disk, target, options, Course::default(), progress)
}

/// The same on a given course.
///
/// # Errors
/// Also `Corrupt` if the position to start from is not one of this copy.
pub fn copy_along(
    disk: &dyn Disk,
    target: &dyn Target,
    options: CopyOptions,
    course: Course<'_>,
    progress: &dyn Progress,
) -> Result<Copied> {
    let len = disk.len();
    let pieces = len.div_ceil(UNIT);
    let ordered = target.in_order() || options.digest == DigestKind::Sha256;
    let workers = workers(options.workers).min(usize::try_from(pieces).unwrap_or(usize::MAX));
    let batch = match (options.digest, ordered) {
        (DigestKind::Vmdkit, _) => side_by_side(workers),
        (_, true) => 1,
        (_, false) => BATCH,
    };
    let start = course.start.map_or(0, |s| s.units);
    if start > pieces {
        return Err(DiskError::corrupt("going on with a copy")
            .expected(format!("a place in {pieces} units"))
            .found(format!("{start} units")));
    }
    let (mut fold, mut flat) = (UnitFold::new(len), Sha256::new());
    if let Some(position) = course.start {
        match options.digest {
            DigestKind::Vmdkit => fold = UnitFold::resume(len, start, &position.digest)?,
            DigestKind::Sha256 => flat = hasher_from(&position.digest)?,
            DigestKind::None => {}
        }
        progress.advance((start * UNIT).min(len));
    }
    let job = Job {
        disk,
        target,
        options,
        progress,
        len,
        pieces,
        ordered,
        checkpoints: course.checkpoints,
        start,
        gate: Mutex::new(Gate {
            next: start,
            consumed: start,
            active: 0,
            closed: false,
            kept: start,
        }),
        passed: Condvar::new(),
        written: AtomicU64::new(course.start.map_or(0, |s| s.written)),
        stop: AtomicBool::new(false),
        failures: Mutex::default(),
        fold: Mutex::new(fold),
        flat: Mutex::new(flat),
        folded: Condvar::new(),
        batch,
        line: Line::new(start, workers as u64 * (batch + 1) + 4),
    };
    if ordered {
        std::thread::scope(|scope| {
            for _ in 0..workers.max(1) {
                scope.spawn(|| job.work());
            }
            if catch_unwind(AssertUnwindSafe(|| job.consume())).is_err() {
                job.fail(u64::MAX, panicked("copying"));
            }
        });
    } else if workers <= 1 {
        job.work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| job.work());
            }
        });
    }
    job.result()
}

struct Job<'a> {
    disk: &'a dyn Disk,
    target: &'a dyn Target,
    options: CopyOptions,
    progress: &'a dyn Progress,
    len: u64,
    pieces: u64,
    ordered: bool,
    /// Pieces claimed at once.
    batch: u64,
    checkpoints: Option<&'a dyn Checkpoints>,
    /// The piece to begin with.
    start: u64,
    gate: Mutex<Gate>,
    /// Told when something in `gate` changed, or the copy stops.
    passed: Condvar,
    written: AtomicU64,
    stop: AtomicBool,
    failures: Mutex<Vec<(u64, DiskError)>>,
    fold: Mutex<UnitFold>,
    /// The flat hash, if that is wanted.
    flat: Mutex<Sha256>,
    /// Told when `fold` has moved on, or the copy stops.
    folded: Condvar,
    line: Line,
}

/// Where workers claim pieces. It is closed while a position is taken.
struct Gate {
    /// The next piece to be claimed.
    next: u64,
    /// The pieces that were taken in order, where that is needed.
    consumed: u64,
    /// Workers that have pieces.
    active: usize,
    closed: bool,
    /// Where the last checkpoint was: there is not another at the same place.
    kept: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Job<'_> {
    /// Copies pieces until there are none. A panic ends the copy as any failure does: the
    /// others would wait for the piece for ever.
    fn work(&self) {
        if catch_unwind(AssertUnwindSafe(|| self.copy_pieces())).is_err() {
            self.fail(u64::MAX, panicked("copying"));
        }
    }

    fn copy_pieces(&self) {
        let mut scratch = Scratch::default();
        let keeps = self.ordered || self.options.digest == DigestKind::Vmdkit;
        let mut batch: Vec<Done> = Vec::new();
        loop {
            let Some(first) = self.claim() else {
                return;
            };
            self.wait_for_turn(first);
            for index in first..(first + self.batch).min(self.pieces) {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                if self.progress.cancelled() {
                    self.fail(index, cancelled());
                    return;
                }
                let start = index * UNIT;
                let len = UNIT.min(self.len - start);
                match self.piece(start, len, &mut scratch) {
                    Ok(zero) => {
                        let bytes = (keeps && !zero).then(|| std::mem::take(&mut scratch.buffer));
                        let mut done = Done {
                            index,
                            len,
                            bytes,
                            encoded: None,
                        };
                        if self.target.in_order()
                            && let Some(bytes) = done.data()
                        {
                            match self.target.encode(bytes, start) {
                                Ok(encoded) => done.encoded = encoded,
                                Err(e) => {
                                    self.fail(index, e);
                                    return;
                                }
                            }
                        }
                        batch.push(done);
                    }
                    Err(e) => {
                        self.fail(index, e);
                        return;
                    }
                }
                self.progress.advance(len);
            }
            if self.options.digest == DigestKind::Vmdkit {
                self.hash(&batch);
            }
            for done in batch.drain(..) {
                let mut done = done;
                let spare = match (&done.encoded, self.options.digest) {
                    // The flat hash is made of the bytes, in order.
                    (None, _) | (_, DigestKind::Sha256) if self.ordered => None,
                    _ => done.bytes.take(),
                };
                scratch.spare.extend(spare);
                if self.ordered {
                    self.line.put(done);
                }
            }
            lock(&self.gate).active -= 1;
            self.passed.notify_all();
        }
    }

    /// The first piece of the next batch; `None` when there is none, or the copy stops.
    fn claim(&self) -> Option<u64> {
        loop {
            let mut gate = lock(&self.gate);
            while gate.closed && !self.stop.load(Ordering::Relaxed) {
                gate = self.passed.wait(gate).unwrap_or_else(|e| e.into_inner());
            }
            if self.stop.load(Ordering::Relaxed) || gate.next >= self.pieces {
                return None;
            }
            match self.checkpoints {
                Some(keeper) if gate.next > gate.kept && keeper.due() => {
                    gate.closed = true;
                    gate.kept = gate.next;
                    if let Err(e) = self.checkpoint(keeper, gate) {
                        self.fail(u64::MAX, e);
                        return None;
                    }
                }
                _ => {
                    let first = gate.next;
                    gate.next += self.batch;
                    gate.active += 1;
                    return Some(first);
                }
            }
        }
    }

    /// Behind the closed gate: waits until every piece that was claimed is with the target,
    /// and has the position kept.
    fn checkpoint(&self, keeper: &dyn Checkpoints, mut gate: MutexGuard<'_, Gate>) -> Result<()> {
        let stopped = || self.stop.load(Ordering::Relaxed);
        while (gate.active > 0 || self.ordered && gate.consumed < gate.next.min(self.pieces))
            && !stopped()
        {
            gate = self.passed.wait(gate).unwrap_or_else(|e| e.into_inner());
        }
        if stopped() {
            return Ok(());
        }
        let position = Position {
            units: gate.next.min(self.pieces),
            written: self.written.load(Ordering::Relaxed),
            digest: match self.options.digest {
                DigestKind::Vmdkit => lock(&self.fold).state(),
                DigestKind::Sha256 => hasher_state(&lock(&self.flat)),
                DigestKind::None => Vec::new(),
            },
        };
        let store = keeper.take(position);
        gate.closed = false;
        drop(gate);
        self.passed.notify_all();
        store?()
    }

    /// Hashes a batch and folds it in.
    fn hash(&self, batch: &[Done]) {
        let parts: Vec<&[u8]> = batch.iter().filter_map(Done::data).collect();
        let mut hashes = sha256_each(&parts).into_iter();
        let mut fold = lock(&self.fold);
        for done in batch {
            let hash = match done.bytes {
                None => Some(zero_hash(done.len)),
                Some(_) => hashes.next(),
            };
            if let Some(hash) = hash {
                self.progress
                    .hashed(done.index, done.bytes.as_ref().map(|_| &hash));
                fold.put(done.index, hash);
            }
        }
        drop(fold);
        self.folded.notify_all();
    }

    /// Waits while piece `first` is too far ahead of the slowest worker.
    fn wait_for_turn(&self, first: u64) {
        if self.options.digest != DigestKind::Vmdkit {
            return;
        }
        let mut fold = lock(&self.fold);
        while first >= fold.in_order() + AHEAD && !self.stop.load(Ordering::Relaxed) {
            fold = self.folded.wait(fold).unwrap_or_else(|e| e.into_inner());
        }
    }

    fn fail(&self, index: u64, error: DiskError) {
        lock(&self.failures).push((index, error));
        self.stop.store(true, Ordering::Relaxed);
        self.line.stop();
        // Whoever has seen `stop` unset waits by now.
        drop(lock(&self.fold));
        self.folded.notify_all();
        drop(lock(&self.gate));
        self.passed.notify_all();
    }

    /// Takes pieces in order, from the calling thread.
    fn consume(&self) {
        for index in self.start..self.pieces {
            let Some(done) = self.line.take(index) else {
                return;
            };
            if self.options.digest == DigestKind::Sha256 {
                lock(&self.flat).update(done.data().unwrap_or_else(|| zeros(done.len)));
            }
            if self.target.in_order() {
                let start = index * UNIT;
                let result = match done.encoded.as_deref().or_else(|| done.data()) {
                    Some(part) => self.target.write_at(part, start),
                    None => self.target.zero_at(start, done.len),
                };
                if let Err(e) = result {
                    self.fail(index, e);
                    return;
                }
            }
            if let Some(bytes) = done.bytes {
                self.line.give_back(bytes);
            }
            if self.checkpoints.is_some() {
                lock(&self.gate).consumed = index + 1;
                self.passed.notify_all();
            }
        }
    }

    fn result(self) -> Result<Copied> {
        let mut failures = self
            .failures
            .into_inner()
            .unwrap_or_else(|e| e.into_inner());
        // The first in the disk's order, whichever thread met it; a wish to stop comes last.
        failures.sort_by_key(|(index, e)| (is_cancelled(e), *index));
        if let Some((_, first)) = failures.into_iter().next() {
            return Err(first);
        }
        self.target.finish()?;
        let digest = match self.options.digest {
            DigestKind::None => None,
            DigestKind::Vmdkit => {
                let fold = self.fold.into_inner().unwrap_or_else(|e| e.into_inner());
                Some(fold.finish()?)
            }
            DigestKind::Sha256 => Some(Digest {
                kind: DigestKind::Sha256,
                hash: self
                    .flat
                    .into_inner()
                    .unwrap_or_else(|e| e.into_inner())
                    .finalize()
                    .into(),
            }),
        };
        let written = self.written.into_inner();
        Ok(Copied {
            written,
            zeros: self.len - written,
            digest,
        })
    }
}

const CANCELLED: &str = "stopping as asked";

pub(crate) fn cancelled() -> DiskError {
    DiskError::new(ErrorKind::Io, CANCELLED)
}

/// What a panic becomes: an error, so that what is unfinished is removed and said.
pub(crate) fn panicked(doing: &str) -> DiskError {
    DiskError::new(ErrorKind::Io, doing)
        .expected("an answer or an error")
        .found("a defect of this program: a thread panicked")
        .hint("please report it, with the line that begins with \"thread\"")
}

/// Whether an error only says that [`Progress::cancelled`] was true.
pub fn is_cancelled(e: &DiskError) -> bool {
    e.doing() == CANCELLED
}

#[cfg(test)]
mod tests;
