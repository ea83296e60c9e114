//! The boot sector: sizes of everything, and where the $MFT begins.

use disk_io::{Disk, DiskError, Fields, Result};

/// What the boot sector says, validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boot {
    /// Bytes in a sector: 256 to 4096.
    pub(crate) sector_size: u32,
    /// Bytes in a cluster: 512 to 2 MiB, a power of two.
    pub(crate) cluster_size: u32,
    /// Sectors of the file system, without the backup boot sector behind it.
    pub(crate) total_sectors: u64,
    /// First cluster of the $MFT.
    pub(crate) mft_lcn: u64,
    /// First cluster of the $MFTMirr.
    pub(crate) mirror_lcn: u64,
    /// Bytes in a file record.
    pub(crate) record_size: u32,
    /// Bytes in an index block.
    pub(crate) index_size: u32,
    /// Volume serial number.
    pub(crate) serial: u64,
}

/// Bytes of the boot sector that mean something.
pub(crate) const LEN: usize = 512;
/// The largest cluster Windows makes.
const MAX_CLUSTER: u64 = 2 << 20;
/// The largest record we believe; Windows makes 1024 and 4096.
const MAX_RECORD: u64 = 64 << 10;

impl Boot {
    /// Parses and validates the 512 bytes found at `base`.
    pub(crate) fn parse(bytes: &[u8], base: u64) -> Result<Self> {
        let f = Fields::new(bytes, base, "NTFS boot sector");
        match f.bytes(3, 8)? {
            b"NTFS    " => {}
            b"-FVE-FS-" => {
                return Err(DiskError::unsupported("opening an NTFS volume")
                    .offset(base)
                    .found("a BitLocker volume: encrypted"));
            }
            other => {
                return Err(f
                    .corrupt(3, "the OEM id")
                    .expected("\"NTFS    \"")
                    .found(format!("{:?}", String::from_utf8_lossy(other))));
            }
        }
        let sector_size = u32::from(f.u16_le(11)?);
        if !sector_size.is_power_of_two() || !(256..=4096).contains(&sector_size) {
            return Err(f
                .corrupt(11, "bytes per sector")
                .expected("a power of two from 256 to 4096")
                .found(sector_size.to_string()));
        }
        let raw = f.u8(13)?;
        // Beyond 128 sectors the byte is the negated exponent of two.
        let sectors = match raw {
            0 => 0,
            1..=0x80 => u64::from(raw),
            _ => 1u64.checked_shl(u32::from(raw.wrapping_neg())).unwrap_or(0),
        };
        let cluster = u64::from(sector_size).saturating_mul(sectors);
        if !sectors.is_power_of_two() || !(256..=MAX_CLUSTER).contains(&cluster) {
            return Err(f
                .corrupt(13, "sectors per cluster")
                .expected("a cluster of 512 bytes to 2 MiB")
                .found(format!("{raw:#04x}")));
        }
        let total_sectors = f.u64_le(40)?;
        if total_sectors == 0 || total_sectors.checked_mul(u64::from(sector_size)).is_none() {
            return Err(f
                .corrupt(40, "total sectors")
                .found(total_sectors.to_string()));
        }
        let clusters = total_sectors.checked_div(sectors).unwrap_or(0);
        let lcn = |at, field| {
            let lcn = f.u64_le(at)?;
            if lcn < clusters {
                Ok(lcn)
            } else {
                Err(f
                    .corrupt(at, field)
                    .expected(format!("a cluster below {clusters}"))
                    .found(lcn.to_string()))
            }
        };
        let mft_lcn = lcn(48, "the first cluster of the $MFT")?;
        // A bad mirror is no reason to refuse a good volume.
        let mirror_lcn = f.u64_le(56)?;
        let size = |at, field| {
            let raw = f.u8(at)?.cast_signed();
            let size = if raw < 0 {
                1u64.checked_shl(u32::from(raw.unsigned_abs())).unwrap_or(0)
            } else {
                u64::from(raw.unsigned_abs()).saturating_mul(cluster)
            };
            if size.is_power_of_two() && (512..=MAX_RECORD).contains(&size) {
                Ok(size as u32)
            } else {
                Err(f
                    .corrupt(at, field)
                    .expected("a power of two from 512 to 65536")
                    .found(format!("{size} ({raw})")))
            }
        };
        Ok(Self {
            sector_size,
            cluster_size: cluster as u32,
            total_sectors,
            mft_lcn,
            mirror_lcn,
            record_size: size(64, "the file record size")?,
            index_size: size(68, "the index block size")?,
            serial: f.u64_le(72)?,
        })
    }

    /// Reads the boot sector, or the backup in the last sector where the first is bad: then
    /// with a sentence that says so.
    pub(crate) fn read(disk: &dyn Disk) -> Result<(Self, Option<String>)> {
        let first = Self::read_at(disk, 0);
        let error = match first {
            Ok(boot) => return Ok((boot, None)),
            Err(e) => e,
        };
        if error.kind() == disk_io::ErrorKind::Unsupported {
            return Err(error);
        }
        for sector in [512, 4096, 2048, 1024] {
            let Some(at) = disk.len().checked_sub(sector) else {
                continue;
            };
            if let Ok(boot) = Self::read_at(disk, at)
                && (u64::from(boot.sector_size) == sector)
            {
                return Ok((
                    boot,
                    Some(format!(
                        "the boot sector is damaged ({error}); the backup in the last sector was used"
                    )),
                ));
            }
        }
        Err(error.context("opening an NTFS volume"))
    }

    fn read_at(disk: &dyn Disk, at: u64) -> Result<Self> {
        let mut bytes = [0; LEN];
        disk.read_exact_at(&mut bytes, at)?;
        Self::parse(&bytes, at)
    }

    /// Size of the file system in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.total_sectors
            .saturating_mul(u64::from(self.sector_size))
    }

    /// Number of whole clusters.
    pub(crate) fn clusters(&self) -> u64 {
        self.size()
            .checked_div(u64::from(self.cluster_size))
            .unwrap_or(0)
    }

    /// Cluster size as `u64`.
    pub(crate) fn cluster(&self) -> u64 {
        u64::from(self.cluster_size)
    }

    /// Byte offset of a cluster.
    pub(crate) fn offset_of(&self, lcn: u64) -> Option<u64> {
        lcn.checked_mul(self.cluster())
    }

    /// What a VCN of an index block of `block` bytes counts: clusters, or 512 bytes where
    /// a cluster is larger than the block.
    pub(crate) fn index_unit(&self, block: u32) -> u64 {
        if self.cluster_size <= block {
            self.cluster()
        } else {
            512
        }
    }
}
