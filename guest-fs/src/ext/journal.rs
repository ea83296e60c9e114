//! The journal of a volume that was not closed cleanly, replayed in memory.
//!
//! A snapshot of a running guest holds metadata that was committed to the journal and not
//! yet written to its place. Nothing is written here: blocks of committed transactions are
//! read from the journal instead of from their old place.

use super::file::FileDisk;
use disk_io::{
    Disk, DiskError, Fields, Result, Run, RunKind,
    disk::{check_range, check_run_offset},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

const MAGIC: u32 = 0xc03b_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const REVOKE: u32 = 5;

const INCOMPAT_REVOKE: u32 = 0x1;
const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_ASYNC_COMMIT: u32 = 0x4;
const INCOMPAT_CSUM_V2: u32 = 0x8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
const INCOMPAT_KNOWN: u32 = INCOMPAT_REVOKE
    | INCOMPAT_64BIT
    | INCOMPAT_ASYNC_COMMIT
    | INCOMPAT_CSUM_V2
    | INCOMPAT_CSUM_V3
    | INCOMPAT_FAST_COMMIT;

const TAG_ESCAPED: u32 = 1;
const TAG_SAME_UUID: u32 = 2;
const TAG_LAST: u32 = 8;

/// A block of the volume whose newest committed contents are in the journal.
#[derive(Clone, Copy, Debug)]
struct Logged {
    /// Block of the journal file.
    at: u64,
    /// Its first four bytes were the journal's magic and are stored as zeros.
    escaped: bool,
}

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
    pub(super) remarks: Vec<String>,
}

/// The journal's own superblock.
struct JournalSuperblock {
    block_size: u64,
    /// Length of the log in blocks, and its first usable block.
    maxlen: u64,
    first: u64,
    sequence: u32,
    /// Where the oldest transaction begins; 0 if the log is empty.
    start: u64,
    incompat: u32,
}

impl JournalSuperblock {
    fn read(journal: &FileDisk) -> Result<Self> {
        let mut bytes = [0; 1024];
        journal.read_exact_at(&mut bytes, 0)?;
        let f = Fields::new(&bytes, 0, "journal superblock");
        let kind = f.u32_be(4)?;
        if f.u32_be(0)? != MAGIC || !matches!(kind, 3 | 4) {
            return Err(f.corrupt(0, "the magic").expected("a journal superblock"));
        }
        let sb = Self {
            block_size: f.u32_be(0xc)?.into(),
            maxlen: f.u32_be(0x10)?.into(),
            first: f.u32_be(0x14)?.into(),
            sequence: f.u32_be(0x18)?,
            start: f.u32_be(0x1c)?.into(),
            incompat: if kind == 4 { f.u32_be(0x28)? } else { 0 },
        };
        if sb.incompat & !INCOMPAT_KNOWN != 0 {
            return Err(DiskError::unsupported("replaying the journal")
                .found(format!("journal features {:#x}", sb.incompat)));
        }
        let bytes = sb.maxlen.saturating_mul(sb.block_size);
        if sb.first == 0 || sb.first >= sb.maxlen || sb.start >= sb.maxlen || bytes > journal.len()
        {
            return Err(f
                .corrupt(0x10, "the size of the log")
                .expected(format!("a log inside {} bytes", journal.len()))
                .found(format!("{} blocks from {}", sb.maxlen, sb.first)));
        }
        Ok(sb)
    }
}

/// Reads the log and lays what was committed over `volume`.
pub(super) fn replay(volume: Arc<dyn Disk>, journal: FileDisk, block_size: u32) -> Result<Outcome> {
    let sb = JournalSuperblock::read(&journal)?;
    if sb.block_size != u64::from(block_size) {
        return Err(DiskError::corrupt("replaying the journal")
            .expected(format!("blocks of {block_size}"))
            .found(sb.block_size.to_string()));
    }
    let mut log = Log {
        sb: &sb,
        journal: &journal,
        logged: BTreeMap::new(),
        revoked: HashMap::new(),
    };
    let transactions = log.walk()?;
    let mut blocks = BTreeMap::new();
    for (block, (sequence, logged)) in log.logged {
        // A block revoked in this transaction or a later one was freed: its old contents
        // must not come back.
        let gone = log
            .revoked
            .get(&block)
            .is_some_and(|r| r.wrapping_sub(sequence).cast_signed() >= 0);
        if !gone {
            blocks.insert(block, logged);
        }
    }
    let mut remarks = Vec::new();
    if sb.incompat & INCOMPAT_FAST_COMMIT != 0 {
        remarks.push("fast commits after the last full commit are not replayed".into());
    }
    Ok(Outcome {
        disk: Replayed {
            volume,
            block_size: sb.block_size,
            journal,
            blocks,
        },
        transactions,
        remarks,
    })
}

