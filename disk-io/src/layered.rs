//! The one loop that reads through block maps: a disk and its parents as one [`Disk`].
//!
//! A chain is merged, not walked. The virtual disk is cut into windows; on first touch the
//! layers are asked, top to bottom, where the bytes of that window live, and the merged
//! answer is kept under a memory budget. A warm window costs the same at any depth, and a
//! cold one at most that window's table entries in each link.

use crate::{
    block_map::{BlockMap, FileIndex, Mapping, Place, UnitId},
    disk::{Disk, HostRange, Run, RunKind, check_range, check_run_offset},
    error::{DiskError, ErrorKind, Result},
};
use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};
use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Length of a window in bytes: what one grain table of a hosted sparse extent covers.
pub const WINDOW: u64 = 32 << 20;

/// The memory that readers share: merged windows, decoded units. Make one per process and
/// give it to every disk.
#[derive(Debug)]
pub struct Memory {
    windows: Cache<(u64, u64), Arc<Window>, ByBytes>,
    units: Cache<(u64, u32, UnitId), Arc<[u8]>, ByBytes>,
    next_disk: AtomicU64,
}

#[derive(Clone, Debug)]
struct ByBytes;

impl<K> Weighter<K, Arc<Window>> for ByBytes {
    fn weight(&self, _: &K, window: &Arc<Window>) -> u64 {
        let segments = window.segments.len() * size_of::<Segment>();
        // An error owns several strings.
        (segments + window.bad.len() * 768 + 128) as u64
    }
}

impl<K> Weighter<K, Arc<[u8]>> for ByBytes {
    fn weight(&self, _: &K, unit: &Arc<[u8]>) -> u64 {
        unit.len() as u64 + 64
    }
}

impl Memory {
    /// At most about `bytes` in all.
    pub fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            windows: cache(bytes / 2, 4096),
            units: cache(bytes / 2, 65_536),
            next_disk: AtomicU64::new(0),
        })
    }

    /// The budget that commands start with: 48 MiB.
    pub fn standard() -> Arc<Self> {
        static ONE: OnceLock<Arc<Memory>> = OnceLock::new();
        ONE.get_or_init(|| Self::new(48 << 20)).clone()
    }
}

/// A cache of `bytes` for items of some `each` bytes. It keeps nothing that is larger than
/// one of its shards, and the default is four shards a core: on a large machine the windows
/// that cost most to merge would never be kept. So a shard holds at least 8 MiB.
fn cache<K: Eq + std::hash::Hash, V: Clone>(bytes: u64, each: u64) -> Cache<K, V, ByBytes>
where
    ByBytes: Weighter<K, V>,
{
    let shards = (bytes >> 23).clamp(1, 64);
    // The library rounds up to a power of two.
    let shards = 1 << shards.ilog2();
    let items = (bytes / each).clamp(16, 1 << 20) as usize;
    let options = OptionsBuilder::new()
        .shards(shards)
        .estimated_items_capacity(items)
        .weight_capacity(bytes)
        .build();
    match options {
        Ok(options) => Cache::with_options(
            options,
            ByBytes,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        ),
        // Only a missing capacity is an error, and both are given.
        Err(_) => Cache::with_weighter(items, bytes, ByBytes),
    }
}

/// Errors kept in a window; what is damaged beyond is told in one.
const MAX_BAD: usize = 256;

/// A stack of block maps, the newest first, read as one disk.
#[derive(Debug)]
pub struct Layered {
    layers: Vec<Arc<dyn BlockMap>>,
    len: u64,
    memory: Arc<Memory>,
    id: u64,
}

/// Where one run of a layered disk comes from: what the `map` verb prints.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Length in bytes.
    pub len: u64,
    /// What it is made of.
    pub kind: RunKind,
    /// How many links below the top it was found; the number of links if in none.
    pub depth: usize,
    /// File and byte offset of stored bytes, or of the unit that holds them encoded.
    pub place: Option<(PathBuf, u64)>,
    /// Whether it is stored encoded (compressed).
    pub encoded: bool,
    /// Why it cannot be read.
    pub bad: Option<DiskError>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    Stored { file: FileIndex, offset: u64 },
    Encoded { unit: UnitId, len: u32, skip: u32 },
    Zero,
    Unallocated,
    Bad(u32),
}

/// `start` is relative to the window; a segment ends where the next one begins.
#[derive(Clone, Copy, Debug)]
struct Segment {
    start: u32,
    layer: u16,
    source: Source,
}

#[derive(Debug)]
struct Window {
    segments: Vec<Segment>,
    bad: Vec<DiskError>,
    len: u32,
}

impl Window {
    fn end_of(&self, index: usize) -> u32 {
        self.segments.get(index + 1).map_or(self.len, |s| s.start)
    }

