//! A disk whose name leads to a place of another host: it may be in a directory that the user
//! allowed.

use super::{
    Machine,
    disks::{first_of, is_other, written},
};
use disk_io::{DiskError, Locate, Opened, Purpose, Result, error::escape};
use inventory::{PointDisk, vcb::base};
use std::path::Path;

impl Machine {
    /// The one file of the disk's name in the allowed directories, where that is no other disk
    /// of the machine.
    pub(super) fn in_allowed(&self, gate: &dyn Locate, disk: &PointDisk) -> Result<Option<Opened>> {
        if !vmdk::is_absolute(&disk.file) {
            return Ok(None);
        }
        let mut found = gate.in_allowed(Path::new(base(&disk.file)), Purpose::Member);
        found.retain(|opened| self.other_with(gate, disk, opened).is_none());
        match found.as_slice() {
            [] => Ok(None),
            [only] => match self.namesake(gate, disk) {
                Some(other) => Err(is_other(disk, other, only, "may be")),
                None => Ok(found.pop()),
            },
            several => {
                let all = several.iter().map(|o| o.path.display().to_string());
                Err(DiskError::not_found("looking for the disk")
                    .file(escape(&disk.file))
                    .expected("one file of its name in the directories that are allowed")
                    .found(escape(&all.collect::<Vec<_>>().join(" and ")))
                    .hint("give the directory of that disk alone with --allow-dir"))
            }
        }
    }

    /// Another disk of the same name that is not where the configuration has it either: the
    /// file could be that one.
    fn namesake(&self, gate: &dyn Locate, disk: &PointDisk) -> Option<&PointDisk> {
        let mut disks = self.vm.points.iter().flat_map(|p| &p.disks);
        disks.find(|other| {
            other.file != disk.file
                && base(&other.file).eq_ignore_ascii_case(base(&disk.file))
                && first_of(gate, &written(&other.file)).is_err()
        })
    }
}
