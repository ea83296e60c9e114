//! A file's entry set: the file entry, the stream entry and its name, under one checksum.

use super::upcase::UpCase;
use crate::{NodeKind, Timestamp, fat::entry::moment};
use disk_io::{DiskError, Fields, Result};

/// Type of the first entry of a set.
pub const FILE: u8 = 0x85;
const STREAM: u8 = 0xc0;
const NAME: u8 = 0xc1;

/// A moment as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    date: u16,
    time: u16,
    hundredths: u8,
    offset: u8,
}

impl Stamp {
    /// The moment; in UTC if the volume knows the zone, else in `zone` if given.
    pub fn moment(self, zone: Option<i32>) -> Option<Timestamp> {
        // Seven bits, signed, in quarters of an hour, if the eighth says so.
        let stored = (self.offset & 0x80 != 0).then(|| {
            let quarters = i32::from((self.offset << 1).cast_signed() >> 1);
            quarters.saturating_mul(900)
        });
        let mut at = moment(self.date, self.time, stored.or(zone))?;
        if self.hundredths < 200 {
            let h = u32::from(self.hundredths);
            at.seconds = at.seconds.saturating_add(i64::from(h / 100));
            at.nanos = (h % 100).saturating_mul(10_000_000);
        }
        Some(at)
    }
}

/// One file or directory.
#[derive(Clone, Debug)]
pub struct Set {
    /// Where its first entry is on the volume, in bytes.
    pub position: u64,
    /// DOS attributes.
    pub attributes: u16,
    /// Name in UTF-16 units, as stored.
    pub name: Vec<u16>,
    /// Hash of the name in upper case.
    pub name_hash: u16,
    /// First cluster.
    pub first_cluster: u32,
    /// Length in bytes.
    pub len: u64,
    /// How much of it was ever written; the rest reads as zeros.
    pub valid: u64,
    /// Whether its clusters follow each other and the table says nothing of them.
    pub contiguous: bool,
    /// When it was created.
    pub created: Stamp,
    /// When it was last written.
    pub modified: Stamp,
    /// When it was last read.
    pub accessed: Stamp,
    /// Why what the set says is not to be trusted.
    pub damage: Option<DiskError>,
    /// Oddities.
    pub remarks: Vec<String>,
}

/// Length in bytes of the set that begins with this entry.
pub fn len(first: &[u8]) -> usize {
    let more = first.get(1).copied().unwrap_or_default();
    usize::from(more).saturating_add(1).saturating_mul(32)
}

/// Whether secondary entries of this type are those of files.
pub fn is_of_file(kind: u8) -> bool {
    matches!(kind, STREAM | NAME)
}

/// The name in the entries of a set that need not be whole.
pub fn name_in(entries: &[u8]) -> Vec<u16> {
    let names = entries
        .chunks_exact(32)
        .filter(|e| e.first() == Some(&NAME));
    let bytes = names.flat_map(|e| e.get(2..).unwrap_or_default().chunks_exact(2));
    bytes
        .filter_map(|u| Some(u16::from_le_bytes(u.try_into().ok()?)))
        .take_while(|u| *u != 0)
        .collect()
}

/// The sum over a set, all but the two bytes that hold it.
fn checksum(bytes: &[u8]) -> u16 {
    bytes
        .iter()
        .enumerate()
        .filter(|(n, _)| !matches!(n, 2 | 3))
        .fold(0u16, |sum, (_, b)| {
            sum.rotate_right(1).wrapping_add(u16::from(*b))
        })
}

