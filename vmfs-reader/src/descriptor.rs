//! File descriptors (fact sheet, VMFS 5 and 8).

use crate::{
    address::FdAddress,
    blocks::{BlockList, Mapping},
    lock::Lock,
    scsi::ScsiIdentity,
    superblock::{Geometry, Layout},
};
use disk_io::{DiskError, Fields, Result};
use std::sync::Arc;

/// The lock block of a descriptor begins with this.
pub(crate) const MAGIC: u32 = 0x10C0_0001;
const SIGNATURE: u32 = 0x6664_6D64;

/// What kind of object a descriptor describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A symbolic link.
    Symlink,
    /// Metadata of the file system itself.
    System,
    /// A raw device map: names another device, and has no contents here.
    Rdm,
}

impl FileKind {
    /// From the number that descriptors and directories store.
    pub(crate) fn parse(kind: u32) -> Option<Self> {
        Some(match kind {
            2 => Self::Directory,
            3 => Self::File,
            4 => Self::Symlink,
            5 => Self::System,
            6 => Self::Rdm,
            _ => return None,
        })
    }
}

/// What is known of a file without reading its contents.
#[derive(Clone, Debug)]
pub struct Stat {
    /// Its descriptor.
    pub address: FdAddress,
    /// Counts the uses of the descriptor.
    pub generation: u32,
    /// What it is.
    pub kind: FileKind,
    /// Length in bytes; of a raw device map the length of the device.
    pub size: u64,
    /// Bytes that it takes on the volume.
    pub allocated: u64,
    /// Bytes that are allocated and not yet zeroed: they read as zeros.
    pub to_be_zeroed: u64,
    /// Bytes in blocks that are marked to be copied when written to: shared with another
    /// file. They are read like others.
    pub shared: u64,
    /// Names that it has.
    pub links: u32,
    /// When the contents were changed last, in seconds since 1970.
    pub modified: u32,
    /// When the descriptor was changed last.
    pub changed: u32,
    /// When the contents were read last.
    pub accessed: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permissions, with the type bits of `st_mode`.
    pub mode: u32,
    /// Flags, whose meaning is not known.
    pub flags: u32,
    /// Block size of the file in bytes.
    pub block_size: u64,
    /// How the contents are addressed, as stored: 1 blocks, 2 sub-blocks, 3 and 5 pointer
    /// blocks, 0x10D0 two levels of them, 0x10D1 inside the descriptor.
    pub addressing: u32,
    /// Pointer blocks that it uses, where the format counts them.
    pub pointer_blocks: u32,
    /// Where the descriptor lies on the volume, in bytes.
    pub place: u64,
}

/// A descriptor.
#[derive(Clone, Debug)]
pub(crate) struct Descriptor {
    pub(crate) stat: Stat,
    pub(crate) blocks: BlockList,
    pub(crate) lock: Lock,
    pub(crate) rdm: Option<ScsiIdentity>,
}

