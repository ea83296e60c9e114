//! A whole disk as an image of another format.

use crate::{
    checkpoint::{self, Checkpointing, Keeper, Kept, Resume, Saved},
    digest::{Digest, DigestKind},
    pipeline::{self, Copied, CopyOptions, Course, Sparse},
    place::{Partial, check_destination, check_not_source},
    progress::Progress,
    target::{Discard, RawFile, Stream, Target, write_error},
};
use disk_image::write::{WriteOptions, Writer};
use disk_io::{Disk, DiskError, HostDir, HostRange, Result, host_dir::Allowed};
use rustix::io::Errno;
use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};
use vmdk::writer::{self as vmdk_writer, Plan, Sink};

/// Where the image goes.
pub enum Destination<'a> {
    /// A file (with further ones beside it in some formats), which appears when it is
    /// complete.
    File(&'a Path),
    /// A stream that takes every byte in order; raw disks with their zeros.
    Stream(Box<dyn Write + Send + 'a>, String),
    /// Nowhere: the source is read and decoded, the digest computed. Raw only.
    Discard,
}

/// What to write.
#[derive(Clone, Debug, Default)]
pub enum ImageFormat {
    /// The bytes of the disk.
    #[default]
    Raw,
    /// A VMDK of some subformat.
    Vmdk(vmdk_writer::Options),
    /// qcow2, VHD, VHDX, VDI.
    Portable(WriteOptions),
}

/// How to convert.
#[derive(Clone, Debug, Default)]
pub struct ImageOptions {
    /// What to write.
    pub format: ImageFormat,
    /// Threads; 0 means one for every core.
    pub workers: usize,
    /// Digest to compute on the way.
    pub digest: DigestKind,
    /// Whether a destination that exists is replaced.
    pub force: bool,
    /// Files that the source consists of: none of them may be the destination.
    pub sources: Vec<PathBuf>,
    /// Whether a conversion to a file can be gone on with after it was cut off.
    pub checkpoints: Option<Checkpointing>,
}

/// What a conversion did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Length of the disk in bytes.
    pub virtual_size: u64,
    /// Bytes written as data.
    pub written: u64,
    /// Bytes left out (or, to a stream of a raw disk, written) as zeros.
    pub zeros: u64,
    /// Digest of the virtual contents.
    pub digest: Option<Digest>,
    /// The files that were made, the one that was asked for last.
    pub files: Vec<PathBuf>,
    /// How many bytes of the disk an interrupted conversion had come to that was gone on
    /// with.
    pub resumed: Option<u64>,
}

/// Converts `disk`. The source is only read. Files appear under their names when they are
/// complete and synced; after an error or a wish to stop nothing is left.
///
/// # Errors
/// `Refused`, before anything is written, for what the format or the file system of the
/// destination cannot hold; `Io` and whatever the source's reads give.
pub fn to_image(
    disk: &Arc<dyn Disk>,
    destination: Destination<'_>,
    options: &ImageOptions,
    progress: &dyn Progress,
) -> Result<Report> {
    to_image_noted(disk, destination, options, progress, &|_, _| Ok(()))
}

/// Is told the digest and the files when they are complete and synced, before any has its name.
pub(crate) type Noted<'a> = &'a dyn Fn(Option<Digest>, &[PathBuf]) -> Result<()>;

/// As [`to_image`], with a word before files get their names.
pub(crate) fn to_image_noted(
    disk: &Arc<dyn Disk>,
    destination: Destination<'_>,
    options: &ImageOptions,
    progress: &dyn Progress,
    noted: Noted<'_>,
) -> Result<Report> {
    let copy_options = CopyOptions {
        workers: options.workers,
        digest: options.digest,
        sparse: Sparse::Always,
    };
    let copy = |target: &dyn Target| pipeline::copy(disk, target, copy_options, progress);
    let (mut files, mut resumed) = (Vec::new(), None);
    let copied = match (destination, &options.format) {
        (Destination::Discard, _) => copy(&Discard)?,
        (Destination::Stream(out, name), ImageFormat::Raw) => copy(&Stream::new(out, name))?,
        (Destination::Stream(out, name), ImageFormat::Vmdk(vmdk)) => {
            let plan = Plan::new("disk.vmdk", disk.len(), vmdk.clone())?;
            if plan.files().len() != 1 {
                return Err(no_stream(vmdk.subformat.name(), &name));
            }
            copy(&vmdk_writer::Writer::create(plan, vec![Sink::Stream(out)])?)?
        }
        (Destination::Stream(_, name), ImageFormat::Portable(portable)) => {
            return Err(no_stream(portable.format.title(), &name));
        }
        (Destination::File(path), format) => {
            let mut set = FileSet::create(path, disk, format, options)?;
            resumed = set.kept.as_ref().map(|k| k.position.bytes(disk.len()));
            let copied = set
                .copy(path, disk, options, copy_options, progress)
                .and_then(|copied| {
                    set.sync()?;
                    noted(copied.digest, &set.paths)?;
                    set.place().map(|()| copied)
                });
            match copied {
                Ok(copied) => {
                    checkpoint::remove(path);
                    files = set.paths;
                    copied
                }
                Err(e) => {
                    set.give_up(path, options);
                    return Err(e);
                }
            }
        }
    };
    Ok(Report {
        virtual_size: disk.len(),
        written: copied.written,
        zeros: copied.zeros,
        digest: copied.digest,
        files,
        resumed,
    })
}

