//! Guest names that no host directory can hold, and how the tree shows them.
//!
//! A damaged or hostile directory can hold `a/b`, `..`, an empty name or one with a NUL.
//! The tree shows such bytes as `%XX`, and finds the entry again by what it showed. All
//! other names are shown as they are, percent signs included.

use guest_fs::Name;

/// The name as the tree shows it.
pub fn shown(name: Name) -> Name {
    let bytes = name.as_bytes();
    if bytes == b"." || bytes == b".." {
        return Name::from_bytes(bytes.iter().flat_map(|b| escape(*b)).collect::<Vec<u8>>());
    }
    if bytes.is_empty() {
        // No name escapes to this one: a lone percent sign stays what it is.
        return Name::from("%");
    }
    if !bytes.iter().any(|b| needs_escape(*b)) {
        return name;
    }
    Name::from_bytes(escape_if(bytes, needs_escape))
}

/// The stored name behind a shown one, if the two differ.
pub fn stored(shown_name: &Name) -> Option<Name> {
    let bytes = shown_name.as_bytes();
    if bytes == b"%" {
        return Some(Name::default());
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, more)) = rest.split_first() {
        match rest {
            [b'%', high, low, more @ ..] if let Some(byte) = unhex(*high, *low) => {
                out.push(byte);
                rest = more;
            }
            _ => {
                out.push(first);
                rest = more;
            }
        }
    }
    let name = Name::from_bytes(out);
    (name != *shown_name && shown(name.clone()) == *shown_name).then_some(name)
}

/// A name of the tree's own making (a snapshot's, say): `/` and control characters escaped.
pub fn own_name(name: &Name) -> Name {
    let bytes = name.as_bytes();
    if matches!(bytes, b"" | b"." | b"..") {
        return shown(name.clone());
    }
    Name::from_bytes(escape_if(bytes, |b| b == b'/' || b < 0x20 || b == 0x7f))
}

fn needs_escape(byte: u8) -> bool {
    byte == b'/' || byte == 0
}

fn escape_if(bytes: &[u8], what: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    for byte in bytes {
        if what(*byte) {
            out.extend(escape(*byte));
        } else {
            out.push(*byte);
        }
    }
    out
}

fn escape(byte: u8) -> [u8; 3] {
    let digit = |n: u8| if n < 10 { b'0' + n } else { b'A' + n - 10 };
    [b'%', digit(byte >> 4), digit(byte & 15)]
}

fn unhex(high: u8, low: u8) -> Option<u8> {
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_must_be_is_escaped() {
        for (from, to) in [
            ("a/b", "a%2Fb"),
            ("..", "%2E%2E"),
            (".", "%2E"),
            ("", "%"),
            ("100%", "100%"),
            ("a%2Fb", "a%2Fb"),
            ("...", "..."),
            ("nul\0", "nul%00"),
        ] {
            assert_eq!(shown(Name::from(from)).to_string(), to, "{from:?}");
        }
        assert_eq!(stored(&Name::from("a%2Fb")), Some(Name::from("a/b")));
        assert_eq!(stored(&Name::from("a%41b")), None);
        assert_eq!(stored(&Name::from("100%")), None);
        assert_eq!(own_name(&Name::from("a\nb/c")).to_string(), "a%0Ab%2Fc");
    }

    proptest! {
        #[test]
        fn every_shown_name_is_safe_and_leads_back(
            bytes in prop::collection::vec(any::<u8>(), 0..40)
        ) {
            let name = Name::from_bytes(bytes);
            let shown = shown(name.clone());
            prop_assert!(!shown.as_bytes().is_empty());
            prop_assert!(!shown.as_bytes().iter().any(|b| *b == 0 || *b == b'/'));
            prop_assert!(!matches!(shown.as_bytes(), b"." | b".."));
            // A name that was changed leads back, unless it held an escape of its own.
            if shown != name && !name.as_bytes().contains(&b'%') {
                prop_assert_eq!(stored(&shown), Some(name));
            }
        }
    }
}
