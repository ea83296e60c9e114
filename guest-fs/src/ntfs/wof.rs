//! Files compressed by the Windows Overlay Filter (CompactOS): chunks in a stream of their
//! own, behind a table of where each ends.

mod huffman;
pub(crate) mod lzx;
pub(crate) mod xpress;

use super::{reparse::Wof, volume::Volume};
use disk_io::{
    Disk, DiskError, Result, Run, RunKind,
    disk::{check_range, check_run_offset},
};
use std::sync::Arc;

/// The stream that holds the chunks.
pub(crate) const STREAM: &str = "WofCompressedData";
/// Entries of the table are read and kept in pieces of this many bytes.
const TABLE_PAGE: u64 = 8192;
/// Chunks are read together up to this many stored bytes.
const BATCH: u64 = 1 << 20;

/// A compressed file.
#[derive(Debug)]
pub(crate) struct Compact {
    volume: Arc<Volume>,
    what: String,
    /// Table and chunks.
    stream: Arc<dyn Disk>,
    len: u64,
    method: Wof,
    chunk: u64,
    chunks: u64,
    /// Bytes in an entry of the table: 8 for files over 4 GiB.
    entry: u64,
    id: u64,
}

impl Compact {
    /// `len` is the size of the file, `stream` its [`STREAM`].
    pub(crate) fn new(
        volume: Arc<Volume>,
        what: String,
        stream: Arc<dyn Disk>,
        len: u64,
        method: Wof,
    ) -> Result<Self> {
        let chunk = match method {
            Wof::Xpress(size) => u64::from(size),
            Wof::Lzx => 32 << 10,
        };
        let chunks = len.div_ceil(chunk);
        let compact = Self {
            id: volume.next_id(),
            volume,
            entry: if len > u64::from(u32::MAX) { 8 } else { 4 },
            what,
            stream,
            len,
            method,
            chunk,
            chunks,
        };
        if compact.table() > compact.stream.len() {
            return Err(compact
                .fail(0)
                .expected(format!("a table of {} bytes", compact.table()))
                .found(format!("a stream of {}", compact.stream.len())));
        }
        Ok(compact)
    }

    fn fail(&self, offset: u64) -> DiskError {
        DiskError::corrupt(format!("decompressing {}", self.what)).offset(offset)
    }

    /// Bytes of the table, which has no entry for the first chunk: it begins at 0.
    fn table(&self) -> u64 {
        self.chunks.saturating_sub(1).saturating_mul(self.entry)
    }

    /// Where chunk `index` begins behind the table; for the number of chunks, where the
    /// last one ends.
    fn start(&self, index: u64) -> Result<u64> {
        if index == 0 {
            return Ok(0);
        }
        if index >= self.chunks {
            return Ok(self.stream.len().saturating_sub(self.table()));
        }
        let at = index.saturating_sub(1).saturating_mul(self.entry);
        let skip = (at % TABLE_PAGE) as usize;
        let page = self.table_page(at / TABLE_PAGE)?;
        let entry = page.get(skip..).unwrap_or_default();
        let start = if self.entry == 8 {
            entry.first_chunk().map(|b| u64::from_le_bytes(*b))
        } else {
            entry
                .first_chunk()
                .map(|b| u64::from(u32::from_le_bytes(*b)))
        };
        start.ok_or_else(|| self.fail(at).found("a table that is cut off"))
    }

    fn table_page(&self, page: u64) -> Result<Arc<[u8]>> {
        // Chunks and pages share a cache; offsets of chunks are below 2^63.
        let key = (self.id, page | 1 << 63);
        if let Some(page) = self.volume.units.get(&key) {
            return Ok(page);
        }
        let start = page.saturating_mul(TABLE_PAGE);
        let len = self.table().saturating_sub(start).min(TABLE_PAGE);
        let mut bytes = vec![0; len as usize];
        self.stream.read_exact_at(&mut bytes, start)?;
        let page: Arc<[u8]> = bytes.into();
        self.volume.units.insert(key, page.clone());
        Ok(page)
    }

