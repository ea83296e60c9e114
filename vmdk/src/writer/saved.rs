//! What a writer knows and its files do not say yet: with it, and with the files, an image
//! that was interrupted is gone on with.

use disk_io::DiskError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The state of a [`super::Writer`] between two ranges.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved(pub(super) Vec<Piece>);

/// That of one extent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Piece {
    /// Every byte has its place from the beginning.
    Placed,
    /// Grains with tables that are being filled.
    Grains {
        tables: Tables,
        /// Place or number of each table that was written, where the format has that.
        directory: BTreeMap<u64, u64>,
    },
    /// streamOptimized.
    Stream(Stream),
}

/// See [`super::grains::Grains`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tables {
    /// Where the next grain goes.
    pub(super) next: u64,
    pub(super) open: BTreeMap<u64, Table>,
}

/// A table that is being filled.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Table {
    /// Empty until a grain of it has a place.
    pub(super) entries: Vec<u64>,
    /// Bytes of its range that came.
    pub(super) covered: u64,
    /// What the layout gave for the table itself.
    pub(super) room: u64,
}

/// See [`super::stream::Stream`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Stream {
    /// The next sector of the file.
    pub(super) next: u64,
    /// How far the disk has come, in bytes.
    pub(super) at: u64,
    pub(super) table: Vec<u32>,
    pub(super) directory: Vec<u32>,
}

/// Refuses a state of another kind of image.
pub(super) fn other() -> DiskError {
    DiskError::refused("going on with a VMDK")
        .expected("the state of the same subformat")
        .found("that of another")
}
