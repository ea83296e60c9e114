//! The logical volume manager below VMFS (fact sheet, VMFS 1).
//!
//! A volume lies on one to 32 devices, each of which carries a header, its entry of the
//! volume, and a table that says where each physical extent (PE) of the volume lies on it.

mod device;
mod set;
mod table;
mod volume;

pub use device::{Device, DeviceHeader, VolumeEntry};
pub use set::{VolumeSet, group};
pub use volume::LogicalVolume;

pub(crate) use device::MAGIC;

/// A physical extent of LVM 3 to 5, and the unit in which ranges are counted: 256 MiB.
pub const UNIT: u64 = 256 << 20;
