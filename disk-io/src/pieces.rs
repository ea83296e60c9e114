//! A file that is kept in pieces: `disk1.vmdk.000000000`, `….000000001`, …, as OVF packages
//! have it and as backups for media of limited size.

use crate::{
    disk::{Disk, Run, check_range, check_run_offset},
    error::{DiskError, ErrorKind, Result},
    locate::{Locate, Opened, Purpose},
};
use std::{ffi::OsStr, path::Path, sync::Arc};

const MAX_PIECES: u32 = 100_000;

/// Disks one after the other.
#[derive(Debug)]
pub struct Concat {
    /// (where it begins, piece), ascending.
    pieces: Vec<(u64, Arc<dyn Disk>)>,
    len: u64,
}

impl Concat {
    /// In this order.
    pub fn new(disks: Vec<Arc<dyn Disk>>) -> Self {
        let mut len = 0u64;
        let mut pieces = Vec::new();
        for disk in disks {
            if !disk.is_empty() {
                pieces.push((len, disk.clone()));
                len = len.saturating_add(disk.len());
            }
        }
        Self { pieces, len }
    }

    /// The piece that holds `offset`, and where in it that is.
    fn at(&self, offset: u64) -> Result<(&Arc<dyn Disk>, u64)> {
        let after = self.pieces.partition_point(|(start, _)| *start <= offset);
        after
            .checked_sub(1)
            .and_then(|n| self.pieces.get(n))
            .map(|(start, disk)| (disk, offset.saturating_sub(*start)))
            .ok_or_else(|| DiskError::out_of_range(offset, 1, self.len))
    }
}

/// The name of piece `n`.
pub fn name(whole: &str, n: u32) -> String {
    format!("{whole}.{n:09}")
}

/// Whether a name is that of a piece.
pub(crate) fn is_piece(name: &Path) -> bool {
    let digits = name.extension().map(OsStr::as_encoded_bytes);
    digits.is_some_and(|d| d.len() == 9 && d.iter().all(u8::is_ascii_digit))
}

/// The number of a piece of `whole` by its name.
fn number(whole: &str, piece: &Path) -> Option<u32> {
    let digits = piece.to_str()?.strip_prefix(whole)?.strip_prefix('.')?;
    let plain = digits.len() == 9 && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// Opens the pieces of the file `whole` as one. All but the last are `each` bytes long; where
/// that is not known, as long as the first.
///
/// # Errors
/// `NotFound` if there is no first piece; `Corrupt` if one is missing before another, or has
/// another length. That the last ones are missing cannot be seen here.
pub fn open(place: &dyn Locate, whole: &str, each: Option<u64>) -> Result<Opened> {
    let mut pieces: Vec<Opened> = Vec::new();
    let doing = "joining the pieces of a file";
    for n in 0..MAX_PIECES {
        let piece = name(whole, n);
        let opened = match place.open(Path::new(&piece), Purpose::Member) {
            Ok(opened) => opened,
            Err(e) if e.kind() == ErrorKind::NotFound && n > 0 => break,
            Err(e) => return Err(e),
        };
        if let (Some(first), Some(last)) = (pieces.first(), pieces.last()) {
            let each = each.unwrap_or(first.disk.len());
            if last.disk.len() != each {
                return Err(DiskError::corrupt(doing)
                    .file(last.path.display())
                    .expected(format!("{each} bytes"))
                    .found(last.disk.len().to_string()));
            }
        }
        pieces.push(opened);
    }
    let Some(first) = pieces.first().cloned() else {
        return Err(DiskError::not_found(doing).file(whole));
    };
    let next = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    let behind = place.list(MAX_PIECES as usize)?.into_iter().find(|found| {
        let number = number(whole, found);
        number.is_some_and(|n| n > next)
    });
    if let Some(behind) = behind {
        return Err(DiskError::corrupt(doing)
            .file(name(whole, next))
            .expected("every piece")
            .found(format!("none of that name before {}", behind.display())));
    }
    let joined = Concat::new(pieces.into_iter().map(|p| p.disk).collect());
    Ok(Opened {
        disk: Arc::new(joined),
        path: first.path.with_extension(""),
        ..first
    })
}

impl Disk for Concat {
    fn len(&self) -> u64 {
        self.len
    }

    fn states_sector_size(&self) -> bool {
        false
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len, offset, buf.len())?;
        let (mut rest, mut offset) = (buf, offset);
        while !rest.is_empty() {
            let (disk, inside) = self.at(offset)?;
            let n = disk.len().saturating_sub(inside).min(rest.len() as u64);
            let (now, later) = rest.split_at_mut(usize::try_from(n).unwrap_or(0));
            disk.read_exact_at(now, inside)?;
            rest = later;
            offset = offset.saturating_add(n);
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len, offset)?;
        let (disk, inside) = self.at(offset)?;
        disk.run_at(inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemDisk, conformance};

    #[test]
    fn pieces_read_as_one() {
        let all: Vec<u8> = (0..10_000u32).map(|i| (i / 7) as u8).collect();
        for cuts in [
            vec![10_000],
            vec![1, 9_999],
            vec![512, 0, 4000, 5488],
            vec![],
        ] {
            let mut at = 0;
            let disks = cuts.iter().map(|n: &usize| {
                at += n;
                Arc::new(MemDisk::new(&all[at - n..at])) as Arc<dyn Disk>
            });
            let concat = Concat::new(disks.collect());
            conformance::check(&concat, if cuts.is_empty() { &[] } else { &all });
        }
    }
}
