//! One extent of a link, whatever its kind.

pub(crate) mod flat;
pub(crate) mod head;
pub(crate) mod open;
pub(crate) mod redo;

use crate::link::Counts;
use disk_io::{Disk, DiskError, FileIndex, Mapping, Place, Result, finding::Visit};
use std::{
    collections::BTreeSet,
    fmt::Debug,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// How many bits of a unit name the grain; the extent's number is above them.
pub(crate) const UNIT_GRAIN_BITS: u32 = 48;

/// An extent maps its own bytes; the link puts extents one behind the other.
pub(crate) trait ExtentMap: Send + Sync + Debug {
    /// As [`disk_io::BlockMap::map_range`], with offsets relative to the extent.
    fn map_range(&self, start: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()>;

    /// Its file.
    fn file(&self) -> Option<&Arc<dyn Disk>> {
        None
    }

    /// Decodes a grain.
    fn decode(&self, grain: u64, out: &mut [u8]) -> Result<()> {
        let _ = out;
        Err(DiskError::unsupported("decoding").found(format!("grain {grain}")))
    }

    /// Byte offset of an encoded grain in the file.
    fn grain_place(&self, grain: u64) -> Option<u64> {
        let _ = grain;
        None
    }

    /// Ranges of its file that header and tables take, see [`disk_io::BlockMap::tables`].
    fn tables(&self, emit: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        let _ = emit;
        Ok(())
    }

    /// Visits what is wrong beyond what the map says; `start` is where the extent begins on
    /// the disk.
    fn check(&self, start: u64, visit: Visit<'_>) -> Result<()> {
        let _ = (start, visit);
        Ok(())
    }

    /// Counts what is stored in the first `len` bytes.
    fn count(&self, len: u64, counts: &mut Counts) -> Result<()> {
        self.map_range(0, len, &mut |m| {
            let field = match m.place {
                Place::Below => &mut counts.below,
                Place::Zero => &mut counts.zero,
                Place::Bad(_) => &mut counts.bad,
                Place::Stored { .. } | Place::Encoded { .. } => &mut counts.stored,
            };
            *field = field.saturating_add(m.len);
        })
    }
}

/// An extent of zeros.
#[derive(Debug)]
pub(crate) struct ZeroExtent;

impl ExtentMap for ZeroExtent {
    fn map_range(&self, _: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()> {
        emit(Mapping {
            len,
            place: Place::Zero,
        });
        Ok(())
    }
}

/// An extent that must not be read.
#[derive(Debug)]
pub(crate) struct ForbiddenExtent(pub(crate) DiskError);

impl ExtentMap for ForbiddenExtent {
    fn map_range(&self, _: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()> {
        emit(Mapping {
            len,
            place: Place::Bad(self.0.clone()),
        });
        Ok(())
    }
}

/// One thing that was noticed: a sentence, its kind for reports, and its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Remark {
    pub(crate) text: String,
    pub(crate) code: &'static str,
    pub(crate) place: Spot,
}

/// Where something was noticed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spot {
    /// The extent's file; empty: the link's own.
    pub(crate) file: String,
    /// Where in it.
    pub(crate) offset: Option<u64>,
    /// Which extent, and which bytes of it are touched, as offset and length.
    pub(crate) touched: Option<(u32, u64, u64)>,
}

/// What was noticed while reading tables, each thing once.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    all: Mutex<BTreeSet<Remark>>,
    /// From now on what is noticed is logged too: whoever opened the disk has been told the rest.
    logged: AtomicBool,
}

impl Remarks {
    /// So that a damaged image does not fill the memory with complaints.
    const MOST: usize = 64;

    pub(crate) fn add(
        &self,
        code: &'static str,
        place: impl FnOnce() -> Spot,
        remark: impl FnOnce() -> String,
    ) {
        if let Ok(mut all) = self.all.lock()
            && all.len() < Self::MOST
        {
            let (text, place) = (remark(), place());
            let remark = Remark { text, code, place };
            if self.logged.load(Ordering::Relaxed) && !all.contains(&remark) {
                tracing::warn!(target: crate::REMARKS, "{}", remark.text);
            }
            all.insert(remark);
        }
    }

    /// What is noticed from now on is logged.
    pub(crate) fn log(&self) {
        self.logged.store(true, Ordering::Relaxed);
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.typed().into_iter().map(|r| r.text).collect()
    }

    pub(crate) fn typed(&self) -> Vec<Remark> {
        self.all
            .lock()
            .map(|all| all.iter().cloned().collect())
            .unwrap_or_default()
    }
}

/// What an extent needs to know of its place in the link.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    /// Its number, which names its units.
    pub(crate) number: u32,
    /// The number of the first extent in the same file, which names the file.
    pub(crate) file: FileIndex,
    /// Name of its file.
    pub(crate) name: String,
    /// Where the link keeps pieces of directories.
    pub(crate) pieces: Arc<crate::directory::Pieces>,
    /// Where it says what it noticed.
    pub(crate) remarks: Arc<Remarks>,
}

impl Seat {
    /// A place in its file.
    pub(crate) fn at(&self, offset: u64) -> Spot {
        Spot {
            file: self.name.clone(),
            offset: Some(offset),
            touched: None,
        }
    }
}
