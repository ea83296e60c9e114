//! A disk and the disks below it, opened one after the other.

use crate::{
    Format, OpenOptions,
    ova::{Package, UNPACK_LIMIT},
    probe::probe,
    qcow2::{self, Snapshot},
    raw::RawMap,
    vdi, vhd, vhdx,
};
use disk_io::{BlockMap, DiskError, ErrorKind, FileId, Memory, Opened, Result};
use std::{path::PathBuf, sync::Arc};

/// How many files may be stacked. qemu stops at 200 as well.
const MAX_LINKS: usize = 200;

/// One file of a chain, for `info`.
#[derive(Clone, Debug)]
pub struct Link {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// Length of the disk that it describes, in bytes.
    pub len: u64,
    /// What else is worth telling, in order: ("cluster size", "65536"), ….
    pub facts: Vec<(&'static str, String)>,
}

/// What a format's reader says is below it.
pub(crate) struct Below {
    pub(crate) source: Opened,
    /// The format its child names; `None` is for the contents to say.
    pub(crate) format: Option<Format>,
}

/// A chain that is being opened. Readers push their layer and answer with what is below.
pub(crate) struct Chain<'o> {
    pub(crate) options: &'o OpenOptions,
    pub(crate) layers: Vec<Arc<dyn BlockMap>>,
    pub(crate) links: Vec<Link>,
    pub(crate) warnings: Vec<String>,
    /// Those after which the disk's contents are not to be relied on.
    pub(crate) doubts: Vec<String>,
    /// Of the top file.
    pub(crate) snapshots: Vec<Snapshot>,
    /// The top file, if it is a VMDK.
    pub(crate) vmdk: Option<vmdk::Image>,
    /// What a package says of the disk's length.
    pub(crate) capacity: Option<u64>,
    /// `--parent`, until it is used.
    pub(crate) explicit_parent: Option<PathBuf>,
    seen: Vec<FileId>,
    /// Every file that was opened, and as what.
    pub(crate) sources: Vec<(Opened, Format)>,
}

impl<'o> Chain<'o> {
    pub(crate) fn new(options: &'o OpenOptions) -> Self {
        Self {
            options,
            layers: Vec::new(),
            links: Vec::new(),
            warnings: Vec::new(),
            doubts: Vec::new(),
            snapshots: Vec::new(),
            vmdk: None,
            capacity: None,
            explicit_parent: options.vmdk.parent.clone(),
            seen: Vec::new(),
            sources: Vec::new(),
        }
    }

    /// Adds a layer below the ones that are there.
    pub(crate) fn push(&mut self, map: Arc<dyn BlockMap>, link: Link) {
        self.layers.push(map);
        self.links.push(link);
    }

    /// Adds a warning about `path`.
    pub(crate) fn warn(&mut self, source: &Opened, text: impl std::fmt::Display) {
        let text = format!("{}: {text}", source.path.display());
        self.warnings.push(disk_io::error::escape(&text));
    }

    /// The same of something after which the disk's contents are not to be relied on.
    pub(crate) fn doubt(&mut self, source: &Opened, text: impl std::fmt::Display) {
        self.warn(source, text);
        self.doubts.extend(self.warnings.last().cloned());
    }

    /// Opens `source` as `format`, and everything below it.
    pub(crate) fn open(&mut self, source: Opened, format: Format) -> Result<()> {
        let mut next = Some((source, format));
        while let Some((source, format)) = next.take() {
            self.enter(&source)?;
            let depth = self.seen.len();
            self.sources.push((source.clone(), format));
            let below = self
                .open_one(&source, format)
                .map_err(|e| name_depth(e.file(source.path.display()), depth))?;
            if let Some(below) = below {
                let format = match below.format {
                    Some(format) => format,
                    None => self.guess(&source, &below.source)?,
                };
                next = Some((below.source, format));
            }
        }
        Ok(())
    }

    /// Tells where a child has another length than its parent, and that is odd.
    pub(crate) fn check_lengths(&mut self) {
        for (child, parent) in self.links.iter().zip(self.links.iter().skip(1)) {
            let Some(what) = odd_length(child, parent) else {
                continue;
            };
            let text = disk_io::error::escape(&format!(
                "{}: is {} bytes {what}",
                child.path.display(),
                child.len.abs_diff(parent.len)
            ));
            if has_one_length(child.format) {
                self.doubts.push(text.clone());
            }
            self.warnings.push(text);
        }
    }

    /// Refuses what would never end.
    fn enter(&mut self, source: &Opened) -> Result<()> {
        if self.seen.contains(&source.id) {
            return Err(DiskError::corrupt("opening the chain of disks")
                .file(source.path.display())
                .expected("a chain that ends")
                .found("a disk that is below itself"));
        }
        if self.seen.len() >= MAX_LINKS {
            return Err(DiskError::refused("opening the chain of disks")
                .file(source.path.display())
                .expected(format!("at most {MAX_LINKS} links")));
        }
        self.seen.push(source.id);
        Ok(())
    }

