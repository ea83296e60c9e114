//! A virtual machine: its configuration, its restore points, the files that belong to it.

use crate::{
    config::{Config, Slot},
    dictionary::Dictionary,
    place::{Listing, Place},
    redo,
    snapshots::{Snapshot, Snapshots},
    vcb,
};
use disk_io::{DiskError, ErrorKind, Purpose, Result};
use std::path::{Path, PathBuf};

/// What the present state is called, whatever snapshots are.
pub const CURRENT: &str = "current";

/// A machine as its files describe it. No disk is opened.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Directory of the configuration, relative to its place.
    pub dir: PathBuf,
    /// Name of the configuration in that directory.
    pub config_file: PathBuf,
    /// The configuration.
    pub config: Config,
    /// The snapshots, if there is a list of them.
    pub snapshots: Option<Snapshots>,
    /// States that can be restored: the present one first, then the snapshots, roots first.
    pub points: Vec<Point>,
    /// Files of the directory that belong to the machine, by name; disks are not among them.
    pub files: Vec<VmFile>,
    /// What stands in the way or should be known, one sentence each.
    pub warnings: Vec<String>,
}

/// A state of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Number of the snapshot; `None` for the present state.
    pub uid: Option<i64>,
    /// What the user called it; `current` for the present state.
    pub name: String,
    /// What the user said of it.
    pub description: Option<String>,
    /// When it was taken: microseconds since 1970, UTC.
    pub created: Option<i64>,
    /// How many snapshots it was made on.
    pub depth: usize,
    /// What the guest had done when it was taken.
    pub consistency: Consistency,
    /// The file in which the machine's state and memory were saved with it.
    pub state: Option<String>,
    /// Its disks, by place.
    pub disks: Vec<PointDisk>,
    /// Disks that it has and that are not known, one sentence each: what is not found in it need
    /// not be absent.
    pub lost: Vec<String>,
}

/// What a guest had done when a point was taken, as far as files tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Its memory was saved too: it goes on where it was.
    Memory,
    /// Its file systems, perhaps its applications, had written everything: Windows' shadow
    /// copy service left its list beside the machine.
    Quiesced,
    /// Nothing says so: as after a loss of power.
    Crash,
    /// The present state: whether it was off, or ran when its files were copied, is not in them.
    Unknown,
}

impl Consistency {
    /// A stable word, as used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Quiesced => "quiesced",
            Self::Crash => "crash",
            Self::Unknown => "unknown",
        }
    }

    /// The word's meaning; `None` for any other.
    pub fn of(word: &str) -> Option<Self> {
        let all = [Self::Memory, Self::Quiesced, Self::Crash, Self::Unknown];
        all.into_iter().find(|c| c.as_str() == word)
    }

    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Memory => "with memory",
            Self::Quiesced => "quiesced",
            Self::Crash => "crash-consistent",
            Self::Unknown => "as its files are",
        }
    }
}

/// A disk of a restore point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointDisk {
    /// Where it hangs.
    pub slot: Slot,
    /// Its descriptor, as it is written.
    pub file: String,
    /// Whether snapshots leave it out: it is only known as it is now.
    pub independent: bool,
    /// Whether other machines may have it too.
    pub shared: bool,
}

/// What a file of a machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// `.vmx`
    Config,
    /// `.vmxf`
    ExtendedConfig,
    /// `.nvram`
    Nvram,
    /// `.vmsd`
    Snapshots,
    /// `.vmsn`
    SnapshotState,
    /// `.vmss`
    SuspendState,
    /// `.vmem`
    Memory,
    /// `.vswp`
    Swap,
    /// `.log`
    Log,
    /// `.dsd`
    DataSet,
    /// `-ctk.vmdk`
    ChangeTracking,
    /// What Windows' shadow copy service said when a snapshot was taken.
    QuiesceManifest,
    /// `.lck`, `.vmtx` and others that are told by name.
    Other,
}

