//! A file's bytes: runs of clusters as a disk.

use super::chain::Chain;
use crate::Extent;
use disk_io::{
    Disk, DiskError, Result, Run, RunKind,
    disk::{check_range, check_run_offset},
};
use std::sync::Arc;

/// Where clusters lie.
#[derive(Debug)]
pub struct Area {
    /// The volume.
    pub disk: Arc<dyn Disk>,
    /// Where cluster 2 begins, in bytes.
    pub data_start: u64,
    /// Cluster size in bytes.
    pub cluster: u64,
}

impl Area {
    /// Where a cluster begins, in bytes.
    pub fn position(&self, cluster: u32) -> Option<u64> {
        u64::from(cluster)
            .checked_sub(2)?
            .checked_mul(self.cluster)?
            .checked_add(self.data_start)
    }

    /// Where the clusters of a chain lie, to their ends.
    pub fn extents(self: &Arc<Self>, chain: &Arc<Chain>) -> Vec<Extent> {
        let len = u64::from(chain.clusters()).saturating_mul(self.cluster);
        Contents::new(self.clone(), chain.clone(), len, len).extents()
    }
}

/// A file's contents. Bytes from `valid` on are zeros; bytes that the chain does not reach
/// are data whose read fails.
#[derive(Clone, Debug)]
pub struct Contents {
    area: Arc<Area>,
    chain: Arc<Chain>,
    len: u64,
    valid: u64,
}

/// Where some bytes of the file are.
enum Place {
    Volume(u64),
    Zero,
    Missing(DiskError),
}

impl Contents {
    /// A file of `len` bytes of which `valid` were written.
    pub fn new(area: Arc<Area>, chain: Arc<Chain>, len: u64, valid: u64) -> Self {
        Self {
            area,
            chain,
            len,
            valid: valid.min(len),
        }
    }

    /// Where the byte at `offset` (inside the file) is, and for how many bytes that holds.
    fn place(&self, offset: u64) -> (Place, u64) {
        if offset >= self.valid {
            return (Place::Zero, self.len.saturating_sub(offset));
        }
        let left = self.valid.saturating_sub(offset);
        let size = self.area.cluster.max(1);
        let found = offset
            .checked_div(size)
            .and_then(|at| u32::try_from(at).ok())
            .and_then(|at| self.chain.place(at));
        let skip = offset.checked_rem(size).unwrap_or(0);
        let position = found
            .and_then(|(cluster, _)| self.area.position(cluster))
            .and_then(|p| p.checked_add(skip));
        let (Some((_, run)), Some(position)) = (found, position) else {
            return (Place::Missing(self.missing(offset)), left);
        };
        let here = u64::from(run)
            .saturating_mul(size)
            .saturating_sub(skip)
            .min(left);
        match self.area.disk.len().checked_sub(position) {
            None | Some(0) => {
                let e = DiskError::corrupt("reading a file")
                    .offset(offset)
                    .expected(format!("a volume that has the byte {position}"))
                    .found(format!("one of {} bytes", self.area.disk.len()));
                (Place::Missing(e), here)
            }
            Some(there) => (Place::Volume(position), here.min(there)),
        }
    }

    fn missing(&self, offset: u64) -> DiskError {
        match self.chain.broken() {
            Some(e) => e.clone().offset(offset).context("reading a file"),
            None => DiskError::corrupt("reading a file")
                .offset(offset)
                .expected(format!("clusters for {} bytes", self.valid))
                .found(format!("{} clusters", self.chain.clusters())),
        }
    }

    /// Where everything lies; parts that are missing are left out.
    pub fn extents(&self) -> Vec<Extent> {
        let mut out = Vec::new();
        let mut offset = 0;
        while offset < self.len {
            let (place, len) = self.place(offset);
            let place = match place {
                Place::Volume(at) => Some(Some(at)),
                Place::Zero => Some(None),
                Place::Missing(_) => None,
            };
            if let Some(place) = place {
                out.push(Extent { offset, len, place });
            }
            offset = offset.saturating_add(len.max(1));
        }
        out
    }
}

impl Disk for Contents {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.area.disk.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len, offset, buf.len())?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let (place, len) = self.place(at);
            let n = usize::try_from(len)
                .unwrap_or(usize::MAX)
                .clamp(1, rest.len());
            let (now, later) = rest.split_at_mut(n);
            match place {
                Place::Volume(position) => self.area.disk.read_exact_at(now, position)?,
                Place::Zero => now.fill(0),
                Place::Missing(e) => return Err(e),
            }
            rest = later;
            at = at.saturating_add(n as u64);
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len, offset)?;
        let (place, len) = self.place(offset);
        let kind = match place {
            Place::Zero => RunKind::Zero,
            Place::Missing(_) => RunKind::Data,
            // A hole in the image is a hole in the file.
            Place::Volume(position) => {
                let below = self.area.disk.run_at(position)?;
                return Ok(Run {
                    len: below.len.min(len),
                    kind: below.kind,
                });
            }
        };
        Ok(Run { len, kind })
    }

    fn will_read(&self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.len);
        let mut at = offset;
        while at < end {
            let (place, here) = self.place(at);
            let n = here.clamp(1, end.saturating_sub(at).max(1));
            if let Place::Volume(position) = place {
                self.area.disk.will_read(position, n);
            }
            at = at.saturating_add(n);
        }
    }
}
