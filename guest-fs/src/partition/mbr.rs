//! The DOS partition table in sector 0.

use super::{Partition, Scheme, Table, ebr, types};
use disk_io::{Disk, Fields};
use std::sync::Arc;

/// A sector with four table slots: an MBR, or a link of an extended chain.
#[derive(Clone, Debug)]
pub struct Mbr {
    /// The disk's signature at 0x1b8.
    pub disk_id: u32,
    /// The four slots.
    pub slots: [Slot; 4],
}

/// One slot. Sectors are in units of the disk's sector size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// 0x80 if active, else 0.
    pub boot: u8,
    /// Partition type.
    pub kind: u8,
    /// First sector, relative to what the table says it is relative to.
    pub start: u32,
    /// Number of sectors.
    pub count: u32,
}

impl Slot {
    /// Whether the slot is in use.
    pub fn used(&self) -> bool {
        self.kind != 0 && self.count != 0
    }

    /// Whether it has a place and no type.
    pub fn is_hidden(&self) -> bool {
        self.kind == 0 && self.start != 0 && self.count != 0
    }

    /// Whether it holds logical partitions.
    pub fn extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85) && self.count != 0
    }
}

impl Mbr {
    /// Takes a sector apart; `None` without the signature 0x55AA.
    pub fn parse(sector: &[u8]) -> Option<Self> {
        let f = Fields::new(sector, 0, "partition table");
        if f.u16_le(510).ok()? != 0xaa55 {
            return None;
        }
        let mut slots = [Slot::default(); 4];
        for (slot, at) in slots.iter_mut().zip([446, 462, 478, 494]) {
            *slot = Slot {
                boot: f.u8(at).ok()?,
                kind: f.bytes(at, 16).ok()?.get(4).copied()?,
                start: f.sub(at, 16, "slot").ok()?.u32_le(8).ok()?,
                count: f.sub(at, 16, "slot").ok()?.u32_le(12).ok()?,
            };
        }
        Some(Self {
            disk_id: f.u32_le(0x1b8).ok()?,
            slots,
        })
    }

    /// Whether this could be a table: no slot has a boot flag other than 0 and 0x80.
    pub fn is_sound(&self) -> bool {
        self.slots.iter().all(|s| s.boot & 0x7f == 0)
    }

    /// Whether no slot is used.
    pub fn is_empty(&self) -> bool {
        !self.slots.iter().any(Slot::used)
    }

    /// Whether it announces a GUID partition table. That it does is no proof; a wrong boot flag is
    /// none to the contrary.
    pub fn is_protective(&self) -> bool {
        self.slots.iter().any(|s| s.kind == 0xee)
    }

    /// The slot that keeps it from being sound, where it is one alone, and its boot flag.
    pub fn odd_flag(&self) -> Option<(u32, u8)> {
        let odd = self.slots.iter().zip(1u32..);
        let mut odd = odd.filter(|(s, _)| s.boot & 0x7f != 0);
        let (slot, number) = odd.next()?;
        odd.next().is_none().then_some((number, slot.boot))
    }

    /// Whether it lists partitions beside the protective one.
    pub fn is_hybrid(&self) -> bool {
        self.is_sound() && self.slots.iter().any(|s| s.used() && s.kind != 0xee)
    }

    /// The partitions, logical ones included, if sectors have `sector_size` bytes.
    pub fn table(&self, disk: &Arc<dyn Disk>, sector_size: u32) -> Table {
        let mut table = Table::new(Scheme::Mbr, sector_size);
        let unit = u64::from(sector_size);
        if self.disk_id != 0 {
            table.uuid = Some(format!("{:08x}", self.disk_id));
        }
        let mut next_logical = 5;
        for (slot, number) in self.slots.iter().zip(1u32..) {
            let again = |s: &Slot| s.used() && (s.start, s.count) == (slot.start, slot.count);
            if slot.is_hidden() && !self.slots.iter().any(again) {
                table.doubt(format!(
                    "slot {number} of the partition table has a place and no type: a partition may \
                     be hidden"
                ));
            }
            if !slot.used() {
                continue;
            }
            let start = u64::from(slot.start).saturating_mul(unit);
            let len = u64::from(slot.count).saturating_mul(unit);
            table
                .partitions
                .push(partition(slot, number, start, len, self.disk_id));
            if slot.extended() {
                let chain = ebr::Extended {
                    start,
                    len,
                    sector_size,
                    disk_id: self.disk_id,
                };
                chain.read(disk, &mut next_logical, &mut table);
            }
        }
        overlaps(&mut table);
        table.clamp(disk.len());
        table
    }
}

/// The partition that a slot describes.
pub(super) fn partition(slot: &Slot, number: u32, start: u64, len: u64, disk_id: u32) -> Partition {
    Partition {
        number,
        start,
        len,
        available: 0,
        type_id: format!("0x{:02x}", slot.kind),
        type_name: types::mbr(slot.kind).into(),
        name: None,
        uuid: (disk_id != 0).then(|| format!("{disk_id:08x}-{number:02x}")),
        active: slot.boot & 0x80 != 0,
        extended: slot.extended(),
    }
}

/// Remarks on partitions that share bytes: one of them is wrong.
pub(super) fn overlaps(table: &mut Table) {
    let mut sorted: Vec<_> = table
        .partitions
        .iter()
        .filter(|p| !p.extended)
        .map(|p| (p.start, p.start.saturating_add(p.len), p.number))
        .collect();
    sorted.sort_unstable();
    for pair in sorted.windows(2) {
        if let [a, b] = pair
            && b.0 < a.1
        {
            table
                .remarks
                .push(format!("partitions {} and {} overlap", a.2, b.2));
        }
    }
}
