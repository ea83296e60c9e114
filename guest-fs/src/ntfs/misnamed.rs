//! Names that a directory and a file's own record do not agree about.

use super::{file::File, index::FileName, node::file_names};
use crate::{Name, NodeId};

/// What to say where a directory calls a file what its own record does not: the name or the
/// reference in the directory is damaged, or one of the two is older than the other. Either
/// way nothing tells whether it is the file that belongs to that name.
pub(crate) fn misnamed(file: &File<'_>, dir: NodeId, name: &Name) -> Option<String> {
    // Deleted files are found by their records, not by an index.
    if !file.base.in_use() {
        return None;
    }
    let (names, damage) = file_names(file);
    if damage.is_some() {
        return None;
    }
    let here = |n: &&FileName| n.parent.record == dir.record;
    let spelled = |n: &FileName| Name::from_utf16(n.units.iter().copied());
    if names.iter().filter(here).any(|n| spelled(n) == *name) {
        return None;
    }
    let number = file.base.number;
    let first = names.iter().find(here).or_else(|| names.first());
    Some(match first {
        Some(n) if n.parent.record == dir.record => format!(
            "its directory calls it '{name}', its own record ({number}) '{}': these may be another \
             file's contents",
            spelled(n)
        ),
        Some(n) => format!(
            "its directory leads to record {number}, which calls itself '{}' in another directory \
             (record {}): these may be another file's contents",
            spelled(n),
            n.parent.record
        ),
        None => format!(
            "its directory leads to record {number}, which has no name: these may be another \
             file's contents"
        ),
    })
}
