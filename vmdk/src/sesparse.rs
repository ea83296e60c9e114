//! Space-efficient sparse extents (`-sesparse.vmdk`; fact sheet, VMDK 8).

use crate::{
    directory::Directory,
    extent::{ExtentMap, Seat},
    link::Counts,
    tables::{self, Cell, Tables},
};
use disk_io::{Disk, DiskError, Fields, Finding, Mapping, Result, finding::Visit};
use std::sync::Arc;

/// Magic of the constant header.
pub const MAGIC: u64 = 0xcafe_babe;
/// Magic of the volatile header.
pub const VOLATILE_MAGIC: u64 = 0xcafe_cafe;
/// The only known version, 2.1.
pub const VERSION: u64 = 0x2_0000_0001;
/// Sectors in a grain.
pub const GRAIN_SECTORS: u64 = 8;
/// Sectors in a grain table.
pub const TABLE_SECTORS: u64 = 64;
/// Entries in a grain table.
pub const TABLE_ENTRIES: u64 = 4096;

const GRAIN: u64 = GRAIN_SECTORS * crate::SECTOR;
const TABLE_LEN: u64 = TABLE_SECTORS * crate::SECTOR;
/// High half of a directory entry that names a table.
const GDE_PRESENT: u64 = 0x1000_0000;

/// The constant header; only what reading needs. Places and lengths are in sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the extent.
    pub capacity: u64,
    /// Where the volatile header is.
    pub volatile_header: u64,
    /// Place and length of the grain directory.
    pub gd: (u64, u64),
    /// Place and length of all grain tables.
    pub gts: (u64, u64),
    /// Place and length of all grains.
    pub grains: (u64, u64),
}

impl Header {
    /// Reads and checks the constant header. `name` is for messages.
    ///
    /// # Errors
    /// `Unsupported` for anything but the one layout that is known, `Corrupt` for what
    /// contradicts itself.
    pub fn read(disk: &dyn Disk, name: &str) -> Result<Self> {
        if disk.len() < crate::SECTOR {
            return Err(DiskError::corrupt("reading the seSparse header")
                .file(name)
                .expected("512 bytes")
                .found(format!("a file of {}", disk.len())));
        }
        let mut bytes = [0; crate::SECTOR as usize];
        disk.read_exact_at(&mut bytes, 0)?;
        Self::parse(&bytes).map_err(|e| e.file(name))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let f = Fields::new(bytes, 0, "seSparse header");
        if f.u64_le(0)? != MAGIC {
            return Err(f.corrupt(0, "constMagic").expected(format!("{MAGIC:#x}")));
        }
        // The format is not published; every reader takes only these values.
        for (at, field, expected) in [
            (8, "version", VERSION),
            (24, "grainSize", GRAIN_SECTORS),
            (32, "grainTableSize", TABLE_SECTORS),
            (40, "flags", 0),
            (48, "reserved1", 0),
            (56, "reserved2", 0),
            (64, "reserved3", 0),
            (72, "reserved4", 0),
        ] {
            let found = f.u64_le(at)?;
            if found != expected {
                return Err(DiskError::unsupported("opening an seSparse extent")
                    .offset(f.place(at))
                    .expected(format!("{field} {expected:#x}"))
                    .found(format!("{found:#x}")));
            }
        }
        let pair = |at: usize| Ok::<_, DiskError>((f.u64_le(at)?, f.u64_le(at.saturating_add(8))?));
        let header = Self {
            capacity: f.u64_le(16)?,
            volatile_header: f.u64_le(80)?,
            gd: pair(128)?,
            gts: pair(144)?,
            grains: pair(192)?,
        };
        // One that is moved reads as nothing, or as other grains.
        let areas: [(&str, usize); 9] = [
            ("the constant header", 0),
            ("the volatile header", 80),
            ("the journal header", 96),
            ("the journal", 112),
            ("the grain directory", 128),
            ("the grain tables", 144),
            ("the free bitmap", 160),
            ("the backmap", 176),
            ("the grains", 192),
        ];
        let place = |at| if at == 0 { Ok((0, 1)) } else { pair(at) };
        for (number, (what, at)) in areas.iter().enumerate() {
            let (start, len) = place(*at)?;
            for (other, before) in areas.iter().take(number) {
                let (from, sectors) = place(*before)?;
                let apart =
                    start >= from.saturating_add(sectors) || from >= start.saturating_add(len);
                if len > 0 && sectors > 0 && !apart {
                    return Err(f
                        .corrupt(*at, what)
                        .expected(format!("a place that {other} does not have"))
                        .found(format!("{len} sectors from {start}, {sectors} from {from}")));
                }
            }
        }
        if crate::bytes(header.capacity).is_none() {
            return Err(f
                .corrupt(16, "capacity")
                .expected("less than 2^63 bytes")
                .found(format!("{} sectors", header.capacity)));
        }
        Ok(header)
    }

