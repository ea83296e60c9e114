//! `verify`: whether a backup would restore.

pub(crate) mod document;

use crate::{
    args::{Global, SourceArgs},
    exit::{Exit, Failure, said_of_path, split_hint},
    output::{Out, human},
    progress::{Bar, Growing},
    report::{self, Evidence, Place, Run, signature::Key},
    source, times,
};
use clap::Args;
use convert::Progress;
use disk_io::{Severity, error::escape};
use document::Json;
use guest_fs::Name;
use proxy::{Source, SourceSpec};
use std::{path::PathBuf, time::Duration};
use verify::{
    backup::{Baseline, Item, Limits, Options, Verified},
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
  vmdkit verify BACKUP --report evidence.html --report evidence.json
  vmdkit verify BACKUP --sample 5 --seed $(date +%j) --budget 1h
  vmdkit verify BACKUP --budget 1h --state BACKUP.verified      an hour at a time, until it is done
  vmdkit verify BACKUP --baseline known-files.sha256
  vmdkit verify --json BACKUP | jq -r .result

In order: every file of the manifest by its digest; the structure of every disk (as check);
what each disk contains, by the manifest's digest or against another disk; every file of
every guest file system, read to its end. Exit code 0: proven; 3: nothing is wrong, but
something is unproven or could not be read; 4: bad.")]
pub(crate) struct Verify {
    #[command(flatten)]
    source: SourceArgs,
    /// Compare contents with this disk or machine instead of the manifest, and list every place
    /// where they differ
    #[arg(long, value_name = "OTHER")]
    against: Option<PathBuf>,
    /// Stop at the first difference
    #[arg(long, requires = "against")]
    first: bool,
    /// Compare guest files with known ones: a directory, what cp --manifest wrote, or lines as
    /// sha256sum writes them
    #[arg(long, value_name = "DIR|FILE")]
    baseline: Option<PathBuf>,
    /// Read the files of NTFS and FAT again with other readers and compare
    #[arg(long, conflicts_with_all = ["quick", "no_guest_files"])]
    cross_check: bool,
    /// Look at so many of a hundred MiB and guest files only; the rest is told as unproven
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with = "against")]
    sample: Option<f64>,
    /// Another number looks at others
    #[arg(long, value_name = "N", requires = "sample", default_value_t = 0)]
    seed: u64,
    /// Begin nothing after this time (90s, 30m, 4h); the rest is told as unproven
    #[arg(long, value_name = "TIME", value_parser = times::span)]
    budget: Option<Duration>,
    /// Keep what is proven in FILE, and go on from there in the next run: for backups that take
    /// longer than there is time. It goes when everything has been looked at
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sample", "quick", "against"])]
    state: Option<PathBuf>,
    /// See whether there is room for a restore in DIR, and the name free
    #[arg(long, value_name = "DIR")]
    target: Option<PathBuf>,
    /// Write evidence: .json, .txt, .html, .xml (JUnit) or .prom (Prometheus) (repeatable)
    #[arg(long, value_name = "FILE")]
    report: Vec<Place>,
    /// Sign every report with this secret key of minisign: FILE.minisig
    #[arg(long, value_name = "KEY", requires = "report")]
    sign: Option<PathBuf>,
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

impl Verify {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        let spec = source::spec_of(&self.source, global)?;
        let options = Options {
            check: CheckOptions {
                // Of a sample not everything is decoded either.
                decode: self.sample.is_none(),
                files: true,
                // Told apart from the image's structure.
                guests: false,
                jobs: self.jobs,
            },
            guest_files: !self.no_guest_files,
            first: self.first,
            quick: self.quick,
            baseline: self.baseline.as_deref().map(Baseline::load).transpose()?,
            cross_check: self.cross_check,
            limits: Limits {
                sample: self.sample,
                seed: self.seed,
                budget: self.budget,
            },
            target: self.target.clone(),
            state: self.state.clone(),
            against: self.against.as_ref().map(|path| SourceSpec {
                path: path.clone(),
                snapshot: None,
                format: None,
                ..spec.clone()
            }),
        };
        report::check_places(&self.report, &spec)?;
        let key = self.sign.as_deref().map(Key::load).transpose()?;
        let began = crate::clock::now();
        let bar = Bar::new(global, 0);
        let mut last = (String::new(), 0);
        let progress = Growing(&bar);
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
        let document = Json::new(&self.source.source, &verified, exit);
        let mut out = Out::new();
        match self.json {
            true => out.document(&document)?,
            false => print(&mut out, &verified, exit)?,
        }
        out.finish()?;
        if !self.report.is_empty() {
            let run = Run {
                began,
                ended: crate::clock::now(),
            };
            let evidence = Evidence::new(&self.source.source, &document, &verified, &run);
            report::write_all(&evidence, &self.report, &parts(&spec), key.as_ref())?;
        }
        Ok(exit)
    }
}

/// Files that a report must not replace: those beside SOURCE that it consists of.
fn parts(spec: &SourceSpec) -> Vec<PathBuf> {
    let mut files = vec![spec.path.clone()];
    if spec.path.is_dir() {
        let entries = std::fs::read_dir(&spec.path).into_iter().flatten();
        files.extend(entries.flatten().map(|e| e.path()));
    } else if let Ok(source) = Source::open(spec) {
        files.extend(source::files(&source));
    }
    files
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text
        .trim_end_matches('%')
        .parse()
        .map_err(|_| "a number is expected".to_owned())?;
    match number > 0.0 && number <= 100.0 {
        true => Ok(number),
        false => Err("more than 0 and at most 100".into()),
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
    if let Some(second) = &g.second {
        let left: u64 = second.left.values().sum();
        out.line(format!(
            "second reader: {} files the same, {} otherwise, {left} not asked about",
            second.same,
            second.differ.len()
        ))?;
        for (path, e) in second.differ.iter().take(SHOWN) {
            let (said, _) = split_hint(e);
            let path = Name::from_bytes(path.clone());
            out.line(format!("  BAD {path}: {said}"))?;
        }
    }
    items(out, "baseline", "the same", &v.baseline)?;
    items(out, "restorable", "as it must be", &v.restorable)?;
    for (path, e) in g.failed.iter().take(SHOWN) {
        out.line(format!("  {}", said_of_path(path, e)))?;
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
        Exit::Partial => "no damage was found, and not everything is proven",
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
