//! One SOURCE with its chain: what is wrong with it, and which guest files that touches.

use crate::{
    layer::{self, Held, Walk},
    owners::{Owner, Wanted, owners_of},
    volumes,
};
use disk_image::{CheckedDisk, Format};
use disk_io::{DiskError, ErrorKind, Finding, Result, RunKind, Severity};
use guest_fs::FsKind;
use proxy::{Machine, Source, SourceSpec, Tree, TreeOptions};
use std::{collections::HashSet, ops::Range, path::PathBuf, sync::Arc};

/// Findings that are kept; beyond, only counted.
const MOST: usize = 100_000;

/// How to check.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Decode everything that is compressed.
    pub decode: bool,
    /// Tell which guest files a finding touches.
    pub files: bool,
    /// Hold the structures of the guests' volumes against each other.
    pub guests: bool,
    /// Threads; 0 is one for each processor.
    pub jobs: usize,
}

/// What is being done, for a progress bar.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Which file.
    pub file: &'a str,
    /// How far, in bytes.
    pub done: u64,
    /// Of how many; 0 if unknown.
    pub of: u64,
}

/// A finding with what it touches.
#[derive(Clone, Debug)]
pub struct Reported {
    /// What was found.
    pub finding: Finding,
    /// Guest files that have bytes in its ranges.
    pub files: Vec<Owner>,
}

/// A layer as it was found.
#[derive(Clone, Debug)]
pub struct LayerReport {
    /// Which disk of a package.
    pub disk: Option<String>,
    /// Its file.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// Length of the disk in bytes.
    pub len: u64,
    /// What it holds.
    pub held: Held,
}

/// The result of a check.
#[derive(Debug)]
pub struct Report {
    /// What SOURCE is.
    pub format: Format,
    /// Every layer of every disk, the newest first.
    pub layers: Vec<LayerReport>,
    /// What is wrong, in the order in which it was found.
    pub findings: Vec<Reported>,
    /// How many findings were too many to keep.
    pub dropped: u64,
    /// What limits the answer, one sentence each.
    pub remarks: Vec<String>,
}

impl Report {
    /// How many findings are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        let of = |r: &&Reported| r.finding.severity == severity;
        self.findings.iter().filter(of).count()
    }

    /// Whether anything is worse than a note.
    pub fn is_bad(&self) -> bool {
        self.dropped > 0
            || self
                .findings
                .iter()
                .any(|r| r.finding.severity > Severity::Note)
    }
}

