//! A volume group, built from its metadata and the disks that are there.

use super::{
    Present,
    text::{Section, Value},
};
use crate::volume::mapped::{Layout, Leg, Mapped, Piece, missing};
use disk_io::{Disk, DiskError, Result};
use std::{collections::HashMap, sync::Arc};

/// More segments than any real volume has.
const MAX_SEGMENTS: usize = 100_000;

/// A volume group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: Option<String>,
    /// Its volumes, hidden parts of others included.
    pub volumes: Vec<LogicalVolume>,
    /// Its physical volumes.
    pub members: Vec<String>,
    /// Those of them that may be of an earlier time: volumes that the group had then may be on them.
    pub stale: Vec<String>,
    /// Those of them that are not among the disks given.
    pub missing: Vec<String>,
}

/// A logical volume.
#[derive(Clone, Debug)]
pub struct LogicalVolume {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: Option<String>,
    /// Its length in bytes.
    pub len: u64,
    /// Whether it is one to look at; parts of mirrors and pools are not.
    pub visible: bool,
    /// What its segments are, such as `striped` or `thin`.
    pub kinds: Vec<String>,
    /// Why it cannot be read here, if so.
    pub refusal: Option<DiskError>,
    /// Why what is read need not be what the volume held, one sentence each.
    pub doubts: Vec<String>,
    pieces: Vec<Piece>,
}

impl LogicalVolume {
    /// Identities of the physical volumes it lies on that are not here.
    pub fn missing(&self) -> Vec<String> {
        missing(&self.pieces)
    }

    /// What it is made of.
    pub fn pieces(&self) -> Vec<Piece> {
        self.pieces.clone()
    }

    /// Its bytes. What lies on a disk that is not here is data whose read fails.
    pub fn open(&self) -> Result<Arc<dyn Disk>> {
        if let Some(e) = &self.refusal {
            return Err(e.clone());
        }
        Ok(Arc::new(Mapped::new(self.len, self.pieces.clone())?))
    }
}

/// The physical volumes of a group, by the name that they have in its metadata.
type Volumes = HashMap<String, Physical>;

/// One of them.
struct Physical {
    /// Where its extent 0 is.
    leg: Leg,
    /// Another that is here has the same identity.
    twice: bool,
    /// Why what it holds may be older than the metadata, if so.
    doubt: Option<String>,
}

impl Physical {
    /// `version` is that of the metadata that `section` is from: the group's identity, and its
    /// number.
    fn new(section: &Section, version: (&str, u64), present: &HashMap<String, Present>) -> Self {
        let id = section.text("id").unwrap_or_default();
        let here = present.get(id);
        let leg = Leg {
            disk: here.map(|h| h.disk.clone()),
            offset: section.number("pe_start").unwrap_or(0).saturating_mul(512),
            name: id.to_owned(),
        };
        Self {
            leg,
            twice: here.is_some_and(|h| h.twice),
            doubt: here.and_then(|h| doubt(section, version, h)),
        }
    }
}

/// A disk that was away while the group was changed has what it had before.
fn doubt(section: &Section, version: (&str, u64), here: &Present) -> Option<String> {
    let id = section.text("id").unwrap_or_default();
    let (group, newest) = version;
    let of_group = here.versions.iter().filter(|(of, _)| of == group);
    let own = of_group.map(|(_, seqno)| *seqno).max();
    let why = if section
        .list("flags")
        .contains(&Value::Text("MISSING".into()))
    {
        "was not there when the group was changed last".into()
    } else if let Some(own) = own.filter(|own| *own < newest) {
        format!("has version {own} of the group's metadata, the newest is {newest}")
    } else if let (None, Some((other, _))) = (own, here.versions.first()) {
        format!("says that it is of another group, {other}")
    } else {
        return None;
    };
    Some(format!(
        "the physical volume {id} {why}: what it holds may be older"
    ))
}

impl Group {
    pub(super) fn build(
        name: String,
        section: &Section,
        version: (&str, u64),
        present: &HashMap<String, Present>,
    ) -> Self {
        let extent = section
            .number("extent_size")
            .unwrap_or(0)
            .saturating_mul(512);
        let mut group = Self {
            name,
            uuid: section.text("id").map(str::to_owned),
            volumes: Vec::new(),
            members: Vec::new(),
            stale: Vec::new(),
            missing: Vec::new(),
        };
        let mut physical = Volumes::new();
        for (name, pv) in section
            .section("physical_volumes")
            .into_iter()
            .flat_map(|s| &s.sections)
        {
            let pv = Physical::new(pv, version, present);
            if pv.leg.disk.is_none() {
                group.missing.push(pv.leg.name.clone());
            }
            group.members.push(pv.leg.name.clone());
            if pv.doubt.is_some() {
                group.stale.push(pv.leg.name.clone());
            }
            physical.insert(name.clone(), pv);
        }
        for (name, lv) in section
            .section("logical_volumes")
            .into_iter()
            .flat_map(|s| &s.sections)
        {
            group.volumes.push(volume(name, lv, extent, &physical));
        }
        group.refuse_merging(section);
        group
    }
}

