//! What earlier runs have proven of a backup, so that a verification of hours can be done in pieces.
//!
//! It is kept in a file, and holds only as long as nothing has changed: neither the manifest, nor
//! length, times and inode of any file of the backup, nor what is asked for, nor this program. Else
//! everything begins anew, and that is said. What is bad is never kept, so every run finds it again.
//! The file goes when everything has been looked at.

use convert::{
    backup::{Manifest, manifest},
    digest::sha256,
};
use disk_io::{DiskError, Result, output::write_error};
use rustix::fs::{Mode, OFlags};
use serde_json::{Map, Value, json};
use std::{
    fmt::Write as _,
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What was proven.
#[derive(Debug)]
pub(super) struct Earlier {
    path: PathBuf,
    /// SHA-256 of all that must not have changed.
    key: String,
    /// Files of the backup.
    files: Map<String, Value>,
    /// By disk, how many MiB from its beginning are as they should be.
    units: Map<String, Value>,
    /// By disk, how many guest files were read, in the order in which they are found.
    guests: Map<String, Value>,
    /// How many runs there were before.
    pub(super) runs: u64,
    /// Whether there were others that no longer count.
    pub(super) anew: bool,
    saved: Instant,
}

/// How much work may be lost.
const EVERY: Duration = Duration::from_secs(2);

impl Earlier {
    /// Reads the file, if it is there and nothing has changed since. `asked` is what is asked for.
    ///
    /// # Errors
    /// `Refused` for a backup that builds on another one: whether that has changed is not known here;
    /// `Corrupt` where it is another kind of file: it would be written over.
    pub(super) fn load(path: &Path, dir: &Path, manifest: &Manifest, asked: &str) -> Result<Self> {
        if let Some(since) = &manifest.since {
            return Err(DiskError::refused("keeping what is proven")
                .file(path.display())
                .expected("a backup that holds everything")
                .found(format!("one of what changed since {}", since.directory))
                .hint("verify it in one run, without --state"));
        }
        refuse_place(path, dir)?;
        trusted(dir)?;
        let mut new = Self {
            path: path.to_path_buf(),
            key: key(dir, manifest, asked)?,
            files: Map::new(),
            units: Map::new(),
            guests: Map::new(),
            runs: 0,
            anew: false,
            saved: Instant::now(),
        };
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(new),
            Err(e) => {
                return Err(
                    DiskError::io("reading what earlier runs proved", &e).file(path.display())
                );
            }
        };
        let other = || {
            DiskError::corrupt("reading what earlier runs proved")
                .file(path.display())
                .expected("a file that verify --state wrote")
                .found("another file")
                .hint("name a file that does not exist yet")
        };
        let kept: Value = serde_json::from_slice(&text).map_err(|_| other())?;
        let map = |key: &str| kept.get(key).and_then(Value::as_object).cloned();
        let (Some(files), Some(units), Some(guests)) = (map("files"), map("units"), map("guests"))
        else {
            return Err(other());
        };
        match kept.get("key").and_then(Value::as_str) == Some(&new.key) {
            true => {
                (new.files, new.units, new.guests) = (files, units, guests);
                new.runs = kept.get("runs").and_then(Value::as_u64).unwrap_or(0);
            }
            false => new.anew = true,
        }
        Ok(new)
    }

    /// Writes it, whole or not at all.
    pub(super) fn save(&self) -> Result<()> {
        let value = json!({
            "key": self.key,
            "runs": self.runs.saturating_add(1),
            "files": self.files,
            "units": self.units,
            "guests": self.guests,
        });
        let write = || {
            let dir = self.path.parent().filter(|p| !p.as_os_str().is_empty());
            let mut file = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
            file.write_all(format!("{value:#}\n").as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&self.path).map(|_| ()).map_err(|e| e.error)
        };
        write().map_err(|e| write_error("writing", &self.path, &e))
    }

    fn now_and_then(&mut self) -> Result<()> {
        if self.saved.elapsed() < EVERY {
            return Ok(());
        }
        self.saved = Instant::now();
        self.save()
    }

    /// Everything was looked at.
    pub(super) fn forget(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(write_error("removing", &self.path, &e))
            }
            _ => Ok(()),
        }
    }

    /// Whether anything was proven.
    pub(super) fn is_empty(&self) -> bool {
        let some = |map: &Map<String, Value>| map.values().any(|v| *v != 0);
        !some(&self.files) && !some(&self.units) && !some(&self.guests)
    }

    pub(super) fn has_file(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    pub(super) fn file_is_good(&mut self, name: &str) -> Result<()> {
        self.files.insert(name.to_owned(), Value::Bool(true));
        self.now_and_then()
    }

    pub(super) fn units_of(&self, disk: &str) -> u64 {
        self.units.get(disk).and_then(Value::as_u64).unwrap_or(0)
    }

    pub(super) fn units_are_good(&mut self, disk: &str, count: u64) -> Result<()> {
        self.units.insert(disk.to_owned(), count.into());
        self.now_and_then()
    }

    pub(super) fn guests_of(&self, disk: &str) -> u64 {
        self.guests.get(disk).and_then(Value::as_u64).unwrap_or(0)
    }

    pub(super) fn guests_are_good(&mut self, disk: &str, count: u64) -> Result<()> {
        self.guests.insert(disk.to_owned(), count.into());
        self.now_and_then()
    }
}

