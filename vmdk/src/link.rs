//! One link of a chain: its extents one behind the other, as a block map.

use crate::{
    descriptor::{Access, Descriptor, ExtentType, geometry::Geometry},
    extent::{ExtentMap, Remarks, UNIT_GRAIN_BITS},
};
use disk_io::{
    BlockMap, Disk, DiskError, FileIndex, Finding, Mapping, Result, UnitId, finding::Visit,
};
use std::{ops::Range, path::PathBuf, sync::Arc};

/// One disk file of a chain with its extents.
#[derive(Debug)]
pub struct Link {
    /// The file that was opened.
    pub path: PathBuf,
    /// Its descriptor; a piece of a split disk that was opened alone has none.
    pub descriptor: Option<Descriptor>,
    /// `createType` as written.
    pub create_type: Option<String>,
    /// Content id.
    pub cid: Option<u32>,
    /// Content id that the parent must have; `None` for a base.
    pub parent_cid: Option<u32>,
    /// Length in bytes.
    pub capacity: u64,
    /// The extents in guest order.
    pub extents: Vec<ExtentInfo>,
    pub(crate) map: Arc<LinkMap>,
}

/// What is known of an extent without reading its tables.
#[derive(Clone, Debug)]
pub struct ExtentInfo {
    /// How it is stored.
    pub kind: ExtentType,
    /// What the guest may do with it.
    pub access: Access,
    /// Where it begins in the disk, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Where it begins in its file, in bytes.
    pub offset: u64,
    /// Its file as it was opened.
    pub file: Option<PathBuf>,
    /// Length of that file in bytes.
    pub file_size: Option<u64>,
    /// For sparse kinds.
    pub sparse: Option<SparseInfo>,
}

/// Facts from the header of a sparse extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SparseInfo {
    /// Header version.
    pub version: u64,
    /// Header flags.
    pub flags: u64,
    /// Bytes in a grain.
    pub grain_size: u64,
    /// Bytes that the header says the extent has.
    pub capacity: u64,
    /// Whether grains are compressed.
    pub compressed: bool,
    /// Whether it was left open by its last writer.
    pub unclean: bool,
}

/// How many bytes of a link are what. Lengths in bytes; grains only for sparse extents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Stored in this link.
    pub stored: u64,
    /// Said to be zeros.
    pub zero: u64,
    /// Zeros because the guest discarded them (seSparse).
    pub unmapped: u64,
    /// Not in this link.
    pub below: u64,
    /// Unreadable.
    pub bad: u64,
    /// Grains with data.
    pub stored_grains: u64,
    /// Grains said to be zeros.
    pub zero_grains: u64,
    /// Discarded grains.
    pub unmapped_grains: u64,
}

impl Link {
    /// Counts what is stored in the link. Reads every table: some seconds for the largest.
    pub fn count(&self) -> Result<Counts> {
        let mut counts = Counts::default();
        for part in &self.map.parts {
            part.map.count(part.len, &mut counts)?;
        }
        Ok(counts)
    }

    /// What was noticed about the link's files so far: which copy of a directory is used,
    /// what was not closed. Tables are read when they are needed, so this grows.
    pub fn remarks(&self) -> Vec<String> {
        self.map.remarks.all()
    }

    /// Those of them after which its contents are not to be relied on.
    pub fn doubts(&self) -> Vec<String> {
        let several = self.map.parts.len() > 1;
        let doubtful = |code| match code {
            "extent-file-longer" => true,
            // One that is cut short moves those behind it.
            "extent-capacity-differs" => several,
            _ => false,
        };
        let remarks = self.map.remarks.typed().into_iter();
        remarks
            .filter(|remark| doubtful(remark.code))
            .map(|remark| remark.text)
            .collect()
    }

