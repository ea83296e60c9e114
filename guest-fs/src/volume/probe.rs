//! A look at a few places of a volume.

use disk_io::{Disk, DiskError};
use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

/// Bytes at the start that most signatures lie in; read once.
const HEAD: usize = 68 << 10;

/// Reads places of a disk and remembers whether one could not be read.
#[derive(Debug)]
pub struct Probe {
    disk: Arc<dyn Disk>,
    head: RefCell<Option<Vec<u8>>>,
    failure: RefCell<Option<DiskError>>,
    tried: Cell<bool>,
}

impl Probe {
    /// Looks at `disk`.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            head: RefCell::new(None),
            failure: RefCell::new(None),
            tried: Cell::new(false),
        }
    }

    /// The disk itself.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The first failure to read, if any.
    pub fn failure(&self) -> Option<DiskError> {
        self.failure.borrow().clone()
    }

    /// `len` bytes at `offset`; `None` past the end or where they cannot be read.
    pub fn bytes(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        if !self.tried.replace(true) {
            let n = self.disk.len().min(HEAD as u64);
            let mut head = vec![0; usize::try_from(n).ok()?];
            // A bad sector somewhere in the head must not hide the rest: then each place
            // is read on its own.
            if self.disk.read_exact_at(&mut head, 0).is_ok() {
                *self.head.borrow_mut() = Some(head);
            }
        }
        let end = offset.checked_add(len as u64)?;
        if end > self.disk.len() {
            return None;
        }
        if let Some(head) = &*self.head.borrow()
            && let Some(found) = head.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
        {
            return Some(found.to_vec());
        }
        let mut buf = vec![0; len];
        match self.disk.read_exact_at(&mut buf, offset) {
            Ok(()) => Some(buf),
            Err(e) => {
                self.failure.borrow_mut().get_or_insert(e);
                None
            }
        }
    }

    /// Whether `magic` is at `offset`.
    pub fn is(&self, offset: u64, magic: &[u8]) -> bool {
        self.bytes(offset, magic.len()).is_some_and(|b| b == magic)
    }

    /// Little-endian.
    pub fn u16_le(&self, offset: u64) -> Option<u16> {
        Some(u16::from_le_bytes(self.bytes(offset, 2)?.try_into().ok()?))
    }

    /// Little-endian.
    pub fn u32_le(&self, offset: u64) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(offset, 4)?.try_into().ok()?))
    }

    /// Little-endian.
    pub fn u64_le(&self, offset: u64) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(offset, 8)?.try_into().ok()?))
    }

    /// Big-endian.
    pub fn u32_be(&self, offset: u64) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes(offset, 4)?.try_into().ok()?))
    }

    /// Big-endian.
    pub fn u64_be(&self, offset: u64) -> Option<u64> {
        Some(u64::from_be_bytes(self.bytes(offset, 8)?.try_into().ok()?))
    }

    /// A UUID stored as 16 bytes in order; `None` if they are all zero.
    pub fn uuid(&self, offset: u64) -> Option<String> {
        let bytes = self.bytes(offset, 16)?;
        bytes.iter().any(|b| *b != 0).then(|| uuid(&bytes))
    }

    /// Text up to a NUL or `len` bytes.
    pub fn text(&self, offset: u64, len: usize) -> Option<crate::Name> {
        let bytes = self.bytes(offset, len)?;
        let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
        let end = text
            .iter()
            .rposition(|b| *b != b' ')
            .map_or(0, |n| n.saturating_add(1));
        Some(crate::Name::from_bytes(text.get(..end).unwrap_or_default()))
    }
}

/// 16 bytes in order as a UUID in lower case.
pub fn uuid(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(36);
    for (n, byte) in bytes.iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push_str(&format!("{byte:02x}"));
    }
    out
}
