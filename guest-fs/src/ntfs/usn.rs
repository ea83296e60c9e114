//! The change journal, `$Extend\$UsnJrnl:$J`.
//!
//! Records follow each other, aligned to 8 bytes, none across the end of a page of 4 KiB;
//! what is older than the journal keeps is a hole at its beginning.

use super::volume::Ntfs;
use crate::{Change, FileSystem, Name, NodeId, Timestamp};
use disk_io::{Disk, DiskError, Fields, Result};
use std::{ops::ControlFlow, sync::Arc};

/// $Extend's record.
const EXTEND: u64 = 11;
const PAGE: u64 = 4096;
/// Read at once.
const STEP: u64 = 256 * PAGE;
/// A record without its name, of versions 2 and 3.
const SHORTEST: [usize; 2] = [60, 76];

pub(super) fn read(
    ntfs: &Ntfs,
    visit: &mut dyn FnMut(Result<Change>) -> ControlFlow<()>,
) -> Result<bool> {
    let Some(journal) = open(ntfs)? else {
        return Ok(false);
    };
    let mut at = 0u64;
    let mut page = vec![0u8; PAGE as usize];
    while at < journal.len() {
        let run = journal.run_at(at)?;
        let end = at.saturating_add(run.len.min(STEP));
        if run.kind.reads_as_zero() {
            at = at.saturating_add(run.len).next_multiple_of(PAGE);
            continue;
        }
        while at < end {
            let n = PAGE.min(journal.len().saturating_sub(at));
            let bytes = page.get_mut(..n as usize).unwrap_or_default();
            let flow = match journal.read_exact_at(bytes, at) {
                Ok(()) => records(bytes, at, visit),
                Err(e) => visit(Err(e)),
            };
            if flow.is_break() {
                return Ok(true);
            }
            at = at.saturating_add(PAGE);
        }
    }
    Ok(true)
}

fn open(ntfs: &Ntfs) -> Result<Option<Arc<dyn Disk>>> {
    let sequence = ntfs.volume.record(EXTEND)?.sequence();
    let extend = NodeId {
        record: EXTEND,
        sequence,
    };
    match ntfs.lookup(extend, &Name::from("$UsnJrnl"))? {
        Some(node) => ntfs.open(node, Some(&Name::from("$J"))).map(Some),
        None => Ok(None),
    }
}

/// Visits the records of one page.
fn records(
    page: &[u8],
    at: u64,
    visit: &mut dyn FnMut(Result<Change>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut offset = 0usize;
    while let Some(rest) = page.get(offset..).filter(|r| r.len() >= 8) {
        let f = Fields::new(rest, at.saturating_add(offset as u64), "change journal");
        let len = f.u32_le(0).unwrap_or(0) as usize;
        if len == 0 {
            // The page was filled up.
            break;
        }
        let bad = |found: String| {
            DiskError::corrupt("reading a record of the change journal")
                .offset(at.saturating_add(offset as u64))
                .found(found)
        };
        if len > rest.len() || !len.is_multiple_of(8) || len < 8 {
            visit(Err(bad(format!("a record of {len} bytes"))))?;
            break;
        }
        match parse(&f, len) {
            Ok(Some(change)) => visit(Ok(change))?,
            // Version 4 tells ranges of a change that another record tells.
            Ok(None) => {}
            Err(e) => visit(Err(e))?,
        }
        offset = offset.saturating_add(len);
    }
    ControlFlow::Continue(())
}

fn parse(f: &Fields<'_>, len: usize) -> Result<Option<Change>> {
    let version = f.u16_le(4)?;
    // Version 3 has references of 128 bits, of which NTFS uses the lower half.
    let (shortest, wide) = match version {
        2 => (SHORTEST[0], 0usize),
        3 => (SHORTEST[1], 8),
        4 => return Ok(None),
        other => {
            return Err(f
                .corrupt(4, "version of a change record")
                .found(other.to_string()));
        }
    };
    let reference = |at: usize| -> Result<NodeId> {
        let value = f.u64_le(at)?;
        Ok(NodeId {
            record: value & 0xffff_ffff_ffff,
            sequence: (value >> 48) as u16,
        })
    };
    let after = wide.saturating_mul(2);
    let field = |at: usize| at.saturating_add(after);
    let name_len = usize::from(f.u16_le(field(56))?);
    let name_at = usize::from(f.u16_le(field(58))?);
    if name_at < shortest || name_at.saturating_add(name_len) > len {
        return Err(f
            .corrupt(field(56), "place of the name in a change record")
            .found(format!("{name_len} bytes at {name_at} of {len}")));
    }
    Ok(Some(Change {
        usn: f.u64_le(field(24))?,
        time: Timestamp::from_filetime(f.u64_le(field(32))?),
        node: reference(8)?,
        parent: reference(16usize.saturating_add(wide))?,
        name: Name::from_utf16(super::units(f.bytes(name_at, name_len)?)),
        reasons: f.u32_le(field(40))?,
        attributes: f.u32_le(field(52))?,
    }))
}

impl Change {
    /// Windows' names of the reasons; bits without a name are left out.
    pub fn reason_names(&self) -> impl Iterator<Item = &'static str> {
        let set = self.reasons;
        let all = REASONS.into_iter();
        all.filter(move |(bit, _)| set & bit != 0).map(|(_, n)| n)
    }
}

