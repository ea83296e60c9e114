//! A file as its attributes, joined over all its records.
//!
//! Pieces of one attribute are those with the same type and name, in the order of their
//! lowest cluster; instance numbers say nothing across records.

use super::{
    attribute_list::{self, Entry},
    record::{Attribute, Form, Record, Reference, kind},
    runs::{self, RunList, Where},
    volume::{ROOT, Volume},
};
use disk_io::{DiskError, Result};
use std::collections::HashMap;

/// A file: its base record and, where it outgrew that, the list of the others.
#[derive(Debug)]
pub(crate) struct File<'v> {
    pub(crate) volume: &'v Volume,
    pub(crate) base: Record,
    /// The base record's attributes, looked through once: offset and type of each, and what
    /// ended the search.
    places: Vec<(usize, u32)>,
    end: Option<DiskError>,
    list: Option<Vec<Entry>>,
    /// Damage met while opening that did not stop it.
    pub(crate) damage: Option<DiskError>,
    deleted: bool,
}

/// One attribute, or one piece of one, or why it is not to be had.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) name: Vec<u8>,
    pub(crate) lowest: u64,
    holder: Result<(Record, usize)>,
}

impl Found {
    /// The attribute.
    pub(crate) fn attribute(&self) -> Result<Attribute<'_>> {
        match &self.holder {
            Ok((record, at)) => record.attribute_at(*at),
            Err(e) => Err(e.clone()),
        }
    }
}

/// The value of an attribute.
#[derive(Debug)]
pub(crate) enum Content {
    /// Kept in the record.
    Resident(Vec<u8>),
    /// Kept in clusters.
    Clusters(Clusters),
}

/// A value in clusters.
#[derive(Debug)]
pub(crate) struct Clusters {
    pub(crate) flags: u16,
    /// Exponent of the clusters in a compression unit; 0 if not compressed.
    pub(crate) unit: u8,
    pub(crate) size: u64,
    pub(crate) initialized: u64,
    pub(crate) runs: RunList,
}

impl Content {
    /// The value, if it is in clusters.
    pub(crate) fn into_runs(self) -> Option<Clusters> {
        match self {
            Self::Clusters(c) => Some(c),
            Self::Resident(_) => None,
        }
    }
}

impl<'v> File<'v> {
    /// Opens record `number` as a file. A `sequence` of 0 is not checked. `deleted` asks for
    /// a record that no file has any more.
    pub(crate) fn open(
        volume: &'v Volume,
        number: u64,
        sequence: u16,
        deleted: bool,
    ) -> Result<Self> {
        let base = volume.record(number)?;
        let doing = || format!("opening file record {number}");
        if base.in_use() == deleted {
            return Err(DiskError::corrupt(doing()).found(if deleted {
                "a record that a file has"
            } else {
                "a record that no file has: a stale reference"
            }));
        }
        if sequence != 0 && sequence != base.sequence() {
            return Err(DiskError::corrupt(doing())
                .expected(format!("sequence number {sequence}"))
                .found(format!(
                    "{}: a stale reference, the record went to another file",
                    base.sequence()
                )));
        }
        let Some(owner) = base.base() else {
            return Self::from_record(volume, base, deleted);
        };
        let e = DiskError::corrupt(doing())
            .expected("a record of its own")
            .found(format!("an extension of record {}", owner.record));
        // The root is nobody's extension, and neither is what belongs to a record that there is
        // not: then only that reference is damaged.
        if number != ROOT && owner.record < volume.record_count() {
            return Err(e);
        }
        let mut file = Self::from_record(volume, base, deleted)?;
        file.damage.get_or_insert(e);
        Ok(file)
    }

    /// The same from a base record that was read and checked already.
    pub(crate) fn from_record(volume: &'v Volume, base: Record, deleted: bool) -> Result<Self> {
        let mut places = Vec::with_capacity(8);
        let mut end = None;
        for item in base.attributes() {
            match item {
                Ok((at, a)) => places.push((at, a.kind)),
                Err(e) => end = Some(e),
            }
        }
        let mut file = Self {
            volume,
            base,
            places,
            end,
            list: None,
            damage: None,
            deleted,
        };
        file.damage = file.end.clone();
        if file.has(kind::ATTRIBUTE_LIST) {
            let (found, _) = file.find(kind::ATTRIBUTE_LIST, Some(&[]), true);
            let number = file.base.number;
            let what = || format!("the attribute list of record {number}");
            let value = join(volume, number, kind::ATTRIBUTE_LIST, &found)
                .and_then(|c| volume.small_value(c, attribute_list::MAX_LEN, &what));
            match value {
                Ok(bytes) => {
                    let (entries, end) = attribute_list::parse(&bytes);
                    file.list = Some(entries);
                    if let Err(e) = end {
                        file.damage = Some(e.context(what()));
                    }
                }
                // Without the list only the base record's own attributes are known.
                Err(e) => file.damage = Some(e.context(what())),
            }
        }
        Ok(file)
    }

