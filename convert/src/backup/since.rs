//! What changed since an earlier backup: found by the maps of the chain, by a list of changed
//! blocks, or by the hashes of units, and written as a child of the earlier backup's disk.

use super::units::{Keep, Units};
use crate::{
    digest::{Digest, DigestKind, Hash, UNIT, sha256_each},
    in_order::in_order,
    pipeline::{self, CopyOptions, Sparse, cancelled},
    progress::Progress,
    target::Discard,
    touched::{BLOCK, Touched, batches, touched},
};
use disk_io::{Disk, DiskError, Result, zero::is_zero};
use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// A disk of an earlier backup that a new one builds on.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its contents.
    pub disk: Arc<dyn Disk>,
    /// The hashes of its units, if the earlier backup has them.
    pub units: Option<Units>,
    /// Name of its file in the earlier backup.
    pub file: String,
    /// Content id of that file.
    pub cid: u32,
    /// All that can have changed, in order, where that is known.
    pub candidates: Option<Vec<Range<u64>>>,
}

/// What was found.
pub(super) struct Found {
    /// Ranges that differ from the base, in order.
    pub(super) ranges: Vec<Range<u64>>,
    /// Digest of the new contents.
    pub(super) digest: Digest,
    /// Bytes of the new disk that were read for it.
    pub(super) read: u64,
}

/// Finds what of `disk` differs from `base`, and writes the hashes of its units into a new
/// file.
///
/// # Errors
/// `Refused` for a disk of another length.
pub(super) fn find(
    disk: &Arc<dyn Disk>,
    base: &Base,
    units: PathBuf,
    workers: usize,
    progress: &dyn Progress,
) -> Result<Found> {
    if disk.len() != base.disk.len() {
        return Err(
            DiskError::refused("looking for what changed since a backup")
                .file(&base.file)
                .expected(format!(
                    "a disk of {} bytes, as it was then",
                    base.disk.len()
                ))
                .found(format!("{} bytes", disk.len()))
                .hint("a disk that was resized needs a whole backup: leave out --since"),
        );
    }
    match (&base.candidates, &base.units) {
        (Some(candidates), Some(known)) => {
            by_ranges(disk, base, candidates, known, &units, (workers, progress))
        }
        _ => by_hashes(disk, base, units, workers, progress),
    }
}

/// One pass over the new disk; only units with another hash are compared.
fn by_hashes(
    disk: &Arc<dyn Disk>,
    base: &Base,
    path: PathBuf,
    workers: usize,
    progress: &dyn Progress,
) -> Result<Found> {
    let len = disk.len();
    let keep = Keep::create(path, len, progress)?;
    let changed = Changed {
        keep: &keep,
        known: base.units.as_ref(),
        units: Mutex::new(Ok(Vec::new())),
    };
    let options = CopyOptions {
        workers,
        digest: DigestKind::Vmdkit,
        sparse: Sparse::Always,
    };
    let copied = pipeline::copy(disk, &Discard, options, &changed)?;
    let mut units = changed
        .units
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)?;
    keep.finish()?;
    units.sort_unstable();
    let mut ranges: Vec<Range<u64>> = Vec::new();
    in_order(
        &units,
        pipeline::workers(workers),
        &|unit, (new, old): &mut (Vec<u8>, Vec<u8>)| {
            if progress.cancelled() {
                return Err(cancelled());
            }
            let range = unit_range(*unit, len);
            read(disk, &range, new)?;
            let mut ranges = Vec::new();
            compare(
                (new, range.start),
                Touched::whole(*unit),
                old,
                base,
                &mut ranges,
            )?;
            Ok(ranges)
        },
        &mut |found| {
            ranges.extend(found);
            Ok(())
        },
    )?;
    let digest = copied
        .digest
        .ok_or_else(|| DiskError::unsupported("computing a digest").found("none"))?;
    Ok(Found {
        ranges,
        digest,
        read: len,
    })
}

/// Only what can have changed is read; the other units' hashes are the base's.
fn by_ranges(
    disk: &Arc<dyn Disk>,
    base: &Base,
    candidates: &[Range<u64>],
    known: &Units,
    path: &Path,
    (workers, progress): (usize, &dyn Progress),
) -> Result<Found> {
    let len = disk.len();
    let touched = touched(candidates, len);
    let (mut ranges, mut read, mut hashes) = (Vec::new(), 0, Vec::new());
    in_order(
        &batches(&touched, pipeline::workers(workers)),
        pipeline::workers(workers),
        &|batch, scratch| match progress.cancelled() {
            true => Err(cancelled()),
            false => look(disk, base, known, batch, scratch),
        },
        &mut |looked| {
            progress.advance(looked.read);
            read += looked.read;
            ranges.extend(looked.ranges);
            hashes.extend(looked.hashes);
            Ok(())
        },
    )?;
    hashes.sort_unstable_by_key(|(unit, _)| *unit);
    let digest = known.patched(path, len, &hashes)?;
    progress.advance(len.saturating_sub(read));
    Ok(Found {
        ranges,
        digest,
        read,
    })
}

