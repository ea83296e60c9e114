//! Windows' own: NTFS, FAT, exFAT, ReFS, BitLocker, dynamic disks, Storage Spaces.

use super::{Recognised, probe::Probe};
use crate::{FsKind, Name, exfat, fat};

/// A BitLocker volume, of Vista, of Windows 7 and later, or "to go".
pub(super) fn bitlocker(probe: &Probe) -> Option<Recognised> {
    let guid: [u8; 16] = [
        0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0,
        0x01,
    ];
    let to_go = probe.is(3, b"MSWIN4.1") && probe.is(424, &guid);
    let fixed = probe.is(3, b"-FVE-FS-");
    (to_go || fixed).then(|| Recognised::new(FsKind::BitLocker))
}

/// A file system whose boot sector is sector 0.
pub(super) fn boot_sector(probe: &Probe) -> Option<Recognised> {
    ntfs(probe, 0)
        .or_else(|| exfat(probe))
        .or_else(|| refs(probe))
        .or_else(|| fat(probe))
}

/// The copy of a boot sector, where sector 0 is damaged.
pub(super) fn backup_boot_sector(probe: &Probe) -> Option<Recognised> {
    if let Ok(Some(found)) = fat::recognise_backup(probe.disk()) {
        return Some(found);
    }
    if let Ok(Some(found)) = exfat::recognise_backup(probe.disk()) {
        return Some(found);
    }
    let unit = u64::from(probe.disk().sector_size()).max(512);
    let len = probe.disk().len();
    [unit, 512]
        .into_iter()
        .find_map(|back| ntfs(probe, len.checked_sub(back)?))
}

fn ntfs(probe: &Probe, at: u64) -> Option<Recognised> {
    if !probe.is(at.checked_add(3)?, b"NTFS    ") {
        return None;
    }
    let sector = u64::from(probe.u16_le(at.checked_add(0x0b)?)?);
    if !sector.is_power_of_two() || !(256..=4096).contains(&sector) {
        return None;
    }
    let raw = probe.bytes(at.checked_add(0x0d)?, 1)?.first().copied()?;
    // Above 0x80 the byte is a negative power of two: clusters over 64 KiB.
    let cluster = match raw {
        0 => return None,
        1..=0x80 => sector.checked_mul(u64::from(raw))?,
        _ => sector.checked_shl(u32::from(raw.wrapping_neg()))?,
    };
    let total = probe.u64_le(at.checked_add(0x28)?)?;
    let mft = probe.u64_le(at.checked_add(0x30)?)?;
    let serial = probe.u64_le(at.checked_add(0x48)?)?;
    let size = total.checked_mul(sector)?;
    if total == 0 || mft.checked_mul(cluster)? >= size {
        return None;
    }
    let label = mft
        .checked_mul(cluster)
        .and_then(|mft| ntfs_label(probe, mft, at, cluster));
    Some(
        Recognised::new(FsKind::Ntfs)
            .label(label)
            .uuid(Some(format!("{serial:016X}")))
            .size(Some(size)),
    )
}

/// The label: attribute $VOLUME_NAME, always resident, of file record 3. A look for the
/// sake of a listing; the reader proper does it with all checks.
fn ntfs_label(probe: &Probe, mft: u64, boot: u64, cluster: u64) -> Option<Name> {
    let raw = i64::from(
        probe
            .bytes(boot.checked_add(0x40)?, 1)?
            .first()?
            .cast_signed(),
    );
    let record_size = if raw > 0 {
        cluster.checked_mul(raw.unsigned_abs())?
    } else {
        1u64.checked_shl(u32::try_from(raw.unsigned_abs()).ok()?)?
    };
    if !(256..=65536).contains(&record_size) {
        return None;
    }
    let at = mft.checked_add(record_size.checked_mul(3)?)?;
    let mut record = probe.bytes(at, usize::try_from(record_size).ok()?)?;
    if !record.starts_with(b"FILE") {
        return None;
    }
    // Update sequence: the last two bytes of each 512 are kept in an array.
    let usa = usize::from(u16_at(&record, 4)?);
    let count = usize::from(u16_at(&record, 6)?);
    for n in 1..count {
        let from = usa.checked_add(n.checked_mul(2)?)?;
        let kept: [u8; 2] = record.get(from..from.checked_add(2)?)?.try_into().ok()?;
        let end = n.checked_mul(512)?;
        record
            .get_mut(end.checked_sub(2)?..end)?
            .copy_from_slice(&kept);
    }
    let mut at = usize::from(u16_at(&record, 0x14)?);
    for _ in 0..64 {
        let kind = u32_at(&record, at)?;
        if kind == 0x60 && record.get(at.checked_add(8)?)? == &0 {
            let len = usize::try_from(u32_at(&record, at.checked_add(0x10)?)?).ok()?;
            let from = at.checked_add(usize::from(u16_at(&record, at.checked_add(0x14)?)?))?;
            let units = record.get(from..from.checked_add(len)?)?;
            return Some(Name::from_utf16(
                units
                    .chunks_exact(2)
                    .filter_map(|b| Some(u16::from_le_bytes(b.try_into().ok()?))),
            ));
        }
        let len = usize::try_from(u32_at(&record, at.checked_add(4)?)?).ok()?;
        if kind == u32::MAX || len < 16 {
            return None;
        }
        at = at.checked_add(len)?;
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let b = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(b.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let b = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(b.try_into().ok()?))
}

fn fat(probe: &Probe) -> Option<Recognised> {
    fat::recognise(probe.disk()).ok().flatten()
}

fn exfat(probe: &Probe) -> Option<Recognised> {
    exfat::recognise(probe.disk()).ok().flatten()
}

fn refs(probe: &Probe) -> Option<Recognised> {
    if !probe.is(3, b"ReFS\0\0\0\0") || !probe.is(0x10, b"FSRS") {
        return None;
    }
    let sectors = probe.u64_le(0x18)?;
    let sector = u64::from(probe.u32_le(0x20)?);
    Some(Recognised::new(FsKind::Refs).size(sectors.checked_mul(sector)))
}

/// A dynamic disk seen whole: its private header is in sector 6, or in the metadata
/// partition, whose last sectors hold it, on a GPT disk.
pub(super) fn ldm(probe: &Probe) -> Option<Recognised> {
    let len = probe.disk().len();
    let places = [
        Some(6 * 512),
        len.checked_sub(512),
        len.checked_sub(512 * 1856),
    ];
    let at = places
        .into_iter()
        .flatten()
        .find(|at| probe.is(*at, b"PRIVHEAD"))?;
    let disk_id = probe.text(at.checked_add(0x30)?, 64)?;
    Some(Recognised::new(FsKind::Ldm).uuid(disk_id.as_str().map(str::to_owned)))
}

/// A member of a pool: its header begins with `SPACEDB `.
pub(super) fn storage_spaces(probe: &Probe) -> Option<Recognised> {
    [0, 4096]
        .iter()
        .any(|at| probe.is(*at, b"SPACEDB "))
        .then(|| Recognised::new(FsKind::StorageSpaces))
}