    /// Whether the base record has an attribute of this type.
    fn has(&self, kind: u32) -> bool {
        self.places.iter().any(|(_, k)| *k == kind)
    }

    /// The attributes of a type without a name, where all of the file's are in its base
    /// record; `None` where there may be others.
    pub(crate) fn plain(&self, kind: u32) -> Option<impl Iterator<Item = Attribute<'_>>> {
        if self.list.is_some() || self.end.is_some() || self.damage.is_some() {
            return None;
        }
        let all = self.places.iter().filter(move |(_, k)| *k == kind);
        Some(
            all.filter_map(|(at, _)| self.base.attribute_at(*at).ok())
                .filter(|a| a.name.is_empty()),
        )
    }

    /// All attributes, or pieces, of a type, and of a name unless `None`, in the order of
    /// records; `first` leaves out continuations. The error is damage that may hide some.
    pub(crate) fn find(
        &self,
        kind: u32,
        name: Option<&[u8]>,
        first: bool,
    ) -> (Vec<Found>, Option<DiskError>) {
        let wanted = |k: u32, n: &[u8], lowest: u64| {
            k == kind && name.is_none_or(|name| name == n) && (!first || lowest == 0)
        };
        let mut found = Vec::new();
        let Some(list) = &self.list else {
            let base = &self.base;
            for (at, k) in self.places.iter().filter(|(_, k)| *k == kind) {
                if let Ok(a) = base.attribute_at(*at)
                    && wanted(*k, a.name, a.lowest())
                {
                    found.push(Found {
                        name: a.name.to_vec(),
                        lowest: a.lowest(),
                        holder: Ok((base.clone(), *at)),
                    });
                }
            }
            let damage = self.end.clone();
            return (found, damage.or_else(|| self.damage.clone()));
        };
        // By holder, in the order of first mention: a record is searched once.
        let mut holders: Vec<(Reference, Vec<&Entry>)> = Vec::new();
        let mut places: HashMap<Reference, usize> = HashMap::new();
        for entry in list.iter().filter(|e| wanted(e.kind, &e.name, e.lowest)) {
            let place = *places.entry(entry.holder).or_insert_with(|| {
                holders.push((entry.holder, Vec::new()));
                holders.len().saturating_sub(1)
            });
            if let Some((_, entries)) = holders.get_mut(place) {
                entries.push(entry);
            }
        }
        let mut damage = self.damage.clone();
        for (holder, entries) in holders {
            let before = found.len();
            let result = self.holder(holder).map(|record| {
                // Only what the list names: a record may keep remains.
                let named = |k: u32, n: &[u8], lowest: u64| {
                    wanted(k, n, lowest)
                        && entries.iter().any(|e| e.name == n && e.lowest == lowest)
                };
                damage = damage.take().or(collect(&record, &mut found, &named));
            });
            let error = match result {
                Ok(()) if found.len() > before => continue,
                Ok(()) => DiskError::corrupt(format!(
                    "finding an attribute of record {}",
                    self.base.number
                ))
                .expected(format!("type {kind:#x} in record {}", holder.record))
                .found("a record without it"),
                Err(e) => e,
            };
            found.extend(entries.iter().map(|entry| Found {
                name: entry.name.clone(),
                lowest: entry.lowest,
                holder: Err(error.clone()),
            }));
        }
        (found, damage)
    }

    /// Why something of it cannot be found: its list of attributes, or a record that the list
    /// names.
    pub(crate) fn lost_holder(&self) -> Option<DiskError> {
        let mut seen = None;
        let lost = || {
            for entry in self.list.iter().flatten() {
                // Entries of one record stand together.
                if seen.replace(entry.holder) != Some(entry.holder)
                    && let Err(e) = self.holder(entry.holder)
                {
                    return Some(e);
                }
            }
            None
        };
        self.damage.clone().or_else(lost)
    }

    /// A record that the attribute list names.
    fn holder(&self, reference: Reference) -> Result<Record> {
        if reference.record == self.base.number {
            return Ok(self.base.clone());
        }
        let record = self.volume.record(reference.record)?;
        let doing = || format!("reading extension record {}", reference.record);
        // When a file is deleted its records' sequence numbers move on.
        if !self.deleted && (record.sequence() != reference.sequence || !record.in_use()) {
            return Err(DiskError::corrupt(doing())
                .expected(format!("sequence number {}", reference.sequence))
                .found(format!(
                    "{}{}",
                    record.sequence(),
                    if record.in_use() { "" } else { ", not in use" }
                )));
        }
        match record.base() {
            Some(base) if base.record == self.base.number => Ok(record),
            other => Err(DiskError::corrupt(doing())
                .expected(format!("an extension of record {}", self.base.number))
                .found(other.map_or("a base record".into(), |b| {
                    format!("one of record {}", b.record)
                }))),
        }
    }

    /// The value of the attribute of this type and name, if there is one.
    pub(crate) fn content(&self, kind: u32, name: &[u8]) -> Result<Option<Content>> {
        let (found, damage) = self.find(kind, Some(name), false);
        if found.is_empty() {
            return damage.map_or(Ok(None), Err);
        }
        join(self.volume, self.base.number, kind, &found).map(Some)
    }

    /// The whole value of a small attribute.
    pub(crate) fn value(&self, kind: u32, name: &[u8], max: u64) -> Result<Option<Vec<u8>>> {
        let what = || format!("attribute {kind:#x} of record {}", self.base.number);
        self.content(kind, name)?
            .map(|c| self.volume.small_value(c, max, &what))
            .transpose()
    }
}

