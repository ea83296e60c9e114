//! Why an outcome is what it is: of mutants that gave other bytes without an error, and of those
//! that we refuse and another program reads right. What has no reason here is a finding.

use super::{
    outcome::Outcome,
    tried::{Mutant, Subject, Tried, check},
    unguarded::{region, unguarded},
};
use anyhow::Result;
use std::path::Path;

/// Why other bytes came without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A warning said that something is not as it should be.
    Warned,
    /// `check` or `verify` calls it bad.
    Checked,
    /// `check` notes space that nothing refers to, as a lost entry leaves it.
    Noted,
    /// Another sound value, in a structure whose bytes nothing vouches for.
    Unguarded(&'static str),
}

impl Why {
    /// For reports.
    pub fn text(self) -> &'static str {
        match self {
            Self::Warned => "a warning tells",
            Self::Checked => "`check` or `verify` tells",
            Self::Noted => "`check` notes space that nothing refers to",
            Self::Unguarded(what) => what,
        }
    }
}

/// Whether an outcome is silent: other bytes, no error.
pub fn is_silent(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Wrong | Outcome::Zeros)
}

/// Why `ours` gave other bytes without an error; `None` where nothing explains it. That changes
/// to a structure that nothing guards are the cause is tried: without them the rest of the
/// changes gives right bytes, or an error.
///
/// # Errors
/// Where a program cannot be started, or a file not be written.
pub fn silent(
    subject: Subject<'_>,
    vmdkit: &Path,
    mutant: &Mutant,
    ours: &Tried,
) -> Result<Option<Why>> {
    if ours.ran.said.contains("warning:") {
        return Ok(Some(Why::Warned));
    }
    let (bad, said) = check(vmdkit, &mutant.opened)?;
    if bad {
        return Ok(Some(Why::Checked));
    }
    if said.contains("space-unreferenced") {
        return Ok(Some(Why::Noted));
    }
    if mutant.is_cut() {
        return Ok(None);
    }
    let regions = unguarded(subject.name(), &mutant.sound);
    let touched = |(at, len)| region(&regions, at, len);
    let Some(what) = mutant.edits.iter().copied().find_map(touched) else {
        return Ok(None);
    };
    mutant.only(|edit| touched(edit).is_none())?;
    let rest = subject.ours(vmdkit, mutant)?;
    mutant.only(|_| true)?;
    Ok((!is_silent(rest.outcome)).then_some(Why::Unguarded(what)))
}

