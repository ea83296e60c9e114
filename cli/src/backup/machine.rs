//! A machine as of a restore point, taken apart.

use super::{Taken, gaps};
use crate::{exit::Failure, since::chain_of, source};
use convert::backup::{
    Changes, DigestEntry, DiskPart, MachinePart, Manifest, Parts, PointEntry, VmEntry, compare,
    digest_of,
};
use disk_io::{Disk, DiskError, ErrorKind};
use inventory::{FileKind, Point, PointDisk, Slot, vm::rfc3339};
use proxy::{Machine, SourceSpec};
use std::{path::Path, sync::Arc};

/// The machine at the point that `wanted` names, and what is missing of it.
pub(super) fn machine_parts(
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
    // What the manifest says is of the machine's present state.
    let says = manifest.as_ref().filter(|_| point.is_current());
    for disk in &point.disks {
        if only.is_none_or(|slot| slot == disk.slot) {
            take_disk(machine, (point, disk), says, &mut taken)?;
        }
    }
    match only {
        Some(only) => {
            let others = point.disks.iter().filter(|d| d.slot != only);
            taken.not_asked = others.map(|d| format!("{} ({})", d.slot, d.file)).collect();
        }
        None => {
            not_at_the_point(machine, point, &mut taken);
            if let Some(manifest) = says {
                against_manifest(machine, point, manifest, &mut taken)?;
            }
        }
    }
    let state = match memory {
        true => saved_state(machine, point)?,
        false => Vec::new(),
    };
    changes.resume = state.first().cloned();
    let files = files_beside(machine, &state, manifest.as_ref(), &mut taken)?;
    named_and_not_there(machine, &mut taken);
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

/// Opens one disk of the machine. `manifest` is what a backup says of it.
fn take_disk(
    machine: &Machine,
    (point, disk): (&Point, &PointDisk),
    manifest: Option<&Manifest>,
    taken: &mut Taken,
) -> Result<(), Failure> {
    let (slot, file) = (disk.slot, &disk.file);
    if let Some(kind) = machine.raw_device(disk) {
        taken.left_out.push(format!(
            "{slot} ({file}): a {kind} raw device map, whose data is on a LUN"
        ));
        return Ok(());
    }
    let opened = machine.open(point, disk, false)?;
    let told = opened.warnings().iter();
    // Some begin with it.
    let own = format!("{slot}: ");
    (taken.warnings).extend(told.map(|w| match w.starts_with(&own) {
        true => w.clone(),
        false => format!("{own}{w}"),
    }));
    taken.parts.sources.extend(source::files(&opened));
    let expected = manifest.and_then(|m| expected(m, disk));
    if let (None, Some(manifest)) = (&expected, manifest) {
        taken.left_out.push(format!(
            "{slot} ({file}): the manifest, of {}, has no such disk: that its contents are what \
             they should be is not proven",
            manifest.created
        ));
    }
    taken.proven &= expected.is_some();
    taken.parts.disks.push(DiskPart {
        slot: Some(slot),
        disk: opened.disk().clone(),
        expected,
        chain: chain_of(&opened),
        base: None,
        again: None,
    });
    taken.ids.push(machine.locate(disk)?.id);
    taken.sources.push(Arc::new(opened));
    Ok(())
}

/// The digest that a manifest has of a disk. Hung elsewhere since, it is the same file.
fn expected(manifest: &Manifest, disk: &PointDisk) -> Option<DigestEntry> {
    let place = Some(disk.slot.to_string());
    let mut disks = manifest.disks.iter();
    let of_file = disks.find(|d| d.file == disk.file);
    let at_place = || manifest.disks.iter().find(|d| d.place == place);
    of_file.or_else(at_place).map(|d| d.digest.clone())
}

/// Disks that the snapshot does not have, or no more. The configuration is today's: they are taken
/// out of it.
fn not_at_the_point(machine: &Machine, point: &Point, taken: &mut Taken) {
    for disk in &machine.vm().config.disks {
        if !point.disks.iter().any(|d| d.slot == disk.slot) {
            taken.left_out.push(format!(
                "{} ({}): is not part of the snapshot",
                disk.slot, disk.file
            ));
        }
    }
    taken.left_out.extend(point.lost.iter().cloned());
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

/// Names and contents.
type Files = Vec<(String, Arc<dyn Disk>)>;

/// The machine's other files that a backup has: those of its settings, and of its `state`.
fn files_beside(
    machine: &Machine,
    state: &[String],
    manifest: Option<&Manifest>,
    taken: &mut Taken,
) -> Result<Files, Failure> {
    let mut files = Files::new();
    for file in &machine.vm().files {
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
    Ok(files)
}

/// What the configuration names and the directory does not have as a file: a link, or nothing.
fn named_and_not_there(machine: &Machine, taken: &mut Taken) {
    let vm = machine.vm();
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
