//! What `export` and `restore` share: a machine or disk, taken apart to be written.

use crate::{
    args::{Global, SourceArgs},
    exit::Failure,
    output,
    since::{Sources, chain_of},
    source,
};
use convert::backup::{
    Changes, DigestEntry, DiskPart, MachinePart, Manifest, Parts, PointEntry, VmEntry, compare,
    digest_of,
};
use disk_io::{Disk, DiskError, ErrorKind, FileId};
use inventory::{FileKind, Point, PointDisk, Slot, vm::rfc3339};
use proxy::{Machine, SourceSpec, machine::Machines};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// What was found, and what is missing of it.
pub(crate) struct Taken {
    pub(crate) parts: Parts,
    pub(crate) warnings: Vec<String>,
    /// Disks that are left out, each with the reason.
    pub(crate) left_out: Vec<String>,
    /// Disks of the machine that were not asked for.
    pub(crate) not_asked: Vec<String>,
    /// SOURCE, where it is one disk.
    pub(crate) single: Option<Arc<proxy::Source>>,
    /// What each disk was opened as, in the order of the parts.
    pub(crate) sources: Sources,
    /// The file that each disk of a machine begins with, in the same order.
    pub(crate) ids: Vec<FileId>,
    /// Whether SOURCE has a manifest that says what its disks must hold.
    pub(crate) proven: bool,
    /// The package that a machine is taken from: its manifest is not looked at yet.
    pub(crate) package: Option<PathBuf>,
}

/// Opens SOURCE: a machine as of a restore point, or a disk.
/// With `memory`, its saved state comes along, so that it goes on where it was.
pub(crate) fn take(
    args: &SourceArgs,
    global: &Global,
    changes: Changes,
    memory: bool,
) -> Result<Taken, Failure> {
    let mut spec = source::spec_of(args, global)?;
    let manifest = match spec.datastores.is_empty() && spec.path.is_dir() {
        true => Manifest::read(&spec.path)?,
        false => None,
    };
    // The backup of a single disk.
    if let Some(manifest) = manifest.as_ref().filter(|m| m.vm.is_none()) {
        let [disk] = manifest.disks.as_slice() else {
            return Err(DiskError::corrupt("reading the manifest")
                .file(spec.path.display())
                .expected("one disk where there is no machine")
                .found(manifest.disks.len().to_string())
                .into());
        };
        let expected = Some(disk.digest.clone());
        spec.path = spec.path.join(&disk.file);
        spec.format = spec.format.or(spec.format_of(&spec.path));
        let mut taken = one_disk(&spec, expected, memory)?;
        taken.left_out.extend(gaps(manifest));
        return Ok(taken);
    }
    let machines = match spec.machines()? {
        Some(machines) => Some(machines),
        None => packaged(&spec)?,
    };
    match machines {
        None => one_disk(&spec, None, memory),
        Some(machines) => {
            let (machine, date_used) = machines.only(spec.snapshot.as_deref())?;
            let wanted = spec.snapshot.clone().filter(|_| !date_used);
            // Dated backups have their manifests in their own directories.
            let manifest = match (&manifest, machine.host_dir()) {
                (None, Some(dir)) => Manifest::read(&dir)?,
                _ => manifest,
            };
            let taken = machine_parts(
                &spec,
                machine,
                wanted.as_deref(),
                manifest,
                (changes, memory),
            )?;
            Ok(Taken {
                package: spec.package_file().map(Path::to_path_buf),
                ..taken
            })
        }
    }
}

/// The machine of a package; `None` where `--disk` calls one of its disks by a name of its own.
fn packaged(spec: &SourceSpec) -> Result<Option<Machines>, Failure> {
    let is_place = |d: &str| d.parse::<Slot>().is_ok();
    match spec.disk.as_deref().is_none_or(is_place) {
        true => Ok(spec.packaged()?),
        false => Ok(None),
    }
}

