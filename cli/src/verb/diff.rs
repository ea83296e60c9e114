//! `diff`: what differs between two disks or two states of one.

use crate::{
    args::{Global, HowArgs, SourceArgs},
    exit::{Exit, Failure},
    names::{hex_if_needed, shown},
    output::{Out, human, warn},
    progress::Bar,
    source,
};
use clap::Args;
use convert::Progress;
use disk_io::Disk;
use serde::Serialize;
use std::path::PathBuf;
use verify::diff::{Blocks, Changed, Files, blocks, files};

/// Compare two disks, or two snapshots of one: changed blocks, changed guest files
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit diff old.vmdk new.vmdk                    which bytes of the disk differ?
  vmdkit diff --files web01-000001.vmdk web01-000002.vmdk
  vmdkit diff --files web01 --a id:1 --b current   between two states of a machine
  vmdkit diff --json --blocks a.vmdk b.qcow2 | jq .changed_bytes

What two snapshots share is not read. Exit code 0: no difference, 4: different.")]
pub(crate) struct Diff {
    /// The first disk or machine
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The second; A without
    #[arg(value_name = "B")]
    b: Option<PathBuf>,
    /// The snapshot of A that is meant
    #[arg(long = "a", value_name = "POINT")]
    point_a: Option<String>,
    /// The snapshot of B that is meant
    #[arg(long = "b", value_name = "POINT")]
    point_b: Option<String>,
    /// Show ranges of the disk (the default)
    #[arg(long)]
    blocks: bool,
    /// Show guest files: added, removed, contents, metadata
    #[arg(long)]
    files: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Serialize)]
struct Json {
    a: String,
    b: String,
    same: bool,
    /// Lengths of the disks in bytes.
    sizes: (u64, u64),
    changed_bytes: u64,
    read_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ranges: Option<Vec<RangeJson>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<FileJson>>,
    remarks: Vec<String>,
}

#[derive(Serialize)]
struct RangeJson {
    offset: u64,
    length: u64,
}

#[derive(Serialize)]
struct FileJson {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    change: &'static str,
    size_a: Option<u64>,
    size_b: Option<u64>,
}

impl Diff {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        if self.b.is_none() && self.point_a == self.point_b {
            return Err(Failure::usage_with(
                "nothing to compare with",
                "name a second disk, or two snapshots with --a and --b",
            ));
        }
        let open = |path: &PathBuf, point: &Option<String>| {
            let args = SourceArgs {
                source: path.clone(),
                how: HowArgs {
                    snapshot: point.clone().or_else(|| self.how.snapshot.clone()),
                    ..self.how.clone()
                },
            };
            let opened = source::open_quietly(&args, global)?;
            // That there is newer data is why one compares.
            let told = opened.warnings().iter();
            told.filter(|w| !w.starts_with("newer data exists"))
                .for_each(warn);
            Ok::<_, Failure>(opened)
        };
        let a = open(&self.a, &self.point_a)?;
        let b = open(self.b.as_ref().unwrap_or(&self.a), &self.point_b)?;
        let bar = Bar::new(global, a.disk().len().min(b.disk().len()));
        let mut last = 0;
        let found = blocks(&a, &b, false, &mut |at| {
            bar.advance(at.saturating_sub(last));
            last = at;
        })?;
        drop(bar);
        let changed = match self.files && !found.is_same() {
            true => files(&a, &b, &found)?,
            false => Files::default(),
        };
        let mut out = Out::new();
        match self.json {
            true => {
                let json = Json {
                    a: a.path().display().to_string(),
                    b: b.path().display().to_string(),
                    same: found.is_same(),
                    sizes: (a.disk().len(), b.disk().len()),
                    changed_bytes: found.bytes(),
                    read_bytes: found.read,
                    ranges: (self.blocks || !self.files).then(|| ranges_json(&found)),
                    files: self
                        .files
                        .then(|| changed.changed.iter().map(file_json).collect()),
                    remarks: changed.remarks,
                };
                out.document(&json)?;
            }
            false => self.print(&mut out, &found, &changed)?,
        }
        out.finish()?;
        Ok(if found.is_same() {
            Exit::Done
        } else {
            Exit::Bad
        })
    }

    fn print(&self, out: &mut Out, found: &Blocks, changed: &Files) -> Result<(), Failure> {
        if let Some((a, b)) = found.lengths {
            out.line(format!("lengths differ: {a} and {b} bytes"))?;
        }
        if self.blocks || !self.files {
            for range in &found.ranges {
                let len = range.end - range.start;
                out.line(format!("{:>16}  {len:>12}", range.start))?;
            }
        }
        for file in &changed.changed {
            let before = format!("{:<10}  ", file.change.as_str());
            out.name(&before, &file.path, "")?;
        }
        for remark in &changed.remarks {
            warn(remark);
        }
        if found.is_same() {
            out.line("no difference")?;
        } else {
            out.line(format!(
                "{} in {} ranges differ",
                human(found.bytes()),
                found.ranges.len()
            ))?;
        }
        Ok(())
    }
}

fn ranges_json(found: &Blocks) -> Vec<RangeJson> {
    let ranges = found.ranges.iter().map(|r| RangeJson {
        offset: r.start,
        length: r.end - r.start,
    });
    ranges.collect()
}

fn file_json(file: &Changed) -> FileJson {
    FileJson {
        path: shown(&file.path),
        path_hex: hex_if_needed(&file.path),
        change: file.change.as_str(),
        size_a: file.sizes.0,
        size_b: file.sizes.1,
    }
}
