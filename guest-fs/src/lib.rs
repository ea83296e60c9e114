//! Guest disks from the inside: partition tables, volumes, file systems.
//!
//! | module | holds |
//! |---|---|
//! | [`fs`] | the one trait of every file system, and what it speaks in |
//! | [`name`] | guest file names: bytes that survive what UTF-8 cannot hold |
//! | [`ntfs`] | NTFS |
//! | [`time`] | guest time stamps, with or without a zone |

pub mod ext;
pub mod fs;
pub mod name;
pub mod ntfs;
pub mod time;

pub use disk_io::{DiskError, ErrorKind, Result};
pub use fs::{
    DirEntry, Extent, FileSystem, FsKind, Link, Metadata, NodeId, NodeKind, OpenOptions, Stream,
    Visit, VolumeInfo,
};
pub use name::Name;
pub use time::Timestamp;
