//! The boot sector and its BIOS parameter block.

use super::{entry::Entry, evidence};
use crate::FsKind;
use disk_io::{Disk, DiskError, Fields, Result};
use std::sync::Arc;

/// What the boot sector says, in bytes and checked.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// FAT12, FAT16 or FAT32.
    pub kind: FsKind,
    /// Sector size in bytes.
    pub sector: u32,
    /// Cluster size in bytes.
    pub cluster: u32,
    /// Where the first allocation table begins.
    pub fat_start: u64,
    /// Length of one table.
    pub fat_len: u64,
    /// Number of tables.
    pub copies: u8,
    /// The one table that is kept up to date, where mirroring is off.
    pub active: Option<u8>,
    /// Where the root directory of FAT12 and FAT16 begins.
    pub root_start: u64,
    /// Its length; 0 for FAT32.
    pub root_len: u64,
    /// First cluster of the root directory of FAT32.
    pub root_cluster: u32,
    /// Where cluster 2 begins.
    pub data_start: u64,
    /// Number of clusters: they are numbered 2 to `clusters + 1`.
    pub clusters: u32,
    /// Size of the file system.
    pub size: u64,
    /// Media byte.
    pub media: u8,
    /// Serial number, if there is one.
    pub serial: Option<u32>,
    /// Label in the boot sector, if it is one. Windows shows the root directory's instead.
    pub label: Option<Vec<u8>>,
    /// Whether the boot sector marks the volume as in use.
    pub dirty: bool,
    /// Where the FSInfo sector of FAT32 is.
    pub fs_info: Option<u64>,
    /// What is wrong with the boot sector or its backup, where one of the two is.
    pub copy_differs: Option<String>,
    /// Why it may be that of another volume, or of none.
    pub doubts: Vec<String>,
    /// Damage and oddities.
    pub remarks: Vec<String>,
}

/// The sector number of the backup on every FAT32 volume that Windows or mkfs makes.
const BACKUP_SECTOR: u64 = 6;

/// Reads the boot sector, or its backup if it is bad.
pub fn read(disk: &Arc<dyn Disk>) -> Result<Geometry> {
    let mut geometry = settle(disk)?;
    geometry
        .doubts
        .extend(evidence::of(disk, &geometry).against);
    Ok(geometry)
}

fn settle(disk: &Arc<dyn Disk>) -> Result<Geometry> {
    let mut sector = [0; 512];
    let first = disk
        .read_exact_at(&mut sector, 0)
        .and_then(|()| Geometry::parse(&sector, 0));
    match first {
        Ok(mut geometry) => {
            if sector.get(510..) != Some(&[0x55, 0xaa]) {
                geometry
                    .remarks
                    .push("the boot sector does not end in 0x55AA".into());
            }
            if geometry.kind == FsKind::Fat32 {
                compare_backup(disk, &sector, &mut geometry);
            }
            Ok(geometry)
        }
        Err(e) => match backup(disk) {
            Some(mut geometry) => {
                let remark = format!("the boot sector is bad ({e}); its backup is used");
                geometry.copy_differs = Some(remark.clone());
                geometry.remarks.push(remark);
                Ok(geometry)
            }
            None => Err(e.context("opening a FAT volume")),
        },
    }
}

/// The backup boot sector, where it is and describes a FAT32 volume.
pub fn backup(disk: &Arc<dyn Disk>) -> Option<Geometry> {
    [512u64, 4096, 1024, 2048].into_iter().find_map(|size| {
        let at = size.checked_mul(BACKUP_SECTOR)?;
        let mut sector = [0; 512];
        disk.read_exact_at(&mut sector, at).ok()?;
        let geometry = Geometry::parse(&sector, at).ok()?;
        let fits = geometry.kind == FsKind::Fat32
            && u64::from(geometry.sector) == size
            && sector.get(510..) == Some(&[0x55, 0xaa])
            && sector.get(50..52) == Some(&[6, 0]);
        fits.then_some(geometry)
    })
}

fn compare_backup(disk: &Arc<dyn Disk>, first: &[u8; 512], geometry: &mut Geometry) {
    let field = first.get(50..52).unwrap_or_default();
    if field != [6, 0] {
        return;
    }
    let Some(at) = u64::from(geometry.sector).checked_mul(BACKUP_SECTOR) else {
        return;
    };
    let mut copy = [0; 512];
    // Everything that places something: not the media byte, the geometry and the sectors before the
    // partition, which tools set in the first alone, nor the byte at 65, the dirty flag.
    let places =
        |sector: &[u8; 512]| [11..21, 22..24, 32..64].map(|r| sector.get(r).map(<[u8]>::to_vec));
    let same = disk.read_exact_at(&mut copy, at).is_ok() && places(&copy) == places(first);
    if !same {
        let remark = "the backup boot sector differs from the boot sector, which is used";
        geometry.copy_differs = Some(remark.into());
        geometry.remarks.push(remark.into());
        if let Ok(other) = Geometry::parse(&copy, at)
            && other.kind == FsKind::Fat32
            && copy.get(510..) == Some(&[0x55, 0xaa])
            && other.places() != geometry.places()
        {
            decide(disk, geometry, other);
        }
    }
}

