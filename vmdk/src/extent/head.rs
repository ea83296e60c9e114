//! The beginning of a link's file: its descriptor, and the header that this is embedded in.

use super::redo::{Bare, Redo};
use crate::{
    descriptor::Descriptor,
    hosted::Header,
    probe::{Kind, probe},
};
use disk_io::{DiskError, Opened, Result};

/// What the beginning of a link's file says.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) descriptor: Option<Descriptor>,
    /// The header of the sparse extent that the descriptor is embedded in.
    pub(crate) header: Option<Header>,
    /// What it is instead, where neither a descriptor nor a header of that kind exists.
    pub(crate) bare: Option<Bare>,
}

impl Head {
    /// Reads the descriptor and nothing else.
    ///
    /// # Errors
    /// Whatever cannot be the beginning of a link is named.
    pub(crate) fn read(opened: &Opened) -> Result<Self> {
        let name = opened.path.display().to_string();
        let disk = &*opened.disk;
        let refuse = |e: DiskError, kind: Kind| e.file(&name).found(kind.describe());
        match probe(disk)? {
            Some(Kind::Descriptor) => Ok(Self {
                descriptor: Some(Descriptor::read(disk, &name)?),
                header: None,
                bare: None,
            }),
            Some(Kind::HostedSparse) => {
                let header = Header::read(disk, &name)?;
                let descriptor = match (header.descriptor_offset, header.descriptor_size) {
                    (0, _) | (_, 0) => None,
                    (offset, size) => Some(Descriptor::read_at(
                        disk,
                        offset.saturating_mul(crate::SECTOR),
                        size.saturating_mul(crate::SECTOR),
                        &name,
                    )?),
                };
                Ok(Self {
                    descriptor,
                    header: Some(header),
                    bare: None,
                })
            }
            Some(Kind::Cowd) if let Some(redo) = Redo::read(opened)? => {
                Ok(Self::of(Bare::Redo(redo)))
            }
            Some(kind @ (Kind::Cowd | Kind::SeSparse)) => Err(refuse(
                DiskError::unsupported("opening a delta extent without its descriptor"),
                kind,
            )
            .hint("what it does not hold is in its parent; open the descriptor that names it")),
            Some(kind @ Kind::ChangeTracking) => {
                Err(refuse(DiskError::unsupported("opening as a disk"), kind)
                    .hint("open the disk that it belongs to"))
            }
            Some(kind @ Kind::Unfinished) => {
                Err(refuse(DiskError::corrupt("opening as a disk"), kind))
            }
            None => Err(DiskError::unsupported("opening as a VMDK")
                .file(&name)
                .expected("a descriptor or a sparse extent")
                .found("neither")),
        }
    }

    /// A link that has no descriptor by its nature.
    pub(crate) fn of(bare: Bare) -> Self {
        Self {
            descriptor: None,
            header: None,
            bare: Some(bare),
        }
    }

    /// Length of the link in bytes as its descriptor or header gives it, extents unopened.
    pub(crate) fn capacity(&self) -> Option<u64> {
        match &self.bare {
            Some(Bare::Redo(redo)) => return Some(redo.len),
            Some(Bare::Flat(len)) => return Some(*len),
            None => {}
        }
        match (&self.header, &self.descriptor) {
            (Some(h), Some(d)) if h.capacity > 0 && d.extent_count() > 1 => sum(d),
            (Some(h), _) if h.capacity > 0 => crate::bytes(h.capacity),
            (_, Some(d)) => sum(d),
            _ => None,
        }
    }
}

fn sum(descriptor: &Descriptor) -> Option<u64> {
    descriptor
        .extents()
        .try_fold(0u64, |sum, e| sum.checked_add(e.sectors))
        .and_then(crate::bytes)
}

/// Whether every byte of the link is in its own extents, so that no parent is ever asked.
pub(crate) fn is_complete(descriptor: &Descriptor) -> bool {
    descriptor.extent_count() > 0 && descriptor.extents().all(|e| e.kind.is_complete())
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk_io::{FileId, MemDisk, NoFiles};
    use std::sync::Arc;

    #[test]
    fn only_links_open() {
        let open = |bytes: &[u8]| {
            Head::read(&Opened {
                disk: Arc::new(MemDisk::new(bytes)),
                path: "x.vmdk".into(),
                id: FileId {
                    container: 0,
                    file: 0,
                },
                dir: Arc::new(NoFiles),
            })
            .map(|_| ())
            .unwrap_err()
            .to_string()
        };
        for (bytes, says) in [
            (&b"COWD"[..], "COWD"),
            (&[0xbe, 0xba, 0xfe, 0xca, 0, 0, 0, 0], "seSparse"),
            (&[0xa2, 0x72, 0x19, 0xf6], "change-tracking"),
            (b"kdmv", "never finished"),
            (b"hello", "neither"),
            (b"", "neither"),
            (b"KDMV", "512 bytes"),
        ] {
            let e = open(bytes);
            assert!(e.contains(says), "{e}");
        }
    }
}
