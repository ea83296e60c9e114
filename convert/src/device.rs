//! A disk onto a block device: the way back to a physical machine.
//!
//! Nothing is written before everything that can be known beforehand is found good: that it
//! is a device, large enough, with sectors of the right size, and used by nobody.

mod gpt;

use crate::{
    Digest, DigestKind,
    pipeline::{self, Copied, CopyOptions, Sparse},
    progress::Progress,
    target::{Discard, Target},
};
use disk_io::{
    Disk, DiskError, OutFile, Result, Run, RunKind, disk::check_range, output::write_error,
};
use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, major, minor};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{Seek, SeekFrom},
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Length of the disk in bytes.
    pub virtual_size: u64,
    /// Length of the device in bytes.
    pub device_size: u64,
    /// Bytes written as data; the rest was made zero.
    pub written: u64,
    /// Digest of the disk's contents.
    pub digest: Option<Digest>,
    /// Whether the device was read back and had that digest.
    pub verified: bool,
    /// Whether the backup of a GUID partition table was moved to the device's end.
    pub moved_gpt: bool,
}

/// How to write.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Threads; 0 means one for every core.
    pub workers: usize,
    /// Digest to compute on the way.
    pub digest: DigestKind,
    /// Read everything back and compare.
    pub verify: bool,
}

/// Writes `disk` onto the block device `path`.
///
/// # Errors
/// `Refused`, with nothing written, if it is no block device, too small, in use, or has
/// sectors of another size; `Corrupt` if it reads back otherwise; `Io`.
pub fn write(
    disk: &dyn Disk,
    path: &Path,
    options: Options,
    progress: &dyn Progress,
) -> Result<Report> {
    let refused = || DiskError::refused("writing onto a device").file(path.display());
    let found = std::fs::metadata(path)
        .map_err(|e| DiskError::io("looking at the device", &e).file(path.display()))?;
    if !found.file_type().is_block_device() {
        return Err(refused()
            .expected("a block device")
            .found("something else")
            .hint("leave out --device to write a file"));
    }
    let number = (major(found.rdev()), minor(found.rdev()));
    if let Some(why) = in_use(number) {
        return Err(refused()
            .expected("a device that nobody uses")
            .found(why)
            .hint("unmount it first"));
    }
    if let Some(sector) = sector_size(number)
        && sector != disk.sector_size()
    {
        return Err(refused()
            .expected(format!(
                "sectors of {} bytes, as the disk has",
                disk.sector_size()
            ))
            .found(format!("sectors of {sector} bytes"))
            .hint("a guest would look for its partitions in other places"));
    }
    // Exclusive: the kernel refuses what is mounted or part of something.
    let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| {
        DiskError::io("opening the device", &e.into())
            .file(path.display())
            .hint("it must not be in use, and writing needs root or the group disk")
    })?;
    let mut file = File::from(fd);
    let len = file
        .seek(SeekFrom::End(0))
        .map_err(|e| DiskError::io("asking for the length of", &e).file(path.display()))?;
    if len < disk.len() {
        return Err(refused()
            .expected(format!("a device of at least {} bytes", disk.len()))
            .found(format!("{len} bytes")));
    }
    onto(disk, &file, path, len, options, progress)
}

/// The same for a file that is open and long enough.
fn onto(
    disk: &dyn Disk,
    file: &File,
    path: &Path,
    len: u64,
    options: Options,
    progress: &dyn Progress,
) -> Result<Report> {
    let copied = {
        let target = Device {
            out: OutFile::new(file, path),
            file,
            path,
        };
        let how = CopyOptions {
            workers: options.workers,
            digest: match options.digest {
                DigestKind::None if options.verify => DigestKind::Vmdkit,
                digest => digest,
            },
            sparse: Sparse::Never,
        };
        pipeline::copy(disk, &target, how, progress)?
    };
    let sync = || {
        file.sync_all()
            .map_err(|e| write_error("syncing", path, &e))
    };
    sync()?;
    if options.verify {
        read_back(disk, file, path, options.workers, &copied, progress)?;
    }
    // Only now: it changes bytes that were compared.
    let moved_gpt = len > disk.len()
        && gpt::move_backup(file, u64::from(disk.sector_size()), len)
            .map_err(|e| write_error("moving the backup partition table of", path, &e))?;
    sync()?;
    Ok(Report {
        virtual_size: disk.len(),
        device_size: len,
        written: copied.written,
        digest: copied.digest,
        verified: options.verify,
        moved_gpt,
    })
}

fn read_back(
    disk: &dyn Disk,
    file: &File,
    path: &Path,
    workers: usize,
    copied: &Copied,
    progress: &dyn Progress,
) -> Result<()> {
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    let written = ReadBack {
        file,
        path,
        len: disk.len(),
    };
    let how = CopyOptions {
        workers,
        digest: copied.digest.map_or(DigestKind::Vmdkit, |d| d.kind),
        sparse: Sparse::Always,
    };
    let read = pipeline::copy(&written, &Discard, how, progress)?;
    if read.digest == copied.digest {
        return Ok(());
    }
    let text = |d: Option<Digest>| d.map_or_else(String::new, |d| d.to_string());
    Err(DiskError::corrupt("verifying the device")
        .file(path.display())
        .expected(text(copied.digest))
        .found(text(read.digest))
        .hint("the device or memory of this machine is at fault, or vmdkit is: keep the source"))
}

