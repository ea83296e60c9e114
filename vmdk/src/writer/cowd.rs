//! vmfsSparse (COWD; fact sheet, VMDK 7).

use super::{
    Extent,
    grains::{Grains, Layout, Zeros, le32},
    hosted::take_sectors,
    saved,
};
use crate::{SECTOR, cowd::TABLE_ENTRIES};
use disk_io::{DiskError, OutFile, Result};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Sectors in a grain: what ESX uses.
pub(super) const GRAIN_SECTORS: u64 = 1;
const TABLE_SECTORS: u64 = TABLE_ENTRIES * 4 / SECTOR;
/// Where the directory is.
const GD: u64 = 4;

/// One extent. Tables get their place with their first grain, as ESX does.
#[derive(Debug)]
pub(super) struct Cowd<'f> {
    capacity: u32,
    layout: Places<'f>,
    grains: Grains,
}

#[derive(Debug)]
struct Places<'f> {
    out: OutFile<'f>,
    /// Where the tables are that have been written.
    directory: Mutex<BTreeMap<u64, u64>>,
}

impl<'f> Cowd<'f> {
    pub(super) fn new(out: OutFile<'f>, sectors: u64, child: bool) -> Result<Self> {
        let capacity = u32::try_from(sectors).map_err(|_| {
            DiskError::refused("writing a vmfsSparse extent")
                .expected("less than 2 TiB, which is all that this subformat can address")
                .found(format!("{sectors} sectors"))
                .hint("use --subformat seSparse")
        })?;
        let first = GD.saturating_add(tables(sectors).saturating_mul(4).div_ceil(SECTOR));
        Ok(Self {
            capacity,
            layout: Places {
                out,
                directory: Mutex::default(),
            },
            grains: Grains::new(
                GRAIN_SECTORS * SECTOR,
                TABLE_ENTRIES,
                sectors.saturating_mul(SECTOR),
                // The format has no entry for zeros.
                if child { Zeros::Stored } else { Zeros::LeftOut },
                first,
            ),
        })
    }
}

fn tables(sectors: u64) -> u64 {
    sectors.div_ceil(TABLE_ENTRIES * GRAIN_SECTORS)
}

impl Layout for Places<'_> {
    fn room(&self, next: &mut u64) -> u64 {
        let place = *next;
        *next = place.saturating_add(TABLE_SECTORS);
        place
    }

    fn put_table(&self, table: u64, place: u64, entries: &[u64]) -> Result<()> {
        let bytes = le32(entries);
        self.out.put(&bytes, place.saturating_mul(SECTOR))?;
        self.directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(table, place);
        Ok(())
    }

    fn out(&self) -> &OutFile<'_> {
        &self.out
    }

    fn grain(&self, next: &mut u64) -> Result<u64> {
        take_sectors(next, GRAIN_SECTORS)
    }
}

impl Extent for Cowd<'_> {
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
        self.layout.out.set_len(next.saturating_mul(SECTOR))
    }

    fn finish(&self) -> Result<()> {
        let out = &self.layout.out;
        self.grains.finish(&self.layout)?;
        let next = self.grains.next();
        out.set_len(next.saturating_mul(SECTOR))?;
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        let directory = self
            .layout
            .directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = tables(u64::from(self.capacity));
        let bytes: Vec<u8> = (0..count)
            .flat_map(|table| small(directory.get(&table).copied().unwrap_or(0)))
            .collect();
        out.put(&bytes, GD * SECTOR)?;
        let mut header = b"COWD".to_vec();
        for value in [
            1,
            3,
            u64::from(self.capacity),
            GRAIN_SECTORS,
            GD,
            count,
            next,
        ] {
            header.extend(small(value));
        }
        header.resize(crate::cowd::HEADER_LEN, 0);
        out.put(&header, 0)
    }
}