/// Reads an image that was made and compares its digest. The page cache is asked to forget
/// the files first, so that what is read is what the disk has.
///
/// # Errors
/// `Corrupt` with both digests if they differ.
pub fn verify(
    path: &Path,
    format: &ImageFormat,
    expected: &Digest,
    files: &[PathBuf],
    workers: usize,
    progress: &dyn Progress,
) -> Result<()> {
    for file in files {
        if let Ok(file) = std::fs::File::open(file) {
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }
    let opened = HostDir::open_source(path, &Allowed::default())?;
    let open_options = disk_image::OpenOptions {
        format: Some(match format {
            ImageFormat::Raw => disk_image::Format::Raw,
            ImageFormat::Vmdk(_) => disk_image::Format::Vmdk,
            ImageFormat::Portable(portable) => portable.format,
        }),
        ..disk_image::OpenOptions::default()
    };
    let image = disk_image::open(opened, &open_options)?;
    let copy_options = CopyOptions {
        workers,
        digest: expected.kind,
        sparse: Sparse::Always,
    };
    let read = pipeline::copy(&image.disk, &Discard, copy_options, progress)?;
    if read.digest == Some(*expected) {
        return Ok(());
    }
    let found = read.digest.map_or_else(String::new, |d| d.to_string());
    Err(DiskError::corrupt("verifying the output")
        .file(path.display())
        .expected(expected.to_string())
        .found(found)
        .hint("the disk or memory of this machine is at fault, or vmdkit is: keep the source"))
}

fn no_stream(format: &str, name: &str) -> DiskError {
    DiskError::refused("writing the image")
        .file(name)
        .expected("raw, or vmdk with --subformat streamOptimized: those can be written as a stream")
        .found(format.to_owned())
        .hint("name a file instead of -")
}

/// The files of an image while they are being written.
pub(crate) struct FileSet {
    pub(crate) partials: Vec<Partial>,
    paths: Vec<PathBuf>,
    plan: Option<Plan>,
    /// What an interrupted conversion that is gone on with had come to.
    kept: Option<Kept>,
}

impl FileSet {
    /// Creates all of them under temporary names, the one that was asked for last.
    pub(crate) fn create(
        path: &Path,
        disk: &Arc<dyn Disk>,
        format: &ImageFormat,
        options: &ImageOptions,
    ) -> Result<Self> {
        let (plan, paths) = match format {
            ImageFormat::Vmdk(vmdk) => {
                let name = path.file_name().and_then(|n| n.to_str()).ok_or_else(|| {
                    DiskError::refused("creating the output")
                        .file(path.display())
                        .expected("the name of a file, in UTF-8: descriptors say it")
                })?;
                let plan = Plan::new(name, disk.len(), vmdk.clone())?;
                let paths = plan.files().iter().map(|f| path.with_file_name(&f.name));
                let paths = paths.collect();
                (Some(plan), paths)
            }
            _ => (None, vec![path.to_path_buf()]),
        };
        for path in &paths {
            check_not_source(path, options.sources.iter().map(PathBuf::as_path))?;
        }
        let found = match &options.checkpoints {
            Some(how) if how.resume => Resume::find(path, &**disk, &options.sources, how)?,
            Some(_) => {
                // What is refused anyway must not cost what is unfinished.
                check_destination(path, options.force)?;
                checkpoint::discard(path)?;
                None
            }
            None => None,
        };
        let mut set = Self {
            partials: Vec::new(),
            paths,
            plan,
            kept: None,
        };
        match found {
            Some(resume) => {
                for (path, (temp, file)) in set.paths.iter().zip(resume.files) {
                    match Partial::reopen(path, temp, file, options.force) {
                        Ok(partial) => set.partials.push(partial),
                        // It can still be gone on with when what stands in the way is gone.
                        Err(e) => {
                            set.partials.into_iter().for_each(Partial::leave);
                            return Err(e);
                        }
                    }
                }
                set.kept = Some(resume.kept);
            }
            None => {
                for path in &set.paths {
                    set.partials.push(Partial::create(path, options.force)?);
                }
                if let Some(first) = set.partials.first() {
                    checkpoint::lock(first.file(), path)?;
                }
                set.check_room(disk, format)?;
            }
        }
        Ok(set)
    }

    /// Copies the disk, or what an interrupted conversion left to be done.
    fn copy(
        &self,
        path: &Path,
        disk: &Arc<dyn Disk>,
        options: &ImageOptions,
        copy_options: CopyOptions,
        progress: &dyn Progress,
    ) -> Result<Copied> {
        let along = |target: &dyn Target, save: &(dyn Fn() -> Result<Saved> + Sync)| {
            let keeper = match &options.checkpoints {
                Some(how) => {
                    let sources = &options.sources;
                    let samples = self.kept.as_ref();
                    let new = Keeper::new(path, &**disk, sources, &self.partials, how, save)?;
                    Some(new.after(samples))
                }
                None => None,
            };
            let course = Course {
                start: self.kept.as_ref().map(|k| &k.position),
                checkpoints: keeper.as_ref().map(|k| k as _),
            };
            pipeline::copy_along(disk, target, copy_options, course, progress)
        };
        let other = || DiskError::refused("going on with the conversion").found("another format");
        match &options.format {
            ImageFormat::Raw => {
                let file = self.file(0)?;
                if let Some(kept) = &self.kept {
                    // What came behind the checkpoint may have become zeros since.
                    let done = kept.position.bytes(disk.len());
                    file.set_len(done)
                        .map_err(|e| write_error("cutting", path, &e))?;
                }
                let target = RawFile::new(file, path, disk.len())?;
                along(&target, &|| Ok(Saved::Raw))
            }
            ImageFormat::Portable(portable) => {
                let file = self.file(0)?;
                let writer = match self.kept.as_ref().map(|k| &k.saved) {
                    None => Writer::create(file, path, disk.len(), portable)?,
                    Some(Saved::Portable(s)) => {
                        Writer::resume(file, path, disk.len(), portable, s)?
                    }
                    Some(_) => return Err(other()),
                };
                along(&writer, &|| Ok(Saved::Portable(writer.save())))
            }
            ImageFormat::Vmdk(_) => {
                let sinks = self.partials.iter().map(|p| Sink::File(p.file())).collect();
                let writer = match self.kept.as_ref().map(|k| &k.saved) {
                    None => vmdk_writer::Writer::create(self.plan()?, sinks)?,
                    Some(Saved::Vmdk(s)) => vmdk_writer::Writer::resume(self.plan()?, sinks, s)?,
                    Some(_) => return Err(other()),
                };
                along(&writer, &|| Ok(Saved::Vmdk(writer.save()?)))
            }
        }
    }

    /// After a failure: leaves what can be gone on with if that was asked for, and removes it
    /// otherwise.
    fn give_up(self, path: &Path, options: &ImageOptions) {
        match &options.checkpoints {
            Some(how)
                if how.resume
                    && !self.partials.iter().any(Partial::is_placed)
                    && checkpoint::interrupted(path).is_some() =>
            {
                self.partials.into_iter().for_each(Partial::leave);
            }
            Some(_) => checkpoint::remove(path),
            None => {}
        }
    }

    /// The plan of a VMDK.
    pub(crate) fn plan(&self) -> Result<Plan> {
        self.plan
            .clone()
            .ok_or_else(|| DiskError::refused("planning the output").expected("a VMDK"))
    }

    fn file(&self, index: usize) -> Result<&std::fs::File> {
        let file = self.partials.get(index).map(Partial::file);
        file.ok_or_else(|| DiskError::refused("writing the image").expected("a file"))
    }

    /// Fails where the file system cannot hold a file as long as the image will be. What is
    /// compressed may end up shorter: nobody knows before.
    fn check_room(&self, disk: &Arc<dyn Disk>, format: &ImageFormat) -> Result<()> {
        let flat = match format {
            // These have their length from the beginning, and say so themselves.
            ImageFormat::Raw => return Ok(()),
            ImageFormat::Vmdk(o) if o.subformat == vmdk_writer::Subformat::StreamOptimized => {
                return Ok(());
            }
            ImageFormat::Portable(o) if o.compress.is_some() => return Ok(()),
            ImageFormat::Vmdk(o) => o.subformat.is_flat(),
            ImageFormat::Portable(o) => o.fixed,
        };
        let longest = match &self.plan {
            Some(plan) => plan.files().iter().map(|f| f.len()).max().unwrap_or(0),
            None => disk.len(),
        };
        let file = self.file(0)?;
        let fits = |len: u64| match rustix::fs::ftruncate(file, len) {
            Ok(()) => Ok(true),
            Err(Errno::FBIG) => Ok(false),
            Err(e) => Err(DiskError::io("trying the length of", &e.into()).file(
                self.paths
                    .first()
                    .map_or_else(String::new, |p| p.display().to_string()),
            )),
        };
        let mut needed = longest;
        let mut good = fits(needed)?;
        if !good && !flat {
            needed = stored(&**disk)?.min(longest);
            good = fits(needed)?;
        }
        let _ = rustix::fs::ftruncate(file, 0);
        if good {
            return Ok(());
        }
        let path = self.paths.first().map_or(Path::new(""), PathBuf::as_path);
        Err(DiskError::refused("creating the output")
            .file(path.display())
            .expected("a file system that can hold a file that long")
            .found(format!("{needed} bytes wanted, and it refuses"))
            .hint("choose another place, or a split subformat (--subformat twoGbMaxExtentSparse)"))
    }

    /// Gives all files their names; which they are.
    pub(crate) fn finish(mut self) -> Result<Vec<PathBuf>> {
        self.sync()?;
        self.place()?;
        Ok(self.paths)
    }

    fn sync(&self) -> Result<()> {
        self.partials.iter().try_for_each(Partial::sync)
    }

    /// Gives all files their names, the one that was asked for last. An older one of several files
    /// loses its own before: never does it name some old files and some new.
    fn place(&mut self) -> Result<()> {
        let several = self.partials.len() > 1;
        if let Some(last) = self.partials.last()
            && several
            && last.replaces()
        {
            last.remove_placed()?;
        }
        let placed = self.partials.iter_mut().try_for_each(Partial::place);
        if placed.is_err() && several {
            // The one that was asked for first: the others are nothing without it.
            for partial in self.partials.iter().rev().filter(|p| p.is_placed()) {
                let _ = partial.remove_placed();
            }
        }
        placed
    }
}

/// Bytes that the disk's layers store.
fn stored(disk: &dyn Disk) -> Result<u64> {
    let (mut at, mut sum) = (0, 0);
    while at < disk.len() {
        let run = disk.run_at(at)?;
        if !run.kind.reads_as_zero() {
            sum += run.len;
        }
        at += run.len;
    }
    Ok(sum)
}

impl Target for Writer<'_> {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        Writer::write_at(self, bytes, offset)
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        Writer::zero_at(self, offset, len)
    }

    fn block(&self) -> usize {
        self.cluster().map_or(4096, |c| c as usize)
    }

    fn finish(&self) -> Result<()> {
        Writer::finish(self)
    }
}

impl Target for vmdk_writer::Writer<'_> {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        vmdk_writer::Writer::write_at(self, bytes, offset)
    }

    fn share(&self, from: &HostRange, offset: u64) -> Result<bool> {
        vmdk_writer::Writer::share(self, from, offset)
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        vmdk_writer::Writer::zero_at(self, offset, len)
    }

    fn in_order(&self) -> bool {
        vmdk_writer::Writer::in_order(self)
    }

    fn block(&self) -> usize {
        vmdk_writer::Writer::block(self) as usize
    }

    fn encode(&self, bytes: &[u8], offset: u64) -> Result<Option<Vec<u8>>> {
        vmdk_writer::Writer::encode(self, bytes, offset)
    }

    fn finish(&self) -> Result<()> {
        vmdk_writer::Writer::finish(self)
    }
}
