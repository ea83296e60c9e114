//! Redo logs of ESX 2: COWD files that no descriptor describes, on disks that are flat files
//! without one (fact sheet, VMDK 7.1).
//!
//! Content ids came with descriptors. What says which disk a redo log belongs to is a name in its
//! header and, between two logs, a generation; the length must agree to the sector. So it is used
//! where all of that agrees, and always said.

use crate::cowd::Header;
use disk_io::{Disk, DiskError, Fields, Opened, Result};
use std::path::Path;

/// Where the header has the parent's name, and how long that may be.
const NAME: std::ops::Range<usize> = 32..1056;

/// A redo log, as its header and its name tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redo {
    /// The parent's name, as written, or by our own name without `.REDO`.
    pub(crate) parent: String,
    /// Which generation of the parent it was made on; 0 if it is not said.
    pub(crate) parent_generation: u32,
    /// Its own.
    pub(crate) generation: u32,
    /// Its length in bytes.
    pub(crate) len: u64,
}

/// What a link is that has no descriptor by its nature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bare {
    Redo(Redo),
    /// The disk below redo logs: bytes as they are.
    Flat(u64),
}

impl Redo {
    /// The redo log in `opened`, a COWD file; `None` if it is an extent that has lost its
    /// descriptor: nothing in it names a parent, nor does its own name.
    pub(crate) fn read(opened: &Opened) -> Result<Option<Self>> {
        let name = opened.path.display().to_string();
        let header = Header::read(&*opened.disk, &name)?;
        let mut bytes = [0; crate::cowd::HEADER_LEN];
        opened.disk.read_exact_at(&mut bytes, 0)?;
        let f = Fields::new(&bytes, 0, "COWD header");
        let Some(parent) = written(&bytes).or_else(|| redo_base(opened.base_name())) else {
            return Ok(None);
        };
        Ok(Some(Self {
            parent,
            parent_generation: f.u32_le(1056)?,
            generation: f.u32_le(1060)?,
            len: u64::from(header.num_sectors).saturating_mul(crate::SECTOR),
        }))
    }
}

/// The disk below redo logs. Its length is all that can be compared.
///
/// # Errors
/// `Corrupt` if the file is not exactly as long as the log's disk.
pub(crate) fn flat(opened: &Opened, len: u64) -> Result<Bare> {
    match opened.disk.len() == len {
        true => Ok(Bare::Flat(len)),
        false => Err(DiskError::corrupt("comparing a redo log with its disk")
            .code("parent-length-differs")
            .file(opened.path.display())
            .expected(format!("{len} bytes, the log's length"))
            .found(format!("{} bytes", opened.disk.len()))),
    }
}

/// The name in the header. A root has the geometry of its disk there, whose bytes are no name.
fn written(bytes: &[u8]) -> Option<String> {
    let field = bytes.get(NAME)?;
    let end = field.iter().position(|b| *b == 0)?;
    let text = std::str::from_utf8(field.get(..end)?).ok()?;
    let is_name = text.len() > 3 && !text.chars().any(char::is_control);
    is_name.then(|| text.to_owned())
}

/// The disk that a redo log's name says it lies on: `web.vmdk.REDO` and `web.vmdk.REDO_a1B2c3` lie
/// on `web.vmdk`; `None` for other names.
pub fn redo_base(name: &Path) -> Option<String> {
    let name = name.to_str()?;
    let at = name.to_ascii_lowercase().rfind(".redo")?;
    let rest = name.get(at.checked_add(".redo".len())?..)?;
    let base = name.get(..at)?;
    let own = rest.is_empty() || rest.starts_with('_') || rest.starts_with('.');
    (own && !base.is_empty()).then(|| base.to_owned())
}

/// Whether a file's name is one of a redo log.
pub(crate) fn is_redo_name(name: &Path) -> bool {
    redo_base(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, base) in [
            ("web.vmdk.REDO", Some("web.vmdk")),
            ("web.vmdk.redo_k3x9Qa", Some("web.vmdk")),
            ("web.vmdk.REDO.REDO", Some("web.vmdk.REDO")),
            ("web.vmdk", None),
            (".REDO", None),
            ("web.redoubt", None),
        ] {
            assert_eq!(redo_base(Path::new(name)).as_deref(), base, "{name}");
        }
    }
}
