//! GUID partition tables: header, entries, and the backup at the end of the disk.

use super::{Partition, Scheme, Table, mbr::Mbr, types};
use disk_io::{Disk, DiskError, Fields, Result};
use std::sync::Arc;

/// The entry array is checked as a whole, so it is read as a whole: real ones have 16 KiB.
const MAX_ARRAY: u64 = 4 << 20;

/// What came of looking for a table.
#[derive(Debug)]
pub enum Found {
    /// A table, good or salvaged (its remarks say which).
    Table(Table),
    /// The table of the backup at the end.
    Backup {
        /// The table.
        table: Table,
        /// Whether there is a header in sector 1, which is damaged, or whose entries are.
        primary: bool,
    },
    /// Headers, but none that can be used: why.
    Damaged(Vec<String>),
    /// No header.
    Nothing,
}

/// A header whose checksum is right.
#[derive(Clone, Copy, Debug)]
struct Header {
    alternate: u64,
    disk_guid: [u8; 16],
    /// First sector that partitions may have.
    first_usable: u64,
    entries_lba: u64,
    count: u32,
    entry_size: u32,
    entries_crc: u32,
}

/// Looks for a table in the disk's own sector size, then in the other.
pub fn read(disk: &Arc<dyn Disk>, mbr: Option<&Mbr>) -> Found {
    let stated = disk.sector_size();
    let other = if stated == 4096 { 512 } else { 4096 };
    let mut why = Vec::new();
    for size in [stated, other] {
        let found = read_with(disk, mbr, size);
        let told = |mut table: Table| {
            if size != stated && disk.states_sector_size() {
                table.remarks.push(format!(
                    "the table counts in sectors of {size} bytes although the disk says {stated}"
                ));
            }
            table
        };
        match found {
            Found::Table(table) => return Found::Table(told(table)),
            Found::Backup { table, primary } => {
                return Found::Backup {
                    table: told(table),
                    primary,
                };
            }
            Found::Damaged(remarks) => why.extend(remarks),
            Found::Nothing => {}
        }
    }
    if why.is_empty() {
        Found::Nothing
    } else {
        Found::Damaged(why)
    }
}

fn read_with(disk: &Arc<dyn Disk>, mbr: Option<&Mbr>, size: u32) -> Found {
    let unit = u64::from(size);
    let last = disk.len().checked_div(unit).unwrap_or(0).saturating_sub(1);
    let primary = copy(disk, size, 1);
    let alternate = match &primary {
        Ok(Some((header, _))) => header.alternate,
        _ => last,
    };
    let mut from_backup = false;
    let mut table = match &primary {
        Ok(Some((header, Ok(entries)))) => {
            let mut table = build(header, entries, size);
            match copy(disk, size, alternate) {
                Ok(Some((backup, Ok(others)))) => {
                    let other = build(&backup, &others, size);
                    let listed = |t: &Table| -> Vec<_> {
                        let all = t.partitions.iter();
                        all.map(|p| (p.number, p.type_id.clone(), p.start, p.len)).collect()
                    };
                    if other.uuid != table.uuid || listed(&other) != listed(&table) {
                        table.doubt(format!(
                            "the backup GUID partition table in sector {alternate} is sound and lists \
                             other partitions, or is another disk's"
                        ));
                    } else if others != *entries {
                        table.remarks.push(
                            "the backup GUID partition table has other names, attributes or identities \
                             of partitions"
                                .into(),
                        );
                    }
                }
                Ok(None) => table.remarks.push(format!(
                    "the backup GUID partition table is not in sector {alternate}: the image may be cut short"
                )),
                Ok(Some((_, Err(e)))) | Err(e) => {
                    table.remarks.push(format!("the backup GUID partition table is bad: {e}"));
                }
            }
            table
        }
        first => {
            let why = match first {
                Ok(Some((_, Err(e)))) | Err(e) => e.to_string(),
                _ => "no header in sector 1".into(),
            };
            let backup = match copy(disk, size, alternate) {
                Ok(Some((header, Ok(entries)))) => Some((header, entries, alternate)),
                _ if alternate != last => match copy(disk, size, last) {
                    Ok(Some((header, Ok(entries)))) => Some((header, entries, last)),
                    _ => None,
                },
                _ => None,
            };
            match (backup, first) {
                (Some((header, entries, at)), _) => {
                    from_backup = true;
                    let mut table = build(&header, &entries, size);
                    table.remarks.push(format!(
                        "the primary GUID partition table is bad ({why}); the backup in sector {at} is used"
                    ));
                    table
                }
                (None, Ok(None)) => return Found::Nothing,
                (None, Ok(Some((header, _)))) => match raw_entries(disk, size, header) {
                    Ok(entries) => {
                        let mut table = build(header, &entries, size);
                        table.lose(format!(
                            "the entries of the GUID partition table are not what its header vouches for ({why}), and there is no good backup: take them with care"
                        ));
                        table
                    }
                    Err(e) => return Found::Damaged(vec![e.to_string()]),
                },
                (None, Err(e)) => {
                    return Found::Damaged(vec![format!(
                        "the GUID partition table is bad and has no good backup: {e}"
                    )]);
                }
            }
        }
    };
    if mbr.is_some_and(Mbr::is_hybrid) {
        table.scheme = Scheme::HybridGpt;
        table.remarks.push(
            "the MBR lists partitions of its own (hybrid); the GUID partition table is believed"
                .into(),
        );
    }
    super::mbr::overlaps(&mut table);
    table.clamp(disk.len());
    match from_backup {
        true => Found::Backup {
            table,
            primary: !matches!(primary, Ok(None)),
        },
        false => Found::Table(table),
    }
}

