//! Disks that fail: for tests of everything above.

use crate::{
    disk::{Disk, Run},
    error::{DiskError, Result},
};
use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Fails every operation after the first `n`, like a disk that dies.
#[derive(Debug)]
pub struct FailAfter {
    disk: Arc<dyn Disk>,
    left: AtomicU64,
}

impl FailAfter {
    /// The first `n` operations work.
    pub fn new(disk: Arc<dyn Disk>, n: u64) -> Self {
        Self {
            disk,
            left: AtomicU64::new(n),
        }
    }

    fn step(&self, offset: u64) -> Result<()> {
        let took = |left: u64| left.checked_sub(1);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, took)
            .map(|_| ())
            .map_err(|_| {
                let e = io::Error::from_raw_os_error(5);
                DiskError::io("reading", &e).offset(offset)
            })
    }
}

impl Disk for FailAfter {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }
    fn states_sector_size(&self) -> bool {
        self.disk.states_sector_size()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.step(offset)?;
        self.disk.read_exact_at(buf, offset)
    }
    fn run_at(&self, offset: u64) -> Result<Run> {
        self.step(offset)?;
        self.disk.run_at(offset)
    }
}

/// Fails reads that touch a range, like a bad sector.
#[derive(Debug)]
pub struct FailRange {
    disk: Arc<dyn Disk>,
    bad: Range<u64>,
}

impl FailRange {
    /// Reads that touch `bad` (bytes) fail.
    pub fn new(disk: Arc<dyn Disk>, bad: Range<u64>) -> Self {
        Self { disk, bad }
    }
}

impl Disk for FailRange {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }
    fn states_sector_size(&self) -> bool {
        self.disk.states_sector_size()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        if offset < self.bad.end && end > self.bad.start {
            let e = io::Error::from_raw_os_error(5);
            return Err(DiskError::io("reading", &e).offset(offset.max(self.bad.start)));
        }
        self.disk.read_exact_at(buf, offset)
    }
    fn run_at(&self, offset: u64) -> Result<Run> {
        self.disk.run_at(offset)
    }
}

/// Counts what is read: how a test shows that something costs nothing.
#[derive(Debug)]
pub struct Counting {
    disk: Arc<dyn Disk>,
    reads: AtomicU64,
    bytes: AtomicU64,
}

impl Counting {
    /// Counts reads of `disk`.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            reads: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// (calls, bytes) so far.
    pub fn so_far(&self) -> (u64, u64) {
        (
            self.reads.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }
}

impl Disk for Counting {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }
    fn states_sector_size(&self) -> bool {
        self.disk.states_sector_size()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.disk.read_exact_at(buf, offset)
    }
    fn run_at(&self, offset: u64) -> Result<Run> {
        self.disk.run_at(offset)
    }
}
