//! What the tables of an image cannot both be right about: told before a disk is copied whole.

use crate::{exit::Failure, output};
use proxy::Source;

/// So many are told one by one.
const TOLD: usize = 10;

/// Warns of places of the disk that are stored in the same bytes; whether there are any.
pub(crate) fn tell(source: &Source) -> Result<bool, Failure> {
    let Some(layered) = source.layered() else {
        return Ok(false);
    };
    let found = verify::layer::shared_places(layered.layers())?;
    for finding in found.iter().take(TOLD) {
        output::warn(finding.error.to_string());
    }
    if found.len() > TOLD {
        output::warn(format!(
            "{} more places of the disk are stored in the same bytes: check tells all",
            found.len() - TOLD
        ));
    }
    if !found.is_empty() {
        output::warn(
            "of places that share their bytes at most one is what was written there: \
             the copy is made, and is not to be relied on",
        );
    }
    Ok(!found.is_empty())
}
