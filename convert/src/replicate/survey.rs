//! What of a disk a target does not have yet.

use super::unit::{self, Unit, ZERO};
use crate::{
    digest::{Digest, DigestKind, Hash, LANES, UNIT, UnitFold, sha256_each, zero_hash},
    pipeline::{self, CopyOptions, Sparse, cancelled},
    progress::Progress,
    target::Discard,
    touched::{BLOCK, Touched, touched},
};
use disk_io::{Disk, DiskError, Result, zero::is_zero};
use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

/// The hashes of what the target has; [`ZERO`] for a unit of zeros.
pub(super) type Known<'a> = &'a (dyn Fn(u64) -> Result<Hash> + Sync);

/// What is looked at.
pub(super) struct Survey<'a> {
    pub(super) disk: &'a Arc<dyn Disk>,
    /// All that can differ, where that is known.
    pub(super) candidates: Option<&'a [Range<u64>]>,
    pub(super) known: Known<'a>,
    /// The target's own disk, if it is at hand: blocks that it has are left out.
    pub(super) old: Option<&'a Arc<dyn Disk>>,
    /// Threads; 0 means one for every core.
    pub(super) workers: usize,
    pub(super) progress: &'a dyn Progress,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Surveyed {
    /// Of the disk.
    pub(super) digest: Digest,
    /// Units that differ.
    pub(super) units: u64,
    /// Bytes of the blocks that differ.
    pub(super) changed: u64,
    /// Bytes of the disk that were read, holes of it counted where all of it was.
    pub(super) read: u64,
}

impl Survey<'_> {
    /// Hands out every unit that differs, in order.
    ///
    /// # Errors
    /// Those of reading and of `emit`; `Corrupt` if the disk changes meanwhile.
    pub(super) fn run(&self, emit: &mut dyn FnMut(Unit) -> Result<()>) -> Result<Surveyed> {
        let len = self.disk.len();
        let (units, whole): (Vec<Touched>, _) = match self.candidates {
            Some(ranges) => (touched(ranges, len), None),
            None => {
                let (units, digest) = self.differing()?;
                let units = units.into_iter().map(Touched::whole);
                (units.collect(), Some(digest))
            }
        };
        let mut found = Surveyed {
            digest: Digest {
                kind: DigestKind::Vmdkit,
                hash: ZERO,
            },
            units: 0,
            changed: 0,
            read: match whole {
                Some(_) => len,
                None => units.iter().map(|t| unit::size(t.unit, len) as u64).sum(),
            },
        };
        let mut fold = UnitFold::new(len);
        let mut next = 0;
        let mut put = |fold: &mut UnitFold, upto: u64, last: Option<Hash>| -> Result<()> {
            for index in next..upto {
                fold.put(index, full(index, (self.known)(index)?, len));
            }
            next = upto;
            if let Some(hash) = last {
                fold.put(upto, full(upto, hash, len));
                next = upto + 1;
            }
            Ok(())
        };
        let workers = pipeline::workers(self.workers);
        for round in units.chunks(workers.saturating_mul(LANES as usize)) {
            if self.progress.cancelled() {
                return Err(cancelled());
            }
            for (index, hash, changed) in self.round(round)? {
                put(&mut fold, index, Some(hash))?;
                if whole.is_none() {
                    self.progress.advance(unit::size(index, len) as u64);
                }
                if let Some(unit) = changed {
                    found.units += 1;
                    found.changed += match unit.hash {
                        ZERO => unit::size(index, len) as u64,
                        _ => unit.bytes(len),
                    };
                    emit(unit)?;
                }
            }
        }
        put(&mut fold, len.div_ceil(UNIT), None)?;
        found.digest = fold.finish()?;
        match whole {
            Some(before) if before != found.digest => {
                Err(DiskError::corrupt("looking for what changed")
                    .code("source-changed")
                    .expected("a disk that stays as it is while it is read")
                    .found("other contents when it was read again")
                    .hint("replicate a snapshot, or stop the machine"))
            }
            _ => Ok(found),
        }
    }

    /// One pass over all of it: the units whose hash is another.
    fn differing(&self) -> Result<(Vec<u64>, Digest)> {
        let changed = Changed {
            survey: self,
            units: Mutex::new(Ok(BTreeSet::new())),
        };
        let options = CopyOptions {
            workers: self.workers,
            digest: DigestKind::Vmdkit,
            sparse: Sparse::Always,
        };
        let copied = pipeline::copy(self.disk, &Discard, options, &changed)?;
        let units = changed
            .units
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)?;
        let digest = copied
            .digest
            .ok_or_else(|| DiskError::unsupported("computing a digest").found("none"))?;
        Ok((units.into_iter().collect(), digest))
    }

    /// Works on some units, on every core.
    fn round(&self, units: &[Touched]) -> Result<Vec<(u64, Hash, Option<Unit>)>> {
        let each = units.len().div_ceil(pipeline::workers(self.workers)).max(1);
        let parts: Vec<&[Touched]> = units.chunks(each).collect();
        let done = std::thread::scope(|scope| {
            let threads: Vec<_> = parts
                .iter()
                .map(|part| scope.spawn(|| self.look(part)))
                .collect();
            threads
                .into_iter()
                .map(|t| {
                    t.join()
                        .map_err(|_| pipeline::panicked("looking for what changed"))?
                })
                .collect::<Result<Vec<_>>>()
        })?;
        Ok(done.into_iter().flatten().collect())
    }

    fn look(&self, units: &[Touched]) -> Result<Vec<(u64, Hash, Option<Unit>)>> {
        let len = self.disk.len();
        let read = |disk: &Arc<dyn Disk>, index: u64| {
            let mut bytes = vec![0; unit::size(index, len)];
            disk.read_exact_at(&mut bytes, unit::range(index, len).start)
                .map(|()| bytes)
        };
        let all: Vec<Vec<u8>> = units
            .iter()
            .map(|touched| read(self.disk, touched.unit))
            .collect::<Result<_>>()?;
        let zero: Vec<bool> = all.iter().map(|bytes| is_zero(bytes)).collect();
        let parts: Vec<&[u8]> = all
            .iter()
            .zip(&zero)
            .map(|(bytes, zero)| if *zero { &[][..] } else { bytes.as_slice() })
            .collect();
        let hashes = sha256_each(&parts);
        let mut out = Vec::with_capacity(units.len());
        for (((touched, bytes), zero), hash) in units.iter().zip(&all).zip(&zero).zip(hashes) {
            let index = touched.unit;
            let hash = if *zero { ZERO } else { hash };
            let same = (self.known)(index)? == hash;
            let unit = match (same, self.old) {
                (true, _) => None,
                (false, Some(old)) => {
                    let old = before(old, *touched, bytes, unit::range(index, len).start)?;
                    Some(Unit::new(index, hash, bytes, Some(&old))?)
                }
                (false, None) => Some(Unit::new(index, hash, bytes, None)?),
            };
            out.push((index, hash, unit));
        }
        Ok(out)
    }
}

