//! A directory, read whole and indexed by name. It has at most some megabytes.

use super::{
    behind,
    boot::Geometry,
    chain::Chain,
    contents::Area,
    entry::Entry,
    long::{Long, Outcome},
    names,
    notes::Notes,
};
use crate::{DirEntry, Name, NodeId, NodeKind, Visit};
use disk_io::{Disk, DiskError, ErrorKind, Result};
use std::{
    collections::{
        HashMap,
        hash_map::Entry::{Occupied, Vacant},
    },
    sync::{Arc, OnceLock},
};

/// One name.
#[derive(Clone, Debug)]
struct Item {
    name: Name,
    /// The 8.3 name, if there is a long one too.
    short: Option<Name>,
    record: u64,
    is_dir: bool,
}

/// A directory with more doubts than these is told by the first of them.
const DOUBTS: usize = 100;

/// What a directory is read with.
pub struct Volume<'a> {
    /// The boot sector's.
    pub geometry: &'a Geometry,
    /// Only the root directory has the label, and no `.`.
    pub is_root: bool,
    /// Code page of 8.3 names.
    pub code_page: Option<u16>,
    /// Whether the table calls a cluster used.
    pub used: &'a dyn Fn(u32) -> bool,
    /// What is said of the volume.
    pub notes: &'a Notes,
}

/// A directory in memory.
#[derive(Debug, Default)]
pub struct Dir {
    items: Vec<Item>,
    /// Parts that cannot be read, by the item they come before.
    errors: Vec<(usize, DiskError)>,
    index: OnceLock<Index>,
    /// Why some names may not be what they should be.
    pub doubts: Vec<String>,
    /// Entries that begin in the same cluster.
    pub shared: Vec<String>,
    /// The volume label, which is an entry of the root directory.
    pub label: Option<Name>,
}

#[derive(Debug, Default)]
struct Index {
    exact: HashMap<Name, u64>,
    folded: HashMap<Vec<u16>, u64>,
    short: HashMap<Vec<u16>, u64>,
}

impl Dir {
    /// Whether some of it is missing because the device failed: asked again, it may be there.
    pub(super) fn device_failed(&self) -> bool {
        self.errors.iter().any(|(_, e)| e.kind() == ErrorKind::Io)
    }

    /// Reads the directory in `chain`, or the fixed root directory.
    pub fn read(area: &Area, chain: Option<&Chain>, volume: &Volume<'_>) -> Result<Self> {
        let mut dir = Self::default();
        let mut reader = Reader {
            long: Long::default(),
            starts: HashMap::new(),
            dots: None,
            ended: false,
            told: false,
            volume,
        };
        match chain {
            None => {
                let geometry = volume.geometry;
                dir.region(
                    &area.disk,
                    geometry.root_start,
                    geometry.root_len,
                    &mut reader,
                );
            }
            Some(chain) => {
                if !volume.is_root {
                    reader.dots = dir.dots(area, chain, volume);
                }
                for at in chain.iter().map_while(|cluster| area.position(cluster)) {
                    dir.region(&area.disk, at, area.cluster, &mut reader);
                }
                if let Some(e) = chain.broken().filter(|_| !reader.ended) {
                    if chain.clusters() == 0 {
                        return Err(e.clone().context("listing a directory"));
                    }
                    dir.lost(e.clone());
                }
            }
        }
        dir.orphans(&mut reader, None);
        Ok(dir)
    }

    /// A directory begins with `.`, which has its own first cluster, and `..`: if not, this may be
    /// another one, or none. Where they should be.
    fn dots(&mut self, area: &Area, chain: &Chain, volume: &Volume<'_>) -> Option<u64> {
        let (first, _) = chain.place(0)?;
        let at = area.position(first)?;
        let mut head = [0; 128];
        // What cannot be read is told with the rest.
        area.disk.read_exact_at(&mut head, at).ok()?;
        let [own, above] = Entry::first_two(&head, at);
        let dot = |entry: Option<Entry>, name: &[u8; 11]| {
            entry.filter(|entry| entry.short == *name && entry.is_dir())
        };
        let own = dot(own, b".          ").map(|e| volume.geometry.first_cluster(&e));
        if own == Some(first) && dot(above, b"..         ").is_some() {
            return None;
        }
        let e = DiskError::corrupt("reading a directory")
            .offset(at)
            .expected(format!("`.` with its cluster, {first}, and `..`"))
            .found(match own {
                Some(own) if own != first => format!("`.` with the cluster {own}"),
                Some(_) => "no `..`".into(),
                None => "no `.`".into(),
            })
            .hint("this may be another directory, or none: its entry, or the boot sector, may be damaged");
        self.lost(e);
        Some(at)
    }

