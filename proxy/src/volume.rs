//! One volume of the tree, its file system opened on first use.

use disk_io::{Disk, DiskError, ErrorKind, Result};
use guest_fs::{
    FileSystem, FsKind, Name, OpenOptions, VolumeInfo,
    partition::Partition,
    vmfs::Vmfs,
    volume::{self, Recognised},
};
use inventory::Slot;
use std::sync::{Arc, OnceLock};

/// Types of partitions that hold no files, whatever is in them.
const NO_FILES: [&str; 8] = [
    "BIOS boot",
    "FreeBSD boot",
    "Solaris boot",
    "bare boot",
    "Microsoft reserved",
    "Linux reserved",
    "VMware reserved",
    "Windows dynamic disk (LDM) metadata",
];

/// Types of partitions that hold none where they were never written to: what they are for has a
/// signature, or is another system's under the same number.
const SWAP: [&str; 6] = [
    "Linux swap",
    "Linux swap or Solaris",
    "FreeBSD swap",
    "VMware VMKCORE",
    "VMware swap or VMKCORE",
    "hibernation",
];

/// Runs of a volume that are looked at to tell whether it was ever written to.
const RUNS: usize = 4096;

/// Where the other devices of a VMFS volume may be.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    /// Everything that may be one; the volume's own device may be among them.
    pub(crate) disks: Arc<[Arc<dyn Disk>]>,
    /// Go on without those that are not there.
    pub(crate) allow_missing: bool,
}

/// A partition, a whole disk without a table, or a logical volume.
#[derive(Debug)]
pub struct Volume {
    name: Name,
    disk: Arc<dyn Disk>,
    partition: Option<Partition>,
    recognised: OnceLock<Result<Option<Recognised>>>,
    options: OpenOptions,
    members: Option<Members>,
    doubts: Vec<String>,
    /// What it holds was said and not looked for.
    said: bool,
    /// It is a member of a set whose volumes the tree has.
    spread: bool,
    /// They are with another disk of the machine.
    with: Option<Slot>,
    opened: OnceLock<Result<Arc<dyn FileSystem>>>,
}

impl Volume {
    /// A volume on `disk`, called `name` in the tree (`p1`). Nothing is read yet.
    pub fn new(
        name: Name,
        disk: Arc<dyn Disk>,
        partition: Option<Partition>,
        options: OpenOptions,
    ) -> Self {
        Self {
            recognised: OnceLock::new(),
            name,
            disk,
            partition,
            options,
            members: None,
            doubts: Vec::new(),
            said: false,
            spread: false,
            with: None,
            opened: OnceLock::new(),
        }
    }

    /// A volume whose file system is open already.
    pub fn with_file_system(name: Name, disk: Arc<dyn Disk>, fs: Arc<dyn FileSystem>) -> Self {
        let info = fs.info();
        Self {
            recognised: OnceLock::from(Ok(Some(Recognised {
                kind: info.kind,
                label: info.label,
                uuid: info.uuid,
                size: Some(info.size),
                readable: true,
            }))),
            name,
            disk,
            partition: None,
            options: OpenOptions::default(),
            members: None,
            doubts: Vec::new(),
            said: true,
            spread: false,
            with: None,
            opened: OnceLock::from(Ok(fs)),
        }
    }

    /// A volume that is listed and cannot be entered, because of `error`.
    pub fn unreadable(
        name: Name,
        disk: Arc<dyn Disk>,
        partition: Option<Partition>,
        error: DiskError,
    ) -> Self {
        Self {
            recognised: OnceLock::from(Err(error.clone())),
            name,
            disk,
            partition,
            options: OpenOptions::default(),
            members: None,
            doubts: Vec::new(),
            said: true,
            spread: false,
            with: None,
            opened: OnceLock::from(Err(error)),
        }
    }

    /// Says what the volume is without looking.
    pub(crate) fn holding(mut self, kind: FsKind) -> Self {
        self.recognised = OnceLock::from(Ok(Some(Recognised {
            kind,
            label: None,
            uuid: None,
            size: None,
            readable: false,
        })));
        self
    }

    /// Lets the volume find its other devices.
    pub(crate) fn with_members(mut self, members: Members) -> Self {
        self.members = Some(members);
        self
    }

    /// Says that what lies on it is in the tree already, as volumes of the set that it belongs to.
    /// `with` is the disk of the machine that has them, if that is another.
    pub(crate) fn spread(mut self, spread: bool, with: Option<Slot>) -> Self {
        (self.spread, self.with) = (spread, with);
        self
    }

    /// The disk of the machine that the volumes are with that lie on this one among others.
    pub(crate) fn with(&self) -> Option<Slot> {
        self.with
    }

    /// Whether no files are missed where it is left alone: swap, what only firmware or a boot
    /// loader reads, members of sets whose volumes are there. [`Self::file_system`] still fails.
    pub fn is_without_files(&self) -> bool {
        if self.spread {
            return true;
        }
        // What cannot be read is looked at again later.
        if self.recognised.get().is_none() && self.look().is_err() {
            return false;
        }
        match self.recognised.get() {
            Some(Ok(Some(found))) => found.kind == FsKind::Swap,
            Some(Ok(None)) => {
                let partition = self.partition.as_ref();
                let is_of = |types: &[&str]| {
                    partition.is_some_and(|p| types.contains(&p.type_name.as_str()))
                };
                is_of(&NO_FILES) || is_of(&SWAP) && self.is_blank()
            }
            Some(Err(_)) | None => false,
        }
    }

