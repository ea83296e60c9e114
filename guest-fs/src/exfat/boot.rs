//! The boot region: eleven sectors, their checksum, and a second copy of all that.

use disk_io::{Disk, DiskError, ErrorKind, Fields, Result};
use std::sync::Arc;

/// What the boot sector says, in bytes and checked.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// Sector size in bytes.
    pub sector: u32,
    /// Cluster size in bytes.
    pub cluster: u32,
    /// Where the first allocation table begins.
    pub fat_start: u64,
    /// Length of one table.
    pub fat_len: u64,
    /// Number of tables: 2 on TexFAT.
    pub copies: u8,
    /// Which table, and which bitmap, is in use.
    pub active: u8,
    /// Where cluster 2 begins.
    pub heap_start: u64,
    /// Number of clusters.
    pub clusters: u32,
    /// First cluster of the root directory.
    pub root_cluster: u32,
    /// Serial number.
    pub serial: u32,
    /// Version, major in the upper byte.
    pub version: u16,
    /// Whether the volume was not closed cleanly.
    pub dirty: bool,
    /// Whether bad places were met.
    pub media_failure: bool,
    /// Size of the file system.
    pub size: u64,
    /// Damage and oddities.
    pub remarks: Vec<String>,
}

/// What is wrong with the boot region or its backup; the first of it.
pub fn copies_differ(disk: &Arc<dyn Disk>, geometry: &Geometry) -> Result<Option<DiskError>> {
    let place = u64::from(geometry.sector).saturating_mul(SECTORS);
    for (at, size) in [(0, None), (place, Some(geometry.sector))] {
        match region(disk, at, size) {
            Err(e) | Ok((_, Some(e))) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) | Ok((_, Some(e))) => return Ok(Some(e)),
            Ok((_, None)) => {}
        }
    }
    let (mut own, mut copy) = ([0; 512], [0; 512]);
    disk.read_exact_at(&mut own, 0)?;
    disk.read_exact_at(&mut copy, place)?;
    // Flags and percentage change while mounted.
    let rest = |s: &[u8; 512]| [s.get(64..106), s.get(108..112)].map(|p| p.map(<[u8]>::to_vec));
    Ok((rest(&own) != rest(&copy)).then(|| {
        DiskError::corrupt("comparing the exFAT boot sector with its backup")
            .offset(place)
            .expected("the same sizes and places")
            .found("others: the first is used")
    }))
}

/// Sectors of a boot region, the one of checksums included.
const SECTORS: u64 = 12;

/// Reads the boot region, or its backup if that is bad and the backup is good.
pub fn read(disk: &Arc<dyn Disk>) -> Result<Geometry> {
    let first = region(disk, 0, None);
    let why = match first {
        Ok((geometry, None)) => return Ok(geometry),
        Ok((mut geometry, Some(e))) => {
            if let Some(mut good) = backup(disk) {
                good.remarks
                    .push(format!("the boot region is bad ({e}); its backup is used"));
                return Ok(good);
            }
            geometry
                .remarks
                .push(format!("the boot region is bad ({e}) and so is its backup"));
            return Ok(geometry);
        }
        Err(e) => e,
    };
    match backup(disk) {
        Some(mut geometry) => {
            geometry.remarks.push(format!(
                "the boot region is bad ({why}); its backup is used"
            ));
            Ok(geometry)
        }
        None => Err(why.context("opening an exFAT volume")),
    }
}

/// The backup boot region, where it is and its checksum is right.
pub fn backup(disk: &Arc<dyn Disk>) -> Option<Geometry> {
    [512u32, 4096, 1024, 2048].into_iter().find_map(|size| {
        let at = u64::from(size).checked_mul(SECTORS)?;
        match region(disk, at, Some(size)) {
            Ok((geometry, None)) => Some(geometry),
            _ => None,
        }
    })
}

/// A boot region at `at`, and what is wrong with its checksum.
fn region(
    disk: &Arc<dyn Disk>,
    at: u64,
    size: Option<u32>,
) -> Result<(Geometry, Option<DiskError>)> {
    let mut sector = [0; 512];
    disk.read_exact_at(&mut sector, at)?;
    let geometry = Geometry::parse(&sector, at)?;
    if size.is_some_and(|size| size != geometry.sector) {
        return Err(DiskError::corrupt("reading the exFAT boot sector")
            .offset(at)
            .expected("a backup in the place that its sector size gives it"));
    }
    let unit = usize::try_from(geometry.sector).unwrap_or(512);
    let all = unit.saturating_mul(12);
    let mut bytes = vec![0; all];
    if let Err(e) = disk.read_exact_at(&mut bytes, at) {
        return Ok((geometry, Some(e)));
    }
    let (data, sums) = bytes.split_at(unit.saturating_mul(11));
    // Flags and percentage change while mounted and are left out.
    let sum = data
        .iter()
        .enumerate()
        .filter(|(n, _)| !matches!(n, 106 | 107 | 112))
        .fold(0u32, |sum, (_, b)| {
            sum.rotate_right(1).wrapping_add(u32::from(*b))
        });
    let stored = sums
        .first_chunk::<4>()
        .map_or(0, |b| u32::from_le_bytes(*b));
    let damage = (stored != sum).then(|| {
        DiskError::corrupt("checking the exFAT boot region")
            .offset(at)
            .expected(format!("checksum {sum:#010x}"))
            .found(format!("{stored:#010x}"))
    });
    Ok((geometry, damage))
}

