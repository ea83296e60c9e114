//! The database (VMDB): records of volumes, components, partitions and disks.

use disk_io::{Disk, DiskError, Fields, Result};
use std::{collections::BTreeMap, sync::Arc};

/// The area has 1 MiB.
const MAX_DATABASE: u64 = 8 << 20;

/// A volume.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeRecord {
    /// Its number.
    pub id: u64,
    /// Its name, such as `Volume1`.
    pub name: String,
    /// `gen` or `raid5`.
    pub sort: String,
    /// Length in sectors.
    pub sectors: u64,
    /// Number of components.
    pub children: u64,
    /// Identity.
    pub guid: String,
    /// Drive letter that Windows remembers.
    pub hint: Option<String>,
}

/// How a component puts its partitions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// In turns.
    Striped,
    /// One after the other.
    Spanned,
    /// With parity.
    Raid5,
    /// Something newer.
    Other(u8),
}

/// A copy of a volume.
#[derive(Clone, Debug, PartialEq)]
pub struct ComponentRecord {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// `ACTIVE` where its bytes are the volume's.
    pub state: String,
    /// How it is put together.
    pub arrangement: Arrangement,
    /// Number of partitions.
    pub children: u64,
    /// The volume's number.
    pub volume: u64,
    /// Stripe size in sectors; 0 if not striped.
    pub chunk: u64,
    /// Number of columns; 0 if not striped.
    pub columns: u64,
}

/// A range of a disk.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionRecord {
    /// Its name.
    pub name: String,
    /// First sector, counted from the disk's data area.
    pub start: u64,
    /// Where it is in its component, in sectors.
    pub volume_offset: u64,
    /// Length in sectors.
    pub sectors: u64,
    /// The component's number.
    pub component: u64,
    /// The disk's number.
    pub disk: u64,
    /// Which column it is.
    pub index: u64,
}

/// A disk of the group.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskRecord {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its identity, as in its private header.
    pub guid: String,
}

/// Everything a group consists of.
#[derive(Clone, Debug, Default)]
pub struct Database {
    /// Grows with every change.
    pub sequence: u64,
    /// Volumes.
    pub volumes: Vec<VolumeRecord>,
    /// Components.
    pub components: Vec<ComponentRecord>,
    /// Partitions.
    pub partitions: Vec<PartitionRecord>,
    /// Disks.
    pub disks: Vec<DiskRecord>,
    /// Records that cannot be read, and why.
    pub remarks: Vec<String>,
}

/// The slots of one record.
struct Slots<'a> {
    of: u16,
    place: u64,
    parts: BTreeMap<u16, &'a [u8]>,
}

/// Takes the variable-length fields of a record one after the other.
struct Cursor<'a> {
    f: Fields<'a>,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn counted(&mut self) -> Result<&'a [u8]> {
        let len = usize::from(self.f.u8(self.at)?);
        let bytes = self.f.bytes(self.at.saturating_add(1), len)?;
        self.at = self.at.saturating_add(len).saturating_add(1);
        Ok(bytes)
    }

    /// A number of up to eight bytes.
    fn number(&mut self) -> Result<u64> {
        let at = self.at;
        let bytes = self.counted()?;
        if bytes.len() > 8 {
            return Err(self.f.corrupt(at, "a number").expected("at most 8 bytes"));
        }
        Ok(bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn text(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(self.counted()?).into_owned())
    }

    fn skip(&mut self, len: usize) {
        self.at = self.at.saturating_add(len);
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = self.f.u8(self.at)?;
        self.skip(1);
        Ok(byte)
    }

    fn u64(&mut self) -> Result<u64> {
        let n = self.f.u64_be(self.at)?;
        self.skip(8);
        Ok(n)
    }

    /// A GUID stored in the order it is printed in.
    fn guid(&mut self) -> Result<String> {
        let bytes = self.f.bytes(self.at, 16)?;
        self.skip(16);
        Ok(crate::volume::probe::uuid(bytes))
    }
}

