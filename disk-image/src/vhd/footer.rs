//! The footer that makes a file a VHD, and the header of its sparse kinds.

use disk_io::{Disk, DiskError, Fields, Finding, Result, finding::Visit};

/// Length of the footer in bytes.
const FOOTER: usize = 512;
/// The same, as Virtual PC before 2004 wrote it.
const SHORT: usize = 511;
/// Length of the dynamic disk header in bytes.
const HEADER: usize = 1024;

/// What kind of VHD it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Fixed,
    Dynamic,
    Differencing,
}

/// A checked footer.
#[derive(Clone, Debug)]
pub(super) struct Footer {
    pub(super) kind: Kind,
    /// `Current Size`: length of the disk in bytes. Never the geometry, which is smaller.
    pub(super) len: u64,
    /// Where the dynamic disk header is.
    pub(super) data_offset: u64,
    pub(super) unique_id: [u8; 16],
    pub(super) creator: String,
    /// Where it was found.
    pub(super) at: u64,
}

impl Footer {
    /// The footer at the end; where that one is damaged or cut off, the copy at the
    /// beginning, and then what was wrong with the first.
    pub(super) fn read(disk: &dyn Disk) -> Result<(Self, Option<DiskError>)> {
        let end = disk.len();
        let mut first = match end.checked_sub(FOOTER as u64) {
            Some(at) => Self::at(disk, at, FOOTER),
            None => Self::at(disk, 0, FOOTER),
        };
        if first.is_err()
            && let Some(at) = end.checked_sub(SHORT as u64)
            && let Ok(short) = Self::at(disk, at, SHORT)
        {
            // Virtual PC before 2004 left the last byte out.
            first = Ok(short);
        }
        let problem = match first {
            Ok(footer) => return Ok((footer, None)),
            Err(problem) => problem,
        };
        match Self::at(disk, 0, FOOTER) {
            Ok(copy) if copy.kind != Kind::Fixed => Ok((copy, Some(problem))),
            _ => Err(problem),
        }
    }

    /// Visits what is wrong with the footer and its copy. A dynamic disk has the same 512
    /// bytes at both ends.
    pub(super) fn check(disk: &dyn Disk, name: &str, visit: Visit<'_>) -> Result<()> {
        let (footer, problem) = Self::read(disk)?;
        if let Some(problem) = problem {
            visit(Finding::warning("footer-damaged", problem.file(name)));
            return Ok(());
        }
        if footer.kind == Kind::Fixed || footer.at == 0 {
            return Ok(());
        }
        if let Err(e) = Self::at(disk, 0, FOOTER) {
            visit(Finding::warning("footer-copy-damaged", e.file(name)));
            return Ok(());
        }
        let mut both = [[0; SHORT]; 2];
        let [copy, own] = &mut both;
        disk.read_exact_at(copy, 0)?;
        disk.read_exact_at(own, footer.at)?;
        if copy != own {
            let e = DiskError::corrupt("comparing the footer with its copy")
                .file(name)
                .offset(0)
                .expected("the same bytes at both ends of the file")
                .found("others");
            visit(Finding::warning("footer-copy-differs", e));
        }
        Ok(())
    }

    fn at(disk: &dyn Disk, at: u64, len: usize) -> Result<Self> {
        let mut bytes = [0; FOOTER];
        let fail = || DiskError::corrupt("reading the VHD footer").offset(at);
        let Some(part) = bytes.get_mut(..len) else {
            return Err(fail());
        };
        if at.saturating_add(len as u64) > disk.len() {
            return Err(fail()
                .expected(format!("{len} bytes"))
                .found(format!("a file of {}", disk.len())));
        }
        disk.read_exact_at(part, at)?;
        let f = Fields::new(&bytes, at, "VHD footer");
        if f.bytes(0, 8)? != b"conectix" {
            return Err(fail().expected("\"conectix\"").found("something else"));
        }
        check_sum(&f, 64, "VHD footer")?;
        let version = f.u32_be(12)?;
        if version >> 16 != 1 {
            return Err(DiskError::unsupported("opening the VHD")
                .offset(at)
                .expected("version 1")
                .found(format!("version {version:#010x}")));
        }
        let kind = match f.u32_be(60)? {
            2 => Kind::Fixed,
            3 => Kind::Dynamic,
            4 => Kind::Differencing,
            other => {
                return Err(DiskError::unsupported("opening the VHD")
                    .offset(at.saturating_add(60))
                    .expected("disk type 2 (fixed), 3 (dynamic) or 4 (differencing)")
                    .found(format!("disk type {other}")));
            }
        };
        let disk_len = f.u64_be(48)?;
        if !disk_len.is_multiple_of(512) || disk_len > i64::MAX.unsigned_abs() {
            return Err(f
                .corrupt(48, "Current Size")
                .expected("a multiple of 512 bytes")
                .found(disk_len.to_string()));
        }
        let mut unique_id = [0; 16];
        unique_id.copy_from_slice(f.bytes(68, 16)?);
        let creator = f.bytes(28, 4)?.iter().map(|b| char::from(*b)).collect();
        Ok(Self {
            kind,
            len: disk_len,
            data_offset: f.u64_be(16)?,
            unique_id,
            creator,
            at,
        })
    }
}

