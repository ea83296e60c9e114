//! Logical partitions: a chain of sectors, each with a table of its own.

use super::{Table, mbr};
use disk_io::Disk;
use std::{collections::HashSet, sync::Arc};

/// More links than any real disk has; a longer chain is an attack or a loop in disguise.
pub const MAX_LINKS: usize = 1024;

/// An extended partition, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Extended {
    /// Where it begins: links count from here.
    pub start: u64,
    /// Its length.
    pub len: u64,
    /// Sector size in bytes.
    pub sector_size: u32,
    /// The disk's signature, part of each partition's identity.
    pub disk_id: u32,
}

impl Extended {
    /// Follows the chain and adds its partitions. Links in any order are followed; one met
    /// twice, or more than [`MAX_LINKS`], ends the chain with a remark.
    pub fn read(&self, disk: &Arc<dyn Disk>, next_number: &mut u32, table: &mut Table) {
        let unit = u64::from(self.sector_size);
        let mut seen = HashSet::new();
        let mut link = self.start;
        loop {
            if seen.len() >= MAX_LINKS {
                table.lose(format!(
                    "the chain of logical partitions has more than {MAX_LINKS} links; the rest is ignored"
                ));
                return;
            }
            if !seen.insert(link) {
                table.lose(format!(
                    "the chain of logical partitions comes back to byte {link}; it ends there"
                ));
                return;
            }
            let mut sector = [0; 512];
            if let Err(e) = disk.read_exact_at(&mut sector, link) {
                table.lose(format!("the chain of logical partitions breaks off: {e}"));
                return;
            }
            let Some(ebr) = mbr::Mbr::parse(&sector).filter(mbr::Mbr::is_sound) else {
                table.lose(format!(
                    "the chain of logical partitions breaks off at byte {link}: no table there"
                ));
                return;
            };
            for (slot, index) in ebr.slots.iter().zip(0..) {
                let start = link.saturating_add(u64::from(slot.start).saturating_mul(unit));
                let len = u64::from(slot.count).saturating_mul(unit);
                // Slots 2 and 3 often hold rubbish: Linux believes them only inside.
                let inside = start >= self.start
                    && start.saturating_add(len) <= self.start.saturating_add(self.len);
                if slot.used() && !slot.extended() && index < 2 && !inside {
                    table.remarks.push(format!(
                        "the logical partition {next_number} lies outside of the extended one, or \
                         ends there"
                    ));
                }
                // The second slot leads on, with the type of an extended partition.
                let link = self.link(slot);
                if index == 1 && !slot.extended() && slot.count != 0 && is_table(disk, link) {
                    table.lose(format!(
                        "the chain of logical partitions ends at a slot of type {:#04x} that leads to \
                         another table, at byte {link}",
                        slot.kind
                    ));
                }
                if slot.used() && !slot.extended() && (index < 2 || inside) {
                    table.partitions.push(mbr::partition(
                        slot,
                        *next_number,
                        start,
                        len,
                        self.disk_id,
                    ));
                    *next_number = next_number.saturating_add(1);
                }
            }
            let Some(next) = ebr.slots.iter().find(|s| s.extended()) else {
                return;
            };
            link = self.link(next);
        }
    }

    /// Where a slot that leads on leads to.
    fn link(&self, slot: &mbr::Slot) -> u64 {
        let sectors = u64::from(slot.start).saturating_mul(u64::from(self.sector_size));
        self.start.saturating_add(sectors)
    }
}

/// Whether a sector has a table that is in use.
fn is_table(disk: &Arc<dyn Disk>, at: u64) -> bool {
    let mut sector = [0; 512];
    let read = disk.read_exact_at(&mut sector, at).is_ok();
    let table = mbr::Mbr::parse(&sector).filter(|_| read);
    table.is_some_and(|t| t.is_sound() && !t.is_empty())
}
