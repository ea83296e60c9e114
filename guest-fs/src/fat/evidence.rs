//! Whether a volume bears its boot sector out. One wrong bit there moves tables, directories and
//! files, and everything may still parse.

use super::{behind, boot::Geometry, entry::Entry};
use crate::FsKind;
use disk_io::Disk;
use std::sync::Arc;

/// How much of the root directory is looked at.
const ROOT_BYTES: u64 = 64 << 10;
/// How many directories of the root are looked into.
const DIRS: usize = 8;

/// What speaks for a geometry and what against it.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// Against it, one sentence each.
    pub(super) against: Vec<String>,
    /// A directory is where it should be.
    pub(super) proven: bool,
}

/// Looks for it. What cannot be read says nothing.
pub(super) fn of(disk: &Arc<dyn Disk>, geometry: &Geometry) -> Evidence {
    let mut found = Evidence::default();
    tables(disk, geometry, &mut found);
    let fat32 = geometry.kind == FsKind::Fat32;
    let (at, len) = match fat32 {
        true => match geometry.position(geometry.root_cluster) {
            Some(at) => (at, u64::from(geometry.cluster)),
            None => return found,
        },
        false => (geometry.root_start, geometry.root_len),
    };
    let len = usize::try_from(len.min(ROOT_BYTES)).unwrap_or(0);
    let mut root = vec![0; len];
    if disk.read_exact_at(&mut root, at).is_err() {
        return found;
    }
    if matches!(root[..], [a, 0xff, 0xff, ..] if is_media(a, geometry)) {
        found
            .against
            .push("the root directory begins as an allocation table does".into());
    }
    if root.starts_with(b".          ") {
        found
            .against
            .push("the root directory begins with `.`, as only others do".into());
    }
    directories(disk, geometry, (&root, at), &mut found);
    found
}

/// Whether a byte is the boot sector's media byte, or one of the two that are in use: some tools
/// write 0xF0 in one place and 0xF8 in the other.
fn is_media(byte: u8, geometry: &Geometry) -> bool {
    [geometry.media, 0xf0, 0xf8].contains(&byte)
}

/// The media byte in the first table, where it is another than the boot sector's.
pub(super) fn other_media(disk: &Arc<dyn Disk>, geometry: &Geometry) -> Option<u8> {
    let mut raw = [0; 1];
    disk.read_exact_at(&mut raw, geometry.fat_start).ok()?;
    let [byte] = raw;
    (byte != geometry.media && is_media(byte, geometry)).then_some(byte)
}

/// Entry 0 of every table has the media byte and is else all ones; entry 1 ends a chain, but for
/// two flags.
fn tables(disk: &Arc<dyn Disk>, geometry: &Geometry, found: &mut Evidence) {
    let copies = match geometry.active {
        Some(one) => one..one.saturating_add(1),
        None => 0..geometry.copies,
    };
    for copy in copies {
        let at = geometry
            .fat_len
            .saturating_mul(copy.into())
            .saturating_add(geometry.fat_start);
        let mut raw = [0; 8];
        if disk.read_exact_at(&mut raw, at).is_ok() && !begins_table(raw, geometry) {
            found.against.push(format!(
                "allocation table {copy} at byte {at} does not begin with the media byte \
                 {:#04x} and an end of chain: its place, or its length, may be wrong",
                geometry.media
            ));
        }
    }
}

fn begins_table([a, b, c, d, e, f, g, h]: [u8; 8], geometry: &Geometry) -> bool {
    let rest = match geometry.kind {
        FsKind::Fat12 => [b, c & 0xf8] == [0xff, 0xf8],
        FsKind::Fat16 => [b, c & 0xf8, d | 0xc0] == [0xff, 0xf8, 0xff],
        _ => {
            [b, c, d & 0x0f] == [0xff, 0xff, 0x0f]
                && [e & 0xf8, f, g, h & 0x0f | 0x0c] == [0xf8, 0xff, 0xff, 0x0f]
        }
    };
    rest && is_media(a, geometry)
}

/// Directories begin with `.`, which has their own first cluster, and `..`.
fn directories(
    disk: &Arc<dyn Disk>,
    geometry: &Geometry,
    (root, at): (&[u8], u64),
    found: &mut Evidence,
) {
    let (mut seen, mut fit) = (0usize, 0usize);
    for (raw, position) in root.chunks_exact(32).zip((at..).step_by(32)) {
        let Some(entry) = raw
            .first_chunk()
            .and_then(|raw| Entry::parse(raw, position).ok())
        else {
            continue;
        };
        if entry.is_free() || seen >= DIRS {
            break;
        }
        let first = geometry.first_cluster(&entry);
        let named = behind::valid_name(&entry.short) && !entry.is_deleted() && !entry.is_dot();
        if !named || entry.attributes & 0xd8 != 0x10 || !geometry.has_cluster(first) {
            continue;
        }
        let mut head = [0; 128];
        let read = geometry
            .position(first)
            .map(|at| disk.read_exact_at(&mut head, at));
        if !matches!(read, Some(Ok(()))) {
            continue;
        }
        seen = seen.saturating_add(1);
        let [own, above] = Entry::first_two(&head, position);
        let begins = own.is_some_and(|own| {
            &own.short == b".          " && geometry.first_cluster(&own) == first
        }) && above.is_some_and(|above| &above.short == b"..         ");
        fit = fit.saturating_add(usize::from(begins));
    }
    found.proven = fit > 0;
    if seen > 0 && fit == 0 {
        found.against.push(format!(
            "none of the first directories ({seen}) begins with `.` and `..`: the place of the \
             clusters, or their size, may be wrong"
        ));
    }
}
