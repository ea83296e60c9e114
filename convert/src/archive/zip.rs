//! zip, with 64-bit sizes, as a stream: sizes and checksums follow each member.
//!
//! The list at the end names every member, so memory grows by some hundred bytes a file.

use super::{Archive, Contents, Given, mode};
use guest_fs::{Metadata, Name, SpecialKind, Timestamp};
use jiff::tz::TimeZone;
use std::{
    borrow::Cow,
    io::{self, Write},
};
use zip::{
    CompressionMethod, DateTime, ZipWriter,
    result::ZipError,
    write::{ExtendedFileOptions, FileOptions, StreamWriter},
};

/// Extra field with FILETIMEs, as Windows' and 7-Zip's archives have it.
const NTFS: u16 = 0x000a;

/// A zip archive that is written.
pub(super) struct Zip<W: Write>(ZipWriter<StreamWriter<W>>);

type Options = FileOptions<'static, 'static, ExtendedFileOptions>;

impl<W: Write> Zip<W> {
    pub(super) fn new(out: W) -> Self {
        Self(ZipWriter::new_stream(out))
    }
}

fn error(e: ZipError) -> io::Error {
    match e {
        ZipError::Io(e) => e,
        // The one thing that is wrong with a member and not with the output.
        ZipError::InvalidArchive(text) if text.starts_with("Duplicate filename") => {
            io::ErrorKind::AlreadyExists.into()
        }
        other => io::Error::other(other),
    }
}

/// A name as text: the format takes no other bytes.
fn text(name: &[u8]) -> (String, Given) {
    match std::str::from_utf8(name) {
        Ok(name) => (name.to_owned(), Given::AsIs),
        Err(_) => {
            let text = String::from_utf8_lossy(name).into_owned();
            let given = Given::Renamed(text.clone().into_bytes());
            (text, given)
        }
    }
}

/// Times and permissions of a member.
fn options(metadata: &Metadata, default_mode: u32) -> io::Result<Options> {
    let mut options = Options::default()
        .compression_method(CompressionMethod::Deflated)
        .large_file(true)
        .unix_permissions(mode(metadata, default_mode) & 0o7777);
    if let Some(time) = metadata.modified {
        options = options.last_modified_time(dos_time(time));
    }
    let times = [metadata.modified, metadata.accessed, metadata.created];
    if times.iter().any(Option::is_some) {
        // Reserved, then one tag with three times of 8 bytes.
        let mut field = vec![0, 0, 0, 0, 1, 0, 24, 0];
        for time in times {
            field.extend(filetime(time).to_le_bytes());
        }
        options.add_extra_field(NTFS, field, false).map_err(error)?;
    }
    Ok(options)
}

/// 0 says that the time is not known.
fn filetime(time: Option<Timestamp>) -> u64 {
    time.and_then(|t| t.to_filetime()).unwrap_or(0)
}

/// The old field: two seconds, 1980 to 2107, no zone.
fn dos_time(time: Timestamp) -> DateTime {
    jiff::Timestamp::from_second(time.seconds)
        .ok()
        .and_then(|t| {
            let t = t.to_zoned(TimeZone::UTC);
            let part = |n: i8| u8::try_from(n).ok();
            DateTime::from_date_and_time(
                u16::try_from(t.year()).ok()?,
                part(t.month())?,
                part(t.day())?,
                part(t.hour())?,
                part(t.minute())?,
                part(t.second())?,
            )
            .ok()
        })
        .unwrap_or_default()
}

impl<W: Write> Archive for Zip<W> {
    type Output = W;

    fn keeps_holes(&self) -> bool {
        false
    }

    fn keeps_xattrs(&self) -> bool {
        false
    }

    /// Without the '/' that directories end in: a link of the same name is the same.
    fn spelled<'a>(&self, name: &'a [u8]) -> Cow<'a, [u8]> {
        match String::from_utf8_lossy(name) {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        }
    }

    fn directory(&mut self, name: &[u8], metadata: &Metadata) -> io::Result<Given> {
        let (name, given) = text(name);
        let options = options(metadata, 0o755)?;
        self.0.add_directory(name, options).map_err(error)?;
        Ok(given)
    }

    fn file(
        &mut self,
        name: &[u8],
        metadata: &Metadata,
        contents: &mut Contents<'_>,
        _xattrs: &[(Name, Vec<u8>)],
    ) -> io::Result<Given> {
        let (name, given) = text(name);
        let options = options(metadata, 0o644)?;
        self.0.start_file(name, options).map_err(error)?;
        io::copy(contents, &mut self.0)?;
        Ok(given)
    }

    fn symlink(&mut self, name: &[u8], metadata: &Metadata, target: &[u8]) -> io::Result<Given> {
        let (name, given) = text(name);
        let (target, _) = text(target);
        let options = options(metadata, 0o777)?;
        self.0.add_symlink(name, target, options).map_err(error)?;
        Ok(given)
    }

    fn special(
        &mut self,
        _name: &[u8],
        _metadata: &Metadata,
        _kind: SpecialKind,
    ) -> Option<io::Result<Given>> {
        None
    }

    fn hard_link(
        &mut self,
        _name: &[u8],
        _metadata: &Metadata,
        _first: &[u8],
    ) -> Option<io::Result<Given>> {
        None
    }

    fn text(&mut self, name: &str, text: &[u8]) -> io::Result<()> {
        let options = Options::default().unix_permissions(0o644);
        self.0.start_file(name, options).map_err(error)?;
        self.0.write_all(text)
    }

    fn finish(self) -> io::Result<W> {
        self.0.finish().map(StreamWriter::into_inner).map_err(error)
    }
}