    /// Where chunk `index` lies in the stream, (start, length), and its decoded length.
    fn place(&self, index: u64) -> Result<(u64, u64, u64)> {
        let (start, end) = (self.start(index)?, self.start(index.saturating_add(1))?);
        let offset = index.saturating_mul(self.chunk);
        let decoded = self.len.saturating_sub(offset).min(self.chunk);
        let room = self.stream.len().saturating_sub(self.table());
        match end.checked_sub(start) {
            Some(n) if n > 0 && n <= decoded && end <= room => {
                Ok((self.table().saturating_add(start), n, decoded))
            }
            _ => Err(self
                .fail(offset)
                .expected(format!("a chunk of 1 to {decoded} bytes inside {room}"))
                .found(format!("one from {start} to {end}"))),
        }
    }

    /// Decodes one chunk. A chunk as long as its contents is stored as it is.
    fn decode(&self, index: u64, coded: &[u8], out: &mut [u8]) -> Result<()> {
        if coded.len() == out.len() {
            out.copy_from_slice(coded);
            return Ok(());
        }
        match self.method {
            Wof::Xpress(_) => xpress::decode(coded, out),
            Wof::Lzx => lzx::decode(coded, out),
        }
        .map_err(|problem| {
            self.fail(index.saturating_mul(self.chunk))
                .found(format!("a {:?} chunk with {problem}", self.method))
        })
    }

    /// Reads and decodes whole chunks from `index` on into `out`, which begins and ends with
    /// a chunk; as many as fit one batch. Returns how many bytes.
    fn whole(&self, index: u64, out: &mut [u8]) -> Result<usize> {
        let (start, _, _) = self.place(index)?;
        let mut plan = Vec::new();
        let mut left = out.len() as u64;
        let mut end = start;
        let mut next = index;
        while left > 0 {
            let (at, n, decoded) = self.place(next)?;
            if at != end || decoded > left {
                break;
            }
            let total = at.saturating_add(n).saturating_sub(start);
            if total > BATCH && !plan.is_empty() {
                break;
            }
            plan.push((n as usize, decoded as usize));
            end = at.saturating_add(n);
            left = left.saturating_sub(decoded);
            next = next.saturating_add(1);
        }
        let mut coded = vec![0; end.saturating_sub(start) as usize];
        self.stream.read_exact_at(&mut coded, start)?;
        let (mut coded, mut rest) = (coded.as_slice(), out);
        let mut done = 0usize;
        for (number, (n, decoded)) in (index..).zip(plan) {
            let (now, later) = coded.split_at(n.min(coded.len()));
            let (to, behind) = rest.split_at_mut(decoded.min(rest.len()));
            self.decode(number, now, to)?;
            coded = later;
            rest = behind;
            done = done.saturating_add(decoded);
        }
        Ok(done)
    }

    /// One decoded chunk, through the cache.
    fn cached(&self, index: u64) -> Result<Arc<[u8]>> {
        let key = (self.id, index);
        if let Some(chunk) = self.volume.units.get(&key) {
            return Ok(chunk);
        }
        let (start, n, decoded) = self.place(index)?;
        let mut coded = vec![0; n as usize];
        self.stream.read_exact_at(&mut coded, start)?;
        let mut out = vec![0; decoded as usize];
        self.decode(index, &coded, &mut out)?;
        let chunk: Arc<[u8]> = out.into();
        self.volume.units.insert(key, chunk.clone());
        Ok(chunk)
    }
}

impl Disk for Compact {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.stream.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len, offset, buf.len())?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let index = at.checked_div(self.chunk).unwrap_or(0);
            let skip = at.saturating_sub(index.saturating_mul(self.chunk));
            let decoded = self
                .len
                .saturating_sub(at.saturating_sub(skip))
                .min(self.chunk);
            let n = if skip == 0 && rest.len() as u64 >= decoded {
                self.whole(index, rest)?
            } else {
                let chunk = self.cached(index)?;
                let n = rest.len().min(decoded.saturating_sub(skip) as usize);
                let from = skip as usize;
                match (rest.get_mut(..n), chunk.get(from..from.saturating_add(n))) {
                    (Some(to), Some(part)) => to.copy_from_slice(part),
                    _ => return Err(self.fail(at)),
                }
                n
            };
            if n == 0 {
                return Err(self.fail(at).found("a chunk of no bytes"));
            }
            rest = rest.split_at_mut(n.min(rest.len())).1;
            at = at.saturating_add(n as u64);
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len, offset)?;
        Ok(Run {
            len: self.len.saturating_sub(offset),
            kind: RunKind::Data,
        })
    }
}
