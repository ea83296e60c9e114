//! A range of another disk: a partition, an extent at an offset, a member of an archive.

use crate::{
    disk::{Disk, HostRange, Run, check_range, check_run_offset},
    error::{DiskError, Result},
};
use std::sync::Arc;

/// `len` bytes of `disk` from `start`.
#[derive(Clone, Debug)]
pub struct Slice {
    disk: Arc<dyn Disk>,
    start: u64,
    len: u64,
}

impl Slice {
    /// Cuts the slice; it must lie inside `disk`.
    pub fn new(disk: Arc<dyn Disk>, start: u64, len: u64) -> Result<Self> {
        match start.checked_add(len) {
            Some(end) if end <= disk.len() => Ok(Self { disk, start, len }),
            _ => Err(DiskError::out_of_range(start, len, disk.len())),
        }
    }

    /// Where the slice begins in the disk below, in bytes.
    pub fn start(&self) -> u64 {
        self.start
    }
}

impl Disk for Slice {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }

    fn states_sector_size(&self) -> bool {
        self.disk.states_sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len, offset, buf.len())?;
        self.disk.read_exact_at(buf, self.start + offset)
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len, offset)?;
        let run = self.disk.run_at(self.start + offset)?;
        Ok(Run {
            len: run.len.min(self.len - offset),
            ..run
        })
    }

    fn host_range(&self, offset: u64) -> Option<HostRange> {
        let left = self.len.checked_sub(offset).filter(|n| *n > 0)?;
        let mut range = self.disk.host_range(self.start + offset)?;
        range.len = range.len.min(left);
        Some(range)
    }

    fn will_read(&self, offset: u64, len: u64) {
        if offset < self.len {
            self.disk
                .will_read(self.start + offset, len.min(self.len - offset));
        }
    }
}
