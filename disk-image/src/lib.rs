//! Disk images by content, and the portable formats.
//!
//! [`open`] takes a file that passed the gate and gives its virtual disk; [`probe`] only
//! says what it is. VMDK is the `vmdk` crate's; everything else is read here, each format
//! as a [`disk_io::BlockMap`] under the one loop of [`disk_io::Layered`].

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod chain;
mod check;
mod format;
mod guid;
mod map;
mod open;
pub mod ova;
mod parent;
mod probe;
mod qcow2;
mod raw;
#[cfg(test)]
mod testing;
mod vdi;
mod vhd;
mod vhdx;
pub mod write;

pub use chain::Link;
pub use check::{CheckedDisk, CheckedLayer, check};
pub use format::Format;
pub use open::{Image, OpenOptions, open};
pub use probe::probe;
pub use qcow2::Snapshot;