    /// Visits what is wrong with the link's files beyond what their maps say. What was
    /// noticed while tables were read is among it, so the maps should have been walked.
    pub fn check(&self, visit: Visit<'_>) -> Result<()> {
        for part in &self.map.parts {
            part.map.check(part.start, visit)?;
        }
        for remark in self.map.remarks.typed() {
            let file = match remark.place.file.as_str() {
                "" => self.path.display().to_string(),
                file => file.to_owned(),
            };
            let name = format!("{file}: ");
            let text = remark.text.strip_prefix(&name).unwrap_or(&remark.text);
            let mut e = DiskError::corrupt("reading the link")
                .file(&file)
                .found(text);
            if let Some(offset) = remark.place.offset {
                e = e.offset(offset);
            }
            let touched = remark.place.touched.and_then(|(number, start, len)| {
                let part = self.map.part(number.into()).ok()?;
                let start = start.saturating_add(part.start);
                let end = part.start.saturating_add(part.len);
                Some(start..start.saturating_add(len).min(end))
            });
            visit(Finding::warning(remark.code, e).touching(touched));
        }
        let geometry = |d: &Descriptor| d.longer_geometry(self.capacity);
        if let Some((Geometry::OfAny, told)) = self.descriptor.as_ref().and_then(geometry) {
            let e = DiskError::corrupt("reading the descriptor")
                .file(self.path.display())
                .expected(format!("the geometry of a disk of {} bytes", self.capacity))
                .found(told);
            visit(Finding::note("geometry-of-any", e));
        }
        for text in self.descriptor.iter().flat_map(Descriptor::warnings) {
            let e = DiskError::corrupt("reading the descriptor")
                .file(self.path.display())
                .found(text.clone());
            visit(Finding::note("descriptor-odd", e));
        }
        Ok(())
    }

    /// The link's own contents, without its parents.
    pub fn block_map(&self) -> Arc<dyn BlockMap> {
        self.map.clone()
    }
}

/// Extents one behind the other.
#[derive(Debug)]
pub(crate) struct LinkMap {
    pub(crate) name: String,
    pub(crate) len: u64,
    pub(crate) parts: Vec<Part>,
    pub(crate) remarks: Arc<Remarks>,
}

/// An extent and its place in the disk. Its number is its place in the list.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) name: String,
    /// The number of the first extent in the same file.
    pub(crate) file: FileIndex,
    pub(crate) map: Box<dyn ExtentMap>,
}

impl LinkMap {
    fn part(&self, number: u64) -> Result<&Part> {
        usize::try_from(number)
            .ok()
            .and_then(|n| self.parts.get(n))
            .ok_or_else(|| {
                DiskError::corrupt("finding an extent")
                    .file(&self.name)
                    .found(format!("extent {number} of {}", self.parts.len()))
            })
    }

    fn of_unit(&self, unit: UnitId) -> Result<(&Part, u64)> {
        let part = self.part(unit.0 >> UNIT_GRAIN_BITS)?;
        Ok((part, unit.0 & ((1 << UNIT_GRAIN_BITS) - 1)))
    }
}

impl BlockMap for LinkMap {
    fn len(&self) -> u64 {
        self.len
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn map_range(&self, start: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()> {
        let end = start.saturating_add(len);
        let first = self
            .parts
            .partition_point(|p| p.start.saturating_add(p.len) <= start);
        let mut at = start;
        for part in self.parts.iter().skip(first) {
            if at >= end {
                break;
            }
            let stop = part.start.saturating_add(part.len).min(end);
            if stop > at {
                part.map
                    .map_range(at.saturating_sub(part.start), stop.saturating_sub(at), emit)?;
                at = stop;
            }
        }
        Ok(())
    }

    fn tables(&self, emit: &mut dyn FnMut(FileIndex, Range<u64>)) -> Result<()> {
        self.parts
            .iter()
            .try_for_each(|part| part.map.tables(&mut |range| emit(part.file, range)))
    }

    fn file(&self, index: FileIndex) -> Result<Arc<dyn Disk>> {
        let part = self.part(u64::from(index.0))?;
        part.map.file().cloned().ok_or_else(|| {
            DiskError::corrupt("finding the file of an extent")
                .file(&self.name)
                .found(format!("extent {}, which has none", index.0))
        })
    }

    fn file_name(&self, index: FileIndex) -> String {
        self.part(u64::from(index.0))
            .map_or_else(|_| self.name.clone(), |p| p.name.clone())
    }

    fn decode(&self, unit: UnitId, out: &mut [u8]) -> Result<()> {
        let (part, grain) = self.of_unit(unit)?;
        part.map.decode(grain, out)
    }

    fn unit_place(&self, unit: UnitId) -> Option<(FileIndex, u64)> {
        let (part, grain) = self.of_unit(unit).ok()?;
        Some((part.file, part.map.grain_place(grain)?))
    }
}