    /// Number of grain tables that the extent needs.
    pub fn tables(&self) -> u64 {
        self.capacity
            .div_ceil(TABLE_ENTRIES.saturating_mul(GRAIN_SECTORS))
    }

    /// Whether the journal holds changes that the tables do not: the extent's real contents
    /// are then not what the tables say.
    pub fn journal_is_dirty(&self, disk: &dyn Disk, name: &str) -> Result<bool> {
        Ok(self.volatile(disk, name)?.1 != 0)
    }

    /// Grain tables that were given out, as the volatile header says (freeGTNumber).
    fn tables_in_use(&self, disk: &dyn Disk, name: &str) -> Result<u64> {
        Ok(self.volatile(disk, name)?.0)
    }

    /// freeGTNumber and replayJournal of the volatile header.
    fn volatile(&self, disk: &dyn Disk, name: &str) -> Result<(u64, u64)> {
        let bad =
            || DiskError::corrupt("reading the volatile header of an seSparse extent").file(name);
        let at = crate::bytes(self.volatile_header).ok_or_else(|| {
            bad()
                .offset(80)
                .found(format!("sector {}", self.volatile_header))
        })?;
        let mut bytes = [0; 32];
        if at.saturating_add(bytes.len() as u64) > disk.len() {
            return Err(bad().offset(at).expected("a place inside the file"));
        }
        disk.read_exact_at(&mut bytes, at)?;
        let f = Fields::new(&bytes, at, "seSparse volatile header");
        let magic = f.u64_le(0)?;
        if magic != VOLATILE_MAGIC {
            return Err(f
                .corrupt(0, "volatileMagic")
                .file(name)
                .expected(format!("{VOLATILE_MAGIC:#x}"))
                .found(format!("{magic:#x}")));
        }
        Ok((f.u64_le(8)?, f.u64_le(24)?))
    }
}

/// An seSparse extent with its tables.
#[derive(Debug)]
pub(crate) struct SeSparse {
    file: Arc<dyn Disk>,
    seat: Seat,
    len: u64,
    gd: Directory,
    /// Byte range of the tables.
    gts: (u64, u64),
    /// Byte range of the grains.
    grains: (u64, u64),
}

impl SeSparse {
    /// Opens the tables of an extent of `len` bytes.
    pub(crate) fn open(file: Arc<dyn Disk>, seat: Seat, header: &Header, len: u64) -> Result<Self> {
        let bad = |at: u64, what: &str| {
            DiskError::corrupt(format!("finding {what}"))
                .code("grain-directory-outside-file")
                .file(&seat.name)
                .offset(at)
                .expected(format!("a place inside the file of {} bytes", file.len()))
        };
        let range = |(start, len): (u64, u64)| {
            let start = crate::bytes(start).filter(|s| *s > 0)?;
            Some((start, start.checked_add(crate::bytes(len)?)?))
        };
        let gd = range(header.gd).ok_or_else(|| bad(128, "the grain directory"))?;
        let gts = range(header.gts).ok_or_else(|| bad(144, "the grain tables"))?;
        let grains = range(header.grains).ok_or_else(|| bad(192, "the grains"))?;
        let needed = header.tables().saturating_mul(8);
        if gd.1.saturating_sub(gd.0) < needed {
            return Err(bad(136, "the grain directory")
                .expected(format!("{needed} bytes"))
                .found(format!("{} sectors", header.gd.1)));
        }
        let gd = Directory::new(
            file.clone(),
            seat.number,
            gd.0,
            header.tables(),
            8,
            seat.pieces.clone(),
        )
        .ok_or_else(|| bad(128, "the grain directory"))?;
        // Where a directory without a table is taken for one, everything is the parent's.
        let tables = header.tables_in_use(&*file, &seat.name)?;
        if tables > 0 && file.len() > grains.0 && gd.is_zero(u64::MAX) == Some(true) {
            return Err(DiskError::corrupt("opening the grain directory")
                .file(&seat.name)
                .offset(gd.place(0))
                .expected(format!("{tables} tables, as the volatile header says"))
                .found("a directory that leads to none"));
        }
        Ok(Self {
            file,
            seat,
            len,
            gd,
            gts,
            grains,
        })
    }

    fn bad(&self, what: String, entry: u64) -> DiskError {
        DiskError::corrupt(what)
            .file(&self.seat.name)
            .found(format!("entry {entry:#018x}"))
    }
}

