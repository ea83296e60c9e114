//! What all files of a volume share: its geometry, its resource files, and the pointer
//! blocks that were read.

use crate::{
    address::{Address, FdAddress},
    descriptor::Descriptor,
    resource::{HEADER, Resource},
    superblock::{Geometry, Layout, Superblock},
};
use disk_io::{Disk, DiskError, ErrorKind, Fields, Result};
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
    pb2: Kept,
    pbc: Kept,
    fbb: Kept,
    fdc: Kept,
    sbc: Kept,
    number: u64,
}

/// A resource file as it was when the volume was opened; where the device failed then, it is asked
/// again when it is needed: it may work now.
#[derive(Debug)]
struct Kept {
    first: Result<Resource>,
    later: OnceLock<Resource>,
}

impl From<Result<Resource>> for Kept {
    fn from(first: Result<Resource>) -> Self {
        Self {
            first,
            later: OnceLock::new(),
        }
    }
}

impl Core {
    /// Reads what is needed to find any file (fact sheet, VMFS 9.1).
    pub(crate) fn open(disk: Arc<dyn Disk>, superblock: Superblock) -> Result<(Self, Vec<String>)> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let geometry = superblock.geometry();
        let early =
            |name: &str| Kept::from(Err(DiskError::corrupt(format!("reading {name} too early"))));
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
        core.pb2 = core.resource(system::PB2, ".pb2.sf").into();
        core.pbc = core.resource(system::PBC, ".pbc.sf").into();
        core.fbb = core.resource(system::FBB, ".fbb.sf").into();
        core.fdc = core.resource(system::FDC, ".fdc.sf").into();
        core.sbc = core.resource(system::SBC, ".sbc.sf").into();
        // Pointer blocks that were looked for too early are not remembered: errors never are.
        let mut warnings = Vec::new();
        for (resource, needed) in [
            (&core.pbc, geometry.layout == Layout::Five),
            (&core.pb2, core.superblock.generation() > 3),
            (&core.fbb, true),
            (&core.sbc, true),
        ] {
            if let Err(e) = &resource.first
                && needed
            {
                warnings.push(format!("some files cannot be read: {e}"));
            }
        }
        if let Err(e) = &core.fdc.first {
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
    pub(crate) fn small_blocks(&self) -> Result<Option<Resource>> {
        let fbb = self.fbb()?;
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

    fn kept<'a>(&'a self, kept: &'a Kept, number: u32, name: &'static str) -> Result<&'a Resource> {
        match (&kept.first, kept.later.get()) {
            (Ok(resource), _) | (_, Some(resource)) => Ok(resource),
            (Err(e), None) if e.kind() == ErrorKind::Io => {
                let again = self.resource(number, name)?;
                Ok(kept.later.get_or_init(|| again))
            }
            (Err(e), None) => Err(e.clone()),
        }
    }

    pub(crate) fn pb2(&self) -> Result<&Resource> {
        self.kept(&self.pb2, system::PB2, ".pb2.sf")
    }

    pub(crate) fn pbc(&self) -> Result<&Resource> {
        self.kept(&self.pbc, system::PBC, ".pbc.sf")
    }

    pub(crate) fn fbb(&self) -> Result<&Resource> {
        self.kept(&self.fbb, system::FBB, ".fbb.sf")
    }

    pub(crate) fn sbc(&self) -> Result<&Resource> {
        self.kept(&self.sbc, system::SBC, ".sbc.sf")
    }

    pub(crate) fn fdc(&self) -> Result<&Resource> {
        self.kept(&self.fdc, system::FDC, ".fdc.sf")
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
