//! Extended attributes (OS/2's; WSL keeps owner and mode in them) and object ids.

use super::{file::File, record::kind};
use crate::Name;
use disk_io::{Fields, Result};

/// Windows' own limit for all of them.
const MAX_LEN: u64 = 1 << 16;

/// All extended attributes of a file.
pub(crate) fn read(file: &File<'_>) -> Result<Vec<(Name, Vec<u8>)>> {
    match file.value(kind::EA, &[], MAX_LEN)? {
        Some(bytes) => parse(&bytes),
        None => Ok(Vec::new()),
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<(Name, Vec<u8>)>> {
    let f = Fields::new(bytes, 0, "extended attributes");
    let mut out = Vec::new();
    let mut at = 0usize;
    while at.saturating_add(8) < bytes.len() {
        let next = f.u32_le(at)? as usize;
        let name_len = usize::from(f.u8(at.saturating_add(5))?);
        let value_len = usize::from(f.u16_le(at.saturating_add(6))?);
        let name_at = at.saturating_add(8);
        let value_at = name_at.saturating_add(name_len).saturating_add(1);
        let name = Name::from_bytes(f.bytes(name_at, name_len)?);
        out.push((name, f.bytes(value_at, value_len)?.to_vec()));
        if next == 0 {
            break;
        }
        if next < 8 {
            return Err(f
                .corrupt(at, "the next attribute's place")
                .found(next.to_string()));
        }
        at = at.saturating_add(next);
    }
    Ok(out)
}

/// The first 16 bytes of $OBJECT_ID.
pub(crate) fn object_id(file: &File<'_>) -> Result<Option<[u8; 16]>> {
    let value = file.value(kind::OBJECT_ID, &[], 4096)?;
    Ok(value.and_then(|v| v.first_chunk().copied()))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use proptest::prelude::*;

    #[test]
    fn two_of_them() {
        let mut bytes = Vec::new();
        bytes.extend(20u32.to_le_bytes());
        bytes.extend([0, 6, 4, 0]);
        bytes.extend(b"$LXUID\0\xe8\x03\0\0\0");
        bytes.extend(0u32.to_le_bytes());
        bytes.extend([0, 1, 1, 0]);
        bytes.extend(b"A\0x");
        let all = parse(&bytes).unwrap();
        assert_eq!(all[0], ("$LXUID".into(), vec![0xe8, 3, 0, 0]));
        assert_eq!(all[1], ("A".into(), vec![b'x']));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
