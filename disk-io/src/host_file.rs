//! Files and block devices of the host, read-only, by position.

use crate::{
    disk::{Disk, HostRange, Run, RunKind, check_range, check_run_offset},
    error::{DiskError, ErrorKind, Result},
    locate::FileId,
};
use positioned_io::ReadAt;
use rustix::fs::{Advice, FileType, SeekFrom, fadvise, fstat, seek};
use std::{
    fs::File,
    io,
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

/// How a file is opened, and opened again after the pool has closed it.
type Opener = Box<dyn Fn() -> io::Result<File> + Send + Sync>;

/// Keeps the number of open files bounded: a disk may have 65,536 extents and 255 parents.
#[derive(Debug)]
pub struct FilePool {
    limit: usize,
    open: Mutex<Vec<Weak<HostFile>>>,
}

impl FilePool {
    /// At most `limit` files open at once (and those a read is using right now).
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.max(1),
            open: Mutex::default(),
        })
    }

    /// Notes that `file` holds a descriptor now, and closes others beyond the limit: those
    /// first that no read has used since the last round (second chance).
    fn opened(&self, file: Weak<HostFile>) {
        let Ok(mut open) = self.open.lock() else {
            return;
        };
        open.push(file);
        if open.len() <= self.limit {
            return;
        }
        let target = self.limit - self.limit / 8;
        for give_second_chance in [true, false] {
            let mut excess = open.len().saturating_sub(target);
            open.retain(|weak| {
                let Some(file) = weak.upgrade() else {
                    excess = excess.saturating_sub(1);
                    return false;
                };
                if excess == 0 {
                    return true;
                }
                if give_second_chance && file.used.swap(false, Ordering::Relaxed) {
                    return true;
                }
                file.close();
                excess -= 1;
                false
            });
            if open.len() <= target {
                break;
            }
        }
    }
}

/// An open file of the host. Its length is fixed at the first open; a file that shrinks or
/// is replaced afterwards gives an error, never zeros.
pub struct HostFile {
    path: PathBuf,
    len: u64,
    id: FileId,
    /// Seconds and nanoseconds of its last change: inode numbers are used again.
    modified: (i64, i64),
    sector_size: u32,
    is_device: bool,
    slot: RwLock<Option<Arc<File>>>,
    used: AtomicBool,
    /// The last answer of `run_at`: (start, run).
    last_run: Mutex<Option<(u64, Run)>>,
    opener: Opener,
    pool: Arc<FilePool>,
    me: Weak<HostFile>,
}

impl std::fmt::Debug for HostFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostFile({}, {} bytes)", self.path.display(), self.len)
    }
}

impl HostFile {
    /// Opens a file that the user named: symbolic links are followed, block devices are
    /// taken, everything else that is not a regular file is refused.
    pub fn open_named(path: &Path, pool: &Arc<FilePool>) -> Result<Arc<Self>> {
        let name = path.to_path_buf();
        let opener: Opener = Box::new(move || {
            use rustix::fs::{Mode, OFlags, open};
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
            Ok(File::from(open(&name, flags, Mode::empty())?))
        });
        Self::open_with(path, pool, opener, true)
    }

