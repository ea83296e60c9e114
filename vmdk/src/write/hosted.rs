//! monolithicSparse and the pieces of twoGbMaxExtentSparse.

use super::{Cell, Cells, File, le32, small};
use crate::{
    SECTOR,
    hosted::header::{GD_AT_END, HEADER_LEN, Header, NEWLINE_TEST, flags},
};

/// How the extent is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// Header version.
    pub version: u32,
    /// Sectors in a grain.
    pub grain_size: u64,
    /// Entries in a table.
    pub num_gtes_per_gt: u32,
    /// Whether there are two copies of directory and tables.
    pub redundant: bool,
    /// Whether zeros may be said with a table entry of 1.
    pub zeroed_grains: bool,
    /// Whether tables without a grain are written too, as VMware does.
    pub all_tables: bool,
    /// The embedded descriptor.
    pub descriptor: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: 1,
            grain_size: 128,
            num_gtes_per_gt: 512,
            redundant: true,
            zeroed_grains: false,
            all_tables: true,
            descriptor: None,
        }
    }
}

/// Sectors that an embedded descriptor gets.
pub(super) const DESCRIPTOR_SECTORS: u64 = 20;

impl Options {
    pub(super) fn header(&self, capacity: u64) -> Header {
        Header {
            version: self.version,
            flags: flags::VALID_NEWLINE_TEST
                | (u32::from(self.redundant) * flags::REDUNDANT)
                | (u32::from(self.zeroed_grains) * flags::ZEROED_GRAINS),
            capacity,
            grain_size: self.grain_size,
            descriptor_offset: u64::from(self.descriptor.is_some()),
            descriptor_size: u64::from(self.descriptor.is_some()) * DESCRIPTOR_SECTORS,
            num_gtes_per_gt: self.num_gtes_per_gt,
            rgd_offset: 0,
            gd_offset: 0,
            over_head: 0,
            unclean_shutdown: false,
            compress_algorithm: 0,
            newline_test: NEWLINE_TEST,
        }
    }
}

/// The 512 bytes of a header.
pub fn encode_header(h: &Header) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    bytes.extend_from_slice(b"KDMV");
    bytes.extend(le32(&[h.version, h.flags]));
    for value in [
        h.capacity,
        h.grain_size,
        h.descriptor_offset,
        h.descriptor_size,
    ] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(h.num_gtes_per_gt.to_le_bytes());
    for value in [h.rgd_offset, h.gd_offset, h.over_head] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.push(u8::from(h.unclean_shutdown));
    bytes.extend(h.newline_test);
    bytes.extend(h.compress_algorithm.to_le_bytes());
    bytes.resize(HEADER_LEN, 0);
    bytes
}

/// Writes an extent of `capacity` sectors.
pub fn encode(options: &Options, capacity: u64, cells: Cells) -> Vec<u8> {
    let mut header = options.header(capacity);
    let mut file = File::default();
    file.push(&[0; HEADER_LEN]);
    if let Some(text) = &options.descriptor {
        file.append(text.as_bytes(), DESCRIPTOR_SECTORS);
    }
    let entries = u64::from(options.num_gtes_per_gt);
    let tables = header.tables();
    let mut table_bytes = vec![vec![0u32; entries as usize]; tables as usize];
    let mut used = vec![options.all_tables; tables as usize];
    for (grain, _) in cells {
        used[(grain / entries) as usize] = true;
    }
    // Room for directories and tables first: grains come last.
    let gd_sectors = (tables * 4).div_ceil(SECTOR);
    let gt_sectors = (entries * 4).div_ceil(SECTOR);
    let mut directory = || {
        let at = file.append(&[], gd_sectors);
        let places: Vec<u64> = used
            .iter()
            .map(|used| {
                if *used {
                    file.append(&[], gt_sectors)
                } else {
                    0
                }
            })
            .collect();
        (at, places)
    };
    let redundant = options.redundant.then(&mut directory);
    let first = directory();
    file.align(options.grain_size);
    header.over_head = file.sector();
    for (grain, cell) in cells {
        let entry = match cell {
            Cell::Data(bytes) => small(file.append(bytes, options.grain_size)),
            Cell::Zero | Cell::Unmapped if options.zeroed_grains => 1,
            Cell::Zero | Cell::Unmapped => small(file.append(&[], options.grain_size)),
        };
        table_bytes[(grain / entries) as usize][(grain % entries) as usize] = entry;
    }
    header.gd_offset = first.0;
    header.rgd_offset = redundant.as_ref().map_or(0, |r| r.0);
    for (at, places) in redundant.iter().chain([&first]) {
        let sectors: Vec<u32> = places.iter().map(|p| small(*p)).collect();
        file.put(*at, &le32(&sectors));
        for (place, table) in places.iter().zip(&table_bytes).filter(|(p, _)| **p > 0) {
            file.put(*place, &le32(table));
        }
    }
    debug_assert_ne!(header.gd_offset, GD_AT_END);
    file.put(0, &encode_header(&header));
    file.0
}