    fn lost(&mut self, e: DiskError) {
        let at = self.items.len();
        self.errors.push((at, e.context("listing a directory")));
    }

    fn doubt(&mut self, why: String) {
        if self.doubts.len() < DOUBTS {
            self.doubts.push(why);
        }
    }

    /// Reads entries that lie together.
    fn region(&mut self, disk: &Arc<dyn Disk>, at: u64, len: u64, reader: &mut Reader<'_>) {
        /// Read at once; after a failure, one sector.
        const BLOCK: u64 = 64 << 10;
        let mut done = 0;
        while done < len {
            let n = len.saturating_sub(done).min(BLOCK);
            let mut bytes = vec![0; usize::try_from(n).unwrap_or(0)];
            let from = at.saturating_add(done);
            if disk.read_exact_at(&mut bytes, from).is_ok() {
                self.entries(&bytes, from, reader);
            } else {
                for skip in (0..n).step_by(512) {
                    let mut sector = [0; 512];
                    let from = from.saturating_add(skip);
                    match disk.read_exact_at(&mut sector, from) {
                        Ok(()) => self.entries(&sector, from, reader),
                        // Behind the end nothing is missed.
                        Err(_) if reader.ended => {}
                        Err(e) => {
                            reader.long.drop_parts();
                            self.lost(e.offset(from));
                        }
                    }
                }
            }
            done = done.saturating_add(n.max(1));
        }
    }

    fn entries(&mut self, bytes: &[u8], at: u64, reader: &mut Reader<'_>) {
        for (raw, position) in bytes.chunks_exact(32).zip((at..).step_by(32)) {
            let Some(raw) = raw.first_chunk::<32>() else {
                continue;
            };
            let Ok(entry) = Entry::parse(raw, position) else {
                continue;
            };
            if reader.ended {
                self.behind(raw, &entry, reader);
            } else if entry.is_free() {
                self.orphans(reader, Some(&entry));
                reader.ended = true;
            } else {
                self.entry(raw, &entry, reader);
            }
        }
    }

    fn entry(&mut self, raw: &[u8; 32], entry: &Entry, reader: &mut Reader<'_>) {
        let volume = reader.volume;
        if entry.is_deleted() {
            self.orphans(reader, Some(entry));
        } else if entry.is_long() {
            if reader.long.push(raw) {
                self.orphan(entry, volume);
            }
        } else if behind::looks_long(raw, entry) {
            reader.long.spoil();
            self.doubt(format!(
                "the directory entry at byte {} is a part of a long name but for its attributes \
                 {:#04x}; ignored",
                entry.position, entry.attributes
            ));
        } else if entry.is_dot() {
            // A long name of theirs says nothing.
            reader.long.drop_parts();
        } else if entry.is_label() && self.label.is_none() && volume.may_label(entry) {
            self.orphans(reader, Some(entry));
            self.label = Some(entry.label(volume.code_page));
        } else {
            self.item(entry, reader);
        }
    }

    /// Nothing should be in use behind the end. What is, is what a damaged entry, taken for the
    /// end, would hide.
    fn behind(&mut self, raw: &[u8; 32], entry: &Entry, reader: &mut Reader<'_>) {
        let volume = reader.volume;
        if entry.is_free() || entry.is_deleted() {
            reader.long.drop_parts();
        } else if entry.is_long() {
            reader.long.push(raw);
        } else if behind::in_use(entry, volume.geometry, volume.used) {
            // One end hides them all.
            if !std::mem::replace(&mut reader.told, true) {
                self.lost(
                    DiskError::corrupt("reading a directory")
                        .offset(entry.position)
                        .expected("nothing in use behind the end of the directory")
                        .found("an entry that looks in use: it, and any after it, are listed"),
                );
            }
            self.item(entry, reader);
        } else {
            reader.long.drop_parts();
        }
    }

