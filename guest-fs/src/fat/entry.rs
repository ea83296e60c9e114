//! One directory entry of 32 bytes.

use super::{names, oem};
use crate::{Name, NodeKind, Timestamp};
use disk_io::{Fields, Result};

/// First byte of an entry that was deleted.
pub const DELETED: u8 = 0xe5;

const LONG: u8 = 0x0f;
const LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;

/// An entry that names something: a file, a directory or the volume.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Where it is on the volume, in bytes.
    pub position: u64,
    /// Name and extension, padded with spaces.
    pub short: [u8; 11],
    /// DOS attributes.
    pub attributes: u8,
    /// Windows NT's flags: lower-case name 0x08, lower-case extension 0x10.
    pub case: u8,
    /// First cluster, both halves.
    pub first_cluster: u32,
    /// Size in bytes.
    pub size: u32,
    created: (u16, u16, u8),
    modified: (u16, u16),
    accessed: u16,
}

impl Entry {
    /// Takes an entry apart.
    pub fn parse(raw: &[u8; 32], position: u64) -> Result<Self> {
        let f = Fields::new(raw, position, "directory entry");
        let mut short = [0; 11];
        short.copy_from_slice(f.bytes(0, 11)?);
        Ok(Self {
            position,
            short,
            attributes: f.u8(11)?,
            case: f.u8(12)?,
            first_cluster: u32::from(f.u16_le(20)?) << 16 | u32::from(f.u16_le(26)?),
            size: f.u32_le(28)?,
            created: (f.u16_le(16)?, f.u16_le(14)?, f.u8(13)?),
            modified: (f.u16_le(24)?, f.u16_le(22)?),
            accessed: f.u16_le(18)?,
        })
    }

    fn first(&self) -> u8 {
        self.short.first().copied().unwrap_or_default()
    }

    /// Whether the entry, and every one after it, was never used.
    pub fn is_free(&self) -> bool {
        self.first() == 0
    }

    /// Whether it was deleted.
    pub fn is_deleted(&self) -> bool {
        self.first() == DELETED
    }

    /// Whether it is a part of a long name.
    pub fn is_long(&self) -> bool {
        self.attributes & 0x3f == LONG
    }

    /// Whether it is the volume label.
    pub fn is_label(&self) -> bool {
        !self.is_long() && self.attributes & LABEL != 0
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.attributes & DIRECTORY != 0
    }

    /// Whether it is `.` or `..`.
    pub fn is_dot(&self) -> bool {
        &self.short == b".          " || &self.short == b"..         "
    }

    /// The first two entries of a directory that begins with `head`, but for parts of long names:
    /// some writers give `.` and `..` such.
    pub fn first_two(head: &[u8], at: u64) -> [Option<Self>; 2] {
        let entries = head.chunks_exact(32).zip((at..).step_by(32));
        let mut short = entries
            .filter_map(|(raw, position)| Self::parse(raw.first_chunk()?, position).ok())
            .filter(|entry| !entry.is_long());
        [short.next(), short.next()]
    }

    /// Whether it is `.` or `..` but for one byte of its name, in a directory that begins at `at`.
    pub fn is_damaged_dot(&self, at: u64) -> bool {
        let near = |name: &[u8; 11]| {
            let same = self.short.iter().zip(name).filter(|(a, b)| a == b);
            same.count() >= 10
        };
        match self.position.checked_sub(at) {
            Some(0) => near(b".          "),
            Some(32) => near(b"..         "),
            _ => false,
        }
    }

    /// File or directory.
    pub fn kind(&self) -> NodeKind {
        if self.is_dir() {
            NodeKind::Directory
        } else {
            NodeKind::File
        }
    }

    /// The sum that parts of a long name carry.
    pub fn checksum(&self) -> u8 {
        self.short
            .iter()
            .fold(0u8, |sum, b| sum.rotate_right(1).wrapping_add(*b))
    }

    /// The 8.3 name, lower-case where Windows NT's flags say so.
    pub fn short_name(&self, code_page: Option<u16>) -> Name {
        let mut raw = self.short;
        // 0xE5 as a first byte means deleted, so a name that has it stores 0x05.
        if let Some(first) = raw.first_mut()
            && *first == 0x05
        {
            *first = DELETED;
        }
        let (base, extension) = raw.split_at(8);
        let part = |bytes: &[u8], lower: u8| {
            let end = bytes
                .iter()
                .rposition(|b| *b != b' ')
                .map_or(0, |n| n.saturating_add(1));
            let text = oem::decode(code_page, bytes.get(..end).unwrap_or_default());
            if self.case & lower != 0 {
                text.to_lowercase()
            } else {
                text
            }
        };
        let mut name = part(base, 0x08);
        let extension = part(extension, 0x10);
        if !extension.is_empty() {
            name.push('.');
            name.push_str(&extension);
        }
        names::safe(name.encode_utf16())
    }

    /// The label, if the entry is one.
    pub fn label(&self, code_page: Option<u16>) -> Name {
        let mut raw = self.short;
        if let Some(first) = raw.first_mut()
            && *first == 0x05
        {
            *first = DELETED;
        }
        Name::from(oem::decode(code_page, raw.trim_ascii_end()).as_str())
    }

