//! `check`: whether the structure of an image and its chain is sound; a mended copy.

mod repair;

use crate::{
    args::{Global, SourceArgs},
    exit::{Exit, Failure},
    names::{hex_if_needed, shown},
    output::{Out, human},
    progress::Bar,
    source,
};
use clap::Args;
use convert::{Progress, place::Partial};
use disk_io::{Severity, error::escape};
use guest_fs::Name;
use serde::Serialize;
use std::{os::unix::ffi::OsStrExt, path::PathBuf};
use verify::{Options, Report, Reported, explain};

/// Guest files and ranges that are shown of one finding; --json has all of them.
const SHOWN: usize = 8;

/// Check the structure of an image and its chain: tables, places, counts, digests
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit check web01-000002.vmdk          every link down to the base
  vmdkit check export.ova                 the manifest, then every disk in it
  vmdkit check --guests web01.vmdk        and the file systems in it
  vmdkit check -D lun.img web01/web01.vmdk
  vmdkit check --json web01.vmdk | jq -r '.findings[].guest_files[].path'
  vmdkit check --repair mended.vmdk broken.vmdk     exit code 0: mended, 3: something is lost or doubtful

SOURCE is never written to. What is found is damage (bytes are wrong or cannot be read), a warning
(they can be read, and what protects them is damaged) or a note (nothing is wrong with them);
docs/check.md lists every kind. Exit code 0: sound, notes at most; 4: damage or warnings.")]
pub(crate) struct Check {
    #[command(flatten)]
    source: SourceArgs,
    /// Do not decode what is compressed: fast, and damage inside grains stays unseen
    #[arg(long)]
    no_decode: bool,
    /// Do not look for the guest files that a finding touches
    #[arg(long)]
    no_files: bool,
    /// Also hold the structures of the guests' file systems against each other, as verify does
    #[arg(long)]
    guests: bool,
    /// Threads; 0 is one for each processor
    #[arg(long, short = 'j', value_name = "N", default_value_t = 0)]
    jobs: usize,
    /// Write a mended copy: everything that can be read, in sound tables, on the same parent.
    /// SOURCE stays as it is
    #[arg(long, value_name = "OUT")]
    repair: Option<PathBuf>,
    /// With --repair, replace OUT if it exists
    #[arg(long, short, requires = "repair")]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json<'a> {
    source: String,
    format: &'static str,
    result: &'static str,
    layers: Vec<LayerJson>,
    findings: Vec<FindingJson<'a>>,
    damage: usize,
    warnings: usize,
    notes: usize,
    dropped: u64,
    remarks: &'a [String],
}

#[derive(Serialize)]
struct LayerJson {
    disk: Option<String>,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_hex: Option<String>,
    format: &'static str,
    size: u64,
    stored: u64,
    zero: u64,
    below: u64,
    bad: u64,
    units_decoded: u64,
}

#[derive(Serialize)]
struct FindingJson<'a> {
    code: &'static str,
    severity: &'static str,
    file: Option<&'a str>,
    offset: Option<u64>,
    doing: &'a str,
    expected: Option<&'a str>,
    found: Option<&'a str>,
    means: Option<&'static str>,
    todo: Option<&'a str>,
    ranges: Vec<RangeJson>,
    guest_files: Vec<OwnerJson>,
}

#[derive(Serialize)]
struct RangeJson {
    offset: u64,
    length: u64,
}

#[derive(Serialize)]
struct OwnerJson {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    bytes: u64,
}

impl Check {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        let spec = source::spec_of(&self.source, global)?;
        if let Some(out) = &self.repair {
            // What is refused is refused before an hour of checking.
            drop(Partial::create(out, self.force)?);
        }
        let options = Options {
            decode: !self.no_decode,
            files: !self.no_files,
            guests: self.guests,
            jobs: self.jobs,
        };
        let bar = Bar::new(global, 0);
        let mut last = (String::new(), 0);
        let report = verify::check(&spec, &options, &mut |step| {
            if last.0 != step.file {
                bar.grow(step.of);
                last = (step.file.to_owned(), 0);
            }
            bar.advance(step.done.saturating_sub(last.1));
            last.1 = step.done;
        })?;
        drop(bar);
        match (self.json, &self.repair) {
            // The document is of the copy then.
            (true, Some(_)) => {}
            (true, None) => self.print_json(&report)?,
            (false, _) => print_text(&report)?,
        }
        if let Some(out) = &self.repair {
            return self.repair(&spec, out, global);
        }
        Ok(if report.is_bad() {
            Exit::Bad
        } else {
            Exit::Done
        })
    }

    fn print_json(&self, report: &Report) -> Result<(), Failure> {
        let layers = report.layers.iter().map(|l| {
            let name = l.path.as_os_str().as_bytes();
            LayerJson {
                disk: l.disk.clone(),
                file: shown(name),
                file_hex: hex_if_needed(name),
                format: l.format.name(),
                size: l.len,
                stored: l.held.stored,
                zero: l.held.zero,
                below: l.held.below,
                bad: l.held.bad,
                units_decoded: l.held.units,
            }
        });
        let json = Json {
            source: shown(self.source.source.as_os_str().as_bytes()),
            format: report.format.name(),
            result: if report.is_bad() { "bad" } else { "sound" },
            layers: layers.collect(),
            findings: report.findings.iter().map(finding_json).collect(),
            damage: report.count(Severity::Damage),
            warnings: report.count(Severity::Warning),
            notes: report.count(Severity::Note),
            dropped: report.dropped,
            remarks: &report.remarks,
        };
        let mut out = Out::new();
        out.document(&json)?;
        out.finish()
    }
}

