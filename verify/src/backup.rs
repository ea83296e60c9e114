//! A backup from end to end: its files, its structure, what its disks hold, every guest
//! file read, and whether a machine could be made of it.

use crate::{
    check::{self, Report, Step},
    diff,
    owners::{Owner, owners},
};
use convert::{
    Progress,
    backup::{DiskEntry, Manifest, compare, crc32_of, digest_of, manifest, units::Units},
    digest::{Hash, UNIT},
};
use disk_image::{Format, ova::Package};
use disk_io::{
    Disk, DiskError, ErrorKind, Finding, HostDir, Result, Severity, error::escape,
    host_dir::Allowed,
};
use guest_fs::{FsKind, NodeKind};
use proxy::{Source, SourceSpec, Tree, TreeOptions};
use std::{
    ops::{ControlFlow, Range},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// Problems with guest files that are kept; beyond, only counted.
const MOST: usize = 10_000;
/// What is read of a guest file at a time.
const CHUNK: u64 = 4 << 20;

/// How to verify.
#[derive(Clone, Debug)]
pub struct Options {
    /// How structure is checked.
    pub check: check::Options,
    /// Read every guest file to its end.
    pub guest_files: bool,
    /// Compare the contents with another disk or machine.
    pub against: Option<SourceSpec>,
    /// Of the manifest's files only lengths and CRC-32, of contents and guests nothing.
    pub quick: bool,
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

/// What was read of the guests.
#[derive(Clone, Debug, Default)]
pub struct Guests {
    /// Volumes that were read.
    pub volumes: u64,
    /// Files that were read to their end.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What could not be read, by path.
    pub failed: Vec<(Vec<u8>, DiskError)>,
    /// How many more could not be read.
    pub dropped: u64,
    /// What is wrong with the volumes' own structures.
    pub structure: Vec<VolumeFinding>,
    /// How many more findings there are.
    pub more: u64,
    /// What should be known, one sentence each: volumes that were not closed, ….
    pub remarks: Vec<String>,
}

/// What was found in the structures of a guest's volume.
#[derive(Clone, Debug)]
pub struct VolumeFinding {
    /// The volume: `/p1`.
    pub volume: String,
    /// What; its ranges are in bytes of the volume.
    pub finding: Finding,
    /// Guest files that it touches.
    pub touched: Vec<Owner>,
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
    /// Why it is not proven, one sentence each.
    pub unproven: Vec<String>,
}

impl Verified {
    /// Whether something is not as it should be.
    pub fn is_bad(&self) -> bool {
        let bad = |items: &[Item]| items.iter().any(|i| i.problem.is_some());
        let damage = self.guests.failed.iter().any(|(_, e)| {
            // What is only not read here says nothing about the backup.
            matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::OutOfRange)
        });
        let broken = |f: &VolumeFinding| f.finding.severity == Severity::Damage;
        let volumes = self.guests.structure.iter().any(broken);
        bad(&self.files) || bad(&self.contents) || self.structure.is_bad() || damage || volumes
    }

    /// Whether something could not be looked at or has nothing to be compared with.
    pub fn is_partial(&self) -> bool {
        !self.unproven.is_empty() || !self.guests.failed.is_empty()
    }
}

/// Verifies SOURCE.
///
/// # Errors
/// Where it cannot be opened at all, or a device fails.
pub fn verify(
    spec: &SourceSpec,
    options: &Options,
    step: &mut dyn FnMut(Step<'_>),
    progress: &dyn Progress,
) -> Result<Verified> {
    let dir = match spec.datastores.is_empty() && spec.path.is_dir() {
        true => Some(spec.path.clone()),
        false => None,
    };
    let manifest = match &dir {
        Some(dir) => Manifest::read(dir)?,
        None => None,
    };
    let mut unproven = Vec::new();
    let files = match (&manifest, &dir) {
        (Some(manifest), Some(dir)) => {
            files(manifest, dir, options.quick, progress, &mut unproven)?
        }
        _ => Vec::new(),
    };
    let specs = disks(spec, manifest.as_ref(), dir.as_deref())?;
    let single = manifest.as_ref().is_some_and(|m| m.vm.is_none());
    let structure = match specs.as_slice() {
        // The backup of a single disk is no machine.
        [(_, only, _)] if single => check::check(only, &options.check, step)?,
        _ => check::check(spec, &options.check, step)?,
    };
    let mut contents = Vec::new();
    let mut guests = Guests::default();
    for (name, spec, entry) in &specs {
        let source = match Source::open(spec) {
            Ok(source) => Arc::new(source),
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => {
                contents.push(Item::new(format!("opening {name}"), Some(e)));
                continue;
            }
        };
        if options.quick {
            unproven.push(format!("{name}: a quick look does not read its contents"));
            continue;
        }
        match (&options.against, entry) {
            (Some(other), _) => contents.push(against(name, &source, spec, other, step)?),
            (None, Some(entry)) => {
                contents.push(digest(name, &source, entry, dir.as_deref(), progress)?)
            }
            // A package's own manifest was checked with its structure.
            (None, None) if is_package(&structure) => {}
            (None, None) => unproven.push(format!(
                "{name}: there is no manifest: that its contents are what they should be is \
                 not proven"
            )),
        }
        if options.guest_files {
            check_volumes(name, &source, specs.len() > 1, &mut guests)?;
            read_guests(name, &source, specs.len() > 1, step, &mut guests)?;
        }
    }
    Ok(Verified {
        created: manifest.map(|m| m.created),
        files,
        structure,
        contents,
        guests,
        unproven,
    })
}

/// Whether it is a package with a manifest that says what its files should be.
fn is_package(structure: &Report) -> bool {
    let package = matches!(structure.format, Format::Ova | Format::Ovf);
    let mut findings = structure.findings.iter();
    package && !findings.any(|r| r.finding.code == "manifest-missing")
}

/// Every file that the manifest names.
fn files(
    manifest: &Manifest,
    dir: &Path,
    quick: bool,
    progress: &dyn Progress,
    unproven: &mut Vec<String>,
) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for file in &manifest.files {
        let path = dir.join(&file.name);
        let look = || -> Result<()> {
            let opened = HostDir::open_source(&path, &Allowed::default())?;
            if opened.disk.len() != file.size {
                return Err(DiskError::corrupt("comparing with the manifest")
                    .file(path.display())
                    .expected(format!("{} bytes", file.size))
                    .found(opened.disk.len().to_string()));
            }
            if quick && let Some(expected) = &file.crc32 {
                let found = format!("{:08x}", crc32_of(&opened.disk, progress)?);
                return match found == expected.to_ascii_lowercase() {
                    true => Ok(()),
                    false => Err(DiskError::corrupt("comparing with the manifest")
                        .code("digest-differs")
                        .file(path.display())
                        .expected(format!("CRC-32 {expected}"))
                        .found(found)),
                };
            }
            let Some(kind) = file.digest.kind() else {
                return Err(DiskError::unsupported("comparing with the manifest")
                    .file(path.display())
                    .found(format!("a digest of kind {}", file.digest.kind)));
            };
            let digest = digest_of(&opened.disk, kind, 0, progress)?;
            compare(&digest, &file.digest, &path.display().to_string())
        };
        let problem = match look() {
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            other => other.err(),
        };
        items.push(Item::new(format!("file {}", file.name), problem));
    }
    let names = std::fs::read_dir(dir)
        .map_err(|e| DiskError::io("listing the backup", &e).file(dir.display()))?;
    for entry in names.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Left by export --keep for scripts.
        if name == ".done" {
            continue;
        }
        if name != manifest::NAME && !manifest.files.iter().any(|f| f.name == name) {
            // It harms nothing, and nothing says what it should hold.
            unproven.push(format!("file {name}: is no part of the backup"));
        }
    }
    Ok(items)
}

