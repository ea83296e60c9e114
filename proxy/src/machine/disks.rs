//! The file of a disk that a configuration names, and whether its chain is what the snapshots say.

use super::Machine;
use disk_image::Image;
use disk_io::{DiskError, ErrorKind, Locate, Opened, Purpose, Result, error::escape};
use inventory::{PointDisk, vcb::base};
use std::path::Path;

/// Names that a configuration's name for a disk may be: as it is written, and in the spelling of
/// this system.
pub(super) fn written(name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    let unix = name.replace('\\', "/");
    names.push(unix.clone());
    // A name may end with a blank, and one that somebody wrote may do so by mistake.
    names.push(unix.trim_end().to_owned());
    names.dedup();
    names
}

/// Where the disk is if the machine was moved: beside its configuration, or in the directory next
/// to that which has its old directory's name.
fn moved(name: &str) -> Vec<String> {
    let unix = name.replace('\\', "/");
    // `[datastore] directory/name`.
    let inside = match unix.split_once(']') {
        Some((_, rest)) if unix.starts_with('[') => rest.trim_start(),
        _ => &unix,
    };
    let mut parts = inside.rsplit('/');
    let (file, dir) = (parts.next().unwrap_or(inside), parts.next());
    let mut names = vec![file.to_owned()];
    names.extend(
        dir.filter(|d| !d.is_empty())
            .map(|dir| format!("../{dir}/{file}")),
    );
    names.retain(|n| n != name);
    names
}

/// The first that is there. Where none is, the error that says most.
pub(super) fn first_of(gate: &dyn Locate, names: &[String]) -> Result<Opened> {
    let mut failure: Option<DiskError> = None;
    for name in names {
        match gate.open(Path::new(name), Purpose::Member) {
            Ok(opened) => return Ok(opened),
            Err(e) => match &failure {
                Some(said) if said.kind() != ErrorKind::NotFound => {}
                _ => failure = Some(e),
            },
        }
    }
    Err(failure.unwrap_or_else(|| DiskError::not_found("opening a disk")))
}

/// The file of that name is, or may be, another disk of the machine.
pub(super) fn is_other(
    disk: &PointDisk,
    other: &PointDisk,
    opened: &Opened,
    is: &str,
) -> DiskError {
    let (file, slot) = (escape(&other.file), other.slot);
    DiskError::not_found("looking for the disk")
        .file(escape(&disk.file))
        .expected("a file of its own")
        .found(format!(
            "{}, which {is} {slot} ({file})",
            opened.path.display()
        ))
        .hint(
            "copy the disk to where the configuration has it, or give the directory where it now \
             lies with --allow-dir",
        )
}

/// Another file than the one that is named is used.
fn not_there(disk: &PointDisk, opened: &Opened) -> String {
    format!(
        "{}: {} is not there; {} is used",
        disk.slot,
        escape(&disk.file),
        escape(&opened.path.display().to_string())
    )
}

impl Machine {
    /// The file of a disk, through the gate.
    pub fn locate(&self, disk: &PointDisk) -> Result<Opened> {
        self.find(disk).map(|(opened, _)| opened)
    }

    /// The same, with what to say where it is not the file that is named.
    ///
    /// A machine that was moved has its disks beside it, whatever its configuration calls them.
    /// But disks on several datastores may bear one name: what is another disk of the machine is
    /// not this one.
    pub(super) fn find(&self, disk: &PointDisk) -> Result<(Opened, Option<String>)> {
        let gate = self.place.gate(&self.vm.dir)?;
        let doing = format!("opening {} of {}", disk.slot, self.vm.name());
        let failure = match first_of(&*gate, &written(&disk.file)) {
            Ok(opened) => return Ok((opened, None)),
            Err(e) => e,
        };
        // What is there and cannot be had is not replaced by something else.
        if !self.is_elsewhere(&disk.file, &failure) {
            return match self.beside(&*gate, disk) {
                Some((opened, true)) => Ok((opened, None)),
                Some((opened, false)) => Err(failure.context(doing).hint(format!(
                    "{} has the same name: open it by itself if it is the one that is meant; \
                     --allow-dir reads the other one",
                    opened.path.display()
                ))),
                None => Err(failure.context(doing)),
            };
        }
        let mut failure = failure;
        for name in moved(&disk.file) {
            let Ok(opened) = gate.open(Path::new(&name), Purpose::Member) else {
                continue;
            };
            if let Some(other) = self.other_with(&*gate, disk, &opened) {
                failure = is_other(disk, other, &opened, "is");
                break;
            }
            let told = not_there(disk, &opened);
            return Ok((opened, Some(told)));
        }
        match self
            .in_allowed(&*gate, disk)
            .map_err(|e| e.context(&doing))?
        {
            Some(opened) => {
                let told = not_there(disk, &opened);
                Ok((opened, Some(told)))
            }
            None => Err(failure.context(doing)),
        }
    }

