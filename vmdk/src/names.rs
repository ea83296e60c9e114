//! Names as descriptors write them: of another machine, another system, another code page.

use disk_io::{DiskError, ErrorKind, Locate, Opened, Purpose, Result, error::shell_word};
use encoding_rs::Encoding;
use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// The components of a name, whichever separator it uses.
fn components(name: &str) -> impl DoubleEndedIterator<Item = &str> {
    name.split(['/', '\\']).filter(|c| !c.is_empty())
}

/// The last component.
pub(crate) fn base_name(name: &str) -> Option<&str> {
    components(name)
        .next_back()
        .filter(|b| !matches!(*b, "." | ".."))
}

/// The last two components as `directory/base`.
pub(crate) fn last_two(name: &str) -> Option<String> {
    let mut all = components(name).rev();
    let (base, dir) = (all.next()?, all.next()?);
    (![base, dir]
        .iter()
        .any(|c| matches!(*c, "." | "..") || c.ends_with(':')))
    .then(|| format!("{dir}/{base}"))
}

/// Whether the name is absolute in any system's spelling, or a datastore's.
pub fn is_absolute(name: &str) -> bool {
    let bytes = name.as_bytes();
    name.starts_with(['/', '\\', '['])
        || (bytes.get(1) == Some(&b':') && bytes.first().is_some_and(u8::is_ascii_alphabetic))
}

/// Whether the name is that of a device: of Windows, Linux, a BSD or ESXi.
pub(crate) fn is_device(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.starts_with(r"\\.\")
        || lower.starts_with(r"\\?\")
        || lower.starts_with("/dev/")
        || lower.starts_with("/vmfs/devices/")
}

/// The ways in which a name may be stored on this machine: as text, and in the bytes of the
/// descriptor's own character set.
fn spellings(name: &str, encoding: &'static Encoding) -> Vec<PathBuf> {
    let mut all = vec![PathBuf::from(name)];
    if !name.is_ascii() {
        let (bytes, _, bad) = encoding.encode(name);
        let other = PathBuf::from(OsString::from_vec(bytes.into_owned()));
        if !bad && !all.contains(&other) {
            all.push(other);
        }
    }
    all
}

/// Opens a name in any of its spellings; the first error that is more than "not found" ends
/// the search.
pub(crate) fn open(
    dir: &dyn Locate,
    name: &str,
    encoding: &'static Encoding,
    purpose: Purpose,
) -> Result<Opened> {
    let mut missing = None;
    for spelling in spellings(name, encoding) {
        match dir.open(&spelling, purpose) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                missing.get_or_insert(e);
            }
            other => return other,
        }
    }
    Err(missing.unwrap_or_else(|| DiskError::not_found(format!("opening the {purpose}"))))
}

/// Opens an extent: where the descriptor says, or else a file of that base name beside the
/// descriptor, since directories do not survive a copy to another machine. The second value
/// says so.
pub(crate) fn open_extent(
    dir: &dyn Locate,
    name: &str,
    encoding: &'static Encoding,
) -> Result<(Opened, Option<String>)> {
    let first = match open(dir, name, encoding, Purpose::Extent) {
        Ok(opened) => return Ok((opened, None)),
        Err(e) => e,
    };
    if matches!(first.kind(), ErrorKind::NotFound | ErrorKind::Refused)
        && !is_device(name)
        && let Some(base) = base_name(name)
        && base != name
        && let Ok(opened) = open(dir, base, encoding, Purpose::Extent)
    {
        let remark = format!(
            "the extent {name} is not where the descriptor says; {} beside it is used",
            Path::new(base).display()
        );
        return Ok((opened, Some(remark)));
    }
    // A device that was allowed and still cannot be opened says why by itself.
    if is_device(name) && matches!(first.kind(), ErrorKind::NotFound | ErrorKind::Refused) {
        return Err(DiskError::refused("opening the extent")
            .file(name)
            .expected("a file beside the descriptor")
            .found("a device: the disk's data is on it and not in a file")
            .hint(format!(
                "if you trust this image, allow it with --allow-device {}, or open the device \
                 itself as a raw disk",
                shell_word(name)
            )));
    }
    Err(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_names_apart() {
        assert_eq!(base_name(r"C:\vm\a.vmdk"), Some("a.vmdk"));
        assert_eq!(base_name("../x/a.vmdk"), Some("a.vmdk"));
        assert_eq!(base_name("[store] dir/a.vmdk"), Some("a.vmdk"));
        assert_eq!(base_name(".."), None);
        assert_eq!(base_name("/"), None);
        assert_eq!(
            last_two("/vmfs/volumes/5e0/gold/a.vmdk").as_deref(),
            Some("gold/a.vmdk")
        );
        assert_eq!(last_two("../a.vmdk"), None);
        assert_eq!(last_two(r"C:\a.vmdk"), None);
        assert!(is_absolute(r"c:\x") && is_absolute("/x") && is_absolute(r"\\srv\x"));
        assert!(!is_absolute("x/y") && !is_absolute("c"));
        assert!(is_device(r"\\.\PhysicalDrive0") && is_device("/dev/sda"));
    }
}
