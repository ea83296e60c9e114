//! A logical volume: ranges of several disks put together, one after the other, in stripes,
//! or as mirrors. What lies on a disk that is not here is data whose read fails.

use disk_io::{
    Disk, DiskError, Result, Run, RunKind,
    disk::{check_range, check_run_offset},
};
use std::sync::Arc;

/// A place on a disk that may be missing.
#[derive(Clone, Debug)]
pub struct Leg {
    /// The disk; `None` if it is not here.
    pub disk: Option<Arc<dyn Disk>>,
    /// Where the range begins on it, in bytes.
    pub offset: u64,
    /// What the disk is called, for errors.
    pub name: String,
}

/// How a piece is made up.
#[derive(Clone, Debug)]
pub enum Layout {
    /// The same bytes in each place.
    Mirror(Vec<Leg>),
    /// `chunk` bytes from each place in turn.
    Striped {
        /// The places, in order.
        columns: Vec<Leg>,
        /// Bytes taken from one before the next.
        chunk: u64,
    },
    /// Something that cannot be put together here: why.
    Refused(DiskError),
}

impl Layout {
    /// Every place it names.
    pub fn legs(&self) -> &[Leg] {
        match self {
            Self::Mirror(legs) => legs,
            Self::Striped { columns, .. } => columns,
            Self::Refused(_) => &[],
        }
    }
}

/// Names of the disks that `pieces` lie on and that are not here, each once.
pub fn missing<'a>(pieces: impl IntoIterator<Item = &'a Piece>) -> Vec<String> {
    let mut names: Vec<String> = pieces
        .into_iter()
        .flat_map(|p| p.layout.legs())
        .filter(|leg| leg.disk.is_none())
        .map(|leg| leg.name.clone())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// A range of the volume.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Where it begins in the volume, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub len: u64,
    /// What it is made of.
    pub layout: Layout,
}

/// A volume put together from pieces.
#[derive(Clone, Debug)]
pub struct Mapped {
    len: u64,
    pieces: Vec<Piece>,
    sector_size: u32,
}

impl Mapped {
    /// A volume of `len` bytes. Pieces may come in any order; where two overlap, the volume
    /// is refused.
    pub fn new(len: u64, mut pieces: Vec<Piece>) -> Result<Self> {
        pieces.retain(|p| p.len > 0);
        pieces.sort_by_key(|p| p.start);
        for pair in pieces.windows(2) {
            if let [a, b] = pair
                && a.start.saturating_add(a.len) > b.start
            {
                return Err(DiskError::corrupt("putting a volume together")
                    .expected("pieces that do not overlap")
                    .found(format!("two that both hold the byte {}", b.start)));
            }
        }
        let sector_size = pieces
            .iter()
            .flat_map(|p| p.layout.legs())
            .find_map(|leg| leg.disk.as_ref())
            .map_or(512, |d| d.sector_size());
        Ok(Self {
            len,
            pieces,
            sector_size,
        })
    }

    /// The places of the byte at `offset`, each good for its bytes, and for how many.
    fn place(&self, offset: u64) -> (Result<Vec<Leg>>, u64) {
        let n = self.pieces.partition_point(|p| p.start <= offset);
        let next = self
            .pieces
            .get(n)
            .map_or(self.len, |p| p.start.min(self.len));
        let rest = next.saturating_sub(offset).max(1);
        let piece = n.checked_sub(1).and_then(|n| self.pieces.get(n));
        let Some((piece, inside)) = piece
            .and_then(|p| Some((p, offset.checked_sub(p.start)?)))
            .filter(|(p, inside)| *inside < p.len)
        else {
            let e = DiskError::corrupt("reading a logical volume")
                .offset(offset)
                .found("a range that no disk of the group holds");
            return (Err(e), rest);
        };
        let left = piece.len.saturating_sub(inside).min(rest);
        let at = |leg: &Leg, skip: u64| Leg {
            offset: leg.offset.saturating_add(skip),
            ..leg.clone()
        };
        match &piece.layout {
            Layout::Mirror(legs) => (Ok(legs.iter().map(|l| at(l, inside)).collect()), left),
            Layout::Refused(e) => (Err(e.clone()), left),
            Layout::Striped { columns, chunk } => {
                let split = || {
                    let count = u64::try_from(columns.len()).ok()?;
                    let row = inside.checked_div(*chunk)?;
                    let skip = inside.checked_rem(*chunk)?;
                    let column = usize::try_from(row.checked_rem(count)?).ok()?;
                    let deep = row
                        .checked_div(count)?
                        .checked_mul(*chunk)?
                        .checked_add(skip)?;
                    Some((at(columns.get(column)?, deep), chunk.checked_sub(skip)?))
                };
                match split() {
                    Some((leg, here)) => (Ok(vec![leg]), here.min(left)),
                    None => {
                        let e = DiskError::corrupt("reading a striped volume")
                            .found("no columns, or stripes of no length");
                        (Err(e), left)
                    }
                }
            }
        }
    }
}

