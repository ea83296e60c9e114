//! The walk over the transactions of a log.

use super::{
    super::file::FileDisk,
    MAGIC,
    sums::{JournalSums, Transaction},
    superblock::{INCOMPAT_64BIT, INCOMPAT_CSUM_V2, INCOMPAT_CSUM_V3, JournalSuperblock},
};
use disk_io::{Disk, Fields, Result};
use std::collections::{BTreeMap, HashMap};

const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const REVOKE: u32 = 5;

const TAG_ESCAPED: u32 = 1;
const TAG_SAME_UUID: u32 = 2;
const TAG_LAST: u32 = 8;

/// A block of the volume as a committed transaction has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Logged {
    /// Block of the journal file.
    pub(super) at: u64,
    /// Its first four bytes were the journal's magic and are stored as zeros.
    pub(super) escaped: bool,
    /// The transaction.
    pub(super) sequence: u32,
    /// Its checksum, as far as the tag has it.
    pub(super) sum: u32,
}

/// A block that a descriptor block announces.
struct Tag {
    target: u64,
    escaped: bool,
    sum: u32,
}

/// The log, and what was found in it.
pub(super) struct Log<'a> {
    sb: &'a JournalSuperblock,
    journal: &'a FileDisk,
    sums: JournalSums,
    /// Block → what committed transactions have of it, the oldest first.
    pub(super) logged: BTreeMap<u64, Vec<Logged>>,
    /// Block → newest sequence that revoked it.
    pub(super) revoked: HashMap<u64, u32>,
    pub(super) transactions: u32,
    /// The transaction that would be next.
    pub(super) sequence: u32,
    pub(super) doubts: Vec<String>,
    /// When the last transaction was committed, in seconds.
    committed: u64,
}

/// A checksum that ends the replay.
enum Fault {
    /// Of a descriptor or a revoke block.
    Inside,
    /// Of a commit block.
    Commit,
}

impl<'a> Log<'a> {
    pub(super) fn new(sb: &'a JournalSuperblock, journal: &'a FileDisk, sums: JournalSums) -> Self {
        Self {
            sb,
            journal,
            sums,
            logged: BTreeMap::new(),
            revoked: HashMap::new(),
            transactions: 0,
            sequence: sb.sequence,
            doubts: Vec::new(),
            committed: 0,
        }
    }

    /// Walks transactions until one is not complete.
    pub(super) fn walk(&mut self) -> Result<()> {
        let mut at = self.sb.start;
        if at == 0 {
            return Ok(());
        }
        let mut pending: Vec<(u64, Logged)> = Vec::new();
        let mut revoked: Vec<u64> = Vec::new();
        let mut sum = Transaction::NEW;
        // Every step moves on by a block, so the log is walked at most once.
        let mut left = self.sb.end();
        let mut block = vec![0; self.sb.block_size as usize];
        while left > 0 {
            left = left.saturating_sub(1);
            self.read(at, &mut block)?;
            let f = Fields::new(&block, self.place(at), "journal block");
            if f.u32_be(0)? != MAGIC || f.u32_be(8)? != self.sequence {
                break;
            }
            let here = at;
            at = self.sb.next(at);
            match f.u32_be(4)? {
                DESCRIPTOR | REVOKE if !self.sums.block(&block) => {
                    return self.torn(&Fault::Inside, here, left);
                }
                DESCRIPTOR => {
                    let tags = self.tags(&f)?;
                    if self.sums.of_transactions() {
                        sum.add(&block);
                    }
                    for tag in tags {
                        if self.sums.of_transactions() {
                            self.read(at, &mut block)?;
                            sum.add(&block);
                        }
                        let logged = Logged {
                            at,
                            escaped: tag.escaped,
                            sequence: self.sequence,
                            sum: tag.sum,
                        };
                        pending.push((tag.target, logged));
                        at = self.sb.next(at);
                        left = left.saturating_sub(1);
                    }
                }
                REVOKE => revoked.extend(self.revokes(&f)?),
                COMMIT => {
                    if !self.sums.commit(&block, sum)? {
                        return self.torn(&Fault::Commit, here, left);
                    }
                    self.committed = f.u64_be(48)?;
                    for (target, logged) in pending.drain(..) {
                        self.logged.entry(target).or_default().push(logged);
                    }
                    for target in revoked.drain(..) {
                        self.revoked.insert(target, self.sequence);
                    }
                    self.sequence = self.sequence.wrapping_add(1);
                    self.transactions = self.transactions.saturating_add(1);
                    sum = Transaction::NEW;
                }
                _ => break,
            }
        }
        Ok(())
    }

