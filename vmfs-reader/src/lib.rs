//! Reads VMFS-3, VMFS-5 and VMFS-6 datastores from their LUNs, without ESX.
//!
//! [`Volume::open`] takes the disks of a volume (partitions or bare devices, in any order)
//! and finds LVM and the file system on them; [`Volume::open_file`] gives files out as
//! [`disk_io::Disk`]s whose holes are runs; [`Datastores`] opens the names that virtual
//! disks and machines use for each other's files. Nothing here writes, or sends a device
//! anything but reads.
//!
//! | module | holds |
//! |---|---|
//! | [`lvm`] | devices, which of them belong together, the logical volume as a disk |
//! | [`probe`] | what a disk is, cheaply |
//! | `superblock`, `resource`, `address`, `descriptor`, `lock`, `heartbeat` | one structure each |
//! | `blocks`, `resolve`, `file` | where the bytes of a file lie, and reading them |
//! | `core` | what the files of a volume share |
//! | `dir` | flat and hashed directories |
//! | `locate` | names of files, as virtual machines spell them |
//! | `deleted` | descriptors of deleted files |
//! | `check` | whether a volume agrees with itself |
//! | `build` | makes volumes for tests (feature `builder`) |
#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

mod address;
mod blocks;
#[cfg(feature = "builder")]
pub mod build;
mod check;
mod core;
mod deleted;
mod descriptor;
mod dir;
mod file;
mod heartbeat;
mod locate;
mod lock;
pub mod lvm;
pub mod probe;
mod resolve;
mod resource;
mod scsi;
mod superblock;
mod usage;
mod uuid;
mod volume;

pub use address::FdAddress;
pub use blocks::{Extent, Place};
pub use check::{Checked, Found as CheckFound};
pub use deleted::Deleted;
pub use descriptor::{FileKind, Stat};
pub use dir::{Entry, Visit};
pub use file::File;
pub use heartbeat::{DamagedSlot, Heartbeat};
pub use locate::{Datastores, Found};
pub use lock::{Holder, Lock};
pub use scsi::ScsiIdentity;
pub use superblock::Superblock;
pub use usage::Usage;
pub use uuid::Uuid;
pub use volume::{LockState, OpenOptions, Volume};
