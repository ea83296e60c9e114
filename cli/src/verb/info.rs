//! `info`: what SOURCE is, and what is on it.

use crate::{
    args::{Global, SourceArgs},
    exit::{Exit, Failure},
    guest::{self, GuestJson},
    names::{hex_if_needed, shown},
    output::{Out, human, table},
    source,
    verb::ls::VolumeJson,
};
use clap::Args;
use disk_io::Disk;
use proxy::{TreeOptions, VolumeReport};
use serde::Serialize;
use std::path::Path;

/// Above so many bytes of tables' worth of disk, grains are counted only when asked for.
const COUNT_UP_TO: u64 = 16 << 40;

/// Show what SOURCE is: format, chain, extents, partitions, file systems
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit info web01-000002.vmdk
  vmdkit info --json web01.vmdk | jq '.chain[].extents[].file'

What was recognised but cannot be read (BitLocker, ReFS, …) is named.")]
pub(crate) struct Info {
    #[command(flatten)]
    source: SourceArgs,
    /// Say what the guest calls itself, its system, its fixed addresses, databases that may have
    /// been open
    #[arg(long)]
    guest: bool,
    /// Count grains even if that reads the tables of a very large chain
    #[arg(long)]
    counts: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json {
    source: String,
    format: &'static str,
    virtual_size: u64,
    sector_size: u32,
    chain: Vec<LinkJson>,
    partition_table: TableJson,
    volumes: Vec<FullVolumeJson>,
    /// With --guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    guest: Option<GuestJson>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct LinkJson {
    depth: usize,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_hex: Option<String>,
    format: &'static str,
    create_type: Option<String>,
    cid: Option<String>,
    parent_cid: Option<String>,
    size: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    facts: Vec<FactJson>,
    extents: Vec<ExtentJson>,
    counts: Option<CountsJson>,
    remarks: Vec<String>,
}

#[derive(Serialize)]
struct FactJson {
    name: String,
    value: String,
}

#[derive(Serialize)]
struct ExtentJson {
    kind: String,
    access: String,
    start: u64,
    length: u64,
    file: Option<String>,
    file_offset: u64,
    file_size: Option<u64>,
    grain_size: Option<u64>,
    version: Option<u64>,
    compressed: Option<bool>,
    unclean: Option<bool>,
}

#[derive(Serialize)]
struct CountsJson {
    stored: u64,
    zero: u64,
    unmapped: u64,
    below: u64,
    bad: u64,
    stored_grains: u64,
    zero_grains: u64,
    unmapped_grains: u64,
}

#[derive(Serialize)]
struct TableJson {
    scheme: &'static str,
    sector_size: u32,
    partitions: Vec<PartitionJson>,
}

#[derive(Serialize)]
struct PartitionJson {
    number: u32,
    start: u64,
    length: u64,
    type_id: String,
    type_name: String,
    name: Option<String>,
    uuid: Option<String>,
    active: bool,
}

#[derive(Serialize)]
struct FullVolumeJson {
    #[serde(flatten)]
    volume: VolumeJson,
    file_system_size: Option<u64>,
    version: Option<String>,
    cluster_size: Option<u32>,
    dirty: Option<bool>,
    remarks: Vec<String>,
}

impl Info {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        let source = source::open_quietly(&self.source, global)?;
        let tree = proxy::Tree::new(source.clone(), TreeOptions::default())?;
        let image = source.image();
        let mut warnings = source.warnings().to_vec();
        let chain = self.chain(image, &mut warnings);
        let volumes = tree.volumes();
        let guest = self.guest.then(|| guest::of([&source]));
        let json = Json {
            source: path_text(&self.source.source),
            format: image.format.name(),
            virtual_size: image.disk.len(),
            sector_size: image.disk.sector_size(),
            chain,
            partition_table: table_json(source.table()),
            volumes: volumes.iter().map(FullVolumeJson::new).collect(),
            guest: guest.as_ref().map(GuestJson::from),
            warnings,
        };
        let mut out = Out::new();
        if self.json {
            out.document(&json)?;
        } else {
            for warning in &json.warnings {
                crate::output::warn(warning);
            }
            text(&mut out, &json, image.format.title(), &volumes)?;
            if let Some(guest) = &guest {
                out.line("")?;
                guest::lines(&mut out, guest, "")?;
                guest::tell(guest);
            }
        }
        out.finish()?;
        Ok(Exit::Done)
    }