    fn place(&self, at: u64) -> u64 {
        at.saturating_mul(self.sb.block_size)
    }

    fn read(&self, at: u64, block: &mut [u8]) -> Result<()> {
        self.journal.read_exact_at(block, self.place(at))
    }

    /// The transaction that a wrong checksum in block `at` ends the replay with. The last one was
    /// being written when the guest stopped, and may have one; none before it does.
    fn torn(&mut self, fault: &Fault, mut at: u64, mut left: u64) -> Result<()> {
        let mut block = vec![0; self.sb.block_size as usize];
        loop {
            self.read(at, &mut block)?;
            let f = Fields::new(&block, self.place(at), "journal block");
            let ahead = f.u32_be(8)?.wrapping_sub(self.sequence);
            // Its own commit block is written last, after all others of the transaction.
            let behind = match fault {
                Fault::Inside => true,
                Fault::Commit => ahead != 0,
            };
            if f.u32_be(0)? == MAGIC
                && f.u32_be(4)? == COMMIT
                && u64::from(ahead) < self.sb.maxlen
                && behind
                // What is older is left of an earlier round of the log.
                && f.u64_be(48)? >= self.committed
                && (!self.sums.of_data() || self.sums.commit(&block, Transaction::NEW)?)
            {
                self.doubts.push(format!(
                    "a checksum of transaction {} in the journal is wrong: its changes and those \
                     of the transactions behind it are missing",
                    self.sequence
                ));
                return Ok(());
            }
            if left == 0 {
                return Ok(());
            }
            left = left.saturating_sub(1);
            at = self.sb.next(at);
        }
    }

    /// The blocks that a descriptor block announces.
    fn tags(&self, f: &Fields<'_>) -> Result<Vec<Tag>> {
        let v2 = self.sb.incompat & INCOMPAT_CSUM_V2 != 0;
        let v3 = self.sb.incompat & INCOMPAT_CSUM_V3 != 0;
        let wide = self.sb.incompat & INCOMPAT_64BIT != 0;
        // With short sums tags have two bytes at their end that nothing is in.
        let size = match (v3, v2, wide) {
            (true, _, _) => 16,
            (false, true, true) => 14,
            (false, true, false) => 10,
            (false, false, true) => 12,
            (false, false, false) => 8,
        };
        let end = f.len().saturating_sub(self.sums.tail());
        let mut out = Vec::new();
        let mut at = 12usize;
        while at.saturating_add(size) <= end {
            let low = f.u32_be(at)?;
            let (flags, sum) = if v3 {
                (
                    f.u32_be(at.saturating_add(4))?,
                    f.u32_be(at.saturating_add(12))?,
                )
            } else {
                (
                    f.u16_be(at.saturating_add(6))?.into(),
                    f.u16_be(at.saturating_add(4))?.into(),
                )
            };
            let high = if wide {
                f.u32_be(at.saturating_add(8))?
            } else {
                0
            };
            out.push(Tag {
                target: u64::from(low) | u64::from(high) << 32,
                escaped: flags & TAG_ESCAPED != 0,
                sum,
            });
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
        let end = f.len().saturating_sub(self.sums.tail());
        let used = (f.u32_be(12)? as usize).min(end);
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

/// Whether a log without a complete transaction is so because all were written to their places:
/// then the commit block of the last one stands before its start.
pub(super) fn is_used_up(sb: &JournalSuperblock, journal: &FileDisk) -> Result<bool> {
    let before = match sb.start {
        start if start == sb.first => sb.end().saturating_sub(1),
        start => start.saturating_sub(1),
    };
    let mut block = vec![0; sb.block_size as usize];
    let place = before.saturating_mul(sb.block_size);
    journal.read_exact_at(&mut block, place)?;
    let f = Fields::new(&block, place, "journal block");
    Ok(f.u32_be(0)? == MAGIC
        && f.u32_be(4)? == COMMIT
        && f.u32_be(8)? == sb.sequence.wrapping_sub(1))
}
