//! Records that belong together: a file's extensions, and which records the $MFT's own map calls
//! free.

use super::{
    super::{
        file::File,
        record::{Record, kind},
        volume::Volume,
    },
    because,
};
use disk_io::{DiskError, ErrorKind, Finding, Result, finding::Visit};

/// The longest map that is read: of four thousand million records.
const MAX_MAP: u64 = 1 << 29;

/// Which records were met in use.
#[derive(Debug, Default)]
pub(super) struct InUse {
    bits: Vec<u8>,
}

impl InUse {
    /// Notes a record; they come in order.
    pub(super) fn add(&mut self, number: u64) {
        let byte = usize::try_from(number / 8).unwrap_or(usize::MAX);
        if self.bits.len() <= byte {
            self.bits.resize(byte.saturating_add(1), 0);
        }
        if let Some(bits) = self.bits.get_mut(byte) {
            *bits |= 1u8.wrapping_shl((number % 8) as u32);
        }
    }
}

impl Volume {
    /// Why a part of a file that outgrew its record cannot be found.
    pub(super) fn lost_extension(&self, record: &Record) -> Result<Option<DiskError>> {
        let mut kinds = record.attributes().flatten().map(|(_, a)| a.kind);
        if record.base().is_some() || !kinds.any(|k| k == kind::ATTRIBUTE_LIST) {
            return Ok(None);
        }
        let lost = File::from_record(self, record.clone(), false)?.lost_holder();
        match lost {
            Some(e) if e.kind() == ErrorKind::Io => Err(e),
            lost => Ok(lost),
        }
    }

    /// Records in use must be in use in the $MFT's map: else they are given to the next file.
    pub(super) fn check_record_bitmap(
        &self,
        in_use: &InUse,
        open: Option<&str>,
        visit: Visit<'_>,
    ) -> Result<()> {
        let map =
            File::open(self, 0, 0, false).and_then(|mft| mft.value(kind::BITMAP, &[], MAX_MAP));
        let map = match map {
            Ok(map) => map.unwrap_or_default(),
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => {
                let e = e.context("reading the $MFT's map of records");
                visit(Finding::warning("ntfs-record-called-free", e));
                return Ok(());
            }
        };
        let mut wrong: Vec<u64> = Vec::new();
        let mut count = 0u64;
        for (at, bits) in in_use.bits.iter().enumerate() {
            let lost = bits & !map.get(at).copied().unwrap_or(0);
            for bit in (0..8u64).filter(|bit| lost >> bit & 1 == 1) {
                count = count.saturating_add(1);
                if wrong.len() < crate::told::EACH {
                    wrong.push((at as u64).saturating_mul(8).saturating_add(bit));
                }
            }
        }
        let Some(first) = wrong.first() else {
            return Ok(());
        };
        let e = DiskError::corrupt("holding the $MFT's map of records against the records")
            .expected("every record in use to be in use in the map")
            .found(format!(
                "{count} that it calls free, the first is {first}{}",
                because(open)
            ));
        let mut finding = Finding::warning("ntfs-record-called-free", e);
        finding.nodes = wrong;
        visit(finding);
        Ok(())
    }
}