    fn item(&mut self, entry: &Entry, reader: &mut Reader<'_>) {
        let volume = reader.volume;
        let short = entry.short_name(volume.code_page);
        let (name, short) = match reader.long.take(entry.checksum()) {
            Outcome::Name(units) => (names::safe(units), Some(short)),
            Outcome::None => (short, None),
            Outcome::Orphan => {
                self.orphan(entry, volume);
                (short, None)
            }
        };
        let first = volume.geometry.first_cluster(entry);
        if reader.dots.is_some_and(|at| entry.is_damaged_dot(at)) {
            // It is told already, and would lead around.
            return;
        }
        if first != 0 {
            match reader.starts.entry(first) {
                Vacant(free) => {
                    free.insert(name.clone());
                }
                Occupied(other) => {
                    let other = other.get();
                    let why = format!(
                        "\"{other}\" and \"{name}\" have the same first cluster, {first}: at most \
                         one of them is right"
                    );
                    if self.shared.len() < DOUBTS {
                        self.shared.push(why);
                    }
                }
            }
        }
        self.items.push(Item {
            name,
            short,
            record: entry.position / 32,
            is_dir: entry.is_dir(),
        });
    }

    /// Parts of a long name wait, and what comes, if anything, is no entry for them.
    fn orphans(&mut self, reader: &mut Reader<'_>, entry: Option<&Entry>) {
        if !reader.long.drop_parts() || reader.ended {
            return;
        }
        match entry {
            Some(entry) => self.orphan(entry, reader.volume),
            None => self.doubt("the directory ends with a part of a long name".into()),
        }
    }

    fn orphan(&mut self, entry: &Entry, volume: &Volume<'_>) {
        let why = format!(
            "the long name before the directory entry at byte {} is not that entry's; ignored",
            entry.position
        );
        volume.notes.add(why.clone());
        self.doubt(why);
    }

    /// Shows every entry and every loss in order.
    pub fn visit(&self, visit: Visit<'_>) {
        let mut errors = self.errors.iter().peekable();
        for (n, item) in self.items.iter().enumerate() {
            while let Some((_, e)) = errors.next_if(|(at, _)| *at <= n) {
                if visit(Err(e.clone())).is_break() {
                    return;
                }
            }
            if visit(Ok(item.entry())).is_break() {
                return;
            }
        }
        for (_, e) in errors {
            if visit(Err(e.clone())).is_break() {
                return;
            }
        }
    }

    /// Finds a name: exactly, then without case, then as an 8.3 name.
    pub fn find(&self, name: &Name) -> Option<NodeId> {
        let index = self.index.get_or_init(|| self.build());
        let found = index.exact.get(name).or_else(|| {
            let folded = names::folded(name)?;
            index
                .folded
                .get(&folded)
                .or_else(|| index.short.get(&folded))
        });
        found.copied().map(NodeId::plain)
    }

    fn build(&self) -> Index {
        let mut index = Index::default();
        for item in &self.items {
            // The first of two equal names wins, as in every other reader.
            index.exact.entry(item.name.clone()).or_insert(item.record);
            if let Some(folded) = names::folded(&item.name) {
                index.folded.entry(folded).or_insert(item.record);
            }
            if let Some(folded) = item.short.as_ref().and_then(names::folded) {
                index.short.entry(folded).or_insert(item.record);
            }
        }
        index
    }

    /// Memory it takes, its index included, in bytes.
    pub fn weight(&self) -> u64 {
        let names: usize = self
            .items
            .iter()
            .map(|i| {
                i.name
                    .as_bytes()
                    .len()
                    .saturating_mul(5)
                    .saturating_add(300)
            })
            .fold(200, usize::saturating_add);
        names as u64
    }
}

impl Item {
    fn entry(&self) -> DirEntry {
        DirEntry {
            name: self.name.clone(),
            node: NodeId::plain(self.record),
            kind: if self.is_dir {
                NodeKind::Directory
            } else {
                NodeKind::File
            },
            short_name: self.short.clone(),
        }
    }
}

/// What is remembered from entry to entry.
struct Reader<'a> {
    long: Long,
    /// Where `.` and `..` should be, if they are not both there.
    dots: Option<u64>,
    /// Who has which first cluster.
    starts: HashMap<u32, Name>,
    /// The end was met.
    ended: bool,
    /// That something is behind it was said.
    told: bool,
    volume: &'a Volume<'a>,
}

impl Volume<'_> {
    /// The label is in the root directory, and has no contents.
    fn may_label(&self, entry: &Entry) -> bool {
        let empty = entry.size == 0 && self.geometry.first_cluster(entry) == 0;
        self.is_root && empty && !entry.is_dir()
    }
}
