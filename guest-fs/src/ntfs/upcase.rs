//! Folding of case by the volume's own table.

use super::{record::kind, volume::Volume};
use disk_io::Result;
use std::cmp::Ordering;

/// The $UpCase table: one code unit for each of the 65,536.
#[derive(Debug)]
pub(crate) struct UpCase(Vec<u16>);

impl UpCase {
    /// The volume's table (record 10).
    pub(crate) fn read(volume: &Volume) -> Result<Self> {
        let file = super::file::File::open(volume, 10, 0, false)?;
        let bytes = file.value(kind::DATA, &[], 1 << 17)?.unwrap_or_default();
        let table: Vec<u16> = super::units(&bytes).collect();
        if table.len() == 1 << 16 {
            Ok(Self(table))
        } else {
            Err(disk_io::DiskError::corrupt("reading the $UpCase table")
                .expected("131072 bytes")
                .found(bytes.len().to_string()))
        }
    }

    /// A table by Unicode's simple mappings, for volumes whose own is damaged.
    pub(crate) fn standard() -> Self {
        Self(
            (0..=u16::MAX)
                .map(|unit| {
                    let mut upper = char::from_u32(u32::from(unit))
                        .into_iter()
                        .flat_map(char::to_uppercase);
                    match (upper.next(), upper.next()) {
                        (Some(one), None) => u16::try_from(u32::from(one)).unwrap_or(unit),
                        _ => unit,
                    }
                })
                .collect(),
        )
    }

    /// The folded unit.
    pub(crate) fn fold(&self, unit: u16) -> u16 {
        self.0.get(usize::from(unit)).copied().unwrap_or(unit)
    }

    /// The order of directories, without the exact comparison that comes last in it.
    pub(crate) fn compare(&self, a: &[u16], b: &[u16]) -> Ordering {
        let fold = |u: &u16| self.fold(*u);
        a.iter().map(fold).cmp(b.iter().map(fold))
    }
}

#[cfg(test)]
mod tests {
    use super::UpCase;
    use std::cmp::Ordering;

    #[test]
    fn standard_table_folds_simple_letters_only() {
        let table = UpCase::standard();
        let units = |s: &str| s.encode_utf16().collect::<Vec<_>>();
        assert_eq!(
            table.compare(&units("straßeé"), &units("STRAßEÉ")),
            Ordering::Equal
        );
        assert_eq!(table.compare(&units("ab"), &units("abc")), Ordering::Less);
        assert_eq!(table.fold(0xd800), 0xd800);
    }
}
