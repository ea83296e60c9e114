//! A file with the writes of its log on top, in memory.

use disk_io::{
    Disk, Result, Run, RunKind,
    disk::{check_range, check_run_offset},
};
use std::{collections::BTreeMap, sync::Arc};

/// What a log puts over a range.
#[derive(Clone, Debug)]
enum Piece {
    Bytes(Arc<[u8]>),
    Zeros,
}

/// Ranges that replace those of the file below. They never overlap.
#[derive(Debug)]
pub(super) struct Overlay {
    below: Arc<dyn Disk>,
    len: u64,
    /// Start to (end, where the piece begins, piece).
    pieces: BTreeMap<u64, (u64, u64, Piece)>,
}

impl Overlay {
    pub(super) fn new(below: Arc<dyn Disk>, len: u64) -> Self {
        Self {
            len: len.max(below.len()),
            below,
            pieces: BTreeMap::new(),
        }
    }

    /// Puts bytes at `at`, over whatever was there.
    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) {
        let end = at.saturating_add(bytes.len() as u64);
        self.insert(at, end, Piece::Bytes(bytes.into()));
    }

    /// Puts zeros.
    pub(super) fn zero(&mut self, at: u64, len: u64) {
        self.insert(at, at.saturating_add(len), Piece::Zeros);
    }

    fn insert(&mut self, at: u64, end: u64, piece: Piece) {
        if at >= end {
            return;
        }
        let from = self.pieces.range(..at).next_back().map_or(at, |(k, _)| *k);
        let hit: Vec<u64> = self.pieces.range(from..end).map(|(k, _)| *k).collect();
        for start in hit {
            let Some((old_end, origin, old)) = self.pieces.remove(&start) else {
                continue;
            };
            if start < at {
                let cut = old_end.min(at);
                self.pieces.insert(start, (cut, origin, old.clone()));
            }
            if old_end > end {
                self.pieces.insert(end.max(start), (old_end, origin, old));
            }
        }
        self.pieces.insert(at, (end, at, piece));
        self.len = self.len.max(end);
    }

    /// What covers `offset`, and how far that holds.
    fn at(&self, offset: u64) -> (Option<(u64, &Piece)>, u64) {
        let here = self.pieces.range(..=offset).next_back();
        if let Some((_, (end, origin, piece))) = here
            && *end > offset
        {
            return (Some((*origin, piece)), *end);
        }
        let after = self.pieces.range(offset.saturating_add(1)..).next();
        (None, after.map_or(self.len, |(k, _)| *k))
    }
}

impl Disk for Overlay {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.below.sector_size()
    }

    fn states_sector_size(&self) -> bool {
        self.below.states_sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len, offset, buf.len())?;
        let (mut rest, mut offset) = (buf, offset);
        while !rest.is_empty() {
            let (piece, end) = self.at(offset);
            let n = end.saturating_sub(offset).min(rest.len() as u64);
            let (now, later) = rest.split_at_mut(usize::try_from(n).unwrap_or(0));
            match piece {
                Some((origin, Piece::Bytes(bytes))) => {
                    let skip = usize::try_from(offset.saturating_sub(origin)).unwrap_or(usize::MAX);
                    let part = bytes.get(skip..).and_then(|b| b.get(..now.len()));
                    now.copy_from_slice(
                        part.ok_or_else(|| disk_io::DiskError::out_of_range(offset, n, self.len))?,
                    );
                }
                Some((_, Piece::Zeros)) => now.fill(0),
                None => {
                    // The log may have made the file longer.
                    let inside = self.below.len().saturating_sub(offset).min(n);
                    let (stored, beyond) = now.split_at_mut(usize::try_from(inside).unwrap_or(0));
                    if !stored.is_empty() {
                        self.below.read_exact_at(stored, offset)?;
                    }
                    beyond.fill(0);
                }
            }
            rest = later;
            offset = offset.saturating_add(n);
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len, offset)?;
        let (piece, end) = self.at(offset);
        let len = end.saturating_sub(offset);
        let kind = match piece {
            Some((_, Piece::Bytes(_))) => RunKind::Data,
            Some((_, Piece::Zeros)) => RunKind::Zero,
            None if offset >= self.below.len() => RunKind::Unallocated,
            None => {
                let run = self.below.run_at(offset)?;
                return Ok(Run {
                    len: run.len.min(len),
                    ..run
                });
            }
        };
        Ok(Run { len, kind })
    }

    fn will_read(&self, offset: u64, len: u64) {
        self.below.will_read(offset, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk_io::{MemDisk, conformance};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn like_writing_into_the_file(
            writes in prop::collection::vec((0u64..6000, 1u64..900, any::<Option<u8>>()), 0..20)
        ) {
            let below: Vec<u8> = (0..5000u32).map(|i| i as u8).collect();
            let mut model = below.clone();
            let mut overlay = Overlay::new(Arc::new(MemDisk::new(below)), 5500);
            model.resize(5500, 0);
            for (at, len, byte) in writes {
                let end = (at + len) as usize;
                model.resize(model.len().max(end), 0);
                model[at as usize..end].fill(byte.unwrap_or(0));
                match byte {
                    Some(b) => overlay.put(at, &vec![b; len as usize]),
                    None => overlay.zero(at, len),
                }
            }
            conformance::check(&overlay, &model);
        }
    }
}
