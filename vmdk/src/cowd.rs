//! ESX sparse extents (vmfsSparse, `-delta.vmdk`; fact sheet, VMDK 7).

use crate::{
    directory::Directory,
    extent::{ExtentMap, Seat},
    link::Counts,
    tables::{self, Cell, Tables},
};
use disk_io::{Disk, DiskError, Fields, Finding, Mapping, Result, finding::Visit};
use std::sync::Arc;

/// Bytes of the header.
pub const HEADER_LEN: usize = 2048;
/// Entries of a grain table.
pub const TABLE_ENTRIES: u64 = 4096;
/// Bytes of a grain table.
const TABLE_LEN: u64 = TABLE_ENTRIES * 4;
/// Largest grain in sectors: 1 MiB.
const MAX_GRAIN: u32 = 2048;

/// The header. Places and lengths are in sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// 1.
    pub version: u32,
    /// 3.
    pub flags: u32,
    /// Length of the extent.
    pub num_sectors: u32,
    /// Length of a grain.
    pub grain_size: u32,
    /// Where the grain directory is.
    pub gd_offset: u32,
    /// Its entries.
    pub num_gd_entries: u32,
    /// Where the next table or grain would go.
    pub free_sector: u32,
    /// Set while the extent is open for writing.
    pub unclean_shutdown: bool,
}

impl Header {
    /// Reads and checks the header. `name` is for messages.
    ///
    /// # Errors
    /// `Unsupported` for other versions, `Corrupt` for what cannot be.
    pub fn read(disk: &dyn Disk, name: &str) -> Result<Self> {
        if disk.len() < HEADER_LEN as u64 {
            return Err(DiskError::corrupt("reading the COWD header")
                .file(name)
                .expected(format!("{HEADER_LEN} bytes"))
                .found(format!("a file of {}", disk.len())));
        }
        let mut bytes = [0; HEADER_LEN];
        disk.read_exact_at(&mut bytes, 0)?;
        Self::parse(&bytes).map_err(|e| e.file(name))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let f = Fields::new(bytes, 0, "COWD header");
        if f.bytes(0, 4)? != b"COWD" {
            return Err(f.corrupt(0, "magicNumber").expected("COWD"));
        }
        let header = Self {
            version: f.u32_le(4)?,
            flags: f.u32_le(8)?,
            num_sectors: f.u32_le(12)?,
            grain_size: f.u32_le(16)?,
            gd_offset: f.u32_le(20)?,
            num_gd_entries: f.u32_le(24)?,
            free_sector: f.u32_le(28)?,
            unclean_shutdown: f.u32_le(1648)? != 0,
        };
        if header.version != 1 {
            return Err(DiskError::unsupported("opening a COWD extent")
                .offset(4)
                .expected("version 1")
                .found(format!("version {}", header.version)));
        }
        if !(1..=MAX_GRAIN).contains(&header.grain_size) {
            return Err(f
                .corrupt(16, "grainSize")
                .expected(format!("1 to {MAX_GRAIN} sectors"))
                .found(header.grain_size.to_string()));
        }
        let tables = header.tables();
        if u64::from(header.num_gd_entries) < tables {
            return Err(f
                .corrupt(24, "numGDEntries")
                .expected(format!("at least {tables}"))
                .found(header.num_gd_entries.to_string()));
        }
        Ok(header)
    }

    /// Number of tables that the extent needs.
    pub fn tables(&self) -> u64 {
        let covered = TABLE_ENTRIES.saturating_mul(u64::from(self.grain_size));
        u64::from(self.num_sectors).div_ceil(covered.max(1))
    }
}

/// A COWD extent with its tables.
#[derive(Debug)]
pub(crate) struct Cowd {
    file: Arc<dyn Disk>,
    seat: Seat,
    grain: u64,
    len: u64,
    gd: Directory,
    /// Bytes up to here are header and directory.
    metadata: u64,
    /// Where the next table or grain would go, in bytes.
    free: u64,
}

