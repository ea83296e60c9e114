//! $ATTRIBUTE_LIST: which records hold the attributes of a file that outgrew its record.

use super::record::Reference;
use disk_io::{Fields, Result};

/// One piece of an attribute and the record that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: u32,
    /// UTF-16LE.
    pub(crate) name: Vec<u8>,
    /// First cluster that the piece maps.
    pub(crate) lowest: u64,
    pub(crate) holder: Reference,
}

/// The longest list we read. Windows stops at 256 KiB.
pub(crate) const MAX_LEN: u64 = 1 << 20;

/// Parses the list. Entries before a damaged one are kept: the error comes beside them.
pub(crate) fn parse(bytes: &[u8]) -> (Vec<Entry>, Result<()>) {
    let mut entries = Vec::new();
    let f = Fields::new(bytes, 0, "attribute list");
    let mut at = 0usize;
    while at < bytes.len() {
        // Lists may end in zeros up to a multiple of 8.
        if bytes.get(at..).is_some_and(disk_io::zero::is_zero) {
            break;
        }
        match entry(&f, at) {
            Ok((entry, len)) => {
                entries.push(entry);
                at = at.saturating_add(len);
            }
            Err(e) => return (entries, Err(e)),
        }
    }
    (entries, Ok(()))
}

fn entry(f: &Fields<'_>, at: usize) -> Result<(Entry, usize)> {
    let len = usize::from(f.u16_le(at.saturating_add(4))?);
    let name_bytes = usize::from(f.u8(at.saturating_add(6))?).saturating_mul(2);
    // One that is too long swallows those behind it.
    let most = name_bytes
        .saturating_add(26)
        .next_multiple_of(8)
        .saturating_add(8);
    let left = f.len().saturating_sub(at);
    if !(26..=most).contains(&len) || len > left.saturating_add(7) {
        return Err(f
            .corrupt(at, "an entry")
            .expected(format!("a length of 26 to {most} bytes, inside the list"))
            .found(len.to_string()));
    }
    // The last entry may be cut at the end of the list.
    let e = f.sub(
        at,
        len.min(f.len().saturating_sub(at)),
        "attribute list entry",
    )?;
    let name_len = usize::from(e.u8(6)?).saturating_mul(2);
    let name = if name_len == 0 {
        Vec::new()
    } else {
        e.bytes(usize::from(e.u8(7)?), name_len)?.to_vec()
    };
    Ok((
        Entry {
            kind: e.u32_le(0)?,
            name,
            lowest: e.u64_le(8)?,
            holder: Reference::new(e.u64_le(16)?),
        },
        len,
    ))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use proptest::prelude::*;

    #[test]
    fn keeps_what_precedes_damage() {
        let mut bytes = vec![0; 32];
        bytes[0] = 0x80;
        bytes[4] = 32;
        bytes[8] = 7;
        bytes[16] = 40;
        bytes[22] = 3;
        let good = parse(&bytes);
        assert_eq!(good.0.len(), 1);
        assert_eq!(
            (
                good.0[0].lowest,
                good.0[0].holder.record,
                good.0[0].holder.sequence
            ),
            (7, 40, 3)
        );
        assert!(good.1.is_ok());
        bytes.extend([0x80, 0, 0, 0, 3, 0]);
        let bad = parse(&bytes);
        assert_eq!(bad.0, good.0);
        assert!(bad.1.is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }
    }
}
