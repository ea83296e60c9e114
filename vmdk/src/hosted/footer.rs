//! Finding the footer of a streamOptimized extent.

use super::header::{GD_AT_END, HEADER_LEN, Header};
use disk_io::{Disk, DiskError, Result};

/// How much of the end is looked at: a file may have been padded.
const TAIL: u64 = 64 << 10;
/// How many sectors of something else may follow the footer.
const AFTER: usize = 8;

/// The header with the real place of the directory, and whether something odd was noticed.
///
/// The footer stands at -1024, its marker before it and an end marker after it (fact sheet,
/// VMDK 6.1). Some files have lost the end marker or carry padding (13.5): the last sector
/// that holds anything but zeros, or one of the few before it, is taken if it is a footer
/// that agrees with the header.
pub(super) fn find(
    disk: &dyn Disk,
    header: &Header,
    name: &str,
) -> Result<(Header, Option<String>)> {
    let whole = disk.len().saturating_sub(disk.len() % crate::SECTOR);
    let start = whole.saturating_sub(TAIL);
    let mut tail = vec![0; usize::try_from(whole.saturating_sub(start)).unwrap_or_default()];
    disk.read_exact_at(&mut tail, start)?;
    let sectors: Vec<&[u8]> = tail.chunks_exact(HEADER_LEN).collect();
    let last = sectors
        .iter()
        .rposition(|s| !disk_io::zero::is_zero(s))
        .unwrap_or_default();
    for back in 0..=AFTER {
        let Some(at) = last.checked_sub(back) else {
            break;
        };
        let (Some(sector), Some(marker)) = (
            sectors.get(at),
            at.checked_sub(1).and_then(|m| sectors.get(m)),
        ) else {
            continue;
        };
        if !sector.starts_with(b"KDMV") || !is_footer_marker(marker) {
            continue;
        }
        let place = start.saturating_add((at as u64).saturating_mul(crate::SECTOR));
        let footer = Header::parse(sector, place).map_err(|e| e.file(name))?;
        agrees(header, &footer, place).map_err(|e| e.file(name))?;
        let end = place.saturating_add(2 * crate::SECTOR);
        let remark = (end != disk.len()).then(|| {
            format!(
                "the footer is at {place} of {} bytes, not right before the end marker that \
                 should close the file",
                disk.len()
            )
        });
        return Ok((footer, remark));
    }
    Err(
        DiskError::corrupt("looking for the footer of a streamOptimized disk")
            .code("footer-missing")
            .file(name)
            .offset(whole.saturating_sub(2 * crate::SECTOR))
            .expected("a footer, since the header gives no place of the grain directory")
            .found("none: the file is cut short or was never finished"),
    )
}

/// value 1, size 0, type 3.
fn is_footer_marker(sector: &[u8]) -> bool {
    sector.get(..16) == Some(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0])
}

fn agrees(header: &Header, footer: &Header, place: u64) -> Result<()> {
    let facts = |h: &Header| {
        (
            h.version,
            h.flags,
            h.capacity,
            h.grain_size,
            h.num_gtes_per_gt,
            h.compress_algorithm,
        )
    };
    if facts(header) != facts(footer) || footer.gd_offset == GD_AT_END {
        return Err(DiskError::corrupt("reading the footer")
            .code("footer-differs")
            .offset(place)
            .expected("the header again, with the place of the grain directory")
            .found("a footer that contradicts the header"));
    }
    Ok(())
}