    /// Opens with `opener`; `path` is for messages only.
    pub(crate) fn open_with(
        path: &Path,
        pool: &Arc<FilePool>,
        opener: Opener,
        devices: bool,
    ) -> Result<Arc<Self>> {
        let fail = |e: &io::Error| DiskError::io("opening", e).file(path.display());
        let file = opener().map_err(|e| fail(&e))?;
        let stat = fstat(&file).map_err(|e| fail(&e.into()))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_device = kind == FileType::BlockDevice;
        match kind {
            FileType::RegularFile => {}
            FileType::BlockDevice if devices => {}
            other => {
                return Err(DiskError::refused("opening")
                    .file(path.display())
                    .expected("a regular file")
                    .found(describe_type(other)));
            }
        }
        let (len, sector_size) = if is_device {
            let len = seek(&file, SeekFrom::End(0)).map_err(|e| fail(&e.into()))?;
            let size = rustix::fs::ioctl_blksszget(&file).unwrap_or(512);
            (len, size)
        } else {
            (stat.st_size.cast_unsigned(), 512)
        };
        let opened = Arc::new_cyclic(|me| Self {
            path: path.to_path_buf(),
            len,
            id: FileId {
                container: stat.st_dev,
                file: stat.st_ino,
            },
            modified: modified(&stat),
            sector_size,
            is_device,
            slot: RwLock::new(Some(Arc::new(file))),
            used: AtomicBool::new(true),
            last_run: Mutex::new(None),
            opener,
            pool: pool.clone(),
            me: me.clone(),
        });
        pool.opened(opened.me.clone());
        Ok(opened)
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which file it is.
    pub fn id(&self) -> FileId {
        self.id
    }

    fn close(&self) {
        if let Ok(mut slot) = self.slot.write() {
            *slot = None;
        }
    }

    /// The open descriptor, opened again if the pool had closed it. The locks guard the
    /// slot only and are never held over a read.
    fn file(&self) -> Result<Arc<File>> {
        self.used.store(true, Ordering::Relaxed);
        if let Ok(slot) = self.slot.read()
            && let Some(file) = &*slot
        {
            return Ok(file.clone());
        }
        let fail = |e: &io::Error| DiskError::io("opening again", e).file(self.path.display());
        let file = (self.opener)().map_err(|e| fail(&e))?;
        let stat = fstat(&file).map_err(|e| fail(&e.into()))?;
        let id = FileId {
            container: stat.st_dev,
            file: stat.st_ino,
        };
        let changed = stat.st_size.cast_unsigned() < self.len || modified(&stat) != self.modified;
        if id != self.id || (!self.is_device && changed) {
            return Err(DiskError::new(ErrorKind::Io, "opening again")
                .file(self.path.display())
                .expected("the same file as before")
                .found("a file that was replaced or changed since"));
        }
        let file = Arc::new(file);
        if let Ok(mut slot) = self.slot.write() {
            *slot = Some(file.clone());
        }
        self.pool.opened(self.me.clone());
        Ok(file)
    }

    fn fail(&self, doing: &str, offset: u64, e: &io::Error) -> DiskError {
        DiskError::io(doing, e)
            .file(self.path.display())
            .offset(offset)
    }
}

fn modified(stat: &rustix::fs::Stat) -> (i64, i64) {
    // The types differ between platforms.
    #[allow(clippy::unnecessary_cast)]
    (stat.st_mtime as i64, stat.st_mtime_nsec as i64)
}

fn describe_type(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        _ => "something else",
    }
}

impl Disk for HostFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn states_sector_size(&self) -> bool {
        self.is_device
    }

    fn host_range(&self, offset: u64) -> Option<HostRange> {
        let len = self.len.checked_sub(offset).filter(|n| *n > 0)?;
        if self.is_device {
            return None;
        }
        Some(HostRange {
            file: self.file().ok()?,
            offset,
            len,
        })
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len, offset, buf.len()).map_err(|e| e.file(self.path.display()))?;
        let file = self.file()?;
        let mut done = 0usize;
        while let Some(rest) = buf.get_mut(done..)
            && !rest.is_empty()
        {
            let at = offset + done as u64;
            match file.read_at(at, rest) {
                Ok(0) => {
                    return Err(DiskError::new(ErrorKind::Io, "reading")
                        .file(self.path.display())
                        .offset(at)
                        .expected(format!("{} bytes as when it was opened", self.len))
                        .found("the end of the file: it was cut short since"));
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.fail("reading", at, &e)),
            }
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len, offset).map_err(|e| e.file(self.path.display()))?;
        let rest = self.len - offset;
        let all_data = Run {
            len: rest,
            kind: RunKind::Data,
        };
        if self.is_device {
            return Ok(all_data);
        }
        if let Ok(last) = self.last_run.lock()
            && let Some((start, run)) = *last
            && (start..start + run.len).contains(&offset)
        {
            return Ok(Run {
                len: start + run.len - offset,
                ..run
            });
        }
        let file = self.file()?;
        let run = match seek(&*file, SeekFrom::Data(offset)) {
            Ok(data) if data > offset => Run {
                len: (data - offset).min(rest),
                kind: RunKind::Unallocated,
            },
            Ok(_) => match seek(&*file, SeekFrom::Hole(offset)) {
                Ok(hole) if hole > offset => Run {
                    len: (hole - offset).min(rest),
                    kind: RunKind::Data,
                },
                _ => all_data,
            },
            // No data from here to the end, which must still be where it was: what was cut off
            // is data that cannot be read.
            Err(rustix::io::Errno::NXIO) => {
                let stat = fstat(&*file).map_err(|e| self.fail("reading", offset, &e.into()))?;
                if stat.st_size.cast_unsigned() < self.len {
                    return Ok(all_data);
                }
                Run {
                    len: rest,
                    kind: RunKind::Unallocated,
                }
            }
            // A file system that does not know holes.
            Err(_) => all_data,
        };
        if let Ok(mut last) = self.last_run.lock() {
            *last = Some((offset, run));
        }
        Ok(run)
    }

    fn will_read(&self, offset: u64, len: u64) {
        // To the kernel a length of 0 means up to the end.
        if let (Some(len), Ok(file)) = (NonZeroU64::new(len), self.file()) {
            let _ = fadvise(&*file, offset, Some(len), Advice::WillNeed);
        }
    }
}
