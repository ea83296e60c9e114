//! The bytes of a member: all of a file, or a map of its data and the data alone.

use crate::progress::Progress;
use disk_io::{Disk, DiskError};
use std::io::{self, Read};

/// Holes in fewer bytes than this are not worth a map.
const WORTH: u64 = 64 << 10;
/// Pieces of data that a map may have: memory must not grow with what a guest made.
const MOST: usize = 100_000;
const BUFFER: u64 = 1 << 20;
/// Data begins and, but for the end of the file, ends at multiples of this.
const BLOCK: u64 = 4096;

/// Reads a disk for an archive. What cannot be read is zeros, and remembered.
pub(super) struct Contents<'a> {
    disk: &'a dyn Disk,
    progress: &'a dyn Progress,
    /// The map, and how much of it was given out.
    map: Vec<u8>,
    given: usize,
    /// Ranges still to be given out, the next one last.
    ranges: Vec<(u64, u64)>,
    stored: u64,
    buffer: Vec<u8>,
    used: usize,
    error: Option<DiskError>,
}

impl<'a> Contents<'a> {
    /// `holes`: leave them out, where that is worth it.
    pub(super) fn new(disk: &'a dyn Disk, progress: &'a dyn Progress, holes: bool) -> Self {
        let mut this = Self {
            disk,
            progress,
            map: Vec::new(),
            given: 0,
            ranges: vec![(0, disk.len())],
            stored: disk.len(),
            buffer: Vec::new(),
            used: 0,
            error: None,
        };
        if holes && let Some(ranges) = data(disk) {
            this.make_sparse(ranges);
        }
        this
    }

    fn make_sparse(&mut self, mut ranges: Vec<(u64, u64)>) {
        // A map ends with the end of the file.
        let end = ranges.last().map_or(0, |(at, len)| at + len);
        if end < self.disk.len() {
            ranges.push((self.disk.len(), 0));
        }
        let mut map = format!("{}\n", ranges.len());
        for (at, len) in &ranges {
            map.push_str(&format!("{at}\n{len}\n"));
        }
        self.map = map.into_bytes();
        self.map.resize(self.map.len().next_multiple_of(512), 0);
        self.stored = self.map.len() as u64 + ranges.iter().map(|(_, len)| len).sum::<u64>();
        ranges.reverse();
        self.ranges = ranges;
    }

    /// Length of the file.
    pub(super) fn len(&self) -> u64 {
        self.disk.len()
    }

    /// Bytes of the member.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    pub(super) fn is_sparse(&self) -> bool {
        !self.map.is_empty()
    }

    /// Why not everything could be read.
    pub(super) fn error(self) -> Option<DiskError> {
        self.error
    }

    fn fill(&mut self) -> io::Result<()> {
        while let Some((at, len)) = self.ranges.pop() {
            if len == 0 {
                continue;
            }
            if self.progress.cancelled() {
                return Err(io::Error::other("stopping as asked"));
            }
            let n = len.min(BUFFER);
            if n < len {
                self.ranges.push((at + n, len - n));
            }
            self.buffer.resize(n as usize, 0);
            self.used = 0;
            // After an error the rest is not tried: the file is broken anyway.
            let read = match &self.error {
                None => self.disk.read_exact_at(&mut self.buffer, at),
                Some(_) => {
                    self.buffer.fill(0);
                    Ok(())
                }
            };
            if let Err(e) = read {
                self.buffer.fill(0);
                self.error = Some(e.context(format!("reading byte {at}")));
            }
            self.progress.advance(n);
            return Ok(());
        }
        self.buffer.clear();
        self.used = 0;
        Ok(())
    }
}

/// The data of a disk, where leaving out its holes is worth it.
fn data(disk: &dyn Disk) -> Option<Vec<(u64, u64)>> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let (mut at, mut holes) = (0, 0);
    while at < disk.len() {
        // An error shows when the bytes are read.
        let run = disk.run_at(at).ok()?;
        if run.kind.reads_as_zero() {
            holes += run.len;
        } else {
            // Readers take data in whole blocks; what is added are zeros of the hole.
            let from = at - at % BLOCK;
            let to = (at + run.len).next_multiple_of(BLOCK).min(disk.len());
            match ranges.last_mut() {
                Some(last) if last.0 + last.1 >= from => last.1 = to - last.0,
                _ => ranges.push((from, to - from)),
            }
            if ranges.len() > MOST {
                return None;
            }
        }
        at += run.len;
    }
    (holes >= WORTH).then_some(ranges)
}

impl Read for Contents<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let map = self.map.get(self.given..).unwrap_or_default();
        if !map.is_empty() {
            let n = map.len().min(out.len());
            for (to, from) in out.iter_mut().zip(map) {
                *to = *from;
            }
            self.given += n;
            return Ok(n);
        }
        if self.used >= self.buffer.len() {
            self.fill()?;
        }
        let ready = self.buffer.get(self.used..).unwrap_or_default();
        let n = ready.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..n), ready.get(..n)) {
            to.copy_from_slice(from);
        }
        self.used += n;
        Ok(n)
    }
}
