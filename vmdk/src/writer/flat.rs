//! Flat extents, and the descriptor beside them.

use super::{Extent, saved};
use disk_io::{HostRange, OutFile, Result};

/// The bytes of the disk, as they are.
#[derive(Debug)]
pub(super) struct Flat<'f> {
    out: OutFile<'f>,
}

impl<'f> Flat<'f> {
    /// The file has its length from the beginning: one that the file system cannot hold
    /// fails before anything is written.
    pub(super) fn new(out: OutFile<'f>, len: u64) -> Result<Self> {
        out.set_len(len)?;
        Ok(Self { out })
    }
}

impl Extent for Flat<'_> {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.out.put(bytes, offset)
    }

    fn zero_at(&self, _offset: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    fn share(&self, from: &HostRange, offset: u64) -> Result<bool> {
        self.out.share(from, offset)
    }

    fn save(&self) -> Result<saved::Piece> {
        Ok(saved::Piece::Placed)
    }

    fn restore(&self, saved: &saved::Piece) -> Result<()> {
        match saved {
            saved::Piece::Placed => Ok(()),
            _ => Err(saved::other()),
        }
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// A descriptor in a file of its own. It holds no bytes of the disk.
#[derive(Debug)]
pub(super) struct Text<'f> {
    out: OutFile<'f>,
    text: String,
}

impl<'f> Text<'f> {
    pub(super) fn new(out: OutFile<'f>, text: String) -> Self {
        Self { out, text }
    }
}

impl Extent for Text<'_> {
    fn write_at(&self, _bytes: &[u8], _offset: u64) -> Result<()> {
        Ok(())
    }

    fn zero_at(&self, _offset: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    fn save(&self) -> Result<saved::Piece> {
        Ok(saved::Piece::Placed)
    }

    fn restore(&self, saved: &saved::Piece) -> Result<()> {
        match saved {
            saved::Piece::Placed => Ok(()),
            _ => Err(saved::other()),
        }
    }

    fn finish(&self) -> Result<()> {
        self.out.put(self.text.as_bytes(), 0)
    }
}
