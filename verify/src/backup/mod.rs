//! A backup from end to end: its files, its structure, what its disks hold, every guest
//! file read, and whether a machine could be made of it.

mod baseline;
mod contents;
mod earlier;
mod effort;
mod files;
mod guests;
mod picture;
mod restorable;
mod second;

pub use crate::volumes::VolumeFinding;
pub use baseline::Baseline;
pub use effort::Limits;
pub use guests::Guests;
pub use picture::{Area, Picture};
pub use second::Second;

use crate::{
    check::{self, Report, Step},
    owners::{Owner, owners},
};
use convert::{
    Progress,
    backup::{DiskEntry, Manifest},
};
use disk_image::{Format, ova::Package};
use disk_io::{DiskError, ErrorKind, Result, Severity, error::escape};
use earlier::Earlier;
use effort::Effort;
use proxy::{GuestState, Source, SourceSpec, Tree, TreeOptions};
use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Problems with guest files that are kept; beyond, only counted.
const MOST: usize = 10_000;

/// How to verify.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How structure is checked.
    pub check: check::Options,
    /// Read every guest file to its end.
    pub guest_files: bool,
    /// Compare the contents with another disk or machine.
    pub against: Option<SourceSpec>,
    /// With `against`, stop at the first difference.
    pub first: bool,
    /// Of the manifest's files only lengths and CRC-32, of contents and guests nothing.
    pub quick: bool,
    /// What guest files should be.
    pub baseline: Option<Baseline>,
    /// Read NTFS and FAT again with other readers.
    pub cross_check: bool,
    /// How much is looked at.
    pub limits: Limits,
    /// Where what is proven is kept, so that a later run goes on: for backups with a manifest.
    pub state: Option<PathBuf>,
    /// Where a machine would be restored to: room and names are looked at.
    pub target: Option<PathBuf>,
}

