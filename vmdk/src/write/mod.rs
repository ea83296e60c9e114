//! Encoders: whole files in memory, of every kind of extent that is read here.
//!
//! No public samples of COWD and seSparse deltas with data exist, so these make them; tests
//! let qemu-img read what they write. They lay a file out in one go and are meant for small
//! disks; they work on the caller's own numbers and panic on none that fit into memory.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

pub mod cowd;
pub mod descriptor;
pub mod hosted;
pub mod sesparse;
pub mod stream;

use crate::SECTOR;

/// What a grain holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Bytes; fewer than a grain are filled up with zeros.
    Data(Vec<u8>),
    /// Zeros, whatever the parent has.
    Zero,
    /// Discarded by the guest (seSparse only; zeros elsewhere).
    Unmapped,
}

/// Grains by number, in the order in which they are stored in the file.
pub type Cells<'a> = &'a [(u64, Cell)];

/// A file that grows by whole sectors.
#[derive(Debug, Default)]
struct File(Vec<u8>);

impl File {
    /// The next free sector.
    fn sector(&self) -> u64 {
        self.0.len() as u64 / SECTOR
    }

    /// Appends `bytes`, filled up to `sectors`; where they begin.
    fn append(&mut self, bytes: &[u8], sectors: u64) -> u64 {
        let at = self.sector();
        self.0.extend_from_slice(bytes);
        self.0.resize(((at + sectors) * SECTOR) as usize, 0);
        at
    }

    /// Appends `bytes`, filled up to a sector; where they begin.
    fn push(&mut self, bytes: &[u8]) -> u64 {
        self.append(bytes, (bytes.len() as u64).div_ceil(SECTOR))
    }

    /// Fills up to a multiple of `sectors`.
    fn align(&mut self, sectors: u64) {
        let end = self.sector().next_multiple_of(sectors) * SECTOR;
        self.0.resize(end as usize, 0);
    }

    /// Overwrites at a sector.
    fn put(&mut self, sector: u64, bytes: &[u8]) {
        let at = (sector * SECTOR) as usize;
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

fn le32(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn le64(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Sector numbers of the 32-bit formats. What does not fit cannot be written in them.
fn small(sector: u64) -> u32 {
    u32::try_from(sector).unwrap_or(u32::MAX)
}
