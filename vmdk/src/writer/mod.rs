//! Writers of every subformat, for disks of any size.
//!
//! A [`Plan`] says which files an image consists of; whoever makes the files (and gives
//! them their final names when all is well) hands them to [`Writer::create`]. Ranges come
//! in any order from any thread, each byte at most once; streamOptimized takes whole grains
//! in order, which are compressed beforehand by [`Writer::encode`], on any thread. Memory
//! is bounded by what is stored of the tables that are being filled.
//!
//! Before [`Writer::finish`] no file has a header, so that nothing unfinished is taken for
//! an image.

mod cowd;
mod flat;
mod grains;
mod hosted;
mod plan;
mod saved;
mod sesparse;
mod sink;
mod stream;
#[cfg(test)]
mod tests;

pub use plan::{Identity, Options, Plan, PlannedFile, StreamLayout, Subformat};
pub use saved::Saved;
pub use sink::Sink;

use crate::SECTOR;
use disk_io::{DiskError, HostRange, Result};
use std::fmt::Debug;

/// An image that is being written.
#[derive(Debug)]
pub struct Writer<'f> {
    plan: Plan,
    pieces: Vec<Piece<'f>>,
}

/// One extent: what part of the disk it holds.
#[derive(Debug)]
struct Piece<'f> {
    /// First byte of the disk.
    start: u64,
    /// Bytes of the disk.
    len: u64,
    kind: Box<dyn Extent + 'f>,
}

/// What each kind of extent does; offsets are in the extent.
trait Extent: Sync + Send + Debug {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()>;
    fn zero_at(&self, offset: u64, len: u64) -> Result<()>;
    fn finish(&self) -> Result<()>;

    /// See [`Writer::share`].
    fn share(&self, _from: &HostRange, _offset: u64) -> Result<bool> {
        Ok(false)
    }

    /// What goes into a new file before any range.
    fn begin(&self) -> Result<()> {
        Ok(())
    }

    /// The state between two ranges; everything that came is in the file then.
    fn save(&self) -> Result<saved::Piece>;

    /// Goes on from that state; what came later is cut off, or is written again.
    fn restore(&self, saved: &saved::Piece) -> Result<()>;

    fn encode(&self, _bytes: &[u8], _offset: u64) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

impl<'f> Writer<'f> {
    /// Begins an image in new, empty files: one for each of [`Plan::files`], in that order.
    pub fn create(plan: Plan, files: Vec<Sink<'f>>) -> Result<Self> {
        let writer = Self::over(plan, files)?;
        writer.pieces.iter().try_for_each(|p| p.kind.begin())?;
        Ok(writer)
    }

    /// Goes on with an image that was interrupted after [`Self::save`], in the same files: the
    /// ranges that had come by then must not come again, all others must.
    ///
    /// # Errors
    /// `Refused` if the state is not one of such an image.
    pub fn resume(plan: Plan, files: Vec<Sink<'f>>, saved: &Saved) -> Result<Self> {
        let writer = Self::over(plan, files)?;
        if writer.pieces.len() != saved.0.len() {
            return Err(saved::other());
        }
        for (piece, saved) in writer.pieces.iter().zip(&saved.0) {
            piece.kind.restore(saved)?;
        }
        Ok(writer)
    }

    /// The state, for [`Self::resume`]. No other call may be going on.
    pub fn save(&self) -> Result<Saved> {
        let pieces = self.pieces.iter().map(|p| p.kind.save());
        Ok(Saved(pieces.collect::<Result<_>>()?))
    }

