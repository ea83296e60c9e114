//! A directory as entry sets, and the entries that only the root directory has.

use super::{
    set::{self, Set},
    upcase::UpCase,
};
use crate::{
    DirEntry, Name, NodeId, Visit,
    fat::{chain::Chain, contents::Area, names},
};
use disk_io::{Disk, DiskError, ErrorKind, Fields, Result};
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

/// The allocation bitmap or the up-case table.
#[derive(Clone, Copy, Debug)]
pub struct Special {
    /// First cluster.
    pub first_cluster: u32,
    /// Length in bytes.
    pub len: u64,
    /// Checksum (up-case table only).
    pub checksum: u32,
    /// Flags (bitmap only): bit 0 says whose table's it is.
    pub flags: u8,
}

/// A directory in memory.
#[derive(Debug, Default)]
pub struct Dir {
    /// Its files and directories.
    pub sets: Vec<Arc<Set>>,
    /// The volume label.
    pub label: Option<Name>,
    /// The up-case table.
    pub upcase: Option<Special>,
    bitmaps: Vec<Special>,
    errors: Vec<(usize, DiskError)>,
    index: OnceLock<Index>,
}

/// How far behind its end a directory is looked at.
const BEHIND: u64 = 1 << 20;

/// The most that a set can have, in bytes.
const RUN: usize = 256 * 32;

/// More complaints than these about one directory say nothing new.
const ERRORS: usize = 1000;

/// What is remembered from entry to entry.
#[derive(Debug, Default)]
struct Reader {
    is_root: bool,
    /// The entries of a set so far, and where it begins.
    open: Option<(Vec<u8>, u64)>,
    /// Entries that belong to no set.
    run: Option<(Vec<u8>, u64)>,
    /// Secondary entries that come are the rest of a set that was told.
    rest: bool,
    /// The end was met.
    ended: bool,
    /// Bytes read behind it.
    behind: u64,
    /// That something is there was said.
    told: bool,
}

#[derive(Debug, Default)]
struct Index {
    exact: HashMap<Name, u64>,
    folded: HashMap<Vec<u16>, u64>,
}

impl Dir {
    /// Whether some of it is missing because the device failed: asked again, it may be there.
    pub(super) fn device_failed(&self) -> bool {
        self.errors.iter().any(|(_, e)| e.kind() == ErrorKind::Io)
    }