/// The one's complement of the sum of all bytes but the four at `field`.
fn check_sum(f: &Fields<'_>, field: usize, what: &str) -> Result<()> {
    let stored = f.u32_be(field)?;
    let in_field = field..field.saturating_add(4);
    let sum = f
        .all()
        .iter()
        .enumerate()
        .filter(|(at, _)| !in_field.contains(at))
        .fold(0u32, |sum, (_, b)| sum.wrapping_add(u32::from(*b)));
    if stored == !sum {
        return Ok(());
    }
    Err(DiskError::corrupt(format!("checking the {what}"))
        .offset(f.place(field))
        .expected(format!("the checksum {:#010x}", !sum))
        .found(format!("{stored:#010x}")))
}

/// Where a parent may be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Locator {
    /// `W2ru`, `W2ku`, `MacX`, ….
    pub(super) code: [u8; 4],
    pub(super) len: u32,
    pub(super) offset: u64,
}

/// The dynamic disk header, checked.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) table_offset: u64,
    pub(super) max_table_entries: u32,
    /// Length of a block in bytes.
    pub(super) block_size: u32,
    pub(super) parent_id: [u8; 16],
    pub(super) parent_name: String,
    pub(super) locators: Vec<Locator>,
}

impl Header {
    pub(super) fn read(disk: &dyn Disk, footer: &Footer) -> Result<Self> {
        let at = footer.data_offset;
        let fail = || DiskError::corrupt("reading the dynamic disk header").offset(at);
        if at.saturating_add(HEADER as u64) > disk.len() {
            return Err(fail()
                .expected("a header inside the file")
                .found(format!("a file of {} bytes", disk.len())));
        }
        let mut bytes = [0; HEADER];
        disk.read_exact_at(&mut bytes, at)?;
        let f = Fields::new(&bytes, at, "dynamic disk header");
        if f.bytes(0, 8)? != b"cxsparse" {
            return Err(fail().expected("\"cxsparse\"").found("something else"));
        }
        check_sum(&f, 36, "dynamic disk header")?;
        let version = f.u32_be(24)?;
        if version >> 16 != 1 {
            return Err(DiskError::unsupported("opening the VHD")
                .offset(f.place(24))
                .expected("header version 1")
                .found(format!("version {version:#010x}")));
        }
        let block_size = f.u32_be(32)?;
        if !block_size.is_power_of_two() || block_size < 512 {
            return Err(f
                .corrupt(32, "Block Size")
                .expected("a power of two of at least 512 bytes")
                .found(block_size.to_string()));
        }
        let max_table_entries = f.u32_be(28)?;
        let needed = footer.len.div_ceil(u64::from(block_size));
        if u64::from(max_table_entries) < needed {
            return Err(f
                .corrupt(28, "Max Table Entries")
                .expected(format!(
                    "at least {needed} for a disk of {} bytes",
                    footer.len
                ))
                .found(max_table_entries.to_string()));
        }
        let table_offset = f.u64_be(16)?;
        let end = needed
            .checked_mul(4)
            .and_then(|len| table_offset.checked_add(len));
        if end.is_none_or(|end| end > disk.len()) {
            return Err(f
                .corrupt(16, "Table Offset")
                .expected(format!("{needed} entries inside {} bytes", disk.len()))
                .found(format!("a table at {table_offset}")));
        }
        let mut parent_id = [0; 16];
        parent_id.copy_from_slice(f.bytes(40, 16)?);
        let wide = f.bytes(64, 512)?.chunks_exact(2);
        let units = wide.map(|c| {
            u16::from_be_bytes([
                c.first().copied().unwrap_or(0),
                c.get(1).copied().unwrap_or(0),
            ])
        });
        let parent_name = text(units);
        let mut locators = Vec::new();
        for n in 0..8usize {
            let e = f.sub(
                576usize.saturating_add(n.saturating_mul(24)),
                24,
                "parent locator",
            )?;
            let mut code = [0; 4];
            code.copy_from_slice(e.bytes(0, 4)?);
            if code != [0; 4] {
                locators.push(Locator {
                    code,
                    len: e.u32_be(8)?,
                    offset: e.u64_be(16)?,
                });
            }
        }
        Ok(Self {
            table_offset,
            max_table_entries,
            block_size,
            parent_id,
            parent_name,
            locators,
        })
    }
}

/// UTF-16 up to the first NUL.
pub(super) fn text(units: impl Iterator<Item = u16>) -> String {
    char::decode_utf16(units.take_while(|u| *u != 0))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}
