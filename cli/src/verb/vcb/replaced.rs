//! The machine that `vcb restore -b overwrite` replaces: what of it may go.

use crate::{
    args::{Global, HowArgs, SourceArgs},
    exit::Failure,
    source::spec_of,
};
use convert::backup::manifest;
use inventory::FileKind;
use proxy::machine::scan;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

/// Whether a file is a host's lock: `web.vmx.lck` (a directory, of Workstation), `.lck-0123…` (of
/// ESX on NFS).
pub(super) fn is_lock(name: &OsStr) -> bool {
    Path::new(name).extension() == Some(OsStr::new("lck"))
        || name.as_encoded_bytes().starts_with(b".lck-")
}

/// What the machine in a directory has.
#[derive(Default)]
pub(super) struct Own {
    /// Names of the files of its disks, at any of its points. A disk in the directory that is none
    /// of them may be another machine's.
    disks: BTreeSet<OsString>,
    /// A disk that another machine has too, and that machine.
    pub(super) shared: Option<(PathBuf, String)>,
}

impl Own {
    /// Of the machine in `dir`, which lies in `below`, where others are.
    pub(super) fn of(below: &Path, dir: &Path, global: &Global) -> Result<Self, Failure> {
        let mut own = Self::default();
        let spec = |dir: &Path| {
            let source = SourceArgs {
                source: dir.to_path_buf(),
                how: HowArgs::default(),
            };
            spec_of(&source, global)
        };
        let alone = spec(dir)?;
        for scanned in scan(&alone)? {
            for vm in &scanned.inventory.vms {
                let machine = scanned.machine(vm, &alone);
                for disk in vm.points.iter().flat_map(|p| &p.disks) {
                    let name = disk.file.rsplit(['/', '\\']).next().unwrap_or_default();
                    own.disks.insert(name.into());
                    // Of one that cannot be opened only its name is known: the rest stays.
                    let files = machine.describe(disk).map(|facts| facts.files);
                    let files = files.unwrap_or_default();
                    let names = files.iter().filter_map(|f| f.file_name());
                    own.disks.extend(names.map(OsStr::to_owned));
                }
            }
        }
        let Some(name) = dir.file_name() else {
            return Ok(own);
        };
        for scanned in scan(&spec(below)?)? {
            let all = &scanned.inventory.vms;
            for (disk, machines) in scanned.inventory.shared_disks() {
                let mut others = machines.iter().filter_map(|n| all.get(*n));
                let other = others.find(|vm| !vm.dir.starts_with(name));
                if let Some(other) = other.filter(|_| disk.starts_with(name)) {
                    own.shared = Some((disk, other.name()));
                }
            }
        }
        Ok(own)
    }
}

/// Puts `new` in the place of `dest`, and says where what was there is now. At no moment is
/// nothing there, where the file system can do that.
pub(super) fn exchange(new: &Path, dest: &Path, aside: &Path) -> io::Result<PathBuf> {
    if renameat_with(CWD, new, CWD, dest, RenameFlags::EXCHANGE).is_ok() {
        return Ok(new.to_path_buf());
    }
    fs::rename(dest, aside)?;
    if let Err(e) = fs::rename(new, dest) {
        fs::rename(aside, dest)?;
        return Err(e);
    }
    Ok(aside.to_path_buf())
}

/// Removes a machine's directory; `true` if it holds something else and stays.
pub(super) fn remove_machine(dir: &Path, own: &Own) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        let is_disk = own.disks.contains(name.as_os_str());
        let ours = [manifest::NAME, "catalog"].map(Path::new);
        let known = is_disk || FileKind::of(&name).is_some() || ours.contains(&name.as_path());
        if !known || !entry.file_type()?.is_file() {
            return Ok(true);
        }
    }
    fs::remove_dir_all(dir)?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_of_hosts() {
        for yes in ["web.vmx.lck", ".lck-3409000000000000"] {
            assert!(is_lock(OsStr::new(yes)), "{yes}");
        }
        assert!(!is_lock(OsStr::new("web.vmx")));
    }

    #[test]
    fn only_a_machine_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let own = Own {
            disks: ["web.vmdk", "web-flat.vmdk"].map(OsString::from).into(),
            shared: None,
        };
        let at = dir.path().join("web");
        fs::create_dir(&at).unwrap();
        for name in [
            "web.vmx",
            "web.vmdk",
            "web-flat.vmdk",
            "vmware.log",
            "catalog",
        ] {
            fs::write(at.join(name), "").unwrap();
        }
        for other in ["notes.txt", "data.vmdk"] {
            fs::write(at.join(other), "mine").unwrap();
            assert!(remove_machine(&at, &own).unwrap());
            assert!(at.join("web.vmx").exists());
            fs::remove_file(at.join(other)).unwrap();
        }
        assert!(!remove_machine(&at, &own).unwrap());
        assert!(!at.exists());
    }
}
