//! Guest trees whose contents describe themselves: block *i* of a file says which file it
//! is and that it is block *i*, so a misplaced cluster names itself.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, io::Write, path::Path};

/// How a block of a file is filled behind its heading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fill {
    /// Bytes that do not compress.
    Noise,
    /// The heading again and again: compresses well.
    Text,
}

/// Length of a self-describing block in bytes.
pub const BLOCK: usize = 512;

/// The contents of a file: `len` bytes for the name `label`.
pub fn contents(label: &str, len: usize, fill: Fill) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + BLOCK);
    let mut block = 0u64;
    while out.len() < len {
        fill_block(&mut out, label, block, fill);
        block += 1;
    }
    out.truncate(len);
    out
}

fn fill_block(out: &mut Vec<u8>, label: &str, block: u64, fill: Fill) {
    let end = out.len() + BLOCK;
    let heading = format!("[{label} block {block}]\n");
    let heading = &heading.as_bytes()[..heading.len().min(BLOCK)];
    match fill {
        Fill::Text => {
            while out.len() < end {
                let n = heading.len().min(end - out.len());
                out.extend_from_slice(&heading[..n]);
            }
        }
        Fill::Noise => {
            out.extend_from_slice(heading);
            let mut state = block.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(
                label.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| {
                    (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
                }),
            ) | 1;
            while out.len() < end {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let bytes = state.to_le_bytes();
                let n = bytes.len().min(end - out.len());
                out.extend_from_slice(&bytes[..n]);
            }
        }
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// One object of a guest tree, as it must come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A directory.
    Dir,
    /// A file.
    File {
        /// Its length in bytes.
        size: u64,
        /// SHA-256 of its contents.
        sha256: String,
    },
}

/// Everything in a volume, by path from its root with `/` between names.
pub type Truth = BTreeMap<String, Entry>;

/// Writes a tree into a directory and remembers what it wrote.
#[derive(Debug)]
pub struct Writer<'d> {
    dir: &'d Path,
    /// What is there now.
    pub truth: Truth,
}

impl<'d> Writer<'d> {
    /// Writes into `dir`, which exists.
    pub fn new(dir: &'d Path) -> Self {
        Self {
            dir,
            truth: Truth::new(),
        }
    }

    /// A directory.
    pub fn dir(&mut self, path: &str) -> Result<()> {
        fs::create_dir(self.dir.join(path))?;
        self.truth.insert(path.into(), Entry::Dir);
        Ok(())
    }

    /// A file with self-describing contents.
    pub fn file(&mut self, path: &str, len: usize, fill: Fill) -> Result<()> {
        self.bytes(path, &contents(path, len, fill))
    }

    /// A file with the given bytes.
    pub fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        fs::File::create(self.dir.join(path))?.write_all(bytes)?;
        self.note(path, bytes);
        Ok(())
    }

    /// Remembers a file that something else wrote.
    pub fn note(&mut self, path: &str, bytes: &[u8]) {
        let entry = Entry::File {
            size: bytes.len() as u64,
            sha256: sha256(bytes),
        };
        self.truth.insert(path.into(), entry);
    }
}

/// What a directory of the host holds, read with the host's own calls. Links and special
/// files are left out.
pub fn read_dir(dir: &Path) -> Result<Truth> {
    let mut truth = Truth::new();
    read_into(dir, "", &mut truth)?;
    Ok(truth)
}

fn read_into(dir: &Path, prefix: &str, truth: &mut Truth) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name_text(name.as_bytes());
        let path = format!("{prefix}{name}");
        let kind = entry.file_type()?;
        if kind.is_dir() {
            read_into(&entry.path(), &format!("{path}/"), truth)?;
            truth.insert(path, Entry::Dir);
        } else if kind.is_file() {
            let bytes = fs::read(entry.path())?;
            let entry = Entry::File {
                size: bytes.len() as u64,
                sha256: sha256(&bytes),
            };
            truth.insert(path, entry);
        }
    }
    Ok(())
}

/// A name as text: bytes that are not UTF-8 as `\\xNN`.
pub fn name_text(name: &[u8]) -> String {
    let mut out = String::new();
    for chunk in name.utf8_chunks() {
        out += chunk.valid();
        for byte in chunk.invalid() {
            out += &format!("\\x{byte:02x}");
        }
    }
    out
}

/// The differences of two trees, one line each; empty if they are equal.
pub fn differences(expected: &Truth, found: &Truth) -> Vec<String> {
    let mut out = Vec::new();
    for (path, entry) in expected {
        match found.get(path) {
            None => out.push(format!("missing: {path}")),
            Some(other) if other != entry => {
                out.push(format!(
                    "differs: {path}: expected {entry:?}, found {other:?}"
                ));
            }
            Some(_) => {}
        }
    }
    for path in found.keys().filter(|p| !expected.contains_key(*p)) {
        out.push(format!("not expected: {path}"));
    }
    out
}
