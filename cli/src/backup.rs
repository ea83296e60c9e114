//! What `export` and `restore` share: a machine or disk, taken apart to be written.

mod machine;

use crate::{
    args::{Global, SourceArgs},
    exit::Failure,
    output,
    since::{Sources, chain_of},
    source,
};
use convert::backup::{Changes, DigestEntry, DiskPart, Manifest, Parts};
use disk_io::{Disk, DiskError, FileId};
use inventory::Slot;
use machine::machine_parts;
use proxy::{SourceSpec, machine::Machines};
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

/// What was missing or doubtful when a backup was made.
fn gaps(manifest: &Manifest) -> Vec<String> {
    let gaps = &manifest.gaps;
    let without = gaps.left_out.iter().chain(&gaps.not_asked);
    let without = without.map(|w| format!("when the backup was made: {w}"));
    let doubts = gaps.doubts.iter();
    let doubts = doubts.map(|d| format!("doubtful when the backup was made: {d}"));
    without.chain(doubts).collect()
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