/// Collects the wanted attributes of one record; the error is what stopped the search.
fn collect(
    record: &Record,
    found: &mut Vec<Found>,
    wanted: &dyn Fn(u32, &[u8], u64) -> bool,
) -> Option<DiskError> {
    for item in record.attributes() {
        match item {
            Ok((at, a)) => {
                if wanted(a.kind, a.name, a.lowest()) {
                    found.push(Found {
                        name: a.name.to_vec(),
                        lowest: a.lowest(),
                        holder: Ok((record.clone(), at)),
                    });
                }
            }
            Err(e) => return Some(e),
        }
    }
    None
}

/// Joins the pieces of one attribute. What a missing piece would map becomes a lost range,
/// so that the rest of the stream can be read.
fn join(volume: &Volume, number: u64, kind: u32, found: &[Found]) -> Result<Content> {
    let doing = || format!("joining attribute {kind:#x} of record {number}");
    let mut order: Vec<&Found> = found.iter().collect();
    order.sort_by_key(|f| f.lowest);
    let Some(first) = order.first() else {
        return Err(DiskError::corrupt(doing()).found("no piece"));
    };
    if first.lowest != 0 {
        return Err(DiskError::corrupt(doing())
            .expected("a first piece")
            .found(format!("pieces from cluster {} on", first.lowest)));
    }
    let first = first.attribute()?;
    let header = match first.form {
        Form::Resident(bytes) => return Ok(Content::Resident(bytes.to_vec())),
        Form::NonResident(header) => header,
    };
    let mut list = RunList::default();
    let mut lost: Option<DiskError> = None;
    for piece in &order {
        let gap = piece.lowest.checked_sub(list.end()).ok_or_else(|| {
            DiskError::corrupt(doing()).found(format!("two pieces for cluster {}", piece.lowest))
        })?;
        if gap > 0 {
            let error = lost.take().unwrap_or_else(|| {
                DiskError::corrupt(doing()).found(format!("no piece for cluster {}", list.end()))
            });
            list.push_lost(gap, error)?;
        }
        let pairs = piece.attribute().and_then(|a| match a.form {
            Form::NonResident(n) => {
                let pairs = runs::decode(n.runs)?;
                let total = pairs
                    .iter()
                    .try_fold(piece.lowest, |at, p| at.checked_add(p.0));
                if total == Some(n.end) {
                    Ok(pairs)
                } else {
                    Err(DiskError::corrupt("decoding data runs")
                        .expected(format!("runs up to cluster {}", n.end))
                        .found(total.map_or("an overflow".into(), |t| format!("up to {t}"))))
                }
            }
            Form::Resident(_) => {
                Err(DiskError::corrupt("decoding data runs").found("a resident piece"))
            }
        });
        match pairs {
            Ok(pairs) => {
                for (clusters, lcn) in pairs {
                    list.push(clusters, lcn.map_or(Where::Hole, Where::At))?;
                }
            }
            Err(e) => lost = Some(e.context(doing())),
        }
    }
    let needed = header.size.div_ceil(volume.boot.cluster());
    let missing = needed.saturating_sub(list.end());
    if missing > 0 {
        let error = lost.take().unwrap_or_else(|| {
            DiskError::corrupt(doing())
                .expected(format!("runs for {needed} clusters"))
                .found(format!("runs for {}", list.end()))
        });
        list.push_lost(missing, error)?;
    }
    Ok(Content::Clusters(Clusters {
        flags: first.flags,
        unit: header.unit,
        size: header.size,
        initialized: header.initialized,
        runs: list,
    }))
}
