//! What the pipeline writes to.

pub(crate) use disk_io::output::write_error;
use disk_io::{DiskError, HostRange, OutFile, Result};
use std::{
    fmt::Debug,
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Mutex,
};

/// Something to copy into. Ranges arrive once each and never overlap; together they cover
/// the whole length. Unless [`Target::in_order`], they come from several threads in any
/// order.
pub trait Target: Sync + Debug {
    /// Takes bytes, some of which are not zero (mostly).
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()>;

    /// Takes a range that is zero.
    fn zero_at(&self, offset: u64, len: u64) -> Result<()>;

    /// Whether ranges must come from the first byte to the last, from one thread.
    fn in_order(&self) -> bool {
        false
    }

    /// Zeros inside data are worth leaving out in aligned blocks of so many bytes, a power
    /// of two up to a MiB: what file systems or the format store together.
    fn block(&self) -> usize {
        4096
    }

    /// Takes bytes that lie in a file of the host, by sharing the file system's blocks; whether
    /// it could. What it takes it need not be given by [`Target::write_at`].
    fn share(&self, _from: &HostRange, _offset: u64) -> Result<bool> {
        Ok(false)
    }

    /// What of a piece needs no order, for a target that takes pieces in order: compression.
    /// Workers call it; [`Target::write_at`] gets the result in the place of the bytes.
    /// `None` where there is nothing to do.
    fn encode(&self, _bytes: &[u8], _offset: u64) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// Everything has come: flush what is held back.
    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// Takes everything and keeps nothing: how fast can it be read?
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard;

impl Target for Discard {
    fn write_at(&self, _bytes: &[u8], _offset: u64) -> Result<()> {
        Ok(())
    }

    fn zero_at(&self, _offset: u64, _len: u64) -> Result<()> {
        Ok(())
    }
}

/// A new, empty file that becomes a raw image. Zeros are holes: nothing is written.
#[derive(Debug)]
pub struct RawFile<'f>(OutFile<'f>);

impl<'f> RawFile<'f> {
    /// Over an empty file; `name` is for messages. Gives it its length at once, so that a
    /// length that the file system cannot hold fails before anything is written.
    ///
    /// An unfinished file is gone on with in the same way.
    pub fn new(file: &'f File, name: &Path, len: u64) -> Result<Self> {
        let out = OutFile::new(file, name);
        out.set_len(len)?;
        Ok(Self(out))
    }
}

impl Target for RawFile<'_> {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.0.put(bytes, offset)
    }

    fn share(&self, from: &HostRange, offset: u64) -> Result<bool> {
        self.0.share(from, offset)
    }

    fn zero_at(&self, _offset: u64, _len: u64) -> Result<()> {
        Ok(())
    }
}

/// A stream that takes bytes in order: a pipe, standard output.
pub struct Stream<W> {
    out: Mutex<W>,
    name: String,
}

impl<W> Debug for Stream<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({})", self.name)
    }
}

impl<W: Write + Send> Stream<W> {
    /// Over `out`; `name` is for messages.
    pub fn new(out: W, name: impl Into<String>) -> Self {
        Self {
            out: Mutex::new(out),
            name: name.into(),
        }
    }

    fn with(&self, offset: u64, write: impl FnOnce(&mut W) -> io::Result<()>) -> Result<()> {
        let mut out = self.out.lock().unwrap_or_else(|e| e.into_inner());
        write(&mut out).map_err(|e| DiskError::io("writing", &e).file(&self.name).offset(offset))
    }
}

impl<W: Write + Send> Target for Stream<W> {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.with(offset, |out| out.write_all(bytes))
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        self.with(offset, |out| {
            let mut left = len;
            while left > 0 {
                let n = left.min(crate::digest::UNIT);
                out.write_all(crate::digest::zeros(n))?;
                left -= n;
            }
            Ok(())
        })
    }

    fn in_order(&self) -> bool {
        true
    }

    fn finish(&self) -> Result<()> {
        self.with(0, Write::flush)
    }
}
