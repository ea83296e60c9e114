//! What `ls` shows of a tree, read ahead of what is printed.

use crate::verb::ls::join;
use disk_io::{DiskError, Result};
use guest_fs::{Link, Metadata, Name, NodeKind, Stream};
use proxy::{Entry, Node, Tree};
use std::{
    collections::HashSet,
    ops::ControlFlow,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

/// Objects that are handed over at once, and hand-overs that may wait.
const BATCH: usize = 128;
const BATCHES: usize = 16;

/// An object and what is to be shown of it.
pub(super) struct Found {
    pub(super) path: Vec<u8>,
    pub(super) node: Node,
    pub(super) kind: NodeKind,
    pub(super) short: Option<Name>,
    pub(super) metadata: Option<Result<Metadata>>,
    pub(super) link: Option<Result<Link>>,
    pub(super) streams: Option<Result<Vec<Stream>>>,
}

pub(super) enum Item {
    Found(Box<Found>),
    /// What could not be listed there.
    Lost(Vec<u8>, DiskError),
}

/// Reads what is to be shown.
#[derive(Clone, Copy)]
pub(super) struct Gather<'a> {
    pub(super) tree: &'a Tree,
    pub(super) metadata: bool,
    pub(super) links: bool,
    pub(super) streams: bool,
}

impl Gather<'_> {
    /// The entries of a directory by name, and what could not be listed.
    pub(super) fn entries(&self, node: Node) -> Result<(Vec<Entry>, Vec<DiskError>)> {
        let (mut entries, mut errors) = (Vec::new(), Vec::new());
        self.tree.read_dir(node, &mut |entry| {
            match entry {
                Ok(entry) => entries.push(entry),
                Err(e) => errors.push(e),
            }
            ControlFlow::Continue(())
        })?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((entries, errors))
    }

    pub(super) fn found(&self, path: Vec<u8>, entry: &Entry) -> Found {
        self.object(path, entry.node, entry.kind, entry.short_name.clone())
    }

    pub(super) fn object(
        &self,
        path: Vec<u8>,
        node: Node,
        kind: NodeKind,
        short: Option<Name>,
    ) -> Found {
        let tree = self.tree;
        let is_link = self.links && kind == NodeKind::Symlink;
        Found {
            metadata: self.metadata.then(|| tree.metadata(node)),
            link: is_link.then(|| tree.read_link(node)),
            streams: self.streams.then(|| tree.streams(node)),
            path,
            node,
            kind,
            short,
        }
    }
}

/// Walks a tree and hands over what it finds.
pub(super) struct Walker<'a> {
    gather: Gather<'a>,
    sender: SyncSender<Vec<Item>>,
    batch: Vec<Item>,
}

/// Nobody takes what is found any more.
struct Stopped;

impl<'a> Walker<'a> {
    /// A walker, and where what it finds comes out.
    pub(super) fn new(gather: Gather<'a>) -> (Self, Receiver<Vec<Item>>) {
        let (sender, receiver) = sync_channel(BATCHES);
        let walker = Self {
            gather,
            sender,
            batch: Vec::with_capacity(BATCH),
        };
        (walker, receiver)
    }

    /// Everything below a directory.
    pub(super) fn run(mut self, path: &[u8], node: Node) {
        let walked = self.below(path, node, &mut HashSet::new());
        if walked.is_ok() {
            let _ = self.sender.send(std::mem::take(&mut self.batch));
        }
    }

    fn give(&mut self, item: Item) -> std::result::Result<(), Stopped> {
        self.batch.push(item);
        if self.batch.len() < BATCH {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        self.sender.send(full).map_err(|_| Stopped)
    }

    fn below(
        &mut self,
        path: &[u8],
        node: Node,
        above: &mut HashSet<Node>,
    ) -> std::result::Result<(), Stopped> {
        if above.len() > 512 || !above.insert(node) {
            let e = DiskError::corrupt("listing the directory")
                .found("a directory that contains itself, or more than 512 levels");
            return self.give(Item::Lost(path.to_vec(), e));
        }
        match self.gather.entries(node) {
            Ok((entries, errors)) => {
                for e in errors {
                    self.give(Item::Lost(path.to_vec(), e))?;
                }
                for entry in entries {
                    let path = join(path, entry.name.as_bytes());
                    let below = (entry.kind == NodeKind::Directory).then(|| path.clone());
                    let found = self.gather.found(path, &entry);
                    self.give(Item::Found(Box::new(found)))?;
                    if let Some(path) = below {
                        self.below(&path, entry.node, above)?;
                    }
                }
            }
            Err(e) => self.give(Item::Lost(path.to_vec(), e))?,
        }
        above.remove(&node);
        Ok(())
    }
}
