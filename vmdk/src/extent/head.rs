//! The beginning of a link's file: its descriptor, and the header that this is embedded in.

use super::{
    Remarks, Spot,
    redo::{Bare, Redo},
};
use crate::{
    descriptor::{Descriptor, ExtentType, remains::Host},
    hosted::Header,
    probe::{Kind, probe},
};
use disk_io::{DiskError, ErrorKind, Opened, Result};

/// What the beginning of a link's file says.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) descriptor: Option<Descriptor>,
    /// The header of the sparse extent that the descriptor is embedded in.
    pub(crate) header: Option<Header>,
    /// What it is instead, where neither a descriptor nor a header of that kind exists.
    pub(crate) bare: Option<Bare>,
    /// The embedded descriptor is damaged: `descriptor` is what is left of it.
    pub(crate) damage: Option<Damage>,
    /// What to try where the descriptor is damaged and cannot be done without.
    pub(crate) hint: Option<String>,
}

/// Why an embedded descriptor is not used.
#[derive(Clone, Debug)]
pub(crate) struct Damage {
    /// In a few words.
    pub(crate) what: String,
    /// Where the descriptor is, in bytes.
    pub(crate) offset: u64,
}

impl Damage {
    /// Says it of the file `name`.
    pub(crate) fn tell(&self, name: &str, remarks: &Remarks) {
        let place = || Spot {
            file: name.to_owned(),
            offset: Some(self.offset),
            touched: None,
        };
        remarks.add("descriptor-damaged", place, || {
            format!(
                "{name}: its embedded descriptor is DAMAGED ({}); what is left of it says that \
                 this is the whole disk and has no parent, so it is read by its header alone",
                self.what
            )
        });
    }
}

impl Head {
    /// Reads the beginning of SOURCE itself: [`Self::read`], and where an embedded descriptor is
    /// damaged, by the header alone if what is left of the text shows that this is the whole disk.
    /// Links below are known by their content ids, so for them the text must be sound.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub(crate) fn read_source(opened: &Opened) -> Result<Self> {
        let strict = Self::read(opened);
        let why = match &strict {
            Ok(head) => head.unusable(),
            Err(e) => (e.kind() == ErrorKind::Corrupt).then(|| e.clone()),
        };
        let Some(why) = why else {
            return strict;
        };
        match Self::by_header(opened, &why) {
            None => strict,
            Some(Ok(head)) => Ok(head),
            Some(Err(hint)) => match strict {
                Ok(head) => Ok(Self {
                    hint: Some(hint),
                    ..head
                }),
                Err(e) => Err(e.hint(hint)),
            },
        }
    }

    /// Why the embedded descriptor will not be enough, if it will not.
    fn unusable(&self) -> Option<DiskError> {
        let (Some(_), Some(d)) = (&self.header, &self.descriptor) else {
            return None;
        };
        if d.extent_count() == 0 {
            return Some(no_extents());
        }
        if d.parent_is_lost() {
            return Some(parent_is_lost());
        }
        let unknown = d
            .extents()
            .find(|e| matches!(e.kind, ExtentType::Other(_)))?;
        Some(
            DiskError::corrupt("reading the type of an extent")
                .expected("SPARSE")
                .found(unknown.kind.as_str()),
        )
    }

    /// By the header; `None` if there is none that has a descriptor, or the device fails.
    fn by_header(opened: &Opened, why: &DiskError) -> Option<Result<Self, String>> {
        let name = opened.path.display().to_string();
        let disk = &*opened.disk;
        if !matches!(probe(disk), Ok(Some(Kind::HostedSparse))) {
            return None;
        }
        let header = Header::read(disk, &name).ok()?;
        if header.capacity == 0 || header.descriptor_offset == 0 {
            return None;
        }
        let offset = header.descriptor_offset.saturating_mul(crate::SECTOR);
        let len = header.descriptor_size.saturating_mul(crate::SECTOR);
        let bytes = Descriptor::bytes_at(disk, offset, len, &name).ok()?;
        let host = Host {
            name: opened.base_name().to_str().unwrap_or_default(),
            capacity: header.capacity,
            grain: header.grain_size,
        };
        let what = match why.difference() {
            (Some(expected), Some(found)) => {
                format!("{}: expected {expected}, found {found}", why.doing())
            }
            _ => why.doing().to_owned(),
        };
        Some(Descriptor::remains(&bytes, host).map(|d| Self {
            descriptor: Some(d),
            header: Some(header),
            bare: None,
            damage: Some(Damage { what, offset }),
            hint: None,
        }))
    }

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
                ..Self::default()
            }),
            Some(Kind::HostedSparse) => {
                let header = Header::read(disk, &name)?;
                let descriptor = match (header.descriptor_offset, header.descriptor_size) {
                    (0, 0) => None,
                    // Without its descriptor a delta would read as zeros where its parent has data.
                    (offset, size) if offset == 0 || size == 0 => {
                        return Err(DiskError::corrupt("finding the embedded descriptor")
                            .file(&name)
                            .offset(28)
                            .expected("a place and a length, or neither")
                            .found(format!("sector {offset}, {size} sectors")));
                    }
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
                    ..Self::default()
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
            bare: Some(bare),
            ..Self::default()
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

/// A descriptor that lists nothing.
pub(crate) fn no_extents() -> DiskError {
    DiskError::corrupt("reading the descriptor")
        .expected("at least one extent")
        .found("none")
}

/// A descriptor in which what would be said of a parent was overwritten.
pub(crate) fn parent_is_lost() -> DiskError {
    DiskError::corrupt("reading parentCID of the descriptor")
        .code("parent-unknown")
        .expected("eight hexadecimal digits")
        .found("none, in a text that is damaged")
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