    /// Whether its times are some that a calendar has; those of creation and reading may be
    /// missing.
    pub fn times_are_valid(&self) -> bool {
        let (date, time, hundredths) = self.created;
        let (modified, at) = self.modified;
        let or_none = |date, time| (date, time) == (0, 0) || exact(date, time, None).is_some();
        exact(modified, at, None).is_some()
            && or_none(date, time)
            && or_none(self.accessed, 0)
            && hundredths < 200
    }

    /// When it was created, to 10 ms.
    pub fn created(&self, zone: Option<i32>) -> Option<Timestamp> {
        let (date, time, hundredths) = self.created;
        let mut at = moment(date, time, zone)?;
        if hundredths < 200 {
            let h = u32::from(hundredths);
            at.seconds = at.seconds.saturating_add(i64::from(h / 100));
            at.nanos = (h % 100).saturating_mul(10_000_000);
        }
        Some(at)
    }

    /// When it was last written, to 2 s.
    pub fn modified(&self, zone: Option<i32>) -> Option<Timestamp> {
        moment(self.modified.0, self.modified.1, zone)
    }

    /// The day it was last read.
    pub fn accessed(&self, zone: Option<i32>) -> Option<Timestamp> {
        moment(self.accessed, 0, zone)
    }
}

/// A moment from FAT's date and time; `None` for zero. What no calendar has gives the nearest
/// moment before: without one, a file would be restored as of today.
pub(crate) fn moment(date: u16, time: u16, zone: Option<i32>) -> Option<Timestamp> {
    if date == 0 {
        return None;
    }
    let (month, day) = ((date >> 5 & 15).clamp(1, 12), (date & 31).max(1));
    let (hour, minute, second) = (time >> 11, time >> 5 & 63, time & 31);
    let time = hour.min(23) << 11 | minute.min(59) << 5 | second.min(29);
    (1..=day)
        .rev()
        .find_map(|day| exact(date & 0xfe00 | month << 5 | day, time, zone))
}

fn exact(date: u16, time: u16, zone: Option<i32>) -> Option<Timestamp> {
    let year = i64::from(date >> 9).saturating_add(1980);
    let (month, day) = (date >> 5 & 15, date & 31);
    let (hour, minute, second) = (time >> 11, time >> 5 & 63, (time & 31) << 1);
    calendar(
        year,
        month.into(),
        day.into(),
        hour.into(),
        minute.into(),
        second.into(),
        zone,
    )
}

/// Seconds since 1970 of a moment of the calendar, in the zone or without one.
pub(crate) fn calendar(
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    zone: Option<i32>,
) -> Option<Timestamp> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days since 1970-03-01 in years that begin in March, so that leap days come last.
    let shifted = if month > 2 {
        year
    } else {
        year.checked_sub(1)?
    };
    let months = month.checked_add(9)? % 12;
    let in_year = months
        .checked_mul(153)?
        .checked_add(2)?
        .checked_div(5)?
        .checked_add(day)?
        .checked_sub(1)?;
    let days = shifted
        .checked_mul(365)?
        .checked_add(shifted / 4)?
        .checked_sub(shifted / 100)?
        .checked_add(shifted / 400)?
        .checked_add(in_year)?
        .checked_sub(719_468)?;
    let seconds = days
        .checked_mul(86_400)?
        .checked_add(hour.checked_mul(3600)?)?
        .checked_add(minute.checked_mul(60)?)?
        .checked_add(second)?;
    Some(Timestamp {
        seconds: seconds.checked_sub(i64::from(zone.unwrap_or(0)))?,
        nanos: 0,
        zoned: zone.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::{calendar, moment};

    #[test]
    fn zero_is_no_date_and_an_impossible_one_is_the_nearest_before() {
        let at = |date, time| moment(date, time, None).map(|t| t.seconds);
        let day = |y, m, d| calendar(y, m, d, 0, 0, 0, None).unwrap().seconds;
        assert_eq!(at(0, 0), None);
        assert_eq!(at(0x0021, 0xffff), Some(day(1980, 1, 2) - 2), "hour 31");
        assert_eq!(at(2 << 5 | 30, 0), Some(day(1980, 2, 29)), "30 February");
        assert_eq!(at(15 << 5 | 3, 0), Some(day(1980, 12, 3)), "month 15");
        assert_eq!(at(1 << 9, 0), Some(day(1981, 1, 1)), "month 0, day 0");
        for date in 1..=u16::MAX {
            assert!(moment(date, date, Some(-43_200)).is_some(), "{date}");
        }
    }

    #[test]
    fn counts_days_as_unix_does() {
        let at = |y, m, d| calendar(y, m, d, 0, 0, 0, None).unwrap().seconds;
        assert_eq!(at(1970, 1, 1), 0);
        assert_eq!(at(1980, 1, 1), 315_532_800);
        assert_eq!(at(2000, 2, 29), 951_782_400);
        assert_eq!(at(2107, 12, 31), 4_354_732_800);
        let zoned = calendar(2024, 7, 1, 12, 30, 4, Some(7200)).unwrap();
        assert_eq!((zoned.seconds, zoned.zoned), (1_719_829_804, true));
    }
}
