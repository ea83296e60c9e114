//! The one trait of every guest file system.
//!
//! A file system is opened on a volume ([`disk_io::Disk`]) and answers by [`NodeId`]. It is
//! `Send + Sync`, keeps no cursor, and gives every file out as a [`disk_io::Disk`] again.
//! One damaged file or directory never makes the rest of the volume unreadable.

use crate::{Name, Timestamp};
use disk_io::{Disk, DiskError, Result};
use std::{fmt, ops::ControlFlow, sync::Arc};

/// Which file system, or other thing found where one could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FsKind {
    /// NTFS.
    Ntfs,
    /// FAT with 12-bit entries.
    Fat12,
    /// FAT with 16-bit entries.
    Fat16,
    /// FAT with 32-bit entries.
    Fat32,
    /// exFAT.
    ExFat,
    /// Linux ext2.
    Ext2,
    /// Linux ext3.
    Ext3,
    /// Linux ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// Windows ReFS.
    Refs,
    /// A BitLocker volume: encrypted.
    BitLocker,
    /// A LUKS volume: encrypted.
    Luks,
    /// A physical volume of LVM2.
    Lvm2,
    /// A member of a Windows dynamic disk group.
    Ldm,
    /// A member of a Windows Storage Spaces pool.
    StorageSpaces,
    /// A member of a Linux software RAID.
    LinuxRaid,
    /// Linux swap space.
    Swap,
    /// A VMFS volume or a member of one.
    Vmfs,
    /// Apple HFS+.
    HfsPlus,
    /// Apple APFS.
    Apfs,
    /// ISO 9660.
    Iso9660,
    /// ZFS.
    Zfs,
    /// UFS.
    Ufs,
    /// F2FS.
    F2fs,
    /// SquashFS.
    SquashFs,
}

impl FsKind {
    /// The usual name in lower case: what `info` prints and JSON carries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ntfs => "ntfs",
            Self::Fat12 => "fat12",
            Self::Fat16 => "fat16",
            Self::Fat32 => "fat32",
            Self::ExFat => "exfat",
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Refs => "refs",
            Self::BitLocker => "bitlocker",
            Self::Luks => "luks",
            Self::Lvm2 => "lvm2",
            Self::Ldm => "ldm",
            Self::StorageSpaces => "storage-spaces",
            Self::LinuxRaid => "linux-raid",
            Self::Swap => "swap",
            Self::Vmfs => "vmfs",
            Self::HfsPlus => "hfsplus",
            Self::Apfs => "apfs",
            Self::Iso9660 => "iso9660",
            Self::Zfs => "zfs",
            Self::Ufs => "ufs",
            Self::F2fs => "f2fs",
            Self::SquashFs => "squashfs",
        }
    }
}

impl fmt::Display for FsKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Set in the record number of a node that stands for a deleted file. Those of others are
/// below 2^47: an MFT's records need less, and a FAT volume of at most 2 TiB has at most 2^36
/// entries of 32 bytes.
pub(crate) const DELETED: u64 = 1 << 47;

/// Set in the number of a directory that is the number of its first cluster, where nodes are
/// entries; neither those nor deleted files have it alone.
pub(crate) const CLUSTER: u64 = 1 << 46;

/// One object of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// Its record: MFT record number, inode number, or for FAT the number of its directory
    /// entry. At most 48 bits.
    pub record: u64,
    /// The record's sequence number, where it has one: a stale reference never opens the
    /// file that has the record now.
    pub sequence: u16,
}

impl NodeId {
    /// A node without sequence number.
    pub fn plain(record: u64) -> Self {
        Self {
            record,
            sequence: 0,
        }
    }
}

/// What kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A file with contents.
    File,
    /// A directory.
    Directory,
    /// A link to another path: symbolic link, junction, mount point.
    Symlink,
    /// A device node, socket or pipe.
    Special,
}

/// Which special file one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpecialKind {
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A socket.
    Socket,
}

/// DOS attribute bits, where the file system has them.
pub mod attributes {
    /// Read-only.
    pub const READONLY: u32 = 0x1;
    /// Hidden.
    pub const HIDDEN: u32 = 0x2;
    /// System.
    pub const SYSTEM: u32 = 0x4;
    /// Archive.
    pub const ARCHIVE: u32 = 0x20;
    /// Sparse.
    pub const SPARSE: u32 = 0x200;
    /// Has a reparse point.
    pub const REPARSE: u32 = 0x400;
    /// Compressed.
    pub const COMPRESSED: u32 = 0x800;
    /// Encrypted.
    pub const ENCRYPTED: u32 = 0x4000;
}