/// The target: zeros are written too, since what was there before must go.
#[derive(Debug)]
struct Device<'f> {
    out: OutFile<'f>,
    file: &'f File,
    path: &'f Path,
}

impl Target for Device<'_> {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.out.put(bytes, offset)
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        if fallocate(self.file, flags, offset, len).is_ok() {
            return Ok(());
        }
        let mut at = offset;
        let end = offset + len;
        while at < end {
            let n = (end - at).min(crate::digest::UNIT);
            self.file
                .write_all_at(crate::digest::zeros(n), at)
                .map_err(|e| write_error("writing", self.path, &e).offset(at))?;
            at += n;
        }
        Ok(())
    }
}

/// What was written, read again.
#[derive(Debug)]
struct ReadBack<'f> {
    file: &'f File,
    path: &'f Path,
    len: u64,
}

impl Disk for ReadBack<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len, offset, buf.len())?;
        self.file.read_exact_at(buf, offset).map_err(|e| {
            DiskError::io("reading back", &e)
                .file(self.path.display())
                .offset(offset)
        })
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        disk_io::disk::check_run_offset(self.len, offset)?;
        Ok(Run {
            len: self.len - offset,
            kind: RunKind::Data,
        })
    }
}

/// The numbers of a device and of everything that lies on it.
fn family(number: (u32, u32)) -> BTreeSet<(u32, u32)> {
    let mut all = BTreeSet::from([number]);
    let dir = PathBuf::from(format!("/sys/dev/block/{}:{}", number.0, number.1));
    for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
        if let Ok(text) = std::fs::read_to_string(entry.path().join("dev"))
            && let Some(number) = parse(text.trim())
        {
            all.insert(number);
        }
    }
    all
}

fn parse(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Who uses a device, or a partition of it.
fn in_use(number: (u32, u32)) -> Option<String> {
    let family = family(number);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        if let Some(found) = fields.nth(2).and_then(parse)
            && family.contains(&found)
        {
            return Some(format!("mounted at {}", fields.nth(1).unwrap_or_default()));
        }
    }
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    for line in swaps.lines().skip(1) {
        let path = line.split_whitespace().next().unwrap_or_default();
        if let Ok(m) = std::fs::metadata(path)
            && m.file_type().is_block_device()
            && family.contains(&(major(m.rdev()), minor(m.rdev())))
        {
            return Some(format!("swap space {path}"));
        }
    }
    for (major, minor) in family {
        let holders = format!("/sys/dev/block/{major}:{minor}/holders");
        let held = std::fs::read_dir(holders).into_iter().flatten().flatten();
        if let Some(holder) = held.into_iter().next() {
            let name = holder.file_name().to_string_lossy().into_owned();
            return Some(format!("part of {name}"));
        }
    }
    None
}

/// Logical sector size, where the system tells it.
fn sector_size(number: (u32, u32)) -> Option<u32> {
    let dir = PathBuf::from(format!("/sys/dev/block/{}:{}", number.0, number.1));
    // A partition has no queue of its own.
    ["queue/logical_block_size", "../queue/logical_block_size"]
        .iter()
        .find_map(|name| std::fs::read_to_string(dir.join(name)).ok())
        .and_then(|text| text.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::NoProgress;
    use disk_io::MemDisk;
    use std::sync::Arc;

    #[test]
    fn nothing_of_before_is_left_and_it_reads_back() {
        let mut bytes = vec![0; 3 << 20];
        bytes[5] = 1;
        bytes[(2 << 20) + 9] = 7;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device");
        std::fs::write(&path, vec![0xee; 4 << 20]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let options = Options {
            verify: true,
            ..Options::default()
        };
        let disk = MemDisk::new(bytes.clone());
        let report = onto(&disk, &file, &path, 4 << 20, options, &NoProgress).unwrap();
        assert!(report.verified && !report.moved_gpt);
        let after = std::fs::read(&path).unwrap();
        assert_eq!(after[..3 << 20], bytes);
        // What the disk does not reach is not touched.
        assert!(after[3 << 20..].iter().all(|b| *b == 0xee));
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"mine").unwrap();
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(vec![0; 512]));
        for path in [path.as_path(), Path::new("/dev/null")] {
            let e = write(&*disk, path, Options::default(), &NoProgress).unwrap_err();
            assert!(e.to_string().contains("a block device"), "{e}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }

    /// The disk that the root directory is on is in use, wherever that can be told.
    #[test]
    fn mounted_devices_are_known() {
        let root = std::fs::metadata("/").unwrap().dev();
        let number = (major(root), minor(root));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let listed = mounts
            .lines()
            .any(|l| l.split(' ').nth(2).and_then(parse) == Some(number));
        assert_eq!(in_use(number).is_some(), listed);
    }
}