impl Options {
    /// What is asked of a source, as far as what was proven in another run depends on it.
    fn asked(&self, spec: &SourceSpec) -> String {
        let check::Options { decode, guests, .. } = self.check;
        let Self {
            guest_files,
            cross_check,
            ..
        } = self;
        format!("{spec:?} {decode} {guests} {guest_files} {cross_check}")
    }
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
    /// Guest files against a baseline.
    pub baseline: Vec<Item>,
    /// What a restore needs besides.
    pub restorable: Vec<Item>,
    /// Every disk at a glance.
    pub pictures: Vec<Picture>,
    /// Whether it is a machine.
    pub is_machine: bool,
    /// The backup that it builds on, if it holds only what changed.
    pub since: Option<String>,
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
        let second = self.guests.second.as_ref();
        bad(&self.files)
            || bad(&self.contents)
            || bad(&self.baseline)
            || bad(&self.restorable)
            || self.structure.is_bad()
            || damage
            || volumes
            || second.is_some_and(|s| !s.differ.is_empty())
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
    let effort = Effort::begin(&options.limits);
    let mut unproven = Vec::new();
    let mut earlier = match (&options.state, &manifest, &dir) {
        (None, _, _) => None,
        (Some(state), Some(manifest), Some(dir)) => {
            let asked = options.asked(spec);
            Some(Earlier::load(state, dir, manifest, &asked)?)
        }
        (Some(state), _, _) => {
            return Err(DiskError::refused("keeping what is proven")
                .file(state.display())
                .expected("a backup with a manifest, to which it belongs")
                .found("none"));
        }
    };
    let before = earlier.as_ref().filter(|e| !e.is_empty()).map(|e| e.runs);
    let files = match (&manifest, &dir) {
        (Some(manifest), Some(dir)) => {
            let how = (effort, progress);
            files::files(
                manifest,
                dir,
                options.quick,
                how,
                earlier.as_mut(),
                &mut unproven,
            )?
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
    let mut guests = Guests {
        second: options.cross_check.then(Second::default),
        ..Guests::default()
    };
    let (mut compared, mut pictures) = (Vec::new(), Vec::new());
    for (name, spec, entry) in &specs {
        let source = match Source::open(spec) {
            Ok(source) => Arc::new(source),
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => {
                contents.push(Item::new(format!("opening {name}"), Some(e)));
                continue;
            }
        };
        match Picture::of(name, &source) {
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => contents.push(Item::new(format!("map of {name}"), Some(e))),
            Ok(picture) => pictures.push(picture),
        }
        let len = source.disk().len();
        if len == 0 || len % 512 != 0 {
            unproven.push(format!(
                "{name}: {len} bytes are no whole sectors, which restore refuses: convert --to raw \
                 takes it"
            ));
        }
        if options.quick {
            unproven.push(format!("{name}: a quick look does not read its contents"));
            continue;
        }
        if effort.is_over() {
            unproven.push(format!("{name}: the time was up before it was read"));
            continue;
        }
        match (&options.against, entry) {
            (Some(other), _) => {
                let specs = (spec, other);
                let item = contents::against(name, &source, specs, options.first, step)?;
                contents.push(item);
            }
            (None, Some(entry)) => {
                let how = (effort, progress);
                match contents::digest(name, &source, entry, dir.as_deref(), how, earlier.as_mut())?
                {
                    Some(item) => {
                        if effort.is_over() && item.problem.is_some() {
                            unproven.push(format!("{name}: the time was up: more may differ"));
                        }
                        contents.push(item);
                    }
                    None => {
                        unproven.push(format!("{name}: the time was up before all of it was read"))
                    }
                }
                if let Some(percent) = options.limits.sample {
                    unproven.push(format!(
                        "{name}: {percent} % of its contents were looked at"
                    ));
                }
            }
            // A package's own manifest was checked with its structure.
            (None, None) if is_package(&structure) => {}
            (None, None) if is_partly_listed(&structure) => {
                unproven.push(format!(
                    "{name}: the package's manifest does not list all of its files: that its \
                     contents are what they should be is not proven"
                ));
            }
            (None, None) => unproven.push(format!(
                "{name}: there is no manifest: that its contents are what they should be is \
                 not proven"
            )),
        }
        let several = specs.len() > 1;
        if options.guest_files || options.cross_check {
            guests::check_volumes(name, &source, several, &mut guests)?;
        }
        if options.guest_files {
            let tree = Tree::new(source.clone(), TreeOptions::default())?;
            guests.remarks.extend(GuestState::of(&tree).warnings());
            let how = (effort, earlier.as_mut());
            guests::read_guests(name, (&source, several), how, step, &mut guests)?;
        }
        if let Some(baseline) = &options.baseline {
            compared.push(baseline.compare(&Tree::new(source, TreeOptions::default())?, step)?);
        }
    }
    if let Some(other) = options.against.as_ref().filter(|_| spec.disk.is_none()) {
        let ours = specs.iter().filter_map(|(_, spec, _)| spec.disk.as_deref());
        let ours: Vec<&str> = ours.collect();
        let (items, remarks) = contents::only_there(&ours, other)?;
        contents.extend(items);
        guests.remarks.extend(remarks);
    }
    if let Some(gaps) = manifest.as_ref().map(|m| &m.gaps) {
        let without = gaps.left_out.iter();
        unproven.extend(without.map(|w| format!("left out when the backup was made: {w}")));
        let doubts = gaps.doubts.iter();
        unproven.extend(doubts.map(|d| format!("doubtful when the backup was made: {d}")));
        let others = gaps.not_asked.iter();
        let others =
            others.map(|d| format!("{d} of the machine was not asked for, and is not in it"));
        guests.remarks.extend(others);
    }
    // A lone disk need not start a machine.
    let is_machine = !single && specs.iter().any(|(_, spec, _)| spec.disk.is_some());
    let target = options.target.as_deref();
    let (restorable, why) = restorable::look(spec, is_machine, &pictures, target)?;
    guests.remarks.extend(why);
    if guests.left > 0 {
        let (left, read) = (guests.left, guests.files);
        unproven.push(format!(
            "of the guests' files {read} were read, {left} were not"
        ));
    }
    if guests.cut {
        unproven.push("the time was up before every guest file was read".into());
    }
    if let Some(earlier) = &earlier {
        if let Some(runs) = before {
            guests.remarks.push(format!(
                "{runs} earlier runs proved a part, which was not read again: no file of the backup \
                 has changed since"
            ));
        }
        if earlier.anew {
            guests.remarks.push(
                "what earlier runs proved does not count: a file of the backup, what was asked, or \
                 this program is another one"
                    .into(),
            );
        }
        // All of it was looked at: what is bad is found again from the beginning.
        match unproven.is_empty() {
            true => earlier.forget()?,
            false => earlier.save()?,
        }
    }
    let since = manifest.as_ref().and_then(|m| m.since.as_ref());
    Ok(Verified {
        is_machine,
        since: since.map(|s| s.directory.clone()),
        created: manifest.map(|m| m.created),
        files,
        structure,
        contents,
        guests,
        baseline: baseline::best(compared),
        restorable,
        pictures,
        unproven,
    })
}

/// Whether it is a package with a manifest that says what its files should be.
fn is_package(structure: &Report) -> bool {
    let package = matches!(structure.format, Format::Ova | Format::Ovf);
    let lacks =
        |r: &check::Reported| matches!(r.finding.code, "manifest-missing" | "manifest-incomplete");
    package && !structure.findings.iter().any(lacks)
}

/// Whether it is one whose manifest leaves out some of its files.
fn is_partly_listed(structure: &Report) -> bool {
    let mut findings = structure.findings.iter();
    findings.any(|r| r.finding.code == "manifest-incomplete")
}

type One = (String, SourceSpec, Option<DiskEntry>);

/// Each disk of SOURCE, with what the manifest says of it.
fn disks(spec: &SourceSpec, manifest: Option<&Manifest>, dir: Option<&Path>) -> Result<Vec<One>> {
    if let (Some(manifest), Some(dir)) = (manifest.filter(|m| m.vm.is_none()), dir) {
        let disks = manifest.disks.iter().map(|disk| {
            let spec = SourceSpec {
                path: dir.join(&disk.file),
                format: spec.format.or(spec.format_of(Path::new(&disk.file))),
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
