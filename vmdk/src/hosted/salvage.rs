//! What a stream still holds that was cut short or lost its tables: its grains by their markers
//! (fact sheet, VMDK 6.1).

use super::{
    grain::{self, MARKER_LEN, Packed},
    header::Header,
};
use crate::descriptor::{Descriptor, remains::speaks_of_parent};
use disk_io::{
    Disk, DiskError, Result, Run, RunKind,
    disk::{check_range, check_run_offset},
    finding::join,
};
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// Bytes that are looked through for the next grain behind a damaged one.
const RESYNC: u64 = 16 << 20;

/// The kind of the marker before the grain directory.
const DIRECTORY: u32 = 2;

/// The disk that the grains of a stream make. What no grain has reads as zeros; where it may
/// have had more, [`Salvaged::lost`] says.
#[derive(Debug)]
pub struct Salvaged {
    file: Arc<dyn Disk>,
    name: String,
    grain: u64,
    len: u64,
    /// Where the marker of each grain is.
    grains: BTreeMap<u64, u64>,
    lost: Vec<Range<u64>>,
    /// Whether it has what follows its last grain.
    ended: bool,
}

impl Salvaged {
    /// Walks the stream in `file`, decoding every grain. `step` is told how far it has come.
    ///
    /// # Errors
    /// `Unsupported` for what is no compressed stream; `Corrupt` if its header is damaged.
    pub fn open(file: Arc<dyn Disk>, name: &str, step: &mut dyn FnMut(u64)) -> Result<Self> {
        let header = Header::read(&*file, name)?;
        let doing = "salvaging a stream";
        if !header.compressed() {
            return Err(DiskError::unsupported(doing)
                .file(name)
                .expected("a stream of compressed grains")
                .found("a disk whose grains only its tables tell"));
        }
        // Where a delta has no grain its parent may have one.
        let offset = header.descriptor_offset.saturating_mul(crate::SECTOR);
        let len = header.descriptor_size.saturating_mul(crate::SECTOR);
        if Descriptor::bytes_at(&*file, offset, len, name).is_ok_and(|t| speaks_of_parent(&t)) {
            return Err(DiskError::unsupported(doing)
                .file(name)
                .expected("a whole disk")
                .found("a delta: what it does not hold is its parent's"));
        }
        let bad = |what: &str| DiskError::corrupt(doing).file(name).found(what);
        let len = crate::bytes(header.capacity).ok_or_else(|| bad("an impossible capacity"))?;
        let grain = crate::bytes(header.grain_size).filter(|g| (512..=64 << 20).contains(g));
        let grain = grain.ok_or_else(|| bad("an impossible length of grains"))?;
        let mut salvaged = Self {
            file,
            name: name.to_owned(),
            grain,
            len,
            grains: BTreeMap::new(),
            lost: Vec::new(),
            ended: false,
        };
        let start = crate::bytes(header.over_head).filter(|o| *o >= crate::SECTOR);
        salvaged.walk(start.unwrap_or(crate::SECTOR), step)?;
        Ok(salvaged)
    }

    /// Ranges of the disk whose grains may have been in what is lost, in order.
    pub fn lost(&self) -> &[Range<u64>] {
        &self.lost
    }

    /// Grains that were found whole.
    pub fn grains(&self) -> usize {
        self.grains.len()
    }

    /// Whether the stream has what follows its last grain.
    pub fn ended(&self) -> bool {
        self.ended
    }

