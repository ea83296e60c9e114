//! VMware's 16-byte identifiers (fact sheet, VMFS 1).

use std::fmt;

/// An identifier of a volume, device, host or file system. The first word is the Unix time
/// at which it was made.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// Whether all bytes are zero, which means that there is none.
    pub fn is_nil(&self) -> bool {
        self.0 == [0; 16]
    }

    /// From exactly 16 bytes; `None` for another length.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }
}

/// As ESX prints it: `68624593-6ce2ad41-1c6b-bc2411b17e28`.
impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i, j, k, mac @ ..] = self.0;
        let first = u32::from_le_bytes([a, b, c, d]);
        let second = u32::from_le_bytes([e, g, h, i]);
        let third = u16::from_le_bytes([j, k]);
        write!(f, "{first:08x}-{second:08x}-{third:04x}-")?;
        mac.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