    /// Index of the segment that holds the byte at `at`.
    fn find(&self, at: u32) -> usize {
        self.segments
            .partition_point(|s| s.start <= at)
            .saturating_sub(1)
    }

    fn error(&self, index: u32) -> DiskError {
        self.bad.get(index as usize).cloned().unwrap_or_else(|| {
            DiskError::corrupt("reading a damaged range").found("an error that was not kept")
        })
    }
}

impl Layered {
    /// Stacks `layers`, the newest first; there must be at least one and at most 65,535.
    pub fn new(layers: Vec<Arc<dyn BlockMap>>, memory: Arc<Memory>) -> Result<Self> {
        let Some(top) = layers.first() else {
            return Err(DiskError::corrupt("stacking the layers of a disk").found("no layer"));
        };
        if layers.len() > usize::from(u16::MAX) {
            return Err(DiskError::refused("stacking the layers of a disk")
                .expected("at most 65535 links")
                .found(layers.len().to_string()));
        }
        Ok(Self {
            len: top.len(),
            id: memory.next_disk.fetch_add(1, Ordering::Relaxed),
            layers,
            memory,
        })
    }

    /// The layers, the newest first.
    pub fn layers(&self) -> &[Arc<dyn BlockMap>] {
        &self.layers
    }

    /// Where the byte at `offset` and its run come from.
    pub fn origin_at(&self, offset: u64) -> Result<Origin> {
        check_run_offset(self.len, offset)?;
        let (window, base) = self.window(offset)?;
        let at = (offset - base) as u32;
        let index = window.find(at);
        let Some(segment) = window.segments.get(index) else {
            return Err(DiskError::corrupt("mapping").offset(offset));
        };
        let inside = u64::from(at - segment.start);
        let layer = self.layers.get(usize::from(segment.layer));
        let name = |file| layer.map(|l| PathBuf::from(l.file_name(file)));
        let mut origin = Origin {
            len: u64::from(window.end_of(index) - at),
            kind: RunKind::Data,
            depth: usize::from(segment.layer),
            place: None,
            encoded: false,
            bad: None,
        };
        match segment.source {
            Source::Stored { file, offset } => {
                origin.place = name(file).map(|n| (n, offset + inside));
            }
            Source::Encoded { unit, .. } => {
                origin.encoded = true;
                origin.place = layer
                    .and_then(|l| l.unit_place(unit))
                    .and_then(|(file, at)| Some((name(file)?, at)));
            }
            Source::Zero => origin.kind = RunKind::Zero,
            Source::Unallocated => origin.kind = RunKind::Unallocated,
            Source::Bad(e) => origin.bad = Some(window.error(e)),
        }
        Ok(origin)
    }

    /// The window that holds `offset`, and where it begins.
    fn window(&self, offset: u64) -> Result<(Arc<Window>, u64)> {
        let number = offset / WINDOW;
        let base = number * WINDOW;
        let key = (self.id, number);
        if let Some(window) = self.memory.windows.get(&key) {
            return Ok((window, base));
        }
        let window = Arc::new(self.merge(base, WINDOW.min(self.len - base))?);
        // A device that failed may work again: what it did not give is asked for anew.
        if !window.bad.iter().any(|e| e.kind() == ErrorKind::Io) {
            self.memory.windows.insert(key, window.clone());
        }
        Ok((window, base))
    }

    /// Asks the layers, top to bottom, for the ranges that are still unknown.
    fn merge(&self, base: u64, len: u64) -> Result<Window> {
        let mut merge = Merge {
            found: Vec::new(),
            bad: Vec::new(),
        };
        // Ranges nobody has answered for yet: (start, end), absolute, ascending.
        let mut open = vec![(base, base + len)];
        for (number, layer) in self.layers.iter().enumerate() {
            let (Some(first), Some(last)) = (open.first(), open.last()) else {
                break;
            };
            let (from, to) = (first.0, last.1.min(layer.len()));
            if from >= to {
                break;
            }
            let mut still_open = Vec::new();
            let mut at = from;
            let mut next = 0;
            layer.map_range(from, to - from, &mut |m: Mapping| {
                let end = at.saturating_add(m.len).min(to);
                merge.place(
                    base,
                    number as u16,
                    (at, end),
                    &m,
                    &open,
                    &mut next,
                    &mut still_open,
                );
                at = end;
            })?;
            if at != to {
                return Err(DiskError::corrupt("mapping")
                    .file(layer.name())
                    .offset(at)
                    .expected(format!("a map up to {to}")));
            }
            // What lies beyond this layer's end has no layer below either.
            for range in &open {
                if range.1 > to {
                    merge.push(
                        base,
                        self.layers.len() as u16,
                        range.0.max(to),
                        Source::Unallocated,
                    );
                }
            }
            open = still_open;
        }
        for (start, _) in open {
            merge.push(base, self.layers.len() as u16, start, Source::Unallocated);
        }
        Ok(merge.finish(len as u32))
    }

