//! Bytes as they are, in a file or a device.

use super::ExtentMap;
use disk_io::{Disk, DiskError, FileIndex, Mapping, Place, Result};
use std::sync::Arc;

/// FLAT, VMFS, and devices.
#[derive(Debug)]
pub(crate) struct FlatExtent {
    pub(crate) file: Arc<dyn Disk>,
    pub(crate) name: String,
    pub(crate) index: FileIndex,
    /// Where the extent begins in the file, in bytes.
    pub(crate) offset: u64,
    /// Length of the extent in bytes.
    pub(crate) len: u64,
}

impl FlatExtent {
    /// Bytes of the extent that the file holds. Readers differ on a file that is too short
    /// (fact sheet, VMDK 13.3); here what is missing cannot be read.
    pub(crate) fn present(&self) -> u64 {
        self.file.len().saturating_sub(self.offset).min(self.len)
    }
}

impl ExtentMap for FlatExtent {
    fn map_range(&self, start: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()> {
        let here = self.present().saturating_sub(start).min(len);
        if here > 0 {
            emit(Mapping {
                len: here,
                place: Place::Stored {
                    file: self.index,
                    offset: self.offset.saturating_add(start),
                },
            });
        }
        if here < len {
            let e = DiskError::corrupt("reading a flat extent")
                .code("extent-cut-short")
                .file(&self.name)
                .offset(self.file.len())
                .expected(format!("{} bytes from {}", self.len, self.offset))
                .found(format!(
                    "a file of {} bytes: it is cut short",
                    self.file.len()
                ));
            emit(Mapping {
                len: len.saturating_sub(here),
                place: Place::Bad(e),
            });
        }
        Ok(())
    }

    fn file(&self) -> Option<&Arc<dyn Disk>> {
        Some(&self.file)
    }
}