/// Where a grain is, from an entry that says "allocated": the low 12 bits of the index sit
/// above the high 48 (fact sheet, VMDK 8.3).
fn grain_index(entry: u64) -> u64 {
    (entry >> 48 & 0xfff) | (entry & 0xffff_ffff_ffff) << 12
}

impl Tables for SeSparse {
    type Block = Vec<u8>;

    fn grain(&self) -> u64 {
        GRAIN
    }

    fn block_entries(&self) -> u64 {
        TABLE_ENTRIES
    }

    fn block(&self, number: u64) -> Result<Option<Vec<u8>>> {
        let entry = self.gd.get(number)?;
        if entry == 0 {
            return Ok(None);
        }
        let doing = || format!("finding grain table {number}");
        if entry >> 32 != GDE_PRESENT {
            return Err(self
                .bad(doing(), entry)
                .code("grain-directory-entry-invalid")
                .offset(self.gd.place(number))
                .expected("0, or 0x10000000 in the high half"));
        }
        let index = entry & 0xffff_ffff;
        let at = self.gts.0.saturating_add(index.saturating_mul(TABLE_LEN));
        let end = at.saturating_add(TABLE_LEN);
        if end > self.gts.1 || end > self.file.len() {
            return Err(self
                .bad(doing(), entry)
                .code("grain-table-outside-file")
                .offset(self.gd.place(number))
                .expected("a table inside the file and the area of the tables"));
        }
        let mut table = vec![0; TABLE_LEN as usize];
        self.file.read_exact_at(&mut table, at)?;
        Ok((!disk_io::zero::is_zero(&table)).then_some(table))
    }

    fn below(&self, block: &Vec<u8>, index: usize, most: usize) -> usize {
        tables::zero_entries(block, 8, index, most)
    }

    fn cell(&self, block: &Vec<u8>, index: usize, grain: u64) -> Cell {
        let entry = index
            .checked_mul(8)
            .and_then(|at| block.get(at..)?.first_chunk())
            .map_or(0, |b| u64::from_le_bytes(*b));
        match entry >> 60 {
            _ if entry == 0 => Cell::Below,
            // The guest discarded it. One reader passes on to the parent here, the others
            // give zeros (fact sheet, VMDK 8.3): a guest must not see old data again.
            1 => Cell::Unmapped,
            2 => Cell::Zero,
            3 => {
                let needed = self
                    .len
                    .saturating_sub(grain.saturating_mul(GRAIN))
                    .min(GRAIN);
                let at = grain_index(entry)
                    .checked_mul(GRAIN)
                    .and_then(|at| at.checked_add(self.grains.0));
                let inside = |at: &u64| {
                    let end = at.saturating_add(needed);
                    end <= self.grains.1 && end <= self.file.len()
                };
                if let Some(at) = at.filter(inside) {
                    return Cell::At(at);
                }
                let error = self
                    .bad(format!("finding grain {grain}"), entry)
                    .code("grain-outside-file")
                    .expected("a place inside the file and the area of the grains");
                Cell::Bad(match at {
                    Some(at) => error.offset(at),
                    None => error,
                })
            }
            _ => Cell::Bad(
                self.bad(format!("finding grain {grain}"), entry)
                    .code("grain-entry-invalid")
                    .expected("0, or 1, 2 or 3 in the highest four bits"),
            ),
        }
    }
}

impl ExtentMap for SeSparse {
    fn map_range(&self, start: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()> {
        tables::map(self, self.seat.file, start, len, emit)
    }

    fn file(&self) -> Option<&Arc<dyn Disk>> {
        Some(&self.file)
    }

    fn count(&self, len: u64, counts: &mut Counts) -> Result<()> {
        tables::count(self, len, counts)
    }

    /// Grains of the file that no entry names: what the guest discarded and the host keeps for
    /// later, or what an entry that was lost named (fact sheet, VMDK 8.3: the free bitmap would
    /// tell, and its layout is not known).
    fn check(&self, _start: u64, visit: Visit<'_>) -> Result<()> {
        let mut stored = 0u64;
        tables::for_each(self, self.len, &mut |_, cell| {
            if matches!(cell, Cell::At(_)) {
                stored = stored.saturating_add(GRAIN);
            }
        })?;
        let room = self.file.len().min(self.grains.1);
        let room = room.saturating_sub(self.grains.0);
        let room = room.saturating_sub(crate::split(room, GRAIN).1);
        if room > stored {
            let e = DiskError::corrupt("adding up what the grains take")
                .file(&self.seat.name)
                .expected(format!("{stored} bytes in the area of the grains"))
                .found(format!(
                    "{room}: {} bytes are used by nothing: freed, or of an entry that is lost",
                    room.saturating_sub(stored)
                ));
            visit(Finding::note("space-unreferenced", e));
        }
        Ok(())
    }
}
