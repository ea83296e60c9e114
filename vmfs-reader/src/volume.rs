//! A VMFS volume: opening it, and everything that is asked of it.

use crate::{
    Uuid,
    address::FdAddress,
    blocks::BlockList,
    core::Core,
    descriptor::{FileKind, Stat},
    dir::{self, Entry, Visit},
    file::File,
    heartbeat::{self, DamagedSlot, Heartbeat},
    lock::Lock,
    lvm::{Device, LogicalVolume, group},
    scsi::ScsiIdentity,
    superblock::Superblock,
};
use disk_io::{Disk, DiskError, Result};
use std::sync::{Arc, OnceLock};

/// How a volume is to be opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Opens a volume some of whose devices are missing: reads of what they hold fail.
    pub allow_missing: bool,
    /// Which volume, if the devices hold several: the UUID of the LVM volume or of the file
    /// system as text, or its label.
    pub volume: Option<String>,
}

/// An open VMFS volume. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Volume {
    pub(crate) core: Arc<Core>,
    lvm: Option<Arc<LogicalVolume>>,
    warnings: Arc<[String]>,
    heartbeats: Arc<OnceLock<Result<heartbeat::Found>>>,
}

/// Who holds a file, and whether that host was alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockState {
    /// The lock as stored.
    pub lock: Lock,
    /// The heartbeats of its holders that were in use when the volume was saved, with the
    /// same generation as when the lock was taken. If there are any the file was in use:
    /// its contents are what a power failure would have left.
    pub alive: Vec<Heartbeat>,
}

impl Volume {
    /// Opens a volume from its devices, in any order, or from the one partition or disk that
    /// it lies on without LVM. Nothing is written, and nothing but reads is asked for.
    pub fn open(disks: &[Arc<dyn Disk>], options: &OpenOptions) -> Result<Self> {
        let mut devices = Vec::new();
        let mut bare = Vec::new();
        for (number, disk) in disks.iter().enumerate() {
            match Device::open(disk.clone(), number)? {
                Some(device) => devices.push(device),
                None => bare.push((number, disk)),
            }
        }
        let mut volumes = Vec::new();
        for set in group(devices) {
            let assembled = set.assemble(options.allow_missing);
            let names = [set.uuid.to_string()];
            volumes.push((names, assembled.and_then(|lvm| Self::on_lvm(Arc::new(lvm)))));
        }
        for (number, disk) in bare {
            let Some(superblock) = Superblock::read(&**disk)? else {
                return Err(DiskError::unsupported("opening a VMFS volume")
                    .expected("an LVM header or a VMFS superblock")
                    .found(format!("neither on disk {}", number.saturating_add(1)))
                    .hint("give the partition that holds the volume"));
            };
            volumes.push((
                [superblock.uuid.to_string()],
                Self::on_disk(disk.clone(), superblock, None),
            ));
        }
        if let Some(wanted) = &options.volume {
            volumes.retain(|(names, volume)| {
                names.contains(wanted) || volume.as_ref().is_ok_and(|v| v.is_named(wanted))
            });
        }
        if volumes.len() > 1 {
            let names: Vec<String> = volumes
                .iter()
                .map(|(names, volume)| match volume {
                    Ok(v) => format!("{} ({})", v.core.superblock.label, names.join(" ")),
                    Err(_) => names.join(" "),
                })
                .collect();
            return Err(DiskError::refused("opening a VMFS volume")
                .expected("disks of one volume")
                .found(format!("{} volumes: {}", names.len(), names.join(", ")))
                .hint("choose one of them"));
        }
        match volumes.pop() {
            Some((_, volume)) => volume,
            None => Err(DiskError::not_found("opening a VMFS volume").found("no such volume")),
        }
    }

    fn on_lvm(lvm: Arc<LogicalVolume>) -> Result<Self> {
        let Some(superblock) = Superblock::read(&*lvm)? else {
            return Err(DiskError::unsupported("opening a VMFS volume")
                .offset(crate::superblock::OFFSET)
                .expected("a VMFS superblock")
                .found(format!("an LVM volume {} without one", lvm.uuid())));
        };
        Self::on_disk(lvm.clone(), superblock, Some(lvm))
    }