impl FileKind {
    /// A stable word, as used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::ExtendedConfig => "extended-config",
            Self::Nvram => "nvram",
            Self::Snapshots => "snapshots",
            Self::SnapshotState => "snapshot-state",
            Self::SuspendState => "suspend-state",
            Self::Memory => "memory",
            Self::Swap => "swap",
            Self::Log => "log",
            Self::DataSet => "data-set",
            Self::ChangeTracking => "change-tracking",
            Self::QuiesceManifest => "quiesce-manifest",
            Self::Other => "other",
        }
    }

    /// By the name alone; `None` for a disk and what is not a machine's.
    pub fn of(name: &Path) -> Option<Self> {
        let name = name.to_string_lossy().to_ascii_lowercase();
        if name.ends_with("-ctk.vmdk") {
            return Some(Self::ChangeTracking);
        }
        // `vmware-1.log`, ESX 2's `vmware.log.3`.
        if name.starts_with("vmware") && name.contains(".log") {
            return Some(Self::Log);
        }
        if name.contains("vss") && name.contains("manifest") && name.ends_with(".zip") {
            return Some(Self::QuiesceManifest);
        }
        Some(match name.rsplit_once('.')?.1 {
            "vmx" | "vmtx" => Self::Config,
            "vmxf" => Self::ExtendedConfig,
            "nvram" => Self::Nvram,
            "vmsd" => Self::Snapshots,
            "vmsn" => Self::SnapshotState,
            "vmss" | "std" => Self::SuspendState,
            "vmem" => Self::Memory,
            "vswp" => Self::Swap,
            "log" => Self::Log,
            "dsd" => Self::DataSet,
            "lck" | "vmpl" | "hlog" | "scoreboard" => Self::Other,
            _ => return None,
        })
    }
}

/// A file of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmFile {
    /// Its name.
    pub name: PathBuf,
    /// What it is for.
    pub kind: FileKind,
    /// Its length in bytes.
    pub size: u64,
}

impl Vm {
    /// Reads the configuration `file` in `dir` and what lies beside it. `listing` is that
    /// directory's.
    pub fn read(place: &dyn Place, dir: &Path, file: &Path, listing: &Listing) -> Result<Self> {
        let gate = place.gate(dir)?;
        let opened = gate.open(file, Purpose::Member)?;
        let name = opened.path.display().to_string();
        let mut config = Config::new(Dictionary::read(&*opened.disk, &name)?);
        let mut warnings = config.warnings.clone();
        let mut names = listing.files.iter().map(|(n, _)| n);
        let catalog = names.find(|n| n.as_os_str().eq_ignore_ascii_case(vcb::CATALOG));
        let catalog = catalog.and_then(|name| {
            // Without it names are all there is, and a disk that is missing is an error.
            let opened = gate.open(name, Purpose::Member).ok()?;
            Dictionary::read(&*opened.disk, &opened.path.display().to_string()).ok()
        });
        vcb::attach(&mut config.disks, catalog.as_ref(), listing, &mut warnings);
        redo::attach(&mut config.disks, listing, &mut warnings);
        if config.encrypted {
            warnings.push("the configuration is encrypted: what it hides is not known".into());
        }
        let snapshots = match snapshot_list(file, listing, &mut warnings) {
            None => None,
            Some(list) => {
                let read = gate
                    .open(&list, Purpose::Member)
                    .and_then(|o| Dictionary::read(&*o.disk, &o.path.display().to_string()));
                match read {
                    Ok(dictionary) => {
                        let is_gone = |s: &Snapshot| is_gone(s, &config, listing);
                        Some(Snapshots::new(&dictionary, &is_gone))
                    }
                    Err(e) => {
                        warnings.push(format!("its snapshots are not known: {e}"));
                        None
                    }
                }
            }
        };
        let snapshots = snapshots.filter(|s| !s.all.is_empty() || !s.warnings.is_empty());
        if let Some(s) = &snapshots {
            let told = s.warnings.iter();
            warnings.extend(told.map(|w| format!("list of snapshots: {w}")));
            if s.needs_consolidation {
                warnings.push(
                    "list of snapshots: disks wait to be consolidated; there may be deltas that \
                     no snapshot names"
                        .into(),
                );
            }
        }
        let files = files(listing, file);
        let points = points(&config, snapshots.as_ref(), &files, &mut warnings);
        Ok(Self {
            files,
            dir: dir.to_path_buf(),
            config_file: file.to_path_buf(),
            config,
            snapshots,
            points,
            warnings,
        })
    }

