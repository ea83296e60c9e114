//! streamOptimized.

use super::{
    Cell, Cells, File,
    hosted::{self, encode_header},
    le32, small,
};
use crate::{
    SECTOR,
    hosted::header::{GD_AT_END, HEADER_LEN, flags},
};
use libdeflater::{CompressionLvl, Compressor};

/// Where a reader finds the directory (fact sheet, VMDK 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In a footer, behind everything: VMware and VirtualBox.
    Footer,
    /// In the header, before the grains: open-vmdk, and qemu without the end marker.
    Header,
}

/// How the extent is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the directory is.
    pub layout: Layout,
    /// Header version: 3, or 1 for old writers.
    pub version: u32,
    /// Sectors in a grain.
    pub grain_size: u64,
    /// The embedded descriptor.
    pub descriptor: String,
    /// Whether a last grain that the disk's end cuts is filled up before it is compressed.
    pub pad_last: bool,
    /// Compression level, 0 (stored) to 12.
    pub level: i32,
}

/// Entries of a table.
const ENTRIES: u64 = 512;

/// A metadata marker: how many sectors follow and what they are.
fn marker(sectors: u64, kind: u32) -> Vec<u8> {
    let mut bytes = sectors.to_le_bytes().to_vec();
    bytes.extend(le32(&[0, kind]));
    bytes.resize(SECTOR as usize, 0);
    bytes
}

/// A zlib stream.
fn deflate(bytes: &[u8], level: i32) -> Vec<u8> {
    let level = CompressionLvl::new(level).unwrap_or_default();
    let mut compressor = Compressor::new(level);
    let mut out = vec![0; compressor.zlib_compress_bound(bytes.len())];
    // The bound is what makes this succeed.
    let n = compressor
        .zlib_compress(bytes, &mut out)
        .unwrap_or_default();
    out.truncate(n);
    out
}

/// Writes an extent of `capacity` sectors. Grains of zeros are left out.
pub fn encode(options: &Options, capacity: u64, cells: Cells) -> Vec<u8> {
    let base = hosted::Options {
        version: options.version,
        grain_size: options.grain_size,
        num_gtes_per_gt: ENTRIES as u32,
        redundant: false,
        descriptor: Some(options.descriptor.clone()),
        ..hosted::Options::default()
    };
    let mut header = base.header(capacity);
    header.flags |= flags::COMPRESSED | flags::MARKERS;
    header.compress_algorithm = 1;
    let tables = header.tables();
    let gd_sectors = (tables * 4).div_ceil(SECTOR);
    let gt_sectors = ENTRIES * 4 / SECTOR;
    let mut file = File::default();
    file.push(&[0; HEADER_LEN]);
    file.append(options.descriptor.as_bytes(), hosted::DESCRIPTOR_SECTORS);
    let mut directory = vec![0u32; tables as usize];
    if options.layout == Layout::Header {
        header.gd_offset = file.append(&[], gd_sectors);
        for place in &mut directory {
            *place = small(file.append(&[], gt_sectors));
        }
    }
    file.align(options.grain_size);
    header.over_head = file.sector();
    let mut entries = vec![vec![0u32; ENTRIES as usize]; tables as usize];
    let data = |cell: &Cell| match cell {
        Cell::Data(bytes) if !disk_io::zero::is_zero(bytes) => Some(bytes.clone()),
        _ => None,
    };
    for (index, (grain, cell)) in cells.iter().enumerate() {
        let table = (grain / ENTRIES) as usize;
        if let Some(mut bytes) = data(cell) {
            let whole = options
                .grain_size
                .min(capacity - grain * options.grain_size);
            let len = if options.pad_last {
                options.grain_size
            } else {
                whole
            };
            bytes.resize((len * SECTOR) as usize, 0);
            let packed = deflate(&bytes, options.level);
            let mut block = (grain * options.grain_size).to_le_bytes().to_vec();
            block.extend((packed.len() as u32).to_le_bytes());
            block.extend(packed);
            entries[table][(grain % ENTRIES) as usize] = small(file.push(&block));
        }
        let more = cells[index + 1..]
            .iter()
            .any(|(g, _)| (g / ENTRIES) as usize == table);
        if options.layout == Layout::Footer && !more && entries[table].iter().any(|e| *e > 0) {
            file.push(&marker(gt_sectors, 1));
            directory[table] = small(file.push(&le32(&entries[table])));
        }
    }
    match options.layout {
        Layout::Header => {
            for (place, table) in directory.iter().zip(&entries) {
                file.put(u64::from(*place), &le32(table));
            }
            file.put(header.gd_offset, &le32(&directory));
        }
        Layout::Footer => {
            file.push(&marker(gd_sectors, 2));
            let place = file.push(&le32(&directory));
            file.push(&marker(1, 3));
            header.gd_offset = place;
            file.push(&encode_header(&header));
            header.gd_offset = GD_AT_END;
        }
    }
    file.push(&marker(0, 0));
    file.put(0, &encode_header(&header));
    file.0
}
