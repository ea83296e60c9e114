//! An archive as a place where names are looked up.

use super::tar::{self, Member};
use disk_io::{Disk, DiskError, FileId, Locate, Opened, Purpose, Result, Slice};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// A tar archive whose members are read where they are. It is the [`Locate`] of the images
/// inside it.
#[derive(Clone, Debug)]
pub struct Archive(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    id: FileId,
    members: Vec<Member>,
}

impl Archive {
    /// Reads the archive's headers. Corrupt if one is damaged, or if two members have the
    /// same name: which of them an image means cannot be told.
    pub fn open(source: &Opened) -> Result<Self> {
        let members = tar::members(&*source.disk).map_err(|e| e.file(source.path.display()))?;
        let mut names: Vec<&str> = members
            .iter()
            .filter(|m| m.not_a_file.is_none())
            .map(|m| m.name.as_str())
            .collect();
        names.sort_unstable();
        let twice = names.iter().zip(names.iter().skip(1)).find(|(a, b)| a == b);
        if let Some((name, _)) = twice {
            return Err(DiskError::corrupt("reading the archive")
                .file(source.path.display())
                .expected("members with different names")
                .found(format!("two that are called {name}")));
        }
        Ok(Self(Arc::new(Inner {
            disk: source.disk.clone(),
            path: source.path.clone(),
            id: source.id,
            members,
        })))
    }

    /// The members, in the order of the archive.
    pub fn members(&self) -> &[Member] {
        &self.0.members
    }

    /// The archive itself.
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

impl Locate for Archive {
    fn open(&self, name: &Path, purpose: Purpose) -> Result<Opened> {
        let doing = || format!("opening the {purpose} in {}", self.describe());
        let wanted = name.to_string_lossy();
        let wanted = wanted.trim_start_matches("./");
        let mut found = self.0.members.iter().filter(|m| m.name == wanted);
        let Some(member) = found.next_back() else {
            return Err(DiskError::not_found(doing())
                .file(name.display())
                .expected("a member of the archive")
                .found(format!("{} members with other names", self.0.members.len())));
        };
        if let Some(what) = member.not_a_file {
            return Err(DiskError::refused(doing())
                .file(name.display())
                .expected("a regular file")
                .found(what));
        }
        let slice = Slice::new(self.0.disk.clone(), member.offset, member.len)?;
        Ok(Opened {
            disk: Arc::new(slice),
            path: self.0.path.join(&member.name),
            // Members of one archive differ by their place in it; the archive's own id keeps
            // those of two archives apart.
            id: FileId {
                container: self.0.id.container.rotate_left(32) ^ self.0.id.file ^ 1 << 63,
                file: member.offset,
            },
            dir: Arc::new(self.clone()),
        })
    }

    fn list(&self, limit: usize) -> Result<Vec<PathBuf>> {
        let files = self.0.members.iter().filter(|m| m.not_a_file.is_none());
        let mut names: Vec<PathBuf> = files.map(|m| PathBuf::from(&m.name)).collect();
        names.sort_unstable();
        names.truncate(limit);
        Ok(names)
    }

    fn describe(&self) -> String {
        self.0.path.display().to_string()
    }
}