impl Group {
    /// Makes every volume doubtful.
    pub(super) fn doubt(&mut self, why: &str) {
        for volume in &mut self.volumes {
            volume.doubts.push(why.to_owned());
        }
    }

    /// What a snapshot holds that is being merged into its origin belongs to the origin already.
    fn refuse_merging(&mut self, section: &Section) {
        let volumes = section.section("logical_volumes").into_iter();
        let segments = volumes
            .flat_map(|s| &s.sections)
            .flat_map(|(_, lv)| &lv.sections);
        let merging = segments.filter_map(|(_, segment)| {
            segment.text("merging_store")?;
            segment.text("origin")
        });
        for origin in merging {
            for volume in self.volumes.iter_mut().filter(|v| v.name == origin) {
                volume.refusal = Some(
                    DiskError::unsupported("opening a logical volume")
                        .file(origin)
                        .expected("a volume whose own extents have its contents")
                        .found("one into which a snapshot is being merged"),
                );
            }
        }
    }
}

fn volume(name: &str, lv: &Section, extent: u64, physical: &Volumes) -> LogicalVolume {
    let status = lv.list("status");
    let mut out = LogicalVolume {
        name: name.to_owned(),
        uuid: lv.text("id").map(str::to_owned),
        len: 0,
        visible: status.contains(&Value::Text("VISIBLE".into())),
        kinds: Vec::new(),
        refusal: None,
        doubts: Vec::new(),
        pieces: Vec::new(),
    };
    let segments = lv.sections.iter().filter(|(n, _)| n.starts_with("segment"));
    for (_, segment) in segments.take(MAX_SEGMENTS) {
        let kind = segment.text("type").unwrap_or("unknown").to_owned();
        let bytes = |key| segment.number(key).unwrap_or(0).checked_mul(extent);
        let (Some(start), Some(len)) = (bytes("start_extent"), bytes("extent_count")) else {
            out.refusal = Some(
                DiskError::corrupt("opening a logical volume")
                    .file(name)
                    .found("a segment larger than any disk"),
            );
            continue;
        };
        out.len = out.len.max(start.saturating_add(len));
        if kind == "striped" || kind == "linear" {
            match stripes(segment, extent, physical, &mut out.doubts) {
                Ok(layout) => out.pieces.push(Piece { start, len, layout }),
                Err(e) => out.refusal = Some(e.file(name)),
            }
        } else {
            out.refusal.get_or_insert_with(|| {
                DiskError::unsupported("opening a logical volume")
                    .file(name)
                    .expected("linear or striped segments")
                    .found(format!("a segment of type {kind}"))
            });
        }
        if !out.kinds.contains(&kind) {
            out.kinds.push(kind);
        }
    }
    out
}

fn stripes(
    segment: &Section,
    extent: u64,
    physical: &Volumes,
    doubts: &mut Vec<String>,
) -> Result<Layout> {
    let bad = |found: String| DiskError::corrupt("opening a logical volume").found(found);
    let mut columns = Vec::new();
    for pair in segment.list("stripes").chunks(2) {
        let [Value::Text(name), Value::Number(first)] = pair else {
            return Err(bad(
                "a stripe without a physical volume and an extent".into()
            ));
        };
        let pv = physical
            .get(name)
            .ok_or_else(|| bad(format!("a stripe on {name}, which the group does not have")))?;
        if pv.twice {
            return Err(DiskError::refused("opening a logical volume")
                .expected("each physical volume of the group once")
                .found(format!("two that are {}", pv.leg.name))
                .hint("give one of them only"));
        }
        if let Some(doubt) = pv.doubt.as_ref().filter(|doubt| !doubts.contains(doubt)) {
            doubts.push(doubt.clone());
        }
        let skip = first
            .checked_mul(extent)
            .and_then(|n| n.checked_add(pv.leg.offset));
        columns.push(Leg {
            offset: skip.ok_or_else(|| bad("an extent beyond any disk".into()))?,
            ..pv.leg.clone()
        });
    }
    match columns.len() {
        0 => Err(bad("a segment without stripes".into())),
        1 => Ok(Layout::Mirror(columns)),
        _ => {
            let chunk = segment
                .number("stripe_size")
                .unwrap_or(0)
                .saturating_mul(512);
            if chunk == 0 {
                return Err(bad("stripes of no length".into()));
            }
            Ok(Layout::Striped { columns, chunk })
        }
    }
}
