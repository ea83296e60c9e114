//! `vm`: the virtual machines of a directory or datastore.

use crate::{
    args::{Global, HowArgs, SourceArgs},
    exit::{Exit, Failure},
    guest::{self, GuestJson},
    names::{hex_if_needed, shown},
    output::{Out, human},
    source::spec_of,
};
use clap::Args;
use convert::backup::{Manifest, PointEntry, VmEntry};
use disk_io::error::escape;
use inventory::{
    Point, PointDisk, Vm as Guest,
    vm::{Consistency, rfc3339},
};
use proxy::{
    GuestState, Machine, SourceSpec,
    machine::{DiskFacts, Scanned, scan},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// List virtual machines: their disks, snapshots and files, and what no machine uses
///
/// Packages (OVA, OVF) are looked into: what a descriptor says of a machine is shown as its
/// configuration would say it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit vm /backups                        every machine below a directory
  vmdkit vm -D lun.img                      every machine of a datastore
  vmdkit vm web01/web01.vmx
  vmdkit vm appliance.ova
  vmdkit vm --select name:web01 /backups
  vmdkit vm --guest /backups/web01-2026-11-26
  vmdkit vm --json /backups | jq -r '.places[].vms[] | .name, .points[].name'

Then: vmdkit ls web01/web01.vmx /snapshots shows a machine's files as of each snapshot.
Nothing but text files and the headers of disks is read.")]
pub(crate) struct Vm {
    /// A directory, a configuration (.vmx) or a datastore's device; none with --datastore
    /// means all of it
    #[arg(value_name = "SOURCE")]
    source: Option<PathBuf>,
    #[command(flatten)]
    how: HowArgs,
    /// Only these machines (repeatable): name:TEXT, uuid:TEXT, any:, or a name
    #[arg(long, value_name = "SELECTOR")]
    select: Vec<String>,
    /// Do not open disks: no lengths, no chains, nothing on what no machine uses
    #[arg(long)]
    no_disks: bool,
    /// Say of each point what the guest says of itself: its name, its system, its fixed addresses,
    /// databases that may have been open, volumes that were not closed. Its disks are opened for that
    #[arg(long, conflicts_with = "no_disks")]
    guest: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json {
    places: Vec<PlaceJson>,
}

#[derive(Serialize)]
struct PlaceJson {
    place: String,
    vms: Vec<VmJson>,
    /// Disks that several machines name.
    shared_disks: Vec<SharedJson>,
    /// Disks that no machine uses; `null` where that was not looked at.
    unused: Option<Vec<String>>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct SharedJson {
    file: String,
    vms: Vec<String>,
}

#[derive(Serialize)]
struct VmJson {
    name: String,
    uuid: Option<String>,
    guest_os: Option<String>,
    hardware_version: Option<i64>,
    firmware: Option<String>,
    config: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_hex: Option<String>,
    template: bool,
    encrypted: bool,
    points: Vec<PointJson>,
    files: Vec<FileJson>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct PointJson {
    /// Number of the snapshot; `null` for the present state.
    id: Option<i64>,
    name: String,
    description: Option<String>,
    created: Option<String>,
    depth: usize,
    memory: bool,
    /// What the guest had done: memory, quiesced, crash or unknown.
    consistency: &'static str,
    #[serde(skip)]
    said: &'static str,
    /// Of a backup: the snapshot that it was made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    made_of: Option<PointEntry>,
    /// With --guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    guest: Option<GuestJson>,
    #[serde(skip)]
    state: Option<GuestState>,
    disks: Vec<DiskJson>,
}

#[derive(Serialize)]
struct DiskJson {
    place: String,
    file: String,
    independent: bool,
    shared: bool,
    raw_device: Option<&'static str>,
    format: Option<&'static str>,
    create_type: Option<String>,
    size: Option<u64>,
    chain: Vec<String>,
    error: Option<String>,
}

#[derive(Serialize)]
struct FileJson {
    name: String,
    kind: &'static str,
    size: u64,
}

impl Vm {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        if self.source.is_none() && self.how.datastore.is_empty() {
            return Err(Failure::usage_with(
                "nothing to look through",
                "name a directory, a .vmx, or a datastore with --datastore",
            ));
        }
        let args = SourceArgs {
            source: self.source.clone().unwrap_or_default(),
            how: self.how.clone(),
        };
        let spec = spec_of(&args, global)?;
        let mut places = Vec::new();
        for scanned in scan(&spec)? {
            places.push(self.place(&scanned, &spec)?);
        }
        let found = places.iter().any(|p| !p.vms.is_empty());
        let broken = places.iter().any(is_broken);
        let mut out = Out::new();
        match self.json {
            true => out.document(&Json { places })?,
            false => {
                let several = places.len() > 1;
                for place in &places {
                    print_place(&mut out, place, several, found)?;
                }
            }
        }
        out.finish()?;
        if !found && !self.select.is_empty() {
            return Err(Failure::Disk(
                disk_io::DiskError::not_found("selecting virtual machines")
                    .expected(self.select.join(", "))
                    .found("no machine that fits"),
            ));
        }
        Ok(Exit::partial_if(broken))
    }

    fn place(&self, scanned: &Scanned, spec: &SourceSpec) -> Result<PlaceJson, Failure> {
        let inventory = &scanned.inventory;
        let mut used: BTreeSet<PathBuf> = scanned.packaged.iter().cloned().collect();
        let mut known = BTreeMap::new();
        let mut vms = Vec::new();
        for vm in &inventory.vms {
            let machine = scanned.machine(vm, spec);
            let points = vm
                .points
                .iter()
                .map(|p| self.point(&machine, p, scanned, &mut known, &mut used));
            let points = points.collect();
            let chosen = self.select.is_empty()
                || self.select.iter().any(|s| {
                    let fits = inventory.select(s);
                    fits.iter().any(|f| std::ptr::eq(*f, vm))
                });
            if chosen {
                vms.push(vm_json(vm, points));
            }
        }
        let shared = inventory.shared_disks().into_iter().map(|(file, vms)| {
            let names = vms.iter().filter_map(|n| inventory.vms.get(*n));
            SharedJson {
                file: file.display().to_string(),
                vms: names.map(Guest::name).collect(),
            }
        });
        let unused = inventory.unused(&used);
        Ok(PlaceJson {
            place: scanned.place.describe(),
            vms,
            shared_disks: shared.collect(),
            unused: (!self.no_disks && self.select.is_empty())
                .then(|| unused.iter().map(|p| p.display().to_string()).collect()),
            warnings: inventory.warnings.clone(),
        })
    }

    fn point(
        &self,
        machine: &Machine,
        point: &Point,
        scanned: &Scanned,
        known: &mut BTreeMap<(PathBuf, String), Told>,
        used: &mut BTreeSet<PathBuf>,
    ) -> PointJson {
        let dir = &machine.vm().dir;
        let disks = point.disks.iter().map(|disk| {
            let facts = match self.no_disks {
                true => Told::default(),
                false => known
                    .entry((dir.clone(), disk.file.clone()))
                    .or_insert_with(|| facts(machine, disk, scanned, used))
                    .clone(),
            };
            disk_json(disk, facts)
        });
        let state = self.guest.then(|| {
            // What cannot be opened is said at the disk.
            let opened = point
                .disks
                .iter()
                .filter_map(|d| machine.open(point, d, false).ok());
            let sources: Vec<_> = opened.map(Arc::new).collect();
            guest::of_machine(&sources, &machine.vm().config.dictionary)
        });
        let backup = of_backup(machine, point);
        let consistency = backup.as_ref().and_then(|vm| vm.consistency.as_deref());
        let consistency = consistency
            .and_then(Consistency::of)
            .unwrap_or(point.consistency);
        PointJson {
            made_of: backup.and_then(|vm| vm.point),
            guest: state.as_ref().map(GuestJson::from),
            state,
            id: point.uid,
            name: point.name.clone(),
            description: point.description.clone(),
            created: point.created.map(rfc3339),
            depth: point.depth,
            memory: point.consistency == Consistency::Memory,
            consistency: consistency.as_str(),
            said: consistency.describe(),
            disks: disks.collect(),
        }
    }
}

/// What the manifest of a backup says of the machine, for its present state.
fn of_backup(machine: &Machine, point: &Point) -> Option<VmEntry> {
    let dir = machine.host_dir().filter(|_| point.is_current())?;
    // One that cannot be read is for verify to tell.
    Manifest::read(&dir).ok().flatten()?.vm
}

/// What opening a disk told.
#[derive(Clone, Default)]
struct Told {
    raw_device: Option<&'static str>,
    facts: Option<DiskFacts>,
    error: Option<String>,
    chain: Vec<PathBuf>,
}

fn facts(
    machine: &Machine,
    disk: &PointDisk,
    scanned: &Scanned,
    used: &mut BTreeSet<PathBuf>,
) -> Told {
    let raw_device = machine.raw_device(disk);
    match machine.describe(disk) {
        Ok(facts) => {
            used.extend(facts.files.iter().map(|f| scanned.relative(f)));
            let chain = facts.chain.iter().map(|f| scanned.relative(f)).collect();
            Told {
                raw_device,
                facts: Some(facts),
                error: None,
                chain,
            }
        }
        Err(e) => {
            // Its own file is used, whatever is wrong with it.
            used.insert(inventory::scan::in_place(&machine.vm().dir, &disk.file));
            Told {
                raw_device,
                facts: None,
                error: Some(e.to_string()),
                chain: Vec::new(),
            }
        }
    }
}

fn disk_json(disk: &PointDisk, told: Told) -> DiskJson {
    let facts = told.facts;
    DiskJson {
        place: disk.slot.to_string(),
        file: disk.file.clone(),
        independent: disk.independent,
        shared: disk.shared,
        raw_device: told.raw_device,
        format: facts.as_ref().map(|f| f.format.name()),
        create_type: facts.as_ref().and_then(|f| f.create_type.clone()),
        size: facts.as_ref().map(|f| f.len),
        chain: told.chain.iter().map(|p| p.display().to_string()).collect(),
        error: told.error,
    }
}

fn vm_json(vm: &Guest, points: Vec<PointJson>) -> VmJson {
    let config = vm.dir.join(&vm.config_file);
    let bytes = config.as_os_str().as_bytes();
    let mut warnings = vm.warnings.clone();
    for disk in points.iter().flat_map(|p| &p.disks) {
        if let Some(kind) = disk.raw_device {
            let said = format!(
                "{}: {} is a {kind} raw device map: its data is on a LUN, and no snapshot or \
                 backup of files covers it",
                disk.place, disk.file
            );
            if !warnings.contains(&said) {
                warnings.push(said);
            }
        }
    }
    VmJson {
        name: vm.name(),
        uuid: vm.config.uuid.clone(),
        guest_os: vm.config.guest_os.clone(),
        hardware_version: vm.config.hardware,
        firmware: vm.config.firmware.clone(),
        config: shown(bytes),
        config_hex: hex_if_needed(bytes),
        template: vm.is_template(),
        encrypted: vm.config.encrypted,
        points,
        files: vm
            .files
            .iter()
            .map(|f| FileJson {
                name: f.name.display().to_string(),
                kind: f.kind.as_str(),
                size: f.size,
            })
            .collect(),
        warnings,
    }
}

/// Whether a disk cannot be opened, or something could not be looked at.
fn is_broken(place: &PlaceJson) -> bool {
    let points = place.vms.iter().flat_map(|vm| &vm.points);
    let mut disks = points.flat_map(|p| &p.disks);
    !place.warnings.is_empty() || disks.any(|d| d.error.is_some() && d.raw_device.is_none())
}

/// `several` of them are shown, and machines are `found` in one at least.
fn print_place(
    out: &mut Out,
    place: &PlaceJson,
    several: bool,
    found: bool,
) -> Result<(), Failure> {
    for vm in &place.vms {
        print_vm(out, vm, several.then_some(place.place.as_str()))?;
    }
    if place.vms.is_empty() && !found {
        out.line(format!("{}: no virtual machines", escape(&place.place)))?;
    }
    for shared in &place.shared_disks {
        let vms = shared.vms.join(", ");
        out.line(escape(&format!("shared: {} by {vms}", shared.file)))?;
    }
    for file in place.unused.iter().flatten() {
        out.line(format!("unused: {} belongs to no machine", escape(file)))?;
    }
    for warning in &place.warnings {
        crate::output::warn(warning);
    }
    Ok(())
}

fn print_vm(out: &mut Out, vm: &VmJson, place: Option<&str>) -> Result<(), Failure> {
    let place = place.map(|p| format!("{p} ")).unwrap_or_default();
    let config = escape(&format!("{place}{}", vm.config));
    let mut line = format!("{}: {config}", escape(&vm.name));
    let facts = [
        vm.guest_os.clone(),
        vm.hardware_version.map(|v| format!("hardware {v}")),
        vm.firmware.clone(),
        vm.uuid.clone(),
        vm.template.then(|| "template".to_owned()),
        vm.encrypted.then(|| "ENCRYPTED".to_owned()),
    ];
    for fact in facts.into_iter().flatten() {
        line.push_str(&format!(", {}", escape(&fact)));
    }
    out.line(line)?;
    for point in &vm.points {
        let indent = "  ".repeat(point.depth.min(40) + 1);
        let created = point.created.as_deref().map(|c| format!("  {c}"));
        out.line(match point.id {
            None if point.memory => format!("{indent}current (suspended, with memory)"),
            None => match &point.made_of {
                Some(of) => format!(
                    "{indent}current (made of snapshot {}, {}){}",
                    escape(&of.name),
                    point.said,
                    of.created
                        .as_deref()
                        .map(|c| format!("  {}", escape(c)))
                        .unwrap_or_default()
                ),
                None if point.consistency == Consistency::Unknown.as_str() => {
                    format!("{indent}current")
                }
                None => format!("{indent}current ({})", point.said),
            },
            Some(id) => format!(
                "{indent}snapshot {} (id {id}, {}){}",
                escape(&point.name),
                point.said,
                created.unwrap_or_default()
            ),
        })?;
        for line in point.description.iter().flat_map(|d| d.lines()) {
            out.line(format!("{indent}  \"{}\"", escape(line)))?;
        }
        for disk in &point.disks {
            print_disk(out, disk, &indent)?;
        }
        if let Some(state) = &point.state {
            guest::lines(out, state, &format!("{indent}  "))?;
            for warning in state.warnings() {
                out.line(format!("{indent}  warning: {}", escape(&warning)))?;
            }
        }
    }
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for file in &vm.files {
        *kinds.entry(file.kind).or_default() += 1;
    }
    let kinds: Vec<_> = kinds.iter().map(|(k, n)| format!("{n} {k}")).collect();
    if !kinds.is_empty() {
        out.line(format!("  files: {}", kinds.join(", ")))?;
    }
    for warning in &vm.warnings {
        out.line(format!("  warning: {}", escape(warning)))?;
    }
    Ok(())
}

fn print_disk(out: &mut Out, disk: &DiskJson, indent: &str) -> Result<(), Failure> {
    let size = disk.size.map_or_else(|| "?".to_owned(), human);
    let links = match disk.chain.len() {
        0 | 1 => String::new(),
        n => format!(", {n} links down to {}", base(disk.chain.last())),
    };
    let notes = [
        disk.independent.then_some("independent"),
        disk.shared.then_some("shared"),
        disk.raw_device,
    ];
    let notes: Vec<_> = notes.into_iter().flatten().collect();
    let notes = match notes.is_empty() {
        true => String::new(),
        false => format!(" [{}]", notes.join(", ")),
    };
    out.line(format!(
        "{indent}  {}  {size}  {}{}{notes}",
        disk.place,
        escape(&disk.file),
        escape(&links)
    ))?;
    match &disk.error {
        Some(e) => out.line(format!("{indent}    CANNOT BE OPENED: {}", escape(e))),
        None => Ok(()),
    }
}

fn base(path: Option<&String>) -> String {
    let name = path.and_then(|p| Path::new(p).file_name());
    name.unwrap_or_default().to_string_lossy().into_owned()
}
