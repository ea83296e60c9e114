//! Hosted sparse extents: monolithicSparse, and the pieces of twoGbMaxExtentSparse.

use super::{
    Extent, Plan,
    grains::{Grains, Layout, Zeros, le32},
    saved,
};
use crate::{
    SECTOR,
    hosted::header::{Header, NEWLINE_TEST, flags},
    write::hosted::encode_header,
};
use disk_io::{DiskError, OutFile, Result};
use std::collections::BTreeMap;

/// Sectors in a grain.
pub(super) const GRAIN_SECTORS: u64 = 128;
const GRAIN: u64 = GRAIN_SECTORS * SECTOR;
const ENTRIES: u64 = 512;
const TABLE_SECTORS: u64 = ENTRIES * 4 / SECTOR;
/// Sectors that an embedded descriptor gets, as most writers do (fact sheet, VMDK 2.6).
pub(super) const DESCRIPTOR_SECTORS: u64 = 20;

/// One extent. All tables have their place from the beginning, twice, as VMware has it
/// (fact sheet, VMDK 5.4); those without a grain are holes in the file.
#[derive(Debug)]
pub(super) struct Hosted<'f> {
    layout: Places<'f>,
    grains: Grains,
    header: Header,
    descriptor: Option<String>,
}

#[derive(Debug)]
struct Places<'f> {
    out: OutFile<'f>,
    /// First sectors of the two runs of tables: the redundant one, then the other.
    tables: [u64; 2],
}

impl<'f> Hosted<'f> {
    pub(super) fn new(out: OutFile<'f>, capacity: u64, plan: &Plan) -> Result<Self> {
        let descriptor = (!plan.has_descriptor_file()).then(|| plan.descriptor());
        let tables = capacity.div_ceil(ENTRIES.saturating_mul(GRAIN_SECTORS));
        let directory = tables.saturating_mul(4).div_ceil(SECTOR);
        let run = directory.saturating_add(tables.saturating_mul(TABLE_SECTORS));
        let text = if descriptor.is_some() {
            DESCRIPTOR_SECTORS
        } else {
            0
        };
        let rgd = text.saturating_add(1);
        let gd = rgd.saturating_add(run);
        let over_head = gd.saturating_add(run).next_multiple_of(GRAIN_SECTORS);
        let zeroed = plan.is_child();
        let header = Header {
            // The flag for grains of zeros needs version 2 (fact sheet, VMDK 5.2).
            version: if zeroed { 2 } else { 1 },
            flags: flags::VALID_NEWLINE_TEST
                | flags::REDUNDANT
                | if zeroed { flags::ZEROED_GRAINS } else { 0 },
            capacity,
            grain_size: GRAIN_SECTORS,
            descriptor_offset: u64::from(descriptor.is_some()),
            descriptor_size: text,
            num_gtes_per_gt: ENTRIES as u32,
            rgd_offset: rgd,
            gd_offset: gd,
            over_head,
            unclean_shutdown: false,
            compress_algorithm: 0,
            newline_test: NEWLINE_TEST,
        };
        let zeros = if zeroed {
            Zeros::Entry(1)
        } else {
            Zeros::LeftOut
        };
        Ok(Self {
            layout: Places {
                out,
                tables: [rgd.saturating_add(directory), gd.saturating_add(directory)],
            },
            grains: Grains::new(
                GRAIN,
                ENTRIES,
                capacity.saturating_mul(SECTOR),
                zeros,
                over_head,
            ),
            header,
            descriptor,
        })
    }
}

impl Layout for Places<'_> {
    fn put_table(&self, table: u64, _place: u64, entries: &[u64]) -> Result<()> {
        let bytes = le32(entries);
        for first in self.tables {
            let sector = first.saturating_add(table.saturating_mul(TABLE_SECTORS));
            self.out.put(&bytes, sector.saturating_mul(SECTOR))?;
        }
        Ok(())
    }

    fn out(&self) -> &OutFile<'_> {
        &self.out
    }

    fn grain(&self, next: &mut u64) -> Result<u64> {
        take_sectors(next, GRAIN_SECTORS)
    }
}

/// Takes sectors of a file in which places have 32 bits.
pub(super) fn take_sectors(next: &mut u64, count: u64) -> Result<u64> {
    let place = *next;
    if u32::try_from(place).is_err() {
        return Err(DiskError::refused("storing a grain")
            .expected(
                "less than 2 TiB of stored data, which is all that this subformat can address",
            )
            .hint("use --subformat twoGbMaxExtentSparse, monolithicFlat or seSparse"));
    }
    *next = place.saturating_add(count);
    Ok(place)
}

impl Extent for Hosted<'_> {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.grains.write_at(&self.layout, bytes, offset)
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        self.grains.zero_at(&self.layout, offset, len)
    }

    fn save(&self) -> Result<saved::Piece> {
        Ok(saved::Piece::Grains {
            tables: self.grains.save(),
            directory: BTreeMap::new(),
        })
    }

    fn restore(&self, saved: &saved::Piece) -> Result<()> {
        let saved::Piece::Grains { tables, .. } = saved else {
            return Err(saved::other());
        };
        let next = self.grains.restore(tables);
        self.layout.out.set_len(next.saturating_mul(SECTOR))
    }

    fn finish(&self) -> Result<()> {
        let out = &self.layout.out;
        self.grains.finish(&self.layout)?;
        // The last grain is whole even where only its beginning was written.
        out.set_len(self.grains.next().saturating_mul(SECTOR))?;
        let tables = self.header.tables();
        for (at, first) in [self.header.rgd_offset, self.header.gd_offset]
            .into_iter()
            .zip(self.layout.tables)
        {
            let directory: Vec<u8> = (0..tables)
                .map(|t| first.saturating_add(t.saturating_mul(TABLE_SECTORS)))
                .flat_map(|sector| u32::try_from(sector).unwrap_or(u32::MAX).to_le_bytes())
                .collect();
            out.put(&directory, at.saturating_mul(SECTOR))?;
        }
        if let Some(text) = &self.descriptor {
            out.put(text.as_bytes(), SECTOR)?;
        }
        out.put(&encode_header(&self.header), 0)
    }
}
