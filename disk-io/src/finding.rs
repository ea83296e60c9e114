//! What a check found: typed, with its place and the bytes of the guest's disk that it is
//! about. Every layer that can be checked speaks in these.

use crate::error::DiskError;
use std::ops::Range;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing, and nothing is wrong with the guest's bytes: lost space, oddities.
    Note,
    /// What protects the bytes is damaged, or the image was not left as a sound writer
    /// leaves it; the bytes themselves can be read.
    Warning,
    /// Bytes of the guest are wrong, cannot be read, or cannot be told to be right.
    Damage,
}

impl Severity {
    /// A stable lower-case word, as used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Damage => "damage",
        }
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which kind, stable: `grain-outside-file`. The list is docs/check.md's.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at, where, what was expected and what was found.
    pub error: DiskError,
    /// Bytes of the virtual disk that it touches, in order; empty if none, or if they
    /// cannot be told.
    pub ranges: Vec<Range<u64>>,
    /// Objects of the guest's file system that it is about, by their records; only findings of
    /// guests' volumes have any.
    pub nodes: Vec<u64>,
}

impl Finding {
    /// A finding; a code that the error carries itself is more precise and wins.
    pub fn new(code: &'static str, severity: Severity, error: DiskError) -> Self {
        Self {
            code: error.code_text().unwrap_or(code),
            severity,
            error,
            ranges: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// [`Severity::Note`].
    pub fn note(code: &'static str, error: DiskError) -> Self {
        Self::new(code, Severity::Note, error)
    }

    /// [`Severity::Warning`].
    pub fn warning(code: &'static str, error: DiskError) -> Self {
        Self::new(code, Severity::Warning, error)
    }

    /// [`Severity::Damage`].
    pub fn damage(code: &'static str, error: DiskError) -> Self {
        Self::new(code, Severity::Damage, error)
    }

    /// The same, touching `ranges` of the disk.
    pub fn touching(mut self, ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        self.ranges.extend(ranges);
        self
    }

    /// The same, being about the object with this record.
    pub fn about(mut self, node: u64) -> Self {
        self.nodes.push(node);
        self
    }
}

/// Adds a range to ranges in order, continuing the last where it can.
pub fn join(ranges: &mut Vec<Range<u64>>, next: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end >= next.start && last.start <= next.start => {
            last.end = last.end.max(next.end);
        }
        _ => ranges.push(next),
    }
}

/// Where findings go.
pub type Visit<'a> = &'a mut dyn FnMut(Finding);
