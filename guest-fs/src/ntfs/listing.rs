//! The names in a directory.

use super::{
    facts::MAX_INTERIX,
    index::{FileName, namespace, own_of},
    reparse::tag,
    volume::{FIRST_USER, Ntfs},
};
use crate::{DirEntry, FileSystem, Name, NodeId, NodeKind, Visit, fs::attributes};
use disk_io::Result;
use std::{collections::HashMap, ops::ControlFlow};

/// Whether an entry of the root directory is that of a metafile: `$MFT`, `.` and their like.
pub(super) fn is_metafile(record: u64, name: &FileName) -> bool {
    let begins = |c: u8| name.units.first() == Some(&u16::from(c));
    record < FIRST_USER && (begins(b'$') || begins(b'.'))
}

impl Ntfs {
    /// Lists a directory; `shown` chooses by record number and name.
    pub(super) fn list(
        &self,
        dir: NodeId,
        shown: &dyn Fn(u64, &FileName) -> bool,
        visit: Visit<'_>,
    ) -> Result<()> {
        let volume = &self.volume;
        let directory = match volume.directory(dir) {
            Ok(directory) => directory,
            Err(e) => {
                let own = volume.file(dir).ok().as_ref().and_then(own_of);
                let own = own.ok_or_else(|| e.clone())?;
                if visit(Err(e)).is_continue() {
                    let _ = self.list_by_records(own, None, shown, visit);
                }
                return Ok(());
            }
        };
        // 8.3 names stand elsewhere in the order than the long names they belong to.
        let mut short: HashMap<u64, Name> = HashMap::new();
        directory.walk(volume, &mut |entry| {
            if let Ok(e) = entry
                && let Some(key) = &e.key
                && key.namespace == namespace::DOS
            {
                short.insert(e.target.record, Name::from_utf16(key.units.iter().copied()));
            }
            ControlFlow::Continue(())
        });
        let (mut stopped, mut damaged) = (false, false);
        directory.walk(volume, &mut |entry| {
            let flow = match entry {
                Err(e) => {
                    damaged = true;
                    visit(Err(e))
                }
                Ok(e) => match &e.key {
                    Some(key)
                        if key.namespace != namespace::DOS
                            && shown(e.target.record, key)
                            && e.target.record != dir.record =>
                    {
                        let short_name = if key.namespace == namespace::WIN32 {
                            short.remove(&e.target.record)
                        } else {
                            None
                        };
                        visit(Ok(DirEntry {
                            name: Name::from_utf16(key.units.iter().copied()),
                            node: e.target.into(),
                            kind: self.kind_by_name(e.target.into(), key),
                            short_name,
                        }))
                    }
                    _ => ControlFlow::Continue(()),
                },
            };
            stopped |= flow.is_break();
            flow
        });
        if let Some(own) = directory.own.filter(|_| damaged && !stopped) {
            let flow = self.list_by_records(own, Some(&directory), shown, &mut |entry| {
                if let Ok(entry) = &entry {
                    short.remove(&entry.node.record);
                }
                visit(entry)
            });
            stopped = flow.is_break();
        }
        if stopped || short.is_empty() {
            return Ok(());
        }
        // 8.3 names whose long name is lost: better shown than a file left out.
        directory.walk(volume, &mut |entry| match entry {
            Ok(e) => match &e.key {
                Some(key)
                    if key.namespace == namespace::DOS
                        && shown(e.target.record, key)
                        && short.remove(&e.target.record).is_some() =>
                {
                    visit(Ok(DirEntry {
                        name: Name::from_utf16(key.units.iter().copied()),
                        node: e.target.into(),
                        kind: self.kind_by_name(e.target.into(), key),
                        short_name: None,
                    }))
                }
                _ => ControlFlow::Continue(()),
            },
            Err(_) => ControlFlow::Continue(()),
        });
        Ok(())
    }

    /// The kind as the directory knows it; links of Interix are known by their contents.
    fn kind_by_name(&self, node: NodeId, key: &FileName) -> NodeKind {
        if key.attributes & attributes::REPARSE != 0 {
            match key.tag {
                tag::MOUNT_POINT | tag::SYMLINK | tag::LX_SYMLINK => return NodeKind::Symlink,
                tag::AF_UNIX | tag::LX_FIFO | tag::LX_CHR | tag::LX_BLK => {
                    return NodeKind::Special;
                }
                _ => {}
            }
        }
        if key.attributes & FileName::DIRECTORY != 0 {
            NodeKind::Directory
        } else if key.attributes & attributes::SYSTEM != 0
            && node.record >= FIRST_USER
            && key.size <= MAX_INTERIX
        {
            self.metadata(node).map_or(NodeKind::File, |m| m.kind)
        } else {
            NodeKind::File
        }
    }
}