    fn over(plan: Plan, files: Vec<Sink<'f>>) -> Result<Self> {
        if files.len() != plan.files().len() {
            return Err(DiskError::refused("writing a VMDK")
                .expected(format!("{} files", plan.files().len()))
                .found(format!("{}", files.len())));
        }
        let mut pieces = Vec::new();
        for (file, planned) in files.into_iter().zip(plan.files()) {
            let name = planned.name.clone();
            let kind: Box<dyn Extent + 'f> = match plan.subformat() {
                _ if planned.sectors == 0
                    && plan.has_descriptor_file()
                    && planned.is_descriptor =>
                {
                    let text = plan.descriptor();
                    Box::new(flat::Text::new(file.file(name)?, text))
                }
                Subformat::MonolithicFlat | Subformat::TwoGbMaxExtentFlat | Subformat::Vmfs => {
                    Box::new(flat::Flat::new(file.file(name)?, planned.len())?)
                }
                Subformat::MonolithicSparse | Subformat::TwoGbMaxExtentSparse => Box::new(
                    hosted::Hosted::new(file.file(name)?, planned.sectors, &plan)?,
                ),
                Subformat::StreamOptimized => {
                    Box::new(stream::Stream::new(file, name, planned.sectors, &plan)?)
                }
                Subformat::VmfsSparse => Box::new(cowd::Cowd::new(
                    file.file(name)?,
                    planned.sectors,
                    plan.is_child(),
                )?),
                Subformat::SeSparse => Box::new(sesparse::SeSparse::new(
                    file.file(name)?,
                    planned.sectors,
                    plan.is_child(),
                )),
            };
            pieces.push(Piece {
                start: planned.start.saturating_mul(SECTOR),
                len: planned.len(),
                kind,
            });
        }
        Ok(Self { plan, pieces })
    }

    /// Length of the disk in bytes.
    pub fn len(&self) -> u64 {
        self.plan.len()
    }

    /// Whether the disk has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether ranges must come from the first to the last, each worked on by
    /// [`Self::encode`].
    pub fn in_order(&self) -> bool {
        self.plan.subformat() == Subformat::StreamOptimized
    }

    /// Zeros are worth telling apart in aligned blocks of so many bytes: a grain.
    pub fn block(&self) -> u64 {
        self.plan.subformat().block()
    }

    /// What of a range needs no order: compression. `None` where there is nothing to do;
    /// otherwise the result goes to [`Self::write_at`] in the place of the bytes.
    pub fn encode(&self, bytes: &[u8], offset: u64) -> Result<Option<Vec<u8>>> {
        match self.pieces.first() {
            Some(piece) if self.in_order() => piece.kind.encode(bytes, offset),
            _ => Ok(None),
        }
    }

    /// Takes bytes of the disk, or what [`Self::encode`] made of them.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        if self.in_order() {
            return match self.pieces.first() {
                Some(piece) => piece.kind.write_at(bytes, offset),
                None => Ok(()),
            };
        }
        let mut rest = bytes;
        self.each(offset, bytes.len() as u64, |extent, at, n| {
            let (now, later) =
                rest.split_at(usize::try_from(n).unwrap_or(rest.len()).min(rest.len()));
            rest = later;
            extent.write_at(now, at)
        })
    }

    /// Takes bytes that lie in a file of the host by sharing their blocks: only flat extents
    /// can, and only where the file system does. Whether they were taken.
    pub fn share(&self, from: &HostRange, offset: u64) -> Result<bool> {
        let end = offset.saturating_add(from.len);
        let piece = self
            .pieces
            .iter()
            .find(|p| p.start <= offset && end <= p.start.saturating_add(p.len));
        match piece {
            Some(piece) => piece.kind.share(from, offset.saturating_sub(piece.start)),
            None => Ok(false),
        }
    }

    /// Takes a range of zeros. In an image without a parent, ranges that never come are
    /// zeros too; in a child they are the parent's.
    pub fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        self.each(offset, len, |extent, at, n| extent.zero_at(at, n))
    }

    /// Writes what makes the files an image.
    pub fn finish(&self) -> Result<()> {
        self.pieces.iter().try_for_each(|p| p.kind.finish())
    }

    /// Calls `visit` for the part of a range that lies in each extent.
    fn each(
        &self,
        offset: u64,
        len: u64,
        mut visit: impl FnMut(&dyn Extent, u64, u64) -> Result<()>,
    ) -> Result<()> {
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= self.len())
            .ok_or_else(|| DiskError::out_of_range(offset, len, self.len()))?;
        let first = self
            .pieces
            .partition_point(|p| p.start.saturating_add(p.len) <= offset);
        for piece in self.pieces.iter().skip(first) {
            let from = offset.max(piece.start);
            let to = end.min(piece.start.saturating_add(piece.len));
            if from >= to {
                break;
            }
            visit(
                &*piece.kind,
                from.saturating_sub(piece.start),
                to.saturating_sub(from),
            )?;
        }
        Ok(())
    }
}