    /// What it is called: by its user, else by its configuration's name.
    pub fn name(&self) -> String {
        let stem = || self.config_file.file_stem().unwrap_or_default();
        let given = self.config.name.clone();
        given.unwrap_or_else(|| stem().to_string_lossy().into_owned())
    }

    /// Every place that has a disk, now or at a snapshot.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.points.iter().flat_map(|p| &p.disks).map(|d| d.slot)
    }

    /// Whether it is a template.
    pub fn is_template(&self) -> bool {
        let extension = self.config_file.extension();
        extension.is_some_and(|e| e.eq_ignore_ascii_case("vmtx"))
    }

    /// The state that `wanted` means: `current`, `id:N`, `name:TEXT`, `date:PREFIX` (of an
    /// RFC 3339 time), or a bare word that is a name or a number.
    ///
    /// # Errors
    /// `NotFound` and `Ambiguous`, both with the list of those that there are.
    pub fn point(&self, wanted: &str) -> Result<&Point> {
        // A snapshot of that name is `name:current`.
        if wanted == CURRENT
            && let Some(current) = self.points.first()
        {
            return Ok(current);
        }
        let fits = |p: &&Point| match wanted.split_once(':') {
            Some(("id", n)) => p.uid.map(|u| u.to_string()).as_deref() == Some(n),
            Some(("name", n)) => p.uid.is_some() && p.name == n,
            Some(("date", d)) => p.created.is_some_and(|t| rfc3339(t).starts_with(d)),
            _ => false,
        };
        let mut found: Vec<&Point> = self.points.iter().filter(fits).collect();
        if found.is_empty() {
            let bare = |p: &&Point| {
                p.name == wanted || p.uid.map(|u| u.to_string()).as_deref() == Some(wanted)
            };
            found = self.points.iter().filter(bare).collect();
        }
        let list = |points: &[&Point]| {
            let some = points.iter().take(32).map(|p| match p.uid {
                Some(uid) => format!("id:{uid} ({})", p.name),
                None => "current".into(),
            });
            some.collect::<Vec<_>>().join(", ")
        };
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(DiskError::not_found("choosing a snapshot")
                .file(self.config_file.display())
                .expected(wanted.to_owned())
                .found(list(&self.points.iter().collect::<Vec<_>>()))),
            several => Err(DiskError::new(ErrorKind::Ambiguous, "choosing a snapshot")
                .file(self.config_file.display())
                .expected(format!("one that {wanted} means"))
                .found(list(several))
                .hint("say id:N")),
        }
    }
}

impl Point {
    /// Its name in the tree: that of the snapshot.
    pub fn is_current(&self) -> bool {
        self.uid.is_none()
    }

    /// The disk at `slot`; without, the only one.
    ///
    /// # Errors
    /// `NotFound` or `Ambiguous`, with the places that there are.
    pub fn disk(&self, slot: Option<Slot>) -> Result<&PointDisk> {
        let list = || {
            let all = self
                .disks
                .iter()
                .map(|d| format!("{} ({})", d.slot, d.file));
            all.collect::<Vec<_>>().join(", ")
        };
        let doing = "choosing a disk of the machine";
        match (slot, self.disks.as_slice()) {
            (Some(slot), all) => all.iter().find(|d| d.slot == slot).ok_or_else(|| {
                DiskError::not_found(doing)
                    .expected(slot.to_string())
                    .found(list())
            }),
            (None, [only]) => Ok(only),
            (None, []) => Err(DiskError::not_found(doing).found("a machine without disks")),
            (None, _) => Err(DiskError::new(ErrorKind::Ambiguous, doing)
                .expected("one disk")
                .found(list())
                .hint("say which with --disk")),
        }
    }
}

