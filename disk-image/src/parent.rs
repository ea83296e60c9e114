//! Finding a parent by the names that its child remembers.
//!
//! VHD, VHDX and VDI name their parent by an id, and remember where it was on the machine
//! that made them. The names only say where to look; the id says which it is.

use crate::chain::Chain;
use disk_io::{DiskError, ErrorKind, HostDir, Opened, Purpose, Result, host_dir::Allowed};
use std::path::{Path, PathBuf};

/// What a candidate turned out to be.
pub(crate) enum Found {
    /// The parent.
    Right,
    /// Something else, and how one can tell.
    Other(DiskError),
}

/// Names to try, the likeliest first.
#[derive(Debug, Default)]
pub(crate) struct Candidates(Vec<PathBuf>);

impl Candidates {
    /// Adds a name as Windows spells it: first the relative path, if it is one, then its
    /// last component, since the directories are those of another machine.
    pub(crate) fn add(&mut self, name: &str) {
        let name = name.replace('\\', "/");
        let relative = name.trim_start_matches("./");
        let absolute = relative.starts_with('/') || relative.get(1..2) == Some(":");
        let last = relative.rsplit('/').next().unwrap_or_default();
        let last = last.rsplit(':').next().unwrap_or_default();
        if !absolute {
            self.push(relative);
        }
        self.push(last);
    }

    /// Adds a name of this machine.
    pub(crate) fn exact(&mut self, name: PathBuf) {
        if !self.0.contains(&name) {
            self.0.push(name);
        }
    }

    fn push(&mut self, name: &str) {
        if !matches!(name, "" | "." | "..") {
            self.exact(PathBuf::from(name));
        }
    }

    /// Opens the first candidate that `check` recognises.
    pub(crate) fn open(
        &self,
        child: &Opened,
        chain: &mut Chain<'_>,
        what: &str,
        check: &dyn Fn(&Opened) -> Result<Found>,
    ) -> Result<Opened> {
        let mut problem: Option<DiskError> = None;
        let mut other = None;
        for name in &self.0 {
            let opened = match child.dir.open(name, Purpose::Parent) {
                Ok(opened) => opened,
                Err(e) => {
                    // A refusal tells more than a file that is not there.
                    let better = problem
                        .as_ref()
                        .is_none_or(|p| p.kind() == ErrorKind::NotFound);
                    if better && (problem.is_none() || e.kind() != ErrorKind::NotFound) {
                        problem = Some(e);
                    }
                    continue;
                }
            };
            match check(&opened) {
                Ok(Found::Right) => return Ok(opened),
                Ok(Found::Other(e)) => {
                    other.get_or_insert((opened, e));
                }
                Err(e) => {
                    let e = e.file(opened.path.display()).context("checking the parent");
                    problem.get_or_insert(e);
                }
            }
        }
        if let Some(path) = chain.explicit_parent.take() {
            return explicit(&path, child, chain, check);
        }
        let Some((opened, e)) = other else {
            let none = || {
                DiskError::not_found(format!("opening the parent of a differencing {what}"))
                    .found("no name that could be its parent's")
            };
            return Err(problem
                .unwrap_or_else(none)
                .context(format_args!("{} needs its parent", child.path.display())));
        };
        if !chain.options.vmdk.ignore_cid {
            return Err(e.hint(
                "--ignore-cid opens it anyway, with wrong bytes where it was changed since",
            ));
        }
        chain.warn(
            child,
            format_args!("its parent is not the one it was made from: {e}"),
        );
        Ok(opened)
    }
}

/// The parent that the user gave: of this machine, since the user typed it.
fn explicit(
    path: &Path,
    child: &Opened,
    chain: &mut Chain<'_>,
    check: &dyn Fn(&Opened) -> Result<Found>,
) -> Result<Opened> {
    let opened = HostDir::open_source(path, &Allowed::default())
        .map_err(|e| e.context("opening the parent given by --parent"))?;
    let text = format!("{} is used as its parent, as asked", opened.path.display());
    match check(&opened).map_err(|e| e.file(opened.path.display()))? {
        Found::Right => chain.warn(child, text),
        Found::Other(e) if chain.options.vmdk.ignore_cid => {
            chain.warn(
                child,
                format_args!("{text}, although it is another one: {e}"),
            );
        }
        Found::Other(e) => return Err(e),
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_another_machine() {
        let mut names = Candidates::default();
        names.add(r".\sub\parent.vhd");
        names.add(r"C:\Users\x\parent.vhd");
        names.add(r"\\server\share\other.vhd");
        names.add(r"..\up.vhd");
        names.add("C:plain.vhd");
        names.add("..");
        names.add("");
        let expected = [
            "sub/parent.vhd",
            "parent.vhd",
            "other.vhd",
            "../up.vhd",
            "up.vhd",
            "plain.vhd",
        ];
        assert_eq!(names.0, expected.map(PathBuf::from));
    }
}