    /// Reads the directory in `chain`; only the root has special entries.
    pub fn read(area: &Area, chain: &Chain, is_root: bool) -> Result<Self> {
        let mut dir = Self::default();
        let mut reader = Reader {
            is_root,
            ..Reader::default()
        };
        let mut bytes = vec![0; usize::try_from(area.cluster).unwrap_or(0)];
        'clusters: for cluster in chain.iter() {
            let Some(at) = area.position(cluster) else {
                break;
            };
            // Clusters have up to 32 MiB, of which a directory may use a sector.
            let mut done = 0u64;
            while done < area.cluster {
                if reader.behind >= BEHIND {
                    break 'clusters;
                }
                let n = area.cluster.saturating_sub(done).min(64 << 10);
                let from = at.saturating_add(done);
                done = done.saturating_add(n);
                let Some(block) = usize::try_from(n).ok().and_then(|n| bytes.get_mut(..n)) else {
                    break 'clusters;
                };
                if reader.ended {
                    reader.behind = reader.behind.saturating_add(n);
                }
                if let Err(e) = area.disk.read_exact_at(block, from) {
                    dir.close_run(&mut reader);
                    reader.open = None;
                    // Behind the end nothing is missed.
                    if !reader.ended {
                        dir.lost(e.offset(from));
                    }
                    continue;
                }
                for (raw, position) in block.chunks_exact(32).zip((from..).step_by(32)) {
                    match reader.ended {
                        true => dir.behind(raw, position, &mut reader),
                        false => dir.entry(raw, position, &mut reader),
                    }
                }
            }
        }
        if !reader.ended {
            dir.close(reader.open.take());
            dir.close_run(&mut reader);
        }
        if let Some(e) = chain.broken().filter(|_| !reader.ended) {
            if chain.clusters() == 0 {
                return Err(e.clone().context("listing a directory"));
            }
            dir.lost(e.clone());
        }
        Ok(dir)
    }

    /// Says before everything else that what follows may not be all.
    pub fn distrust(&mut self, e: DiskError) {
        self.errors.insert(0, (0, e.context("listing a directory")));
    }

    fn lost(&mut self, e: DiskError) {
        let at = self.sets.len();
        self.errors.push((at, e.context("listing a directory")));
    }

    /// Takes one entry.
    fn entry(&mut self, raw: &[u8], position: u64, reader: &mut Reader) {
        let kind = raw.first().copied().unwrap_or_default();
        let secondary = kind & 0xc0 == 0xc0;
        if let Some((bytes, _)) = &mut reader.open {
            if secondary {
                bytes.extend_from_slice(raw);
                if bytes.len() >= set::len(bytes) {
                    self.close(reader.open.take());
                }
                return;
            }
            // The set ends before it should. What is left of it is told with it.
            self.close(reader.open.take());
            reader.rest = true;
        }
        if secondary {
            match &mut reader.run {
                Some((bytes, _)) if bytes.len() < RUN => bytes.extend_from_slice(raw),
                Some(_) => {}
                None if reader.rest || !set::is_of_file(kind) => {}
                None => reader.run = Some((raw.to_vec(), position)),
            }
            return;
        }
        self.close_run(reader);
        reader.rest &= kind & 0x80 == 0;
        match kind {
            0 => reader.ended = true,
            set::FILE => {
                if set::len(raw) > 32 {
                    reader.open = Some((raw.to_vec(), position));
                } else {
                    self.close(Some((raw.to_vec(), position)));
                }
            }
            0x81..=0x83 if reader.is_root => {
                let _ = self.special(kind, raw, position);
            }
            // In use, and nobody may pass it over who does not know it.
            0x80..=0x9f => reader.run = Some((raw.to_vec(), position)),
            _ => {}
        }
    }

    /// All behind the end is free, and zeros. A set with a right sum is what a damaged entry, taken
    /// for the end, would hide.
    fn behind(&mut self, raw: &[u8], position: u64, reader: &mut Reader) {
        let kind = raw.first().copied().unwrap_or_default();
        match (&mut reader.open, kind & 0xc0 == 0xc0) {
            (Some((bytes, _)), true) => bytes.extend_from_slice(raw),
            _ if kind == set::FILE => reader.open = Some((raw.to_vec(), position)),
            _ => reader.open = None,
        }
        let whole = |(bytes, _): &(Vec<u8>, u64)| bytes.len() >= set::len(bytes);
        let Some((bytes, at)) = reader.open.take_if(|open| whole(open)) else {
            return;
        };
        let Ok(set) = Set::parse(&bytes, at) else {
            return;
        };
        if set.damage.is_some() || set.name.is_empty() {
            return;
        }
        // One end hides them all.
        if !std::mem::replace(&mut reader.told, true) {
            self.lost(
                DiskError::corrupt("reading a directory")
                    .offset(at)
                    .expected("nothing in use behind the end of the directory")
                    .found(
                        "a file's entries with a right sum: they, and any after them, are listed",
                    ),
            );
        }
        self.sets.push(Arc::new(set));
    }

    /// Entries of a file whose first one is none, or of a kind that is not known.
    fn close_run(&mut self, reader: &mut Reader) {
        let Some((bytes, position)) = reader.run.take() else {
            return;
        };
        // What is no directory at all would fill memory with complaints.
        if self.errors.len() >= ERRORS {
            return;
        }
        let first = bytes.first().copied().unwrap_or_default();
        let name = set::name_in(&bytes);
        let whose = match name.is_empty() {
            true => String::new(),
            false => format!(" of \"{}\"", names::safe(name)),
        };
        self.lost(
            DiskError::corrupt("reading an exFAT entry set")
                .offset(position)
                .expected("a file entry, 0x85")
                .found(match set::is_of_file(first) {
                    true => format!("the entries{whose} that should follow one"),
                    false => format!("an entry of type {first:#04x}{whose}"),
                }),
        );
    }

    fn special(&mut self, kind: u8, raw: &[u8], position: u64) -> Result<()> {
        let f = Fields::new(raw, position, "exFAT root entry");
        let entry = Special {
            first_cluster: f.u32_le(20)?,
            len: f.u64_le(24)?,
            checksum: f.u32_le(4)?,
            flags: f.u8(1)?,
        };
        match kind {
            0x81 if self.bitmaps.len() < 2 => self.bitmaps.push(entry),
            0x82 => self.upcase = self.upcase.or(Some(entry)),
            0x83 => {
                let units = usize::from(f.u8(1)?).min(11);
                let text = f.bytes(2, units.saturating_mul(2))?;
                let units = text.chunks_exact(2);
                let label = Name::from_utf16(
                    units.filter_map(|u| Some(u16::from_le_bytes(u.try_into().ok()?))),
                );
                // A file's entry with one wrong bit would be another.
                self.label.get_or_insert(label);
            }
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self, open: Option<(Vec<u8>, u64)>) {
        let Some((bytes, position)) = open else {
            return;
        };
        match Set::parse(&bytes, position) {
            Ok(set) if !set.name.is_empty() => self.sets.push(Arc::new(set)),
            Ok(set) => self.lost(set.damage.unwrap_or_else(|| {
                DiskError::corrupt("reading an exFAT entry set")
                    .offset(position)
                    .found("no name")
            })),
            Err(e) => self.lost(e),
        }
    }

    /// The bitmap that goes with a table.
    pub fn bitmap(&self, table: u8) -> Option<&Special> {
        self.bitmaps
            .iter()
            .find(|b| b.flags & 1 == table)
            .or(self.bitmaps.first())
    }

    /// Shows every entry and every loss in order.
    pub fn visit(&self, visit: Visit<'_>) {
        let mut errors = self.errors.iter().peekable();
        for (n, set) in self.sets.iter().enumerate() {
            while let Some((_, e)) = errors.next_if(|(at, _)| *at <= n) {
                if visit(Err(e.clone())).is_break() {
                    return;
                }
            }
            let entry = DirEntry {
                name: names::safe(set.name.iter().copied()),
                node: NodeId::plain(set.position / 32),
                kind: set.kind(),
                short_name: None,
            };
            if visit(Ok(entry)).is_break() {
                return;
            }
        }
        for (_, e) in errors {
            if visit(Err(e.clone())).is_break() {
                return;
            }
        }
    }

    /// Finds a name: exactly, then without case as the volume's table has it.
    pub fn find(&self, name: &Name, upcase: &UpCase) -> Option<NodeId> {
        let index = self.index.get_or_init(|| {
            let mut index = Index::default();
            for set in &self.sets {
                let name = names::safe(set.name.iter().copied());
                let record = set.position / 32;
                if let Some(units) = name.to_utf16() {
                    index.folded.entry(upcase.fold(&units)).or_insert(record);
                }
                index.exact.entry(name).or_insert(record);
            }
            index
        });
        let found = index.exact.get(name).or_else(|| {
            let folded = upcase.fold(&name.to_utf16()?);
            index.folded.get(&folded)
        });
        found.copied().map(NodeId::plain)
    }

    /// Memory it takes, its index included, in bytes.
    pub fn weight(&self) -> u64 {
        self.sets
            .iter()
            .map(|s| (s.name.len() as u64).saturating_mul(6).saturating_add(400))
            .fold(200, u64::saturating_add)
    }
}
