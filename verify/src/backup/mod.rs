//! A backup from end to end: its files, its structure, what its disks hold, every guest
//! file read, and whether a machine could be made of it.

mod baseline;
mod contents;
mod earlier;
mod effort;
mod files;
mod guests;
mod members;
mod picture;
mod restorable;
mod run;
mod second;

pub use crate::volumes::VolumeFinding;
pub use baseline::Baseline;
pub use effort::Limits;
pub use guests::Guests;
pub use picture::{Area, Picture};
pub use run::verify;
pub use second::Second;

use crate::{
    check::{self, Report},
    owners::{Owner, owners},
};
use disk_io::{DiskError, ErrorKind, Result, Severity};
use proxy::{DOUBTFUL, Source, SourceSpec, Tree, TreeOptions};
use std::{ops::Range, path::PathBuf, sync::Arc};

/// Problems with guest files that are kept; beyond, only counted.
const MOST: usize = 10_000;

/// How to verify.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How structure is checked.
    pub check: check::Options,
    /// Read every guest file to its end.
    pub guest_files: bool,
    /// Compare the contents with another disk or machine.
    pub against: Option<SourceSpec>,
    /// With `against`, stop at the first difference.
    pub first: bool,
    /// Of the manifest's files only lengths and CRC-32, of contents and guests nothing.
    pub quick: bool,
    /// What guest files should be.
    pub baseline: Option<Baseline>,
    /// Read NTFS and FAT again with other readers.
    pub cross_check: bool,
    /// How much is looked at.
    pub limits: Limits,
    /// Where what is proven is kept, so that a later run goes on: for backups with a manifest.
    pub state: Option<PathBuf>,
    /// Where a machine would be restored to: room and names are looked at.
    pub target: Option<PathBuf>,
}

impl Options {
    /// What is asked of a source, as far as what was proven in another run depends on it.
    fn asked(&self, spec: &SourceSpec) -> String {
        let check::Options { decode, guests, .. } = self.check;
        let Self {
            guest_files,
            cross_check,
            ..
        } = self;
        format!("{spec:?} {decode} {guests} {guest_files} {cross_check}")
    }
}

/// A part of the evidence.
#[derive(Clone, Debug)]
pub struct Item {
    /// What was verified: `file web01.vmdk`, `contents of scsi0:0`.
    pub what: String,
    /// Nothing if it is as it should be.
    pub problem: Option<DiskError>,
    /// Ranges of the disk that are not as they should be, where that can be told.
    pub ranges: Vec<Range<u64>>,
    /// Guest files that lie in them.
    pub touched: Vec<Owner>,
}

impl Item {
    fn new(what: String, problem: Option<DiskError>) -> Self {
        Self {
            what,
            problem,
            ranges: Vec::new(),
            touched: Vec::new(),
        }
    }

    /// Names the ranges that differ, and the guest files in them.
    fn place(mut self, source: &Arc<Source>, ranges: Vec<Range<u64>>) -> Result<Self> {
        if self.problem.is_none() || ranges.is_empty() {
            return Ok(self);
        }
        let tree = Tree::new(source.clone(), TreeOptions::default())?;
        self.touched = owners(&tree, &ranges).files;
        self.ranges = ranges;
        Ok(self)
    }
}

/// What verifying came to.
#[derive(Debug)]
pub struct Verified {
    /// When the backup was made, if it says.
    pub created: Option<String>,
    /// Files against the manifest.
    pub files: Vec<Item>,
    /// Structure.
    pub structure: Report,
    /// Contents against the manifest, or another source.
    pub contents: Vec<Item>,
    /// Guest files.
    pub guests: Guests,
    /// Guest files against a baseline.
    pub baseline: Vec<Item>,
    /// What a restore needs besides.
    pub restorable: Vec<Item>,
    /// Every disk at a glance.
    pub pictures: Vec<Picture>,
    /// Whether it is a machine.
    pub is_machine: bool,
    /// The backup that it builds on, if it holds only what changed.
    pub since: Option<String>,
    /// Why it is not proven, one sentence each.
    pub unproven: Vec<String>,
}

impl Verified {
    /// Whether something is not as it should be.
    pub fn is_bad(&self) -> bool {
        let bad = |items: &[Item]| items.iter().any(|i| i.problem.is_some());
        let damage = self.guests.failed.iter().any(|(_, e)| {
            // What is only not read here says nothing about the backup, and what makes names
            // doubtful is damage where the volume's structures say so.
            matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::OutOfRange)
                && e.code_text() != Some(DOUBTFUL)
        });
        let broken = |f: &VolumeFinding| f.finding.severity == Severity::Damage;
        let volumes = self.guests.structure.iter().any(broken);
        let second = self.guests.second.as_ref();
        bad(&self.files)
            || bad(&self.contents)
            || bad(&self.baseline)
            || bad(&self.restorable)
            || self.is_structure_bad()
            || damage
            || volumes
            || second.is_some_and(|s| !s.differ.is_empty())
    }

    /// Whether the structure of an image is not as it should be.
    pub fn is_structure_bad(&self) -> bool {
        let wrong = |r: &check::Reported| r.finding.severity > Severity::Note && !is_crash(r);
        self.structure.dropped > 0 || self.structure.findings.iter().any(wrong)
    }

    /// Whether something could not be looked at or has nothing to be compared with.
    pub fn is_partial(&self) -> bool {
        !self.unproven.is_empty()
            || !self.guests.failed.is_empty()
            || self.structure.findings.iter().any(is_crash)
    }
}

/// Whether a finding only says that an image is as a crash left it: what was made of a running
/// machine is, and it would restore.
fn is_crash(reported: &check::Reported) -> bool {
    matches!(
        reported.finding.code,
        "log-not-replayed" | "unclean-shutdown"
    )
}
