//! Guest disks from the inside: partition tables, volumes, file systems.
//!
//! | module | holds |
//! |---|---|
//! | [`partition`] | partition tables: MBR, GPT |
//! | [`volume`] | what a volume holds, and opening it |
//! | [`fat`] | FAT12, FAT16, FAT32 |
//! | [`exfat`] | exFAT |
//! | [`ntfs`] | NTFS |
//! | [`vmfs`] | VMFS datastores |
//! | [`lvm2`], [`ldm`] | logical volumes over one or more disks |
//! | [`free`] | free space as ranges |
//! | [`fs`] | the one trait of every file system, and what it speaks in |
//! | [`codecs`] | decompressors, on their own |
//! | [`deleted`] | deleted files as a tree beside the others |
//! | [`entered`] | the directories that a walk has entered: each once |
//! | [`name`] | guest file names: bytes that survive what UTF-8 cannot hold |
//! | [`time`] | guest time stamps, with or without a zone |

pub mod codecs;
pub mod deleted;
pub mod entered;
pub mod exfat;
pub mod ext;
pub mod fat;
pub mod free;
pub mod fs;
pub mod ldm;
pub mod lvm2;
pub mod name;
pub mod ntfs;
pub mod partition;
mod runs_held;
pub mod time;
mod told;
pub mod vmfs;
pub mod volume;

pub use disk_io::{DiskError, ErrorKind, Result};
pub use entered::Entered;
pub use fs::{Change, Found, Security};
pub use fs::{
    DirEntry, Extent, FileSystem, FsKind, Link, Metadata, NodeId, NodeKind, OpenOptions,
    SpecialKind, Stream, Visit, VolumeInfo,
};
pub use name::Name;
pub use time::Timestamp;
