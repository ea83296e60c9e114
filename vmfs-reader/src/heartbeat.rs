//! Heartbeats (fact sheet, VMFS 4): the hosts that had the volume mounted.

use crate::{Uuid, superblock::Geometry};
use disk_io::{Disk, DiskError, Fields, Result};

const OFFSET: u64 = 0x30_0000;
const FREE: u32 = 0xABCD_EF01;
const IN_USE: u32 = 0xABCD_EF02;

/// A slot in use: a host had the volume mounted when it was saved, or lost it without
/// letting go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Number of the slot.
    pub slot: u32,
    /// Where it lies on the volume, in bytes.
    pub place: u64,
    /// Counts the uses of the slot.
    pub generation: u64,
    /// Time since the host was started, in microseconds.
    pub uptime_us: u64,
    /// The host.
    pub host: Uuid,
    /// Its address, as it stored it.
    pub address: String,
    /// Address of its journal block.
    pub journal: u32,
    /// Version of its driver, such as `14.81`.
    pub driver: String,
}

/// A slot that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedSlot {
    /// Where it lies on the volume, in bytes.
    pub place: u64,
    /// What is wrong, a sentence.
    pub text: String,
}

/// The slots in use, and damaged ones.
pub(crate) type Found = (Vec<Heartbeat>, Vec<DamagedSlot>);

/// Reads every slot.
pub(crate) fn read(disk: &dyn Disk, g: &Geometry) -> Result<Found> {
    let count = g.heartbeats as usize;
    let len = count.saturating_mul(g.align);
    if OFFSET.saturating_add(len as u64) > disk.len() {
        return Err(DiskError::corrupt("reading the heartbeats")
            .offset(OFFSET)
            .expected(format!("{len} bytes"))
            .found(format!("a volume of {} bytes", disk.len())));
    }
    let mut bytes = vec![0; len];
    disk.read_exact_at(&mut bytes, OFFSET)?;
    let mut found = Vec::new();
    let mut damage = Vec::new();
    for (slot, block) in (0u32..).zip(bytes.chunks(g.align)) {
        let place = OFFSET.saturating_add(u64::from(slot).saturating_mul(g.align as u64));
        let f = Fields::new(block, place, "heartbeat");
        match f.u32_le(0)? {
            FREE | 0 => {}
            IN_USE if f.u64_le(4)? == place => found.push(one(&f, slot, place)?),
            state => damage.push(DamagedSlot {
                place,
                text: format!(
                    "heartbeat {slot} is damaged (state {state:#x}, place {:#x})",
                    f.u64_le(4)?
                ),
            }),
        }
    }
    Ok((found, damage))
}

fn one(f: &Fields<'_>, slot: u32, place: u64) -> Result<Heartbeat> {
    let text = f.bytes(0x36, 46)?;
    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
    Ok::<_, DiskError>(Heartbeat {
        slot,
        place,
        generation: f.u64_le(0xC)?,
        uptime_us: f.u64_le(0x14)?,
        host: Uuid::from_slice(f.bytes(0x1C, 16)?).unwrap_or_default(),
        address: String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned(),
        journal: f.u32_le(0x2C)?,
        driver: format!("{}.{}", f.u32_le(0x30)?, f.u8(0x34)?),
    })
}
