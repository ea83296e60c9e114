//! VMDK readers: descriptors, every extent kind, delta chains.
//!
//! [`Image::open`] takes a file that passed the gate ([`disk_io::Opened`]), finds its extents
//! and its parents, checks that they belong together, and gives one [`disk_io::Disk`].
//! Bytes are right or the read fails with the reason; nothing that is missing, damaged or
//! unsupported reads as zeros.
//!
//! | module | holds |
//! |---|---|
//! | [`probe()`] | which kind of VMDK file this is, by its first bytes |
//! | [`descriptor`] | the text that describes a link: parsed, every line kept |
//! | [`hosted`] | KDMV sparse extents, with and without compressed grains |
//! | [`cowd`], [`sesparse`] | the sparse extents of ESX |
//! | [`image`] | opening: one link after the other down to the base |
//! | [`text`] | bytes to text: the character set is named inside the text |
//! | [`children`] | which disks in a directory are newer than this one |
//! | [`write`](mod@write) | encoders of small files of every subformat, for tests |
//! | [`writer`] | writers of every subformat for disks of any size |
//!
//! "Fact sheet, VMDK 5.5" in a comment names the section of the project's collection of
//! format facts that the code follows.
#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

mod chain;
pub mod children;
pub mod cowd;
pub mod descriptor;
mod directory;
mod extent;
pub mod hosted;
pub mod image;
mod link;
mod names;
mod probe;
pub mod sesparse;
mod tables;
pub mod text;
pub mod write;
pub mod writer;

pub use chain::Checked;
pub use children::{Child, newer_children};
pub use descriptor::Descriptor;
pub use extent::redo::redo_base;
pub use hosted::Salvaged;
pub use image::{Image, OpenOptions};
pub use link::{Counts, ExtentInfo, Link, SparseInfo};
pub use names::is_absolute;
pub use probe::{Kind, probe};

/// Opens what can be opened of the chain of `source` and visits what is wrong between its
/// links; of the links themselves, [`Link::check`] and their maps tell.
pub fn check_chain(
    source: disk_io::Opened,
    options: &OpenOptions,
    visit: disk_io::finding::Visit<'_>,
) -> Checked {
    chain::check(source, options, visit)
}

/// Bytes in a sector: every count and place in a VMDK is in these, whatever the guest's
/// sector size.
pub const SECTOR: u64 = 512;

/// Where what is noticed while a disk is read is logged: an unclean shutdown, the copy of a table
/// that is used.
pub const REMARKS: &str = "vmdk::remarks";

/// Quotient and remainder; a divisor of 0 counts as 1.
pub(crate) fn split(number: u64, by: u64) -> (u64, u64) {
    let by = by.max(1);
    (
        number.checked_div(by).unwrap_or_default(),
        number.checked_rem(by).unwrap_or_default(),
    )
}

/// Sectors to bytes, if they fit into the 2^63 - 1 that a disk or file can have.
pub(crate) fn bytes(sectors: u64) -> Option<u64> {
    sectors
        .checked_mul(SECTOR)
        .filter(|b| i64::try_from(*b).is_ok())
}
