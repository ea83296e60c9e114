//! The new directory of a backup, which appears under its name when it is complete, and what is
//! left of those that never were.

use super::{access, strays::is_of_host};
use crate::place;
use disk_io::{DiskError, Result, error::shell_word};
use rustix::fs::{FlockOperation, flock};
use std::{
    cell::Cell,
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// What is younger may be somebody's that has not locked it yet.
const YOUNG: Duration = Duration::from_secs(60 * 60);

/// A directory that appears when it is complete. Dropped before, nothing is left.
pub(super) struct NewDir {
    pub(super) temp: PathBuf,
    pub(super) dest: PathBuf,
    pub(super) done: bool,
    /// The mode that it gets when all is in it, where it takes the place of another.
    mode: Option<u32>,
    /// While it is open nobody takes the directory for one that a killed process left.
    _locked: Option<File>,
}

/// Refuses a directory that [`write()`](super::write()) would refuse.
pub fn check_dest(dest: &Path) -> Result<()> {
    let refused = |found: &str| {
        DiskError::refused("creating the directory")
            .file(dest.display())
            .expected("a new name, or an empty directory")
            .found(found)
    };
    // Such a one stays where it is, and what is written would be complete without a name.
    let stays = |found: &str| {
        let new = shell_word(&dest.join("NAME").display().to_string());
        refused(found).hint(format!("name a new directory in it: {new}"))
    };
    let Some(named) = named(dest) else {
        return Err(stays("a path that does not end in a name"));
    };
    if named.is_symlink() {
        return Err(stays("a symbolic link"));
    }
    match fs::read_dir(&named) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(refused("a directory with files in it"));
            }
            if access::is_mounted(&named, parent(dest)) {
                return Err(stays("one that a file system is mounted on"));
            }
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(_) if named.symlink_metadata().is_ok() => return Err(refused("something else")),
        Err(e) => {
            return Err(DiskError::io("creating the directory", &e).file(dest.display()));
        }
    }
    Ok(())
}

impl NewDir {
    pub(super) fn create(dest: &Path) -> Result<Self> {
        check_dest(dest)?;
        Self::beside(dest)
    }

    /// One that will have the name of `dest`, which may exist.
    pub(super) fn beside(dest: &Path) -> Result<Self> {
        let (mode, old) = (
            Cell::new(None),
            named(dest).unwrap_or_else(|| dest.to_path_buf()),
        );
        let take = |temp: &Path| access::create(temp, &old).map(|found| mode.set(found));
        let temp = under_temp_name(dest, take)
            .map_err(|e| DiskError::io("creating the directory", &e).file(dest.display()))?;
        Ok(Self {
            _locked: locked(&temp),
            temp,
            dest: dest.to_path_buf(),
            done: false,
            mode: mode.get(),
        })
    }

    /// Gives it the mode of what it takes the place of, and makes its names last.
    pub(super) fn settle(&self) -> io::Result<()> {
        let dir = File::open(&self.temp)?;
        if let Some(mode) = self.mode {
            access::set_mode(&dir, mode)?;
        }
        dir.sync_all()
    }

    pub(super) fn finish(mut self) -> Result<()> {
        let fail = |e| DiskError::io("finishing the directory", &e).file(self.dest.display());
        let sync = |path: &Path| File::open(path).and_then(|dir| dir.sync_all());
        self.settle().map_err(fail)?;
        let named = named(&self.dest).unwrap_or_else(|| self.dest.clone());
        fs::rename(&self.temp, named).map_err(fail)?;
        self.done = true;
        if let Some(parent) = self.temp.parent() {
            sync(parent).map_err(fail)?;
        }
        Ok(())
    }
}

impl Drop for NewDir {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_dir_all(&self.temp);
        }
    }
}

/// `dest` without what may follow its name, `/` or `/.`, and would be followed through a link.
fn named(dest: &Path) -> Option<PathBuf> {
    dest.file_name().map(|name| parent(dest).join(name))
}

fn parent(dest: &Path) -> &Path {
    match dest.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A temporary name beside `dest` that nothing has, after `take` took it.
fn under_temp_name(dest: &Path, take: impl Fn(&Path) -> io::Result<()>) -> io::Result<PathBuf> {
    loop {
        let temp = parent(dest).join(place::temp_name());
        match take(&temp) {
            Ok(()) => return Ok(temp),
            // Left by a killed process that had our number: in a container all have the same.
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty
                ) => {}
            Err(e) => return Err(e),
        }
    }
}

