//! The log: writes to the file's own structures that were promised and not yet made.
//!
//! A reader that ignores it sees tables of another time: whole blocks read as zeros that
//! hold data. So it is replayed, in memory, and never into the file.

use super::{header::Header, header::check_crc, overlay::Overlay};
use crate::guid::Guid;
use disk_io::{Disk, DiskError, Fields, Result};
use std::{collections::BTreeMap, sync::Arc};

const SECTOR: u64 = 4096;
/// Hyper-V's logs are 1 MiB long.
const MAX_LOG: u64 = 64 << 20;

/// A valid entry.
#[derive(Clone, Debug)]
struct Entry {
    bytes: Vec<u8>,
    tail: u64,
    sequence_number: u64,
    flushed_file_offset: u64,
    last_file_offset: u64,
}

/// The file as it is after replaying: the file itself if there is nothing to replay, and
/// how many entries were replayed.
pub(super) fn replay(file: &Arc<dyn Disk>, header: &Header) -> Result<(Arc<dyn Disk>, usize)> {
    if header.log_guid == Guid::ZERO {
        return Ok((file.clone(), 0));
    }
    let log = Log {
        file,
        offset: header.log_offset,
        len: u64::from(header.log_length),
    };
    log.check_place()?;
    let entries = log.entries(header.log_guid)?;
    let sequence = active(&entries, log.len).ok_or_else(|| {
        DiskError::corrupt("replaying the VHDX log")
            .offset(log.offset)
            .expected("a complete sequence of log entries, as the header announces")
            .found(format!("{} valid entries and none", entries.len()))
    })?;
    let Some(head) = sequence.last() else {
        return Ok((file.clone(), 0));
    };
    if file.len() < head.flushed_file_offset {
        return Err(DiskError::corrupt("replaying the VHDX log")
            .offset(log.offset)
            .expected(format!("a file of {} bytes", head.flushed_file_offset))
            .found(format!("{}: it was cut short", file.len())));
    }
    let mut overlay = Overlay::new(file.clone(), head.last_file_offset);
    for entry in &sequence {
        entry.apply(&mut overlay)?;
    }
    Ok((Arc::new(overlay), sequence.len()))
}

/// Whether the log has entries of whatever time.
pub(super) fn has_entries(file: &Arc<dyn Disk>, header: &Header) -> Result<bool> {
    let log = Log {
        file,
        offset: header.log_offset,
        len: u64::from(header.log_length),
    };
    if log.check_place().is_err() {
        return Ok(false);
    }
    let mut ring = vec![0; usize::try_from(log.len).unwrap_or(0)];
    file.read_exact_at(&mut ring, log.offset)?;
    let mut sectors = ring.chunks(usize::try_from(SECTOR).unwrap_or(4096));
    Ok(sectors.any(|sector| sector.starts_with(b"loge")))
}

struct Log<'f> {
    file: &'f Arc<dyn Disk>,
    offset: u64,
    len: u64,
}

impl Log<'_> {
    fn check_place(&self) -> Result<()> {
        let fail = || DiskError::corrupt("reading the VHDX log").offset(self.offset);
        let whole = |n: u64| n > 0 && n.is_multiple_of(1 << 20);
        let end = self.offset.saturating_add(self.len);
        if !whole(self.offset) || !whole(self.len) || end > self.file.len() {
            return Err(fail()
                .expected("whole MiBs inside the file")
                .found(format!("{} bytes", self.len)));
        }
        if self.len > MAX_LOG {
            return Err(DiskError::refused("reading the VHDX log")
                .offset(self.offset)
                .expected(format!("at most {MAX_LOG} bytes"))
                .found(self.len.to_string()));
        }
        Ok(())
    }

    /// Every valid entry of the log with this id, by its place.
    fn entries(&self, id: Guid) -> Result<BTreeMap<u64, Entry>> {
        let mut ring = vec![0; usize::try_from(self.len).unwrap_or(0)];
        self.file.read_exact_at(&mut ring, self.offset)?;
        let mut found = BTreeMap::new();
        let mut at = 0;
        // Checksums of entries that turn out to be none; an attacker could make every
        // sector look like the beginning of an entry as long as the log.
        let mut budget = self.len.saturating_mul(4);
        while at < self.len {
            let mut step = SECTOR;
            if let Some(entry) = self.entry(&ring, at, id, &mut budget)? {
                step = entry.bytes.len() as u64;
                found.insert(at, entry);
            }
            at = at.saturating_add(step);
        }
        Ok(found)
    }

    fn entry(&self, ring: &[u8], at: u64, id: Guid, budget: &mut u64) -> Result<Option<Entry>> {
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let Some(head) = ring.get(start..).and_then(|r| r.get(..64)) else {
            return Ok(None);
        };
        let f = Fields::new(head, self.offset.saturating_add(at), "log entry");
        if f.bytes(0, 4)? != b"loge" || Guid::read(&f, 32)? != id {
            return Ok(None);
        }
        let len = u64::from(f.u32_le(8)?);
        let tail = u64::from(f.u32_le(12)?);
        let sound = len >= SECTOR
            && len.is_multiple_of(SECTOR)
            && len <= self.len
            && tail.is_multiple_of(SECTOR)
            && tail < self.len
            && f.u64_le(16)? > 0;
        if !sound {
            return Ok(None);
        }
        *budget = budget.checked_sub(len).ok_or_else(|| {
            DiskError::refused("reading the VHDX log")
                .offset(self.offset)
                .found("more claimed entries than a log can hold")
        })?;
        // An entry may go round the end of the ring.
        let len = usize::try_from(len).unwrap_or(0);
        let bytes: Vec<u8> = ring.iter().cycle().skip(start).take(len).copied().collect();
        if check_crc(&bytes, b"loge", || DiskError::corrupt("log")).is_err() {
            return Ok(None);
        }
        Ok(Some(Entry {
            tail,
            sequence_number: f.u64_le(16)?,
            flushed_file_offset: f.u64_le(48)?,
            last_file_offset: f.u64_le(56)?,
            bytes,
        }))
    }
}

