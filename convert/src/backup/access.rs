//! A directory that takes another's place: who could enter that one may enter it, and nobody else.

use rustix::{
    fs::{
        AtFlags, CWD, Gid, Mode, OFlags, StatxAttributes, StatxFlags, Uid, fchmod, fchown,
        fgetxattr, fremovexattr, fsetxattr, open, statx,
    },
    io::Errno,
};
use std::{
    fs::{DirBuilder, File, Metadata},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
};

/// Where Linux keeps what lists more than one user, for a directory and for what is made in it.
const LISTS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];
/// Longest list: no file system has longer ones.
const MAX: usize = 64 << 10;
/// It is written into before it has its mode.
const WRITABLE: u32 = 0o700;

/// Makes the directory `temp`, as `old` is if that is one; the mode that it gets when all is in it.
pub(super) fn create(temp: &Path, old: &Path) -> io::Result<Option<u32>> {
    let found = old.symlink_metadata().ok().filter(Metadata::is_dir);
    let Some(found) = found else {
        std::fs::create_dir(temp)?;
        return Ok(None);
    };
    DirBuilder::new().mode(WRITABLE).create(temp)?;
    let taken = take_over(temp, old, &found);
    if taken.is_err() {
        let _ = std::fs::remove_dir(temp);
    }
    taken
}

fn take_over(temp: &Path, old: &Path, found: &Metadata) -> io::Result<Option<u32>> {
    let dir = directory(temp)?;
    // Whose it is only root may say; a group, whoever is in it.
    let group = Some(Gid::from_raw(found.gid()));
    if fchown(&dir, Some(Uid::from_raw(found.uid())), group).is_err() {
        let _ = fchown(&dir, None, group);
    }
    // One that may not be read says nothing of its lists.
    if let Ok(old) = directory(old) {
        for list in LISTS {
            keep_list(&dir, &old, list)?;
        }
    }
    set_mode(&dir, found.mode() | WRITABLE)?;
    Ok(Some(found.mode()))
}

fn directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(open(path, flags, Mode::empty())?))
}

/// A file system without modes may refuse what changes none.
pub(super) fn set_mode(dir: &File, mode: u32) -> io::Result<()> {
    let mode = mode & 0o7777;
    match dir.metadata()?.mode() & 0o7777 == mode {
        true => Ok(()),
        false => Ok(fchmod(dir, Mode::from_raw_mode(mode))?),
    }
}

/// The list that `old` has, or none where it has none: a new directory may have its parent's.
fn keep_list(dir: &File, old: &File, list: &str) -> io::Result<()> {
    let mut value = vec![0; MAX];
    let done = match fgetxattr(old, list, value.as_mut_slice()) {
        Ok(len) => {
            let value = value.get(..len).unwrap_or_default();
            fsetxattr(dir, list, value, rustix::fs::XattrFlags::empty())
        }
        Err(Errno::NODATA) => fremovexattr(dir, list),
        Err(e) => Err(e),
    };
    match done {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Whether another file system, or another place of this one, is mounted there: no directory can
/// take its place.
pub(super) fn is_mounted(dir: &Path, above: &Path) -> bool {
    let (Ok(own), Ok(parent)) = (dir.symlink_metadata(), above.metadata()) else {
        return false;
    };
    // The numbers of devices do not tell a directory that is mounted on one of its own.
    let root = statx(
        CWD,
        dir,
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
        StatxFlags::empty(),
    );
    own.dev() != parent.dev()
        || root.is_ok_and(|s| s.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
