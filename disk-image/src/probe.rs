//! What is it? By content, never by name.
//!
//! Recognising is separate from reading: a file whose first bytes are a format's signature
//! is that format, however damaged the rest is, and its reader then says what is wrong.
//! Nothing that carries a signature ever counts as a raw disk.

use crate::Format;
use disk_io::{Disk, Fields, Result};

/// How much of the beginning is looked at: an ISO 9660 signature lies at 32,769.
const HEAD: usize = 36 << 10;

/// A signature: bytes at an offset of the file's beginning.
struct Magic(usize, &'static [u8], Format);

const MAGICS: &[Magic] = &[
    Magic(0, b"vhdxfile", Format::Vhdx),
    Magic(0, b"conectix", Format::Vhd),
    // The header behind a footer copy that is damaged.
    Magic(512, b"cxsparse", Format::Vhd),
    Magic(64, b"\x7f\x10\xda\xbe", Format::Vdi),
    // The text before a signature that is damaged; later writers put other names there.
    Magic(0, b"<<< Oracle VM VirtualBox Disk Image", Format::Vdi),
    Magic(0, b"<<< Sun VirtualBox Disk Image", Format::Vdi),
    Magic(0, b"<<< innotek VirtualBox Disk Image", Format::Vdi),
    Magic(0, b"QED\0", Format::Qed),
    Magic(0, b"WithoutFreeSpace", Format::Parallels),
    Magic(0, b"WithouFreSpacExt", Format::Parallels),
    Magic(0, b"Bochs Virtual HD Image", Format::Bochs),
    Magic(0, b"LUKS\xba\xbe", Format::Luks),
    Magic(0, b"EVF\x09\x0d\x0a\xff\x00", Format::Ewf),
    Magic(0, b"LVF\x09\x0d\x0a\xff\x00", Format::Ewf),
    Magic(0, b"EVF2\x0d\x0a\x81\x00", Format::Ewf),
    Magic(0, b"LEF2\x0d\x0a\x81\x00", Format::Ewf),
    Magic(0, b"AFF10\x0d\x0a\x00", Format::Aff),
    Magic(0, b"sprs\0\0\0", Format::SparseImage),
    Magic(0, b"MSWIM\0\0\0", Format::Wim),
    Magic(0, b"partclone-image", Format::Partclone),
    Magic(0, b"\0ntfsclone-image", Format::Ntfsclone),
    Magic(0, b"VMA\0", Format::Vma),
    Magic(0, b"\x1f\x8b\x08", Format::Gzip),
    Magic(0, b"\xfd7zXZ\0", Format::Xz),
    Magic(0, b"\x28\xb5\x2f\xfd", Format::Zstd),
    Magic(0, b"\x04\x22\x4d\x18", Format::Lz4),
    Magic(0, b"PK\x03\x04", Format::Zip),
    Magic(0, b"7z\xbc\xaf\x27\x1c", Format::SevenZip),
];

/// Which format's signature `disk` carries, or `None`: then it can only be a raw disk, and
/// whether to believe that is the caller's decision (a partition table, a file system).
///
/// Reads some 36 KiB at the beginning and a sector at the end.
pub fn probe(disk: &dyn Disk) -> Result<Option<Format>> {
    if vmdk::probe(disk)?.is_some() {
        return Ok(Some(Format::Vmdk));
    }
    let head_len = usize::try_from(disk.len()).map_or(HEAD, |len| len.min(HEAD));
    let mut head = vec![0; head_len];
    disk.read_exact_at(&mut head, 0)?;
    if let Some(magic) = MAGICS.iter().find(|m| has(&head, m.0, m.1)) {
        return Ok(Some(magic.2));
    }
    if let Some(format) = qcow(&head).or_else(|| at_head(&head)) {
        return Ok(Some(format));
    }
    at_end(disk)
}

fn has(head: &[u8], at: usize, magic: &[u8]) -> bool {
    head.get(at..).is_some_and(|rest| rest.starts_with(magic))
}

/// Version 1 is another format under the same signature; an unknown version is for the
/// qcow2 reader to refuse.
fn qcow(head: &[u8]) -> Option<Format> {
    let version = Fields::new(head, 0, "qcow header").u32_be(4);
    match (has(head, 0, b"QFI\xfb"), version) {
        (true, Ok(1)) => Some(Format::Qcow1),
        (true, _) => Some(Format::Qcow2),
        _ => None,
    }
}

/// What needs more than one comparison.
fn at_head(head: &[u8]) -> Option<Format> {
    if has(head, 0, b"BZh")
        && head.get(3).is_some_and(u8::is_ascii_digit)
        && (has(head, 4, b"1AY&SY") || has(head, 4, b"\x17\x72\x45\x38\x50\x90"))
    {
        return Some(Format::Bzip2);
    }
    if has(head, 0, b"#!/bin/sh\n#V2.0 Format\n") {
        return Some(Format::Cloop);
    }
    if tar_header(head) {
        return Some(Format::Ova);
    }
    if let Some(format) = text(head) {
        return Some(format);
    }
    // A hybrid disc is a disk as well: its partition table is worth more than its name.
    if (has(head, 32769, b"CD001") || has(head, 32769, b"BEA01")) && !has(head, 510, b"\x55\xaa") {
        return Some(Format::Iso);
    }
    None
}

/// A tar header whose checksum holds: of any dialect, since old writers leave out `ustar`.
fn tar_header(head: &[u8]) -> bool {
    let Some(header) = head.get(..512) else {
        return false;
    };
    let (Some(name), Some(field)) = (header.first(), header.get(148..156)) else {
        return false;
    };
    if *name == 0 {
        return false;
    }
    let digits: String = field
        .iter()
        .map(|b| char::from(*b))
        .skip_while(|c| *c == ' ')
        .take_while(char::is_ascii_digit)
        .collect();
    let Ok(stored) = u32::from_str_radix(&digits, 8) else {
        return has(header, 257, b"ustar");
    };
    let sum = |from: usize, to: usize| -> u32 {
        let part = header.get(from..to).unwrap_or_default();
        part.iter().map(|b| u32::from(*b)).sum()
    };
    let computed = sum(0, 148)
        .saturating_add(sum(156, 512))
        .saturating_add(8 * 0x20);
    // A ustar signature with a wrong checksum is a damaged archive, not a raw disk.
    stored == computed || has(header, 257, b"ustar")
}

fn text(head: &[u8]) -> Option<Format> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    // UTF-16 is folded to its ASCII half, which is all that is looked for.
    let folded: Vec<u8> = if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        head.iter()
            .copied()
            .filter(|b| *b != 0 && *b < 0x80)
            .collect()
    } else {
        head.to_vec()
    };
    let first = folded.iter().position(|b| !b.is_ascii_whitespace())?;
    let body = folded.get(first..)?;
    let lossy = String::from_utf8_lossy(body);
    if body.starts_with(b"<") && lossy.contains("Envelope") {
        return Some(Format::Ovf);
    }
    let lower = lossy.to_ascii_lowercase();
    if body
        .iter()
        .take(64)
        .all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace())
        && (lower.contains("virtualhw.version") || lower.contains("config.version"))
    {
        return Some(Format::Vmx);
    }
    None
}

/// Formats that are known by their last sector.
fn at_end(disk: &dyn Disk) -> Result<Option<Format>> {
    let Some(at) = disk.len().checked_sub(512) else {
        return Ok(None);
    };
    let mut tail = [0; 512];
    disk.read_exact_at(&mut tail, at)?;
    // Virtual PC before 2004 wrote a footer of 511 bytes.
    Ok(
        if has(&tail, 0, b"conectix") || has(&tail, 1, b"conectix") {
            Some(Format::Vhd)
        } else if has(&tail, 0, b"koly") {
            Some(Format::Dmg)
        } else {
            None
        },
    )
}

#[cfg(test)]
mod tests;
