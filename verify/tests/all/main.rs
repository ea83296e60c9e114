//! Planted damage: each fault, made by code, is found, named, placed, and mapped to the
//! guest's files; and nothing is found on what is sound.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing
)]

mod guest;
mod portable;
mod vmdk_chains;
mod vmdk_extents;

use disk_io::Severity;
use proxy::SourceSpec;
use std::path::{Path, PathBuf};
use verify::{Options, Report, check};

/// A directory of files that a test changes and checks.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn get(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.get(name);
        change(&mut bytes);
        self.put(name, bytes);
    }

    pub(crate) fn check(&self, name: &str) -> Report {
        check_path(&self.path(name))
    }
}

pub(crate) fn check_path(path: &Path) -> Report {
    try_check(path).unwrap()
}

pub(crate) fn try_check(path: &Path) -> disk_io::Result<Report> {
    let spec = SourceSpec {
        path: path.to_path_buf(),
        ..SourceSpec::default()
    };
    let options = Options {
        decode: true,
        files: true,
        guests: true,
        jobs: 2,
    };
    check(&spec, &options, &mut |_| {})
}

/// Asserts that `code` is found with this severity, and gives the guest files it touches.
pub(crate) fn found(report: &Report, what: &str, code: &str, severity: Severity) -> Vec<String> {
    let codes: Vec<_> = report
        .findings
        .iter()
        .map(|r| {
            format!(
                "{} {}: {}",
                r.finding.severity.as_str(),
                r.finding.code,
                r.finding.error
            )
        })
        .collect();
    let hits = report
        .findings
        .iter()
        .filter(|r| r.finding.code == code && r.finding.severity == severity);
    let hits: Vec<_> = hits.collect();
    assert!(!hits.is_empty(), "{what}: {code} not found in {codes:#?}");
    for r in &report.findings {
        let known = verify::explain::explain(r.finding.code);
        assert!(
            known.is_some(),
            "{what}: {} is not explained",
            r.finding.code
        );
    }
    let mut files: Vec<String> = hits
        .iter()
        .flat_map(|r| r.files.iter())
        .map(|o| String::from_utf8(o.path.clone()).unwrap())
        .collect();
    files.sort();
    files.dedup();
    files
}

/// Asserts that nothing worse than a note is found.
pub(crate) fn sound(report: &Report, what: &str) {
    let bad: Vec<_> = report
        .findings
        .iter()
        .filter(|r| r.finding.severity > Severity::Note)
        .map(|r| format!("{}: {}", r.finding.code, r.finding.error))
        .collect();
    assert!(bad.is_empty() && !report.is_bad(), "{what}: {bad:#?}");
}
