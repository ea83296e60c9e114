//! Temporary names, and the rename that makes a finished result appear.
//!
//! A result is written beside its destination under a name that nobody takes for a result,
//! synced, and renamed. What is not finished is removed; after `kill -9` the temporary name
//! stays and the destination does not exist.

use crate::target::write_error;
use disk_io::{DiskError, Result};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{
        AtFlags, Gid, Mode, OFlags, RenameFlags, Uid, fchmod, fchown, fsync, linkat, openat,
        renameat, renameat_with, statat, unlinkat,
    },
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Every temporary name begins with this and ends in `.tmp`.
pub const TEMP_PREFIX: &str = ".vmdkit-";

/// A name that is not in use, most likely; creation is exclusive anyway.
pub(crate) fn temp_name() -> OsString {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{TEMP_PREFIX}{}-{n}.tmp", std::process::id()).into()
}

/// Creates a new file under a temporary name in `dir`, for its owner only: what goes into it
/// may be secret, and its mode comes last.
pub(crate) fn create_temp(dir: impl AsFd) -> Result<(OsString, File), Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        let name = temp_name();
        match openat(&dir, &name, flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => return Ok((name, File::from(fd))),
            // Left by a killed process that had our number.
            Err(Errno::EXIST | Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// The mode of a new file for which nobody asked for another: what the umask leaves.
pub(crate) fn default_mode() -> Mode {
    static UMASK: OnceLock<u32> = OnceLock::new();
    // The call that tells the umask sets it too, for other threads as well.
    let read = || {
        let status = std::fs::read("/proc/self/status").ok()?;
        let status = String::from_utf8_lossy(&status);
        let umask = status.lines().find_map(|l| l.strip_prefix("Umask:"))?;
        u32::from_str_radix(umask.trim(), 8).ok()
    };
    let umask = *UMASK.get_or_init(|| read().unwrap_or(0o077));
    Mode::from_raw_mode(0o666 & !umask)
}

/// Gives `temp` its final name; [`Errno::EXIST`] if that is taken and `replace` is not set.
/// Where the file system cannot rename without replacing, a hard link serves, and where it
/// has none, a look before the rename.
pub(crate) fn rename_in(
    dir: impl AsFd,
    temp: &OsStr,
    name: &OsStr,
    replace: bool,
) -> Result<(), Errno> {
    if replace {
        renameat(&dir, temp, &dir, name)?;
        // Two names of one file are left alone by rename.
        let _ = unlinkat(&dir, temp, AtFlags::empty());
        return Ok(());
    }
    match renameat_with(&dir, temp, &dir, name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => {}
        other => return other,
    }
    match linkat(&dir, temp, &dir, name, AtFlags::empty()) {
        Ok(()) => return unlinkat(&dir, temp, AtFlags::empty()),
        Err(Errno::EXIST) => return Err(Errno::EXIST),
        Err(_) => {}
    }
    match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => renameat(&dir, temp, &dir, name),
        Ok(_) => Err(Errno::EXIST),
        Err(e) => Err(e),
    }
}

/// A result that is being written.
#[derive(Debug)]
pub struct Partial {
    dir: OwnedFd,
    temp: Option<OsString>,
    name: OsString,
    path: PathBuf,
    file: File,
    replace: bool,
    /// It has the mode of a file that it replaces.
    moded: bool,
    /// Whether somebody else syncs it and its directory.
    sync_later: bool,
}

impl Partial {
    /// Starts writing what will be `dest`. Without `replace` a `dest` that exists is
    /// refused, now and again at the end. Only a regular file is ever replaced.
    pub fn create(dest: &Path, replace: bool) -> Result<Self> {
        let Some(name) = dest.file_name() else {
            return Err(DiskError::refused("creating the output")
                .file(dest.display())
                .expected("the name of a file"));
        };
        let replaced = check_destination(dest, replace)?;
        let dir = Self::dir_of(dest)?;
        let (temp, file) = create_temp(&dir)
            .map_err(|e| write_error("creating a temporary file beside", dest, &e.into()))?;
        Self::over(dest, name, (dir, temp, file), replaced, replace)
    }

    /// Goes on with what [`Self::leave`] or a killed process left: an open file, and its name.
    pub(crate) fn reopen(dest: &Path, temp: OsString, file: File, replace: bool) -> Result<Self> {
        let name = dest.file_name().unwrap_or_default();
        let replaced = check_destination(dest, replace)?;
        let dir = Self::dir_of(dest)?;
        Self::over(dest, name, (dir, temp, file), replaced, replace)
    }

    /// The directory of an output.
    pub(crate) fn dir_of(dest: &Path) -> Result<OwnedFd> {
        let parent = match dest.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(parent, flags, Mode::empty()).map_err(|e| {
            DiskError::io("opening the directory of the output", &e.into())
                .file(parent.display())
                .hint(format!("mkdir -p {}", parent.display()))
        })
    }

    fn over(
        dest: &Path,
        name: &OsStr,
        (dir, temp, file): (OwnedFd, OsString, File),
        replaced: Option<Metadata>,
        replace: bool,
    ) -> Result<Self> {
        let replaced = replaced.filter(Metadata::is_file);
        let partial = Self {
            dir,
            temp: Some(temp),
            name: name.to_owned(),
            path: dest.to_path_buf(),
            file,
            replace,
            moded: replaced.is_some(),
            sync_later: false,
        };
        // Who may read the old file may read the new one, and nobody else.
        if let Some(old) = replaced {
            keep_access(&partial.file, old.uid(), old.gid(), old.mode())
                .map_err(|e| write_error("setting the mode of", dest, &e.into()))?;
        }
        Ok(partial)
    }

    /// The name it has until it is finished.
    pub(crate) fn temp_name(&self) -> &OsStr {
        self.temp.as_deref().unwrap_or_default()
    }

    /// Leaves what is unfinished as it is, for [`Self::reopen`].
    pub(crate) fn leave(mut self) {
        self.temp = None;
    }

    /// The file, to be written.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Syncs it and gives it its name.
    pub fn finish(mut self) -> Result<()> {
        self.sync()?;
        self.place()
    }

    /// Leaves it to whoever calls to sync it and its directory.
    pub(crate) fn sync_later(&mut self) {
        self.sync_later = true;
    }

    /// Makes all that was written last, with the mode that it gets.
    pub(crate) fn sync(&self) -> Result<()> {
        if !self.moded {
            // A file system without modes may refuse.
            let _ = fchmod(&self.file, default_mode());
        }
        match self.sync_later {
            true => Ok(()),
            false => fsync(&self.file).map_err(|e| write_error("syncing", &self.path, &e.into())),
        }
    }

    /// Gives what was synced its name. After an error [`Self::is_placed`] tells whether it has it.
    pub(crate) fn place(&mut self) -> Result<()> {
        if let Some(temp) = &self.temp {
            match rename_in(&self.dir, temp, &self.name, self.replace) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Err(exists(&self.path)),
                Err(e) => return Err(write_error("renaming the output to", &self.path, &e.into())),
            }
        }
        self.temp = None;
        // The name is there; whether it survives a power cut is this call's business.
        self.sync_dir()
    }

    /// Takes away what has its name now, or is to be replaced.
    pub(crate) fn remove_placed(&self) -> Result<()> {
        match unlinkat(&self.dir, &self.name, AtFlags::empty()) {
            Ok(()) => self.sync_dir(),
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(write_error("removing", &self.path, &e.into())),
        }
    }

    pub(crate) fn is_placed(&self) -> bool {
        self.temp.is_none()
    }

    /// Whether it takes the place of what is there.
    pub(crate) fn replaces(&self) -> bool {
        self.replace
    }

    fn sync_dir(&self) -> Result<()> {
        if self.sync_later {
            return Ok(());
        }
        fsync(&self.dir).or_else(|e| match e {
            Errno::INVAL => Ok(()),
            e => Err(write_error(
                "syncing the directory of",
                &self.path,
                &e.into(),
            )),
        })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(temp) = &self.temp {
            let _ = unlinkat(&self.dir, temp, AtFlags::empty());
        }
    }
}

