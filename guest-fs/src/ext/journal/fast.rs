//! Fast commits: what changed since the last transaction, in few words.
//!
//! They say what to do to files and not what blocks become, so replaying them is writing to the
//! file system. Whether any are there is told.

use super::{
    super::{file::FileDisk, sums::crc},
    superblock::JournalSuperblock,
};
use disk_io::{Disk, Fields, Result};

/// From ranges that are added (1) to padding (7).
const LAST_CHANGE: u16 = 7;
const TAIL: u16 = 8;
const HEAD: u16 = 9;

/// How many fast commits behind the transaction before `sequence` are complete.
pub(super) fn committed(journal: &FileDisk, sb: &JournalSuperblock, sequence: u32) -> Result<u64> {
    let mut complete = 0u64;
    // An empty log has none: they follow a whole commit.
    if sb.start == 0 {
        return Ok(complete);
    }
    let mut sum = 0;
    let mut block = vec![0; sb.block_size as usize];
    let area = sb.fast_commits();
    for at in area.clone() {
        let place = at.saturating_mul(sb.block_size);
        journal.read_exact_at(&mut block, place)?;
        let f = Fields::new(&block, place, "fast commit");
        if at == area.start && f.u16_le(0)? != HEAD {
            break;
        }
        let mut at = 0usize;
        while at.saturating_add(4) <= block.len() {
            let (tag, len) = (f.u16_le(at)?, usize::from(f.u16_le(at.saturating_add(2))?));
            let value = at.saturating_add(4);
            let end = value.saturating_add(len);
            let Some(bytes) = block.get(at..end) else {
                return Ok(complete);
            };
            match tag {
                HEAD if f.u32_le(value.saturating_add(4))? != sequence => return Ok(complete),
                HEAD | 1..=LAST_CHANGE => sum = crc(sum, bytes),
                TAIL => {
                    sum = crc(sum, bytes.get(..8).unwrap_or_default());
                    let stored = f.u32_le(value.saturating_add(4))?;
                    if f.u32_le(value)? != sequence || stored != sum {
                        return Ok(complete);
                    }
                    complete = complete.saturating_add(1);
                    sum = 0;
                }
                _ => return Ok(complete),
            }
            at = end;
        }
    }
    Ok(complete)
}