/// Reads from the first place that can be read.
fn read(legs: &[Leg], buf: &mut [u8], offset: u64) -> Result<()> {
    let mut failure = None;
    for leg in legs {
        let done = match &leg.disk {
            Some(disk) if leg.offset.saturating_add(buf.len() as u64) > disk.len() => {
                Err(DiskError::corrupt("reading a logical volume")
                    .offset(offset)
                    .expected(format!("the byte {} on the disk {}", leg.offset, leg.name))
                    .found(format!("a disk of {} bytes", disk.len())))
            }
            Some(disk) => disk.read_exact_at(buf, leg.offset),
            None => Err(DiskError::not_found("reading a logical volume")
                .offset(offset)
                .found(format!("that the disk {} is not here", leg.name))
                .hint("give all disks of the group")),
        };
        match done {
            Ok(()) => return Ok(()),
            Err(e) => failure = failure.or(Some(e)),
        }
    }
    Err(failure.unwrap_or_else(|| {
        DiskError::corrupt("reading a logical volume").found("a piece without a place")
    }))
}

impl Disk for Mapped {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len, offset, buf.len())?;
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let (legs, len) = self.place(at);
            let n = usize::try_from(len)
                .unwrap_or(usize::MAX)
                .clamp(1, rest.len());
            let (now, later) = rest.split_at_mut(n);
            read(&legs?, now, at)?;
            rest = later;
            at = at.saturating_add(n as u64);
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len, offset)?;
        let (legs, len) = self.place(offset);
        let data = Run {
            len,
            kind: RunKind::Data,
        };
        let Some(leg) = legs.ok().and_then(|l| l.into_iter().next()) else {
            return Ok(data);
        };
        let below = leg.disk.and_then(|d| d.run_at(leg.offset).ok());
        Ok(below.map_or(data, |run| Run {
            len: run.len.min(len),
            kind: run.kind,
        }))
    }

    fn will_read(&self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.len);
        let mut at = offset;
        while at < end {
            let (legs, here) = self.place(at);
            let n = here.clamp(1, end.saturating_sub(at).max(1));
            if let Some(leg) = legs.ok().and_then(|l| l.into_iter().next())
                && let Some(disk) = leg.disk
            {
                disk.will_read(leg.offset, n);
            }
            at = at.saturating_add(n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk_io::MemDisk;

    fn leg(bytes: &[u8], offset: u64) -> Leg {
        Leg {
            disk: Some(Arc::new(MemDisk::new(bytes))),
            offset,
            name: "d".into(),
        }
    }

    #[test]
    fn stripes_concatenation_and_mirrors_keep_the_contract() {
        let bytes: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        let (a, b) = bytes.split_at(50_000);
        let mut columns = [Vec::new(), Vec::new(), Vec::new()];
        for (n, chunk) in bytes[..96_000].chunks(1000).enumerate() {
            columns[n % 3].extend_from_slice(chunk);
        }
        let concat = vec![
            Piece {
                start: 50_000,
                len: 50_000,
                layout: Layout::Mirror(vec![leg(b, 0)]),
            },
            Piece {
                start: 0,
                len: 50_000,
                layout: Layout::Mirror(vec![leg(a, 0)]),
            },
        ];
        disk_io::conformance::check(&Mapped::new(100_000, concat).unwrap(), &bytes);
        let striped = vec![Piece {
            start: 0,
            len: 96_000,
            layout: Layout::Striped {
                columns: columns.iter().map(|c| leg(c, 0)).collect(),
                chunk: 1000,
            },
        }];
        disk_io::conformance::check(&Mapped::new(96_000, striped).unwrap(), &bytes[..96_000]);
        let gone = Leg {
            disk: None,
            offset: 0,
            name: "gone".into(),
        };
        let mirror = vec![Piece {
            start: 0,
            len: 50_000,
            layout: Layout::Mirror(vec![gone.clone(), leg(a, 0)]),
        }];
        disk_io::conformance::check(&Mapped::new(50_000, mirror).unwrap(), a);
        let holes = vec![Piece {
            start: 0,
            len: 10,
            layout: Layout::Mirror(vec![gone]),
        }];
        let holes = Mapped::new(30, holes).unwrap();
        assert!(
            holes
                .read_exact_at(&mut [0], 0)
                .unwrap_err()
                .to_string()
                .contains("gone")
        );
        assert!(holes.read_exact_at(&mut [0], 20).is_err());
        assert_eq!(holes.run_at(0).unwrap().kind, RunKind::Data);
        let twice = vec![
            Piece {
                start: 0,
                len: 10,
                layout: Layout::Mirror(vec![leg(a, 0)]),
            },
            Piece {
                start: 9,
                len: 10,
                layout: Layout::Mirror(vec![leg(a, 0)]),
            },
        ];
        assert!(Mapped::new(30, twice).is_err());
    }
}