    /// A file of the disk's name where a machine that was moved has it, and whether it is the very
    /// one that is named: by another path, such as one through a link.
    fn beside(&self, gate: &dyn Locate, disk: &PointDisk) -> Option<(Opened, bool)> {
        use std::os::unix::fs::MetadataExt;
        let opened = first_of(gate, &moved(&disk.file)).ok()?;
        if !self.spec.datastores.is_empty() {
            return Some((opened, false));
        }
        let dir = Path::new(&self.place.describe()).join(&self.vm.dir);
        let id = |path: &Path| path.metadata().map(|m| (m.dev(), m.ino())).ok();
        let here = id(&opened.path);
        let mut named = written(&disk.file).into_iter();
        let same = here.is_some() && named.any(|name| id(&dir.join(name)) == here);
        Some((opened, same))
    }

    /// Whether a disk is not where its name says: there is nothing, or it leads to a place of
    /// another host.
    fn is_elsewhere(&self, name: &str, failure: &DiskError) -> bool {
        match failure.kind() {
            ErrorKind::NotFound => true,
            ErrorKind::Refused if self.spec.datastores.is_empty() => {
                let dir = Path::new(&self.place.describe()).join(&self.vm.dir);
                let nothing = |name: &String| {
                    let found = dir.join(name).symlink_metadata();
                    found.is_err_and(|e| {
                        use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
                        matches!(e.kind(), NotFound | NotADirectory | PermissionDenied)
                    })
                };
                written(name).iter().all(nothing)
            }
            ErrorKind::Refused => true,
            _ => false,
        }
    }

    /// The disk at another place of the machine that has this file too, now or at a snapshot.
    pub(super) fn other_with(
        &self,
        gate: &dyn Locate,
        disk: &PointDisk,
        opened: &Opened,
    ) -> Option<&PointDisk> {
        let mut disks = self.vm.points.iter().flat_map(|p| &p.disks);
        disks.find(|other| {
            other.slot != disk.slot
                && other.file != disk.file
                && base(&other.file).eq_ignore_ascii_case(base(&disk.file))
                && first_of(gate, &[written(&other.file), moved(&other.file)].concat())
                    .is_ok_and(|o| o.id == opened.id)
        })
    }

    /// What speaks against a disk's being of the restore point that has it: a snapshot's disk lies
    /// on that of the snapshot that it was made on, and the present one on that of the last.
    pub(super) fn contradictions(&self, disk: &PointDisk, image: &Image) -> Vec<String> {
        let Some(snapshots) = self.vm.snapshots.as_ref().filter(|_| !disk.independent) else {
            return Vec::new();
        };
        let links = image.links.iter().filter_map(|l| l.path.file_name());
        let links: Vec<_> = links
            .map(|name| name.to_string_lossy().to_lowercase())
            .collect();
        let mut told = Vec::new();
        for point in self.vm.points.iter().filter(|p| p.disks.contains(disk)) {
            let below = match point.uid {
                None => snapshots.current,
                Some(uid) => snapshots.get(uid).and_then(|s| s.parent),
            };
            let Some(below) = below.and_then(|uid| snapshots.get(uid)) else {
                continue;
            };
            let mut on = below.disks.iter().filter(|d| d.slot == Some(disk.slot));
            let Some(on) = on.next().map(|d| base(&d.file)) else {
                continue;
            };
            // VCB calls a disk by its place, whatever it was called.
            let of_vcb = base(&disk.file).starts_with(&format!("{}-0-", disk.slot.in_path()));
            if !links.is_empty() && !of_vcb && !links.contains(&on.to_lowercase()) {
                told.push(format!(
                    "{}: {} does not lie on {}, which snapshot {} ({}) has: one of them may be the \
                     disk of another time",
                    disk.slot,
                    escape(&disk.file),
                    escape(on),
                    below.uid,
                    escape(&below.name)
                ));
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_disks_are_looked_for() {
        for (name, names) in [
            ("web.vmdk", vec![]),
            ("sub/web.vmdk", vec!["web.vmdk", "../sub/web.vmdk"]),
            (
                "/vmfs/volumes/1/web/web.vmdk",
                vec!["web.vmdk", "../web/web.vmdk"],
            ),
            ("[ds 1] web/web.vmdk", vec!["web.vmdk", "../web/web.vmdk"]),
            ("[ds 1] web.vmdk", vec!["web.vmdk"]),
            ("C:\\vm\\web.vmdk", vec!["web.vmdk", "../vm/web.vmdk"]),
            ("../web/web.vmdk", vec!["web.vmdk"]),
        ] {
            assert_eq!(moved(name), names, "{name}");
        }
        assert_eq!(base("[ds] web.vmdk"), "web.vmdk");
    }
}
