//! The two headers and the two region tables. Of each pair one may be torn: a writer
//! updates them in turn.

use crate::guid::Guid;
use disk_io::{Disk, DiskError, Fields, Finding, Result, finding::Visit};

const BAT: Guid = Guid::new(0x2dc27766_f623_4200_9d64_115e9bfd4a08);
const METADATA: Guid = Guid::new(0x8b7ca206_4790_4b9a_b8fe_575f050f886e);
const MIB: u64 = 1 << 20;

/// The current header.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) sequence_number: u64,
    /// Changes whenever what a guest sees changes: how a child knows its parent.
    pub(super) data_write_guid: Guid,
    pub(super) log_guid: Guid,
    pub(super) log_length: u32,
    pub(super) log_offset: u64,
}

/// A range of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl Region {
    fn end(self) -> u64 {
        self.offset.saturating_add(self.len)
    }
}

/// Where everything else is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Regions {
    pub(super) bat: Region,
    pub(super) metadata: Region,
}

impl Header {
    /// The valid header with the greater sequence number.
    pub(super) fn read(disk: &dyn Disk) -> Result<Self> {
        let both = [Self::at(disk, 64 << 10), Self::at(disk, 128 << 10)];
        let [first, second] = both;
        let header = match (first, second) {
            (Ok(a), Ok(b)) if b.sequence_number > a.sequence_number => b,
            (Ok(a), _) => a,
            (Err(_), Ok(b)) => b,
            (Err(e), Err(_)) => return Err(e.context("neither header is valid")),
        };
        Ok(header)
    }

    /// What is wrong with one of the headers where the other is used: a writer that was stopped
    /// leaves one torn, and then the other is the current one. Where the damage came later it may
    /// be of another time.
    pub(super) fn damage(disk: &dyn Disk) -> Option<DiskError> {
        [64 << 10, 128 << 10].into_iter().find_map(|at| {
            let mut start = [0; 4];
            disk.read_exact_at(&mut start, at).ok()?;
            // Some writers make one only.
            (start != [0; 4]).then(|| Self::at(disk, at).err())?
        })
    }

    /// Visits what is wrong with the two headers.
    pub(super) fn check(disk: &dyn Disk, name: &str, visit: Visit<'_>) {
        let both = [Self::at(disk, 64 << 10), Self::at(disk, 128 << 10)];
        for e in both.iter().filter_map(|h| h.as_ref().err()) {
            // A writer that was stopped leaves one torn; a new file may have only one.
            visit(Finding::warning("header-damaged", e.clone().file(name)));
        }
    }

    fn at(disk: &dyn Disk, at: u64) -> Result<Self> {
        let bytes = checked(disk, at, 4096, b"head", "VHDX header")?;
        let f = Fields::new(&bytes, at, "VHDX header");
        let version = f.u16_le(66)?;
        if version != 1 {
            return Err(DiskError::unsupported("opening the VHDX")
                .offset(f.place(66))
                .expected("version 1")
                .found(version.to_string()));
        }
        let header = Self {
            sequence_number: f.u64_le(8)?,
            data_write_guid: Guid::read(&f, 32)?,
            log_guid: Guid::read(&f, 48)?,
            log_length: f.u32_le(68)?,
            log_offset: f.u64_le(72)?,
        };
        if header.log_guid != Guid::ZERO && f.u16_le(64)? != 0 {
            return Err(DiskError::unsupported("opening the VHDX")
                .offset(f.place(64))
                .expected("a log of version 0")
                .found(f.u16_le(64)?.to_string()));
        }
        Ok(header)
    }
}

impl Regions {
    /// The first valid table of the two; both hold the same.
    pub(super) fn read(disk: &dyn Disk) -> Result<Self> {
        let first = match checked(disk, 192 << 10, 64 << 10, b"regi", "region table") {
            Ok(bytes) => return Self::parse(&bytes, 192 << 10),
            Err(e) => e,
        };
        match checked(disk, 256 << 10, 64 << 10, b"regi", "region table") {
            Ok(bytes) => Self::parse(&bytes, 256 << 10),
            Err(_) => Err(first.context("neither region table is valid")),
        }
    }

