//! What a disk contains, against what it should.

use super::{
    Item, MOST,
    earlier::Earlier,
    effort::{Effort, Timed},
};
use crate::{check::Step, diff};
use convert::{
    Progress,
    backup::{DiskEntry, compare, digest_of, units::Units},
    digest::{DigestKind, Hash, UNIT, sha256_each},
    pipeline::is_cancelled,
};
use disk_io::{Disk, DiskError, ErrorKind, Result, zero::is_zero};
use proxy::{Source, SourceSpec};
use std::{
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// Units that are hashed side by side.
const AT_ONCE: usize = 16;

/// Against the digest of the manifest; with a sample, some MiB against their hashes. `None` if
/// the time was up first.
pub(super) fn digest(
    name: &str,
    source: &Arc<Source>,
    entry: &DiskEntry,
    dir: Option<&Path>,
    (effort, progress): (Effort, &dyn Progress),
    earlier: Option<&mut Earlier>,
) -> Result<Option<Item>> {
    let what = format!("contents of {name}");
    let Some(kind) = entry.digest.kind() else {
        let problem = DiskError::unsupported("comparing with the manifest")
            .found(format!("a digest of kind {}", entry.digest.kind));
        return Ok(Some(Item::new(what, Some(problem))));
    };
    // Which MiB differ; hashes that cannot be read are told as a file that is not as it should
    // be.
    let len = source.disk().len();
    let units = dir.zip(entry.units.as_ref()).and_then(|(dir, name)| {
        let units = Units::open(&dir.join(name), len);
        units.ok()
    });
    if let (true, Some(units)) = (effort.is_sample(), &units) {
        return sample(what, source, units, (effort, progress)).map(Some);
    }
    if let (Some(earlier), Some(units)) = (earlier, &units)
        && kind == DigestKind::Vmdkit
        && compare(&units.digest(len)?, &entry.digest, name).is_ok()
    {
        let how = (effort, progress);
        return in_pieces(what, (name, source), units, how, earlier);
    }
    let compared = Compared {
        inner: progress,
        units,
        differ: Mutex::default(),
    };
    let timed = Timed {
        inner: &compared,
        effort,
    };
    let problem = digest_of(source.disk(), kind, 0, &timed)
        .and_then(|found| compare(&found, &entry.digest, name));
    match problem {
        Err(e) if is_cancelled(&e) && effort.is_over() => Ok(None),
        Err(e) if e.kind() == ErrorKind::Io => Err(e),
        other => Item::new(what, other.err())
            .place(source, compared.ranges(len))
            .map(Some),
    }
}

/// Some of the units against their hashes.
fn sample(
    what: String,
    source: &Arc<Source>,
    units: &Units,
    (effort, progress): (Effort, &dyn Progress),
) -> Result<Item> {
    let len = source.disk().len();
    let chosen: Vec<u64> = (0..units.count())
        .filter(|unit| effort.takes(&unit.to_le_bytes()))
        .collect();
    let mut differ = Vec::new();
    for some in chosen.chunks(AT_ONCE) {
        if progress.cancelled() || effort.is_over() {
            break;
        }
        match some_units(source.disk(), units, some, progress) {
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => return Ok(Item::new(what, Some(e))),
            Ok(other) => differ.extend(other),
        }
    }
    let problem = differ.first().map(|first| differs(source, *first));
    Item::new(what, problem).place(source, unit_ranges(differ, len))
}

/// Every unit against its hash, from where an earlier run ended; `None` if the time was up. Unlike
/// the digest of the whole, what was done counts.
fn in_pieces(
    what: String,
    (name, source): (&str, &Arc<Source>),
    units: &Units,
    (effort, progress): (Effort, &dyn Progress),
    earlier: &mut Earlier,
) -> Result<Option<Item>> {
    let (disk, len) = (source.disk(), source.disk().len());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut next = earlier.units_of(name).min(units.count());
    let mut differ: Vec<u64> = Vec::new();
    while next < units.count() {
        if progress.cancelled() || effort.is_over() {
            // What was found to be bad is told.
            if differ.is_empty() {
                return Ok(None);
            }
            break;
        }
        let wave: Vec<u64> = (next..units.count()).take(AT_ONCE * workers).collect();
        let found: Vec<Result<Vec<u64>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = wave
                .chunks(AT_ONCE)
                .map(|some| scope.spawn(|| some_units(disk, units, some, progress)))
                .collect();
            let ends = threads.into_iter().map(|t| {
                let lost = || DiskError::new(ErrorKind::Io, "reading in a thread").found("a fault");
                t.join().unwrap_or_else(|_| Err(lost()))
            });
            ends.collect()
        });
        for other in found {
            match other {
                Err(e) if e.kind() == ErrorKind::Io => return Err(e),
                Err(e) => return Ok(Some(Item::new(what, Some(e)))),
                Ok(other) => differ.extend(other),
            }
        }
        next = next.saturating_add(wave.len() as u64);
        // What is bad is found again by the next run.
        if differ.is_empty() {
            earlier.units_are_good(name, next)?;
        }
    }
    let problem = differ.first().map(|first| differs(source, *first));
    let item = Item::new(what, problem).place(source, unit_ranges(differ, len))?;
    Ok(Some(item))
}

