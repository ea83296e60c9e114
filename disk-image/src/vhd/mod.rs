//! VHD, of Virtual PC and Hyper-V: fixed, dynamic and differencing.
//!
//! The disk's length is the footer's `Current Size`. qemu takes Virtual PC's disks by their
//! geometry instead, which loses the end of them.

mod blocks;
mod footer;
mod parent;
#[cfg(test)]
mod tests;

use crate::{
    Format,
    chain::{Below, Chain, Link},
};
use blocks::{Layout, VhdMap};
use disk_io::{DiskError, Opened, Result, finding::Visit};
use footer::{Footer, Header, Kind};
use std::sync::Arc;

/// Opens one file of a chain, and finds its parent.
pub(crate) fn open(source: &Opened, chain: &mut Chain<'_>) -> Result<Option<Below>> {
    let (footer, problem) = Footer::read(&*source.disk)?;
    if let Some(problem) = problem {
        let text =
            format_args!("its footer is damaged, the copy at its beginning is used: {problem}");
        chain.warn(source, text);
    }
    let header = match footer.kind {
        Kind::Fixed => None,
        _ => Some(Header::read(&*source.disk, &footer)?),
    };
    let layout = match &header {
        None if footer.len > footer.at => {
            return Err(DiskError::corrupt("opening the fixed VHD")
                .offset(footer.at)
                .expected(format!("{} bytes before the footer", footer.len))
                .found(footer.at.to_string()));
        }
        None => {
            let more = footer.at.saturating_sub(footer.len);
            if more >= 512 {
                chain.doubt(
                    source,
                    format_args!(
                        "its footer says that the disk has {} bytes; {more} more are in the file",
                        footer.len
                    ),
                );
            }
            Layout::Fixed
        }
        Some(header) => Layout::Blocks {
            table_offset: header.table_offset,
            block_size: u64::from(header.block_size),
            differencing: footer.kind == Kind::Differencing,
        },
    };
    let map = VhdMap {
        file: source.disk.clone(),
        path: source.path.clone(),
        len: footer.len,
        layout,
        reserved: header
            .iter()
            .flat_map(|header| {
                let (table, at) = (header.table_offset, footer.data_offset);
                let block = u64::from(header.block_size).max(1);
                let entries = footer.len.div_ceil(block).saturating_mul(4);
                // The footer and its copy, the header, the table.
                let own = [
                    0..512,
                    footer.at..footer.at.saturating_add(512),
                    at..at.saturating_add(1024),
                    table..table.saturating_add(entries),
                ];
                let names = header.locators.iter();
                own.into_iter()
                    .chain(names.map(|l| l.offset..l.offset.saturating_add(l.len.into())))
            })
            .filter(|range| !range.is_empty())
            .collect(),
    };
    chain.push(Arc::new(map), link(source, &footer, header.as_ref()));
    let Some(header) = header.filter(|_| footer.kind == Kind::Differencing) else {
        return Ok(None);
    };
    let parent = parent::find(source, &header, chain)?;
    Ok(Some(Below {
        source: parent,
        format: Some(Format::Vhd),
    }))
}

/// Visits what is wrong with the file's own bookkeeping.
pub(crate) fn check(source: &Opened, visit: Visit<'_>) -> Result<()> {
    Footer::check(&*source.disk, &source.path.display().to_string(), visit)
}

fn link(source: &Opened, footer: &Footer, header: Option<&Header>) -> Link {
    let mut facts = vec![
        ("kind", format!("{:?}", footer.kind).to_lowercase()),
        ("creator", footer.creator.trim_end().to_string()),
        ("id", parent::hex(&footer.unique_id)),
    ];
    if let Some(header) = header {
        facts.push(("block_size", header.block_size.to_string()));
        facts.push(("table_entries", header.max_table_entries.to_string()));
        if footer.kind == Kind::Differencing {
            facts.push(("parent_id", parent::hex(&header.parent_id)));
            facts.push(("parent_name", header.parent_name.clone()));
        }
    }
    Link {
        path: source.path.clone(),
        format: Format::Vhd,
        len: footer.len,
        facts,
    }
}

/// The smallest image there is to make, for tests of other modules.
#[cfg(test)]
pub(crate) fn fixed_for_tests(contents: &[u8]) -> Vec<u8> {
    tests::fixed(contents)
}