fn exists(dest: &Path) -> DiskError {
    DiskError::refused("creating the output")
        .file(dest.display())
        .expected("no file of that name")
        .found("one that exists")
        .hint("--force replaces it once the new one is complete")
}

/// Owner (as far as that is allowed) and permission bits of a file that is replaced, for
/// the one that takes its place.
pub(crate) fn keep_access(file: &File, uid: u32, gid: u32, mode: u32) -> Result<(), Errno> {
    let _ = fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    fchmod(file, Mode::from_raw_mode(mode & 0o777))
}

/// What is at the destination now, if anything; an error if it must stay.
pub(crate) fn check_destination(dest: &Path, replace: bool) -> Result<Option<Metadata>> {
    let found = match std::fs::symlink_metadata(dest) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(DiskError::io("looking at", &e).file(dest.display())),
        Ok(found) => found,
    };
    if found.is_dir() {
        return Err(DiskError::refused("creating the output")
            .file(dest.display())
            .expected("the name of a file")
            .found("a directory"));
    }
    if !found.is_file() && !found.is_symlink() {
        return Err(DiskError::refused("creating the output")
            .file(dest.display())
            .expected("a regular file, or none")
            .found("a device, pipe or socket"));
    }
    if replace {
        Ok(Some(found))
    } else {
        Err(exists(dest))
    }
}