/// Which of some units have another hash.
fn some_units(
    disk: &Arc<dyn Disk>,
    units: &Units,
    some: &[u64],
    progress: &dyn Progress,
) -> Result<Vec<u64>> {
    let len = disk.len();
    let mut all = Vec::new();
    for unit in some {
        let start = unit.saturating_mul(UNIT);
        let size = usize::try_from(UNIT.min(len.saturating_sub(start))).unwrap_or(0);
        let mut bytes = vec![0; size];
        disk.read_exact_at(&mut bytes, start)?;
        all.push(bytes);
        progress.advance(size as u64);
    }
    let parts: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    let mut differ = Vec::new();
    for ((unit, bytes), hash) in some.iter().zip(&all).zip(sha256_each(&parts)) {
        let found = (!is_zero(bytes)).then_some(hash);
        if units.get(*unit)? != found {
            differ.push(*unit);
        }
    }
    Ok(differ)
}

fn differs(source: &Source, unit: u64) -> DiskError {
    DiskError::corrupt("comparing with the manifest")
        .code("digest-differs")
        .file(source.path().display())
        .offset(unit.saturating_mul(UNIT))
        .expected("the SHA-256 that this MiB had")
        .found("another one")
}

/// Units, ascending, as ranges.
fn unit_ranges(units: Vec<u64>, len: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for unit in units {
        let start = unit.saturating_mul(UNIT);
        let end = start.saturating_add(UNIT).min(len);
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}

/// Compares the hash of every unit on the way.
struct Compared<'a> {
    inner: &'a dyn Progress,
    units: Option<Units>,
    differ: Mutex<Vec<u64>>,
}

impl Compared<'_> {
    fn ranges(self, len: u64) -> Vec<Range<u64>> {
        let mut units = self
            .differ
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        units.sort_unstable();
        unit_ranges(units, len)
    }
}

impl Progress for Compared<'_> {
    fn advance(&self, bytes: u64) {
        self.inner.advance(bytes);
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }

    fn hashed(&self, unit: u64, hash: Option<&Hash>) {
        let Some(units) = &self.units else { return };
        if units.get(unit).is_ok_and(|kept| kept.as_ref() != hash) {
            let mut differ = self.differ.lock().unwrap_or_else(PoisonError::into_inner);
            if differ.len() < MOST {
                differ.push(unit);
            }
        }
    }
}

/// Disks of the other machine that are not among `ours`, by their places; and what no backup of
/// files has.
pub(super) fn only_there(ours: &[&str], other: &SourceSpec) -> Result<(Vec<Item>, Vec<String>)> {
    let (mut items, mut remarks) = (Vec::new(), Vec::new());
    if ours.is_empty() || other.disk.is_some() {
        return Ok((items, remarks));
    }
    let Some(machines) = other.machines()? else {
        return Ok((items, remarks));
    };
    let (machine, date_used) = machines.only(other.snapshot.as_deref())?;
    let wanted = other.snapshot.as_deref().filter(|_| !date_used);
    for disk in &machine.point(wanted)?.disks {
        let place = disk.slot.to_string();
        if ours.contains(&place.as_str()) {
            continue;
        }
        let of = other.path.display();
        if machine.raw_device(disk).is_some() {
            remarks.push(format!(
                "{place} of {of}: its data is on a LUN, and not compared"
            ));
            continue;
        }
        let problem = DiskError::not_found("comparing the disks of two machines")
            .code("disk-missing")
            .file(&of)
            .expected(format!("{place} in the backup, as there ({})", disk.file))
            .found("no such disk");
        items.push(Item::new(format!("{place} against {of}"), Some(problem)));
    }
    Ok((items, remarks))
}

/// Against another disk: every place where they differ, or only the first.
pub(super) fn against(
    name: &str,
    source: &Arc<Source>,
    (spec, other): (&SourceSpec, &SourceSpec),
    first: bool,
    step: &mut dyn FnMut(Step<'_>),
) -> Result<Item> {
    // The same place of the other machine; a disk is a disk.
    let other = match other.machines()? {
        Some(_) => SourceSpec {
            disk: other.disk.clone().or_else(|| spec.disk.clone()),
            ..other.clone()
        },
        None => other.clone(),
    };
    let opened = Source::open(&other)?;
    let of = source.disk().len();
    let what = format!("{name} against {}", other.path.display());
    let found = diff::blocks(source, &opened, first, &mut |done| {
        step(Step {
            file: name,
            done,
            of,
        });
    });
    let mut found = match found {
        Err(e) if e.kind() == ErrorKind::Io => return Err(e),
        Err(e) => return Ok(Item::new(what, Some(e))),
        Ok(found) => found,
    };
    if first {
        found.ranges.truncate(1);
    }
    let problem = diff::problem(source, &opened, &found);
    Item::new(what, problem).place(source, found.ranges)
}
