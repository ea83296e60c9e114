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

/// Puts together every volume group of which `disks` (whole disks or partitions) have a
/// part. Disks that are no physical volumes are left aside. A group's metadata is the newest
/// that any of its disks has. The order of groups is that in which they were met.
pub fn scan(disks: &[Arc<dyn Disk>]) -> Result<Vec<Group>> {
    let mut remarks = Vec::new();
    let mut present: HashMap<String, Arc<dyn Disk>> = HashMap::new();
    let mut newest: Vec<(String, u64, text::Section)> = Vec::new();
    for disk in disks {
        let Some(pv) = PhysicalVolume::read(disk)? else {
            continue;
        };
        if present.insert(pv.uuid.clone(), disk.clone()).is_some() {
            remarks.push(format!("two disks are the physical volume {}", pv.uuid));
        }
        remarks.extend(pv.remarks.iter().cloned());
        for metadata in pv.metadata {
            let parsed = match text::parse(&metadata) {
                Ok(parsed) => parsed,
                Err(e) => {
                    remarks.push(e.to_string());
                    continue;
                }
            };
            let Some((name, section)) = parsed.sections.into_iter().next() else {
                continue;
            };
            let id = section.text("id").unwrap_or(&name).to_owned();
            let seqno = section.number("seqno").unwrap_or(0);
            match newest.iter_mut().find(|(known, ..)| *known == id) {
                Some(known) if known.1 >= seqno => {}
                Some(known) => *known = (id, seqno, wrap(name, section)),
                None => newest.push((id, seqno, wrap(name, section))),
            }
        }
    }
    let groups = newest.into_iter().filter_map(|(_, _, wrapped)| {
        let (name, section) = wrapped.sections.into_iter().next()?;
        Some(Group::build(name, &section, &present, remarks.clone()))
    });
    Ok(groups.collect())
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
