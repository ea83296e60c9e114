//! Partition tables: what lies where on a disk.
//!
//! A table is data from a guest: it may be damaged, or made to hurt. Everything is bounded,
//! and what is odd but usable is kept and remarked on rather than dropped.
//!
//! | module | holds |
//! |---|---|
//! | [`mbr`] | the table in sector 0 |
//! | [`ebr`] | the chain of logical partitions inside an extended one |
//! | [`gpt`] | GUID partition tables and their backup |
//! | [`types`] | names of partition types |

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

pub mod ebr;
pub mod gpt;
pub mod mbr;
pub mod types;

use crate::{
    FsKind, ldm,
    volume::{self, Recognised},
};
use disk_io::{Disk, Result, Slice};
use std::sync::Arc;

/// Which kind of table a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// None: a file system (or nothing known) begins at the first byte.
    None,
    /// A DOS table in sector 0, with or without logical partitions.
    Mbr,
    /// A GUID partition table behind a protective MBR.
    Gpt,
    /// A GUID partition table whose MBR lists partitions of its own. The GPT's are given.
    HybridGpt,
}

impl Scheme {
    /// The usual name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Mbr => "mbr",
            Self::Gpt => "gpt",
            Self::HybridGpt => "hybrid-gpt",
        }
    }
}

/// One entry of a partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The number that Linux gives it: 1 to 4 for the slots of an MBR, from 5 for logical
    /// partitions, the entry's index plus one in a GPT.
    pub number: u32,
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes, as the table says.
    pub len: u64,
    /// How much of `len` the disk really has; less than `len` on a truncated image.
    pub available: u64,
    /// Type as the table stores it: `0x07`, or a GUID in lower case.
    pub type_id: String,
    /// What that type is commonly called.
    pub type_name: String,
    /// Name, in a GPT.
    pub name: Option<String>,
    /// Identity as `blkid` prints it (PARTUUID).
    pub uuid: Option<String>,
    /// Whether it is marked to boot from.
    pub active: bool,
    /// Whether it only holds logical partitions, which are listed on their own.
    pub extended: bool,
}

impl Partition {
    /// The partition's bytes, as far as the disk has them.
    pub fn open(&self, disk: &Arc<dyn Disk>) -> Result<Arc<dyn Disk>> {
        let start = self.start.min(disk.len());
        Ok(Arc::new(Slice::new(disk.clone(), start, self.available)?))
    }
}

/// What was found on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which kind of table.
    pub scheme: Scheme,
    /// Size in bytes of the sectors that the table counts in.
    pub sector_size: u32,
    /// Identity of the table as `blkid` prints it (PTUUID).
    pub uuid: Option<String>,
    /// Its partitions, by number.
    pub partitions: Vec<Partition>,
    /// Whether the disk is a member of a Windows dynamic disk group. Its partitions of an
    /// LDM type are then parts of volumes ([`crate::ldm`]): one may begin like a file system
    /// and hold every second stripe of it.
    pub dynamic: bool,
    /// Damage and oddities, one sentence each.
    pub remarks: Vec<String>,
    /// Those of them after which partitions may be missing.
    pub losses: Vec<String>,
    /// Those of them by which the disk may be another one: what is left of an earlier life, or the
    /// table is.
    pub rivals: Vec<String>,
}

impl Table {
    /// Adds a remark after which partitions may be missing.
    fn lose(&mut self, remark: String) {
        self.losses.push(remark.clone());
        self.remarks.push(remark);
    }

    /// Adds a remark by which the disk may be another one.
    fn doubt(&mut self, remark: String) {
        self.rivals.push(remark.clone());
        self.remarks.push(remark);
    }

    fn new(scheme: Scheme, sector_size: u32) -> Self {
        Self {
            scheme,
            sector_size,
            uuid: None,
            partitions: Vec::new(),
            dynamic: false,
            remarks: Vec::new(),
            losses: Vec::new(),
            rivals: Vec::new(),
        }
    }

    /// Tells of a GUID partition table beside this one: partitions may be missing where it lists
    /// others. That of an image that is a CD too lists the whole of it.
    fn not_announced(&mut self, other: &Self) {
        let missing = other.partitions.iter().filter(|p| {
            let mut own = self.partitions.iter();
            p.start > 0 && !own.any(|o| (o.start, o.len) == (p.start, p.len))
        });
        let missing: Vec<String> = missing.map(|p| p.number.to_string()).collect();
        let there = "there is a GUID partition table too, which sector 0 does not announce";
        match missing.as_slice() {
            [] => self.remarks.push(format!("{there}; it lists nothing else")),
            some => self.doubt(format!(
                "{there}; its partitions {} are not listed here",
                some.join(", ")
            )),
        }
    }