/// Microseconds since 1970 as `2022-12-01T10:37:39.848772Z`.
pub fn rfc3339(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map_or_else(
        |_| format!("{micros} microseconds since 1970"),
        |t| format!("{t:.6}"),
    )
}

/// The list of snapshots beside a configuration: of the same name, else the only one, where no
/// other machine is there that it may be of.
fn snapshot_list(config: &Path, listing: &Listing, warnings: &mut Vec<String>) -> Option<PathBuf> {
    let is_list = |n: &&PathBuf| {
        let extension = n.extension();
        extension.is_some_and(|e| e.eq_ignore_ascii_case("vmsd"))
    };
    let all: Vec<&PathBuf> = listing
        .files
        .iter()
        .map(|(n, _)| n)
        .filter(is_list)
        .collect();
    let stem = |n: &Path| n.file_stem().map(|s| s.to_string_lossy().to_lowercase());
    let own = all.iter().find(|n| stem(n) == stem(config));
    match (own, all.as_slice()) {
        (Some(own), _) => Some((**own).clone()),
        (None, []) => None,
        (None, [only]) if configs(listing) <= 1 => Some((*only).clone()),
        (None, some) => {
            let names: Vec<String> = some.iter().map(|n| n.display().to_string()).collect();
            warnings.push(format!(
                "{}: may be of this machine or of another: its snapshots are not shown",
                names.join(", ")
            ));
            None
        }
    }
}

/// Whether nothing is left of a snapshot: neither its state nor a disk that is not the machine's
/// own now. What lies elsewhere may still be there.
fn is_gone(snapshot: &Snapshot, config: &Config, listing: &Listing) -> bool {
    let is_here = |name: &str| {
        let elsewhere = name.contains(['/', '\\']);
        let mut names = listing.files.iter().map(|(n, _)| n.as_os_str());
        elsewhere || names.any(|n| n.eq_ignore_ascii_case(name))
    };
    let is_own = |name: &str| config.disks.iter().any(|d| d.file == name);
    let state = snapshot.state_file.as_deref();
    let disks = snapshot.disks.iter().map(|d| d.file.as_str());
    !state.is_some_and(is_here) && disks.into_iter().all(|d| is_own(d) || !is_here(d))
}

/// How many configurations a directory has, by their names.
fn configs(listing: &Listing) -> usize {
    let names = listing.files.iter().map(|(name, _)| name);
    names
        .filter(|n| FileKind::of(n) == Some(FileKind::Config))
        // What macOS writes beside a file on volumes of others.
        .filter(|n| !n.to_string_lossy().starts_with("._"))
        .count()
}

fn files(listing: &Listing, config: &Path) -> Vec<VmFile> {
    let configs = configs(listing);
    let stem = config.file_stem().unwrap_or_default().to_string_lossy();
    let mut found = Vec::new();
    for (name, size) in &listing.files {
        let Some(kind) = FileKind::of(name) else {
            continue;
        };
        // Where several machines share a directory, names tell them apart.
        let text = name.to_string_lossy();
        if configs > 1 && !text.starts_with(&*stem) {
            continue;
        }
        found.push(VmFile {
            name: name.clone(),
            kind,
            size: *size,
        });
    }
    found
}

