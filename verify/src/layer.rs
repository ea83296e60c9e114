//! One layer of a disk, walked through its block map: what cannot be read, what is stored
//! twice in one place, what does not decode.
//!
//! This is the same for every format: a format maps, and whatever its map says can be
//! checked here.

use crate::places::{Places, Shared, Stored, TABLES};
use disk_io::{
    BlockMap, DiskError, ErrorKind, Finding, Place, Result, UnitId,
    finding::{Visit, join},
    layered::WINDOW,
};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Stored ranges that are kept in memory.
const PLACES: usize = 2 << 20;
/// Findings of one kind in one layer that are told one by one; what is beyond is one
/// finding more with all their ranges.
const TOLD: u64 = 64;
/// Units that are decoded in one go.
const BATCH: usize = 2048;

/// Two places of the disk are stored in the same bytes.
const SHARED: &str = "place-shared";
/// One is stored where a table is.
const IN_TABLE: &str = "place-in-table";

/// What a layer holds, in bytes of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Stored here, as it is or encoded.
    pub stored: u64,
    /// Said to be zeros.
    pub zero: u64,
    /// Left to the parent.
    pub below: u64,
    /// Unreadable.
    pub bad: u64,
    /// Units (compressed grains, clusters) that were decoded.
    pub units: u64,
}

/// How a layer is walked.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// Decode what is encoded.
    pub decode: bool,
    /// With how many threads.
    pub jobs: usize,
}

/// Walks `map` and visits what is wrong. `step` is told how far on the disk it has come.
///
/// # Errors
/// If the device fails: that is no finding about the image.
pub fn walk(
    map: &dyn BlockMap,
    how: Walk,
    step: &mut dyn FnMut(u64),
    visit: Visit<'_>,
) -> Result<Held> {
    let mut layer = Layer {
        map,
        how,
        held: Held::default(),
        bad: Grouped::default(),
        visit,
        units: Vec::new(),
    };
    let mut places = Places::new(PLACES);
    layer.pass(&mut places, true, step)?;
    let mut shared = Grouped::default();
    loop {
        let mut found = Vec::new();
        let next = places.finish(&mut |s| found.push(s));
        for s in found {
            let (e, ranges) = layer.shared(&s);
            let code = match ranges.len() {
                1 => IN_TABLE,
                _ => SHARED,
            };
            shared.put(code, e, ranges, layer.visit);
        }
        match next {
            Some(next) => places = next,
            None => break,
        }
        layer.pass(&mut places, false, &mut |_| {})?;
    }
    shared.finish(layer.visit);
    Ok(layer.held)
}

/// Places of the disk that share bytes of a file, with each other or with a table, by what the layers' maps say: of any two of
/// them at most one is what was written there. Nothing but tables is read.
///
/// # Errors
/// If the device fails.
pub fn shared_places(layers: &[Arc<dyn BlockMap>]) -> Result<Vec<Finding>> {
    let how = Walk {
        decode: false,
        jobs: 1,
    };
    let mut found = Vec::new();
    for map in layers {
        walk(&**map, how, &mut |_| {}, &mut |f| {
            if [SHARED, IN_TABLE].contains(&f.code) {
                found.push(f);
            }
        })?;
    }
    Ok(found)
}

struct Layer<'a> {
    map: &'a dyn BlockMap,
    how: Walk,
    held: Held,
    bad: Grouped,
    visit: Visit<'a>,
    units: Vec<(UnitId, u32, u64)>,
}

