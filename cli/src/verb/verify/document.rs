//! What `verify` found, as JSON: on standard output and in reports.

use crate::{
    exit::Exit,
    names::{hex_if_needed, shown},
};
use disk_io::{DiskError, Severity};
use serde::Serialize;
use std::{ops::Range, path::Path};
use verify::backup::{Item, Second, Verified, VolumeFinding};

#[derive(Serialize)]
pub(crate) struct Json {
    pub(crate) source: String,
    pub(crate) result: &'static str,
    pub(crate) created: Option<String>,
    pub(crate) files: Vec<ItemJson>,
    pub(crate) structure: StructureJson,
    pub(crate) contents: Vec<ItemJson>,
    pub(crate) guests: GuestsJson,
    /// Guest files against a baseline.
    pub(crate) baseline: Vec<ItemJson>,
    /// What a restore needs besides.
    pub(crate) restorable: Vec<ItemJson>,
    pub(crate) unproven: Vec<String>,
}

#[derive(Serialize)]
pub(crate) struct ItemJson {
    pub(crate) what: String,
    pub(crate) ok: bool,
    pub(crate) problem: Option<String>,
    /// Ranges of the disk that differ, where that can be told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ranges: Vec<RangeJson>,
    /// Guest files that lie in them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) touched: Vec<TouchedJson>,
}

#[derive(Serialize)]
pub(crate) struct RangeJson {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

#[derive(Serialize)]
pub(crate) struct TouchedJson {
    pub(crate) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path_hex: Option<String>,
    pub(crate) bytes: u64,
}

#[derive(Serialize)]
pub(crate) struct StructureJson {
    pub(crate) result: &'static str,
    pub(crate) layers: usize,
    pub(crate) damage: usize,
    pub(crate) warnings: usize,
    pub(crate) notes: usize,
    pub(crate) findings: Vec<FindingJson>,
}

#[derive(Serialize)]
pub(crate) struct FindingJson {
    pub(crate) code: &'static str,
    pub(crate) severity: &'static str,
    pub(crate) said: String,
    /// Bytes of the disk that it touches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ranges: Vec<RangeJson>,
}

#[derive(Serialize)]
pub(crate) struct GuestsJson {
    pub(crate) volumes: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) failed: Vec<FailedJson>,
    pub(crate) dropped: u64,
    pub(crate) structure: Vec<VolumeFindingJson>,
    pub(crate) remarks: Vec<String>,
    /// Files that were not part of the sample.
    pub(crate) left: u64,
    /// Whether the time was up before all were read.
    pub(crate) cut: bool,
    /// What a second reader says, if it was asked.
    pub(crate) cross_check: Option<SecondJson>,
}

#[derive(Serialize)]
pub(crate) struct SecondJson {
    /// Files that both read the same.
    pub(crate) same: u64,
    pub(crate) differ: Vec<FailedJson>,
    /// Files that it was not asked about.
    pub(crate) left: Vec<LeftJson>,
}

#[derive(Serialize)]
pub(crate) struct LeftJson {
    pub(crate) why: &'static str,
    pub(crate) files: u64,
}

#[derive(Serialize)]
pub(crate) struct VolumeFindingJson {
    pub(crate) volume: String,
    pub(crate) code: &'static str,
    pub(crate) severity: &'static str,
    pub(crate) said: String,
    pub(crate) touched: Vec<TouchedJson>,
}

#[derive(Serialize)]
pub(crate) struct FailedJson {
    pub(crate) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path_hex: Option<String>,
    pub(crate) kind: &'static str,
    pub(crate) problem: String,
}

impl Json {
    pub(crate) fn new(source: &Path, v: &Verified, exit: Exit) -> Self {
        let structure = &v.structure;
        let findings = structure.findings.iter().map(|r| FindingJson {
            code: r.finding.code,
            severity: r.finding.severity.as_str(),
            said: r.finding.error.to_string(),
            ranges: ranges(&r.finding.ranges),
        });
        Self {
            source: source.display().to_string(),
            result: result(exit),
            created: v.created.clone(),
            files: v.files.iter().map(item).collect(),
            structure: StructureJson {
                result: if v.is_structure_bad() { "bad" } else { "sound" },
                layers: structure.layers.len(),
                damage: structure.count(Severity::Damage),
                warnings: structure.count(Severity::Warning),
                notes: structure.count(Severity::Note),
                findings: findings.collect(),
            },
            contents: v.contents.iter().map(item).collect(),
            guests: GuestsJson {
                volumes: v.guests.volumes,
                files: v.guests.files,
                bytes: v.guests.bytes,
                failed: v.guests.failed.iter().map(failed).collect(),
                dropped: v.guests.dropped,
                structure: v.guests.structure.iter().map(volume_finding).collect(),
                remarks: v.guests.remarks.clone(),
                left: v.guests.left,
                cut: v.guests.cut,
                cross_check: v.guests.second.as_ref().map(second),
            },
            baseline: v.baseline.iter().map(item).collect(),
            restorable: v.restorable.iter().map(item).collect(),
            unproven: v.unproven.clone(),
        }
    }
}

fn result(exit: Exit) -> &'static str {
    match exit {
        Exit::Done => "proven",
        Exit::Partial => "unproven",
        _ => "bad",
    }
}

fn item(item: &Item) -> ItemJson {
    ItemJson {
        what: item.what.clone(),
        ok: item.problem.is_none(),
        problem: item.problem.as_ref().map(ToString::to_string),
        ranges: ranges(&item.ranges),
        touched: touched(&item.touched),
    }
}

fn ranges(ranges: &[Range<u64>]) -> Vec<RangeJson> {
    let ranges = ranges.iter().map(|r| RangeJson {
        offset: r.start,
        len: r.end.saturating_sub(r.start),
    });
    ranges.collect()
}

fn failed((path, e): &(Vec<u8>, DiskError)) -> FailedJson {
    FailedJson {
        path: shown(path),
        path_hex: hex_if_needed(path),
        kind: e.kind().as_str(),
        problem: e.to_string(),
    }
}

fn second(second: &Second) -> SecondJson {
    let left = second
        .left
        .iter()
        .map(|(why, files)| LeftJson { why, files: *files });
    SecondJson {
        same: second.same,
        differ: second.differ.iter().map(failed).collect(),
        left: left.collect(),
    }
}

fn touched(files: &[verify::Owner]) -> Vec<TouchedJson> {
    let files = files.iter().map(|t| TouchedJson {
        path: shown(&t.path),
        path_hex: hex_if_needed(&t.path),
        bytes: t.bytes,
    });
    files.collect()
}

fn volume_finding(f: &VolumeFinding) -> VolumeFindingJson {
    VolumeFindingJson {
        volume: f.volume.clone(),
        code: f.finding.code,
        severity: f.finding.severity.as_str(),
        said: f.finding.error.to_string(),
        touched: touched(&f.touched),
    }
}
