//! NTFS, read-only: our own reader.
//!
//! Everything is positional and `&self`; a volume is shared by `Arc` and every open file is
//! a [`disk_io::Disk`]. Caches are bounded (some 24 MiB a volume at most).
//!
//! | module | holds |
//! |---|---|
//! | `boot` | the boot sector: sizes and where the $MFT begins |
//! | `record` | file records: fix-ups, header, attributes |
//! | `attribute_list` | which records hold a file's attributes |
//! | `runs` | data runs: which clusters hold a stream |
//! | `file` | a file as its joined attributes |
//! | `mft` | reading records, and how the $MFT itself is found |
//! | `stream` | contents as a disk: resident, plain, and how others are chosen |
//! | `index` | directories: their blocks, and lookup in them |
//! | `listing` | the names in a directory |
//! | `facts` | what a record tells but for the contents |
//! | `by_parent` | what damaged directories have lost, by the records |
//! | `misnamed` | names that a directory and a record do not agree about |
//! | `lznt1` | files compressed by NTFS |
//! | `wof` | files compressed by CompactOS |
//! | `check` | structures held against each other |
//! | `claims` | which clusters each record has, to be held against $Bitmap |
//! | `scan` | every file from the $MFT at once, and deleted files |
//! | `security` | security descriptors, raw and as SDDL |
//! | `ea` | extended attributes and object ids |
//! | `upcase` | folding of case |
//! | `reparse` | links, and tags that mean that contents are elsewhere |
//! | `usn` | the change journal |
//! | `volume` | the shared state of a volume and what `info` tells |
//! | `node` | the [`crate::FileSystem`] methods |
#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

mod attribute_list;
mod boot;
mod by_parent;
mod check;
mod claims;
mod ea;
mod facts;
mod file;
mod index;
mod listing;
pub(crate) mod lznt1;
mod mft;
mod misnamed;
mod node;
mod record;
mod reparse;
mod runs;
mod scan;
mod security;
mod stream;
mod upcase;
mod usn;
mod volume;
pub(crate) mod wof;

pub use volume::Ntfs;

/// UTF-16LE bytes as code units; an odd byte at the end is dropped.
fn units(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|c| u16::from_le_bytes(*c))
}
