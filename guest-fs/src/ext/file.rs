//! A file's contents as a disk.

use super::{layout::BlockNumber, mapping::BlockRun, superblock::Superblock};
use crate::Extent;
use disk_io::{
    Disk, DiskError, Result, Run, RunKind,
    disk::{check_range, check_run_offset},
};
use std::sync::Arc;

/// The blocks of a file, cut to its size.
#[derive(Debug)]
pub(super) struct FileDisk {
    pub(super) volume: Arc<dyn Disk>,
    pub(super) runs: Vec<BlockRun>,
    pub(super) size: u64,
    pub(super) block_size: u64,
    pub(super) name: String,
}

/// A range of the file: bytes left in it, and where it is stored.
struct Piece {
    len: u64,
    at: Option<u64>,
    kind: RunKind,
}

impl FileDisk {
    pub(super) fn new(
        volume: Arc<dyn Disk>,
        sb: &Superblock,
        runs: Vec<BlockRun>,
        size: u64,
        name: String,
    ) -> Self {
        Self {
            volume,
            runs,
            size,
            block_size: sb.block_size.into(),
            name,
        }
    }

    fn piece(&self, offset: u64) -> Piece {
        let block = offset.checked_div(self.block_size).unwrap_or(0);
        let inside = offset.checked_rem(self.block_size).unwrap_or(0);
        let index = self.runs.partition_point(|r| r.first.0 <= block);
        let bytes = |blocks: u64| blocks.saturating_mul(self.block_size);
        let here = index
            .checked_sub(1)
            .and_then(|i| self.runs.get(i))
            .filter(|r| block < r.first.0.saturating_add(r.len));
        let rest = self.size.saturating_sub(offset);
        match here {
            Some(run) => {
                let skip = bytes(block.saturating_sub(run.first.0)).saturating_add(inside);
                Piece {
                    len: bytes(run.len).saturating_sub(skip).min(rest),
                    at: run.at.map(|BlockNumber(b)| bytes(b).saturating_add(skip)),
                    kind: if run.at.is_some() {
                        RunKind::Data
                    } else {
                        RunKind::Zero
                    },
                }
            }
            None => {
                let next = self.runs.get(index).map_or(u64::MAX, |r| bytes(r.first.0));
                Piece {
                    len: next.saturating_sub(offset).min(rest),
                    at: None,
                    kind: RunKind::Unallocated,
                }
            }
        }
    }

    /// Where the contents lie.
    pub(super) fn extents(&self) -> Vec<Extent> {
        let mut out = Vec::new();
        let mut offset = 0;
        while offset < self.size {
            let piece = self.piece(offset);
            out.push(Extent {
                offset,
                len: piece.len,
                place: piece.at,
            });
            offset = offset.saturating_add(piece.len.max(1));
        }
        out
    }
}

impl Disk for FileDisk {
    fn len(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let named = |e: DiskError| e.file(&self.name);
        check_range(self.size, offset, buf.len()).map_err(named)?;
        let (mut rest, mut offset) = (buf, offset);
        while !rest.is_empty() {
            let piece = self.piece(offset);
            let n = usize::try_from(piece.len)
                .unwrap_or(usize::MAX)
                .clamp(1, rest.len());
            let (now, later) = rest.split_at_mut(n);
            match piece.at {
                Some(at) => self.volume.read_exact_at(now, at).map_err(named)?,
                None => now.fill(0),
            }
            rest = later;
            offset = offset.saturating_add(n as u64);
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.size, offset).map_err(|e| e.file(&self.name))?;
        let piece = self.piece(offset);
        Ok(Run {
            len: piece.len.max(1),
            kind: piece.kind,
        })
    }

    fn will_read(&self, offset: u64, len: u64) {
        if offset < self.size
            && let Piece {
                len: here,
                at: Some(at),
                ..
            } = self.piece(offset)
        {
            self.volume.will_read(at, len.min(here));
        }
    }
}
