//! The header of a hosted sparse extent, and its second copy, the footer.

use disk_io::{Disk, DiskError, Fields, Result};

/// Bytes of the header.
pub const HEADER_LEN: usize = 512;
/// In `gd_offset`: the directory's place is in the footer.
pub const GD_AT_END: u64 = u64::MAX;

/// Bits of `flags` (fact sheet, VMDK 5.3).
pub mod flags {
    /// The four end-of-line bytes are set.
    pub const VALID_NEWLINE_TEST: u32 = 1;
    /// There is a second copy of directory and tables.
    pub const REDUNDANT: u32 = 1 << 1;
    /// A table entry of 1 means a grain of zeros.
    pub const ZEROED_GRAINS: u32 = 1 << 2;
    /// Grains are compressed.
    pub const COMPRESSED: u32 = 1 << 16;
    /// Grains and metadata have markers in front.
    pub const MARKERS: u32 = 1 << 17;
}

/// The sparse extent header (fact sheet, VMDK 5.1). Places and lengths are in sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// 1, 2 or 3.
    pub version: u32,
    /// See [`flags`].
    pub flags: u32,
    /// Length of the extent.
    pub capacity: u64,
    /// Length of a grain.
    pub grain_size: u64,
    /// Where the embedded descriptor is; 0 if there is none.
    pub descriptor_offset: u64,
    /// Its length.
    pub descriptor_size: u64,
    /// Entries of a grain table.
    pub num_gtes_per_gt: u32,
    /// The redundant grain directory.
    pub rgd_offset: u64,
    /// The grain directory, or [`GD_AT_END`].
    pub gd_offset: u64,
    /// Where the first grain may begin.
    pub over_head: u64,
    /// Set while the extent is open for writing.
    pub unclean_shutdown: bool,
    /// 0 for none, 1 for deflate.
    pub compress_algorithm: u16,
    /// The bytes that an ASCII-mode transfer would have changed.
    pub newline_test: [u8; 4],
}

/// What [`Header::newline_test`] must be.
pub const NEWLINE_TEST: [u8; 4] = [b'\n', b' ', b'\r', b'\n'];

impl Header {
    /// Reads and checks the header at the beginning of `disk`. `name` is for messages.
    pub fn read(disk: &dyn Disk, name: &str) -> Result<Self> {
        let mut bytes = [0; HEADER_LEN];
        disk.read_exact_at(&mut bytes, 0).map_err(|e| {
            if disk.len() < HEADER_LEN as u64 {
                DiskError::corrupt("reading the sparse extent header")
                    .file(name)
                    .expected("512 bytes")
                    .found(format!("a file of {}", disk.len()))
            } else {
                e
            }
        })?;
        let header = Self::parse(&bytes, 0).map_err(|e| e.file(name))?;
        header.check().map_err(|e| e.file(name))?;
        Ok(header)
    }

    /// Takes the bytes apart; `base` is their offset in the file. Checks the magic only.
    pub fn parse(bytes: &[u8], base: u64) -> Result<Self> {
        let f = Fields::new(bytes, base, "sparse extent header");
        if f.bytes(0, 4)? != b"KDMV" {
            return Err(f.corrupt(0, "magicNumber").expected("KDMV"));
        }
        let mut newline_test = [0; 4];
        newline_test.copy_from_slice(f.bytes(73, 4)?);
        Ok(Self {
            version: f.u32_le(4)?,
            flags: f.u32_le(8)?,
            capacity: f.u64_le(12)?,
            grain_size: f.u64_le(20)?,
            descriptor_offset: f.u64_le(28)?,
            descriptor_size: f.u64_le(36)?,
            num_gtes_per_gt: f.u32_le(44)?,
            rgd_offset: f.u64_le(48)?,
            gd_offset: f.u64_le(56)?,
            over_head: f.u64_le(64)?,
            unclean_shutdown: f.u8(72)? != 0,
            newline_test,
            compress_algorithm: f.u16_le(77)?,
        })
    }

