//! Files compressed by NTFS: units of usually 16 clusters, each LZNT1, plain or a hole.

use super::{
    runs::{RunList, Where},
    stream::places,
    volume::Volume,
};
use disk_io::{
    Disk, DiskError, Fields, Result, Run, RunKind,
    disk::{check_range, check_run_offset},
};
use std::sync::Arc;

/// LZNT1 works on pieces of this size.
const CHUNK: usize = 4096;
/// The largest unit that we decode: 16 clusters of 4 KiB are the largest that Windows makes.
pub(crate) const MAX_UNIT: u64 = 1 << 20;
/// `run_at` looks at no more units than this.
const MAX_JOINED: u64 = 1024;

/// A compressed stream.
#[derive(Debug)]
pub(crate) struct Compressed {
    pub(crate) volume: Arc<Volume>,
    pub(crate) what: String,
    pub(crate) len: u64,
    /// Bytes beyond were never written: zeros.
    pub(crate) initialized: u64,
    pub(crate) runs: RunList,
    /// Bytes in a unit; at least a cluster, at most [`MAX_UNIT`].
    pub(crate) unit: u64,
    /// Names the stream in the cache of decoded units.
    pub(crate) id: u64,
}

/// How a unit is stored.
enum Stored {
    Hole,
    Plain,
    /// LZNT1 in this many bytes.
    Coded(u64),
}

impl Compressed {
    fn fail(&self, at: u64) -> DiskError {
        DiskError::corrupt(format!("decompressing {}", self.what)).offset(at)
    }

    /// How the unit that begins at `start` is stored: in clusters up to its first hole.
    fn stored(&self, start: u64) -> Result<Stored> {
        let end = start.saturating_add(self.unit);
        let mut bytes = 0u64;
        let mut hole = false;
        for (_, len, place) in places(&self.runs, self.volume.boot.cluster(), start, end) {
            match place {
                Where::Hole => hole = true,
                _ if hole => {
                    return Err(self.fail(start).found("clusters behind the hole of a unit"));
                }
                _ => bytes = bytes.saturating_add(len),
            }
        }
        let needed = self.unit.min(self.len.saturating_sub(start));
        Ok(match (bytes, hole) {
            (0, _) => Stored::Hole,
            (_, true) => Stored::Coded(bytes),
            (n, false) if n >= needed => Stored::Plain,
            (n, false) => {
                return Err(self
                    .fail(start)
                    .expected(format!("clusters for {needed} bytes"))
                    .found(format!("clusters for {n}")));
            }
        })
    }

    /// The stored bytes of the unit that begins at `start`.
    fn coded(&self, start: u64, stored: u64) -> Result<Vec<u8>> {
        let mut coded = vec![0; stored as usize];
        self.volume
            .read_runs(&self.runs, &mut coded, start, &|| self.what.clone())?;
        Ok(coded)
    }

    fn unpack(&self, coded: &[u8], unit: &mut [u8], start: u64) -> Result<()> {
        decode(coded, unit)
            .map_err(|e| e.context(format!("decompressing {} at {start}", self.what)))
    }

    /// Decodes the unit that begins at `start`.
    fn decode(&self, start: u64, stored: u64) -> Result<Arc<[u8]>> {
        let key = (self.id, start);
        if let Some(unit) = self.volume.units.get(&key) {
            return Ok(unit);
        }
        let coded = self.coded(start, stored)?;
        let mut unit = vec![0; self.unit as usize];
        self.unpack(&coded, &mut unit, start)?;
        let unit: Arc<[u8]> = unit.into();
        self.volume.units.insert(key, unit.clone());
        Ok(unit)
    }
}

