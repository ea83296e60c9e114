//! Guest file names.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

/// A file name as bytes. Names from UTF-16 are WTF-8: valid UTF-8 except that an unpaired
/// surrogate is kept as its three bytes, so that every name comes back as it was. Names
/// from Unix file systems are their own bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Name(Vec<u8>);

impl Name {
    /// A name from bytes.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// A name from UTF-16 code units, paired or not.
    pub fn from_utf16(units: impl IntoIterator<Item = u16>) -> Self {
        let mut units = units.into_iter().peekable();
        let mut out = Vec::with_capacity(units.size_hint().0);
        // Most names are all ASCII.
        while let Some(unit) = units.next_if(|u| *u < 0x80) {
            out.push(unit as u8);
        }
        for decoded in char::decode_utf16(units) {
            match decoded {
                Ok(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                Err(e) => {
                    let u = e.unpaired_surrogate();
                    out.extend_from_slice(&[
                        0xe0 | (u >> 12) as u8,
                        0x80 | (u >> 6 & 0x3f) as u8,
                        0x80 | (u & 0x3f) as u8,
                    ]);
                }
            }
        }
        Self(out)
    }

    /// The UTF-16 code units of a WTF-8 name; `None` if the bytes are not WTF-8.
    pub fn to_utf16(&self) -> Option<Vec<u16>> {
        if let Ok(text) = std::str::from_utf8(&self.0) {
            return Some(text.encode_utf16().collect());
        }
        let mut out = Vec::with_capacity(self.0.len());
        let mut rest = self.0.as_slice();
        while !rest.is_empty() {
            match rest {
                [0xed, b @ 0xa0..=0xbf, c @ 0x80..=0xbf, more @ ..] => {
                    out.push(0xd000 | u16::from(b & 0x3f) << 6 | u16::from(c & 0x3f));
                    rest = more;
                }
                _ => {
                    let valid = rest
                        .iter()
                        .skip(1)
                        .position(|b| b & 0xc0 != 0x80)
                        .map_or(rest.len(), |n| n + 1);
                    let (one, more) = rest.split_at(valid);
                    out.extend(std::str::from_utf8(one).ok()?.encode_utf16());
                    rest = more;
                }
            }
        }
        Some(out)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As the host's own kind of name.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// As the host's own kind of name, owned.
    pub fn into_os_string(self) -> OsString {
        OsString::from_vec(self.0)
    }

    /// The text, if it is all text.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<&OsStr> for Name {
    fn from(name: &OsStr) -> Self {
        Self(name.as_bytes().to_vec())
    }
}

/// For people: bytes that are not UTF-8 as `\xNN`, control characters escaped.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(&disk_io::error::escape(chunk.valid()))?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::Name;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_utf16_name_comes_back(units in prop::collection::vec(any::<u16>(), 0..300)) {
            prop_assert_eq!(Name::from_utf16(units.clone()).to_utf16(), Some(units));
        }
    }

    #[test]
    fn shows_what_is_not_text() {
        let name = Name::from_utf16([0x61, 0xd800, 0x0a]);
        assert_eq!(name.to_string(), "a\\xed\\xa0\\x80\\n");
        assert_eq!(name.as_str(), None);
    }
}
