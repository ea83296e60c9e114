//! Files and trees out of a guest file system, onto the host.
//!
//! | module | holds |
//! |---|---|
//! | [`source`](mod@source) | what is copied from: any tree of files that answers by node |
//! | [`destination`] | where it goes, by the rules of `cp` |
//! | [`filter`] | `--include` and `--exclude` |
//! | [`policy`] | what happens to files that exist |
//! | [`report`] | what the user is told, event by event, and the sums |
//! | [`host`] | directories of the host, entered without following any link |
//! | [`names`] | names that the host's file system does not take |
//! | [`walk`] | the tree in order: directories made, files handed to workers |
//! | [`file`](mod@file) | one file: contents, holes, streams, times |
//! | `access` | access control and attributes of Windows |
//! | [`batch`] | complete files waiting for one sync and their names |
//! | [`links`] | hard links, and what directories get last |
//!
//! Everything is written beneath one directory whose descriptor is held: below it no
//! symbolic link is ever followed, so nothing in a guest, and nothing already lying in the
//! destination, can lead a write elsewhere.

mod access;
pub mod batch;
pub mod destination;
pub mod file;
pub mod filter;
pub mod host;
pub mod links;
pub mod names;
mod node;
pub mod policy;
pub mod report;
pub mod source;
pub mod walk;

pub use destination::{Destination, Item};
pub use filter::Filter;
pub use policy::Overwrite;
pub use report::{Event, Observer, Record, SOCKET, Summary};
pub use source::{Entry, Source};
pub use walk::restore;

use crate::{pipeline::Sparse, place::FileId};

/// What becomes of named streams (NTFS alternate data streams).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// Left behind; how many is said at the end.
    #[default]
    None,
    /// Extended attributes `user.NAME`, at most 64 KiB each.
    Xattr,
    /// Files `FILE:NAME` beside the file.
    Files,
}

/// What becomes of access control (NTFS security descriptors).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acl {
    /// Left behind.
    #[default]
    None,
    /// Told with each [`Record`].
    Told,
    /// Set as the extended attribute `system.ntfs_acl`, which ntfs-3g takes.
    Xattr,
}

/// How to restore.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Enter directories.
    pub recursive: bool,
    /// What happens to files that exist.
    pub overwrite: Overwrite,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// What becomes of zeros.
    pub sparse: Sparse,
    /// What becomes of named streams.
    pub streams: Streams,
    /// Keep owners (as root), set-id bits and the read-only attribute too.
    pub preserve: bool,
    /// What becomes of access control.
    pub acl: Acl,
    /// Tell [`Observer::kept`] of everything that is restored, files with their SHA-256.
    pub records: bool,
    /// What to take and what to leave.
    pub filter: Filter,
    /// Threads; 0 means one for every core.
    pub workers: usize,
    /// Files of the host that are never replaced, whatever else is asked for: those that
    /// are being read ([`crate::place::file_ids`]).
    pub protected: Vec<FileId>,
}

#[cfg(test)]
mod tests;
