//! One device of a volume: its header and its volume entries (fact sheet, VMFS 1 to 1.2).

use crate::{Uuid, scsi::ScsiIdentity};
use disk_io::{Disk, DiskError, Fields, Result};
use std::sync::Arc;

/// First four bytes of the header.
pub(crate) const MAGIC: u32 = 0xC001_D00D;
/// Where the header may lie. Only the first was ever seen; the others are what ESXi's own
/// code is said to look at (fact sheet, VMFS 0.1).
pub(crate) const HEADER_OFFSETS: [u64; 5] = [0x10_0000, 0x11_0000, 0x18_0000, 0x20_0000, 0x90_0000];

const VOLUME_ENTRY: usize = 512;
const VOLUME_SLOTS: u64 = 512;
/// From the end of the header block to the first bitmap, in every version.
const TABLES: u64 = 1024 * 512;
const NAMES: u64 = 32 * 256;
/// Devices of a volume.
pub(crate) const MAX_DEVICES: u32 = 32;

/// What the header of a device says.
#[derive(Clone, Debug)]
pub struct DeviceHeader {
    /// Where the header lies on the device, in bytes.
    pub offset: u64,
    /// Version, 3 to 6.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// Who the device said that it was when ESX wrote the header. If the real device says
    /// otherwise, ESX calls the volume a snapshot.
    pub identity: ScsiIdentity,
    /// Logical block size of the device in bytes.
    pub block_size: u32,
    /// Size of the device in bytes.
    pub size: u64,
    /// Volumes on the device.
    pub volumes: u32,
    /// Entries of the extent tables in use.
    pub entries: u32,
    /// Index of the last entry in use.
    pub last_entry: u32,
    /// Counts changes of the header.
    pub generation: u64,
    /// Where the first physical extent lies, in bytes.
    pub data_offset: u64,
    /// Identifies the device.
    pub uuid: Uuid,
    /// When the device was initialised, in microseconds since 1970.
    pub created_us: u64,
    /// When the header was changed last, in microseconds since 1970.
    pub modified_us: u64,
    /// The host that holds the lock of the header; nil if none.
    pub lock_host: Uuid,
    /// Pairs of bitmap and table in the first region.
    pub maps: u32,
    /// Where the next region's header lies, 0 if there is none.
    pub extended: u64,
    /// Alignment of metadata in bytes (LVM 6; 0 before).
    pub alignment: u32,
    /// Flags; bit 0 is set on VMFS-L of LVM 6.
    pub flags: u32,
}

/// What a device says of a volume that it is a part of.
#[derive(Clone, Debug)]
pub struct VolumeEntry {
    /// Size of the whole volume in bytes, over all devices.
    pub size: u64,
    /// Counts changes.
    pub generation: u64,
    /// 1 normal, 2 resignature pending, 3 resignature done.
    pub state: u32,
    /// Name; for file systems the text of the volume's identifier.
    pub name: String,
    /// Identifies the volume, together with the snapshot number.
    pub uuid: Uuid,
    /// Snapshot number, 1 on originals.
    pub snapshot: u32,
    /// When the volume was made, in microseconds since 1970.
    pub created_us: u64,
    /// The volume's index in the extent tables of this device.
    pub index: u32,
    /// Units of 256 MiB on this device.
    pub units: u32,
    /// The first unit of the volume on this device.
    pub first: u64,
    /// The last unit of the volume on this device.
    pub last: u64,
    /// Number of devices of the volume.
    pub devices: u32,
}

/// A disk that carries an LVM header.
#[derive(Clone, Debug)]
pub struct Device {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Its number among the disks that were given, for messages.
    pub number: usize,
    /// Its header.
    pub header: DeviceHeader,
    /// Its volumes: one, in all that was ever seen.
    pub volumes: Vec<VolumeEntry>,
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

impl DeviceHeader {
    /// Size of the block that the header takes.
    pub(crate) fn block(&self) -> u64 {
        if self.major >= 6 {
            u64::from(self.alignment)
        } else {
            512
        }
    }

    /// Size of a bitmap of 8192 extents with its padding.
    pub(crate) fn bitmap(&self) -> u64 {
        if self.major >= 6 {
            u64::from(self.alignment.max(1024))
        } else {
            1024
        }
    }

    /// From the begin of a region to its first bitmap.
    pub(crate) fn to_bitmap(&self) -> u64 {
        self.block().saturating_add(TABLES)
    }

