//! Structures of a volume held against each other: clusters that two files have, clusters that
//! $Bitmap calls free, names that directories and files do not agree on, copies that differ.

mod names;
mod records;

use super::{file::File, record::kind, volume::Volume};
use crate::{
    runs_held::{MOST, Runs, Sorted},
    told::{EACH, Told},
};
use disk_io::{
    Disk, DiskError, ErrorKind, Finding, Result,
    finding::{Visit, join},
};
use names::Names;
use records::InUse;
use std::ops::Range;

/// Records that the $MFTMirr repeats.
const MIRRORED: u64 = 4;

/// What is said where the volume may be out of date.
fn because(open: Option<&str>) -> String {
    match open {
        Some(why) => format!(" (the volume was not closed: {why})"),
        None => String::new(),
    }
}

impl Volume {
    /// Visits what is not as it should be.
    pub(crate) fn check(&self, visit: Visit<'_>) -> Result<()> {
        self.check_boot(visit)?;
        self.check_mirror(visit)?;
        let open = self.why_open()?;
        let mut runs = Runs::default();
        let mut names = Names::new(self);
        let mut in_use = InUse::default();
        self.visit_in_use(&mut |number, record| {
            let damaged = |e| Finding::damage("ntfs-record-damaged", e);
            let record = match record {
                Ok(record) => record,
                Err(e) if e.kind() == ErrorKind::Io => return Err(e),
                Err(e) => {
                    visit(damaged(e).about(number));
                    return Ok(());
                }
            };
            in_use.add(number);
            let owner = record.base().map_or(number, |base| base.record);
            self.claims_of(record, &mut |claim| {
                match claim {
                    // NTFS has no more records than these; a larger number is of none.
                    Ok(claim) => {
                        if let Ok(record) = u32::try_from(claim.record) {
                            runs.add(record, claim.clusters);
                        }
                    }
                    Err(e) => visit(damaged(e).about(owner)),
                }
                Ok(())
            })?;
            if let Some(e) = self.lost_extension(record)? {
                visit(damaged(e).about(number));
            }
            names.record(record, visit)
        })?;
        names.finish(open.as_deref(), visit)?;
        self.check_record_bitmap(&in_use, open.as_deref(), visit)?;
        let Some(runs) = runs.sorted() else {
            let e = DiskError::refused("holding runs against each other")
                .expected(format!("at most {MOST} runs"));
            visit(Finding::note("ntfs-too-fragmented", e));
            return Ok(());
        };
        self.check_shared(&runs, visit);
        self.check_bitmap(&runs, open.as_deref(), visit)
    }

    fn bytes(&self, clusters: &Range<u64>) -> Range<u64> {
        let byte = |n: u64| n.saturating_mul(self.boot.cluster());
        byte(clusters.start)..byte(clusters.end)
    }

    /// Clusters that several runs have.
    fn check_shared(&self, runs: &Sorted, visit: Visit<'_>) {
        let mut told = Told::default();
        runs.shared(&mut |both, one, other| {
            let e = DiskError::corrupt("holding files' clusters against each other")
                .expected("each cluster in one file")
                .found(format!(
                    "clusters {} to {} in record {one} and in record {other}",
                    both.start,
                    both.end.saturating_sub(1),
                ));
            let finding = Finding::damage("ntfs-clusters-shared", e);
            told.tell(finding.touching([self.bytes(&both)]), visit);
        });
        told.finish(visit);
    }

