//! VHDX, of Hyper-V: fixed, dynamic and differencing.

mod blocks;

mod header;
mod log;
mod metadata;
mod overlay;
#[cfg(test)]
mod tests;

use crate::guid::Guid;
use crate::{
    Format,
    chain::{Below, Chain, Link},
    parent::{Candidates, Found},
};
use blocks::VhdxMap;
use disk_io::{DiskError, Finding, Opened, Result, finding::Visit};
use header::{Header, Region, Regions};
use metadata::Metadata;
use std::sync::Arc;

/// Opens one file of a chain, and finds its parent.
pub(crate) fn open(source: &Opened, chain: &mut Chain<'_>) -> Result<Option<Below>> {
    let mut signature = [0; 8];
    if source.disk.len() >= 8 {
        source.disk.read_exact_at(&mut signature, 0)?;
    }
    if &signature != b"vhdxfile" {
        return Err(DiskError::corrupt("opening the VHDX")
            .offset(0)
            .expected("\"vhdxfile\"")
            .found("something else"));
    }
    let header = Header::read(&*source.disk)?;
    let (file, replayed) = log::replay(&source.disk, &header)?;
    if let Some(damage) = Header::damage(&*source.disk) {
        let text = format_args!("one of its headers is damaged, the other is used: {damage}");
        // The other says that nothing is to be replayed; whether the damaged one said so too is
        // not known where the log has entries.
        match replayed == 0 && log::has_entries(&source.disk, &header)? {
            true => chain.doubt(
                source,
                format_args!("{text}; its log may have changes that were never made"),
            ),
            false => chain.warn(source, text),
        }
    }
    if replayed > 0 {
        chain.warn(
            source,
            format_args!(
                "was not closed cleanly; {replayed} entries of its log are replayed in memory"
            ),
        );
    }
    let regions = Regions::read(&*file)?;
    let metadata = Metadata::read(&*file, regions.metadata)?;
    if metadata.len == 0 {
        chain.doubt(source, "its metadata say that the disk has no byte");
    }
    let mut reserved = vec![regions.bat, regions.metadata];
    let log = Region {
        offset: header.log_offset,
        len: header.log_length.into(),
    };
    if log.offset >= 1 << 20 && log.offset.saturating_add(log.len) <= file.len() {
        reserved.push(log);
    }
    let map = VhdxMap::new(file, source.path.clone(), &reserved, &metadata)?;
    chain.push(Arc::new(map), link(source, &header, &metadata, replayed));
    if !metadata.has_parent {
        return Ok(None);
    }
    Ok(Some(Below {
        source: parent(source, &metadata, chain)?,
        format: Some(Format::Vhdx),
    }))
}

/// Visits what is wrong with the file's own bookkeeping.
pub(crate) fn check(source: &Opened, visit: Visit<'_>) -> Result<()> {
    let name = source.path.display().to_string();
    Header::check(&*source.disk, &name, visit);
    let header = Header::read(&*source.disk)?;
    match log::replay(&source.disk, &header) {
        Ok((file, replayed)) => {
            if replayed > 0 {
                let e = DiskError::corrupt("reading the log")
                    .file(&name)
                    .offset(header.log_offset)
                    .found(format!(
                        "{replayed} entries that were never replayed: the image was not closed \
                         cleanly"
                    ));
                visit(Finding::warning("log-not-replayed", e));
            }
            Regions::check(&*file, &name, visit);
        }
        Err(e) => visit(Finding::damage("log-damaged", e.file(&name))),
    }
    Ok(())
}

/// Opens the parent, which is the one whose data write id the child remembers.
fn parent(source: &Opened, metadata: &Metadata, chain: &mut Chain<'_>) -> Result<Opened> {
    let linkage: Vec<Guid> = ["parent_linkage", "parent_linkage2"]
        .iter()
        .filter_map(|key| metadata.parent_value(key))
        .filter_map(Guid::parse)
        .filter(|id| *id != Guid::ZERO)
        .collect();
    if linkage.is_empty() {
        return Err(DiskError::corrupt("reading the parent locator")
            .expected("parent_linkage, the id of the parent")
            .found(format!("{} other entries", metadata.parent.len())));
    }
    let mut names = Candidates::default();
    for key in ["relative_path", "absolute_win32_path", "volume_path"] {
        if let Some(name) = metadata.parent_value(key) {
            names.add(name);
        }
    }
    let sector_size = metadata.sector_size;
    let opened = names.open(source, chain, "VHDX", &|candidate: &Opened| {
        let header = Header::read(&*candidate.disk)?;
        Ok(if linkage.contains(&header.data_write_guid) {
            Found::Right
        } else {
            Found::Other(
                DiskError::corrupt("checking the parent")
                    .file(candidate.path.display())
                    .expected(format!(
                        "the disk as it was with the id {}",
                        spell(&linkage)
                    ))
                    .found(format!("{}: it was changed since", header.data_write_guid)),
            )
        })
    })?;
    check_sector_size(&opened, sector_size)?;
    Ok(opened)
}

/// A parent of another sector size would put its bits elsewhere.
fn check_sector_size(parent: &Opened, sector_size: u32) -> Result<()> {
    let header = Header::read(&*parent.disk)?;
    let (file, _) = log::replay(&parent.disk, &header)?;
    let metadata = Metadata::read(&*file, Regions::read(&*file)?.metadata)?;
    if metadata.sector_size == sector_size {
        return Ok(());
    }
    Err(DiskError::corrupt("checking the parent")
        .file(parent.path.display())
        .expected(format!("sectors of {sector_size} bytes"))
        .found(metadata.sector_size.to_string()))
}

fn spell(ids: &[Guid]) -> String {
    let ids: Vec<_> = ids.iter().map(Guid::to_string).collect();
    ids.join(" or ")
}

fn link(source: &Opened, header: &Header, metadata: &Metadata, replayed: usize) -> Link {
    let kind = match (metadata.has_parent, metadata.leave_allocated) {
        (true, _) => "differencing",
        (false, true) => "fixed",
        (false, false) => "dynamic",
    };
    let mut facts = vec![
        ("kind", kind.to_string()),
        ("block_size", metadata.block_size.to_string()),
        ("sector_size", metadata.sector_size.to_string()),
        ("disk_id", metadata.disk_id.to_string()),
        ("data_write_id", header.data_write_guid.to_string()),
    ];
    if replayed > 0 {
        facts.push(("log_entries", replayed.to_string()));
    }
    for key in ["parent_linkage", "relative_path", "absolute_win32_path"] {
        if let Some(value) = metadata.parent_value(key) {
            facts.push((key, value.to_string()));
        }
    }
    Link {
        path: source.path.clone(),
        format: Format::Vhdx,
        len: metadata.len,
        facts,
    }
}
