//! A raw disk: the file's bytes are the disk's.

use crate::map::in_file;
use disk_io::{BlockMap, Disk, FileIndex, Mapping, Opened, Place, Result};
use std::{path::PathBuf, sync::Arc};

/// A file as a layer.
#[derive(Debug)]
pub(crate) struct RawMap {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl RawMap {
    pub(crate) fn new(source: &Opened) -> Self {
        Self {
            disk: source.disk.clone(),
            path: source.path.clone(),
        }
    }
}

impl BlockMap for RawMap {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }

    fn states_sector_size(&self) -> bool {
        self.disk.states_sector_size()
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn map_range(&self, start: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()> {
        let place = Place::Stored {
            file: FileIndex(0),
            offset: start,
        };
        emit(Mapping { len, place });
        Ok(())
    }

    fn file(&self, index: FileIndex) -> Result<Arc<dyn Disk>> {
        in_file(index, &[&self.disk], &self.path)
    }

    fn file_name(&self, _: FileIndex) -> String {
        self.name()
    }
}
