//! A whole disk as a raw image.

use crate::{
    digest::{Digest, DigestKind},
    pipeline::{self, CopyOptions, Sparse},
    place::{Partial, check_not_source},
    progress::Progress,
    target::{Discard, RawFile, Stream, Target},
};
use disk_io::{Disk, Result};
use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where the image goes.
pub enum Destination<'a> {
    /// A file, which appears when it is complete.
    File(&'a Path),
    /// A stream that takes every byte in order, zeros too.
    Stream(Box<dyn Write + Send + 'a>, String),
    /// Nowhere: the source is read and decoded, the digest computed.
    Discard,
}

/// How to convert.
#[derive(Clone, Debug, Default)]
pub struct RawOptions {
    /// Threads; 0 means one for every core.
    pub workers: usize,
    /// Digest to compute on the way.
    pub digest: DigestKind,
    /// Whether a destination that exists is replaced.
    pub force: bool,
    /// Files that the source consists of: none of them may be the destination.
    pub sources: Vec<PathBuf>,
}

/// What a conversion did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Length of the disk in bytes.
    pub virtual_size: u64,
    /// Bytes written as data.
    pub written: u64,
    /// Bytes left out (or, to a stream, written) as zeros.
    pub zeros: u64,
    /// Digest of the virtual contents.
    pub digest: Option<Digest>,
}

/// Converts `disk` to a raw image. The source is only read. A file appears under its name
/// when it is complete and synced; after an error or a wish to stop nothing is left.
pub fn to_raw(
    disk: &Arc<dyn Disk>,
    destination: Destination<'_>,
    options: &RawOptions,
    progress: &dyn Progress,
) -> Result<Report> {
    let copy_options = CopyOptions {
        workers: options.workers,
        digest: options.digest,
        sparse: Sparse::Always,
    };
    let copy = |target: &dyn Target| pipeline::copy(disk, target, copy_options, progress);
    let copied = match destination {
        Destination::Discard => copy(&Discard)?,
        Destination::Stream(out, name) => copy(&Stream::new(out, name))?,
        Destination::File(path) => {
            check_not_source(path, options.sources.iter().map(PathBuf::as_path))?;
            let partial = Partial::create(path, options.force)?;
            let copied = copy(&RawFile::new(partial.file(), path, disk.len())?)?;
            partial.finish()?;
            copied
        }
    };
    Ok(Report {
        virtual_size: disk.len(),
        written: copied.written,
        zeros: copied.zeros,
        digest: copied.digest,
    })
}
