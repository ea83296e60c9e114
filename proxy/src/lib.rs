//! The restore tree over disks, and its read-only FUSE mount.
//!
//! A [`Source`] is what the user named: an image with its chain, partition table and
//! volumes. A [`Tree`] puts volumes under paths (`/p1/Users/a.txt`) and answers by
//! [`Node`]; every verb and the mount show the same one. [`mount()`] is a thin adaptor
//! over it.
//!
//! | module | holds |
//! |---|---|
//! | [`source`] | SOURCE: opening it, what is on it, what the user should be told |
//! | [`datastore`] | VMFS volumes, packages and directories in which SOURCE is looked up |
//! | [`machine`] | SOURCE as a virtual machine: its restore points, their disks |
//! | [`volume`] | one volume, its file system opened on first use |
//! | [`sets`] | volumes over several disks |
//! | [`own`] | the tree's own directories, above the volumes |
//! | [`tree`] | the tree: names, metadata, contents by node |
//! | [`find`] | everything below a directory, by one scan where possible |
//! | [`resolve`] | paths as users type them |
//! | `absent` | whether a path that leads nowhere is absent, or was only not found |
//! | `doubts` | why what is given out may not be what it should be |
//! | `letters` | drive letters, from a guest's registry |
//! | `points` | restore points: their volumes, letters and mount points in paths |
//! | [`path`] | the text of paths: components, drive form |
//! | [`inode`] | nodes as inode numbers and back |
//! | [`names`] | guest names that no host directory can hold |
//! | [`mod@mount`] | the FUSE adaptor, mounting and unmounting |

mod absent;
pub mod datastore;
mod doubts;
pub mod find;
pub mod guest_state;
pub mod inode;
mod letters;
pub mod machine;
pub mod mount;
pub mod names;
pub mod own;
mod package;
pub mod path;
mod points;
pub mod resolve;
pub mod sets;
pub mod source;
pub mod tree;
mod vmfs_place;
pub mod volume;

pub use datastore::DatastoreSpec;
pub use doubts::DOUBTFUL;
pub use find::Below;
pub use guest_state::GuestState;
pub use machine::{Machine, Machines};
pub use mount::{
    Audit, Clock, Detach, Ended, Layout, MountOptions, Mounted, Opening, Sandbox, Zone, mount,
    umount::{Cleaned, cleanup, is_mounted, umount, umount_dead, umount_served},
};
pub use resolve::Resolved;
pub use sets::{Logical, Member};
pub use source::{Located, Source, SourceSpec};
pub use tree::{Entry, Node, Tree, TreeOptions, Warn};
pub use volume::{Volume, VolumeReport};

pub use disk_image::Format;
pub use guest_fs::{
    partition::{Partition, Scheme, Table},
    volume::Recognised,
};

#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;
