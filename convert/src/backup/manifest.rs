//! What a backup says of itself: which files it has, and what they held when it was made.

use disk_io::{DiskError, Result};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{fs::File, io::Read, path::Path};

/// Name of the manifest in a backup's directory.
pub const NAME: &str = "vmdkit-manifest.json";
/// The version that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// Manifests are some kilobytes long.
const MAX_LEN: u64 = 64 << 20;

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub vmdkit_backup: u32,
    /// When it was made: RFC 3339.
    pub created: String,
    /// What it was made from, as the user named it.
    pub source: String,
    /// By what it is known that another backup is of the same disk: where it lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The earlier backup that it builds on: only what changed since is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<SinceEntry>,
    /// Backups of changes that were made whole: SHA-256 of the manifests that this one stands for,
    /// in lower-case hexadecimal. Its disks have their contents and content ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stands_for: Vec<String>,
    /// The machine; none where it is a single disk.
    pub vm: Option<VmEntry>,
    /// The disks.
    pub disks: Vec<DiskEntry>,
    /// Every file of the backup but the manifest itself.
    pub files: Vec<FileEntry>,
    /// What is not in it, and what of it is not to be relied on.
    #[serde(flatten)]
    pub gaps: Gaps,
}

/// What was known to be missing or doubtful when a backup was made: its files may all be right and
/// still not be the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gaps {
    /// Disks and files that could not be taken, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Why contents were doubtful.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
    /// Disks of the machine that were not asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_asked: Vec<String>,
}

/// The backup that another builds on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinceEntry {
    /// Name of its directory, which lies beside that of the other.
    pub directory: String,
    /// When it was made: RFC 3339.
    pub created: String,
    /// SHA-256 of its manifest, in lower-case hexadecimal.
    pub manifest: String,
}

/// A file of the disk that a backup was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainFile {
    /// Its name, without a directory.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was modified: seconds since 1970 and nanoseconds.
    pub modified: (i64, i64),
}

/// A link of that disk's chain, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainLink {
    /// Content id.
    pub cid: Option<u32>,
    /// Its files.
    pub files: Vec<ChainFile>,
}

/// The machine of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmEntry {
    /// What its user calls it.
    pub name: String,
    /// BIOS uuid.
    pub uuid: Option<String>,
    /// The guest's system, as the configuration names it.
    pub guest_os: Option<String>,
    /// Its configuration in the backup.
    pub config: String,
    /// The snapshot that it was made of; none for the state at that time.
    pub point: Option<PointEntry>,
    /// What the guest had done then, as far as its files told: `memory`, `quiesced`, `crash`,
    /// `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<String>,
}

/// A snapshot of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointEntry {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// When it was taken: RFC 3339.
    pub created: Option<String>,
    /// What the user said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A disk of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskEntry {
    /// Where it hangs: `scsi0:0`; none for a single disk.
    pub place: Option<String>,
    /// The file to open.
    pub file: String,
    /// Its format.
    pub format: String,
    /// Length of the disk in bytes.
    pub virtual_size: u64,
    /// Digest of the virtual contents, whatever the format: `vmdkit` or `sha256`.
    pub digest: DigestEntry,
    /// The file with the SHA-256 of every MiB of it, see [`super::units`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<String>,
    /// The file of the earlier backup that it is a child of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The chain that it was made of, where that lay in files of the host: what a later
    /// backup finds changes by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<ChainLink>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name in the backup's directory.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Digest of its bytes.
    pub digest: DigestEntry,
    /// CRC-32 of its bytes, eight hexadecimal digits: for a quick first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32: Option<String>,
}

/// A digest: of a kind, in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestEntry {
    /// `sha256`, or `vmdkit`: SHA-256 over the length and the SHA-256 of every MiB.
    pub kind: String,
    /// The hash.
    pub hash: String,
}

impl From<crate::Digest> for DigestEntry {
    fn from(digest: crate::Digest) -> Self {
        Self {
            kind: digest.name().to_owned(),
            hash: digest.hex(),
        }
    }
}

impl DigestEntry {
    /// The kind, if it is one of those that are computed here.
    pub fn kind(&self) -> Option<crate::DigestKind> {
        self.kind
            .parse()
            .ok()
            .filter(|k| *k != crate::DigestKind::None)
    }
}

