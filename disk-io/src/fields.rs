//! Bounded access to the fields of an on-disk structure.
//!
//! A structure is read once into memory and then taken apart by offset, under the names of
//! its specification. Every access is checked, and a structure that is too short becomes a
//! [`crate::ErrorKind::Corrupt`] error with the absolute offset of the field.

use crate::error::{DiskError, Result};
use byteorder::{BigEndian, ByteOrder, LittleEndian};

/// Bytes of a structure, with the place they came from.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    /// Offset in the file of the first byte.
    base: u64,
    /// What the structure is called, for errors: `"sparse extent header"`.
    what: &'static str,
}

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident, $ty:ty, $order:ident, $read:ident) => {
        $(#[$doc])*
        #[inline]
        pub fn $name(&self, at: usize) -> Result<$ty> {
            Ok($order::$read(self.bytes(at, size_of::<$ty>())?))
        }
    };
}

impl<'a> Fields<'a> {
    /// `bytes` is the structure called `what`, which begins at `base` in its file.
    #[inline]
    pub fn new(bytes: &'a [u8], base: u64, what: &'static str) -> Self {
        Self { bytes, base, what }
    }

    /// Length of the structure in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All bytes.
    #[inline]
    pub fn all(&self) -> &'a [u8] {
        self.bytes
    }

    /// The file offset of the byte at `at`.
    #[inline]
    pub fn place(&self, at: usize) -> u64 {
        self.base.saturating_add(at as u64)
    }

    /// `len` bytes at `at`.
    #[inline]
    pub fn bytes(&self, at: usize, len: usize) -> Result<&'a [u8]> {
        match at.checked_add(len).and_then(|end| self.bytes.get(at..end)) {
            Some(bytes) => Ok(bytes),
            None => Err(self.short(at, len)),
        }
    }

    #[cold]
    #[inline(never)]
    fn short(&self, at: usize, len: usize) -> DiskError {
        DiskError::corrupt(format!("reading the {}", self.what))
            .offset(self.place(at))
            .expected(format!("{len} bytes"))
            .found(format!(
                "{} left of {}",
                self.bytes.len().saturating_sub(at),
                self.bytes.len()
            ))
    }

    /// A structure inside this one.
    #[inline]
    pub fn sub(&self, at: usize, len: usize, what: &'static str) -> Result<Fields<'a>> {
        Ok(Fields {
            bytes: self.bytes(at, len)?,
            base: self.place(at),
            what,
        })
    }

    /// An error about the field at `at`.
    pub fn corrupt(&self, at: usize, field: &str) -> DiskError {
        DiskError::corrupt(format!("reading {field} of the {}", self.what)).offset(self.place(at))
    }

    /// One byte.
    #[inline]
    pub fn u8(&self, at: usize) -> Result<u8> {
        Ok(self.bytes(at, 1)?.first().copied().unwrap_or_default())
    }

    getter!(
        /// Little-endian.
        u16_le, u16, LittleEndian, read_u16);
    getter!(
        /// Little-endian.
        u32_le, u32, LittleEndian, read_u32);
    getter!(
        /// Little-endian.
        u64_le, u64, LittleEndian, read_u64);
    getter!(
        /// Little-endian.
        i64_le, i64, LittleEndian, read_i64);
    getter!(
        /// Little-endian.
        i32_le, i32, LittleEndian, read_i32);
    getter!(
        /// Big-endian.
        u16_be, u16, BigEndian, read_u16);
    getter!(
        /// Big-endian.
        u32_be, u32, BigEndian, read_u32);
    getter!(
        /// Big-endian.
        u64_be, u64, BigEndian, read_u64);
}
