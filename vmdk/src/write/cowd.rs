//! vmfsSparse (COWD).

use super::{Cell, Cells, File, le32, small};
use crate::{
    SECTOR,
    cowd::{HEADER_LEN, TABLE_ENTRIES},
};

/// Writes an extent of `capacity` sectors with grains of `grain_size` sectors. Tables are
/// allocated when their first grain comes. The format has no grain of zeros, so zeros are
/// stored.
pub fn encode(capacity: u32, grain_size: u32, cells: Cells) -> Vec<u8> {
    let grain = u64::from(grain_size);
    let tables = u64::from(capacity).div_ceil(TABLE_ENTRIES * grain);
    let mut file = File::default();
    file.push(&[0; HEADER_LEN]);
    let gd_offset = file.append(&[], (tables * 4).div_ceil(SECTOR));
    let mut directory = vec![0u32; tables as usize];
    let mut entries = vec![vec![0u32; TABLE_ENTRIES as usize]; tables as usize];
    for (number, cell) in cells {
        let table = (number / TABLE_ENTRIES) as usize;
        if directory[table] == 0 {
            directory[table] = small(file.append(&[], TABLE_ENTRIES * 4 / SECTOR));
        }
        let bytes: &[u8] = match cell {
            Cell::Data(bytes) => bytes,
            Cell::Zero | Cell::Unmapped => &[],
        };
        entries[table][(number % TABLE_ENTRIES) as usize] = small(file.append(bytes, grain));
    }
    for (place, table) in directory.iter().zip(&entries).filter(|(p, _)| **p > 0) {
        file.put(u64::from(*place), &le32(table));
    }
    file.put(gd_offset, &le32(&directory));
    let mut header = b"COWD".to_vec();
    header.extend(le32(&[
        1,
        3,
        capacity,
        grain_size,
        small(gd_offset),
        tables as u32,
        small(file.sector()),
    ]));
    file.put(0, &header);
    file.0
}
