//! The geometry that a descriptor gives its disk, held against the disk's length.

use super::Descriptor;

/// What products write for every disk that is longer than cylinders, heads and sectors can say,
/// and some for every disk: ATA's limit, and the BIOS's.
const LIMITS: [[u64; 3]; 2] = [[16383, 16, 63], [1024, 255, 63]];

/// A geometry that is too long for its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Geometry {
    /// It may be that of a disk whose descriptor has lost a line.
    OfOther,
    /// It is what is written for any disk, and no line can be missing.
    OfAny,
}

impl Descriptor {
    /// The geometry (fact sheet, VMDK 2.5) covers the disk but for less than a cylinder, or its
    /// first 8 GiB. One that covers more than `len` bytes, and how it reads.
    pub(crate) fn longer_geometry(&self, len: u64) -> Option<(Geometry, String)> {
        let of = |key: &str| self.ddb(&format!("geometry.{key}"))?.parse::<u64>().ok();
        let (c, h, s) = (of("cylinders")?, of("heads")?, of("sectors")?);
        let sectors = c.checked_sub(1)?.checked_mul(h)?.checked_mul(s)?;
        if crate::bytes(sectors)? < len.max(1) {
            return None;
        }
        let one_file = self.create_type().is_some_and(|t| {
            let kinds = ["monolithic", "streamOptimized", "vmfs"];
            kinds.iter().any(|kind| t.starts_with(kind))
        });
        let is_any = LIMITS.contains(&[c, h, s]) && self.extent_count() == 1 && one_file;
        let kind = match is_any {
            true => Geometry::OfAny,
            false => Geometry::OfOther,
        };
        Some((kind, format!("{c} cylinders, {h} heads, {s} sectors")))
    }
}
