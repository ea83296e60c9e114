//! A disk group: its volumes, put together from the disks that are there.

use super::{
    SECTOR,
    database::{Arrangement, ComponentRecord, Database, PartitionRecord, VolumeRecord},
    header::Header,
};
use crate::volume::mapped::{Layout, Leg, Mapped, Piece, missing};
use disk_io::{Disk, DiskError, Result};
use std::sync::Arc;

/// A group of dynamic disks.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: String,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// Names of disks of the group that are not among those given.
    pub missing: Vec<String>,
    /// Damage and oddities.
    pub remarks: Vec<String>,
}

/// A volume of a group.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its name, such as `Volume1`.
    pub name: String,
    /// Its identity.
    pub uuid: String,
    /// Its length in bytes.
    pub len: u64,
    /// `simple`, `spanned`, `striped`, `mirrored` or `raid5`.
    pub kind: &'static str,
    /// Drive letter that Windows remembers for it, such as `E:`.
    pub drive: Option<String>,
    /// Why it cannot be read here, if so.
    pub refusal: Option<DiskError>,
    copies: Vec<Vec<Piece>>,
}

impl Volume {
    /// Names of the disks it lies on that are not here. A mirrored volume can be read as
    /// long as one of its copies is whole.
    pub fn missing(&self) -> Vec<String> {
        missing(self.copies.iter().flatten())
    }

    /// Whether all of it can be read: every disk of at least one copy is here.
    pub fn complete(&self) -> bool {
        self.copies.iter().any(|pieces| missing(pieces).is_empty())
    }

    /// Its bytes. What lies only on a disk that is not here is data whose read fails.
    pub fn open(&self) -> Result<Arc<dyn Disk>> {
        if let Some(e) = &self.refusal {
            return Err(e.clone());
        }
        let mut copies = Vec::new();
        for pieces in &self.copies {
            copies.push(Arc::new(Mapped::new(self.len, pieces.clone())?) as Arc<dyn Disk>);
        }
        if copies.len() == 1
            && let Some(one) = copies.pop()
        {
            return Ok(one);
        }
        let legs = copies.into_iter().zip(1u32..).map(|(disk, n)| Leg {
            disk: Some(disk),
            offset: 0,
            name: format!("copy {n} of {}", self.name),
        });
        let mirror = Piece {
            start: 0,
            len: self.len,
            layout: Layout::Mirror(legs.collect()),
        };
        Ok(Arc::new(Mapped::new(self.len, vec![mirror])?))
    }
}

impl Group {
    pub(super) fn build(members: &[&(Header, Arc<dyn Disk>)]) -> Result<Self> {
        let mut remarks = Vec::new();
        let mut best: Option<Database> = None;
        let mut failure = None;
        for (header, disk) in members {
            let end = header.config_start.saturating_add(header.config_len);
            let read = header
                .database(disk)
                .and_then(|at| Database::read(disk, at, end));
            match read {
                Ok(found) => {
                    if best.as_ref().is_some_and(|b| b.sequence != found.sequence) {
                        remarks.push(
                            "the disks have different versions of the LDM database; the newest is used"
                                .into(),
                        );
                    }
                    if best.as_ref().is_none_or(|b| b.sequence < found.sequence) {
                        best = Some(found);
                    }
                }
                Err(e) => {
                    remarks.push(e.to_string());
                    failure = failure.or(Some(e));
                }
            }
        }
        let Some(database) = best else {
            return Err(failure
                .unwrap_or_else(|| DiskError::corrupt("reading the LDM database"))
                .context("opening a dynamic disk group"));
        };
        remarks.extend(database.remarks.iter().cloned());
        let header = members.first().map(|(h, _)| h);
        let missing = database
            .disks
            .iter()
            .filter(|d| !members.iter().any(|(h, _)| h.disk_id == d.guid))
            .map(|d| d.name.clone())
            .collect();
        Ok(Self {
            name: header.map(|h| h.group_name.clone()).unwrap_or_default(),
            uuid: header.map(|h| h.group_id.clone()).unwrap_or_default(),
            volumes: database
                .volumes
                .iter()
                .map(|v| volume(v, &database, members))
                .collect(),
            missing,
            remarks,
        })
    }
}

