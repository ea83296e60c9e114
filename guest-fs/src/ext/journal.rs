//! The journal of a volume that was not closed cleanly, replayed in memory.
//!
//! A snapshot of a running guest holds metadata that was committed to the journal and not
//! yet written to its place. Nothing is written here: blocks of committed transactions are
//! read from the journal instead of from their old place.
//!
//! | module | holds |
//! |---|---|
//! | `superblock` | the journal's own superblock: where the log is |
//! | `log` | the walk over transactions |
//! | `sums` | checksums of the log, of each age |
//! | `fast` | fast commits, which are told and not replayed |

mod fast;
mod log;
mod sums;
mod superblock;

use super::file::FileDisk;
use disk_io::{
    Disk, DiskError, Result, Run, RunKind,
    disk::{check_range, check_run_offset},
};
use log::{Log, Logged};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use sums::JournalSums;
pub(super) use superblock::JournalSuperblock;

const MAGIC: u32 = 0xc03b_3998;
/// Blocks with wrong checksums that are named.
const NAMED: usize = 5;

/// The volume with committed transactions laid over it.
#[derive(Debug)]
pub(super) struct Replayed {
    volume: Arc<dyn Disk>,
    journal: FileDisk,
    block_size: u64,
    blocks: BTreeMap<u64, Logged>,
}

/// What replaying found.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) disk: Replayed,
    pub(super) transactions: u32,
    /// Why the volume may not be as the guest left it.
    pub(super) doubts: Vec<String>,
}

/// Reads the log and lays what was committed over `volume`.
pub(super) fn replay(volume: Arc<dyn Disk>, journal: FileDisk, block_size: u32) -> Result<Outcome> {
    let sb = JournalSuperblock::read(&journal)?;
    sb.supported()?;
    if sb.block_size != u64::from(block_size) {
        return Err(DiskError::corrupt("replaying the journal")
            .expected(format!("blocks of {block_size}"))
            .found(sb.block_size.to_string()));
    }
    let mut doubts = Vec::new();
    if sb.wrong_sum.is_some() {
        doubts.push("the checksum of the journal's superblock is wrong".into());
    }
    let sums = JournalSums::of(&sb);
    let mut log = Log::new(&sb, &journal, sums);
    log.walk()?;
    let (transactions, next) = (log.transactions, log.sequence);
    doubts.append(&mut log.doubts);
    let (logged, revoked) = (log.logged, log.revoked);
    let blocks = newest(logged, &revoked, &journal, &sb, sums, &mut doubts)?;
    let fast = fast::committed(&journal, &sb, next)?;
    if fast > 0 {
        doubts.push(format!(
            "the changes of {fast} fast commits in the journal are missing: they are not replayed"
        ));
    }
    if transactions == 0 && sb.start != 0 && !log::is_used_up(&sb, &journal)? {
        doubts.push(
            "the journal says that it holds changes, and no complete transaction is in it".into(),
        );
    }
    Ok(Outcome {
        disk: Replayed {
            volume,
            block_size: sb.block_size,
            journal,
            blocks,
        },
        transactions,
        doubts,
    })
}

/// Of each block the newest contents that were not revoked and have a good checksum.
fn newest(
    logged: BTreeMap<u64, Vec<Logged>>,
    revoked: &HashMap<u64, u32>,
    journal: &FileDisk,
    sb: &JournalSuperblock,
    sums: JournalSums,
    doubts: &mut Vec<String>,
) -> Result<BTreeMap<u64, Logged>> {
    let mut blocks = BTreeMap::new();
    let mut bad = Vec::new();
    let mut bytes = vec![0; sb.block_size as usize];
    for (block, versions) in logged {
        for version in versions.into_iter().rev() {
            // A block revoked in this transaction or a later one was freed: its old contents
            // must not come back.
            let gone = revoked
                .get(&block)
                .is_some_and(|r| r.wrapping_sub(version.sequence).cast_signed() >= 0);
            if gone {
                break;
            }
            if sums.of_data() {
                journal.read_exact_at(&mut bytes, version.at.saturating_mul(sb.block_size))?;
                if !sums.data(version.sequence, version.sum, &bytes) {
                    bad.push(block);
                    continue;
                }
            }
            blocks.insert(block, version);
            break;
        }
    }
    bad.dedup();
    if !bad.is_empty() {
        let names: Vec<_> = bad.iter().take(NAMED).map(u64::to_string).collect();
        let more = if bad.len() > NAMED { " …" } else { "" };
        doubts.push(format!(
            "checksums of {} blocks in the journal are wrong (blocks {}{more} of the volume): \
             their newest contents are missing",
            bad.len(),
            names.join(", ")
        ));
    }
    Ok(blocks)
}

impl Replayed {
    /// How many blocks are read from the journal.
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }
}

impl Disk for Replayed {
    fn len(&self) -> u64 {
        self.volume.len()
    }

    fn sector_size(&self) -> u32 {
        self.volume.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len(), offset, buf.len())?;
        self.volume.read_exact_at(buf, offset)?;
        let end = offset.saturating_add(buf.len() as u64);
        let size = self.block_size.max(1);
        let first = offset.checked_div(size).unwrap_or(0);
        for (block, logged) in self.blocks.range(first..end.div_ceil(size)) {
            let mut bytes = vec![0; size as usize];
            self.journal
                .read_exact_at(&mut bytes, logged.at.saturating_mul(size))?;
            if logged.escaped
                && let Some(head) = bytes.get_mut(..4)
            {
                head.copy_from_slice(&MAGIC.to_be_bytes());
            }
            let start = block.saturating_mul(size);
            let from = start.max(offset);
            let to = start.saturating_add(size).min(end);
            let inside = |x: u64, base: u64| x.saturating_sub(base) as usize;
            if let (Some(target), Some(source)) = (
                buf.get_mut(inside(from, offset)..inside(to, offset)),
                bytes.get(inside(from, start)..inside(to, start)),
            ) {
                target.copy_from_slice(source);
            }
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len(), offset)?;
        let size = self.block_size.max(1);
        let run = self.volume.run_at(offset)?;
        let block = offset.checked_div(size).unwrap_or(0);
        if self.blocks.contains_key(&block) {
            let end = block.saturating_add(1).saturating_mul(size).min(self.len());
            return Ok(Run {
                len: end.saturating_sub(offset),
                kind: RunKind::Data,
            });
        }
        let next = self
            .blocks
            .range(block..)
            .next()
            .map_or(u64::MAX, |(b, _)| b.saturating_mul(size));
        Ok(Run {
            len: run.len.min(next.saturating_sub(offset)),
            ..run
        })
    }

    fn will_read(&self, offset: u64, len: u64) {
        self.volume.will_read(offset, len);
    }
}

#[cfg(test)]
mod tests;