    /// Whether grains are compressed.
    pub fn compressed(&self) -> bool {
        self.has(flags::COMPRESSED)
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Checks what can be checked without looking at the rest of the file.
    ///
    /// # Errors
    /// `Unsupported` for versions and features that are not read, `Corrupt` for what no
    /// writer makes.
    pub fn check(&self) -> Result<()> {
        let corrupt = |at: u64, field: &str| {
            DiskError::corrupt(format!("reading {field} of the sparse extent header")).offset(at)
        };
        let unsupported = |at: u64, what: &str| DiskError::unsupported(what).offset(at);
        if !(1..=3).contains(&self.version) {
            return Err(unsupported(4, "opening a hosted sparse extent")
                .expected("header version 1, 2 or 3")
                .found(format!("version {}", self.version)));
        }
        // The high half holds what a reader must understand (fact sheet, VMDK 5.3).
        let unknown = self.flags & 0xffff_0000 & !(flags::COMPRESSED | flags::MARKERS);
        if unknown != 0 {
            return Err(unsupported(8, "opening a hosted sparse extent")
                .expected("no incompatible flag but 0x10000 and 0x20000")
                .found(format!("{unknown:#x}")));
        }
        // Only where the writer says that it set them. All zero is a writer that did not.
        if self.has(flags::VALID_NEWLINE_TEST)
            && self.newline_test != NEWLINE_TEST
            && self.newline_test != [0; 4]
        {
            return Err(corrupt(73, "the end-of-line bytes")
                .expected("0a 20 0d 0a")
                .found(format!("{:02x?}", self.newline_test))
                .hint("the file seems to have been transferred in text mode"));
        }
        self.check_compression()?;
        // Capacity 0 is a file that only carries a descriptor: no tables to check.
        if self.capacity == 0 {
            return Ok(());
        }
        let most_grain = if self.compressed() { 1 << 14 } else { 1 << 21 };
        if !self.grain_size.is_power_of_two() || self.grain_size > most_grain {
            return Err(corrupt(20, "grainSize")
                .expected(format!("a power of two up to {most_grain} sectors"))
                .found(self.grain_size.to_string()));
        }
        if !self.num_gtes_per_gt.is_power_of_two() || self.num_gtes_per_gt > 65_536 {
            return Err(corrupt(44, "numGTEsPerGT")
                .expected("a power of two up to 65536")
                .found(self.num_gtes_per_gt.to_string()));
        }
        if crate::bytes(self.capacity).is_none() {
            return Err(corrupt(12, "capacity")
                .expected("less than 2^63 bytes")
                .found(format!("{} sectors", self.capacity)));
        }
        Ok(())
    }

    /// The combinations of the two flags and the algorithm on which readers disagree (fact
    /// sheet, VMDK 13.5): each of them would give wrong bytes to someone.
    fn check_compression(&self) -> Result<()> {
        let doing = "opening a hosted sparse extent";
        let markers = self.has(flags::MARKERS);
        match (self.compressed(), markers, self.compress_algorithm) {
            (false, false, 0) | (true, true, 1) => Ok(()),
            (_, _, 2..) => Err(DiskError::unsupported(doing)
                .offset(77)
                .expected("compressAlgorithm 0 or 1")
                .found(self.compress_algorithm.to_string())),
            (false, false, _) => Err(DiskError::corrupt(doing)
                .offset(77)
                .expected("flag 0x10000, since compressAlgorithm is 1")
                .found(format!("flags {:#x}", self.flags))),
            (false, true, _) => Err(DiskError::corrupt(doing)
                .offset(8)
                .expected("flag 0x10000 together with 0x20000")
                .found(format!(
                    "flags {:#x}: markers without compression",
                    self.flags
                ))),
            (true, false, _) => Err(DiskError::unsupported(doing)
                .offset(8)
                .expected("flag 0x20000 together with 0x10000")
                .found(format!(
                    "flags {:#x}: compressed grains without markers",
                    self.flags
                ))),
            (true, true, _) => Err(DiskError::corrupt(doing)
                .offset(77)
                .expected("compressAlgorithm 1, since grains are compressed")
                .found("0")),
        }
    }

    /// Number of grain tables.
    pub fn tables(&self) -> u64 {
        let covered = self
            .grain_size
            .saturating_mul(u64::from(self.num_gtes_per_gt));
        self.capacity.div_ceil(covered.max(1))
    }

    /// The capacity rounded up to whole grains: what the tables can address.
    pub fn addressable(&self) -> u64 {
        self.capacity
            .checked_next_multiple_of(self.grain_size.max(1))
            .unwrap_or(self.capacity)
    }
}
