//! Guest files against known hashes: a directory of the host, what `cp --manifest` wrote, or a
//! list as `sha256sum` writes it.

use super::Item;
use crate::check::Step;
use convert::{NoProgress, backup::digest_of, digest::DigestKind};
use disk_io::{DiskError, ErrorKind, HostDir, Result, error::escape, host_dir::Allowed};
use guest_fs::{Name, NodeKind};
use proxy::{Node, Tree};
use std::{
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Longest list that is read.
const MAX: u64 = 1 << 30;

/// What guest files should be.
#[derive(Clone, Debug)]
pub struct Baseline {
    name: PathBuf,
    files: Vec<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    /// As `cp` takes it.
    path: Vec<u8>,
    is: Is,
}

#[derive(Clone, Debug)]
enum Is {
    /// SHA-256 in lower-case hexadecimal.
    Hash(String),
    /// This file of the host.
    File(PathBuf),
    Directory,
}

impl Baseline {
    /// # Errors
    /// `Corrupt` for what is none of the three.
    pub fn load(path: &Path) -> Result<Self> {
        let fail = |e: &io::Error| DiskError::io("reading the baseline", e).file(path.display());
        let found = fs::metadata(path).map_err(|e| fail(&e))?;
        let mut files = Vec::new();
        if found.is_dir() {
            directory(path, b"", &mut files)?;
        } else {
            if found.len() > MAX {
                return Err(bad(path, &format!("{} bytes", found.len())));
            }
            let text = fs::read(path).map_err(|e| fail(&e))?;
            match text.trim_ascii_start().first() {
                Some(b'{') => manifest(path, &text, &mut files)?,
                _ => list(path, &text, &mut files)?,
            }
        }
        if files.is_empty() {
            return Err(bad(path, "no file"));
        }
        Ok(Self {
            name: path.to_path_buf(),
            files,
        })
    }

    /// Compares every file that it knows with the guests'.
    pub(super) fn compare(&self, tree: &Tree, step: &mut dyn FnMut(Step<'_>)) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        let mut done = 0;
        for known in &self.files {
            let problem = match self.look(tree, known) {
                Ok(bytes) => {
                    done += bytes;
                    None
                }
                Err(e) if e.kind() == ErrorKind::Io => return Err(e),
                Err(e) => Some(e),
            };
            step(Step {
                file: "baseline",
                done,
                of: 0,
            });
            let shown = Name::from_bytes(known.path.clone());
            items.push(Item::new(format!("baseline {shown}"), problem));
        }
        Ok(items)
    }

    /// How many bytes were compared.
    fn look(&self, tree: &Tree, known: &Known) -> Result<u64> {
        let fail = || {
            DiskError::corrupt("comparing with the baseline")
                .code("baseline-differs")
                .file(Name::from_bytes(known.path.clone()).to_string())
        };
        let found = match tree.resolve(&known.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(fail()
                    .expected(format!("the file that {} knows", self.name.display()))
                    .found("none"));
            }
            other => other?,
        };
        let kind = tree.metadata(found.node)?.kind;
        let wanted = match &known.is {
            Is::Directory => NodeKind::Directory,
            _ => NodeKind::File,
        };
        if kind != wanted {
            return Err(fail().expected(word(wanted)).found(word(kind)));
        }
        let expected = match &known.is {
            Is::Directory => return Ok(0),
            Is::Hash(hash) => hash.clone(),
            Is::File(file) => {
                let opened = HostDir::open_source(file, &Allowed::default())?;
                digest_of(&opened.disk, DigestKind::Sha256, 0, &NoProgress)?.hex()
            }
        };
        let (hash, len) = self.hash(tree, found.node, found.stream.as_ref())?;
        match hash == expected {
            true => Ok(len),
            false => Err(fail()
                .expected(format!("SHA-256 {expected}"))
                .found(format!("{hash}, of {len} bytes"))),
        }
    }

    fn hash(&self, tree: &Tree, node: Node, stream: Option<&Name>) -> Result<(String, u64)> {
        let file = tree.open(node, stream)?;
        let digest = digest_of(&file, DigestKind::Sha256, 0, &NoProgress)?;
        Ok((digest.hex(), file.len()))
    }
}

fn word(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "a file",
        NodeKind::Directory => "a directory",
        _ => "a link or special file",
    }
}

/// Of what each disk of a machine has, the best: a file need only be on one of them.
pub(super) fn best(disks: Vec<Vec<Item>>) -> Vec<Item> {
    let mut disks = disks.into_iter();
    let mut best = disks.next().unwrap_or_default();
    for other in disks {
        for (best, other) in best.iter_mut().zip(other) {
            let missing = |item: &Item| {
                let e = item.problem.as_ref();
                e.is_some_and(|e| e.difference().1 == Some("none"))
            };
            if missing(best) {
                *best = other;
            }
        }
    }
    best
}