/// Decodes the chunks of one unit. What the chunks do not fill is zeros, as in Windows.
pub(crate) fn decode(coded: &[u8], unit: &mut [u8]) -> Result<()> {
    let f = Fields::new(coded, 0, "LZNT1 unit");
    let mut at = 0usize;
    for out in unit.chunks_mut(CHUNK) {
        // A unit that fills its clusters has no end mark.
        if at.saturating_add(2) > coded.len() {
            return Ok(());
        }
        let header = f.u16_le(at)?;
        if header == 0 {
            return Ok(());
        }
        let bad = |found: String| f.corrupt(at, "a chunk").found(found);
        if header >> 12 & 7 != 3 {
            return Err(bad(format!("chunk header {header:#06x}")));
        }
        let body_len = usize::from(header & 0xfff).saturating_add(1);
        let body = f.bytes(at.saturating_add(2), body_len)?;
        if header & 0x8000 == 0 {
            let Some(out) = out.get_mut(..body_len) else {
                return Err(bad(format!("a plain chunk of {body_len} bytes")));
            };
            out.copy_from_slice(body);
        } else {
            // One chunk at a time: references never reach into the chunk before.
            chunk(body, out).map_err(|found| bad(found.into()))?;
        }
        at = at.saturating_add(2).saturating_add(body_len);
    }
    Ok(())
}

/// Decodes one compressed chunk into the beginning of `out`.
///
/// Groups of eight items follow a byte whose bits say which are literals (0) and which are
/// references of 16 bits: the farther the output has come, the more of them are distance.
///
/// The crate `lznt1` decodes the same at half the speed; it is the judge in the tests.
// Every index is compared with a length right before it is used, and the positions stay
// below the lengths of two slices.
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
fn chunk(body: &[u8], out: &mut [u8]) -> std::result::Result<(), &'static str> {
    let (mut from, mut to) = (0usize, 0usize);
    let (mut split, mut threshold) = (12u32, 16usize);
    while from < body.len() {
        let mut flags = body[from];
        from += 1;
        if flags == 0 && from + 8 <= body.len() && to + 8 <= out.len() {
            out[to..to + 8].copy_from_slice(&body[from..from + 8]);
            (from, to) = (from + 8, to + 8);
            continue;
        }
        for _ in 0..8 {
            if flags & 1 == 0 {
                if from >= body.len() {
                    return Ok(());
                }
                if to >= out.len() {
                    return Err("a chunk of more than 4096 bytes");
                }
                out[to] = body[from];
                (from, to) = (from + 1, to + 1);
            } else {
                if from + 2 > body.len() {
                    return Err("half a reference");
                }
                let item = usize::from(u16::from_le_bytes([body[from], body[from + 1]]));
                from += 2;
                while to > threshold {
                    split = split.saturating_sub(1);
                    threshold *= 2;
                }
                let len = (item & ((1 << split) - 1)) + 3;
                let back = (item >> split) + 1;
                if back > to {
                    return Err("a reference before the chunk's beginning");
                }
                if to + len > out.len() {
                    return Err("a chunk of more than 4096 bytes");
                }
                if back >= len {
                    out.copy_within(to - back..to - back + len, to);
                } else if back == 1 {
                    let byte = out[to - 1];
                    out[to..to + len].fill(byte);
                } else {
                    for at in to..to + len {
                        out[at] = out[at - back];
                    }
                }
                to += len;
            }
            // The last group may have bits for items that do not come.
            if from >= body.len() {
                return Ok(());
            }
            flags >>= 1;
        }
    }
    Ok(())
}

