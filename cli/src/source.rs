//! SOURCE, opened as a verb needs it.

use crate::{
    args::{Global, GuestArgs, SourceArgs},
    exit::Failure,
    output, since,
    times::Zone,
};
use disk_io::{Disk, Result};
use guest_fs::{Link, Metadata, Name, Stream};
use proxy::{Node, Source, SourceSpec, Tree, TreeOptions, Warn};
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A path of the host as it is from anywhere: a mount opens disks when they are entered, and serves
/// from another directory.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// What `proxy` wants to know.
fn spec(args: &SourceArgs, global: &Global) -> Result<SourceSpec> {
    let how = &args.how;
    Ok(SourceSpec {
        path: args.source.clone(),
        format: how.format.as_deref().map(str::parse).transpose()?,
        allow_dirs: how.allow_dir.iter().map(|p| absolute(p)).collect(),
        allow_devices: how.allow_device.iter().map(|p| absolute(p)).collect(),
        ignore_cid: how.ignore_cid,
        ignore_dirty_journal: how.ignore_dirty_journal,
        // It may also be a name inside a datastore.
        parent: how.parent.as_ref().map(|p| match p.exists() {
            true => absolute(p),
            false => p.clone(),
        }),
        snapshot: how.snapshot.clone(),
        disk: how.disk.clone(),
        datastores: how.datastore.clone(),
        with: how.with.clone(),
        allow_missing: how.allow_missing,
        guest: guest_fs::OpenOptions {
            zone_offset: global.tz.as_ref().and_then(Zone::fixed),
            oem_code_page: how.code_page,
            ..guest_fs::OpenOptions::default()
        },
        ..SourceSpec::default()
    })
}

/// The same for verbs that open SOURCE in their own way.
pub(crate) fn spec_of(args: &SourceArgs, global: &Global) -> Result<SourceSpec, Failure> {
    if args.source.as_os_str() == "-" {
        let e = disk_io::DiskError::unsupported("opening SOURCE")
            .expected("a file or block device, which can be read at any place")
            .found("-, which is standard input")
            .hint("save it to a file first; a file of that name is ./-");
        return Err(e.into());
    }
    let mut spec = spec(args, global).map_err(|e| Failure::usage(e.to_string()))?;
    since::allow(&mut spec)?;
    Ok(spec)
}

/// Opens SOURCE without telling its warnings.
pub(crate) fn open_quietly(args: &SourceArgs, global: &Global) -> Result<Arc<Source>, Failure> {
    let spec = spec_of(args, global)?;
    Ok(Arc::new(Source::open(&spec)?))
}

/// Opens SOURCE and says what the user should know before anything else.
pub(crate) fn open(args: &SourceArgs, global: &Global) -> Result<Arc<Source>, Failure> {
    let source = open_quietly(args, global)?;
    for warning in source.warnings() {
        output::warn(warning);
    }
    Ok(source)
}

/// Every file that SOURCE consists of.
pub(crate) fn files(source: &Source) -> Vec<PathBuf> {
    let members = source.members().iter().map(|m| (m.path(), m.image()));
    let mut files = source.devices().to_vec();
    // In a datastore the names of the chain are not the host's.
    let own = files.is_empty().then_some((source.path(), source.image()));
    for (path, image) in own.into_iter().chain(members) {
        files.push(path.to_path_buf());
        files.extend(image.links.iter().map(|l| l.path.clone()));
        for link in image.vmdk.iter().flat_map(|v| v.links()) {
            files.push(link.path.clone());
            files.extend(link.extents.iter().filter_map(|e| e.file.clone()));
        }
    }
    files
}

/// Names of the files of a disk's own link, in its directory.
pub(crate) fn names_of(source: &Source) -> Vec<String> {
    let image = source.image();
    let first = image.vmdk.as_ref().and_then(|v| v.links().first());
    let extents = first.iter().flat_map(|l| &l.extents);
    let extents = extents.filter_map(|e| e.file.as_ref());
    let names = std::iter::once(source.path()).chain(extents.map(PathBuf::as_path));
    let names = names.filter_map(|p| p.file_name()?.to_str().map(str::to_owned));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}

