//! Which files say to be in which directory: a file's records have its names too, each with the
//! directory that it is in. Where a directory's index is damaged they are what is left of the
//! entries in the part that is lost.
//!
//! The table is made by one pass over the $MFT, when the first damage is met, and kept: names as
//! numbers only, so that it stays small. What it leads to is always held against the record.

use super::{
    file::File,
    index::{Directory, Entry, FileName, namespace},
    node::file_names,
    record::{Form, Record, Reference, kind},
    upcase::UpCase,
    volume::{Ntfs, ROOT, Volume},
};
use crate::{DirEntry, Name, NodeKind, Visit};
use disk_io::{DiskError, ErrorKind, Fields, Result};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::ControlFlow,
};

/// Names that are held at once: some five million, in 64 MiB.
const MOST: usize = (64 << 20) / size_of::<Row>();

/// Records that are looked at for one name. Sound ones are one, or a few that differ by case.
const MOST_TRIED: usize = 256;

/// A name of a file. NTFS has no record numbers of more than 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    parent: u32,
    /// The name in upper case, as a number.
    name: u32,
    record: u32,
}

/// Every name on the volume, by its directory.
#[derive(Debug, Default)]
pub(crate) struct ByParent {
    rows: Vec<Row>,
    /// Why some are not in it. Records that are damaged are told where files are read.
    told: Vec<DiskError>,
}

/// Who says to have a name in a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// One that spells it so.
    pub(crate) exact: Option<Reference>,
    /// Others spell it so too.
    pub(crate) several: bool,
    /// One that spells it in another case of letters.
    pub(crate) folded: Option<Reference>,
}

/// The names that a record has, and whose they are; what cannot be read of it is left out.
pub(crate) fn names_of(record: &Record) -> (Reference, Vec<FileName>) {
    let own = Reference {
        record: record.number,
        sequence: record.sequence(),
    };
    let names = record
        .attributes()
        .flatten()
        .filter_map(|(_, a)| match a.form {
            Form::Resident(value) if a.kind == kind::FILE_NAME => {
                FileName::parse(&Fields::new(value, 0, "file name")).ok()
            }
            _ => None,
        });
    (record.base().unwrap_or(own), names.collect())
}

/// A name as a number, the same in every case of letters.
fn folded(upcase: &UpCase, units: &[u16]) -> u32 {
    let mut hasher = DefaultHasher::new();
    for unit in units {
        upcase.fold(*unit).hash(&mut hasher);
    }
    hasher.finish() as u32
}

/// A name as a number, as it is spelt.
fn spelt(units: &[u16]) -> u64 {
    let mut hasher = DefaultHasher::new();
    units.hash(&mut hasher);
    hasher.finish()
}

impl ByParent {
    fn read(volume: &Volume, most: usize) -> Self {
        let upcase = volume.upcase();
        let mut table = Self::default();
        let mut failed = None;
        let doing = "looking for the names of a damaged directory in all file records";
        let passed = volume.visit_in_use(&mut |_, record| {
            let record = match record {
                Ok(record) => record,
                Err(e) => {
                    if e.kind() == ErrorKind::Io {
                        failed.get_or_insert(e.context(doing));
                    }
                    return Ok(());
                }
            };
            let (owner, names) = names_of(record);
            for name in names {
                let numbers = [name.parent.record, owner.record].map(u32::try_from);
                let [Ok(parent), Ok(record)] = numbers else {
                    continue;
                };
                if table.rows.len() >= most {
                    return Err(DiskError::refused(doing)
                        .expected(format!("at most {most} names on the volume"))
                        .found("more: those that come behind are not looked for"));
                }
                table.rows.push(Row {
                    parent,
                    name: folded(upcase, &name.units),
                    record,
                });
            }
            Ok(())
        });
        table.rows.sort_unstable();
        table.rows.dedup();
        table.rows.shrink_to_fit();
        table.told.extend(failed.into_iter().chain(passed.err()));
        table
    }

    fn of(&self, parent: u64) -> &[Row] {
        let Ok(parent) = u32::try_from(parent) else {
            return &[];
        };
        let begin = self.rows.partition_point(|r| r.parent < parent);
        let end = self.rows.partition_point(|r| r.parent <= parent);
        self.rows.get(begin..end).unwrap_or_default()
    }

    /// The records that say to be in a directory, in order.
    fn children(&self, parent: u64) -> Vec<u64> {
        let mut all: Vec<u64> = self.of(parent).iter().map(|r| r.record.into()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Those of them that may have a name.
    fn perhaps(&self, parent: u64, name: u32) -> impl Iterator<Item = u64> {
        let all = self.of(parent);
        let begin = all.partition_point(|r| r.name < name);
        let from = all.get(begin..).unwrap_or_default().iter();
        from.take_while(move |r| r.name == name)
            .map(|r| r.record.into())
    }
}

/// A file in use that says to be in a directory, with the names that it has there.
fn file_in<'v>(
    volume: &'v Volume,
    own: Reference,
    number: u64,
) -> Result<(File<'v>, Vec<FileName>)> {
    let file = File::open(volume, number, 0, false)?;
    let (mut names, damage) = file_names(&file);
    names.retain(|n| n.parent == own);
    match damage {
        Some(e) if e.kind() == ErrorKind::Io => Err(e),
        _ => Ok((file, names)),
    }
}

impl Volume {
    fn by_parent(&self) -> &ByParent {
        self.by_parent.get_or_init(|| ByParent::read(self, MOST))
    }

