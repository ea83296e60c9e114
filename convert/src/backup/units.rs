//! The hashes of a disk's units beside its backup: what changed can be told, and where damage
//! is, without the disk that it was made of.
//!
//! The file has 32 bytes for every MiB of the disk: its SHA-256, or zeros for a MiB of zeros.
//! On most file systems such a file has holes where the disk has.

use crate::{
    digest::{Digest, Hash, UNIT, UnitFold, zero_hash},
    progress::Progress,
};
use disk_io::{
    Disk, DiskError, HostDir, Result, host_dir::Allowed, output::write_error, zero::is_zero,
};
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Bytes for every unit.
const EACH: u64 = 32;
/// What is read and written of it at a time: what file systems can leave out.
const BLOCK: usize = 4096;

/// The end of such a file's name, behind the disk's.
pub const EXTENSION: &str = ".units";

/// Writes the hashes as a copy computes them; everything else is passed on.
pub(crate) struct Keep<'a> {
    inner: &'a dyn Progress,
    file: File,
    path: PathBuf,
    failed: Mutex<Option<DiskError>>,
}

impl<'a> Keep<'a> {
    /// Creates the file for a disk of `len` bytes.
    pub(crate) fn create(path: PathBuf, len: u64, inner: &'a dyn Progress) -> Result<Self> {
        let fail = |e| write_error("writing", &path, &e);
        let file = File::create_new(&path).map_err(fail)?;
        file.set_len(len.div_ceil(UNIT).saturating_mul(EACH))
            .map_err(fail)?;
        Ok(Self {
            inner,
            file,
            path,
            failed: Mutex::new(None),
        })
    }

    /// Syncs them when all are there.
    pub(crate) fn finish(&self) -> Result<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(e) = failed.take() {
            return Err(e);
        }
        self.file
            .sync_all()
            .map_err(|e| write_error("syncing", &self.path, &e))
    }
}

impl Progress for Keep<'_> {
    fn advance(&self, bytes: u64) {
        self.inner.advance(bytes);
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }

    fn hashed(&self, unit: u64, hash: Option<&Hash>) {
        let Some(hash) = hash else { return };
        if let Err(e) = self.file.write_all_at(hash, unit.saturating_mul(EACH)) {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert_with(|| write_error("writing", &self.path, &e));
        }
    }
}

/// The hash of a unit of a disk of `len` bytes, for its digest, out of what is kept of it.
fn as_hashed(kept: &[u8], unit: u64, len: u64) -> Hash {
    match <Hash>::try_from(kept).unwrap_or_default() {
        hash if hash == [0; EACH as usize] => {
            zero_hash(UNIT.min(len.saturating_sub(unit.saturating_mul(UNIT))))
        }
        hash => hash,
    }
}

/// The hashes of a disk's units, as they were kept.
#[derive(Clone, Debug)]
pub struct Units {
    file: Arc<dyn Disk>,
    count: u64,
}

impl Units {
    /// Those of a disk of `len` bytes.
    ///
    /// # Errors
    /// `Corrupt` if the file is not as long as it must be.
    pub fn open(path: &Path, len: u64) -> Result<Self> {
        let file = HostDir::open_source(path, &Allowed::default())?.disk;
        let count = len.div_ceil(UNIT);
        if file.len() != count.saturating_mul(EACH) {
            return Err(DiskError::corrupt("reading the hashes of a disk's units")
                .file(path.display())
                .expected(format!("{count} hashes of {EACH} bytes"))
                .found(format!("{} bytes", file.len())));
        }
        Ok(Self { file, count })
    }

    /// The digest of the disk that these are the hashes of.
    ///
    /// # Errors
    /// Those of reading them.
    pub fn digest(&self, len: u64) -> Result<Digest> {
        let mut fold = UnitFold::new(len);
        let mut some = vec![0; 64 << 10];
        let mut unit = 0;
        while unit < self.count {
            let n = (self.count - unit).min(some.len() as u64 / EACH);
            let bytes = some.get_mut(..(n * EACH) as usize).unwrap_or_default();
            self.file.read_exact_at(bytes, unit.saturating_mul(EACH))?;
            for hash in bytes.chunks_exact(EACH as usize) {
                fold.put(unit, as_hashed(hash, unit, len));
                unit += 1;
            }
        }
        fold.finish()
    }

    /// Writes the same with others for some units, ascending, into a new file, which whoever calls
    /// syncs; the digest of the disk that these are the hashes of.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub(super) fn patched(
        &self,
        path: &Path,
        len: u64,
        changed: &[(u64, Option<Hash>)],
    ) -> Result<Digest> {
        let fail = |e: std::io::Error| write_error("writing", path, &e);
        let file = File::create_new(path).map_err(fail)?;
        file.set_len(self.file.len()).map_err(fail)?;
        let mut changed = changed.iter().peekable();
        let mut fold = UnitFold::new(len);
        let mut some = [0; BLOCK];
        for first in (0..self.count).step_by(BLOCK / EACH as usize) {
            let at = first.saturating_mul(EACH);
            let n = usize::try_from(self.file.len() - at).unwrap_or(BLOCK);
            let some = some.get_mut(..n.min(BLOCK)).unwrap_or_default();
            self.file.read_exact_at(some, at)?;
            for (unit, hash) in (first..).zip(some.chunks_exact_mut(EACH as usize)) {
                if let Some((_, new)) = changed.next_if(|(changed, _)| *changed == unit) {
                    hash.copy_from_slice(&new.unwrap_or_default());
                }
                fold.put(unit, as_hashed(hash, unit, len));
            }
            // A block of zeros stays a hole.
            if !is_zero(some) {
                file.write_all_at(some, at).map_err(fail)?;
            }
        }
        fold.finish()
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The hash of a unit; `None` where it is all zeros.
    pub fn get(&self, unit: u64) -> Result<Option<Hash>> {
        let mut hash = [0; EACH as usize];
        self.file
            .read_exact_at(&mut hash, unit.saturating_mul(EACH))?;
        Ok((hash != [0; EACH as usize]).then_some(hash))
    }
}
