//! Finding the disk that a differencing VHD was made from.

use super::footer::{Footer, Header, Locator, text};
use crate::{
    chain::Chain,
    parent::{Candidates, Found},
};
use disk_io::{DiskError, Opened, Result};

/// Opens the parent of `source`, and checks that it is the one.
pub(super) fn find(source: &Opened, header: &Header, chain: &mut Chain<'_>) -> Result<Opened> {
    let mut names = Candidates::default();
    // Relative names first: the absolute ones are those of the machine it was made on, and
    // only their last component is of use here.
    for code in [b"W2ru", b"MacX", b"W2ku"] {
        for locator in header.locators.iter().filter(|l| l.code == *code) {
            names.add(&name(source, locator)?);
        }
    }
    names.add(&header.parent_name);
    names.open(source, chain, "VHD", &|candidate: &Opened| {
        let (footer, _) = Footer::read(&*candidate.disk)?;
        Ok(if footer.unique_id == header.parent_id {
            Found::Right
        } else {
            Found::Other(
                DiskError::corrupt("checking the parent")
                    .file(candidate.path.display())
                    .expected(format!("the disk {}", hex(&header.parent_id)))
                    .found(hex(&footer.unique_id)),
            )
        })
    })
}

/// The name that a locator's data holds.
fn name(source: &Opened, locator: &Locator) -> Result<String> {
    if locator.len > 4096 || locator.offset.saturating_add(locator.len.into()) > source.disk.len() {
        return Err(DiskError::corrupt("reading a parent locator")
            .offset(locator.offset)
            .expected("a name of at most 4096 bytes inside the file")
            .found(format!("{} bytes", locator.len)));
    }
    let mut data = vec![0; usize::try_from(locator.len).unwrap_or(0)];
    source.disk.read_exact_at(&mut data, locator.offset)?;
    Ok(match &locator.code {
        b"MacX" => String::from_utf8_lossy(&data)
            .trim_start_matches("file://")
            .trim_end_matches('\0')
            .to_string(),
        _ => text(data.chunks_exact(2).map(|c| {
            u16::from_le_bytes([
                c.first().copied().unwrap_or(0),
                c.get(1).copied().unwrap_or(0),
            ])
        })),
    })
}

/// An id for people.
pub(super) fn hex(id: &[u8; 16]) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}