/// What is known of an object without reading its contents.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// Which object.
    pub node: NodeId,
    /// What kind.
    pub kind: NodeKind,
    /// Length of the unnamed stream in bytes; 0 for directories.
    pub size: u64,
    /// Bytes that the contents take on the volume.
    pub allocated: u64,
    /// Number of hard links (8.3 names not counted); at least 1.
    pub links: u32,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When the contents were last written.
    pub modified: Option<Timestamp>,
    /// When it was last read.
    pub accessed: Option<Timestamp>,
    /// When the record was last changed.
    pub changed: Option<Timestamp>,
    /// DOS attributes ([`attributes`]).
    pub attributes: Option<u32>,
    /// Unix permission bits; for [`NodeKind::Special`] with the bits of the file type
    /// (`S_IFMT`), where the guest has them.
    pub mode: Option<u32>,
    /// Unix owner and group.
    pub owner: Option<(u32, u32)>,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// Reparse tag, where there is one.
    pub reparse_tag: Option<u32>,
    /// Why the contents cannot be given out (encrypted, deduplicated, a compression not
    /// read here …). Opening gives this same error.
    pub refusal: Option<DiskError>,
    /// Damage that was met and worked around, one sentence each.
    pub remarks: Vec<String>,
}

impl Metadata {
    /// Which special file it is, where that is known: by the type bits of its mode, or by the
    /// reparse tag that Windows gives one.
    pub fn special(&self) -> Option<SpecialKind> {
        const AF_UNIX: u32 = 0x8000_0023;
        const LX_FIFO: u32 = 0x8000_0024;
        if self.kind != NodeKind::Special {
            return None;
        }
        match (self.mode.unwrap_or(0) & 0o170_000, self.reparse_tag) {
            (0o010_000, _) | (0, Some(LX_FIFO)) => Some(SpecialKind::Fifo),
            (0o020_000, _) => Some(SpecialKind::CharDevice),
            (0o060_000, _) => Some(SpecialKind::BlockDevice),
            (0o140_000, _) | (0, Some(AF_UNIX)) => Some(SpecialKind::Socket),
            _ => None,
        }
    }

    /// An empty object of which nothing else is known, with one name.
    pub fn new(node: NodeId, kind: NodeKind) -> Self {
        Self {
            node,
            kind,
            size: 0,
            allocated: 0,
            links: 1,
            created: None,
            modified: None,
            accessed: None,
            changed: None,
            attributes: None,
            mode: None,
            owner: None,
            device: None,
            reparse_tag: None,
            refusal: None,
            remarks: Vec::new(),
        }
    }
}

/// One name in a directory. `.` and `..` are not listed.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// The name.
    pub name: Name,
    /// What it names.
    pub node: NodeId,
    /// What kind of object, as the directory knows it.
    pub kind: NodeKind,
    /// The 8.3 name beside a long one.
    pub short_name: Option<Name>,
}

/// Called for each entry of a directory, or with the reason why some are lost.
pub type Visit<'a> = &'a mut dyn FnMut(Result<DirEntry>) -> ControlFlow<()>;

/// A named stream of a file (NTFS alternate data stream).
#[derive(Clone, Debug)]
pub struct Stream {
    /// Its name, without colons or `$DATA`.
    pub name: Name,
    /// Its length in bytes.
    pub size: u64,
    /// Bytes it takes on the volume.
    pub allocated: u64,
}

/// Where a link leads.
#[derive(Clone, Debug)]
pub struct Link {
    /// What sort of link: `"symlink"`, `"junction"`, `"mount point"`, `"wsl"`.
    pub sort: &'static str,
    /// The target exactly as stored. Reports show it beside `target` where the two differ.
    pub stored: Name,
    /// The target as a Unix path, the same in every report, in the mount and in what is
    /// restored: backslashes turned, a
    /// drive letter or volume kept as text. Relative links stay relative.
    pub target: Name,
}