fn bad(path: &Path, found: &str) -> DiskError {
    DiskError::corrupt("reading the baseline")
        .file(path.display())
        .expected("a directory, what cp --manifest wrote, or lines of sha256sum")
        .found(found)
}

/// Every file below a directory of the host; links and special files are left out.
fn directory(dir: &Path, prefix: &[u8], files: &mut Vec<Known>) -> Result<()> {
    let fail = |e: &io::Error| DiskError::io("listing the baseline", e).file(dir.display());
    for entry in fs::read_dir(dir).map_err(|e| fail(&e))? {
        let entry = entry.map_err(|e| fail(&e))?;
        let kind = entry.file_type().map_err(|e| fail(&e))?;
        let path = [prefix, b"/", entry.file_name().as_bytes()].concat();
        if kind.is_dir() {
            directory(&entry.path(), &path, files)?;
            files.push(Known {
                path,
                is: Is::Directory,
            });
        } else if kind.is_file() {
            files.push(Known {
                path,
                is: Is::File(entry.path()),
            });
        }
    }
    Ok(())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|p| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok())
        .collect()
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// What `cp --manifest` wrote.
fn manifest(path: &Path, text: &[u8], files: &mut Vec<Known>) -> Result<()> {
    let json: serde_json::Value =
        serde_json::from_slice(text).map_err(|e| bad(path, &e.to_string()))?;
    let entries = json.get("entries").and_then(|e| e.as_array());
    for entry in entries.ok_or_else(|| bad(path, "no entries"))? {
        let text = |key: &str| entry.get(key).and_then(|v| v.as_str());
        let place = match text("path_hex") {
            Some(hex) => unhex(hex),
            None => text("path").map(|p| p.as_bytes().to_vec()),
        };
        let Some(place) = place else {
            return Err(bad(path, "an entry without a path"));
        };
        let is = match (text("type"), text("sha256")) {
            (Some("directory"), _) => Is::Directory,
            (Some("file"), Some(hash)) if is_hash(hash) => Is::Hash(hash.to_ascii_lowercase()),
            _ => continue,
        };
        files.push(Known { path: place, is });
    }
    Ok(())
}

/// Lines of `sha256sum`: the hash, a blank, a blank or an asterisk, the name.
fn list(path: &Path, text: &[u8], files: &mut Vec<Known>) -> Result<()> {
    for (n, line) in text.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let wrong = || {
            bad(
                path,
                &format!("line {}: {}", n + 1, escape(&String::from_utf8_lossy(line))),
            )
        };
        // A name with a line break or backslash is written otherwise, and the line says so.
        let (escaped, line) = match line.strip_prefix(b"\\") {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let (hash, rest) = line.split_at_checked(64).ok_or_else(wrong)?;
        let hash = std::str::from_utf8(hash).map_err(|_| wrong())?;
        let name = rest
            .strip_prefix(b"  ")
            .or_else(|| rest.strip_prefix(b" *"))
            .filter(|name| !name.is_empty() && is_hash(hash))
            .ok_or_else(wrong)?;
        let name = match escaped {
            true => unescape(name),
            false => name.to_vec(),
        };
        let name = name.strip_prefix(b"./").unwrap_or(&name);
        let path = match name.first() {
            Some(b'/') => name.to_vec(),
            _ => [b"/", name].concat(),
        };
        files.push(Known {
            path,
            is: Is::Hash(hash.to_ascii_lowercase()),
        });
    }
    Ok(())
}

fn unescape(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(other) => *other,
                None => b'\\',
            },
            other => *other,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_as_sha256sum_writes_them() {
        let hash = "ab".repeat(32);
        let text = format!("{hash}  ./a b\n{hash} */p1/c\r\n# note\n\\{hash}  x\\ny\n");
        let mut files = Vec::new();
        list(Path::new("l"), text.as_bytes(), &mut files).unwrap();
        let paths: Vec<_> = files.iter().map(|f| f.path.as_slice()).collect();
        assert_eq!(paths, [&b"/a b"[..], b"/p1/c", b"/x\ny"]);
        for bad in [
            "zz  a",
            "",
            &hash,
            &format!("{hash}  "),
            &format!("{hash}x a"),
        ] {
            let mut files = Vec::new();
            let read = list(Path::new("l"), bad.as_bytes(), &mut files);
            assert!(read.is_err() || files.is_empty(), "{bad}");
        }
    }
}
