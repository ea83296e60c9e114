//! Writers of the portable formats.
//!
//! A [`Writer`] takes ranges in any order, from any thread, each byte at most once. Tables
//! and headers are written by [`Writer::finish`]: before that the file is nothing that a
//! reader would take for an image.

mod blocks;
mod qcow2;
#[cfg(test)]
mod tests;
mod vdi;
mod vhd;
mod vhdx;

use crate::Format;
use blocks::Blocks;
use disk_io::{DiskError, OutFile, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::hash_map::RandomState,
    fs::File,
    hash::{BuildHasher, Hasher},
    path::Path,
};

/// How clusters are compressed (qcow2 only).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// Deflate, with this level: 1 to 9.
    Zlib(u32),
    /// Zstandard, with this level: 1 to 19.
    Zstd(i32),
}

/// What to write.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// Raw, qcow2, VHD, VHDX or VDI.
    pub format: Format,
    /// Every block has its place from the beginning (VHD, VHDX, VDI).
    pub fixed: bool,
    /// Compress whole clusters (qcow2).
    pub compress: Option<Compress>,
    /// Logical sector size in bytes: 512, or 4096 for VHDX.
    pub sector_size: u32,
}

impl WriteOptions {
    /// The plain kind of `format`: sparse, not compressed, sectors of 512 bytes.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            fixed: false,
            compress: None,
            sector_size: 512,
        }
    }
}

/// An image that is being written.
#[derive(Debug)]
pub struct Writer<'f> {
    out: OutFile<'f>,
    len: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Raw,
    Vhd {
        fixed: bool,
        blocks: Blocks,
    },
    Vdi {
        fixed: bool,
        blocks: Blocks,
    },
    Vhdx {
        fixed: bool,
        sector_size: u32,
        blocks: Blocks,
    },
    Qcow2(Box<qcow2::Clusters>),
}

/// What a [`Writer`] knows and its file does not say yet: with it, and with the file, an image
/// that was interrupted is gone on with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved(SavedKind);

#[derive(Clone, Debug, Serialize, Deserialize)]
enum SavedKind {
    /// Every byte has its place from the beginning.
    Placed,
    Blocks(blocks::Table),
    Clusters(qcow2::State),
}

impl<'f> Writer<'f> {
    /// Begins an image of `len` bytes in `file`, which has to be empty; `name` is for
    /// messages. Refused for what the format cannot hold; Unsupported for formats that are
    /// not written here.
    pub fn create(file: &'f File, name: &Path, len: u64, options: &WriteOptions) -> Result<Self> {
        let out = OutFile::new(file, name);
        let refuse = |expected: String| {
            Err(
                DiskError::refused(format!("writing a {}", options.format.title()))
                    .file(name.display())
                    .expected(expected)
                    .found(format!("{len} bytes in sectors of {}", options.sector_size)),
            )
        };
        if options.compress.is_some() && options.format != Format::Qcow2 {
            return refuse("no compression, or qcow2".into());
        }
        if options.sector_size != 512 && options.format != Format::Vhdx {
            return refuse("sectors of 512 bytes, or VHDX".into());
        }
        if !matches!(options.sector_size, 512 | 4096) {
            return refuse("sectors of 512 or 4096 bytes".into());
        }
        let (unit, most) = match options.format {
            Format::Raw => (1, i64::MAX.unsigned_abs()),
            Format::Vhd => (512, vhd::MAX_LEN),
            Format::Vdi => (512, vdi::MAX_LEN),
            Format::Vhdx => (u64::from(options.sector_size), vhdx::MAX_LEN),
            Format::Qcow2 => (512, qcow2::MAX_LEN),
            _ => {
                return Err(DiskError::unsupported(format!(
                    "writing a {}",
                    options.format.title()
                )));
            }
        };
        if !len.is_multiple_of(unit) || len > most {
            return refuse(format!("a multiple of {unit} bytes, at most {most}"));
        }
        let fixed = options.fixed;
        let kind = match options.format {
            Format::Raw => Kind::Raw,
            Format::Vhd => Kind::Vhd {
                fixed,
                blocks: vhd::layout(len),
            },
            Format::Vdi => Kind::Vdi {
                fixed,
                blocks: vdi::layout(len),
            },
            Format::Vhdx => Kind::Vhdx {
                fixed,
                sector_size: options.sector_size,
                blocks: vhdx::layout(len, options.sector_size),
            },
            _ => Kind::Qcow2(Box::new(qcow2::Clusters::new(len, options.compress))),
        };
        let writer = Self { out, len, kind };
        match &writer.kind {
            Kind::Raw | Kind::Vhd { fixed: true, .. } => writer.out.set_len(len)?,
            Kind::Vdi {
                fixed: true,
                blocks,
            }
            | Kind::Vhdx {
                fixed: true,
                blocks,
                ..
            } => {
                blocks.take_all();
                writer.out.set_len(blocks.end())?;
            }
            _ => {}
        }
        Ok(writer)
    }

