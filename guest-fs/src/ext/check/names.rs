//! Directories: sums of their blocks, entries that lead nowhere, files that no entry leads to.

use super::{
    super::{
        directory, doubts,
        inode::Inode,
        layout::{InodeFlags, ROOT},
        sums::InodeSums,
    },
    Check, wrong,
};
use crate::NodeId;
use disk_io::{Disk, DiskError, Fields, Finding, Result, RunKind};
use std::{collections::HashMap, ops::ControlFlow};

/// Entries that lead nowhere and are kept to be told.
const MAX_STRAY: usize = 1 << 16;

/// What inodes and directories say of each other.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Inodes in use: how many links each counts, and whether it is a directory.
    inodes: HashMap<u32, (u16, bool)>,
    /// How many entries lead to an inode, and the directory of the last.
    entries: HashMap<u32, (u32, u32)>,
    /// Which directory each directory says that it is in.
    parents: HashMap<u32, u32>,
    /// Entries of directories that could not be read whole may be missing.
    partly: bool,
}

impl Names {
    /// An inode in use.
    pub(super) fn inode(&mut self, number: u32, links: u16, directory: bool) {
        self.inodes.insert(number, (links, directory));
    }
}

impl Check<'_> {
    /// The entries of a directory, and the sums of its blocks.
    pub(super) fn directory(&mut self, inode: &Inode, sums: Option<InodeSums>) -> Result<()> {
        let number = inode.number.0;
        let damaged = |e| Finding::damage("ext-directory-damaged", e).about(number.into());
        if !self.may_read(inode) {
            self.names.partly = true;
            let e = DiskError::corrupt(format!("reading directory inode {number}"))
                .expected("directories that all fit in the volume")
                .found("more of them: they share blocks");
            self.tell(damaged(e));
            return Ok(());
        }
        let checked = match sums {
            Some(sums) => self.directory_sums(inode, sums),
            None => Ok(()),
        };
        if let Err(e) = checked {
            self.tell_or_fail(e, damaged)?;
        }
        match self.parent_of(inode) {
            Ok(Some(parent)) => _ = self.names.parents.insert(number, parent),
            Ok(None) => {}
            Err(e) => self.tell_or_fail(e, damaged)?,
        }
        let mut errors: Vec<DiskError> = Vec::new();
        let entries = &mut self.names.entries;
        let mut take = |entry: Result<directory::Entry>| {
            match entry {
                Ok(entry) => {
                    let known = entries.entry(entry.inode.0).or_insert((0, number));
                    *known = (known.0.saturating_add(1), number);
                }
                Err(e) => errors.push(e),
            }
            ControlFlow::Continue(())
        };
        let listed = self
            .fs
            .visit_entries(NodeId::plain(number.into()), &mut take);
        errors.extend(listed.err());
        for e in errors {
            self.names.partly = true;
            self.tell_or_fail(e, damaged)?;
        }
        Ok(())
    }

    /// Which directory the entry `..` leads to; `None` where there is no such entry, or none that
    /// can be read, which is told by those who list the directory.
    fn parent_of(&self, inode: &Inode) -> Result<Option<u32>> {
        if inode.has(InodeFlags::INLINE_DATA) {
            return Ok(inode.block.first_chunk().map(|b| u32::from_le_bytes(*b)));
        }
        let Ok(contents) = self.fs.contents(inode) else {
            return Ok(None);
        };
        if contents.len() < 24 || contents.run_at(0)?.kind != RunKind::Data {
            return Ok(None);
        }
        let mut bytes = [0; 24];
        contents.read_exact_at(&mut bytes, 0)?;
        let f = Fields::new(&bytes, 0, "directory block");
        // "." takes twelve bytes.
        let dotdot = f.u16_le(4)? == 12 && f.u8(18)? == 2 && f.bytes(20, 2)? == b"..";
        Ok(match dotdot {
            true => Some(f.u32_le(12)?),
            false => None,
        })
    }

    /// The sums of a directory's blocks.
    fn directory_sums(&mut self, inode: &Inode, sums: InodeSums) -> Result<()> {
        let number = inode.number.0;
        let indexed = inode.has(InodeFlags::INDEX);
        let fs = self.fs;
        doubts::each_block(fs, inode, &mut |at, block| {
            if let Some(bad) = sums.directory_block(block, indexed) {
                let what = format!("a block of directory inode {number}");
                let finding = Finding::damage("ext-directory-sum-wrong", wrong(what, at, bad));
                self.tell(finding.about(number.into()));
            }
        })
    }

    /// Whether what is stored of a directory can be read in what is left for them all.
    fn may_read(&mut self, inode: &Inode) -> bool {
        if inode.has(InodeFlags::INLINE_DATA) {
            return true;
        }
        // What cannot be told is told by the listing.
        let places = self.fs.places(inode).unwrap_or_default();
        let stored = places.iter().filter(|p| p.place.is_some());
        let stored = stored.fold(0u64, |sum, p| sum.saturating_add(p.len));
        let left = self.directories_left.checked_sub(stored);
        self.directories_left = left.unwrap_or(self.directories_left);
        left.is_some()
    }

    /// Holds entries against inodes.
    pub(super) fn finish_names(&mut self) {
        let names = std::mem::take(&mut self.names);
        let mut stray: Vec<(u32, u32)> = names
            .entries
            .iter()
            .filter(|(inode, _)| !names.inodes.contains_key(inode))
            .map(|(inode, (_, directory))| (*directory, *inode))
            .take(MAX_STRAY)
            .collect();
        stray.sort_unstable();
        for (directory, inode) in stray {
            let e = DiskError::corrupt(format!("reading directory inode {directory}"))
                .expected("entries that lead to files")
                .found(format!("one to inode {inode}, which no file has"));
            let finding = Finding::damage("ext-entry-stray", e);
            self.tell(finding.about(directory.into()).about(inode.into()));
        }
        let mut elsewhere: Vec<(u32, u32, u32)> = names
            .parents
            .iter()
            .filter_map(|(directory, says)| {
                let is = match names.entries.get(directory) {
                    _ if *directory == ROOT.0 => ROOT.0,
                    Some((1, parent)) => *parent,
                    // Several names, or none: those are told.
                    _ => return None,
                };
                (is != *says).then_some((*directory, is, *says))
            })
            .collect();
        elsewhere.sort_unstable();
        for (directory, is, says) in elsewhere {
            let e = DiskError::corrupt(format!("reading `..` of directory inode {directory}"))
                .expected(format!("inode {is}, which has it"))
                .found(says.to_string());
            let finding = Finding::warning("ext-parent-wrong", e);
            self.tell(finding.about(directory.into()));
        }
        let mut odd: Vec<(u32, u16, u32)> = names
            .inodes
            .iter()
            .filter(|(inode, _)| **inode != ROOT.0)
            .map(|(inode, known)| {
                let count = names.entries.get(inode).map_or(0, |e| e.0);
                (*inode, *known, count)
            })
            // Each directory in a directory counts as a link of it too.
            .filter(|(_, (links, directory), count)| match directory {
                true => *count != 1,
                false => u32::from(*links) != *count,
            })
            .map(|(inode, (links, _), count)| (inode, links, count))
            .collect();
        odd.sort_unstable();
        for (inode, links, count) in odd {
            let e = DiskError::corrupt("holding directories against inodes");
            let finding = match count {
                0 => Finding::warning(
                    "ext-name-lost",
                    e.expected(format!("a name of inode {inode}"))
                        .found(if names.partly {
                            "none in what can be read"
                        } else {
                            "none"
                        }),
                ),
                _ => Finding::warning(
                    "ext-links-wrong",
                    e.expected(format!("{links} names of inode {inode}"))
                        .found(count.to_string()),
                ),
            };
            self.tell(finding.about(inode.into()));
        }
    }
}
