//! Reading file records, and how the $MFT itself is found.

use super::{
    boot::Boot,
    file::File,
    record::{self, Chunk, Record, Slot, kind},
    runs::{RunList, Where},
    volume::Volume,
};
use disk_io::{DiskError, ErrorKind, Result};
use std::sync::Arc;

/// The $MFT as a stream.
#[derive(Debug, Default)]
pub(crate) struct Mft {
    pub(crate) runs: RunList,
    /// Bytes of it that hold records.
    pub(crate) len: u64,
}

/// Records are read in pieces of this size: neighbours follow soon.
const CHUNK: u64 = 64 << 10;
/// Records that the $MFTMirr repeats.
const MIRRORED: u64 = 4;

impl Volume {
    /// The number of records that the $MFT has room for.
    pub(crate) fn record_count(&self) -> u64 {
        self.mft
            .len
            .checked_div(u64::from(self.boot.record_size))
            .unwrap_or(0)
    }

    /// Record `number`, whatever it holds.
    pub(crate) fn record(&self, number: u64) -> Result<Record> {
        let per_chunk = CHUNK
            .checked_div(u64::from(self.boot.record_size))
            .unwrap_or(1);
        let first = number.saturating_sub(number.checked_rem(per_chunk).unwrap_or(0));
        if number >= self.record_count() {
            return Err(DiskError::corrupt(format!("reading file record {number}"))
                .expected(format!("a number below {}", self.record_count())));
        }
        if let Some(chunk) = self.chunks.get(&first) {
            return chunk.get(number);
        }
        let chunk = Arc::new(self.read_chunk(first, per_chunk));
        // A device that failed may work again.
        let failed = |s: &Slot| matches!(s, Slot::Bad(e) if e.kind() == ErrorKind::Io);
        if !chunk.slots.iter().any(failed) {
            self.chunks.insert(first, chunk.clone());
        }
        chunk.get(number)
    }

    /// Reads up to `count` records from `first` on. Where the read fails they are read one
    /// by one, so that a bad sector costs its own record only.
    pub(crate) fn read_chunk(&self, first: u64, count: u64) -> Chunk {
        let size = u64::from(self.boot.record_size);
        let count = count.min(self.record_count().saturating_sub(first));
        let offset = first.saturating_mul(size);
        let mut bytes = vec![0; count.saturating_mul(size) as usize];
        let mut slots = vec![Slot::Good; count as usize];
        let what = || "the $MFT".to_string();
        if self
            .read_runs(&self.mft.runs, &mut bytes, offset, &what)
            .is_err()
        {
            let one = self.boot.record_size as usize;
            for (i, (record, slot)) in bytes.chunks_exact_mut(one).zip(&mut slots).enumerate() {
                let number = first.saturating_add(i as u64);
                let at = number.saturating_mul(size);
                if let Err(e) = self.read_runs(&self.mft.runs, record, at, &what) {
                    *slot = Slot::Bad(e.context(format!("reading file record {number}")));
                }
            }
        }
        let mut chunk = Chunk::new(first, self.boot.record_size as usize, bytes, slots);
        if first < MIRRORED {
            self.mend_from_mirror(&mut chunk);
        }
        chunk
    }

    /// Replaces damaged ones of the first records by their copies in the $MFTMirr.
    fn mend_from_mirror(&self, chunk: &mut Chunk) {
        let size = chunk.record_size;
        let first = chunk.first;
        let slots = chunk
            .slots
            .iter_mut()
            .zip(chunk.bytes.chunks_exact_mut(size));
        for (number, (slot, bytes)) in (first..MIRRORED).zip(slots) {
            if matches!(slot, Slot::Good) {
                continue;
            }
            if let Some(copy) = read_plain(&*self.disk, &self.boot, self.boot.mirror_lcn, number) {
                bytes.copy_from_slice(&copy);
                *slot = Slot::Good;
            }
        }
    }

    /// Finds the whole $MFT: its first record says where, and may need records that lie in
    /// the part it describes itself. Returns what was met on the way.
    pub(crate) fn find_mft(&mut self) -> Result<Vec<String>> {
        let mut remarks = Vec::new();
        if read_plain(&*self.disk, &self.boot, self.boot.mft_lcn, 0).is_none() {
            if read_plain(&*self.disk, &self.boot, self.boot.mirror_lcn, 0).is_none() {
                return Err(DiskError::corrupt("opening an NTFS volume")
                    .offset(self.boot.offset_of(self.boot.mft_lcn).unwrap_or(0))
                    .expected("the $MFT's own record there or in the $MFTMirr")
                    .found("two damaged records"));
            }
            remarks.push(
                "the first record of the $MFT is damaged; its copy in the $MFTMirr was used".into(),
            );
        }
        // Enough to reach the $MFT's own records: the first 16 always lie together.
        let seed = u64::from(self.boot.record_size)
            .saturating_mul(16)
            .div_ceil(self.boot.cluster());
        self.mft.runs.push(seed, Where::At(self.boot.mft_lcn))?;
        self.mft.len = u64::from(self.boot.record_size).saturating_mul(16);
        // Each round reaches records that the round before has found; rounds that find
        // nothing new end it.
        let mut known = None;
        for _ in 0..64 {
            let found = File::open(self, 0, 0, false)?.content(kind::DATA, &[])?;
            let Some(found) = found.and_then(|c| c.into_runs()) else {
                return Err(
                    DiskError::corrupt("opening an NTFS volume").found("an $MFT without clusters")
                );
            };
            let lost = found.runs.lost().len();
            let mapped = found
                .runs
                .pieces()
                .iter()
                .filter(|p| matches!(p.place, Where::At(_)))
                .fold(0u64, |n, p| n.saturating_add(p.clusters));
            let lost_error = found.runs.lost().first().cloned();
            let valid = found.size.min(found.initialized);
            self.mft.len = valid.min(found.runs.end().saturating_mul(self.boot.cluster()));
            self.mft.runs = found.runs;
            self.chunks.clear();
            if lost == 0 {
                break;
            }
            if known == Some((lost, mapped)) {
                if let Some(e) = lost_error {
                    remarks.push(format!("a part of the $MFT cannot be found: {e}"));
                }
                break;
            }
            known = Some((lost, mapped));
        }
        // Runs can be holes, and then they cost nothing to claim: a walk over so many records that
        // cannot be there would not end.
        if self.mft.len > self.disk.len() {
            remarks.push(format!(
                "the $MFT says that it has {} bytes, more than the volume of {}; what lies behind is \
                 not looked for",
                self.mft.len,
                self.disk.len()
            ));
            self.mft.len = self.disk.len();
        }
        Ok(remarks)
    }
}

/// A record of the $MFT or its mirror, `number` records behind the cluster `lcn`.
fn read_plain(disk: &dyn disk_io::Disk, boot: &Boot, lcn: u64, number: u64) -> Option<Vec<u8>> {
    let size = u64::from(boot.record_size);
    let at = boot
        .offset_of(lcn)?
        .checked_add(number.checked_mul(size)?)?;
    let mut bytes = vec![0; size as usize];
    disk.read_exact_at(&mut bytes, at).ok()?;
    matches!(record::check(&mut bytes, number), Slot::Good).then_some(bytes)
}
