//! The contract that every layer reads through.

use crate::error::{DiskError, Result};
use std::{fmt::Debug, fs::File, sync::Arc};

/// What a range of a disk is made of. It never says *damaged*: a missing, NOACCESS or
/// damaged range is [`RunKind::Data`] whose read fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunKind {
    /// Stored bytes, which may still all be zero.
    Data,
    /// The image says that these bytes are zero.
    Zero,
    /// Nothing stores these bytes, in any layer; they read as zero.
    Unallocated,
}

impl RunKind {
    /// Whether the run reads as zeros without looking.
    pub fn reads_as_zero(self) -> bool {
        self != Self::Data
    }
}

/// A range of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Length in bytes, at least 1. The next run may be of the same kind.
    pub len: u64,
    /// What it is made of.
    pub kind: RunKind,
}

/// Bytes of a disk that a file of the host stores as they are, one after the other.
#[derive(Clone, Debug)]
pub struct HostRange {
    /// The file, open for reading.
    pub file: Arc<File>,
    /// Where they begin in it, in bytes.
    pub offset: u64,
    /// How many.
    pub len: u64,
}

/// A readable array of bytes of fixed length: a file, an image's contents, a partition, a
/// guest's file.
///
/// Rules, tested by [`crate::conformance`]:
/// * a read is exact or an error; there are no short reads and no panics, for any offset;
/// * a read or `run_at` outside `0..len` is [`crate::ErrorKind::OutOfRange`]; an empty read
///   at any offset up to `len` succeeds;
/// * `run_at(o)` covers at least one byte and never reaches past `len`;
/// * a run that is not [`RunKind::Data`] reads as zeros;
/// * concurrent reads do not wait for each other's input and output;
/// * the bytes never change while the disk is open.
pub trait Disk: Send + Sync + Debug {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Logical sector size in bytes, where the format records one: 512 or 4096.
    fn sector_size(&self) -> u32 {
        512
    }

    /// Whether [`Disk::sector_size`] is said by something: a device, or a format that records it
    /// or has one size only. A plain file says nothing, and 512 is a guess.
    fn states_sector_size(&self) -> bool {
        true
    }

    /// Fills `buf` from `offset` (bytes).
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// The run that holds the byte at `offset`, counted from `offset` on.
    fn run_at(&self, offset: u64) -> Result<Run>;

    /// For the kernel's sake only: these bytes will be read soon.
    fn will_read(&self, _offset: u64, _len: u64) {}

    /// Where a file of the host stores the bytes from `offset` on, if one does: a file system
    /// that shares blocks between files can then copy them without writing any.
    fn host_range(&self, _offset: u64) -> Option<HostRange> {
        None
    }
}

/// Checks a range against a disk's length: the first line of every `read_exact_at`.
pub fn check_range(len: u64, offset: u64, count: usize) -> Result<()> {
    match offset.checked_add(count as u64) {
        Some(end) if end <= len => Ok(()),
        _ => Err(DiskError::out_of_range(offset, count as u64, len)),
    }
}

/// Checks an offset for `run_at`.
pub fn check_run_offset(len: u64, offset: u64) -> Result<()> {
    if offset < len {
        Ok(())
    } else {
        Err(DiskError::out_of_range(offset, 1, len))
    }
}

macro_rules! forward {
    ($($ty:ty),*) => {$(
        impl<T: Disk + ?Sized> Disk for $ty {
            fn len(&self) -> u64 { (**self).len() }
            fn sector_size(&self) -> u32 { (**self).sector_size() }
            fn states_sector_size(&self) -> bool { (**self).states_sector_size() }
            fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
                (**self).read_exact_at(buf, offset)
            }
            fn run_at(&self, offset: u64) -> Result<Run> { (**self).run_at(offset) }
            fn will_read(&self, offset: u64, len: u64) { (**self).will_read(offset, len) }
            fn host_range(&self, offset: u64) -> Option<HostRange> { (**self).host_range(offset) }
        }
    )*};
}
forward!(Arc<T>, &T, Box<T>);
