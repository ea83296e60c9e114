//! What an image says that cannot all be right: told before a disk is copied whole.

use crate::{exit::Failure, output};
use disk_io::{Finding, error::escape};
use proxy::Source;

/// So many are told one by one.
const TOLD: usize = 10;

/// Warns of places of the disk that are stored in the same bytes, and of what was found doubtful when
/// it was opened; gives what was said, nothing where there is nothing. Only tables are read.
pub(crate) fn tell(source: &Source) -> Result<Vec<String>, Failure> {
    let Some(layered) = source.layered() else {
        return Ok(Vec::new());
    };
    let found = verify::layer::shared_places(layered.layers())?;
    let mut said: Vec<String> = found.iter().take(TOLD).map(one).collect();
    if found.len() > TOLD {
        said.push("more places of the disk are stored in the same bytes".into());
    }
    if !found.is_empty() {
        said.push(
            "of two such places one was overwritten by the other: the copy is made, and is not to \
             be relied on; check --guests tells which files have bytes there"
                .into(),
        );
    } else if !source.image().doubts.is_empty() {
        said.push(
            "the copy is made, and is not to be relied on: the files of the disk contradict each \
             other, see above"
                .into(),
        );
    }
    said.iter().for_each(output::warn);
    Ok(said)
}

/// The same of several disks.
pub(crate) fn tell_all(
    sources: &[impl std::borrow::Borrow<Source>],
) -> Result<Vec<String>, Failure> {
    let mut said = Vec::new();
    for source in sources {
        said.extend(tell(source.borrow())?);
    }
    Ok(said)
}

fn one(finding: &Finding) -> String {
    let file = finding.error.file_name().map(escape).unwrap_or_default();
    match finding.ranges.as_slice() {
        [a, b] => format!(
            "{file}: bytes {} to {} and {} to {} of the disk are stored in the same place",
            a.start, a.end, b.start, b.end
        ),
        [a] => format!(
            "{file}: bytes {} to {} of the disk are stored in the same place as a table of the file",
            a.start, a.end
        ),
        _ => finding.error.to_string(),
    }
}
