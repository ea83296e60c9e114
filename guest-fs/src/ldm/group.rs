//! A disk group: its volumes, put together from the disks that are there.

use super::{
    SECTOR,
    database::{Arrangement, ComponentRecord, Database, DiskRecord, PartitionRecord, VolumeRecord},
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
    /// Identities of its disks, as the newest database has them.
    pub members: Vec<String>,
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
    /// Why what is read need not be what the volume held, one sentence each.
    pub doubts: Vec<String>,
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

    /// What it is made of, each copy of a mirror one after the other.
    pub fn pieces(&self) -> Vec<Piece> {
        self.copies.iter().flatten().cloned().collect()
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
        let mut here: Vec<Member<'_>> = Vec::new();
        let mut split = false;
        for (header, disk) in members {
            let end = header.config_start.saturating_add(header.config_len);
            let read = header
                .database(disk)
                .and_then(|at| Database::read(disk, at, end));
            let sequence = read.as_ref().ok().map(|found| found.sequence);
            match read {
                Ok(found) if best.as_ref().is_none_or(|b| b.sequence < found.sequence) => {
                    best = Some(found);
                    split = false;
                }
                Ok(found) => {
                    let same = |b: &Database| b.sequence == found.sequence && !b.is_same(&found);
                    split |= best.as_ref().is_some_and(same);
                }
                Err(e) => {
                    remarks.push(e.to_string());
                    failure = failure.or(Some(e));
                }
            }
            match here.iter_mut().find(|m| m.header.disk_id == header.disk_id) {
                Some(twin) => twin.twice = true,
                None => here.push(Member {
                    header,
                    disk,
                    sequence,
                    twice: false,
                }),
            }
        }
        let Some(database) = best else {
            return Err(failure
                .unwrap_or_else(|| DiskError::corrupt("reading the LDM database"))
                .context("opening a dynamic disk group"));
        };
        remarks.extend(database.remarks.iter().cloned());
        if here
            .iter()
            .any(|m| m.sequence.is_some_and(|own| own < database.sequence))
        {
            remarks.push(
                "the disks have different versions of the LDM database: the newest is used, and of \
                 mirrors the disks that have it"
                    .into(),
            );
        }
        let group = Disks {
            database: &database,
            here,
            split,
        };
        let header = members.first().map(|(h, _)| h);
        Ok(Self {
            name: header.map(|h| h.group_name.clone()).unwrap_or_default(),
            uuid: header.map(|h| h.group_id.clone()).unwrap_or_default(),
            volumes: database.volumes.iter().map(|v| group.volume(v)).collect(),
            members: database.disks.iter().map(|d| d.guid.clone()).collect(),
            missing: group.missing(),
            remarks,
        })
    }
}

/// A disk that is here.
struct Member<'a> {
    header: &'a Header,
    disk: &'a Arc<dyn Disk>,
    /// Of its own copy of the database, if that can be read.
    sequence: Option<u64>,
    /// Another that is here says that it is the same.
    twice: bool,
}

/// The newest database, and the disks that it can be held against.
struct Disks<'a> {
    database: &'a Database,
    here: Vec<Member<'a>>,
    /// There are others of the same version.
    split: bool,
}

/// A copy of a volume, and what speaks against its bytes.
struct Copy {
    pieces: Vec<Piece>,
    doubts: Vec<String>,
}

