//! The text that describes a link: which extents it is made of, who its parent is.
//!
//! Tolerant about form, strict about what is needed. Every line is kept in its order, so
//! that a writer can change one and leave the others alone (fact sheet, VMDK 2).

mod extent_line;
pub(crate) mod geometry;
mod hidden;
pub(crate) mod remains;

pub use extent_line::{Access, ExtentLine, ExtentType};

use crate::text;
use disk_io::{Disk, DiskError, Result};
use encoding_rs::Encoding;

/// Longest text that is read. A descriptor of 65,536 extents needs some 4 MiB.
pub const MAX_TEXT: u64 = 16 << 20;
/// Most extents a link may have.
pub const MAX_EXTENTS: usize = 65_536;
/// Most lines of any kind.
const MAX_LINES: usize = 131_072;
/// In `parentCID`: there is no parent.
pub const NO_PARENT: u32 = u32::MAX;

/// A parsed descriptor.
#[derive(Clone, Debug)]
pub struct Descriptor {
    lines: Vec<Line>,
    extents: usize,
    encoding: &'static Encoding,
    warnings: Vec<String>,
    /// There are bytes in it that no text has.
    holes: bool,
}

/// One line: as it was written, and what it means.
#[derive(Clone, Debug)]
pub struct Line {
    /// The line without its end.
    pub text: String,
    /// What it means.
    pub item: Item,
}

/// What a line means.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Item {
    /// Nothing, or a comment.
    Comment,
    /// `key = value`, quotes removed; `ddb.` keys too.
    Entry {
        /// As written.
        key: String,
        /// Without its quotes.
        value: String,
    },
    /// A piece of the disk.
    Extent(ExtentLine),
    /// Something else; kept, and told in [`Descriptor::warnings`].
    Other,
}

impl Descriptor {
    /// Reads the text from a file of its own. `name` is for messages.
    pub fn read(disk: &dyn Disk, name: &str) -> Result<Self> {
        let bytes = Self::bytes_at(disk, 0, disk.len(), name)?;
        let mut read = Self::parse(&bytes, name)?;
        match hidden::behind_the_end(&bytes) {
            None => {}
            Some(false) => read.warnings.push(
                "the descriptor has a NUL in it; what is behind that was not understood".into(),
            ),
            Some(true) => {
                let end = bytes.iter().position(|b| *b == 0).unwrap_or_default();
                return Err(DiskError::corrupt("reading the descriptor")
                    .file(name)
                    .offset(end as u64)
                    .expected("NULs behind the text only")
                    .found("one in its middle: an extent or a parent is named behind it"));
            }
        }
        Ok(read)
    }

    /// Reads the text embedded in an extent: `len` bytes at `offset`.
    pub fn read_at(disk: &dyn Disk, offset: u64, len: u64, name: &str) -> Result<Self> {
        Self::parse(&Self::bytes_at(disk, offset, len, name)?, name)
    }

