//! GUIDs as Windows stores them: three little-endian numbers, then eight bytes.

use disk_io::{Fields, Result};
use std::fmt;

/// A GUID, in the order of its bytes on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Guid(pub(crate) [u8; 16]);

impl Guid {
    pub(crate) const ZERO: Self = Self([0; 16]);

    /// From its usual spelling as one number: `0x2dc27766_f623_4200_9d64_115e9bfd4a08`.
    pub(crate) const fn new(n: u128) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = n.to_be_bytes();
        let [i, j, k, l, m, n, o, p] = rest;
        Self([d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p])
    }

    pub(crate) fn read(f: &Fields<'_>, at: usize) -> Result<Self> {
        let mut id = [0; 16];
        id.copy_from_slice(f.bytes(at, 16)?);
        Ok(Self(id))
    }

    /// From text such as `{2DC27766-F623-4200-9D64-115E9BFD4A08}`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hex: String = text
            .chars()
            .filter(|c| !matches!(c, '{' | '}' | '-'))
            .collect();
        if hex.len() != 32 {
            return None;
        }
        u128::from_str_radix(&hex, 16).ok().map(Self::new)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i, rest @ ..] = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-",
            u32::from_le_bytes([a, b, c, d]),
            u16::from_le_bytes([e, g]),
            u16::from_le_bytes([h, i])
        )?;
        for (n, byte) in rest.iter().enumerate() {
            if n == 2 {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::Guid;

    #[test]
    fn spelled_and_stored() {
        let id = Guid::new(0x2dc27766_f623_4200_9d64_115e9bfd4a08);
        assert_eq!(id.0[..8], [0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42]);
        assert_eq!(id.to_string(), "2dc27766-f623-4200-9d64-115e9bfd4a08");
        assert_eq!(
            Guid::parse("{2DC27766-F623-4200-9D64-115E9BFD4A08}"),
            Some(id)
        );
        assert_eq!(Guid::parse("2DC27766"), None);
    }
}
