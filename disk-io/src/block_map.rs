//! What an image format implements: formats map, one loop reads.
//!
//! A format answers "where do the bytes of this range live", and nothing else. Bounds, zero
//! fill, parents, caching of decoded units and of the answers are [`crate::Layered`]'s.

use crate::{
    disk::Disk,
    error::{DiskError, Result},
};
use std::{fmt::Debug, ops::Range, sync::Arc};

/// Which of a map's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileIndex(pub u32);

/// Names something that must be decoded as a whole (a compressed grain or cluster); its
/// meaning is the format's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitId(pub u64);

/// Where bytes live.
#[derive(Clone, Debug)]
pub enum Place {
    /// As they are, in one of the map's files, from `offset` (bytes) on.
    Stored {
        /// In which file.
        file: FileIndex,
        /// Where the range begins in it, in bytes.
        offset: u64,
    },
    /// They are zeros because this layer says so.
    Zero,
    /// This layer does not have them: the parent's, or unallocated if there is none.
    Below,
    /// Inside a unit that has to be decoded, from `skip` bytes into it.
    Encoded {
        /// Which unit.
        unit: UnitId,
        /// Decoded length of the whole unit in bytes.
        unit_len: u32,
        /// Where the range begins in the decoded unit.
        skip: u32,
    },
    /// They cannot be read, and this is why. Reads fail; they are never zeros.
    Bad(DiskError),
}

/// A range and where it lives.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// Length in bytes, at least 1.
    pub len: u64,
    /// Where.
    pub place: Place,
}

/// One layer of a disk: one VMDK link, one qcow2 file, one VHD.
pub trait BlockMap: Send + Sync + Debug {
    /// Length of the disk in bytes.
    fn len(&self) -> u64;

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Logical sector size in bytes.
    fn sector_size(&self) -> u32 {
        512
    }

    /// Whether the format says so ([`Disk::states_sector_size`]).
    fn states_sector_size(&self) -> bool {
        true
    }

    /// What the layer is called (its file), for messages and `map`.
    fn name(&self) -> String;

    /// Emits mappings that cover `start..start + len` (inside the disk), in order, without
    /// gaps. An error means that nothing can be said of the whole range; where only a part
    /// is unreadable the map emits [`Place::Bad`] for that part and goes on.
    ///
    /// The caller remembers the answer per window of some 32 MiB, so a format reads its
    /// tables here, in as few reads as it can, and keeps little of them.
    fn map_range(&self, start: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()>;

    /// Ranges of its files that its own headers and tables take: no stored byte may be in one.
    /// Not every format tells, and what cannot be where the tables say is left out.
    ///
    /// # Errors
    /// If tables that lead to others cannot be read.
    fn tables(&self, emit: &mut dyn FnMut(FileIndex, Range<u64>)) -> Result<()> {
        let _ = emit;
        Ok(())
    }

    /// The file that [`Place::Stored`] speaks of.
    fn file(&self, index: FileIndex) -> Result<Arc<dyn Disk>>;

    /// That file's name, for `map`.
    fn file_name(&self, index: FileIndex) -> String;

    /// Decodes a unit into `out`, whose length is the `unit_len` that the map gave.
    fn decode(&self, unit: UnitId, out: &mut [u8]) -> Result<()> {
        let _ = out;
        Err(DiskError::unsupported("decoding")
            .file(self.name())
            .found(format!("unit {}", unit.0)))
    }

    /// Where an encoded unit is stored, for `map` and for reading in physical order:
    /// (file, offset in bytes).
    fn unit_place(&self, unit: UnitId) -> Option<(FileIndex, u64)> {
        let _ = unit;
        None
    }
}
