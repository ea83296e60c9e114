//! SOURCE is only read: nothing is ever written over a file that it consists of, whatever
//! name leads there.

use crate::{exit::Failure, source};
use convert::place::{FileId, check_not_source, file_ids};
use disk_io::DiskError;
use proxy::{Source, Tree};
use std::path::{Path, PathBuf};

/// The files that SOURCE consists of.
pub(crate) fn protected(source: &Source) -> Vec<FileId> {
    let files = source::files(source);
    file_ids(files.iter().map(PathBuf::as_path))
}

/// The same for a tree, which may be of many disks.
pub(crate) fn protected_tree(tree: &Tree) -> Vec<FileId> {
    match tree.source() {
        Some(source) => protected(source),
        None => file_ids(tree.files().iter().map(PathBuf::as_path)),
    }
}

/// Refuses a file of the host to write to, if SOURCE consists of it.
pub(crate) fn check(path: &Path, source: &Source) -> Result<(), Failure> {
    let files = source::files(source);
    Ok(check_not_source(path, files.iter().map(PathBuf::as_path))?)
}

/// The same for a tree.
pub(crate) fn check_tree(path: &Path, tree: &Tree) -> Result<(), Failure> {
    match tree.source() {
        Some(source) => check(path, source),
        None => Ok(check_not_source(
            path,
            tree.files().iter().map(PathBuf::as_path),
        )?),
    }
}

/// The same for standard output: `vmdkit cat disk.vmdk /p1/x >> disk.vmdk`.
pub(crate) fn check_stdout_tree(tree: &Tree) -> Result<(), Failure> {
    check_output(|| protected_tree(tree))
}

/// The same for a disk.
pub(crate) fn check_stdout(source: &Source) -> Result<(), Failure> {
    check_output(|| protected(source))
}

fn check_output(protected: impl FnOnce() -> Vec<FileId>) -> Result<(), Failure> {
    use rustix::fs::{FileType, fstat};
    let Ok(stat) = fstat(std::io::stdout()) else {
        return Ok(());
    };
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if is_file && protected().contains(&(stat.st_dev, stat.st_ino)) {
        return Err(DiskError::refused("writing")
            .file(crate::exit::STDOUT)
            .expected("a file that the source does not consist of")
            .found("one that is being read")
            .hint("choose another destination")
            .into());
    }
    Ok(())
}
