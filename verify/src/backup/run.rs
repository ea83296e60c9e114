//! One backup, looked at from end to end.

use super::{
    Item, Options, Verified, baseline, contents,
    earlier::Earlier,
    effort::Effort,
    files, guests,
    guests::Guests,
    members::{self, Member},
    picture::Picture,
    restorable,
    second::Second,
};
use crate::check::{self, Report, Step};
use convert::{
    Progress,
    backup::{DiskEntry, Manifest},
};
use disk_image::Format;
use disk_io::{DiskError, ErrorKind, Result};
use proxy::{GuestState, Source, SourceSpec, Tree, TreeOptions};
use std::{path::PathBuf, sync::Arc};

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
    let mut run = Run::begin(spec, options, step, progress)?;
    let files = run.files()?;
    let members = members::disks(spec, run.manifest.as_ref(), run.dir.as_deref())?;
    let structure = run.structure(&members)?;
    for member in &members {
        run.disk(member, members.len() > 1, &structure)?;
    }
    run.only_in_the_other(&members)?;
    run.gaps();
    // A lone disk need not start a machine.
    let is_machine = !run.is_single() && members.iter().any(|m| m.spec.disk.is_some());
    let target = options.target.as_deref();
    let (restorable, why) = restorable::look(spec, is_machine, &run.pictures, target)?;
    run.guests.remarks.extend(why);
    run.not_read();
    run.remember()?;
    let since = run.manifest.as_ref().and_then(|m| m.since.as_ref());
    Ok(Verified {
        is_machine,
        since: since.map(|s| s.directory.clone()),
        created: run.manifest.map(|m| m.created),
        files,
        structure,
        contents: run.contents,
        guests: run.guests,
        baseline: baseline::best(run.compared),
        restorable,
        pictures: run.pictures,
        unproven: run.unproven,
    })
}

/// What is asked, and what is known so far.
struct Run<'a> {
    spec: &'a SourceSpec,
    options: &'a Options,
    step: &'a mut dyn FnMut(Step<'_>),
    progress: &'a dyn Progress,
    effort: Effort,
    /// Where the files of the manifest are.
    dir: Option<PathBuf>,
    manifest: Option<Manifest>,
    /// What earlier runs proved.
    earlier: Option<Earlier>,
    /// How many runs those were, before this one.
    runs_before: Option<u64>,
    contents: Vec<Item>,
    guests: Guests,
    /// Of each disk, what the baseline says of its guest's files.
    compared: Vec<Vec<Item>>,
    pictures: Vec<Picture>,
    unproven: Vec<String>,
}

impl<'a> Run<'a> {
    fn begin(
        spec: &'a SourceSpec,
        options: &'a Options,
        step: &'a mut dyn FnMut(Step<'_>),
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let dir = match spec.datastores.is_empty() && spec.path.is_dir() {
            true => Some(spec.path.clone()),
            false => None,
        };
        let manifest = match &dir {
            Some(dir) => Manifest::read(dir)?,
            None => None,
        };
        let effort = Effort::begin(&options.limits);
        let earlier = match (&options.state, &manifest, &dir) {
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
        Ok(Self {
            runs_before: earlier.as_ref().filter(|e| !e.is_empty()).map(|e| e.runs),
            guests: Guests {
                second: options.cross_check.then(Second::default),
                ..Guests::default()
            },
            spec,
            options,
            step,
            progress,
            effort,
            dir,
            manifest,
            earlier,
            contents: Vec::new(),
            compared: Vec::new(),
            pictures: Vec::new(),
            unproven: Vec::new(),
        })
    }

    /// Whether it is the backup of a single disk, which is no machine.
    fn is_single(&self) -> bool {
        self.manifest.as_ref().is_some_and(|m| m.vm.is_none())
    }

    /// The files that the manifest lists.
    fn files(&mut self) -> Result<Vec<Item>> {
        let (Some(manifest), Some(dir)) = (&self.manifest, &self.dir) else {
            return Ok(Vec::new());
        };
        files::files(
            manifest,
            dir,
            self.options.quick,
            (self.effort, self.progress),
            self.earlier.as_mut(),
            (&mut self.unproven, &mut self.guests.remarks),
        )
    }

    fn structure(&mut self, members: &[Member]) -> Result<Report> {
        match members {
            [only] if self.is_single() => check::check(&only.spec, &self.options.check, self.step),
            _ => check::check(self.spec, &self.options.check, self.step),
        }
    }

    /// One disk: its map, its contents and its guest's files.
    fn disk(&mut self, member: &Member, several: bool, structure: &Report) -> Result<()> {
        let name = &member.name;
        let source = match Source::open(&member.spec) {
            Ok(source) => Arc::new(source),
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => {
                let item = Item::new(format!("opening {name}"), Some(e));
                self.contents.push(item);
                return Ok(());
            }
        };
        match Picture::of(name, &source) {
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => (self.contents).push(Item::new(format!("map of {name}"), Some(e))),
            Ok(picture) => self.pictures.push(picture),
        }
        let len = source.disk().len();
        if len == 0 || len % 512 != 0 {
            self.unproven.push(format!(
                "{name}: {len} bytes are no whole sectors, which restore refuses: convert --to raw \
                 takes it"
            ));
        }
        if self.options.quick {
            (self.unproven).push(format!("{name}: a quick look does not read its contents"));
            return Ok(());
        }
        if self.effort.is_over() {
            (self.unproven).push(format!("{name}: the time was up before it was read"));
            return Ok(());
        }
        self.contents_of(member, &source, structure)?;
        self.guest_of(member, &source, several)
    }