fn finding_json(reported: &Reported) -> FindingJson<'_> {
    let f = &reported.finding;
    let (expected, found) = f.error.difference();
    let explained = explain::explain(f.code);
    FindingJson {
        code: f.code,
        severity: f.severity.as_str(),
        file: f.error.file_name(),
        offset: f.error.at(),
        doing: f.error.doing(),
        expected,
        found,
        means: explained.map(|e| e.means),
        todo: f.error.hint_text().or(explained.map(|e| e.todo)),
        ranges: f
            .ranges
            .iter()
            .map(|r| RangeJson {
                offset: r.start,
                length: r.end.saturating_sub(r.start),
            })
            .collect(),
        guest_files: reported
            .files
            .iter()
            .map(|o| OwnerJson {
                path: shown(&o.path),
                path_hex: hex_if_needed(&o.path),
                bytes: o.bytes,
            })
            .collect(),
    }
}

fn print_text(report: &Report) -> Result<(), Failure> {
    let mut out = Out::new();
    for layer in &report.layers {
        let disk = layer.disk.as_deref().map(|d| format!("{d}: "));
        let held = &layer.held;
        out.line(format!(
            "{}{}: {}, {}, {} stored{}",
            escape(&disk.unwrap_or_default()),
            escape(&layer.path.display().to_string()),
            layer.format.name(),
            human(layer.len),
            human(held.stored),
            match held.bad {
                0 => String::new(),
                bad => format!(", {} UNREADABLE", human(bad)),
            }
        ))?;
    }
    for reported in &report.findings {
        print_finding(&mut out, reported)?;
    }
    for remark in &report.remarks {
        out.line(format!("note: {}", escape(remark)))?;
    }
    let (damage, warnings) = (
        report.count(Severity::Damage),
        report.count(Severity::Warning),
    );
    let notes = report.count(Severity::Note);
    let dropped = match report.dropped {
        0 => String::new(),
        n => format!("; {n} more findings were not kept"),
    };
    out.line(match (damage, warnings, notes) {
        (0, 0, 0) => "sound: nothing found".to_owned(),
        (0, 0, n) => format!("sound: {n} notes{dropped}"),
        (d, w, n) => format!("BAD: {d} damage, {w} warnings, {n} notes{dropped}"),
    })?;
    out.finish()
}

fn print_finding(out: &mut Out, reported: &Reported) -> Result<(), Failure> {
    let f = &reported.finding;
    let (said, hint) = crate::exit::split_hint(&f.error);
    out.line(format!("{}: {}: {said}", f.severity.as_str(), f.code))?;
    if !f.ranges.is_empty() {
        let ranges = f.ranges.iter().take(SHOWN);
        let ranges: Vec<_> = ranges
            .map(|r| format!("{}+{}", r.start, r.end.saturating_sub(r.start)))
            .collect();
        let more = more(f.ranges.len());
        out.line(format!("  disk bytes: {}{more}", ranges.join(", ")))?;
    }
    for owner in reported.files.iter().take(SHOWN) {
        let path = Name::from_bytes(owner.path.clone()).to_string();
        // Of an object as a whole no bytes are told.
        match owner.bytes {
            0 => out.line(format!("  guest file: {path}"))?,
            bytes => out.line(format!("  guest file: {path} ({bytes} bytes)"))?,
        }
    }
    if reported.files.len() > SHOWN {
        out.line(format!("  guest files:{}", more(reported.files.len())))?;
    }
    if f.severity > Severity::Note
        && let Some(e) = explain::explain(f.code)
    {
        out.line(format!("  means: {}", e.means))?;
        out.line(format!("  do: {}", hint.unwrap_or(e.todo)))?;
    }
    Ok(())
}

fn more(all: usize) -> String {
    match all.checked_sub(SHOWN) {
        Some(n) if n > 0 => format!(" and {n} more"),
        _ => String::new(),
    }
}