impl Disks<'_> {
    fn missing(&self) -> Vec<String> {
        let gone = |guid: &str| !self.here.iter().any(|m| m.header.disk_id == guid);
        let disks = self.database.disks.iter();
        disks
            .filter(|d| gone(&d.guid))
            .map(|d| d.name.clone())
            .collect()
    }

    fn volume(&self, record: &VolumeRecord) -> Volume {
        let of_volume = |c: &&ComponentRecord| c.volume == record.id;
        let components: Vec<_> = self.database.components.iter().filter(of_volume).collect();
        let mut out = Volume {
            name: record.name.clone(),
            uuid: record.guid.clone(),
            len: record.sectors.saturating_mul(SECTOR),
            kind: "simple",
            drive: record.hint.clone(),
            refusal: None,
            doubts: Vec::new(),
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
        let mut copies = Vec::new();
        for component in &components {
            let of_component = |p: &&PartitionRecord| p.component == component.id;
            let parts: Vec<_> = self
                .database
                .partitions
                .iter()
                .filter(of_component)
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
            if let Some(part) = parts.iter().find(|p| self.twice(p)) {
                out.refusal = Some(
                    DiskError::refused("opening a dynamic volume")
                        .file(&record.name)
                        .expected("each disk of the group once")
                        .found(format!("two that are {}", self.name(part)))
                        .hint("give one of them only"),
                );
            }
            let doubts = self.doubts(component, &parts);
            let pieces = match component.arrangement {
                Arrangement::Spanned => self.spanned(parts),
                Arrangement::Striped => match self.striped(component, parts) {
                    Ok(piece) => vec![piece],
                    Err(found) => {
                        out.refusal = Some(bad(found));
                        continue;
                    }
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
                    continue;
                }
            };
            copies.push(Copy { pieces, doubts });
        }
        if components.len() > 1 {
            out.kind = "mirrored";
        }
        // Every copy must have all of the volume.
        for copy in &copies {
            let lens = copy.pieces.iter().map(|p| p.len);
            let have: u64 = lens.fold(0, u64::saturating_add);
            if have < out.len {
                out.refusal.get_or_insert_with(|| {
                    bad(format!(
                        "partitions of {have} bytes in all for {} bytes",
                        out.len
                    ))
                });
            }
        }
        // A copy of a mirror that was left behind is not read where another was not, also where
        // that one fails: its bytes were the volume's once.
        if copies.iter().any(|c| c.doubts.is_empty()) {
            copies.retain(|c| c.doubts.is_empty());
        }
        for copy in copies {
            out.copies.push(copy.pieces);
            out.doubts.extend(copy.doubts);
        }
        out
    }

    /// Why the bytes of a component need not be the volume's.
    fn doubts(&self, component: &ComponentRecord, parts: &[&PartitionRecord]) -> Vec<String> {
        let mut doubts = Vec::new();
        if !component.state.eq_ignore_ascii_case("ACTIVE") {
            doubts.push(format!(
                "{} is not active, but {:?}: what it holds may be older",
                component.name, component.state
            ));
        }
        let newest = self.database.sequence;
        if self.split {
            doubts.push(format!(
                "disks of the group have different databases of one version, {newest}: they are not \
                 of one time"
            ));
        }
        for part in parts {
            let own = self.member(part).and_then(|m| m.sequence);
            if let Some(own) = own.filter(|own| *own < newest) {
                let doubt = format!(
                    "{} has version {own} of the group's database, the newest is {newest}: what it \
                     holds may be older",
                    self.name(part)
                );
                if !doubts.contains(&doubt) {
                    doubts.push(doubt);
                }
            }
        }
        doubts
    }

    fn record(&self, part: &PartitionRecord) -> Option<&DiskRecord> {
        self.database.disks.iter().find(|d| d.id == part.disk)
    }

    fn member(&self, part: &PartitionRecord) -> Option<&Member<'_>> {
        let guid = &self.record(part)?.guid;
        self.here.iter().find(|m| m.header.disk_id == *guid)
    }

    fn twice(&self, part: &PartitionRecord) -> bool {
        self.member(part).is_some_and(|m| m.twice)
    }

    fn name(&self, part: &PartitionRecord) -> String {
        self.record(part)
            .map_or_else(|| format!("number {}", part.disk), |r| r.name.clone())
    }

    fn leg(&self, part: &PartitionRecord) -> Leg {
        let member = self.member(part);
        let base = member.map_or(0, |m| m.header.data_start);
        Leg {
            disk: member.map(|m| Arc::clone(m.disk)),
            offset: part.start.saturating_mul(SECTOR).saturating_add(base),
            name: self.name(part),
        }
    }

    fn spanned(&self, mut parts: Vec<&PartitionRecord>) -> Vec<Piece> {
        parts.sort_by_key(|p| p.volume_offset);
        let piece = |p: &&PartitionRecord| Piece {
            start: p.volume_offset.saturating_mul(SECTOR),
            len: p.sectors.saturating_mul(SECTOR),
            layout: Layout::Mirror(vec![self.leg(p)]),
        };
        parts.iter().map(piece).collect()
    }

    fn striped(
        &self,
        component: &ComponentRecord,
        mut parts: Vec<&PartitionRecord>,
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
                columns: parts.iter().map(|p| self.leg(p)).collect(),
                chunk: component.chunk.saturating_mul(SECTOR),
            },
        })
    }
}
