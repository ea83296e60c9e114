//! Where things go, by the rules of `cp`.

use crate::restore::names::host_name;
use disk_io::{DiskError, Result};
use std::{
    collections::HashMap,
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// One thing to restore.
#[derive(Clone, Debug)]
pub struct Item<N> {
    /// Its path in the tree, for messages and patterns: `/p1/Users/a.txt`.
    pub path: Vec<u8>,
    /// What it is.
    pub node: N,
    /// Its place beneath the destination: directories, then its name. Empty if its
    /// contents go straight into the destination.
    pub to: Vec<OsString>,
}

/// DEST, looked at.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The directory that is written beneath.
    pub root: PathBuf,
    /// The name that the only PATH takes, where DEST is not a directory.
    name: Option<OsString>,
    parents: bool,
}

impl Destination {
    /// By the rules of `cp`: a directory that exists receives everything; otherwise DEST
    /// is the new name of the only PATH, and its parent must exist.
    pub fn new(dest: &Path, paths: usize, parents: bool) -> Result<Self> {
        if dest.is_dir() {
            return Ok(Self {
                root: dest.to_path_buf(),
                name: None,
                parents,
            });
        }
        let wrong = |found: &str| {
            DiskError::refused("choosing the destination")
                .file(dest.display())
                .found(found)
        };
        if paths != 1 {
            return Err(wrong("no directory")
                .expected("a directory that exists, to receive several files")
                .hint(format!("mkdir -p {}", dest.display())));
        }
        if parents {
            return Err(wrong("no directory")
                .expected("a directory that exists, for --parents")
                .hint(format!("mkdir -p {}", dest.display())));
        }
        if dest.as_os_str().as_bytes().ends_with(b"/") {
            return Err(wrong("no directory of that name")
                .expected("a directory, because the name ends in '/'")
                .hint(format!("mkdir -p {}", dest.display())));
        }
        let Some(name) = dest.file_name() else {
            return Err(wrong("no name at its end"));
        };
        let root = match dest.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        if !root.is_dir() {
            return Err(wrong("a parent directory that does not exist")
                .expected("a destination whose parent directory exists")
                .hint(format!("mkdir -p {}", root.display())));
        }
        Ok(Self {
            root: root.to_path_buf(),
            name: Some(name.to_owned()),
            parents,
        })
    }

    /// The places for `(path, node, contents)`: with `contents` (the path was given as
    /// `DIR/.`) what is in a directory goes straight into the destination. Two that would take the same name are told
    /// apart by the second vector: what is left out, and why.
    #[allow(clippy::type_complexity)]
    pub fn place<N>(
        &self,
        wanted: impl IntoIterator<Item = (Vec<u8>, N, bool)>,
    ) -> (Vec<Item<N>>, Vec<(Vec<u8>, DiskError)>) {
        let (mut items, mut left) = (Vec::new(), Vec::new());
        let mut taken: HashMap<Vec<OsString>, Vec<u8>> = HashMap::new();
        for (path, node, contents) in wanted {
            let to = match contents && self.name.is_none() && !self.parents {
                true => Vec::new(),
                false => self.to(&path),
            };
            if !to.is_empty()
                && let Some(other) = taken.get(&to)
            {
                let error = DiskError::refused("choosing its place")
                    .expected("one file for a name")
                    .found(format!(
                        "the same place as {}",
                        guest_fs::Name::from_bytes(other.clone())
                    ))
                    .hint("--parents keeps the directories of both");
                left.push((path, error));
                continue;
            }
            taken.insert(to.clone(), path.clone());
            items.push(Item { path, node, to });
        }
        (items, left)
    }

    fn to(&self, path: &[u8]) -> Vec<OsString> {
        let mut parts: Vec<OsString> = path
            .split(|b| *b == b'/')
            .filter(|part| !part.is_empty())
            .map(|part| OsString::from_vec(host_name(part).unwrap_or_else(|| part.to_vec())))
            .collect();
        if let Some(name) = &self.name {
            return vec![name.clone()];
        }
        if !self.parents {
            let last = parts.pop();
            parts = last.into_iter().collect();
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(d: &Destination, paths: &[&str]) -> Vec<String> {
        let (items, _) = d.place(paths.iter().map(|p| (p.as_bytes().to_vec(), (), false)));
        let show = |i: &Item<()>| i.to.iter().collect::<PathBuf>().display().to_string();
        items.iter().map(show).collect()
    }

    #[test]
    fn as_cp_does() {
        let dir = tempfile::tempdir().unwrap();
        let here = Destination::new(dir.path(), 2, false).unwrap();
        assert_eq!(to(&here, &["/p1/a/b.txt", "/p1"]), ["b.txt", "p1"]);
        assert_eq!(to(&here, &["/"]), [""]);
        let (items, _) = here.place([(b"/p1/a".to_vec(), (), true)]);
        assert!(items[0].to.is_empty());
        let parents = Destination::new(dir.path(), 1, true).unwrap();
        assert_eq!(to(&parents, &["/p1/a/b.txt"]), ["p1/a/b.txt"]);
        let new = Destination::new(&dir.path().join("new"), 1, false).unwrap();
        assert_eq!(to(&new, &["/p1/a/b.txt"]), ["new"]);
        assert!(Destination::new(&dir.path().join("new"), 2, false).is_err());
        assert!(Destination::new(&dir.path().join("no/new"), 1, false).is_err());
        assert!(Destination::new(&dir.path().join("new/"), 1, false).is_err());
    }

    #[test]
    fn two_of_one_name() {
        let dir = tempfile::tempdir().unwrap();
        let here = Destination::new(dir.path(), 2, false).unwrap();
        let two = [(b"/p1/x".to_vec(), 1, false), (b"/p2/x".to_vec(), 2, false)];
        let (items, left) = here.place(two);
        assert_eq!((items.len(), left.len()), (1, 1));
        assert!(left[0].1.to_string().contains("/p1/x"));
    }
}