    fn on_disk(
        disk: Arc<dyn Disk>,
        superblock: Superblock,
        lvm: Option<Arc<LogicalVolume>>,
    ) -> Result<Self> {
        let mut warnings = superblock.warnings();
        if let Some(lvm) = &lvm {
            warnings.extend_from_slice(lvm.warnings());
            let there = (superblock.lvm_uuid, superblock.lvm_snapshot);
            if there != (lvm.uuid(), lvm.snapshot()) {
                warnings.push(format!(
                    "the file system was made on volume {} (snapshot {}) and lies on {} \
                     (snapshot {}): a copy, or a resignature that was not finished",
                    there.0,
                    there.1,
                    lvm.uuid(),
                    lvm.snapshot()
                ));
            }
        }
        let (core, more) = Core::open(disk, superblock)?;
        warnings.extend(more);
        Ok(Self {
            core: Arc::new(core),
            lvm,
            warnings: warnings.into(),
            heartbeats: Arc::default(),
        })
    }

    /// Whether this is one of the volume's names: label, UUID, UUID of the LVM volume.
    pub fn is_named(&self, name: &str) -> bool {
        let sb = &self.core.superblock;
        sb.label == name
            || sb.uuid.to_string().eq_ignore_ascii_case(name)
            || self
                .lvm
                .as_ref()
                .is_some_and(|lvm| lvm.uuid().to_string().eq_ignore_ascii_case(name))
    }

    /// What the superblock says: label, UUID, version, block sizes.
    pub fn superblock(&self) -> &Superblock {
        &self.core.superblock
    }

    /// The LVM volume below, with its devices; `None` if there is none.
    pub fn lvm(&self) -> Option<&Arc<LogicalVolume>> {
        self.lvm.as_ref()
    }