type One = (String, SourceSpec, Option<DiskEntry>);

/// Each disk of SOURCE, with what the manifest says of it.
fn disks(spec: &SourceSpec, manifest: Option<&Manifest>, dir: Option<&Path>) -> Result<Vec<One>> {
    if let (Some(manifest), Some(dir)) = (manifest.filter(|m| m.vm.is_none()), dir) {
        let disks = manifest.disks.iter().map(|disk| {
            let spec = SourceSpec {
                path: dir.join(&disk.file),
                ..spec.clone()
            };
            (disk.file.clone(), spec, Some(disk.clone()))
        });
        return Ok(disks.collect());
    }
    let machines = match spec.disk.is_some() {
        true => None,
        false => spec.machines()?,
    };
    let Some(machines) = machines else {
        if let Some(disks) = package_disks(spec)? {
            return Ok(disks);
        }
        let name = escape(&spec.path.display().to_string());
        return Ok(vec![(name, spec.clone(), None)]);
    };
    let (machine, date_used) = machines.only(spec.snapshot.as_deref())?;
    let wanted = spec.snapshot.clone().filter(|_| !date_used);
    let point = machine.point(wanted.as_deref())?;
    let disks = point.disks.iter();
    let disks = disks.filter(|d| machine.raw_device(d).is_none()).map(|d| {
        let place = d.slot.to_string();
        let entry = manifest.filter(|_| point.is_current());
        let entry = entry.and_then(|m| m.disks.iter().find(|e| e.place.as_ref() == Some(&place)));
        let spec = SourceSpec {
            disk: Some(place.clone()),
            ..spec.clone()
        };
        (place, spec, entry.cloned())
    });
    Ok(disks.collect())
}