fn one_disk(
    spec: &SourceSpec,
    expected: Option<DigestEntry>,
    memory: bool,
) -> Result<Taken, Failure> {
    if memory {
        return Err(Failure::usage_with(
            "a disk has no memory",
            "name the machine: its .vmx or its directory",
        ));
    }
    let opened = Arc::new(proxy::Source::open(spec)?);
    let stem = opened.path().file_stem().unwrap_or_default();
    let stem = stem.to_string_lossy().into_owned();
    Ok(Taken {
        proven: expected.is_some(),
        parts: Parts {
            stem: if stem.is_empty() { "disk".into() } else { stem },
            machine: None,
            disks: vec![DiskPart {
                slot: None,
                disk: opened.disk().clone(),
                expected,
                chain: chain_of(&opened),
                base: None,
                again: None,
            }],
            sources: source::files(&opened),
        },
        warnings: opened.warnings().to_vec(),
        left_out: Vec::new(),
        not_asked: Vec::new(),
        sources: vec![opened.clone()],
        ids: Vec::new(),
        single: Some(opened),
        package: None,
    })
}

fn machine_parts(
    spec: &SourceSpec,
    machine: &Machine,
    wanted: Option<&str>,
    manifest: Option<Manifest>,
    (mut changes, memory): (Changes, bool),
) -> Result<Taken, Failure> {
    let vm = machine.vm();
    let point = machine.point(wanted)?;
    if vm.config.encrypted && point.disks.is_empty() {
        return Err(DiskError::unsupported("exporting a machine")
            .file(vm.name())
            .expected("a configuration that can be read")
            .found("an encrypted one: which disks it has is not known")
            .hint("name its disks one by one; what an encrypted disk holds stays encrypted")
            .into());
    }
    let only = spec.disk.as_deref().map(str::parse::<Slot>).transpose()?;
    if let Some(slot) = only {
        point.disk(Some(slot))?;
    }
    let mut taken = Taken {
        parts: Parts {
            stem: stem(machine),
            machine: None,
            disks: Vec::new(),
            sources: machine.files(),
        },
        warnings: vm.warnings.clone(),
        left_out: Vec::new(),
        not_asked: Vec::new(),
        sources: Vec::new(),
        ids: Vec::new(),
        single: None,
        proven: manifest.is_some() && point.is_current(),
        package: None,
    };
    for disk in &point.disks {
        if only.is_some_and(|slot| slot != disk.slot) {
            continue;
        }
        if let Some(kind) = machine.raw_device(disk) {
            taken.left_out.push(format!(
                "{} ({}): a {kind} raw device map, whose data is on a LUN",
                disk.slot, disk.file
            ));
            continue;
        }
        let opened = machine.open(disk, false)?;
        let told = opened.warnings().iter();
        taken
            .warnings
            .extend(told.map(|w| format!("{}: {w}", disk.slot)));
        taken.parts.sources.extend(source::files(&opened));
        let expected = manifest.as_ref().filter(|_| point.is_current());
        let expected = expected.and_then(|m| {
            let place = disk.slot.to_string();
            // Hung elsewhere since, it is the same file.
            let of_file = m.disks.iter().find(|d| d.file == disk.file);
            let at_place = || m.disks.iter().find(|d| d.place.as_ref() == Some(&place));
            let entry = of_file.or_else(at_place);
            entry.map(|d| d.digest.clone())
        });
        if let (true, Some(manifest)) = (point.is_current() && expected.is_none(), &manifest) {
            taken.left_out.push(format!(
                "{} ({}): the manifest, of {}, has no such disk: that its contents are what they \
                 should be is not proven",
                disk.slot, disk.file, manifest.created
            ));
        }
        taken.proven &= expected.is_some();
        taken.parts.disks.push(DiskPart {
            slot: Some(disk.slot),
            disk: opened.disk().clone(),
            expected,
            chain: chain_of(&opened),
            base: None,
            again: None,
        });
        taken.ids.push(machine.locate(disk)?.id);
        taken.sources.push(Arc::new(opened));
    }
    // The configuration is today's: a disk that the snapshot does not have is taken out of it.
    for disk in vm.config.disks.iter().filter(|_| only.is_none()) {
        if !point.disks.iter().any(|d| d.slot == disk.slot) {
            taken.left_out.push(format!(
                "{} ({}): is not part of the snapshot",
                disk.slot, disk.file
            ));
        }
    }
    if only.is_none() {
        taken.left_out.extend(point.lost.iter().cloned());
    }
    if let (Some(manifest), true, None) = (&manifest, point.is_current(), only) {
        against_manifest(machine, point, manifest, &mut taken)?;
    }
    if let Some(only) = only {
        let others = point.disks.iter().filter(|d| d.slot != only);
        taken.not_asked = others.map(|d| format!("{} ({})", d.slot, d.file)).collect();
    }
    let state = match memory {
        true => saved_state(machine, point)?,
        false => Vec::new(),
    };
    changes.resume = state.first().cloned();
    let mut files: Vec<(String, Arc<dyn Disk>)> = Vec::new();
    for file in &vm.files {
        let wanted = matches!(
            file.kind,
            FileKind::Nvram | FileKind::ExtendedConfig | FileKind::DataSet
        ) || state.iter().any(|s| file.name.as_os_str() == s.as_str());
        if !wanted {
            continue;
        }
        let Some(name) = file.name.to_str() else {
            taken.left_out.push(format!(
                "{}: its name is no UTF-8, and a configuration that can name it is not written",
                file.name.display()
            ));
            continue;
        };
        match machine.file(&file.name) {
            Ok(opened) => {
                let mut named = manifest.iter().flat_map(|m| &m.files);
                if let Some(entry) = named.find(|f| f.name == name)
                    && let Some(kind) = entry.digest.kind()
                {
                    let found = digest_of(&opened.disk, kind, 0, &convert::NoProgress)?;
                    compare(&found, &entry.digest, name)?;
                }
                files.push((name.to_owned(), opened.disk));
            }
            Err(e) => taken.left_out.push(format!("{name}: {e}")),
        }
    }
    // What the configuration names and the directory does not have as a file: a link, or nothing.
    for key in ["nvram", "extendedConfigFile"] {
        let Some(name) = vm.config.dictionary.get(key).filter(|n| !n.is_empty()) else {
            continue;
        };
        if vm.files.iter().any(|f| f.name.as_os_str() == name) {
            continue;
        }
        match machine.file(Path::new(name)) {
            Err(e) if e.kind() == ErrorKind::NotFound => taken.warnings.push(format!(
                "{name} is named in the configuration ({key}) and is not there: a machine that was \
                 never started has none"
            )),
            Err(e) => taken.left_out.push(format!("{name}: {e}")),
            Ok(_) => taken.left_out.push(format!(
                "{name}: is named in the configuration ({key}) and is no file of the machine's \
                 directory"
            )),
        }
    }
    let name = changes.name.clone().unwrap_or_else(|| vm.name());
    taken.parts.machine = Some(MachinePart {
        entry: VmEntry {
            name,
            uuid: vm.config.uuid.clone(),
            guest_os: vm.config.guest_os.clone(),
            config: format!("{}.vmx", stem(machine)),
            point: point.uid.map(|id| PointEntry {
                id,
                name: point.name.clone(),
                created: point.created.map(rfc3339),
                description: point.description.clone(),
            }),
            consistency: Some(consistency(point, manifest.as_ref())),
        },
        config: vm.config.dictionary.clone(),
        files,
        changes,
    });
    Ok(taken)
}