    fn chain(&self, image: &disk_image::Image, warnings: &mut Vec<String>) -> Vec<LinkJson> {
        let Some(vmdk) = &image.vmdk else {
            return image.links.iter().enumerate().map(plain_link).collect();
        };
        let links = vmdk.links();
        let tables: u64 = links
            .iter()
            .map(|l| l.capacity)
            .fold(0, u64::saturating_add);
        let counted = self.counts || tables <= COUNT_UP_TO;
        links
            .iter()
            .enumerate()
            .map(|(depth, link)| {
                let counts = match counted.then(|| link.count()).transpose() {
                    Ok(counts) => counts,
                    Err(e) => {
                        warnings.push(e.to_string());
                        None
                    }
                };
                vmdk_link(depth, link, counts)
            })
            .collect()
    }
}

fn path_text(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    shown(path.as_os_str().as_bytes())
}

fn path_hex(path: &Path) -> Option<String> {
    use std::os::unix::ffi::OsStrExt;
    hex_if_needed(path.as_os_str().as_bytes())
}

fn plain_link((depth, link): (usize, &disk_image::Link)) -> LinkJson {
    LinkJson {
        depth,
        file: path_text(&link.path),
        file_hex: path_hex(&link.path),
        format: link.format.name(),
        create_type: None,
        cid: None,
        parent_cid: None,
        size: link.len,
        facts: link
            .facts
            .iter()
            .map(|(name, value)| FactJson {
                name: (*name).to_owned(),
                value: value.clone(),
            })
            .collect(),
        extents: Vec::new(),
        counts: None,
        remarks: Vec::new(),
    }
}

fn vmdk_link(depth: usize, link: &vmdk::Link, counts: Option<vmdk::Counts>) -> LinkJson {
    let cid = |cid: Option<u32>| cid.map(|c| format!("{c:08x}"));
    LinkJson {
        depth,
        file: path_text(&link.path),
        file_hex: path_hex(&link.path),
        format: "vmdk",
        create_type: link.create_type.clone(),
        cid: cid(link.cid),
        parent_cid: cid(link.parent_cid),
        size: link.capacity,
        facts: Vec::new(),
        extents: link.extents.iter().map(extent).collect(),
        counts: counts.map(|c| CountsJson {
            stored: c.stored,
            zero: c.zero,
            unmapped: c.unmapped,
            below: c.below,
            bad: c.bad,
            stored_grains: c.stored_grains,
            zero_grains: c.zero_grains,
            unmapped_grains: c.unmapped_grains,
        }),
        remarks: link.remarks(),
    }
}

fn extent(e: &vmdk::ExtentInfo) -> ExtentJson {
    ExtentJson {
        kind: e.kind.as_str().to_owned(),
        access: e.access.as_str().to_owned(),
        start: e.start,
        length: e.len,
        file: e.file.as_deref().map(path_text),
        file_offset: e.offset,
        file_size: e.file_size,
        grain_size: e.sparse.map(|s| s.grain_size),
        version: e.sparse.map(|s| s.version),
        compressed: e.sparse.map(|s| s.compressed),
        unclean: e.sparse.map(|s| s.unclean),
    }
}

fn table_json(table: &proxy::Table) -> TableJson {
    TableJson {
        scheme: table.scheme.as_str(),
        sector_size: table.sector_size,
        partitions: table
            .partitions
            .iter()
            .map(|p| PartitionJson {
                number: p.number,
                start: p.start,
                length: p.len,
                type_id: p.type_id.clone(),
                type_name: p.type_name.clone(),
                name: p.name.clone(),
                uuid: p.uuid.clone(),
                active: p.active,
            })
            .collect(),
    }
}

impl FullVolumeJson {
    fn new(v: &VolumeReport) -> Self {
        let info = v.info.as_ref();
        Self {
            volume: VolumeJson::new(v),
            file_system_size: v.size,
            version: info.and_then(|i| i.version.clone()),
            cluster_size: info.map(|i| i.cluster_size),
            dirty: info.and_then(|i| i.dirty),
            remarks: info.map(|i| i.remarks.clone()).unwrap_or_default(),
        }
    }
}

fn size(n: u64) -> String {
    format!("{} ({n} bytes)", human(n))
}

