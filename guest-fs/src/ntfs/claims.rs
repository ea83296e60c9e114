//! Which records have which clusters.

use super::{
    record::{Form, Record, Slot},
    runs,
    scan::{STEP, slot},
    volume::Volume,
};
use disk_io::{DiskError, Result};
use std::{ops::Range, sync::Arc};

/// Clusters that an attribute of a record in use has.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// The base record: an extension record's clusters are its base's.
    pub(crate) record: u64,
    /// Clusters of the volume.
    pub(crate) clusters: Range<u64>,
}

impl Volume {
    /// Visits every record in use, by its number; one that cannot be read is an error to visit,
    /// and the others still come.
    ///
    /// # Errors
    /// What `visit` returns.
    pub(crate) fn visit_in_use(
        &self,
        visit: &mut dyn FnMut(u64, Result<&Record>) -> Result<()>,
    ) -> Result<()> {
        let count = self.record_count();
        let step = STEP
            .checked_div(u64::from(self.boot.record_size))
            .unwrap_or(1);
        let mut first = 0;
        while first < count {
            let chunk = Arc::new(self.read_chunk(first, step));
            for number in first..count.min(first.saturating_add(step)) {
                match slot(&chunk, number) {
                    Some(Slot::Good) => {
                        let record = chunk.get(number)?;
                        if record.in_use() {
                            visit(number, Ok(&record))?;
                        }
                    }
                    Some(Slot::Bad(e)) => visit(number, Err(e.clone()))?,
                    Some(Slot::Empty) | None => {}
                }
            }
            first = first.saturating_add(step);
        }
        Ok(())
    }

    /// Visits every claim on clusters, record by record. A record that cannot be read, and runs
    /// that cannot be decoded, are errors to visit; the others still come.
    ///
    /// # Errors
    /// What `visit` returns.
    pub(crate) fn visit_claims(
        &self,
        visit: &mut dyn FnMut(Result<Claim>) -> Result<()>,
    ) -> Result<()> {
        self.visit_in_use(&mut |_, record| match record {
            Ok(record) => self.claims_of(record, visit),
            Err(e) => visit(Err(e)),
        })
    }

    /// The claims of one record in use.
    pub(crate) fn claims_of(
        &self,
        record: &Record,
        visit: &mut dyn FnMut(Result<Claim>) -> Result<()>,
    ) -> Result<()> {
        let owner = record.base().map_or(record.number, |base| base.record);
        for attribute in record.attributes() {
            let attribute = match attribute {
                Ok((_, attribute)) => attribute,
                // There is nothing behind it.
                Err(e) => return visit(Err(e)),
            };
            let Form::NonResident(form) = &attribute.form else {
                continue;
            };
            let doing = || format!("reading the data runs of record {}", record.number);
            let runs = match runs::decode(form.runs) {
                Ok(runs) => runs,
                Err(e) => {
                    visit(Err(e.context(doing())))?;
                    continue;
                }
            };
            let end = runs
                .iter()
                .try_fold(form.lowest, |end, run| end.checked_add(run.0));
            if end != Some(form.end) {
                visit(Err(DiskError::corrupt(doing())
                    .expected(format!("clusters {} to {}", form.lowest, form.end))
                    .found(end.map_or("too many".into(), |end| {
                        format!("runs up to {end}")
                    }))))?;
            }
            for (clusters, place) in runs {
                let Some(lcn) = place else { continue };
                let end = lcn.checked_add(clusters);
                visit(match end.filter(|end| *end <= self.boot.clusters()) {
                    Some(end) => Ok(Claim {
                        record: owner,
                        clusters: lcn..end,
                    }),
                    None => Err(DiskError::corrupt(doing())
                        .expected(format!("a volume of {} clusters", self.boot.clusters()))
                        .found(format!("{clusters} clusters from cluster {lcn} on"))),
                })?;
            }
        }
        Ok(())
    }
}