impl Descriptor {
    /// Takes a descriptor apart that was read from `place` and should be that of `address`.
    pub(crate) fn read(bytes: &[u8], place: u64, address: FdAddress, g: &Geometry) -> Result<Self> {
        let f = Fields::new(bytes, place, "file descriptor");
        let lock = Lock::read(&f, MAGIC)?;
        let at = g.align;
        let meta = f.sub(at, g.descriptor.saturating_sub(at), "file descriptor")?;
        let own = meta.u32_le(0)?;
        if own != address.0 {
            return Err(meta
                .corrupt(0, "its own address")
                .expected(address.to_string())
                .found(format!("{own:#x}")));
        }
        if g.layout == Layout::Six && meta.u32_le(0x64)? != SIGNATURE {
            return Err(meta
                .corrupt(0x64, "the signature")
                .expected(format!("{SIGNATURE:#x}"))
                .found(format!("{:#x}", meta.u32_le(0x64)?)));
        }
        let stored_mode = meta.u32_le(0x40)?;
        let number = meta.u32_le(0xC)?;
        let kind = match FileKind::parse(number) {
            // `.sdd.sf` is a system file whose mode says that it is a directory.
            Some(FileKind::System) if stored_mode & 0o170_000 == 0o040_000 => FileKind::Directory,
            Some(kind) => kind,
            None => {
                return Err(meta
                    .corrupt(0xC, "the type")
                    .expected("a type from 2 to 6")
                    .found(number.to_string()));
            }
        };
        let format = match kind {
            FileKind::Directory => 0o040_000,
            FileKind::Symlink => 0o120_000,
            _ => 0o100_000,
        };
        let block_size = meta.u64_le(0x1C)?;
        if kind != FileKind::Rdm
            && !(block_size.is_power_of_two() && (512..=1 << 30).contains(&block_size))
        {
            return Err(meta
                .corrupt(0x1C, "the block size")
                .expected("a power of two from 512 to 1 GiB")
                .found(block_size.to_string()));
        }
        let addressing = meta.u32_le(0x44)?;
        // The counters' high halves and the number of pointer blocks are zero on VMFS-3.
        let zeroing = u64::from(meta.u32_le(0x48)?) | u64::from(meta.u32_le(0x54)?) << 32;
        let stat = Stat {
            address,
            generation: meta.u32_le(4)?,
            kind,
            size: meta.u64_le(0x14)?,
            allocated: meta.u64_le(0x24)?.saturating_mul(block_size),
            to_be_zeroed: zeroing.saturating_mul(block_size),
            shared: (u64::from(meta.u32_le(0x4C)?) | u64::from(meta.u32_le(0x58)?) << 32)
                .saturating_mul(block_size),
            links: meta.u32_le(8)?,
            modified: meta.u32_le(0x2C)?,
            changed: meta.u32_le(0x30)?,
            accessed: meta.u32_le(0x34)?,
            uid: meta.u32_le(0x38)?,
            gid: meta.u32_le(0x3C)?,
            mode: if stored_mode & 0o170_000 == 0 {
                stored_mode | format
            } else {
                stored_mode
            },
            flags: meta.u32_le(0x10)?,
            block_size,
            addressing,
            pointer_blocks: meta.u32_le(0x5C)?,
            place,
        };
        let mut rdm = None;
        let mapping = match addressing {
            _ if kind == FileKind::Rdm => {
                rdm = Some(ScsiIdentity::read(&f, g.resident_at)?);
                Mapping::None
            }
            1 | 2 => Mapping::Blocks { depth: 0 },
            3 | 5 => Mapping::Blocks { depth: 1 },
            0x10D0 => Mapping::Blocks { depth: 2 },
            0x10D1 => {
                let room = g.resident_len as u64;
                if stat.size > room {
                    return Err(meta
                        .corrupt(0x14, "the length")
                        .expected(format!("at most {room} bytes inside the descriptor"))
                        .found(stat.size.to_string()));
                }
                Mapping::Resident(f.bytes(g.resident_at, stat.size as usize)?.into())
            }
            other => {
                return Err(DiskError::unsupported("reading the addressing of a file")
                    .offset(meta.place(0x44))
                    .expected("1, 2, 3, 5, 0x10d0 or 0x10d1")
                    .found(format!("{other:#x}")));
            }
        };
        let pointers: Arc<[u64]> = match mapping {
            Mapping::Blocks { .. } => {
                let bytes = f.bytes(g.pointers_at, g.pointers.saturating_mul(g.pointer))?;
                crate::blocks::pointers(bytes, g).into()
            }
            _ => Arc::new([]),
        };
        let is_file = kind == FileKind::File && matches!(mapping, Mapping::Blocks { .. });
        Ok(Self {
            blocks: BlockList {
                address,
                len: stat.size,
                block_size,
                mapping,
                pointers,
                // Only VMFS-6 has large blocks; the same bytes mean nothing before.
                large: g.layout == Layout::Six && meta.u32_le(0x8C)? > 0,
                full: is_file
                    && stat.size > 0
                    && stat
                        .size
                        .checked_next_multiple_of(block_size.max(1))
                        .is_some_and(|len| stat.allocated >= len),
                zeroing: !is_file || stat.to_be_zeroed > 0,
            },
            stat,
            lock,
            rdm,
        })
    }
}