/// The disks of a package, if SOURCE is one and none is chosen.
fn package_disks(spec: &SourceSpec) -> Result<Option<Vec<One>>> {
    let opened = spec.locate()?.opened;
    let format = match spec.format {
        Some(format) => Some(format),
        None => disk_image::probe(&*opened.disk)?,
    };
    let Some(format @ (Format::Ova | Format::Ovf)) = format else {
        return Ok(None);
    };
    if spec.disk.is_some() {
        return Ok(None);
    }
    // One that cannot be opened is for the check to tell.
    let Ok(package) = Package::open(&opened, format) else {
        return Ok(None);
    };
    let disks = package.descriptor.disks.iter().filter(|d| d.file.is_some());
    let disks = disks.map(|d| {
        let spec = SourceSpec {
            disk: Some(d.id.clone()),
            ..spec.clone()
        };
        (d.id.clone(), spec, None)
    });
    Ok(Some(disks.collect()))
}

fn digest(
    name: &str,
    source: &Arc<Source>,
    entry: &DiskEntry,
    dir: Option<&Path>,
    progress: &dyn Progress,
) -> Result<Item> {
    let what = format!("contents of {name}");
    let Some(kind) = entry.digest.kind() else {
        let problem = DiskError::unsupported("comparing with the manifest")
            .found(format!("a digest of kind {}", entry.digest.kind));
        return Ok(Item::new(what, Some(problem)));
    };
    // Which MiB differ; hashes that cannot be read are told as a file that is not as it should
    // be.
    let len = source.disk().len();
    let units = dir.zip(entry.units.as_ref()).and_then(|(dir, name)| {
        let units = Units::open(&dir.join(name), len);
        units.ok()
    });
    let compared = Compared {
        inner: progress,
        units,
        differ: Mutex::default(),
    };
    let problem = digest_of(source.disk(), kind, 0, &compared)
        .and_then(|found| compare(&found, &entry.digest, name));
    match problem {
        Err(e) if e.kind() == ErrorKind::Io => Err(e),
        other => Item::new(what, other.err()).place(source, compared.ranges(len)),
    }
}

/// Compares the hash of every unit on the way.
struct Compared<'a> {
    inner: &'a dyn Progress,
    units: Option<Units>,
    differ: Mutex<Vec<u64>>,
}

