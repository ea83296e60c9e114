//! Disks in memory: small ones whole, huge ones as a list of pieces. Mostly for tests.

use crate::{
    disk::{Disk, Run, RunKind, check_range, check_run_offset},
    error::Result,
    zero::is_zero,
};
use std::collections::BTreeMap;

/// A disk that is one vector. Aligned 512-byte sectors of zeros count as unallocated when
/// made by [`MemDisk::sparse`], as data otherwise.
#[derive(Clone, Debug)]
pub struct MemDisk {
    bytes: Vec<u8>,
    sparse: bool,
    sector_size: u32,
}

impl MemDisk {
    /// All of it is data.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            bytes: bytes.into(),
            sparse: false,
            sector_size: 512,
        }
    }

    /// Zero sectors are reported as unallocated.
    pub fn sparse(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            sparse: true,
            ..Self::new(bytes)
        }
    }

    /// The same disk with another logical sector size.
    pub fn with_sector_size(mut self, sector_size: u32) -> Self {
        self.sector_size = sector_size;
        self
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Disk for MemDisk {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len(), offset, buf.len())?;
        let start = offset as usize;
        buf.copy_from_slice(&self.bytes[start..start + buf.len()]);
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len(), offset)?;
        let rest = &self.bytes[offset as usize..];
        if !self.sparse {
            return Ok(Run {
                len: rest.len() as u64,
                kind: RunKind::Data,
            });
        }
        // The first piece may begin inside a sector; all others are whole sectors.
        let first = (512 - offset as usize % 512).min(rest.len());
        let zero = is_zero(&rest[..first]);
        let more: usize = rest[first..]
            .chunks(512)
            .take_while(|s| is_zero(s) == zero)
            .map(<[u8]>::len)
            .sum();
        Ok(Run {
            len: (first + more) as u64,
            kind: if zero {
                RunKind::Unallocated
            } else {
                RunKind::Data
            },
        })
    }
}

/// A disk of any length that holds a few pieces; the rest is unallocated.
#[derive(Clone, Debug, Default)]
pub struct SparseMemDisk {
    len: u64,
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl SparseMemDisk {
    /// An empty disk of `len` bytes.
    pub fn new(len: u64) -> Self {
        Self {
            len,
            pieces: BTreeMap::new(),
        }
    }

    /// Puts `bytes` at `offset`, over whatever was there; the disk grows if needed.
    pub fn put(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        self.len = self.len.max(end);
        // Keep pieces disjoint: cut what the new one covers.
        let from = self
            .pieces
            .range(..offset)
            .next_back()
            .map_or(offset, |(at, _)| *at);
        let hit: Vec<u64> = self.pieces.range(from..end).map(|(at, _)| *at).collect();
        for at in hit {
            let Some(old) = self.pieces.remove(&at) else {
                continue;
            };
            let old_end = at + old.len() as u64;
            if at < offset {
                let keep = (offset - at).min(old.len() as u64) as usize;
                self.pieces.insert(at, old[..keep].to_vec());
            }
            if old_end > end {
                self.pieces
                    .insert(end.max(at), old[(end.max(at) - at) as usize..].to_vec());
            }
        }
        if !bytes.is_empty() {
            self.pieces.insert(offset, bytes.to_vec());
        }
    }

    /// The piece that holds `offset`, or where the next one begins.
    fn piece(&self, offset: u64) -> (Option<(u64, &[u8])>, u64) {
        let here = self
            .pieces
            .range(..=offset)
            .next_back()
            .filter(|(at, p)| **at + p.len() as u64 > offset)
            .map(|(at, p)| (*at, p.as_slice()));
        let next = self
            .pieces
            .range(offset..)
            .find(|(at, _)| **at > offset)
            .map_or(self.len, |(at, _)| *at);
        (here, next)
    }
}

impl Disk for SparseMemDisk {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
        check_range(self.len, offset, buf.len())?;
        while !buf.is_empty() {
            let (here, next) = self.piece(offset);
            let n;
            match here {
                Some((at, piece)) => {
                    let from = &piece[(offset - at) as usize..];
                    n = from.len().min(buf.len());
                    buf[..n].copy_from_slice(&from[..n]);
                }
                None => {
                    n = (next - offset).min(buf.len() as u64) as usize;
                    buf[..n].fill(0);
                }
            }
            buf = &mut buf[n..];
            offset += n as u64;
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len, offset)?;
        let (here, next) = self.piece(offset);
        Ok(match here {
            Some((at, piece)) => Run {
                len: at + piece.len() as u64 - offset,
                kind: RunKind::Data,
            },
            None => Run {
                len: next - offset,
                kind: RunKind::Unallocated,
            },
        })
    }
}
