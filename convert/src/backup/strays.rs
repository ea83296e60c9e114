//! What file systems and desktops of hosts put into any directory.

use std::fs::FileType;

/// Whether an entry is one that a host's own system makes: it says nothing of a backup that it lies
/// in. By its name and its kind; nothing is done to it.
pub fn is_of_host(name: &str, kind: FileType) -> bool {
    let is = |known: &[&str]| known.iter().any(|k| name.eq_ignore_ascii_case(k));
    if kind.is_dir() {
        return is(&["@eaDir", ".snapshot", "#snapshot", "lost+found"]);
    }
    // The last two are of files that were removed while a program had them open.
    let prefixes = [".nfs", ".fuse_hidden"];
    kind.is_file()
        && (is(&[".DS_Store", "Thumbs.db", "desktop.ini"])
            || prefixes.iter().any(|p| name.starts_with(p)))
}