/// What a backup's own manifest knows, and its configuration no longer says: disks, and that it is
/// another configuration. And what was missing when it was made.
fn against_manifest(
    machine: &Machine,
    point: &Point,
    manifest: &Manifest,
    taken: &mut Taken,
) -> Result<(), Failure> {
    let vm = machine.vm();
    for entry in &manifest.disks {
        let place = entry.place.as_deref().unwrap_or_default();
        let named = |d: &&PointDisk| d.file == entry.file || d.slot.to_string() == place;
        if !point.disks.iter().any(|d| named(&d)) {
            taken.left_out.push(format!(
                "{place} ({}): is in the manifest, and not in {}",
                entry.file,
                vm.config_file.display()
            ));
        }
    }
    // Renamed since, it is that one too.
    let called = |name: &str| manifest.files.iter().find(|f| f.name == name);
    let own = vm.config_file.to_str().and_then(called);
    let of_machine = || called(&manifest.vm.as_ref()?.config);
    let digest = own.or_else(of_machine).map(|entry| &entry.digest);
    let same = match digest.and_then(|d| Some((d, d.kind()?))) {
        None => false,
        Some((digest, kind)) => {
            let opened = machine.file(&vm.config_file)?;
            let found = digest_of(&opened.disk, kind, 0, &convert::NoProgress)?;
            compare(&found, digest, "").is_ok()
        }
    };
    if !same {
        taken.left_out.push(format!(
            "{}: was changed after the backup was made: settings of the machine may be others",
            vm.config_file.display()
        ));
    }
    taken.left_out.extend(gaps(manifest));
    Ok(())
}