    /// What files have must be in use in $Bitmap: else it is given to the next file. On a volume
    /// that was not closed the two may differ for a while.
    fn check_bitmap(&self, runs: &Sorted, open: Option<&str>, visit: Visit<'_>) -> Result<()> {
        let free = match self.free_in_bitmap() {
            Ok(free) => free,
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => {
                visit(Finding::warning("ntfs-bitmap-damaged", e));
                return Ok(());
            }
        };
        let mut wrong: Vec<Range<u64>> = Vec::new();
        let mut first = None;
        let mut at = 0usize;
        for (clusters, record) in runs.once() {
            let bytes = self.bytes(&clusters);
            while free.get(at).is_some_and(|f| f.end <= bytes.start) {
                at = at.saturating_add(1);
            }
            for range in free.iter().skip(at).take_while(|f| f.start < bytes.end) {
                first.get_or_insert(record);
                let both = range.start.max(bytes.start)..range.end.min(bytes.end);
                join(&mut wrong, both);
            }
        }
        let Some(record) = first else {
            return Ok(());
        };
        let lost: u64 = wrong.iter().map(|r| r.end.saturating_sub(r.start)).sum();
        let e = DiskError::corrupt("holding $Bitmap against files")
            .expected("every file's clusters to be in use")
            .found(format!(
                "{lost} bytes that are called free, the first of record {record}{}",
                because(open)
            ));
        wrong.truncate(EACH);
        visit(Finding::warning("ntfs-bitmap-free", e).touching(wrong));
        Ok(())
    }

    /// The first records and their copies.
    fn check_mirror(&self, visit: Visit<'_>) -> Result<()> {
        let mirror = File::open(self, 1, 0, false)
            .and_then(|f| f.content(kind::DATA, &[]))
            .map(|c| c.and_then(|c| c.into_runs()));
        let mirror = match mirror {
            Ok(Some(mirror)) => mirror,
            Ok(None) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => {
                visit(Finding::warning("ntfs-mirror-damaged", e));
                return Ok(());
            }
        };
        let size = u64::from(self.boot.record_size);
        for number in 0..MIRRORED {
            let at = number.saturating_mul(size);
            let read = |runs, what: &'static str| {
                let mut bytes = vec![0; size as usize];
                self.read_runs(runs, &mut bytes, at, &|| what.into())
                    .map(|()| bytes)
            };
            let (own, copy) = (
                read(&self.mft.runs, "the $MFT"),
                read(&mirror.runs, "the $MFTMirr"),
            );
            let (own, copy) = match (own, copy) {
                (Ok(own), Ok(copy)) => (own, copy),
                (Err(e), _) | (_, Err(e)) => {
                    visit(Finding::warning("ntfs-mirror-damaged", e));
                    continue;
                }
            };
            // The log's sequence number changes before the copy is written.
            let rest = |bytes: &[u8]| bytes.get(16..48).map(<[u8]>::to_vec);
            let same = own.get(..4) == copy.get(..4) && rest(&own) == rest(&copy);
            if !same {
                let e = DiskError::corrupt("comparing the $MFT with the $MFTMirr")
                    .expected(format!("record {number} twice"))
                    .found("another record in the copy");
                visit(Finding::warning("ntfs-mirror-differs", e));
            }
        }
        Ok(())
    }

    /// The boot sector and its copy: in the sector behind the file system, or in the volume's last
    /// one, where `ntfsresize` puts it after it has cut the sectors to whole clusters.
    fn check_boot(&self, visit: Visit<'_>) -> Result<()> {
        let sector = u64::from(self.boot.sector_size);
        let behind = self.boot.total_sectors.saturating_mul(sector);
        if behind.saturating_add(512) > self.disk.len() {
            // Images of a file system without its partition end here.
            return Ok(());
        }
        let own = self.boot_fields(0)?;
        let last = self.disk.len().saturating_sub(sector).max(behind);
        if own != self.boot_fields(behind)? && own != self.boot_fields(last)? {
            let e = DiskError::corrupt("comparing the boot sector with its copy")
                .offset(behind)
                .expected("the same sizes and places")
                .found("others: the first is used");
            visit(Finding::warning("ntfs-boot-copy-differs", e));
        }
        Ok(())
    }

    /// The fields of a boot sector. Behind them is code, which repair tools change in one place
    /// only.
    fn boot_fields(&self, at: u64) -> Result<[u8; 0x45]> {
        let mut fields = [0; 0x45];
        self.disk
            .read_exact_at(&mut fields, at.saturating_add(0x0b))?;
        Ok(fields)
    }
}
