//! The Sleuth Kit as a second reader: `fls` for names, `icat` for contents.

use anyhow::{Context, Result};
use std::{collections::BTreeMap, path::Path};
use tests::{
    guest::{Entry, sha256},
    tools,
};

pub(crate) const PROGRAMS: &[&str] = &["fls", "icat"];

/// What fls says of one name.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) is_dir: bool,
    /// What icat takes.
    pub(crate) address: String,
}

/// Names that are the file system's own, or The Sleuth Kit's.
const METAFILES: &[&str] = &[
    "$AttrDef",
    "$BadClus",
    "$Bitmap",
    "$Boot",
    "$Extend",
    "$LogFile",
    "$MFT",
    "$MFTMirr",
    "$Secure",
    "$UpCase",
    "$Volume",
    "$MBR",
    "$FAT1",
    "$FAT2",
    "$OrphanFiles",
];

/// Allocated names of a volume that begins at sector `start`, by path. Metafiles and what
/// The Sleuth Kit adds of its own are left out; streams are listed as `path:stream`.
pub(crate) fn list(image: &Path, start: u64) -> Result<BTreeMap<String, Item>> {
    let offset = start.to_string();
    let fixed = ["-u", "-r", "-p", "-o", &offset];
    let out = tools::output(tools::command("fls").args(fixed).arg(image))?;
    let mut items = BTreeMap::new();
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        let (head, path) = line.split_once(":\t").context("a line of fls")?;
        let (kind, address) = head.split_once(' ').context("a line of fls")?;
        let top = path.split(['/', ':']).next().unwrap_or_default();
        // `-/r` is an entry of a directory that was removed while its record lives.
        let own = kind.starts_with(['V', 'v', '-'])
            || path.ends_with("(Volume Label Entry)")
            || METAFILES.contains(&top)
            || address.starts_with('*');
        if own {
            continue;
        }
        let item = Item {
            is_dir: kind.ends_with("/d"),
            address: address.to_owned(),
        };
        items.insert(path.to_owned(), item);
    }
    Ok(items)
}

/// Contents of a file.
pub(crate) fn read(image: &Path, start: u64, item: &Item) -> Result<Entry> {
    let offset = start.to_string();
    let args = ["-o", &offset];
    let mut icat = tools::command("icat");
    let out = tools::output(icat.args(args).arg(image).arg(&item.address))?;
    Ok(Entry::File {
        size: out.stdout.len() as u64,
        sha256: sha256(&out.stdout),
    })
}
