//! Grain directories, read a piece at a time.
//!
//! A directory can be 128 MiB and a chain hundreds of links deep, so none is kept: each
//! link remembers the last few pieces of 4 KiB, which is what walking a disk window by
//! window needs.

use disk_io::{Disk, DiskError, Result};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

/// Bytes of a directory that are read at once.
const CHUNK: u64 = 4096;
/// Pieces a link keeps: one of the directory, one of its redundant copy.
const KEPT: usize = 2;

/// Which piece: the directory's offset in its file, the extent's number, the piece.
type Key = (u64, u32, u64);

/// The pieces that one link remembers.
#[derive(Debug, Default)]
pub(crate) struct Pieces(Mutex<VecDeque<(Key, Arc<[u8]>)>>);

impl Pieces {
    fn get(&self, key: Key) -> Option<Arc<[u8]>> {
        let pieces = self.0.lock().ok()?;
        pieces
            .iter()
            .find(|(k, _)| *k == key)
            .map(|(_, bytes)| bytes.clone())
    }

    fn put(&self, key: Key, bytes: Arc<[u8]>) {
        if let Ok(mut pieces) = self.0.lock()
            && !pieces.iter().any(|(k, _)| *k == key)
        {
            pieces.truncate(KEPT.saturating_sub(1));
            pieces.push_front((key, bytes));
        }
    }
}

/// An array of little-endian numbers in a file.
#[derive(Debug)]
pub(crate) struct Directory {
    file: Arc<dyn Disk>,
    /// Number of the extent, for the pieces' keys.
    extent: u32,
    /// Byte offset of the first entry.
    offset: u64,
    /// Bytes of all entries.
    len: u64,
    /// Bytes of an entry: 4 or 8.
    width: u64,
    pieces: Arc<Pieces>,
}

impl Directory {
    /// `entries` numbers of `width` bytes at `offset`; `None` if they do not lie inside the
    /// file.
    pub(crate) fn new(
        file: Arc<dyn Disk>,
        extent: u32,
        offset: u64,
        entries: u64,
        width: u64,
        pieces: Arc<Pieces>,
    ) -> Option<Self> {
        let len = entries.checked_mul(width)?;
        (offset.checked_add(len)? <= file.len()).then_some(Self {
            file,
            extent,
            offset,
            len,
            width,
            pieces,
        })
    }

    /// Byte offset of an entry, for messages.
    pub(crate) fn place(&self, index: u64) -> u64 {
        self.offset.saturating_add(index.saturating_mul(self.width))
    }

    /// Bytes that the directory takes, as a range of the file.
    pub(crate) fn range(&self) -> std::ops::Range<u64> {
        self.offset..self.offset.saturating_add(self.len)
    }

    /// Entry `index`.
    pub(crate) fn get(&self, index: u64) -> Result<u64> {
        let at = index.saturating_mul(self.width);
        let number = at / CHUNK;
        let key = (self.offset, self.extent, number);
        let piece = match self.pieces.get(key) {
            Some(piece) => piece,
            None => {
                let start = number.saturating_mul(CHUNK);
                let n = CHUNK.min(self.len.saturating_sub(start));
                let mut bytes = vec![0; usize::try_from(n).unwrap_or_default()];
                self.file
                    .read_exact_at(&mut bytes, self.offset.saturating_add(start))?;
                let piece: Arc<[u8]> = bytes.into();
                self.pieces.put(key, piece.clone());
                piece
            }
        };
        let inside = usize::try_from(at % CHUNK).unwrap_or_default();
        let value = piece.get(inside..).and_then(|rest| match self.width {
            4 => rest
                .first_chunk()
                .map(|b| u64::from(u32::from_le_bytes(*b))),
            _ => rest.first_chunk().map(|b| u64::from_le_bytes(*b)),
        });
        value.ok_or_else(|| DiskError::out_of_range(at, self.width, self.len))
    }

    /// Whether every entry is 0; `None` if that was not looked at because the directory is
    /// larger than `limit` bytes or cannot be read.
    pub(crate) fn is_zero(&self, limit: u64) -> Option<bool> {
        if self.len > limit {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(self.len).ok()?];
        self.file.read_exact_at(&mut bytes, self.offset).ok()?;
        Some(disk_io::zero::is_zero(&bytes))
    }
}
