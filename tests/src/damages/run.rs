//! `vmdkit check` over a damaged image, and what it must say.

use super::{Damage, Files, Severity, Spot};
use crate::tools;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::{collections::BTreeSet, path::Path};

/// What is read of a report.
#[derive(Debug, Deserialize)]
pub struct Report {
    /// What was found.
    pub findings: Vec<Finding>,
    /// What limits it.
    pub remarks: Vec<String>,
}

/// One finding.
#[derive(Debug, Deserialize)]
pub struct Finding {
    /// Its kind.
    pub code: String,
    /// How bad.
    pub severity: String,
    /// In which file.
    pub file: Option<String>,
    /// Where.
    pub offset: Option<u64>,
    /// While doing what.
    pub doing: String,
    /// What a sound image has.
    pub expected: Option<String>,
    /// What this one has.
    pub found: Option<String>,
    /// What that means.
    pub means: Option<String>,
    /// Bytes of the disk.
    pub ranges: Vec<Bytes>,
    /// Guest files.
    pub guest_files: Vec<GuestFile>,
}

/// A range.
#[derive(Debug, Deserialize)]
pub struct Bytes {
    /// Where.
    pub offset: u64,
    /// How long.
    pub length: u64,
}

/// A guest file.
#[derive(Debug, Deserialize)]
pub struct GuestFile {
    /// Its path.
    pub path: String,
}

/// Writes the files and checks the one that is to be opened.
pub fn check(files: &Files) -> Result<Report> {
    let dir = tempfile::tempdir()?;
    for (name, bytes) in &files.files {
        bytes.write(&dir.path().join(name))?;
    }
    check_path(&dir.path().join(&files.open))
}

/// Checks an image with the guests in it.
pub fn check_path(path: &Path) -> Result<Report> {
    let out = tools::command(tools::vmdkit()?.to_str().context("a name")?)
        .args(["check", "--guests", "--json", "-j", "1"])
        .arg(path)
        .output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    if !matches!(out.status.code(), Some(0 | 4)) {
        bail!("{}: {said}", out.status);
    }
    let report: Report = serde_json::from_slice(&out.stdout).context(said.into_owned())?;
    let bad = report.findings.iter().any(|f| f.severity != "note");
    if bad != (out.status.code() == Some(4)) {
        bail!("{} with {report:#?}", out.status);
    }
    Ok(report)
}

/// Plants a fault and says what is wrong with what is found; nothing if all is right.
pub fn faults_of(damage: &Damage) -> Result<Vec<String>> {
    let mut files = damage.base.files();
    let spot = (damage.plant)(&mut files);
    let report = check(&files)?;
    Ok(judge(damage, &spot, &report))
}

fn judge(damage: &Damage, spot: &Spot, report: &Report) -> Vec<String> {
    let mut wrong = Vec::new();
    let wanted = damage.severity.as_str();
    let hits: Vec<&Finding> = report
        .findings
        .iter()
        .filter(|f| f.code == damage.code && f.severity == wanted)
        .collect();
    let worse = report.findings.iter().filter(|f| f.severity != "note");
    let codes: BTreeSet<&str> = worse.map(|f| f.code.as_str()).collect();
    let mut expected: BTreeSet<&str> = damage.also.iter().copied().collect();
    if damage.severity != Severity::Note {
        expected.insert(damage.code);
    }
    if hits.is_empty() {
        wrong.push(format!("{} ({wanted}) is not found", damage.code));
    } else if codes != expected {
        wrong.push(format!("expected the kinds {expected:?}"));
    }
    if !hits.is_empty() {
        let placed = hits.iter().any(|f| is_placed(f, spot));
        if !placed {
            wrong.push(format!("not placed at {spot:?}"));
        }
        let files: BTreeSet<&str> = hits
            .iter()
            .flat_map(|f| f.guest_files.iter().map(|g| g.path.as_str()))
            .collect();
        if files != damage.files.iter().copied().collect() {
            wrong.push(format!("touches {files:?}, expected {:?}", damage.files));
        }
    }
    if let Some(f) = report.findings.iter().find(|f| f.means.is_none()) {
        wrong.push(format!("{} is not explained", f.code));
    }
    if !wrong.is_empty() {
        let all = report.findings.iter().take(8).map(Finding::line);
        wrong.push(format!(
            "found {}: {}",
            report.findings.len(),
            all.collect::<Vec<_>>().join("\n         ")
        ));
    }
    wrong
}

impl Finding {
    /// In one line.
    pub fn line(&self) -> String {
        let file = self.file.as_deref().and_then(|f| f.rsplit('/').next());
        let ranges: Vec<_> = self.ranges.iter().map(|r| (r.offset, r.length)).collect();
        let files: Vec<_> = self.guest_files.iter().map(|g| &g.path).collect();
        let [expected, found] = [&self.expected, &self.found].map(|s| s.as_deref().unwrap_or("-"));
        format!(
            "{} {} in {} at {:?}: {}: {expected} / {found}; bytes {ranges:?}; files {files:?}",
            self.severity,
            self.code,
            file.unwrap_or("-"),
            self.offset,
            self.doing,
        )
    }
}

fn is_placed(f: &Finding, spot: &Spot) -> bool {
    let file = spot.file.is_empty()
        || f.file
            .as_deref()
            .is_some_and(|file| file.rsplit('/').next() == Some(spot.file));
    let offset = |at: &std::ops::Range<u64>| f.offset.is_some_and(|o| at.contains(&o));
    let place = spot.at.as_ref().is_none_or(offset);
    let guest = spot.guest.is_none_or(|byte| {
        let holds = |r: &Bytes| (r.offset..r.offset + r.length).contains(&byte);
        f.ranges.iter().any(holds)
    });
    file && place && guest
}
