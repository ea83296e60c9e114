//! What changes files and directories.

use super::tree::{Ino, Kind};
use std::{ffi::OsString, sync::Arc, time::SystemTime};

/// One operation that changes something, or makes changes last.
#[derive(Clone, Debug)]
pub enum Op {
    /// A new file, directory or link under a name.
    Make {
        /// Where.
        dir: Ino,
        /// Its name.
        name: OsString,
        /// Its number.
        ino: Ino,
        /// What it is at first.
        kind: Kind,
        /// Permission bits.
        mode: u32,
        /// Owner and group.
        owner: (u32, u32),
    },
    /// One more name.
    Link {
        /// Where.
        dir: Ino,
        /// The name.
        name: OsString,
        /// Of what.
        ino: Ino,
    },
    /// A name goes; an empty directory's too.
    Remove {
        /// Where.
        dir: Ino,
        /// The name.
        name: OsString,
    },
    /// A name becomes another.
    Rename {
        /// Directory and name.
        from: (Ino, OsString),
        /// Directory and name.
        to: (Ino, OsString),
    },
    /// Two names change places, in one step.
    Exchange {
        /// Directory and name.
        one: (Ino, OsString),
        /// Directory and name.
        other: (Ino, OsString),
    },
    /// Bytes into a file.
    Write {
        /// The file.
        ino: Ino,
        /// Where.
        at: u64,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// Another length.
    Truncate {
        /// The file.
        ino: Ino,
        /// The length.
        len: u64,
    },
    /// Mode, owner, time; what is not said stays.
    Attributes {
        /// Of what.
        ino: Ino,
        /// Permission bits.
        mode: Option<u32>,
        /// Owner.
        uid: Option<u32>,
        /// Group.
        gid: Option<u32>,
        /// Time of change.
        modified: Option<SystemTime>,
    },
    /// What was written into a file lasts; with its times, if not the data only.
    Sync {
        /// The file.
        ino: Ino,
        /// `fdatasync`.
        data_only: bool,
    },
    /// The names in a directory last.
    SyncDir {
        /// The directory.
        dir: Ino,
    },
}

impl Op {
    /// The directories whose names it changes.
    pub fn dirs(&self) -> Vec<Ino> {
        match self {
            Self::Make { dir, .. } | Self::Link { dir, .. } | Self::Remove { dir, .. } => {
                vec![*dir]
            }
            Self::Rename { from, to }
            | Self::Exchange {
                one: from,
                other: to,
            } => match from.0 == to.0 {
                true => vec![to.0],
                false => vec![from.0, to.0],
            },
            _ => Vec::new(),
        }
    }

    /// The file whose bytes or length it changes.
    pub fn data_of(&self) -> Option<Ino> {
        match self {
            Self::Write { ino, .. } | Self::Truncate { ino, .. } => Some(*ino),
            _ => None,
        }
    }

    /// Whether it needs room.
    pub fn needs_room(&self) -> bool {
        matches!(
            self,
            Self::Make { .. } | Self::Link { .. } | Self::Write { .. }
        )
    }
}

/// An operation of a log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What was done.
    pub op: Op,
    /// When.
    pub at: SystemTime,
    /// The same for people.
    pub said: String,
}