    /// The bytes that the text is in.
    pub(crate) fn bytes_at(disk: &dyn Disk, offset: u64, len: u64, name: &str) -> Result<Vec<u8>> {
        if len > MAX_TEXT {
            return Err(DiskError::refused("reading the descriptor")
                .file(name)
                .expected(format!("at most {MAX_TEXT} bytes of text"))
                .found(format!("{len} bytes")));
        }
        match offset.checked_add(len) {
            Some(end) if end <= disk.len() => {}
            _ => {
                return Err(DiskError::corrupt("reading the descriptor")
                    .file(name)
                    .offset(offset)
                    .expected(format!("{len} bytes inside the file"))
                    .found(format!("a file of {} bytes", disk.len())));
            }
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        disk.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Parses the text; it ends at the first NUL. `name` is for messages.
    ///
    /// # Errors
    /// `Corrupt` where something that is needed is missing or cannot be understood,
    /// `Refused` where there is more of it than any real disk has.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self> {
        let text = text::decode(bytes, &["encoding", "ddb.encoding"]);
        let holes = remains::has_holes(bytes);
        let mut lines = Vec::new();
        let mut extents = 0usize;
        let mut warnings = text.warnings;
        for (number, line) in text.text.lines().enumerate() {
            let place = |e: DiskError| {
                e.file(name).context(format!(
                    "line {} of the descriptor",
                    number.saturating_add(1)
                ))
            };
            if lines.len() >= MAX_LINES {
                return Err(DiskError::refused("reading the descriptor")
                    .file(name)
                    .expected(format!("at most {MAX_LINES} lines")));
            }
            let item = parse_line(line).map_err(place)?;
            let hides = match &item {
                Item::Extent(extent) => extent.extra.as_deref().is_some_and(hidden::has_extent),
                _ => hidden::in_line(line),
            };
            if hides {
                return Err(place(
                    DiskError::corrupt("reading the extents")
                        .expected("each in a line of its own")
                        .found(line.chars().take(200).collect::<String>()),
                ));
            }
            match &item {
                Item::Extent(_) => {
                    extents = extents.saturating_add(1);
                    if extents > MAX_EXTENTS {
                        return Err(DiskError::refused("reading the descriptor")
                            .file(name)
                            .expected(format!("at most {MAX_EXTENTS} extents"))
                            .found("more"));
                    }
                }
                Item::Other if warnings.len() < 16 => warnings.push(format!(
                    "line {} of the descriptor was not understood: {}",
                    number.saturating_add(1),
                    disk_io::error::escape(&line.chars().take(80).collect::<String>())
                )),
                _ => {}
            }
            lines.push(Line {
                text: line.to_owned(),
                item,
            });
        }
        Ok(Self {
            lines,
            extents,
            encoding: text.encoding,
            warnings,
            holes,
        })
    }

    /// All lines in order.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The pieces of the disk, in guest order.
    pub fn extents(&self) -> impl Iterator<Item = &ExtentLine> {
        self.lines.iter().filter_map(|l| match &l.item {
            Item::Extent(e) => Some(e),
            _ => None,
        })
    }

    /// How many extents there are.
    pub fn extent_count(&self) -> usize {
        self.extents
    }

    /// All `key = value` lines in order, the disk database included.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().filter_map(|l| match &l.item {
            Item::Entry { key, value } => Some((key.as_str(), value.as_str())),
            _ => None,
        })
    }

    /// The first value of a key, whatever its case; empty values count as absent.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries()
            .find(|(k, _)| k.eq_ignore_ascii_case(key))
            .map(|(_, v)| v)
            .filter(|v| !v.is_empty())
    }

    /// A value of the disk database: `ddb("adapterType")`.
    pub fn ddb(&self, key: &str) -> Option<&str> {
        self.get(&format!("ddb.{key}"))
    }

    /// `createType`, as written.
    pub fn create_type(&self) -> Option<&str> {
        self.get("createType")
    }

    /// The content id. `None` if the line is missing or not a hexadecimal number.
    pub fn cid(&self) -> Option<u32> {
        self.get("CID").and_then(hex)
    }

    /// The content id that the parent must have; `None` for a base disk.
    ///
    /// # Errors
    /// `Corrupt` if the line is there and cannot be read: it decides whether what is not
    /// stored is zeros.
    pub fn parent_cid(&self) -> Result<Option<u32>> {
        match self.get("parentCID") {
            None => Ok(None),
            Some(text) => match hex(text) {
                Some(NO_PARENT) => Ok(None),
                Some(cid) => Ok(Some(cid)),
                None => Err(DiskError::corrupt("reading parentCID of the descriptor")
                    .expected("eight hexadecimal digits")
                    .found(text)),
            },
        }
    }

    /// Whether a part of the text was overwritten, and nothing is left of it that speaks of a parent:
    /// that there is none is then not said.
    pub(crate) fn parent_is_lost(&self) -> bool {
        self.holes && self.get("parentCID").is_none() && self.parent_hint().is_none()
    }

    /// Where the parent is said to be.
    pub fn parent_hint(&self) -> Option<&str> {
        self.get("parentFileNameHint")
    }

    /// The character set that the text was decoded from.
    pub fn encoding(&self) -> &'static Encoding {
        self.encoding
    }

    /// What was odd about the text.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What says that the disk's contents are encrypted, if anything does.
    ///
    /// The keys are those of encrypted hosted machines and of ESXi's VM encryption filter;
    /// no such disk could be looked at (fact sheet, VMDK 15).
    pub fn encryption(&self) -> Option<String> {
        self.entries()
            .find(|(key, value)| {
                let key = key.to_ascii_lowercase();
                let value = value.to_ascii_lowercase();
                !value.is_empty()
                    && (key.starts_with("encryption.")
                        || key == "keyid"
                        || key == "ddb.keyid"
                        || key.starts_with("ddb.encryption")
                        || (key == "ddb.iofilters" && value.contains("crypt")))
            })
            .map(|(key, _)| key.to_owned())
    }
}

/// CIDs: up to eight hexadecimal digits, as VMware writes them.
fn hex(text: &str) -> Option<u32> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or(text);
    // from_str_radix would take a sign.
    digits
        .bytes()
        .all(|b| b.is_ascii_hexdigit())
        .then(|| u32::from_str_radix(digits, 16).ok())?
}

fn parse_line(line: &str) -> Result<Item> {
    let trimmed = line.trim();
    if trimmed.is_empty() || trimmed.starts_with('#') {
        return Ok(Item::Comment);
    }
    if let Some(extent) = ExtentLine::parse(trimmed)? {
        return Ok(Item::Extent(extent));
    }
    let Some((key, value)) = trimmed.split_once('=') else {
        return Ok(Item::Other);
    };
    let value = value.trim();
    let value = match value.strip_prefix('"') {
        // Up to the last quote: comments of VirtualBox hold escaped ones.
        Some(rest) => rest.rsplit_once('"').map_or(rest, |(inside, _)| inside),
        None => value,
    };
    Ok(Item::Entry {
        key: key.trim().to_owned(),
        value: value.to_owned(),
    })
}

/// Whether the beginning of a file is that of a descriptor: the customary first comment, or
/// a first entry that only descriptors begin with together with one that only they have
/// (fact sheet, VMDK 1 and 2.1).
pub(crate) fn looks_like_one(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let end = start.iter().position(|b| *b == 0).unwrap_or(start.len());
    let Some(start) = start.get(..end) else {
        return false;
    };
    let text = String::from_utf8_lossy(start);
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let Some(first) = lines.next() else {
        return false;
    };
    if let Some(comment) = first.strip_prefix('#')
        && comment
            .trim_start()
            .to_ascii_lowercase()
            .starts_with("disk descriptorfile")
    {
        return true;
    }
    let mut entries = std::iter::once(first)
        .chain(lines)
        .filter(|l| !l.starts_with('#'))
        .take(64);
    let key_of = |line: &str| {
        line.split_once('=')
            .map(|(key, _)| key.trim().to_ascii_lowercase())
    };
    const FIRST: [&str; 5] = ["version", "encoding", "cid", "parentcid", "createtype"];
    match entries.next() {
        Some(line) if key_of(line).is_some_and(|k| FIRST.contains(&k.as_str())) => {}
        _ => return false,
    }
    entries.any(|line| {
        key_of(line).is_some_and(|k| ["cid", "parentcid", "createtype"].contains(&k.as_str()))
            || matches!(ExtentLine::parse(line), Ok(Some(_)))
    })
}

#[cfg(test)]
mod tests;