/// The tree of SOURCE, its warnings told.
pub(crate) fn open_tree(
    args: &SourceArgs,
    global: &Global,
    guest: GuestArgs,
) -> Result<Arc<Tree>, Failure> {
    open_tree_with(args, global, guest, false)
}

/// The same; `guests` shows the machines that SOURCE holds.
pub(crate) fn open_tree_with(
    args: &SourceArgs,
    global: &Global,
    guest: GuestArgs,
    guests: bool,
) -> Result<Arc<Tree>, Failure> {
    let mut spec = spec_of(args, global)?;
    spec.guest.raw_reparse = guest.raw_reparse;
    spec.guest.efs_raw = guest.efs_raw;
    spec.guest.deleted = guest.meta;
    if guest.raw_reparse {
        output::warn(
            "--raw-reparse: files whose contents are elsewhere are given as they lie here, which may be zeros",
        );
    }
    if guest.efs_raw {
        output::warn("--efs-raw: encrypted files are given as cipher text");
    }
    let options = TreeOptions {
        meta: guest.meta,
        guests,
        warn: Some(Warn(Arc::new(|text: &str| output::warn(text)))),
    };
    let tree = Tree::of(&spec, options)?;
    for warning in tree.warnings() {
        output::warn(warning);
    }
    Ok(Arc::new(tree))
}

/// The tree as something to restore from, times settled by `--tz`.
pub(crate) struct Restorable<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) zone: Zone,
    pub(crate) zone_given: bool,
}

impl convert::restore::Source for Restorable<'_> {
    type Node = Node;

    fn metadata(&self, node: Node) -> Result<Metadata> {
        let mut metadata = self.tree.metadata(node)?;
        self.zone.settle_all(&mut metadata, self.zone_given);
        Ok(metadata)
    }

    fn read_dir(
        &self,
        node: Node,
        visit: &mut dyn FnMut(Result<convert::restore::Entry<Node>>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.tree.read_dir(node, &mut |entry| {
            visit(entry.map(|e| convert::restore::Entry {
                name: e.name,
                node: e.node,
                kind: e.kind,
            }))
        })
    }

    fn directory(&self, node: Node) -> u64 {
        self.tree.directory(node)
    }

    fn open(&self, node: Node, stream: Option<&Name>) -> Result<Arc<dyn Disk>> {
        self.tree.open(node, stream)
    }

    fn streams(&self, node: Node) -> Result<Vec<Stream>> {
        self.tree.streams(node)
    }

    fn xattrs(&self, node: Node) -> Result<Vec<(Name, Vec<u8>)>> {
        let Some((fs, id)) = self.tree.guest(node)? else {
            return Ok(Vec::new());
        };
        // Windows' have no prefix, and Linux has no place for them.
        let prefixes = [&b"user."[..], b"trusted.", b"security.", b"system."];
        let mut all = fs.xattrs(id)?;
        all.retain(|(name, _)| prefixes.iter().any(|p| name.as_bytes().starts_with(p)));
        Ok(all)
    }

    fn security(&self, node: Node) -> Result<Option<guest_fs::Security>> {
        match self.tree.guest(node)? {
            Some((fs, id)) => fs.security(id),
            None => Ok(None),
        }
    }

    fn doubts(&self, node: Node, known_as: Option<(Node, &Name)>) -> Vec<String> {
        let mut doubts = self.tree.doubts(node);
        doubts.extend(known_as.and_then(|(dir, name)| self.tree.misnamed(node, dir, name)));
        doubts
    }

    fn read_link(&self, node: Node) -> Result<Link> {
        // What is mounted there is not entered: it is somewhere else in the tree.
        if let Some(remark) = self.tree.mount_point_remark(node) {
            crate::output::warn(format!("{remark}; not taken along"));
        }
        self.tree.read_link(node)
    }
}