/// The directory, if nobody else has it; always `None` on file systems without locks.
fn locked(dir: &Path) -> Option<File> {
    let file = File::open(dir).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

/// Removes a backup: the files that are its own, and the directory if nothing else is in it. It
/// loses its name first, so that half of it is never taken for one: without the sync a loss of power
/// could leave the name and take files. Whether the directory is gone too; one that is not has its
/// name again.
///
/// # Errors
/// `Io`; what then is left of it has a temporary name.
pub fn discard(dir: &Path, own: &[&str]) -> Result<bool> {
    let fail = |e: io::Error| DiskError::io("removing a backup", &e).file(dir.display());
    let gone = under_temp_name(dir, |temp| fs::rename(dir, temp)).map_err(fail)?;
    match File::open(parent(dir)).and_then(|above| above.sync_all()) {
        // Some file systems of others cannot.
        Err(e) if e.kind() != ErrorKind::InvalidInput => return Err(fail(e)),
        _ => {}
    }
    for name in own {
        match fs::remove_file(gone.join(name)) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                // Under its temporary name the next run would take all of it.
                let _ = fs::rename(&gone, dir);
                return Err(fail(e));
            }
            _ => {}
        }
    }
    match fs::remove_dir(&gone) {
        Ok(()) => Ok(true),
        Err(e) => {
            fs::rename(&gone, dir).map_err(fail)?;
            match e.kind() {
                ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists => Ok(false),
                _ => Err(fail(e)),
            }
        }
    }
}

/// Removes what killed processes left in `dir`: directories with temporary names that are some
/// time old and that nobody has locked. Says which. To be called by whoever is alone in making
/// and removing backups there.
pub fn remove_leftovers(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let old = |path: &Path| {
        let modified = path.symlink_metadata().and_then(|m| m.modified());
        modified.is_ok_and(|at| {
            SystemTime::now()
                .duration_since(at)
                .is_ok_and(|age| age > YOUNG)
        })
    };
    let temporary = entries.filter(|e| e.file_name().to_str().is_some_and(is_temporary));
    temporary
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .filter(|path| !has_others(path))
        .filter(|path| old(path) && locked(path).is_some() && fs::remove_dir_all(path).is_ok())
        .collect()
}

/// `.vmdkit-PID-N.tmp`, as [`place::temp_name`] makes them.
fn is_temporary(name: &str) -> bool {
    let inner = name
        .strip_prefix(place::TEMP_PREFIX)
        .and_then(|n| n.strip_suffix(".tmp"));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    inner
        .and_then(|n| n.split_once('-'))
        .is_some_and(|(pid, n)| number(pid) && number(n))
}

