//! `--used-only`: what of a disk its file systems have in use.

use convert::used::UsedOnly;
use disk_io::Disk;
use guest_fs::{FsKind, Name};
use proxy::{Source, Volume};
use serde::Serialize;
use std::{ops::Range, sync::Arc};

/// What was left out, and what was not and why.
#[derive(Debug, Default, Serialize)]
pub(crate) struct LeftOut {
    /// Bytes that file systems mark as free, or that were asked to be left out.
    pub(crate) bytes: u64,
    /// Volumes that are taken whole, with the reason.
    pub(crate) whole: Vec<Whole>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Whole {
    volume: String,
    reason: String,
}

impl std::fmt::Display for Whole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is taken whole: {}", self.volume, self.reason)
    }
}

/// Files of Windows that are made anew when it starts.
const SWAP_FILES: [&str; 3] = ["pagefile.sys", "swapfile.sys", "hiberfil.sys"];
/// What of Linux' swap space must stay: its header, which has its UUID.
const SWAP_HEADER: u64 = 64 << 10;

/// The disk without free space; with `swap` also without the contents of swap space, of page
/// and hibernation files.
pub(crate) fn used_only(source: &Source, swap: bool) -> (Arc<dyn Disk>, LeftOut) {
    let mut left = LeftOut::default();
    let mut free: Vec<Range<u64>> = Vec::new();
    let volumes: Vec<_> = source
        .volumes()
        .iter()
        .filter(|v| v.partition().is_none_or(|p| !p.extended))
        .map(|v| (v, place(v, source.disk().len())))
        .collect();
    for (volume, here) in &volumes {
        let name = format!("/{}", volume.name());
        let overlaps = volumes.iter().any(|(other, there)| {
            !Arc::ptr_eq(other, volume) && there.start < here.end && here.start < there.end
        });
        let found = match overlaps {
            true => Err("another volume lies in it".into()),
            false => free_of(volume, swap),
        };
        match found {
            Ok(ranges) => free.extend(ranges.into_iter().map(|r| {
                let place = |at: u64| here.start.saturating_add(at).min(here.end);
                place(r.start)..place(r.end)
            })),
            Err(reason) => left.whole.push(Whole {
                volume: name,
                reason,
            }),
        }
    }
    let disk = UsedOnly::new(source.disk().clone(), free);
    left.bytes = disk.left_out();
    (Arc::new(disk), left)
}

fn place(volume: &Volume, len: u64) -> Range<u64> {
    match volume.partition() {
        Some(p) => p.start.min(len)..p.start.saturating_add(p.available).min(len),
        None => 0..len,
    }
}

/// Free ranges of a volume, in its own bytes; or why it is taken whole.
fn free_of(volume: &Volume, swap: bool) -> Result<Vec<Range<u64>>, String> {
    let kind = volume.recognised().as_ref().ok().and_then(Option::as_ref);
    if swap && kind.is_some_and(|k| k.kind == FsKind::Swap) {
        return Ok(std::iter::once(SWAP_HEADER..volume.disk().len())
            .filter(|r| r.start < r.end)
            .collect());
    }
    let fs = volume.file_system().map_err(|e| match e.difference() {
        (_, Some(found)) => found.to_owned(),
        _ => e.to_string(),
    })?;
    // What is doubtful may not know what is free.
    let mut doubts = volume.doubts();
    doubts.extend(fs.doubts(fs.root()));
    if let Some(doubt) = doubts.into_iter().next() {
        return Err(doubt);
    }
    if guest_fs::volume::is_in_array(volume.disk()) {
        return Err("it has a superblock of a Linux software RAID".into());
    }
    let mut ranges = Vec::new();
    match fs.free(&mut |range| ranges.push(range)) {
        Ok(true) => {}
        Ok(false) => return Err("its file system cannot tell what is free".into()),
        Err(e) => {
            return Err(match e.difference() {
                (_, Some(found)) => found.to_owned(),
                _ => e.to_string(),
            });
        }
    }
    if swap {
        for name in SWAP_FILES {
            // What is not there, or cannot be told, stays.
            let extents = fs
                .lookup(fs.root(), &Name::from(name))
                .ok()
                .flatten()
                .and_then(|node| fs.extents(node, None).ok());
            for e in extents.into_iter().flatten() {
                if let Some(at) = e.place {
                    ranges.push(at..at.saturating_add(e.len));
                }
            }
        }
    }
    Ok(ranges)
}
