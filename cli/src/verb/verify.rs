//! `verify`: whether a backup would restore.

use crate::{
    args::{Global, SourceArgs},
    exit::{Exit, Failure, split_hint},
    names::{hex_if_needed, shown},
    output::{Out, human},
    progress::Bar,
    source,
};
use clap::Args;
use convert::Progress;
use disk_io::{Severity, error::escape};
use guest_fs::Name;
use proxy::SourceSpec;
use serde::Serialize;
use std::path::PathBuf;
use verify::{
    backup::{Item, Options, Verified, VolumeFinding},
    check::Options as CheckOptions,
};

/// Guest files that are named; --json has all of them.
const SHOWN: usize = 20;

/// Prove that a backup would restore: files, structure, contents, every guest file
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit verify /backups/web01-2026-11-26
  vmdkit verify copy.qcow2 --against web01.vmdk
  vmdkit verify web01/web01.vmx                without a manifest: what can be read
  vmdkit verify --json BACKUP | jq -r .result

In order: every file of the manifest by its digest; the structure of every disk (as check);
what each disk contains, by the manifest's digest or against another disk; every file of
every guest file system, read to its end. Exit code 0: proven; 3: nothing is wrong, but
something is unproven or could not be read; 4: bad.")]
pub(crate) struct Verify {
    #[command(flatten)]
    source: SourceArgs,
    /// Compare contents with this disk or machine instead of the manifest
    #[arg(long, value_name = "OTHER")]
    against: Option<PathBuf>,
    /// Only a quick first look: the structure, and every file's length and CRC-32
    #[arg(long, conflicts_with = "against")]
    quick: bool,
    /// Do not read the guests' files
    #[arg(long)]
    no_guest_files: bool,
    /// Threads; 0 is one for each processor
    #[arg(long, short = 'j', value_name = "N", default_value_t = 0)]
    jobs: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json {
    source: String,
    result: &'static str,
    created: Option<String>,
    files: Vec<ItemJson>,
    structure: StructureJson,
    contents: Vec<ItemJson>,
    guests: GuestsJson,
    unproven: Vec<String>,
}

#[derive(Serialize)]
struct ItemJson {
    what: String,
    ok: bool,
    problem: Option<String>,
    /// Ranges of the disk that differ, where that can be told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<RangeJson>,
    /// Guest files that lie in them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    touched: Vec<TouchedJson>,
}

#[derive(Serialize)]
struct RangeJson {
    offset: u64,
    len: u64,
}

#[derive(Serialize)]
struct TouchedJson {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    bytes: u64,
}

#[derive(Serialize)]
struct StructureJson {
    result: &'static str,
    layers: usize,
    damage: usize,
    warnings: usize,
    notes: usize,
    findings: Vec<FindingJson>,
}

#[derive(Serialize)]
struct FindingJson {
    code: &'static str,
    severity: &'static str,
    said: String,
}

#[derive(Serialize)]
struct GuestsJson {
    volumes: u64,
    files: u64,
    bytes: u64,
    failed: Vec<FailedJson>,
    dropped: u64,
    structure: Vec<VolumeFindingJson>,
    remarks: Vec<String>,
}

#[derive(Serialize)]
struct VolumeFindingJson {
    volume: String,
    code: &'static str,
    severity: &'static str,
    said: String,
    touched: Vec<TouchedJson>,
}

#[derive(Serialize)]
struct FailedJson {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    kind: &'static str,
    problem: String,
}

/// The bar is only told of what the steps say.
struct Quiet<'a>(&'a Bar);

impl Progress for Quiet<'_> {
    fn advance(&self, bytes: u64) {
        self.0.grow(bytes);
        self.0.advance(bytes);
    }

    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}

