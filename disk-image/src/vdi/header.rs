//! The header of a VDI file.

use crate::guid::Guid;
use disk_io::{Disk, DiskError, Fields, Result};

const SIGNATURE: u32 = 0xbeda_107f;
/// All fields of version 1 in bytes, from the file's beginning.
const LEN: usize = 456;

/// What kind of VDI it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dynamic,
    Fixed,
    Differencing,
}

/// The header, checked.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Where the block map is, in bytes.
    pub(super) off_blocks: u64,
    /// Where the blocks are, in bytes.
    pub(super) off_data: u64,
    /// Length of the disk in bytes.
    pub(super) len: u64,
    /// Length of a block in bytes.
    pub(super) block_size: u64,
    /// Bytes before the data of every block.
    pub(super) block_extra: u64,
    /// Entries of the block map.
    pub(super) blocks: u64,
    /// Blocks that are stored, as the last writer counted.
    pub(super) stored: u64,
    /// The image, and its contents: a child remembers both of its parent.
    pub(super) uuid: Guid,
    pub(super) uuid_modify: Guid,
    pub(super) uuid_parent: Guid,
    pub(super) uuid_parent_modify: Guid,
}

impl Header {
    pub(super) fn read(disk: &dyn Disk) -> Result<Self> {
        let mut bytes = vec![0; usize::try_from(disk.len()).map_or(LEN, |len| len.min(LEN))];
        disk.read_exact_at(&mut bytes, 0)?;
        let f = Fields::new(&bytes, 0, "VDI header");
        if f.u32_le(64)? != SIGNATURE {
            return Err(f
                .corrupt(64, "the signature")
                .expected(format!("{SIGNATURE:#010x}"))
                .found(format!("{:#010x}", f.u32_le(64)?)));
        }
        let version = f.u32_le(68)?;
        if version >> 16 != 1 {
            return Err(DiskError::unsupported("opening the VDI")
                .offset(68)
                .expected("version 1")
                .found(format!("version {}.{}", version >> 16, version & 0xffff)));
        }
        let kind = match f.u32_le(76)? {
            1 => Kind::Dynamic,
            2 => Kind::Fixed,
            4 => Kind::Differencing,
            other => {
                return Err(DiskError::unsupported("opening the VDI")
                    .offset(76)
                    .expected("type 1 (dynamic), 2 (fixed) or 4 (differencing)")
                    .found(match other {
                        3 => "type 3 (undo)".into(),
                        other => format!("type {other}"),
                    }));
            }
        };
        let header = Self {
            kind,
            off_blocks: u64::from(f.u32_le(340)?),
            off_data: u64::from(f.u32_le(344)?),
            len: f.u64_le(368)?,
            block_size: u64::from(f.u32_le(376)?),
            block_extra: u64::from(f.u32_le(380)?),
            blocks: u64::from(f.u32_le(384)?),
            stored: u64::from(f.u32_le(388)?),
            uuid: Guid::read(&f, 392)?,
            uuid_modify: Guid::read(&f, 408)?,
            uuid_parent: Guid::read(&f, 424)?,
            uuid_parent_modify: Guid::read(&f, 440)?,
        };
        let sector = f.u32_le(360)?;
        if sector != 512 {
            return Err(DiskError::unsupported("opening the VDI")
                .offset(360)
                .expected("sectors of 512 bytes")
                .found(sector.to_string()));
        }
        header.check(&f, disk.len())?;
        Ok(header)
    }

    fn check(&self, f: &Fields<'_>, file_len: u64) -> Result<()> {
        if !self.block_size.is_power_of_two() || self.block_size < 4096 {
            return Err(f
                .corrupt(376, "cbBlock")
                .expected("a power of two of at least 4096 bytes")
                .found(self.block_size.to_string()));
        }
        if self.len > i64::MAX.unsigned_abs() || self.len.div_ceil(self.block_size) > self.blocks {
            return Err(f
                .corrupt(384, "cBlocks")
                .expected(format!("enough blocks for {} bytes", self.len))
                .found(self.blocks.to_string()));
        }
        for (at, field, place) in [
            (340, "offBlocks", self.off_blocks),
            (344, "offData", self.off_data),
        ] {
            if !place.is_multiple_of(512) {
                return Err(f
                    .corrupt(at, field)
                    .expected("the beginning of a sector")
                    .found(place.to_string()));
            }
        }
        // Without it a child would read as zeros where its parent has data.
        let parent = [self.uuid_parent, self.uuid_parent_modify];
        if self.kind != Kind::Differencing && parent.iter().any(|id| *id != Guid::ZERO) {
            return Err(f
                .corrupt(76, "the type")
                .expected("4 (differencing), as a parent is named")
                .found(format!(
                    "{:?}, with the parent {}",
                    self.kind, self.uuid_parent
                )));
        }
        let end = self
            .off_blocks
            .saturating_add(self.blocks.saturating_mul(4));
        if self.off_blocks < 400 || end > file_len {
            return Err(f
                .corrupt(340, "offBlocks")
                .expected(format!("{} entries inside {file_len} bytes", self.blocks))
                .found(format!("a map at {}", self.off_blocks)));
        }
        if self.off_data < end {
            return Err(f
                .corrupt(344, "offData")
                .expected(format!("data after the block map, which ends at {end}"))
                .found(self.off_data.to_string()));
        }
        Ok(())
    }
}
