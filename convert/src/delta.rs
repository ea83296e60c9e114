//! Children that hold what differs from a parent, and writing that into the parent.

use crate::{
    pipeline::{self, workers},
    place::Partial,
    progress::Progress,
    to_image::{FileSet, ImageFormat, ImageOptions},
};
use disk_io::{Disk, DiskError, Result, output::write_error, zero::is_zero};
use std::{
    fs::File,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use vmdk::writer::{Options, Sink, Subformat, Writer};

/// What is read and written at a time.
const PIECE: u64 = 1 << 20;

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The files that were made, the one that was asked for last.
    pub files: Vec<PathBuf>,
    /// Bytes written as data.
    pub written: u64,
    /// Bytes said to be zeros.
    pub zeros: u64,
}

/// How to write a child.
#[derive(Clone, Debug, Default)]
pub struct ChildOptions {
    /// Replace the destination if it exists.
    pub force: bool,
    /// Threads; 0 means one for every core.
    pub workers: usize,
    /// Files that are being read: none of them may be the destination.
    pub sources: Vec<PathBuf>,
    /// Whoever calls syncs the files and their directory.
    pub sync_later: bool,
}

/// Writes a VMDK whose parent `vmdk.identity` names, and which holds of `disk` the `ranges`
/// (in order), widened to whole grains; everything else is the parent's. It appears when it
/// is complete.
///
/// # Errors
/// `Refused` for subformats that can have no parent; else as [`crate::to_image()`].
pub fn child(
    disk: &Arc<dyn Disk>,
    ranges: &[Range<u64>],
    path: &Path,
    vmdk: &Options,
    options: &ChildOptions,
    progress: &dyn Progress,
) -> Result<Written> {
    let subformat = vmdk.subformat;
    if subformat.is_flat() || subformat == Subformat::StreamOptimized {
        return Err(no_child(path, subformat));
    }
    let image = ImageOptions {
        format: ImageFormat::Vmdk(vmdk.clone()),
        force: options.force,
        sources: options.sources.clone(),
        ..ImageOptions::default()
    };
    let mut set = FileSet::create(path, disk, &image.format, &image)?;
    if options.sync_later {
        set.partials.iter_mut().for_each(Partial::sync_later);
    }
    let sinks = set.partials.iter().map(|p| Sink::File(p.file())).collect();
    let writer = Writer::create(set.plan()?, sinks)?;
    let pieces = pieces(ranges, writer.block(), disk.len());
    let sums = Mutex::new((0u64, 0u64));
    each(&pieces, options.workers, progress, &|piece, buffer| {
        disk.read_exact_at(buffer, piece.start)?;
        let mut done = (0, 0);
        let block = usize::try_from(writer.block()).unwrap_or(usize::MAX);
        let mut at = 0usize;
        while at < buffer.len() {
            let rest = buffer.get(at..).unwrap_or_default();
            let zero = |b: &[u8]| is_zero(b);
            let first = rest.chunks(block).next().is_some_and(zero);
            let same = rest.chunks(block).take_while(|b| zero(b) == first);
            let n: usize = same.map(<[u8]>::len).sum();
            let place = piece.start + at as u64;
            if first {
                writer.zero_at(place, n as u64)?;
                done.1 += n as u64;
            } else {
                writer.write_at(rest.get(..n).unwrap_or_default(), place)?;
                done.0 += n as u64;
            }
            at += n;
        }
        let mut sums = sums.lock().unwrap_or_else(|e| e.into_inner());
        sums.0 += done.0;
        sums.1 += done.1;
        Ok(())
    })?;
    writer.finish()?;
    drop(writer);
    let files = set.finish()?;
    let (written, zeros) = sums.into_inner().unwrap_or_else(|e| e.into_inner());
    Ok(Written {
        files,
        written,
        zeros,
    })
}

pub(crate) fn no_child(path: &Path, subformat: Subformat) -> DiskError {
    DiskError::refused("creating a child")
        .file(path.display())
        .expected("a subformat that can leave bytes to its parent")
        .found(subformat.name())
        .hint("use monolithicSparse, twoGbMaxExtentSparse, vmfsSparse or seSparse")
}

/// A file that holds a part of a disk as it is.
#[derive(Clone, Debug)]
pub struct FlatPart {
    /// The file.
    pub file: PathBuf,
    /// First byte of the disk in it.
    pub start: u64,
    /// Bytes of the disk in it.
    pub len: u64,
    /// Where they begin in the file.
    pub offset: u64,
}

