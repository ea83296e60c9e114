//! VDI, of VirtualBox: dynamic, fixed and differencing.

mod header;
#[cfg(test)]
mod tests;

use crate::{
    Format,
    chain::{Below, Chain, Link},
    guid::Guid,
    map::{emit_stored, in_file},
    parent::{Candidates, Found},
};
use disk_io::{
    BlockMap, Disk, DiskError, Fields, FileIndex, Finding, Mapping, Opened, Place, Purpose, Result,
    finding::Visit,
};
use header::{Header, Kind};
use std::{path::PathBuf, sync::Arc};

/// A block that was never written.
const FREE: u32 = 0xffff_ffff;
/// A block of zeros.
const ZERO: u32 = 0xffff_fffe;
/// How many files beside a differencing image are looked at for its parent.
const MAX_SIBLINGS: usize = 4096;

/// One VDI as a layer.
#[derive(Debug)]
struct VdiMap {
    file: Arc<dyn Disk>,
    path: PathBuf,
    header: Header,
}

/// Opens one file of a chain, and finds its parent.
pub(crate) fn open(source: &Opened, chain: &mut Chain<'_>) -> Result<Option<Below>> {
    let header = Header::read(&*source.disk)?;
    let map = VdiMap {
        file: source.disk.clone(),
        path: source.path.clone(),
        header: header.clone(),
    };
    if header.block_extra != 0 {
        chain.doubt(
            source,
            format_args!(
                "its header says that {} bytes stand before each block, which no known program writes",
                header.block_extra
            ),
        );
    }
    let stride = header.block_size.saturating_add(header.block_extra);
    let end = header
        .off_data
        .saturating_add(header.stored.saturating_mul(stride));
    if end > source.disk.len() {
        chain.doubt(
            source,
            format_args!(
                "its header says that {} blocks are stored from byte {} on; the file ends before \
                 they do, at {}: it was cut short, or the place is wrong",
                header.stored,
                header.off_data,
                source.disk.len()
            ),
        );
    }
    let needed = header.len.div_ceil(header.block_size);
    if header.blocks > needed {
        chain.doubt(
            source,
            format_args!(
                "its header says that the disk has {} bytes, and that its map has {} blocks where \
                 {needed} are enough: one of the two is wrong",
                header.len, header.blocks
            ),
        );
    }
    chain.push(Arc::new(map), link(source, &header));
    if header.kind != Kind::Differencing {
        return Ok(None);
    }
    Ok(Some(Below {
        source: parent(source, &header, chain)?,
        format: Some(Format::Vdi),
    }))
}

/// Visits what is wrong with the file's own bookkeeping: how many blocks are said to be
/// stored.
pub(crate) fn check(source: &Opened, visit: Visit<'_>) -> Result<()> {
    let header = Header::read(&*source.disk)?;
    let mut stored = 0u32;
    let mut at = 0;
    while at < header.blocks {
        let n = header.blocks.saturating_sub(at).min(16 << 10);
        let mut part = vec![0; usize::try_from(n.saturating_mul(4)).unwrap_or(0)];
        let place = header.off_blocks.saturating_add(at.saturating_mul(4));
        source.disk.read_exact_at(&mut part, place)?;
        let f = Fields::new(&part, place, "block map");
        for i in 0..part.len() / 4 {
            if f.u32_le(i.saturating_mul(4))? < ZERO {
                stored = stored.saturating_add(1);
            }
        }
        at = at.saturating_add(n);
    }
    let mut said = [0; 4];
    source.disk.read_exact_at(&mut said, 388)?;
    let said = u32::from_le_bytes(said);
    if said != stored {
        let e = DiskError::corrupt("counting the blocks that are stored")
            .file(source.path.display())
            .offset(388)
            .expected(format!("{stored}, as the block map has"))
            .found(said.to_string())
            .hint("a program that writes to this image may put a block over another");
        visit(Finding::warning("block-count-differs", e));
    }
    Ok(())
}

