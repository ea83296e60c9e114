//! The gate over host directories.
//!
//! A name is resolved in three steps: it is made absolute and normalised as text, it must
//! then lie beneath an allowed directory, and it is opened beneath that directory's own
//! descriptor with no symbolic link, no magic link and no `..` followed on the way. Only
//! regular files pass, and block devices that the user allowed by name.

use crate::{
    disk::Disk,
    error::{DiskError, ErrorKind, Result, shell_word},
    host_file::{FilePool, HostFile},
    locate::{Locate, Opened, Purpose},
    pieces,
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, open, openat, openat2, statat},
    io::Errno,
};
use std::{
    fs::File,
    io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// An allowed directory.
#[derive(Debug)]
struct Root {
    /// As the user or an image spells it, absolute and normalised.
    spelled: PathBuf,
    /// With links resolved.
    real: PathBuf,
    /// Shared with every file opened beneath it, which may have to be opened again.
    fd: Arc<OwnedFd>,
}

/// What is allowed at all: shared by every directory that one SOURCE leads to.
#[derive(Debug)]
struct Gate {
    roots: Vec<Root>,
    devices: Vec<PathBuf>,
    pool: Arc<FilePool>,
}

/// A directory of the host, as a place where an image's names are looked up.
#[derive(Clone, Debug)]
pub struct HostDir {
    gate: Arc<Gate>,
    dir: PathBuf,
}

/// What the user allows besides SOURCE's own directory.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Further directories (`--allow-dir`).
    pub dirs: Vec<PathBuf>,
    /// Block devices that extents may name (`--allow-device`).
    pub devices: Vec<PathBuf>,
    /// How many files may be open at once; 0 means 256.
    pub open_files: usize,
}

impl HostDir {
    /// Opens SOURCE itself, whose own symbolic link is followed, and makes its directory
    /// the place where the names inside it are looked up.
    pub fn open_source(source: &Path, allowed: &Allowed) -> Result<Opened> {
        let real = match source.canonicalize() {
            Ok(real) => real,
            Err(e) => {
                let fail = DiskError::io("opening", &e).file(source.display());
                return Self::open_pieces(source, allowed).unwrap_or(Err(fail));
            }
        };
        if real.is_dir() {
            return Err(DiskError::refused("opening as a disk")
                .file(source.display())
                .expected("a file or a block device")
                .found("a directory"));
        }
        let dir = real.parent().unwrap_or(Path::new("/"));
        let here = Self::new(dir, allowed)?;
        let file = HostFile::open_named(&real, &here.gate.pool)?;
        Ok(Opened {
            id: file.id(),
            disk: file,
            // A link's own name says nothing of the files beside the file it leads to.
            path: match source.file_name() == real.file_name() {
                true => source.to_path_buf(),
                false => real,
            },
            dir: Arc::new(here),
        })
    }

    /// SOURCE in pieces, if that is what is there.
    fn open_pieces(source: &Path, allowed: &Allowed) -> Option<Result<Opened>> {
        let name = source.file_name()?.to_str()?;
        let first = source.with_file_name(pieces::name(name, 0));
        if !first.is_file() {
            return None;
        }
        let parent = source.parent().filter(|p| !p.as_os_str().is_empty());
        Some(
            Self::new(parent.unwrap_or(Path::new(".")), allowed)
                .and_then(|here| pieces::open(&here, name, None)),
        )
    }

