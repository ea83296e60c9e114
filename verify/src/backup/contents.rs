//! What a disk contains, against what it should.

use super::{
    Item, MOST,
    effort::{Effort, Timed},
};
use crate::{check::Step, diff};
use convert::{
    Progress,
    backup::{DiskEntry, compare, digest_of, units::Units},
    digest::{Hash, UNIT, sha256_each},
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
        let mut all = Vec::new();
        for unit in some {
            let start = unit.saturating_mul(UNIT);
            let size = usize::try_from(UNIT.min(len.saturating_sub(start))).unwrap_or(0);
            let mut bytes = vec![0; size];
            match source.disk().read_exact_at(&mut bytes, start) {
                Err(e) if e.kind() == ErrorKind::Io => return Err(e),
                Err(e) => return Ok(Item::new(what, Some(e))),
                Ok(()) => all.push(bytes),
            }
            progress.advance(size as u64);
        }
        let parts: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
        let hashes = sha256_each(&parts);
        for ((unit, bytes), hash) in some.iter().zip(&all).zip(hashes) {
            let found = (!is_zero(bytes)).then_some(hash);
            if units.get(*unit)? != found {
                differ.push(*unit);
            }
        }
    }
    let problem = differ.first().map(|first| {
        DiskError::corrupt("comparing with the manifest")
            .code("digest-differs")
            .file(source.path().display())
            .offset(first.saturating_mul(UNIT))
            .expected("the SHA-256 that this MiB had")
            .found("another one")
    });
    Item::new(what, problem).place(source, unit_ranges(differ, len))
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
