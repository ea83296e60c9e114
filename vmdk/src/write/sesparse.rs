//! seSparse. Journal, free bitmap and back map are left empty: what is in them is not known,
//! and reading does not need it (fact sheet, VMDK 8.3).

use super::{Cell, Cells, File, le64};
use crate::{
    SECTOR,
    sesparse::{GRAIN_SECTORS, MAGIC, TABLE_ENTRIES, TABLE_SECTORS, VERSION, VOLATILE_MAGIC},
};
use std::collections::BTreeMap;

/// Sectors of the areas that are not used.
const UNUSED: u64 = 8;

/// Writes an extent of `capacity` sectors. Tables and grains are numbered in the order in
/// which `cells` come. `dirty` says that the journal was not replayed.
pub fn encode(capacity: u64, cells: Cells, dirty: bool) -> Vec<u8> {
    let tables = capacity.div_ceil(TABLE_ENTRIES * GRAIN_SECTORS);
    let gd_sectors = (tables * 8).div_ceil(SECTOR);
    let grains = capacity.div_ceil(GRAIN_SECTORS);
    let mut file = File::default();
    // Constant header, volatile header, journal header.
    file.append(&[], 4);
    let journal = file.append(&[], UNUSED);
    let gd = file.append(&[], gd_sectors);
    let gts = file.append(&[], tables * TABLE_SECTORS);
    let bitmap = file.append(&[], UNUSED);
    let backmap = file.append(&[], UNUSED);
    file.align(GRAIN_SECTORS);
    let grains_at = file.sector();
    let mut numbers: BTreeMap<u64, u64> = BTreeMap::new();
    let mut entries = vec![vec![0u64; TABLE_ENTRIES as usize]; tables as usize];
    let mut stored = 0u64;
    for (grain, cell) in cells {
        let table = grain / TABLE_ENTRIES;
        let next = numbers.len() as u64;
        numbers.entry(table).or_insert(next);
        let entry = match cell {
            Cell::Unmapped => 1 << 60,
            Cell::Zero => 2 << 60,
            Cell::Data(bytes) => {
                file.append(bytes, GRAIN_SECTORS);
                let index = stored;
                stored += 1;
                3 << 60 | (index & 0xfff) << 48 | index >> 12
            }
        };
        entries[table as usize][(grain % TABLE_ENTRIES) as usize] = entry;
    }
    let mut directory = vec![0u64; tables as usize];
    for (table, number) in &numbers {
        directory[*table as usize] = 0x1000_0000 << 32 | number;
        file.put(
            gts + number * TABLE_SECTORS,
            &le64(&entries[*table as usize]),
        );
    }
    file.put(gd, &le64(&directory));
    let mut header = vec![
        MAGIC,
        VERSION,
        capacity,
        GRAIN_SECTORS,
        TABLE_SECTORS,
        0,
        0,
        0,
        0,
        0,
    ];
    for (at, len) in [
        (1, 1),
        (2, 2),
        (journal, UNUSED),
        (gd, gd_sectors),
        (gts, tables * TABLE_SECTORS),
        (bitmap, UNUSED),
        (backmap, UNUSED),
        (grains_at, grains * GRAIN_SECTORS),
    ] {
        header.extend([at, len]);
    }
    file.put(0, &le64(&header));
    file.put(
        1,
        &le64(&[VOLATILE_MAGIC, numbers.len() as u64, 1, u64::from(dirty)]),
    );
    file.0
}
