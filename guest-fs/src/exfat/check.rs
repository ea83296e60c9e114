//! Structures of an exFAT volume held against each other: the boot regions, entry sets and their
//! sums, the bitmap, chains that share clusters or break.

use super::{ExFat, boot, set::Set, upcase::UpCase};
use crate::told::Told;
use crate::{
    NodeId,
    fat::{ROOT, chain::Chain, check::Taken, names},
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

/// What is known while the directories are gone through.
struct Walk<'a> {
    fs: &'a ExFat,
    bits: Option<Vec<u8>>,
    taken: Taken,
    told: Told,
    /// Clusters that were gone over: a sound volume has each once.
    visited: u64,
    visit: Visit<'a>,
}

impl ExFat {
    /// Visits what is not as it should be.
    pub(super) fn check_volume(&self, visit: Visit<'_>) -> Result<()> {
        if let Some(e) = boot::copies_differ(self.disk(), &self.geometry)? {
            visit(Finding::warning("exfat-boot-copy-differs", e));
        }
        let mut walk = Walk {
            fs: self,
            bits: self.bitmap(),
            taken: Taken::new(self.geometry.clusters),
            told: Told::default(),
            visited: 0,
            visit,
        };
        walk.specials()?;
        let mut seen: HashSet<u64> = HashSet::new();
        let mut open = vec![(NodeId::plain(ROOT), String::new(), 0)];
        while let Some((dir, path, level)) = open.pop() {
            if seen.insert(dir.record) && seen.len() <= MAX_DIRS {
                walk.directory(dir, (&path, level), &mut open)?;
            }
        }
        walk.lost();
        walk.told.finish(walk.visit);
        Ok(())
    }
}