impl Geometry {
    /// Takes a boot sector found at `at` apart and checks it.
    pub fn parse(sector: &[u8; 512], at: u64) -> Result<Self> {
        let f = Fields::new(sector, at, "exFAT boot sector");
        let bad = |place: usize, field: &str, want: &str, found: String| {
            Err(f
                .corrupt(place, field)
                .expected(want.to_owned())
                .found(found))
        };
        if f.bytes(3, 8)? != b"EXFAT   " {
            return bad(3, "FileSystemName", "\"EXFAT   \"", "something else".into());
        }
        let shift = u32::from(f.u8(108)?);
        let cluster_shift = u32::from(f.u8(109)?);
        if !(9..=12).contains(&shift) {
            return bad(108, "BytesPerSectorShift", "9 to 12", shift.to_string());
        }
        if cluster_shift.saturating_add(shift) > 25 {
            return bad(
                109,
                "SectorsPerClusterShift",
                "clusters of at most 32 MiB",
                cluster_shift.to_string(),
            );
        }
        let sector_size = 1u64 << shift;
        let copies = f.u8(110)?;
        if !(1..=2).contains(&copies) {
            return bad(110, "NumberOfFats", "1 or 2", copies.to_string());
        }
        let sectors = f.u64_le(72)?;
        let (fat_offset, fat_len) = (u64::from(f.u32_le(80)?), u64::from(f.u32_le(84)?));
        let heap = u64::from(f.u32_le(88)?);
        let mut clusters = f.u32_le(92)?;
        let tables_end = fat_len
            .saturating_mul(u64::from(copies))
            .saturating_add(fat_offset);
        if fat_offset < 24 || fat_len == 0 || tables_end > heap {
            return bad(
                80,
                "FatOffset and FatLength",
                "tables between the boot regions and the cluster heap",
                format!("{copies} of {fat_len} sectors from {fat_offset} on, heap from {heap} on"),
            );
        }
        let mut remarks = Vec::new();
        let per_cluster = 1u64 << cluster_shift;
        let room = sectors.saturating_sub(heap) >> cluster_shift;
        if room == 0 {
            return bad(72, "VolumeLength", "room for clusters", sectors.to_string());
        }
        let addressable = fat_len.saturating_mul(sector_size / 4).saturating_sub(2);
        let most = room.min(addressable).min(0xffff_fff5);
        if u64::from(clusters) > most {
            remarks.push(format!(
                "the boot sector counts {clusters} clusters, there is room for {most}"
            ));
            clusters = u32::try_from(most).unwrap_or(clusters);
        }
        if clusters == 0 {
            return bad(92, "ClusterCount", "at least 1", "0".into());
        }
        let Some(size) = sectors.checked_mul(sector_size) else {
            return bad(72, "VolumeLength", "a size of 64 bits", sectors.to_string());
        };
        let version = f.u16_le(104)?;
        if version >> 8 != 1 {
            return Err(DiskError::unsupported("opening an exFAT volume")
                .offset(f.place(104))
                .expected("version 1")
                .found(format!("version {}.{}", version >> 8, version & 0xff)));
        }
        let flags = f.u16_le(106)?;
        let active = u8::from(flags & 1 != 0 && copies == 2);
        if copies == 2 {
            remarks.push(format!("a TexFAT volume; table {active} is in use"));
        }
        Ok(Self {
            sector: u32::try_from(sector_size).unwrap_or(512),
            cluster: u32::try_from(sector_size.saturating_mul(per_cluster)).unwrap_or(u32::MAX),
            fat_start: fat_offset.saturating_mul(sector_size),
            fat_len: fat_len.saturating_mul(sector_size),
            copies,
            active,
            heap_start: heap.saturating_mul(sector_size),
            clusters,
            root_cluster: f.u32_le(96)?,
            serial: f.u32_le(100)?,
            version,
            dirty: flags & 2 != 0,
            media_failure: flags & 4 != 0,
            size,
            remarks,
        })
    }

    /// Serial number as `blkid` prints it.
    pub fn uuid(&self) -> String {
        format!("{:04X}-{:04X}", self.serial >> 16, self.serial & 0xffff)
    }

    /// Version as text.
    pub fn revision(&self) -> String {
        format!("{}.{}", self.version >> 8, self.version & 0xff)
    }
}
