//! What changed since an earlier backup: found by the maps of the chain, by a list of changed
//! blocks, or by the hashes of units, and written as a child of the earlier backup's disk.

use super::units::{EACH, Keep, Units};
use crate::{
    digest::{Digest, DigestKind, Hash, UNIT, UnitFold, sha256, zero_hash},
    pipeline::{self, CopyOptions, Sparse, cancelled},
    progress::Progress,
    target::Discard,
};
use disk_io::{Disk, DiskError, Result, output::write_error, zero::is_zero};
use std::{
    fs::File,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// The grain of a child: what differs is widened to it anyway.
const BLOCK: usize = 64 << 10;

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
            by_ranges(disk, base, candidates, known, &units, progress)
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
    let mut ranges = Vec::new();
    let mut buffers = [Vec::new(), Vec::new()];
    for unit in units {
        if progress.cancelled() {
            return Err(cancelled());
        }
        compare(
            disk,
            base,
            &unit_range(unit, len),
            &mut buffers,
            &mut ranges,
        )?;
    }
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
    progress: &dyn Progress,
) -> Result<Found> {
    let len = disk.len();
    let fail = |e: std::io::Error| write_error("writing", path, &e);
    let file = File::create_new(path).map_err(fail)?;
    file.set_len(known.count().saturating_mul(EACH))
        .map_err(fail)?;
    let mut fold = UnitFold::new(len);
    let mut found = Vec::new();
    let mut read = 0u64;
    let mut buffers = [Vec::new(), Vec::new()];
    let mut next = candidates.iter().peekable();
    for unit in 0..known.count() {
        let range = unit_range(unit, len);
        let size = range.end.saturating_sub(range.start);
        progress.advance(size);
        while next.next_if(|c| c.end <= range.start).is_some() {}
        let hash = if next.peek().is_some_and(|c| c.start < range.end) {
            if progress.cancelled() {
                return Err(cancelled());
            }
            let before = found.len();
            compare(disk, base, &range, &mut buffers, &mut found)?;
            read = read.saturating_add(size);
            let bytes = &buffers[0];
            match (is_zero(bytes), found.len() == before) {
                (true, _) => None,
                // What did not change keeps its hash.
                (false, true) => known.get(unit)?,
                (false, false) => Some(sha256(bytes)),
            }
        } else {
            known.get(unit)?
        };
        if let Some(hash) = &hash {
            file.write_all_at(hash, unit.saturating_mul(EACH))
                .map_err(fail)?;
        }
        fold.put(unit, hash.unwrap_or_else(|| zero_hash(size)));
    }
    file.sync_all().map_err(fail)?;
    Ok(Found {
        ranges: found,
        digest: fold.finish()?,
        read,
    })
}

fn unit_range(unit: u64, len: u64) -> Range<u64> {
    let start = unit.saturating_mul(UNIT);
    start..start.saturating_add(UNIT).min(len)
}

/// Adds the blocks of a range that differ to `found`. The new bytes stay in the first buffer.
fn compare(
    disk: &Arc<dyn Disk>,
    base: &Base,
    range: &Range<u64>,
    [new, old]: &mut [Vec<u8>; 2],
    found: &mut Vec<Range<u64>>,
) -> Result<()> {
    let size = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
    new.resize(size, 0);
    old.resize(size, 0);
    disk.read_exact_at(new, range.start)?;
    base.disk.read_exact_at(old, range.start)?;
    let mut at = range.start;
    for (new, old) in new.chunks(BLOCK).zip(old.chunks(BLOCK)) {
        let end = at.saturating_add(new.len() as u64);
        if new != old {
            match found.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => found.push(at..end),
            }
        }
        at = end;
    }
    Ok(())
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
