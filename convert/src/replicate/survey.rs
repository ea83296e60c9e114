//! What of a disk a target does not have yet.

use super::unit::{self, Packer, Unit, ZERO};
use crate::{
    digest::{Digest, DigestKind, Hash, UNIT, UnitFold, sha256_each, zero_hash},
    in_order::in_order,
    pipeline::{self, CopyOptions, Sparse, cancelled},
    progress::Progress,
    target::Discard,
    touched::{BLOCK, Touched, batches, touched},
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
        in_order(
            &batches(&units, workers),
            workers,
            &|batch, scratch| match self.progress.cancelled() {
                true => Err(cancelled()),
                false => self.look(batch, scratch),
            },
            &mut |looked: Vec<Looked>| {
                for (index, hash, changed) in looked {
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
                Ok(())
            },
        )?;
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

    fn look(&self, units: &[Touched], scratch: &mut Scratch) -> Result<Vec<Looked>> {
        let len = self.disk.len();
        let Scratch { new, old, packer } = scratch;
        new.resize_with(units.len().max(new.len()), Vec::new);
        let mut parts: Vec<&[u8]> = Vec::with_capacity(units.len());
        for (touched, bytes) in units.iter().zip(new) {
            bytes.resize(unit::size(touched.unit, len), 0);
            self.disk
                .read_exact_at(bytes, unit::range(touched.unit, len).start)?;
            // Zeros have no hash of their own.
            parts.push(if is_zero(bytes) { &[] } else { bytes });
        }
        let hashes = sha256_each(&parts);
        let mut out = Vec::with_capacity(units.len());
        for ((touched, bytes), hash) in units.iter().zip(parts).zip(hashes) {
            let index = touched.unit;
            let hash = if bytes.is_empty() { ZERO } else { hash };
            let changed = match (hash == (self.known)(index)?, hash == ZERO) {
                (true, _) => None,
                (false, true) => Some(Unit::zero(index)),
                (false, false) => {
                    let blocks = match self.old {
                        Some(disk) => differing(disk, *touched, bytes, len, old)?,
                        None => unit::blocks(bytes.len()),
                    };
                    Some(packer.pack(index, hash, bytes, blocks)?)
                }
            };
            out.push((index, hash, changed));
        }
        Ok(out)
    }
}

/// A unit, its hash, and what of it differs if anything does.
type Looked = (u64, Hash, Option<Unit>);

/// What a worker uses again: memory that is new to a process costs as much as reading into it.
#[derive(Default)]
struct Scratch {
    new: Vec<Vec<u8>>,
    old: Vec<u8>,
    packer: Packer,
}

/// The blocks of a unit that the target's disk has otherwise, of those that can differ; no
/// others are read.
fn differing(
    disk: &Arc<dyn Disk>,
    touched: Touched,
    new: &[u8],
    len: u64,
    old: &mut Vec<u8>,
) -> Result<u32> {
    let start = unit::range(touched.unit, len).start;
    let mut blocks = 0;
    for (n, (new, at)) in new.chunks(BLOCK).zip((start..).step_by(BLOCK)).enumerate() {
        if touched.has(n) {
            old.resize(new.len(), 0);
            disk.read_exact_at(old, at)?;
            blocks |= u32::from(new != old.as_slice()) << n;
        }
    }
    Ok(blocks)
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