    /// Visits what is wrong with the two tables.
    pub(super) fn check(disk: &dyn Disk, name: &str, visit: Visit<'_>) {
        let table = |at| checked(disk, at, 64 << 10, b"regi", "region table");
        match (table(192 << 10), table(256 << 10)) {
            (Ok(a), Ok(b)) if a != b => {
                let e = DiskError::corrupt("comparing the two region tables")
                    .file(name)
                    .offset(256 << 10)
                    .expected("the table at 192 KiB again")
                    .found("another");
                visit(Finding::warning("region-tables-differ", e));
            }
            (Ok(_), Ok(_)) => {}
            (a, b) => {
                for e in [a.err(), b.err()].into_iter().flatten() {
                    visit(Finding::warning("region-table-damaged", e.file(name)));
                }
            }
        }
    }

    fn parse(bytes: &[u8], at: u64) -> Result<Self> {
        let f = Fields::new(bytes, at, "region table");
        let count = f.u32_le(8)?;
        if count > 2047 {
            return Err(f
                .corrupt(8, "Entry Count")
                .expected("at most 2047")
                .found(count.to_string()));
        }
        let (mut bat, mut metadata) = (None, None);
        let mut all: Vec<Region> = Vec::new();
        for n in 0..usize::try_from(count).unwrap_or(0) {
            let e = f.sub(
                16usize.saturating_add(n.saturating_mul(32)),
                32,
                "region table entry",
            )?;
            let id = Guid::read(&e, 0)?;
            let region = Region {
                offset: e.u64_le(16)?,
                len: u64::from(e.u32_le(24)?),
            };
            let aligned = region.offset >= MIB
                && region.offset.is_multiple_of(MIB)
                && region.len.is_multiple_of(MIB)
                && region.len > 0;
            let apart =
                |other: &Region| region.offset >= other.end() || other.offset >= region.end();
            if !aligned || !all.iter().all(apart) {
                return Err(e
                    .corrupt(16, "FileOffset and Length")
                    .expected("whole MiBs after the first one, apart from other regions")
                    .found(format!("{} bytes at {}", region.len, region.offset)));
            }
            all.push(region);
            let slot = match id {
                BAT => &mut bat,
                METADATA => &mut metadata,
                _ if e.u32_le(28)? & 1 == 0 => continue,
                other => {
                    return Err(DiskError::unsupported("opening the VHDX")
                        .offset(e.place(0))
                        .found(format!("an unknown region that is required: {other}")));
                }
            };
            if slot.replace(region).is_some() {
                return Err(e
                    .corrupt(0, "the region table")
                    .found("a region named twice"));
            }
        }
        let missing = |what: &str| {
            DiskError::corrupt("reading the region table")
                .offset(at)
                .expected(format!("a {what} region"))
        };
        Ok(Self {
            bat: bat.ok_or_else(|| missing("block allocation table"))?,
            metadata: metadata.ok_or_else(|| missing("metadata"))?,
        })
    }
}

/// Reads a structure that begins with a signature and a CRC-32C of itself.
pub(super) fn checked(
    disk: &dyn Disk,
    at: u64,
    len: usize,
    signature: &[u8; 4],
    what: &str,
) -> Result<Vec<u8>> {
    let fail = || DiskError::corrupt(format!("reading the {what}")).offset(at);
    if at.saturating_add(len as u64) > disk.len() {
        return Err(fail()
            .expected(format!("{len} bytes"))
            .found(format!("the end of the file at {}", disk.len())));
    }
    let mut bytes = vec![0; len];
    disk.read_exact_at(&mut bytes, at)?;
    check_crc(&bytes, signature, fail)?;
    Ok(bytes)
}

/// Checks the signature and the CRC-32C at offset 4, which counts as zero.
pub(super) fn check_crc(
    bytes: &[u8],
    signature: &[u8; 4],
    fail: impl Fn() -> DiskError,
) -> Result<()> {
    let (Some(start), Some(stored), Some(rest)) = (bytes.get(..4), bytes.get(4..8), bytes.get(8..))
    else {
        return Err(fail());
    };
    if start != signature {
        return Err(fail()
            .expected(format!("\"{}\"", String::from_utf8_lossy(signature)))
            .found("something else"));
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(start), &[0; 4]), rest);
    if stored != crc.to_le_bytes() {
        let stored = Fields::new(stored, 0, "checksum").u32_le(0)?;
        return Err(fail()
            .expected(format!("the CRC-32C {crc:#010x}"))
            .found(format!("{stored:#010x}")));
    }
    Ok(())
}