/// What is known of a volume.
#[derive(Clone, Debug)]
pub struct VolumeInfo {
    /// Which file system.
    pub kind: FsKind,
    /// Its version as text, such as `3.1`.
    pub version: Option<String>,
    /// Label.
    pub label: Option<Name>,
    /// UUID or serial number as the system's own tools print it.
    pub uuid: Option<String>,
    /// Size of the file system in bytes.
    pub size: u64,
    /// Bytes in use, where it is cheap to tell.
    pub used: Option<u64>,
    /// Cluster or block size in bytes.
    pub cluster_size: u32,
    /// Whether it was not closed cleanly; `None` if the format does not say.
    pub dirty: Option<bool>,
    /// Names and the files that they lead to may be of different moments: it was not closed, and its
    /// journal, if it has one, is not replayed here.
    pub unsettled: bool,
    /// What else a user should know: backup boot sector used, hibernated, …
    pub remarks: Vec<String>,
}

/// How a volume is to be read.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Offset of the guest's zone from UTC in seconds, for time stamps stored in local time
    /// (FAT). `None` leaves them without a zone.
    pub zone_offset: Option<i32>,
    /// Code page of 8.3 names (FAT); 437 if `None`.
    pub oem_code_page: Option<u16>,
    /// Give out what lies in files whose reparse point says that their contents are
    /// elsewhere, and the reparse point as the stream `$REPARSE_POINT`.
    pub raw_reparse: bool,
    /// Give out the cipher text of files that EFS encrypted, in whole 512-byte sectors, and
    /// their keys (encrypted too) as the stream `$EFS`.
    pub efs_raw: bool,
    /// Show deleted files below `$deleted` in the root directory ([`crate::deleted`]).
    pub deleted: bool,
}

/// A guest file system, read-only.
pub trait FileSystem: Send + Sync + fmt::Debug {
    /// What is known of the volume.
    fn info(&self) -> VolumeInfo;

    /// The root directory.
    fn root(&self) -> NodeId;

    /// Finds a name in a directory: exactly first, then, where the file system folds case,
    /// folded. 8.3 names are found too.
    fn lookup(&self, dir: NodeId, name: &Name) -> Result<Option<NodeId>>;

