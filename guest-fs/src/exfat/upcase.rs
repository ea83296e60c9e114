//! The volume's own table of upper-case letters, by which it compares names.

use crate::fat::names;
use disk_io::{Disk, DiskError, Result};

/// The specification's largest table, uncompressed.
const MAX_BYTES: u64 = 2 * 65536;

/// Maps UTF-16 units to upper case.
#[derive(Clone, Debug)]
pub struct UpCase(Option<Vec<u16>>);

impl UpCase {
    /// Unicode's simple mapping, for a volume whose table is lost.
    pub fn unicode() -> Self {
        Self(None)
    }

    /// Reads a table and checks its sum.
    pub fn read(table: &dyn Disk, checksum: u32) -> Result<Self> {
        let bad = || DiskError::corrupt("reading the up-case table");
        let len = table.len();
        if len == 0 || len > MAX_BYTES || !len.is_multiple_of(2) {
            return Err(bad()
                .expected(format!("at most {MAX_BYTES} bytes, an even number"))
                .found(len.to_string()));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        table.read_exact_at(&mut bytes, 0)?;
        let sum = bytes.iter().fold(0u32, |sum, b| {
            sum.rotate_right(1).wrapping_add(u32::from(*b))
        });
        if sum != checksum {
            return Err(bad()
                .expected(format!("checksum {checksum:#010x}"))
                .found(format!("{sum:#010x}")));
        }
        // 0xFFFF and a count stand for that many letters that are their own upper case.
        let mut map: Vec<u16> = (0..=u16::MAX).collect();
        let mut at = 0usize;
        let mut units = bytes
            .chunks_exact(2)
            .filter_map(|u| Some(u16::from_le_bytes(u.try_into().ok()?)));
        while let Some(unit) = units.next() {
            if unit == 0xffff
                && let Some(skip) = units.next()
            {
                at = at.saturating_add(usize::from(skip));
                continue;
            }
            if let Some(to) = map.get_mut(at) {
                *to = unit;
            }
            at = at.saturating_add(1);
        }
        Ok(Self(Some(map)))
    }

    /// A name in upper case.
    pub fn fold(&self, units: &[u16]) -> Vec<u16> {
        let one = |u: &u16| match &self.0 {
            Some(map) => map.get(usize::from(*u)).copied().unwrap_or(*u),
            None => names::upper(*u),
        };
        units.iter().map(one).collect()
    }
}