    fn open_one(&mut self, source: &Opened, format: Format) -> Result<Option<Below>> {
        match format {
            Format::Raw => {
                let map = RawMap::new(source);
                let link = Link {
                    path: source.path.clone(),
                    format,
                    len: map.len(),
                    facts: Vec::new(),
                };
                self.push(Arc::new(map), link);
                Ok(None)
            }
            Format::Vmdk => self.open_vmdk(source),
            Format::Qcow2 => qcow2::open(source, self),
            Format::Vhd => vhd::open(source, self),
            Format::Vhdx => vhdx::open(source, self),
            Format::Vdi => vdi::open(source, self),
            Format::Ova | Format::Ovf => self.open_package(source, format),
            other => Err(unsupported(other)),
        }
    }

    /// A VMDK brings its whole chain.
    fn open_vmdk(&mut self, source: &Opened) -> Result<Option<Below>> {
        let options = vmdk::OpenOptions {
            memory: Some(self.memory()),
            ..self.options.vmdk.clone()
        };
        let image = vmdk::Image::open(source.clone(), &options)?;
        let top = self.layers.is_empty();
        for (map, link) in image.disk().layers().iter().zip(image.links()) {
            let mut facts = Vec::new();
            facts.extend(link.create_type.clone().map(|t| ("create_type", t)));
            facts.extend(link.cid.map(|cid| ("cid", format!("{cid:08x}"))));
            facts.extend(
                link.parent_cid
                    .map(|cid| ("parent_cid", format!("{cid:08x}"))),
            );
            let link = Link {
                path: link.path.clone(),
                format: Format::Vmdk,
                len: link.capacity,
                facts,
            };
            self.push(map.clone(), link);
        }
        self.warnings.extend_from_slice(image.warnings());
        self.doubts.extend(image.doubts());
        if top {
            self.vmdk = Some(image);
        }
        Ok(None)
    }

    /// A package is the one disk in it, or the one that was asked for.
    fn open_package(&mut self, source: &Opened, format: Format) -> Result<Option<Below>> {
        let package = Package::open(source, format)?;
        let disk = package.choose(self.options.disk.as_deref())?.clone();
        let limit = self.options.unpack_limit.unwrap_or(UNPACK_LIMIT);
        let inner = package.open_disk(&disk, limit)?;
        let Some(found) = probe(&*inner.disk).map_err(|e| e.file(inner.path.display()))? else {
            return Err(DiskError::unsupported("opening a disk of the package")
                .file(inner.path.display())
                .expected("a disk in a format that is known")
                .found(disk.format.unwrap_or_else(|| "none".into())));
        };
        if matches!(found, Format::Ova | Format::Ovf) {
            return Err(DiskError::unsupported("opening a disk of the package")
                .file(inner.path.display())
                .found("another package"));
        }
        self.capacity = disk.capacity;
        Ok(Some(Below {
            source: inner,
            format: Some(found),
        }))
    }

    /// The child does not say what its parent is.
    fn guess(&mut self, child: &Opened, parent: &Opened) -> Result<Format> {
        let found = probe(&*parent.disk).map_err(|e| e.file(parent.path.display()))?;
        let format = found.unwrap_or(Format::Raw);
        self.warn(
            child,
            format_args!(
                "does not name the format of {}; taken as {format} by its contents",
                parent.path.display()
            ),
        );
        Ok(format)
    }

    pub(crate) fn memory(&self) -> Arc<Memory> {
        let options = self.options;
        let given = options.memory.as_ref().or(options.vmdk.memory.as_ref());
        given.cloned().unwrap_or_else(Memory::standard)
    }
}

/// Whether all disks of a chain in this format have one length.
fn has_one_length(format: Format) -> bool {
    matches!(format, Format::Vhd | Format::Vdi)
}

/// What is odd about the lengths of a disk and the one below it. A parent that is shorter reads as
/// zeros behind its end. Children in qcow2 and VHDX may be longer: the overlay of a cloud image
/// is as a rule. Only of a raw parent nothing says whether it is whole. VMDKs are checked by their
/// own reader.
fn odd_length(child: &Link, parent: &Link) -> Option<&'static str> {
    let missing = child.len.saturating_sub(parent.len);
    let same = has_one_length(child.format);
    match missing {
        _ if child.format == Format::Vmdk => None,
        0 => {
            (same && child.len < parent.len).then_some("shorter than its parent, whose end is lost")
        }
        _ if same => {
            Some("longer than its parent; there it reads as zeros where it has nothing of its own")
        }
        // How lengths are rounded.
        512.. if parent.format == Format::Raw => Some(
            "longer than its parent; there it reads as zeros where it has nothing of its own, and \
             a raw file that was cut short looks the same",
        ),
        _ => None,
    }
}

/// An error below the top says so.
fn name_depth(e: DiskError, depth: usize) -> DiskError {
    if depth > 1 && e.kind() != ErrorKind::Io {
        e.context(format_args!("opening the chain, link {depth}"))
    } else {
        e
    }
}

/// Recognised, and not read.
pub(crate) fn unsupported(format: Format) -> DiskError {
    DiskError::unsupported("opening the image")
        .found(format!("a {}, which is not read", format.title()))
        .hint(format.hint())
}
