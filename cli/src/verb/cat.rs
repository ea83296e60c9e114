//! `cat`: bytes to standard output.

use crate::{
    args::{Global, GuestArgs, SourceArgs},
    exit::{Exit, Failure, STDOUT},
    guard,
    names::check_path,
    source::open_tree,
    verb::entry::special_type,
};
use clap::Args;
use convert::{CopyOptions, DigestKind, NoProgress, Sparse, Stream, pipeline};
use disk_io::{Disk, DiskError, Slice};
use guest_fs::{Name, NodeKind};
use proxy::resolve::{Resolved, link_words};
use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt,
    sync::Arc,
};

/// Write the contents of guest files to standard output
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit cat web01.vmdk /p1/Windows/System32/drivers/etc/hosts
  vmdkit cat web01.vmdk '/p1/report.docx:Zone.Identifier'        an NTFS stream
  vmdkit cat web01.vmdk /p1/dump.bin --offset 4096 --len 512 | xxd")]
pub(crate) struct Cat {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    guest: GuestArgs,
    /// Paths in the tree, as ls prints them
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<OsString>,
    /// This named stream instead of the contents
    #[arg(long, value_name = "NAME")]
    stream: Option<OsString>,
    /// Begin at this byte
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    offset: u64,
    /// At most so many bytes
    #[arg(long, value_name = "BYTES")]
    len: Option<u64>,
}

/// Where the guest does not say which of them.
const SPECIAL: &str = "a device node, socket or pipe";

impl Cat {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        for path in &self.paths {
            check_path(path)?;
        }
        let tree = open_tree(&self.source, global, self.guest)?;
        guard::check_stdout_tree(&tree)?;
        let several = self.paths.len() > 1;
        let (mut missing, mut told) = (false, HashSet::new());
        for path in &self.paths {
            let copied = match self.open(&tree, path) {
                Ok((disk, found)) => copy(&disk).map(|()| found),
                Err(e) => Err(e),
            };
            match copied {
                Ok(mut found) => {
                    // What several PATHs lead through is told once.
                    found.doubts.retain(|d| told.insert(d.clone()));
                    missing |= crate::exit::tell_doubts(&found);
                    for why in tree.doubts(found.node) {
                        crate::exit::tell_doubt(found.path.as_bytes(), &why);
                        missing = true;
                    }
                }
                // What standard output refuses once it refuses again.
                Err(e) if !several || e.file_name() == Some(STDOUT) => return Err(e.into()),
                Err(e) => {
                    crate::exit::tell_path_error(path.as_bytes(), &e);
                    missing = true;
                }
            }
        }
        Ok(Exit::partial_if(missing))
    }

    fn open(&self, tree: &proxy::Tree, path: &OsStr) -> disk_io::Result<(Arc<dyn Disk>, Resolved)> {
        let found = tree.resolve(path.as_bytes())?;
        let stream = match &self.stream {
            Some(name) => Some(Name::from(name.as_os_str())),
            None => found.stream.clone(),
        };
        if stream.is_none() {
            let metadata = tree.metadata(found.node)?;
            if metadata.kind == NodeKind::Directory {
                let refusal = metadata.refusal.or_else(|| tree.without_files(found.node));
                return Err(refusal.unwrap_or_else(|| {
                    DiskError::refused("reading")
                        .file(&found.path)
                        .expected("a file")
                        .found("a directory")
                        .hint("ls lists it, cp -r restores it")
                }));
            }
            if metadata.kind == NodeKind::Symlink {
                let link = tree.read_link(found.node)?;
                return Err(DiskError::refused("reading")
                    .file(&found.path)
                    .expected("a file")
                    .found(format!("{} to {}", link_words(link.sort), link.target))
                    .hint("give the path that it leads to"));
            }
            if metadata.kind == NodeKind::Special {
                let what = special_type(&metadata).map_or(SPECIAL, |(_, _, what)| what);
                return Err(DiskError::refused("reading")
                    .file(&found.path)
                    .expected("a file")
                    .found(what));
            }
        }
        let disk = tree
            .open(found.node, stream.as_ref())
            .map_err(|e| match e.file_name() {
                None => e.file(&found.path),
                Some(_) => e.context(&found.path),
            })?;
        if self.offset == 0 && self.len.is_none() {
            return Ok((disk, found));
        }
        let rest = disk.len().checked_sub(self.offset).ok_or_else(|| {
            DiskError::out_of_range(self.offset, 0, disk.len())
                .file(&found.path)
                .hint("--offset must lie inside the file")
        })?;
        let len = self.len.unwrap_or(rest).min(rest);
        Ok((Arc::new(Slice::new(disk, self.offset, len)?), found))
    }
}

fn copy(disk: &Arc<dyn Disk>) -> disk_io::Result<()> {
    let options = CopyOptions {
        workers: if disk.len() > 8 << 20 { 0 } else { 1 },
        digest: DigestKind::None,
        sparse: Sparse::Auto,
    };
    let target = Stream::new(io::stdout(), STDOUT);
    pipeline::copy(disk, &target, options, &NoProgress).map(|_| ())
}
