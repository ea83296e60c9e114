//! Where machines are looked for: a directory of the host, and elsewhere a datastore.

use disk_io::{DiskError, HostDir, Locate, Result, host_dir::Allowed};
use std::{
    fmt::Debug,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Most names of one directory.
pub const MAX_NAMES: usize = 1 << 20;

/// What is in a directory, sorted by name.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Directories in it.
    pub directories: Vec<PathBuf>,
    /// Files in it, with their lengths in bytes.
    pub files: Vec<(PathBuf, u64)>,
}

/// Directories with files. Paths are relative to the place; its own directory is the empty
/// path.
pub trait Place: Send + Sync + Debug {
    /// What is in a directory.
    fn list(&self, dir: &Path) -> Result<Listing>;

    /// The gate for what files in `dir` name.
    fn gate(&self, dir: &Path) -> Result<Arc<dyn Locate>>;

    /// What the place is called.
    fn describe(&self) -> String;
}

/// A directory of the host with everything beneath it. Symbolic links are not followed.
#[derive(Clone, Debug)]
pub struct HostPlace {
    root: PathBuf,
    allowed: Allowed,
}

impl HostPlace {
    /// The directory `root`; what lies in it may name anything else that lies in it.
    pub fn new(root: &Path, allowed: &Allowed) -> Result<Self> {
        let root = root
            .canonicalize()
            .map_err(|e| DiskError::io("opening the directory", &e).file(root.display()))?;
        let mut allowed = allowed.clone();
        allowed.dirs.push(root.clone());
        Ok(Self { root, allowed })
    }

    fn full(&self, dir: &Path) -> PathBuf {
        match dir.as_os_str().is_empty() {
            true => self.root.clone(),
            false => self.root.join(dir),
        }
    }
}

impl Place for HostPlace {
    fn list(&self, dir: &Path) -> Result<Listing> {
        let path = self.full(dir);
        let fail =
            |e: std::io::Error| DiskError::io("listing the directory", &e).file(path.display());
        let mut found = Listing::default();
        for entry in std::fs::read_dir(&path).map_err(fail)?.take(MAX_NAMES) {
            let entry = entry.map_err(fail)?;
            let name = PathBuf::from(entry.file_name());
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() {
                found.directories.push(name);
            } else if kind.is_file() {
                // One that went away meanwhile is not there.
                if let Ok(metadata) = entry.metadata() {
                    found.files.push((name, metadata.len()));
                }
            }
        }
        found.directories.sort();
        found.files.sort();
        Ok(found)
    }

    fn gate(&self, dir: &Path) -> Result<Arc<dyn Locate>> {
        Ok(Arc::new(HostDir::new(&self.full(dir), &self.allowed)?))
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }
}