impl Compared<'_> {
    fn ranges(self, len: u64) -> Vec<Range<u64>> {
        let mut units = self
            .differ
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        units.sort_unstable();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for unit in units {
            let start = unit.saturating_mul(UNIT);
            let end = start.saturating_add(UNIT).min(len);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        ranges
    }
}

impl Progress for Compared<'_> {
    fn advance(&self, bytes: u64) {
        self.inner.advance(bytes);
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }

    fn hashed(&self, unit: u64, hash: Option<&Hash>) {
        let Some(units) = &self.units else { return };
        if units.get(unit).is_ok_and(|kept| kept.as_ref() != hash) {
            let mut differ = self.differ.lock().unwrap_or_else(PoisonError::into_inner);
            if differ.len() < MOST {
                differ.push(unit);
            }
        }
    }
}

fn against(
    name: &str,
    source: &Arc<Source>,
    spec: &SourceSpec,
    other: &SourceSpec,
    step: &mut dyn FnMut(Step<'_>),
) -> Result<Item> {
    // The same place of the other machine; a disk is a disk.
    let other = match other.machines()? {
        Some(_) => SourceSpec {
            disk: other.disk.clone().or_else(|| spec.disk.clone()),
            ..other.clone()
        },
        None => other.clone(),
    };
    let opened = Source::open(&other)?;
    let of = source.disk().len();
    let compared = diff::must_be_same(source, &opened, &mut |done| {
        step(Step {
            file: name,
            done,
            of,
        });
    });
    match compared {
        Err(e) if e.kind() == ErrorKind::Io => Err(e),
        result => {
            let what = format!("{name} against {}", other.path.display());
            let place = result.as_ref().err().and_then(DiskError::at);
            let ranges = place.map(|at| at..at.saturating_add(1));
            Item::new(what, result.err()).place(source, ranges.into_iter().collect())
        }
    }
}

/// Holds the structures of every volume against each other, where its file system can.
fn check_volumes(
    name: &str,
    source: &Arc<Source>,
    several: bool,
    guests: &mut Guests,
) -> Result<()> {
    for volume in source.volumes() {
        let kind = volume.recognised().as_ref().ok().and_then(Option::as_ref);
        if kind.is_some_and(|k| k.kind == FsKind::Vmfs) {
            // Part of the structure.
            continue;
        }
        let Ok(fs) = volume.file_system() else {
            // Why not is told by whoever reads its files.
            continue;
        };
        let called = match several {
            true => format!("{name} /{}", volume.name()),
            false => format!("/{}", volume.name()),
        };
        let mut found: Vec<Finding> = Vec::new();
        let mut more = 0u64;
        fs.check(&mut |finding| match found.len() < MOST {
            true => found.push(finding),
            false => more = more.saturating_add(1),
        })?;
        guests.more = guests.more.saturating_add(more);
        // Ranges of a partition are ranges of the disk; those of volumes on top of several are
        // not told.
        let start = match volume.partition() {
            Some(p) => Some(p.start),
            None => (volume.disk().len() == source.disk().len()).then_some(0),
        };
        let tree = match (start, found.iter().any(|f| !f.ranges.is_empty())) {
            (Some(_), true) => Some(Tree::new(source.clone(), TreeOptions::default())?),
            _ => None,
        };
        for finding in found {
            let touched = match (&tree, start) {
                (Some(tree), Some(start)) if !finding.ranges.is_empty() => {
                    let shift =
                        |r: &Range<u64>| start.saturating_add(r.start)..start.saturating_add(r.end);
                    let ranges: Vec<_> = finding.ranges.iter().map(shift).collect();
                    owners(tree, &ranges).files
                }
                _ => Vec::new(),
            };
            guests.structure.push(VolumeFinding {
                volume: called.clone(),
                finding,
                touched,
            });
        }
    }
    Ok(())
}

/// Reads every file and named stream of every volume.
fn read_guests(
    name: &str,
    source: &Arc<Source>,
    several: bool,
    step: &mut dyn FnMut(Step<'_>),
    guests: &mut Guests,
) -> Result<()> {
    let tree = Tree::new(source.clone(), TreeOptions::default())?;
    let called = format!("files of {name}");
    let mut closed: Vec<Vec<u8>> = Vec::new();
    for volume in tree.volumes() {
        let path = volume.path.to_string();
        if volume.why_not.is_some() {
            closed.push(path.clone().into_bytes());
        }
        let path = if several {
            format!("{name} {path}")
        } else {
            path
        };
        match (&volume.why_not, &volume.info) {
            (Some(e), _) => {
                let why = e.clone();
                guests.fail(path.into_bytes(), why);
                continue;
            }
            (None, Some(info)) => {
                guests.volumes += 1;
                if info.dirty == Some(true) {
                    guests.remarks.push(format!(
                        "{path}: was not closed: it is as a crash left it, and its own journal \
                         is replayed when the guest starts"
                    ));
                }
                let told = info.remarks.iter();
                guests.remarks.extend(told.map(|r| format!("{path}: {r}")));
            }
            _ => {}
        }
    }
    let mut buf = vec![0; CHUNK as usize];
    let mut done = 0u64;
    let mut stop: Option<DiskError> = None;
    let _ = tree.find(tree.root(), b"", &|_, _| true, &mut |below| {
        let below = match below {
            Ok(below) => below,
            Err(e) if e.kind() == ErrorKind::Io => {
                stop = Some(e);
                return ControlFlow::Break(());
            }
            Err(e) => {
                let file = e.file_name().unwrap_or_default().as_bytes().to_vec();
                // A volume that cannot be entered was named above.
                if !closed.contains(&file) {
                    guests.fail(file, e);
                }
                return ControlFlow::Continue(());
            }
        };
        if below.metadata.kind != NodeKind::File {
            return ControlFlow::Continue(());
        }
        let mut streams = vec![None];
        match tree.streams(below.node) {
            Ok(named) => streams.extend(named.into_iter().map(|s| Some(s.name))),
            Err(e) => guests.fail(below.path.clone(), e),
        }
        for stream in streams {
            let read = tree
                .open(below.node, stream.as_ref())
                .and_then(|file| read_all(&*file, &mut buf));
            match read {
                Ok(bytes) => {
                    guests.files += u64::from(stream.is_none());
                    guests.bytes += bytes;
                    done += bytes;
                }
                Err(e) if e.kind() == ErrorKind::Io => {
                    stop = Some(e);
                    return ControlFlow::Break(());
                }
                Err(e) => {
                    let mut path = below.path.clone();
                    if several {
                        path.splice(..0, format!("{name} ").into_bytes());
                    }
                    if let Some(stream) = &stream {
                        path.push(b':');
                        path.extend_from_slice(stream.as_bytes());
                    }
                    guests.fail(path, e);
                }
            }
        }
        step(Step {
            file: &called,
            done,
            of: 0,
        });
        ControlFlow::Continue(())
    });
    match stop {
        Some(e) => Err(e),
        None => Ok(()),
    }
}

/// Reads what is stored of a file; holes are known to be zeros.
fn read_all(file: &dyn Disk, buf: &mut [u8]) -> Result<u64> {
    let len = file.len();
    let mut at = 0;
    while at < len {
        let run = file.run_at(at)?;
        let end = at.saturating_add(run.len.max(1)).min(len);
        if run.kind.reads_as_zero() {
            at = end;
            continue;
        }
        while at < end {
            let n = usize::try_from((end - at).min(buf.len() as u64)).unwrap_or(0);
            file.read_exact_at(&mut buf[..n], at)?;
            at += n as u64;
        }
    }
    Ok(len)
}

impl Guests {
    fn fail(&mut self, path: Vec<u8>, e: DiskError) {
        if self.failed.len() < MOST {
            self.failed.push((path, e));
        } else {
            self.dropped += 1;
        }
    }
}
