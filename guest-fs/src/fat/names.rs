//! Names as a Unix tree can carry them, and names folded to compare without case.

use crate::Name;

/// A name without what would mean something else in a path: `/` and NUL become the
/// private-use characters U+F02F and U+F000, as other systems map them too, and so does
/// the last dot of `.` and `..`. FAT allows none of these, so only damage has them.
pub(crate) fn safe(units: impl IntoIterator<Item = u16>) -> Name {
    let map = |u: u16| if matches!(u, 0 | 0x2f) { u | 0xf000 } else { u };
    let mut units: Vec<u16> = units.into_iter().map(map).collect();
    if matches!(units.as_slice(), [0x2e] | [0x2e, 0x2e])
        && let Some(last) = units.last_mut()
    {
        *last |= 0xf000;
    }
    if units.is_empty() {
        units.push(0xf020);
    }
    Name::from_utf16(units)
}

/// The name in upper case, by Unicode's simple mapping; `None` if it is not WTF-8.
pub(crate) fn folded(name: &Name) -> Option<Vec<u16>> {
    Some(name.to_utf16()?.into_iter().map(upper).collect())
}

/// One unit in upper case.
pub(crate) fn upper(unit: u16) -> u16 {
    let Some(c) = char::from_u32(u32::from(unit)) else {
        return unit;
    };
    let mut mapped = c.to_uppercase();
    match (mapped.next(), mapped.next()) {
        (Some(up), None) => u16::try_from(u32::from(up)).unwrap_or(unit),
        _ => unit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_climbs_out_of_a_directory() {
        for evil in ["..", ".", "a/../b", "/", "\0", ""] {
            let name = safe(evil.encode_utf16());
            let bytes = name.as_bytes();
            assert!(!bytes.contains(&b'/') && !bytes.contains(&0), "{name}");
            assert!(bytes != b"." && bytes != b".." && !bytes.is_empty());
        }
        assert_eq!(safe("a.b".encode_utf16()), Name::from("a.b"));
    }

    #[test]
    fn folds_one_to_one() {
        assert_eq!(
            folded(&Name::from("aßé")),
            folded(&Name::from(
                "Aßé".to_uppercase().replace("SS", "ß").as_str()
            ))
        );
        assert_eq!(folded(&Name::from("x")), folded(&Name::from("X")));
    }
}
