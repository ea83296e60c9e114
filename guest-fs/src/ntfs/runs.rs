//! Data runs: which clusters hold a stream.

use disk_io::{DiskError, Result};

/// Where a piece of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    /// From this cluster of the volume on.
    At(u64),
    /// Nowhere: zeros.
    Hole,
    /// Not known, because of the error with this number.
    Lost(u32),
}

/// Clusters that follow each other in the stream and on the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// First cluster in the stream.
    pub(crate) vcn: u64,
    /// How many; at least 1.
    pub(crate) clusters: u64,
    /// Where.
    pub(crate) place: Where,
}

impl Piece {
    /// The cluster in the stream behind the piece.
    pub(crate) fn end(&self) -> u64 {
        self.vcn.saturating_add(self.clusters)
    }
}

/// All pieces of a stream, from cluster 0 on without a gap.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunList {
    pieces: Vec<Piece>,
    lost: Vec<DiskError>,
}

/// More pieces than any real file has; a bound for memory.
const MAX_PIECES: usize = 1 << 21;

impl RunList {
    /// The pieces, ascending.
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The cluster behind the last piece.
    pub(crate) fn end(&self) -> u64 {
        self.pieces.last().map_or(0, Piece::end)
    }

    /// The errors of lost pieces.
    pub(crate) fn lost(&self) -> &[DiskError] {
        &self.lost
    }

    /// The error of a lost piece.
    pub(crate) fn error(&self, number: u32) -> DiskError {
        self.lost.get(number as usize).cloned().unwrap_or_else(|| {
            DiskError::corrupt("reading a lost piece of a stream")
                .found("an error that was not kept")
        })
    }

    /// Index of the piece that holds cluster `vcn`.
    pub(crate) fn find(&self, vcn: u64) -> Option<usize> {
        let at = self.pieces.partition_point(|p| p.end() <= vcn);
        (at < self.pieces.len()).then_some(at)
    }

    /// Appends clusters; contiguous ones are joined.
    pub(crate) fn push(&mut self, clusters: u64, place: Where) -> Result<()> {
        if clusters == 0 {
            return Ok(());
        }
        let vcn = self.end();
        let too_long =
            || DiskError::corrupt("joining data runs").found("a stream of over 2^63 clusters");
        if vcn.checked_add(clusters).is_none_or(|end| end > 1 << 63) {
            return Err(too_long());
        }
        if let Some(last) = self.pieces.last_mut() {
            let joins = match (last.place, place) {
                (Where::At(a), Where::At(b)) => a.checked_add(last.clusters) == Some(b),
                (a, b) => a == b,
            };
            if joins {
                last.clusters = last.clusters.checked_add(clusters).ok_or_else(too_long)?;
                return Ok(());
            }
        }
        if self.pieces.len() >= MAX_PIECES {
            return Err(DiskError::refused("joining data runs")
                .expected(format!("at most {MAX_PIECES} fragments")));
        }
        self.pieces.push(Piece {
            vcn,
            clusters,
            place,
        });
        Ok(())
    }

    /// Appends clusters that cannot be known because of `error`.
    pub(crate) fn push_lost(&mut self, clusters: u64, error: DiskError) -> Result<()> {
        if clusters == 0 {
            return Ok(());
        }
        let number = u32::try_from(self.lost.len()).unwrap_or(u32::MAX);
        self.lost.push(error);
        self.push(clusters, Where::Lost(number))
    }

    /// The same list with every piece asked for again: `split` gets each stored piece and
    /// pushes what it is made of.
    pub(crate) fn rebuild(
        &self,
        mut split: impl FnMut(&Piece, u64, &mut Self) -> Result<()>,
    ) -> Result<Self> {
        let mut out = Self {
            pieces: Vec::new(),
            lost: self.lost.clone(),
        };
        for piece in &self.pieces {
            match piece.place {
                Where::At(lcn) => split(piece, lcn, &mut out)?,
                other => out.push(piece.clusters, other)?,
            }
        }
        Ok(out)
    }
}

