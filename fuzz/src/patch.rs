//! What an input means: a sound image with some of its bytes changed. Bytes alone never get past
//! a checksum or a magic number; a few changes in the right places do.
//!
//! The first byte picks the image; then operations follow, each a byte that says which, four
//! bytes that say where, a byte of length, and for some the bytes. Where is counted among the
//! bytes that are not zeros: what is empty in a sound image is hardly ever looked at. Nothing is
//! copied: a large image costs no more than a small one.

use disk_io::{
    Disk, Result, Run, RunKind,
    disk::{check_range, check_run_offset},
};
use std::sync::Arc;

const PAGE: usize = 4096;
const BLOCK: usize = 64;
/// Operations of an input.
const OPS: usize = 64;

/// A sound image.
#[derive(Debug)]
pub struct Base {
    len: usize,
    /// Pages that are not all zeros.
    pages: Vec<Option<Box<[u8]>>>,
    /// Blocks that hold something.
    blocks: Vec<usize>,
}

impl Base {
    /// Of an image.
    pub fn new(disk: &dyn Disk) -> Self {
        let len = disk.len() as usize;
        let mut pages: Vec<Option<Box<[u8]>>> = vec![None; len.div_ceil(PAGE)];
        let mut blocks = Vec::new();
        let mut at = 0;
        while at < disk.len() {
            let run = disk.run_at(at).unwrap();
            let end = at + run.len;
            if run.kind == RunKind::Data {
                let (first, last) = (at as usize / PAGE, (end as usize).div_ceil(PAGE));
                let some = pages.iter_mut().enumerate().take(last).skip(first);
                for (n, kept) in some.filter(|(_, kept)| kept.is_none()) {
                    let mut page = vec![0; PAGE.min(len - n * PAGE)];
                    disk.read_exact_at(&mut page, (n * PAGE) as u64).unwrap();
                    if page.iter().all(|b| *b == 0) {
                        continue;
                    }
                    let some = page.chunks(BLOCK).enumerate();
                    let some = some.filter(|(_, b)| b.iter().any(|b| *b != 0));
                    blocks.extend(some.map(|(b, _)| n * (PAGE / BLOCK) + b));
                    *kept = Some(page.into_boxed_slice());
                }
            }
            at = end;
        }
        Self { len, pages, blocks }
    }

    fn place(&self, at: u32) -> usize {
        let among = (self.blocks.len() * BLOCK).max(1);
        let at = at as usize % among;
        let block = self.blocks.get(at / BLOCK).copied().unwrap_or(0);
        block * BLOCK + at % BLOCK
    }
}

/// An image with the operations done.
#[derive(Debug)]
pub struct Patched {
    base: &'static Base,
    len: usize,
    /// What was written, the newest last.
    changes: Vec<(usize, Vec<u8>)>,
}

impl Patched {
    /// As it is.
    pub fn sound(base: &'static Base) -> Self {
        Self {
            base,
            len: base.len,
            changes: Vec::new(),
        }
    }

    /// `n` bytes, as far as there are so many.
    fn get(&self, at: usize, n: usize) -> Vec<u8> {
        let n = n.min(self.len.saturating_sub(at));
        let mut bytes = vec![0; n];
        self.read(&mut bytes, at);
        bytes
    }

    fn read(&self, buf: &mut [u8], at: usize) {
        let end = at + buf.len();
        let mut from = at;
        while from < end {
            let stop = (from / PAGE + 1) * PAGE;
            let part = &mut buf[from - at..stop.min(end) - at];
            match self.base.pages.get(from / PAGE) {
                Some(Some(page)) => {
                    let page = &page[from % PAGE..];
                    let n = part.len().min(page.len());
                    part[..n].copy_from_slice(&page[..n]);
                }
                _ => part.fill(0),
            }
            from = stop;
        }
        for (start, bytes) in &self.changes {
            let (a, b) = ((*start).max(at), (start + bytes.len()).min(end));
            if a < b {
                buf[a - at..b - at].copy_from_slice(&bytes[a - start..b - start]);
            }
        }
    }

    fn put(&mut self, at: usize, mut bytes: Vec<u8>) {
        bytes.truncate(self.len.saturating_sub(at));
        self.changes.push((at, bytes));
    }

    fn patch(&mut self, mut ops: &[u8]) {
        while let [kind, a, b, c, d, len, rest @ ..] = ops {
            if self.len == 0 || self.changes.len() > OPS {
                break;
            }
            let at = self.base.place(u32::from_le_bytes([*a, *b, *c, *d]));
            let n = usize::from(*len);
            ops = rest;
            match kind % 6 {
                // Bytes of the input.
                0 | 1 => {
                    let n = n.min(rest.len());
                    self.put(at, rest[..n].to_vec());
                    ops = &rest[n..];
                }
                // One value.
                2 => {
                    let Some((value, more)) = rest.split_first() else {
                        break;
                    };
                    self.put(at, vec![*value; n]);
                    ops = more;
                }
                // A number becomes a little larger or smaller.
                3 => {
                    if let Ok(word) = <[u8; 4]>::try_from(self.get(at, 4)) {
                        let step = i32::from(*kind as i8).wrapping_mul(n as i32);
                        let new = u32::from_le_bytes(word).wrapping_add_signed(step);
                        self.put(at, new.to_le_bytes().to_vec());
                    }
                }
                // Something of elsewhere.
                4 => {
                    let [e, f, g, h, more @ ..] = rest else { break };
                    let from = self.base.place(u32::from_le_bytes([*e, *f, *g, *h]));
                    let bytes = self.get(from, n);
                    self.put(at, bytes);
                    ops = more;
                }
                // The end is gone.
                _ => self.len = self.len.min(at),
            }
        }
    }
}

impl Disk for Patched {
    fn len(&self) -> u64 {
        self.len as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len(), offset, buf.len())?;
        self.read(buf, offset as usize);
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len(), offset)?;
        Ok(Run {
            len: self.len() - offset,
            kind: RunKind::Data,
        })
    }
}

/// The image that an input picks, changed as it says.
pub fn apply(bases: &'static [Base], input: &[u8]) -> Arc<dyn Disk> {
    let (pick, ops) = input.split_first().unwrap_or((&0, &[]));
    let mut patched = Patched::sound(&bases[usize::from(*pick) % bases.len()]);
    patched.patch(ops);
    Arc::new(patched)
}
