//! Extended attributes of a mount: streams, and what Windows and Unix keep beside a file.
//!
//! | name | value |
//! |---|---|
//! | `user.NAME` | the named stream NAME of NTFS |
//! | `system.ntfs_acl` | the security descriptor as stored (as ntfs-3g has it) |
//! | `system.ntfs_attrib` | DOS attributes, 4 bytes, least byte first |
//! | `system.ntfs_times` | created, modified, accessed, changed: four FILETIMEs |
//! | `system.ntfs_crtime` | the first of them |
//! | `system.ntfs_reparse_data` | the reparse point as stored |
//! | `system.ntfs_object_id` | the object's GUID as stored |
//! | `user.vmdkit.sddl` | the security descriptor as text |
//! | others with a prefix | those of a Unix guest, as they are |
//!
//! Only streams and those of Unix guests are listed: what copies all that is listed could
//! not write the others.

use crate::tree::{Node, Tree};
use disk_io::{Disk, Result};
use guest_fs::{Metadata, Name, Timestamp};

/// Longest value that Linux takes.
pub(super) const LONGEST: u64 = 64 << 10;
/// Longest name that Linux takes.
const LONGEST_NAME: usize = 255;
/// Prefixes of Unix' own.
const UNIX: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system."];
const SDDL: &[u8] = b"user.vmdkit.sddl";

/// A value, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    None,
    TooLong,
    Is(Vec<u8>),
}

impl From<Option<Vec<u8>>> for Value {
    fn from(value: Option<Vec<u8>>) -> Self {
        value.map_or(Self::None, Self::Is)
    }
}

/// The names that are listed.
pub(super) fn list(tree: &Tree, node: Node) -> Result<Vec<Vec<u8>>> {
    let Some((fs, id)) = tree.guest(node)? else {
        return Ok(Vec::new());
    };
    let mut names: Vec<Vec<u8>> = unix(fs.xattrs(id)?)
        .map(|(name, _)| name.as_bytes().to_vec())
        .collect();
    for stream in fs.streams(id)? {
        names.push([b"user.", stream.name.as_bytes()].concat());
    }
    // An empty name, one with a zero byte, or one that is longer than names may be cannot be asked
    // for: `tar` would take the answer for a buffer that is too short, and ask for ever.
    names.retain(|n| (b"user.".len() + 1..=LONGEST_NAME).contains(&n.len()) && !n.contains(&0));
    Ok(names)
}

/// The value of one.
pub(super) fn get(tree: &Tree, node: Node, name: &[u8]) -> Result<Value> {
    let Some((fs, id)) = tree.guest(node)? else {
        return Ok(Value::None);
    };
    if let Some(ntfs) = name.strip_prefix(b"system.ntfs_") {
        let filetimes = |all: fn(&Metadata) -> Vec<Option<Timestamp>>| -> Result<Value> {
            let metadata = fs.metadata(id)?;
            // Only where Windows keeps attributes are these asked for.
            Ok(metadata
                .attributes
                .and_then(|_| all(&metadata).into_iter().map(filetime).collect())
                .map(|all: Vec<[u8; 8]>| all.concat())
                .into())
        };
        return match ntfs {
            b"acl" => Ok(fs.security(id)?.map(|s| s.raw).into()),
            b"attrib" => Ok(fs
                .metadata(id)?
                .attributes
                .map(|a| a.to_le_bytes().to_vec())
                .into()),
            b"times" => filetimes(|m| vec![m.created, m.modified, m.accessed, m.changed]),
            b"crtime" => filetimes(|m| vec![m.created]),
            b"reparse_data" => Ok(fs.reparse(id)?.into()),
            b"object_id" => Ok(fs.object_id(id)?.map(|id| id.to_vec()).into()),
            _ => Ok(Value::None),
        };
    }
    let found = unix(fs.xattrs(id)?).find(|(n, _)| n.as_bytes() == name);
    if let Some((_, value)) = found {
        return Ok(Value::Is(value));
    }
    if let Some(stream) = name.strip_prefix(b"user.") {
        let stream = Name::from_bytes(stream);
        // Names of attributes are exact.
        if fs.streams(id)?.iter().any(|s| s.name == stream) {
            let disk = fs.open(id, Some(&stream))?;
            if disk.len() > LONGEST {
                return Ok(Value::TooLong);
            }
            let mut value = vec![0; usize::try_from(disk.len()).unwrap_or(0)];
            disk.read_exact_at(&mut value, 0)?;
            return Ok(Value::Is(value));
        }
    }
    match name {
        SDDL => Ok(fs.security(id)?.map(|s| s.sddl.into_bytes()).into()),
        _ => Ok(Value::None),
    }
}

/// Those of a Unix guest; Windows' have no prefix.
fn unix(all: Vec<(Name, Vec<u8>)>) -> impl Iterator<Item = (Name, Vec<u8>)> {
    all.into_iter()
        .filter(|(name, _)| UNIX.iter().any(|p| name.as_bytes().starts_with(p)))
}

/// A moment as Windows counts it; `None` where it is not known.
fn filetime(time: Option<Timestamp>) -> Option<[u8; 8]> {
    time?.to_filetime().map(u64::to_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filetimes() {
        for ticks in [0u64, 1, 116_444_736_000_000_001, 0x01da_0000_0000_0000] {
            let time = Timestamp::from_filetime(ticks);
            assert_eq!(filetime(Some(time)), Some(ticks.to_le_bytes()));
        }
        assert_eq!(filetime(None), None);
        assert_eq!(filetime(Some(Timestamp::from_unix(i64::MAX, 0))), None);
    }
}