/// Whether the host's own system has put something into a directory: that goes with nothing of ours.
fn has_others(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let name = entry.file_name();
        let kind = entry.file_type();
        kind.is_ok_and(|kind| name.to_str().is_some_and(|name| is_of_host(name, kind)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{FileTimes, Permissions},
        os::unix::fs::{MetadataExt, PermissionsExt, chown},
    };

    fn age(dir: &Path) {
        let then = SystemTime::now() - YOUNG - YOUNG;
        let times = FileTimes::new().set_modified(then);
        File::open(dir).unwrap().set_times(times).unwrap();
    }

    #[test]
    fn only_what_nobody_has_is_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mine = NewDir::beside(&at("b")).unwrap();
        let names = [
            ".vmdkit-7-0.tmp",
            ".vmdkit-8-0.tmp",
            ".vmdkit-new-7-0.tmp",
            ".vmdkit-7.tmp",
            "7-0",
        ];
        for name in names {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("x"), "x").unwrap();
        }
        fs::write(at(".vmdkit-9-0.tmp"), "a file").unwrap();
        std::os::unix::fs::symlink(at("7-0"), at(".vmdkit-10-0.tmp")).unwrap();
        age(&mine.temp);
        names[..1]
            .iter()
            .chain(&names[2..])
            .for_each(|n| age(&at(n)));
        // What is young stays, and what is locked.
        assert_eq!(remove_leftovers(dir.path()), [at(names[0])]);
        assert!(mine.temp.is_dir());
        names[1..]
            .iter()
            .for_each(|n| assert!(at(n).join("x").exists(), "{n}"));
        let temp = mine.temp.clone();
        drop(mine);
        assert!(!temp.exists());
    }

    fn mode_of(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o7777
    }

    /// What is given away can be told apart only by root.
    #[test]
    fn who_could_enter_the_old_one_may_enter_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("b");
        let root = rustix::process::geteuid().is_root();
        for mode in [0o700, 0o500, 0o2750, 0o1777] {
            fs::create_dir(&dest).unwrap();
            if root {
                chown(&dest, Some(65534), Some(65533)).unwrap();
            }
            fs::set_permissions(&dest, Permissions::from_mode(mode)).unwrap();
            // With the slash that shells add.
            let new = NewDir::create(&dir.path().join("b/")).unwrap();
            assert_eq!(mode_of(&new.temp), mode | 0o700);
            fs::write(new.temp.join("x"), "x").unwrap();
            new.finish().unwrap();
            assert_eq!(mode_of(&dest), mode);
            let found = dest.metadata().unwrap();
            assert!(!root || (found.uid(), found.gid()) == (65534, 65533));
            assert!(dest.join("x").exists());
            fs::set_permissions(&dest, Permissions::from_mode(0o700)).unwrap();
            fs::remove_dir_all(&dest).unwrap();
        }
        // A new one is as the umask has it.
        fs::create_dir(dir.path().join("other")).unwrap();
        NewDir::create(&dest).unwrap().finish().unwrap();
        assert_eq!(mode_of(&dest), mode_of(&dir.path().join("other")));
    }

    /// A list of users is taken over, and one that only the parent has is not.
    #[test]
    fn lists_of_users_are_those_of_the_old_one() {
        // user::rwx user:65534:r-x group::--- mask::r-x other::---
        let entry = |tag: u16, perm: u16, id: u32| {
            [
                tag.to_le_bytes().as_slice(),
                &perm.to_le_bytes(),
                &id.to_le_bytes(),
            ]
            .concat()
        };
        let none = u32::MAX;
        let list = [
            2u32.to_le_bytes().to_vec(),
            entry(1, 7, none),
            entry(2, 5, 65534),
            entry(4, 0, none),
            entry(0x10, 5, none),
            entry(0x20, 0, none),
        ]
        .concat();
        let dir = tempfile::tempdir().unwrap();
        let [dest, plain] = ["b", "p"].map(|name| dir.path().join(name));
        let flags = rustix::fs::XattrFlags::empty();
        let set = |path: &Path, name: &str| rustix::fs::setxattr(path, name, &list, flags);
        let has = |path: &Path, name: &str| {
            let mut value = [0; 200];
            match rustix::fs::getxattr(path, name, &mut value) {
                Ok(len) => value[..len] == list,
                Err(_) => false,
            }
        };
        let [access, default] = ["system.posix_acl_access", "system.posix_acl_default"];
        fs::create_dir(&dest).unwrap();
        fs::create_dir(&plain).unwrap();
        if set(&dest, access).is_err() {
            // This file system has none.
            return;
        }
        set(dir.path(), default).unwrap();
        for path in [&dest, &plain] {
            NewDir::create(path).unwrap().finish().unwrap();
            assert_eq!(has(path, access), path == &dest, "{path:?}");
            assert!(!has(path, default), "{path:?}");
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_refused_first() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("real")).unwrap();
        std::os::unix::fs::symlink("real", at("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("loose")).unwrap();
        for name in ["link", "link/", "link/.", "loose", "real/..", "."] {
            let path = match name {
                "." => PathBuf::from(name),
                name => at(name),
            };
            let e = check_dest(&path).unwrap_err().to_string();
            assert!(e.contains("name a new directory in it"), "{name}: {e}");
        }
        // Of another file system.
        let e = check_dest(Path::new("/proc/self")).unwrap_err();
        assert!(e.to_string().contains("symbolic link"), "{e}");
        assert!(access::is_mounted(Path::new("/proc"), Path::new("/")));
        assert!(!access::is_mounted(&at("real"), dir.path()));
        NewDir::create(&at("real/.")).unwrap().finish().unwrap();
        assert!(at("real").is_dir());
    }

    /// Where every process has the same number, names are found taken.
    #[test]
    fn a_name_that_is_taken_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("b");
        let tried = std::cell::Cell::new(0);
        let temp = under_temp_name(&dest, |temp| {
            tried.set(tried.get() + 1);
            if tried.get() == 1 {
                fs::create_dir(temp)?;
            }
            fs::create_dir(temp)
        });
        assert!(temp.unwrap().is_dir() && tried.get() == 2);
    }
}