/// The newest sequence that is complete: from the tail that its head names, one entry
/// after the other, with numbers that go up by one.
fn active(entries: &BTreeMap<u64, Entry>, log_len: u64) -> Option<Vec<&Entry>> {
    let mut heads: Vec<(u64, &Entry)> = entries.iter().map(|(at, e)| (*at, e)).collect();
    heads.sort_unstable_by_key(|(_, e)| std::cmp::Reverse(e.sequence_number));
    // Only the newest few can be it: a broken one is torn at its end.
    heads.iter().take(64).find_map(|(head_at, head)| {
        let mut sequence = Vec::new();
        let mut at = head.tail;
        loop {
            let entry = entries.get(&at)?;
            let follows = sequence.last().is_none_or(|p: &&Entry| {
                p.sequence_number.checked_add(1) == Some(entry.sequence_number)
            });
            if !follows {
                return None;
            }
            sequence.push(entry);
            if at == *head_at {
                return Some(sequence);
            }
            if sequence.len() > entries.len() {
                return None;
            }
            at = at
                .checked_add(entry.bytes.len() as u64)?
                .checked_rem(log_len)?;
        }
    })
}

impl Entry {
    /// Makes the writes that the entry describes.
    fn apply(&self, overlay: &mut Overlay) -> Result<()> {
        let f = Fields::new(&self.bytes, 0, "log entry");
        let fail = |found: String| {
            DiskError::corrupt("replaying the VHDX log")
                .expected(format!("a sound entry {}", self.sequence_number))
                .found(found)
        };
        let count = usize::try_from(f.u32_le(24)?).unwrap_or(usize::MAX);
        let area = count.saturating_mul(32).saturating_add(64);
        let mut data_at = area.next_multiple_of(4096);
        if area > self.bytes.len() {
            return Err(fail(format!("{count} descriptors")));
        }
        for n in 0..count {
            let d = f.sub(
                64usize.saturating_add(n.saturating_mul(32)),
                32,
                "log descriptor",
            )?;
            let offset = d.u64_le(16)?;
            if d.u64_le(24)? != self.sequence_number || !offset.is_multiple_of(SECTOR) {
                return Err(fail(format!("descriptor {n} of another entry")));
            }
            match d.bytes(0, 4)? {
                b"zero" => {
                    let len = d.u64_le(8)?;
                    let end = offset.checked_add(len);
                    if end.is_none_or(|end| end > i64::MAX.unsigned_abs()) {
                        return Err(fail(format!("{len} zeros at {offset}")));
                    }
                    overlay.zero(offset, len);
                }
                b"desc" => {
                    let s = f.sub(data_at, 4096, "log data sector")?;
                    let high = u64::from(s.u32_le(4)?) << 32;
                    let number = high | u64::from(s.u32_le(4092)?);
                    if s.bytes(0, 4)? != b"data" || number != self.sequence_number {
                        return Err(fail(format!("the data of descriptor {n} of another entry")));
                    }
                    let mut sector = Vec::with_capacity(4096);
                    sector.extend_from_slice(d.bytes(8, 8)?);
                    sector.extend_from_slice(s.bytes(8, 4084)?);
                    sector.extend_from_slice(d.bytes(4, 4)?);
                    if offset > i64::MAX.unsigned_abs().saturating_sub(SECTOR) {
                        return Err(fail(format!("data at {offset}")));
                    }
                    overlay.put(offset, &sector);
                    data_at = data_at.saturating_add(4096);
                }
                _ => return Err(fail(format!("descriptor {n} of an unknown kind"))),
            }
        }
        Ok(())
    }
}
