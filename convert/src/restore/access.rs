//! What Windows keeps beside a file, on a host that can hold it.

use crate::restore::{Acl, Options};
use disk_io::{DiskError, Result};
use guest_fs::{Metadata, Name, Security, Timestamp};
use rustix::{
    fd::BorrowedFd,
    fs::{XattrFlags, fsetxattr},
    io::Errno,
};
use std::ffi::OsStr;

/// Keeps what the host's own metadata cannot: with `preserve` the time of creation and the
/// attributes, as `user.vmdkit.created` and `user.vmdkit.attributes`, where the host's file
/// system takes them; with [`Acl::Xattr`] the security descriptor and the attributes as
/// ntfs-3g takes them.
pub(crate) fn keep(
    file: BorrowedFd<'_>,
    metadata: &Metadata,
    security: Option<&Security>,
    options: &Options,
) -> Result<()> {
    if options.preserve && options.acl != Acl::Xattr {
        // They are for those who look for them; where they cannot be, the manifest has them.
        if let Some(time) = metadata.created.and_then(text) {
            let _ = set(file, "user.vmdkit.created", time.as_bytes());
        }
        if let Some(bits) = metadata.attributes {
            let _ = set(
                file,
                "user.vmdkit.attributes",
                format!("{bits:#x}").as_bytes(),
            );
        }
    }
    if options.acl != Acl::Xattr {
        return Ok(());
    }
    if let Some(security) = security {
        ntfs(file, "system.ntfs_acl", &security.raw)?;
    }
    if let Some(bits) = metadata.attributes {
        // What can be set: read-only, hidden, system, archive, not indexed, …
        ntfs(file, "system.ntfs_attrib", &(bits & 0x31a7).to_le_bytes())?;
    }
    Ok(())
}

/// All three times that ntfs-3g takes, the creation's among them: after everything else,
/// since each attribute that is set changes them.
pub(crate) fn keep_times(
    file: BorrowedFd<'_>,
    metadata: &Metadata,
    options: &Options,
) -> Result<()> {
    let times = [metadata.created, metadata.modified, metadata.accessed];
    let ticks: Option<Vec<[u8; 8]>> = times
        .iter()
        .map(|t| t.and_then(|t| t.to_filetime()).map(u64::to_le_bytes))
        .collect();
    match ticks {
        Some(ticks) if options.acl == Acl::Xattr => {
            ntfs(file, "system.ntfs_times", &ticks.concat())
        }
        _ => Ok(()),
    }
}

/// Extended attributes of a Unix guest, where everything is to be kept. What only root may
/// set (capabilities, trusted ones) is left by others, as owners are.
pub(crate) fn keep_xattrs(file: BorrowedFd<'_>, xattrs: &[(Name, Vec<u8>)]) -> Result<()> {
    let root = rustix::process::geteuid().is_root();
    let mut first = None;
    for (name, value) in xattrs {
        let flags = XattrFlags::empty();
        let Err(e) = fsetxattr(file, name.as_os_str(), value, flags) else {
            continue;
        };
        // Labels belong to the policy of the machine that a file is on.
        let not_ours = name.as_bytes().starts_with(b"security.selinux");
        let not_allowed = matches!(e, Errno::PERM | Errno::ACCESS) && !root;
        if !not_ours && !not_allowed {
            first.get_or_insert(unset(&format!("setting the extended attribute {name}"), e));
        }
    }
    first.map_or(Ok(()), Err)
}

/// Why an attribute was not set. One that is too large for the host's file system fails like a disk
/// that is full, and is none: what else is restored has its room.
fn unset(doing: &str, e: Errno) -> DiskError {
    match e {
        Errno::NOSPC | Errno::DQUOT => DiskError::refused(doing)
            .expected("room for it in the file's own attributes")
            .found("less: the destination's file system keeps no attribute of this length"),
        e => DiskError::io(doing, &e.into()),
    }
}

fn set(file: BorrowedFd<'_>, name: &str, value: &[u8]) -> std::result::Result<(), Errno> {
    fsetxattr(file, OsStr::new(name), value, XattrFlags::empty())
}

fn ntfs(file: BorrowedFd<'_>, name: &str, value: &[u8]) -> Result<()> {
    set(file, name, value).map_err(|e| {
        unset(&format!("setting {name}"), e)
            .expected("a destination that ntfs-3g mounted, and the right to set it")
            .hint("--acl sddl writes access control to a file instead")
    })
}

fn text(time: Timestamp) -> Option<String> {
    let moment = jiff::Timestamp::new(time.seconds, i32::try_from(time.nanos).ok()?).ok()?;
    let text = format!("{moment:.9}");
    // The guest's local time has no zone.
    Some(match time.zoned {
        true => text,
        false => text.trim_end_matches('Z').to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::walk::is_fatal;

    /// One attribute that does not fit ends nothing.
    #[test]
    fn an_attribute_without_room_is_no_full_disk() {
        for e in [Errno::NOSPC, Errno::DQUOT] {
            let e = unset("setting the extended attribute user.large", e);
            assert!(!is_fatal(&e), "{e}");
            assert!(e.to_string().contains("user.large"), "{e}");
        }
        assert!(is_fatal(&unset("setting it", Errno::ROFS)));
    }
}
