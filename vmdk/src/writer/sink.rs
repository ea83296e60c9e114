//! Where an extent goes.

use disk_io::{DiskError, OutFile, Result};
use std::{
    fmt::{self, Debug},
    fs::File,
    io::Write,
};

/// A new file, or a stream.
pub enum Sink<'f> {
    /// A new, empty file.
    File(&'f File),
    /// A stream: only for streamOptimized with its directory in the footer.
    Stream(Box<dyn Write + Send + 'f>),
}

impl Debug for Sink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File(_) => "File",
            Self::Stream(_) => "Stream",
        })
    }
}

impl<'f> Sink<'f> {
    /// As a file that can be written at any place.
    pub(super) fn file(self, name: String) -> Result<OutFile<'f>> {
        match self {
            Self::File(file) => Ok(OutFile::new(file, name)),
            Self::Stream(_) => Err(DiskError::refused("writing a VMDK")
                .file(name)
                .expected("a file: this subformat cannot be written as a stream")
                .found("a stream")
                .hint("use --subformat streamOptimized, or name a file")),
        }
    }
}
