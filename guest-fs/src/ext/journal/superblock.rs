//! The journal's own superblock.

use super::{
    super::{
        file::FileDisk,
        sums::{Wrong, compare, crc},
    },
    MAGIC,
};
use disk_io::{Disk, DiskError, Fields, Result};

/// Sums of whole transactions, as the first kernels with sums had them.
pub(super) const COMPAT_CHECKSUM: u32 = 0x1;

const INCOMPAT_REVOKE: u32 = 0x1;
pub(super) const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_ASYNC_COMMIT: u32 = 0x4;
pub(super) const INCOMPAT_CSUM_V2: u32 = 0x8;
pub(super) const INCOMPAT_CSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
const INCOMPAT_KNOWN: u32 = INCOMPAT_REVOKE
    | INCOMPAT_64BIT
    | INCOMPAT_ASYNC_COMMIT
    | INCOMPAT_CSUM_V2
    | INCOMPAT_CSUM_V3
    | INCOMPAT_FAST_COMMIT;

/// Blocks of fast commits where the superblock does not say how many.
const FAST_BLOCKS: u64 = 256;
/// A log that would be shorter keeps the room of fast commits for itself.
const MIN_LOG: u64 = 1024;

/// What replaying needs of the superblock.
pub(in super::super) struct JournalSuperblock {
    pub(super) block_size: u64,
    /// Length of the journal in blocks, and the first block of the log.
    pub(super) maxlen: u64,
    pub(super) first: u64,
    pub(super) sequence: u32,
    /// Where the oldest transaction begins; 0 if the log is empty.
    pub(in super::super) start: u64,
    pub(super) compat: u32,
    pub(super) incompat: u32,
    pub(super) uuid: [u8; 16],
    fast_blocks: u64,
    pub(in super::super) wrong_sum: Option<Wrong>,
}

impl JournalSuperblock {
    pub(in super::super) fn read(journal: &FileDisk) -> Result<Self> {
        let mut bytes = [0; 1024];
        journal.read_exact_at(&mut bytes, 0)?;
        let f = Fields::new(&bytes, 0, "journal superblock");
        let kind = f.u32_be(4)?;
        if f.u32_be(0)? != MAGIC || !matches!(kind, 3 | 4) {
            return Err(f.corrupt(0, "the magic").expected("a journal superblock"));
        }
        // The first kind ends before the features.
        let new = |at: usize| -> Result<u32> { if kind == 4 { f.u32_be(at) } else { Ok(0) } };
        let mut uuid = [0; 16];
        uuid.copy_from_slice(f.bytes(0x30, 16)?);
        let mut sb = Self {
            block_size: f.u32_be(0xc)?.into(),
            maxlen: f.u32_be(0x10)?.into(),
            first: f.u32_be(0x14)?.into(),
            sequence: f.u32_be(0x18)?,
            start: f.u32_be(0x1c)?.into(),
            compat: new(0x24)?,
            incompat: new(0x28)?,
            uuid,
            fast_blocks: match new(0x54)? {
                0 => FAST_BLOCKS,
                n => n.into(),
            },
            wrong_sum: None,
        };
        let len = sb.maxlen.saturating_mul(sb.block_size);
        if sb.first == 0 || sb.first >= sb.end() || sb.start >= sb.end() || len > journal.len() {
            return Err(f
                .corrupt(0x10, "the size of the log")
                .expected(format!("a log inside {} bytes", journal.len()))
                .found(format!("{} blocks from {}", sb.maxlen, sb.first)));
        }
        if sb.incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0 {
            let stored = f.u32_be(0xfc)?;
            if let Some(field) = bytes.get_mut(0xfc..0x100) {
                field.fill(0);
            }
            sb.wrong_sum = compare(stored, crc(!0, &bytes));
        }
        Ok(sb)
    }

    /// Whether all of its features are known.
    pub(super) fn supported(&self) -> Result<()> {
        match self.incompat & !INCOMPAT_KNOWN {
            0 => Ok(()),
            _ => Err(DiskError::unsupported("replaying the journal")
                .found(format!("journal features {:#x}", self.incompat))),
        }
    }

    /// Where the log ends and begins anew: fast commits lie behind it.
    pub(super) fn end(&self) -> u64 {
        if self.incompat & INCOMPAT_FAST_COMMIT == 0 {
            return self.maxlen;
        }
        match self.maxlen.checked_sub(self.fast_blocks) {
            Some(end) if end >= MIN_LOG => end,
            _ => self.maxlen,
        }
    }

    /// The blocks of fast commits; the one behind the log is left out.
    pub(super) fn fast_commits(&self) -> std::ops::Range<u64> {
        self.end().saturating_add(1)..self.maxlen
    }

    /// The block of the log that follows.
    pub(super) fn next(&self, at: u64) -> u64 {
        match at.saturating_add(1) {
            next if next >= self.end() => self.first,
            next => next,
        }
    }
}