    /// The volume as a disk: what offsets in [`crate::Place`] and [`Stat`] are offsets of.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.core.disk
    }

    /// Where the byte at `offset` of the volume lies on `device`, one of those that it was opened
    /// from, and how many bytes from there on belong together; `None` if it lies on another.
    pub fn place_on(&self, device: &Arc<dyn Disk>, offset: u64) -> Option<(u64, u64)> {
        let Some(lvm) = &self.lvm else {
            return Some((offset, self.size().checked_sub(offset)?));
        };
        let (index, place, len) = lvm.place(offset).ok()?;
        let found = lvm.devices().nth(index)?;
        Arc::ptr_eq(&found.disk, device).then_some((place, len))
    }

    /// Size of the volume in bytes.
    pub fn size(&self) -> u64 {
        self.core.disk.len()
    }

    /// What a user should know, a sentence each; heartbeats are not among them.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The hosts that had the volume mounted when it was saved, and damaged slots. Reads up to 4 MiB the first time.
    pub fn heartbeats(&self) -> Result<(&[Heartbeat], &[DamagedSlot])> {
        let read = || heartbeat::read(&*self.core.disk, &self.core.geometry);
        match self.heartbeats.get_or_init(read) {
            Ok((found, damage)) => Ok((found, damage)),
            Err(e) => Err(e.clone()),
        }
    }

    /// The root directory.
    pub fn root(&self) -> FdAddress {
        FdAddress(4)
    }

    /// What is known of a file.
    pub fn stat(&self, address: FdAddress) -> Result<Stat> {
        Ok(self.core.descriptor(address)?.stat)
    }

    /// Who holds a file, and whether they were alive.
    pub fn lock_state(&self, address: FdAddress) -> Result<LockState> {
        let lock = self.core.descriptor(address)?.lock;
        let (beats, _) = self.heartbeats()?;
        let mut claims = vec![(lock.heartbeat, lock.generation)];
        claims.extend(lock.holders.iter().map(|h| (h.heartbeat, h.generation)));
        let alive = beats
            .iter()
            .filter(|b| lock.is_held() && claims.contains(&(b.place, b.generation)))
            .cloned()
            .collect();
        Ok(LockState { lock, alive })
    }

    /// The device that a raw device map leads to; `None` for other files.
    pub fn rdm_target(&self, address: FdAddress) -> Result<Option<ScsiIdentity>> {
        Ok(self.core.descriptor(address)?.rdm)
    }

    /// Opens the contents of a file, link, system file, or a directory as it is stored.
    pub fn open_file(&self, address: FdAddress) -> Result<File> {
        let name = format!("[{}] file {address}", self.core.superblock.label);
        self.open_named(address, name)
    }

    /// Opens a file that errors shall call `name`.
    pub fn open_named(&self, address: FdAddress, name: String) -> Result<File> {
        let descriptor = self.core.descriptor(address).map_err(|e| e.file(&name))?;
        if let Some(target) = &descriptor.rdm {
            return Err(DiskError::unsupported("reading a raw device map")
                .file(name)
                .found(format!(
                    "{} bytes on another device: {target}",
                    descriptor.stat.size
                ))
                .hint("its data is on that device; give that device instead"));
        }
        Ok(File {
            core: self.core.clone(),
            blocks: descriptor.blocks,
            stat: descriptor.stat,
            name,
        })
    }

    /// Where a symbolic link leads, as stored.
    pub fn read_link(&self, address: FdAddress) -> Result<Vec<u8>> {
        let file = self.open_file(address)?;
        if file.stat.kind != FileKind::Symlink || file.blocks.len > 4096 {
            return Err(DiskError::unsupported("reading a symbolic link")
                .file(&file.name)
                .expected("a link of at most 4096 bytes")
                .found(format!("{:?} of {}", file.stat.kind, file.blocks.len)));
        }
        let mut target = vec![0; file.blocks.len as usize];
        file.read_exact_at(&mut target, 0)?;
        Ok(target)
    }

    fn directory(&self, address: FdAddress) -> Result<BlockList> {
        let descriptor = self.core.descriptor(address)?;
        if descriptor.stat.kind != FileKind::Directory {
            return Err(DiskError::not_found("listing a directory")
                .file(format!("[{}] file {address}", self.core.superblock.label))
                .expected("a directory")
                .found(format!("{:?}", descriptor.stat.kind)));
        }
        Ok(descriptor.blocks)
    }

    /// Visits every entry of a directory, `.` and `..` left out. What cannot be read is
    /// visited as an error and the rest goes on; the call fails only if nothing can be
    /// listed.
    pub fn read_dir(&self, address: FdAddress, visit: Visit<'_>) -> Result<()> {
        dir::read(&self.core, &self.directory(address)?, visit)
    }

    /// Finds a name in a directory; `.` and `..` are not found.
    pub fn lookup(&self, address: FdAddress, name: &[u8]) -> Result<Option<Entry>> {
        let list = self.directory(address)?;
        dir::lookup(&self.core, &list, name, address == self.root())
    }

    /// The directory that holds this one, as it says itself.
    pub fn parent(&self, address: FdAddress) -> Result<FdAddress> {
        dir::parent(&self.core, &self.directory(address)?)
    }

    /// Whether a directory entry still means what the descriptor holds.
    pub fn check_entry(&self, entry: &Entry) -> Result<Stat> {
        let stat = self.stat(entry.address)?;
        if stat.generation != entry.generation {
            return Err(DiskError::corrupt("opening a file by its directory entry")
                .file(String::from_utf8_lossy(&entry.name))
                .expected(format!("generation {}", entry.generation))
                .found(format!(
                    "{} in descriptor {}",
                    stat.generation, entry.address
                )));
        }
        Ok(stat)
    }

    /// The LVM volume's identity, for `info`.
    pub fn lvm_uuid(&self) -> Option<Uuid> {
        self.lvm.as_ref().map(|lvm| lvm.uuid())
    }
}
