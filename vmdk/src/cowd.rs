//! ESX sparse extents (vmfsSparse, `-delta.vmdk`; fact sheet, VMDK 7).

use crate::{
    directory::Directory,
    extent::{ExtentMap, Seat},
    link::Counts,
    tables::{self, Cell, Tables},
};
use disk_io::{Disk, DiskError, Fields, Finding, Mapping, Result, finding::Visit};
use std::{ops::Range, sync::Arc};

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
        if !header.grain_size.is_power_of_two() || header.grain_size > MAX_GRAIN {
            return Err(f
                .corrupt(16, "grainSize")
                .expected(format!("a power of two, at most {MAX_GRAIN} sectors"))
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
    /// Where the first table or grain may begin: all entries of the directory lie before it.
    first: u64,
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
        let first = u64::from(header.num_gd_entries)
            .saturating_mul(4)
            .saturating_add(offset)
            .next_multiple_of(crate::SECTOR);
        // Where a directory without a table is taken for one, everything is the parent's.
        if free > 0 && (free <= offset || (free > first && gd.is_zero(u64::MAX) == Some(true))) {
            return Err(DiskError::corrupt("opening the grain directory")
                .file(&seat.name)
                .offset(offset)
                .expected(format!(
                    "the tables of an extent that is in use up to byte {free}"
                ))
                .found("a directory that leads to none"));
        }
        Ok(Self {
            metadata: gd.range().end,
            first,
            free,
            grain: u64::from(header.grain_size).saturating_mul(crate::SECTOR),
            file,
            seat,
            len,
            gd,
        })
    }

    /// Where grain tables are. A table without grains is one too.
    fn grain_tables(&self, visit: &mut dyn FnMut(u64)) -> Result<()> {
        let entries = self.gd.range().end.saturating_sub(self.gd.range().start) / 4;
        for number in 0..entries {
            let sector = u32::try_from(self.gd.get(number)?).unwrap_or(u32::MAX);
            // Where it cannot be, it takes nothing.
            if sector > 0
                && let Ok(at) = self.check("grain table", number, sector, TABLE_LEN)
            {
                visit(at);
            }
        }
        Ok(())
    }

    /// Space before the free sector that neither a table nor a grain takes.
    fn unreferenced(&self, taken: u64, end: u64, visit: Visit<'_>) {
        let room = end.saturating_sub(self.first);
        let lost = room.saturating_sub(taken);
        if lost >= self.grain {
            let e = DiskError::corrupt("adding up what tables and grains take")
                .file(&self.seat.name)
                .expected(format!("{taken} bytes behind the metadata"))
                .found(format!(
                    "{room}: {lost} bytes are used by nothing: freed, or of an entry that is lost"
                ));
            visit(Finding::note("space-unreferenced", e));
        }
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
        tables::map(self, self.seat.file, start, len, emit)
    }

    fn file(&self) -> Option<&Arc<dyn Disk>> {
        Some(&self.file)
    }

    fn tables(&self, emit: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        emit(0..self.metadata);
        self.grain_tables(&mut |at| emit(at..at.saturating_add(TABLE_LEN)))
    }

    fn count(&self, len: u64, counts: &mut Counts) -> Result<()> {
        tables::count(self, len, counts)
    }

    /// What is behind the free sector would be overwritten by the next write of ESX.
    fn check(&self, start: u64, visit: Visit<'_>) -> Result<()> {
        // What is behind it was reserved by growing the file in large steps.
        let used = self.free.min(self.file.len());
        let mut taken = 0u64;
        self.grain_tables(&mut |at| taken = taken.saturating_add(inside(at, TABLE_LEN, used)))?;
        let mut at = start;
        let mut touched = Vec::new();
        let mut highest = 0u64;
        tables::for_each(self, self.len, &mut |len, cell| {
            let range = at..at.saturating_add(len);
            at = range.end;
            if let Cell::At(offset) = cell {
                let end = offset.saturating_add(len);
                // A grain is stored whole, though the disk may end in it.
                taken = taken.saturating_add(inside(offset, self.grain, used));
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
        self.unreferenced(taken, used, visit);
        Ok(())
    }
}

/// How many of `len` bytes at `offset` lie before `end`.
fn inside(offset: u64, len: u64, end: u64) -> u64 {
    len.min(end.saturating_sub(offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::{Cell as Grain, cowd::encode};
    use disk_io::{FileIndex, MemDisk, Severity};

    /// What is found in an extent of 80,004 sectors after `change`.
    fn found(change: impl FnOnce(&mut Vec<u8>)) -> Vec<Finding> {
        // The disk ends in the last grain; the second table is not there.
        let grains =
            [0, 3, 511, 512, 4095, 10_000].map(|n| (n, Grain::Data(vec![n as u8 | 1; 4096])));
        let mut bytes = encode(80_004, 8, &grains);
        change(&mut bytes);
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(bytes));
        let header = Header::read(&*disk, "x").unwrap();
        let seat = Seat {
            number: 0,
            file: FileIndex(0),
            name: "x".into(),
            pieces: Arc::default(),
            remarks: Arc::default(),
        };
        let len = u64::from(header.num_sectors) * crate::SECTOR;
        let cowd = Cowd::open(disk, seat, &header, len).unwrap();
        let mut all = Vec::new();
        ExtentMap::check(&cowd, 0, &mut |f| all.push(f)).unwrap();
        all
    }

    fn set(bytes: &mut [u8], at: usize, value: u32) {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    #[test]
    fn space_that_nothing_uses() {
        assert!(found(|_| {}).is_empty());
        // A file that grows in large steps.
        assert!(found(|b| b.resize(b.len() + (1 << 20), 7)).is_empty());
        // A table without grains is one.
        assert!(
            found(|b| {
                let end = b.len() as u32 / 512;
                b.resize(b.len() + TABLE_LEN as usize, 0);
                set(b, 2048 + 4, end);
                set(b, 28, end + 32);
            })
            .is_empty()
        );
        let lost = [
            // An entry, a table, and space before the free sector.
            found(|b| {
                let table = u32::from_le_bytes(b[2048..2052].try_into().unwrap()) as usize * 512;
                set(b, table, 0);
            }),
            found(|b| set(b, 2048, 0)),
            found(|b| {
                b.resize(b.len() + 4096, 7);
                let end = b.len() as u32 / 512;
                set(b, 28, end);
            }),
        ];
        for findings in lost {
            let [f] = findings.as_slice() else {
                panic!("{findings:?}");
            };
            assert_eq!((f.code, f.severity), ("space-unreferenced", Severity::Note));
        }
    }
}