/// Decodes the mapping pairs of one attribute piece into (clusters, first cluster or hole).
///
/// A run without an offset field is a hole; a run whose offset field holds 0 lies where the
/// last one began, which for the first run is cluster 0 ($Boot): not a hole.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<(u64, Option<u64>)>> {
    let bad = |at: usize, found: String| {
        DiskError::corrupt("decoding data runs").found(format!("{found} at byte {at} of them"))
    };
    let mut out = Vec::new();
    let mut at = 0usize;
    let mut lcn = 0i64;
    loop {
        let Some(&header) = bytes.get(at) else {
            return Err(bad(at, "no end mark".into()));
        };
        if header == 0 {
            return Ok(out);
        }
        let (len_size, offset_size) = (usize::from(header & 15), usize::from(header >> 4));
        let len_at = at.saturating_add(1);
        let offset_at = len_at.saturating_add(len_size);
        let next = offset_at.saturating_add(offset_size);
        let (Some(len), Some(offset)) = (bytes.get(len_at..offset_at), bytes.get(offset_at..next))
        else {
            return Err(bad(at, "a run that is cut off".into()));
        };
        if len_size == 0 || len_size > 8 || offset_size > 8 {
            return Err(bad(at, format!("a run header {header:#04x}")));
        }
        let clusters = match u64::try_from(signed(len)) {
            Ok(n) if n > 0 => n,
            // Lengths are signed too.
            _ => {
                return Err(bad(at, format!("a run of {} clusters", signed(len))));
            }
        };
        if offset_size == 0 {
            out.push((clusters, None));
        } else {
            lcn = lcn
                .checked_add(signed(offset))
                .ok_or_else(|| bad(at, "a cluster number that overflows".into()))?;
            match u64::try_from(lcn) {
                Ok(first) if first.checked_add(clusters).is_some() => {
                    out.push((clusters, Some(first)));
                }
                // NTFS 1.2 writes holes as cluster -1.
                _ if lcn == -1 => out.push((clusters, None)),
                _ => return Err(bad(at, format!("cluster {lcn}"))),
            }
        }
        at = next;
    }
}

/// A little-endian two's complement number of 0 to 8 bytes.
fn signed(bytes: &[u8]) -> i64 {
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut full = if negative { [0xff; 8] } else { [0; 8] };
    for (to, from) in full.iter_mut().zip(bytes) {
        *to = *from;
    }
    i64::from_le_bytes(full)
}

#[cfg(test)]
mod tests {
    use super::{RunList, Where, decode};
    use proptest::prelude::*;

    #[test]
    fn cluster_0_is_no_hole() {
        // Two clusters at LCN 0, then a hole of 3, then delta 0: LCN 0 again.
        let runs = decode(&[0x11, 2, 0, 0x01, 3, 0x11, 1, 0, 0]).unwrap();
        assert_eq!(runs, [(2, Some(0)), (3, None), (1, Some(0))]);
    }

    #[test]
    fn negative_delta_and_bad_ones() {
        let runs = decode(&[0x21, 4, 0, 1, 0x11, 5, 0xf0, 0]).unwrap();
        assert_eq!(runs, [(4, Some(256)), (5, Some(240))]);
        assert!(decode(&[0x11, 1, 0xfe, 0]).is_err(), "LCN -2");
        assert!(decode(&[0x11, 0, 1, 0]).is_err(), "no clusters");
        assert!(decode(&[0x10, 1, 0]).is_err(), "no length");
        assert!(decode(&[0x11, 1]).is_err(), "cut off");
        assert!(decode(&[]).is_err(), "no end mark");
        let far = [
            0x88, 1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 0x7f, 0,
        ];
        assert!(decode(&far).is_ok());
        let twice: Vec<u8> = far[..17].iter().chain(&far).copied().collect();
        assert!(decode(&twice).is_err(), "overflow");
    }

    #[test]
    fn joins_and_finds() {
        let mut list = RunList::default();
        list.push(2, Where::At(10)).unwrap();
        list.push(3, Where::At(12)).unwrap();
        list.push(1, Where::Hole).unwrap();
        assert_eq!(list.pieces().len(), 2);
        assert_eq!(list.find(4), Some(0));
        assert_eq!(list.find(5), Some(1));
        assert_eq!(list.find(6), None);
        assert!(list.push(u64::MAX, Where::Hole).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