fn points(
    config: &Config,
    snapshots: Option<&Snapshots>,
    files: &[VmFile],
    warnings: &mut Vec<String>,
) -> Vec<Point> {
    let now = config.disks.iter().map(|d| PointDisk {
        slot: d.slot,
        file: d.file.clone(),
        independent: d.is_independent(),
        shared: d.shared,
    });
    let now: Vec<PointDisk> = now.collect();
    let any = snapshots.is_some_and(|s| !s.all.is_empty());
    for disk in now.iter().filter(|d| d.independent && any) {
        warnings.push(format!(
            "{}: is independent: no snapshot covers it, {} is only known as it is now",
            disk.slot, disk.file
        ));
    }
    for disk in now.iter().filter(|d| d.shared) {
        warnings.push(format!(
            "{}: may be shared with another machine ({})",
            disk.slot, disk.file
        ));
    }
    let suspended = config.dictionary.text("checkpoint.vmState");
    let suspended = suspended.filter(|s| !s.is_empty()).map(str::to_owned);
    let mut points = vec![Point {
        uid: None,
        name: CURRENT.into(),
        description: None,
        created: None,
        depth: 0,
        consistency: match suspended {
            Some(_) => Consistency::Memory,
            None => Consistency::Unknown,
        },
        state: suspended,
        disks: now.clone(),
        lost: Vec::new(),
    }];
    for (depth, s) in snapshots.map(Snapshots::tree).unwrap_or_default() {
        let mut disks: Vec<PointDisk> = Vec::new();
        let mut lost = s.lost.clone();
        for disk in &s.disks {
            let Some(slot) = disk.slot else {
                lost.push(format!(
                    "the place {} of {} is not understood",
                    disk.node, disk.file
                ));
                continue;
            };
            disks.push(PointDisk {
                slot,
                file: disk.file.clone(),
                independent: now.iter().any(|d| d.slot == slot && d.independent),
                shared: now.iter().any(|d| d.slot == slot && d.shared),
            });
        }
        for disk in disks.iter().filter(|d| !d.independent) {
            let same = |p: &&Point| {
                p.disks
                    .iter()
                    .any(|o| o.slot == disk.slot && o.file == disk.file)
            };
            if let Some(twin) = points.iter().find(same) {
                let of = match twin.uid {
                    None => "the present state".into(),
                    Some(uid) => format!("snapshot {uid} ({})", twin.name),
                };
                warnings.push(format!(
                    "{}: snapshot {} ({}) has the same file as {of}, {}: what was written since is in \
                     both",
                    disk.slot, s.uid, s.name, disk.file
                ));
            }
        }
        warnings.extend(
            lost.iter()
                .map(|l| format!("snapshot {} ({}): {l}", s.uid, s.name)),
        );
        disks.sort_by_key(|d| d.slot);
        points.push(Point {
            uid: Some(s.uid),
            name: s.name.clone(),
            description: s.description.clone(),
            created: s.created,
            depth: depth + 1,
            consistency: match (s.kind, snapshots.is_some_and(|all| quiesced(s, all, files))) {
                (Some(1), _) => Consistency::Memory,
                (_, true) => Consistency::Quiesced,
                (_, false) => Consistency::Crash,
            },
            state: s.state_file.clone().filter(|_| s.kind == Some(1)),
            disks,
            lost,
        });
    }
    points
}

/// Whether the shadow copy service's list of a snapshot is there: by the number in its name, or
/// because there is one of each.
fn quiesced(snapshot: &Snapshot, all: &Snapshots, files: &[VmFile]) -> bool {
    let lists = files.iter().filter(|f| f.kind == FileKind::QuiesceManifest);
    let numbers: Vec<Option<i64>> = lists
        .map(|f| {
            let stem = f.name.file_stem().unwrap_or_default().to_string_lossy();
            let last = stem.rsplit(|c: char| !c.is_ascii_digit()).next()?;
            last.parse().ok()
        })
        .collect();
    match (numbers.as_slice(), all.all.len()) {
        ([None], 1) => true,
        (numbers, _) => numbers.contains(&Some(snapshot.uid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(
            rfc3339(1_669_891_059_848_772),
            "2022-12-01T10:37:39.848772Z"
        );
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999Z");
        assert!(rfc3339(i64::MAX).contains("since 1970"));
    }

    #[test]
    fn what_belongs() {
        for (name, kind) in [
            ("web.vmx", Some(FileKind::Config)),
            ("vmware-3.log", Some(FileKind::Log)),
            ("vmware.log.2", Some(FileKind::Log)),
            ("web-ctk.vmdk", Some(FileKind::ChangeTracking)),
            ("web.vmdk", None),
            ("readme", None),
        ] {
            assert_eq!(FileKind::of(Path::new(name)), kind, "{name}");
        }
    }
}
