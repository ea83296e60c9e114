//! A compressed member. A gzip stream can only be read from its beginning, so it is
//! unpacked once, into a temporary file that has no name.

use disk_io::{
    Disk, DiskError, Opened, Result, Run, RunKind,
    disk::{check_range, check_run_offset},
    zero::is_zero,
};
use flate2::read::MultiGzDecoder;
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::Arc,
};

/// What a member may become when no other limit is given: 1 TiB.
pub const UNPACK_LIMIT: u64 = 1 << 40;
/// Deflate cannot do better than 1032 to 1.
const BEST_RATIO: u64 = 1040;

/// An unpacked member.
#[derive(Debug)]
struct Unpacked {
    file: File,
    len: u64,
}

/// Unpacks `source`, at most `limit` bytes of it. Zeros take no room.
pub(super) fn unpack(source: Opened, limit: u64) -> Result<Opened> {
    let path = source.path.clone();
    let io_failed =
        |doing: &str, e: &io::Error| DiskError::io(doing.to_string(), e).file(path.display());
    let file = tempfile::tempfile().map_err(|e| io_failed("making a temporary file", &e))?;
    let limit = limit.min(source.disk.len().saturating_mul(BEST_RATIO));
    let mut stream = MultiGzDecoder::new(io::BufReader::with_capacity(
        256 << 10,
        Sequential {
            disk: source.disk.clone(),
            at: 0,
        },
    ));
    let mut buf = vec![0; 256 << 10];
    let mut len = 0u64;
    loop {
        let n = read_full(&mut stream, &mut buf).map_err(|e| {
            // A failed read below is that; anything else is the stream's own fault.
            match e
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<DiskError>())
            {
                Some(inner) => inner.clone(),
                None => DiskError::corrupt("unpacking a gzip member")
                    .file(path.display())
                    .found(e.to_string()),
            }
        })?;
        let part = buf.get(..n).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        if len.saturating_add(n as u64) > limit {
            return Err(DiskError::refused("unpacking a gzip member")
                .file(path.display())
                .expected(format!("at most {limit} bytes"))
                .found("more"));
        }
        if !is_zero(part) {
            file.write_all_at(part, len)
                .map_err(|e| io_failed("unpacking into a temporary file", &e))?;
        }
        len = len.saturating_add(n as u64);
    }
    file.set_len(len)
        .map_err(|e| io_failed("unpacking into a temporary file", &e))?;
    Ok(Opened {
        disk: Arc::new(Unpacked { file, len }),
        ..source
    })
}

/// Fills `buf` unless the stream ends.
fn read_full(stream: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0usize;
    while let Some(rest) = buf.get_mut(done..)
        && !rest.is_empty()
    {
        match stream.read(rest) {
            Ok(0) => break,
            Ok(n) => done = done.saturating_add(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

struct Sequential {
    disk: Arc<dyn Disk>,
    at: u64,
}

impl Read for Sequential {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.disk.len().saturating_sub(self.at);
        let n = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        if let Some(part) = buf.get_mut(..n) {
            self.disk.read_exact_at(part, self.at)?;
        }
        self.at = self.at.saturating_add(n as u64);
        Ok(n)
    }
}

impl Disk for Unpacked {
    fn len(&self) -> u64 {
        self.len
    }

    fn states_sector_size(&self) -> bool {
        false
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len, offset, buf.len())?;
        self.file
            .read_exact_at(buf, offset)
            .map_err(|e| DiskError::io("reading an unpacked member", &e).offset(offset))
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len, offset)?;
        Ok(Run {
            len: self.len.saturating_sub(offset),
            kind: RunKind::Data,
        })
    }
}