fn text(out: &mut Out, json: &Json, format: &str, volumes: &[VolumeReport]) -> Result<(), Failure> {
    let escape = disk_io::error::escape;
    out.line(format!("source        {}", escape(&json.source)))?;
    out.line(format!("format        {format}"))?;
    out.line(format!("virtual size  {}", size(json.virtual_size)))?;
    if json.sector_size != 512 {
        out.line(format!("sector size   {}", json.sector_size))?;
    }
    out.line("")?;
    match json.chain.len() {
        0 | 1 => out.line("image")?,
        n => out.line(format!("chain of {n}, the newest first"))?,
    }
    for link in &json.chain {
        link_text(out, link)?;
    }
    out.line("")?;
    let partitions = &json.partition_table;
    if partitions.partitions.is_empty() {
        out.line("no partition table")?;
    } else {
        out.line(format!(
            "partition table {}, sectors of {} bytes",
            partitions.scheme, partitions.sector_size
        ))?;
        let head = ["", "NUMBER", "START", "LENGTH", "TYPE", "NAME"];
        let mut rows = vec![head.map(String::from).to_vec()];
        for p in &partitions.partitions {
            let active = if p.active { ", active" } else { "" };
            rows.push(vec![
                String::new(),
                format!("p{}", p.number),
                p.start.to_string(),
                human(p.length),
                format!("{} ({}{active})", p.type_name, p.type_id),
                p.name.as_deref().map(escape).unwrap_or_default(),
            ]);
        }
        for line in table(&rows, &[2, 3]) {
            out.line(line)?;
        }
    }
    out.line("")?;
    out.line("volumes")?;
    for line in crate::verb::ls::volume_lines(volumes, false) {
        out.line(format!("  {line}"))?;
    }
    for v in &json.volumes {
        let mut notes = Vec::new();
        if let Some(uuid) = &v.volume.uuid {
            notes.push(format!("uuid {uuid}"));
        }
        match v.dirty {
            Some(true) => notes.push("dirty: it was not closed cleanly".into()),
            Some(false) => notes.push("clean".into()),
            None => {}
        }
        notes.extend(v.remarks.iter().cloned());
        if !notes.is_empty() {
            out.line(format!(
                "  {}: {}",
                v.volume.name,
                escape(&notes.join("; "))
            ))?;
        }
    }
    Ok(())
}

fn link_text(out: &mut Out, link: &LinkJson) -> Result<(), Failure> {
    let escape = disk_io::error::escape;
    let mut facts = Vec::new();
    if let Some(kind) = &link.create_type {
        facts.push(escape(kind));
    }
    if let Some(cid) = &link.cid {
        facts.push(format!("CID {cid}"));
    }
    if let Some(cid) = &link.parent_cid {
        facts.push(format!("parent CID {cid}"));
    }
    facts.extend(
        link.facts
            .iter()
            .map(|f| format!("{} {}", f.name, escape(&f.value))),
    );
    out.line(
        format!(
            "  {}  {}  {}",
            link.depth,
            escape(&link.file),
            facts.join(", ")
        )
        .trim_end(),
    )?;
    const SHOWN: usize = 8;
    for e in link.extents.iter().take(SHOWN) {
        let mut line = format!("       {} {} {}", e.access, e.kind, human(e.length));
        if let Some(file) = &e.file {
            line.push_str(&format!("  {}", escape(file)));
        }
        if let Some(n) = e.file_size {
            line.push_str(&format!(" ({})", human(n)));
        }
        if let Some(n) = e.grain_size {
            line.push_str(&format!(", grains of {}", human(n)));
        }
        if e.compressed == Some(true) {
            line.push_str(", compressed");
        }
        if e.unclean == Some(true) {
            line.push_str(", not closed cleanly");
        }
        out.line(line)?;
    }
    if link.extents.len() > SHOWN {
        out.line(format!(
            "       … {} extents in all; --json lists them",
            link.extents.len()
        ))?;
    }
    if let Some(c) = &link.counts {
        let mut parts = vec![format!("{} stored", human(c.stored))];
        for (n, what) in [
            (c.zero, "zeros"),
            (
                c.unmapped,
                "unmapped (discarded by the guest, read as zeros)",
            ),
            (
                c.below,
                if link.parent_cid.is_some() {
                    "in the parent"
                } else {
                    "unallocated"
                },
            ),
            (c.bad, "UNREADABLE"),
        ] {
            if n > 0 {
                parts.push(format!("{} {what}", human(n)));
            }
        }
        out.line(format!("       {}", parts.join(", ")))?;
    }
    for remark in &link.remarks {
        out.line(format!("       {}", escape(remark)))?;
    }
    Ok(())
}