/// The file is not one of the backup's: there it would be a file that the manifest does not name.
fn refuse_place(path: &Path, dir: &Path) -> Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    // Known now, and not when there is something to be kept.
    let place = fs::canonicalize(parent)
        .map_err(|e| DiskError::io("keeping what is proven", &e).file(parent.display()))?;
    match fs::canonicalize(dir) {
        Ok(dir) if place.starts_with(&dir) => Err(DiskError::refused("keeping what is proven")
            .file(path.display())
            .expected("a place outside of the backup")
            .found("one inside of it")),
        _ => Ok(()),
    }
}

/// Only where the kernel itself keeps a file's time of change, which no program can set back, is a
/// file that has the same one the same file. Others (FUSE, network, FAT) tell what they like.
fn trusted(dir: &Path) -> Result<()> {
    // ext2 to ext4, XFS, Btrfs, F2FS, tmpfs, overlayfs, ZFS, bcachefs.
    const TRUSTED: &[u64] = &[
        0xef53,
        0x5846_5342,
        0x9123_683e,
        0xf2f5_2010,
        0x0102_1994,
        0x794c_7630,
        0x2fc1_2fc1,
        0xca45_1a4e,
    ];
    let found = rustix::fs::statfs(dir)
        .map_err(|e| DiskError::io("asking for the file system", &e.into()).file(dir.display()))?;
    let kind = found.f_type as u64 & 0xffff_ffff;
    match TRUSTED.contains(&kind) {
        true => Ok(()),
        false => Err(DiskError::refused("keeping what is proven")
            .file(dir.display())
            .expected(
                "a file system whose times of change can be believed: ext4, XFS, Btrfs, ZFS …",
            )
            .found(format!("another one ({kind:#x})"))
            .hint("verify it in one run, without --state")),
    }
}

/// Everything that what was proven depends on.
fn key(dir: &Path, manifest: &Manifest, asked: &str) -> Result<String> {
    let mut text = format!("{} {asked}\n", env!("CARGO_PKG_VERSION"));
    let units = manifest.disks.iter().filter_map(|d| d.units.as_ref());
    let files = manifest.files.iter().map(|f| &f.name);
    let own = manifest::NAME.to_owned();
    for name in files.chain(units).chain([&own]) {
        let path = dir.join(name);
        // What is written through a mapping changes the time only when its page is clean again.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::open(&path, flags, Mode::empty()) {
            let _ = rustix::fs::fsync(file);
        }
        // One that is missing is told by whoever looks at it.
        let _ = match fs::metadata(&path) {
            Ok(m) => writeln!(
                text,
                "{name:?} {} {} {} {}.{} {}.{}",
                m.dev(),
                m.ino(),
                m.len(),
                m.mtime(),
                m.mtime_nsec(),
                m.ctime(),
                m.ctime_nsec()
            ),
            Err(_) => writeln!(text, "{name:?} is missing"),
        };
    }
    let (_, own) = Manifest::read_hashed(dir)?
        .ok_or_else(|| DiskError::not_found("reading the manifest").file(dir.display()))?;
    text.push_str(&own);
    Ok(sha256(text.as_bytes())
        .iter()
        .fold(String::new(), |mut hex, b| {
            let _ = write!(hex, "{b:02x}");
            hex
        }))
}