/// Checks the structure of SOURCE.
///
/// # Errors
/// Where SOURCE itself cannot be opened as a file, or the device fails while it is read.
pub fn check(
    spec: &SourceSpec,
    options: &Options,
    step: &mut dyn FnMut(Step<'_>),
) -> Result<Report> {
    let mut report = match spec.machines()? {
        Some(machines) if spec.disk.is_none() => {
            let (machine, date_used) = machines.only(spec.snapshot.as_deref())?;
            let wanted = spec.snapshot.as_deref().filter(|_| !date_used);
            machine_disks(machine, wanted, options, step)?
        }
        _ => one(spec, options, step)?,
    };
    if !spec.datastores.is_empty() {
        around(spec, &mut report)?;
    }
    Ok(report)
}

/// Ranges of SOURCE's disk that are read, and cannot be told to be right: places that two ranges
/// share, tables that lead to different ones, what no table leads to. Nothing is decoded.
///
/// # Errors
/// Those of [`check`].
pub fn doubtful(spec: &SourceSpec) -> Result<Vec<Range<u64>>> {
    let report = one(spec, &Options::default(), &mut |_| {})?;
    let damage = report.findings.into_iter().map(|r| r.finding);
    let mut ranges: Vec<Range<u64>> = damage
        .filter(|f| f.severity == Severity::Damage)
        .flat_map(|f| f.ranges)
        .collect();
    ranges.sort_unstable_by_key(|r| (r.start, r.end));
    let mut joined = Vec::new();
    for range in ranges {
        disk_io::finding::join(&mut joined, range);
    }
    Ok(joined)
}

/// The datastore that SOURCE lies in: what is wrong with the files beside it, and with all.
fn around(spec: &SourceSpec, report: &mut Report) -> Result<()> {
    let files: Vec<PathBuf> = report.layers.iter().map(|l| l.path.clone()).collect();
    let mut told = Vec::new();
    let others = proxy::datastore::check(spec, &files, &mut |finding| {
        if told.len() < MOST {
            told.push(plain(finding));
        }
    })?;
    report.findings.extend(told);
    if others > 0 {
        report.remarks.push(format!(
            "{others} findings are about other files of the datastore: check its device to see them"
        ));
    }
    Ok(())
}

/// Every disk of a machine, as of one restore point or of all; what one chain has shown is
/// not checked again for the next.
fn machine_disks(
    machine: &Machine,
    wanted: Option<&str>,
    options: &Options,
    step: &mut dyn FnMut(Step<'_>),
) -> Result<Report> {
    let points = match wanted {
        Some(wanted) => vec![machine.point(Some(wanted))?.clone()],
        None => machine.vm().points.clone(),
    };
    let mut all = Report {
        format: Format::Vmdk,
        layers: Vec::new(),
        findings: Vec::new(),
        dropped: 0,
        remarks: machine.vm().warnings.clone(),
    };
    let mut seen: HashSet<PathBuf> = HashSet::new();
    for point in &points {
        for disk in &point.disks {
            let called = format!("{} {}", point.name, disk.slot);
            let located = match machine.locate(disk) {
                Ok(located) => located,
                Err(e) if e.kind() == ErrorKind::Io => return Err(e),
                Err(e) => {
                    all.findings.push(plain(Finding::damage("disk-missing", e)));
                    continue;
                }
            };
            if !seen.insert(located.path.clone()) {
                continue;
            }
            let spec = SourceSpec {
                disk: Some(disk.slot.to_string()),
                snapshot: Some(match point.uid {
                    Some(uid) => format!("id:{uid}"),
                    None => "current".into(),
                }),
                in_turn: true,
                ..machine.as_source()
            };
            let report = one(&spec, options, step)?;
            all.format = report.format;
            for mut layer in report.layers {
                // The newest link is in `seen` already.
                let new = seen.insert(layer.path.clone()) || layer.path == located.path;
                if new {
                    layer.disk = Some(called.clone());
                    all.layers.push(layer);
                }
            }
            all.findings.extend(report.findings);
            all.dropped += report.dropped;
            let told = report.remarks.into_iter();
            all.remarks.extend(told.map(|r| format!("{called}: {r}")));
        }
    }
    Ok(all)
}

fn one(spec: &SourceSpec, options: &Options, step: &mut dyn FnMut(Step<'_>)) -> Result<Report> {
    let located = spec.locate()?;
    let mut found = Found::default();
    let (format, disks) = {
        let mut visit = |f: Finding| found.put(f);
        let of_file = &mut |file: &str, done| step(Step { file, done, of: 0 });
        let mut how = spec.image_options();
        if spec.machines()?.is_some() {
            // These chose the machine's disk, not something inside it.
            (how.snapshot, how.disk) = (None, None);
            how.format = spec.format_of(located.opened.base_name());
        }
        disk_image::check(&located.opened, &how, of_file, &mut visit)?
    };
    for text in located.warnings {
        let e = DiskError::corrupt("opening the datastore").found(text);
        found.put(Finding::warning("datastore-odd", e));
    }
    let walk = Walk {
        decode: options.decode,
        jobs: match options.jobs {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            jobs => jobs,
        },
    };
    let mut layers = Vec::new();
    let mut depths = Vec::new();
    for disk in &disks {
        layers.extend(one_disk(disk, walk, step, &mut found, &mut depths)?);
    }
    let mut remarks = Vec::new();
    let source = opened(spec, format, &disks, &found, &mut remarks)?;
    if let Some(source) = &source {
        let table = source.table();
        let told = |text: &String| DiskError::corrupt("reading the partition table").found(text);
        for loss in &table.losses {
            found.put(Finding::warning("partitions-lost", told(loss)));
        }
        for rival in &table.rivals {
            found.put(Finding::note("partitions-doubtful", told(rival)));
        }
        datastores(source, &mut |at, f| found.of_guest(source, at, f))?;
        if options.guests {
            volumes::visit(source, &mut |at, f| found.of_guest(source, at, f))?;
            volumes::unusable(source, &mut |at, f| found.of_guest(source, at, f))?;
        }
        if !options.guests && format == Format::Raw && source.volumes().iter().all(|v| !is_vmfs(v))
        {
            remarks.push(
                "a raw disk has no structure of its own: only its partition table was looked at"
                    .into(),
            );
        }
    }
    let findings = match (&source, options.files) {
        (Some(source), true) => with_files(source, found.all, &mut remarks)?,
        _ => found
            .all
            .into_iter()
            .map(|kept| plain(kept.finding))
            .collect(),
    };
    Ok(Report {
        format,
        layers,
        findings,
        dropped: found.dropped,
        remarks,
    })
}

/// A finding with what it is about.
struct Kept {
    finding: Finding,
    /// Depth of the layer.
    depth: Option<usize>,
    /// What owners are asked for, where it is about a guest's volume.
    guest: Option<Wanted>,
}

/// Findings as they come.
#[derive(Default)]
struct Found {
    all: Vec<Kept>,
    depth: Option<usize>,
    dropped: u64,
}

impl Found {
    fn put(&mut self, finding: Finding) {
        self.keep(Kept {
            finding,
            depth: self.depth,
            guest: None,
        });
    }

    /// One of a guest's volume: its ranges become ranges of the disk, where they lie on it.
    fn of_guest(&mut self, source: &Source, at: &volumes::Found<'_>, mut finding: Finding) {
        let guest = Some(volumes::wanted(at.volume, &finding));
        match volumes::start(source, at.volume) {
            Some(start) => {
                for range in &mut finding.ranges {
                    *range = start.saturating_add(range.start)..start.saturating_add(range.end);
                }
            }
            None => finding.ranges.clear(),
        }
        // Where the image itself is what is damaged that was found already, and its files are told.
        let e = &finding.error;
        let said = |kept: &Kept| {
            let old = &kept.finding;
            (old.code, old.error.file_name(), old.error.at())
                == (finding.code, e.file_name(), e.at())
        };
        if e.code_text().is_some() && self.all.iter().any(said) {
            return;
        }
        finding.error = finding.error.context(at.path.clone());
        self.keep(Kept {
            finding,
            depth: None,
            guest,
        });
    }

    fn keep(&mut self, kept: Kept) {
        if self.all.len() < MOST {
            self.all.push(kept);
        } else {
            self.dropped += 1;
        }
    }
}

fn plain(finding: Finding) -> Reported {
    Reported {
        finding,
        files: Vec::new(),
    }
}

fn one_disk(
    disk: &CheckedDisk,
    walk: Walk,
    step: &mut dyn FnMut(Step<'_>),
    found: &mut Found,
    depths: &mut Vec<usize>,
) -> Result<Vec<LayerReport>> {
    let mut reports = Vec::new();
    for (depth, layer) in disk.layers.iter().enumerate() {
        let file = layer.path.display().to_string();
        let of = layer.map.len();
        found.depth = Some(depth);
        let mut at = |done| {
            step(Step {
                file: &file,
                done,
                of,
            })
        };
        let held = layer::walk(&*layer.map, walk, &mut at, &mut |f| found.put(f))?;
        if let Some(link) = &layer.link {
            link.check(&mut |f| found.put(f))?;
        }
        found.depth = None;
        depths.push(depth);
        reports.push(LayerReport {
            disk: disk.name.clone(),
            path: layer.path.clone(),
            format: layer.format,
            len: of,
            held,
        });
    }
    Ok(reports)
}

/// SOURCE as every other verb opens it, for its volumes. What stands in the way was found
/// already, or is a finding now.
fn opened(
    spec: &SourceSpec,
    format: Format,
    disks: &[CheckedDisk],
    found: &Found,
    remarks: &mut Vec<String>,
) -> Result<Option<Arc<Source>>> {
    if disks.len() > 1 {
        remarks.push(
            "the package has several disks: name one with --disk to learn which guest files a \
             finding touches"
                .into(),
        );
        return Ok(None);
    }
    match Source::open(spec) {
        Ok(source) => Ok(Some(Arc::new(source))),
        // Nothing says that it is a disk at all.
        Err(e) if format == Format::Raw => Err(e),
        Err(e) => {
            // Said already, where the structure is what stands in the way.
            if !found
                .all
                .iter()
                .any(|kept| kept.finding.severity == Severity::Damage)
            {
                remarks.push(format!("the volumes cannot be looked at: {e}"));
            }
            Ok(None)
        }
    }
}

fn is_vmfs(volume: &Arc<proxy::Volume>) -> bool {
    let recognised = volume.recognised().as_ref();
    matches!(recognised, Ok(Some(found)) if found.kind == FsKind::Vmfs)
}

/// VMFS volumes are checked too: they are where disks lie.
fn datastores(source: &Source, visit: &mut dyn FnMut(&volumes::Found<'_>, Finding)) -> Result<()> {
    for at in volumes::all(source).filter(|at| is_vmfs(at.volume)) {
        match at.volume.file_system() {
            Ok(fs) => fs.check(&mut |f| visit(&at, f)).map(|_| ())?,
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => visit(&at, Finding::damage("datastore-unusable", e)),
        }
    }
    Ok(())
}

/// Adds the guest files that each finding touches.
fn with_files(
    source: &Arc<Source>,
    all: Vec<Kept>,
    remarks: &mut Vec<String>,
) -> Result<Vec<Reported>> {
    let mut reported: Vec<Reported> = Vec::with_capacity(all.len());
    let mut wanted: Vec<Wanted> = Vec::with_capacity(all.len());
    for kept in all {
        let note = kept.finding.severity == Severity::Note;
        wanted.push(match kept.guest {
            _ if note => Wanted::default(),
            Some(guest) => guest,
            None => Wanted {
                ranges: kept
                    .finding
                    .ranges
                    .iter()
                    .flat_map(|range| visible(source, range, kept.depth))
                    .collect(),
                ..Wanted::default()
            },
        });
        reported.push(plain(kept.finding));
    }
    if wanted
        .iter()
        .all(|w| w.ranges.is_empty() && w.nodes.is_empty())
    {
        return Ok(reported);
    }
    let tree = Tree::new(source.clone(), TreeOptions::default())?;
    let found = owners_of(&tree, &wanted);
    remarks.extend(found.remarks);
    for owner in found.files {
        for index in &owner.ranges {
            if let Some(reported) = reported.get_mut(*index) {
                reported.files.push(owner.clone());
            }
        }
    }
    Ok(reported)
}

/// The parts of a range of a layer that the guest sees: what a newer layer holds hides the
/// rest.
fn visible(source: &Source, range: &Range<u64>, depth: Option<usize>) -> Vec<Range<u64>> {
    let (Some(depth), Some(layered)) = (depth, source.layered()) else {
        return vec![range.clone()];
    };
    let mut parts = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let Ok(origin) = layered.origin_at(at) else {
            disk_io::finding::join(&mut parts, at..range.end);
            break;
        };
        let end = at.saturating_add(origin.len.max(1)).min(range.end);
        // What this layer has lost is taken from below it, or is nowhere.
        let below = origin.depth >= depth || origin.kind == RunKind::Unallocated;
        if origin.bad.is_some() || below {
            disk_io::finding::join(&mut parts, at..end);
        }
        at = end;
    }
    parts
}