impl Set {
    /// Takes the set at `position` apart. What it says is kept even if its checksum is
    /// wrong; then [`Self::damage`] says so. An error: not even a name can be told.
    pub fn parse(bytes: &[u8], position: u64) -> Result<Self> {
        let f = Fields::new(bytes, position, "exFAT entry set");
        let whole = len(bytes);
        let stored = f.u16_le(2)?;
        let stamp = |at: usize, hundredths: Option<usize>, zone: usize| -> Result<Stamp> {
            Ok(Stamp {
                time: f.u16_le(at)?,
                date: f.sub(at, 4, "time")?.u16_le(2)?,
                hundredths: hundredths.map_or(Ok(0), |at| f.u8(at))?,
                offset: f.u8(zone)?,
            })
        };
        let mut set = Self {
            position,
            attributes: f.u16_le(4)?,
            name: Vec::new(),
            name_hash: 0,
            first_cluster: 0,
            len: 0,
            valid: 0,
            contiguous: false,
            created: stamp(8, Some(20), 22)?,
            modified: stamp(12, Some(21), 23)?,
            accessed: stamp(16, None, 24)?,
            damage: None,
            remarks: Vec::new(),
        };
        let all = bytes.get(..whole);
        let sum = checksum(all.unwrap_or(bytes));
        if all.is_none() {
            set.damage = Some(
                f.corrupt(1, "SecondaryCount")
                    .expected(format!("{} more entries", (whole / 32).saturating_sub(1)))
                    .found(format!("{}", (bytes.len() / 32).saturating_sub(1))),
            );
        } else if sum != stored {
            set.damage = Some(
                f.corrupt(2, "SetChecksum")
                    .expected(format!("{sum:#06x}"))
                    .found(format!("{stored:#06x}"))
                    .hint("something in this file's directory entries is wrong, perhaps where its contents are"),
            );
        }
        let mut entries = all.unwrap_or(bytes).chunks_exact(32).skip(1);
        let stream = entries.next().filter(|e| e.first() == Some(&STREAM));
        let Some(stream) = stream else {
            return Err(f
                .corrupt(32, "the second entry")
                .expected("a stream entry, 0xC0")
                .found(format!(
                    "{:#04x}",
                    bytes.get(32).copied().unwrap_or_default()
                )));
        };
        let s = Fields::new(stream, position.saturating_add(32), "exFAT stream entry");
        let flags = s.u8(1)?;
        let name_len = usize::from(s.u8(3)?);
        set.name_hash = s.u16_le(4)?;
        if flags & 1 != 0 {
            set.valid = s.u64_le(8)?;
            set.first_cluster = s.u32_le(20)?;
            set.len = s.u64_le(24)?;
            set.contiguous = flags & 2 != 0;
        }
        if set.valid > set.len {
            set.damage.get_or_insert_with(|| {
                s.corrupt(8, "ValidDataLength")
                    .expected(format!("at most the length, {}", set.len))
                    .found(set.valid.to_string())
            });
            set.valid = set.len;
        }
        for entry in entries {
            if entry.first() != Some(&NAME) {
                continue;
            }
            let units = entry.get(2..).unwrap_or_default().chunks_exact(2);
            set.name
                .extend(units.filter_map(|u| Some(u16::from_le_bytes(u.try_into().ok()?))));
        }
        if name_len == 0 || set.name.len() < name_len {
            set.damage.get_or_insert_with(|| {
                s.corrupt(3, "NameLength")
                    .expected(format!("1 to {}", set.name.len()))
                    .found(name_len.to_string())
            });
        }
        set.name.truncate(name_len);
        Ok(set)
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.attributes & 0x10 != 0
    }

    /// File or directory.
    pub fn kind(&self) -> NodeKind {
        if self.is_dir() {
            NodeKind::Directory
        } else {
            NodeKind::File
        }
    }

    /// Whether the stored hash is the name's.
    pub fn name_hash_fits(&self, upcase: &UpCase) -> bool {
        let hash = upcase.fold(&self.name).iter().fold(0u16, |hash, unit| {
            unit.to_le_bytes()
                .iter()
                .fold(hash, |h, b| h.rotate_right(1).wrapping_add(u16::from(*b)))
        });
        hash == self.name_hash
    }
}

#[cfg(test)]
mod tests {
    use super::Stamp;

    #[test]
    fn zones_are_quarters_of_an_hour() {
        let stamp = |offset| Stamp {
            date: 1 << 5 | 2,
            time: 12 << 11,
            hundredths: 150,
            offset,
        };
        let base = 315_532_800 + 86_400 + 12 * 3600 + 1;
        let at = |offset, zone| stamp(offset).moment(zone).unwrap();
        assert_eq!((at(0x80, None).seconds, at(0x80, None).zoned), (base, true));
        assert_eq!(at(0x80 | 8, None).seconds, base - 7200);
        assert_eq!(at(0xff, None).seconds, base + 900);
        assert!(!at(0x08, None).zoned);
        assert_eq!(at(0, Some(3600)).seconds, base - 3600);
        assert_eq!(at(0, None).nanos, 500_000_000);
        assert_eq!(Stamp::default().moment(None), None);
    }
}
