//! Contents as a disk.

use super::{
    file::Content,
    lznt1::{self, Compressed},
    record::flags as flag,
    runs::{RunList, Where},
    volume::Volume,
};
use crate::Extent;
use disk_io::{
    Disk, DiskError, MemDisk, Result, Run, RunKind,
    disk::{check_range, check_run_offset},
};
use std::sync::Arc;

/// The compression and encryption of a stream that its flags tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Plain,
    /// LZNT1 in units of so many bytes.
    Lznt1(u64),
}

/// How a stream is coded, or why it cannot be given out.
pub(crate) fn coding(
    volume: &Volume,
    flags: u16,
    unit: u8,
    what: &dyn Fn() -> String,
) -> Result<Coding> {
    let doing = || format!("reading {}", what());
    if flags & flag::ENCRYPTED != 0 && !volume.options.efs_raw {
        return Err(DiskError::unsupported(doing())
            .found("a file encrypted by EFS: only its owner's keys open it")
            .hint(
                "export it in the guest as its owner; --efs-raw takes the cipher text and its keys",
            ));
    }
    let bytes = volume
        .boot
        .cluster()
        .checked_shl(u32::from(unit))
        .filter(|bytes| *bytes <= lznt1::MAX_UNIT);
    match (flags & flag::COMPRESSION, unit, bytes) {
        // Sparse streams have units too.
        (0, _, _) if unit == 0 || flags & flag::SPARSE != 0 => Ok(Coding::Plain),
        (1, 1..=8, Some(bytes)) => Ok(Coding::Lznt1(bytes)),
        // One of the two is damaged: what is compressed would be given out as it is stored.
        (method @ (0 | 1), _, _) => Err(DiskError::corrupt(doing())
            .expected("compressed or sparse, with units, or neither")
            .found(format!(
                "flags {flags:#06x}, unit 2^{unit} clusters, method {method}"
            ))),
        (method, unit, _) => Err(DiskError::unsupported(doing()).found(format!(
            "compression method {method}, unit 2^{unit} clusters"
        ))),
    }
}

/// Length of what is stored of a stream: cipher text comes in whole sectors.
pub(crate) fn raw_size(flags: u16, size: u64) -> u64 {
    match flags & flag::ENCRYPTED {
        0 => size,
        _ => size.checked_next_multiple_of(512).unwrap_or(size),
    }
}

/// Opens a value as a disk. `what` names it in errors.
pub(crate) fn open(volume: &Arc<Volume>, content: Content, what: String) -> Result<Arc<dyn Disk>> {
    match content {
        Content::Resident(bytes) => Ok(Arc::new(MemDisk::new(bytes))),
        Content::Clusters(mut clusters) => {
            let coding = coding(volume, clusters.flags, clusters.unit, &|| what.clone())?;
            if volume.options.efs_raw {
                clusters.size = raw_size(clusters.flags, clusters.size);
                clusters.initialized = raw_size(clusters.flags, clusters.initialized);
            }
            match coding {
                Coding::Plain => Ok(Arc::new(Plain {
                    volume: volume.clone(),
                    what,
                    len: clusters.size,
                    initialized: clusters.initialized.min(clusters.size),
                    holes: clusters.flags & (flag::SPARSE | flag::COMPRESSION) != 0,
                    runs: clusters.runs,
                })),
                Coding::Lznt1(unit) => Ok(Arc::new(Compressed {
                    id: volume.next_id(),
                    volume: volume.clone(),
                    what,
                    len: clusters.size,
                    initialized: clusters.initialized.min(clusters.size),
                    unit,
                    runs: clusters.runs,
                })),
            }
        }
    }
}

/// A stream whose clusters hold its bytes as they are.
#[derive(Debug)]
struct Plain {
    volume: Arc<Volume>,
    what: String,
    len: u64,
    /// Bytes beyond were never written: zeros, whatever the clusters hold.
    initialized: u64,
    /// Only what is sparse has holes.
    holes: bool,
    runs: RunList,
}

impl Plain {
    fn check_holes(&self, offset: u64, end: u64) -> Result<()> {
        let cluster = self.volume.boot.cluster();
        let hole = match self.holes {
            true => None,
            false => places(&self.runs, cluster, offset, end).find(|p| p.2 == Where::Hole),
        };
        match hole {
            None => Ok(()),
            Some((at, len, _)) => Err(DiskError::corrupt(format!("reading {}", self.what))
                .offset(at)
                .expected("clusters: the stream is not sparse")
                .found(format!("a hole of {len} bytes"))),
        }
    }
}

impl Disk for Plain {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.volume.disk.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len, offset, buf.len())?;
        let valid = self.initialized.saturating_sub(offset);
        let split = usize::try_from(valid).unwrap_or(usize::MAX).min(buf.len());
        let (stored, zeros) = buf.split_at_mut(split);
        zeros.fill(0);
        self.check_holes(offset, offset.saturating_add(stored.len() as u64))?;
        self.volume
            .read_runs(&self.runs, stored, offset, &|| self.what.clone())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len, offset)?;
        let run = run_of(
            &self.runs,
            self.volume.boot.cluster(),
            self.initialized,
            self.len,
            offset,
        );
        // It must be read, to be told.
        let lost = !self.holes && offset < self.initialized && run.kind == RunKind::Unallocated;
        Ok(Run {
            len: match lost {
                true => run.len.min(self.initialized.saturating_sub(offset)).max(1),
                false => run.len,
            },
            kind: if lost { RunKind::Data } else { run.kind },
        })
    }

    fn will_read(&self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.initialized);
        for (at, n, place) in places(&self.runs, self.volume.boot.cluster(), offset, end) {
            if let Where::At(start) = place {
                let _ = at;
                self.volume.disk.will_read(start, n);
            }
        }
    }
}

