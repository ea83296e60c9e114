//! New images: empty ones, children of others, and descriptors for flat files.

use crate::{
    digest::DigestKind,
    place::Partial,
    progress::Progress,
    to_image::{Destination, FileSet, ImageFormat, ImageOptions, Report, to_image},
};
use disk_io::{Disk, DiskError, Result, SparseMemDisk};
use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};
use vmdk::writer::{Options, Plan, Sink, Subformat, Writer};

/// An image of `len` zeros.
///
/// # Errors
/// As [`to_image`].
pub fn empty(
    path: &Path,
    len: u64,
    format: ImageFormat,
    force: bool,
    progress: &dyn Progress,
) -> Result<Report> {
    let zeros: Arc<dyn Disk> = Arc::new(SparseMemDisk::new(len));
    let options = ImageOptions {
        format,
        digest: DigestKind::None,
        force,
        ..ImageOptions::default()
    };
    to_image(&zeros, Destination::File(path), &options, progress)
}

/// A VMDK of `len` bytes with nothing of its own: all of it is the parent's, which
/// `options` names. `sources` are the parent's files. Gives the files that were made.
///
/// # Errors
/// `Refused` for subformats that can have no parent.
pub fn child(
    path: &Path,
    len: u64,
    options: Options,
    force: bool,
    sources: Vec<PathBuf>,
) -> Result<Vec<PathBuf>> {
    let subformat = options.subformat;
    if subformat.is_flat() || subformat == Subformat::StreamOptimized {
        return Err(crate::delta::no_child(path, subformat));
    }
    let disk: Arc<dyn Disk> = Arc::new(SparseMemDisk::new(len));
    let options = ImageOptions {
        format: ImageFormat::Vmdk(options),
        force,
        sources,
        ..ImageOptions::default()
    };
    let set = FileSet::create(path, &disk, &options.format, &options)?;
    let sinks = set.partials.iter().map(|p| Sink::File(p.file())).collect();
    Writer::create(set.plan()?, sinks)?.finish()?;
    set.finish()
}

/// A descriptor for a flat file that has none. Gives the length of the disk.
///
/// # Errors
/// `Refused` if the file is no whole number of sectors, or not in the descriptor's own
/// directory, where every reader looks for it.
pub fn over(path: &Path, flat: &Path, options: Options, force: bool) -> Result<u64> {
    let refused = || DiskError::refused("describing a flat file").file(flat.display());
    let found = std::fs::metadata(flat)
        .map_err(|e| DiskError::io("looking at the flat file", &e).file(flat.display()))?;
    if !found.is_file() {
        return Err(refused().expected("a regular file").found("something else"));
    }
    let beside = |p: &Path| -> Option<PathBuf> {
        let parent = p.parent().filter(|p| !p.as_os_str().is_empty());
        parent.unwrap_or(Path::new(".")).canonicalize().ok()
    };
    if beside(flat) != beside(path) {
        return Err(refused()
            .expected("a file in the descriptor's own directory")
            .found("another directory")
            .hint("create the descriptor beside the flat file"));
    }
    let (Some(name), Some(flat_name)) = (
        path.file_name().and_then(|n| n.to_str()),
        flat.file_name().and_then(|n| n.to_str()),
    ) else {
        return Err(refused().expected("names in UTF-8: descriptors say them"));
    };
    if !options.subformat.is_flat() || options.subformat == Subformat::TwoGbMaxExtentFlat {
        return Err(refused()
            .expected("monolithicFlat or vmfs")
            .found(options.subformat.name()));
    }
    let plan = Plan::over(name, flat_name, found.len(), options)?;
    crate::place::check_not_source(path, [flat])?;
    let partial = Partial::create(path, force)?;
    partial
        .file()
        .write_all(plan.descriptor().as_bytes())
        .map_err(|e| disk_io::output::write_error("writing", path, &e))?;
    partial.finish()?;
    Ok(found.len())
}