/// Writes `ranges` of `disk` into the files of a flat parent and syncs them. If it is cut
/// short, doing it again ends it well: what the child holds hides what is half written.
///
/// # Errors
/// `Io`; `Refused` if a range lies in no part.
pub fn into_flat(
    disk: &Arc<dyn Disk>,
    ranges: &[Range<u64>],
    parts: &[FlatPart],
    workers: usize,
    progress: &dyn Progress,
) -> Result<Written> {
    let fail = |doing, part: &FlatPart, e: &std::io::Error| write_error(doing, &part.file, e);
    let files = parts
        .iter()
        .map(|part| {
            let file = File::options().read(true).write(true).open(&part.file);
            file.map_err(|e| fail("opening", part, &e))
        })
        .collect::<Result<Vec<File>>>()?;
    let pieces = pieces(ranges, 512, disk.len());
    each(&pieces, workers, progress, &|piece, buffer| {
        disk.read_exact_at(buffer, piece.start)?;
        let mut at = piece.start;
        while at < piece.end {
            let found = parts
                .iter()
                .zip(&files)
                .find(|(p, _)| (p.start..p.start.saturating_add(p.len)).contains(&at));
            let Some((part, file)) = found else {
                return Err(DiskError::refused("writing into the parent")
                    .offset(at)
                    .found("a place that no flat file holds"));
            };
            let stop = piece.end.min(part.start + part.len);
            let from = usize::try_from(at - piece.start).unwrap_or(usize::MAX);
            let to = usize::try_from(stop - piece.start).unwrap_or(usize::MAX);
            let bytes = buffer.get(from..to).unwrap_or_default();
            file.write_all_at(bytes, part.offset + (at - part.start))
                .map_err(|e| fail("writing", part, &e))?;
            at = stop;
        }
        Ok(())
    })?;
    for (part, file) in parts.iter().zip(&files) {
        file.sync_all().map_err(|e| fail("syncing", part, &e))?;
    }
    Ok(Written {
        files: parts.iter().map(|p| p.file.clone()).collect(),
        written: pieces.iter().map(|p| p.end - p.start).sum(),
        zeros: 0,
    })
}

/// Gives a descriptor file another content id, in place: the number has a fixed width.
///
/// # Errors
/// `Corrupt` for what has none; `Io`.
pub fn set_cid(path: &Path, cid: u32) -> Result<()> {
    let fail = |e: &std::io::Error| write_error("changing", path, e);
    let text = std::fs::read(path).map_err(|e| fail(&e))?;
    let line = text.split_inclusive(|b| *b == b'\n');
    let mut at = 0usize;
    for line in line {
        let trimmed = line.trim_ascii();
        if let Some(old) = trimmed.strip_prefix(b"CID=")
            && old.len() == 8
        {
            let start = at + line.iter().position(|b| *b == b'C').unwrap_or(0) + 4;
            let file = std::fs::File::options().write(true).open(path);
            let file = file.map_err(|e| fail(&e))?;
            let new = format!("{cid:08x}");
            std::os::unix::fs::FileExt::write_all_at(&file, new.as_bytes(), start as u64)
                .and_then(|()| file.sync_all())
                .map_err(|e| fail(&e))?;
            return Ok(());
        }
        at += line.len();
    }
    Err(DiskError::corrupt("changing the content id")
        .file(path.display())
        .expected("a line CID=xxxxxxxx in the descriptor")
        .found("none"))
}

/// Ranges widened to multiples of `block`, joined, and cut at multiples of [`PIECE`].
fn pieces(ranges: &[Range<u64>], block: u64, len: u64) -> Vec<Range<u64>> {
    let mut wide: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        let start = range.start - range.start % block;
        let end = range.end.next_multiple_of(block).min(len);
        match wide.last_mut() {
            Some(last) if last.end >= start => last.end = last.end.max(end),
            _ if start < end => wide.push(start..end),
            _ => {}
        }
    }
    let mut out = Vec::new();
    for range in wide {
        let mut at = range.start;
        while at < range.end {
            let stop = (at + 1).next_multiple_of(PIECE).min(range.end);
            out.push(at..stop);
            at = stop;
        }
    }
    out
}

/// What is done with a piece and its buffer.
type Work<'a> = &'a (dyn Fn(&Range<u64>, &mut [u8]) -> Result<()> + Sync);

/// Works on every piece, several at once, with a buffer of its length.
fn each(
    pieces: &[Range<u64>],
    wanted: usize,
    progress: &dyn Progress,
    work: Work<'_>,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<DiskError>> = Mutex::new(None);
    let failed = || failure.lock().unwrap_or_else(|e| e.into_inner()).is_some();
    let run = || {
        let mut buffer = Vec::new();
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed() {
                return;
            }
            let n = usize::try_from(piece.end - piece.start).unwrap_or(0);
            buffer.resize(n, 0);
            let done = match progress.cancelled() {
                true => Err(pipeline::cancelled()),
                false => work(piece, &mut buffer),
            };
            match done {
                Ok(()) => progress.advance(n as u64),
                Err(e) => {
                    let mut failure = failure.lock().unwrap_or_else(|e| e.into_inner());
                    failure.get_or_insert(e);
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers(wanted).min(pieces.len().max(1)) {
            scope.spawn(run);
        }
        run();
    });
    match failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(e) => Err(e),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_whole_grains() {
        let all = pieces(
            &[5..6, 70_000..70_001, 3 << 20..(4 << 20) + 1],
            65_536,
            (4 << 20) + 700,
        );
        assert_eq!(
            all,
            [0..131_072, 3 << 20..4 << 20, 4 << 20..(4 << 20) + 700]
        );
        assert_eq!(pieces(&[], 512, 10), []);
    }
}