/// What was missing or doubtful when a backup was made.
fn gaps(manifest: &Manifest) -> Vec<String> {
    let gaps = &manifest.gaps;
    let without = gaps.left_out.iter().chain(&gaps.not_asked);
    let without = without.map(|w| format!("when the backup was made: {w}"));
    let doubts = gaps.doubts.iter();
    let doubts = doubts.map(|d| format!("doubtful when the backup was made: {d}"));
    without.chain(doubts).collect()
}

/// What is known of the guest at that point; of a backup, what it says of itself.
fn consistency(point: &Point, manifest: Option<&Manifest>) -> String {
    let vm = manifest
        .and_then(|m| m.vm.as_ref())
        .filter(|_| point.is_current());
    let noted = vm.and_then(|vm| vm.consistency.clone());
    noted.unwrap_or_else(|| point.consistency.as_str().to_owned())
}

/// The files from which the machine goes on where it was: its state, and its memory where that is
/// in a file of its own.
fn saved_state(machine: &Machine, point: &Point) -> Result<Vec<String>, Failure> {
    let vm = machine.vm();
    let Some(state) = &point.state else {
        let with: Vec<&str> = vm
            .points
            .iter()
            .filter(|p| p.state.is_some())
            .map(|p| p.name.as_str())
            .collect();
        return Err(DiskError::not_found("looking for the machine's memory")
            .file(vm.config_file.display())
            .expected(format!("that it was saved with {}", point.name))
            .found(match with.is_empty() {
                true => "no point with memory".into(),
                false => format!("points with memory: {}", with.join(", ")),
            })
            .hint("leave out --with-memory, or say which with --snapshot")
            .into());
    };
    let base = |name: &str| name.rsplit(['/', '\\']).next().unwrap_or(name).to_owned();
    let state = base(state);
    let there = |name: &str| vm.files.iter().any(|f| f.name.as_os_str() == name);
    if !there(&state) {
        return Err(DiskError::not_found("looking for the machine's memory")
            .file(vm.config_file.display())
            .expected(format!("{state} beside it"))
            .into());
    }
    let stem = state.rsplit_once('.').map_or(state.as_str(), |(s, _)| s);
    let memory = format!("{stem}.vmem");
    // Older products have it inside the state's file.
    Ok(match there(&memory) {
        true => vec![state, memory],
        false => vec![state],
    })
}

/// Names of files in the new directory begin as the configuration's does: `nvram` and
/// `extendedConfigFile` name files that keep theirs.
fn stem(machine: &Machine) -> String {
    let stem = machine.vm().config_file.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

impl Taken {
    /// What makes contents doubtful: `shared` is what was told of places of the disks.
    pub(crate) fn doubts(&self, shared: &[String]) -> Vec<String> {
        match shared {
            [] => Vec::new(),
            shared => {
                let told = self.sources.iter().flat_map(|s| &s.image().doubts);
                told.cloned().chain(shared.iter().cloned()).collect()
            }
        }
    }

    /// Says what the user should know; whether something is missing.
    pub(crate) fn tell(&self) -> bool {
        for warning in &self.warnings {
            output::warn(warning);
        }
        for left in &self.left_out {
            output::say(format_args!(
                "vmdkit: {}left out: {}",
                output::subject(),
                disk_io::error::escape(left)
            ));
        }
        !self.left_out.is_empty()
    }

    /// Bytes of all disks.
    pub(crate) fn len(&self) -> u64 {
        self.parts.disks.iter().map(|d| d.disk.len()).sum()
    }
}
