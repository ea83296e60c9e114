//! Extended attributes: inside the inode, in a block of their own, or in an inode of their
//! own.

use super::{layout::InodeNumber, superblock::Superblock};
use disk_io::{DiskError, Fields, Result};

const MAGIC: u32 = 0xea02_0000;

/// One attribute, its value not yet fetched.
#[derive(Clone, Debug)]
pub(super) struct Attribute {
    /// Full name with its prefix: `user.comment`.
    pub(super) name: Vec<u8>,
    pub(super) value: Value,
}

/// Where the value is.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Here(Vec<u8>),
    /// In the contents of another inode (feature ea_inode), this many bytes.
    Inode(InodeNumber, u32),
}

fn prefix(index: u8) -> Option<&'static str> {
    Some(match index {
        0 => "",
        1 => "user.",
        2 => "system.posix_acl_access",
        3 => "system.posix_acl_default",
        4 => "trusted.",
        6 => "security.",
        7 => "system.",
        8 => "system.richacl",
        _ => return None,
    })
}

/// Attributes in the space after an inode's own fields. `extra` is that space.
pub(super) fn in_inode(extra: &[u8], place: u64) -> Result<Vec<Attribute>> {
    if extra.len() < 4 {
        return Ok(Vec::new());
    }
    let f = Fields::new(extra, place, "extended attributes of an inode");
    if f.u32_le(0)? != MAGIC {
        return Ok(Vec::new());
    }
    // Values are counted from behind the magic.
    let area = f.sub(
        4,
        extra.len().saturating_sub(4),
        "extended attributes of an inode",
    )?;
    list(&area, 0)
}

/// Attributes in a block of their own.
pub(super) fn in_block(sb: &Superblock, block: &[u8], place: u64) -> Result<Vec<Attribute>> {
    let f = Fields::new(block, place, "extended attribute block");
    if f.u32_le(0)? != MAGIC {
        return Err(f
            .corrupt(0, "the magic")
            .expected(format!("{MAGIC:#010x}"))
            .found(format!("{:#010x}", f.u32_le(0)?)));
    }
    debug_assert_eq!(block.len(), sb.block_size as usize);
    list(&f, 32)
}

/// Entries from `at` on; values are counted from the beginning of `area`.
fn list(area: &Fields<'_>, mut at: usize) -> Result<Vec<Attribute>> {
    let mut out = Vec::new();
    while at.saturating_add(4) <= area.len() && area.u32_le(at)? != 0 {
        let name_len = usize::from(area.u8(at)?);
        let index = area.u8(at.saturating_add(1))?;
        let offset = usize::from(area.u16_le(at.saturating_add(2))?);
        let inode = area.u32_le(at.saturating_add(4))?;
        let size = area.u32_le(at.saturating_add(8))?;
        let name = area.bytes(at.saturating_add(16), name_len)?;
        let value = if inode != 0 {
            Value::Inode(InodeNumber(inode), size)
        } else {
            Value::Here(area.bytes(offset, size as usize)?.to_vec())
        };
        let Some(prefix) = prefix(index) else {
            return Err(DiskError::unsupported("reading extended attributes")
                .offset(area.place(at))
                .found(format!("the name index {index}")));
        };
        let mut full = prefix.as_bytes().to_vec();
        full.extend_from_slice(name);
        out.push(Attribute { name: full, value });
        at = at
            .saturating_add(16)
            .saturating_add(name_len)
            .next_multiple_of(4);
    }
    Ok(out)
}

/// An access control list as getxattr(2) gives it, from the shorter form on the disk;
/// `None` if it is none.
pub(super) fn acl(stored: &[u8]) -> Option<Vec<u8>> {
    /// Only entries of users and groups by number have a number on the disk.
    const NAMED: [u16; 2] = [0x02, 0x08];
    let f = Fields::new(stored, 0, "access control list");
    if f.u32_le(0).ok()? != 1 {
        return None;
    }
    let mut out = 2u32.to_le_bytes().to_vec();
    let mut at = 4usize;
    while at < stored.len() {
        let tag = f.u16_le(at).ok()?;
        let permissions = f.u16_le(at.saturating_add(2)).ok()?;
        at = at.saturating_add(4);
        let mut id = u32::MAX;
        if NAMED.contains(&tag) {
            id = f.u32_le(at).ok()?;
            at = at.saturating_add(4);
        }
        out.extend(tag.to_le_bytes());
        out.extend(permissions.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::acl;

    #[test]
    fn lists_are_as_the_kernel_gives_them() {
        let mut stored = vec![1, 0, 0, 0, 1, 0, 6, 0];
        stored.extend([2, 0, 4, 0, 0xe8, 3, 0, 0]);
        let mut given = vec![2, 0, 0, 0, 1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff];
        given.extend([2, 0, 4, 0, 0xe8, 3, 0, 0]);
        assert_eq!(acl(&stored), Some(given));
        stored.truncate(14);
        assert_eq!(acl(&stored), None);
        assert_eq!(acl(&[2, 0, 0, 0]), None);
    }
}
