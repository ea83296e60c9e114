//! Lock blocks (fact sheet, VMFS 5): the first block of every descriptor and cluster.

use crate::Uuid;
use disk_io::{DiskError, Fields, Result};

/// Who holds a file, as its lock block says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// How it is held: 0 not at all; by what is known 1 exclusively, 2 for reading, 3 by
    /// several writers.
    pub mode: u32,
    /// The host that holds it; nil if none.
    pub owner: Uuid,
    /// Where the owner's heartbeat lies on the volume, in bytes.
    pub heartbeat: u64,
    /// Generation of that heartbeat when the lock was taken.
    pub generation: u64,
    /// Hosts that hold it together, for modes with several.
    pub holders: Vec<Holder>,
}

/// One of several hosts that hold a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The host.
    pub owner: Uuid,
    /// Where its heartbeat lies on the volume, in bytes.
    pub heartbeat: u64,
    /// Generation of that heartbeat.
    pub generation: u64,
}

impl Lock {
    /// Takes a lock block apart, and checks that it is one and lies where it says.
    pub(crate) fn read(f: &Fields<'_>, magic: u32) -> Result<Self> {
        let found = f.u32_le(0)?;
        if found != magic {
            return Err(f
                .corrupt(0, "the lock block")
                .expected(format!("{magic:#x}"))
                .found(format!("{found:#x}")));
        }
        let own = f.u64_le(4)?;
        if own != f.place(0) {
            return Err(f
                .corrupt(4, "its own place")
                .expected(f.place(0).to_string())
                .found(own.to_string()));
        }
        let uuid = |at| Ok::<_, DiskError>(Uuid::from_slice(f.bytes(at, 16)?).unwrap_or_default());
        let count = f.u32_le(0x40)?.min(8) as usize;
        let holders = (0..count)
            .map(|i| {
                let at = i.saturating_mul(32).saturating_add(0x44);
                Ok(Holder {
                    heartbeat: f.u64_le(at)?,
                    generation: f.u64_le(at.saturating_add(8))?,
                    owner: uuid(at.saturating_add(16))?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            mode: f.u32_le(0x24)?,
            owner: uuid(0x28)?,
            heartbeat: f.u64_le(0xC)?,
            generation: f.u64_le(0x14)?,
            holders,
        })
    }

    /// Whether anyone holds the file.
    pub fn is_held(&self) -> bool {
        self.mode != 0
    }
}
