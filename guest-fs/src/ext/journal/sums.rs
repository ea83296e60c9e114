//! Checksums of the log.
//!
//! Two ages of them: of whole transactions, CRC-32 in the commit block alone; and CRC-32C of each
//! block, which begin with the journal's UUID.

use super::{
    super::sums::crc,
    superblock::{COMPAT_CHECKSUM, INCOMPAT_CSUM_V2, INCOMPAT_CSUM_V3, JournalSuperblock},
};
use disk_io::{Fields, Result};

/// What of a commit block is summed where the rest of it was not zeroed.
const COMMIT_LEN: usize = 64;

/// Which sums a journal has.
#[derive(Clone, Copy, Debug)]
pub(super) struct JournalSums {
    kind: Kind,
    seed: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    None,
    Transactions,
    /// Each block; of data blocks only 16 bits are kept.
    Short,
    Long,
}

impl JournalSums {
    pub(super) fn of(sb: &JournalSuperblock) -> Self {
        let kind = if sb.incompat & INCOMPAT_CSUM_V3 != 0 {
            Kind::Long
        } else if sb.incompat & INCOMPAT_CSUM_V2 != 0 {
            Kind::Short
        } else if sb.compat & COMPAT_CHECKSUM != 0 {
            Kind::Transactions
        } else {
            Kind::None
        };
        Self {
            kind,
            seed: crc(!0, &sb.uuid),
        }
    }

    /// Whether each block has its own.
    pub(super) fn of_data(self) -> bool {
        matches!(self.kind, Kind::Short | Kind::Long)
    }

    /// Whether the data blocks of a transaction are part of the sum in its commit block.
    pub(super) fn of_transactions(self) -> bool {
        self.kind == Kind::Transactions
    }

    /// Bytes at the end of descriptor and revoke blocks that hold the sum.
    pub(super) fn tail(self) -> usize {
        if self.of_data() { 4 } else { 0 }
    }

    /// Whether a descriptor or a revoke block is as it was written.
    pub(super) fn block(self, bytes: &[u8]) -> bool {
        if !self.of_data() {
            return true;
        }
        let end = bytes.len().saturating_sub(4);
        let Some((body, stored)) = bytes.split_at_checked(end) else {
            return false;
        };
        let sum = crc(crc(self.seed, body), &[0; 4]);
        *stored == sum.to_be_bytes()
    }

    /// Whether a data block is what the tag with the sum `stored` announced.
    pub(super) fn data(self, sequence: u32, stored: u32, bytes: &[u8]) -> bool {
        let sum = crc(crc(self.seed, &sequence.to_be_bytes()), bytes);
        match self.kind {
            Kind::Long => sum == stored,
            Kind::Short => sum & 0xffff == stored,
            Kind::Transactions | Kind::None => true,
        }
    }

    /// Whether a commit block is as it was written; `blocks` is the sum of the transaction's
    /// blocks ([`Transaction`]).
    pub(super) fn commit(self, bytes: &[u8], blocks: Transaction) -> Result<bool> {
        let f = Fields::new(bytes, 0, "commit block");
        let stored = f.u32_be(16)?;
        match self.kind {
            Kind::None => Ok(true),
            Kind::Transactions => {
                // CRC-32 and its length; or nothing at all.
                let kind = (f.u8(12)?, f.u8(13)?);
                Ok(kind == (1, 4) && stored == blocks.0 || kind == (0, 0) && stored == 0)
            }
            Kind::Short | Kind::Long => {
                let mut copy = bytes.to_vec();
                if let Some(field) = copy.get_mut(16..20) {
                    field.fill(0);
                }
                if crc(self.seed, &copy) == stored {
                    return Ok(true);
                }
                if let Some(rest) = copy.get_mut(COMMIT_LEN..) {
                    rest.fill(0);
                }
                Ok(crc(self.seed, &copy) == stored)
            }
        }
    }
}

/// The sum of a transaction's blocks: CRC-32, the highest bit first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transaction(u32);

impl Transaction {
    pub(super) const NEW: Self = Self(!0);

    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u32::from(*byte) << 24;
            for _ in 0..8 {
                let carry = 0u32.wrapping_sub(self.0 >> 31);
                self.0 = (self.0 << 1) ^ (0x04c1_1db7 & carry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Transaction;

    #[test]
    fn transactions_are_summed_as_the_kernel_does() {
        // CRC-32/MPEG-2: begun with ones, not inverted.
        let mut sum = Transaction::NEW;
        sum.add(b"12345");
        sum.add(b"6789");
        assert_eq!(sum.0, 0x0376_e6e7);
    }
}
