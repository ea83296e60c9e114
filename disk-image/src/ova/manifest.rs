//! The manifest: digests of the package's files.

use disk_io::{Disk, DiskError, Locate, Purpose, Result};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use std::path::Path;

/// Manifests are some hundred bytes long.
const MAX_LEN: u64 = 4 << 20;

/// Which digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-1, the rule until 2015.
    Sha1,
    /// SHA-256, the rule since.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// A line of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The file.
    pub name: String,
    /// Which digest.
    pub algorithm: Algorithm,
    /// The digest in lower-case hex.
    pub digest: String,
}

/// What checking one line came to.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The line.
    pub entry: Entry,
    /// Nothing if the file is what the line says; else a Corrupt error with both digests,
    /// or why the file cannot be read.
    pub problem: Option<DiskError>,
}

/// Reads a manifest's lines: `SHA256(disk1.vmdk)= 0123…`.
pub(super) fn parse(disk: &dyn Disk) -> Result<Vec<Entry>> {
    if disk.len() > MAX_LEN {
        return Err(DiskError::refused("reading the manifest")
            .expected(format!("at most {MAX_LEN} bytes"))
            .found(disk.len().to_string()));
    }
    let mut bytes = vec![0; usize::try_from(disk.len()).unwrap_or(0)];
    disk.read_exact_at(&mut bytes, 0)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut found = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim().trim_start_matches('\u{feff}');
        if line.is_empty() {
            continue;
        }
        let entry = entry(line).ok_or_else(|| {
            DiskError::corrupt("reading the manifest")
                .expected("SHA1(…)= or SHA256(…)= or SHA512(…)= and a digest")
                .found(format!("line {}: {line}", n.saturating_add(1)))
        })?;
        found.push(entry);
    }
    Ok(found)
}

fn entry(line: &str) -> Option<Entry> {
    let (algorithm, rest) = line.split_once('(')?;
    // A name may have brackets; the last one before the sign closes it.
    let (name, digest) = rest.rsplit_once('=')?;
    let name = name.trim_end().strip_suffix(')')?;
    let (algorithm, digits) = match algorithm.trim().to_ascii_uppercase().as_str() {
        "SHA1" | "SHA-1" => (Algorithm::Sha1, 40),
        "SHA256" | "SHA-256" => (Algorithm::Sha256, 64),
        "SHA512" | "SHA-512" => (Algorithm::Sha512, 128),
        _ => return None,
    };
    let digest = digest.trim().to_ascii_lowercase();
    let is_hex = digest.bytes().all(|b| b.is_ascii_hexdigit());
    (digest.len() == digits && is_hex).then(|| Entry {
        name: name.to_string(),
        algorithm,
        digest,
    })
}

/// Compares every file that the manifest names with its digest. `step` is called with the
/// bytes read so far of each file, so that progress can be shown.
pub fn verify_manifest(
    place: &dyn Locate,
    entries: &[Entry],
    step: &mut dyn FnMut(&str, u64),
) -> Vec<Checked> {
    let mut found = Vec::new();
    for entry in entries {
        let problem = check(place, entry, step).err();
        found.push(Checked {
            entry: entry.clone(),
            problem,
        });
    }
    found
}

fn check(place: &dyn Locate, entry: &Entry, step: &mut dyn FnMut(&str, u64)) -> Result<()> {
    let opened = place.open(Path::new(&entry.name), Purpose::Member)?;
    let mut step = |done| step(&entry.name, done);
    let digest = match entry.algorithm {
        Algorithm::Sha1 => digest::<Sha1>(&*opened.disk, &mut step),
        Algorithm::Sha256 => digest::<Sha256>(&*opened.disk, &mut step),
        Algorithm::Sha512 => digest::<Sha512>(&*opened.disk, &mut step),
    }
    .map_err(|e| e.file(opened.path.display()))?;
    if digest == entry.digest {
        return Ok(());
    }
    Err(DiskError::corrupt("checking the manifest")
        .file(opened.path.display())
        .expected(format!("{:?} {}", entry.algorithm, entry.digest))
        .found(digest))
}

fn digest<D: Digest>(disk: &dyn Disk, step: &mut dyn FnMut(u64)) -> Result<String> {
    let mut hash = D::new();
    let mut buf = vec![0; 1 << 20];
    let mut at = 0u64;
    while at < disk.len() {
        let n = disk.len().saturating_sub(at).min(buf.len() as u64);
        let part = buf
            .get_mut(..usize::try_from(n).unwrap_or(0))
            .unwrap_or_default();
        disk.read_exact_at(part, at)?;
        hash.update(&*part);
        at = at.saturating_add(n);
        step(at);
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk_io::MemDisk;

    #[test]
    fn lines_as_real_writers_write_them() {
        let text = "SHA1(a.ovf)= 685d5d524b01c50881913e1b2ea5bd1400344347\r\n\
                    sha256 (b (1).vmdk) = E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855\n\n";
        let found = parse(&MemDisk::new(text)).unwrap();
        assert_eq!(found[0].algorithm, Algorithm::Sha1);
        assert_eq!(found[1].name, "b (1).vmdk");
        assert!(found[1].digest.starts_with("e3b0"));
        for bad in ["MD5(a)= 00", "SHA1(a)= 12", "SHA1 a = 00", "hello"] {
            assert!(parse(&MemDisk::new(bad)).is_err(), "{bad}");
        }
    }
}
