//! A mended copy of an image: everything that can be read, in sound structures. Nothing is ever
//! changed in place.

use crate::{
    check::{self, Step},
    owners::{Owner, owners},
};
use convert::{
    Destination, DigestKind, ImageFormat, ImageOptions, Progress,
    delta::{self, ChildOptions},
    to_image,
};
use disk_image::{CheckedDisk, Format};
use disk_io::{
    BlockMap, Disk, DiskError, ErrorKind, Layered, Memory, Result, Run, RunKind, finding::join,
};
use proxy::{Source, SourceSpec, Tree, TreeOptions};
use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use vmdk::{Link, Salvaged};

/// What is given up at a time around a place that cannot be read.
const LOSE: usize = 4096;
/// What is read at a time where reading fails.
const TRY: usize = 64 << 10;

/// What is to be mended, opened as far as that goes.
pub struct Broken {
    /// Everything that can be read; the rest is zeros.
    disk: Arc<Mend>,
    /// Its format.
    pub format: Format,
    /// The newest link, of a VMDK.
    pub top: Option<LinkFacts>,
    /// The parent of that, if it has one.
    pub parent: Option<LinkFacts>,
    /// Files that it consists of.
    pub files: Vec<PathBuf>,
    /// How it was opened, one sentence each.
    pub how: Vec<String>,
    /// Where the copy's parents may lie.
    dirs: Vec<PathBuf>,
    layers: Option<Arc<Layered>>,
    /// What is read and cannot be told to be right.
    doubtful: Vec<Range<u64>>,
}

/// What a copy needs to know of a link.
#[derive(Clone, Debug)]
pub struct LinkFacts {
    /// Its descriptor, or its only file.
    pub path: PathBuf,
    /// Content id.
    pub cid: Option<u32>,
    /// Its subformat, as its descriptor says it.
    pub create_type: Option<String>,
}

