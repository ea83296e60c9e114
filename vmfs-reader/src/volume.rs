//! A VMFS volume: opening it, and everything that is asked of it.

use crate::{
    Uuid,
    address::{Address, FdAddress},
    blocks::BlockList,
    descriptor::{Descriptor, FileKind, Stat},
    dir::{self, Entry, Visit},
    file::File,
    heartbeat::{self, Heartbeat},
    lock::Lock,
    lvm::{Device, LogicalVolume, group},
    resource::{HEADER, Resource},
    scsi::ScsiIdentity,
    superblock::{Geometry, Layout, Superblock},
};
use disk_io::{Disk, DiskError, Fields, Result};
use quick_cache::{Weighter, sync::Cache};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// Numbers of the system files: items of the first cluster of descriptors.
mod system {
    pub(super) const FBB: u32 = 1;
    pub(super) const FDC: u32 = 2;
    pub(super) const PBC: u32 = 3;
    pub(super) const SBC: u32 = 4;
    pub(super) const PB2: u32 = 6;
    pub(super) const SDD: u32 = 7;
}

/// Memory for pointer blocks, in bytes.
const TABLES: u64 = 16 << 20;

#[derive(Clone, Debug)]
pub(crate) struct ByLength;

impl Weighter<u64, Arc<[u64]>> for ByLength {
    fn weight(&self, _: &u64, table: &Arc<[u64]>) -> u64 {
        (table.len() as u64).saturating_mul(8).saturating_add(64)
    }
}

/// The parts of a volume that files share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) superblock: Superblock,
    pub(crate) geometry: Geometry,
    pub(crate) tables: Cache<u64, Arc<[u64]>, ByLength>,
    pb2: Result<Resource>,
    pbc: Result<Resource>,
    fbb: Result<Resource>,
    fdc: Result<Resource>,
    sbc: Result<Resource>,
    number: u64,
}

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

/// What is in use of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// File blocks that are allocated, in bytes.
    pub used: u64,
    /// File blocks that are free, in bytes.
    pub free: u64,
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