/// The run at `offset` of a stream.
pub(crate) fn run_of(runs: &RunList, cluster: u64, initialized: u64, len: u64, offset: u64) -> Run {
    let mut total = 0u64;
    let mut kind = None;
    for (_, n, place) in places(runs, cluster, offset, len) {
        let here = match place {
            Where::Hole => RunKind::Unallocated,
            _ if offset >= initialized => RunKind::Zero,
            _ => RunKind::Data,
        };
        if *kind.get_or_insert(here) != here {
            break;
        }
        total = total.saturating_add(n);
    }
    let kind = kind.unwrap_or(RunKind::Data);
    let end = if kind == RunKind::Data {
        initialized.min(len)
    } else {
        len
    };
    Run {
        len: total.min(end.saturating_sub(offset)).max(1),
        kind,
    }
}

/// The pieces between two offsets as (offset, length, place), in bytes. `Where::At` is a
/// byte offset on the volume here.
pub(crate) fn places(
    runs: &RunList,
    cluster: u64,
    offset: u64,
    end: u64,
) -> impl Iterator<Item = (u64, u64, Where)> + '_ {
    let first = runs
        .find(offset.checked_div(cluster).unwrap_or(0))
        .unwrap_or(usize::MAX);
    runs.pieces()
        .get(first..)
        .unwrap_or_default()
        .iter()
        .map_while(move |p| {
            let start = p.vcn.saturating_mul(cluster);
            let from = start.max(offset);
            let to = p.end().saturating_mul(cluster).min(end);
            let len = to.checked_sub(from).filter(|n| *n > 0)?;
            let place = match p.place {
                Where::At(lcn) => Where::At(
                    lcn.saturating_mul(cluster)
                        .saturating_add(from.saturating_sub(start)),
                ),
                other => other,
            };
            Some((from, len, place))
        })
}

/// The extents of a value, for reports.
pub(crate) fn extents(content: &Content, cluster: u64) -> Vec<Extent> {
    match content {
        Content::Resident(bytes) => vec![Extent {
            offset: 0,
            len: bytes.len() as u64,
            place: None,
        }],
        Content::Clusters(c) => places(&c.runs, cluster, 0, c.size)
            .map(|(offset, len, place)| Extent {
                offset,
                len,
                place: match place {
                    Where::At(at) => Some(at),
                    _ => None,
                },
            })
            .collect(),
    }
}

impl Volume {
    /// Fills `buf` from `offset` of a stream, holes with zeros.
    pub(crate) fn read_runs(
        &self,
        runs: &RunList,
        buf: &mut [u8],
        offset: u64,
        what: &dyn Fn() -> String,
    ) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        let mut rest = buf;
        let mut at = offset;
        let fail = |at: u64| DiskError::corrupt(format!("reading {}", what())).offset(at);
        for (from, len, place) in places(runs, self.boot.cluster(), offset, end) {
            let n = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(n);
            match place {
                Where::Hole => now.fill(0),
                Where::Lost(e) => {
                    return Err(runs.error(e).context(format!("reading {}", what())));
                }
                Where::At(place) => {
                    if place
                        .checked_add(n as u64)
                        .is_none_or(|e| e > self.disk.len())
                    {
                        return Err(fail(from)
                            .expected(format!("clusters inside {} bytes", self.disk.len()))
                            .found(format!("{n} bytes at {place} of the volume")));
                    }
                    self.disk
                        .read_exact_at(now, place)
                        .map_err(|e| e.context(format!("reading {} at {from}", what())))?;
                }
            }
            rest = later;
            at = from.saturating_add(n as u64);
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(fail(at).expected("data runs").found("the end of them"))
        }
    }

    /// The whole of a value of at most `max` bytes.
    pub(crate) fn small_value(
        &self,
        content: Content,
        max: u64,
        what: &dyn Fn() -> String,
    ) -> Result<Vec<u8>> {
        match content {
            Content::Resident(bytes) => Ok(bytes),
            Content::Clusters(c) => {
                if coding(self, c.flags, c.unit, what)? != Coding::Plain {
                    return Err(DiskError::unsupported(format!("reading {}", what()))
                        .found("a compressed value where none is expected"));
                }
                if c.size > max {
                    return Err(DiskError::refused(format!("reading {}", what()))
                        .expected(format!("at most {max} bytes"))
                        .found(c.size.to_string()));
                }
                let mut bytes = vec![0; c.size as usize];
                let valid = c.initialized.min(c.size) as usize;
                if let Some(valid) = bytes.get_mut(..valid) {
                    self.read_runs(&c.runs, valid, 0, what)?;
                }
                Ok(bytes)
            }
        }
    }
}
