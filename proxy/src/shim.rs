//! Stand-ins for what `guest-fs` is about to bring.
#![allow(missing_docs)]

use disk_io::{Disk, DiskError, Result};
use guest_fs::{FileSystem, FsKind, Name, OpenOptions};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    None,
    Mbr,
    Gpt,
    HybridGpt,
}

#[derive(Clone, Debug)]
pub struct Partition {
    pub number: u32,
    pub start: u64,
    pub len: u64,
    pub type_id: String,
    pub type_name: String,
    pub name: Option<String>,
    pub uuid: Option<String>,
    pub active: bool,
}

#[derive(Clone, Debug)]
pub struct Table {
    pub scheme: Scheme,
    pub sector_size: u32,
    pub partitions: Vec<Partition>,
    pub remarks: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Recognised {
    pub kind: FsKind,
    pub label: Option<Name>,
    pub uuid: Option<String>,
    pub size: u64,
    pub readable: bool,
}

pub(crate) fn read_table(disk: &Arc<dyn Disk>) -> Result<Table> {
    Ok(Table {
        scheme: Scheme::None,
        sector_size: disk.sector_size(),
        partitions: Vec::new(),
        remarks: Vec::new(),
    })
}

pub(crate) fn recognise(_disk: &Arc<dyn Disk>) -> Result<Option<Recognised>> {
    Ok(None)
}

pub(crate) fn open(_disk: &Arc<dyn Disk>, _options: &OpenOptions) -> Result<Arc<dyn FileSystem>> {
    Err(DiskError::unsupported("opening a volume"))
}