    fn read_segment(
        &self,
        window: &Window,
        segment: &Segment,
        inside: u32,
        out: &mut [u8],
        offset: u64,
    ) -> Result<()> {
        match segment.source {
            Source::Zero | Source::Unallocated => {
                out.fill(0);
                Ok(())
            }
            Source::Bad(e) => Err(window.error(e)),
            Source::Stored { file, offset: at } => {
                let layer = self.layer(segment.layer, offset)?;
                layer.file(file)?.read_exact_at(out, at + u64::from(inside))
            }
            Source::Encoded { unit, len, skip } => {
                let layer = self.layer(segment.layer, offset)?;
                let from = (skip + inside) as usize;
                if from == 0 && out.len() == len as usize {
                    return layer.decode(unit, out);
                }
                let key = (self.id, u32::from(segment.layer), unit);
                let decoded = match self.memory.units.get(&key) {
                    Some(decoded) => decoded,
                    None => {
                        let mut decoded = vec![0; len as usize];
                        layer.decode(unit, &mut decoded)?;
                        let decoded: Arc<[u8]> = decoded.into();
                        self.memory.units.insert(key, decoded.clone());
                        decoded
                    }
                };
                let part = decoded.get(from..from + out.len()).ok_or_else(|| {
                    DiskError::corrupt("reading a decoded unit")
                        .file(layer.name())
                        .expected(format!("{} bytes from {from}", out.len()))
                        .found(format!("a unit of {len}"))
                })?;
                out.copy_from_slice(part);
                Ok(())
            }
        }
    }

    fn layer(&self, number: u16, offset: u64) -> Result<&Arc<dyn BlockMap>> {
        self.layers
            .get(usize::from(number))
            .ok_or_else(|| DiskError::corrupt("finding the layer of a range").offset(offset))
    }
}

/// A window being merged.
struct Merge {
    found: Vec<Segment>,
    bad: Vec<DiskError>,
}

impl Merge {
    fn push(&mut self, base: u64, layer: u16, start: u64, source: Source) {
        self.found.push(Segment {
            start: (start - base) as u32,
            layer,
            source,
        });
    }

    /// Keeps an error and gives its number.
    fn keep(&mut self, error: &DiskError) -> u32 {
        match self.bad.len() {
            n if n < MAX_BAD => self.bad.push(error.clone()),
            MAX_BAD => self.bad.push(error.clone().context(format!(
                "one of more than {MAX_BAD} damaged places nearby, for example"
            ))),
            _ => {}
        }
        self.bad.len() as u32 - 1
    }

    /// Intersects one mapping with the ranges that are still open.
    #[allow(clippy::too_many_arguments)]
    fn place(
        &mut self,
        base: u64,
        layer: u16,
        (start, end): (u64, u64),
        mapping: &Mapping,
        open: &[(u64, u64)],
        next: &mut usize,
        still_open: &mut Vec<(u64, u64)>,
    ) {
        // Most layers of a deep chain have nothing for most windows.
        if let (Place::Below, 0, [first, .., last] | [first @ last]) = (&mapping.place, *next, open)
            && start <= first.0
            && last.1 <= end
        {
            still_open.extend_from_slice(open);
            *next = open.len();
            return;
        }
        while let Some(range) = open.get(*next) {
            if range.0 >= end {
                return;
            }
            if range.1 > start {
                let from = range.0.max(start);
                let inside = from - start;
                let source = match &mapping.place {
                    Place::Below => {
                        let to = range.1.min(end);
                        match still_open.last_mut() {
                            Some(last) if last.1 == from => last.1 = to,
                            _ => still_open.push((from, to)),
                        }
                        None
                    }
                    Place::Stored { file, offset } => Some(Source::Stored {
                        file: *file,
                        offset: offset + inside,
                    }),
                    Place::Encoded {
                        unit,
                        unit_len,
                        skip,
                    } => Some(Source::Encoded {
                        unit: *unit,
                        len: *unit_len,
                        skip: skip + inside as u32,
                    }),
                    Place::Zero => Some(Source::Zero),
                    Place::Bad(e) => Some(Source::Bad(self.keep(e))),
                };
                if let Some(source) = source {
                    self.push(base, layer, from, source);
                }
            }
            if range.1 > end {
                return;
            }
            *next += 1;
        }
    }