    /// Who says to have this name in a directory; 8.3 names come last.
    pub(crate) fn named_by_records(&self, own: Reference, name: &[u16]) -> Named {
        let upcase = self.upcase();
        let mut named = Named::default();
        let mut short = None;
        let all = self
            .by_parent()
            .perhaps(own.record, folded(upcase, name))
            .filter(|number| may_be_in(*number, own));
        for (tried, number) in all.enumerate() {
            if tried >= MOST_TRIED {
                // Names made so that their numbers are the same: what is known decides nothing.
                named.several = true;
                break;
            }
            let Ok((file, names)) = file_in(self, own, number) else {
                continue;
            };
            let target = Reference {
                record: number,
                sequence: file.base.sequence(),
            };
            for one in names {
                if *one.units == *name {
                    named.several |= named.exact.is_some_and(|first| first != target);
                    named.exact.get_or_insert(target);
                } else if upcase.compare(&one.units, name).is_eq() {
                    let place = match one.namespace {
                        namespace::DOS => &mut short,
                        _ => &mut named.folded,
                    };
                    place.get_or_insert(target);
                }
            }
            // Enough to know that the records do not decide; where very many have the name each
            // lookup would go through them all.
            if named.several {
                break;
            }
        }
        named.folded = named.folded.or(short);
        named
    }

    /// The same, where the table was made already.
    pub(crate) fn named_so_far(&self, own: Reference, name: &[u16]) -> Option<Named> {
        self.by_parent.get()?;
        Some(self.named_by_records(own, name))
    }
}

/// No directory is in itself, whatever its record says, and the root is in none.
fn may_be_in(number: u64, own: Reference) -> bool {
    number != own.record && number != ROOT
}

/// What is left of a directory's index: which record, in which use of it, under which name. In
/// order.
struct Seen(Vec<(u64, u16, u64)>);

impl Seen {
    fn of(volume: &Volume, directory: Option<&Directory>) -> Self {
        let mut all = Vec::new();
        if let Some(directory) = directory {
            directory.walk(volume, &mut |entry| {
                if let Ok(Entry {
                    key: Some(key),
                    target,
                    ..
                }) = entry
                    && key.namespace != namespace::DOS
                {
                    all.push((target.record, target.sequence, spelt(&key.units)));
                }
                ControlFlow::Continue(())
            });
        }
        all.sort_unstable();
        all.dedup();
        Self(all)
    }

    /// The names that the index does not have. One that it spells otherwise is not lost: only as
    /// many are as there are more of.
    fn lost(&self, own: Reference, names: Vec<FileName>) -> impl Iterator<Item = FileName> {
        let begin = self.0.partition_point(|s| s.0 < own.record);
        let from = self.0.get(begin..).unwrap_or_default().iter();
        let here: Vec<u64> = from
            .take_while(|s| s.0 == own.record)
            .filter(|s| s.1 == own.sequence || s.1 == 0)
            .map(|s| s.2)
            .collect();
        let more = names.len().saturating_sub(here.len());
        names
            .into_iter()
            .filter(move |n| !here.contains(&spelt(&n.units)))
            .take(more)
    }
}

impl Ntfs {
    /// Visits what a directory's damaged index has not and records say to be in it.
    pub(crate) fn list_by_records(
        &self,
        own: Reference,
        directory: Option<&Directory>,
        shown: &dyn Fn(u64, &FileName) -> bool,
        visit: Visit<'_>,
    ) -> ControlFlow<()> {
        let volume = &self.volume;
        let table = volume.by_parent();
        for e in &table.told {
            visit(Err(e.clone()))?;
        }
        let seen = Seen::of(volume, directory);
        let children = table.children(own.record).into_iter();
        for number in children.filter(|number| may_be_in(*number, own)) {
            let (file, names) = match file_in(volume, own, number) {
                Ok(found) => found,
                Err(e) if e.kind() == ErrorKind::Io => {
                    visit(Err(e))?;
                    continue;
                }
                Err(_) => continue,
            };
            let (short, names): (Vec<_>, Vec<_>) = names
                .into_iter()
                .partition(|n| n.namespace == namespace::DOS);
            let node = Reference {
                record: number,
                sequence: file.base.sequence(),
            };
            let mut kind = None;
            for name in seen.lost(node, names).filter(|name| shown(number, name)) {
                let spelt = |n: &FileName| Name::from_utf16(n.units.iter().copied());
                // What the name says of attributes is seldom kept up to date in records.
                let kind = *kind.get_or_insert_with(|| match self.facts(&file) {
                    Ok(facts) => facts.metadata.kind,
                    Err(_) if file.base.is_directory() => NodeKind::Directory,
                    Err(_) => NodeKind::File,
                });
                visit(Ok(DirEntry {
                    name: spelt(&name),
                    node: node.into(),
                    kind,
                    short_name: match name.namespace {
                        namespace::WIN32 => short.first().map(spelt),
                        _ => None,
                    },
                }))?;
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests;
