//! The kernel's table of mounts.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// How our mounts begin in the source column: SOURCE's name follows.
pub(crate) const PREFIX: &str = "vmdkit:";

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// `MAJ:MIN` of the device.
    pub(crate) device: String,
    pub(crate) dir: PathBuf,
    pub(crate) kind: String,
    pub(crate) source: OsString,
}

impl Line {
    pub(crate) fn is_ours(&self) -> bool {
        self.is_fuse() && self.source.as_bytes().starts_with(PREFIX.as_bytes())
    }

    pub(crate) fn is_fuse(&self) -> bool {
        self.kind == "fuse" || self.kind.starts_with("fuse.")
    }
}

/// Everything that is mounted in this name space. Empty where `/proc` is not there.
pub(crate) fn read() -> Vec<Line> {
    std::fs::read("/proc/self/mountinfo")
        .map(|text| text.split(|b| *b == b'\n').filter_map(parse).collect())
        .unwrap_or_default()
}

/// What is mounted on `dir` itself, the last of several. `dir` is absolute and free of links.
pub(crate) fn at(dir: &Path) -> Option<Line> {
    read().into_iter().rfind(|line| line.dir == dir)
}

fn parse(line: &[u8]) -> Option<Line> {
    let mut fields = line.split(|b| *b == b' ');
    let device = fields.nth(2)?;
    let dir = fields.nth(1)?;
    // Optional fields end with a dash.
    fields.by_ref().find(|f| *f == b"-")?;
    let (kind, source) = (fields.next()?, fields.next()?);
    Some(Line {
        device: String::from_utf8_lossy(device).into_owned(),
        dir: PathBuf::from(OsString::from_vec(unescape(dir))),
        kind: String::from_utf8_lossy(kind).into_owned(),
        source: OsString::from_vec(unescape(source)),
    })
}

/// The kernel writes blank, tab, newline and backslash as three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, more)) = rest.split_first() {
        match rest {
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                more @ ..,
            ] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = more;
            }
            _ => {
                out.push(first);
                rest = more;
            }
        }
    }
    out
}

/// A source name that survives the option lists of every mount helper.
pub(crate) fn source_name(name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|c| match c {
            ',' | '\\' | '"' => '_',
            c if c.is_control() => '_',
            c => c,
        })
        .collect();
    format!("{PREFIX}{safe}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines() {
        let line = parse(
            b"36 35 0:57 / /mnt/a\\040b rw,noatime master:1 x:2 - fuse vmdkit:/x\\134y rw,user_id=0",
        )
        .unwrap();
        assert_eq!(line.device, "0:57");
        assert_eq!(line.dir, Path::new("/mnt/a b"));
        assert_eq!(line.source, "vmdkit:/x\\y");
        assert!(line.is_ours());
        assert!(parse(b"").is_none());
        assert!(parse(b"1 2 3 4 5 6").is_none());
        assert!(read().iter().any(|l| l.dir == Path::new("/")));
        assert_eq!(source_name("a,b\\c\nd"), "vmdkit:a_b_c_d");
    }
}