    /// Computes what the disk has of each partition, and remarks on what it has not.
    fn clamp(&mut self, disk_len: u64) {
        for p in &mut self.partitions {
            p.available = disk_len.saturating_sub(p.start).min(p.len);
            if p.available < p.len {
                self.remarks.push(format!(
                    "partition {} ends at byte {}, past the end of the disk at {disk_len}",
                    p.number,
                    u128::from(p.start).saturating_add(u128::from(p.len)),
                ));
            }
        }
        self.partitions.sort_by_key(|p| p.number);
    }

    /// How many partitions begin with something known: the evidence for a sector size.
    fn recognised(&self, disk: &Arc<dyn Disk>) -> usize {
        let known = |p: &&Partition| {
            !p.extended
                && p.start > 0
                && p.open(disk)
                    .and_then(|part| volume::recognise(&part))
                    // A dynamic disk is known by its end too, which says nothing of where
                    // its partition begins.
                    .is_ok_and(|found| found.is_some_and(|f| f.kind != FsKind::Ldm))
        };
        self.partitions.iter().take(16).filter(known).count()
    }
}

/// Reads the partition table of `disk`. No table is [`Scheme::None`], not an error; an error
/// means that sector 0 cannot be read.
pub fn read(disk: &Arc<dyn Disk>) -> Result<Table> {
    let mut table = read_table(disk)?;
    let of_ldm = |p: &Partition| p.type_id == "0x42" || p.type_name.contains("(LDM)");
    if table.partitions.iter().any(of_ldm) && ldm::is_member(disk) {
        table.dynamic = true;
        table.remarks.push(
            "a member of a Windows dynamic disk group: its partitions are parts of volumes".into(),
        );
    }
    Ok(table)
}

fn read_table(disk: &Arc<dyn Disk>) -> Result<Table> {
    let stated = disk.sector_size();
    let mut none = Table::new(Scheme::None, stated);
    if disk.len() < 512 {
        none.remarks
            .push("the disk is shorter than one sector".into());
        return Ok(none);
    }
    let mut sector = [0; 512];
    disk.read_exact_at(&mut sector, 0)?;
    let sectors = mbr::Mbr::parse(&sector);

    let sound = sectors.as_ref().is_some_and(mbr::Mbr::is_sound);
    // What an array, or a file system on the whole disk, left of a table is not believed.
    let whole = || {
        let found = volume::recognise(disk).ok().flatten();
        found.filter(|w| w.kind != FsKind::Ldm)
    };
    let in_array = || volume::begins_as_array(disk);
    // A GPT is believed where the MBR announces it, or where sector 0 was wiped.
    let announced = match &sectors {
        None => true,
        Some(mbr) if sound => mbr.is_protective(),
        Some(mbr) => mbr.is_protective() && volume::boot_sector(disk)?.is_none(),
    };
    let mut unannounced = None;
    match gpt::read(disk, sectors.as_ref()) {
        gpt::Found::Table(table) if !announced => unannounced = Some(table),
        gpt::Found::Table(mut table) => {
            if sectors.is_none() {
                table.remarks.push(
                    "sector 0 has no protective MBR; the GUID partition table behind it is used"
                        .into(),
                );
            }
            return Ok(table);
        }
        gpt::Found::Backup { mut table, primary } if announced => {
            // What is on the disk now may leave its end alone: a superblock of an array lies among
            // the entries, one of a file system too.
            let left_over = match primary {
                true => in_array().then_some(FsKind::LinuxRaid),
                false => whole().map(|w| w.kind),
            };
            if let Some(kind) = left_over {
                none.remarks.push(format!(
                    "the whole disk is {kind}; what there is of a GUID partition table is left over \
                     from before, and ignored"
                ));
                return Ok(none);
            }
            if !primary {
                table.lose(
                    "only the backup of the GUID partition table, at the end of the disk, is left: \
                     it may be of an earlier time"
                        .into(),
                );
            }
            return Ok(table);
        }
        gpt::Found::Damaged(remarks) if announced => {
            none.losses = remarks.clone();
            none.remarks = remarks;
        }
        _ => {}
    }

    // A file system without a table, tested before an MBR is believed: boot sectors of FAT
    // and NTFS end in 0x55AA too.
    let boot = volume::boot_sector(disk)?;
    let odd = sectors
        .as_ref()
        .filter(|m| !m.is_empty())
        .and_then(mbr::Mbr::odd_flag);
    let Some(mbr) = sectors.filter(mbr::Mbr::is_sound) else {
        if boot.is_none() {
            other_schemes(disk, &mut none);
            if let Some((slot, flag)) = odd.filter(|_| whole().is_none()) {
                none.lose(format!(
                    "sector 0 is no partition table that is believed: slot {slot} has the boot flag \
                     {flag:#04x}, which is neither 0 nor 0x80"
                ));
            }
        }
        return Ok(none);
    };
    let mut table = with_sector_size(disk, &mbr);
    if mbr.is_protective() && whole().is_none() && table.recognised(disk) == 0 {
        table.lose(
            "sector 0 announces a GUID partition table, and neither it nor its backup is there"
                .into(),
        );
    }
    if let Some(other) = unannounced {
        table.not_announced(&other);
    }
    table.remarks.splice(0..0, none.remarks.clone());
    table.losses.splice(0..0, none.losses.clone());
    if let Some(kind) = boot {
        let table_first = !table.partitions.is_empty() && table.recognised(disk) > 0;
        let (said, loser) = if table_first {
            (&mut table, format!("the boot sector of {kind}"))
        } else {
            (&mut none, "a partition table".into())
        };
        if table_first || !(mbr.is_empty() || is_whole_volume(disk, &mbr)) {
            said.remarks
                .push(format!("sector 0 also looks like {loser}; ignored"));
        }
        return Ok(if table_first { table } else { none });
    }
    let found = volume::recognise(disk).ok().flatten();
    if table.partitions.is_empty() && found.is_some() {
        return Ok(none);
    }
    let found = found.filter(|w| w.kind != FsKind::Ldm);
    if let Some(found) = found.filter(|w| !is_backup_of_last(disk, &table, w)) {
        let told = format!(
            "the whole disk also looks like {}; the partition table is believed",
            found.kind
        );
        match in_array() {
            // Making an array of the disk leaves the table alone.
            true => table.doubt(told),
            false => table.remarks.push(told),
        }
    }
    Ok(table)
}