impl Database {
    /// Whether another says the same of where bytes are.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.volumes == other.volumes
            && self.components == other.components
            && self.partitions == other.partitions
            && self.disks == other.disks
    }

    /// Reads the database at `at`, inside an area that ends at `end` (bytes).
    pub fn read(disk: &Arc<dyn Disk>, at: u64, end: u64) -> Result<Self> {
        let mut head = [0; 512];
        disk.read_exact_at(&mut head, at)?;
        let f = Fields::new(&head, at, "LDM database");
        if f.bytes(0, 4)? != b"VMDB" {
            return Err(f.corrupt(0, "the signature").expected("VMDB"));
        }
        let (major, minor) = (f.u16_be(0x12)?, f.u16_be(0x14)?);
        if major != 4 || minor != 10 {
            return Err(DiskError::unsupported("reading the LDM database")
                .offset(at)
                .expected("version 4.10")
                .found(format!("version {major}.{minor}")));
        }
        let count = u64::from(f.u32_be(4)?);
        let size = u64::from(f.u32_be(8)?);
        let first = u64::from(f.u32_be(12)?);
        let mut database = Self {
            sequence: f.u64_be(0x75)?,
            ..Self::default()
        };
        if f.u16_be(0x10)? != 1 {
            database
                .remarks
                .push("the LDM database was being changed when it was last written".into());
        }
        let start = at.saturating_add(first);
        let len = count
            .saturating_mul(size)
            .min(end.saturating_sub(start))
            .min(disk.len().saturating_sub(start));
        if !(64..=4096).contains(&size) || len > MAX_DATABASE {
            return Err(f
                .corrupt(8, "the size of records")
                .expected("64 to 4096 bytes")
                .found(format!("{count} of {size} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        disk.read_exact_at(&mut bytes, start)?;
        // A record may take several slots, which have a number in common.
        let mut parts: BTreeMap<u32, Slots<'_>> = BTreeMap::new();
        let step = usize::try_from(size).unwrap_or(128).max(64);
        for (slot, place) in bytes.chunks_exact(step).zip((start..).step_by(step)) {
            let f = Fields::new(slot, place, "LDM record");
            if f.bytes(0, 4)? != b"VBLK" {
                continue;
            }
            let (group, part, of) = (f.u32_be(8)?, f.u16_be(12)?, f.u16_be(14)?);
            if of == 0 || part >= of {
                continue;
            }
            let slots = parts.entry(group).or_insert_with(|| Slots {
                of,
                place,
                parts: BTreeMap::new(),
            });
            slots
                .parts
                .insert(part, f.bytes(16, step.saturating_sub(16))?);
        }
        for Slots { of, place, parts } in parts.into_values() {
            if parts.len() < usize::from(of) {
                database
                    .remarks
                    .push(format!("the LDM record at byte {place} is not all there"));
                continue;
            }
            let whole: Vec<u8> = parts.into_values().flatten().copied().collect();
            if let Err(e) = database.record(&whole, place) {
                database.remarks.push(e.to_string());
            }
        }
        Ok(database)
    }

    fn record(&mut self, bytes: &[u8], place: u64) -> Result<()> {
        let f = Fields::new(bytes, place, "LDM record");
        let (flags, kind) = (f.u8(2)?, f.u8(3)?);
        // Empty slots have no length.
        if f.u32_be(4)? == 0 {
            return Ok(());
        }
        let mut c = Cursor { f, at: 8 };
        match kind {
            0x51 => {
                let (id, name, sort) = (c.number()?, c.text()?, c.text()?);
                let _drive_letter_off = c.text()?;
                // State, kind, number, flags.
                c.skip(21);
                let children = c.number()?;
                c.skip(16);
                let sectors = c.number()?;
                c.skip(4);
                let _partition_type = c.byte()?;
                let guid = c.guid()?;
                for flag in [0x08, 0x20, 0x80] {
                    if flags & flag != 0 {
                        c.counted()?;
                    }
                }
                let hint = (flags & 2 != 0).then(|| c.text()).transpose()?;
                self.volumes.push(VolumeRecord {
                    id,
                    name,
                    sort,
                    sectors,
                    children,
                    guid,
                    hint,
                });
            }
            0x32 => {
                let (id, name) = (c.number()?, c.text()?);
                let state = c.text()?;
                let arrangement = match c.byte()? {
                    1 => Arrangement::Striped,
                    2 => Arrangement::Spanned,
                    3 => Arrangement::Raid5,
                    other => Arrangement::Other(other),
                };
                c.skip(4);
                let children = c.number()?;
                c.skip(16);
                let volume = c.number()?;
                c.skip(1);
                let striped = flags & 0x10 != 0;
                let chunk = if striped { c.number()? } else { 0 };
                let columns = if striped { c.number()? } else { 0 };
                self.components.push(ComponentRecord {
                    id,
                    name,
                    state,
                    arrangement,
                    children,
                    volume,
                    chunk,
                    columns,
                });
            }
            0x33 => {
                let (_id, name) = (c.number()?, c.text()?);
                c.skip(12);
                let (start, volume_offset) = (c.u64()?, c.u64()?);
                let (sectors, component, disk) = (c.number()?, c.number()?, c.number()?);
                let index = if flags & 0x08 != 0 { c.number()? } else { 0 };
                self.partitions.push(PartitionRecord {
                    name,
                    start,
                    volume_offset,
                    sectors,
                    component,
                    disk,
                    index,
                });
            }
            0x34 => {
                let (id, name) = (c.number()?, c.text()?);
                let guid = c.text()?.to_lowercase();
                self.disks.push(DiskRecord { id, name, guid });
            }
            0x44 => {
                let (id, name, guid) = (c.number()?, c.text()?, c.guid()?);
                self.disks.push(DiskRecord { id, name, guid });
            }
            // Disk groups, and kinds that say nothing of where bytes are.
            _ => {}
        }
        Ok(())
    }
}
