//! What can be asked of a node: names, metadata, contents.

use super::{Entry, Node, Place, Space, Tree, own_id, own_node};
use crate::{names, own::Own};
use disk_io::{Disk, DiskError, ErrorKind, Result};
use guest_fs::{DirEntry, Link, Metadata, Name, NodeKind, Stream};
use std::{ops::ControlFlow, sync::Arc};

impl Tree {
    /// Finds a name in a directory: exactly first, then, where the guest's file system
    /// folds case, folded. Metafiles are found too. `Ok(None)` if there is no such name.
    pub fn lookup(&self, dir: Node, name: &Name) -> Result<Option<Node>> {
        match self.place(dir)? {
            Place::Own(id) => Ok(self.own_child(id, name).map(own_node)),
            Place::File(_) => Ok(None),
            Place::Guest(number, fs, id) => {
                if matches!(name.as_bytes(), b"" | b"." | b"..") {
                    return Ok(None);
                }
                let mut found = fs.lookup(id, name)?;
                if found.is_none()
                    && let Some(stored) = names::stored(name)
                {
                    found = fs.lookup(id, &stored)?;
                }
                if found.is_none() && id == fs.root() {
                    found = fs
                        .metafiles()
                        .into_iter()
                        .find(|m| m.name == *name)
                        .map(|m| m.node);
                }
                found.map(|id| self.node(number, fs, id)).transpose()
            }
        }
    }

    /// Visits every entry of a directory. An unreadable part is visited as an error and
    /// the rest goes on; the call itself fails only if nothing can be listed at all.
    pub fn read_dir(
        &self,
        dir: Node,
        visit: &mut dyn FnMut(Result<Entry>) -> ControlFlow<()>,
    ) -> Result<()> {
        match self.place(dir)? {
            Place::Own(id) => {
                for (child, name) in self.own.children(id) {
                    let kind = match self.own.get(child) {
                        Some(Own::File(_)) => NodeKind::File,
                        _ => NodeKind::Directory,
                    };
                    let entry = Entry {
                        name: name.clone(),
                        node: own_node(child),
                        kind,
                        short_name: None,
                    };
                    if visit(Ok(entry)).is_break() {
                        break;
                    }
                }
                Ok(())
            }
            Place::File(_) => Err(not_a_directory()),
            Place::Guest(number, fs, id) => {
                let mut pass = |entry: Result<DirEntry>| {
                    visit(entry.and_then(|e| {
                        Ok(Entry {
                            node: self.node(number, fs, e.node)?,
                            name: names::shown(e.name),
                            kind: e.kind,
                            short_name: e.short_name,
                        })
                    }))
                };
                if self.options.meta && id == fs.root() {
                    for meta in fs.metafiles() {
                        if pass(Ok(meta)).is_break() {
                            return Ok(());
                        }
                    }
                }
                fs.read_dir(id, &mut pass)
            }
        }
    }

    /// What is known of a node. A volume that cannot be entered still is a directory, with
    /// the reason as its refusal.
    pub fn metadata(&self, node: Node) -> Result<Metadata> {
        // A disk is not opened to say that it is a directory.
        if let Some(Own::Disk(lazy)) = own_id(node).and_then(|id| self.own.get(id)) {
            let mut metadata = own_metadata(node, NodeKind::Directory, 0, 0);
            metadata.refusal = lazy.opened.get().and_then(|done| done.clone().err());
            return Ok(metadata);
        }
        match self.place(node) {
            Ok(Place::Own(_)) => Ok(own_metadata(node, NodeKind::Directory, 0, 0)),
            Ok(Place::File(file)) => {
                let (size, allocated) = (file.disk.len(), file.allocated());
                Ok(own_metadata(node, NodeKind::File, size, allocated))
            }
            Ok(Place::Guest(_, fs, id)) => fs.metadata(id),
            Err(e)
                if node.volume == 0 && own_id(node).is_some_and(|i| self.own.get(i).is_some()) =>
            {
                let mut metadata = own_metadata(node, NodeKind::Directory, 0, 0);
                metadata.refusal = Some(e);
                Ok(metadata)
            }
            Err(e) => Err(e),
        }
    }