    /// Sorts the pieces of all layers and joins neighbours that are contiguous.
    fn finish(mut self, len: u32) -> Window {
        self.found.sort_unstable_by_key(|s| s.start);
        let mut segments: Vec<Segment> = Vec::with_capacity(self.found.len());
        for segment in self.found {
            if let Some(last) = segments.last()
                && last.layer == segment.layer
            {
                let gap = u64::from(segment.start - last.start);
                let joins = match (last.source, segment.source) {
                    (
                        Source::Stored { file, offset },
                        Source::Stored {
                            file: file2,
                            offset: offset2,
                        },
                    ) => file == file2 && offset + gap == offset2,
                    (
                        Source::Encoded { unit, skip, .. },
                        Source::Encoded {
                            unit: unit2,
                            skip: skip2,
                            ..
                        },
                    ) => unit == unit2 && u64::from(skip) + gap == u64::from(skip2),
                    (a, b) => a == b,
                };
                if joins {
                    continue;
                }
            }
            segments.push(segment);
        }
        segments.shrink_to_fit();
        Window {
            segments,
            bad: self.bad,
            len,
        }
    }
}

impl Disk for Layered {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.layers.first().map_or(512, |l| l.sector_size())
    }

    fn states_sector_size(&self) -> bool {
        self.layers.first().is_some_and(|l| l.states_sector_size())
    }

    fn host_range(&self, offset: u64) -> Option<HostRange> {
        check_run_offset(self.len, offset).ok()?;
        let (window, base) = self.window(offset).ok()?;
        let at = (offset - base) as u32;
        let index = window.find(at);
        let segment = window.segments.get(index)?;
        let Source::Stored {
            file,
            offset: place,
        } = segment.source
        else {
            return None;
        };
        let layer = self.layers.get(usize::from(segment.layer))?;
        let place = place + u64::from(at - segment.start);
        let mut range = layer.file(file).ok()?.host_range(place)?;
        range.len = range.len.min(u64::from(window.end_of(index) - at));
        Some(range)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len, offset, buf.len())?;
        let mut rest = buf;
        let mut offset = offset;
        while !rest.is_empty() {
            let (window, base) = self.window(offset)?;
            let mut at = (offset - base) as u32;
            let mut index = window.find(at);
            while !rest.is_empty() && at < window.len {
                let Some(segment) = window.segments.get(index) else {
                    return Err(DiskError::corrupt("mapping").offset(offset));
                };
                let n = ((window.end_of(index) - at) as usize).min(rest.len());
                let (now, later) = rest.split_at_mut(n);
                self.read_segment(&window, segment, at - segment.start, now, offset)?;
                rest = later;
                at += n as u32;
                offset += n as u64;
                index += 1;
            }
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len, offset)?;
        let (window, base) = self.window(offset)?;
        let at = (offset - base) as u32;
        let mut index = window.find(at);
        let kind_of = |index: usize| {
            window.segments.get(index).map(|s| match s.source {
                Source::Zero => RunKind::Zero,
                Source::Unallocated => RunKind::Unallocated,
                _ => RunKind::Data,
            })
        };
        let kind = kind_of(index).unwrap_or(RunKind::Data);
        while kind_of(index + 1) == Some(kind) {
            index += 1;
        }
        let mut run = Run {
            len: u64::from(window.end_of(index) - at),
            kind,
        };
        // A lone flat layer over a sparse file: the file's own holes are worth telling.
        if kind == RunKind::Data
            && let Some(segment) = window.segments.get(window.find(at))
            && let Source::Stored { file, offset: from } = segment.source
        {
            let inside = from + u64::from(at - segment.start);
            let here = u64::from(window.end_of(window.find(at)) - at);
            let below = self
                .layer(segment.layer, offset)?
                .file(file)?
                .run_at(inside)?;
            if below.kind != RunKind::Data {
                run = Run {
                    len: below.len.min(here),
                    kind: RunKind::Zero,
                };
            } else if below.len < here {
                run.len = below.len;
            }
        }
        Ok(run)
    }

    fn will_read(&self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.len);
        let mut at = offset;
        while at < end {
            let Ok((window, base)) = self.window(at) else {
                return;
            };
            let inside = (at - base) as u32;
            let index = window.find(inside);
            let here = u64::from(window.end_of(index) - inside).min(end - at);
            if let Some(segment) = window.segments.get(index)
                && let Some(layer) = self.layers.get(usize::from(segment.layer))
            {
                let skip = u64::from(inside - segment.start);
                let place = match segment.source {
                    Source::Stored { file, offset } => Some((file, offset + skip, here)),
                    Source::Encoded { unit, len, .. } => layer
                        .unit_place(unit)
                        .map(|(file, at)| (file, at, u64::from(len))),
                    _ => None,
                };
                if let Some((file, at, n)) = place
                    && let Ok(file) = layer.file(file)
                {
                    file.will_read(at, n);
                }
            }
            at += here;
        }
    }
}

#[cfg(test)]
mod tests;