impl Core {
    /// Reads what is needed to find any file (fact sheet, VMFS 9.1).
    fn open(disk: Arc<dyn Disk>, superblock: Superblock) -> Result<(Self, Vec<String>)> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let geometry = superblock.geometry();
        let early = |name: &str| Err(DiskError::corrupt(format!("reading {name} too early")));
        let mut core = Self {
            disk,
            superblock,
            geometry,
            tables: Cache::with_weighter(2048, TABLES, ByLength),
            pb2: early(".pb2.sf"),
            pbc: early(".pbc.sf"),
            fbb: early(".fbb.sf"),
            fdc: early(".fdc.sf"),
            sbc: early(".sbc.sf"),
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
        };
        core.pb2 = core.resource(system::PB2, ".pb2.sf");
        core.pbc = core.resource(system::PBC, ".pbc.sf");
        core.fbb = core.resource(system::FBB, ".fbb.sf");
        core.fdc = core.resource(system::FDC, ".fdc.sf");
        core.sbc = core.resource(system::SBC, ".sbc.sf");
        // Pointer blocks that were looked for too early are not remembered: errors never are.
        let mut warnings = Vec::new();
        for (resource, needed) in [
            (&core.pbc, geometry.layout == Layout::Five),
            (&core.pb2, core.superblock.generation() > 3),
            (&core.fbb, true),
            (&core.sbc, true),
        ] {
            if let Err(e) = resource
                && needed
            {
                warnings.push(format!("some files cannot be read: {e}"));
            }
        }
        if let Err(e) = &core.fdc {
            return Err(e.clone());
        }
        core.check_cluster()?;
        Ok((core, warnings))
    }

    /// VMFS-6: addresses depend on how many small blocks there are in a large one.
    fn check_cluster(&self) -> Result<()> {
        let Ok(child) = self.small_blocks() else {
            return Ok(());
        };
        if let Some(child) = child
            && child.per_cluster != self.geometry.per_cluster
        {
            return Err(DiskError::unsupported("opening a VMFS volume")
                .expected(format!(
                    "{} small blocks in a large one",
                    self.geometry.per_cluster
                ))
                .found(child.per_cluster.to_string()));
        }
        Ok(())
    }

    /// VMFS-6: the resource of small file blocks, inside that of the large ones.
    fn small_blocks(&self) -> Result<Option<Resource>> {
        let fbb = self.fbb.as_ref().map_err(Clone::clone)?;
        if fbb.child == 0 {
            return Ok(None);
        }
        let mut bytes = [0; HEADER];
        self.read_list(&fbb.blocks, &mut bytes, fbb.child.into(), 0)?;
        let f = Fields::new(&bytes, fbb.child.into(), "small block resource header");
        Resource::read(&f, ".fbb.sf", fbb.blocks.clone(), &self.geometry).map(Some)
    }

    /// Where the descriptor of a system file lies (fact sheet, VMFS 2).
    fn system_place(&self, number: u32) -> u64 {
        let g = &self.geometry;
        let sb = &self.superblock;
        // Volumes that were upgraded from VMFS-3 have these two elsewhere.
        if g.layout == Layout::Five && !g.dense {
            match number {
                system::PB2 if sb.pb2 != 0 => return sb.pb2,
                system::SDD if sb.sdd != 0 => return sb.sdd,
                _ => {}
            }
        }
        let clusters = u64::from(sb.fdc_clusters).saturating_mul(g.cluster_header);
        g.fdc_start
            .saturating_add(sb.fdc_group.into())
            .saturating_add(clusters)
            .saturating_add(u64::from(number).saturating_mul(g.descriptor as u64))
    }

    fn resource(&self, number: u32, name: &'static str) -> Result<Resource> {
        let inner = || {
            let address = FdAddress(number << 22 | 4);
            let place = self.system_place(number);
            let descriptor = self.descriptor_at(address, place)?;
            let mut bytes = [0; HEADER];
            self.read_list(&descriptor.blocks, &mut bytes, 0, 0)?;
            let f = Fields::new(&bytes, 0, "resource file header");
            Resource::read(&f, name, descriptor.blocks, &self.geometry)
        };
        inner().map_err(|e: DiskError| e.context(format!("reading {name}")))
    }

    pub(crate) fn pb2(&self) -> Result<&Resource> {
        self.pb2.as_ref().map_err(Clone::clone)
    }

    pub(crate) fn pbc(&self) -> Result<&Resource> {
        self.pbc.as_ref().map_err(Clone::clone)
    }

    pub(crate) fn sbc(&self) -> Result<&Resource> {
        self.sbc.as_ref().map_err(Clone::clone)
    }

    pub(crate) fn fdc(&self) -> Result<&Resource> {
        self.fdc.as_ref().map_err(Clone::clone)
    }

    fn descriptor_at(&self, address: FdAddress, place: u64) -> Result<Descriptor> {
        let mut bytes = vec![0; self.geometry.descriptor];
        let end = place.saturating_add(bytes.len() as u64);
        if end > self.disk.len() {
            return Err(DiskError::corrupt("reading a file descriptor")
                .offset(place)
                .expected(format!("a place inside {} bytes", self.disk.len())));
        }
        self.disk.read_exact_at(&mut bytes, place)?;
        Descriptor::read(&bytes, place, address, &self.geometry)
    }

    /// Where the descriptor with this address lies on the volume.
    pub(crate) fn descriptor_place(&self, address: FdAddress) -> Result<u64> {
        if !matches!(
            Address::parse(address.0.into(), &self.geometry)?,
            Address::Descriptor(_)
        ) {
            return Err(DiskError::not_found("finding a file descriptor")
                .expected("the address of a descriptor")
                .found(address.to_string()));
        }
        let item = address.item();
        // Of upgraded volumes, two descriptors lie outside.
        if item.cluster == 0 && matches!(item.item, 6 | 7) {
            return Ok(self.system_place(item.item as u32));
        }
        let fdc = self.fdc()?;
        let at = fdc.position(item)?;
        let len = self.geometry.descriptor as u64;
        if at.saturating_add(len) > fdc.blocks.len {
            return Err(DiskError::corrupt("finding a file descriptor")
                .expected(format!(
                    "a place inside the {} bytes of .fdc.sf",
                    fdc.blocks.len
                ))
                .found(address.to_string()));
        }
        let extent = self.extent(&fdc.blocks, at, len);
        match extent.place {
            crate::Place::Stored(place) if extent.len == len => Ok(place),
            crate::Place::Bad(e) => Err(e),
            _ => Err(DiskError::corrupt("finding a file descriptor")
                .offset(at)
                .expected("one block of the volume")
                .found(format!("{address} in a hole of .fdc.sf"))),
        }
    }

    pub(crate) fn descriptor(&self, address: FdAddress) -> Result<Descriptor> {
        let place = self.descriptor_place(address)?;
        self.descriptor_at(address, place)
            .map_err(|e| e.file(format!("[{}] file {address}", self.superblock.label)))
    }

    /// Tells this volume from all others that were opened.
    pub(crate) fn number(&self) -> u64 {
        // Host files use device numbers for theirs.
        self.number | 1 << 63
    }
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

    /// Size of the volume in bytes.
    pub fn size(&self) -> u64 {
        self.core.disk.len()
    }

    /// What a user should know, a sentence each; heartbeats are not among them.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The hosts that had the volume mounted when it was saved, and sentences on damaged
    /// slots. Reads up to 4 MiB the first time.
    pub fn heartbeats(&self) -> Result<(&[Heartbeat], &[String])> {
        let read = || heartbeat::read(&*self.core.disk, &self.core.geometry);
        match self.heartbeats.get_or_init(read) {
            Ok((found, damage)) => Ok((found, damage)),
            Err(e) => Err(e.clone()),
        }
    }

    /// How full the volume is. `None` if that cannot be told without reading more than
    /// 64 MiB, or at all: of VMFS-6 volumes whose large blocks are in use.
    pub fn usage(&self) -> Result<Option<Usage>> {
        let core = &self.core;
        let fbb = core.fbb.as_ref().map_err(Clone::clone)?;
        let g = &core.geometry;
        let small = core.small_blocks()?;
        let clusters = small.as_ref().map_or(fbb.clusters(), Resource::clusters);
        let total = small.as_ref().map_or(fbb.total, |s| s.total);
        if clusters.saturating_mul(g.align as u64) > 64 << 20 {
            return Ok(None);
        }
        if small.is_some() {
            // Only where every large block was converted to small ones does it tell all.
            let mut converted = [0; 4];
            let at = u64::from(fbb.child).saturating_add(0x54);
            core.read_list(&fbb.blocks, &mut converted, at, 0)?;
            if u64::from(u32::from_le_bytes(converted)) < clusters {
                return Ok(None);
            }
        }
        let mut free = 0u64;
        for cluster in 0..clusters {
            let mut bytes = [0; 64];
            let place = match &small {
                None => fbb.cluster_header(cluster),
                Some(_) => Self::small_header(fbb, cluster),
            };
            let at = place
                .and_then(|p| p.checked_add(g.align as u64))
                .ok_or_else(|| DiskError::corrupt("counting free blocks"))?;
            core.read_list(&fbb.blocks, &mut bytes, at, 0)?;
            let f = Fields::new(&bytes, at, "cluster header");
            let (number, here) = match g.layout {
                Layout::Five => (u64::from(f.u32_le(0)?), u64::from(f.u32_le(8)?)),
                Layout::Six => (f.u64_le(0x18)?, u64::from(f.u16_le(0x22)?)),
            };
            if number != cluster {
                return Err(f
                    .corrupt(0, "its own number")
                    .expected(cluster.to_string())
                    .found(number.to_string()));
            }
            free = free.saturating_add(here);
        }
        let blocks = |n: u64| n.saturating_mul(g.block_size);
        Ok(Some(Usage {
            used: blocks(total.saturating_sub(free)),
            free: blocks(free),
        }))
    }

    /// Clusters of small blocks lie inside the groups of large ones (fact sheet, VMFS 6.2).
    fn small_header(fbb: &Resource, cluster: u64) -> Option<u64> {
        let in_group = fbb.clusters_per_group.checked_mul(fbb.per_cluster)?;
        let group = cluster.checked_div(in_group)?;
        let index = cluster.checked_rem(in_group)?;
        fbb.first
            .checked_add(group.checked_mul(fbb.group_size)?)?
            .checked_add(fbb.clusters_per_group.checked_mul(fbb.header)?)?
            .checked_add(index.checked_mul(fbb.header)?)
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
