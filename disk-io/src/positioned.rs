//! The bridge to code that speaks `positioned-io`: every [`Disk`] goes out as its
//! `ReadAt` and `Size`, and with a cursor on top as `Read + Seek`.
//!
//! It is a bridge and not the contract because reads through it may be short and its
//! errors have no type.

use crate::disk::Disk;
use positioned_io::{ReadAt, Size, SizeCursor};
use std::{io, sync::Arc};

/// A disk for `positioned-io`.
#[derive(Clone, Debug)]
pub struct AsReadAt(pub Arc<dyn Disk>);

impl ReadAt for AsReadAt {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = self.0.len().saturating_sub(pos);
        let n = rest.min(buf.len() as u64) as usize;
        if let Some(buf) = buf.get_mut(..n) {
            self.0.read_exact_at(buf, pos)?;
        }
        Ok(n)
    }
}

impl Size for AsReadAt {
    fn size(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.0.len()))
    }
}

/// A `Read + Seek` view, for other people's readers (tests, second opinions) only.
pub fn cursor(disk: Arc<dyn Disk>) -> SizeCursor<AsReadAt> {
    SizeCursor::new(AsReadAt(disk))
}