impl Layer<'_> {
    /// Once over the disk. Only the first pass reports and decodes.
    fn pass(&mut self, places: &mut Places, first: bool, step: &mut dyn FnMut(u64)) -> Result<()> {
        let told = self
            .map
            .tables(&mut |file, range| places.add_table(file.0, &range));
        // Tables that cannot be read are told where they are needed.
        if let Err(e) = told
            && e.kind() == ErrorKind::Io
        {
            return Err(e);
        }
        let len = self.map.len();
        let mut start = 0;
        let mut last_unit = None;
        while start < len {
            let window = WINDOW.min(len - start);
            let mut at = start;
            let mut bad: Vec<(DiskError, Range<u64>)> = Vec::new();
            let mapped = self.map.map_range(start, window, &mut |m| {
                let range = at..at.saturating_add(m.len);
                at = range.end;
                let held = &mut self.held;
                let counted = match m.place {
                    Place::Zero => &mut held.zero,
                    Place::Below => &mut held.below,
                    Place::Bad(e) => {
                        bad.push((e, range));
                        &mut held.bad
                    }
                    Place::Stored { file, offset } => {
                        places.add(Stored {
                            file: file.0,
                            offset,
                            len: m.len,
                            guest: range.start,
                        });
                        &mut held.stored
                    }
                    Place::Encoded {
                        unit,
                        unit_len,
                        skip,
                    } => {
                        if last_unit != Some(unit) {
                            last_unit = Some(unit);
                            let guest = range.start.saturating_sub(skip.into());
                            self.units.push((unit, unit_len, guest));
                            if let Some((file, offset)) = self.map.unit_place(unit) {
                                places.add(Stored {
                                    file: file.0,
                                    offset,
                                    len: 1,
                                    guest,
                                });
                            }
                        }
                        &mut held.stored
                    }
                };
                if first {
                    *counted = counted.saturating_add(m.len);
                }
            });
            let whole = start..start + window;
            match mapped {
                Err(e) if e.kind() == ErrorKind::Io => return Err(e),
                Err(e) if first => {
                    self.held.bad += window;
                    self.bad
                        .put("range-unreadable", e, std::iter::once(whole), self.visit);
                }
                _ => {}
            }
            if first {
                for (e, range) in bad {
                    if e.kind() == ErrorKind::Io {
                        return Err(e);
                    }
                    self.bad
                        .put("range-unreadable", e, std::iter::once(range), self.visit);
                }
                if self.units.len() >= BATCH {
                    self.decode()?;
                }
            } else {
                self.units.clear();
            }
            start += window;
            step(start);
        }
        if first {
            self.decode()?;
            std::mem::take(&mut self.bad).finish(self.visit);
        }
        Ok(())
    }

    /// Decodes the units that were met, side by side.
    fn decode(&mut self) -> Result<()> {
        let units = std::mem::take(&mut self.units);
        if !self.how.decode || units.is_empty() {
            return Ok(());
        }
        self.held.units += units.len() as u64;
        let next = AtomicUsize::new(0);
        let (map, units) = (self.map, &units);
        let work = || {
            let mut out = Vec::new();
            let mut failed = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some((unit, len, _)) = units.get(n) else {
                    return failed;
                };
                out.resize(usize::try_from(*len).unwrap_or(0), 0);
                if let Err(e) = map.decode(*unit, &mut out) {
                    failed.push((n, e));
                }
            }
        };
        let mut failed: Vec<(usize, DiskError)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..self.how.jobs.max(1))
                .map(|_| scope.spawn(work))
                .collect();
            let mut all = work();
            for thread in threads {
                // A panic of a decoder is this program's own fault and goes on as one.
                match thread.join() {
                    Ok(more) => all.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            all
        });
        failed.sort_by_key(|(n, _)| *n);
        for (n, e) in failed {
            if e.kind() == ErrorKind::Io {
                return Err(e);
            }
            if let Some((_, len, guest)) = units.get(n) {
                let end = guest.saturating_add((*len).into()).min(self.map.len());
                self.held.bad += end - (*guest).min(end);
                self.bad.put(
                    "unit-not-decoded",
                    e,
                    std::iter::once(*guest..end),
                    self.visit,
                );
            }
        }
        Ok(())
    }

    fn shared(&self, s: &Shared) -> (DiskError, Vec<Range<u64>>) {
        let [a, b] = &s.guest;
        if b.start >= TABLES {
            let e = DiskError::corrupt("comparing the places of what is stored")
                .file(self.map.file_name(disk_io::FileIndex(s.file)))
                .offset(s.bytes.start)
                .expected("a header or table of the file, and nothing else")
                .found(format!(
                    "bytes {} to {} of the disk, stored there too",
                    a.start, a.end
                ));
            return (e, vec![a.clone()]);
        }
        let e = DiskError::corrupt("comparing the places of what is stored")
            .file(self.map.file_name(disk_io::FileIndex(s.file)))
            .offset(s.bytes.start)
            .expected("bytes that one place of the disk has")
            .found(format!(
                "bytes {} to {} and {} to {} of the disk, both stored there",
                a.start, a.end, b.start, b.end
            ));
        (e, s.guest.to_vec())
    }
}

/// Findings of one kind: neighbours joined, and only so many told one by one.
#[derive(Default)]
struct Grouped {
    last: Option<Finding>,
    told: BTreeMap<&'static str, u64>,
    /// Of those not told: how many, and where.
    rest: BTreeMap<&'static str, (u64, Finding)>,
}

impl Grouped {
    fn put(
        &mut self,
        code: &'static str,
        e: DiskError,
        ranges: impl IntoIterator<Item = Range<u64>>,
        visit: Visit<'_>,
    ) {
        let next = Finding::damage(code, e).touching(ranges);
        if let Some(last) = &mut self.last
            && last.code == next.code
            && code != "place-shared"
            && last.error.file_name() == next.error.file_name()
            && last.ranges.last().map(|r| r.end) == next.ranges.first().map(|r| r.start)
        {
            for range in next.ranges {
                join(&mut last.ranges, range);
            }
            return;
        }
        if let Some(done) = self.last.replace(next) {
            self.tell(done, visit);
        }
    }

    fn tell(&mut self, finding: Finding, visit: Visit<'_>) {
        let told = self.told.entry(finding.code).or_default();
        *told += 1;
        if *told <= TOLD {
            return visit(finding);
        }
        match self.rest.get_mut(finding.code) {
            Some((n, all)) => {
                *n += 1;
                // Ranges beyond this many say no more.
                if all.ranges.len() < 65_536 {
                    for range in finding.ranges {
                        join(&mut all.ranges, range);
                    }
                }
            }
            None => {
                self.rest.insert(finding.code, (1, finding));
            }
        }
    }

    fn finish(mut self, visit: Visit<'_>) {
        if let Some(done) = self.last.take() {
            self.tell(done, visit);
        }
        for (code, (n, finding)) in self.rest {
            let e = DiskError::corrupt("counting findings of one kind")
                .file(finding.error.file_name().unwrap_or_default())
                .found(format!("{n} more of {code}"));
            visit(Finding::damage(code, e).touching(finding.ranges));
        }
    }
}
