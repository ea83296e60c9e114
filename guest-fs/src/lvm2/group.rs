//! A volume group, built from its metadata and the disks that are there.

use super::text::{Section, Value};
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
    /// Physical volumes that are not among the disks given.
    pub missing: Vec<String>,
    /// Damage and oddities.
    pub remarks: Vec<String>,
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
    pieces: Vec<Piece>,
}

impl LogicalVolume {
    /// Identities of the physical volumes it lies on that are not here.
    pub fn missing(&self) -> Vec<String> {
        missing(&self.pieces)
    }

    /// Its bytes. What lies on a disk that is not here is data whose read fails.
    pub fn open(&self) -> Result<Arc<dyn Disk>> {
        if let Some(e) = &self.refusal {
            return Err(e.clone());
        }
        Ok(Arc::new(Mapped::new(self.len, self.pieces.clone())?))
    }
}

impl Group {
    pub(super) fn build(
        name: String,
        section: &Section,
        present: &HashMap<String, Arc<dyn Disk>>,
        remarks: Vec<String>,
    ) -> Self {
        let extent = section
            .number("extent_size")
            .unwrap_or(0)
            .saturating_mul(512);
        let mut group = Self {
            name,
            uuid: section.text("id").map(str::to_owned),
            volumes: Vec::new(),
            missing: Vec::new(),
            remarks,
        };
        // Where extent 0 of each physical volume is, by the name it has in the metadata.
        let mut legs = HashMap::new();
        for (name, pv) in section
            .section("physical_volumes")
            .into_iter()
            .flat_map(|s| &s.sections)
        {
            let id = pv.text("id").unwrap_or_default();
            let disk = present.get(id).cloned();
            if disk.is_none() {
                group.missing.push(id.to_owned());
            }
            let leg = Leg {
                disk,
                offset: pv.number("pe_start").unwrap_or(0).saturating_mul(512),
                name: id.to_owned(),
            };
            legs.insert(name.clone(), leg);
        }
        for (name, lv) in section
            .section("logical_volumes")
            .into_iter()
            .flat_map(|s| &s.sections)
        {
            group.volumes.push(volume(name, lv, extent, &legs));
        }
        group.refuse_merging(section);
        group
    }
}

impl Group {
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

fn volume(name: &str, lv: &Section, extent: u64, legs: &HashMap<String, Leg>) -> LogicalVolume {
    let status = lv.list("status");
    let mut out = LogicalVolume {
        name: name.to_owned(),
        uuid: lv.text("id").map(str::to_owned),
        len: 0,
        visible: status.contains(&Value::Text("VISIBLE".into())),
        kinds: Vec::new(),
        refusal: None,
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
            match stripes(segment, extent, legs) {
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

fn stripes(segment: &Section, extent: u64, legs: &HashMap<String, Leg>) -> Result<Layout> {
    let bad = |found: String| DiskError::corrupt("opening a logical volume").found(found);
    let mut columns = Vec::new();
    for pair in segment.list("stripes").chunks(2) {
        let [Value::Text(name), Value::Number(first)] = pair else {
            return Err(bad(
                "a stripe without a physical volume and an extent".into()
            ));
        };
        let leg = legs
            .get(name)
            .ok_or_else(|| bad(format!("a stripe on {name}, which the group does not have")))?;
        let skip = first
            .checked_mul(extent)
            .and_then(|n| n.checked_add(leg.offset));
        columns.push(Leg {
            offset: skip.ok_or_else(|| bad("an extent beyond any disk".into()))?,
            ..leg.clone()
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