struct Log<'a> {
    sb: &'a JournalSuperblock,
    journal: &'a FileDisk,
    /// Block → (sequence of the newest committed transaction that has it, where).
    logged: BTreeMap<u64, (u32, Logged)>,
    /// Block → newest sequence that revoked it.
    revoked: HashMap<u64, u32>,
}

impl Log<'_> {
    fn next(&self, at: u64) -> u64 {
        let next = at.saturating_add(1);
        if next >= self.sb.maxlen {
            self.sb.first
        } else {
            next
        }
    }

    /// Walks transactions until one is not complete; gives how many were.
    fn walk(&mut self) -> Result<u32> {
        let mut at = self.sb.start;
        if at == 0 {
            return Ok(0);
        }
        let mut sequence = self.sb.sequence;
        let mut transactions = 0;
        let mut pending: Vec<(u64, Logged)> = Vec::new();
        let mut revoked: Vec<u64> = Vec::new();
        // Every step moves on by a block, so the log is walked at most once.
        let mut left = self.sb.maxlen;
        let mut block = vec![0; self.sb.block_size as usize];
        while left > 0 {
            left = left.saturating_sub(1);
            let place = at.saturating_mul(self.sb.block_size);
            self.journal.read_exact_at(&mut block, place)?;
            let f = Fields::new(&block, place, "journal block");
            if f.u32_be(0)? != MAGIC || f.u32_be(8)? != sequence {
                break;
            }
            at = self.next(at);
            match f.u32_be(4)? {
                DESCRIPTOR => {
                    for (target, escaped) in self.tags(&f)? {
                        pending.push((target, Logged { at, escaped }));
                        at = self.next(at);
                        left = left.saturating_sub(1);
                    }
                }
                REVOKE => revoked.extend(self.revokes(&f)?),
                COMMIT => {
                    for (target, logged) in pending.drain(..) {
                        self.logged.insert(target, (sequence, logged));
                    }
                    for target in revoked.drain(..) {
                        self.revoked.insert(target, sequence);
                    }
                    sequence = sequence.wrapping_add(1);
                    transactions = u32::saturating_add(transactions, 1);
                }
                _ => break,
            }
        }
        Ok(transactions)
    }

    /// The blocks that a descriptor block announces, with their escape flags.
    fn tags(&self, f: &Fields<'_>) -> Result<Vec<(u64, bool)>> {
        let v3 = self.sb.incompat & INCOMPAT_CSUM_V3 != 0;
        let wide = self.sb.incompat & INCOMPAT_64BIT != 0;
        let tail = if self.sb.incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0 {
            4
        } else {
            0
        };
        let size = match (v3, wide) {
            (true, _) => 16,
            (false, true) => 12,
            (false, false) => 8,
        };
        let end = f.len().saturating_sub(tail);
        let mut out = Vec::new();
        let mut at = 12usize;
        while at.saturating_add(size) <= end {
            let low = f.u32_be(at)?;
            let flags = if v3 {
                f.u32_be(at.saturating_add(4))?
            } else {
                f.u16_be(at.saturating_add(6))?.into()
            };
            let high = if wide {
                f.u32_be(at.saturating_add(8))?
            } else {
                0
            };
            let block = u64::from(low) | u64::from(high) << 32;
            out.push((block, flags & TAG_ESCAPED != 0));
            at = at.saturating_add(size);
            if flags & TAG_SAME_UUID == 0 {
                at = at.saturating_add(16);
            }
            if flags & TAG_LAST != 0 {
                break;
            }
        }
        Ok(out)
    }

    fn revokes(&self, f: &Fields<'_>) -> Result<Vec<u64>> {
        let used = (f.u32_be(12)? as usize).min(f.len());
        let wide = self.sb.incompat & INCOMPAT_64BIT != 0;
        let size = if wide { 8 } else { 4 };
        let mut out = Vec::new();
        let mut at = 16usize;
        while at.saturating_add(size) <= used {
            out.push(if wide {
                f.u64_be(at)?
            } else {
                f.u32_be(at)?.into()
            });
            at = at.saturating_add(size);
        }
        Ok(out)
    }
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
