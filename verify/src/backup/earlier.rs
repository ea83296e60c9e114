//! What earlier runs have proven of a backup, so that a verification of hours can be done in pieces.
//!
//! It is kept in a file and holds for one manifest only: another backup in its place begins anew. The
//! file goes when everything has been looked at.

use convert::digest::sha256;
use disk_io::{DiskError, Result, output::write_error};
use serde_json::{Map, Value, json};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What was proven.
#[derive(Debug)]
pub(super) struct Earlier {
    path: PathBuf,
    /// SHA-256 of the manifest.
    manifest: String,
    /// Files of the backup.
    files: Map<String, Value>,
    /// By disk, how many MiB from its beginning are as they should be.
    units: Map<String, Value>,
    /// By disk, how many guest files were read, in the order in which they are found.
    guests: Map<String, Value>,
    /// How many runs there were before.
    pub(super) runs: u64,
    saved: Instant,
}

/// How much work may be lost.
const EVERY: Duration = Duration::from_secs(2);

impl Earlier {
    /// Reads the file, if it is there and of this manifest.
    ///
    /// # Errors
    /// `Corrupt` where it is another kind of file: it would be written over.
    pub(super) fn load(path: &Path, manifest: &Path) -> Result<Self> {
        let bytes = fs::read(manifest)
            .map_err(|e| DiskError::io("reading the manifest", &e).file(manifest.display()))?;
        let mut new = Self {
            path: path.to_path_buf(),
            manifest: sha256(&bytes).iter().map(|b| format!("{b:02x}")).collect(),
            files: Map::new(),
            units: Map::new(),
            guests: Map::new(),
            runs: 0,
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
        if kept.get("manifest").and_then(Value::as_str) == Some(&new.manifest) {
            (new.files, new.units, new.guests) = (files, units, guests);
            new.runs = kept.get("runs").and_then(Value::as_u64).unwrap_or(0);
        }
        Ok(new)
    }

    /// Writes it, whole or not at all.
    pub(super) fn save(&self) -> Result<()> {
        let value = json!({
            "manifest": self.manifest,
            "runs": self.runs.saturating_add(1),
            "files": self.files,
            "units": self.units,
            "guests": self.guests,
        });
        let mut temp = self.path.clone().into_os_string();
        temp.push(".new");
        let temp = PathBuf::from(temp);
        let write = || {
            let mut file = fs::File::create(&temp)?;
            file.write_all(format!("{value:#}\n").as_bytes())?;
            file.sync_all()?;
            fs::rename(&temp, &self.path)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_for_one_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let (state, manifest) = (dir.path().join("state"), dir.path().join("m"));
        fs::write(&manifest, "one").unwrap();
        let mut earlier = Earlier::load(&state, &manifest).unwrap();
        earlier.file_is_good("a").unwrap();
        earlier.units_are_good("d", 7).unwrap();
        earlier.save().unwrap();
        let again = Earlier::load(&state, &manifest).unwrap();
        assert!(again.has_file("a") && again.units_of("d") == 7 && again.runs == 1);
        fs::write(&manifest, "two").unwrap();
        let other = Earlier::load(&state, &manifest).unwrap();
        assert!(!other.has_file("a") && other.units_of("d") == 0 && other.runs == 0);
        fs::write(&state, "a letter").unwrap();
        assert!(Earlier::load(&state, &manifest).is_err());
        assert_eq!(fs::read(&state).unwrap(), b"a letter");
    }
}