    fn walk(&mut self, start: u64, step: &mut dyn FnMut(u64)) -> Result<()> {
        let end = self.file.len();
        let mut buffer = vec![0; usize::try_from(self.grain).unwrap_or(0)];
        let mut at = start;
        // Behind the last grain that is whole.
        let mut next_byte = 0;
        let mut damaged = false;
        while at.saturating_add(crate::SECTOR) <= end {
            step(at);
            let mut head = [0; 16];
            self.file.read_exact_at(&mut head, at)?;
            let f = disk_io::Fields::new(&head, at, "marker");
            let (value, size, kind) = (f.u64_le(0)?, f.u32_le(8)?, f.u32_le(12)?);
            if size > 0 {
                if let Some(number) = self.decodes(at, value, &mut buffer)? {
                    let begin = number.saturating_mul(self.grain);
                    if damaged && begin > next_byte {
                        join(&mut self.lost, next_byte..begin);
                    }
                    damaged = false;
                    next_byte = begin.saturating_add(self.grain).min(self.len);
                    self.grains.insert(number, at);
                    let whole = u64::from(size).saturating_add(MARKER_LEN as u64);
                    at = at.saturating_add(whole.next_multiple_of(crate::SECTOR));
                    continue;
                }
            } else if value == 0 && kind == 0 {
                // The end, behind the directory. Before it: a hole where grains were.
                if self.ended {
                    break;
                }
            } else if kind <= 4 {
                let sectors = if kind == 4 { 0 } else { value };
                let skip = crate::bytes(sectors.saturating_add(1));
                let next = skip.and_then(|n| at.checked_add(n)).filter(|n| *n <= end);
                if let Some(next) = next {
                    // The directory comes when every grain is written.
                    self.ended |= kind == DIRECTORY && value > 0;
                    at = next;
                    continue;
                }
            }
            damaged = true;
            match self.next_grain(at, &mut buffer)? {
                Some(next) => at = next,
                None => break,
            }
        }
        if (!self.ended || damaged) && next_byte < self.len {
            join(&mut self.lost, next_byte..self.len);
        }
        Ok(())
    }

    /// The number of the grain whose marker is here, if it is whole.
    fn decodes(&self, at: u64, lba: u64, buffer: &mut [u8]) -> Result<Option<u64>> {
        let sectors = self.grain / crate::SECTOR;
        let (number, beside) = crate::split(lba, sectors.max(1));
        let begin = number.saturating_mul(self.grain);
        if beside != 0 || begin >= self.len {
            return Ok(None);
        }
        match grain::decode(&*self.file, &self.name, &self.packed(number, at), buffer) {
            Ok(()) => Ok(Some(number)),
            Err(e) if e.kind() == disk_io::ErrorKind::Io => Err(e),
            Err(_) => Ok(None),
        }
    }

    fn packed(&self, number: u64, at: u64) -> Packed {
        let begin = number.saturating_mul(self.grain);
        let needed = self.len.saturating_sub(begin).min(self.grain);
        Packed {
            offset: at,
            next: None,
            lba: begin / crate::SECTOR,
            needed: usize::try_from(needed).unwrap_or(usize::MAX),
        }
    }

    /// Where the next whole grain begins behind damage, not too far.
    fn next_grain(&self, at: u64, buffer: &mut [u8]) -> Result<Option<u64>> {
        let stop = at.saturating_add(RESYNC).min(self.file.len());
        let mut next = at.saturating_add(crate::SECTOR);
        let most = self.grain.saturating_mul(2);
        while next.saturating_add(crate::SECTOR) <= stop {
            let mut head = [0; 12];
            self.file.read_exact_at(&mut head, next)?;
            let f = disk_io::Fields::new(&head, next, "marker");
            let (lba, size) = (f.u64_le(0)?, u64::from(f.u32_le(8)?));
            if (1..=most).contains(&size) && self.decodes(next, lba, buffer)?.is_some() {
                return Ok(Some(next));
            }
            next = next.saturating_add(crate::SECTOR);
        }
        Ok(None)
    }
}

impl Disk for Salvaged {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len, offset, buf.len())?;
        let mut whole = vec![0; usize::try_from(self.grain).unwrap_or(0)];
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let (number, from) = crate::split(at, self.grain);
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            let n = whole.len().saturating_sub(from).min(rest.len());
            let (now, later) = rest.split_at_mut(n);
            match self.grains.get(&number) {
                None => now.fill(0),
                Some(place) => {
                    let packed = self.packed(number, *place);
                    grain::decode(&*self.file, &self.name, &packed, &mut whole)?;
                    now.copy_from_slice(
                        whole.get(from..from.saturating_add(n)).unwrap_or_default(),
                    );
                }
            }
            at = at.saturating_add(n as u64);
            rest = later;
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len, offset)?;
        let (number, _) = crate::split(offset, self.grain);
        let next = self.grains.range(number..).next().map(|(n, _)| *n);
        let (kind, end) = match next {
            Some(next) if next == number => (RunKind::Data, number.saturating_add(1)),
            Some(next) => (RunKind::Unallocated, next),
            None => (RunKind::Unallocated, u64::MAX),
        };
        let end = end.saturating_mul(self.grain).min(self.len);
        Ok(Run {
            len: end.saturating_sub(offset).max(1),
            kind,
        })
    }
}