/// What the target has of a unit. Blocks that cannot differ are taken from the new contents.
fn before(old: &Arc<dyn Disk>, touched: Touched, new: &[u8], start: u64) -> Result<Vec<u8>> {
    let mut bytes = new.to_vec();
    let blocks = bytes.chunks_mut(BLOCK).zip((start..).step_by(BLOCK));
    for (n, (block, at)) in blocks.enumerate() {
        if touched.has(n) {
            old.read_exact_at(block, at)?;
        }
    }
    Ok(bytes)
}

/// The hash that the digest is made of.
pub(super) fn full(index: u64, hash: Hash, len: u64) -> Hash {
    match hash {
        ZERO => zero_hash(unit::size(index, len) as u64),
        hash => hash,
    }
}

/// Notes units whose hash is another.
struct Changed<'a> {
    survey: &'a Survey<'a>,
    units: Mutex<Result<BTreeSet<u64>>>,
}

impl Progress for Changed<'_> {
    fn advance(&self, bytes: u64) {
        self.survey.progress.advance(bytes);
    }

    fn cancelled(&self) -> bool {
        self.survey.progress.cancelled()
    }

    fn hashed(&self, unit: u64, hash: Option<&Hash>) {
        let known = (self.survey.known)(unit);
        let mut units = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        match (known, &mut *units) {
            (Ok(known), Ok(units)) => {
                if known != hash.copied().unwrap_or(ZERO) {
                    units.insert(unit);
                }
            }
            (Err(e), Ok(_)) => *units = Err(e),
            (_, Err(_)) => {}
        }
    }
}