    /// Visits every entry of a directory, in the order of the file system. An unreadable
    /// part is visited as an error and the rest goes on; the call itself fails only if
    /// nothing can be listed at all. File system metafiles are not visited.
    fn read_dir(&self, dir: NodeId, visit: Visit<'_>) -> Result<()>;

    /// A number that a directory has whatever name leads to it, and no other directory of the
    /// volume; at most 48 bits. Nodes that differ may be one directory: two entries of FAT with
    /// the same clusters.
    fn directory(&self, node: NodeId) -> u64 {
        node.record
    }

    /// What is known of an object. Sizes and times come from the object's own record.
    fn metadata(&self, node: NodeId) -> Result<Metadata>;

    /// Why what is given out of an object may not be what it should be, one sentence each: damage
    /// that was worked around, sums that are wrong, copies of a table that differ about it.
    fn doubts(&self, node: NodeId) -> Vec<String> {
        let _ = node;
        Vec::new()
    }

    /// What to say where an object's own record does not have the name that leads to it, in a
    /// file system that keeps names in both places.
    fn misnamed(&self, node: NodeId, dir: NodeId, name: &Name) -> Option<String> {
        let _ = (node, dir, name);
        None
    }

    /// The contents: of the unnamed stream, or of a named one. Holes are runs.
    fn open(&self, node: NodeId, stream: Option<&Name>) -> Result<Arc<dyn Disk>>;

    /// Named streams of an object.
    fn streams(&self, node: NodeId) -> Result<Vec<Stream>> {
        let _ = node;
        Ok(Vec::new())
    }

    /// Where a [`NodeKind::Symlink`] leads.
    fn read_link(&self, node: NodeId) -> Result<Link> {
        Err(DiskError::unsupported("reading a link").found(format!("node {}", node.record)))
    }

    /// Every name of an object as (directory, name), 8.3 names left out; empty where the
    /// file system cannot tell.
    fn names(&self, node: NodeId) -> Result<Vec<(NodeId, Name)>> {
        let _ = node;
        Ok(Vec::new())
    }

    /// Metafiles of the file system ($MFT, …), for `--meta`: entries as of the root.
    fn metafiles(&self) -> Vec<DirEntry> {
        Vec::new()
    }

    /// Where the contents lie: (offset in the file, length, offset on the volume or `None`
    /// for a hole or contents inside the record), all in bytes.
    fn extents(&self, node: NodeId, stream: Option<&Name>) -> Result<Vec<Extent>> {
        let _ = (node, stream);
        Ok(Vec::new())
    }

    /// Where an object's own structures lie beside its record: the blocks of a directory, or of
    /// its index. Offsets count from the first of them.
    fn structure(&self, node: NodeId) -> Result<Vec<Extent>> {
        let _ = node;
        Ok(Vec::new())
    }

    /// Who may do what with an object, where the file system keeps Windows' descriptors.
    fn security(&self, node: NodeId) -> Result<Option<Security>> {
        let _ = node;
        Ok(None)
    }

    /// Extended attributes as (name, value): NTFS' own (EAs), or Unix' with their prefixes.
    fn xattrs(&self, node: NodeId) -> Result<Vec<(Name, Vec<u8>)>> {
        let _ = node;
        Ok(Vec::new())
    }

    /// The object's GUID as stored (16 bytes, mixed-endian), where it was given one.
    fn object_id(&self, node: NodeId) -> Result<Option<[u8; 16]>> {
        let _ = node;
        Ok(None)
    }

    /// The reparse point as stored: tag, length, data.
    fn reparse(&self, node: NodeId) -> Result<Option<Vec<u8>>> {
        let _ = node;
        Ok(None)
    }

    /// Visits the changes that the volume's change journal still holds, oldest first; what
    /// cannot be read is visited as an error. `false`: there is no journal.
    fn changes(&self, visit: &mut dyn FnMut(Result<Change>) -> ControlFlow<()>) -> Result<bool> {
        let _ = visit;
        Ok(false)
    }

    /// Visits every object of the volume in the order of its records, metafiles left out:
    /// the tables are read once, from front to back, which is much faster than walking the
    /// tree. A damaged record is visited as an error. `false`: this file system cannot, and
    /// nothing was visited.
    fn scan(&self, visit: &mut dyn FnMut(Result<Found>) -> ControlFlow<()>) -> Result<bool> {
        let _ = visit;
        Ok(false)
    }

    /// Visits what is wrong with the volume's own structures; ranges are in bytes of the
    /// volume. `false`: this file system cannot be checked, and nothing was looked at.
    fn check(&self, visit: disk_io::finding::Visit<'_>) -> Result<bool> {
        let _ = visit;
        Ok(false)
    }

    /// Visits the ranges of bytes of the volume that the file system marks as free, in order.
    /// `false`: it cannot tell, and nothing was visited.
    ///
    /// # Errors
    /// `Refused` where the map of free space cannot be believed, because the volume was not
    /// closed.
    fn free(&self, visit: crate::free::Visit<'_>) -> Result<bool> {
        let _ = visit;
        Ok(false)
    }

    /// Visits deleted objects whose records are still there. Their nodes are good for
    /// [`Self::metadata`], [`Self::open`], [`Self::streams`] and [`Self::extents`]; reading
    /// what has been given to another file since is an error. `false`: as for
    /// [`Self::scan`].
    fn deleted(&self, visit: &mut dyn FnMut(Result<Found>) -> ControlFlow<()>) -> Result<bool> {
        let _ = visit;
        Ok(false)
    }
}

/// An object found by reading the tables instead of the tree.
#[derive(Clone, Debug)]
pub struct Found {
    /// What [`FileSystem::metadata`] would say.
    pub metadata: Metadata,
    /// Every name as (directory, name), 8.3 names left out.
    pub names: Vec<(NodeId, Name)>,
}

/// One record of a change journal (NTFS' `$UsnJrnl`).
#[derive(Clone, Debug)]
pub struct Change {
    /// Its update sequence number: the place in the journal, in bytes.
    pub usn: u64,
    /// When.
    pub time: Timestamp,
    /// Which file; its record may have another file by now.
    pub node: NodeId,
    /// The directory it was in.
    pub parent: NodeId,
    /// The name it had there.
    pub name: Name,
    /// Why the record was written: Windows' `USN_REASON_*` bits, all since the file was opened.
    pub reasons: u32,
    /// DOS attributes.
    pub attributes: u32,
}

/// A Windows security descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// The self-relative descriptor as stored.
    pub raw: Vec<u8>,
    /// The same as text (SDDL).
    pub sddl: String,
}

/// A piece of a file on its volume, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the file.
    pub offset: u64,
    /// Length.
    pub len: u64,
    /// Offset on the volume; `None` for a hole or for contents kept inside the record.
    pub place: Option<u64>,
}
