//! What is left of a damaged descriptor that is embedded in a sparse extent (fact sheet, VMDK 2.6).
//!
//! Header and tables of such a file are enough to read it, if it is a whole disk. Whether it is one
//! only the text says: a delta reads as zeros where its parent has data, and the first of several
//! extents as a shorter disk. So what is left must say that there is no parent, and nothing in it may
//! speak of a parent, of another file or of encryption. In doubt it is not believed. Nothing that the
//! text names is opened.

use super::{Access, Descriptor, ExtentLine, ExtentType, Item, Line, MAX_LINES, NO_PARENT};
use crate::{names, text};

/// Stands for bytes that no text has: what was overwritten.
const HOLE: char = '\u{1}';
/// Subformats that are one file.
const ONE_FILE: [&str; 2] = ["monolithicsparse", "streamoptimized"];
/// Parts of the key under which a parent is named: damage in its middle leaves one of them.
const PARENT_FILE: [&str; 2] = ["parentfile", "namehint"];
/// Parts of the keys by which [`Descriptor::encryption`] knows.
const ENCRYPTED: [&str; 3] = ["encryption", "keyid", "crypt"];

/// The file that the text is embedded in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    /// Its name, without directories.
    pub(crate) name: &'a str,
    /// Sectors that its header says it has.
    pub(crate) capacity: u64,
    /// Sectors in a grain, to which the header may be rounded up.
    pub(crate) grain: u64,
}

/// Why the header alone is not enough; says what to try.
pub(crate) type Doubt = String;

impl Descriptor {
    /// What can still be read of `bytes`, with one extent: `host`, as its header says it.
    ///
    /// # Errors
    /// Where what is left does not show that `host` is a whole disk.
    pub(crate) fn remains(bytes: &[u8], host: Host<'_>) -> Result<Self, Doubt> {
        let marked: Vec<u8> = bytes.iter().map(|b| mark(*b)).collect();
        let text = text::decode(&marked, &["encoding", "ddb.encoding"]);
        no_parent(&text.text)?;
        one_file(&text.text, host)?;
        let mut lines: Vec<Line> = text
            .text
            .lines()
            .filter_map(entry)
            .take(MAX_LINES)
            .collect();
        lines.push(Line {
            text: format!("RW {} SPARSE \"{}\"", host.capacity, host.name),
            item: Item::Extent(ExtentLine {
                access: Access::Rw,
                sectors: host.capacity,
                kind: ExtentType::Sparse,
                file: Some(host.name.to_owned()),
                offset: None,
                extra: None,
            }),
        });
        Ok(Self {
            lines,
            extents: 1,
            encoding: text.encoding,
            warnings: Vec::new(),
            holes: false,
        })
    }
}

/// No character set that is read here has these bytes in a text.
fn mark(byte: u8) -> u8 {
    match byte {
        b'\t' | b'\n' | b'\r' => byte,
        0..0x20 | 0x7f | 0xff => HOLE as u8,
        _ => byte,
    }
}

/// Whether something was overwritten in a text that ends at its first NUL.
pub(super) fn has_holes(bytes: &[u8]) -> bool {
    let mut text = bytes.iter().take_while(|b| **b != 0);
    text.any(|b| mark(*b) == HOLE as u8)
}

/// A whole line that only says something about the disk.
fn entry(line: &str) -> Option<Line> {
    let item = match line.contains(HOLE) {
        true => return None,
        false => super::parse_line(line).ok()?,
    };
    matches!(item, Item::Entry { .. }).then(|| Line {
        text: line.to_owned(),
        item,
    })
}

/// What stands between holes.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split(HOLE))
        .map(str::trim)
        .filter(|piece| !piece.is_empty())
}

/// The value of `key`, where the piece is that entry.
fn value<'a>(piece: &'a str, key: &str) -> Option<&'a str> {
    let (found, value) = piece.split_once('=')?;
    let is_it = found.trim().eq_ignore_ascii_case(key);
    is_it.then(|| value.trim().trim_matches('"'))
}

/// Whether anything in an embedded text, damaged or not, speaks of a parent.
pub(crate) fn speaks_of_parent(bytes: &[u8]) -> bool {
    let marked: Vec<u8> = bytes.iter().map(|b| mark(*b)).collect();
    let text = text::decode(&marked, &[]).text;
    let lower = text.to_ascii_lowercase();
    PARENT_FILE.iter().any(|part| lower.contains(part))
        || pieces(&text)
            .filter_map(|piece| value(piece, "parentCID"))
            .filter_map(super::hex)
            .any(|cid| cid != NO_PARENT)
}

