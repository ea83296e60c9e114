//! Virtual machines in a directory or datastore, told from their files alone: no host, no
//! API.
//!
//! | module | holds |
//! |---|---|
//! | [`dictionary`] | the lines of `key = "value"` that configurations are made of |
//! | [`config`] | what a `.vmx` says of a machine and its disks |
//! | [`guest_os`] | guest systems by name |
//! | [`snapshots`] | what a `.vmsd` says of its snapshots |
//! | [`vm`] | a machine: its configuration, its restore points, its files |
//! | [`place`] | where machines are looked for |
//! | [`scan`] | all machines of a place, what they share, what none uses |
//!
//! "Fact sheet, VMDK 10" in a comment names the section of the project's collection of
//! format facts that the code follows.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod config;
pub mod dictionary;
pub mod guest_os;
pub mod place;
mod redo;
pub mod scan;
pub mod snapshots;
pub mod vcb;
pub mod vm;

pub use config::{Bus, Config, ConfigDisk, Slot};
pub use dictionary::Dictionary;
pub use place::{HostPlace, Listing, Place};
pub use scan::Inventory;
pub use snapshots::{Snapshot, Snapshots};
pub use vm::{FileKind, Point, PointDisk, Vm, VmFile};
