//! What a file is, by its first bytes. The name says nothing: `*.vmdk` is anything.

use crate::descriptor;
use disk_io::{Disk, Result};

/// Kinds of file that belong to the VMDK family (fact sheet, VMDK 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A text descriptor in a file of its own.
    Descriptor,
    /// A hosted sparse or streamOptimized extent (`KDMV`).
    HostedSparse,
    /// An ESX sparse extent (`COWD`).
    Cowd,
    /// A space-efficient sparse extent.
    SeSparse,
    /// A change-tracking file (`-ctk.vmdk`): no disk data in it.
    ChangeTracking,
    /// A sparse extent whose writer was interrupted: the magic's case is flipped until
    /// everything is written.
    Unfinished,
}

impl Kind {
    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Descriptor => "a VMDK descriptor",
            Self::HostedSparse => "a hosted sparse VMDK extent",
            Self::Cowd => "an ESX sparse (COWD) extent",
            Self::SeSparse => "an seSparse extent",
            Self::ChangeTracking => "a VMware change-tracking file",
            Self::Unfinished => "a VMDK whose writing was never finished",
        }
    }
}

/// How much is read to recognise a descriptor.
const PROBE: u64 = 4096;

/// Recognises `disk` by content; `None` means flat data, or not a VMDK at all.
pub fn probe(disk: &dyn Disk) -> Result<Option<Kind>> {
    let n = disk.len().min(PROBE);
    let mut start = vec![0; usize::try_from(n).unwrap_or_default()];
    disk.read_exact_at(&mut start, 0)?;
    Ok(match start.get(..4) {
        Some(b"KDMV") => Some(Kind::HostedSparse),
        Some(b"COWD") => Some(Kind::Cowd),
        Some(b"kdmv") => Some(Kind::Unfinished),
        Some([0xa2, 0x72, 0x19, 0xf6]) => Some(Kind::ChangeTracking),
        Some([0xbe, 0xba, 0xfe, 0xca]) if start.get(4..8) == Some(&[0; 4]) => Some(Kind::SeSparse),
        _ if descriptor::looks_like_one(&start) => Some(Kind::Descriptor),
        _ => None,
    })
}
