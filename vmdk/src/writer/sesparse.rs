//! seSparse (fact sheet, VMDK 8). Journal, free bitmap and back map are left empty: what is
//! in them is not known, and no reader needs it.

use super::{
    Extent,
    grains::{Grains, Layout, Zeros},
    saved,
};
use crate::{
    SECTOR,
    sesparse::{GRAIN_SECTORS, MAGIC, TABLE_ENTRIES, TABLE_SECTORS, VERSION, VOLATILE_MAGIC},
};
use disk_io::{DiskError, OutFile, Result};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

pub(super) const GRAIN: u64 = GRAIN_SECTORS * SECTOR;
/// Areas begin at multiples of this many sectors, as in ESXi's own files.
const AREA: u64 = 2048;
/// High half of a directory entry that names a table.
const GDE_PRESENT: u64 = 0x1000_0000 << 32;
const ZERO: u64 = 2 << 60;
const ALLOCATED: u64 = 3 << 60;

/// One extent.
#[derive(Debug)]
pub(super) struct SeSparse<'f> {
    capacity: u64,
    areas: Areas,
    layout: Places<'f>,
    grains: Grains,
}

/// Place and length of each area, in sectors.
#[derive(Clone, Copy, Debug)]
struct Areas {
    journal: (u64, u64),
    gd: (u64, u64),
    gts: (u64, u64),
    bitmap: (u64, u64),
    backmap: (u64, u64),
    grains: (u64, u64),
}

impl Areas {
    fn new(capacity: u64) -> Self {
        let tables = tables(capacity);
        let grains = capacity.div_ceil(GRAIN_SECTORS);
        let mut next = AREA;
        let mut area = |len: u64| {
            let place = next;
            let len = len.max(1).next_multiple_of(AREA);
            next = place.saturating_add(len);
            (place, len)
        };
        Self {
            journal: area(1),
            gd: area(tables.saturating_mul(8).div_ceil(SECTOR)),
            gts: area(tables.saturating_mul(TABLE_SECTORS)),
            // A bit, and eight bytes, for every grain.
            bitmap: area(grains.div_ceil(8 * SECTOR)),
            backmap: area(grains.div_ceil(SECTOR / 8)),
            grains: area(grains.saturating_mul(GRAIN_SECTORS)),
        }
    }
}

fn tables(capacity: u64) -> u64 {
    capacity.div_ceil(TABLE_ENTRIES * GRAIN_SECTORS)
}

#[derive(Debug)]
struct Places<'f> {
    out: OutFile<'f>,
    /// First bytes of the tables' and the grains' areas.
    gts: u64,
    grains: u64,
    /// The numbers of the tables that have been written, in the order of writing.
    directory: Mutex<BTreeMap<u64, u64>>,
}

impl<'f> SeSparse<'f> {
    pub(super) fn new(out: OutFile<'f>, capacity: u64, child: bool) -> Self {
        let areas = Areas::new(capacity);
        let zeros = if child {
            Zeros::Entry(ZERO)
        } else {
            Zeros::LeftOut
        };
        Self {
            capacity,
            areas,
            layout: Places {
                out,
                gts: areas.gts.0.saturating_mul(SECTOR),
                grains: areas.grains.0.saturating_mul(SECTOR),
                directory: Mutex::default(),
            },
            grains: Grains::new(
                GRAIN,
                TABLE_ENTRIES,
                capacity.saturating_mul(SECTOR),
                zeros,
                0,
            ),
        }
    }
}

impl Layout for Places<'_> {
    fn put_table(&self, table: u64, _place: u64, entries: &[u64]) -> Result<()> {
        let number = {
            let mut directory = self
                .directory
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let number = directory.len() as u64;
            directory.insert(table, number);
            number
        };
        let bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_le_bytes()).collect();
        let place = number.saturating_mul(TABLE_SECTORS * SECTOR);
        self.out.put(&bytes, self.gts.saturating_add(place))
    }

    fn out(&self) -> &OutFile<'_> {
        &self.out
    }

    fn byte_of(&self, place: u64) -> u64 {
        self.grains.saturating_add(place.saturating_mul(GRAIN))
    }

    fn grain(&self, next: &mut u64) -> Result<u64> {
        let place = *next;
        // 60 bits; a disk has less.
        *next = place.checked_add(1).ok_or_else(|| {
            DiskError::refused("storing a grain").expected("a grain number of 60 bits")
        })?;
        Ok(place)
    }

    /// The lowest 12 bits of the number come first (fact sheet, VMDK 8.3).
    fn entry(&self, place: u64) -> u64 {
        ALLOCATED | (place & 0xfff) << 48 | place >> 12
    }

    fn place(&self, entry: u64) -> u64 {
        (entry >> 48 & 0xfff) | (entry & 0xffff_ffff_ffff) << 12
    }
}

impl Extent for SeSparse<'_> {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.grains.write_at(&self.layout, bytes, offset)
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        self.grains.zero_at(&self.layout, offset, len)
    }

    fn save(&self) -> Result<saved::Piece> {
        Ok(saved::Piece::Grains {
            tables: self.grains.save(),
            directory: self
                .layout
                .directory
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        })
    }

    fn restore(&self, saved: &saved::Piece) -> Result<()> {
        let saved::Piece::Grains { tables, directory } = saved else {
            return Err(saved::other());
        };
        self.layout
            .directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(directory);
        let next = self.grains.restore(tables);
        self.layout.out.set_len(self.layout.byte_of(next))
    }

    fn finish(&self) -> Result<()> {
        let out = &self.layout.out;
        self.grains.finish(&self.layout)?;
        let stored = self.grains.next().saturating_mul(GRAIN);
        out.set_len(self.layout.grains.saturating_add(stored))?;
        let directory = self
            .layout
            .directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let le =
            |values: &[u64]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        let entries: Vec<u64> = (0..tables(self.capacity))
            .map(|table| directory.get(&table).map_or(0, |n| GDE_PRESENT | n))
            .collect();
        out.put(&le(&entries), self.areas.gd.0.saturating_mul(SECTOR))?;
        out.put(&le(&[VOLATILE_MAGIC, directory.len() as u64, 1, 0]), SECTOR)?;
        let mut header = vec![MAGIC, VERSION, self.capacity, GRAIN_SECTORS, TABLE_SECTORS];
        header.extend([0; 5]);
        let a = &self.areas;
        // The volatile header and the journal's header.
        for (place, len) in [
            (1, 1),
            (2, 2),
            a.journal,
            a.gd,
            a.gts,
            a.bitmap,
            a.backmap,
            a.grains,
        ] {
            header.extend([place, len]);
        }
        let mut bytes = le(&header);
        bytes.resize(SECTOR as usize, 0);
        out.put(&bytes, 0)
    }
}
