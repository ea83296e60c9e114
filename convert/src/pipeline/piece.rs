//! One piece: read, looked through for zeros, written.

use super::{Job, Sparse};
use crate::digest::DigestKind;
use disk_io::{DiskError, Result, zero::is_zero};
use std::sync::atomic::Ordering;

/// Zeros inside data are looked for in aligned blocks of so many bytes: what file systems
/// can leave out.
const BLOCK: usize = 4096;

/// What a worker reuses from piece to piece.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) buffer: Vec<u8>,
    /// Buffers of pieces that were hashed.
    pub(super) spare: Vec<Vec<u8>>,
    /// Ranges of the buffer that hold data, as (start, end).
    data: Vec<(usize, usize)>,
    /// The same without zero blocks.
    kept: Vec<(usize, usize)>,
}

impl Job<'_> {
    /// Reads one piece and, where order does not matter, writes it; says whether it is all
    /// zeros. If it is not and something needs the bytes, the buffer holds all of them.
    pub(super) fn piece(&self, start: u64, len: u64, scratch: &mut Scratch) -> Result<bool> {
        let size = len as usize;
        self.read(start, size, scratch)?;
        let Scratch {
            buffer, data, kept, ..
        } = scratch;
        kept.clear();
        if self.options.sparse == Sparse::Always {
            for (from, to) in data.iter().copied() {
                keep_nonzero(buffer, from, to, BLOCK.min(self.target.block()), kept);
            }
        } else {
            kept.extend_from_slice(data);
        }
        let block = self.target.block();
        let in_order = self.target.in_order();
        if kept.is_empty() && (self.options.sparse != Sparse::Never || in_order) {
            if !in_order {
                self.target.zero_at(start, len)?;
            }
            return Ok(true);
        }
        let hash_wanted = self.options.digest == DigestKind::Vmdkit;
        let grows = block > BLOCK && self.options.sparse != Sparse::Never;
        if self.ordered || hash_wanted || grows || self.options.sparse == Sparse::Never {
            fill_gaps(buffer, data, size);
        }
        if grows {
            to_blocks(kept, block, size);
        }
        if in_order {
            self.written.fetch_add(len, Ordering::Relaxed);
            return Ok(false);
        }
        if self.options.sparse == Sparse::Never {
            kept.clear();
            kept.push((0, size));
        }
        let all = buffer.get(..size).unwrap_or_default();
        let mut at = 0;
        for (from, to) in kept.iter().copied() {
            if from > at {
                self.target.zero_at(start + at as u64, (from - at) as u64)?;
            }
            if !self.share(start + from as u64, start + to as u64)? {
                self.target
                    .write_at(all.get(from..to).unwrap_or_default(), start + from as u64)?;
            }
            self.written
                .fetch_add((to - from) as u64, Ordering::Relaxed);
            at = to;
        }
        if at < size {
            self.target.zero_at(start + at as u64, (size - at) as u64)?;
        }
        Ok(false)
    }

    /// Has the target share the blocks of a range with the files that store it; whether all of
    /// it was.
    fn share(&self, from: u64, to: u64) -> Result<bool> {
        let mut at = from;
        while at < to {
            let Some(mut range) = self.disk.host_range(at) else {
                return Ok(false);
            };
            range.len = range.len.min(to - at);
            if range.len == 0 || !self.target.share(&range, at)? {
                return Ok(false);
            }
            at += range.len;
        }
        Ok(true)
    }

    /// Reads the data of a piece into the buffer; what is zero stays as it was there.
    fn read(&self, start: u64, size: usize, scratch: &mut Scratch) -> Result<()> {
        let Scratch {
            buffer,
            spare,
            data,
            ..
        } = scratch;
        if buffer.len() < size {
            if buffer.capacity() == 0
                && let Some(used) = spare.pop().or_else(|| self.line.spare())
            {
                *buffer = used;
            }
            buffer.resize(size, 0);
        }
        data.clear();
        let mut at = 0usize;
        while at < size {
            let offset = start + at as u64;
            let run = self
                .disk
                .run_at(offset)
                .map_err(|e| self.context(e, offset))?;
            let n = run.len.min((size - at) as u64) as usize;
            if n == 0 {
                return Err(DiskError::corrupt("copying")
                    .offset(offset)
                    .found("an empty run"));
            }
            if !run.kind.reads_as_zero() {
                let to = buffer.get_mut(at..at + n).unwrap_or_default();
                self.disk
                    .read_exact_at(to, offset)
                    .map_err(|e| self.context(e, offset))?;
                match data.last_mut() {
                    Some(last) if last.1 == at => last.1 = at + n,
                    _ => data.push((at, at + n)),
                }
            }
            at += n;
        }
        Ok(())
    }

    fn context(&self, e: DiskError, offset: u64) -> DiskError {
        e.context(format!("copying byte {offset} of {}", self.len))
    }
}

/// Adds the parts of `from..to` that are not zero, in whole blocks, to `kept`.
fn keep_nonzero(
    buffer: &[u8],
    from: usize,
    to: usize,
    block_len: usize,
    kept: &mut Vec<(usize, usize)>,
) {
    let mut at = from;
    while at < to {
        let end = (at - at % block_len + block_len).min(to);
        let block = buffer.get(at..end).unwrap_or_default();
        if !is_zero(block) {
            match kept.last_mut() {
                Some(last) if last.1 == at => last.1 = end,
                _ => kept.push((at, end)),
            }
        }
        at = end;
    }
}

/// Grows ranges to whole blocks of a piece of `size` bytes.
fn to_blocks(kept: &mut Vec<(usize, usize)>, block: usize, size: usize) {
    let mut grown: Vec<(usize, usize)> = Vec::with_capacity(kept.len());
    for (from, to) in kept.drain(..) {
        let from = from - from % block;
        let to = to.next_multiple_of(block).min(size);
        match grown.last_mut() {
            Some(last) if last.1 >= from => last.1 = last.1.max(to),
            _ => grown.push((from, to)),
        }
    }
    *kept = grown;
}

fn fill_gaps(buffer: &mut [u8], data: &[(usize, usize)], size: usize) {
    let mut at = 0;
    for (from, to) in data.iter().copied().chain([(size, size)]) {
        if let Some(gap) = buffer.get_mut(at..from) {
            gap.fill(0);
        }
        at = to;
    }
}