impl Walk<'_> {
    fn tell(&mut self, finding: Finding) {
        self.told.tell(finding, self.visit);
    }

    /// What belongs to the volume itself: the root directory, the bitmap, the up-case table.
    fn specials(&mut self) -> Result<()> {
        let fs = self.fs;
        let (chain, _) = fs.dir_chain(NodeId::plain(ROOT))?;
        self.clusters(&chain, ROOT, "/");
        let root = match fs.dir(NodeId::plain(ROOT)) {
            Ok(root) => root,
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            // The walk comes upon it too.
            Err(_) => return Ok(()),
        };
        for number in 0..fs.geometry.copies {
            if let Some(map) = root.bitmap(number).filter(|b| b.flags & 1 == number) {
                let chain = fs.chain(map.first_cluster, map.len, false);
                self.clusters(&chain, ROOT, "the allocation bitmap");
            }
        }
        if self.bits.is_none() {
            let e = DiskError::corrupt("reading the allocation bitmap")
                .expected(format!(
                    "a bit for each of {} clusters",
                    fs.geometry.clusters
                ))
                .found("less, or a chain that breaks off");
            self.tell(Finding::warning("exfat-bitmap-damaged", e));
        }
        let table = match &root.upcase {
            Some(entry) => {
                let chain = fs.chain(entry.first_cluster, entry.len, false);
                self.clusters(&chain, ROOT, "the up-case table");
                UpCase::read(&fs.special(entry), entry.checksum).err()
            }
            None => Some(
                DiskError::corrupt("reading the up-case table")
                    .expected("an entry for it in the root directory")
                    .found("none"),
            ),
        };
        match table {
            Some(e) if e.kind() == ErrorKind::Io => return Err(e),
            Some(e) => self.tell(Finding::warning("exfat-upcase-damaged", e)),
            None => {}
        }
        Ok(())
    }

    fn directory(
        &mut self,
        node: NodeId,
        (path, level): (&str, usize),
        open: &mut Vec<(NodeId, String, usize)>,
    ) -> Result<()> {
        let damaged = |e: DiskError| {
            let place = if path.is_empty() { "/" } else { path };
            Finding::damage("exfat-directory-damaged", e.file(place)).about(node.record)
        };
        let dir = match self.fs.dir(node) {
            Ok(dir) => dir,
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => {
                self.tell(damaged(e));
                return Ok(());
            }
        };
        let mut errors = Vec::new();
        dir.visit(&mut |entry| {
            errors.extend(entry.err());
            std::ops::ControlFlow::Continue(())
        });
        for e in errors {
            if e.kind() == ErrorKind::Io {
                return Err(e);
            }
            self.tell(damaged(e));
        }
        for set in &dir.sets {
            let name = format!("{path}/{}", names::safe(set.name.iter().copied()));
            if set.is_dir() {
                let record = set.position / 32;
                match level < DEEPEST {
                    true => {
                        open.push((NodeId::plain(record), name.clone(), level.saturating_add(1)))
                    }
                    false => {
                        let e = DiskError::refused("going through directories")
                            .expected(format!("at most {DEEPEST} levels"));
                        self.tell(Finding::damage("exfat-directory-damaged", e).about(record));
                    }
                }
            }
            self.set(set, &name);
        }
        Ok(())
    }

    fn set(&mut self, set: &Arc<Set>, name: &str) {
        let record = set.position / 32;
        if let Some(e) = &set.damage {
            // Where its contents are cannot be believed either.
            let e = e.clone().file(name);
            self.tell(Finding::damage("exfat-entry-damaged", e).about(record));
            return;
        }
        if !set.name_hash_fits(self.fs.upcase()) {
            let e = DiskError::corrupt("reading a directory entry")
                .file(name)
                .offset(set.position)
                .expected("the hash of its name")
                .found(format!("{:#06x}", set.name_hash));
            self.tell(Finding::warning("exfat-name-hash-wrong", e).about(record));
        }
        if set.len == 0 && set.first_cluster != 0 {
            // Whether the cluster is the file's still cannot be told: no byte of it is read.
            let e = DiskError::corrupt("reading a directory entry")
                .file(name)
                .offset(set.position)
                .expected("no cluster, since the file is empty")
                .found(format!("cluster {}", set.first_cluster));
            self.tell(Finding::note("exfat-chain-odd", e).about(record));
        }
        let chain = self.fs.chain(set.first_cluster, set.len, set.contiguous);
        self.clusters(&chain, record, name);
    }

    fn clusters(&mut self, chain: &Chain, record: u64, name: &str) {
        let (mut shared, mut free) = (Vec::<Range<u64>>::new(), Vec::<Range<u64>>::new());
        let size = self.fs.area.cluster;
        self.visited = self.visited.saturating_add(chain.clusters().into());
        // Clusters that many files say to have are gone over so often only: then the first of each
        // shows it.
        let most = match self.visited > u64::from(self.fs.geometry.clusters).saturating_mul(4) {
            true => 1,
            false => usize::MAX,
        };
        for cluster in chain.iter().take(most) {
            let Some(start) = self.fs.area.position(cluster) else {
                continue;
            };
            let bytes = start..start.saturating_add(size);
            if self.taken.take(cluster) {
                join(&mut shared, bytes.clone());
            }
            if self.is_free(cluster) {
                join(&mut free, bytes);
            }
        }
        let sum =
            |of: &[Range<u64>]| -> u64 { of.iter().map(|r| r.end.saturating_sub(r.start)).sum() };
        if !shared.is_empty() {
            let e = DiskError::corrupt("holding files' clusters against each other")
                .file(name)
                .expected("each cluster in one file")
                .found(format!("{} bytes that another file has too", sum(&shared)));
            let finding = Finding::damage("exfat-clusters-shared", e).about(record);
            self.tell(finding.touching(shared));
        }
        if !free.is_empty() {
            let e = DiskError::corrupt("holding the allocation bitmap against files")
                .file(name)
                .expected("every file's clusters to be in use")
                .found(format!("{} bytes that are called free", sum(&free)));
            let finding = Finding::warning("exfat-bitmap-free", e).about(record);
            self.tell(finding.touching(free));
        }
        if let Some(e) = chain.broken() {
            let e = e.clone().file(name);
            self.tell(Finding::damage("exfat-chain-broken", e).about(record));
            return;
        }
        for remark in chain.remarks() {
            let e = DiskError::corrupt("following a chain of clusters")
                .file(name)
                .found(remark);
            self.tell(Finding::warning("exfat-chain-odd", e).about(record));
        }
    }

    fn is_free(&self, cluster: u32) -> bool {
        let Some(bits) = &self.bits else {
            return false;
        };
        let index = cluster.saturating_sub(2);
        let byte = bits.get((index / 8) as usize);
        byte.is_some_and(|b| b >> (index % 8) & 1 == 0)
    }

    /// Clusters that are in use and that no file has: a note, since nothing is lost but room.
    fn lost(&mut self) {
        if self.bits.is_none() {
            return;
        }
        let last = self.fs.geometry.clusters.saturating_add(2);
        let lost = (2..last)
            .filter(|c| !self.is_free(*c) && !self.taken.has(*c))
            .count();
        if lost > 0 {
            let e = DiskError::corrupt("holding the allocation bitmap against files")
                .found(format!("{lost} clusters in use that no file has"));
            (self.visit)(Finding::note("exfat-clusters-lost", e));
        }
    }
}