const REASONS: [(u32, &str); 22] = [
    (0x1, "data-overwrite"),
    (0x2, "data-extend"),
    (0x4, "data-truncation"),
    (0x10, "named-data-overwrite"),
    (0x20, "named-data-extend"),
    (0x40, "named-data-truncation"),
    (0x100, "file-create"),
    (0x200, "file-delete"),
    (0x400, "ea-change"),
    (0x800, "security-change"),
    (0x1000, "rename-old-name"),
    (0x2000, "rename-new-name"),
    (0x4000, "indexable-change"),
    (0x8000, "basic-info-change"),
    (0x1_0000, "hard-link-change"),
    (0x2_0000, "compression-change"),
    (0x4_0000, "encryption-change"),
    (0x8_0000, "object-id-change"),
    (0x10_0000, "reparse-point-change"),
    (0x20_0000, "stream-change"),
    (0x40_0000, "transacted-change"),
    (0x8000_0000, "close"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(version: u16, name: &str, reasons: u32) -> Vec<u8> {
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let wide = if version == 3 { 8 } else { 0 };
        let header = 60 + 2 * wide;
        let len = (header + name.len()).next_multiple_of(8);
        let mut out = vec![0u8; len];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(len as u32).to_le_bytes());
        put(4, &version.to_le_bytes());
        put(8, &(0x0003_0000_0000_0040u64).to_le_bytes());
        put(16 + wide, &(0x0005_0000_0000_0005u64).to_le_bytes());
        put(24 + 2 * wide, &0x1000u64.to_le_bytes());
        put(32 + 2 * wide, &116_444_736_000_000_001u64.to_le_bytes());
        put(40 + 2 * wide, &reasons.to_le_bytes());
        put(56 + 2 * wide, &(name.len() as u16).to_le_bytes());
        put(58 + 2 * wide, &(header as u16).to_le_bytes());
        put(header, &name);
        out
    }

    fn read(page: &[u8]) -> Vec<Result<Change>> {
        let mut all = Vec::new();
        let _ = records(page, 0, &mut |r| {
            all.push(r);
            ControlFlow::Continue(())
        });
        all
    }

    #[test]
    fn both_versions_and_the_filling() {
        let mut page = record(2, "a.txt", 0x100);
        page.extend(record(3, "лог", 0x8000_0200));
        page.resize(4096, 0);
        let all = read(&page);
        assert_eq!(all.len(), 2);
        let (a, b) = (all[0].as_ref().unwrap(), all[1].as_ref().unwrap());
        assert_eq!((a.name.to_string(), a.reasons), ("a.txt".into(), 0x100));
        assert_eq!((a.node.record, a.node.sequence), (0x40, 3));
        assert_eq!((b.parent.record, b.parent.sequence), (5, 5));
        assert_eq!(b.name.to_string(), "лог");
        assert_eq!((b.time.seconds, b.time.nanos), (0, 100));
    }

    #[test]
    fn damage_is_told() {
        let mut page = record(2, "a", 1);
        page[58] = 0xff;
        page.extend(record(9, "b", 1));
        page.extend([12, 0, 0, 0, 2, 0, 0, 0]);
        let all = read(&page);
        assert_eq!(all.len(), 3);
        assert!(all.iter().all(Result::is_err));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600), len in 0u32..80) {
            let _ = read(&bytes);
            let mut bytes = bytes;
            for (at, b) in len.to_le_bytes().iter().enumerate() {
                if let Some(byte) = bytes.get_mut(at) { *byte = *b; }
            }
            if let Some(v) = bytes.get_mut(4) { *v = 2; }
            if let Some(v) = bytes.get_mut(5) { *v = 0; }
            let _ = read(&bytes);
        }
    }
}
