//! Small things that every format's map needs.

use disk_io::{Disk, DiskError, FileIndex, Mapping, Place, Result};
use std::{path::Path, sync::Arc};

/// The file that `index` means, of a map's `files`.
pub(crate) fn in_file(
    index: FileIndex,
    files: &[&Arc<dyn Disk>],
    path: &Path,
) -> Result<Arc<dyn Disk>> {
    usize::try_from(index.0)
        .ok()
        .and_then(|n| files.get(n))
        .map(|disk| Arc::clone(disk))
        .ok_or_else(|| {
            DiskError::corrupt("finding the file of a range")
                .file(path.display())
                .found(format!("file {} of {}", index.0, files.len()))
        })
}

/// Emits `len` stored bytes at `offset` of a file that is `file_len` long. What lies beyond
/// its end was cut off: reading it is an error that says so, and never zeros.
pub(crate) fn emit_stored(
    file: (FileIndex, u64, &Path),
    offset: u64,
    len: u64,
    what: &str,
    emit: &mut dyn FnMut(Mapping),
) {
    let (index, file_len, path) = file;
    let inside = file_len.saturating_sub(offset).min(len);
    if inside > 0 {
        let place = Place::Stored {
            file: index,
            offset,
        };
        emit(Mapping { len: inside, place });
    }
    let outside = len.saturating_sub(inside);
    if outside > 0 {
        let at = offset.saturating_add(inside);
        let bad = DiskError::corrupt(format!("reading {what}"))
            .code("block-outside-file")
            .file(path.display())
            .offset(at)
            .expected(format!("{outside} bytes"))
            .found(format!(
                "the end of the file at {file_len}: it was cut short"
            ));
        emit(Mapping {
            len: outside,
            place: Place::Bad(bad),
        });
    }
}
