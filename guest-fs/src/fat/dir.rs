//! A directory, read whole and indexed by name. It has at most some megabytes.

use super::{
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
    collections::HashMap,
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

/// A directory in memory.
#[derive(Debug, Default)]
pub struct Dir {
    items: Vec<Item>,
    /// Parts that cannot be read, by the item they come before.
    errors: Vec<(usize, DiskError)>,
    index: OnceLock<Index>,
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
    pub fn read(
        area: &Area,
        geometry: &Geometry,
        chain: Option<&Chain>,
        code_page: Option<u16>,
        notes: &Notes,
    ) -> Result<Self> {
        let mut dir = Self::default();
        let mut reader = Reader {
            long: Long::default(),
            code_page,
            notes,
        };
        match chain {
            None => {
                dir.region(
                    &area.disk,
                    geometry.root_start,
                    geometry.root_len,
                    &mut reader,
                );
            }
            Some(chain) => {
                let mut ended = false;
                for cluster in chain.iter() {
                    let Some(at) = area.position(cluster) else {
                        break;
                    };
                    if dir.region(&area.disk, at, area.cluster, &mut reader) {
                        ended = true;
                        break;
                    }
                }
                if let Some(e) = chain.broken().filter(|_| !ended) {
                    if chain.clusters() == 0 {
                        return Err(e.clone().context("listing a directory"));
                    }
                    dir.lost(e.clone());
                }
            }
        }
        Ok(dir)
    }

    fn lost(&mut self, e: DiskError) {
        let at = self.items.len();
        self.errors.push((at, e.context("listing a directory")));
    }

    /// Reads entries that lie together; whether the last one was met.
    fn region(&mut self, disk: &Arc<dyn Disk>, at: u64, len: u64, reader: &mut Reader<'_>) -> bool {
        /// Read at once; after a failure, one sector.
        const BLOCK: u64 = 64 << 10;
        let mut done = 0;
        while done < len {
            let n = len.saturating_sub(done).min(BLOCK);
            let mut bytes = vec![0; usize::try_from(n).unwrap_or(0)];
            let from = at.saturating_add(done);
            if disk.read_exact_at(&mut bytes, from).is_ok() {
                if self.entries(&bytes, from, reader) {
                    return true;
                }
            } else {
                for skip in (0..n).step_by(512) {
                    let mut sector = [0; 512];
                    let from = from.saturating_add(skip);
                    match disk.read_exact_at(&mut sector, from) {
                        Ok(()) if self.entries(&sector, from, reader) => return true,
                        Ok(()) => {}
                        Err(e) => {
                            reader.long.drop_parts();
                            self.lost(e.offset(from));
                        }
                    }
                }
            }
            done = done.saturating_add(n.max(1));
        }
        false
    }

    fn entries(&mut self, bytes: &[u8], at: u64, reader: &mut Reader<'_>) -> bool {
        for (raw, position) in bytes.chunks_exact(32).zip((at..).step_by(32)) {
            let Some(raw) = raw.first_chunk::<32>() else {
                continue;
            };
            let Ok(entry) = Entry::parse(raw, position) else {
                continue;
            };
            if entry.is_free() {
                return true;
            }
            if entry.is_deleted() {
                reader.long.drop_parts();
            } else if entry.is_long() {
                reader.long.push(raw);
            } else if entry.is_label() {
                reader.orphan(&entry);
                if self.label.is_none() && !entry.is_dir() {
                    self.label = Some(entry.label(reader.code_page));
                }
            } else if entry.is_dot() {
                reader.long.drop_parts();
            } else {
                let item = reader.item(&entry);
                self.items.push(item);
            }
        }
        false
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

struct Reader<'a> {
    long: Long,
    code_page: Option<u16>,
    notes: &'a Notes,
}

impl Reader<'_> {
    fn item(&mut self, entry: &Entry) -> Item {
        let short = entry.short_name(self.code_page);
        let (name, short) = match self.long.take(entry.checksum()) {
            Outcome::Name(units) => (names::safe(units), Some(short)),
            Outcome::None => (short, None),
            Outcome::Orphan => {
                self.note(entry);
                (short, None)
            }
        };
        Item {
            name,
            short,
            record: entry.position / 32,
            is_dir: entry.is_dir(),
        }
    }

    fn orphan(&mut self, entry: &Entry) {
        if self.long.drop_parts() {
            self.note(entry);
        }
    }

    fn note(&self, entry: &Entry) {
        self.notes.add(format!(
            "the long name before the directory entry at byte {} is not that entry's; ignored",
            entry.position
        ));
    }
}