/// A file of the host under whatever name: its device and inode number.
pub type FileId = (u64, u64);

/// The files behind names, symbolic links among the names counted too. Names that lead
/// nowhere are left out.
pub fn file_ids<'p>(names: impl IntoIterator<Item = &'p Path>) -> Vec<FileId> {
    let mut ids: Vec<FileId> = names
        .into_iter()
        .flat_map(|name| [std::fs::metadata(name), std::fs::symlink_metadata(name)])
        .flatten()
        .map(|found| (found.dev(), found.ino()))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Refuses a destination that is one of the files being read, under whatever name.
pub fn check_not_source<'p>(
    dest: &Path,
    sources: impl IntoIterator<Item = &'p Path>,
) -> Result<()> {
    let there = file_ids([dest]);
    if there.is_empty() {
        return Ok(());
    }
    for source in sources {
        if file_ids([source]).iter().any(|id| there.contains(id)) {
            return Err(is_source(dest).found(format!("the same file as {}", source.display())));
        }
    }
    Ok(())
}

pub(crate) fn is_source(dest: &Path) -> DiskError {
    DiskError::refused("creating the output")
        .file(dest.display())
        .expected("a file that the source does not consist of")
        .found("one that is being read")
        .hint("choose another destination")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write};

    fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        all.sort();
        all
    }

    #[test]
    fn appears_when_finished_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("out.raw");
        let partial = Partial::create(&dest, false).unwrap();
        partial.file().write_all(b"x").unwrap();
        assert!(!dest.exists());
        assert_eq!(names(dir.path()).len(), 1);
        partial.finish().unwrap();
        assert_eq!(names(dir.path()), ["out.raw"]);
    }

    #[test]
    fn dropped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(Partial::create(&dir.path().join("out"), false).unwrap());
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn never_replaces_unasked_even_what_appeared_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("out");
        let partial = Partial::create(&dest, false).unwrap();
        fs::write(&dest, b"other").unwrap();
        let e = partial.finish().unwrap_err();
        assert!(e.to_string().contains("--force"), "{e}");
        assert_eq!(fs::read(&dest).unwrap(), b"other");
        assert!(Partial::create(&dest, false).is_err());
        Partial::create(&dest, true).unwrap().finish().unwrap();
        assert_eq!(fs::read(&dest).unwrap(), b"");
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn a_link_is_replaced_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, dest) = (dir.path().join("victim"), dir.path().join("out"));
        fs::write(&victim, b"keep").unwrap();
        std::os::unix::fs::symlink(&victim, &dest).unwrap();
        assert!(Partial::create(&dest, false).is_err());
        let partial = Partial::create(&dest, true).unwrap();
        partial.file().write_all(b"new").unwrap();
        partial.finish().unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"keep");
        assert_eq!(fs::read(&dest).unwrap(), b"new");
    }

    #[test]
    fn a_source_is_known_under_every_name() {
        let dir = tempfile::tempdir().unwrap();
        let (source, twin) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&source, b"").unwrap();
        fs::hard_link(&source, &twin).unwrap();
        assert!(check_not_source(&twin, [source.as_path()]).is_err());
        assert!(check_not_source(&dir.path().join("c"), [source.as_path()]).is_ok());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&source, &link).unwrap();
        assert!(check_not_source(&link, [source.as_path()]).is_err());
        assert!(check_not_source(&link, [link.as_path()]).is_err());
    }

    #[test]
    fn nobody_else_reads_what_is_unfinished() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (dest, other) = (dir.path().join("out"), dir.path().join("other"));
        fs::write(&other, b"").unwrap();
        let mode = |m: fs::Metadata| m.permissions().mode() & 0o777;
        let partial = Partial::create(&dest, true).unwrap();
        assert_eq!(mode(partial.file().metadata().unwrap()), 0o600);
        partial.finish().unwrap();
        let usual = mode(fs::metadata(&other).unwrap());
        assert_eq!(mode(fs::metadata(&dest).unwrap()), usual);
    }

    #[test]
    fn who_may_read_the_old_file_may_read_the_new_one() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("out");
        fs::write(&dest, b"old").unwrap();
        fs::set_permissions(&dest, fs::Permissions::from_mode(0o640)).unwrap();
        let partial = Partial::create(&dest, true).unwrap();
        let mode = |m: fs::Metadata| m.permissions().mode() & 0o777;
        assert_eq!(mode(partial.file().metadata().unwrap()), 0o640);
        partial.finish().unwrap();
        assert_eq!(mode(fs::metadata(&dest).unwrap()), 0o640);
    }
}