impl Verify {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        let spec = source::spec_of(&self.source, global)?;
        let options = Options {
            check: CheckOptions {
                decode: true,
                files: true,
                jobs: self.jobs,
            },
            guest_files: !self.no_guest_files,
            quick: self.quick,
            against: self.against.as_ref().map(|path| SourceSpec {
                path: path.clone(),
                snapshot: None,
                format: None,
                ..spec.clone()
            }),
        };
        let bar = Bar::new(global, 0);
        let mut last = (String::new(), 0);
        let progress = Quiet(&bar);
        let verified = verify::backup::verify(
            &spec,
            &options,
            &mut |step| {
                if last.0 != step.file {
                    last = (step.file.to_owned(), 0);
                }
                progress.advance(step.done.saturating_sub(last.1));
                last.1 = step.done;
            },
            &progress,
        )?;
        drop(bar);
        let exit = match (verified.is_bad(), verified.is_partial()) {
            (true, _) => Exit::Bad,
            (false, true) => Exit::Partial,
            (false, false) => Exit::Done,
        };
        let mut out = Out::new();
        match self.json {
            true => out.document(&self.document(&verified, exit))?,
            false => print(&mut out, &verified, exit)?,
        }
        out.finish()?;
        Ok(exit)
    }

    fn document(&self, v: &Verified, exit: Exit) -> Json {
        let structure = &v.structure;
        let findings = structure.findings.iter().map(|r| FindingJson {
            code: r.finding.code,
            severity: r.finding.severity.as_str(),
            said: r.finding.error.to_string(),
        });
        let failed = v.guests.failed.iter().map(|(path, e)| FailedJson {
            path: shown(path),
            path_hex: hex_if_needed(path),
            kind: e.kind().as_str(),
            problem: e.to_string(),
        });
        Json {
            source: self.source.source.display().to_string(),
            result: result(exit),
            created: v.created.clone(),
            files: v.files.iter().map(item).collect(),
            structure: StructureJson {
                result: if structure.is_bad() { "bad" } else { "sound" },
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
                failed: failed.collect(),
                dropped: v.guests.dropped,
                structure: v.guests.structure.iter().map(volume_finding).collect(),
                remarks: v.guests.remarks.clone(),
            },
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
        ranges: item
            .ranges
            .iter()
            .map(|r| RangeJson {
                offset: r.start,
                len: r.end.saturating_sub(r.start),
            })
            .collect(),
        touched: touched(&item.touched),
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

fn print(out: &mut Out, v: &Verified, exit: Exit) -> Result<(), Failure> {
    if let Some(created) = &v.created {
        out.line(format!("backup of {}", escape(created)))?;
    }
    items(out, "files", "as the manifest says", &v.files)?;
    let s = &v.structure;
    out.line(format!(
        "structure: {} links, {} damage, {} warnings, {} notes",
        s.layers.len(),
        s.count(Severity::Damage),
        s.count(Severity::Warning),
        s.count(Severity::Note)
    ))?;
    for reported in &s.findings {
        let f = &reported.finding;
        if f.severity > Severity::Note {
            let (said, _) = split_hint(&f.error);
            out.line(format!("  {}: {}: {said}", f.severity.as_str(), f.code))?;
        }
    }
    items(out, "contents", "the same", &v.contents)?;
    let g = &v.guests;
    if g.volumes > 0 || !g.failed.is_empty() {
        out.line(format!(
            "guest files: {} files of {} volumes read to their end, {}; {} not readable",
            g.files,
            g.volumes,
            human(g.bytes),
            g.failed.len() as u64 + g.dropped
        ))?;
    }
    let told = g.structure.iter();
    let told: Vec<_> = told
        .filter(|f| f.finding.severity > Severity::Note)
        .collect();
    for f in told.iter().take(SHOWN) {
        let (said, _) = split_hint(&f.finding.error);
        let (word, code) = (f.finding.severity.as_str(), f.finding.code);
        out.line(format!("  {}: {word}: {code}: {said}", escape(&f.volume)))?;
        for touched in f.touched.iter().take(SHOWN) {
            let path = Name::from_bytes(touched.path.clone());
            out.line(format!("    touches {path}"))?;
        }
    }
    if told.len() > SHOWN || g.more > 0 {
        let more = (told.len().saturating_sub(SHOWN) as u64).saturating_add(g.more);
        out.line(format!("  and {more} more findings: --json has them"))?;
    }
    for (path, e) in g.failed.iter().take(SHOWN) {
        let (said, _) = split_hint(e);
        let path = Name::from_bytes(path.clone());
        out.line(format!("  {path}: {said}"))?;
    }
    if g.failed.len() > SHOWN {
        out.line(format!("  and {} more", g.failed.len() - SHOWN))?;
    }
    for remark in g.remarks.iter().chain(&v.structure.remarks) {
        out.line(format!("note: {}", escape(remark)))?;
    }
    for unproven in &v.unproven {
        out.line(format!("unproven: {}", escape(unproven)))?;
    }
    out.line(match exit {
        Exit::Done => "PROVEN: this backup would restore",
        Exit::Partial => "nothing is wrong, and not everything is proven",
        _ => "BAD: do not rely on this backup",
    })
}

fn items(out: &mut Out, title: &str, good: &str, items: &[Item]) -> Result<(), Failure> {
    if items.is_empty() {
        return Ok(());
    }
    let ok = items.iter().filter(|i| i.problem.is_none()).count();
    out.line(format!("{title}: {ok} of {} {good}", items.len()))?;
    for item in items {
        if let Some(e) = &item.problem {
            let (said, _) = split_hint(e);
            out.line(format!("  BAD {}: {said}", escape(&item.what)))?;
            for range in item.ranges.iter().take(SHOWN) {
                let len = range.end.saturating_sub(range.start);
                out.line(format!("    differs at {}, {}", range.start, human(len)))?;
            }
            for touched in item.touched.iter().take(SHOWN) {
                let path = Name::from_bytes(touched.path.clone());
                out.line(format!("    touches {path}"))?;
            }
            let more = item.ranges.len().max(item.touched.len());
            if more > SHOWN {
                out.line("    and more: --json has all of them")?;
            }
        }
    }
    Ok(())
}