impl Cowd {
    /// Opens the tables of an extent of `len` bytes.
    pub(crate) fn open(file: Arc<dyn Disk>, seat: Seat, header: &Header, len: u64) -> Result<Self> {
        let offset = u64::from(header.gd_offset).saturating_mul(crate::SECTOR);
        let bad_directory = || {
            DiskError::corrupt("opening the grain directory")
                .code("grain-directory-outside-file")
                .file(&seat.name)
                .offset(20)
                .expected(format!("{} entries inside the file", header.num_gd_entries))
                .found(format!(
                    "sector {} of a file of {} bytes",
                    header.gd_offset,
                    file.len()
                ))
        };
        if offset < HEADER_LEN as u64 {
            return Err(bad_directory());
        }
        let gd = Directory::new(
            file.clone(),
            seat.number,
            offset,
            header.tables(),
            4,
            seat.pieces.clone(),
        )
        .ok_or_else(bad_directory)?;
        if header.unclean_shutdown {
            seat.remarks.add(
                "unclean-shutdown",
                || seat.at(1648),
                || {
                    format!(
                        "{}: was not closed by its last writer (uncleanShutdown is set)",
                        seat.name
                    )
                },
            );
        }
        let free = u64::from(header.free_sector).saturating_mul(crate::SECTOR);
        if free > file.len() {
            seat.remarks.add(
                "free-sector-outside-file",
                || seat.at(28),
                || {
                    format!(
                        "{}: is {} bytes long, its header says that {free} are in use: it may be \
                     cut short",
                        seat.name,
                        file.len()
                    )
                },
            );
        }
        Ok(Self {
            metadata: gd.range().end,
            free,
            grain: u64::from(header.grain_size).saturating_mul(crate::SECTOR),
            file,
            seat,
            len,
            gd,
        })
    }

    /// Checks that a table or grain lies behind the metadata and inside the file.
    fn check(&self, what: &str, number: u64, sector: u32, len: u64) -> Result<u64> {
        let offset = u64::from(sector).saturating_mul(crate::SECTOR);
        if offset < self.metadata || offset.saturating_add(len) > self.file.len() {
            let inside = offset.saturating_add(len) <= self.file.len();
            return Err(DiskError::corrupt(format!("finding {what} {number}"))
                .code(match (inside, what) {
                    (true, "grain") => "grain-in-metadata",
                    (true, _) => "grain-table-in-metadata",
                    (false, "grain") => "grain-outside-file",
                    (false, _) => "grain-table-outside-file",
                })
                .file(&self.seat.name)
                .offset(offset)
                .expected(format!(
                    "{len} bytes behind the metadata and inside the file of {}",
                    self.file.len()
                ))
                .found(format!("sector {sector}")));
        }
        Ok(offset)
    }
}

impl Tables for Cowd {
    type Block = Vec<u8>;

    fn grain(&self) -> u64 {
        self.grain
    }

    fn block_entries(&self) -> u64 {
        TABLE_ENTRIES
    }

    fn block(&self, number: u64) -> Result<Option<Vec<u8>>> {
        let sector = u32::try_from(self.gd.get(number)?).unwrap_or(u32::MAX);
        if sector == 0 {
            return Ok(None);
        }
        let at = self.check("grain table", number, sector, TABLE_LEN)?;
        let mut table = vec![0; TABLE_LEN as usize];
        self.file.read_exact_at(&mut table, at)?;
        Ok((!disk_io::zero::is_zero(&table)).then_some(table))
    }

    fn below(&self, block: &Vec<u8>, index: usize, most: usize) -> usize {
        tables::zero_entries(block, 4, index, most)
    }

    fn cell(&self, block: &Vec<u8>, index: usize, grain: u64) -> Cell {
        let entry = index
            .checked_mul(4)
            .and_then(|at| block.get(at..)?.first_chunk())
            .map(|b| u32::from_le_bytes(*b));
        let needed = self
            .len
            .saturating_sub(grain.saturating_mul(self.grain))
            .min(self.grain);
        match entry {
            Some(0) | None => Cell::Below,
            Some(sector) => match self.check("grain", grain, sector, needed) {
                Ok(offset) => Cell::At(offset),
                Err(e) => Cell::Bad(e),
            },
        }
    }
}

impl ExtentMap for Cowd {
    fn map_range(&self, start: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()> {
        tables::map(self, self.seat.file_index(), start, len, emit)
    }

    fn file(&self) -> Option<&Arc<dyn Disk>> {
        Some(&self.file)
    }

    fn count(&self, len: u64, counts: &mut Counts) -> Result<()> {
        tables::count(self, len, counts)
    }

    /// What is behind the free sector would be overwritten by the next write of ESX.
    fn check(&self, start: u64, visit: Visit<'_>) -> Result<()> {
        let mut at = start;
        let mut touched = Vec::new();
        let mut highest = 0u64;
        tables::for_each(self, self.len, &mut |len, cell| {
            let range = at..at.saturating_add(len);
            at = range.end;
            if let Cell::At(offset) = cell {
                let end = offset.saturating_add(len);
                if end > self.free {
                    highest = highest.max(end);
                    disk_io::finding::join(&mut touched, range);
                }
            }
        })?;
        if highest > 0 {
            let e = DiskError::corrupt("comparing the free sector with what is used")
                .code("free-sector-in-use")
                .file(&self.seat.name)
                .offset(28)
                .expected(format!("{highest} or more, where the last grain ends"))
                .found(self.free.to_string())
                .hint("do not let a host write to this disk: it would overwrite these grains");
            visit(Finding::warning("free-sector-in-use", e).touching(touched));
        }
        Ok(())
    }
}