    /// Goes on with an image that was interrupted after [`Self::save`], in the same file: the
    /// ranges that had come by then must not come again, all others must.
    ///
    /// # Errors
    /// As [`Self::create`]; `Refused` if the state is not one of such an image.
    pub fn resume(
        file: &'f File,
        name: &Path,
        len: u64,
        options: &WriteOptions,
        saved: &Saved,
    ) -> Result<Self> {
        let writer = Self::create(file, name, len, options)?;
        match (&writer.kind, &saved.0) {
            (Kind::Raw | Kind::Vhd { fixed: true, .. }, SavedKind::Placed) => {}
            (
                Kind::Vhd { blocks, .. } | Kind::Vdi { blocks, .. } | Kind::Vhdx { blocks, .. },
                SavedKind::Blocks(table),
            ) => {
                blocks.restore(table);
                writer.out.set_len(blocks.end())?;
            }
            (Kind::Qcow2(clusters), SavedKind::Clusters(state)) => {
                clusters.restore(state);
                writer.out.set_len(state.end())?;
            }
            _ => {
                return Err(DiskError::refused("going on with an image")
                    .file(name.display())
                    .expected("the state of the same format")
                    .found("that of another"));
            }
        }
        Ok(writer)
    }

    /// The state, for [`Self::resume`]. No other call may be going on.
    pub fn save(&self) -> Saved {
        Saved(match &self.kind {
            Kind::Raw | Kind::Vhd { fixed: true, .. } => SavedKind::Placed,
            Kind::Vhd { blocks, .. } | Kind::Vdi { blocks, .. } | Kind::Vhdx { blocks, .. } => {
                SavedKind::Blocks(blocks.save())
            }
            Kind::Qcow2(clusters) => SavedKind::Clusters(clusters.save()),
        })
    }

    /// Length of the disk in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the disk has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether compressing needs whole clusters: then ranges should begin and end at
    /// multiples of this many bytes; parts of clusters are stored as they are.
    pub fn cluster(&self) -> Option<u64> {
        match &self.kind {
            Kind::Qcow2(_) => Some(qcow2::CLUSTER),
            _ => None,
        }
    }

    /// Takes bytes of the disk.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.check(bytes.len() as u64, offset)?;
        match &self.kind {
            Kind::Raw | Kind::Vhd { fixed: true, .. } => self.out.put(bytes, offset),
            Kind::Vhd { blocks, .. } | Kind::Vdi { blocks, .. } | Kind::Vhdx { blocks, .. } => {
                blocks.write_at(&self.out, bytes, offset)
            }
            Kind::Qcow2(clusters) => clusters.write_at(&self.out, bytes, offset),
        }
    }

    /// Takes a range of zeros, which needs no room. Ranges that never come are zeros too.
    pub fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        self.check(len, offset)?;
        match &self.kind {
            Kind::Qcow2(clusters) => clusters.covered(&self.out, offset, len),
            _ => Ok(()),
        }
    }

    /// Writes what makes the file an image.
    pub fn finish(&self) -> Result<()> {
        match &self.kind {
            Kind::Raw => Ok(()),
            Kind::Vhd { fixed, blocks } => vhd::finish(&self.out, self.len, *fixed, blocks),
            Kind::Vdi { fixed, blocks } => vdi::finish(&self.out, self.len, *fixed, blocks),
            Kind::Vhdx {
                fixed,
                sector_size,
                blocks,
            } => vhdx::finish(&self.out, self.len, (*fixed, *sector_size), blocks),
            Kind::Qcow2(clusters) => clusters.finish(&self.out),
        }
    }

    fn check(&self, count: u64, offset: u64) -> Result<()> {
        match offset.checked_add(count) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(DiskError::out_of_range(offset, count, self.len)),
        }
    }
}

/// A new identity for an image (a version 4 UUID). Two images must not have the same;
/// nobody must not guess it, so the standard library's source of randomness is enough.
pub fn new_id() -> [u8; 16] {
    let half = |n: u64| {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(n);
        hasher.finish()
    };
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(
        half(1)
            .to_le_bytes()
            .into_iter()
            .chain(half(2).to_le_bytes()),
    ) {
        *to = from;
    }
    id[6] = (id[6] & 0x0f) | 0x40;
    id[8] = (id[8] & 0x3f) | 0x80;
    id
}
