//! The superblock, and the geometry that follows from it (fact sheet, VMFS 2, 3, 8).

use crate::Uuid;
use disk_io::{Disk, DiskError, Fields, Result};

/// Where it lies in the volume.
pub(crate) const OFFSET: u64 = 0x20_0000;
/// VMFS, in every version from 3 on.
pub(crate) const MAGIC: u32 = 0x2FAB_F15E;
/// VMFS-L, of a host's own boot device.
pub(crate) const MAGIC_LOCAL: u32 = 0x2FAB_F15F;
/// Named by VMware's own code and never seen on a disk: VMFS-6 and VMFS-6-L.
const MAGIC_6: u32 = 0x2FAB_F160;
const MAGIC_6_LOCAL: u32 = 0x2FAB_F161;

/// Whether a superblock begins with this.
pub(crate) fn is_magic(magic: u32) -> bool {
    matches!(magic, MAGIC | MAGIC_LOCAL | MAGIC_6 | MAGIC_6_LOCAL)
}

/// What the superblock says.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// VMFS-L: local to one host.
    pub local: bool,
    /// Raw major version: 4 is VMFS-3, 14 VMFS-5, 24 VMFS-6.
    pub major: u32,
    /// Minor version.
    pub minor: u8,
    /// The identifier under `/vmfs/volumes`.
    pub uuid: Uuid,
    /// Configuration flags.
    pub config: u32,
    /// Label.
    pub label: String,
    /// Block size of the device in bytes.
    pub device_block: u32,
    /// File block size in bytes.
    pub block_size: u64,
    /// When the volume was made, in seconds since 1970.
    pub created: u32,
    /// Snapshot number, as the LVM entry had it.
    pub snapshot: u32,
    /// Identifier of the LVM volume; nil if the file system lies on a bare partition.
    pub lvm_uuid: Uuid,
    /// Snapshot number of that volume.
    pub lvm_snapshot: u32,
    /// Where the descriptor file's first cluster group begins in it, in bytes.
    pub(crate) fdc_group: u32,
    /// Clusters in a group of the descriptor file.
    pub(crate) fdc_clusters: u32,
    /// Sub-block size in bytes.
    pub sub_block: u32,
    /// Where the descriptor of `.pb2.sf` lies, in bytes of the volume.
    pub(crate) pb2: u64,
    /// Where the descriptor of `.sdd.sf` lies.
    pub(crate) sdd: u64,
    /// The host that made the volume.
    pub host: Uuid,
    /// Kind of metadata checksums; 0 is none.
    pub checksums: u8,
    /// Alignment of metadata in bytes: 512 before VMFS-6.
    pub alignment: u32,
    /// Physical sector size in bytes where recorded, else 0.
    pub sector: u32,
}

/// Which of the two layouts of metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// VMFS-3 and VMFS-5: 32-bit addresses, 512-byte metadata.
    Five,
    /// VMFS-6: 64-bit addresses, 4-KiB metadata.
    Six,
}

/// Sizes and places that follow from the superblock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) layout: Layout,
    /// Sub-block addresses use two more bits for the item.
    pub(crate) dense: bool,
    pub(crate) align: usize,
    pub(crate) block_size: u64,
    /// A file descriptor, with its lock block.
    pub(crate) descriptor: usize,
    pub(crate) resident_at: usize,
    pub(crate) resident_len: usize,
    pub(crate) pointers_at: usize,
    pub(crate) pointers: usize,
    /// A pointer: 4 or 8 bytes.
    pub(crate) pointer: usize,
    /// Pointers in a pointer block.
    pub(crate) per_block: u64,
    /// The header of a resource cluster.
    pub(crate) cluster_header: u64,
    /// VMFS-6: small file blocks in a cluster, which is one large file block.
    pub(crate) per_cluster: u64,
    pub(crate) fdc_start: u64,
    pub(crate) heartbeats: u32,
}

/// Large file blocks of VMFS-6: 512 small ones (fact sheet, VMFS 7).
pub(crate) const LARGE_SHIFT: u32 = 9;

