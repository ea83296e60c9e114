//! A file of a datastore as a disk.

use crate::{
    blocks::{BlockList, Extent, Place, copy_resident},
    core::Core,
    descriptor::Stat,
};
use disk_io::{
    Disk, DiskError, Result, Run, RunKind,
    disk::{check_range, check_run_offset},
};
use std::sync::Arc;

/// How far one run of data reaches at most; holes may reach further.
const RUN: u64 = 1 << 30;

/// An open file. Reads go to the volume in pieces as long as the file lies contiguously;
/// holes cost nothing, however long.
#[derive(Debug)]
pub struct File {
    pub(crate) core: Arc<Core>,
    pub(crate) blocks: BlockList,
    pub(crate) stat: Stat,
    pub(crate) name: String,
}

impl File {
    /// What is known of it besides its contents.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Where the byte at `offset` lies, and how much of the file from there on lies
    /// contiguously with it.
    pub fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_run_offset(self.blocks.len, offset)?;
        Ok(self.core.extent(&self.blocks, offset, u64::MAX))
    }

    fn named(&self, e: DiskError) -> DiskError {
        e.file(&self.name)
    }
}

impl Disk for File {
    fn len(&self) -> u64 {
        self.blocks.len
    }

    fn states_sector_size(&self) -> bool {
        false
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.blocks.len, offset, buf.len())?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let extent = self.core.extent(&self.blocks, at, rest.len() as u64);
            let n = usize::try_from(extent.len)
                .unwrap_or(usize::MAX)
                .min(rest.len());
            let (now, later) = rest.split_at_mut(n);
            match extent.place {
                Place::Stored(place) => self
                    .core
                    .disk
                    .read_exact_at(now, place)
                    .map_err(|e| self.named(e))?,
                Place::Resident(from) => copy_resident(&self.blocks, now, from)?,
                Place::Hole | Place::Zero => now.fill(0),
                Place::Bad(e) => return Err(self.named(e)),
            }
            rest = later;
            at = at.saturating_add(n as u64);
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.blocks.len, offset)?;
        let first = self.core.extent(&self.blocks, offset, RUN);
        Ok(match first.place {
            Place::Hole => {
                let whole = self.core.extent(&self.blocks, offset, u64::MAX);
                Run {
                    len: whole.len,
                    kind: RunKind::Unallocated,
                }
            }
            Place::Zero => Run {
                len: first.len,
                kind: RunKind::Zero,
            },
            // What a sparse image of the volume has no bytes for is zero too.
            Place::Stored(place) => match self.core.disk.run_at(place) {
                Ok(run) => Run {
                    len: run.len.min(first.len),
                    kind: match run.kind {
                        RunKind::Data => RunKind::Data,
                        _ => RunKind::Zero,
                    },
                },
                Err(_) => Run {
                    len: first.len,
                    kind: RunKind::Data,
                },
            },
            Place::Resident(_) | Place::Bad(_) => Run {
                len: first.len,
                kind: RunKind::Data,
            },
        })
    }

    fn will_read(&self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.blocks.len);
        let mut at = offset;
        while at < end {
            let extent = self.core.extent(&self.blocks, at, end.saturating_sub(at));
            if let Place::Stored(place) = extent.place {
                self.core.disk.will_read(place, extent.len);
            }
            at = at.saturating_add(extent.len.max(1));
        }
    }
}
