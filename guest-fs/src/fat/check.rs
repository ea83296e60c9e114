//! Structures of a FAT volume held against each other: copies of the table, chains that share
//! clusters, chains that break, clusters that nobody has.

use super::{Fat, ROOT, evidence};
use crate::{
    DirEntry, FileSystem, FsKind, NodeId, NodeKind,
    told::{EACH, Told},
};
use disk_io::{
    DiskError, ErrorKind, Finding, Result,
    finding::{Visit, join},
};
use std::{collections::HashSet, ops::Range, sync::Arc};

/// Levels of directories that are gone into.
const DEEPEST: usize = 512;
/// Directories that are gone into; a loop ends there.
const MAX_DIRS: usize = 1 << 22;

/// Which clusters somebody has.
pub(crate) struct Taken {
    bits: Vec<u64>,
}

impl Taken {
    pub(crate) fn new(clusters: u32) -> Self {
        let words = u64::from(clusters).saturating_add(2).div_ceil(64);
        Self {
            bits: vec![0; usize::try_from(words).unwrap_or(0)],
        }
    }

    /// Notes a cluster; whether somebody had it already.
    pub(crate) fn take(&mut self, cluster: u32) -> bool {
        let bit = 1u64.wrapping_shl(cluster % 64);
        match self.bits.get_mut((cluster / 64) as usize) {
            Some(word) => {
                let before = *word & bit != 0;
                *word |= bit;
                before
            }
            None => false,
        }
    }

    /// Whether somebody has it.
    pub(crate) fn has(&self, cluster: u32) -> bool {
        let word = self.bits.get((cluster / 64) as usize).copied();
        word.unwrap_or(0).wrapping_shr(cluster % 64) & 1 != 0
    }
}

impl Fat {
    fn bytes_of(&self, cluster: u32) -> Range<u64> {
        let size = self.area.cluster;
        let index = u64::from(cluster).saturating_sub(2);
        let start = self
            .area
            .data_start
            .saturating_add(index.saturating_mul(size));
        start..start.saturating_add(size)
    }