/// Both parse and place things differently: the volume itself must say which is right.
fn decide(disk: &Arc<dyn Disk>, own: &mut Geometry, mut other: Geometry) {
    let (mine, theirs) = (evidence::of(disk, own), evidence::of(disk, &other));
    match mine.against.first() {
        Some(why) if theirs.against.is_empty() => {
            let remark = format!("the boot sector is bad ({why}); its backup is used");
            other.copy_differs = Some(remark.clone());
            other.remarks.push(remark);
            *own = other;
        }
        None if !mine.proven && theirs.against.is_empty() => own.doubts.push(
            "the boot sector and its backup give other places, and nothing tells which are right"
                .into(),
        ),
        _ => {}
    }
}

impl Geometry {
    /// Takes a boot sector found at `at` apart and checks it.
    pub fn parse(sector: &[u8; 512], at: u64) -> Result<Self> {
        let f = Fields::new(sector, at, "FAT boot sector");
        let bad = |place: usize, field: &str, want: &str, found: u64| {
            Err(f
                .corrupt(place, field)
                .expected(want.to_owned())
                .found(found.to_string()))
        };
        let sector_size = u32::from(f.u16_le(11)?);
        if !sector_size.is_power_of_two() || !(512..=4096).contains(&sector_size) {
            return bad(
                11,
                "BytsPerSec",
                "512 to 4096, a power of two",
                sector_size.into(),
            );
        }
        let per_cluster = u32::from(f.u8(13)?);
        if !per_cluster.is_power_of_two() {
            return bad(13, "SecPerClus", "a power of two", per_cluster.into());
        }
        let reserved = u64::from(f.u16_le(14)?);
        if reserved == 0 {
            return bad(14, "RsvdSecCnt", "at least 1", 0);
        }
        let copies = f.u8(16)?;
        if !(1..=4).contains(&copies) {
            return bad(16, "NumFATs", "1 or 2", copies.into());
        }
        let root_entries = u64::from(f.u16_le(17)?);
        let media = f.u8(21)?;
        if media != 0xf0 && media < 0xf8 {
            return bad(21, "Media", "0xF0 or at least 0xF8", media.into());
        }
        let fat16_sectors = u64::from(f.u16_le(22)?);
        let fat32 = fat16_sectors == 0;
        let fat_sectors = if fat32 {
            u64::from(f.u32_le(36)?)
        } else {
            fat16_sectors
        };
        if fat_sectors == 0 {
            return bad(22, "FATSz", "at least 1", 0);
        }
        let (small, large) = (u64::from(f.u16_le(19)?), u64::from(f.u32_le(32)?));
        let mut remarks = Vec::new();
        let total = match (small, large) {
            // Windows reads FAT32 volumes whose count has moved to 64 bits at 0x52.
            (0, 0) if fat32 => f.u64_le(0x52)?,
            (0, large) => large,
            (small, 0) => small,
            (small, large) => {
                if small != large {
                    remarks.push(format!(
                        "the boot sector has two sizes, {small} and {large} sectors; the first is used"
                    ));
                }
                small
            }
        };
        let unit = u64::from(sector_size);
        let over = || {
            DiskError::corrupt("reading the FAT boot sector")
                .offset(at)
                .expected("sizes that can be added up")
                .found("an overflow")
        };
        let mul = |n: u64| n.checked_mul(unit).ok_or_else(over);
        let fat_start = mul(reserved)?;
        let fat_len = mul(fat_sectors)?;
        let root_start = fat_len
            .checked_mul(u64::from(copies))
            .and_then(|n| n.checked_add(fat_start))
            .ok_or_else(over)?;
        let root_len = if fat32 {
            0
        } else {
            root_entries
                .saturating_mul(32)
                .div_ceil(unit)
                .saturating_mul(unit)
        };
        if !fat32 && root_entries == 0 {
            return bad(17, "RootEntCnt", "at least 1 on FAT12 and FAT16", 0);
        }
        let data_start = root_start.checked_add(root_len).ok_or_else(over)?;
        let size = mul(total)?;
        let Some(data) = size.checked_sub(data_start).filter(|d| *d > 0) else {
            return bad(19, "TotSec", "room for data", total);
        };
        let cluster = sector_size.saturating_mul(per_cluster);
        let mut clusters = data.checked_div(u64::from(cluster)).unwrap_or(0);
        if clusters == 0 {
            return bad(19, "TotSec", "at least one cluster", total);
        }
        let (kind, bits) = match clusters {
            _ if fat32 => (FsKind::Fat32, 32u64),
            0..4085 => (FsKind::Fat12, 12),
            4085..65525 => (FsKind::Fat16, 16),
            n => {
                return bad(
                    19,
                    "TotSec",
                    "fewer than 65525 clusters without a 32-bit FAT",
                    n,
                );
            }
        };
        let entries = fat_len.saturating_mul(8).checked_div(bits).unwrap_or(0);
        let addressable = entries.saturating_sub(2).min(0x0fff_fff5);
        if addressable < clusters {
            remarks.push(format!(
                "the allocation table has entries for {addressable} of {clusters} clusters"
            ));
            clusters = addressable;
        }
        // The extended fields: drive, dirty flag, signature, serial number, label.
        let ext = if fat32 {
            f.sub(64, 26, "FAT boot sector")?
        } else {
            f.sub(36, 26, "FAT boot sector")?
        };
        let signature = ext.u8(2)?;
        let label = (signature == 0x29)
            .then(|| ext.bytes(7, 11))
            .transpose()?
            .map(|l| l.strip_suffix(b"           ").unwrap_or(l))
            .map(<[u8]>::trim_ascii_end)
            .filter(|l| !l.is_empty() && *l != b"NO NAME" && !l.contains(&0));
        let root_cluster = if fat32 {
            f.u32_le(44)? & 0x0fff_ffff
        } else {
            0
        };
        let flags = if fat32 { f.u16_le(40)? } else { 0 };
        let active = (flags & 0x80 != 0)
            .then(|| u8::try_from(flags & 0xf).ok())
            .flatten()
            .filter(|n| *n < copies);
        let info = if fat32 { u64::from(f.u16_le(48)?) } else { 0 };
        Ok(Self {
            kind,
            sector: sector_size,
            cluster,
            fat_start,
            fat_len,
            copies,
            active,
            root_start,
            root_len,
            root_cluster,
            data_start,
            clusters: u32::try_from(clusters).unwrap_or(u32::MAX),
            size,
            media,
            serial: matches!(signature, 0x28 | 0x29)
                .then(|| ext.u32_le(3))
                .transpose()?,
            label: label.map(<[u8]>::to_vec),
            dirty: ext.u8(1)? & 1 != 0,
            fs_info: (info != 0 && info < reserved).then(|| info.saturating_mul(unit)),
            copy_differs: None,
            doubts: Vec::new(),
            remarks,
        })
    }