impl Disk for Compressed {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.volume.disk.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len, offset, buf.len())?;
        let valid = self.initialized.saturating_sub(offset);
        let split = usize::try_from(valid).unwrap_or(usize::MAX).min(buf.len());
        let (mut rest, zeros) = buf.split_at_mut(split);
        zeros.fill(0);
        let mut at = offset;
        while !rest.is_empty() {
            let skip = at.checked_rem(self.unit).unwrap_or(0);
            let start = at.saturating_sub(skip);
            let n = rest.len().min(self.unit.saturating_sub(skip) as usize);
            let (now, later) = rest.split_at_mut(n);
            match self.stored(start)? {
                Stored::Hole => now.fill(0),
                Stored::Plain => {
                    self.volume
                        .read_runs(&self.runs, now, at, &|| self.what.clone())?;
                }
                // Whole units are decoded where they are wanted: who reads them all does not
                // come back.
                Stored::Coded(len) if skip == 0 && n as u64 == self.unit => {
                    let coded = self.coded(start, len)?;
                    now.fill(0);
                    self.unpack(&coded, now, start)?;
                }
                Stored::Coded(len) => {
                    let unit = self.decode(start, len)?;
                    let from = skip as usize;
                    match unit.get(from..from.saturating_add(n)) {
                        Some(part) => now.copy_from_slice(part),
                        None => return Err(self.fail(at)),
                    }
                }
            }
            rest = later;
            at = at.saturating_add(n as u64);
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len, offset)?;
        let run = |end: u64, kind| {
            Ok(Run {
                len: end.min(self.len).saturating_sub(offset).max(1),
                kind,
            })
        };
        if offset >= self.initialized {
            return run(self.len, RunKind::Zero);
        }
        let first = offset.saturating_sub(offset.checked_rem(self.unit).unwrap_or(0));
        let is_hole = |start| matches!(self.stored(start), Ok(Stored::Hole));
        let hole = is_hole(first);
        let mut end = first.saturating_add(self.unit);
        let mut joined = 0;
        while end < self.len && joined < MAX_JOINED && is_hole(end) == hole {
            end = end.saturating_add(self.unit);
            joined = joined.saturating_add(1);
        }
        if hole {
            run(end, RunKind::Unallocated)
        } else {
            run(end.min(self.initialized), RunKind::Data)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, decode};
    use proptest::prelude::*;

    #[test]
    fn chunks_are_decoded_apart() {
        let mut coded = Vec::new();
        lznt1::compress(&[7; 5000], &mut coded);
        coded.extend([0, 0]);
        let mut unit = [1; 4 * CHUNK];
        unit.fill(0);
        decode(&coded, &mut unit).unwrap();
        assert!(unit[..5000].iter().all(|b| *b == 7));
        assert!(unit[5000..].iter().all(|b| *b == 0));
        // A chunk that refers to what was before it.
        let bad = [0x02, 0xb0, 0x01, 0x00, 0x00];
        assert!(decode(&bad, &mut unit).is_err());
        // A chunk header without its mark.
        assert!(decode(&[0x01, 0x80, 0, 0], &mut unit).is_err());
    }

    proptest! {
        /// What the crate compresses, and what it makes of damaged bytes.
        #[test]
        fn decodes_as_the_crate_does(
            words in prop::collection::vec(0usize..40, 1..2500),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let text: Vec<u8> = words
                .iter()
                .flat_map(|w| format!("{}word{w} ", "a".repeat(w % 7)).into_bytes())
                .collect();
            let mut coded = Vec::new();
            lznt1::compress(&text, &mut coded);
            for (at, byte) in &flips {
                let at = at.index(coded.len());
                coded[at] ^= byte;
            }
            coded.extend([0, 0]);
            let mut unit = vec![0; text.len().next_multiple_of(CHUNK)];
            let ours = decode(&coded, &mut unit);
            if flips.is_empty() {
                prop_assert!(ours.is_ok());
                prop_assert_eq!(&unit[..text.len()], &text[..]);
            } else {
                // Chunk by chunk, as the unit has them.
                let mut at = 0;
                for out in unit.chunks(CHUNK) {
                    let header = usize::from(u16::from_le_bytes([coded[at], coded[at + 1]]));
                    if header == 0 || header >> 12 & 7 != 3 {
                        break;
                    }
                    let end = at + 3 + (header & 0xfff);
                    let mut theirs = Vec::new();
                    let whole = end <= coded.len()
                        && lznt1::decompress(&coded[at..end], &mut theirs).is_ok()
                        && theirs.len() <= CHUNK;
                    if !whole {
                        prop_assert!(ours.is_err());
                        break;
                    }
                    prop_assert!(out[..theirs.len()] == theirs[..], "{ours:?} at {at} {header:#x} {}", theirs.len());
                    at = end;
                    if at + 2 > coded.len() {
                        break;
                    }
                }
            }
        }

        #[test]
        fn never_panics(coded in prop::collection::vec(any::<u8>(), 0..9000)) {
            let mut unit = vec![0; 65_536];
            let _ = decode(&coded, &mut unit);
        }
    }
}
