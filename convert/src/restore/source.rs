//! What is copied from.

use disk_io::{Disk, Result};
use guest_fs::{Link, Metadata, Name, NodeKind, Security, Stream};
use std::{fmt::Debug, hash::Hash, ops::ControlFlow, sync::Arc};

/// One name in a directory.
#[derive(Clone, Debug)]
pub struct Entry<N> {
    /// The name.
    pub name: Name,
    /// What it names.
    pub node: N,
    /// What kind of object.
    pub kind: NodeKind,
}

/// A tree of files: one volume, a whole disk, a VM, a test's own.
pub trait Source: Sync {
    /// Names an object.
    type Node: Copy + Eq + Hash + Send + Sync + Debug;

    /// What is known of an object.
    fn metadata(&self, node: Self::Node) -> Result<Metadata>;

    /// Visits every entry of a directory; an unreadable part is visited as an error.
    fn read_dir(
        &self,
        node: Self::Node,
        visit: &mut dyn FnMut(Result<Entry<Self::Node>>) -> ControlFlow<()>,
    ) -> Result<()>;

    /// A number that a directory has whatever name leads to it, and no other.
    fn directory(&self, node: Self::Node) -> u64;

    /// Contents of the unnamed stream, or of a named one.
    fn open(&self, node: Self::Node, stream: Option<&Name>) -> Result<Arc<dyn Disk>>;

    /// Named streams.
    fn streams(&self, node: Self::Node) -> Result<Vec<Stream>>;

    /// Extended attributes of a Unix guest, with their prefixes (`user.`, `security.`, …).
    fn xattrs(&self, node: Self::Node) -> Result<Vec<(Name, Vec<u8>)>> {
        let _ = node;
        Ok(Vec::new())
    }

    /// Who may do what with an object, where Windows' descriptors are kept.
    fn security(&self, node: Self::Node) -> Result<Option<Security>> {
        let _ = node;
        Ok(None)
    }

    /// What is doubtful about an object that was opened, one sentence each: damage that was
    /// worked around, or that the directory calls it what its own record does not.
    fn doubts(&self, node: Self::Node, known_as: Option<(Self::Node, &Name)>) -> Vec<String> {
        let _ = (node, known_as);
        Vec::new()
    }

    /// Where a link leads.
    fn read_link(&self, node: Self::Node) -> Result<Link>;
}