    /// Whether a sector that parsed is a boot sector indeed: it says so in one more way.
    pub fn convincing(&self, sector: &[u8; 512], disk: &Arc<dyn Disk>) -> bool {
        let at = if self.kind == FsKind::Fat32 { 82 } else { 54 };
        let named = sector.get(at..).is_some_and(|s| s.starts_with(b"FAT"));
        let signed = sector.get(510..) == Some(&[0x55, 0xaa]);
        let jump = matches!(sector.first(), Some(0xeb | 0xe9));
        let first = || {
            let mut first = [0; 2];
            disk.read_exact_at(&mut first, self.fat_start).is_ok() && first == [self.media, 0xff]
        };
        named || signed && jump || first()
    }

    /// FAT12 and FAT16 have 16 bits; what lies in the upper half there is something else.
    pub fn first_cluster(&self, entry: &Entry) -> u32 {
        match self.kind {
            FsKind::Fat32 => entry.first_cluster & 0x0fff_ffff,
            _ => entry.first_cluster & 0xffff,
        }
    }

    /// Whether the volume has a cluster of this number.
    pub fn has_cluster(&self, cluster: u32) -> bool {
        cluster >= 2 && cluster <= self.clusters.saturating_add(1)
    }

    /// Where a cluster begins.
    pub fn position(&self, cluster: u32) -> Option<u64> {
        u64::from(cluster.checked_sub(2)?)
            .checked_mul(self.cluster.into())?
            .checked_add(self.data_start)
    }

    /// Everything that decides which bytes a file has.
    fn places(&self) -> [u64; 7] {
        [
            self.cluster.into(),
            self.fat_start,
            self.fat_len,
            self.copies.into(),
            self.active.map_or(u64::MAX, u64::from),
            self.root_cluster.into(),
            self.data_start,
        ]
    }

    /// Serial number as `blkid` prints it.
    pub fn uuid(&self) -> Option<String> {
        let serial = self.serial.filter(|n| *n != 0)?;
        Some(format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff))
    }

    /// Free clusters as the FSInfo sector claims, if it is sound at all. It is a hint.
    pub fn free_hint(&self, disk: &Arc<dyn Disk>) -> Option<u32> {
        let at = self.fs_info?;
        let mut sector = [0; 512];
        disk.read_exact_at(&mut sector, at).ok()?;
        let f = Fields::new(&sector, at, "FSInfo");
        let sound = f.u32_le(0).ok()? == 0x4161_5252 && f.u32_le(484).ok()? == 0x6141_7272;
        let free = f.u32_le(488).ok()?;
        (sound && free <= self.clusters).then_some(free)
    }
}