/// Whether the text says that there is no parent, and nothing in it speaks of one.
fn no_parent(text: &str) -> Result<(), Doubt> {
    let lower = text.to_ascii_lowercase();
    if PARENT_FILE.iter().any(|part| lower.contains(part)) {
        return Err(
            "what is left of it names a parent: the disk is a delta, which is nothing \
                    without its descriptor; restore it from a backup"
                .into(),
        );
    }
    if ENCRYPTED.iter().any(|part| lower.contains(part)) {
        return Err("what is left of it speaks of encryption; restore it from a backup".into());
    }
    let none = pieces(text)
        .filter_map(|piece| value(piece, "parentCID"))
        .filter(|cid| super::hex(cid) == Some(NO_PARENT))
        .count();
    match none {
        0 => Err(
            "nothing that is left of it says that the disk has no parent (parentCID=ffffffff); \
                  restore it from a backup, or, if this is known to be no delta, let qemu-img \
                  convert a copy: it goes by the header alone"
                .into(),
        ),
        n if n == lower.matches("parentcid").count() => Ok(()),
        _ => Err(
            "what is left of it says more than one thing of its parent; restore it from a \
                  backup"
                .into(),
        ),
    }
}

/// Whether the text says that `host` is the whole disk, and nothing in it speaks of more.
fn one_file(text: &str, host: Host<'_>) -> Result<(), Doubt> {
    let more = |what: &str| {
        Err(format!(
            "what is left of it speaks of {what}: the disk may be more than this file; restore it \
             from a backup"
        ))
    };
    let round = |sectors: u64| sectors.checked_next_multiple_of(host.grain.max(1));
    // An intact line of one extent, which is as long as this file says it is.
    let whole = |line: &str| {
        let parsed = ExtentLine::parse(line.trim()).ok().flatten();
        parsed.filter(|e| e.kind == ExtentType::Sparse && round(e.sectors) == round(host.capacity))
    };
    let named = |e: &ExtentLine| e.file.as_deref().is_some_and(|name| host.is(name));
    let mut proof = text.lines().filter_map(whole).any(|extent| named(&extent));
    let alone = pieces(text)
        .filter_map(|piece| value(piece, "createType"))
        .any(|kind| ONE_FILE.contains(&kind.to_ascii_lowercase().as_str()));
    let (mut extents, mut kinds) = (0u32, 0u32);
    for piece in pieces(text) {
        if let Some(kind) = value(piece, "createType") {
            let kind = kind.to_ascii_lowercase();
            if !ONE_FILE.iter().any(|one| one.starts_with(&kind)) {
                return more("a disk of another kind");
            }
            proof |= ONE_FILE.contains(&kind.as_str());
        }
        // An entry: what is quoted in it is no file of the disk.
        let before = piece.split('"').next().unwrap_or_default();
        if before.contains('=') {
            continue;
        }
        let mut words = piece.split(|c: char| c.is_whitespace() || c == '"');
        while let Some(word) = words.next() {
            match word.to_ascii_uppercase().as_str() {
                "RW" | "RDONLY" => {
                    extents = extents.saturating_add(1);
                    let length = words.clone().find(|w| !w.is_empty());
                    let length = length.and_then(|w| w.parse::<u64>().ok());
                    if length.is_some_and(|sectors| round(sectors) > round(host.capacity)) {
                        return more("an extent that is longer than its header says");
                    }
                }
                "NOACCESS" => return more("what must not be read"),
                "SPARSE" => kinds = kinds.saturating_add(1),
                "FLAT" | "ZERO" | "VMFS" | "VMFSSPARSE" | "VMFSRDM" | "VMFSRAW" | "SESPARSE"
                | "VSANSPARSE" => return more("an extent of another kind"),
                _ => {}
            }
        }
        // Comments have whatever they like.
        if piece.starts_with('#') && !piece.contains('"') {
            continue;
        }
        // The name of one that was renamed, or that its exporter did not know, is another.
        if alone && whole(piece).is_some() {
            continue;
        }
        if let Some(other) = other_file(piece, host) {
            return Err(format!(
                "what is left of it names the file {other}: if this is that file, renamed, give it \
                 the name again; else the disk is more than this file"
            ));
        }
    }
    match extents > 1 || kinds > 1 {
        true => more("several extents"),
        false if proof => Ok(()),
        false => Err(
            "nothing that is left of it says that the disk is this file alone (createType, \
                      or its extent); restore it from a backup, or let qemu-img convert a copy: it \
                      goes by the header alone"
                .into(),
        ),
    }
}

impl Host<'_> {
    fn is(&self, name: &str) -> bool {
        names::base_name(name).is_some_and(|base| base.eq_ignore_ascii_case(self.name))
    }
}

/// A name of another file in a piece that is no entry.
fn other_file<'a>(piece: &'a str, host: Host<'_>) -> Option<&'a str> {
    let parts: Vec<&str> = piece.split('"').map(str::trim).collect();
    let last = parts.len().saturating_sub(1);
    parts.into_iter().enumerate().find_map(|(number, part)| {
        let own = host.is(part)
            // Cut by a hole.
            || ((number == 0 || number == last) && host.name.contains(part));
        (part.contains(['.', '/', '\\']) && !own).then_some(part)
    })
}

#[cfg(test)]
mod tests;
