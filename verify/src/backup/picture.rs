//! What of a disk holds data, and which volumes lie where: for a picture in a report.

use disk_io::{Disk, Result, RunKind};
use guest_fs::Name;
use proxy::{Source, Tree, TreeOptions};
use std::{ops::Range, sync::Arc};

/// Pieces that a disk is cut into.
const CELLS: u64 = 1024;

/// A disk at a glance.
#[derive(Clone, Debug)]
pub struct Picture {
    /// What it is called: its file, or its place in the machine.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
    /// Bytes that something stores.
    pub data: u64,
    /// Length of a cell in bytes.
    pub cell: u64,
    /// Of every cell how much is data, in thousandths.
    pub cells: Vec<u16>,
    /// Its volumes.
    pub areas: Vec<Area>,
    /// What it can be started from, where that can be told.
    pub boot: Option<&'static str>,
}

/// A volume.
#[derive(Clone, Debug)]
pub struct Area {
    /// Its path in the tree.
    pub path: String,
    /// Where it lies on the disk, where it lies in one piece.
    pub range: Option<Range<u64>>,
    /// What it holds, and its label.
    pub what: String,
    /// Length in bytes.
    pub len: u64,
    /// Bytes in use, where it is cheap to tell.
    pub used: Option<u64>,
}

impl Picture {
    /// # Errors
    /// Those of reading the maps of the disk.
    pub(super) fn of(name: &str, source: &Arc<Source>) -> Result<Self> {
        let disk = source.disk();
        let len = disk.len();
        let cell = len.div_ceil(CELLS).next_multiple_of(512).max(512);
        let mut filled = vec![0u64; usize::try_from(len.div_ceil(cell)).unwrap_or(0)];
        let (mut at, mut data) = (0, 0);
        while at < len {
            let run = disk.run_at(at)?;
            let end = at.saturating_add(run.len.max(1)).min(len);
            if run.kind == RunKind::Data {
                data += end - at;
                for n in at / cell..=(end - 1) / cell {
                    let (from, to) = (n * cell, n * cell + cell);
                    if let Some(filled) = usize::try_from(n).ok().and_then(|n| filled.get_mut(n)) {
                        *filled += to.min(end) - from.max(at);
                    }
                }
            }
            at = end;
        }
        let thousandths = |(n, bytes): (usize, u64)| {
            let size = cell.min(len.saturating_sub(n as u64 * cell)).max(1);
            // Something is never shown as nothing.
            let part = (bytes * 1000).div_ceil(size);
            u16::try_from(part).unwrap_or(1000)
        };
        let tree = Tree::new(source.clone(), TreeOptions::default())?;
        let areas = tree.volumes().into_iter().map(|v| {
            let start = v.partition.as_ref().map(|p| p.start);
            let whole = (v.partition.is_none() && v.len == len).then_some(0);
            let label = v.label.as_ref().map(Name::to_string);
            let kind = v.kind.map_or("not known", |k| k.as_str());
            Area {
                path: v.path.to_string(),
                range: start.or(whole).map(|s| s..s.saturating_add(v.len)),
                what: match label.filter(|l| !l.is_empty()) {
                    Some(label) => format!("{kind} “{label}”"),
                    None => kind.to_owned(),
                },
                len: v.len,
                used: v.used,
            }
        });
        Ok(Self {
            name: name.to_owned(),
            len,
            data,
            cell,
            cells: filled.into_iter().enumerate().map(thousandths).collect(),
            areas: areas.collect(),
            boot: boot(source, &tree),
        })
    }
}

/// Loaders that firmware or a boot sector starts.
const LOADERS: [(&str, &str); 7] = [
    ("/EFI/Microsoft/Boot/bootmgfw.efi", "Windows, by EFI"),
    ("/EFI/BOOT/BOOTX64.EFI", "a loader for EFI"),
    ("/EFI/BOOT/BOOTIA32.EFI", "a loader for EFI"),
    ("/bootmgr", "Windows, by its boot sector"),
    ("/ntldr", "Windows, by its boot sector"),
    ("/boot/grub2/grub.cfg", "GRUB"),
    ("/boot/grub/grub.cfg", "GRUB"),
];

/// What the disk can be started from: a boot sector with code, and a loader that it leads to; or
/// one that EFI finds.
fn boot(source: &Arc<Source>, tree: &Tree) -> Option<&'static str> {
    let mut sector = [0; 512];
    source.disk().read_exact_at(&mut sector, 0).ok()?;
    let code = sector.get(..3).is_some_and(|b| b.iter().any(|b| *b != 0));
    let signed = sector.ends_with(&[0x55, 0xaa]);
    for volume in tree.volumes().iter().filter(|v| v.why_not.is_none()) {
        for (path, what) in LOADERS {
            let found = tree.resolve(format!("{}{path}", volume.path)).is_ok();
            let efi = path.starts_with("/EFI");
            if found && (efi || (code && signed)) {
                return Some(what);
            }
        }
    }
    // Something that is started from its sectors alone.
    let active = source.table().partitions.iter().any(|p| p.active);
    (code && signed && active).then_some("its boot sector")
}
