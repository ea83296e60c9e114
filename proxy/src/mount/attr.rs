//! Guest metadata as `stat` shows it.

use crate::tree::{Node, Tree};
use fuser::{FileAttr, FileType, INodeNo};
use guest_fs::{Metadata, NodeKind, Timestamp};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Who owns files, and which permission bits they lose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ownership {
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) umask: u32,
    /// Whoever mounts: where neither the user nor the guest names an owner.
    pub(crate) mounter: (u32, u32),
}

const FORMAT: u32 = 0o170_000;

pub(crate) fn file_type(kind: NodeKind, mode: Option<u32>) -> FileType {
    match kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Directory => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::Special => match mode.unwrap_or(0) & FORMAT {
            0o010_000 => FileType::NamedPipe,
            0o020_000 => FileType::CharDevice,
            0o060_000 => FileType::BlockDevice,
            // Opening a socket fails at once, opening a pipe would wait for ever.
            _ => FileType::Socket,
        },
    }
}

pub(crate) fn attr(tree: &Tree, node: Node, m: &Metadata, who: &Ownership) -> FileAttr {
    let kind = match (file_type(m.kind, m.mode), m.device) {
        // `cp -a` would make a device of it, and another than it is.
        (FileType::CharDevice | FileType::BlockDevice, None) => FileType::Socket,
        (kind, _) => kind,
    };
    let is_directory = kind == FileType::Directory;
    let mode = match (kind, m.mode) {
        (FileType::Symlink, _) => 0o777,
        (_, Some(mode)) => mode & 0o7777 & !who.umask,
        (FileType::Directory, None) => 0o555 & !who.umask,
        (_, None) => 0o444 & !who.umask,
    };
    let owner = m.owner.unwrap_or(who.mounter);
    let written = m.modified.or(m.changed).or(m.created);
    // `tar -S` takes a file without blocks for one hole, and a small file kept inside its
    // record has none.
    let blocks = match (m.size, m.allocated.div_ceil(512)) {
        (0, blocks) => blocks,
        (_, blocks) => blocks.max(1),
    };
    FileAttr {
        ino: INodeNo(tree.inode(node)),
        size: if is_directory { 0 } else { m.size },
        blocks,
        atime: moment(m.accessed.or(written)),
        mtime: moment(written),
        ctime: moment(m.changed.or(written)),
        crtime: moment(m.created),
        kind,
        perm: u16::try_from(mode & 0o7777).unwrap_or(0),
        // 1 tells `find` that the number says nothing of subdirectories.
        nlink: if is_directory { 1 } else { m.links.max(1) },
        uid: who.uid.unwrap_or(owner.0),
        gid: who.gid.unwrap_or(owner.1),
        rdev: m.device.map_or(0, device_number),
        blksize: 128 << 10,
        flags: 0,
    }
}

/// A device's number as FUSE has it: 12 bits of major, 20 of minor.
fn device_number((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}

/// A time stamp without a zone is shown as if it were UTC.
fn moment(time: Option<Timestamp>) -> SystemTime {
    let Some(time) = time else {
        return UNIX_EPOCH;
    };
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    whole
        .and_then(|t| t.checked_add(nanos))
        .unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let at = |seconds, nanos| {
            moment(Some(Timestamp {
                seconds,
                nanos,
                zoned: true,
            }))
        };
        assert_eq!(at(1, 100), UNIX_EPOCH + Duration::new(1, 100));
        assert_eq!(at(-2, 500), UNIX_EPOCH - Duration::new(1, 999_999_500));
        assert_eq!(moment(None), UNIX_EPOCH);
        // 1601, and the largest FILETIME.
        assert!(moment(Some(Timestamp::from_filetime(0))) < UNIX_EPOCH);
        assert!(moment(Some(Timestamp::from_filetime(u64::MAX))) > UNIX_EPOCH);
        at(i64::MIN, 0);
        at(i64::MAX, 999_999_999);
    }

    #[test]
    fn numbers_of_devices() {
        assert_eq!(device_number((8, 3)), 0x803);
        assert_eq!(device_number((300, 70_000)), 0x1111_2c70);
    }

    #[test]
    fn what_special_files_become() {
        assert_eq!(
            file_type(NodeKind::Special, Some(0o010_644)),
            FileType::NamedPipe
        );
        assert_eq!(file_type(NodeKind::Special, None), FileType::Socket);
        assert_eq!(file_type(NodeKind::File, None), FileType::RegularFile);
    }
}
