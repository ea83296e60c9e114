//! What directories and files say of names: each name of a file must be in its directory, and
//! each entry of a directory must be a name of its file.
//!
//! A volume has millions of names, so they are first only added up: for each directory, what its
//! index has is added and what files say is taken away. Where nothing is left they agree. Only
//! the directories where something is left are gone through name by name.

use super::{
    super::{
        by_parent::names_of,
        file::File,
        index::{Directory, Entry},
        record::{Record, Reference},
        upcase::UpCase,
        volume::Volume,
    },
    because,
};
use crate::told::{EACH, Told};
use disk_io::{DiskError, ErrorKind, Finding, Result, Severity, finding::Visit};
use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    ops::ControlFlow,
};

/// Entries of directories that are held at once, when they are gone through one by one.
const MOST: usize = 1 << 21;

/// What is left of each directory's names.
pub(super) struct Names<'v> {
    volume: &'v Volume,
    /// Without it nothing can be said about order.
    upcase: Option<UpCase>,
    left: HashMap<u64, u64>,
    /// Names that files count and do not have: a file whose names are in several records is added
    /// up, the others are not kept unless they differ.
    links: HashMap<u64, i64>,
    told: Told,
}

/// A name as a number: what it is called, in which directory, of which file.
fn number(parent: Reference, child: Reference, units: &[u16]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (parent, child, units).hash(&mut hasher);
    hasher.finish()
}

fn shown(units: &[u16]) -> String {
    String::from_utf16_lossy(units)
}

impl<'v> Names<'v> {
    pub(super) fn new(volume: &'v Volume) -> Self {
        Self {
            volume,
            upcase: UpCase::read(volume).ok(),
            left: HashMap::new(),
            links: HashMap::new(),
            told: Told::default(),
        }
    }

    fn add(&mut self, directory: u64, number: u64, sign: bool) {
        let left = self.left.entry(directory).or_insert(0);
        *left = match sign {
            true => left.wrapping_add(number),
            false => left.wrapping_sub(number),
        };
    }

    fn tell(&mut self, finding: Finding, visit: Visit<'_>) {
        self.told.tell(finding, visit);
    }

    /// Takes a record in use: its names, and its index where it is a directory.
    pub(super) fn record(&mut self, record: &Record, visit: Visit<'_>) -> Result<()> {
        let (owner, names) = names_of(record);
        let has = i64::try_from(names.len()).unwrap_or(i64::MAX);
        let counts = match record.base() {
            None => i64::from(record.links()),
            Some(_) => 0,
        };
        if counts != has {
            let left = self.links.entry(owner.record).or_default();
            *left = left.saturating_add(counts).saturating_sub(has);
        }
        for name in names {
            let number = number(name.parent, owner, &name.units);
            self.add(name.parent.record, number, false);
        }
        if !record.is_directory() || record.base().is_some() {
            return Ok(());
        }
        let directory = File::from_record(self.volume, record.clone(), false)
            .and_then(|file| Directory::open(&file));
        let directory = match directory {
            Ok(directory) => directory,
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => {
                self.tell(damaged(e, record.number), visit);
                return Ok(());
            }
        };
        let own = Reference {
            record: record.number,
            sequence: record.sequence(),
        };
        let mut sum = 0u64;
        let mut damages: Vec<DiskError> = Vec::new();
        let mut before: Option<Box<[u16]>> = None;
        let mut unsorted: Option<(String, String)> = None;
        let upcase = self.upcase.as_ref();
        directory.walk(self.volume, &mut |entry| {
            let (name, target) = match entry {
                Ok(Entry {
                    key: Some(key),
                    target,
                    ..
                }) => (&key.units, *target),
                Ok(_) => return ControlFlow::Continue(()),
                Err(e) => {
                    damages.push(e);
                    // What comes behind it may be in no order.
                    before = None;
                    return ControlFlow::Continue(());
                }
            };
            sum = sum.wrapping_add(number(own, target, name));
            if let (Some(upcase), Some(before), true) = (upcase, &before, damages.is_empty())
                && upcase.compare(before, name) == Ordering::Greater
            {
                unsorted.get_or_insert_with(|| (shown(before), shown(name)));
            }
            before = Some(name.clone());
            ControlFlow::Continue(())
        });
        self.add(record.number, sum, true);
        for e in damages {
            if e.kind() == ErrorKind::Io {
                return Err(e);
            }
            self.tell(damaged(e, record.number), visit);
        }
        if let Some((before, name)) = unsorted {
            let e = DiskError::corrupt(format!("reading directory {}", record.number))
                .expected("names in order")
                .found(format!("{before:?} before {name:?}"));
            let finding = Finding::warning("ntfs-index-unsorted", e).about(record.number);
            self.tell(finding, visit);
        }
        Ok(())
    }

    /// Files that count other names than they have: a name that is deleted too much takes the
    /// file with it.
    fn tell_links(&mut self, open: Option<&str>, visit: Visit<'_>) {
        let links = std::mem::take(&mut self.links).into_iter();
        let mut odd: Vec<(u64, i64)> = links.filter(|(_, left)| *left != 0).collect();
        odd.sort_unstable();
        for (record, left) in odd {
            let e = DiskError::corrupt(format!("counting the names of record {record}"))
                .expected("as many as it counts")
                .found(match left > 0 {
                    true => format!("{left} less{}", because(open)),
                    false => format!("{} more{}", left.saturating_neg(), because(open)),
                });
            let finding = Finding::warning("ntfs-links-wrong", e);
            self.tell(finding.about(record), visit);
        }
    }

