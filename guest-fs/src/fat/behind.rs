//! Entries behind a directory's end. All there are free, but drivers need not clear them, so
//! that what is left of a damaged directory must be told from what was there before.

use super::{boot::Geometry, entry::Entry};

/// Whether this is an entry in use: everything about it is as a driver writes it, and its first
/// cluster is in use.
pub(super) fn in_use(entry: &Entry, geometry: &Geometry, used: &dyn Fn(u32) -> bool) -> bool {
    if entry.is_deleted() || entry.attributes & 0xc8 != 0 || entry.case & !0x18 != 0 {
        return false;
    }
    if !valid_name(&entry.short) || !entry.times_are_valid() {
        return false;
    }
    let first = geometry.first_cluster(entry);
    let has = geometry.has_cluster(first) && used(first);
    match (entry.is_dir(), entry.size) {
        (true, size) => size == 0 && has,
        (false, 0) => first == 0,
        (false, _) => has,
    }
}

/// Whether a name of 8.3 has only what it may have: upper case, spaces only at the end.
pub(super) fn valid_name(short: &[u8; 11]) -> bool {
    let (base, extension) = short.split_at(8);
    let part = |bytes: &[u8]| {
        let (mut padded, mut lead) = (false, false);
        bytes.iter().enumerate().all(|(n, b)| {
            // The second byte of a character of two may be almost any.
            if std::mem::take(&mut lead) && *b >= 0x40 {
                return true;
            }
            lead = *b >= 0x81;
            padded |= *b == b' ';
            match *b {
                b' ' => true,
                _ if padded => false,
                0x05 => n == 0,
                0..0x20 | 0x7f | b'a'..=b'z' => false,
                b => !b"\"*+,./:;<=>?[\\]|".contains(&b),
            }
        })
    };
    short.first() != Some(&b' ') && part(base) && part(extension)
}

/// Whether an entry is part of a long name in all but its attributes: neither a name nor a label
/// has the zeros of UTF-16.
pub(super) fn looks_long(raw: &[u8; 32], entry: &Entry) -> bool {
    let order = raw.first().copied().unwrap_or_default();
    (1..=20).contains(&(order & 0xbf))
        && entry.case == 0
        && raw.get(26..28) == Some(&[0, 0])
        && entry.short.get(1..).is_some_and(|rest| rest.contains(&0))
}

#[cfg(test)]
mod tests {
    use super::valid_name;

    #[test]
    fn names_of_dos() {
        for good in [
            b"A       TXT",
            b"\x05BC     1  ",
            b"\x83e\x83X\x83g  TXT",
            b"~#12345 $  ",
        ] {
            assert!(valid_name(good), "{good:?}");
        }
        for bad in [
            b"        TXT",
            b"A B     TXT",
            b"a       TXT",
            b"A\0      TXT",
            b"A.      TXT",
        ] {
            assert!(!valid_name(bad), "{bad:?}");
        }
    }
}
