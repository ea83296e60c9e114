//! Entries marked as deleted: their names less a letter, and, while nobody else has its
//! clusters, what a file held.

use super::{Fat, chain::Chain, contents::Contents, entry::Entry, long, names};
use crate::{FileSystem, Found, Name, NodeId, NodeKind, fs::DELETED};
use disk_io::{Disk, DiskError, Result};
use std::{collections::HashSet, ops::ControlFlow, sync::Arc};

/// A deleted entry.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// Its long name if that is left, else its 8.3 name with `_` for the first letter.
    pub name: Name,
    /// Its entry.
    pub node: NodeId,
    /// File or directory.
    pub kind: NodeKind,
    /// Size in bytes, as the entry says.
    pub size: u64,
    /// Its first cluster, as the entry says.
    pub first_cluster: u32,
}

impl Fat {
    /// Visits the deleted entries of every directory that is still there.
    pub(crate) fn visit_deleted(&self, visit: &mut dyn FnMut(Result<Found>) -> ControlFlow<()>) {
        let mut seen = HashSet::new();
        let mut rest = vec![self.root()];
        while let Some(dir) = rest.pop() {
            if !seen.insert(dir.record) {
                continue;
            }
            // What cannot be listed is told where the directory itself is listed.
            let _ = self.read_dir(dir, &mut |entry| {
                if let Ok(entry) = entry
                    && entry.kind == NodeKind::Directory
                {
                    rest.push(entry.node);
                }
                ControlFlow::Continue(())
            });
            for deleted in self.deleted_in(dir).unwrap_or_default() {
                let node = NodeId::plain(deleted.node.record | DELETED);
                let found = FileSystem::metadata(self, node).map(|metadata| Found {
                    metadata,
                    names: vec![(dir, deleted.name)],
                });
                if visit(found).is_break() {
                    return;
                }
            }
        }
    }

    /// The deleted entries of a directory, in order. Parts that cannot be read are left out.
    pub fn deleted_in(&self, dir: NodeId) -> Result<Vec<Deleted>> {
        let chain = self.dir_chain(dir)?;
        let mut regions = Vec::new();
        match &chain {
            None => regions.push((self.geometry.root_start, self.geometry.root_len)),
            Some(chain) => regions.extend(
                chain
                    .iter()
                    .filter_map(|c| Some((self.area.position(c)?, self.area.cluster))),
            ),
        }
        let mut out = Vec::new();
        let mut parts: Vec<[u8; 32]> = Vec::new();
        for (at, len) in regions {
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            if self.disk().read_exact_at(&mut bytes, at).is_err() {
                parts.clear();
                continue;
            }
            for (raw, position) in bytes.chunks_exact(32).zip((at..).step_by(32)) {
                let Some(raw) = raw.first_chunk::<32>() else {
                    continue;
                };
                let entry = Entry::parse(raw, position)?;
                if entry.is_free() {
                    return Ok(out);
                }
                if !entry.is_deleted() {
                    parts.clear();
                } else if entry.is_long() {
                    parts.push(*raw);
                } else {
                    let parts = std::mem::take(&mut parts);
                    if entry.is_label() {
                        continue;
                    }
                    out.push(Deleted {
                        name: self.name_of(&entry, &parts),
                        node: NodeId::plain(position / 32),
                        kind: entry.kind(),
                        size: u64::from(entry.size),
                        first_cluster: self.first_cluster(&entry),
                    });
                }
            }
        }
        Ok(out)
    }

    /// The contents of a deleted file, on the guess that its clusters followed each other.
    /// Refused if any of them belongs to somebody now.
    pub fn open_deleted(&self, node: NodeId) -> Result<Arc<dyn Disk>> {
        let entry = self.entry(node)?;
        if !entry.is_deleted() || entry.is_dir() {
            return Err(DiskError::not_found("opening a deleted file")
                .found(format!("node {} is none", node.record)));
        }
        let size = u64::from(entry.size);
        let need = size.div_ceil(self.area.cluster.max(1));
        let need = u32::try_from(need).unwrap_or(u32::MAX);
        let first = self.first_cluster(&entry);
        let chain = Chain::contiguous(first, need, self.geometry.clusters);
        if let Some(e) = chain.broken() {
            return Err(e.clone().context("opening a deleted file"));
        }
        for cluster in chain.iter() {
            if !self.table.is_free(cluster)? {
                return Err(DiskError::refused("opening a deleted file")
                    .found(format!("its cluster {cluster} belongs to another file now")));
            }
        }
        Ok(Arc::new(Contents::new(
            self.area.clone(),
            Arc::new(chain),
            size,
            size,
        )))
    }

    /// Parts of a deleted long name have lost their numbers but not their order.
    fn name_of(&self, entry: &Entry, parts: &[[u8; 32]]) -> Name {
        let sum = parts.last().and_then(|p| p.get(13));
        let mut units: Vec<u16> = parts
            .iter()
            .rev()
            .take_while(|p| p.get(13) == sum)
            .take(20)
            .flat_map(long::units)
            .collect();
        if let Some(end) = units.iter().position(|u| *u == 0) {
            units.truncate(end);
        }
        if !units.is_empty() {
            return names::safe(units);
        }
        let mut entry = *entry;
        if let Some(first) = entry.short.first_mut() {
            *first = b'_';
        }
        entry.short_name(self.options.oem_code_page)
    }
}