    /// Goes through the directories whose names do not add up.
    pub(super) fn finish(mut self, open: Option<&str>, visit: Visit<'_>) -> Result<()> {
        self.tell_links(open, visit);
        let left = std::mem::take(&mut self.left);
        let odd: HashSet<u64> = left.into_iter().filter(|l| l.1 != 0).map(|l| l.0).collect();
        if odd.is_empty() {
            self.told.finish(visit);
            return Ok(());
        }
        // A journal that was not played back mends this when the guest starts.
        let stray_is = match open {
            Some(_) => Severity::Warning,
            None => Severity::Damage,
        };
        let mut numbers: Vec<u64> = odd.iter().copied().collect();
        numbers.sort_unstable();
        let mut entries: HashMap<u64, (u64, Box<[u16]>, Reference)> = HashMap::new();
        let mut cut = false;
        for directory in numbers {
            let Ok(record) = self.volume.record(directory) else {
                continue;
            };
            if !record.in_use() || record.base().is_some() || !record.is_directory() {
                continue;
            }
            let own = Reference {
                record: directory,
                sequence: record.sequence(),
            };
            let opened = File::from_record(self.volume, record, false)
                .and_then(|file| Directory::open(&file));
            let Ok(opened) = opened else { continue };
            opened.walk(self.volume, &mut |entry| {
                if let Ok(Entry {
                    key: Some(key),
                    target,
                    ..
                }) = entry
                {
                    if entries.len() >= MOST {
                        cut = true;
                        return ControlFlow::Break(());
                    }
                    let one = (directory, key.units.clone(), *target);
                    entries.insert(number(own, *target, &key.units), one);
                }
                ControlFlow::Continue(())
            });
        }
        if cut {
            let e = DiskError::corrupt("holding directories against files")
                .expected("the same names")
                .found(format!(
                    "others in directories of more than {MOST} entries{}",
                    because(open)
                ));
            self.tell(Finding::warning("ntfs-name-lost", e), visit);
            self.told.finish(visit);
            return Ok(());
        }
        self.tell_lost(&odd, &mut entries, open, visit)?;
        let mut stray: Vec<_> = entries.into_values().collect();
        stray.sort_by(|a, b| (a.0, &a.1, a.2.record).cmp(&(b.0, &b.1, b.2.record)));
        for (directory, units, target) in stray {
            let e = DiskError::corrupt(format!("reading directory {directory}"))
                .expected("entries that are names of files")
                .found(format!(
                    "{:?} for record {}, {}{}",
                    shown(&units),
                    target.record,
                    why_stray(self.volume, target),
                    because(open)
                ));
            let finding = Finding::new("ntfs-index-entry-stray", stray_is, e);
            self.tell(finding.about(directory), visit);
        }
        self.told.finish(visit);
        Ok(())
    }
}

/// Names that one directory does not have.
struct Lost {
    count: u64,
    first: String,
    records: Vec<u64>,
}

impl Names<'_> {
    /// Tells of names of files that are not in `entries`, and takes away those that are: one
    /// finding for each directory, since a lost block of an index loses many.
    fn tell_lost(
        &mut self,
        odd: &HashSet<u64>,
        entries: &mut HashMap<u64, (u64, Box<[u16]>, Reference)>,
        open: Option<&str>,
        visit: Visit<'_>,
    ) -> Result<()> {
        let mut lost: HashMap<Reference, Lost> = HashMap::new();
        self.volume.visit_in_use(&mut |_, record| {
            let Ok(record) = record else { return Ok(()) };
            let (owner, names) = names_of(record);
            for name in names.iter().filter(|n| odd.contains(&n.parent.record)) {
                let number = number(name.parent, owner, &name.units);
                if entries.remove(&number).is_some() {
                    continue;
                }
                let one = lost.entry(name.parent).or_insert_with(|| Lost {
                    count: 0,
                    first: format!("{:?} of record {}", shown(&name.units), owner.record),
                    records: Vec::new(),
                });
                one.count = one.count.saturating_add(1);
                if one.records.len() < EACH && one.records.last() != Some(&owner.record) {
                    one.records.push(owner.record);
                }
            }
            Ok(())
        })?;
        let mut lost: Vec<_> = lost.into_iter().collect();
        lost.sort_by_key(|(parent, _)| (parent.record, parent.sequence));
        for (parent, one) in lost {
            let e = DiskError::corrupt("holding directories against files")
                .expected(format!("{} in directory {}", one.first, parent.record))
                .found(format!(
                    "{}{}{}",
                    why_not(self.volume, parent),
                    match one.count {
                        1 => String::new(),
                        n => format!(", nor {} others", n.saturating_sub(1)),
                    },
                    because(open)
                ));
            let mut finding = Finding::warning("ntfs-name-lost", e);
            finding.nodes = one.records;
            self.tell(finding, visit);
        }
        Ok(())
    }
}

fn damaged(e: DiskError, directory: u64) -> Finding {
    Finding::damage("ntfs-index-damaged", e).about(directory)
}

/// Why a directory does not have a name that says to be in it.
fn why_not(volume: &Volume, parent: Reference) -> String {
    match volume.record(parent.record) {
        Err(e) => format!("a directory that cannot be read: {e}"),
        Ok(record) if !record.in_use() || record.sequence() != parent.sequence => {
            "no such directory".into()
        }
        Ok(record) if !record.is_directory() => "a file there".into(),
        Ok(_) => "a directory without it".into(),
    }
}

/// Why an entry is no name of the file it leads to.
fn why_stray(volume: &Volume, target: Reference) -> String {
    match volume.record(target.record) {
        Err(e) => format!("which cannot be read: {e}"),
        Ok(record) if !record.in_use() => "which no file has".into(),
        Ok(record) if record.sequence() != target.sequence => "which another file has".into(),
        Ok(_) => "which has no such name there".into(),
    }
}