/// A VDI names its parent by ids only, so its neighbours are asked who they are.
fn parent(source: &Opened, header: &Header, chain: &mut Chain<'_>) -> Result<Opened> {
    let mut names = Candidates::default();
    for name in source.dir.list(MAX_SIBLINGS)? {
        // A neighbour that cannot be opened is not this disk's business.
        let Ok(opened) = source.dir.open(&name, Purpose::Parent) else {
            continue;
        };
        let is_it = Header::read(&*opened.disk).is_ok_and(|h| h.uuid == header.uuid_parent);
        if is_it && opened.id != source.id {
            names.exact(name);
        }
    }
    let wanted = (header.uuid_parent, header.uuid_parent_modify);
    names.open(source, chain, "VDI", &|candidate: &Opened| {
        let found = Header::read(&*candidate.disk)?;
        let fail = |expected: Guid, found: Guid, what: &str| {
            Found::Other(
                DiskError::corrupt("checking the parent")
                    .file(candidate.path.display())
                    .expected(format!("{what} {expected}"))
                    .found(found.to_string()),
            )
        };
        Ok(if found.uuid != wanted.0 {
            fail(wanted.0, found.uuid, "the disk")
        } else if wanted.1 != Guid::ZERO && found.uuid_modify != wanted.1 {
            fail(wanted.1, found.uuid_modify, "the state")
        } else {
            Found::Right
        })
    })
}

fn link(source: &Opened, header: &Header) -> Link {
    let mut facts = vec![
        ("kind", format!("{:?}", header.kind).to_lowercase()),
        ("block_size", header.block_size.to_string()),
        ("uuid", header.uuid.to_string()),
    ];
    if header.kind == Kind::Differencing {
        facts.push(("parent_uuid", header.uuid_parent.to_string()));
    }
    Link {
        path: source.path.clone(),
        format: Format::Vdi,
        len: header.len,
        facts,
    }
}

impl VdiMap {
    fn block(&self, entry: (u32, u64), inside: u64, len: u64, emit: &mut dyn FnMut(Mapping)) {
        let (index, at) = entry;
        let place = match index {
            FREE => Place::Below,
            ZERO => Place::Zero,
            n if u64::from(n) >= self.header.blocks => Place::Bad(
                DiskError::corrupt("reading the block map")
                    .code("block-outside-file")
                    .file(self.path.display())
                    .offset(at)
                    .expected(format!("a block below {}", self.header.blocks))
                    .found(n.to_string()),
            ),
            n => {
                let stride = self
                    .header
                    .block_size
                    .saturating_add(self.header.block_extra);
                let offset = u64::from(n)
                    .saturating_mul(stride)
                    .saturating_add(self.header.off_data)
                    .saturating_add(self.header.block_extra)
                    .saturating_add(inside);
                let file = (FileIndex(0), self.file.len(), &*self.path);
                return emit_stored(file, offset, len, "a block", emit);
            }
        };
        emit(Mapping { len, place });
    }
}

impl BlockMap for VdiMap {
    fn len(&self) -> u64 {
        self.header.len
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn map_range(&self, start: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let end = start.saturating_add(len);
        let shift = self.header.block_size.ilog2();
        let (first, last) = (start >> shift, end.saturating_sub(1) >> shift);
        let mut at = start;
        for chunk in (first..=last).step_by(16_384) {
            let count = last.saturating_sub(chunk).saturating_add(1).min(16_384);
            let mut table = vec![0; usize::try_from(count.saturating_mul(4)).unwrap_or(0)];
            let table_at = self
                .header
                .off_blocks
                .saturating_add(chunk.saturating_mul(4));
            self.file
                .read_exact_at(&mut table, table_at)
                .map_err(|e| e.file(self.path.display()))?;
            let f = Fields::new(&table, table_at, "block map");
            for n in 0..table.len() / 4 {
                let entry_at = n.saturating_mul(4);
                let block = chunk.saturating_add(n as u64);
                let next = (block.saturating_add(1) << shift).min(end);
                let inside = at & self.header.block_size.wrapping_sub(1);
                let entry = (f.u32_le(entry_at)?, f.place(entry_at));
                self.block(entry, inside, next.saturating_sub(at), emit);
                at = next;
            }
        }
        Ok(())
    }

    fn file(&self, index: FileIndex) -> Result<Arc<dyn Disk>> {
        in_file(index, &[&self.file], &self.path)
    }

    fn file_name(&self, _: FileIndex) -> String {
        self.name()
    }
}
