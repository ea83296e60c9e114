//! exFAT.

use crate::{OpenOptions, volume::Recognised};
use disk_io::{Disk, DiskError, Result};
use std::sync::Arc;

pub(crate) fn recognise(_disk: &Arc<dyn Disk>) -> Result<Option<Recognised>> {
    Ok(None)
}
pub(crate) fn recognise_backup(_disk: &Arc<dyn Disk>) -> Result<Option<Recognised>> {
    Ok(None)
}
