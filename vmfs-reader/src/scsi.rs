//! The identity of a SCSI device as VMware stores it (fact sheet, VMFS 1 and 11): in the LVM
//! header, where a difference from the real device means *snapshot*, and in raw device maps,
//! where it names the device that the map leads to.

use disk_io::{Fields, Result};
use std::fmt;

/// Length of the structure in bytes.
pub(crate) const LEN: usize = 78;

/// Who a device says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScsiIdentity {
    /// How the identifier was made: 0 a path, 1 serial number and model, 2 NAA (unconfirmed).
    pub kind: u8,
    /// Logical unit number.
    pub lun: u16,
    /// SCSI peripheral device type; 0 is a disk.
    pub device_type: u8,
    /// SCSI version that the device claims.
    pub scsi_level: u8,
    /// Vendor, without padding.
    pub vendor: String,
    /// Model, without padding.
    pub model: String,
    /// Revision, without padding.
    pub revision: String,
    /// The identifier, as many bytes as its length says.
    pub id: Vec<u8>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .trim_matches(['\0', ' '])
        .to_owned()
}

impl ScsiIdentity {
    /// Takes the structure apart; any bytes are an identity.
    pub(crate) fn read(f: &Fields<'_>, at: usize) -> Result<Self> {
        let f = f.sub(at, LEN, "SCSI identity")?;
        let len = usize::from(f.u8(1)?).min(44);
        Ok(Self {
            kind: f.u8(0)?,
            lun: f.u16_le(2)?,
            device_type: f.u8(4)?,
            scsi_level: f.u8(5)?,
            vendor: text(f.bytes(6, 8)?),
            model: text(f.bytes(14, 16)?),
            revision: text(f.bytes(30, 4)?),
            id: f.bytes(34, len)?.to_vec(),
        })
    }

    /// Whether the structure is empty: no device was recorded.
    pub fn is_empty(&self) -> bool {
        self.id.is_empty() && self.vendor.is_empty() && self.model.is_empty()
    }
}

/// For people: `QM00015 QEMU H (type 1, LUN 0)`; bytes that are not text in hexadecimal.
impl fmt::Display for ScsiIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id.as_slice();
        match std::str::from_utf8(id) {
            Ok(t) if !t.chars().any(char::is_control) => {
                let words: Vec<&str> = t.split_whitespace().collect();
                f.write_str(&words.join(" "))?;
            }
            _ => id.iter().try_for_each(|b| write!(f, "{b:02x}"))?,
        }
        for part in [&self.vendor, &self.model, &self.revision] {
            if !part.is_empty() {
                write!(f, " {}", disk_io::error::escape(part))?;
            }
        }
        write!(f, " (type {}, LUN {})", self.kind, self.lun)
    }
}
