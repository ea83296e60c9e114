//! The members of a tar archive, in place: where each begins, and how long it is.
//!
//! OVF asks for plain ustar files. What real writers add is read too: sizes in base-256,
//! long names of GNU tar, sizes and names in pax headers. Nothing is unpacked, so a member
//! can never be longer than the archive.

use disk_io::{Disk, DiskError, Fields, Result};

const BLOCK: u64 = 512;
/// Members of an appliance are counted in tens.
const MAX_MEMBERS: usize = 65_536;
/// Longest extension header in bytes.
const MAX_HEADER: u64 = 1 << 20;

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name as it is stored, without a leading `./`.
    pub name: String,
    /// Where its bytes begin in the archive.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Why it is not a file that can be read: a link, a directory, a device.
    pub not_a_file: Option<&'static str>,
}

/// Reads every header of the archive.
pub(super) fn members(disk: &dyn Disk) -> Result<Vec<Member>> {
    let mut found: Vec<Member> = Vec::new();
    let mut at = 0u64;
    let mut next = Extended::default();
    while let Some(header) = Header::read(disk, at)? {
        let data = at.saturating_add(BLOCK);
        let len = match header.kind {
            b'x' | b'g' | b'L' | b'K' => header.size,
            _ => next.size.unwrap_or(header.size),
        };
        // A link or a directory has no data, whatever its size says.
        let stored = if matches!(header.kind, b'1'..=b'6') {
            0
        } else {
            len
        };
        let end = data.checked_add(stored).filter(|end| *end <= disk.len());
        let Some(end) = end else {
            return Err(fail(at)
                .expected(format!("{stored} bytes of {}", header.name))
                .found(format!("the end of the archive at {}", disk.len())));
        };
        match header.kind {
            b'x' => next.pax(&extension(disk, data, len)?, data)?,
            b'g' => {}
            b'L' => next.name = Some(text(&extension(disk, data, len)?)),
            b'K' => {}
            kind => {
                let next = std::mem::take(&mut next);
                let name = next.name.unwrap_or(header.name);
                found.push(Member {
                    name: name.trim_start_matches("./").to_string(),
                    offset: data,
                    len: stored,
                    not_a_file: next.sparse.or_else(|| not_a_file(kind)),
                });
            }
        }
        if found.len() > MAX_MEMBERS {
            return Err(DiskError::refused("reading the archive")
                .offset(at)
                .expected(format!("at most {MAX_MEMBERS} members")));
        }
        at = end.next_multiple_of(BLOCK);
    }
    Ok(found)
}

fn fail(at: u64) -> DiskError {
    DiskError::corrupt("reading the archive").offset(at)
}

fn not_a_file(kind: u8) -> Option<&'static str> {
    match kind {
        0 | b'0' | b'7' => None,
        b'1' => Some("a hard link"),
        b'2' => Some("a symbolic link"),
        b'3' | b'4' => Some("a device"),
        b'5' => Some("a directory"),
        b'6' => Some("a named pipe"),
        b'S' => Some("a sparse file of GNU tar"),
        _ => Some("a member of an unknown kind"),
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

fn extension(disk: &dyn Disk, at: u64, len: u64) -> Result<Vec<u8>> {
    if len > MAX_HEADER {
        return Err(DiskError::refused("reading the archive")
            .offset(at)
            .expected(format!("extension headers of at most {MAX_HEADER} bytes"))
            .found(len.to_string()));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    disk.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

struct Header {
    name: String,
    size: u64,
    kind: u8,
}

impl Header {
    /// The header at `at`; `None` at the archive's end.
    fn read(disk: &dyn Disk, at: u64) -> Result<Option<Self>> {
        if at >= disk.len() {
            // Some writers leave the closing blocks out.
            return Ok(None);
        }
        if disk.len().saturating_sub(at) < BLOCK {
            return Err(fail(at)
                .expected("a header of 512 bytes")
                .found(format!("the end of the archive at {}", disk.len())));
        }
        let mut raw = [0; BLOCK as usize];
        disk.read_exact_at(&mut raw, at)?;
        if raw.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let f = Fields::new(&raw, at, "tar header");
        let sum = |signed: bool| -> i64 {
            raw.iter()
                .enumerate()
                .map(|(n, b)| match n {
                    148..156 => 0x20,
                    _ if signed => i64::from(b.cast_signed()),
                    _ => i64::from(*b),
                })
                .sum()
        };
        let stored = number(f.bytes(148, 8)?).and_then(|n| i64::try_from(n).ok());
        if stored != Some(sum(false)) && stored != Some(sum(true)) {
            return Err(f
                .corrupt(148, "the checksum")
                .expected(sum(false).to_string())
                .found(stored.map_or("none".into(), |n| n.to_string())));
        }
        let size = number(f.bytes(124, 12)?).ok_or_else(|| {
            f.corrupt(124, "the size")
                .expected("a number")
                .found(text(f.bytes(124, 12).unwrap_or_default()))
        })?;
        let mut name = text(f.bytes(0, 100)?);
        // The prefix is POSIX's; GNU tar keeps times there.
        if f.bytes(257, 6)? == b"ustar\0" {
            let prefix = text(f.bytes(345, 155)?);
            if !prefix.is_empty() {
                name = format!("{prefix}/{name}");
            }
        }
        Ok(Some(Self {
            name,
            size,
            kind: f.u8(156)?,
        }))
    }
}

/// Octal digits, or GNU's base-256 where the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        return std::iter::once(&(first & 0x7f))
            .chain(rest)
            .try_fold(0u64, |n, b| n.checked_mul(256)?.checked_add(u64::from(*b)));
    }
    let digits: Vec<u8> = field
        .iter()
        .copied()
        .skip_while(|b| *b == b' ')
        .take_while(|b| !matches!(b, 0 | b' '))
        .collect();
    digits.iter().try_fold(0u64, |n, b| match b {
        b'0'..=b'7' => n
            .checked_mul(8)?
            .checked_add(u64::from(b.checked_sub(b'0')?)),
        _ => None,
    })
}

/// What the headers before a member say about it.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    size: Option<u64>,
    sparse: Option<&'static str>,
}

impl Extended {
    /// Records of `"LENGTH KEY=VALUE\n"`.
    fn pax(&mut self, mut records: &[u8], at: u64) -> Result<()> {
        let bad = || fail(at).expected("pax records").found("something else");
        while !records.is_empty() {
            let space = records.iter().position(|b| *b == b' ').ok_or_else(bad)?;
            let digits = records.get(..space).unwrap_or_default();
            let len: usize = std::str::from_utf8(digits)
                .ok()
                .and_then(|d| d.parse().ok())
                .filter(|len| *len > space)
                .ok_or_else(bad)?;
            let (record, rest) = records.split_at_checked(len).ok_or_else(bad)?;
            let body = record.get(space.saturating_add(1)..).unwrap_or_default();
            let body = body.strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = body.iter().position(|b| *b == b'=').ok_or_else(bad)?;
            let (key, value) = body.split_at_checked(equals).ok_or_else(bad)?;
            let value = String::from_utf8_lossy(value.get(1..).unwrap_or_default());
            match key {
                b"path" => self.name = Some(value.into_owned()),
                b"size" => self.size = Some(value.parse().map_err(|_| bad())?),
                key if key.starts_with(b"GNU.sparse.") => {
                    self.sparse = Some("a sparse file of GNU tar");
                }
                _ => {}
            }
            records = rest;
        }
        Ok(())
    }
}
