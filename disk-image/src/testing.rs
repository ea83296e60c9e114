//! What the tests of several formats share.

use crate::{Image, OpenOptions};
use disk_io::{Disk, DiskError, FileId, Locate, MemDisk, Opened, Purpose, Result};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// A directory in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(pub(crate) Vec<(&'static str, Arc<[u8]>)>);

impl Files {
    pub(crate) fn new(files: &[(&'static str, Vec<u8>)]) -> Self {
        Self(files.iter().map(|(n, b)| (*n, b.clone().into())).collect())
    }

    /// Opens one of them, with the others beside it.
    pub(crate) fn image(&self, name: &str, options: &OpenOptions) -> Result<Image> {
        crate::open(self.open(Path::new(name), Purpose::Extent)?, options)
    }
}

impl Locate for Files {
    fn open(&self, name: &Path, purpose: Purpose) -> Result<Opened> {
        let found = self.0.iter().position(|(n, _)| Path::new(n) == name);
        let missing =
            || DiskError::not_found(format!("opening the {purpose}")).file(name.display());
        let at = found.ok_or_else(missing)?;
        Ok(Opened {
            disk: Arc::new(MemDisk::new(self.0[at].1.to_vec())) as Arc<dyn Disk>,
            path: name.to_path_buf(),
            id: FileId {
                container: 0,
                file: at as u64,
            },
            dir: Arc::new(self.clone()),
        })
    }

    fn list(&self, limit: usize) -> Result<Vec<PathBuf>> {
        Ok(self
            .0
            .iter()
            .take(limit)
            .map(|(n, _)| PathBuf::from(n))
            .collect())
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}

/// Opens one file on its own.
pub(crate) fn alone(bytes: Vec<u8>) -> Result<Image> {
    Files::new(&[("a", bytes)]).image("a", &OpenOptions::default())
}

/// Opens a damaged image and reads what it can: nothing may panic, and nothing may take
/// long. Gives the error, or whether all of the disk could be read.
pub(crate) fn survive(bytes: Vec<u8>, started_as: &[u8]) -> Result<bool> {
    let start = std::time::Instant::now();
    let result = alone(bytes).map(|image| {
        let len = image.disk.len();
        let mut buf = vec![0; 64 << 10];
        let mut good = true;
        for at in (0..len.min(4 << 20)).step_by(buf.len()) {
            let n = (len - at).min(buf.len() as u64) as usize;
            good &= image.disk.read_exact_at(&mut buf[..n], at).is_ok();
        }
        if len > 0 {
            good &= image.disk.run_at(len - 1).is_ok();
            good &= image.disk.read_exact_at(&mut buf[..1], len - 1).is_ok();
        }
        good
    });
    let took = start.elapsed();
    assert!(
        took.as_secs() < 5,
        "{took:?} for {} bytes",
        started_as.len()
    );
    result
}