    /// Visits what is not as it should be.
    pub(crate) fn check_volume(&self, visit: Visit<'_>) -> Result<()> {
        if let Some(remark) = &self.geometry.copy_differs {
            let e = DiskError::corrupt("comparing the boot sector with its backup")
                .expected("the same sizes and places")
                .found(remark);
            visit(Finding::warning("fat-boot-copy-differs", e));
        }
        for why in &self.geometry.doubts {
            let e = DiskError::corrupt("holding the boot sector against the volume").found(why);
            visit(Finding::damage("fat-boot-doubtful", e));
        }
        self.check_media(visit);
        self.check_copies(visit)?;
        let mut taken = Taken::new(self.geometry.clusters);
        let mut told = Told::default();
        let mut seen: HashSet<u64> = HashSet::new();
        let mut open = vec![(NodeId::plain(ROOT), String::new(), 0usize)];
        if self.geometry.kind == FsKind::Fat32 {
            let root = self.dir_chain(NodeId::plain(ROOT))?;
            for cluster in root.iter().flat_map(|c| c.iter()) {
                taken.take(cluster);
            }
        }
        while let Some((dir, path, level)) = open.pop() {
            if !seen.insert(dir.record) || seen.len() > MAX_DIRS {
                continue;
            }
            let mut entries: Vec<Result<DirEntry>> = Vec::new();
            let listed = self.read_dir(dir, &mut |entry| {
                entries.push(entry);
                std::ops::ControlFlow::Continue(())
            });
            match listed {
                Err(e) if e.kind() == ErrorKind::Io => return Err(e),
                Err(e) => {
                    told.tell(
                        Finding::damage("fat-directory-damaged", e.file(&path)).about(dir.record),
                        visit,
                    );
                    continue;
                }
                Ok(()) => {}
            }
            // Clusters that two entries have are told below.
            for why in self.dir(dir).iter().flat_map(|d| d.doubts.clone()) {
                let e = DiskError::corrupt("reading a directory")
                    .file(&path)
                    .found(why);
                let finding = Finding::warning("fat-directory-damaged", e);
                told.tell(finding.about(dir.record), visit);
            }
            for entry in entries {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(e) if e.kind() == ErrorKind::Io => return Err(e),
                    Err(e) => {
                        told.tell(
                            Finding::damage("fat-directory-damaged", e.file(&path))
                                .about(dir.record),
                            visit,
                        );
                        continue;
                    }
                };
                let name = format!("{path}/{}", entry.name);
                let chain = match entry.kind {
                    NodeKind::Directory => self.dir_chain(entry.node)?,
                    _ => Some(self.file_chain(&self.entry(entry.node)?)),
                };
                if entry.kind == NodeKind::Directory {
                    match level < DEEPEST {
                        true => open.push((entry.node, name.clone(), level.saturating_add(1))),
                        false => {
                            let e = DiskError::refused("going through directories")
                                .expected(format!("at most {DEEPEST} levels"));
                            let finding = Finding::damage("fat-directory-damaged", e);
                            told.tell(finding.about(entry.node.record), visit);
                        }
                    }
                }
                let Some(chain) = chain else { continue };
                let mut say = |finding: Finding| told.tell(finding.about(entry.node.record), visit);
                self.check_chain(&chain, &name, &mut taken, &mut say);
            }
        }
        told.finish(visit);
        self.check_lost(&taken, visit)
    }

    /// Nothing is placed by the media byte.
    fn check_media(&self, visit: Visit<'_>) {
        let Some(byte) = evidence::other_media(self.disk(), &self.geometry) else {
            return;
        };
        let e = DiskError::corrupt("holding the boot sector against the allocation table")
            .expected(format!("the media byte {:#04x}", self.geometry.media))
            .found(format!("{byte:#04x}"));
        visit(Finding::note("fat-media-differs", e));
    }

    fn check_chain(
        &self,
        chain: &Arc<super::chain::Chain>,
        name: &str,
        taken: &mut Taken,
        visit: Visit<'_>,
    ) {
        let mut shared: Vec<Range<u64>> = Vec::new();
        for cluster in chain.iter() {
            if taken.take(cluster) {
                join(&mut shared, self.bytes_of(cluster));
            }
        }
        if !shared.is_empty() {
            let bytes: u64 = shared.iter().map(|r| r.end.saturating_sub(r.start)).sum();
            let e = DiskError::corrupt("holding files' clusters against each other")
                .file(name)
                .expected("each cluster in one file")
                .found(format!("{bytes} bytes that another file has too"));
            visit(Finding::damage("fat-clusters-shared", e).touching(shared));
        }
        if let Some(e) = chain.broken() {
            visit(Finding::damage("fat-chain-broken", e.clone().file(name)));
            return;
        }
        for remark in chain.remarks() {
            let e = DiskError::corrupt("following a chain of clusters")
                .file(name)
                .found(remark);
            visit(Finding::warning("fat-chain-odd", e));
        }
    }

    /// Clusters that are in use and that no file has: a note, since nothing is lost but room.
    fn check_lost(&self, taken: &Taken, visit: Visit<'_>) -> Result<()> {
        let mut lost = 0u64;
        self.table.visit(&mut |cluster, raw| {
            let bad = || self.table.link_of(raw) == super::chain::Link::Bad;
            if raw != 0 && !taken.has(cluster) && !bad() {
                lost = lost.saturating_add(1);
            }
        })?;
        if lost > 0 {
            let e = DiskError::corrupt("holding the allocation table against files")
                .found(format!("{lost} clusters in use that no file has"));
            visit(Finding::note("fat-clusters-lost", e));
        }
        Ok(())
    }

    /// The copies of the table, where all are in use.
    fn check_copies(&self, visit: Visit<'_>) -> Result<()> {
        let mut differ: Vec<(u32, u32)> = Vec::new();
        let mut count = 0u64;
        self.table.visit_differing(&mut |cluster| {
            count = count.saturating_add(1);
            let room = differ.len() < EACH;
            match differ.last_mut() {
                Some((_, last)) if last.saturating_add(1) == cluster => *last = cluster,
                _ if room => differ.push((cluster, cluster)),
                _ => {}
            }
        })?;
        if count > 0 {
            let e = DiskError::corrupt("comparing the copies of the allocation table")
                .expected("the same entries")
                .found(format!("{count} that differ; the first copy is used"));
            let ranges = differ
                .into_iter()
                .map(|(first, last)| self.bytes_of(first).start..self.bytes_of(last).end);
            visit(Finding::warning("fat-copies-differ", e).touching(ranges));
        }
        Ok(())
    }
}