    /// Whether the contents are what they should be.
    fn contents_of(
        &mut self,
        member: &Member,
        source: &Arc<Source>,
        structure: &Report,
    ) -> Result<()> {
        let name = &member.name;
        if let Some(other) = &self.options.against {
            let specs = (&member.spec, other);
            let first = self.options.first;
            let item = contents::against(name, source, specs, first, self.step)?;
            self.contents.push(item);
        } else if let Some(entry) = &member.entry {
            self.digest_of(name, source, entry)?;
        } else if is_package(structure) {
            // A package's own manifest was checked with its structure.
        } else if is_partly_listed(structure) {
            self.unproven.push(format!(
                "{name}: the package's manifest does not list all of its files: that its \
                 contents are what they should be is not proven"
            ));
        } else {
            self.unproven.push(format!(
                "{name}: there is no manifest: that its contents are what they should be is \
                 not proven"
            ));
        }
        Ok(())
    }

    /// Whether the contents have the digest of the manifest.
    fn digest_of(&mut self, name: &str, source: &Arc<Source>, entry: &DiskEntry) -> Result<()> {
        let (how, dir) = ((self.effort, self.progress), self.dir.as_deref());
        match contents::digest(name, source, entry, dir, how, self.earlier.as_mut())? {
            Some(item) => {
                if self.effort.is_over() && item.problem.is_some() {
                    (self.unproven).push(format!("{name}: the time was up: more may differ"));
                }
                self.contents.push(item);
            }
            None => {
                (self.unproven).push(format!("{name}: the time was up before all of it was read"))
            }
        }
        if let Some(percent) = self.options.limits.sample {
            (self.unproven).push(format!(
                "{name}: {percent} % of its contents were looked at"
            ));
        }
        Ok(())
    }

    /// What is in the volumes, as far as that was asked for.
    fn guest_of(&mut self, member: &Member, source: &Arc<Source>, several: bool) -> Result<()> {
        let (options, name) = (self.options, &member.name);
        if options.guest_files || options.cross_check {
            guests::check_volumes(name, source, several, &mut self.guests)?;
        }
        let tree = || Tree::new(source.clone(), TreeOptions::default());
        if options.guest_files {
            let state = GuestState::of(&tree()?);
            self.guests.remarks.extend(state.warnings());
            let how = (self.effort, self.earlier.as_mut());
            guests::read_guests(name, (source, several), how, self.step, &mut self.guests)?;
        }
        if let Some(baseline) = &options.baseline {
            self.compared.push(baseline.compare(&tree()?, self.step)?);
        }
        Ok(())
    }

    /// Disks that only the other machine has.
    fn only_in_the_other(&mut self, members: &[Member]) -> Result<()> {
        let Some(other) = &self.options.against else {
            return Ok(());
        };
        if self.spec.disk.is_some() {
            return Ok(());
        }
        let ours = members.iter().filter_map(|m| m.spec.disk.as_deref());
        let ours: Vec<&str> = ours.collect();
        let (items, remarks) = contents::only_there(&ours, other)?;
        self.contents.extend(items);
        self.guests.remarks.extend(remarks);
        Ok(())
    }

    /// What the backup lacked when it was made.
    fn gaps(&mut self) {
        let Some(gaps) = self.manifest.as_ref().map(|m| &m.gaps) else {
            return;
        };
        let without = gaps.left_out.iter();
        (self.unproven).extend(without.map(|w| format!("left out when the backup was made: {w}")));
        let doubts = gaps.doubts.iter();
        (self.unproven).extend(doubts.map(|d| format!("doubtful when the backup was made: {d}")));
        let others = gaps.not_asked.iter();
        (self.guests.remarks).extend(
            others.map(|d| format!("{d} of the machine was not asked for, and is not in it")),
        );
    }

    /// Guest files that a limit left out.
    fn not_read(&mut self) {
        if self.guests.left > 0 {
            let (left, read) = (self.guests.left, self.guests.files);
            self.unproven.push(format!(
                "of the guests' files {read} were read, {left} were not"
            ));
        }
        if self.guests.cut {
            (self.unproven).push("the time was up before every guest file was read".into());
        }
    }

    /// Says what earlier runs proved, and keeps what this one did.
    fn remember(&mut self) -> Result<()> {
        let Some(earlier) = &self.earlier else {
            return Ok(());
        };
        if let Some(runs) = self.runs_before {
            self.guests.remarks.push(format!(
                "{runs} earlier runs proved a part, which was not read again: no file of the backup \
                 has changed since"
            ));
        }
        if earlier.anew {
            self.guests.remarks.push(
                "what earlier runs proved does not count: a file of the backup, what was asked, or \
                 this program is another one"
                    .into(),
            );
        }
        // All of it was looked at: what is bad is found again from the beginning.
        match self.unproven.is_empty() {
            true => earlier.forget(),
            false => earlier.save(),
        }
    }
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