    fn read(f: &Fields<'_>, offset: u64) -> Result<Self> {
        let major = f.u32_le(4)?;
        match major {
            3..=6 => {}
            0..=2 => {
                return Err(DiskError::unsupported("opening a VMFS volume")
                    .offset(offset)
                    .expected("LVM 3 to 6")
                    .found(format!("LVM {major}: VMFS-1 or VMFS-2")));
            }
            _ => {
                return Err(DiskError::unsupported("opening a VMFS volume")
                    .offset(offset)
                    .expected("LVM 3 to 6")
                    .found(format!("LVM {major}")));
            }
        }
        let uuid = |at| Ok::<_, DiskError>(Uuid::from_slice(f.bytes(at, 16)?).unwrap_or_default());
        let header = Self {
            offset,
            major,
            minor: f.u32_le(8)?,
            identity: ScsiIdentity::read(f, 0x0C)?,
            block_size: f.u32_le(0x5A)?,
            size: f.u64_le(0x5E)?,
            volumes: f.u32_le(0x66)?,
            entries: f.u32_le(0x6A)?,
            last_entry: f.u32_le(0x6E)?,
            generation: f.u64_le(0x72)?,
            data_offset: f.u64_le(0x7A)?,
            uuid: uuid(0x82)?,
            created_us: f.u64_le(0x92)?,
            modified_us: f.u64_le(0x9A)?,
            lock_host: uuid(0xA2)?,
            maps: f.u32_le(0xBE)?.max(1),
            extended: f.u64_le(0xC2)?,
            alignment: f.u32_le(0xCA)?,
            flags: f.u32_le(0xD2)?,
        };
        let aligned =
            header.alignment.is_power_of_two() && (512..=1 << 20).contains(&header.alignment);
        if major >= 6 && !aligned {
            return Err(f
                .corrupt(0xCA, "the metadata alignment")
                .expected("a power of two from 512 to 1 MiB")
                .found(header.alignment.to_string()));
        }
        if header.maps > 64 {
            return Err(f
                .corrupt(0xBE, "the number of extent maps")
                .expected("at most 64")
                .found(header.maps.to_string()));
        }
        Ok(header)
    }
}

impl VolumeEntry {
    fn read(f: &Fields<'_>) -> Result<Self> {
        Ok(Self {
            size: f.u64_le(0)?,
            generation: f.u64_le(8)?,
            state: f.u32_le(0x10)?,
            name: text(f.bytes(0x14, 64)?),
            uuid: Uuid::from_slice(f.bytes(0x54, 16)?).unwrap_or_default(),
            snapshot: f.u32_le(0x64)?,
            created_us: f.u64_le(0x68)?,
            index: f.u32_le(0x70)?,
            units: f.u32_le(0x74)?,
            first: f.u64_le(0x78)?,
            last: f.u64_le(0x80)?,
            devices: f.u32_le(0x90)?,
        })
    }
}

impl Device {
    /// Reads the header and volume entries; `None` if the disk has no LVM header at any of
    /// the known offsets.
    pub fn open(disk: Arc<dyn Disk>, number: usize) -> Result<Option<Self>> {
        for offset in HEADER_OFFSETS {
            let mut block = [0u8; 512];
            if offset.saturating_add(512) > disk.len() {
                break;
            }
            disk.read_exact_at(&mut block, offset)?;
            let f = Fields::new(&block, offset, "LVM device header");
            if f.u32_le(0)? == MAGIC {
                let header = DeviceHeader::read(&f, offset)?;
                let volumes = read_volumes(&*disk, &header)?;
                return Ok(Some(Self {
                    disk,
                    number,
                    header,
                    volumes,
                }));
            }
        }
        Ok(None)
    }

    /// The names that ESX knew the devices of the volume by; they are only stored on the
    /// device that holds the begin of the volume, and only from LVM 5 on.
    pub fn names(&self) -> Result<Vec<String>> {
        let at = self
            .header
            .offset
            .saturating_add(self.header.to_bitmap())
            .saturating_sub(NAMES);
        let mut table = vec![0; NAMES as usize];
        self.disk.read_exact_at(&mut table, at)?;
        Ok(table
            .chunks(256)
            .map(text)
            .filter(|n| !n.is_empty() && self.header.major >= 5)
            .collect())
    }
}

/// Reads entries until as many volumes were found as the header counts.
fn read_volumes(disk: &dyn Disk, header: &DeviceHeader) -> Result<Vec<VolumeEntry>> {
    let start = header.offset.saturating_add(header.block());
    let slots = if header.major >= 6 { 1 } else { VOLUME_SLOTS };
    let mut found = Vec::new();
    let mut slot = 0u64;
    while slot < slots && (found.len() as u64) < u64::from(header.volumes) {
        // The first entry alone: it is the only one there is, as a rule.
        let count = if slot == 0 {
            1
        } else {
            63.min(slots.saturating_sub(slot))
        };
        let at = start.saturating_add(slot.saturating_mul(VOLUME_ENTRY as u64));
        let mut bytes = vec![0; VOLUME_ENTRY.saturating_mul(count as usize)];
        disk.read_exact_at(&mut bytes, at)?;
        for (i, entry) in bytes.chunks(VOLUME_ENTRY).enumerate() {
            let place = at.saturating_add((i as u64).saturating_mul(VOLUME_ENTRY as u64));
            let f = Fields::new(entry, place, "LVM volume entry");
            let entry = VolumeEntry::read(&f)?;
            if entry.state == 0 || entry.size == 0 {
                continue;
            }
            if entry.devices == 0 || entry.devices > MAX_DEVICES {
                return Err(f
                    .corrupt(0x90, "the number of devices")
                    .expected(format!("1 to {MAX_DEVICES}"))
                    .found(entry.devices.to_string()));
            }
            if entry.first > entry.last || entry.last > u64::from(u32::MAX) {
                return Err(f
                    .corrupt(0x78, "the range of extents")
                    .found(format!("{} to {}", entry.first, entry.last)));
            }
            found.push(entry);
        }
        slot = slot.saturating_add(count);
    }
    if found.is_empty() {
        return Err(DiskError::corrupt("reading the LVM volume table")
            .offset(start)
            .expected(format!("{} volumes", header.volumes))
            .found("none"));
    }
    Ok(found)
}
