//! A file that the package holds in pieces: `disk1.vmdk.000000000`, `….000000001`, ….

use disk_io::{
    Disk, DiskError, ErrorKind, Locate, Opened, Purpose, Result, Run,
    disk::{check_range, check_run_offset},
};
use std::{path::Path, sync::Arc};

const MAX_CHUNKS: u32 = 100_000;

/// Disks one after the other.
#[derive(Debug)]
pub(super) struct Concat {
    /// (where it begins, piece), ascending.
    pieces: Vec<(u64, Arc<dyn Disk>)>,
    len: u64,
}

impl Concat {
    pub(super) fn new(disks: Vec<Arc<dyn Disk>>) -> Self {
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

/// Opens the pieces of `name`. All but the last are `chunk_size` bytes long.
pub(super) fn open(place: &dyn Locate, name: &str, chunk_size: u64) -> Result<Opened> {
    let mut pieces: Vec<Opened> = Vec::new();
    for n in 0..MAX_CHUNKS {
        let piece = format!("{name}.{n:09}");
        let opened = match place.open(Path::new(&piece), Purpose::Member) {
            Ok(opened) => opened,
            Err(e) if e.kind() == ErrorKind::NotFound && n > 0 => break,
            Err(e) => return Err(e),
        };
        if let Some(last) = pieces.last()
            && last.disk.len() != chunk_size
        {
            return Err(DiskError::corrupt("joining the pieces of a file")
                .file(last.path.display())
                .expected(format!("{chunk_size} bytes"))
                .found(last.disk.len().to_string()));
        }
        pieces.push(opened);
    }
    let Some(first) = pieces.first().cloned() else {
        return Err(DiskError::not_found("joining the pieces of a file").file(name));
    };
    let whole = Concat::new(pieces.into_iter().map(|p| p.disk).collect());
    Ok(Opened {
        disk: Arc::new(whole),
        path: first.path.with_extension(""),
        ..first
    })
}

impl Disk for Concat {
    fn len(&self) -> u64 {
        self.len
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
    use disk_io::{MemDisk, conformance};

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