impl Superblock {
    /// Reads it from a volume; `None` if there is none.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Self>> {
        let mut block = [0u8; 512];
        if disk.len() < OFFSET.saturating_add(512) {
            return Ok(None);
        }
        disk.read_exact_at(&mut block, OFFSET)?;
        let f = Fields::new(&block, OFFSET, "VMFS superblock");
        let magic = f.u32_le(0)?;
        if !is_magic(magic) {
            return Ok(None);
        }
        let uuid = |at| Ok::<_, DiskError>(Uuid::from_slice(f.bytes(at, 16)?).unwrap_or_default());
        let label = f.bytes(0x1D, 128)?;
        let end = label.iter().position(|b| *b == 0).unwrap_or(label.len());
        let sb = Self {
            local: matches!(magic, MAGIC_LOCAL | MAGIC_6_LOCAL),
            major: f.u32_le(4)?,
            minor: f.u8(8)?,
            uuid: uuid(9)?,
            config: f.u32_le(0x19)?,
            label: String::from_utf8_lossy(label.get(..end).unwrap_or_default()).into_owned(),
            device_block: f.u32_le(0x9D)?,
            block_size: f.u64_le(0xA1)?,
            created: f.u32_le(0xA9)?,
            snapshot: f.u32_le(0xAD)?,
            lvm_uuid: uuid(0xB1)?,
            lvm_snapshot: f.u32_le(0xC1)?,
            fdc_group: f.u32_le(0xD1)?,
            fdc_clusters: f.u32_le(0xD5)?,
            sub_block: f.u32_le(0xD9)?,
            pb2: f.u64_le(0xE1)?,
            host: uuid(0xED)?,
            sdd: f.u64_le(0x105)?,
            checksums: f.u8(0x111)?,
            sector: f.u32_le(0x130)?,
            alignment: match f.u32_le(0x134)? {
                0 => 512,
                n => n,
            },
        };
        sb.check(&f)?;
        Ok(Some(sb))
    }

    fn check(&self, f: &Fields<'_>) -> Result<()> {
        if self.major < 4 {
            return Err(DiskError::unsupported("opening a VMFS volume")
                .offset(f.place(4))
                .expected("VMFS-3, 5 or 6")
                .found(format!("major version {}: VMFS-1 or VMFS-2", self.major)));
        }
        if self.major >= 34 {
            return Err(DiskError::unsupported("opening a VMFS volume")
                .offset(f.place(4))
                .expected("VMFS-3, 5 or 6")
                .found(format!("major version {}", self.major)));
        }
        let size = |at, field, value: u64, low: u64, high: u64| {
            if value.is_power_of_two() && (low..=high).contains(&value) {
                return Ok(());
            }
            Err(f
                .corrupt(at, field)
                .expected(format!("a power of two from {low} to {high}"))
                .found(value.to_string()))
        };
        size(
            0xA1,
            "the file block size",
            self.block_size,
            1 << 16,
            1 << 26,
        )?;
        size(
            0xD9,
            "the sub-block size",
            self.sub_block.into(),
            512,
            1 << 20,
        )?;
        let align = u64::from(self.alignment);
        match self.layout() {
            Layout::Five => size(0x134, "the metadata alignment", align, 512, 512)?,
            Layout::Six => size(0x134, "the metadata alignment", align, 4096, 1 << 16)?,
        }
        if self.fdc_clusters == 0 || self.fdc_clusters > 1 << 16 {
            return Err(f
                .corrupt(0xD5, "the clusters in a group of descriptors")
                .found(self.fdc_clusters.to_string()));
        }
        Ok(())
    }

    pub(crate) fn layout(&self) -> Layout {
        if self.major >= 24 {
            Layout::Six
        } else {
            Layout::Five
        }
    }

    /// VMFS generation: 3, 5 or 6.
    pub fn generation(&self) -> u32 {
        match self.major {
            24.. => 6,
            14.. => 5,
            _ => 3,
        }
    }

    /// The version as VMware writes it, such as `5.81`.
    pub fn version(&self) -> String {
        format!("{}.{}", self.generation(), self.minor)
    }

    /// What a user should know, a sentence each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut out = Vec::new();
        if !matches!(self.major, 4 | 14 | 24) {
            out.push(format!(
                "file system version {}.{} is not one that was tested (4, 14 or 24)",
                self.major, self.minor
            ));
        }
        if self.checksums != 0 {
            out.push(format!(
                "metadata checksums of kind {} are not verified",
                self.checksums
            ));
        }
        if self.layout() == Layout::Six && self.alignment != 4096 {
            out.push(format!(
                "a metadata alignment of {} is not one that was tested",
                self.alignment
            ));
        }
        out
    }

    pub(crate) fn geometry(&self) -> Geometry {
        let align = self.alignment as usize;
        let wide = u64::from(self.alignment);
        let block_size = self.block_size;
        match self.layout() {
            Layout::Five => Geometry {
                layout: Layout::Five,
                dense: self.config & 4 != 0,
                align,
                block_size,
                descriptor: 2048,
                resident_at: 0x400,
                resident_len: 1024,
                pointers_at: 0x400,
                pointers: 256,
                pointer: 4,
                per_block: 1024,
                cluster_header: 1024,
                per_cluster: 0,
                // 4 MiB rounded up to file blocks.
                fdc_start: (4u64 << 20).max(block_size),
                heartbeats: 2048,
            },
            Layout::Six => {
                let whole = align.saturating_mul(2);
                let pointers_len = if align == 4096 { 2560 } else { align / 2 };
                Geometry {
                    layout: Layout::Six,
                    dense: self.config & 4 != 0,
                    align,
                    block_size,
                    descriptor: whole,
                    resident_at: align.saturating_add(512),
                    resident_len: align.saturating_sub(512),
                    pointers_at: whole.saturating_sub(pointers_len),
                    pointers: pointers_len / 8,
                    pointer: 8,
                    per_block: 8192,
                    cluster_header: wide.saturating_mul(2),
                    per_cluster: (512u64 << 20)
                        .checked_div(block_size)
                        .unwrap_or(0)
                        .clamp(1, 8192),
                    fdc_start: (wide.saturating_mul(1024).saturating_add((4 << 20) - 1))
                        & !0xF_FFFF,
                    heartbeats: 1024,
                }
            }
        }
    }
}