    /// A directory that the user named, and whatever else is allowed.
    pub fn new(dir: &Path, allowed: &Allowed) -> Result<Self> {
        let limit = match allowed.open_files {
            0 => 256,
            n => n,
        };
        let roots = std::iter::once(dir)
            .chain(allowed.dirs.iter().map(PathBuf::as_path))
            .map(Root::open)
            .collect::<Result<Vec<_>>>()?;
        let dir = roots
            .first()
            .map_or_else(PathBuf::new, |root| root.real.clone());
        Ok(Self {
            gate: Arc::new(Gate {
                roots,
                devices: allowed.devices.clone(),
                pool: FilePool::new(limit),
            }),
            dir,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Root {
    fn open(dir: &Path) -> Result<Self> {
        let fail = |e: &io::Error| DiskError::io("opening the directory", e).file(dir.display());
        let real = dir.canonicalize().map_err(|e| fail(&e))?;
        let spelled = normalise(&std::path::absolute(dir).map_err(|e| fail(&e))?);
        // It need not be one that can be listed (mode 711).
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let fd = open(&real, flags, Mode::empty()).map_err(|e| fail(&e.into()))?;
        Ok(Self {
            spelled,
            real,
            fd: Arc::new(fd),
        })
    }

    /// `path` relative to this root, if it lies beneath it.
    fn relative<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        path.strip_prefix(&self.real)
            .or_else(|_| path.strip_prefix(&self.spelled))
            .ok()
            .filter(|rest| !rest.as_os_str().is_empty())
    }
}

/// Removes `.` and resolves `..` as text. The result is absolute if `path` is.
fn normalise(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// What admits a file that lies in no allowed directory. One that is not on this host is in none
/// that could be allowed: it was copied here from another.
fn how_to_allow(path: &Path) -> String {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let name = dir.display().to_string();
    match dir.try_exists() {
        Ok(false) => format!(
            "{name} is not on this host; if the file now lies elsewhere, give its directory with \
             --allow-dir"
        ),
        _ => format!(
            "if you trust this image, allow it with --allow-dir {}",
            shell_word(&name)
        ),
    }
}

/// Opens `rest` beneath `root`, following nothing.
fn open_beneath(root: &OwnedFd, rest: &Path) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, rest, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(File::from(fd)),
        // An old kernel, or a container that hides the call: one component at a time.
        Err(Errno::NOSYS | Errno::PERM) => open_by_steps(root, rest, flags),
        Err(e) => Err(e),
    }
}

fn open_by_steps(root: &OwnedFd, rest: &Path, flags: OFlags) -> Result<File, Errno> {
    let mut parts = rest.components().peekable();
    let mut dir: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else {
            return Err(Errno::XDEV);
        };
        let here = dir.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        if parts.peek().is_none() {
            return openat(here, name, flags | OFlags::NOFOLLOW, Mode::empty()).map(File::from);
        }
        let step = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::PATH | OFlags::CLOEXEC;
        dir = Some(openat(here, name, step, Mode::empty())?);
    }
    Err(Errno::ISDIR)
}

impl Locate for HostDir {
    fn open(&self, name: &Path, purpose: Purpose) -> Result<Opened> {
        let doing = format!("opening the {purpose}");
        if name.as_os_str().is_empty() || name.as_os_str().as_bytes().contains(&0) {
            return Err(DiskError::refused(doing)
                .file(name.display())
                .expected("a file name")
                .found("an empty name or one with a NUL"));
        }
        let path = normalise(&self.dir.join(name));
        let Some((root, rest)) = self
            .gate
            .roots
            .iter()
            .find_map(|root| Some((root, root.relative(&path)?)))
        else {
            return self.open_device(&path, &doing).unwrap_or_else(|| {
                Err(DiskError::refused(doing)
                    .file(path.display())
                    .expected(format!("a file beneath {}", self.describe()))
                    .found("a name that leads out of it")
                    .hint(how_to_allow(&path)))
            });
        };
        let full = root.real.join(rest);
        // Looked at before it is opened: opening a device or a pipe can have effects.
        let found = statat(&root.fd, rest, AtFlags::SYMLINK_NOFOLLOW)
            .map(|s| FileType::from_raw_mode(s.st_mode));
        match found {
            Ok(FileType::RegularFile | FileType::Symlink) | Err(_) => {}
            Ok(_) => {
                if let Some(device) = self.open_device(&full, &doing) {
                    return device;
                }
            }
        }
        let again = {
            let (fd, rest) = (root.fd.clone(), rest.to_path_buf());
            Box::new(move || open_beneath(&fd, &rest).map_err(io::Error::from))
        };
        let refuse = |found: &str| {
            DiskError::refused(doing.clone())
                .file(full.display())
                .expected("a regular file reached without symbolic links")
                .found(found)
        };
        if !matches!(
            found,
            Ok(FileType::RegularFile | FileType::Symlink) | Err(_)
        ) {
            return Err(refuse("a directory, device, pipe or socket"));
        }
        if found == Err(Errno::NOENT)
            && !pieces::is_piece(&full)
            && let Some(whole) = full.file_name().and_then(|n| n.to_str())
        {
            let place = Self {
                gate: self.gate.clone(),
                dir: full.parent().unwrap_or(Path::new("/")).to_path_buf(),
            };
            match pieces::open(&place, whole, None) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                other => return other.map_err(|e| e.context(&doing)),
            }
        }
        let file =
            HostFile::open_with(&full, &self.gate.pool, again, false).map_err(|e| {
                match e.os_error().map(Errno::from_raw_os_error) {
                Some(Errno::LOOP) => refuse("a symbolic link").hint(match full.canonicalize() {
                    Ok(target) => format!(
                        "it leads to {}; replace the link by the file, or open the image there",
                        target.display()
                    ),
                    Err(_) => "replace the link by the file".into(),
                }),
                Some(Errno::XDEV) => refuse("a name that leads out of the directory"),
                _ => e.context(&doing),
            }
            })?;
        Ok(Opened {
            id: file.id(),
            disk: file,
            dir: Arc::new(Self {
                gate: self.gate.clone(),
                dir: full.parent().unwrap_or(Path::new("/")).to_path_buf(),
            }),
            path: full,
        })
    }

    fn list(&self, limit: usize) -> Result<Vec<PathBuf>> {
        let fail =
            |e: &io::Error| DiskError::io("listing the directory", e).file(self.dir.display());
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(|e| fail(&e))? {
            let entry = entry.map_err(|e| fail(&e))?;
            if entry.file_type().is_ok_and(|t| t.is_file()) {
                names.push(PathBuf::from(entry.file_name()));
                if names.len() >= limit {
                    break;
                }
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn describe(&self) -> String {
        self.dir.display().to_string()
    }

    fn in_allowed(&self, base: &Path, purpose: Purpose) -> Vec<Opened> {
        let mut found: Vec<Opened> = Vec::new();
        if base.file_name() != Some(base.as_os_str()) {
            return found;
        }
        // The first is SOURCE's own.
        for root in self.gate.roots.iter().skip(1) {
            if let Ok(opened) = self.open(&root.real.join(base), purpose)
                && !found.iter().any(|o| o.id == opened.id)
            {
                found.push(opened);
            }
        }
        found
    }
}

impl HostDir {
    /// A block device that the user allowed by name; `None` if `path` is not one of them.
    fn open_device(&self, path: &Path, doing: &str) -> Option<Result<Opened>> {
        if !self.gate.devices.iter().any(|d| normalise(d) == path) {
            return None;
        }
        Some(
            HostFile::open_named(path, &self.gate.pool)
                .map_err(|e| e.context(doing))
                .map(|file| Opened {
                    id: file.id(),
                    disk: file as Arc<dyn Disk>,
                    path: path.to_path_buf(),
                    dir: Arc::new(self.clone()),
                }),
        )
    }
}