/// Whether the one slot in use begins at sector 0 and covers the volume, as `mformat` and
/// `mkfs.fat --mbr=y` write it for firmware that wants a table: it lists nothing else.
fn is_whole_volume(disk: &Arc<dyn Disk>, mbr: &mbr::Mbr) -> bool {
    let mut used = mbr.slots.iter().filter(|s| s.used());
    let (Some(slot), None) = (used.next(), used.next()) else {
        return false;
    };
    let sector = u64::from(disk.sector_size());
    let len = u64::from(slot.count).saturating_mul(sector);
    let volume = volume::recognise(disk).ok().flatten();
    let volume = volume.and_then(|v| v.size).unwrap_or(disk.len());
    slot.start == 0 && !slot.extended() && len >= volume.min(disk.len())
}

/// Whether what the whole disk looks like is the backup boot sector of a partition that ends
/// where the disk does.
fn is_backup_of_last(disk: &Arc<dyn Disk>, table: &Table, found: &Recognised) -> bool {
    let end = disk.len();
    let fits = |p: &Partition| {
        p.start < end
            && p.start.saturating_add(p.len) >= end
            && found.size.is_some_and(|size| size <= p.len)
    };
    found.kind == FsKind::Ntfs && table.partitions.iter().any(fits)
}

/// Reads the MBR's partitions in the stated sector size, or in the other one if only that
/// makes sense of them.
fn with_sector_size(disk: &Arc<dyn Disk>, mbr: &mbr::Mbr) -> Table {
    let stated = disk.sector_size();
    let table = mbr.table(disk, stated);
    if table.partitions.is_empty() || table.recognised(disk) > 0 {
        return table;
    }
    let other = if stated == 4096 { 512 } else { 4096 };
    let mut second = mbr.table(disk, other);
    if second.recognised(disk) > 0 && second.partitions.iter().all(|p| p.available == p.len) {
        if disk.states_sector_size() {
            second.remarks.push(format!(
                "the table counts in sectors of {other} bytes although the disk says {stated}"
            ));
        }
        return second;
    }
    table
}

/// Names tables that are not read here.
fn other_schemes(disk: &Arc<dyn Disk>, table: &mut Table) {
    let mut head = [0; 1024];
    if disk.read_exact_at(&mut head, 0).is_err() {
        return;
    }
    let at = |from: usize, magic: &[u8]| head.get(from..).is_some_and(|h| h.starts_with(magic));
    if at(512, b"PM") || at(0, b"ER") && at(512, b"TS") {
        table
            .remarks
            .push("an Apple partition map, which is not read here".into());
    }
    if at(512, &[0x57, 0x45, 0x56, 0x82]) || at(64, &[0x57, 0x45, 0x56, 0x82]) {
        table
            .remarks
            .push("a BSD disk label, which is not read here".into());
    }
}
