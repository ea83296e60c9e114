//! What the user is told.

use crate::progress::Progress;
use disk_io::DiskError;
use guest_fs::{Metadata, Name, Security};
use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// Why a socket is left where files are restored.
pub const SOCKET: &str = "a socket, which only its program can make";

/// Something that happened to one path of the tree (bytes as in the guest).
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A file, link or directory is there now, or would be. `bytes` is a file's length.
    Restored {
        /// Which.
        path: &'a [u8],
        /// Length of a file in bytes; 0 for everything else.
        bytes: u64,
    },
    /// A file that exists stays as it is.
    Skipped {
        /// Which.
        path: &'a [u8],
        /// Why.
        reason: &'a str,
    },
    /// Is not restored, since there is nothing to it.
    Left {
        /// Which.
        path: &'a [u8],
        /// Why.
        why: &'a str,
    },
    /// Could not be restored, or not wholly.
    Failed {
        /// Which.
        path: &'a [u8],
        /// Why.
        error: &'a DiskError,
    },
    /// Restored, but nothing tells that it is what it should be: damage was worked around.
    Doubtful {
        /// Which.
        path: &'a [u8],
        /// Why.
        why: &'a str,
    },
    /// Restored under another name, because the host does not take its own.
    Renamed {
        /// Which.
        path: &'a [u8],
        /// The name it has now.
        name: &'a [u8],
    },
}

/// Something that is restored and has its name, with what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its path in the tree, of the object or (`PATH:NAME`) of one of its streams.
    pub path: &'a [u8],
    /// Its place, relative to the destination.
    pub place: &'a Path,
    /// What is known of the guest's object.
    pub metadata: &'a Metadata,
    /// Of the contents.
    pub sha256: Option<&'a str>,
    /// Where a link leads.
    pub target: Option<&'a Name>,
    /// Of a further hard link: the place of the first.
    pub first: Option<&'a Path>,
    /// Access control, where it is wanted.
    pub security: Option<&'a Security>,
}

/// Told of every event, from any thread.
pub trait Observer: Progress {
    /// Something happened.
    fn event(&self, event: Event<'_>) {
        let _ = event;
    }

    /// Something is restored, where [`super::Options::records`] asks for it.
    fn kept(&self, record: &Record<'_>) {
        let _ = record;
    }

    /// A file of so many bytes was found and will be copied: for a progress bar.
    fn found(&self, bytes: u64) {
        let _ = bytes;
    }
}

impl Observer for crate::progress::NoProgress {}

/// What a restore did, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files restored, further hard links included.
    pub files: u64,
    /// Directories made.
    pub directories: u64,
    /// Symbolic links made.
    pub symlinks: u64,
    /// Lengths of the files restored, in bytes.
    pub bytes: u64,
    /// Files that exist and stayed.
    pub skipped: u64,
    /// Things that could not be restored, or not wholly.
    pub failed: u64,
    /// Things restored that may not be what they should be, each told with its reason.
    pub doubtful: u64,
    /// Things restored under another name.
    pub renamed: u64,
    /// Named streams left behind.
    pub streams_left: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) files: AtomicU64,
    pub(crate) directories: AtomicU64,
    pub(crate) symlinks: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) skipped: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) doubtful: AtomicU64,
    pub(crate) renamed: AtomicU64,
    pub(crate) streams_left: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn summary(&self) -> Summary {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Summary {
            files: get(&self.files),
            directories: get(&self.directories),
            symlinks: get(&self.symlinks),
            bytes: get(&self.bytes),
            skipped: get(&self.skipped),
            failed: get(&self.failed),
            doubtful: get(&self.doubtful),
            renamed: get(&self.renamed),
            streams_left: get(&self.streams_left),
        }
    }
}