impl From<&Link> for LinkFacts {
    fn from(link: &Link) -> Self {
        Self {
            path: link.path.clone(),
            cid: link.cid,
            create_type: link.create_type.clone(),
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Mended {
    /// The files that were made.
    pub files: Vec<PathBuf>,
    /// Ranges of the disk that could not be read, and are zeros now.
    pub lost: Vec<Range<u64>>,
    /// Ranges that are in the copy as SOURCE gives them, and cannot be told to be right.
    pub doubtful: Vec<Range<u64>>,
    /// Guest files that lie in either.
    pub touched: Vec<Owner>,
    /// Length of the disk in bytes.
    pub len: u64,
    /// Bytes written as data.
    pub written: u64,
}

impl Mended {
    /// Whether everything that SOURCE had is in the copy, and right as far as can be told.
    pub fn is_complete(&self) -> bool {
        self.lost.is_empty() && self.doubtful.is_empty()
    }
}

impl Broken {
    /// Opens SOURCE: as every verb does; else by what of its tables can be used; else, of a
    /// stream, by the markers of its grains.
    ///
    /// # Errors
    /// Where nothing of it can be read.
    pub fn open(spec: &SourceSpec, step: &mut dyn FnMut(Step<'_>)) -> Result<Self> {
        let mut broken = Self::as_far_as_it_goes(spec, step)?;
        broken.doubtful = match check::doubtful(spec) {
            Ok(ranges) => ranges,
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            // What cannot be checked was opened by other means.
            Err(_) => Vec::new(),
        };
        Ok(broken)
    }

    fn as_far_as_it_goes(spec: &SourceSpec, step: &mut dyn FnMut(Step<'_>)) -> Result<Self> {
        let first = match Source::open(spec) {
            Ok(source) => return Ok(Self::sound(&Arc::new(source), spec)),
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            // Which parent is meant is for the user to say: --parent, --ignore-cid.
            Err(e) if e.code_text().is_some_and(is_of_chain) => return Err(e),
            Err(e) => e,
        };
        let located = spec.locate()?;
        let options = spec.image_options();
        let (format, disks) = disk_image::check(
            &located.opened,
            &options,
            &mut |file, done| step(Step { file, done, of: 0 }),
            &mut |_| {},
        )?;
        let mut how = vec![format!("it cannot be opened as it is: {first}")];
        let name = located.opened.path.display().to_string();
        if format == Format::Vmdk
            && let Ok(stream) = Salvaged::open(located.opened.disk.clone(), &name, &mut |done| {
                step(Step {
                    file: &name,
                    done,
                    of: 0,
                });
            })
        {
            how.push(format!(
                "{} grains were found by their markers in the stream",
                stream.grains()
            ));
            let (lost, stream): (_, Arc<dyn Disk>) = (stream.lost().to_vec(), Arc::new(stream));
            return Ok(Self {
                disk: Mend::over(stream, lost),
                format,
                top: Some(LinkFacts {
                    path: located.opened.path.clone(),
                    cid: None,
                    create_type: Some("streamOptimized".into()),
                }),
                parent: None,
                files: vec![located.opened.path.clone()],
                how,
                dirs: dirs(spec),
                layers: None,
                doubtful: Vec::new(),
            });
        }
        // Without one of its layers the others are another disk.
        if disks.iter().any(|disk| !disk.whole) {
            return Err(first);
        }
        let mut disks = disks.into_iter();
        let (Some(only), None) = (disks.next(), disks.next()) else {
            return Err(first);
        };
        let path = &located.opened.path;
        Self::by_layers(only, format, how, (path, dirs(spec))).ok_or(first)
    }

    fn sound(source: &Arc<Source>, spec: &SourceSpec) -> Self {
        let links = source.image().vmdk.as_ref().map(|v| v.links());
        let link = |n: usize| links.and_then(|l| l.get(n)).map(LinkFacts::from);
        let mut files = vec![source.path().to_path_buf()];
        for link in links.into_iter().flatten() {
            files.push(link.path.clone());
            files.extend(link.extents.iter().filter_map(|e| e.file.clone()));
        }
        Self {
            disk: Mend::over(source.disk().clone(), Vec::new()),
            format: source.image().format,
            top: link(0),
            parent: link(1),
            files,
            how: Vec::new(),
            dirs: dirs(spec),
            layers: source.layered().cloned(),
            doubtful: Vec::new(),
        }
    }

    /// By what of the layers' tables can be used.
    fn by_layers(
        disk: CheckedDisk,
        format: Format,
        mut how: Vec<String>,
        (path, dirs): (&Path, Vec<PathBuf>),
    ) -> Option<Self> {
        let mut links = disk
            .layers
            .iter()
            .map(|l| l.link.as_ref().map(LinkFacts::from));
        let (top, parent) = (links.next().flatten(), links.next().flatten());
        let files = disk.layers.iter().map(|l| l.path.clone());
        let files = files.chain([path.to_path_buf()]).collect();
        let maps: Vec<Arc<dyn BlockMap>> = disk.layers.into_iter().map(|l| l.map).collect();
        let count = maps.len();
        let layers = Arc::new(Layered::new(maps, Memory::standard()).ok()?);
        how.push(format!(
            "it is read by the tables of {count} links as they are"
        ));
        Some(Self {
            disk: Mend::over(layers.clone(), Vec::new()),
            format,
            top,
            parent,
            files,
            how,
            dirs,
            layers: Some(layers),
            doubtful: Vec::new(),
        })
    }

    /// Length of the disk in bytes.
    pub fn len(&self) -> u64 {
        self.disk.len()
    }

    /// Logical sector size in bytes.
    pub fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }

    /// Where the copy's parents may lie.
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.disk.is_empty()
    }

    /// Writes the copy; of a delta only what itself holds, on the same parent, which `format`
    /// names.
    ///
    /// # Errors
    /// Those of writing; a device that fails while it is read.
    pub fn mend(
        &self,
        out: &Path,
        format: &ImageFormat,
        (force, workers): (bool, usize),
        progress: &dyn Progress,
    ) -> Result<Mended> {
        let disk: Arc<dyn Disk> = self.disk.clone();
        let (files, written) = match (format, &self.parent) {
            (ImageFormat::Vmdk(options), Some(_)) if options.identity.parent.is_some() => {
                let how = ChildOptions {
                    force,
                    workers,
                    sources: self.files.clone(),
                    sync_later: false,
                };
                let own = self.own();
                let done = delta::child(&disk, &own, out, options, &how, progress)?;
                (done.files, done.written)
            }
            _ => {
                let options = ImageOptions {
                    format: format.clone(),
                    workers,
                    digest: DigestKind::None,
                    force,
                    sources: self.files.clone(),
                    checkpoints: None,
                };
                let done = to_image(&disk, Destination::File(out), &options, progress)?;
                (done.files, done.written)
            }
        };
        let lost = self.disk.lost();
        let mut doubtful = without(&self.doubtful, &lost);
        if self.parent.is_some() {
            // What is wrong with links below is not in the copy.
            let (all, own) = (
                std::iter::once(0..disk.len()).collect::<Vec<_>>(),
                self.own(),
            );
            doubtful = without(&doubtful, &without(&all, &own));
        }
        let mut asked = lost.clone();
        asked.extend(doubtful.iter().cloned());
        let touched = match asked.is_empty() {
            true => Vec::new(),
            false => touched(out, &self.dirs, &asked),
        };
        Ok(Mended {
            files,
            lost,
            doubtful,
            touched,
            len: disk.len(),
            written,
        })
    }

    /// What the newest layer holds itself. Where that cannot be told it is taken to.
    fn own(&self) -> Vec<Range<u64>> {
        let len = self.disk.len();
        let Some(layers) = &self.layers else {
            return std::iter::once(0..len).collect();
        };
        let (mut own, mut at) = (Vec::new(), 0);
        while at < len {
            let (n, mine) = match layers.origin_at(at) {
                Ok(origin) => (
                    origin.len.max(1),
                    origin.bad.is_some()
                        || (origin.depth == 0 && origin.kind != RunKind::Unallocated),
                ),
                Err(_) => (TRY as u64, true),
            };
            let end = at.saturating_add(n).min(len);
            if mine {
                join(&mut own, at..end);
            }
            at = end;
        }
        own
    }
}

/// The parts of `ranges` that are in none of `others`, both in order.
fn without(ranges: &[Range<u64>], others: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    for range in ranges {
        let mut at = range.start;
        let first = others.partition_point(|o| o.end <= range.start);
        for other in others.iter().skip(first) {
            if other.start >= range.end {
                break;
            }
            if at < other.start {
                left.push(at..other.start);
            }
            at = at.max(other.end);
        }
        if at < range.end {
            left.push(at..range.end);
        }
    }
    left
}

fn is_of_chain(code: &str) -> bool {
    code.starts_with("parent-") || code.starts_with("chain-")
}

/// SOURCE's own directory, and those that the user allows.
fn dirs(spec: &SourceSpec) -> Vec<PathBuf> {
    let own = match spec.path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let mut dirs = spec.allow_dirs.clone();
    dirs.push(own);
    dirs
}

/// Guest files of the copy that lie in what was lost, if its file systems can be read.
fn touched(out: &Path, dirs: &[PathBuf], lost: &[Range<u64>]) -> Vec<Owner> {
    let spec = SourceSpec {
        path: out.to_path_buf(),
        allow_dirs: dirs.to_vec(),
        ..SourceSpec::default()
    };
    let tree = Source::open(&spec).and_then(|s| Tree::new(Arc::new(s), TreeOptions::default()));
    tree.map_or_else(|_| Vec::new(), |tree| owners(&tree, lost).files)
}

/// A disk that is read as far as it can be: what cannot is zeros, and noted.
#[derive(Debug)]
struct Mend {
    inner: Arc<dyn Disk>,
    lost: Mutex<Vec<Range<u64>>>,
}

impl Mend {
    fn over(inner: Arc<dyn Disk>, lost: Vec<Range<u64>>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            lost: Mutex::new(lost),
        })
    }

    /// In order, joined.
    fn lost(&self) -> Vec<Range<u64>> {
        let mut all = self
            .lost
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        all.sort_by_key(|r| r.start);
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in all {
            match joined.last_mut() {
                Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        joined
    }

    fn lose(&self, range: Range<u64>) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        match lost.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => lost.push(range),
        }
    }

    /// Reads in smaller and smaller pieces; what is left is lost.
    fn pieces(&self, buf: &mut [u8], offset: u64, piece: usize) -> Result<()> {
        let mut at = offset;
        for part in buf.chunks_mut(piece) {
            let end = at.saturating_add(part.len() as u64);
            match self.inner.read_exact_at(part, at) {
                Ok(()) => {}
                // A device that fails may well not fail tomorrow.
                Err(e) if e.kind() == ErrorKind::Io => return Err(e),
                Err(_) if piece > LOSE => self.pieces(part, at, LOSE)?,
                Err(_) => {
                    part.fill(0);
                    self.lose(at..end);
                }
            }
            at = end;
        }
        Ok(())
    }
}

impl Disk for Mend {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn sector_size(&self) -> u32 {
        self.inner.sector_size()
    }

    fn states_sector_size(&self) -> bool {
        self.inner.states_sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self.inner.read_exact_at(buf, offset) {
            Err(e) if e.kind() != ErrorKind::Io => self.pieces(buf, offset, TRY),
            other => other,
        }
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        match self.inner.run_at(offset) {
            Err(e) if matches!(e.kind(), ErrorKind::Io | ErrorKind::OutOfRange) => Err(e),
            // Reading it tells how much is lost.
            Err(_) => Ok(Run {
                len: (TRY as u64).min(self.len().saturating_sub(offset)).max(1),
                kind: RunKind::Data,
            }),
            other => other,
        }
    }
}

/// Refused where there is nothing that a copy could be written as.
///
/// # Errors
/// `Unsupported` for formats that are read and not written as disks.
pub fn writable(format: Format, path: &Path) -> Result<()> {
    match format {
        Format::Ova | Format::Ovf => Err(DiskError::unsupported("mending a package")
            .file(path.display())
            .expected("a disk")
            .found(format.title())
            .hint("mend one disk with --disk, or make a new package: vmdkit export --to ova")),
        _ => Ok(()),
    }
}