fn volume(
    record: &VolumeRecord,
    database: &Database,
    members: &[&(Header, Arc<dyn Disk>)],
) -> Volume {
    let components: Vec<_> = database
        .components
        .iter()
        .filter(|c| c.volume == record.id)
        .collect();
    let mut out = Volume {
        name: record.name.clone(),
        uuid: record.guid.clone(),
        len: record.sectors.saturating_mul(SECTOR),
        kind: "simple",
        drive: record.hint.clone(),
        refusal: None,
        copies: Vec::new(),
    };
    let bad = |found: String| {
        DiskError::corrupt("opening a dynamic volume")
            .file(&record.name)
            .found(found)
    };
    if components.is_empty() || components.len() as u64 != record.children {
        out.refusal = Some(bad(format!(
            "{} components, its record says {}",
            components.len(),
            record.children
        )));
    }
    for component in &components {
        let mut parts: Vec<_> = database
            .partitions
            .iter()
            .filter(|p| p.component == component.id)
            .collect();
        out.kind = match component.arrangement {
            Arrangement::Striped => "striped",
            Arrangement::Spanned if parts.len() > 1 => "spanned",
            Arrangement::Spanned => "simple",
            Arrangement::Raid5 => "raid5",
            Arrangement::Other(_) => "unknown",
        };
        if parts.is_empty() || parts.len() as u64 != component.children {
            out.refusal = Some(bad(format!(
                "{} partitions in {}, its record says {}",
                parts.len(),
                component.name,
                component.children
            )));
            continue;
        }
        match component.arrangement {
            Arrangement::Spanned => {
                parts.sort_by_key(|p| p.volume_offset);
                out.copies.push(spanned(&parts, database, members));
            }
            Arrangement::Striped => match striped(component, parts, database, members) {
                Ok(piece) => out.copies.push(vec![piece]),
                Err(found) => out.refusal = Some(bad(found)),
            },
            Arrangement::Raid5 | Arrangement::Other(_) => {
                out.refusal = Some(
                    DiskError::unsupported("opening a dynamic volume")
                        .file(&record.name)
                        .expected("a simple, spanned, striped or mirrored one")
                        .found(match component.arrangement {
                            Arrangement::Other(n) => format!("arrangement {n}"),
                            _ => "RAID-5".into(),
                        }),
                );
            }
        }
    }
    if components.len() > 1 {
        out.kind = "mirrored";
    }
    // Every copy must have all of the volume.
    for pieces in &out.copies {
        let have: u64 = pieces.iter().map(|p| p.len).fold(0, u64::saturating_add);
        if have < out.len {
            out.refusal.get_or_insert_with(|| {
                bad(format!(
                    "partitions of {have} bytes in all for {} bytes",
                    out.len
                ))
            });
        }
    }
    out
}

fn leg(part: &PartitionRecord, database: &Database, members: &[&(Header, Arc<dyn Disk>)]) -> Leg {
    let record = database.disks.iter().find(|d| d.id == part.disk);
    let member = members
        .iter()
        .find(|(h, _)| record.is_some_and(|r| r.guid == h.disk_id));
    let base = member.map_or(0, |(h, _)| h.data_start);
    Leg {
        disk: member.map(|(_, disk)| disk.clone()),
        offset: part.start.saturating_mul(SECTOR).saturating_add(base),
        name: record.map_or_else(|| format!("number {}", part.disk), |r| r.name.clone()),
    }
}

fn spanned(
    parts: &[&PartitionRecord],
    database: &Database,
    members: &[&(Header, Arc<dyn Disk>)],
) -> Vec<Piece> {
    parts
        .iter()
        .map(|p| Piece {
            start: p.volume_offset.saturating_mul(SECTOR),
            len: p.sectors.saturating_mul(SECTOR),
            layout: Layout::Mirror(vec![leg(p, database, members)]),
        })
        .collect()
}

fn striped(
    component: &ComponentRecord,
    mut parts: Vec<&PartitionRecord>,
    database: &Database,
    members: &[&(Header, Arc<dyn Disk>)],
) -> Result<Piece, String> {
    parts.sort_by_key(|p| p.index);
    let indexes = parts.iter().map(|p| p.index);
    if component.chunk == 0
        || component.columns != parts.len() as u64
        || !indexes.eq(0..component.columns)
    {
        return Err(format!(
            "{} columns with stripes of {} sectors for {} partitions",
            component.columns,
            component.chunk,
            parts.len()
        ));
    }
    let shortest = parts.iter().map(|p| p.sectors).min().unwrap_or(0);
    Ok(Piece {
        start: 0,
        len: shortest
            .saturating_mul(component.columns)
            .saturating_mul(SECTOR),
        layout: Layout::Striped {
            columns: parts.iter().map(|p| leg(p, database, members)).collect(),
            chunk: component.chunk.saturating_mul(SECTOR),
        },
    })
}
