//! Directories (fact sheet, VMFS 10): flat up to VMFS-5, hashed in VMFS-6.

pub(crate) mod hash;
mod hashed;
mod linear;

use crate::{
    address::FdAddress, blocks::BlockList, core::Core, descriptor::FileKind, superblock::Layout,
};
use disk_io::{DiskError, Fields, Result};
use std::ops::ControlFlow;

#[cfg(feature = "builder")]
pub(crate) use hashed::{BLOCK_HEADER, ENTRIES_AT, HASH_AT, SLOT};

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// Its descriptor.
    pub address: FdAddress,
    /// The generation that the descriptor must have.
    pub generation: u32,
    /// What kind of object, as the directory knows it: `.sdd.sf` is [`FileKind::System`]
    /// here and a directory by its descriptor.
    pub kind: FileKind,
}

/// Called for each entry of a directory, or with the reason why some are lost.
pub type Visit<'a> = &'a mut dyn FnMut(Result<Entry>) -> ControlFlow<()>;

/// Takes an entry apart whose first fields are the same in both kinds of directory.
fn entry(f: &Fields<'_>, name_at: usize, name_len: usize) -> Result<Entry> {
    let name = f.bytes(name_at, name_len)?;
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    let name = name.get(..end).unwrap_or_default().to_vec();
    if name.is_empty() || name.contains(&b'/') {
        return Err(f
            .corrupt(name_at, "the name")
            .found(String::from_utf8_lossy(&name).into_owned()));
    }
    let number = f.u32_le(0)?;
    let address = f.u32_le(4)?;
    let Some(kind) = FileKind::parse(number) else {
        return Err(f
            .corrupt(0, "the type")
            .expected("a type from 2 to 6")
            .found(number.to_string()));
    };
    if address & 7 != 4 {
        return Err(f
            .corrupt(4, "the descriptor's address")
            .found(format!("{address:#x}")));
    }
    Ok(Entry {
        name,
        address: FdAddress(address),
        generation: f.u32_le(8)?,
        kind,
    })
}

pub(crate) fn read(core: &Core, list: &BlockList, visit: Visit<'_>) -> Result<()> {
    match core.geometry.layout {
        Layout::Five => linear::read(core, list, &mut |found| match found {
            Ok(e) if e.name == b"." || e.name == b".." => ControlFlow::Continue(()),
            found => visit(found),
        }),
        Layout::Six => hashed::read(core, list, visit),
    }
}

/// Finds a name as hosts do: in VMFS-6 through the table of hashes alone. `None` if that does not
/// lead to it, for whatever reason.
pub(crate) fn quickly(core: &Core, list: &BlockList, name: &[u8], root: bool) -> Option<Entry> {
    match core.geometry.layout {
        Layout::Five => linear::lookup(core, list, name),
        Layout::Six => hashed::lookup(core, list, name, root),
    }
}

pub(crate) fn lookup(
    core: &Core,
    list: &BlockList,
    name: &[u8],
    root: bool,
) -> Result<Option<Entry>> {
    if name == b"." || name == b".." {
        return Ok(None);
    }
    let quick = quickly(core, list, name, root);
    if quick.is_some() {
        return Ok(quick);
    }
    // These only make it faster: what they do not find is looked for.
    let mut found = None;
    let mut failed = None;
    read(core, list, &mut |entry| {
        match entry {
            Ok(entry) if entry.name == name => {
                found = Some(entry);
                return ControlFlow::Break(());
            }
            Ok(_) => {}
            Err(e) => failed = Some(e),
        }
        ControlFlow::Continue(())
    })?;
    match (found, failed) {
        (None, Some(e)) => Err(e.context("finding a name in a damaged directory")),
        (found, _) => Ok(found),
    }
}

pub(crate) fn parent(core: &Core, list: &BlockList) -> Result<FdAddress> {
    let mut found = None;
    match core.geometry.layout {
        Layout::Five => linear::read(core, list, &mut |entry| match entry {
            Ok(e) if e.name == b".." => {
                found = Some(e.address);
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })?,
        Layout::Six => found = Some(hashed::parent(core, list)?),
    }
    found.ok_or_else(|| {
        DiskError::corrupt("finding the parent of a directory")
            .file(format!("file {}", list.address))
            .found("no entry `..`")
    })
}