type Copy = (Header, Result<Vec<u8>>);

/// One copy of the table. `None`: no signature there. An error: a header that is bad.
fn copy(disk: &Arc<dyn Disk>, size: u32, lba: u64) -> Result<Option<Copy>> {
    let offset = lba.saturating_mul(u64::from(size));
    if offset.saturating_add(u64::from(size)) > disk.len() {
        return Ok(None);
    }
    let mut sector = vec![0; usize::try_from(size).unwrap_or(512)];
    disk.read_exact_at(&mut sector, offset)?;
    if !sector.starts_with(b"EFI PART") {
        return Ok(None);
    }
    let f = Fields::new(&sector, offset, "GPT header");
    let header_size = usize::try_from(f.u32_le(12)?).unwrap_or(usize::MAX);
    if !(92..=sector.len()).contains(&header_size) {
        return Err(f
            .corrupt(12, "HeaderSize")
            .expected(format!("92 to {}", sector.len()))
            .found(header_size.to_string()));
    }
    let stored = f.u32_le(16)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(f.bytes(0, 16)?);
    crc.update(&[0; 4]);
    crc.update(f.bytes(20, header_size.saturating_sub(20))?);
    let computed = crc.finalize();
    if computed != stored {
        return Err(f
            .corrupt(16, "HeaderCRC32")
            .expected(format!("{computed:#010x}"))
            .found(format!("{stored:#010x}")));
    }
    let my_lba = f.u64_le(24)?;
    if my_lba != lba {
        return Err(f
            .corrupt(24, "MyLBA")
            .expected(lba.to_string())
            .found(my_lba.to_string()));
    }
    let mut disk_guid = [0; 16];
    disk_guid.copy_from_slice(f.bytes(56, 16)?);
    let header = Header {
        alternate: f.u64_le(32)?,
        disk_guid,
        first_usable: f.u64_le(40)?,
        entries_lba: f.u64_le(72)?,
        count: f.u32_le(80)?,
        entry_size: f.u32_le(84)?,
        entries_crc: f.u32_le(88)?,
    };
    if header.entry_size < 128
        || !header.entry_size.is_multiple_of(8)
        || u64::from(header.count).saturating_mul(u64::from(header.entry_size)) > MAX_ARRAY
    {
        return Err(f
            .corrupt(80, "the entry array")
            .expected(format!(
                "entries of at least 128 bytes, at most {MAX_ARRAY} bytes in all"
            ))
            .found(format!(
                "{} entries of {} bytes",
                header.count, header.entry_size
            )));
    }
    let entries = raw_entries(disk, size, &header).and_then(|bytes| {
        let computed = crc32fast::hash(&bytes);
        if computed == header.entries_crc {
            return Ok(bytes);
        }
        Err(DiskError::corrupt("reading the GPT entries")
            .offset(header.entries_lba.saturating_mul(u64::from(size)))
            .expected(format!("checksum {:#010x}", header.entries_crc))
            .found(format!("{computed:#010x}")))
    });
    Ok(Some((header, entries)))
}

fn raw_entries(disk: &Arc<dyn Disk>, size: u32, header: &Header) -> Result<Vec<u8>> {
    let len = u64::from(header.count).saturating_mul(u64::from(header.entry_size));
    let offset = header.entries_lba.saturating_mul(u64::from(size));
    if offset.saturating_add(len) > disk.len() {
        return Err(DiskError::corrupt("reading the GPT entries")
            .offset(offset)
            .expected(format!("{len} bytes inside the disk"))
            .found(format!("a disk of {} bytes", disk.len())));
    }
    let mut bytes = vec![0; usize::try_from(len.min(MAX_ARRAY)).unwrap_or(0)];
    disk.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn build(header: &Header, entries: &[u8], size: u32) -> Table {
    let mut table = Table::new(Scheme::Gpt, size);
    table.uuid = Some(types::guid(&header.disk_guid));
    let unit = u64::from(size);
    let step = usize::try_from(header.entry_size).unwrap_or(128).max(128);
    for (entry, number) in entries.chunks_exact(step).zip(1u32..) {
        let f = Fields::new(entry, 0, "GPT entry");
        let (Ok(kind), Ok(id)) = (f.bytes(0, 16), f.bytes(16, 16)) else {
            continue;
        };
        if kind.iter().all(|b| *b == 0) {
            continue;
        }
        let first = f.u64_le(32).unwrap_or_default();
        let last = f.u64_le(40).unwrap_or_default();
        let count = match last.checked_sub(first) {
            Some(n) => n.saturating_add(1),
            None => {
                table.remarks.push(format!(
                    "partition {number} ends (sector {last}) before it begins (sector {first})"
                ));
                0
            }
        };
        if first < header.first_usable {
            table.remarks.push(format!(
                "partition {number} begins in sector {first}, before the first that partitions may \
                 have, {}",
                header.first_usable
            ));
        }
        let units = f.bytes(56, 72).unwrap_or_default();
        let name: Vec<u16> = units
            .chunks_exact(2)
            .filter_map(|b| Some(u16::from_le_bytes([*b.first()?, *b.get(1)?])))
            .take_while(|u| *u != 0)
            .collect();
        let type_id = types::guid(kind);
        table.partitions.push(Partition {
            number,
            start: first.saturating_mul(unit),
            len: count.saturating_mul(unit),
            available: 0,
            type_name: types::gpt(&type_id).into(),
            type_id,
            name: (!name.is_empty()).then(|| String::from_utf16_lossy(&name)),
            uuid: Some(types::guid(id)),
            active: f.u64_le(48).unwrap_or_default() & 4 != 0,
            extended: false,
        });
    }
    table
}