/// Refusals that other programs do without: which kinds of mutants (all that begin so), what our
/// message has in it, and why it is refused all the same.
pub const REFUSALS: &[(&str, &str, &str)] = &[
    (
        "",
        "neither is known to be right",
        "a grain table and its copy differ, and nothing tells which is right; others take the first unseen",
    ),
    (
        "",
        "is damaged",
        "a grain table has entries that cannot be, and its copy has others that cannot be, or differ",
    ),
    (
        "",
        "of the descriptor",
        "the descriptor does not say which files the disk has, or whether it has a parent; others do without it",
    ),
    (
        "",
        "reading the descriptor",
        "the descriptor does not say which files the disk has, or whether it has a parent; others do without it",
    ),
    (
        "",
        "found nothing known",
        "its first bytes do not say what it is; others were told",
    ),
    (
        "monolithicSparse",
        "compressed grains without markers",
        "the header says that grains are compressed; others do not look",
    ),
    (
        "monolithicSparse",
        "compressAlgorithm",
        "the header names a compression that nobody knows; others do not look",
    ),
    (
        "qcow2",
        "with reserved bits",
        "an entry of a table has bits that no writer sets; others leave them out",
    ),
    (
        "qcow2",
        "it was cut short",
        "a cluster lies behind the end of the file; qemu-img reads zeros there, which were right by chance",
    ),
    (
        "qcow2",
        "not at a cluster's beginning",
        "an entry of a table points into the middle of a cluster",
    ),
    (
        "qcow2",
        "incompatible features",
        "the header asks for something that nobody knows; 7-Zip goes on",
    ),
    (
        "qcow2",
        "header_length",
        "the header has an impossible length; others do not look",
    ),
    (
        "VHD",
        "expected the checksum",
        "a checksum is wrong; qemu-img does not look",
    ),
    (
        "VHDX",
        "metadata table entry",
        "an item of the metadata lies outside of its region; qemu-img can do without that item",
    ),
    (
        "VDI",
        "expected a block below",
        "an entry of the block map names a block that there is not; qemu-img reads zeros there, which were right by chance",
    ),
    (
        "VDI",
        "found type",
        "the header names a type that there is not; qemu-img takes any",
    ),
    (
        "ntfs",
        "is doubtful",
        "a name in the directory is not the one in the file's record: all is restored, and that is told; others take the record's",
    ),
    (
        "",
        "incompatible flag",
        "the header has a flag that says that whoever does not know it must not go on; qemu-img does not look",
    ),
    (
        "",
        "expected a table",
        "the directory leads to a table that lies where none can; that table has nothing by chance, or its copy is used",
    ),
    (
        "qcow2",
        "of the qcow2 header",
        "the header contradicts itself; others do without that field",
    ),
    (
        "VHDX",
        "metadata item",
        "an item of the metadata is not as long as it must be; qemu-img can do without that item",
    ),
    (
        "VDI",
        "of the VDI header",
        "the header contradicts itself; qemu-img does without that field",
    ),
    (
        "ntfs",
        "expected a number below",
        "the directory leads to a record that there is not; others find the file by its record",
    ),
    (
        "ntfs",
        "a stale reference",
        "the directory leads to another generation of the record; others do not look",
    ),
    (
        "ext",
        "found a freed one",
        "the inode says that it was freed: it is told; others give out what is there",
    ),
    (
        "ext",
        "is doubtful",
        "a checksum is wrong: all is restored, and that is told; others do not look",
    ),
    (
        "",
        "end-of-line bytes",
        "the header's end-of-line bytes are others, as after a transfer as text; qemu-img does not look",
    ),
    (
        "",
        "a place behind the metadata",
        "a grain would lie in the header or the tables",
    ),
    (
        "VHDX",
        "unknown metadata that is required",
        "the metadata has something required that nobody knows; qemu-img does not look",
    ),
    (
        "ntfs",
        "an extension of record",
        "a record says that it belongs to another; others do not look",
    ),
    (
        "ntfs",
        "expected \"FILE\"",
        "a file record does not begin as one; others do not look",
    ),
    (
        "ntfs",
        "reading directory",
        "part of a directory's index is damaged: all is restored by the records, and that is told",
    ),
    (
        "ntfs",
        "index block",
        "part of a directory's index is damaged: all is restored by the records, and that is told",
    ),
    (
        "ntfs",
        "reading the file name",
        "part of a directory's index is damaged: all is restored by the records, and that is told",
    ),
    (
        "ext",
        "lost+found",
        "the directory of lost files, which is empty, is damaged: that is told",
    ),
    (
        "ext",
        "reading an entry of the directory block",
        "part of a directory is damaged: that is told; Sleuth Kit looks for names in all of the block",
    ),
    (
        "ext",
        "sound geometry",
        "the superblock contradicts itself, and there is no copy; Sleuth Kit does not look",
    ),
    (
        "ext",
        "encrypted by the guest",
        "the inode says that the file is encrypted; Sleuth Kit gives out what is there",
    ),
    (
        "fat",
        "without loops",
        "a directory contains itself: that is told",
    ),
    (
        "fat",
        "that has one name",
        "two names lead to one directory: what is in it is restored once, and that is told",
    ),
    (
        "fat",
        "is doubtful",
        "the copies of the allocation table differ about a file: it is restored, and that is told",
    ),
    (
        "",
        "comparing an extent with its description",
        "the descriptor and the header name different lengths; others look at one of them",
    ),
    (
        "",
        "in both directories",
        "a grain directory and its copy differ, and nothing tells which is right; others look at one of them",
    ),
    (
        "vmfsSparse",
        "behind the metadata and inside the file",
        "a grain lies behind the end of the file; qemu-img reads zeros there, which were right by chance",
    ),
    (
        "seSparse",
        "inside the file and the area of the grains",
        "a grain lies behind the end of the file; qemu-img reads zeros there, which were right by chance",
    ),
    (
        "qcow2",
        "in the same place as a table",
        "contents and a table are said to be in one place: all is copied, and that is told; others do not look",
    ),
    (
        "qcow2",
        "is in use and has no place",
        "an entry says that a cluster is in use, and has no place: it may have lost it; qemu-img takes it for free",
    ),
    (
        "VDI",
        "blocks are stored from byte",
        "the header names more blocks, or another place for them, than the file has: all is copied, and that is told; qemu-img does not look",
    ),
    (
        "VDI",
        "are enough: one of the two is wrong",
        "the header has more blocks than its length needs: all is copied, and that is told; others do not look",
    ),
    (
        "ext",
        "reading the beginning of a directory",
        "a directory does not begin with itself and its parent: that is told",
    ),
    (
        "ext",
        "a NUL behind",
        "the target of a link is longer than its text: which of the two is wrong nothing tells; others end it there",
    ),
];

/// Why a mutant is refused that another program reads right; `None` where nothing explains it.
pub fn refusal(kind: &str, said: &str) -> Option<&'static str> {
    let mut fitting = REFUSALS.iter();
    let fits = |(k, words, _): &&(&str, &str, &str)| kind.starts_with(k) && said.contains(words);
    fitting.find(fits).map(|(_, _, why)| *why)
}