/// What was found in some units.
struct Looked {
    ranges: Vec<Range<u64>>,
    /// The hashes of those that changed; `None` for zeros.
    hashes: Vec<(u64, Option<Hash>)>,
    /// Bytes of the disk that were read.
    read: u64,
}

/// Buffers of a worker. They are used again: memory that is new to a process costs as much as
/// reading into it.
#[derive(Default)]
struct Scratch {
    units: Vec<Vec<u8>>,
    old: Vec<u8>,
}

/// Compares some units with the base's, and hashes those that changed side by side.
fn look(
    disk: &Arc<dyn Disk>,
    base: &Base,
    known: &Units,
    batch: &[Touched],
    scratch: &mut Scratch,
) -> Result<Looked> {
    let mut looked = Looked {
        ranges: Vec::new(),
        hashes: Vec::new(),
        read: 0,
    };
    let Scratch { units, old } = scratch;
    units.resize_with(batch.len().max(units.len()), Vec::new);
    let mut changed: Vec<(u64, &[u8])> = Vec::new();
    for (touched, new) in batch.iter().zip(units) {
        let unit = touched.unit;
        let range = unit_range(unit, disk.len());
        read(disk, &range, new)?;
        looked.read += new.len() as u64;
        let differs = compare((new, range.start), *touched, old, base, &mut looked.ranges)?;
        if is_zero(new) {
            looked.hashes.push((unit, None));
        } else if differs {
            changed.push((unit, new));
        } else {
            // What did not change keeps its hash.
            looked.hashes.push((unit, known.get(unit)?));
        }
    }
    let parts: Vec<&[u8]> = changed.iter().map(|(_, bytes)| *bytes).collect();
    let hashes = sha256_each(&parts).into_iter().map(Some);
    looked
        .hashes
        .extend(changed.iter().map(|(unit, _)| *unit).zip(hashes));
    Ok(looked)
}

fn unit_range(unit: u64, len: u64) -> Range<u64> {
    let start = unit.saturating_mul(UNIT);
    start..start.saturating_add(UNIT).min(len)
}

fn read(disk: &Arc<dyn Disk>, range: &Range<u64>, buffer: &mut Vec<u8>) -> Result<()> {
    let size = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
    buffer.resize(size, 0);
    disk.read_exact_at(buffer, range.start)
}

/// Adds the blocks of a unit that differ from the base's to `found`, of those that can; whether
/// there are any. Of the base no others are read.
fn compare(
    (new, start): (&[u8], u64),
    touched: Touched,
    old: &mut Vec<u8>,
    base: &Base,
    found: &mut Vec<Range<u64>>,
) -> Result<bool> {
    let mut differs = false;
    let chunks: Vec<(u64, &[u8])> = (start..).step_by(BLOCK).zip(new.chunks(BLOCK)).collect();
    let wanted = |n: usize| touched.has(n);
    let mut n = 0;
    while let Some((at, _)) = chunks.get(n) {
        if !wanted(n) {
            n += 1;
            continue;
        }
        // Neighbours are read at once.
        let run = (n..chunks.len()).take_while(|n| wanted(*n)).count();
        let run = chunks.get(n..n + run).unwrap_or_default();
        n += run.len();
        let len: usize = run.iter().map(|(_, bytes)| bytes.len()).sum();
        read(&base.disk, &(*at..at.saturating_add(len as u64)), old)?;
        for ((at, new), old) in run.iter().zip(old.chunks(BLOCK)) {
            if *new == old {
                continue;
            }
            differs = true;
            let end = at.saturating_add(new.len() as u64);
            match found.last_mut() {
                Some(last) if last.end == *at => last.end = end,
                _ => found.push(*at..end),
            }
        }
    }
    Ok(differs)
}

/// Keeps hashes, and notes units whose hash is another.
struct Changed<'a> {
    keep: &'a Keep<'a>,
    known: Option<&'a Units>,
    units: Mutex<Result<Vec<u64>>>,
}

impl Progress for Changed<'_> {
    fn advance(&self, bytes: u64) {
        self.keep.advance(bytes);
    }

    fn cancelled(&self) -> bool {
        self.keep.cancelled()
    }

    fn hashed(&self, unit: u64, hash: Option<&Hash>) {
        self.keep.hashed(unit, hash);
        let known = self.known.map(|known| known.get(unit)).transpose();
        let mut units = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        match (known, &mut *units) {
            (Ok(known), Ok(units)) => {
                // Without hashes of the base everything is compared.
                if known.is_none_or(|known| known.as_ref() != hash) {
                    units.push(unit);
                }
            }
            (Err(e), Ok(_)) => *units = Err(e),
            (_, Err(_)) => {}
        }
    }
}