/// What a later backup calls the one that it builds on by: SHA-256 of the text of its manifest.
pub fn hash(text: &[u8]) -> String {
    let hash = crate::digest::sha256(text);
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

impl Manifest {
    /// Whether this manifest, whose own [`hash`] is `own`, is the one that a later backup calls
    /// `wanted`, or stands for it.
    pub fn is_meant(&self, own: &str, wanted: &str) -> bool {
        own == wanted || self.stands_for.iter().any(|s| s == wanted)
    }

    /// Reads the manifest of the backup in `dir`; `None` if there is none.
    ///
    /// # Errors
    /// `Corrupt` for one that cannot be understood, `Unsupported` for a newer version.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        Ok(Self::read_hashed(dir)?.map(|(manifest, _)| manifest))
    }

    /// The same, with what a later backup calls it by.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn read_hashed(dir: &Path) -> Result<Option<(Self, String)>> {
        let path = dir.join(NAME);
        let fail =
            |e: &std::io::Error| DiskError::io("reading the manifest", e).file(path.display());
        // Neither a link nor a pipe: directories of others are looked at too.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(fail(&e.into())),
        };
        let found = file.metadata().map_err(|e| fail(&e))?;
        if !found.is_file() || found.len() > MAX_LEN {
            return Err(DiskError::refused("reading the manifest")
                .file(path.display())
                .expected(format!("a file of at most {MAX_LEN} bytes"))
                .found(match found.is_file() {
                    true => found.len().to_string(),
                    false => "none".to_owned(),
                }));
        }
        let mut bytes = Vec::new();
        file.take(MAX_LEN)
            .read_to_end(&mut bytes)
            .map_err(|e| fail(&e))?;
        let manifest: Self = serde_json::from_slice(&bytes).map_err(|e| {
            DiskError::corrupt("reading the manifest")
                .file(path.display())
                .expected("the manifest of a backup")
                .found(e.to_string())
        })?;
        if manifest.vmdkit_backup > VERSION {
            return Err(DiskError::unsupported("reading the manifest")
                .file(path.display())
                .expected(format!("version {VERSION} or older"))
                .found(manifest.vmdkit_backup.to_string()));
        }
        // Names lead nowhere else.
        let names = manifest.files.iter().map(|f| &f.name);
        let disks = manifest.disks.iter().map(|d| &d.file);
        let units = manifest.disks.iter().filter_map(|d| d.units.as_ref());
        let since = manifest.since.iter().map(|s| &s.directory);
        for name in names.chain(disks).chain(units).chain(since) {
            if name.is_empty() || name.contains('/') || name == ".." || name == "." {
                return Err(DiskError::corrupt("reading the manifest")
                    .file(path.display())
                    .expected("names of files beside it")
                    .found(name.clone()));
            }
        }
        Ok(Some((manifest, hash(&bytes))))
    }

    /// The text that is written.
    pub fn to_text(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        let mut text =
            text.map_err(|e| DiskError::corrupt("writing the manifest").found(e.to_string()))?;
        text.push('\n');
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_and_no_way_out() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), None);
        let digest = DigestEntry {
            kind: "sha256".into(),
            hash: "00".into(),
        };
        let mut m = Manifest {
            vmdkit_backup: VERSION,
            created: "2026-01-01T00:00:00Z".into(),
            source: "web".into(),
            identity: None,
            since: None,
            stands_for: Vec::new(),
            vm: None,
            disks: Vec::new(),
            files: vec![FileEntry {
                name: "a".into(),
                size: 1,
                digest,
                crc32: None,
            }],
            gaps: Gaps::default(),
        };
        let put = |m: &Manifest| std::fs::write(dir.path().join(NAME), m.to_text().unwrap());
        put(&m).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), Some(m.clone()));
        m.files[0].name = "../a".into();
        put(&m).unwrap();
        assert!(Manifest::read(dir.path()).is_err());
        m.vmdkit_backup = 2;
        put(&m).unwrap();
        let e = Manifest::read(dir.path()).unwrap_err();
        assert_eq!(e.kind(), disk_io::ErrorKind::Unsupported);
        std::fs::write(dir.path().join(NAME), "{").unwrap();
        assert!(Manifest::read(dir.path()).is_err());
    }
}
