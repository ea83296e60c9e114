//! LVM2: logical volumes over physical ones, linear and striped.
//!
//! | module | holds |
//! |---|---|
//! | [`label`] | what a physical volume says of itself, and its metadata areas |
//! | [`text`] | the metadata's text format |
//! | [`group`] | a volume group: its physical and logical volumes |

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

pub mod group;
pub mod label;
pub mod text;

pub use group::{Group, LogicalVolume};

use disk_io::{Disk, Result};
use label::PhysicalVolume;
use std::{collections::HashMap, sync::Arc};

/// What lies on physical volumes.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Volume groups, in the order in which they were met.
    pub groups: Vec<Group>,
    /// Damage and oddities, of physical volumes and their metadata.
    pub remarks: Vec<String>,
}

/// A physical volume that is here.
pub(crate) struct Present {
    pub(crate) disk: Arc<dyn Disk>,
    /// The groups of which it has metadata, and which version.
    pub(crate) versions: Vec<(String, u64)>,
    /// Another that is here has the same identity.
    pub(crate) twice: bool,
}

/// The newest metadata of a group.
struct Newest {
    id: String,
    seqno: u64,
    wrapped: text::Section,
    /// There are others of the same version.
    split: bool,
}

impl Newest {
    fn new(id: String, seqno: u64, wrapped: text::Section) -> Self {
        Self {
            id,
            seqno,
            wrapped,
            split: false,
        }
    }
}

/// Puts together every volume group of which `disks` (whole disks or partitions) have a
/// part. Disks that are no physical volumes are left aside. A group's metadata is the newest
/// that any of its disks has.
pub fn scan(disks: &[Arc<dyn Disk>]) -> Result<Found> {
    let mut found = Found::default();
    let mut present: HashMap<String, Present> = HashMap::new();
    let mut newest: Vec<Newest> = Vec::new();
    for disk in disks {
        let Some(pv) = PhysicalVolume::read(disk)? else {
            continue;
        };
        found.remarks.extend(pv.remarks);
        let mut versions: Vec<(String, u64)> = Vec::new();
        for metadata in pv.metadata {
            let parsed = match text::parse(&metadata) {
                Ok(parsed) => parsed,
                Err(e) => {
                    found.remarks.push(e.to_string());
                    continue;
                }
            };
            let Some((name, section)) = parsed.sections.into_iter().next() else {
                continue;
            };
            let id = section.text("id").unwrap_or(&name).to_owned();
            let seqno = section.number("seqno").unwrap_or(0);
            versions.push((id.clone(), seqno));
            let wrapped = wrap(name, section);
            match newest.iter_mut().find(|known| known.id == id) {
                Some(known) if known.seqno > seqno => {}
                Some(known) if known.seqno == seqno => known.split |= known.wrapped != wrapped,
                Some(known) => *known = Newest::new(id, seqno, wrapped),
                None => newest.push(Newest::new(id, seqno, wrapped)),
            }
        }
        match present.get_mut(&pv.uuid) {
            Some(twin) => twin.twice = true,
            None => {
                let here = Present {
                    disk: disk.clone(),
                    versions,
                    twice: false,
                };
                present.insert(pv.uuid, here);
            }
        }
    }
    for newest in newest {
        let (id, seqno, split) = (newest.id, newest.seqno, newest.split);
        if let Some((name, section)) = newest.wrapped.sections.into_iter().next() {
            let mut group = Group::build(name, &section, (&id, seqno), &present);
            if split {
                group.doubt(&format!(
                    "disks of the group have different metadata of one version, {seqno}: they are not \
                     of one time"
                ));
            }
            found.groups.push(group);
        }
    }
    Ok(found)
}

fn wrap(name: String, section: text::Section) -> text::Section {
    text::Section {
        sections: vec![(name, section)],
        ..text::Section::default()
    }
}

/// An identifier of 32 characters with the dashes that LVM's tools put in it.
pub(crate) fn dashed(id: &[u8]) -> Option<String> {
    let id = std::str::from_utf8(id).ok()?;
    if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let mut out = String::with_capacity(38);
    for (n, c) in id.chars().enumerate() {
        if matches!(n, 6 | 10 | 14 | 18 | 22 | 26) {
            out.push('-');
        }
        out.push(c);
    }
    Some(out)
}
