//! Whether a path that leads nowhere is absent, or was only not found.

use crate::{
    path,
    tree::{Tree, own_node},
    volume::Volume,
};
use disk_io::DiskError;
use guest_fs::{FsKind, Name};

/// Types of partitions that hold no files, by words of their names.
const NO_FILES: [&str; 7] = [
    "swap",
    "boot",
    "reserved",
    "hibernation",
    "VMKCORE",
    "LVM",
    "(LDM)",
];

impl Tree {
    /// Why it is not known that nothing has `path`, which was not found: the first disk or volume
    /// that could not be looked through, a registry that does not tell the drive. `None` where it
    /// is absent.
    pub fn unsearched(&self, path: &[u8]) -> Option<DiskError> {
        let point = self.default_point();
        let drive = path::drive(path).map(|(letter, _)| letter).or_else(|| {
            path::components(path)
                .next()
                .and_then(path::drive_component)
        });
        if let Some(letter) = drive {
            let known = self.letters_at(point);
            let told = !known.letters.is_empty() && known.remarks.is_empty();
            return (known.of(letter).is_none() && !told)
                .then(|| self.no_letter(path, letter, point));
        }
        let first = path::components(path).next()?;
        if let Ok(Some(_)) = self.lookup(self.root(), &Name::from_bytes(first)) {
            // Through a name of the tree's own: what cannot be entered there is an error itself.
            return None;
        }
        let doing = |what: Name, e: DiskError| e.context(format!("looking on {what}"));
        if let Some((disk, e)) = self.closed_at(point).into_iter().next() {
            return Some(doing(self.own.path(disk), e));
        }
        let mut volumes = self.volumes_at(point).into_iter();
        volumes.find_map(|(volume, door)| {
            let e = self.enter(own_node(door)).err()?;
            may_hold_files(&volume).then(|| doing(self.own.path(door), e))
        })
    }
}

/// Whether files can be on a volume that cannot be entered.
fn may_hold_files(volume: &Volume) -> bool {
    match volume.recognised() {
        // What lies over members of sets is looked through by itself.
        Ok(Some(r)) => !matches!(r.kind, FsKind::Swap | FsKind::Lvm2 | FsKind::Ldm),
        Ok(None) => volume
            .partition()
            .is_none_or(|p| !NO_FILES.iter().any(|w| p.type_name.contains(w))),
        Err(_) => true,
    }
}
