//! Reading the $MFT from front to back: every file at once, and deleted ones.

use super::{
    file::{Content, File},
    index::namespace,
    node::file_names,
    record::{Chunk, Record, Slot, kind},
    runs::{Piece, RunList, Where},
    volume::{FIRST_USER, Ntfs, Volume},
};
use crate::{
    Name,
    fs::{DELETED, Found},
};
use disk_io::{DiskError, Result};
use std::{collections::HashSet, ops::ControlFlow, sync::Arc};

/// Bytes of the $MFT read at once.
pub(crate) const STEP: u64 = 1 << 20;
/// $Extend's record.
const EXTEND: u64 = 11;

/// What a scan hands over.
type Visit<'a> = &'a mut dyn FnMut(Result<Found>) -> ControlFlow<()>;

impl Ntfs {
    /// Visits base records that are in use, or that are not.
    pub(crate) fn visit_records(&self, deleted: bool, visit: Visit<'_>) {
        let volume = &self.volume;
        let count = volume.record_count();
        let step = STEP
            .checked_div(u64::from(volume.boot.record_size))
            .unwrap_or(1);
        // What lies below $Extend: metafiles too, with the numbers of users' files.
        let mut below_extend: HashSet<u64> = HashSet::from([EXTEND]);
        let mut first = 0;
        while first < count {
            let chunk = Arc::new(volume.read_chunk(first, step));
            for number in first..count.min(first.saturating_add(step)) {
                if number < FIRST_USER {
                    continue;
                }
                let found = match slot(&chunk, number) {
                    Some(Slot::Empty) | None => continue,
                    // Damage of unused records is nobody's loss.
                    Some(Slot::Bad(_)) if deleted => continue,
                    Some(Slot::Bad(e)) => Err(e.clone()),
                    Some(Slot::Good) => {
                        let Ok(record) = chunk.get(number) else {
                            continue;
                        };
                        if record.in_use() == deleted || record.base().is_some() {
                            continue;
                        }
                        if deleted && !worth_showing(&record) {
                            continue;
                        }
                        self.found(record, deleted)
                    }
                };
                let is_meta = found.as_ref().is_ok_and(|f| {
                    let mut parents = f.names.iter().map(|n| n.0.record);
                    parents.any(|p| below_extend.contains(&p))
                });
                if is_meta {
                    below_extend.insert(number);
                    continue;
                }
                if visit(found).is_break() {
                    return;
                }
            }
            first = first.saturating_add(step);
        }
    }

    fn found(&self, record: Record, deleted: bool) -> Result<Found> {
        let file = File::from_record(&self.volume, record, deleted)?;
        let mut facts = self.facts(&file)?;
        if deleted {
            facts.metadata.node.record |= DELETED;
        }
        let names = file_names(&file)
            .0
            .into_iter()
            .filter(|n| n.namespace != namespace::DOS)
            .map(|n| (n.parent.into(), Name::from_utf16(n.units)))
            .collect();
        Ok(Found {
            metadata: facts.metadata,
            names,
        })
    }
}

/// What a chunk knows of a record.
pub(crate) fn slot(chunk: &Chunk, number: u64) -> Option<&Slot> {
    let index = usize::try_from(number.checked_sub(chunk.first)?).ok()?;
    chunk.slots.get(index)
}

/// Whether a record that nobody uses still holds a file: it has a name.
fn worth_showing(record: &Record) -> bool {
    record
        .attributes()
        .flatten()
        .any(|(_, a)| a.kind == kind::FILE_NAME || a.kind == kind::ATTRIBUTE_LIST)
}

impl Volume {
    /// The contents of a deleted file, with every cluster that was given away since lost.
    pub(crate) fn spare_reused(&self, content: Content) -> Result<Content> {
        let Content::Clusters(mut clusters) = content else {
            return Ok(content);
        };
        let bitmap = File::open(self, 6, 0, false)?
            .content(kind::DATA, &[])?
            .and_then(Content::into_runs)
            .ok_or_else(|| DiskError::corrupt("reading $Bitmap").found("no clusters"))?;
        clusters.runs = clusters
            .runs
            .rebuild(|piece, lcn, out| self.spare_piece(&bitmap.runs, piece, lcn, out))?;
        Ok(Content::Clusters(clusters))
    }

    fn spare_piece(
        &self,
        bitmap: &RunList,
        piece: &Piece,
        lcn: u64,
        out: &mut RunList,
    ) -> Result<()> {
        const BITS: u64 = 1 << 19;
        let end = lcn.saturating_add(piece.clusters);
        let lost = || {
            DiskError::corrupt("reading a deleted file")
                .found("clusters that belong to another file now")
        };
        if end > self.boot.clusters() {
            return out.push_lost(
                piece.clusters,
                DiskError::corrupt("reading a deleted file").found("clusters outside the volume"),
            );
        }
        let mut at = lcn;
        while at < end {
            let byte = at / 8;
            let stop = end.min(byte.saturating_mul(8).saturating_add(BITS));
            let mut bits =
                vec![0u8; stop.saturating_sub(byte.saturating_mul(8)).div_ceil(8) as usize];
            self.read_runs(bitmap, &mut bits, byte, &|| "$Bitmap".into())?;
            let used = |cluster: u64| {
                let index = (cluster / 8).saturating_sub(byte) as usize;
                bits.get(index).is_none_or(|b| b >> (cluster % 8) & 1 == 1)
            };
            while at < stop {
                let first = used(at);
                let from = at;
                while at < stop && used(at) == first {
                    at = at.saturating_add(1);
                }
                let n = at.saturating_sub(from);
                if first {
                    out.push_lost(n, lost())?;
                } else {
                    out.push(n, Where::At(from))?;
                }
            }
        }
        Ok(())
    }
}
