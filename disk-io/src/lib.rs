//! The one read contract of vmdkit, and everything that only knows about it.
//!
//! Bytes flow one way: host files become [`Disk`]s, image formats turn disks into other
//! disks, partition tables cut [`Slice`]s out of them, file systems give files that are
//! disks again. Every arrow between two layers is `Arc<dyn Disk>`, so layers stack
//! without knowing each other.
//!
//! | module | holds |
//! |---|---|
//! | [`disk`] | the contract: [`Disk`], [`Run`], [`RunKind`] |
//! | [`error`] | the one error type: kind, what was being done, file, offset, expected, found, hint |
//! | [`locate`] | the gate: which files an image may name, and how they are opened |
//! | [`host_dir`], [`host_file`] | the gate over host directories, and the files behind it |
//! | [`block_map`] | what an image format implements: where does the byte at this offset live |
//! | [`layered`] | the one loop that reads through block maps: windows, parents, decoded units |
//! | [`fields`] | bounded little-endian and big-endian access to on-disk structures |
//! | [`slice`], [`mem`], [`positioned`], [`zero`] | small adaptors |
//! | [`pieces`] | files that are kept in pieces |
//! | [`output`] | files that are written |
//! | [`finding`] | what a check found |
//! | [`faults`], [`conformance`] | test doubles, and the contract as a test suite |

pub mod block_map;
pub mod conformance;
pub mod disk;
pub mod error;
pub mod faults;
pub mod fields;
pub mod finding;
pub mod guarded;
pub mod host_dir;
pub mod host_file;
pub mod layered;
pub mod locate;
pub mod mem;
pub mod output;
pub mod pieces;
pub mod positioned;
pub mod slice;
pub mod zero;

pub use block_map::{BlockMap, FileIndex, Mapping, Place, UnitId};
pub use disk::{Disk, HostRange, Run, RunKind};
pub use error::{DiskError, ErrorKind, Result};
pub use fields::Fields;
pub use finding::{Finding, Severity};
pub use host_dir::HostDir;
pub use layered::{Layered, Memory, Origin};
pub use locate::{FileId, Locate, NoFiles, Opened, Purpose};
pub use mem::{MemDisk, SparseMemDisk};
pub use output::OutFile;
pub use slice::Slice;