    /// The contents: of the unnamed stream, or of a named one.
    pub fn open(&self, node: Node, stream: Option<&Name>) -> Result<Arc<dyn Disk>> {
        match (self.place(node)?, stream) {
            (Place::File(file), None) => Ok(file.disk.clone()),
            (Place::Guest(_, fs, id), stream) => fs.open(id, stream),
            (Place::Own(_), None) => Err(DiskError::unsupported("reading").found("a directory")),
            (_, Some(stream)) => Err(DiskError::not_found(format!(
                "opening the stream '{stream}'"
            ))),
        }
    }

    /// Where a link leads.
    pub fn read_link(&self, node: Node) -> Result<Link> {
        match self.place(node)? {
            Place::Guest(_, fs, id) => {
                let mut link = fs.read_link(id)?;
                if link.sort == "mount point"
                    && let Some(there) = self.mount_points.target(&self.path_of(node), &link.target)
                {
                    link.target = there;
                }
                Ok(link)
            }
            _ => Err(DiskError::unsupported("reading a link").found("no link")),
        }
    }

    /// Named streams of a node.
    pub fn streams(&self, node: Node) -> Result<Vec<Stream>> {
        match self.place(node)? {
            Place::Guest(_, fs, id) => fs.streams(id),
            _ => Ok(Vec::new()),
        }
    }

    /// Every name of a node as (directory, name); empty where the file system cannot tell.
    pub fn names(&self, node: Node) -> Result<Vec<(Node, Name)>> {
        match self.place(node)? {
            Place::Guest(number, fs, id) if node.volume != 0 => fs
                .names(id)?
                .into_iter()
                .map(|(dir, name)| Ok((self.node(number, fs, dir)?, names::shown(name))))
                .collect(),
            _ => Ok(Vec::new()),
        }
    }

    /// A directory that holds the node; the root's is the root. `None` where the file
    /// system cannot tell.
    pub fn parent(&self, node: Node) -> Option<Node> {
        match own_id(node) {
            Some(id) => Some(own_node(self.own.parent(id))),
            None => Some(self.names(node).ok()?.first()?.0),
        }
    }

    /// Checks that a directory can be listed: its volume can be read.
    pub fn enter(&self, dir: Node) -> Result<()> {
        self.place(dir).map(|_| ())
    }

    /// Size and use of the volume that a node lies in; above the volumes, of the disk.
    pub fn space(&self, node: Node) -> Space {
        let of_disk = |len| Space {
            size: len,
            used: None,
            block: 4096,
        };
        match (self.place(node), self.volume_of(node)) {
            (Ok(Place::Guest(_, fs, _)), _) => {
                let info = fs.info();
                Space {
                    size: info.size,
                    used: info.used,
                    block: info.cluster_size,
                }
            }
            (_, Some(volume)) => of_disk(volume.disk().len()),
            _ => of_disk(self.source.as_ref().map_or(0, |s| s.disk().len())),
        }
    }

    /// A path that leads to the node, for messages. Where the file system cannot tell
    /// names, the record is named instead.
    pub fn path_of(&self, node: Node) -> Name {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut at = node;
        // A damaged volume may have a loop of parents.
        while at.volume != 0 && parts.len() < 512 {
            match self.names(at).ok().and_then(|n| n.into_iter().next()) {
                Some((dir, name)) => {
                    parts.push(name.as_bytes().to_vec());
                    at = dir;
                }
                None => {
                    parts.push(format!("(record {})", at.id.record).into_bytes());
                    at = self
                        .volume(at.volume)
                        .map_or_else(|| self.root(), |(_, door)| own_node(*door));
                }
            }
        }
        let mut path = own_id(at)
            .map_or_else(|| Name::from("/"), |id| self.own.path(id))
            .as_bytes()
            .to_vec();
        for part in parts.iter().rev() {
            if path.last() != Some(&b'/') {
                path.push(b'/');
            }
            path.extend_from_slice(part);
        }
        Name::from_bytes(path)
    }
}

fn own_metadata(node: Node, kind: NodeKind, size: u64, allocated: u64) -> Metadata {
    Metadata {
        size,
        allocated,
        ..Metadata::new(node.id, kind)
    }
}

fn not_a_directory() -> DiskError {
    DiskError::new(ErrorKind::NotFound, "listing").found("no directory")
}
