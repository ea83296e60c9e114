//! What the tables of an image cannot both be right about: told before a disk is copied whole.

use crate::{exit::Failure, output};
use disk_io::{Finding, error::escape};
use proxy::Source;

/// So many are told one by one.
const TOLD: usize = 10;

/// Warns of places of the disk that are stored in the same bytes; whether there are any. Nothing
/// but tables is read.
pub(crate) fn tell(source: &Source) -> Result<bool, Failure> {
    let Some(layered) = source.layered() else {
        return Ok(false);
    };
    let found = verify::layer::shared_places(layered.layers())?;
    found.iter().take(TOLD).for_each(one);
    if found.len() > TOLD {
        output::warn("more places of the disk are stored in the same bytes");
    }
    if !found.is_empty() {
        output::warn(
            "of two such places one was overwritten by the other: the copy is made, and is not to \
             be relied on; check --guests tells which files have bytes there",
        );
    }
    Ok(!found.is_empty())
}

/// The same of several disks.
pub(crate) fn tell_all(sources: &[impl std::borrow::Borrow<Source>]) -> Result<bool, Failure> {
    let mut any = false;
    for source in sources {
        any |= tell(source.borrow())?;
    }
    Ok(any)
}

fn one(finding: &Finding) {
    let file = finding.error.file_name().map(escape).unwrap_or_default();
    match finding.ranges.as_slice() {
        [a, b] => output::warn(format!(
            "{file}: bytes {} to {} and {} to {} of the disk are stored in the same place",
            a.start, a.end, b.start, b.end
        )),
        _ => output::warn(finding.error.to_string()),
    }
}
