//! Findings that are told one by one: so many of each kind, so that none hides another.

use disk_io::{DiskError, Finding, Severity, finding::Visit};
use std::collections::BTreeMap;

/// Findings of a kind that are told one by one.
pub(crate) const EACH: usize = 1000;

/// How many of each kind were found.
#[derive(Debug, Default)]
pub(crate) struct Told {
    kinds: BTreeMap<(&'static str, Severity), usize>,
}

impl Told {
    /// Tells of a finding, unless there were many of its kind.
    pub(crate) fn tell(&mut self, finding: Finding, visit: Visit<'_>) {
        let count = self
            .kinds
            .entry((finding.code, finding.severity))
            .or_default();
        *count = count.saturating_add(1);
        if *count <= EACH {
            visit(finding);
        }
    }

    /// Tells how many were left out.
    pub(crate) fn finish(self, visit: Visit<'_>) {
        for ((code, severity), count) in self.kinds {
            let more = count.saturating_sub(EACH);
            if more > 0 {
                let e = DiskError::corrupt("listing what is wrong")
                    .expected(format!("at most {EACH} findings of a kind"))
                    .found(format!("{more} more, which are not listed"));
                visit(Finding::new(code, severity, e));
            }
        }
    }
}