    /// Whether nothing was ever written to it, as far as a look at so many runs tells.
    pub(crate) fn is_blank(&self) -> bool {
        let mut at = 0u64;
        for _ in 0..RUNS {
            if at >= self.disk.len() {
                return true;
            }
            match self.disk.run_at(at) {
                Ok(run) if run.kind.reads_as_zero() && run.len > 0 => {
                    at = at.saturating_add(run.len);
                }
                _ => return false,
            }
        }
        false
    }

    /// Says what speaks against its bytes.
    pub(crate) fn doubtful(mut self, doubts: Vec<String>) -> Self {
        self.doubts = doubts;
        self
    }

    /// Why its bytes need not be those that it held, or are not what they look like, one sentence
    /// each.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = self.doubts.clone();
        if let (false, Ok(Some(found))) = (self.said, self.recognised()) {
            doubts.extend(volume::doubts(&self.disk, found));
        }
        doubts
    }

    /// Its name in the tree, such as `p1`.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its bytes.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The partition it lies in; none where the disk has no table.
    pub fn partition(&self) -> Option<&Partition> {
        self.partition.as_ref()
    }

    /// What it holds, told from a few reads the first time; `Ok(None)` if nothing known.
    pub fn recognised(&self) -> &Result<Option<Recognised>> {
        self.recognised
            .get_or_init(|| volume::recognise(&self.disk))
    }

    /// Its file system, opened now if it was not. The error says what the volume is.
    pub fn file_system(&self) -> Result<&Arc<dyn FileSystem>> {
        if self.opened.get().is_none() {
            match self.open() {
                // A mount lives long, and what failed to be read once may be read later.
                Err(e) if e.kind() == ErrorKind::Io => {
                    return Err(e);
                }
                result => {
                    let _ = self.opened.set(result);
                }
            }
        }
        self.opened
            .get_or_init(|| self.open())
            .as_ref()
            .map_err(Clone::clone)
    }

    /// Looks what the volume holds, and remembers any answer but a failure of the hardware.
    fn look(&self) -> Result<()> {
        match volume::recognise(&self.disk) {
            Err(e) if e.kind() == ErrorKind::Io => Err(e),
            other => {
                let _ = self.recognised.set(other);
                Ok(())
            }
        }
    }

    fn open(&self) -> Result<Arc<dyn FileSystem>> {
        let doing = "entering the volume";
        if self.recognised.get().is_none()
            && let Err(e) = self.look()
        {
            return Err(e.context(doing));
        }
        match self.recognised() {
            Err(e) => return Err(e.clone().context(doing)),
            Ok(None) => {
                let found = match &self.partition {
                    Some(p) => format!(
                        "a partition of type {} ({}) with nothing known in it",
                        p.type_id, p.type_name
                    ),
                    None => "nothing known".into(),
                };
                return Err(DiskError::unsupported(doing)
                    .expected("a file system")
                    .found(found));
            }
            Ok(Some(found)) => {
                if found.kind == FsKind::Vmfs
                    && let Some(members) = &self.members
                {
                    let allow = members.allow_missing;
                    let fs = Vmfs::open_among(&self.disk, &members.disks, allow)
                        .map_err(|e| e.context(doing))?;
                    return Ok(Arc::new(fs));
                }
            }
        }
        volume::open(&self.disk, &self.options).map_err(|e| e.context(doing))
    }
}

/// What `info` and `ls` say of a volume.
#[derive(Clone, Debug)]
pub struct VolumeReport {
    /// Its path in the tree, such as `/p1`.
    pub path: Name,
    /// Partition number as Linux counts; 0 for a disk without a table.
    pub number: u32,
    /// Its partition, where it lies in one.
    pub partition: Option<Partition>,
    /// Length of the volume in bytes: of the partition, not of the file system.
    pub len: u64,
    /// What it holds.
    pub kind: Option<FsKind>,
    /// Label of the file system.
    pub label: Option<Name>,
    /// UUID or serial number of the file system.
    pub uuid: Option<String>,
    /// Size of the file system in bytes.
    pub size: Option<u64>,
    /// Bytes in use, where it is cheap to tell.
    pub used: Option<u64>,
    /// Drive letter, where a guest registry on SOURCE gives it one.
    pub letter: Option<char>,
    /// Everything else the open file system says.
    pub info: Option<VolumeInfo>,
    /// Why it cannot be entered; `None` if it can.
    pub why_not: Option<DiskError>,
    /// It cannot be entered, and no files are missed for it ([`Volume::is_without_files`]).
    pub without_files: bool,
}

impl VolumeReport {
    /// Opens the file system and asks it.
    pub(crate) fn of(volume: &Volume, path: Name, letter: Option<char>) -> Self {
        let recognised = volume.recognised().as_ref().ok().and_then(Option::as_ref);
        let (info, why_not) = match volume.file_system() {
            Ok(fs) => (Some(fs.info()), None),
            Err(e) => (None, Some(e)),
        };
        let from_info = |f: fn(&VolumeInfo) -> Option<Name>| info.as_ref().and_then(f);
        Self {
            path,
            number: volume.partition.as_ref().map_or(0, |p| p.number),
            partition: volume.partition.clone(),
            len: volume.disk.len(),
            kind: info
                .as_ref()
                .map(|i| i.kind)
                .or_else(|| recognised.map(|r| r.kind)),
            label: from_info(|i| i.label.clone())
                .or_else(|| recognised.and_then(|r| r.label.clone())),
            uuid: info
                .as_ref()
                .and_then(|i| i.uuid.clone())
                .or_else(|| recognised.and_then(|r| r.uuid.clone())),
            size: info
                .as_ref()
                .map(|i| i.size)
                .or_else(|| recognised.and_then(|r| r.size)),
            used: info.as_ref().and_then(|i| i.used),
            letter,
            without_files: why_not.is_some() && volume.is_without_files(),
            info,
            why_not,
        }
    }
}
